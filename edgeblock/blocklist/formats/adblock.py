"""Filter lists of ad blockers: the part of them that names hosts and URLs.

In: a file opened for reading bytes. Out: items in the order of the lines. A rule is taken when what it blocks can be
said exactly, or less of it; a rule that is right but needs a browser (page elements, kinds of request, patterns) is
passed over with its sort, an exception loudly, because leaving it out may block somebody; what is no rule is a
Problem. Taken are

    ||example.com^          the host and every subdomain
    ||*.example.com^        subdomains only
    ||example.com/a/b^      that page of that host (not of its subdomains); with "/" at the end every page below
    ||example.com           as with "^"; what only begins so, as example.com.au does, is passed over
    ||192.0.2.1:8080^       that port of that address
    |http://example.com^    the host only; a list names what is at an address, not how it is fetched
    |http://example.com/a|  that URL
    |http://example.com/a/  every URL below
    example.com             that host only, as lists for resolvers have it
    0.0.0.0 example.com     the same, in the way of a hosts file
    @@ and any of these     an exception

and the options that do not narrow a rule: $important, $all, and the kinds of request that have the page itself among
them ($document, $doc, also beside $popup and others: kinds add up). $badfilter switches off the rule with the same
text and options, wherever in the file it stands, so the file is held until its end, up to HELD_MAX bytes. In an ad
blocker `$important` lifts a rule above exceptions; here only a mandatory list does that.
Sources: the filter syntaxes as Adblock Plus, uBlock Origin and AdGuard document them.
"""

import re
from array import array
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from edgeblock.blocklist.canonical import canonical_host, host_address
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.entries import IPV4_LIKE, read_address, read_host_entry, read_url_entry
from edgeblock.blocklist.formats.hosts import OWN_NAMES, USUAL, read_hosts_line
from edgeblock.blocklist.formats.lines import BadEntry, Entry, Item, Passed, Problem, shown
from edgeblock.blocklist.formats.scan import Shapes, plain_host, read_lines

COSMETIC = re.compile(rb"#@?[?$%]{0,2}#|#@?%#|\$@?\$")      # between hosts and what happens on their pages
HEADER = re.compile(rb"\[[^\]]*\]")
OPTIONS = re.compile(rb"\$(~?[a-z][a-z0-9_-]*(?:=.*)?(?:,.*)?)$", re.IGNORECASE)
HOST_RULE = re.compile(rb"\|\|([^/^|$?*]+|\*\.[^/^|$?*]+)\^?\|?")
PAGE_RULE = re.compile(rb"\|\|([^/^|$?*]+)(/[^|^*]*)([|^]?)")
URL_RULE = re.compile(rb"\|https?://([^/^|$?*]+)(/[^|^*]*)?([|^]?)", re.IGNORECASE)
SHAPES = Shapes(((b"||", b"^", Kind.HOST, False), (b"@@||", b"^", Kind.HOST, True), (b"", b"", Kind.HOST_ONLY, False),
                 (b"0.0.0.0 ", b"", Kind.HOST_ONLY, False)), apart=OWN_NAMES)
NO_OPTIONS: frozenset[bytes] = frozenset()
WHOLE = frozenset((b"important", b"all"))               # options that leave a rule as wide as it is
PAGES = frozenset((b"document", b"doc"))                # the page that is opened
KINDS = frozenset((b"popup", b"subdocument", b"frame", b"script", b"image", b"stylesheet", b"css", b"object",
                   b"media", b"font", b"xmlhttprequest", b"xhr", b"ping", b"websocket", b"other"))    # beside it
# Exceptions from what an ad blocker does to pages, not from what it blocks.
HARMLESS = frozenset((b"elemhide", b"ehide", b"generichide", b"ghide", b"specifichide", b"shide", b"jsinject",
                      b"content", b"extension", b"stealth", b"genericblock", b"urlblock", b"csp", b"removeparam",
                      b"redirect-rule", b"popup"))
