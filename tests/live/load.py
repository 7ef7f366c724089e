"""Steady load through a box: connections that are kept, and listed pages asked for. In: a lab. Out: what was cut, and
what passed when.
"""

import itertools
import socket
import threading
import time
from typing import Self

from edgeblock.lab import SERVER, Lab, page, until

REQUEST = b"GET / HTTP/1.1\r\nHost: open.example\r\n\r\n"
SOURCES = [f"192.0.2.{host}" for host in range(10, 26)]     # the kernel spreads pairs of addresses over the queues
LISTED = b"GET / HTTP/1.1\r\nHost: pages.example\r\nConnection: close\r\n\r\n"


def add_sources(lab: Lab) -> None:
    """The client's addresses that the load comes from."""
    for address in SOURCES:
        lab.run_in("client", ["ip", "address", "add", f"{address}/24", "dev", "to-box"])


def connect(lab: Lab, source: str, timeout: float) -> socket.socket:
    with lab.entered("client"):
        return socket.create_connection((SERVER[4], 80), timeout, (source, 0))


class AtWork:
    """`threads` that go on until `done` is set, which the end of the `with` does; then each has so many seconds."""

    threads: list[threading.Thread]
    done: threading.Event
    patience = 30.0

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        for thread in self.threads:
            thread.join(self.patience)


class Load(AtWork):
    """Kept connections that ask again and again, and listed pages asked for on new ones, until the `with` ends."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.done = threading.Event()
        self.cut: list[str] = []
        self.unanswered: list[float] = []   # when their last requests were sent
        self.answers = 0
        self.passed: list[float] = []       # when a listed page came
        self.passed_since: list[float] = []     # and when its connection was begun
        self.blocked: list[float] = []
        self.threads = [threading.Thread(target=self.browse, args=(source,)) for source in SOURCES[:8]]
        self.threads += [threading.Thread(target=self.try_listed) for _ in range(2)]

    def browse(self, source: str) -> None:
        sent = time.monotonic()
        try:
            with connect(self.lab, source, 20.0) as connection:
                while not self.done.is_set():
                    sent = time.monotonic()
                    connection.sendall(REQUEST)
                    assert connection.recv(65536).endswith(page("open.example"))
                    self.answers += 1
                    self.done.wait(0.005)
        except (OSError, AssertionError) as problem:
            self.cut.append(repr(problem))
            self.unanswered.append(sent)

    def try_listed(self) -> None:
        for source in itertools.cycle(SOURCES):
            if self.done.is_set():
                return
            began = time.monotonic()
            try:
                with connect(self.lab, source, 1.0) as connection:
                    connection.sendall(LISTED)
                    answer = connection.recv(65536)
            except OSError:
                continue            # its packet was lost with a worker
            if b" 200 " in answer[:20]:
                self.passed.append(time.monotonic())
                self.passed_since.append(began)
            else:
                self.blocked.append(time.monotonic())
            self.done.wait(0.003)

    def gap(self, began: float, what: str, within: float = 1.0) -> None:
        """Listed pages are blocked again in time; prints how many passed, and until when."""
        assert until(lambda: [at for at in self.blocked if at > began + within], 20)
        late = [at - began for at in self.passed if at > began]
        print(f"{what}: {len(late)} listed pages passed, the last after {max(late, default=0):.3f} s")
        assert max(late, default=0.0) < within
        assert not self.cut
