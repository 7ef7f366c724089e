"""The engine's side of QUIC: which datagrams are read, what is blocked and stays so, what a limit makes of it."""

import struct

import pytest
from quic_packets import DCID, VERSION_2, crypto, initial, varint

from edgeblock.core.engine import Engine
from edgeblock.core.matcher import Matcher
from tests.blocklist.making import matcher_for
from tests.core import playing

TRUST = 1       # checksums are left out below


def hello(extensions: bytes = b"") -> bytes:
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    body += len(extensions).to_bytes(2, "big") + extensions
    return b"\x01" + len(body).to_bytes(3, "big") + body


def named(name: bytes) -> bytes:
    entry = b"\x00" + len(name).to_bytes(2, "big") + name
    entries = len(entry).to_bytes(2, "big") + entry
    return hello(b"\x00\x00" + len(entries).to_bytes(2, "big") + entries)


def udp(payload: bytes, sport: int = 50000, dport: int = 443, client: int = 2) -> bytes:
    header = struct.pack(">HHHH", sport, dport, 8 + len(payload), 0)
    total = 20 + len(header) + len(payload)
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, total, 0, 0, 64, 17, 0, bytes((192, 0, 2, client)),
                       bytes((203, 0, 113, 7))) + header + payload


def engine(**settings) -> Engine:
    return Engine(Matcher(), report=True, **settings)


def for_some(prefix: str) -> Engine:
    """With a list for the clients of that prefix."""
    return Engine(matcher_for(prefix, "family.example"), report=True)


def hosts(decision) -> list[tuple[str, str]]:
    return [(name.proto, name.host) for name in decision.names]


@pytest.mark.parametrize("port", [443, 4433, 53])
def test_a_name_is_reported_once_on_any_port(port):
    one = engine()
    datagram = udp(initial(crypto(0, named(b"WWW.example.com."))), dport=port)
    first = one.judge(datagram, 1.0, TRUST)
    assert first.accept and first.mark == "keep" and hosts(first) == [("quic", "www.example.com")]
    assert not one.judge(datagram, 1.1, TRUST).names
    assert one.counters()["quic_initials"] == 2 and one.counters()["hellos"] == 1


def test_every_new_connection_of_an_old_flow_is_read():
    one = engine()
    for i, name in enumerate((b"one.example", b"two.example", b"three.example")):
        datagram = initial(crypto(0, named(name)), dcid=bytes([i]) * 8, version=VERSION_2 if i == 2 else 1)
        assert hosts(one.judge(udp(datagram), 40.0 * i, TRUST)) == [("quic", name.decode())]
        assert one.judge(udp(b"\x40" + bytes(60)), 40.0 * i + 1, TRUST).accept
    assert one.counters()["table_flows"] == 3


def test_the_second_hello_of_a_retry_is_read():
    # RFC 8446, 4.1.4: it follows the first one in the same CRYPTO stream, in a later packet.
    for step in (9, 400):
        one = engine()
        first, second = named(b"first.example"), named(b"second.example")
        assert hosts(one.judge(udp(initial(crypto(0, first))), 1.0, TRUST)) == [("quic", "first.example")]
        found = []
        for number, at in enumerate(range(0, len(second), step), 1):
            frame = crypto(len(first) + at, second[at:at + step])
            found += hosts(one.judge(udp(initial(frame, number=number)), 1.0, TRUST))
        assert found == [("quic", "second.example")]
        assert one.counters()["overflows"] == 0


def test_other_datagrams_make_no_flow():
    one = engine()
    for payload in (b"", b"\x40" + bytes(60), b"\xc0\x1a\x2a\x3a\x4a" + bytes(60), b"\xc0\x00\x00", bytes(60)):
        decision = one.judge(udp(payload), 1.0, TRUST)
        assert decision.accept and not decision.names
    assert one.counters()["table_flows"] == 0


# ---- what a block is of


LISTED, INNOCENT = named(b"listed.example"), named(b"innocent.example")
CUT = LISTED.index(b"listed.example") + 6


def lists(**settings) -> Engine:
    """An engine that resets listed.example."""
    return playing.engine("listed.example", **settings)


def verdict(one: Engine, datagram: bytes, now: float = 1.0, **ends) -> str:
    decision = one.judge(udp(datagram, **ends), now, TRUST)
    assert decision.mark == "keep", "no mark of the kernel's is a connection's"
    assert decision.accept or not decision.reply or decision.quic_id
    return "passes" if decision.accept else decision.action


