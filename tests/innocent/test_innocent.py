"""No innocent client is touched, whatever it looks like: EDGEBLOCK_INNOCENT requests, 3000 unless it says otherwise.

And the same clients, asking for a listed host, are blocked one and all: the shapes are read, not passed over.
"""

import os
import time

import pytest

from tests.core.playing import engine
from tests.innocent.making import KINDS, LISTED, LISTS, SHAPES, Crowd

REQUESTS = int(float(os.environ.get("EDGEBLOCK_INNOCENT", "3000")))
SEED = int(os.environ.get("EDGEBLOCK_INNOCENT_SEED", time.time_ns() % 1_000_000))
AT_ONCE = 20_000            # connections that one engine sees


def test_no_innocent_is_touched():
    crowd, done, asked = Crowd(SEED), 0, dict.fromkeys(KINDS, 0)
    while done < REQUESTS:
        if crowd.number % AT_ONCE == 0:
            judge = engine(*LISTS)
        kind, packets, count = crowd.connection()
        for packet in packets:
            decision = judge.judge(packet, crowd.number * 0.01)
            assert decision.accept and decision.mark != "blocked", (SEED, kind, packets, decision)
        done += count
        asked[kind] += count
    print(f"{done:,} innocent requests over {crowd.number:,} connections, none touched: {asked}, seed {SEED}")
    assert all(asked.values())


@pytest.mark.parametrize("host", [LISTED, "www.listed.example", "only.example.net", "a.below.example.org"])
def test_the_same_of_a_listed_host_is_blocked(host: str):
    crowd, judge = Crowd(SEED, lambda _: host), engine(*LISTS)
    for _ in range(300):
        kind, packets, _ = crowd.connection()
        decisions = [judge.judge(packet, 0.0) for packet in packets]
        assert any(decision.mark == "blocked" or not decision.accept for decision in decisions), (SEED, kind, packets)


def test_the_noise_of_browsers_passes_every_policy_but_the_one_that_blocks_all_of_it():
    """Chromium's hellos have an Encrypted ClientHello that means nothing (GREASE). To a public name that is listed
    with ech=only the same bytes are as a real one, and blocked; other hellos to it are not."""
    noisy = {ech: 0 for ech in ("accept", "block-listed-addresses", "block")}
    for ech in noisy:
        crowd, judge = Crowd(SEED), engine("public.example ech=only", ech=ech)
        for _ in range(1500):
            before = judge.counters()["hellos_ech"]
            packets = crowd.connection()[1]
            stopped = any(not judge.judge(packet, crowd.number * 0.01).accept for packet in packets)
            has_noise = judge.counters()["hellos_ech"] > before
            noisy[ech] += has_noise
            assert stopped == (has_noise and ech == "block")
        assert judge.counters()["hellos_ech_known"] == 0
    crowd, judge, blocked = Crowd(SEED, lambda _: "public.example"), engine("public.example ech=only"), 0
    for _ in range(1500):
        before = judge.counters()["hellos_ech"]
        packets = crowd.connection()[1]
        stopped = any(not judge.judge(packet, crowd.number * 0.01).accept for packet in packets)
        assert stopped == (judge.counters()["hellos_ech"] > before)
        blocked += stopped
    assert blocked and min(noisy.values())


def test_there_are_shapes_of_every_kind():
    assert len(SHAPES) > 50
    assert all(sum(len(shape.get(kind, ())) for shape in SHAPES.values()) >= least
               for kind, least in (("http", 40), ("tls", 30), ("http2", 3), ("quic", 2)))
