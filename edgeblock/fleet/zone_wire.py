"""Messages of a zone transfer, from bytes to records as a master file has them.

In: one DNS message as it came (RFC 1035, 4.1), from anybody. Out: its header, its question, where its signature
begins, and the records of its answer. Names are in lower case (RFC 4343), those of owners relative to the zone. Never
here: a socket, a clock, or a belief in what the message says of itself.

dnspython reads what is rare. Owners, CNAME and addresses are read here: a zone of a million records takes seconds
and not a minute.
"""

import functools
import re
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

SOA, AXFR, IXFR, TSIG, OPT = 6, 252, 251, 250, 41
A, AAAA, CNAME = 1, 28, 5
NAMED = {2: b"NS", 5: b"CNAME", 12: b"PTR", 39: b"DNAME"}       # data that is one name
IN = 1
RESPONSE = 0x8000
NAME_MAX = 255              # RFC 1035, 2.3.4
HOPS = 32                   # pointers to pointers in one name: real compression has one
PLAIN = re.compile(rb"[a-z0-9_*-]+")
HEADER = struct.Struct("!HHHHHH")
RECORD = struct.Struct("!HHIH")


class BadMessage(ValueError):
    """The bytes are no DNS message, or one that a zone transfer cannot have; the text says what is wrong."""


class Record(NamedTuple):
    """`owner` is relative to the zone, `@` for its own name, None for one outside of it; `data` is text."""

    owner: bytes | None
    ttl: int
    type: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Soa:
    """A SOA record (RFC 1035, 3.3.13): its data as text, and the numbers in it; times are seconds."""

    data: bytes
    ttl: int
    serial: int
    refresh: int
    retry: int
    expire: int

    @classmethod
    def of(cls, ttl: int, data: bytes) -> "Soa":
        serial, refresh, retry, expire, _minimum = map(int, data.split(b" ")[2:])
        return cls(data, ttl, serial, refresh, retry, expire)


def is_newer(serial: int, than: int) -> bool:
    """Serial arithmetic (RFC 1982, 3.2); where it leaves open which is greater, it is not newer."""
    return 0 < (serial - than) % (1 << 32) < 1 << 31


