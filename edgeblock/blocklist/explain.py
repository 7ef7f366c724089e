"""What the lists say of a name, and why; where the entry stands that has a rule id.

In: a matcher, or Rules whose files can be read again for lines; names as people type them. Out: a Record for each
name, a Place for each entry. Never here: a name judged by anything but the matcher that the engine uses.
"""

import ipaddress
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from edgeblock.addresses import embedded
from edgeblock.blocklist import formats
from edgeblock.blocklist.canonical import host_address
from edgeblock.blocklist.directory import Finding, read_list
from edgeblock.blocklist.fingerprint import Kind, fingerprint
from edgeblock.blocklist.formats.entries import host_of, refuse_punctuation, url_of
from edgeblock.blocklist.formats.lines import BadEntry
from edgeblock.blocklist.keys import Key
from edgeblock.blocklist.load import ListInfo, Rules
from edgeblock.blocklist.matcher import Candidate, Found, ListMatcher, Row
from edgeblock.blocklist.parts import EXCEPTION, TERMS, ListRecord, rule_number
from edgeblock.blocklist.snapshot import Snapshot
from edgeblock.blocklist.terms import OPEN, Window, shown_time
from edgeblock.blocklist.timetable import Held, Table
from edgeblock.blocklist.within import Range, leads_to, look_inside, ports_of, range_of, said_of
from edgeblock.core.decision import carried_out
from edgeblock.errors import ListError

CHANGES_MAX = 100       # moments that are looked at for the one from which a rule holds, or does not

KIND_NAMES = {
    Kind.HOST: "host and subdomains", Kind.HOST_ONLY: "host only", Kind.SUBDOMAINS: "subdomains only",
    Kind.URL_WITH_QUERY: "URL with this query", Kind.URL: "URL", Kind.DIRECTORY: "every URL below",
    Kind.NETWORK: "address", Kind.ENDPOINT: "address and port", Kind.HOST_OF_URL: "host of a URL (https = \"host\")",
    Kind.HOST_AT: "host and subdomains at this address", Kind.HOST_ONLY_AT: "host only, at this address",
    Kind.SUBDOMAINS_AT: "subdomains only, at this address",
}


@dataclass(frozen=True)
class Rule:
    """A rule that a candidate led to; `line` is None when its file no longer has it."""

    list: str
    file: str
    line: int | None
    rule: str
    entry: str              # what kind of entry it is
    exception: bool
    mandatory: bool
    action: str
    applies: bool
    in_force: bool
    attributes: str = ""    # as its line has them, one blank between two
    holds: bool = True      # at the moment that was asked about, in such a hello
    awaits_ech: bool = False        # it would in one with an Encrypted ClientHello
    window: str = ""        # when its entry holds, as attributes have it; of several with " or " between them
    list_window: str = ""   # when its whole list does
    changes: str | None = None      # when it begins or ends to hold next
    order: dict[str, str] = field(default_factory=dict)     # by whose order: of the entry, else of its list
    whom: str = ""          # whom its list is for, where that is not everybody, and whether that is this client

    def terms(self) -> Iterator[str]:
        """When it holds and by whose order, for a person."""
        said = [] if self.attributes or not self.window else [self.window]
        said += [f"the list: {self.list_window}"] if self.list_window else []
        if self.changes:
            said.append(f"holds {'until' if self.holds or self.awaits_ech else 'from'} {self.changes}")
        if said:
            yield "; ".join(said)
        if self.order:
            yield ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in self.order.items())


@dataclass(frozen=True)
class Tried:
    """One canonical form that was looked up."""

    text: str
    in_bitmap: bool
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Verdict:
    """What one protocol gets: `proto` is tls (QUIC is the same), http or ip; `precedence` says in words why. What can
    be shown in HTTP alone is a reset elsewhere.

    `asked` is false for the protocol that a URL does not name.
    """

    proto: str
    asked: bool
    verdict: str
    list: str | None
    rule: str | None
    precedence: str
    tried: tuple[Tried, ...]
    redirect: str = ""      # where the list sends to, if that is not where [reply] does


