"""The daemon asks its own box, every few seconds, for a name that is listed and for one that is not.

In: two interfaces of our own (netfilter/pair.py), the key that the names come from (blocklist/canary.py). Out: for
each family and protocol whether the one was blocked and answered and the other passed and was answered. Packets enter
the kernel as a subscriber's do and are forwarded through the same hooks, rules, queue, worker and snapshot; both ends
of each connection are here. Never here: a packet by another interface, a counter of anybody's list, a name in a log.
"""

import asyncio
import os
import secrets
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from ctypes import addressof, create_string_buffer
from dataclasses import dataclass, field
from typing import Any

from edgeblock.blocklist.canary import control_name, neighbour_name
from edgeblock.blocklist.keys import Key
from edgeblock.config import Config
from edgeblock.daemon import probes
from edgeblock.daemon.probes import ACK, ANSWERS, FIN, PSH, RST, SYN, Path, Segment
from edgeblock.daemon.vigil import Call, State
from edgeblock.errors import SystemProblem
from edgeblock.netfilter import pair
from edgeblock.netfilter.pair import Ends

PATIENCE = (0.4, 0.8, 1.6)              # seconds that a connection may take, at the first try and at those after it
AGAIN = (1.2, 1.6)                      # the same where nothing has come: a worker is on its way, and packets wait
FIRST_PORT, PORTS = 20_000, 40_000      # of clients: each connection has one of its own, for some hours
MAKING = 2.0                            # seconds that who asks waits for the pair
ANOTHER = 30.0                          # seconds until a pair that could not be made is tried again
PASSES, BLOCKED = "a listed name passes", "a name that is not listed is blocked"
ADDRESS_PASSES = "a listed address passes"
CERTAIN = PASSES, BLOCKED, ADDRESS_PASSES
LISTED_PORT = 9         # (discard) of our server: always in the kernel's address rules, and the next port never
DATAGRAMS = ("quic", "address")
PACKETS_MAX = 256                       # read at a time

SO_ATTACH_FILTER, SOL_PACKET, IGNORE_OUTGOING = 26, 263, 23
ETHERTYPES = {4: 0x0800, 6: 0x86DD}
# What the box has sent comes with a hardware address that is nobody's: PACKET_OTHERHOST. The rest is our own.
OTHERS_ONLY = b"".join(struct.pack("=HBBI", *one) for one in (
    (0x20, 0, 0, 0xFFFFF004), (0x15, 0, 1, 3), (0x06, 0, 0, 1 << 18), (0x06, 0, 0, 0)))


@dataclass(eq=False)
class Connection:
    """One connection, as both of its ends see it."""

    family: int
    protocol: str
    listed: bool
    payloads: list[bytes]
    port: int
    server_port: int
    done: "asyncio.Future[str]"             # "", or what was wrong
    sequence: int = field(default_factory=lambda: secrets.randbits(32))
    server_sequence: int = field(default_factory=lambda: secrets.randbits(32))
    reached: bool = False                   # the server: a SYN, or a datagram
    begun: bool = False                     # the client has said what it has to say
    arrived: set[int] = field(default_factory=set)      # which payloads have come to the server

    def end(self, wrong: str = "") -> None:
        if not self.done.done():
            self.done.set_result(wrong)


