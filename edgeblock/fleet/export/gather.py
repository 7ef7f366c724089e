"""What another plane is to block: the lists as the daemon takes them, and each answer from the box's own matcher.

In: a rules directory, a moment. Out: nodes (a name, with what the box does with it and with what is below it),
addresses as ranges, addresses with ports, and for whoever can use them URLs and names at an address. The lists are
read with the same readers, guard rails and terms as the daemon's, and every name is then asked of the matcher, so
that an exported one is one that this box blocks, for every client and at every address. A list that `edgeblock
compile` would refuse refuses the export. Memory holds what a snapshot does, 40 bytes an entry at most, and no text of
one. Never here: a format, a last good version of a list (the daemon has those).
"""

import os
import re
import secrets
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import ip_network
from pathlib import Path
from threading import Event
from typing import NamedTuple

from edgeblock import config
from edgeblock.addresses import BITS, Addresses, translated
from edgeblock.blocklist import canary, formats
from edgeblock.blocklist.addresses import Reader
from edgeblock.blocklist.canonical import host_address
from edgeblock.blocklist.compiler import Compiler, merge
from edgeblock.blocklist.directory import Finding, ListFile, find_lists, read_list
from edgeblock.blocklist.fingerprint import Kind, fingerprint
from edgeblock.blocklist.formats.entries import key_text
from edgeblock.blocklist.intake import make_terms
from edgeblock.blocklist.keys import Key
from edgeblock.blocklist.load import SHARED_KEY
from edgeblock.blocklist.matcher import Found, ListMatcher
from edgeblock.blocklist.parts import ROW_SIZE, Compiled, ListRecord
from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.snapshot import open_snapshot, pack
from edgeblock.blocklist.store import Store, readable_key
from edgeblock.blocklist.taking import take_all
from edgeblock.blocklist.terms import Window, shown_time
from edgeblock.errors import ListError

PASSING = ("accept", "observe")
HOSTS = (Kind.HOST, Kind.HOST_ONLY, Kind.SUBDOMAINS)
URLS = (Kind.URL, Kind.URL_WITH_QUERY, Kind.DIRECTORY)
PLACES = {Kind.HOST_AT: Kind.HOST, Kind.HOST_ONLY_AT: Kind.HOST_ONLY, Kind.SUBDOMAINS_AT: Kind.SUBDOMAINS}
HOST_MAX = 253          # characters of a name in DNS (RFC 1035, 2.3.4), without the final dot
DNS_NAME = re.compile(rb"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")
FRESH_SIZE = 8          # hex digits of the label that no list has
SIZE_OF_PRINT = 16
AGAIN = 0.5             # seconds until the daemon's state is looked at again

# Why entries are left out, in the order in which they are told.
EXPIRED = "of lists that are not in force at that time"
CLOSED = "not in force at that time"
OBSERVED = "of lists that only observe"
CLIENTS = "of lists for some clients only (no other plane knows who asks as the box does)"
ECH = "only for hellos with an Encrypted ClientHello"
HASHED = "as fingerprints, which have no text"
LIFTED = "that an exception lifts, or a guard rail leaves out"
NO_NAME = "that are no names of DNS"
SPARED = "with an exception for a URL or at an address, which would be blocked too"
URL = "URLs (a path is seen by the box alone)"
AT = "names at an address (the box sees both together)"
NAMES = "names (a router knows no names)"
ADDRESSES = "addresses (nobody asks a resolver for them)"
ENDPOINTS = "addresses with a port"
EXEMPT = "addresses of [ruleset] exempt_servers, which the box lets through"
LEADING = "IPv6 ranges that lead to IPv4 addresses, which are looked up as those"


class Node(NamedTuple):
    """A name that lists say something of. `own`: it is blocked itself; `below`: so is every name below it that has
    no node nearer to it; `inherited`: so it would be without its node. `list` and `action` are whose block it is."""

    name: str
    own: bool
    below: bool
    inherited: bool
    list: str = ""
    action: str = ""