@dataclass(frozen=True)
class Record:
    """Everything about one name. `canonical` is None when `problem` says why it is no name. `leads_to` are the IPv4
    addresses that an IPv6 one stands for, each with the way."""

    name: str
    canonical: str | None
    problem: str
    verdicts: tuple[Verdict, ...]
    leads_to: tuple[str, ...] = ()

    @property
    def blocked(self) -> bool:
        """Whether any protocol that was asked about is stopped (drop, reset, page or redirect)."""
        return any(verdict.asked and verdict.verdict not in ("accept", "observe") for verdict in self.verdicts)

    def as_dict(self) -> dict[str, object]:
        """The record as JSON-able values."""
        return {**asdict(self), "blocked": self.blocked}

    def as_text(self) -> str:
        """The record for a person at a terminal, without a final line end."""
        if self.canonical is None:
            told = f"{self.name}: {self.problem}"
            return "".join(one if one.isprintable() else repr(one)[1:-1] for one in told)
        same = self.canonical in (self.name, PORT_BEHIND.sub("", self.name))
        lines = [self.name if same else f"{self.name}  (compared as {self.canonical})"]
        lines += [f"  leads to {one}" for one in self.leads_to]
        for verdict in self.verdicts:
            proto = verdict.proto if verdict.asked else f"({verdict.proto})"
            lines.append(f"  {proto:<7} {verdict.verdict}: {verdict.precedence}")
            for tried in verdict.tried:
                lines.append(f"        {tried.text:<40} " + ("" if tried.rules else "not listed"))
                for rule in tried.rules:
                    place = f"{rule.file}:{rule.line}" if rule.line else rule.file
                    marks = [rule.entry, "exception" if rule.exception else rule.action]
                    marks += ["mandatory"] if rule.mandatory else []
                    marks += ["in force"] if rule.in_force else [
                        "does not apply here"] * (not rule.whom) if not rule.applies else \
                        [] if rule.holds else ["only with an Encrypted ClientHello" if rule.awaits_ech else
                                               "not in force"]
                    marks += [rule.whom] if rule.whom else []
                    lines.append(f"          {place}  rule {rule.rule}  {', '.join(marks)}"
                                 f"{' ' * bool(rule.attributes)}{rule.attributes}")
                    lines += [f"            {line}" for line in rule.terms()]
        return "\n".join(line.rstrip() for line in lines)


def explain(rules: Rules, names: Iterable[str], at: float | None = None) -> list[Record]:
    """A Record for each name, at that moment (Unix seconds; None: now): a host, a URL, or an address with or
    without a port. `@ ADDRESS` behind a host or URL says where it leads.

    A host is judged in TLS and as the front page over HTTP; a URL in the protocol it names (without one: HTTP), and
    for information in the other: in TLS only the host of a URL is visible.
    """
    rules.matcher.at = at
    asked = [(name, *judge(rules.matcher, name)) for name in names]
    lists = {info.name: info for info in rules.lists}
    hours = Hours(rules.matcher.snapshot, at)
    lines = find_lines(rules, [judged.tried for _, _, _, verdicts, _ in asked for judged in verdicts], hours.at)
    return [
        Record(name, canonical, problem, tuple(describe(lists, lines, judged, hours) for judged in verdicts), leads)
        for name, canonical, problem, verdicts, leads in asked]


def explain_alone(matcher: ListMatcher, name: str, at: float | None = None) -> Record:
    """A Record out of a snapshot alone: without the lines of the lists, which are not in it."""
    lists = {record.name: record for record in matcher.snapshot.parts.lists}
    matcher.at = at
    canonical, problem, verdicts, leads = judge(matcher, name)
    hours = Hours(matcher.snapshot, at)
    return Record(name, canonical, problem, tuple(describe(lists, {}, judged, hours) for judged in verdicts), leads)


