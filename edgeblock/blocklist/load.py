"""Loads a rules directory for one process, whole or not at all: for people's questions, captures and measurements.

In: a directory of lists (docs/lists.md), or a snapshot of one. Out: Rules with a matcher; a warning for what the
daemon would refuse beyond that. Never here: a snapshot published, or a list of the daemon's store.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from edgeblock import config
from edgeblock.blocklist import formats
from edgeblock.blocklist.clients import ClientFiles, give, mark, stated_set
from edgeblock.blocklist.compiler import Compiler
from edgeblock.blocklist.directory import (
    REFUSED,
    Finding,
    ListFile,
    and_so,
    fault_of,
    find_lists,
    finding_of,
    read_list,
)
from edgeblock.blocklist.guard import Guard, Protected, Seen, left_out, shipped_protected, unusable_lines
from edgeblock.blocklist.intake import make_terms, why_unsigned
from edgeblock.blocklist.keys import Key
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.notice import read_notice
from edgeblock.blocklist.parts import ClientSet
from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.snapshot import open_snapshot, pack
from edgeblock.blocklist.store import is_snapshot, open_stacked, read_key
from edgeblock.errors import ListError

SHARED_KEY = b"edgeblock-replay"    # for rules that stay in this process: the same rule ids every time


@dataclass(frozen=True)
class ListInfo:
    """One list as loaded. `entries` are distinct, `duplicates` the others; an expired list has no entries. `clients`
    and `clients_count` are those of a ListRecord."""

    name: str
    file: str
    action: str
    category: str
    https: str
    mandatory: bool
    expires: datetime | None
    expired: bool
    entries: int
    duplicates: int
    clients: str = ""
    clients_count: int = 0
    redirect: str = ""


@dataclass(frozen=True)
class Rules:
    """A loaded directory: the matcher, the snapshot bytes it answers from, and a row for each list."""

    directory: Path
    matcher: ListMatcher
    snapshot: bytes | memoryview
    lists: tuple[ListInfo, ...]
    warnings: tuple[Finding, ...]
    files: tuple[ListFile, ...] = field(repr=False)
    now: float = 0.0


def load(directory: Path | str, rules: config.Rules | None = None, *, action: str = "reset", https: str = "ignore",
         key: Key | None = None, key_file: Path | None = None, now: float | None = None,
         tolerant: bool = False, redirects: bool = True) -> Rules:
    """All lists of `directory`, or of the snapshot file that is there instead, as one matcher.

    Args:
        rules: the configuration: what a list without settings of its own does, and where the key is. Then there is a
            warning for each list that the daemon would refuse for its entries or its signature.
        action, https, key_file: the same without a configuration. The key is for hashed lists, which no other reads.
        key: 16 bytes, the key of this deployment; None for rules that do not leave this process.
        now: Unix seconds, against which lists expire; None asks the clock.
        tolerant: a list or a line that cannot be used is left out, with a warning, instead of refusing all. What
            refuses a list in the daemon ends with REFUSED.
        redirects: as `find_lists` has it.

    Raises:
        ListError: the directory or a list cannot be used; the message names the first place and how many more.
    """
    directory = Path(directory)
    now = time.time() if now is None else now
    key_file = rules.key if rules else key_file
    if is_snapshot(directory):
        return load_snapshot(directory, key or (key_for(directory.name, key_file, "snapshot") if key_file
                                                else SHARED_KEY), now)
    terms = make_terms(rules, b"") if rules else None
    files, errors, warnings = find_lists(directory, terms.defaults if terms else ListSettings(
        action=action, https=https), lenient=True, redirects=redirects)
    if key is None:
        hashed = next((source.path.name for source in files if source.reader is formats.read_hashed_list), None)
        key = SHARED_KEY if hashed is None or key_file is None else key_for(hashed, key_file)
    compiler = Compiler(key)
    totals = []
    sets: dict[str, ClientSet] = {}
    whom = ClientFiles(directory, key, {})
    whom.look({source.settings.clients_file for source in files} - {""})
    for source in files:
        index = compiler.add_list(source.name, source.settings)
        mark(compiler.lists[index], source.settings)
        expires = source.settings.expires
        compiler.lists[index].expires = expires.timestamp() if expires else None
        total = 0
        if source.expired(now):
            warnings.append(Finding(source.path.name, 0, f"expired on {source.settings.expires:%Y-%m-%d %H:%M %Z}; "
                                    "it is not in force"))
        elif whose := whom.why_without(source.settings):
            finding, _ = whom.refused[source.settings.clients_file]
            errors += [Finding(source.path.name, 0, whose), *([finding] if finding and finding.line else [])]
        else:
            if (one := stated_set(source.settings, key) or whom.of(source.settings.clients_file)) is not None:
                give(compiler.lists[index], one)
                sets[one.sum] = one
            reading = Reading(source, terms.protected if terms else None, key)
            try:
                compiler.lists[index].notice = read_notice(source)
                for item in reading.entries():
                    if tolerant or not errors:
                        compiler.add(index, item)
                        total += item.kind not in formats.MARKS
                warnings += reading.warnings
                if terms and (why := why_unsigned(source, terms, now)):
                    warnings.append(Finding(source.path.name, 0, and_so(why, REFUSED)))
            except ListError as error:
                if tolerant:
                    warnings += reading.first_problem()
                    errors.append(finding_of(source, error))
                else:
                    errors += reading.problems or [finding_of(source, error)]
            except Exception as error:      # one list's fault is one list's
                errors.append(Finding(source.path.name, 0, fault_of(error)))
        totals.append(total)
    if tolerant:
        warnings = [error._replace(why=and_so(error.why, REFUSED)) for error in errors] + warnings
    elif errors:
        more = f" (and {len(errors) - 1} more; `edgeblock lint {directory}` lists all)" if len(errors) > 1 else ""
        raise ListError(f"{errors[0]}{more}")
    made = replace(compiler.finish(), nat64=rules.nat64 if rules else (), client_sets=list(sets.values()))
    snapshot = pack(made, key, int(now))
    matcher = ListMatcher(open_snapshot(snapshot, key))
    infos = tuple(
        ListInfo(source.name, source.path.name, source.settings.action, source.settings.category,
                 source.settings.https, source.settings.mandatory, source.settings.expires, source.expired(now),
                 record.entries, max(0, total - record.entries), record.clients, record.clients_count,
                 source.settings.redirect)
        for source, record, total in zip(files, compiler.lists, totals, strict=True))
    return Rules(directory, matcher, snapshot, infos, tuple(warnings), tuple(files), now)


class Reading:
    """One list on its way in. Lines that cannot be used are left out up to the share that its settings allow."""

    def __init__(self, source: ListFile, protected: Protected | None, key: Key) -> None:
        self.source = source
        skips = source.settings.guarded == "skip"
        self.guard = Guard(source.settings, protected or shipped_protected(), key) if protected or skips else None
        self.problems: list[Finding] = []
        self.warnings: list[Finding] = []

    def entries(self) -> Iterator[formats.Entry | formats.HashedEntry]:
        """Raises ListError where nothing of the list can be used, or too little of it."""
        refuses = self.guard.refuses if self.guard else None
        name = self.source.path.name
        lines = last = refused = 0
        first: Finding | None = None
        for item in read_list(self.source):
            if isinstance(item, Finding):
                lines += 1
                self.problems.append(item)
                continue
            if item.line != last:       # as the daemon counts them
                last = item.line
                lines += 1
            if refuses is not None and (why := refuses(item)) is not None:
                refused += 1
                first = first or Finding(name, item.line, why)
                if self.guard and self.guard.skips:
                    continue
            yield item
        if why := unusable_lines(self.source.settings, Seen(lines, 0, len(self.problems))):
            raise ListError(why)
        self.warnings += self.first_problem(left_out(self.source.settings))
        if first:
            more = f" (and {refused - 1} more)" if refused > 1 else ""
            skips = self.guard is not None and self.guard.skips
            so = left_out(self.source.settings, True) if skips else REFUSED
            self.warnings.append(first._replace(why=and_so(first.why + more, so)))

    def first_problem(self, so: str = "") -> list[Finding]:
        """The first line that cannot be used, if there is one, and how many more there are."""
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        return [one._replace(why=(and_so(one.why, so) if so else one.why) + more) for one in self.problems[:1]]


def load_snapshot(path: Path, key: Key, now: float) -> Rules:
    """The rules of a snapshot file, which has no lines to show; what has expired since is still in force in it.

    Raises:
        ListError: it is none, or was cut, altered, or made under another key.
    """
    snapshot = open_stacked(path, key)
    infos = tuple(
        ListInfo(record.name, record.file, record.action, record.category, record.https, record.mandatory,
                 None if record.expires is None else datetime.fromtimestamp(record.expires, UTC), record.expired,
                 record.entries, record.duplicates, record.clients, record.clients_count, record.redirect)
        for record in snapshot.parts.lists)
    warnings = tuple(
        Finding(path.name, 0, f"the list {info.name} expired on {info.expires:%Y-%m-%d %H:%M %Z}, after this "
                "snapshot was made, and is in force in it; compile it again")
        for info in infos if info.expires is not None and info.expires.timestamp() <= now and not info.expired)
    return Rules(path, ListMatcher(snapshot), snapshot.data, infos, warnings, (), snapshot.built)


def key_for(file_name: str, key_file: Path, what: str = "hashed list") -> Key:
    """The key of the box, which the hashed list or snapshot of that name needs."""
    try:
        return read_key(key_file)
    except ListError as error:
        raise ListError(f"{file_name}: is a {what} and needs its key: {error}; run this as root, or with "
                        "the --config of the box") from None
