# What Python sees of http2.pyx, for type checkers.

from collections.abc import Iterable

from _typeshed import ReadableBuffer

def feed(pieces: Iterable[ReadableBuffer]) -> tuple[str, list[tuple[list[bytes], list[bytes]] | None]]: ...
