"""Keeps time for what is in force: which lists have windows that open or close, noticed within a quarter of a second.

In: the windows of the snapshot in force, and the wall clock, which may be set forwards or back. Out: the lists of
which a window has opened or closed, to whoever acts on it, and a line for each in the log. Workers and the kernel
have their own eye on the clock; this is for the rest. What a look costs depends on what has turned, not on how many
windows there are; where much has at once, what is left is looked at next time. Never here: an entry, or whether a
packet is judged.
"""

import asyncio
import math
import time
from array import array
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from heapq import heapify, heapreplace
from itertools import accumulate
from typing import Any, NamedTuple

from edgeblock.blocklist.snapshot import Snapshot
from edgeblock.blocklist.terms import ALWAYS, NEVER, Weekly, Window
from edgeblock.blocklist.timetable import Table

LOOKING = 0.25          # seconds between two looks at the clock: a step of it is noticed as soon
LOOK_MAX = 0.02         # seconds of one look at windows that repeat: the event loop stands still for them
SETTLING = 0.15         # seconds that workers may take to look at theirs
LINES = 100             # of the log in a minute; what is over is counted
MINUTE = 60.0


class Span(NamedTuple):
    """So many entries of a list, or the list itself (then 1), have this window."""

    name: str
    window: Window
    entries: int
    whole: bool = False         # the list itself


def spans_of(snapshot: Snapshot) -> Iterator[Span]:
    """All of what is in a snapshot: those of lists, and of entries."""
    for index, record in enumerate(snapshot.parts.lists):
        if record.expired:
            continue
        if record.window:
            yield Span(record.name, record.window, 1, whole=True)
        if index in snapshot.terms:
            for window, entries in Table(snapshot.terms[index]).windows().items():
                yield Span(record.name, window, entries)


class Turn(NamedTuple):
    """How many entries of a list have come into force and gone out of it by their own windows; `whole` is 1 where
    that of the list itself has opened, -1 where it has closed."""

    opened: int = 0
    closed: int = 0
    whole: int = 0


class Edges:
    """Moments at which so many of a list open, or close, in order."""

    def __init__(self, edges: list[tuple[int, int, int]]) -> None:
        edges.sort()
        self.times = array("q", (at for at, _, _ in edges))
        self.sums = array("Q", accumulate((count for _, _, count in edges), initial=0))
        self.places = array("I", (place for _, place, _ in edges))
        self.counts = array("I", (count for _, _, count in edges))

    def between(self, after: float, until: float) -> Counter[int]:
        """How many there are of each in (after, until]."""
        found: Counter[int] = Counter()
        for at in range(bisect_right(self.times, after), bisect_right(self.times, until)):
            found[self.places[at]] += self.counts[at]
        return found

    def total(self, after: float, until: float) -> int:
        """How many there are of all in (after, until]: whatever that is, at once."""
        return self.sums[bisect_right(self.times, until)] - self.sums[bisect_right(self.times, after)]

    def next(self, now: float) -> float | None:
        """The first of them after `now`."""
        return next(iter(self.times[(at := bisect_right(self.times, now)):at + 1]), None)


class Repeating:
    """Windows of one list that repeat alike, between begins and ends of their own."""

    def __init__(self, place: int, weekly: tuple[Weekly, ...], spans: list[Span]) -> None:
        self.place, self.window = place, Window(weekly=weekly)
        self.count = sum(span.entries for span in spans)
        self.seen = 0.0         # when it was looked at last
        self.begins = Edges([(span.window.begins, 0, span.entries) for span in spans if span.window.begins != ALWAYS])
        self.ends = Edges([(span.window.ends, 0, span.entries) for span in spans if span.window.ends != NEVER])

    def next(self, now: float) -> float:
        """When to look again: at the first moment after `now` when any of it may turn."""
        edges = [at for at in (self.window.next_change(now), self.begins.next(now), self.ends.next(now))
                 if at is not None]
        return min(edges, default=math.inf)

    def turned(self, before: float, now: float) -> tuple[int, int]:
        """How many have opened and closed between the two moments: did not hold and do, and the other way round."""
        held, holds = self.window.holds(before), self.window.holds(now)
        if held and holds:
            first, last = min(before, now), max(before, now)
            begun, ended = (some.total(first, last) for some in (self.begins, self.ends))
            return (begun, ended) if before < now else (ended, begun)
        return (self._alive(now) if holds else 0), (self._alive(before) if held else 0)

    def _alive(self, now: float) -> int:
        return self.count - self.begins.total(now, math.inf) - self.ends.total(-math.inf, now)


