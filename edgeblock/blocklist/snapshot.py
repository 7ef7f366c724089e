"""The parts of a snapshot <-> one file, and the same in memory.

    header     fixed size, little-endian: magic, version, key id, build time, total size, where each section is, the
               bounds of a look-up, and a digest
    lists      JSON: what is to be said of each list; of what lies over another snapshot, what is in that, too
    bitmap     roaring, portable format: the first 32 bits of every fingerprint
    ipv4       roaring, portable format: every listed IPv4 destination
    addresses  24 bytes each: the address entries in plain text, for the kernel's rules (compiler.ADDRESS)
    windows    when those of them hold that have terms, list by list (timetable.py)
    clients    the ranges of each set of clients, IPv4 and then IPv6, each range its first and last address
    terms      of the entries of each list that has some (timetable.py)
    rows       20 bytes each, sorted: 128-bit fingerprint (big-endian order), value as 32 bits little-endian
    sums       a digest of each CHUNK of the sections before it

In: Compiled and a key, or bytes and a key. Out: a file, or a Snapshot whose every section lies inside the bytes. No
host and no URL is in it in plain text. Digests are keyed BLAKE2b. That of the header covers the header and the sums,
so one look at some kilobytes says whether a snapshot is whole, of this version and under this key; the sums say,
chunk by chunk, whether it was altered. Whoever takes a snapshot from outside verifies all of it; a process that is
handed one that nobody can change any more need not read two hundred megabytes again.

A snapshot may lie over another (compiler.lay_over): it has the table and bounds of all lists, and the rows of those
that have changed since. It is of use only with that one below it (`stack`).
"""

import hmac
import io
import ipaddress
import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, BinaryIO

from edgeblock.blocklist.fingerprint import Merge
from edgeblock.blocklist.keys import Key, key_id, keyed_sum
from edgeblock.blocklist.parts import ADDRESS, LISTS_MAX, ROW_SIZE, ClientSet, Compiled, ListRecord
from edgeblock.blocklist.timetable import Blob, joined, parted
from edgeblock.config import NAT64_LENGTHS
from edgeblock.core.decision import LIST_ACTIONS
from edgeblock.errors import ListError

MAGIC = b"EBLIST\r\n"       # the line end shows a transfer that changed line ends
VERSION = 4
# By version. Older ones are still read, which may have the last good version of a list that is refused now: 3 without
# terms and clients, 2 without addresses.
SECTIONS = {4: 9, 3: 6, 2: 5}
HEADERS = {version: struct.Struct(f"<8sHHI8sQQ {2 * count}Q QQQ3Q II 32s") for version, count in SECTIONS.items()}
HEADER = HEADERS[VERSION]
VERSION_AT = 8
FIXED = 7                   # fields before the places of the sections
DIGEST_SIZE = 32
CHUNK = 1 << 20
WHOM = ("", "only", "except")
ALL, TABLE, HEAD = "all", "table", "head"      # what is verified of a snapshot that is opened


@dataclass(frozen=True)
class Snapshot:
    """An opened snapshot: `parts` as memoryviews into `data`, which keeps them alive. `built` is Unix seconds; `base`
    is the one below, where it lies over one and that was found."""

    data: memoryview
    key: Key
    built: int
    digest: str
    parts: Compiled
    base: "Snapshot | None" = None

    @cached_property
    def terms(self) -> dict[int, Blob]:
        """Those of the entries of each list, also of one whose rows are in the one below."""
        below = {} if self.base is None else {
            index: self.base.parts.terms[under] for index, under in enumerate(self.parts.below)
            if under in self.base.parts.terms}
        return {**below, **self.parts.terms}


def ending(snapshot: Snapshot) -> Snapshot:
    """The same, whose lists end at the moment at which they expire: for who asks what holds at another time."""
    lists = [record if record.expires is None else replace(record, ends=record.life.ends)
             for record in snapshot.parts.lists]
    return replace(snapshot, parts=replace(snapshot.parts, lists=lists))


def stack(over: Snapshot, base: Snapshot) -> Snapshot:
    """Both as one.

    Raises:
        ListError: the one was not made to lie over the other.
    """
    if over.parts.base != base.digest or base.parts.base or over.key != base.key:
        raise ListError("snapshot: lies over another one than this; build it again")
    return replace(over, base=base)


def sum_of(chunk: bytes | bytearray | memoryview, key: Key) -> bytes:
    return keyed_sum(chunk, key, DIGEST_SIZE)


class Body:
    """What lies between header and sums, written through it and summed by chunk."""

    def __init__(self, file: BinaryIO, key: Key) -> None:
        self.file, self.key = file, key
        self.size = 0
        self.sums: list[bytes] = []
        self._chunk = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data).cast("B")
        while view:
            some = view[:CHUNK - self.size % CHUNK]
            self.file.write(some)
            self._chunk += some
            self.size += len(some)
            view = view[len(some):]
            if self.size % CHUNK == 0:
                self._end_chunk()

    def finish(self) -> bytes:
        if self.size % CHUNK:
            self._end_chunk()
        return b"".join(self.sums)

    def _end_chunk(self) -> None:
        self.sums.append(sum_of(self._chunk, self.key))
        self._chunk.clear()


