"""The plots of a report: from a record of samples to a figure that says by itself what it shows.

In: one benchmark's record, and what was to be reached. Out: figures with title, units, the lowest and the highest of
each median, and goals; where and on what they were measured stands beneath. Never here: a figure that is in no file.
"""

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import slices
from colours import GOAL, OURS, READERS, WAYS, Look

matplotlib.use("Agg")
from matplotlib import pyplot

Record = dict[str, Any]
Samples = Mapping[str, Mapping[str, list[float]]]

matplotlib.rcParams.update({
    "svg.fonttype": "none", "svg.hashsalt": "edgeblock", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.alpha": 0.3, "figure.dpi": 110,
    "legend.frameon": False, "axes.titlesize": 9, "hatch.linewidth": 0.5})
ERRORS = {"elinewidth": 0.8, "capsize": 2}


def middle(samples: Samples, case: str, figure: str) -> float:
    return statistics.median(samples[case][figure])


def bars(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """How far the lowest and the highest are from the median, for error bars."""
    return [[statistics.median(row) - min(row) for row in rows], [max(row) - statistics.median(row) for row in rows]]


def paired(samples: Samples, case: str, base: str, figure: str) -> list[float]:
    """Ratios of two cases that took turns, round by round."""
    return [a / b for a, b in zip(samples[case][figure], samples[base][figure], strict=False) if b]


def described(figure: Any, title: str, record: Record, room: float = 0.0,
              bars: str = "from the lowest to the highest") -> Any:
    """With a title over all, and beneath how often, on what and when it was measured. `room` is left for a legend
    above that, as a share of the height."""
    machine = record["machine"]
    figure.suptitle(title, fontsize=11)
    text = (f"{record['settings']['rounds']} rounds, bars {bars}. "
            f"{machine['cpus']} CPUs, {machine['processor']}{', virtual' if machine['virtual'] else ''}, "
            f"Linux {machine['kernel']}; commit {record['commit']}, {record['date'][:10]}")
    figure.supxlabel("\n".join(textwrap.wrap(text, int(figure.get_figwidth() * 17))), fontsize=7)
    figure.tight_layout(rect=(0, room, 1, 1))
    return figure


def engine(record: Record, goals: Mapping[str, float]) -> Any:
    """Nanoseconds of each kind of packet; `goals` in packets/s by kind."""
    samples = record["samples"]
    cases = list(samples)[::-1]
    figure, axes = pyplot.subplots(figsize=(7.5, 0.32 * len(samples) + 1.8))
    rows = [samples[case]["ns_per_packet"] for case in cases]
    axes.barh(cases, list(map(statistics.median, rows)), color=OURS, xerr=bars(rows), error_kw=ERRORS)
    for number, case in enumerate(cases):
        if case in goals:
            axes.plot([1e9 / goals[case]] * 2, [number - 0.5, number + 0.5], color=GOAL, lw=2)
    axes.plot([], [], color=GOAL, lw=2, label="goal: no more")
    axes.legend(loc="center right")
    axes.set_xlabel("ns a packet, one core")
    return described(figure, "What the engine alone needs for a packet, by kind", record)


def nfqueue(record: Record, rates: Sequence[int], goal: float) -> Any:
    """Packets taken and their cost by what was offered; beside it what a packet of a full queue costs user mode."""
    samples = record["samples"]
    figure, (left, centre, right) = pyplot.subplots(1, 3, figsize=(11, 4.2), width_ratios=(3, 3, 2))
    for kind, look in READERS.items():
        cases = [f"offered, hellos, {kind}, {rate}" for rate in rates]
        cases.sort(key=lambda case: middle(samples, case, "offered_per_s"))
        offered = [middle(samples, case, "offered_per_s") / 1e3 for case in cases]
        taken = [[value / 1e3 for value in samples[case]["taken_per_s"]] for case in cases]
        spent = [[a + b for a, b in zip(samples[case]["user_us"], samples[case]["system_us"], strict=True)]
                 for case in cases]
        for axes, rows in ((left, taken), (centre, spent)):
            axes.errorbar(offered, list(map(statistics.median, rows)), yerr=bars(rows), marker=look.marker, ms=4,
                          color=look.colour, label=look.name, elinewidth=0.8, capsize=2)
    left.plot(left.get_xlim(), left.get_xlim(), ":", color=GOAL, lw=1, label="all that is offered")
    left.set(xlabel="offered, thousand packets/s", ylabel="taken, thousand packets/s",
             title="Packets read of those sent")
    centre.set(xlabel="offered, thousand packets/s", ylabel="µs a packet, user and system",
                   title="Reader's processor time", ylim=(0, None))
    rows = [samples[f"emptying, hellos, {kind}"]["user_us"] for kind in READERS]
    for place, (row, look) in enumerate(zip(rows, READERS.values(), strict=True)):
        right.bar(place, statistics.median(row), color=look.colour, hatch=look.hatch, edgecolor="white",
                  yerr=bars([row]), error_kw=ERRORS)
    right.axhline(goal, color=GOAL, lw=2)
    right.annotate("goal for edgeblock: no more", (-0.4, goal), xytext=(0, 3), textcoords="offset points", fontsize=7)
    right.set_xticks([])
    right.set(ylabel="µs a packet, user mode alone", title="Emptying a full queue")
    figure.legend(*left.get_legend_handles_labels(), loc="lower center", ncols=5, fontsize=8,
                  bbox_to_anchor=(0.5, 0.05))
    return described(figure, "One core that reads a queue, every packet the ClientHello of a new connection", record,
                     0.08)


def box(record: Record, loads: Sequence[str]) -> Any:
    """How much of each load a box does for the processor time that one without a filter takes for it."""
    samples, cases = record["samples"], [case for case in record["cases"] if case != "no filter"]
    figure, axes = pyplot.subplots(figsize=(12, 4.8))
    width = 0.84 / len(cases)
    for number, case in enumerate(cases):
        look = WAYS.get(case, Look(case, GOAL))
        for group, what in enumerate(loads):
            if f"{what}, {case}" not in samples:
                continue
            got = slices.share(samples[f"{what}, no filter"]["cpu_us"], samples[f"{what}, {case}"]["cpu_us"])
            axes.bar(group + number * width, got.middle, width, color=look.colour, hatch=look.hatch,
                     edgecolor="white", lw=0.3, label=look.name if group == 0 else None, error_kw=ERRORS,
                     yerr=[[got.middle - got.low], [got.high - got.middle]])
    axes.axhline(1.0, color=GOAL, lw=1.5)
    axes.set_xticks([place + 0.42 - width / 2 for place in range(len(loads))],
                    [what.removesuffix(", IPv4").replace(", ", ",\n") for what in loads], fontsize=8)
    axes.set_ylabel("for the same processor time, of no filter")
    axes.grid(axis="x", visible=False)
    axes.legend(fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return described(figure, "Work for the same processor time, client and server included, over IPv4", record,
                     bars="the interval of 95 of 100 resamplings")


GROWTH = {      # of scale.py: what stands above, along and beside
    "workers": ("New TLS connections", "workers", "per_s", "connections/s"),
    "flows": ("A packet of a flow that is known", "flows that are remembered", "ns_per_packet", "ns a packet"),
    "names": ("A ClientHello that is looked up", "names on the lists", "ns_per_packet", "ns a packet")}


def scale(record: Record, groups: Mapping[str, Sequence[tuple[float, str]]]) -> Any:
    """Cost by the number of workers, flows and names."""
    samples = record["samples"]
    figure, places = pyplot.subplots(1, len(groups), figsize=(3.4 * len(groups), 3.6), squeeze=False)
    for axes, (group, cases) in zip(places[0], groups.items(), strict=True):
        title, along, what, unit = GROWTH[group]
        sizes = [size for size, _ in cases]
        rows = [samples[case][what] for _, case in cases]
        axes.errorbar(sizes, list(map(statistics.median, rows)), yerr=bars(rows), color=OURS, marker="o", ms=4,
                      elinewidth=0.8, capsize=2)
        if sizes[-1] > 100:
            axes.set_xscale("log")
        else:
            axes.set_xticks(sizes)
        axes.set(ylim=(0, None), title=title, xlabel=along, ylabel=unit)
    return described(figure, "How cost grows", record)
