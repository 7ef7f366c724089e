# What Python sees of matcher.pyx, for type checkers.

from typing import NamedTuple

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.holding import Holder
from edgeblock.blocklist.snapshot import Snapshot

PROTOCOLS: dict[str, int]

class Found(NamedTuple):
    action: str
    list: str
    rule: str
    order: str = ""

class Row(NamedTuple):
    list: str
    kind: Kind
    exception: bool
    applies: bool
    in_force: bool
    rule: str
    holds: bool = True
    not_for: bool = False

class Candidate(NamedTuple):
    text: bytes
    in_bitmap: bool
    rows: tuple[Row, ...]
    places: bool = False

class ListMatcher(Holder):
    client: bytes
    @property
    def snapshot(self) -> Snapshot: ...
    def __init__(self, snapshot: Snapshot) -> None: ...
    def look_up(
        self, proto: str, host: bytes, target: bytes | None = None, to: bytes = b"", client: bytes = b"",
        ech: bool = False,
    ) -> Found | None: ...
    def look_up_address(self, address: bytes, port: int = 0, client: bytes = b"") -> Found | None: ...
    def trace_name(
        self, proto: str, host: bytes, target: bytes | None = None, to: bytes = b"", client: bytes = b"",
        ech: bool = False,
    ) -> tuple[Found | None, list[Candidate], bool]: ...
    def trace_address(
        self, address: bytes, port: int = 0, client: bytes = b""
    ) -> tuple[Found | None, list[Candidate], bool]: ...
