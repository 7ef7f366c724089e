"""The sketches that a daemon keeps: given to workers, saved, taken on, thrown away, begun anew each day."""

import asyncio
import hashlib
import mmap
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from edgeblock.blocklist.impact import DAY, FILE
from edgeblock.blocklist.impact import Impact as Figures
from edgeblock.blocklist.keys import held
from edgeblock.config import Config, Impact, Rules
from edgeblock.core.sketch import Sketches
from edgeblock.daemon import impact as daemon
from tests.core import samples as s
from tests.daemon.parts import Log
from tests.sketching import write_state

HERE = bytes((192, 0, 2, 1))
NAMES = [b"www%d.example.com" % number for number in range(30)]


class Workers:
    """What is told to workers, and what such a worker does."""

    def __init__(self) -> None:
        self.orders: list[dict[str, int]] = []
        self.keys: list[bytes] = []
        self.writers: list[list[Sketches]] = []

    def give(self, what: str, files: tuple[int, ...], **told: int) -> None:
        assert what == "impact"
        key = held(files[1])
        self.orders.append(told)
        self.keys.append(bytes(key))
        parts = [mmap.mmap(files[0], told["room"], offset=row * told["room"]) for row in range(2)]
        self.writers.append([Sketches(part, told["slots"], key) for part in parts])

    def see(self, names: list[bytes], row: int = 0, source: str = "198.18.44.55") -> None:
        self.writers[-1][row].see_all(s.tcp(1, b"x", source=source, destination="192.0.2.1"), names)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "state").mkdir()
    return Config(rules=Rules(directory=tmp_path, key=tmp_path / "state" / "key"), impact=Impact(destinations=300))


@pytest.fixture
def file(config: Config) -> Path:
    return config.rules.key.parent / FILE


def played(config: Config, play, staged: bool = False) -> tuple[Log, Workers]:
    """`play` with a daemon's part from its beginning to its end."""
    log, workers = Log(), Workers()

    async def run() -> None:
        part = daemon.Impact(config, log, 2, workers)       # type: ignore[arg-type]
        part.prepare()
        await part.begin(staged)
        try:
            await play(part, workers)
        finally:
            await part.close()

    asyncio.run(run())
    return log, workers


async def nothing(part: daemon.Impact, workers: Workers) -> None:
    return


def names_in(file: Path) -> int:
    return Figures(file).of([(HERE, HERE)]).names


def test_two_workers_figures_are_one_and_outlive_the_daemon(config: Config, file: Path):
    async def play(part: daemon.Impact, workers: Workers) -> None:
        assert workers.orders == [{"slots": 512, "room": daemon.room_of(512)}]
        workers.see(NAMES[:20], 0)
        workers.see(NAMES[10:], 1, "198.18.44.56")
        answer = await part.ask()
        assert answer["file"] == str(file) and answer["addresses"] == 1 and answer["subscribers"] == 2
        assert names_in(file) == 30
        workers.see([b"later.example.org"])
        assert (await part.ask())["flows"] == 40            # asked again at once it is what was saved
        assert part.status()["problem"] == ""

    log, first = played(config, play)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert names_in(file) == 31                             # saved at the end
    log, second = played(config, nothing)
    assert log.said == [] and names_in(file) == 31
    assert first.keys != second.keys                        # and what is counted there has no key any more


def test_nothing_in_the_file_is_a_name_a_subscriber_or_the_key(config: Config, file: Path):
    async def play(part: daemon.Impact, workers: Workers) -> None:
        workers.see([b"a.secret.example", *NAMES])
        assert daemon.room_of(512) == workers.orders[0]["room"]

    _, workers = played(config, play)
    held_there = file.read_bytes()
    searched = [b"secret", b"example", bytes((198, 18, 44, 55)), workers.keys[0]]
    for text in (b"a.secret.example", bytes((198, 18, 44, 55))):
        searched += [hashlib.new(kind, text).digest()[:8] for kind in ("md5", "sha1", "sha256", "blake2b")]
    assert [one for one in searched if one in held_there] == []
    assert HERE in held_there                               # a destination is


