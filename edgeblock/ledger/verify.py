"""Whether a ledger is as it was written, and where it is not: segment, record and what is wrong, one line each.

In: a ledger's directory, the public keys of its box, and the heads that somebody has kept. Out: Verified. What
records and heads say of each other is all that is needed; heads that were kept elsewhere find what whoever has the
box's key could have written anew. Never here: anything written, or a secret key.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from edgeblock.blocklist.signature import PublicKey
from edgeblock.errors import EdgeblockError, SystemProblem
from edgeblock.ledger.heads import FIRST, HEAD_MAX, Head, Signed, is_by, parse_signed, read_public
from edgeblock.ledger.merkle import Tree
from edgeblock.ledger.records import NOTHING, BadRecord, Record, parse
from edgeblock.ledger.segments import Segment, lines, segments

PROBLEMS_MAX = 50           # that are told one by one
PUBLIC_MAX = 4096           # bytes of a file with a public key
KEPT_MAX = 64 << 20         # bytes of a file with heads, such as a log


@dataclass
class Verified:
    """`problems` say what is wrong, and where; `notes` what a reader should know and is not wrong."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    records: int = 0
    segments: int = 0
    heads: int = 0              # of those that somebody has kept, how many fit
    first: str = ""             # moments of the first and last record
    last: str = ""
    aged: int = 0               # times that segments went for their age
    more: int = 0               # problems that are not told one by one
    dropped: int = 0            # the last segment whose records were removed as the settings say

    def say(self, problem: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)
        else:
            self.more += 1


@dataclass
class Chain:
    """Where the reading stands: what the next record, and the next head, have to follow."""

    seq: int | None = None      # None: nothing is known of what was before
    digest: str = ""
    previous: str = ""          # "": nor of that


def verify(directory: Path, keys: Sequence[PublicKey], kept: Iterable[Signed] = (), whole: bool = True) -> Verified:
    """All of a ledger, under these public keys, with the heads that were kept elsewhere. Where it is not the whole,
    but some of its segments (an export), what is before and after is not missed.

    Raises:
        SystemProblem: it cannot be read.
    """
    made = Verified()
    there = segments(directory)
    if not there:
        raise SystemProblem(f"{directory}: no ledger is there; name its directory")
    outside: dict[int, list[Signed]] = {}
    for one in kept:
        outside.setdefault(one.head.segment, []).append(one)
    chain = Chain(0, NOTHING, FIRST) if there[0].number == 1 else Chain()
    if whole and there[0].number != 1:
        made.say(f"segments 1 to {there[0].number - 1} are gone, with their heads")
    with_records = [segment.number for segment in there if segment.records]
    begun = with_records[0] if with_records else there[-1].number + 1
    number = there[0].number
    for segment in there:
        if segment.number > number:
            made.say(missing(number, segment.number))
            chain = Chain()
        elif segment.number < number:
            made.say(f"segment {segment.name}: there are two of this number")
        Reading(made, segment, chain, list(keys), outside.pop(segment.number, []),
                is_newest=segment is there[-1], may_be_gone=segment.number < begun).read()
        number = segment.number + 1
    if whole and made.dropped < begun - 1:
        gone = range(made.dropped + 1, begun)
        made.say(f"segment {gone[0]}: its records are missing" if len(gone) == 1 else
                 f"segments {gone[0]} to {gone[-1]}: their records are missing, and no record says that they were "
                 "dropped")
    if made.aged:
        made.notes.append(f"segments went for their age, as the settings say: {made.aged} times, up to segment "
                          f"{made.dropped}")
    last = there[-1].number
    for some in outside.values():
        if not whole and not there[0].number <= some[0].head.segment <= last:
            continue
        head = some[-1].head
        made.say(f"segment {head.segment} of {head.day}: is not there, and the head of {head.time} that was kept "
                 f"says that it had {head.records} records; the ledger is older than that, or was cut")
    return made


