"""The packet view against scapy, every truncation, and checksums of odd and even sizes."""

import random

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.packet import Raw
from scapy.packet import raw as as_bytes

from edgeblock.core.packet import view
from tests.core import headers
from tests.core import samples as s

FOUR = {"src": "192.0.2.1", "dst": "198.51.100.9"}
SIX = {"src": "2001:db8::1", "dst": "2001:db8::9"}
BODY = bytes(range(251))


def tcp(**settings):
    return TCP(sport=1025, dport=443, seq=0xFEDCBA98, ack=0x12345678, flags="PA", urgptr=513, **settings)


PACKETS = {
    "ipv4": IP(**FOUR) / tcp() / BODY,
    "ipv4-options": IP(**FOUR, options=[IPOption_NOP()] * 7) / tcp() / BODY,
    "ipv4-most-options": IP(**FOUR, options=[IPOption_NOP()] * 40) / tcp() / BODY,
    "tcp-options": IP(**FOUR) / tcp(options=[("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 2))]) / BODY,
    "tcp-most-options": IP(**FOUR) / tcp(options=[("NOP", None)] * 40) / BODY,
    "ipv6": IPv6(**SIX) / tcp() / BODY,
    "hop-by-hop": IPv6(**SIX) / IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(4))]) / tcp() / BODY,
    "long-hop-by-hop": IPv6(**SIX) / IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(200))]) / tcp() / BODY,
    "destination": IPv6(**SIX) / IPv6ExtHdrDestOpt() / tcp() / BODY,
    "routing": IPv6(**SIX) / IPv6ExtHdrRouting(addresses=[]) / tcp() / BODY,
    "atomic": IPv6(**SIX) / IPv6ExtHdrFragment(offset=0, m=0, id=7) / tcp() / BODY,
    "chain": IPv6(**SIX) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting(addresses=[])
             / IPv6ExtHdrFragment(offset=0, m=0, id=7) / IPv6ExtHdrDestOpt() / tcp() / BODY,
    "udp": IP(**FOUR) / UDP(sport=1025, dport=443) / BODY,
    "udp6": IPv6(**SIX) / IPv6ExtHdrDestOpt() / UDP(sport=1025, dport=443) / BODY,
    "empty": IP(**FOUR) / tcp(),
}


@pytest.mark.parametrize("name", PACKETS)
def test_scapy_agrees(name):
    data = as_bytes(PACKETS[name])
    seen = view(data)
    other = PACKETS[name].__class__(data)
    layer = other[UDP] if UDP in other else other[TCP]
    assert seen["kind"] == ("udp" if UDP in other else "tcp")
    assert seen["family"] == other.version
    assert (seen["sport"], seen["dport"]) == (layer.sport, layer.dport)
    assert seen["payload"] == (bytes(other[Raw]) if Raw in other else b"")
    assert seen["checksum"] and not seen["cut"] and not seen["hop_by_hop"]
    size = 4 if other.version == 4 else 16
    assert (len(seen["source"]), seen["source"]) == (size, s.address(other.src))
    assert seen["destination"] == s.address(other.dst)
    if TCP in other:
        assert (seen["seq"], seen["ack"], seen["flags"]) == (layer.seq, layer.ack, int(layer.flags))
        assert seen["urgent"] == layer.urgptr


@pytest.mark.parametrize("name", PACKETS)
def test_every_truncation_is_bad_or_cut(name):
    data = as_bytes(PACKETS[name])
    for size in range(len(data)):
        seen = view(data[:size])
        assert seen["kind"] == "bad" or seen["cut"] and seen["checksum"], size
        if seen["kind"] == "tcp":
            assert BODY.startswith(seen["payload"])


@pytest.mark.parametrize("name", PACKETS)
def test_what_a_link_padded_is_not_payload(name):
    data = as_bytes(PACKETS[name])
    assert view(data + b"padding") == view(data)


@pytest.mark.parametrize("name", PACKETS)
def test_a_flipped_bit_breaks_the_checksum(name):
    data = bytearray(as_bytes(PACKETS[name]))
    for at in range(len(data) - 1, len(data) - 20, -3):
        data[at] ^= 0x10
        seen = view(bytes(data))
        assert seen["kind"] not in ("tcp", "udp") or not seen["checksum"] or seen["cut"], at
        data[at] ^= 0x10


@pytest.mark.parametrize("make", [s.tcp, s.tcp6])
def test_checksums_of_every_size(make):
    draw = random.Random(7)
    for size in [*range(70), 1447, 1448, 1449, 65_000]:
        payload = draw.randbytes(size)
        assert view(make(1, payload))["checksum"]
        assert not view(make(1, payload, checksum=1))["checksum"]
        assert not view(make(1, payload, checksum=0x8000))["checksum"]
    assert view(make(1, b"\xff" * 999))["checksum"]
    assert view(make(1, bytes(999)))["checksum"]


