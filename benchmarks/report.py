"""Plots and report.md from the files of a run.

    .venv/bin/python benchmarks/report.py [DIR]        benchmarks/results when none is given

In: the JSON files that the benchmarks wrote. Out: beside them the plots (plots.py) as SVG and PNG, and report.md with
every figure as median (lowest to highest). Never: a figure that is in none of the files.
"""

import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import harness
import plots
from colours import READERS
from harness import short, spread
from plots import Record, Samples, middle, paired, pyplot

WHATS = ("hellos", "hellos, not forwarded", "mixed")        # of nfqueue.py


class Report:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []

    def say(self, *lines: str) -> None:
        self.lines += lines

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        self.say("", "| " + " | ".join(head) + " |", "|" + "---|" * len(head),
                 *("| " + " | ".join(row) + " |" for row in rows), "")

    def plot(self, figure: Any, name: str, what: str) -> None:
        """`name` says what it shows, for who finds the file alone."""
        for kind, more in (("svg", {"metadata": {"Date": None}}), ("png", {})):
            figure.savefig(self.folder / f"{name}.{kind}", **more)
        pyplot.close(figure)
        self.say("", f"![{what}]({name}.svg)", "")


def cell(samples: Samples, case: str, figure: str) -> str:
    return spread(samples[case][figure]) if figure in samples.get(case, {}) else ""


# ---- what was to be reached: benchmark, case, figure (as a ratio to another case, if one is named), what, goal

GOALS = (
    ("engine", "mixed traffic", "packets_per_s", "", "engine, mixed traffic, packets/s", ">=", 1.5e6),
    ("engine", "ClientHello, first seen of its flow", "packets_per_s", "", "engine, ClientHellos/s", ">=", 7e5),
    ("engine", "QUIC Initial", "packets_per_s", "", "engine, QUIC Initials/s", ">=", 1.5e5),
    ("nfqueue", "emptying, hellos, ours", "user_us", "", "queue, user µs a ClientHello", "<=", 1.5),
    ("nfqueue", "emptying, mixed, ours", "user_us", "", "queue, user µs a packet of the mix", "<=", 1.5),
    ("nfqueue", "emptying, hellos, ours", "packets_per_s", "emptying, hellos, many",
     "queue, every packet a ClientHello, of the bare loop", ">=", 0.9),
    ("box", "bulk, wire, queue", "gbit_per_s", "bulk, wire, no filter", "bulk TCP, filter / none", ">=", 0.97),
    ("box", "bulk, offload, queue", "gbit_per_s", "bulk, offload, no filter", "the same, offloads on", ">=", 0.97),
    ("box", "bulk, wire, shortcut", "gbit_per_s", "bulk, wire, no filter", "bulk TCP with the shortcut / none",
     ">=", 0.97),
    ("box", "bulk, offload, shortcut", "gbit_per_s", "bulk, offload, no filter", "the same, offloads on", ">=", 0.97),
    ("box", "connections, queue", "per_s", "connections, no filter", "new TLS connections, filter / none", ">=", 0.9),
    ("box", "connections, queue", "per_s", "connections, tracking", "the same, filter / tracking alone", ">=", 0.9),
    ("box", "connections, both stages", "per_s", "connections, no filter",
     "new TLS connections, both stages / none", ">=", 0.98),
    ("box", "connections, both stages", "per_s", "connections, tracking",
     "the same, both stages / tracking alone", ">=", 0.98),
)


def goals(report: Report, records: Mapping[str, Record]) -> None:
    rows = []
    for benchmark, case, figure, base, what, sense, goal in GOALS:
        samples = records.get(benchmark, {}).get("samples", {})
        if case not in samples or base and base not in samples:
            continue
        values = paired(samples, case, base, figure) if base else samples[case][figure]
        got = statistics.median(values)
        reached = got >= goal if sense == ">=" else got <= goal
        least = "at least" if sense == ">=" else "at most"
        rows.append([what, f"{least} {short(goal)}", spread(values), "yes" if reached else "**no**"])
    if rows:
        report.say("## Goals and what was reached")
        report.table(["", "goal", "measured", "reached"], rows)


# ---- one function a benchmark


def engine(report: Report, record: Record) -> None:
    samples = record["samples"]
    settings = record["settings"]
    report.say("## Engine alone, one core", "", f"{settings['names']:,} names, none asked for. {settings['traffic']}")
    report.table(["", "per second", "ns each"], [
        [case, cell(samples, case, "packets_per_s"), cell(samples, case, "ns_per_packet")] for case in samples])
    goals = {case: goal for benchmark, case, *_, goal in GOALS if benchmark == "engine"}
    report.plot(plots.engine(record, goals), f"{record['benchmark']}-ns-by-kind-of-packet",
                "nanoseconds a packet by kind")


def quic(report: Report, record: Record) -> None:
    samples = record["samples"]
    report.say("## QUIC Initials, the reader alone")
    report.table(["", "µs each", "per second"],
                 [[case, cell(samples, case, "us"), cell(samples, case, "per_s")] for case in samples])