class Special(NamedTuple):
    """What only a finer plane can do: a URL, or a name at an address. `passes`: it is an exception."""

    kind: str
    text: str
    list: str
    action: str
    passes: bool = False


@dataclass
class Sources:
    """The lists as they were taken: what is asked and what is read again. `left` counts what is not exported, by why;
    `kinds` the entries that some plane can have, by sort. `until` is the first moment (Unix seconds) from which the
    export would be another, by the lists' windows."""

    matcher: ListMatcher
    parts: Compiled
    files: list[ListFile]
    records: dict[str, ListRecord]      # by name, as they are in the lists, not as they are asked here
    at: float
    key: Key
    chosen: frozenset[str]
    nat64: tuple[str, ...] = ()
    exempt: tuple[str, ...] = ()
    warnings: list[Finding] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    until: int | None = None
    spared: ListMatcher | None = None
    diverted: Compiled | None = None
    https_host: bool = False
    fresh: bytes = b""
    exceptions_hashed: list[str] = field(default_factory=list)

    @property
    def about(self) -> str:
        """What stands at the head of a file."""
        return "made by edgeblock export; do not edit" + (
            f"; make it anew at {shown_time(self.until)}" if self.until is not None else "")

    # ---- names

    def look(self, host: bytes) -> Found | None:
        """The block of a name that holds for every client, in every protocol, wherever it leads; else None."""
        found = self.matcher.look_up("tls", host)
        if found is None or found.action in PASSING:
            return None
        if self.https_host:         # the host of a listed URL is blocked in TLS, and in HTTP only the URL
            plain = self.matcher.look_up("http", host, b"/" + self.fresh)
            if plain is None or plain.action in PASSING:
                return None
        if self.spared is not None and not self.records[found.list].mandatory:
            spared = self.spared.look_up("tls", host)
            if spared is not None:
                return None
        return found

    def nodes(self) -> Iterator[Node]:
        """Every name that has to be said something of, once each, in the order of the lists."""
        rows = memoryview(self.parts.rows).cast("B")          # type: ignore[arg-type]
        count = len(rows) // ROW_SIZE
        seen = bytearray(count // 8 + 1)
        around = lru_cache(1 << 12)(self._below)        # most names have few parents
        for source, entry in self.entries():
            host = host_said(entry)
            blocks = entry.kind in HOSTS and not entry.exception and self.blocking(source)
            if host is None or not (blocks or entry.exception):
                continue
            name = name_of(host)
            where = place_of(rows, count, fingerprint(self.key, host))
            if name is None or where < 0:
                self.left[NO_NAME if name is None else self._why(host, entry)] += blocks
                continue
            known = seen[where >> 3] & 1 << (where & 7)
            if known and not blocks:
                continue
            seen[where >> 3] |= 1 << (where & 7)
            own, below = self.look(host), self._below(host)
            if blocks and not (below if entry.kind is Kind.SUBDOMAINS else own):
                self.left[self._why(host, entry)] += 1
            if known:
                continue
            inherited = around(host.partition(b".")[2])
            if own or below or inherited:
                said = own or below
                yield Node(name, bool(own), bool(below), bool(inherited), said.list if said else "",
                           said.action if said else "")

    def said(self, name: str) -> Node:
        """What is done with a name, whether or not a list has it."""
        host = name.encode()
        return Node(name, bool(self.look(host)), bool(self._below(host)), bool(self._below(host.partition(b".")[2])))

    def _below(self, host: bytes) -> Found | None:
        """What a name below this one gets that no list has."""
        return self.look(self.fresh + b"." + host) if host and len(host) + FRESH_SIZE < HOST_MAX else None

    def _why(self, host: bytes, entry: formats.Entry) -> str:
        terms = entry.terms
        if terms and not terms.window.holds(self.at):
            return CLOSED
        if terms and terms.ech:
            return ECH
        found = self.matcher.look_up("tls", host if entry.kind is not Kind.SUBDOMAINS else self.fresh + b"." + host)
        return SPARED if found is not None and found.action not in PASSING else LIFTED

    def levels(self, name: str) -> int:
        """How often what is inherited changes on the way from the root to the names below this one: even where they
        pass, odd where they are blocked."""
        labels = name.encode().split(b".")
        said = [bool(self._below(b".".join(labels[at:]))) for at in range(len(labels) - 1, -1, -1)]
        return sum(one != before for before, one in zip([False, *said], said, strict=False))

    def refuse_hashed(self) -> None:
        """Raises ListError where names that a list passes are unknown here."""
        if self.exceptions_hashed:
            raise ListError(f"{self.exceptions_hashed[0]}: has exceptions as fingerprints, which have no text, and "
                            "what they pass would be blocked; export where the list that they were made of is")

    def leave(self, *sorts: str) -> None:
        """Counts entries of these sorts as left out."""
        for sort in sorts:
            self.left[sort] += self.kinds[sort]

    # ---- addresses

    def addresses(self) -> Addresses:
        """What is done with addresses, flattened: no two ranges have an address in common."""
        made = Reader().read(self.parts, at=self.at)
        self._count_addresses()
        ways = [(int(one.prefix.network_address), int(one.prefix.broadcast_address))
                for one in translated(self.nat64)]
        kept = []
        for span in made.spans[6]:
            if any(span.first <= last and first <= span.last for first, last in ways):
                self.left[LEADING] += 1
            else:
                kept.append(span)
        return self._without_exempt(Addresses({4: made.spans[4], 6: tuple(kept)}, made.endpoints))

    def _without_exempt(self, there: Addresses) -> Addresses:
        if not self.exempt:
            return there
        networks = [ip_network(one, strict=False) for one in self.exempt]
        spans, endpoints = {}, {}
        for family in BITS:
            holes = joined((int(one.network_address), int(one.broadcast_address)) for one in networks
                           if one.version == family)
            kept = [span._replace(first=first, last=last) for span in there.spans[family]
                    for first, last in outside(span.first, span.last, holes)]
            ports = [one for one in there.endpoints[family] if [*outside(one.address, one.address, holes)]]
            self.left[EXEMPT] += sum(one.last - one.first + 1 for one in there.spans[family]) - sum(
                one.last - one.first + 1 for one in kept) + len(there.endpoints[family]) - len(ports)
            spans[family], endpoints[family] = tuple(kept), tuple(ports)
        return Addresses(spans, endpoints)

    def _count_addresses(self) -> None:
        for source, entry in self.entries():
            if entry.kind in (Kind.NETWORK, Kind.ENDPOINT) and not entry.exception and self.blocking(source):
                size = 4 if len(entry.key) < 16 else 16
                found = self.matcher.look_up_address(entry.key[2:2 + size], int.from_bytes(entry.key[2 + size:]))
                if found is None or found.action in PASSING:
                    self.left[LIFTED if self._holds(entry) else CLOSED] += 1

    def to_divert(self) -> dict[int, list[tuple[int, int]]]:
        """Ranges of every address of which this box has something to judge, for a router that leads them to it: of
        lists for some clients too, of one port, of a name or a URL at an address. Joined where they touch."""
        assert self.diverted is not None
        made = Reader().read(self.diverted, at=self.at)
        ranges = {family: [span[:2] for span in made.spans[family] if span.what] for family in BITS}
        for family in BITS:
            ranges[family] += [(one.address, one.address) for one in made.endpoints[family] if one.what]
        for source, entry in self.entries():
            if source.name not in self.chosen or entry.exception or not self._holds(entry):
                continue
            if entry.kind in PLACES:
                key = entry.key[entry.key.index(b"\0"):]
                size = 4 if len(key) < 16 else 16
                first = int.from_bytes(key[2:2 + size])
                ranges[4 if size == 4 else 6].append((first, first + (1 << 8 * size - key[1]) - 1))
            elif entry.kind in URLS and (packed := host_address(entry.key.partition(b"/")[0])) is not None:
                number = int.from_bytes(packed)
                ranges[4 if len(packed) == 4 else 6].append((number, number))
        return {family: joined(every) for family, every in ranges.items()}

    # ---- what only a finer plane can do

    def specials(self) -> Iterator[Special]:
        """URLs and names at an address that the box blocks, and exceptions of these sorts that hold."""
        for source, entry in self.entries():
            kind = entry.kind
            if kind not in URLS and kind not in PLACES or not self._holds(entry):
                continue
            words = {Kind.URL: "url", Kind.URL_WITH_QUERY: "url with query", Kind.DIRECTORY: "every url below"}
            word = words.get(kind) or {Kind.HOST: "host and subdomains", Kind.HOST_ONLY: "host only",
                                       Kind.SUBDOMAINS: "subdomains only"}[PLACES[kind]] + " at this address"
            if entry.exception:
                yield Special(word, key_text(entry.key), source.name, "accept", True)
            elif self.blocking(source):
                found = self._look_special(entry)
                if found is None or found.action in PASSING:
                    self.left[LIFTED] += 1
                else:
                    yield Special(word, key_text(entry.key), found.list, found.action)

    def _look_special(self, entry: formats.Entry) -> Found | None:
        if entry.kind in URLS:
            host, _, target = entry.key.partition(b"/")
            return self.matcher.look_up("http", host, b"/" + target)
        host, zero, place = entry.key.partition(b"\0")
        if entry.kind is Kind.SUBDOMAINS_AT:
            host = self.fresh + b"." + host
        size = 4 if len(place) < 16 else 16
        return self.matcher.look_up("tls", host, to=place[1:1 + size])

    # ---- entries

    def entries(self) -> Iterator[tuple[ListFile, formats.Entry]]:
        """Every entry with a text of the lists in force, read again.

        Raises:
            ListError: a list has been changed since it was taken.
        """
        for source in self.files:
            if not self.in_force(source):
                continue
            for item in read_list(source):
                if isinstance(item, formats.Entry):
                    yield source, item
            check_unchanged(source)

    def in_force(self, source: ListFile) -> bool:
        record = self.records[source.name]
        return not source.expired(self.at) and record.window.holds(self.at)

    def blocking(self, source: ListFile) -> bool:
        """Whether blocks of that list are exported."""
        return source.name in self.chosen and not self.records[source.name].clients and \
            source.settings.action != "observe"

    def _holds(self, entry: formats.Entry) -> bool:
        return entry.terms is None or entry.terms.window.holds(self.at) and not entry.terms.ech

    def _until(self, change: int | None) -> None:
        if change is not None:
            self.until = change if self.until is None else min(self.until, change)

    def scan(self) -> None:
        """Counts what is left out whatever the format, and notes exceptions that names have to be spared for."""
        spare = Compiler(self.key)
        spare.add_list("spared", ListSettings())
        some = False
        for source in self.files:
            record = self.records[source.name]
            self._until(record.life.next_change(self.at))
            chosen = source.name in self.chosen
            whole = EXPIRED if not self.in_force(source) else CLIENTS if record.clients else \
                OBSERVED if source.settings.action == "observe" else ""
            windows: set[Window] = set()
            for item in read_list(source):
                if isinstance(item, formats.HashedEntry):
                    if item.kind not in formats.MARKS:
                        self.left[HASHED] += chosen and not item.exception
                        if item.exception and whole != EXPIRED:
                            self.exceptions_hashed.append(source.path.name)
                    continue
                if not isinstance(item, formats.Entry):
                    continue
                if item.attributes and (terms := item.terms) and terms.window:
                    windows.add(terms.window)
                if not item.exception:
                    self.left[whole] += bool(whole) and chosen
                    self.kinds[sort_of(item)] += chosen and not whole
                elif whole != EXPIRED and (host := spared_host(item)) and (
                        item.terms is None or item.terms.window.holds(self.at)):
                    spare.add(0, formats.Entry(item.line, host[0], host[1], True))
                    some = True
            check_unchanged(source)
            if whole != EXPIRED:
                for window in windows:
                    self._until(window.next_change(self.at))
        del self.left[""]
        if some:
            made = pack(spare.finish(), self.key, 0)
            self.spared = ListMatcher(open_snapshot(made, self.key))


def sort_of(entry: formats.Entry) -> str:
    """What an entry is, as messages have it."""
    if entry.kind in URLS:
        return URL
    if entry.kind in PLACES:
        return AT
    return NAMES if entry.kind in HOSTS else ENDPOINTS if entry.kind is Kind.ENDPOINT else ADDRESSES


def host_said(entry: formats.Entry) -> bytes | None:
    """The name that an entry says something of; None where it is one of addresses."""
    if entry.kind in HOSTS:
        return entry.key
    if entry.kind in URLS:
        return entry.key.partition(b"/")[0]
    return entry.key.partition(b"\0")[0] if entry.kind in PLACES else None


def spared_host(entry: formats.Entry) -> tuple[Kind, bytes] | None:
    """The names that an exception passes in some cases, and a coarser plane therefore in all of them."""
    if entry.kind in URLS:
        return Kind.HOST_ONLY, entry.key.partition(b"/")[0]
    if entry.kind in PLACES:
        return PLACES[entry.kind], entry.key.partition(b"\0")[0]
    return None


def gather(rules: config.Rules, chosen: Iterable[str] = (), at: float | None = None, redirects: bool = True,
           divert: bool = False, exempt: tuple[str, ...] = ()) -> Sources:
    """The lists of `rules.directory`, taken as the daemon takes them.

    Args:
        chosen: names of the lists whose blocks are wanted; none: all. Exceptions of the others hold.
        at: the moment, Unix seconds; None: now.
        divert: `to_divert` will be asked.
        exempt: networks of servers that the box lets through, whatever lists say.

    Raises:
        ListError: a list is refused, has been changed meanwhile, or is not there.
    """
    now = time.time()
    at = now if at is None else at
    key: Key = readable_key(rules.key) or SHARED_KEY
    terms = make_terms(rules, key)
    files, errors, warnings = find_lists(rules.directory, terms.defaults, redirects=redirects)
    names = {source.name for source in files}
    if absent := sorted(set(chosen) - names - {Path(error.file).stem for error in errors}):
        raise ListError(*(f"--list {one}: {rules.directory} has no such list; it has "
                          f"{', '.join(sorted(names)) or 'none'}" for one in absent))
    taken, refused = take_all(files, terms, now)
    if errors or refused:
        raise ListError(*map(str, (*errors, *refused)), f"{rules.directory}: nothing is exported while a list is "
                        "refused, and what was exported before stays; of such a list the daemon has its last good "
                        "version in force, which has no text to export")
    wanted = frozenset(chosen) or frozenset(names)
    parts = [part for _, part in taken]
    records = {part.lists[0].name: part.lists[0] for part in parts}
    for source, part in taken:
        part.lists[0] = replace(part.lists[0], expired=source.expired(at))
    diverted = merge([with_record(part, mandatory=True, clients="") for part in parts
                      if part.lists[0].name in wanted], rules.nat64) if divert else None
    # Of what is not exported the exceptions hold, and its blocks must not hide another's.
    asked = merge([part if is_exported(part.lists[0], wanted) else
                   with_record(part, action="observe", mandatory=False, clients="", clients_sum="", clients_count=0)
                   for part in parts], rules.nat64)
    asked.client_sets = []
    matcher = ListMatcher(open_snapshot(pack(asked, key, int(now)), key))
    matcher.at = at
    fresh = secrets.token_hex(FRESH_SIZE // 2).encode()
    sources = Sources(matcher, matcher.snapshot.parts, files, records, at, key, wanted, rules.nat64, exempt, warnings,
                      diverted=diverted, fresh=fresh,
                      https_host=any(source.settings.https == "host" for source in files))
    sources.scan()
    return sources


def check_in_force(sources: Sources, rules: config.Rules, patience: float = 0.0) -> None:
    """Whether these are the lists that the daemon of this box has in force, where its state can be read: it judges
    growth and loss against the version before, and keeps a list that has gone with too much.

    Args:
        patience: seconds that it may take until it has them.

    Raises:
        ListError: it has others.
    """
    end = time.monotonic() + patience
    while wrong := unlike(sources, rules):
        if time.monotonic() >= end:
            raise ListError(*wrong, f"{rules.directory}: nothing is exported that the box does not do; export again "
                            "when the daemon has taken these lists, or let them go (`edgeblock status` says what it "
                            f"refuses), or with --rules {rules.directory}, whatever it has")
        Event().wait(AGAIN)


def unlike(sources: Sources, rules: config.Rules) -> list[str]:
    """What is not as in force, a line each; none where nobody can tell."""
    if (key := readable_key(rules.key)) is None or (
            there := Store(rules.key.parent, key).published()) is None:
        return []
    in_force = {record.name: record for record in canary.lists_of_people(there)}
    return [f"{record.file}: the daemon has {'another version' if name in in_force else 'no version'} in force"
            for name, record in sorted(sources.records.items())
            if name not in in_force or content_of(in_force[name]) != content_of(record)] + [
        f"{name}: the daemon has it in force, and there is no such list"
        for name in sorted(in_force.keys() - sources.records.keys())]


def content_of(record: ListRecord) -> tuple[object, ...]:
    return record.sha256, record.action, record.mandatory, record.https, record.expires, record.clients


def is_exported(record: ListRecord, chosen: frozenset[str]) -> bool:
    return record.name in chosen and not record.clients


def with_record(part: Compiled, **changes: object) -> Compiled:
    return replace(part, lists=[replace(part.lists[0], **changes)], client_sets=[])     # type: ignore[arg-type]


def check_unchanged(source: ListFile) -> None:
    """Raises ListError where a list is not the file that was found."""
    try:
        now = os.stat(source.path, follow_symlinks=False)
    except OSError as error:
        raise ListError(f"{source.path.name}: is gone meanwhile: {error.strerror}; export again") from None
    before = source.state
    if before and (before.st_ino, before.st_size, before.st_mtime_ns) != (now.st_ino, now.st_size, now.st_mtime_ns):
        raise ListError(f"{source.path.name}: was changed while it was exported; export again")


def name_of(host: bytes) -> str | None:
    """A host as a name in DNS, without the final dot; None where it is none."""
    return host.decode() if len(host) <= HOST_MAX and DNS_NAME.fullmatch(host) else None


def place_of(rows: memoryview, count: int, print: bytes) -> int:
    """The first of sorted rows with that fingerprint; -1 where there is none. Fingerprints are spread evenly, so that
    their place is known nearly."""
    guess = int.from_bytes(print[:8]) * count >> 64
    low, high, step = guess, guess, 8 + int(count ** 0.5)
    while low > 0 and bytes(rows[low * ROW_SIZE:low * ROW_SIZE + SIZE_OF_PRINT]) >= print:
        low = max(0, low - step)
    while high < count and bytes(rows[high * ROW_SIZE:high * ROW_SIZE + SIZE_OF_PRINT]) < print:
        high = min(count, high + step)
    at = bisect_left(range(count), print, low, high,
                     key=lambda row: bytes(rows[row * ROW_SIZE:row * ROW_SIZE + SIZE_OF_PRINT]))
    return at if at < count and bytes(rows[at * ROW_SIZE:at * ROW_SIZE + SIZE_OF_PRINT]) == print else -1


def outside(first: int, last: int, holes: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What of a range lies in none of the holes, which are sorted and apart."""
    for begins, ends in holes:
        if begins > last:
            break
        if begins > first:
            yield first, begins - 1
        first = max(first, ends + 1)
    if first <= last:
        yield first, last


def joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges sorted, and those that touch made one."""
    made: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if made and first <= made[-1][1] + 1:
            made[-1] = made[-1][0], max(last, made[-1][1])
        else:
            made.append((first, last))
    return made
