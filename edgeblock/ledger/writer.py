"""The ledger in a thread: whoever has something to record goes on at once, whatever the disk does.

In: kinds and fields, as they happen. Out: records, written in that order, on the disk with each batch, signed every
some seconds. While the disk takes none they wait, as many as fit; as soon as it does a `gap` says from when to when,
and how many are late or lost. Never here: whoever records waiting.
"""

import errno
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from edgeblock.errors import SystemProblem
from edgeblock.ledger.book import Book
from edgeblock.ledger.heads import Signed
from edgeblock.ledger.kinds import why_wrong
from edgeblock.ledger.records import moment

BACKLOG = 10_000            # records that wait while the disk takes none: some megabytes
BATCH = 1000                # that are taken before they are written
ARRIVING = 100_000          # that wait for the thread: some tens of megabytes, of a box with that many lists
AGAIN = 1.0                 # seconds until a disk that took none is tried again
SIGNING = 10.0              # seconds between two heads while there are new records
TELLING = 3600.0            # seconds between two heads that are told of
LAST_WORDS = 2.0            # seconds that closing waits for a disk
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Waiting(NamedTuple):
    at: int
    kind: str
    fields: dict[str, Any]


class Ledger:
    """`append` from any thread; `tell` is called with a head that an auditor may want: of a segment that is complete,
    at the end, and once an hour. It is called in the thread.

    Args:
        book: is used by the thread alone from here on.
        now: Unix seconds.
    """

    def __init__(self, book: Book, tell: Callable[[Signed], None] = lambda head: None,
                 now: Callable[[], float] = time.time) -> None:
        self.problem = ""           # why nothing can be written; "" while it can
        self.fault = ""             # of ours, the last: a record that is none, which is lost
        self.since = 0.0            # when that began, Unix seconds
        self.late = self.lost = 0   # records, since the start
        self.written = 0
        self._book, self._tell, self._now = book, tell, now
        self._arriving: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._turn = threading.Lock()   # for what is noted of what is lost
        self._waiting: deque[Waiting] = deque()
        self._gap: list[int] = []   # first and last moment of what could not be written at once, late, lost
        self._code = ""
        self._dropped = False       # whether some of those lost were no records
        self._open = self._ending = False
        self._signed_at = self._told_at = -TELLING
        self._idle = threading.Event()
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def directory(self) -> Path:
        return self._book.directory

    def append(self, kind: str, at: float | None = None, /, **fields: Any) -> None:
        """A record of now, or of that moment in Unix seconds. ValueError for what is no record: a fault of ours."""
        if why := why_wrong(kind, fields):
            raise ValueError(why)
        self._idle.clear()
        one = Waiting(round((self._now() if at is None else at) * 1_000_000), kind, fields)
        if self._arriving.qsize() < ARRIVING:
            self._arriving.put(one)
        else:
            with self._turn:
                self.lost += 1
                self._note(one.at, lost=True)

    def flush(self, seconds: float) -> bool:
        """Waits until all there is was written; whether it was."""
        return self._idle.wait(seconds)

    def close(self, seconds: float = LAST_WORDS) -> None:
        """Signs what there is and ends, in so many seconds where the disk does not answer."""
        self._arriving.put(None)
        self._thread.join(seconds)

    def status(self) -> dict[str, Any]:
        """For `status` and the metrics."""
        book, head, problem = self._book, self._book.head, self.problem or self.fault
        if self._thread.ident is not None and not self._thread.is_alive() and not self._ending:
            problem = problem or "the thread that writes has ended"
        return {"state": "failed" if problem else "ok", "problem": problem, "records": book.seq,
                "last": book.last_at // 1_000_000, "waiting": len(self._waiting) + self._arriving.qsize(),
                "oldest": self._oldest(), "late": self.late,
                "lost": self.lost, "head": {} if head is None else {
                    "segment": head.head.segment, "day": head.head.day, "records": head.head.records,
                    "time": head.head.time}}

    def _oldest(self) -> float:
        """For how many seconds the first of those that wait has done so."""
        try:
            return max(0.0, round(self._now() - self._waiting[0].at / 1_000_000, 1))
        except IndexError:
            return 0.0

    # ---- in the thread

    def _work(self) -> None:
        while not self._ending:
            self._take(AGAIN if self.problem else self._until_signing())
            try:
                self._write_all()
            except Exception as problem:        # whatever it is, the next record may be another
                self._fail(problem)
        with suppress(Exception):
            self._write_all()
            self._sign(last=True)
        self._book.close()

    def _until_signing(self) -> float | None:
        return None if self._idle.is_set() and not self._is_unsigned else max(
            0.0, self._signed_at + SIGNING - time.monotonic())

    def _take(self, patience: float | None) -> None:
        """What has arrived, after waiting for it."""
        more = True
        while more and (self.problem or len(self._waiting) < BATCH):    # that the disk takes is not to be lost
            try:
                one = self._arriving.get(timeout=patience)
            except queue.Empty:
                return
            patience, more = 0.0, one is not None
            if one is None:
                self._ending = True
            elif len(self._waiting) < BACKLOG:
                self._waiting.append(one)
            else:
                with self._turn:
                    self.lost += 1
                    self._note(one.at, lost=True)

    def _write_all(self) -> None:
        if not self._open:
            self._book.open()
            self._open = True
        with self._turn:
            failed, self._gap = self._gap, []
            dropped, self._dropped = self._dropped, False
        if failed:
            try:
                self._tell_gap(failed, dropped)
            except Exception:       # whatever it is: the gap is still to be told
                with self._turn:
                    more = self._gap or [failed[1], failed[1], 0]      # of what was lost meanwhile
                    self._gap, self._dropped = [failed[0], more[1], failed[2] + more[2]], dropped
                raise
            self.late += len(self._waiting)
        while self._waiting:
            try:
                self._put(self._waiting[0])
            except (ValueError, TypeError, RecursionError) as fault:
                self._drop(self._waiting[0], fault)
            self._waiting.popleft()
        if self._gap:
            self._write_all()
            return
        self._book.sync()
        self.problem = ""
        if self._is_unsigned and time.monotonic() >= self._signed_at + SIGNING:
            self._sign()
        if self._arriving.empty():
            self._idle.set()

    def _tell_gap(self, failed: list[int], dropped: bool) -> None:
        self._put(Waiting(self._at(), "gap", {
            "from": moment(failed[0]), "to": moment(failed[1]), "late": len(self._waiting), "lost": failed[2],
            "code": "fault" if dropped else "backlog" if failed[2] else self._code}))

    def _drop(self, one: Waiting, fault: Exception) -> None:
        """What is no record would stay the first that waits for ever."""
        self.fault = f"a fault of edgeblock's own: {one.kind}: {type(fault).__name__}: {fault}"
        with self._turn:
            self.lost += 1
            self._dropped = True
            self._note(one.at, lost=True)

    def _put(self, one: Waiting) -> None:
        before = self._book.head
        while self._book.notes:         # what was found when it was opened, or came of a new segment
            self._book.write(self._at(), *self._book.notes[0])
            self._book.notes.pop(0)
        fields = one.fields | self._book.end_before() if one.kind == "start" else one.fields
        self._book.write(one.at, one.kind, fields)
        self.written += 1
        if self._book.head is not before and self._book.head is not None:
            self._say(self._book.head)

    @property
    def _is_unsigned(self) -> bool:
        return self._book.is_unsigned

    def _sign(self, last: bool = False) -> None:
        signed = self._book.sign(self._at())
        self._signed_at = time.monotonic()
        if signed is not None and (last or self._signed_at >= self._told_at + TELLING):
            self._say(signed)

    def _say(self, head: Signed) -> None:
        self._told_at = time.monotonic()
        try:
            self._tell(head)
        except Exception as fault:          # the record is written, whoever hears of its head
            self.fault = f"a fault of edgeblock's own: {type(fault).__name__}: {fault}"

    def _at(self) -> int:
        return round(self._now() * 1_000_000)

    def _note(self, at: int, lost: bool = False) -> None:
        if not self._gap:
            self._gap = [at, at, 0]
        self._gap[1] = max(self._gap[1], at)
        self._gap[2] += lost

    def _fail(self, problem: Exception) -> None:
        if not self.problem:
            self.since = self._now()
        self._code = "full" if getattr(problem, "errno", None) in FULL else "disk"
        self.problem = f"{self._book.directory}: {getattr(problem, 'strerror', None) or problem}"
        if not isinstance(problem, OSError | SystemProblem):
            self.problem = f"a fault of edgeblock's own: {type(problem).__name__}: {problem}"
            self._book.close()          # nobody knows how far it came: it takes up what is on the disk
        with self._turn:
            for one in self._waiting:
                self._note(one.at)
            if self._book.is_doubtful and not self._gap:    # written, but not known to be on the disk
                self._note(self._at())
        if not self._book.is_open:      # half a record was written and could not be taken back, or it was never open
            self._open = False