LONGER = "names that only begin like a rule's (||name without ^); the name itself is taken"
LONGER_URLS = "URLs that only begin like a rule's (||name/path without ^); the URL itself is taken"
SWITCH = b"badfilter"
LONG_OPTION = 30        # characters of an option's name that a message repeats
HELD_MAX = 32 << 20     # bytes of lines that wait for a $badfilter; the longest list that was seen has 11 MB

Found = tuple[Kind, bytes, int]


class NotOurs(Exception):
    """What sort of rule it is, or of what part of a rule, that a filter outside the browser cannot enforce."""

    def __init__(self, sort: str, harmless: bool = False) -> None:
        super().__init__(sort)
        self.harmless = harmless        # as an exception, too


def read_adblock(file: BinaryIO) -> Iterator[Item]:
    lines = read_lines(file, comments=b"!")
    numbers = array("Q")
    held: list[bytes | Problem] = []
    switched_off: set[tuple[bytes, frozenset[bytes]]] = set()
    size = 0
    for number, line in lines:
        numbers.append(number)
        held.append(line)
        if not isinstance(line, Problem):
            size += len(line)
            if SWITCH in line and (rule := switched(line)):
                switched_off.add(rule)
            if size > HELD_MAX:
                break
    for number, line in zip(numbers, held, strict=True):
        yield from read_line(number, line, switched_off)
    del numbers, held
    for number, line in lines:
        if not isinstance(line, Problem) and SWITCH in line and (rule := switched(line)):
            switched_off.add(rule)
            yield Problem(number, f"{shown(line)} may switch off a rule more than {HELD_MAX} bytes before it; take "
                                  "that rule out")
            continue
        yield from read_line(number, line, switched_off)


def switched(line: bytes) -> tuple[bytes, frozenset[bytes]] | None:
    """The rule that a line switches off, as its text and its options; None where it does not."""
    text, options = split_options(line)
    return (text, options - {SWITCH}) if SWITCH in options else None


def split_options(line: bytes) -> tuple[bytes, frozenset[bytes]]:
    found = OPTIONS.search(line)
    return (line[:found.start()], frozenset(found[1].lower().split(b","))) if found else (line, frozenset())


def read_line(number: int, line: bytes | Problem,
              switched_off: set[tuple[bytes, frozenset[bytes]]]) -> Iterable[Item]:
    if isinstance(line, Problem):
        return (line,)
    if (entry := SHAPES.entry(number, line)) and not (switched_off and (line, NO_OPTIONS) in switched_off):
        return (entry,)
    return read_rare(number, line, switched_off)


def read_rare(number: int, line: bytes, switched_off: set[tuple[bytes, frozenset[bytes]]]) -> Iterator[Item]:
    if HEADER.fullmatch(line) or line == b"#" or line[:2] == b"# " or line[:1] == b";":
        return
    exception = line[:2] == b"@@"
    if switched_off and split_options(line) in switched_off:
        yield Passed(number, "rules that a $badfilter switches off")
        return
    if plain := plain_host(line):
        if b"." in plain:
            yield Entry(number, Kind.HOST_ONLY, plain)
            return
    elif line.split(None, 1)[0] in USUAL and b" " in line.replace(b"\t", b" "):
        yield from read_hosts_line(number, line, False)
        return
    try:
        for found in list(read_rule(line[2:] if exception else line, exception)):
            if isinstance(found, NotOurs):
                yield Passed(number, str(found), exception, shown(line) if exception else "")
            else:
                yield Entry(number, found[0], found[1], exception, found[2])
    except NotOurs as sort:
        loud = exception and not sort.harmless
        yield Passed(number, str(sort), loud, shown(line) if loud else "")
    except BadEntry as error:
        yield Problem(number, f"{shown(line)} {error}")


