"""One worker: a queue, an engine and an event loop.

In: a Config. Out: packets judged until SIGTERM or SIGINT; then the kernel rules go first, what the kernel had
delivered is answered, and the counters are logged. SIGHUP, or a change in the rules directory, loads the lists anew:
the engine gets a new matcher between two packets, or keeps the old one and the log says why. Never here: a packet
that waits for a file, a program or a reader of the log.
"""

import asyncio
import gc
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any, TextIO

import uvloop

import edgeblock
from edgeblock.config import Config
from edgeblock.core.decision import Decision
from edgeblock.daemon import rules
from edgeblock.daemon.control import Control
from edgeblock.daemon.journal import Journal
from edgeblock.daemon.notify import notify
from edgeblock.enforce import replies
from edgeblock.enforce.inject import Injector
from edgeblock.engine import make_engine
from edgeblock.errors import EdgeblockError, ListError, SystemProblem
from edgeblock.netfilter import ruleset
from edgeblock.netfilter.marks import marks
from edgeblock.source.nfqueue import QueueReader

# Python hands the interpreter from thread to thread this often; packets wait so long for it at most.
SWITCH_SECONDS = 0.0005

# An answer of several segments is sent once more after so long. A client that has got a part of it acknowledges that
# part and waits; it does not ask again, as one does that has got nothing. No more of them wait than this.
REPEAT_SECONDS = 0.4
MAX_REPEATS = 4096

# A list that has expired stays until the lists can be loaded; they are tried again so many seconds later.
EXPIRY_RETRY = 60.0


def run(config: Config, log: TextIO = sys.stdout) -> int:
    """The daemon, until a signal ends it; the exit status. EdgeblockError if it cannot start or go on."""
    sys.setswitchinterval(SWITCH_SECONDS)
    with Journal(log, config.privacy, config.daemon.log_blocks) as journal:
        return uvloop.run(Worker(config, journal).serve())


