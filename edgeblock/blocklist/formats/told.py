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

from edgeblock.blocklist.formats.lines import PACKED, Problem, shown
from edgeblock.blocklist.formats.scan import plain_host

HEAD = 16 * 1024        # bytes that are looked at: beyond the longest preamble that was seen
LINES_MAX = 64          # of them that are looked at
SIGN_MAX = 300          # bytes of a line in which a sign is looked for; some signs are sought at every place of it
PLACES = 3              # lines of a file that is another format that are shown
SHARE = 0.6             # of those that have to be of one other format; a mixed list is its reader's to judge

# Lines that are a format's own and no other's. A line is of the first that fits.
SIGNS: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("hashed", re.compile(rb"edgeblock-hashed \d|(?:@@)?[0-9a-f]{32} [a-z-]+$")),
    ("rules", re.compile(rb"(?:alert|drop|reject|pass|block)\s+(?:tcp|udp|ip|tls|http|dns|icmp|\()\S*[ (].*[;)]$")),
    ("rules", re.compile(rb"(?:alert|drop|reject|pass)\s+[a-z0-9]+\s[^\s].*\s(?:->|<>)\s")),
    ("router", re.compile(rb"/(?:ip|ipv6|system|routing) \S|add (?:list|name|address|dst-host)=|(?:-A|iptables"
                          rb"|ip6tables|ipset|nft|add rule|add element|route)[ \t]")),
    ("matrix", re.compile(rb"\S+ \S+ (?:\*|css|frame|image|media|script|xhr|cookie|other|doc|1p-script|3p) "
                          rb"(?:block|allow|noop|inherit)$")),
    ("bind", re.compile(rb"zone[ \t]*\"[^\"]+\"[^{]*\{", re.IGNORECASE)),
    ("adblock", re.compile(rb"(?:@@)?\|\|?\S|\[(?:Adblock|uBlock|AdGuard)[^\]]*\]|[^\s#]*#@?[?$%]{0,2}#|/.+/\$",
                           re.IGNORECASE)),
    ("dnsmasq", re.compile(rb"(?:--)?(?:address|server|local|ipset|nftset|bogus-nxdomain)=/?\S")),
    ("unbound", re.compile(rb"(?:local-zone|local-data(?:-ptr)?|server|rpz|include)\s*:(?:$|\s+\S|[\"'])")),
    ("v2fly", re.compile(rb"(?:domain|full|keyword|regexp|include):\S|[\w.-]+(?: [@&]!?[\w!-]+)+(?:\s*#.*)?$")),
    ("clash", re.compile(rb"payload:\s*$|-\s*['\"]|['\"]?\+\.\S|(?:DOMAIN|DOMAIN-SUFFIX|DOMAIN-KEYWORD|IP-CIDR6?),")),
    ("dotted", re.compile(rb"\.[\w-][\w.-]*$")),
    ("asn", re.compile(rb"AS\d{1,10}\b", re.IGNORECASE)),
    ("ranges", re.compile(rb"[^:]*:\d+\.\d+\.\d+\.\d+-\d+\.\d+\.\d+\.\d+$")),
    ("mail", re.compile(rb"(?!@@)[^\s@/|:]+@[A-Za-z0-9.-]+$")),
    ("hashes", re.compile(rb"(?:[0-9A-Fa-f]{32}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})(?:[\s,;:|].*)?$")),
    ("regex", re.compile(rb"(?:\^|\(\^|/\^|\(\?|\\[bdw.]).*|[^/\s]*(?:\\\.|\.\*|\[[^\]]*-[^\]]*\]"
                         rb"|\([^)\s]*\|[^)\s]*\))\S*$")),
    ("tpl", re.compile(rb"msFilterList$|[-+]d \S")),
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
    "dotted": ("a domain set of a proxy (names with a dot in front)", 'format = "domain-set"', ".domains"),
    "bind": ("a configuration of BIND", 'format = "bind"', ".bind"),
    "register": ("the dump of the Russian register", 'format = "register" and encoding = "cp1251"', ""),
    "maltrail": ("a trail of maltrail", 'format = "maltrail"', ""),
    "json": ("JSON", 'format = "json"', ".json"),
    "domains": ("a list of names, URLs or addresses", 'format = "domains"', ".list"),
    "columns": ("a table without heads (csv)", 'format = "csv" and column = 1', ""),
    "csv": ("a table (csv)", 'format = "csv"', ".csv"),
    "hashed": ("a hashed list", 'format = "hashed"', ".hashed"),
    "base64": ("a data set of an intrusion detection system: a base64 text a line", 'format = "dataset"', ".dataset"),
}
# Lines of files that no reader is for, and what to do with them.
FOREIGN = {
    "rules": "the rules of an intrusion detection system; drop the list that they were made of",
    "router": "commands of a router or a packet filter; drop the list that they were made of",
    "matrix": "rules of uMatrix, for a browser; drop the list that they were made of",
    "ranges": "ranges with a name in front (p2p, PeerGuardian); save the ranges alone, such as 192.0.2.0-192.0.2.9",
    "asn": "numbers of networks (AS); save their address ranges, such as 192.0.2.0/24",
    "privoxy": "actions of Privoxy, some of which block and some pass; drop the list that they were made of",
    "mail": "addresses of e-mail, which no connection names; save the names behind the '@' if they are meant",
    "hashes": "hash sums of files, which no connection names",
    "tpl": "a tracking protection list of a browser; drop the list that it was made of",
    "regex": "regular expressions, which are not read; list the names",
}
# What is no list at all, by how the file begins: text that is to be decoded first, and what never is one.
WIDE: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\xff\xfe|\xfe\xff"), 'UTF-16; save it as UTF-8, or put encoding = "utf-16" into the settings of '
     "this list"),
    (re.compile(rb"(?:[\t\r\n -~]\0){4}"), 'UTF-16; save it as UTF-8, or put encoding = "utf-16-le" into the '
     "settings of this list"),
    (re.compile(rb"(?:\0[\t\r\n -~]){4}"), 'UTF-16; save it as UTF-8, or put encoding = "utf-16-be" into the '
     "settings of this list"),
)
NEVER_LIST: tuple[tuple[re.Pattern[bytes], str], ...] = (
    *((re.compile(re.escape(magic)), f"packed ({name}); unpack it, or pack it once, with gzip or zstd")
      for magic, name in PACKED if name != "zip"),
    (re.compile(rb"\s*<(?:!doctype|html|head|\?xml|svg|!--)", re.I), "an HTML or XML page, perhaps an error page of "
     "the server that it was fetched from; fetch it again"),
    (re.compile(rb"%PDF-"), "a PDF; save its entries as text, one a line"),
    (re.compile(rb"\{\\rtf"), "a text processor's file; save it as plain text"),
    (re.compile(rb"PK\x03\x04"), "a packed file or a spreadsheet; save it as CSV"),
    (re.compile(rb"\xd0\xcf\x11\xe0"), "an office document; save it as CSV or plain text"),
    (re.compile(rb"\x7fELF|MZ|\x89PNG|GIF8|\xff\xd8\xff"), "a program or a picture"),
)
NO_LIST = (*WIDE, *NEVER_LIST)
# What each format may have lines of without being another.
SAME: dict[str, tuple[str, ...]] = {
    "adblock": ("adblock", "hosts", "regex"), "bind": ("bind",), "json": ("json",), "order": ("json",),
    "register": ("register",),
    "maltrail": ("maltrail", "regex", "domains"), "domains": ("domains",), "hosts": ("hosts",),
    "rpz": ("rpz",), "csv": ("csv", "columns", "register", "hashes", "mail", "dotted"), "dnsmasq": ("dnsmasq",),
    "unbound": ("unbound",), "domain-set": ("v2fly", "clash", "dotted"), "nfqfilter-addresses": ("hosts",),
    "dataset": ("base64",), "hashed": ("hashed",),
}
IS_ORDER = "an order: name it NAME.order.json"
# An order's own words beside its items, or those of an item: any of them may stand first.
ORDERS = tuple(re.compile(sign, re.DOTALL) for sign in (
    rb'\s*\{.*"items"\s*:\s*\[', rb'.*"(?:version"\s*:\s*"?1\b|id"\s*:\s*").*',
    rb'.*"(?:order"\s*:\s*"|kind"\s*:\s*"(?:host|host-only|subdomains|url|directory|address|endpoint)")'))
