"""The ledger: a record of what this box did with its lists that nobody can change afterwards without its showing.

    kinds      what records there are, and what each says
    records    one record as a line; each has the digest of the one before
    merkle     trees over records, as RFC 6962 has them
    place      where it is
    segments   the files: a segment for each day
    heads      what is signed of a segment: an auditor keeps these
    book       writes: records, segments, heads; takes up what a killed process has left
    writer     the same in a thread, for a daemon that never waits
    verify     whether all of it is as it was written, and where it is not
    prove      one entry, and when it was in force
    export     all of it as one file

In: facts, from who runs the box. Out: files that are checked without this program. Never here: an entry of a list, an
address, a subscriber; the daemon.
"""

from collections.abc import Iterator
from pathlib import Path

from edgeblock.ledger.records import BadRecord, Record, parse
from edgeblock.ledger.segments import lines, segments

__all__ = ["Record", "read"]


def read(directory: Path, start: float | None = None, end: float | None = None) -> Iterator[Record]:
    """The records made in [start, end), Unix seconds, in the order in which they were written; None is without a
    bound.

    What is no record is left out: whether anything is, and whether the rest is genuine, `verify` says.

    Raises:
        SystemProblem: the directory or a file cannot be read.
    """
    first = None if start is None else round(start * 1_000_000)
    last = None if end is None else round(end * 1_000_000)
    for segment in segments(directory):
        for line, _ in lines(segment.records) if segment.records else ():
            try:
                record = parse(line)
            except BadRecord:
                continue
            if (first is None or record.at >= first) and (last is None or record.at < last):
                yield record
