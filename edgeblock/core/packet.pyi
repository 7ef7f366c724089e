# What Python sees of packet.pyx, for type checkers.

from typing import Any

from _typeshed import ReadableBuffer

def find_transport(data: ReadableBuffer) -> tuple[int, int, int, bool, int, int] | None: ...
def view(data: ReadableBuffer) -> dict[str, Any]: ...
