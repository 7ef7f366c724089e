"""One pair of addresses and ports, several connections: what was blocked stays so, what is new is judged anew."""

import random

import pytest

from core import samples as s
from edgeblock.blocklist.load import load
from edgeblock.core.engine import Engine

FIRST, SECOND, PROVEN = 1_000_000, 500_000_000, 2


def engine_for(tmp_path, name="listed.example", **settings):
    (tmp_path / "a.list").write_text(name + "\n")
    return Engine(load(tmp_path).matcher, report=True, **settings)


def opened(engine, isn, hello, now, flags=0):
    assert engine.judge(s.tcp(isn, flags=s.SYN), now).accept
    return engine.judge(s.tcp(isn + 1, hello), now, flags)


def test_a_new_connection_on_the_ports_of_a_blocked_one_is_innocent(tmp_path):
    engine = engine_for(tmp_path)
    assert opened(engine, FIRST, s.hello(b"listed.example"), 1.0).mark == "blocked"
    assert opened(engine, SECOND, s.hello(b"open.example"), 2.0).accept


def test_and_is_blocked_again_for_a_listed_name(tmp_path):
    engine = engine_for(tmp_path)
    opened(engine, FIRST, s.hello(b"listed.example"), 1.0)
    again = opened(engine, SECOND, s.hello(b"listed.example"), 2.0)
    assert (again.accept, again.reply, again.client_ack) == (False, True, SECOND + 1 +
                                                             len(s.hello(b"listed.example")))


def test_a_forged_syn_does_not_give_the_blocked_connection_back(tmp_path):
    # The SYN dies on the way; the server, whose RST was spoilt, still waits for the old connection's bytes.
    engine = engine_for(tmp_path)
    hello = s.hello(b"listed.example")
    opened(engine, FIRST, hello, 1.0)
    engine.judge(s.tcp(SECOND, flags=s.SYN), 2.0)
    for seq, piece in ((FIRST + 1, hello), (FIRST + 1, hello[:100]), (FIRST + 101, hello[100:])):
        assert not engine.judge(s.tcp(seq, piece), 3.0).accept
    assert opened(engine, SECOND, s.hello(b"open.example"), 4.0).accept


def test_a_decoy_that_is_blocked_gives_no_other_connection_back(tmp_path):
    # The real SYN; then one that dies, a listed name behind it, and a third SYN, so that the flow begins anew.
    for early in (b"", s.hello(b"listed.example")[:40]):
        engine = engine_for(tmp_path)
        engine.judge(s.tcp(FIRST, flags=s.SYN), 1.0)
        if early:
            assert engine.judge(s.tcp(FIRST + 1, early), 1.0).accept
        assert opened(engine, SECOND, s.hello(b"listed.example"), 1.0).mark == "blocked"
        assert engine.judge(s.tcp(2 * SECOND, flags=s.SYN), 1.0).accept
        rest = s.hello(b"listed.example")[len(early):]
        assert not engine.judge(s.tcp(FIRST + 1 + len(early), rest), 2.0).accept
        assert engine.judge(s.tcp(2 * SECOND + 1, s.hello(b"open.example")), 2.0).accept


def test_a_repeated_syn_changes_nothing(tmp_path):
    engine = engine_for(tmp_path)
    hello = s.hello(b"listed.example")
    opened(engine, FIRST, hello, 1.0)
    assert not engine.judge(s.tcp(FIRST, flags=s.SYN), 2.0).accept
    assert not engine.judge(s.tcp(FIRST + 1, hello), 2.0).accept


def test_ports_that_are_used_again_and_again_are_no_attack(tmp_path):
    engine = engine_for(tmp_path)
    for turn in range(40):
        seq = FIRST + turn * 50_000_000
        assert opened(engine, seq, s.hello(b"open.example"), 1.0 + turn).accept
        assert engine.judge(s.tcp(seq + 600, b"more"), 1.5 + turn).accept
        seq = SECOND - turn * 20_000_000
        assert opened(engine, seq, s.request(b"open.example"), 1.0 + turn).accept
    assert engine.counters()["overflows"] == 0
    assert not opened(engine, 7, s.hello(b"listed.example"), 50.0).accept


