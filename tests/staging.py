"""Plays packets to the first stage and the engine as the kernel rules and the daemon do.

In: packets as bytes. Out: what was decided, as core.playing tells it: what the stage lets by the engine does not see.
"""

import struct
from collections.abc import Iterable

from edgeblock.core.decision import MARKS, Decision
from edgeblock.core.engine import Engine
from edgeblock.core.packet import view
from edgeblock.netfilter.policy import ANSWER_BYTES, ANSWER_OTHER_BYTES, NEITHER, TLS_ANSWERS, TLS_HANDSHAKE
from edgeblock.netfilter.stage1 import Stage, bpf
from edgeblock.source.marking import Marking
from edgeblock.source.recall import Recall
from tests.core.playing import Played

PASSED = Decision(True)


class Box:
    """A first stage, its reader and an engine with the same rules."""

    def __init__(self, stage: Stage, engine: Engine):
        self.stage = stage
        self.engine = engine
        self.recall = Recall(*self.stage.memory()[:2], self.stage.places, self.stage.secret)
        snapshot = engine.matcher.snapshot
        self.stage.offer(snapshot.parts, snapshot.key)
        self.stage.settle()
        self.asked = 0

    def judge(self, packet: bytes, now: float, flags: int = 0) -> Decision:
        """As the kernel rules do: what certainly has no payload passes them unasked, unless it is a SYN."""
        if is_tcp(packet) and is_bare(packet):
            return self.engine.judge(packet, now, flags)    # for the marks of flows that are blocked
        if is_tcp(packet) and self.stage.judge(packet):
            return PASSED
        self.recall.prepare(self.engine, packet, now)
        self.asked += 1
        return self.engine.judge(packet, now, flags)

    def play(self, packets, start: float = 0.0, step: float = 0.001, flags: int = 0) -> Played:
        """As core.playing.play. The stage starts from nothing; loading one takes half a second, so it serves many."""
        packets = list(packets)
        self.forget(packet[1] if isinstance(packet, tuple) else packet for packet in packets)
        played = Played()
        now = start
        for packet in packets:
            if isinstance(packet, tuple):
                now += packet[0]
                packet = packet[1]
            decision = self.judge(packet, now, flags)
            played.decisions.append(decision)
            if decision.accept:
                played.accepted.append(packet)
            now += step
        played.counters = self.engine.counters()
        return played

    def forget(self, packets: Iterable[bytes]) -> None:
        """The kernel remembers nothing of these packets' flows any more."""
        for key in {key_of(packet) for packet in packets if is_tcp(packet)}:
            forget_flow(self.stage, key)


def forget_flow(stage: Stage, key: bytes) -> None:
    """The kernel remembers nothing of the flow any more."""
    for name in ("flows", "engine"):
        bpf.delete(stage.maps[name], key)
    place = place_of_part(key, stage)
    hellos = stage.maps["hellos"]
    bpf.update(hellos, struct.pack("=I", place), bytes(bpf.describe(hellos)[0].value_size))
    bpf.update(stage.maps["parts"], struct.pack("=I", place - stage.places + (stage.places + 3) // 4), bytes(8))


def place_of_part(key: bytes, stage: Stage) -> int:
    """Where the hello of that flow is of which more is to come, as structures.h has it."""
    number, parts = stage.secret, (stage.places + 3) // 4
    for (word,) in struct.iter_unpack("=Q", key):
        number = (number ^ word) * 0x9E3779B97F4A7C15 & (1 << 64) - 1
        number ^= number >> 32
    return stage.places - parts + ((number >> 32) * parts >> 32)


class Tracking(Box):
    """The same where the programs keep the flow marks; the server's packets, too, are played to it.

    Attributes:
        passed: client's packets with data that the kernel let by.
    """

    def __init__(self, stage: Stage, engine: Engine):
        super().__init__(stage, engine)
        self.marking = Marking(stage.maps["marks"])
        self.passed = 0

    def judge(self, packet: bytes, now: float, flags: int = 0) -> Decision:
        """As the rules of netfilter/policy.py, for a client's TCP."""
        stage, syn = self.stage, view(packet).get("flags", 0) & 0x12 == 0x02
        if stage.ask("done", packet) and not syn:
            return PASSED
        if syn:
            stage.ask("reopened", packet)
        blocked = stage.ask("blocked", packet)
        if is_bare(packet):
            return Decision(not blocked)
        proven = not syn and stage.ask("proven", packet)
        if not blocked and (syn or proven) and stage.judge(packet):
            self.passed += not syn
            return PASSED
        self.recall.prepare(self.engine, packet, now)
        self.asked += 1
        made = self.engine.judge(packet, now, flags | 2 * proven)
        if made.mark != "keep":
            self.marking.mark(packet, MARKS.index(made.mark))
        return made

    def answer(self, packet: bytes) -> bool:
        """The same of the server's; whether it passes."""
        if self.stage.ask("done", packet):
            return True
        if self.stage.ask("blocked", packet):
            return False
        if is_answer(packet):
            self.stage.ask("answered", packet)
        return True


def is_answer(packet: bytes) -> bool:
    """Is.ANSWER of policy.py, but for HelloRetryRequest: no headers before TCP's, no options of IP."""
    at = 20 if packet[0] >> 4 == 4 else 40
    data = packet[at + (packet[at + 12] >> 4) * 4:]
    if len(packet) < ANSWER_BYTES or not data:
        return False
    if int.from_bytes(data[:2], "big") in (*TLS_ANSWERS, TLS_HANDSHAKE):
        return True
    return len(packet) >= ANSWER_OTHER_BYTES and any(first <= data[0] <= last for first, last in NEITHER)


def key_of(packet: bytes) -> bytes:
    """struct key of structures.h."""
    seen = view(packet)
    ports = seen.get("sport", 0) << 16 | seen.get("dport", 0)
    return struct.pack("=16s16s4sI", seen.get("source", b""), seen.get("destination", b""), ports.to_bytes(4, "big"),
                       seen["family"])


def is_tcp(packet: bytes) -> bool:
    """As `-p tcp` asks, headers before it walked."""
    if not packet:
        return False
    if packet[0] >> 4 == 4:
        return len(packet) > 9 and packet[9] == 6
    kind, at = packet[6] if len(packet) > 6 else 0, 40
    while kind in (0, 43, 44, 60) and at + 8 <= len(packet):
        kind, at = packet[at], at + (8 if kind == 44 else 8 + 8 * packet[at + 1])
    return kind == 6


def is_bare(packet: bytes) -> bool:
    """As netfilter.bytecode.bare asks: no SYN, and nothing urgent."""
    if packet[0] >> 4 == 4:
        at = (packet[0] & 15) * 4
    elif packet[6] == 6:
        at = 40
    else:
        return False
    if len(packet) < at + 20:
        return False
    return len(packet) == at + (packet[at + 12] >> 4) * 4 and packet[at + 13] & 0x12 != 0x02 and \
        not packet[at + 13] & 0x20
