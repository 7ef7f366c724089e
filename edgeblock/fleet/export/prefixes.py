"""Address ranges as other planes write them: prefixes, and what is left where a plane knows no ports.

In: flattened addresses. Out: ranges, prefixes, text. Never here: a format.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, summarize_address_range

from edgeblock.addresses import Addresses, Endpoint, What

Range = tuple[int, int]


def blocked(addresses: Addresses, family: int) -> Iterator[Range]:
    """The ranges that are blocked on every port but those of `passed`."""
    return (span[:2] for span in addresses.spans[family] if span.what >= What.DROP)


def blocked_whole(addresses: Addresses, family: int) -> Iterator[Range]:
    """The same without addresses of which a port passes: for a plane that knows no ports."""
    holes = sorted({one.address for one in addresses.endpoints[family] if one.what < What.DROP})
    at = 0
    for first, last in blocked(addresses, family):
        while at < len(holes) and holes[at] < first:
            at += 1
        while at < len(holes) and holes[at] <= last:
            if first < holes[at]:
                yield first, holes[at] - 1
            first = holes[at] + 1
            at += 1
        if first <= last:
            yield first, last


def ports(addresses: Addresses, family: int, blocks: bool) -> Iterator[Endpoint]:
    """The addresses with a port that are blocked, or that pass in a range that is."""
    return (one for one in addresses.endpoints[family] if (one.what >= What.DROP) is blocks)


def prefixes(ranges: Iterable[Range], family: int) -> Iterator[IPv4Network | IPv6Network]:
    """The fewest prefixes that have just these addresses."""
    for first, last in ranges:
        if family == 4:
            yield from summarize_address_range(IPv4Address(first), IPv4Address(last))
        else:
            yield from summarize_address_range(IPv6Address(first), IPv6Address(last))


def address_text(number: int, family: int) -> str:
    return str(IPv4Address(number) if family == 4 else IPv6Address(number))


def range_text(one: Range, family: int) -> str:
    first, last = (address_text(number, family) for number in one)
    return first if first == last else f"{first}-{last}"
