"""The same packets with and without the first stage: whatever the engine blocks alone it blocks behind the stage.

    python -m tests.fuzz.stage1 [--seconds N] [--executions N] [--seed N] [--forgetful]

In: a seed. Out: one line with the executions (packets judged both ways); exit status 1 and the packets of the flow
where the two disagree. Needs root: each packet runs through the program in the kernel (BPF_PROG_TEST_RUN), and what
passes there the engine behind it does not see. Checksums are not looked at, so that every packet counts.

`--forgetful`: next to no hello is remembered, and a few clients use the same ports again and again. Then the two may
differ about tricks, and no more is asked than what a plain client sees: a listed name that is sent whole behind its
SYN does not pass, whatever came before it on these ports, and an innocent connection is not dropped behind others.
"""

import argparse
import ctypes
import os
import random
import struct
import sys
import time
from collections.abc import Iterator

from edgeblock.core.decision import Decision
from edgeblock.core.engine import Engine
from edgeblock.netfilter.stage1 import Stage, bpf, possible_cpus
from edgeblock.source.recall import Recall
from tests.blocklist.making import matcher
from tests.core import samples as s
from tests.staging import is_bare

LISTS = ("blocked.example.com", "=only.example.net", "*.below.example.org", "listed", "a.b.c.d.e.f.example",
         "@@fine.blocked.example.com", "198.51.100.7", "203.0.113.128/25", "192.0.2.1:443", "2001:db8:bad::/48",
         "2001:db8::7", "xn--bcher-kva.example", "example.org/only/this")
NAMES = (b"www.innocent.example", b"blocked.example.com", b"www.blocked.example.com", b"fine.blocked.example.com",
         b"only.example.net", b"www.only.example.net", b"below.example.org", b"x.below.example.org", b"listed",
         b"www.listed", b"unlisted", b"x.a.b.c.d.e.f.example", b"a.b.c.d.e.f.example", b"b.c.d.e.f.example",
         b"xn--bcher-kva.example", b"example.org", b"198.51.100.7", b"1.2.3.4", b"0x7f.1", b"notblocked.example.com",
         b"blocked.example.com.evil.example", b"a" * 63 + b".example.com", b"a" * 64 + b".blocked.example.com",
         b"a.b.c.d.e.f.g.h.i.j.blocked.example.com", b"x" * 60 + b"." + b"y" * 60 + b".blocked.example.com")
SERVERS = ("203.0.113.5", "198.51.100.7", "203.0.113.200", "192.0.2.1", "2001:db8::80", "2001:db8:bad::1",
           "2001:db8::7")
TWISTS = (b"\0", b".", b"-", b"_", b":", b"%2e", b" ", b"\xc3\xbc", b"@", b"/", b"A", b"0")
FLAGS = (s.ACK, s.ACK | s.PSH, s.ACK | s.PSH, s.PSH, s.ACK | s.FIN, s.ACK | s.RST, s.ACK | s.SYN, s.ACK | s.URG)


def name(dice: random.Random) -> bytes:
    text = dice.choice(NAMES)
    turn = dice.randrange(12)
    if turn == 0:
        at = dice.randrange(len(text) + 1)
        text = text[:at] + dice.choice(TWISTS) + text[at:]
    elif turn == 1:
        text += b"."
    elif turn == 2:
        text = bytes(byte ^ 0x20 if dice.randrange(2) and chr(byte).isalpha() else byte for byte in text)
    elif turn == 3:
        at = dice.randrange(len(text))
        text = text[:at] + bytes([dice.randrange(256)]) + text[at + 1:]
    return text


POOL: list[bytes] = []


def drawn(dice: random.Random) -> bytes:
    """A hello of many that were made, now and then a new one: making one takes longer than judging it."""
    if len(POOL) < 4096:
        POOL.append(hello(dice))
    elif dice.randrange(8) == 0:
        POOL[dice.randrange(len(POOL))] = hello(dice)
    return POOL[dice.randrange(len(POOL))]


