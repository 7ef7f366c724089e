"""What a file is, told from its first lines: so that nothing is read as a format that it is not.

In: the beginning of a file and the format that its name or its settings state. Out: None, or a sentence that says
what the file is and what to write. A file is another format only if nearly all of its first lines are; one line that
is odd is a Problem of its reader. Never here: an entry.
"""

import base64
import binascii
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from edgeblock.blocklist.formats.lines import Problem, shown
from edgeblock.blocklist.formats.scan import plain_host

HEAD = 16 * 1024        # bytes that are looked at: beyond the longest preamble that was seen
LINES_MAX = 64          # of them that are looked at
PLACES = 3              # lines of a file that is another format that are shown
SHARE = 0.6             # of those that have to be of one other format; a mixed list is its reader's to judge

# Lines that are a format's own and no other's. A line is of the first that fits.
SIGNS: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("adblock", re.compile(rb"(?:@@)?\|\|?\S|\[(?:Adblock|uBlock|AdGuard)[^\]]*\]|[^\s#]*#@?[?$%]{0,2}#|/.+/\$",
                           re.IGNORECASE)),
    ("dnsmasq", re.compile(rb"(?:address|server|local|ipset|nftset|bogus-nxdomain)=/?\S")),
    ("unbound", re.compile(rb"(?:local-zone|local-data(?:-ptr)?|server|rpz|include)\s*:(?:$|\s+\S|[\"'])")),
    ("v2fly", re.compile(rb"(?:domain|full|keyword|regexp|include):\S")),
    ("clash", re.compile(rb"payload:\s*$|-\s*['\"]|['\"]?\+\.\S|(?:DOMAIN|DOMAIN-SUFFIX|DOMAIN-KEYWORD|IP-CIDR6?),")),
    ("hosts", re.compile(rb"(?:0(?:\.0\.0\.0)?|127\.\d+\.\d+\.\d+|::1?|fe80::1%lo0|ff0[02]::[0-3]|255\.255\.255\.255)"
                         rb"[ \t]+[^\s/#;]+")),
    ("rpz", re.compile(rb"\$(?:TTL|ORIGIN)\b|(?:\S+[ \t]+)?(?:\d\S*[ \t]+)?(?:IN[ \t]+)?(?:SOA|CNAME|NS)[ \t]+\S",
                       re.IGNORECASE)),
)
# How each is written about: its name in the world, and what makes it be read.
WORDS = {
    "adblock": ("a filter list of ad blockers (adblock)", 'format = "adblock"', ".adblock"),
    "dnsmasq": ("a configuration of dnsmasq", 'format = "dnsmasq"', ".dnsmasq"),
    "unbound": ("a configuration of unbound", 'format = "unbound"', ".unbound"),
    "v2fly": ("a domain set of a proxy (v2fly)", 'format = "domain-set"', ".domains"),
    "clash": ("a domain set of a proxy (clash)", 'format = "domain-set"', ".domains"),
    "hosts": ("a hosts file", 'format = "hosts"', ".hosts"),
    "rpz": ("a response policy zone (rpz)", 'format = "rpz"', ".rpz"),
    "csv": ("a table (csv)", 'format = "csv"', ".csv"),
    "base64": ("a data set of an intrusion detection system: a base64 text a line", 'format = "dataset"', ".dataset"),
}
# What is no list at all, by how the file begins.
NO_LIST: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\s*<(?:!doctype|html|head|\?xml|svg|!--)", re.I), "an HTML or XML page, perhaps an error page of "
     "the server that it was fetched from; fetch it again"),
    (re.compile(rb"\s*(?:\{\s*[\"}]|\[\s*(?:[\"{\[]|\]))"), "JSON, which is not read; save its entries one a line"),
    (re.compile(rb"%PDF-"), "a PDF; save its entries as text, one a line"),
    (re.compile(rb"\{\\rtf"), "a text processor's file; save it as plain text"),
    (re.compile(rb"PK\x03\x04"), "a packed file or a spreadsheet; save it as CSV"),
    (re.compile(rb"\xd0\xcf\x11\xe0"), "an office document; save it as CSV or plain text"),
    (re.compile(rb"\x7fELF|MZ|\x89PNG|GIF8|\xff\xd8\xff"), "a program or a picture"),
)
# What each format may have lines of without being another.
SAME: dict[str, tuple[str, ...]] = {
    "adblock": ("adblock", "hosts"), "hosts": ("hosts",), "rpz": ("rpz",), "csv": ("csv",), "dnsmasq": ("dnsmasq",),
    "unbound": ("unbound",), "domain-set": ("v2fly", "clash"), "nfqfilter-addresses": ("hosts",),
    "dataset": ("base64",),
}
COMMENTS = (b"#", b";", b"!", b"//")
BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?|"
                    rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)")
