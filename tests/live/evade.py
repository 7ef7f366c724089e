"""Ways to hide a name, each played to a real server: TCP spoken by this file itself, from the lab's client.

In: a lab, a row of the table below and a host. Out: what the server, or whoever answered in its place, sent back.
Never: a packet that the client's kernel made, so every sequence number, flag and checksum is the row's own. The
address used (`lab.RAW_CLIENT`) belongs to no kernel, so no kernel resets the connection.

A row is a function that gets a Play: a flow, the message that has to reach the server (a ClientHello or a request),
an innocent message of the same kind, and where the name stands. It sends the message in its own way. `play` does the
rest: the TLS handshake and the request inside it, or simply reading the answer.
"""

import functools
import itertools
import random
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from edgeblock import lab as laboratory
from edgeblock.disguises.packets import ones_complement
from edgeblock.lab import Lab, page

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
DATA = PSH | ACK
MSS = 1400                     # leaves room for options and extension headers in 1500 bytes
WRAP = 1 << 32
PORTS = itertools.cycle(random.sample(range(20_000, 60_000), 40_000))      # a client's own: none comes again soon
CLOSE_TO = 2                   # a TTL that passes the box and ends at the hop behind it
INNOCENT = "open.example"      # the host of every fake
LISTED_PATH = "/files/listed.html"     # a file that the server has, for rows that disguise the path
LISTED_PAGE = b"The file behind the listed path.\n"
HOP_BY_HOP, FRAGMENT, DESTINATION = 0, 44, 60
MD5 = b"\x13\x12" + bytes(16) + b"\x01\x01"    # RFC 2385; a server without a key drops the segment
LONG_AGO = 600_000             # milliseconds by which a fake's timestamp is too old (PAWS, RFC 7323 section 5)


class Refused(Exception):
    """The connection did not open: the SYN was answered by a reset, or by nothing."""


