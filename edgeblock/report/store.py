"""The counts that last: `counts.sqlite` beside the ledger, by day.

In: batches of the daemon's, each of one day (UTC). Out: the same summed, for whoever reports. SQLite in WAL mode:
a process that is killed leaves what it has written, and one that reads keeps nobody waiting. Rows have caps, days an
end. A newer version of the schema is left alone, an older one brought up; a file that is damaged is put aside. It is
not in the state directory: all of that may be written by the process that reads lists, which would give whoever opens
the file a schema of its own, with triggers. Never here: a name or an address that somebody asked for, a subscriber, a
plain hash of one; rules are ids, made with a key.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgeblock.errors import ReportError
from edgeblock.report.pending import OTHER, Batch
from edgeblock.report.period import DAY

FILE = "counts.sqlite"
DAMAGED = ".damaged"
UNSET = 20_089              # 2025-01-01: a day before any that is counted is that of a clock that was not set yet
ROWS_A_DAY = 20_000         # of blocks; beyond, orders are one
HITS_MAX = 1_000_000        # rules with a last hit; the longest ago goes first: 20 MB
TEXTS_MAX = 50_000          # names of lists and orders, at most 256 characters each
RUNS_MAX = 10_000           # starts of the daemon
MANY = 1000                 # hits of a batch, from which on the rows are counted at once
LOCKED, ASKED = 1.0, 5.0    # seconds that another writer may keep us waiting, the daemon's thread and who reads
LOG_BYTES = 4 << 20         # that the write-ahead log keeps on the disk between two checkpoints

# One script for each version of the schema, the first makes it. What is there is never changed here, only added to.
SCHEMA = ("""
CREATE TABLE texts (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE blocks (day INTEGER, list INTEGER, of_order INTEGER, proto INTEGER, action INTEGER,
                     tries INTEGER NOT NULL, visits INTEGER NOT NULL,
                     PRIMARY KEY (day, list, of_order, proto, action)) WITHOUT ROWID;
CREATE TABLE hits (list INTEGER, rule INTEGER, first INTEGER NOT NULL, last INTEGER NOT NULL,
                   met INTEGER NOT NULL, PRIMARY KEY (list, rule)) WITHOUT ROWID;
CREATE TABLE kernel (day INTEGER, list INTEGER, packets INTEGER NOT NULL, PRIMARY KEY (day, list)) WITHOUT ROWID;
CREATE TABLE canary (day INTEGER, family TEXT, proto TEXT, asked INTEGER NOT NULL, held INTEGER NOT NULL,
                     PRIMARY KEY (day, family, proto)) WITHOUT ROWID;
CREATE TABLE figures (day INTEGER, what TEXT, value REAL NOT NULL, PRIMARY KEY (day, what)) WITHOUT ROWID;
CREATE TABLE runs (began REAL PRIMARY KEY, written REAL NOT NULL, clean INTEGER NOT NULL) WITHOUT ROWID;
""",)


class Newer(Exception):
    """The file is of a version of edgeblock to come."""


FAULTS = (OSError, sqlite3.Error, Newer)    # of the disk or the file, for which nothing is written now


class Writer:
    """Writes batches. One call at a time, from whatever thread.

    Args:
        directory: that of the ledger; it is made where it is missing.
        keep: days with counts that are kept.
        began: when this daemon began, in Unix seconds.
    """

    def __init__(self, directory: Path, keep: int, began: float) -> None:
        self.path = directory / FILE
        self.put_aside = ""                 # why the file before this one was
        self._keep, self._began = keep, began
        self._base: sqlite3.Connection | None = None
        self._pruned = -1                   # the day on which it was done last

    def write(self, batches: dict[int, Batch], now: float, clean: bool = False) -> None:
        """All of them or nothing; `clean`: the daemon ends. `now` is in Unix seconds.

        Raises:
            one of FAULTS: it cannot be done now, and nothing was written.
        """
        try:
            base = self._opened()
            with base:
                base.execute("BEGIN IMMEDIATE")
                for day, batch in sorted(batches.items()):
                    self._add(base, day, batch)
                base.execute("INSERT INTO runs VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET "
                             "written = excluded.written, clean = excluded.clean", (self._began, now, clean))
                self._prune(base, now, max((len(one.pending.rules) for one in batches.values()), default=0))
        except sqlite3.Error as problem:
            self.close()
            if is_damaged(problem):
                self._put_aside(problem)
            raise

    def close(self) -> None:
        if self._base is not None:
            base, self._base = self._base, None
            with suppress(sqlite3.Error):
                base.close()

    def _opened(self) -> sqlite3.Connection:
        if self._base is not None:
            return self._base
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # It is made here and not by SQLite, which would make it readable by others.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        base = sqlite3.connect(self.path, timeout=LOCKED, isolation_level=None, check_same_thread=False)
        try:
            base.execute("PRAGMA journal_mode = WAL")
            base.execute("PRAGMA synchronous = NORMAL")
            base.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
            bring_up(base)
        except (sqlite3.Error, Newer):
            base.close()
            raise
        self._base = base
        return base

    def _put_aside(self, problem: sqlite3.Error) -> None:
        self.put_aside = f"{self.path}: {problem}; it is {self.path.name}{DAMAGED} now, and counting begins anew"
        with suppress(OSError):
            os.replace(self.path, f"{self.path}{DAMAGED}")
        for left in ("-wal", "-shm"):
            with suppress(OSError):
                os.unlink(f"{self.path}{left}")

    def _add(self, base: sqlite3.Connection, day: int, batch: Batch) -> None:
        texts = Texts(base)
        there = {tuple(row) for row in base.execute(
            "SELECT list, of_order, proto, action FROM blocks WHERE day = ?", (day,))}
        rows = []
        for (name, order, proto, action), (tries, visits) in batch.pending.blocks.items():
            key = texts.of(name), texts.of(order), texts.of(proto), texts.of(action)
            if key not in there and len(there) >= ROWS_A_DAY:
                key = key[0], texts.of(OTHER), key[2], key[3]
            there.add(key)
            rows.append((day, *key, tries, visits))
        base.executemany("INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                         "tries = tries + excluded.tries, visits = visits + excluded.visits", rows)
        base.executemany("INSERT INTO hits VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                         "last = max(last, excluded.last), met = met + excluded.met",
                         [(texts.of(name), int(rule, 16), day, day, met)
                          for (name, rule), met in batch.pending.rules.items()])
        base.executemany("INSERT INTO kernel VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET "
                         "packets = packets + excluded.packets",
                         [(day, texts.of(name), packets) for name, packets in batch.kernel.items()])
        base.executemany("INSERT INTO canary VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                         "asked = asked + excluded.asked, held = held + excluded.held",
                         [(day, *which, asked, held) for which, (asked, held) in batch.canary.items()])
        batch.add("lost", batch.pending.lost)
        batch.add("unknown", batch.pending.unknown)
        base.executemany("INSERT INTO figures VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET "
                         "value = value + excluded.value", [(day, what, value) for what, value in batch.sums.items()])
        base.executemany("INSERT INTO figures VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET "
                         "value = max(value, excluded.value)", [(day, *one) for one in batch.most.items()])

    def _prune(self, base: sqlite3.Connection, now: float, hits: int) -> None:
        today = int(now // DAY)
        if hits > MANY or self._pruned != today:
            self._prune_hits(base, today)
        if self._pruned == today:
            return
        # By the days that there are, not by the calendar: a clock that was wrong for an hour is to take nothing away.
        last = base.execute("SELECT DISTINCT day FROM figures ORDER BY day DESC LIMIT 1 OFFSET ?",
                            (self._keep - 1,)).fetchone()
        if last:
            for table in ("blocks", "kernel", "canary", "figures"):
                base.execute(f"DELETE FROM {table} WHERE day < ?", last)
            base.execute("DELETE FROM runs WHERE written < ?", (last[0] * DAY,))
        base.execute("DELETE FROM runs WHERE began NOT IN (SELECT began FROM runs ORDER BY began DESC LIMIT ?)",
                     (RUNS_MAX,))
        base.execute("DELETE FROM texts WHERE id NOT IN (SELECT list FROM blocks UNION SELECT of_order FROM blocks "
                     "UNION SELECT proto FROM blocks UNION SELECT action FROM blocks UNION SELECT list FROM hits "
                     "UNION SELECT list FROM kernel)")
        self._pruned = today

    def _prune_hits(self, base: sqlite3.Connection, today: int) -> None:
        count = base.execute("SELECT count(*) FROM hits").fetchone()[0]
        if count > HITS_MAX:
            over = count - HITS_MAX * 9 // 10
            base.execute("DELETE FROM hits WHERE (list, rule) IN (SELECT list, rule FROM hits ORDER BY last, met "
                         "LIMIT ?)", (over,))
            base.execute("INSERT INTO figures VALUES (?, 'forgotten', ?) ON CONFLICT DO UPDATE SET "
                         "value = value + excluded.value", (today, over))


class Texts:
    """Texts as numbers, within one transaction."""

    def __init__(self, base: sqlite3.Connection) -> None:
        self._base = base
        self._known: dict[str, int] = {}
        self._left = TEXTS_MAX - base.execute("SELECT count(*) FROM texts").fetchone()[0]

    def of(self, text: str) -> int:
        if text in self._known:
            return self._known[text]
        found = self._base.execute("SELECT id FROM texts WHERE text = ?", (text,)).fetchone()
        if found is None and self._left <= 0 and text != OTHER:
            return self.of(OTHER)
        if found is None:
            self._left -= 1
            clean = text.encode("utf-8", "backslashreplace").decode()       # half a surrogate pair is no UTF-8
            found = self._base.execute("INSERT INTO texts (text) VALUES (?) ON CONFLICT DO UPDATE SET text = text "
                                       "RETURNING id", (clean,)).fetchone()
        self._known[text] = int(found[0])
        return self._known[text]


def bring_up(base: sqlite3.Connection, schema: tuple[str, ...] = SCHEMA) -> None:
    """The file as this version wants it. Newer where it is of one to come."""
    version = base.execute("PRAGMA user_version").fetchone()[0]
    if version > len(schema):
        raise Newer(f"is of a newer version of edgeblock (schema {version}, not {len(schema)})")
    for number in range(version, len(schema)):
        base.executescript(f"BEGIN IMMEDIATE;{schema[number]}PRAGMA user_version = {number + 1};COMMIT;")


def is_damaged(problem: sqlite3.Error) -> bool:
    """Whether the file is at fault, and not the disk or another process."""
    code = getattr(problem, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


# Reading -----------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Counted:
    """What there is of some days, both included. `blocks` are rows of day, list, order, protocol, action, tries and
    visits; `kernel` packets by day and list; `canary` asked and held by day, family and protocol; `figures` by day
    and what; `runs` when the daemon began and wrote last, in Unix seconds, and whether it ended by itself."""

    since: int              # the first and the last day of which anything is kept
    until: int
    blocks: list[tuple[int, str, str, str, str, int, int]]
    kernel: list[tuple[int, str, int]]
    canary: list[tuple[int, str, str, int, int]]
    figures: dict[int, dict[str, float]]
    runs: list[tuple[float, float, bool]]


def opened(directory: Path) -> sqlite3.Connection:
    """The counts in a directory, that of the ledger, for reading.

    Raises:
        ReportError: there are none, or they cannot be read.
    """
    path = directory / FILE
    try:
        os.stat(path)
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except FileNotFoundError:
        raise ReportError(f"{path}: there are no counts yet; a daemon with [report] enabled = true writes them, some "
                          "seconds after its start") from None
    except OSError as problem:
        raise ReportError(f"{path}: cannot be read: {problem.strerror}; run this as root, or as the daemon's user"
                          ) from None
    where = path.absolute().as_uri()
    try:
        for mode in ("mode=ro", "immutable=1"):     # the latter on a medium that nobody can write
            base = sqlite3.connect(f"{where}?{mode}", uri=True, timeout=ASKED, isolation_level=None)
            try:
                version = base.execute("PRAGMA user_version").fetchone()[0]
                if version > len(SCHEMA):
                    raise ReportError(f"{path}: was written by a newer edgeblock; use that one to read it")
                base.execute("SELECT count(*) FROM runs")
                return base
            except sqlite3.OperationalError:
                base.close()
                if mode != "mode=ro" or os.path.exists(f"{path}-wal"):
                    raise
        raise AssertionError
    except sqlite3.Error as problem:
        raise ReportError(f"{path}: cannot be read: {problem}") from None


def kept(base: sqlite3.Connection) -> tuple[int, int] | None:
    """The first and the last day of which anything is kept; None where nothing is. Days of a clock that was not set
    yet are none."""
    first, last = base.execute("SELECT min(day), max(day) FROM figures WHERE day >= ?", (UNSET,)).fetchone()
    return None if first is None else (int(first), int(last))


def days_with_counts(base: sqlite3.Connection, first: int, last: int) -> int:
    """Of how many days from one to another, both included, anything is kept."""
    return int(base.execute("SELECT count(DISTINCT day) FROM figures WHERE day BETWEEN ? AND ?",
                            (first, last)).fetchone()[0])


def read(base: sqlite3.Connection, first: int, last: int) -> Counted:
    """What was counted from one day to another, both included."""
    days = (first, last)
    with one_moment(base):
        since, until = kept(base) or (0, -1)
        figures: dict[int, dict[str, float]] = {}
        for day, what, value in base.execute("SELECT day, what, value FROM figures WHERE day BETWEEN ? AND ? "
                                             "ORDER BY day, what", days):
            figures.setdefault(day, {})[what] = value
        return Counted(
            since, until,
            base.execute("SELECT day, l.text, o.text, p.text, a.text, tries, visits FROM blocks "
                         "JOIN texts l ON l.id = list JOIN texts o ON o.id = of_order JOIN texts p ON p.id = proto "
                         "JOIN texts a ON a.id = action WHERE day BETWEEN ? AND ? "
                         "ORDER BY day, l.text, o.text, p.text, a.text", days).fetchall(),
            base.execute("SELECT day, text, packets FROM kernel JOIN texts ON id = list WHERE day BETWEEN ? AND ? "
                         "ORDER BY day, text", days).fetchall(),
            base.execute("SELECT day, family, proto, asked, held FROM canary WHERE day BETWEEN ? AND ? "
                         "ORDER BY day, family, proto", days).fetchall(),
            figures,
            [(began, written, bool(clean)) for began, written, clean in base.execute(
                "SELECT began, written, clean FROM runs WHERE written >= ? AND began < ? ORDER BY began",
                (first * DAY, (last + 1) * DAY))])


def hits(base: sqlite3.Connection, name: str) -> Iterator[tuple[int, int, int]]:
    """Of each rule of a list that was met: its id, the day of the last time, how often."""
    yield from base.execute("SELECT rule, last, met FROM hits JOIN texts ON id = list WHERE text = ?", (name,))


@contextmanager
def one_moment(base: sqlite3.Connection) -> Iterator[None]:
    """All that is read within it is of one moment."""
    base.execute("BEGIN")
    try:
        yield
    finally:
        base.execute("COMMIT")
