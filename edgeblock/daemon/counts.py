"""Keeps the counts that last: gathers what workers and the daemon's other parts count, and has it written.

In: pieces of counts from workers (report/pending.py), and each second what the others know: whether the box filters,
what its canary found, figures that grow. Out: batches by day (UTC), written every few seconds in a thread
(report/store.py) that the end of the daemon does not wait for. What cannot be written waits, up to a bound; what is
beyond is counted as lost, and said. Never here: a packet, or anything that waits for the disk.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from edgeblock.config import Config
from edgeblock.ledger.place import directory_of
from edgeblock.report.pending import Batch, Pending
from edgeblock.report.period import DAY

SAVING = 5.0            # seconds between two savings: what a daemon loses that is killed, and the second of a worker
HANDING_OVER = 0.3      # seconds that the last saving may take while packets wait for the next daemon
LAST_WORDS = 2.0        # the same where nobody waits
LOOKING = 1.0           # seconds between two looks at what the other parts know
STOOD = 10.0            # seconds from which on it was us who stood still: nobody knows what was then
SLACK = 5.0             # seconds that a round of the canary may be late
BLOCKS_MAX, RULES_MAX = 16_384, 65_536      # different ones that wait to be written, of a day: 15 MB
DAYS_MAX = 3            # that wait while nothing can be written; the oldest goes first, and is counted as lost


@dataclass(frozen=True)
class Seen:
    """What the other parts know now: `rounds` of the canary so far, and what was `wrong` in the last one, by family
    and protocol; `sums` that have grown since the daemon began, and so have packets that met address entries in the
    `kernel`, by list; `most`, of which the largest of a day counts."""

    filtering: bool
    period: float = 10.0
    rounds: int = 0
    wrong: dict[tuple[str, str], bool] = field(default_factory=dict)
    sums: dict[str, int] = field(default_factory=dict)
    kernel: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)


class Counts:
    """What `status` and the metrics show is in `status`."""

    def __init__(self, config: Config, log: Any) -> None:
        self._enabled = config.report.enabled
        self._log = log
        if self._enabled:
            from edgeblock.report.store import FAULTS, Writer  # a daemon that keeps no counts needs no SQLite

            self._writer = Writer(directory_of(config), config.report.keep_days, time.time())
            self._faults = FAULTS + (RuntimeError, MemoryError)     # there is no thread, or no memory for one
        self._batches: dict[int, Batch] = {}
        self._seen: Seen | None = None
        self._looked = 0.0
        self._round = 0.0               # when the canary's last round was, where all of it held; 0.0 where not
        self._see: Callable[[], Seen] | None = None
        self._saving = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._lost = 0
        self._strange = 0               # pieces that were none
        self._saved = 0.0               # Unix seconds
        self._problem = ""

    def status(self) -> dict[str, Any]:
        """`lost` are blocks since the start that were counted nowhere but in the metrics."""
        waiting = sum(one.pending.lost for one in self._batches.values())
        return {"enabled": self._enabled, "saved": self._saved, "lost": self._lost + waiting,
                "problem": self._problem}

    def take(self, told: Any) -> None:
        """What a worker has counted."""
        if not self._enabled:
            return
        try:
            self._today().pending.put(told)
        except ValueError as problem:       # it has been taken over, or is of another version
            self._strange += 1
            if self._strange == 1:
                self._log.error("counts", problem=f"what a worker has counted {problem}, and is left out")

    def look(self, now: float, seen: Seen) -> None:
        """`now` is in seconds of the event loop's clock."""
        before, passed = self._seen, now - self._looked
        self._seen, self._looked = seen, now
        batch = self._today()
        for what, value in seen.most.items():
            batch.most[what] = max(value, batch.most.get(what, 0))
        for what, value in seen.sums.items():
            batch.add(what, value - (before.sums.get(what, 0) if before else 0))
        for name, packets in seen.kernel.items():
            batch.kernel[name] += packets - (before.kernel.get(name, 0) if before else 0)
        if before is None:
            return
        if passed < STOOD:
            batch.add("running", passed)
            if seen.filtering and before.filtering:
                batch.add("filtering", passed)
        if seen.rounds != before.rounds and seen.wrong:
            self._have_asked(now, seen, batch)

    def _have_asked(self, now: float, seen: Seen, batch: Batch) -> None:
        """Between two rounds that held, one after the other, the box has filtered."""
        for which, wrong in seen.wrong.items():
            one = batch.canary.setdefault(which, [0, 0])
            one[0] += 1
            one[1] += not wrong
        held = not any(seen.wrong.values())
        passed = now - self._round
        if held and self._round and passed < 2 * seen.period + SLACK:
            batch.add("proven", passed)
        self._round = now if held else 0.0

    async def keep(self, see: Callable[[], Seen]) -> None:
        """Until it is cancelled; `see` gives what is Seen now."""
        loop = asyncio.get_running_loop()
        self._see, due = see, loop.time()
        while self._enabled:
            self.look(loop.time(), see())
            if loop.time() >= due:
                self._task = asyncio.ensure_future(self.save())     # goes on to its end, whoever is cancelled
                await asyncio.shield(self._task)
                due = loop.time() + SAVING
            await asyncio.sleep(LOOKING)

    async def save(self, clean: bool = False) -> None:
        """Writes what there is; where that fails it waits. `clean`: the daemon ends."""
        async with self._saving:
            batches, self._batches = self._batches, {}
            now = time.time()
            try:
                await in_thread(lambda: self._write(batches, now, clean))
            except self._faults as problem:
                self._keep_back(batches)
                self._say(f"{self._writer.path}: cannot be written: "
                          f"{getattr(problem, 'strerror', None) or problem or 'there is not memory enough'}")
                return
            self._lost += sum(one.pending.lost for one in batches.values())
            self._saved = now
            self._say("")

    def _write(self, batches: dict[int, Batch], now: float, clean: bool) -> None:
        """In the thread."""
        self._writer.write(batches, now, clean)
        if clean:
            self._writer.close()

    async def close(self, handing_over: bool = False) -> None:
        """At the end, when no worker counts any more. Where the disk, or another who writes, does not let us in time,
        what was counted since the last saving is missing, and the file says that this daemon has not closed it."""
        if not self._enabled or self._see is None:
            return
        self.look(asyncio.get_running_loop().time(), self._see())
        self._task = asyncio.ensure_future(self.save(clean=True))
        done, _ = await asyncio.wait({self._task}, timeout=HANDING_OVER if handing_over else LAST_WORDS)
        if not done:
            self._log.error("counts", problem=f"{self._writer.path}: cannot be written in time; what was counted in "
                            f"the last {SAVING + LOOKING:.0f} seconds may be missing")

    def _today(self) -> Batch:
        return self._batches.setdefault(int(time.time() // DAY), Batch(Pending(BLOCKS_MAX, RULES_MAX)))

    def _keep_back(self, batches: dict[int, Batch]) -> None:
        for day, batch in batches.items():
            if day in self._batches:
                batch.merge(self._batches[day])
            self._batches[day] = batch
        while len(self._batches) > DAYS_MAX:
            gone = self._batches.pop(min(self._batches)).pending
            left = self._batches[max(self._batches)].pending
            left.lost += gone.lost + sum(tries for tries, _ in gone.blocks.values())
            left.unknown += gone.unknown + sum(gone.rules.values())

    def _say(self, problem: str) -> None:
        if self._writer.put_aside:
            self._log.error("counts", problem=self._writer.put_aside)
            self._writer.put_aside = ""
        if problem and problem != self._problem:
            self._log.error("counts", problem=f"{problem}; the box filters, and what is counted waits in memory")
        elif self._problem and not problem:
            self._log.warning("counts are written again")
        self._problem = problem


def in_thread(work: Callable[[], None]) -> asyncio.Future[None]:
    """What becomes of work in a thread of its own, which ends with the process, whatever it is waiting for then: that
    of an executor would be waited for. RuntimeError where there can be none."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def tell(fault: BaseException | None) -> None:
        if future.done():
            return
        if fault is None:
            future.set_result(None)
        else:
            future.set_exception(fault)

    def run() -> None:
        fault: BaseException | None = None
        try:
            work()
        except BaseException as problem:    # whatever it is
            fault = problem
        with suppress(RuntimeError):        # the loop has ended, and nobody asks
            loop.call_soon_threadsafe(tell, fault)

    threading.Thread(target=run, name="counts", daemon=True).start()
    return future
