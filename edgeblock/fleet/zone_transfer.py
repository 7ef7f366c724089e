"""One zone transfer from one primary: what is asked, and what its answer means (RFC 1995, RFC 5936, RFC 9103).

In: a primary, the serial of what is there, bounds. Out: a whole zone or an increment, complete, signed where a key is
configured, and no older than what was there. Never here: a decision about what to ask next, or a file that lasts.
"""

import asyncio
import os
import ssl
import struct
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path

import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.tsig

from edgeblock.fleet.zone_key import Signatures, Untrusted
from edgeblock.fleet.zone_store import Change, Unfit, Whole
from edgeblock.fleet.zone_wire import AXFR, IXFR, SOA, BadMessage, Message, Record, Soa, is_newer, zone_text

CHANGES_MAX = 200_000       # records of an increment, which are in memory (about 60 MB); above, the whole zone comes
CHANGES_BYTES = 64 << 20    # and the most bytes of their names and data as text
READ = 64 * 1024
QUIET = 30.0                # seconds without a byte; a primary may have to look an increment up first
GRACE = 10.0                # seconds before the rate of a transfer is looked at


class Failed(Exception):
    """A question to this primary did not work; `grave` as in SourceError."""

    def __init__(self, why: str, grave: bool = False) -> None:
        super().__init__(why)
        self.grave = grave


class WentBack(Failed):
    """The primary has a zone that is older than what is there."""

    def __init__(self, serial: int, before: int, grave: bool = False) -> None:
        super().__init__(f"its serial went back from {before} to {serial}, which is not taken; raise it there above "
                         f"{before}, or remove the file here to begin anew", grave)


@dataclass(frozen=True)
class Bounds:
    """What a transfer may cost: bytes on the wire, records, seconds, and bytes a second at least."""

    bytes: int
    records: int
    seconds: float
    rate: int


@dataclass(frozen=True)
class Primary:
    """Where to ask, as an address and a port; `tls` is None for plain TCP."""

    address: str
    port: int
    tls: ssl.SSLContext | None = None
    tls_name: str = ""

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


@dataclass
class Arrived:
    """What a transfer has brought: `whole`, or `changes` by owner since the serial that was asked with; neither when
    the primary has nothing newer. `outside` is the records that were not the zone's and were passed over."""

    soa: Soa
    whole: Whole | None = None
    changes: dict[bytes, list[Change]] | None = None
    size: int = 0
    outside: int = 0


def question(zone: dns.name.Name, serial: int | None, key: dns.tsig.Key | None) -> tuple[bytes, dns.message.Message]:
    """AXFR, or IXFR from a serial, signed: as it is sent, and for what is in it (id, mac)."""
    kind = dns.rdatatype.AXFR if serial is None else dns.rdatatype.IXFR
    query = dns.message.make_query(zone, kind, use_edns=False)
    query.flags = 0
    if serial is not None:
        soa = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.SOA, f". . {serial} 0 0 0 0")
        query.find_rrset(query.authority, zone, dns.rdataclass.IN, dns.rdatatype.SOA, create=True).add(soa, 0)
    if key is not None:
        query.use_tsig(key)
    return query.to_wire(), query


