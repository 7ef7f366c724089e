"""Games with the parts that are plain Python, or that need the kernel: bytes in, nothing out, AssertionError where a
sentence does not hold.

    answers      what is sent for a blocked packet is whole and goes back where that came from; whoever has not proved
                 his address gets one RST to a SYN, no longer than what came, and a QUIC client nothing longer
    defragment   nothing is put together but what was sent; fragments that fit always are, in any order; the account
                 is the sum of what is held, and never above its bound
    answered     whatever a netlink socket says, the caller has a number or a time-out, and a request can be read
    marking      the map has the mark of a flow under one key, whichever direction's packet it came with

Never here: a compiled reader; harness.pyx has those.
"""

import contextlib
import struct

from edgeblock import wire
from edgeblock.config import Reply
from edgeblock.core.decision import ACTIONS, ANSWERED, PROTOCOLS, Decision
from edgeblock.enforce import replies
from edgeblock.enforce.answers import Answers
from edgeblock.errors import SystemProblem
from edgeblock.netfilter import netlink
from edgeblock.netfilter.stage1 import bpf
from edgeblock.netfilter.stage1.structures import SIZES
from edgeblock.source import checksums
from edgeblock.source.defragment import Defragmenter
from edgeblock.source.marking import Marking
from tests import quic_packets as quic
from tests.core import samples as s

ANSWERS = [Answers(Reply()), Answers(Reply(tls="rst", redirect="https://blocked.example/why"))]
MARKS = 4096                    # entries of the map


