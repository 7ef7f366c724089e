"""Whom a list applies to: clients files beside the lists, or prefixes in the settings, into sets of addresses.

In: a rules directory; which files its lists name; the sets that were kept of the last good ones. Out: of each file
the set in force, and what is wrong with those that cannot be used, which leave the last good one where it was. A file
is taken as a whole or refused as a whole, and read again only when it has changed: no list is read again for it.
Never here: an address in what is told, but in a reason that quotes its line, as reasons about lists do.
"""

import hmac
import json
import os
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from math import inf
from pathlib import Path
from typing import NamedTuple

from edgeblock.blocklist.directory import Finding, TooSlow, fault_of, limited, open_regular
from edgeblock.blocklist.keys import Key, keyed_sum
from edgeblock.blocklist.parts import ClientSet, ListRecord
from edgeblock.blocklist.prefixes import BadLine, read_ranges
from edgeblock.blocklist.settings import ListSettings
from edgeblock.errors import ListError

TEXT_MAX = 64 << 20         # bytes of a clients file; a million prefixes are 20 MB
PREFIXES_MAX = 4_000_000    # of one: 128 MB of ranges, if all are of IPv6 and apart
ALL_MAX = 512 << 20         # bytes of ranges of all of them: every snapshot has them
OWNER_ALL_MAX = 256 << 20   # the same of one owner: nobody takes the room of all others
FILES_MAX = 1000            # that lists may name
OWNER_FILES_MAX = 500       # of one owner
SECONDS = 1.0               # of processor time that the shortest file may take to be read
SECONDS_PER_BYTE = 2e-7     # and every byte more: six times what the shortest of four million prefixes take
DIGEST_SIZE = 32
FINDINGS_MAX = 50           # lines of one that cannot be used and are told
HEAD_MAX = 1000             # bytes of the line that says what a kept set is
VERSION = 1                 # of what is made of a text: another reads files anew


class Kept(NamedTuple):
    """The last good set of a file. `origin` stands for the file that it was read from, `uid` is its owner."""

    origin: str
    set: ClientSet
    uid: int | None = None


def to_bytes(one: Kept, key: Key) -> bytes:
    """As it is kept in the state directory: a digest of the rest, a line that says what it is, and the ranges."""
    head = json.dumps([VERSION, one.origin, one.set.sum, one.set.prefixes, len(one.set.ipv4), len(one.set.ipv6),
                       one.uid])
    rest = b"".join((head.encode(), b"\n", one.set.ipv4, one.set.ipv6))
    return keyed_sum(rest, key) + rest


def from_bytes(data: memoryview, key: Key) -> Kept | None:
    """The same, where it can be that."""
    rest = data[DIGEST_SIZE:]
    if not hmac.compare_digest(keyed_sum(rest, key), data[:DIGEST_SIZE]):
        return None
    line = bytes(rest[:HEAD_MAX]).partition(b"\n")[0]
    version, origin, sum_, count, size4, size6, *owner = json.loads(line)
    ipv4 = rest[len(line) + 1:len(line) + 1 + size4]
    ipv6 = rest[len(line) + 1 + size4:]
    if (size4, size6) != (len(ipv4), len(ipv6)):
        return None
    return Kept(origin if version == VERSION else "", ClientSet(sum_, count, ipv4, ipv6), *owner)


class BadClients(ListError):
    """A clients file cannot be used."""

    def __init__(self, finding: Finding, others: Sequence[Finding] = ()) -> None:
        super().__init__(str(finding))
        self.finding = finding
        self.others = others        # the next of its lines that cannot be used


class Unsettled(ListError):
    """It was changed while it was read."""


def set_of(text: bytes, key: Key) -> ClientSet:
    """The set that a text has. BadLine where a line of it cannot be used."""
    ipv4, ipv6, count = read_ranges(text, PREFIXES_MAX)
    sizes = len(ipv4).to_bytes(8) + len(ipv6).to_bytes(8) + count.to_bytes(8)
    return ClientSet(keyed_sum(b"".join((sizes, ipv4, ipv6)), key, 16).hex(), count, ipv4, ipv6)


