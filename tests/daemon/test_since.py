"""Since when a box has what is listed: over restarts, back and forth, and whatever the file says."""

import os
from pathlib import Path

import pytest

from edgeblock.daemon.board import Board
from edgeblock.daemon.compiler import Loaded
from edgeblock.daemon.in_force import InForce
from edgeblock.daemon.since import FILE, since
from tests.daemon.parts import Log


def test_a_restart_with_the_same_lists_does_not_change_it(tmp_path: Path):
    assert since(tmp_path, "one", 100.0) == 100.0
    assert since(tmp_path, "one", 200.0) == 100.0
    assert since(tmp_path, "two", 300.0) == 300.0
    assert since(tmp_path, "one", 400.0) == 400.0       # rolled back: it is in force since then, not since 100
    assert os.stat(tmp_path / FILE).st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == [FILE]


def test_a_time_ahead_of_the_clock_is_none(tmp_path: Path):
    """The clock was wrong then, or is now."""
    since(tmp_path, "one", 900.0)
    assert since(tmp_path, "one", 100.0) == 100.0


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"content": "one"}', '{"content": "one", "since": "1"}',
                                  '{"content": "one", "since": true}', '{"content": "one", "since": NaN}',
                                  '{"content": "one", "since": -1e999}', "[" * 1000,
                                  '{"since": 1, "content": "one" ' + " " * 2000 + "}",
                                  '{"content": ["one"], "since": 1}', "\x00\xff"])
def test_whatever_the_file_says_there_is_an_answer(tmp_path: Path, text: str):
    (tmp_path / FILE).write_text(text)
    assert since(tmp_path, "one", 100.0) == 100.0
    assert since(tmp_path, "one", 200.0) == 100.0


def test_a_pipe_or_a_link_in_its_place_holds_nobody_up(tmp_path: Path):
    os.mkfifo(tmp_path / FILE)
    assert since(tmp_path, "one", 100.0) == 100.0
    (tmp_path / FILE).unlink()
    (tmp_path / "other").write_text('{"content": "one", "since": 1}')
    (tmp_path / FILE).symlink_to(tmp_path / "other")
    assert since(tmp_path, "one", 100.0) == 100.0


def test_where_nothing_can_be_written_it_counts_from_now(tmp_path: Path):
    assert since(tmp_path / "nowhere", "one", 100.0) == 100.0


def test_rules_in_force_keep_it_while_their_content_is_the_same(tmp_path: Path):
    def loaded(content: str) -> Loaded:
        return Loaded(os.dup(0), f"digest {content}", [], [], {}, [], "", False, content, bytes(16), -1)

    since(tmp_path, "one", 100.0)
    rules = InForce(Board(1), Log(), tmp_path)
    began = rules.kept
    for content in ("one", "one", "two"):
        rules.prepare()
        rules.take(loaded(content))
        assert (rules.kept == 100.0) is (content == "one")
    assert rules.kept >= began
