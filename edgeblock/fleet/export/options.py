"""How an export is to be written: what the formats take besides the lists.

In: a command line. Out: one frozen record, which every format reads what it needs of. Never here: a list.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

BLACKHOLE, NO_EXPORT = (65535, 666), (65535, 65281)     # RFC 7999, 5; RFC 1997, well-known communities
ZONE = "rpz.edgeblock"


@dataclass(frozen=True)
class Options:
    """`zone` is the name of the response policy zone, `page` where its names lead ("": they do not exist), `serial`
    that of its SOA. `divert`: routes lead to the box, and else nowhere. `next_hops` are of routes, by family; None
    is the router that announces them. `communities` are added to each route."""

    zone: str = ZONE
    page: str = ""
    serial: int = 1
    divert: bool = True
    next_hop4: IPv4Address | IPv6Address | None = None
    next_hop6: IPv4Address | IPv6Address | None = None
    communities: tuple[tuple[int, int], ...] = (NO_EXPORT,)

    def next_hop(self, family: int) -> IPv4Address | IPv6Address | None:
        return self.next_hop4 if family == 4 else self.next_hop6
