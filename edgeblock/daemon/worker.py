"""One worker: a process with a queue, an engine and an event loop of its own.

In: from the supervisor, a file with the configuration, and over the socket it was started with: snapshots as open
files, the queue to take, the order to stop. Out: packets judged; counters on the board, which outlives it; lines
about blocks on standard output. It can be ready without a queue: then it is the spare that takes the place of another
within milliseconds. Without its supervisor it ends (PR_SET_PDEATHSIG), so that the next one finds the queues free.

Never here: the lists themselves, kernel rules, a packet that waits for a file, a program or a reader of the log.
"""

import asyncio
import errno
import gc
import json
import mmap
import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import uvloop

from edgeblock.blocklist.canary import LIST as CANARY
from edgeblock.blocklist.keys import Key, held
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.snapshot import Snapshot
from edgeblock.config import Config
from edgeblock.core.decision import LIST_ACTIONS, Decision, Name, carried_out
from edgeblock.core.sketch import ALL, Sketches
from edgeblock.daemon.board import (
    ENGINE_NAMES,
    ENGINE_REST,
    FAST,
    GAUGES,
    MATCHED,
    OTHERS,
    OWN,
    POLICY,
    VISITS,
    Board,
    matched_at,
)
from edgeblock.daemon.itself import end_with_parent, give_back, hide_memory
from edgeblock.daemon.journal import Journal
from edgeblock.daemon.mapping import map_stacked
from edgeblock.daemon.visits import Visits
from edgeblock.enforce import replies
from edgeblock.enforce.answers import Answers
from edgeblock.enforce.inject import Injector
from edgeblock.engine import make_engine
from edgeblock.errors import EdgeblockError
from edgeblock.netfilter.marks import marks
from edgeblock.report.pending import Pending
from edgeblock.source.begun import Begun
from edgeblock.source.marking import Marking
from edgeblock.source.nfqueue import QueueReader
from edgeblock.source.recall import Recall

# Python hands the interpreter from thread to thread this often; packets wait so long for it at most.
SWITCH_SECONDS = 0.0005

# An answer of several segments is sent once more after so long. A client that has got a part of it acknowledges that
# part and waits; it does not ask again, as one does that has got nothing. Only where answers go to proven addresses:
# nobody else gets what he has not asked for. No more of them wait than this.
REPEAT_SECONDS = 0.4
MAX_REPEATS = 4096

BEAT = 0.1              # seconds between two looks at an idle queue, at most: the heartbeat
MESSAGE_MAX = 1 << 17   # bytes of a message between supervisor and worker

# Of the counts that last: different blocks and rules that wait to be told, so often in seconds, in pieces of so many
# bytes: 48 kB are about 700 rules. What a supervisor that ends, or has no room, is told at the end.
BLOCKS_MAX, RULES_MAX = 1024, 16_384
COUNTS_EACH = 0.5
PIECE, PIECES_MAX = 48_000, 8


