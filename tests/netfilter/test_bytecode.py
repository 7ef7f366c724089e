"""The BPF programs, run by a small interpreter over packets that scapy builds, which therefore knows their payload.

In: programs and packets. Out: yes or no. The live tests run the same programs in the kernel.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, IPOption
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)

from edgeblock.netfilter import bytecode
from edgeblock.netfilter.policy import ANSWER_BYTES, ANSWER_OTHER_BYTES, QUIC_VERSIONS, UNMERGED_BYTES

SERVER_HELLO = bytes.fromhex("160303007a020000760303") + bytes(range(32))
# The beginning of NSS's, with a cookie; OpenSSL's is the same but for lengths and session id.
RETRY = bytes.fromhex("16030300d0020000cc0303cf21ad74e59a6111be1d8c021e65b891c2"
                      "a211167abb8c5e079e09e2c8a8339c20") + bytes(165)
# Whether it is an answer to a name: yes, no, or if it is long.
ANSWERS = {
    "ServerHello": (SERVER_HELLO, "yes"), "HelloRetryRequest": (RETRY, ""),
    "HelloRetryRequest, TLS 1.0 in its record": (b"\x16\x03\x01" + RETRY[3:], ""),
    "HelloRetryRequest and change_cipher_spec": (RETRY + b"\x14\3\3\0\1\1", ""),
    "half a HelloRetryRequest": (RETRY[:60], ""),
    "Certificate": (b"\x16\3\3\4\0\x0b", "yes"), "change_cipher_spec": (b"\x14\3\3\0\1\1\x17\3\3\4\0", "yes"),
    "application data": (b"\x17\3\3\4\0", "yes"), "alert": (b"\x15\3\3\0\2", ""), "not quite TLS": (b"\x16\2", ""),
    "SMTP": (b"220 mail.example ESMTP\r\n", ""), "FTP": (b"220-Welcome\r\n", ""), "SSH": (b"SSH-2.0-OpenSSH\r\n", ""),
    "100": (b"HTTP/1.1 100 Continue\r\n\r\n", ""), "103": (b"HTTP/1.1 103 Early Hints\r\n", ""),
    "blank": (b"\r\n", ""),
    "SOCKS and a HelloRetryRequest": (b"\5\0\0\1\0\0\0\0\0\0" + RETRY, "long"),
    "a key exchange of SSH": (b"\0\0\4\x1c\x09\x14", "long"), "random": (b"\xd1\x5e", "long"),
}

PADDING = [PadN(optdata=b"\0" * 4)]
EXTENSIONS = [IPv6ExtHdrHopByHop(options=PADDING), IPv6ExtHdrDestOpt(options=PADDING), IPv6ExtHdrFragment(),
              IPv6ExtHdrRouting(), IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt()]


def run(text: str, packet: bytes) -> int:
    """What the kernel's interpreter would return (Documentation/networking/filter.rst)."""
    words = text.split(",")
    program = [tuple(map(int, one.split())) for one in words[1:]]
    assert int(words[0]) == len(program)
    a = x = at = 0
    while True:
        operation, yes, no, k = program[at]
        at += 1
        if operation in (0x30, 0x50, 0x20, 0x40, 0x48):
            size = {0x30: 1, 0x50: 1, 0x48: 2}.get(operation, 4)
            start = k + (x if operation in (0x50, 0x40, 0x48) else 0)
            if start + size > len(packet):
                return 0
            a = int.from_bytes(packet[start:start + size])
        elif operation == 0x80:
            a = len(packet)
        elif operation == 0xB1:
            if k >= len(packet):
                return 0
            x = 4 * (packet[k] & 15)
        elif operation == 0x54:
            a &= k
        elif operation == 0x74:
            a >>= k
        elif operation == 0x04:
            a += k
        elif operation == 0x0C:
            a += x
        elif operation == 0x07:
            x = a
        elif operation == 0x05:
            at += k
        elif operation == 0x06:
            return k
        else:
            at += yes if {0x15: a == k, 0x1D: a == x, 0x35: a >= k, 0x45: a & k}[operation] else no


def ip4(options: int):
    return IP(src="192.0.2.1", dst="192.0.2.2", options=[IPOption(b"\x01")] * (4 * options))


def ip6(extension=None):
    header = IPv6(src="2001:db8::1", dst="2001:db8::2")
    return header if extension is None else header / extension.copy()


def tcp(options: int, payload: bytes, flags: str = "A"):
    return TCP(flags=flags, options=[("NOP", None)] * (4 * options)) / payload


@pytest.mark.parametrize("payload", [b"", b"x", b"xxxx", b"x" * 1400])
@pytest.mark.parametrize("tcp_words", range(11))
def test_bare_is_exact_whatever_the_options(tcp_words, payload):
    for ip_words in range(11):
        packet = bytes(ip4(ip_words) / tcp(tcp_words, payload))
        assert len(packet) == 40 + 4 * (ip_words + tcp_words) + len(payload)
        assert run(bytecode.bare(4), packet) == (not payload)
    assert run(bytecode.bare(6), bytes(ip6() / tcp(tcp_words, payload))) == (not payload)


