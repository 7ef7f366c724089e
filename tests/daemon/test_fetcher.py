"""What the daemon takes of edgeblock-fetch's status, which another user writes. In: files, honest and not. Out: rows,
and what is said where there are none."""

import json
import os
import time

import pytest

from edgeblock.commands.status import sourced
from edgeblock.config import Fetch
from edgeblock.daemon.fetcher import DEAD, LOOKING, SIZE_MAX, Changes, Fetcher, rows_of
from edgeblock.fleet.fetch import write_status
from edgeblock.fleet.sources import FetchSettings
from edgeblock.ledger.kinds import CODES, why_wrong

ROW = {"name": "court", "kind": "https", "version": '"1"', "bytes": 10, "files": ["court.list"], "count": 1,
       "every": 3600.0, "checked": 100, "changed": 50, "error": "", "grave": False, "since": 50, "began": 40,
       "failures": 0, "next": 4000, "told": {}}


@pytest.fixture
def place(tmp_path):
    return tmp_path / "status.json"


def fetcher(place, required=False):
    made = Fetcher(Fetch(status=place, required=required))
    return made


def again(made):
    """As a second later."""
    made._looked -= LOOKING
    return made.status()


def write(place, *rows, **more):
    place.write_text(json.dumps({"format": 1, "sources": [{**ROW, **row} for row in rows], **more}))


def test_where_nobody_ever_fetched_there_is_nothing_to_say(place):
    assert fetcher(place).status() == {"state": "none", "problem": "", "sources": {}}
    assert list(sourced(fetcher(place).status(), 0)) == []
    assert fetcher(place, required=True).status() == {
        "state": "gone", "problem": f"{place}: is not there; is edgeblock-fetch running?", "sources": {}}


def test_a_row_for_each_source_and_what_becomes_of_it(place):
    made = fetcher(place)
    write(place, {}, {"name": "zone", "kind": "zone", "failures": 3, "error": "it fails", "grave": True})
    said = made.status()
    assert said["state"] == "running" and said["sources"]["court"] == {
        "kind": "https", "version": '"1"', "bytes": 10, "count": 1, "every": 3600, "checked": 100, "changed": 50,
        "error": "", "grave": False, "since": 50, "began": 40, "failures": 0, "next": 4000}
    lines = list(sourced(said, 110))
    assert lines == [("sources", "2, 1 failing"), ("source", "zone NOT GENUINE since 1 m 0 s: it fails")]
    write(place, {"checked": 109})
    assert list(sourced(again(made), 110)) == [("sources", "1, 0 failing; each has answered in the last 1 s")]


def test_one_of_the_same_size_in_the_same_place_is_read_as_well(place):
    made = fetcher(place)
    for checked in (100, 101, 102):
        write(place, {"checked": checked})
        assert again(made)["sources"]["court"]["checked"] == checked


def test_one_that_takes_long_to_be_read_is_read_less_often(place, monkeypatch):
    clock, read = [100.0], []

    def slow(text):
        read.append(clock[0])
        clock[0] += 0.5
        raise ValueError

    monkeypatch.setattr("edgeblock.daemon.fetcher.rows_of", slow)
    monkeypatch.setattr("edgeblock.daemon.fetcher.time.monotonic", lambda: clock[0])
    made = fetcher(place)
    write(place, {})
    for _ in range(40):
        made.status()
        clock[0] += 1.0
    assert read == [100.0, 110.5, 121.0, 131.5]


def test_what_the_fetcher_writes_is_what_the_daemon_reads(tmp_path, place):
    write_status(FetchSettings(status=place), [ROW], 1.0)
    assert fetcher(place).status()["sources"].keys() == {"court"}


def test_who_has_gone_is_missed_and_what_was_known_stays(place):
    made = fetcher(place)
    write(place, {})
    assert made.status()["state"] == "running"
    old = time.time() - DEAD - 10
    os.utime(place, (old, old))
    said = again(made)
    assert said["state"] == "gone" and "was not written for 7" in said["problem"] and said["sources"]
    os.utime(place)
    assert again(made)["state"] == "running"
    place.unlink()
    said = again(made)
    assert said["state"] == "gone" and "is not there" in said["problem"] and said["sources"].keys() == {"court"}
    assert next(sourced(said, 0))[1].startswith("NOBODY FETCHES: ")


def test_one_that_was_gone_before_we_began_is_missed_too(place):
    write(place, {})
    os.utime(place, (1, 1))
    assert fetcher(place).status()["state"] == "gone"


def test_it_is_looked_at_once_a_second_and_read_when_it_has_changed(place, monkeypatch):
    made = fetcher(place)
    write(place, {})
    made.status()
    place.unlink()
    assert made.status()["state"] == "running"


