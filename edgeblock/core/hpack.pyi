# What Python sees of hpack.pyx, for type checkers.

from collections.abc import Iterable

from _typeshed import ReadableBuffer

CODE_LENGTHS: bytes

def feed(blocks: Iterable[Iterable[ReadableBuffer]]) -> list[tuple[list[bytes], list[bytes], bool, bool, int]]: ...
