"""One list in: read, checked, signed where it has to be, and compiled; or refused with every reason.

In: a ListFile, the terms of this box, what is known of the last version that was taken, and the time. Out: Compiled
with one list, whose record holds all that a later version is compared with. A list is taken as a whole or refused as
a whole; lines that cannot be used are left out only up to the share that its settings allow. What never happens here:
a change on disk, a byte of the list that was not hashed, a list bigger than the bounds below in memory.
"""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any, BinaryIO

from publicsuffixlist import PSLFILE

import edgeblock
from edgeblock import config
from edgeblock.blocklist import clients, formats, snapshot
from edgeblock.blocklist.answers import Answers, Gathered
from edgeblock.blocklist.directory import Finding, ListFile, folded, open_regular
from edgeblock.blocklist.guard import (
    Before,
    Guard,
    Protected,
    Seen,
    guarded_entries,
    parse_protected,
    shipped_protected,
    skip_instead,
)
from edgeblock.blocklist.impact import FILE, Impact
from edgeblock.blocklist.keys import Key
from edgeblock.blocklist.notice import read_notice
from edgeblock.blocklist.parts import Compiled, ListRecord, Notice
from edgeblock.blocklist.sample import Sample
from edgeblock.blocklist.settings import ListSettings, default_settings
from edgeblock.blocklist.shared import read_shared
from edgeblock.blocklist.signature import MINISIG_MAX, Hashed, Signed, keys_for, refuses_replay
from edgeblock.blocklist.terms import ALWAYS, DAY
from edgeblock.errors import ListError

LIST_BYTES_MAX = 4 << 30        # of one list; a hundred million names are less
ENTRIES_MAX = 100_000_000       # of one list, duplicates included: 2 GB of rows while it is compiled
FINDINGS_MAX = 50               # that a refusal names; the rest are counted
LEFT_OUT_MAX = 1000             # of what is left out of a list that is taken, in its NAME.skipped; likewise
PROTECTED_MAX = 16 << 20        # bytes of the operator's protected names
BUFFER = 1 << 20

SECONDS = 10.0                  # of processor time that the shortest list may take to be read and compiled
SECONDS_PER_BYTE = 2e-6         # and every byte more: twenty times what ten million plain names take

Progress = Callable[[int], None]


class Refused(ListError):
    """A list is not taken; the message is its first finding, `findings` are all that were kept. `order` is what it is
    called where it is an order that says so."""

    def __init__(self, findings: list[Finding], more: int = 0, order: str = "") -> None:
        super().__init__(str(findings[0]) + (f" (and {more} more)" if more else ""))
        self.findings = findings
        self.more = more
        self.order = order


def seconds_for(size: int) -> float:
    """What a list of so many bytes may take."""
    return SECONDS + size * SECONDS_PER_BYTE


class Unsettled(ListError):
    """The list was changed while it was read: no reason to refuse it, and none to take it yet."""


@dataclass(frozen=True)
class Terms:
    """What holds for every list on this box. `mark` changes with all of it that a list is judged by."""

    key: Key
    rules: config.Rules
    protected: Protected
    defaults: ListSettings
    mark: str
    commit: bool = False        # to what each list has, for the ledger
    own: str = ""               # stands for the operator's protected names and shared networks


def make_terms(rules: config.Rules, key: Key, commit: bool = False) -> Terms:
    """The terms that a configuration sets.

    Raises:
        ListError: the operator's protected names or shared networks cannot be read, or the configuration names what
            is no host or key.
    """
    protected, own = shipped_protected(), b""
    networks = b""
    defaults = ListSettings()
    found: list[str] = []
    try:
        if rules.protected is not None:
            with open(rules.protected, "rb") as file:
                own = file.read(PROTECTED_MAX)
            protected = protected.joined(parse_protected(own, str(rules.protected)))
    except OSError as error:
        found.append(f"[rules] protected: {rules.protected}: the protected names cannot be read: {error.strerror}")
    except ListError as error:
        found += error.args
    try:
        if rules.shared is not None:
            shared, networks = read_shared(str(rules.shared))
            protected = protected._replace(shared=protected.shared.joined(shared))
    except ListError as error:
        found += error.args
    try:
        defaults = default_settings(rules)
    except ListError as error:
        found += error.args
    if found:
        raise ListError(*found)
    protected = protected._replace(nat64=rules.nat64, impact=Impact(rules.key.parent / FILE))
    mark = repr((edgeblock.__version__, snapshot.VERSION, os.stat(PSLFILE).st_size, sha256(own).digest(),
                 sha256(networks).digest(), rules.nat64, rules.signers, rules.require_signatures,
                 *(["commit"] * commit)))
    return Terms(key, rules, protected, defaults, mark, commit, sha256(sha256(own).digest() + networks).hexdigest())


