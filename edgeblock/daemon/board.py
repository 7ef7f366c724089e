"""What workers have counted, in memory that outlives each of them: one file, one row of 64-bit words for a worker.

Here are the file and all rows; source/counters.pxd has the layout of what the packet path writes into one. Behind the
rows lies what the workers remember together of visits (visits.py).

In: words that a worker writes, and the names of lists that the supervisor gives places to. Out: the same as tables by
name, summed over the workers. A worker that is replaced leaves its row, and the next one goes on from there. Never
here: a name or an address of anybody; a list has as many words as there are actions, whatever is asked for.
"""

import mmap
import os
from collections.abc import Iterable
from typing import Any

from edgeblock.core.decision import LIST_ACTIONS
from edgeblock.core.engine import Engine
from edgeblock.core.matcher import Matcher
from edgeblock.daemon import visits
from edgeblock.source.counters import BOARD, BOARD_NAMES

LISTS_MAX = 16_384          # lists that ever had a place since the start; those after share the last one
POLICY = "policy"           # the list of what a policy has blocked
OTHERS = "(other)"
ENGINE_NAMES = tuple(Engine(Matcher()).counters())
GAUGES = ("table_flows", "table_bytes", "quic_connections")     # of now, not since the start
FAST = BOARD["engine_counters"]             # of ENGINE_NAMES are written by the packet path, the rest now and then
OWN_NAMES = ("lost", "full", "sent", "failed", "unlogged", "lost_lines")

ENGINE_REST = BOARD["words"]
OWN = ENGINE_REST + len(ENGINE_NAMES) - FAST
MATCHED = OWN + len(OWN_NAMES)
VISITS = MATCHED + LISTS_MAX * len(LIST_ACTIONS)     # by list: blocks, of which those of one visit count once
WORDS = VISITS + LISTS_MAX
ROW = (WORDS * 8 + 4095) // 4096 * 4096     # bytes; pages that nobody writes cost nothing


class Board:
    """The file in memory. `fd` is what a worker gets."""

    def __init__(self, rows: int, fd: int = -1) -> None:
        self.fd = fd if fd >= 0 else os.memfd_create("edgeblock-counters")
        if fd < 0:
            os.ftruncate(self.fd, rows * ROW + visits.ROOM)
        self.rows = [memoryview(mmap.mmap(self.fd, ROW, offset=number * ROW)).cast("Q") for number in range(rows)]
        self.visits = memoryview(mmap.mmap(self.fd, visits.ROOM, offset=rows * ROW)).cast("Q")
        if fd < 0:
            visits.begin(self.visits)
        self.places: dict[str, int] = {POLICY: 0}

    def give_places(self, names: Iterable[str]) -> dict[str, int]:
        """A place for each list, the same as ever for those that have had one."""
        for name in names:
            if name not in self.places and len(self.places) < LISTS_MAX - 1:
                self.places[name] = len(self.places)
        return {**self.places, OTHERS: LISTS_MAX - 1}

    def counters(self, numbers: Iterable[int]) -> dict[str, Any]:
        """What these rows add up to: queue, engine, matched, visits, replies and log."""
        rows = [self.rows[number] for number in numbers]

        def added(at: int) -> int:
            return sum(row[at] for row in rows)

        matched: dict[str, dict[str, int]] = {}
        seen: dict[str, int] = {}
        for name, place in sorted({**self.places, OTHERS: LISTS_MAX - 1}.items()):
            for i, action in enumerate(LIST_ACTIONS):
                if count := added(matched_at(place, i)):
                    matched.setdefault(name, {})[action] = count
            if count := added(VISITS + place):
                seen[name] = count
        return {**self.totals(rows), "matched": matched, "visits": seen}

    def totals(self, rows: list[memoryview] | None = None) -> dict[str, dict[str, int]]:
        """The same of all rows, without what is counted by list."""
        rows = self.rows if rows is None else rows

        def added(at: int) -> int:
            return sum(row[at] for row in rows)

        own = {name: added(OWN + i) for i, name in enumerate(OWN_NAMES)}
        return {
            "queue": {name: added(BOARD["queue"] + i) for i, name in enumerate(BOARD_NAMES)}
            | {"lost": own["lost"], "full": own["full"]},
            "engine": {name: added(BOARD["engine"] + i if i < FAST else ENGINE_REST + i - FAST)
                       for i, name in enumerate(ENGINE_NAMES)},
            "replies": {"sent": own["sent"], "failed": own["failed"]},
            "log": {"unlogged": own["unlogged"], "lost": own["lost_lines"]},
        }

    def unread(self) -> tuple[int, int]:
        """Packets that the kernel could not hand over, and that met a full queue, over all rows."""
        lost, full = (sum(row[OWN + OWN_NAMES.index(name)] for row in self.rows) for name in ("lost", "full"))
        return lost, full

    def histogram(self, name: str) -> tuple[list[int], float]:
        """Counts by bucket and the sum in seconds, over all rows: "judge", "lookup" or "verdict"."""
        at, size = BOARD[name], BOARD["verdict"] - BOARD["lookup"]
        words = [sum(row[at + i] for row in self.rows) for i in range(size)]
        return words[:-1], words[-1] * 1e-9


def matched_at(place: int, action: int) -> int:
    """The word of a list and an action in a row."""
    return MATCHED + place * len(LIST_ACTIONS) + action
