"""Requests of HTTP in the first stage: which ones it lets by, behind which of the server's acknowledgements."""

import pytest

from edgeblock.errors import SystemProblem
from edgeblock.netfilter.stage1 import Stage, bpf
from edgeblock.netfilter.stage1.structures import SIZES
from tests.blocklist.making import matcher
from tests.core import samples as s
from tests.fuzz.requests import BROWSERS, Ends
from tests.staging import key_of

pytestmark = pytest.mark.live

LINES = ("listed.example", "=only.example.net", "*.below.example.org", "pages.example/a/b")
OPEN = b"www.innocent.example"
TEXT = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"


@pytest.fixture(scope="module")
def stage():
    with Stage(4096, 120.0, hellos=64, marks=4096) as loaded:
        snapshot = matcher(*LINES).snapshot
        loaded.offer(snapshot.parts, snapshot.key)
        loaded.settle()
        yield loaded


class Connection:
    """A client's connection; both ends' packets, as the kernel rules show them to the programs."""

    ports = iter(range(1024, 60_000))

    def __init__(self, stage, six=False, isn=5000, ends=None):
        self.stage = stage
        self.ends = ends or Ends(s.CLIENT6 if six else s.CLIENT, s.SERVER6 if six else s.SERVER, next(self.ports))
        self.isn, self.at, self.said = isn, isn + 1, isn + 700_001
        self.syn()
        self.server(self.said - 1, isn + 1, b"", s.SYN | s.ACK)

    def syn(self):
        packet = self.ends.sends(self.isn, b"", s.SYN)
        self.stage.ask("done", packet)
        self.stage.ask("reopened", packet)
        return self.outcome(packet)

    def server(self, seq, ack, data=b"", flags=s.ACK):
        packet = self.ends.answers(seq, ack, data, flags)
        return {name for name in ("done", "answered") if self.stage.ask(name, packet)}

    def answers(self, data=TEXT):
        """The server has all that has been sent, and says so with these bytes."""
        said = self.server(self.said, self.at, data)
        self.said += len(data)
        return said

    def sends(self, data, **settings):
        """What becomes of the next bytes."""
        packet = self.ends.sends(self.at, data, ack=self.said, **settings)
        self.stage.ask("done", packet)
        self.at += len(data)
        return self.outcome(packet)

    def outcome(self, packet):
        before = self.stage.counters()
        passed = self.stage.judge(packet)
        (what,) = [name for name, count in self.stage.counters().items() if count != before[name]]
        assert passed == what.startswith("passed_")
        return what


def request(*fields, name=OPEN, line=b"GET / HTTP/1.1", end=b"\r\n\r\n"):
    return b"\r\n".join([line, b"Host: " + name, *fields]) + end


def one_of(browser, name=OPEN):
    return b"\r\n".join([b"GET /a/path?q=1 HTTP/1.1", *(line.replace(b"%s", name) for line in browser)]) + b"\r\n\r\n"


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("browser", BROWSERS)
def test_what_browsers_send_passes_and_so_does_the_next(stage, browser, six):
    connection = Connection(stage, six)
    for _ in range(3):
        assert connection.sends(one_of(browser)) == "passed_request"
        assert connection.answers() == set()
    assert connection.sends(one_of(browser, b"www.listed.example")) == "name"
    assert Connection(stage, six).sends(one_of(browser, b"listed.example")) == "name"


PASSING = {
    "head": request(line=b"HEAD / HTTP/1.1"),
    "host last": b"GET / HTTP/1.1\r\nAccept: */*\r\nHost: a.example\r\n\r\n",
    "host in capitals": b"GET / HTTP/1.1\r\nHOST: A.Example\r\n\r\n", "final dot": request(name=OPEN + b"."),
    "a long target": request(line=b"GET /" + b"a" * 900 + b" HTTP/1.1"),
    "a long cookie": request(b"Cookie: " + b"a=b; " * 350),
    "forty lines": request(*[b"A-%d: b" % i for i in range(40)]), "close": request(b"Connection: close"),
    "an empty field": request(b"Accept:"), "the host of a page's parent": request(name=b"www.pages.example"),
    "visible bytes": request(line=b"GET /!\"#$%&'()*+,-.:;<=>?@[\\]^_`{|}~ HTTP/1.1"),
    "1449 to 2048 bytes": request(b"Cookie: " + b"a" * (2048 - 10 - len(request()))),
}


