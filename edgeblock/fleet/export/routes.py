"""The routes that a router is given: listed destinations that lead to the box, or nowhere.

In: addresses, and which of the two. Out: prefixes of a family. A route has no ports. One that leads nowhere is of
addresses that are blocked whole; one that leads to the box is of every address of which the box has something to
judge, as the box lets the rest through. Never here: a format.
"""

from collections.abc import Iterator
from functools import cache
from ipaddress import IPv4Network, IPv6Network

from edgeblock.addresses import BITS
from edgeblock.fleet.export.gather import AT, ENDPOINTS, NAMES, URL, Sources
from edgeblock.fleet.export.options import Options
from edgeblock.fleet.export.prefixes import blocked_whole, prefixes


def routes(sources: Sources, options: Options) -> Iterator[tuple[int, Iterator[IPv4Network | IPv6Network]]]:
    """Of each family its prefixes."""
    sources.leave(NAMES)
    if options.divert:
        for family, ranges in sources.to_divert().items():
            yield family, prefixes(ranges, family)
        return
    sources.leave(URL, AT, ENDPOINTS)
    there = cache(sources.addresses)
    for family in BITS:
        yield family, prefixes(blocked_whole(there(), family), family)
