"""The engine's side of QUIC: which datagrams are read, what is blocked and stays so, what a limit makes of it."""

import struct

import pytest
from quic_packets import DCID, VERSION_2, crypto, initial, varint

from edgeblock.core.engine import Engine
from edgeblock.core.matcher import Matcher

TRUST = 1       # checksums are left out below


def hello(extensions: bytes = b"") -> bytes:
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    body += len(extensions).to_bytes(2, "big") + extensions
    return b"\x01" + len(body).to_bytes(3, "big") + body


def named(name: bytes) -> bytes:
    entry = b"\x00" + len(name).to_bytes(2, "big") + name
    entries = len(entry).to_bytes(2, "big") + entry
    return hello(b"\x00\x00" + len(entries).to_bytes(2, "big") + entries)


def udp(payload: bytes, sport: int = 50000, dport: int = 443) -> bytes:
    header = struct.pack(">HHHH", sport, dport, 8 + len(payload), 0)
    total = 20 + len(header) + len(payload)
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, total, 0, 0, 64, 17, 0, bytes((192, 0, 2, 2)),
                       bytes((203, 0, 113, 7))) + header + payload


def engine(**settings) -> Engine:
    return Engine(Matcher(), report=True, **settings)


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
    assert one.counters()["table_flows"] == 1


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


def test_a_block_is_sticky_and_answered():
    one = engine(no_sni="drop")
    flight = [initial(crypto(0, hello()[:20]), scid=b"client"),
              initial(crypto(20, hello()[20:]), dcid=b"server's", scid=b"client", keys_of=DCID, number=1)]
    assert one.judge(udp(flight[0]), 1.0, TRUST).accept
    decision = one.judge(udp(flight[1]), 1.1, TRUST)
    assert (decision.accept, decision.mark, decision.action, decision.proto) == (False, "blocked", "reset", "quic")
    assert decision.reply and decision.quic_id == DCID
    other = one.judge(udp(initial(crypto(0, named(b"innocent.example")), dcid=b"a new id")), 2.0, TRUST)
    assert not other.accept and other.reply and other.quic_id == DCID
    assert not one.judge(udp(b"\x40" + bytes(60)), 2.1, TRUST).accept
    assert one.judge(udp(flight[0], sport=50001), 2.2, TRUST).accept, "another 4-tuple is another flow"
    assert sum(one.judge(udp(flight[0]), 3.0, TRUST).reply for _ in range(20)) < 8
    assert one.counters()["blocked_reset"] == 1


def test_flow_budget_drops_the_datagram_and_not_the_flow():
    one = engine(quic_derivations=1)
    assert hosts(one.judge(udp(initial(crypto(0, named(b"one.example")))), 0.0, TRUST))
    another = udp(initial(crypto(0, named(b"two.example")), dcid=b"a new id"))
    refused = one.judge(another, 1.0, TRUST)
    assert not refused.accept and refused.mark == "keep" and not refused.names
    assert hosts(one.judge(another, 11.0, TRUST)) == [("quic", "two.example")]
    assert engine(quic_derivations=0, conflict="pass").judge(another, 0.0, TRUST).accept


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
    assert one.counters()["table_flows"] == 100 and one.counters()["evicted_undecided"] == 0
    assert hosts(one.judge(udp(initial(crypto(30, real[30:]), number=1)), 3.0, TRUST)) == [("quic", "one.example")]


def test_memory_is_accounted_for_and_given_back():
    one = engine(memory=2_000_000, idle=10.0)
    for i in range(300):
        one.judge(udp(initial(crypto(9000, bytes(1000))), sport=1000 + i), 1.0, TRUST)
        assert one.counters()["table_bytes"] <= 2_000_000
    for i in range(200):
        one.judge(udp(b"\x40", sport=1), 60.0 + i, TRUST)
    assert one.counters()["table_flows"] == 0 and one.counters()["table_bytes"] == 0
