"""What is done with addresses: ranges that do not overlap, addresses with a port, and ways from IPv6 to IPv4.

In: numbers and prefixes. Out: records that whoever enforces addresses without the matcher works by, such as the
kernel's rules. Only Python's own library is needed. Never here: a list, a kernel, or a packet.
"""

import ipaddress
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache
from typing import NamedTuple, TypeVar

BITS = {4: 32, 6: 128}


class Near(NamedTuple):
    """What near means: addresses of a family with so many first bits in common are a neighbourhood. A range of more
    than `most` of them is wide."""

    family: int
    bits: int
    most: int

    def tops(self, first: int, last: int) -> range:
        """The first bits of all addresses of a range."""
        below = BITS[self.family] - self.bits
        return range(first >> below, (last >> below) + 1)

    def is_wide(self, first: int, last: int) -> bool:
        below = BITS[self.family] - self.bits
        return (last >> below) - (first >> below) >= self.most


SITES4, SITES6 = Near(4, 24, 16), Near(6, 48, 16)       # of one site, or one owner
PROVIDERS6 = Near(6, 32, 16)                            # of one provider
HALVES4 = Near(4, 16, 1 << 16)                          # none is too wide


class What(IntEnum):
    """What is done with packets from and to an address."""

    PASS = 0            # an exception
    OBSERVE = 1
    DROP = 2
    RESET = 3


class Span(NamedTuple):
    """Addresses from `first` to `last`, as numbers; `owner` names the list that decides."""

    first: int
    last: int
    what: What
    owner: str


class Endpoint(NamedTuple):
    """One address with one port, of any protocol that has ports."""

    address: int
    port: int
    what: What
    owner: str


@dataclass(frozen=True)
class Addresses:
    """`spans` and `endpoints`, each for IPv4 (4) and IPv6 (6), sorted. Endpoints go before spans.

    A PASS in `spans` is there only for IPv6 that leads to IPv4: everywhere else nothing is said of what passes. What
    leads to IPv4 is to be looked up there, too, but where the IPv4 address is in two pieces (`Translated.bit`): there
    the spans of IPv6 have what holds.
    """

    spans: dict[int, tuple[Span, ...]]
    endpoints: dict[int, tuple[Endpoint, ...]]

    def near(self, what: Near) -> set[int]:
        """The first bits of every address that something is said of, but for wide ranges."""
        below = BITS[what.family] - what.bits
        tops = {one.address >> below for one in self.endpoints[what.family]}
        for first, last, *_ in self.spans[what.family]:
            if not what.is_wide(first, last):
                tops.update(what.tops(first, last))
        return tops

    def is_near(self, what: Near, top: int) -> bool:
        """Whether that is in `near`, without a look at all of them."""
        below = BITS[what.family] - what.bits
        first, last = top << below, ((top + 1) << below) - 1
        ends, spans = self.endpoints[what.family], self.spans[what.family]
        at = bisect_left(ends, (first,))
        if at < len(ends) and ends[at].address <= last:
            return True
        at = bisect_right(spans, (last, BEYOND)) - 1
        while at >= 0 and spans[at].last >= first:
            if not what.is_wide(spans[at].first, spans[at].last):
                return True
            at -= 1
        return False

    @cached_property
    def wides(self) -> Counter[Near]:
        """How many wide ranges there are."""
        return count_wide(self.spans)

    @property
    def wide(self) -> frozenset[Near]:
        """Of what there are wide ranges."""
        return frozenset(what for what, count in self.wides.items() if count)

    @property
    def ranges(self) -> dict[int, frozenset[tuple[int, ...]]]:
        """What spans say, without who decides."""
        return {family: frozenset(one[:3] for one in spans) for family, spans in self.spans.items()}

    @property
    def ports(self) -> dict[int, frozenset[tuple[int, ...]]]:
        """The same of endpoints."""
        return {family: frozenset(one[:3] for one in endpoints) for family, endpoints in self.endpoints.items()}

    @property
    def total(self) -> int:
        return sum(map(len, self.spans.values())) + sum(map(len, self.endpoints.values()))

    def without(self, others: "Addresses") -> "Addresses":
        """What only these say, whichever list decides."""
        return Addresses({family: only(some, others.spans[family]) for family, some in self.spans.items()},
                         {family: only(some, others.endpoints[family]) for family, some in self.endpoints.items()})


EMPTY = Addresses({4: (), 6: ()}, {4: (), 6: ()})
BEYOND = 1 << 129           # no address is as great
BLOCK = 512                 # entries that are compared at a time
Item = TypeVar("Item", Span, Endpoint)


def count_wide(spans: Mapping[int, Iterable[Span]]) -> Counter[Near]:
    return Counter(what for what in (SITES4, SITES6, PROVIDERS6) for one in spans[what.family]
                   if what.is_wide(one.first, one.last))


def only(these: tuple[Item, ...], those: tuple[Item, ...]) -> tuple[Item, ...]:
    """Those of sorted entries that the others have not, whichever list decides. Most are the same, and are passed
    over at both ends."""
    front = alike(these, those)
    back = alike(these[front:][::-1], those[front:][::-1])
    there = {one[:3] for one in those[front:len(those) - back]}
    return tuple(one for one in these[front:len(these) - back] if one[:3] not in there)


