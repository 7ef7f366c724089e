"""Who in a capture has proved his address: what acknowledges what the other side has said."""

import random

import pytest
from core import samples as s

from edgeblock.source import handshakes
from edgeblock.source.handshakes import ADDRESS_PROVEN, Handshakes

ISN, SERVER_ISN = 1_000_000, 4_294_960_000      # the server's numbers wrap soon

ENDS = {"4": (s.CLIENT, s.SERVER), "6": (s.CLIENT6, s.SERVER6)}


class Talk:
    """One connection in a capture."""

    def __init__(self, family: str = "4") -> None:
        self.client, self.server = ENDS[family]
        self.seen = Handshakes()

    def here(self, data=b"x", flags=s.ACK, seq=ISN + 1, ack=SERVER_ISN + 1, **more):
        ends = {"source": self.client, "destination": self.server}
        return self.seen.flag(s.tcp(seq, data, flags, ack=ack % (1 << 32), **ends, **more))

    def back(self, data=b"", flags=s.ACK, seq=SERVER_ISN, ack=ISN + 1):
        return self.seen.flag(s.tcp(seq, data, flags, ack=ack, source=self.server, destination=self.client, sport=443,
                                    dport=40000))

    def shake(self):
        assert self.here(b"", s.SYN, ISN, 0) == 0
        assert self.back(flags=s.SYN | s.ACK) == 0


@pytest.mark.parametrize("family", ENDS)
def test_who_acknowledges_the_syn_ack_is_proven(family):
    talk = Talk(family)
    assert talk.here() == 0
    talk.shake()
    assert talk.here() == ADDRESS_PROVEN
    assert talk.here(flags=s.SYN | s.ACK) == talk.here(flags=s.RST | s.ACK) == talk.here(flags=0) == 0
    random.seed(1)
    guessed = [talk.here(ack=random.getrandbits(32)) for _ in range(1000)]
    assert sum(map(bool, guessed)) <= 3


def test_the_proof_goes_on_with_the_connection_and_over_the_end_of_the_numbers():
    talk = Talk()
    talk.shake()
    at = SERVER_ISN + 1
    for _ in range(200):
        talk.back(bytes(1400), seq=at % (1 << 32))
        at += 1400
        assert talk.here(b"", ack=at) == ADDRESS_PROVEN
    assert talk.here(ack=at) == ADDRESS_PROVEN and talk.here(ack=SERVER_ISN + 1) == 0


def test_a_strangers_syn_and_bytes_take_nothing_from_the_client():
    talk = Talk()
    talk.shake()
    assert talk.here() == ADDRESS_PROVEN
    for seq in (5, 1 << 31, 77_000_000):
        talk.here(b"", s.SYN, seq, 0)
        talk.here(b"GET", seq=seq, ack=99)
        talk.back()                                     # RFC 5961: a challenge
    assert talk.here() == ADDRESS_PROVEN


def test_a_new_connection_has_to_prove_itself_anew():
    talk = Talk()
    talk.shake()
    talk.back(flags=s.SYN | s.ACK, seq=500_000_000)
    assert talk.here() == 0 and talk.here(ack=500_000_001) == ADDRESS_PROVEN


def test_of_a_connection_that_began_before_any_later_word_of_the_server_will_do():
    talk = Talk()
    assert talk.here() == 0
    talk.back(bytes(300), seq=700)
    assert talk.here(ack=1000) == ADDRESS_PROVEN and talk.here(ack=1 << 31) == 0


def test_packets_that_the_capture_cut_count_whole_and_what_it_lacks_is_no_harm():
    talk = Talk()
    talk.shake()
    cut = s.tcp(SERVER_ISN + 1, bytes(1400), source=s.SERVER, destination=s.CLIENT, sport=443, dport=40000)[:60]
    talk.seen.flag(cut)
    assert talk.here(ack=SERVER_ISN + 1401) == ADDRESS_PROVEN
    assert talk.here(ack=SERVER_ISN + 1401 + 200_000) == ADDRESS_PROVEN


def test_what_is_no_tcp_is_passed_over_and_memory_is_bounded(monkeypatch):
    seen = Handshakes()
    for odd in (b"", b"\x45", bytes(20), s.ip_packet(17, bytes(8)), s.tcp(1)[:30], s.tcp6(1)[:45],
                b"\x60" + bytes(50)):
        assert seen.flag(odd) == 0
    monkeypatch.setattr(handshakes, "MAX_SIDES", 10)
    for port in range(100):
        seen.flag(s.tcp(1, b"x", sport=port))
    assert len(seen._sides) <= 10