JSON = re.compile(rb"\s*(?:\{\s*[\"}]|\[\s*(?:[\"{\[]|\]))")
# Nobody but ad blockers begins a file so, whatever its lines are.
FILTER = re.compile(rb"\A(?:\s*[#;][^\n]*\n)*\s*(?:\[(?:Adblock|uBlock|AdGuard|ABP)[^\]\n]*\]\s*$|!(?:#| |\s*$))",
                    re.IGNORECASE | re.MULTILINE)
HASHED = re.compile(rb"\s*edgeblock-hashed \d")      # the rest may be addresses
PRIVOXY = re.compile(rb"\{[ \t]*[+-](?:block|handle-as-image|crunch|redirect)")    # above the names that it is for
MALTRAIL = re.compile(rb"\b[Mm]altrail\b")
UPDATED = re.compile(rb"Updated: \d{4}-\d\d-\d\d\b")
PREAMBLE = 16           # lines in which a list says who made it
PLAIN = re.compile(rb"(?:https?://)?[\w.-]+\.[\w-]+(?::\d+)?(?:/\S*)?|[0-9A-Fa-f]*:[0-9A-Fa-f:.]+(?:/\d+)?")
COMMENT = re.compile(rb"[ \t]#")
COMMENTS = (b"#", b";", b"!", b"//")
BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?|"
                    rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)")