@pytest.mark.parametrize("text", [
    b"", b"{", b"[]", b"3", b"\xff", b'{"format": 2, "sources": []}', b'{"format": 1}',
    b'{"format": 1, "sources": {}}',
    b'{"format": 1, "sources": [3]}', b"[" * 100_000, b'{"format": 1, "sources": [' + b"9" * 10_000 + b"]}",
    *(json.dumps({"format": 1, "sources": [{**ROW, **row}]}).encode() for row in (
        {"name": ""}, {"name": "../x"}, {"name": "a b"}, {"name": "ä"}, {"name": "x" * 65}, {"name": 3},
        {"name": "a\n"}, {"bytes": -1}, {"bytes": "1"}, {"bytes": True}, {"bytes": 1e300}, {"failures": float("nan")},
        {"checked": float("inf")}, {"changed": 1 << 50}, {"kind": None}, {"version": ["x"]}, {"error": {}}))])
def test_what_is_no_status_is_none_and_never_believed_by_half(place, text):
    place.write_bytes(text)
    said = fetcher(place).status()
    assert said["state"] == "gone" and said["sources"] == {} and "is no status of edgeblock-fetch" in said["problem"]


def test_no_file_holds_the_daemon_up(place, tmp_path):
    os.mkfifo(place)
    assert fetcher(place).status()["state"] == "gone"
    place.unlink()
    secret = tmp_path / "key"
    secret.write_text(json.dumps({"format": 1, "sources": []}))
    place.symlink_to(secret)            # whoever may write there is not to have others' files read
    assert fetcher(place).status()["state"] == "gone"
    place.unlink()
    with place.open("wb") as file:
        file.truncate(SIZE_MAX + 1)
    assert fetcher(place).status()["state"] == "gone"


def test_words_are_short_and_printable(place):
    row = {**ROW, "version": "\x1b" * 500, "error": "x\n" * 500}
    rows = rows_of(json.dumps({"format": 1, "sources": [row]}).encode())
    assert rows["court"]["version"].isprintable() and rows["court"]["error"].isprintable()
    assert len(rows["court"]["error"]) < 1000


def said(state, *rows):
    return {"state": state, "sources": {row["name"]: {**ROW, **row} for row in rows}}


def test_the_ledger_has_codes_and_times_and_nobody_s_words():
    changes = Changes()
    made = [changes.since(one) for one in (
        said("none"), said("running", {"name": "court"}), said("running", {"name": "court"}),
        said("running", {"name": "court", "failures": 1, "error": "secret.example"}),
        said("running", {"name": "court", "failures": 2, "grave": True}),
        said("running", {"name": "court", "changed": 60, "version": "secret.example", "kind": "secret"}),
        said("gone", {"name": "court", "changed": 60}), said("running", {"name": "court", "changed": 60}),
        said("running"))]
    assert [[(one["source"], one["code"]) for one in some] for some in made] == [
        [], [("court", "")], [], [("court", "fetch")], [("court", "forged")], [("court", "")], [("", "silent")],
        [("", "")], [("court", "gone")]]
    everything = [one for some in made for one in some]
    assert all(why_wrong("source", one) is None and (one["code"] in CODES or not one["code"]) for one in everything)
    assert "secret" not in repr(everything)
    assert everything[0] == {"source": "court", "kind": "https", "code": "", "files": 1, "bytes": 10,
                             "changed": "1970-01-01T00:00:50.000000Z"}


@pytest.mark.parametrize("told, release", [
    ({"ring": "early", "wanted": 17, "taken": 16, "waiting": "ring", "bad": "targets:15", "held": "a:1 b-c:2"},
     {"ring": "early", "wanted": 17, "taken": 16, "waiting": "ring", "bad": [("targets", "15")],
      "held": [("a", "1"), ("b-c", "2")]}),
    ({}, {"ring": "", "wanted": 0, "taken": 0, "waiting": "", "bad": [], "held": []}),
    ({"ring": "a b", "wanted": "17", "taken": True, "waiting": ["ring"], "bad": 'x"y:1 z:1' + "0" * 20, "held": 5},
     {"ring": "", "wanted": 0, "taken": 0, "waiting": "", "bad": [], "held": []}),
    ({"wanted": -1, "taken": 10 ** 15, "bad": "a:1 " * 50},
     {"ring": "", "wanted": 0, "taken": 0, "waiting": "", "bad": [("a", "1")] * 16, "held": []}),
    # The status cuts words at a hundred characters: the last of these was a longer number.
    ({"bad": ("authority:1 " * 9)[:99] + "1"},
     {"ring": "", "wanted": 0, "taken": 0, "waiting": "", "bad": [("authority", "1")] * 8, "held": []})])
def test_what_a_repository_says_of_its_releases(place, told, release):
    write(place, {"kind": "tuf", "told": told})
    assert fetcher(place).status()["sources"]["court"]["release"] == release
    write(place, {"kind": "tuf", "told": "words"}, {"name": "other", "told": told})
    assert all("release" not in one for one in fetcher(place).status()["sources"].values())
