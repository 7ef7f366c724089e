"""Somebody who sends with a subscriber's address and hears nothing of what comes back: a box that he cannot turn on
anybody, and connections that he cannot end.

What is measured is what the box itself makes: its packets begin with 64 hops, so they reach the client, next to it,
with 64, and the server, behind the other hop, with 63. Whoever forwards takes one away.
"""

import os
import random
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import evade
import pytest
from running import Running
from test_verdicts import VERSIONS, get

from edgeblock.lab import CLIENT, Lab, page, until

pytestmark = pytest.mark.live

# Established connections that are attacked, of each kind; the target is 1000.
CONNECTIONS = int(os.environ.get("EDGEBLOCK_STRANGERS", "25"))
LISTED = get("example.com", "/bad/page.html")
MOVED = get("example.com", "/old/address")


@dataclass
class Spy:
    """What the box has made, in bytes of IP, as it passes one place."""

    wire: socket.socket
    hops: int
    ports: set[int] = field(default_factory=set)    # of the client, where only these count: the ends of pages that
    sizes: list[int] = field(default_factory=list)  # nobody acknowledged in earlier tests still come

    def look(self) -> int:
        while True:
            try:
                packet, origin = self.wire.recvfrom(65536)
            except BlockingIOError:
                return sum(self.sizes)
            four = packet[0] >> 4 == 4
            protocol, hops = (packet[9], packet[8]) if four else (packet[6], packet[7])
            tcp = (packet[0] & 15) * 4 if four else 40
            ports = struct.unpack_from("!HH", packet, tcp) if protocol == 6 else ()
            if (protocol == 6 and hops == self.hops and origin[2] != socket.PACKET_OUTGOING
                    and (not self.ports or self.ports.intersection(ports))):
                self.sizes.append(len(packet))


@contextmanager
def spies(lab: Lab) -> Iterator[tuple[Spy, Spy]]:
    """At the client, and at the server."""
    with ExitStack() as stack:
        made = []
        for place, link, hops in (("client", "to-box", 64), ("server", "to-hop", 63)):
            with lab.entered(place):
                wire = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)))
                wire.bind((link, 3))
            wire.setblocking(False)
            made.append(Spy(wire, hops))
        yield made[0], made[1]


def hello(host: str) -> bytes:
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname=host).do_handshake()
    return out.read()


STRANGE = iter(random.sample(range(2000, 20_000), 18_000))      # ports that no flow of other tests has had


def strange(lab: Lab, version: int, port: int = 80, source: int = 0) -> evade.Flow:
    """A flow of which nothing is known but its ends; with a source port, one of the client's own."""
    flow = evade.Flow(lab, port, version, source=next(STRANGE))
    flow.next = random.randrange(1, evade.WRAP)
    if source:
        flow.source = source
        flow.here = socket.inet_pton(socket.AF_INET if version == 4 else socket.AF_INET6, CLIENT[version])
    return flow


def spoof(flow: evade.Flow, how: str, data: bytes) -> int:
    """Sends that; how many bytes of IP it was."""
    header = 40 if flow.version == 4 else 60
    if how == "data":
        flow.segment(0, data)
        return header + len(data)
    if how == "syn with data":
        flow.segment(0, data, flags=evade.SYN)
        return header + len(data)
    flow.segment(0, flags=evade.SYN)
    flow.segment(0, data)
    return 2 * header + len(data)


@VERSIONS
@pytest.mark.parametrize("how", ["data", "syn with data", "syn, then data"])
@pytest.mark.parametrize("what", ["page", "redirect", "alert"])
def test_without_a_handshake_no_more_leaves_the_box_than_came(lab: Lab, running: Running, version: int, how: str,
                                                              what: str):
    data = {"page": LISTED, "redirect": MOVED, "alert": hello("listed.example")}[what]
    before = lab.counters(running.daemon)
    with spies(lab) as (client, server):
        came = 0
        for _ in range(5):
            flow = strange(lab, version, 443 if what == "alert" else 80)
            client.ports.add(flow.source)
            server.ports.add(flow.source)
            with flow.wire:
                for _ in range(4):          # a retransmission is answered again
                    came += spoof(flow, how, data)
        # The engine has judged them all, and what it would say once more after a while has been said.
        known = "engine.unproven_blocked"
        assert until(lambda: lab.counters(running.daemon)[known] >= before[known] + 5, 5.0)
        assert not until(lambda: client.look() > came or server.look() > came, 1.0)
        assert client.look() + server.look() <= came, (client.sizes, server.sizes)
        assert max(client.sizes, default=0) <= 60 and not server.sizes


