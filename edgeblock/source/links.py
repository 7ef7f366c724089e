"""Where the IP packet is in a frame, and the same headers around another packet.

In: a link type and the bytes of a frame. Out: an offset, or a frame. Link types: Ethernet, raw IP, Linux cooked v1
and v2 (the device `any`), BSD null and loop, PPP (bare, with direction, in HDLC-like framing, as a PPPoE session),
Cisco HDLC; in each of them VLAN tags, PPPoE sessions and MPLS labels, stacked. Tunnels are opened up to MAX_TUNNELS
deep: GRE, GTP-U, VXLAN, IP in IP. What is no tunnel beyond doubt stays the packet that it is, and so does one that
arrived in pieces. The frame is hostile: every offset is checked; nothing is raised.

Sources: LINKTYPE registry (draft-ietf-opsawg-pcap); RFC 1661, 1662, 2516 (PPP, PPPoE); RFC 3032, 4385 (MPLS, control
word); RFC 2784, 2890 (GRE); 3GPP TS 29.281 (GTP-U); RFC 7348 (VXLAN); RFC 2003, 4213 (IP in IP).
"""

from typing import NamedTuple

from edgeblock import wire

NULL, ETHERNET, PPP, PPP_HDLC, PPP_ETHERNET, C_HDLC, LOOP, COOKED, PPP_DIRECTION, COOKED2 = (
    0, 1, 9, 50, 51, 104, 108, 113, 204, 276)
RAW = frozenset((12, 14, 101, 228, 229))    # LINKTYPE_RAW, its older BSD numbers, LINKTYPE_IPV4 and _IPV6
LINK_TYPES = RAW | {NULL, ETHERNET, PPP, PPP_HDLC, PPP_ETHERNET, C_HDLC, LOOP, COOKED, PPP_DIRECTION, COOKED2}

MAX_TAGS = 8                    # VLAN tags in one frame; Linux and every switch stop far earlier
MAX_LABELS = 16                 # of MPLS; routers push a handful
MAX_TUNNELS = 4                 # one in another; GTP-U in GRE over MPLS is two

IPV4, IPV6, PPPOE_SESSION, ETHERNET_BRIDGED = 0x0800, 0x86DD, 0x8864, 0x6558
VLAN = frozenset((0x8100, 0x88A8, 0x9100, 0x9200))
MPLS = frozenset((0x8847, 0x8848))
PPP_TYPES = {0x21: IPV4, 0x57: IPV6, 0x281: 0x8847, 0x283: 0x8848}
FAMILIES = frozenset((2, 10, 24, 28, 30))   # AF_INET, and AF_INET6 of Linux, NetBSD, FreeBSD and macOS
GTP_PORT, VXLAN_PORT = 2152, 4789


class Layer(NamedTuple):
    """A header that says how long what is behind it is: "pppoe", "ip", "udp" or "gtp", and where it begins."""

    kind: str
    at: int


def find_packet(link: int, frame: bytes) -> int:
    """Where the innermost IP packet begins in a frame of that link type; -1 if it carries none."""
    layers: list[Layer] = []
    plain = link == ETHERNET and frame[12:14] in (b"\x08\x00", b"\x86\xdd")
    start = 14 if plain else _outer(link, frame, layers)
    return _open_tunnels(frame, start, layers) if start >= 0 else -1


def _outer(link: int, frame: bytes, layers: list[Layer]) -> int:
    if link == ETHERNET:
        return _behind_type(frame, 12, layers)
    if link in RAW:
        return 0
    if link == COOKED:
        return _behind_type(frame, 14, layers)
    if link == COOKED2:
        return _behind(frame, 20, int.from_bytes(frame[:2], "big"), layers)
    if link == C_HDLC:
        return _behind_type(frame, 2, layers)
    if link == PPP_ETHERNET:
        return _behind(frame, 0, PPPOE_SESSION, layers)
    if link in (PPP, PPP_HDLC, PPP_DIRECTION):
        at = 1 if link == PPP_DIRECTION else 0
        if frame[at:at + 2] == b"\xff\x03":     # address and control, which may be left out (RFC 1662, 3.1; 1661 6.6)
            at += 2
        return _behind_ppp(frame, at, layers)
    if link in (NULL, LOOP):
        # In the byte order of whoever captured; LOOP is big-endian by definition.
        family = frame[:4]
        if int.from_bytes(family, "big") in FAMILIES or int.from_bytes(family, "little") in FAMILIES:
            return 4
    return -1


