"""The first stage and the engine together, packet by packet: what the kernel lets by the engine hears of in time.

Every way of sending of disguises/streams.py and every capture beside the repository: the same verdicts as without it.
"""

from collections.abc import Iterator
from pathlib import Path as File

import pytest
from corpus import BESIDE

from edgeblock.commands import replay
from edgeblock.disguises.streams import MIDWAY, STRATEGIES, Path
from edgeblock.netfilter.stage1 import Stage
from edgeblock.source.capture import Capture
from edgeblock.source.checksums import Survey
from edgeblock.source.defragment import Defragmenter
from edgeblock.source.recall import Recall
from tests.core import samples as s
from tests.core.playing import LISTED, OTHER, engine, play
from tests.fuzz.stage1 import run as fuzz
from tests.staging import Box, is_tcp, key_of

pytestmark = pytest.mark.live

SENDABLE = STRATEGIES | MIDWAY
PROVEN = 2


@pytest.fixture(scope="module")
def stage():
    with Stage(65_536, 120.0, hellos=1024) as loaded:
        yield loaded


REQUESTS = {"tls": s.hello, "http": s.request}


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("name", [LISTED, OTHER], ids=["listed", "other"])
@pytest.mark.parametrize("how", SENDABLE)
def test_the_same_verdict_as_without_it(stage, how, name, kind, six):
    data = REQUESTS[kind](name)
    packets = list(SENDABLE[how](Path(six), data, data.index(name), len(name)))
    alone = play(engine("blocked.example.com"), packets)
    both = Box(stage, engine("blocked.example.com")).play(packets)
    assert both.blocked == alone.blocked
    assert [a.accept for a in alone.decisions if a.mark == "blocked"] == [
        b.accept for a, b in zip(alone.decisions, both.decisions, strict=True) if a.mark == "blocked"]


def conversation(capture: File) -> Iterator[tuple[bytes, float, bool]]:
    """Packets of a capture, their times, and whether the kernel rules would ask about them: the client's TCP."""
    clients: set[bytes] = set()
    with Capture(capture) as source:
        for record, data, _ in replay._packets(source, Defragmenter(), None):
            if not data:
                continue
            asked = False
            if is_tcp(data):
                key = key_of(data)
                back = key[16:32] + key[:16] + key[34:36] + key[32:34] + key[36:]
                if back not in clients:
                    clients.add(key)
                asked = key in clients
            yield data, record.time, asked


@pytest.mark.parametrize("capture", sorted((BESIDE / "evasion").glob("*.pcap")), ids=lambda path: path.stem)
def test_a_capture_ends_as_it_does_without_it(stage, capture):
    listed = "blocked.example.com" + "/bad/page.html" * capture.name.startswith("http-py-path-")
    packets = list(conversation(capture))
    survey = Survey("auto")
    for data, _, _ in packets:
        survey.add(data)
    survey.close()
    for line, blocks in ((listed, True), ("other.example.com", False)):
        box = Box(stage, engine(line))
        box.forget(data for data, _, _ in packets)
        alone = engine(line)
        before = after = False
        for data, now, asked in packets:
            flag = survey.flag(data, False)
            before = before or alone.judge(data, now, flag).rule is not None
            made = box.judge(data, now, flag) if asked else box.engine.judge(data, now, flag)
            after = after or made.rule is not None
        assert (before, after) == (blocks, blocks)


def test_a_clean_hello_is_never_asked_about_and_what_follows_is(stage):
    box, path = Box(stage, engine("blocked.example.com")), Path()
    data = s.hello(OTHER)
    played = box.play([*path.opening(), path.data(0, data)])
    assert box.asked == 0 and played.counters["flows"] == 0
    box.judge(path.data(len(data), b"x"), 1.0)
    assert box.engine.counters()["hellos"] == 1 and box.recall.recalled == 1


def test_the_past_is_told_once(stage):
    box, path = Box(stage, engine("blocked.example.com")), Path()
    data = s.hello(OTHER)
    box.play([path.syn(), path.data(0, data)])
    for turn in range(3):
        box.judge(path.data(len(data), b"x"), 1.0 + turn)
    assert box.engine.counters()["packets"] == 2 + 3


