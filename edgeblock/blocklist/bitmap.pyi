# What Python sees of bitmap.pyx, for type checkers.

from _typeshed import ReadableBuffer

class BitmapView:
    def __init__(self, data: ReadableBuffer) -> None: ...
    def __contains__(self, value: int) -> bool: ...
