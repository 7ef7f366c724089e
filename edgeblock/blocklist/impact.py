"""What an address entry would take down with it: figures of what the box has seen at that address (docs/impact.md).

In: the file of sketches that the daemon keeps in the state directory, and addresses. Out: how many names, connections
and subscribers are behind an address or a prefix. Never here: a name, a subscriber, a judgement (guard.py). A file
that is not there, damaged or old has no figures, and `why_none` says so: nobody is refused for what is not known.
"""

import ipaddress
import mmap
import os
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, NamedTuple

from edgeblock.addresses import BITS, Translated
from edgeblock.blocklist.ranges import last_of
from edgeblock.core.tally import Table, Tally
from edgeblock.errors import ListError

FILE = "impact"                 # in the state directory
DAY = 86_400.0
MAGIC = b"edgeblock impact"
VERSION = 1
HEAD = struct.Struct("<16sIId")             # magic, version, how many days, share of connections that are learnt from
PERIOD = struct.Struct("<ddQ")              # begin and end in Unix seconds, bytes of the table
SUM_SIZE = 16
DAYS_MAX = 64
TIME_MAX = 1e11                 # Unix seconds, some time in the year 5138


class Period(NamedTuple):
    """A table of sketches, closed, of the time from `begin` to `end` in Unix seconds; `data` is the table's bytes."""

    begin: float
    end: float
    data: bytes | memoryview


class Figures(NamedTuple):
    """What was seen at addresses in a day.

    `addresses` is at how many; `names` and `shared`, those that more than one subscriber has asked for, are of the
    day that had most; `flows` are connections of the last day, `share` is that of the subscribers who were seen on
    the box. `whole`: there was room for all names; else there were more.
    """

    addresses: int = 0
    names: int = 0
    shared: int = 0
    flows: int = 0
    share: float = 0.0
    whole: bool = True

    def __str__(self) -> str:
        least = "" if self.whole else "at least "
        names = "1 name" if self.names == 1 else f"{self.names} names"
        flows = "1 connection" if self.flows == 1 else f"{self.flows} connections"
        return (f"{least}{names} behind it, {self.shared} of them asked for by more than one subscriber; {flows} a "
                f"day by {percent(self.share)} of the subscribers")


NOTHING = Figures()


def percent(share: float) -> str:
    return "0 %" if not share else f"{share:.1%}".replace("%", " %") if share >= 0.001 else "less than 0.1 %"


def write_periods(file: BinaryIO, periods: Sequence[Period], sample: float) -> None:
    """The file: a head, each period with its table, and a sum of all that."""
    summed = blake2b(digest_size=SUM_SIZE)
    pieces: list[bytes | memoryview] = [HEAD.pack(MAGIC, VERSION, len(periods), sample)]
    for one in periods:
        pieces += [PERIOD.pack(one.begin, one.end, len(one.data)), one.data]
    for piece in pieces:
        summed.update(piece)
        file.write(piece)
    file.write(summed.digest())


def read_periods(data: memoryview) -> tuple[list[Period], float]:
    """What `write_periods` has written, and the share of connections.

    Raises:
        ValueError: it has not, or not all of it is there.
    """
    if len(data) < HEAD.size + SUM_SIZE or bytes(data[:16]) != MAGIC:
        raise ValueError("is no file of sketches")
    _, version, count, sample = HEAD.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"has version {version}, and this edgeblock reads {VERSION}")
    if count > DAYS_MAX or blake2b(data[:-SUM_SIZE], digest_size=SUM_SIZE).digest() != data[-SUM_SIZE:]:
        raise ValueError("is damaged")
    periods, rest = [], data[HEAD.size:-SUM_SIZE]
    for _ in range(count):
        if len(rest) < PERIOD.size:
            raise ValueError("is damaged")
        begin, end, size = PERIOD.unpack_from(rest)
        if not 0 <= begin <= end <= TIME_MAX or size > len(rest) - PERIOD.size:
            raise ValueError("is damaged")
        periods.append(Period(begin, end, rest[PERIOD.size:PERIOD.size + size]))
        Table(periods[-1].data)         # whether it can be one
        rest = rest[PERIOD.size + size:]
    if len(rest) or not 0 <= sample <= 1:
        raise ValueError("is damaged")
    return periods, sample


def map_file(path: Path) -> memoryview:
    """A file as memory. Raises OSError, or ValueError where it is empty."""
    with open(path, "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), os.fstat(file.fileno()).st_size, prot=mmap.PROT_READ,
                                    flags=mmap.MAP_PRIVATE))