HEADS = re.compile(rb"[\"']?[A-Za-z][\w ]{0,30}[\"']?(?:[,;\t|][ ]?[\"']?[\w ./()-]{0,40}[\"']?){1,40}")


def told(reader: Callable[[BinaryIO], Iterable[Any]], stated: str) -> Callable[[BinaryIO], Iterable[Any]]:
    """The reader of a format, which refuses a file that is another."""
    def read(file: BinaryIO) -> Iterable[Any]:
        head = head_of(file)
        why = foreign(head, stated)
        return [*places(head), Problem(1, why, True, why if stated == "order" else "")] if why else reader(file)
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
    for sign, what in NO_LIST:
        if sign.match(head):
            return f"the file is {what}"
    sort = main_sort(head)
    if stated == "json" and is_order(head):
        return f"the file is {IS_ORDER}"
    if stated == "nfqfilter-addresses" and sort == "domains" and names_alone(head):
        return ("the file has names, and is to be read as 'nfqfilter-addresses', which has addresses; put format = "
                '"domains" into the settings of this list, or name the file .list')
    if sort == "domains" or not sort or sort in SAME.get(stated, ()):
        return None
    if sort in FOREIGN:
        return f"the file is {FOREIGN[sort]}"
    what, key, extension = WORDS[sort]
    name = f", or name the file {extension} and have no format in them" if extension else ""
    return f"the file is {what}, and is to be read as {stated!r}; put {key} into the settings of this list{name}"


def why_never(head: bytes) -> str | None:
    """What a file is that no settings make a list of, as the end of a sentence; None where it may be one."""
    return next((f"it is {what}" for sign, what in NEVER_LIST if sign.match(head)), None)


def what_it_is(head: bytes) -> str | None:
    """The same of a file whose name says nothing, and what to write so that it is read; None where nothing does."""
    for sign, what in NO_LIST:
        if sign.match(head):
            return f"it is {what}"
    sort = main_sort(head)
    if sort == "domains" and any(sort_of(line.strip()) == "v2fly" for line in head.splitlines()):
        sort = "v2fly"          # most of its lines are names alone
    if not sort:
        return None
    if is_order(head):
        return f"it is {IS_ORDER}"
    if sort in FOREIGN:
        return f"it is {FOREIGN[sort]}"
    what, key, extension = WORDS[sort]
    return f"it is {what}; put {key} into NAME.toml" + (f", or name the file {extension}" if extension else "")


