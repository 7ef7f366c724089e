"""Seeds: (name, bytes) for each game, made from the samples and from a folder of captures where there is one."""

import hashlib
import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path

from edgeblock.disguises.streams import Path as Stream
from edgeblock.disguises.table import DISGUISES, Ask
from tests.core import samples as s
from tests.core.protocols import READERS

NAMES = (b"blocked.example.com", b"www.innocent.example")


def messages() -> Iterator[bytes]:
    for name in NAMES:
        message = s.hello_message(name)
        yield s.record(message)
        yield s.records(message, 1, 4, 90)
        yield s.record(b"") + s.record(b"\1\0", 21) + s.hello(b"a", name, before=s.ECH)
        yield s.request(name)
        yield s.request(b"first.example", b"/a?b", b"POST", b"body") + s.chunked(name, b"abc") + s.request(name)
        yield b"\r\nGET  http://" + name + b"/ HTTP/1.0\nHost :\n\t" + name + b"\nHost: b\n\n"
        yield s.request(name + b":443", name + b":443", b"CONNECT") + s.hello(name)
        yield s.H2_PREFACE + s.h2_frame(4, 0, 0, b"") + s.h2_request(name)
        yield s.H2_PREFACE[18:] + s.h2_frame(1, 0x2C, 1, b"\2\0\0\0\1\xff" + s.h2_literals((b":method", b"GET"))
                                             + b"\0\0") + s.h2_request(name)


def captured() -> Iterator[list[bytes]]:
    folder = os.environ.get("EDGEBLOCK_EVASION", "")
    for path in sorted(Path(folder).glob("*.pcap")) if folder else ():
        from edgeblock.source.capture import Capture
        with Capture(path) as capture:
            yield [record.packet for record in capture if record.packet][:40]


def packed(packets: list[bytes]) -> bytes:
    return b"".join(b"\1" + struct.pack("!H", len(packet)) + packet for packet in packets)


def disguised() -> Iterator[list[bytes]]:
    """Every row of the table, for a listed name."""
    for number, disguise in enumerate(DISGUISES):
        made = disguise.make(Ask(NAMES[0]), Stream(number % 2 == 1), random.Random(number))
        yield [packet[1] if isinstance(packet, tuple) else packet for packet in made][:80]


def queue_messages() -> Iterator[bytes]:
    """As the kernel writes them: header, attributes of packet, mark, checksum state and payload; several in a row."""
    def attribute(kind: int, value: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)

    def message(*attributes: bytes) -> bytes:
        body = b"\2\0\0\7" + b"".join(attributes)
        return struct.pack("=IHHII", 16 + len(body), 3 << 8, 0, 0, 0) + body

    for payload in (b"", b"E" * 39, bytes(1400)):
        one = message(attribute(1, struct.pack("!IHB", 9, 0x0800, 1)), attribute(3, b"\0\0\0\1"),
                      attribute(14, struct.pack("!I", 1)), attribute(13, struct.pack("!I", 1500)),
                      attribute(10, payload))
        yield one
        yield one + message() + one[:-3]


def raw(datagram: bytes) -> bytes:
    return b"\x07" + struct.pack("!H", len(datagram)) + datagram       # MOVE_OTHER


def plays_of_initials() -> Iterator[bytes]:
    """Moves as initials.pyx reads them: the hello whole, in pieces, over packets, connections and datagrams."""
    def true(at: int, size: int, what: int = 0, how: int = 0) -> bytes:
        return bytes([what << 3, *at.to_bytes(2, "big"), size - 1, how])

    def fake(at: int, size: int, what: int = 3) -> bytes:
        return bytes([1 | what << 3, *at.to_bytes(2, "big"), size - 1, 0]) + b"\x05X" * 2

    def odd(which: int) -> bytes:
        return bytes([3 | which << 3])

    def seal(how: int = 0, more: int = 4) -> bytes:
        return bytes([4 | 1 << 3, how, more])

    send = b"\x05"
    for head in (b"\0\x10", b"\1\x40", b"\2\x05", b"\3\xff"):
        for keys in (0, 1, 2, 3, 5, 6, 9, 0x40):
            foreign = keys | 0x80
            yield head + true(0, 250, 7) + seal(keys) + send
            yield head + true(60, 250) + true(0, 60) + seal(keys) + true(300, 250) + seal(foreign, 0x85) + send
            yield head + true(0, 70) + seal(keys) + send + true(70, 250, 7, 0x15) + seal(foreign) + send
            yield head + fake(0, 90) + true(0, 90) + seal(keys) + true(60, 200) + seal(keys, 8) + send
            yield (head + true(90, 90) + seal(keys) + b"\x06" + bytes([keys, 5, 0, 30]) + true(0, 90) + seal(keys)
                   + send)
            yield (head + true(0, 40) + seal(keys) + send + seal((keys + 3) % 12 | 0x80) + true(40, 200) + seal()
                   + send)
    for which in range(16):
        head, clock, frames = bytes([which & 1, 0x10]), b"\x0f\xff", b"\x02\x0a" + bytes(range(which, which + 10))
        yield head + true(0, 50) + odd(which) + true(50, 200) + seal() + send + true(100, 150) + seal(0, 8) + send
        yield head + odd(which) * 3 + seal(which) + clock + odd(15 - which) + seal(which, which << 3) + send
        yield head + frames + seal() + clock + true(0, 200, 7) + seal() + send


def of(game: str) -> Iterator[tuple[str, bytes]]:
    made: list[bytes] = []
    if game in READERS:
        made += messages()
        made += [sample(name) for sample in READERS[game].samples.values() for name in NAMES]
        made += [units(400) for units in READERS[game].units.values()]
        for packets in captured():
            made += [packet[40:] for packet in packets if len(packet) > 100][:3]
    elif game == "packets":
        for message in messages():
            half = len(message) // 2
            later, sooner = s.tcp(1000 + half, message[half:]), s.tcp(1000, message[:half])
            made.append(packed([s.tcp(999, b"", s.SYN), later, sooner]))
            made.append(packed([s.tcp6(999, b"", s.SYN), s.tcp6(1000, message, urgent=9, flags=s.ACK | s.URG)]))
        made += [packed(packets) for packets in (*captured(), *disguised())]
    elif game == "netlink":
        made += queue_messages()
    elif game in ("answers", "defragment", "answered", "marking"):
        made += [bytes([how]) + hashlib.shake_128(bytes([how])).digest(400) for how in range(256)]
    elif game in ("initials", "hide-quic"):
        made += plays_of_initials()
        for packets in captured():
            made += [b"\0\0" + raw(packet[28:]) for packet in packets if packet[9:10] == b"\x11"][:2]
    else:
        for stream in range(32):
            for how in (0, 1, 2, 8, 16, 24):
                ops = b"".join(bytes([op, 0, at, 40, 3, 5]) for op in range(0, 256, 17) for at in (0, 30))
                made.append(bytes([stream, how, 40]) + ops[:6 * (stream + 1)])
    for data in made:
        yield hashlib.sha1(data).hexdigest(), data
