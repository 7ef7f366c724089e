"""NOTIFY (RFC 1996): a primary says that its zone has changed, on UDP or TCP; whoever waits for that zone is woken.

In: messages from anybody. Out: a call to who listens for the zone, and an answer; nothing else is believed of it, its
serial least of all. Who says it has to be a configured primary, by its address, or to have the key. Of each kind of
sender only so many messages a second are looked at, so that strangers take nothing from the primaries. Never here: a
question to a primary. One address serves all zones of the process.
"""

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.tsig

from edgeblock.fleet.zone_wire import HEADER, SOA, BadMessage, Message

NOTIFY = 4                  # the opcode
MESSAGE_MAX = 4096          # bytes: a question, a SOA record and a signature
PRIMARIES_RATE, STRANGERS_RATE = 100, 20        # messages a second; what is above is lost, as UDP may be
AT_ONCE = 32                # packets read before others have their turn, and connections of each kind of sender
PATIENCE = 5.0              # seconds for a message on TCP
NOERROR, REFUSED, NOTAUTH = dns.rcode.NOERROR, dns.rcode.REFUSED, dns.rcode.NOTAUTH


@dataclass(frozen=True)
class Audience:
    """Who is told of a zone: `heard` gets the address of who said it. `primaries` may say it unsigned."""

    primaries: frozenset[str]
    key: dns.tsig.Key | None
    heard: Callable[[str], None]


class Allowance:
    """So many a second, and twice as many at once."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.left = 2 * rate
        self.since = 0.0

    def take(self, now: float) -> bool:
        self.left = min(2 * self.rate, self.left + (now - self.since) * self.rate)
        self.since = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass
class Listener:
    """One address and port, UDP and TCP. `join` and `leave` make and close it."""

    address: tuple[str, int]
    audiences: dict[bytes, list[Audience]] = field(default_factory=dict)
    lost: int = 0               # messages above the rate
    refused: int = 0            # messages of somebody who may not say it
    opened: "asyncio.Task[None] | None" = None
    _allowances: tuple[Allowance, Allowance] = field(
        default_factory=lambda: (Allowance(STRANGERS_RATE), Allowance(PRIMARIES_RATE)))
    _socket: socket.socket | None = None
    _server: asyncio.Server | None = None
    _connections: list[int] = field(default_factory=lambda: [0, 0])     # of strangers, of primaries

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._socket = bound(self.address, socket.SOCK_DGRAM)
        try:
            stream = bound(self.address, socket.SOCK_STREAM)
            self._server = await asyncio.start_server(self._serve, sock=stream, limit=MESSAGE_MAX)
        except OSError:
            self._socket.close()
            raise
        loop.add_reader(self._socket, self._read)

    async def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def _read(self) -> None:
        assert self._socket is not None
        for _ in range(AT_ONCE):
            try:
                wire, sender = self._socket.recvfrom(MESSAGE_MAX + 1)
            except OSError:
                return
            if answer := self.hear(wire, sender[0], asyncio.get_running_loop().time()):
                with suppress(OSError):
                    self._socket.sendto(answer, sender)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sender = writer.get_extra_info("peername")[0]
        known = any(plain(sender) in one.primaries for group in self.audiences.values() for one in group)
        self._connections[known] += 1
        try:
            if self._connections[known] > AT_ONCE:
                return
            async with asyncio.timeout(PATIENCE):
                size = int.from_bytes(await reader.readexactly(2))
                if size > MESSAGE_MAX:
                    return
                wire = await reader.readexactly(size)
                if answer := self.hear(wire, sender, asyncio.get_running_loop().time()):
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return
        finally:
            self._connections[known] -= 1
            writer.close()

    def hear(self, wire: bytes, sender: str, now: float) -> bytes | None:
        """What is answered to a message, None for nothing; who has to be told is."""
        try:
            message = Message(wire)
        except BadMessage:
            return None
        if len(wire) > MESSAGE_MAX or message.is_response or message.opcode != NOTIFY or message.question is None:
            return None
        sender = plain(sender)
        zone, kind = message.question
        audiences = self.audiences.get(zone, [])
        known = [one for one in audiences if sender in one.primaries]
        if not self._allowances[bool(known)].take(now):
            self.lost += 1
            return None
        if not audiences or kind != SOA:
            self.refused += 1
            return refusal(message, NOTAUTH)
        keys = {one.key.name: one.key for one in audiences if one.key is not None}
        try:
            asked = dns.message.from_wire(wire, keyring=keys)
        except (dns.tsig.BadSignature, dns.tsig.BadKey, dns.tsig.BadTime, dns.tsig.BadAlgorithm,
                dns.message.UnknownTSIGKey, dns.tsig.PeerError):
            self.refused += 1
            return refusal(message, NOTAUTH)
        except (dns.exception.DNSException, ValueError, struct.error):
            return None
        told = [one for one in audiences if asked.had_tsig and one.key == asked.keyring] if asked.had_tsig else known
        if not told:
            self.refused += 1
            return refusal(message, REFUSED)
        for one in told:
            one.heard(sender)
        answer = dns.message.make_response(asked)
        answer.flags |= dns.flags.AA
        return answer.to_wire()


def refusal(message: Message, rcode: int) -> bytes:
    """An unsigned answer that is no longer than what was asked."""
    return HEADER.pack(message.id, 0x8000 | NOTIFY << 11 | rcode, 1, 0, 0, 0) + message.wire[HEADER.size:message.at]


def plain(address: str) -> str:
    """An address as it is compared: without a scope, and IPv4 as IPv4."""
    made = ipaddress.ip_address(address.partition("%")[0])
    return str(getattr(made, "ipv4_mapped", None) or made)


def bound(address: tuple[str, int], kind: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    made = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


# One socket serves every zone that names its address.
_listeners: dict[tuple[int, tuple[str, int]], Listener] = {}


async def join(address: tuple[str, int], zone: bytes, audience: Audience) -> Listener:
    """From here on the audience hears of the zone. Raises OSError where nothing can listen there."""
    key = id(asyncio.get_running_loop()), address
    listener = _listeners.get(key)
    if listener is None:
        listener = _listeners[key] = Listener(address)
        listener.opened = asyncio.get_running_loop().create_task(listener.open())
    assert listener.opened is not None
    try:
        await asyncio.shield(listener.opened)
    except OSError:
        if _listeners.get(key) is listener:
            del _listeners[key]
        raise
    listener.audiences.setdefault(zone, []).append(audience)
    return listener


async def leave(listener: Listener, zone: bytes, audience: Audience) -> None:
    """The audience hears nothing more; the last one closes the sockets."""
    left = listener.audiences.get(zone, [])
    if audience in left:
        left.remove(audience)
    if not left:
        listener.audiences.pop(zone, None)
    if not listener.audiences:
        key = id(asyncio.get_running_loop()), listener.address
        if _listeners.get(key) is listener:
            del _listeners[key]
            await listener.close()
