"""Real servers against the engine: whatever any of them serves as a request for the listed host, the engine finds.

    python -m tests.fuzz.framing [--seconds N] [--requests N] [--each N] [--servers nginx,...] [--seed N] [--keep F]

In: a seed. Out: every connection by which some server served the listed host and which the engine let by, as bytes,
and how many connections and requests were sent. Exit status 1 where there is one. Connections are made from a grammar
of oddities: request lines, field spellings, framings, bodies that are requests, junk between. Never here: traffic
beyond loopback.
"""

import argparse
import itertools
import math
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.core import samples as s
from tests.core.playing import engine
from tests.fuzz.asking import Asker
from tests.fuzz.servers import LISTED, STARTS, running

OTHER = "other.example"
REMEMBERED = 2000          # connections that one engine sees before the next begins
CALM = (0.0, 0.6, 0.9, 0.97)        # of a connection: a server that gave up at an oddity does not see the next
TELL = 60.0                # seconds between two lines about how far it is
SERVED = f"SERVED {LISTED}".encode()

LINE_ENDS = [b"\r\n"] * 12 + [b"\n", b"\n", b"\r\r\n", b"\r"]
METHODS = ([b"GET"] * 6 + [b"POST"] * 5 + [b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE", b"PATCH",
                                           b"PRI",
           b"get", b"M" * 40, b"G\x01T", b"A-B", b"(x)", b" GET", b"\tGET", b"\x0bGET", b"FOO", b"PROXY"])
PARTING = [b" "] * 14 + [b"  ", b"\t", b"\x0b", b"\x1c", b"\xa0"]
TARGETS = [b"/"] * 10 + [b"/?\x7f", b"/?\x01", b"*", b"/a%20b", b"http://" + OTHER.encode() + b"/", b"/\x00",
                         b"/?a b",
                         b"http://" + LISTED.encode() + b"/", LISTED.encode() + b":80", b"/" + b"y" * 300]
USUAL = [b"HTTP/1.1"] * 8 + [b"HTTP/1.0"]
VERSIONS = [b"HTTP/1.1"] * 16 + [b"HTTP/1.0", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/0.9",
                                 b"HTTP/1.1 ",
                                 b"HTTP/01.1", b"HTTP/1.10", b"HTTP/1", b"HTTP/1.1\t", b""]
JUNK = [b"\r\n", b"\n", b"\r\n\r\n", b" ", b"\0", b"x\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", b"EHLO a\r\n",
        b"\xff\xfe\n",
        b"0\r\n\r\n", b"GET\r\n", b"\r", b"SM\r\n\r\n"]
NAMES = {b"Content-Length": [b"Content-Length"] * 8 + [b"content-length", b"Content-Length ", b" Content-Length",
                                                       b"Content-Length\t", b"Content_Length", b"Content-Length\x0b",
                                                       b"\tContent-Length", b"Content-Length\0", b"Content- Length"],
         b"Transfer-Encoding": [b"Transfer-Encoding"] * 8 + [b"transfer-encoding", b"Transfer-Encoding ",
                                                             b" Transfer-Encoding", b"\tTransfer-Encoding",
                                                             b"Transfer_Encoding", b"Transfer-Encoding\0", b"TE"],
         b"Host": [b"Host"] * 9 + [b"host", b"Host ", b" Host", b"HOST", b"\tHost", b"Host\t"]}
ENCODINGS = [b"chunked"] * 8 + [b"Chunked", b"identity", b"gzip, chunked", b"chunked, identity", b"xchunked",
                                b"chunked;x",
                                b"\x0bchunked", b"chunked\x0b", b"\"chunked\"", b"chunked chunked", b"", b"chunked,",
                                b",chunked", b"chunked\0", b" chunked ", b"cow", b"chunked, chunked",
                                b"identity, chunked"]
MORE = [b"X: y", b"Connection: keep-alive", b"Connection: keep-alive", b"Accept: */*", b"User-Agent: a/1 (b; c)",
        b"Connection: close", b"Expect: 100-continue", b"Upgrade: h2c",
        b"X: \x01",
        b"no colon", b": empty", b"X: a\r\n folded", b"Upgrade: websocket\r\nConnection: upgrade", b"TE: trailers",
        b"X:\0"]


