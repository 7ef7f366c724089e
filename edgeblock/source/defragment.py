"""IP fragments in, whole packets out, as the Linux kernel of the box would put them together.

In: one fragment and the caller's clock. Out: the whole packet once its last missing fragment has come, with
whatever the caller attached to the fragments; else None. No clock, no socket, nothing raised for any bytes, and
memory bounded in fragments, bytes and seconds.

On a live box conntrack reassembles before the queue; this is for captures, and so does what Linux does there
(net/ipv4/ip_fragment.c and inet_fragment.c, 4.19 and later; RFC 5722 and RFC 8200 section 4.5 for IPv6):

- A fragment that lies inside what has come in one run is a duplicate: the first copy is kept, whatever it says.
- Any other overlap throws the whole datagram away, for IPv4 too: no server behind the box ever sees it.
- So does data behind the end that the last fragment gave, a second and different end, and an empty fragment.
- IPv4 cuts a fragment in the middle to a multiple of 8 bytes, IPv6 refuses it.
- An atomic fragment (RFC 6946) is no fragment: it is whole as it stands.

Three differences: the kernel also gives up on IPv4 datagrams far out of order (ipfrag_max_dist); it refuses an
IPv6 first fragment without the whole transport header, which other stacks take, so it is taken here; and when it is
full the kernel refuses new datagrams, while here the oldest one goes.
"""

from bisect import bisect_right
from typing import Any, NamedTuple

from edgeblock import wire

MAX_BYTES = 4 * 1024 * 1024     # net.ipv4.ipfrag_high_thresh
TIMEOUT = {4: 30.0, 6: 60.0}    # net.ipv4.ipfrag_time, net.ipv6.ip6frag_time: seconds since the first fragment
_OVERHEAD = 512                 # bytes that a fragment costs here beside its own


class Whole(NamedTuple):
    """A reassembled packet without any trace of fragments; `parts` is what came with them, in order of arrival."""

    packet: bytes
    parts: tuple[Any, ...]


class _Datagram:
    __slots__ = ("since", "head", "starts", "runs", "size", "have", "last", "cost", "parts")

    def __init__(self, since: float) -> None:
        self.since = since
        self.head: bytes | None = None      # the headers in front of the data, once the first fragment is here
        self.starts: list[int] = []         # where each run begins, ascending
        self.runs: list[list[Any]] = []     # [start, end, pieces], in the same order; they never overlap
        self.size = 0                       # end of the data as far as it is known
        self.have = 0                       # bytes of data present
        self.last = False                   # the last fragment is here, so size is final
        self.cost = 0
        self.parts: list[Any] = []