def test_a_stream_whose_syn_was_crowded_out_is_found_again(tmp_path):
    # Real SYN, a decoy hello that dies, then SYNs that die: the real hello comes last, cut behind its first byte.
    hello = s.hello(b"listed.example")
    for cut in (1, 5, 100):
        engine = engine_for(tmp_path)
        opened(engine, FIRST, s.hello(b"open.example"), 1.0)
        for turn in range(1, 9):
            engine.judge(s.tcp(FIRST + turn * 100_000_000, flags=s.SYN), 1.0)
        verdicts = [engine.judge(s.tcp(FIRST + 1 + at, piece), 2.0).accept
                    for at, piece in ((0, hello[:cut]), (cut, hello[cut:]))]
        assert not all(verdicts), cut


def test_a_syn_given_up_just_now_is_found_again_wherever_the_others_stand(tmp_path):
    # As many forged SYNs as it takes, and no more: far away, just below the real one, just above it, around it, so
    # that its next byte is where a half decoy ended; and where the real one was not the first, read as junk.
    decoy, near = s.hello(b"open.example"), FIRST - 100
    forged = {
        "far": [s.tcp(FIRST + turn * 100_000_000, flags=s.SYN) for turn in range(1, 5)],
        "below": [s.tcp(FIRST - turn * 1000, flags=s.SYN) for turn in range(1, 5)],
        "above": [s.tcp(FIRST + turn * 1000, flags=s.SYN) for turn in range(1, 5)],
        "around": [s.tcp(FIRST + step, flags=s.SYN) for step in (-2000, -1000, 1000, 2000)],
        "adjacent": [*(s.tcp(FIRST + turn * 100_000_000, flags=s.SYN) for turn in range(1, 4)),
                     s.tcp(near, flags=s.SYN), s.tcp(near + 1, decoy[:100])],
    }
    for how, packets in forged.items():
        for data in (s.hello(b"listed.example"), s.request(b"listed.example")):
            for cut in (0, 1, 5, 100):
                engine = engine_for(tmp_path)
                opened(engine, FIRST, decoy, 1.0)
                for packet in packets:
                    engine.judge(packet, 1.0)
                verdicts = [engine.judge(s.tcp(FIRST + 1 + at, piece), 2.0).accept
                            for at, piece in ((0, data[:cut]), (cut, data[cut:])) if piece]
                assert not all(verdicts), (how, cut)
    # The server has the beginning that both hellos share; the end of the decoy died, and the SYNs after it.
    listed, decoy = s.hello(b"listed.example"), s.hello(b"listed.exampla")
    cut = listed.index(b"exampl") + 6
    engine = engine_for(tmp_path)
    opened(engine, FIRST, decoy[:cut], 1.0)
    engine.judge(s.tcp(FIRST + 1 + cut, decoy[cut:]), 1.0)
    for packet in forged["far"]:
        engine.judge(packet, 1.0)
    assert not engine.judge(s.tcp(FIRST + 1 + cut, listed[cut:]), 2.0).accept
    engine = engine_for(tmp_path)
    engine.judge(s.tcp(5, flags=s.SYN), 1.0)
    opened(engine, FIRST, b"\xff junk", 1.0)
    for packet in forged["far"][:3]:
        engine.judge(packet, 1.0)
    assert not engine.judge(s.tcp(FIRST + 1, s.hello(b"listed.example")), 2.0).accept


def test_pieces_in_any_order_on_ports_used_again_and_again_are_no_attack(tmp_path):
    hello = s.hello(b"open.example")
    for data in (hello, s.request(b"open.example")):
        engine = engine_for(tmp_path)
        for turn in range(20):
            seq = FIRST + turn * 50_000_000
            assert engine.judge(s.tcp(seq, flags=s.SYN), 1.0 + turn).accept
            for at, end in ((40, 70), (0, 40), (70, len(data)), (0, 40)):
                assert engine.judge(s.tcp(seq + 1 + at, data[at:end]), 1.0 + turn).accept
            for at in range(len(data), len(data) + 3000, 1000):
                assert engine.judge(s.tcp(seq + 1 + at, b"\x17\x03\x03" + bytes(997)), 1.5 + turn).accept


