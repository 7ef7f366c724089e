"""What may stand before a message: PROXY headers, SOCKS, and ClientHellos in the midst of something else."""

import ipaddress
import struct

import pytest

from edgeblock.core import prefix
from edgeblock.disguises.streams import Path
from tests.core import samples as s
from tests.core.playing import LISTED, OTHER, engine, play

ADDRESSES = b"\xc6\x33\x64\x09\xcb\x00\x71\x07\x9c\x40\x01\xbb"


def proxy2(body: bytes = ADDRESSES, command: int = 0x21, family: int = 0x11) -> bytes:
    """A header of PROXY v2 (proxy-protocol.txt, 2.2)."""
    return b"\r\n\r\n\0\r\nQUIT\n" + bytes([command, family]) + s.vector(2, body)


def socks5(destination: bytes, methods: bytes = b"\0", between: bytes = b"", port: int = 443) -> bytes:
    """A client's side of RFC 1928: a name, or an address of 4 or 16 bytes behind its kind."""
    return (b"\5" + s.vector(1, methods) + between + b"\5\1\0" + destination + struct.pack("!H", port))


def name5(name: bytes) -> bytes:
    return b"\3" + s.vector(1, name)


PASSWORD = b"\1" + s.vector(1, b"user") + s.vector(1, b"")
TOKEN = b"\1\1" + s.vector(2, bytes(range(200)))
V4 = ipaddress.ip_address("203.0.113.200").packed
V6 = ipaddress.ip_address("2001:db8::1").packed

BEFORE = {       # what stands before the message -> the destinations that it names
    "proxy1-tcp4": (b"PROXY TCP4 198.51.100.9 203.0.113.7 40000 443\r\n", None),
    "proxy1-tcp6": (b"PROXY TCP6 2001:db8::1 2001:db8::2 40000 443\r\n", None),
    "proxy1-unknown": (b"PROXY UNKNOWN\r\n", None),
    "proxy2": (proxy2(), []),
    "proxy2-local": (proxy2(b"", 0x20, 0), []),
    "proxy2-with-lines": (proxy2(ADDRESSES + b"\n\x16\x03\x01\nGET / HTTP/1.1\r\n"), []),
    "proxy2-long": (proxy2(ADDRESSES + bytes(3000)), []),
    "socks5-address": (socks5(b"\1" + V4), [b"203.0.113.200"]),
    "socks5-address-6": (socks5(b"\4" + V6), [b"[2001:0db8:0000:0000:0000:0000:0000:0001]"]),
    "socks5-name": (socks5(name5(b"first.example")), [b"first.example"]),
    "socks5-many-methods": (socks5(name5(b"first.example"), bytes(range(255))), [b"first.example"]),
    "socks5-password": (socks5(name5(b"first.example"), b"\0\2", PASSWORD), [b"first.example"]),
    "socks5-token": (socks5(name5(b"first.example"), b"\1", TOKEN * 2), [b"first.example"]),
    "socks4": (b"\4\1\1\xbb" + V4 + b"user\0", [b"203.0.113.200"]),
    "socks4-nobody": (b"\4\1\1\xbb" + V4 + b"\0", [b"203.0.113.200"]),
    "socks4a": (b"\4\1\1\xbb\0\0\0\1user\0first.example\0", [b"first.example"]),
}


@pytest.mark.parametrize("what", [what for what in BEFORE if BEFORE[what][1] is not None])
def test_all_ways(what):
    data, names = BEFORE[what]
    if len(data) < 600:
        s.all_ways(prefix.feed, data, lambda said: (said[0], said[1]), len(data))
    assert prefix.feed([data]) == ("done", names, len(data))
    assert prefix.feed([data + b"GET"]) == ("done", names, len(data))


@pytest.mark.parametrize("data", [
    b"\r\nGET / HTTP/1.1", b"\r\n\r\n\0\r\nQUIX", proxy2(command=0x11), b"\x05\x00", b"\5\1\0\7", b"\5\1\0\5\4\0\1",
    b"\5\1\0\5\1\0\2", b"\5\1\0\5\1\0\3\0", b"\4\3\0P", b"\4\1\0P\0\0\0\1\0\0",
    b"\4\1\0P\0\0\0\1\0" + b"n" * 256, b"\5\1\0\1\1u",
])
def test_what_is_no_prefix(data):
    assert prefix.feed([data])[0] == "not_mine"
    assert prefix.feed([data[i:i + 1] for i in range(len(data))])[0] == "not_mine"