def size_of(one: ClientSet) -> int:
    """Bytes of its ranges."""
    return len(one.ipv4) + len(one.ipv6)


def stated_set(settings: ListSettings, key: Key) -> ClientSet | None:
    """The set of the prefixes that stand in the settings of a list; None where none do."""
    return set_of("\n".join(settings.whom).encode(), key) if isinstance(settings.whom, tuple) else None


def mark(record: ListRecord, settings: ListSettings) -> None:
    """Has the record of a list say whom it applies to, but for the set."""
    record.clients = "only" if settings.clients is not None else "" if settings.clients_except is None else "except"
    record.clients_file = settings.clients_file


def give(record: ListRecord, one: ClientSet) -> None:
    """Has the record of a list say which set of clients it means."""
    record.clients_sum, record.clients_count = one.sum, one.prefixes


def origin_of(state: os.stat_result) -> str:
    """Stands for a file that is open; changes when anything about it does."""
    seen = (VERSION, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    return blake2b(repr(seen).encode(), digest_size=16).hexdigest()


def read_clients(path: Path, key: Key) -> Kept:
    """The set of a clients file.

    Raises:
        BadClients: it is not there, or no file of clients.
        Unsettled: it was changed meanwhile.
    """
    name = path.name
    try:
        with open_regular(path, alone=True) as file:
            before = os.fstat(file.fileno())
            if before.st_size > TEXT_MAX:
                raise ListError(f"is longer than {TEXT_MAX} bytes; write wider prefixes")
            text = file.read(TEXT_MAX + 1)
            after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(text) != before.st_size:
            raise Unsettled(f"{name}: was changed while it was read")
        if not text:
            raise ListError("is empty, as a file is whose transfer has failed; if nobody is meant, say so in a "
                            "comment, such as # nobody")
        return Kept(origin_of(before), set_of(text, key), before.st_uid)
    except BadLine as error:
        first, *others = mistakes(text, error)
        raise BadClients(Finding(name, *first), [Finding(name, *one) for one in others]) from None
    except Unsettled:
        raise
    except ListError as error:
        raise BadClients(Finding(name, 0, str(error).removeprefix(f"{name}: "))) from None
    except OSError as error:
        raise BadClients(Finding(name, 0, f"cannot be read: {error.strerror}")) from None


def mistakes(text: bytes, first: BadLine) -> list[tuple[int, str]]:
    """Lines that cannot be used, each with the reason, from the first of them on; each byte is read once."""
    found = [(first.line, first.why)]
    rest, error = memoryview(text), first
    while error.behind and len(found) < FINDINGS_MAX:
        rest = rest[error.behind:]
        try:
            read_ranges(rest, PREFIXES_MAX)
            break
        except BadLine as next_one:
            error = next_one
            found.append((found[-1][0] + error.line, error.why))
    return found


def state_of(path: Path) -> os.stat_result:
    """What the kernel says of a clients file. BadClients where it cannot be opened."""
    try:
        with open_regular(path, alone=True) as file:
            return os.fstat(file.fileno())
    except ListError as error:
        raise BadClients(Finding(path.name, 0, str(error).removeprefix(f"{path.name}: "))) from None


@dataclass
class ClientFiles:
    """The clients files of a directory in one look at it.

    `kept` has the last good set of each file that was kept, and then of each that lists name, what has changed taken
    in: `fresh` are the files of those. `refused` says why the newest version of a file is not taken, with what stands
    for that version, and `others` are further lines of it that cannot be used; `waiting`: files that are left for
    another look; `again`: there is something left to do.
    """

    directory: Path
    key: Key
    kept: dict[str, Kept]
    fresh: list[str] = field(default_factory=list)
    refused: dict[str, tuple[Finding | None, str]] = field(default_factory=dict)
    others: dict[str, Sequence[Finding]] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    again: bool = False

    def look(self, named: Collection[str], busy: Collection[str] = (),
             known: Mapping[str, str] | None = None, seconds: float = inf) -> None:
        """Takes in what has changed: of each owner one file, the shortest first, then of each a second.

        Args:
            named: files that lists name.
            busy: files that are being written: they stay as they are.
            known: by file, what stands for a version that was refused and is not read again: its reason is None.
            seconds: of processor time after which the rest waits for another look.
        """
        known = known or {}
        self.kept = {file: one for file, one in self.kept.items() if file in named}
        changed = []
        for file in sorted(named):
            if file in busy:
                continue
            try:
                state = state_of(self.directory / file)
            except BadClients as error:
                self.refused[file] = error.finding, ""
                continue
            origin = origin_of(state)
            if file in self.kept and self.kept[file].origin == origin:
                continue
            if origin == known.get(file):
                self.refused[file] = None, origin
            else:
                changed.append((state.st_size, file, state.st_uid, origin))
        ranks: Counter[int] = Counter()
        order = []
        for size, file, uid, origin in sorted(changed):
            order.append((ranks[uid], size, file, origin))
            ranks[uid] += 1
        until = time.process_time() + seconds
        for _, size, file, origin in sorted(order):
            if time.process_time() >= until:
                self._wait(file)
            else:
                self._take(file, size, origin)

    def _take(self, file: str, size: int, origin: str) -> None:
        may = SECONDS + size * SECONDS_PER_BYTE
        try:
            with limited(may):
                read = read_clients(self.directory / file, self.key)
            self._find_room(file, read)
        except BadClients as error:
            self.refused[file], self.others[file] = (error.finding, origin), error.others
        except Unsettled:
            self._wait(file)
        except TooSlow:
            self.refused[file] = Finding(file, 0, f"takes more than {may:.1f} s of processor time to read; write "
                                         "wider prefixes"), origin
        except Exception as error:      # one file's fault is one file's, whatever it is
            short = isinstance(error, MemoryError)
            self.refused[file] = Finding(file, 0, fault_of(error)), "" if short else origin
            self.again |= short
        else:
            self.kept[file] = read
            self.fresh.append(file)

    def _find_room(self, file: str, read: Kept) -> None:
        """BadClients where there is none for this set, in all or among those of its owner."""
        others = [one for name, one in self.kept.items() if name != file]
        own = [one for one in others if one.uid == read.uid]
        for some, files, size, whose in ((own, OWNER_FILES_MAX, OWNER_ALL_MAX, " of its owner"),
                                         (others, FILES_MAX, ALL_MAX, "")):
            if len(some) >= files:
                raise BadClients(Finding(file, 0, f"is one too many{whose}: lists may name {files} of them; put "
                                         "some into one, and drop this one again"))
            if sum(size_of(one.set) for one in some) + size_of(read.set) > size:
                raise BadClients(Finding(file, 0, f"makes all of them{whose} together longer than {size} bytes; "
                                         "write wider prefixes"))

    def _wait(self, file: str) -> None:
        self.waiting.add(file)
        self.again = True

    def why_without(self, settings: ListSettings) -> str:
        """Why a list with these settings cannot be taken; "" where there is a set, or it needs none."""
        file = settings.clients_file
        if not file or file in self.kept:
            return ""
        key = "clients" if settings.clients is not None else "clients_except"
        finding, _ = self.refused.get(file, (None, ""))
        why = "cannot be used, as its own refusal says" if finding is None or finding.line else finding.why
        return f'{key} = "{file}": {file} {why}; without it nobody knows whom this list applies to'

    def of(self, file: str) -> ClientSet | None:
        """The set of a file; None where there is none."""
        return self.kept[file].set if file in self.kept else None
