"""What the tests need of each protocol reader: READERS has a row for each row of core/readers.

With its row a reader is fed in every way, disguised, tried for its cost, and fuzzed (test_readers.py, test_bounds.py,
tests/fuzz). What comes out is bytes; nothing here imports the core.
"""

from collections.abc import Callable
from typing import NamedTuple

from edgeblock.disguises import packets as s


class Row(NamedTuple):
    """What tests need of a reader.

    Args:
        samples: what a client sends, by the name that is in it or behind it; the reader begins with the first byte.
        units: about so many bytes in the smallest units of the protocol: work must grow as they do.
        before: what stands before it in a stream; None: it is in no stream, but in datagrams.
        doubtful: a sample, in it a name of which six bytes have two copies, and bytes that are passed over: what many
            readings at once cost.
        told: a name that no list has is reported.
    """

    samples: dict[str, Callable[[bytes], bytes]]
    units: dict[str, Callable[[int], bytes]]
    before: bytes | None = b""
    doubtful: Callable[[bytes], tuple[bytes, bytes, bytes]] | None = None
    told: bool = True


CHUNKED = s.request(b"first.example", b"/", b"POST", b"", b"Transfer-Encoding: chunked")
FIELDS = b"".join(b"X-%d: " % i + b"y" * 40 + b"\r\n" for i in range(16)) + b"\r\n"
SETTLED = b"".join(s.h2_frame(1, 5, 1, b"\x82\x84\x40\2ab\2cd") for _ in range(12)) + s.h2_frame(0, 0, 1, bytes(200))


def message(size: int) -> bytes:
    return s.hello_message(b"www.innocent.example", before=s.extension(16, bytes(size)))


def h2_block(fragment: bytes) -> bytes:
    return s.h2_frame(1, 5, 1, fragment)


def h2(frames: bytes) -> bytes:
    return s.H2_PREFACE[18:] + frames


