"""The reader of HTTP/1.x requests: samples fed every way, and the slow reader as second opinion."""

import pytest

from edgeblock.core import http
from edgeblock.disguises import messages
from edgeblock.disguises.messages import BEFORE, HEADS
from tests.core import samples as s
from tests.core.playing import engine, play
from tests.reference import http as slow

NAME = b"www.example.com"
NONE, LENGTH, CHUNKED, CHUNK, TRAILER = range(5)


def heads(said) -> list[tuple[list[bytes], bytes]]:
    return [(head[0], head[1]) for head in said[1]]


def one(data: bytes):
    """The only head of `data`."""
    _, found, *_ = http.feed([data])
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("shape", [shape for shape in HEADS if len(HEADS[shape]) < 400])
def test_all_ways(shape):
    data = messages.head(shape, NAME)
    head = len(data) - (3 if shape == "post" else 0)
    found = heads(http.feed([data]))
    assert any(NAME in host for host in found[-1][0])
    s.all_ways(http.feed, data, heads, head)
    slow.compare(data)


@pytest.mark.parametrize("shape", HEADS)
def test_hosts_of_every_head(shape):
    data = messages.head(shape, NAME)
    hosts = http.feed([data])[1][-1][0]         # behind a line of HTTP/0.9 the fields are a second head
    assert any(host.lower().rstrip(b".").split(b":")[0].rstrip(b".") == NAME for host in hosts)


FORKED = ("length-and-chunked-by-length", "two-lengths", "dressed-up-chunked", "get-without-its-body",
          "folded-length", "space-before-the-colon", "behind-no-field")      # the window follows each framing


@pytest.mark.parametrize("before", [before for before in BEFORE if before not in (*FORKED, "unended-trailer")])
def test_the_request_behind(before):
    data = BEFORE[before] + s.request(NAME)
    slow.compare(data)
    assert heads(http.feed([data]))[-1] == ([NAME], b"/")
    s.all_ways(http.feed, data, heads, len(data))


@pytest.mark.parametrize("before", FORKED)
def test_ways_to_frame_a_body(before):
    assert len(http.feed([BEFORE[before]])[1][0][4]) > 1
    slow.compare(BEFORE[before] + s.request(NAME))


def test_hosts_in_their_order():
    data = b"GET http://a.example/x HTTP/1.1\r\nHost: b.example\r\nX: y\r\nHost: c.example\r\n\r\n"
    hosts, target, path_at, _, _ = one(data)
    assert hosts == [b"a.example", b"b.example", b"c.example"]
    assert target[path_at:] == b"/x"


@pytest.mark.parametrize("target,host,path", [
    (b"http://a.example/x?y", b"a.example", b"/x?y"), (b"http://a.example", b"a.example", b""),
    (b"HTTPS://A.example:8443?q", b"A.example:8443", b"?q"), (b"http://u:p@a.example/", b"u:p@a.example", b"/"),
    (b"http://[2001:db8::1]:80/", b"[2001:db8::1]:80", b"/"), (b"http://a.example\\b", b"a.example", b"\\b"),
])
def test_absolute_targets(target, host, path):
    hosts, said, path_at, _, _ = one(b"GET " + target + b" HTTP/1.1\r\n\r\n")
    assert (hosts, said, said[path_at:]) == ([host], target, path)


def test_connect():
    hosts, target, path_at, _, _ = one(b"CONNECT a.example:443 HTTP/1.1\r\nHost: b.example\r\n\r\n")
    assert (hosts, target[path_at:]) == ([b"a.example:443", b"b.example"], b"")


@pytest.mark.parametrize("line,hosts,target", [
    (b"GET /x", [], b"/x"), (b"GET http://a.example/", [b"a.example"], b"http://a.example/"),
    (b"GET /x y", [], b"/x y"), (b"PUT /x", [], b"/x"), (b"M-SEARCH /x", [], b"/x"), (b"GET word", [], b"word"),
    (b"GET\x1c*", [], b"*"), (b"GET HTTP/1.1", [], b"HTTP/1.1"),
])
def test_no_version(line, hosts, target):
    # HTTP/0.9: the line is the request; a lenient server goes on to the fields.
    found = heads(http.feed([line + b"\r\n"]))
    assert found == [(hosts, target)]
    found = heads(http.feed([line + b"\r\nHost: b.example\r\n\r\n"]))
    assert found == [(hosts, target), (hosts + [b"b.example"], target)]


