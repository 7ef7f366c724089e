"""Plots and report.md from the files of a run.

    .venv/bin/python benchmarks/report.py [DIR]        benchmarks/results when none is given

In: the JSON files that the benchmarks wrote. Out: beside them the plots (plots.py) as SVG and PNG, and report.md with
every figure as median (lowest to highest). Never: a figure that is in none of the files.
"""

import json
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import harness
import plots
import slices
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


# ---- what was to be reached


class Goal(NamedTuple):
    """`null` is what two boxes without a filter say of themselves."""

    what: str
    goal: float
    value: slices.Value
    null: slices.Value | None = None
    least: bool = True          # or it is the most

    @property
    def reached(self) -> bool:
        return self.value.middle >= self.goal if self.least else self.value.middle <= self.goal


def goals(report: Report, records: Mapping[str, Record]) -> None:
    wanted = [goal for part in (box_goals, peer_goals, engine_goals) for goal in part(records)]
    rows = [[goal.what, f"at {'least' if goal.least else 'most'} {short(goal.goal)}", str(goal.value),
             str(goal.null or ""), "yes" if goal.reached else "**no**"] for goal in wanted]
    if rows:
        report.say("## Goals and what was reached", "",
                   "Against the box without a filter in the same run; in brackets the interval. The null is the same "
                   "figure of a second box without a filter.")
        report.table(["", "goal", "measured", "null", "reached"], rows)


def edgeblock_cases(record: Record) -> list[str]:
    """Those that are ours, the cheapest for new connections first."""
    ours = [case for case in record["cases"] if case in record["settings"]["edgeblock"]]
    what = next(iter(record["loads"]))
    return sorted(ours, key=lambda case: slices.cost(record["samples"][f"{what}, {case}"]["cpu_us"]).middle)


def box_goals(records: Mapping[str, Record]) -> Iterator[Goal]:
    """Of one setting, the cheapest for new connections: none is taken for what another does better."""
    record = records.get("box", {})
    if not record.get("loads") or not (ours := edgeblock_cases(record)):
        return
    samples, case, null = record["samples"], ours[0], record["cases"][1]

    def goal(text: str, load: str, figure: str, of: Callable[..., slices.Value], wanted: float, least: bool) -> Goal:
        base = samples[f"{load}, no filter"][figure]
        return Goal(f"{text}, *{case}*", wanted, of(base, samples[f"{load}, {case}"][figure]),
                    of(base, samples[f"{load}, {null}"][figure]), least)

    for load, text, wanted in (("connections", "new TLS connections, whole hello", 1.0),
                               ("segments", "the same, hello in two segments", 1.0),
                               ("bulk", "bulk, 1448-byte segments", 1.05),
                               ("requests", "HTTP requests, kept connections", 0.95)):
        for family in ("IPv4", "IPv6"):
            if f"{load}, {family}, {case}" in samples:
                yield goal(f"{text}, {family}", f"{load}, {family}", "cpu_us", slices.share, wanted, True)
    for load, text, wanted in (("latency, TLS", "added median latency of TLS, µs", 1.0),
                               ("latency, HTTP", "the same of HTTP, µs", 2.0)):
        for family in ("IPv4", "IPv6"):
            if f"{load}, {family}, {case}" in samples:
                yield goal(f"{text}, {family}", f"{load}, {family}", "p50_us", slices.later, wanted, False)
    for load, text in (("quic", "one Initial"), ("quic, two Initials", "two Initials")):
        if f"{load}, IPv4, {case}" in samples:
            yield goal(f"QUIC connection, whole path, {text}, µs", f"{load}, IPv4", "cpu_us", slices.more, 6.0, False)


def peer_goals(records: Mapping[str, Record]) -> Iterator[Goal]:
    """Own processor time a connection, against the best of the filters that have processes."""
    record = records.get("box", {})
    if not record.get("loads") or not (ours := edgeblock_cases(record)):
        return
    load = "connections, IPv4"
    mine = record["samples"].get(f"{load}, {ours[0]}")
    peers = [record["samples"][f"{load}, {case}"]["own_us"] for case, facts in record["facts"].items()
             if facts and case not in record["settings"]["edgeblock"] and f"{load}, {case}" in record["samples"]]
    if mine and peers:
        best = min(peers, key=lambda values: slices.cost(values).middle)
        yield Goal(f"own CPU a TLS connection, how many times the best peer's is, *{ours[0]}*", 40.0,
                   slices.share(best, mine["own_us"]))


def engine_goals(records: Mapping[str, Record]) -> Iterator[Goal]:
    """Of the engine and the queue by themselves."""
    def values(benchmark: str, case: str, figure: str) -> list[float]:
        return records.get(benchmark, {}).get("samples", {}).get(case, {}).get(figure, [])

    for case, text, wanted in (("emptying, hellos, ours / many", "hellos", 0.8),
                               ("emptying, mixed, ours / many", "mix", 0.8)):
        if ratios := values("nfqueue", case, "cpu_ratio"):
            yield Goal(f"queue path against the bare receive-many loop, {text}, processor time", wanted,
                       slices.typical(ratios))
    if costs := values("engine", "ClientHello, first seen of its flow, table full", "ns_per_packet"):
        yield Goal("engine, a hello with a full table, ns", 500.0, slices.cost(costs), least=False)
    for group, text, sizes in (("flows", "10 thousand to 1 million flows", (10_000, 1_000_000)),
                               ("names", "10 thousand to 10 million names", (10_000, 10_000_000))):
        few, many = (values("scale", f"{group}, {size}", "ns_per_packet") for size in sizes)
        if few and many:
            yield Goal(f"growth from {text}, times", 1.1, slices.growth(few, many), least=False)
    for case, wanted in ENGINE_GOALS.items():
        if speeds := values("engine", case, "packets_per_s"):
            yield Goal(f"engine, {case}, packets/s", wanted, slices.typical(speeds))


