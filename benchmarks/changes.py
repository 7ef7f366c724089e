"""What a change of the lists costs: one line more beside many entries, an exception, many lists, each plain format.

    python -m benchmarks.changes [WHAT ...] [--quick]     WHAT: a number of entries; lists:NUMBER; formats

In: sizes; 10000, 1000000, 10000000, lists:10000 and formats when none is given, 10000, lists:500 and formats with
--quick. Out: a JSON object a line on standard output.

*Entries*: the process that compiles lists has one list of so many, and a second one comes, is changed, and is an
exception, each by rename. Seconds are from the rename until a matcher answers by it, by wall clock: the process takes
the list in, writes it to the disk, hands the snapshot over, it is verified and mapped, and the first stage's filter
is filled. Processor seconds are those of both processes, with the start of the one that compiles, a third of a second
that in a daemon is over before. What the daemon waits for the end of a burst of files (0.05 s) is not in it, nor the
workers' switch.
*Lists*: of ten lines each, from none in force to all, and then one more. *Formats*: a file of so many lines of one
format, read alone and taken as a whole (guard rails, fingerprints, sorted rows), in a process of its own, on one
core.
"""

import asyncio
import base64
import gc
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.rules import lines, name_of, spread
from edgeblock import config
from edgeblock.blocklist import formats
from edgeblock.blocklist.directory import find_lists
from edgeblock.blocklist.intake import make_terms, take
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.snapshot import Snapshot
from edgeblock.blocklist.store import read_key
from edgeblock.daemon import compiler, mapping
from edgeblock.netfilter.stage1.sieve import blocks_for, fill

REPEATS = 5
LINES = 200_000         # of a file of each format
LISTS = "lists:"


