"""HTTP in the first stage: what passes is one plain request to the engine, too, and no conversation opens a door.

    python -m tests.fuzz.requests [--seconds N] [--executions N] [--seed N]

In: a seed. Out: one line with the executions; exit status 1 and the bytes where something is not as it ought to be.
Two games. `single`: of a request that the kernel lets by behind a SYN, core/http.pyx has to find exactly one head,
with that one host, without a body, which ends with the packet; and an engine alone has to let it by. `conversations`:
a client with every trick of kept connections, whose server keeps the first or the last copy of what it has not read
yet; such a server must never read a listed request that it would not have got past an engine alone. Needs root.
"""

import random
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from edgeblock.core import http
from edgeblock.core.engine import Engine
from edgeblock.disguises import messages
from edgeblock.netfilter.stage1 import Stage
from tests.blocklist.making import matcher
from tests.core import samples as s
from tests.fuzz.stage1 import options
from tests.staging import Tracking, is_bare

LISTS = ("blocked.example.com", "=only.example.net", "*.below.example.org", "pages.example/a/b", "dirs.example/d/*",
         "xn--bcher-kva.example", "@@fine.blocked.example.com", "198.51.100.7", "192.0.2.9/page")
UNLISTED = (b"www.innocent.example", b"a.b.c.innocent.example", b"example.com", b"only.example.org",
            b"below.example.org", b"www.pages.example", b"Other.Example")
LISTED = (b"blocked.example.com", b"WWW.Blocked.Example.com", b"only.example.net", b"x.below.example.org",
          b"blocked.example.com.")
ODD = (b"fine.blocked.example.com", b"blocked.example.com:80", b"192.0.2.9", b"[2001:db8::1]",
       b"x@blocked.example.com", b"pages.example", b"dirs.example", b"blocked.example.com,a",
       b"b\xc3\xbccher.example", b"a..b", b".", b"a_b.example", b"a.b.c.d.e.f.g.h.i.example", b"a" * 64 + b".example",
       b"%62locked.example.com", b"0x7f.1", b"")

CHROMIUM = (b"Host: %s", b"Connection: keep-alive", b"Cache-Control: max-age=0", b"Upgrade-Insecure-Requests: 1",
            b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/146.0.0.0 "
            b"Safari/537.36",
            b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;"
            b"q=0.8,application/signed-exchange;v=b3;q=0.7", b"Referer: http://www.innocent.example/",
            b"Accept-Encoding: gzip, deflate", b"Accept-Language: en-GB,en;q=0.9,de;q=0.8",
            b"Cookie: session=4f1c9d2e8b7a6053; consent=yes; _ga=GA1.2.1034567.1700000000",
            b"If-None-Match: W/\"5f-18b\"", b"If-Modified-Since: Tue, 03 Nov 2026 09:00:00 GMT")
FIREFOX = (b"Host: %s", b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
           b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
           b"Accept-Language: en-US,en;q=0.5", b"Accept-Encoding: gzip, deflate", b"DNT: 1", b"Sec-GPC: 1",
           b"Connection: keep-alive", b"Upgrade-Insecure-Requests: 1", b"Priority: u=0, i", b"Pragma: no-cache",
           b"Cache-Control: no-cache")
SCRIPTED = (b"Host: %s", b"Connection: keep-alive", b"X-Requested-With: XMLHttpRequest", b"Origin: http://a.example",
            b"Accept: application/json", b"Range: bytes=0-99", b"Authorization: Basic YTpi", b"Save-Data: on")
PLAIN = (b"Host: %s", b"User-Agent: curl/8.5.0", b"Accept: */*")
BROWSERS = (CHROMIUM, FIREFOX, SCRIPTED, PLAIN)