@pytest.mark.parametrize("what", PASSING)
def test_a_plain_request_passes(stage, what):
    assert Connection(stage).sends(PASSING[what]) == "passed_request"


QUEUED = {
    "post": request(line=b"POST / HTTP/1.1"), "options": request(line=b"OPTIONS / HTTP/1.1"),
    "lower case": request(line=b"get / HTTP/1.1"),
    "absolute form": request(line=b"GET http://listed.example/ HTTP/1.1"),
    "two slashes": request(line=b"GET //listed.example/ HTTP/1.1"),
    "a backslash": request(line=b"GET /\\listed.example/ HTTP/1.1"), "asterisk": request(line=b"GET * HTTP/1.1"),
    "1.0": request(line=b"GET / HTTP/1.0"), "no version": request(line=b"GET /"),
    "two blanks": request(line=b"GET  / HTTP/1.1"), "a blank behind": request(line=b"GET / HTTP/1.1 "),
    "two before the version": request(line=b"GET /  HTTP/1.1"), "a tab": request(line=b"GET /a\tb HTTP/1.1"),
    "a byte of 128": request(line=b"GET /\x80 HTTP/1.1"), "DEL": request(line=b"GET /\x7f HTTP/1.1"),
    "LF": request().replace(b"\r\n", b"\n"), "a lone CR": request(b"A: b\rHost: listed.example"),
    "a lone LF": request(b"A: b\nHost: listed.example"), "CR CR LF": request(b"A: b\r"), "NUL": request(b"A: \0"),
    "a tab in a value": request(b"A: a\tb"), "UTF-8": request(b"A: \xc3\xbc"), "folded": request(b"A: b", b" c"),
    "folded by a tab": request(b"A: b", b"\tHost: listed.example"), "a blank before the colon": request(b"A : b"),
    "more behind the version": request(line=b"GET / HTTP/1.1 HTTP/1.1"),
    "a digit more": request(line=b"GET / HTTP/1.11"), "no colon": request(b"Accept"), "no name": request(b": b"),
    "an underscore": request(b"content_length: 3"), "a long name": request(b"A" * 41 + b": b"),
    "two hosts": request(b"Host: listed.example"), "the same host twice": request(b"Host: " + OPEN),
    "no host": b"GET / HTTP/1.1\r\nAccept: */*\r\n\r\n", "no blank": b"GET / HTTP/1.1\r\nHost:a.example\r\n\r\n",
    "fifty lines of a large head": request(b"Cookie: " + b"a" * 1400, *[b"A-%d: b" % i for i in range(70)]),
    "2049 bytes": request(b"Cookie: " + b"a" * (2049 - 10 - len(request()))), "a byte behind": request() + b"x",
    "two requests": request() * 2, "not ended": request(end=b"\r\n"), "half": request()[:-1],
    "a blank line before": b"\r\n" + request(), "nothing": b"GET / HTTP/1.1\r\n\r\n", "text": b"hello\r\n",
    "one byte": b"G", "length": request(b"Content-Length: 0"), "chunked": request(b"Transfer-Encoding: chunked"),
    "type": request(b"Content-Type: text/plain"), "te": request(b"TE: trailers"), "trailer": request(b"Trailer: A"),
    "expect": request(b"Expect: 100-continue"), "upgrade": request(b"Upgrade: h2c"),
    "upgraded": request(b"Connection: Upgrade"), "keep-alive and more": request(b"Connection: keep-alive, Upgrade"),
    "no blank in it": request(b"Connection:close"), "a blank of NUL": request(b"Connection:\0close"),
    "settings": request(b"HTTP2-Settings: AAMAAABk"), "a proxy's": request(b"Proxy-Connection: keep-alive"),
    "forwarded": request(b"Forwarded: host=a"), "x-forwarded-host": request(b"X-Forwarded-Host: listed.example"),
    "lower-case length": request(b"content-length: 3"),
}


