"""The reader of HTTP/1.x requests: samples fed every way, and the slow reader as second opinion."""

import pytest

from edgeblock.core import http
from tests.core import samples as s
from tests.core.test_engine import BEFORE, HEADS
from tests.reference import http as slow

NAME = b"www.example.com"
NONE, LENGTH, CHUNKED = 0, 1, 2


def heads(said) -> list[tuple[list[bytes], bytes]]:
    return [(head[0], head[1]) for head in said[1]]


def one(data: bytes):
    """The only head of `data`."""
    outcome, found, consumed = http.feed([data])
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("shape", [shape for shape in HEADS if len(HEADS[shape]) < 400])
def test_all_ways(shape):
    data = HEADS[shape].replace(b"NAME", NAME)
    head = len(data) - (3 if shape == "post" else 0)
    found = heads(http.feed([data]))
    assert any(NAME in host for host in found[0][0])
    s.all_ways(http.feed, data, heads, head)
    slow.compare(data)


@pytest.mark.parametrize("shape", HEADS)
def test_hosts_of_every_head(shape):
    data = HEADS[shape].replace(b"NAME", NAME)
    hosts = one(data)[0]
    assert any(host.lower().rstrip(b".").split(b":")[0].rstrip(b".") == NAME for host in hosts)


FORKED = ("length-and-chunked-by-length", "two-lengths", "dressed-up-chunked")   # the window follows each framing


@pytest.mark.parametrize("before", [before for before in BEFORE if before not in FORKED])
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
    (b"GET /x y", [], b"/x y"),
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
    (b"Content-Length: 5\r\n", [(LENGTH, 5)]),
    (b"Content-Length: 5\r\nContent-Length: 5\r\n", [(LENGTH, 5)]),
    (b"Content-Length: 5, 5\r\n", [(LENGTH, 5)]),
    (b"Content-Length: 5\r\nContent-Length: 6\r\n", [(LENGTH, 5), (LENGTH, 6)]),
    (b"Content-Length: +5\r\n", [(LENGTH, 5)]),
    (b"Content-Length: 5x\r\n", [(LENGTH, 5)]),
    (b"Content-Length: x\r\n", []),
    (b"Transfer-Encoding: chunked\r\n", [(CHUNKED, 0)]),
    (b"Transfer-Encoding: gzip, CHUNKED\r\n", [(CHUNKED, 0)]),
    (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", [(CHUNKED, 0), (LENGTH, 5)]),
    (b"Transfer-Encoding: xchunked\r\n", [(CHUNKED, 0), (NONE, 0)]),
    (b"Transfer-Encoding: chunked, identity\r\n", [(CHUNKED, 0), (NONE, 0)]),
    (b"Transfer-Encoding:\r\n chunked\r\n", [(CHUNKED, 0)]),
    (b"Transfer-Encoding : chunked\r\n", [(CHUNKED, 0)]),
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


@pytest.mark.parametrize("body", [
    b"x\r\n", b"\r\nabc", b"3\r\nabcd\r\n", b"fffffffffffffffff\r\n", b"-1\r\n", b";\r\n"])
def test_broken_chunks(body):
    data = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    assert http.feed([data])[0] == "not_mine"
    assert http.feed([data[i:i + 1] for i in range(len(data))])[0] == "not_mine"


@pytest.mark.parametrize("data", [
    b"\x16\x03\x01", b"GET\r\n", b"GET \r\n", b"G\x00T / HTTP/1.1\r\n", b"GET \x01 HTTP/1.1\r\n", b"SSH-2.0-x\r\n",
    b"EHLO mail.example\r\n", b"USER someone\r\n", b"M" * 33 + b" / HTTP/1.1\r\n", b"GET word\r\n",
    b"(x) / HTTP/1.1\r\n",
    b"GET /\x00 HTTP/1.1\r\n", b"\x00",
])
def test_what_is_no_request(data):
    assert http.feed([data])[:2] == ("not_mine", [])
    assert http.feed([data[i:i + 1] for i in range(len(data))])[:2] == ("not_mine", [])


def test_a_head_beyond_its_cap_is_handed_out_unfinished():
    data = b"GET / HTTP/1.1\r\nHost: " + NAME + b"\r\nX: " + b"x" * 140_000
    outcome, found, _ = http.feed([data[at:at + 1000] for at in range(0, len(data), 1000)])
    assert outcome == "not_mine" and found[0][0] == [NAME]
    data = b"GET / HTTP/1.1\r\nX: " + b"x" * 140_000
    assert http.feed([data[at:at + 1000] for at in range(0, len(data), 1000)])[:2] == ("not_mine", [])


def test_more_hosts_than_are_kept():
    data = b"GET / HTTP/1.1\r\n" + b"".join(b"Host: h%d.example\r\n" % i for i in range(40)) + b"\r\n"
    hosts = one(data)[0]
    assert len(hosts) == 16 and hosts[0] == b"h0.example" and hosts[-1] == b"h39.example"


def test_upgrade_and_preface():
    assert heads(http.feed([s.H2_PREFACE[:18]])) == [([], b"*")]
    data = s.request(NAME, b"/", b"GET", b"", b"Upgrade: websocket")
    assert heads(http.feed([data + s.request(b"next.example")]))[-1] == ([b"next.example"], b"/")


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
