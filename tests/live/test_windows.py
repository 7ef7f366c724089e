"""Windows of lists and entries on a running box: on and off within a second, whatever the clock does."""

import mmap
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from running import UNTRACKED, Running, give_address, start, track_nothing

from edgeblock.lab import SERVER, Lab, until

pytestmark = pytest.mark.live

SOON = 1.0              # seconds after the moment
MODES = {"on": '[ruleset]\nkernel = "judge"\n', "untracked": UNTRACKED}
WORKERS = '[queue]\nworkers = 4\n'
BESIDE = {4: "203.0.113.9", 6: "2001:db8:80::9"}        # another address of the server
HOUR = 3600
PAUSE = 0.02


class Clock:
    """The wall clock of the daemon."""

    def __init__(self, place: Path) -> None:
        place.write_bytes(bytes(8))
        with place.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8)

    @property
    def offset(self) -> int:
        return int.from_bytes(self._memory[:8], "little", signed=True)

    def now(self) -> float:
        return time.time() + self.offset

    def step(self, seconds: int) -> None:
        self._memory[:8] = (self.offset + seconds).to_bytes(8, "little", signed=True)

    def go_to(self, moment: float, before: float = 2.0) -> None:
        """Some seconds before a moment, to the second."""
        self.step(round(moment - before - self.now()))


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clock") / "clock.so"
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", made,
                    Path(__file__).with_name("clock.c")], check=True)
    return made


