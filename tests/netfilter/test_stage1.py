"""The first stage in the kernel: which packets it lets by, how rules change under it, what it says if it cannot."""

import errno
import os
import struct
import subprocess
import time

import pytest

from edgeblock.blocklist.fingerprint import fingerprint
from edgeblock.core.sketch import place_in_sample
from edgeblock.disguises.streams import Path
from edgeblock.errors import SystemProblem
from edgeblock.netfilter import stage1
from edgeblock.netfilter.marks import PROGRAMS
from edgeblock.netfilter.stage1 import Stage, bpf, explain, sieve
from edgeblock.netfilter.stage1.structures import LAYOUT, SIZES
from edgeblock.source.marking import Marking
from tests.blocklist.making import KEY, matcher
from tests.core import headers
from tests.core import samples as s
from tests.staging import forget_flow, key_of

pytestmark = pytest.mark.live

MARK = SIZES["marks"][1]                # bytes of a flow's

LINES = ("listed.example", "=only.example.net", "*.below.example.org", "@@fine.example.net", "top", "198.51.100.7",
         "203.0.113.128/25", "192.0.2.1:443", "2001:db8:bad::/48", "2001:db8::77", "example.com/only/a/path")


@pytest.fixture(scope="module")
def loaded():
    with Stage(4096, 120.0, hellos=64) as stage:
        yield stage


@pytest.fixture
def stage(loaded):
    """The program with LINES, and nothing remembered of the flow that the tests use."""
    give(loaded, *LINES)
    for six in (False, True):
        for flow in (Path(six), Path(six, dport=80)):
            forget_flow(loaded, key_of(flow.syn()))
    return loaded


def give(stage, *lines):
    snapshot = matcher(*lines).snapshot
    stage.offer(snapshot.parts, snapshot.key)
    stage.settle()


def outcome(stage, packet):
    """Whether it passes, and what was counted."""
    before = stage.counters()
    passed = stage.judge(packet)
    (what,) = [name for name, count in stage.counters().items() if count != before[name]]
    assert passed == what.startswith("passed_")
    return what


NAMES = {
    "www.innocent.example": "passed_hello", "listed.example": "name", "www.listed.example": "name",
    "LISTED.Example": "name", "listed.example.": "name", "notlisted.example": "passed_hello",
    "listed.example.org": "passed_hello", "only.example.net": "name", "below.example.org": "name",
    "x.below.example.org": "name", "fine.example.net": "passed_hello", "x.top": "name", "top": "name",
    "example.com": "passed_hello", "192.0.2.9": "odd_name", "0x7f.1": "odd_name", "a..b": "odd_name",
    ".a": "odd_name",
    "a.": "passed_hello", ".": "odd_name", "a.7": "odd_name", "a.7b": "odd_name", "b.a7": "passed_hello",
    "a b.example": "odd_name", "a:443": "odd_name", "%6cisted.example": "odd_name", "b\xfccher.example": "odd_name",
    "xn--bcher-kva.example": "passed_hello", "_x-.example": "passed_hello", "a" * 63 + ".example": "passed_hello",
    "a" * 64 + ".example": "odd_name", "a.b.c.d.e.f.g.example": "passed_hello", "a.b.c.d.e.f.g.h.example": "odd_name",
    ".".join(["x" * 40] * 3): "passed_hello", ".".join(["x" * 50] * 3): "odd_name",
}


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("name", NAMES)
def test_names(stage, name, six):
    path = Path(six)
    assert outcome(stage, path.syn()) == "passed_syn"
    assert outcome(stage, path.data(0, s.hello(name.encode("latin-1")))) == NAMES[name]


HELLO = s.hello(b"www.innocent.example")
ODD = {
    "two records": (s.records(s.hello_message(b"www.innocent.example"), 40), "piece"),
    "bytes behind": (HELLO + b"x", "piece"), "a byte less": (HELLO[:-1], "passed_piece"), "two names":
    (s.hello(b"www.innocent.example", b"x.example"), "piece"), "the name twice":
    (s.hello(b"www.innocent.example", before=s.sni(b"x.example")), "piece"), "no name": (s.hello(), "no_name"),
    "another type of name": (s.hello(before=s.sni(b"x.example", kind=1)), "piece"), "HTTP":
    (s.request(b"www.innocent.example"), "other"), "one byte": (b"\x16", "other"), "an alert first":
    (s.record(b"\1\0", 21) + HELLO, "other"), "large": (s.sized_hello(b"www.innocent.example", 2043), "passed_hello"),
    "too large": (s.sized_hello(b"www.innocent.example", 2044), "piece"), "ECH":
    (s.hello(b"www.innocent.example", before=s.ECH), "passed_hello"),
}


