"""What the shortcut carries of undecided flows: each kind of packet, run through the program at the box's interfaces.

The rest of the box is played as the kernel rules have it (policy.py), so each packet is seen where it would be.
"""

import ctypes
import json
import random
import struct
import time
from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from edgeblock.core.engine import Engine
from edgeblock.lab import CLIENT, SERVER, Lab
from edgeblock.netfilter import bytecode
from edgeblock.netfilter.marks import SHORTCUT
from edgeblock.netfilter.stage1 import Stage, bpf
from edgeblock.netfilter.stage1.structures import SIZES
from edgeblock.source.marking import Marking
from tests.blocklist.making import matcher
from tests.core import samples as s
from tests.core.playing import engine
from tests.fuzz import requests as kept
from tests.netfilter.test_bytecode import ANSWERS, run
from tests.source.test_pieces import header, pieces
from tests.staging import PASSED, Box, Tracking, is_bare

pytestmark = pytest.mark.live

UNDECIDED, DONE, HTTP, BLOCKED = range(4)
CLIENT4 = ip_address(CLIENT[4]).packed
REDIRECT, LEAVE = 7, 0xFFFFFFFF
IFINDEX, INGRESS_IFINDEX = 40, 36          # in struct __sk_buff
NAME = b"www.innocent.example"
HELLO = s.hello(NAME)
LARGE = s.sized_hello(NAME, 1800)
ANSWER = ANSWERS["ServerHello"][0].ljust(1400, b"\0")
LISTS = ("blocked.example.com",)


