"""The compiled core against the slow readers of tests/reference, over what hypothesis thinks of.

For any bytes: a reader says the same of them whole, in pieces, and as the slow reader does. For any segments of a
small stream: the engine finds every name that some server could read, and none that no server could.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.core import http, http2, tls
from edgeblock.core.engine import Engine
from edgeblock.core.matcher import Matcher
from edgeblock.disguises.streams import Path
from tests.core import samples as s
from tests.fuzz.seeds import messages
from tests.reference import http as slow_http
from tests.reference import stream
from tests.reference import tls as slow_tls

HELLOS = [data for data in messages() if data[0] in (21, 22)]
REQUESTS = [data for data in messages() if data[0] not in (21, 22) and not data.startswith(s.H2_PREFACE[18:])]
FRAMES = [data for data in messages() if data.startswith(s.H2_PREFACE[18:])]
WORDS = [b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\0", b"\xff", b",", b"+", b"Host: x\r\n",
         b"Content-Length: 3\r\n",
         b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"http://", b"CONNECT ", b"GET / HTTP/1.1\r\n",
         b"\x16\3\1\0\1"]


@st.composite
def mutated(draw, samples: list[bytes]) -> bytes:
    """A sample with a few bytes replaced, put in, taken out or repeated."""
    data = draw(st.sampled_from(samples))
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 12))
        new = draw(st.one_of(st.binary(max_size=4), st.sampled_from(WORDS), st.just(data[at:at + length] * 2)))
        data = data[:at] + new + data[at + length:]
    return data


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]


@given(mutated(HELLOS), st.lists(st.integers(0, 2000), max_size=6))
def test_hellos(data, cuts):
    slow_tls.compare(data)
    assert tls.feed(pieces(data, cuts))[:3] == tls.feed([data])[:3]


@pytest.mark.parametrize("data", [
    b"T \xb5\0/ HTTP/0.1\r\x16\x03\r\n\r\n",           # a line with a hole, ended by a lone CR
    b"GET / HTTP/\x851.1\r\nHost: a.b\r\n\r\n",
    b"CONNECT  HTTP/1.1\r\nHost: a.b\r\n\r\n",
    b"GET / HTTP/1.1\nHost:\t" + b"a" * 254 + b"   b  c\n   d   e\n\n",
])
def test_requests_that_fuzzing_found(data):
    slow_http.compare(data)


@given(mutated(REQUESTS), st.lists(st.integers(0, 2000), max_size=6))
def test_requests(data, cuts):
    slow_http.compare(data)
    assert http.feed(pieces(data, cuts))[:2] == http.feed([data])[:2]


@given(mutated(FRAMES), st.lists(st.integers(0, 2000), max_size=6))
def test_frames(data, cuts):
    assert http2.feed(pieces(data, cuts)) == http2.feed([data])


@given(st.one_of(st.binary(max_size=300), mutated(HELLOS), mutated(REQUESTS)))
def test_any_bytes_in_a_packet(data):
    path = Path()
    judge = Engine(Matcher(), report=True)
    for packet in (path.syn(), path.data(0, data), s.ip_packet(6, data), s.ip_packet(17, data), data):
        judge.judge(packet, 0.0)
    assert judge.counters()["packets"] == 5


# ---- streams

TINY_HELLO = s.record(s.handshake(s.hello_body(s.sni(b"ab.cd"), session=b"", ciphers=1)))
STREAMS = [
    TINY_HELLO,
    s.records(s.handshake(s.hello_body(s.sni(b"ab.cd"), session=b"", ciphers=1)), 3, 60),
    b"GET / HTTP/1.1\r\nHost: ab.cd\r\n\r\n",
    b"GET http://ab.cd/ HTTP/1.1\nA: b\n\n",
    b"GET / HTTP/1.0\nHost: ab.cd\n\nGET / HTTP/1.0\nHost: ef.gh\n\n",
    b"PUT / HTTP/1.1\nContent-Length: 4\nHost: ab.cd\n\nHostGET / HTTP/1.1\nHost: ef.gh\n\n",
    b"PUT / HTTP/1.1\nTransfer-Encoding: chunked\n\n2\nab\n0\n\nGET / HTTP/1.1\nHost: ef.gh\n\n",
]


@st.composite
def segments(draw, fakes: bool) -> list[tuple[int, bytes]]:
    """Segments of a stream in any order, overlapping, repeated; `fakes` also changes bytes of some."""
    data = draw(st.sampled_from(STREAMS))
    sent = []
    for _ in range(draw(st.integers(1, 7))):
        at = draw(st.integers(0, len(data) - 1))
        piece = data[at:at + draw(st.one_of(st.integers(1, 12), st.integers(1, len(data))))]
        if fakes and draw(st.booleans()):
            spot = draw(st.integers(0, len(piece) - 1))
            odd = draw(st.sampled_from([b"x", b"\0", b"\n", b"\r", b".", b":", b"3"]))
            piece = piece[:spot] + odd + piece[spot + 1:]
        if draw(st.booleans()):
            at, piece = at - 3, b"GET" + piece      # begins below what it covers: maybe below the stream
        sent.append((at, piece))
    edges = draw(st.lists(st.integers(1, len(data) - 1), max_size=3))
    whole = [(a, data[a:b]) for a, b in zip(sorted({0, *edges}), sorted({*edges, len(data)}), strict=False)]
    return draw(st.permutations(sent + whole))


def found(sent: list[tuple[int, bytes]]) -> tuple[set[bytes], dict[str, int]]:
    """What the engine reports, and its counters."""
    judge = Engine(Matcher(), report=True, conflict="pass", settle_packets=0)
    path = Path()
    judge.judge(path.syn(), 0.0)
    reported: set[bytes] = set()
    for at, piece in sent:
        for name in judge.judge(path.data(at, piece), 0.0).names:
            reported.add((name.host or "").encode())
    return reported, judge.counters()


def shown(names: set[bytes]) -> set[bytes]:
    """As reports show them."""
    from edgeblock.core.engine import plain_host
    return {plain_host(name).encode() for name in names}


@given(segments(fakes=True))
def test_every_reading_of_a_stream(sent):
    readable = stream.names(sent, most=3000)
    reported, counters = found(sent)
    if readable is None:
        return
    if not counters["overflows"] and counters["names"] <= 32:       # MAX_NAMES: more are not told of one packet
        assert shown(readable) <= reported
    # A copy is kept from the first to the last byte in which it differs, so that the engine may change from copy to
    # copy at any byte. A request without a Host is reported by its address.
    possible = stream.names([(at + i, piece[i:i + 1]) for at, piece in sent for i in range(len(piece))], most=3000)
    assert possible is None or reported <= shown(possible) | {b"", b"203.0.113.7"}


@given(segments(fakes=False))
def test_a_stream_without_conflicts_has_one_reading(sent):
    sent = [(at, piece) for at, piece in sent if not piece.startswith(b"GET") or at >= 0]
    if any(len(versions) > 1 for versions in stream.copies(sent)):
        return
    reported, counters = found(sent)
    readable = stream.names(sent, most=1)
    assert reported - {b"", b"203.0.113.7"} == shown(readable)
    assert counters["overflows"] == 0 and counters["conflicts"] == 0


@pytest.mark.parametrize("data", STREAMS)
def test_the_slow_reader_of_streams(data):
    names = stream.names([(0, data)], 1)
    assert names and names == stream.names([(at, data[at:at + 1]) for at in range(len(data))], 1)
    faked = stream.names([(0, data), (0, data.replace(b"ab.", b"xb.").replace(b"ef.", b"xf."))], 10)
    assert names < faked
