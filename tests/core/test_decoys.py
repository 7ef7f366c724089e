"""Random decoys around a real request: however SYNs and bytes that die on the way stand, not all of it gets through.

A server is at `REAL` + 1 and gets only the pieces that are marked as real; everything else dies before it.
"""

import random
from collections.abc import Callable

import pytest

from core import samples as s
from edgeblock.core.engine import Engine
from tests.blocklist.making import matcher

REAL = 2_000_000_000
LISTED, OTHER, ALIKE = b"blocked.example.com", b"another.example.com", b"blocked.exampla.com"
REQUESTS = (s.hello(LISTED), s.request(LISTED))
DECOYS = (s.hello(OTHER), s.request(OTHER), s.hello(ALIKE), s.request(ALIKE), s.hello(LISTED), s.hello(OTHER)[:60],
          b"\xff junk", b"GE", b"\x16\x03", b"\x17\x03\x03\x00\x05hello", s.request(OTHER) * 2,
          b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5000\r\n\r\n" + b"x" * 300)
AWAY = (0, -5, -100, 5, 130, 1000, -1000, 500_000, 10**8, 3 * 10**8, -10**8, 1 << 31, (1 << 31) + 10**6)
ASIDE = (0, 0, 0, 0, 1, 3, 5, -3, 20, 60, 100, 132, -60, -125, 5000)
FLAGS = (s.ACK,) * 6 + (s.ACK | s.FIN, s.ACK | s.RST, s.ACK | s.URG)
SYN = (s.tcp(REAL, flags=s.SYN), True)


def decoy(dice: random.Random, begun: list[int], request: bytes) -> bytes:
    if dice.randrange(3) == 0:
        begun.append(REAL + dice.choice(AWAY) + dice.choice((0, 0, 0, dice.randrange(1000))))
        return s.tcp(begun[-1], flags=s.SYN)
    data = dice.choice((*DECOYS, request[:dice.randrange(1, len(request))]))
    if dice.randrange(6) == 0:
        data = data[dice.randrange(len(data)):]
    flags = dice.choice(FLAGS)
    return s.tcp(dice.choice((*begun, REAL)) + 1 + dice.choice(ASIDE), data, flags,
                 urgent=dice.randrange(1, 40) if flags & s.URG else 0)


def packets(dice: random.Random) -> list[tuple[bytes, bool]]:
    """Packets, and whether the server gets them."""
    request, begun = dice.choice(REQUESTS), [REAL]
    decoys = [(decoy(dice, begun, request), False) for _ in range(dice.choice((0, 0, 1, 1, 2, 3, 4, 5, 8, 12)))]
    cuts = sorted({0, len(request), *(dice.randrange(len(request)) for _ in range(dice.choice((0, 0, 1, 1, 2, 3))))})
    pieces = [(s.tcp(REAL + 1 + a, request[a:b]), True) for a, b in zip(cuts, cuts[1:], strict=False)]
    if dice.randrange(2):
        dice.shuffle(pieces)
    first = dice.choice((0, 0, 0, 0, 1, 2))
    early = 1 if dice.randrange(3) else 0.3
    timed = [(dice.random() * early, one) for one in decoys[first:]]
    timed += zip(sorted(dice.random() for _ in pieces), pieces, strict=True)
    return [*decoys[:first], SYN, *(one for _, one in sorted(timed, key=lambda pair: pair[0]))]


def proofs(dice: random.Random) -> Callable[[bytes, bool], int]:
    """The kernel's word on each packet: it knows the server's connection; or nothing; or it has been confused."""
    how = dice.randrange(4)

    def marked(packet: bytes, real: bool) -> int:
        near = (int.from_bytes(packet[24:28]) - REAL) % (1 << 32) < 65_536
        proven = (real or near, False, real, (real or near) and dice.randrange(2))[how]
        return 2 if proven else 0

    return marked


@pytest.mark.parametrize("seed", [*range(8), 1015, 1050, 1051, 1084, 1087])
def test_no_arrangement_of_decoys_lets_a_listed_request_through(seed):
    dice, rules = random.Random(seed), matcher("blocked.example.com")
    for turn in range(800):
        sent, marked = packets(dice), proofs(dice)
        engine = Engine(rules, unproven="answer" if turn % 2 else "drop")
        accepted = [engine.judge(packet, 1.0 + at / 1000, marked(packet, real)).accept
                    for at, (packet, real) in enumerate(sent)]
        arrived = [through for through, (_, real) in zip(accepted, sent, strict=True) if real]
        assert not all(arrived), "\n".join(packet.hex() + " real" * real for packet, real in sent)