def write(file: BinaryIO, parts: Compiled, key: Key, built: int) -> str:
    """A snapshot into `file`, from its start on; its digest. `built` is Unix seconds.

    `parts.rows` may be a Merge, so that no more than a chunk of them is in memory.
    """
    table: object = [vars(record) for record in parts.lists]
    if parts.base or parts.nat64 or parts.at_ipv4 or parts.at_ipv6 or parts.client_sets:
        table = {"base": parts.base, "below": parts.below, "lists": table, "nat64": parts.nat64,
                 "at_ipv4": parts.at_ipv4, "at_ipv6": parts.at_ipv6,
                 "clients": [(one.sum, one.prefixes, len(one.ipv4), len(one.ipv6)) for one in parts.client_sets]}
    lists = json.dumps(table, separators=(",", ":")).encode()
    file.seek(HEADER.size)
    body = Body(file, key)
    places = []
    ranges = [some for one in parts.client_sets for some in (one.ipv4, one.ipv6)]
    for section in ([lists], [parts.bitmap], [parts.ipv4], [parts.addresses], joined(parts.windows), ranges,
                    joined(parts.terms), chunks(parts.rows)):
        at = body.size
        for some in section:
            body.write(some)
        places += [HEADER.size + at, body.size - at]
    sums = body.finish()
    file.write(sums)
    at = HEADER.size + body.size
    places += [at, len(sums)]
    words = [parts.ipv6_lengths >> shift & 0xFFFFFFFFFFFFFFFF for shift in (0, 64, 128)]
    header = HEADER.pack(MAGIC, VERSION, HEADER.size, len(parts.lists), key_id(key), built, at + len(sums), *places,
                         parts.labels, parts.depths, parts.ipv4_lengths, *words, parts.url_max,
                         parts.directory_max, bytes(DIGEST_SIZE))[:-DIGEST_SIZE]
    digest = sum_of(header + sums, key)
    file.seek(0)
    file.write(header + digest)
    return digest.hex()


def chunks(rows: bytes | memoryview | Merge) -> Iterable[bytes | memoryview]:
    return read_merge(rows) if isinstance(rows, Merge) else [rows]


def read_merge(rows: Merge) -> Iterator[memoryview]:
    buffer = bytearray(CHUNK)
    while size := rows.read_into(buffer):
        yield memoryview(buffer)[:size]


def pack(parts: Compiled, key: Key, built: int) -> bytes:
    """One snapshot as bytes."""
    file = io.BytesIO()
    write(file, parts, key, built)
    return file.getvalue()


def open_snapshot(data: bytes | memoryview, key: Key, source: str = "snapshot", *, verify: str = ALL) -> Snapshot:
    """The snapshot in `data`, not copied.

    Args:
        verify: ALL of it; the TABLE of the lists and the addresses, where nobody is going to look at names; or only
            the HEAD, where somebody has opened these very bytes before and nobody can have changed them since.

    Raises:
        ListError: no snapshot, or one that is cut, altered, of another version or under another key.
    """
    view = memoryview(data).cast("B").toreadonly()
    if len(view) < HEADER.size or view[:8] != MAGIC:
        raise ListError(f"{source}: is no edgeblock snapshot; build it with `edgeblock compile`")
    version = int.from_bytes(view[VERSION_AT:VERSION_AT + 2], "little")
    if version not in HEADERS:
        raise ListError(f"{source}: is of version {version}, this edgeblock reads {VERSION}; build it again")
    header = HEADERS[version]
    (_, _, _, count, made_with, built, total, *rest) = header.unpack_from(view)
    if made_with != key_id(key):
        raise ListError(f"{source}: was built under another key; build it with the key of this box")
    if total != len(view):
        raise ListError(f"{source}: has {len(view)} of {total} bytes; build or copy it again")
    places = places_of(view)
    bounds = rest[len(places):-1]
    sections = []
    for at, size in zip(places[::2], places[1::2], strict=True):
        if at > total or size > total - at:
            raise ListError(f"{source}: has a section that lies outside; build it again")
        sections.append(view[at:at + size])
    lists, bitmap, ipv4, *later, rows, sums = sections
    addresses, windows, ranges, terms = (*later, *[view[:0]] * 4)[:4]
    digest = sum_of(bytes(view[:header.size - DIGEST_SIZE]) + bytes(sums), key)
    if not hmac.compare_digest(digest, rest[-1]) or verify != HEAD and not is_whole(view, places, sums, key, verify):
        raise ListError(f"{source}: was altered (its digest does not match); build or copy it again")
    if len(rows) % ROW_SIZE or len(addresses) % ADDRESS.size:
        raise ListError(f"{source}: has a row that is cut; build it again")
    records, about, sets = read_lists(lists, count, source)
    parts = Compiled(records, bitmap, rows, ipv4, bounds[0], bounds[1], bounds[2],
                     bounds[3] | bounds[4] << 64 | bounds[5] << 128, bounds[6], bounds[7],
                     addresses=addresses, windows={**parted(windows)}, terms={**parted(terms)},
                     client_sets=read_sets(ranges, sets, source), **about)
    return Snapshot(view, key, built, digest.hex(), parts)