@pytest.mark.parametrize("what", ["damaged", "version"])
def test_a_damaged_file_is_thrown_away_with_a_warning(config: Config, file: Path, what: str):
    write_state(file.parent, (5, 1, {"192.0.2.1": (9, 2)}))
    content = bytearray(file.read_bytes())
    content[16 if what == "version" else 100] ^= 0xFF
    file.write_bytes(content)
    log, _ = played(config, nothing)
    [(event, more)] = log.said
    assert event == "impact" and str(file) in more["problem"] and "thrown away" in more["problem"]
    assert names_in(file) == 0 and Figures(file).periods


def test_a_day_ends_and_another_begins_under_another_key(config: Config, file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(daemon, "SWITCHING", 0.01)

    async def play(part: daemon.Impact, workers: Workers) -> None:
        workers.see(NAMES)
        assert part._today is not None
        part._today.since -= DAY
        keeping = asyncio.ensure_future(part.keep())
        async with asyncio.timeout(20):
            while len(Figures(file).periods) < 2:
                await asyncio.sleep(0.01)
        keeping.cancel()
        workers.see(NAMES[:2])

    _, workers = played(config, play)
    assert len(workers.keys) == 2 and workers.keys[0] != workers.keys[1]
    assert names_in(file) == 30 and Figures(file).of([(HERE, HERE)]).flows == 32


def test_of_many_restarts_the_shortest_times_go(config: Config, file: Path):
    hours = [(20.0, 12.0), (12.0, 11.5), (11.0, 8.0), (8.0, 7.0), (6.0, 4.0), (3.0, 2.9)]
    write_state(file.parent, *((began, ended, {"192.0.2.1": (number + 1, 1)}) for number, (began, ended)
                               in enumerate(hours)))
    played(config, nothing)
    lengths = [round((one.end - one.begin) / 360) for one, _ in Figures(file).periods]
    assert lengths == [80, 30, 10, 20, 0]


def test_switched_off_nothing_is_kept(config: Config, file: Path):
    write_state(file.parent, (5, 1, {"192.0.2.1": (9, 2)}))

    async def play(part: daemon.Impact, workers: Workers) -> None:
        assert "enabled" in (await part.ask())["error"] and part.status()["enabled"] is False
        await part.keep()

    log, workers = played(replace(config, impact=Impact(enabled=False)), play)
    assert not file.exists() and workers.orders == [] and log.said == []


def test_a_directory_that_cannot_be_written_is_said_once(config: Config, file: Path):
    async def play(part: daemon.Impact, workers: Workers) -> None:
        file.mkdir()
        (file / "x").touch()
        for _ in range(3):
            await part.save()
        assert "cannot be written" in (await part.ask())["error"] and "cannot be written" in part.status()["problem"]

    log, _ = played(config, play)
    assert len(log.said) == 1 and str(file) in log.said[0][1]["problem"]


def test_what_a_killed_daemon_left_half_written_goes(config: Config, file: Path):
    left = file.parent / f".{FILE}.77{daemon.SUFFIX}"
    left.write_bytes(b"half")
    played(config, nothing)
    assert not left.exists() and os.listdir(file.parent) == [FILE]


def test_a_clock_that_is_set_back_ends_nothing(config: Config, file: Path, monkeypatch: pytest.MonkeyPatch):
    async def play(part: daemon.Impact, workers: Workers) -> None:
        workers.see(NAMES)
        now = daemon.time.time()
        monkeypatch.setattr(daemon.time, "time", lambda: now - 5000)
        await part.save()
        assert part.status()["problem"] == ""

    log, _ = played(config, play)
    assert log.said == [] and file.exists()


def test_a_head_that_a_worker_has_altered_ends_nothing(config: Config):
    async def play(part: daemon.Impact, workers: Workers) -> None:
        assert part._today is not None
        part._today.parts[0][:8] = (1 << 58).to_bytes(8, "little")
        await part.save()
        assert "shorter than it says" in (await part.ask())["error"]
        part._today.since -= DAY
        monkey = daemon.SWITCHING
        daemon.SWITCHING = 0.0
        try:
            await part._turn()
        finally:
            daemon.SWITCHING = monkey
        workers.see(NAMES)
        await part.save()
        assert part.status()["problem"] == "" and part.status()["addresses"] == 1

    log, _ = played(config, play)
    assert log.said
