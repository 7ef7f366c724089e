# What Python sees of tls.pyx, for type checkers.

from collections.abc import Iterable

from _typeshed import ReadableBuffer

def feed(
    pieces: Iterable[ReadableBuffer], records: bool = True, cookie: bool = False
) -> tuple[str, list[bytes], bool, int]: ...
