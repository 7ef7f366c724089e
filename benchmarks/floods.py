"""What somebody can cost a worker who sends the worst he can: memory, time of a packet, and the flows beside him.

    .venv/bin/python benchmarks/floods.py [--quick] [--floods NAME,...] [--rounds N] [--output DIR]

Every flood runs in a process of its own, against an engine with the daemon's limits. Beside it, all the time, clients
open connections whose hello comes in two segments with flood between them: half of them for a listed name, half for
another. For each flood: processor time of a packet in microseconds (median, 99.9th percentile, worst, mean; "always"
is the worst of a short flood that is sent four times, each packet by its fastest time, so that it is the packet's and
not the machine's), the most that the flow table held of its bound and by how much the process grew, in MiB, and how
many neighbours were judged: listed ones that were let through, and others that were harmed. A million flows a flood;
with --quick twenty thousand.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import harness
from quic import first_initial
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw
from traffic import CHECKSUM_TRUST, client_hello, request

from edgeblock.blocklist.load import load
from edgeblock.core.engine import Engine

LISTED, OTHER = "blocked.example.com", "www.example.net"
PAGES = "pages.example.net"     # of which only these are listed
URLS = f"{PAGES}/a/b\n{PAGES}/{'x' * 3000}\n" + "".join(f"{PAGES}/{'d/' * depth}*\n" for depth in range(1, 30))
MEMORY = 256 * 1024 * 1024      # config.Limits.memory
EVERY = 1000                    # packets of the flood between two neighbours
SHORT = 20_000                  # flows of a flood that is sent four times
RATE = 100_000                  # packets a second by the engine's clock
SOURCE = 12                     # where an IPv4 packet has its source address
FLOODS: dict[str, Callable[[int], Iterator[bytes]]] = {}


def flood(function: Callable[[int], Iterator[bytes]]) -> Callable[[int], Iterator[bytes]]:
    FLOODS[function.__name__] = function
    return function


def segment(flags: str, seq: int, payload: bytes = b"", *, host: int = 0, sport: int = 40_000, port: int = 443,
            urgent: int = 0) -> bytes:
    address = ".".join(str(byte) for byte in (10, *host.to_bytes(3, "big")))
    return bytes(IP(src=address, dst="192.0.2.1") / TCP(sport=sport, dport=port, flags=flags, seq=seq, ack=1,
                                                        urgptr=urgent) / Raw(payload))


def datagram_packet(datagram: bytes) -> bytes:
    return bytes(IP(src="10.0.0.1", dst="192.0.2.1") / UDP(sport=50_000, dport=443) / Raw(datagram))


def from_each(packets: list[bytes], count: int, first: int = 0) -> Iterator[bytes]:
    """The packets, one after the other, from so many addresses."""
    for index in range(first, first + count):
        source = (0x0B000000 + index).to_bytes(4, "big")
        for packet in packets:
            yield packet[:SOURCE] + source + packet[SOURCE + 4:]


@flood
def half_hellos(scale: int) -> Iterator[bytes]:
    hello = client_hello(OTHER)
    yield from from_each([segment("S", 0), segment("PA", 1, hello[:len(hello) // 2])], scale)


@flood
def one_byte_each(scale: int) -> Iterator[bytes]:
    yield from from_each([segment("S", 0), segment("PA", 1, b"\x16")], scale)


@flood
def half_requests_of_8_kB(scale: int) -> Iterator[bytes]:
    head = request(OTHER, "/")[:-2] + b"X: " + b"y" * 1200
    packets = [segment("S", 0, port=80), *(segment("PA", 1 + i * len(head), head, port=80) for i in range(6))]
    yield from from_each(packets, scale // 10)


def copied(data: bytes, step: int, copies: int) -> list[bytes]:
    """A stream in pieces of `step`, each sent first with other bytes, so many times."""
    rng = random.Random(5)
    packets = [segment("S", 0)]
    for at in range(0, len(data), step):
        piece = data[at:at + step]
        packets += [segment("PA", 1 + at, rng.randbytes(len(piece))) for _ in range(copies)]
        packets.append(segment("PA", 1 + at, piece))
    return packets


@flood
def overlaps_of_the_name(scale: int) -> Iterator[bytes]:
    hello = client_hello(OTHER)
    at = hello.index(OTHER.encode())
    packets = [segment("S", 0), segment("PA", 1, hello[:at])]
    for i in range(at, at + len(OTHER)):
        packets += [segment("PA", 1 + i, b"x"), segment("PA", 1 + i, hello[i:i + 1])]
    packets.append(segment("PA", 1 + at + len(OTHER), hello[at + len(OTHER):]))
    yield from from_each(packets, scale // 500)


@flood
def overlaps_of_single_bytes(scale: int) -> Iterator[bytes]:
    # In the session id, which is passed over: the readings stay one, so that every copy takes them back.
    hello = client_hello(OTHER)
    packets = [segment("S", 0), *(segment("PA", 1 + i, hello[i:i + 1]) for i in range(len(hello) - 1))]
    packets += [segment("PA", 1 + 44 + i % 30, bytes([i])) for i in range(120)]
    yield from from_each(packets, scale // 5000)


@flood
def overlaps_of_a_long_hello(scale: int) -> Iterator[bytes]:
    hello = client_hello(OTHER, 40_000)
    packets = [segment("S", 0), *(segment("PA", 1 + i, hello[i:i + 1400]) for i in range(0, len(hello), 1400))]
    packets = packets[:-1] + [segment("PA", 1 + 50 + i, bytes(20 + i)) for i in range(120)]
    yield from from_each(packets, scale // 5000)


@flood
def overlaps_between_edges(scale: int) -> Iterator[bytes]:
    # Single bytes cut the stream everywhere, and a hundred whole copies differ in each of them.
    rng = random.Random(6)
    hello = client_hello(OTHER)
    packets = [segment("S", 0), *(segment("PA", 1 + i, hello[i:i + 1]) for i in range(len(hello) - 1))]
    packets += [segment("PA", 1 + 11, rng.randbytes(64)) for _ in range(100)]
    yield from from_each(packets, scale // 5000)


@flood
def overlaps_in_a_head(scale: int) -> Iterator[bytes]:
    # Every byte of a field before Host has two copies, one of them a colon, a line end or a blank.
    head = b"GET / HTTP/1.1\r\n" + b"".join(b"Host: a%d.example\r\n" % i for i in range(9)) + b"\r\n"
    packets = [segment("S", 0, port=80), segment("PA", 1, head[:16], port=80)]
    for i in range(16, len(head)):
        packets += [segment("PA", 1 + i, bytes([b"\r\n: "[i % 4]]), port=80),
                    segment("PA", 1 + i, head[i:i + 1], port=80)]
    yield from from_each(packets, scale // 1000)


def forked(data: bytes, name: bytes, passed_over: int, port: int = 443) -> list[bytes]:
    """Six bytes of a name have two copies each, which makes 64 readings; bytes from `passed_over` on have some, too.

    The first byte comes last, so that all is read at once; then the rest, for what one packet may cost is bounded.
    """
    at = data.index(name)
    packets = [segment("S", 0, port=port), segment("PA", 2, data[1:-40], port=port)]
    packets += [segment("PA", 1 + at + i, b"z", port=port) for i in range(6)]
    packets += [segment("PA", 1 + passed_over + i // 2, bytes([0x61 + i % 2]), port=port) for i in range(110)]
    packets.append(segment("PA", 1, data[:1], port=port))
    return [*packets, *(segment("PA", 1 + i, data[i:i + 1], port=port) for i in range(len(data) - 40, len(data)))]


@flood
def overlaps_of_64_readings(scale: int) -> Iterator[bytes]:
    hello = client_hello(OTHER, 1200)
    fields = b"".join(b"X-%d: " % i + b"y" * 40 + b"\r\n" for i in range(16)) + b"\r\n"
    head = b"GET /%s HTTP/1.1\r\nHost: %s\r\n" % (b"x" * 300, OTHER.encode()) + fields
    blocks = http2(frame(1, 5, b"\x82\x84\x41\x0f" + OTHER.encode()), *[frame(1, 5, b"\x82\x84\x40\2ab\2cd")] * 12,
                   frame(0, 0, bytes(200)), *[frame(1, 5, b"\x82\x84\x41\1a")] * 8)
    tunnel = b"\5\1\0\5\1\0\3\x0f" + OTHER.encode() + b"\0\x50" + head
    streams = [forked(hello, OTHER.encode(), hello.index(OTHER.encode()) + 40),
               forked(head, b"xxxxxx", head.index(b"y" * 9), 80),
               forked(head, OTHER.encode(), head.index(b"y" * 9), 80),
               forked(blocks, OTHER.encode(), blocks.index(bytes(99)), 80),
               forked(tunnel, OTHER.encode(), tunnel.index(b"y" * 9), 80)]
    yield from sent_in(streams, scale)


@flood
def urgent_bytes(scale: int) -> Iterator[bytes]:
    hello = client_hello(OTHER)
    packets = [segment("S", 0)]
    packets += [segment("PA", 1 + i, hello[i:i + 1]) for i in range(len(hello) - 1)]
    packets += [segment("AU", 1, urgent=10 + 9 * i) for i in range(8)] * 2
    yield from from_each(packets, scale // 2000)


@flood
def random_overlaps(scale: int) -> Iterator[bytes]:
    rng = random.Random(9)
    hello = client_hello(OTHER)
    for index in range(scale // 2000):
        packets = [segment("S", 0)]
        for _ in range(200):
            at = rng.randrange(len(hello))
            size = rng.choice((1, 2, 8, 100, 500))
            piece = bytearray(hello[at:at + size])
            if rng.random() < 0.5:
                piece[rng.randrange(len(piece))] = rng.randrange(256)
            packets.append(segment("PA", 1 + at, bytes(piece)))
        source = (0x0B000000 + index).to_bytes(4, "big")
        yield from (packet[:SOURCE] + source + packet[SOURCE + 4:] for packet in packets)


def of_pieces(data: bytes, size: int, port: int = 80) -> list[bytes]:
    return [segment("S", 0, port=port), *(segment("PA", 1 + at, data[at:at + size], port=port)
                                          for at in range(0, len(data), size))]


def shuffled(packets: list[bytes]) -> list[bytes]:
    return [packets[0], *random.Random(3).sample(packets[1:], len(packets) - 1)]


def frame(kind: int, flags: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags, 0, 0, 0, 1]) + payload


def http2(*frames: bytes) -> bytes:
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"".join(frames)


def sent_in(streams: list[list[bytes]], scale: int) -> Iterator[bytes]:
    """Each stream as often as `scale` allows, from addresses of its own."""
    first = 0
    for packets in streams:
        count = max(1, scale // len(packets) // len(streams))
        yield from from_each(packets, count, first)
        first += count


@flood
def smallest_units_of_tls(scale: int) -> Iterator[bytes]:
    hello = client_hello(OTHER, 8000)[5:]
    data = b"".join(b"\x16\x03\x01\0\1" + hello[at:at + 1] for at in range(len(hello)))
    names = b"\0\0\x64" + b"a." * 49 + b"aa"
    server_names = len(names * 300).to_bytes(2, "big") + names * 300
    body = b"\3\3" + bytes(32) + b"\0\0\2\x13\1\1\0"
    extension = b"\0\0" + len(server_names).to_bytes(2, "big") + server_names
    body += len(extension).to_bytes(2, "big") + extension
    message = b"\1" + len(body).to_bytes(3, "big") + body
    record = b"".join(b"\x16\x03\1" + len(message[at:at + 16_384]).to_bytes(2, "big") + message[at:at + 16_384]
                      for at in range(0, len(message), 16_384))
    yield from sent_in([of_pieces(sent, size) for sent in (data, record) for size in (1400, 40_000)], scale)


@flood
def smallest_units_of_http(scale: int) -> Iterator[bytes]:
    chunked = b"POST / HTTP/1.1\r\nHost: www.example.net\r\nTransfer-Encoding: chunked\r\n\r\n"
    streams = (b"GET / HTTP/1.1\r\n" + b"a:\n" * 30_000, chunked + b"1\nx\n" * 25_000, b"\r\n" * 50_000,
               b"GET / HTTP/1.1\nHost:a\n\n" * 4000, b"GET / HTTP/1.1\nHost:a\n" + b" Host:b\n" * 11_000,
               b"\x16\3\1\2\0\1" * 15_000, b"PROXY \n" * 13_000, b"GET" + b" " * 90_000)
    yield from sent_in([of_pieces(data, size) for data in streams for size in (1400, 40_000)], scale)


@flood
def bodies_that_can_be_read_in_several_ways(scale: int) -> Iterator[bytes]:
    streams = (b"GET / HTTP/1.1\nContent-Length:+1 2 3,0x5,7,8\n\nGET" * 2000,
               b"CONNECT a:1 HTTP/1.1\nContent-Length:1\n\n" * 2400,
               b"POST / HTTP/1.1\nTransfer-Encoding:chunked\n\n" + b"0x1\nx\n" * 15_000)
    yield from sent_in([of_pieces(data, size) for data in streams for size in (1400, 40_000)], scale)


@flood
def long_odd_targets(scale: int) -> Iterator[bytes]:
    # Of a host with listed URLs: each target is looked up in all the ways in which servers read it.
    heads = ((b"/", b"%61"), (b"/", b"/a/%2e%2e"), (b"/", b"\\a\\..\\b"), (b"/", b"/aaaaaaa;b%2f.."),
             (b"/../", b"//\xe9"), (b"/a%2f../b\\..//..;", b"a/"), (b"/a%2f../b\\..//..;", b"//\xe9"))
    streams = [b"".join(b"GET %s%d HTTP/1.1\nHost:%s\n\n" % ((head + unit * 8000)[:8000], turn, PAGES.encode())
                        for turn in range(4)) for head, unit in heads]
    streams += [b"GET /%s HTTP/1.1\nHost:%s\n\n" % (unit * (39_000 // len(unit)), PAGES.encode())
                for unit in (b"%61", b"/aaa%61", b"/a/%2e%2e")]
    yield from sent_in([of_pieces(data, size) for data in streams for size in (1400, 40_000)], scale)


@flood
def names_that_are_no_letters(scale: int) -> Iterator[bytes]:
    hosts = (b"\xc3\xbc" * 30 + b".\xc3\xb6%d.test", b"\xe9\xe8" * 100 + b"%d.test", b"%%61" * 60 + b"%d.test",
             b"a@b@%d.test:1", b"%d." + b"a." * 120 + b"test")
    streams = [b"".join(b"GET / HTTP/1.1\nHost:" + host % turn + b"\n\n" for turn in range(300)) for host in hosts]
    yield from sent_in([of_pieces(data, size) for data in streams for size in (1400, 40_000)], scale)


@flood
def smallest_units_of_http2(scale: int) -> Iterator[bytes]:
    path = b"\x44\x7f\x81\x1e" + b"/" * 3968             # fills the table, and is named with one byte from then on
    streams = (http2(frame(1, 0, b""), frame(9, 0, b"") * 10_000), http2(frame(1, 5, b"\x82\x84\x41\1a") * 7000),
               http2(frame(1, 5, b"\x40\1a\1b" * 4000) * 6), http2(frame(1, 5, b"\x20\x3f\xe1\x1f" * 4000) * 6),
               http2(frame(1, 5, (b"\x40\1a\xf8" + b"\xff\xff\xff\xf0" * 30) * 130) * 6),
               http2(frame(1, 5, b"\x82" + path), frame(1, 5, b"\x82\xbe") * 9000),
               http2(*(frame(1, 5, b"\x40\3a%02d\x7f\x99\x74" % turn + b"b" * 15_000) for turn in range(6))))
    yield from sent_in([of_pieces(data, size) for data in streams for size in (1400, 16_384, 40_000)], scale)


@flood
def bytes_of_a_hello_shuffled(scale: int) -> Iterator[bytes]:
    yield from sent_in([shuffled(of_pieces(client_hello(OTHER, 3000), 1, 443))], scale)


@flood
def bytes_of_a_head_shuffled(scale: int) -> Iterator[bytes]:
    head = b"GET /" + b"x" * 3000 + b" HTTP/1.1\r\nHost: www.example.net\r\n\r\n"
    yield from sent_in([shuffled(of_pieces(head, 1)), [*of_pieces(head, 1)[:1], *of_pieces(head, 1)[:0:-1]]], scale)


@flood
def spoofed_initials(scale: int) -> Iterator[bytes]:
    noise = random.Random(1).randbytes(1 << 16)
    whole = datagram_packet(first_initial())
    for index in range(scale):
        at = index * 1201 % ((1 << 16) - len(whole))
        source = (0x0B000000 + index).to_bytes(4, "big")
        body = whole[42:60] + noise[at:at + len(whole) - 60]
        yield whole[:SOURCE] + source + whole[16:34] + noise[at:at + 8] + body


@flood
def connection_ids_on_one_address(scale: int) -> Iterator[bytes]:
    whole = datagram_packet(first_initial())
    for index in range(scale // 10):
        yield whole[:34] + index.to_bytes(8, "big") + whole[42:]


def neighbours(step: int) -> Iterator[tuple[bytes, bytes, bytes, bool]]:
    """Connections beside the flood: SYN, the two halves of a hello, whether it is listed."""
    hellos = [(client_hello(name), name == LISTED) for name in (OTHER, LISTED)]
    for index in range(1 << 24):
        hello, listed = hellos[index % 2]
        place = {"host": index, "sport": 1024 + index % 60_000}
        cut = hello.index(b"example") + 3
        yield segment("S", 0, **place), segment("PA", 1, hello[:cut], **place), segment(
            "PA", 1 + cut, hello[cut:], **place), listed


def grown() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run(name: str, scale: int) -> dict:
    engine = empty_engine()
    beside, waiting = neighbours(EVERY), None
    costs, through, harmed, judged, most, now = array("q"), 0, 0, 0, 0, 0.0
    before = grown()
    clock = time.thread_time_ns
    nothing = statistics.median(-(clock() - clock()) for _ in range(1000))
    for number, packet in enumerate(FLOODS[name](scale)):
        now += 1 / RATE
        single = [packet]
        begin = clock()
        engine.judge_all(single, now, CHECKSUM_TRUST)
        costs.append(int(clock() - begin - nothing))
        if number % EVERY == 0:
            most = max(most, engine.counters()["table_bytes"])
            if waiting:
                judged += 1
                passed = engine.judge_all([waiting[0]], now, CHECKSUM_TRUST) == 1
                through += passed and waiting[1]
                harmed += not passed and not waiting[1]
            syn, first, second, listed = next(beside)
            harmed += engine.judge_all([syn, first], now, CHECKSUM_TRUST) != 2
            waiting = (second, listed)
    held = grown() - before - len(costs) * costs.itemsize
    costs = sorted(costs)
    counted = engine.counters()
    return {"median us": costs[len(costs) // 2] / 1000, "99.9 % us": costs[len(costs) * 999 // 1000] / 1000,
            "worst us": costs[-1] / 1000, "always us": always(name), "mean us": statistics.fmean(costs) / 1000,
            "table MiB": most / 2**20, "grown MiB": held / 2**20,
            "neighbours": judged, "let through": through, "harmed": harmed, "packets": len(costs),
            "dropped by policy": counted["blocked_policy"], "rereading refused": counted["rereading_refused"],
            "overworked": counted["overworked"]}


def always(name: str) -> float:
    """The worst packet of a short flood, each taken by the fastest of its four times, in microseconds."""
    packets = list(FLOODS[name](SHORT))
    fastest = [1 << 62] * len(packets)
    for _ in range(4):
        engine, now = empty_engine(), 0.0
        for place, packet in enumerate(packets):
            now += 1 / RATE
            single = [packet]
            begin = time.thread_time_ns()
            engine.judge_all(single, now, CHECKSUM_TRUST)
            fastest[place] = min(fastest[place], time.thread_time_ns() - begin)
    return max(fastest) / 1000


def empty_engine() -> Engine:
    with tempfile.TemporaryDirectory() as lists:
        Path(lists, "one.list").write_text(f"{LISTED}\n{URLS}")
        return Engine(load(lists).matcher, memory=MEMORY)


def apart(name: str, scale: int) -> dict[str, float]:
    """`run` in a process of its own."""
    command = [sys.executable, __file__, "--only", name, "--scale", str(scale)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main() -> None:
    parser = harness.options(__doc__)
    parser.add_argument("--floods", default=",".join(FLOODS), metavar="NAME,...", help="these only")
    parser.add_argument("--scale", type=int, metavar="N", help="flows of a flood (1 000 000; with --quick 20 000)")
    parser.add_argument("--only", help="in this process, the figures as JSON on standard output")
    chosen = parser.parse_args()
    scale = chosen.scale or (20_000 if chosen.quick else 1_000_000)
    names = [chosen.only] if chosen.only else chosen.floods.split(",")
    if unknown := set(names) - set(FLOODS):
        parser.error(f"no such flood: {', '.join(sorted(unknown))}; there are {', '.join(FLOODS)}")
    if chosen.only:
        print(json.dumps(run(chosen.only, scale)))
        return
    kept = harness.Run("floods", chosen, rounds=1, quick_rounds=1, scale=scale, memory=MEMORY)
    kept.in_turn({name: partial(apart, name, scale) for name in names})
    kept.save()


if __name__ == "__main__":
    harness.main(main)