def record_of(told: dict[str, Any]) -> Record:
    """A Record out of what `as_dict` made of it."""
    verdicts = []
    for verdict in told["verdicts"]:
        tried = tuple(Tried(one["text"], one["in_bitmap"], tuple(Rule(**rule) for rule in one["rules"]))
                      for one in verdict["tried"])
        verdicts.append(Verdict(**{**verdict, "tried": tried}))
    return Record(told["name"], told["canonical"], told["problem"], tuple(verdicts), tuple(told["leads_to"]))


def without_redirect(record: Record) -> Record:
    """The record where the configuration has no URL to redirect to: what a list has that has its own, and else the
    page."""
    verdicts = tuple(
        replace(one, verdict=carried_out(one.verdict, one.proto, redirects=False),
                precedence=f"{one.precedence}; the page in place of a redirect, as redirect under [reply] has no URL")
        if one.verdict == "redirect" and not one.redirect else one for one in record.verdicts)
    return replace(record, verdicts=verdicts)


class Judged(NamedTuple):
    """What the matcher said for one protocol. `said` is why, where that is more than what one rule says.
    `partly`: some of what was asked about is stopped."""

    proto: str
    asked: bool
    found: Found | None
    tried: list[Candidate]
    has_urls: bool          # the host has URL entries
    said: str = ""
    partly: bool = False
    at: str = ""            # where it leads, as was asked


AT = re.compile(r"(.*?)(?:(?<=\s)@\s*|@\s+)(\S*)")
PORT_BEHIND = re.compile(r"(?<=[\]\d]):\d{1,5}\Z")       # of an address, which is judged with it
URL_PARTS = re.compile(r"(?:(https?):[/\\\\]*)?([^/\\\\?#]*)", re.IGNORECASE)
MARKS = re.compile(r"(=|\*\.|@@=?|\|\||\.(?=[^.]))([^^]*)")
URL_PATH = re.compile(r"(?:https?:[/\\\\]*)?[^/\\\\?#]*(/[^#]*)", re.IGNORECASE)
PORT = re.compile(r".*(?:\]|^[^:]*):(\d{1,5})")


def judge(matcher: ListMatcher, name: str) -> tuple[str | None, str, list[Judged], tuple[str, ...]]:
    """Canonical form, problem, what the matcher says for each protocol, and what an IPv6 address leads to."""
    text, at, to = name.strip(), "", b""
    if said := AT.fullmatch(text):
        text, at = said[1].rstrip(), said[2]
        try:
            to = ipaddress.ip_address(at.strip("[]")).packed
        except ValueError:
            return None, f"has no address behind '@' but {at!r}; write one, such as example.com @ 192.0.2.1", [], ()
    try:
        refuse_marks(text)
        asked_range = range_of(text)
    except BadEntry as error:
        return None, str(error), [], ()
    if asked_range is not None:
        return asked_range.as_text(), "", [judge_range(matcher, asked_range)], leads_to(matcher, asked_range)
    scheme, authority = URL_PARTS.match(text).groups()      # type: ignore[union-attr]
    is_url = scheme or authority != text and "@" not in authority       # user@ is a browser's behind a scheme alone
    try:
        if is_url:
            canonical, asked = url_of(raw_of(text)), {"tls"} if scheme and scheme.lower() == "https" else {"http"}
        else:
            canonical, asked = host_of(raw_of(authority)), {"tls", "http"}
    except BadEntry as error:
        return None, str(error), [], ()
    host, slash, target = canonical.partition(b"/")
    verdicts = []
    leads: tuple[str, ...] = ()
    if (address := host_address(host)) is not None:
        port = PORT.fullmatch(authority)
        usual = {"https": 443, "http": 80}.get((scheme or "").lower(), 0)
        verdicts.append(judge_address(matcher, address, int(port[1]) if port else usual))
        leads = leads_to(matcher, address)
    for proto in sorted(("tls", "http"), key=lambda proto: (proto not in asked, proto == "http")):
        seen = (slash + target or b"/") if proto == "http" else None
        found, tried, has_urls = matcher.trace_name(proto, host, seen, to)
        if proto == "http" and (path := URL_PATH.match(text)):      # the canonical form is one way to read it
            found = matcher.look_up(proto, host, raw_of(path[1]), to) or found
        hidden = matcher.look_up(proto, host, to=to, ech=True) if proto == "tls" else None
        beside = f"{carried_out(hidden.action, proto)} where the hello has an Encrypted ClientHello" \
            if hidden and hidden != found else ""
        verdicts.append(Judged(proto, proto in asked, found, tried, has_urls, beside, at=at))
    if not any(judged.found for judged in verdicts):
        # What is left is a list's or a sentence's. Below a listed host it is answered, as it is on the wire.
        try:
            refuse_punctuation(host, raw_of(text))
        except BadEntry as error:
            return None, str(error), [], ()
    return canonical.decode("utf-8", "backslashreplace"), "", verdicts, leads


