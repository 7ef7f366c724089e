"""Marks that user space sets: the kernel's programs find them, whatever the flow's ends look like."""

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.errors import SystemProblem
from edgeblock.netfilter.stage1 import Stage
from edgeblock.source.marking import Marking
from edgeblock.source.recall import Recall
from tests.core import samples as s

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def stage():
    with Stage(16, 120.0, hellos=1, marks=65_536) as loaded:
        yield loaded


def packets(udp, source, destination, sport, dport):
    """One of each direction."""
    if udp:
        def one(a, b, c, d):
            return s.ip_packet(17, struct.pack("!HHHH", c, d, 9, 0) + b"x", a, b)
    else:
        def one(a, b, c, d):
            return s.tcp(1, b"x", source=a, destination=b, sport=c, dport=d)
    return one(source, destination, sport, dport), one(destination, source, dport, sport)


ADDRESS = st.one_of(st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)),
                    st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6)))
PORT = st.integers(0, 65535)


@given(udp=st.booleans(), ends=ADDRESS, sport=PORT, dport=PORT)
def test_the_kernel_finds_what_user_space_has_marked_in_both_directions(stage, udp, ends, sport, dport):
    marking = Marking(stage.maps["marks"])
    there, back = packets(udp, *map(str, ends), sport, dport)
    for packet in (there, back):
        for what, said in ((1, "done"), (3, "blocked"), (2, "")):
            assert marking.mark(packet, what)
            for seen in (there, back):
                assert [name for name in ("done", "blocked") if stage.ask(name, seen)] == [said] * bool(said)
    assert not marking.failed


def test_what_has_no_ports_is_counted_and_not_marked(stage):
    marking = Marking(stage.maps["marks"])
    assert not marking.mark(s.ip_packet(1, bytes(8)), 1) and not marking.mark(b"", 1)
    assert marking.failed == 2


def test_a_map_that_cannot_be_written_is_counted(stage):
    closed = os.dup(stage.maps["marks"])
    marking = Marking(closed)
    os.close(closed)
    assert not marking.mark(s.tcp(1), 3) and marking.failed == 1


def test_a_map_of_something_else_is_refused(stage):
    with pytest.raises(SystemProblem, match="map marks has keys of 4 and values of .* not this edgeblock's"):
        Marking(stage.maps["hellos"])
    with pytest.raises(SystemProblem, match="map flows has keys of 4 and"):
        Recall(stage.maps["hellos"], stage.maps["hellos"], 1, 0)
