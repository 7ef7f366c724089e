"""Bytes of clients: ClientHellos, requests, and IP packets around them, with any field as it is asked for.

In: names, addresses, sequence numbers. Out: bytes. Nothing here imports the core, so that what it makes cannot agree
with a bug in it. Never here: a clock, a socket, or a decision.
"""

import ipaddress
import struct
from functools import lru_cache
from typing import Any

CLIENT, SERVER = "10.0.0.2", "203.0.113.7"
CLIENT6, SERVER6 = "2001:db8::2", "2001:db8::7"
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32


# ---- TLS


def vector(size: int, data: bytes) -> bytes:
    """`data` behind its length in `size` bytes, big-endian (RFC 8446, 3.4)."""
    return len(data).to_bytes(size, "big") + data


def extension(kind: int, data: bytes = b"") -> bytes:
    return struct.pack("!H", kind) + vector(2, data)


def sni(*names: bytes, kind: int = 0) -> bytes:
    """A server_name extension (RFC 6066, 3)."""
    return extension(0, vector(2, b"".join(bytes([kind]) + vector(2, name) for name in names)))


GREASE = extension(0x0A0A) + extension(0xFAFA, b"\0")
ECH = extension(0xFE0D, b"\0\0\1\0\1\x42" + vector(2, bytes(32)) + vector(2, bytes(144)))


def key_share(size: int) -> bytes:
    """A key share of `size` bytes: X25519MLKEM768's has 1216 (draft-ietf-tls-ecdhe-mlkem)."""
    return extension(51, vector(2, struct.pack("!H", 4588) + vector(2, bytes(i * 7 & 255 for i in range(size)))))


def handshake(body: bytes, kind: int = 1) -> bytes:
    return bytes([kind]) + vector(3, body)


def hello_body(*extensions: bytes, session: bytes = bytes(range(32)), ciphers: int = 3) -> bytes:
    """A ClientHello without its handshake header; with no extension given, without an extension block."""
    block = vector(2, b"".join(extensions)) if extensions else b""
    suites = b"".join(struct.pack("!H", 0x1301 + i) for i in range(ciphers))
    return (b"\x03\x03" + bytes((i * 37 + 11) & 255 for i in range(32)) + vector(1, session) + vector(2, suites)
            + vector(1, b"\0") + block)


def record(data: bytes, kind: int = 22, version: bytes = b"\x03\x01") -> bytes:
    return bytes([kind]) + version + vector(2, data)


def records(message: bytes, *cuts: int, **settings: Any) -> bytes:
    """A handshake message in records cut at the given offsets."""
    edges = [0, *cuts, len(message)]
    return b"".join(record(message[a:b], **settings) for a, b in zip(edges, edges[1:], strict=False))


def hello_message(*names: bytes, before: bytes = b"", behind: bytes = b"", **settings: Any) -> bytes:
    """A handshake message with a name between other extensions."""
    middle = [sni(*names)] if names else []
    return handshake(hello_body(GREASE, before, *middle, extension(43, b"\2\3\4"), behind, **settings))


def hello(*names: bytes, **settings: Any) -> bytes:
    return record(hello_message(*names, **settings))


def sized_hello(name: bytes, size: int, front: bool = True) -> bytes:
    """A hello of `size` bytes of handshake message, in records of at most 16 kB, the padding before or behind."""
    bare = len(hello_message(name, before=extension(16, b"")))
    rest = size - bare
    padding = extension(16, vector(2, bytes(i & 127 for i in range(rest - 2))) if rest >= 2 else bytes(rest))
    message = hello_message(name, before=padding) if front else hello_message(name, behind=padding)
    assert len(message) == size
    return records(message, *range(16384, size, 16384))


def urgent_byte(data: bytes, at: int, byte: bytes = b"X") -> bytes:
    """A byte that a server takes out of band, put in at `at`."""
    return data[:at] + byte + data[at:]


# ---- HTTP


