"""Asks a server as a client that sends exactly these bytes. In: what connects, bytes. Out: what came back.

TLS is asked with a hello of version 1.2, whose answer has the certificate in the clear: it tells the site, nothing
has to be decrypted, and the name in the hello may be any bytes.
"""

import select
import socket
import ssl
import time
from collections.abc import Callable
from functools import cache

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography.hazmat.primitives.serialization import Encoding

from tests.matrix.servers import LISTED, LISTED_PAGE, OTHER, Server
from tests.matrix.spellings import ROWS, Spelling, pieces

PATIENCE = 1.0              # seconds of silence after which a server has nothing more to say
ANSWER_MAX = 1 << 18


def spellings(server: Server) -> tuple[Spelling, ...]:
    return ROWS[server.kind]


@cache
def bare_hello() -> bytes:
    """A ClientHello without a server name."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return out.read()
    raise ssl.SSLError("no hello")


def hello(name: bytes) -> bytes:
    """The hello with this server name: RFC 5246 7.4.1.2 for the lengths, RFC 6066 3 for the extension."""
    bare = bare_hello()
    at = 5 + 4 + 2 + 32
    at += 1 + bare[at]
    at += 2 + int.from_bytes(bare[at:at + 2], "big")
    at += 1 + bare[at]
    entry = b"\0" + len(name).to_bytes(2, "big") + name
    listed = len(entry).to_bytes(2, "big") + entry
    extensions = b"\0\0" + len(listed).to_bytes(2, "big") + listed + bare[at + 2:]
    body = bare[9:at] + len(extensions).to_bytes(2, "big") + extensions
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return b"\x16\3\1" + len(message).to_bytes(2, "big") + message


def sent(server: Server, spelling: Spelling, listed: bytes, other: bytes) -> bytes:
    """The client's first bytes."""
    filled = spelling.filled(listed, other)
    return hello(filled) if server.kind == "tls" else filled


class Raw(str):
    """A name that goes into the hello as these bytes, which no text may have."""

    def __new__(cls, name: bytes) -> "Raw":
        made = super().__new__(cls, name.decode("latin-1"))
        made.name = name
        return made

    def encode(self, *_: str) -> bytes:
        return self.name


def quic_client(name: bytes) -> QuicConnection:
    """A client of QUIC that has sent nothing yet."""
    client = QuicConnection(configuration=QuicConfiguration(
        is_client=True, alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE, server_name=Raw(name)))
    client.connect(("192.0.2.1", 443), now=time.monotonic())
    return client


def ask_quic(connect: Callable[[], socket.socket], name: bytes) -> bytes:
    """The certificate that a server shows to this name, over QUIC; empty where it shows none."""
    client, until = quic_client(name), time.monotonic() + PATIENCE
    try:
        with connect() as connection:
            while (now := time.monotonic()) < until:
                for datagram, _ in client.datagrams_to_send(now):
                    connection.send(datagram)
                timer = client.get_timer()
                ready = select.select([connection], [], [], max(0.0, min(until, timer or until) - now))[0]
                now = time.monotonic()
                if ready:
                    client.receive_datagram(connection.recv(65536), ("192.0.2.1", 443), now)
                elif timer and now >= timer:
                    client.handle_timer(now)
                if client.tls._peer_certificate:
                    return bytes(client.tls._peer_certificate.public_bytes(Encoding.DER))
    except OSError:
        pass
    return b""


def ask(server: Server, connect: Callable[[], socket.socket], data: bytes, how: str = "whole") -> bytes:
    """What the server says to these bytes, cut in this way, as far as it matters; empty where it resets."""
    if server.kind == "quic":
        return ask_quic(connect, data)
    out = b""
    try:
        with connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number, piece in enumerate(pieces(data, how)):
                if number:
                    select.select([connection], [], [], 0.002)
                connection.sendall(piece)
            connection.settimeout(PATIENCE)
            while len(out) < ANSWER_MAX and not is_served(server, out):
                if server.kind == "tls" and OTHER.encode() in out or server.kind == "http2" and is_over(out):
                    break
                more = connection.recv(65536)
                if not more:
                    break
                out += more
    except OSError:
        pass
    return out


def is_served(server: Server, answer: bytes) -> bool:
    """Whether it is the listed site that answered: its page, or its certificate."""
    return (LISTED.encode() if server.kind in ("tls", "quic") else LISTED_PAGE) in answer


def is_over(answer: bytes) -> bool:
    """Whether what a server says over HTTP/2 ends the one stream, or the connection: RFC 9113, 4.1 and 6."""
    while len(answer) >= 9 + int.from_bytes(answer[:3]):
        kind, flags, stream = answer[3], answer[4], int.from_bytes(answer[5:9])
        if kind in (3, 7) or stream == 1 and kind in (0, 1) and flags & 1:
            return True
        answer = answer[9 + int.from_bytes(answer[:3]):]
    return False
