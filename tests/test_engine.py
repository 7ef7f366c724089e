"""Each limit and policy of a configuration arrives in the engine."""

import struct
from dataclasses import fields, replace

import pytest
from quic_packets import crypto, initial

from edgeblock.config import Config, Limits, Policies
from edgeblock.core.matcher import Matcher
from edgeblock.engine import make_engine

TRUST = 1


class Recorder:
    """Takes the place of Engine and keeps what it was made with."""

    def __init__(self, matcher: Matcher, **settings: object) -> None:
        self.settings = settings


def test_every_key_is_handed_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edgeblock.engine.Engine", Recorder)
    made = make_engine(Config(), Matcher())
    keys = {key.name for key in fields(Limits)} | {key.name for key in fields(Policies)} - {"memory"}
    assert set(made.settings) == keys | {"memory_full", "report", "unproven"}
    assert made.settings["memory"] == Limits.memory and made.settings["memory_full"] == "pass"


def test_an_engine_takes_every_default():
    assert make_engine(Config(), Matcher(), report=True).counters()["packets"] == 0


def udp(payload: bytes, port: int) -> bytes:
    header = struct.pack(">HHHH", port, 443, 8 + len(payload), 0)
    return struct.pack(">BBHIBBH4s4s", 0x45, 0, 28 + len(payload), 0, 64, 17, 0, bytes((192, 0, 2, 2)),
                       bytes((203, 0, 113, 7))) + header + payload


def play(**limits: int) -> dict[str, int]:
    """Three connections on one pair of ports, and packets that only an older one's keys open; one with two ids."""
    config = replace(Config(), limits=replace(Limits(), **limits))
    engine = make_engine(config, Matcher())
    for i in range(3):
        engine.judge(udp(initial(crypto(0, b"\1"), dcid=bytes([i]) * 8), 40_000), 1.0, TRUST)
        engine.judge(udp(initial(crypto(1, b"\0"), dcid=b"server's", keys_of=bytes(8), number=1), 40_000), 1.0, TRUST)
        engine.judge(udp(initial(crypto(1, b"\0"), dcid=b"none", keys_of=b"unknown", number=1), 40_000), 1.0, TRUST)
    both = b"".join(initial(crypto(0, b"\1"), dcid=name) for name in (b"elsewhere", b"somewhere"))
    engine.judge(udp(both, 40_001), 1.0, TRUST)
    return engine.counters()


@pytest.mark.parametrize("limit,counter", [
    ({"quic_derivations": 1}, "quic_refused_flow"), ({"quic_worker_derivations": 2}, "quic_refused_worker"),
    ({"quic_connections": 1, "quic_failures": 1}, "quic_refused_flow")])
def test_quic_budgets_are_obeyed(limit: dict[str, int], counter: str):
    assert play()[counter] == 0
    assert play(**limit)[counter] > 0
