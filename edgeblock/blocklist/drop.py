"""A changed rules directory into a new snapshot: what has changed is taken or refused, everything else stays.

In: the [rules] settings, the store, which files somebody is still writing, and the time. Out: an Outcome; a snapshot
published in the store when anything about the lists in force is different; NAME.rejected beside every list that is
refused. A refused list never takes another down, and its last good version stays in force. What never happens here: a
word of a list in the Outcome, which is for the log.
"""

import csv
import pwd
import re
import struct
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from edgeblock import config
from edgeblock.blocklist.compiler import ListRecord, merge
from edgeblock.blocklist.directory import Finding, ListFile, find_lists, read_settings
from edgeblock.blocklist.guard import SHRINK_FLOOR
from edgeblock.blocklist.intake import Refused, Terms, Unsettled, make_terms, origin_of, take
from edgeblock.blocklist.settings import GUARD_KEYS
from edgeblock.blocklist.snapshot import Snapshot
from edgeblock.blocklist.store import Store, write_file
from edgeblock.errors import EdgeblockError, ListError

MARK = b"edgeblock has refused this list"   # how a .rejected of ours begins; another's is left alone
HURRY = 4 << 20         # bytes of a list that is compiled at a start, before what was in force is served again
BATCH = 64 << 20        # bytes of lists after which those that were taken are published before more are read
# What a fault of ours in a reader raises: no reason to leave the other lists as they were.
FAULTS = (ArithmeticError, AssertionError, AttributeError, EdgeblockError, LookupError, NameError, OSError,
          RuntimeError, TypeError, ValueError, csv.Error, struct.error)
OVERRIDE = re.compile(rf"; if that is meant, put ({'|'.join(GUARD_KEYS)}) = ")     # in a refusal by a guard rail


@dataclass
class Outcome:
    """What a round has done.

    `changes`: what is in force now and was not before, or is no more, and what is not refused any more although
    nothing has changed in force; `refused`: by list, what is refused now;
    `lists`: all in force; `problem`: why the directory could not be looked at or no snapshot be written, so that all
    lists stayed; `again`:
    something is left to do, although nobody may touch the directory any more; `content`: the same on every box of
    this key that has the same lists in force.
    """

    changes: list[dict[str, Any]] = field(default_factory=list)
    refused: dict[str, dict[str, Any]] = field(default_factory=dict)
    lists: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problem: str = ""
    again: bool = False
    content: str = ""


def refresh(rules: config.Rules, store: Store, now: float, busy: Collection[str] = (),
            afresh: bool = False, hurry: bool = False, overdue: bool = False) -> Outcome:
    """Takes in what has changed, and publishes.

    Args:
        now: Unix seconds, against which lists expire.
        busy: names of files that are being written: their lists stay as they are.
        afresh: what is refused is read again, although nobody has touched it.
        hurry: a long list is left for the next round, and what was in force before served meanwhile, if anything was.
        overdue: the round before has left a list; now a long one is taken beside short ones, or it would wait for as
            long as those keep coming.

    Raises:
        ListError: the state directory cannot be written, and nothing is in force.
    """
    store.prepare()
    return Round(rules, store, now, {name.split(".minisig")[0] for name in busy}, afresh, hurry,
                 overdue).run()