class Defragmenter:
    """Holds the fragments of incomplete datagrams.

    Attributes (counts since the start):
        fragments: fragments pushed.        whole: datagrams put together.
        overlapped: datagrams thrown away because fragments overlapped or contradicted each other.
        expired: datagrams given up after TIMEOUT.       evicted: datagrams given up for memory.
        malformed: fragments that no stack would take.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        """`max_bytes` bounds the memory of all held fragments, our bookkeeping for each included."""
        self.max_bytes = max_bytes
        self.cost = 0
        self.fragments = self.whole = self.overlapped = self.expired = self.evicted = self.malformed = 0
        self._held: dict[int, dict[bytes, _Datagram]] = {4: {}, 6: {}}     # in order of age

    @property
    def incomplete(self) -> int:
        """Datagrams that still miss fragments."""
        return len(self._held[4]) + len(self._held[6])

    def push(self, packet: bytes, now: float, part: Any = None) -> Whole | None:
        """Takes a fragment (`wire.find_transport(packet).fragment`), with `part` to be handed back with the whole.

        `now` is in seconds and must not go backwards. Returns the whole packet if this completed one.
        """
        self.fragments += 1
        self._expire(now)
        version = packet[0] >> 4 if packet else 0
        read = _read_ipv4(packet) if version == 4 else _read_ipv6(packet) if version == 6 else None
        if read is None:
            self.malformed += 1
            return None
        key, offset, data, more, head = read
        if head is not None and not more and offset == 0:
            return Whole(_join(head, data), (part,))
        held = self._held[version]
        datagram = held.get(key)
        if datagram is None:
            datagram = held[key] = _Datagram(now)
        end = offset + len(data)
        if not _fits(datagram, offset, end, more):
            self._drop(version, key)
            self.overlapped += 1
            return None
        placed = _place(datagram, offset, end, data)
        if placed is not True:
            if placed is None:
                self._drop(version, key)
                self.overlapped += 1
            return None
        if head is not None:
            datagram.head = head
        datagram.parts.append(part)
        cost = len(packet) + _OVERHEAD
        datagram.cost += cost
        self.cost += cost
        if datagram.last and datagram.have == datagram.size and datagram.head is not None:
            self._drop(version, key)
            data = b"".join(piece for run in datagram.runs for piece in run[2])
            if len(datagram.head) + len(data) > 0xFFFF + (40 if version == 6 else 0):
                self.malformed += 1
                return None
            self.whole += 1
            return Whole(_join(datagram.head, data), tuple(datagram.parts))
        while self.cost > self.max_bytes:
            self._evict()
        return None

    def _drop(self, version: int, key: bytes) -> None:
        self.cost -= self._held[version].pop(key).cost

    def _expire(self, now: float) -> None:
        for version, held in self._held.items():
            while held:
                key = next(iter(held))
                if now - held[key].since < TIMEOUT[version]:
                    break
                self._drop(version, key)
                self.expired += 1

    def _evict(self) -> None:
        oldest = [(next(iter(held.values())).since, version) for version, held in self._held.items() if held]
        version = min(oldest)[1]
        self._drop(version, next(iter(self._held[version])))
        self.evicted += 1


_Fragment = tuple[bytes, int, bytes, bool, bytes | None]    # key, offset, data, more, headers (of the first one)


def _read_ipv4(packet: bytes) -> _Fragment | None:
    if len(packet) < 20:
        return None
    header = (packet[0] & 15) * 4
    end = packet[2] << 8 | packet[3]
    field = packet[6] << 8 | packet[7]
    offset, more = (field & 0x1FFF) * 8, bool(field & 0x2000)
    if header < 20 or end > len(packet):
        return None
    if more:
        end -= (end - header) & 7
    if end <= header or header + offset + end - header > 0xFFFF:
        return None
    key = packet[12:20] + packet[4:6] + packet[9:10]
    return key, offset, packet[header:end], more, packet[:header] if offset == 0 else None


def _read_ipv6(packet: bytes) -> _Fragment | None:
    found = wire.find_fragment(packet)
    if found is None:
        return None
    at, named, end = found
    field = packet[at + 2] << 8 | packet[at + 3]
    offset, more = field & 0xFFF8, bool(field & 1)
    data = packet[at + 8:end]
    if not data or (more and len(data) & 7) or offset + len(data) > 0xFFFF:
        return None
    head = None
    if offset == 0:     # the unfragmentable part, its last header naming what the fragment header named
        head = packet[:named] + packet[at:at + 1] + packet[named + 1:at]
    return packet[8:40] + packet[at + 4:at + 8], offset, data, more, head


def _fits(datagram: _Datagram, offset: int, end: int, more: bool) -> bool:
    if not more:
        if end < datagram.size or (datagram.last and end != datagram.size):
            return False
        datagram.last = True
        datagram.size = end
    elif end > datagram.size:
        if datagram.last:
            return False
        datagram.size = end
    return True


def _place(datagram: _Datagram, offset: int, end: int, data: bytes) -> bool | None:
    # True: taken; False: a duplicate, left out; None: it overlaps. Only the last run grows, as in the kernel.
    runs, starts = datagram.runs, datagram.starts
    if runs and offset == runs[-1][1]:
        runs[-1][1] = end
        runs[-1][2].append(data)
        datagram.have += len(data)
        return True
    index = bisect_right(starts, offset)
    if index and offset < runs[index - 1][1]:
        return False if end <= runs[index - 1][1] else None
    if index < len(runs) and end > starts[index]:
        return None
    starts.insert(index, offset)
    runs.insert(index, [offset, end, [data]])
    datagram.have += len(data)
    return True


def _join(head: bytes, data: bytes) -> bytes:
    packet = bytearray(head + data)
    if packet[0] >> 4 == 4:
        packet[2:4] = len(packet).to_bytes(2, "big")
        packet[6:8] = b"\0\0"
        packet[10:12] = b"\0\0"
        packet[10:12] = wire.checksum(wire.sum16(packet[:len(head)])).to_bytes(2, "big")
    else:
        packet[4:6] = (len(packet) - 40).to_bytes(2, "big")
    return bytes(packet)
