"""What is said of addresses beyond the one look-up: of every part of a range, of single ports of an address.

In: a matcher and the address entries of its snapshot. Out: places where an entry begins or ends, each judged by the
matcher. Never here: precedence of its own; more than ENTRIES_MAX look-ups for one question.
"""

import ipaddress
from collections.abc import Iterator
from typing import NamedTuple

from edgeblock.addresses import BITS, translated
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import network_key
from edgeblock.blocklist.formats.entries import read_address
from edgeblock.blocklist.formats.lines import BadEntry
from edgeblock.blocklist.matcher import Candidate, Found, ListMatcher
from edgeblock.blocklist.parts import ADDRESS, IS_IPV6
from edgeblock.core.decision import carried_out

ENTRIES_MAX = 1000      # a question about a wider range is for a look into the list
SHOWN_MAX = 20          # entries that are named


class Range(NamedTuple):
    """Addresses from `first` to `last`, as numbers, of IPv4 (4) or IPv6 (6)."""

    family: int
    first: int
    last: int

    @property
    def head(self) -> bytes:
        """The bytes that all its addresses begin with."""
        size = BITS[self.family] // 8
        first, last = self.first.to_bytes(size), self.last.to_bytes(size)
        return first[:next((at for at in range(size) if first[at] != last[at]), size)]

    def as_text(self) -> str:
        """As an entry of a list has it: a prefix, else a range."""
        pack = ipaddress.IPv4Address if self.family == 4 else ipaddress.IPv6Address
        first, last = pack(self.first), pack(self.last)
        networks = list(ipaddress.summarize_address_range(first, last))
        return str(networks[0]) if len(networks) == 1 else f"{first}-{last}"


class Inside(NamedTuple):
    """What the parts of a range get: `parts` in order, None for what no entry is about; `tried` are the entries, of
    which `more` are left out, `ports` of them of a single port. `too_many` of them: nothing else is known."""

    parts: tuple[Found | None, ...]
    tried: list[Candidate]
    more: int = 0
    ports: int = 0
    too_many: bool = False

    @property
    def alike(self) -> bool:
        return len({one and (one.action, one.list) for one in self.parts}) == 1


def range_of(text: str) -> Range | None:
    """A prefix or a range as in a list; None where the text is neither.

    Raises:
        BadEntry: it nearly is one, or too wide to be looked into.
    """
    if not text.isascii() or not any(sign in text for sign in "/-*"):
        return None
    keys = [key for kind, key in read_address(text.encode()) if kind is Kind.NETWORK]
    if not keys:
        return None
    size = 4 if len(keys[0]) == 6 else 16
    first = int.from_bytes(keys[0][2:])
    last = int.from_bytes(keys[-1][2:]) + (1 << 8 * size - keys[-1][1]) - 1
    asked = Range(4 if size == 4 else 6, first, last)
    if not asked.head:
        raise BadEntry("is too wide to be looked into; ask for prefixes of 8 bits or more")
    return asked


def beginning_with(matcher: ListMatcher, head: bytes) -> Iterator[tuple[bytes, int, int, int, int]]:
    """Every address entry whose address begins with these bytes, one at least: found by the byte that is rarest in
    its place, as a quarter of a million entries take too long one by one."""
    view = memoryview(matcher.snapshot.parts.addresses)
    columns = [bytes(view[at::ADDRESS.size]) for at in range(len(head))]
    rare = min(range(len(head)), key=lambda at: columns[at].count(head[at]))
    at = columns[rare].find(head[rare])
    while at >= 0:
        entry = ADDRESS.unpack_from(view, at * ADDRESS.size)
        if entry[0].startswith(head):
            yield entry
        at = columns[rare].find(head[rare], at + 1)


