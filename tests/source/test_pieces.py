"""Hellos in several segments in the first stage: what passes, what hands the flow over, what the engine is told."""

import ctypes
import os
import struct
import time

import pytest

from edgeblock.disguises.streams import Path
from edgeblock.netfilter.stage1 import Stage, bpf
from tests.blocklist.making import matcher
from tests.core import samples as s
from tests.core.playing import LISTED, OTHER, engine, play
from tests.staging import Box, forget_flow, key_of, place_of_part

pytestmark = pytest.mark.live

GSO_SEGS, GSO_SIZE = 164, 176           # in struct __sk_buff
LARGE = s.sized_hello(OTHER, 1800)      # with post-quantum key shares, as browsers send it
HEAD = 9                                # of a record and a message in it: less is no certain beginning


@pytest.fixture(scope="module")
def loaded():
    with Stage(4096, 120.0, hellos=1024) as stage:
        yield stage


@pytest.fixture
def box(loaded):
    return fresh(loaded)


def fresh(stage, *lines, **settings):
    """The stage and an engine with these rules, and nothing remembered of the flow that the tests use."""
    made = Box(stage, engine(*(lines or ("blocked.example.com",)), **settings))
    made.forget(Path(six).syn() for six in (False, True))
    return made


def outcome(box, packet):
    """What was counted; `blocked` where the engine was asked and says so."""
    before = box.stage.counters()
    made = box.judge(packet, 1.0)
    (what,) = [name for name, count in box.stage.counters().items() if count != before[name]]
    return "blocked" if made.mark == "blocked" else what


