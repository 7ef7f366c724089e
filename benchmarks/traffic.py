"""Packets for the benchmarks, made up from fixed seeds: client side only, checksums right, nothing listed.

In: how many flows. Out: IP packets as bytes, in the order in which they would be seen, and the make-up in words.
Never: a packet from a real network, or one that differs from run to run.
"""

import contextlib
import random
import ssl
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from quic import first_initial
from quic import initials as initials_of

from edgeblock.core.engine import Engine
from edgeblock.disguises import packets as wire

# Percent of flows by what the client sends, and how many of all flows are IPv6.
MIX = {"tls": 45, "tls, two segments": 15, "tls, hello split in three": 3, "quic": 15, "http": 12, "other tcp": 5,
       "other udp": 5}
IPV6 = 25
MSS = 1400
ACTIVE = 500            # flows whose packets are interleaved at any time
SYN, ACK, PUSH, FIN = 2, 16, 8, 1
CHECKSUM_VERIFY, CHECKSUM_TRUST = 0, 1      # core/engine.pxd


@cache
def client_hello(name: str, padding: int = 0) -> bytes:
    """A ClientHello as OpenSSL sends it; `padding` bytes of ALPN make it as long as a post-quantum one."""
    context = ssl.create_default_context()
    if padding:
        context.set_alpn_protocols(["x" * 200 for _ in range(padding // 201)])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    side = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        side.do_handshake()
    return outgoing.read()


def browser_hello(name: str) -> bytes:
    """A ClientHello as browsers send it since they share keys for after quantum computers: 1.9 kB, two segments.

    Chrome's extensions, the name behind the key share and so in the second segment (browsers
    shuffle them, so it may be in either).
    """
    def shares(*each: tuple[int, int]) -> bytes:
        return vector(2, b"".join(numbers(group) + vector(2, noise(size)) for group, size in each))

    def numbers(*each: int) -> bytes:
        return struct.pack(f"!{len(each)}H", *each)

    def noise(size: int) -> bytes:
        return random.Random(size).randbytes(size)

    vector, extension = wire.vector, wire.extension
    extensions = (
        extension(0x4A4A), extension(23), extension(0xFF01, b"\0"), extension(35), extension(18),
        extension(10, vector(2, numbers(0x2A2A, 4588, 29, 23, 24))), extension(11, b"\1\0"),
        extension(13, vector(2, numbers(0x403, 0x804, 0x401, 0x503, 0x805, 0x501, 0x806, 0x601))),
        extension(51, shares((0x2A2A, 1), (4588, 1216), (29, 32))),
        extension(5, b"\1\0\0\0\0"), extension(27, b"\2\0\2"), extension(17613, b"\0\3\2h2"),
        # ECH without meaning it: kind outer, HKDF-SHA256 and AES-128-GCM, an id, a key and a payload of noise.
        extension(0xFE0D, b"\0\0\1\0\1\x5c" + vector(2, noise(32)) + vector(2, noise(320))),
        wire.sni(name.encode()), extension(16, vector(2, b"\2h2\x08http/1.1")), extension(45, b"\1\1"),
        extension(43, b"\6\x3a\x3a\3\4\3\3"), extension(0x1A1A, b"\0"))
    return wire.record(wire.handshake(wire.hello_body(*extensions, ciphers=16)))


def browser_initials(name: str, connection: int, post_quantum: bool) -> list[bytes]:
    """The Initials of a QUIC connection: one, or two with a ClientHello of 1.9 kB."""
    hello = browser_hello(name)[5:] if post_quantum else wire.hello_message(
        name.encode(), before=wire.key_share(32), behind=wire.extension(16, b"\0\3\2h3"))
    return initials_of(connection, hello)


def request(name: str, path: str) -> bytes:
    """A request as Chrome sends it for a page that it has been to before."""
    fields = ("Connection: keep-alive", "Cache-Control: max-age=0", "Upgrade-Insecure-Requests: 1",
              "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
              "Chrome/143.0.0.0 Safari/537.36",
              "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;"
              "q=0.8,application/signed-exchange;v=b3;q=0.7", f"Referer: http://{name}/",
              "Accept-Encoding: gzip, deflate", "Accept-Language: en-GB,en;q=0.9,de;q=0.8",
              "Cookie: session=5d41402abc4b2a76b9719d911017c592; consent=all; theme=light")
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {name}", *fields, "", ""]).encode()


def checksum(data: bytes) -> int:
    # The sum of 16-bit words in ones' complement is the number they spell, modulo 65535.
    return 0xFFFF - int.from_bytes(data + bytes(len(data) & 1), "big") % 0xFFFF


@dataclass
class Flow:
    """The client of one flow; `index` makes its addresses and ports its own."""

    index: int
    ipv6: bool
    port: int

    def __post_init__(self) -> None:
        if self.ipv6:       # 2001:db8:0:0:xxxx:xxxx::1, which leaves the fourth group to `blast`
            self.source = b"\x20\x01\x0d\xb8\0\0\0\0" + struct.pack(">I", self.index) + b"\0\0\0\1"
            self.target = b"\x20\x01\x0d\xb8\0\xff" + bytes(9) + b"\1"
        else:               # 10.x.hh.ll, which leaves x to it
            self.source = bytes((10, self.index >> 16 & 127, self.index >> 8 & 255, self.index & 255))
            self.target = bytes((198, 51, 100, 1 + self.index % 250))
        self.sport = 1024 + self.index * 31 % 60_000
        self.seq = self.index * 7919 % 2**32

    def tcp(self, flags: int, payload: bytes = b"") -> bytes:
        head = struct.pack(">HHIIBBHHH", self.sport, self.port, self.seq, 0 if flags == SYN else 1, 0x50, flags,
                           64240, 0, 0)
        self.seq = (self.seq + len(payload) + bool(flags & (SYN | FIN))) % 2**32
        sum_ = checksum(self.source + self.target + struct.pack(">HH", 6, len(head) + len(payload)) + head + payload)
        return self.ip(6, head[:16] + struct.pack(">H", sum_) + head[18:] + payload)

    def udp(self, payload: bytes) -> bytes:
        head = struct.pack(">HHHH", self.sport, self.port, 8 + len(payload), 0)
        sum_ = checksum(self.source + self.target + struct.pack(">HH", 17, len(head) + len(payload)) + head + payload)
        return self.ip(17, head[:6] + struct.pack(">H", sum_ or 0xFFFF) + payload)

    def ip(self, protocol: int, body: bytes) -> bytes:
        if self.ipv6:
            return struct.pack(">IHBB", 6 << 28, len(body), protocol, 64) + self.source + self.target + body
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), self.index & 0xFFFF, 0x4000, 64, protocol, 0)
        sum_ = checksum(head + self.source + self.target)
        return head[:10] + struct.pack(">H", sum_) + self.source + self.target + body


def hello_named(number: int) -> bytes:
    """A ClientHello for a host of its own (the number has its place in the name)."""
    return client_hello("host00000000.example").replace(b"host00000000", b"host%08d" % number)


def packets_of(index: int, kind: str, ipv6: bool) -> list[bytes]:
    """What the client sends, from first to last."""
    if kind == "quic":
        flow = Flow(index, ipv6, 443)
        short = bytes((0x40,)) + bytes(range(60))
        return [flow.udp(first_initial(index)), *(flow.udp(short) for _ in range(6))]
    if kind == "other udp":
        flow = Flow(index, ipv6, 53)
        return [flow.udp(bytes(40))]
    flow = Flow(index, ipv6, 80 if kind == "http" else 443)
    packets = [flow.tcp(SYN), flow.tcp(ACK)]
    if kind == "http":
        for page in range(2):
            packets += [flow.tcp(ACK | PUSH, request("www.example.com", f"/page{page}?q=1")), flow.tcp(ACK)]
    elif kind == "other tcp":
        packets.append(flow.tcp(ACK | PUSH, b"\x00\x01\x02" * 40))
    else:
        hello = client_hello("www.example.com", 1400) if kind == "tls, two segments" else hello_named(index)
        step = -(-len(hello) // 3) if kind == "tls, hello split in three" else MSS
        packets += [flow.tcp(ACK | PUSH, hello[at:at + step]) for at in range(0, len(hello), step)]
    return [*packets, flow.tcp(ACK), flow.tcp(ACK | PUSH, bytes(range(256))), flow.tcp(ACK | FIN)]


def mixed(flows: int) -> list[bytes]:
    """Packets of so many flows in MIX, interleaved as if ACTIVE of them were open at a time."""
    chance = random.Random(7)
    kinds = chance.choices(list(MIX), weights=list(MIX.values()), k=flows)
    waiting = [packets_of(i, kind, chance.randrange(100) < IPV6) for i, kind in enumerate(kinds)]
    packets: list[bytes] = []
    active: list[list[bytes]] = []
    while waiting or active:
        while waiting and len(active) < ACTIVE:
            active.append(waiting.pop()[::-1])
        at = chance.randrange(len(active))
        packets.append(active[at].pop())
        if not active[at]:
            active[at] = active[-1]
            active.pop()
    return packets


def datagram_packet(datagram: bytes, index: int = 0) -> bytes:
    return Flow(index, False, 443).udp(datagram)


def hellos(count: int) -> list[bytes]:
    """One packet a flow: a whole ClientHello, for a name of its own."""
    return [Flow(index, False, 443).tcp(ACK | PUSH, hello_named(index)) for index in range(count)]


def fill(engine: Engine) -> None:
    """Hellos of other flows than come anywhere else, one a flow, until its table evicts."""
    packets = [bytearray(packet) for packet in hellos(20_000)]
    for turn in range(128, 144):
        for packet in packets:
            packet[13] = turn               # their checksums are wrong now, and not looked at
        engine.judge_all([bytes(packet) for packet in packets], time.monotonic(), CHECKSUM_TRUST)
        if engine.counters()["evicted_settled"]:
            break


def initials(count: int) -> list[bytes]:
    """One datagram a flow: a QUIC Initial that holds a whole ClientHello."""
    return [datagram_packet(first_initial(index), index) for index in range(count)]


def requests(flows: int, each: int) -> list[bytes]:
    """`each` HTTP requests on every one of so many connections, which take turns."""
    clients = [Flow(index, False, 80) for index in range(flows)]
    return [client.tcp(ACK | PUSH, request(f"host{index:08d}.example", f"/page{turn}?q=1"))
            for turn in range(each) for index, client in enumerate(clients)]


def queued(packets: Sequence[bytes]) -> list[bytes]:
    """Those that the kernel rules would queue: a SYN, or anything with payload."""
    def has_payload(packet: bytes) -> bool:
        transport = 40 if packet[0] >> 4 == 6 else 20
        tcp = packet[6 if packet[0] >> 4 == 6 else 9] == 6
        return not tcp or len(packet) > transport + 20 or bool(packet[transport + 13] & SYN)
    return [packet for packet in packets if has_payload(packet)]


def words() -> str:
    """The make-up of `mixed`, for people."""
    shares = ", ".join(f"{share} % {kind}" for kind, share in MIX.items())
    short, long = len(client_hello("host00000000.example")), len(client_hello("www.example.com", 1400))
    return (f"Flows: {shares}; {IPV6} % of them IPv6; {ACTIVE} open at a time; the client's side only, checksums "
            f"right. A TLS flow is SYN, ACK, the ClientHello ({short} bytes, or {long} in two segments), ACK, 256 "
            "bytes of data, FIN; an HTTP flow has two requests; a QUIC flow is one Initial of 1250 bytes with the "
            "whole ClientHello and six short packets.")
