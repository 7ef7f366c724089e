"""How many cores and how much memory the filter takes at a rate, from what was measured: arithmetic, nothing is run.

    python3 benchmarks/sizing.py [--gbit N...] [--kilobytes N] [--kernel judge|carry] [--headroom N] [--cores N]

In: a rate, what traffic is assumed to be (MIX, and the bytes that a watched connection carries), costs from the JSON
files beside report.md, and those of docs/benchmarks.md that no file has (each with the row that it is from). Out: the
assumptions, each cost, and a row for each rate, as Markdown. Never here: a cost that was not measured. What is not
measured is said in docs/fleet.md: everything here grows as the rate does, and nobody has seen that it would.
"""

import argparse
import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"

# Assumed: what watched connections are, in percent.
MIX = {"TLS, hello in one segment": 20, "TLS, hello in two segments": 40, "QUIC": 35, "HTTP": 5}
REQUESTS = 4                    # assumed: of an HTTP connection
LASTS = 120                     # seconds that a worker remembers a connection: limits.idle
FLOW_BYTES = 1000               # docs/limits.md, limits.memory: about 1 kB a flow
MARKS = 1_048_576               # docs/stage1.md: flows that 143 MB of the kernel's memory hold
MARKS_MB, STAGE_MB, STAGE_MORE_MB = 143, 185, 115       # docs/known-limits.md: marks; one worker, each further one
STAGE_FLOWS = 262_144           # limits.flows of each of them then

# docs/benchmarks.md, "The box today": connections or requests for the same processor time as without a filter, and a
# connection's or request's own time in the daemon in microseconds.
SHARE = {"judge": {"TLS, hello in one segment": 0.75, "TLS, hello in two segments": 0.75, "request": 0.45},
         "carry": {"TLS, hello in one segment": 0.76, "TLS, hello in two segments": 0.79, "request": 0.71}}
OWN = {"judge": {"TLS, hello in one segment": 6.3, "TLS, hello in two segments": 7.0, "QUIC": 11.0, "request": 8.4},
       "carry": {"TLS, hello in one segment": 5.9, "TLS, hello in two segments": 6.2, "QUIC": 10.0, "request": 0.98}}
QUIC = 40.0 - 24.6              # the same table: a QUIC connection with and without the filter, in microseconds
CASES = {"judge": "both stages", "carry": "shortcut"}   # what box-by-rate.json calls them


@dataclass(frozen=True)
class Costs:
    """What the filter takes beside forwarding: `each` in µs of a core for a connection or request, `own` the part of
    it that is the daemon's, `gigabyte` in seconds of a core for a GB of 1500-byte segments."""

    each: dict[str, float]
    own: dict[str, float]
    gigabyte: float
    gigabyte_least: float
    gigabyte_most: float


@dataclass(frozen=True)
class Need:
    """What a rate needs. Cores are busy ones, without headroom."""

    connections: float          # a second
    packets_cores: float        # what data costs beside forwarding
    names_cores: float          # what connections and requests cost, in the kernel and in the daemon
    daemon_cores: float         # the daemon's part of that: workers, each of which is one core at most
    flows: float                # that workers remember together
    flow_megabytes: float

    @property
    def cores(self) -> float:
        return self.packets_cores + self.names_cores


def samples(name: str) -> dict[str, dict[str, list[float]]]:
    read: dict[str, dict[str, list[float]]] = json.loads((RESULTS / f"{name}.json").read_text())["samples"]
    return read


def costs(kernel: str) -> Costs:
    """From the files and tables, for `kernel` as [ruleset] has it."""
    box, case = samples("box-by-rate"), CASES[kernel]
    connection = "connections, no filter"
    bare = {"TLS, hello in one segment": connection, "TLS, hello in two segments": connection,
            "request": "requests, no filter"}
    each = {what: 1000 * statistics.median(box[row]["cpu_ms_each"]) * (1 / SHARE[kernel][what] - 1)
            for what, row in bare.items()}
    # Round by round: the cases took turns.
    more = [with_it - without for with_it, without in zip(
        box[f"bulk, wire, {case}"]["cpu_s_per_gb"], box["bulk, wire, no filter"]["cpu_s_per_gb"], strict=True)]
    return Costs(each | {"QUIC": QUIC}, OWN[kernel], max(0.0, statistics.median(more)), min(more), max(more))


