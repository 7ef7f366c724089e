"""The files of a ledger: which segments there are, and the lines of each.

    NUMBER.DAY.records   records, one a line; a new segment begins with each day (UTC), and where one is long
    NUMBER.DAY.head      what is signed of it (heads.py)
    key, key.pub         what signs heads: 32 bytes, mode 0600; the minisign public key of that
    lock                 held by who writes

In: a directory. Out: segments in their order, lines as they are. Never here: whether they fit each other.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edgeblock.errors import SystemProblem
from edgeblock.ledger.records import LINE_MAX

NAME = re.compile(r"(\d{8})\.(\d{4}-\d\d-\d\d)\.(records|head)", re.ASCII)
SEGMENT_MAX = 32 << 20      # bytes of records from which on a new segment begins


class Segment(NamedTuple):
    """One segment: its number, its day, and which of its files are there."""

    number: int
    day: str
    records: Path | None
    head: Path | None

    @property
    def name(self) -> str:
        return name_of(self.number, self.day)


def name_of(number: int, day: str) -> str:
    return f"{number:08}.{day}"


def segments(directory: Path) -> list[Segment]:
    """All that there are something of, in their order.

    Raises:
        SystemProblem: the directory cannot be read.
    """
    found: dict[tuple[int, str], dict[str, Path]] = {}
    try:
        names = os.listdir(directory)
    except OSError as error:
        raise SystemProblem(f"{directory}: no ledger can be read there: {error.strerror}; name its directory, or run "
                            "this as root") from None
    for name in names:
        if told := NAME.fullmatch(name):
            found.setdefault((int(told[1]), told[2]), {})[told[3]] = directory / name
    return [Segment(number, day, files.get("records"), files.get("head"))
            for (number, day), files in sorted(found.items())]


def lines(path: Path) -> Iterator[tuple[bytes, bool]]:
    """Each line without its end, and whether it has one.

    Raises:
        SystemProblem: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            while line := file.readline(LINE_MAX + 2):
                yield line.removesuffix(b"\n"), line.endswith(b"\n")
    except OSError as error:
        raise SystemProblem(f"{path}: cannot be read: {error.strerror}; run this as root") from None