class Input:
    """The fuzzer's bytes; zeros beyond their end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    @property
    def left(self) -> int:
        return max(0, len(self.data) - self.at)

    def bytes(self, size: int) -> bytes:
        self.at += size
        return self.data[self.at - size:self.at].ljust(size, b"\0")

    def number(self, size: int = 1) -> int:
        return int.from_bytes(self.bytes(size), "big")


# ---- answers


def answers(data: bytes) -> None:
    given = Input(data)
    how = given.number()
    decision = Decision(
        accept=False, action=ACTIONS[given.number() % len(ACTIONS)], proto=PROTOCOLS[given.number() % len(PROTOCOLS)],
        reply=how & 1 == 0, head=how & 2 != 0, client_seq=given.number(4), client_ack=given.number(4),
        reset_seqs=tuple(given.number(4) for _ in range(how >> 2 & 3)), reset_ack=given.number(4),
        quic_id=given.bytes(given.number() % 21), proven=how & 16 != 0)
    packet = given.bytes(given.left) if how & 32 else _made_packet(given, how)
    header = wire.find_transport(packet)
    made = replies.build(packet, decision, ANSWERS[how >> 7], 1.8e9)
    if made.to_client or made.to_server:
        assert decision.reply and header is not None and not header.fragment
        assert decision.action in ANSWERED
    for to_client, sent in ((True, made.to_client), (False, made.to_server)):
        for answer in sent:
            _check_answer(packet, header, answer, to_client)
    if header is not None and header.proto == wire.UDP:
        assert sum(map(len, made.to_client)) <= len(packet) and not made.to_server
    elif not decision.proven and made.to_client:
        assert packet[header.at + 13] & replies.SYN and not made.to_server
        answer, = made.to_client
        assert len(answer) <= len(packet) and answer[wire.find_transport(answer).at + 13] & replies.RST


def _made_packet(given: Input, how: int) -> bytes:
    flags, options = given.number(), given.bytes(given.number() % 41)
    if how & 64:
        options = b"\1\1\x08\x0a" + options[:8].ljust(8, b"\0")
    if flags & 0x80:
        sealed = quic.initial(b"\1" * 4, dcid=given.bytes(given.number() % 21), scid=given.bytes(given.number() % 21),
                              version=(1, quic.VERSION_2, quic.DRAFT_29, 7)[given.number() & 3], keys_version=1,
                              size=given.number(2) % 1400)
        sealed = bytearray(sealed)
        for _ in range(given.number() % 4):
            sealed[given.number(2) % len(sealed)] = given.number()
        datagram = struct.pack("!HHHH", given.number(2), 443, 8 + len(sealed), 0) + sealed
        return s.ip_packet(17, datagram, *_ends(given))
    options += bytes(-len(options) % 4)
    segment = struct.pack("!HHIIBBHHH", given.number(2), given.number(2), given.number(4), given.number(4),
                          5 + len(options) // 4 << 4 & 0xF0, flags, 0, 0, 0) + options + given.bytes(given.left)
    return s.ip_packet(6, segment, *_ends(given))


def _ends(given: Input) -> tuple[str, str]:
    last = given.number()
    if last & 1:
        return f"2001:db8::{last:x}", "2001:db8::1"
    return f"192.0.2.{last}", "198.51.100.7"


def _check_answer(packet: bytes, header: wire.Header, answer: bytes, to_client: bool) -> None:
    found = wire.find_transport(answer)
    assert found is not None and not found.fragment and found.proto == header.proto and found.end == len(answer)
    assert (found.src, found.dst) == ((header.dst, header.src) if to_client else (header.src, header.dst))
    ports, theirs = answer[found.at:found.at + 4], packet[header.at:header.at + 4]
    assert ports == (theirs[2:] + theirs[:2] if to_client else theirs)
    checked = checksums.examine(answer)
    assert checked is not None and checked[1] == checksums.RIGHT
    assert found.version == 6 or wire.checksum(wire.sum16(answer[:20])) == 0
    assert len(answer) <= 1280


# ---- defragment


def defragment(data: bytes) -> None:
    given = Input(data)
    bound = 60_000
    joiner = Defragmenter(bound)
    sent: list[bytes] = []
    now = 0.0
    for _ in range(60):
        if not given.left:
            break
        how = given.number()
        now += how >> 4
        piece = _made_fragment(given, how) if how & 8 else given.bytes(given.number(2) % 200)
        sent.append(piece)
        whole = joiner.push(piece, now, len(sent))
        _check_account(joiner, bound)
        if whole is not None:
            _check_whole(whole.packet, [sent[part - 1] for part in whole.parts])
    _check_honest(joiner, given, now)


def _made_fragment(given: Input, how: int) -> bytes:
    """One of few datagrams, so that they meet."""
    offset, more, body = given.number() % 32 * 8, how & 1, given.bytes(given.number() % 80)
    number = given.number() % 3
    if how & 2:
        head = struct.pack("!IHBB", 6 << 28, 8 + len(body), 44, 64) + bytes(15) + b"\1" + bytes(15) + b"\2"
        return head + struct.pack("!BBHI", (6, 17, 43)[number], 0, offset | more, number) + body
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), number, offset >> 3 | more << 13, 64, 17, 0,
                       bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)))
    return head + body


def _check_account(joiner: Defragmenter, bound: int) -> None:
    held = [datagram for family in joiner._held.values() for datagram in family.values()]
    assert joiner.cost == sum(datagram.cost for datagram in held) <= bound
    for datagram in held:
        ends = [end for run in datagram.runs for end in run[:2]]
        assert ends == sorted(ends) and datagram.have == sum(run[1] - run[0] for run in datagram.runs)
        assert all(run[1] - run[0] == sum(map(len, run[2])) for run in datagram.runs)


def _check_whole(packet: bytes, parts: list[bytes]) -> None:
    found = wire.find_transport(packet)
    size = int.from_bytes(packet[2:4], "big") if packet[0] >> 4 == 4 else 40 + int.from_bytes(packet[4:6], "big")
    assert size == len(packet)
    if packet[0] >> 4 == 4:
        head = 4 * (packet[0] & 15)
        assert not packet[6] & 0x3F and not packet[7] and wire.checksum(wire.sum16(packet[:head])) == 0
        bodies = [part[4 * (part[0] & 15):int.from_bytes(part[2:4], "big")] for part in parts]
        # Of a piece in the middle only whole eights are taken.
        bodies = [body if not part[6] & 0x20 else body[:len(body) & ~7]
                  for part, body in zip(parts, bodies, strict=True)]
        assert len(packet) - head == sum(map(len, bodies)) and all(body in packet for body in bodies)
    else:
        assert found is None or not found.fragment or wire.find_fragment(packet) is None or len(parts) == 1


def _check_honest(joiner: Defragmenter, given: Input, now: float) -> None:
    packet = s.ip_packet(17, struct.pack("!HHHH", 1, 2, 8 + 600, 0) + bytes(range(200)) * 3, "10.9.9.9", "10.8.8.8")
    body, step = packet[20:], 8 * (1 + given.number() % 20)
    pieces = []
    for at in range(0, len(body), step):
        field = at >> 3 | (at + step < len(body)) << 13
        piece = body[at:at + step]
        pieces.append(packet[:2] + (20 + len(piece)).to_bytes(2, "big") + packet[4:6] + field.to_bytes(2, "big")
                      + packet[8:20] + piece)
    while len(pieces) > 1:
        assert joiner.push(pieces.pop(given.number() % len(pieces)), now) is None
    whole = joiner.push(pieces.pop(), now)
    assert whole is not None and whole.packet[20:] == body and whole.packet[:2] == packet[:2]


# ---- netlink


class Socket:
    """Says what the input says, a piece at a time, then nothing."""

    def __init__(self, given: Input) -> None:
        self.given = given

    def settimeout(self, seconds: float) -> None:
        assert seconds > 0

    def sendto(self, request: bytes, address: tuple) -> None:
        size, kind, flags, sequence, port = struct.unpack_from("=IHHII", request)
        assert size == len(request) and flags & netlink.REQUEST

    def recv(self, size: int) -> bytes:
        if not self.given.left:
            raise TimeoutError
        return self.given.bytes(self.given.number() % 64)


def answered(data: bytes) -> None:
    given = Input(data)
    values = [(given.number(2), given.bytes(given.number() % 40)) for _ in range(given.number() % 4)]
    request = netlink.message(given.number() % 16, given.number(), netlink.ACK, given.number(), given.number(2),
                              b"".join(netlink.attribute(kind, value) for kind, value in values))
    at, read = 20, []
    while at < len(request):
        size, kind = struct.unpack_from("=HH", request, at)
        read.append((kind, request[at + 4:at + size]))
        at += size + 3 & ~3
    assert read == values and at == len(request)
    with contextlib.suppress(TimeoutError):
        assert isinstance(netlink.answer(Socket(given), request), int)  # type: ignore[arg-type]


# ---- marks


def _marks() -> int | None:
    key, value = SIZES["marks"]
    try:
        return bpf.create_map(bpf.Spec(1, key, value, MARKS, 0), "fuzz")
    except (OSError, SystemProblem):
        return None


MAP = _marks()
marks = Marking(MAP) if MAP is not None else None


def marking(data: bytes) -> None:
    given = Input(data)
    if marks is None:
        return
    used = set()
    for _ in range(8):
        how, what = given.number(), given.number() % 4
        size = 16 if how & 1 else 4
        ends = [given.bytes(size) for _ in range(2)]
        if how & 2:
            ends[1] = ends[0][:-1] + ends[1][-1:]
        ports = given.number(2), given.number(2)
        proto = 17 if how & 4 else 6
        packet = _packet_of(proto, ends, ports)
        back = _packet_of(proto, ends[::-1], ports[::-1])
        key = _key_of(proto, ends, ports)
        used.add(key)
        assert marks.mark(packet if how & 8 else back, what)
        kept = bpf.look_up(MAP, key, SIZES["marks"][1])
        assert kept is not None and struct.unpack_from("=QI", kept)[1] == what
        assert marks.mark(back, what ^ 1)
        assert struct.unpack_from("=QI", bpf.look_up(MAP, key, SIZES["marks"][1]))[1] == what ^ 1
    for key in used:
        bpf.delete(MAP, key)
    assert not marks.mark(given.bytes(19), 1)


def _packet_of(proto: int, ends: list[bytes], ports: tuple[int, int]) -> bytes:
    segment = struct.pack("!HHHH", *ports, 8, 0) if proto == 17 else struct.pack("!HHIIBBHHH", *ports, 1, 1, 80, 16,
                                                                                 0, 0, 0)
    if len(ends[0]) == 16:
        return struct.pack("!IHBB", 6 << 28, len(segment), proto, 64) + ends[0] + ends[1] + segment
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, proto, 0) + ends[0] + ends[1] + segment


def _key_of(proto: int, ends: list[bytes], ports: tuple[int, int]) -> bytes:
    """As structures.h has it: the higher end first, by the numbers that eight bytes at a time are on this machine."""
    one, other = ((*struct.unpack("=QQ", end.ljust(16, b"\0")), struct.unpack("=H", struct.pack("!H", port))[0])
                  for end, port in zip(ends, ports, strict=True))
    order = (0, 1) if one >= other else (1, 0)
    family = 6 if len(ends[0]) == 16 else 4
    return (b"".join(ends[i].ljust(16, b"\0") for i in order)
            + b"".join(struct.pack("!H", ports[i]) for i in order) + struct.pack("=I", family | proto << 8))


PLAYS = {"answers": answers, "defragment": defragment, "answered": answered, "marking": marking}
