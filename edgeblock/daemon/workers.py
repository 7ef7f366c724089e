"""Keeps a worker at every queue: starts, follows, replaces, ends them, with spares that wait for a queue.

In: a Config, the board that workers count on, the orders that every worker gets (the first stage, the rules). Out:
queues that are served; their sockets, held until nobody is to read them; lines of workers for the journal. A worker
that ends is replaced at once by a spare; one whose packet path is silent for [daemon] hang seconds is killed first.
Never here: a packet, or what is in the rules.
"""

import asyncio
import errno
import os
import pickle
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from edgeblock.config import Config
from edgeblock.daemon.board import Board
from edgeblock.daemon.children import Child, start_child
from edgeblock.daemon.journal import Journal
from edgeblock.daemon.memory import memory_file
from edgeblock.daemon.process import kill
from edgeblock.daemon.slots import Slot
from edgeblock.daemon.sockets import take_kept
from edgeblock.daemon.tasks import Tasks, wait
from edgeblock.errors import SystemProblem
from edgeblock.netfilter.checks import queues
from edgeblock.source import begun
from edgeblock.source.queue import TABLE, explain, is_table_given, kernel_queues

BACK_OFF = 0.1          # seconds until another spare is started; doubled for each that ended before it had a queue
BACK_OFF_MAX = 30.0
SPARES = 5              # that may end as soon as they are started before a daemon gives up that is starting itself
MORE_SPARES = 2         # where one fails again and again: two that end within one's start leave no queue alone
HOLDING = 15.0          # seconds that packets may wait for a new daemon or worker, where they may pass without one
WAITING = 1.0           # seconds that they may wait for a worker where none can be started
UNANSWERED = 5.0        # seconds that a queue may be without a worker before the service manager is to know
UNWORKED = 1.0          # seconds that a queue may be without a worker before the box says that it does not filter
STOPPING = 3.0          # seconds that workers may take to answer what they hold and end
SPREADING = 10.0        # seconds that new rules may take to reach every worker
PAUSE = 0.1             # seconds between two looks at the workers; less where a hang is found sooner

Order = tuple[dict[str, Any], tuple[int, ...]]      # what is told, and open files


class BackOff:
    """When the next spare may be started: `due`. `failed` have ended without a queue since one was ready for it."""

    def __init__(self) -> None:
        self.due = 0.0
        self.failed = 0
        self.problem = ""               # of the last of them

    def start(self, now: float) -> None:
        """One is started now."""
        self.due = now + BACK_OFF

    def fail(self, problem: str, now: float) -> float:
        """One has ended, or could not be started. In how many seconds the next may be."""
        self.failed += 1
        self.problem = problem
        pause = min(BACK_OFF * 2 ** min(self.failed - 1, 10), BACK_OFF_MAX)
        self.due = max(self.due, now + pause)
        return pause

    def succeed(self) -> None:
        """One is ready."""
        self.failed = 0