@pytest.mark.parametrize("what", QUEUED)
def test_what_is_not_plain_is_queued(stage, what):
    assert Connection(stage).sends(QUEUED[what]) in ("other", "piece")


NAMES = {
    "odd_name": (b"", b" ", OPEN + b":80", b"[2001:db8::1]", b"192.0.2.1", b"a@" + OPEN, OPEN + b" ", b" " + OPEN,
                 b"a" * 64 + b".example"),
    "name": (b"pages.example", b"PAGES.example.", b"only.example.net", b"x.below.example.org", b"LISTED.example"),
    "passed_request": (b"notlisted.example", b"www.pages.example", b"example.org"),
}


@pytest.mark.parametrize("what,name", [(what, name) for what, names in NAMES.items() for name in names])
def test_names(stage, name, what):
    assert Connection(stage).sends(request(name=name)) == what


def test_a_hello_is_not_asked_about_for_the_pages_of_its_host(stage):
    assert Connection(stage).sends(s.hello(b"pages.example")) == "passed_hello"
    assert Connection(stage).sends(request(name=b"pages.example")) == "name"


# ---- where it stands


def begun(stage, **settings):
    connection = Connection(stage, **settings)
    assert connection.sends(request()) == "passed_request"
    return connection


def test_one_that_the_server_has_not_acknowledged_keeps_the_next_from_passing(stage):
    assert begun(stage).sends(request()) == "later"
    for behind in (1, 10, -1, -1000):
        connection = begun(stage)
        connection.server(connection.said, connection.at - behind)
        assert connection.sends(request()) == "later", behind


def test_an_acknowledgement_that_is_not_in_order_is_of_another_connection(stage):
    for off in (-1, 1, 1000, 1 << 31):
        connection = begun(stage)
        connection.server(connection.said + off, connection.at)
        assert connection.sends(request()) == "later", off


def test_acknowledgements_that_come_late_take_nothing_back(stage):
    connection = begun(stage)
    connection.answers(b"")
    connection.server(connection.said, connection.isn + 1)
    assert connection.sends(request()) == "passed_request"


def test_the_clients_own_packets_acknowledge_nothing(stage):
    connection = begun(stage)
    packet = connection.ends.sends(connection.said, b"", s.ACK, connection.at)
    stage.ask("done", packet)
    assert connection.sends(request()) == "later"


@pytest.mark.parametrize("data", [bytes(900), s.record(bytes(900)), TEXT + bytes(900)])
def test_no_answer_ends_a_flow_of_requests(stage, data):
    connection = begun(stage)
    assert connection.answers(data) == set() and connection.answers(data) == set()
    assert connection.sends(request(name=b"listed.example")) == "name"


@pytest.mark.parametrize("at", [-1, 1, -200])
def test_it_begins_where_the_one_before_has_ended(stage, at):
    connection = begun(stage)
    connection.answers()
    connection.at += at
    assert connection.sends(request()) == "later"


def test_behind_a_request_no_hello_passes_and_behind_a_hello_no_request(stage):
    connection = begun(stage)
    connection.answers()
    assert connection.sends(s.hello(OPEN)) == "other"
    connection = Connection(stage)
    assert connection.sends(s.hello(OPEN)) == "passed_hello"
    connection.answers(b"")
    assert connection.sends(request()) == "later"


def test_while_a_hello_is_not_whole_no_request_passes(stage):
    hello = s.sized_hello(OPEN, 1800)
    for whole in (False, True):         # behind a request, on the next connection
        first = begun(stage)
        first.answers()
        second = Connection(stage, isn=1 << 30, ends=first.ends)
        assert second.sends(hello[:900]) == "passed_piece"
        if whole:
            assert second.sends(hello[900:]) == "passed_hello"
        first.said = second.said
        assert first.sends(request()) == "later"
        assert second.sends(hello[900:]) == "watched"
    # Another SYN that has passed, of which nothing is behind yet.
    first = Connection(stage)
    second = Connection(stage, isn=1 << 30, ends=first.ends)
    assert second.sends(hello[:900]) == "passed_piece"
    first.said = second.said
    assert first.sends(request()) == "later"