@dataclass
class Flow:
    """One TCP connection to the lab's server. Offsets count from the first byte of the client's stream."""

    lab: Lab
    port: int
    version: int = 4
    timestamps: bool = False
    isn: int = field(default_factory=lambda: random.randrange(WRAP))
    source: int = field(default_factory=lambda: next(PORTS))
    sent: int = 0                      # end of what really belongs to the stream
    heard: bytearray = field(default_factory=bytearray)
    next: int = 0                      # the server's next sequence number
    acknowledged: int = 0              # what the server has acknowledged
    ending: str = ""                   # "fin" or "rst", once the server's side (or a box in its name) has said so
    cookie: bytes = b""                # a Fast Open cookie the server gave

    def __post_init__(self) -> None:
        protocol = 0x0800 if self.version == 4 else 0x86DD
        family = socket.AF_INET if self.version == 4 else socket.AF_INET6
        self.here = socket.inet_pton(family, laboratory.RAW_CLIENT[self.version])
        self.there = socket.inet_pton(family, laboratory.SERVER[self.version])
        with self.lab.entered("client"):
            self.wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(protocol))
            self.wire.bind(("to-box", protocol))
        self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.box = ("to-box", protocol, 0, 0, box_address(tuple(self.lab.command("box", []))))

    # ---- sending

    def segment(self, offset: int, data: bytes = b"", *, flags: int = DATA, ttl: int = 64, bad_sum: bool = False,
                shift: int = 0, stale_ack: int = 0, options: bytes = b"", age: int = 0, urgent: int = 0,
                reserved: int = 0, copies: int = 1, cut: int = 0, headers: Iterable[int] = ()) -> None:
        """One segment, exactly as told.

        `shift` moves its sequence number, `stale_ack` lowers its acknowledgement, `age` its timestamp; `urgent` is
        the urgent pointer, `reserved` the reserved bits; `cut` sends it as two IP fragments with that many bytes of
        TCP in the first; `headers` are the IPv6 extension headers in front of it.
        """
        if self.timestamps and not flags & SYN:
            options = b"\x01\x01\x08\x0a" + struct.pack("!II", clock() - age & WRAP - 1, self.echo) + options
        elif self.timestamps:
            options += b"\x08\x0a" + struct.pack("!II", clock(), 0) + b"\x01\x01"
        options += b"\x01" * (-len(options) % 4)
        seq = self.isn + (0 if flags & SYN and not flags & ACK else 1) + offset + shift
        tcp = struct.pack("!HHIIBBHHH", self.source, self.port, seq % WRAP,
                          (self.next - stale_ack) % WRAP if flags & ACK else 0,
                          (5 + len(options) // 4) << 4 | reserved, flags, 64240, 0, urgent) + options + data
        total = ones_complement(self.here + self.there + struct.pack("!IHBB", len(tcp), 0, 0, 6) + tcp)
        if bad_sum:
            total ^= 0x5555
        tcp = tcp[:16] + struct.pack("!H", total) + tcp[18:]
        for packet in (self._ip4 if self.version == 4 else self._ip6)(tcp, ttl, cut, tuple(headers)):
            for _ in range(copies):
                self.wire.sendto(packet, self.box)

    def put(self, offset: int, data: bytes, **how) -> None:
        """Bytes that belong to the stream, in as many segments as they need."""
        for at in range(0, len(data), MSS):
            self.segment(offset + at, data[at:at + MSS], **how)
        self.sent = max(self.sent, offset + len(data))

    def send(self, data: bytes, **how) -> None:
        self.put(self.sent, data, **how)

    def _ip4(self, tcp: bytes, ttl: int, cut: int, headers: tuple[int, ...]) -> list[bytes]:
        if headers:
            raise ValueError("extension headers are IPv6's")
        identity = random.randrange(1 << 16)
        pieces = [(0, tcp)] if not cut else [(0, tcp[:cut]), (cut, tcp[cut:])]
        packets = []
        for at, piece in pieces:
            more = 0x2000 if at + len(piece) < len(tcp) else 0
            head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(piece), identity, more | at // 8, ttl, 6, 0)
            head += self.here + self.there
            packets.append(head[:10] + struct.pack("!H", ones_complement(head)) + head[12:] + piece)
        return packets

    def _ip6(self, tcp: bytes, ttl: int, cut: int, headers: tuple[int, ...]) -> list[bytes]:
        identity = struct.pack("!I", random.randrange(WRAP))
        body, following = tcp, 6
        for header in reversed(headers):
            filler = b"\0\0\0" + identity if header == FRAGMENT else b"\0\x01\x04" + bytes(4)
            body, following = bytes([following]) + filler + body, header
        if cut:
            pieces = [bytes([following, 0]) + struct.pack("!H", at | more) + identity + body[at:end]
                      for at, end, more in ((0, cut, 1), (cut, len(body), 0))]
            following = FRAGMENT
        else:
            pieces = [body]
        return [struct.pack("!IHBB", 6 << 28, len(piece), following, ttl) + self.here + self.there + piece
                for piece in pieces]

    # ---- opening

    def open(self, *, data: bytes = b"", options: bytes = b"", silent: bool = False, copies: int = 1) -> None:
        """SYN, SYN+ACK, ACK. `data` and `options` go into the SYN; `silent` leaves the last ACK out."""
        self.segment(0, data, flags=SYN, options=b"\x02\x04" + struct.pack("!H", MSS) + options, copies=copies)
        self.listen(lambda: self.next, 3.0)
        if not self.next:
            raise Refused
        self.sent = self.acknowledged
        if not silent:
            self.segment(self.sent, flags=ACK)

    # ---- hearing

    def listen(self, enough: Callable[[], object], seconds: float) -> None:
        """Takes in what arrives until `enough()`, or the end of the connection, or so many seconds."""
        deadline = time.monotonic() + seconds
        while not enough() and not self.ending and (left := deadline - time.monotonic()) > 0:
            self.wire.settimeout(left)
            try:
                packet, origin = self.wire.recvfrom(65536)
            except TimeoutError:
                return
            if origin[2] != socket.PACKET_OUTGOING:
                self._take(packet)

    def hear(self, seconds: float) -> bytes:
        """The bytes that come next; empty when the connection ends or nothing comes within so many seconds."""
        known = len(self.heard)
        self.listen(lambda: len(self.heard) > known, seconds)
        return bytes(self.heard[known:])

    def _take(self, packet: bytes) -> None:
        if self.version == 4:
            start, protocol = (packet[0] & 15) * 4, packet[9]
            source, target = packet[12:16], packet[16:20]
            packet = packet[:struct.unpack_from("!H", packet, 2)[0]]
        else:
            start, protocol = 40, packet[6]
            source, target = packet[8:24], packet[24:40]
            packet = packet[:40 + struct.unpack_from("!H", packet, 4)[0]]
        if (protocol, source, target) != (6, self.there, self.here):
            return
        ports_seq_ack = struct.unpack_from("!HHIIBB", packet, start)
        source_port, target_port, seq, ack, size, flags = ports_seq_ack
        if (source_port, target_port) != (self.port, self.source):
            return
        options, data = packet[start + 20:start + (size >> 4) * 4], packet[start + (size >> 4) * 4:]
        self._read_options(options)
        if flags & SYN:
            self.next, self.acknowledged = (seq + 1) % WRAP, (ack - self.isn - 1) % WRAP
            return
        if not self.next:
            # Before the SYN is answered only a reset counts that acknowledges it (RFC 9293, section 3.10.7.3).
            if flags & RST and flags & ACK and 0 < (ack - self.isn) % WRAP <= MSS:
                self.ending = "rst"
            return
        # As RFC 5961 has it: a reset counts only with exactly the next sequence number.
        if flags & RST:
            if seq == self.next:
                self.ending = "rst"
            return
        if flags & ACK:
            self.acknowledged = max(self.acknowledged, min(self.sent, (ack - self.isn - 1) % WRAP))
        behind = (self.next - seq) % WRAP
        fresh = data[behind:] if behind <= len(data) else b""
        if behind > len(data) and behind < WRAP // 2 or behind >= WRAP // 2:
            return
        self.heard += fresh
        self.next = (self.next + len(fresh)) % WRAP
        if flags & FIN:
            self.next = (self.next + 1) % WRAP
            self.ending = "fin"
        if fresh or flags & FIN:
            self.segment(self.sent, flags=ACK)

    def _read_options(self, options: bytes) -> None:
        at = 0
        while at + 1 < len(options) and options[at]:
            if options[at] == 1:
                at += 1
                continue
            size = max(2, options[at + 1])
            if options[at] == 8:
                self.echo = struct.unpack_from("!I", options, at + 2)[0]
            elif options[at] == 34:
                self.cookie = options[at + 2:at + size]
            at += size

    def close(self) -> None:
        self.segment(self.sent, flags=RST | ACK)
        self.wire.close()


@functools.lru_cache(maxsize=8)
def box_address(prompt: tuple[str, ...]) -> bytes:
    """The Ethernet address of the box as the client sees it; `prompt` starts a command in the box."""
    line = laboratory.call([*prompt, "ip", "-o", "link", "show", "dev", "to-client"]).stdout
    return bytes.fromhex(line.split("link/ether ")[1].split()[0].replace(":", ""))


def clock() -> int:
    return int(time.monotonic() * 1000) + LONG_AGO * 2 & WRAP - 1


# ---- messages


class Hello:
    """A TLS client without a socket: `first` is its ClientHello; feed it and it goes on."""

    def __init__(self, host: str, *, size: int = 0, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = newest
        if size:
            # Names that no server knows, before the one that it does: a long hello for a reason (RFC 7301).
            context.set_alpn_protocols([f"{number:0>200}" for number in range(size // 201)] + ["http/1.1"])
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=host)
        self.first = self.step(self.tls.do_handshake)[1]

    def step(self, action: Callable[[], object]) -> tuple[object, bytes]:
        """(what the action returned, or None when it needs to hear more; what has to be sent)"""
        try:
            outcome = action()
            outcome = True if outcome is None else outcome
        except ssl.SSLWantReadError:
            outcome = None
        return outcome, self.outgoing.read()


def records(hello: bytes, sizes: Iterable[int], version: bytes = b"\x03\x01") -> bytes:
    """The handshake message in these records, cut into records of these sizes; the last size repeats."""
    body, out, size, sizes = b"", b"", 0, iter(sizes)
    while hello:
        end = 5 + int.from_bytes(hello[3:5], "big")
        body, hello = body + hello[5:end], hello[end:]
    while body:
        size = next(sizes, size)
        out += b"\x16" + version + struct.pack("!H", len(body[:size])) + body[:size]
        body = body[size:]
    return out


def request(host: str, target: str = "/", more: str = "") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n".encode()


# ---- the table


@dataclass
class Play:
    """What a row works with: send `message`, whose name stands at `start`:`end`."""

    flow: Flow
    message: bytes
    fake: bytes
    start: int
    end: int

    @property
    def middle(self) -> int:
        """An offset inside the name."""
        return (self.start + self.end) // 2

    def put(self, start: int, end: int, **how) -> None:
        """Bytes start:end of the message where they belong."""
        self.flow.put(start, self.message[start:end], **how)

    def pieces(self, *cuts: int) -> list[tuple[int, int]]:
        edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(self.message)}), len(self.message)]
        return list(itertools.pairwise(edges))


@dataclass(frozen=True)
class Row:
    """`kind` is "tls" or "http"; `make(host)` builds the message: a Hello, or the bytes of a request; `send(play)`
    sends it; `opens` says that the handshake is the row's own business; `path` that it disguises LISTED_PATH, not
    the host.
    """

    name: str
    kind: str
    send: Callable[[Play], None]
    make: Callable[[str], object]
    version: int = 4
    port: int = 0
    timestamps: bool = False
    opens: bool = False
    path: bool = False


ROWS: list[Row] = []


def plain_hello(host: str) -> Hello:
    return Hello(host)


def plain_request(host: str) -> bytes:
    return request(host)


def whole(p: Play) -> None:
    p.flow.send(p.message)


def row(name: str, *, kinds: Iterable[str] = ("tls", "http"), **settings) -> Callable:
    """Adds a way of sending to the table, for both kinds of message."""
    def add(send: Callable[[Play], None]) -> Callable[[Play], None]:
        for kind in kinds:
            make = plain_hello if kind == "tls" else plain_request
            ROWS.append(Row(f"{kind} {name}", kind, send, make, **settings))
        return send
    return add


def ways(name: str, variants: dict[str, dict], **settings) -> Callable:
    """Adds a way of sending once for each variant, which it gets as keyword arguments."""
    def add(send: Callable[..., None]) -> Callable[..., None]:
        for variant, how in variants.items():
            needs = {"timestamps": True} if "age" in how else {}
            row(f"{name}, {variant}", **settings, **needs)(functools.partial(send, **how))
        return send
    return add


# ways to send what no server will take
FOOLING: dict[str, dict] = {
    "low TTL": {"ttl": CLOSE_TO},
    "bad checksum": {"bad_sum": True},
    "sequence 10000 too low": {"shift": -10000},
    "stale acknowledgement": {"stale_ack": 66000},
    "MD5 option": {"options": MD5},
    "no ACK flag": {"flags": PSH},
    "old timestamp": {"age": LONG_AGO},
}


row("whole")(whole)
row("whole, IPv6", version=6)(whole)
row("whole, other port", kinds=["tls"], port=8443)(whole)
row("whole, other port", kinds=["http"], port=8080)(whole)
row("without PSH")(lambda p: p.flow.send(p.message, flags=ACK))
row("reserved bits set")(lambda p: p.flow.send(p.message, reserved=0b0110))
row("every segment three times")(lambda p: p.flow.send(p.message, copies=3))
row("real data with a low TTL")(lambda p: p.flow.send(p.message, ttl=CLOSE_TO + 1))


@ways("split", {"at 1": {"cuts": [1]}, "at 2": {"cuts": [2]}, "at 5": {"cuts": [5]}, "in the name": {"cuts": []},
                "every 10 bytes": {"cuts": range(10, 2000, 10)}, "every byte": {"cuts": range(1, 2000)}})
def split(p: Play, cuts: Iterable[int]) -> None:
    for start, end in p.pieces(*(cuts or [p.middle])):
        p.put(start, end)


@ways("last piece first", {"at 1": {"cuts": [1]}, "in the name": {"cuts": []},
                           "five pieces": {"cuts": [1, 5, 30, 60]}, "every 10 bytes": {"cuts": range(10, 2000, 10)}})
def disorder(p: Play, cuts: Iterable[int]) -> None:
    for start, end in reversed(p.pieces(*(cuts or [p.middle]))):
        p.put(start, end)


row("split in the name, IPv6", version=6)(functools.partial(split, cuts=[]))
row("last piece first, IPv6", version=6)(functools.partial(disorder, cuts=[]))


@row("three seconds of silence in the name", kinds=["tls"])
def pause(p: Play) -> None:
    p.put(0, p.middle)
    p.flow.listen(lambda: False, 3.0)
    p.put(p.middle, len(p.message))


@ways("starts before the stream with a fake", {"1 byte": {"size": 1}, "336 bytes": {"size": 336}})
def overlap_before(p: Play, size: int) -> None:
    p.flow.put(-size, p.fake.ljust(size, b"\0")[:size] + p.message[:p.middle])
    p.put(p.middle, len(p.message))


@row("second piece first, with a fake under the first")
def overlap_disorder(p: Play) -> None:
    under = p.middle - 1
    p.flow.put(p.middle - under, p.fake[1:1 + under] + p.message[p.middle:])
    p.put(0, p.middle)


@row("retransmitted in other cuts")
def retransmit(p: Play) -> None:
    p.put(0, p.middle)
    p.put(0, p.middle)
    p.put(p.start, len(p.message))
    p.put(0, len(p.message))


@ways("fake first", FOOLING | {
    "sequence half the space away": {"shift": 0x80000000},
    "low TTL and SYN": {"ttl": CLOSE_TO, "flags": SYN | DATA},
    "low TTL and FIN": {"ttl": CLOSE_TO, "flags": FIN | DATA},
    "low TTL and RST": {"ttl": CLOSE_TO, "flags": RST | DATA},
    "low TTL, eleven times": {"ttl": CLOSE_TO, "copies": 11},
})
def fake(p: Play, **how) -> None:
    p.flow.segment(0, p.fake, **how)
    p.flow.send(p.message)


@row("fake of zeros first, low TTL")
def fake_zeros(p: Play) -> None:
    p.flow.segment(0, bytes(4), ttl=CLOSE_TO)
    p.flow.send(p.message)


@row("fake first in three pieces, low TTL")
def fake_pieces(p: Play) -> None:
    for at in range(0, len(p.fake), len(p.fake) // 3):
        p.flow.segment(at, p.fake[at:at + len(p.fake) // 3], ttl=CLOSE_TO)
    p.flow.send(p.message)


@row("fake that claims the real hello as its padding, low TTL", kinds=["tls"])
def fake_swallows(p: Play) -> None:
    more = len(p.message) + 4
    body = bytearray(p.fake + struct.pack("!HH", 21, len(p.message)))
    body[3:5] = struct.pack("!H", int.from_bytes(body[3:5], "big") + more)
    body[6:9] = (int.from_bytes(body[6:9], "big") + more).to_bytes(3, "big")
    at = 5 + 4 + 34                                    # record, message head, version and random
    at += 1 + body[at]                                 # session id
    at += 2 + int.from_bytes(body[at:at + 2], "big")   # cipher suites
    at += 1 + body[at]                                 # compression
    body[at:at + 2] = struct.pack("!H", int.from_bytes(body[at:at + 2], "big") + more)
    p.flow.segment(0, bytes(body), ttl=CLOSE_TO)
    p.flow.send(p.message)


# Linux takes data with a stale acknowledgement once a connection has had data, and resets whatever their timestamp.
AMID = {variant: how for variant, how in FOOLING.items() if variant != "stale acknowledgement"}
RESET = {variant: AMID[variant] for variant in ("low TTL", "bad checksum", "sequence 10000 too low", "MD5 option")}


@ways("split among fakes", AMID)
def faked_split(p: Play, **how) -> None:
    for start, end in p.pieces(p.middle):
        p.flow.segment(start, bytes(end - start), **how)
        p.put(start, end)
        p.flow.segment(start, bytes(end - start), **how)


@ways("last piece first among fakes", AMID)
def faked_disorder(p: Play, **how) -> None:
    for start, end in reversed(p.pieces(p.middle)):
        p.flow.segment(start, p.fake.ljust(end, b"\0")[start:end], **how)
        p.put(start, end)
        p.flow.segment(start, p.fake.ljust(end, b"\0")[start:end], **how)


@ways("only the name faked", AMID)
def faked_name(p: Play, **how) -> None:
    innocent = ("a" * 64 + ".example")[p.start - p.end:].encode()
    p.put(0, p.start)
    p.flow.segment(p.start, innocent, **how)
    p.put(p.start, p.end)
    p.flow.segment(p.start, innocent, **how)
    p.put(p.end, len(p.message))


@ways("forged reset first", RESET)
def reset_first(p: Play, **how) -> None:
    p.flow.segment(0, flags=RST, **how)
    p.flow.segment(0, flags=RST | ACK, **how)
    p.flow.send(p.message)


@ways("forged end first", {"low TTL": {"ttl": CLOSE_TO}, "bad checksum": {"bad_sum": True}})
def fin_first(p: Play, **how) -> None:
    p.flow.segment(0, flags=FIN | ACK, **how)
    p.flow.send(p.message)


@ways("SYN+ACK from the client first", {"low TTL": {"ttl": CLOSE_TO}, "bad checksum": {"bad_sum": True}}, opens=True)
def split_handshake(p: Play, **how) -> None:
    p.flow.segment(0, flags=SYN | ACK, **how)
    p.flow.open()
    p.flow.send(p.message)


@row("second SYN with another sequence number, low TTL")
def second_syn(p: Play) -> None:
    p.flow.segment(0, flags=SYN, shift=100_000, ttl=CLOSE_TO)
    p.flow.send(p.message)


@ways("data in the SYN", {"zeros": {"zeros": True}, "a fake": {"zeros": False}}, opens=True)
def syn_data(p: Play, zeros: bool) -> None:
    p.flow.open(data=bytes(16) if zeros else p.fake)
    p.flow.send(p.message)


@row("Fast Open", opens=True)
def fast_open(p: Play) -> None:
    asking = Flow(p.flow.lab, p.flow.port, p.flow.version)
    asking.open(options=b"\x22\x02\x01\x01")
    asking.close()
    if not asking.cookie:
        raise ValueError("the server gave no Fast Open cookie")
    option = bytes([34, 2 + len(asking.cookie)]) + asking.cookie
    p.flow.open(data=p.message, options=option)
    if p.flow.sent != len(p.message):
        raise ValueError(f"the server took {p.flow.sent} of {len(p.message)} bytes in the SYN")


@row("no ACK between SYN+ACK and data", opens=True)
def no_handshake_ack(p: Play) -> None:
    p.flow.open(silent=True)
    p.flow.send(p.message)


@row("an urgent byte in the name")
def urgent_byte(p: Play) -> None:
    # Linux takes the byte before the urgent pointer out of the stream (RFC 6093 section 3.2 tells the story).
    p.flow.put(0, p.message[:p.middle] + b"!", flags=DATA | URG, urgent=p.middle + 1)
    # nginx reads up to the mark and then waits for something new to come.
    p.flow.listen(lambda: False, 0.05)
    p.flow.send(p.message[p.middle:])


@row("an urgent byte in the name, the pointer zero")
def urgent_zero(p: Play) -> None:
    # Linux takes zero for one: the first byte of the segment leaves the stream.
    p.put(0, p.middle)
    p.flow.send(b"!", flags=DATA | URG, urgent=0)
    p.flow.listen(lambda: False, 0.05)
    p.flow.send(p.message[p.middle:])


@ways("an urgent byte in the name, announced", {"by the segment before": {"early": 3}, "without data": {"early": 0}})
def urgent_ahead(p: Play, early: int) -> None:
    # The pointer may point beyond its segment, and a segment without data may carry it.
    p.put(0, p.middle - 8)
    p.flow.segment(p.flow.sent, p.message[p.middle - 8:p.middle - 8 + early], flags=DATA | URG, urgent=9)
    p.flow.sent += early
    p.flow.send(p.message[p.middle - 8 + early:p.middle] + b"!")
    p.flow.listen(lambda: False, 0.05)
    p.flow.send(p.message[p.middle:])


@ways("two IP fragments", {"8 bytes in the first": {"cut": 8}, "24": {"cut": 24}, "160": {"cut": 160}})
def fragments(p: Play, cut: int) -> None:
    # A request is shorter than a hello: the last 8 bytes make the second fragment at the latest.
    p.flow.send(p.message, cut=min(cut, (20 + len(p.message) - 1) // 8 * 8))


@ways("extension headers", {"hop-by-hop": {"headers": [HOP_BY_HOP]}, "destination": {"headers": [DESTINATION]},
                            "atomic fragment": {"headers": [FRAGMENT]}, "two fragments": {"cut": 32},
                            "hop-by-hop, two fragments": {"headers": [DESTINATION], "cut": 64}}, version=6)
def extended(p: Play, **how) -> None:
    p.flow.send(p.message, **how)


@row("fake behind two hop-by-hop headers", version=6)
def twice_hop_by_hop(p: Play) -> None:
    p.flow.segment(0, p.fake, headers=[HOP_BY_HOP, HOP_BY_HOP])
    p.flow.send(p.message)


# ---- TLS


def hello_row(name: str, shape: Callable[[bytes, int], bytes], send: Callable[[Play], None] = whole,
              make: Callable[[str], object] = plain_hello) -> None:
    """A row whose hello is reshaped: `shape(hello, middle of the name)`."""
    def reshaped(p: Play) -> None:
        p.message = shape(p.message, p.middle)
        send(p)
    ROWS.append(Row(f"tls {name}", "tls", reshaped, make))


def as_is(hello: bytes, middle: int) -> bytes:
    return hello


for _size in (1, 3, 4, 20):
    hello_row(f"first record of {_size}", lambda hello, middle, size=_size: records(hello, [size, 20000]))
hello_row("record ends in the name", lambda hello, middle: records(hello, [middle - 5, 20000]))
hello_row("record ends in the name, last segment first", lambda hello, middle: records(hello, [middle - 5, 20000]),
          functools.partial(disorder, cuts=[60, 100]))
hello_row("records of 16", lambda hello, middle: records(hello, [16]))
hello_row("records of 1", lambda hello, middle: records(hello, [1]))
hello_row("records of 16, record headers cut by segments", lambda hello, middle: records(hello, [16]),
          functools.partial(split, cuts=range(2, 2000, 21)))
hello_row("empty record first", lambda hello, middle: b"\x16\x03\x01\0\0" + hello)
for _version in (b"\x03\x00", b"\x03\x04", b"\x03\xff"):
    hello_row(f"record version {_version.hex()}",
              lambda hello, middle, version=_version: records(hello, [20000], version))
for _size in (2000, 4200, 9000, 40000):
    hello_row(f"hello of {_size} bytes", lambda hello, middle: records(hello, [16384]),
              make=functools.partial(Hello, size=_size))
hello_row("hello of 12000 bytes in records of 1000", lambda hello, middle: records(hello, [1000]),
          make=functools.partial(Hello, size=12000))
hello_row("upper-case name", as_is, make=lambda host: Hello(host.upper()))
hello_row("mixed-case name", as_is, make=lambda host: Hello(host.title()))
hello_row("name with a final dot", as_is, make=lambda host: Hello(host + "."))
hello_row("TLS 1.2", as_is, make=functools.partial(Hello, newest=ssl.TLSVersion.TLSv1_2))


# ---- HTTP


def request_row(name: str, make: Callable[[str], bytes], send: Callable[[Play], None] = whole) -> None:
    ROWS.append(Row(f"http {name}", "http", send, make))


def head(*lines: str, end: str = "\r\n") -> bytes:
    return (end.join(lines) + end * 2).encode()


CLOSE = "Connection: close"
GOES_ON = head("GET /first HTTP/1.1", f"Host: {INNOCENT}")

for _name in ("host:", "hoSt:", "HOST:"):
    request_row(f"'{_name}'", lambda host, name=_name: head("GET / HTTP/1.1", f"{name} {host}", CLOSE))
request_row("no space after 'Host:'", lambda host: head("GET / HTTP/1.1", f"Host:{host}", CLOSE))
request_row("spaces around the name", lambda host: head("GET / HTTP/1.1", f"Host:    {host}   ", CLOSE))
request_row("final dot", lambda host: head("GET / HTTP/1.1", f"Host: {host}.", CLOSE))
request_row("mixed case", lambda host: head("GET / HTTP/1.1", f"Host: {host.title()}", CLOSE))
request_row("port", lambda host: head("GET / HTTP/1.1", f"Host: {host}:80", CLOSE))
request_row("several spaces", lambda host: head("GET   /   HTTP/1.1", f"Host: {host}", CLOSE))
for _blank in ("\n", "\r\n", "\r\n\r\n", "\r\n" * 4):
    request_row(f"{len(_blank)} bytes of blank lines first",
                lambda host, blank=_blank: blank.encode() + request(host))
request_row("bare line feeds", lambda host: head("GET / HTTP/1.1", f"Host: {host}", CLOSE, end="\n"))
for _size in (1000, 14000, 60000):
    request_row(f"{_size} bytes before the Host", lambda host, size=_size: head(
        "GET / HTTP/1.1", *(f"X-Pad-{i}: {'x' * 900}" for i in range(size // 912 + 1)), f"Host: {host}", CLOSE))
request_row("target of 6000 bytes", lambda host: request(host, "/" + "y" * 6000))
request_row("absolute target, other Host", lambda host: head(
    f"GET http://{host}/ HTTP/1.1", f"Host: {INNOCENT}", CLOSE))
request_row("absolute target in capitals with port", lambda host: head(
    f"GET HTTP://{host.upper()}:80/ HTTP/1.1", f"Host: {INNOCENT}", CLOSE))
request_row("'Host:' of another in the query", lambda host: head(
    f"GET /?a=%0d%0aHost:%20{INNOCENT} HTTP/1.1", f"X-Host: {INNOCENT}", f"Host: {host}", CLOSE))
request_row("HTTP/1.0", lambda host: head("GET / HTTP/1.0", f"Host: {host}"))
request_row("HTTP/1.9", lambda host: head("GET / HTTP/1.9", f"Host: {host}", CLOSE))
for _method in ("PROPFIND", "FOOBAR", "POST"):
    request_row(_method, lambda host, method=_method: head(
        f"{method} / HTTP/1.1", f"Host: {host}", "Content-Length: 0", CLOSE))
request_row("pipelined second", lambda host: GOES_ON + request(host))
request_row("pipelined fourth", lambda host: GOES_ON * 3 + request(host))
request_row("after a body that looks like a request", lambda host: head(
    "POST /first HTTP/1.1", f"Host: {INNOCENT}", f"Content-Length: {len(GOES_ON)}") + GOES_ON + request(host))
request_row("after a chunked body", lambda host: head(
    "POST /first HTTP/1.1", f"Host: {INNOCENT}", "Transfer-Encoding: chunked")
    + b"5;x=y\r\nhello\r\n3\r\n, w\r\n0\r\n\r\n" + request(host))

request_row("after a GET with a body", lambda host: head(
    "GET /first HTTP/1.1", f"Host: {INNOCENT}", "Content-Length: 3") + b"x=1" + request(host))
request_row("after a method of 40 letters", lambda host: head("M" * 40 + " / HTTP/1.1", f"Host: {INNOCENT}")
            + request(host))

for _target in ("/files/list%65d.html", "/files/%6cisted.html", "/%66%69les/listed.html", "/files/./listed.html",
                "/files/x/../listed.html", "/files/x/%2e%2e/listed.html", "//files///listed.html",
                "/files/listed.html?utm_source=x", "/files/listed.html?", "/files/listed.html#part"):
    ROWS.append(Row(f"http path as {_target}", "http", whole,
                    lambda host, target=_target: request(host, target), path=True))


def one_after_another(p: Play) -> None:
    """Each request on its own, the next one when the page before it has come."""
    for number, start in enumerate(heads := list(request_starts(p.message))):
        p.put(start, (heads + [len(p.message)])[number + 1])
        if number + 1 < len(heads):
            p.flow.listen(lambda number=number: p.flow.heard.count(page(INNOCENT, "/first")) > number, 3.0)


def request_starts(message: bytes) -> Iterable[int]:
    at = message.find(b"GET ")
    while at >= 0:
        yield at
        at = message.find(b"GET ", at + 1)


request_row("second on a kept connection", lambda host: GOES_ON + request(host), one_after_another)
request_row("fourth on a kept connection", lambda host: GOES_ON * 3 + request(host), one_after_another)


# ---- playing


@dataclass
class Outcome:
    """`got` is whether the page of the row's host came; `ending` how the connection ended: "fin", "rst", "alert" or
    "" for none; `seconds` from the first packet to either."""

    got: bool
    ending: str
    seconds: float
    answer: bytes


def play(lab: Lab, way: Row, host: str, *, patience: float = 2.0) -> Outcome:
    """Plays the row for this host. Waits at most `patience` seconds for anything more to come."""
    begin = time.monotonic()
    port = way.port or (443 if way.kind == "tls" else 80)
    flow = Flow(lab, port, way.version, way.timestamps)
    try:
        lab.publish(LISTED_PATH.rpartition("/")[2], LISTED_PAGE)
        made = way.make(host)
        message = made.first if isinstance(made, Hello) else made
        start = message.lower().find(host.encode())
        innocent = Hello(INNOCENT).first if way.kind == "tls" else request(INNOCENT)
        if not way.opens:
            flow.open()
        way.send(Play(flow, message, innocent, start, start + len(host)))
        wanted = LISTED_PAGE if way.path else f"This is {host}/".encode()
        if isinstance(made, Hello):
            answer, ending = converse(flow, made, request(host), wanted, patience)
        else:
            flow.listen(lambda: wanted in flow.heard, patience)
            answer, ending = bytes(flow.heard), flow.ending
        return Outcome(wanted in answer, ending, time.monotonic() - begin, answer)
    except Refused:
        return Outcome(False, flow.ending, time.monotonic() - begin, b"")
    finally:
        flow.close()


def converse(flow: Flow, hello: Hello, inside: bytes, wanted: bytes, patience: float) -> tuple[bytes, str]:
    """The rest of the handshake, the request inside, the answer: (clear text, how the connection ended)."""
    answer, asked = b"", False
    while fresh := flow.hear(patience):
        hello.incoming.write(fresh)
        try:
            if not asked:
                done, out = hello.step(hello.tls.do_handshake)
                flow.send(out)
                if done:
                    asked = True
                    flow.send(hello.step(lambda: hello.tls.write(inside))[1])
            while asked and wanted not in answer and (text := hello.step(lambda: hello.tls.read(65536))[0]):
                answer += text
        except ssl.SSLError as problem:
            return answer, "alert" if "alert" in str(problem).lower() else str(problem)
        if wanted in answer:
            break
    return answer, flow.ending