def test_a_server_that_took_only_the_beginning_of_a_passed_hello(stage):
    # A tiny window: the server keeps the first half of the hello that passed, then takes another second half.
    path = Path()
    other, listed = s.hello(b"blocked.innocent.net"), s.hello(b"blocked.example.com.")
    cut = listed.index(b"blocked.") + 8
    box = Box(stage, engine("blocked.example.com"))
    played = box.play([*path.opening(), path.data(0, other), path.data(cut, listed[cut:])])
    assert played.decisions[2].accept and played.blocked


def test_a_hello_that_was_overwritten_is_counted_and_the_rest_is_read(stage):
    with Stage(64, 120.0, hellos=1) as small:
        box, path = Box(small, engine("blocked.example.com")), Path()
        box.play([path.syn(), path.data(0, s.hello(OTHER))])
        overwrite_hellos(small)
        assert box.judge(path.data(0, s.hello(LISTED)), 1.0).mark == "blocked"
        assert box.recall.forgotten == 1


def test_where_a_stream_begins_outlives_the_hello_behind_it(stage):
    # The hello that passed is overwritten; then a decoy five bytes into the stream, and only then its first bytes.
    with Stage(64, 120.0, hellos=1) as small:
        box, path = Box(small, engine("blocked.example.com")), Path()
        box.play([path.syn(), path.data(0, s.hello(OTHER))])
        overwrite_hellos(small)
        listed = s.hello(LISTED)
        decisions = [box.judge(packet, 1.0) for packet in (
            path.data(5, s.hello(OTHER)), path.data(0, listed[:3]), path.data(3, listed[3:]))]
        assert decisions[-1].mark == "blocked" and box.recall.forgotten


def overwrite_hellos(stage):
    """Passes so many of other flows that the bytes of all before are gone."""
    for port in range(1000, 1000 + 8 * stage.places):
        later = Path()
        later.settings["sport"] = port
        stage.judge(later.syn())
        stage.judge(later.data(0, s.hello(OTHER)))


def come_round(box, path, small, isns):
    """An innocent connection from each of these numbers, none of which is refused, and all their hellos forgotten."""
    for turn, isn in enumerate(isns):
        path.isn = isn
        for packet in (path.syn(), path.data(0, s.hello(OTHER))):
            assert box.judge(packet, 1.0 + turn).accept, turn
        overwrite_hellos(small)


def test_ports_that_come_round_again_when_their_hellos_are_overwritten_are_no_crowd(stage):
    # Five hundred connections a second of one client: of each the hello is gone before its ports are used again.
    with Stage(64, 120.0, hellos=1) as small:
        box, path = Box(small, engine("blocked.example.com")), Path()
        box.forget([path.syn()])
        come_round(box, path, small, (turn * 100_000_000 for turn in range(30)))
        assert box.engine.counters()["overflows"] == 0 and box.recall.forgotten
        assert box.judge(path.data(0, s.hello(LISTED)), 40.0).mark == "blocked"


@pytest.mark.parametrize("which", [0, 1, 6, 11, 12])
def test_of_overwritten_hellos_the_one_in_question_is_read_from_its_syn(stage, which):
    # Twelve streams passed, their hellos are gone, another is the engine's; then one comes in pieces, the last first.
    with Stage(64, 120.0, hellos=1) as small:
        box, path = Box(small, engine("blocked.example.com")), Path()
        box.forget([path.syn()])
        for turn in range(13):
            path.isn = turn * 100_000_000
            box.judge(path.syn(), 1.0)
            box.judge(path.data(0, s.hello(OTHER)), 1.0)
            overwrite_hellos(small)
        listed = s.hello(LISTED)
        path.isn = which * 100_000_000
        for at, end in ((40, None), (5, 40), (1, 5), (0, 1)):
            made = box.judge(path.data(at, listed[at:end]), 2.0)
        assert made.mark == "blocked"


def test_a_hello_that_was_overwritten_had_shown_its_proof_all_the_same(stage):
    # The kernel asks for one before it lets a hello by. Who shows none is no part of that flow from the start.
    with Stage(64, 120.0, hellos=1) as small:
        box, path = Box(small, engine("blocked.example.com", unproven="drop")), Path()
        data = s.hello(OTHER)
        box.play([path.syn(), path.data(0, data)])
        overwrite_hellos(small)
        stranger = box.judge(path.data(len(data) + 40, s.hello(LISTED)), 1.0)
        counted = box.engine.counters()
        assert (stranger.accept, counted["junk_unproven"], counted["unproven_blocked"]) == (False, 1, 0)
        assert box.recall.forgotten == 1
        assert box.judge(path.data(len(data), b"more"), 1.1, PROVEN).accept