def signature_of(path: Path) -> Path:
    return path.with_name(path.name + ".minisig")


def origin_of(source: ListFile, terms: Terms, state: os.stat_result | None = None) -> str:
    """Stands for everything that decides what `take` makes of a list; changes when any of it does. `state` is that of
    the list that is read, where it is not the one that was found."""
    seen: list[object] = [terms.mark, repr(source.settings), source.path.name]
    if source.pages:        # whose they may be
        seen.append(source.settings_state and source.settings_state.st_uid)
    for told in (state or source.state, state_of(signature_of(source.path)),
                 *(state_of(path) for _, path in source.pages)):
        seen.append(told and (told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns))
    return blake2b(repr(seen).encode(), digest_size=16).hexdigest()


def state_of(path: Path) -> os.stat_result | None:
    """What the kernel says of a file once it is open; None where it cannot be read."""
    if not os.path.lexists(path):
        return None             # most lists have no signature
    try:
        with open_regular(path) as file:
            return os.fstat(file.fileno())
    except ListError:
        return None


class Watched(io.RawIOBase):
    """A file as it is read: hashed, counted, and never more than LIST_BYTES_MAX of it."""

    def __init__(self, file: BinaryIO, progress: Progress | None) -> None:
        super().__init__()
        self._file = file
        self._progress = progress
        self.size = 0
        self.hash = sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        size = self._file.readinto(buffer)          # type: ignore[attr-defined]
        self.hash.update(memoryview(buffer)[:size])
        self.size += size
        if self.size > LIST_BYTES_MAX:
            raise ListError(f"is longer than {LIST_BYTES_MAX} bytes; split it")
        if self._progress:
            self._progress(size)
        return size