MESSAGES = {
    "tls": s.hello, "tls-in-records": lambda name: s.records(s.hello_message(name), 1, 4, 90),
    "http": lambda name: s.request(name, b"/a"), "socks": lambda name: socks5(name5(name)),
    "socks4a": lambda name: b"\4\1\1\xbb\0\0\0\1\0" + name + b"\0",
    "connect": lambda name: s.request(b"x.example:443", b"x.example:443", b"CONNECT") + s.hello(name),
}


@pytest.mark.parametrize("step", [1, 3, 7, 100_000])
@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("before", BEFORE)
def test_what_follows_is_read(before, message, step):
    step = max(step, len(BEFORE[before][0]) // 500)
    for name, blocked in ((LISTED, True), (OTHER, False)):
        data = BEFORE[before][0] + MESSAGES[message](name)
        path = Path()
        packets = [*path.opening(), *(path.data(at, data[at:at + step]) for at in range(0, len(data), step))]
        played = play(engine("blocked.example.com", unparsable="drop"), packets)
        # Where a tunnel leads is no name that was asked of a server: it is told only where it is listed.
        assert (name.decode() in played.hosts) == (blocked or not message.startswith("socks"))
        assert played.blocked == blocked
        assert blocked or played.accepted == packets


# ---- other protocols before TLS


def ldap() -> bytes:
    """RFC 4511, 4.14: StartTLS."""
    return b"0\x1d\2\1\1w\x18\x80\x161.3.6.1.4.1.1466.20037"


STARTTLS = {
    "smtp": [b"EHLO client.example\r\n", b"STARTTLS\r\n"],
    "imap": [b"a1 CAPABILITY\r\n", b"a2 STARTTLS\r\n"],
    "pop3": [b"CAPA\r\n", b"STLS\r\n"],
    "ftp": [b"FEAT\r\n", b"AUTH TLS\r\n"],
    "nntp": [b"CAPABILITIES\r\n", b"STARTTLS\r\n"],
    "irc": [b"CAP LS\n", b"STARTTLS\n"],
    "sieve": [b"StartTls\r\n"],
    "xmpp": [b"<?xml version='1.0'?><stream:stream to='a.example' xmlns='jabber:client'>",
             b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"],
    "ldap": [ldap()],
    "postgresql": [struct.pack("!II", 8, 80877103)],
    "mysql": [b"\x20\0\0\1\x85\xae\xff\x19\0\0\0\1\xff" + bytes(23)],
    "rdp": [b"\3\0\0\x13\x0e\xe0\0\0\0\0\0\1\0\x08\0\3\0\0\0"],
    "http-upgrade": [b"OPTIONS * HTTP/1.1\r\nHost: a.example\r\nUpgrade: TLS/1.0\r\nConnection: Upgrade\r\n\r\n"],
    "anything": [b"\x17\x00\x16\x03\x16\x03\x01\x16\x03"],
}


@pytest.mark.parametrize("cut", [None, 1, 2, 5, 6, 7, 40])
@pytest.mark.parametrize("protocol", STARTTLS)
def test_a_hello_behind_another_protocol(protocol, cut):
    for name, blocked in ((LISTED, True), (OTHER, False)):
        hello = s.hello(name)
        pieces = [*STARTTLS[protocol], *([hello] if cut is None else [hello[:cut], hello[cut:]])]
        path = Path(dport=25)
        packets, at = path.opening(), 0
        for piece in pieces:
            packets.append(path.data(at, piece))
            at += len(piece)
        played = play(engine("blocked.example.com"), packets)
        assert played.hosts[-1] == name.decode()
        assert played.blocked == blocked
        assert blocked or played.accepted == packets


@pytest.mark.parametrize("protocol", ["smtp", "imap", "pop3", "ftp", "nntp", "irc", "xmpp", "http-upgrade"])
def test_the_kernel_keeps_text_in_the_queue(protocol):
    # Its server's answers are longer than what ends the watch, and come before the hello.
    path = Path(dport=25)
    played = play(engine("blocked.example.com"), [*path.opening(), path.data(0, STARTTLS[protocol][0])])
    assert played.decisions[-1].mark == "http"


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH_9.2p1\r\n\0\0\5\x1c\x0a", b"\x13BitTorrent protocol" + bytes(48),
                                  bytes(range(256)), b"\0", b"\x16\x03\x01\x00", s.hello(OTHER), b"x"])
