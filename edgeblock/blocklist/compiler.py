"""Entries into the parts of a snapshot, and the parts of several into those of one.

In: a key, the settings of each list, and entries one by one; or parts of one list each. Out: Compiled: the roaring
bitmap of the first 32 bits of every fingerprint, the sorted rows, the IPv4 bitmap, the address entries for the
kernel, and the few numbers that bound what a look-up has to try. What never happens here: an entry kept after its
rows are made, a file, a clock.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pyroaring import BitMap

from edgeblock.blocklist.canonical import host_address
from edgeblock.blocklist.commitments import Commitments
from edgeblock.blocklist.committed import BLOCKS, PASSES, hashed_text, root_of, text_of
from edgeblock.blocklist.fingerprint import Kind, Merge, Rows, fingerprint
from edgeblock.blocklist.formats import Entry, HashedEntry
from edgeblock.blocklist.keys import Key, key_id, why_foreign
from edgeblock.blocklist.parts import (
    ADDRESS,
    EXCEPTION,
    HAS_TERMS,
    INDEX_AT,
    IS_EXCEPTION,
    LISTS_MAX,
    ROW_SIZE,
    TERMS,
    ClientSet,
    Compiled,
    ListRecord,
)
from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.terms import Terms, read_terms
from edgeblock.blocklist.timetable import Builder
from edgeblock.errors import ListError

LABELS_COUNTED = 63     # hosts of this many labels and more share a bit of `labels`
EMPTY_SIZE = len(BitMap().serialize())
LAYERED_FROM = 200_000  # rows of a snapshot from which on it is not made anew for little: below, that takes 0.05 s
LAYERED_SHARE = 16      # and the share of them that counts as little
SPANS_MAX = 1 << 18     # of IPv4 addresses, gathered before those that touch are made one: 10 MB


class Compiler:
    """Gathers entries under one 16-byte key: `add_list`, then `add` for each of its entries, then `finish`. With
    `commit` it has one list, and makes commitments to its entries."""

    def __init__(self, key: Key, commit: bool = False):
        self.commitments = Commitments(key) if commit else None
        self.rows = Rows(key)
        self.key_id = key_id(key)
        self.ipv4 = BitMap()
        self.spans: list[tuple[int, int]] = []
        self.addresses = bytearray()
        self.lists: list[ListRecord] = []
        self.settings: list[ListSettings] = []
        self.compiled = Compiled([], b"", b"", b"")
        self.key = key
        self.terms: dict[int, Builder] = {}

    def add_list(self, name: str, settings: ListSettings) -> int:
        """The index of a new list."""
        if len(self.lists) == LISTS_MAX:
            raise ValueError(f"more than {LISTS_MAX} lists")
        self.lists.append(ListRecord(
            name, settings.action, settings.mandatory, settings.category, begins=settings.begins, ends=settings.until,
            weekly=list(map(str, settings.weekly)), order=dict(settings.order_data)))
        self.settings.append(settings)
        return len(self.lists) - 1

    def add(self, index: int, entry: Entry | HashedEntry) -> None:
        """One entry of the list with that index.

        Raises:
            ListError: an entry of a hashed list that was made under another key; too many different terms.
        """
        if isinstance(entry, HashedEntry):
            self._add_hashed(index, entry)
            return
        bounds = self.compiled
        _, kind, key, exception, depth, attributes = entry
        terms = read_terms(attributes) if attributes else None
        value = index << 16 | (EXCEPTION if exception else 0) | (TERMS if terms else 0)
        self.rows.add(key, value | kind)
        if self.commitments is not None:
            if terms or kind >= Kind.NETWORK:
                self.commitments.add(text_of(kind, key, exception, terms))
            else:
                self.commitments.add((PASSES if exception else BLOCKS)[kind], key)
        if terms:
            self._note(index, key, value | kind, terms)
        if kind <= Kind.SUBDOMAINS:
            bounds.labels |= 1 << min(key.count(b".") + 1, LABELS_COUNTED)
        elif kind <= Kind.DIRECTORY:
            host = key[:key.index(b"/")]
            bounds.labels |= 1 if host_address(host) else 1 << min(host.count(b".") + 1, LABELS_COUNTED)
            self.rows.add(host, index << 16 | Kind.URL_MARK)
            if self.settings[index].https == "host" and not exception:
                self.rows.add(host, value | Kind.HOST_OF_URL)
                if terms:
                    self._note(index, host, value | Kind.HOST_OF_URL, terms)
            if kind == Kind.DIRECTORY:
                bounds.depths |= 1 << depth
                bounds.directory_max = max(bounds.directory_max, len(key))
            else:
                bounds.url_max = max(bounds.url_max, len(key))
        elif kind >= Kind.HOST_AT:
            host, _, place = key.partition(b"\0")
            bounds.labels |= 1 << min(host.count(b".") + 1, LABELS_COUNTED)
            self.rows.add(host, value & ~TERMS | Kind.AT_MARK)
            if len(place) < 16:
                bounds.at_ipv4 |= 1 << place[0]
            else:
                bounds.at_ipv6 |= 1 << place[0]
        else:
            length, address = key[1], key[2:]
            is_ipv6 = len(address) >= 16
            port = address[16 if is_ipv6 else 4:]
            self.addresses += ADDRESS.pack(
                address[:16 if is_ipv6 else 4], length,
                is_ipv6 | (IS_EXCEPTION if exception else 0) | (HAS_TERMS if terms else 0), int.from_bytes(port),
                index)
            if terms:
                self.terms[index].add_window(terms.window)
            if not is_ipv6:
                bounds.ipv4_lengths |= 1 << length
                first = int.from_bytes(address[:4])
                self.spans.append((first, first + (1 << 32 - length)))
                if len(self.spans) >= SPANS_MAX:
                    self._merge_spans()
            else:
                bounds.ipv6_lengths |= 1 << length

    def _note(self, index: int, key: bytes, value: int, terms: Terms) -> None:
        builder = self.terms.setdefault(index, Builder())
        builder.add(fingerprint(self.key, key), value & 0xFFFF, terms)

    def _is_plain(self, index: int, print: bytes, value: int) -> bool:
        return self.rows.has(print, index << 16 | value & ~TERMS)

    def _merge_spans(self) -> None:
        # A wide range takes as long as 65 536 narrow ones, and a list can say it a hundred thousand times.
        spans, self.spans = sorted(self.spans), []
        begin = end = 0
        for first, last in spans:
            if first > end:
                self.ipv4.add_range(begin, end)
                begin, end = first, last
            elif last > end:
                end = last
        self.ipv4.add_range(begin, end)

    def _add_hashed(self, index: int, entry: HashedEntry) -> None:
        bounds = self.compiled
        _, kind, print, exception, head = entry
        if head.key_id != self.key_id:
            raise ListError(why_foreign(head.key_id, self.key_id))
        value = index << 16 | (EXCEPTION if exception else 0)
        if kind == Kind.AT_MARK:
            self.rows.add_print(print, value | kind)
        elif kind == Kind.URL_MARK:
            self.rows.add_print(print, index << 16 | Kind.URL_MARK)
            if self.settings[index].https == "host" and not exception:
                self.rows.add_print(print, value | Kind.HOST_OF_URL)
        else:
            self.rows.add_print(print, value | kind)
            if self.commitments is not None:
                self.commitments.add(hashed_text(kind, print, exception))
        bounds.labels |= head.labels
        bounds.depths |= head.depths
        bounds.at_ipv4 |= head.at_ipv4
        bounds.at_ipv6 |= head.at_ipv6
        bounds.url_max = max(bounds.url_max, head.url_max)
        bounds.directory_max = max(bounds.directory_max, head.directory_max)

    def finish(self) -> Compiled:
        """Sort, and give the parts; the compiler is used up."""
        self.rows.finish()
        for record, entries in zip(self.lists, self.rows.entries(len(self.lists)), strict=True):
            record.entries = entries
        bitmap = BitMap(self.rows.prefixes())
        bitmap.run_optimize()
        self._merge_spans()
        self.ipv4.run_optimize()
        parts = self.compiled
        parts.lists = self.lists
        parts.bitmap = bitmap.serialize()
        parts.ipv4 = self.ipv4.serialize()
        parts.addresses = self.addresses
        parts.rows = memoryview(self.rows)
        if self.commitments is not None:
            self.commitments.finish()
            parts.commitments = memoryview(self.commitments)
            self.lists[0].root, self.lists[0].leaves = root_of(parts.commitments), len(self.commitments)
        for index, builder in self.terms.items():
            parts.terms[index] = builder.entries(self.lists[index].name, partial(self._is_plain, index))
            self.lists[index].timed, self.lists[index].sets = builder.timed, builder.sets
            if windows := builder.windows():
                parts.windows[index] = windows
        return parts


def merge(every: Sequence[Compiled], nat64: tuple[str, ...] = ()) -> Compiled:
    """One of many: each of `every` has one list; an expired one leaves its place in the table and no entry.

    The rows are read out of `every` when somebody asks for them.
    """
    return replace(gather(every, [-1] * len(every)), nat64=nat64)


def table_of(every: Sequence[Compiled]) -> list[ListRecord]:
    """The list table that all of them have together."""
    return [replace(parts.lists[0], entries=0) if parts.lists[0].expired else parts.lists[0] for parts in every]


def is_little(every: Sequence[Compiled], base: Compiled) -> bool:
    """Whether so little has changed since `base` was made that it is worth laying over it. The rows that do not count
    any more weigh as much as those that are new."""
    below = find_below(every, base)
    there, new, kept = rows_in(base), 0, 0
    for parts, under in zip(every, below, strict=True):
        if under >= 0:
            kept += rows_in(parts)
        elif not parts.lists[0].expired:
            new += rows_in(parts)
    return there >= LAYERED_FROM and new + there - kept <= there // LAYERED_SHARE


def largest(every: Sequence[Compiled]) -> int:
    """The index of a list beside which all others are little, so that its part is what they can lie over; -1 where
    there is none."""
    sizes = [0 if parts.lists[0].expired else rows_in(parts) for parts in every]
    index = max(range(len(every)), key=sizes.__getitem__, default=-1)
    return index if index >= 0 and is_little(every, every[index]) else -1


def rows_in(parts: Compiled) -> int:
    return memoryview(parts.rows).nbytes // ROW_SIZE        # type: ignore[arg-type]


def lay_over(every: Sequence[Compiled], digest: str, base: Compiled, nat64: tuple[str, ...] = ()) -> Compiled:
    """The same as `merge` would give, as what lies over the snapshot `base`: no row that it has is read again.

    The lists of `every` and of `base` say which part they are of (`ListRecord.part`).
    """
    below = find_below(every, base)
    made = gather(every, below)
    made.base, made.below, made.nat64 = digest, below, nat64
    return made


def find_below(every: Sequence[Compiled], base: Compiled) -> list[int]:
    """For each list where `base` has its very rows, -1 where it has not."""
    there = {(record.name, record.part): index for index, record in enumerate(base.lists)
             if record.part and not record.expired}
    records = [parts.lists[0] for parts in every]
    return [-1 if record.expired else there.get((record.name, record.part), -1) for record in records]


def gather(every: Sequence[Compiled], below: list[int]) -> Compiled:
    """Table and bounds of all, rows and bitmap of those that are not below."""
    if len(every) > LISTS_MAX:
        raise ValueError(f"more than {LISTS_MAX} lists")
    made = Compiled(table_of(every), b"", b"", b"")
    bitmaps: list[Any] = []
    ipv4: list[Any] = []
    addresses = bytearray()
    sets: dict[str, ClientSet] = {}
    tables: list[object] = []
    for index, (parts, under) in enumerate(zip(every, below, strict=True)):
        if parts.lists[0].expired:
            tables.append(b"")
            continue
        tables.append(parts.rows if under < 0 else b"")
        if under < 0:
            bitmaps.append(parts.bitmap)
            if 0 in parts.terms:
                made.terms[index] = parts.terms[0]
        if 0 in parts.windows:
            made.windows[index] = parts.windows[0]
        ipv4.append(parts.ipv4)
        addresses += for_list(parts.addresses, index)
        sets |= {one.sum: one for one in parts.client_sets}
        made.labels |= parts.labels
        made.depths |= parts.depths
        made.ipv4_lengths |= parts.ipv4_lengths
        made.ipv6_lengths |= parts.ipv6_lengths
        made.at_ipv4 |= parts.at_ipv4
        made.at_ipv6 |= parts.at_ipv6
        made.url_max = max(made.url_max, parts.url_max)
        made.directory_max = max(made.directory_max, parts.directory_max)
    made.bitmap, made.ipv4, made.rows, made.addresses = join(bitmaps), join(ipv4), Merge(tables), addresses
    made.client_sets = list(sets.values())
    return made


def for_list(addresses: bytes | bytearray | memoryview, index: int) -> bytearray:
    """The same address entries as those of the list with that index."""
    made = bytearray(addresses)
    count = len(made) // ADDRESS.size
    made[INDEX_AT::ADDRESS.size] = bytes([index & 0xFF]) * count
    made[INDEX_AT + 1::ADDRESS.size] = bytes([index >> 8]) * count
    return made


def join(serialized: list[Any]) -> bytes:
    """Bitmaps as one. All at once: one after the other would read what there is again for each."""
    bitmaps = [BitMap.deserialize(bytes(one)) for one in serialized if len(one) > EMPTY_SIZE]
    joined = BitMap.union(*bitmaps) if bitmaps else BitMap()
    joined.run_optimize()
    return joined.serialize()
