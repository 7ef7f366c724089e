"""Packets that end a worker, again and again: what passes beside them, and what becomes of what the worker had begun.

The fault is tests/live/poison.c, loaded into the daemon of the test: a packet from one of its ports ends the worker
that looks its flow up, by a crash or for good.
"""

import itertools
import os
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from running import HOP_SHORTCUT, UNTRACKED, Running, start, track_nothing

from edgeblock.disguises import packets
from edgeblock.errors import SystemProblem
from edgeblock.lab import CLIENT, SERVER, Lab, page, until

pytestmark = pytest.mark.live

SOON = 20.0
FIRST = 2000            # of the ports in poison.c; each fourth of them ends the worker in the same way
CRASH, ABORT, SPIN, STUCK = range(4)
MODES = {"queue": '[ruleset]\nkernel = "off"\n', "stage1": '[ruleset]\nkernel = "judge"\n',
         "untracked": UNTRACKED, "shortcut": HOP_SHORTCUT}


@pytest.fixture(scope="session")
def fault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("poison") / "poison.so"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, Path(__file__).with_name("poison.c"), "-ldl"],
                   check=True)
    return library


@contextmanager
def poisoned(home: Path, fault: Path, mode: str, absent: str = "open", more: str = "") -> Iterator[Running]:
    """A daemon with that fault."""
    with Lab(extra_hop=True) as lab:
        if mode in ("untracked", "shortcut"):
            track_nothing(lab)
        settings = MODES[mode] + f'absent = "{absent}"\n{more}[daemon]\ncontrol = "{home}/control.sock"\n'
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("LD_PRELOAD", str(fault))
            running = start(lab, home, settings)
        yield running
        assert running.daemon.stop() == 0, running.daemon.last_words()


def send(lab: Lab, port: int) -> None:
    """A SYN with data, which ends the worker: the kernel's first stage keeps none of these from the queue."""
    packet = packets.tcp(1000, b"data", packets.SYN, source=CLIENT[4], destination=SERVER[4], sport=port, ack=0)
    with lab.entered("client"), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        sender.sendto(packet, (SERVER[4], 0))


def deaths(running: Running) -> int:
    return running.daemon.log.read_bytes().count(b'"worker ended"')


def serves(running: Running) -> bool:
    return running.lab.fetch("http://pages.example/").status == 451


def filters(running: Running) -> bool:
    with suppress(SystemProblem):
        return bool(running.lab.counters(running.daemon))
    return False


