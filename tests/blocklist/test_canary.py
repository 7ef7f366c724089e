"""The name that a daemon asks itself for: in every snapshot of a daemon's, in nobody's list, and lifted by nobody."""

import time

import pytest

from edgeblock.blocklist import canary
from edgeblock.blocklist.explain import explain_alone
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.refresh import refresh
from edgeblock.blocklist.snapshot import open_snapshot
from edgeblock.blocklist.store import Store
from edgeblock.config import Rules

KEY = bytes(range(16))


@pytest.fixture
def refreshed(tmp_path):
    """What a refresh of a directory with this list says, and the matcher of its snapshot."""
    def make(text, probed):
        home = tmp_path / str(probed)
        (home / "rules").mkdir(parents=True)
        (home / "rules" / "mine.list").write_text(text)
        store = Store(home / "state", KEY)
        outcome = refresh(Rules(directory=home / "rules", key=home / "state" / "key"), store, time.time(),
                          probed=probed)
        with store.open() as file:
            return outcome, ListMatcher(open_snapshot(file.read(), KEY))
    return make


def test_it_is_in_the_snapshot_and_in_nothing_that_is_said(refreshed):
    plain, without = refreshed("listed.example\n", False)
    outcome, matcher = refreshed("listed.example\n", True)
    control, neighbour = canary.control_name(KEY), canary.neighbour_name(KEY)
    assert explain_alone(matcher, control).blocked and not explain_alone(matcher, neighbour).blocked
    assert not explain_alone(without, control).blocked
    assert explain_alone(matcher, "www.listed.example").blocked
    assert [one["name"] for one in outcome.lists] == [one["list"] for one in outcome.changes] == ["mine"]
    assert outcome.content == plain.content
    assert canary.LIST not in repr(outcome) and control not in repr(outcome)


def test_no_list_takes_it_out(refreshed):
    control = canary.control_name(KEY)
    _, matcher = refreshed(f"@@{control}\n@@={control}\nlisted.example\n", True)
    assert explain_alone(matcher, control).blocked


def test_a_second_refresh_publishes_nothing_new(tmp_path):
    (tmp_path / "rules").mkdir()
    store = Store(tmp_path / "state", KEY)
    rules = Rules(directory=tmp_path / "rules", key=tmp_path / "state" / "key")
    for _ in range(2):
        outcome = refresh(rules, store, time.time(), probed=True)
        seen = store.snapshot.stat().st_ino
    assert outcome.lists == outcome.changes == []
    refresh(rules, store, time.time(), probed=True)
    assert store.snapshot.stat().st_ino == seen