def test_a_request_in_pieces_is_queued_from_its_first_on(stage):
    for cut in (1, 5, 6, 30, len(request()) - 1):
        connection = Connection(stage)
        assert connection.sends(request()[:cut]) == "other"
        connection.answers(b"")
        assert connection.sends(request()[cut:]) == "watched"


def test_once_one_was_queued_all_are(stage):
    connection = begun(stage)
    connection.answers()
    assert connection.sends(request(name=b"listed.example")) == "name"
    connection.answers()
    assert connection.sends(request()) == "watched"


def test_the_next_connection_on_the_same_ports_begins_anew(stage):
    first = begun(stage)
    first.answers()
    second = Connection(stage, isn=1 << 30, ends=first.ends)
    assert second.sends(request()) == "passed_request"
    second.answers()
    assert second.sends(request()) == "passed_request"
    first.said, first.at = second.said, first.at
    assert first.sends(request()) == "later"


def test_a_syn_that_no_server_has_answered_lets_none_pass(stage):
    connection = begun(stage)
    connection.answers()
    connection.isn = 1 << 30
    assert connection.syn() == "passed_syn"            # forged, or of a client that begins anew
    assert connection.sends(request()) == "later"
    connection = begun(stage)
    connection.answers()
    connection.isn, connection.at = 1 << 30, (1 << 30) + 1
    assert connection.syn() == "passed_syn"
    assert connection.sends(request()) == "other"


def test_a_flow_whose_mark_is_gone_is_queued(stage):
    for answered in (False, True):
        connection = Connection(stage)
        if answered:
            assert connection.sends(request()) == "passed_request"
            connection.answers()
        for key in list(bpf.keys(stage.maps["marks"], *SIZES["marks"])):
            bpf.delete(stage.maps["marks"], key)
        assert connection.sends(request()) == ("later" if answered else "other")


def test_of_all_that_passed_the_last_request_is_remembered(stage):
    connection = begun(stage)
    key = key_of(connection.ends.sends(0))
    connection.answers()
    last = request(b"Accept: */*")
    for data in (last, request(name=b"listed.example")):
        assert connection.sends(data) in ("passed_request", "name")
        found = bpf.look_up(stage.maps["flows"], key, 224)
        count, isn, size = (int.from_bytes(found[at:end], "little") for at, end in ((4, 8), (24, 28), (36, 38)))
        assert (count, isn, size) == (1, connection.isn + len(request()), len(last))
        connection.answers()


def test_where_conntrack_has_the_marks_no_request_passes():
    with Stage(64, 120.0, hellos=8) as plain:
        snapshot = matcher(*LINES).snapshot
        plain.offer(snapshot.parts, snapshot.key)
        ends = Ends(s.CLIENT, s.SERVER, 999)
        assert plain.judge(ends.sends(1, b"", s.SYN)) and not plain.judge(ends.sends(2, request()))
        assert plain.counters()["other"] == 1


def test_a_kernel_that_takes_only_the_smaller_program_queues_all_requests_and_says_so(monkeypatch):
    load, sizes = bpf.load, []

    def refusing(code, *more):
        sizes.append(len(code))
        if len(sizes) == 1:
            raise SystemProblem("the kernel does not take the program: Argument list too long")
        return load(code, *more)

    monkeypatch.setattr(bpf, "load", refusing)
    with Stage(64, 120.0, hellos=8, marks=1024) as older:
        assert sizes[1] < sizes[0] and older.note.startswith("requests of HTTP are all queued: the kernel does not")
        snapshot = matcher(*LINES).snapshot
        older.offer(snapshot.parts, snapshot.key)
        assert Connection(older).sends(request()) == "other"
        assert Connection(older).sends(s.hello(OPEN)) == "passed_hello"
