"""DTLS through the daemon: OpenSSL's server on UDP 443, which asks each client for a cookie first, and its client."""

import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgeblock.lab import SERVER, Lab, until

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("running")]

VERSIONS = pytest.mark.parametrize("version", [4, 6])
PATIENCE = 2.5          # seconds; OpenSSL's client sends its hello again after one
HELLO_VERIFY_REQUEST, SERVER_HELLO = 3, 2


@contextmanager
def serving(lab: Lab, version: int) -> Iterator[None]:
    """For one connection: the server takes no other beside it."""
    listening = ["ss", "-Hlun", "sport = :443"]
    server = lab.popen_in("server", ["openssl", "s_server", "-dtls1_2", "-listen", "-quiet", "-accept", "443",
                                     f"-{version}", "-cert", str(lab.home / "server.pem"),
                                     "-key", str(lab.home / "server.key")],
                          stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: ":443" in lab.run_in("server", listening).stdout, 10.0)
        yield
    finally:
        server.kill()
        server.communicate()


def connects(lab: Lab, host: str, version: int) -> bool:
    """Whether OpenSSL's client gets through its handshake."""
    end = SERVER[version] if version == 4 else f"[{SERVER[version]}]"
    with serving(lab, version):
        client = lab.popen_in("client", ["openssl", "s_client", "-dtls1_2", "-connect", f"{end}:443", "-brief",
                                         "-servername", host, "-CAfile", str(lab.home / "ca.pem")],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            said, _ = client.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            client.kill()
            said, _ = client.communicate()
    return b"CONNECTION ESTABLISHED" in said


@VERSIONS
def test_an_unlisted_host_is_reached_and_a_listed_one_is_not(lab: Lab, version: int):
    assert connects(lab, "open.example", version)
    assert not connects(lab, "listed.example", version)
    assert connects(lab, "fine.listed.example", version)


# ---- a hello of our own


def hello(name: str, cookie: bytes) -> bytes:
    """A ClientHello without its handshake header."""
    entry = b"\0" + struct.pack("!H", len(name)) + name.encode()
    pairs = [(0, struct.pack("!H", len(entry)) + entry), (10, b"\0\4\0\x1d\0\x17"), (11, b"\1\0"),
             (13, b"\0\x08\4\3\4\1\x08\4\5\1")]
    extensions = b"".join(struct.pack("!HH", kind, len(data)) + data for kind, data in pairs)
    ciphers = b"\xc0\x2b\xc0\x2f\xc0\x2c\xc0\x30"
    return (b"\xfe\xfd" + bytes(range(32)) + b"\0" + bytes([len(cookie)]) + cookie + struct.pack("!H", len(ciphers))
            + ciphers + b"\1\0" + struct.pack("!H", len(extensions)) + extensions)


def records(body: bytes, message: int, number: int, step: int = 0) -> list[bytes]:
    """The message in fragments of `step` bytes (0: whole), a record each."""
    step = step or len(body)
    made = []
    for at in range(0, len(body), step):
        piece = body[at:at + step]
        data = (b"\1" + len(body).to_bytes(3) + message.to_bytes(2) + at.to_bytes(3) + len(piece).to_bytes(3) + piece)
        made.append(b"\x16\xfe\xff\0\0" + (number + len(made)).to_bytes(6) + struct.pack("!H", len(data)) + data)
    return made


def shakes(lab: Lab, version: int, first: str, second: str, before: bytes = b"", step: int = 0) -> bool:
    """Whether the server answers the second hello, with its cookie, with a ServerHello."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with serving(lab, version), lab.entered("client"), socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect((SERVER[version], 443))
        client.send(records(hello(first, b""), 0, 0)[0])
        try:
            answer = client.recv(2000)
        except TimeoutError:
            return False
        assert answer[13] == HELLO_VERIFY_REQUEST
        cookie = answer[28:28 + answer[27]]
        for datagram in records(hello(second, cookie), 1, 1, step):
            client.send(before + datagram)
        try:
            return client.recv(4000)[13] == SERVER_HELLO
        except TimeoutError:
            return False


@VERSIONS
def test_the_hello_behind_the_servers_cookie_is_read(lab: Lab, version: int):
    assert shakes(lab, version, "open.example", "open.example")
    assert not shakes(lab, version, "open.example", "listed.example")
    assert not shakes(lab, version, "listed.example", "open.example")
    assert shakes(lab, version, "open.example", "fine.listed.example")
