"""Block lists as resolvers and proxies are configured with them: dnsmasq, unbound, BIND, and domain sets.

In: a file opened for reading bytes. Out: items in the order of the lines.

    dnsmasq      address=/name/... and local=/name/ (also several names between slashes) -> the name and all below it;
                 server=/name/ likewise; with a server's address behind it, and so for server=/name/#: an exception
    unbound      local-zone: "name" always_nxdomain (or another type that gives no answer from elsewhere) -> the name
                 and all below it; transparent, typetransparent, always_transparent -> an exception;
                 local-data: "name A 0.0.0.0" -> that name only
    bind         zone "name" { type master; file "null"; }; -> the name and all below it; zones of other types than
                 master and primary are answered from elsewhere, and passed over
    domain sets  domain:name and +.name and .name -> the name and all below it; full:name -> that name only;
                 DOMAIN-SUFFIX,name and DOMAIN,name likewise (HOST-SUFFIX, HOST); IP-CIDR,prefix -> destinations; with
                 a policy behind it that does not reject (DIRECT, PROXY) it lets pass; a bare name is the name
                 and all below it in a v2fly file, that name only in one of clash (where others begin with +. or .)
Sources: the manuals dnsmasq(8), unbound.conf(5) and named.conf(5); v2fly's domain-list-community; clash's rule
providers.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.entries import (
    NOT_ASKED,
    AnAddress,
    read_address,
    read_host_entry,
    refuse_address,
)
from edgeblock.blocklist.formats.lines import BadEntry, Entry, Item, Passed, Problem, shown
from edgeblock.blocklist.formats.scan import Shapes, plain_host, read_lines

DNSMASQ = re.compile(rb"(?:--)?(address|server|local)=/([^ \t]*)/([^/]*)")
# Types of unbound's local zones that answer nothing of the name's own; and those that let questions pass.
CLOSED = frozenset((b"deny", b"refuse", b"static", b"redirect", b"inform_deny", b"inform_redirect", b"always_refuse",
                    b"always_nxdomain", b"always_null", b"always_nodata", b"always_deny", b"block_a"))
OPEN = frozenset((b"transparent", b"typetransparent", b"always_transparent", b"inform", b"nodefault", b"noview"))
ZONE = re.compile(rb"local-zone\s*:\s*(\"[^\"]*\"|'[^']*'|\S+)\s+(\S+)")
DATA = re.compile(rb"local-data\s*:\s*(\"[^\"]*\"|'[^']*'|\S+)")
COMMENT = re.compile(rb"(?<=\s)#")
ATTRIBUTE = re.compile(rb"[@&][\w!-]+")        # of v2fly's lists, behind a name
CLAUSE = re.compile(rb"[a-z-]+:$")
TYPED = re.compile(rb"(domain|full|keyword|regexp|include):(.*)", re.DOTALL)
RULE = re.compile(rb"(DOMAIN|DOMAIN-SUFFIX|DOMAIN-KEYWORD|DOMAIN-REGEX|DOMAIN-WILDCARD|IP-CIDR6?|[A-Z][A-Z0-9-]+),"
                  rb"([^,]*)(?:,(.*))?", re.IGNORECASE)


BIND_ZONE = re.compile(rb"zone\s*\"([^\"]+)\"\s*(?:in\s*)?\{\s*type\s+([a-z-]+)\s*;(?:[^{}]|\{[^{}]*\})*\}\s*;",
                       re.IGNORECASE)
BIND_OTHER = re.compile(rb"(?:options|include|acl|logging|key|server)\b[^{}]*(?:\{[^{}]*\})?\s*;", re.IGNORECASE)

# The lines that list makers write: what they consist of but for the name.
DNSMASQ_SHAPES = Shapes([(b"address=/", end, Kind.HOST, False) for end in (b"/", b"/0.0.0.0", b"/::", b"/#")]
                        + [(front, b"/", Kind.HOST, False) for front in (b"local=/", b"server=/")])
UNBOUND_SHAPES = Shapes([(b'local-zone: "', b'" ' + kind, Kind.HOST, False)
                         for kind in (b"always_nxdomain", b"always_null", b"refuse", b"static", b"redirect")]
                        + [(b'local-data: "', b' A 0.0.0.0"', Kind.HOST_ONLY, False)])
SET_SHAPES = Shapes(((b"domain:", b"", Kind.HOST, False), (b"full:", b"", Kind.HOST_ONLY, False),
                     (b"DOMAIN-SUFFIX,", b"", Kind.HOST, False), (b"DOMAIN,", b"", Kind.HOST_ONLY, False)))


def name_entry(number: int, name: bytes, kind: Kind, exception: bool = False) -> Entry | Passed:
    """The entry of a bare name; raises BadEntry for what is none."""
    try:
        refuse_address(name)
        if name[:1] in (b"=", b"*") or b"/" in name:
            raise BadEntry("is no name")
        return Entry(number, kind, read_host_entry(name.rstrip(b"."))[1], exception)
    except AnAddress:
        return Passed(number, NOT_ASKED, exception, shown(name) if exception else "")


def read_dnsmasq(file: BinaryIO) -> Iterator[Item]:
    for number, line in read_lines(file, shapes=DNSMASQ_SHAPES):
        if type(line) is not bytes:
            yield line
            continue
        line = line.partition(b" #")[0].rstrip()
        found = DNSMASQ.fullmatch(line)
        if not found:
            if re.match(rb"(?:--)?(?:address=|local=|server=/)", line):
                yield Problem(number, f"{shown(line)} has no name between slashes, as in address=/example.com/")
            elif re.match(rb"(?:--)?[a-z-]+(?:=|$)", line):
                yield Passed(number, "other settings of dnsmasq")
            else:
                yield Problem(number, f"{shown(line)} is no line of dnsmasq such as address=/example.com/")
            continue
        word, names, target = found[1], found[2].split(b"/"), found[3].strip()
        if b"#" in names:
            yield Problem(number, f"{shown(line)} stands for every name there is (#)")
            continue
        exception = bool(target) and word != b"address" or word == b"server" and target == b"#"
        if word == b"address" and target == b"#":
            exception = False
        try:
            yield from [name_entry(number, name, Kind.HOST, exception) for name in names]
        except BadEntry as error:
            yield Problem(number, f"{shown(line)} {error}")


def without_comment(line: bytes) -> bytes:
    """The line up to a blank and #."""
    found = COMMENT.search(line)
    return line[:found.start()].rstrip() if found else line