def test_a_listed_address_stays_blocked_on_ports_used_again(tmp_path):
    engine = engine_for(tmp_path, s.SERVER)
    for seq in (FIRST, SECOND, FIRST + SECOND):
        assert not engine.judge(s.tcp(seq, flags=s.SYN), 1.0).accept
        assert not engine.judge(s.tcp(seq + 1, s.hello(b"open.example")), 1.0).accept


def test_two_connections_half_the_number_space_apart(tmp_path):
    # Found by fuzzing: once the first was read on, the second's bytes counted as 2**32 away from its SYN.
    engine = engine_for(tmp_path)
    far = FIRST + (1 << 31)
    for isn in (FIRST, far):
        assert engine.judge(s.tcp(isn, flags=s.SYN), 1.0).accept
    assert engine.judge(s.tcp(FIRST + 1, s.hello(b"open.example")), 2.0).accept
    assert engine.judge(s.tcp(far + 1, s.hello(b"listed.example")), 3.0).mark == "blocked"


def test_ports_that_were_blocked_several_times_are_not_lost_to_an_innocent_name(tmp_path):
    # Many customers behind one address: the same ports come round again, for a listed name and for others.
    engine = engine_for(tmp_path)
    for turn in range(8):
        assert not opened(engine, FIRST + turn * 100_000_000, s.hello(b"listed.example"), 1.0 + turn).accept
    assert opened(engine, FIRST + 8 * 100_000_000, s.hello(b"open.example"), 20.0).accept
    rest = s.hello(b"listed.example")[100:]
    for turn in range(8):
        assert not engine.judge(s.tcp(FIRST + turn * 100_000_000 + 101, rest), 21.0).accept


@pytest.mark.parametrize("pieces", ["whole", "split", "reversed"])
@pytest.mark.parametrize("kind", ["tls", "http"])
def test_hundreds_of_connections_on_the_same_ports_do_not_fill_the_window(tmp_path, kind, pieces):
    # Each as large as a browser's; in all more than is kept of a flow.
    def data(name: bytes) -> bytes:
        return (s.hello(name, before=s.extension(51, bytes(1200))) if kind == "tls"
                else s.request(name, b"/" + b"x" * 1200))

    engine = engine_for(tmp_path)
    for turn in range(500):
        seq, message = FIRST + turn * 15_600_000, data(b"open.example")
        cut = 0 if pieces == "whole" else 700
        parts = [(0, message[:cut]), (cut, message[cut:])] if cut else [(0, message)]
        assert engine.judge(s.tcp(seq, flags=s.SYN), 1.0 + turn).accept, turn
        for at, part in parts[::-1] if pieces == "reversed" else parts:
            assert engine.judge(s.tcp(seq + 1 + at, part), 1.0 + turn).accept, turn
        assert engine.counters()["table_bytes"] < 64 * 1024
    counted = engine.counters()
    assert counted["overflows"] == counted["window_full"] == 0
    assert not opened(engine, FIRST + 7_000_000, data(b"listed.example"), 600.0).accept


def test_another_copy_of_what_is_not_kept_any_more_is_an_overflow(tmp_path):
    # Of the first hello, an innocent one, the server has only the end. Others follow, and then a listed beginning.
    first, listed = s.hello(b"xxxxed.example"), s.hello(b"listed.example")
    cut = listed.index(b"ed.example")
    for turns in (3, 8, 12, 14, 200, 400):
        engine = engine_for(tmp_path)
        assert opened(engine, FIRST, first, 1.0).accept
        for turn in range(1, turns):
            assert opened(engine, FIRST + turn * 9_000_000, s.hello(b"open.example"), 1.0).accept, turn
        assert not engine.judge(s.tcp(FIRST + 1, listed[:cut]), 2.0).accept, turns


NEIGHBOURS = (1, 64, 1000, 65_537, 500_000, (1 << 20) - 1)


