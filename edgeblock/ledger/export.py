"""All that an auditor needs of a span of time, as one file: records, heads, the public key.

In: a ledger's directory and two moments. Out: lines of JSON: what this is; then, segment by segment in their order,
each record as its line is, between the head of the segment and the next. Of the segments in which the span lies all
records are there, as a head vouches for all of them. The same ledger and span give the same bytes. Never here: the
secret key.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from edgeblock.errors import SystemProblem
from edgeblock.ledger.records import LINE_MAX, canonical
from edgeblock.ledger.segments import NAME, Segment, lines, segments

FORMAT = 1


def chosen(directory: Path, start: str, end: str) -> list[Segment]:
    """The segments with a day in [start, end], each YYYY-MM-DD; "" is without a bound.

    Raises:
        SystemProblem: there is none.
    """
    there = segments(directory)
    found = [one for one in there if (not start or one.day >= start) and (not end or one.day <= end)]
    if not found:
        which = f"its days are {there[0].day} to {there[-1].day}" if there else "it is empty"
        raise SystemProblem(f"{directory}: the ledger has nothing of that time: {which}")
    return found


def export(directory: Path, start: str, end: str) -> Iterator[bytes]:
    """The lines of the file, each with its end. Raises as `chosen`, and SystemProblem where a file cannot be read."""
    found = chosen(directory, start, end)
    try:
        public = (directory / "key.pub").read_text().splitlines()[-1]
    except (OSError, IndexError):
        raise SystemProblem(f"{directory / 'key.pub'}: the public key cannot be read; run this as root") from None
    yield canonical({"edgeblock": "ledger export", "version": FORMAT, "from": start, "to": end,
                     "public": public}) + b"\n"
    for segment in found:
        try:
            signed = segment.head.read_text("ascii") if segment.head else ""
        except (OSError, ValueError):
            raise SystemProblem(f"{segment.head}: cannot be read") from None
        yield canonical({"segment": segment.number, "day": segment.day, "signed": signed,
                         "records": segment.records is not None}) + b"\n"
        for line, _ in lines(segment.records) if segment.records else ():
            yield line + b"\n"


def unpack(path: Path, directory: Path) -> None:
    """The files of a ledger's directory again, from an export, into an empty directory: what `verify` reads.

    Raises:
        SystemProblem: it is no export, or cannot be read.
    """
    wrong = SystemProblem(f"{path}: is no export of a ledger")
    try:
        with open(path, "rb") as file, ExitStack() as stack:
            records: IO[bytes] | None = None
            head = json.loads(file.readline(1 << 16))
            if head.get("edgeblock") != "ledger export" or head.get("version") != FORMAT:
                raise wrong
            (directory / "key.pub").write_text(f"untrusted comment: of an export\n{head['public']}\n")
            while line := file.readline(LINE_MAX + 2):
                if line.startswith(b'{"day":'):
                    said = json.loads(line)
                    name = f"{int(said['segment']):08}.{said['day']}"
                    if NAME.fullmatch(f"{name}.head") is None:
                        raise wrong
                    if said["signed"]:
                        (directory / f"{name}.head").write_text(said["signed"])
                    stack.close()
                    records = None
                    if said["records"]:
                        records = stack.enter_context(open(directory / f"{name}.records", "xb"))
                elif records is not None:
                    records.write(line)
                else:
                    raise wrong
    except OSError as problem:
        raise SystemProblem(f"{path}: cannot be read: {problem.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        raise wrong from None
