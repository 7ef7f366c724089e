"""The ledger as it is written: one record after the other, whatever ends the process between two steps.

In: records to be made; the settings' bounds. Out: segments whose every byte is a good record or will be cut off at
the next `open`; heads that never say more than is on the disk. An OSError leaves everything as it was before the
call, and the call can be made again. One thread at a time. Never here: a clock, a queue, or what a record is about.
"""

import fcntl
import os
from collections import Counter
from contextlib import ExitStack, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from edgeblock.blocklist.store import sync_directory, write_file
from edgeblock.ledger.heads import FIRST, BoxKey, Head, Signed, parse_signed, read_key
from edgeblock.ledger.merkle import Tree
from edgeblock.ledger.records import NOTHING, BadRecord, Record, moment, parse, spell
from edgeblock.ledger.segments import SEGMENT_MAX, Segment, name_of, segments


class Scan(NamedTuple):
    """What is good of a segment, from its beginning: bytes, the records as a tree, the first seq, the last record;
    and what follows: bytes, and whether there are records among them."""

    size: int
    tree: Tree
    first: int
    last: Record | None
    rest: bytes
    more: bool


def scan(data: bytes) -> Scan:
    """Of the bytes of a segment's file."""
    tree, last, first, at = Tree(), None, 0, 0
    while (end := data.find(b"\n", at)) >= 0:
        try:
            record = parse(data[at:end])
        except BadRecord:
            break
        if last is not None and (record.seq != last.seq + 1 or record.prev != last.digest):
            break
        first = first or record.seq
        tree.add(record.line)
        last, at = record, end + 1
    rest = data[at:]
    return Scan(at, tree, first, last, rest, any(map(is_record, rest.split(b"\n")[:-1])))


def is_record(line: bytes) -> bool:
    try:
        parse(line)
    except BadRecord:
        return False
    return True