class Impact:
    """The figures of a box. The file is read when the first address asks: lists of names alone never do."""

    def __init__(self, path: Path, now: float | None = None) -> None:
        self.path = path
        self._now = time.time() if now is None else now
        self.sample = 1.0
        self.why_none = ""              # there are no figures

    @cached_property
    def periods(self) -> list[tuple[Period, Table]]:
        """Those of the last day."""
        try:
            read, self.sample = read_periods(map_file(self.path))
        except FileNotFoundError:
            self.why_none = f"{self.path}: the daemon has kept no figures here"
            return []
        except OSError as error:
            self.why_none = f"{self.path}: cannot be read: {error.strerror}"
            return []
        except ValueError as error:
            self.why_none = f"{self.path}: {error}"
            return []
        made = [(one, Table(one.data)) for one in read if one.end > self._now - DAY and one.begin <= self._now + DAY]
        if not made:
            self.why_none = f"{self.path}: has no figures of the last day; is the daemon running?"
        return made

    @property
    def as_of(self) -> float:
        """Unix seconds of the newest figures; 0 where there are none."""
        return max((one.end for one, _ in self.periods), default=0.0)

    @property
    def since(self) -> float:
        return min((one.begin for one, _ in self.periods), default=0.0)

    @cached_property
    def subscribers(self) -> int:
        """That were seen: of the period that had most."""
        return max((table.subscribers for _, table in self.periods), default=0)

    def of(self, ranges: Iterable[tuple[bytes, bytes]]) -> Figures:
        """What is behind all these addresses together; each range from its first to its last address."""
        self._one.clear()
        self._one.add(list(ranges))
        return self._one.figures()

    @cached_property
    def _one(self) -> "Summing":
        # One for all: to make one takes longer than to look.
        return Summing(self)

    def used(self, ways: Iterable[Translated]) -> list[Translated]:
        """Those of these ways from IPv6 to IPv4 by which something was seen to come."""
        return [one for one in ways if any(table.holds(*one.ends) for _, table in self.periods)]

    def is_silent(self, ranges: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether nothing was seen there: nearly all that lists have is so, and this is asked of every address."""
        return not any(table.holds(first, last) for first, last in ranges for _, table in self.periods)

    def overlap(self, one: Period) -> float:
        """Which share of a period lies within the last day, up to the newest figures."""
        length = one.end - one.begin
        return min(1.0, max(0.0, one.end - max(one.begin, self.as_of - DAY)) / length) if length > 0 else 1.0


@dataclass
class Summing:
    """What is behind entry after entry, where a name behind two of them counts once."""

    impact: Impact
    entries: int = 0
    tallies: list[Tally] = field(default_factory=list)

    def clear(self) -> None:
        self.entries = 0
        for tally in self.tallies:
            tally.clear()

    def add(self, ranges: list[tuple[bytes, bytes]]) -> None:
        self.entries += 1
        if not self.tallies:
            self.tallies = [Tally() for _ in self.impact.periods]
        for tally, (_, table) in zip(self.tallies, self.impact.periods, strict=True):
            for first, last in ranges:
                tally.add(table, first, last)

    def figures(self) -> Figures:
        if not any(tally.addresses for tally in self.tallies):
            return NOTHING
        addresses = names = shared = 0
        flows, seen, all_seen, whole = 0.0, 0, 0, True
        for tally, (period, table) in zip(self.tallies, self.impact.periods, strict=False):
            all_seen += table.subscribers
            if not tally.addresses:
                continue
            more, common, connections, subscribers, room = tally.figures()
            addresses = max(addresses, tally.addresses)
            names, shared, whole = max(names, more), max(shared, common), whole and room
            flows += connections * self.impact.overlap(period)
            seen += subscribers
        return Figures(addresses, names, shared, round(flows), min(1.0, seen / all_seen) if all_seen else 0.0, whole)


def ranges_of(key: bytes, ways: Sequence[Translated] = ()) -> list[tuple[bytes, bytes]]:
    """The addresses that an entry for an address, a prefix or an endpoint takes down; `ways` are prefixes by which
    IPv6 leads to IPv4."""
    size = 4 if len(key) < 16 else 16
    first, length = key[2:2 + size], key[1]
    last = first if length == 8 * size else last_of(first, length)
    found = [(first, last)]
    if size == 4 and ways:
        for one in ways:
            if one.at == BITS[6] - BITS[4] and not one.flipped:     # the IPv4 address is the last that stands there
                head = one.prefix.network_address.packed[:12]
                found.append((head + first, head + last))
    return found


def network_of(key: bytes) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The addresses of an entry."""
    size = 4 if len(key) < 16 else 16
    return ipaddress.ip_network((key[2:2 + size], key[1]))


def read_whole(path: Path, most: int) -> tuple[list[Period], float]:
    """Of the daemon's own file of at most so many bytes, for it to go on with. In memory: whoever may write where the
    file is could cut a mapping short.

    Raises:
        ListError: it cannot be used; FileNotFoundError is no fault and is raised as it is.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise ValueError(f"is longer than {most} bytes")
        return read_periods(memoryview(data))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ListError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ListError(f"{path}: {error}") from None