def alike(these: tuple[Item, ...], those: tuple[Item, ...]) -> int:
    """How many entries both begin with."""
    at, end = 0, min(len(these), len(those))
    while at < end and these[at:at + BLOCK] == those[at:at + BLOCK]:
        at = min(at + BLOCK, end)
    while at < end and these[at] == those[at]:
        at += 1
    return at


def meets(spans: tuple[Span, ...], first: int, last: int) -> bool:
    """Whether a range has a number in common with one of sorted ranges that do not overlap."""
    at = bisect_right(spans, (last, BEYOND)) - 1
    return at >= 0 and spans[at].last >= first


def with_new(old: Addresses, new: Addresses) -> Addresses:
    """What is said in `old`, and besides that of addresses and endpoints that it says nothing of what `new` says."""
    fresh = new.without(old)
    spans, endpoints, fresh_spans = {}, {}, {}
    for family in BITS:
        known, ends = old.spans[family], old.endpoints[family]
        more = [one for one in fresh.spans[family] if not meets(known, one.first, one.last)]
        spans[family] = tuple(sorted((*known, *more))) if more else known
        fresh_spans[family] = more
        others = [one for one in fresh.endpoints[family] if not has(ends, one) and (
            one.what or not meets(known, one.address, one.address))]
        endpoints[family] = tuple(sorted((*ends, *others))) if others else ends
    made = Addresses(spans, endpoints)
    vars(made)["wides"] = old.wides + count_wide(fresh_spans)       # known, without a look at all of them
    return made


def has(endpoints: tuple[Endpoint, ...], one: Endpoint) -> bool:
    """Whether something is said of its address and port."""
    at = bisect_left(endpoints, one[:2])
    return at < len(endpoints) and endpoints[at][:2] == one[:2]


class Translated(NamedTuple):
    """An IPv6 prefix, and from which bit on an IPv4 address stands in addresses below it; `flipped`: each bit of it
    inverted."""

    prefix: ipaddress.IPv6Network
    at: int
    flipped: bool = False
    name: str = "NAT64"

    @property
    def bit(self) -> int | None:
        """From which bit on the whole IPv4 address is in the IPv6 one; None where it is in two pieces."""
        octets = octets_of(self.at)
        return 8 * octets[0] if octets[3] - octets[0] == 3 else None

    @property
    def ends(self) -> tuple[bytes, bytes]:
        """Its first and its last address."""
        return self.prefix.network_address.packed, self.prefix.broadcast_address.packed

    def ipv4(self, address: bytes) -> bytes:
        """The IPv4 address that an IPv6 address below it leads to."""
        octets = bytes(address[i] for i in octets_of(self.at))
        return bytes(byte ^ 0xFF for byte in octets) if self.flipped else octets

    def ipv4_length(self, length: int) -> int:
        """How long the IPv4 prefix is that an IPv6 prefix of this length stands for: 0 is all of IPv4."""
        skipped = min(8, max(0, length - 64)) if self.at <= 64 and octets_of(self.at)[-1] > 8 else 0
        return min(32, max(0, length - self.at - skipped))


# IPv4-mapped addresses (RFC 4291, 2.5.5.2); the well-known prefix of NAT64 (RFC 6052, 2.1); 6to4 (RFC 3056, 2); what
# a Teredo server has seen of its client (RFC 4380, 4).
TRANSLATED = (
    Translated(ipaddress.IPv6Network("::ffff:0:0/96"), 96, name="IPv4-mapped"),
    Translated(ipaddress.IPv6Network("64:ff9b::/96"), 96),
    Translated(ipaddress.IPv6Network("2002::/16"), 16, name="6to4"),
    Translated(ipaddress.IPv6Network("2001::/32"), 96, True, "Teredo"),
)


@lru_cache(16)
def translated(nat64: tuple[str, ...]) -> tuple[Translated, ...]:
    """All ways in which an IPv6 address leads to an IPv4 one here."""
    known = {one.prefix for one in TRANSLATED}
    networks = [ipaddress.IPv6Network(one) for one in nat64]
    return TRANSLATED + tuple(Translated(one, one.prefixlen) for one in networks if one not in known)


def embedded(address: bytes, nat64: tuple[str, ...] = ()) -> list[bytes]:
    """The IPv4 addresses that an IPv6 address of 16 bytes leads to."""
    return [one.ipv4(address) for one in translated(nat64) if one.ends[0] <= address <= one.ends[1]]


def inside(one: Translated, number: int, length: int) -> tuple[int, int]:
    """An IPv4 prefix as the IPv6 prefix of the addresses that lead to it: its first address as a number, its length.
    Of one whole address that with zeros behind it (RFC 6052, 2.2)."""
    whole = bytearray(one.prefix.network_address.packed)
    for i, octet in zip(octets_of(one.at), number.to_bytes(4), strict=True):
        whole[i] = octet
    return int.from_bytes(whole), one.at + length + (8 if one.at < 64 < one.at + length else 0)


def octets_of(at: int) -> tuple[int, ...]:
    """Which bytes of the IPv6 address are the IPv4 address: byte 8 is left out (RFC 6052, 2.2), but in 6to4 and what
    begins behind it."""
    places = range(at // 8, at // 8 + 5)
    return tuple(i for i in places if i != 8 or at == 96)[:4]
