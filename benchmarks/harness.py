"""What every benchmark shares: options, rounds in turn, progress, and one JSON file a run.

In: cases, each a call that measures once and returns figures by name. Out: benchmarks/results/NAME.json with the
machine, kernel, commit, settings and every sample, and a line a case with median and spread (lowest to highest).
The cases of a comparison take turns, so that what else the machine does meets them all alike. Never: a figure
without its samples, a sample left out, or a comparison of two runs.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results"
BUILT = ROOT / "build" / "bench"

Figures = Mapping[str, float]


class Problem(Exception):
    """What keeps a benchmark from running, in one line with the way out."""


def options(doc: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a first look: few rounds, short ones")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of each case")
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help="where NAME.json goes (benchmarks/results, with --quick its folder quick)")
    return parser


def main(work: Callable[[], None]) -> None:
    """Runs a benchmark's main function; what a person can mend is one line."""
    try:
        work()
    except Problem as problem:
        sys.exit(f"{Path(sys.argv[0]).name}: {problem}")


def answer(process: subprocess.Popen[Any], who: str) -> Any:
    """The next line of JSON that a process says. Problem where it has ended."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise Problem(f"{who} ended with {process.wait()}")
    return json.loads(line)


class Run:
    """One run of one benchmark."""

    def __init__(self, name: str, chosen: argparse.Namespace, *, rounds: int, quick_rounds: int,
                 **settings: Any) -> None:
        self.name = name
        self.quick = bool(chosen.quick)
        self.rounds = chosen.rounds or (quick_rounds if chosen.quick else rounds)
        self.folder = chosen.output or (RESULTS / "quick" if chosen.quick else RESULTS)
        self.began = time.monotonic()
        self.record: dict[str, Any] = {
            "benchmark": name, "quick": self.quick, "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit(), "machine": machine(), "settings": {"rounds": self.rounds, **settings},
            "samples": {}, "notes": []}

    def settings(self, **more: Any) -> None:
        self.record["settings"] |= more

    def note(self, text: str) -> None:
        """A line of the report that no figure can say, such as what was left out and why."""
        self.record["notes"].append(text)
        self.say(f"note: {text}")

    def say(self, text: str) -> None:
        print(f"  {time.monotonic() - self.began:6.1f} s  {text}", file=sys.stderr, flush=True)

    def add(self, case: str, figures: Figures) -> None:
        kept = self.record["samples"].setdefault(case, {})
        for name, value in figures.items():
            kept.setdefault(name, []).append(value)

    def in_turn(self, cases: Mapping[str, Callable[[], Figures]], rounds: int | None = None) -> None:
        """Measures all cases once, then all again in the opposite order, and so on."""
        names = list(cases)
        for turn in range(rounds or self.rounds):
            for case in names if turn % 2 == 0 else names[::-1]:
                figures = cases[case]()
                self.add(case, figures)
                self.say(f"{turn + 1}/{rounds or self.rounds}  {case}: "
                         + ", ".join(f"{name} {value:,.4g}" for name, value in list(figures.items())[:3]))
            self.keep()

    def samples(self, case: str, figure: str) -> list[float]:
        return self.record["samples"][case][figure]

    def keep(self) -> Path:
        """Writes the file, as far as the run has come."""
        self.record["seconds"] = round(time.monotonic() - self.began, 1)
        self.record["machine"]["load_after"] = os.getloadavg()[0]
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.name}.json"
        path.write_text(json.dumps(self.record, indent=1) + "\n")
        return path

    def save(self) -> None:
        """The file, and on standard output the table: a line a figure of a case."""
        path = self.keep()
        for case, figures in self.record["samples"].items():
            for name, values in figures.items():
                print(f"{case}; {name}: {spread(values)}")
        print(f"{path}", flush=True)


def spread(values: list[float]) -> str:
    """Median and, in brackets, lowest to highest."""
    if len(values) == 1:
        return short(values[0])
    return f"{short(statistics.median(values))} ({short(min(values))} to {short(max(values))})"


def short(value: float) -> str:
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def commit() -> str:
    """The commit that was measured, with "+" when the sources differ from it."""
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False).stdout
    name = git("rev-parse", "--short=12", "HEAD").strip() or "unknown"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":!benchmarks/results").strip()
    return name + "+" if changed else name


def machine() -> dict[str, Any]:
    processor = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    memory = next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()
                  if line.startswith("MemTotal"))
    return {"processor": processor or platform.processor(), "architecture": platform.machine(),
            "cpus": len(os.sched_getaffinity(0)), "memory_mib": memory // 1024, "kernel": platform.release(),
            "virtual": "hypervisor" in Path("/proc/cpuinfo").read_text(), "python": platform.python_version(),
            "load_before": os.getloadavg()[0]}


def compiled(name: str) -> Path:
    """The program made of native/NAME.c, compiled when it is older than its source."""
    source, program = HERE / "native" / f"{name}.c", BUILT / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        BUILT.mkdir(parents=True, exist_ok=True)
        fresh = program.with_name(f"{name}.{os.getpid()}")
        done = subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", str(fresh), str(source), "-lpthread"],
                              capture_output=True, text=True, check=False)
        if done.returncode:
            raise Problem(f"{source} does not compile: {done.stderr.strip()}")
        fresh.rename(program)
    return program


def need_root() -> None:
    if os.geteuid() != 0:
        raise Problem("needs root for its network namespaces: run it with sudo")


def made_up_names(count: int) -> str:
    """The text of a list of so many names, none of which any traffic here asks for."""
    return "".join(f"host{number}.blocked-{number % 997}.test\n" for number in range(count))
