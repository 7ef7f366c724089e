# What Python sees of engine.pyx, for type checkers.

from _typeshed import ReadableBuffer

from edgeblock.core.decision import Decision
from edgeblock.core.matcher import Matcher
from edgeblock.core.sketch import Sketches

COUNTER_NAMES: tuple[str, ...]

def plain_host(data: bytes) -> str: ...

class Engine:
    matcher: Matcher
    sketches: Sketches | None
    by_steps: bool
    def __init__(
        self,
        matcher: Matcher,
        *,
        flows: int = 262_144,
        memory: int = 268_435_456,
        flow_bytes: int = 163_840,
        idle: float = 120.0,
        hold: float = 7440.0,
        settle_packets: int = 512,
        unparsable: str = "pass",
        midstream: str = "pass",
        memory_full: str = "pass",
        conflict: str = "drop",
        work: str = "drop",
        no_sni: str = "pass",
        crash: str = "drop",
        ech: str = "accept",
        quic_connections: int = 8,
        quic_derivations: int = 64,
        quic_failures: int = 100_000,
        quic_worker_derivations: int = 1_000_000,
        worker_rereading: int = 33_554_432,
        unproven: str = "answer",
        report: bool = False,
    ) -> None: ...
    def judge(self, packet: ReadableBuffer, now: float, flags: int = 0) -> Decision: ...
    def judge_all(self, packets: list[bytes], now: float, flags: int = 0) -> int: ...
    def counters(self) -> dict[str, int]: ...
    def share_secret(self, secret: ReadableBuffer) -> None: ...