@pytest.mark.parametrize("how", ODD)
def test_what_is_no_plain_hello(stage, how):
    path = Path()
    data, what = ODD[how]
    stage.judge(path.syn())
    assert outcome(stage, path.data(0, data)) == what
    assert outcome(stage, path.data(0, HELLO)) == ("later" if what.startswith("passed_") else "watched")


FLAGS = {"URG": s.ACK | s.URG, "FIN": s.ACK | s.FIN, "RST": s.ACK | s.RST, "no ACK": s.PSH}


@pytest.mark.parametrize("how", FLAGS)
def test_odd_flags(stage, how):
    path = Path()
    stage.judge(path.syn())
    assert outcome(stage, path.data(0, HELLO, FLAGS[how])) == "odd"
    assert outcome(stage, path.data(0, HELLO)) == "watched"


def test_an_urgent_pointer_makes_the_flow_the_engines_also_without_data(stage):
    path = Path()
    path.settings["sport"] = 2345
    assert outcome(stage, path.syn()) == "passed_syn"
    assert outcome(stage, path.ack()) == "odd"
    assert outcome(stage, path.bare(s.ACK | s.URG, urgent=80)) == "odd"
    assert outcome(stage, path.data(0, HELLO)) == "watched"


def test_it_must_begin_where_the_syn_says(stage):
    for at in (-1, 1, 1 << 20):
        path = Path(isn=90_000 + at)
        path.settings["sport"] = 5000 + at % 1000
        stage.judge(path.syn())
        assert outcome(stage, path.data(at, HELLO)) == "later"


def test_without_a_syn_nothing_passes(stage):
    path = Path()
    path.settings["sport"] = 999
    assert outcome(stage, path.data(0, HELLO)) == "unknown"
    assert outcome(stage, path.syn()) == "watched"       # the engine has got the flow already
    assert outcome(stage, path.data(0, HELLO)) == "unknown"


def test_syns(stage):
    path = Path()
    assert outcome(stage, path.syn()) == "passed_syn"
    assert outcome(stage, path.syn()) == "passed_syn"
    assert outcome(stage, path.data(0, HELLO)) == "passed_hello"
    assert outcome(stage, path.syn()) == "passed_syn"
    for turn in range(1, 12):   # the ports are used again and again
        again = Path(isn=path.isn + turn * (1 << 28))
        assert outcome(stage, again.syn()) == "passed_syn"
        assert outcome(stage, again.data(0, HELLO)) == "passed_hello"
    assert outcome(stage, Path(isn=path.isn + 12 * (1 << 28)).syn()) == "later"
    assert outcome(stage, Path(isn=path.isn + 14 * (1 << 28)).syn()) == "watched"


def test_a_syn_near_another_is_the_engines(stage):
    path = Path()
    assert outcome(stage, path.syn()) == "passed_syn"
    assert outcome(stage, Path(isn=path.isn + 1000).syn()) == "later"


def test_the_fifth_syn_without_a_hello_is_the_engines(stage):
    again = Path(isn=8 << 28)
    assert (outcome(stage, again.syn()), outcome(stage, again.data(0, HELLO))) == ("passed_syn", "passed_hello")
    answers = [outcome(stage, Path(isn=turn << 28).syn()) for turn in range(5)]
    assert answers == ["passed_syn"] * 4 + ["later"]


def test_a_syn_with_data_is_the_engines(stage):
    path = Path()
    assert outcome(stage, path.syn(HELLO)) == "odd"
    assert outcome(stage, path.syn()) == "watched"


WALKED = [name for name, (packet, _) in headers.CASES.items() if len(packet) < 3500]    # what a run here takes


@pytest.mark.parametrize("name", WALKED)
def test_the_walk_to_tcp_is_the_engines(stage, name):
    packet, expected = headers.CASES[name]
    six = packet[0] >> 4 == 6
    ends = packet[8:40] if six else packet[12:16].ljust(16, b"\0") + packet[16:20].ljust(16, b"\0")
    key = ends + headers.SEGMENT[:4] + struct.pack("=I", 6 if six else 4)
    bpf.delete(stage.maps["engine"], key)
    assert not stage.judge(packet)
    found = bpf.look_up(stage.maps["engine"], key, 8) is not None
    assert found == (expected is not None and expected.proto == 6 and not expected.fragment)


@pytest.mark.parametrize("name", WALKED)
def test_flow_marks_are_of_the_same_flow(keeper, name):
    packet, expected = headers.CASES[name]
    flow = Flow(keeper, "6" if packet[0] >> 4 == 6 else "4")
    flow.port = int.from_bytes(headers.SEGMENT[:2])
    flow.mark(DONE)
    assert flow.says(packet) == ({"done"} if expected and expected.proto == 6 and not expected.fragment else set())


