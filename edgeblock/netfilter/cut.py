"""Flows of addresses that are blocked now, or are no longer: conntrack forgets them, and so does the first stage.

In: what is done with addresses, and what was before. Out: how many flows went. Whoever has packets of theirs carried
past the kernel's rules (a flow table, the shortcut) does so no more, and none of them is still marked as blocked when
its entry is lifted. Flows of other addresses, and of other ports of an endpoint, are left alone. Never here: a packet
dropped.
"""

import errno
import os
import socket
import struct
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from edgeblock.addresses import BITS, Addresses, Item, What, embedded, translated
from edgeblock.netfilter import netlink
from edgeblock.netfilter.netlink import attribute, message
from edgeblock.netfilter.stage1 import Stage

SIZES = {socket.AF_INET: 4, socket.AF_INET6: 16}
# linux/netfilter/nfnetlink_conntrack.h
CONNTRACK, GET, DELETE = 1, 1, 2
ORIGINAL, REPLY, IDENTITY, ZONE = 1, 2, 12, 18
SOURCE_PORT = 2
BUFFER = 1 << 18
BLOCKS = (What.DROP, What.RESET)


class Ends(NamedTuple):
    """An address and a port, as in a packet."""

    address: bytes
    port: int


class Blocked:
    """Addresses and endpoints that are blocked by `these`, and are not so by the very same entry of `those`; and
    those that an exception of `those` has let by."""

    def __init__(self, these: Addresses, those: Addresses, nat64: tuple[str, ...] = ()) -> None:
        self.spans: dict[int, tuple[list[int], list[int]]] = {}
        self.endpoints: dict[int, set[tuple[int, ...]]] = {}
        come, gone = these.without(those), those.without(these)
        for family, bits in BITS.items():
            spans = sorted(one[:2] for one in changed(come.spans[family], gone.spans[family]))
            firsts, lasts = list[int](), list[int]()
            for first, last in spans:           # what was there and what is there may overlap
                if lasts and first <= lasts[-1]:
                    lasts[-1] = max(last, lasts[-1])
                else:
                    firsts.append(first)
                    lasts.append(last)
            self.spans[bits // 8] = firsts, lasts
            self.endpoints[bits // 8] = {one[:2] for one in changed(come.endpoints[family], gone.endpoints[family])}
        self.nat64 = nat64
        self.leads = {one.prefix.network_address.packed[:2] for one in translated(nat64)}

    def __bool__(self) -> bool:
        return any(firsts for firsts, _ in self.spans.values()) or any(self.endpoints.values())

    def __contains__(self, end: Ends) -> bool:
        size, number = len(end.address), int.from_bytes(end.address)
        if meets(*self.spans[size], number) or (number, end.port) in self.endpoints[size]:
            return True
        return size == 16 and end.address[:2] in self.leads and any(
            Ends(one, end.port) in self for one in embedded(end.address, self.nat64))


def changed(come: tuple[Item, ...], gone: tuple[Item, ...]) -> list[Item]:
    return [one for one in come if one.what in BLOCKS] + [one for one in gone if one.what not in BLOCKS]


def meets(firsts: list[int], lasts: list[int], number: int) -> bool:
    """Whether a number is in one of sorted ranges that do not overlap."""
    at = bisect_right(firsts, number) - 1
    return at >= 0 and lasts[at] >= number


def cut(blocked: Blocked, stage: Stage | None) -> int:
    """Has all flows forgotten that have such an address at either end; how many. OSError where the kernel refuses."""
    if not blocked:
        return 0
    gone = 0
    if stage is not None:
        gone += stage.forget(lambda key: any(end in blocked for end in ends_of_mark(key)))
    with suppress(FileNotFoundError):       # a kernel without conntrack, or without its netlink part
        gone += cut_tracked(blocked)
    return gone


def ends_of_mark(key: bytes) -> tuple[Ends, Ends]:
    """Of a `struct key` (netfilter/stage1/structures.h): the family has the protocol above it."""
    size = 4 if key[36] == 4 else 16
    return (Ends(key[:size], int.from_bytes(key[32:34])), Ends(key[16:16 + size], int.from_bytes(key[34:36])))


def cut_tracked(blocked: Blocked) -> int:
    """What conntrack knows of such addresses, in this network namespace."""
    gone = 0
    with netlink.opened() as link, netlink.opened() as delete:
        delete.setblocking(False)
        for family, size in SIZES.items():
            for body in tracked(link, family):
                if any(end in blocked for end in ends_of(body, size)):
                    told = netlink.attributes(body)
                    wanted = b"".join(attribute(kind, told[kind]) for kind in (ORIGINAL, IDENTITY, ZONE)
                                      if kind in told)
                    delete.send(message(CONNTRACK, DELETE, 0, family, 0, wanted))
                    gone += 1
                    with suppress(BlockingIOError):     # one that has ended meanwhile is said to be none
                        delete.recv(BUFFER)
    return gone


def tracked(link: socket.socket, family: int) -> Iterator[bytes]:
    """Each connection, without netlink's header."""
    link.sendto(message(CONNTRACK, GET, netlink.DUMP, family, 0), (0, 0))
    while True:
        for kind, body in netlink.messages(link.recv(BUFFER)):
            if kind == netlink.DONE:
                return
            if kind == netlink.ERROR:
                number = -struct.unpack_from("=i", body)[0]
                if number in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise FileNotFoundError(number, "no conntrack")
                raise OSError(number, os.strerror(number))
            yield body


def ends_of(body: bytes, size: int) -> Iterator[Ends]:
    """Both ends in both directions: address translation may have changed some. The kernel writes a tuple as its
    addresses, the source first, and then protocol and ports, each an attribute of its own; there may be a million."""
    at = 4
    for wanted in (ORIGINAL, REPLY):
        length, kind = struct.unpack_from("=HH", body, at)
        if kind & netlink.TYPE != wanted:
            return
        source, destination, ports = at + 12, at + 16 + size, at + 16 + 2 * size
        here, there = 0, 0
        if ports + 28 <= at + length and body[ports + 14] == SOURCE_PORT:
            here, there = struct.unpack_from("!H6xH", body, ports + 16)
        yield Ends(body[source:source + size], here)
        yield Ends(body[destination:destination + size], there)
        at += (length + 3) & ~3
