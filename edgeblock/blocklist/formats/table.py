"""Tables: comma-separated values and their kin, one entry in a named column of each row.

In: a file opened for reading bytes, the column and the delimiter. Out: items in the order of the rows, with the
number of a row's first line. The first row is the heads of the columns; with a column given by number there is none.
A first line `sep=;`, as spreadsheets write it, says the delimiter. A quoted field may have delimiters and doubled
quotes in it, and line ends while the row is no longer than a line (RFC 4180, 2.5 to 2.7); a blank before a quote is
taken off. A row with more or fewer fields than its head is refused: what stands in the column may be its
neighbour's text (RFC 4180, 2.4).

Which column has the entries is guessed only where there is one answer, and said in a Remark: an indicator before
what is told about it, a URL before its host, a host beside a path joined with it. Where a column says of what type
each row is, rows of types that are no host, URL or address are passed over; where one says what is done with each,
rows that are to pass are left out, as loudly as exceptions.
"""

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from edgeblock.blocklist.formats.attributes import checked, with_terms
from edgeblock.blocklist.formats.entries import OTHER_SCHEME, OtherScheme, read_entry
from edgeblock.blocklist.formats.lines import (
    BLANKS,
    LINE_MAX,
    BadEntry,
    Entry,
    Item,
    Passed,
    Problem,
    Remark,
    no_text,
    shown,
)
from edgeblock.blocklist.formats.scan import read_raw_lines
from edgeblock.blocklist.terms import KNOWN, ORDER, OTHER_NAMES, plain_name

# Heads that are taken for the entry when the settings name no column. What a feed calls its indicator goes before
# other columns, which may tell about it; beside a host alone the first of the others is meant.
INDICATORS = ("indicator", "ioc", "ioc_value", "observable", "entry")
URLS = ("url", "uri")
HOSTS = ("domain", "host", "hostname", "fqdn", "domain_name")
ADDRESSES = ("address", "ip", "ip_address")
COLUMNS = (*URLS, *HOSTS, *ADDRESSES, *INDICATORS)
PATHS = ("path", "url_path", "uri_path")
VALUES = ("value", *INDICATORS)         # columns that may hold things of several types
TYPES = ("type", "ioc_type", "indicator_type", "kind", "value_type", "itype", "observable_type")
# What feeds call the types of their rows: those that can be entries, and those that never can.
OURS = frozenset((
    "domain", "hostname", "host", "fqdn", "domain-name", "domain_name", "dns", "url", "uri", "link", "ip", "ipv4",
    "ipv6", "ip-dst", "ip-src", "ipv4-addr", "ipv6-addr", "ip_address", "ipaddress", "address", "cidr", "network",
    "ip:port", "ip_port", "ip-dst|port", "domain|ip"))
OTHERS = frozenset((
    "filename", "file", "path", "md5", "sha1", "sha224", "sha256", "sha384", "sha512", "ssdeep", "imphash", "tlsh",
    "authentihash", "pehash", "hash", "md5_hash", "sha1_hash", "sha256_hash", "sha3_384_hash", "filehash",
    "filehash-md5", "filehash-sha1", "filehash-sha256", "email", "email-src", "email-dst", "email-addr",
    "email-subject", "mutex", "registry", "regkey", "windows-registry-key", "user-agent", "user_agent", "asn", "as",
    "ja3", "ja3-fingerprint-md5", "x509-fingerprint-sha1", "certificate", "cve", "vulnerability", "yara", "pattern",
    "btc", "bitcoinaddress", "process", "text", "comment", "other", "malware", "url_path"))
DONE = ("action", "policy", "verdict", "disposition", "list_type", "listtype", "type", "list")
PASSED = frozenset(("allow", "allowed", "allowlist", "allow-list", "accept", "pass", "passthru", "permit", "white",
                    "whitelist", "whitelisted", "white-list", "safe", "benign", "clean", "exception", "direct",
                    "trusted"))
PIPED = ("domain|ip", "ip-dst|port", "ip-src|port", "hostname|port")     # the entry is the part before the "|"
DELIMITERS = (",", ";", "\t", "|")
SEPARATOR = re.compile(r"sep=(.)", re.IGNORECASE)
HEADS_SHOWN = 12


class Columns(NamedTuple):
    """Where things stand in a row; None for what the table does not have. `fields` is how many a row has."""

    entry: int
    path: int | None
    type: int | None
    fields: int | None
    remark: str
    attributes: tuple[tuple[str, int], ...] = ()    # and where each stands
    done: tuple[int, ...] = ()                      # what is done with the row


class NoColumn(Exception):
    """Why it is not known which column has the entries."""