def missing(first: int, after: int) -> str:
    return f"segment {first} is missing" if after == first + 1 else f"segments {first} to {after - 1} are missing"


class Reading:
    """One segment."""

    def __init__(self, made: Verified, segment: Segment, chain: Chain, keys: list[PublicKey], kept: list[Signed],
                 is_newest: bool, may_be_gone: bool) -> None:
        self.made, self.segment, self.chain, self.keys = made, segment, chain, keys
        self.kept = sorted(kept, key=lambda one: one.head.records)
        self.is_newest, self.may_be_gone = is_newest, may_be_gone
        self.where = f"segment {segment.name}"
        self.damaged = False

    def read(self) -> None:
        signed = self._own_head()
        for one in self.kept:
            if why := is_by(one, self.keys):
                self.made.say(f"{self.where}: a head that was kept, of {one.head.time}: {why}")
        self.kept = [one for one in self.kept if not is_by(one, self.keys)]
        if self.segment.records is None:
            self._without_records(signed)
        else:
            self._with_records(signed, list(lines(self.segment.records)))
        if signed is not None:
            self.chain.previous = signed.head.digest
        elif not self.is_newest:
            self.chain.previous = ""

    def _own_head(self) -> Signed | None:
        if self.segment.head is None:
            if not self.is_newest and not self.damaged:
                self.made.say(f"{self.where}: its head is missing")
            if self.is_newest:
                self.made.notes.append(f"{self.where}: has no head: none was signed yet, or somebody has removed it, "
                                       "which heads that were kept elsewhere find")
            return None
        try:
            signed = parse_signed(self.segment.head.read_bytes()[:HEAD_MAX + 1])
        except OSError as problem:
            raise SystemProblem(f"{self.segment.head}: cannot be read: {problem.strerror}; run this as root"
                                ) from None
        except ValueError as problem:
            self.made.say(f"{self.where}: its head {problem}")
            return None
        if why := is_by(signed, self.keys):
            self.made.say(f"{self.where}: its head: {why}")
            return None
        head = signed.head
        if (head.segment, head.day) != (self.segment.number, self.segment.day):
            self.made.say(f"{self.where}: its head is of segment {head.segment} of {head.day}")
            return None
        if self.chain.previous and head.previous != self.chain.previous:
            self.made.say(f"{self.where}: its head does not follow the head of the segment before, which was altered "
                          "or replaced")
        return signed

    def _without_records(self, signed: Signed | None) -> None:
        if not self.may_be_gone:
            self.made.say(f"{self.where}: its records are missing")
        for one in self.kept:
            if signed is not None and one.head == signed.head:
                self.made.heads += 1
            elif signed is None or one.head.complete or one.head.records > signed.head.records or \
                    (one.head.first, one.head.previous) != (signed.head.first, signed.head.previous):
                self.made.say(f"{self.where}: its head is not the one of {one.head.time} that was kept")
            else:
                self.made.notes.append(f"{self.where}: the head of {one.head.time} that was kept, with "
                                       f"{one.head.records} records, cannot be compared: the records were dropped")
        if signed is None:
            self.chain.seq, self.chain.digest = None, ""
            return
        self._follows(signed.head.first, None)
        self.chain.seq, self.chain.digest = signed.head.first + signed.head.records - 1, signed.head.last

    def _follows(self, first: int, prev: str | None) -> None:
        if self.chain.seq is not None and first > self.chain.seq + 1:
            self.made.say(f"{self.where}: begins with record {first}, and record {self.chain.seq} was the last "
                          "before; those between were removed")

    def _with_records(self, signed: Signed | None, found: list[tuple[bytes, bool]]) -> None:
        records = list(self._records(found))
        if records and records[0] is not None and records[0].kind == "damaged":
            # It follows on the last good one, and not on what stands behind that.
            damaged = records[0].fields
            self.made.say(f"{self.where}: record {records[0].seq}: at a start segment {damaged.get('segment')} was "
                          f"found not as it was written, with {damaged.get('records')} good records")
            self.chain.seq, self.chain.digest = None, ""
        self._chained(records)
        good = [record for record in records if record is not None]
        self.made.segments += 1
        self.made.records += len(good)
        for record in good[:1]:
            self.made.first = self.made.first or record.time
        for record in good[-1:]:
            self.made.last = record.time
        for record in good:
            if record.kind == "dropped" and type(record.fields.get("last")) is int:
                self.made.dropped = max(self.made.dropped, record.fields["last"])
            if record.kind == "dropped" and record.fields.get("code") != "size":
                self.made.aged += 1
            elif record.kind in ("recovered", "gap", "clock", "dropped", "unrecorded"):
                said = " ".join(f"{name}={value}" for name, value in record.fields.items())
                self.made.notes.append(f"record {record.seq} of {record.time}: {record.kind}: {said}")
        told = [line for line, _ in found]
        if signed is not None:
            self._fits(signed.head, told, "its head", exactly=signed.head.complete)
            if not signed.head.complete and not self.is_newest and not self.damaged:
                self.made.notes.append(f"{self.where}: its last head is of {signed.head.time}, and none was signed "
                                       "when it was complete")
        fitted = 0
        for one in self.kept:
            if self._fits(one.head, told, f"the head of {one.head.time} that was kept", exactly=one.head.complete,
                          after=fitted):
                fitted = one.head.records
                self.made.heads += 1

    def _records(self, found: list[tuple[bytes, bool]]) -> Iterator[Record | None]:
        for number, (line, whole) in enumerate(found, 1):
            try:
                record = parse(line)
            except BadRecord as problem:
                record = None
                self.damaged = True
                ending = number == len(found) and not whole
                self.made.say(f"{self.where}: line {number}: ends in the middle of a record: the end was cut off"
                              if ending else f"{self.where}: line {number}: was altered: {problem}")
            else:
                if not whole:
                    self.damaged = True
                    self.made.say(f"{self.where}: line {number}: its line end was cut off")
            yield record

    def _chained(self, records: list[Record | None]) -> None:
        """Says which record does not follow the one before."""
        chain = self.chain
        for index, record in enumerate(records):
            if record is None:
                # Its number is known where the one after it is: it was one line.
                chain.seq, chain.digest = (None if chain.seq is None else chain.seq + 1), ""
                continue
            where = f"{self.where}: record {record.seq} (line {index + 1})"
            if chain.seq is not None and record.seq != chain.seq + 1:
                self.damaged = True
                self.made.say(self._misplaced(where, record, chain.seq, records))
            elif chain.digest and record.prev != chain.digest:
                self.damaged = True
                after = records[index + 1] if index + 1 < len(records) else None
                own = after is not None and after.prev != record.digest
                which = f"{where}: was altered, or put in the place of another" if own or chain.seq == 0 else \
                    f"{self.where}: record {record.seq - 1}: was altered: the record after it was made on another"
                self.made.say(which)
            chain.seq, chain.digest = record.seq, record.digest

    def _misplaced(self, where: str, record: Record, seq: int, records: list[Record | None]) -> str:
        wanted = seq + 1
        if any(one is not None and one.seq == wanted for one in records):
            return f"{where}: is out of its order: record {wanted} should stand here"
        if record.seq > wanted:
            one = record.seq == wanted + 1
            gone = f"record {wanted} was" if one else f"records {wanted} to {record.seq - 1} were"
            return f"{where}: {gone} removed before it"
        return f"{where}: is there twice, or of another ledger: record {wanted} should stand here"

    def _fits(self, head: Head, told: list[bytes], what: str, exactly: bool, after: int = 0) -> bool:
        if head.records < 1:
            self.made.say(f"{self.where}: {what} is of no record")
            return False
        if len(told) < head.records:
            self.made.say(f"{self.where}: {what} says that there are {head.records} records, and there are "
                          f"{len(told)}: the end was cut off, or an older ledger was put in its place")
            return False
        if Tree(told[:head.records]).root().hex() != head.root:
            if not self.damaged or what != "its head":
                self.made.say(f"{self.where}: {what} does not fit: something among records {head.first + after} to "
                              f"{head.first + head.records - 1} is another than when it was signed")
            self.damaged = True
            return False
        same = {"day": head.day == self.segment.day, "first": head.first == seq_of(told[0]),
                "last": head.last == sha256(told[head.records - 1]).hexdigest(),
                "previous": what == "its head" or self.chain.previous in ("", head.previous)}
        if wrong := [name for name, is_same in same.items() if not is_same]:
            self.made.say(f"{self.where}: {what} says another `{wrong[0]}` than there is: one was replaced")
            return False
        if exactly and len(told) > head.records:
            self.made.say(f"{self.where}: {what} says that it is complete with {head.records} records, and there are "
                          f"{len(told)}: something was added")
            return False
        return True


