"""Packets from a capture file, and a capture file from packets.

In: the path of a pcap or pcapng file, either also gzipped. Out: one Record for each frame, in file order, with the
IP packet found in it (links.py knows the link types and tunnels); `CaptureWriter` puts frames back.

The file is hostile: every length is checked against the bytes that are there and against a cap before anything is
read or kept. A file that is no capture is a CaptureError of one line. A file that ends or breaks in the middle
gives its whole frames and then says so in `Capture.trouble`. Nothing else is ever raised for its bytes.

Formats: pcap and pcapng as in draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng; the link types as numbered in
the LINKTYPE registry of the former.
"""

import gzip
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple

from edgeblock import wire
from edgeblock.errors import CaptureError
from edgeblock.source.links import ETHERNET, LINK_TYPES, find_packet, wrap

STDIN, STDIN_FILENO = "-", 0
MAX_FRAME = 256 * 1024          # libpcap's largest snap length for these link types
MAX_BLOCK = 16 * 1024 * 1024    # Wireshark refuses larger pcapng blocks too
MAX_INTERFACES = 64 * 1024      # one IDB each; a record of Python objects has to be kept for each
_CHUNK = 256 * 1024             # bytes per read: a few hundred frames

_PCAP = {                       # magic as it stands in the file -> byte order, fractions of a second
    b"\xd4\xc3\xb2\xa1": ("<", 1_000_000),
    b"\xa1\xb2\xc3\xd4": (">", 1_000_000),
    b"\x4d\x3c\xb2\xa1": ("<", 1_000_000_000),
    b"\xa1\xb2\x3c\x4d": (">", 1_000_000_000),
}
_SECTION = b"\x0a\x0d\x0d\x0a"  # a palindrome, so that it reads the same in both byte orders
_ORDER = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _ENHANCED_PACKET = 1, 2, 3, 6

_SHORTEST = 46                  # what Ethernet pads a packet to


class Record(NamedTuple):
    """One frame.

    `number` counts from 1; `time` is seconds since 1970; `link` is its link type; `frame` holds the bytes that were
    kept of `wire_size`; `start` is where the IP packet begins in it, -1 if it carries none; `packet` is the IP packet
    without what Ethernet padded, empty if there is none or its header is broken. `cut` says that the capture kept
    less than the whole packet: its length fields are then set to what is there, and its checksums mean nothing.
    """

    number: int
    time: float
    link: int
    frame: bytes
    wire_size: int
    start: int
    packet: bytes
    cut: bool


_new = tuple.__new__            # half the cost of the constructor of a NamedTuple


