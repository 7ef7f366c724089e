"""A list for some clients in the engine: what is decided for one client holds for no other.

Two clients of each family ask for the same names at once, with the same ports, packet by packet in turn.
"""

from itertools import chain, zip_longest

import pytest

from edgeblock.core.engine import Engine
from edgeblock.disguises.streams import STRATEGIES, Path
from tests.blocklist.making import matcher_for
from tests.core import samples as s
from tests.core.test_dtls import whole

ENDS = {False: ("192.0.2.7", "192.0.2.8"), True: ("2001:db8:1::7", "2001:db8:1::8")}
FILE = "\n".join(ends[0] for ends in ENDS.values())
NAME = b"www.family.example"
SIX = pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
TWICE = pytest.mark.parametrize("mode", ["only", "except"])


def engine(mode: str = "only", *lines: str) -> Engine:
    return Engine(matcher_for(FILE, *(lines or ("family.example",)), mode=mode), report=True)


@SIX
@TWICE
@pytest.mark.parametrize("message", [s.hello(NAME), s.request(NAME)], ids=["tls", "http"])
@pytest.mark.parametrize("how", ["whole", "in_pieces", "small_segments", "disorder"])
def test_two_clients_in_turn(how: str, message: bytes, mode: str, six: bool) -> None:
    one = engine(mode)
    port = 443 if message[0] == 22 else 80
    streams = [list(STRATEGIES[how](Path(six, dport=port, source=source), message, message.index(NAME), len(NAME)))
               for source in ENDS[six]]
    passed = [True, True]
    for turn in (0, 1):         # a second connection on the same ports, too
        passed = [True, True]
        for number, packet in enumerate(chain.from_iterable(zip_longest(*streams))):
            if isinstance(packet, bytes):
                passed[number % 2] &= one.judge(packet, 1.0 + turn + number / 1000).accept
        assert passed == ([False, True] if mode == "only" else [True, False])


@SIX
@TWICE
def test_datagrams_of_two_clients(mode: str, six: bool) -> None:
    one = engine(mode)
    for client in (0, 1, 1, 0):
        source, server = ENDS[six][client], s.SERVER6 if six else s.SERVER
        seen = one.judge(s.udp(whole(NAME), source=source, destination=server), 1.0)
        assert seen.accept is ((client == 1) == (mode == "only"))


@SIX
@TWICE
def test_an_address_is_listed_for_some(mode: str, six: bool) -> None:
    server = s.SERVER6 if six else s.SERVER
    one = engine(mode, server)
    for client in (0, 1, 0):
        path = Path(six, source=ENDS[six][client])
        listed = (client == 0) == (mode == "only")
        assert one.judge(path.syn(), 1.0).accept is not listed
        assert one.judge(s.udp(b"\1some", source=path.settings["source"], destination=server, dport=9), 1.0
                         ).accept is not listed


def test_another_set_holds_for_what_comes_then() -> None:
    # A blocked datagram stream to a listed address goes on when its client is in the list no more.
    one = engine("only", s.SERVER)
    packet = s.udp(b"\1some", source=ENDS[False][0], dport=9)
    assert not one.judge(packet, 1.0).accept
    one.matcher = matcher_for(ENDS[False][1], s.SERVER)
    assert one.judge(packet, 1.1).accept
    assert not one.judge(s.udp(b"\1some", source=ENDS[False][1], dport=9), 1.2).accept
