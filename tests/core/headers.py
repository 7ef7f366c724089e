"""One table of IP headers that engine, answers, defragmenter and first stage walk alike.

In: nothing. Out: CASES, a packet and where its transport header is; None: no such thing can be told, and with more
headers than MANY the engine drops the packet. Never here: how any of them walks.
"""

from typing import NamedTuple

from tests.core import samples as s

MANY = 192              # core/packet.pxd, MAX_EXTENSIONS
SEGMENT = s.tcp_segment(7, b"payload", s.ACK)


class At(NamedTuple):
    proto: int
    at: int
    fragment: bool = False


HOP, ROUTE, FRAGMENT, AUTHENTICATION, DESTINATION = 0, 43, 44, 51, 60
SIZED = {HOP: 8, ROUTE: 24, FRAGMENT: 8, AUTHENTICATION: 24, DESTINATION: 8}


def header(kind: int, following: int, *, offset: int = 0, more: int = 0, size: int | None = None) -> bytes:
    """One extension header of that kind, as the RFCs lay it out; `size` is its length in bytes."""
    size = size or SIZED[kind]
    if kind == FRAGMENT:
        return bytes([following, 0]) + (offset << 3 | more).to_bytes(2, "big") + b"\0\0\0\7"
    if kind == AUTHENTICATION:
        return bytes([following, size // 4 - 2]) + bytes(size - 2)
    if kind == ROUTE:
        return bytes([following, size // 8 - 1, 4, 0]) + bytes(size - 4)
    return bytes([following, size // 8 - 1, 1, size - 4 & 255]) + bytes(size - 4)


def chain(*kinds: int, last: int = 6, segment: bytes = SEGMENT, **settings: int) -> bytes:
    """An IPv6 packet with these extension headers before its TCP."""
    named = [*kinds, last]
    parts = b"".join(header(kind, named[i + 1], **(settings if i == len(kinds) - 1 else {}))
                     for i, kind in enumerate(kinds))
    return s.ip_packet(named[0], parts + segment, s.CLIENT6, s.SERVER6)


def four(words: int = 5, field: int = 0) -> bytes:
    plain = bytearray(s.ip_packet(6, bytes(4 * words - 20) + SEGMENT))
    plain[0] = 0x40 | words
    plain[6:8] = field.to_bytes(2, "big")
    return bytes(plain)


def _six(*kinds: int, last: int = 6) -> tuple[bytes, At]:
    return chain(*kinds, last=last), At(last, 40 + sum(SIZED[kind] for kind in kinds))


CASES: dict[str, tuple[bytes, At | None]] = {
    "4 plain": (four(), At(6, 20)),
    "4 options": (four(9), At(6, 36)),
    "4 most options": (four(15), At(6, 60)),
    "4 first fragment": (four(5, 0x2000), At(6, 20, True)),
    "4 later fragment": (four(7, 0x0001), At(6, 28, True)),
    "4 do not fragment": (four(5, 0x4000), At(6, 20)),
    "6 plain": _six(),
    "6 each": _six(HOP, DESTINATION, ROUTE, FRAGMENT, AUTHENTICATION, DESTINATION),
    "6 in another order": _six(DESTINATION, AUTHENTICATION, ROUTE, DESTINATION, FRAGMENT, FRAGMENT),
    "6 authentication": _six(AUTHENTICATION),
    "6 the longest options": (chain(DESTINATION, size=2048), At(6, 40 + 2048)),
    "6 the shortest authentication": (chain(AUTHENTICATION, size=8), At(6, 48)),
    **{f"6 {count} destination options": _six(*[DESTINATION] * count)
       for count in (1, 15, 16, 17, 64, 65, 180, MANY)},
    **{f"6 {count} destination options": (chain(*[DESTINATION] * count), None)
       for count in (MANY + 1, 1000, 8000)},
    "6 first fragment": (chain(DESTINATION, FRAGMENT, more=1), At(6, 56, True)),
    "6 later fragment": (chain(FRAGMENT, offset=9), At(6, 48, True)),
    "6 later fragment behind a whole one": (chain(FRAGMENT, FRAGMENT, offset=9), At(6, 56, True)),
    "6 fragment that says options follow": (chain(FRAGMENT, last=DESTINATION, more=1), At(DESTINATION, 48, True)),
    "6 nothing follows": _six(DESTINATION, last=59),
    "6 mobility": _six(DESTINATION, last=135),
    "6 host identity": _six(last=139),
    "6 options beyond the end": (chain(DESTINATION, segment=b"", size=8)[:-8] + b"\6\1\0\0\0\0\0\0", None),
    "6 no room for a header": (s.ip_packet(DESTINATION, b"\6\0\0", s.CLIENT6, s.SERVER6), None),
}