LENGTHS = b"".join(b"Content-Length: %d\r\n" % length for length in (2, 3, 4, 5))


@pytest.mark.parametrize("fields,framings", [
    (b"", []),
    (b"Content-Length: 0\r\n", [(LENGTH, 0)]),
    (b"Content-Length: 5\r\r\n", [(LENGTH, 5), (NONE, 0)]),
    (b"X: y\r\r\r\nContent-Length: 5\r\n", [(LENGTH, 5), (NONE, 0)]),
    (b"Content-Length: 5\r\n", [(LENGTH, 5)]),
    (b"Content-Length: 5\r\nContent-Length: 5\r\n", [(LENGTH, 5)]),
    (b"Content-Length: 5, 5\r\n", [(LENGTH, 5), (NONE, 0)]),
    (b"Content-Length: 5\r\nContent-Length: 6\r\n", [(LENGTH, 5), (LENGTH, 6)]),
    (b"Content-Length: +5\r\n", [(LENGTH, 5), (NONE, 0)]),
    (b"Content-Length: 5x\r\n", [(LENGTH, 5), (NONE, 0)]),
    (b"Content-Length: 5;x\r\n", [(LENGTH, 5), (NONE, 0)]),
    (b"Content-Length: 0x15\r\n", [(LENGTH, 0), (LENGTH, 21)]),
    (b"Content-Length: 1_0\r\n", [(LENGTH, 1), (LENGTH, 10), (NONE, 0)]),
    (b"Content-Length: 1 0\r\n", [(LENGTH, 1), (LENGTH, 10), (NONE, 0)]),
    (b"Content-Length: \t5\x0b\r\n", [(LENGTH, 5)]),
    (b"Content-Length: x\r\n", []),
    (b"Content-Length : 5\r\n", [(LENGTH, 5), (NONE, 0)]),
    (b"X: a\r\n Content-Length: 5\r\n", [(LENGTH, 5), (NONE, 0)]),
    (b"Content-Length:\r\n 5\r\n", [(LENGTH, 5), (NONE, 0)]),
    (b"Content-Length: 5\r\n 0\r\n", [(LENGTH, 5), (LENGTH, 50), (NONE, 0)]),
    (b"Host: a\r\n Content-Length: 5\r\n", [(LENGTH, 5), (NONE, 0)]),
    (b"X: a\rContent-Length: 5\r\n", [(LENGTH, 5), (NONE, 0)]),
    (b"X\x0b: y\r\nContent-Length: 5\r\n", [(LENGTH, 5), (NONE, 0)]),
    (b"no colon\r\nContent-Length: 5\r\n", [(LENGTH, 5), (NONE, 0)]),
    (b"X: a\r\n folded on\r\nContent-Length: 5\r\n", [(LENGTH, 5)]),
    (b"Content-Length: 5\r\nTransfer-Encoding: identity\r\n", [(LENGTH, 5), (NONE, 0)]),
    (b"Transfer-Encoding: chunked\r\n", [(CHUNKED, 0)]),
    (b"Transfer-Encoding: gzip, CHUNKED\r\n", [(CHUNKED, 0), (NONE, 0)]),
    (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", [(CHUNKED, 0), (LENGTH, 5)]),
    (b"Transfer-Encoding: xchunked\r\n", [(CHUNKED, 0), (NONE, 0)]),
    (b"Transfer-Encoding: chunked, identity\r\n", [(CHUNKED, 0), (NONE, 0)]),
    (b"Transfer-Encoding:\r\n chunked\r\n", [(CHUNKED, 0), (NONE, 0)]),
    (b"Transfer-Encoding : chunked\r\n", [(CHUNKED, 0), (NONE, 0)]),
    (b"X: a\r\n\tTransfer-Encoding: chunked\r\n", [(CHUNKED, 0), (NONE, 0)]),
    (b"Transfer-Encoding: identity\r\n", []),
    # Found by fuzzing: behind four lengths there was no room for the encoding, which goes before all of them.
    (LENGTHS + b"Transfer-Encoding: chunked\r\n", [(CHUNKED, 0), (LENGTH, 2), (LENGTH, 3), (LENGTH, 4)]),
    (LENGTHS + b"Content-Length: 6\r\n", [(LENGTH, 2), (LENGTH, 3), (LENGTH, 4), (LENGTH, 5)]),
])
def test_framings(fields, framings):
    data = b"POST / HTTP/1.1\r\n" + fields + b"\r\n"
    assert one(data)[4] == framings
    slow.compare(data)


@pytest.mark.parametrize("body", [
    b"0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"3;x=y\r\nabc\r\n0;z\r\n\r\n", b"003\nabc\n0\n\n",
                                  b" 3 \r\nabc\r\n0\r\nTrailer: x\r\n\r\n", b"A\r\n0123456789\r\n0\r\n\r\n"])
def test_chunked_bodies(body):
    data = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body + s.request(NAME)
    assert heads(http.feed([data]))[-1] == ([NAME], b"/")
    s.all_ways(http.feed, data, heads, len(data))
    slow.compare(data)


@pytest.mark.parametrize("line,ways", [
    (b"GET / HTTP/1.1", [(LENGTH, 5), (NONE, 0)]), (b"head / HTTP/1.1", [(LENGTH, 5), (NONE, 0)]),
    (b"CONNECT a:443 HTTP/1.1", [(NONE, 0), (LENGTH, 5)]), (b"POST / HTTP/1.1", [(LENGTH, 5)]),
    (b"DELETE / HTTP/1.1", [(LENGTH, 5)]), (b"POST / HTTP/1.0", [(LENGTH, 5)]), (b"GETX / HTTP/1.1", [(LENGTH, 5)]),
])
def test_bodies_that_some_servers_do_not_read(line, ways):
    data = line + b"\r\nContent-Length: 5\r\n\r\n"
    assert one(data)[4] == ways
    slow.compare(data)


@pytest.mark.parametrize("line,ways", [
    (b"POST / HTTP/1.1", [(CHUNKED, 0)]), (b"POST / HTTP/1.0", [(CHUNKED, 0), (NONE, 0)]),
    (b"GET / HTTP/1.1", [(CHUNKED, 0), (NONE, 0)]), (b"CONNECT a:443 HTTP/1.1", [(NONE, 0), (CHUNKED, 0)]),
    (b"POST / HTTP/1.2", [(CHUNKED, 0), (NONE, 0)]), (b"POST / http/1.1", [(CHUNKED, 0), (NONE, 0)]),
])
def test_chunked_where_some_servers_do_not_know_it(line, ways):
    data = line + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert one(data)[4] == ways
    slow.compare(data)


@pytest.mark.parametrize("body,ways", [
    (b"0x5\r\n", [(CHUNK, 5), (CHUNK, 0)]), (b"1_0\r\n", [(CHUNK, 16), (CHUNK, 1)]),
    (b"0\r\nTrailer: x\r\n\r\n", [(TRAILER, 0), (NONE, 0)]),
])
def test_bodies_that_fork(body, ways):
    data = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    assert http.feed([data])[3] == [ways]
    assert http.feed([data[i:i + 1] for i in range(len(data))])[3] == [ways]


@pytest.mark.parametrize("body", [
    b"x\r\n", b"\r\nabc\r\n", b"3\r\nabcx\r\n", b"fffffffffffffffff\r\n", b"-1\r\n", b";\r\n", b"\0\n"])
def test_behind_a_body_that_nobody_can_follow_the_next_request_is_found(body):
    data = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    assert http.feed([data])[0] == "lost"
    assert http.feed([data[i:i + 1] for i in range(len(data))])[0] == "lost"
    for lost in (data, data + b"some-more", data + b"\xffGET no version\r\n\r\n"):
        assert heads(http.feed([lost + s.request(NAME)]))[1:] == [([NAME], b"/")]
        slow.compare(lost + s.request(NAME))


NO_REQUEST = [
    b"\x16\x03\x01", b"GET\r\n", b"GET \r\n", b"SSH-2.0-x\r\n", b"EHLO mail.example\r\n", b"USER someone\r\n",
    b"GET two words\r\n", b"get word\r\n", b"PUT word\r\n", b"\x00", b"(x)\r\n", b"HTTP/1.1\r\n", b"foo /\r\n",
    b"\x85a\x00\r\n",
]


@pytest.mark.parametrize("data", NO_REQUEST)
def test_what_is_no_request(data):
    assert http.feed([data])[:2] == ("lost", [])
    assert http.feed([data[i:i + 1] for i in range(len(data))])[:2] == ("lost", [])
    slow.compare(data)


@pytest.mark.parametrize("data", [data for data in NO_REQUEST if data.endswith(b"\n")])
def test_the_request_behind_what_is_none(data):
    s.all_ways(http.feed, data + s.request(NAME), heads, len(data + s.request(NAME)))
    assert heads(http.feed([data + s.request(NAME)])) == [([NAME], b"/")]
    slow.compare(data + s.request(NAME))


@pytest.mark.parametrize("line", [
    b" GET / HTTP/1.1", b"\t GET / HTTP/1.1", b"\x0b\x0c\xa0GET / HTTP/1.1", b"G\x00T / HTTP/1.1",
    b"GET \x01 HTTP/1.1",
    b"M" * 33 + b" / HTTP/1.1", b"M" * 3000 + b" / HTTP/1.1", b"(x) / HTTP/1.1", b"GET /\x00 HTTP/1.1",
    b"GET /?\x7f HTTP/1.1", b"GET\x1c/\x1d HTTP/1.1", b"GET\xa0/ HTTP/1.1", b"\xff / HTTP/1.1", b"PRI * HTTP/1.1",
    b"pri * HTTP/2.0", b"PRI  * HTTP/2.0", b"EHLO mail.example HTTP/1.1", b"GET * http/9", b"1 2 3 4 HTTP/1.1 ",
])
def test_request_lines_that_somebody_takes(line):
    data = line + b"\r\nHost: " + NAME + b"\r\n\r\n"
    assert one(data)[0] == [NAME]
    s.all_ways(http.feed, data, heads, len(data))
    slow.compare(data)


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"M / HTTP/9.0", b"GET /a b HTTP/1.0", b"G\x00T /x HTTP/1.1",
                                  b"GET /" + b"x" * 40_000 + b" HTTP/1.1"])