@pytest.fixture
def clock(shim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(tmp_path / "offset")
    monkeypatch.setenv("CLOCK_OFFSET", str(tmp_path / "offset"))
    return clock


@pytest.fixture(params=MODES)
def box(request: pytest.FixtureRequest, clock: Clock, shim: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    with Lab() as lab:
        if request.param == "untracked":
            track_nothing(lab)
        for version in (4, 6):
            give_address(lab, "server", BESIDE[version])
        with monkeypatch.context() as preload:
            preload.setenv("LD_PRELOAD", str(shim))
            running = start(lab, tmp_path, WORKERS + MODES[request.param])
        yield running
        assert running.daemon.stop() == 0, running.daemon.last_words()


def is_blocked(lab: Lab, url: str, address: str) -> bool:
    """Whether curl, which asks another worker each time, gets nothing from there."""
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0]
    where = f"[{address}]" if ":" in address else address
    done = lab.run_in("client", ["curl", "-skS", "-o", "/dev/null", "--noproxy", "*", "--max-time", "3",
                                 "--resolve", f"{host}:{443 if scheme == 'https' else 80}:{where}", url], check=False)
    return done.returncode != 0


def turned(box: Running, clock: Clock, moment: float, url: str, address: str, blocked: bool) -> float:
    """Seconds from a moment that is to come until the first question that is answered otherwise than before it."""
    assert clock.now() < moment
    assert is_blocked(box.lab, url, address) != blocked
    while True:
        asked = clock.now()
        if is_blocked(box.lab, url, address) == blocked:
            assert asked > moment - 0.5, "before the moment"
            return asked - moment
        assert asked < moment + 10, f"{url} at {address}: not turned within ten seconds"
        threading.Event().wait(PAUSE)


def stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def taken(box: Running, name: str) -> bool:
    return f'"list": "{name}"' in box.daemon.log.read_text()


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


class Busy:
    """Lists that come and go all the time meanwhile."""

    def __init__(self, box: Running) -> None:
        self._box, self._ends = box, threading.Event()
        self._thread = threading.Thread(target=self._go)

    def _go(self) -> None:
        number = 0
        while not self._ends.wait(0.2):
            number += 1
            self._box.drop("busy.list", "".join(f"busy{number}-{i}.example\n" for i in range(100)))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()


def test_names_are_blocked_in_their_windows(box: Running, clock: Clock):
    began, ended = at("2027-01-09T14:45:00+00:00"), at("2027-01-09T17:30:00+00:00")
    box.drop("match.toml", f'from = "{stamp(began)}"\nuntil = "{stamp(ended)}"\n')
    box.drop("match.list", "match.example\n")
    box.drop("entries.list", f"entry.example from={stamp(began)} until={stamp(ended)}\n"
             'weekly.example weekly="sun 14:45-17:30 Europe/London"\n')
    assert until(lambda: taken(box, "match") and taken(box, "entries"), 15.0)
    seen = []
    for host, moment, blocked in (("match", began, True), ("match", ended, False), ("entry", began, True),
                                  ("entry", ended, False), ("www.entry", began, True)):
        clock.go_to(moment)
        with Busy(box):
            seen.append(turned(box, clock, moment, f"https://{host}.example/", SERVER[4], blocked))
    # Each worker by itself, and both families.
    for version in (4, 6):
        assert all(is_blocked(box.lab, f"{scheme}://{host}.example/", SERVER[version])
                   for scheme in ("http", "https") for host in ("match", "entry") for _ in range(4))
    # The night in which Britain's clocks are put forward lies between: the same hour there is another of UTC.
    for moment in (at("2027-03-21T14:45:00+00:00"), at("2027-03-28T13:45:00+00:00")):
        clock.go_to(moment)
        seen.append(turned(box, clock, moment, "https://weekly.example/", SERVER[4], True))
        clock.go_to(moment + 2.75 * HOUR)
        seen.append(turned(box, clock, moment + 2.75 * HOUR, "https://weekly.example/", SERVER[4], False))
    print("names, seconds after the moment:", " ".join(f"{one:.2f}" for one in seen))
    assert max(seen) <= SOON
    # Steps of an hour: into the window from behind it, out of it again to before it.
    clock.go_to(ended, -HOUR / 2)
    assert until(lambda: not is_blocked(box.lab, "https://match.example/", SERVER[4]), SOON)
    for seconds, blocked in ((-HOUR, True), (HOUR, False), (-HOUR, True)):
        clock.step(seconds)
        assert until(lambda blocked=blocked:
                     is_blocked(box.lab, "https://entry.example/", SERVER[6]) == blocked, SOON)
        assert is_blocked(box.lab, "https://match.example/", SERVER[4]) == blocked


def test_addresses_are_blocked_in_their_windows(box: Running, clock: Clock):
    began, ended = at("2027-01-09T14:45:00+00:00"), at("2027-01-09T17:30:00+00:00")
    url = "https://open.example/"
    box.drop("match.toml", f'from = "{stamp(began)}"\nuntil = "{stamp(ended)}"\n')
    box.drop("match.list", f"{BESIDE[6]}\n")
    box.drop("entries.list", f"{BESIDE[4]} from={stamp(began)} until={stamp(ended)}\n")
    assert until(lambda: taken(box, "match") and taken(box, "entries"), 15.0)
    seen = []
    for version in (4, 6):
        for moment, blocked in ((began, True), (ended, False)):
            clock.go_to(moment)
            seen.append(turned(box, clock, moment, url, BESIDE[version], blocked))
    print("addresses, seconds after the moment:", " ".join(f"{one:.2f}" for one in seen))
    assert max(seen) <= SOON
    clock.go_to(ended, -HOUR / 2)
    for seconds, blocked in ((-HOUR, True), (HOUR, False), (-HOUR, True)):
        clock.step(seconds)
        for version in (4, 6):
            assert until(lambda version=version, blocked=blocked:
                         is_blocked(box.lab, url, BESIDE[version]) == blocked, SOON)
            assert not is_blocked(box.lab, url, SERVER[version])


def test_a_daemon_that_starts_in_a_window_blocks_at_once(clock: Clock, shim: Path, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch):
    began = at("2027-01-09T14:45:00+00:00")
    with Lab() as lab:
        monkeypatch.setenv("LD_PRELOAD", str(shim))
        box = start(lab, tmp_path, WORKERS)
        box.drop("entries.list", f"entry.example from={stamp(began)}\n{SERVER[6]} from={stamp(began)}\n")
        assert until(lambda: taken(box, "entries"), 15.0)
        assert not is_blocked(lab, "https://entry.example/", SERVER[4])
        assert box.daemon.stop() == 0
        clock.go_to(began, -1)
        again = Running(lab, lab.start_daemon(box.daemon.config.read_text()), box.rules)
        assert is_blocked(lab, "https://entry.example/", SERVER[4])
        assert is_blocked(lab, "https://open.example/", SERVER[6])
        assert again.daemon.stop() == 0
