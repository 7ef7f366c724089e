"""A queue that is to be served: by which worker, whether that answers, and how those before it have ended.

In: a worker for it; looks at the words that the worker writes on the board. Out: whether it is answered; how sure it
is that the packet in hand has ended a worker. Never here: another queue, or a process started.
"""

import signal
import time
from typing import Any

from edgeblock.daemon.children import Child
from edgeblock.daemon.process import kill
from edgeblock.daemon.sockets import QueueSocket
from edgeblock.source.counters import BOARD

FORGIVEN = 10.0         # a worker that has lasted for so many seconds is no longer failing again and again
TAKING = 5.0            # seconds that a worker may take to bind its queue, a hundred times what it takes
CRASHES = {-number for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT,
                                  signal.SIGSYS, signal.SIGTRAP, signal.SIGXCPU)}      # statuses: nobody sends these


class Slot:
    """A queue to be served by `child`, which writes the words of `row` on the board."""

    def __init__(self, row: int, queue: int, cpu: int | None, words: memoryview) -> None:
        self.row = row
        self.queue = queue
        self.cpu = cpu
        self.socket = QueueSocket(queue)
        self.child: Child | None = None
        self.since = 0.0                # when the worker took the queue, or ended
        self.failures = 0               # of workers that had not lasted, one after the other
        self.blame = "nothing"          # how sure it is that the packet in hand has ended the worker
        self.restarts = 0
        self.hangs = 0
        self._words = words
        self._progress = 0, 0           # of the worker: heartbeat and hand, as last seen
        self._moved = 0.0               # when that had changed,
        self._spent = 0.0               # and the processor time that the worker had used by then

    @property
    def is_bound(self) -> bool:
        return self.child is not None and self.child.bound

    def assign(self, child: Child, now: float) -> None:
        """It gets the queue, and all that the next one has to know of the last."""
        self.child, self.since, self._moved = child, now, now
        self._words[BOARD["heartbeat"]] = time.monotonic_ns()
        child.tell({"do": "queue", "row": self.row, "queue": self.queue, "cpu": self.cpu,
                    "counts": self.socket.counts, "marks_by_verdict": self.socket.marks_by_verdict,
                    "blame": self.blame},
                   (self.socket.file,) if self.socket.file >= 0 else ())

    def end(self, child: Child, status: int, now: float) -> None:
        """Its worker has ended."""
        self.child = None
        self.failures = 1 if now - self.since > FORGIVEN else self.failures + 1
        self.since = now
        if child.bound:             # else what the one before had in hand is still there
            self.blame = child.blame or ("certain" if status in CRASHES else "suspected")
        if child.broken or child.problem and not child.bound:       # nobody could go on with this socket
            self.socket.let_go()

    def is_failing(self, now: float) -> bool:
        """Its workers fail again and again."""
        return self.failures > 1 and now - self.since < FORGIVEN

    def look(self, now: float) -> None:
        """Notes whether the worker has gone on."""
        seen = self._words[BOARD["heartbeat"]], self._words[BOARD["hand"]]
        if self.child and seen != self._progress:
            self._progress, self._moved = seen, now
            self._spent = processor_seconds(self.child.process.pid)

    def is_answering(self, hang: float, now: float) -> bool:
        """A worker that takes up packet after packet works, however long it does not come to ask for more."""
        if self.child is None:
            return False
        return min(self._silence(), now - self._moved) < (hang if self.child.bound else TAKING)

    def end_hung(self, hang: float) -> None:
        """Kills it. Where it has used the processor all the time, what it has in hand is what keeps it."""
        assert self.child is not None
        busy = processor_seconds(self.child.process.pid) - self._spent
        self.child.blame = "certain" if busy > hang / 5 else "suspected"
        self.hangs += 1
        kill(self.child.process)
        self._words[BOARD["heartbeat"]] = time.monotonic_ns()       # not judged twice while it dies

    def status(self) -> dict[str, Any]:
        """What it is, and what it does."""
        return {"pid": self.child.process.pid if self.child else 0, "cpu": "any" if self.cpu is None else self.cpu,
                "state": "running" if self.is_bound else "starting" if self.child else "failed",
                "beat": round(max(0.0, self._silence()), 3), "restarts": self.restarts, "hangs": self.hangs}

    def _silence(self) -> float:
        return (time.monotonic_ns() - self._words[BOARD["heartbeat"]]) * 1e-9


def processor_seconds(pid: int) -> float:
    """What a process has used, of all its threads; 0 for one that has gone."""
    try:
        return time.clock_gettime(~pid << 3 | 2)        # clock_getcpuclockid(3)
    except OSError:
        return 0.0
