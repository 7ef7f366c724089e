# What Python sees of dtls.pyx, for type checkers.

from _typeshed import ReadableBuffer

def fragments(datagram: ReadableBuffer) -> list[tuple[int, int, int, bytes]]: ...
