"""The rules in force, where there is no memory for those that are to follow them."""

import os

import pytest

from edgeblock.daemon import in_force
from edgeblock.daemon.board import Board
from edgeblock.daemon.compiling import Loaded
from edgeblock.daemon.in_force import InForce
from edgeblock.daemon.memory import memory_file, write_all
from tests.daemon.parts import Log


def test_without_memory_for_new_rules_those_in_force_stay(monkeypatch):
    def no_memory(*_):
        raise OSError(28, "No space left on device")

    fds = os.dup(0), os.dup(0)
    first, second = (Loaded(fd, f"digest {fd}", [], [], {}, [], "", False, "content", bytes(16), -1) for fd in fds)
    rules = InForce(Board(1), Log())
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