def test_an_urgent_pointer_is_not_bare():
    for words in range(11):
        assert run(bytecode.bare(4), bytes(ip4(words) / tcp(0, b"", "AU"))) == 0
    assert run(bytecode.bare(6), bytes(ip6() / tcp(0, b"", "AU"))) == 0


@pytest.mark.parametrize("extension", EXTENSIONS, ids=lambda e: e.summary())
def test_behind_an_extension_header_nothing_is_certain(extension):
    """It may have payload (so: queued), it may be no answer (so: not done), it may be an Initial (so: queued)."""
    assert run(bytecode.bare(6), bytes(ip6(extension) / tcp(0, b""))) == 0
    assert run(bytecode.answer(6), bytes(ip6(extension) / tcp(0, SERVER_HELLO + bytes(1000)))) == 0
    datagram = bytes(ip6(extension) / UDP(sport=1, dport=443) / (b"\x40" * 30))
    assert run(bytecode.short(6), datagram) == 0
    assert run(bytecode.initial(6), datagram) == 1


@pytest.mark.parametrize("family", [4, 6])
def test_the_largest_headers_alone_are_no_answer(family):
    largest = ip4(10) if family == 4 else ip6()
    bare = bytes(largest / tcp(10, b""))
    assert run(bytecode.answer(family), bare) == 0
    payload = ANSWER_BYTES - len(bare)
    assert payload >= 128
    for least, data in ((payload, SERVER_HELLO), (payload + ANSWER_OTHER_BYTES - ANSWER_BYTES, b"")):
        assert run(bytecode.answer(family), bytes(largest / tcp(10, data.ljust(least - 1, b"\0")))) == 0
        assert run(bytecode.answer(family), bytes(largest / tcp(10, data.ljust(least, b"\0")))) == 1


@pytest.mark.parametrize("words", [(0, 0), (0, 3), (10, 10), (5, 7)])
@pytest.mark.parametrize("what", ANSWERS)
def test_what_a_server_says_by_its_first_bytes(what, words):
    data, answer = ANSWERS[what]
    for size in (len(data), 700, 1400):
        sent = data.ljust(size, b"x")
        for header, family in ((ip4(words[0]), 4), (ip6(), 6)):
            packet = bytes(header / tcp(words[1], sent))
            least = ANSWER_OTHER_BYTES if answer == "long" else ANSWER_BYTES
            assert run(bytecode.answer(family), packet) == (bool(answer) and len(packet) >= least), size


@pytest.mark.parametrize("first", range(256))
def test_short_headers_by_the_first_byte(first):
    for header, family in ((ip4(0), 4), (ip4(3), 4), (ip6(), 6)):
        packet = bytes(header / UDP(sport=1, dport=443) / (bytes([first]) + b"\0" * 20))
        assert run(bytecode.short(family), packet) == (first < 0x80 and first not in (20, 21, 22))


@pytest.mark.parametrize("first", [0x40, 0x80, 0xC0])
def test_what_may_be_several_datagrams_is_certainly_nothing(first):
    for header, family in ((ip4(0), 4), (ip4(3), 4), (ip6(), 6)):
        room = UNMERGED_BYTES - len(bytes(header / UDP()))
        for size, alone in ((room, True), (room + 1, False), (60_000, False)):
            packet = bytes(header / UDP(sport=1, dport=443) / (bytes([first]) + bytes(size - 1)))
            assert run(bytecode.short(family), packet) == (alone and first == 0x40)
            assert run(bytecode.initial(family), packet) == (not alone)


def test_an_empty_datagram_is_not_certainly_short():
    assert run(bytecode.short(4), bytes(ip4(0) / UDP())) == 0
    assert run(bytecode.short(6), bytes(ip6() / UDP())) == 0


@pytest.mark.parametrize("first", [0x00, 0x40, 0x7F, 0x80, 0xC0, 0xC3, 0xFF])
@pytest.mark.parametrize("version", [*QUIC_VERSIONS, 0, 2, 0x0A0A0A0A, 0xFFFFFFFF])
def test_initials_by_first_byte_and_version(first, version):
    payload = bytes([first]) + version.to_bytes(4) + b"\0" * 30
    for header, family in ((ip4(0), 4), (ip4(10), 4), (ip6(), 6)):
        packet = bytes(header / UDP(sport=1, dport=443) / payload)
        assert run(bytecode.initial(family), packet) == (first >= 0x80 and version in QUIC_VERSIONS)


@pytest.mark.parametrize("first", range(256))
@pytest.mark.parametrize("second", [0xFE, 0x03, 0xFF])
def test_dtls_handshakes_are_read_on_all_ports(first, second):
    payload = bytes([first, second, 0xFD]) + b"\0" * 30
    for header, family in ((ip4(0), 4), (ip4(10), 4), (ip6(), 6)):
        packet = bytes(header / UDP(sport=1, dport=443) / payload)
        assert run(bytecode.initial(family), packet) == (first in (20, 21, 22) and second == 0xFE)


@given(st.binary(max_size=200))
def test_any_bytes_end_in_an_answer(packet):
    for program in (bytecode.bare, bytecode.answer, bytecode.short, bytecode.initial):
        for family in (4, 6):
            assert run(program(family), packet) in (0, 1)
