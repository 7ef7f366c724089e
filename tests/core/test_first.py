"""The first bytes of a flow are read at once where they can be; what comes of it is what comes of reading them like
all others: the same decisions and names, and the same of every packet behind them, whatever it holds.
"""

import random
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeblock.disguises import packets as s
from edgeblock.disguises.streams import Path
from edgeblock.disguises.table import DISGUISES, Ask, Disguise
from tests.core.playing import LISTED, OTHER, engine, play

OVER_TCP = [disguise for disguise in DISGUISES if disguise.proto != "quic"]
HELLO, OTHER_HELLO = s.hello(LISTED), s.hello(OTHER)
MESSAGES = (
    HELLO, OTHER_HELLO, s.hello(), s.hello(OTHER, behind=s.extension(0xFE0D, bytes(30))), s.hello(OTHER, LISTED),
    s.sized_hello(OTHER, 2040), s.sized_hello(LISTED, 2300), s.records(s.hello_message(LISTED), 60), HELLO[:100],
    OTHER_HELLO + s.record(b"\1", 20), OTHER_HELLO + HELLO, OTHER_HELLO + s.request(LISTED),
    s.record(b"\1\2", 21) + HELLO, b"\x16\x03\x01\x00\x05\x02" + bytes(40), s.request(LISTED), b"\5\1\0" + HELLO,
)
POLICIES = ({}, {"conflict": "pass", "no_sni": "drop"}, {"ech": "block", "unparsable": "drop", "midstream": "drop"},
            {"unproven": "drop", "flow_bytes": 4096})


def check(packets: list, **policies) -> None:
    one, other = (engine(LISTED.decode(), flows=500, **policies) for _ in range(2))
    other.by_steps = True
    for flags in (1, 3):
        first, second = play(one, packets, flags=flags), play(other, packets, flags=flags)
        assert first.decisions == second.decisions
        assert first.counters == second.counters


@pytest.mark.parametrize(("disguise", "policies"), list(zip(OVER_TCP, cycle(POLICIES), strict=False)),
                         ids=lambda value: getattr(value, "name", ""))
def test_every_disguise(disguise: Disguise, policies: dict):
    for host in (LISTED, OTHER):
        check(list(disguise.make(Ask(host), Path(), random.Random(1))), **policies)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Messages one behind the other, over one another, altered and in pieces."""
    path = Path(six=draw(st.booleans()), isn=draw(st.sampled_from((1000, 0xFFFFFF00))))
    packets = path.opening() if draw(st.booleans()) else []
    at = draw(st.sampled_from((0, 0, 0, 1, -1)))
    for _ in range(draw(st.integers(1, 4))):
        message = bytearray(draw(st.sampled_from(MESSAGES)))
        for where in draw(st.lists(st.integers(0, len(message) - 1), max_size=2)):
            message[where] = draw(st.integers(0, 255))
        cut = draw(st.sampled_from((0, 0, len(message) // 2)))
        flags = s.ACK | s.PSH | draw(st.sampled_from((0, 0, 0, s.URG, s.FIN)))
        packets += [path.data(at + start, bytes(piece), flags)
                    for start, piece in ((0, message[:cut]), (cut, message[cut:])) if piece]
        at = draw(st.sampled_from((0, at, at + len(message))))
    return packets


@settings(max_examples=300)
@given(streams(), st.sampled_from(POLICIES))
def test_whatever_follows(packets: list[bytes], policies: dict):
    check(packets, **policies)