class Capture:
    """The frames of one file: iterate once, inside a `with`.

    Attributes, complete after the iteration:
        pcapng: whether the file is a pcapng.
        link: the link type of a pcap; a pcapng has one for each interface.
        frames: frames seen.
        trouble: None, or why the file was not read to a proper end; the frames before that place were given out.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens the file and looks at its first bytes; CaptureError if it is no capture or cannot be read."""
        self.path = os.fspath(path)
        self.frames = 0
        self.trouble: str | None = None
        self.link = ETHERNET
        self._foreign = 0           # frames of a link type that is not read here
        self._links: set[int] = set()
        self._buffer = b""
        self._at = 0
        self._file, self._packed = _open(self.path)
        try:
            self._begin()
        except BaseException:
            self._file.close()
            raise

    def _begin(self) -> None:
        if not self._need(4):
            what = "not a pcap or pcapng capture"
            if not self._buffer:
                what = f"{self.trouble or 'empty'}, so {what}"
            raise CaptureError(f"{self.path}: {what}")
        magic = self._buffer[:4]
        self.pcapng = magic == _SECTION
        if self.pcapng:
            if not self._need(12) or self._buffer[8:12] not in _ORDER:
                raise CaptureError(f"{self.path}: not a pcap or pcapng capture")
            return
        if magic not in _PCAP:
            raise CaptureError(f"{self.path}: not a pcap or pcapng capture")
        if not self._need(24):
            raise CaptureError(f"{self.path}: a pcap capture cut inside its header")
        self._order, self._fractions = _PCAP[magic]
        major, link = struct.unpack_from(self._order + "H14xI", self._buffer, 4)
        if major != 2:
            raise CaptureError(f"{self.path}: pcap version {major} is not known; convert it with editcap -F pcap")
        self.link = link & 0xFFFF       # above it: the length of a frame check sequence, which trimming removes
        if self.link not in LINK_TYPES:
            raise CaptureError(_foreign_link(self.path, {self.link}))
        self._at = 24

    def __enter__(self) -> "Capture":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def read(self) -> int:
        """How many bytes of the file have been read so far, as they are in it."""
        try:
            return self._packed.tell()
        except OSError:             # of a pipe
            return 0

    def size(self) -> int:
        """How many bytes the file has; 0 where nobody knows."""
        state = os.fstat(self._packed.fileno())
        return state.st_size if stat.S_ISREG(state.st_mode) else 0

    def __iter__(self) -> Iterator[Record]:
        return self._read_pcapng() if self.pcapng else self._read_pcap()

    def _need(self, size: int) -> bool:
        # Makes `size` bytes stand at self._at in the buffer; False if the file ends or breaks before that.
        missing = size - (len(self._buffer) - self._at)
        if missing <= 0:
            return True
        parts = [self._buffer[self._at:]]
        self._at = 0
        while missing > 0:
            try:
                part = self._file.read1(_CHUNK)     # type: ignore[attr-defined]
            except (EOFError, gzip.BadGzipFile, zlib.error):
                self.trouble = "the gzip stream is cut or damaged"
                break
            except OSError as problem:
                raise CaptureError(f"{self.path}: cannot be read: {problem.strerror or problem}") from None
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        self._buffer = b"".join(parts)
        return missing <= 0

    def _stop(self, why: str) -> None:
        also = f" ({self.trouble})" if self.trouble else ""
        self.trouble = f"{why} after frame {self.frames}{also}; what stands before that place was judged"

    def _end(self) -> None:
        # The file ended where a record would begin, or inside its header.
        if self.trouble or self._at < len(self._buffer):
            self._stop("cut in the middle")

    def _record(self, time: float, link: int, frame: bytes, wire_size: int) -> Record:
        self.frames += 1
        start = find_packet(link, frame)
        packet, cut = trim(frame, start) if start >= 0 else (b"", False)
        return _new(Record, (self.frames, time, link, frame, wire_size, start, packet, cut))

    def _read_pcap(self) -> Iterator[Record]:
        header = struct.Struct(self._order + "4I")
        link, fractions, record = self.link, self._fractions, self._record
        need, unpack = self._need, header.unpack_from
        while self._at + 16 <= len(self._buffer) or need(16):
            seconds, fraction, size, wire_size = unpack(self._buffer, self._at)
            if size > MAX_FRAME:
                return self._stop(f"damaged: a frame of {size} bytes")
            if self._at + 16 + size > len(self._buffer) and not need(16 + size):
                return self._stop("cut in the middle")
            begin = self._at + 16
            self._at = end = begin + size
            yield record(seconds + fraction / fractions, link, self._buffer[begin:end], max(size, wire_size))
        self._end()

    def _read_pcapng(self) -> Iterator[Record]:
        order = "<"
        interfaces: list[_Interface] = []
        time = 0.0
        while self._need(12):
            at = self._at
            if self._buffer[at:at + 4] == _SECTION:
                kind = -1
                new_order = _ORDER.get(self._buffer[at + 8:at + 12])
                if new_order is None:
                    return self._stop("damaged: a section without a byte order")
                order, interfaces = new_order, []
            else:
                kind, = struct.unpack_from(order + "I", self._buffer, at)
            length, = struct.unpack_from(order + "I", self._buffer, at + 4)
            if length < 12 or length & 3 or length > MAX_BLOCK:
                return self._stop(f"damaged: a block of {length} bytes")
            if not self._need(length):
                return self._stop("cut in the middle")
            at, self._at = self._at, self._at + length
            if struct.unpack_from(order + "I", self._buffer, at + length - 4)[0] != length:
                return self._stop("damaged: a block whose two lengths differ")
            body = self._buffer[at + 8:at + length - 4]
            if kind == _INTERFACE:
                if len(interfaces) == MAX_INTERFACES:
                    return self._stop(f"more than {MAX_INTERFACES} interfaces")
                interfaces.append(_Interface.read(order, body))
                continue
            found = _read_packet(kind, order, body, interfaces)
            if found is None:
                continue
            index, ticks, frame, wire_size = found
            # A frame of an interface that was never described is counted, not read.
            interface = interfaces[index] if index < len(interfaces) else _UNDESCRIBED
            if ticks is not None:           # a simple packet has no time: that of the frame before
                time = ticks / interface.units + interface.offset
            self._links.add(interface.link)
            if interface.link not in LINK_TYPES:
                self._foreign += 1
            yield self._record(time, interface.link, frame, wire_size)
        self._end()
        if self.frames and self._foreign == self.frames:
            raise CaptureError(_foreign_link(self.path, self._links))


