"""Frames of every link type and tunnel, made by scapy: where their packet is, and the same around an answer."""

import pytest
from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, CookedLinux, Dot1AD, Dot1Q, Ether
from scapy.layers.ppp import HDLC, PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from edgeblock.source.capture import Capture, CaptureWriter, reframe
from edgeblock.source.links import MAX_LABELS, MAX_TUNNELS, find_packet

V4 = bytes(IP(src="10.0.0.1", dst="192.0.2.1") / UDP(sport=1, dport=53) / b"hello")
V6 = bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=1, dport=53) / b"hello")
OUTER, OUTER6 = IP(src="198.51.100.1", dst="198.51.100.2"), IPv6(src="2001:db8:1::1", dst="2001:db8:1::2")


def label(bottom, number=100):
    return MPLS(label=number, s=bottom, ttl=64)


FRAMES = {
    "vlan": (1, lambda p: Ether() / Dot1Q() / p), "qinq": (1, lambda p: Ether() / Dot1AD() / Dot1Q() / p),
    "mpls": (1, lambda p: Ether(type=0x8847) / label(1) / p),
    "mpls_stack": (1, lambda p: Ether(type=0x8847) / label(0) / label(0, 5) / label(1, 6) / p),
    "mpls_over_vlan": (1, lambda p: Ether() / Dot1Q(type=0x8847) / label(1) / p),
    "mpls_pseudowire": (1, lambda p: Ether(type=0x8847) / label(1) / Raw(bytes(4)) / Ether() / p),
    "pppoe": (1, lambda p: Ether() / PPPoE(sessionid=1) / PPP() / p),
    "ppp": (9, lambda p: PPP() / p), "ppp_hdlc": (50, lambda p: HDLC() / PPP() / p),
    "ppp_bare": (50, lambda p: PPP() / p),
    "ppp_direction": (204, lambda p: Raw(b"\x01") / HDLC() / PPP() / p),
    "cisco": (104, lambda p: Raw(b"\x0f\0" + (b"\x08\0" if isinstance(p, IP) else b"\x86\xdd")) / p),
    "any": (113, lambda p: CookedLinux() / p), "raw": (101, lambda p: p),
    "gre": (1, lambda p: Ether() / OUTER / GRE() / p),
    "gre_key": (1, lambda p: Ether() / OUTER / GRE(key_present=1, key=7, seqnum_present=1, chksum_present=1) / p),
    "gre_bridged": (1, lambda p: Ether() / OUTER / GRE(proto=0x6558) / Ether() / p),
    "gre6": (1, lambda p: Ether() / OUTER6 / GRE() / p),
    "vxlan": (1, lambda p: Ether() / OUTER / UDP(sport=9, dport=4789) / VXLAN(vni=1, flags=8) / Ether() / p),
    "gtp": (1, lambda p: Ether() / OUTER / UDP(sport=9, dport=2152) / GTP_U_Header(teid=1) / p),
    "gtp_5g": (1, lambda p: Ether() / OUTER6 / UDP(sport=9, dport=2152) / GTP_U_Header(teid=1, E=1, next_ex=0x85)
               / GTPPDUSessionContainer() / p),
    "in_ip": (1, lambda p: Ether() / OUTER / p), "gtp_in_gre": (
        1, lambda p: Ether() / OUTER / GRE() / OUTER / UDP(sport=9, dport=2152) / GTP_U_Header(teid=1) / p),
}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("packet", [V4, V6], ids=["ipv4", "ipv6"])
def test_a_frame_and_its_answer(tmp_path, name, packet):
    link, build = FRAMES[name]
    frame = bytes(build(IP(packet) if packet is V4 else IPv6(packet)))
    start = find_packet(link, frame)
    assert frame[start:start + len(packet)] == packet
    with CaptureWriter(tmp_path / "a.pcap", link=link) as writer:
        writer.write(1.0, link, frame)
    with Capture(tmp_path / "a.pcap") as capture:
        record, = capture
    assert record.packet == packet and reframe(record, packet, False)[:start] is not None
    longer = bytes(IP(V4) / Raw(b"x" * 40)) if packet is V4 else bytes(IPv6(V6) / Raw(b"x" * 40))
    for turned in (False, True):
        answer = reframe(record, longer, turned)
        assert find_packet(link, answer) == start and answer[start:] == longer


def test_an_answer_goes_back_through_the_tunnel():
    link, build = FRAMES["gtp"]
    frame = bytes(build(IP(V4)))

    class Seen:
        start = find_packet(link, frame)
    Seen.link, Seen.frame = link, frame
    back = Ether(reframe(Seen, V4 + b"more", True))
    assert (back[IP].src, back[IP].dst) == (OUTER.dst, OUTER.src)
    assert back[IP].len == len(bytes(back[IP])) and back[UDP].len == back[IP].len - 20
    again = IP(bytes(back[IP]))
    del again.chksum
    assert IP(bytes(again)).chksum == back[IP].chksum


@pytest.mark.parametrize("name", FRAMES)
def test_a_cut_frame_is_never_misread(name):
    link, build = FRAMES[name]
    frame = bytes(build(IP(V4)))
    for size in range(len(frame)):
        start = find_packet(link, frame[:size])
        assert -1 <= start <= size + 8


def test_what_is_no_tunnel_stays_what_it_is():
    for inside in (UDP(sport=1, dport=4789) / b"hello, this is no vxlan",
                   UDP(sport=1, dport=2152) / Raw(b"nor gtp" * 3), GRE(b"\0\1\x88\x0bpptp"), Raw(b"erspan")):
        assert find_packet(1, bytes(Ether() / OUTER / inside)) == 14
    piece = Ether() / IP(src="198.51.100.1", dst="198.51.100.2", frag=3) / GRE() / IP(V4)
    assert find_packet(1, bytes(piece)) == 14


def test_stacks_are_bounded():
    labels = b"\0\0\0\1" * MAX_LABELS + b"\0\0\1\1"
    assert find_packet(1, bytes(12) + b"\x88\x47" + labels + V4) == -1
    frame = IP(V4)
    for _ in range(MAX_TUNNELS + 1):
        frame = OUTER / frame
    assert find_packet(101, bytes(frame)) == 20 * MAX_TUNNELS
