"""A list writer against a running daemon: an account with the group of the rules directory and nothing else.

In: what writer.py does to the directory. Out: another owner's list, in force soon after each of its changes; a daemon
that starts again with the rules that it had; not a byte of a file that the writer may not read. The rows of
SECURITY.md that are about him.
EDGEBLOCK_RACE and EDGEBLOCK_CHAOS are the seconds of the two long tests, 150 and 600 to be sure.
"""

import os
import random
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import Running, children, start
from test_drop import is_reset, said

from edgeblock.lab import Lab, until
from tests.blocklist.test_signature import Signer
from tests.memory import flags_of, places_of

pytestmark = pytest.mark.live

WRITER, GROUP = 64_001, 64_002      # nobody has these numbers
SCRIPT = Path(__file__).with_name("writer.py")
RACE = float(os.environ.get("EDGEBLOCK_RACE", 6))
CHAOS = float(os.environ.get("EDGEBLOCK_CHAOS", 20))
FLOOD = 15.0                        # seconds of renames; the unit's watchdog ends the daemon after ten without a word
SOON = 40.0                         # seconds, on a machine that does other things too; a second on one that does not
HOSTS = ("open.example", "www.open.example")
SIGNER = Signer(7)
LOCKED = ('locked = ["mandatory", "allow_public_suffixes", "allow_protected", "allow_addresses", "widest_ipv4", '
          f'"max_shrink", "max_unparsable"]\nsigners = ["signed={SIGNER.public}"]\n')


@contextmanager
def in_group() -> Iterator[None]:
    """The daemon of the block is in the group, as the unit's user is."""
    groups = os.getgroups()
    os.setgroups([*groups, GROUP])
    try:
        yield
    finally:
        os.setgroups(groups)


@pytest.fixture
def box() -> Iterator[Running]:
    # Not below pytest's own folder, where nobody else may go.
    with tempfile.TemporaryDirectory() as place, Lab() as lab, in_group():
        home = Path(place)
        running = start(lab, home)
        running.daemon.stop()
        os.chown(running.rules, 0, GROUP)
        running.rules.chmod(0o3770)
        home.chmod(0o711)
        settings = running.daemon.config.read_text().replace("[rules]\n", f"[rules]\n{LOCKED}")
        running.daemon = lab.start_daemon(settings)
        yield running
        assert running.daemon.process.poll() is None, running.daemon.last_words()
        assert running.daemon.stop() == 0


def attack(running: Running, *words: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["setpriv", "--reuid", str(WRITER), "--regid", str(WRITER), "--groups", str(GROUP),
                             "--no-new-privs", "/usr/bin/python3", "-", str(running.rules), *map(str, words)],
                            stdin=open(SCRIPT, "rb"))


def play(running: Running, *words: object) -> None:
    assert attack(running, *words).wait(120) == 0


def urgent(running: Running, number: int, within: float = SOON) -> float:
    """A change of another owner's list, and how long it takes until it filters."""
    began = time.monotonic()
    running.drop("urgent.list", f"={HOSTS[number % 2]}\nother{number}.example\n")
    assert until(lambda: is_reset(running.lab, HOSTS[number % 2]), within), running.daemon.last_words()
    return time.monotonic() - began


def restart(running: Running, again: float = 30.0) -> None:
    settings = running.daemon.config.read_text()
    running.daemon.stop()
    running.daemon = running.lab.start_daemon(settings, within=again)


def bytes_of(running: Running) -> bytes:
    """All that the daemon has written, wherever the writer or anybody could read it."""
    texts = [running.daemon.log.read_bytes()]
    for path in [*running.rules.iterdir(), *running.rules.parent.joinpath("rejected").iterdir()]:
        if path.name.endswith(".rejected") and path.is_file() and not path.is_symlink():
            with open(path, "rb") as file:
                texts.append(file.read(1 << 20))
    return b"".join(texts)


