"""Response policy zones: the text of a zone (a master file, or what a zone transfer prints) into items.

In: a file opened for reading bytes. Out: items in the order of the records. The grammar is that of RFC 1035 section
5.1; which records mean what is said in draft-vixie-dnsop-dns-rpz. The name of the zone is the owner of its SOA record
(RFC 1035, 5.2), whatever the origin is there; without a SOA it is the first $ORIGIN; `zone` in the settings of the
list goes before both. What stands in front of it is the trigger. An absolute name in a file that says none of these
is no trigger of anybody's: the file asks for `zone`.

    trigger    example.com -> that host only; *.example.com -> subdomains only; 24.0.2.0.192.rpz-ip -> destinations
    policy     CNAME . and *. and rpz-drop., and local data of any type -> a block; CNAME rpz-passthru., and the older
               form in which a name leads to itself -> an exception

A trigger that is about who asks or which server answers, and a policy that changes how is asked, are Problems:
nothing here could enforce them. What keeps a zone going (SOA, NS, DNSSEC) is passed over.
"""

import ipaddress
import re
from array import array
from collections.abc import Iterator
from typing import BinaryIO

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.entries import (
    NOT_ASKED,
    AnAddress,
    network_key,
    read_host_entry,
    refuse_address,
)
from edgeblock.blocklist.formats.lines import BLANKS, BadEntry, Entry, Item, Passed, Problem, no_text, shown
from edgeblock.blocklist.formats.scan import Shapes, read_raw_lines

RECORD_MAX = 64 * 1024      # bytes of one record in parentheses: the most a record can have on the wire
TOKEN = re.compile(rb'[ \t]+|;[^\n]*|"(?:[^"\\]|\\.)*"|[()]|(?:[^ \t;()"\\]|\\.)+|(["\\])', re.DOTALL)
SPECIAL = re.compile(rb'[;"()\\\v\f\r]')      # what makes a line more than words
TTL = re.compile(rb"\d[\dsmhdwSMHDW]*")
CLASSES = frozenset((b"IN", b"CH", b"HS", b"CS", b"ANY"))
UPKEEP = frozenset((b"SOA", b"NS", b"RRSIG", b"NSEC", b"NSEC3", b"NSEC3PARAM", b"DNSKEY", b"DS", b"CDS", b"CDNSKEY",
                    b"ZONEMD", b"TYPE65534"))
TRIGGERS = {b"rpz-client-ip": "who asks", b"rpz-nsdname": "the name of a server", b"rpz-nsip":
            "the address of a server"}
ESCAPE = re.compile(rb"\\(\d{3}|.)", re.DOTALL)
TYPE = re.compile(rb"[A-Za-z][A-Za-z0-9-]*")

# What nearly every record is: a relative name, closed, or all below it.
SHAPES = Shapes(((b"", b" CNAME .", Kind.HOST_ONLY, False), (b"*.", b" CNAME .", Kind.SUBDOMAINS, False)))


