"""The first stage alone: time of one packet, its filter's size, its false positives, and how long new rules take.

    python benchmarks/stage1.py [--entries N]

In: the number of listed names. Out: a table. Needs root. Times are the kernel's own (BPF_PROG_TEST_RUN): of one run
each, on flows that come for the first time. That of a bare ACK is what an empty run takes, the clock included.
"""

import argparse
import random
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from edgeblock.blocklist.fingerprint import Kind, Rows, fingerprint
from edgeblock.blocklist.parts import Compiled
from edgeblock.netfilter.stage1 import Stage, bpf
from edgeblock.netfilter.stage1.sieve import blocks_for, fill, holds
from tests.core import samples as s

KEY = bytes(range(16))
NAMES = (b"www.example.com", b"open.example", b"img-cdn.static.example.net", b"a.very.long.name.of.example.org")


def rows_of(entries: int) -> Compiled:
    rows = Rows(KEY)
    for number in range(entries):
        rows.add(b"host%d.example%d.net" % (number, number % 1000), Kind.HOST)
    rows.finish()
    return Compiled([], b"", memoryview(rows), b"", labels=0b1110)


def once(stage: Stage, packet: bytes) -> int:
    return bpf.test_run(stage.program, packet)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    entries = parser.parse_args().entries
    parts = rows_of(entries)
    with Stage(1 << 18, 120.0) as stage:
        began, used = time.perf_counter(), time.process_time()
        stage.offer(parts, KEY)
        print(f"{entries:,} names: filter offered in {time.perf_counter() - began:.3f} s, "
              f"{time.process_time() - used:.3f} s of processor time")
        blocks = blocks_for(parts.rows)
        words = memoryview(bytearray(blocks * 64)).cast("Q")
        fill(words, parts.rows)
        print(f"filter {blocks * 64 / 1e6:.1f} MB, {blocks * 512 / max(entries, 1):.1f} bits a name")
        tries = 1_000_000
        found = sum(holds(words, fingerprint(KEY, b"other%d.example" % number)) for number in range(tries))
        print(f"false positives of one look-up: {found / tries:.4%}")
        times: dict[str, list[int]] = {"nothing": [], "SYN": [], "ClientHello, 3 labels": [], "piece": [], "HTTP": [],
                                       "later": []}
        dice = random.Random(1)
        passed = hellos = 0
        for number in range(20_000):
            ports = {"sport": 1024 + number % 60_000, "source": f"192.0.2.{2 + number // 60_000}"}
            isn = dice.getrandbits(32)
            data = s.hello(b"www%d.site%d.com" % (number, number), before=s.key_share(280))
            times["nothing"].append(once(stage, s.tcp(isn + 1, b"", s.ACK, **ports)))
            times["SYN"].append(once(stage, s.tcp(isn, b"", s.SYN, **ports)))
            if number % 4 == 0:
                times["piece"].append(once(stage, s.tcp(isn + 1, data[:300], **ports)))
            elif number % 4 == 1:
                times["HTTP"].append(once(stage, s.tcp(isn + 1, s.request(b"www.example.com"), **ports)))
            else:
                answer, taken = bpf.test_run(stage.program, s.tcp(isn + 1, data, **ports))
                times["ClientHello, 3 labels"].append(taken)
                passed += answer
                hellos += 1
                times["later"].append(once(stage, s.tcp(isn + 1 + len(data), b"x" * 50, **ports)))
        print(f"clean hellos that passed: {passed} of {hellos} ({passed / hellos:.2%})")
        empty = statistics.median(times["nothing"])
        print(f"{'ns of one run':28} median   90 %   (with the {empty:.0f} of a bare ACK)")
        for name, taken in times.items():
            print(f"{name:28} {statistics.median(taken):6.0f} {statistics.quantiles(taken, n=10)[-1]:6.0f}")


if __name__ == "__main__":
    main()