@dataclass
class Beside:
    """Listed pages and others, fetched until the `with` ends."""

    lab: Lab
    listed: list[int] = field(default_factory=list)
    passed: list[float] = field(default_factory=list)
    served: int = 0
    failed: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        for number in itertools.count():
            if self.done.is_set():
                return
            scheme = ("http", "https")[number // 2 % 2]
            host = ("listed.example", "open.example")[number % 2]
            seen = self.lab.fetch(f"{scheme}://{host}/", timeout=15.0)
            if number % 2 and seen.body == page(host):
                self.served += 1
            elif number % 2:
                self.failed.append(f"{scheme}: {seen.exit} {seen.error}")
            else:
                self.listed.append(seen.exit)
                if page(host) in seen.body:
                    self.passed.append(time.monotonic())

    def __enter__(self) -> "Beside":
        self.threads = [threading.Thread(target=self.ask) for _ in range(2)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        for thread in self.threads:
            thread.join(40)


@pytest.mark.parametrize("absent", ["open", "closed"])
@pytest.mark.parametrize("mode", MODES)
def test_workers_that_are_ended_again_and_again_open_nothing(tmp_path: Path, fault: Path, mode: str, absent: str):
    """With "open" the queue was let go after the third, and everything passed for seconds."""
    with poisoned(tmp_path, fault, mode, absent) as running, Beside(running.lab) as beside:
        assert until(lambda: len(beside.listed) > 4, SOON)
        began = time.monotonic()
        for number in range(20):
            before = deaths(running)
            send(running.lab, FIRST + 4 * number + number % 2)          # crash and abort in turn
            assert until(lambda before=before: deaths(running) > before, SOON)
        took = time.monotonic() - began
        assert until(lambda: serves(running), SOON)
        heard = len(beside.listed)
        assert until(lambda: len(beside.listed) > heard + 4, SOON)
        beside.done.set()
        counted = running.lab.counters(running.daemon)
        print(f"{mode}, {absent}: 20 workers in {took:.1f} s; {len(beside.listed)} listed asked for, "
              f"{len(beside.passed)} passed; {beside.served} others served, "
              f"{len(beside.failed)} failed: {beside.failed[:3]}")
        assert not beside.passed and not beside.failed
        assert counted["workers.0.restarts"] == deaths(running) == 20
        assert counted["queue.condemned"] == 20 and counted["queue.lost"] == 0


def test_a_flow_that_ended_a_worker_ends_no_other(tmp_path: Path, fault: Path):
    with poisoned(tmp_path, fault, "queue") as running:
        for number, kind in enumerate((CRASH, ABORT, SPIN)):
            for _ in range(5):
                send(running.lab, FIRST + kind)
                assert until(lambda: serves(running), SOON)
            assert deaths(running) == number + 1
        for _ in range(5):                  # one that waits may be another's fault: the second time it is condemned
            send(running.lab, FIRST + STUCK)
            assert until(lambda: serves(running), SOON)
        assert deaths(running) == 5
        assert until(lambda: filters(running), SOON)    # it says so a moment after it does
        counted = running.lab.counters(running.daemon)
        assert (counted["queue.condemned"], counted["workers.0.hangs"]) == (4, 3)
        assert counted["queue.condemned_packets"] == 4 + 4 + 4 + 3
        send(running.lab, FIRST + 4 + CRASH)            # the same client, another port: that is another flow
        assert until(lambda: deaths(running) == 6, SOON)
        assert until(lambda: serves(running), SOON)
        log = running.daemon.log.read_text()
        assert log.count('"connection refused: its packet has ended a worker"') == 5
        assert not any(word in log for word in (CLIENT[4], SERVER[4], "pages.example"))


def test_a_worker_that_somebody_kills_condemns_nobody(tmp_path: Path, fault: Path):
    with poisoned(tmp_path, fault, "queue") as running:
        for _ in range(4):
            victim = running.lab.counters(running.daemon)["workers.0.pid"]
            os.kill(victim, signal.SIGKILL)
            assert until(lambda: serves(running), SOON)
        assert running.lab.counters(running.daemon)["queue.condemned"] == 0


# ---- what a worker had begun


def connected(lab: Lab, port: int) -> socket.socket:
    connection = lab.connect(port, timeout=2.0)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def answer(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except OSError:             # nothing came, or a reset
        return b""


def hello(host: str) -> bytes:
    """A ClientHello as OpenSSL makes it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=host).do_handshake()
    return outgoing.read()


def get(host: str, more: str = "") -> bytes:
    return f"GET / HTTP/1.1\r\n{more}Host: {host}\r\n\r\n".encode()


def end_worker(running: Running, ports: Iterator[int]) -> None:
    before = deaths(running)
    send(running.lab, next(ports))
    assert until(lambda: deaths(running) > before, SOON)
    assert until(lambda: serves(running), SOON)


def halves(host: str) -> list[tuple[int, bytes, int]]:
    """Messages, and where to cut them: before, within and behind the name; and so that the rest looks like one."""
    tls, http = hello(host), get(host, "X-Long: " + 300 * "x" + "\r\n")
    name = tls.index(host.encode())
    hidden = f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nX-More: ".encode()
    return [(443, tls, 1), (443, tls, name - 10), (443, tls, name + 4), (443, tls, len(tls) - 1),
            (80, http, 1), (80, http, 60), (80, http, http.index(host.encode()) + 3), (80, http, len(http) - 2),
            (80, hidden + get("open.example"), len(hidden))]


@pytest.mark.parametrize("absent", ["open", "closed"])
@pytest.mark.parametrize("mode", MODES)
def test_no_message_is_completed_behind_a_worker_that_has_read_its_beginning(
        tmp_path: Path, fault: Path, mode: str, absent: str):
    """The next worker took the rest for a connection first seen in its middle, which passes."""
    ports = iter(range(FIRST, FIRST + 1000, 4))
    with poisoned(tmp_path, fault, mode, absent) as running, ExitStack() as stack:
        lab = running.lab
        begun = [(stack.enter_context(connected(lab, port)), message[at:])
                 for port, message, at in halves("listed.example")]
        for (connection, _), (_, message, at) in zip(begun, halves("listed.example"), strict=True):
            connection.sendall(message[:at])
        opened = [stack.enter_context(connected(lab, 80)) for _ in range(2)]       # their SYN and nothing else
        kept, uploading = (stack.enter_context(connected(lab, 80)) for _ in range(2))
        kept.sendall(get("open.example"))
        assert answer(kept).endswith(page("open.example"))
        uploading.sendall(b"POST / HTTP/1.1\r\nHost: open.example\r\nContent-Length: 4000\r\n\r\n" + bytes(2000))
        assert b" 200 " in answer(uploading)
        end_worker(running, ports)
        for connection, rest in begun:
            connection.sendall(rest)
        # Nobody else pays for it.
        opened[0].sendall(get("open.example"))
        assert answer(opened[0]).endswith(page("open.example"))
        opened[1].sendall(get("pages.example"))
        assert b" 451 " in answer(opened[1])
        kept.sendall(get("open.example"))
        assert answer(kept).endswith(page("open.example"))
        kept.sendall(get("pages.example"))
        assert b" 451 " in answer(kept)
        uploading.sendall(bytes(2000))
        uploading.sendall(get("open.example"))
        assert answer(uploading).endswith(page("open.example"))
        answers = [answer(connection) for connection, _ in begun]
        assert [b"listed.example" in one or one[:1] == b"\x16" for one in answers] == [False] * len(begun)
        for _ in range(3):                  # the workers after the next one know it, too
            end_worker(running, ports)
        for (connection, _), (_, message, at) in zip(begun, halves("listed.example"), strict=True):
            with suppress(OSError):
                connection.sendall(message[at:])
            assert b"listed.example" not in answer(connection)
        assert lab.counters(running.daemon)["engine.orphans"] >= len(begun)


def test_a_policy_lets_the_rest_pass(tmp_path: Path, fault: Path):
    """As it was; and so it is shown that these tests would see it."""
    with poisoned(tmp_path, fault, "queue", more='[policies]\ncrash = "pass"\n') as running:
        message = get("pages.example")
        with connected(running.lab, 80) as connection:
            connection.sendall(message[:-6])
            assert until(lambda: not unacknowledged(connection), SOON)      # else it comes again, behind the fault
            end_worker(running, iter([FIRST]))
            connection.sendall(message[-6:])
            assert answer(connection).endswith(page("pages.example"))


def unacknowledged(connection: socket.socket) -> int:
    """Segments that the server has not acknowledged (tcpi_unacked of tcp_info, linux/tcp.h)."""
    return struct.unpack_from("I", connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 24)[0]
