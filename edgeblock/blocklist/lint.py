"""Everything that can be said about a directory of lists before it is used.

In: a directory and the terms of this box. Out: a Report: what refuses a list (errors), what looks like a mistake
(warnings), what is worth knowing (notes). Every list is read to its end, whatever is wrong with it. What never
happens here: a change on disk; more than ENTRIES_COMPARED entries in memory.
"""

import math
import os
import re
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path

from edgeblock import config
from edgeblock.blocklist.answers import MARK
from edgeblock.blocklist.canonical import canonical_url
from edgeblock.blocklist.clients import ClientFiles, state_of, stated_set
from edgeblock.blocklist.directory import (
    SETTINGS_MAX,
    Finding,
    ListFile,
    and_so,
    begins_with,
    fault_of,
    find_lists,
    finding_of,
    folded,
    open_regular,
    read_items,
    settings_path,
)
from edgeblock.blocklist.fingerprint import Kind, fingerprint
from edgeblock.blocklist.formats import (
    MARKS,
    ORDER,
    OUTCOME,
    Asked,
    Entry,
    HashedEntry,
    Passed,
    Problem,
    Remark,
    attributes_text,
    count_lines,
    key_text,
)
from edgeblock.blocklist.guard import Guard, Seen, guarded_entries, left_out, skip_instead
from edgeblock.blocklist.intake import Terms, make_terms, why_unsigned
from edgeblock.blocklist.keys import Key, key_id, why_foreign
from edgeblock.blocklist.notice import Notice, read_notice
from edgeblock.blocklist.pages import FILLED, unknown_words
from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.shared import old_data
from edgeblock.blocklist.terms import ALWAYS, DATE, ENDS, KNOWN, NEVER, Window, meant_by, shown_time
from edgeblock.blocklist.terms import Terms as EntryTerms
from edgeblock.errors import ListError

ENTRIES_COMPARED = 1_000_000    # with one another: some 200 bytes each
SHARE_TOLD = 0.5                # of URLs that do nothing on TLS, from which on it is said
ALIKE_MAX = 10_000              # findings of one sort that are kept of a list; the others are counted
FEW = 10                        # findings of one sort that are told one by one
PLACES = 5                      # lines that are named of more


@dataclass
class Report:
    """What lint found; each list of Findings by file, and what is about the whole file behind its lines."""

    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    lists: int = 0
    entries: int = 0
    addresses: int = 0          # entries for addresses, that block

    @property
    def findings(self) -> list[Finding]:
        return sorted(self.errors + self.warnings, key=place_of)

    def summary(self) -> str:
        """One line for the end."""
        def count(number: int, word: str) -> str:
            return f"{number} {word}" if number == 1 else f"{number} {word}s"

        entries = "1 entry" if self.entries == 1 else f"{self.entries} entries"
        return (f"{count(len(self.errors), 'error')}, {count(len(self.warnings), 'warning')} in "
                f"{count(self.lists, 'list')} with {entries}")


# What differs between two findings of one sort: texts in quotes, numbers and names, and what stands in front.
PARTICULARS = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|(?<!\S)\S*[\d.:/]\S*|\A\S+")


