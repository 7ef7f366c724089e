"""Plays packets to an engine and says what a server behind it would have: one client, one connection.

Comes in: packets as bytes. Goes out: what was decided, and which of the stream's bytes were let through.
"""

from dataclasses import dataclass, field

from edgeblock.core.decision import Decision, Name
from edgeblock.core.engine import Engine
from tests.blocklist.making import matcher

LISTED, OTHER = b"blocked.example.com", b"www.innocent.example"


@dataclass
class Played:
    """What became of a list of packets."""

    decisions: list[Decision] = field(default_factory=list)
    accepted: list[bytes] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)

    @property
    def names(self) -> list[Name]:
        return [name for decision in self.decisions for name in decision.names]

    @property
    def hosts(self) -> list[str | None]:
        return [name.host for name in self.names]

    @property
    def blocked(self) -> bool:
        return any(decision.mark == "blocked" for decision in self.decisions)

    @property
    def verdict(self) -> Decision:
        """The decision that blocked the flow."""
        return next(decision for decision in self.decisions if decision.mark == "blocked")


def engine(*lines: str, report: bool = True, action: str = "reset", **settings) -> Engine:
    """An engine with one list of `lines`."""
    return Engine(matcher(*lines, action=action), report=report, **settings)


def play(judge: Engine, packets, start: float = 0.0, step: float = 0.001, flags: int = 0) -> Played:
    """Judges packets, `step` seconds apart. A packet may be a pair (seconds to wait before it, bytes)."""
    played = Played()
    now = start
    for packet in packets:
        if isinstance(packet, tuple):
            now += packet[0]
            packet = packet[1]
        decision = judge.judge(packet, now, flags)
        played.decisions.append(decision)
        if decision.accept:
            played.accepted.append(packet)
        now += step
    played.counters = judge.counters()
    return played
