"""What one entry of a list can look like: hosts, URLs and addresses (docs/lists.md).

In: the text of one entry. Out: its kind and key, or BadEntry with the reason as the end of a sentence. Never here: a
file, a line number.
"""

import ipaddress
import re
from contextlib import suppress

from edgeblock.blocklist.canonical import canonical_host, canonical_url, host_address, why_not_host, why_not_url
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.lines import BLANKS, BadEntry, shown
from edgeblock.blocklist.formats.scan import Shapes, plain_host

DIRECTORY_DEPTH_MAX = 32    # segments of a directory entry: each costs a look-up of the URLs of its host
AT_LABELS_MAX = 8           # of a host at an address: each may cost a look-up for every length of a prefix
AT_KINDS = {Kind.HOST: Kind.HOST_AT, Kind.HOST_ONLY: Kind.HOST_ONLY_AT, Kind.SUBDOMAINS: Kind.SUBDOMAINS_AT}
AT = re.compile(rb"(?<=[ \t])@(?!@)|(?<!@)@(?=[ \t])")

ADDRESS_MAX = 128           # bytes; two IPv6 addresses with all around them are fewer. Longer ones are none
IPV4_LIKE = re.compile(rb"(\d+\.\d+\.\d+\.\d+)(?:(/\d+)|:(\d+)|-(\d+\.\d+\.\d+\.\d+))?")
IPV6_LIKE = re.compile(rb"(?:([0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)(/\d+)?|\[([0-9A-Fa-f:.]+)\](?::(\d+))?)")

SHAPES = Shapes(((b"", b"", Kind.HOST, False), (b"*.", b"", Kind.SUBDOMAINS, False),
                 (b"=", b"", Kind.HOST_ONLY, False)), urls=True, addresses=True)
# What stood beside a host in a spreadsheet, a program or a sentence, or was done to it so that nobody clicks on it: a
# host has letters, digits, hyphens (RFC 952, RFC 1123 2.1) and underscores, or is an address in brackets.
PUNCTUATION = re.compile(rb"[^A-Za-z0-9._\-\[\]:]|[\[\]](?!$)(?<!^.)")
# Not any word: hxxp:// and htp:// are mistakes, and not passed over.
SCHEME = re.compile(rb"(?:ftps?|sftp|tftp|smb|cifs|nfs|tcp|udp|ssh|telnet|ldaps?|ircs?|rtsp)://[^/\s]", re.IGNORECASE)
SCHEME_ALONE = re.compile(rb"https?/")          # http//example.com/
TO_ADDRESS = re.compile(rb"[^@]*@(?:\d+\.\d+\.\d+\.\d+|[0-9A-Fa-f]*:[0-9A-Fa-f:.]+)(?:/\d+)?")
# What looks like an address, and would be taken for a host or a page of one.
IPV4 = rb"\d+\.\d+\.\d+\.\d+"
NEARLY = tuple((re.compile(pattern), why) for pattern, why in (
    (IPV4 + rb"/\d+:\d+|\[[0-9A-Fa-f:.]+/\d+\]:\d+",
     "is a prefix with a port; write a line for each address and port, or leave out the port"),
    (IPV4 + rb"-" + IPV4 + rb":\d+",
     "is a range with a port; write a line for each address and port, or leave out the port"),
    (IPV4 + rb"(?::\d+)?/(?:tcp|udp)", "names a protocol, and an entry holds for every protocol; leave that out"),
    (rb"\d{1,3}\.\d{1,3}\.(?:\d{1,3}\.\*|\*\.\*)", "is no prefix; write it with a length, such as 192.0.2.0/24"),
    (rb"\[[0-9A-Fa-f:.]+/\d+\]|\[[0-9A-Fa-f:.]+\]/\d+", "is a prefix in brackets; write it without them"),
))
SHORT_RANGE = re.compile(rb"(\d+\.\d+\.\d+\.\d+)-(\d{1,3})")
RANGE6 = re.compile(rb"([0-9A-Fa-f:]*:[0-9A-Fa-f:]*)-([0-9A-Fa-f:]*:[0-9A-Fa-f:]*)")
SPACED = re.compile(rb"\d[\d.]* *- *\d[\d.]*")      # 192.0.2.1 - 192.0.2.5
NAMED_MAX = 3               # prefixes of a range that are written out for whoever has to
MASKED = re.compile(rb"\d+\.\d+\.\d+\.\d+/\d+\.\d+\.\d+\.\d+")

