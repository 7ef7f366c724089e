"""The flow table: whatever came and went in between, a remembered flow is found, and a forgotten one is not."""

import random
from collections import OrderedDict

import pytest

from tests.core import samples as s
from tests.core.playing import LISTED, engine

ROOM = 1000             # of 2048 slots: many flows stand behind others
HELLO = s.hello(LISTED)


@pytest.mark.parametrize("seed", range(3))
def test_a_full_table_remembers_exactly_the_flows_that_were_touched_last(seed):
    """A blocked flow that comes again is the old one; the engine counts new ones, a plain LRU says which they are."""
    dice = random.Random(seed)
    judge = engine(LISTED.decode(), flows=ROOM, report=False)
    packets = [s.tcp(1000, HELLO, s.ACK | s.PSH, sport=1024 + number) for number in range(ROOM * 3 // 2)]
    remembered: OrderedDict[int, None] = OrderedDict()
    created = 0
    for _ in range(12_000):
        number = dice.randrange(len(packets))
        if number not in remembered:
            created += 1
            if len(remembered) == ROOM:
                remembered.popitem(last=False)
        remembered[number] = None
        remembered.move_to_end(number)
        assert not judge.judge(packets[number], 1.0).accept
        assert judge.counters()["flows"] == created
    assert judge.counters()["table_flows"] == ROOM


def test_flows_that_expire_make_room_and_leave_the_others_findable():
    judge = engine(LISTED.decode(), flows=ROOM, idle=10.0, report=False)
    packets = [s.tcp(1000, HELLO, s.ACK | s.PSH, sport=1024 + number) for number in range(ROOM)]
    for packet in packets:
        judge.judge(packet, 0.0)
    young = random.Random(4).sample(packets, ROOM // 2)
    for packet in young:
        judge.judge(packet, 8.0)
    for packet in young:                # two old ones go with each of them
        judge.judge(packet, 12.0)
    counters = judge.counters()
    assert counters["flows"] == ROOM
    assert counters["flows_expired"] == counters["flows"] - counters["table_flows"] == ROOM - len(young)