@pytest.mark.parametrize("proof", [0, PROVEN], ids=["nobody is asked", "proven"])
@pytest.mark.parametrize("kind", ["tls", "http"])
@pytest.mark.parametrize("step", [*NEIGHBOURS, *(-one for one in NEIGHBOURS)])
def test_the_innocent_neighbour_of_a_blocked_stream(tmp_path, step, kind, proof):
    # Its bytes begin that far behind the last of the blocked stream, or end that far before the first.
    listed, innocent = ((s.hello(b"listed.example"), s.hello(b"open.example")) if kind == "tls" else
                        (s.request(b"listed.example"), s.request(b"open.example")))
    engine = engine_for(tmp_path, unproven="drop" if proof else "answer")
    opened(engine, FIRST, listed, 1.0, proof)
    end = FIRST + 1 + len(listed)
    isn = end + step if step > 0 else FIRST - len(innocent) + step
    for _ in range(2):
        assert engine.judge(s.tcp(isn, flags=s.SYN), 1.1).accept
    half = len(innocent) // 2
    for at, piece in ((0, innocent[:half]), (half, innocent[half:])):
        assert engine.judge(s.tcp(isn + 1 + at, piece), 1.2, proof).accept
    # The blocked stream's bytes and what continues them are none of that connection's.
    for seq, piece in ((FIRST + 1, listed), (FIRST + 1, listed[:9]), (end - 5, listed[-5:]), (end, listed[:1])):
        assert not engine.judge(s.tcp(seq, piece), 1.3, proof).accept
    rest = s.request(b"listed.example")
    if kind == "http":
        assert not engine.judge(s.tcp(isn + 1 + len(innocent), rest), 1.4, proof).accept


@pytest.mark.parametrize("cut", [0, 1, 60])
@pytest.mark.parametrize("step", NEIGHBOURS)
def test_a_syn_close_behind_gives_nothing_of_the_blocked_stream_back(tmp_path, step, cut):
    # The server has the first bytes and waits for the next one; SYNs that die stand close behind.
    listed = s.hello(b"listed.example")
    engine = engine_for(tmp_path)
    engine.judge(s.tcp(FIRST, flags=s.SYN), 1.0)
    if cut:
        assert engine.judge(s.tcp(FIRST + 1, listed[:cut]), 1.0).accept
    assert engine.judge(s.tcp(FIRST + 1 + cut, listed[cut:]), 1.0).mark == "blocked"
    end = FIRST + 1 + len(listed)
    for turn in range(6):
        engine.judge(s.tcp(end + step * (1 + turn), flags=s.SYN), 1.1)
        engine.judge(s.tcp(end + step * (1 + turn) + 1, s.hello(b"open.example")), 1.1)
    for first, last in ((cut, len(listed)), (cut, cut + 1), (0, cut + 1), (max(cut - 1, 0), cut + 9)):
        assert not engine.judge(s.tcp(FIRST + 1 + first, listed[first:last]), 1.2).accept


