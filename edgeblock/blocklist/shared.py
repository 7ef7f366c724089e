"""Shared networks: whose addresses serve many sites at once, so that to block one takes strangers with it.

In: the file that ships (shared.networks) and the operator's own, in one format (docs/guard-rails.md): sections with
an owner, what he does there, where he publishes it and as of when, and prefixes one a line. Out: what an address
range touches, and what is old. Never here: a judgement about an entry (guard.py), or the network.

What ships is parsed when the first address asks, which takes some 25 ms; each look after that is a bisection.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cache, cached_property
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_pton
from typing import NamedTuple

from edgeblock.blocklist.ranges import Range, Ranges, last_of
from edgeblock.errors import ListError

OLD_DAYS = 730          # after two years a list of ranges is warned of: large owners change theirs within one
TEXT_MAX = 200          # characters of a name, a kind or a source
KEYS = ("kind", "source", "date", "files", "services", "without", "widest_ipv4", "widest_ipv6")
BYTES_MAX = 16 << 20    # of the operator's file


@dataclass(frozen=True, eq=False)
class Section:
    """Networks of one owner.

    `widest` are the prefix lengths (IPv4, IPv6) up to which an entry may lie inside, as where single customers have
    addresses of their own; None: no entry may. `files` are what the files are called in which these networks are
    published, `services` the words that mark them there among others, `without` a section whose networks may stand in
    the same file and are none of this one. The word of a row is whose it is, where that is not the section's name.
    """

    name: str
    kind: str
    source: str
    date: date
    widest: tuple[int, int] | None = None
    files: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    without: str = ""
    rows: tuple[Range[str], ...] = field(default=(), repr=False)


class Found(NamedTuple):
    """A shared network that a range has an address in common with."""

    row: Range[str]
    section: Section

    def __str__(self) -> str:
        section = self.section
        return f"{self.row.network} of {self.row.word or section.name} ({section.kind}, as of {section.date})"


class Shared:
    """All sections of a box. Two are the same only if they are one object."""

    def __init__(self, sections: tuple[Section, ...] = ()) -> None:
        self._given = sections

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        return self._given

    def joined(self, other: "Shared") -> "Shared":
        """With those of `other`, each in place of one of the same name."""
        if other is NOTHING:
            return self
        own = {section.name: section for section in self.sections}
        return Shared(tuple((own | {section.name: section for section in other.sections}).values()))

    @cached_property
    def whole(self) -> list[Range[Found]]:
        """The networks where no entry may lie."""
        return [Range(row.first, row.length, Found(row, section)) for section in self.sections
                if section.widest is None for row in section.rows]

    @cached_property
    def _whole(self) -> Ranges[Found]:
        return Ranges(self.whole)

    @cached_property
    def _parts(self) -> list[tuple[tuple[int, int], Ranges[Found]]]:
        """The others, by how wide an entry may be there."""
        return [(widest, Ranges(Range(row.first, row.length, Found(row, section)) for section in self.sections
                                if section.widest == widest for row in section.rows))
                for widest in sorted({section.widest for section in self.sections if section.widest is not None})]

    @cached_property
    def narrow(self) -> tuple[int, int]:
        """From these prefix lengths on (IPv4, IPv6) an entry may lie in any network where narrow ones may."""
        widest = [section.widest for section in self.sections if section.widest is not None]
        return max((four for four, _ in widest), default=0), max((six for _, six in widest), default=0)

    def touched(self, first: bytes, last: bytes, length: int) -> Found | None:
        """What a prefix may not touch; one where no entry may lie comes before one where narrow ones may."""
        if found := self._whole.touched(first, last):
            return found.word
        for widest, ranges in self._parts:
            if length < widest[len(first) == 16] and (found := ranges.touched(first, last)):
                return found.word
        return None

    def old(self, now: float) -> list[Section]:
        """Sections of which the ranges are older than OLD_DAYS, the oldest first."""
        today = datetime.fromtimestamp(now, UTC).date()
        return sorted((section for section in self.sections if (today - section.date).days > OLD_DAYS),
                      key=lambda section: section.date)


class Unread(Shared):
    """The same as text, which is parsed when somebody asks: lists of names alone never do."""

    def __init__(self, text: bytes, source: str) -> None:
        super().__init__()
        self._text, self._source = text, source

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        return parse_shared(self._text, self._source).sections


NOTHING = Shared()


def parse_shared(text: bytes, source: str) -> Shared:
    """The sections of the file named `source`.

    Raises:
        ListError: a line cannot be used; it is named.
    """
    reading = Reading(source)
    try:
        lines = text.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ListError(f"{source}: is no text in UTF-8; write it with `edgeblock guard --update`") from None
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if line and line[0] in "0123456789abcdefABCDEF:" and "=" not in line:
            try:
                reading.rows.append(read_row(line))
            except (OSError, ValueError):
                raise reading.fault(number, why_no_network(line.split()[0])) from None
        elif line and line[0] != "#":
            reading.read(number, line)
    reading.close(len(lines))
    return Shared(tuple(reading.sections.values()))


class Reading:
    """One file on its way in."""

    def __init__(self, source: str) -> None:
        self.sections: dict[str, Section] = {}
        self.rows: list[Range[str]] = []
        self._source = source
        self._name = ""
        self._said: dict[str, str] = {}

    def fault(self, number: int, why: str) -> ListError:
        return ListError(f"{self._source}:{number}: {why}")

    def read(self, number: int, line: str) -> None:
        """A line that is no network: the head of a section, or a key of one."""
        if line[0] == "[":
            self.close(number)
            name = line[1:-1].strip()
            if line[-1] != "]" or not name or not name.isprintable() or len(name) > TEXT_MAX:
                raise self.fault(number, f"{line[:80]!r} is no head of a section, such as [Owner]")
            if name in self.sections:
                raise self.fault(number, f"[{name}] is there a second time; join the two")
            self._name = name
            return
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            raise self.fault(number, f"{line[:80]!r} is neither [Owner], a key such as kind = ..., nor a network")
        if key not in KEYS:
            raise self.fault(number, f"unknown key {key[:80]!r}; known are {', '.join(KEYS)}")
        if not self._name or self.rows:
            raise self.fault(number, f"{key} stands {'behind networks' if self.rows else 'before any [Owner]'}; put "
                                     "keys below the head of their section")
        if not value or not value.isprintable() or len(value) > TEXT_MAX:
            raise self.fault(number, f"{key} is empty, or longer than {TEXT_MAX} characters")
        if key in self._said:
            raise self.fault(number, f"{key} is there a second time")
        self._said[key] = value

    def close(self, number: int) -> None:
        """The section ends here."""
        if not self._name:
            if self.rows:
                raise self.fault(1, "networks stand before any [Owner]; put a section's head there")
            return
        said = self._said
        for key in ("kind", "source", "date"):
            if key not in said:
                raise self.fault(number, f"the section [{self._name}] that ends here lacks {key} = ...")
        if not self.rows:
            raise self.fault(number, f"the section [{self._name}] that ends here has no network")
        try:
            day = date.fromisoformat(said["date"])
        except ValueError:
            raise self.fault(number, f"the section [{self._name}] that ends here has date = {said['date']}, which is "
                                     "no day such as 2030-12-31") from None
        files, services = (tuple(said.get(key, "").split()) for key in ("files", "services"))
        self.sections[self._name] = Section(self._name, said["kind"], said["source"], day, self._widest(number),
                                            files, services, said.get("without", ""), tuple(self.rows))
        self.rows, self._said = [], {}

    def _widest(self, number: int) -> tuple[int, int] | None:
        said = [self._said.get(key) for key in ("widest_ipv4", "widest_ipv6")]
        if said == [None, None]:
            return None
        found = [int(word) if word and word.isascii() and word.isdecimal() else -1 for word in said]
        if not (0 <= found[0] <= 32 and 0 <= found[1] <= 128):
            raise self.fault(number, f"the section [{self._name}] that ends here needs widest_ipv4 (0 to 32) and "
                                     "widest_ipv6 (0 to 128), or neither")
        return found[0], found[1]


def read_row(line: str) -> Range[str]:
    """`NETWORK` or `NETWORK WHOSE`. Raises OSError or ValueError; `why_no_network` knows why."""
    text, _, whose = line.partition(" ")
    place, slash, size = text.partition("/")
    first = inet_pton(AF_INET6 if ":" in place else AF_INET, place)
    bits = 8 * len(first)
    length = int(size) if slash else bits
    if not 0 <= length <= bits or int.from_bytes(first) & (1 << (bits - length)) - 1:
        raise ValueError
    return Range(first, length, whose.split("#")[0].strip())


def why_no_network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        return " ".join(str(error).split())[:TEXT_MAX]
    return f"{text[:80]!r} is no network, such as 192.0.2.0/24"


def write_shared(shared: Shared, head: str = "") -> str:
    """The sections as a file that `parse_shared` reads."""
    parts = [head]
    for section in shared.sections:
        lines = [f"[{section.name}]", f"kind = {section.kind}", f"source = {section.source}",
                 f"date = {section.date}"]
        lines += [f"{key} = {' '.join(words)}" for key, words in (("files", section.files),
                                                                  ("services", section.services)) if words]
        if section.without:
            lines.append(f"without = {section.without}")
        if section.widest:
            lines += [f"widest_ipv4 = {section.widest[0]}", f"widest_ipv6 = {section.widest[1]}"]
        lines += [f"{network_of(row)} {row.word}".rstrip() for row in in_order(section.rows)]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(part for part in parts if part)


def network_of(row: Range[str]) -> str:
    network = row.network
    return str(network.network_address if network.num_addresses == 1 else network)


def in_order(rows: Iterable[Range[str]]) -> list[Range[str]]:
    """IPv4 first, then by address."""
    return sorted(rows, key=lambda row: (len(row.first), row.first, row.length))


def ends_of(row: Range[str]) -> tuple[bytes, bytes]:
    return row.first, last_of(row.first, row.length)


@cache
def shipped_shared() -> Shared:
    """The networks that edgeblock ships."""
    file = Path(__file__).with_name("shared.networks")
    return Unread(file.read_bytes(), "shared.networks")


def read_shared(path: str, key: str = "[rules] shared") -> tuple[Shared, bytes]:
    """The operator's own file, and its bytes.

    Raises:
        ListError: it cannot be read, or a line of it cannot.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise ListError(f"{key}: {path}: the shared networks cannot be read: {error.strerror}") from None
    if len(text) > BYTES_MAX:
        raise ListError(f"{key}: {path}: is longer than {BYTES_MAX} bytes")
    return parse_shared(text, path), text


def in_force(path: object) -> Shared:
    """What ships, with the operator's own file over it where the configuration names one (`[rules] shared`)."""
    return shipped_shared() if path is None else shipped_shared().joined(read_shared(str(path))[0])


def old_data(shared: Shared, now: float) -> str | None:
    """In one sentence what of it is old, and the way out; None where nothing is."""
    old = shared.old(now)
    if not old:
        return None
    names = ", ".join(f"{section.name} ({section.date})" for section in old[:4])
    more = f" and {len(old) - 4} more" if len(old) > 4 else ""
    return (f"ranges of shared networks are older than {OLD_DAYS} days: {names}{more}; get what their owners publish "
            "now (`edgeblock guard` says where) and run `edgeblock guard --update FILE...`")
