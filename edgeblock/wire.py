"""IP headers and the internet checksum, in plain Python, for what reads captures and writes replies.

In: the bytes of one IP packet. Out: where its transport header begins, or None; a checksum. Nothing is copied but
the two addresses, and nothing here raises for any bytes. The fast path has its own, compiled, in `core.packet`.
"""

from typing import NamedTuple

TCP = 6
UDP = 17

HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION = 0, 43, 44, 51, 60
MOBILITY, HIP, SHIM6 = 135, 139, 140
_EIGHTS = frozenset((HOP_BY_HOP, ROUTING, DESTINATION, MOBILITY, HIP, SHIM6))   # length in units of 8 bytes
_MAX_EXTENSIONS = 16    # RFC 8200 section 4.1 knows seven; more than twice that is nobody's packet


class Header(NamedTuple):
    """Where things are in an IP packet: `at` is the offset of the transport header, `end` one past the packet.

    `src` and `dst` are 4 or 16 bytes; `proto` is the transport's protocol number. In a fragment that is not the
    first, and in a packet that ends early, nothing says that the transport header is whole.
    """

    version: int
    src: bytes
    dst: bytes
    proto: int
    at: int
    end: int
    fragment: bool


def find_transport(packet: bytes) -> Header | None:
    """The header fields of an IPv4 (RFC 791) or IPv6 (RFC 8200) packet; None if it is not whole or is neither."""
    size = len(packet)
    if size < 20:
        return None
    version = packet[0] >> 4
    if version == 4:
        at = (packet[0] & 15) * 4
        end = packet[2] << 8 | packet[3]
        if at < 20 or end < at or end > size:
            return None
        fragment = bool(packet[6] & 0x3F or packet[7])
        return Header(4, packet[12:16], packet[16:20], packet[9], at, end, fragment)
    if version != 6 or size < 40:
        return None
    end = 40 + (packet[4] << 8 | packet[5])
    if end > size:
        return None
    found = walk_extensions(packet, end)
    if found is None:
        return None
    proto, at, fragment_at, _ = found
    whole = fragment_at == 0 or not (packet[fragment_at + 2] or packet[fragment_at + 3] & 0xF9)
    return Header(6, packet[8:24], packet[24:40], proto, at, end, not whole)


def walk_extensions(packet: bytes, end: int) -> tuple[int, int, int, int] | None:
    """Walks the extension headers of an IPv6 packet of at least 40 bytes.

    Returns the protocol after them, its offset, the offset of the fragment header (0: there is none) and the
    offset of the byte that named the fragment header; None if they do not fit before `end`. It stops behind the
    fragment header of a fragment, since what follows need not be a header.
    """
    proto, at, named, fragment_at, fragment_named = packet[6], 40, 6, 0, 0
    for _ in range(_MAX_EXTENSIONS):
        if proto in _EIGHTS:
            if at + 8 > end:
                return None
            following = at + 8 + packet[at + 1] * 8
        elif proto == AUTHENTICATION:
            if at + 8 > end:
                return None
            following = at + 8 + packet[at + 1] * 4
        elif proto == FRAGMENT:
            if at + 8 > end:
                return None
            following = at + 8
            if not fragment_at:
                fragment_at, fragment_named = at, named
            if packet[at + 2] or packet[at + 3] & 0xF9:
                return packet[at], following, fragment_at, fragment_named
        else:
            return proto, at, fragment_at, fragment_named
        if following > end:
            return None
        proto, named, at = packet[at], at, following
    return None


def sum16(data: bytes | bytearray) -> int:
    """The one's complement sum of 16-bit words (RFC 1071) modulo 0xFFFF, so that 0 stands for 0xFFFF too."""
    value = int.from_bytes(data, "big")
    return (value << 8 if len(data) & 1 else value) % 0xFFFF


def pseudo_sum(src: bytes, dst: bytes, proto: int, length: int) -> int:
    """The sum of the pseudo-header: RFC 9293 section 3.1 for IPv4, RFC 8200 section 8.1 for IPv6."""
    return (sum16(src) + sum16(dst) + proto + (length >> 16) + (length & 0xFFFF)) % 0xFFFF


def checksum(total: int) -> int:
    """The checksum field for words that add up to `total`, which must not be all zero bytes."""
    rest = total % 0xFFFF
    return 0xFFFF - rest if rest else 0
