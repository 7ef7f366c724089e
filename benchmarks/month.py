"""A month at an ISP's size: how long a report takes, and how much of the disk its counts take.

    .venv/bin/python -m benchmarks.month [--entries N] [--blocks N] [--lists N] [--keep DIR]

In: how many entries the lists have together (10 million), how many blocks there are in 31 days (50 million), on how
many lists (100). Out: a JSON object on standard output; with --keep the state directory, to look at. The lists are
compiled, counts written as a daemon writes them but with half an hour in a batch, the ledger has two versions of each
list a day; then `edgeblock report` runs over all of it, in each format.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edgeblock import config
from edgeblock.blocklist.met import layers
from edgeblock.blocklist.refresh import refresh
from edgeblock.blocklist.store import Store, read_key
from edgeblock.ledger.book import Book
from edgeblock.ledger.records import moment
from edgeblock.report.box import in_force
from edgeblock.report.pending import Batch, Pending
from edgeblock.report.period import DAY
from edgeblock.report.store import FILE, Writer

DAYS = 31
EACH = 1800                     # seconds of a batch
MET = 200_000                   # different rules that are met in the month
HOURS = (2, 1, 1, 1, 1, 1, 2, 4, 6, 7, 7, 7, 8, 7, 7, 7, 8, 9, 10, 11, 12, 11, 8, 4)      # traffic by the hour
# What a process says of itself at its end: to who waits for it the kernel tells the memory of who started it, too.
MEASURED = """
import sys, time
from edgeblock.cli import main
if code := main():
    sys.exit(code)
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print(peak, time.process_time())
"""
PROTOCOLS = (("tls", "reset", 70), ("quic", "reset", 22), ("http", "page", 8))


def write_lists(folder: Path, lists: int, entries: int) -> None:
    """The first has nine of ten entries."""
    for number in range(lists):
        count = entries * 9 // 10 if number == 0 else max(1, entries // 10 // max(1, lists - 1))
        (folder / f"list{number:03}.list").write_text(
            "".join(f"www{entry:x}.n{number:x}.example\n" for entry in range(count)))
        (folder / f"list{number:03}.toml").write_text(
            f'category = "category {number % 7}"\norder = "No. {number}/2026"\n'
            f'authority = "Authority {number % 5}"\n')


def some_rules(key: Path, chosen: random.Random) -> list[tuple[str, str]]:
    """List and id of rules that are there."""
    snapshot = in_force(key)
    assert snapshot is not None
    found = []
    for rows, names in layers(snapshot):
        for _ in range(MET):
            at = 5 * chosen.randrange(len(rows) // 5)
            what = rows[at + 4]
            mark = int.from_bytes(rows[at + 3].to_bytes(4, "little"), "big")
            found.append((names[what >> 16], f"{mark ^ (what & 0xFF) * 0x9E3779B1 & 0xFFFFFFFF:08x}"))
    return found


def write_counts(state: Path, met: list[tuple[str, str]], lists: int, blocks: int, begins: float,
                 chosen: random.Random) -> int:
    """What a daemon would have written; how many visits that are."""
    writer = Writer(ledger_of(state), 400, begins)
    total = 0
    steps = DAYS * DAY // EACH
    harmonic = sum(1 / number for number in range(1, lists + 1))
    for step in range(steps):
        at = begins + step * EACH
        batch = Batch(Pending(16_384, 65_536))
        share = blocks * HOURS[int(at % DAY // 3600)] / sum(HOURS) / DAYS / (3600 // EACH)
        for number in range(lists):
            for proto, action, part in PROTOCOLS:
                visits = round(share * part / 100 / (number + 1) / harmonic * chosen.uniform(0.8, 1.2))
                if visits:
                    batch.pending.add((f"list{number:03}", f"No. {number}/2026", proto, action), 3 * visits, visits)
                    total += visits
        for name, rule in chosen.choices(met, k=6000):
            batch.pending.hit(name, rule)
        batch.add("running", EACH)
        batch.add("filtering", EACH)
        batch.add("proven", EACH if step % 200 else EACH / 2)
        batch.add("packets", 100 * share)
        for family in ("ipv4", "ipv6"):
            for proto in ("http", "tls", "quic"):
                batch.canary[family, proto] = [EACH // 10, EACH // 10 - (step % 200 == 0)]
        writer.write({int(at // DAY): batch}, at + EACH - 1, clean=step + 1 == steps)
    writer.close()
    return total


def ledger_of(state: Path) -> Path:
    return state.with_name(f"{state.name}-ledger")


def write_ledger(state: Path, lists: int, entries: int, begins: float, chosen: random.Random) -> None:
    """Two versions of each list a day, some of which are refused."""
    book = Book(ledger_of(state))
    book.open()
    for half in range(2 * DAYS):
        at = int((begins + half * DAY / 2 + 60) * 1e6)
        changed = []
        for number in range(lists):
            name = f"list{number:03}"
            at += 1_000_000
            common = {"list": name, "file": f"{name}.list", "renamed": moment(at - 900_000)}
            if chosen.random() < 0.01:
                book.write(at, "refused", common | {"code": "signature", "in_force": True, "digest": ""})
                continue
            book.write(at, "taken", common | {
                "entries": entries // lists, "root": "", "leaves": 0, "digest": "0" * 32, "action": "reset",
                "entries_before": entries // lists, "duplicates": 0, "unusable": 0, "guarded": 0,
                "exceptions_lost": 0, "signed": None})
            changed.append({"list": name, "delay_ms": round(chosen.lognormvariate(7, 0.6))})
        book.write(at + 1_000_000, "in force", {
            "run": "0" * 8, "number": half + 1, "content": "0" * 64, "table": "0" * 64, "lists": lists,
            "entries": entries,
            "workers": True, "kernel": True, "compiled": moment(at), "changed": changed, "more": 0})
    book.sync()
    book.close()


def reported(state: Path, output: str, *words: str) -> dict[str, Any]:
    """Seconds and memory of one `edgeblock report`, as a process of its own, and the size of what it made."""
    began = time.perf_counter()
    command = [sys.executable, "-c", MEASURED, "report", "--state", str(state), "--output", output, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds = round(time.perf_counter() - began, 2)
    kilobytes, processor = done.stdout.splitlines()[-1].split()
    return {"seconds": seconds, "processor_s": round(float(processor), 2), "memory_mb": round(int(kilobytes) / 1000),
            "output_kb": round(Path(output).stat().st_size / 1024)}


def megabytes(directory: Path, files: str) -> float:
    return round(sum(one.stat().st_size for one in directory.glob(files)) / 1e6, 1)


def run(state: Path, lists: int, entries: int, blocks: int) -> dict[str, Any]:
    chosen = random.Random(1)
    rules = config.Rules(directory=state / "rules", key=state / "key", max_growth=1e9)
    rules.directory.mkdir(parents=True, exist_ok=True)
    write_lists(rules.directory, lists, entries)
    now = time.time()
    store = Store(state, read_key(rules.key, create=True))
    while len(store.published() or ()) < lists:         # a long list waits for a round of its own
        refresh(rules, store, now)
    begins = (now // DAY - DAYS) * DAY
    began = time.perf_counter()
    visits = write_counts(state, some_rules(rules.key, chosen), lists, blocks, begins, chosen)
    writing = (time.perf_counter() - began) / (DAYS * DAY // EACH)
    write_ledger(state, lists, entries, begins, chosen)
    span = ("--from", time.strftime("%Y-%m-%d", time.gmtime(begins)),
            "--to", time.strftime("%Y-%m-%d", time.gmtime(begins + (DAYS - 1) * DAY)))
    made = {form: reported(state, f"{state}/report.{form}", *span, "--format", form)
            for form in ("html", "json", "csv")}
    told = json.loads(Path(f"{state}/report.json").read_text())
    assert told["totals"]["visits"] == visits and told["counted"]["seconds"] == DAYS * DAY - 1 + 1, told["counted"]
    return {"lists": lists, "entries": entries, "visits": visits, "days": DAYS, "batch_ms": round(1000 * writing, 1),
            "counts_mb": megabytes(ledger_of(state), f"{FILE}*"), "ledger_mb": megabytes(ledger_of(state), "0*"),
            "writer_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "dead": sum(one["dead"]["entries"] for one in told["lists"]), "report": made}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000_000)
    parser.add_argument("--blocks", type=int, default=50_000_000)
    parser.add_argument("--lists", type=int, default=100)
    parser.add_argument("--keep", type=Path)
    chosen = parser.parse_args()
    if chosen.keep:
        chosen.keep.mkdir(parents=True)
        print(json.dumps(run(chosen.keep, chosen.lists, chosen.entries, chosen.blocks)))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(Path(folder, "state"), chosen.lists, chosen.entries, chosen.blocks)))


if __name__ == "__main__":
    main()