def check_whole(snapshot: Snapshot, source: str) -> None:
    """What `open_snapshot` does with ALL, of one that was opened with less.

    Raises:
        ListError: it was altered.
    """
    view = snapshot.data
    places = places_of(view)
    if not is_whole(view, places, view[places[-2]:places[-2] + places[-1]], snapshot.key, ALL):
        raise ListError(f"{source}: was altered (its digest does not match); build or copy it again")


def places_of(view: memoryview) -> list[int]:
    """Where each section begins and its size, one after the other, the sums last; of a version that is known."""
    version = int.from_bytes(view[VERSION_AT:VERSION_AT + 2], "little")
    return list(HEADERS[version].unpack_from(view)[FIXED:FIXED + 2 * SECTIONS[version]])


def is_whole(view: memoryview, places: list[int], sums: memoryview, key: Key, verify: str) -> bool:
    """Whether every chunk that is to be verified has its sum, and the sections are all there is: one behind the
    other."""
    start = at = places[0]
    if start not in (header.size for header in HEADERS.values()):
        return False
    for begins, size in zip(places[::2], places[1::2], strict=True):
        if begins != at:
            return False
        at += size
    body = view[start:places[-2]]
    if at != len(view) or len(sums) != -(-len(body) // CHUNK) * DIGEST_SIZE:
        return False
    wanted = range(len(sums) // DIGEST_SIZE) if verify == ALL else {
        i for begins, size in (places[0:2], (places[4], places[-4] - places[4]))    # lists, addresses, terms
        for i in range((begins - start) // CHUNK, -(-(begins - start + size) // CHUNK))}
    return all(hmac.compare_digest(sum_of(body[i * CHUNK:(i + 1) * CHUNK], key),
                                   sums[i * DIGEST_SIZE:(i + 1) * DIGEST_SIZE]) for i in wanted)


def read_sets(section: memoryview, table: list[tuple[str, int, int, int]], source: str) -> list[ClientSet]:
    """The sets of clients, as the table says where each of them ends."""
    made, at = [], 0
    for sum_, count, size4, size6 in table:
        made.append(ClientSet(sum_, count, section[at:at + size4], section[at + size4:at + size4 + size6]))
        at += size4 + size6
    if at != len(section):
        raise ListError(f"{source}: has a set of clients that is cut; build it again")
    return made


def read_lists(section: memoryview, count: int,
               source: str) -> tuple[list[ListRecord], dict[str, Any], list[tuple[str, int, int, int]]]:
    """The table, what else stands there of Compiled, and what is said of each set of clients."""
    base, below = "", []
    sets: list[tuple[str, int, int, int]] = []
    about: dict[str, Any] = {}
    try:
        table = json.loads(bytes(section))
        if isinstance(table, dict):
            base, below = table["base"], table["below"]
            about = {"nat64": tuple(map(str, table.get("nat64", ()))),
                     "at_ipv4": int(table.get("at_ipv4", 0)), "at_ipv6": int(table.get("at_ipv6", 0))}
            if not 0 <= about["at_ipv4"] < 1 << 33 or not 0 <= about["at_ipv6"] < 1 << 129 or any(
                    ipaddress.IPv6Network(one).prefixlen not in NAT64_LENGTHS for one in about["nat64"]):
                raise ValueError
            sets = [(str(sum_), int(many), int(size4), int(size6))
                    for sum_, many, size4, size6 in table.get("clients", ())]
            if any(size4 < 0 or size4 % 8 or size6 < 0 or size6 % 32 for _, _, size4, size6 in sets):
                raise ValueError
            table = table["lists"]
        lists = [ListRecord(**record) for record in table]
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        lists = []
    if len(lists) != count or count > LISTS_MAX or any(
            record.action not in LIST_ACTIONS or record.clients not in WHOM or not isinstance(record.name, str)
            for record in lists):
        raise ListError(f"{source}: has a list table that cannot be read; build it again")
    if not isinstance(base, str) or not isinstance(below, list) or len(below) != (count if base else 0) or not all(
            type(at) is int and -1 <= at < LISTS_MAX for at in below):
        raise ListError(f"{source}: has a list table that cannot be read; build it again")
    return lists, {**about, "base": base, "below": below}, sets