def test_a_udp_checksum_may_be_absent_in_ipv4_only():
    segment = b"\0\1\0\2\0\x0c\0\0body"
    assert view(s.ip_packet(17, segment))["checksum"]
    assert not view(s.ip_packet(17, segment, s.CLIENT6, s.SERVER6))["checksum"]


@pytest.mark.parametrize("data,kind", [
    (b"", "bad"), (b"\x45", "bad"), (bytes(60), "bad"), (b"\x55" + bytes(59), "bad"),
    (s.ip_packet(1, b"ping"), "other"), (s.ip_packet(47, bytes(40)), "other"),
    (s.ip_packet(58, b"ping6", s.CLIENT6, s.SERVER6), "other"),
    (b"\x44" + s.tcp(1)[1:], "bad"),                            # IPv4 header length of 16
    (b"\x4f" + s.tcp(1)[1:], "bad"),                            # 60: longer than the packet
    (s.tcp(1)[:2] + b"\0\x13" + s.tcp(1)[4:], "bad"),           # total length of 19
    (s.tcp(1)[:32] + b"\x40" + s.tcp(1)[33:], "bad"),           # TCP header length of 16
    (s.tcp(1)[:32] + b"\xf0" + s.tcp(1)[33:], "bad"),           # 60: longer than the packet
    (s.ip_packet(17, b"\0\1\0\2\0\7\0\0"), "bad"),              # UDP length of 7
    (s.ip_packet(0, bytes(8), s.CLIENT6, s.SERVER6), "other"),  # hop-by-hop, then hop-by-hop without an end
])
def test_broken_headers(data, kind):
    if kind == "other" and len(data) == 48:
        kind = "bad"
    assert view(data)["kind"] == kind


@pytest.mark.parametrize("field,kind", [(b"\x20\0", "fragment"), (b"\0\1", "fragment"), (b"\x3f\xff", "fragment"),
                                        (b"\x40\0", "tcp"), (b"\x80\0", "tcp"), (b"\0\0", "tcp")])
def test_ipv4_fragments(field, kind):
    data = s.tcp(1, b"x")
    assert view(data[:6] + field + data[8:])["kind"] == kind


@pytest.mark.parametrize("offset,more,kind", [
    (0, 0, "tcp"), (0, 1, "fragment"), (1, 0, "fragment"), (5, 1, "fragment")])
def test_ipv6_fragments(offset, more, kind):
    data = as_bytes(IPv6(**SIX) / IPv6ExtHdrFragment(offset=offset, m=more, id=7) / tcp() / BODY)
    assert view(data)["kind"] == kind


def test_a_hop_by_hop_header_that_is_not_the_first():
    data = as_bytes(IPv6(**SIX) / IPv6ExtHdrHopByHop() / IPv6ExtHdrHopByHop() / tcp())
    assert view(data)["hop_by_hop"]
    data = as_bytes(IPv6(**SIX) / IPv6ExtHdrDestOpt() / IPv6ExtHdrHopByHop() / tcp())
    assert view(data)["hop_by_hop"]


def test_a_source_route_makes_the_checksum_unknown():
    # RFC 8200, 8.1: the pseudo-header has the final destination.
    data = as_bytes(IPv6(**SIX) / IPv6ExtHdrRouting(addresses=["2001:db8::77"], segleft=1) / tcp() / BODY)
    broken = data[:-1] + bytes([data[-1] ^ 1])
    assert view(data)["checksum"] and view(broken)["checksum"]


def test_lengths_left_to_hardware():
    data = s.tcp(1, b"payload")
    assert view(data[:2] + b"\0\0" + data[4:])["payload"] == b"payload"
    data = s.tcp6(1, b"payload")
    assert view(data[:4] + b"\0\0" + data[6:])["payload"] == b"payload"


def test_a_chain_of_headers_as_long_as_the_packet():
    chain = b"".join(bytes([60, 0]) + bytes(6) for _ in range(8000))
    assert view(b"\x60\0\0\0" + (64_000).to_bytes(2, "big") + b"\x3c\x40" + bytes(32) + chain)["kind"] == "bad"


@pytest.mark.parametrize("name", headers.CASES)
def test_the_table_of_headers(name):
    packet, expected = headers.CASES[name]
    seen = view(packet)
    if expected is None:
        assert seen["kind"] == "bad"
        assert ("many" in seen) == (packet[6] == headers.DESTINATION and len(packet) > 40 + 8 * headers.MANY)
    elif expected.fragment:
        assert seen["kind"] == "fragment"
    elif expected.proto != 6:
        assert seen["kind"] == "other"
    else:
        assert (seen["kind"], seen["at"], seen["payload"]) == ("tcp", expected.at, b"payload")


def test_any_bytes_have_a_view():
    draw = random.Random(11)
    for first in (0x45, 0x46, 0x4F, 0x60):
        for _ in range(3000):
            data = bytes([first]) + draw.randbytes(draw.randrange(120))
            assert view(data)["kind"] in ("bad", "other", "fragment", "tcp", "udp")