def without_attributes(text: bytes) -> bytes:
    words = text.split()
    count = len(words)
    while count > 1 and ATTRIBUTE.fullmatch(words[count - 1]):
        count -= 1
    return text if count == len(words) else b" ".join(words[:count])


def read_unbound(file: BinaryIO) -> Iterator[Item]:
    for number, line in read_lines(file, shapes=UNBOUND_SHAPES):
        if type(line) is not bytes:
            yield line
            continue
        line = without_comment(line)
        if CLAUSE.fullmatch(line):
            continue
        try:
            if found := ZONE.fullmatch(line):
                name, kind = found[1].strip(b"\"'"), found[2].strip(b"\"'").lower()
                if kind in OPEN:
                    yield name_entry(number, name, Kind.HOST, exception=True)
                elif kind in CLOSED:
                    yield name_entry(number, name, Kind.HOST)
                else:
                    raise BadEntry("has a type of zone that is not known")
            elif found := DATA.fullmatch(line):
                words = found[1].strip(b"\"'").split()
                if not words:
                    raise BadEntry("has no name")
                yield name_entry(number, words[0], Kind.HOST_ONLY)
            elif re.match(rb"[a-z-]+\s*:", line):
                yield Passed(number, "other settings of unbound")
            else:
                raise BadEntry("is no line of unbound such as local-zone: \"example.com\" always_nxdomain")
        except BadEntry as error:
            yield Problem(number, f"{shown(line)} {error}")


