"""Packets that end a worker, again and again: what passes beside them, and what becomes of what the worker had begun.

The fault is tests/live/poison.c, loaded into the daemon of the test: a packet from one of its ports ends the worker
that looks its flow up, by a crash or for good.
"""

import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from running import HOP_SHORTCUT, UNTRACKED, Running, start, track_nothing

from edgeblock.lab import CLIENT, SERVER, Lab, page, until

pytestmark = pytest.mark.live

SOON = 20.0
FIRST = 2000            # of the ports in poison.c; each fourth of them ends the worker in the same way
CRASH, ABORT, SPIN, STUCK = range(4)
INITIAL = b"\xc3\0\0\0\1\x08" + bytes(8) + bytes(1200)
MODES = {"queue": '[ruleset]\nstage1 = "off"\n', "stage1": '[ruleset]\nstage1 = "on"\n',
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
    """A datagram that ends the worker, whatever the kernel keeps from the queue otherwise."""
    with lab.entered("client"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("", port))
        sender.sendto(INITIAL, (SERVER[4], 443))


def deaths(running: Running) -> int:
    return running.daemon.log.read_bytes().count(b'"worker ended"')


def serves(running: Running) -> bool:
    return running.lab.fetch("http://pages.example/").status == 451


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
