"""Some entries of a list in plain text, kept while it is read, to be tried before it is in force.

In: entries as they come by, and what was in force of the list before; or a list to be looked into in many places.
Out: a few of them, those that are new first, from all over it; as bytes, where another process is to try them. Never
here: an entry on disk. What is not read again has no plain text, and no sample.
"""

import json
import math
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import BinaryIO, NamedTuple, Protocol

from edgeblock.blocklist.bitmap import BitmapView
from edgeblock.blocklist.directory import ListFile, TooSlow, limited, open_regular
from edgeblock.blocklist.fingerprint import Kind, fingerprint
from edgeblock.blocklist.formats import Entry, Problem
from edgeblock.blocklist.formats.packed import GZIP, ZSTD
from edgeblock.blocklist.keys import Key
from edgeblock.blocklist.parts import Compiled
from edgeblock.blocklist.snapshot import Snapshot
from edgeblock.errors import ListError

SIZE = 128              # entries of one list
TOGETHER = 10_000       # of all lists together, as far as each has two
KEY_MAX = 1000          # bytes of one: longer ones are not sampled
HANDED_MAX = 1 << 20    # bytes of a sample on its way to another process: JSON makes up to six of one
SECONDS = 0.2           # of processor time in which a list is looked into that is read for a sample alone,
HEAD = 0.25             # a share of it for the beginning,
PLACES = 64             # and the rest for as many places, all over the file,
AT_PLACE = 256          # so many items at each
LINE_MAX = 1 << 16      # bytes that are passed over at a place, to the beginning of a line


class Sample:
    """Entries of one list: `offer` those that come by, from the one whose number is `due` on. What is in none of
    `before` is new: each is asked for, which takes 0.7 microseconds."""

    def __init__(self, key: Key, before: Iterable[Compiled]) -> None:
        self.due = 1
        self.key = key
        self.known = views(before)
        self.chance = random.Random()
        self.any: list[Entry] = []
        self.fresh: list[Entry] = []
        self.news = 0
        self._next, self._weight = 1, 1.0

    def offer(self, entry: Entry, number: int) -> None:
        """Takes the entry of that number, counted from 1, or leaves it, and says in `due` which is the next."""
        if len(entry.key) <= KEY_MAX:
            if self.known and not is_in(self.known, self.key, entry):
                self.news += 1
                self._put(self.fresh, entry, self.news)
            if number >= self._next:
                self._put(self.any, entry, len(self.any) + 1)
                self._next = number + 1 if len(self.any) < SIZE else number + self._leap()
        self.due = number + 1 if self.known else max(self._next, number + 1)

    def entries(self, most: int = SIZE) -> list[Entry]:
        """At most that many: new ones, and then any."""
        there = {(one.kind, one.key, one.exception) for one in self.fresh}
        self.chance.shuffle(self.any)
        return (self.fresh + [one for one in self.any if (one.kind, one.key, one.exception) not in there])[:most]

    def _put(self, where: list[Entry], entry: Entry, number: int) -> None:
        # Each of `number` is there with the same chance.
        place = len(where) if len(where) < SIZE else self.chance.randrange(SIZE)
        if (place == len(where) or where is self.any or self.chance.randrange(number) < SIZE) and not any(
                one[1:4] == entry[1:4] for one in where):      # two places in a file may be beside each other
            where[place:place + 1] = [entry]

    def _leap(self) -> int:
        # How far the next is that takes another's place: Li's algorithm L, which looks at nothing between.
        self._weight *= math.exp(math.log(1 - self.chance.random()) / SIZE)
        return 1 + int(math.log(1 - self.chance.random()) / math.log(1 - self._weight))


def views(parts: Iterable[Compiled]) -> list[BitmapView]:
    return [BitmapView(one.bitmap) for one in parts]


def is_in(known: list[BitmapView], key: Key, entry: Entry) -> bool:
    """Whether one of them has it, by 32 bits of its fingerprint."""
    asked = int.from_bytes(fingerprint(key, entry.key)[:4])
    for one in known:       # noqa: SIM110 (of every entry of every list: a generator takes as long again)
        if asked in one:
            return True
    return False


def room(lists: int) -> int:
    """How many entries one of so many lists may have."""
    return max(2, min(SIZE, TOGETHER // (lists + 1)))


def sample_of(source: ListFile, most: int, key: Key, part: Compiled, before: Iterable[Compiled]) -> list[Entry]:
    """Some entries of a list that nobody reads now, which `part` is made of: its beginning, and as many places in the
    file as there is time for. None where it cannot be read.

    A reader that begins in the middle may take for an entry what is none: it is left out where the part has it not.
    """
    sample, there = Sample(key, before), views([part])
    number = 0
    try:
        with limited(SECONDS):
            for entry in look_into(source):
                if is_in(there, key, entry):
                    number += 1
                    if number >= sample.due:
                        sample.offer(entry, number)
    except (ListError, OSError, TooSlow):
        pass                    # whoever reads it whole says why
    return sample.entries(most)


def look_into(source: ListFile) -> Iterator[Entry]:
    """Entries from its beginning, and from places all over it where that is not all and it is not packed."""
    began = time.process_time()
    with open_regular(source.path) as file:
        packed = file.read(4).startswith((GZIP, ZSTD))
        file.seek(0)
        for entry in entries_of(source, file):
            yield entry
            if not packed and time.process_time() - began > HEAD * SECONDS:
                break
        else:
            return
        size = os.fstat(file.fileno()).st_size
        places = [random.randrange(size * i // PLACES, size * (i + 1) // PLACES + 1) for i in range(PLACES)]
        random.shuffle(places)
        for place in places:
            file.seek(place)
            file.readline(LINE_MAX)
            yield from islice(entries_of(source, file), AT_PLACE)


def entries_of(source: ListFile, file: BinaryIO) -> Iterator[Entry]:
    for item in source.reader(file):
        if isinstance(item, Problem) and item.whole:
            return
        if isinstance(item, Entry):
            yield item


# ---- from one process to another, as a file in memory


class Handed(NamedTuple):
    """A sample of a list, of the version whose part has this digest."""

    digest: str
    entries: list[Entry]


def to_bytes(handed: Handed) -> bytes:
    return json.dumps([handed.digest, [[one.line, one.kind, one.key.decode("latin-1"), one.exception]
                                       for one in handed.entries]]).encode()


def from_bytes(data: bytes) -> Handed | None:
    """What the other process has made; None where it is nothing that it makes."""
    try:
        digest, rows = json.loads(data)
        entries = [Entry(int(line), Kind(kind), key.encode("latin-1"), bool(exception))
                   for line, kind, key, exception in rows[:SIZE]]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    usable = isinstance(digest, str) and all(0 < len(one.key) <= KEY_MAX for one in entries)
    return Handed(digest, entries) if usable else None


class Trial(Protocol):
    """What tries a snapshot before it is in force: `samples` are entries of the lists that are new in it, by name.

    Those of the lists in `unsure` were not seen by the guard rails: the rules may be without them. `later` is called
    where there is time to find more samples. `culprit` is the list of which `try_out` has found something.
    `same_names`: no list that comes, goes or changes has names.
    """

    samples: dict[str, list[Entry]]
    unsure: set[str]
    culprit: str
    same_names: bool
    later: Callable[[], None] | None

    def try_out(self, snapshot: Snapshot) -> str:
        """Why it must not come into force, in one line; "" where nothing was found."""

    def hold(self, snapshot: Snapshot) -> None:
        """It is in force, whatever is found."""