ADDRESSES = {"203.0.113.5": "passed_syn", "198.51.100.7": "address", "198.51.100.8": "passed_syn",
             "203.0.113.127": "passed_syn", "203.0.113.128": "address", "203.0.113.255": "address",
             "192.0.2.1": "address", "2001:db8::78": "passed_syn", "2001:db8::77": "address",
             "2001:db8:bad:1::": "address", "2001:db8:bae::": "passed_syn"}


@pytest.mark.parametrize("server", ADDRESSES)
def test_destinations(stage, server):
    source = s.CLIENT6 if ":" in server else s.CLIENT
    packet = s.tcp(7, b"", s.SYN, ack=0, source=source, destination=server, sport=1234)
    assert outcome(stage, packet) == ADDRESSES[server]


def test_a_listed_port_only(stage):
    assert outcome(stage, s.tcp(7, b"", s.SYN, ack=0, destination="192.0.2.1", dport=80)) == "passed_syn"


def test_more_prefix_lengths_than_there_is_room_for(stage):
    give(stage, *(f"198.51.100.0/{length}" for length in range(24, 29)))
    assert outcome(stage, s.tcp(7, b"", s.SYN, ack=0, sport=4321)) == "address"
    assert outcome(stage, Path(True).syn()) == "passed_syn"


def test_ech_where_its_policy_asks():
    with Stage(64, 120.0, "block", hellos=8) as strict:
        give(strict, *LINES)
        strict.judge(Path().syn())
        assert outcome(strict, Path().data(0, s.hello(b"www.innocent.example", before=s.ECH))) == "ech"


def test_a_share_of_the_connections_is_queued_to_learn_from_and_stays_the_engines():
    limit = (1 << 32) // 10
    with Stage(4096, 120.0, hellos=64, sample=limit) as stage:
        give(stage, *LINES)
        seen = {False: [], True: []}
        for six in (False, True):
            for port in range(10_000, 11_000):
                path = Path(six, sport=port)
                inside = place_in_sample(path.syn(), stage.secret) <= limit
                assert outcome(stage, path.syn()) == ("sample" if inside else "passed_syn")
                seen[six].append(inside)
                if port < 10_100:
                    what = outcome(stage, path.data(0, HELLO))
                    assert what == ("unknown" if inside else "passed_hello")
                    assert outcome(stage, path.syn()) == ("sample" if inside else "passed_syn")
            assert 60 <= sum(seen[six]) <= 140
    with Stage(4096, 120.0, hellos=64) as stage:
        give(stage, *LINES)
        assert all(stage.judge(Path(sport=port).syn()) for port in range(10_000, 10_300))


def test_flows_are_forgotten_when_idle():
    with Stage(64, 0.0, hellos=8) as short:
        give(short, *LINES)
        short.judge(Path().syn())
        assert outcome(short, Path().data(0, HELLO)) == "later"
        assert outcome(short, Path().syn()) == "passed_syn"


def test_rules_change_without_a_moment_between(stage):
    old, new = matcher("old.example", "both.example").snapshot, matcher("new.example", "both.example").snapshot

    def asked(name):
        path = Path()
        path.settings["sport"] = asked.port = asked.port + 1
        stage.judge(path.syn())
        return outcome(stage, path.data(0, s.hello(name))) == "name"

    asked.port = 20_000
    stage.offer(old.parts, old.key)
    stage.settle()
    assert [asked(b"old.example"), asked(b"both.example"), asked(b"new.example")] == [True, True, False]
    stage.offer(new.parts, new.key)
    assert [asked(b"old.example"), asked(b"both.example"), asked(b"new.example")] == [True, True, True]
    stage.settle()
    assert [asked(b"old.example"), asked(b"both.example"), asked(b"new.example")] == [False, True, True]
    stage.withdraw()
    path = Path()
    path.settings["sport"] = 19_999
    assert outcome(stage, path.syn()) == "address"
    assert outcome(stage, path.data(0, HELLO)) == "unknown"


def test_nothing_passes_when_nobody_holds_it_any_more(stage):
    first, second = Path(), Path(isn=1 << 30)
    stage.hold(3600)
    assert outcome(stage, first.syn()) == "passed_syn"
    stage.hold(0)
    assert outcome(stage, first.data(0, HELLO)) == "no_filter"
    assert outcome(stage, second.syn()) == "address"
    stage.hold(3600)