class Maker:
    """Connections, from one source of chance."""

    def __init__(self, seed: int):
        self.chance = random.Random(seed)
        self.calm = 0.0                 # how often what everybody takes, the first of the choices, is picked at once

    def pick(self, choices):
        return choices[0] if self.chance.random() < self.calm else self.chance.choice(choices)

    def often(self, times: int) -> bool:
        return self.chance.random() * times > 1

    def number(self, size: int) -> bytes:
        """A Content-Length, mostly of that size."""
        wrong = self.pick([size] * 6 + [0, size + 1, max(size - 2, 0), 5000, 3])
        shape = self.pick(["%d"] * 12 + ["+%d", "0x%x", " %d ", "%d,%d", "%d, %d", "%d;x", "-%d", "0%d", "%d_", "%dx",
                                         "%d.0",
                                         "%d\t", "\x0b%d", "%d %d", "0%o", "\"%d\"", "%d\x0c", "%d\xa0", "%d\0",
                                         "%d\r"])
        return (shape % ((wrong,) * shape.count("%"))).encode("latin-1")

    def chunked(self, body: bytes) -> bytes:
        pieces = []
        while body:
            size = self.chance.randint(1, len(body))
            shape = self.pick(["%x"] * 8 + ["0x%x", "+%x", "%x ", "%x;a=b", "0%x", "%X", " %x", "%x\t", "%x;\"\n\"",
                                            "%x_", "-%x",
                                            "%x\r", "0_%x", "%x;a\rb"])
            end = self.pick([b"\r\n"] * 9 + [b"\n", b"\r", b""])
            pieces.append((shape % size).encode() + self.pick([b"\r\n"] * 9 + [b"\n", b"\r",
                                                                               b"\r\r\n"]) + body[:size] + end)
            body = body[size:]
        last = self.pick([b"0\r\n\r\n"] * 8 + [b"0\n\n", b"00\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0;a\r\n\r\n",
                                               b"0\r\n", b"0\r\r\n\r\n", b"",
                                               b"0\r\n\n", b"0\n\r\n", b"0x0\r\n\r\n"])
        return b"".join(pieces) + last

    def field(self, name: bytes, value: bytes) -> bytes:
        if self.often(3):
            return name + b": " + value
        colon = self.pick([b": "] * 12 + [b":", b" : ", b":\t", b":\r\n ", b":\n\t", b": \r\n\t "])
        return self.pick(NAMES[name]) + colon + value

    def head(self, host: str, fields: list[bytes]) -> bytes:
        end = self.pick(LINE_ENDS) if not self.often(4) else b"\r\n"
        if self.often(3):               # mostly one line that everybody takes, so that the odd thing is elsewhere
            line = self.pick([b"GET", b"GET", b"POST", b"POST", b"PUT", b"HEAD"]) + b" / " + self.pick(USUAL)
        else:
            line = self.pick(METHODS) + self.pick(PARTING) + self.pick(TARGETS)
            version = self.pick(VERSIONS)
            line += self.pick(PARTING) + version if version else b""
        fields = [self.field(b"Host", host.encode()), *fields]
        while not self.often(2):
            fields.append(self.pick(MORE))
        self.chance.shuffle(fields)
        mixed = [self.pick(LINE_ENDS) if not self.often(12) else end for _ in range(len(fields) + 2)]
        return b"".join(part + mixed[i] for i, part in enumerate([line, *fields, b""]))

    def plain(self, host: str) -> bytes:
        return f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()

    def request(self, host: str, depth: int = 0) -> bytes:
        """A request with an odd framing, and a body that may be requests."""
        way = self.chance.randrange(6)
        body = b""
        if way:
            body = self.chance.choice([b"", b"x=1", b'{"a": 1}', self.plain(LISTED), self.plain(OTHER), b"x" * 30,
                                       b"a\r\n\r\n", b"x" + self.plain(LISTED),
                                       b"0\r\n\r\n" + self.plain(LISTED),
                                       b"5\r\nhello\r\n0\r\n\r\n" + self.plain(LISTED)])
            if depth < 1 and not self.often(4):
                body = self.request(self.chance.choice([LISTED, OTHER]), depth + 1)
        fields = []
        sent = body
        if way in (2, 3, 5):
            sent = self.chunked(body) if self.often(5) else body
            fields.append(self.field(b"Transfer-Encoding", self.pick(ENCODINGS)))
        if way in (1, 3, 4):
            fields.append(self.field(b"Content-Length", self.number(len(sent))))
        if way == 4:
            fields.append(self.field(b"Content-Length", self.number(len(sent))))
        if way == 5:
            fields.append(self.field(b"Transfer-Encoding", self.pick(ENCODINGS)))
        return self.head(host, fields) + sent

    def connection(self) -> bytes:
        self.calm = self.chance.choice(CALM)
        parts = [self.request(OTHER if self.often(8) else LISTED)]
        for _ in range(self.chance.choice([0, 1, 1, 2, 3, 5])):
            if not self.often(5):
                parts.append(self.pick(JUNK))
            make = self.chance.choice([self.plain, self.request])
            parts.append(make(self.chance.choice([LISTED, OTHER, OTHER])))
        if not self.often(12):
            parts.insert(0, self.pick(JUNK))
        return b"".join(parts)


