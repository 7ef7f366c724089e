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


PART = s.hello(b"www.innocent.example")[:60]
REQUEST = b"POST / HTTP/1.1\r\nHost: open.example\r\nContent-Length: 100\r\n\r\n"
IN_THE_MIDDLE = {"hello": [PART], "hello, out of order": [b"", PART], "request line": [REQUEST[:9]],
                 "body": [REQUEST + b"x"], "second hello": [s.hello(b"www.innocent.example") + PART]}


@pytest.mark.parametrize("how", IN_THE_MIDDLE)
def test_a_flow_in_the_middle_of_a_message_is_held(how):
    judge = engine(LISTED.decode(), idle=10.0, hold=1000.0, report=False)
    judge.judge(s.tcp(1000, flags=s.SYN), 0.0)
    at = 1001 if len(IN_THE_MIDDLE[how]) == 1 else 1101
    judge.judge(s.tcp(at, IN_THE_MIDDLE[how][-1]), 0.0)
    other = s.tcp(1, HELLO, sport=2)
    for second, kept in ((999.0, 1), (1001.0, 0)):
        judge.judge(other, second)
        assert judge.counters()["flows_expired"] == 1 - kept


@pytest.mark.parametrize("sent", [[], [s.hello(b"www.innocent.example")], [s.request(b"www.innocent.example")],
                                  [REQUEST + bytes(100)], [b"\xff" * 50]])
def test_a_flow_of_which_nothing_is_in_hand_is_not(sent):
    judge = engine(LISTED.decode(), idle=10.0, hold=1000.0, report=False)
    judge.judge(s.tcp(1000, flags=s.SYN), 0.0)
    for data in sent:
        judge.judge(s.tcp(1001, data), 0.0)
    judge.judge(s.tcp(1, HELLO, sport=2), 11.0)
    assert judge.counters()["flows_expired"] == 1


def test_when_room_is_short_parts_go_after_what_is_empty_and_before_what_is_kept():
    judge = engine(LISTED.decode(), flows=ROOM, report=False)
    judge.judge(s.tcp(1000, HELLO, sport=1), 0.0)                           # blocked
    judge.judge(s.tcp(1000, REQUEST[:40], sport=2), 0.0)                    # HTTP, in the middle
    judge.judge(s.tcp(1000, PART, sport=3), 0.0)
    for number in range(2 * ROOM):
        judge.judge(s.tcp(1000, flags=s.SYN, sport=1024 + number), 1.0)     # empty
    counters = judge.counters()
    assert (counters["evicted_settled"], counters["evicted_kept"]) == (0, 0)
    created = counters["flows"]
    for sport in (1, 2, 3):
        judge.judge(s.tcp(1000, b"x", sport=sport), 2.0)
    assert judge.counters()["flows"] == created
    for number in range(2 * ROOM):
        judge.judge(s.tcp(1000, PART, sport=1024 + number), 3.0)            # a flood of halves
    assert judge.counters()["evicted_kept"] == 0
    for number in range(2 * ROOM):
        judge.judge(s.tcp(1000, REQUEST[:40], sport=10_000 + number), 4.0)  # more than half of all is kept
    assert judge.counters()["evicted_kept"] > 0
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
