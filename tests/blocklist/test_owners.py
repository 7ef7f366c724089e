"""What the lists of one owner may have together."""

import pytest

from edgeblock.blocklist.owners import ROOM, SETS_ROOM, Room
from edgeblock.blocklist.parts import ListRecord
from edgeblock.errors import ListError


def test_the_room_is_counted_by_owner():
    def record(name, uid, size):
        return ListRecord(name, "page", uid=uid, notice={"contact": "x" * size})
    room = Room([record("a", 1, 100)])
    room.take(record("a", 2, 50))
    assert room.told[1] == 0
    room.take(record("b", 1, ROOM - 100))
    with pytest.raises(ListError, match="longer than 4 MiB"):
        room.take(record("a", 1, 200))
    assert room.told[2] > 50 and room.shares["a"][0] == 2
    room.take(ListRecord("b", "page", uid=1))
    room.take(record("a", 1, 200))
    assert room.told[2] == 0


def test_weekly_windows_are_counted_by_owner():
    def record(name, uid, sets):
        return ListRecord(name, "drop", uid=uid, sets=sets)
    room = Room([record("a", 1, SETS_ROOM - 5), record("c", 2, SETS_ROOM)])
    room.take(record("b", 1, 5))
    with pytest.raises(ListError, match="has 6 different sets .* more than 4096; give more entries the same hours"):
        room.take(record("b", 1, 6))
    room.take(record("none", 1, 0))
    room.take(record("a", 1, 4))
    room.take(record("b", 1, 6))
    assert room.sets == {1: 10, 2: SETS_ROOM}