def h2_long_paths(size: int) -> bytes:
    # A table of the longest path that fits, then blocks that name it with one byte.
    entry = b"\x44\x7f\x81\x1e" + b"/" * 3968
    return h2(h2_block(b"\x82" + entry)) + h2_block(b"\x82\xbe" * 100) + h2_block(b"\x82\xbe") * (size // 11)


def requests(count: int, form: str) -> bytes:
    return b"".join(s.request((form % i).encode()) for i in range(count))


def socks5(name: bytes) -> bytes:
    """RFC 1928: no authentication, and a request for a name."""
    return b"\5\1\0\5\1\0\3" + s.vector(1, name) + b"\0\x50"


# A ClientHello without records, over QUIC or DTLS; of DTLS a cookie stands behind the session id (RFC 6347, 4.2.1).
BARE: dict[str, Callable[[int], bytes]] = {
    "extensions": lambda n: s.hello_message(b"www.innocent.example", before=b"\x12\x34\0\0" * (n // 4)),
    "names": lambda n: s.handshake(s.hello_body(s.sni(*[b"a"] * (n // 4)))),
}


def cookie_hello(name: bytes) -> bytes:
    body = s.hello_body(s.GREASE, s.sni(name))
    return s.handshake(body[:67] + s.vector(1, b"cookie") + body[67:])


READERS: dict[str, Row] = {
    "tls": Row(
        {"hello": s.hello,
         "records": lambda name: s.records(s.hello_message(name), 1, 4, 90),
         "alert first": lambda name: s.record(b"\1\0", 21) + s.hello(b"other.example", name, before=s.ECH),
         "second hello": lambda name: s.hello(b"other.example") + s.record(b"\1", 20) + s.hello(name)},
        {"records of a byte": lambda n: s.records(message(n // 6), *range(1, n // 6)),
         "empty records": lambda n: b"\x16\x03\x01\0\0" * (n // 5),
         "alerts": lambda n: b"\x15\x03\x01\0\0" * (n // 5),
         "extensions": lambda n: s.hello(b"www.innocent.example", before=b"\x12\x34\0\0" * (n // 8))},
        doubtful=lambda name: (s.hello(name, behind=s.extension(16, bytes(900))), name, bytes(100))),
    "http": Row(
        {"request": s.request,
         "absolute": lambda name: b"\nPOST  http://" + name + b":80/x HTTP/1.0\nHost:a.example\n\n",
         "second": lambda name: CHUNKED + b"3\r\nabc\r\n0\r\n\r\n" + s.request(name)},
        {"lines of a head": lambda n: b"GET / HTTP/1.1\r\n" + b"a:\n" * (n // 3),
         "lone CRs": lambda n: b"GET /" + b"\r" * n,
         "fields without a line end": lambda n: b"GET / HTTP/1.1\r\n" + b"a:\r" * (n // 3),
         "blank lines": lambda n: b"\r\n" * (n // 2),
         "requests": lambda n: b"GET / HTTP/1.1\nHost:a\n\n" * (n // 23),
         "chunks": lambda n: CHUNKED + b"1\nx\n" * (n // 4),
         "trailers": lambda n: CHUNKED + b"0\n" + b"a\n" * (n // 2),
         "blanks behind a method": lambda n: b"GET" + b" " * n,
         "lines": lambda n: b"x\n" * (n // 2),
         "lines with NUL": lambda n: b"\0\n" * (n // 2),
         "PROXY lines": lambda n: b"PROXY \n" * (n // 7),
         "signs of hellos": lambda n: b"\x16\x03\x01\2\0\1" * (n // 6),
         "half signs of hellos": lambda n: b"\x16\x03" * (n // 2),
         "control bytes in a field": lambda n: b"GET / HTTP/1.1\n" + b"\1" * n,
         "Host lines": lambda n: b"GET / HTTP/1.1\n" + b"Host:a\n" * (n // 7),
         "folded lines of Host": lambda n: b"GET / HTTP/1.1\nHost:a\n" + b" Host:b\n" * (n // 8),
         "lengths": lambda n: b"GET / HTTP/1.1\n" + (b"Content-Length:" + b"1," * 7000 + b"\n") * (n // 14_016 + 1),
         "encodings":
             lambda n: b"GET / HTTP/1.1\n" + (b"Transfer-Encoding:" + b"chunke" * 650 + b"\n") * (n // 3919 + 1),
         "bodies that servers frame differently":
             lambda n: b"GET / HTTP/1.1\nContent-Length:+1 2 3,0x5,7,8\n\nGET" * (n // 50),
         "chunks of two sizes": lambda n: CHUNKED + b"0x1\nx\n" * (n // 6),
         "tunnels": lambda n: b"CONNECT a:1 HTTP/1.1\nContent-Length:1\n\n" * (n // 39),
         "international hosts": lambda n: requests(n // 130, "\u00fc" * 30 + ".\u00f6.%d"),
         "Latin hosts": lambda n: b"".join(b"GET / HTTP/1.1\nHost:" + b"\xe9\xe8" * 100 + b"%d.b\n\n" % i
                                           for i in range(n // 230))},
        doubtful=lambda name: (s.request(name, b"/" + b"x" * 300)[:-2] + FIELDS, name, b"y" * 9)),
    "http2": Row(
        {"request": lambda name: h2(s.h2_frame(4, 0, 0, b"") + s.h2_request(name)),
         "second": lambda name: h2(s.h2_request(b"first.example") + s.h2_request(name, b"/", 3))},
        {"h2 frames": lambda n: h2(s.h2_frame(2, 0, 1, b"") * (n // 9)),
         "h2 continuations": lambda n: h2(s.h2_frame(1, 0, 1, b"") + s.h2_frame(9, 0, 1, b"") * (n // 9)),
         "h2 requests": lambda n: h2(h2_block(b"\x82\x84\x41\1a") * (n // 14)),
         "h2 blocks of the same": lambda n: h2(s.h2_frame(1, 0, 1, b"\x82" * n)),
         "h2 entries": lambda n: h2(h2_block(b"\x40\1a\1b" * (n // 4))),
         "h2 sizes": lambda n: h2(h2_block(b"\x40\1a\1b" * 100 + b"\x20\x3f\xe1\x1f" * (n // 4))),
         "h2 codes": lambda n: h2(h2_block((b"\x40\1a\xf8" + b"\xff\xff\xff\xf0" * 30) * (n // 124))),
         "h2 long paths": h2_long_paths,
         "h2 frames without an end": lambda n: h2(s.h2_frame(1, 0x2D, 1, bytes(6)) * (n // 15)),
         "h2 fields without a name": lambda n: h2(h2_block(b"\0\0\0" * (n // 3)))},
        before=s.H2_PREFACE[:18],
        doubtful=lambda name: (h2(s.h2_request(name) + SETTLED + h2_block(b"\x82\x84\x41\1a") * 8), name,
                               bytes(99))),
    "prefix": Row(
        {"socks5": socks5,
         "socks4a": lambda name: b"\4\1\1\xbb\0\0\0\1user\0" + name + b"\0",
         "proxy2": lambda name: b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + s.vector(2, bytes(range(12))) + s.hello(name)},
        {"PROXY v2": lambda n: b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\0" * (n // 16),
         "SOCKS passwords": lambda n: b"\5\1\2" + b"\1\1a\1a" * (n // 5)},
        doubtful=lambda name: (socks5(name) + s.request(b"www.innocent.example")[:-2] + FIELDS, name, b"y" * 9),
        told=False),
    "hello": Row({"hello": s.hello_message}, BARE, before=None),
    "dtls": Row({"hello": cookie_hello}, BARE, before=None),
}