def test_another_key_makes_everything_queued_until_it_is_in_force(stage):
    other = matcher("x.example").snapshot
    stage.offer(other.parts, bytes(16))
    assert outcome(stage, Path().syn()) == "address"
    stage.settle()
    assert outcome(stage, Path(isn=1 << 30).syn()) == "watched"


def test_the_filter_holds_all_and_little_else():
    rules = matcher(*(f"host{number}.example.net" for number in range(20_000))).snapshot.parts
    words = memoryview(bytearray(sieve.blocks_for(rules.rows) * sieve.BLOCK)).cast("Q")
    sieve.fill(words, rules.rows)
    assert len(words) * 64 <= 16 * 20_000
    assert all(sieve.holds(words, fingerprint(KEY, b"host%d.example.net" % number)) for number in range(20_000))
    found = sum(sieve.holds(words, fingerprint(KEY, b"host%d.example.org" % number)) for number in range(20_000))
    assert found < 100


def test_without_the_program_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(stage1, "OBJECT", tmp_path / "program.o")
    with pytest.raises(SystemProblem, match="^first stage: was not compiled .* install clang and build it again$"):
        Stage(16, 1.0)


def test_a_program_that_the_kernel_refuses_says_why(monkeypatch):
    whole = stage1.bpf.bind
    monkeypatch.setattr(stage1.bpf, "bind", lambda *given: whole(*given)[8:])
    with pytest.raises(SystemProblem, match="^first stage: the kernel does not take the program: [^\n]*$"):
        Stage(16, 1.0)


@pytest.mark.parametrize("code,says", [(errno.EPERM, "CAP_BPF"), (errno.ENOSYS, "no bpf"),
                                       (errno.ENOMEM, "limits.flows"), (errno.EIO, "Input/output error")])
def test_what_the_kernel_says_becomes_a_line(code, says):
    assert says in explain(OSError(code, "Input/output error"))


def test_where_no_bpf_file_system_is_it_cannot_be_pinned(stage, tmp_path):
    with pytest.raises(SystemProblem, match=r"mount -t bpf bpf "):
        stage.pin(tmp_path / "x")


# ---- flow marks without conntrack


IDLE = 120.0
UNDECIDED, DONE, HTTP, BLOCKED = range(4)
ANSWER = bytes(400)
SIDES = {"4": (s.CLIENT, s.SERVER), "4, the server is the higher": ("10.0.0.2", "9.9.9.9"),
         "6": (s.CLIENT6, s.SERVER6), "6, the same network": ("2001:db8::7", "2001:db8::6"),
         "the same address": (s.CLIENT, s.CLIENT)}


class Flow:
    """Packets of one flow, of both directions, and its mark."""

    ports = iter(range(10_000, 60_000))

    def __init__(self, keeper, sides="4", udp=False):
        self.keeper, self.udp = keeper, udp
        self.client, self.server = SIDES[sides]
        self.port = next(Flow.ports)
        self.isn, self.server_isn = 1000, 900_000

    def send(self, data=b"", flags=s.ACK, seq=None, back=False, **settings):
        source, destination = (self.server, self.client) if back else (self.client, self.server)
        sport, dport = (443, self.port) if back else (self.port, 443)
        if self.udp:
            return s.ip_packet(17, struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data, source, destination)
        seq = (self.server_isn if back else self.isn) + 1 if seq is None else seq
        return s.tcp(seq, data, flags, source=source, destination=destination, sport=sport, dport=dport, **settings)

    def answer(self, data=ANSWER, **settings):
        return self.send(data, back=True, **settings)

    def syn(self, isn):
        self.isn = isn
        return self.send(flags=s.SYN, seq=isn, ack=0)

    def syn_ack(self, server_isn, **settings):
        self.server_isn = server_isn
        return self.answer(b"", flags=s.SYN | s.ACK, seq=server_isn, **{"ack": self.isn + 1, **settings})

    def key(self):
        ends = [(s.address(self.client).ljust(16, b"\0"), self.port), (s.address(self.server).ljust(16, b"\0"), 443)]
        ends.sort(key=lambda end: (*struct.unpack("<QQ", end[0]), struct.unpack("<H", struct.pack(">H", end[1]))),
                  reverse=True)
        (a, a_port), (b, b_port) = ends
        return a + b + struct.pack(">HH", a_port, b_port) + struct.pack(
            "=I", (6 if ":" in self.client else 4) | (17 if self.udp else 6) << 8)

    def mark(self, what, age=0.0):
        bpf.update(self.keeper.maps["marks"], self.key(), struct.pack(
            "=QI", (time.monotonic_ns() - int(age * 1e9)) % (1 << 64), what).ljust(MARK, b"\0"))    # older wraps

    def marked(self):
        """What is in the map; None where there is nothing."""
        found = bpf.look_up(self.keeper.maps["marks"], self.key(), MARK)
        return None if found is None else struct.unpack_from("=I", found, 8)[0]

    def says(self, packet):
        """What the two programs that ask say of a packet."""
        return {name for name in ("done", "blocked") if self.keeper.ask(name, packet)}