class Gathering:
    """The entries of one list on their way in."""

    def __init__(self, source: ListFile, terms: Terms, now: float, sample: Sample | None = None) -> None:
        self.sample = sample
        from edgeblock.blocklist.compiler import Compiler  # who only asks for terms has no list to read

        self.compiler = Compiler(terms.key, terms.commit)
        self.compiler.add_list(source.name, source.settings)
        self.guard = Guard(source.settings, terms.protected, terms.key)
        self.file = source.path.name
        self.answers = Gathered(terms.key) if source.settings.format == "order" else None
        self.lines = self.total = self.unusable = self.guarded = self.exceptions_lost = self.past = 0
        days = source.settings.drop_past_days
        self.past_before = ALWAYS if days is None else int(now) - DAY * days
        self.left_out: list[Finding] = []
        self.problems: list[Finding] = []
        self.refusals: list[Finding] = []

    @property
    def order(self) -> str:
        return self.answers.order if self.answers else ""

    def gather(self, items: Any) -> None:
        refuses, add = self.guard.refuses, self.compiler.add
        last = 0
        due = self.sample.due if self.sample else ENTRIES_MAX + 1
        for item in items:
            kind = type(item)
            if kind is formats.Entry or kind is formats.HashedEntry:
                if item.line != last:
                    last = item.line
                    self.lines += 1
                if kind is formats.Entry and item.attributes and self._is_past(item):
                    self.past += 1
                    if self.answers:
                        self.answers.add(item)
                elif (why := refuses(item)) is not None and self.guard.skips:
                    self.guarded += 1
                    if self.answers:
                        self.answers.refuse(why)
                    self._leave_out(item.line, why)
                elif why is not None:
                    self.refusals.append(Finding(self.file, item.line, why))
                    if len(self.refusals) == FINDINGS_MAX:
                        return
                else:
                    add(0, item)
                    if self.answers:
                        self.answers.add(item)
                    if kind is formats.Entry or item.kind not in formats.MARKS:
                        self.total += 1
                    if self.total >= due and self.sample and kind is formats.Entry:
                        self.sample.offer(item, self.total)
                        due = self.sample.due
                    if self.total > ENTRIES_MAX:
                        raise ListError(f"has more than {ENTRIES_MAX} entries; split it")
            elif kind is formats.Problem:
                finding = Finding(self.file, item.line, item.why, item.plain)
                if item.whole:
                    raise Refused([finding])
                self.lines += 1
                self.unusable += 1
                if self.unusable <= FINDINGS_MAX:
                    self.problems.append(finding)
                self._leave_out(item.line, item.why)
            elif kind is formats.Asked and self.answers:
                self.answers.begin(item)
            elif kind is formats.Passed and item.exception:
                self.exceptions_lost += 1
                self._leave_out(item.line, f"the exception {item.text} is left out, and what it would have passed "
                                           f"may be blocked: {item.why}")

    def _is_past(self, entry: formats.Entry) -> bool:
        return entry.terms is not None and entry.terms.window.ends <= self.past_before

    def _leave_out(self, line: int, why: str) -> None:
        if len(self.left_out) < LEFT_OUT_MAX:
            self.left_out.append(Finding(self.file, line, why))


@dataclass(frozen=True)
class Read:
    """What came with the entries of a list: what the kernel said of the file, its origin, the notice, the signature
    that holds, the SHA-256, the guard that has seen the entries; how many it left out, and how many were taken."""

    state: os.stat_result
    origin: str
    notice: Notice
    signed: Signed | None
    sha256: str
    guard: Guard
    guarded: int = 0
    total: int = 0


def take(source: ListFile, terms: Terms, previous: ListRecord | None, now: float,
         progress: Progress | None = None, signed_before: int | None = None,
         left_out: list[Finding] | None = None, sample: Sample | None = None,
         answers: list[Answers] | None = None) -> Compiled:
    """The list, compiled.

    Args:
        previous: of the last version that was taken; None where there is none.
        now: Unix seconds.
        progress: is told how many bytes more have been read.
        signed_before: when the newest version was signed that was ever taken, also where it has gone since.
        left_out: is given what is left out of a list that is taken, the first LEFT_OUT_MAX.
        sample: is offered its entries.
        answers: is given what is known of the items of an order that is taken.

    Raises:
        Refused: it breaks a rule of docs/guard-rails.md, or cannot be read.
        Unsettled: it was changed meanwhile.
    """
    name = source.path.name
    gathering = Gathering(source, terms, now, sample)
    try:
        with open_regular(source.path) as file:
            before = os.fstat(file.fileno())
            origin = origin_of(source, terms, before)
            if before.st_size > LIST_BYTES_MAX:
                raise ListError(f"is longer than {LIST_BYTES_MAX} bytes; split it")
            watched = Watched(file.raw, progress)       # type: ignore[attr-defined]
            notice = read_notice(source)
            hashed = signed_reader(source, terms, watched)
            try:
                gathering.gather(source.reader(io.BufferedReader(hashed or watched, BUFFER)))
                if gathering.refusals:
                    way_out = skip_instead(source.settings, len(gathering.refusals))
                    raise Refused([*folded(gathering.refusals), Finding(name, 0, way_out)])
                signed = hashed.signed() if hashed else None
            finally:
                after = os.fstat(file.fileno())
                if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                    raise Unsettled(f"{name}: was changed while it was read")
        compiled = gathering.compiler.finish()
    except Refused as error:
        error.order = gathering.order
        raise
    except OSError as error:
        raise Refused([Finding(name, 0, f"cannot be read: {error.strerror}")]) from None
    except ListError as error:
        if isinstance(error, Unsettled):
            raise
        why = str(error).removeprefix(f"{name}: ").removeprefix(f"{source.name}: ")
        raise Refused([Finding(name, 0, why)], order=gathering.order) from None
    [record] = compiled.lists
    read = Read(before, origin, notice, signed, watched.hash.hexdigest(), gathering.guard, gathering.guarded,
                gathering.total)
    record.duplicates, record.unusable = gathering.total - record.entries, gathering.unusable
    record.guarded, record.exceptions_lost = gathering.guarded, gathering.exceptions_lost
    record.past = gathering.past
    if refused := settle(compiled, source, terms, read, Seen(gathering.lines, record.entries, gathering.unusable),
                         previous, signed_before, now):
        findings = [Finding(name, 0, refused), *gathering.problems]
        raise Refused(findings, gathering.unusable - len(gathering.problems), gathering.order)
    if left_out is not None:
        left_out += gathering.left_out
    if answers is not None and gathering.answers:
        answers.append(gathering.answers.finish(name, record.sha256, record.origin, record.window))
    return compiled


