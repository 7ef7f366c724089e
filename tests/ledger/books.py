"""Ledgers for tests. In: how many days. Out: a directory as a daemon would have left it."""

from pathlib import Path

from edgeblock.ledger.book import Book

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
