"""Connections of innocent clients, by the thousand: in the shapes of real ones, about hosts that nobody listed.

In: a source of chance. Out: the client's IP packets of one connection, and how many requests or hellos are in them.
Names, paths, cookies and bodies are made to look like the listed ones as far as an innocent's may: longer names, a
listed name in the query, in Referer, in a body that is framed as RFC 9112 says. Never: bytes that no client sends.
"""

import base64
import json
import random
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import hpack

from tests.core import samples as s
from tests.quic_packets import VERSION_1, VERSION_2, crypto, initial

SHAPES: dict[str, dict[str, list]] = json.loads(Path(__file__).with_name("shapes.json").read_text())
KINDS = ("http", "tls", "http2", "quic")
LISTED = "listed.example"
LISTS = (LISTED, "=only.example.net", "*.below.example.org", "@@fine.listed.example", "example.com/bad/page.html",
         "example.com/dir/*")
HOSTS = ("fine.listed.example", "a.fine.listed.example", "notlisted.example", "listed.example.org",
         "listed-example.org", "listed.example.com", "xn--listed-cua.example", "www.only.example.net",
         "below.example.org", "example.com",
         "www.example.org", "example.net", "10.1.2.3", "203.0.113.7:8080", "localhost", "Fine.Listed.Example",
         "www.notlisted.example:80", "intranet")
NAMED = tuple(host for host in HOSTS if ":" not in host and not host[0].isdigit())
TARGETS = ("/", "/index.html", "/search?q=listed.example", "/go?u=http://listed.example/a", "/go?u=//listed.example",
           "/go?u=http%3A%2F%2Flisted.example%2F", "/listed.example/", "/a/http://listed.example/", "/bad/page.htm",
           "/bad/page.html.bak", "/x/bad/page.html", "/directory/a", "/?u=a@listed.example", "/a;v=1?x=y&z",
           "/%7Euser/", "/a//b/../c", "/" + "a" * 900, "/?" + "k=v&" * 200, "/a%20b%2Fc",
           "/.well-known/acme-challenge/listed.example",
           "/api/v1/items?filter[host]=listed.example", "/\u00e9".encode().decode("latin-1"), "/a?b=\u00fc|\"<>")
FIELDS = ("Cookie: host=listed.example; a=1", "Referer: http://listed.example/", "Origin: http://listed.example",
          "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Host: listed.example", "From: a@listed.example",
          "If-None-Match: \"listed.example\"", "Authorization: Bearer " + "x" * 1500, "Cookie: a=" + "b" * 6000,
          "X-Host: listed.example", "Forwarded: for=192.0.2.1;host=listed.example", "Via: 1.1 listed.example")
QUOTED = f"GET / HTTP/1.1\r\nHost: {LISTED}\r\n\r\n".encode()
BODIES = (b"a=b&c=http%3A%2F%2Flisted.example%2F", b'{"url": "http://listed.example/", "n": [1, 2]}', QUOTED,
          QUOTED * 3,
          b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n" + QUOTED + b"\r\n--b--\r\n", bytes(range(256)) * 8,
          b"x" * 20_000, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"listed.example" * 4,
          b"\r\n\r\n\r\n")
SEGMENTS = (1448, 1448, 1448, 1380, 536, 200, 7)
HEAD_END = b"\r\n\r\n"


def requests_in(said: bytes) -> list[tuple[bytes, bool]]:
    """Each request's head of what a client said, and whether a body came with it."""
    found, at = [], 0
    while (end := said.find(HEAD_END, at)) >= 0:
        head = said[at:end + 4]
        at = end + 4
        length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
        if re.search(rb"(?i)\ntransfer-encoding: *chunked", head):
            at = said.index(b"0\r\n\r\n", at) + 5
        elif length:
            at += int(length[1])
        found.append((head, bool(length) or b"hunked" in head))
    return found


