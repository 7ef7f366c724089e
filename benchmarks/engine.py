"""How fast the engine alone is, on one core: bytes in, verdicts out, no kernel and no file.

    .venv/bin/python benchmarks/engine.py [--quick] [--rounds N] [--capture FILE]... [--output DIR]

Judges packets made up in memory (traffic.py; the make-up is printed) in a compiled loop, with a matcher of 100 000
names none of which is asked for. Every measurement begins with an empty flow table, or with a full one where it says
so; what is timed is processor time.
Then one kind of packet at a time, for the nanoseconds that it costs. --capture judges the packets of a pcap or pcapng
file instead, both directions, over and over for at least half a second a round.
"""

import mmap
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import harness
import traffic
from traffic import ACK, CHECKSUM_TRUST, CHECKSUM_VERIFY, FIN, PUSH, SYN, Flow, client_hello, datagram_packet, request

from edgeblock.blocklist.load import load
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.core.engine import Engine
from edgeblock.core.sketch import Sketches, size_of
from edgeblock.errors import CaptureError
from edgeblock.source.capture import Capture

NAMES = 100_000
FLOWS = 12_000          # of the mix
EACH = 40_000           # packets of a kind
COUNTED = ("ClientHello behind its SYN", "HTTP request on a kept connection", "QUIC Initial")
FULL = "ClientHello, first seen of its flow"
SLOTS = 262_144         # as [impact] destinations