def seq_of(line: bytes) -> int:
    try:
        return parse(line).seq
    except BadRecord:
        return 0


# What somebody has kept --------------------------------------------------------------------------------------------

def kept_heads(paths: Iterable[Path]) -> list[Signed]:
    """The heads in files, and in the directories, that are named: files of heads, exports, logs with heads in them.

    Raises:
        EdgeblockError: one cannot be read, or has no head.
    """
    found: list[Signed] = []
    for path in paths:
        try:
            files = sorted(one for one in path.iterdir() if one.suffix == ".head") if path.is_dir() else [path]
            some = [head for one in files for head in heads_in(one)]
        except OSError as problem:
            raise SystemProblem(f"{path}: cannot be read: {problem.strerror}") from None
        if not some:
            raise SystemProblem(f"{path}: has no head of a ledger; name what was kept: .head files, a log or an "
                                "export")
        found += some
    return found


def heads_in(path: Path) -> Iterator[Signed]:
    with open(path, "rb") as file:
        text = file.read(KEPT_MAX + 1)
    if len(text) > KEPT_MAX:
        raise SystemProblem(f"{path}: is longer than {KEPT_MAX} bytes; name the lines with heads alone")
    try:
        yield parse_signed(text)
        return
    except (ValueError, RecursionError):
        pass
    for line in text.splitlines():
        at = line.find(b"{")
        if at < 0 or b'"signed"' not in line:
            continue
        try:
            yield parse_signed(json.loads(line[at:])["signed"].encode())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue


