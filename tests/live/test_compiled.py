"""A list that was compiled and signed elsewhere, in a running daemon's directory; and one that nobody may sign."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import Running, start

from edgeblock.lab import Lab, page, until
from tests.blocklist.test_signature import Signer

pytestmark = pytest.mark.live

SIGNER, OTHER = Signer(7), Signer(8)
SOON = 60.0


def audit(running: Running, name: str) -> list[dict]:
    lines = [json.loads(line) for line in running.daemon.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "rules audit" and line["list"] == name]


def is_reset(lab: Lab, host: str) -> bool:
    return lab.fetch(f"https://{host}/").exit in (35, 56)


def compiled(running: Running, folder: Path, name: str, text: str, signer: Signer) -> None:
    """NAME.list with all that belongs to it, as the operator's compiling box makes it, into the rules directory."""
    folder.mkdir()
    (folder / f"{name}.list").write_text(text)
    key = running.rules.with_name("key")
    subprocess.run([sys.executable, "-m", "edgeblock", "compile", "--rules", str(folder), "--key", str(key),
                    "--parts", str(folder)], check=True, capture_output=True, timeout=60)
    part = (folder / f"{name}.compiled").read_bytes()
    (folder / f"{name}.compiled.minisig").write_bytes(
        signer.sign(part, f"timestamp:{int(time.time())}\tfile:{name}.compiled\thashed"))
    for ending in ("compiled.minisig", "compiled", "commitments", "list"):
        path = folder / f"{name}.{ending}"
        new = running.rules / f".{path.name}.new"
        new.write_bytes(path.read_bytes())
        new.rename(running.rules / path.name)


def test_a_name_is_blocked_from_a_list_that_was_compiled_elsewhere(tmp_path):
    with Lab() as lab:
        running = start(lab, tmp_path, rules=f'compiled_signers = ["{SIGNER.public}"]\n')
        assert lab.fetch("https://open.example/").body == page("open.example")
        long = "".join(f"n{number}.example\n" for number in range(300_000))     # read by a process of its own
        compiled(running, tmp_path / "made", "far", f"open.example\n{long}", SIGNER)
        assert until(lambda: is_reset(lab, "open.example"), SOON), running.daemon.last_words()
        assert until(lambda: audit(running, "far"), SOON)
        [taken] = audit(running, "far")
        assert (taken["change"], taken["entries"], taken["compiled_by"]) == ("taken", 300_001, str(SIGNER.key))
        [base] = [one for one in (tmp_path / "lists").iterdir() if one.name == "far.part"]
        assert base.samefile(tmp_path / "rules.snapshot")       # the short ones lie over it
        assert is_reset(lab, "listed.example")
        assert "is not taken" not in running.daemon.log.read_text()

        compiled(running, tmp_path / "other", "near", "notexample.com\n", OTHER)
        assert until(lambda: is_reset(lab, "notexample.com"), SOON), running.daemon.last_words()
        [taken] = audit(running, "near")
        assert "compiled_by" not in taken
        assert until(lambda: "near.compiled: is not taken, and the list is read: is signed with the key"
                     in running.daemon.log.read_text(), SOON)