@pytest.fixture(scope="module")
def keeper():
    with Stage(16, IDLE, hellos=1, marks=65_536) as stage:
        yield stage


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
@pytest.mark.parametrize("sides", SIDES)
def test_a_mark_holds_for_both_directions_and_for_that_flow_only(keeper, sides, udp):
    flow = Flow(keeper, sides, udp)
    other = Flow(keeper, sides, udp)
    twin = Flow(keeper, sides, not udp)
    twin.port = flow.port
    for what, said in ((DONE, {"done"}), (BLOCKED, {"blocked"}), (HTTP, set()), (UNDECIDED, set())):
        flow.mark(what)
        assert flow.says(flow.send(b"x")) == flow.says(flow.answer()) == said
        for stranger in (other, twin):
            assert not stranger.says(stranger.send(b"x")) and not stranger.says(stranger.answer())


def test_nothing_is_marked_by_asking(keeper):
    flow = Flow(keeper)
    assert not flow.says(flow.send(b"x")) and not flow.says(flow.answer())
    assert flow.marked() is None


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_an_answer_ends_what_is_undecided_and_nothing_else(keeper, udp):
    flow = Flow(keeper, udp=udp)
    assert keeper.ask("answered", flow.answer())
    assert flow.marked() == DONE and not keeper.ask("answered", flow.answer())
    for what in (UNDECIDED, HTTP, BLOCKED):
        flow.mark(what)
        assert keeper.ask("answered", flow.answer()) == (what == UNDECIDED)
        assert flow.marked() == (what or DONE)


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_what_is_idle_is_done_no_more(keeper, udp):
    flow = Flow(keeper, udp=udp)
    flow.mark(DONE, IDLE - 10)
    assert flow.says(flow.send(b"x")) == {"done"}
    flow.mark(DONE, IDLE + 10)
    assert not flow.says(flow.send(b"x")) and not flow.says(flow.answer(b"x"))
    assert keeper.ask("answered", flow.answer())
    assert flow.says(flow.send(b"x")) == {"done"}


def test_a_flow_in_use_does_not_grow_old(keeper):
    flow = Flow(keeper)
    flow.mark(DONE, IDLE - 10)
    assert flow.says(flow.answer(b"x")) == {"done"}
    touched = struct.unpack_from("=Q", bpf.look_up(keeper.maps["marks"], flow.key(), MARK))[0]
    assert time.monotonic_ns() - touched < 5e9


def test_http_and_blocked_tcp_hold_until_a_syn_and_blocked_udp_until_it_is_idle(keeper):
    flow = Flow(keeper)
    for what in (HTTP, BLOCKED):
        flow.mark(what, 10 * IDLE)
        assert not keeper.ask("answered", flow.answer())
        assert flow.says(flow.send(b"x")) == ({"blocked"} if what == BLOCKED else set())
        assert keeper.ask("reopened", flow.syn(77 + what))
        assert flow.marked() == UNDECIDED
    flow = Flow(keeper, udp=True)
    flow.mark(BLOCKED, IDLE + 10)
    assert not flow.says(flow.send(b"x"))
    assert keeper.ask("answered", flow.answer()) and flow.marked() == DONE


@pytest.mark.parametrize("what", [None, DONE, HTTP, BLOCKED])
@pytest.mark.parametrize("sides", SIDES)
def test_behind_a_syn_only_the_new_connections_answer_counts(keeper, sides, what):
    flow = Flow(keeper, sides)
    if what is not None:
        flow.mark(what)
    late = flow.answer()
    assert keeper.ask("reopened", flow.syn(70_000))
    assert not keeper.ask("reopened", flow.syn(70_000))         # the same again
    assert not flow.says(flow.send(b"x"))
    assert not keeper.ask("answered", late) and flow.marked() == UNDECIDED
    # What acknowledges nothing of it, and what the client says in the server's place, changes nothing.
    flow.says(flow.syn_ack(5_000_000, ack=70_000))
    flow.says(flow.send(flags=s.SYN | s.ACK, seq=5_000_000, ack=70_001))
    assert not keeper.ask("answered", flow.answer(seq=5_000_001))
    assert not flow.says(flow.syn_ack(5_000_000))
    for seq in (5_000_000 + (1 << 16) + 1, 5_000_000, 900_001):
        assert not keeper.ask("answered", flow.answer(seq=seq))
    assert not keeper.ask("answered", flow.send(ANSWER, seq=5_000_001))
    assert not keeper.ask("reopened", flow.syn(70_000))         # again, behind its answer
    assert keeper.ask("answered", flow.answer(seq=5_000_001 + 1400))
    assert flow.says(flow.send(b"x")) == {"done"}


