"""Ways to send a request so that a filter misreads it: one function for each row of docs/evasion.md's table.

Each takes the request, where the name stands in it, and a `Path` that makes packets; it yields packets, or pairs of
seconds to wait and a packet. A real server that gets all of them has the request, whole: packets marked as fooling
ones it ignores, or never gets. Never here: what a filter makes of them.
"""

from collections.abc import Callable, Iterator
from typing import Any

from edgeblock.disguises import packets as s

ISN = 5_000
Packets = Iterator[bytes | tuple[float, bytes]]
Strategy = Callable[["Path", bytes, int, int], Packets]
STRATEGIES: dict[str, Strategy] = {}


class Path:
    """Makes TCP packets of one connection, IPv4 or IPv6. `decoy` is the text that the names of decoys are made of."""

    def __init__(self, six: bool = False, isn: int = ISN, dport: int = 443, decoy: bytes = b"decoy",
                 **settings: Any) -> None:
        self.isn, self.decoy = isn, decoy
        self.settings: dict[str, Any] = {"dport": dport}
        if six:
            self.settings |= {"source": s.CLIENT6, "destination": s.SERVER6}
        self.settings |= settings

    def syn(self, data: bytes = b"", isn: int | None = None, **settings: Any) -> bytes:
        return s.tcp(self.isn if isn is None else isn, data, s.SYN, **self.settings | {"ack": 0} | settings)

    def ack(self) -> bytes:
        return s.tcp(self.isn + 1, b"", s.ACK, **self.settings)

    def bare(self, flags: int, at: int = 0, **settings: Any) -> bytes:
        return s.tcp(self.isn + 1 + at, b"", flags, **self.settings | settings)

    def data(self, at: int, data: bytes, flags: int = s.ACK | s.PSH, **settings: Any) -> bytes:
        return s.tcp(self.isn + 1 + at, data, flags, **self.settings | settings)

    def datagram(self, payload: bytes) -> bytes:
        return s.udp(payload, **self.settings)

    def opening(self) -> list[bytes]:
        return [self.syn(), self.ack()]


def strategy(function: Strategy) -> Strategy:
    STRATEGIES[function.__name__] = function        # type: ignore[attr-defined]
    return function


