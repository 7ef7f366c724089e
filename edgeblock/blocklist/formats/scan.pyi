# What Python sees of scan.pyx, for type checkers.

from collections.abc import Iterator
from typing import Any, BinaryIO, Literal, overload

from edgeblock.blocklist.formats.lines import Problem

def plain_host(text: bytes) -> bytes | None: ...
def read_raw_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | Problem]]: ...
@overload
def read_lines(
    file: BinaryIO, raw: bool = False, comments: bytes = b"#;", hosts: Literal[False] = False
) -> Iterator[tuple[int, bytes | Problem]]: ...
@overload
def read_lines(
    file: BinaryIO, raw: bool = False, comments: bytes = b"#;", hosts: bool = False
) -> Iterator[tuple[int, Any]]: ...      # bytes, an Entry or a Problem; callers ask by `type(...) is bytes`