class Nameless(Exception):
    """Nothing of the file can be used, because nobody says what its zone is called."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


class Zone:
    """What the records before have said: origin, zone, owner. `origin` is empty for the root."""

    def __init__(self, name: bytes | None) -> None:
        self.origin = name
        self.zone = name
        self.is_stated = name is not None   # by the settings or by a SOA: no $ORIGIN changes it
        self.owner: bytes | None = None
        self.is_absolute = False            # it ends with a dot
        self.wildcards = array("q")         # hashes of the names below which all is blocked
        self.open_wildcards: set[bytes] = set()     # names below which all passes
        self.passed: dict[bytes, int] = {}  # names that pass, and the line of each


def read_zone(file: BinaryIO, zone: str | None = None) -> Iterator[Item]:
    """Entries of the records, in order; a record in parentheses has the number of its first line.

    Args:
        zone: what the zone is called, as a name server's configuration says it; None: as the file says it.
    """
    try:
        yield from read_records(file, Zone(None if zone is None else zone.lower().rstrip(".").encode()))
    except Nameless as error:
        yield Problem(error.line, str(error), whole=True)


def read_records(file: BinaryIO, zone: Zone) -> Iterator[Item]:
    start, size, depth = 0, 0, 0
    tokens: list[bytes] = []
    for number, line in read_raw_lines(file):
        problem = line if isinstance(line, Problem) else no_text(number, line.rstrip(BLANKS))
        if isinstance(line, Problem) or problem:
            if problem is not None and (isinstance(line, Problem) or line.lstrip(BLANKS)[:1] != b";"):
                yield problem
            continue
        if depth == 0 and (entry := plain_record(zone, number, line)):
            yield entry
            continue
        if depth == 0:
            start, size, tokens = number, 0, []
            if line[:1] in (b" ", b"\t"):
                tokens.append(b"")
        size += len(line)
        if depth == 0 and not SPECIAL.search(line):
            tokens += line.split()          # as nearly all lines are
            if tokens and tokens != [b""]:
                yield from read_record(zone, start, tokens)
            continue
        for found in TOKEN.finditer(line):
            token = found[0]
            if found[1]:
                depth = -1
                break
            if token[:1] in b" \t;":
                continue
            if token == b"(":
                depth += 1
            elif token == b")":
                depth -= 1
                if depth < 0:
                    break
            else:
                tokens.append(token)
        if depth < 0:
            depth = 0
            yield Problem(number, f"{shown(line)} has a quote, a parenthesis or a backslash without its other half")
            continue
        if depth and size <= RECORD_MAX:
            continue
        if depth:
            depth = 0
            yield Problem(start, f"the record is longer than {RECORD_MAX} bytes; is its ')' missing?")
            continue
        if tokens and tokens != [b""]:
            yield from read_record(zone, start, tokens)
    if depth:
        yield Problem(start, "the record has a '(' without its ')'; is the end of the file missing?")
    yield from read_shadows(zone)


def plain_record(zone: Zone, number: int, line: bytes) -> Entry | None:
    """What a record of the plainest form says, as read_record has it; None for any other."""
    if zone.origin != zone.zone or zone.open_wildcards or (entry := SHAPES.entry(number, line)) is None:
        return None
    key = entry.key
    owner = line[:-len(b" CNAME .")].lower()
    if owner[-1:] == b"." or key[key.rfind(b".") + 1:].startswith(b"rpz-"):
        return None
    if entry.kind is Kind.SUBDOMAINS:
        zone.wildcards.append(hash(key))
    zone.owner, zone.is_absolute = owner + b"." + zone.origin if zone.origin else owner, zone.origin == b""
    return entry


def read_record(zone: Zone, number: int, tokens: list[bytes]) -> Iterator[Item]:
    """What one record says, or a directive; `tokens` begin with the owner, empty for the one before."""
    try:
        if tokens[0][:1] == b"$":
            read_directive(zone, tokens)
            return
        if tokens[0] == b"":
            if zone.owner is None:
                raise BadEntry("has no name in front, and no record before it has one")
        else:
            zone.owner = absolute(zone, tokens[0])
            zone.is_absolute = tokens[0][-1:] == b"." or zone.origin == b""
        at = 1
        while at < len(tokens) and (TTL.fullmatch(tokens[at]) or tokens[at].upper() in CLASSES):
            at += 1
        if at == len(tokens) or not TYPE.fullmatch(tokens[at]):
            raise BadEntry("has no type such as CNAME or A")
        kind, data = tokens[at].upper(), tokens[at + 1:]
        if not data:
            raise BadEntry(f"has nothing behind {kind.decode()}")
        if kind == b"SOA" and not zone.is_stated:
            zone.is_stated = True
            zone.zone = zone.owner or None
            if zone.origin is None and zone.is_absolute:
                zone.origin = zone.zone     # a file begins at the zone that it is loaded for
        if kind in UPKEEP:
            yield Passed(number, "records that keep the zone itself going (SOA, NS, DNSSEC)")
            return
        if zone.zone is None and zone.is_absolute:
            raise Nameless(number, f"{shown(tokens[0] or zone.owner or b'')} ends with a dot, and neither a SOA "
                           "record nor $ORIGIN says what the zone is called; put zone = \"NAME\" into the settings "
                           "of this list")
        yield from read_policy(zone, number, kind, data)
    except BadEntry as error:
        yield Problem(number, f"{shown(b' '.join(tokens).strip())} {error}")


def read_directive(zone: Zone, tokens: list[bytes]) -> None:
    word = tokens[0].upper()
    if word == b"$TTL":
        return
    if word != b"$ORIGIN":
        raise BadEntry("is a directive that is not read; write its records out")
    if len(tokens) != 2:
        raise BadEntry("needs one name behind it")
    zone.origin = absolute(zone, tokens[1])
    if zone.zone is None and zone.origin and not zone.is_stated:
        zone.zone = zone.origin


def absolute(zone: Zone, name: bytes) -> bytes:
    """A name with the origin behind it, in lower case, without the final dot; `@` is the origin."""
    name = (ESCAPE.sub(unescaped, name) if b"\\" in name else name).lower()
    if name == b"@":
        if zone.origin is None:
            # A file without $ORIGIN is loaded under a name that stands elsewhere: all names are relative to it.
            return b""
        return zone.origin
    if name[-1:] == b".":
        return name[:-1]
    return name + b"." + zone.origin if zone.origin else name


def unescaped(found: re.Match[bytes]) -> bytes:
    code = found[1]
    if len(code) == 3:
        if int(code) > 255:
            raise BadEntry("has an escape above \\255")
        code = bytes([int(code)])
    if code == b".":
        raise BadEntry("has a dot inside a label")
    return code


def trigger_of(zone: Zone) -> bytes:
    """The owner without the name of the zone; empty for the zone itself.

    Without a known zone (neither SOA nor $ORIGIN before) the whole owner.
    """
    owner = zone.owner or b""
    if not zone.zone:
        return owner
    if owner == zone.zone:
        return b""
    if not owner.endswith(b"." + zone.zone):
        raise BadEntry(f"is outside of the zone {zone.zone.decode('utf-8', 'backslashreplace')!r}")
    return owner[:-len(zone.zone) - 1]


def read_policy(zone: Zone, number: int, kind: bytes, data: list[bytes]) -> Iterator[Item]:
    trigger = trigger_of(zone)
    if trigger == b"":
        yield Passed(number, "records of the zone's own name")
        return
    exception = False
    if kind == b"CNAME" and len(data) > 1:
        raise BadEntry("has more than one name behind CNAME; was a line end lost?")
    if kind == b"CNAME":
        target = absolute(zone, data[0])
        if target[:4] == b"rpz-" and data[0][-1:] != b".":
            raise BadEntry(f"leads to a name inside the zone; write {shown(data[0])[1:-1]}. with its dot")
        if target == b"rpz-passthru" or target == trigger or target == trigger.removeprefix(b"*."):
            exception = True
        elif target == b"rpz-tcp-only":
            raise BadEntry("asks for TCP, which neither blocks nor passes")
        elif target[:4] == b"rpz-" and target != b"rpz-drop":
            raise BadEntry("has a policy that is not known")
    label = trigger.rpartition(b".")[2]
    if label == b"rpz-ip":
        yield Entry(number, Kind.NETWORK, read_rpz_ip(trigger[:-len(label) - 1]), exception)
        return
    if label in TRIGGERS:
        raise BadEntry(f"is about {TRIGGERS[label]} ({label.decode()}), which only a resolver sees")
    if trigger == b"*":
        raise BadEntry("stands for every name there is")
    try:
        refuse_address(trigger)
        stated, key = read_host_entry(trigger)
    except AnAddress:
        yield Passed(number, NOT_ASKED, exception, shown(trigger) if exception else "")
        return
    below = stated is Kind.SUBDOMAINS
    if exception and below:
        zone.open_wildcards.add(key)
    elif exception:
        zone.passed[key] = number
    elif zone.open_wildcards and (wider := next(filter(zone.open_wildcards.__contains__, parents(key)), None)):
        raise BadEntry(f"is blocked below *.{wider.decode()}, which passes; here an exception goes before a block, "
                       "so put it into a list of its own with mandatory = true")
    elif below:
        zone.wildcards.append(hash(key))
    yield Entry(number, Kind.SUBDOMAINS if below else Kind.HOST_ONLY, key, exception)


def parents(name: bytes) -> Iterator[bytes]:
    """The names above a name, the closest first."""
    while name := name.partition(b".")[2]:
        yield name


def read_shadows(zone: Zone) -> Iterator[Item]:
    """What lies below a name that passes: no wildcard from above holds there (RFC 4592, 2.2.1), only its own."""
    if not zone.passed or not zone.wildcards:
        return
    wanted = {hash(name) for passed in zone.passed for name in (passed, *parents(passed))}
    there = wanted.intersection(zone.wildcards)
    for name, number in zone.passed.items():
        if hash(name) not in there and any(hash(above) in there for above in parents(name)):
            yield Entry(number, Kind.SUBDOMAINS, name, True)


def read_rpz_ip(text: bytes) -> bytes:
    """The key of 24.0.2.0.192 (192.0.2.0/24) or 48.zz.db8.2001 (2001:db8::/48): a prefix length, then the address
    from its end."""
    length, _, rest = text.partition(b".")
    words = rest.split(b".")[::-1]
    try:
        if not length.isdigit() or len(length) > 3:
            raise ValueError
        address: ipaddress.IPv4Address | ipaddress.IPv6Address
        if len(words) == 4 and b"zz" not in words:
            address = ipaddress.IPv4Address(".".join(word.decode() for word in words))
        else:
            spelt = ":".join("" if word == b"zz" else word.decode() for word in words)
            if b"zz" in words[:1]:
                spelt = ":" + spelt
            if b"zz" in words[-1:]:
                spelt += ":"
            address = ipaddress.IPv6Address(spelt)
        network = ipaddress.ip_network((address, int(length)), strict=False)
    except ValueError:
        raise BadEntry("is no address in the way of rpz-ip, such as 24.0.2.0.192.rpz-ip for 192.0.2.0/24") from None
    if network.network_address != address:
        raise BadEntry(f"has address bits beyond its prefix, which is {network}")
    return network_key(address.packed, network.prefixlen)
