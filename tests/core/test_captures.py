"""The engine over captures that lie beside the repository: disguised requests, and the corpus with its names.

Both folders are optional; without them these tests have no cases, and pytest says so. Each difference between the
corpus and what is found is explained by name in docs/corpus.md.
"""

import io
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from edgeblock import replay
from tests.corpus import BESIDE, CORPUS, corpus

EVASION = Path(os.environ.get("EDGEBLOCK_EVASION") or BESIDE / "evasion")
CAPTURES = sorted(path.name for path in EVASION.glob("*.pcap"))
TCP = [name for name in CAPTURES if not name.startswith("quic") and "quic" not in name]


def replayed(capture: Path, rules: Path, *lines: str) -> list[dict]:
    """What `replay --json` says of a capture with one list of `lines`."""
    rules.mkdir(exist_ok=True)
    (rules / "court.list").write_text("".join(f"{line}\n" for line in lines))
    out = io.StringIO()
    replay.run(capture, rules, json_output=True, out=out, err=io.StringIO())
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("name", TCP)
def test_a_disguised_request_is_blocked(name, tmp_path):
    rule = "blocked.example.com/bad/page.html" if "http-py-path" in name else "blocked.example.com"
    rows = replayed(EVASION / name, tmp_path / "rules", rule)
    assert [row for row in rows if row["verdict"] == "reset" and row["host"] == "blocked.example.com"]


@pytest.mark.parametrize("name", TCP)
def test_another_rule_blocks_none_of_them(name, tmp_path):
    rows = replayed(EVASION / name, tmp_path / "rules", "other.example.com", "=example.com", "locked.example.com",
                    "blocked.example.com/good/page.html")
    assert {row["verdict"] for row in rows} <= {"accept"}
    assert any(row["host"] == "blocked.example.com" for row in rows)


# ---- the corpus


EXPECTED = {"core"}         # of the classes in names.jsonl; the others may be found, and none may be invented


def host_of(text: str | None) -> str | None:
    host = (text or "").lower().rstrip(".")
    if ":" in host and not host.startswith("["):
        host = host.rsplit(":", 1)[0].rstrip(".")
    return host or None


@pytest.mark.parametrize("entry", corpus(), ids=lambda entry: Path(entry["file"]).name)
def test_the_names_of_the_corpus(entry, tmp_path):
    rows = replayed(CORPUS / entry["file"], tmp_path / "rules", "nothing.invalid")
    found = Counter((row["proto"], host_of(row["host"])) for row in rows if row["proto"] in ("tls", "http"))
    known = {(name["proto"], host_of(name.get("host"))) for name in entry["names"]}
    known |= {(name["proto"], host_of(name.get("host"))) for name in entry.get("tunnel_names", [])}
    expected = Counter((name["proto"], host_of(name.get("host"))) for name in entry["names"]
                       if name["class"] in EXPECTED and name["proto"] in ("tls", "http"))
    assert sorted(set(expected) - set(found), key=str) == []
    assert sorted(set(found) - known, key=str) == []