class _Interface(NamedTuple):
    """What an interface description block says: ticks a second, seconds to add, bytes kept of a frame (0: all)."""

    link: int
    units: int
    offset: int
    snap: int

    @classmethod
    def read(cls, order: str, body: bytes) -> "_Interface":
        if len(body) < 8:
            return _UNDESCRIBED
        link, snap = struct.unpack_from(order + "H2xI", body)
        units, offset, at = 1_000_000, 0, 8
        while at + 4 <= len(body):
            code, size = struct.unpack_from(order + "2H", body, at)
            value = body[at + 4:at + 4 + size]
            if code == 0 or len(value) < size:
                break
            if code == 9 and size == 1:     # if_tsresol
                units = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
            elif code == 14 and size == 8:  # if_tsoffset
                offset, = struct.unpack(order + "q", value)
            at += 4 + (size + 3 & ~3)
        return cls(link, units, offset, snap)


_UNDESCRIBED = _Interface(-1, 1_000_000, 0, 0)


def _read_packet(kind: int, order: str, body: bytes,
                 interfaces: list[_Interface]) -> tuple[int, int | None, bytes, int] | None:
    # Interface number, time in its ticks, the frame and its size on the wire; None for blocks without a frame.
    if kind in (_ENHANCED_PACKET, _OLD_PACKET):
        if len(body) < 20:
            return None
        index, high, low, size, wire_size = struct.unpack_from(order + "5I", body)
        if kind == _OLD_PACKET:             # a 16-bit interface number, then a count of drops
            index, = struct.unpack_from(order + "H", body)
        frame = body[20:20 + min(size, MAX_FRAME)]
        return index, high << 32 | low, frame, max(len(frame), wire_size)
    if kind == _SIMPLE_PACKET and len(body) >= 4:
        wire_size, = struct.unpack_from(order + "I", body)
        snap = interfaces[0].snap if interfaces else 0
        frame = body[4:4 + min(wire_size, snap or MAX_FRAME, MAX_FRAME)]
        return 0, None, frame, wire_size
    return None


def _open(path: str) -> tuple[IO[bytes], IO[bytes]]:
    # What is to be read, unpacked where it is packed, and the file itself.
    try:
        file = open(STDIN_FILENO if path == STDIN else path, "rb", closefd=path != STDIN)     # noqa: SIM115
    except OSError as problem:
        raise CaptureError(f"{path}: cannot be read: {problem.strerror}") from None
    if path != STDIN and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()    # it is read twice, once for the checksums
        raise CaptureError(f"{path}: not a regular file; save the capture to one first, or read it from -")
    if file.peek(2)[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=file, mode="rb"), file     # type: ignore[return-value]
    return file, file


def _foreign_link(path: str, links: set[int]) -> str:
    numbers = ", ".join(str(link) for link in sorted(links) if link >= 0) or "unknown"
    return f"{path}: link type {numbers} is not read here; capture on an Ethernet or IP interface"


# -- frames ------------------------------------------------------------------------------------------------------

