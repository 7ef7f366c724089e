"""The bytes of the daemon's own probes: what a client says, what a server answers, and IP packets around them.

In: a name, addresses, ports, sequence numbers. Out: bytes. Never here: a socket, a clock, or a decision.
"""

import socket
import struct
from typing import NamedTuple

from edgeblock.enforce.quic_close import client_initial
from edgeblock.wire import TCP, UDP, checksum, find_transport, pseudo_sum, sum16

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
WINDOW = 64240
TTL = 64
QUIC_SIZE = 1200                        # RFC 9000, 14.1
ANSWER_SIZE = 320                       # more than from which on the kernel rules take it for an answer

HTTP_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n" + b"." * 300
TLS_ANSWER = struct.pack(">BHHB", 22, 0x0303, ANSWER_SIZE, 2) + bytes(ANSWER_SIZE - 1)
QUIC_ANSWER = bytes([0x40]) + bytes(ANSWER_SIZE)
ANSWERS = {"http": HTTP_ANSWER, "tls": TLS_ANSWER, "quic": QUIC_ANSWER}


class Segment(NamedTuple):
    """What a probe has to know of a packet that has come out of the box."""

    source: int             # ports
    target: int
    flags: int              # 0 of UDP
    sequence: int
    payload: bytes


def question(protocol: str, name: str) -> bytes:
    """What a client says first, for TCP as one message; of QUIC the TLS message in it."""
    if protocol == "http":
        return f"GET / HTTP/1.1\r\nHost: {name}\r\nUser-Agent: canary\r\nAccept: */*\r\n\r\n".encode()
    hello = client_hello(name, protocol == "quic")
    return hello if protocol == "quic" else struct.pack(">BHH", 22, 0x0301, len(hello)) + hello


def payloads(protocol: str, name: str, pieces: bool, connection_id: bytes = bytes(8)) -> list[bytes]:
    """The payloads of the packets in which that goes, cut through the name where it goes in pieces.

    `connection_id` is a QUIC client's, which the engine takes from few addresses and ports only.
    """
    said = question(protocol, name)
    cut = said.index(name.encode()) + len(name) // 2
    parts = [said[:cut], said[cut:]] if pieces else [said]
    if protocol != "quic":
        return parts
    datagrams, at = [], 0
    for number, part in enumerate(parts):
        frame = b"\x06" + struct.pack(">HH", 0x4000 | at, 0x4000 | len(part)) + part     # CRYPTO: RFC 9000, 19.6
        datagrams.append(client_initial(connection_id, number, frame, QUIC_SIZE))
        at += len(part)
    return datagrams


def client_hello(name: str, quic: bool) -> bytes:
    """A ClientHello (RFC 8446, 4.1.2) as a plain client sends it."""
    host = name.encode()
    extensions = extension(0, struct.pack(">HBH", len(host) + 3, 0, len(host)) + host)
    extensions += extension(10, struct.pack(">HHH", 4, 29, 23))                 # groups
    extensions += extension(13, struct.pack(">HHHH", 6, 0x0403, 0x0804, 0x0401))
    versions = (0x0304,) if quic else (0x0304, 0x0303)
    extensions += extension(43, struct.pack(f">B{len(versions)}H", 2 * len(versions), *versions))
    extensions += extension(51, struct.pack(">HHH", 36, 29, 32) + bytes(range(32)))
    if quic:
        extensions += extension(57, bytes([4, 4]) + struct.pack(">I", 0x80010000))      # initial_max_data
    body = struct.pack(">H", 0x0303) + bytes(range(32)) + b"\x00" + struct.pack(">HHHH", 6, 0x1301, 0x1302, 0x1303)
    body += b"\x01\x00" + struct.pack(">H", len(extensions)) + extensions
    return b"\x01" + len(body).to_bytes(3, "big") + body


def extension(kind: int, body: bytes) -> bytes:
    return struct.pack(">HH", kind, len(body)) + body


class Path:
    """From one address to another: what their packets have in common."""

    def __init__(self, source: str, target: str) -> None:
        self.family = 6 if ":" in source else 4
        kind = socket.AF_INET6 if self.family == 6 else socket.AF_INET
        self.source, self.target = socket.inet_pton(kind, source), socket.inet_pton(kind, target)
        self._sums = {proto: pseudo_sum(self.source, self.target, proto, 0) for proto in (TCP, UDP)}

    def tcp(self, source: int, target: int, flags: int, sequence: int, acknowledged: int,
            payload: bytes = b"") -> bytes:
        """A TCP segment in an IP packet."""
        head = struct.pack(">HHIIBBHHH", source, target, sequence & 0xFFFFFFFF, acknowledged & 0xFFFFFFFF, 0x50,
                           flags, WINDOW, 0, 0)
        total = self._sums[TCP] + sum16(head) + sum16(payload) + len(head) + len(payload)
        return self._packet(TCP, head[:16] + checksum(total).to_bytes(2, "big") + head[18:] + payload)

    def udp(self, source: int, target: int, payload: bytes) -> bytes:
        """A UDP datagram in an IP packet."""
        head = struct.pack(">HHHH", source, target, 8 + len(payload), 0)
        total = self._sums[UDP] + sum16(head) + sum16(payload) + 8 + len(payload)
        return self._packet(UDP, head[:6] + (checksum(total) or 0xFFFF).to_bytes(2, "big") + payload)

    def _packet(self, proto: int, content: bytes) -> bytes:
        if self.family == 6:
            return struct.pack(">IHBB", 0x60000000, len(content), proto, TTL) + self.source + self.target + content
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(content), 0, 0x4000, TTL, proto, 0)
        total = sum16(head) + sum16(self.source) + sum16(self.target)
        return head[:10] + checksum(total).to_bytes(2, "big") + self.source + self.target + content


def read(packet: bytes) -> Segment | None:
    """What of a packet matters here; None where it is neither TCP nor UDP, or not whole."""
    found = find_transport(packet)
    if found is None or found.fragment or found.end - found.at < 8:
        return None
    source, target = struct.unpack_from(">HH", packet, found.at)
    if found.proto == UDP:
        return Segment(source, target, 0, 0, packet[found.at + 8:found.end])
    if found.proto != TCP or found.end - found.at < 20:
        return None
    sequence, offset, flags = struct.unpack_from(">IxxxxBB", packet, found.at + 4)
    return Segment(source, target, flags, sequence, packet[found.at + (offset >> 4) * 4:found.end])