class Canary:
    """What asks. Everything happens in the event loop's thread but the making of interfaces."""

    def __init__(self, config: Config, log: Any, state: State, call: Call, key: Callable[[], Key | None],
                 addresses: Callable[[], bool] = lambda: False) -> None:
        self.addresses = addresses              # whether there are address rules to be asked
        self.config, self.log, self.state, self.call, self.key = config, log, state, call, key
        self.off = why_not(config)              # why it does not ask at all
        self.ends: dict[int, Ends] = {}
        self.lacking: dict[int, str] = {}
        self.results: dict[tuple[int, str], str] = {}
        self.succeeded: dict[tuple[int, str], float] = {}
        self.rounds = 0
        self.links: list[socket.socket] = []
        self.connections: dict[tuple[int, int], Connection] = {}
        self.port = secrets.randbelow(PORTS)
        self.asking: asyncio.Task[None] | None = None
        self.tried = asyncio.Event()            # to make the interfaces

    def status(self) -> dict[str, Any]:
        """What `status`, the metrics and `edgeblock canary` show."""
        return {"state": "off" if self.off else "waiting" if not self.results
                else "failed" if any(self.results.values()) else "ok",
                "off": self.off, "lacking": {f"ipv{family}": why for family, why in self.lacking.items()},
                "rounds": self.rounds,
                "probes": [{"family": f"ipv{family}", "protocol": protocol, "wrong": wrong,
                            "succeeded": self.succeeded.get((family, protocol), 0.0)}
                           for (family, protocol), wrong in sorted(self.results.items())]}

    async def keep(self) -> None:
        """Until it is cancelled; then the interfaces are taken away."""
        if self.off:
            return
        try:
            while True:
                if not self.links or not pair.is_there(pair.CLIENTS):
                    self._close()
                    if not await self._open():
                        await asyncio.sleep(ANOTHER)
                        continue
                await self.ask()
                await asyncio.sleep(self.config.canary.period)
        finally:
            self._close()

    async def remove(self) -> None:
        """Takes the interfaces away."""
        if not self.off or self.ends:
            with suppress(SystemProblem):
                await self.call(pair.remove)

    async def ask(self) -> dict[str, Any]:
        """One round, the one that is under way if there is one; `status` after it."""
        if not self.off:
            with suppress(TimeoutError):
                async with asyncio.timeout(MAKING):
                    await self.tried.wait()
        if self.links:
            if self.asking is None or self.asking.done():
                self.asking = asyncio.get_running_loop().create_task(self._round())
            await asyncio.shield(self.asking)
        return self.status()

    # ---- the wires

    async def _open(self) -> bool:
        networks = {4: self.config.canary.ipv4, 6: self.config.canary.ipv6}
        try:
            self.ends, lacking = await self.call(pair.make, networks)
            self._listen()
        except (SystemProblem, OSError) as problem:
            self.ends, lacking = {}, {4: str(problem), 6: str(problem)}
            self._close()
        if lacking != self.lacking:
            for family, why in lacking.items():
                self.log.warning("no canary", family=f"ipv{family}", problem=why)
        self.lacking = lacking
        self.tried.set()
        return bool(self.ends)

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        program = create_string_buffer(OTHERS_ONLY, len(OTHERS_ONLY))
        code = struct.pack("HP", len(OTHERS_ONLY) // 8, addressof(program))
        for device, take in ((pair.SERVERS, self._at_client), (pair.CLIENTS, self._at_server)):
            link = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
            self.links.append(link)
            link.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, code)
            link.setsockopt(SOL_PACKET, IGNORE_OUTGOING, 1)
            link.bind((device, 0x0003))          # ETH_P_ALL
            loop.add_reader(link.fileno(), self._hear, link, take)
        hardware = [link.getsockname()[4] for link in self.links]
        # What goes out on one wire comes in at the other interface, which takes what is for its own address.
        self.client_wire, self.server_wire = self.links
        self.to_box = {self.client_wire: (pair.SERVERS, hardware[1]), self.server_wire: (pair.CLIENTS, hardware[0])}
        self.paths = {family: (Path(ends.client, ends.server), Path(ends.server, ends.client))
                      for family, ends in self.ends.items()}

    def _close(self) -> None:
        if self.asking is not None:
            self.asking.cancel()
        loop = asyncio.get_running_loop()
        for link in self.links:
            loop.remove_reader(link.fileno())
            link.close()
        self.links = []

    def _hear(self, link: socket.socket, take: Callable[[Connection, Segment], None]) -> None:
        client = link is self.client_wire
        for _ in range(PACKETS_MAX):
            try:
                packet = link.recv(65536)
            except BlockingIOError:
                return
            except OSError:                     # somebody has taken the interface down, or away
                return
            seen = probes.read(packet) if packet else None
            if seen is None:
                continue
            found = self.connections.get((packet[0] >> 4, seen.target if client else seen.source))
            if found is not None:
                take(found, seen)

    def _send(self, wire: socket.socket, family: int, packet: bytes) -> None:
        device, hardware = self.to_box[wire]
        with suppress(OSError):                 # the interface is down: the connection fails in time
            wire.sendto(packet, (device, ETHERTYPES[family], 0, 0, hardware))

    # ---- both ends

    def _say(self, one: Connection) -> None:
        """The client's packets with data."""
        path, at = self.paths[one.family][0], one.sequence + 1
        one.begun = True
        for payload in one.payloads:
            if one.protocol in DATAGRAMS:
                packet = path.udp(one.port, one.server_port, payload)
            else:
                packet = path.tcp(one.port, one.server_port, ACK | PSH, at, one.server_sequence + 1, payload)
                at += len(payload)
            self._send(self.client_wire, one.family, packet)

    def _at_server(self, one: Connection, seen: Segment) -> None:
        back = self.paths[one.family][1]
        one.reached = True
        if seen.flags & SYN:
            self._send(self.server_wire, one.family, back.tcp(one.server_port, one.port, SYN | ACK,
                                                              one.server_sequence, one.sequence + 1))
        if not seen.payload or seen.payload not in one.payloads or seen.flags & RST:
            return
        one.arrived.add(one.payloads.index(seen.payload))
        if len(one.arrived) < len(one.payloads):
            return
        if one.listed:
            one.end(ADDRESS_PASSES if one.protocol == "address" else PASSES)
        elif one.protocol == "address":
            one.end()
        elif one.protocol == "quic":
            self._send(self.server_wire, one.family, back.udp(one.server_port, one.port, ANSWERS["quic"]))
        else:
            said = one.sequence + 1 + sum(map(len, one.payloads))
            self._send(self.server_wire, one.family, back.tcp(one.server_port, one.port, ACK | PSH,
                                                              one.server_sequence + 1, said, ANSWERS[one.protocol]))

    def _at_client(self, one: Connection, seen: Segment) -> None:
        if seen.flags & SYN:
            if not one.begun:
                self._send(self.client_wire, one.family, self.paths[one.family][0].tcp(
                    one.port, one.server_port, ACK, one.sequence + 1, one.server_sequence + 1))
                self._say(one)
        elif one.listed:
            if seen.flags & (RST | FIN) or seen.payload:
                one.end()
        elif seen.payload == ANSWERS[one.protocol]:
            one.end()
        elif seen.flags & (RST | FIN) or seen.payload:
            one.end(BLOCKED)

    # ---- asking

    async def _round(self) -> None:
        key = self.key()
        if key is None:
            return
        wanted = {(family, protocol): "" for family in self.ends for protocol in self._protocols()}
        for number, patience in enumerate((*PATIENCE, *AGAIN)):
            again = [which for which, wrong in wanted.items()
                     if number == 0 or wrong and (number < len(PATIENCE) or not wrong.startswith(CERTAIN))]
            if not again:
                break
            told = await asyncio.gather(*(self._ask_for(key, *which, patience) for which in again))
            wanted |= dict(zip(again, told, strict=True))
        self._have(wanted)

    def _have(self, results: dict[tuple[int, str], str]) -> None:
        now = time.time()
        self.rounds += 1
        for which, wrong in results.items():
            family, protocol = which
            if wrong and self.results.get(which) != wrong:
                self.log.error("canary failed", family=f"ipv{family}", protocol=protocol, problem=wrong)
            elif not wrong:
                self.succeeded[which] = now
                if self.results.get(which, "not asked yet"):
                    self.log.info("canary succeeded", family=f"ipv{family}", protocol=protocol)
        changed, self.results = results != self.results, results
        passing = [f"{protocol} over IPv{family}" for (family, protocol), wrong in sorted(results.items())
                   if wrong.startswith(PASSES)]
        self.state.say("canary", f"a listed name passes: {', '.join(passing)}" if passing else "")
        families = [f"IPv{family}" for (family, _), wrong in sorted(results.items()) if wrong == ADDRESS_PASSES]
        self.state.say("canary of addresses", f"{ADDRESS_PASSES}: {', '.join(families)}" if families else "")
        if changed:
            self.state.tell()

    def _protocols(self) -> Iterator[str]:
        if self.config.ruleset.tcp_ports:
            yield from ("http", "tls")
        if self.config.ruleset.udp_ports:
            yield "quic"
        if self.addresses():
            yield "address"

    async def _ask_for(self, key: Key, family: int, protocol: str, patience: float) -> str:
        """What is wrong with one protocol over one family; "" where nothing is."""
        if protocol == "address":
            return await self._ask_for_address(family, patience)
        connections = [self._connection(family, protocol, name, pieces)
                       for name in (control_name(key), neighbour_name(key)) for pieces in (False, True)]
        for one in connections[:2]:
            one.listed = True
        for one in connections:
            self.connections[family, one.port] = one
            if protocol == "quic":
                self._say(one)
            else:
                self._send(self.client_wire, family, self.paths[family][0].tcp(one.port, one.server_port, SYN,
                                                                               one.sequence, 0))
        try:
            await asyncio.wait({one.done for one in connections}, timeout=patience)
            return next((wrong for one in connections if (wrong := self._wrong(one))), "")
        finally:
            for one in connections:
                del self.connections[family, one.port]
                self._forget(one)

    async def _ask_for_address(self, family: int, patience: float) -> str:
        """The same of a datagram to the endpoint that is listed; one to the next port follows on the same way."""
        listed, beside = (Connection(family, "address", number == LISTED_PORT, [os.urandom(32)], self._next_port(),
                                     number, asyncio.get_running_loop().create_future())
                          for number in (LISTED_PORT, LISTED_PORT + 1))
        for one in (listed, beside):
            self.connections[family, one.port] = one
            self._say(one)
        try:
            await asyncio.wait({beside.done}, timeout=patience)
            return listed.done.result() if listed.done.done() else self._wrong(beside)
        finally:
            for one in (listed, beside):
                del self.connections[family, one.port]

    def _wrong(self, one: Connection) -> str:
        how = "in pieces" if len(one.payloads) > 1 else "whole"
        if one.done.done():
            return f"{one.done.result()}, {how}" if one.done.result() else ""
        if not one.reached and not (one.listed and one.protocol == "quic"):
            return (f"nothing comes through from {pair.CLIENTS} to {pair.SERVERS}: does the box forward, and do its "
                    f"rules accept that?")
        if one.listed:
            # A QUIC client gets an answer only where few have asked (docs/limits.md).
            return "" if one.protocol == "quic" else f"a listed name is not answered, {how}"
        return f"a name that is not listed gets no answer, {how}"

    def _connection(self, family: int, protocol: str, name: str, pieces: bool) -> Connection:
        settings = self.config.ruleset
        ports = settings.udp_ports if protocol == "quic" else settings.tcp_ports
        usual = 80 if protocol == "http" else 443
        number = usual if isinstance(ports, str) or usual in ports else ports[0]
        return Connection(family, protocol, False, probes.payloads(protocol, name, pieces, os.urandom(8)),
                          self._next_port(), number, asyncio.get_running_loop().create_future())

    def _next_port(self) -> int:
        self.port = (self.port + 1) % PORTS
        return FIRST_PORT + self.port

    def _forget(self, one: Connection) -> None:
        """Has conntrack forget it, too."""
        if one.protocol != "quic" and one.begun and not one.listed:
            at = one.sequence + 1 + sum(map(len, one.payloads))
            self._send(self.client_wire, one.family, self.paths[one.family][0].tcp(one.port, one.server_port, RST, at,
                                                                                   0))


def why_not(config: Config) -> str:
    """Why these settings have no canary; "" where they have one."""
    if not config.canary.enabled:
        return "off in the settings"
    if not config.ruleset.install:
        return "ruleset.install = false: the kernel rules are not the daemon's"
    if "forward" not in config.ruleset.hooks:
        return 'ruleset.hooks has no "forward": what goes through the box is not filtered'
    return ""