def _behind_type(frame: bytes, at: int, layers: list[Layer]) -> int:
    return _behind(frame, at + 2, int.from_bytes(frame[at:at + 2], "big"), layers)


def _behind(frame: bytes, at: int, kind: int, layers: list[Layer]) -> int:
    # Where the IP packet begins behind an EtherType; -1: there is none.
    for _ in range(MAX_TAGS):
        if kind not in VLAN:
            break
        kind = int.from_bytes(frame[at + 2:at + 4], "big")
        at += 4
    if kind in (IPV4, IPV6):
        return at
    if kind in MPLS:
        return _behind_mpls(frame, at, layers)
    if kind == PPPOE_SESSION and len(frame) >= at + 8 and frame[at] == 0x11 and frame[at + 1] == 0:
        layers.append(Layer("pppoe", at))
        return _behind_ppp(frame, at + 6, layers)
    return -1


def _behind_ppp(frame: bytes, at: int, layers: list[Layer]) -> int:
    if len(frame) < at + 2:
        return -1
    protocol, size = frame[at], 1       # one byte if it is odd: protocol field compression, RFC 1661 6.5
    if not protocol & 1:
        protocol, size = protocol << 8 | frame[at + 1], 2
    return _behind(frame, at + size, PPP_TYPES.get(protocol, 0), layers)


def _behind_mpls(frame: bytes, at: int, layers: list[Layer]) -> int:
    # Behind the label that is the bottom of the stack comes what its path carries: by its first four bits IPv4 or
    # IPv6, or a control word and Ethernet (RFC 4385, 3).
    for _ in range(MAX_LABELS):
        label = frame[at:at + 4]
        at += 4
        if len(label) < 4 or len(frame) <= at:
            return -1
        if label[2] & 1:
            version = frame[at] >> 4
            if version in (4, 6):
                return at
            return _behind_type(frame, at + 4 + 12, layers) if version == 0 else -1
    return -1


# -- tunnels -----------------------------------------------------------------------------------------------------

def _open_tunnels(frame: bytes, start: int, layers: list[Layer]) -> int:
    for _ in range(MAX_TUNNELS):
        inner: list[Layer] = []
        at = _inside(frame, start, inner)
        if at < 0 or not _is_packet(frame, at):
            break
        layers += [Layer("ip", start), *inner]
        start = at
    return start


def _is_packet(frame: bytes, at: int) -> bool:
    there = len(frame) - at
    version = frame[at] >> 4 if there > 0 else 0
    if version == 4:
        return there >= 20 and frame[at] & 15 >= 5 and int.from_bytes(frame[at + 2:at + 4], "big") >= 20
    return version == 6 and there >= 40


def _inside(frame: bytes, start: int, layers: list[Layer]) -> int:
    # Where the packet begins that the one at `start` carries through a tunnel; -1: it carries none.
    there = len(frame) - start
    version = frame[start] >> 4 if there > 0 else 0
    if version == 4 and there >= 20:
        protocol, at = frame[start + 9], start + (frame[start] & 15) * 4
        if frame[start + 6] & 0x3F or frame[start + 7]:
            return -1           # a piece
    elif version == 6 and there >= 40:
        protocol, at = frame[start + 6], start + 40
    else:
        return -1
    if protocol == 47:
        return _inside_gre(frame, at, layers)
    if protocol in (4, 41):
        return at
    if protocol == 17 and len(frame) >= at + 8:
        port = int.from_bytes(frame[at + 2:at + 4], "big")
        if port == GTP_PORT:
            return _inside_gtp(frame, at + 8, [Layer("udp", at)], layers)
        if port == VXLAN_PORT and frame[at + 8:at + 12] == b"\x08\0\0\0":
            layers.append(Layer("udp", at))
            return _behind_type(frame, at + 16 + 12, layers)
    return -1


