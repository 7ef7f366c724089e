"""What comes before the name, and between two names, played live: nothing that a server says there ends the watch.

Each row is a dialogue of client and server in a lab, then a ClientHello or a request in pieces: without the filter
the page comes for both hosts, with it for the unlisted one only, in every mode.
"""

import shutil
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import before
import pytest
from before import DIALOGUES, LISTED, OPEN, PORTS, RETRY_RANDOM, Says, client, server
from evade import Hello, request
from running import MARKED, start, track_nothing

from edgeblock.lab import Lab

pytestmark = pytest.mark.live

PATIENCE = 5.0
ACCESS_DENIED = bytes.fromhex("15030300020231")         # the alert that a blocked client is answered with
WHOLE, FIRST_BYTES, BYTES = (), (1, 2, 3, 5), tuple(range(1, 12))
MODES = ("bare", "on", "off", "untracked", "shortcut")


@dataclass(frozen=True)
class Row:
    """`turns` on `port`, and then the message, cut at `cuts`."""

    name: str
    port: int
    turns: tuple[Says, ...]
    tls: bool = True
    cuts: tuple[int, ...] = WHOLE


def proxy2(body: bytes) -> Says:
    return client(b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + len(body).to_bytes(2) + body)


PROXY = {"PROXY v1": client(b"PROXY TCP4 198.51.100.9 203.0.113.7 40000 443\r\n"),
         "PROXY v1, unknown": client(b"PROXY UNKNOWN\r\n"),
         "PROXY v2": proxy2(bytes.fromhex("c6336409cb0071079c4001bb")),
         "PROXY v2, more": proxy2(bytes.fromhex("c6336409cb0071079c4001bb") + b"\4\0\x40" + bytes(64))}


def ask(words: str, answer: bytes) -> tuple[Says, Says]:
    """A request of somebody else's on a connection that is kept, and what has to be in its answer."""
    return client(words.replace("\n", "\r\n").encode()), server(answer)