def test_a_return_behind_the_version_is_a_line_end(line):
    # To Node's lenient reader.
    data = line + b"\rHost: " + NAME + b"\r\n\r\n"
    _, found, *_ = http.feed([data[at:at + 1400] for at in range(0, len(data), 1400)])
    assert [head[0] for head in found] == [[NAME]]
    if len(data) < 1000:
        s.all_ways(http.feed, data, heads, len(data))
        slow.compare(data)


@pytest.mark.parametrize("data", [b"GET /HTTP/1.1\rx: y HTTP/1.1\r\nHost: " + NAME + b"\r\n\r\n",
                                  b"GET / HTTP/1.1\r\rHost: " + NAME + b"\r\n\r\n",
                                  b"GET / HTTP/1\rX HTTP/1.1\r\nHost: " + NAME + b"\r\n\r\n"])
def test_a_return_elsewhere_is_none(data):
    s.all_ways(http.feed, data, heads, len(data))
    slow.compare(data)


def test_a_return_alone_ends_a_head_to_some():
    # To Node's lenient reader; to others a line begins. Such a head is handed out once, and then as it is in the end.
    data = b"GET / HTTP/1.1\r\nHost: " + NAME + b"\r\n\rG"
    assert heads(http.feed([data])) == [([NAME], b"/")]
    data += b"ET: x\r\n\rH: y\r\nHost: a.example\r\n\r\n"
    assert heads(http.feed([data])) == [([NAME], b"/"), ([NAME, b"a.example"], b"/")]
    s.all_ways(http.feed, data, heads, len(data))
    slow.compare(data)


