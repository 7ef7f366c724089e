"""Lists of growing size: compile time, memory, bytes an entry, open time, look-ups a second, and what workers share.

    python -m benchmarks.rules [SIZE ...] [--quick]       SIZE: domains, or URLs with a "u" behind it, as in 1000000u

Behind each size of domains, and at the end, what changes.py measures: a line and an exception more beside so many,
many lists, and the reading speed of each format.

In: sizes; 10000, 1000000, 10000000 and 1000000u when none is given, 10000 with --quick. Names are made of their
number by a hash. Out: a JSON object a line on standard output: one for each size, and one for each thing that could
stand in for the matcher (a Python set, a marisa trie, pyroaring's own `in`) on the same names.

Look-ups in compiled code are of three-label hosts, each a different one: hits are listed hosts below www., misses are
not listed. Peers are asked from Python for the exact name; so is the matcher, for comparison. None of the peers looks
up parent domains or URLs, and the bitmap alone says yes to some names that are not listed.
"""

import base64
import fcntl
import json
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyximport

from edgeblock.blocklist.fingerprint import fingerprint
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.store import open_file, read_key
from edgeblock.daemon.mapping import SEALS, map_snapshot

NAMES = 200_000     # different names asked: more than caches hold
REPEATS = 5
PROTO_TLS, PROTO_HTTP = 1, 2
ENDS = ("com", "net", "org", "de", "co.uk", "ru")
WORKERS = 4
# Seconds, seconds of processor time and KiB of memory of a command. Run by a small process, because what the kernel
# says of the memory of a child begins with that of its parent.
TIMED = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss)
"""
PEERS = ("set", "marisa_trie", "pyroaring", "edgeblock from Python")


def name_of(number: int, seed: int = 1) -> str:
    """The same name for the same number, always."""
    digest = blake2b(number.to_bytes(8), digest_size=15, salt=bytes([seed])).digest()
    text = base64.b32encode(digest).decode().lower()
    return f"{text[:6 + digest[14] % 12]}{number:x}.{ENDS[digest[13] % 6]}"


def lines(size: int, urls: bool) -> Iterator[str]:
    for number in range(size):
        yield f"{name_of(number % (size // 4))}/{name_of(number, 2)}/page.html\n" if urls else f"{name_of(number)}\n"


def spread(rates: list[float]) -> list[int]:
    return [round(min(rates)), round(max(rates))]


def measure(size: int, urls: bool, folder: Path, lookups: Any) -> Iterator[dict[str, Any]]:
    rules, key, output = folder / "rules", folder / "key", folder / "rules.snapshot"
    rules.mkdir()
    with open(rules / "all.list", "w") as file:
        file.writelines(lines(size, urls))
    command = [sys.executable, "-m", "edgeblock", "compile", "--rules", str(rules), "--key", str(key),
               "--output", str(output)]
    done = subprocess.run([sys.executable, "-c", TIMED, *command], stdout=subprocess.PIPE, text=True, check=True)
    compiled, cpu, peak = map(float, done.stdout.split())
    snapshot = open_file(output, read_key(key))
    row: dict[str, Any] = {
        "what": f"{size} {'URLs' if urls else 'domains'}", "entries": size, "compile_s": round(compiled, 2),
        "compile_cpu_s": round(cpu, 2), "peak_mib": round(peak / 1024),
        "bytes_per_entry": round(output.stat().st_size / size, 2)}
    fd = os.memfd_create("edgeblock-rules", os.MFD_ALLOW_SEALING)
    with open(os.dup(fd), "wb") as file:
        file.write(snapshot.data)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    row["open_ms"] = round(min(timed(lambda: ListMatcher(map_snapshot(fd, snapshot.key))) for _ in range(5)) * 1e3, 2)
    row["verify_ms"] = round(min(timed(lambda: open_file(output, snapshot.key)) for _ in range(3)) * 1e3, 1)
    matcher = ListMatcher(map_snapshot(fd, snapshot.key))
    step = max(1, size // NAMES)
    numbers = range(0, size, step)
    hosts = [name_of(number % (size // 4)) if urls else f"www.{name_of(number)}" for number in numbers]
    target = None
    if urls:
        target = f"/{name_of(numbers[-1], 2)}/page.html".encode()
    for label, names in (("hit", hosts), ("miss", [f"www.{name_of(number, 3)}" for number in range(NAMES)])):
        rates = []
        for _ in range(REPEATS):
            asked = [name.encode() for name in names]
            seconds, matches = lookups.time_names(matcher, PROTO_HTTP if urls else PROTO_TLS, asked, target, 2)
            assert urls or matches == (2 * len(names) if label == "hit" else 0)
            rates.append(2 * len(names) / seconds)
        # A URL list knows each host, and of each one page is asked for that hardly any has.
        row[f"{'url' if urls and label == 'hit' else label}_per_s"] = round(statistics.median(rates))
        row[f"{'url' if urls and label == 'hit' else label}_spread"] = spread(rates)
    del matcher         # the pages that this process has do not count
    row["one_worker_mib"], row["four_workers_mib"] = shared(fd, key, 1), shared(fd, key, WORKERS)
    os.close(fd)
    yield row
    if not urls:
        for peer in PEERS:
            done = subprocess.run([sys.executable, "-m", "benchmarks.rules", "--peer", peer, str(size), str(folder)],
                                  stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode == 0:
                yield json.loads(done.stdout)


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# What workers share ------------------------------------------------------------------------------------------

def shared(fd: int, key: Path, count: int) -> float:
    """MiB of the snapshot that so many processes have together, every page of it read by each."""
    command = [sys.executable, "-m", "benchmarks.rules", "--map", str(fd), str(key)]
    processes = [subprocess.Popen(command, pass_fds=(fd,), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                 for _ in range(count)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == b"mapped\n"
    total = sum(proportional(process.pid) for process in processes)
    for process in processes:
        process.communicate()
    return round(total / 1024, 1)


def proportional(pid: int) -> int:
    """KiB of the snapshot in this process, each page divided by the processes that have it."""
    total, ours = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            ours = "memfd:edgeblock-rules" in line
        elif ours and line.startswith("Pss:"):
            total += int(line.split()[1])
    return total


def stay_mapped(fd: int, key: Path) -> None:
    snapshot = map_snapshot(fd, read_key(key))
    assert sum(snapshot.data[at] for at in range(0, len(snapshot.data), mmap.PAGESIZE)) >= 0
    print("mapped", flush=True)
    sys.stdin.read()


# What could stand in for the matcher ---------------------------------------------------------------------------

def stand_in(peer: str, size: int, folder: Path) -> None:
    names = (name_of(number) for number in range(size))
    step = max(1, size // NAMES)
    hits: list[Any] = [name_of(number) for number in range(0, size, step)]
    misses: list[Any] = [name_of(number, 3) for number in range(NAMES)]
    key = read_key(folder / "key")

    def number_of(name: str) -> int:
        return int.from_bytes(fingerprint(key, name.encode())[:4])

    before = resident()
    start = time.perf_counter()
    if peer == "set":
        holds: Any = set(names).__contains__
    elif peer == "marisa_trie":
        import marisa_trie

        holds = marisa_trie.Trie(names).__contains__
    elif peer == "pyroaring":
        from pyroaring import BitMap

        holds = BitMap(map(number_of, names)).__contains__
        hits, misses = [*map(number_of, hits)], [*map(number_of, misses)]
    else:
        matcher = ListMatcher(open_file(folder / "rules.snapshot", key))
        hits, misses = [name.encode() for name in hits], [name.encode() for name in misses]

        def holds(name: bytes) -> bool:
            return matcher.look_up("tls", name) is not None

    row: dict[str, Any] = {"what": f"{peer}, {size} domains", "build_s": round(time.perf_counter() - start, 2),
                           "memory_mib": round((resident() - before) / (1 << 20))}
    for label, asked in (("hit", hits), ("miss", misses)):
        rates = [len(asked) / timed(lambda asked=asked: ask(holds, asked)) for _ in range(REPEATS)]
        row[f"{label}_per_s"] = round(statistics.median(rates))
        row[f"{label}_spread"] = spread(rates)
    print(json.dumps(row))


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def ask(holds: Callable[[Any], bool], names: Iterable[Any]) -> int:
    return sum(map(holds, names))


def change(what: str) -> None:
    subprocess.run([sys.executable, "-m", "benchmarks.changes", what], check=True)


def main(words: list[str]) -> None:
    if words[:1] == ["--map"]:
        return stay_mapped(int(words[1]), Path(words[2]))
    if words[:1] == ["--peer"]:
        return stand_in(words[1], int(words[2]), Path(words[3]))
    quick = "--quick" in words
    sizes = [word for word in words if word != "--quick"] or (
        ["10000"] if quick else ["10000", "1000000", "10000000", "1000000u"])
    with tempfile.TemporaryDirectory() as build:
        pyximport.install(build_dir=build, language_level=3)
        from benchmarks import lookups  # compiled by this import
        for size in sizes:
            with tempfile.TemporaryDirectory() as folder:
                for row in measure(int(size.rstrip("u")), size.endswith("u"), Path(folder), lookups):
                    print(json.dumps(row), flush=True)
            if not size.endswith("u"):
                change(size)
    if len(sizes) == len([word for word in words if word != "--quick"]):
        return      # who asks for sizes gets those
    for what in ("lists:500", "formats") if quick else ("lists:10000", "formats"):
        change(what)


if __name__ == "__main__":
    main(sys.argv[1:])
