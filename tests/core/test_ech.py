"""Entries for hellos with an Encrypted ClientHello alone: whichever way the hello comes, and what is counted."""

import pytest
from quic_packets import DCID, crypto, initial

from edgeblock.blocklist.settings import ListSettings
from edgeblock.core.engine import Engine
from edgeblock.disguises.streams import MIDWAY, STRATEGIES, Path
from tests.blocklist.making import matcher_of
from tests.core import samples as s
from tests.core.playing import OTHER, engine, play
from tests.core.test_quic_engine import TRUST, udp

PUBLIC = b"public.example"
HELLOS = {"before": s.hello(PUBLIC, before=s.ECH), "behind": s.hello(PUBLIC, behind=s.ECH)}
OVERFLOWING = ("each_byte_twice", "many_syns")


def listed(**settings):
    return engine("public.example ech=only", **settings)


def sent(data):
    path = Path()
    return [*path.opening(), path.data(0, data)]


@pytest.mark.parametrize("place", HELLOS)
def test_a_listed_name_is_blocked_in_a_hello_with_ech_alone(place):
    played = play(listed(), sent(HELLOS[place]))
    assert played.blocked and played.verdict.list == "list" and played.verdict.action == "reset"
    [name] = [name for name in played.names if name.action == "reset"]
    assert (name.host, name.list, name.ech, name.policy) == ("public.example", "list", True, None) and name.rule
    assert (played.counters["hellos_ech"], played.counters["hellos_ech_known"]) == (1, 1)
    assert played.counters["blocked_reset"] == 1 and played.counters["blocked_policy"] == 0
    played = play(listed(), sent(s.hello(PUBLIC)))
    assert not played.blocked and played.counters["hellos_ech"] == played.counters["hellos_ech_known"] == 0


@pytest.mark.parametrize("place", HELLOS)
def test_a_browsers_grease_to_another_name_passes(place):
    for name in (OTHER, b"public.example.com", b"notpublic.example"):
        played = play(listed(), sent(s.hello(name, **{place: s.ECH})))
        assert not played.blocked and len(played.accepted) == 3
        assert (played.counters["hellos_ech"], played.counters["hellos_ech_known"]) == (1, 0)


@pytest.mark.parametrize("place", HELLOS)
def test_every_cut_in_two_in_both_orders(place):
    data, path = HELLOS[place], Path()
    for cut in range(1, len(data)):
        first, second = path.data(0, data[:cut]), path.data(cut, data[cut:])
        for pieces in ((first, second), (second, first)):
            assert play(listed(report=False), [*path.opening(), *pieces]).blocked, cut


@pytest.mark.parametrize("how", sorted(STRATEGIES | MIDWAY))
@pytest.mark.parametrize("place", HELLOS)
def test_however_it_is_sent(how, place):
    for data, blocked in ((HELLOS[place], True), (s.hello(PUBLIC), how in OVERFLOWING)):
        packets = (STRATEGIES | MIDWAY)[how](Path(), data, data.index(PUBLIC), len(PUBLIC))
        assert play(listed(), packets).blocked == blocked


@pytest.mark.parametrize("place", HELLOS)
def test_over_quic_and_dtls(place):
    message = s.hello_message(PUBLIC, **{place: s.ECH})
    for hello, blocked in ((message, True), (s.hello_message(PUBLIC), False)):
        one = listed()
        assert one.judge(udp(initial(crypto(0, hello), dcid=DCID)), 1.0, TRUST).accept is not blocked
        one = listed()
        half = len(hello) // 2
        first = one.judge(udp(initial(crypto(0, hello[:half]), dcid=DCID)), 1.0, TRUST)
        second = one.judge(udp(initial(crypto(half, hello[half:]), dcid=DCID, number=1)), 1.1, TRUST)
        assert first.accept and second.accept is not blocked
        if blocked:
            assert [(name.proto, name.host, name.action) for name in second.names][-1] == (
                "quic", "public.example", "reset")


def test_of_several_names_any_counts_and_a_second_hello_too():
    for names in ((PUBLIC, OTHER), (OTHER, PUBLIC)):
        assert play(listed(), sent(s.hello(*names, behind=s.ECH))).blocked
        assert not play(listed(), sent(s.hello(*names))).blocked
    path = Path()
    first, second = s.hello(PUBLIC), HELLOS["behind"]
    assert play(listed(), [*path.opening(), path.data(0, first), path.data(len(first), second)]).blocked
    assert play(listed(), sent(first + second)).blocked