def test_the_kernel_may_let_go_of_what_is_not_text(data):
    path = Path(dport=22)
    played = play(engine("blocked.example.com"), [*path.opening(), path.data(0, data)])
    assert played.decisions[-1].mark == "keep"


def test_signs_of_a_hello():
    hello = b"\x16\3\1\1\0\1"
    for data, found in ((hello, [6]), (b"x" + hello + hello, [7, 13]), (b"\x16" + hello, [7]), (b"\x16\3" + hello,
                                                                                                [8]),
                        (b"\x16\3\1" + hello, [6, 9]), (b"\x16\3\5\1\0\1", []),
                        (b"\x16\3\1\1\0\2", []), (b"\x16\3\1\x16\x16" + hello, [11]), (b"\x16\3\0\x16\3\0\x16\3\1",
                                                                                       [9])):
        assert prefix.seek([data]) == found
        for pieces in s.ways(data):
            assert prefix.seek(pieces) == found


# ---- a stream that goes on looking


LOST = {
    "garbage": b"\xff\xfe\xfd", "a line": b"what is this\r\n", "half a line": b"what is this ", "a record":
    b"\x16\3\1\0\5\2hello", "binary": bytes(range(1, 256)) * 3, "a broken chunk": s.chunked(b"first.example",
                                                                                            b"abc")[:-5] + b"zzz\r\n",
    "socks": b"\5\1\0\5\1\0\2", "half a signature": b"\r\n\r\n\0\r\nQUIT", "an alert": b"\x15\3\1\0\2\1",
}


@pytest.mark.parametrize("step", [1, 5, 100_000])
@pytest.mark.parametrize("message", ["tls", "http"])
@pytest.mark.parametrize("lost", LOST)
def test_behind_what_is_lost_the_next_message_is_found(lost, message, step):
    if lost == "an alert" and message == "tls":
        return                                  # its last byte is the next record's first: no server reads on
    for name, blocked in ((LISTED, True), (OTHER, False)):
        data = LOST[lost] + MESSAGES[message](name)
        path = Path(dport=80)
        packets = [*path.opening(), *(path.data(at, data[at:at + step]) for at in range(0, len(data), step))]
        played = play(engine("blocked.example.com", settle_packets=0), packets)
        assert played.blocked == blocked
        assert name.decode() in played.hosts
        assert blocked or played.accepted == packets


def test_a_body_that_quotes_a_request_or_a_hello_is_none():
    for quoted in (s.request(LISTED), b"a\r\n\r\n" + s.request(LISTED), s.hello(LISTED), b"\r\n" + s.hello(LISTED)):
        for data in (s.request(OTHER, b"/", b"POST", quoted), s.request(OTHER, b"/", b"PUT", quoted),
                     s.chunked(OTHER, quoted), s.chunked(OTHER, b"x", quoted[:20], quoted[20:])):
            for step in (1, 100_000):
                path = Path(dport=80)
                packets = [*path.opening(), *(path.data(at, data[at:at + step]) for at in range(0, len(data), step))]
                played = play(engine("blocked.example.com"), packets)
                assert played.accepted == packets and played.hosts == [OTHER.decode()]


QUERY = b'{"query": {"match": {"url": "http://blocked.example.com/ GET / HTTP/1.1"}}, "size": 10}'


@pytest.mark.parametrize("count,together", [(1, 1), (400, 1), (400, 40)])
def test_a_client_whose_queries_are_bodies_of_get(count, together):
    # Elasticsearch's clients. Two readings, and they meet again behind every body.
    path = Path(dport=9200)
    packets, at = path.opening(), 0
    for _ in range(0, count, together):
        data = s.request(OTHER, b"/index/_search", b"GET", QUERY, b"Content-Type: application/json") * together
        packets.append(path.data(at, data))
        at += len(data)
    played = play(engine("blocked.example.com"), packets)
    assert played.accepted == packets
    assert played.counters["overflows"] == 0 and set(played.hosts) == {OTHER.decode()}


def test_more_hellos_at_once_than_are_read():
    # Each sign of one is read beside the text around it.
    path = Path(dport=80)
    data = b"text\r\n" + (b"\x16\3\1\x40\0\1\0\xff\xff\3\3" + bytes(32) + b"\0\xf0\0") * 80
    for policy in ("drop", "pass"):
        played = play(engine("blocked.example.com", conflict=policy), [*path.opening(), path.data(0, data)])
        assert played.blocked == (policy == "drop") and played.counters["overflows"] == 1