def settle(compiled: Compiled, source: ListFile, terms: Terms, read: Read, seen: Seen, previous: ListRecord | None,
           signed_before: int | None, now: float) -> str | None:
    """Judges a list as a whole, against its version before, and completes its record; why it is refused, or None."""
    [record] = compiled.lists
    signed, settings = read.signed, source.settings
    times = [at for at in (signed_before, previous.signed if previous else None) if at is not None]
    refused = (signed and refuses_replay(signed, max(times, default=None), now)) or \
        read.guard.refuses_list(seen, before_of(previous), now) or \
        guarded_entries(settings, read.guarded, read.total)
    if refused:
        return refused
    record.file, record.https = source.path.name, settings.https
    record.max_shrink = settings.max_shrink
    record.expires = settings.expires.timestamp() if settings.expires else None
    record.address_entries, record.notice = read.guard.addresses, read.notice
    if read.guard.behind and read.guard.behind.entries:
        behind = read.guard.behind.figures()
        record.names_behind, record.names_shared = behind.names, behind.shared
        record.flows_behind, record.subscribers_share = behind.flows, round(behind.share, 4)
    clients.mark(record, settings)
    if (stated := clients.stated_set(settings, terms.key)) is not None:
        clients.give(record, stated)
        compiled.client_sets = [stated]
    record.signed = signed.timestamp if signed else None
    record.sha256, record.origin = read.sha256, read.origin
    record.uid = read.state.st_uid
    record.settings_uid = source.settings_state.st_uid if source.settings_state else None
    return None


def before_of(previous: ListRecord | None) -> Before | None:
    if previous is None:
        return None
    return Before(previous.entries, previous.timed, previous.past, bool(previous.window))


def signed_reader(source: ListFile, terms: Terms, watched: Watched) -> Hashed | None:
    """What the list is read through so that its signature is checked; None where it needs none.

    Raises:
        ListError: there is no signature, or none that could do.
    """
    keys = keys_for(source.name, source.settings.signer, terms.rules.signers, terms.rules.require_signatures)
    if keys is None:
        return None
    path = signature_of(source.path)
    if not os.path.lexists(path):
        raise ListError(f"needs a signature by {' or '.join(map(str, keys))}, and there is no {path.name}; drop that "
                        "first")
    with open_regular(path) as file:
        return Hashed(watched, file.read(MINISIG_MAX + 1), keys, source.path.name)   # type: ignore[arg-type]


def why_unsigned(source: ListFile, terms: Terms, now: float) -> str | None:
    """Why the signature of a list would not do; None where it does, or none is needed. Reads the whole list."""
    name = source.path.name
    try:
        with open_regular(source.path) as file:
            hashed = signed_reader(source, terms, Watched(file.raw, None))      # type: ignore[attr-defined]
            return None if hashed is None else refuses_replay(hashed.signed(), None, now)
    except ListError as error:
        return str(error).removeprefix(f"{name}: ")