FIELDS = (b"Content-Length: 5", b"Content-Length: 0", b"Transfer-Encoding: chunked", b"TE: trailers", b"Trailer: X",
          b"Upgrade: h2c", b"Connection: Upgrade", b"Connection: close", b"Connection: keep-alive, Upgrade",
          b"connection:close", b"HTTP2-Settings: AAMAAABk", b"Expect: 100-continue", b"Proxy-Connection: keep-alive",
          b"Host: blocked.example.com", b"host:blocked.example.com", b"HOST : a", b" Host: blocked.example.com",
          b"\tfolded: x", b"X-Forwarded-Host: a", b"X-HTTP-Method-Override: POST", b"Content-Type: text/plain",
          b"content_length: 4", b": empty", b"nothing", b"", b"Upgrade:websocket", b"Content-Length : 9",
          b"Transfer-Encoding\t: chunked", b"Forwarded: host=a", b"Cookie: a=\xff", b"Cookie: a=b\tc", b"Accept:",
          b"A: \x00", b"Accept: b\rHost: blocked.example.com", b"Accept: b\nHost: a", b"Via: 1.1 x")
BYTES = (b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b"/", b"\\", b"//", b"\x7f", b"\x80", b"\x0b", b"\r\r\n",
         b"\r\n\r\n", b"?", b"#", b"%0d%0a", b",", b"@", b"http://blocked.example.com/")
TARGETS = (b"/", b"/", b"/index.html?a=b&c=%20d", b"/a/b", b"/d/x", b"/a/" + b"x" * 120, b"//blocked.example.com/",
           b"/\\b/", b"http://blocked.example.com/", b"*", b"/a b", b"/#x", b"/%2f/", b"/~|^`{}",
           b"/http://blocked.example.com/")
VERSIONS = (b"HTTP/1.0", b"HTTP/1.1 ", b"http/1.1", b"HTTP/2.0", b"HTTP/1.1\t", b"HTTP/1.1 a", b"HTTP/1.1 HTTP/1.1",
            b"HTTP/1.11", b"")
ANSWERS = (b"", b"HTTP/1.1 200 OK\r\n\r\n", bytes(900), b"\x16\x03\x03\1\0\2" + bytes(400))
MOST = 3000              # bytes in a packet: BPF_PROG_TEST_RUN takes a page
SHAPES = tuple(shape for shape, lines in messages.HEADS.items() if len(lines) < 1000)


