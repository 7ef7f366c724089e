"""The few words of nfnetlink that nft and iptables have no option for. In: names. Out: whether the kernel agreed.

Each call is one request and its acknowledgement on a socket of its own. Nothing here waits longer than SECONDS. What
asks more, or listens for changes, finds here how messages and attributes are made and read.
"""

import errno
import socket
import struct
from collections.abc import Callable, Iterator

NETLINK_NETFILTER = 12
SECONDS = 5.0

REQUEST, ACK, NON_RECURSIVE = 0x01, 0x04, 0x100          # linux/netlink.h: NLM_F_REQUEST, _ACK, _NONREC
DUMP, ERROR, DONE = 0x300, 2, 3                          # NLM_F_DUMP, NLMSG_ERROR, NLMSG_DONE
TYPE = 0x3FFF                                            # of an attribute, without its flags
BATCH_BEGIN, BATCH_END = 0x10, 0x11                      # linux/netfilter/nfnetlink.h
NFTABLES, QUEUE = 10, 3                                  # NFNL_SUBSYS_NFTABLES, _QUEUE

GET_TABLE, DELETE_TABLE, GET_CHAIN = 1, 2, 4                           # linux/netfilter/nf_tables.h
TABLE_NAME, CHAIN_TABLE, CHAIN_NAME = 1, 1, 3

QUEUE_CONFIG = 2                                         # linux/netfilter/nfnetlink_queue.h: NFQNL_MSG_CONFIG
COMMAND, MASK, FLAGS = 1, 4, 5                           # NFQA_CFG_CMD, _MASK, _FLAGS
BIND = 1
FAIL_OPEN, CONNTRACK, GSO = 0x01, 0x02, 0x04

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6, 0: 1}         # 0: nft's "inet"


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def name(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def message(subsystem: int, kind: int, flags: int, family: int, resource: int, body: bytes = b"") -> bytes:
    body = struct.pack("!BBH", family, 0, resource) + body
    return struct.pack("=IHHII", 16 + len(body), subsystem << 8 | kind, REQUEST | flags, kind, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and body of each message of a datagram."""
    while len(data) >= 16:
        size, kind = struct.unpack_from("=IH", data)
        if size < 16:
            return
        yield kind, data[16:size]
        data = data[(size + 3) & ~3:]


def attributes(body: bytes, at: int = 4) -> dict[int, bytes]:
    """By their types, those behind the four bytes of nfnetlink's header."""
    return dict(walk(body, at))


def walk(body: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """Type and value of each attribute."""
    while at + 4 <= len(body):
        size, kind = struct.unpack_from("=HH", body, at)
        if size < 4:
            return
        yield kind & TYPE, body[at + 4:at + size]
        at += (size + 3) & ~3


def listening(protocol: int, groups: int) -> socket.socket:
    """A socket that the kernel tells of what happens in these multicast groups, a bit each. Never blocks.

    Raises:
        OSError: not permitted, or not in this kernel.
    """
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    try:
        link.bind((0, groups))
    except OSError:
        link.close()
        raise
    return link


def heard(link: socket.socket, matters: Callable[[int], bool]) -> bool:
    """Reads what such a socket was told; whether a message of a kind that matters was among it, or may have been."""
    changed = False
    while True:
        try:
            data = link.recv(1 << 16)
        except BlockingIOError:
            return changed
        except OSError as problem:
            if problem.errno != errno.ENOBUFS:      # more than the socket holds: something has changed
                raise
            changed = True
            continue
        changed = changed or any(matters(kind) for kind, _ in messages(data))


def opened() -> socket.socket:
    """A socket to ask the kernel with, for one question after the other."""
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    link.settimeout(SECONDS)
    return link


def ask(request: bytes) -> int:
    """The errno that the kernel answers with, 0 when it agrees."""
    with opened() as link:
        return answer(link, request)


def answer(link: socket.socket, request: bytes) -> int:
    """The same, on a socket that stays open, for what the kernel ties to the socket."""
    link.settimeout(SECONDS)
    link.sendto(request, (0, 0))
    while True:
        for kind, body in messages(link.recv(65536)):
            if kind == ERROR and len(body) >= 4:
                return -int(struct.unpack_from("=i", body)[0])


def chain_exists(family: int, table: str, chain: str) -> bool:
    """Whether nf_tables has that chain for IPv4 (4), IPv6 (6) or both (0). A failure to answer counts as yes."""
    wanted = name(CHAIN_TABLE, table) + name(CHAIN_NAME, chain)
    return ask(message(NFTABLES, GET_CHAIN, ACK, FAMILIES[family], 0, wanted)) != errno.ENOENT


def table_exists(family: int, table: str) -> bool:
    """Whether nf_tables has that table for IPv4 (4), IPv6 (6) or both (0). A failure to answer counts as no."""
    return ask(message(NFTABLES, GET_TABLE, ACK, FAMILIES[family], 0, name(TABLE_NAME, table))) == 0


def delete_table_if_empty(family: int, table: str) -> bool:
    """Delete that table unless it holds anything: the kernel checks and deletes in one step. Whether it is gone."""
    batch = message(0, BATCH_BEGIN, 0, socket.AF_UNSPEC, NFTABLES) \
        + message(NFTABLES, DELETE_TABLE, ACK | NON_RECURSIVE, FAMILIES[family], 0, name(TABLE_NAME, table)) \
        + message(0, BATCH_END, 0, socket.AF_UNSPEC, NFTABLES)
    return ask(batch) in (0, errno.ENOENT)


def try_queue(number: int, flags: int) -> int:
    """Bind queue `number`, set these flags, let go. The errno of the first step that failed, 0 for none."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as link:
        bind = attribute(COMMAND, struct.pack("!BBH", BIND, 0, 0))
        setting = attribute(FLAGS, struct.pack("!I", flags)) + attribute(MASK, struct.pack("!I", flags))
        return answer(link, message(QUEUE, QUEUE_CONFIG, ACK, socket.AF_UNSPEC, number, bind)) \
            or answer(link, message(QUEUE, QUEUE_CONFIG, ACK, socket.AF_UNSPEC, number, setting))