def per_connection(table: dict[str, float]) -> float:
    """µs of a connection of the mix."""
    return sum(share / 100 * (REQUESTS * table["request"] if what == "HTTP" else table[what])
               for what, share in MIX.items())


def need(gbit: float, kilobytes: float, found: Costs) -> Need:
    """At a rate, where a watched connection carries so much. All of it is proportional to the rate."""
    connections = gbit * 1e9 / 8 / (kilobytes * 1e3)
    flows = connections * LASTS
    return Need(connections, gbit / 8 * found.gigabyte, connections * per_connection(found.each) / 1e6,
                connections * per_connection(found.own) / 1e6, flows, flows * FLOW_BYTES / 1e6)


def stage_megabytes(workers: int, kernel: str, flows: float) -> float:
    """What the first stage takes of the kernel's memory on a box, if more flows take what a further worker's take."""
    marks = math.ceil(flows / MARKS) * MARKS_MB if kernel == "carry" else 0
    return STAGE_MB + (max(workers, math.ceil(flows / STAGE_FLOWS)) - 1) * STAGE_MORE_MB + marks


def said(value: float) -> str:
    """Two significant digits: the costs have no more."""
    if value == 0:
        return "0"
    digits = 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, digits):,.{max(digits, 0)}f}"


def table(rates: list[float], kilobytes: float, kernel: str, headroom: float, cores: int) -> str:
    """All of it as Markdown."""
    found = costs(kernel)
    lines = [f'| `kernel = "{kernel}"` | µs of a core beside forwarding | of it the daemon\'s own |', "|---|---|---|"]
    lines += [f"| {what} | {said(found.each[what])} | {said(found.own[what])} |" for what in found.each]
    lines += [f"| a connection of the mix | {said(per_connection(found.each))} | {said(per_connection(found.own))} |",
              f"| a GB of 1500-byte segments | {said(found.gigabyte * 1e6)} ({said(found.gigabyte_least * 1e6)} to "
              f"{said(found.gigabyte_most * 1e6)}) | 0 |", ""]
    lines += [f"| Gbit/s | connections/s | cores for them | cores for data | cores × {headroom:g} | workers | flows "
              f"remembered | their memory, GB | first stage, GB | boxes of {cores} such cores, and one more |",
              "|---|---|---|---|---|---|---|---|---|---|"]
    for gbit in rates:
        one = need(gbit, kilobytes, found)
        workers = max(1, math.ceil(one.daemon_cores * headroom))
        boxes = math.ceil(one.cores * headroom / cores)
        on_each = math.ceil(workers / boxes)
        stage = boxes * stage_megabytes(on_each, kernel, one.flows / boxes)
        lines.append(f"| {gbit:g} | {said(one.connections)} | {said(one.names_cores)} | {said(one.packets_cores)} | "
                     f"{said(one.cores * headroom)} | {workers} | {said(one.flows)} | "
                     f"{said(one.flow_megabytes / 1e3)} | {said(stage / 1e3)} | {boxes} + 1 |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gbit", type=float, nargs="+", default=[10, 100, 400])
    parser.add_argument("--kilobytes", type=float, default=100, help="that a watched connection carries")
    parser.add_argument("--kernel", choices=CASES, default="judge")
    parser.add_argument("--headroom", type=float, default=2, help="times the rate that there is to be room for")
    parser.add_argument("--cores", type=int, default=32, help="of a box, for the filter alone")
    asked = parser.parse_args()
    print(table(asked.gbit, asked.kilobytes, asked.kernel, asked.headroom, asked.cores))


if __name__ == "__main__":
    main()
