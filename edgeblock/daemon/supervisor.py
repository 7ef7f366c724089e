"""The daemon's first process: holds its parts together, in the order in which they start and end.

In: a Config. Out: workers that judge packets until SIGTERM or SIGINT; then the kernel rules go first, what the kernel
had delivered is answered, and the counters are logged. SIGHUP, or a change in the rules directory, has the lists that
changed compiled (reload.py). SIGUSR2 before SIGTERM leaves kernel rules and queues in force for the next daemon.

Each part owns its state: workers.py, kernel.py, reload.py with in_force.py, vigil.py and canary.py, status.py. Never
here: what they do, or a packet.
"""

import asyncio
import signal
import time
from contextlib import AsyncExitStack

import edgeblock
from edgeblock.config import Config
from edgeblock.daemon import checks, door
from edgeblock.daemon.addresses import left_by
from edgeblock.daemon.board import Board
from edgeblock.daemon.canary import Canary
from edgeblock.daemon.claim import greet
from edgeblock.daemon.compiler import Compiler
from edgeblock.daemon.control import Control
from edgeblock.daemon.counts import Counts
from edgeblock.daemon.fetcher import Fetcher
from edgeblock.daemon.impact import Impact
from edgeblock.daemon.in_force import InForce
from edgeblock.daemon.itself import give_back
from edgeblock.daemon.journal import Journal
from edgeblock.daemon.kernel import Kernel
from edgeblock.daemon.ledger import Recorder, Sources
from edgeblock.daemon.outcomes import Outcomes
from edgeblock.daemon.reload import Reload
from edgeblock.daemon.status import Status
from edgeblock.daemon.tasks import Tasks, give_up
from edgeblock.daemon.vigil import State, Vigil
from edgeblock.daemon.windows import Turn, Windows
from edgeblock.daemon.workers import HOLDING, Workers
from edgeblock.errors import SystemProblem
from edgeblock.netfilter.checks import queues
from edgeblock.notify import notify, watchdog_seconds

RECORDING = 0.25        # seconds between two looks at what the ledger is to say
ENDING = 1.0            # seconds that a daemon before us may take to end