def test_what_else_is_said_of_the_name_counts_as_ever():
    assert play(engine("public.example ech=only", "public.example"), sent(s.hello(PUBLIC))).blocked
    assert not play(engine("public.example ech=only", "@@public.example"), sent(HELLOS["before"])).blocked
    both = engine("public.example ech=only", "@@www.public.example")
    assert not play(both, sent(s.hello(b"www.public.example", before=s.ECH))).blocked
    assert play(engine("*.public.example ech=only"), sent(s.hello(b"a.public.example", behind=s.ECH))).blocked
    assert not play(engine("=public.example ech=only"), sent(s.hello(b"a.public.example", behind=s.ECH))).blocked


def test_to_be_reported_only():
    played = play(listed(action="observe"), sent(HELLOS["behind"]))
    assert not played.blocked and played.counters["observed"] == 1
    assert [(name.host, name.action) for name in played.names][-1] == ("public.example", "observe")


def test_a_policy_that_blocks_every_hello_with_ech_says_that_it_did():
    played = play(listed(ech="block"), sent(HELLOS["before"]))
    assert played.blocked and played.counters["blocked_policy"] == 1
    assert [name.policy for name in played.names if name.action == "reset"] == ["ech"]


def test_ports_that_come_round_again_are_another_hello():
    judge, path = listed(), Path()
    hello = s.hello(PUBLIC)
    assert not play(judge, [*path.opening(), path.data(0, hello)]).blocked
    again = Path(isn=0x70000000)
    data = s.hello(OTHER, before=s.ECH)
    assert not play(judge, [*again.opening(), again.data(0, data)], start=500.0).blocked


def test_out_of_its_window_it_passes():
    judge = engine("public.example ech=only until=2020-01-01")
    assert not play(judge, sent(HELLOS["before"])).blocked and judge.counters()["hellos_ech_known"] == 0
    judge = engine("public.example ech=only until=9000-01-01 order=7")
    played = play(judge, sent(HELLOS["before"]))
    assert played.blocked and [name.order for name in played.names if name.action == "reset"] == ["7"]


def test_lists_that_change_within_a_hello_are_asked_anew():
    """The number of a list means nothing to other lists."""
    cut = HELLOS["behind"].index(PUBLIC) + len(PUBLIC) + 2
    other = matcher_of(("a", None, ["x.example"]))
    same = matcher_of(("a", None, ["x.example"]), ("b", None, ["public.example ech=only"]))
    lifted = matcher_of(("a", None, ["x.example"]), ("b", None, ["y.example"]), ("z", None, ["@@public.example"]))
    for after, by in ((other, None), (lifted, None), (same, "b")):
        judge = Engine(matcher_of(("z", None, ["public.example ech=only"])))
        path = Path()
        for packet in [*path.opening(), path.data(0, HELLOS["behind"][:cut])]:
            judge.judge(packet, 1.0)
        judge.matcher = after
        decided = judge.judge(path.data(cut, HELLOS["behind"][cut:]), 1.0)
        assert (decided.accept, decided.list) == (by is None, by)


def test_of_two_names_in_a_hello_the_one_that_is_blocked_counts():
    rules = matcher_of(("court", None, ["public.example ech=only"]),
                       ("watch", ListSettings(action="observe"), ["watch.example ech=only"]))
    for one, other in ((PUBLIC, b"watch.example"), (b"watch.example", PUBLIC)):
        names = one + b"\0" + len(other).to_bytes(2) + other
        data = s.hello(b"X" * len(names), behind=s.ECH)
        at = data.index(b"X" * len(names))
        data = data[:at - 2] + len(one).to_bytes(2) + names + data[at + len(names):]
        assert play(Engine(rules), sent(data)).blocked


def test_the_noise_of_another_hello_is_not_taken_for_that_of_the_listed_name():
    first, second = s.hello(PUBLIC), s.hello(OTHER, behind=s.ECH)
    path = Path()
    packets = [*path.opening(), path.data(0, first), path.data(len(first), second)]
    assert not play(listed(), packets).blocked
