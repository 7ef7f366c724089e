"""What stands between a connection's beginning and the name, as turns of client and server, and servers that play.

In: a lab. Out: dialogues that end where TLS or HTTP begins, each with the port of a server that plays its side of it
and then hands the connection to the lab's own server. Run as a program, this file is those servers.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple

from edgeblock.lab import PAGE, Lab, until
from tests.matrix.certificates import write_certificates
from tests.matrix.servers import LISTED, selfserv

OPEN = "bright.example"        # as long as the listed one
FIRST_PORT = 20_000
PYTHON_PORT, PROXY_HTTP_PORT, PROXY_TLS_PORT = 20_100, 20_101, 20_102
RETRY_PORTS = {"OpenSSL": 20_103, "a cookie": 20_104, "NSS, a cookie": 20_105}


class Says(NamedTuple):
    """One turn."""

    server: bool
    words: bytes


def client(words: bytes) -> Says:
    return Says(False, words)


def server(words: bytes) -> Says:
    return Says(True, words)


SOCKS5_GRANTED = server(b"\5\0\0\1\0\0\0\0\0\0")
NAME5 = b"\3\x0copen.example\x01\xbb"
LDAP_STARTTLS = bytes.fromhex("301d02010177188016") + b"1.3.6.1.4.1.1466.20037"
STREAM = b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
MYSQL_GREETING = (b"\x4a\0\0\0\x0a8.0.34\0\x08\0\0\0abcdefgh\0\xff\xff\xff\2\0\xff\xdf\x15" + bytes(10)
                  + b"abcdefghijkl\0mysql_native_password\0")

DIALOGUES: dict[str, tuple[Says, ...]] = {
    "SMTP": (server(b"220 mail.example ESMTP\r\n"), client(b"EHLO client.example\r\n"),
             server(b"250-mail.example\r\n250 STARTTLS\r\n"), client(b"STARTTLS\r\n"), server(b"220 go ahead\r\n")),
    "SMTP, a long greeting": (server(b"220-" + b"welcome " * 200 + b"\r\n220 mail.example\r\n"),
                              client(b"EHLO a\r\n"),
                              server(b"250-mail.example\r\n" + b"250-X\r\n" * 100 + b"250 STARTTLS\r\n"),
                              client(b"STARTTLS\r\n"), server(b"220 go ahead\r\n")),
    "IMAP": (server(b"* OK ready\r\n"), client(b"a1 CAPABILITY\r\n"),
             server(b"* CAPABILITY IMAP4rev1 STARTTLS\r\na1 OK\r\n"), client(b"a2 STARTTLS\r\n"),
             server(b"a2 OK begin\r\n")),
    "POP3": (server(b"+OK ready\r\n"), client(b"STLS\r\n"), server(b"+OK begin\r\n")),
    "FTP": (server(b"220 ready\r\n"), client(b"AUTH TLS\r\n"), server(b"234 go ahead\r\n")),
    "XMPP": (client(STREAM), server(STREAM + b"<stream:features><starttls/></stream:features>"),
             client(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"), server(b"<proceed/>")),
    "LDAP": (client(LDAP_STARTTLS), server(bytes.fromhex("300c02010178070a010004000400"))),
    "PostgreSQL": (client(b"\0\0\0\x08\x04\xd2\x16\x2f"), server(b"S")),
    "MySQL": (server(MYSQL_GREETING), client(b"\x20\0\0\1\x85\xae\xff\0\0\0\0\1\x21" + bytes(23))),
    "SOCKS4": (client(b"\4\1\1\xbb\xcb\0\x71\x50user\0"), server(b"\0\x5a" + bytes(6))),
    "SOCKS4A": (client(b"\4\1\1\xbb\0\0\0\1user\0open.example\0"), server(b"\0\x5a" + bytes(6))),
    "SOCKS5, an address": (client(b"\5\1\0"), server(b"\5\0"), client(b"\5\1\0\1\xcb\0\x71\x50\x01\xbb"),
                           SOCKS5_GRANTED),
    "SOCKS5, a name": (client(b"\5\1\0"), server(b"\5\0"), client(b"\5\1\0" + NAME5), SOCKS5_GRANTED),
    "SOCKS5, a password": (client(b"\5\2\0\2"), server(b"\5\2"), client(b"\1\4user\6secret"), server(b"\1\0"),
                           client(b"\5\1\0" + NAME5), SOCKS5_GRANTED),
}
PORTS = {name: FIRST_PORT + number for number, name in enumerate(DIALOGUES)}
ALL_PORTS = [*PORTS.values(), PYTHON_PORT, PROXY_HTTP_PORT, PROXY_TLS_PORT, *RETRY_PORTS.values()]

NGINX = """
daemon off; pid {home}/before.pid; user root; worker_processes 1; events {{ worker_connections 128; }}
http {{
    access_log off; default_type text/plain;
    client_body_temp_path {home}/b1; proxy_temp_path {home}/b2; fastcgi_temp_path {home}/b3;
    uwsgi_temp_path {home}/b4; scgi_temp_path {home}/b5;
    server {{
        listen {http} proxy_protocol; listen [::]:{http} proxy_protocol;
        listen {tls} ssl proxy_protocol; listen [::]:{tls} ssl proxy_protocol;
        ssl_certificate {home}/server.pem; ssl_certificate_key {home}/server.key;
        location / {{ return 200 "{page}"; }}
    }}
}}
"""


def retrying(home: Path) -> dict[str, list[str]]:
    """Servers that know one group only, which no client's first key share is of: they answer with a
    HelloRetryRequest."""
    commands = {"OpenSSL": ["openssl", "s_server", "-tls1_3", "-groups", "P-384", "-www", "-quiet",
                            "-accept", str(RETRY_PORTS["OpenSSL"]),
                            "-cert", str(home / "server.pem"), "-key", str(home / "server.key")]}
    if shutil.which("selfserv"):
        write_certificates(home, {"listed": LISTED, "other": OPEN})
        commands["NSS, a cookie"] = [*selfserv(home, "", RETRY_PORTS["NSS, a cookie"], OPEN), "-I", "P384"]
    return commands


@contextmanager
def serving(lab: Lab) -> Iterator[None]:
    """All of them, in the lab's server, while the block runs."""
    settings, log = lab.home / "before.conf", lab.home / "before.log"
    settings.write_text(NGINX.format(home=lab.home, http=PROXY_HTTP_PORT, tls=PROXY_TLS_PORT,
                                     page=PAGE.format(host="$host", target="$request_uri").replace("\n", "\\n")))
    retry = retrying(lab.home)
    absent = {RETRY_PORTS["NSS, a cookie"]} if "NSS, a cookie" not in retry else set()
    ports = {f":{port} " for port in ALL_PORTS if port not in absent}
    with log.open("wb") as said, contextlib.ExitStack() as stack:
        for argv in ([sys.executable, __file__], ["nginx", "-e", str(log), "-c", str(settings)], *retry.values()):
            process = lab.popen_in("server", argv, stdin=subprocess.PIPE, stdout=said, stderr=said,
                                   env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])})
            stack.callback(process.communicate)
            stack.callback(process.terminate)

        def listening() -> bool:
            lines = lab.run_in("server", ["ss", "-Hltn"]).stdout
            return all(port in lines for port in ports)

        assert until(listening, 30.0), log.read_text()
        yield


