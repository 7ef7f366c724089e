"""Lists that are not UTF-8: their text in UTF-8, for the readers.

In: a file opened for reading bytes and the name of its encoding. Out: a file of the same text in UTF-8. A byte that
is no character of the encoding comes out as three that are no UTF-8 either, so that the line it is in is refused and
says why; nothing is guessed, replaced or left out. Never here: an encoding that unpacks or runs anything.
"""

import codecs
import io
from typing import Any, BinaryIO

from edgeblock.blocklist.formats.lines import BadFile

READ = 1 << 16

def decoded(file: BinaryIO, encoding: str | None) -> BinaryIO:
    """The file itself, or its text in UTF-8."""
    if encoding in (None, "utf-8", "ascii"):
        return file
    return io.BufferedReader(Decoding(file, encoding), READ)


class Decoding(io.RawIOBase):
    """The text of a file, piece by piece."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        super().__init__()
        self._file = file
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
        self._left = memoryview(b"")
        self._is_over = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        into = memoryview(buffer).cast("B")
        while not self._left and not self._is_over:
            data = self._file.read(READ)
            self._is_over = not data
            try:
                text = self._decoder.decode(data, self._is_over)
            except UnicodeError as error:       # of a codec whose units are wider than a byte
                why = getattr(error, "reason", str(error))
                raise BadFile(f"is no text in {self._encoding} ({why}); is that its encoding?") from None
            self._left = memoryview(text.encode("utf-8", "surrogatepass"))
        size = min(len(self._left), len(into))
        into[:size] = self._left[:size]
        self._left = self._left[size:]
        return size
