"""Sets of ipset, for a router whose rules are iptables'.

In: addresses. Out: a file for `ipset restore`: each set is filled under another name and then takes the place of the
one before, so that rules never see half of it. Sets with a port are to be asked first (docs/export.md has the rules).
Never here: a rule.
"""

from collections.abc import Iterator

from edgeblock.addresses import BITS
from edgeblock.fleet.export.gather import AT, NAMES, URL, Sources
from edgeblock.fleet.export.options import Options
from edgeblock.fleet.export.prefixes import address_text, blocked, ports, prefixes

FAMILIES = {4: "inet", 6: "inet6"}
MOST = 1 << 22          # elements; always the same, as a set that is there with another bound is another set
PROTOCOLS = ("tcp", "udp")


def write(sources: Sources, options: Options) -> Iterator[str]:
    """The lines of the file, each with its end."""
    sources.leave(NAMES, URL, AT)
    there = sources.addresses()
    yield f"# {sources.about}\n"
    for family in BITS:
        halves = (half for one in prefixes(blocked(there, family), family)
                  for half in ([one] if one.prefixlen else one.subnets()))     # it knows no prefix of no bits
        yield from filled(f"edgeblock{family}", "hash:net", family, map(str, halves))
        for name, blocks in ((f"edgeblock{family}-ports", True), (f"edgeblock{family}-passed", False)):
            yield from filled(name, "hash:ip,port", family, (
                f"{address_text(one.address, family)},{protocol}:{one.port}"
                for one in ports(there, family, blocks) for protocol in PROTOCOLS))


def filled(name: str, kind: str, family: int, elements: Iterator[str]) -> Iterator[str]:
    what = f"{kind} family {FAMILIES[family]} maxelem {MOST}"
    yield f"create {name} {what} -exist\ncreate {name}-new {what} -exist\nflush {name}-new\n"
    for one in elements:
        yield f"add {name}-new {one}\n"
    yield f"swap {name}-new {name}\ndestroy {name}-new\n"
