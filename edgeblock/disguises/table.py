"""Every disguise as one row: what a client asks for in, the packets that it sends out.

In: a host and what it is asked for, a path that makes packets, a source of chance. Out: packets, or none where a
disguise does not fit what is asked for. The rows are the messages of messages.py sent plainly and in some ways, plain
messages sent in every way of streams.py, and QUIC's. Never here: the engine, or a decision.
"""

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from edgeblock.disguises import packets as s
from edgeblock.disguises.messages import BEFORE, FULL_HEADERS, HEADS, HELLOS, RECORDS, head, prior_knowledge
from edgeblock.disguises.streams import MIDWAY, STRATEGIES, Packets, Path
from edgeblock.enforce.quic_close import client_initial

WAYS = ("whole", "in_pieces", "disorder", "fake_ttl")       # in which the odd messages are sent
EACH_BYTE = ("byte_by_byte", "byte_by_byte_backwards", "each_byte_twice")
EACH_BYTE_MAX = 600     # bytes of a message that is sent so: a packet for each
MESSAGE_MAX = 16_000    # bytes of any: two copies of it are far below what a flow may have
# More readings than are kept: the policy on conflicts decides, of an innocent name as well.
OVERFLOWING = ("each_byte_twice", "many_syns")
V2, DRAFT = 0x6B3343CF, 0xFF00001D
SIZE = 1200             # bytes of a client's first datagram: RFC 9000, 14.1


class Ask(NamedTuple):
    """What a client asks for; with `page` nothing else of the host may be asked for instead."""

    host: bytes
    target: bytes = b"/"
    page: bool = False


class Disguise(NamedTuple):
    """One row. `proto` is "tls", "http" or "quic", "ip" in ADDRESSES; with `overflows` a policy decides, not what is
    listed."""

    name: str
    proto: str
    make: Callable[[Ask, Path, random.Random], Packets]
    overflows: bool = False


def is_name(host: bytes) -> bool:
    """Not an address, which has no final dot and no case."""
    return not host.endswith(b"]") and not host[-1:].isdigit()


# ---- over TCP


def sent(way: str, message: Callable[[Ask], bytes], ask: Ask, path: Path, _: random.Random) -> Packets:
    """The message, sent that way; nothing where there is none, or it is too long for it."""
    data = message(ask)
    if 0 < len(data) <= (EACH_BYTE_MAX if way in EACH_BYTE else MESSAGE_MAX):
        at, size = data.lower().rfind(ask.host), len(ask.host)
        if at < 0:                              # cut by the headers of records
            at, size = len(data) // 2, min(16, len(data) // 4)
        yield from (STRATEGIES | MIDWAY)[way](path, data, at, size)


def plain_hello(ask: Ask) -> bytes:
    return s.hello(ask.host)


def plain_request(ask: Ask) -> bytes:
    return s.request(ask.host, ask.target, b"GET", b"", *FULL_HEADERS)


def hello_like(shape: str, ask: Ask) -> bytes:
    return HELLOS[shape](ask.host) if is_name(ask.host) or shape == "hello" else b""


def in_records(shape: str, ask: Ask) -> bytes:
    return RECORDS[shape](s.hello_message(ask.host))


def head_like(shape: str, ask: Ask) -> bytes:
    if ask.page and b"TARGET" not in HEADS[shape] or not is_name(ask.host) and b"NAME." in HEADS[shape]:
        return b""
    return head(shape, ask.host, ask.target)


def behind(shape: str, ask: Ask) -> bytes:
    return BEFORE[shape] + plain_request(ask)


def second_in_http2(ask: Ask) -> bytes:
    # Longer ones have another form.
    return prior_knowledge(ask.host, ask.target) if max(len(ask.host), len(ask.target)) < 127 else b""


def over_tcp() -> Iterator[Disguise]:
    for proto, plain in (("tls", plain_hello), ("http", plain_request)):
        for way in STRATEGIES | MIDWAY:
            yield Disguise(f"{proto} {way}", proto, partial(sent, way, plain), way in OVERFLOWING)
    shapes: list[tuple[str, str, Callable[[Ask], bytes]]] = [
        *(("tls", shape, partial(hello_like, shape)) for shape in HELLOS if shape != "hello"),
        *(("tls", shape, partial(in_records, shape)) for shape in RECORDS),
        *(("http", shape, partial(head_like, shape)) for shape in HEADS),
        *(("http", f"behind {shape}", partial(behind, shape)) for shape in BEFORE),
        ("http", "prior knowledge", second_in_http2)]
    for proto, shape, message in shapes:
        for way in WAYS:
            yield Disguise(f"{proto} {shape}, {way}", proto, partial(sent, way, message))


# ---- over QUIC


def frame(at: int, data: bytes) -> bytes:
    """A CRYPTO frame: RFC 9000, 19.6."""
    return b"\x06" + (0x4000 | at).to_bytes(2, "big") + (0x4000 | len(data)).to_bytes(2, "big") + data


