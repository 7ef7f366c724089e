"""Who has shown that he hears the server, and who has not: what each may make the engine do to a connection."""

import random

import pytest

from core import samples as s
from edgeblock.blocklist.load import load
from edgeblock.core.engine import Engine

TRUST, PROVEN = 1, 2
ISN = 1_000_000
HELLO, OPEN = s.hello(b"listed.example"), s.hello(b"open.example")
PAGE, FINE = s.request(b"page.example"), s.request(b"open.example")


@pytest.fixture
def engine(tmp_path):
    (tmp_path / "a.list").write_text("listed.example\n192.0.2.1\n")
    (tmp_path / "p.list").write_text("page.example\n")
    (tmp_path / "p.toml").write_text('action = "page"\n')
    return Engine(load(tmp_path).matcher, report=True, unproven="drop")


def proven(engine, seq, data, now=1.0, **settings):
    return engine.judge(s.tcp(seq, data, **settings), now, PROVEN)


def spoofed(engine, seq, data=b"", flags=s.ACK | s.PSH, now=1.0, **settings):
    """What somebody sends who does not hear the server."""
    return engine.judge(s.tcp(seq, data, flags, **settings), now)


def connected(engine, isn=ISN, data=FINE):
    """A client's connection with an innocent request."""
    assert engine.judge(s.tcp(isn, flags=s.SYN), 1.0).accept
    assert proven(engine, isn + 1, data).accept
    return isn + 1 + len(data)


@pytest.mark.parametrize("data", [HELLO, PAGE])
def test_a_proven_client_is_answered_and_his_flow_ends(engine, data):
    engine.judge(s.tcp(ISN, flags=s.SYN), 1.0)
    made = proven(engine, ISN + 1, data)
    assert (made.accept, made.mark, made.reply, made.proven) == (False, "blocked", True, True)
    assert proven(engine, ISN + 1, data).reply


@pytest.mark.parametrize("data", [HELLO, PAGE])
@pytest.mark.parametrize("syn", [False, True])
def test_what_shows_no_proof_is_dropped_and_gets_no_answer(engine, data, syn):
    if syn:
        assert spoofed(engine, ISN, flags=s.SYN).accept
    for _ in range(3):
        made = spoofed(engine, ISN + 1, data)
        assert (made.accept, made.mark, made.reply) == (False, "keep", False)
    assert engine.counters()["unproven_blocked"] == 1


def test_data_in_a_syn_gets_a_reset_at_most(engine):
    made = spoofed(engine, ISN, PAGE, s.SYN, ack=77)
    assert (made.accept, made.mark, made.reply, made.proven) == (False, "keep", True, False)
    assert (made.client_seq, made.client_ack, made.reset_seqs) == (0, ISN + 1 + len(PAGE), ())


def test_a_syn_for_a_listed_address_gets_one_reset_and_the_server_nothing(engine):
    for isn in (ISN, 5 * ISN):
        made = spoofed(engine, isn, flags=s.SYN, destination="192.0.2.1")
        assert (made.accept, made.mark, made.reply, made.proven) == (False, "keep", True, False)
        assert (made.client_seq, made.client_ack, made.reset_seqs) == (0, isn + 1, ())
    assert not spoofed(engine, ISN, b"x", destination="192.0.2.1", sport=7).reply


def test_answers_to_the_unproven_are_rationed(engine):
    for now in (1.0, 3.0):
        replies = sum(spoofed(engine, ISN, flags=s.SYN, destination="192.0.2.1", sport=1024 + i, now=now).reply
                      for i in range(1500))
        assert replies == 1000
    counted = engine.counters()
    assert (counted["unproven_answered"], counted["unproven_unanswered"]) == (2000, 1000)


def test_where_nobody_is_asked_everybody_is_answered(tmp_path):
    (tmp_path / "a.list").write_text("listed.example\n")
    engine = Engine(load(tmp_path).matcher, unproven="answer")
    engine.judge(s.tcp(ISN, flags=s.SYN), 1.0)
    made = spoofed(engine, ISN + 1, HELLO)
    assert (made.mark, made.reply, made.proven) == ("blocked", True, True)


# ---- a third party


def attacks(count=1000):
    """What a third party sends that hears nothing, at random sequence numbers."""
    random.seed(16)
    for i in range(count):
        seq = random.getrandbits(32)
        kind = i % 6
        if kind == 0:
            yield seq, b"", s.SYN
        elif kind == 1:
            yield seq, PAGE, s.SYN
        elif kind == 2:
            yield seq, HELLO, s.ACK | s.PSH
        elif kind == 3:
            yield seq, b"", s.RST
        elif kind == 4:
            yield seq, bytes([i & 255]), s.ACK
        else:
            yield seq, PAGE, s.ACK | s.FIN


def test_nobody_who_hears_nothing_ends_an_established_connection(engine):
    at = connected(engine)
    for seq, data, flags in attacks():
        made = spoofed(engine, seq, data, flags)
        assert made.mark == "keep" and not made.reply
        assert made.accept == (not data)
    made = proven(engine, at, FINE)
    assert (made.accept, made.mark) == (True, "http")
    assert proven(engine, at + len(FINE), PAGE).mark == "blocked"       # and it is still read


@pytest.mark.parametrize("before", [True, False], ids=["before the SYN", "behind it"])
def test_nobody_who_hears_nothing_keeps_a_connection_from_beginning(engine, before):
    harmed = 0
    for i, (seq, data, flags) in enumerate(attacks()):
        isn, port = (i * 4_000_037 + 99) & 0xFFFFFFFF, 1024 + i
        if before:
            spoofed(engine, seq, data, flags, sport=port)
        if not engine.judge(s.tcp(isn, flags=s.SYN, sport=port), 1.0).accept:
            harmed += 1
            continue
        if not before:
            spoofed(engine, seq, data, flags, sport=port)
        harmed += not proven(engine, isn + 1, OPEN, sport=port).accept
    assert harmed == 0