def read_table(file: BinaryIO, column: str | int | None = None, delimiter: str | None = None,
               attributes: tuple[str, ...] = ()) -> Iterator[Item]:
    """Entries of one column, in the grammar of .list.

    Args:
        column: its head, in any case, or its number from 1 on; None: the one that COLUMNS leaves no doubt about.
        delimiter: None: what a line `sep=` says, or whichever of DELIMITERS the first row has most of.
        attributes: heads of the columns with what is said about an entry.
    """
    columns = Columns(column - 1, None, None, None, "") if isinstance(column, int) else None
    if isinstance(column, int) and attributes:
        yield Problem(1, "attributes are columns by their heads, and column is a number, as in a file without heads; "
                         "set column to a head, or leave attributes out", whole=True)
        return
    first = True
    comment: list[bytes] = []
    for number, text in read_rows(file, comment):
        if isinstance(text, Problem):
            yield text
            continue
        if first:
            first = False
            if stated := SEPARATOR.fullmatch(text.strip()):
                delimiter = delimiter or stated[1]
                continue
        if delimiter is None:
            bare = re.sub(r'"[^"]*"?', "", text)
            delimiter = max(DELIMITERS, key=bare.count)
            if not bare.count(delimiter):
                delimiter = "\n"            # one column: what looks like a delimiter is part of an entry
        try:
            cells = split_row(text, delimiter)
        except csv.Error as error:
            why = str(error).encode("unicode_escape").decode()      # it quotes the delimiter, which may be a tab
            yield Problem(number, f"{shown(text.encode())} is no row: {why}")
            continue
        if columns is None:
            heads, commented = [cell.strip() for cell in cells], None
            wanted = column if isinstance(column, str) else None
            try:
                columns = find_columns(heads, wanted)
            except NoColumn as why:
                commented = find_heads_in_comment(comment, delimiter, wanted, len(cells))
                if commented is None:
                    there = ", ".join(shown(head.encode()) for head in heads[:HEADS_SHOWN])
                    if len(heads) > HEADS_SHOWN:
                        there += f" and {len(heads) - HEADS_SHOWN} more"
                    yield Problem(number, f"{why}; the first row has {there}: set column to one of these, or "
                                          "to a number if the first row is no head", whole=True)
                    return
                columns, heads = commented
            places = {name: place for name in attributes if (place := place_of(name, heads)) is not None}
            if missing := [name for name in attributes if name not in places]:
                yield Problem(number, f"there is no column {missing[0]!r}, which the settings of this list declare "
                                      "as an attribute", whole=True)
                return
            columns = with_done(columns, [head.casefold() for head in heads])._replace(
                attributes=tuple(places.items()))
            if columns.remark:
                yield Remark(number, columns.remark)
            yield from undeclared(number, heads, columns)
            if commented is None:
                continue
        if columns.fields is None:
            columns = columns._replace(fields=len(cells))
        if columns.entry >= len(cells):
            yield Problem(number, f"the row has {len(cells)} columns, and the entry is in number {columns.entry + 1}")
        elif len(cells) != columns.fields and not is_padding(cells[columns.fields or 0:]):
            yield Problem(number, f"the row has {len(cells)} fields, and the first row {columns.fields}; a field "
                                  f"with {shown(delimiter.encode())} in it needs quotes")
        else:
            yield from read_cells(number, cells, columns)


def split_row(text: str, delimiter: str) -> list[str]:
    if delimiter == "\n":
        text = text.strip()
        return [text[1:-1].replace('""', '"') if len(text) > 1 and text[0] == text[-1] == '"' else text]
    if '"' not in text and "\r" not in text and " " not in text:
        return text.split(delimiter)            # as nearly all rows are
    return next(csv.reader([text], delimiter=delimiter, strict=True, skipinitialspace=delimiter != "\t"))


def is_padding(more: list[str]) -> bool:
    """Whether what a row has too many are empty fields at its end, as spreadsheets leave them."""
    return bool(more) and not any(cell.strip() for cell in more)


def read_cells(number: int, cells: list[str], columns: Columns) -> Iterator[Item]:
    text = cells[columns.entry].strip()
    for place in columns.done:
        if cells[place].strip().casefold() in PASSED:
            said = shown(cells[place].strip().encode())
            yield Passed(number, f"rows that are to pass ({said}); write @@ in front of what is an exception", True,
                         shown(text.encode()))
            return
    if columns.type is not None:
        kind = cells[columns.type].strip().casefold()
        if kind in OTHERS:
            yield Passed(number, "rows of a type that is no host, URL or address")
            return
        if kind in PIPED:
            text = text.partition("|")[0].strip()
    if columns.path is not None and "://" not in text and (path := cells[columns.path].strip()):
        text += path if path[:1] == "/" else "/" + path
    cell = text.encode()
    exception = cell[:2] == b"@@"
    try:
        if not cell:
            raise BadEntry("has nothing in this column")
        told = checked([(name, cells[at]) for name, at in columns.attributes if cells[at].strip()],
                       tuple(name for name, _ in columns.attributes)) if columns.attributes else ()
        for kind_of, key, depth in read_entry(cell[2:].lstrip(BLANKS) if exception else cell):
            yield with_terms(Entry(number, kind_of, key, exception, depth, told))
    except OtherScheme:
        yield Passed(number, OTHER_SCHEME, exception, shown(cell) if exception else "")
    except BadEntry as error:
        yield Problem(number, f"{shown(cell)} {error}")


