"""Keeps sketches of what is behind destinations: a day's in memory, those before it in a file.

In: the parts of a file in memory that workers write (core/sketch.pyx). Out: a new file and a new key for them each
day; the state directory's `impact`, in which whoever judges or explains address entries reads (blocklist/impact.py).
The key is nowhere but in memory of processes, and goes with its day: what is in the file has none. Never here: a
name, a packet, a judgement.
"""

import asyncio
import mmap
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from edgeblock.blocklist.impact import DAY, FILE, Period, read_whole, write_periods
from edgeblock.blocklist.keys import key_file, random_key
from edgeblock.blocklist.store import write_file
from edgeblock.config import Config
from edgeblock.core.sketch import size_of
from edgeblock.core.tally import Table, close_parts
from edgeblock.daemon.workers import Workers
from edgeblock.errors import ListError

SAVING = 600.0          # seconds between two savings: what a daemon loses that is killed
FRESH = 5.0             # seconds for which who asks gets what was saved last
SWITCHING = 2.0         # seconds after which every worker writes into the next day's file
PERIODS_MAX = 4         # that are kept besides the one under way: of more restarts in a day the shortest go
SUFFIX = ".new"         # of a file that is not whole yet; others' end in .tmp, and are cleared away by others


def slots_of(config: Config) -> int:
    """Destinations that a worker remembers: a power of two."""
    return 1 << (config.impact.destinations - 1).bit_length()


def room_of(slots: int) -> int:
    """Bytes of a worker's part in the file, whole pages."""
    return (size_of(slots) + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE


def why_not(problem: Exception) -> str:
    if isinstance(problem, MemoryError):
        return "there is not memory enough"
    return getattr(problem, "strerror", None) or str(problem)


class Today:
    """The file in memory that workers write now. `began` is in Unix seconds, `since` of the event loop's clock."""

    def __init__(self, rows: int, slots: int) -> None:
        room = room_of(slots)
        self.file = os.memfd_create("edgeblock-impact")
        self.key_file = key_file()
        try:
            os.ftruncate(self.file, rows * room)
            random_key(self.key_file).release()
            self.parts = [memoryview(mmap.mmap(self.file, room, offset=row * room)) for row in range(rows)]
        except OSError:
            self.close()
            raise
        self.began, self.since = time.time(), asyncio.get_running_loop().time()

    def closed(self) -> Period:
        """What is in it by now. A part that no worker has begun is empty."""
        now = time.time()           # clocks are set back
        return Period(min(self.began, now), now, close_parts(self.parts))

    def close(self) -> None:
        os.close(self.file)
        os.close(self.key_file)


class Impact:
    """What `status` and the metrics show is in `status`. The work is done in a thread of its own."""

    def __init__(self, config: Config, log: Any, rows: int, workers: Workers) -> None:
        self._config, self._log, self._rows, self._workers = config, log, rows, workers
        self._path = config.rules.key.parent / FILE
        self._sample = 1.0                      # of connections, where the first stage is on
        self._today: Today | None = None
        self._before: list[Period] = []         # closed ones, the oldest first
        self._counted: dict[str, int] = {}      # of what was saved last
        self._saved, self._saved_at = 0.0, -FRESH       # Unix seconds; the event loop's clock
        self._problem = ""
        self._thread = ThreadPoolExecutor(1, "impact")
        self._saving = asyncio.Lock()

    def prepare(self) -> None:
        """Before any list is judged: where nothing is to be kept, what a daemon before has kept goes."""
        if not self._config.impact.enabled:
            with suppress(OSError):
                self._path.unlink()

    async def begin(self, staged: bool) -> None:
        """Takes on what the daemon before has kept, and gives every worker a part. `staged`: there is a first stage,
        so only a share of the connections is learnt from."""
        if not self._config.impact.enabled:
            return
        self._sample = self._config.impact.sample if staged else 1.0
        await self._call(self._take_on)
        try:
            self._begin_day()
        except OSError as problem:
            self._say(f"names behind addresses are not counted: {problem.strerror}")

    def _take_on(self) -> None:
        for left in self._path.parent.glob(f".{FILE}.*{SUFFIX}"):
            with suppress(OSError):
                left.unlink()
        try:
            most = (PERIODS_MAX + 2) * self._rows * room_of(slots_of(self._config))
            self._before, _ = read_whole(self._path, most)
        except FileNotFoundError:
            return
        except ListError as problem:
            self._log.warning("impact", problem=f"{problem}; it is thrown away, and counting begins anew")
        self._forget_old()

    def _forget_old(self) -> None:
        now = time.time()
        kept = [one for one in self._before if now - DAY < one.end <= now + DAY]
        while len(kept) > PERIODS_MAX:
            kept.remove(min(kept, key=lambda one: one.end - one.begin))
        self._before = kept

    def _begin_day(self) -> None:
        slots = slots_of(self._config)
        self._today = today = Today(self._rows, slots)
        self._workers.give("impact", (today.file, today.key_file), slots=slots, room=room_of(slots))

    async def keep(self) -> None:
        """Until it is cancelled: saves now and then, and begins a day anew when one is over."""
        while self._today is not None:
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(max(0.0, min(SAVING, self._today.since + DAY - now)))
            if asyncio.get_running_loop().time() >= self._today.since + DAY:
                await self._turn()
            await self.save()

    async def _turn(self) -> None:
        """The next day begins; the one before has no key any more."""
        before = self._today
        assert before is not None
        try:
            self._begin_day()
        except OSError as problem:              # no memory now: this day goes on, and is tried again
            self._say(f"no new day can be begun: {problem.strerror}")
            before.since += SAVING
            return
        async with self._saving:            # who saves meanwhile saves that day, too
            try:
                self._before.append(await self._call(before.closed))
                await asyncio.sleep(SWITCHING)
                self._before[-1] = await self._call(before.closed)
            except (MemoryError, ValueError) as problem:
                self._say(f"a day's figures are lost: {why_not(problem)}")
            finally:
                before.close()
            self._forget_old()

    async def save(self) -> None:
        """Into the file, whole or not at all."""
        async with self._saving:
            if self._today is None:
                return
            try:
                await self._call(self._save, self._today)
                self._saved_at = asyncio.get_running_loop().time()
                self._say("")
            except (OSError, MemoryError, ValueError) as problem:
                self._say(f"{self._path}: cannot be written: {why_not(problem)}")

    def _save(self, today: Today) -> None:
        now = today.closed()
        self._forget_old()
        write_file(self._path, partial(write_periods, periods=[*self._before, now], sample=self._sample),
                   suffix=SUFFIX)
        self._counted, self._saved = Table(now.data).counters, now.end

    def _say(self, problem: str) -> None:
        if problem and problem != self._problem:
            self._log.warning("impact", problem=problem)
        self._problem = problem

    async def _call(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def ask(self) -> dict[str, Any]:
        """The answer to `edgeblock impact`: where the figures are, as they are now."""
        if self._today is None:
            return {"error": "nothing is counted: [impact] enabled is false"}
        if asyncio.get_running_loop().time() - self._saved_at > FRESH:
            await self.save()
        if self._problem:
            return {"error": self._problem}
        return {"file": str(Path(self._path).absolute()), **self.status()}

    def status(self) -> dict[str, Any]:
        """Of the day under way, as it was saved last."""
        return {"enabled": self._today is not None, "saved": self._saved, "sample": self._sample,
                "problem": self._problem, **self._counted}

    async def close(self) -> None:
        """At the end: saves a last time."""
        try:
            await self.save()
        finally:
            self._thread.shutdown()
            if self._today is not None:
                self._today.close()
                self._today = None