FORBIDDEN = re.compile(rb"[\0-\x20#%<>\[\\\]^|\x7f]")       # in a host, by whatever server (WHATWG URL, 3.3)
HAS_FORBIDDEN = why_not_host(b"<")              # what is said of them all
AUTHORITY = re.compile(rb"(?:https?:)?[/\\]*([^/\\?]*)", re.IGNORECASE)
# What is done to names so that nobody follows them: hxxp://example[.]com/.
DEFANGED = ((re.compile(rb"\Ahxxp(?=s?[\[:])", re.IGNORECASE), b"http"),
            (re.compile(rb"[\[({](\.|:|/|://)[\])}]"), rb"\1"),
            (re.compile(rb"[\[({]dot[\])}]", re.IGNORECASE), b"."))
HOSTS_LINE = re.compile(rb"(?:\d+\.\d+\.\d+\.\d+|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*)[ \t]+([^\s,;|]+)")
COMMENT_LIKE = re.compile(rb"(\S+[ \t]+)?(?://|/\*|--?[ \t]|!)")

NOT_ASKED = "addresses in the place of a name, which nobody asks a resolver for"


class AnAddress(BadEntry):
    """It is an address where a name should be. Whoever asks for an address asks no resolver, so in the formats of
    resolvers such a line does nothing."""

OTHER_SCHEME = "URLs of other protocols than HTTP"


class OtherScheme(BadEntry):
    """It is a URL, of a protocol that is not read here."""


# Addresses ---------------------------------------------------------------------------------------------------

def network_key(address: bytes, length: int, port: int | None = None) -> bytes:
    """What stands for an address prefix, and a port where there is one, among the keys: begins with a zero byte,
    which no host does."""
    return b"\0" + bytes([length]) + address + (b"" if port is None else port.to_bytes(2))


def network_text(key: bytes) -> str:
    """A network key as people write it: 192.0.2.0/24, 2001:db8::/32, 192.0.2.1:443, [2001:db8::1]:443."""
    size = 4 if len(key) < 16 else 16
    address = ipaddress.ip_address(key[2:2 + size])
    if port := key[2 + size:]:
        return f"{address}:{int.from_bytes(port)}" if size == 4 else f"[{address}]:{int.from_bytes(port)}"
    return str(address) if key[1] == 8 * size else f"{address}/{key[1]}"


def key_text(key: bytes) -> str:
    """A key as people write it: a host, host and path, an address, a host @ an address."""
    if key[:1] == b"\0":
        return network_text(key)
    name, zero, place = key.partition(b"\0")
    text = name.decode("utf-8", "backslashreplace")
    return f"{text} @ {network_text(zero + place)}" if zero else text


def such_as(masked: bytes) -> str:
    try:
        return f", {ipaddress.ip_network(masked.decode(), strict=False)}"
    except ValueError:
        return ", such as 192.0.2.0/24"


def whole_range(found: re.Match[bytes]) -> str:
    """What is wrong with a range that is nearly one, and what to write."""
    first, last = found[1].decode(), found[2].decode()
    if found.re is SHORT_RANGE:
        return f"is no whole range; write both addresses: {first}-{first.rpartition('.')[0]}.{last}"
    try:
        networks = list(ipaddress.summarize_address_range(ipaddress.IPv6Address(first), ipaddress.IPv6Address(last)))
    except ValueError:
        return "is a range of IPv6 addresses; write prefixes"
    some = ", ".join(map(str, networks[:NAMED_MAX]))
    return f"is a range of IPv6 addresses; write its {len(networks)} prefixes, a line each: {some}" + (
        ", ..." if len(networks) > NAMED_MAX else "")


def why_none(address: bytes, prefix: bytes | None, last: str | None) -> str:
    """Why what looks like an address, a prefix or a range is none."""
    most = 128 if b":" in address else 32
    if prefix is not None and int(prefix[1:]) > most:
        return f"has a prefix of more than {most} bits; write {address.decode()} for this one address"
    if re.fullmatch(IPV4, address) and max(map(int, address.split(b"."))) > 255:
        return "looks like an address but is none: it has a number over 255"
    with suppress(ValueError):
        if last is not None and ipaddress.IPv4Address(last) < ipaddress.IPv4Address(address.decode()):
            return f"ends before it begins; write {last}-{address.decode()}"
    return "looks like an address but is none"


