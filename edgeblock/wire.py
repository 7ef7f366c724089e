"""IP headers and the internet checksum, in plain Python, for what reads captures and writes replies.

In: the bytes of one IP packet. Out: where its transport header begins, or None; a checksum. Nothing is copied but
the two addresses, and nothing here raises for any bytes. The walk over the headers is the engine's (`core.packet`).
"""

from typing import NamedTuple

import edgeblock.core.packet as walker

TCP = 6
UDP = 17

HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION = 0, 43, 44, 51, 60


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
    found = walker.find_transport(packet)
    if found is None:
        return None
    proto, at, end, fragment, _, _ = found
    if packet[0] >> 4 == 4:
        return Header(4, packet[12:16], packet[16:20], proto, at, end, fragment)
    return Header(6, packet[8:24], packet[24:40], proto, at, end, fragment)


def find_fragment(packet: bytes) -> tuple[int, int, int] | None:
    """Of an IPv6 packet with a fragment header: where that is, where the byte that names it, and where it all ends.

    None for anything else.
    """
    found = walker.find_transport(packet)
    if found is None or not found[4]:
        return None
    return found[4], found[5], found[2]


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
