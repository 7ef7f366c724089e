# What Python sees of http.pyx, for type checkers.

from collections.abc import Iterable

from _typeshed import ReadableBuffer

_Framing = tuple[int, int]
_Head = tuple[list[bytes], bytes, int, bool, list[_Framing]]

def feed(pieces: Iterable[ReadableBuffer]) -> tuple[str, list[_Head], int, list[list[_Framing]]]: ...
