"""Some entries of a list in plain text, kept while it is read, to be tried before it is in force.

In: entries as they come by, and what was in force of the list before. Out: a few of them, those that are new first.
Never here: an entry on disk. What is not read again has no plain text, and no sample.
"""

import math
import random
from collections.abc import Callable
from itertools import islice
from typing import Protocol

from edgeblock.blocklist.bitmap import BitmapView
from edgeblock.blocklist.compiler import Compiled
from edgeblock.blocklist.directory import ListFile, TooSlow, limited, read_list
from edgeblock.blocklist.fingerprint import fingerprint
from edgeblock.blocklist.formats import Entry
from edgeblock.blocklist.keys import Key
from edgeblock.blocklist.snapshot import Snapshot
from edgeblock.errors import ListError

SIZE = 128              # entries of one list
TOGETHER = 10_000       # of all lists together, as far as each has two
KEY_MAX = 1000          # bytes of one: longer ones are not sampled
ASKED_MAX = 1_000_000   # of a list, whether they are new: it takes half a microsecond each
AT_MOST = 4096          # items of a list that is read for a sample alone,
SECONDS = 0.2           # and of processor time


class Sample:
    """Entries of one list: `offer` those that come by, from the one whose number is `due` on."""

    def __init__(self, key: Key, before: Compiled | None) -> None:
        self.due = 1
        self.key = key
        self.known = BitmapView(before.bitmap) if before is not None else None
        self.chance = random.Random()
        self.any: list[Entry] = []
        self.fresh: list[Entry] = []
        self.news = 0
        self._next, self._weight = 1, 1.0

    def offer(self, entry: Entry, number: int) -> None:
        """Takes the entry of that number, counted from 1, or leaves it, and says in `due` which is the next."""
        if len(entry.key) <= KEY_MAX:
            if self.known is not None and number <= ASKED_MAX and self._is_new(entry):
                self.news += 1
                self._put(self.fresh, entry, self.news)
            if number >= self._next:
                self._put(self.any, entry, len(self.any) + 1)
                self._next = number + 1 if len(self.any) < SIZE else number + self._leap()
        self.due = number + 1 if self.known is not None and number < ASKED_MAX else max(self._next, number + 1)

    def entries(self, most: int = SIZE) -> list[Entry]:
        """At most that many: new ones, and then any."""
        there = {(one.kind, one.key, one.exception) for one in self.fresh}
        self.chance.shuffle(self.any)
        return (self.fresh + [one for one in self.any if (one.kind, one.key, one.exception) not in there])[:most]

    def _is_new(self, entry: Entry) -> bool:
        return int.from_bytes(fingerprint(self.key, entry.key)[:4]) not in self.known      # type: ignore[operator]

    def _put(self, where: list[Entry], entry: Entry, number: int) -> None:
        # Each of `number` is there with the same chance.
        if len(where) < SIZE:
            where.append(entry)
        elif where is self.any or self.chance.randrange(number) < SIZE:
            where[self.chance.randrange(SIZE)] = entry

    def _leap(self) -> int:
        # How far the next is that takes another's place: Li's algorithm L, which looks at nothing between.
        self._weight *= math.exp(math.log(1 - self.chance.random()) / SIZE)
        return 1 + int(math.log(1 - self.chance.random()) / math.log(1 - self._weight))


def room(lists: int) -> int:
    """How many entries one of so many lists may have."""
    return max(2, min(SIZE, TOGETHER // (lists + 1)))


def sample_of(source: ListFile, most: int) -> list[Entry]:
    """Some of the first entries of a list that nobody reads now; none where it cannot be read."""
    found: list[Entry] = []
    try:
        with limited(SECONDS):
            for item in islice(read_list(source), AT_MOST):
                if isinstance(item, Entry) and len(item.key) <= KEY_MAX:
                    found.append(item)
    except (ListError, OSError, TooSlow):
        pass                    # whoever reads it whole says why
    return random.sample(found, min(most, len(found)))


class Trial(Protocol):
    """What tries a snapshot before it is in force: `samples` are entries of the lists that are new in it, by name.

    Those of the lists in `unsure` were not seen by the guard rails: the rules may be without them. `later` is called
    where there is time to find more samples. `culprit` is the list of which `try_out` has found something.
    """

    samples: dict[str, list[Entry]]
    unsure: set[str]
    culprit: str
    later: Callable[[], None] | None

    def try_out(self, snapshot: Snapshot) -> str:
        """Why it must not come into force, in one line; "" where nothing was found."""

    def hold(self, snapshot: Snapshot) -> None:
        """It is in force, whatever is found."""
