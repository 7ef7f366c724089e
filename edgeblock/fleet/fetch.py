"""The program that fetches: every source a task of its own, and one file that says how they are.

In: sources.toml, again at SIGHUP. Out: files in the drop directory, the status file, a log of one JSON object a line.
It ends at SIGTERM, within a moment. Never here: what a source speaks, or how files land.
"""

import asyncio
import fcntl
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import edgeblock
from edgeblock.blocklist.store import write_file
from edgeblock.errors import ConfigError, SystemProblem, printable
from edgeblock.fleet.feed import Feed, Shared
from edgeblock.fleet.record import read_record
from edgeblock.fleet.sources import FetchSettings, Sources, SourceSettings, load, make
from edgeblock.notify import notify, watchdog_seconds

FORMAT = 1
BEAT = 10.0             # seconds between two signs that the program is there: the time of the status file
STATUS_MODE = 0o644
RANKS = {"info": 6, "warning": 4, "error": 3}       # syslog's (RFC 5424, 6.2.1)


class Log:
    """Lines of JSON on a file; with their priority where systemd's journal reads them (sd-daemon(3))."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        try:
            state = os.fstat(file.fileno())
            self._ranked = os.environ.get("JOURNAL_STREAM") == f"{state.st_dev}:{state.st_ino}"
        except (OSError, ValueError):
            self._ranked = False

    def __call__(self, level: str, event: str, **more: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        line = json.dumps({"time": now, "level": level, "event": event, **more}, default=str)
        with suppress(OSError, ValueError):         # the reader has gone, or the disk is full
            print(f"<{RANKS[level]}>{line}" if self._ranked else line, file=self._file, flush=True)


class Fetcher:
    """All sources of a file. Everything happens in the event loop's thread but what waits for a disk or a server."""

    def __init__(self, path: Path, log: Log) -> None:
        self._path, self._log = path, log
        self._sources = Sources()
        self._shared: Shared | None = None
        self._feeds: dict[str, Feed] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._leaving: dict[str, set[asyncio.Task[None]]] = {}      # cancelled, and perhaps still landing
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._problem = ""
        self._started = time.time()

    async def run(self, sources: Sources) -> None:
        """Until SIGTERM or SIGINT. Raises SystemProblem where the state directory cannot be used."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ended.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        with claimed(sources.fetch.state):
            try:
                self._apply(sources)
                notify(READY="1", STATUS=self._summary())
                await self._keep_status()
            finally:
                notify(STOPPING="1")
                await self._end()
        self._log("info", "stopped")

    def _reload(self) -> None:
        notify(RELOADING="1")
        try:
            sources = load(self._path)
            if sources.fetch.state != self._sources.fetch.state:
                raise ConfigError(f"{self._path}: [fetch] state is another; that needs a restart")
        except ConfigError as problem:
            for line in problem.args:
                self._log("error", "the sources stay as they were", problem=str(line))
        else:
            self._apply(sources)
        notify(READY="1", STATUS=self._summary())

    def _apply(self, sources: Sources) -> None:
        """Those that are new or changed begin, those that are gone end, and the others go on undisturbed."""
        wanted = {one.name: one for one in sources.sources}
        if self._shared is None or sources.fetch != self._sources.fetch:
            ending, before = dict(self._tasks), self._shared
            self._shared = Shared(sources.fetch, self._log, self._changed.set)
            if before is None:
                prepare(self._shared)
            else:
                self._shared.landed = before.landed
        else:
            ending = {name: task for name, task in self._tasks.items()
                      if wanted.get(name) != self._feeds[name].settings}
        for name, task in ending.items():
            del self._tasks[name], self._feeds[name]
            task.cancel()
            self._leaving.setdefault(name, set()).add(task)
        self._leaving = {name: {one for one in tasks if not one.done()} for name, tasks in self._leaving.items()}
        self._sources = sources
        begin = [one for name, one in wanted.items() if name not in self._tasks]
        for one in begin:
            self._feeds[one.name] = feed = Feed(one, make(one, sources.fetch), self._shared)
            self._tasks[one.name] = asyncio.ensure_future(self._keep(feed, self._leaving.get(one.name, set())))
        for name, files in orphans(self._shared, wanted):
            self._log("warning", "a source is gone from the configuration, and what it has brought stays; remove "
                      "the files if they are not to hold any more", source=name, files=files)
        self._log("info", "sources", count=len(wanted), version=edgeblock.__version__,
                  directory=str(sources.fetch.directory))
        self._changed.set()

    async def _keep(self, feed: Feed, before: "set[asyncio.Task[None]]") -> None:
        """Runs a feed, once those that it takes the place of have let go of their files."""
        if before:
            await asyncio.wait(before)
            feed.reread()
        await feed.keep()

    async def _end(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        if tasks := set(self._tasks.values()).union(*self._leaving.values()):
            await asyncio.wait(tasks)

    # ---- the status

    async def _keep_status(self) -> None:
        """Writes it whenever something has changed; else only its time says that somebody is there."""
        watchdog = watchdog_seconds()
        beat = min(BEAT, watchdog / 3) if watchdog else BEAT
        while not self._ended.is_set():
            notify(WATCHDOG="1")
            self._look_at_tasks()
            if self._changed.is_set():
                self._changed.clear()
                self._write()
                notify(STATUS=self._summary())
            else:
                with suppress(OSError):
                    os.utime(self._sources.fetch.status)
            waits = [asyncio.ensure_future(one.wait()) for one in (self._changed, self._ended)]
            try:
                await asyncio.wait(waits, timeout=beat, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in waits:
                    one.cancel()

    def _look_at_tasks(self) -> None:
        """A task never ends by itself; one that has is a fault of ours, and the source goes on."""
        for name, task in list(self._tasks.items()):
            if task.done():
                fault = None if task.cancelled() else task.exception()
                self._log("error", "a source has stopped by a fault of edgeblock's own, and begins anew", source=name,
                          problem=repr(fault))
                feed = self._feeds[name]
                self._tasks[name] = asyncio.ensure_future(feed.keep())

    def _write(self) -> None:
        try:
            write_status(self._sources.fetch, [feed.row() for feed in self._feeds.values()], self._started)
            self._problem = ""
        except OSError as problem:
            if not self._problem:
                self._log("error", "the status cannot be written", file=str(self._sources.fetch.status),
                          problem=str(problem.strerror))
            self._problem = str(problem)

    def _summary(self) -> str:
        failing = [name for name, feed in self._feeds.items() if feed.failures]
        said = f", {len(failing)} failing: {', '.join(failing[:5])}" if failing else ""
        return f"{len(self._feeds)} sources{said}"


async def once(sources: Sources, names: Iterable[str], log: Log) -> list[dict[str, Any]]:
    """Asks some sources, or all, one time each; the rows of their status. Raises SystemProblem."""
    shared = Shared(sources.fetch, log, lambda: None)
    chosen = set(names)
    with claimed(sources.fetch.state):
        prepare(shared)
        feeds = [Feed(one, make(one, sources.fetch), shared) for one in sources.sources
                 if not chosen or one.name in chosen]
        await asyncio.gather(*(feed.finish() for feed in feeds))
        return [feed.row() for feed in feeds]


def prepare(shared: Shared) -> None:
    """Raises SystemProblem where the state directory cannot be used."""
    try:
        shared.prepare()
    except OSError as problem:
        raise SystemProblem(f"{problem.filename}: cannot be used: {problem.strerror}; set [fetch] state, or give it "
                            "to whoever runs edgeblock-fetch") from None


@contextmanager
def claimed(state: Path) -> Iterator[None]:
    """The state directory, for one process at a time.

    Raises:
        SystemProblem: another has it, or it cannot be made.
    """
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (state / "lock").open("ab")
    except OSError as problem:
        raise SystemProblem(f"{problem.filename}: cannot be used: {problem.strerror}; run this as root, or as the "
                            "user edgeblock-fetch, or set [fetch] state") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SystemProblem(f"{state}: another edgeblock-fetch is at work there; stop it first (systemctl stop "
                                "edgeblock-fetch), or have it read its sources again with systemctl reload") from None
        yield


def write_status(fetch: FetchSettings, rows: list[dict[str, Any]], started: float) -> None:
    """The status file, whole. Raises OSError."""
    said = {"format": FORMAT, "version": edgeblock.__version__, "box": box_of(fetch), "ring": fetch.ring,
            "started": int(started), "sources": rows}
    text = json.dumps(said, indent=1).encode()
    fetch.status.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_file(fetch.status, lambda file: file.write(text), mode=STATUS_MODE, sync=False)


def box_of(fetch: FetchSettings) -> str:
    """Who this box is."""
    return fetch.box or socket.gethostname()


def orphans(shared: Shared, wanted: dict[str, SourceSettings]) -> Iterator[tuple[str, list[str]]]:
    """Sources that are not configured any more, and the files that they have left."""
    for path in sorted(shared.records.glob("*.json")):
        if path.stem not in wanted and re.fullmatch(r"[\w-]+", path.stem):
            files = sorted(name for name in read_record(path).files if (shared.fetch.directory / name).exists())
            if files:
                yield path.stem, [printable(name) for name in files[:20]]


def serve(path: Path) -> int:
    """`edgeblock-fetch run`: its exit status. Raises ConfigError and SystemProblem."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)    # until there is somebody to hear it
    sources = load(path)
    log = Log(sys.stdout)
    asyncio.run(Fetcher(path, log).run(sources))
    return 0