def is_order(head: bytes) -> bool:
    """Whether a file of JSON begins as an order does."""
    return all(sign.match(head.removeprefix(b"\xef\xbb\xbf")) for sign in ORDERS)


def main_sort(head: bytes) -> str:
    """Of which sort nearly all of the first lines are: a key of WORDS or FOREIGN; "" where of none."""
    head = head.removeprefix(b"\xef\xbb\xbf")
    if JSON.match(head):
        return "json"
    if HASHED.match(head):
        return "hashed"
    if FILTER.search(head):
        return "adblock"
    whole = head.rpartition(b"\n")[0] if b"\n" in head and len(head) >= HEAD else head
    lines = [line.strip() for line in whole.splitlines()]
    if is_register(whole):
        return "register"
    comments = b" ".join(line for line in lines[:PREAMBLE] if line.startswith(COMMENTS))
    lines = [line for line in lines if line and (not line.startswith(COMMENTS) or is_element_rule(line))][:LINES_MAX]
    if not lines:
        return ""
    if MALTRAIL.search(comments):
        return "maltrail"
    if any(map(PRIVOXY.match, lines)):
        return "privoxy"
    sorts = Counter(sort_of(line) for line in lines)
    if sorts[""] == len(lines):
        if HEADS.fullmatch(lines[0]) and is_table(lines):
            return "csv"
        if is_columns(lines):
            return "columns"
    if all(map(is_base64_name, lines)):
        return "base64"
    sort, count = sorts.most_common(1)[0]
    if sort and count >= SHARE * len(lines):
        return sort
    return "domains" if sorts["v2fly"] + sum(map(is_plain, lines)) >= SHARE * len(lines) else ""


def is_register(head: bytes) -> bool:
    """Whether a file is the dump of the Russian register: when it was made, then rows of six fields."""
    lines = head.removeprefix(b"\xef\xbb\xbf").rpartition(b"\n")[0].splitlines() or [head]
    return bool(UPDATED.match(lines[0])) and all(line.count(b";") >= 5 for line in lines[1:] if line.strip())


def places(head: bytes) -> Iterator[Problem]:
    """The first lines of a file that is another format, as somebody looks for them there."""
    count = 0
    for number, line in enumerate(head.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        line = line.strip()
        if count < PLACES and (sort := sort_of(line)):
            count += 1
            what = WORDS[sort][0] if sort in WORDS else FOREIGN[sort].partition(";")[0]
            yield Problem(number, f"{shown(line)} is a line of {what}")


def is_element_rule(line: bytes) -> bool:
    return line[:1] == b"#" and bool(re.match(rb"#@?[?$%]{0,2}#\S", line))


def sort_of(line: bytes) -> str:
    line = line[:SIGN_MAX]
    for sort, sign in SIGNS:
        if sign.match(line):
            return sort
    return ""


def is_columns(lines: list[bytes]) -> bool:
    """Whether every line is a name or an address and, behind a tab, a comma or a semicolon, something about it."""
    for delimiter in (b"\t", b",", b";"):
        if len(lines) > 1 and all(line.count(delimiter) == lines[0].count(delimiter) > 0 for line in lines):
            firsts = [line.partition(delimiter)[0].strip() for line in lines]
            rests = [line.partition(delimiter)[2].strip() for line in lines]
            return all(map(is_plain, firsts)) and all(rests) and not any(delimiter == b"," and is_plain(rest)
                                                                         for rest in rests)
    return False


def names_alone(head: bytes) -> bool:
    """Whether all that is not a comment are names: no address, with or without a port, is one."""
    whole = head.rpartition(b"\n")[0] if b"\n" in head and len(head) >= HEAD else head
    lines = [line.strip() for line in whole.splitlines()]
    return all(plain_host(line) for line in lines if line and not line.startswith(COMMENTS))


def is_plain(line: bytes) -> bool:
    """Whether a line looks like a name, a URL or an address."""
    line = COMMENT.split(line, maxsplit=1)[0].rstrip()
    text = line.removeprefix(b"*.").removeprefix(b"=")
    return b"." in text and plain_host(text) is not None or bool(PLAIN.fullmatch(line))


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