def read_rule(text: bytes, exception: bool) -> Iterator[Found | NotOurs]:
    """Kind, key and depth of a rule without its @@, and a NotOurs for what of it is not taken.

    Raises:
        NotOurs: nothing of it is.
        BadEntry: it is no rule.
    """
    if COSMETIC.search(text):
        raise NotOurs("rules about page elements (##, #@#, #?#, $$)", harmless=True)
    if text[:1] == b"/" and re.search(rb"/(?:\$.*)?$", text[1:]):
        raise NotOurs("regular expressions")
    if found := OPTIONS.search(text):
        text = text[:found.start()]
        check_options(found[1].lower().split(b","), exception)
    if text[:2] == b"||" and text[-2:] == b"^*":
        text = text.rstrip(b"*")            # stands for anything, as the end of a rule does
    if found := HOST_RULE.fullmatch(text):
        is_whole = text[-1:] in (b"^", b"|")
        if not is_whole:
            refuse_part_of_name(found[1])
        if (IPV4_LIKE.fullmatch(found[1]) or found[1][:1] == b"[") and b":" in found[1].rpartition(b"]")[2]:
            yield from ((kind, key, 0) for kind, key in read_address(found[1]))
        else:
            yield read_whole_host(found[1], Kind.HOST)
        if not is_whole:
            yield NotOurs(LONGER)
        return
    if found := PAGE_RULE.fullmatch(text):
        host, path, end = found[1], found[2], found[3]
        if path == b"/" and end != b"|":
            yield read_whole_host(host, Kind.HOST)
        elif end == b"" and path[-1:] == b"/" and b"?" not in path:
            yield read_url_entry(host + path + b"*")
        else:
            yield read_url_entry(host + path)
            if end == b"":
                yield NotOurs(LONGER_URLS)
        return
    if found := URL_RULE.fullmatch(text):
        host, path, end = found[1], found[2] or b"", found[3]
        if path in (b"", b"/") and end != b"|":
            if path or end:
                yield read_whole_host(host, Kind.HOST_ONLY)
            else:
                refuse_part_of_name(host)
                yield read_whole_host(host, Kind.HOST_ONLY)
                yield NotOurs(LONGER)
            return
        if end:
            yield read_url_entry(text[1:-1])
            return
        if path[-1:] == b"/" and b"?" not in path:
            yield read_url_entry(text[1:] + b"*")
            return
    if re.search(rb"[./*^=_?&:,;%+~-]", text) and re.search(rb"\w", text):
        if b" " in text:
            raise BadEntry("has a space inside; is this a hosts file?")
        raise NotOurs("patterns that match parts of URLs")
    raise BadEntry("is no rule; hosts are ||name^")


def refuse_part_of_name(text: bytes) -> None:
    """Raises NotOurs for what can be no whole name but the beginning of some."""
    if b"." not in text[:-1] or text[-1:] in (b".", b"-") or (
            host_address(text) is not None and canonical_host(text) != text):
        raise NotOurs("patterns that match parts of names")


def check_options(options: list[bytes], exception: bool) -> None:
    """Raises NotOurs where the options leave less of the rule than the page itself for everybody."""
    page = bool(PAGES.intersection(options)) or b"all" in options
    for option in options:
        if option in WHOLE or option in PAGES or (page and option in KINDS):
            continue
        name = option.partition(b"=")[0]
        raise NotOurs(f"rules that hold under conditions (${name[:LONG_OPTION].decode('ascii', 'replace')})",
                      harmless=exception and name in HARMLESS and not page)


def read_whole_host(text: bytes, kind: Kind) -> tuple[Kind, bytes, int]:
    """Everything on a host; on an address every page, for others may be at the same address."""
    if host_address(text) is not None:
        return read_url_entry(text + b"/*")
    if text[:1] == b"=":
        raise BadEntry("has a '=' in front of the name")
    stated, key = read_host_entry(text)
    return stated if stated is Kind.SUBDOMAINS else kind, key, 0
