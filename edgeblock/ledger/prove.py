"""A proof that one entry was in force, and when: for who has the signed heads, and nothing else of this box.

In: the key of the box, its state directory, its ledger, an entry, two moments. Out: a JSON document (docs/ledger.md)
that opens the commitment to this entry and shows, for each span of time, the `in force` record at its begin, that the
list was in that record's table, and a record that shows until when it held: each with its path to a head. Never here:
another entry, or its salt.
"""

import io
import os
import re
import stat
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from edgeblock.blocklist.commitments import SIZE, Commitments
from edgeblock.blocklist.committed import CHUNK, hashed_text, leaves_of, root_of, text_of, window_of
from edgeblock.blocklist.fingerprint import fingerprint
from edgeblock.blocklist.formats import Entry, Problem, read_domains
from edgeblock.blocklist.keys import Key
from edgeblock.blocklist.store import PROOFS, read_key
from edgeblock.blocklist.terms import BadTerm, read_terms
from edgeblock.config import Config
from edgeblock.errors import ConfigError, SystemProblem
from edgeblock.ledger.heads import Signed
from edgeblock.ledger.merkle import Paths, Tree
from edgeblock.ledger.records import BadRecord, Record, canonical, microseconds, moment, parse
from edgeblock.ledger.segments import Segment, lines, segments

FORMAT = 1
VIEW_MAX = 2 << 30          # bytes of commitments: a hundred million entries of one list
ROOT = re.compile("[0-9a-f]{64}")
PERIODS_MAX = 10_000        # spans of time in one document


class Row(NamedTuple):
    """What is in force of a list: what its entries are committed to, what becomes of what it has, when it holds as a
    whole (JSON, "" for always) and for whom: "only" or "except" where that is not everybody."""

    name: str
    root: str
    action: str
    window: str
    clients: str

    @property
    def leaf(self) -> bytes:
        """What stands for it in the table of an `in force` record."""
        return canonical({"list": self.name, "root": self.root, "action": self.action, "window": self.window,
                          "clients": self.clients})


def row_of(name: str, said: Mapping[str, Any]) -> Row:
    """Of what the compiler, or a `taken` record, says of a list."""
    return Row(name, *(said.get(field, "") for field in Row._fields[1:]))


class Opening(NamedTuple):
    """One way in which an entry may have been committed to."""

    text: bytes
    salt: bytes
    commitment: bytes


class Found(NamedTuple):
    """Where a record is: in which segment, and as which of its records (from 0)."""

    segment: Segment
    place: int
    record: Record


class Span(NamedTuple):
    """A list had the entry in rules that were in force from one record on, and still were when another was made."""

    row: Row
    opening: Opening
    table: list[Row]
    begin: Found
    end: Found


def table_root(table: Iterable[Row]) -> str:
    """What these lists come to: a leaf for each, sorted."""
    return Tree(sorted(row.leaf for row in table)).root().hex()


def openings(key: Key, entry: str) -> list[Opening]:
    """How an entry, as a list of names and URLs has it, may have been committed to.

    Raises:
        ConfigError: it is none, or more than one.
    """
    found = list(read_domains(io.BytesIO(entry.encode() + b"\n")))
    wrong = next((one.why for one in found if isinstance(one, Problem)), "")
    entries = [one for one in found if isinstance(one, Entry)]
    if wrong or len(entries) != 1:
        raise ConfigError(f"{entry}: {wrong or 'is not one entry'}; write it as the list has it, a range prefix by "
                          "prefix")
    _, kind, text, exception, _, attributes = entries[0]
    maker = Commitments(key)
    terms = read_terms(attributes) if attributes else None
    made = []
    for one in (text_of(kind, text, exception, terms), hashed_text(kind, fingerprint(key, text), exception)):
        salt = maker.salt(one)
        maker.add(one)
        made.append(Opening(one, salt, bytes(memoryview(maker)[-SIZE:])))
    return made