def test_a_block_is_the_connections():
    one = lists()
    flight = [initial(crypto(0, LISTED[:CUT]), scid=b"client"),
              initial(crypto(CUT, LISTED[CUT:]), dcid=b"server's", scid=b"client", keys_of=DCID, number=1)]
    assert verdict(one, flight[0]) == "passes"
    decision = one.judge(udp(flight[1]), 1.1, TRUST)
    assert (decision.accept, decision.mark, decision.action, decision.proto) == (False, "keep", "reset", "quic")
    assert decision.reply and decision.quic_id == DCID
    other = initial(crypto(0, INNOCENT), dcid=b"a new id")
    assert verdict(one, other, 2.0) == "passes"
    assert verdict(one, b"\x40" + bytes(60), 2.1) == "passes"
    for again in (*flight, initial(b"\x01", number=2), initial(b"\x01", dcid=b"server's", keys_of=DCID, number=3)):
        assert verdict(one, again, 2.2) == "reset"
        assert verdict(one, again, 2.2, sport=50001) == "reset", "from whatever port"
        assert verdict(one, other + again, 2.3) == "reset", "in whatever company"
    assert verdict(one, other, 2.4) == "passes"
    assert one.counters()["blocked_reset"] == 1


def test_keys_after_a_retry_or_another_version_are_judged():
    one = lists()
    assert verdict(one, initial(crypto(0, LISTED), scid=b"client")) == "reset"
    assert verdict(one, initial(crypto(0, LISTED), dcid=b"of retry", scid=b"client", token=b"token")) == "reset"
    assert verdict(one, initial(crypto(0, LISTED), dcid=b"another!", scid=b"client", version=VERSION_2)) == "reset"
    assert verdict(one, initial(crypto(0, LISTED), version=VERSION_2, number=5)) == "reset"
    assert verdict(one, initial(crypto(0, INNOCENT), dcid=b"a new id", scid=b"client", version=VERSION_2)) == "passes"


@pytest.mark.parametrize("conflict", ["drop", "pass"])
def test_what_opens_with_one_packet_number_too_many_to_remember_is_refused(conflict):
    # By the keys of the connection, and under another id: a later packet of these numbers might not open for us.
    one = lists(conflict=conflict)
    assert verdict(one, initial(crypto(0, INNOCENT[:60]), scid=b"client")) == "passes"
    for turn in range(1, 9):
        far = initial(b"\x01", dcid=b"server's", scid=b"client", keys_of=DCID, number=turn << 28, number_size=4)
        refused = turn == 8 and conflict == "drop"
        assert verdict(one, far) == ("accept" if refused else "passes"), turn
        assert one.judge(udp(far), 1.0, TRUST).accept != refused
    assert one.counters()["blocked_policy"] == (2 if conflict == "drop" else 0)


def test_the_keys_that_a_datagram_asks_for_are_work_of_its_packet():
    # Keys that are derived, and tried: 512 each, whether they open anything or not.
    one = lists()
    assert verdict(one, initial(crypto(0, INNOCENT))) == "passes"
    first = one.counters()["work"]
    assert 1024 < first < 4096, "one of each, and the bytes"
    many = [initial(b"\x01", dcid=number.to_bytes(8), scid=number.to_bytes(8)) for number in range(10)]
    one.judge(udp(b"".join(many)), 1.0, TRUST)
    opened = one.counters()["work"] - first
    assert 10 * 1024 <= opened < 10 * 2048
    one.judge(udp(b"".join(packet[:-1] + b"?" for packet in many)), 1.1, TRUST)
    assert one.counters()["work"] - first - opened >= 10 * 512
    assert one.counters()["overworked"] == 0


def test_answers_to_one_connection_are_few_and_to_all_of_them_limited():
    one = lists()
    datagram = udp(initial(crypto(0, LISTED)))
    assert sum(one.judge(datagram, 0.1 * i, TRUST).reply for i in range(50)) == 3
    one = lists()
    flood = [udp(initial(crypto(0, LISTED), dcid=i.to_bytes(8))) for i in range(1100)]
    assert sum(one.judge(datagram, 1.0, TRUST).reply for datagram in flood) == 1000
    assert one.counters()["replies_withheld"] == 100
    assert one.judge(udp(initial(crypto(0, LISTED), dcid=b"next one")), 2.5, TRUST).reply


@pytest.mark.parametrize("cut", [CUT, 60])
@pytest.mark.parametrize("second", [{"sport": 50001}, {"client": 3}, {"sport": 50001, "client": 3}])
def test_halves_of_one_connection_from_two_ends_are_one(cut, second):
    flight = [initial(crypto(0, LISTED[:cut])), initial(crypto(cut, LISTED[cut:]), number=1)]
    for first, then in (flight, reversed(flight)):
        one = lists()
        assert verdict(one, first) == "passes"
        assert verdict(one, then, **second) == "reset"
        for ends in ({}, second, {"sport": 50_002}, {"client": 9}):
            for datagram in (first, then, initial(crypto(0, INNOCENT), number=2)):
                assert verdict(one, datagram, **ends) == "reset", "the server has the half that passed"


