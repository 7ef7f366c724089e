"""Connections whose requests passed in the kernel: what the engine is told before a packet that is its to judge."""

import random

import pytest

from edgeblock.core.packet import view
from edgeblock.disguises.streams import STRATEGIES, Path
from edgeblock.disguises.table import DISGUISES, Ask
from edgeblock.netfilter.stage1 import Stage
from tests.core import samples as s
from tests.core.playing import LISTED, OTHER, engine
from tests.fuzz.requests import Ends, run
from tests.source.test_pieces import SEAMED, merged
from tests.staging import Tracking

pytestmark = pytest.mark.live

PORTS = iter(range(1024, 60_000))
SERVER_ISN = 6_999              # what Path's packets acknowledge, less one


@pytest.fixture(scope="module")
def stage():
    with Stage(65_536, 120.0, hellos=1024, marks=65_536) as loaded:
        yield loaded


class Kept:
    """A connection on which requests pass, at a box or an engine; `path` makes packets from where it stands."""

    def __init__(self, box, six=False):
        port = next(PORTS)
        self.box, self.path = box, Path(six, dport=80, sport=port)
        self.ends = Ends(s.CLIENT6 if six else s.CLIENT, s.SERVER6 if six else s.SERVER, port)
        self.judge(self.path.syn())
        self.answers(self.ends.answers(SERVER_ISN, self.path.isn + 1, b"", s.SYN | s.ACK))

    def judge(self, packet):
        if isinstance(self.box, Tracking):
            return self.box.judge(packet, 1.0)
        return self.box.judge(packet, 1.0, 0 if packet[20 + 20 * (packet[0] >> 4 == 6) + 13] & s.SYN else 2)

    def answers(self, packet):
        if isinstance(self.box, Tracking):
            self.box.answer(packet)

    def sends(self, data, acknowledged=True):
        made = self.judge(self.path.data(0, data))
        self.path.isn += len(data)
        if acknowledged:
            self.answers(self.ends.answers(SERVER_ISN + 1, self.path.isn + 1))
        return made


def kept(stage, six=False, line="blocked.example.com"):
    """One with two requests behind it, which the engine has not seen."""
    box = Tracking(stage, engine(line))
    connection = Kept(box, six)
    for _ in range(2):
        assert connection.sends(s.request(OTHER)).accept
    assert box.passed == 2 and box.asked == 0 and box.engine.counters()["flows"] == 0
    return connection


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("name", [LISTED, OTHER], ids=["listed", "other"])
@pytest.mark.parametrize("how", [how for how in STRATEGIES if not how.startswith("fast_open")])
def test_the_next_request_ends_as_without_it_however_it_is_sent(stage, how, name, six):
    data = s.request(name)
    blocked = []
    for connection in (kept(stage, six), Kept(engine("blocked.example.com"), six)):
        if not isinstance(connection.box, Tracking):
            for _ in range(2):
                connection.sends(s.request(OTHER))
        packets = [one[1] if isinstance(one, tuple) else one
                   for one in STRATEGIES[how](connection.path, data, data.index(name), len(name))]
        packets = [one for one in packets if one and not one[33 + 20 * (one[0] >> 4 == 6)] & s.SYN]
        blocked.append(any(connection.judge(one).mark == "blocked" for one in packets))
    assert blocked[0] == blocked[1] and (blocked[0] or name == OTHER)


@pytest.mark.parametrize("name", [LISTED, OTHER], ids=["listed", "other"])
@pytest.mark.parametrize("disguise", [one for one in DISGUISES if one.proto == "http" and not one.overflows
                                      and "long-uri" not in one.name],       # more than a program is tried with
                         ids=lambda one: one.name.replace(" ", "-"))
def test_a_disguise_from_the_syn_on_ends_as_without_the_stage(stage, disguise, name):
    blocked = []
    for box in (Tracking(stage, engine("blocked.example.com")), engine("blocked.example.com")):
        path = Path(dport=80, sport=next(PORTS))
        ends, marks = Ends(s.CLIENT, s.SERVER, path.settings["sport"]), set()
        for one in disguise.make(Ask(name), path, random.Random(1)):
            packet = one[1] if isinstance(one, tuple) else one
            seen = view(packet)
            syn = seen.get("flags", 0) & (s.SYN | s.ACK) == s.SYN
            marks.add(box.judge(packet, 1.0, 0 if syn or isinstance(box, Tracking) else 2).mark)
            if syn and isinstance(box, Tracking):
                box.answer(ends.answers(SERVER_ISN, seen["seq"] + 1, b"", s.SYN | s.ACK))
        blocked.append("blocked" in marks)
    assert blocked[0] == blocked[1]


