"""The few words of rtnetlink that say what happens to interfaces, to the programs at them, and whether they forward.

In: an interface. Out: the filters where its packets enter, and whether interfaces or filters have changed. Never
here: an interface of others or a filter changed, or a program run.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator

from edgeblock.netfilter import netlink
from edgeblock.netfilter.netlink import DONE, DUMP, attributes, messages

# linux/rtnetlink.h
NEW_LINK, DEL_LINK, NEW_FILTER, DEL_FILTER, GET_FILTER = 16, 17, 44, 45, 46
GROUPS = 1 << 0 | 1 << 3                 # RTMGRP_LINK, RTMGRP_TC
CHANGES = frozenset((NEW_LINK, DEL_LINK, NEW_FILTER, DEL_FILTER))
FILTER = struct.Struct("=BxxxiIII")      # struct tcmsg: family, interface, handle, parent, info
INGRESS = 0xFFFFFFF2                     # of clsact, and of the older ingress
OPTIONS, BPF_ID = 2, 11                  # TCA_OPTIONS, TCA_BPF_ID

SET_LINK, NEW_CONF, GET_CONF = 19, 80, 82
AF_SPEC, INET_CONF, FORWARDING_IPV4 = 26, 1, 1           # IFLA_AF_SPEC, IFLA_INET_CONF, IPV4_DEVCONF_FORWARDING
CONF_INDEX, CONF_FORWARDING, CONF_ALL = 1, 2, -1         # NETCONFA_IFINDEX, _FORWARDING, _IFINDEX_ALL


def filter_programs(index: int, priority: int) -> list[int]:
    """The programs of the filters with this priority where packets enter the interface, by the kernel's number.

    Raises:
        OSError: the kernel does not say.
    """
    found = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        link.settimeout(netlink.SECONDS)
        body = FILTER.pack(0, index, 0, INGRESS, 0)
        link.sendto(request(GET_FILTER, DUMP, body), (0, 0))
        for answer in answers(link):
            _, _, handle, _, info = FILTER.unpack_from(answer)
            options = attributes(answer, FILTER.size).get(OPTIONS, b"")
            number = attributes(options, 0).get(BPF_ID)
            if handle and info >> 16 == priority and number:
                found.append(int(struct.unpack("=I", number)[0]))
    return found


def let_forward(index: int) -> None:
    """Has the box forward IPv4 that comes in by this interface, whatever new ones do. OSError where it cannot be."""
    wanted = netlink.attribute(AF_SPEC, netlink.attribute(socket.AF_INET, netlink.attribute(
        INET_CONF, netlink.attribute(FORWARDING_IPV4, struct.pack("=I", 1)))))
    body = struct.pack("=BxHiII", 0, 0, index, 0, 0) + wanted
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        number = netlink.answer(link, request(SET_LINK, netlink.ACK, body))
    if number:
        raise OSError(number, os.strerror(number))


def forwards_ipv6() -> bool:
    """Whether this network namespace forwards IPv6 at all."""
    body = struct.pack("=Bxxx", socket.AF_INET6) + netlink.attribute(CONF_INDEX, struct.pack("=i", CONF_ALL))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        link.settimeout(netlink.SECONDS)
        link.sendto(request(GET_CONF, 0, body), (0, 0))
        told = [attributes(answer) for kind, answer in messages(link.recv(1 << 16)) if kind == NEW_CONF]
    return any(one.get(CONF_FORWARDING, bytes(4)) != bytes(4) for one in told)


def request(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, netlink.REQUEST | flags, 1, 0) + body


def answers(link: socket.socket) -> Iterator[bytes]:
    while True:
        for kind, body in messages(link.recv(1 << 17)):
            if kind == DONE:
                return
            if kind == netlink.ERROR:
                number = -struct.unpack_from("=i", body)[0]
                if number in (0, errno.ENODEV, errno.EINVAL, errno.ENOENT):      # nothing can hold filters there
                    return
                raise OSError(number, os.strerror(number))
            yield body


def listen() -> socket.socket:
    """A socket that the kernel tells of interfaces and filters that come, go and change. Never blocks."""
    return netlink.listening(socket.NETLINK_ROUTE, GROUPS)


def heard(link: socket.socket) -> bool:
    """Reads what `listen` was told; whether anything of it matters."""
    return netlink.heard(link, CHANGES.__contains__)