class Round:
    """One look at the directory."""

    def __init__(self, rules: config.Rules, store: Store, now: float, busy: Collection[str], afresh: bool,
                 hurry: bool, overdue: bool) -> None:
        self.rules, self.store, self.now, self.afresh = rules, store, now, afresh
        self.hurry, self.overdue = hurry, overdue
        self.busy = {Path(name).stem for name in busy}
        self.outcome = Outcome()
        self.parts, self.outcome.warnings = store.parts()
        self.before = {name: part.parts.lists[0] for name, part in self.parts.items()}
        self.known = store.refused()
        self.gone: list[str] = []

    def run(self) -> Outcome:
        try:
            terms = make_terms(self.rules, self.store.key)
            files, errors, warnings = find_lists(self.rules.directory, terms.defaults)
        except ListError as problem:
            self.outcome.problem = str(problem)
            self.outcome.refused = self.known
            self._publish()
            return self.outcome
        self.outcome.warnings += map(str, warnings)
        for finding in errors:
            self._refuse(Path(finding.file).stem, Refused([finding]))
        self._take_changed(terms, files)
        self._remove_gone({source.name for source in files} | self.outcome.refused.keys() | self.busy, terms)
        self._publish()
        if not self.outcome.problem:
            self._tell_withdrawn()
        self._clear_rejected()
        try:
            for name in self.gone:
                self.store.forget(name)
            self.store.keep_refused(self.outcome.refused)
        except OSError as error:
            self.outcome.warnings.append(f"{self.store.directory}: cannot be written: {error.strerror}")
        return self.outcome

    # ---- lists that have changed

    def _take_changed(self, terms: Terms, files: list[ListFile]) -> None:
        # Small ones first: a list of ten million entries does not hold up one of ten.
        spent = 0
        for size, source in sorted(((size_of(source.path), source) for source in files), key=lambda pair: pair[0]):
            name, part = source.name, self.parts.get(source.name)
            origin = origin_of(source, terms)
            before = self.known.get(name, {})
            if part is not None and part.parts.lists[0].origin == origin:
                continue
            known = before.get("origin") == origin and Path(before.get("where", "")).is_file() and not self.afresh
            # A list that is too much for this machine ends the process: what came with it is in force by then.
            long = size > BATCH // 2 and not self.overdue
            later = spent > BATCH or spent > 0 and long or self.hurry and size > HURRY and self.parts
            if name in self.busy or known or later:
                if before:
                    self.outcome.refused[name] = before
                self.outcome.again |= bool(later) and name not in self.busy and not known
                continue
            spent += size
            try:
                compiled = take(source, terms, self.before.get(name), self.now)
            except Refused as refused:
                self._refuse(name, refused, source.path, origin)
                continue
            except Unsettled:
                self.outcome.again = True
                continue
            except MemoryError:
                self.outcome.again = True
                self._refuse(name, Refused([Finding(source.path.name, 0, "needs more memory than there is")]),
                             source.path)
                continue
            except FAULTS as error:
                self._refuse(name, Refused([Finding(source.path.name, 0, "cannot be read by a fault of edgeblock "
                                                    f"({type(error).__name__} at {place_of(error)}); please report "
                                                    "it")]), source.path, origin)
                continue
            try:
                self.parts[name] = self.store.keep(compiled, self.now)
            except OSError as error:
                self.outcome.again = True
                self._refuse(name, Refused([Finding(source.path.name, 0, "could be read, but not be kept: "
                                                    f"{self.store.lists}: {error.strerror}")]), source.path)

    # ---- lists whose file is gone

    def _remove_gone(self, there: Collection[str], terms: Terms) -> None:
        gone = [name for name in self.parts if name not in there]
        bound = [name for name in gone if not self._may_go(name, terms)]
        before = sum(record.entries for record in self.before.values() if not is_expired(record, self.now))
        after = sum(part.parts.lists[0].entries for name, part in self.parts.items()
                    if name not in bound and not is_expired(part.parts.lists[0], self.now))
        fewer, share = before - after, self.rules.max_shrink
        if bound and share < 1 and fewer > share * before and fewer > SHRINK_FLOOR:
            for name in bound:
                self._refuse(name, Refused([Finding(
                    self.before[name].file or name, 0, f"was removed, and with it {fewer} of {before} entries of all "
                    f"lists would go, more than a share of {share:.4g}; if that is meant, write {name}.toml with "
                    "max_shrink = 1, and else put the file back")]))
        else:
            self.gone = gone
        self.gone += [name for name in gone if name not in bound and name not in self.gone]
        for name in self.gone:
            del self.parts[name]

    def _may_go(self, name: str, terms: Terms) -> bool:
        record = self.before[name]
        if record.max_shrink >= 1 or not record.entries or is_expired(record, self.now):
            return True
        try:
            return read_settings(self.rules.directory / f"{name}.toml", terms.defaults).max_shrink >= 1
        except ListError:
            return False

    # ---- what is in force

    def _publish(self) -> None:
        in_force = []
        for name in sorted(self.parts):
            part = self.parts[name].parts
            [record] = part.lists
            part.lists[0] = replace(record, part=self.parts[name].digest, expired=is_expired(record, self.now))
            in_force.append(part)
        merged = merge(in_force)
        was, now = self.store.published(), merged.lists
        if was != now:
            try:
                self.store.publish(merged, self.now)
            except OSError as error:
                why = f"{self.store.snapshot}: cannot be written: {error.strerror}"
                if was is None:
                    raise ListError(why) from None
                # A daemon that starts has nothing better than what was published last.
                self.outcome.problem = self.outcome.problem or f"{why}; the rules in force stay"
                now, self.gone = was, []
        self.outcome.lists = [told_of(record) for record in now]
        same = repr([(record.name, record.sha256, record.action, record.https, record.mandatory, record.expired)
                     for record in now])
        self.outcome.content = blake2b(same.encode(), key=self.store.key, digest_size=32).hexdigest()
        self.outcome.changes = self._changes({record.name: record for record in was or ()},
                                             {record.name: record for record in now})

    def _changes(self, was: dict[str, ListRecord], now: dict[str, ListRecord]) -> list[dict[str, Any]]:
        changes = []
        for name in sorted(was.keys() | now.keys()):
            old, new = was.get(name), now.get(name)
            before = old.entries if old else None
            if new is None:
                changes.append({"change": "removed", "list": name, "entries_before": before})
            elif old is None or old.part != new.part:
                digest = blake2b(new.sha256.encode(), key=self.store.key, digest_size=16).hexdigest()
                changes.append({"change": "taken", "list": name, "file": new.file, "entries": new.entries,
                                "entries_before": before, "duplicates": new.duplicates, "unusable": new.unusable,
                                "signed": new.signed, "digest": digest, "action": new.action,
                                **owner_of(self.rules.directory / new.file),
                                **owner_of(self.rules.directory / f"{name}.toml", "settings_")})
            elif old.expired != new.expired:
                changes.append({"change": "expired", "list": name, "entries_before": before})
        return changes

    def _tell_withdrawn(self) -> None:
        told = {change["list"] for change in self.outcome.changes}
        for name in sorted(self.known.keys() - self.outcome.refused.keys() - told):
            before = self.before.get(name)
            self.outcome.changes.append({"change": "withdrawn", "list": name,
                                         "entries_before": before.entries if before else None})

    # ---- refusals

    def _refuse(self, name: str, refused: Refused, path: Path | None = None, origin: str = "") -> None:
        if name in self.outcome.refused:
            return
        where = self._write_rejected(name, refused, path)
        file, line, why = refused.findings[0]
        if has_words(refused.findings[0]):
            why = without_words(why, str(where or "edgeblock lint"))
        self.outcome.refused[name] = {
            "file": file, "told": str(Finding(file, line, why)), "origin": origin,
            "where": str(where), "in_force": name in self.parts, **owner_of(path or self.rules.directory / file)}

    def _write_rejected(self, name: str, refused: Refused, path: Path | None) -> Path | str:
        part = self.parts.get(name)
        stays = "there is no version before it, so nothing of it is in force"
        if part:
            stays = f"the version of {when(part)} with {part.parts.lists[0].entries} entries stays in force"
        ask = f"`edgeblock lint {self.rules.directory}`"
        whole = [f"{MARK.decode()}; {stays}.", *map(str, refused.findings)]
        # There is no plain text of a list in the state directory.
        told = [whole[0]] + [
            str(one._replace(why=without_words(one.why, ask)) if has_words(one) else one)
            for one in refused.findings]
        if refused.more:
            more = f"and {refused.more} more; {ask} names them all"
            whole.append(more)
            told.append(more)
        try:
            mode = (path or self.rules.directory / refused.findings[0].file).stat().st_mode & 0o664 | 0o600
        except (OSError, ValueError):
            mode = 0o640
        for folder, lines in ((self.rules.directory, whole), (self.store.rejected, told)):
            where = folder / f"{name}.rejected"
            text = ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
            try:
                if not (where.is_file() and where.read_bytes() == text):
                    write_file(where, partial(write_to, text), mode=mode)
            except OSError:
                continue            # read-only for us, or full
            return where
        return ""

    def _clear_rejected(self) -> None:
        for left in self.rules.directory.glob(".*.rejected.*.tmp"):     # of a process that was killed
            try:
                left.unlink()
            except OSError:
                continue
        wanted = {Path(one["where"]) for one in self.outcome.refused.values()}
        for folder in (self.rules.directory, self.store.rejected):
            for path in folder.glob("*.rejected"):
                if path in wanted:
                    continue
                try:
                    with open(path, "rb") as file:
                        ours = file.read(len(MARK)) == MARK
                    if ours:
                        path.unlink()
                except OSError:
                    continue