def _inside_gre(frame: bytes, at: int, layers: list[Layer]) -> int:
    if len(frame) < at + 4 or frame[at + 1] & 7:
        return -1               # not version 0: PPTP's has PPP in it, and numbers
    size = 4 + 4 * sum(bool(frame[at] & bit) for bit in (0x80, 0x20, 0x10))     # checksum, key, sequence number
    kind = int.from_bytes(frame[at + 2:at + 4], "big")
    if kind == ETHERNET_BRIDGED:
        return _behind_type(frame, at + size + 12, layers)
    return _behind(frame, at + size, kind, layers)


def _inside_gtp(frame: bytes, at: int, udp: list[Layer], layers: list[Layer]) -> int:
    # Version 1, protocol type GTP, a G-PDU; one optional part of four bytes, then extension headers.
    if len(frame) < at + 8 or frame[at] & 0xF0 != 0x30 or frame[at + 1] != 255:
        return -1
    begin = at
    flags = frame[at] & 7
    at += 8
    if flags:
        following = frame[at + 3] if len(frame) > at + 3 and flags & 4 else 0
        at += 4
        for _ in range(MAX_TAGS):
            if not following:
                break
            size = 4 * frame[at] if len(frame) > at else 0
            if size == 0 or len(frame) <= at + size:
                return -1
            following = frame[at + size - 1]
            at += size
    layers += [*udp, Layer("gtp", begin)]
    return at


# -- and back ----------------------------------------------------------------------------------------------------

def wrap(link: int, frame: bytes, start: int, packet: bytes, turned: bool) -> bytes:
    """`packet` behind what stands in `frame` before `start`, lengths and sums made right; `turned` sends it back to
    where that frame came from."""
    layers: list[Layer] = []
    outer = _outer(link, frame, layers)
    if outer >= 0:
        _open_tunnels(frame, outer, layers)
    made = bytearray(frame[:start]) + packet
    if turned:
        if link == ETHERNET:
            made[0:6], made[6:12] = made[6:12], made[0:6]
        elif link == COOKED:
            _turn_cooked(made, 1)
        elif link == COOKED2:
            _turn_cooked(made, 10)
    for kind, at in reversed(layers):
        if kind == "pppoe":
            made[at + 4:at + 6] = (len(made) - at - 6).to_bytes(2, "big")
        elif kind == "gtp":
            made[at + 2:at + 4] = (len(made) - at - 8).to_bytes(2, "big")
        elif kind == "udp":
            made[at + 4:at + 6] = (len(made) - at).to_bytes(2, "big")
            made[at + 6:at + 8] = b"\0\0"      # no checksum, as tunnels may (RFC 6935; GTP-U, VXLAN)
        else:
            _fit_ip(made, at, turned)
    return bytes(made)


def _fit_ip(made: bytearray, at: int, turned: bool) -> None:
    if made[at] >> 4 == 4:
        header = (made[at] & 15) * 4
        made[at + 2:at + 4] = (len(made) - at).to_bytes(2, "big")
        if turned:
            made[at + 12:at + 16], made[at + 16:at + 20] = made[at + 16:at + 20], made[at + 12:at + 16]
        made[at + 10:at + 12] = b"\0\0"
        made[at + 10:at + 12] = wire.checksum(wire.sum16(bytes(made[at:at + header]))).to_bytes(2, "big")
        return
    made[at + 4:at + 6] = (len(made) - at - 40).to_bytes(2, "big")
    if turned:
        made[at + 8:at + 24], made[at + 24:at + 40] = made[at + 24:at + 40], made[at + 8:at + 24]


def _turn_cooked(prefix: bytearray, at: int) -> None:
    # The packet type: 0 was sent to us, 4 was sent by us. The address beside it is the sender's: not known here.
    prefix[at] = {0: 4, 4: 0}.get(prefix[at], prefix[at])