def cuts(data: bytes, at: int, size: int) -> list[tuple[int, bytes]]:
    """Pieces (offset, bytes), cut before the name, twice inside it and behind it."""
    edges = [0, at, at + size // 2, at + size - 2, at + size + 3, len(data)]
    return [(a, data[a:b]) for a, b in zip(edges, edges[1:], strict=False) if b > a]


def zeros(data: bytes) -> bytes:
    return bytes(len(data))


MD5 = b"\x13\x12" + bytes(16)                              # RFC 2385, not agreed on
OLD = b"\x08\x0a" + (1).to_bytes(4, "big") + bytes(4)      # a time stamp from before: PAWS
NEW = b"\x08\x0a" + (600_001).to_bytes(4, "big") + bytes(4)

# How a decoy is made so that the server ignores it: settings of Path.data.
FOOLING: dict[str, dict[str, Any]] = {
    "ttl": {"ttl": 2},
    "md5sig": {"options": MD5},
    "ts": {"options": OLD},
    "badack": {"ack": 7000 - 66000 & 0xFFFFFFFF},
    "badsum": {"checksum": 1},
    "datanoack": {"flags": s.PSH},
    "fin": {"flags": s.ACK | s.FIN, "ttl": 2},
    "rst": {"flags": s.ACK | s.RST, "ttl": 2},
    "syn": {"flags": s.ACK | s.SYN, "ttl": 2},
    "syn_alone": {"flags": s.SYN | s.PSH, "ttl": 2},
    "all_flags": {"flags": s.ACK | s.SYN | s.FIN | s.RST | s.URG, "ttl": 2},
}


def decoy_of(data: bytes, at: int, size: int, other: bytes) -> bytes:
    """The same message with another name of the same length."""
    name = (other * size)[:size - 8] + b".example"
    return data[:at] + name[-size:] + data[at + size:]


# ---- plain


@strategy
def whole(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield from path.opening()
    yield path.data(0, data)


@strategy
def in_pieces(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield from path.opening()
    for offset, piece in cuts(data, at, size):
        yield path.data(offset, piece)


@strategy
def small_segments(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield from path.opening()
    for offset in range(0, len(data), 76):
        yield path.data(offset, data[offset:offset + 76])


@strategy
def disorder(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield from path.opening()
    for offset, piece in reversed(cuts(data, at, size)):
        yield path.data(offset, piece)


@strategy
def byte_by_byte(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield from path.opening()
    for offset in range(len(data)):
        yield path.data(offset, data[offset:offset + 1])


@strategy
def byte_by_byte_backwards(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield from path.opening()
    for offset in reversed(range(len(data))):
        yield path.data(offset, data[offset:offset + 1])


@strategy
def paused(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield from path.opening()
    yield path.data(0, data[:at + 3])
    yield (90.0, path.data(at + 3, data[at + 3:]))


@strategy
def without_handshake_ack(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield path.syn()
    yield path.data(0, data)


@strategy
def copies(path: Path, data: bytes, at: int, size: int) -> Packets:
    for packet in path.opening():
        yield from (packet, packet, packet)
    for offset, piece in cuts(data, at, size):
        yield from [path.data(offset, piece)] * 11


@strategy
def retransmitted_in_other_cuts(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield from path.opening()
    yield path.data(at + 5, data[at + 5:])
    for step in (7, 50, 3):
        for offset in range(0, at + 4, step):
            yield path.data(offset, data[offset:min(offset + step, at + 4)])
    yield path.data(0, data)


@strategy
def odd_flags(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield from path.opening()
    for i, (offset, piece) in enumerate(cuts(data, at, size)):
        yield path.data(offset, piece, (s.ACK, s.ACK | 0x40 | 0x80, s.ACK | s.PSH | s.FIN, s.ACK, s.ACK)[i])


# ---- what comes before the data


@strategy
def reset_first(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield from path.opening()
    for settings in ({}, {"ttl": 2}, {"checksum": 1}, {"options": MD5}):
        yield path.bare(s.RST, **settings)
        yield path.bare(s.RST | s.ACK, **settings)
    yield path.data(0, data)


@strategy
def past_sequence_reset_and_fin(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield from path.opening()
    yield path.bare(s.RST, -1000)
    yield path.bare(s.FIN | s.ACK, -1)
    yield path.bare(s.FIN | s.ACK, 0, ttl=2)
    for offset, piece in cuts(data, at, size):
        yield path.data(offset, piece)


@strategy
def synack_before_syn(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield path.bare(s.SYN | s.ACK, -1, ttl=2)
    yield from path.opening()
    yield path.bare(s.SYN | s.ACK, 300, ttl=2)
    yield path.data(0, data)


@strategy
def split_handshake(path: Path, data: bytes, at: int, size: int) -> Packets:
    # A colluding server answers the SYN with a SYN; the client goes on as if it were the server.
    yield path.syn()
    yield path.bare(s.SYN | s.ACK, -1)
    yield path.data(0, data)


def _server(path: Path, flags: int, seq: int, ack: int) -> bytes:
    source, destination = path.settings.get("source", s.CLIENT), path.settings.get("destination", s.SERVER)
    return s.tcp(seq, b"", flags, source=destination, destination=source, sport=path.settings["dport"], dport=40000,
                 ack=ack)


@strategy
def split_handshake_seen_both_ways(path: Path, data: bytes, at: int, size: int) -> Packets:
    # A capture, or a box without connection tracking, sees the server's SYN too.
    yield path.syn()
    yield _server(path, s.SYN, 6999, 0)
    yield path.bare(s.SYN | s.ACK, -1)
    yield _server(path, s.ACK, 7000, path.isn + 1)
    yield path.data(0, data)


@strategy
def split_synack_seen_both_ways(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield path.syn()
    yield _server(path, s.ACK, 6999, path.isn + 1)
    yield _server(path, s.SYN, 6999, 0)
    yield path.bare(s.SYN | s.ACK, -1)
    yield path.ack()
    for offset, piece in cuts(data, at, size):
        yield path.data(offset, piece)


@strategy
def second_syn_behind(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield path.syn()
    yield path.syn(isn=path.isn + 900_000, ttl=2)
    yield path.ack()
    for offset, piece in cuts(data, at, size):
        yield path.data(offset, piece)


@strategy
def second_syn_before(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield path.syn(isn=path.isn + 0x70000000, ttl=2)
    yield path.syn(isn=path.isn - 90, ttl=2)
    yield path.syn()
    yield path.ack()
    for offset, piece in cuts(data, at, size):
        yield path.data(offset, piece)


@strategy
def many_syns(path: Path, data: bytes, at: int, size: int) -> Packets:
    for i in range(9):
        yield path.syn(isn=path.isn + 100_000 * (i - 5))
    for offset, piece in cuts(data, at, size):
        yield path.data(offset, piece)


@strategy
def fake_data_in_syn(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield path.syn(decoy_of(data, at, size, path.decoy))
    yield path.ack()
    for offset, piece in cuts(data, at, size):
        yield path.data(offset, piece)


@strategy
def zeros_in_syn(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield path.syn(bytes(16))
    yield path.ack()
    yield path.data(0, data)


@strategy
def fast_open(path: Path, data: bytes, at: int, size: int) -> Packets:
    # RFC 7413: the data in the SYN counts.
    yield path.syn(data[:at + 4], options=b"\x22\x0a12345678")
    yield path.data(at + 4, data[at + 4:])


@strategy
def fast_open_whole(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield path.syn(data, options=b"\x22\x0a12345678")
    yield path.ack()


# ---- decoys


@strategy
def below_the_window(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield from path.opening()
    decoy = decoy_of(data, at, size, path.decoy)
    for below in (10_000, 0x80000000, 66_000, len(data)):
        yield path.data(-below, decoy)
    yield path.data(0, data)


@strategy
def above_the_window(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield from path.opening()
    yield path.data(3_000_000, decoy_of(data, at, size, path.decoy))
    yield path.data(70_000, decoy_of(data, at, size, path.decoy))
    yield path.data(0, data)


@strategy
def overlap_below(path: Path, data: bytes, at: int, size: int) -> Packets:
    # The first segment begins before the stream does: its left part is a whole decoy.
    yield from path.opening()
    decoy = decoy_of(data, at, size, path.decoy)
    for offset, piece in cuts(data, at, size):
        yield path.data(offset - len(decoy), decoy + piece) if offset == 0 else path.data(offset, piece)


@strategy
def overlap_below_disorder(path: Path, data: bytes, at: int, size: int) -> Packets:
    # The second piece comes first, with fake bytes where the first one belongs.
    yield from path.opening()
    middle = at + size // 2
    decoy = decoy_of(data, at, size, path.decoy)
    yield path.data(0, decoy[:middle] + data[middle:])
    yield path.data(0, data[:middle])


def _overlap_below_by(size_below: int) -> None:
    def overlap(path: Path, data: bytes, at: int, size: int, backwards: bool = False) -> Packets:
        # The decoy's end lies at the stream's beginning; of the later pieces each may do the same to the one before.
        yield from path.opening()
        decoy = (decoy_of(data, at, size, path.decoy) * size_below)[:size_below]
        pieces = cuts(data, at, size)
        for offset, piece in reversed(pieces) if backwards else pieces:
            if offset == (pieces[1][0] if backwards else 0):
                below = min(size_below, offset - 1) if backwards else size_below
                yield path.data(offset - below, decoy[:below] + piece)
            else:
                yield path.data(offset, piece)

    STRATEGIES[f"overlap_below_{size_below}"] = overlap
    STRATEGIES[f"overlap_below_{size_below}_backwards"] = (
        lambda path, data, at, size: overlap(path, data, at, size, True))


for _below in (1, 336, 652, 681):
    _overlap_below_by(_below)


@strategy
def zeros_first(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield from path.opening()
    yield path.data(0, bytes(4), ttl=2)
    yield path.data(0, data)


@strategy
def decoy_in_pieces(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield from path.opening()
    for offset, piece in cuts(decoy_of(data, at, size, path.decoy), at, size):
        yield path.data(offset, piece, ttl=2)
    for offset, piece in cuts(data, at, size):
        yield path.data(offset, piece)


@strategy
def decoy_as_a_longer_message(path: Path, data: bytes, at: int, size: int) -> Packets:
    # The decoy claims that the real request is its tail.
    yield from path.opening()
    fake = b"\x16\x03\x01\x20\x00\x01\x00\x1f\xfc\x03\x03" + bytes(60)
    yield path.data(0, fake[:min(len(fake), len(data) - 1)], ttl=2)
    yield path.data(0, data)


@strategy
def many_decoys(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield from path.opening()
    for i in range(2):
        yield path.data(0, decoy_of(data, at, size, path.decoy + b"%d" % i), ttl=2)
    for offset, piece in cuts(data, at, size):
        yield path.data(offset, piece)


def _fake_with(name: str, settings: dict[str, Any]) -> None:
    def fake(path: Path, data: bytes, at: int, size: int) -> Packets:
        yield from path.opening()
        yield path.data(0, decoy_of(data, at, size, path.decoy), **settings)
        for offset, piece in cuts(data, at, size):
            yield path.data(offset, piece)

    def fake_disorder(path: Path, data: bytes, at: int, size: int) -> Packets:
        yield from path.opening()
        for offset, piece in reversed(cuts(data, at, size)):
            yield path.data(offset, zeros(piece), **settings)
            yield path.data(offset, piece)
            yield path.data(offset, zeros(piece), **settings)

    def fakes_around(path: Path, data: bytes, at: int, size: int) -> Packets:
        yield from path.opening()
        for offset, piece in cuts(data, at, size):
            yield path.data(offset, zeros(piece), **settings)
            yield path.data(offset, piece)
            yield path.data(offset, zeros(piece), **settings)

    def fake_host(path: Path, data: bytes, at: int, size: int) -> Packets:
        yield from path.opening()
        decoy = decoy_of(data, at, size, path.decoy)[at:at + size]
        yield path.data(0, data[:at])
        yield path.data(at, decoy, **settings)
        yield path.data(at, data[at:at + size])
        yield path.data(at, decoy, **settings)
        yield path.data(at + size, data[at + size:])

    # With SYN alone each is one more beginning, and only a few are kept: many_syns.
    few = (fake, fake_host)
    for function in few if name == "syn_alone" else (*few, fake_disorder, fakes_around):
        STRATEGIES[f"{function.__name__}_{name}"] = function


for _name, _settings in FOOLING.items():
    _fake_with(_name, _settings)


def _fakes_in_order(order: int, backwards: bool) -> None:
    # Which of the two pieces has a fake before it, and which one behind.
    def fakes(path: Path, data: bytes, at: int, size: int) -> Packets:
        yield from path.opening()
        middle = at + size // 2
        pieces = [(0, data[:middle], order), (middle, data[middle:], order >> 2)]
        for offset, piece, around in reversed(pieces) if backwards else pieces:
            if around & 1:
                yield path.data(offset, zeros(piece), ttl=2)
            yield path.data(offset, piece)
            if around & 2:
                yield path.data(offset, zeros(piece), ttl=2)

    STRATEGIES[f"fakes_in_order_{order}{'_backwards' * backwards}"] = fakes


for _order in range(1, 16):
    _fakes_in_order(_order, False)
    _fakes_in_order(_order, True)


def _fake_host_in_order(order: int) -> None:
    # Fakes of the host, and of its halves, before and behind the real ones.
    def fakes(path: Path, data: bytes, at: int, size: int) -> Packets:
        yield from path.opening()
        decoy = decoy_of(data, at, size, path.decoy)
        yield path.data(0, data[:at])
        edges = [at, at + size // 2, at + size] if order & 4 else [at, at + size]
        for a, b in zip(edges, edges[1:], strict=False):
            if order & 1:
                yield path.data(a, decoy[a:b], ttl=2)
            yield path.data(a, data[a:b])
            if order & 2:
                yield path.data(a, decoy[a:b], ttl=2)
        if order & 8:
            yield path.data(at, decoy[at:at + size], ttl=2)
        yield path.data(at + size, data[at + size:])

    STRATEGIES[f"fake_host_in_order_{order}"] = fakes


for _order in range(1, 16):
    _fake_host_in_order(_order)


@strategy
def everything_with_a_low_ttl(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield from path.opening()
    decoy = decoy_of(data, at, size, path.decoy)
    for offset, piece in cuts(data, at, size):
        yield path.data(offset, decoy[offset:offset + len(piece)], ttl=5)
        yield path.data(offset, piece, ttl=6)


@strategy
def last_copy_is_the_decoy(path: Path, data: bytes, at: int, size: int) -> Packets:
    # A server that keeps the first copy.
    yield from path.opening()
    decoy = decoy_of(data, at, size, path.decoy)
    rest = data[at + size:]
    yield path.data(at + size, rest)
    yield path.data(at, data[at:at + size])
    yield path.data(0, decoy[:at + size])


@strategy
def each_byte_twice(path: Path, data: bytes, at: int, size: int) -> Packets:
    # Every byte of the name has two copies: which one counts is anybody's guess.
    yield from path.opening()
    yield path.data(0, data[:at])
    for offset in range(at, at + size):
        yield path.data(offset, b"x", ttl=2)
        yield path.data(offset, data[offset:offset + 1])
    yield path.data(at + size, data[at + size:])


# ---- urgent data (RFC 6093): the byte is taken out of band


@strategy
def urgent_byte_inside(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield from path.opening()
    spot = at + size // 2
    sent = s.urgent_byte(data, spot)
    yield path.data(0, sent, s.ACK | s.PSH | s.URG, urgent=spot + 1)


@strategy
def urgent_byte_in_disorder(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield from path.opening()
    spot = at + size // 2
    sent = s.urgent_byte(data, spot)
    yield path.data(spot + 1, sent[spot + 1:])
    yield path.data(0, sent[:spot + 1], s.ACK | s.PSH | s.URG, urgent=spot + 1)


@strategy
def urgent_byte_by_a_pointer_of_zero(path: Path, data: bytes, at: int, size: int) -> Packets:
    # Linux takes zero for one.
    yield from path.opening()
    spot = at + size // 2
    yield path.data(0, data[:spot])
    yield path.data(spot, b"!", s.ACK | s.PSH | s.URG, urgent=0)
    yield path.data(spot + 1, data[spot:])


@strategy
def urgent_byte_announced(path: Path, data: bytes, at: int, size: int) -> Packets:
    # By a segment before it, and by one without data.
    yield from path.opening()
    spot = at + size // 2
    sent = s.urgent_byte(data, spot)
    yield path.data(0, sent[:at - 2], s.ACK | s.PSH | s.URG, urgent=spot + 1)
    yield path.bare(s.ACK | s.URG, at - 2, urgent=spot + 1 - at + 2)
    yield path.data(at - 2, sent[at - 2:spot])
    yield path.data(spot, sent[spot:])


@strategy
def urgent_byte_announced_late(path: Path, data: bytes, at: int, size: int) -> Packets:
    # The pointer comes by itself, in front of the last piece.
    yield from path.opening()
    spot = at + size // 2
    sent = s.urgent_byte(data, spot)
    yield path.data(spot + 1, sent[spot + 1:])
    yield path.data(at, sent[at:spot + 1])
    yield path.bare(s.ACK | s.URG, 0, urgent=spot + 1)
    yield path.data(0, sent[:at])


@strategy
def urgent_byte_that_counts(path: Path, data: bytes, at: int, size: int) -> Packets:
    # A server with SO_OOBINLINE reads it in its place.
    yield from path.opening()
    spot = at + size // 2
    yield path.data(0, data[:spot + 1], s.ACK | s.PSH | s.URG, urgent=spot + 1)
    yield path.data(spot + 1, data[spot + 1:])


# ---- flows that were there before us


def seen_midway(path: Path, data: bytes, at: int, size: int) -> Packets:
    for offset, piece in cuts(data, at, size):
        yield path.data(offset, piece)


def seen_midway_whole(path: Path, data: bytes, at: int, size: int) -> Packets:
    yield path.data(0, data)


def seen_midway_in_disorder(path: Path, data: bytes, at: int, size: int) -> Packets:
    for offset, piece in reversed(cuts(data, at, size)):
        yield path.data(offset, piece)


MIDWAY = {function.__name__: function for function in (seen_midway, seen_midway_whole, seen_midway_in_disorder)}


# ---- headers around TCP


def with_headers(packet: bytes, six: bool, which: str) -> bytes:
    """The packet with IPv4 options or IPv6 extension headers put in."""
    if not six:
        head = packet[:20]
        size = 20 + 8
        options = {"options": b"\x07\x07\x04" + bytes(5), "nops": b"\1" * 8}[which]
        head = (bytes([0x40 | size // 4]) + head[1:2] + (len(packet) + 8).to_bytes(2, "big") + head[4:10] + b"\0\0"
                + head[12:20] + options)
        head = head[:10] + s.ones_complement(head).to_bytes(2, "big") + head[12:]
        return head + packet[20:]
    chain = {"hopbyhop": [0], "destopt": [60], "routing": [43], "atomic": [44], "chain": [0, 60, 43, 44, 60]}[which]
    kinds = [*chain[1:], 6]
    extra = b"".join(bytes([kind, 0]) + (b"\1\4\0\0\0\0" if header in (0, 60) else bytes(6))
                     for header, kind in zip(chain, kinds, strict=False))
    return (packet[:4] + (len(packet) - 40 + len(extra)).to_bytes(2, "big") + bytes([chain[0]]) + packet[7:40]
            + extra + packet[40:])
