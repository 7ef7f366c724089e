"""One NFQUEUE of the kernel: bound and set, looked at from outside, and why it cannot be had.

In: the netlink socket of a queue, or the kernel's table of all of them. Out: settings that the kernel has taken, what
it counts, a line for a person. Never here: a packet, a verdict.
"""

import errno
import os
import socket
import struct
from pathlib import Path

from edgeblock.netfilter.netlink import (
    BIND,
    COMMAND,
    CONNTRACK,
    ERROR,
    FAIL_OPEN,
    FLAGS,
    MASK,
    QUEUE,
    QUEUE_CONFIG,
    attribute,
    message,
)

PARAMETERS, LENGTH = 2, 3  # linux/netfilter/nfnetlink_queue.h: NFQA_CFG_PARAMS, NFQA_CFG_QUEUE_MAXLEN
WHOLE_PACKETS = 2          # NFQNL_COPY_PACKET
COPY_RANGE = 0xFFFF        # bytes of each packet; the kernel caps it 4 below, so only a full 64 KiB loses any
UNLIMITED = 0x7FFFFFFF
SOL_NETLINK = 270
NETLINK_NO_ENOBUFS = 5
SO_RCVBUFFORCE = 33
SO_MEMINFO = 55
MEMINFO_DROPS = 8          # index of the lost messages among the 32-bit words of SO_MEMINFO
CAP_NET_ADMIN = 12
TABLE = Path("/proc/thread-self/net/netfilter/nfnetlink_queue")


def _set_buffer(netlink: socket.socket, buffer: int) -> None:
    netlink.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, min(buffer, 1 << 30))
    # Without this, one full buffer makes the kernel deliver nothing more until the buffer has been emptied.
    netlink.setsockopt(SOL_NETLINK, NETLINK_NO_ENOBUFS, 1)


def _flags(mask: int, value: int) -> bytes:
    return attribute(MASK, struct.pack(">I", mask)) + attribute(FLAGS, struct.pack(">I", value))


def _length(length: int) -> bytes:
    return attribute(LENGTH, struct.pack(">I", length))


def configure_held(fd: int, number: int, length: int, buffer: int, fail_open: bool) -> None:
    """Sets a queue that another reader has bound.

    Packets may wait in the socket: an answer would come after them, so none is looked for.
    """
    with socket.socket(fileno=os.dup(fd)) as netlink:
        _set_buffer(netlink, buffer)
        netlink.send(message(QUEUE, QUEUE_CONFIG, 0, 0, number,
                             _length(length) + _flags(FAIL_OPEN, FAIL_OPEN if fail_open else 0)))


def configure(fd: int, number: int, length: int, buffer: int, fail_open: bool) -> bool:
    """Binds a queue and sets everything in one message, so that it never exists with other settings.

    The kernel carries it out within send; without a request for an acknowledgement it answers only a failure, and a
    failure comes before any packet.

    Returns:
        whether the kernel obeys marks in verdicts: it then also knows how to describe a packet's connection to us,
        which can be asked for, and is asked for no longer than that takes.

    Raises:
        OSError: the kernel's answer.
    """
    settings = (attribute(COMMAND, struct.pack(">BBH", BIND, 0, 0))
                + attribute(PARAMETERS, struct.pack(">IB", COPY_RANGE, WHOLE_PACKETS)) + _length(length))
    opened = FAIL_OPEN if fail_open else 0
    with socket.socket(fileno=os.dup(fd)) as netlink:
        _set_buffer(netlink, buffer)
        try:
            _tell(netlink, number, settings + _flags(FAIL_OPEN | CONNTRACK, opened | CONNTRACK))
        except OSError as problem:
            if problem.errno != errno.EOPNOTSUPP:
                raise
            netlink.recv(4096)
            _tell(netlink, number, settings + _flags(FAIL_OPEN, opened))
            return False
        _tell(netlink, number, _flags(CONNTRACK, 0))
        return True


def _tell(netlink: socket.socket, number: int, body: bytes) -> None:
    netlink.send(message(QUEUE, QUEUE_CONFIG, 0, 0, number, body))
    try:
        answer = netlink.recv(64, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return
    if struct.unpack_from("=H", answer, 4)[0] == ERROR:
        code = -struct.unpack_from("=i", answer, 16)[0]
        raise OSError(code, os.strerror(code))


def lost_messages(fd: int) -> int:
    """Messages that the socket of a queue had no room for, modulo 2**32."""
    netlink = socket.socket(fileno=fd)      # no copy: it is asked also where no descriptor is left
    try:
        words = netlink.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36)
    finally:
        netlink.detach()
    return int(struct.unpack("=9I", words)[MEMINFO_DROPS])


def losses(fd: int, number: int) -> tuple[int, int] | None:
    """Of an open socket: the messages it has lost, and the packets that the queue, full, has dropped.

    None where it is not the socket that this queue is bound to.
    """
    try:
        with socket.socket(fileno=os.dup(fd)) as netlink:
            owner = netlink.getsockname()[0] if netlink.family == socket.AF_NETLINK else None
        kernel = kernel_queues().get(number)
        if kernel is None or kernel["owner"] != owner:
            return None
        return lost_messages(fd), kernel["queue_dropped"]
    except OSError:
        return None


def is_table_given() -> bool:
    """Whether standard input is the kernel's table of queues, which only root may open."""
    try:
        return os.readlink("/proc/self/fd/0").endswith("/netfilter/nfnetlink_queue")
    except OSError:
        return False


def _read_given() -> str:
    # By position: the other processes of the daemon read the same open file.
    text = b""
    while part := os.pread(0, 1 << 16, len(text)):
        text += part
    return text.decode("ascii")


def kernel_queues() -> dict[int, dict[str, int]]:
    """What the kernel says about the queues of this network namespace, by queue number.

    Each has `owner` (netlink port, usually the process id), `waiting` (unanswered packets), `queue_dropped` (the
    queue was at its length), `user_dropped` (the socket buffer was full; not counted with fail-open) and
    `sequence` (packets ever delivered, modulo 2**32). Empty when the kernel has no NFQUEUE.
    """
    names = ("owner", "waiting", "mode", "range", "queue_dropped", "user_dropped", "sequence")
    try:
        text = TABLE.read_text()
    except OSError:
        text = _read_given() if is_table_given() else ""
    fields = [[int(word) for word in line.split()] for line in text.splitlines()]
    return {line[0]: dict(zip(names, line[1:], strict=False)) for line in fields}


def explain(number: int, problem: OSError) -> str:
    """Why the queue cannot be had, in one line with the way out."""
    status = Path("/proc/thread-self/status").read_text()
    capabilities = int(status.split("CapEff:")[1].split()[0], 16)
    if not capabilities >> CAP_NET_ADMIN & 1:
        return f"queue {number}: no permission; run as root, or with the capabilities CAP_NET_ADMIN and CAP_NET_RAW"
    if not TABLE.exists() and not is_table_given():
        return (f"queue {number}: this kernel has no NFQUEUE; load the module nfnetlink_queue, "
                "or use a kernel built with CONFIG_NETFILTER_NETLINK_QUEUE")
    owner = kernel_queues().get(number, {}).get("owner")
    if owner is not None:
        try:
            who = f"process {owner} ({Path(f'/proc/{owner}/comm').read_text().strip()})"
        except OSError:
            who = "another process"
        return f"queue {number} is in use by {who}; stop it, or set another number in [queue]"
    return f"queue {number}: {problem}"