def test_two_clients_with_one_id_do_not_block_each_other():
    # Nothing of the blocked client's has reached the server, so it has nothing to mix.
    one = lists()
    assert verdict(one, initial(crypto(0, LISTED))) == "reset"
    assert verdict(one, initial(crypto(0, INNOCENT)), client=3) == "passes"
    one = lists()
    assert verdict(one, initial(crypto(0, LISTED))) == "reset"
    for at in range(0, len(INNOCENT), 40):
        assert verdict(one, initial(crypto(at, INNOCENT[at:at + 40]), number=at), client=3) == "passes"
    # A short id can be guessed, and no server should take it.
    one = lists()
    assert verdict(one, initial(crypto(0, INNOCENT[:60]), dcid=b"short")) == "passes"
    assert verdict(one, initial(crypto(0, LISTED), dcid=b"short"), client=3) == "reset"
    assert verdict(one, initial(crypto(60, INNOCENT[60:]), dcid=b"short", number=1)) == "passes"


def spoofed(count: int, frames: bytes, **settings) -> list[bytes]:
    """From somebody who knows the addresses and ports, and nothing that is in the packets."""
    return [initial(frames, dcid=b"spoof" + i.to_bytes(3), **settings) for i in range(count)]


@pytest.mark.parametrize("scid", [b"", b"client"])
@pytest.mark.parametrize("size", [0, 1200])
@pytest.mark.parametrize("frames", [crypto(0, LISTED), crypto(0, LISTED[:CUT]), crypto(0, INNOCENT), b"\x01"],
                         ids=["listed", "half", "innocent", "ping"])
def test_a_flood_of_spoofed_initials_harms_and_hides_nobody(scid, size, frames):
    one = lists()
    flood = spoofed(500, frames, size=size)
    later = initial(b"\x02\x00\x00\x00\x00", dcid=b"server's", scid=scid, keys_of=DCID, number=2)
    for datagram in flood[:250]:
        verdict(one, datagram)
    innocent = [initial(crypto(0, INNOCENT[:60]), scid=scid), initial(crypto(60, INNOCENT[60:]), scid=scid, number=1),
                later]
    for i, datagram in enumerate(innocent):
        assert verdict(one, datagram) == "passes"
        for junk in flood[250 + 5 * i:255 + 5 * i]:
            verdict(one, junk)
    assert verdict(one, later) == "passes"
    listed = [initial(crypto(0, LISTED[:CUT]), dcid=b"another!", scid=scid), *flood[300:],
              initial(crypto(CUT, LISTED[CUT:]), dcid=b"another!", scid=scid, number=1)]
    assert [verdict(one, datagram) for datagram in listed][-1] == "reset"
    assert verdict(one, initial(crypto(0, LISTED), dcid=b"one more", scid=scid)) == "reset"
    assert verdict(one, b"\x40" + bytes(60)) == "passes"


def test_junk_costs_a_client_nothing():
    # Initials that no key opens, on the victim's addresses and ports.
    one = lists()
    junk = bytearray(initial(crypto(0, LISTED), dcid=b"unopened", size=1200))
    junk[-1] ^= 1
    assert verdict(one, initial(crypto(0, INNOCENT[:60]))) == "passes"
    for _ in range(2000):
        assert verdict(one, bytes(junk)) == "passes"
    assert verdict(one, initial(crypto(60, INNOCENT[60:]), dcid=b"server's", keys_of=DCID, number=1)) == "passes"
    assert verdict(one, initial(crypto(0, LISTED), dcid=b"another!")) == "reset"


def test_a_datagram_with_too_much_in_it_follows_the_conflict_policy():
    many = b"".join(initial(b"\x01", dcid=bytes([i, 1]) * 4) for i in range(70))
    assert not engine().judge(udp(many), 0.0, TRUST).accept
    assert engine(conflict="pass").judge(udp(many), 0.0, TRUST).accept
    one = engine(quic_derivations=1)
    assert hosts(one.judge(udp(initial(crypto(0, named(b"one.example")))), 0.0, TRUST))
    assert hosts(one.judge(udp(initial(crypto(0, named(b"two.example")), dcid=b"a new id")), 0.0, TRUST))


def test_worker_budget_follows_the_memory_policy():
    datagram = udp(initial(crypto(0, named(b"one.example"))))
    assert engine(quic_worker_derivations=0).judge(datagram, 0.0, TRUST).accept
    assert not engine(quic_worker_derivations=0, memory_full="drop").judge(datagram, 0.0, TRUST).accept