# ---- the servers


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def plays(turns: tuple[Says, ...]):
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for turn in turns:
                if turn.server:
                    writer.write(turn.words)
                elif await reader.readexactly(len(turn.words)) != turn.words:
                    writer.close()
                    return
            first = await reader.readexactly(1)
            there = await asyncio.open_connection("127.0.0.1", 443 if first == b"\x16" else 80)
            there[1].write(first)
            await asyncio.gather(relay(reader, there[1]), relay(there[0], writer))
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
    return take


# RFC 8446, 4.1.3.
RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


def server_hello(random: bytes, session: bytes, extensions: bytes) -> bytes:
    """RFC 8446, 4.1.3, with TLS_AES_128_GCM_SHA256; in a record."""
    body = (b"\3\3" + random + bytes([len(session)]) + session + b"\x13\1\0"
            + len(extensions).to_bytes(2) + extensions)
    return b"\x16\3\3" + (4 + len(body)).to_bytes(2) + b"\2" + len(body).to_bytes(3) + body


async def record(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    return head + await reader.readexactly(int.from_bytes(head[3:]))


async def asks_again(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Wants another group (P-384) and a cookie of 120 bytes, and takes the second hello, whatever it says."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        hello = await record(reader)
        session = hello[44:44 + hello[43]]
        version, cookie = b"\0\x2b\0\2\3\4", b"\0\x2c\0\x7a\0\x78" + bytes(120)
        writer.write(server_hello(RETRY_RANDOM, session, version + cookie + b"\0\x33\0\2\0\x18"))
        while (await record(reader))[0] != 0x16:
            continue
        writer.write(server_hello(bytes(range(32)), session, version) + b"\x17\3\3\3\0" + bytes(768))
    writer.close()


class Page(BaseHTTPRequestHandler):
    """The lab's page, by Python's own server."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        page = PAGE.format(host=self.headers.get("Host"), target=self.path.partition("?")[0]).encode()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    do_POST = do_GET

    def log_message(self, *words: object) -> None:
        """Nothing."""


class Pages(ThreadingHTTPServer):
    address_family = socket.AF_INET6


async def main() -> None:
    Thread(target=Pages(("::", PYTHON_PORT), Page).serve_forever, daemon=True).start()
    for name, turns in DIALOGUES.items():
        await asyncio.start_server(plays(turns), None, PORTS[name])
    await asyncio.start_server(asks_again, None, RETRY_PORTS["a cookie"])
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
