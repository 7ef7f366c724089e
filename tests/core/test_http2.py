"""The reader of clear-text HTTP/2 against the h2 library: what a real client sends, and frames made by hand."""

import h2.config
import h2.connection
import h2.settings
import pytest

from edgeblock.core import http2
from tests.core import samples as s

PREFACE = b"PRI * HTTP/2.0\r\n\r\n"
TAIL = s.H2_PREFACE[len(PREFACE):]


def client(*requests, table: int | None = None) -> bytes:
    """Bytes of an h2 client behind "PRI * HTTP/2.0": requests are (host, path, body)."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    connection.initiate_connection()
    for number, (host, path, body) in enumerate(requests):
        fields = [(":method", "POST" if body else "GET"), (":scheme", "http"), (":authority", host), (":path", path),
                  ("user-agent", "somebody"), ("x-long", "y" * 300)]
        connection.send_headers(1 + 2 * number, fields, end_stream=not body)
        if body:
            connection.send_data(1 + 2 * number, body, end_stream=True)
    data = connection.data_to_send()
    assert data.startswith(PREFACE)
    return data[len(PREFACE):]


def requests(said):
    return said[1]


SAMPLES = {
    "one": [("www.example.com", "/a?b=c", b"")],
    "three": [("a.example", "/", b""), ("b.example", "/x", b""), ("c.example", "/y", b"")],
    "same-twice": [("a.example", "/", b""), ("a.example", "/", b"")],
    "body": [("a.example", "/", b"PRI * HTTP/2.0" * 20), ("b.example", "/", b"")],
}


@pytest.mark.parametrize("name", SAMPLES)
def test_requests_of_h2(name):
    data = client(*SAMPLES[name])
    expected = [(host.encode(), path.encode(), b"POST" if body else b"GET") for host, path, body in SAMPLES[name]]
    assert http2.feed([data]) == ("need_more", expected)
    s.all_ways(http2.feed, data, requests, len(data))


def test_padding_priority_and_continuation():
    block = s.h2_literals((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a.example"),
                          (b":path", b"/"))
    for cut in range(len(block) + 1):
        headers = s.h2_frame(1, 0x28, 1, b"\7" + bytes(5) + block[:cut] + bytes(7))
        data = TAIL + s.h2_frame(4, 0, 0, b"") + headers + s.h2_frame(9, 4, 1, block[cut:])
        assert requests(http2.feed([data])) == [(b"a.example", b"/", b"GET")]
        assert requests(http2.feed([data[i:i + 1] for i in range(len(data))])) == [(b"a.example", b"/", b"GET")]


def test_a_block_of_many_continuations():
    block = s.h2_literals((b":method", b"GET"), (b":authority", b"a.example"), (b":path", b"/"))
    frames = s.h2_frame(1, 0, 1, b"") + b"".join(s.h2_frame(9, 0, 1, block[i:i + 1]) for i in range(len(block)))
    assert requests(http2.feed([TAIL + frames + s.h2_frame(9, 4, 1, b"")])) == [(b"a.example", b"/", b"GET")]


def test_host_in_place_of_authority():
    block = s.h2_literals((b":method", b"GET"), (b":path", b"/"), (b"host", b"a.example"))
    assert requests(http2.feed([TAIL + s.h2_frame(1, 5, 1, block)])) == [(b"a.example", b"/", b"GET")]
    block += s.h2_literals((b":authority", b"b.example"))
    assert requests(http2.feed([TAIL + s.h2_frame(1, 5, 1, block)])) == [(b"b.example", b"/", b"GET")]


def test_trailers_are_no_request():
    data = TAIL + s.h2_request(b"a.example") + s.h2_frame(1, 5, 1, s.h2_literals((b"checksum", b"1")))
    assert requests(http2.feed([data])) == [(b"a.example", b"/", b"GET"), None]


def test_a_block_that_nobody_can_decode():
    data = TAIL + s.h2_frame(1, 5, 1, b"\xff\xff\xff\xff\xff\xff") + s.h2_request(b"a.example", b"/", 3)
    outcome, found = http2.feed([data])
    assert found[0] is None


@pytest.mark.parametrize("data", [
    b"XX\r\n\r\n",
    TAIL + s.h2_frame(9, 4, 1, b"x"),                                   # CONTINUATION without HEADERS
    TAIL + s.h2_frame(1, 0, 1, b"x") + s.h2_frame(0, 0, 1, b"x"),       # something between
    TAIL + s.h2_frame(1, 0x2C, 1, b"\1\0\0"),                           # too short for its priority
    TAIL + s.h2_frame(1, 0x0C, 1, b"\x09abc"),                          # more padding than frame
])
def test_what_no_server_reads(data):
    assert http2.feed([data])[0] == "not_mine"
    assert http2.feed([data[i:i + 1] for i in range(len(data))])[0] == "not_mine"


def test_blocks_have_a_cap():
    frame = s.h2_frame(1, 0, 1, bytes(16_000)) + s.h2_frame(9, 0, 1, bytes(16_000)) * 5
    assert http2.feed([TAIL + frame])[0] == "not_mine"


def test_frames_of_no_interest_are_passed_over():
    data = TAIL + b"".join(s.h2_frame(kind, 0xFF, 1, bytes(kind)) for kind in (0, 2, 3, 4, 5, 6, 7, 8, 10, 200))
    assert requests(http2.feed([data + s.h2_request(b"a.example")])) == [(b"a.example", b"/", b"GET")]