@pytest.mark.parametrize("count", [3, 40, 300])
@pytest.mark.parametrize("data", [b"", HELLO, PAGE, b"G"])
def test_floods_on_one_pair_of_ports_fill_no_bound_of_its_owner(engine, count, data):
    random.seed(15)
    flags = s.SYN if not data else s.ACK
    for _ in range(count):
        isn = random.getrandbits(32)
        spoofed(engine, isn, flags=s.SYN)
        if data:
            spoofed(engine, isn + 1, data, flags)
            spoofed(engine, isn + 1, data[:-1] + b"?", flags)
    engine.judge(s.tcp(ISN, flags=s.SYN), 1.0)
    half = len(FINE) // 2
    assert proven(engine, ISN + 1, FINE[:half]).accept
    for _ in range(count):
        isn = random.getrandbits(32)
        spoofed(engine, isn, flags=s.SYN)
        spoofed(engine, isn + 1, data, flags)
    assert proven(engine, ISN + 1 + half, FINE[half:]).accept
    at = ISN + 1 + len(FINE)
    assert proven(engine, at, PAGE[:9]).accept
    assert proven(engine, at + 9, PAGE[9:]).mark == "blocked"


def test_a_blocked_flow_is_kept_no_longer_by_what_others_send(engine):
    engine.judge(s.tcp(ISN, flags=s.SYN), 1.0)
    assert proven(engine, ISN + 1, HELLO).mark == "blocked"
    for now in range(2, 119):
        assert not spoofed(engine, ISN + 1, HELLO, now=float(now)).accept
    spoofed(engine, 5, HELLO, sport=9, now=122.0)
    assert engine.counters()["flows_expired"] == 1


# ---- the client himself, who would hide something


def test_half_a_name_without_proof_and_half_with_is_one_name(engine):
    for first, second in ((PROVEN, 0), (0, PROVEN)):
        for cut in (1, 20, len(PAGE) - 5):
            other = Engine(engine.matcher, unproven="drop")
            other.judge(s.tcp(ISN, flags=s.SYN), 1.0)
            other.judge(s.tcp(ISN + 1, PAGE[:cut]), 1.0, first)
            assert not other.judge(s.tcp(ISN + 1 + cut, PAGE[cut:]), 1.0, second).accept


@pytest.mark.parametrize("syns", [0, 1, 4, 50])
def test_a_decoy_without_proof_hides_nothing_that_follows(engine, syns):
    # The first half reaches the server; a decoy is blocked, and SYNs that die would have the flow begin anew.
    half = len(PAGE) - 8
    engine.judge(s.tcp(ISN, flags=s.SYN), 1.0)
    assert spoofed(engine, ISN + 1, PAGE[:half]).accept
    assert not spoofed(engine, ISN + 1 + half, PAGE[half:]).accept
    random.seed(14)
    for _ in range(syns):
        isn = random.getrandbits(32)
        spoofed(engine, isn, flags=s.SYN)
        spoofed(engine, isn + 1, HELLO)
    assert not proven(engine, ISN + 1 + half, PAGE[half:]).accept


@pytest.mark.parametrize("crowd", [0, 3, 20])
@pytest.mark.parametrize("cut", [0, 1, 30])
def test_a_later_connection_on_the_same_ports_is_read_from_its_beginning(engine, crowd, cut):
    at = connected(engine)
    again = at + 900_000_000
    engine.judge(s.tcp(again, flags=s.SYN), 2.0)
    random.seed(13)
    for _ in range(crowd):
        spoofed(engine, random.getrandbits(32), flags=s.SYN, now=2.0)
    if cut:
        later = proven(engine, again + 1 + cut, PAGE[cut:], 2.0)        # it comes first, and may be a request itself
        assert not (later.accept and proven(engine, again + 1, PAGE[:cut], 2.0).accept)
    else:
        assert proven(engine, again + 1, PAGE, 2.0).mark == "blocked"


@pytest.mark.parametrize("crowd", [0, 3, 20])
def test_and_an_innocent_one_behind_a_blocked_one_is_let_by(engine, crowd):
    at = connected(engine)
    assert proven(engine, at, PAGE).mark == "blocked"
    random.seed(12)
    again = at + 900_000_000
    assert engine.judge(s.tcp(again, flags=s.SYN), 2.0).accept
    for _ in range(crowd):
        spoofed(engine, random.getrandbits(32), flags=s.SYN, now=2.0)
    assert proven(engine, again + 1, FINE, 2.0).accept
    assert not proven(engine, at, PAGE, 2.0).accept


# ---- one-way routing


@pytest.mark.parametrize("unproven", ["drop", "answer"])
@pytest.mark.parametrize("with_proof", [False, True])
def test_only_what_was_never_heard_of_is_released_by_counting(engine, unproven, with_proof):
    one = Engine(engine.matcher, unproven=unproven, settle_packets=10)
    one.judge(s.tcp(ISN, flags=s.SYN), 1.0)
    one.judge(s.tcp(ISN + 1, OPEN), 1.0, PROVEN if with_proof else 0)
    marks = {one.judge(s.tcp(ISN + 1 + len(OPEN), b"x"), 1.0, PROVEN if with_proof else 0).mark for _ in range(20)}
    assert ("done" in marks) == (unproven == "answer" and not with_proof)
