"""Lists of growing size: compile time, bytes an entry, open time, and look-ups a second from compiled code.

    python -m benchmarks.rules [SIZE ...]        sizes in entries; 10000 and 1000000 when none is given

In: nothing but sizes; the names are made up from a fixed seed. Out: a JSON object a size on standard output.
Look-ups are of three-label hosts, each a different one: hits are listed hosts below www., misses are not listed.
"""

import json
import random
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pyximport

from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.rules import load
from edgeblock.blocklist.snapshot import open_snapshot

NAMES = 200_000     # different names asked: more than caches hold
REPEATS = 5
PROTO_TLS = 1


def made_up(count: int, seed: int) -> list[str]:
    pick = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789-"
    ends = ("com", "net", "org", "de", "co.uk", "ru")
    return [f"{''.join(pick.choices(letters[:36], k=pick.randrange(6, 18)))}{number:x}.{pick.choice(ends)}"
            for number in range(count)]


def measure(size: int, lookups) -> dict[str, object]:
    listed = made_up(size, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "domains.list")
        path.write_text("\n".join(listed))
        start = time.perf_counter()
        rules = load(folder)
        compiled = time.perf_counter() - start
    key = rules.matcher.snapshot.key
    opened = min(timed(lambda: ListMatcher(open_snapshot(rules.snapshot, key))) for _ in range(3))
    pick = random.Random(2)
    hits = [f"www.{name}".encode() for name in pick.choices(listed, k=NAMES)]
    misses = [f"www.{name}".encode() for name in made_up(NAMES, seed=3)]
    row: dict[str, object] = {
        "entries": size, "compile_s": round(compiled, 2), "bytes_per_entry": round(len(rules.snapshot) / size, 2),
        "open_ms": round(opened * 1e3, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
    for label, names in (("miss", misses), ("hit", hits)):
        rates = []
        for _ in range(REPEATS):
            seconds, matches = lookups.time_names(rules.matcher, PROTO_TLS, names, None, 2)
            assert matches == (2 * len(names) if label == "hit" else 0)
            rates.append(2 * len(names) / seconds)
        row[f"{label}_per_s"] = round(statistics.median(rates))
        row[f"{label}_spread"] = [round(min(rates)), round(max(rates))]
    return row


def timed(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as build:
        pyximport.install(build_dir=build, language_level=3)
        from benchmarks import lookups  # compiled by this import
        for size in map(int, sys.argv[1:] or (10_000, 1_000_000)):
            print(json.dumps(measure(size, lookups)), flush=True)


if __name__ == "__main__":
    main()
