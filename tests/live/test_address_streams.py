"""What is open when an address is listed stops at once, and what is new works at once when it is lifted: a download
over TLS, a kept connection of HTTP, one of QUIC, and a stream of datagrams, in every mode of the first stage.

How long it took, from the rename of the list to the last answer and from its end to the first, is printed. It is a
second at most on a machine that has time; a busy one is given more.
"""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import h3
import pytest
from echoing import FAMILY, echoing
from running import SHORTCUT, UNTRACKED, start, track_nothing

from edgeblock.lab import SERVER, Lab, until

pytestmark = pytest.mark.live

SOON = 10.0
SILENT = 1.5            # seconds without an answer after which a stream has stopped
ROOM = 1 << 14          # bytes of a download that the client's machine takes in before it reads them
SIZE = 64 << 20         # more than is read in a test
MODES = {"queue alone": '[ruleset]\nkernel = "off"\n', "first stage": '[ruleset]\nkernel = "judge"\n',
         "untracked": UNTRACKED, "shortcut": SHORTCUT}
REQUEST = b"GET / HTTP/1.1\r\nHost: open.example\r\n\r\n"


class Streams:
    """Each in a thread of its own; `last` says when it got something."""

    def __init__(self, lab: Lab, version: int, target: str, stack: ExitStack) -> None:
        self.lab, self.version, self.address = lab, version, SERVER[version]
        self.stop, self.last = threading.Event(), dict[str, float]()
        kept, tls = self._connection(80, stack), self._connection(443, stack)
        context = ssl.create_default_context(cafile=str(lab.home / "ca.pem"))
        download = context.wrap_socket(tls, server_hostname="open.example")
        download.sendall(f"GET {target} HTTP/1.1\r\nHost: open.example\r\n\r\n".encode())
        with lab.entered("client"):
            datagrams = stack.enter_context(socket.socket(FAMILY[version], socket.SOCK_DGRAM))
        datagrams.settimeout(0.2)
        datagrams.connect((self.address, 5000))
        self.threads = [threading.Thread(target=work, daemon=True) for work in (
            self._keeping("download", lambda: download.recv(4096) != b""),
            self._keeping("http", lambda: asked(kept, REQUEST)),
            self._keeping("datagrams", lambda: asked(datagrams, b"still there?")),
            lambda: h3.keep_asking(lab, "open.example", lambda: self._tell("quic"), self.stop, version=version))]
        for thread in self.threads:
            thread.start()

    def _connection(self, port: int, stack: ExitStack) -> socket.socket:
        with self.lab.entered("client"):
            one = stack.enter_context(socket.socket(FAMILY[self.version], socket.SOCK_STREAM))
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        one.settimeout(0.2)
        one.connect((self.address, port))
        return one

    def _tell(self, name: str) -> None:
        self.last[name] = time.monotonic()

    def _keeping(self, name: str, answered: Callable[[], bool]) -> Callable[[], None]:
        def work() -> None:
            while not self.stop.wait(0.005):
                with suppress(OSError):
                    if answered():
                        self._tell(name)

        return work

    def are(self, going: bool) -> bool:
        """Whether all have just got something, or none has for SILENT seconds."""
        now = time.monotonic()
        return len(self.last) == len(self.threads) and all(
            now - at < 0.3 if going else now - at > SILENT for at in self.last.values())


def asked(one: socket.socket, question: bytes) -> bool:
    one.send(question)
    return one.recv(4096) != b""


@contextmanager
def streaming(lab: Lab, version: int, target: str) -> Iterator[Streams]:
    with ExitStack() as stack:
        streams = Streams(lab, version, target, stack)
        try:
            yield streams
        finally:
            streams.stop.set()
            for thread in streams.threads:
                thread.join(SOON)


def opened(lab: Lab, version: int) -> dict[str, Callable[[], bool]]:
    """Whether one works that is new."""
    address = SERVER[version]

    def new(port: int, kind: int, question: bytes) -> bool:
        with suppress(OSError), lab.entered("client"), socket.socket(FAMILY[version], kind) as one:
            one.settimeout(0.2)
            one.connect((address, port))
            return port == 443 or asked(one, question)
        return False

    return {"tls": lambda: new(443, socket.SOCK_STREAM, b""), "http": lambda: new(80, socket.SOCK_STREAM, REQUEST),
            "datagrams": lambda: new(5000, socket.SOCK_DGRAM, b"again"),
            "quic": lambda: h3.fetch(lab, "open.example", version=version, timeout=1.0).status == 200}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("mode", MODES)
def test_what_is_open_stops_at_once_and_what_is_new_works_at_once(mode: str, version: int, tmp_path: Path):
    with Lab() as lab:
        if mode in ("untracked", "shortcut"):
            track_nothing(lab)
        box = start(lab, tmp_path, MODES[mode])
        target = lab.publish("long", bytes(SIZE))
        box.drop("places.toml", 'action = "drop"\n')
        with echoing(lab), h3.serving(lab), streaming(lab, version, target) as streams:
            assert until(lambda: streams.are(going=True), SOON), streams.last
            began = time.monotonic()
            box.drop("places.list", f"{SERVER[version]}\n")
            assert until(lambda: streams.are(going=False), SOON), streams.last
            shut = {name: round(at - began, 2) for name, at in streams.last.items()}
            began = time.monotonic()
            (box.rules / "places.list").unlink()
            works, open_after = opened(lab, version), dict[str, float]()

            def all_work() -> bool:
                for name in works.keys() - open_after.keys():
                    if works[name]():
                        open_after[name] = round(time.monotonic() - began, 2)
                return open_after.keys() == works.keys()

            assert until(all_work, SOON), open_after
    print(json.dumps({"mode": mode, "version": version, "shut_after_s": shut, "open_after_s": open_after}))
