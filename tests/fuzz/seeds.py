"""Seeds: (name, bytes) for each game, made from the samples and from a folder of captures where there is one."""

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from tests.core import samples as s

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


def of(game: str) -> Iterator[tuple[str, bytes]]:
    made: list[bytes] = []
    if game in ("tls", "http", "http2"):
        made += messages()
        for packets in captured():
            made += [packet[40:] for packet in packets if len(packet) > 100][:3]
    elif game == "packets":
        for message in messages():
            half = len(message) // 2
            later, sooner = s.tcp(1000 + half, message[half:]), s.tcp(1000, message[:half])
            made.append(packed([s.tcp(999, b"", s.SYN), later, sooner]))
            made.append(packed([s.tcp6(999, b"", s.SYN), s.tcp6(1000, message, urgent=9, flags=s.ACK | s.URG)]))
        made += [packed(packets) for packets in captured()]
    else:
        for stream in range(19):
            for how in (0, 1, 2, 8, 16, 24):
                ops = b"".join(bytes([op, 0, at, 40, 3, 5]) for op in range(0, 256, 17) for at in (0, 30))
                made.append(bytes([stream, how, 40]) + ops[:6 * (stream + 1)])
    for data in made:
        yield hashlib.sha1(data).hexdigest(), data