class Calendar:
    """All windows of a snapshot. Made in a thread: of 100 000 it takes a moment, and so does the first look at all
    that repeat, where it is said when they count from (`at`); else the first looks do that."""

    def __init__(self, spans: Iterable[Span], at: float | None = None) -> None:
        self.names: list[str] = []
        places: dict[tuple[str, bool], int] = {}
        self.whole: list[bool] = []
        opens, closes = [], []
        repeating: defaultdict[tuple[int, tuple[Weekly, ...]], list[Span]] = defaultdict(list)
        for span in spans:
            key = span.name, span.whole
            if key not in places:
                places[key] = len(self.names)
                self.names.append(span.name)
                self.whole.append(span.whole)
            place, window = places[key], span.window
            if window.weekly:
                repeating[place, tuple(window.weekly)].append(span)
                continue
            if window.begins != ALWAYS:
                opens.append((window.begins, place, span.entries))
            if window.ends != NEVER:
                closes.append((window.ends, place, span.entries))
        self.opens, self.closes = Edges(opens), Edges(closes)
        self.repeating = [Repeating(place, weekly, some) for (place, weekly), some in repeating.items()]
        self._known = at                # the last look
        self._due = self._all_due()     # when each that repeats is to be looked at
        if at is not None:
            for one in self.repeating:
                one.seen = at
            self._due = [(one.next(at), number) for number, one in enumerate(self.repeating)]
            heapify(self._due)

    def _all_due(self) -> list[tuple[float, int]]:
        return [(-math.inf, number) for number in range(len(self.repeating))]

    def look(self, before: float, now: float) -> dict[str, Turn]:
        """The lists of which something turned between the two, whichever is earlier; of those that repeat what there
        was time for, and what a look before this had none for."""
        if before == now:
            return {}
        first, last = min(before, now), max(before, now)
        opened, closed = self.opens.between(first, last), self.closes.between(first, last)
        if before > now:
            opened, closed = closed, opened
        if self._known is None:
            for one in self.repeating:
                one.seen = before
        elif now < self._known:             # the clock was set back
            self._due = self._all_due()
        self._known = now
        stop = time.thread_time() + LOOK_MAX
        while self._due and self._due[0][0] <= now:
            number = self._due[0][1]
            one = self.repeating[number]
            more = one.turned(one.seen, now)
            opened[one.place] += more[0]
            closed[one.place] += more[1]
            one.seen = now
            heapreplace(self._due, (one.next(now), number))
            if time.thread_time() >= stop:      # those that were due for longest have had their turn
                break
        turns: dict[str, Turn] = {}
        for place in sorted(opened.keys() | closed.keys()):
            came, went, turn = opened[place], closed[place], turns.get(self.names[place], Turn())
            if came or went:
                turns[self.names[place]] = turn._replace(whole=came - went) if self.whole[place] else \
                    turn._replace(opened=came, closed=went)
        return turns


class Windows:
    """Keeps time for the rules in force: `take` when they change, `keep` for as long as the daemon runs. `now` is in
    Unix seconds."""

    def __init__(self, log: Any, now: float) -> None:
        self._log = log
        self._calendar = Calendar(())
        self._before = now
        self._minute, self._said, self._over = 0.0, 0, 0

    def since(self, now: float) -> float:
        """From when on what comes into force now has to be followed: what is before that, was."""
        return min(self._before, now)

    def take(self, calendar: Calendar, since: float) -> None:
        """These windows count, and have since that moment."""
        self._calendar = calendar
        self._before = min(self._before, since)

    def look(self, now: float) -> dict[str, Turn]:
        """What has turned since the last look; said in the log. `now` is in Unix seconds."""
        turns = self._calendar.look(self._before, now)
        self._before = now
        self._say(turns)
        return turns

    async def keep(self, act: Callable[[dict[str, Turn]], Awaitable[None]]) -> None:
        """Until it is cancelled: whenever something has turned, and every worker has seen it, `act` is told of
        which lists."""
        while True:
            if turns := self.look(time.time()):
                await asyncio.sleep(SETTLING)
                await act(turns)
            await asyncio.sleep(LOOKING)

    def _say(self, turns: dict[str, Turn]) -> None:
        now = time.monotonic()
        if now >= self._minute + MINUTE:
            if self._over:
                self._log.info("more windows opened or closed", lists=self._over)
            self._minute, self._said, self._over = now, 0, 0
        for name, turn in turns.items():
            if self._said >= LINES:
                self._over += 1
                continue
            self._said += 1
            if turn.opened or turn.whole > 0:
                self._log.info("window opened", list=name, entries=turn.opened, whole_list=turn.whole > 0)
            if turn.closed or turn.whole < 0:
                self._log.info("window closed", list=name, entries=turn.closed, whole_list=turn.whole < 0)