class Box:
    """A rules directory, what compiles it, and what a worker has of it."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "rules"
        self.folder.mkdir()
        self.compiler = compiler.Compiler(config.Rules(directory=self.folder, key=home / "state" / "key"))
        self.loaded: compiler.Loaded | None = None
        self.below: Snapshot | None = None
        self.base_fd = -1
        self.words = memoryview(bytearray(64)).cast("Q")

    def write(self, name: str, text: str) -> None:
        (self.folder / ".new").write_text(text)
        (self.folder / ".new").rename(self.folder / name)

    async def load(self) -> ListMatcher:
        """Takes in what there is, as the daemon does; the matcher that a worker has then."""
        digest, held = (self.loaded.digest, self.loaded.whole) if self.loaded else ("", "")
        loaded = await self.compiler.load((), digest, held=held, lane={})
        for name, _, _ in loaded.slow:
            await self.compiler.load_one(name)
        if loaded.fd >= 0:
            whole = loaded.base_fd if loaded.base_fd >= 0 else -1 if loaded.base else loaded.fd
            self.base_fd = whole if whole >= 0 else self.base_fd
            snapshot = mapping.map_stacked(loaded.fd, self.base_fd, loaded.key, self.below)
            self.below = snapshot.base or snapshot
            if whole >= 0:
                self.words = memoryview(bytearray(64 * blocks_for(self.below.parts.rows))).cast("Q")
                fill(self.words, self.below.parts.rows)
            if snapshot.base:
                fill(self.words, snapshot.parts.rows)
            self.loaded, self.matcher = loaded, ListMatcher(snapshot)
        if loaded.slow or loaded.again:
            await self.compiler.prepare()
            return await self.load()
        return self.matcher

    async def settled(self) -> None:
        """A process is waiting for the next job, as there always is in a daemon."""
        await self.compiler.prepare()
        await asyncio.sleep(1.0)


async def change(size: int, home: Path) -> dict[str, Any]:
    box = Box(home)
    with open(box.folder / "all.list", "w") as file:
        file.writelines(lines(size, False))
    began = time.perf_counter()
    await box.load()
    row: dict[str, Any] = {"what": f"a change beside {size} domains", "all_s": round(time.perf_counter() - began, 2)}
    for label, line, action in (("line", "n{}.example", "reset"), ("exception", f"@@{name_of(size // 2)}", "accept")):
        asked = line.removeprefix("@@").format(0).encode()
        seconds, used = [], []
        for turn in range(REPEATS):
            await box.settled()
            before = processor_seconds()
            asked = line.removeprefix("@@").format(turn).encode()
            began = time.perf_counter()
            box.write(f"{label}.list", f"{line.format(turn)}\nturn{turn}.example\n")
            found = (await box.load()).look_up("tls", asked)
            seconds.append(time.perf_counter() - began)
            used.append(processor_seconds() - before)
            assert found is not None and found.action == action, found
        row[f"{label}_s"] = round(statistics.median(seconds), 3)
        row[f"{label}_spread"] = [round(min(seconds), 3), round(max(seconds), 3)]
        row[f"{label}_cpu_s"] = round(statistics.median(used), 3)
    await box.compiler.close()
    row["load_average"] = os.getloadavg()[0]
    return row


def processor_seconds() -> float:
    """Of this process and those that it has seen end; with what they had used before they had anything to do."""
    every = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in every)


async def many(count: int, home: Path) -> dict[str, Any]:
    box = Box(home)
    for number in range(count):
        names = (name_of(10 * number + i) for i in range(10))
        (box.folder / f"l{number:05}.list").write_text("".join(f"{name}\n" for name in names))
    await box.settled()
    began = time.perf_counter()
    matcher = await box.load()
    cold = time.perf_counter() - began
    assert len(matcher.list_names) == count
    seconds = []
    for turn in range(3):
        await box.settled()
        began = time.perf_counter()
        box.write(f"more{turn}.list", f"n{turn}.example\n")
        found = (await box.load()).look_up("tls", b"n%d.example" % turn)
        seconds.append(time.perf_counter() - began)
        assert found is not None
    await box.compiler.close()
    return {"what": f"{count} lists of 10 lines", "cold_s": round(cold, 2),
            "one_more_s": round(statistics.median(seconds), 2),
            "one_more_spread": [round(min(seconds), 2), round(max(seconds), 2)], "load_average": os.getloadavg()[0]}


# Reading --------------------------------------------------------------------------------------------------------

FORMS = {
    "domains": "{}", "urls": "http://{}/page.html", "hosts": "0.0.0.0 {}", "rpz": "{} CNAME .", "csv": "17,{},x",
    "adblock": "||{}^", "dnsmasq": "address=/{}/", "unbound": 'local-zone: "{}" always_nxdomain',
    "domain-set": "domain:{}", "nfqfilter-domains": "{}", "nfqfilter-urls": "{}/page.html"}
HEADS = {"rpz": "$ORIGIN rpz.example.net.\n@ SOA a. b. 1 2 3 4 5\n", "csv": "id,domain,why\n"}


def text_of(form: str, count: int) -> str:
    names = (name_of(number) for number in range(count))
    if form == "dataset":
        return "".join(f"{base64.b64encode(name.encode()).decode()}\n" for name in names)
    if form == "nfqfilter-addresses":
        return "".join(f"198.{18 + number // 65536 % 2}.{number // 256 % 256}.{number % 256}:{1 + number % 60000}\n"
                       for number in range(count))
    return HEADS.get(form, "") + "".join(f"{FORMS[form].format(name)}\n" for name in names)


def read(form: str, count: int) -> None:
    """In a process of its own: the speed of one format, and what memory it takes."""
    text = text_of(form, count).encode()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "rules").mkdir()
        (home / "rules" / "all.txt").write_bytes(text)
        (home / "rules" / "all.toml").write_text(f'format = "{form}"\nallow_addresses = true\n')
        settings = config.Rules(directory=home / "rules", key=home / "key")
        terms = make_terms(settings, read_key(settings.key, create=True))
        [source], errors, _ = find_lists(settings.directory, terms.defaults)
        assert not errors, errors
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        alone, whole = [], []
        for _ in range(REPEATS):
            gc.collect()
            began = time.process_time()
            found = sum(type(item) is formats.Entry for item in source.reader(io.BytesIO(text)))
            alone.append(count / (time.process_time() - began))
            began = time.process_time()
            made = take(source, terms, None, time.time())
            whole.append(count / (time.process_time() - began))
            assert found == count == made.lists[0].entries + made.lists[0].duplicates, (form, found, made.lists)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"what": f"reading {form}", "lines": count, "bytes": len(text),
                      "read_lines_per_s": round(statistics.median(alone)), "read_spread": spread(alone),
                      "taken_lines_per_s": round(statistics.median(whole)), "taken_spread": spread(whole),
                      "memory_mib": round((peak - before) / 1024, 1)}), flush=True)


def measure(what: str) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        if what.startswith(LISTS):
            yield asyncio.run(many(int(what.removeprefix(LISTS)), Path(folder)))
        elif what != "formats":
            yield asyncio.run(change(int(what), Path(folder)))
    if what == "formats":
        for form in (*FORMS, "dataset", "nfqfilter-addresses"):
            if form in formats.READERS:
                done = subprocess.run([sys.executable, "-m", "benchmarks.changes", "--read", form, str(LINES)],
                                      stdout=subprocess.PIPE, text=True, check=True)
                yield json.loads(done.stdout)


def main(words: list[str]) -> None:
    if words[:1] == ["--read"]:
        return read(words[1], int(words[2]))
    quick = "--quick" in words
    chosen = [word for word in words if word != "--quick"] or (
        ["10000", f"{LISTS}500", "formats"] if quick else
        ["10000", "1000000", "10000000", f"{LISTS}10000", "formats"])
    for what in chosen:
        for row in measure(what):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