class Proofs:
    """The commitments that are kept, by root."""

    def __init__(self, directory: Path, wanted: list[Opening]) -> None:
        self.directory, self.wanted = directory, wanted
        self.lacking: set[str] = set()          # roots of which they are not there any more, or are others
        self._known: dict[str, Opening | None] = {}

    def opening(self, root: str) -> Opening | None:
        """The one of those wanted that is among them; None where none is."""
        if root not in self._known:
            view = self.read(root)
            self._known[root] = None if view is None else next(
                (one for one in self.wanted if find(view, one.commitment) >= 0), None)
        return self._known[root]

    def read(self, root: str) -> bytes | None:
        """The process that reads lists may write there: what is no file, or does not come to its root, is none."""
        if root == Tree().root().hex():
            return None
        try:
            if ROOT.fullmatch(root) is None:
                raise OSError(f"{root!r} is no root")
            fd = os.open(self.directory / root, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                told = os.fstat(fd)
                if not stat.S_ISREG(told.st_mode) or told.st_size > VIEW_MAX:
                    raise OSError("is no file of commitments")
                with open(fd, "rb", closefd=False) as file:
                    view = file.read(VIEW_MAX)
            finally:
                os.close(fd)
            if root_of(view) != root:
                raise OSError("is another")
            return view
        except OSError:
            self.lacking.add(root)
            return None

    def shown(self, root: str, opening: Opening) -> dict[str, Any]:
        """That it is among them, for the document."""
        view = self.read(root)
        if view is None:
            raise SystemProblem(f"{self.directory / root}: was changed while it was read; ask again")
        index, leaves = find(view, opening.commitment), leaves_of(view)
        paths = Paths(leaves)
        return {"root": root, "text": opening.text.decode(), "salt": opening.salt.hex(), "place": index % CHUNK,
                "leaf": leaves[index // CHUNK].hex(), "index": index // CHUNK, "size": len(leaves),
                "path": hexed(paths.of(index // CHUNK))}


def find(view: bytes, commitment: bytes) -> int:
    """Which of sorted commitments it is; -1 where it is none."""
    at = bisect_left(range(len(view) // SIZE), commitment, key=lambda i: view[i * SIZE:(i + 1) * SIZE])
    return at if view[at * SIZE:(at + 1) * SIZE] == commitment else -1


def hexed(steps: list[bytes]) -> list[str]:
    return [step.hex() for step in steps]


def records_of(directory: Path) -> Iterator[Found]:
    for segment in segments(directory):
        for index, (line, _) in enumerate(lines(segment.records) if segment.records else ()):
            try:
                yield Found(segment, index, parse(line))
            except BadRecord:
                continue


class Replay:
    """The ledger from its beginning: which rules held from when to when."""

    def __init__(self, proofs: Proofs, first: int, last: int) -> None:
        self.proofs, self._first, self._last = proofs, first, last      # what is asked for, Unix microseconds
        self.unknown = 0                        # `in force` records of which nobody knows the lists
        self.open = 0                           # spans with the entry that may have held then; no record shows it
        self._table: dict[str, Row] = {}
        self._begun: Found | None = None        # the `in force` record that holds
        self._held: Found | None = None         # the last record that shows that it does
        self._shown: list[Row] | None = None    # what lists the one that holds is of; None while that is not known

    def spans(self, found: Iterable[Found]) -> Iterator[Span]:
        """Each span of time in which rules with the entry were in force."""
        for one in found:
            kind, fields = one.record.kind, one.record.fields
            if kind == "taken":
                self._table[fields["list"]] = row_of(fields["list"], fields)
            elif kind == "removed":
                self._table.pop(fields["list"], None)
            elif kind == "lists":
                if fields["part"] == 1:
                    self._table = {}
                self._table.update((name, Row(name, *more)) for name, *more in fields["lists"])
                if fields["part"] == fields["of"]:
                    self._learn()
            elif kind in ("start", "clock"):        # behind a `clock` record they are told anew
                yield from self._end(one.record.at)
            elif kind in ("pulse", "stop") and self._is_of(fields, "in_force", 0):
                self._held = one
            elif kind == "in force":
                if self._is_of(fields, "number", 1):
                    self._held = one
                yield from self._end()
                if fields["workers"] and fields["kernel"]:      # else nobody knows who has which
                    self._begun = one
                    self._learn()
        yield from self._end()

    def _is_of(self, fields: dict[str, Any], name: str, after: int) -> bool:
        return self._begun is not None and fields["run"] == self._begun.record.fields["run"] and \
            fields[name] == self._begun.record.fields["number"] + after

    def _learn(self) -> None:
        """What lists are in force, once they come to what the record says."""
        if self._begun is None or self._shown is not None:
            return
        if table_root(self._table.values()) == self._begun.record.fields["table"]:
            self._shown = sorted(self._table.values())

    def _end(self, begins: int = 1 << 62) -> Iterator[Span]:
        """`begins` is when the next one may have begun."""
        if self._begun is not None:
            since, until = self._begun.record.at, until_of((self._held or self._begun).record)
            if self._held is None or until < self._first and self._held.record.kind == "pulse":
                self.open += max(since, until, self._first) < min(begins, self._last) and any(
                    self.proofs.opening(row.root) for row in self._shown or ())
            elif since <= until and self._first <= until and since < self._last:
                self.unknown += self._shown is None
                for row in self._shown or ():
                    if is_open(row.window, since // 1_000_000, until // 1_000_000 + 1) and \
                            (opening := self.proofs.opening(row.root)):
                        yield Span(row, opening, self._shown or [], self._begun, self._held)
        self._begun = self._held = self._shown = None


def until_of(record: Record) -> int:
    """Until when, by a record, the rules before it held: the next were given to the first worker before all had
    them."""
    return microseconds(record.fields["compiled"]) if record.kind == "in force" else record.at


def is_open(window: str, since: int, until: int) -> bool:
    """Whether a list's own window is open somewhere in [since, until), Unix seconds."""
    try:
        return any(window_of(window).spans(since, until))
    except (ValueError, TypeError, AttributeError, BadTerm):
        return False                # of no list that this program has taken


class Shown:
    """Records with their paths, each segment read once."""

    def __init__(self) -> None:
        self._segment: Segment | None = None
        self._paths: Paths | None = None
        self._head: Signed | None = None
        self.heads: dict[str, str] = {}

    def show(self, found: Found) -> dict[str, Any] | None:
        """None where no head has the record yet."""
        from edgeblock.ledger.book import read_head

        if self._segment != found.segment:
            self._segment, self._head = found.segment, read_head(found.segment)
            assert found.segment.records is not None
            told = [line for line, _ in lines(found.segment.records)]
            self._paths = Paths(told[:self._head.head.records]) if self._head else None
        if self._paths is None or self._head is None or found.place >= self._paths.size:
            return None
        self.heads[self._head.head.file] = self._head.text.decode("ascii")
        return {"record": found.record.line.decode("ascii"), "segment": found.segment.number, "index": found.place,
                "size": self._paths.size, "path": hexed(self._paths.of(found.place))}


def prove(settings: Config, directory: Path, entry: str, start: float | None, end: float | None) -> dict[str, Any]:
    """The document. `start` and `end` are Unix seconds, None without a bound.

    Raises:
        EdgeblockError: the key or the ledger cannot be read, or the entry is none.
    """
    key = read_key(settings.rules.key)
    proofs = Proofs(settings.rules.key.parent / PROOFS, openings(key, entry))
    first = -1 if start is None else round(start * 1_000_000)
    last = 1 << 62 if end is None else round(end * 1_000_000)
    shown, replay = Shown(), Replay(proofs, first, last)
    periods: list[dict[str, Any]] = []
    opened: dict[str, dict[str, Any]] = {}
    unsigned = 0
    for span in replay.spans(records_of(directory)):
        begin, until = shown.show(span.begin), shown.show(span.end)
        if begin is None or until is None:
            unsigned += 1
            continue
        if len(periods) >= PERIODS_MAX:
            raise SystemProblem(f"{entry}: was in more than {PERIODS_MAX} rules one after the other; ask for "
                                "less time")
        row = span.row
        if row.root not in opened:
            opened[row.root] = proofs.shown(row.root, span.opening)
        leaves = sorted(one.leaf for one in span.table)
        at = leaves.index(row.leaf)
        periods.append({"list": row.name, "root": row.root, "action": row.action, "window": row.window,
                        "clients": row.clients, "from": moment(span.begin.record.at),
                        "to": moment(until_of(span.end.record)), "begin": begin, "end": until,
                        "table": {"index": at, "size": len(leaves), "path": hexed(Paths(leaves).of(at))}})
    notes = []
    if replay.unknown:
        notes.append(f"of {replay.unknown} spans of time nobody knows which lists were in force: records are missing")
    if unsigned:
        notes.append(f"{unsigned} spans of time end after what is signed; ask again in some seconds")
    if replay.open:
        notes.append(f"of {replay.open} spans of time with it no record shows until when: one comes each ten "
                     "minutes; ask again then")
    if proofs.lacking:
        notes.append(f"what proves entries of {len(proofs.lacking)} versions of lists is not kept any more")
    return {"edgeblock": "proof", "version": FORMAT, "entry": entry, "entries": list(opened.values()),
            "periods": periods, "heads": shown.heads, "notes": notes}
