"""How cost grows: with names, with flows in the table, with workers.

    .venv/bin/python benchmarks/scale.py [--quick] [--rounds N] [--output DIR]

names     the engine on ClientHellos of new flows, with lists of 10 thousand, 1 million and (not with --quick) 10
          million names, none asked for
flows     the engine on packets with data of flows in the table, in random order, with 10 thousand to 1 million of
          them (with --quick 100 thousand)
workers   new TLS connections/s through a box with 1 and 2 workers, from 16 addresses (the kernel spreads pairs of
          addresses over the queues). Client, server and box share this machine's CPUs. Needs root.
"""

import random
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import box
import harness
import traffic
from engine import lists_of

from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.core.engine import Engine

HELLOS = 40_000
PACKETS = 100_000
SOURCE, SOURCES = "192.0.2.10", 16


def hellos(lists: ListMatcher, packets: list[bytes]) -> dict[str, float]:
    return timed(Engine(lists), packets)


def timed(engine: Engine, packets: list[bytes]) -> dict[str, float]:
    begin = time.process_time()
    engine.judge_all(packets, 1.0, traffic.CHECKSUM_TRUST)
    seconds = time.process_time() - begin
    return {"packets_per_s": len(packets) / seconds, "ns_per_packet": seconds / len(packets) * 1e9}


class Crowd:
    """An engine with so many flows in its table, and packets that belong to some of them."""

    def __init__(self, lists: ListMatcher, flows: int) -> None:
        self.engine = Engine(lists, flows=2 * flows, memory=8 << 30)
        hello, data = traffic.hello_named(0), bytes(range(100))
        chance = random.Random(3)
        chosen = set(chance.sample(range(flows), min(PACKETS, flows)))
        packets = []
        for start in range(0, flows, 20_000):
            part = []
            for index in range(start, min(start + 20_000, flows)):
                flow = traffic.Flow(index, False, 443)
                part.append(flow.tcp(traffic.ACK | traffic.PUSH, hello))
                if index in chosen:
                    packets.append(flow.tcp(traffic.ACK | traffic.PUSH, data))
            self.engine.judge_all(part, 1.0, traffic.CHECKSUM_TRUST)
        while len(packets) < PACKETS:
            packets += packets[:PACKETS - len(packets)]
        chance.shuffle(packets)
        self.packets = packets

    def measure(self) -> dict[str, float]:
        return timed(self.engine, self.packets)


def workers(run: harness.Run, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        cases = {}
        for count in (1, 2):
            place = box.Place(f"workers {count}", Path(name), offload=False)
            stack.enter_context(place.lab)
            stack.callback(place.close)
            place.open(lambda home, place, count=count: place.filter(
                box.settings_of(home, "off" if box.first_stage() else None, count)))
            for number in range(SOURCES):
                address = f"{SOURCE.rpartition('.')[0]}.{int(SOURCE.rpartition('.')[2]) + number}/24"
                place.lab.run_in("client", ["ip", "address", "add", address, "dev", "to-box"])
            place.sources = [SOURCE, str(SOURCES)]
            cases[f"workers, {count}"] = partial(place.many, box.TLS, "new", "tls", seconds)
        run.in_turn(cases)


def main() -> None:
    chosen = harness.options(__doc__).parse_args()
    harness.need_root()
    run = harness.Run("scale", chosen, rounds=5, quick_rounds=1)
    packets = traffic.hellos(HELLOS)
    sizes = (10_000, 100_000) if chosen.quick else (10_000, 1_000_000, 10_000_000)
    crowds = (10_000, 100_000) if chosen.quick else (10_000, 100_000, 1_000_000)
    run.settings(names=sizes, flows=crowds)
    workers(run, 0.5 if chosen.quick else 2.0)
    few = lists_of(10_000)
    for size in crowds:             # one after the other: a million flows take memory
        crowd = Crowd(few, size)
        run.in_turn({f"flows, {size}": crowd.measure})
    del crowd
    names = {}
    for size in sizes:
        begin = time.monotonic()
        names[f"names, {size}"] = partial(hellos, few if size == 10_000 else lists_of(size), packets)
        run.say(f"{size:,} names compiled in {time.monotonic() - begin:.1f} s")
    run.in_turn(names)
    run.save()


if __name__ == "__main__":
    harness.main(main)