def read_bind(file: BinaryIO) -> Iterator[Item]:
    """Zones of named.conf, one a line, as list makers write them."""
    for number, line in read_lines(file):
        if isinstance(line, Problem):
            yield line
            continue
        if line[:2] == b"//" or line[:2] == b"/*" and line[-2:] == b"*/":
            continue
        try:
            if found := BIND_ZONE.fullmatch(line):
                if found[2].lower() in (b"master", b"primary"):
                    yield name_entry(number, found[1], Kind.HOST)
                else:
                    yield Passed(number, "zones that are answered from elsewhere (forward, stub, slave)")
            elif BIND_OTHER.fullmatch(line):
                yield Passed(number, "other settings of BIND")
            else:
                raise BadEntry('is no line such as zone "example.com" { type master; file "null"; };')
        except BadEntry as error:
            yield Problem(number, f"{shown(line)} {error}")


def read_domain_set(file: BinaryIO) -> Iterator[Item]:
    suffixed = False            # in this file names with all below them have a sign in front
    for number, line in read_lines(file, shapes=SET_SHAPES):
        if type(line) is not bytes:
            yield line
            continue
        if plain_host(line) and b"." in line:
            yield name_entry(number, line, Kind.HOST_ONLY if suffixed else Kind.HOST)
            continue
        line = without_comment(line)
        if line == b"payload:":
            continue
        text = line[1:].strip() if line[:1] == b"-" else line
        text = text.strip(b"\"'")
        text = without_attributes(text)
        if text[:2] == b"+." or text[:1] == b"." or line != text and line[:1] == b"-":
            suffixed = True
        try:
            yield from read_set_item(number, text, suffixed)
        except BadEntry as error:
            yield Problem(number, f"{shown(line)} {error}")


def read_set_item(number: int, text: bytes, suffixed: bool) -> Iterator[Item]:
    """What one item says; raises BadEntry for what is none."""
    if found := TYPED.fullmatch(text):
        word, value = found[1], re.split(rb"[:\s]@", found[2].strip())[0]
        if word in (b"keyword", b"regexp"):
            yield Passed(number, "patterns (keyword:, regexp:)")
        elif word == b"include":
            yield Passed(number, "includes of other files; drop those beside this one")
        else:
            yield name_entry(number, value, Kind.HOST if word == b"domain" else Kind.HOST_ONLY)
    elif (found := RULE.fullmatch(text)) and b"," in text:
        word, value = found[1].upper().replace(b"HOST", b"DOMAIN"), found[2].strip()
        policy = (found[3] or b"").partition(b",")[0].strip()
        if policy and policy.lower() != b"no-resolve" and policy[:6].upper() != b"REJECT":
            yield Passed(number, "rules that do not reject (DIRECT, PROXY and the like)", True, shown(text))
        elif word in (b"DOMAIN", b"DOMAIN-SUFFIX"):
            yield name_entry(number, value, Kind.HOST if word == b"DOMAIN-SUFFIX" else Kind.HOST_ONLY)
        elif word in (b"IP-CIDR", b"IP-CIDR6"):
            yield from addresses(number, value)
        else:
            yield Passed(number, "rules about other things than names and addresses")
    elif text[:2] == b"+.":
        yield name_entry(number, text[2:], Kind.HOST)
    elif text[:2] == b"*.":
        yield name_entry(number, text[2:], Kind.SUBDOMAINS)
    elif text[:1] == b".":
        yield name_entry(number, text[1:], Kind.HOST)
    elif read_address(text):
        yield from addresses(number, text)
    else:
        yield name_entry(number, text, Kind.HOST_ONLY if suffixed else Kind.HOST)


def addresses(number: int, text: bytes) -> Iterator[Item]:
    networks = read_address(text)
    if not networks:
        raise BadEntry("is no address")
    for kind, key in networks:
        yield Entry(number, kind, key)