class Message:
    """One message. Raises BadMessage, here or while `records` are read."""

    def __init__(self, wire: bytes) -> None:
        self.wire = wire
        self.names: dict[int, tuple[bytes, int]] = {}
        try:
            self.id, self.flags, questions, self.answers, *rest = HEADER.unpack_from(wire)
            self.authorities, self.additionals = rest
            self.at = HEADER.size
            self.question: tuple[bytes, int] | None = None
            for _ in range(questions):
                name, self.at = self.name(self.at)
                kind, _class = struct.unpack_from("!HH", wire, self.at)
                self.at += 4
                self.question = name, kind
        except (IndexError, struct.error):
            raise BadMessage("a message ends in the middle of its header or question") from None

    @property
    def is_response(self) -> bool:
        return bool(self.flags & RESPONSE)

    @property
    def opcode(self) -> int:
        return self.flags >> 11 & 15

    @property
    def rcode(self) -> int:
        return self.flags & 15

    def name(self, at: int, hops: int = 0) -> tuple[bytes, int]:
        """The name at an offset, absolute with its final dot, and the offset behind it."""
        wire, start, size = self.wire, at, 1
        labels = []
        while length := wire[at]:
            if length < 64:
                label = wire[at + 1:at + 1 + length].lower()
                if len(label) != length:
                    raise IndexError
                labels.append(label if PLAIN.fullmatch(label) else escaped(label))
                size += 1 + length
                at += 1 + length
                continue
            if length < 192:
                raise BadMessage("a name has a label of an unknown kind")
            target, at = (length & 63) << 8 | wire[at + 1], at + 2
            if (found := self.names.get(target)) is None:
                if target >= start or hops >= HOPS:
                    raise BadMessage("a name has a pointer that does not lead back")
                text, _ = self.name(target, hops + 1)
                found = self.names.setdefault(target, (text, NAME_MAX if text == b"." else wire_size(text)))
            if found[0] != b".":
                size += found[1]
                labels.append(found[0][:-1])
            break
        else:
            at += 1
        if size > NAME_MAX:
            raise BadMessage(f"a name is longer than {NAME_MAX} bytes")
        labels.append(b"")
        return b".".join(labels) or b".", at

    def records(self, zone: bytes) -> Iterator[Record]:
        """The answer, record by record, in the order in which they came; `zone` is absolute, in lower case."""
        wire, at, below = self.wire, self.at, b"." + zone
        cut = -len(below)
        try:
            for _ in range(self.answers):
                name, at = self.name(at)
                kind, rdclass, ttl, size = RECORD.unpack_from(wire, at)
                at += RECORD.size
                end = at + size
                if end > len(wire):
                    raise IndexError
                if rdclass != IN or kind in (0, OPT) or 128 <= kind <= 255:
                    raise BadMessage(f"a record of class {rdclass} and type {kind} is none of a zone")
                if ttl >> 31:
                    ttl = 0         # RFC 2181, 8
                if name.endswith(below):
                    owner: bytes | None = name[:cut]
                else:
                    owner = b"@" if name == zone else None
                yield Record(owner, ttl, kind, self.data(kind, at, end))
                at = end
        except (IndexError, struct.error):
            raise BadMessage("a message ends in the middle of a record") from None
        self.at = at
        self.answers = 0

    def data(self, kind: int, at: int, end: int) -> bytes:
        """The data of a record as text, names absolute."""
        if kind in NAMED:
            name, behind = self.name(at)
            if behind != end:
                raise BadMessage("a record has more, or less, in it than its name")
            return name
        if kind == A and end - at == 4:
            return socket.inet_ntop(socket.AF_INET, self.wire[at:end]).encode()
        if kind == AAAA and end - at == 16:
            return socket.inet_ntop(socket.AF_INET6, self.wire[at:end]).encode()
        try:
            known = dns.rdatatype.RdataType.make(kind)
            made = dns.rdata.from_wire(dns.rdataclass.IN, known, self.wire, at, end - at)
            canonical = made.to_digestable()        # names in lower case, whatever the primary's spelling is today
            made = dns.rdata.from_wire(dns.rdataclass.IN, known, canonical, 0, len(canonical))
            text = made.to_text().encode()
        except (dns.exception.DNSException, ValueError, struct.error) as error:
            raise BadMessage(f"the data of a record of type {kind} cannot be read ({type(error).__name__})") from None
        if b"\n" in text or b"\r" in text:
            raise BadMessage(f"the data of a record of type {kind} has a line end")
        return text

    def signature_at(self) -> int | None:
        """Where the TSIG record begins, which is the last of the message (RFC 8945, 5.1), None without one.

        To be called when the records have been read.
        """
        if self.answers:
            raise BadMessage("the answer was not read")
        at, wire = self.at, self.wire
        found = None
        try:
            for number in range(self.authorities + self.additionals, 0, -1):
                start = at
                _, at = self.name(at)
                kind, _, _, size = RECORD.unpack_from(wire, at)
                at += RECORD.size + size
                if kind == TSIG:
                    if number != 1 or not self.additionals:
                        raise BadMessage("a signature stands elsewhere than at the end of its message")
                    found = start
        except (IndexError, struct.error):
            raise BadMessage("a message ends in the middle of a record") from None
        if at != len(wire):
            raise BadMessage("a message has bytes behind its end")
        return found


@functools.cache
def type_text(kind: int) -> bytes:
    """CNAME, A, TYPE65280 (RFC 3597, 5)."""
    return NAMED.get(kind) or dns.rdatatype.to_text(dns.rdatatype.RdataType.make(kind)).encode()


def escaped(label: bytes) -> bytes:
    """A label with everything else as \\DDD (RFC 1035, 5.1), a dot as well: what is a dot then parts labels."""
    return b"".join(bytes([one]) if PLAIN.fullmatch(bytes([one])) else b"\\%03d" % one for one in label)


def wire_size(text: bytes) -> int:
    """Bytes of an absolute name in a message, its end left out."""
    return len(text) - 3 * text.count(b"\\")


def zone_text(name: dns.name.Name) -> bytes:
    """A name as Message has it."""
    return b".".join(label if PLAIN.fullmatch(label) else escaped(label)
                     for label in (one.lower() for one in name.labels[:-1])) + b"."