def grouped(findings: list[Finding]) -> list[Finding]:
    """The same in fewer words: of more than FEW findings of one sort the first alone, with how many there are and
    where the first of them stand. In the order of lines."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        sort = PARTICULARS.sub("~", finding.why) if finding.line else finding.why
        groups.setdefault((finding.file, sort), []).append(finding)
    told = []
    for alike in groups.values():
        if ORDER not in alike[0].file:      # which may be one line, and every item is to be fixed
            alike = folded(alike)
        if len(alike) <= FEW:
            told += alike
            continue
        places = ", ".join(str(one.line) for one in alike[:PLACES])
        more = ", ..." if len(alike) > PLACES else ""
        told.append(alike[0]._replace(why=f"{alike[0].why} ({len(alike)} of this sort, in lines {places}{more})"))
    return sorted(told, key=place_of)


def place_of(finding: Finding) -> tuple[str, float, str]:
    return finding.file, finding.line or math.inf, finding.why


def lint(directory: Path | str, rules: config.Rules | None = None, *, now: float | None = None,
         key: Key | None = None, everything: bool = False, redirect: str | None = None) -> Report:
    """What is wrong with the lists of `directory`.

    Args:
        rules: the configuration; None: its defaults.
        now: Unix seconds, against which lists expire; None asks the clock.
        key: of this box, for hashed lists; None: they are not tried for names that no list may block.
        everything: keep every finding, however many there are of one sort.
        redirect: the URL that the main configuration has for the action "redirect", "" for none; None: nobody knows.

    Raises:
        ListError: the directory does not exist or may not be read, or the protected names cannot be.
    """
    rules = rules or config.Rules()
    now = time.time() if now is None else now
    terms = make_terms(rules, key or b"")
    report = Report()
    files, errors, warnings = find_lists(Path(directory), terms.defaults, redirects=redirect != "")
    report.errors += errors
    report.warnings += warnings
    report.notes += [Finding(file, 0, "no line of its list was read; lint again once these settings can be used")
                     for file in {one.file for one in errors if one.file.endswith(".toml")}]
    report.lists = len(files)
    most = sys.maxsize if everything else ALIKE_MAX
    comparison, targets = Comparison(report, most), Targets(files, redirect or "", key)
    for source in files:
        lint_list(source, terms, comparison, targets, report, now, key, most)
    comparison.finish(files)
    report.warnings += targets.findings()
    lint_clients(Path(directory), files, report)
    impact = terms.protected.impact
    if impact and report.addresses and rules.key.exists() and not impact.periods:       # on a box
        report.notes.append(Finding("[impact]", 0, "nobody knows what is behind the addresses of these lists, so "
                                                   f"none is refused for that: {impact.why_none}"))
    if old := old_data(terms.protected.shared, now):
        report.notes.append(Finding("[rules] shared", 0, old))      # nothing of a list: no list is the worse for it
    for findings in (report.errors, report.warnings, report.notes):
        findings.sort(key=place_of)
    return report


def lint_clients(directory: Path, files: list[ListFile], report: Report) -> None:
    """What is to be said of whom lists are for."""
    bound = [source for source in files if source.settings.whom is not None]
    clients = ClientFiles(directory, b"", {})
    clients.look({source.settings.clients_file for source in bound} - {""})
    report.errors += [one for file, (finding, _) in clients.refused.items() if finding and finding.line
                      for one in (finding, *clients.others[file])]
    for file in clients.kept:
        if state_of(directory / file).st_mode & 0o004:
            report.notes.append(Finding(file, 0, "may be read by every user of this machine, and has addresses of "
                                        f"subscribers; chmod o-r {file}"))
    for source in bound:
        name, file = source.path.name, source.settings.clients_file
        if why := clients.why_without(source.settings):
            report.errors.append(Finding(name, 0, why))
            continue
        one = stated_set(source.settings, b"") or clients.of(file)
        key = "clients" if source.settings.clients is not None else "clients_except"
        if one is not None and not one.prefixes:
            whom = "nobody" if key == "clients" else "everybody"
            report.warnings.append(Finding(name, 0, f'{key} = "{file}", which has no prefix: this list applies to '
                                           f"{whom}"))
        elif one is not None:
            every = "" if key == "clients" else "all but "
            report.notes.append(Finding(name, 0, f"applies to {every}the clients of {one.prefixes} prefixes"))


def lint_list(source: ListFile, terms: Terms, comparison: "Comparison", targets: "Targets", report: Report,
              now: float, key: Key | None, most: int) -> None:
    name = source.path.name
    guard = Guard(source.settings, terms.protected, key)
    problems: list[Finding] = []
    passed: dict[str, list[int]] = {}
    beside: dict[str, int] = {}         # attributes, and how many entries have each
    lines = entries = refused = last = exceptions = unusable = 0
    foreign = dated = ""
    if source.settings.format == "order" and is_taken(source.path.with_name(source.name + OUTCOME)):
        report.warnings.append(Finding(source.name + OUTCOME, 0, "is no answer that edgeblock has written, and is "
                                       "left alone, so this order is not answered; move it away"))
    kinds: Counter[int] = Counter()     # of blocks
    idle: set[int] = set()              # lines that are no entry
    hours = Hours(now)
    comparison.begin(name)
    blocks = source.settings.action != "observe" and not source.expired(now)
    try:
        report.notes += [Finding(name, 0, why) for why in about_pages(read_notice(source))]
        for item in read_items(source):
            if isinstance(item, Passed):
                passed.setdefault(item.why, []).append(item.line)
                exceptions += item.exception
                if item.exception and exceptions <= most:
                    report.warnings.append(Finding(name, item.line, f"the exception {item.text} is left out, and "
                                                   f"what it would have passed may be blocked: {item.why}"))
                continue
            if isinstance(item, Remark):
                (report.warnings if item.warning else report.notes).append(Finding(name, item.line, item.why))
                continue
            if isinstance(item, Asked):
                continue
            if isinstance(item, Problem):
                lines += 1
                unusable += 1
                if unusable <= most:
                    idle.add(item.line)
                    problems.append(Finding(name, item.line, item.why))
                continue
            if item.line != last:       # as the daemon counts them
                last = item.line
                lines += 1
            entries += not isinstance(item, HashedEntry) or item.kind not in MARKS
            if isinstance(item, HashedEntry) and key is not None and item.head.key_id != key_id(key):
                foreign = why_foreign(item.head.key_id, key_id(key))
                continue
            if why := guard.refuses(item):
                refused += 1
                if refused <= most:
                    idle.add(item.line)
                    where, so = (report.warnings, f"; {left_out(source.settings, True)}") if guard.skips else \
                        (report.errors, "")
                    where.append(Finding(name, item.line, why + so))
                entries -= guard.skips
                continue                # it covers nothing, and nothing is said of it beyond that
            kinds[item.kind] += not item.exception
            if blocks:
                targets.see(source, item)
            if isinstance(item, Entry):
                comparison.add(item)
                if item.attributes and (never := hours.add(item)) and hours.never <= most:
                    report.warnings.append(Finding(name, item.line, never))
                for attribute, value in item.attributes:
                    beside[attribute] = beside.get(attribute, 0) + 1
                    if not dated and attribute in ENDS and (dated := whole_day(value, attribute)):
                        report.notes.append(Finding(name, item.line, dated))
    except ListError as error:
        report.errors += [*problems, finding_of(source, error)]
        return
    except Exception as error:          # one list's fault is one list's
        report.errors += [*problems, Finding(name, 0, fault_of(error))]
        return
    report.entries += entries
    report.addresses += guard.addresses
    if guard.behind and guard.behind.entries:
        some = "the address that it has" if guard.behind.entries == 1 else \
            f"the {guard.behind.entries} addresses and ranges that it has"
        report.notes.append(Finding(name, 0, f"the box has seen, of {some}: {guard.behind.figures()}"))
    if source.settings.whom is not None and guard.addresses:
        report.notes.append(Finding(name, 0, f"{guard.addresses} of its entries are addresses: of a list for some "
                                    "clients they hold on the watched ports only, as the kernel's rules know none"))
    if guard.skips:
        if why := guarded_entries(source.settings, refused, entries):
            report.errors.append(Finding(name, 0, why))
        elif refused > most:
            report.warnings.append(Finding(name, 0, f"has {refused - most} more entries that are left out"))
    elif refused:
        if refused > most:
            report.errors.append(Finding(name, 0, f"has {refused - most} more entries that no list may have"))
        report.notes.append(Finding(name, 0, skip_instead(source.settings, refused)))
    if foreign:
        report.errors.append(Finding(name, 0, foreign))
    if why := guard.refuses_list(Seen(lines, entries, unusable), None, now):
        report.errors += [*problems, Finding(name, 0, why)]
    else:
        report.warnings += [one._replace(why=and_so(one.why, left_out(source.settings))) for one in problems]
    if unusable > most:
        report.warnings.append(Finding(name, 0, f"has {unusable - most} more lines that cannot be used"))
    if why := why_unsigned(source, terms, now):
        report.errors.append(Finding(name, 0, why))
    if not entries and not source.settings.window:
        report.warnings.append(Finding(name, 0, "has no entries"))
    if why := hours.why_never(source.settings.window):
        report.warnings.append(Finding(name, 0, why))
    report.notes += [Finding(name, 0, why) for why in hours.told(source.settings, most)]
    if source.expired(now):
        report.warnings.append(Finding(
            name, 0, f"expired on {source.settings.expires:%Y-%m-%d %H:%M %Z}; it is not in force"))
    report.notes += [Finding(name, 0, why) for why in without_effect(source, kinds, idle)]
    if exceptions > most:
        report.warnings.append(Finding(name, 0, f"has {exceptions - most} more exceptions that are left out"))
    for attribute in source.settings.attributes:
        count = beside.get(attribute, 0)
        report.notes.append(Finding(name, 0, f"{count} of {entries} entries have the attribute {attribute}"
                                    f"{acts_not(attribute)}"))
    if not dated and (dated := whole_day(stated_until(source), "until")):
        report.notes.append(Finding(f"{source.name}.toml", 0, dated))
    for why, places in passed.items():
        some = f"{len(places)} lines" if len(places) > 1 else "1 line"
        report.notes.append(Finding(name, places[0], f"{some} passed over: {why}"))


def is_taken(path: Path) -> bool:
    """Whether the place of an answer has a file that is none. False where nobody can tell."""
    try:
        return os.path.lexists(path) and not begins_with(path, MARK)
    except (ListError, OSError):
        return False


def without_effect(source: ListFile, kinds: Counter[int], idle: Container[int]) -> Iterator[str]:
    """What of a list's blocks does less than whoever wrote it may think. `idle` are lines that are no entry."""
    urls = sum(kinds[kind] for kind in (Kind.URL, Kind.URL_WITH_QUERY, Kind.DIRECTORY))
    if urls and source.settings.https != "host":
        with open_regular(source.path) as file:
            secure = min(urls, count_lines(file, source.settings, b"https://", idle))
        some = f"has {urls} URL{'s' * (urls > 1)}, and browsers turn http:// into https:// by themselves"
        if secure >= urls * SHARE_TOLD:
            some = f"{secure} of {urls} URLs begin with https://"
        yield (f'{some}; in TLS and QUIC the path is invisible, so URLs do nothing there: https = "host" in the '
               "settings of this list blocks their whole hosts instead")
    yield from unheard(source.settings)
    if source.settings.action in ("page", "redirect"):
        yield (f'action = "{source.settings.action}" holds in plain HTTP alone, and browsers turn http:// into '
               "https:// by themselves: in TLS and QUIC no page can be shown and nobody be sent on, so most of those "
               "who are blocked see a connection that fails")
    if kinds[Kind.SUBDOMAINS] and not kinds[Kind.HOST] and not kinds[Kind.HOST_ONLY]:
        yield (f"{kinds[Kind.SUBDOMAINS]} entries are *.name, which leaves the bare name open; without the star an "
               "entry covers both")