def read_address(text: bytes) -> list[tuple[Kind, bytes]]:
    """Kinds and keys of an address entry (a range is several); empty when `text` does not look like one."""
    last: str | None = None
    if len(text) > ADDRESS_MAX:
        return []
    if found := IPV4_LIKE.fullmatch(text):
        address, prefix, port = found[1], found[2], found[3]
        last = found[4].decode() if found[4] else None
        if prefix is None and last is None and canonical_host(address) == address:
            return [read_port(host_address(address), port)]         # the usual one, without a detour
    elif found := IPV6_LIKE.fullmatch(text):
        address, prefix, port = found[1] or found[3], found[2], found[4]
    elif MASKED.fullmatch(text):
        raise BadEntry(f"is a range with a mask; write it as a prefix{such_as(text)}")
    else:
        for nearly, why in NEARLY if text[:1].isdigit() or b":" in text else ():
            if nearly.fullmatch(text):
                raise BadEntry(why)
        if found := SHORT_RANGE.fullmatch(text) or RANGE6.fullmatch(text):
            raise BadEntry(whole_range(found))
        return []
    try:
        first = ipaddress.ip_address(address.decode())
        if last is not None:
            return [(Kind.NETWORK, key) for key in range_keys(int(first), int(ipaddress.IPv4Address(last)))]
        network = ipaddress.ip_network(str(first) + (prefix or b"").decode(), strict=False)
        if network.network_address != first:
            raise BadEntry(f"has address bits beyond its prefix; write {network}")
    except ValueError:
        raise BadEntry(why_none(address, prefix, last)) from None
    if port is None:
        return [(Kind.NETWORK, network_key(network.network_address.packed, network.prefixlen))]
    return [read_port(first.packed, port)]


def range_keys(first: int, last: int) -> list[bytes]:
    """The keys of the IPv4 prefixes that a range consists of, at most 62.

    Raises:
        ValueError: it ends before it begins.
    """
    if last < first:
        raise ValueError
    keys = []
    while first <= last:
        free = min((first & -first).bit_length() - 1 if first else 32, (last - first + 1).bit_length() - 1)
        keys.append(network_key(first.to_bytes(4), 32 - free))
        first += 1 << free
    return keys


def read_port(address: bytes, port: bytes | None) -> tuple[Kind, bytes]:
    """Kind and key of an address with or without a port."""
    if port is None:
        return Kind.NETWORK, network_key(address, 8 * len(address))
    if len(port) > 5 or not 0 < int(port) < 65536:
        raise BadEntry("has a port that is no number from 1 to 65535")
    return Kind.ENDPOINT, network_key(address, 8 * len(address), int(port))


# Hosts and URLs ----------------------------------------------------------------------------------------------

def refuse_punctuation(host: bytes, text: bytes) -> None:
    """Raises BadEntry for what stood beside the host in another file, and would be a host that nobody has."""
    if found := PUNCTUATION.search(host):
        raise BadEntry(why_no_name(text, has_character(found[0])))


def has_character(one: bytes) -> str:
    return (f"has the character {one.decode('latin-1')!r} in its host, which no host has; " +
            ("a comment stands behind a blank and '#'" if one == b"#" else
             "one a line, without quotes and punctuation"))


def why_no_name(text: bytes, why: str) -> str:
    """Why a host or a URL is none, with what to write where that is known, and else with the character at fault."""
    plain = text
    for sign, real in DEFANGED:
        plain = sign.sub(real, plain)
    if plain != text and canonical_url(plain) is not None:
        return f"is written so that nobody follows it; write {shown(plain)[1:-1]}"
    if why == HAS_FORBIDDEN and (host := AUTHORITY.match(text)) and (found := FORBIDDEN.search(host[1])):
        return has_character(found[0])
    return why


def why_spaced(text: bytes, rest: str) -> str:
    """What is said of a line with a space in it, which is no entry; `rest` is the end where nothing more is known."""
    if (found := HOSTS_LINE.match(text)) and canonical_host(found[1]) is not None:
        return (f"is a line of a hosts file; write {shown(found[1])[1:-1]} alone, or put such lines into a list of "
                "their own, which ends in .hosts")
    if found := COMMENT_LIKE.match(text):
        return ("has a space inside; a comment stands behind a blank and '#'" if found[1] else
                "looks like a comment, and a comment begins with '#'")
    return f"has a space inside; {rest}"


def refuse_address(text: bytes) -> None:
    """Raises AnAddress for an address or a range, and BadEntry for what only looks like one."""
    if (text[:1].isdigit() or b":" in text) and read_address(text):
        raise AnAddress("is an address, and this is a place for names")


def host_of(text: bytes) -> bytes:
    """The canonical form of a host, which may have a port and, as on the wire, punctuation.

    Raises:
        BadEntry: it is none.
    """
    if b"*" in text:
        raise BadEntry("has a star; a star stands only in '*.' at the front of a host or '/*' at the end of a URL")
    if b"@@" in text:
        raise BadEntry("has '@@' inside; an exception begins with it, once, as in @@example.com")
    if b"@" in text:
        raise BadEntry("has an '@'; write the host alone" if not TO_ADDRESS.fullmatch(text) else
                       "has an '@' and an address behind it; for a host at an address put blanks around the '@'")
    if b"%" in text and len(text) <= ADDRESS_MAX and IPV6_LIKE.fullmatch(text.partition(b"%")[0]):
        raise BadEntry("is an address of one interface (%); no client asks for one through this box")
    key = canonical_host(text)
    if key is None:
        if text[:1] == b".":
            raise BadEntry(f"begins with a dot; write *{shown(text)[1:-1]} for what is below a host, and without the "
                           "dot for the host too")
        raise BadEntry(why_no_name(text, why_not_host(text)))
    return key


