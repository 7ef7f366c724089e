"""Keeps time for what is in force: which lists have windows that open or close, noticed within a quarter of a second.

In: the windows of the snapshot in force, and the wall clock, which may be set forwards or back. Out: the lists of
which a window has opened or closed, to whoever acts on it, and a line for each in the log. Workers and the kernel
have their own eye on the clock; this is for the rest. What a look costs depends on what has turned, not on how many
windows there are. Never here: an entry, or whether a packet is judged.
"""

import asyncio
import math
import time
from array import array
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from heapq import heappop, heappush
from typing import Any, NamedTuple

from edgeblock.blocklist.snapshot import Snapshot
from edgeblock.blocklist.terms import ALWAYS, NEVER, Weekly, Window
from edgeblock.blocklist.timetable import Table

LOOKING = 0.25          # seconds between two looks at the clock: a step of it is noticed as soon
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
        self.places = array("I", (place for _, place, _ in edges))
        self.counts = array("I", (count for _, _, count in edges))

    def between(self, after: float, until: float) -> Counter[int]:
        """How many there are of each in (after, until]."""
        found: Counter[int] = Counter()
        for at in range(bisect_right(self.times, after), bisect_right(self.times, until)):
            found[self.places[at]] += self.counts[at]
        return found

    def next(self, now: float) -> float | None:
        """The first of them after `now`."""
        return next(iter(self.times[(at := bisect_right(self.times, now)):at + 1]), None)


class Repeating:
    """Windows of one list that repeat alike, between begins and ends of their own."""

    def __init__(self, place: int, weekly: tuple[Weekly, ...], spans: list[Span]) -> None:
        self.place, self.window = place, Window(weekly=weekly)
        self.count = sum(span.entries for span in spans)
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
            begun, ended = (sum(some.between(first, last).values()) for some in (self.begins, self.ends))
            return (begun, ended) if before < now else (ended, begun)
        return (self._alive(now) if holds else 0), (self._alive(before) if held else 0)

    def _alive(self, now: float) -> int:
        late, past = self.begins.between(now, math.inf), self.ends.between(-math.inf, now)
        return self.count - late[0] - past[0]


class Calendar:
    """All windows of a snapshot. Made in a thread: of 100 000 it takes a moment."""

    def __init__(self, spans: Iterable[Span]) -> None:
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
        self._due: list[tuple[float, int]] = []
        self._known = float("inf")      # no window that repeats was looked at after this

    def look(self, before: float, now: float) -> dict[str, Turn]:
        """The lists of which something turned between the two, whichever is earlier."""
        if before == now:
            return {}
        first, last = min(before, now), max(before, now)
        opened, closed = self.opens.between(first, last), self.closes.between(first, last)
        if before > now:
            opened, closed = closed, opened
        if now < before or before < self._known:        # the clock was set back, or this is the first look
            due = list(range(len(self.repeating)))
            self._due = []
        else:
            due = []
            while self._due and self._due[0][0] <= now:
                due.append(heappop(self._due)[1])
        for number in due:
            one = self.repeating[number]
            opened[one.place] += (more := one.turned(before, now))[0]
            closed[one.place] += more[1]
            heappush(self._due, (one.next(now), number))
        self._known = now
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

    async def keep(self, act: Callable[[set[str]], Awaitable[None]]) -> None:
        """Until it is cancelled: whenever something has turned, and every worker has seen it, `act` is given the
        lists."""
        while True:
            if turns := self.look(time.time()):
                await asyncio.sleep(SETTLING)
                await act(set(turns))
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