def unheard(settings: ListSettings) -> Iterator[str]:
    """What a list's settings tell those whom it blocks, and its action does not let them hear."""
    told = [key for key in ("page", "reason", "contact", "status") if getattr(settings, key)]
    do = f"do{'es' * (len(told) == 1)} nothing with"
    if told and settings.action == "redirect":
        yield f'{", ".join(told)} {do} action = "redirect" where there is a URL to send those to whom it blocks'
    elif told and settings.action != "page":
        yield f'{", ".join(told)} {do} action = "{settings.action}"; action = "page" shows the page'
    if settings.redirect and settings.action != "redirect":
        yield f'redirect does nothing with action = "{settings.action}"; action = "redirect" sends them on'


def about_pages(notice: Notice) -> Iterator[str]:
    for language, page in notice.get("pages", {}).items():
        if words := unknown_words(page):
            which = f" ({language})" if language else ""
            yield (f"its page{which} has {', '.join(f'${word}' for word in words[:FEW])}, which is not filled in; "
                   f"known are {', '.join(f'${word}' for word in sorted((*FILLED, 'reference')))}")


def acts_not(attribute: str) -> str:
    """What has to be said of a declared attribute that edgeblock does nothing with."""
    if attribute in KNOWN:
        return ""
    meant = meant_by(attribute)
    return "; nothing acts on it, it is only shown" + (f": did you mean {meant}?" if meant else "")