def request(host: bytes, target: bytes = b"/", method: bytes = b"GET", body: bytes = b"", *fields: bytes) -> bytes:
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: " + host, *fields]
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(host: bytes, *chunks: bytes) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    return request(host, b"/", b"POST", b"", b"Transfer-Encoding: chunked") + body


def h2_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """RFC 9113, 4.1."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def h2_literals(*fields: tuple[bytes, bytes]) -> bytes:
    """A header block of literals without indexing and without Huffman code (RFC 7541, 6.2.2)."""
    assert all(len(text) < 127 for field in fields for text in field)
    return b"".join(b"\0" + vector(1, name) + vector(1, value) for name, value in fields)


def h2_request(host: bytes, path: bytes = b"/", stream: int = 1) -> bytes:
    block = h2_literals((b":method", b"GET"), (b":scheme", b"http"), (b":authority", host), (b":path", path))
    return h2_frame(1, 5, stream, block)


# ---- packets


@lru_cache(256)
def address(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def ones_complement(data: bytes) -> int:
    """RFC 1071 by the book."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip_packet(protocol: int, segment: bytes, source: str = CLIENT, destination: str = SERVER, ttl: int = 64,
              options: bytes = b"") -> bytes:
    """IPv4 or IPv6 around `segment`; `options` are IPv4's (padded) or IPv6 extension headers ready made."""
    src, dst = address(source), address(destination)
    if len(src) == 16:
        head = struct.pack("!IHBB", 6 << 28, len(options) + len(segment), protocol, ttl)
        return head + src + dst + options + segment
    options += bytes(-len(options) % 4)
    size = 20 + len(options)
    head = struct.pack("!BBHHHBBH4s4s", 0x40 | size // 4, 0, size + len(segment), 7, 0x4000, ttl, protocol, 0,
                       src, dst) + options
    return head[:10] + struct.pack("!H", ones_complement(head)) + head[12:] + segment


def tcp_segment(seq: int, payload: bytes = b"", flags: int = ACK | PSH, sport: int = 40000, dport: int = 443,
                ack: int = 7000, urgent: int = 0, options: bytes = b"", source: str = CLIENT,
                destination: str = SERVER, checksum: int | None = None) -> bytes:
    options += bytes(-len(options) % 4)
    offset = (20 + len(options)) // 4 << 4
    head = struct.pack("!HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, ack, offset, flags, 64240, 0, urgent) + options
    src, dst = address(source), address(destination)
    size = len(head) + len(payload)
    pseudo = src + dst + (struct.pack("!BBH", 0, 6, size) if len(src) == 4 else struct.pack("!IHBB", size, 0, 0, 6))
    right = ones_complement(pseudo + head + payload)
    return head[:16] + struct.pack("!H", right if checksum is None else checksum ^ right) + head[18:] + payload


def tcp(seq: int, payload: bytes = b"", flags: int = ACK | PSH, *, source: str = CLIENT, destination: str = SERVER,
        ttl: int = 64, ip_options: bytes = b"", next_header: int = 6, **settings: Any) -> bytes:
    """A TCP packet with right checksums; `checksum=1` makes the TCP one wrong."""
    segment = tcp_segment(seq, payload, flags, source=source, destination=destination, **settings)
    return ip_packet(next_header, segment, source, destination, ttl, ip_options)


def tcp6(seq: int, payload: bytes = b"", flags: int = ACK | PSH, **settings: Any) -> bytes:
    return tcp(seq, payload, flags, source=CLIENT6, destination=SERVER6, **settings)


def udp(payload: bytes, source: str = CLIENT, destination: str = SERVER, sport: int = 40000,
        dport: int = 443) -> bytes:
    """A UDP datagram in an IP packet, with right checksums."""
    size = 8 + len(payload)
    head = struct.pack("!HHH", sport, dport, size)
    src, dst = address(source), address(destination)
    pseudo = src + dst + (struct.pack("!HH", 17, size) if len(src) == 4 else struct.pack("!II", size, 17))
    right = ones_complement(pseudo + head + b"\0\0" + payload) or 0xFFFF
    return ip_packet(17, head + struct.pack("!H", right) + payload, source, destination)