ENGINE_GOALS = {"mixed traffic": 1.5e6, "ClientHello, first seen of its flow": 7e5, "QUIC Initial": 1.5e5}
USER_GOAL = 1.5         # µs of user time that the queue's reader may take for a ClientHello


# ---- one function a benchmark


def engine(report: Report, record: Record) -> None:
    samples = record["samples"]
    settings = record["settings"]
    report.say("## Engine alone, one core", "", f"{settings['names']:,} names, none asked for. {settings['traffic']}")
    report.table(["", "per second", "ns each"], [
        [case, cell(samples, case, "packets_per_s"), cell(samples, case, "ns_per_packet")] for case in samples])
    report.plot(plots.engine(record, ENGINE_GOALS), f"{record['benchmark']}-ns-by-kind-of-packet",
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
    report.plot(plots.nfqueue(record, rates, USER_GOAL), "queue-taken-and-cost-by-offered-load",
                "packets taken against packets offered, and what each cost")


def box(report: Report, record: Record) -> None:
    samples, cases = record["samples"], record["cases"]
    there = [what for what in record["loads"] if f"{what}, no filter" in samples]
    report.say("## The box", "",
               "Processor time of client, box and server together, in slices of fixed work that take turns: the mean "
               "of the cheaper half, in brackets the interval of 95 of 100 resamplings. *No filter, again* is a "
               "second box like the first: a ratio nearer to 1 than its interval is no finding.", "",
               "How many times as much is done for the same processor time as without a filter, above 1 is cheaper:")

    def each(of: Callable[[str, str], str], chosen: Sequence[str] = (), loads: Sequence[str] = ()) -> None:
        chosen = chosen or cases
        report.table(["", *chosen], [[what, *(of(what, case) if f"{what}, {case}" in samples else ""
                                              for case in chosen)] for what in loads or there])

    def against(of: Callable[..., slices.Value], figure: str, what: str, case: str) -> str:
        return str(of(samples[f"{what}, no filter"][figure], samples[f"{what}, {case}"][figure]))

    def cost(figure: str, what: str, case: str) -> str:
        return str(slices.cost(samples[f"{what}, {case}"][figure]))

    each(partial(against, slices.share, "cpu_us"), cases[1:])
    report.say("µs of processor time, of a connection, a request, a packet or a MB:")
    each(partial(cost, "cpu_us"))
    report.say("The same, how much more than without a filter:")
    each(partial(against, slices.more, "cpu_us"), cases[1:])
    filters = [case for case in cases if case in record["facts"] and record["facts"][case]]
    report.say("Of that, what the filter's own processes took, which is what filters are compared by:")
    each(partial(cost, "own_us"), filters)
    late = [what for what in there if "p50_us" in samples[f"{what}, no filter"]]
    if late:
        report.say("Median time from connect, or from the request, to the whole answer, one at a time, µs:")
        each(lambda what, case: short(middle(samples, f"{what}, {case}", "p50_us")), loads=late)
        report.say("How much later than without a filter:")
        each(partial(against, slices.later, "p50_us"), cases[1:], late)
    report.say("Verdicts: listed questions that were answered, others that were not; of the mix, packets that did "
               "not come out:")
    each(lambda what, case: "{let_through:,} of {listed:,}; {harmed:,} of {others:,}".format(
        **record["verdicts"][f"{what}, {case}"]))
    report.say("The filters themselves, with their list of names:")
    names = {"start_s": "ready after, s", "pss_mib": "memory (PSS) then, MiB", "pss_after_mib": "and at the end, MiB"}
    report.table(["", *filters], [[text, *(short(record["facts"][case].get(fact, 0)) for case in filters)]
                                  for fact, text in names.items()])
    if there:
        report.plot(plots.box(record, [what for what in there if what.endswith(", IPv4") or what == "mix"]),
                    "box-work-for-the-same-processor-time", "work for the same processor time, by case and load")


def rates(report: Report, record: Record) -> None:
    """What the box benchmark said when it told rates by wall clock."""
    samples = record["samples"]
    parts = (("bulk, wire", "gbit_per_s", "bulk TCP, 1500-byte segments"),
             ("bulk, offload", "gbit_per_s", "bulk TCP, offloads on"),
             ("connections", "per_s", "new TLS connections"), ("requests", "per_s", "HTTP requests, kept"),
             ("replay", "forwarded_per_s", "replay of the mix, of which no TCP was filtered"))
    ways = [case.partition(", ")[2] for case in samples if case.startswith("connections, ")]
    report.say("## The box, by wall clock, as it was measured before", "",
               f"Kept for one report, to be compared: commit {record['commit']}. Rates as shares of the box without "
               "a filter, median of the rounds with the lowest and the highest.")
    report.table(["", *ways[1:]], [
        [text, *(spread(paired(samples, f"{part}, {way}", f"{part}, no filter", figure)) for way in ways[1:])]
        for part, figure, text in parts])


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


PARTS = {"engine": engine, "engine-capture": engine, "quic": quic, "nfqueue": nfqueue, "box": box,
         "box-by-rate": rates, "scale": scale}


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