def test_however_often_ports_were_blocked_a_new_connection_there_is_judged(tmp_path):
    # One of eight is listed, until the numbers of a kernel's clock come round.
    engine = engine_for(tmp_path)
    seq = FIRST
    for turn in range((1 << 32) // 15_700_000):
        seq += 15_600_000 + turn
        listed = turn % 8 == 7
        hello = s.hello(b"listed.example" if listed else b"open.example")
        assert opened(engine, seq, hello, 1.0 + turn / 100).accept != listed, turn
    assert engine.counters()["table_bytes"] < 16 * 1024


def test_of_more_streams_than_are_remembered_the_closest_are_one(tmp_path):
    engine = engine_for(tmp_path)
    random.seed(1)
    isns = [random.getrandbits(32) for _ in range(600)]
    listed, open_ = s.hello(b"listed.example"), s.hello(b"open.example")
    for isn in isns:
        engine.judge(s.tcp(isn, flags=s.SYN), 1.0)
        assert not engine.judge(s.tcp(isn + 1, listed), 1.0).accept
    for isn in isns:
        assert not engine.judge(s.tcp(isn + 1, listed[:50]), 1.1).accept
        assert not engine.judge(s.tcp(isn + 1, open_), 1.1).accept
    assert engine.counters()["table_bytes"] < 16 * 1024


@pytest.mark.parametrize("ahead", [64, 65_537, 200_000, 700_000])
def test_ports_that_come_round_at_once_with_the_next_sequence_numbers_are_no_attack(tmp_path, ahead):
    # With tcp_tw_reuse Linux begins 65 537 behind the last byte of the connection before.
    engine = engine_for(tmp_path)
    seq = FIRST
    for turn in range(60):
        hello = s.hello(b"open.example", before=s.extension(21, bytes(turn * 7 % 300)))
        cut = turn * 13 % len(hello)
        assert engine.judge(s.tcp(seq, flags=s.SYN), 1.0 + turn).accept, turn
        for at, part in ((0, hello[:cut]), (cut, hello[cut:])):
            assert not part or engine.judge(s.tcp(seq + 1 + at, part), 1.0 + turn).accept, turn
        seq += 1 + len(hello) + ahead
    assert engine.counters()["overflows"] == 0
    assert not opened(engine, seq, s.hello(b"listed.example"), 62.0).accept


@pytest.mark.parametrize("decoys", range(1, 20))
def test_a_listed_hello_in_two_pieces_behind_any_number_of_decoys(tmp_path, decoys):
    # Each decoy is a SYN and an innocent hello that die on the way; then the real hello on any of those streams.
    listed = s.hello(b"listed.example")
    for real in range(decoys):
        for cut in (4, 87):
            engine = engine_for(tmp_path)
            for turn in range(decoys):
                assert opened(engine, FIRST + turn * 9_000_000, s.hello(b"open.example"), 1.0).accept
            made = [engine.judge(s.tcp(FIRST + real * 9_000_000 + 1 + at, part), 2.0)
                    for at, part in ((0, listed[:cut]), (cut, listed[cut:]))]
            assert not all(one.accept for one in made), (real, cut)


# ---- kept connections, one behind the other

GAP = 65_537        # Linux adds it to the last sequence number where it takes a port again at once (tcp_tw_reuse)


def asked(engine, isn, at, count, now, host=b"open.example"):
    """Requests one behind the other, the first at that offset. The offset behind them, and whether all passed."""
    passed = True
    for number in range(count):
        request = b"GET /%d HTTP/1.1\r\nHost: %s\r\nX: %s\r\n\r\n" % (number, host, b"x" * 250)
        passed = engine.judge(s.tcp(isn + 1 + at, request, dport=80), now).accept and passed
        at += len(request)
    return at, passed


@pytest.mark.parametrize("before", [1, 100, 1000])
def test_a_kept_connection_close_behind_another_is_innocent(tmp_path, before):
    engine = engine_for(tmp_path)
    isn, now = FIRST, 1.0
    for _ in range(6):
        assert engine.judge(s.tcp(isn, flags=s.SYN, dport=80), now).accept
        at, passed = asked(engine, isn, 0, before, now)
        assert passed
        at, passed = asked(engine, isn, at, 1000, now)
        assert passed
        last, isn = isn + 1 + at, isn + 1 + at + GAP
        now += 1.0
    assert engine.counters()["overflows"] == engine.counters()["window_full"] == 0
    assert not asked(engine, last - 1, 0, 1, now, b"listed.example")[1]


@pytest.mark.parametrize("cuts", [(), (9,), (40,), (9, 40)])
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("early", [0, 1])
@pytest.mark.parametrize("syns", [1, 4, 9])
def test_the_connection_before_may_go_on_all_the_same(tmp_path, cuts, order, early, syns):
    # The second SYN and all behind it died on the way. What is early comes before them.
    engine = engine_for(tmp_path)
    engine.judge(s.tcp(FIRST, flags=s.SYN, dport=80), 1.0)
    at, _ = asked(engine, FIRST, 0, 3, 1.0)
    request = b"GET / HTTP/1.1\r\nHost: listed.example\r\n\r\n"
    pieces = [(low, request[low:high]) for low, high in zip((0, *cuts), (*cuts, len(request)), strict=True)][::order]
    passed = []

    def send(some):
        for low, piece in some:
            passed.append(engine.judge(s.tcp(FIRST + 1 + at + low, piece, dport=80), 3.0).accept)

    send(pieces[:early])
    for number in range(syns):
        other = FIRST + 1 + at + GAP * (1 + number)
        engine.judge(s.tcp(other, flags=s.SYN, dport=80), 2.0)
        passed.append(asked(engine, other, 0, 100 if number < syns - 1 else 1000, 2.0)[1])
    send(pieces[early:])
    assert not all(passed)