KEPT = {
    "a method of 33 letters, 405": (80, ask(f"{'M' * 33} /files/ HTTP/1.1\nHost: {OPEN}\n\n", b" 405 ")),
    "a method of 33 letters, 405, twice": (80, 2 * ask(f"{'M' * 33} /files/ HTTP/1.1\nHost: {OPEN}\n\n", b" 405 ")),
    "DELETE, 405": (80, ask(f"DELETE /files/ HTTP/1.1\nHost: {OPEN}\n\n", b" 405 ")),
    "an absolute target": (80, ask(f"GET http://{OPEN}/ HTTP/1.1\nHost: {OPEN}\n\n", b"served by the lab")),
    "DEL in the query": (before.PYTHON_PORT, ask(f"GET /?\x7f HTTP/1.1\nHost: {OPEN}\n\n", b"served by the lab")),
    "a control byte in the query": (before.PYTHON_PORT,
                                    ask(f"GET /?\x01 HTTP/1.1\nHost: {OPEN}\n\n", b"served by the lab")),
    "a file separator between the words": (before.PYTHON_PORT,
                                           ask(f"GET\x1c/ HTTP/1.1\nHost: {OPEN}\n\n", b"served by the lab")),
    "an interim answer": (before.PYTHON_PORT, (
        *ask(f"POST / HTTP/1.1\nHost: {OPEN}\nContent-Length: 3\nExpect: 100-continue\n\n", b" 100 "),
        *ask("x=1", b"served by the lab"))),
}
CUTS = {"": WHOLE, ", the first bytes cut": FIRST_BYTES, ", byte by byte": BYTES}
ROWS = [
    *(Row(name + how, PORTS[name], turns, True, cuts) for name, turns in DIALOGUES.items()
      for how, cuts in CUTS.items()),
    *(Row(f"{name}, HTTP{how}", PORTS[name], DIALOGUES[name], False, cuts) for name in DIALOGUES if "SOCKS" in name
      for how, cuts in CUTS.items()),
    *(Row(f"{name}, {kind}{how}", port, (words,), tls, cuts) for name, words in PROXY.items()
      for kind, tls, port in (("TLS", True, before.PROXY_TLS_PORT), ("HTTP", False, before.PROXY_HTTP_PORT))
      for how, cuts in CUTS.items()),
    *(Row(name + how, port, turns, False, cuts) for name, (port, turns) in KEPT.items()
      for how, cuts in CUTS.items()),
]


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def lab(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """With the servers of before.py, and but for "bare" with a daemon that watches their ports."""
    with Lab(extra_hop=True) as lab, before.serving(lab):
        if mode == "bare":
            yield lab
            return
        if mode in MARKED:
            track_nothing(lab)
        settings = MARKED.get(mode, f'[ruleset]\nstage1 = "{mode}"\n')
        ports = f"[ruleset]\ntcp_ports = {[80, 443, *before.ALL_PORTS]}\n"
        running = start(lab, tmp_path_factory.mktemp("daemon"), settings.replace("[ruleset]\n", ports), 60.0)
        yield lab
        assert running.daemon.stop() == 0, running.daemon.last_words()


def received(connection: socket.socket) -> bytes:
    """What comes next; ConnectionError where nothing does."""
    if more := connection.recv(65536):
        return more
    raise ConnectionError("ended")


def hear(connection: socket.socket, words: bytes) -> bytes:
    """What comes, up to these words."""
    heard = b""
    while words not in heard:
        heard += received(connection)
    return heard


def send(connection: socket.socket, data: bytes, cuts: tuple[int, ...] = ()) -> None:
    for begin, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
        connection.sendall(data[begin:end])


def page_over(connection: socket.socket, host: str, row: Row) -> bytes:
    """The page of the host, over the connection as it is; empty where the connection ends instead."""
    wanted, heard = f"This is {host}/".encode(), b""
    try:
        if not row.tls:
            send(connection, request(host), row.cuts)
            return hear(connection, wanted)
        hello = Hello(host)
        send(connection, hello.first, row.cuts)
        done = None
        while not done:
            hello.incoming.write(received(connection))
            done, out = hello.step(hello.tls.do_handshake)
            connection.sendall(out)
        connection.sendall(hello.step(lambda: hello.tls.write(request(host)))[1])
        while wanted not in heard:
            if text := hello.step(lambda: hello.tls.read(65536))[0]:
                heard += text
            else:
                hello.incoming.write(received(connection))
    except (ConnectionError, ssl.SSLError) as end:
        assert isinstance(end, ConnectionError) or "ACCESS_DENIED" in str(end), end
        return b""
    return heard


def comes(lab: Lab, row: Row, host: str, version: int) -> bool:
    with lab.connect(row.port, version=version, timeout=PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for turn in row.turns:
            if turn.server:
                hear(connection, turn.words)
            else:
                connection.sendall(turn.words)
        return bool(page_over(connection, host, row))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_name_behind_it_is_read(lab: Lab, mode: str, row: Row):
    version = 4 + 2 * (ROWS.index(row) % 2)
    assert comes(lab, row, OPEN, version)
    assert comes(lab, row, LISTED, version) == (mode == "bare")


# ---- a HelloRetryRequest

def retried(lab: Lab, name: str, second: str, version: int, cuts: tuple[int, ...]) -> tuple[bytes, bytes]:
    """What a server says to a hello that names OPEN, and then to the second, which names another host."""
    with lab.connect(before.RETRY_PORTS[name], version=version, timeout=PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hello = Hello(OPEN)
        connection.sendall(hello.first)
        retry = received(connection)
        hello.incoming.write(retry)
        done, out = hello.step(hello.tls.do_handshake)
        assert not done and out.count(OPEN.encode()) == 1
        out = out.replace(OPEN.encode(), second.encode())
        start = out.index(b"\x16\3")
        send(connection, out, tuple(start + cut for cut in cuts))
        answer = b""
        try:
            while len(answer) < 600:
                answer += received(connection)
        except ConnectionError:
            pass
        return retry, answer


@pytest.mark.parametrize("cuts", [WHOLE, FIRST_BYTES], ids=["whole", "cut"])
@pytest.mark.parametrize("name", [name for name in before.RETRY_PORTS
                                  if shutil.which("selfserv") or not name.startswith("NSS")])
def test_the_hello_behind_a_retry_request_is_read(lab: Lab, mode: str, name: str, cuts: tuple[int, ...]):
    for version in (4, 6):
        for second in (OPEN, LISTED):
            retry, answer = retried(lab, name, second, version, cuts)
            assert retry[0] == 0x16 and retry[11:43] == RETRY_RANDOM
            assert ("cookie" not in name) or len(retry) > 200
            if second != LISTED or mode == "bare":
                assert answer[0] == 0x16 and answer[5] == 2 and answer[11:43] != RETRY_RANDOM and len(answer) > 600
            else:
                assert answer in (b"", ACCESS_DENIED)