def test_only_a_syn_reopens(keeper):
    flow = Flow(keeper)
    flow.mark(DONE)
    for flags in (s.ACK, s.SYN | s.ACK, s.FIN | s.ACK, s.RST, 0):
        assert not keeper.ask("reopened", flow.send(flags=flags)) and flow.marked() == DONE
    flow = Flow(keeper, udp=True)
    flow.mark(DONE)
    assert not keeper.ask("reopened", flow.send(b"x" * 20)) and flow.marked() == DONE
    flow = Flow(keeper)
    flow.mark(DONE)
    assert keeper.ask("reopened", flow.send(flags=s.SYN | s.FIN | s.URG))


def established(keeper, sides="4"):
    """A flow whose handshake the programs have seen; the rules ask for the mark of each packet first."""
    flow = Flow(keeper, sides)
    assert keeper.ask("reopened", flow.syn(70_000))
    flow.says(flow.syn_ack(5_000_000))
    return flow


@pytest.mark.parametrize("sides", SIDES)
def test_who_acknowledges_what_the_server_said_has_proved_himself(keeper, sides):
    flow = established(keeper, sides)

    def proven(ack, flags=s.ACK | s.PSH, **settings):
        return keeper.ask("proven", flow.send(b"x", flags, ack=ack & 0xFFFFFFFF, **settings))

    first = 5_000_001
    assert proven(first) and not proven(first + 1) and not proven(first - 66_001) and not proven(first + (1 << 31))
    assert not any(proven(first, flags) for flags in (s.PSH, s.SYN | s.ACK, s.SYN, s.RST | s.ACK))
    assert not keeper.ask("proven", flow.answer(b"x", ack=70_001))
    # The server goes on, and so may the client; what has not come by cannot be acknowledged.
    for turn in range(40):
        at = first + turn * 50_000
        flow.says(flow.answer(bytes(1400), seq=at + 50_000 - 1400))
        assert proven(at + 50_000) and proven(at) and not proven(at + 50_001)
        flow.says(flow.send(flags=s.ACK, ack=at + 50_000))
    assert not proven(first)


def test_without_a_handshake_nobody_has_proved_anything(keeper):
    flow = Flow(keeper)
    assert not keeper.ask("proven", flow.send(b"x"))
    keeper.ask("reopened", flow.syn(70_000))
    assert not keeper.ask("proven", flow.send(b"x", ack=0)) and not keeper.ask("proven", flow.send(b"x", ack=1))


@pytest.mark.parametrize("sides", SIDES)
def test_a_strangers_syn_changes_nothing_of_what_the_server_has_answered(keeper, sides):
    flow = established(keeper, sides)
    assert keeper.ask("answered", flow.answer(seq=5_000_001)) and flow.says(flow.send(b"x")) == {"done"}
    for isn in range(1_000_000, 9_000_000, 1_000_000):
        assert not keeper.ask("reopened", flow.send(flags=s.SYN, seq=isn, ack=0))
        assert flow.says(flow.send(b"x")) == {"done"}
    flow.says(flow.answer(b"", flags=s.ACK, ack=70_001))            # RFC 5961: a challenge
    assert flow.says(flow.send(b"x")) == {"done"}
    # A server that has forgotten the connection takes the SYN.
    flow.syn(8_000_000)
    assert not flow.says(flow.syn_ack(6_000_000)) and flow.marked() == UNDECIDED
    assert keeper.ask("proven", flow.send(b"x", ack=6_000_001))
    assert not keeper.ask("proven", flow.send(b"x", ack=5_000_001))
    assert not keeper.ask("answered", flow.answer(seq=5_000_001 + 300))
    assert keeper.ask("answered", flow.answer(seq=6_000_001))


def test_what_the_engine_marks_leaves_the_proof_as_it_is(keeper):
    flow = established(keeper)
    marking = Marking(keeper.maps["marks"])
    assert marking.mark(flow.send(b"x"), HTTP) and flow.marked() == HTTP
    assert keeper.ask("proven", flow.send(b"x", ack=5_000_001))
    assert not keeper.ask("reopened", flow.send(flags=s.SYN, seq=1, ack=0)) and flow.marked() == HTTP
    assert keeper.ask("proven", flow.send(b"x", ack=5_000_001))
    assert marking.mark(flow.send(b"x"), BLOCKED)
    assert keeper.ask("reopened", flow.syn(900_000)) and flow.marked() == UNDECIDED