CCS = b"\x14\x03\x03\0\1\1"


@pytest.mark.parametrize("before", [False, True], ids=["plain", "behind_a_decoy"])
@pytest.mark.parametrize("cut", [0, 6, 20])
def test_behind_a_hello_that_was_overwritten_the_second_one_is_read(stage, cut, before):
    # The server asks for another hello (RFC 8446, 4.1.4), as browsers send it: behind a change_cipher_spec.
    with Stage(64, 120.0, hellos=1) as small:
        box, path = Box(small, engine("blocked.example.com")), Path()
        first, second = s.hello(OTHER), CCS + s.hello(LISTED)
        box.play([path.syn(), path.data(0, first)])
        overwrite_hellos(small)
        if before:
            box.judge(path.data(4, b"x"), 1.0)
        for at, piece in ((0, second[:cut]), (cut, second[cut:])):
            made = box.judge(path.data(len(first) + at, piece), 2.0) if piece else None
        assert made.mark == "blocked"


@pytest.mark.parametrize("above", [-1_000_000, -700, 300, 1_000_000])
def test_sequence_numbers_that_come_round_to_those_of_overwritten_hellos_are_no_crowd(stage, above):
    # A client whose numbers come round after thirty connections: each is near one of which the hello is gone.
    with Stage(64, 120.0, hellos=1) as small:
        box, path = Box(small, engine("blocked.example.com")), Path()
        box.forget([path.syn()])
        come_round(box, path, small,
                   (turn % 30 * 140_000_000 + turn // 30 * above & 0xFFFFFFFF for turn in range(60)))
        assert box.judge(path.data(0, s.hello(LISTED)), 80.0).mark == "blocked"


def test_what_is_lost_is_told_by_itself(stage):
    # The rest that the engine has been told once is not begun anew with it: here a connection that never spoke.
    with Stage(64, 120.0, hellos=1) as small:
        box, path = Box(small, engine("blocked.example.com")), Path()
        box.forget([path.syn()])
        for turn in range(13):
            path.isn = turn * 100_000_000
            for packet in (path.syn(), *([path.data(0, s.hello(OTHER))] * (turn not in (3, 7)))):
                assert box.judge(packet, 1.0).accept
            overwrite_hellos(small)
        told = box.engine.counters()["packets"]
        for turn in (0, 1, 2):
            box.judge(s.tcp(turn * 100_000_000 + 5000, b"x"), 2.0)
        assert box.engine.counters()["packets"] == told + 3


def test_a_packet_that_says_nothing_recalls_nothing(stage):
    box, path = Box(stage, engine("blocked.example.com")), Path(True)
    box.play([path.syn(), path.data(0, s.hello(OTHER))])
    segment = s.tcp_segment(path.isn + 500, b"", s.ACK, source=s.CLIENT6, destination=s.SERVER6)
    box.judge(s.ip_packet(60, bytes([6]) + bytes(7) + segment, s.CLIENT6, s.SERVER6), 1.0)
    assert box.recall.recalled == 0 and box.engine.counters()["flows"] == 0


def test_a_connection_that_many_syns_push_aside_is_found_again(stage):
    # The real SYN, a decoy hello that dies, and SYNs that die, more than the engine or the stage remember.
    for forged in (3, 4, 5, 8, 11, 12, 13):
        for data in (s.hello(LISTED), s.request(LISTED)):
            path = Path()
            box = Box(stage, engine("blocked.example.com"))
            played = box.play([
                s.tcp(path.isn, flags=s.SYN), path.data(0, s.hello(OTHER)),
                *(s.tcp(path.isn + turn * 100_000_000, flags=s.SYN) for turn in range(1, 1 + forged)),
                path.data(0, data)])
            assert played.decisions[1].accept and played.blocked, forged


def test_nothing_is_recalled_of_flows_the_stage_has_not_seen(stage):
    box = Box(stage, engine("blocked.example.com"))
    recall = Recall(*stage.memory(), stage.places, stage.secret)
    for packet in (b"", b"\x45", s.ip_packet(17, b"12345678"), Path(True).data(0, b"x", sport=7)):
        recall.prepare(box.engine, packet, 1.0)
    assert recall.recalled == 0


@pytest.mark.parametrize("forgetful", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_random_flows(seed, forgetful):
    assert fuzz(60.0, 20_000, seed, forgetful) == 0
