"""An nftables table of its own, for a router with Linux.

In: addresses. Out: a file for `nft -f`, which replaces the table at once: sets with ranges, sets of addresses with a
port, and a chain that drops what goes to or comes from these. What passes on a port of a listed address comes first.
Never here: an answer to who is blocked, which is the box's.
"""

from collections.abc import Iterator

from edgeblock.addresses import BITS
from edgeblock.fleet.export.gather import AT, NAMES, URL, Sources
from edgeblock.fleet.export.options import Options
from edgeblock.fleet.export.prefixes import address_text, blocked, ports, range_text

TABLE = "edgeblock_export"
TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
WORDS = {4: "ip", 6: "ip6"}


def write(sources: Sources, options: Options) -> Iterator[str]:
    """The lines of the file, each with its end."""
    sources.leave(NAMES, URL, AT)
    there = sources.addresses()
    yield f"# {sources.about}\ntable inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n"
    for family in BITS:
        yield from declared(f"listed{family}", f"type {TYPES[family]}; flags interval",
                            (range_text(one, family) for one in blocked(there, family)))
        for name, blocks in ((f"listed{family}_ports", True), (f"passed{family}_ports", False)):
            yield from declared(name, f"type {TYPES[family]} . inet_service",
                                (f"{address_text(one.address, family)} . {one.port}"
                                 for one in ports(there, family, blocks)))
    yield "    chain forward {\n        type filter hook forward priority filter - 5; policy accept;\n"
    for kind, verdict in (("passed", "accept"), ("listed", "counter drop")):
        for family, word in WORDS.items():
            for side, port in (("daddr", "dport"), ("saddr", "sport")):
                yield (f"        meta l4proto {{ tcp, udp }} {word} {side} . th {port} @{kind}{family}_ports "
                       f"{verdict}\n")
    for family, word in WORDS.items():
        for side in ("daddr", "saddr"):
            yield f"        {word} {side} @listed{family} counter drop\n"
    yield "    }\n}\n"


def declared(name: str, kind: str, elements: Iterator[str]) -> Iterator[str]:
    yield f"    set {name} {{\n        {kind}\n"
    first = next(elements, None)
    if first is not None:
        yield f"        elements = {{\n            {first}"
        for one in elements:
            yield f",\n            {one}"
        yield "\n        }\n"
    yield "    }\n"