ATTACKS = [("settings",), ("kinds",), ("names",), ("many", 600), ("wide",), ("slow", 4), ("override",)]


@pytest.mark.parametrize("words", ATTACKS, ids=lambda words: words[0])
def test_the_worst_that_a_writer_can_do_is_to_have_his_own_list_refused(box: Running, words: tuple[object, ...]):
    urgent(box, 0)
    play(box, *words)
    waits = [urgent(box, number) for number in range(1, 4)]
    print(f"{words[0]}: in force after {max(waits):.2f} s at most")
    assert is_reset(box.lab, "listed.example")

    def refused() -> set[str]:
        return {line["list"] for line in said(box, "rules audit") if line["change"] == "refused"}

    if words[0] == "override":
        assert until(lambda: {f"mine{number}" for number in range(5)} <= refused(), SOON)
    assert not refused() & {"urgent", "court", "pages"}
    restart(box)
    assert is_reset(box.lab, "listed.example") and is_reset(box.lab, HOSTS[1])
    urgent(box, 4)
    for line in box.daemon.log.read_text(errors="surrogateescape").splitlines():
        assert line.isprintable()


def test_a_race_of_two_writers_reads_nothing(box: Running):
    secret = box.rules.parent / "secret"
    secret.write_text("zqx-secret ..\n" * 3)
    secret.chmod(0o600)
    writers = [attack(box, "race", RACE, secret) for _ in range(2)]
    number = 0
    while any(writer.poll() is None for writer in writers):
        urgent(box, number)
        number += 1
        assert b"zqx" not in bytes_of(box)
    assert [writer.wait() for writer in writers] == [0, 0] and number > 0
    assert b"zqx" not in bytes_of(box)
    print(f"race: {RACE:.0f} s, {number} changes of another list meanwhile")


class Watchdog:
    """The service manager's ear, from now on: what is the longest time without a word?"""

    def __init__(self, running: Running) -> None:
        path = running.daemon.config.with_name("notify")
        path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.longest, self.fed, self.last = 0.0, 0, time.monotonic()
        self.thread = threading.Thread(target=self.hear)
        self.thread.start()

    def hear(self) -> None:
        while message := self.socket.recv(65536):
            if b"WATCHDOG=1" in message:
                now = time.monotonic()
                self.longest, self.last = max(self.longest, now - self.last), now
                self.fed += 1

    def stop(self) -> float:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"", self.socket.getsockname())
        self.thread.join()
        self.socket.close()
        return max(self.longest, time.monotonic() - self.last)