def text_at(named: str) -> str:
    """What is in the file of that name; the name itself where there is none."""
    try:
        with open(named, "rb") as file:
            return file.read(PUBLIC_MAX).decode("ascii", "replace")
    except FileNotFoundError:
        return named
    except (OSError, ValueError) as problem:
        raise SystemProblem(f"--public {named}: cannot be read: {getattr(problem, 'strerror', None) or problem}; "
                            "name a .pub file, or its 56 characters") from None


def public_keys(directory: Path, named: Sequence[str]) -> tuple[list[PublicKey], str]:
    """The public keys that are named, each as a file or as its 56 characters; without any, the ledger's own. And what
    is to be said of that.

    Raises:
        EdgeblockError: one is none, or cannot be read.
    """
    if named:
        return [read_public(text_at(one), "--public") for one in named], ""
    own = directory / "key.pub"
    try:
        text = own.read_text()
    except OSError as problem:
        raise SystemProblem(f"{own}: cannot be read: {problem.strerror}; give the public key of the box with --public"
                            ) from None
    try:
        return [read_public(text, str(own))], (
            "the key is the one that lies beside the ledger: whoever can write there can have made both; give the "
            "key that you were handed with --public")
    except EdgeblockError as problem:
        raise SystemProblem(f"{own}: {problem}") from None
