"""Filter lists of ad blockers: the part of them that names hosts and URLs.

In: a file opened for reading bytes. Out: items in the order of the lines. A rule is taken when what it blocks can be
said exactly; a rule that is right but needs a browser (page elements, kinds of request, patterns) is passed over with
its sort; what is no rule is a Problem. Taken are

    ||example.com^          the host and every subdomain
    ||*.example.com^        subdomains only
    |http://example.com^    the host only; a list names what is at an address, not how it is fetched
    |http://example.com/a|  that URL
    |http://example.com/a/  every URL below
    @@ and any of these     an exception

and the options that do not narrow a rule: $important, $all, and on blocks $document. In an ad blocker `$important`
lifts a rule above exceptions; here only a mandatory list does that.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO

from edgeblock.blocklist.canonical import host_address
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.entries import read_host_entry, read_url_entry
from edgeblock.blocklist.formats.lines import BadEntry, Entry, Item, Passed, Problem, shown
from edgeblock.blocklist.formats.scan import read_lines

COSMETIC = re.compile(rb"#@?[?$%]{0,2}#|\$@?\$")      # between hosts and what happens on their pages
HEADER = re.compile(rb"\[[^\]]*\]")
OPTIONS = re.compile(rb"\$(~?[a-z][a-z0-9_-]*(?:=.*)?(?:,.*)?)$", re.IGNORECASE)
HOST_RULE = re.compile(rb"\|\|([^/^|$?*]+|\*\.[^/^|$?*]+)\^?\|?")
URL_RULE = re.compile(rb"\|https?://([^/^|$?*]+)(/[^|^*]*)?([|^]?)", re.IGNORECASE)
WHOLE = frozenset((b"important", b"all"))               # options that leave a rule as wide as it is
PAGES = frozenset((b"document", b"doc"))                # on a block: the host as the page that is opened
LONG_OPTION = 30        # characters of an option's name that a message repeats


class NotOurs(Exception):
    """What sort of rule it is that a filter outside the browser cannot enforce."""


def read_adblock(file: BinaryIO) -> Iterator[Item]:
    for number, line in read_lines(file, comments=b"!"):
        if isinstance(line, Problem):
            yield line
            continue
        if HEADER.fullmatch(line) or line == b"#" or line[:2] == b"# " or line[:1] == b";":
            continue
        exception = line[:2] == b"@@"
        try:
            kind, key, depth = read_rule(line[2:] if exception else line, exception)
            yield Entry(number, kind, key, exception, depth)
        except NotOurs as sort:
            yield Passed(number, str(sort))
        except BadEntry as error:
            yield Problem(number, f"{shown(line)} {error}")


def read_rule(text: bytes, exception: bool) -> tuple[Kind, bytes, int]:
    """Kind, key and depth of a rule without its @@."""
    if COSMETIC.search(text):
        raise NotOurs("rules about page elements (##, #@#, #?#, $$)")
    if text[:1] == b"/" and re.search(rb"/(?:\$.*)?$", text[1:]):
        raise NotOurs("regular expressions")
    if found := OPTIONS.search(text):
        text = text[:found.start()]
        for option in found[1].lower().split(b","):
            if option not in WHOLE and (exception or option not in PAGES):
                name = option.partition(b"=")[0][:LONG_OPTION].decode("ascii", "replace")
                raise NotOurs(f"rules that hold under conditions (${name})")
    if found := HOST_RULE.fullmatch(text):
        if text.rstrip(b"|")[-1:] != b"^" and text[-1:] != b"|":
            raise BadEntry("has no '^' at its end, so longer names would match too; write ||name^")
        return read_whole_host(found[1], Kind.HOST)
    if found := URL_RULE.fullmatch(text):
        host, path, end = found[1], found[2] or b"", found[3]
        if path in (b"", b"/") and end != b"|":
            if not path and not end:
                raise BadEntry("has neither '^' nor '/' behind the host, so longer names would match too")
            return read_whole_host(host, Kind.HOST_ONLY)
        if end == b"|":
            return read_url_entry(text[1:-1])
        if end == b"" and path[-1:] == b"/" and b"?" not in path:
            return read_url_entry(text[1:] + b"*")
    if re.search(rb"[./*^=-]", text) and re.search(rb"\w", text):
        if re.fullmatch(rb"[\w-]+(?:\.[\w-]+)+", text):
            raise BadEntry(f"matches inside any URL; write ||{text.decode()}^ for the host")
        if b" " in text:
            raise BadEntry("has a space inside; is this a hosts file?")
        raise NotOurs("patterns that match parts of URLs")
    raise BadEntry("is no rule; hosts are ||name^")


def read_whole_host(text: bytes, kind: Kind) -> tuple[Kind, bytes, int]:
    """Everything on a host; on an address every page, for others may be at the same address."""
    if host_address(text) is not None:
        return read_url_entry(text + b"/*")
    if text[:1] == b"=":
        raise BadEntry("has a '=' in front of the name")
    stated, key = read_host_entry(text)
    return stated if stated is Kind.SUBDOMAINS else kind, key, 0
