"""The daemon's first process: it owns the rules, the kernel ruleset, the control socket, the metrics and the workers.

In: a Config. Out: workers that judge packets until SIGTERM or SIGINT; then the kernel rules go first, what the kernel
had delivered is answered, and the counters are logged. SIGHUP, or a change in the rules directory, has the lists that
changed compiled: every worker gets the new snapshot between two packets, and the log says what became of each list.

A queue is its open socket, which the supervisor holds, and has the service manager hold: whoever reads it may end,
and packets wait for the next one. SIGUSR2 before SIGTERM leaves the kernel rules in force for the next daemon.

A worker that ends is replaced at once, however often, by a spare that has been waiting with everything but a queue;
one whose packet path is silent for [daemon] hang seconds is killed first. The next one is told whether a packet may
have been the cause. Never here: a packet.
"""

import asyncio
import json
import os
import pickle
import signal
import socket
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any, TextIO

import uvloop

import edgeblock
from edgeblock.blocklist.keys import Key
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.rules import explain_alone
from edgeblock.config import Config
from edgeblock.daemon import checks, rules
from edgeblock.daemon.board import Board
from edgeblock.daemon.canary import Canary
from edgeblock.daemon.claim import claim_namespace, greet
from edgeblock.daemon.control import Control
from edgeblock.daemon.journal import Journal
from edgeblock.daemon.metrics import MetricsServer, exposition
from edgeblock.daemon.notify import notify, watchdog_seconds
from edgeblock.daemon.process import hide_memory, kill, start
from edgeblock.daemon.vigil import State, Vigil
from edgeblock.daemon.watch import CROWD, Looker, Watch
from edgeblock.errors import EdgeblockError, ListError, SystemProblem
from edgeblock.netfilter import ruleset
from edgeblock.netfilter.pins import pin_path, program_path
from edgeblock.netfilter.rules import queues
from edgeblock.netfilter.stage1 import Stage
from edgeblock.source import begun
from edgeblock.source.nfqueue import BOARD, TABLE, is_table_given, kernel_queues, losses

PAUSE = 0.4             # seconds between two looks at the rules directory, for what inotify cannot see
QUIET = 0.05            # seconds without a change after which a burst of them counts as over
FLOOD = 0.02            # seconds between two reads of events where they come faster than they are read
BURST = 0.3             # seconds that a burst may last until those that came first are taken
RETRY = 0.5             # seconds until the lists are tried again; doubled where it fails again
RETRY_MAX = 60.0
REFUSALS_SAID = 100     # of one load that the log says line by line

BACK_OFF = 0.1          # seconds until another spare is started; doubled for each that ended before it had a queue
BACK_OFF_MAX = 30.0
SPARES = 5              # that may end as soon as they are started before a daemon gives up that is starting itself
FORGIVEN = 10.0         # a worker that has lasted for so many seconds is no longer failing again and again
MORE_SPARES = 2         # where one fails again and again: two that end within one's start leave no queue alone
TAKING = 5.0            # seconds that a worker may take to bind its queue, a hundred times what it takes
HOLDING = 15.0          # seconds that packets may wait for a new daemon or worker, where they may pass without one
WAITING = 1.0           # seconds that they may wait for a worker where none can be started
UNANSWERED = 5.0        # seconds that a queue may be without a worker before the service manager is to know
CRASHES = {-number for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT,
                                  signal.SIGSYS, signal.SIGTRAP, signal.SIGXCPU)}      # statuses: nobody sends these
STOPPING = 3.0          # seconds that workers may take to answer what they hold and end
SPREADING = 10.0        # seconds that new rules may take to reach every worker
UNWORKED = 1.0          # seconds that a queue may be without a worker before the box says that it does not filter
COUNTING = 1.0          # seconds for which the kernel rules' counters are not asked for again
ABSENT = 0.5            # seconds after which a daemon counts as gone where nothing may pass without it
SUMMARY = 60.0          # seconds between two lines about what was not logged


def run(config: Config, log: TextIO = sys.stdout, kept: dict[str, int] | None = None) -> int:
    """The daemon, until a signal ends it; the exit status. EdgeblockError if it cannot start or go on.

    `kept` are the files that the service manager has kept for us, by their names.
    """
    hide_memory()
    day = config.daemon.log_megabytes * 1_000_000
    with Journal(log, config.privacy, config.daemon.log_blocks, day_bytes=day) as journal:
        try:
            return uvloop.run(Supervisor(config, journal, kept or {}).serve())
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
                signal.signal(number, signal.SIG_IGN)       # it is ending already


@dataclass(eq=False)
class Child:
    """A worker process; `link` is the socket to it, `serial` the rules it has, `slot` what it works for."""

    process: asyncio.subprocess.Process
    link: socket.socket
    serial: int = 0
    slot: "Slot | None" = None
    bound: bool = False
    broken: bool = False            # its queue's socket is
    problem: str = ""
    blame: str = ""                 # of the packet in its hand, where that is known before it has ended
    retired: bool = False           # not needed any more


@dataclass(eq=False)
class Slot:
    """A queue to be served by `child`."""

    row: int
    queue: int
    cpu: int | None
    child: Child | None = None
    file: int = -1                      # the queue's socket, open
    marks_by_verdict: bool = False
    counts: tuple[int, int] = (0, 0)    # losses of the socket before our time
    since: float = 0.0                  # when the worker took the queue, or ended
    failures: int = 0                   # of workers that had not lasted, one after the other
    blame: str = "nothing"              # how sure it is that the packet in hand has ended the worker
    progress: tuple[int, int] = (0, 0)  # of the worker: heartbeat and hand, as last seen
    moved: float = 0.0                  # when that had changed,
    spent: float = 0.0                  # and the processor time that the worker had used by then
    restarts: int = 0
    hangs: int = 0


