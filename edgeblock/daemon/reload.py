"""Reloads: the lists are compiled, staged in the kernel, given to every worker, and then committed in the kernel.

In: moments at which the lists are to be read anew (changes.py). Out: rules in force (in_force.py), in the first stage
before any worker has them, so that no name passes there that some worker blocks. Where a step fails, what is in force
stays, and the lists are tried again. Never here: a list read, or a packet.
"""

import asyncio
import time
from contextlib import suppress
from typing import Any

from edgeblock.config import Config
from edgeblock.daemon.changes import Changes
from edgeblock.daemon.compiler import Compiler, Loaded
from edgeblock.daemon.in_force import InForce, let_go
from edgeblock.daemon.kernel import Kernel
from edgeblock.daemon.lane import Lane
from edgeblock.daemon.ledger import Recorder
from edgeblock.daemon.mapping import map_stacked
from edgeblock.daemon.outcomes import Outcomes
from edgeblock.daemon.proof import Proof
from edgeblock.daemon.tasks import Tasks
from edgeblock.daemon.windows import Calendar, Windows, spans_of
from edgeblock.daemon.workers import Workers
from edgeblock.errors import EdgeblockError, ListError

RETRY = 0.5             # seconds until the lists are tried again; doubled where it fails again
RETRY_MAX = 60.0


class Reload:
    """Puts lists in force: first `open`, then `begin`, then `run` whenever `due` returns."""

    def __init__(self, config: Config, compiler: Compiler, log: Any, tasks: Tasks, in_force: InForce, kernel: Kernel,
                 workers: Workers, outcomes: Outcomes, windows: Windows, recorder: Recorder) -> None:
        rules = config.rules
        self.proof = Proof(rules.self_check, log)       # what came of trying what is in force
        self._tasks = tasks
        self._log, self._in_force, self._kernel, self._workers = log, in_force, kernel, workers
        self._outcomes, self._windows, self._recorder = outcomes, windows, recorder
        self._compiler = compiler
        self._changes = Changes(rules.directory, self._compiler.wake)
        self._lane = Lane(self._compiler, log, tasks, lambda: self._changes.try_in(0))
        self._failures = 0              # of loads, one after the other

    async def open(self) -> None:
        """Begins to watch the directory, and has a process ready that compiles."""
        if not self._compiler.is_ready:
            await self._compiler.prepare()
        self._compiler.wake()
        self._changes.open()

    async def close(self) -> None:
        await self._lane.end()
        self._changes.close()
        await self._compiler.close()

    def renamed(self, file: str) -> int | None:
        """When a file of the rules directory came there, Unix microseconds; None where nobody saw it."""
        return self._changes.renamed(file)

    def ask(self) -> None:
        """The lists are to be read anew, those refused included."""
        self._changes.ask()

    async def begin(self) -> Loaded:
        """The first load, for `put_in_force`. ListError where nothing can be put in force."""
        await self._changes.begin()
        return await self._load()

    async def due(self) -> bool:
        """Until the lists are to be read anew; whether that was asked for. Only now a process is started for that: it
        takes processor time that the rules were waiting for."""
        if not self._compiler.is_ready:
            with suppress(OSError):     # none to be had now; the load asks again
                await self._compiler.prepare()
        return await self._changes.next()

    async def run(self, asked: bool) -> None:
        """Reads the lists anew; returns when every worker has what came of it."""
        began = time.monotonic()
        self._recorder.see(self._changes.files)
        try:
            loaded = await self._load(afresh=asked)
            fresh = await self.put_in_force(loaded)
        except (EdgeblockError, OSError) as problem:
            self._failures += 1
            self._changes.expires = None        # the next try looks for itself
            self._try_again()
            self._in_force.keep(problem)
            self._recorder.keep(str(problem))
            return
        if fresh:
            await self._kernel.commit_rules(await self._workers.await_rules())
            self._recorder.settle()
        if fresh or asked:
            self._log.info("rules loaded", seconds=round(time.monotonic() - began, 3), **self._in_force.summary())

    async def put_in_force(self, loaded: Loaded) -> bool:
        """Stages the rules in the kernel, then gives them to the workers; whether they are others than before.

        OSError where there is no memory for them, and nothing has changed.
        """
        given = time.time()
        await self._kernel.stage_rules(loaded, self._in_force.base_file)
        files = self._in_force.take(loaded)
        self.proof.take(loaded.trial, loaded.lists, {
            change["list"] for change in loaded.changes if change["change"] != "clients"})  # the entries are the same
        self._changes.expires = loaded.expires
        self._failures = self._failures + 1 if loaded.problem else 0
        if loaded.again or loaded.problem:
            self._try_again()
        if files:
            self._workers.give_rules(files)
            self._tasks.go_on(self._hear_proof())
        self._outcomes.take(loaded)
        self._recorder.take(loaded, given)
        if files:
            await self._keep_time(loaded)
        self._lane.line_up(loaded)
        return bool(files)

    async def _keep_time(self, loaded: Loaded) -> None:
        since = self._windows.since(time.time())
        try:
            calendar = await asyncio.get_running_loop().run_in_executor(None, lambda: Calendar(
                spans_of(map_stacked(loaded.fd, self._in_force.base_file, loaded.key)), since))
        except (EdgeblockError, OSError, RuntimeError) as problem:      # workers and kernel keep their own time
            self._log.error("windows not followed; those before are", problem=str(problem))
            return
        self._windows.take(calendar, since)

    async def _hear_proof(self) -> None:
        self.proof.add(await self._compiler.rest())

    async def _load(self, afresh: bool = False) -> Loaded:
        self._in_force.prepare()
        if afresh:
            self._lane.forget_refused()
        loaded = await self._compiler.load(self._changes.busy, self._in_force.digest, afresh, self._lane.known,
                                           self._in_force.whole)
        if loaded.problem and not loaded.lists and self._in_force.is_empty:
            let_go(loaded)
            raise ListError(loaded.problem)
        return loaded

    def _try_again(self) -> None:
        self._changes.try_in(min(RETRY * 2 ** min(self._failures, 10), RETRY_MAX))
