"""The address entries of a snapshot as ranges that do not overlap, each with what is done there.

In: the parts of a snapshot. Out: for IPv4 and IPv6 sorted spans, and endpoints, by the same precedence as the
matcher's: what counts most of all entries that an address is in. Whoever enforces addresses without the matcher (the
kernel's rules) asks only where an address lies. A hundred thousand entries are flattened anew in a few hundredths of
a second (flatten.pyx); to make Python objects of all of them takes longer, so those that are as before are kept.
What does not hold at the moment that is asked about is left out, and who asks is told how long that is so. Of a list
for some clients alone no block is here, and what its exceptions have is in no other block: who enforces these has to
ask the matcher. Never here: a kernel, or a packet.
"""

import ipaddress
import struct
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TypeVar

from edgeblock.addresses import BITS, Addresses, Endpoint, Span, Translated, What, count_wide, inside, translated
from edgeblock.blocklist.flatten import alike, flatten
from edgeblock.blocklist.parts import (
    ADDRESS,
    FLAGS_AT,
    HAS_TERMS,
    INDEX_AT,
    IS_EXCEPTION,
    IS_IPV6,
    Compiled,
    ListRecord,
)
from edgeblock.blocklist.terms import NEVER, Window
from edgeblock.blocklist.timetable import NO_WINDOW_SET, Blob, windows_of
from edgeblock.core.decision import ANSWERED
from edgeblock.errors import ListError

SPAN = struct.Struct("<16s16sHBx")          # first and last address, who decides, what is done
ENDPOINT = struct.Struct("<16sHHBx")        # address, port, who decides, what is done
OWNERS_MAX = 0xFFFF
ENTRIES_MAX = 1_000_000  # of IPv4 that are written as IPv6 as well

Item = TypeVar("Item", Span, Endpoint)


