"""A primary name server on loopback that does what a test wants, the wrong things above all.

In: versions of a zone, a key, a fault. Out: a port with UDP and TCP on it, and what it was asked. Its messages are
dnspython's, so that what edgeblock reads was not written by edgeblock.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.tsig
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ZONE = "rpz.example."
SECRET = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0"


def key(name: str = "transfer", secret: str = SECRET, algorithm: str = "hmac-sha256") -> dns.tsig.Key:
    return dns.tsig.Key(name, secret, algorithm)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def record(line: str, zone: str = ZONE) -> dns.rrset.RRset:
    """Of "bad.example 300 CNAME .", relative to the zone."""
    owner, ttl, kind, data = line.split(None, 3)
    return dns.rrset.from_text(dns.name.from_text(owner, dns.name.from_text(zone)), int(ttl), "IN", kind, data)


def certificates(home: Path) -> ssl.SSLContext:
    """What a primary called ns.example shows; its authority is in ca.pem."""
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ns")])
    now = datetime.now(UTC)
    made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(secret.public_key())
            .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("ns.example")]), critical=False)
            .sign(secret, hashes.SHA256()))
    (home / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (home / "key.pem").write_bytes(secret.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home / "ca.pem", home / "key.pem")
    context.set_alpn_protocols(["dot"])
    return context


@dataclass
class Primary:
    """`versions` are lines of records by serial, in their order; the last is served. `spoil` changes the messages of
    a transfer before they go; it gets and returns their bytes. `pauses` are seconds before each message of a stream;
    `then_stays` keeps the connection open behind the last one."""

    versions: dict[int, list[str]]
    key: dns.tsig.Key | None = None
    zone: str = ZONE
    timers: str = "3600 600 86400 300"
    per_message: int = 3
    sign_each: int = 1              # every so many messages of a transfer are signed, the last one always
    increments: bool = True
    rcode: int = 0                  # of every answer
    ixfr_rcode: int = 0
    truncate: bool = False          # UDP answers
    deaf: bool = False              # UDP questions are lost
    final_soa: Callable[[dns.rrset.RRset], dns.rrset.RRset] = lambda soa: soa
    answer_zone: str = ""           # another name in the answers
    spoil: Callable[[list[bytes]], list[bytes]] = lambda wires: wires
    pauses: list[float] = field(default_factory=list)
    then_stays: bool = False
    soa_serial: int | None = None   # what it says when it is asked for the SOA record only
    tls: ssl.SSLContext | None = None       # then all is TLS, and nothing UDP
    asked: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def serial(self) -> int:
        return list(self.versions)[-1]

    def soa(self, serial: int) -> dns.rrset.RRset:
        return record(f"@ 300 SOA ns.{self.zone} hostmaster.{self.zone} {serial} {self.timers}",
                      self.answer_zone or self.zone)

    def records(self, query: dns.message.Message) -> list[dns.rrset.RRset]:
        """The whole zone or the increment, its SOA records included."""
        first, zone = self.soa(self.serial), self.answer_zone or self.zone
        whole = [first, *(record(line, zone) for line in self.versions[self.serial]), self.final_soa(first)]
        if query.question[0].rdtype == dns.rdatatype.AXFR:
            return whole
        asked = query.authority[0][0].serial
        if asked == self.serial:
            return [first]
        serials = list(self.versions)
        if not self.increments or asked not in serials:
            return whole
        made = [first]
        for old, new in zip(serials[serials.index(asked):], serials[serials.index(asked) + 1:], strict=False):
            before, after = self.versions[old], self.versions[new]
            made += [self.soa(old), *(record(line, zone) for line in before if line not in after)]
            made += [self.soa(new), *(record(line, zone) for line in after if line not in before)]
        return [*made, self.final_soa(first)]

    def answers(self, query: dns.message.Message) -> list[bytes]:
        kind = query.question[0].rdtype
        if kind == dns.rdatatype.SOA:
            rrsets = [self.soa(self.serial if self.soa_serial is None else self.soa_serial)]
            rcode = self.rcode
        else:
            rcode = self.rcode or (self.ixfr_rcode if kind == dns.rdatatype.IXFR else 0)
            rrsets = self.records(query)
        rrsets = [] if rcode else rrsets
        pieces = [rrsets[at:at + self.per_message] for at in range(0, len(rrsets), self.per_message)] or [[]]
        wires, context = [], None
        for number, piece in enumerate(pieces, 1):
            answer = dns.message.make_response(query)
            answer.flags |= dns.flags.AA
            answer.answer = piece
            answer.set_rcode(rcode)
            signs = number == 1 or number == len(pieces) or number % self.sign_each == 0
            if self.key is not None and signs:
                answer.use_tsig(self.key)
                answer.request_mac = query.mac
                wires.append(answer.to_wire(multi=True, tsig_ctx=context, max_size=65535))
                context = answer.tsig_ctx
            else:
                answer.tsig = None
                wires.append(answer.to_wire(max_size=65535))
                if context is not None:
                    context.update(wires[-1])
        return wires

    def asked_in(self, wire: bytes, by: str) -> dns.message.Message:
        query = dns.message.from_wire(wire, keyring={self.key.name: self.key} if self.key else False)
        self.asked.append(f"{dns.rdatatype.to_text(query.question[0].rdtype)} {by}")
        return query

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Primary"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = server.sockets[0].getsockname()[1]
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Datagrams(self), local_addr=("127.0.0.1", self.port))
        try:
            yield self
        finally:
            transport.close()
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            query = self.asked_in(await reader.readexactly(int.from_bytes(await reader.readexactly(2))), "tcp")
            wires = self.answers(query)
            if query.question[0].rdtype != dns.rdatatype.SOA:
                wires = self.spoil(wires)
            for number, wire in enumerate(wires):
                if self.pauses:
                    await asyncio.sleep(self.pauses[number % len(self.pauses)])
                writer.write(struct.pack("!H", len(wire)) + wire)
                await writer.drain()
            if self.then_stays:
                await reader.read()
        writer.close()


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, primary: Primary) -> None:
        self.primary = primary

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
        primary = self.primary
        query = primary.asked_in(data, "udp")
        if primary.deaf:
            return
        wire = primary.answers(query)[0]
        if primary.truncate:
            answer = dns.message.make_response(query)
            answer.flags |= dns.flags.TC
            if primary.key is not None:
                answer.use_tsig(primary.key)
            wire = answer.to_wire()
        self.transport.sendto(wire, sender)