class Worker:
    """What `run` runs. Everything happens in the event loop's thread but the changing of kernel rules."""

    def __init__(self, config: Config, journal: Journal) -> None:
        self.config = config
        self.journal = journal
        self.log = journal.log
        self.started = time.monotonic()
        self.verdicts: Counter[tuple[str, str]] = Counter()     # names by list and action
        self.expires: float | None = None      # when lists are to be loaded because one expires
        self.loads = Counter(loaded=0, refused=0)
        self.answers = replies.prepare(config.reply)
        self.mark_bits = marks(config.ruleset.mark_mask)
        self.reload_now = asyncio.Event()
        self.broken: SystemProblem | None = None
        self.failures_told = 0
        self.repeats = 0
        self.ready = False
        self.stopping = False

    async def serve(self) -> int:
        """Starts, serves, stops; 0 after a signal. Raises what made it impossible to start or go on."""
        self.loop = asyncio.get_running_loop()
        self.task = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self._stop)
        self.loop.add_signal_handler(signal.SIGHUP, self.reload_now.set)
        async with AsyncExitStack() as stack:
            try:
                await self._start(stack)
                await self._keep_rules()
            except asyncio.CancelledError:
                if self.broken:
                    raise self.broken from None
            finally:
                notify(STOPPING="1")
                # What is undone from here on is not to be interrupted: a second signal changes nothing.
                self.stopping = True
        if self.ready:
            self.log.info("counters", **self.counters())
        self.log.info("stopped")
        return 0

    def counters(self) -> dict[str, Any]:
        """Everything that is counted, nested by who counts it."""
        blocked: dict[str, dict[str, int]] = {}
        for (name, action), count in sorted(self.verdicts.items()):
            blocked.setdefault(name, {})[action] = count
        return {
            "uptime": int(time.monotonic() - self.started),
            "queue": self.reader.counters(),
            "engine": self.engine.counters(),
            "matched": blocked,
            "replies": {"sent": self.injector.sent, "failed": self.injector.failed},
            "rules": {"lists": self.rules.lists, "entries": self.rules.entries, **self.loads},
            "log": {"unlogged": self.journal.unlogged, "lost": self.journal.lost},
        }

    def status(self) -> dict[str, Any]:
        """The answer to `edgeblock status`: the counters, and what is running."""
        return {"version": edgeblock.__version__, "queue_number": self.config.queue.number,
                "rules_digest": self.rules.digest, **self.counters()}

    # ---- start and stop

    async def _start(self, stack: AsyncExitStack) -> None:
        # Undone in reverse: rules of the kernel first, so that the queue runs dry before it is let go.
        config = self.config
        self.injector = stack.enter_context(Injector(config.ruleset.inject_mark))
        self.sight = rules.look(config.rules.directory)
        try:
            self._take(await rules.load(config.rules))
        except ListError as problem:
            raise ListError(self._loggable(problem)) from None
        self.engine = make_engine(config, self.rules.matcher)
        control = Control(config.daemon.control, {"status": self.status})
        stack.push_async_callback(control.close)
        bits = self.mark_bits
        self.reader = QueueReader(
            config.queue.number, self.engine, self.decide, length=config.queue.length, buffer=config.queue.buffer,
            fail_open=config.queue.overload == "open", marks=(bits.mask, bits.done, bits.http, bits.blocked))
        stack.callback(self._release_queue)
        self.loop.add_reader(self.reader.fileno(), self._drain)
        await control.open()
        backend = None
        if config.ruleset.install:
            # One thread, so that an `apply` that is under way when a signal comes is over before `remove` begins.
            helper = stack.enter_context(ThreadPoolExecutor(1, "ruleset"))
            stack.push_async_callback(self._call, helper, ruleset.remove)
            backend = await self._call(helper, ruleset.apply, config)
        gc.collect()
        gc.freeze()
        self.log.info("started", version=edgeblock.__version__, queue=config.queue.number, backend=backend,
                      marks_by_verdict=self.reader.marks_by_verdict, **self._rules_in_force())
        notify(READY="1", STATUS=self._summary())
        self.ready = True

    def _release_queue(self) -> None:
        self.loop.remove_reader(self.reader.fileno())
        if self.broken is None:
            self.reader.close()

    async def _call(self, helper: ThreadPoolExecutor, work: Callable[..., Any], *arguments: Any) -> Any:
        return await self.loop.run_in_executor(helper, work, *arguments)

    def _stop(self) -> None:
        if not self.stopping and self.task:
            self.stopping = True
            self.task.cancel()

    # ---- packets

    def _drain(self) -> None:
        try:
            self.reader.drain()
        except OSError as problem:      # the socket is broken: nothing can be answered any more
            self.loop.remove_reader(self.reader.fileno())
            self.broken = SystemProblem(str(problem))
            self._stop()

    def decide(self, packet: bytes, decision: Decision) -> None:
        """What QueueReader calls for a packet that completed a name or is owed an answer."""
        for name in decision.names:
            if name.action != "accept":
                self.verdicts[name.list or "policy", name.action] += 1
        if decision.reply:
            answer = replies.build(packet, decision, self.answers)
            self.injector.send(answer.to_client)
            self.injector.send(answer.to_server)
            if len(answer.to_client) > 1 and self.repeats < MAX_REPEATS:
                self.repeats += 1
                self.loop.call_later(REPEAT_SECONDS, self._repeat, answer.to_client)
        self.journal.blocked(time.monotonic(), packet, decision.names)

    def _repeat(self, packets: list[bytes]) -> None:
        self.repeats -= 1
        self.injector.send(packets)

    # ---- rules

    async def _keep_rules(self) -> None:
        """Loads the lists whenever they have changed and are still again, when one expires, and when asked to."""
        seen = self.sight
        while True:
            try:
                await asyncio.wait_for(self.reload_now.wait(), rules.PAUSE)
            except TimeoutError:
                asked = False
            else:
                asked = True
                self.reload_now.clear()
            self._tick()
            before, seen = seen, rules.look(self.config.rules.directory)
            expired = self.expires is not None and time.time() >= self.expires
            if asked or expired or (seen == before and seen != self.sight):
                self.sight = seen
                await self._reload()

    async def _reload(self) -> None:
        notify(RELOADING="1")
        began = time.monotonic()
        try:
            loaded = await rules.load(self.config.rules)
        except EdgeblockError as problem:
            self.loads["refused"] += 1
            if self.expires is not None:
                self.expires = max(self.expires, time.time() + EXPIRY_RETRY)
            self.log.error("rules refused; those in force stay", problem=self._loggable(problem))
        else:
            self._take(loaded)
            self.engine.matcher = loaded.matcher
            self.log.info("rules loaded", seconds=round(time.monotonic() - began, 3), **self._rules_in_force())
        notify(READY="1", STATUS=self._summary())

    def _take(self, loaded: rules.Loaded) -> None:
        self.rules = loaded
        self.expires = loaded.expires
        self.loads["loaded"] += 1

    def _loggable(self, problem: EdgeblockError) -> str:
        return str(problem) if self.config.privacy.names else rules.without_names(str(problem),
                                                                                  self.config.rules.directory)

    def _rules_in_force(self) -> dict[str, Any]:
        return {"lists": self.rules.lists, "entries": self.rules.entries, "digest": self.rules.digest}

    def _summary(self) -> str:
        return f"queue {self.config.queue.number}: {self.rules.entries} entries of {self.rules.lists} lists in force"

    def _tick(self) -> None:
        self.journal.tick(time.monotonic())
        failures = self.reader.failures
        if failures != self.failures_told:
            self.log.error("answers failed", count=failures - self.failures_told, problem=self.reader.failure)
            self.failures_told = failures