def stated_until(source: ListFile) -> str:
    """A date alone that the settings of a list have for its end, as it stands there; "" for anything else."""
    if source.settings.until is None:
        return ""
    try:
        with open_regular(settings_path(source.path)) as file:
            value = tomllib.loads(file.read(SETTINGS_MAX).decode("utf-8-sig")).get("until")
    except (ListError, OSError, ValueError, RecursionError):        # changed since it was read
        return ""
    return "" if isinstance(value, datetime) else str(value)


def whole_day(value: str, name: str) -> str:
    """What has to be said of a time that is a date alone and the end of something; "" of any other."""
    try:
        day = date.fromisoformat(value) if DATE.fullmatch(value) else None
        return (f"{name}={value} ends as that day begins (00:00 UTC); for the whole day write the next one in your "
                f'zone, such as {name}="{day + timedelta(1)} Europe/London"') if day else ""
    except (ValueError, OverflowError):
        return ""


class Hours:
    """What is to be said of when the entries of a list hold, seen from now (Unix seconds)."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.past = self.later = self.ech = self.never = 0
        self.last, self.first = ALWAYS, NEVER       # of those that are past their end, and of those that are to begin

    def add(self, entry: Entry) -> str | None:
        """What is wrong with when an entry holds."""
        terms = entry.terms
        if terms is None:
            return None
        window = terms.window
        self.ech += terms.ech
        if not window.opens():
            self.never += 1
            return f"{line_of(entry)!r} never holds: no moment is in all of its window"
        if window.ends <= self.now:
            self.past += 1
            self.last = max(self.last, window.ends)
        elif window.begins > self.now:
            self.later += 1
            self.first = min(self.first, window.begins)
        return None

    def why_never(self, window: Window) -> str | None:
        """Why a list is never in force from now on."""
        if not window.opens():
            return "is never in force: no moment is in all of its window"
        if window.ends <= self.now:
            return f"has ended at {shown_time(window.ends)} (until); it is not in force"
        return None

    def told(self, settings: ListSettings, most: int) -> Iterator[str]:
        """What else there is to know of the entries."""
        window = settings.window
        if not window.holds(self.now) and (at := window.next_change(self.now)) is not None:
            yield f"is not in force before {shown_time(at)}"
        days = settings.drop_past_days
        if self.past:
            some = "1 entry has" if self.past == 1 else f"{self.past} entries have"
            yield f"{some} ended by {shown_time(self.last)}" + (
                f"; those that ended more than {days} days ago are left out (drop_past_days)" if days is not None else
                "; drop_past_days = 30 in the settings of this list leaves out what ended more than 30 days ago")
        if self.later:
            some = "1 entry is" if self.later == 1 else f"{self.later} entries are"
            yield f"{some} yet to begin, at {shown_time(self.first)} at the earliest"
        if self.ech:
            some = "1 entry holds" if self.ech == 1 else f"{self.ech} entries hold"
            yield f"{some} only in hellos with an Encrypted ClientHello (ech=only)"
        if self.never > most:
            yield f"{self.never - most} more entries never hold"


# Entries beside one another ------------------------------------------------------------------------------------

Mark = tuple[Kind, bytes, bool]


class Comparison:
    """Entries that are listed twice, or that a broader one of the same list covers."""

    def __init__(self, report: Report, most: int) -> None:
        self._most = most
        self._report = report
        self._places: list[dict[Mark, int]] = []    # of each list: where an entry stands first
        self._names: list[str] = []
        self._timed: dict[tuple[Mark, EntryTerms], int] = {}       # those of the list that is read, with a window
        self._left = ENTRIES_COMPARED
        self._alike: Counter[tuple[str, str]] = Counter()

    def begin(self, name: str) -> None:
        """What is added from here on is of the list file with this name."""
        self._names.append(name)
        self._places.append({})
        self._timed.clear()

    def add(self, entry: Entry) -> None:
        mark = (entry.kind, entry.key, entry.exception)
        if entry.attributes and (terms := entry.terms) and (terms.window or terms.ech):
            # What holds at other times or in other hellos is neither the same entry nor covered, and covers nothing.
            if (mark, terms) in self._timed:
                self._warn(self._names[-1], entry.line,
                           f"{text_of(mark)} is listed already with this window, in line {self._timed[mark, terms]}",
                           "twice")
            elif self._left:
                self._timed[mark, terms] = entry.line
                self._left -= 1
            return
        places = self._places[-1]
        first = places.get(mark)
        if first is not None:
            self._warn(self._names[-1], entry.line, f"{text_of(mark)} is listed already, in line {first}", "twice")
        elif self._left:
            places[mark] = entry.line
            self._left -= 1

    def _warn(self, name: str, line: int, why: str, sort: str) -> None:
        self._alike[name, sort] += 1
        if self._alike[name, sort] <= self._most:
            self._report.warnings.append(Finding(name, line, why))

    def finish(self, files: list[ListFile]) -> None:
        """Adds what is known once all lists have been read."""
        for name, places in zip(self._names, self._places, strict=True):
            for mark, line in places.items():
                for broader in covering(mark):
                    if (place := places.get(broader)) is not None:
                        self._warn(name, line, f"{text_of(mark)} is covered by {text_of(broader)}, in line {place}",
                                   "covered")
                        break
        for (name, sort), count in self._alike.items():
            if count > self._most:
                word = "are listed twice" if sort == "twice" else "are covered by others"
                self._report.warnings.append(Finding(name, 0, f"has {count - self._most} more entries that {word}"))
        for later in range(len(self._places)):
            for earlier in range(later):
                self._compare(earlier, later)
        if not self._left:
            self._report.notes.append(Finding(self._names[-1], 0, f"only the first {ENTRIES_COMPARED} entries of all "
                                              "lists were compared with one another"))

    def _compare(self, earlier: int, later: int) -> None:
        one, other = self._places[earlier], self._places[later]
        common = one.keys() & other.keys()
        if common:
            first = min(common, key=other.__getitem__)
            some = "1 entry is" if len(common) == 1 else f"{len(common)} entries are"
            self._report.notes.append(Finding(
                self._names[later], other[first],
                f"{some} also in {self._names[earlier]}, such as this one in line {one[first]}"))


class Targets:
    """Where lists send those whom they block: whether that is listed itself."""

    def __init__(self, files: list[ListFile], redirect: str, key: Key | None) -> None:
        self._by_list = {one.path.name: one.settings.redirect or redirect for one in files
                         if one.settings.action == "redirect"}
        self._marks: dict[tuple[int, bytes], set[str]] = {}
        self._hosts: dict[bytes, set[str]] = {}         # of those over TLS, where a URL may stand for its host
        self._listed: dict[str, str] = {}
        self._excepted: set[str] = set()
        for url in set(self._by_list.values()):
            self._add(url, key)

    def _add(self, url: str, key: Key | None) -> None:
        found = canonical_url(url.encode())
        if found is None:
            return
        host, slash, target = found.partition(b"/")
        mark = Kind.URL_WITH_QUERY if b"?" in target else Kind.URL, found, False
        if url.lower().startswith("https:"):
            self._hosts.setdefault(host, set()).add(url)
            mark = Kind.HOST_ONLY, host, False
        for kind, text, _ in (mark, *covering(mark)):
            for name in (text, fingerprint(key, text) if key else text):
                self._marks.setdefault((kind, name), set()).add(url)

    def see(self, source: ListFile, item: Entry | HashedEntry) -> None:
        """An entry that is going to be in force."""
        name = item.key if isinstance(item, Entry) else item.print
        found = self._marks.get((item.kind, name), set())
        if self._hosts and source.settings.https == "host" and Kind.SUBDOMAINS < item.kind <= Kind.DIRECTORY:
            found = found | self._hosts.get(name.partition(b"/")[0], set())
        for url in found:
            if item.exception:
                self._excepted.add(url)
            else:
                self._listed.setdefault(url, f"{source.path.name}:{item.line}")

    def findings(self) -> list[Finding]:
        return [Finding(file, 0, f"sends those whom it blocks to {url}, which is listed itself "
                        f"({self._listed[url]}), so they are blocked again; add an exception for it, or name another")
                for file, url in self._by_list.items() if url in self._listed.keys() - self._excepted]


def covering(mark: Mark) -> Iterator[Mark]:
    """Every entry that would match all that this one matches."""
    kind, key, exception = mark
    if kind in (Kind.NETWORK, Kind.ENDPOINT):
        size = 4 if len(key) < 16 else 16
        address, length = key[2:2 + size], key[1]
        number = int.from_bytes(address)
        if kind is Kind.ENDPOINT:
            yield Kind.NETWORK, key[:2 + size], exception
        for shorter in range(length - 1, -1, -1):
            number &= ~(1 << (8 * size - shorter - 1))
            yield Kind.NETWORK, bytes((0, shorter)) + number.to_bytes(size), exception
        return
    if kind >= Kind.HOST_AT:
        host, zero, place = key.partition(b"\0")
        plain = Kind(kind - Kind.HOST_AT + Kind.HOST), host, exception
        yield plain
        for broader, name, _ in covering(plain):
            yield broader, name, exception
            yield Kind(broader + Kind.HOST_AT - Kind.HOST), name + zero + place, exception
        for _, wider, _ in covering((Kind.NETWORK, zero + place, exception)):
            yield kind, host + wider, exception
        return
    host, slash, target = key.partition(b"/")
    if slash:
        path, query, _ = target.partition(b"?")
        if query:
            yield Kind.URL, host + slash + path, exception
        if kind is not Kind.DIRECTORY:
            yield Kind.DIRECTORY, host + slash + path, exception
        while path:
            path = path.rpartition(b"/")[0]
            yield Kind.DIRECTORY, host + slash + path, exception
    if kind is Kind.HOST_ONLY or kind is Kind.SUBDOMAINS or slash:
        yield Kind.HOST, host, exception
    if slash:
        yield Kind.HOST_ONLY, host, exception
    while parent := host.partition(b".")[2]:
        yield Kind.HOST, parent, exception
        yield Kind.SUBDOMAINS, parent, exception
        host = parent


def line_of(entry: Entry) -> str:
    """An entry as a line of a list in the grammar of .list, with its attributes."""
    return mark_text((entry.kind, entry.key, entry.exception)) + attributes_text(entry.attributes)


def text_of(mark: Mark) -> str:
    """An entry as a message shows it."""
    return repr(mark_text(mark))


def mark_text(mark: Mark) -> str:
    kind, key, exception = mark
    text = key_text(key)
    if kind is Kind.DIRECTORY:
        text = text.rstrip("/") + "/*"
    before = {Kind.HOST_ONLY: "=", Kind.SUBDOMAINS: "*.", Kind.HOST_ONLY_AT: "=",
              Kind.SUBDOMAINS_AT: "*."}.get(kind, "")
    return f"{'@@' if exception else ''}{before}{text}"