def pieces(message: bytes, *cuts: int) -> list[bytes]:
    """The message as frames, cut there."""
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(message)}), len(message)]
    return [frame(a, message[a:b]) for a, b in zip(edges, edges[1:], strict=False)]


def datagrams(connection: bytes, *groups: bytes, version: int = 1) -> list[bytes]:
    """An Initial for each group of frames."""
    return [client_initial(connection, number, frames, max(SIZE, len(frames) + 64), version)
            for number, frames in enumerate(groups)]


Shape = Callable[[bytes, int, bytes, random.Random], list[bytes]]      # message, middle of its name, connection id


def shuffled(message: bytes, middle: int, connection: bytes, chance: random.Random) -> list[bytes]:
    made = pieces(message, middle, *chance.sample(range(1, len(message)), 12))
    chance.shuffle(made)
    half = len(made) // 2
    return datagrams(connection, b"\x01".join(made[:half]) + bytes(9), b"\x01\x00".join(made[half:]))


def conflicting(message: bytes, middle: int, connection: bytes, _: random.Random) -> list[bytes]:
    return datagrams(connection, frame(middle, bytes(9)), b"".join(pieces(message)))


def decoyed(message: bytes, middle: int, connection: bytes, _: random.Random) -> list[bytes]:
    other = s.hello_message(b"other.example")
    decoys = [datagrams(bytes([i]) + connection[1:], frame(0, other))[0] for i in range(6)]
    return decoys[:3] + datagrams(connection, *pieces(message, middle)) + decoys[3:]


QUIC: dict[str, Shape] = {
    "whole": lambda m, at, c, _: datagrams(c, frame(0, m)),
    "version 2": lambda m, at, c, _: datagrams(c, frame(0, m), version=V2),
    "draft 29": lambda m, at, c, _: datagrams(c, frame(0, m), version=DRAFT),
    "version 2, in pieces": lambda m, at, c, _: datagrams(c, *pieces(m, at), version=V2),
    "in pieces": lambda m, at, c, _: datagrams(c, *pieces(m, at)),
    "last piece first": lambda m, at, c, _: datagrams(c, *pieces(m, at))[::-1],
    "frames backwards": lambda m, at, c, _: datagrams(c, b"".join(pieces(m, at - 3, at, at + 2, 60)[::-1])),
    "shuffled": shuffled,
    "one byte a frame": lambda m, at, c, _: datagrams(c, b"".join(pieces(m, *range(len(m))))),
    "overlapping": lambda m, at, c, _: datagrams(c, frame(0, m[:at + 2]) + frame(at - 20, m[at - 20:])),
    "conflicting": conflicting,
    "coalesced": lambda m, at, c, _: [b"".join(datagrams(c, *pieces(m, at)))],
    "among decoys": decoyed,
    "behind junk": lambda m, at, c, chance: [chance.randbytes(40) for _ in range(3)] + datagrams(c, frame(0, m)),
    "behind a greased version": lambda m, at, c, _: [b"\xc0\x1a\x2a\x3a\x4a\x08" + c + bytes(SIZE - 14),
                                                     *datagrams(c, frame(0, m))],
    "trailing bytes": lambda m, at, c, _: [one + b"\x2a" * 25 for one in datagrams(c, frame(0, m))],
    "connection id of 20": lambda m, at, c, _: datagrams(c.ljust(20, b"i"), *pieces(m, at)),
}


def over_quic(shape: str, ask: Ask, path: Path, chance: random.Random) -> Packets:
    message = s.hello_message(ask.host)
    middle = message.index(ask.host) + len(ask.host) // 2
    for payload in QUIC[shape](message, middle, chance.randbytes(8), chance):
        yield path.datagram(payload)


# ---- an address: what is asked for is the path's destination


def first_packet(ask: Ask, path: Path, _: random.Random) -> Packets:
    yield from path.opening()


def amid_a_stream(ask: Ask, path: Path, _: random.Random) -> Packets:
    yield path.data(0, b"\x17\x03\x03\x00\x20" + bytes(32))


def any_datagram(ask: Ask, path: Path, chance: random.Random) -> Packets:
    yield path.datagram(chance.randbytes(40))


def hello_in_a_datagram(ask: Ask, path: Path, chance: random.Random) -> Packets:
    yield from over_quic("whole", ask, path, chance)


ADDRESSES = tuple(Disguise(f"ip {name}", "ip", make) for name, make in (
    ("first packet", first_packet), ("amid a stream", amid_a_stream), ("datagram", any_datagram),
    ("hello in a datagram", hello_in_a_datagram)))

DISGUISES: tuple[Disguise, ...] = (
    *over_tcp(), *(Disguise(f"quic {shape}", "quic", partial(over_quic, shape)) for shape in QUIC))