def hello(dice: random.Random, deep: bool = True) -> bytes:
    before, behind = b"", b""
    for _ in range(dice.randrange(4)):
        inside = hello(dice, False) if deep and dice.randrange(3) == 0 else dice.randbytes(dice.randrange(40))
        one = s.extension(dice.choice((21, 16, 51, 0xFE0D, 0x0A0A)), inside)
        if dice.randrange(2):
            before += one
        else:
            behind += one
    names = [name(dice) for _ in range(dice.choice((1, 1, 1, 1, 1, 1, 0, 2)))]
    data = s.hello(*names, before=before, behind=behind)
    turn = dice.randrange(16)
    if turn == 0:
        at = dice.randrange(min(len(data), 120))
        data = data[:at] + bytes([dice.randrange(256)]) + data[at + 1:]
    elif turn == 1:
        data += dice.randbytes(dice.randrange(1, 8))
    elif turn == 2:
        data = data[:dice.randrange(1, len(data))]
    return data


def packet(dice: random.Random, ends: tuple[bytes, bytes, int], seq: int, flags: int, payload: bytes) -> bytes:
    source, destination, port = ends
    urgent = dice.randrange(len(payload) + 2) if flags & s.URG else 0
    options = b"\1" * (4 * dice.randrange(3)) if dice.randrange(8) == 0 else b""
    tcp = struct.pack("!HHIIBBHHH", port, 443, seq & 0xFFFFFFFF, 7000, (20 + len(options)) << 2, flags, 64240, 0,
                      urgent) + options + payload
    odd = dice.randrange(40) == 0
    if len(source) == 4:
        head = b"\1\1\1\1" * odd
        return struct.pack("!BBHHHBBH4s4s", 0x45 + odd, 0, 20 + len(head) + len(tcp), 0, 0, 64, 6, 0, source,
                           destination) + head + tcp
    count = dice.choice((1, 1, 2, 30)) if odd else 0
    chain = b"".join(bytes([6 if i == count - 1 else 60]) + bytes(7) for i in range(count))
    return struct.pack("!IHBB16s16s", 0x60000000, len(chain) + len(tcp), 60 if count else 6, 64, source,
                       destination) + chain + tcp


