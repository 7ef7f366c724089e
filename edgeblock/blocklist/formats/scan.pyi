# What Python sees of scan.pyx, for type checkers.

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, overload

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.lines import Entry, Problem

def plain_host(text: bytes) -> bytes | None: ...
def read_raw_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | Problem]]: ...
class Shapes:
    def __init__(
        self, rows: Iterable[tuple[bytes, bytes, Kind, bool]], apart: frozenset[bytes] = frozenset(),
        urls: bool = False, addresses: bool = False
    ) -> None: ...
    def entry(self, number: int, line: bytes) -> Entry | None: ...
@overload
def read_lines(
    file: BinaryIO, raw: bool = False, comments: bytes = b"#;", shapes: None = None
) -> Iterator[tuple[int, bytes | Problem]]: ...
@overload
def read_lines(
    file: BinaryIO, raw: bool = False, comments: bytes = b"#;", shapes: Shapes | None = None
) -> Iterator[tuple[int, Any]]: ...      # bytes, an Entry or a Problem; callers ask by `type(...) is bytes`
