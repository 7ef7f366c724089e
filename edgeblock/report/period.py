"""The days that a report is about. In: texts as people type them, today. Out: a Period. Days are those of UTC."""

import re
from datetime import UTC, date, datetime
from typing import NamedTuple

from edgeblock.errors import ReportError

DAYS = 30               # up to today, where nobody says which
DAY = 86_400            # seconds
EPOCH = date(1970, 1, 1).toordinal()
WRITTEN = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


class Period(NamedTuple):
    """Days since 1970, both included."""

    first: int
    last: int

    @property
    def days(self) -> int:
        return self.last - self.first + 1

    @property
    def begins(self) -> int:
        """In Unix seconds."""
        return self.first * DAY

    @property
    def ends(self) -> int:
        return (self.last + 1) * DAY


def period_of(first: str | None, last: str | None, now: float) -> Period:
    """The period from one day to another; without the one DAYS up to the other, without the other up to today. `now`
    is in Unix seconds.

    Raises:
        ReportError: one is no day, or the second is before the first, or none of it has been yet.
    """
    today = int(now // DAY)
    end = today if last is None else day_of(last, "--to")
    begin = end - DAYS + 1 if first is None else day_of(first, "--from")
    if begin > end:
        raise ReportError(f"--from {written(begin)} is after {'--to ' if last else ''}{written(end)}; write the "
                          "earlier day first")
    if begin > today:
        raise ReportError(f"--from {written(begin)}: has not been yet; today is {written(today)} (UTC)")
    return Period(begin, min(end, today))


def day_of(text: str, option: str) -> int:
    """The day since 1970 that a text says."""
    try:
        if not WRITTEN.fullmatch(text):
            raise ValueError
        return date.fromisoformat(text).toordinal() - EPOCH
    except ValueError:
        raise ReportError(f"{option} {text}: is no day; write one such as 2026-11-01") from None


def written(day: int) -> str:
    """A day as it is written: 2026-11-01."""
    return date.fromordinal(day + EPOCH).isoformat()


def moment(at: float) -> str:
    """RFC 3339 of Unix seconds, in whole ones."""
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
