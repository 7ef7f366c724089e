"""IP headers and sums against scapy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.all import IP, TCP, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, Raw
from scapy.utils import checksum as scapy_checksum

from edgeblock import wire
from tests.core import headers

SOURCE, TARGET = bytes([10, 0, 0, 1]), bytes([192, 0, 2, 1])


def test_ipv4():
    packet = bytes(IP(src="10.0.0.1", dst="192.0.2.1", options=[b"\x01"] * 4) / TCP() / b"x")
    assert wire.find_transport(packet) == (4, SOURCE, TARGET, 6, 24, len(packet), False)
    assert wire.find_transport(packet + b"padding").end == len(packet)


@pytest.mark.parametrize(("more", "offset", "fragment"), [(1, 0, True), (0, 1, True), (0, 0, False)])
def test_fragments(more, offset, fragment):
    packet = bytes(IP(flags=more, frag=offset) / TCP())
    assert wire.find_transport(packet).fragment is fragment
    packet = bytes(IPv6() / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(m=more, offset=offset, nh=6) / TCP())
    found = wire.find_transport(packet)
    assert (found.fragment, found.proto, found.at) == (fragment, 6, 56)


def test_ipv6_extension_headers():
    packet = bytes(IPv6() / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting(addresses=["::1"]) /
                   IPv6ExtHdrDestOpt() / TCP())
    found = wire.find_transport(packet)
    assert (found.proto, found.at) == (6, 40 + 8 + 8 + 24 + 8) and packet[found.at:] == bytes(TCP(packet[found.at:]))
    authentication = bytes([6, 4]) + bytes(22)
    packet = bytes(IPv6(nh=51) / Raw(authentication + bytes(TCP())))
    assert wire.find_transport(packet).at == 64


def test_what_is_not_whole_is_none():
    for packet in (bytes(IP() / TCP()), bytes(IPv6() / IPv6ExtHdrDestOpt() / TCP())):
        assert all(wire.find_transport(packet[:size]) is None for size in range(len(packet)))
    assert wire.find_transport(bytes(IPv6(nh=60) / Raw((b"\x3c" + bytes(7)) * 40))) is None    # no end of headers
    assert wire.find_transport(bytes(IPv6(nh=60) / Raw(b"\x06\x09" + bytes(6)))) is None        # beyond the packet
    assert wire.find_transport(b"\x44" + bytes(IP() / TCP())[1:]) is None


@pytest.mark.parametrize("name", headers.CASES)
def test_the_walk_is_that_of_the_engine_and_of_the_first_stage(name):
    packet, expected = headers.CASES[name]
    found = wire.find_transport(packet)
    if expected is None:
        assert found is None
    else:
        assert (found.proto, found.at, found.fragment) == expected
        assert packet[found.at:found.end] == headers.SEGMENT or found.fragment or expected.proto != 6


@pytest.mark.parametrize("name", [name for name, (_, expected) in headers.CASES.items()
                                  if expected and expected.fragment and name.startswith("6 ")])
def test_a_fragment_and_the_byte_that_names_it(name):
    packet, expected = headers.CASES[name]
    at, named, end = wire.find_fragment(packet)
    assert (at, end, packet[named]) == (expected.at - 8, len(packet), wire.FRAGMENT)


@given(st.binary(min_size=2, max_size=100).filter(any))
def test_checksum_is_that_of_scapy(data):
    assert wire.checksum(wire.sum16(data)) == scapy_checksum(data)


@given(st.binary(max_size=100))
def test_nothing_is_raised_and_nothing_lies_outside(data):
    found = wire.find_transport(data)
    assert found is None or 20 <= found.at <= found.end <= len(data)