def lists_of(count: int) -> ListMatcher:
    """A matcher of `count` names, none of which the traffic asks for."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "bench.list").write_text(harness.made_up_names(count))
        return load(directory).matcher


def measure(lists: ListMatcher, before: list[bytes], packets: list[bytes], flags: int,
            counted: bool = False, full: bool = False) -> dict[str, float]:
    """What `packets` cost an engine of their own that has seen the packets `before`; `counted`: with sketches;
    `full`: with a flow table that is full of others."""
    engine = Engine(lists)
    if full:
        traffic.fill(engine)
    if counted:
        memory = mmap.mmap(-1, size_of(SLOTS))
        memory.write(bytes(len(memory)))        # a day's memory is there already
        engine.sketches = Sketches(memory, SLOTS, bytes(16))
    now = time.monotonic() if full else 1.0
    engine.judge_all(before, now, flags)
    begin = time.process_time()
    accepted = engine.judge_all(packets, now, flags)
    seconds = time.process_time() - begin
    if accepted != len(packets):
        raise harness.Problem(f"{len(packets) - accepted} packets of an unlisted mix were not accepted")
    return {"packets_per_s": len(packets) / seconds, "ns_per_packet": seconds / len(packets) * 1e9}


def kinds(count: int) -> dict[str, tuple[list[bytes], list[bytes]]]:
    """For each kind of packet: what the engine has seen before, and the packets. One packet is of one flow."""
    def each(payload_of, ipv6: bool = False) -> list[bytes]:
        return [Flow(index, ipv6, 443).tcp(ACK | PUSH, payload_of(index)) for index in range(count)]

    def datagrams(payload: bytes) -> list[bytes]:
        return [datagram_packet(payload, index) for index in range(count)]

    def then(*segments: tuple[int, bytes]) -> tuple[list[bytes], list[bytes]]:
        clients = [Flow(index, False, 443) for index in range(count)]
        sent = [[client.tcp(flags, payload) for client in clients] for flags, payload in segments]
        return [packet for part in sent[:-1] for packet in part], sent[-1]

    hello, long_hello = traffic.hello_named(0), client_hello("www.example.com", 1400)
    initials = traffic.initials(count)
    noise = random.Random(1).randbytes(len(initials[0]) - 28 - 100)
    syn = (SYN, b"")
    return {
        "SYN": then(syn),
        "bare ACK": then(syn, (ACK, b"")),
        "ClientHello behind its SYN": then(syn, (ACK | PUSH, hello)),
        "ClientHello, first seen of its flow": ([], each(traffic.hello_named)),
        "ClientHello, IPv6": ([], each(traffic.hello_named, ipv6=True)),
        "second segment of a long ClientHello": then(syn, (ACK, long_hello[:traffic.MSS]),
                                                     (ACK | PUSH, long_hello[traffic.MSS:])),
        "data behind a ClientHello": then(syn, (ACK | PUSH, hello), (ACK | PUSH, bytes(256))),
        "FIN": then(syn, (ACK | PUSH, hello), (ACK | FIN, b"")),
        "HTTP request, first of its connection": then(syn, (ACK | PUSH, request("www.example.com", "/page?q=1"))),
        "HTTP request on a kept connection": ([], traffic.requests(count // 20, 20)),
        "QUIC Initial": ([], initials),
        "QUIC Initial that does not open": ([], [packet[:28 + 100] + noise for packet in initials]),
        "QUIC short packet": (initials, datagrams(b"\x40" + bytes(60))),
        "other UDP": ([], datagrams(bytes(100))),
    }


def read_capture(path: str) -> list[bytes]:
    try:
        with Capture(path) as capture:
            packets = [record.packet for record in capture if record.packet]
            if capture.trouble:
                print(f"{path}: {capture.trouble}; what came before it is measured", file=sys.stderr)
    except CaptureError as problem:
        raise harness.Problem(str(problem)) from None
    if not packets:
        raise harness.Problem(f"{path} holds no IP packet: nothing to measure")
    return packets


def measure_capture(lists: ListMatcher, packets: list[bytes]) -> dict[str, float]:
    seconds = judged = dropped = 0.0
    while seconds < 0.5:
        engine = Engine(lists)
        begin = time.process_time()
        accepted = engine.judge_all(packets, 1.0, CHECKSUM_TRUST)
        seconds += time.process_time() - begin
        judged += len(packets)
        dropped += len(packets) - accepted
    return {"packets_per_s": judged / seconds, "ns_per_packet": seconds / judged * 1e9,
            "gigabits_per_s": sum(map(len, packets)) / len(packets) * judged * 8e-9 / seconds,
            "dropped_percent": 100 * dropped / judged}


def main() -> None:
    parser = harness.options(__doc__)
    parser.add_argument("--capture", action="append", default=[], metavar="FILE",
                        help="judge this capture instead of made-up traffic; may be given several times")
    chosen = parser.parse_args()
    run = harness.Run("engine-capture" if chosen.capture else "engine", chosen,
                      rounds=7, quick_rounds=3, names=NAMES, traffic=traffic.words())
    lists = lists_of(NAMES)
    if chosen.capture:
        files = {f"capture {path}": read_capture(path) for path in chosen.capture}
        run.settings(traffic="captures", packets={path: len(packets) for path, packets in files.items()})
        run.in_turn({name: partial(measure_capture, lists, packets) for name, packets in files.items()})
        run.save()
        return
    run.say(traffic.words())
    mixed = traffic.mixed(FLOWS)
    queued = traffic.queued(mixed)
    run.settings(flows=FLOWS, packets={"mixed": len(mixed), "queued": len(queued)})
    cases = {"mixed traffic": partial(measure, lists, [], mixed, CHECKSUM_VERIFY),
             "mixed traffic, what is queued of it": partial(measure, lists, [], queued, CHECKSUM_VERIFY)}
    for name, (before, packets) in kinds(EACH // 4 if chosen.quick else EACH).items():
        # The packets that do not open are altered ones, so their checksums are wrong; no other's is.
        flags = CHECKSUM_TRUST if "does not open" in name else CHECKSUM_VERIFY
        cases[name] = partial(measure, lists, before, packets, flags)
        if name in COUNTED:
            cases[f"{name}, counted"] = partial(measure, lists, before, packets, flags, True)
        if name == FULL:
            cases[f"{name}, table full"] = partial(measure, lists, before, packets, flags, full=True)
    run.in_turn(cases)
    run.save()


if __name__ == "__main__":
    harness.main(main)