HEADS = re.compile(rb"[\"']?[A-Za-z][\w ]{0,30}[\"']?(?:[,;\t|][ ]?[\"']?[\w ./()-]{0,40}[\"']?){1,40}")


def told(reader: Callable[[BinaryIO], Iterable[Any]], stated: str) -> Callable[[BinaryIO], Iterable[Any]]:
    """The reader of a format, which refuses a file that is another."""
    def read(file: BinaryIO) -> Iterable[Any]:
        head = head_of(file)
        why = foreign(head, stated)
        return [*places(head), Problem(1, why, whole=True)] if why else reader(file)
    return read


def head_of(file: BinaryIO) -> bytes:
    """The first bytes of a file, which stays where it is."""
    if hasattr(file, "peek"):
        return bytes(file.peek(HEAD)[:HEAD])
    if not file.seekable():
        return b""
    at = file.tell()
    head = file.read(HEAD)
    file.seek(at)
    return head


def foreign(head: bytes, stated: str) -> str | None:
    """What the file is that begins so, if not what is stated: a sentence without a final stop."""
    head = head.removeprefix(b"\xef\xbb\xbf")
    for sign, what in NO_LIST:
        if sign.match(head):
            return f"the file is {what}"
    whole = head.rpartition(b"\n")[0] if b"\n" in head and len(head) >= HEAD else head
    lines = [line.strip() for line in whole.splitlines()]
    lines = [line for line in lines if line and (not line.startswith(COMMENTS) or is_element_rule(line))][:LINES_MAX]
    if not lines:
        return None
    sorts = Counter(sort_of(line) for line in lines)
    if sorts[""] == len(lines) and HEADS.fullmatch(lines[0]) and is_table(lines):
        sorts = Counter({"csv": len(lines)})
    if all(map(is_base64_name, lines)):
        sorts = Counter({"base64": len(lines)})
    sort, count = sorts.most_common(1)[0]
    if not sort or sort in SAME.get(stated, ()) or count < SHARE * len(lines):
        return None
    what, key, extension = WORDS[sort]
    return (f"the file is {what}, and is to be read as {stated!r}; put {key} into the settings of this list, or name "
            f"the file {extension} and have no format in them")


def places(head: bytes) -> Iterator[Problem]:
    """The first lines of a file that is another format, as somebody looks for them there."""
    count = 0
    for number, line in enumerate(head.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        line = line.strip()
        if count < PLACES and (sort := sort_of(line)):
            count += 1
            yield Problem(number, f"{shown(line)} is a line of {WORDS[sort][0]}")


def is_element_rule(line: bytes) -> bool:
    return line[:1] == b"#" and bool(re.match(rb"#@?[?$%]{0,2}#\S", line))


def sort_of(line: bytes) -> str:
    for sort, sign in SIGNS:
        if sign.match(line):
            return sort
    return ""


def is_table(lines: list[bytes]) -> bool:
    """Whether the lines have the delimiter of the first as often as it has, and more than a name beside it."""
    if plain_host(lines[0]):
        return False
    for delimiter in (b",", b";", b"\t", b"|"):
        count = lines[0].count(delimiter)
        if count and len(lines) > 1 and all(line.count(delimiter) >= count for line in lines[1:]):
            return True
    return False


def is_base64_name(line: bytes) -> bool:
    """Whether a line is a host in base64 (RFC 4648, 4) and not itself one that anybody has: it has no dot."""
    if b"." in line or not BASE64.fullmatch(line):
        return False
    try:
        plain = base64.b64decode(line, validate=True)
    except binascii.Error:
        return False
    return b"." in plain and plain_host(plain) is not None
