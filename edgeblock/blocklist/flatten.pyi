# What Python sees of flatten.pyx, for type checkers.

from _typeshed import ReadableBuffer

def flatten(entries: ReadableBuffer, family: int, whats: bytes, weights: bytes, ids: bytes,
            leading: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]: ...
def alike(one: ReadableBuffer, other: ReadableBuffer, size: int) -> tuple[int, int]: ...