class Book:
    """`open`, then `write`, `sync` and `sign`, then `close`.

    Args:
        keep_days: so many days are kept before the one that is being written, of those that there are.
        max_bytes: of all records; where there are more, the oldest segments are removed.
    """

    def __init__(self, directory: Path, keep_days: int = 400, max_bytes: int = 1 << 30) -> None:
        self.directory, self.keep_days, self.max_bytes = directory, keep_days, max_bytes
        self.seq, self.digest, self.last_at = 0, NOTHING, 0     # of the last record; its moment, 0 where nobody knows
        self.last_kind = ""
        self.head: Signed | None = None         # the one that was signed last
        self.notes: list[tuple[str, dict[str, Any]]] = []       # records that are to be made of what was found
        self._lock = self._file = -1
        self._key: BoxKey | None = None
        self._ended = "", 0                     # kind and moment of the last record that was there
        self._number, self._day, self._first, self._size, self._tree = 0, "", 0, 0, Tree()
        self._previous = FIRST                  # digest of the head of the segment before
        self._unsigned = self._complete = False
        self._path = directory                  # of the segment that is written
        self._fresh: list[bytes] = []           # its last bytes, which may not be on the disk
        self.is_doubtful = False                # whether the kernel may have dropped them, and says so no more

    @property
    def key(self) -> BoxKey:
        assert self._key is not None
        return self._key

    @property
    def is_open(self) -> bool:
        return self._lock >= 0

    @property
    def is_unsigned(self) -> bool:
        """Whether there are records that no head has."""
        return self._unsigned

    def end_before(self) -> dict[str, Any]:
        """How whoever wrote before has ended, as a `start` record says it."""
        kind, at = self._ended
        return {"clean": kind == "stop" if at else None, **({} if kind == "stop" or not at else {"last": moment(at)})}

    # ---- its beginning

    def open(self) -> None:
        """What is there is taken up again, without what is unfinished.

        Raises:
            OSError, SystemProblem: it cannot be written, or another process writes it.
        """
        self.close()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with ExitStack() as undo:
            undo.callback(self.close)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in self.directory.glob(".*.tmp"):
                left.unlink(missing_ok=True)
            self.notes = []
            self._key, made = read_key(self.directory)
            if made:
                self.notes.append(("key", {"public": self.key.text, "id": str(self.key.public)}))
            self._take_up(segments(self.directory))
            self._ended = self.last_kind, self.last_at
            undo.pop_all()

    def _take_up(self, there: list[Segment]) -> None:
        self.seq, self.digest, self.last_at, self.last_kind = 0, NOTHING, 0, ""
        self.head, self._previous = None, FIRST
        self._fresh, self.is_doubtful = [], False
        while there and self._is_unbegun(there[-1]):
            there.pop()
        self._number = there[-1].number if there else 0
        if not there:
            return
        newest, found = there[-1], Scan(0, Tree(), 0, None, b"", False)
        heads = [head for one in there if (head := read_head(one))]
        self.head = heads[-1] if heads else None
        own = self.head if self.head and self.head.head.segment == newest.number else None
        before = [head for head in heads if head is not own]
        data = b""
        if newest.records is not None:
            found = scan(data := newest.records.read_bytes())
        lacks = own is not None and own.head.records > found.tree.size
        if newest.records is None or found.last is None or found.more or lacks:
            if newest.records is not None:      # else they were dropped, or are gone, which `verify` tells apart
                self.notes.append(("damaged", {"segment": newest.number, "records": found.tree.size}))
            if found.last is not None:
                self._follow(found.last)
            elif heads:
                self.seq, self.digest = heads[-1].head.first + heads[-1].head.records - 1, heads[-1].head.last
            self._previous = heads[-1].head.digest if heads else FIRST
            return
        if found.rest:
            self.notes.append(("recovered", {"segment": newest.number, "bytes": len(found.rest),
                                             "sha256": sha256(found.rest).hexdigest()}))
            cut(newest.records, found.size)
        self._follow(found.last)
        self._previous = before[-1].head.digest if before else FIRST
        self._file = os.open(newest.records, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._day, self._size, self._tree, self._first = newest.day, found.size, found.tree, found.first
        self._path = newest.records
        # The process before may have been told that the disk has failed, and the kernel says that once.
        self._fresh, self.is_doubtful = [data[end_of(own.head.records if own else 0, data):found.size]], True
        self._unsigned = own is None or own.head.records < found.tree.size
        self._complete = own is not None and own.head.complete

    def _is_unbegun(self, segment: Segment) -> bool:
        """Whether its process has ended before its first record was whole; then there is nothing of it any more."""
        if segment.records is None or segment.head is not None:
            return False
        found = scan(segment.records.read_bytes())
        if found.last is not None or found.more:
            return False
        if found.rest:
            self.notes.append(("recovered", {"segment": segment.number, "bytes": len(found.rest),
                                             "sha256": sha256(found.rest).hexdigest()}))
        segment.records.unlink()
        return True

    def _follow(self, last: Record) -> None:
        self.seq, self.digest, self.last_at, self.last_kind = last.seq, last.digest, last.at, last.kind

    # ---- records

    def write(self, at: int, kind: str, fields: dict[str, Any]) -> Record:
        """A record of that moment (Unix microseconds), behind the last.

        Raises:
            OSError: it cannot be written; nothing of it is there.
        """
        if self.is_doubtful:
            self.sync()                         # else what has to be written again would have no end
        day = moment(at)[:10]
        if self._file < 0 or self._complete or day != self._day or self._size >= SEGMENT_MAX:
            self._begin(day, at)
            self._drop_old(at)
        return self._add(at, kind, fields)

    def _add(self, at: int, kind: str, fields: dict[str, Any]) -> Record:
        record = spell(self.seq + 1, at, kind, fields, self.digest)
        self._put(record.line + b"\n")
        if not self._tree.size:
            self._first = record.seq
        self._tree.add(record.line)
        self._unsigned = True
        self._follow(record)
        return record

    def _put(self, data: bytes) -> None:
        done = 0
        try:
            while done < len(data):
                done += os.write(self._file, data[done:])
        except OSError:
            if done:
                with suppress(OSError):         # else the next `open` cuts it off
                    os.ftruncate(self._file, self._size)
                    done = 0
            if done:
                self.close()                    # nothing may follow half a record
            raise
        self._size += len(data)
        self._fresh.append(data)

    def _begin(self, day: str, at: int) -> None:
        if self._file >= 0:
            self.sync()
            if not self._complete:
                self.sign(at, complete=True)
            if self.head is not None and self.head.head.segment == self._number:
                self._previous = self.head.head.digest
            os.close(self._file)
            self._file = -1
        number = self._number + 1
        path = self.directory / f"{name_of(number, day)}.records"
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            sync_directory(self.directory)
        except OSError:
            os.close(file)
            path.unlink()
            raise
        self._file, self._number, self._day, self._size, self._tree = file, number, day, 0, Tree()
        self._path, self._fresh, self._unsigned, self._complete = path, [], False, False

    def _drop_old(self, at: int) -> None:
        """The records of segments that are too old, or too much together; their heads stay. Old are those with more
        days after them than are kept, of those that are there: what a clock says that was set wrong is no age."""
        kept = [one for one in segments(self.directory) if one.records is not None and one.head is not None]
        sizes = {one.number: one.records.stat().st_size for one in kept if one.records}
        total, days = sum(sizes.values()), Counter(one.day for one in kept if one.day != self._day)
        gone, code = [], "age"
        for one in kept:
            too_much = total > self.max_bytes - SEGMENT_MAX
            too_old = len(days) > self.keep_days
            if not too_old and not too_much:
                break
            code = code if too_old else "size"
            days = days - Counter([one.day])
            total -= sizes[one.number]
            gone.append(one)
        if gone:
            self._add(at, "dropped", {"first": gone[0].number, "last": gone[-1].number, "code": code})
            self.sync()                         # before they go: nothing goes unrecorded
        for one in gone:
            if one.records:
                one.records.unlink()

    # ---- what is certain

    def sync(self) -> None:
        """All records are on the disk. OSError where they may not be.

        Where writing failed Linux says so once: what it could not write counts as written from then on, and the next
        call succeeds. So the same bytes are written again, in their place: who is killed meanwhile leaves what was
        there."""
        if self._file < 0 or not self._fresh:
            return
        if self.is_doubtful:
            data = b"".join(self._fresh)
            with open(self._path, "r+b") as file:
                file.seek(self._size - len(data))
                file.write(data)
        self.is_doubtful = True                 # until it has succeeded
        os.fdatasync(self._file)
        self._fresh, self.is_doubtful = [], False

    def sign(self, at: int, complete: bool = False) -> Signed | None:
        """The head of what there is, on the disk; None where there is nothing new. OSError where it cannot be
        kept."""
        if self._file < 0 or not self._tree.size or not (self._unsigned or complete):
            return None
        self.sync()
        head = Head(self._number, self._day, self._first, self._tree.size, self._tree.root().hex(), self.digest,
                    self._previous, moment(at), complete)
        signed = self.key.sign(head, at // 1_000_000)
        write_file(self.directory / head.file, lambda file: file.write(signed.text))
        self.head, self._unsigned, self._complete = signed, False, complete
        return signed

    def close(self) -> None:
        """Lets it go as it is."""
        for file in (self._file, self._lock):
            if file >= 0:
                os.close(file)
        self._file = self._lock = -1


def read_head(segment: Segment) -> Signed | None:
    """None where there is none, or it is none."""
    if segment.head is None:
        return None
    try:
        return parse_signed(segment.head.read_bytes())
    except (OSError, ValueError):
        return None


def end_of(count: int, data: bytes) -> int:
    """Where in a segment's bytes so many records end."""
    at = 0
    for _ in range(count):
        at = data.index(b"\n", at) + 1
    return at


def cut(path: Path, size: int) -> None:
    """So many bytes of it stay, and that is on the disk."""
    with open(path, "r+b") as file:
        file.truncate(size)
        os.fsync(file.fileno())
