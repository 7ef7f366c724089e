"""A web server on loopback that does what a test says, byte by byte, over TLS or not.

In: an answer for each path. Out: its URLs, and what it was asked. An answer is a function of a Connection, which has
the request and may send what it likes for as long as it likes; all ends with the server.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.matrix.certificates import write_certificates

PATIENCE = 30.0         # seconds after which a server that nobody ends gives up


class Connection:
    """One request: `path`, and `headers` by their names in lower case."""

    def __init__(self, server: "Server", file: socket.socket, head: bytes) -> None:
        self.server, self.file = server, file
        first, *lines = head.decode("latin-1").split("\r\n")
        self.path = first.split(" ")[1]
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def send(self, data: bytes) -> None:
        self.file.sendall(data)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        named = {"Content-Length": str(len(body)), "Connection": "close",
                 **{name.replace("_", "-"): value for name, value in headers.items()}}
        head = "".join(f"{name}: {value}\r\n" for name, value in named.items() if value)
        self.send(f"HTTP/1.1 {status} said\r\n{head}\r\n".encode() + body)

    def wait(self, seconds: float = PATIENCE) -> bool:
        """Whether the server goes on after so long."""
        return not self.server.ended.wait(seconds)

    def forever(self, piece: bytes, pause: float = 0.0) -> None:
        """Sends the same again and again, until nobody listens."""
        while self.wait(pause) if pause else not self.server.ended.is_set():
            self.send(piece)


Answer = Callable[[Connection], None]


class Server:
    """`answers` are by path; `silent`: it says nothing in the TLS handshake."""

    def __init__(self, home: Path | None, silent: bool = False) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[Connection] = []
        self.ended = threading.Event()
        self.silent = silent
        self.context: ssl.SSLContext | None = None
        if home is not None:
            write_certificates(home, {"server": "localhost"})
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(home / "server.pem", home / "server.key")
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http{'s' if self.context else ''}://localhost:{self._listener.getsockname()[1]}{path}"

    def close(self) -> None:
        self.ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def paths(self) -> list[str]:
        return [one.path for one in self.asked]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                file, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(file,), daemon=True).start()

    def _serve(self, file: socket.socket) -> None:
        self._open.add(file)
        try:
            if self.silent:
                self.ended.wait(PATIENCE)
                return
            if self.context is not None:
                file = self.context.wrap_socket(file, server_side=True)
                self._open.add(file)
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := file.recv(65536)):
                    return
                head += data
            made = Connection(self, file, head.partition(b"\r\n\r\n")[0])
            self.asked.append(made)
            self.answers.get(made.path, lambda one: one.answer(404))(made)
        except OSError:             # whoever asked has gone
            return
        finally:
            file.close()


@contextlib.contextmanager
def serving(home: Path | None, silent: bool = False) -> Iterator[Server]:
    server = Server(home, silent)
    try:
        yield server
    finally:
        server.close()
