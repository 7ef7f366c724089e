"""What is in force on a box, and which entries nobody met, out of its state directory.

In: the state directory, its key, the counts. Out: the table of the lists, and dead entries by list. Never here: a
running daemon asked, a list's file read, anything written.
"""

import sqlite3
from contextlib import suppress
from pathlib import Path

from edgeblock.blocklist.met import still_listed
from edgeblock.blocklist.parts import ListRecord
from edgeblock.blocklist.snapshot import Snapshot
from edgeblock.blocklist.store import Store, readable_key
from edgeblock.errors import ListError
from edgeblock.report.period import DAY
from edgeblock.report.store import days_with_counts, hits

DEAD_DAYS = 90          # without being met, after which an entry is called dead


def in_force(key_file: Path) -> Snapshot | None:
    """The snapshot that was published last; None where there is none, or no key to open it."""
    key = readable_key(key_file)
    if key is None:
        return None
    store = Store(key_file.parent, key)
    with suppress(ListError, OSError):
        top, below = store.digests()
        return store.in_force(held=below or top)        # it is verified by who enforces it
    return None


def counted_days(base: sqlite3.Connection, days: int, now: float) -> int:
    """Of how many of the last `days` it is known whether a rule was met: of those on which anything was counted."""
    today = int(now // DAY)
    return days_with_counts(base, today - days + 1, today)


def dead_entries(base: sqlite3.Connection, snapshot: Snapshot, records: list[ListRecord], days: int,
                 now: float) -> dict[str, int]:
    """Of each list how many of its entries nobody has met for so many days: those less the rules that were."""
    horizon = int(now // DAY) - days + 1
    met = {record.name: {rule for rule, last, _ in hits(base, record.name) if last >= horizon} for record in records}
    there = still_listed(snapshot, met)
    return {record.name: max(0, record.entries - len(there[record.name])) for record in records}
