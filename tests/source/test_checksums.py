"""Checksums of a capture: which are tricks, which were left to hardware."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.all import ICMP, IP, TCP, UDP, IPv6, IPv6ExtHdrDestOpt, Raw

from edgeblock import wire
from edgeblock.source.checksums import LEFT, RIGHT, TRUST, VERIFY, WRONG, Survey, examine

HEADS = {
    "v4": IP(src="10.0.0.1", dst="192.0.2.1"),
    "v4 with options": IP(src="10.0.0.1", dst="192.0.2.1", options=[(b"\x01")] * 4),
    "v6": IPv6(src="fd00::1", dst="2001:db8::1"),
    "v6 with options": IPv6(src="fd00::1", dst="2001:db8::1") / IPv6ExtHdrDestOpt(),
}


def packet(kind="v4", payload=b"odd", transport=None, **fields):
    return bytes(HEADS[kind] / (transport or TCP)(sport=4000, dport=443, **fields) / Raw(payload))


def left(data, with_length=True):
    """The packet as Linux gives it to a card: the folded sum of the pseudo-header in the checksum's place."""
    header = wire.find_transport(data)
    at = header.at + (16 if header.proto == wire.TCP else 6)
    total = wire.pseudo_sum(header.src, header.dst, header.proto, header.end - header.at if with_length else 0)
    return data[:at] + total.to_bytes(2, "big") + data[at + 2:]


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("transport", [TCP, UDP])
@pytest.mark.parametrize("payload", [b"", b"even", b"odd"])
def test_examine(kind, transport, payload):
    right = packet(kind, payload, transport)
    source, found = examine(right)
    assert found is RIGHT and source == wire.find_transport(right).src + bytes([6 if transport is TCP else 17])
    assert examine(left(right)) == (source, LEFT)
    assert examine(left(right, with_length=False)) == (source, LEFT)
    assert examine(packet(kind, payload, transport, chksum=0xBEEF)) == (source, WRONG)


def test_what_has_nothing_to_check():
    none = packet("v4", b"x", UDP, chksum=0)
    assert none[26:28] == b"\0\0" and examine(none) is None
    assert examine(packet("v6", b"x", UDP, chksum=0))[1] is WRONG
    assert examine(bytes(HEADS["v4"] / ICMP())) is None
    assert examine(bytes(IP(flags="MF") / UDP() / Raw(bytes(8)))) is None
    assert examine(b"") is None
    assert examine(packet()[:30]) is None


def test_udp_that_is_shorter_than_its_packet():
    data = bytearray(packet("v4", b"abcd", UDP) + b"tail")
    data[2:4] = len(data).to_bytes(2, "big")
    assert examine(bytes(data))[1] is RIGHT


def survey(*packets, mode="auto"):
    made = Survey(mode)
    for data in packets:
        made.add(data)
    made.close()
    return made


BAD = packet(payload=b"decoy", chksum=0xBEEF)


def test_one_wrong_among_right_ones_is_junk():
    for right in (1, 5, 500):
        made = survey(BAD, *[packet()] * right)
        assert made.flag(BAD) == VERIFY and made.sources == 0


def test_a_trick_repeated_is_still_one():
    assert survey(packet(), packet(), *[BAD] * 11).flag(BAD) == VERIFY


def test_a_source_that_never_gets_one_right_leaves_them_to_hardware():
    for wrong in (BAD, packet(chksum=0)):
        made = survey(*[wrong] * 30)
        assert made.flag(wrong) == TRUST and made.sources == 1
    other = packet("v6", chksum=0xBEEF)
    assert survey(*[BAD] * 30, other, packet("v6")).flag(other) == VERIFY


def test_hardly_ever_right_is_by_chance():
    assert survey(packet(), *[BAD] * 1000).flag(BAD) == TRUST


def test_the_pseudo_header_sum_is_hardware_whoever_sent_it():
    assert survey(*[packet()] * 50, left(packet())).flag(left(packet())) == TRUST


def test_protocols_of_one_address_are_apart():
    udp = packet(payload=b"x", transport=UDP, chksum=0xBEEF)
    made = survey(*[packet()] * 5, BAD, udp, udp)
    assert made.flag(BAD) == VERIFY and made.flag(udp) == TRUST


def test_the_other_modes():
    assert survey(mode="verify").flag(left(packet())) == VERIFY
    assert survey(mode="ignore").flag(BAD) == TRUST
    assert survey(mode="verify").flag(BAD, cut=True) == TRUST


@given(st.binary(max_size=80))
def test_nothing_is_raised_for_any_bytes(data):
    made = survey(data, BAD, packet())
    assert made.flag(data or b"\0") in (VERIFY, TRUST)
