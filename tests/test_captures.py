"""Captures that lie beside the repository, through `replay`: every disguise blocks with a rule for its name and none
with another; of other people's captures every name is found and none invented. docs/captures.md has the exceptions.
"""

import io
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from corpus import BESIDE, CORPUS, corpus

from edgeblock.commands import replay

DISGUISED = sorted((BESIDE / "evasion").glob("*.pcap"))
LISTED, PAGE = "blocked.example.com", "blocked.example.com/bad/page.html"

MUST_FIND = {"core", "midstream", "proxied"}
NOT_READ = {"captures/ndpi-default-quic_t51.pcap"}      # Google's own QUIC, gone from the net
NOT_NAMED = {"captures/sv-http2-errorcode-input.pcap"}  # clear-text HTTP/2, which names.jsonl does not list


def replayed(capture: Path, rules: Path, listed: str) -> list[dict]:
    (rules / "one.list").write_text(listed + "\n")
    out = io.StringIO()
    replay.run(capture, rules, json_output=True, out=out, err=io.StringIO())
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("capture", DISGUISED, ids=lambda path: path.stem)
def test_a_disguised_name_blocks_and_no_other_does(capture, tmp_path):
    listed = PAGE if capture.name.startswith("http-py-path-") else LISTED
    blocked = [row for row in replayed(capture, tmp_path, listed) if row["verdict"] == "reset"]
    assert blocked and {row["host"] for row in blocked} == {LISTED}
    for other in ("other.example.com", "example.com/bad/page.html", "blocked.example.com/bad/other.html"):
        assert {row["verdict"] for row in replayed(capture, tmp_path, other)} <= {"accept"}, other


def flows(rows: Iterable[dict]) -> set[tuple]:
    """Who asked whom for which host, over what. A port in a Host line is not part of the name."""
    found = set()
    for row in rows:
        host = (row["host"] or "").lower().rstrip(".")
        if ":" in host and not host.startswith("["):
            host = host.rpartition(":")[0]
        found.add((row["proto"], host, row["src"], row["sport"], row["dst"], row["dport"]))
    return found


@pytest.mark.parametrize("entry", corpus(), ids=lambda entry: Path(entry["file"]).stem)
def test_names_of_other_peoples_captures(entry, tmp_path):
    rows = replayed(CORPUS / entry["file"], tmp_path, "other.example.com")
    found = flows(rows)
    named = [name for name in entry["names"] if name["proto"] != "gquic"]
    if entry["file"] not in NOT_READ:
        assert flows(name for name in named if name["class"] in MUST_FIND or name["proto"] == "quic") <= found
    inside = entry.get("tunnel_names", [])
    if entry["file"] not in NOT_NAMED:
        assert found <= flows([*named, *inside])
    targets = {row["path"] for row in rows if row["proto"] == "http"}
    assert {name["uri"] for name in named if name["proto"] == "http" and name["class"] == "core"} <= targets