def merged(stage, packet, size):
    """Whether it passes as segments of so many bytes that were made one on the way."""
    frame = bytes(12) + (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet
    content, context = ctypes.create_string_buffer(frame, len(frame)), ctypes.create_string_buffer(192)
    struct.pack_into("=I", context, GSO_SEGS, 2)
    struct.pack_into("=I", context, GSO_SIZE, size)
    _, answer = bpf.call(bpf.PROG_TEST_RUN, struct.pack(
        "=IIIIQQIIIIQQ", stage.program, 0, len(frame), 0, ctypes.addressof(content), 0, 1, 0, 192, 0,
        ctypes.addressof(context), 0))
    return bool(struct.unpack_from("=I", answer, 4)[0])


def pieces(path, data, *cuts):
    """The segments of a hello that is cut there."""
    edges = [0, *cuts, len(data)]
    return [path.data(a, data[a:b]) for a, b in zip(edges, edges[1:], strict=False)]


def header(stage, path):
    """Of the place of that flow's hello in pieces: the serial, until when it is kept, and the cuts."""
    hellos, place = stage.maps["hellos"], place_of_part(key_of(path.syn()), stage)
    found = bpf.look_up(hellos, struct.pack("=I", place), bpf.describe(hellos)[0].value_size)
    first = stage.places - (stage.places + 3) // 4
    (until,) = struct.unpack("=Q", bpf.look_up(stage.maps["parts"], struct.pack("=I", place - first), 8))
    serial, *cuts = struct.unpack_from("=I4x40x2x3H", found)
    return serial, until, *cuts


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("cuts", [(1388,), (1448,), (600, 1200), (HEAD,), (500, 1000, 1500), (1000, 1001, 1129)])
def test_a_hello_in_pieces_never_comes_to_the_queue(box, cuts, six):
    path = Path(six)
    assert outcome(box, path.syn()) == "passed_syn"
    assert [outcome(box, packet) for packet in pieces(path, LARGE, *cuts)] == [
        *["passed_piece"] * len(cuts), "passed_hello"]
    assert box.asked == 0
    assert outcome(box, path.data(len(LARGE), b"x")) == "later"
    sent = [path.syn(), *pieces(path, LARGE, *cuts), path.data(len(LARGE), b"x")]
    alone = play(engine("blocked.example.com"), sent)
    assert box.engine.counters()["packets"] == alone.counters["packets"]
    assert box.engine.counters()["hellos"] == 1


def test_one_that_was_merged_on_the_way_passes_whole(box):
    path = Path()
    box.judge(path.syn(), 1.0)
    assert outcome(box, path.data(0, LARGE)) == "passed_hello" and box.asked == 0


SEAMED = b"blocked.innocent.net", b"blocked.example.com."


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
def test_the_seam_of_two_that_were_merged_on_the_way_is_a_cut(box, six):
    path, (passed, listed) = Path(six), map(s.hello, SEAMED)
    seam = passed.index(SEAMED[0]) + len(b"blocked")
    assert len(passed) == len(listed) <= 2 * seam
    # The server got the first one only; then another, of which it takes what is behind the seam.
    copy = listed[seam - 20:seam - 7] + b"another" + listed[seam:]
    assert outcome(box, path.syn()) == "passed_syn"
    assert merged(box.stage, path.data(0, passed), seam)
    assert outcome(box, path.data(seam - 20, copy)) == "blocked"


def test_of_segments_that_were_merged_on_the_way_two_from_the_beginning_on_pass(box):
    half = (len(LARGE) + 1) // 2
    for size, first, passes in ((half, 0, True), (half - 1, 0, False), (600, 0, False), (500, 900, False)):
        box, path = fresh(box.stage), Path()
        begin, rest = path.data(0, LARGE[:first]), path.data(first, LARGE[first:])
        assert outcome(box, path.syn()) == "passed_syn"
        assert not first or outcome(box, begin) == "passed_piece"
        assert merged(box.stage, rest, size) == passes, (size, first)


def test_cut_anywhere_the_verdict_is_the_same(loaded):
    for name in (LISTED, OTHER):
        data = s.hello(name, behind=s.extension(51, bytes(60)))
        whole = data.index(name) + len(name)
        for cut in range(1, len(data)):
            box, path = fresh(loaded), Path()
            outcome(box, path.syn())
            got = [outcome(box, packet) for packet in pieces(path, data, cut)]
            if name == OTHER:
                assert got == (["passed_piece", "passed_hello"] if cut >= HEAD else
                               ["other" if cut < 6 else "piece", "watched"]), cut
            elif cut < HEAD:
                assert got[1] == "blocked", cut
            else:       # what a piece has of a name is judged at once
                assert got == (["passed_piece", "blocked"] if cut < whole else ["blocked", "blocked"]), cut


def test_a_fifth_piece_is_the_engines(box):
    path = Path()
    box.judge(path.syn(), 1.0)
    got = [outcome(box, packet) for packet in pieces(path, LARGE, 300, 600, 900, 1200, 1500)]
    assert got == [*["passed_piece"] * 4, "piece", "watched"]
    assert box.engine.counters()["hellos"] == 1


BETWEEN = {
    "the same again": (lambda path: path.data(0, LARGE[:700]), "later"),
    "behind a gap": (lambda path: path.data(701, LARGE[701:]), "later"),
    "over its end": (lambda path: path.data(699, LARGE[699:]), "later"),
    "all of it": (lambda path: path.data(0, LARGE), "later"),
    "another SYN": (lambda path: Path(isn=path.isn + (1 << 28)).syn(), "later"),
    "with FIN": (lambda path: path.data(700, LARGE[700:], s.ACK | s.FIN), "odd"),
    "with RST": (lambda path: path.data(700, LARGE[700:], s.ACK | s.RST), "odd"),
    "without ACK": (lambda path: path.data(700, LARGE[700:], s.PSH), "odd"),
    "urgent": (lambda path: path.data(700, LARGE[700:], s.ACK | s.URG), "odd"),
    "more than there is": (lambda path: path.data(700, LARGE[700:] + b"x"), "piece"),
    "another hello": (lambda path: path.data(1 << 28, LARGE), "later"),
}


@pytest.mark.parametrize("how", BETWEEN)
def test_anything_else_makes_the_flow_the_engines(box, how):
    path = Path()
    box.judge(path.syn(), 1.0)
    first, second = pieces(path, LARGE, 700)
    assert outcome(box, first) == "passed_piece"
    packet, what = BETWEEN[how]
    assert outcome(box, packet(path)) == what
    assert box.recall.recalled == 1
    # Others may have the place after two minutes, and nothing of this flow passes any more.
    assert header(box.stage, path)[1] < time.monotonic_ns() + 121e9
    assert outcome(box, second) == "watched"


def test_the_second_piece_first_is_the_engines(box):
    path = Path()
    first, second = pieces(path, LARGE, 700)
    box.judge(path.syn(), 1.0)
    assert [outcome(box, second), outcome(box, first)] == ["later", "watched"]


def test_the_same_syn_again_changes_nothing(box):
    path = Path()
    first, second = pieces(path, LARGE, 700)
    box.judge(path.syn(), 1.0)
    assert [outcome(box, one) for one in (first, path.syn(), second)] == [
        "passed_piece", "passed_syn", "passed_hello"]


def test_a_server_takes_each_piece_whole_or_not_at_all(box):
    # Of the hello that passed, the server got the first piece only; then all of another, of which it takes the rest.
    path, name = Path(), b"blocked.innocent.net."
    passed, copy = s.hello(name), s.hello(b"wxyzabc.example.com.".ljust(len(name) - 1, b"m"))
    cut = passed.index(name) + len(b"blocked.")
    copy = copy[:cut] + s.hello(b"blocked.example.com.m")[cut:]
    assert len(copy) == len(passed) and LISTED in passed[:cut] + copy[cut:]
    packets = [path.syn(), *pieces(path, passed, cut), path.data(0, copy)]
    box = fresh(box.stage, "blocked.example.com.m")
    assert box.play(packets).blocked and header(box.stage, path)[2] == cut
    # In one piece it takes or leaves it whole: no server reads the listed name.
    packets[1:3] = [path.data(0, passed)]
    assert not fresh(box.stage, "blocked.example.com.m").play(packets).blocked


def test_what_has_passed_of_a_hello_is_remembered_as_long_as_the_engine_would():
    with Stage(64, 0.0, hellos=64, held=3600.0) as short:
        box, path = fresh(short), Path()
        listed = s.hello(LISTED)
        cut = listed.index(LISTED) + 4
        box.judge(path.syn(), 1.0)
        first, second = pieces(path, listed, cut)
        assert outcome(box, first) == "later"       # the SYN is over at once: this is the engine's
        with Stage(64, 120.0, hellos=64, held=3600.0) as stage:
            box = fresh(stage)
            box.judge(path.syn(), 1.0)
            assert outcome(box, first) == "passed_piece"
            stage.settings = 0, *stage.settings[1:]
            stage.hold(3600)
            assert outcome(box, second) == "blocked"


def test_a_flow_that_a_flood_has_pushed_out_is_known_by_its_piece(box):
    path, data = Path(), s.hello(LISTED)
    first, second = pieces(path, data, data.index(LISTED) + 4)
    for between in ([], [Path(isn=path.isn + (1 << 28)).syn()]):
        box = fresh(box.stage)
        box.judge(path.syn(), 1.0)
        assert outcome(box, first) == "passed_piece"
        assert bpf.delete(box.stage.maps["flows"], key_of(first))
        assert [outcome(box, packet) for packet in between] == ["watched"] * len(between)
        assert outcome(box, second) == "blocked"


def test_no_other_takes_the_place_of_one_that_is_not_whole(loaded):
    box, path = fresh(loaded), Path()
    place = place_of_part(key_of(path.syn()), loaded)
    other = Path()
    for port in range(1025, 65_000):
        other.settings["sport"] = port
        if place_of_part(key_of(other.syn()), loaded) == place:
            break
    first, second = pieces(path, LARGE, 1400)
    others = pieces(other, LARGE, 1400)
    for packet, what in ((path.syn(), "passed_syn"), (other.syn(), "passed_syn"), (first, "passed_piece"),
                         (others[0], "piece"), (others[1], "watched"), (second, "passed_hello")):
        assert outcome(box, packet) == what
    box.forget([other.syn()])
    assert [outcome(box, packet) for packet in (other.syn(), *others)] == [
        "passed_syn", "passed_piece", "passed_hello"]
    forget_flow(loaded, key_of(other.syn()))


def test_nobody_can_compute_where_the_pieces_of_another_are():
    """Who could would take their places, so that these hellos go to the queue."""
    keys = [struct.pack("=16s16sHHI", b"\xc0\0\2\1", b"\xc6\x33\x64\7", port, 443, 4) for port in range(500)]
    places = []
    for _ in range(2):
        with Stage(64, 120.0, hellos=4096) as stage:
            places.append([place_of_part(key, stage) for key in keys])
    assert sum(a == b for a, b in zip(*places, strict=True)) < 100      # about one, as there are 1024 places


def test_rules_that_come_between_two_pieces_are_asked(box):
    path = Path()
    data = s.hello(OTHER, behind=s.extension(51, bytes(200)))
    first, second = pieces(path, data, len(data) - 20)
    box.judge(path.syn(), 1.0)
    assert outcome(box, first) == "passed_piece"
    listing = matcher(OTHER.decode()).snapshot
    box.stage.offer(listing.parts, listing.key)
    box.stage.settle()
    assert outcome(box, second) == "name"


def test_ech_is_seen_in_the_piece_that_has_it():
    with Stage(64, 120.0, "block", hellos=64) as strict:
        box, path = fresh(strict, ech="block"), Path()
        data = s.hello(OTHER, before=s.ECH, behind=s.extension(51, bytes(200)))
        box.judge(path.syn(), 1.0)
        assert outcome(box, pieces(path, data, len(data) - 20)[0]) in ("ech", "blocked")


def test_what_is_certainly_no_hello_is_not_begun(loaded):
    data = bytearray(LARGE)
    for at, byte in ((0, 21), (5, 2), (6, 1), (8, 0), (3, 8), (43, 255)):
        box, path = fresh(loaded), Path()
        box.judge(path.syn(), 1.0)
        odd = bytes(data[:at]) + bytes([byte]) + bytes(data[at + 1:1400])
        assert outcome(box, path.data(0, odd)) == ("other" if at == 0 else "piece"), at


def test_the_next_one_of_the_same_flow_does_not_take_its_place(box):
    # The first piece of a hello has arrived, the second died; another connection on these ports; then another second.
    path, later = Path(), Path(isn=Path().isn + (1 << 28))
    name = b"blocked.innocent.net."
    passed = s.hello(name)
    cut = passed.index(name) + len(b"blocked.")
    packets = [path.syn(), *pieces(path, passed, cut), later.syn(), *pieces(later, LARGE, 1400)]
    assert [outcome(box, packet) for packet in packets] == [
        "passed_syn", "passed_piece", "passed_hello", "passed_syn", "passed_piece", "passed_hello"]
    rest = path.data(cut, s.hello(b"blocked.example.com.m")[cut:])
    assert play(engine("example.com.m"), [*packets, rest]).blocked
    box.engine = engine("blocked.example.com.m")
    assert outcome(box, rest) == "blocked" and box.recall.forgotten == 0


def test_processors_at_the_same_flows_leave_nothing_locked(loaded):
    # Each plays the same hellos of the same few flows; what one has at work the others hand over or queue.
    def play_all():
        for turn in range(300):
            for port in range(4):
                path = Path(isn=7000 + turn * (1 << 22))
                path.settings["sport"] = 2000 + port
                for packet in (path.syn(), *pieces(path, LARGE, 700 + turn)):
                    loaded.judge(packet)
                if not turn % 3:
                    forget_flow(loaded, key_of(path.syn()))

    fresh(loaded)
    begun = []
    for _ in range(3):
        child = os.fork()
        if not child:
            play_all()
            os._exit(0)
        begun.append(child)
    assert [os.waitpid(child, 0)[1] for child in begun] == [0] * 3
    spec = bpf.describe(loaded.maps["hellos"])[0]
    for place in range(loaded.places):
        found = bpf.look_up(loaded.maps["hellos"], struct.pack("=I", place), spec.value_size)
        assert found[:4] != b"\xff" * 4
    size = bpf.describe(loaded.maps["flows"])[0].value_size
    for port in range(4):
        path = Path()
        path.settings["sport"] = 2000 + port
        found = bpf.look_up(loaded.maps["flows"], key_of(path.syn()), size)
        assert found is None or not found[0] & 1
        forget_flow(loaded, key_of(path.syn()))
        assert [loaded.judge(packet) for packet in (path.syn(), *pieces(path, LARGE, 700))] == [True] * 3
