"""The raw sockets that send our replies.

In: whole IP packets. Out: they leave through the kernel's routing with our packet mark, so that the ruleset never
queues them. Sending never waits and never raises for a packet: what could not be sent is counted, and the client's
next retransmission asks for it again.
"""

import errno
import socket
from collections.abc import Iterable

from edgeblock.errors import SystemProblem

_IPV6_HDRINCL = 36      # linux/in6.h; Python's socket module does not name it


class Injector:
    """Sends IPv4 and IPv6 packets as they are. Use inside a `with`.

    Attributes (counts since the start): sent, failed, in packets.
    """

    def __init__(self, mark: int) -> None:
        """`mark` is the packet mark (ruleset.inject_mark). Raises SystemProblem without the permission to."""
        self.sent = 0
        self.failed = 0
        self._sockets: dict[int, socket.socket] = {}
        try:
            for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
                opened = _raw_socket(family, mark)
                if opened is not None:
                    self._sockets[version] = opened
        except PermissionError:
            self.close()
            raise SystemProblem("raw sockets: not permitted; run as root or with CAP_NET_RAW and CAP_NET_ADMIN") \
                from None
        except OSError as problem:
            self.close()
            raise SystemProblem(f"raw sockets: cannot be opened: {problem.strerror}") from None

    def __enter__(self) -> "Injector":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for opened in self._sockets.values():
            opened.close()
        self._sockets.clear()

    def send(self, packets: Iterable[bytes]) -> None:
        """Sends each packet to the destination in its own header."""
        for packet in packets:
            version = packet[0] >> 4 if packet else 0
            opened = self._sockets.get(version)
            try:
                if opened is None:
                    self.failed += 1
                    continue
                if version == 4:
                    opened.sendto(packet, (socket.inet_ntop(socket.AF_INET, packet[16:20]), 0))
                else:
                    opened.sendto(packet, (socket.inet_ntop(socket.AF_INET6, packet[24:40]), 0))
                self.sent += 1
            except (OSError, ValueError):   # a full buffer, no route; addresses that are not all there
                self.failed += 1


def _raw_socket(family: int, mark: int) -> socket.socket | None:
    # None: this kernel does not have the family at all. IPPROTO_RAW sockets receive nothing.
    try:
        opened = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_RAW)
    except OSError as problem:
        if problem.errno == errno.EAFNOSUPPORT:
            return None
        raise
    try:
        if family == socket.AF_INET:
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
        else:
            opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    except OSError:
        opened.close()
        raise
    return opened