class Supervisor:
    """Everything happens in the event loop's thread but the changing of kernel rules. `kept` are the files that the
    service manager has kept for us, by their names."""

    def __init__(self, config: Config, journal: Journal, kept: dict[str, int], compiler: Compiler) -> None:
        self.config = config
        self.log = journal.log
        self.warnings = checks.check(config)          # what can never work is refused before anything starts
        first, last = queues(config)
        board = Board(last - first + 1)
        self.tasks = Tasks(self._stop)
        self.counts = Counts(config, self.log)
        self.workers = Workers(config, journal, board, self.tasks, kept, self.counts.take)
        self.kernel = Kernel(config, self.log, last - first + 1, self.tasks)
        self.impact = Impact(config, self.log, last - first + 1, self.workers)
        self.in_force = InForce(board, self.log, config.rules.key.parent)
        self.outcomes = Outcomes(config.rules, self.log, lambda: self.workers.have_rules,
                                 lambda: self.kernel.addresses.are_kept, lambda: self.status.capacity(),
                                 left_by(config))
        self.windows = Windows(self.log, time.time())
        self.state = State(self.log, self._tell_state)
        self.fetcher = Fetcher(config.fetch)
        self.recorder = Recorder(config, self.log, Sources(
            lambda: self.workers.have_rules, lambda: self.kernel.addresses.are_kept, lambda: self.state.causes,
            lambda: (self.canary.rounds, self.canary.results), self._bypasses,
            lambda: {slot.queue: slot.restarts for slot in self.workers.slots}, board.unread,
            lambda file: self.reload.renamed(file), self.fetcher.status))
        self.reload = Reload(config, compiler, self.log, self.tasks, self.in_force, self.kernel, self.workers,
                             self.outcomes, self.windows, self.recorder)
        self.canary = Canary(config, self.log, self.state, self.kernel.call, lambda: self.in_force.key,
                             lambda: self.kernel.addresses.are_probed)
        self.status = Status(config, journal, board, self.workers, self.kernel, self.in_force, self.state,
                             self.canary, self.reload.proof, self.impact, self.outcomes, self.recorder, self.counts,
                             self.fetcher)
        self.task: asyncio.Task[int] | None = None
        self.ready = False
        self.stopping = False
        self.handing_over = False

    async def serve(self) -> int:
        """Starts, serves, stops; 0 after a signal. Raises what made it impossible to start or go on."""
        loop = asyncio.get_running_loop()
        self.task = task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload.ask)
        loop.add_signal_handler(signal.SIGUSR2, self._hand_over)
        if self.config.ruleset.absent == "open":
            loop.call_later(HOLDING, self.workers.let_pass)
        async with AsyncExitStack() as stack:
            try:
                try:
                    await self._start(stack)
                except (OSError, RuntimeError) as problem:      # RuntimeError: no thread is to be had
                    why = getattr(problem, "strerror", None) or problem
                    raise SystemProblem(f"the daemon cannot start: {why}; it needs some processes and "
                                        "a hundred open files (ulimit, or LimitNOFILE and TasksMax)") from None
                await self._keep_rules()
            except asyncio.CancelledError:
                task.uncancel()     # else every timeout from here on would count as another one
            finally:
                notify(STOPPING="1")
                # What is undone from here on is not to be interrupted: a second signal changes nothing.
                self._stop_replacing()
        if self.tasks.failure is not None:
            raise self.tasks.failure
        if self.ready:
            self.log.info("counters", **self.status.counters())
        self.log.info("stopped")
        return 0

    async def _start(self, stack: AsyncExitStack) -> None:
        # Undone in reverse: rules of the kernel first, so that the queues run dry before they are let go.
        config, kernel, workers, reload, canary = self.config, self.kernel, self.workers, self.reload, self.canary
        await self._take_turn(stack)
        self.recorder.begin()
        stack.callback(lambda: self.recorder.end(self.handing_over))
        stack.callback(kernel.close)
        stack.push_async_callback(kernel.remove_left)
        stack.callback(lambda: workers.let_queues_go(keep=self.handing_over))
        stack.push_async_callback(lambda: self.counts.close(self.handing_over))
        stack.push_async_callback(workers.end)
        stack.push_async_callback(reload.close)
        self.impact.prepare()
        await reload.open()
        kernel.begin_stage()
        stack.push_async_callback(self._close_stage)
        await workers.begin()
        loaded = await reload.begin()
        await kernel.await_stage()
        if kernel.stage is not None:
            workers.give("stage1", kernel.stage.memory(), places=kernel.stage.places, sample=kernel.stage.sample,
                         secret=kernel.stage.secret)
        stack.push_async_callback(self.impact.close)
        await self.impact.begin(kernel.stage is not None)
        await reload.put_in_force(loaded)
        answers = {"status": self.status.status, "canary": canary.ask, "impact": self.impact.ask}
        control = Control(config.daemon.control, answers,
                          {"check": self.in_force.check}, config.daemon.control_group)
        stack.push_async_callback(control.close)
        stack.push_async_callback(give_up, self.tasks.go_on(self._look_after_workers()))
        stack.push_async_callback(give_up, self.tasks.go_on(self.impact.keep()))
        stack.push_async_callback(give_up, self.tasks.go_on(self.counts.keep(self.status.seen)))
        await workers.await_bound()
        await control.open()
        if config.metrics.listen:
            from edgeblock.daemon.metrics import MetricsServer  # 3 MB that others need not have

            server = MetricsServer(config.metrics.listen, self.status.metrics, door.prepare(config.metrics))
            stack.push_async_callback(server.close)
            await server.open()
        if config.ruleset.install:
            await self._install(stack)
        stack.push_async_callback(give_up, self.tasks.go_on(self._keep_record()))   # before that nothing is in force
        self.status.vigil = vigil = Vigil(config, self.log, self.state, kernel.call, kernel.stage, kernel.backend,
                                          workers.unworked, kernel.addresses.look)
        await vigil.begin()
        stack.push_async_callback(give_up, self.tasks.go_on(vigil.keep()))
        stack.push_async_callback(give_up, self.tasks.go_on(kernel.addresses.keep_counting()))
        stack.push_async_callback(give_up, self.tasks.go_on(kernel.addresses.keep_time()))
        stack.callback(self.outcomes.close)
        stack.push_async_callback(give_up, self.tasks.go_on(self.outcomes.keep()))
        stack.push_async_callback(give_up, self.tasks.go_on(self.windows.keep(self._turn)))
        stack.push_async_callback(canary.remove)
        stack.push_async_callback(give_up, self.tasks.go_on(canary.keep()))
        self._say_started()
        notify(READY="1", STATUS=self.status.summary())
        self.ready = True
        workers.serve()
        give_back()

    async def _take_turn(self, stack: AsyncExitStack) -> None:
        # Before any list is read: who starts a second daemon hears of it at once. One that was killed may be ending.
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ENDING
        while True:
            try:
                self.workers.look_for_others()
                claim = self.kernel.claim() if self.config.ruleset.install else None
                break
            except SystemProblem:
                if loop.time() > deadline:
                    raise
            await asyncio.sleep(ENDING / 20)
        if claim is not None:
            stack.enter_context(claim)
            stack.push_async_callback(give_up, self.tasks.go_on(greet(claim)))

    async def _install(self, stack: AsyncExitStack) -> None:
        stack.push_async_callback(self._remove_rules)
        if self.kernel.stage is None:
            self.workers.forget("stage1")
        if not await self.kernel.install():
            self.workers.forget("stage1")       # before anything else: a worker to come would be told of closed files
            await self.kernel.install()

    def _say_started(self) -> None:
        for warning in self.warnings:
            self.log.warning("configuration", problem=warning)
        stage = self.kernel.stage
        if stage is not None and stage.note:
            self.log.warning("first stage", problem=stage.note)
        if self.kernel.stage_problem:
            self.log.warning("first stage off; every new flow goes to the queue", problem=self.kernel.stage_problem)
        self.log.info("started", version=edgeblock.__version__, queue=self.config.queue.number,
                      workers=len(self.workers.slots), backend=self.kernel.backend, stage1=stage is not None,
                      tracking=self.config.ruleset.tracking, marks_by_verdict=self.workers.marks_by_verdict,
                      **self.in_force.summary())

    async def _keep_rules(self) -> None:
        """Has the lists taken in whenever files are complete, when one expires, and when asked to."""
        while True:
            asked = await self.reload.due()
            notify(RELOADING="1")
            await self.reload.run(asked)
            notify(READY="1", STATUS=self.status.summary())

    async def _look_after_workers(self) -> None:
        """Several times in the time after which one counts as hung."""
        loop = asyncio.get_running_loop()
        watchdog, fed = watchdog_seconds(), 0.0
        while True:
            now = loop.time()
            well = await self.workers.look(now)
            if watchdog and well and now - fed >= watchdog / 3:
                notify(WATCHDOG="1")
                fed = now
            self.status.tell_unlogged(now)
            self.kernel.hold()
            await asyncio.sleep(self.workers.pause)

    async def _turn(self, turns: dict[str, Turn]) -> None:
        """Windows of these lists have opened or closed."""
        self.outcomes.turn(turns)
        self.recorder.turn(turns)

    async def _keep_record(self) -> None:
        while True:
            self.recorder.look()
            await asyncio.sleep(RECORDING)

    def _bypasses(self) -> list[str]:
        return [one.kind for one in self.status.vigil.bypasses] if self.status.vigil else []

    # ---- how it ends

    def _stop(self) -> None:
        if not self.stopping and self.task:
            self._stop_replacing()
            self.task.cancel()

    def _stop_replacing(self) -> None:
        self.stopping = True
        self.workers.stop_replacing()

    def _hand_over(self) -> None:
        self.handing_over = True

    async def _remove_rules(self) -> None:
        if not self.handing_over:
            await self.kernel.remove()

    async def _close_stage(self) -> None:
        await self.kernel.close_stage(keep=self.handing_over)

    def _tell_state(self) -> None:
        if self.ready:
            notify(STATUS=self.status.summary())
