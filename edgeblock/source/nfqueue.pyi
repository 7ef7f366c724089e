# What Python sees of nfqueue.pyx, for type checkers.

from collections.abc import Callable
from typing import Any

from _typeshed import WriteableBuffer

from edgeblock.core.decision import Decision
from edgeblock.core.engine import Engine
from edgeblock.source.begun import Begun
from edgeblock.source.marking import Marking
from edgeblock.source.recall import Recall

class QueueReader:
    begun: Begun | None
    marking: Marking | None
    recall: Recall | None
    @property
    def engine(self) -> Engine: ...
    @property
    def number(self) -> int: ...
    @property
    def failure(self) -> str | Any: ...     # None while `failures` is 0
    @property
    def failures(self) -> int: ...
    @property
    def condemned(self) -> int: ...
    @property
    def paused(self) -> bool: ...
    @property
    def marks_by_verdict(self) -> bool: ...
    def __init__(
        self,
        number: int,
        engine: Engine,
        on_decision: Callable[[bytes, Decision], object],
        *,
        length: int = 8192,
        buffer: int = 8_388_608,
        fail_open: bool = True,
        marks: tuple[int, int, int, int] = (0x30000000, 0x10000000, 0x20000000, 0x30000000),
        board: WriteableBuffer | None = None,
        proof_mark: int = 0,
        held: int = -1,
        held_marks: bool = False,
        held_counts: tuple[int, int] = (0, 0),
        blame: str = "nothing",
        blame_seconds: float = 120.0,
        pass_condemned: bool = False,
    ) -> None: ...
    def fileno(self) -> int: ...
    def drain(self) -> int: ...
    def counters(self) -> dict[str, int]: ...
    def close(self) -> None: ...
