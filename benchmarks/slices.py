"""Processor time of small slices of fixed work that take turns, and what may be said of them.

In: process ids; costs of slices, measured in turns. Out: nanoseconds; the mean of the cheaper half with the interval
of 95 of 100 resamplings (bootstrap), ratios and differences of two cases the same way. Other load only ever adds to a
slice, so the dearer half is left out. Never: a ratio of two runs; wall-clock time.
"""

import contextlib
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

RESAMPLINGS = 400
Case = TypeVar("Case")


class Value(NamedTuple):
    """A figure and its interval."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{short(self.middle)} ({short(self.low)} to {short(self.high)})"


def short(value: float) -> str:
    """Three digits, and no more than three behind the point: what the intervals here can bear."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


class Clocks:
    """The processor time of some processes together, whoever called them or interrupted them."""

    def __init__(self, pids: Iterable[int]) -> None:
        self.last = dict.fromkeys(pids, 0)

    def read(self) -> int:
        """Nanoseconds since they began; of one that has ended what was seen last."""
        for pid in self.last:
            with contextlib.suppress(OSError):          # the clock of another process, clock_getcpuclockid(3)
                self.last[pid] = time.clock_gettime_ns((~pid << 3) | 2)
        return sum(self.last.values())


def interrupts() -> Clocks:
    """The kernel's threads for what it could not do at once in the place of an interrupt."""
    return Clocks(int(path.parent.name) for path in Path("/proc").glob("[0-9]*/comm")
                  if read(path).startswith("ksoftirqd/"))


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:             # it has ended
        return ""


def memory(pids: Iterable[int]) -> float:
    """MiB that processes use, what they share counted once (PSS)."""
    kib = 0
    for pid in pids:
        for line in read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
            if line.startswith("Pss:"):
                kib += int(line.split()[1])
    return kib / 1024


def in_turn(cases: Sequence[Case], turns: int) -> Iterator[Case]:
    """Each case once a turn, in an order that changes, and none twice in a row: it would find the caches warm."""
    chance, order = random.Random(5), list(cases)
    for _ in range(turns):
        last = order[-1]
        chance.shuffle(order)
        if order[0] is last:
            order.append(order.pop(0))
        yield from order


def cheap(costs: Sequence[float]) -> float:
    """The mean of the cheaper half."""
    return statistics.fmean(sorted(costs)[:(len(costs) + 1) // 2])


def value(of: Callable[..., float], *cases: Sequence[float]) -> Value:
    """What `of` makes of the slices of cases that took turns: what was measured in one turn stays together."""
    count = min(map(len, cases))
    chance, turns = random.Random(7), range(count)
    drawn = sorted(of(*([case[turn] for turn in chosen] for case in cases))
                   for chosen in (chance.choices(turns, k=count) for _ in range(RESAMPLINGS)))
    edge = RESAMPLINGS // 40            # 2.5 percent
    return Value(of(*(case[:count] for case in cases)), drawn[edge], drawn[-edge - 1])


def cost(case: Sequence[float]) -> Value:
    return value(cheap, case)


def share(base: Sequence[float], case: Sequence[float]) -> Value:
    """How much of the work of `base` is done for the same processor time: above 1, `case` is the cheaper one."""
    return value(lambda a, b: cheap(a) / cheap(b), base, case)


def growth(base: Sequence[float], case: Sequence[float]) -> Value:
    """How many times as much `case` costs."""
    return share(case, base)


def more(base: Sequence[float], case: Sequence[float]) -> Value:
    return value(lambda a, b: cheap(b) - cheap(a), base, case)


def later(base: Sequence[float], case: Sequence[float]) -> Value:
    """The median of the differences of slices that were measured one after the other."""
    return value(lambda a, b: statistics.median(y - x for x, y in zip(a, b, strict=True)), base, case)


def typical(case: Sequence[float]) -> Value:
    """The median, for figures that are not better the lower they are."""
    return value(statistics.median, case)
