# What Python sees of prefix.pyx, for type checkers.

from collections.abc import Iterable

from _typeshed import ReadableBuffer

def feed(pieces: Iterable[ReadableBuffer]) -> tuple[str, list[bytes], int]: ...
def seek(pieces: Iterable[ReadableBuffer]) -> list[int]: ...
