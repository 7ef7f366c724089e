"""Hands the harness its streams and its second opinion. Imported once by the fuzzer's process."""

import harness
import initials
from aioquic.quic.crypto import INITIAL_CIPHER_SUITE, derive_key_iv_hp

from edgeblock.core import http, tls
from tests import quic_packets as q
from tests.core import samples as s
from tests.core.protocols import READERS
from tests.fuzz import parts
from tests.reference import http as slow_http
from tests.reference import tls as slow_tls

LISTED = b"blocked.example.com"
INNOCENT = b"www.innocent.example"


def streams(name: bytes) -> list[tuple[bytes, int]]:
    """(stream, offset behind which a server has the name) for one name."""
    message = s.hello_message(name)
    at = message.index(name) + len(name)
    plain = s.request(name)
    made = [
        s.record(message),
        s.records(message, 1), s.records(message, 4, 90, at - 7), s.records(message, *range(1, len(message))),
        s.record(b"") + s.record(message), s.record(b"\1\0", 21) + s.record(message),
        s.hello(name, before=s.key_share(1216)),
        s.hello(b"other.example", name),
        s.hello(name, before=s.ECH),
        plain,
        s.request(b"first.example") + plain,
        s.request(b"first.example", b"/", b"POST", b"GET / HTTP/1.1\r\nHost: no.example\r\n\r\n") + plain,
        s.chunked(b"first.example", b"abc", b"0\r\n\r\n") + plain,
        b"\r\n\nPOST  http://" + name + b":80/x HTTP/1.0\nHost:a.example\n\n",
        b"GET /x\tHTTP/1.1\r\nHost: one.example\r\nX-Long: " + b"y" * 300 + b"\r\nhoST :\r\n " + name + b"\r\n\r\n",
        s.request(b"proxy.example:443", b"proxy.example:443", b"CONNECT") + s.hello(name),
        s.H2_PREFACE + s.h2_frame(4, 0, 0, b"") + s.h2_request(b"first.example") + s.h2_request(name, b"/", 3),
    ]
    made += [row.before + sample(name) for row in READERS.values() if row.before is not None
             for sample in row.samples.values()]
    return [(data, len(data)) for data in made]


def needed(data: bytes, name: bytes) -> int:
    """The shortest start of a stream with which a server has the name."""
    for size in range(len(data) + 1):
        if name in tls.feed([data[:size]])[1]:
            return size
        if any(name in host for head in http.feed([data[:size]])[1] for host in head[0]):
            return size
    return len(data)


def with_urgent(name: bytes) -> list[tuple[bytes, int, int]]:
    made = []
    for data in (s.hello(name), s.request(name)):
        at = data.index(name) + 4
        made.append((s.urgent_byte(data, at), len(data) + 1, at))
    return made


def given(name: bytes) -> list[tuple[bytes, int, int]]:
    return [(data, needed(data, name), -1) for data, _ in streams(name)] + with_urgent(name)


def second_opinion(reader: str, data: bytes) -> None:
    """Aborts the run where the slow readers and the core differ."""
    if reader == "tls":
        slow_tls.compare(data)
    elif reader == "http":
        slow_http.compare(data)


def connections() -> list[tuple[bytes, list[tuple[bytes, bytes, bytes]]]]:
    return [(name, [derive_key_iv_hp(cipher_suite=INITIAL_CIPHER_SUITE, secret=q.secret(name, version),
                                     version=version) for version in VERSIONS])
            for name in (q.DCID, b"", bytes(range(20)))]


def hellos(name: bytes) -> list[tuple[bytes, int]]:
    """(ClientHello without records, offset behind which a server has the name)."""
    made = [s.hello_message(name), s.hello_message(name, before=s.key_share(1216)),
            s.hello_message(b"other.example", name), s.hello_message(name, before=s.ECH)]
    return [(message, message.index(name) + len(name)) for message in made]


# Frames that no honest client sends, or seldom: RFC 9000, section 19.
FAR = (1 << 62) - 1
ODD = [
    b"\x01", b"\x40\x01", b"\x40\x00", bytes(40), b"\x30",
    b"\x02\x09\x00\x02\x01\x00\x00\x00\x00", b"\x03\x09\x00\x00\x01\x01\x01\x01", b"\x02\x09\x00" + q.varint(FAR),
    b"\x06\x00" + q.varint(1 << 61), b"\x06" + q.varint(FAR) * 2, b"\x06" + q.varint(FAR) + b"\x01a",
    b"\x80\x00\x00\x06\x00\x01\x01", b"\x06" + q.varint(65_535) + b"\x02\x01\x00", b"\x06\x00\x00",
    b"\x1c\x00\x06\x03bye", b"\x1d\x00" + q.varint(1 << 61),
]
VERSIONS = (q.VERSION_1, q.VERSION_2, q.DRAFT_29, q.MVFST)

harness.prepare(given(LISTED), given(INNOCENT), second_opinion, parts.PLAYS)
initials.prepare(VERSIONS, connections(), hellos(LISTED), ODD)
