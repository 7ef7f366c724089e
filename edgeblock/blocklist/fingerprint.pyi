# What Python sees of fingerprint.pyx, for type checkers.

from array import array
from enum import IntEnum
from typing import Any

from _typeshed import ReadableBuffer, WriteableBuffer

class Kind(IntEnum):
    HOST = 1
    HOST_ONLY = 2
    SUBDOMAINS = 3
    URL_WITH_QUERY = 4
    URL = 5
    DIRECTORY = 6
    NETWORK = 7
    ENDPOINT = 8
    HOST_OF_URL = 9
    URL_MARK = 10
    HOST_AT = 11
    HOST_ONLY_AT = 12
    SUBDOMAINS_AT = 13
    AT_MARK = 14

def sort_records(records: WriteableBuffer, size: int) -> int: ...
def fingerprint(key: ReadableBuffer, text: bytes) -> bytes: ...

class Rows:
    def __init__(self, key: ReadableBuffer) -> None: ...
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def add(self, text: bytes, value: int) -> None: ...
    def add_print(self, print: bytes, value: int) -> None: ...
    def finish(self) -> None: ...
    def prefixes(self) -> array[int]: ...
    def entries(self, lists: int) -> list[int]: ...
    def has(self, print: bytes, value: int) -> bool: ...

class Merge:
    def __init__(self, tables: list[Any]) -> None: ...     # buffers of whole rows
    def read_into(self, out: WriteableBuffer) -> int: ...
