"""QUIC captures that lie beside the repository: each disguise blocks with a rule for its name, none with another."""

import io
import json
from pathlib import Path

import pytest
from corpus import BESIDE, CORPUS, corpus

from edgeblock import replay

DISGUISED = sorted((BESIDE / "evasion").glob("*quic*.pcap"))
# What a correct replay need not find: Google's own QUIC, whose versions are gone from the net.
NOT_READ = {"captures/ndpi-default-quic_t51.pcap"}
NAMED = [entry for entry in corpus() if any(name["proto"] == "quic" for name in entry["names"])]


def replayed(capture: Path, rules: Path, listed: str) -> list[dict]:
    (rules / "one.list").write_text(listed + "\n")
    out = io.StringIO()
    replay.run(capture, rules, json_output=True, out=out, err=io.StringIO())
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("capture", DISGUISED, ids=lambda path: path.stem)
def test_disguises(capture, tmp_path):
    rows = replayed(capture, tmp_path, "blocked.example.com")
    assert [(row["proto"], row["host"]) for row in rows if row["verdict"] == "reset"] == [
        ("quic", "blocked.example.com")]
    assert {row["verdict"] for row in replayed(capture, tmp_path, "other.example.com")} == {"accept"}


@pytest.mark.parametrize("entry", NAMED, ids=lambda entry: Path(entry["file"]).stem)
def test_names_of_the_corpus(entry, tmp_path):
    def key(row: dict) -> tuple:
        return row["host"].lower(), row["src"], row["sport"], row["dst"], row["dport"]

    rows = replayed(CORPUS / entry["file"], tmp_path, "other.example.com")
    found = {key(row) for row in rows if row["proto"] == "quic"}
    expected = {key(name) for name in entry["names"] if name["proto"] == "quic"}
    assert found == (set() if entry["file"] in NOT_READ else expected)