def drawn(dice: random.Random, name: bytes, target: bytes | None = None) -> bytes:
    """A request as some client sends it."""
    fields = list(dice.choice(BROWSERS))
    for _ in range(dice.randrange(3)):
        if len(fields) > 3:
            fields.pop(dice.randrange(1, len(fields)))
    if dice.randrange(4) == 0:
        fields.append(b"Cookie: " + b"abcdefgh=ijklmnop; " * dice.randrange(1, 70))
    lines = [(b"GET " if dice.randrange(8) else b"HEAD ") + (target or dice.choice(TARGETS[:2])) + b" HTTP/1.1",
             *(one.replace(b"%s", name) for one in fields)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def changed(dice: random.Random, data: bytes) -> bytes:
    """The same with something else in it."""
    turn, at = dice.randrange(9), dice.randrange(len(data))
    if turn < 2:
        lines = data.split(b"\r\n")
        lines.insert(dice.randrange(1, max(2, len(lines) - 1)), dice.choice(FIELDS))
        return b"\r\n".join(lines)
    if turn == 2:
        return data[:at] + bytes([dice.randrange(256)]) + data[at + 1:]
    if turn == 3:
        return data[:at] + dice.choice(BYTES) + data[at:]
    if turn == 4:
        return data[:at] + data[at + dice.randrange(1, 4):]
    if turn == 5:
        return data.replace(b" / ", b" " + dice.choice(TARGETS) + b" ", 1)
    if turn == 6:
        return data + dice.choice((b"x", b"\r\n", data, b"GET"))
    if turn == 7:
        return data.replace(b"HTTP/1.1", dice.choice(VERSIONS), 1)
    lines = data.split(b"\r\n")
    i = dice.randrange(len(lines))
    return b"\r\n".join([*lines[:i], lines[i].swapcase() if dice.randrange(2) else lines[i].title(), *lines[i + 1:]])


def message(dice: random.Random) -> bytes:
    turn = dice.randrange(16)
    name = dice.choice(UNLISTED if turn < 10 else LISTED if turn < 12 else ODD)
    if dice.randrange(12) == 0:
        data = messages.head(dice.choice(SHAPES), name)
    else:
        data = drawn(dice, name, dice.choice(TARGETS) if dice.randrange(3) == 0 else None)
    for _ in range(dice.choice((0, 0, 1, 1, 2, 3))):
        data = changed(dice, data) or b"x"
    return data


class Ends(NamedTuple):
    client: str
    server: str
    port: int

    def sends(self, seq: int, data: bytes = b"", flags: int = s.ACK | s.PSH, ack: int = 0) -> bytes:
        return s.tcp(seq & 0xFFFFFFFF, data, flags, source=self.client, destination=self.server, sport=self.port,
                     dport=80,
                     ack=ack & 0xFFFFFFFF)

    def answers(self, seq: int, ack: int, data: bytes = b"", flags: int = s.ACK) -> bytes:
        return s.tcp(seq & 0xFFFFFFFF, data, flags, source=self.server, destination=self.client, sport=80,
                     dport=self.port,
                     ack=ack & 0xFFFFFFFF)


def ends_of(number: int) -> Ends:
    port = 1024 + number % 60_000
    if number % 2:
        return Ends(f"2001:db8:c::{number >> 16 & 0xFFFF:x}:{number & 0xFFFF:x}", s.SERVER6, port)
    return Ends(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", s.SERVER, port)


def opened(box: Tracking, ends: Ends, isn: int, server_isn: int, now: float) -> None:
    box.judge(ends.sends(isn, b"", s.SYN), now)
    box.answer(ends.answers(server_isn, isn + 1, b"", s.SYN | s.ACK))


def flaw_of(data: bytes, alone: Engine, packets: list[bytes], now: float) -> str:
    """Of a request that has passed in the kernel behind its SYN: what is wrong with that, "" if nothing is."""
    said, heads, consumed, forks = http.feed([data])
    if (said, len(heads), consumed, forks) != ("need_more", 1, len(data), []):
        return f"to the reader it is {said}, {len(heads)} heads, {consumed} of {len(data)} bytes"
    hosts, _, _, _, ways = heads[0]
    if len(hosts) != 1 or any(way != (0, 0) for way in ways):
        return f"hosts {hosts}, framed {ways}"
    made = [alone.judge(packet, now, 2 if i else 0) for i, packet in enumerate(packets)]
    if not all(one.accept for one in made) or made[-1].mark != "http" or len(made[-1].names) != 1:
        return f"the engine alone says {made[-1]}"
    return ""


# ---- a kept connection

class Server:
    """TCP and no more: what it has read, whoever's copy that is.

    Attributes:
        stream: bytes read in order since the last SYN it took.
    """

    def __init__(self, ends: Ends, last: bool, dice: random.Random) -> None:
        self.ends, self.last = ends, last
        self.dice = dice
        self.stream = b""
        self.waiting: dict[int, int] = {}
        self.next = self.isn = self.sent = 0
        self.open = False

    def hears_syn(self, isn: int) -> bytes | None:
        """Its answer; it takes another connection only where none is open."""
        if self.open:
            return self.ends.answers(self.sent, self.next)
        self.open, self.stream, self.next, self.waiting = True, b"", isn + 1, {}
        self.isn = self.dice.getrandbits(32)
        self.sent = self.isn + 1
        return self.ends.answers(self.isn, isn + 1, b"", s.SYN | s.ACK)

    def hears(self, seq: int, data: bytes) -> None:
        if not self.open:
            return
        at = (seq - self.next + (1 << 31)) % (1 << 32) - (1 << 31)
        if at > 65_536:
            return
        for i, byte in enumerate(data):
            if at + i >= 0 and (self.last or self.next + at + i not in self.waiting):
                self.waiting[self.next + at + i] = byte
        read = bytearray()
        while self.next + len(read) in self.waiting:
            read.append(self.waiting.pop(self.next + len(read)))
        self.next += len(read)
        self.stream += bytes(read)

    def says(self, data: bytes) -> bytes:
        packet = self.ends.answers(self.sent, self.next, data)
        self.sent += len(data)
        return packet

    def has_read(self) -> bool:
        """Whether a whole request."""
        return bool(self.stream and http.feed([self.stream])[1])

    def reads_listed(self) -> bool:
        """Whether some request that it has read is in the lists."""
        for hosts, target, *_ in http.feed([self.stream])[1] if self.stream else ():
            name = hosts[0].lower().rstrip(b".") if hosts else b""
            if name != b"fine.blocked.example.com" and (
                    name == b"only.example.net" or name.endswith((b"blocked.example.com", b".below.example.org"))
                    or name == b"pages.example" and target == b"/a/b"):
                return True
        return False


class Alone:
    """An engine without the first stage, played to as a Tracking box is."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.blocked, self.passed = engine, False, 0

    def judge(self, packet: bytes, now: float, flags: int = 2) -> bool:
        if is_bare(packet):
            return not self.blocked
        made = self.engine.judge(packet, now, flags)
        self.blocked = made.mark == "blocked" or self.blocked and made.mark == "keep"
        return made.accept

    def answer(self, packet: bytes) -> bool:
        return not self.blocked


def script(dice: random.Random, plain: bool) -> Iterator[tuple[str, int, bytes, bool]]:
    """What a client does, step by step: (kind, offset from where it stands, bytes, whether they arrive).

    Of the kinds "data" moves the client on by what it sends, "copy" does not, "hear" lets the server answer, "syn"
    is a new connection, which the server takes if the bytes say so.
    """
    def some() -> bytes:
        turn = dice.randrange(12)
        if turn < 8 or plain:
            return drawn(dice, dice.choice(UNLISTED[:2]))
        if turn == 8:
            return drawn(dice, b"pages.example", dice.choice((b"/a/b", b"/c")))
        if turn == 9:
            return s.request(dice.choice(UNLISTED), b"/", b"POST", s.request(LISTED[0])[:dice.randrange(5, 60)])
        if turn == 10:
            return s.chunked(UNLISTED[0], s.request(LISTED[0]))
        return changed(dice, drawn(dice, dice.choice(UNLISTED[:2])))

    yield "syn", 0, b"", True
    for _ in range(dice.randrange(1, 9)):
        turn = 0 if plain else dice.randrange(20)
        data = some()
        listed = drawn(dice, dice.choice(LISTED[:3]), b"/")
        if turn < 9:
            yield "data", 0, data, True
        elif turn == 9:
            yield "data", 0, listed, True
        elif turn == 10:        # in two pieces, or the second first
            wanted = listed if dice.randrange(2) else data
            cut = dice.randrange(1, len(wanted))
            if dice.randrange(2):
                yield "data", 0, wanted[:cut], True
                yield "data", 0, wanted[cut:], True
            else:
                yield "copy", cut, wanted[cut:], True
                yield "data", 0, wanted[:cut], True
                yield "data", 0, wanted[cut:], False
        elif turn == 11:        # a decoy that dies, then what is meant
            yield "copy", 0, data, False
            yield "data", 0, listed, True
        elif turn == 12:        # what has been read once more, with another name
            yield "copy", -dice.randrange(1, 600), listed, True
        elif turn == 13:        # a piece ahead, of which the rest comes with a whole request
            yield "copy", len(data), listed, dice.randrange(2) == 1
            yield "data", 0, data, True
            yield "hear", 0, b"", True
            yield "data", 0, listed if dice.randrange(2) else data, dice.randrange(2) == 1
        elif turn == 14:
            yield "data", 0, data + listed, True
        elif turn == 15:        # the second before the first is acknowledged
            yield "data", 0, data, dice.randrange(2) == 1
            yield "copy", 0, listed, True
            yield "copy", -len(data), listed, True
        elif turn == 16:
            isn = dice.choice((0, 1, -1, 5000, 1 << 22, 1 << 31))
            yield "syn", isn, b"\1" * dice.randrange(2), dice.randrange(2) == 1
        elif turn == 17:
            yield "copy", 0, s.hello(UNLISTED[0]), dice.randrange(2) == 1
        elif turn == 18:
            yield "copy", dice.randrange(-20, 20), dice.randbytes(dice.randrange(1, 30)), True
        else:                   # a message of which the rest is in the next packet, as long as the open request
            yield "data", 0, data[:-2], True
            yield "data", 0, b"\r\n" + listed, True
        if dice.randrange(8) or plain:
            yield "hear", 0, b"", True


class Result(NamedTuple):
    listed: bool           # the server has read what is listed
    dropped: int           # packets
    passed: int            # of those with data, in the kernel
    packets: list[bytes]


def converse(box: Tracking | Alone, ends: Ends, seed: int, plain: bool, now: float) -> Result:
    """One client's script against a server behind this box."""
    dice = random.Random(seed)
    server = Server(ends, dice.randrange(2) == 1, dice)
    at, dropped, packets, before = dice.getrandbits(32), 0, [], box.passed

    def send(seq: int, data: bytes, flags: int, arrives: bool) -> bool:
        nonlocal dropped
        packet = ends.sends(seq, data, flags, 0 if flags & s.SYN else server.sent)
        packets.append(packet)
        made = box.judge(packet, now, 2 if isinstance(box, Alone) and not flags & s.SYN else 0)
        accepted = made if isinstance(made, bool) else made.accept
        dropped += not accepted
        return accepted and arrives

    for kind, offset, whole, arrives in script(dice, plain):
        data = whole[:MOST]
        if kind == "syn":
            at += offset
            if data:
                server.open = False
            if send(at, b"", s.SYN, arrives):
                said = server.hears_syn(at)
                box.answer(said)
            at += 1
        elif kind == "hear":
            if server.open:
                content = dice.choice(ANSWERS) if server.has_read() else b""        # it does not speak first
                box.answer(server.says(content))
        else:
            if send(at + offset, data, s.ACK | s.PSH, arrives):
                server.hears(at + offset, data)
                if server.reads_listed():
                    return Result(True, dropped, box.passed - before, packets)
            if kind == "data":
                at += len(data)
    return Result(False, dropped, box.passed - before, packets)


def run(seconds: float, executions: int, seed: int) -> int:
    dice, began = random.Random(seed), time.monotonic()
    rules = matcher(*LISTS)
    counted = {"single": 0, "passed": 0, "conversations": 0, "kept": 0, "blocked": 0}
    with Stage(1 << 15, 1e6, hellos=4096, marks=1 << 15) as stage:
        box = Tracking(stage, Engine(rules, flows=1 << 15, worker_rereading=(1 << 32) - 1))
        alone = Engine(rules, flows=1 << 15, report=True, worker_rereading=(1 << 32) - 1)
        number = 0
        while counted["single"] + counted["conversations"] < executions and time.monotonic() - began < seconds:
            number += 1
            ends, now = ends_of(number), number * 1e-3
            if number % 4:
                counted["single"] += 1
                data, isn, passed = message(dice)[:MOST], dice.getrandbits(32), box.passed
                opened(box, ends, isn, 7000, now)
                packet = ends.sends(isn + 1, data, ack=7001)
                box.judge(packet, now)
                if box.passed == passed:
                    continue
                counted["passed"] += 1
                flaw = flaw_of(data, alone, [ends.sends(isn, b"", s.SYN), packet], now) if data[:1] != b"\x16" else ""
                if flaw:
                    print(f"requests: passed in the kernel: {data!r}: {flaw}")
                    return 1
                continue
            counted["conversations"] += 1
            plain, chosen = dice.randrange(4) == 0, dice.getrandbits(64)
            got = converse(box, ends, chosen, plain, now)
            wanted = converse(Alone(alone), ends, chosen, plain, now)
            counted["kept"] += got.passed
            counted["blocked"] += got.dropped > 0
            if got.listed and not wanted.listed or plain and (got.dropped or wanted.dropped):
                print(f"requests: conversation {chosen}, plain {plain}: {got[:3]}, alone {wanted[:3]}")
                print("\n".join(each.hex() for each in got.packets))
                return 1
    print(f"requests: {counted} in {time.monotonic() - began:.0f} s; no disagreement (seed {seed})")
    return 0


def main() -> int:
    arguments = options(__doc__).parse_args()
    return run(arguments.seconds, arguments.executions, arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
