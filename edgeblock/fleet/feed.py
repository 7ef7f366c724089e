"""One source, again and again: asked, landed, and when next.

In: a Source, its settings, and what all feeds share. Out: files in the drop directory, a record on the disk, a row of
the status. After a failure it is asked later each time, at random, and what landed before stays. A fault of one, even
one of ours, is that source's alone. Never here: another source, or a protocol.
"""

import asyncio
import math
import random
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeblock.errors import printable
from edgeblock.fleet.landing import Landing
from edgeblock.fleet.record import Record, read_record
from edgeblock.fleet.source import Fetched, Source, SourceError
from edgeblock.fleet.sources import FetchSettings, SourceSettings

FIRST = 30.0            # seconds until the first try after a failure; each further one doubles it
LONGEST = 3600.0        # and the most, unless the source itself asks for more
SPREAD = 3.0            # seconds in which sources are asked first after a start: not all boxes at one moment
SLOW = 30.0             # seconds of a fetch from which on a source waits among those that are slow, or fail
ERROR_MAX = 400         # characters of what is told of a failure
VERSION_MAX = 100       # and of a version
TOLD_MAX = 16           # words of a source's own in the status
FILES_TOLD = 100        # file names of a source in the status


class Shared:
    """What all feeds of a program have in common. `log` takes a level, an event, and more by name; `changed` is
    called when a row of the status has."""

    def __init__(self, fetch: FetchSettings, log: Callable[..., None], changed: Callable[[], None]) -> None:
        self.fetch, self.log, self.changed = fetch, log, changed
        self.landing = Landing(fetch.directory, fetch.max_bytes)
        self.landed = asyncio.Lock()
        # Those that are slow or fail wait for each other, and for nobody else.
        self.lanes = asyncio.Semaphore(fetch.at_once), asyncio.Semaphore(fetch.at_once)

    @asynccontextmanager
    async def place(self, slow: bool) -> AsyncIterator[None]:
        """One of the places in which sources are asked; who turns out to be slow leaves his to the others."""
        lane, has = self.lanes[slow], True

        def leave() -> None:
            nonlocal has
            if has:
                has = False
                lane.release()

        await lane.acquire()
        leaving = None if slow else asyncio.get_running_loop().call_later(SLOW, leave)
        try:
            yield
        finally:
            leave()
            if leaving is not None:
                leaving.cancel()

    @property
    def records(self) -> Path:
        return self.fetch.state / "sources"

    @property
    def work(self) -> Path:
        """Where fetches have their folders; nothing in it outlives one."""
        return self.fetch.state / "fetching"

    def prepare(self) -> None:
        """Makes the directories, and removes what a process before has left. Raises OSError."""
        for path in (self.fetch.state, self.records):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(mode=0o700, exist_ok=True)
        self.landing.sweep()


