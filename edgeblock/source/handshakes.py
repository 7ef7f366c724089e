"""Who in a capture has proved his address.

In: every packet of a capture, in its order. Out: the engine's flag for it, ADDRESS_PROVEN or 0. Nothing is raised for
any packet, and what is remembered is bounded.

A sender shows that he hears the other side by acknowledging what that has said: its SYN-ACK, or, where the connection
began before the capture, whatever came later. Who only borrows an address has to guess one of 2^32 numbers. Live the
kernel says it, and counts in the same way: conntrack by its window, the first stage as in stage1/program.c. A capture
may lack packets, so here an acknowledgement may run ahead of what was seen.
"""

from edgeblock import wire

ADDRESS_PROVEN = 2              # as in core/engine.pxd

MAX_SIDES = 512 * 1024          # directions of connections, some 100 MB; the oldest goes, with what it has shown
BEHIND = 66_000                 # acknowledgements that come late, as conntrack has it (MAXACKWINCONST)
AHEAD = 1 << 20                 # acknowledgements of what the capture lacks: a window's worth

_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10
_ALL = 0xFFFFFFFF


class Handshakes:
    """Of each direction of each connection: how far it has come, and how much of that is acknowledged."""

    def __init__(self) -> None:
        self._sides: dict[bytes, list[int]] = {}

    def flag(self, packet: bytes) -> int:
        """ADDRESS_PROVEN or 0 for an IP packet; to be called once for each."""
        header = wire.find_transport(packet) or wire.find_transport(_whole(packet))
        if header is None or header.fragment or header.proto != wire.TCP or len(packet) - header.at < 14:
            return 0
        at = header.at
        seq, ack = int.from_bytes(packet[at + 4:at + 8]), int.from_bytes(packet[at + 8:at + 12])
        flags = packet[at + 13]
        end = seq + max(0, header.end - at - (packet[at + 12] >> 4) * 4) & _ALL
        here = header.src + header.dst + packet[at:at + 4]
        if flags & _RST:
            return 0
        if flags & _SYN:
            if flags & _ACK:        # a server's, to a new connection: the one before has ended
                self._remember(here, end + 1 & _ALL)
            return 0
        other = self._sides.get(header.dst + header.src + packet[at + 2:at + 4] + packet[at:at + 2])
        proven = False
        if other is not None and flags & _ACK:
            oldest = other[1] - BEHIND
            proven = (ack - oldest & _ALL) <= (other[0] - oldest & _ALL) + AHEAD
            if proven and _is_later(ack, other[1]):
                other[1] = ack
        mine = self._sides.get(here)
        end = end + (flags & _FIN) & _ALL
        if mine is None:
            self._remember(here, end)
        elif _is_later(end, mine[0]):
            mine[0] = end
        return ADDRESS_PROVEN if proven else 0

    def _remember(self, side: bytes, end: int) -> None:
        self._sides[side] = [end, end]
        if len(self._sides) > MAX_SIDES:
            del self._sides[next(iter(self._sides))]


def _is_later(a: int, b: int) -> bool:
    return 0 < (a - b & _ALL) < 1 << 31


def _whole(packet: bytes) -> bytes:
    # One that the capture cut, as long as its header says.
    if packet[:1] and packet[0] >> 4 == 4:
        return packet.ljust(int.from_bytes(packet[2:4]), b"\0")
    return packet.ljust(40 + int.from_bytes(packet[4:6]), b"\0") if packet else packet
