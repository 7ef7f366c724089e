"""Ledgers for tests. In: how many days, or who writes until he is killed. Out: a directory as a daemon would have
left it."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from edgeblock.blocklist.refresh import Outcome
from edgeblock.daemon.compiler import Loaded
from edgeblock.ledger.book import Book
from edgeblock.ledger.verify import public_keys, verify

DAYS, PER_DAY = 3, 12
START = 1_790_000_000       # Unix seconds
NOON = (START // 86_400 * 86_400 + 43_200) * 1_000_000


def moment_of(day: int, second: int) -> int:
    """Unix microseconds of noon and so many seconds, so many days after the first."""
    return NOON + (day * 86_400 + second) * 1_000_000


def fill(directory: Path, days: int = DAYS, keep_days: int = 400, other: bool = False) -> None:
    """So many days, each complete but the last, which has a head too."""
    book = Book(directory, keep_days)
    book.open()
    for day in range(days):
        for second in range(PER_DAY):
            at = moment_of(day, second)
            while book.notes:
                book.write(at, *book.notes.pop(0))
            book.write(at, "withdrawn", {"list": f"list {second}{' too' if other else ''}"})
        book.sign(moment_of(day, PER_DAY))
    book.close()


def loaded(said: Outcome, key: bytes) -> Loaded:
    """What the daemon hears of rules that were made."""
    return Loaded(0, "", said.lists, said.changes, said.refused, [], said.problem, False, said.content, key, -1)


def holds(directory: Path) -> list[str]:
    """What `verify` notes of a ledger that has no problem."""
    keys, _ = public_keys(directory, ())
    made = verify(directory, keys)
    assert made.problems == [], made.problems
    return [note for note in made.notes if "has no head: none was signed yet" not in note]


def kill(work: Callable[[int], None], seconds: float) -> bool:
    """SIGKILL to a process that works, so long after it said that it does; whether it said so, with a byte to the
    descriptor that it is given."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            work(writer)
        finally:
            os._exit(1)
    os.close(writer)
    begun = os.read(reader, 1) == b"+"
    os.close(reader)
    wait(seconds)
    os.kill(process, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    return begun


def wait(seconds: float) -> None:
    threading.Event().wait(seconds)