@dataclass
class Inbound:
    """The records of one answer, in their order, and what they have come to. Nothing is read or written but `whole`.

    `base` is the serial of what is there, None when the whole zone is asked for; `least` the oldest serial that is
    taken. Raises BadMessage, Failed, or Unfit where the whole zone is needed.
    """

    zone: bytes
    base: int | None
    least: int | None
    bounds: Bounds
    folder: Path
    first: Soa | None = None
    is_done: bool = False
    whole: Whole | None = None
    changes: dict[bytes, list[Change]] | None = None
    records: int = 0
    outside: int = 0
    _at: int = 0                # of an increment: the serial up to which it has come
    _size: int = 0              # of an increment: bytes of names and data
    _comes: bool = True         # of an increment: additions, and not what goes
    _changes: dict[bytes, list[Change]] = field(default_factory=lambda: defaultdict(list))

    def take(self, record: Record) -> None:
        if self.is_done:
            raise BadMessage("records come behind the SOA record that ends the zone")
        self.records += 1
        if self.records > self.bounds.records:
            raise Failed(f"the zone has more than {self.bounds.records} records (max_records)")
        if record.type == SOA:
            if record.owner != b"@":
                raise BadMessage("a SOA record is that of another zone")
            self._take_soa(Soa.of(record.ttl, record.data))
            return
        if self.first is None:
            raise BadMessage("its first record is no SOA record of this zone")
        if record.owner is None:
            self.outside += 1       # passed over, as name servers do
            return
        if self.whole is None and self.changes is None:
            self.whole = Whole(self.folder, self.first)         # RFC 1995, 4: no SOA second is the whole zone
        if self.whole is not None:
            self.whole.add(record.owner, record.ttl, record.type, record.data)
            if self.whole.size > self.bounds.bytes:     # a message may say little of a long name
                raise Failed(f"the zone has more than {self.bounds.bytes} bytes as text ([fetch] file_megabytes)")
        else:
            self._size += len(record.owner) + len(record.data)
            if self.records > CHANGES_MAX or self._size > CHANGES_BYTES:
                raise Unfit(f"the increment has more than {CHANGES_MAX} records or {CHANGES_BYTES >> 20} MiB")
            self._changes[record.owner].append((self._comes, record.ttl, record.type, record.data))

    def _take_soa(self, soa: Soa) -> None:
        if self.first is None:
            self.first = soa
            if self.base is not None and soa.serial == self.base:
                self.is_done = True
            elif self.least is not None and soa.serial != self.least and not is_newer(soa.serial, self.least):
                raise WentBack(soa.serial, self.least)
            return
        if self.whole is not None or self.base is None:
            if soa.data != self.first.data:
                raise BadMessage("the SOA records at its begin and its end differ; the zone has changed meanwhile")
            if self.whole is None:
                self.whole = Whole(self.folder, self.first)
            self.is_done = True
        elif self.changes is None:
            if soa.serial != self.base:
                raise Unfit(f"the increment begins at serial {soa.serial}, not at {self.base}")
            self.changes, self._at, self._comes = self._changes, soa.serial, False
        elif not self._comes:
            if not is_newer(soa.serial, self._at):
                raise Unfit("the increment has a step that leads back")
            self._at, self._comes = soa.serial, True
        elif soa.serial != self._at:
            raise Unfit("the increment has a gap")
        elif soa.serial == self.first.serial:
            if soa.data != self.first.data:
                raise BadMessage("the SOA records at its begin and its end differ")
            self.is_done = True
        else:
            self._comes = False

    def close(self) -> None:
        if self.whole is not None:
            self.whole.close()


async def transfer(primary: Primary, name: dns.name.Name, base: int | None, least: int | None,
                   key: dns.tsig.Key | None, bounds: Bounds, folder: Path) -> Arrived:
    """Asks one primary, over TCP or TLS, for the increment from `base`, or for the whole zone.

    Raises:
        Failed: it did not work, and another primary may do better.
        Unfit: the increment is not there or makes no sense; the whole zone is needed.
    """
    sent, query = question(name, base, key)
    inbound = Inbound(zone_text(name), base, least, bounds, folder)
    signatures = Signatures(key, query.mac or b"")
    size = 0
    with ExitStack() as stack:
        stack.callback(inbound.close)
        try:
            async with asyncio.timeout(bounds.seconds), aclosing(messages(primary, sent, bounds)) as answer:
                async for wire in answer:
                    size += len(wire) + 2
                    await take(Message(wire), query, inbound, signatures)
                    if inbound.is_done:
                        break
        except TimeoutError:
            raise Failed(f"the transfer takes longer than {bounds.seconds:g} s ([fetch] total_seconds)") from None
        except Untrusted as error:
            raise Failed(str(error), error.forged) from None
        except BadMessage as error:
            raise Failed(str(error)) from None
        if not inbound.is_done or inbound.first is None:
            if base is not None and inbound.records == 1:
                raise Unfit("the increment has no more than a SOA record")
            raise Failed("the transfer was cut off in the middle; it is tried again")
        if not signatures.is_complete:
            raise Failed("the last message of the transfer is not signed", grave=True)
        stack.pop_all()
        return Arrived(inbound.first, inbound.whole, inbound.changes, size, inbound.outside)