def test_two_carriage_returns_are_an_empty_line_to_some():
    # To Python's http.server the fields end there, so it sees no length; the head ends at the next empty line.
    inner = b"GET / HTTP/1.1\r\nHost: " + NAME + b"\r\n\r\n"
    data = (b"POST / HTTP/1.1\r\r\nHost: a.example\r\r\nTransfer-Encoding: chunked\r\r\n\r\r\n2d\r\n0\r\n\r\n"
            + inner + b"\r\n0\r\n\r\n")
    assert NAME in slow.every_host(data)
    assert play(engine(NAME.decode()), [s.tcp(99, flags=s.SYN, dport=80), s.tcp(100, data, dport=80)]).blocked


@pytest.mark.parametrize("parting", [b"\xa0", b"\x85", b"\x1c", b"\x0b"])
def test_a_version_that_is_one_to_some(parting):
    # Python's http.server splits there; to Apache (HttpProtocolOptions Unsafe) the line is one of HTTP/0.9.
    data = b"GET http://a.example/" + parting + b"HTTP/1.1\r\nHost: b.example\r\n\r\n"
    target = b"http://a.example/"
    assert heads(http.feed([data])) == [([b"a.example"], target), ([b"a.example", b"b.example"], target)]
    slow.compare(data)


@pytest.mark.parametrize("size", [31, 32, 33, 8_150, 8_192, 32_700, 32_768, 40_000, 500_000])
@pytest.mark.parametrize("first", [b"GET /", b"\xffGET /", b"M", b"SSH-\r\nGET /"], ids=["path", "odd", "long",
                                                                                         "lost"])
