"""Lists for some clients: what a file of so many prefixes takes, and what look-ups cost with it and without.

    python -m benchmarks.clients [NAMES] [PREFIXES]

In: how many names the list has, and how many prefixes its clients file, half of them IPv4 (/20 to /32) and half IPv6
(/48 to /64); a million of each where nothing is given. Out: a JSON object a line on standard output.

Look-ups are in compiled code, of three-label hosts, each by another client. Misses are of names that no list has;
hits are of listed names, for everybody, for clients that are in the file, and for clients that are not. The cases
take turns, slice by slice: a figure is the median of the slices with the quartiles. An update is from a new file in
the drop directory to a matcher that answers by it, as the daemon does it: read, kept, published, handed over and
verified.
"""

import asyncio
import ipaddress
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyximport

from benchmarks.rules import name_of
from edgeblock.blocklist.clients import size_of
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.prefixes import read_ranges
from edgeblock.config import Rules
from edgeblock.daemon.compiler import Compiler, Loaded, close_files
from edgeblock.daemon.mapping import map_stacked

ASKED = 100_000         # different names: more than caches hold
SLICES = 31
UPDATES = 5
PROTO_TLS = 1


def prefixes(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    made = []
    for number in range(count):
        if number % 2:
            length = chance.randrange(48, 65)
            first = 0x20 << 120 | chance.getrandbits(56) << 64
            made.append(str(ipaddress.IPv6Network((first, length), strict=False)))
        else:
            made.append(str(ipaddress.IPv4Network((chance.getrandbits(32), chance.randrange(20, 33)), strict=False)))
    return made


def write(path: Path, lines: list[str]) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text("\n".join(lines) + "\n")
    new.rename(path)


def quartiles(values: list[float], digits: int = 0) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, digits), "quartiles": [round(low, digits), round(high, digits)]}


class Box:
    """A drop directory, and what a daemon has made of it."""

    def __init__(self, home: Path, names: int) -> None:
        self.folder = home / "rules"
        self.folder.mkdir()
        self.compiler = Compiler(Rules(directory=self.folder, key=home / "state" / "key", self_check=0))
        with open(self.folder / "family.list", "w") as file:
            file.writelines(f"{name_of(number)}\n" for number in range(names))
        self.loaded: Loaded | None = None
        self.base = -1

    async def load(self) -> ListMatcher:
        before = self.loaded
        while True:
            loaded = await self.compiler.load(digest=before.digest if before else "",
                                              held=before.whole if before else "")
            if loaded.refused or loaded.problem:
                sys.exit(f"{loaded.refused or loaded.problem}")
            for name, _, _ in loaded.slow:
                await self.compiler.load_one(name)
            if loaded.fd >= 0:
                before, self.loaded = loaded, loaded
            if not loaded.slow:
                break
        assert self.loaded is not None
        loaded = self.loaded
        if not loaded.base:
            self.base = loaded.fd
        elif loaded.base_fd >= 0:
            self.base = loaded.base_fd
        return ListMatcher(map_stacked(loaded.fd, self.base, loaded.key))


async def measure(names: int, count: int, lookups: Any, home: Path) -> None:
    box = Box(home, names)
    everybody = await box.load()
    print(json.dumps({"what": "snapshot, for everybody", "names": names, "bytes": len(everybody.snapshot.data)}))
    lines = prefixes(count, 1)
    text = "\n".join(lines).encode()
    seconds = []
    for _ in range(UPDATES):
        began = time.perf_counter()
        read_ranges(text, count)
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"what": "text into ranges", "prefixes": count, "text_bytes": len(text),
                      **quartiles(seconds, 3)}))
    (box.folder / "family.toml").write_text('clients = "family.clients"\n')
    write(box.folder / "family.clients", lines)
    some = await box.load()
    [one] = some.snapshot.parts.client_sets
    print(json.dumps({"what": "snapshot, for some", "prefixes": count, "bytes": len(some.snapshot.data),
                      "of_clients": size_of(one), "shared": "by all workers"}))
    seconds = []
    for turn in range(UPDATES):
        await box.compiler.prepare()
        fresh = [*prefixes(1, turn + 2), *lines]
        began = time.perf_counter()
        write(box.folder / "family.clients", fresh)
        await box.load()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"what": "update", "names": names, "prefixes": count, **quartiles(seconds, 3)}))
    for row in compare(names, everybody, some, lines, lookups):
        print(json.dumps(row))
    await box.compiler.close()
    close_files(*{box.base, box.loaded.fd if box.loaded else -1})


def compare(names: int, everybody: ListMatcher, some: ListMatcher, lines: list[str],
            lookups: Any) -> Iterator[dict[str, Any]]:
    chance = random.Random(5)
    hits = [f"www.{name_of(number)}".encode() for number in chance.choices(range(names), k=ASKED)]
    misses = [f"www.{name_of(number, 3)}".encode() for number in range(ASKED)]
    inside = [ipaddress.ip_network(one).network_address.packed for one in chance.choices(lines, k=ASKED)]
    outside = [bytes([0x30, *chance.randbytes(15)]) for _ in range(ASKED)]
    cases = {"misses, list for everybody": (everybody, misses, inside, 0),
             "misses, list for some": (some, misses, inside, 0),
             "hits, list for everybody": (everybody, hits, inside, ASKED),
             "hits, client in the file": (some, hits, inside, ASKED),
             "hits, client not in it": (some, hits, outside, 0)}
    rates: dict[str, list[float]] = {case: [] for case in cases}
    for turn in range(SLICES):
        for case in cases if turn % 2 == 0 else reversed(cases):
            matcher, asked, clients, expected = cases[case]
            seconds, matches = lookups.time_names(matcher, PROTO_TLS, asked, None, 1, clients)
            assert matches == expected, case
            rates[case].append(ASKED / seconds)
    for case, values in rates.items():
        yield {"what": case, "unit": "look-ups/s", **quartiles(values)}
    for kind in ("misses", "hits"):
        first = rates[f"{kind}, list for everybody"]
        for case in [one for one in rates if one.startswith(kind)][1:]:
            ratios = [b / a for a, b in zip(first, rates[case], strict=True)]
            yield {"what": f"{case}, over that for everybody", **quartiles(ratios, 3)}


def main() -> None:
    numbers = [int(word) for word in sys.argv[1:]] + [1_000_000, 1_000_000][len(sys.argv) - 1:]
    with tempfile.TemporaryDirectory() as build, tempfile.TemporaryDirectory() as name:
        pyximport.install(build_dir=build, language_level=3)
        from benchmarks import lookups  # compiled by this import

        asyncio.run(measure(numbers[0], numbers[1], lookups, Path(name)))


if __name__ == "__main__":
    main()
