"""A client that ends a connection while the server's answer to it is on its way, and connects again from its port.

What is still on its way is of the same addresses and ports as the new connection, and comes before the server has
heard of that. It must not release it. The way back takes 50 ms here, so that there is something on it.
"""

import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from netfilterqueue import NetfilterQueue
from running import Running

from edgeblock.lab import CLIENT, SERVER, Lab

pytestmark = pytest.mark.live

DELAY = 0.05
PORTS = iter(range(41_000, 49_000))
BULK = 2_000_000
RANDOM = slice(11, 43)      # of a ClientHello in its record


@pytest.fixture(scope="module")
def slow(lab: Lab, running: Running) -> Iterator[Lab]:
    """The lab with a long way back from the server."""
    ended, ready = threading.Event(), threading.Event()

    def carry() -> None:
        waiting: deque = deque()

        def take(packet) -> None:
            packet.retain()
            waiting.append((time.monotonic() + DELAY, packet))

        with lab.entered("hop"):
            queue = NetfilterQueue()
        queue.bind(77, take, 20_000)
        ready.set()
        while not ended.is_set():
            queue.run(block=False)
            while waiting and waiting[0][0] <= time.monotonic():
                waiting.popleft()[1].accept()
            ended.wait(0.0005)
        for _, packet in waiting:
            packet.accept()
        queue.unbind()

    thread = threading.Thread(target=carry)
    thread.start()
    assert ready.wait(10.0)
    rules = [(tool, ["FORWARD", "-i", "to-server", "-j", "NFQUEUE", "--queue-num", "77", "--queue-bypass"])
             for tool in ("iptables", "ip6tables")]
    for tool, words in rules:
        lab.run_in("hop", [tool, "-A", *words])
    yield lab
    for tool, words in rules:
        lab.run_in("hop", [tool, "-D", *words])
    ended.set()
    thread.join(10.0)


@contextmanager
def deaf(lab: Lab, version: int) -> Iterator[None]:
    """The client hears of nothing but SYNs, so its kernel does not answer to what is late."""
    tool = "iptables" if version == 4 else "ip6tables"
    words = ["INPUT", "-p", "tcp", "--sport", "443", "-m", "tcp", "--tcp-flags", "SYN,RST", "NONE", "-j", "DROP"]
    lab.run_in("client", [tool, "-A", *words])
    try:
        yield
    finally:
        lab.run_in("client", [tool, "-D", *words])


def connect(lab: Lab, version: int, port: int) -> socket.socket:
    with lab.entered("client"):
        made = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    made.settimeout(5.0)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))    # it ends with a reset
    made.bind((CLIENT[version], port))
    made.connect((SERVER[version], 443))
    return made


def context(lab: Lab) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(lab.home / "ca.pem"))


def greeting(lab: Lab, version: int, port: int) -> socket.socket:
    """A connection whose hello the server is answering: a reset that came before it would not end that one."""
    one = connect(lab, version, port)
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context(lab).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="open.example").do_handshake()
    hello = outgoing.read()
    with lab.entered("server"):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))    # ETH_P_ALL
    with wire:
        wire.settimeout(5.0)
        one.sendall(hello)
        while hello[RANDOM] not in wire.recv(65536):
            pass
    return one


def bulk(lab: Lab, version: int, port: int) -> socket.socket:
    """A connection on which the server is sending a file."""
    one = context(lab).wrap_socket(connect(lab, version, port), server_hostname="open.example")
    target = lab.publish("bulk-again", bytes(BULK))
    one.sendall(f"GET {target} HTTP/1.1\r\nHost: open.example\r\n\r\n".encode())
    one.recv(65536)
    return one


def greets(lab: Lab, connection: socket.socket, host: str) -> bool:
    try:
        with context(lab).wrap_socket(connection, server_hostname=host) as wrapped:
            return wrapped.version() is not None
    except OSError:
        return False


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("before", [greeting, bulk])
@pytest.mark.parametrize("pause", [0.0, 0.02, 0.04])
def test_what_is_on_its_way_releases_no_later_connection(slow: Lab, running: Running, version: int, before,
                                                         pause: float):
    """And it harms none, but where conntrack has lost its place over what is late of a download: what it then calls
    invalid proves no address (docs/known-limits.md)."""
    for host, answered in (("listed.example", False), ("open.example", True)):
        port = next(PORTS)
        first = before(slow, version, port)
        with deaf(slow, version):
            threading.Event().wait(pause)       # to be at another place of the answer
            first.close()
            again = connect(slow, version, port)
        unproven = slow.counters(running.daemon)["engine.junk_unproven"]
        with again:
            greeted = greets(slow, again, host)
        lost = before is bulk and slow.counters(running.daemon)["engine.junk_unproven"] > unproven
        assert greeted == answered or answered and lost