class Supervisor:
    """What `run` runs. Everything happens in the event loop's thread but the changing of kernel rules."""

    def __init__(self, config: Config, journal: Journal, kept: dict[str, int]) -> None:
        self.config = config
        self.journal = journal
        self.log = journal.log
        self.started = time.monotonic()
        self.expires: float | None = None      # when lists are to be loaded because one expires
        self.compiler = rules.Compiler(config.rules)
        self.rules: rules.Loaded | None = None
        self.refused: dict[str, dict[str, Any]] = {}
        self.problem = ""                      # why the lists could not be looked at
        self.load_failures = 0
        self.lane: dict[str, dict[str, Any]] = {}       # lists that are long or slow: waiting, or refused
        self.spent: defaultdict[int, float] = defaultdict(float)    # seconds that those of each owner have taken
        self.reader: asyncio.Task[None] | None = None   # reads them
        self.loads = Counter(loaded=0, refused=0)
        self.warnings = checks.check(config)          # what can never work is refused before anything starts
        first, last = queues(config)
        cpus = sorted(os.sched_getaffinity(0))
        self.board = Board(last - first + 1)
        self.begun = begun.create(last - first + 1, config.limits.flows)
        self.settings = memory_file(pickle.dumps(config))       # no message is too small for them
        self.slots = [Slot(row, queue, cpus[row % len(cpus)] if last > first else None)
                      for row, queue in enumerate(range(first, last + 1))]
        self.children: set[Child] = set()
        self.serial = 0
        self.asked: tuple[str, ListMatcher] | None = None       # a digest, and what answers questions about it
        self.files: tuple[int, ...] | None = None       # the snapshot, notes for who reads it, what it lies over
        self.notes = -1                        # those of the next one, still empty
        self.stage: Stage | None = None        # the first stage, where there is one
        self.stage_problem = ""                # why there is none
        self.tasks: set[asyncio.Task[Any]] = set()
        self.reload_now = asyncio.Event()
        self.stirred = asyncio.Event()         # the rules directory is to be looked at
        self.arrived = False                   # a file in it was completed since it was
        self.due: float | None = None          # when the lists are to be tried again
        self.changed = asyncio.Event()         # something about a worker has
        self.marks_by_verdict = True
        self.backend: str | None = None         # of the kernel rules that we have applied
        self.kernel_rules: dict[str, dict[str, int]] = {}
        self.rules_counted = -COUNTING
        self.last_look = 0.0
        self.spare_due = 0.0                   # when the next spare may be started
        self.spares_failed = 0                 # that have ended without a task since one was ready for it
        self.spare_problem = ""                # of the last of them
        self.worker_problem = ""               # what a worker has said last of why it ends
        self.failure: BaseException | None = None       # a fault of ours that nobody else would notice
        self.unlogged_told = 0
        self.summary_due = 0.0
        self.state = State(self.log, self._tell_state)
        self.vigil: Vigil | None = None
        self.canary = Canary(config, self.log, self.state, self._call, self._key)
        self.ready = False
        self.stopping = False
        self.handing_over = False
        self.rules_left = False                # although they should be gone
        self._take_kept(kept)

    async def serve(self) -> int:
        """Starts, serves, stops; 0 after a signal. Raises what made it impossible to start or go on."""
        self.loop = asyncio.get_running_loop()
        self.task = task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self._stop)
        self.loop.add_signal_handler(signal.SIGHUP, self._ask_to_reload)
        self.loop.add_signal_handler(signal.SIGUSR2, self._hand_over)
        if self.config.ruleset.absent == "open":
            self.loop.call_later(HOLDING, self._let_pass)
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
                self.stopping = True
        if self.failure is not None:
            raise self.failure
        if self.ready:
            self.log.info("counters", **self.counters())
        self.log.info("stopped")
        return 0

    def counters(self, rows: Iterable[int] | None = None) -> dict[str, Any]:
        """Everything that is counted, nested by who counts it, over all workers."""
        counted = self.board.counters(range(len(self.slots)) if rows is None else rows)
        kernel = kernel_queues()
        waiting = sum(kernel.get(slot.queue, {}).get("waiting", 0) for slot in self.slots)
        return {
            "uptime": int(time.monotonic() - self.started),
            "queue": {**counted["queue"], "waiting": waiting},
            "engine": counted["engine"],
            "matched": counted["matched"],
            "visits": counted["visits"],
            "replies": counted["replies"],
            "stage1": self.stage.counters() if self.stage is not None else {},
            "rules": {"lists": len(self._lists()), "entries": self._entries(), **self.loads},
            "log": {"unlogged": counted["log"]["unlogged"] + self.journal.over_day,
                    "lost": counted["log"]["lost"] + self.journal.lost},
        }

    async def status(self) -> dict[str, Any]:
        """The answer to `edgeblock status`: the counters, and what is running."""
        await self._count_rules()
        return {"version": edgeblock.__version__, "queue_number": self.config.queue.number,
                "overload": self.config.queue.overload, "absent": self.config.ruleset.absent,
                "tracking": self.config.ruleset.tracking,
                "rules_digest": self.rules.content if self.rules else "",
                "rules_age": int(time.time() - self.rules_since), "rules_problem": self.problem,
                "lists": self.lists(),
                "vigil": self.vigil.status() if self.vigil else {}, "canary": self.canary.status(),
                **self.counters(), "workers": self.workers(), "kernel_rules": self.kernel_rules,
                "latency": {name: self.board.histogram(name) for name in ("judge", "lookup", "verdict")}}

    def check(self, question: str) -> dict[str, Any]:
        """The answer to `edgeblock check --live NAME`: what the snapshot that the workers have says of a name."""
        try:
            name = json.loads(question)
            if not isinstance(name, str):
                raise ValueError
        except (ValueError, RecursionError):
            return {"error": "a name to check is a string in JSON"}
        if self.files is None or self.rules is None:
            return {"error": "no lists are loaded yet"}
        if self.asked is None or self.asked[0] != self.rules.digest:
            try:
                snapshot = rules.map_stacked(self.files[0], self._base_file(), self.rules.key)
            except ListError as problem:
                return {"error": str(problem)}
            self.asked = self.rules.digest, ListMatcher(snapshot)
        return {**explain_alone(self.asked[1], name).as_dict(), "snapshot": self.rules.digest}

    def lists(self) -> dict[str, dict[str, Any]]:
        """What is in force of each list, and why a newer version is not."""
        told = {one["name"]: {"entries": one["entries"], "file": one["file"], "expired": one["expired"],
                              "refused": ""} for one in self._lists()}
        for name, one in self.refused.items():
            told.setdefault(name, {"entries": 0, "file": one["file"], "expired": False})["refused"] = one["told"]
        return told

    def workers(self) -> dict[str, dict[str, Any]]:
        """Each worker's figures, by its queue."""
        kernel, now = kernel_queues(), time.monotonic_ns()
        told = {}
        for slot in self.slots:
            counted = self.board.counters([slot.row])
            queue, depth = counted["queue"], kernel.get(slot.queue, {})
            child = slot.child
            told[str(slot.queue)] = {
                "pid": child.process.pid if child else 0,
                "cpu": "any" if slot.cpu is None else slot.cpu,
                "state": "running" if child and child.bound else "starting" if child else "failed",
                "beat": round(max(0, now - self.board.rows[slot.row][BOARD["heartbeat"]]) * 1e-9, 3),
                "restarts": slot.restarts, "hangs": slot.hangs,
                "packets": queue["packets"], "passed": queue["passed"], "dropped": queue["dropped"],
                "lost": queue["lost"], "waiting": depth.get("waiting", 0), "full": queue["full"],
                "kernel_dropped": depth.get("queue_dropped", 0), "user_dropped": depth.get("user_dropped", 0),
                "flows": counted["engine"]["table_flows"], "bytes": counted["engine"]["table_bytes"]}
        return told

    async def metrics(self) -> bytes:
        """The answer to Prometheus."""
        return exposition(await self.status(), self.board, self.places)

    async def _count_rules(self) -> None:
        """Asks the kernel what its rules have counted. Programs are run for it, so not for every question."""
        now = self.loop.time()
        if now < self.rules_counted + COUNTING:
            return
        self.rules_counted = now
        try:
            counted = await self._call(ruleset.counters, self.backend)
        except SystemProblem:       # they have been taken away, or no program is there that tells
            counted = {}
        self.kernel_rules = {name: seen._asdict() for name, seen in counted.items()}

    # ---- start and stop

    async def _start(self, stack: AsyncExitStack) -> None:
        # Undone in reverse: rules of the kernel first, so that the queues run dry before they are let go.
        config = self.config
        # One thread, so that an `apply` that is under way when a signal comes is over before `remove` begins.
        self.helper = stack.enter_context(ThreadPoolExecutor(1, "ruleset"))
        stack.push_async_callback(self._remove_rules_left)
        stack.callback(self._let_queues_go)
        stack.push_async_callback(self._end_workers)
        stack.push_async_callback(self.compiler.close)
        await self.compiler.prepare()
        self.watch = Watch(config.rules.directory)
        stack.callback(self.watch.close)
        if self.watch.fd >= 0:
            self.loop.add_reader(self.watch.fd, self._see)
            stack.callback(self.loop.remove_reader, self.watch.fd)
        # The kernel takes half a second to look through the program; meanwhile the rest goes on. The thread is kept:
        # the event loop's own would need another one to end, and at an end there may be none to be had.
        self.beside = ThreadPoolExecutor(1, "stage1")
        loading = self.loop.run_in_executor(self.beside, self._load_stage)
        stack.push_async_callback(self._close_stage, loading)
        self.looker = Looker(self.watch)
        stack.callback(self.looker.close)
        self.sight = await self.looker.look()
        for _ in range(len(self.slots) + 1):
            await self._spawn()
        loaded = await self._load()
        await asyncio.shield(loading)
        for child in self.children:
            self._tell_stage(child)
        await self._offer(loaded)
        self._take(loaded)
        stack.push_async_callback(self._end_reader)
        self._line_up(loaded)
        control = Control(config.daemon.control, {"status": self.status, "canary": self.canary.ask},
                          {"check": self.check})
        stack.push_async_callback(control.close)
        stack.push_async_callback(give_up, self._go_on(self._watch()))
        while not all(slot.child and slot.child.bound for slot in self.slots):
            if self.worker_problem:
                raise SystemProblem(self.worker_problem)
            if self.spares_failed >= SPARES:
                raise SystemProblem(f"workers end as soon as they are started: {self.spare_problem}")
            self.changed.clear()
            await self.changed.wait()
        await control.open()
        if config.metrics.listen:
            server = MetricsServer(config.metrics.listen, self.metrics)
            stack.push_async_callback(server.close)
            await server.open()
        if config.ruleset.install:
            self._claim_rules(stack)
            stack.push_async_callback(self._remove_rules)
            self.backend = await self._install()
        self.vigil = Vigil(config, self.log, self.state, self._call, self.stage, self.backend, self._unworked)
        await self.vigil.begin()
        stack.push_async_callback(give_up, self._go_on(self.vigil.keep()))
        stack.push_async_callback(self.canary.remove)
        stack.push_async_callback(give_up, self._go_on(self.canary.keep()))
        for warning in self.warnings:
            self.log.warning("configuration", problem=warning)
        if self.stage is not None and self.stage.note:
            self.log.warning("first stage", problem=self.stage.note)
        if self.stage_problem:
            self.log.warning("first stage off; every new flow goes to the queue", problem=self.stage_problem)
        self.log.info("started", version=edgeblock.__version__, queue=config.queue.number, workers=len(self.slots),
                      backend=self.backend, stage1=self.stage is not None, tracking=config.ruleset.tracking,
                      marks_by_verdict=self.marks_by_verdict, **self._rules_in_force())
        notify(READY="1", STATUS=self._summary())
        self.ready = True
        for slot in self.slots:
            self._keep(slot)

    def _claim_rules(self, stack: AsyncExitStack) -> None:
        # A second daemon would replace the kernel rules of the first, and take them away at its end.
        claim = claim_namespace()
        if claim is None:
            self.log.warning("another user's program has the name that edgeblock claims its kernel rules with")
            return
        stack.enter_context(claim)
        stack.push_async_callback(give_up, self._go_on(greet(claim)))

    # ---- queues that outlive whoever reads them

    def _take_kept(self, kept: dict[str, int]) -> None:
        """The sockets that the daemon before has left with the service manager."""
        wanted = {f"queue{slot.queue}": slot for slot in self.slots}
        for name, file in kept.items():
            stem, _, marking = name.partition("-")
            slot = wanted.get(stem)
            counts = losses(file, slot.queue) if slot else None
            if slot is None or counts is None or slot.file >= 0:
                os.close(file)
            else:
                slot.file, slot.marks_by_verdict, slot.counts = file, marking == "marks", counts

    def _keep(self, slot: Slot) -> None:
        if self.ready and slot.file >= 0:
            notify(FDSTORE="1", FDNAME=kept_name(slot), FDPOLL="0", file=slot.file)

    def _let_go(self, slot: Slot) -> None:
        """Nobody is there to read it: the kernel is to know."""
        if slot.file >= 0:
            notify(FDSTOREREMOVE="1", FDNAME=kept_name(slot))
            os.close(slot.file)
            slot.file, slot.counts = -1, (0, 0)

    def _let_pass(self) -> None:
        if not self.ready:
            for slot in self.slots:
                if slot.child is None:
                    self._let_go(slot)

    def _hand_over(self) -> None:
        self.handing_over = True

    def _let_queues_go(self) -> None:
        for slot in self.slots:
            if not (self.handing_over and self.ready):
                self._let_go(slot)

    async def _remove_rules(self) -> None:
        if not self.handing_over:
            try:
                await self._call(ruleset.remove)
            except SystemProblem as problem:
                self.rules_left = True
                self.log.error("kernel rules not removed; once more without workers", problem=str(problem))

    async def _remove_rules_left(self) -> None:
        if self.rules_left:             # where no process was to be had there may be one when ours have ended
            await self._call(ruleset.remove)

    def _load_stage(self) -> None:
        """The first stage, if it is wanted and can be had. Without it everything goes to the queue.

        Where it is to keep the flow marks it is needed: there is nothing to go back to.
        """
        wanted, config = self.config.ruleset.stage1, self.config
        keeps_marks = config.ruleset.tracking == "stage1"
        if wanted == "off" or not config.ruleset.install or wanted == "auto" and config.ruleset.backend == "nft":
            return
        try:
            if config.ruleset.backend == "nft":
                raise SystemProblem("first stage: nftables cannot ask it; use backend = \"iptables\" or \"auto\"")
            place = pin_path(config.queue.number)
            # Each worker remembers so many flows; the kernel as many as all of them.
            self.stage = Stage(config.limits.flows * len(self.slots), config.limits.idle, config.policies.ech,
                               marks=config.ruleset.marks if keeps_marks else 0,
                               kept=program_path(place, "marks") if keeps_marks else None,
                               shortcut=config.ruleset.shortcut, held=config.limits.hold)
            self.stage.pin(place)
        except SystemProblem as problem:
            if keeps_marks:
                raise SystemProblem(f"ruleset.tracking = \"stage1\": {problem}") from None
            if wanted == "on":
                raise
            if self.stage is not None:
                self.stage.close()
                self.stage = None
            self.stage_problem = str(problem)

    async def _close_stage(self, loading: "asyncio.Future[None]") -> None:
        with suppress(SystemProblem):
            await loading
        self.beside.shutdown()          # an offer that nobody waits for any more may be under way
        if self.stage is not None:
            self.stage.close(keep=self.handing_over)

    def _tell_stage(self, child: Child) -> None:
        if self.stage is not None:
            self._tell(child, {"do": "stage1", "places": self.stage.places}, self.stage.memory())

    async def _install(self) -> str:
        """The kernel rules; without the first stage where they cannot have it and need not."""
        if self.stage is not None:
            try:
                backend: str = await self._call(ruleset.apply, self.config, self.stage.pinned)
                return backend
            except SystemProblem as problem:
                if self.config.ruleset.stage1 == "on" or self.config.ruleset.tracking == "stage1":
                    raise
                self.stage_problem = str(problem)
                self.stage.close()
                self.stage = None
        return await self._call(ruleset.apply, self.config)     # type: ignore[no-any-return]

    async def _end_workers(self) -> None:
        self.stopping = True
        for child in self.children:
            self._tell(child, {"do": "stop"})
            if child.slot is None or not child.bound:
                kill(child.process)        # it holds nothing
        deadline = self.loop.time() + STOPPING
        while self.children and self.loop.time() < deadline:
            self.changed.clear()
            await wait(self.changed, 0.1)
        for child in self.children:
            kill(child.process)
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=STOPPING)

    async def _call(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await self.loop.run_in_executor(self.helper, work, *arguments)

    def _stop(self) -> None:
        if not self.stopping and self.task:
            self.stopping = True
            self.task.cancel()

    # ---- workers

    def _go_on(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Does it beside everything else. The daemon ends where it fails: nobody would notice that it is not done."""
        task = self.loop.create_task(work)
        task.add_done_callback(self._fail)
        return task

    def _fail(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (failure := task.exception()):
            self.failure = failure
            self._stop()

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = None
        try:
            files = theirs.fileno(), self.board.fd, self.begun, self.settings
            process = await start(
                "edgeblock.daemon.worker", str(os.getpid()), str(theirs.fileno()), str(self.board.fd),
                str(len(self.slots)), str(self.begun), str(self.settings), pass_fds=files,
                stdin=None if is_table_given() else asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE)
        finally:
            theirs.close()
            if process is None:     # none is to be had, or we are about to stop
                ours.close()
        ours.setblocking(False)
        child = Child(process, ours)
        self.children.add(child)
        self.loop.add_reader(ours.fileno(), self._hear, child)
        task = self._go_on(self._follow(child))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        if self.files and self.rules:
            self._tell_stage(child)
            self._tell(child, {"do": "rules", "serial": self.serial}, (*self.files, self.rules.key_fd))

    async def _follow(self, child: Child) -> None:
        """Passes its lines on, and sees to its end."""
        assert child.process.stdout is not None
        line = b"?"
        while line:
            try:
                line = await child.process.stdout.readline()
            except ValueError:          # longer than the journal's are; what is left of it is no line of theirs
                self.journal.lost += 1
                continue
            except OSError:             # its end comes as one
                break
            if line.startswith(b"{") and line.endswith(b"\n"):
                self.journal.relay(time.time(), line[:-1].decode("ascii", "backslashreplace"))
        status = await child.process.wait()
        with suppress(OSError):
            self._hear(child)
        self.loop.remove_reader(child.link.fileno())
        child.link.close()
        self.children.discard(child)
        slot = child.slot
        if slot is not None and slot.child is child:
            now = self.loop.time()
            slot.child = None
            slot.failures = 1 if now - slot.since > FORGIVEN else slot.failures + 1
            slot.since = now
            if child.bound:             # else what the one before had in hand is still there
                slot.blame = child.blame or ("certain" if status in CRASHES else "suspected")
            if child.broken or child.problem and not child.bound:       # nobody could go on with this socket
                self._let_go(slot)
            if not self.stopping:
                slot.restarts += 1
                self.log.error("worker ended", queue=slot.queue, pid=child.process.pid, status=status,
                               problem=child.problem or None, failures=slot.failures)
        elif slot is None and not self.stopping and not child.retired:
            self._put_off_spares(child.problem or f"ended with status {status}")
        if not self.stopping:
            self._assign()
        self.changed.set()

    def _tell(self, child: Child, order: dict[str, Any], files: tuple[int, ...] = ()) -> None:
        try:
            socket.send_fds(child.link, [json.dumps(order).encode()], list(files))
        except OSError:     # it is ending, has not read a hundred orders, or the kernel has no memory for this one
            kill(child.process)     # what has missed an order is not to go on without it

    def _hear(self, child: Child) -> None:
        while True:
            try:
                message, files, _, _ = socket.recv_fds(child.link, 1 << 16, 1)
            except BlockingIOError:
                return
            except OSError:
                message, files = b"", []
            if not message:
                self.loop.remove_reader(child.link.fileno())
                return
            said = json.loads(message)
            if "refused" in said:
                child.problem = self.worker_problem = said["refused"]
            child.broken = said.get("broken", child.broken)
            if "rules" in said:
                child.serial = said["rules"]
                self.spares_failed = 0
            if "bound" in said:
                child.bound = True
                if child.slot is not None:
                    child.slot.blame = "nothing"
                self.marks_by_verdict = said["marks_by_verdict"]
                self._have(child.slot, files, said["marks_by_verdict"])
            if not self.stopping:
                self._assign()
            self.changed.set()

    def _have(self, slot: Slot | None, files: list[int], marks_by_verdict: bool) -> None:
        """The socket that a worker has bound to its queue."""
        for file in files:
            if slot is None or slot.file >= 0:
                os.close(file)
            else:
                os.set_inheritable(file, False)     # a child that kept it would keep the queue when we let it go
                slot.file, slot.marks_by_verdict, slot.counts = file, marks_by_verdict, (0, 0)
                self._keep(slot)

    def _assign(self) -> None:
        """Queues without a worker get one that is ready."""
        now = self.loop.time()
        for slot in self.slots:
            if slot.child is not None:
                continue
            spare = next((child for child in self.children
                          if child.slot is None and child.serial and not child.problem and not child.retired), None)
            if spare is None:
                return
            slot.child, spare.slot, slot.since, slot.moved = spare, slot, now, now
            self.board.rows[slot.row][BOARD["heartbeat"]] = time.monotonic_ns()
            self._tell(spare, {"do": "queue", "row": slot.row, "queue": slot.queue, "cpu": slot.cpu,
                               "counts": slot.counts, "marks_by_verdict": slot.marks_by_verdict,
                               "blame": slot.blame},
                       (slot.file,) if slot.file >= 0 else ())

    async def _watch(self) -> None:
        """Looks after the workers, several times in the time after which one counts as hung."""
        hang = self.config.daemon.hang
        pause = min(0.1, hang / 4)
        watchdog, fed = watchdog_seconds(), 0.0
        while True:
            now = self.loop.time()
            late = now - self.last_look > 3 * pause     # it was us who stood still: nobody is judged by that
            self.last_look = now
            for slot in self.slots:
                self._see_progress(slot, now)
            # A queue whose worker fails again and again is no reason to end those that work.
            beating = all(self._is_answering(slot, min(hang, 0.7), now) for slot in self.slots
                          if slot.child or now - slot.since > UNANSWERED)
            silent = [slot for slot in self.slots if not self._is_answering(slot, hang, now)]
            if not late and not self.stopping:
                for slot in silent:
                    if slot.child:
                        self._end_hung(slot, hang)
                self._assign()
                # That none is ready yet is no reason to let packets pass: whoever ends workers would open the box.
                waiting = WAITING if self.spares_failed else HOLDING
                for slot in self.slots:
                    if self.ready and slot.child is None and now - slot.since > waiting:
                        self._let_go(slot)
                await self._keep_spares(now)
            if watchdog and beating and now - fed >= watchdog / 3:
                notify(WATCHDOG="1")
                fed = now
            self._tell_unlogged(now)
            if self.stage is not None and self.config.ruleset.absent == "closed":
                self.stage.hold(ABSENT)
            await asyncio.sleep(pause)

    def _put_off_spares(self, problem: str) -> None:
        self.spares_failed += 1
        self.spare_problem = problem
        pause = min(BACK_OFF * 2 ** min(self.spares_failed - 1, 10), BACK_OFF_MAX)
        self.spare_due = max(self.spare_due, self.loop.time() + pause)
        if self.ready:                         # else a start fails, and says why
            self.log.error("no spare worker", problem=problem, again_in=round(pause, 1))

    async def _keep_spares(self, now: float) -> None:
        idle = [child for child in self.children if child.slot is None and not child.retired]
        failing = [slot.failures for slot in self.slots if slot.failures > 1 and now - slot.since < FORGIVEN]
        wanted = 1 + sum(slot.child is None for slot in self.slots) + (MORE_SPARES if failing else 0)
        if len(idle) < wanted and now >= self.spare_due:
            self.spare_due = now + BACK_OFF
            try:
                await self._spawn()
            except OSError as problem:      # no process or file to be had now
                self._put_off_spares(problem.strerror or str(problem))
        elif len(idle) > wanted:
            idle[-1].retired = True
            kill(idle[-1].process)

    def _unworked(self) -> list[str]:
        """The queues whose packets nobody has read for a while, in words."""
        now, kernel = self.loop.time(), kernel_queues()
        readable = is_table_given() or os.access(TABLE, os.R_OK)
        told = []
        for slot in self.slots:
            if slot.child is None or not slot.child.bound:
                if now - slot.since > UNWORKED:
                    told.append(f"queue {slot.queue} has no worker")
            elif readable and slot.queue not in kernel:
                told.append(f"queue {slot.queue} is not bound in the kernel")
        return told

    def _see_progress(self, slot: Slot, now: float) -> None:
        row = self.board.rows[slot.row]
        seen = row[BOARD["heartbeat"]], row[BOARD["hand"]]
        if slot.child and seen != slot.progress:
            slot.progress, slot.moved = seen, now
            slot.spent = processor_seconds(slot.child.process.pid)

    def _is_answering(self, slot: Slot, hang: float, now: float) -> bool:
        """A worker that takes up packet after packet works, however long it does not come to ask for more."""
        if slot.child is None:
            return False
        silence = (time.monotonic_ns() - self.board.rows[slot.row][BOARD["heartbeat"]]) * 1e-9
        return min(silence, now - slot.moved) < (hang if slot.child.bound else TAKING)

    def _end_hung(self, slot: Slot, hang: float) -> None:
        """Kills it. Where it has used the processor all the time, what it has in hand is what keeps it."""
        child = slot.child
        assert child is not None
        busy = processor_seconds(child.process.pid) - slot.spent
        child.blame = "certain" if busy > hang / 5 else "suspected"
        slot.hangs += 1
        self.log.error("worker hangs", queue=slot.queue, pid=child.process.pid)
        kill(child.process)
        # Not judged twice while it dies.
        self.board.rows[slot.row][BOARD["heartbeat"]] = time.monotonic_ns()

    def _tell_unlogged(self, now: float) -> None:
        if now < self.summary_due:
            return
        self.summary_due = now + SUMMARY
        counted = self.board.counters(range(len(self.slots)))["log"]["unlogged"] + self.journal.over_day
        if counted > self.unlogged_told:
            self.log.info("blocks not logged", count=counted - self.unlogged_told,
                          limit=self.config.daemon.log_blocks)
            self.unlogged_told = counted

    # ---- rules

    async def _keep_rules(self) -> None:
        """Has the lists taken in whenever files are complete, when one expires, and when asked to."""
        seen = self.sight
        while True:
            await wait(self.stirred, PAUSE)
            self.stirred.clear()
            asked = self.reload_now.is_set()
            self.reload_now.clear()
            arrived = await self._settle()
            before, seen = seen, await self.looker.look()
            busy = self.watch.busy
            now = self.loop.time()
            again = self.due is not None and now >= self.due
            expired = self.expires is not None and time.time() >= self.expires
            names = (seen.keys() | self.sight.keys()) - busy
            changed = any(seen.get(name) != self.sight.get(name) for name in names) or arrived and CROWD in seen
            # What inotify has not seen counts when two looks agree: nobody says when it is complete.
            if asked or again or expired or changed and (arrived or seen == before):
                self.sight = {name: state for name, state in seen.items() if name not in busy} | {
                    name: self.sight[name] for name in busy & self.sight.keys()}
                await self._reload(asked)

    async def _settle(self) -> bool:
        """Whether a file was completed; waits for the end of a burst of them."""
        arrived, self.arrived = self.arrived, False
        until = self.loop.time() + BURST
        while arrived and self.loop.time() < until:
            await asyncio.sleep(QUIET)
            if not self.arrived:
                break
            self.arrived = False
        return arrived

    def _see(self) -> None:
        # Read at once, even while lists are being loaded: else the descriptor would stay ready, and the loop busy.
        if self.watch.read():
            self.arrived = True
            self.stirred.set()
        if self.watch.flooded:
            self.loop.remove_reader(self.watch.fd)
            self.loop.call_later(FLOOD, self._see_on)

    def _see_on(self) -> None:
        if self.watch.fd >= 0 and not self.stopping:
            self.loop.add_reader(self.watch.fd, self._see)

    def _ask_to_reload(self) -> None:
        self.reload_now.set()
        self.stirred.set()

    async def _load(self, afresh: bool = False) -> rules.Loaded:
        if self.notes < 0:      # first: where no file is to be had, nothing has changed yet
            self.notes = os.memfd_create("edgeblock")
        if afresh:
            self.lane = {name: one for name, one in self.lane.items() if "told" not in one}
        loaded = await self.compiler.load(self.watch.busy, self.rules.digest if self.rules else "", afresh, self.lane,
                                          self.rules.whole if self.rules else "")
        with suppress(OSError):     # no process to be had now; the next job asks again
            await self.compiler.prepare()
        if loaded.problem and not loaded.lists and not self.rules:
            let_go(loaded)
            raise ListError(loaded.problem)
        return loaded

    async def _end_reader(self) -> None:
        if self.reader is not None:
            await give_up(self.reader)

    async def _reload(self, asked: bool) -> None:
        notify(RELOADING="1")
        began = time.monotonic()
        self.due = None
        try:
            loaded = await self._load(afresh=asked)
            await self._offer(loaded)
            self._take(loaded)
        except (EdgeblockError, OSError) as problem:
            self.loads["refused"] += 1
            self.load_failures += 1
            self.problem = str(problem)
            self.expires = None         # the next try looks for itself
            self._try_again()
            self.log.error("rules not loaded; those in force stay", problem=self.problem)
        else:
            self._line_up(loaded)
            fresh = loaded.fd >= 0
            if fresh:
                await self._spread()
            if fresh or asked:
                self.log.info("rules loaded", seconds=round(time.monotonic() - began, 3), **self._rules_in_force())
        notify(READY="1", STATUS=self._summary())

    def _line_up(self, loaded: rules.Loaded) -> None:
        """Lists that are long or slow wait for a process of their own, which reads one after the other."""
        waiting = {name: {"origin": origin, "uid": uid} for name, origin, uid in loaded.slow}
        kept = {name: one for name, one in self.lane.items()
                if name not in waiting and ("told" not in one or name in loaded.refused)}
        self.lane = kept | waiting
        if waiting and (self.reader is None or self.reader.done()):
            self.reader = self._go_on(self._read_slow())

    async def _read_slow(self) -> None:
        while waiting := [name for name, one in self.lane.items() if "told" not in one]:
            # Whose lists have taken least so far: nobody's long lists keep those of another waiting.
            name = min(waiting, key=lambda name: self.spent[self.lane[name]["uid"]])
            one, began = self.lane[name], self.loop.time()
            try:
                told = await self.compiler.load_one(name)
            except (ListError, OSError) as problem:
                self.log.error("a long list could not be read; it is tried again", list=name, problem=str(problem))
                told = {}
                await asyncio.sleep(RETRY)
            self.spent[one["uid"]] += self.loop.time() - began
            if self.lane.get(name) is one:      # else it has changed meanwhile, and waits again
                if told:
                    self.lane[name] = told
                else:
                    del self.lane[name]
            self.due = self.loop.time()
            self.stirred.set()

    async def _offer(self, loaded: rules.Loaded) -> None:
        """Before any worker has the new rules the first stage asks about all that they or the old ones may list."""
        if self.stage is None or loaded.fd < 0:
            return
        below = loaded.base_fd if loaded.base_fd >= 0 else self._base_file()

        def fill(stage: Stage) -> None:
            snapshot = rules.map_stacked(loaded.fd, below, loaded.key)
            if loaded.base_fd >= 0 or not loaded.base or not stage.extend(snapshot.parts):
                stage.offer(snapshot.parts, loaded.key, snapshot.base.parts if snapshot.base else None)

        try:
            await self.loop.run_in_executor(self.beside, fill, self.stage)
        except (EdgeblockError, OSError) as problem:
            self._withdraw(self.stage, problem)

    def _withdraw(self, stage: Stage, problem: Exception) -> None:
        stage.withdraw()
        self.log.error("first stage without rules; every new flow goes to the queue", problem=str(problem))

    def _try_again(self) -> None:
        self.due = self.loop.time() + min(RETRY * 2 ** min(self.load_failures, 10), RETRY_MAX)

    def _take(self, loaded: rules.Loaded) -> None:
        """The rules that are in force from now on, and what is to be said about the lists.

        OSError where there is no memory for them, and nothing has changed.
        """
        if loaded.fd >= 0:
            places = self.board.give_places(one["name"] for one in loaded.lists)
            try:
                write_all(self.notes, json.dumps({"places": places}).encode())
            except OSError:
                let_go(loaded)
                raise
        self._audit(loaded)
        files: tuple[int, ...] = (loaded.fd, self.notes)
        if loaded.base:
            files += (loaded.base_fd if loaded.base_fd >= 0 else self._base_file(),)
        self.rules = loaded
        self.expires = loaded.expires
        self.load_failures = self.load_failures + 1 if loaded.problem else 0
        if loaded.again or loaded.problem:
            self._try_again()
        if loaded.fd < 0:
            return
        self.rules_since = time.time()
        self.loads["loaded"] += 1
        self.serial += 1
        for file in set(self.files or ()) - set(files):
            os.close(file)
        self.places = places
        self.asked = None               # else the old snapshot would stay in memory
        self.files, self.notes = files, -1
        for child in self.children:
            self._tell(child, {"do": "rules", "serial": self.serial}, (*self.files, loaded.key_fd))

    def _base_file(self) -> int:
        """The snapshot that later ones may lie over; -1 where there is none yet."""
        return -1 if self.files is None else self.files[2] if len(self.files) > 2 else self.files[0]

    def _audit(self, loaded: rules.Loaded) -> None:
        for change in loaded.changes:
            self.log.info("rules audit", **change)
        said = 0
        for name, one in loaded.refused.items():
            if self.refused.get(name) != one:
                self.loads["refused"] += 1
                said += 1
                if said > REFUSALS_SAID:
                    continue            # whoever drops a thousand bad lists does not fill the log
                self.log.error("rules audit", change="refused", list=name, file=one["file"], reason=one["told"],
                               version_before=one["in_force"], uid=one["uid"], owner=one["owner"])
        if said > REFUSALS_SAID:
            self.log.error("more lists refused", count=said - REFUSALS_SAID)
        if loaded.problem and loaded.problem != self.problem:
            self.log.error("rules not loaded; those in force stay", problem=loaded.problem)
        for warning in loaded.warnings:
            if self.rules is None or warning not in self.rules.warnings:
                self.log.warning("rules warning", problem=warning)
        self.refused, self.problem = loaded.refused, loaded.problem

    def _lists(self) -> list[dict[str, Any]]:
        return self.rules.lists if self.rules else []

    def _entries(self) -> int:
        return self.rules.entries if self.rules else 0

    async def _spread(self) -> None:
        """Until every worker that serves a queue has the rules."""
        deadline = self.loop.time() + SPREADING
        while any(slot.child and slot.child.bound and slot.child.serial < self.serial for slot in self.slots):
            if self.loop.time() > deadline:
                return
            self.changed.clear()
            await wait(self.changed, 0.1)
        if self.stage is not None:
            try:
                self.stage.settle()
            except OSError as problem:
                self._withdraw(self.stage, problem)

    def _rules_in_force(self) -> dict[str, Any]:
        return {"lists": len(self._lists()), "entries": self._entries(), "refused": len(self.refused),
                "digest": self.rules.content if self.rules else ""}

    def _key(self) -> Key | None:
        return self.rules.key if self.rules else None

    def _tell_state(self) -> None:
        if self.ready:
            notify(STATUS=self._summary())

    def _summary(self) -> str:
        if self.state.causes:
            return self.state.summary
        first, last = self.slots[0].queue, self.slots[-1].queue
        where = f"queue {first}" if first == last else f"queues {first} to {last}"
        refused = f", {len(self.refused)} refused" if self.refused else ""
        canary = ", canary failed" if any(self.canary.results.values()) else ""
        return f"{where}: {self._entries()} entries of {len(self._lists())} lists in force{refused}{canary}"


def let_go(loaded: rules.Loaded) -> None:
    """Closes the files of rules that do not come into force."""
    rules.close_files(loaded.fd, loaded.base_fd)


async def give_up(task: "asyncio.Task[None]") -> None:
    """Ends it, and waits for its end."""
    task.cancel()
    await asyncio.wait({task})


async def wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set, so long at most.

    Not by `asyncio.wait_for`: in Python 3.11 it forgets a cancellation that comes in one turn of the loop with the
    event, and the daemon would not stop.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def processor_seconds(pid: int) -> float:
    """What a process has used, of all its threads; 0 for one that has gone."""
    try:
        return time.clock_gettime(~pid << 3 | 2)        # clock_getcpuclockid(3)
    except OSError:
        return 0.0


def kept_name(slot: Slot) -> str:
    """What the service manager knows a queue's socket by: all that the next daemon has to know of it."""
    return f"queue{slot.queue}-{'marks' if slot.marks_by_verdict else 'plain'}"


def memory_file(content: bytes | memoryview) -> int:
    """A file that is nowhere but in memory and that only those see who are given it."""
    fd = os.memfd_create("edgeblock")
    write_all(fd, content)
    return fd


def write_all(fd: int, content: bytes | memoryview) -> None:
    os.ftruncate(fd, 0)         # of a try before, for which there was no memory
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