class Ground:
    """The box of a lab, whose interfaces, routes and neighbours the program finds, and a stage in it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.index: dict[str, int] = {}
        self.address: dict[str, bytes] = {}
        for side, other in (("to-client", "client"), ("to-server", "server")):
            link, beyond = interface(lab, "box", side), interface(lab, other, "to-box")["address"]
            self.index[side], self.address[side] = link["ifindex"], bytes.fromhex(link["address"].replace(":", ""))
            for version in (4, 6):
                to = (CLIENT if other == "client" else SERVER)[version]
                lab.run_in("box", ["ip", "neigh", "replace", to, "lladdr", beyond, "dev", side, "nud", "permanent"])
        self.stage = Stage(4096, 120.0, hellos=1024, marks=4096, shortcut=True, held=3600.0,
                           apart=True)


def interface(lab: Lab, place: str, device: str) -> dict:
    """What ip(8) says of it."""
    return json.loads(lab.run_in(place, ["ip", "-j", "link", "show", "dev", device]).stdout)[0]


@pytest.fixture(scope="module")
def ground():
    with Lab() as lab:
        made = Ground(lab)
        with lab.entered("box"), made.stage:
            yield made


def ran(program: int, frame: bytes, device: int, seen: int) -> int:
    """What a program answers to a frame that comes by a device."""
    content, context = ctypes.create_string_buffer(frame, len(frame)), ctypes.create_string_buffer(192)
    struct.pack_into("=I", context, IFINDEX, device)
    struct.pack_into("=I", context, INGRESS_IFINDEX, seen)
    _, answer = bpf.call(bpf.PROG_TEST_RUN, struct.pack(
        "=IIIIQQIIIIQQ", program, 0, len(frame), 0, ctypes.addressof(content), 0, 1, 0, 192, 0,
        ctypes.addressof(context), 0))
    return struct.unpack_from("=I", answer, 4)[0]


class Flow:
    """One connection through that box, from its SYN on."""

    ports = iter(range(20_000, 60_000))

    def __init__(self, ground: Ground, version: int = 4, lists=LISTS) -> None:
        self.ground, self.stage = ground, ground.stage
        self.box = Box(self.stage, engine(*lists))
        self.client, self.server, self.port = CLIENT[version], SERVER[version], next(Flow.ports)
        self.isn, self.server_isn, self.heard = 7000, 900_000, 900_001

    def send(self, data=b"", flags=s.ACK, at=0, ack=None, **settings):
        ends = {"source": self.client, "destination": self.server, "sport": self.port, "dport": 443, **settings}
        return s.tcp(self.isn + 1 + at, data, flags, ack=self.heard if ack is None else ack, **ends)

    def syn(self):
        return self.send(flags=s.SYN, at=-1, ack=0)

    def data(self, at, data, flags=s.ACK):      # as disguises.streams.Path
        return self.send(data, flags, at)

    def answer(self, data=b"", flags=s.ACK, at=0, heard=0, **settings):
        ends = {"source": self.server, "destination": self.client, "sport": 443, "dport": self.port, **settings}
        return s.tcp(self.server_isn + 1 + at, data, flags, ack=self.isn + 1 + heard, **ends)

    def comes(self, packet, side=None, padding=b""):
        """`carried`, or what became of it on the usual way: `passed`, `queued`, `dropped`."""
        side = side or side_of(packet)
        if self.enters(packet, side, padding) == REDIRECT:
            return "carried"
        kind = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
        back = side_of(packet) == "to-server"
        return self.stack(packet, bytes(12) + kind + packet, self.ground.index[side], back)

    def enters(self, packet, side, padding=b""):
        """What the shortcut does with it."""
        kind = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
        frame = self.ground.address[side] + bytes(6) + kind + packet + padding
        verdict = ran(self.stage.asking[SHORTCUT], frame, self.ground.index[side], 0)
        assert verdict in (REDIRECT, LEAVE)
        return verdict

    def stack(self, packet, frame, device, back):
        def asks(name):
            return ran(self.stage.program if name == "cleared" else self.stage.asking[name], frame, device, device)

        family = packet[0] >> 4
        flags = packet[33 if family == 4 else 53]
        opening = flags & (s.SYN | s.ACK) == s.SYN
        if not opening and asks("done"):
            return "passed"
        if back:
            if asks("blocked"):
                return "dropped"
            if run(bytecode.answer(family), packet):
                asks("answered")
            return "passed"
        if opening:
            asks("reopened")
        if asks("blocked"):
            return "queued" if not run(bytecode.bare(family), packet) else "dropped"
        if not opening and run(bytecode.bare(family), packet):
            return "passed"
        if (opening or asks("proven")) and asks("cleared"):
            return "passed"
        self.box.recall.prepare(self.box.engine, packet, 1.0)
        return "blocked" if self.box.engine.judge(packet, 1.0, 3).mark == "blocked" else "queued"

    def opened(self):
        """Behind the handshake."""
        assert [self.comes(one) for one in (self.syn(), self.answer(flags=s.SYN | s.ACK, at=-1), self.send())] == [
            "passed", "passed", "carried"]
        return self

    def marked(self):
        marks = self.stage.maps["marks"]
        for key in bpf.keys(marks, *SIZES["marks"]):
            if struct.pack("!H", self.port) in (key[32:34], key[34:36]):
                return struct.unpack_from("=I", bpf.look_up(marks, key, SIZES["marks"][1]), 8)[0]
        return None


VERSIONS = pytest.mark.parametrize("version", [4, 6])


@VERSIONS
def test_from_the_handshake_on_all_is_carried(ground, version):
    flow = Flow(ground, version).opened()
    before = ground.stage.counters()
    sent = [flow.send(), flow.data(0, HELLO), flow.answer(at=0), flow.answer(ANSWER), flow.answer(ANSWER, at=1400)]
    assert [flow.comes(one) for one in sent] == ["carried"] * 5
    assert flow.marked() == DONE
    after = ground.stage.counters()
    assert after["carried"] - before["carried"] == 5 and after["passed_hello"] - before["passed_hello"] == 1
    flow.heard += 2800
    assert flow.comes(flow.data(len(HELLO), b"x")) == flow.comes(flow.send(flags=s.ACK | s.FIN)) == "carried"


@VERSIONS
def test_a_hello_in_pieces_is_carried_and_remembered(ground, version):
    flow = Flow(ground, version).opened()
    assert [flow.comes(one) for one in pieces(flow, LARGE, 1400)] == ["carried"] * 2
    # Anything else is left alone, and comes to an engine that knows what has passed.
    assert flow.comes(flow.data(0, LARGE[:1400])) == "queued"
    assert flow.box.recall.recalled == 1 and flow.box.engine.counters()["hellos"] == 1
    assert flow.comes(flow.data(len(LARGE), s.hello(b"blocked.example.com"))) != "carried"


@VERSIONS
def test_pieces_are_kept_until_user_space_is_told(ground, version):
    flow = Flow(ground, version).opened()
    assert flow.comes(flow.data(0, LARGE[:1400])) == "carried"
    kept = header(ground.stage, flow)[1]
    odd = flow.data(5000, b"x")
    # What is left to the stack may be dropped there, as with a wrong checksum of IP, and then nobody hears of it.
    assert flow.enters(odd, "to-client") == LEAVE
    assert header(ground.stage, flow)[1] == kept > time.monotonic_ns() + 3000e9
    assert flow.comes(flow.data(1400, LARGE[1400:])) == "queued" and flow.box.recall.recalled == 1
    assert header(ground.stage, flow)[1] < time.monotonic_ns() + 121e9


@VERSIONS
@pytest.mark.parametrize("cut", [None, 50])
def test_a_listed_name_is_never_carried(ground, version, cut):
    data = s.hello(b"blocked.example.com")
    flow = Flow(ground, version).opened()
    got = [flow.comes(one) for one in (pieces(flow, data, cut) if cut else [flow.data(0, data)])]
    assert got == ["carried"] * (len(got) - 1) + ["blocked"]
    marking = Marking(ground.stage.maps["marks"])
    assert marking.mark(flow.data(0, data), BLOCKED)
    assert flow.comes(flow.answer(ANSWER)) == flow.comes(flow.answer()) == flow.comes(flow.send()) == "dropped"
    assert flow.comes(flow.data(0, data)) == "queued"


@VERSIONS
def test_where_conntrack_is_to_see_what_is_undecided_only_done_flows_are_carried(ground, version):
    kept, flow, first = Flow(ground, version).opened(), Flow(ground, version).opened(), s.request(NAME)
    assert kept.comes(kept.data(0, first)) == "carried"
    ground.stage.carry_undecided(False)
    try:
        ground.stage.hold(60.0)              # which has the other settings with it
        assert kept.comes(kept.answer(ANSWER, heard=len(first))) == "passed"
        assert kept.comes(kept.data(len(first), first)) == "passed"
        assert [flow.comes(one) for one in (flow.send(), flow.data(0, HELLO), flow.answer(ANSWER))] == ["passed"] * 3
        assert flow.marked() == DONE and flow.comes(flow.answer()) == flow.comes(flow.send()) == "carried"
    finally:
        ground.stage.hold(600.0)
        ground.stage.carry_undecided(True)
    assert kept.comes(kept.answer(heard=2 * len(first))) == "carried"


def test_a_block_that_comes_while_the_server_speaks_holds(ground):
    flow = Flow(ground).opened()
    assert flow.comes(flow.answer(b"220 hello", at=0)) == "carried"
    Marking(ground.stage.maps["marks"]).mark(flow.send(), BLOCKED)
    assert flow.comes(flow.answer(ANSWER, at=9)) == "dropped" and flow.marked() == BLOCKED


def test_of_what_is_the_engines_no_data_is_carried(ground):
    flow = Flow(ground).opened()
    request = flow.data(0, s.request(NAME).replace(b"GET", b"POST"))
    assert flow.comes(request) == "queued"
    assert flow.comes(flow.data(0, HELLO)) == "queued"
    Marking(ground.stage.maps["marks"]).mark(flow.send(), HTTP)
    assert [flow.comes(one) for one in (flow.send(), flow.answer(ANSWER), flow.answer())] == ["carried"] * 3
    assert flow.marked() == HTTP and flow.comes(flow.data(0, s.request(NAME))) == "queued"


@VERSIONS
def test_requests_of_a_kept_connection_are_carried_up_to_one_that_may_be_listed(ground, version):
    flow = Flow(ground, version).opened()
    before, at, came = ground.stage.counters(), 0, []
    for number in range(5):
        came += [flow.comes(flow.data(at, s.request(NAME)))]
        at += len(s.request(NAME))
        came += [flow.comes(flow.answer(ANSWER, at=len(ANSWER) * number, heard=at))]
        flow.heard += len(ANSWER)
        came += [flow.comes(flow.send(at=at))]
        assert flow.marked() == HTTP
    after = ground.stage.counters()
    assert came == ["carried"] * 15 and after["carried"] - before["carried"] == 15
    assert after["passed_request"] - before["passed_request"] == 5
    listed = flow.data(at, s.request(b"blocked.example.com"))
    assert flow.comes(listed) == "blocked" and flow.box.recall.recalled == 1
    Marking(ground.stage.maps["marks"]).mark(listed, BLOCKED)
    assert flow.comes(flow.answer(ANSWER, at=len(ANSWER) * 5, heard=at)) == flow.comes(flow.send(at=at)) == "dropped"
    assert flow.comes(listed) == "queued"


@pytest.mark.parametrize("ahead", [0, 1, 1400])
def test_what_the_server_has_not_acknowledged_keeps_the_next_request_from_being_carried(ground, ahead):
    flow, first = Flow(ground).opened(), s.request(NAME)
    assert flow.comes(flow.data(0, first)) == "carried"
    if ahead:       # acknowledged by a packet that does not come next: it may be of another connection
        assert flow.comes(flow.answer(ANSWER, at=ahead, heard=len(first))) == "carried"
    assert flow.comes(flow.data(len(first), first)) == "queued"
    # The engine's, from here on: nothing of it passes, whatever is acknowledged.
    assert flow.comes(flow.answer(heard=2 * len(first))) == "carried"
    assert flow.comes(flow.data(2 * len(first), first)) == "queued" and flow.comes(flow.send()) == "carried"


@VERSIONS
def test_what_comes_by_the_clients_interface_acknowledges_nothing(ground, version):
    flow, first = Flow(ground, version).opened(), s.request(NAME)
    assert flow.comes(flow.data(0, first)) == flow.comes(flow.answer(heard=len(first))) == "carried"
    assert flow.comes(flow.data(len(first), first)) == "carried"
    # Not the server's, though with its address: a request that the server has not got would be forgotten.
    assert flow.comes(flow.answer(heard=2 * len(first)), side="to-client") == "passed"
    assert flow.comes(flow.data(2 * len(first), first)) == "queued" and flow.box.recall.recalled == 1


@pytest.mark.parametrize("apart", [True, False])
def test_without_the_shortcut_the_clients_interface_is_known_where_it_is_no_servers(ground, apart):
    with Stage(64, 120.0, hellos=8, marks=64, apart=apart) as stage:
        flow, first = Flow(SimpleNamespace(stage=stage)), s.request(NAME)

        def comes(packet, side):
            return flow.stack(packet, bytes(12) + b"\x08\x00" + packet, ground.index[side], packet[16:20] == CLIENT4)

        for packet, side in ((flow.syn(), "to-client"), (flow.answer(flags=s.SYN | s.ACK, at=-1), "to-server"),
                             (flow.send(), "to-client"), (flow.data(0, first), "to-client"),
                             (flow.answer(heard=len(first)), "to-server"),
                             (flow.data(len(first), first), "to-client"),
                             (flow.answer(heard=2 * len(first)), "to-client")):
            assert comes(packet, side) == "passed"
        assert comes(flow.data(2 * len(first), first), "to-client") == ("queued" if apart else "passed")
        assert flow.box.recall.recalled == apart


@pytest.mark.parametrize("way", ["carried", "passed"])
def test_what_has_come_by_either_way_counts_for_the_next_request(ground, way):
    flow, first = Flow(ground).opened(), s.request(NAME)
    assert flow.comes(flow.data(0, first)) == "carried"
    # What is urgent goes up the stack.
    flags = s.ACK if way == "carried" else s.ACK | s.URG
    assert flow.comes(flow.answer(ANSWER, flags=flags, heard=len(first))) == way
    flow.heard += len(ANSWER)
    assert flow.comes(flow.data(len(first), first)) == "carried"


@VERSIONS
def test_a_kept_connection_ends_with_the_next_syn(ground, version):
    flow, first = Flow(ground, version).opened(), s.request(NAME)
    assert flow.comes(flow.data(0, first)) == "carried" and flow.marked() == HTTP
    assert flow.comes(flow.answer(ANSWER, heard=len(first))) == "carried"
    flow.isn, flow.server_isn, flow.heard = 1 << 30, 1 << 29, (1 << 29) + 1
    assert flow.comes(flow.send(flags=s.SYN, at=-1, ack=0)) == "passed" and flow.marked() == HTTP
    assert flow.comes(flow.answer(flags=s.SYN | s.ACK, at=-1)) == "passed" and flow.marked() == UNDECIDED
    assert flow.comes(flow.answer()) == "passed"          # the rules have yet to see both sides again
    assert flow.comes(flow.data(0, s.request(b"blocked.example.com"))) == "blocked"


ODD = {"SYN": s.SYN, "SYN-ACK": s.SYN | s.ACK, "FIN": s.FIN | s.ACK, "RST": s.RST, "RST-ACK": s.RST | s.ACK,
       "URG": s.URG | s.ACK}


@pytest.mark.parametrize("flags", ODD)
def test_what_is_left_to_the_usual_way(ground, flags):
    flow = Flow(ground).opened()
    assert flow.comes(flow.send(flags=ODD[flags])) != "carried"
    assert flow.comes(flow.answer(flags=ODD[flags])) != "carried"


@pytest.mark.parametrize("ack", [-70_000, 1, 1 << 20])
def test_who_has_not_proved_his_address_is_not_carried(ground, ack):
    flow = Flow(ground).opened()
    assert flow.comes(flow.send(HELLO, ack=flow.heard + ack)) == "queued"
    assert flow.comes(flow.data(0, HELLO, s.PSH)) != "carried"


def test_before_both_directions_have_come_through_nothing_is_carried(ground):
    flow = Flow(ground)
    assert flow.comes(flow.send(flags=s.SYN, at=-1, ack=0)) == "passed"
    assert flow.comes(flow.send()) == flow.comes(flow.answer()) == "passed"       # not answered yet
    assert flow.comes(flow.answer(flags=s.SYN | s.ACK, at=-1)) == "passed"
    # Its SYN was seen at the interface and by the rules, and so was the SYN-ACK.
    assert flow.comes(flow.answer()) == flow.comes(flow.data(0, HELLO)) == "carried"
    assert flow.comes(flow.answer()) == flow.comes(flow.send(at=len(HELLO))) == "carried"


@VERSIONS
@pytest.mark.parametrize("other", ["port", "number", "interface", "none"])
def test_a_syn_that_the_rules_see_otherwise_than_the_interface_lets_nothing_be_carried(ground, other, version):
    """As where somebody translates addresses: the rule has not seen what the interface has."""
    flow, side = Flow(ground, version), "to-client"
    syn = flow.syn()
    was = {"port": flow.send(flags=s.SYN, at=-1, ack=0, sport=19_999), "number": flow.send(flags=s.SYN, at=15, ack=0),
           "interface": syn, "none": None}[other]
    if was is not None:
        assert flow.enters(was, "to-server" if other == "interface" else side) == LEAVE
    kind = b"\x08\x00" if version == 4 else b"\x86\xdd"
    assert flow.stack(syn, bytes(12) + kind + syn, ground.index[side], False) == "passed"
    assert flow.comes(flow.answer(flags=s.SYN | s.ACK, at=-1)) == flow.comes(flow.answer()) == "passed"
    # The client's first goes up, whatever it is; the rules see that nobody translates it.
    assert flow.comes(flow.data(0, HELLO)) == "passed"
    assert flow.comes(flow.answer()) == flow.comes(flow.send(at=len(HELLO))) == "carried"


def test_a_syn_counts_once(ground):
    flow, side = Flow(ground), "to-client"
    syn = flow.syn()
    assert flow.comes(syn) == "passed"
    ground.stage.forget(lambda key: True)
    assert flow.stack(syn, bytes(12) + b"\x08\x00" + syn, ground.index[side], False) != "carried"
    assert flow.comes(flow.answer(flags=s.SYN | s.ACK, at=-1)) == flow.comes(flow.send()) == "passed"


def test_another_syn_meanwhile_has_to_be_seen_itself(ground):
    """A stranger's, from another interface, on the way to a flow's: what that came by is not his."""
    flow = Flow(ground)
    assert flow.comes(flow.syn()) == "passed"
    flow.isn += 1 << 28
    syn = flow.syn()
    assert flow.stack(syn, bytes(12) + b"\x08\x00" + syn, ground.index["to-client"], False) != "carried"
    assert flow.comes(flow.answer(flags=s.SYN | s.ACK, at=-1)) == flow.comes(flow.send()) == "passed"
    assert flow.comes(flow.send()) == "carried"


def test_nothing_comes_by_another_interface(ground):
    flow = Flow(ground).opened()
    assert flow.comes(flow.send(), "to-server") == "passed"
    assert flow.comes(flow.answer()) == "passed"          # its answer would go where that came from
    assert [flow.comes(flow.send()) for _ in range(3)] == ["passed", "carried", "carried"]
    assert flow.comes(flow.answer()) == "carried"


def test_exempt_and_sampled_flows_have_no_data_carried(ground):
    # The rules let an exempt client's SYN by before the first stage is asked; a sampled one is the engine's.
    flow = Flow(ground).opened()
    flows = ground.stage.maps["flows"]
    for key in list(bpf.keys(flows, 40, bpf.describe(flows)[0].value_size)):
        bpf.delete(flows, key)
    assert flow.comes(flow.data(0, HELLO)) == "queued"


def test_what_is_listed_meanwhile_is_not_carried(ground):
    flow = Flow(ground).opened()
    assert flow.comes(flow.send()) == "carried"
    assert ground.stage.forget(lambda key: s.address(flow.server) in (key[:4], key[16:20])) >= 1
    assert flow.comes(flow.send()) == flow.comes(flow.answer(ANSWER)) == "passed"
    late = Flow(ground).opened()
    listing = matcher(NAME.decode()).snapshot
    ground.stage.offer(listing.parts, listing.key)
    assert late.comes(late.data(0, HELLO)) == "queued"
    ground.stage.settle()


def test_without_a_daemon_no_data_is_carried(ground):
    flow = Flow(ground).opened()
    ground.stage.hold(0)
    try:
        assert flow.comes(flow.data(0, HELLO)) == "queued"
        assert flow.comes(flow.answer()) == "carried"
    finally:
        ground.stage.hold(3600)


def test_padding_is_no_payload(ground):
    flow = Flow(ground).opened()
    assert flow.comes(flow.send(), padding=bytes(6)) == flow.comes(flow.answer(), padding=bytes(6)) == "carried"
    assert flow.comes(flow.data(0, HELLO[:9]), padding=b"x") == "passed"      # judged where there is none
    assert flow.comes(flow.data(9, HELLO[9:])) == "carried"


@VERSIONS
@pytest.mark.parametrize("size", [0, 207, 208, 227, 228, 700, 727, 728, 1400])
@pytest.mark.parametrize("what", ANSWERS)
def test_an_answer_is_what_the_rule_takes_for_one(ground, what, size, version):
    flow = Flow(ground, version).opened()
    packet = flow.answer(ANSWERS[what][0].ljust(size, b"x"))
    assert flow.comes(packet) == "carried"
    assert (flow.marked() == DONE) == run(bytecode.answer(version), packet)


def test_an_answer_far_behind_the_handshake_ends_nothing(ground):
    flow = Flow(ground).opened()
    assert flow.comes(flow.answer(ANSWER, at=1 << 16)) == "carried" and flow.marked() == UNDECIDED
    assert flow.comes(flow.answer(ANSWER, at=-1)) == "carried" and flow.marked() == UNDECIDED
    assert flow.comes(flow.send(ANSWER)) != "carried"


def test_ports_that_come_round_again_go_up_the_stack(ground):
    flow = Flow(ground).opened()
    assert [flow.comes(one) for one in (flow.data(0, HELLO), flow.answer(ANSWER))] == ["carried"] * 2
    flow.isn, flow.server_isn, flow.heard = 1 << 30, 1 << 29, (1 << 29) + 1
    assert flow.comes(flow.send(flags=s.SYN, at=-1, ack=0)) == "passed"
    assert flow.comes(flow.answer(flags=s.SYN | s.ACK, at=-1)) == "passed" and flow.marked() == UNDECIDED
    assert [flow.comes(flow.answer()), flow.comes(flow.answer()), flow.comes(flow.send()),
            flow.comes(flow.send())] == ["passed", "passed", "passed", "carried"]
    assert flow.comes(flow.data(0, s.hello(b"blocked.example.com"))) == "blocked"


# ---- kept connections, with every trick


class Seen:
    """The stage of a ground, whose programs are told by which interface a packet has come."""

    def __init__(self, ground: Ground) -> None:
        self.ground, self.stage = ground, ground.stage

    def __getattr__(self, name):
        return getattr(self.stage, name)

    def frame(self, packet, to=bytes(6)):
        side = self.ground.index[side_of(packet)]
        return to + bytes(6) + (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet, side

    def ask(self, name, packet):
        frame, side = self.frame(packet)
        return bool(ran(self.stage.asking[name], frame, side, side))

    def judge(self, packet):
        frame, side = self.frame(packet)
        return bool(ran(self.stage.program, frame, side, side))

    def carries(self, packet):
        frame, side = self.frame(packet, self.ground.address[side_of(packet)])
        return ran(self.stage.asking[SHORTCUT], frame, side, 0) == REDIRECT


def side_of(packet):
    source = packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]
    return "to-server" if source in (s.address(SERVER[4]), s.address(SERVER[6])) else "to-client"


class Carrying(Tracking):
    """As Tracking, behind the shortcut."""

    def __init__(self, ground, judges):
        super().__init__(Seen(ground), judges)
        self.carried = {True: 0, False: 0}      # with data of the client's; of the others

    def judge(self, packet, now, flags=0):
        if not self.stage.carries(packet):
            return super().judge(packet, now, flags)
        self.carried[not is_bare(packet)] += 1
        self.passed += not is_bare(packet)
        return PASSED

    def answer(self, packet):
        if not self.stage.carries(packet):
            return super().answer(packet)
        self.carried[False] += 1
        return True


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_no_conversation_gets_past_what_the_engine_alone_blocks(ground, seed):
    dice, rules = random.Random(seed), matcher(*kept.LISTS)
    box = Carrying(ground, Engine(rules, flows=1 << 12, worker_rereading=(1 << 32) - 1))
    alone = Engine(rules, flows=1 << 12, report=True, worker_rereading=(1 << 32) - 1)
    blocked = 0
    for number in range(1000):
        version, plain, chosen = 4 + 2 * (number % 2), dice.randrange(4) == 0, dice.getrandbits(64)
        ends = kept.Ends(CLIENT[version], SERVER[version], next(Flow.ports))
        got = kept.converse(box, ends, chosen, plain, number * 1e-3)
        wanted = kept.converse(kept.Alone(alone), ends, chosen, plain, number * 1e-3)
        assert not got.listed or wanted.listed, (chosen, plain)
        assert not plain or not got.dropped + wanted.dropped, (chosen, plain)
        blocked += got.dropped > 0
    assert min(box.carried.values()) > 500 and blocked > 100
