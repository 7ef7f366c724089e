"""Packed lists: what gzip and zstd made, unpacked while it is read.

In: a file opened for reading bytes, packed or not; it is known by its first bytes, whatever its name is. Out: a file
of what is inside, a piece at a time. What is inside is bounded in size and, beyond FREE bytes, in its ratio to what
has been read of the packed file so far, so that a bomb is refused before it goes off. A file that is cut short or
altered (gzip has a checksum in it, and the program zstd writes one) is refused when its end is reached.
Never here: a piece bigger than PIECE_MAX.
"""

import io
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from edgeblock.blocklist.formats.lines import BadFile

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
SUFFIXES = (".gz", ".zst")

SIZE_MAX = 4 << 30      # bytes unpacked: as much as a list may have that is not packed
RATIO_MAX = 200         # times what was read: the densest of 86 real lists has 37; gzip reaches 1030, zstd 30 000
FREE = 16 << 20         # bytes for which the ratio does not count: a short list may be one name a thousand times
WINDOW_MAX = 128 << 20  # bytes of memory that a zstd file may ask for: the limit of the program zstd
BUFFER = 1 << 16
GZIP_READ = 1 << 14
ZSTD_READ = 256         # bytes of zstd at once: 4 of them may stand for 128 KiB
PIECE_MAX = ZSTD_READ // 4 * (128 << 10)


def unpacked(file: BinaryIO, head: bytes) -> BinaryIO:
    """The file itself, or what is packed in it; `head` are its first bytes."""
    if head.startswith(GZIP):
        return io.BufferedReader(Unpacking(gunzip, file), BUFFER)
    if head.startswith(ZSTD):
        return io.BufferedReader(Unpacking(unzstd, file), BUFFER)
    return file


class Counted:
    """A file that counts what is read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.size += len(data)
        return data


class Unpacking(io.RawIOBase):
    """What a packed file has in it, within the bounds; BadFile where it goes beyond them."""

    def __init__(self, pieces: Any, file: BinaryIO) -> None:
        super().__init__()
        self._packed = Counted(file)
        self._pieces: Iterator[bytes] = pieces(self._packed)
        self._left = memoryview(b"")
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        into = memoryview(buffer).cast("B")
        done = 0
        while done < len(into):         # whole, for the first reading tells what a file is
            if not self._left:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._size += len(piece)
                if self._size > SIZE_MAX:
                    raise BadFile(f"unpacks to more than {SIZE_MAX} bytes; split it")
                if self._size > FREE and self._size > RATIO_MAX * self._packed.size:
                    raise BadFile(f"unpacks to more than {RATIO_MAX} times its size, which no list does; if it is "
                                  "one, drop it unpacked")
                self._left = memoryview(piece)
            size = min(len(self._left), len(into) - done)
            into[done:done + size] = self._left[:size]
            self._left = self._left[size:]
            done += size
        return done


def gunzip(file: Counted) -> Iterator[bytes]:
    """Pieces of a gzip file (RFC 1952): one member after the other, then zero bytes at most."""
    inside = zlib.decompressobj(31)
    data = file.read(GZIP_READ)
    while data:
        try:
            piece = inside.decompress(data, BUFFER)
        except zlib.error as error:
            raise BadFile(f"is broken as a gzip file ({error}); pack it again") from None
        yield piece
        data = inside.unconsumed_tail
        if inside.eof:
            data = (inside.unused_data or file.read(GZIP_READ)).lstrip(b"\0")
            while not data:
                more = file.read(GZIP_READ)
                if not more:
                    return
                data = more.lstrip(b"\0")
            if not GZIP.startswith(data[:2]):
                raise BadFile("has something behind the end of what is packed in it; pack it again")
            inside = zlib.decompressobj(31)
        elif not data:
            data = file.read(GZIP_READ)
    raise BadFile("ends in the middle of what is packed in it; copy it again")


def unzstd(file: Counted) -> Iterator[bytes]:
    """Pieces of a zstd file (RFC 8878): one frame after the other."""
    import zstandard  # which few lists need

    tool = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX)
    inside = tool.decompressobj()
    data = file.read(ZSTD_READ)
    while data:
        try:
            piece = inside.decompress(data)
        except zstandard.ZstdError as error:
            raise BadFile(f"is broken as a zstd file ({error}); pack it again") from None
        yield piece
        if not inside.eof:
            data = file.read(ZSTD_READ)
            continue
        data = inside.unused_data or file.read(ZSTD_READ)
        if not data:
            return
        inside = tool.decompressobj()
    raise BadFile("ends in the middle of what is packed in it; copy it again")
