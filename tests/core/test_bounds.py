"""A client who runs into a bound on purpose: what is real still reaches the reader, and an innocent one is let alone.

Each attack is a list of (real, packet). The real packets alone are a stream that nginx or another server reads; the
others die on the way. With a listed name not all real ones may pass, with another name every packet must.
"""

import random
import time
from collections.abc import Callable

import pytest
import quic_packets as quic

from edgeblock.disguises.streams import Path
from tests.core import samples as s
from tests.core.playing import LISTED, OTHER, engine, play
from tests.core.protocols import CHUNKED, READERS, message
from tests.core.test_quic_engine import TRUST, udp

NOISE = random.Random(7).randbytes(4000)
ATTACKS: dict[str, Callable] = {}


def attack(function: Callable) -> Callable:
    ATTACKS[function.__name__] = function
    return function


def upload(size: int) -> bytes:
    return s.request(b"first.example", b"/", b"POST", (NOISE * (size // len(NOISE) + 1))[:size])


def real(path: Path, at: int, data: bytes, step: int = 1400) -> list[tuple[bool, bytes]]:
    return [(True, path.data(at + i, data[i:i + step])) for i in range(0, len(data), step)]


def decoy(path: Path, at: int, data: bytes) -> list[tuple[bool, bytes]]:
    return [(False, path.data(at + i, data[i:i + 1400], ttl=2)) for i in range(0, len(data), 1400)]


# What nginx 1.22 was seen to take before a request.
BEFORE = {
    "blank_lines": b"\r\n" * 100_000,
    "chunk_extension": CHUNKED + b"1;" + b"a" * 200_000 + b"\r\nx\r\n0\r\n\r\n",
    "leading_zeros": CHUNKED + b"0" * 9000 + b"1\r\nx\r\n0\r\n\r\n",
    "trailer": CHUNKED + b"1\r\nx\r\n0\r\n" + b"A: b\r\n" * 33_000 + b"\r\n",
    "uploads": upload(200_000) * 2,
}
for name, before in BEFORE.items():
    ATTACKS[name] = lambda path, data, before=before: real(path, 0, before + data)


@attack
def a_forgotten_decoy(path, data):
    yield from decoy(path, 0, upload(120_000))
    yield from real(path, 0, data, 2)


@attack
def a_forgotten_decoy_behind_a_request(path, data):
    first = s.request(b"first.example")
    yield from real(path, 0, first)
    yield from decoy(path, len(first), upload(120_000))
    yield from real(path, len(first), data[:2])
    yield from real(path, len(first) + 2, data[2:])


@attack
def a_decoy_passed_over_for_two_gigabytes(path, data):
    head = b"POST / HTTP/1.1\r\nHost: first.example\r\nContent-Length: 5000000000\r\n\r\n"
    yield from decoy(path, 0, head)
    for megabyte in range(2300):
        yield False, path.data(len(head) + megabyte * 1_000_000, b"x", ttl=2)
    yield from real(path, 0, data, 20)


@attack
def another_syn_before_an_upload(path, data):
    yield False, path.syn(isn=path.isn - 40, ttl=2)
    yield from real(path, 0, upload(200_000) + data)


@attack
def an_urgent_byte_before_an_upload(path, data):
    yield False, path.data(20, b"x", s.ACK | s.URG, urgent=1, ttl=2)
    yield from real(path, 0, upload(200_000) + data)


@attack
def another_copy_in_an_upload(path, data):
    body = upload(200_000)
    yield from real(path, 0, body[:100_000])
    yield from decoy(path, 100_000, bytes(1400))
    yield from real(path, 100_000, body[100_000:] + data)


@attack
def decoys_ahead_fill_the_window(path, data):
    yield from decoy(path, 2000, NOISE * 50)
    yield from real(path, 0, data, 7)


@pytest.mark.parametrize("how", ATTACKS)
def test_no_bound_hides_a_listed_name(how):
    path = Path(dport=80)
    packets = [(True, path.syn()), *ATTACKS[how](path, s.request(LISTED))]
    played = play(engine("blocked.example.com"), [packet for _, packet in packets])
    arrived = [decision.accept for (real, _), decision in zip(packets, played.decisions, strict=True) if real]
    assert played.blocked and not all(arrived)
    assert played.verdict.list, "the name blocked it, not a policy"


@pytest.mark.parametrize("how", ATTACKS)
def test_no_bound_stops_another_name(how):
    path = Path(dport=80)
    packets = [packet for _, packet in [(True, path.syn()), *ATTACKS[how](path, s.request(OTHER))]]
    played = play(engine("blocked.example.com"), packets)
    assert played.accepted == packets
    assert played.counters["table_bytes"] < 200 * 1024


@pytest.mark.parametrize("listed", [b"", s.request(LISTED)], ids=["noise", "a listed request in the body"])
def test_an_upload_that_loses_segments_passes(listed):
    # Sent again late, in another cut, and now and then with a segment that begins like a listed request.
    rng = random.Random(3)
    path = Path(dport=80)
    body = bytearray(upload(400_000))
    for at in range(21_000, 400_000, 28_000):
        body[at:at + len(listed)] = listed
    packets = [path.syn()]
    for at in range(0, len(body), 1400):
        packets.append(path.data(at, bytes(body[at:at + 1400])))
        if rng.random() < 0.3:
            back = at - 1400 * rng.randrange(1, 20)
            if back >= 0:
                packets.append(path.data(back, bytes(body[back:back + rng.choice((700, 1400, 1448))])))
    played = play(engine("blocked.example.com"), packets)
    assert played.accepted == packets
    assert played.hosts == ["first.example"]
    assert play(engine("blocked.example.com"), [*packets, path.data(len(body), s.request(LISTED))]).blocked


# ---- floods: what many clients can do together, small and untimed; benchmarks/floods.py has the large ones


def half(path: Path, name: bytes) -> tuple[bytes, bytes]:
    data = s.hello(name)
    cut = data.index(name) + 5
    return path.data(0, data[:cut]), path.data(cut, data[cut:])


def from_address(path: Path, number: int) -> Path:
    path.settings |= {"source": f"10.1.{number // 256}.{number % 256}"}
    return path


@pytest.mark.parametrize("sent", [b"\x16", s.hello(OTHER)[:90], s.request(OTHER)[:30]], ids=["byte", "hello", "head"])
def test_a_flood_of_beginnings_stays_within_memory_and_beside_it_judgements_are_right(sent):
    # The oldest go first, so that a client who is not slower than the flood takes to go round is read.
    judge = engine("blocked.example.com", flows=300, memory=400 * 1024)
    for number in range(3000):
        path = from_address(Path(), number)
        assert all(judge.judge(packet, number / 1000).accept for packet in (path.syn(), path.data(0, sent)))
        counters = judge.counters()
        assert counters["table_flows"] <= 300 and counters["table_bytes"] <= 400 * 1024
        if number % 50 == 0:
            listed, other = (Path(), LISTED), (Path(), OTHER)
            for place, (beside, name) in enumerate((listed, other)):
                beside.settings["source"] = f"10.9.{number // 256}.{number % 256}"
                beside.settings["sport"] = 1000 + place
                first, second = half(beside, name)
                assert judge.judge(beside.syn(), number / 1000).accept
                assert judge.judge(first, number / 1000).accept
                assert judge.judge(second, number / 1000).accept == (name == OTHER)
    assert counters["evicted_undecided"] + counters["evicted_kept"] > 2000


def test_those_go_first_that_are_read_to_their_end_then_the_oldest():
    judge = engine(flows=30)
    settled, undecided = [], []
    for number in range(30):
        path = from_address(Path(), number)
        whole = number % 3 == 0
        (settled if whole else undecided).append(path)
        play(judge, [path.syn(), path.data(0, s.hello(OTHER) if whole else s.hello(OTHER)[:60])], number)
    for number in range(1, 21):
        path = from_address(Path(), 100 + number)
        play(judge, [path.syn(), path.data(0, s.hello(OTHER)[:60])], 50)
        counters = judge.counters()
        assert counters["evicted_settled"] == min(number, len(settled))
        assert counters["evicted_undecided"] == max(0, number - len(settled))
    # Of the undecided the last ones are still there, and read on.
    rest = [path.data(60, s.hello(OTHER)[60:]) for path in reversed(undecided)]
    assert [bool(judge.judge(packet, 51).names) for packet in rest] == [True] * 10 + [False] * 10


def test_a_blocked_flow_outlives_a_flood():
    judge = engine("blocked.example.com", flows=50)
    path = Path()
    assert play(judge, [path.syn(), path.data(0, s.hello(LISTED))]).blocked
    for number in range(2000):
        other = from_address(Path(), number)
        play(judge, [other.syn(), other.data(0, b"\x16")], 1)
    assert not judge.judge(path.data(0, s.hello(LISTED)), 2).accept


def contradictions(path: Path, name: bytes, copies: int) -> list[bytes]:
    """A hello whose session id is sent over and over, each time with other bytes."""
    data = s.hello(name)
    packets = [path.syn(), path.data(0, data[:-1])]
    packets += [path.data(44, bytes([number]) * 30) for number in range(copies)]
    return [*packets, path.data(len(data) - 1, data[-1:])]


def test_contradictions_of_many_flows_have_a_budget_together():
    judge = engine("blocked.example.com", worker_rereading=65_536)
    dropped = 0
    for number in range(60):
        played = play(judge, contradictions(from_address(Path(), number), OTHER, 20), step=0)
        dropped += played.blocked
        plain = from_address(Path(), 1000 + number)
        assert play(judge, [plain.syn(), *half(plain, OTHER)], step=0).counters["blocked_policy"] == dropped
        plain = from_address(Path(), 2000 + number)
        assert play(judge, [plain.syn(), *half(plain, LISTED)], step=0).blocked
    counters = judge.counters()
    assert 0 < counters["rereading_refused"] == dropped < 60
    # A second later there is time again, and one flow alone is far from the bound.
    assert not play(judge, contradictions(from_address(Path(), 99), OTHER, 20), start=1.5, step=0).blocked


def test_contradictions_beyond_the_budget_pass_where_the_policy_says_so():
    judge = engine("blocked.example.com", worker_rereading=65_536, conflict="pass")
    for number in range(60):
        packets = contradictions(from_address(Path(), number), OTHER, 20)
        assert play(judge, packets, step=0).accepted == packets
    assert judge.counters()["rereading_refused"] > 0


@pytest.mark.parametrize("size, swapped", [(1448, 1), (1448, 90), (1448, 700), (60_000, 1), (60_000, 15)])
def test_an_upload_whose_bytes_come_late_is_not_dropped(size, swapped):
    # Bytes of a body that come late, or once more, filled the window; then nobody read on, and the flow was dropped.
    path = Path(dport=80)
    count = 2 * swapped + 100
    head = b"POST / HTTP/1.1\r\nHost: open.example\r\nContent-Length: %d\r\n\r\n" % (size * count)
    order = [*range(50), *range(50 + swapped, 50 + 2 * swapped), *range(50, 50 + swapped), *range(30, 50),
             *range(50 + 2 * swapped, count)]
    text = (b"GET / HTTP/1.1\nHost: listed.example\n\n" * size)[:size]
    body = [path.data(len(head) + size * number, text) for number in order]
    last = path.data(len(head) + size * count, b"GET / HTTP/1.1\r\nHost: listed.example\r\n\r\n")
    played = play(engine("listed.example"), [*path.opening(), path.data(0, head), *body, last])
    assert [decision.accept for decision in played.decisions] == [True] * (len(body) + 3) + [False]


def test_requests_that_never_end_do_not_have_other_flows_forgotten():
    judging = engine("listed.example", flow_bytes=16_384, memory=1 << 20)
    hello, number = s.hello(b"listed.example"), 0
    for turn in range(40):
        at = s.tcp(1, flags=s.SYN, sport=20_000 + turn), s.tcp(2, hello[:60], sport=20_000 + turn)
        assert all(judging.judge(packet, 1.0).accept for packet in at)
        for _ in range(10):
            number += 1
            head = b"GET / HTTP/1.1\r\nHost: open.example\r\nX: " + b"y" * 8000
            judging.judge(s.tcp(1, flags=s.SYN, sport=number, dport=80), 1.0)
            judging.judge(s.tcp(2, head, sport=number, dport=80), 1.0)
        assert not judging.judge(s.tcp(62, hello[60:], sport=20_000 + turn), 1.0).accept


# ---- cost: every reader, fed streams of its smallest units, in order and not


def shuffled(packets: list[bytes]) -> list[bytes]:
    return random.Random(11).sample(packets, len(packets))


def of_bytes(data: bytes, size: int) -> list[tuple[int, bytes]]:
    return [(at, data[at:at + size]) for at in range(0, len(data), size)]


def stream(data: bytes, size: int = 1400, order: Callable = list) -> list[bytes]:
    path = Path(dport=80)
    return [path.syn(), *order([path.data(at, piece) for at, piece in of_bytes(data, size)])]


def initials(data: bytes, size: int, order: Callable = list) -> list[bytes]:
    """A ClientHello's CRYPTO bytes in frames of `size`, a datagram of some hundred frames each."""
    frames = order([quic.crypto(at, piece) for at, piece in of_bytes(data, size)])
    return [udp(quic.initial(b"".join(frames[at:at + 200]), number=number, size=1200))
            for number, at in enumerate(range(0, len(frames), 200))]


# One row a stream: packets of about so many bytes. Those of each reader stand in its row.
UNITS: dict[str, Callable[[int], list[bytes]]] = {
    f"{name}: {units}": lambda n, row=row, units=units: stream(row.before + row.units[units](n))
    for name, row in READERS.items() if row.before is not None for units in row.units}
UNITS |= {
    "fields without a line end, in large packets":
        lambda n: stream(b"GET / HTTP/1.1\r\n" + b"a:\r" * (n // 6), 60_000),
    "bytes of a hello": lambda n: stream(s.record(message(n // 41)), 1),
    "bytes of a hello, backwards": lambda n: stream(s.record(message(n // 41)), 1, lambda p: p[::-1]),
    "bytes of a hello, shuffled": lambda n: stream(s.record(message(n // 41)), 1, shuffled),
    "bytes of a head, shuffled": lambda n: stream(s.request(OTHER, b"/" + b"x" * (n // 41)), 1, shuffled),
    "blanks behind a method, byte by byte": lambda n: stream(b"GET" + b" " * (n // 41), 1),
    "CRYPTO bytes": lambda n: initials(message(n // 8), 1),
    "CRYPTO bytes, shuffled": lambda n: initials(message(n // 8), 1, shuffled),
}
SIZE = 30_000
PER_BYTE = 150e-9              # seconds of processor time, packets of one byte aside: ten times what was measured


def cost(packets: list[bytes]) -> tuple[float, int]:
    """Processor time and the engine's own count of work, the least of five times."""
    least = float("inf")
    for _ in range(5):
        judge = engine("blocked.example.com", report=False, quic_derivations=1000)
        begin = time.process_time()
        for packet in packets:
            judge.judge_all([packet], 1.0, TRUST)
        least = min(least, time.process_time() - begin)
    return least, judge.counters()["work"]


# Besides its share a packet buys what is read before it is counted: a reading for each way, a value of 16 kB.
PACKET_SHARE, FORK_SHARE, OVER = 120 * 1024, 16 * 1024, 112 * 1024      # core/window.pxd, core/follow.pxd


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("size", [1400, 60_000])
def test_no_packet_costs_more_than_its_share(units, size):
    packets = UNITS[units](2 * SIZE)
    if packets[1][9] == 6 and len(packets[1]) > 1000:
        packets = stream(b"".join(packet[40:] for packet in packets[1:]), size)
    judge, before = engine("blocked.example.com", report=False), 0
    for packet in packets:
        judge.judge_all([packet], 1.0, TRUST)
        work = judge.counters()["work"]
        assert work - before <= PACKET_SHARE + OVER
        before = work


# Of each a name, six bytes of which have two copies, so that there are 64 readings; and bytes that are passed over.
CONFLICTING = {name: (row.before + made[0], *made[1:]) for name, row in READERS.items()
               if row.doubtful for made in [row.doubtful(OTHER)]}
CONFLICTING["a target"] = (CONFLICTING["http"][0], b"xxxxxx", b"y" * 9)


@pytest.mark.parametrize("units", CONFLICTING)
def test_many_readings_cost_no_packet_more_than_its_share(units):
    data, name, passed_over = CONFLICTING[units]
    path, at, behind = Path(dport=80), data.index(name), data.index(passed_over)
    packets = [path.syn(), path.data(1, data[1:-9]), *(path.data(at + i, b"z") for i in range(6))]
    packets += [path.data(behind + i // 2, bytes([0x61 + i % 2])) for i in range(110)]
    judge = engine("blocked.example.com", report=False)
    for packet in packets:
        judge.judge_all([packet], 1.0, TRUST)
    before = judge.counters()["work"]
    judge.judge_all([path.data(0, data[:1])], 1.0, TRUST)
    assert PACKET_SHARE // 3 < judge.counters()["work"] - before <= PACKET_SHARE + FORK_SHARE + 2048


@pytest.mark.parametrize("before, size, copies", [(20_000, 40_000, 3), (30_000, 60_000, 2), (60_000, 50_000, 1),
                                                  (50_000, 30_000, 3)])
def test_a_long_piece_with_other_copies_waits_for_the_next_packet(before, size, copies):
    # What stands before it has taken some of the packet's share, and what is left is not enough for each copy.
    for host in (OTHER, LISTED):
        data = s.request(host)[:-2] + b"X: " + b"y" * before + b"\r\nY: " + b"z" * (size + 100) + b"\r\n\r\n"
        path, at = Path(dport=80), data.index(b"zzz") + 10
        packets = [path.syn(), *(path.data(1 + i, piece) for i, piece in of_bytes(data[1:], 30_000))]
        packets += [path.data(at, bytes([number]) * size) for number in b"abc"[:copies]]
        judge = engine("blocked.example.com", flow_bytes=1 << 20)
        assert play(judge, packets).accepted == packets
        worked, first = judge.counters()["work"], path.data(0, data[:1])
        made = judge.judge(first, 1.0)
        assert not made.accept and made.mark != "blocked"
        assert judge.counters()["work"] - worked <= PACKET_SHARE + FORK_SHARE + size
        again = play(judge, [first] * 4, start=1.0)
        assert again.blocked == (host == LISTED) and again.hosts == [host.decode()]
        assert again.decisions[-1].accept == (host == OTHER)


# Targets that servers read in many ways, or that take long to decode, each of nearly 8 kB.
ODD = {name: (head + unit * 8000)[:8000] for name, head, unit in (
    ("escapes", b"/", b"%61"), ("dots", b"/", b"a/%2e%2e/"), ("backslashes", b"/", b"\\a\\..\\b"),
    ("empty", b"/../", b"//a%2f"), ("every way", b"/a%2f../b\\..//..;", b"a/"),
    ("parameters", b"/../", b"/aaaaaaa;b%2f"), ("bytes", b"/", b"\xe9/"))}


@pytest.mark.parametrize("how", ODD)
@pytest.mark.parametrize("listed", [False, True])
def test_odd_targets_of_a_host_with_listed_urls_wait_for_the_next_packet(how, listed):
    path, host = Path(dport=80), "www.innocent.example"
    judge = engine(f"{host}/listed/page", *(f"{host}/{'d/' * depth}*" for depth in range(1, 30)))
    targets = [ODD[how] + b"%d" % turn for turn in range(4)] + ([b"/a/../listed/page"] if listed else [])
    packet = path.data(0, b"".join(s.request(host.encode(), target) for target in targets))
    assert judge.judge(path.syn(), 0.0).accept
    accepted, before = [], judge.counters()["work"]
    for turn in range(6):
        made = judge.judge(packet, 1.0 + turn)
        accepted.append(made.accept)
        assert judge.counters()["work"] - before <= PACKET_SHARE + FORK_SHARE
        before = judge.counters()["work"]
        if made.accept or made.mark == "blocked":
            break
    counters = judge.counters()
    assert accepted[-1] == (not listed) and len(accepted) <= 5 and counters["overflows"] == 0
    assert counters["blocked_policy"] == 0


@pytest.mark.parametrize("frames", [
    b"".join(quic.crypto(at, b"x") for at in range(11_000)), b"\1" * 60_000, b"\2\0\0\0\0" * 12_000],
    ids=["crypto", "ping", "ack"])
def test_of_a_huge_datagram_no_more_frames_are_read_than_a_network_carries(frames):
    judge = engine("blocked.example.com")
    made = judge.judge(udp(quic.initial(frames)), 1.0, TRUST)
    assert not made.accept and judge.counters()["blocked_policy"] == 1


def test_of_a_huge_datagram_no_more_connections_are_tried_than_its_share():
    judge = engine("blocked.example.com")
    datagram = b"".join(quic.initial(b"\1" * 4, dcid=index.to_bytes(8)) for index in range(900))
    made = judge.judge(udp(datagram), 1.0, TRUST)
    counters = judge.counters()
    assert not made.accept and counters["quic_refused_flow"] < 9 and counters["quic_derivations"] <= 16


@pytest.mark.parametrize("units", UNITS)
def test_cost_is_linear(units):
    few, many = UNITS[units](SIZE), UNITS[units](4 * SIZE)
    (time_few, work_few), (time_many, work_many) = cost(few), cost(many)
    sizes = sum(map(len, few)), sum(map(len, many))
    growth = sizes[1] / sizes[0]
    assert work_many <= 1.5 * growth * work_few + 1000
    assert time_many <= 2 * growth * time_few + 100e-6
    assert time_many <= PER_BYTE * sizes[1]