def flow(dice: random.Random, ends: tuple[bytes, bytes, int]) -> Iterator[bytes]:
    """Some packets of one client: connections one after the other on the same ports, or pieces of several."""
    isns = [dice.getrandbits(32)]
    hellos: list[bytes] = []
    if dice.randrange(8) == 0:      # ports that have come round again, with a hello each time or mostly
        for _ in range(dice.randrange(2, 16)):
            yield packet(dice, ends, isns[-1], s.SYN, b"")
            hellos.append(drawn(dice))
            if dice.randrange(10):
                yield packet(dice, ends, isns[-1] + 1, s.ACK, hellos[-1])
            isns.append(isns[-1] + dice.choice((1 << 24, 1 << 29, 1 << 31, dice.getrandbits(32))))
    if dice.randrange(12):
        yield packet(dice, ends, isns[-1], s.SYN, b"")
    for _ in range(dice.choice((1, 1, 2, 3, 6))):
        turn = dice.randrange(14)
        isn = dice.choice(isns)
        if turn == 0:
            isns.append(isn + dice.choice((0, 0, 0, -300, 100, 500, 1 << 19, 1 << 22, 1 << 31)))
            data = drawn(dice) if dice.randrange(4) == 0 else b""
            yield packet(dice, ends, isns[-1], s.SYN | (dice.choice(FLAGS) if dice.randrange(8) == 0 else 0), data)
        elif turn < 8 or not hellos:
            hellos.append(drawn(dice))
            at = 1 + (dice.choice((-200, -50, -1, 1, 50)) if dice.randrange(8) == 0 else 0)
            flags = dice.choice(FLAGS) if dice.randrange(6) == 0 else s.ACK
            cuts = sorted(dice.randrange(len(hellos[-1]) + 1) for _ in range(dice.choice((0, 0, 1, 1, 2, 5))))
            for a, b in zip([0, *cuts], [*cuts, len(hellos[-1])], strict=True):
                yield packet(dice, ends, isn + at + a, flags, hellos[-1][a:b])
                if dice.randrange(24) == 0:        # between two, the connection begins anew, or seems to
                    yield packet(dice, ends, isn + dice.choice((0, 0, 1 << 29)), s.SYN, b"")
        elif turn < 12:     # pieces of one, in order or in another, each of it or of another
            data, other = dice.choice(hellos), dice.choice(hellos)
            cuts = sorted({0, len(data), *(dice.randrange(len(data)) for _ in range(dice.randrange(3)))})
            pieces = [(a, (data if dice.randrange(4) else other)[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
            if dice.randrange(2):
                dice.shuffle(pieces)
            for at, piece in pieces[:dice.choice((1, 9, 9))]:
                yield packet(dice, ends, isn + 1 + at, s.ACK, piece)
        else:
            data = dice.choice((hellos[-1], s.request(name(dice)), dice.randbytes(30)))
            yield packet(dice, ends, isn + 1 + dice.choice((0, len(hellos[-1]), 5)), s.ACK, data)


class Pair:
    """An engine alone and one behind a first stage, with the same rules; every packet is judged both ways.

    Attributes:
        clock: seconds; a microsecond for each packet.
        flow: the packets of the present flow, for a report.
    """

    def __init__(self, stage: Stage) -> None:
        rules = matcher(*LISTS)
        # Neither may run short of what all flows have together: each needs something else of it.
        self.alone, self.behind = (Engine(rules, flows=1 << 16, worker_rereading=(1 << 32) - 1) for _ in range(2))
        self.stage = stage
        self.recall = Recall(*stage.memory(), stage.places, stage.secret)
        stage.offer(rules.snapshot.parts, rules.snapshot.key)
        self.clock, self.executions, self.passed, self.blocked = 0.0, 0, 0, 0
        self.flow: list[bytes] = []
        self.answer = ctypes.create_string_buffer(128)
        self.frame = ctypes.create_string_buffer(8192)
        self.number = bpf.call_number()

    def judge(self, data: bytes) -> tuple[Decision, Decision | None]:
        """What the engine alone says, and what the one behind the stage: None where the packet has passed it."""
        self.flow.append(data)
        self.executions += 1
        self.clock += 1e-6
        one = self.alone.judge(data, self.clock, 1)
        self.blocked += one.mark == "blocked"
        if not is_bare(data) and self.passes(data):
            self.passed += 1
            return one, None
        self.recall.prepare(self.behind, data, self.clock)
        return one, self.behind.judge(data, self.clock, 1)

    def passes(self, data: bytes) -> bool:
        """Whether the program in the kernel lets it by."""
        content = (bytes(12) + (b"\x86\xdd" if data[0] >> 4 == 6 else b"\x08\x00")) + data
        ctypes.memmove(self.frame, content, len(content))
        struct.pack_into("=IIIIQQII", self.answer, 0, self.stage.program, 0, len(content), 0,
                         ctypes.addressof(self.frame), 0, 1, 0)
        if bpf.libc.syscall(self.number, bpf.PROG_TEST_RUN, self.answer, 128) < 0:
            raise OSError(ctypes.get_errno(), "BPF_PROG_TEST_RUN")
        return self.answer.raw[4] == 1

    def report(self, what: str, one: Decision, two: Decision | None) -> None:
        print(f"first stage: {what}: alone {one}, " + ("passed in the kernel" if two is None else f"behind it {two}"))
        print("\n".join(each.hex() for each in self.flow))


def ends_of(dice: random.Random, number: int) -> tuple[bytes, bytes, int]:
    """Client, server and client's port."""
    six = dice.randrange(2)
    server = s.address(dice.choice(SERVERS[4:] if six else SERVERS[:4]) if dice.randrange(6) == 0
                       else SERVERS[4 if six else 0])
    return number.to_bytes(16 if six else 4, "big"), server, 1024 + number % 60_000


def same_verdicts(pair: Pair, dice: random.Random, flows: int) -> bool:
    """One flow, of which all verdicts have to be the same."""
    pair.flow = []
    for data in flow(dice, ends_of(dice, flows)):
        one, two = pair.judge(data)
        if not one.accept if two is None else (two.accept, two.mark, two.list) != (one.accept, one.mark, one.list):
            pair.report("not the same", one, two)
            return False
    return True


class Client:
    """One that has the same ports again and again; `plain`: it does nothing odd, and asks for no listed name."""

    def __init__(self, dice: random.Random, number: int) -> None:
        self.dice = dice
        self.plain = dice.randrange(2) == 1
        self.ends = number.to_bytes(4, "big"), s.address(SERVERS[0]), 1024 + number % 60_000
        self.left = dice.choice((3, 20, 100))     # connections
        self.isn = dice.getrandbits(32)
        self.bare = 2       # connections without a word; a few are a crowd
        # Linux: random, but never far; others: random.
        self.step = dice.choice((0, 1 << 21, 1 << 24, 1 << 27))
        self.flow: list[bytes] = []

    def send(self, at: int, flags: int, payload: bytes = b"") -> bytes:
        source, destination, port = self.ends
        return s.ip_packet(6, struct.pack("!HHIIBBHHH", port, 443, self.isn + at & 0xFFFFFFFF, 7000 if flags & s.ACK
                                          else 0, 0x50, flags, 64240, 0, 0) + payload, source, destination)

    def connection(self, message: bytes) -> list[bytes]:
        """SYN and the message: whole, whole twice, in pieces in some order, or a SYN and no more."""
        dice = self.dice
        self.isn = self.isn + self.step + dice.randrange(1 << 21) if self.step else dice.getrandbits(32)
        packets = [self.send(0, s.SYN)] * dice.choice((1, 1, 1, 2))
        turn = dice.randrange(32)
        if turn == 0 and self.plain and self.bare:
            self.bare -= 1
            return packets
        cuts = [0, len(message)]
        if turn < 6:
            cuts = sorted({*cuts, *(dice.randrange(len(message)) for _ in range(dice.randrange(1, 3)))})
        pieces = [self.send(1 + a, s.ACK, message[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
        if turn % 3 == 0:
            dice.shuffle(pieces)
        return packets + pieces * dice.choice((1, 1, 1, 2))


PLAIN: list[bytes] = []
HELD: list[bytes] = []       # messages for listed names


def plain_verdicts(pair: Pair, clients: list[Client], dice: random.Random, flows: int) -> bool:
    """One connection of one of a few clients."""
    if not PLAIN:
        PLAIN.extend(s.hello(b"www%d.innocent.example" % i, before=s.extension(51, bytes(i))) for i in range(500))
        PLAIN.extend(s.request(b"www%d.innocent.example" % i) for i in range(50))
        HELD.extend(s.hello(b"www%d.blocked.example.com" % i) for i in range(50))
        HELD.extend(s.request(b"www%d.blocked.example.com" % i) for i in range(50))
    if len(clients) < 16:
        clients.append(Client(dice, flows))
    client = dice.choice(clients)
    pair.flow = client.flow
    client.left -= 1
    if client.left == 0:
        clients.remove(client)
    if client.plain:
        for data in client.connection(dice.choice(PLAIN)):
            one, two = pair.judge(data)
            if not one.accept:          # so many SYNs alone are a crowd to the engine, too
                client.left = 0
                if client in clients:
                    clients.remove(client)
                return True
            if two is not None and not two.accept:
                pair.report("innocent, and dropped", one, two)
                return False
        return True
    turn = dice.randrange(3)
    if turn == 0:
        for data in flow(dice, client.ends):
            pair.judge(data)
        return True
    listed = turn == 1
    got = [pair.judge(data) for data in client.connection(dice.choice(HELD if listed else PLAIN))]
    for what, missed in (("alone", all(one.accept for one, _ in got)),
                         ("behind it", all(two is None or two.accept for _, two in got))):
        if listed and missed:
            pair.report(f"listed, and passed {what}", *got[-1])
            return False
    return True


def run(seconds: float, executions: int, seed: int, forgetful: bool = False) -> int:
    dice = random.Random(seed)
    began, flows = time.monotonic(), 0
    clients: list[Client] = []
    cpus = os.sched_getaffinity(0)
    with Stage(1 << 16, 1e6, hellos=2 * possible_cpus() if forgetful else 4096) as stage:
        pair = Pair(stage)
        os.sched_setaffinity(0, {min(cpus)})      # which hellos are overwritten depends on it
        try:
            while pair.executions < executions and time.monotonic() - began < seconds:
                flows += 1
                if not (plain_verdicts(pair, clients, dice, flows) if forgetful
                        else same_verdicts(pair, dice, flows)):
                    return 1
        finally:
            os.sched_setaffinity(0, cpus)
        told = pair.recall.recalled, pair.recall.forgotten
    taken = time.monotonic() - began
    print(f"first stage: {pair.executions:,} executions of {flows:,} flows in {taken:.0f} s; {pair.passed:,} passed "
          f"in the kernel, {pair.blocked:,} blocked, {told[0]:,} recalled, {told[1]:,} forgotten; no disagreement "
          f"(seed {seed})")
    return 0


def options(doc: str | None) -> argparse.ArgumentParser:
    """What the fuzzers of the first stage are told."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--executions", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    return parser


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--forgetful", action="store_true")
    arguments = parser.parse_args()
    return run(arguments.seconds, arguments.executions, arguments.seed, arguments.forgetful)


if __name__ == "__main__":
    sys.exit(main())
