"""HTTP/3 in a lab: aioquic as server and as client.

In: a lab, a host, a target. Out: the page, or how and when the connection ended. Never: a certificate that is not
checked, a connection from outside the lab's namespaces. Run as a program, this file is the server.
"""

import asyncio
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent
from aioquic.quic.packet import QuicProtocolVersion

from edgeblock.lab import SERVER, Lab, page

V1, V2 = QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2
PORT = 443
PACE = 50               # datagrams of somebody else's between two questions
PATIENCE = 5.0          # seconds that a client waits for a page
IPV6_CHECKSUM = 7       # linux/in6.h


@dataclass
class Seen:
    """What the client saw: `error` is the code of the server's CONNECTION_CLOSE, None where none came; `seconds` runs
    until the end of the page, or of the connection.
    """

    status: int = 0
    body: bytes = b""
    error: int | None = None
    seconds: float = 0.0


# ---- the server


class _Server(QuicConnectionProtocol):
    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.http = H3Connection(self._quic)

    def quic_event_received(self, event: QuicEvent) -> None:
        for happened in self.http.handle_event(event):
            if isinstance(happened, HeadersReceived):
                self._answer(happened.stream_id, dict(happened.headers))

    def _answer(self, stream: int, head: dict[bytes, bytes]) -> None:
        host, target = head[b":authority"].decode(), head[b":path"].decode()
        file = FOLDER / target.removeprefix("/files/")
        body = file.read_bytes() if target.startswith("/files/") else page(host, target)
        self.http.send_headers(stream, [(b":status", b"200"), (b"content-type", b"text/plain")])
        self.http.send_data(stream, body, True)
        self.transmit()


async def _serve(home: Path) -> None:
    settings = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    settings.load_cert_chain(home / "server.pem", home / "server.key")
    for address in SERVER.values():
        await serve(address, PORT, configuration=settings, create_protocol=_Server)
    print("ready", flush=True)
    await asyncio.Event().wait()


@contextmanager
def serving(lab: Lab) -> Iterator[None]:
    """An HTTP/3 server beside the lab's own, on UDP, with the same certificate, pages and files."""
    log = lab.home / "h3.log"
    with log.open("wb") as errors:
        server = lab.popen_in("server", [sys.executable, __file__, str(lab.home)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=errors, cwd=Path(__file__).resolve().parents[2])
    assert server.stdout
    try:
        assert server.stdout.readline() == b"ready\n", log.read_text()
        yield
    finally:
        server.terminate()
        server.communicate()


# ---- the client


class _Client(QuicConnectionProtocol):
    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.http = H3Connection(self._quic)
        self.seen = Seen()
        self.over = asyncio.Event()

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            # An end that no CONNECTION_CLOSE brought about has no frame type and no reason but aioquic's own.
            self.seen.error = None if event.reason_phrase == "Idle timeout" else event.error_code
            self.over.set()
        for happened in self.http.handle_event(event):
            self._take(happened)

    def _take(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived):
            self.seen.status = int(dict(event.headers)[b":status"])
        elif isinstance(event, DataReceived):
            self.seen.body += event.data
        if isinstance(event, HeadersReceived | DataReceived) and event.stream_ended:
            self.over.set()

    def ask(self, host: str, target: str) -> None:
        head = {":method": "GET", ":scheme": "https", ":authority": host, ":path": target}
        self.http.send_headers(self._quic.get_next_available_stream_id(),
                               [(name.encode(), value.encode()) for name, value in head.items()], True)
        self.transmit()


async def _fetch(host: str, target: str, address: str, port: int, settings: QuicConfiguration) -> Seen:
    began = time.monotonic()
    clients: list[_Client] = []

    def client(*arguments: Any, **more: Any) -> _Client:
        clients.append(_Client(*arguments, **more))
        return clients[0]

    try:
        async with connect(address, PORT, configuration=settings, create_protocol=client, local_port=port):
            clients[0].ask(host, target)
            await clients[0].over.wait()
            clients[0].seen.seconds = time.monotonic() - began
    except ConnectionError:
        clients[0].seen.seconds = time.monotonic() - began
    return clients[0].seen


def fetch(lab: Lab, host: str, target: str = "/", *, version: int = 4, quic: int = V1, timeout: float = 3.0,
          port: int = 0, datagram: int = 1200) -> Seen:
    """The client asks the lab's server for a page over HTTP/3; it gives up after `timeout` seconds without an answer.

    `quic` is the version it begins with, `port` its own port (0: any), `datagram` the size of its first datagrams.
    """
    settings = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, server_name=host, cafile=str(lab.home / "ca.pem"),
        idle_timeout=timeout, original_version=quic, supported_versions=[quic], max_datagram_size=datagram)
    with lab.entered("client"):
        return asyncio.run(_fetch(host, target, SERVER[version], port, settings))


async def _harass(host: str, sent: list[bytes], version: int, port: int, settings: QuicConfiguration) -> list[Seen]:
    clients: list[_Client] = []

    def client(*arguments: Any, **more: Any) -> _Client:
        clients.append(_Client(*arguments, **more))
        return clients[0]

    seen = []
    async with connect(SERVER[version], PORT, configuration=settings, create_protocol=client, local_port=port):
        for at in range(0, len(sent) + 1, PACE):
            clients[0].seen = Seen()
            clients[0].over.clear()
            clients[0].ask(host, "/")
            await asyncio.wait_for(clients[0].over.wait(), PATIENCE)
            seen.append(clients[0].seen)
            spoof(sent[at:at + PACE], version, port)
    return seen


def harass(lab: Lab, host: str, sent: list[bytes], *, version: int = 4, port: int) -> list[Seen]:
    """What a client sees of a connection on which it asks again and again, while somebody sends datagrams to its
    server in its name: PACE of them, a question, and so on."""
    settings = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=host,
                                 cafile=str(lab.home / "ca.pem"), idle_timeout=PATIENCE)
    with lab.entered("client"):
        return asyncio.run(_harass(host, sent, version, port, settings))


async def _keep_asking(host: str, address: str, settings: QuicConfiguration, tell: Callable[[], None],
                       stop: threading.Event) -> None:
    clients: list[_Client] = []

    def client(*arguments: Any, **more: Any) -> _Client:
        clients.append(_Client(*arguments, **more))
        return clients[0]

    async with connect(address, PORT, configuration=settings, create_protocol=client):
        while not stop.is_set():
            clients[0].over.clear()
            clients[0].ask(host, "/")
            while not stop.is_set() and not clients[0].over.is_set():
                await asyncio.sleep(0.005)
            if clients[0].over.is_set():
                tell()


def keep_asking(lab: Lab, host: str, tell: Callable[[], None], stop: threading.Event, *, version: int = 4) -> None:
    """Asks again and again on one connection, and tells of each answer, until it is to stop."""
    settings = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=host,
                                 cafile=str(lab.home / "ca.pem"), idle_timeout=60.0)
    with lab.entered("client"):
        asyncio.run(_keep_asking(host, SERVER[version], settings, tell, stop))


def spoof(datagrams: list[bytes], version: int, port: int) -> None:
    """Sends datagrams with a source port that somebody else has; to be called where the client is."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        if version == 6:
            raw.setsockopt(socket.IPPROTO_IPV6, IPV6_CHECKSUM, 6)
        for datagram in datagrams:
            header = struct.pack(">HHHH", port, PORT, 8 + len(datagram), 0)
            raw.sendto(header + datagram, (SERVER[version], 0))


if __name__ == "__main__":
    FOLDER = Path(sys.argv[1]) / "files"
    asyncio.run(_serve(Path(sys.argv[1])))
