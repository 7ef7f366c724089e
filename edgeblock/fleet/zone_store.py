"""A zone as one file in a stable order: whole, or the file before with an increment in it.

In: records in any order and number; a file that was made here, and what has changed. Out: a new file, its SHA-256,
how many records it has. Never here: a zone in memory. A whole zone is sorted in runs on disk, an increment goes
through the old file once. The same records make the same bytes, whichever way they came.

    $ORIGIN rpz.example.
    $TTL 300                    that of the SOA record; a record with another one says it
    @ SOA ns.example. ...
    bad.example CNAME .         then all others, in the order of their bytes
"""

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgeblock.fleet.zone_wire import Soa, type_text

RUN = 100_000               # lines that are sorted in memory: about 15 MB
RUN_BYTES = 32 << 20        # and the most bytes of them, whatever they are
BATCH = 1 << 20             # bytes of lines that are written at once
OWNER_MAX = 16 << 20        # bytes of the records of one owner in the old file, which are in memory
BLOCK = 1 << 20             # bytes of the old file in memory
HEAD_MAX = 4096             # bytes of a line of the head: two names and five numbers

Change = tuple[bool, int, int, bytes]       # whether it comes, TTL, type, data


class Unfit(Exception):
    """An increment cannot be put into the file that is there; the whole zone is needed. The text says why."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was made: SHA-256 in hexadecimal, records without the SOA, bytes."""

    digest: str
    records: int
    size: int


class Output:
    """A file that is written, and its digest on the way."""

    def __init__(self, file: BinaryIO, zone: bytes, soa: Soa) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.size = 0
        self.write(b"$ORIGIN %s\n$TTL %d\n@ SOA %s\n" % (zone, soa.ttl, soa.data))

    def write(self, data: bytes | memoryview) -> None:
        self.file.write(data)
        self.digest.update(data)
        self.size += len(data)

    def written(self, records: int) -> Written:
        return Written(self.digest.hexdigest(), records, self.size)


def line_of(owner: bytes, ttl: int, kind: int, data: bytes, usual: int) -> bytes:
    if ttl == usual:
        return b"%s %s %s\n" % (owner, type_text(kind), data)
    return b"%s %d %s %s\n" % (owner, ttl, type_text(kind), data)


class Whole:
    """A whole zone, sorted on disk as it comes. `folder` holds the runs, until `write` or `close`."""

    def __init__(self, folder: Path, soa: Soa) -> None:
        self.folder = folder
        self.soa = soa
        self.lines: list[bytes] = []
        self.runs: list[BinaryIO] = []
        self.size = 0               # bytes of all lines
        self._spilt = 0             # of those that are on disk

    def add(self, owner: bytes, ttl: int, kind: int, data: bytes) -> None:
        line = line_of(owner, ttl, kind, data, self.soa.ttl)
        self.lines.append(line)
        self.size += len(line)

    @property
    def is_full(self) -> bool:
        """A run is to be sorted and spilt."""
        return len(self.lines) >= RUN or self.size - self._spilt >= RUN_BYTES

    def spill(self) -> None:
        self.lines.sort()
        path = self.folder / f"run-{len(self.runs)}"
        file = path.open("w+b")
        self.runs.append(file)
        path.unlink()               # nobody else needs its name, and nothing is left when this process ends
        file.writelines(self.lines)
        self.lines.clear()
        self._spilt = self.size
        file.seek(0)

    def write(self, path: Path, zone: bytes) -> Written:
        self.lines.sort()
        merged: Iterable[bytes] = heapq.merge(*self.runs, self.lines) if self.runs else self.lines
        records, last = 0, b""
        with path.open("xb") as file:
            output = Output(file, zone, self.soa)
            batch: list[bytes] = []
            waiting = 0
            for line in merged:
                if line != last:    # a set has each record once (RFC 2181, 5)
                    batch.append(line)
                    last = line
                    waiting += len(line)
                    if waiting >= BATCH:
                        records += len(batch)
                        output.write(b"".join(batch))
                        batch.clear()
                        waiting = 0
            output.write(b"".join(batch))
        self.close()
        return output.written(records + len(batch))

    def close(self) -> None:
        for run in self.runs:
            run.close()
        self.runs.clear()
        self.lines.clear()


def usual_ttl(path: Path) -> int:
    """What the $TTL line of a file says; raises Unfit where there is none."""
    try:
        with path.open("rb") as file:
            file.readline(HEAD_MAX)
            words = file.readline(HEAD_MAX).split()
            return int(words[1])
    except (OSError, ValueError, IndexError):
        raise Unfit(f"{path.name} is not there any more, or is not what was written") from None


