"""How cost grows: with names, with flows in the table, with workers.

    .venv/bin/python benchmarks/scale.py [--quick] [--rounds N] [--output DIR]

names     the engine on ClientHellos of new flows, with lists of 10 thousand, 1 million and (not with --quick) 10
          million names, none asked for
flows     the engine on packets with data of flows in the table, in random order, with 10 thousand to 1 million of
          them (with --quick 100 thousand)
workers   new TLS connections/s through a box with 1 and 2 workers, from many addresses (the kernel spreads pairs of
          addresses over the queues). Client, server and box share this machine's CPUs. Needs root.

The sizes take turns, and the engines of all are there at once.
"""

import dataclasses
import random
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import box
import harness
import slices
import traffic
from engine import lists_of

from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.core.engine import Engine

HELLOS = 40_000
PACKETS = 100_000
FIGURE = "ns_per_packet"


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


def workers(run: harness.Run, questions: int) -> None:
    load = dataclasses.replace(box.LOADS[0], count=questions, listed=False)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        bench = box.Bench(run, Path(name), stack)
        box.write_texts(bench.folder, {load.text})
        bench.open({f"workers {count}": partial(opened, count) for count in (1, 2)})
        askers = {f"workers, {count}": bench.asker(place, load, 4)
                  for count, place in enumerate(bench.places, start=1)}
        for asker in askers.values():
            stack.callback(asker.end)
        run.in_turn({case: partial(rate, asker) for case, asker in askers.items()})


def opened(count: int, place: box.Place) -> None:
    place.filter(box.EDGEBLOCK["queue"], count)


def rate(asker: box.Asker) -> dict[str, float]:
    said = asker.order(asker.load.count)
    return {"per_s": said["answered"] / said["seconds"]}


def main() -> None:
    chosen = harness.options(__doc__).parse_args()
    harness.need_root()
    run = harness.Run("scale", chosen, rounds=15, quick_rounds=5)
    run.record["facts"] = {}
    packets = traffic.hellos(HELLOS)
    sizes = (10_000, 100_000) if chosen.quick else (10_000, 1_000_000, 10_000_000)
    crowds = (10_000, 100_000) if chosen.quick else (10_000, 100_000, 1_000_000)
    run.settings(names=sizes, flows=crowds)
    workers(run, 2_000 if chosen.quick else 20_000)
    few = lists_of(10_000)
    groups = [{f"flows, {size}": Crowd(few, size).measure for size in crowds}]
    run.in_turn(groups[0])
    groups[0] = dict.fromkeys(groups[0])        # a million flows take memory
    names = {}
    for size in sizes:
        begin = time.monotonic()
        names[f"names, {size}"] = partial(hellos, few if size == 10_000 else lists_of(size), packets)
        run.say(f"{size:,} names compiled in {time.monotonic() - begin:.1f} s")
    run.in_turn(names)
    for cases in (*groups, names):
        first, *others = cases
        for case in others:
            run.say(f"{case} against {first}: {slices.growth(run.samples(first, FIGURE), run.samples(case, FIGURE))}")
    run.save()


if __name__ == "__main__":
    harness.main(main)
