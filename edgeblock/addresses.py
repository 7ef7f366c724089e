"""What is done with addresses: ranges that do not overlap, addresses with a port, and ways from IPv6 to IPv4.

In: numbers and prefixes. Out: records that whoever enforces addresses without the matcher works by, such as the
kernel's rules. Only Python's own library is needed. Never here: a list, a kernel, or a packet.
"""

import ipaddress
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

BITS = {4: 32, 6: 128}
NEAR = {4: 24, 6: 48}       # addresses with so many bits in common are near each other: one site, or one owner
NEAR_MAX = 16               # a range of more such neighbourhoods is wide


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


def is_wide(family: int, first: int, last: int) -> bool:
    below = BITS[family] - NEAR[family]
    return (last >> below) - (first >> below) >= NEAR_MAX


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

    @cached_property
    def near(self) -> dict[int, frozenset[int]]:
        """The first NEAR bits of every address that something is said of, but for wide ranges."""
        tops: dict[int, set[int]] = {4: set(), 6: set()}
        for family, bits in BITS.items():
            below = bits - NEAR[family]
            tops[family].update(one.address >> below for one in self.endpoints[family])
            for first, last, _ in self.ranges[family]:
                if not is_wide(family, first, last):
                    tops[family].update(range(first >> below, (last >> below) + 1))
        return {family: frozenset(some) for family, some in tops.items()}

    @cached_property
    def wide(self) -> frozenset[int]:
        """The families that have wide ranges."""
        return frozenset(family for family in BITS for first, last, _ in self.ranges[family]
                         if is_wide(family, first, last))

    @cached_property
    def ranges(self) -> dict[int, frozenset[tuple[int, ...]]]:
        """What spans say, without who decides."""
        return {family: frozenset(one[:3] for one in spans) for family, spans in self.spans.items()}

    @cached_property
    def ports(self) -> dict[int, frozenset[tuple[int, ...]]]:
        """The same of endpoints."""
        return {family: frozenset(one[:3] for one in endpoints) for family, endpoints in self.endpoints.items()}

    @property
    def total(self) -> int:
        return sum(map(len, self.spans.values())) + sum(map(len, self.endpoints.values()))


EMPTY = Addresses({4: (), 6: ()}, {4: (), 6: ()})


def meets(firsts: list[int], lasts: list[int], first: int, last: int) -> bool:
    """Whether a range has a number in common with one of sorted ranges that do not overlap."""
    at = bisect_right(firsts, last) - 1
    return at >= 0 and lasts[at] >= first


def with_new(old: Addresses, new: Addresses) -> Addresses:
    """What is said in `old`, and besides that of addresses and endpoints that it says nothing of what `new` says."""
    spans, endpoints = {}, {}
    for family in BITS:
        known = old.spans[family]
        begins, ends = [one.first for one in known], [one.last for one in known]
        there = {one[:2] for one in old.endpoints[family]}
        fresh = (one for one in new.spans[family] if not meets(begins, ends, one.first, one.last))
        spans[family] = tuple(sorted((*known, *fresh)))
        more = (one for one in new.endpoints[family] if one[:2] not in there and (
            one.what or not meets(begins, ends, one.address, one.address)))
        endpoints[family] = tuple(sorted((*old.endpoints[family], *more)))
    return Addresses(spans, endpoints)


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


def translated(nat64: Iterable[str]) -> tuple[Translated, ...]:
    """All ways in which an IPv6 address leads to an IPv4 one here."""
    known = {one.prefix for one in TRANSLATED}
    networks = [ipaddress.IPv6Network(one) for one in nat64]
    return TRANSLATED + tuple(Translated(one, one.prefixlen) for one in networks if one not in known)


def embedded(address: bytes, nat64: Iterable[str] = ()) -> list[bytes]:
    """The IPv4 addresses that an IPv6 address of 16 bytes leads to."""
    number = ipaddress.IPv6Address(address)
    return [one.ipv4(address) for one in translated(nat64) if number in one.prefix]


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
