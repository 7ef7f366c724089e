"""The dump of the Russian register of forbidden sites, as it is passed round: dump.csv.

In: a file opened for reading bytes (in cp1251, unless somebody has converted it: state encoding = "cp1251"). Out:
items in the order of the rows. The first line says when it was made; every other has six fields with ";" between
them:

    addresses ; names ; URLs ; who decided ; number of the decision ; its date

The first three may each have several values with "|" between them. A row names what it is about most narrowly: URLs
where it has some, else names, else addresses; addresses beside a name are where that name was found, and others may
be there too. `*.name` is the name and all below it, a bare name that name alone (`subdomains` in the settings of the
list makes it both).
"""

import csv
import re
from collections.abc import Iterator
from typing import BinaryIO

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.entries import read_address, read_host_entry, read_url_entry
from edgeblock.blocklist.formats.lines import BLANKS, BadEntry, Entry, Item, Passed, Problem, no_text, shown
from edgeblock.blocklist.formats.scan import read_raw_lines

UPDATED = re.compile(rb"Updated: \d{4}-\d\d-\d\d\b")
FIELDS = 6
SEVERAL = re.compile(r"\s*\|\s*")
SEVERAL_URLS = re.compile(r"\s+\|\s+|\s*\|\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)|\s*\|\s*$")     # a URL may have a "|"
SCHEME = re.compile(r"(?!https?:)[A-Za-z][A-Za-z0-9+.-]*://", re.IGNORECASE)


def read_register(file: BinaryIO, subdomains: bool = False) -> Iterator[Item]:
    for number, line in read_raw_lines(file):
        if isinstance(line, Problem):
            yield line
            continue
        line = line.strip(BLANKS)
        if not line or UPDATED.match(line):
            continue
        if problem := no_text(number, line):
            yield problem
            continue
        try:
            cells = next(csv.reader([line.decode()], delimiter=";"))
            if len(cells) != FIELDS:
                raise BadEntry(f"has {len(cells)} fields, and a row of the register has {FIELDS}")
            yield from list(read_row(number, cells, subdomains))     # all of a row or nothing of it
        except (BadEntry, csv.Error) as error:
            yield Problem(number, f"{shown(line)} {error}")


def read_row(number: int, cells: list[str], subdomains: bool) -> Iterator[Item]:
    addresses, names, urls = (
        [value for value in split.split(cell.strip()) if value]
        for cell, split in zip(cells, (SEVERAL, SEVERAL, SEVERAL_URLS), strict=False))
    for url in urls:
        if SCHEME.match(url):
            yield Passed(number, "URLs of other protocols than HTTP")
            continue
        kind, key, depth = read_url_entry(url.encode())
        yield Entry(number, kind, key, False, depth)
    if urls:
        return
    for name in names:
        if networks := read_address(name.encode()):
            yield from (Entry(number, kind, key) for kind, key in networks)
            continue
        kind, key = read_host_entry(name.encode())
        yield Entry(number, Kind.HOST if kind is Kind.SUBDOMAINS or subdomains else Kind.HOST_ONLY, key)
    if names:
        return
    for address in addresses:
        networks = read_address(address.encode())
        if not networks:
            raise BadEntry(f"has {shown(address.encode())} among its addresses, which is none")
        yield from (Entry(number, kind, key) for kind, key in networks)
    if not addresses:
        raise BadEntry("names no URL, no name and no address")
