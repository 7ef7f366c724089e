"""Which checksums of a capture mean anything.

In: every packet of a capture, once; then each packet again. Out: the engine's flag for it. Nothing is raised for
any packet, and what is remembered is bounded.

On the host that sends, a capture shows packets before the network card has filled in their checksums: the field
holds the folded pseudo-header sum (Linux), or zero, or whatever was there. A router that merges segments (GRO) leaves
the pseudo-header sum in the merged ones alone. Elsewhere a wrong checksum is a trick: every server drops the
packet, so a filter must not believe it. What tells them apart:

- A field that holds the pseudo-header sum was left to hardware, whoever sent it.
- A source (address and protocol) of whose other checksums next to none are right leaves them to hardware.
- A source that gets them right does not: the packet in which one is wrong is junk.
"""

from edgeblock import wire

MODES = ("auto", "verify", "ignore")
VERIFY, TRUST = 0, 1        # CHECKSUM_VERIFY and CHECKSUM_TRUST of core/engine.pxd

RIGHT, LEFT, WRONG = "right", "left to hardware", "wrong"

MAX_SOURCES = 256 * 1024    # about 60 MB of counts; beyond it a source is taken at its word
_JUNK_FACTOR = 20           # a trick repeats a fake some ten times at most; hardware leaves all of them wrong


def examine(packet: bytes) -> tuple[bytes, str] | None:
    """The source of a TCP or UDP packet and whether its checksum is RIGHT, LEFT to hardware or WRONG.

    None if there is nothing to check: another protocol, a fragment, a packet that is not whole, UDP over IPv4 that
    says it has no checksum.
    """
    if packet[:1] == b"\x45" and len(packet) >= 40 and not (packet[6] & 0x3F or packet[7]):
        # Most packets of most captures: spared the walk, and the addresses stand next to the segment.
        proto, at, end, source, ends = packet[9], 20, packet[2] << 8 | packet[3], packet[12:16], packet[12:20]
        if not 40 <= end <= len(packet):
            return None
    else:
        header = wire.find_transport(packet)
        if header is None or header.fragment:
            return None
        _, source, _, proto, at, end, _ = header
        ends = source + header.dst
    if proto == wire.TCP:
        if end - at < 20:
            return None
        field = packet[at + 16] << 8 | packet[at + 17]
    elif proto == wire.UDP:
        if end - at < 8:
            return None
        field = packet[at + 6] << 8 | packet[at + 7]
        if field == 0 and len(source) == 4:
            return None
        size = packet[at + 4] << 8 | packet[at + 5]
        if 8 <= size <= end - at:
            end = at + size
    else:
        return None
    source += bytes((proto,))
    size = end - at
    if size & 1:
        total = int.from_bytes(ends + packet[at:end] + b"\0", "big")
    else:
        total = int.from_bytes(ends + packet[at:end], "big")
    if (total + proto + size) % 0xFFFF == 0:
        return source, RIGHT
    # With the length in it (Linux), or without (cards that cut segments themselves put it in).
    if field and (field - wire.sum16(ends) - proto) % 0xFFFF in (0, size % 0xFFFF):
        return source, LEFT
    return source, WRONG


class Survey:
    """Counts right and wrong checksums by source, then gives the flag of each packet.

    `mode` is one of MODES; only "auto" needs the packets beforehand.
    """

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self._counts: dict[bytes, list[int]] = {}   # source -> [right, wrong]
        self._checked: frozenset[bytes] = frozenset()
        self.sources = 0                            # sources that leave their checksums to hardware

    def add(self, packet: bytes) -> None:
        found = examine(packet)
        if found is None or found[1] is LEFT:
            return
        counts = self._counts.get(found[0])
        if counts is None:
            if len(self._counts) >= MAX_SOURCES:
                return
            counts = self._counts[found[0]] = [0, 0]
        counts[found[1] is WRONG] += 1

    def close(self) -> None:
        """To be called once after the last `add`: keeps the sources whose wrong checksums are tricks."""
        wrong = {source: counts for source, counts in self._counts.items() if counts[1]}
        self._checked = frozenset(source for source, (right, bad) in wrong.items() if right * _JUNK_FACTOR >= bad)
        self.sources = len(wrong) - len(self._checked)
        self._counts = {}

    def flag(self, packet: bytes, cut: bool = False) -> int:
        """VERIFY or TRUST for a packet; one that the capture `cut` cannot be verified in any mode."""
        if self.mode == "ignore" or cut:
            return TRUST
        if self.mode == "verify":
            return VERIFY
        if not self._checked or (packet[0] >> 4 == 4 and packet[12:16] + packet[9:10] not in self._checked):
            return TRUST
        found = examine(packet)
        return VERIFY if found is not None and found[1] is WRONG and found[0] in self._checked else TRUST
