"""`make bench`: every benchmark after the other, then plots and report.

    .venv/bin/python benchmarks/all.py [--quick] [--output DIR] [NAME...]

In: which benchmarks (all). Out: one JSON file each, plots and report.md in benchmarks/results, with --quick in its
folder quick. One that fails or takes too long is named in the report, and the others still run; the exit status is 1
then.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import harness
import report

LIMIT, LIMITS = 400.0, {"box": 1800.0}         # seconds for one of them
# What runs, in this order. Those that print JSON lines, and write no file of their own, are told how much to do.
OWN_FILE = ("engine", "quic", "floods", "nfqueue", "box", "scale")
LINES = {"clients": (["1000000", "1000000"], ["10000", "10000"]),
         "rules": (["10000", "1000000", "10000000"], ["--quick"]),      # words in full, and for a first look
         "stage1": ([], ["--entries", "10000"])}


def words(name: str, quick: bool, folder: Path) -> list[str]:
    if name in ("rules", "clients"):        # it compiles a part of itself, as a part of the package
        return [sys.executable, "-m", f"benchmarks.{name}", *LINES[name][quick]]
    if name in LINES:
        return [sys.executable, str(harness.HERE / f"{name}.py"), *LINES[name][quick]]
    return [sys.executable, str(harness.HERE / f"{name}.py"), "--output", str(folder), *["--quick"] * quick]


def keep_lines(name: str, quick: bool, text: str, folder: Path, seconds: float) -> None:
    """The file of a benchmark that printed a JSON object a line."""
    rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    record = {"benchmark": name, "quick": quick, "commit": harness.commit(), "machine": harness.machine(),
              "seconds": round(seconds, 1), "rows": rows, "text": [] if rows else text.splitlines()}
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def run(name: str, quick: bool, folder: Path) -> str:
    """Runs one; returns what went wrong, or nothing."""
    began, limit = time.monotonic(), LIMITS.get(name, LIMIT)
    process = subprocess.Popen(words(name, quick, folder), cwd=harness.ROOT, stdout=subprocess.PIPE, text=True)
    problem = ""
    try:
        text, _ = process.communicate(timeout=limit)
        if process.returncode:
            problem = f"ended with status {process.returncode}"
    except subprocess.TimeoutExpired:
        problem = f"was stopped after {limit:.0f} s"
        process.send_signal(signal.SIGINT)      # it removes its namespaces then
        try:
            text, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            text, _ = process.communicate()
    if name in LINES and text.strip():          # what it had printed by then
        keep_lines(name, quick, text, folder, time.monotonic() - began)
    return problem


def main() -> None:
    parser = harness.options(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join((*OWN_FILE, *LINES))}")
    chosen = parser.parse_args()
    harness.need_root()
    folder = chosen.output or (harness.RESULTS / "quick" if chosen.quick else harness.RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    there = [name for name in (*OWN_FILE, *LINES) if (harness.HERE / f"{name}.py").exists()]
    unknown = sorted(set(chosen.names) - set(there))
    if unknown:
        raise harness.Problem(f"no benchmark {', '.join(unknown)}: there are {', '.join(there)}")
    failed = {}
    for name in chosen.names or there:
        print(f"== {name}", file=sys.stderr, flush=True)
        (folder / f"{name}.json").unlink(missing_ok=True)
        if problem := run(name, chosen.quick, folder):
            failed[name] = problem
            print(f"   {name} {problem}", file=sys.stderr, flush=True)
    print(f"== report: {report.write(folder, failed)}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    harness.main(main)
