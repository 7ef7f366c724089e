"""The same packets with and without the first stage: whatever the engine blocks alone it blocks behind the stage.

    python -m tests.fuzz.stage1 [--seconds N] [--executions N] [--seed N]

In: a seed. Out: one line with the executions (packets judged both ways); exit status 1 and the packets of the flow
where the two disagree. Needs root: each packet runs through the program in the kernel (BPF_PROG_TEST_RUN), and what
passes there the engine behind it does not see. Checksums are not looked at, so that every packet counts.
"""

import argparse
import ctypes
import random
import struct
import sys
import time
from collections.abc import Iterator

from edgeblock.core.engine import Engine
from edgeblock.netfilter.stage1 import Stage, bpf
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
            yield packet(dice, ends, isn + at, dice.choice(FLAGS) if dice.randrange(6) == 0 else s.ACK, hellos[-1])
        elif turn < 12:     # pieces of one, in some order, each of it or of another
            data, other = dice.choice(hellos), dice.choice(hellos)
            cuts = sorted({0, len(data), *(dice.randrange(len(data)) for _ in range(dice.randrange(3)))})
            pieces = [(a, (data if dice.randrange(4) else other)[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
            dice.shuffle(pieces)
            for at, piece in pieces[:dice.choice((1, 9, 9))]:
                yield packet(dice, ends, isn + 1 + at, s.ACK, piece)
        else:
            data = dice.choice((hellos[-1], s.request(name(dice)), dice.randbytes(30)))
            yield packet(dice, ends, isn + 1 + dice.choice((0, len(hellos[-1]), 5)), s.ACK, data)


def run(seconds: float, executions: int, seed: int) -> int:
    dice = random.Random(seed)
    rules = matcher(*LISTS)
    settings = {"flows": 4096}
    alone, behind = Engine(rules, **settings), Engine(rules, **settings)
    clock, began = 0.0, time.monotonic()
    done = flows = passed = blocked = 0
    answer = ctypes.create_string_buffer(128)
    frame = ctypes.create_string_buffer(8192)
    number = bpf.call_number()
    with Stage(1 << 16, 1e6, hellos=4096) as stage:
        recall = Recall(*stage.memory(), stage.places)
        stage.offer(rules.snapshot.parts, rules.snapshot.key)
        while done < executions and time.monotonic() - began < seconds:
            flows += 1
            six = dice.randrange(2)
            server = s.address(dice.choice(SERVERS[4:] if six else SERVERS[:4]) if dice.randrange(6) == 0
                               else SERVERS[4 if six else 0])
            ends = flows.to_bytes(16 if six else 4, "big"), server, 1024 + flows % 60_000
            packets = []
            for data in flow(dice, ends):
                packets.append(data)
                done += 1
                clock += 1e-6
                one = alone.judge(data, clock, 1)
                through = False
                if not is_bare(data):
                    content = (bytes(12) + (b"\x86\xdd" if six else b"\x08\x00")) + data
                    ctypes.memmove(frame, content, len(content))
                    struct.pack_into("=IIIIQQII", answer, 0, stage.program, 0, len(content), 0,
                                     ctypes.addressof(frame), 0, 1, 0)
                    if bpf.libc.syscall(number, bpf.PROG_TEST_RUN, answer, 128) < 0:
                        raise OSError(ctypes.get_errno(), "BPF_PROG_TEST_RUN")
                    through = answer.raw[4] == 1
                if through:
                    passed += 1
                    wrong = not one.accept
                else:
                    if not recall.prepare(behind, data, clock):
                        continue
                    two = behind.judge(data, clock, 1)
                    wrong = two.accept != one.accept or two.mark != one.mark or two.list != one.list
                blocked += one.mark == "blocked"
                if wrong:
                    print(f"first stage: {through=}, alone {one}" + ("" if through else f", behind it {two}"))
                    print("\n".join(each.hex() for each in packets))
                    return 1
        told = recall.recalled, recall.forgotten
    taken = time.monotonic() - began
    print(f"first stage: {done:,} executions of {flows:,} flows in {taken:.0f} s; {passed:,} passed in the kernel, "
          f"{blocked:,} blocked, {told[0]:,} recalled, {told[1]:,} forgotten; no disagreement (seed {seed})")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--executions", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    return run(arguments.seconds, arguments.executions, arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
