"""A daemon that is short of something, or has lost what it was started with, and goes on."""

import os
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from running import Running, start

from edgeblock.lab import Lab, until

pytestmark = pytest.mark.live

SOON = 20.0             # seconds on a machine that does other things too


def is_blocked(lab: Lab, host: str = "pages.example") -> bool:
    return lab.fetch(f"http://{host}/").status == 451


def is_reset(lab: Lab, host: str) -> bool:
    return lab.fetch(f"https://{host}/").exit in (35, 56)


def worker(running: Running) -> int:
    return running.lab.counters(running.daemon)["workers.0.pid"]


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def complaints(running: Running) -> list[str]:
    """What it has written that is no line of the log: a traceback."""
    return [line for line in running.daemon.log.read_text().splitlines() if not line.startswith("{")]


@contextmanager
def limited(pid: int, what: int, to: int) -> Iterator[None]:
    _, hard = before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (to, hard))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, what, before)


def test_a_supervisor_without_descriptors_goes_on_when_there_are_some(fresh: Running):
    """It ended with a traceback; and each process it could not start cost it descriptors for good."""
    daemon, log = fresh.daemon.process.pid, fresh.daemon.log
    assert until(lambda: is_blocked(fresh.lab), SOON)
    with limited(daemon, resource.RLIMIT_NOFILE, 10):
        before = descriptors(daemon)
        fresh.drop("new.list", "open.example\n")
        assert until(lambda: b"Too many open files" in log.read_bytes(), SOON)
        os.kill(daemon, signal.SIGHUP)
        assert until(lambda: log.read_bytes().count(b"Too many open files") > 1, SOON)
        assert is_blocked(fresh.lab)
    assert until(lambda: is_reset(fresh.lab, "open.example"), SOON)
    assert until(lambda: descriptors(daemon) <= before + 3, SOON)       # a new compiler's pipes
    assert fresh.daemon.stop() == 0 and not complaints(fresh)


def test_the_rules_in_force_outlive_the_state_directory(tmp_path: Path):
    """The next worker found no key to read them with."""
    with Lab() as lab:
        running = start(lab, tmp_path)
        running.daemon.stop()
        state = tmp_path / "state"
        settings = running.daemon.config.read_text().replace(f'key = "{tmp_path}/key"', f'key = "{state}/key"')
        running.daemon = lab.start_daemon(settings)
        shutil.rmtree(state)
        for _ in range(3):                  # one is a spare that had them already
            victim = worker(running)
            os.kill(victim, signal.SIGKILL)
            assert until(lambda victim=victim: worker(running) not in (0, victim), SOON)
            assert is_blocked(lab)
        running.drop("new.list", "open.example\n")
        assert until(lambda: is_reset(lab, "open.example"), SOON)       # and everything is there again
        assert running.daemon.stop() == 0 and not complaints(running)


def test_a_worker_without_memory_for_new_rules_is_replaced(fresh: Running):
    """Another process had the queue's socket by accident: no worker could take the queue, and every packet waited."""
    os.kill(worker(fresh), signal.SIGKILL)      # the spare that is started for it is one that could have it
    assert until(lambda: is_blocked(fresh.lab), SOON)
    victim = worker(fresh)
    pages = int(Path(f"/proc/{victim}/statm").read_text().split()[0])
    with limited(victim, resource.RLIMIT_AS, (pages + 16) * os.sysconf("SC_PAGESIZE")):
        fresh.drop("long.list", "open.example\n" + "".join(f"host{number}.example\n" for number in range(60_000)))
        assert until(lambda: worker(fresh) not in (0, victim), SOON)
        assert until(lambda: is_reset(fresh.lab, "open.example"), SOON) and is_blocked(fresh.lab)
    assert b"Cannot allocate memory" in fresh.daemon.log.read_bytes()
    assert fresh.daemon.stop() == 0 and not complaints(fresh)
