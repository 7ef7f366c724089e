# What Python sees of readers.pyx, for type checkers.

from collections.abc import Iterable

from _typeshed import ReadableBuffer

KINDS: dict[str, int]

def beginning(first: int) -> str: ...
def feed(name: str, pieces: Iterable[ReadableBuffer]) -> tuple[str, list[tuple[bytes, bytes]]]: ...