def find_columns(heads: list[str], wanted: str | None) -> Columns:
    """Where the entries are.

    Raises:
        NoColumn: nowhere, or there are several answers.
    """
    folded = [head.casefold() for head in heads]

    def find(names: tuple[str, ...]) -> int | None:
        return next((folded.index(name) for name in names if name in folded), None)

    typed = find(TYPES)
    if wanted is not None:
        name = wanted.strip().casefold()
        if name not in folded:
            raise NoColumn(f"there is no column {wanted!r}")
        return Columns(folded.index(name), None, typed if name in VALUES else None, len(heads), "")
    if (place := find(INDICATORS)) is not None or typed is not None and (place := find(VALUES)) is not None:
        others = find((*URLS, *HOSTS, *ADDRESSES)) is not None
        return Columns(place, None, typed, len(heads), f"the entries are taken from the column {heads[place]!r}, not "
                       "from those that tell about it; set column if another is meant" if others else "")
    if (place := find(URLS)) is not None:
        return Columns(place, None, None, len(heads), guessed(heads, place, folded))
    if (place := find(HOSTS)) is not None:
        path = find(PATHS)
        if path is not None:
            return Columns(place, path, None, len(heads), f"the entries are URLs, of the columns {heads[place]!r} "
                           f"and {heads[path]!r} together; set column = {heads[place]!r} to list whole hosts")
        return Columns(place, None, None, len(heads), guessed(heads, place, folded))
    if (place := find(ADDRESSES)) is not None:
        return Columns(place, None, None, len(heads), "")
    raise NoColumn(f"there is none of the columns {', '.join(COLUMNS[:4])}, ...")


def with_done(columns: Columns, folded: list[str]) -> Columns:
    """With the columns that say what is done with a row."""
    return columns._replace(done=tuple(at for at, head in enumerate(folded) if head in DONE and at != columns.entry))


def find_heads_in_comment(comment: list[bytes], delimiter: str, wanted: str | None,
                          fields: int) -> tuple[Columns, list[str]] | None:
    """The columns and all heads, where these stand in a comment just before the first row, as in some feeds."""
    try:
        heads = [cell.strip() for line in comment for cell in split_row(line.lstrip(b"# \t").decode(), delimiter)]
        return (find_columns(heads, wanted)._replace(remark=""), heads) if len(heads) == fields else None
    except (UnicodeDecodeError, csv.Error, NoColumn):
        return None


def place_of(name: str, heads: Sequence[str]) -> int | None:
    """Where the column of an attribute stands; its head may differ in case, blanks, "_" and "-"."""
    folded = [head.casefold() for head in heads]
    if name in folded:
        return folded.index(name)
    return next((at for at, head in enumerate(heads) if plain_name(head) == plain_name(name)), None)


def undeclared(number: int, heads: Sequence[str], columns: Columns) -> Iterator[Remark]:
    """What is to be said of columns with names that act as attributes of an entry, or look as if they did, and are
    not declared."""
    declared = [name for name, _ in columns.attributes]
    taken = {columns.entry, *(at for _, at in columns.attributes)}
    acting = {plain_name(name): name for name in KNOWN}
    idle = [(head, acting.get(plain_name(head), ""), OTHER_NAMES.get(plain_name(head), ""))
            for at, head in enumerate(heads) if at not in taken]
    for timed in (True, False):
        some = [one for one in idle if (one[1] or one[2] and one[2] not in declared)
                and (one[1] not in ORDER) is timed]
        if not some:
            continue
        every = ", ".join(f'"{name}"' for name in dict.fromkeys([*declared, *(one[1] or one[2] for one in some)]))
        which = ", ".join(shown(head.encode()) for head, _, _ in some)
        which = f"the column{'s' * (len(some) > 1)} {which} {'are' if len(some) > 1 else 'is'} not looked at"
        rename = "".join(f", and call the column {shown(head.encode())} {other}"
                         for head, name, other in some if not name)
        yield Remark(number, f"{which}, so every entry holds at any time; if an entry is to hold for a time only, "
                     f"put attributes = [{every}] into the settings of this list{rename}" if timed else
                     f"{which}; if it says by whose order an entry holds, put attributes = [{every}] into the "
                     "settings of this list", timed)


def guessed(heads: list[str], place: int, folded: list[str]) -> str:
    if sum(name in COLUMNS for name in folded) < 2:
        return ""
    return f"the entries are taken from the column {heads[place]!r}; set column if another is meant"


def read_rows(file: BinaryIO, comment: list[bytes]) -> Iterator[tuple[int, str | Problem]]:
    """Rows as text: lines, joined while a quote is open. Blank ones and comments (#) are left out; `comment` holds
    the last of those."""
    lines = read_raw_lines(file)
    again: deque[tuple[int, bytes | Problem]] = deque()
    while (item := again.popleft() if again else next(lines, None)) is not None:
        number, line = item
        if isinstance(line, Problem):
            yield number, line
            continue
        if not line.strip(BLANKS):
            continue
        if line[:1] == b"#":
            comment[:] = [line]
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