class Worker:
    """What the process runs. Everything but opening a snapshot happens in the event loop's thread."""

    def __init__(self, config: Config, journal: Journal, supervisor: socket.socket, board: Board,
                 begun: int = -1) -> None:
        self.config = config
        self.journal = journal
        self.supervisor = supervisor
        self.board = board
        self.begun = begun
        self.row: Any = None
        self.reader: QueueReader | None = None
        self.recall: Recall | None = None      # of the first stage, where there is one
        self.marking: Marking | None = None    # where conntrack does not keep the marks
        self.engine: Any = None
        self.matcher: ListMatcher | None = None     # the engine's
        self.sketches: tuple[dict[str, Any], list[int]] | None = None   # the order for the next, not obeyed yet
        self.sample = ALL, 0                   # of the connections that the first stage would pass, and its secret
        self.place = -1                        # of our row on boards
        self.below: Snapshot | None = None     # the snapshot that later ones may lie over
        self.places: dict[str, int] = {POLICY: 0}
        self.key: Key = b""
        self.base: list[int] = []
        self.answers = Answers(config.reply)
        self.visits = Visits(board.visits)
        self.pending = Pending(BLOCKS_MAX, RULES_MAX) if config.report.enabled else None
        self.told_counts = 0.0                 # when the supervisor was told of them last
        self.failures_told = 0
        self.repeats = 0
        self.engine_asks_proof = config.reply.unproven == "drop"

    async def serve(self) -> int:
        """Obeys until told to stop; the exit status."""
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self.loop.create_future()
        orders: asyncio.Queue[tuple[dict[str, Any], list[int]]] = asyncio.Queue()
        self.loop.add_reader(self.supervisor.fileno(), self._hear, orders)
        # Not the event loop's own, which needs a thread more to end: there may be none to be had.
        with (ThreadPoolExecutor(1, "rules") as self.beside,
              Injector(self.config.ruleset.inject_mark) as self.injector):
            obeying = asyncio.create_task(self._obey(orders))
            obeying.add_done_callback(self._end)
            status = await self.ended
            obeying.cancel()
            if self.reader is not None:
                self.loop.remove_reader(self.reader.fileno())
                if status == 0:
                    self.reader.close()
                self._tick()
                self._tell_counts(time.monotonic(), all_of_it=True)
        return status

    def tell(self, *files: int, **message: Any) -> None:
        """A message to the supervisor, with open files."""
        tell(self.supervisor, *files, **message)

    def _end(self, obeying: "asyncio.Task[None]") -> None:
        if self.ended.done():
            return
        problem = None if obeying.cancelled() else obeying.exception()
        if isinstance(problem, EdgeblockError | OSError | MemoryError):     # memory and descriptors run out anywhere
            self.tell(refused=str(problem) or "not enough memory")
            self.ended.set_result(2)
        elif problem is not None:
            self.ended.set_exception(problem)

    def _hear(self, orders: "asyncio.Queue[tuple[dict[str, Any], list[int]]]") -> None:
        try:
            message, files, flags, _ = socket.recv_fds(self.supervisor, MESSAGE_MAX, 4)
        except BlockingIOError:
            return
        except MemoryError:         # there is not even room for the order, which stays unread: another has to have it
            self.loop.remove_reader(self.supervisor.fileno())
            self.tell(refused=os.strerror(errno.ENOMEM))
            if not self.ended.done():
                self.ended.set_result(2)
            return
        except OSError:
            message, files, flags = b"", [], 0
        if flags & socket.MSG_CTRUNC:
            self.tell(refused="no descriptor is left for the files that come with an order")
            if not self.ended.done():
                self.ended.set_result(2)
            return
        if not message:         # the supervisor has gone
            self.loop.remove_reader(self.supervisor.fileno())
            message = b'{"do": "stop"}'
        orders.put_nowait((json.loads(message), files))

    async def _obey(self, orders: "asyncio.Queue[tuple[dict[str, Any], list[int]]]") -> None:
        while True:
            order, files = await orders.get()
            if order["do"] == "rules":
                await self._take_rules(*files)
                self.tell(rules=order["serial"])
            elif order["do"] == "stage1":
                self.recall = Recall(files[0], files[1], order["places"], order["secret"])
                if order["sample"] is not None:
                    self.sample = order["sample"], order["secret"]
                self.marking = Marking(files[2]) if len(files) > 2 else None
            elif order["do"] == "impact":
                self._forget_sketches()
                self.sketches = order, files
                self._open_sketches()
            elif order["do"] == "queue":
                reader = self._take_queue(order, files)
                self.tell(*() if files else (reader.fileno(),), bound=order["queue"],
                          marks_by_verdict=reader.marks_by_verdict)
            else:
                if not self.ended.done():
                    self.ended.set_result(0)
                return

    async def _take_rules(self, snapshot: int, notes: int, *more: int) -> None:
        # In a thread, beside the packets: opening ten million entries takes milliseconds.
        told = json.loads(read_all(notes))
        *below, key = more          # the snapshot below comes where there is one
        base = below[0] if below else -1
        self.key = take_key(key, self.key)
        matcher = await self.loop.run_in_executor(self.beside, map_rules, snapshot, base, self.key, self.below)
        self.below = matcher.snapshot.base or matcher.snapshot
        self.matcher = matcher
        self.answers.renew(matcher.snapshot.parts.lists)
        self.places = told["places"]
        if self.engine is None:
            self.engine = make_engine(self.config, matcher)
            gc.collect()
            gc.freeze()
            give_back()
        else:
            self.engine.matcher = matcher

    def _take_queue(self, order: dict[str, Any], files: list[int]) -> QueueReader:
        if order["cpu"] is not None:
            with suppress(OSError):     # it has been taken from us since: any other will do
                os.sched_setaffinity(0, {order["cpu"]})
        config, bits = self.config, marks(self.config.ruleset.mark_mask)
        self.row = self.board.rows[order["row"]]
        for i, name in enumerate(ENGINE_NAMES[FAST:]):
            if name in GAUGES:
                self.row[ENGINE_REST + i] = 0
        self.base = list(self.row[ENGINE_REST:MATCHED])
        # A queue that another worker has had goes on, and so do the kernel's counts of its losses.
        held: dict[str, Any] = {}
        if files:
            counts = tuple(at + self.row[OWN + i] for i, at in enumerate(order["counts"]))
            held = {"held": files[0], "held_marks": order["marks_by_verdict"], "held_counts": counts}
        self.reader = QueueReader(
            order["queue"], self.engine, self.decide, length=config.queue.length, buffer=config.queue.buffer,
            fail_open=config.queue.overload == "open", marks=(bits.mask, bits.done, bits.http, bits.blocked),
            board=self.row, proof_mark=config.ruleset.proof_mark, blame=order["blame"],
            pass_condemned=config.policies.crash == "pass", **held)
        if self.reader.condemned:
            self.journal.log.warning("connection refused: its packet has ended a worker", queue=order["queue"])
        if self.begun >= 0:
            limits = config.limits
            self.reader.begun = Begun(self.begun, order["row"], limits.flows, limits.idle, time.monotonic())
            self.engine.share_secret(self.reader.begun.secret)
        self.reader.recall = self.recall
        self.reader.marking = self.marking
        self.place = order["row"]
        self._open_sketches()
        self.loop.add_reader(self.reader.fileno(), self._drain)
        self._beat()
        return self.reader

    def _open_sketches(self) -> None:
        """Our part of the file, once it is known which."""
        if self.sketches is None or self.place < 0:
            return
        order, files = self.sketches
        try:
            memory = mmap.mmap(files[0], order["room"], offset=self.place * order["room"])
            self.engine.sketches = Sketches(memory, order["slots"], held(files[1]), *self.sample)
        except (OSError, ValueError) as problem:        # nothing is learnt; the filter is the same
            self.engine.sketches = None
            self.journal.log.warning("impact", problem=f"names behind addresses are not counted: {problem}")
        self._forget_sketches()

    def _forget_sketches(self) -> None:
        if self.sketches is not None:
            for file in self.sketches[1]:
                os.close(file)
            self.sketches = None

    # ---- packets

    def _drain(self) -> None:
        assert self.reader is not None
        try:
            self.reader.drain()
            if self.reader.paused:
                self.loop.call_soon(self._drain)
        except OSError as problem:      # the socket is broken: nothing can be answered any more
            self.loop.remove_reader(self.reader.fileno())
            self.tell(refused=str(problem), broken=True)
            if not self.ended.done():
                self.ended.set_result(2)

    def decide(self, packet: bytes, decision: Decision) -> Callable[[], None] | None:
        """What QueueReader calls for a packet that completed a name or is owed an answer: how to send that."""
        now, again = time.monotonic(), []
        names = [name for name in decision.names if name.list != CANARY]    # which nobody's list has
        for name in names:
            if name.action == "accept":
                if name.list and self.pending is not None:      # an exception lifts what another entry blocks
                    self._count(self.pending, name, self.visits.is_new(now, packet, name))
                continue
            place = self.places.get(name.list or POLICY, self.places.get(OTHERS, 0))
            self.row[matched_at(place, LIST_ACTIONS.index(name.action))] += 1
            new = self.visits.is_new(now, packet, name)
            if new:
                self.row[VISITS + place] += 1
            else:
                again.append(name)
            if self.pending is not None:
                self._count(self.pending, name, new)
        self.journal.blocked(now, packet, names, again)
        self._publish_own(OWN + 4, [self.journal.unlogged])
        if not decision.reply:
            return None
        return partial(self._send, replies.build(packet, decision, self.answers, time.time()))

    def _count(self, pending: Pending, name: Name, new: bool) -> None:
        """For the counts that last: by order, protocol and what is done, and by rule id."""
        done = name.action
        if done in ("page", "redirect"):
            done = carried_out(done, name.proto, self.answers.redirects(name.list))
        pending.add((name.list or "", name.policy or name.order, name.proto or "", done), 1, new)
        if name.list and name.rule:
            pending.hit(name.list, name.rule)

    def _tell_counts(self, now: float, all_of_it: bool = False) -> None:
        """In pieces. What the supervisor has no room for stays, up to a bound."""
        if not self.pending or not all_of_it and now < self.told_counts + COUNTS_EACH:
            return
        self.told_counts = now
        for _ in range(PIECES_MAX if all_of_it else 1):
            piece = self.pending.piece(PIECE)
            if not tell(self.supervisor, counts=piece):
                self.pending.put(piece)
                return
            if not self.pending:
                return

    def _send(self, answer: replies.Replies) -> None:
        self.injector.send(answer.to_client)
        self.injector.send(answer.to_server)
        if len(answer.to_client) > 1 and self.engine_asks_proof and self.repeats < MAX_REPEATS:
            self.repeats += 1
            self.loop.call_later(REPEAT_SECONDS, self._repeat, answer.to_client)
        self._publish_own(OWN + 2, [self.injector.sent, self.injector.failed])

    def _publish_own(self, at: int, counts: list[int]) -> None:
        for i, count in enumerate(counts, at):
            self.row[i] = self.base[i - ENGINE_REST] + count

    def _repeat(self, packets: list[bytes]) -> None:
        self.repeats -= 1
        self.injector.send(packets)

    # ---- now and then

    def _beat(self) -> None:
        if not self.ended.done():
            self._drain()
            self._tick()
            self.loop.call_later(min(BEAT, self.config.daemon.hang / 4), self._beat)

    def _tick(self) -> None:
        assert self.reader is not None
        now = time.monotonic()
        self.journal.tick(now)
        self._tell_counts(now)
        if self.matcher is not None:
            self.matcher.keep_time(time.time())
        queue, engine = self.reader.counters(), self.engine.counters()
        own = [engine[name] for name in ENGINE_NAMES[FAST:]]
        own += [queue["lost"], queue["full"], self.injector.sent, self.injector.failed, self.journal.unlogged,
                self.journal.lost]
        self._publish_own(ENGINE_REST, own)
        failures = self.reader.failures
        if failures != self.failures_told:
            # What an exception says may hold a name; its kind does not.
            said = self.reader.failure if self.config.privacy.names else self.reader.failure.partition(":")[0]
            self.journal.log.error("answers failed", count=failures - self.failures_told, problem=said)
            self.failures_told = failures


