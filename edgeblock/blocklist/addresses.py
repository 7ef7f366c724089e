"""The address entries of a snapshot as ranges that do not overlap, each with what is done there.

In: the parts of a snapshot. Out: for IPv4 and IPv6 sorted spans, and endpoints, by the same precedence as the
matcher's: what counts most of all entries that an address is in. Whoever enforces addresses without the matcher (the
kernel's rules) asks only where an address lies. Never here: a kernel, or a packet.
"""

import ipaddress
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from edgeblock.addresses import BITS, Addresses, Endpoint, Span, What, inside, translated
from edgeblock.blocklist.compiler import ADDRESS, IS_EXCEPTION, IS_IPV6, Compiled, ListRecord
from edgeblock.errors import ListError

RESETS = ("reset", "page", "redirect")      # actions that tell the client


class Best(NamedTuple):
    """What counts of several entries: the greatest one (docs/lists.md)."""

    weight: int
    is_endpoint: int
    length: int
    before: int         # lists that come first count more: minus the index
    what: What


def read_addresses(parts: Compiled) -> Addresses:
    """What is done with each address that a list of the snapshot has.

    Raises:
        ListError: an entry says what none can say.
    """
    prefixes: dict[int, dict[tuple[int, int], Best]] = {4: {}, 6: {}}
    endpoints: dict[int, dict[tuple[int, int], Best]] = {4: {}, 6: {}}
    lists = parts.lists
    names = [record.name for record in lists]
    apart = [one for one in translated(parts.nat64) if one.bit is None]
    for address, length, flags, port, index in ADDRESS.iter_unpack(parts.addresses):
        family = 6 if flags & IS_IPV6 else 4
        if index >= len(lists) or length > BITS[family]:
            raise ListError("snapshot: has an address entry that cannot be; build it again")
        record = lists[index]
        if record.expired:
            continue
        what, weight = judged(record, flags & IS_EXCEPTION != 0)
        best = Best(weight, port != 0, length, -index, what)
        number = int.from_bytes(address[:BITS[family] // 8])
        places = [(family, number, length)]
        if family == 4:
            places += [(6, *inside(one, number, length)) for one in apart]
        for family, number, length in places:
            table, key = (endpoints[family], (number, port)) if port else (prefixes[family], (number, length))
            if (known := table.get(key)) is None or best > known:
                table[key] = best
    spans, ends = {}, {}
    for family, bits in BITS.items():
        pieces = list(flattened(prefixes[family], bits))
        lead_on = [network_span(one.prefix) for one in translated(parts.nat64)] if family == 6 else []
        ends[family] = tuple(standing_out(endpoints[family], pieces, lead_on, names))
        spans[family] = tuple(one for one in joined(pieces, names)
                              if one.what or leads_on(one.first, one.last, lead_on))
    return Addresses(spans, ends)


def judged(record: ListRecord, exception: bool) -> tuple[What, int]:
    """What an entry of a list says, and how much that counts."""
    if exception:
        return What.PASS, 3
    if record.action == "observe":
        return What.OBSERVE, 1
    return What.RESET if record.action in RESETS else What.DROP, 4 if record.mandatory else 2


def network_span(network: ipaddress.IPv6Network) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)


def flattened(prefixes: dict[tuple[int, int], Best], bits: int) -> Iterator[tuple[int, int, Best]]:
    """Prefixes as ranges beside each other, each with what counts there. Two prefixes never overlap but by one being
    inside the other, so those around the current one are a stack."""
    around: list[tuple[int, Best]] = []         # the last address of each, and what counts there
    at = 0                                      # up to here all is said
    for first, length in [*sorted(prefixes), (1 << bits, bits)]:
        while around and around[-1][0] < first:
            last, best = around.pop()
            if at <= last:
                yield at, last, best
                at = last + 1
        if first >> bits:
            return
        if around and at < first:
            yield at, first - 1, around[-1][1]
        at = first
        own = prefixes[first, length]
        around.append((first + (1 << bits - length) - 1, max(own, around[-1][1]) if around else own))


def leads_on(first: int, last: int, spans: list[tuple[int, int]]) -> bool:
    """Whether some of these IPv6 addresses lead to IPv4 ones."""
    return any(begin <= last and first <= end for begin, end in spans)


def joined(pieces: Iterable[tuple[int, int, Best]], names: list[str]) -> Iterator[Span]:
    """The same with those that touch and say the same as one."""
    held: Span | None = None
    for first, last, best in pieces:
        span = Span(first, last, best.what, names[-best.before])
        if held and held.last + 1 == first and held[2:] == span[2:]:
            span = span._replace(first=held.first)
        elif held:
            yield held
        held = span
    if held:
        yield held


def standing_out(endpoints: dict[tuple[int, int], Best], pieces: list[tuple[int, int, Best]],
                 lead_on: list[tuple[int, int]], names: list[str]) -> Iterator[Endpoint]:
    """Endpoints of which something else holds than of their address."""
    begins = [first for first, _, _ in pieces]
    for (address, port), best in sorted(endpoints.items()):
        at = bisect_right(begins, address) - 1
        around = pieces[at][2] if at >= 0 and pieces[at][1] >= address else None
        if around is None and (best.what or leads_on(address, address, lead_on)) or around is not None and (
                best > around and (best.what, best.before) != (around.what, around.before)):
            yield Endpoint(address, port, best.what, names[-best.before])