HEADERS = {"none": [], "hop-by-hop": [0], "destination options": [60], "routing": [43], "whole fragment": [44],
           "many": [60] * 60, "mixed": [0, 60, 44, 60]}


def behind(headers, packet):
    """An IPv6 packet with those extension headers between the IP header and the rest."""
    kinds = [*headers, packet[6]]
    between = b"".join(bytes([following]) + bytes(7) for following in kinds[1:])
    size = struct.unpack_from("!H", packet, 4)[0] + len(between)
    return packet[:4] + struct.pack("!HB", size, kinds[0]) + packet[7:40] + between + packet[40:]


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
@pytest.mark.parametrize("headers", HEADERS)
def test_extension_headers_are_walked(keeper, headers, udp):
    flow = Flow(keeper, "6", udp)
    flow.mark(DONE)
    assert flow.says(behind(HEADERS[headers], flow.send(b"x"))) == {"done"}
    flow.mark(BLOCKED)
    assert flow.says(behind(HEADERS[headers], flow.answer())) == {"blocked"}


def test_what_cannot_be_read_has_no_mark(keeper):
    flow, six = Flow(keeper), Flow(keeper, "6")
    flow.mark(DONE)
    six.mark(DONE)
    packet = flow.send(b"x" * 40)
    short = bytearray(packet)
    short[20 + 12] = 0x40                              # a TCP header of 16 bytes
    long = bytearray(flow.send())
    long[20 + 12] = 0xF0                               # one that ends behind the packet
    piece, later = bytearray(packet), bytearray(packet)
    piece[6] = 0x20
    later[7] = 1
    for odd in (short, long, piece, later, packet[:32], bytes([0x50]) + packet[1:]):
        assert not flow.says(bytes(odd)) and not keeper.ask("answered", bytes(odd)), odd
    whole = behind([44], six.send(b"x" * 40))
    assert six.says(whole) == {"done"}
    for at, byte in ((43, 1), (42, 1), (43, 8)):       # more to come; not the first
        odd = whole[:at] + bytes([byte]) + whole[at + 1:]
        assert not six.says(odd), (at, byte)
    assert not six.says(behind([60] * (headers.MANY + 1), six.send(b"x")))
    assert not six.says(behind([60], six.send(b"x"))[:44])


def test_when_it_is_full_the_least_used_go():
    with Stage(16, IDLE, hellos=1, marks=1024) as small:
        kept = Flow(small)
        kept.mark(BLOCKED)
        for _ in range(4000):
            one = Flow(small)
            assert small.ask("answered", one.answer())
            assert one.says(one.send(b"x")) == {"done"}
            assert kept.says(kept.send(b"x")) == {"blocked"}


def test_conntrack_needs_no_map_of_marks(loaded):
    assert "marks" not in loaded.maps and not loaded.asking and len(loaded.memory()) == 2


@pytest.fixture
def place(tmp_path):
    """A bpf file system."""
    there = tmp_path / "bpf"
    there.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", there], check=True)
    yield there
    subprocess.run(["umount", there], check=True)


def test_a_program_with_other_structures_is_refused(tmp_path, monkeypatch):
    data = stage1.OBJECT.read_bytes()
    layout = struct.pack(f"<{len(LAYOUT) + 1}I", *LAYOUT, len(stage1.OUTCOMES))
    assert data.count(layout) == 1
    older = tmp_path / "program.o"
    for at in range(0, len(layout), 4):
        changed = layout[:at] + bytes([layout[at] ^ 8]) + layout[at + 1:]
        older.write_bytes(data.replace(layout, changed))
        monkeypatch.setattr(stage1, "OBJECT", older)
        with pytest.raises(SystemProblem, match="first stage: .*program.o is of another edgeblock: .* again"):
            Stage(16, 1.0, hellos=1)


def test_marks_of_another_edgeblock_are_not_taken_on(place):
    kept = place / "marks"
    with Stage(16, IDLE, hellos=1, marks=1024, kept=kept) as first:
        spec, name = bpf.describe(first.maps["marks"])
        assert not first.note
    for foreign in (spec._replace(entries=64), spec._replace(value_size=40), spec):
        fd = bpf.create_map(foreign, "marks_00000000" if foreign == spec else name)
        bpf.pin(fd, kept)
        with Stage(16, IDLE, hellos=1, marks=1024, kept=kept) as second:
            assert bpf.describe(second.maps["marks"]) == (spec, name)
            assert ("is of another edgeblock" if foreign == spec else "has another size") in second.note
        os.close(fd)


