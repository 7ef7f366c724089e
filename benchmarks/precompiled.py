"""A long list from its rename to being in force: read here, or taken from the part that was compiled elsewhere.

    python -m benchmarks.precompiled [SIZE] [--repeats N] [--only WHAT] [--made DIR]

In: how many domains; 10000000 if none is given. Out: a JSON object a line on standard output, `read` and `compiled`,
each with seconds by wall clock from the rename of the list until a matcher answers by it, seconds of processor time
of all processes, and the greatest memory (PSS, in MiB, looked at 20 times a second) of the processes that compile,
and of all with the supervisor's. What was made is kept in DIR, and used again.

Before, 20 short lists are in force, and the process that compiles waits, as in a daemon. Each turn has a box of its
own. What the daemon waits for the end of a burst of files (0.05 s) is not in it, nor the workers' switch.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey

from benchmarks.changes import Box, processor_seconds
from benchmarks.rules import lines, name_of
from edgeblock.blocklist.store import read_key

SMALL = 20


def small(box: Box) -> None:
    for number in range(SMALL):
        box.write(f"small{number}.list", "".join(f"s{number}-{i}.example\n" for i in range(100)))


class Peak:
    """The greatest memory of a process and its children, in KiB; `below` without the process itself."""

    def __init__(self) -> None:
        self.whole = self.below = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            below = sum(map(pss, map(int, children())))
            self.below = max(self.below, below)
            self.whole = max(self.whole, below + pss(os.getpid()))


def children() -> list[str]:
    return [one for thread in Path("/proc/self/task").iterdir()
            for one in (thread / "children").read_text().split()]


def pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)


def sign(path: Path, secret: SigningKey) -> None:
    """As `minisign -S` does."""
    with open(path, "rb") as file:
        digest = hashlib.blake2b()
        while piece := file.read(1 << 20):
            digest.update(piece)
    made = secret.sign(digest.digest()).signature
    comment = f"timestamp:{int(time.time())}\tfile:{path.name}\thashed".encode()
    over = secret.sign(made + comment).signature
    path.with_name(f"{path.name}.minisig").write_bytes(
        b"untrusted comment: x\n" + base64.b64encode(b"ED" + bytes(8) + made) + b"\ntrusted comment: " + comment
        + b"\n" + base64.b64encode(over) + b"\n")


async def turn(home: Path, made: Path, key: Path, size: int, signer: str) -> dict[str, float]:
    box = Box(home)
    (home / "state").mkdir(exist_ok=True)
    shutil.copy(key, home / "state" / "key")
    if signer:
        box.compiler.rules = replace(box.compiler.rules, compiled_signers=(signer,))
        box.compiler.config = replace(box.compiler.config, rules=box.compiler.rules)
    small(box)
    await box.load()
    await box.settled()
    if signer:
        for name in ("all.compiled", "all.compiled.minisig"):
            shutil.copy(made / name, box.folder / name)
    shutil.copy(made / "all.list", box.folder / ".all.new")
    os.sync()
    peak, before, began = Peak(), processor_seconds(), time.perf_counter()
    (box.folder / ".all.new").rename(box.folder / "all.list")
    found = (await box.load()).look_up("tls", name_of(size // 2).encode())
    seconds = time.perf_counter() - began
    peak.end()
    assert found is not None and found.list == "all"
    used = processor_seconds() - before
    await box.compiler.close()
    return {"s": seconds, "cpu_s": used, "below_mib": peak.below / 1024, "whole_mib": peak.whole / 1024}


def told(what: str, size: int, rows: list[dict[str, float]]) -> None:
    row: dict[str, Any] = {"what": what, "entries": size}
    for name in rows[0]:
        every = [one[name] for one in rows]
        row[name] = round(statistics.median(every), 2)
        row[f"{name}_spread"] = [round(min(every), 2), round(max(every), 2)]
    print(json.dumps(row | {"load_average": os.getloadavg()[0]}), flush=True)


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("size", type=int, nargs="?", default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("read", "compiled"))
    parser.add_argument("--made", help="a directory for the list and what comes of it, to be used again")
    chosen = parser.parse_args(words)
    secret = SigningKey(bytes(range(32)))
    signer = base64.b64encode(b"Ed" + bytes(8) + bytes(secret.verify_key)).decode()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        made = Path(chosen.made or home / "made")
        made.mkdir(exist_ok=True)
        key = made / "key"
        read_key(key, create=True)
        if not (made / "all.list").exists():
            with open(made / "all.list", "w") as file:
                file.writelines(lines(chosen.size, False))
        if not (made / "all.compiled").exists():
            rules = home / "rules"
            rules.mkdir()
            shutil.copy(made / "all.list", rules)
            subprocess.run([sys.executable, "-m", "edgeblock", "compile", "--rules", str(rules), "--key", str(key),
                            "--parts", str(made)], check=True, stdout=subprocess.DEVNULL)
            sign(made / "all.compiled", secret)
        for what in [chosen.only] if chosen.only else ["read", "compiled"]:
            rows = []
            for number in range(chosen.repeats):
                place = home / f"{what}{number}"
                place.mkdir()
                rows.append(asyncio.run(turn(place, made, key, chosen.size, signer * (what == "compiled"))))
                shutil.rmtree(place)
            told(what, chosen.size, rows)


if __name__ == "__main__":
    main(sys.argv[1:])