def tell(supervisor: socket.socket, *files: int, **message: Any) -> bool:
    """A message to the supervisor, with open files; whether it could be sent. Without one that listens nothing is to
    be told."""
    try:
        socket.send_fds(supervisor, [json.dumps(message).encode()], files)
    except OSError:
        return False
    return True


def take_key(file: int, before: Key) -> Key:
    """The key in an open file, where it is not the one that this process has already."""
    try:
        key = held(file)
    finally:
        os.close(file)
    return before if before == key else key


def map_rules(fd: int, base_fd: int, key: Key, known: Snapshot | None = None) -> ListMatcher:
    """The matcher of a snapshot file that is open as `fd`, and of the one below, mapped and shared with the other
    workers; `known` is one that is mapped already."""
    try:
        return ListMatcher(map_stacked(fd, base_fd, key, known))
    finally:
        os.close(fd)
        if base_fd >= 0:
            os.close(base_fd)


def read_all(fd: int) -> bytes:
    """The content of a file that others may be reading through the same description."""
    try:
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def main(arguments: list[str]) -> int:
    """The process: the supervisor's id, the socket to it, the board and its rows, the file of begun flows, and one
    with the configuration."""
    parent, link, board, rows, begun, settings = map(int, arguments)
    end_with_parent(parent)
    hide_memory()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)       # they are the supervisor's, which tells us in its own time
    sys.setswitchinterval(SWITCH_SECONDS)
    with socket.socket(fileno=link) as supervisor:
        config: Config = pickle.loads(read_all(settings))
        supervisor.setblocking(False)
        rate = -(-config.daemon.log_blocks // rows)
        try:
            with Journal(sys.stdout, config.privacy, rate, summary=False) as journal:
                return uvloop.run(Worker(config, journal, supervisor, Board(rows, board), begun).serve())
        except (EdgeblockError, OSError) as problem:
            tell(supervisor, refused=str(problem))
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