class Crowd:
    """Clients, from one source of chance; `host` picks whom they ask."""

    def __init__(self, seed: int, host: Callable[[random.Random], str] | None = None):
        self.chance = random.Random(seed)
        self.host = host or (lambda chance: chance.choice(HOSTS))
        self.said = {kind: [what for shape in SHAPES.values() for what in shape.get(kind, ())] for kind in KINDS}
        self.heads = [requests for said in self.said["http"] if (requests := requests_in(said.encode("latin-1")))]
        self.number = 0

    def connection(self) -> tuple[str, list[bytes], int]:
        """(the kind, the client's packets, how many requests or hellos)"""
        self.number += 1
        kind = self.chance.choices(KINDS, (3, 4, 1, 1))[0]
        host = self.host(self.chance)
        if kind in ("tls", "quic"):
            host = host.partition(":")[0] if not host[0].isdigit() else "example.net"
        data, count = getattr(self, kind)(host)
        return kind, list(self.datagrams(data) if kind == "quic" else self.segments(data, kind)), count

    # ---- what they say

    def http(self, host: str) -> tuple[bytes, int]:
        heads = self.chance.choice(self.heads)
        return b"".join(self.request(head, bodied, host) for head, bodied in heads), len(heads)

    def request(self, head: bytes, bodied: bool, host: str) -> bytes:
        chance = self.chance
        lines = head.replace(b"{host}", host.encode()).split(b"\r\n")[:-2]
        method, target, version = lines[0].split(b" ", 2)
        if target.startswith(b"/") and chance.random() < 0.7:
            target = chance.choice(TARGETS).encode("latin-1")
        lines[0] = b" ".join((method, target, version))
        if chance.random() < 0.4:
            lines.insert(chance.randint(1, len(lines)), chance.choice(FIELDS).encode())
        body = chance.choice(BODIES) if bodied else b""
        for at, line in enumerate(lines):
            if line.lower().startswith(b"content-length:"):
                lines[at] = line[:line.index(b":")] + b": %d" % len(body)
            elif line.lower().startswith(b"transfer-encoding:"):
                pieces = [body[i:i + 4000] for i in range(0, len(body), 4000)]
                body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        return b"\r\n".join(lines) + HEAD_END + body

    def tls(self, host: str) -> tuple[bytes, int]:
        records = base64.b64decode(self.chance.choice(self.said["tls"]))
        hello = renamed(records[5:5 + int.from_bytes(records[3:5])], host.lower().encode(), self.chance)
        behind = b"".join(b"\x17\3\3" + s.vector(2, self.chance.randbytes(size)) for size in (60, 500, 1300))
        return records[:3] + s.vector(2, hello) + b"\x14\3\3\0\1\1" + behind, 1

    def http2(self, host: str) -> tuple[bytes, int]:
        encoder, count = hpack.Encoder(), self.chance.randint(1, 4)
        out = s.H2_PREFACE + s.h2_frame(4, 0, 0, struct.pack("!HIHI", 3, 100, 4, 65535))
        for stream in range(1, 2 * count, 2):
            said = self.chance.choice(self.said["http2"])
            fields = [(name, value.replace("{host}", host)) for name, value in said]
            fields = [(name, self.chance.choice(TARGETS[:15]) if name == ":path" else value)
                      for name, value in fields]
            fields.append(tuple(self.chance.choice(FIELDS).lower().split(": ", 1)))
            out += s.h2_frame(1, 4, stream, encoder.encode(fields))
            out += s.h2_frame(0, 1, stream, self.chance.choice(BODIES)[:16_000])
        return out, count

    def quic(self, host: str) -> tuple[list[bytes], int]:
        hello = renamed(base64.b64decode(self.chance.choice(self.said["quic"])), host.lower().encode(), self.chance)
        cuts = [self.chance.randrange(len(hello)) for _ in range(self.chance.choice((0, 1, 4)))]
        cuts = sorted({0, len(hello), *cuts})
        frames = [crypto(at, hello[at:end]) for at, end in zip(cuts, cuts[1:], strict=False)]
        self.chance.shuffle(frames)
        dcid, scid = self.chance.randbytes(8), self.chance.randbytes(self.chance.choice((0, 8)))
        version = self.chance.choice((VERSION_1, VERSION_1, VERSION_2))
        datagrams, frame = [], b""
        for piece in [*frames, None]:
            if piece is None or len(frame) + len(piece) > 1150:
                datagrams.append(initial(frame, dcid=dcid, scid=scid, version=version, number=len(datagrams),
                                         size=1200))
                frame = b""
            frame += piece or b""
        return datagrams, 1

    # ---- how it travels

    def segments(self, data: bytes, kind: str) -> Iterator[bytes]:
        make = self.chance.choice((s.tcp, s.tcp6))
        seq = self.chance.randrange(1 << 32)
        size = self.chance.choice(SEGMENTS[:-1] if len(data) > 3000 else SEGMENTS)
        ports = {"sport": 1024 + self.number % 60_000, "dport": 443 if kind == "tls" else 80}
        yield make(seq, flags=s.SYN, **ports)
        yield make(seq + 1 & 0xFFFFFFFF, flags=s.ACK, **ports)
        for at in range(0, len(data), size):
            yield make(seq + 1 + at & 0xFFFFFFFF, data[at:at + size], **ports)

    def datagrams(self, payloads: list[bytes]) -> Iterator[bytes]:
        for payload in payloads:
            header = struct.pack("!HHHH", 1024 + self.number % 60_000, 443, 8 + len(payload), 0)
            yield s.ip_packet(17, header + payload)


def renamed(hello: bytes, name: bytes, chance: random.Random) -> bytes:
    """The ClientHello message with this server name and a random of its own: RFC 8446, 4.1.2, and RFC 6066, 3."""
    at = 4 + 2 + 32
    front = hello[4:6] + chance.randbytes(32)
    end = at + 1 + hello[at]
    end += 2 + int.from_bytes(hello[end:end + 2])
    end += 1 + hello[end]
    body, extensions = front + hello[at:end], b""
    at = end + 2
    while at < len(hello):
        kind, size = struct.unpack_from("!HH", hello, at)
        piece = hello[at:at + 4 + size]
        extensions += s.extension(0, s.vector(2, b"\0" + s.vector(2, name))) if kind == 0 else piece
        at += 4 + size
    body += s.vector(2, extensions)
    return b"\1" + len(body).to_bytes(3) + body
