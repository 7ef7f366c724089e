"""Two interfaces of our own, each the other's wire, between which the box forwards as it does for subscribers.

In: the networks of the settings. Out: the pair with its addresses, or one SystemProblem; afterwards nothing. What is
sent out by hand on one comes in on the other as from a subscriber or a server; what the box sends out of the other
comes back on the first. Neither asks for hardware addresses, so no neighbour has to answer. Never here: another
interface, or a packet.
"""

import ipaddress
import socket
from contextlib import suppress
from typing import NamedTuple

from edgeblock.errors import SystemProblem
from edgeblock.netfilter import links, tools

CLIENTS, SERVERS = "edgeblock-c", "edgeblock-s"         # the box's ends, towards clients and towards servers


class Ends(NamedTuple):
    """Of one family the addresses of a client and of a server, which are nobody's; the box is between them."""

    client: str
    server: str


def ends_of(network: str) -> Ends:
    """In such a network of the settings."""
    net = ipaddress.ip_network(network)
    return Ends(str(net[2]), str(net[6]))


def make(networks: dict[int, str]) -> tuple[dict[int, Ends], dict[int, str]]:
    """The pair, in place of one that was left over; the ends of each family, and why another family has none.

    `networks` are as `config.Canary` has them, by 4 and 6; "" is none. SystemProblem where no pair can be made.
    """
    remove()
    try:
        batch(f"link add {CLIENTS} type veth peer name {SERVERS}")
        for device in (CLIENTS, SERVERS):
            with suppress(SystemProblem):           # a kernel without IPv6
                batch(f"link set {device} addrgenmode none")
        batch(*(f"link set {device} arp off up" for device in (CLIENTS, SERVERS)))
        for device in (CLIENTS, SERVERS):
            links.let_forward(socket.if_nametoindex(device))
    except (SystemProblem, OSError) as problem:
        remove()
        raise SystemProblem(f"interfaces {CLIENTS} and {SERVERS}: {problem}") from None
    ends, lacking = {}, {}
    for family, network in networks.items():
        if not network:
            lacking[family] = "off in the settings"
            continue
        net = ipaddress.ip_network(network)
        prefix = net.max_prefixlen - 2
        try:
            batch(f"addr add {net[1]}/{prefix} dev {CLIENTS} {'nodad' * (family == 6)}",
                  f"addr add {net[5]}/{prefix} dev {SERVERS} {'nodad' * (family == 6)}")
            if family == 6 and not links.forwards_ipv6():
                raise SystemProblem("this box does not forward IPv6")
            ends[family] = ends_of(network)
        except (SystemProblem, OSError) as problem:
            lacking[family] = str(problem)
    return ends, lacking


def remove() -> None:
    """Takes the pair away, whoever has left it. SystemProblem where it cannot be."""
    if any(name in (CLIENTS, SERVERS) for _, name in socket.if_nameindex()):
        batch(f"link del {CLIENTS if is_there(CLIENTS) else SERVERS}")


def is_there(name: str) -> bool:
    return any(name == one for _, one in socket.if_nameindex())


def batch(*lines: str) -> None:
    tools.run(["ip", "-batch", "-"], "\n".join(lines) + "\n")