def increment(old: Path, digest: str, records: int, changes: dict[bytes, list[Change]], soa: Soa, new: Path,
              zone: bytes) -> Written:
    """The old file with the changes in it. `digest` and `records` are what was written when it was made.

    Changes of one owner are made in their order. Raises Unfit: the old file is another one, what goes is not there,
    what comes is there already, or the usual TTL has changed.
    """
    if usual_ttl(old) != soa.ttl:
        raise Unfit("the TTL of its SOA record is another one now")
    seen = hashlib.sha256()
    left = sorted(((owner + b" ", of) for owner, of in changes.items()), reverse=True)
    try:
        with old.open("rb") as source, new.open("xb") as file:
            output = Output(file, zone, soa)
            for _ in range(3):
                seen.update(source.readline(HEAD_MAX))
            for block in blocks(source, seen):
                at = 0
                last = block.rfind(b"\n", 0, -1) + 1
                last_owner = block[last:block.find(b" ", last) + 1]
                view = memoryview(block)
                while left and left[-1][0] <= last_owner:
                    prefix, of = left.pop()
                    begin = find(block, prefix, at)
                    end = behind(block, prefix, begin)
                    output.write(view[at:begin])
                    lines = changed(block[begin:end], prefix, of, soa.ttl)
                    records += len(lines) - block.count(b"\n", begin, end)
                    output.write(b"".join(lines))
                    at = end
                output.write(view[at:])
            while left:
                prefix, of = left.pop()
                lines = changed(b"", prefix, of, soa.ttl)
                records += len(lines)
                output.write(b"".join(lines))
        if seen.hexdigest() != digest:
            raise Unfit(f"{old.name} is not what was written")
    except (Unfit, OSError):
        new.unlink(missing_ok=True)
        raise
    return output.written(records)


def blocks(source: BinaryIO, seen: "hashlib._Hash") -> Iterator[bytes]:
    """The rest of a file in pieces that end where the records of an owner end."""
    tail = b""
    while block := source.read(BLOCK):
        seen.update(block)
        block = tail + block
        cut = last_owner_at(block)
        if cut:
            yield block[:cut]
        tail = block[cut:]
        if len(tail) > OWNER_MAX:
            raise Unfit(f"the records of one name have more than {OWNER_MAX >> 20} MiB")
    if tail[-1:] not in (b"", b"\n"):
        raise Unfit("the file ends in the middle of a line")
    if tail:
        yield tail


def last_owner_at(block: bytes) -> int:
    """Where the records of the owner of the last whole line begin; 0 where no other is before it."""
    end = block.rfind(b"\n")
    if end < 0:
        return 0
    start = block.rfind(b"\n", 0, end) + 1
    prefix = block[start:block.find(b" ", start, end) + 1]
    while start:
        before = block.rfind(b"\n", 0, start - 1) + 1
        if not block.startswith(prefix, before):
            break
        start = before
    return start


def find(block: bytes, prefix: bytes, low: int) -> int:
    """The first line from `low` on that is not before `prefix`."""
    high = len(block)
    while low < high:
        start = block.rfind(b"\n", low, (low + high) // 2) + 1 or low
        end = block.index(b"\n", start) + 1
        if block[start:end] < prefix:
            low = end
        else:
            high = start
    return low


def behind(block: bytes, prefix: bytes, at: int) -> int:
    while block.startswith(prefix, at):
        at = block.index(b"\n", at) + 1
    return at


def changed(lines: bytes, prefix: bytes, changes: list[Change], usual: int) -> list[bytes]:
    """The lines of one owner after the changes."""
    owner = prefix[:-1]
    there: dict[bytes, bytes] = {}
    for line in lines.splitlines(keepends=True):
        words = line[len(prefix):]
        there[words.partition(b" ")[2] if words[:1].isdigit() else words] = line
    for comes, ttl, kind, data in changes:
        key = b"%s %s\n" % (type_text(kind), data)
        if comes == (key in there):
            raise Unfit(f"{owner.decode()} {type_text(kind).decode()} "
                        + ("comes, but is there already" if comes else "goes, but is not there"))
        if comes:
            there[key] = line_of(owner, ttl, kind, data, usual)
        else:
            del there[key]          # its TTL does not matter (RFC 2136, 2.5.4)
    return sorted(there.values())