class Judge:
    """The engine, asked about one connection after the other; the state of the last ones stays in it."""

    def __init__(self, chance: random.Random):
        self.chance, self.judged = chance, 0
        self.engine = engine(LISTED)

    def finds(self, data: bytes) -> bool:
        """Whether the engine blocks this connection, cut somewhere."""
        self.judged = (self.judged + 1) % REMEMBERED
        if not self.judged:
            self.engine = engine(LISTED)
        edges = sorted({0, len(data),
                        *(self.chance.randrange(1, len(data)) for _ in range(self.chance.choice([0, 0, 1, 2])))})
        packets = [(99, b"", s.SYN), *((100 + a, data[a:b], s.ACK | s.PSH) for a, b in itertools.pairwise(edges))]
        return any(self.engine.judge(s.tcp(seq, piece, flags, sport=1024 + self.judged, dport=80), 0.0).mark
                   == "blocked" for seq, piece, flags in packets)


@dataclass
class Tally:
    """What was sent and what came of it; `by` how often each server was asked, and served the listed host."""

    connections: int = 0
    requests: int = 0
    served: int = 0
    past: int = 0
    by: dict[str, list[int]] = field(default_factory=dict)


def fuzz(ports: dict[str, int], maker: Maker, given: argparse.Namespace) -> Tally:
    """Sends connections until the time is over, or so many requests are sent."""
    asker, judge, tally = Asker(ports, SERVED), Judge(maker.chance), Tally(by={name: [0, 0] for name in ports})
    each = min(given.each, len(ports))
    until = time.monotonic() + given.seconds

    def one(data: bytes) -> None:
        takers: list[str] = []
        left = names = asker.idlest(each, maker.chance.random)

        def done(name: str, served: bool) -> None:
            nonlocal left
            tally.by[name][0] += 1
            tally.by[name][1] += served
            takers.extend([name] * served)
            left = left[1:]
            if left or not takers:
                return
            tally.served += 1
            if not judge.finds(data):
                tally.past += 1
                print(f"PAST THE ENGINE, served by {', '.join(takers)}: {data!r}", flush=True)
                if given.keep:
                    with given.keep.open("a") as file:
                        file.write(f"{','.join(takers)}\t{data!r}\n")

        for name in names:
            asker.ask(name, data, done)

    told = time.monotonic()
    while time.monotonic() < until and tally.requests < given.requests:
        data = maker.connection()
        tally.connections += 1
        tally.requests += data.upper().count(b" HTTP/")
        one(data)
        asker.step(0)
        while asker.is_full(each):
            asker.step(0.01)
        if time.monotonic() > told + TELL:
            told = time.monotonic()
            print(f"{tally.connections:,} connections, {tally.requests:,} requests, {tally.past:,} past", flush=True)
    asker.finish()
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description="ask real servers how they read odd requests")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--requests", type=float, default=math.inf, help="stop when so many are sent")
    parser.add_argument("--each", type=int, default=5, help="how many servers get a connection: the idlest")
    parser.add_argument("--servers", default=",".join(STARTS))
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", type=Path, help="where findings are appended")
    given = parser.parse_args()
    names = [name for name in given.servers.split(",") if name]
    if unknown := set(names) - set(STARTS):
        parser.error(f"no such server: {', '.join(sorted(unknown))}; there are {', '.join(STARTS)}")
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1 << 32)
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), names) as ports:
        Path(folder).chmod(0o755)
        if not ports:
            sys.exit("framing: none of the servers is installed")
        print(f"seed {seed}; servers: {', '.join(ports)}", flush=True)
        tally = fuzz(ports, Maker(seed), given)
    print(f"{tally.connections:,} connections with {tally.requests:,} requests, each to "
          f"{min(given.each, len(ports))} of {len(ports)} servers; the listed host was served over {tally.served:,}; "
          f"{tally.past:,} got past the engine\nasked, and served the listed host: "
          + "  ".join(f"{name} {asked:,}/{served:,}" for name, (asked, served) in tally.by.items()))
    return 1 if tally.past else 0


if __name__ == "__main__":
    sys.exit(main())