def test_of_what_the_server_has_acknowledged_only_the_last_request_is_told(stage):
    connection = kept(stage)
    assert connection.sends(s.request(LISTED)).mark == "blocked"
    counted = connection.box.engine.counters()
    assert counted["packets"] == 3 and counted["requests"] == 2     # a SYN, where the last one begins


def test_an_open_request_is_told_before_what_comes(stage):
    connection = kept(stage)
    assert connection.sends(s.request(b"open.example"), acknowledged=False).accept
    assert connection.box.asked == 0
    made = connection.sends(s.request(LISTED))
    assert made.mark == "blocked"
    counted = connection.box.engine.counters()
    assert counted["packets"] == 3 and counted["requests"] == 2


def test_another_copy_of_an_open_request(stage):
    # The first copy dies on the way; the second, as long as it, has the listed name.
    connection = kept(stage)
    other, listed = s.request(b"wwww.innocent.net"), s.request(b"blocked.example.com")
    listed = listed[:-4] + b"\r\nA: " + b"a" * max(0, len(other) - len(listed) - 5) + b"\r\n\r\n"
    connection.sends(other, acknowledged=False)
    connection.path.isn -= len(other)
    assert connection.judge(connection.path.data(0, listed)).mark == "blocked"


@pytest.mark.parametrize("cut", [1, 20, 40, 60])
def test_the_end_of_an_open_request_may_be_another(stage, cut):
    # A server with a small window keeps the first bytes of the request that passed, and takes others behind them.
    connection = kept(stage)
    data = s.request(b"blocked.innocent.net")
    listed = s.request(b"blocked.example.com.")
    cut = min(cut, data.index(b"innocent"))
    connection.sends(data, acknowledged=False)
    connection.path.isn -= len(data)
    pieces = (cut, listed[cut:]), (0, listed[:cut])
    made = [connection.judge(connection.path.data(at, piece)).mark for at, piece in pieces]
    assert "blocked" in made


def test_a_listed_request_behind_the_body_of_another(stage):
    connection = kept(stage)
    body = s.request(b"inside.example")
    assert connection.sends(s.request(OTHER, b"/", b"POST", body)).accept
    assert connection.sends(s.request(OTHER)).accept
    assert connection.sends(s.request(LISTED)).mark == "blocked"


def test_a_hello_that_dies_behind_requests_does_not_make_the_stream_tls(stage):
    # Then a listed request ahead of what is still missing. Where TLS has begun nobody looks for requests.
    connection = kept(stage)
    assert connection.judge(connection.path.data(0, s.hello(OTHER))).accept
    assert connection.judge(connection.path.data(100, s.request(LISTED))).mark == "blocked"


def test_the_path_of_a_listed_page(stage):
    for target, blocked in ((b"/bad/page.html", True), (b"/good.html", False)):
        connection = kept(stage, line="pages.example/bad/page.html")
        made = connection.sends(s.request(b"pages.example", target))
        assert (made.mark == "blocked") == blocked and connection.box.asked == 1


@pytest.mark.parametrize("seed", [1, 2])
def test_random_requests_and_conversations(seed):
    assert run(60.0, 8_000, seed) == 0


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "kept"])
def test_the_seam_of_a_request_in_two_that_were_merged_on_the_way_is_a_cut(stage, first, six):
    connection = Kept(Tracking(stage, engine("blocked.example.com")), six) if first else kept(stage, six)
    passed, listed = (s.request(name, b"/" + b"a" * 100) for name in SEAMED)
    seam = passed.index(SEAMED[0]) + len(b"blocked")
    assert len(passed) == len(listed) <= 2 * seam
    # The server got the first segment only; then another, of which it takes what is behind the seam.
    copy = listed[seam - 12:seam - 7] + b"another" + listed[seam:]
    assert merged(stage, connection.path.data(0, passed), seam)
    assert connection.judge(connection.path.data(seam - 12, copy)).mark == "blocked"
