"""Tables: comma-separated values and their kin, one entry in a named column of each row.

In: a file opened for reading bytes, the column and the delimiter. Out: items in the order of the rows, with the
number of a row's first line. The first row is the heads of the columns; with a column given by number there is none.
A quoted field may have delimiters and doubled quotes in it, and line ends while the row is no longer than a line.
"""

import csv
import re
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from edgeblock.blocklist.formats.entries import read_entry
from edgeblock.blocklist.formats.lines import BLANKS, LINE_MAX, BadEntry, Entry, Item, Problem, no_text, shown
from edgeblock.blocklist.formats.scan import read_raw_lines

# Heads that are taken for the entry when the settings name no column, in this order.
COLUMNS = ("url", "domain", "host", "hostname", "fqdn", "domain_name", "address", "ip", "ip_address", "entry",
           "indicator", "ioc")
DELIMITERS = (",", ";", "\t", "|")
HEADS_SHOWN = 12


def read_table(file: BinaryIO, column: str | int | None = None, delimiter: str | None = None) -> Iterator[Item]:
    """Entries of one column, in the grammar of .list.

    Args:
        column: its head, in any case, or its number from 1 on; None: the first of COLUMNS that there is.
        delimiter: None: whichever of DELIMITERS the first row has most of.
    """
    place = column - 1 if isinstance(column, int) else None
    for number, text in read_rows(file):
        if isinstance(text, Problem):
            yield text
            continue
        if delimiter is None:
            bare = re.sub(r'"[^"]*"?', "", text)
            delimiter = max(DELIMITERS, key=bare.count)
        try:
            cells = next(csv.reader([text], delimiter=delimiter, strict=True))
        except csv.Error as error:
            why = str(error).encode("unicode_escape").decode()      # it quotes the delimiter, which may be a tab
            yield Problem(number, f"{shown(text.encode())} is no row: {why}")
            continue
        if place is None:
            heads = [cell.strip() for cell in cells]
            place = find_column(heads, column if isinstance(column, str) else None)
            if place is None:
                there = ", ".join(shown(head.encode()) for head in heads[:HEADS_SHOWN])
                if len(heads) > HEADS_SHOWN:
                    there += f" and {len(heads) - HEADS_SHOWN} more"
                wanted = f"no column {column!r}" if column else f"none of the columns {', '.join(COLUMNS[:4])}, ..."
                yield Problem(number, f"there is {wanted}; the first row has {there}: set column to one of these, or "
                                      "to a number if the first row is no head", whole=True)
                return
            continue
        if place >= len(cells):
            yield Problem(number, f"the row has {len(cells)} columns, and the entry is in number {place + 1}")
            continue
        cell = cells[place].strip().encode()
        exception = cell[:2] == b"@@"
        try:
            if not cell:
                raise BadEntry("has nothing in this column")
            for kind, key, depth in read_entry(cell[2:].lstrip(BLANKS) if exception else cell):
                yield Entry(number, kind, key, exception, depth)
        except BadEntry as error:
            yield Problem(number, f"{shown(cell)} {error}")


def find_column(heads: list[str], wanted: str | None) -> int | None:
    """The index of the head that is wanted."""
    folded = [head.casefold() for head in heads]
    for name in (wanted.strip().casefold(),) if wanted else COLUMNS:
        if name in folded:
            return folded.index(name)
    return None


def read_rows(file: BinaryIO) -> Iterator[tuple[int, str | Problem]]:
    """Rows as text: lines, joined while a quote is open. Blank ones and comments (#) are left out."""
    lines = read_raw_lines(file)
    again: deque[tuple[int, bytes | Problem]] = deque()
    while (item := again.popleft() if again else next(lines, None)) is not None:
        number, line = item
        if isinstance(line, Problem):
            yield number, line
            continue
        if not line.strip(BLANKS) or line[:1] == b"#":
            continue
        if problem := no_text(number, line.rstrip(BLANKS)):
            yield number, problem
            continue
        if line.count(b'"') & 1:
            parts, taken, closed = [line], [], False
            while not closed and sum(map(len, parts)) <= LINE_MAX:
                follower = again.popleft() if again else next(lines, None)
                if follower is None:
                    break
                taken.append(follower)
                text = follower[1]
                if isinstance(text, Problem) or no_text(follower[0], text.rstrip(BLANKS)):
                    break
                parts.append(text)
                closed = text.count(b'"') & 1 == 1
            if not closed:
                # Only this row is lost, not the rest of the file with it.
                again.extendleft(reversed(taken))
                yield number, Problem(number, f"{shown(line)} has a quote that is not closed")
                continue
            line = b"\n".join(parts)
        yield number, line.decode()