def unreachable(error: OSError) -> Failed:
    """Why there is no connection, or it ended."""
    if isinstance(error, ssl.SSLError):
        why = getattr(error, "verify_message", "") or error.reason
        return Failed(f"TLS does not work: {why}", isinstance(error, ssl.SSLCertVerificationError))
    why = os.strerror(error.errno) if error.errno else str(error) or "it closes the connection"
    return Failed(f"cannot be reached ({why})")


async def take(message: Message, query: dns.message.Message, inbound: Inbound, signatures: Signatures) -> None:
    """One message of the answer. Its records count for nothing before the last one's signature is right."""
    if message.id != query.id or not message.is_response or message.opcode:
        raise BadMessage("a message is no answer to the question")
    asked = AXFR if inbound.base is None else IXFR
    if message.question is not None and message.question != (inbound.zone, asked):
        raise BadMessage("an answer is about another zone or question")
    problem = None
    count = message.answers
    for record in message.records(inbound.zone):
        if problem is None and not message.rcode:
            try:
                inbound.take(record)
            except (BadMessage, Failed, Unfit) as error:
                problem = error     # what is said of a message that is not signed is another matter
    signatures.check(message)
    if message.rcode:
        said = dns.rcode.to_text(dns.rcode.Rcode.make(message.rcode))
        if inbound.base is not None:
            raise Unfit(f"it answers {said} to the question for an increment")
        raise Failed(f"it answers {said}; may this box transfer the zone there (allow-transfer, acl)?")
    if problem is not None:
        if isinstance(problem, WentBack):
            problem.grave = signatures.key is not None      # forged it would not be signed
        raise problem
    if not count:
        raise BadMessage("a message has no record")
    if inbound.whole is not None and inbound.whole.is_full:
        await asyncio.to_thread(inbound.whole.spill)


async def messages(primary: Primary, sent: bytes, bounds: Bounds) -> AsyncGenerator[bytes, None]:
    """Sends a question and yields what comes, message by message (RFC 1035, 4.2.2), within the bounds, to its end."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(QUIET):
            reader, writer = await asyncio.open_connection(
                primary.address, primary.port, ssl=primary.tls,
                server_hostname=primary.tls_name or primary.address if primary.tls else None)
    except TimeoutError:
        raise Failed("does not answer") from None
    except OSError as error:
        raise unreachable(error) from None
    try:
        writer.write(struct.pack("!H", len(sent)) + sent)
        begun, received, buffer = 0.0, 0, b""
        while True:
            at = 0
            while len(buffer) >= at + 2 and len(buffer) >= (end := at + 2 + int.from_bytes(buffer[at:at + 2])):
                yield buffer[at + 2:end]
                at = end
            buffer = buffer[at:]
            try:
                async with asyncio.timeout(QUIET):
                    data = await reader.read(READ)
            except TimeoutError:
                raise Failed(f"nothing has come for {QUIET:g} s") from None
            except (OSError, ssl.SSLError):
                data = b""
            if not data:
                return
            begun = begun or loop.time()
            received += len(data)
            buffer += data
            elapsed = loop.time() - begun
            if received > bounds.bytes:
                raise Failed(f"the transfer has more than {bounds.bytes} bytes ([fetch] file_megabytes)")
            if elapsed > GRACE and received / elapsed < bounds.rate:
                raise Failed(f"the transfer is slower than {bounds.rate} bytes a second (min_rate)")
    finally:
        writer.transport.abort()        # nothing is left to say; a server may take its time to close TLS
