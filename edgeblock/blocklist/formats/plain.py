"""One entry a line: the grammar of .list and .txt, and the one of .urls.

In: a file opened for reading bytes. Out: items in the order of the lines.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.attributes import refuse_alone, split_attributes, with_terms
from edgeblock.blocklist.formats.entries import OTHER_SCHEME, OtherScheme, read_entry, read_url_entry, why_spaced
from edgeblock.blocklist.formats.lines import BLANKS, Attributes, BadEntry, Entry, Item, Passed, Problem, shown
from edgeblock.blocklist.formats.scan import Shapes, read_lines

ELEMENTS = re.compile(rb"[^/?\s]*(?:#@?[?$%]{0,2}#|#@?%#|\$@?\$)")     # as behind the hosts of a filter's rule
NOTHING_BELOW = re.compile(rb"\*\.\d+\.\d+\.\d+\.\d+")
SHAPES = Shapes(((b"", b"", Kind.HOST, False), (b"*.", b"", Kind.SUBDOMAINS, False),
                 (b"=", b"", Kind.HOST_ONLY, False), (b"@@", b"", Kind.HOST, True)), urls=True, addresses=True)
URLS = Shapes((), urls=True)
COMMENT = re.compile(rb"[ \t][#;]")


def read_domains(file: BinaryIO, attributes: tuple[str, ...] = ()) -> Iterator[Item]:
    """Hosts, URLs, addresses and exceptions, mixed (DESIGN 3.1). `attributes` are names that may stand behind an
    entry beside those that are known, as in `example.com until=2030-12-31 ticket=17`."""
    for number, line in read_lines(file, shapes=SHAPES):
        if type(line) is not bytes:         # most lines of most lists are an Entry already
            yield line
            continue
        try:
            line, told = said_beside(line, attributes)
        except BadEntry as error:
            yield Problem(number, f"{shown(line)} {error}")
            continue
        line = without_comment(line)
        exception = line[:2] == b"@@"
        if NOTHING_BELOW.fullmatch(line):
            yield Passed(number, "stars in front of addresses, below which nothing is")
            continue
        try:
            if ELEMENTS.match(line):
                raise BadEntry("is a rule about page elements, of a filter list of ad blockers (adblock)")
            for kind, key, depth in read_entry(line[2:].lstrip(BLANKS) if exception else line):
                yield with_terms(Entry(number, kind, key, exception, depth, told))
        except BadEntry as error:
            yield refused(number, line, error)


def read_urls(file: BinaryIO, attributes: tuple[str, ...] = ()) -> Iterator[Item]:
    """URLs, directories and exceptions from them, with attributes likewise. A host alone is its front page, as in a
    browser."""
    for number, line in read_lines(file, shapes=URLS):
        if type(line) is not bytes:
            yield line
            continue
        try:
            line, told = said_beside(line, attributes)
        except BadEntry as error:
            yield Problem(number, f"{shown(line)} {error}")
            continue
        line = without_comment(line)
        exception = line[:2] == b"@@"
        text = line[2:].lstrip(BLANKS) if exception else line
        try:
            if b" " in text or b"\t" in text:
                raise BadEntry(why_spaced(text, "one URL a line, and %20 for a space in it"))
            kind, key, depth = read_url_entry(text)
            yield with_terms(Entry(number, kind, key, exception, depth, told))
        except BadEntry as error:
            yield refused(number, line, error)


def said_beside(line: bytes, declared: tuple[str, ...]) -> tuple[bytes, Attributes]:
    """The line without its attributes, and these. Raises BadEntry."""
    if b" " not in line and b"\t" not in line:
        return line, ()
    if b"=" in line:
        return split_attributes(line, declared)
    refuse_alone(line)
    return line, ()


def refused(number: int, line: bytes, error: BadEntry) -> Item:
    """What is said of a line that is no entry."""
    if isinstance(error, OtherScheme):
        return Passed(number, OTHER_SCHEME, line[:2] == b"@@", shown(line) if line[:2] == b"@@" else "")
    return Problem(number, f"{shown(line)} {error}")


def without_comment(line: bytes) -> bytes:
    """The line up to a blank and # or ;."""
    found = COMMENT.search(line)
    return line[:found.start()].rstrip(BLANKS) if found else line
