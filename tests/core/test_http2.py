"""The reader of clear-text HTTP/2 against the h2 library: what a real client sends, and frames made by hand."""

import random

import h2.config
import h2.connection
import h2.settings
import hpack
import pytest
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from edgeblock.core import hpack as core_hpack
from edgeblock.core import http2
from edgeblock.disguises.streams import Path
from tests.core import samples as s
from tests.core.playing import engine, play

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


def string(text: bytes) -> bytes:
    """A string of HPACK without Huffman's code, of any length from 127 on."""
    rest = len(text) - 127
    size = bytearray(b"\x7f")
    while rest >= 128:
        size.append(rest & 127 | 128)
        rest >>= 7
    return bytes(size) + bytes([rest]) + text


def stream(data: bytes) -> list[bytes]:
    path = Path(dport=80)
    return [path.syn(), *(path.data(i, data[i:i + 1400]) for i in range(0, len(data), 1400))]


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
    expected = [([host.encode()], [path.encode()]) for host, path, body in SAMPLES[name]]
    assert http2.feed([data]) == ("need_more", expected)
    s.all_ways(http2.feed, data, requests, len(data))


def test_padding_priority_and_continuation():
    block = s.h2_literals((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a.example"),
                          (b":path", b"/"))
    for cut in range(len(block) + 1):
        headers = s.h2_frame(1, 0x28, 1, b"\7" + bytes(5) + block[:cut] + bytes(7))
        data = TAIL + s.h2_frame(4, 0, 0, b"") + headers + s.h2_frame(9, 4, 1, block[cut:])
        assert requests(http2.feed([data])) == [([b"a.example"], [b"/"])]
        assert requests(http2.feed([data[i:i + 1] for i in range(len(data))])) == [([b"a.example"], [b"/"])]


def test_a_block_of_many_continuations():
    block = s.h2_literals((b":method", b"GET"), (b":authority", b"a.example"), (b":path", b"/"))
    frames = s.h2_frame(1, 0, 1, b"") + b"".join(s.h2_frame(9, 0, 1, block[i:i + 1]) for i in range(len(block)))
    assert requests(http2.feed([TAIL + frames + s.h2_frame(9, 4, 1, b"")])) == [([b"a.example"], [b"/"])]


def test_authority_and_host_both_count():
    block = s.h2_literals((b":method", b"GET"), (b":path", b"/"), (b"host", b"a.example"))
    assert requests(http2.feed([TAIL + s.h2_frame(1, 5, 1, block)])) == [([b"a.example"], [b"/"])]
    block += s.h2_literals((b":authority", b"b.example"), (b"Host", b"c.example"), (b"host", b"a.example"))
    hosts = [b"a.example", b"b.example", b"c.example"]
    assert requests(http2.feed([TAIL + s.h2_frame(1, 5, 1, block)])) == [(hosts, [b"/"])]


def test_trailers_are_no_request():
    data = TAIL + s.h2_request(b"a.example") + s.h2_frame(1, 5, 1, s.h2_literals((b"checksum", b"1")))
    assert requests(http2.feed([data])) == [([b"a.example"], [b"/"]), None]


@pytest.mark.parametrize("block", [b"\xff\xff\xff\xff\xff\xff\xff\xff", b"\x80", b"\xff", b"\x40\x85" + b"\xff" * 5])
def test_a_block_that_nobody_can_decode_does_not_hide_the_next(block):
    data = TAIL + s.h2_frame(1, 5, 1, block) + s.h2_request(b"a.example", b"/", 3)
    assert requests(http2.feed([data])) == [None, ([b"a.example"], [b"/"])]


@pytest.mark.parametrize("before", [
    s.h2_frame(9, 4, 1, b"x"),                                          # CONTINUATION without HEADERS
    s.h2_frame(1, 0, 1, b"x") + s.h2_frame(0, 0, 1, b"x"),              # something between
    s.h2_frame(1, 0x2C, 1, b"\1\0\0"),                                  # too short for its priority
    s.h2_frame(1, 0x0C, 1, b"\x09abc"),                                 # more padding than frame
    s.h2_frame(1, 0x2C, 1, b"\x09" + bytes(5) + b"abc"),
    s.h2_frame(1, 0, 1, bytes(16_000)) + s.h2_frame(9, 0, 1, bytes(16_000)) * 9,      # a block that never ends
    s.h2_frame(3, 0, 1, bytes(4)) + s.h2_frame(7, 0, 0, bytes(8)) + s.h2_frame(77, 255, 0, bytes(3)),
    s.h2_frame(1, 5, 1, b"\0\1a" + string(b"x" * 70_000)),       # a value that Go takes
    b"".join(s.h2_frame(1, 5, 1, b"\x40\3a%02d" % n + string(b"b" * 15_000)) for n in range(60)),
], ids=["stray", "between", "priority", "padding", "padding-priority", "never-ends", "other-frames", "long-value",
        "fat-blocks"])
def test_nothing_before_it_hides_a_request(before):
    data = TAIL + before + s.h2_request(b"a.example", b"/", 3)
    for pieces in ([data], [data[i:i + 1] for i in range(len(data))]):
        outcome, found = http2.feed(pieces)
        assert outcome == "need_more" and found[-1] == ([b"a.example"], [b"/"])


def test_no_preface_no_http2():
    assert http2.feed([b"XX\r\n\r\n"])[0] == "not_mine"


def test_a_size_update_in_the_middle_of_a_block():
    first = s.h2_literals((b":method", b"GET"), (b":path", b"/"))
    block = first + b"\x20\x3f\xe1\x1f" + s.h2_literals((b":authority", b"a.example"))      # nginx takes it
    assert requests(http2.feed([TAIL + s.h2_frame(1, 5, 1, block)])) == [([b"a.example"], [b"/"])]


def test_frames_of_no_interest_are_passed_over():
    data = TAIL + b"".join(s.h2_frame(kind, 0xFF, 1, bytes(kind)) for kind in (0, 2, 3, 4, 5, 6, 7, 8, 10, 200))
    assert requests(http2.feed([data + s.h2_request(b"a.example")])) == [([b"a.example"], [b"/"])]


# ---- HPACK by itself, against the hpack library


def said_by_library(decoder, block):
    fields = decoder.decode(block, raw=True)
    hosts = [value for name, value in fields if name in (b":authority", b"host") and value]
    paths = [value for name, value in fields if name == b":path" and value]
    return list(dict.fromkeys(hosts)), list(dict.fromkeys(paths)), any(name == b":method" for name, _ in fields)


@pytest.mark.parametrize("seed", range(40))
def test_random_blocks_are_decoded_as_by_the_library(seed):
    rng = random.Random(seed)
    encoder, decoder = hpack.Encoder(), hpack.Decoder(max_header_list_size=1 << 24)
    decoder.max_allowed_table_size = 65_536
    blocks, expected = [], []
    for _ in range(60):
        if rng.random() < 0.1:
            encoder.header_table_size = rng.choice((0, 40, 200, 4096, 4096, 65_536))
        fields = [(b":method", rng.choice((b"GET", b"POST", b"HEAD")))]
        for _ in range(rng.randrange(12)):
            name = rng.choice((b":authority", b"host", b":path", b"x-a", b"cookie", b"x-%d" % rng.randrange(50)))
            text = bytes(rng.choice(b"abcdefz./-0189%!~\x00\xff\x80" if rng.random() < 0.3 else b"ab.c")
                         for _ in range(rng.choice((0, 1, 5, 20, 130, 700))))
            fields.append((name, rng.choice((text, b"common.example"))))
        if sum(name == b":path" for name, _ in fields) > 4:
            continue
        fields = [hpack.HeaderTuple(*field) if rng.random() < 0.8 else hpack.NeverIndexedHeaderTuple(*field)
                  for field in fields]
        block = encoder.encode(fields, huffman=rng.random() < 0.6)
        blocks.append(block)
        expected.append((*said_by_library(decoder, block), False, decoder.header_table._current_size))
    cut = [[block[i:i + size] for i in range(0, len(block), size)]
           for block in blocks for size in [rng.choice((1, 2, 7, 10_000))]]
    assert core_hpack.feed(cut) == expected


def test_every_symbol_and_its_code():
    for symbol in range(256):
        text = bytes([symbol, 97, symbol, symbol])
        coded = hpack.huffman.HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(text)
        block = b"\x01" + bytes([0x80 | len(coded)]) + coded                # :authority, a literal
        assert core_hpack.feed([[block]])[0][0] == [text]


def test_a_table_beyond_the_bound_says_so_where_it_matters():
    # A server that offers 1 MB would know the entry; none that was found offers more than 64 kB.
    update = b"\x3f\xe1\xff\x3f"
    fill = b"".join(b"\x40\x01x" + string(b"y" * 12_000) for _ in range(6))
    data = TAIL + s.h2_frame(1, 5, 1, update + b"\x41\x09a.example" + fill) + s.h2_frame(1, 5, 3, b"\x82\x84\xc4")
    played = play(engine("blocked.example.com"), stream(b"PRI * HTTP/2.0\r\n\r\n" + data))
    assert played.counters["overflows"] == 1 and not played.decisions[-1].accept