def write_to(text: bytes, file: BinaryIO) -> None:
    file.write(text)


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def when(part: Snapshot) -> str:
    return f"{datetime.fromtimestamp(part.built, UTC):%Y-%m-%d %H:%M:%S} UTC"


def place_of(error: BaseException) -> str:
    """Where in the code it was raised; what it says may be a word of a list."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return f"{Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}" if at is not None else "an unknown place"


def is_expired(record: ListRecord, now: float) -> bool:
    return record.expires is not None and record.expires <= now


def has_words(finding: Finding) -> bool:
    """Whether it may quote a list: a line may be a listed name, and what stands in settings one that is allowed."""
    return finding.line > 0 or finding.file.endswith(".toml")


def without_words(why: str, where: str) -> str:
    """What may be said of a reason that quotes a list: which guard rail it is, and where the rest is."""
    found = OVERRIDE.search(why)
    return f"cannot be used; {where} says why" + (f" ({found[1]})" if found else "")


def owner_of(path: Path, prefix: str = "") -> dict[str, Any]:
    """Who has put a file there, as far as the file system knows: the user id, and the name where there is one."""
    uid = owner = None
    try:
        uid = path.stat().st_uid
        owner = pwd.getpwuid(uid).pw_name
    except (OSError, ValueError, KeyError):
        pass
    return {f"{prefix}uid": uid, f"{prefix}owner": owner}


def told_of(record: ListRecord) -> dict[str, Any]:
    return {name: getattr(record, name)
            for name in ("name", "file", "action", "entries", "duplicates", "unusable", "expires", "expired")}