def test_a_flood_of_renames_does_not_keep_the_watchdog_waiting(box: Running, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WATCHDOG_USEC", "300000")       # it is told every tenth of a second
    restart(box)
    dog = Watchdog(box)
    writers = [attack(box, "flood", FLOOD) for _ in range(2)]
    waits, number = [], 0
    while any(writer.poll() is None for writer in writers):
        waits.append(urgent(box, number))
        number += 1
    longest = dog.stop()
    print(f"flood: watchdog fed {dog.fed} times, at intervals of {longest:.2f} s at most; in force after "
          f"{max(waits):.2f} s at most")
    assert [writer.wait() for writer in writers] == [0, 0]
    assert longest < FLOOD / 3


def test_a_removed_list_does_not_come_back_as_it_was(box: Running):
    def sign(text: str, stamp: int) -> None:
        box.drop("signed.list.minisig", SIGNER.sign(text.encode(), f"timestamp:{stamp}\tfile:signed.list").decode())
        box.drop("signed.list", text)

    sign("open.example\n", 2000)
    assert until(lambda: is_reset(box.lab, "open.example"), SOON)
    (box.rules / "signed.list").unlink()
    assert until(lambda: not is_reset(box.lab, "open.example"), SOON)
    sign("www.open.example\n", 1000)
    assert until(lambda: (box.rules / "signed.rejected").exists(), SOON)
    assert "is older than the version" in (box.rules / "signed.rejected").read_text()
    assert not is_reset(box.lab, "www.open.example")


def test_an_emptied_directory_takes_nothing_out_of_force(box: Running):
    for path in box.rules.iterdir():
        path.unlink()
    assert until(lambda: "lists would go" in box.daemon.log.read_text(), SOON)
    restart(box)
    assert is_reset(box.lab, "listed.example") and is_reset(box.lab, "only.example.net")


def test_whatever_is_done_a_good_list_is_in_force_in_time(box: Running):
    """Random bytes, settings, kinds of files and renames; restarts at random moments."""
    seed = random.randrange(1 << 30)
    print(f"chaos: seed {seed}")
    chance = random.Random(seed)
    writer = attack(box, "chaos", CHAOS, seed)
    waits, number, restarts = [], 0, 0
    while writer.poll() is None:
        waits.append(urgent(box, number))
        number += 1
        if chance.random() < 0.3:
            restart(box)
            restarts += 1
            assert is_reset(box.lab, HOSTS[(number - 1) % 2])
        until(lambda: writer.poll() is not None, min(10.0, CHAOS / 5))
    assert writer.wait() == 0
    print(f"chaos: {CHAOS:.0f} s, {number} changes in force after {max(waits):.2f} s at most, {restarts} restarts")
    urgent(box, number)


def test_the_process_that_reads_lists_has_nothing_to_lose(box: Running):
    """While it reads: no capability, a filter, nobody's memory; and no plain name of a list in any other process."""
    box.drop("secret.list", "zqx-needle-host.example\n")
    play(box, "slow", 2)
    seen: list[tuple[dict[str, str], str]] = []
    daemon = box.daemon.process.pid
    assert until(lambda: seen.extend(confined(children(daemon, "edgeblock.daemon.compiling"))) or seen, SOON)
    for status, limits in seen:
        assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
        core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert (status["NoNewPrivs"], *core.split()[4:6]) == ("1", "0", "0")
    others = [daemon, *children(daemon, "edgeblock.daemon.worker")]
    assert len(others) == 3 and not [pid for pid in others if places_of(pid, b"zqx-needle")]


def test_the_key_is_once_in_each_process_that_needs_it(box: Running):
    """While everything runs, after reloads and a new worker: in one page, which is never written to a disk."""
    daemon = box.daemon.process.pid
    key = (box.rules.parent / "key").read_bytes()
    for number in range(4):
        urgent(box, number)
    os.kill(box.lab.counters(box.daemon)["workers.0.pid"], signal.SIGKILL)
    assert until(lambda: len(children(daemon, "edgeblock.daemon.worker")) == 2, SOON)
    urgent(box, 4)
    play(box, "slow", 2)
    reading: list[int] = []
    module = "edgeblock.daemon.compiling"
    assert until(lambda: reading.extend(holding(children(daemon, module), key)) or reading, SOON)
    for pid in (daemon, *children(daemon, "edgeblock.daemon.worker")):
        [place] = places_of(pid, key)
        assert {"lo", "dd"} <= flags_of(pid, place)
        assert not places_of(pid, key.hex().encode())
    limits = Path(f"/proc/{daemon}/limits").read_text()
    assert re.search(r"Max core file size +0 +0 ", limits)


def holding(pids: list[int], key: bytes) -> list[int]:
    """Those that have the key, all of them once: which has ended meanwhile says nothing."""
    found = []
    for pid in pids:
        try:
            places = places_of(pid, key)
        except OSError:
            continue
        assert len(places) < 2
        found += [pid] * len(places)
    return found


def confined(pids: list[int]) -> list[tuple[dict[str, str], str]]:
    """Of the processes that have given up what they do not need."""
    found = []
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            limits = Path(f"/proc/{pid}/limits").read_text()
        except OSError:
            continue
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        if status.get("Seccomp") == "2":
            found.append((status, limits))
    return found