def test_what_does_not_open_follows_the_unparsable_policy():
    datagram = bytearray(initial(crypto(0, named(b"one.example"))))
    datagram[-1] ^= 1
    assert engine().judge(udp(datagram), 0.0, TRUST).accept
    assert not engine(unparsable="drop").judge(udp(datagram), 0.0, TRUST).accept


def test_conflicts_beyond_what_is_read_follow_the_conflict_policy():
    def outcome(**settings) -> bool:
        one = engine(**settings)
        accepted = True
        for i in range(200):
            frames = b"".join(crypto(60 + at, bytes([(i + at) % 251])) for at in range(64))
            accepted = one.judge(udp(initial(frames, number=i)), 1.0, TRUST).accept
        return accepted

    assert not outcome(conflict="drop")
    assert outcome(conflict="pass")


def test_a_flood_of_junk_evicts_no_undecided_flow():
    one = engine(flows=100)
    real = named(b"one.example")
    one.judge(udp(initial(crypto(0, real[:30]))), 1.0, TRUST)
    junk = b"\xc0\x00\x00\x00\x01\x08" + bytes(8) + b"\x00\x00" + varint(100) + bytes(100)
    for i in range(500):
        assert one.judge(udp(junk, sport=1000 + i), 2.0, TRUST).accept
    assert one.counters()["table_flows"] == 1 and one.counters()["evicted_undecided"] == 0
    assert hosts(one.judge(udp(initial(crypto(30, real[30:]), number=1)), 3.0, TRUST)) == [("quic", "one.example")]


def test_memory_is_accounted_for_and_given_back():
    one = engine(memory=2_000_000, idle=10.0)
    for i in range(300):
        one.judge(udp(initial(crypto(9000, bytes(1000))), sport=1000 + i), 1.0, TRUST)
        assert one.counters()["table_bytes"] <= 2_000_000
    for i in range(200):
        one.judge(udp(b"\x40", sport=1), 60.0 + i, TRUST)
    assert one.counters()["table_flows"] == 0 and one.counters()["table_bytes"] == 0


def test_a_hello_from_two_addresses_is_judged_for_both():
    # Somebody whom a list is for sends a part of his hello with the address of another, the first or the last one.
    name = named(b"family.example")
    frames = [crypto(0, name[:40]), crypto(40, name[40:])]
    for senders, blocked in (((7, 7), True), ((8, 8), False), ((7, 8), True), ((8, 7), True), ((8, 9), False)):
        one = for_some("192.0.2.7")
        decisions = [one.judge(udp(initial(frame, number=number), client=client), 1.0, TRUST)
                     for number, (frame, client) in enumerate(zip(frames, senders, strict=True))]
        assert decisions[0].accept and decisions[1].accept is not blocked, senders


def test_the_block_of_one_client_is_none_of_another():
    # Each with an id of his own, or with the very same bytes on the same ports.
    one = for_some("192.0.2.7")
    for client in (8, 7, 8, 9, 7):
        datagram = initial(crypto(0, named(b"family.example")), dcid=bytes([client]) * 8)
        assert one.judge(udp(datagram, client=client), 1.0, TRUST).accept is (client != 7), client
    one = for_some("192.0.2.7")
    datagram = initial(crypto(0, named(b"family.example")))
    for client in (7, 8, 7, 8):
        assert one.judge(udp(datagram, client=client), 1.0, TRUST).accept is (client != 7), client


def test_what_passed_for_one_client_opens_nothing_for_another():
    # The hello goes to the server with the address of somebody whom the list is not for; then the one whom it is for
    # goes on with the connection, with the same bytes or with packets that say nothing.
    one = for_some("192.0.2.7")
    datagram = initial(crypto(0, named(b"family.example")))
    for client in (8, 7, 8):
        assert one.judge(udp(datagram, client=client), 1.0, TRUST).accept is (client != 7), client
    assert not one.judge(udp(initial(b"\x01" + bytes(40), number=5), client=7), 1.0, TRUST).accept
    one = for_some("192.0.2.7")
    datagram = initial(crypto(0, named(b"open.example")))
    for client in (8, 7, 9):        # of a name that is the same to all, everybody's packets pass
        assert one.judge(udp(datagram, client=client), 1.0, TRUST).accept


def test_a_connection_that_moves_keeps_its_verdict():
    # The first packet goes to nobody's list; the connection then moves to an address that has one. The hello was the
    # first one's, and there is none in what follows.
    one = for_some("192.0.2.7")
    assert one.judge(udp(initial(crypto(0, named(b"family.example"))), client=8), 1.0, TRUST).accept
    assert one.judge(udp(b"\x40" + bytes(60), client=7), 1.1, TRUST).accept