class Reader:
    """Reads one snapshot after the other. `until`: when what was read last is to be read again, in Unix seconds, as
    something begins or ends to hold; None: never."""

    def __init__(self) -> None:
        self._begin()

        self.until: int | None = None

    def _begin(self) -> None:
        self._owners: list[str] = []
        self._ids: dict[str, int] = {}          # by name: a list that is new has others' indexes changed
        self._made = Addresses({4: (), 6: ()}, {4: (), 6: ()})
        self._spans, self._endpoints = defaultdict[int, bytes](bytes), defaultdict[int, bytes](bytes)

    def read(self, parts: Compiled, most: int = sys.maxsize, at: float | None = None) -> Addresses:
        """What is done with each address that a list of the snapshot has, at that moment (Unix seconds); without one
        every entry holds.

        Raises:
            ListError: an entry says what none can say; there would be more than `most` ranges and endpoints.
        """
        if len(self._owners) + len(parts.lists) > OWNERS_MAX:
            self._begin()
        for record in parts.lists:
            if record.name not in self._ids:
                self._ids[record.name] = len(self._owners)
                self._owners.append(record.name)
        whats = bytes(what_of(record) for record in parts.lists)
        weights = bytes(weight_of(record) for record in parts.lists)
        ids = struct.pack(f"<{len(parts.lists)}H", *(self._ids[record.name] for record in parts.lists))
        apart = [one for one in translated(parts.nat64) if one.bit is None]
        count = len(parts.addresses) // ADDRESS.size
        if count * len(apart) > ENTRIES_MAX:
            raise ListError(f"{count} address entries are too many for {len(apart)} NAT64 prefixes of 40, 48 or 56 "
                            "bits; list fewer")
        there, self.until = (parts.addresses, None) if at is None else holding(parts, at)
        entries = b"".join((there, *in_two_pieces(there, apart)))
        leading = [ends_of(one.prefix) for one in translated(parts.nat64)]
        try:
            made = {family: flatten(entries, family, whats, weights, ids, leading if family == 6 else [])
                    for family in BITS}
        except ValueError:
            raise ListError("snapshot: has an address entry that cannot be; build it again") from None
        total = sum(len(one) // SPAN.size + len(two) // ENDPOINT.size for one, two in made.values())
        if total > most:
            raise ListError(f"{total} ranges of addresses are listed, and the kernel is given at most {most}; list "
                            "wider prefixes, or fewer")
        spans, endpoints, gone, more = {}, {}, {}, {}
        for family, new in made.items():
            spans[family], gone[family], more[family] = spliced(
                self._spans[family], new[0], SPAN.size, self._made.spans[family], self._read_spans)
            endpoints[family], _, _ = spliced(self._endpoints[family], new[1], ENDPOINT.size,
                                              self._made.endpoints[family], self._read_endpoints)
            self._spans[family], self._endpoints[family] = new
        wides = self._made.wides - count_wide(gone) + count_wide(more)
        self._made = Addresses(spans, endpoints)
        vars(self._made)["wides"] = wides       # known, without a look at all of them
        return self._made

    def _read_spans(self, data: bytes) -> Iterator[Span]:
        for first, last, owner, what in SPAN.iter_unpack(data):
            yield Span(int.from_bytes(first), int.from_bytes(last), What(what), self._owners[owner])

    def _read_endpoints(self, data: bytes) -> Iterator[Endpoint]:
        for address, port, owner, what in ENDPOINT.iter_unpack(data):
            yield Endpoint(int.from_bytes(address), port, What(what), self._owners[owner])


def read_addresses(parts: Compiled) -> Addresses:
    """As `Reader.read`, once."""
    return Reader().read(parts)


def what_of(record: ListRecord) -> What:
    """What a block of a list says."""
    if record.action == "observe":
        return What.OBSERVE
    return What.RESET if record.action in ANSWERED else What.DROP


def weight_of(record: ListRecord) -> int:
    """How much a block of a list counts; an exception counts 3, and of a list with 5 alone."""
    if record.expired:
        return 0
    if record.clients:      # who asks is not known here: a block is the matcher's, and so is what may be lifted
        return 5
    return 1 if record.action == "observe" else 4 if record.mandatory else 2


def holding(parts: Compiled, at: float) -> tuple[Blob, int | None]:
    """The address entries of a snapshot that hold at a moment, and when the next of them begins or ends to.

    Raises:
        ListError: the terms of one cannot be read.
    """
    changes: list[int | None] = []
    closed: set[int] = set()                # lists that do not hold
    for index, record in enumerate(parts.lists):
        if window := record.window:
            changes.append(window.next_change(at))
            if not window.holds(at):
                closed.add(index)
    if not closed and not parts.windows:
        return parts.addresses, soonest(changes)
    view = memoryview(parts.addresses)
    flags, low, high = (view[place::ADDRESS.size].tobytes() for place in (FLAGS_AT, INDEX_AT, INDEX_AT + 1))
    windows = {index: read_windows(blob, at, changes) for index, blob in parts.windows.items()}
    made, first = [], 0
    for number, flag in enumerate(flags):
        index = low[number] | high[number] << 8
        holds = index not in closed
        if flag & HAS_TERMS:                # every one is counted
            holds = next(windows[index], False) and holds
        if not holds:
            made.append(view[first * ADDRESS.size:number * ADDRESS.size])
            first = number + 1
    made.append(view[first * ADDRESS.size:])
    return b"".join(made), soonest(changes)


def read_windows(blob: Blob, at: float, changes: list[int | None]) -> Iterator[bool]:
    """Whether each address entry with terms holds, of a list; when that changes is added to `changes` at once."""
    windows, sets = windows_of(blob)
    every = [Window(weekly=weekly) for weekly in sets]
    open_sets = [one.holds(at) for one in every]
    changes += [one.next_change(at) for one in every]
    changes.append(min((begins for begins, _, _ in windows if begins > at), default=None))
    changes.append(min((ends for _, ends, _ in windows if at < ends < NEVER), default=None))
    return (begins <= at < ends and (which == NO_WINDOW_SET or which < len(open_sets) and open_sets[which])
            for begins, ends, which in windows)


def soonest(changes: list[int | None]) -> int | None:
    return min((one for one in changes if one is not None), default=None)


def in_two_pieces(entries: Blob, apart: list[Translated]) -> Iterator[bytes]:
    """For each IPv4 entry one of IPv6 for each prefix behind which IPv4 addresses are in two pieces."""
    for address, length, flags, port, index in ADDRESS.iter_unpack(entries) if apart else ():
        if not flags & IS_IPV6 and length <= BITS[4]:
            for way in apart:
                number, whole = inside(way, int.from_bytes(address[:4]), length)
                yield ADDRESS.pack(number.to_bytes(16), whole, IS_IPV6 | flags & IS_EXCEPTION, port, index)


def ends_of(network: ipaddress.IPv6Network) -> tuple[bytes, bytes]:
    return network.network_address.packed, network.broadcast_address.packed


def spliced(old: bytes, new: bytes, size: int, made: tuple[Item, ...], read: Callable[[bytes], Iterator[Item]]
            ) -> tuple[tuple[Item, ...], tuple[Item, ...], tuple[Item, ...]]:
    """What is read of `new`, where `made` was of `old`: all of it, what is gone, and what is in its place."""
    front, back = alike(old, new, size)
    gone = made[front:len(made) - back]
    more = tuple(read(new[front * size:len(new) - back * size]))
    return made[:front] + more + made[len(made) - back:], gone, more
