"""One pair of addresses and ports, several connections: what was blocked stays so, what is new is judged anew."""

from core import samples as s
from edgeblock.blocklist.rules import load
from edgeblock.core.engine import Engine

FIRST, SECOND = 1_000_000, 500_000_000


def engine_for(tmp_path, name="listed.example"):
    (tmp_path / "a.list").write_text(name + "\n")
    return Engine(load(tmp_path).matcher, report=True)


def opened(engine, isn, hello, now):
    assert engine.judge(s.tcp(isn, flags=s.SYN), now).accept
    return engine.judge(s.tcp(isn + 1, hello), now)


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