def trim(frame: bytes, start: int) -> tuple[bytes, bool]:
    """The IP packet at `start` by its own length field, and whether the frame holds less than that.

    Empty if there is no IPv4 or IPv6 header. A packet that is cut, and one whose length field is left to
    segmentation offload (0), has its length set to what is there, so that its readable part is judged.
    """
    there = len(frame) - start
    version = frame[start] >> 4 if there > 0 else 0
    if version == 4 and there >= 20:
        size = frame[start + 2] << 8 | frame[start + 3]
        if 20 <= size <= there:
            return frame[start:start + size], False
        if size < 20 and not (size == 0 and there > _SHORTEST):
            return b"", False
        packet = bytearray(frame[start:start + min(there, 0xFFFF)])
        packet[2:4] = len(packet).to_bytes(2, "big")
        header = (packet[0] & 15) * 4
        packet[10:12] = b"\0\0"
        packet[10:12] = wire.checksum(wire.sum16(packet[:header])).to_bytes(2, "big")
        return bytes(packet), size > there
    if version == 6 and there >= 40:
        size = 40 + (frame[start + 4] << 8 | frame[start + 5])
        offloaded = size == 40 and frame[start + 6] == wire.HOP_BY_HOP and there > _SHORTEST   # a jumbogram
        if size <= there and not offloaded:
            return frame[start:start + size], False
        packet = bytearray(frame[start:start + min(there, 40 + 0xFFFF)])
        packet[4:6] = (len(packet) - 40).to_bytes(2, "big")
        return bytes(packet), size > there
    return b"", False


def reframe(record: Record, packet: bytes, turned: bool) -> bytes:
    """`packet` behind the headers of `record`; `turned` sends it back to where that frame came from."""
    return wrap(record.link, record.frame, record.start, packet, turned)


class CaptureWriter:
    """Writes frames to a capture: pcap, or pcapng, which takes frames of several link types. Use inside a `with`.

    A file that cannot be written is a CaptureError.
    """

    def __init__(self, path: str | os.PathLike[str], pcapng: bool = False, link: int = ETHERNET) -> None:
        """`link` is the link type of a pcap."""
        self.path = os.fspath(path)
        self._pcapng = pcapng
        self._links: dict[int, int] = {}
        try:
            self._file = open(self.path, "wb")      # noqa: SIM115 - closed by close()
        except OSError as problem:
            raise CaptureError(f"{self.path}: cannot be written: {problem.strerror}") from None
        if pcapng:
            self._put(self._block(int.from_bytes(_SECTION, "big"), struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)))
        else:
            self._put(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, MAX_FRAME, link))
            self._links[link] = 0

    def __enter__(self) -> "CaptureWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as problem:
            raise CaptureError(f"{self.path}: cannot be written: {problem.strerror}") from None

    def write(self, time: float, link: int, frame: bytes, wire_size: int = 0) -> None:
        """Adds a frame; `time` in seconds since 1970 is kept to the microsecond, `wire_size` is its uncut size."""
        ticks = max(0, round(time * 1_000_000))
        if link not in self._links:
            if not self._pcapng:
                raise ValueError(f"a pcap holds frames of one link type, and {link} is another")
            self._put(self._block(_INTERFACE, struct.pack("<HHI", link, 0, 0)))
            self._links[link] = len(self._links)
        wire_size = max(wire_size, len(frame))
        if self._pcapng:
            head = struct.pack("<5I", self._links[link], ticks >> 32 & 0xFFFFFFFF, ticks & 0xFFFFFFFF,
                               len(frame), wire_size)
            self._put(self._block(_ENHANCED_PACKET, head + frame))
        else:
            seconds, fraction = divmod(ticks, 1_000_000)
            self._put(struct.pack("<4I", min(seconds, 0xFFFFFFFF), fraction, len(frame), wire_size) + frame)

    @staticmethod
    def _block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        length = struct.pack("<I", len(body) + 12)
        return struct.pack("<I", kind) + length + body + length

    def _put(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as problem:
            raise CaptureError(f"{self.path}: cannot be written: {problem.strerror}") from None