class Workers:
    """All worker processes of a daemon. Everything happens in the event loop's thread.

    `kept` are the sockets that the daemon before has left with the service manager, by their names; `counted` takes
    what a worker has counted (report/pending.py).
    """

    def __init__(self, config: Config, journal: Journal, board: Board, tasks: Tasks,
                 kept: dict[str, int], counted: Callable[[Any], None] = lambda told: None) -> None:
        first, last = queues(config)
        cpus = sorted(os.sched_getaffinity(0))
        self.pause = min(PAUSE, config.daemon.hang / 4)
        self.slots = [Slot(row, queue, cpus[row % len(cpus)] if last > first else None, board.rows[row])
                      for row, queue in enumerate(range(first, last + 1))]
        self.marks_by_verdict = True            # as the worker says that bound a queue last
        self._hang = config.daemon.hang
        self._journal, self._log, self._board, self._tasks = journal, journal.log, board, tasks
        self._counted = counted
        self._begun = begun.create(len(self.slots), config.limits.flows)
        self._settings = memory_file(pickle.dumps(config))      # no message is too small for them
        self._children: set[Child] = set()
        self._following: set[asyncio.Task[None]] = set()
        self._told: dict[str, Order] = {}       # what every worker is told, by what it is to do
        self._rules: Order | None = None
        self._serial = 0                        # of the rules
        self._changed = asyncio.Event()         # something about a worker has
        self._back_off = BackOff()
        self._problem = ""                      # what a worker has said last of why it ends
        self._looked = 0.0
        self._serving = False
        self._stopping = False
        take_kept(kept, (slot.socket for slot in self.slots))

    # ---- what the supervisor asks for

    def look_for_others(self) -> None:
        """SystemProblem where somebody else has one of the queues now."""
        others = kernel_queues()
        for slot in self.slots:
            if slot.socket.file < 0 and slot.queue in others:
                raise SystemProblem(explain(slot.queue, OSError(errno.EBUSY, os.strerror(errno.EBUSY))))

    async def begin(self) -> None:
        """Starts one for each queue; the spare comes when they are bound (`look`), so that they need not share the
        processor with it."""
        for _ in self.slots:
            await self._spawn()

    def give(self, what: str, files: tuple[int, ...], **told: Any) -> None:
        """Every worker, those to come included, is told this: "stage1" is where the first stage keeps what it has
        passed, and which connections it queues to learn from; "impact" a file, of which it writes its part from now
        on."""
        self._told[what] = {"do": what, **told}, files
        for child in self._children:
            child.tell(*self._told[what])

    def forget(self, what: str) -> None:
        """Those to come are not told."""
        self._told.pop(what, None)

    def give_rules(self, files: tuple[int, ...]) -> None:
        """Every worker, those to come included, gets these rules; the files stay open until the next ones."""
        self._serial += 1
        self._rules = {"do": "rules", "serial": self._serial}, files
        for child in self._children:
            child.tell(*self._rules)

    @property
    def have_rules(self) -> bool:
        """Whether every worker that serves a queue has the rules."""
        return not any(slot.child and slot.child.bound and slot.child.serial < self._serial for slot in self.slots)

    async def await_rules(self) -> bool:
        """Waits until every worker that serves a queue has the rules. False where that takes too long."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SPREADING
        while not self.have_rules:
            if loop.time() > deadline:
                return False
            self._changed.clear()
            await wait(self._changed, 0.1)
        return True

    async def await_bound(self) -> None:
        """Waits until each queue has a worker. SystemProblem where it will get none."""
        while not all(slot.is_bound for slot in self.slots):
            if self._problem:
                raise SystemProblem(self._problem)
            if self._back_off.failed >= SPARES:
                raise SystemProblem(f"workers end as soon as they are started: {self._back_off.problem}")
            self._changed.clear()
            await self._changed.wait()

    def serve(self) -> None:
        """The daemon has started: from now on the service manager is to hold the sockets, too."""
        self._serving = True
        for slot in self.slots:
            slot.socket.store()

    def let_pass(self) -> None:
        """Packets have waited long enough for a daemon that starts."""
        if not self._serving:
            for slot in self.slots:
                if slot.child is None:
                    slot.socket.let_go()

    async def look(self, now: float) -> bool:
        """Looks after all, to be done each `pause` seconds; whether the service manager may be told that all is well.
        """
        late = now - self._looked > 3 * self.pause      # it was us who stood still: nobody is judged by that
        self._looked = now
        for slot in self.slots:
            slot.look(now)
        # A queue whose worker fails again and again is no reason to end those that work.
        beating = all(slot.is_answering(min(self._hang, 0.7), now) for slot in self.slots
                      if slot.child or now - slot.since > UNANSWERED)
        silent = [slot for slot in self.slots if not slot.is_answering(self._hang, now)]
        if not late and not self._stopping:
            for slot in silent:
                if slot.child:
                    self._log.error("worker hangs", queue=slot.queue, pid=slot.child.process.pid)
                    slot.end_hung(self._hang)
            self._assign()
            # That none is ready yet is no reason to let packets pass: whoever ends workers would open the box.
            waiting = WAITING if self._back_off.failed else HOLDING
            for slot in self.slots:
                if self._serving and slot.child is None and now - slot.since > waiting:
                    slot.socket.let_go()
            await self._keep_spares(now)
        return beating

    def stop_replacing(self) -> None:
        """The daemon is ending: whoever ends from here on has no successor."""
        self._stopping = True

    async def end(self) -> None:
        """Those with a queue answer what they hold, within some seconds; then there are none."""
        loop = asyncio.get_running_loop()
        self.stop_replacing()
        for child in self._children:
            child.tell({"do": "stop"})
            if not child.bound:
                kill(child.process)        # it holds nothing
        deadline = loop.time() + STOPPING
        while self._children and loop.time() < deadline:
            self._changed.clear()
            await wait(self._changed, 0.1)
        for child in self._children:
            kill(child.process)
        if self._following:
            await asyncio.wait(self._following, timeout=STOPPING)

    def let_queues_go(self, keep: bool) -> None:
        """At the end. `keep`: they are for the next daemon, where this one has served."""
        if not (keep and self._serving):
            for slot in self.slots:
                slot.socket.let_go()

    # ---- what is said of them

    def status(self) -> dict[str, dict[str, Any]]:
        """Each worker's figures, by its queue."""
        kernel = kernel_queues()
        told = {}
        for slot in self.slots:
            counted = self._board.counters([slot.row])
            queue, depth = counted["queue"], kernel.get(slot.queue, {})
            told[str(slot.queue)] = {
                **slot.status(),
                "packets": queue["packets"], "passed": queue["passed"], "dropped": queue["dropped"],
                "lost": queue["lost"], "waiting": depth.get("waiting", 0), "full": queue["full"],
                "kernel_dropped": depth.get("queue_dropped", 0), "user_dropped": depth.get("user_dropped", 0),
                "flows": counted["engine"]["table_flows"], "bytes": counted["engine"]["table_bytes"]}
        return told

    def waiting(self) -> int:
        """Packets that wait in the kernel's queues."""
        kernel = kernel_queues()
        return sum(kernel.get(slot.queue, {}).get("waiting", 0) for slot in self.slots)

    def unworked(self) -> list[str]:
        """The queues whose packets nobody has read for a while, in words."""
        now, kernel = asyncio.get_running_loop().time(), kernel_queues()
        readable = is_table_given() or os.access(TABLE, os.R_OK)
        told = []
        for slot in self.slots:
            if not slot.is_bound:
                if now - slot.since > UNWORKED:
                    told.append(f"queue {slot.queue} has no worker")
            elif readable and slot.queue not in kernel:
                told.append(f"queue {slot.queue} is not bound in the kernel")
        return told

    # ---- a worker from its start to its end

    async def _spawn(self) -> None:
        child = await start_child(len(self.slots), self._board.fd, self._begun, self._settings)
        self._children.add(child)
        asyncio.get_running_loop().add_reader(child.link.fileno(), self._hear, child)
        task = self._tasks.go_on(self._follow(child))
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        if self._rules is not None:
            for order in self._told.values():
                child.tell(*order)
            child.tell(*self._rules)

    async def _follow(self, child: Child) -> None:
        """Passes its lines on, and sees to its end."""
        async for line in child.lines():
            if line is None:
                self._journal.lost += 1
            else:
                self._journal.relay(time.time(), line)
        status = await child.process.wait()
        with suppress(OSError):
            self._hear(child)
        child.close()
        self._children.discard(child)
        now = asyncio.get_running_loop().time()
        slot = slot_of(self.slots, child)
        if slot is not None:
            slot.end(child, status, now)
            if not self._stopping:
                slot.restarts += 1
                self._log.error("worker ended", queue=slot.queue, pid=child.process.pid, status=status,
                                problem=child.problem or None, failures=slot.failures)
        elif not self._stopping and not child.retired:
            self._put_off_spares(child.problem or f"ended with status {status}", now)
        if not self._stopping:
            self._assign()
        self._changed.set()

    def _hear(self, child: Child) -> None:
        for said, files in child.hear():
            if "counts" in said:
                self._counted(said["counts"])
                continue
            self._problem = said.get("refused", self._problem)
            if "rules" in said:
                self._back_off.succeed()
            if "bound" in said:
                self.marks_by_verdict = said["marks_by_verdict"]
                self._hold(slot_of(self.slots, child), files, said["marks_by_verdict"])
            if not self._stopping:
                self._assign()
            self._changed.set()

    def _hold(self, slot: Slot | None, files: list[int], marks_by_verdict: bool) -> None:
        """The socket that a worker has bound to its queue."""
        if slot is None:
            for file in files:
                os.close(file)
            return
        slot.blame = "nothing"
        for file in files:
            if slot.socket.hold(file, marks_by_verdict) and self._serving:
                slot.socket.store()

    # ---- queues without a worker, workers without a queue

    def _spares(self) -> list[Child]:
        working = {slot.child for slot in self.slots}
        return [child for child in self._children if child not in working]

    def _assign(self) -> None:
        """Queues without a worker get one that is ready."""
        now = asyncio.get_running_loop().time()
        for slot in self.slots:
            if slot.child is None:
                spare = next((child for child in self._spares() if child.is_ready), None)
                if spare is None:
                    return
                slot.assign(spare, now)

    def _put_off_spares(self, problem: str, now: float) -> None:
        pause = self._back_off.fail(problem, now)
        if self._serving:                      # else a start fails, and says why
            self._log.error("no spare worker", problem=problem, again_in=round(pause, 1))

    async def _keep_spares(self, now: float) -> None:
        idle = [child for child in self._spares() if not child.retired]
        wanted = 1 + sum(slot.child is None for slot in self.slots)
        if any(slot.is_failing(now) for slot in self.slots):
            wanted += MORE_SPARES
        if len(idle) < wanted and now >= self._back_off.due:
            self._back_off.start(now)
            try:
                await self._spawn()
            except OSError as problem:      # no process or file to be had now
                self._put_off_spares(problem.strerror or str(problem), asyncio.get_running_loop().time())
        elif len(idle) > wanted:
            idle[-1].retired = True
            kill(idle[-1].process)


def slot_of(slots: Iterable[Slot], child: Child) -> Slot | None:
    """The one that this worker serves."""
    return next((slot for slot in slots if slot.child is child), None)
