"""The rules in force, where there is no memory for those that are to follow them."""

import json
import os
from unittest.mock import Mock

import pytest

from edgeblock.blocklist.explain import explain
from edgeblock.blocklist.load import load
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.snapshot import ending
from edgeblock.blocklist.terms import parse_time
from edgeblock.daemon import in_force
from edgeblock.daemon.board import Board
from edgeblock.daemon.compiler import Loaded
from edgeblock.daemon.in_force import InForce
from edgeblock.daemon.memory import memory_file, write_all
from tests.daemon.parts import Log


def test_without_memory_for_new_rules_those_in_force_stay(monkeypatch, tmp_path):
    def no_memory(*_):
        raise OSError(28, "No space left on device")

    fds = os.dup(0), os.dup(0)
    first, second = (Loaded(fd, f"digest {fd}", [], [], {}, [], "", False, "content", bytes(16), -1) for fd in fds)
    rules = InForce(Board(1), Log(), tmp_path)
    rules.prepare()
    assert rules.take(first)[0] == fds[0]
    rules.prepare()
    monkeypatch.setattr(in_force, "write_all", no_memory)
    with pytest.raises(OSError, match="No space left"):
        rules.take(second)
    assert (rules.digest, rules.base_file, rules.counters()["loaded"]) == (first.digest, fds[0], 1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fds[1])
    os.fstat(fds[0])
    os.close(fds[0])


def test_notes_are_whole_whatever_was_written_before():
    fd = memory_file(b"a longer text")
    write_all(fd, b"notes")
    assert os.pread(fd, 100, 0) == b"notes"
    os.close(fd)


def test_a_name_is_checked_as_at_another_time(tmp_path):
    (tmp_path / "a.list").write_text("a.example until=2026-01-01\n")
    loaded = load(tmp_path)
    snapshot = loaded.matcher.snapshot
    rules = InForce(Board(1), Log(), tmp_path)
    rules._loaded = Mock(digest="d", key=snapshot.key)
    rules._asked = "d", loaded.matcher, loaded.matcher
    for question, blocked in (('{"name": "a.example", "at": 0}', True), ('{"name": "a.example", "at": 1.8e9}', False),
                              ('"a.example"', False), ('{"name": "a.example", "at": 1e300}', False)):
        assert rules.check(question)["blocked"] is blocked
    for odd in ("5", "[1]", "null", '{"name": 5, "at": 0}', '{"name": "a.example"}', '{"name": "a", "at": "x"}',
                '{"name": "a", "at": Infinity}', '{"name": "a", "at": NaN}', '{"name": "a", "at": [1]}', "{" * 50):
        assert rules.check(odd) == {
            "error": "a name to check is a string in JSON, or an object with a name and Unix seconds (at), "
                     "an address (client) or both"}


def test_a_name_is_checked_for_one_client(tmp_path):
    (tmp_path / "a.list").write_text("a.example until=2026-01-01\n")
    (tmp_path / "a.toml").write_text('clients = ["192.0.2.0/24", "2001:db8::/32"]\n')
    loaded = load(tmp_path)
    rules = InForce(Board(1), Log(), tmp_path)
    rules._loaded = Mock(digest="d", key=loaded.matcher.snapshot.key)
    rules._asked = "d", loaded.matcher, loaded.matcher
    for client, at, blocked in (("192.0.2.7", 0, True), ("2001:db8::7", 0, True), ("198.51.100.7", 0, False),
                                ("192.0.2.7", 1.8e9, False)):
        question = json.dumps({"name": "a.example", "client": client, "at": at})
        assert rules.check(question)["blocked"] is blocked
        assert not rules.check('"a.example"')["blocked"]        # who asked before is forgotten
    for odd in ('{"name": "a.example", "client": "x"}', '{"name": "a.example", "client": 5}'):
        assert "address (client)" in rules.check(odd)["error"]


def test_a_list_that_expires_blocks_nothing_from_then_on(tmp_path):
    (tmp_path / "a.list").write_text("a.example\n")
    (tmp_path / "a.toml").write_text("expires = 2030-01-01\n")
    (tmp_path / "b.list").write_text("b.example\n")
    now, before, after = (parse_time(text) for text in ("2026-12-01", "2029-12-31T23:59:59Z", "2030-01-01"))
    snapshot = load(tmp_path, now=now).matcher.snapshot
    rules = InForce(Board(1), Log(), tmp_path)
    rules._loaded = Mock(digest="d", key=snapshot.key)
    rules._asked = "d", ListMatcher(snapshot), ListMatcher(ending(snapshot))
    for moment, blocked in ((before, True), (after, False)):
        for name, awaited in (("a.example", blocked), ("b.example", True)):
            told = rules.check(json.dumps({"name": name, "at": moment}))
            [record] = explain(load(tmp_path, now=moment), [name], moment)
            assert told["blocked"] is record.blocked is awaited
    [rule] = rules.check(json.dumps({"name": "a.example", "at": before}))["verdicts"][0]["tried"][0]["rules"]
    [here] = explain(load(tmp_path, now=before), ["a.example"], before)[0].verdicts[0].tried[0].rules
    assert rule["changes"] == here.changes == "2030-01-01T00:00:00Z"


def test_the_longest_list_is_what_comes_near_the_most_of_a_list(tmp_path):
    rules = InForce(Board(1), Log(), tmp_path)
    assert rules.longest == 0
    rules._loaded = Mock(lists=[])
    assert rules.longest == 0
    rules._loaded = Mock(lists=[{"entries": 3}, {"entries": 8}, {"entries": 5}])
    assert rules.longest == 8