@pytest.mark.parametrize("step", [7, 1400, 1 << 20])
def test_request_lines_of_any_length(size, first, step):
    data = first + b"x" * size + b" / HTTP/1.1\r\nHost: " + NAME + b"\r\n\r\n"
    step = max(step, size // 1000)
    outcome, found, _, _ = http.feed([data[at:at + step] for at in range(0, len(data), step)])
    assert (outcome, found[0][0]) == ("need_more", [NAME])
    kept = data.rpartition(b" HTTP/1.1")[0]
    if size < 8_000 and first != b"SSH-\r\nGET /":
        assert kept.endswith(found[0][1])


@pytest.mark.parametrize("step", [1400, 1 << 20])
def test_heads_of_any_length(step):
    fields = b"".join(b"X-%d: %s\r\n" % (i, b"v" * 8000) for i in range(120))
    data = b"GET / HTTP/1.1\r\n" + fields + b"Host: " + b" " * 50_000 + NAME + b" " * 50_000 + b"\r\n\r\n"
    data += s.request(b"next.example")
    found = heads(http.feed([data[at:at + step] for at in range(0, len(data), step)]))
    assert found == [([NAME], b"/"), ([b"next.example"], b"/")]


@pytest.mark.parametrize("lines,hosts", [
    (b"Host:\r\n a.example\r\n", [b"a.example"]),
    (b"Host: a.example\r\n b.example\r\n", [b"a.example", b"a.example b.example"]),
    (b"X: y\r\n Host: a.example\r\n", [b"a.example"]),
    (b"Content-Length: 0\r\n Host: a.example\r\n", [b"a.example"]),
    (b"Host: a.example\r\n\tHost: b.example\r\n", [b"a.example", b"b.example", b"a.example Host: b.example"]),
])
def test_folded_hosts(lines, hosts):
    data = b"POST / HTTP/1.1\r\n" + lines + b"\r\n"
    assert one(data)[0] == hosts
    s.all_ways(http.feed, data, heads, len(data))
    slow.compare(data)


def test_more_hosts_than_are_kept():
    data = b"GET / HTTP/1.1\r\n" + b"".join(b"Host: h%d.example\r\n" % i for i in range(40)) + b"\r\n"
    hosts = one(data)[0]
    assert len(hosts) == 16 and hosts[0] == b"h0.example" and hosts[-1] == b"h39.example"


def test_upgrade():
    data = s.request(NAME, b"/", b"GET", b"", b"Upgrade: websocket")
    assert heads(http.feed([data + s.request(b"next.example")]))[-1] == ([b"next.example"], b"/")


def test_only_the_whole_preface_begins_http2():
    # RFC 9113, 3.4: 24 bytes.
    assert http.feed([s.H2_PREFACE])[0] == "http2"
    assert http.feed([s.H2_PREFACE[i:i + 1] for i in range(24)])[0] == "http2"
    for size in range(18, 24):
        assert http.feed([s.H2_PREFACE[:size]])[0] == "need_more"
    for data in (b"PRI * HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\nHost: a.example\r\n\r\n", b"PRI / HTTP/2.0\r\n\r\n",
                 *(s.H2_PREFACE[:size] for size in range(18, 24))):
        following = data + s.request(NAME)
        assert heads(http.feed([following]))[-1] == ([NAME], b"/")
        slow.compare(following)
        slow.compare(data + b"SM\r\n\r\n")


def test_a_line_of_the_proxy_protocol():
    # proxy-protocol.txt, 2.1: "PROXY", the addresses, the ports. What follows is the first message.
    for line in (b"PROXY TCP4 198.51.100.9 203.0.113.7 40000 443\r\n", b"PROXY UNKNOWN\r\n"):
        assert http.feed([line])[0] == "need_more"
        assert heads(http.feed([line + b"GET /x\r\nHost: " + NAME + b"\r\n\r\n"]))[-1] == ([NAME], b"/x")
        slow.compare(line + s.request(NAME))


def test_every_byte_of_a_request_replaced():
    data = b"POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nabGET / HTTP/1.0\nHost: b.example\n\n"
    for at in range(len(data)):
        for value in b"\r\n \t:\0/,9\xff":
            slow.compare(data[:at] + bytes([value]) + data[at + 1:])


def test_every_byte_of_a_chunked_request_replaced():
    data = b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    data += b"GET / HTTP/1.0\nHost: b.example\n\n"
    for at in range(len(data)):
        for value in b"\r\n \t:\0/,9a\xff":
            slow.compare(data[:at] + bytes([value]) + data[at + 1:])


def test_a_line_that_ends_a_preface_begins_with_nothing_left_of_the_one_before():
    # The mark of a line with a NUL outlived it, and the next one was gathered before its own beginning.
    for behind in (b"S\xfaM\r\n", b"SM\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"):
        data = b"\0PRI * HTTP/2.0\r\n\r\n" + behind + b"GET /b HTTP/1.1\r\nHost: b.example\r\n\r\n"
        whole = http.feed([data])
        assert any(b"b.example" in hosts for hosts, *_ in whole[1])
        assert http.feed([data[i:i + 1] for i in range(len(data))]) == whole


@pytest.mark.parametrize("data", [
    b"\0" + b"a" * 40, b"!!!\0" + b"a" * 40, b"G\0" + b"\xa0" * 34, b"GET /\0" + b"a" * 40])
def test_a_line_with_a_nul_and_no_end_is_no_request_yet(data):
    # Found by fuzzing: the slow reader forgot a NUL with more than 32 bytes behind it.
    slow.compare(data)


def test_the_sign_of_a_hello_in_a_target_is_none_whole_or_in_pieces():
    data = b"POST /a \x16\x03\x01\x00\x80\x01 HTTP/1.1\r\nHost: a.example\r\n\r\n"
    whole = http.feed([data])
    assert all(http.feed([data[:at], data[at:]]) == whole for at in range(1, len(data)))


@pytest.mark.parametrize("target", [b"a,", b"/a,", b"http://h.example/a,"])
@pytest.mark.parametrize("size", [8 * 1024, 32 * 1024])
def test_of_a_line_that_is_too_long_the_same_is_kept_however_it_comes(target, size):
    """What is kept depends on what the line looks like, and that has to be seen before too much is taken."""
    data = b"POST " + target * (size // len(target) + 40) + b" HTTP/1.1\nHost: a.example\n\n"
    whole = http.feed([data])
    for cut in (1, 5, 6, 700, size - 1, size, size + 1, len(data) - 30):
        assert http.feed([data[:cut], data[cut:]]) == whole
    for length in (1, 1000, 1460):
        assert http.feed([data[at:at + length] for at in range(0, len(data), length)]) == whole


@pytest.mark.parametrize("blank", [b" ", b"\xa0", b"\x85", b"\x1c", b" \xa0"])
def test_a_word_and_blanks_are_no_request(blank):
    assert http.feed([b"GET" + blank + b"\n"])[:2] == ("lost", [])
    slow.compare(b"GET" + blank + b"\n")
