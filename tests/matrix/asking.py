"""Asks a server as a client that sends exactly these bytes. In: what connects, bytes. Out: what came back.

TLS is asked with a hello of version 1.2, whose answer has the certificate in the clear: it tells the site, nothing
has to be decrypted, and the name in the hello may be any bytes.
"""

import select
import socket
import ssl
from collections.abc import Callable
from functools import cache

from tests.matrix.servers import LISTED, LISTED_PAGE, OTHER, Server
from tests.matrix.spellings import HTTP, TLS, Spelling, pieces

PATIENCE = 1.0              # seconds of silence after which a server has nothing more to say
ANSWER_MAX = 1 << 18


def spellings(server: Server) -> tuple[Spelling, ...]:
    return TLS if server.tls else HTTP


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
    return hello(filled) if server.tls else filled


def ask(server: Server, connect: Callable[[], socket.socket], data: bytes, how: str = "whole") -> bytes:
    """What the server says to these bytes, cut in this way, as far as it matters; empty where it resets."""
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
                if server.tls and OTHER.encode() in out:
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
    return (LISTED.encode() if server.tls else LISTED_PAGE) in answer