def test_each_program_is_pinned_and_goes_with_the_stage(place):
    with Stage(16, IDLE, hellos=1, marks=1024, kept=place / "first-marks") as stage:
        stage.pin(place / "first")
        assert {one.name for one in place.glob("first*")} == {
            "first", "first-marks", *(f"first-{name}" for name in PROGRAMS)}
    assert not list(place.glob("first*"))


def test_marks_outlive_a_daemon_that_is_replaced_or_killed(place):
    kept = place / "marks"
    first = Stage(16, IDLE, hellos=1, marks=1024, kept=kept)
    flow = Flow(first)
    flow.mark(BLOCKED)
    second = Stage(16, IDLE, hellos=1, marks=1024, kept=kept)     # the first was killed; kernel rules still ask it
    flow.keeper = second
    assert flow.says(flow.send(b"x")) == {"blocked"}
    first.close(keep=True)
    second.close(keep=True)
    with Stage(16, IDLE, hellos=1, marks=1024, kept=kept) as flow.keeper:
        assert flow.says(flow.send(b"x")) == {"blocked"}
        flow.keeper.close(keep=True)
        with Stage(16, IDLE, hellos=1, marks=2048, kept=kept) as flow.keeper:      # other settings: another map
            assert not flow.says(flow.send(b"x"))
    assert not kept.exists()


def test_where_marks_cannot_be_kept_it_is_one_line(tmp_path):
    with pytest.raises(SystemProblem, match=f"{tmp_path}/marks: .*mount -t bpf bpf {tmp_path}$") as caught:
        Stage(16, IDLE, hellos=1, marks=1024, kept=tmp_path / "marks")
    assert "\n" not in str(caught.value)


# ---- what lies over what was offered

def test_what_lies_over_is_asked_too_without_a_filter_made_anew(stage):
    """A name more, an exception more, a prefix more: each is queued from then on, and nothing else is."""
    base = matcher(*(f"h{number}.example" for number in range(100)), "198.51.100.0/24").snapshot
    over = matcher("a.b.new.example.net", "@@h7.example", "203.0.113.9", "2001:db8:1::/48").snapshot.parts
    ports = iter(range(30_000, 40_000))

    def asked(name=b"www.innocent.example", dst="192.0.2.200"):
        path = Path()
        path.settings.update(sport=next(ports), destination=dst)
        first = outcome(stage, path.syn())
        return first if first == "address" else outcome(stage, path.data(0, s.hello(name)))

    stage.offer(base.parts, base.key)
    stage.settle()
    before = stage.newest
    assert asked(b"a.b.new.example.net") == "passed_hello" and asked(dst="203.0.113.9") == "passed_hello"
    assert stage.extend(over) and stage.newest == before
    assert asked(b"a.b.new.example.net") == "name" and asked(b"b.new.example.net") == "passed_hello"
    assert asked(b"h7.example") == asked(b"h99.example") == "name"
    assert asked(dst="203.0.113.9") == asked(dst="198.51.100.7") == "address"
    assert asked(dst="203.0.113.8") == "passed_hello"
    crowd = matcher(*(f"203.0.{length}.0/{length}" for length in range(25, 31))).snapshot.parts
    assert stage.extend(crowd) and asked(dst="8.8.8.8") == "address"      # more lengths than there is room for


def test_a_filter_that_is_full_or_not_there_is_made_anew(stage):
    base = matcher(*(f"h{number}.example" for number in range(3200))).snapshot
    much = matcher(*(f"m{number}.example" for number in range(900))).snapshot.parts
    stage.offer(base.parts, base.key)
    stage.settle()
    for _ in range(5):
        assert stage.extend(matcher("one.example").snapshot.parts)
    assert not stage.extend(much)
    stage.offer(much, base.key, base.parts)
    stage.settle()
    assert stage.extend(much) and stage.room > 900
    for name in (b"h3199.example", b"m899.example"):
        path = Path()
        path.settings["sport"] = 41_000
        stage.judge(path.syn())
        assert outcome(stage, path.data(0, s.hello(name))) in ("name", "watched")
    stage.withdraw()
    assert not stage.extend(much)


def test_what_is_added_while_rules_change_stays(stage):
    old, new = matcher("old.example").snapshot, matcher("new.example").snapshot
    stage.offer(old.parts, old.key)
    stage.settle()
    stage.offer(new.parts, new.key)
    assert stage.extend(matcher("more.example").snapshot.parts)
    stage.settle()
    path = Path()
    path.settings["sport"] = 42_000
    stage.judge(path.syn())
    assert outcome(stage, path.data(0, s.hello(b"more.example"))) == "name"