class Feed:
    """`keep` runs until it is cancelled; `ask` asks once."""

    def __init__(self, settings: SourceSettings, source: Source, shared: Shared) -> None:
        self.settings = settings
        self._source, self._shared = source, shared
        self._kept = shared.records / f"{settings.name}.json"
        self._record = read_record(self._kept)
        self._told: dict[str, Any] = {}
        self._slow = False
        self.error, self.grave = "", False
        self.failures = 0
        self._began = self._since = time.time()
        self._next = 0.0
        self._every = settings.every        # as the source itself wants it

    @property
    def record(self) -> Record:
        return self._record

    async def keep(self) -> None:
        try:
            wait = random.uniform(0, min(SPREAD, self.settings.every))
            while True:
                self._plan(wait)
                try:
                    await self._source.wait(wait)
                except Exception as fault:      # of a kind of source: it is asked all the same
                    self._shared.log("error", "a source cannot wait", source=self.settings.name, problem=said(fault))
                    await asyncio.sleep(wait)
                wait = await self.ask()
        finally:
            with suppress(Exception):       # whatever a source does at its end
                await self._source.close()

    async def finish(self) -> None:
        """Asks once, and lets go of the source."""
        try:
            await self.ask()
        finally:
            await self._source.close()

    def reread(self) -> None:
        """Takes up what another feed of this source has left since."""
        self._record = read_record(self._kept)

    async def ask(self) -> float:
        """Asks once, and lands what comes; how many seconds to wait before the next time."""
        async with self._shared.place(self._slow):
            began = time.monotonic()
            try:
                fetched, changed = await self._fetch()
            except SourceError as problem:
                wait = self._fail(said(problem), problem.grave, problem.wait)
            except Exception as fault:          # one source's fault is one source's, whatever it is
                wait = self._fail(f"a fault of edgeblock's own ({said(fault)}); please report it", False, None)
            else:
                wait = self._succeed(fetched, changed)
            self._slow = self.failures > 0 or time.monotonic() - began > SLOW
        self._plan(wait)
        return wait

    def row(self) -> dict[str, Any]:
        """What the status says of it. Times are Unix seconds, 0 for never."""
        record = self._record
        return {"name": self.settings.name, "kind": self.settings.kind, "version": record.version,
                "bytes": sum(mark.size for mark in record.files.values()),
                "files": sorted(record.files)[:FILES_TOLD], "count": len(record.files),
                "every": self._every, "checked": int(record.asked), "changed": int(record.changed),
                "error": self.error, "grave": self.grave, "since": int(self._since), "began": int(self._began),
                "failures": self.failures, "next": int(self._next), "told": self._told}

    # ---- one fetch

    async def _fetch(self) -> tuple[Fetched, list[str]]:
        shared, record = self._shared, self._record
        folder = shared.work / self.settings.name
        try:
            whole = await asyncio.to_thread(self._begin, folder)
            fetched = await self._source.fetch(record.known if whole else {}, folder)
            if fetched.files is None and not whole:
                raise SourceError("says that nothing has changed, though all of it was asked for")
            async with shared.landed:
                landing = asyncio.ensure_future(asyncio.to_thread(self._land, fetched))
                try:
                    return fetched, await asyncio.shield(landing)
                except asyncio.CancelledError:
                    await asyncio.wait({landing})       # it cannot be stopped, and nobody else may land meanwhile
                    raise
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, True)

    def _begin(self, folder: Path) -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(mode=0o700)
            return self._shared.landing.whole(self._record)
        except OSError as problem:
            raise SourceError(f"{problem.filename}: cannot be used: {problem.strerror}") from None

    def _land(self, fetched: Fetched) -> list[str]:
        """The names of what has changed in the drop directory."""
        before = self._record
        record = replace(before, known=fetched.known, asked=time.time(), size=fetched.size,
                         version=printable(fetched.version)[:VERSION_MAX])
        changed: list[str] = []
        try:
            if fetched.files is not None:
                changed = self._shared.landing.land(fetched.files, record, self._kept, self.settings.settings)
            elif (record.known, record.version) != (before.known, before.version):
                record.write(self._kept)
            elif self._kept.exists():
                record.touch(self._kept)
        except OSError as problem:
            raise SourceError(f"{problem.filename or self._kept}: cannot be written: {problem.strerror}") from None
        except SourceError:
            self._record = replace(before, landing=record.landing)      # some of it may be there
            raise
        self._record = record
        return changed

    # ---- what becomes of it

    def _succeed(self, fetched: Fetched, changed: list[str]) -> float:
        if self.failures:
            self._shared.log("info", "a source answers again", source=self.settings.name, after=self.failures)
        if self.failures or changed:
            self._since = time.time()
        if changed:
            self._shared.log("info", "landed", source=self.settings.name, files=changed[:FILES_TOLD],
                             version=self._record.version, received=fetched.size)
        self.error, self.grave, self.failures = "", False, 0
        self._told = {str(name)[:40]: plain(value) for name, value in list(fetched.told.items())[:TOLD_MAX]}
        wait = self.settings.every if fetched.wait is None else fetched.wait
        self._every = wait
        return wait * (1 + random.uniform(0, self.settings.jitter))

    def _fail(self, error: str, grave: bool, wait: float | None) -> float:
        if not self.failures:
            self._since = time.time()
        if error != self.error:         # the same one again is no news
            self._shared.log("error" if grave else "warning", "a source failed; what landed before stays",
                             source=self.settings.name, problem=error)
        self.error, self.grave = error, grave
        self.failures += 1
        return back_off(self.failures, self.settings.every) if wait is None else wait

    def _plan(self, wait: float) -> None:
        self._next = time.time() + wait
        self._shared.changed()


def back_off(failures: int, every: float) -> float:
    """Seconds until the next try: twice as long each time, up to LONGEST or the usual wait, half of it at random."""
    most = min(LONGEST, every)
    return min(min(FIRST, every) * 2.0 ** min(failures - 1, 20), most) * random.uniform(0.75, 1.25)


def said(problem: BaseException) -> str:
    """What an error says, on one line; what kind of one it is where that is no SourceError."""
    text = printable(" ".join(str(problem).split())) or type(problem).__name__
    return (text if isinstance(problem, SourceError) else f"{type(problem).__name__}: {text}")[:ERROR_MAX]


def plain(value: Any) -> Any:
    """A word or a number for the status."""
    if value is None or isinstance(value, bool | int) or isinstance(value, float) and math.isfinite(value):
        return value
    return printable(str(value))[:VERSION_MAX]