def test_who_shakes_hands_is_answered(lab: Lab, running: Running):
    """The counter-example: the same spy sees what the box makes for a client who hears the server."""
    with spies(lab) as (client, server):
        with lab.connect(80) as connection:
            connection.sendall(LISTED)
            assert connection.recv(65536).startswith(b"HTTP/1.1 451 ")
        assert until(lambda: client.look() > 1000 and server.look() >= 40, 2.0)


ATTACKS = ("rst", "syn", "syn with data", "data", "fin", "hello")


def attack(flow: evade.Flow, how: str) -> None:
    flow.isn, flow.next = random.randrange(evade.WRAP), random.randrange(1, evade.WRAP)
    if how == "rst":
        flow.segment(0, flags=evade.RST)
        flow.segment(0, flags=evade.RST | evade.ACK)
    elif how == "syn":
        flow.segment(0, flags=evade.SYN)
    elif how == "syn with data":
        flow.segment(0, LISTED, flags=evade.SYN)
        flow.segment(0, LISTED)
    elif how == "data":
        flow.segment(0, LISTED)
        flow.segment(0, LISTED[:-1] + b"?")
    elif how == "fin":
        flow.segment(0, LISTED, flags=evade.DATA | evade.FIN)
    else:
        flow.segment(0, hello("listed.example"))


def answers(connection: socket.socket, host: str) -> bool:
    """Whether a request on it is answered, as the lab's server does."""
    try:
        connection.sendall(get(host))
        wanted, got = page(host), b""
        while not got.endswith(wanted):
            piece = connection.recv(65536)
            if not piece:
                return False
            got += piece
    except OSError:
        return False
    return True


@VERSIONS
@pytest.mark.parametrize("port", [80, 443])
def test_an_established_connection_cannot_be_ended_by_who_hears_nothing(lab: Lab, running: Running, version: int,
                                                                        port: int):
    context = ssl.create_default_context(cafile=str(lab.home / "ca.pem"))
    harmed = []
    with ExitStack() as stack:
        connections = []
        for _ in range(CONNECTIONS):
            connection = stack.enter_context(lab.connect(port, version=version))
            source = connection.getsockname()[1]
            if port == 443:
                connection = stack.enter_context(context.wrap_socket(connection, server_hostname="open.example"))
            assert answers(connection, "open.example")
            connections.append((source, connection))
        flow = strange(lab, version, port, connections[0][0])
        stack.enter_context(flow.wire)
        for turn in range(2):
            for source, _ in connections:
                flow.source = source
                for how in ATTACKS:
                    attack(flow, how)
            harmed += [turn for source, connection in connections if not answers(connection, "open.example")]
        if port == 80:      # and they are still read
            for _, connection in connections[:3]:
                connection.sendall(LISTED)
                assert connection.recv(65536).startswith(b"HTTP/1.1 451 ")
    assert not harmed, f"{len(harmed)} of {2 * CONNECTIONS}"


@VERSIONS
def test_ports_cannot_be_blocked_before_they_are_used(lab: Lab, running: Running, version: int):
    harmed = []
    flow = strange(lab, version, 80, 1)
    with flow.wire:
        for source in random.sample(range(20_000, 32_000), CONNECTIONS):
            flow.source = source
            for how in ("syn with data", "data", "data"):
                attack(flow, how)
            with lab.entered("client"):
                connection = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6)
            with connection:
                connection.settimeout(4.0)
                connection.bind((CLIENT[version], source))
                try:
                    connection.connect((socket.inet_ntop(connection.family, flow.there), 80))
                    good = answers(connection, "open.example")
                except OSError:
                    good = False
                if not good:
                    harmed.append(source)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert not harmed, f"{len(harmed)} of {CONNECTIONS}"


@VERSIONS
def test_copies_behind_a_decoy_release_nothing(lab: Lab, running: Running, version: int):
    """520 one-byte copies of an innocent request that dies on its way, then the real one."""
    flow = evade.Flow(lab, 80, version)
    with flow.wire:
        flow.open()
        innocent = get("open.example").ljust(len(LISTED), b" ")[:len(LISTED)]
        flow.segment(0, innocent, ttl=evade.CLOSE_TO)
        for at in range(520):
            flow.segment(at % len(innocent), innocent[at % len(innocent):][:1], ttl=evade.CLOSE_TO)
        flow.send(LISTED)
        assert b"served by the lab" not in flow.hear(2.0)
