# What Python sees of connections.pyx, for type checkers.

import builtins

from _typeshed import ReadableBuffer

from edgeblock.core.flow import FlowTable

class Connections:
    def __init__(
        self, table: FlowTable, connections: int, derivations: int, failures: int, worker_derivations: int
    ) -> None: ...

class Reader:
    def __init__(
        self,
        connections: int = 8,
        derivations: int = 64,
        failures: int = 100_000,
        worker_derivations: int = 1_000_000,
        flows: int = 4096,
    ) -> None: ...
    @property
    def connections(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    def names(
        self, datagram: ReadableBuffer, now: float = 0.0, port: int = 50_000, cap: int = 163_840
    ) -> tuple[set[str], list[builtins.bytes]]: ...
    def read(
        self, datagram: ReadableBuffer, now: float = 0.0, port: int = 50_000
    ) -> tuple[set[str], list[tuple[builtins.bytes, int, builtins.bytes]]]: ...
    def read_many(self, datagram: ReadableBuffer, times: int, forget: bool = True) -> int: ...
    def counters(self) -> dict[str, int]: ...