def read_host_entry(text: bytes) -> tuple[Kind, bytes]:
    kind = Kind.HOST
    if text[:1] == b"=":
        kind, text = Kind.HOST_ONLY, text[1:]
    elif text[:2] == b"*.":
        kind, text = Kind.SUBDOMAINS, text[2:]
    if plain := plain_host(text):
        return kind, plain
    key = host_of(text)
    refuse_punctuation(key, text)
    if host_address(text) is not None:
        if kind is Kind.HOST and text == key:
            raise BadEntry("is an address, and this is a place for names")
        if kind is Kind.HOST:
            raise BadEntry(f"is an address in an unusual form; write {key.decode()}")
        raise BadEntry("is an address; '=' and '*.' are for names")
    if b":" in text:
        raise BadEntry("has a port; a host entry covers every port")
    return kind, key


def url_of(text: bytes) -> bytes:
    """The canonical form of a URL, whose host may have punctuation.

    Raises:
        BadEntry: it is none; OtherScheme where it is one of another protocol.
    """
    if TO_ADDRESS.fullmatch(text):
        host_of(text)           # example.com@192.0.2.0/24
    key = canonical_url(text)
    if key is None:
        raise (OtherScheme if SCHEME.match(text) else BadEntry)(why_no_name(text, why_not_url(text)))
    if SCHEME_ALONE.match(key) and b"://" not in text:
        raise BadEntry("has no ':' behind http")
    return key


def read_url_entry(text: bytes) -> tuple[Kind, bytes, int]:
    kind, depth = Kind.URL, 0
    if text[:1] == b"=" or b"*." in text.split(b"/")[0] or b"//*." in text:
        raise BadEntry("is a URL, which is of one host; '=' and '*.' are for hosts")
    if text[-2:] == b"/*":
        kind, text = Kind.DIRECTORY, text[:-1]
        if b"?" in text or b"#" in text:
            raise BadEntry("has a query or fragment before '/*'; a directory has neither")
    if b"*" in text:
        raise BadEntry("has a star that is not '/*' at the end; write %2A for a real one")
    key = url_of(text)
    refuse_punctuation(key.partition(b"/")[0], text)
    if kind is Kind.DIRECTORY:
        depth = 0 if key[-1:] == b"/" else key.count(b"/")
        if depth > DIRECTORY_DEPTH_MAX:
            raise BadEntry(f"has more than {DIRECTORY_DEPTH_MAX} path segments before '/*'")
    elif b"?" in key:
        kind = Kind.URL_WITH_QUERY
    return kind, key, depth


def read_at(host: bytes, place: bytes) -> list[tuple[Kind, bytes, int]]:
    """A host where it leads to an address, a prefix or a range: the key is that of the host, then the address's."""
    if b"/" in host or b"?" in host:
        raise BadEntry("is a URL with an address; only a host can be blocked where it leads to an address")
    kind, key = read_host_entry(host)
    if key.count(b".") >= AT_LABELS_MAX:
        raise BadEntry(f"has a host of more than {AT_LABELS_MAX} labels, and an address")
    networks = read_address(place)
    if not networks:
        raise BadEntry("has no address behind '@'; write one, such as example.com @ 192.0.2.1")
    if networks[0][0] is Kind.ENDPOINT:
        raise BadEntry("has a port behind '@'; a host is blocked on every port, so leave that out")
    return [(AT_KINDS[kind], key + network, 0) for _, network in networks]


def read_entry(text: bytes) -> list[tuple[Kind, bytes, int]]:
    """Kind, key and depth of one entry; of each prefix of an address range."""
    if plain := SHAPES.entry(0, text):
        return [(plain.kind, plain.key, 0)]
    if b"\n" in text or b"\r" in text:
        raise BadEntry("has a line end inside")
    if b" " in text and len(text) <= ADDRESS_MAX and SPACED.fullmatch(text):
        raise BadEntry(f"is a range with spaces; write {text.replace(b' ', b'').decode()}")
    if b" " in text or b"\t" in text:
        if found := AT.search(text):
            return read_at(text[:found.start()].rstrip(BLANKS), text[found.end():].lstrip(BLANKS))
        raise BadEntry(why_spaced(text, "one entry a line, and %20 for a space in a URL"))
    if networks := read_address(text):
        return [(kind, key, 0) for kind, key in networks]
    if b"/" in text or b"?" in text or b"\\" in text:
        return [read_url_entry(text)]
    return [(*read_host_entry(text), 0)]