def look_inside(matcher: ListMatcher, asked: Range) -> Inside:
    """Every part of a range, each between two places where an entry begins or ends."""
    size, bits = BITS[asked.family] // 8, BITS[asked.family]
    inside: set[tuple[int, int, int]] = set()
    for packed, length, flags, port, _ in beginning_with(matcher, asked.head):
        if bool(flags & IS_IPV6) != (asked.family == 6):
            continue
        number = int.from_bytes(packed[:size])
        end = number + (1 << bits - length) - 1
        covers_all = number <= asked.first and asked.last <= end and not port
        if number <= asked.last and asked.first <= end and not covers_all:
            inside.add((number, length, port))
            if len(inside) > ENTRIES_MAX:
                return Inside((), [], too_many=True)
    around = matcher.trace_address(asked.first.to_bytes(size))[1]
    tried = [one for one in around if one.rows and covers(one.text, size, asked)]
    cuts = {asked.first}
    for number, length, port in sorted(inside):
        if not port:
            cuts |= {max(number, asked.first), number + (1 << bits - length)}
        if len(tried) < SHOWN_MAX:
            key = network_key(number.to_bytes(size), length, port or None)
            place = max(number, asked.first).to_bytes(size)
            found = [one for one in matcher.trace_address(place, port)[1] if one.text == key]
            tried += map(set_aside, found) if port else found
    parts = [matcher.look_up_address(cut.to_bytes(size)) for cut in sorted(cuts) if cut <= asked.last]
    return Inside(tuple(parts), tried, max(0, len(inside) - SHOWN_MAX), sum(port > 0 for _, _, port in inside))


def set_aside(port: Candidate) -> Candidate:
    """An entry of one port, which decides nothing about the others."""
    return port._replace(rows=tuple(row._replace(applies=False, in_force=False) for row in port.rows))


def covers(key: bytes, size: int, asked: Range) -> bool:
    """Whether that entry is of all addresses of the range."""
    if len(key) != 2 + size:
        return False
    first = int.from_bytes(key[2:])
    return first <= asked.first and asked.last <= first + (1 << 8 * size - key[1]) - 1


def said_of(inside: Inside) -> str:
    """In words what a range gets of which not every part gets the same; empty where it does."""
    if inside.too_many:
        return f"more than {ENTRIES_MAX} entries lie in it; ask for a narrower prefix"
    said = []
    if not inside.alike:
        actions = dict.fromkeys(f"{carried_out(one.action, 'ip')} by list {one.list}" for one in inside.parts
                                if one and one.action != "accept")
        said.append("not all of it alike" + (f": {', '.join(actions)}" if actions else ""))
        if any(one is None or one.action == "accept" for one in inside.parts):
            said.append("the rest passes")
    elif inside.parts[0] is None and inside.ports:
        said.append("nothing listed applies to every port; single ports in it are listed")
    if inside.more:
        said.append(f"{inside.more} more entries lie in it")
    return "; ".join(said)


def ports_of(matcher: ListMatcher, address: bytes) -> list[Candidate]:
    """The entries that are of a single port of this address: at most SHOWN_MAX, as the look-up of another port has
    them."""
    ports = {port for _, length, flags, port, _ in beginning_with(matcher, address)
             if port and bool(flags & IS_IPV6) == (len(address) == 16) and length == 8 * len(address)}
    tried = []
    for port in sorted(ports)[:SHOWN_MAX]:
        key = network_key(address, 8 * len(address), port)
        tried += [set_aside(one) for one in matcher.trace_address(address, port)[1] if one.text == key]
    return tried


def leads_to(matcher: ListMatcher, asked: bytes | Range) -> tuple[str, ...]:
    """The IPv4 addresses that an IPv6 address leads to, each with the way; the IPv4 prefix of an IPv6 one."""
    told = []
    for way in translated(matcher.snapshot.parts.nat64):
        if isinstance(asked, bytes):
            if len(asked) == 16 and ipaddress.IPv6Address(asked) in way.prefix:
                told.append(f"{ipaddress.IPv4Address(way.ipv4(asked))} ({way.name})")
        elif asked.family == 6 and asked.first != asked.last and way.bit is not None:
            first, last = (number.to_bytes(16) for number in (asked.first, asked.last))
            if all(ipaddress.IPv6Address(one) in way.prefix for one in (first, last)):
                ends = sorted(int.from_bytes(way.ipv4(one)) for one in (first, last))
                told.append(f"{Range(4, *ends).as_text()} ({way.name}); ask for that, too")
    return tuple(told)