def raw_of(text: str) -> bytes:
    """A name as on the wire: a byte of an argument that is no UTF-8 is that byte again (PEP 383)."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def refuse_marks(text: str) -> None:
    """Raises BadEntry for what a list has in front of a host, and no host has."""
    if found := MARKS.match(text):
        name = found[2].lstrip("*.@=") or "a name"
        name = f"www.{name}" if found[1] == "*." else name
        raise BadEntry(f"begins with {found[1]!r}, as an entry of a list may and no name does; ask for {name}")


def judge_address(matcher: ListMatcher, address: bytes, port: int) -> Judged:
    """An address; without a port those of its ports that are listed are told beside it."""
    found, tried, _ = matcher.trace_address(address, port)
    inner = embedded(address, matcher.snapshot.parts.nat64) if len(address) == 16 else []
    ports = [] if port else [one for place in (address, *inner) for one in ports_of(matcher, place)]
    said = ""
    if ports and (found is None or found.action == "accept"):
        said = f"only a port of it is listed; ask for {formats.key_text(ports[0].text)}"
    return Judged("ip", True, found, tried + ports, False, said)


def judge_range(matcher: ListMatcher, asked: Range) -> Judged:
    inside = look_inside(matcher, asked)
    blocks = inside.too_many or any(one and one.action not in ("accept", "observe") for one in inside.parts)
    return Judged("ip", True, inside.parts[0] if inside.alike else None, inside.tried, False, said_of(inside),
                  blocks and not inside.alike)


Said = tuple[int, str]      # line, and the attributes in it


def find_lines(rules: Rules, tried: list[list[Candidate]],
               at: float) -> dict[tuple[str, Kind, bytes, bool], Said]:
    """Where the rules that were found stand, and what is said beside them, by reading their lists again: nothing
    keeps ten million lines. Of several lines of one rule the first that holds at `at`, before one that then wants an
    Encrypted ClientHello, before any."""
    wanted: dict[str, set[bytes]] = {}
    for candidates in tried:
        for candidate in candidates:
            for row in candidate.rows:
                wanted.setdefault(row.list, set()).add(candidate.text)
    found: dict[tuple[str, Kind, bytes, bool], tuple[int, Said]] = {}
    for source in rules.files:
        keys = wanted.get(source.name)
        if not keys:
            continue
        prints = {fingerprint(rules.matcher.snapshot.key, key): key for key in keys}
        with suppress(ListError):       # as far as it could be read it was taken, with a warning
            for item in read_list(source):
                if isinstance(item, Finding):
                    continue
                if isinstance(item, formats.HashedEntry):
                    if key := prints.get(item.print):
                        kind = Kind.HOST_OF_URL if item.kind == Kind.URL_MARK else item.kind
                        found.setdefault((source.name, kind, key, item.exception), (0, (item.line, "")))
                    continue
                rows = [(item.kind, item.key)] if item.key in keys else []
                if Kind.SUBDOMAINS < item.kind <= Kind.DIRECTORY and (host := item.key.partition(b"/")[0]) in keys:
                    rows.append((Kind.HOST_OF_URL, host))
                terms = item.terms if rows else None
                rank = 0 if terms and not terms.window.holds(at) else 1 if terms and terms.ech else 2
                for of, key in rows:
                    named = source.name, of, key, item.exception
                    if named not in found or rank > found[named][0]:
                        found[named] = rank, (item.line, formats.attributes_text(item.attributes).lstrip())
    return {named: said for named, (_, said) in found.items()}


class Place(NamedTuple):
    """Where an entry stands that has a rule id; `entry` is its canonical form, None in a hashed list."""

    file: str
    line: int
    list: str
    entry: str | None
    kind: str
    exception: bool

    def as_text(self) -> str:
        what = "exception" if self.exception else "block"
        return f"{self.file}:{self.line}  list {self.list}, {what}: {self.entry or '(hashed)'} ({self.kind})"


def find_rule(rules: Rules, rule: str) -> list[Place]:
    """The entries whose rule id, eight hex digits, this is, under the key that `rules` was loaded with."""
    key, wanted = rules.matcher.snapshot.key, int(rule, 16)
    found = []
    for source in rules.files:
        with suppress(ListError):       # it is among the warnings of `rules`; what stands before the fault is found
            for item in read_list(source):
                if isinstance(item, Finding):
                    continue
                for kind, text, mark in marks_of(item, key):
                    if rule_number(mark, kind) == wanted:
                        entry = formats.key_text(text) if text else None
                        found.append(Place(source.path.name, item.line, source.name, entry, KIND_NAMES[kind],
                                           item.exception))
    return found


def marks_of(item: formats.Entry | formats.HashedEntry, key: Key) -> Iterator[tuple[Kind, bytes | None, bytes]]:
    """Kind, canonical form and fingerprint of the rules that an entry can become."""
    if isinstance(item, formats.HashedEntry):
        if item.kind not in formats.MARKS:
            yield item.kind, None, item.print
        yield Kind.HOST_OF_URL, None, item.print
        return
    yield item.kind, item.key, fingerprint(key, item.key)
    if Kind.SUBDOMAINS < item.kind <= Kind.DIRECTORY:
        host = item.key.partition(b"/")[0]
        yield Kind.HOST_OF_URL, host, fingerprint(key, host)


class Hours:
    """When the rules of a snapshot hold, seen from a moment (Unix seconds; None: now)."""

    def __init__(self, snapshot: Snapshot, at: float | None) -> None:
        self.at = time.time() if at is None else at
        self.key = snapshot.key
        self.lists = {record.name: (index, record) for index, record in enumerate(snapshot.parts.lists)}
        self.blobs = snapshot.terms
        self.tables: dict[int, Table] = {}

    def of(self, row: Row, text: bytes) -> tuple[bool, str, str, str | None, dict[str, str]]:
        """Of a row: whether it waits for an Encrypted ClientHello, its window, that of its list, when these change
        next, and its order data: its own, and what it has not of its list."""
        index, record = self.lists[row.list]
        held: list[Held] = []
        if index in self.blobs:
            table = self.tables.setdefault(index, Table(self.blobs[index]))
            held = table.find(fingerprint(self.key, text), row.kind | TERMS | (EXCEPTION if row.exception else 0))
        said = " or ".join(filter(None, (" ".join([one.window.as_text()] + ["ech=only"] * one.ech).strip()
                                         for one in held)))
        waits = not row.holds and record.window.holds(self.at) and any(one.window.holds(self.at) for one in held)
        if not waits:           # then what wants an Encrypted ClientHello says nothing of when the others hold
            held = [one for one in held if not one.ech] or held
        changes = next_change(record.life, [one.window for one in held] or [OPEN], self.at)
        now = [one for one in held if one.window.holds(self.at)] or held
        order = record.order | next((one.order for one in now if one.order), {})
        return waits, said, record.window.as_text(), None if changes is None else shown_time(changes), order


def next_change(whole: Window, windows: list[Window], at: float) -> int | None:
    """The first moment after `at` from which a row holds that does not, or the other way round."""
    def holds(moment: float) -> bool:
        return whole.holds(moment) and any(one.holds(moment) for one in windows)

    now, moment = holds(at), at
    for _ in range(CHANGES_MAX):
        every = [change for one in (whole, *windows) if (change := one.next_change(moment)) is not None]
        if not every:
            return None
        moment = min(every)
        if holds(moment) != now:
            return int(moment)
    return None


def describe(lists: Mapping[str, ListInfo | ListRecord], lines: dict[tuple[str, Kind, bytes, bool], Said],
             judged: Judged, hours: Hours) -> Verdict:
    seen: set[bytes] = set()
    tried: list[Tried] = []
    best: Rule | None = None
    idle: Rule | None = None        # it would apply, and does not hold
    applying = 0
    others = False
    for candidate in judged.tried:
        if candidate.text in seen:
            continue
        seen.add(candidate.text)
        explained = []
        for row in candidate.rows:
            info = lists[row.list]
            line, beside = lines.get((row.list, row.kind, candidate.text, row.exception), (None, ""))
            rule = Rule(row.list, info.file or row.list, line, row.rule, KIND_NAMES[row.kind], row.exception,
                        info.mandatory, info.action, row.applies, row.in_force, beside, row.holds,
                        *hours.of(row, candidate.text),
                        whom_of(info, row) if row.applies or row.not_for else "")
            explained.append(rule)
            others |= row.not_for
            applying += row.applies and row.holds
            idle = rule if row.applies and not row.holds and not rule.awaits_ech else idle
            best = rule if row.in_force else best
        tried.append(Tried(formats.key_text(candidate.text), candidate.in_bitmap, tuple(explained)))
    found = judged.found
    why, action = reason(best, idle, applying, judged), found.action if found else "accept"
    if judged.proto != "http" and found and action in ("page", "redirect"):
        where = "for an address" if judged.proto == "ip" else "in TLS and QUIC"
        why, action = f"{why}; {where} no page can be shown", carried_out(action, judged.proto)
    if judged.partly or found is None:
        why, action = judged.said or why, "partly" if judged.partly else action
    elif judged.said:
        why += f"; {judged.said}"
    if others:
        why += "; it is listed for other clients"
    return Verdict(judged.proto, judged.asked, action, found.list if found else None, found.rule if found else None,
                   why, tuple(tried),
                   lists[found.list].redirect if found and found.list and action == "redirect" else "")


def whom_of(info: ListInfo | ListRecord, row: Row) -> str:
    """Whom the list of a row is for, in words; "" for everybody."""
    if not info.clients:
        return ""
    every = "" if info.clients == "only" else "all but "
    some = "1 prefix" if info.clients_count == 1 else f"{info.clients_count} prefixes"
    return f"for {every}the clients of {some} only" + (", not for this one" if row.not_for else "")


def reason(best: Rule | None, idle: Rule | None, applying: int, judged: Judged) -> str:
    """Why this rule, in words."""
    if best is None and judged.found:
        return f"servers read this path in several ways, and one of them is on the list {judged.found.list}"
    if best is None:
        has_places = any(candidate.places for candidate in judged.tried)
        where = "at other addresses" if judged.at else "at certain addresses: ask for the host @ an address"
        idly = ""
        if idle:
            idly = f", for what the list {idle.list} has is not in force" + (
                f" before {idle.changes}" if idle.changes else "")
        urls = "; other URLs of this host are listed" if judged.has_urls else ""
        return f"nothing listed applies{idly}{urls}" + (
            f"; this host is listed {where}" if has_places else "")
    place = f"{best.file}:{best.line}" if best.line else best.file
    if best.exception:
        why = "an exception" + (" outranks every block that is not mandatory" if applying > 1 else "")
    elif best.mandatory:
        why = "a mandatory block" + (" outranks exceptions and other blocks" if applying > 1 else "")
    elif best.action == "observe":
        why = "listed, to be reported only"
    else:
        why = "a block" + (", the most specific of those that apply" if applying > 1 else "")
    return f"{why} ({place}, {best.entry})"