def nfqueue(report: Report, record: Record) -> None:
    samples, settings = record["samples"], record["settings"]
    readers = tuple(READERS)
    report.say("## The queue, one core", "",
               "`one` and `many` are bare accept-all loops in C (a packet, or up to 32, in a system call), `stock` "
               "is netfilterqueue's own loop in Python, `ours` the reader with the whole engine and a full flow "
               "table.", "",
               f"Emptying a queue of {settings['packets']:,} packets:")
    report.table(["traffic", "reader", "packets/s", "user µs a packet", "system µs a packet"], [
        [what, kind, *(cell(samples, f"emptying, {what}, {kind}", figure)
                       for figure in ("packets_per_s", "user_us", "system_us"))]
        for what in WHATS for kind in readers if f"emptying, {what}, {kind}" in samples])
    for what in WHATS:
        case = f"emptying, {what}, ours / many"
        if case in samples:
            report.say(f"- {what}: ours / many, by wall clock {cell(samples, case, 'ratio')}, "
                       f"by processor time {cell(samples, case, 'cpu_ratio')}")
    rates = [rate // 1000 for rate in settings["rates"]]
    if f"offered, hellos, ours, {rates[0]}" not in samples:
        return
    rows = []
    for kind in readers:
        cases = [f"offered, hellos, {kind}, {rate}" for rate in rates]
        cases.sort(key=lambda case: middle(samples, case, "offered_per_s"))
        clean = [middle(samples, case, "taken_per_s") for case in cases
                 if middle(samples, case, "lost_percent") < 0.1]
        rows.append([kind, short(max(clean, default=0.0)),
                     short(max(middle(samples, case, "taken_per_s") for case in cases)),
                     cell(samples, cases[-1], "lost_percent"), cell(samples, cases[-1], "offered_per_s")])
    report.say("", "Offered load, every packet a ClientHello of a new flow:")
    report.table(["reader", "most without loss (< 0.1 %), packets/s", "most at all, packets/s",
                  "lost at the highest load, %", "highest load, packets/s"], rows)
    [goal] = [goal for _, case, figure, *_, goal in GOALS if (case, figure) == ("emptying, hellos, ours", "user_us")]
    report.plot(plots.nfqueue(record, rates, goal), "queue-taken-and-cost-by-offered-load",
                "packets taken against packets offered, and what each cost")


def box(report: Report, record: Record) -> None:
    samples, settings = record["samples"], record["settings"]
    ways = list(dict.fromkeys(case.partition(", ")[2] for case in samples if case.startswith("connections, ")))
    ways = ways or list(dict.fromkeys(case.rpartition(", ")[2] for case in samples))
    report.say("## The box", "", "The ratio stands behind each figure: to the box without a filter, round by round.")
    parts = (("bulk, wire", "gbit_per_s", "bulk TCP, 1500-byte segments, Gbit/s"),
             ("bulk, offload", "gbit_per_s", "bulk TCP, offloads on, Gbit/s"),
             ("connections", "per_s", "new TLS connections/s"), ("requests", "per_s", "HTTP requests/s, kept"),
             ("replay", "forwarded_per_s", "replay of the mix, packets/s"))
    there = [(part, figure, what) for part, figure, what in parts if f"{part}, no filter" in samples]

    def with_ratio(part: str, way: str, figure: str) -> str:
        case = f"{part}, {way}"
        if case not in samples:
            return ""
        text = cell(samples, case, figure)
        if way != "no filter":
            text += f"; **{statistics.median(paired(samples, case, f'{part}, no filter', figure)):.2f}**"
        return text

    report.table(["", *ways], [[what, *(with_ratio(part, way, figure) for way in ways)]
                               for part, figure, what in there])
    costs = (("bulk, wire", "cpu_s_per_gb", "CPU s a GB, 1500-byte segments"),
             ("bulk, offload", "cpu_s_per_gb", "CPU s a GB, offloads on"),
             ("connections", "cpu_ms_each", "CPU s a thousand connections"),
             ("requests", "cpu_ms_each", "CPU s a thousand requests"))
    report.say("Processor time of the whole machine, client and server included:")
    report.table(["", *ways], [[what, *(cell(samples, f"{part}, {way}", figure) for way in ways)]
                               for part, figure, what in costs if f"{part}, no filter" in samples])
    if "latency, no filter" in samples:
        report.say(f"Latency of a connection, from connect to the whole answer, at {settings['latency_rate']:,} "
                   "connections/s:")
        report.table(["µs", *ways], [
            [what, *(cell(samples, f"latency, {way}", figure) for way in ways)]
            for what, figure in (("median", "p50_us"), ("99th", "p99_us"), ("99.9th", "p999_us"))])
    report.say("Verdicts, over all rounds:")
    rows = []
    for part in ("connections", "requests", "latency"):
        for way in ways:
            if f"{part}, {way}" in samples:
                total = {figure: sum(values) for figure, values in samples[f"{part}, {way}"].items()}
                rows.append([part, way, f"{total['listed']:,.0f}", f"{total['let_through']:,.0f}",
                             f"{total['others']:,.0f}", f"{total['harmed']:,.0f}"])
    report.table(["", "", "listed", "of them let through", "others", "of them harmed"], rows)
    if any(case.startswith("replay, ") for case in samples):
        report.say("Replay: what came out, and what passed unread because the queue was full "
                   "(`overload = \"open\"`):")
        report.table(["", "offered/s", "lost, %", "unread, %"], [
            [way, *(cell(samples, f"replay, {way}", figure)
                    for figure in ("offered_per_s", "lost_percent", "unread_percent"))]
            for way in ways if f"replay, {way}" in samples])
    if there:
        goals = {tuple(case.rsplit(", ", 1)): goal for benchmark, case, _, base, *_, goal in GOALS
                 if benchmark == "box" and base.endswith(", no filter")}
        report.plot(plots.box(record, ways, there, goals), "box-throughput-as-share-of-forwarding",
                    "throughput of each way, as a share of forwarding alone")


def scale(report: Report, record: Record) -> None:
    samples = record["samples"]
    report.say("## How cost grows")
    groups: dict[str, list[tuple[float, str]]] = {}
    for case in samples:
        group, _, size = case.rpartition(", ")
        groups.setdefault(group, []).append((float(size), case))
    figures = {"ns_per_packet": "ns a packet", "per_s": "connections/s", "packets_per_s": "packets/s"}
    report.table(["", "", *figures.values()], [
        [group, f"{size:,.0f}", *(cell(samples, case, figure) for figure in figures)]
        for group, cases in groups.items() for size, case in sorted(cases)])
    for cases in groups.values():
        cases.sort()
    report.plot(plots.scale(record, groups), "cost-by-workers-flows-and-names",
                "cost against names, flows and workers")


def lines(report: Report, record: Record) -> None:
    """A benchmark without a section of its own: its samples, or the JSON lines or the text that it printed."""
    report.say(f"## {record['benchmark'].capitalize()}")
    samples = record.get("samples", {})
    if samples:
        figures = list(dict.fromkeys(figure for case in samples.values() for figure in case))
        report.table(["", *(figure.replace("_", " ") for figure in figures)],
                     [[case.replace("_", " "), *(cell(samples, case, figure) for figure in figures)]
                      for case in samples])
        return
    rows = record["rows"]
    if not rows:
        report.say("", "```", *record["text"], "```", "")
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    report.table([name.replace("_", " ") for name in names],
                 [[plain(row.get(name, "")) for name in names] for row in rows])


def plain(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(plain(one) for one in value)
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


PARTS = {"engine": engine, "engine-capture": engine, "quic": quic, "nfqueue": nfqueue, "box": box, "scale": scale}


def write(folder: Path, failed: Mapping[str, str] | None = None) -> Path:
    """The report of the files in `folder`; `failed` are benchmarks that gave none, and why."""
    report = Report(folder)
    order = [*PARTS, "stage1", "rules", "floods"]
    found = sorted((path for path in folder.glob("*.json")),
                   key=lambda path: order.index(path.stem) if path.stem in order else len(order))
    records = [json.loads(path.read_text()) for path in found]
    report.say("# What was measured", "",
               "Made by `make bench` from the JSON files beside it, which hold every sample; docs/benchmarks.md says "
               "how each figure comes about. A figure is the median, in brackets the lowest and the highest.", "")
    for name, problem in (failed or {}).items():
        report.say(f"- **{name} {problem}**: not all of its figures are here.")
    for machine in {json.dumps(about(record)) for record in records}:
        report.say(*(f"- {key}: {value}" for key, value in json.loads(machine).items()))
    loads = [record["machine"]["load_before"] for record in records]
    if loads:
        report.say(f"- load average when each began: {', '.join(f'{load:.1f}' for load in loads)} "
                   "(what ran before counts, too)")
    report.say("")
    goals(report, {record["benchmark"]: record for record in records})
    for record in records:
        try:
            PARTS.get(record["benchmark"], lines)(report, record)
        except (KeyError, statistics.StatisticsError):      # of a run that was stopped
            report.say("", "**The file is not whole; what is missing is not shown.**", "")
        for note in record.get("notes", ()):
            report.say(f"- {note}")
        report.say(f"- took {record['seconds']:.0f} s", "")
    path = folder / "report.md"
    path.write_text("\n".join(report.lines).replace("\n\n\n", "\n\n").rstrip() + "\n")
    return path


def about(record: Record) -> dict[str, Any]:
    machine = record["machine"]
    return {"machine": f"{machine['processor']}, {machine['cpus']} CPUs, {machine['memory_mib']:,} MiB"
                       + (", a virtual machine" if machine["virtual"] else ""),
            "kernel": f"Linux {machine['kernel']}, Python {machine['python']}",
            "commit": record["commit"] + (" (a first look, with few rounds)" if record["quick"] else "")}


if __name__ == "__main__":
    print(write(Path(sys.argv[1]) if len(sys.argv) > 1 else harness.RESULTS))
