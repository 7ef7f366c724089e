"""List files into entries, line by line.

In: a file opened for reading bytes. Out: an Entry for each thing listed and a Problem for each line that cannot be
used, in file order; a reader holds one line at a time and never raises for what a line says. What a format is
called and which file names have it is in READERS and EXTENSIONS at the end: a new format is one function and one
line there.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple

from edgeblock.blocklist.canonical import canonical_host, canonical_url, host_address, why_not_host, why_not_url
from edgeblock.blocklist.fingerprint import Kind

LINE_MAX = 16 * 1024    # a URL of 4096 canonical bytes is at most three times as long with every byte escaped
DIRECTORY_DEPTH_MAX = 32    # segments of a directory entry: each costs a look-up of the URLs of its host
SHOWN_MAX = 80          # characters of a line that a message repeats

BLANKS = b" \t\r\n\v\f"
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
COMMENT = re.compile(rb"[ \t][#;]")
PLAIN_HOST = re.compile(rb"(?:[A-Za-z0-9_-]+\.)*[A-Za-z_-][A-Za-z0-9_-]*")    # most lines of most lists
IPV4 = re.compile(rb"\d+\.\d+\.\d+\.\d+")
IPV4_LIKE = re.compile(rb"(\d+\.\d+\.\d+\.\d+)(?:(/\d+)|:(\d+)|-(\d+\.\d+\.\d+\.\d+))?")
IPV6_LIKE = re.compile(rb"(?:([0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)(/\d+)?|\[([0-9A-Fa-f:.]+)\](?::(\d+))?)")


class Entry(NamedTuple):
    """One rule of a list.

    `key` is what is compared: a canonical host; host, path and query of a canonical URL; or what `network_key`
    makes of an address. `depth` is the number of path segments of a DIRECTORY entry.
    """

    line: int
    kind: Kind
    key: bytes
    exception: bool = False
    depth: int = 0


class Problem(NamedTuple):
    """One line that cannot be used, and why, as a sentence without a final stop.

    `whole`: nothing of the file can be used, and nothing follows.
    """

    line: int
    why: str
    whole: bool = False


class Passed(NamedTuple):
    """A well-formed line that is nothing for this filter, and of what sort."""

    line: int
    why: str


class BadEntry(Exception):
    """Why a line is no entry: the end of a sentence that begins with the line. Never leaves this module."""


# What every reader of text lines shares ----------------------------------------------------------------------

def read_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | Problem]]:
    """Number and text of every line that is neither empty nor a comment; a Problem for one that is no text."""
    number = 0
    while line := file.readline(LINE_MAX + 1):
        number += 1
        if number == 1:
            if line[:2] in (b"\xff\xfe", b"\xfe\xff"):
                yield 1, Problem(1, "the file is UTF-16; save it as UTF-8")
                return
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) > LINE_MAX and line[-1:] != b"\n":
            while line and line[-1:] != b"\n":
                line = file.readline(LINE_MAX)
            yield number, Problem(number, f"the line is longer than {LINE_MAX} bytes")
            continue
        line = line.strip(BLANKS)
        if not line or line[0] in b"#;":
            continue
        if found := CONTROL.search(line):
            yield number, Problem(number, f"the line has a control character (0x{found[0][0]:02x})")
            continue
        if not line.isascii():
            try:
                line.decode()
            except UnicodeDecodeError as error:
                yield number, Problem(number, f"the line is not UTF-8 (0x{line[error.start]:02x}); save it as UTF-8")
                continue
        yield number, line


def shown(text: bytes) -> str:
    """A line as a message repeats it: printable, and not longer than a message bears."""
    whole = text.decode("utf-8", "backslashreplace")
    return repr(whole if len(whole) <= SHOWN_MAX else whole[:SHOWN_MAX] + "...")


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


def read_address(text: bytes) -> list[tuple[Kind, bytes]]:
    """Kinds and keys of an address entry (a range is several); empty when `text` does not look like one."""
    last: str | None = None
    if found := IPV4_LIKE.fullmatch(text):
        address, prefix, port = found[1], found[2], found[3]
        last = found[4].decode() if found[4] else None
    elif found := IPV6_LIKE.fullmatch(text):
        address, prefix, port = found[1] or found[3], found[2], found[4]
    else:
        return []
    try:
        first = ipaddress.ip_address(address.decode())
        networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network]
        if last is not None:
            networks = [*ipaddress.summarize_address_range(first, ipaddress.ip_address(last))]  # type: ignore
        else:
            networks = [ipaddress.ip_network(str(first) + (prefix or b"").decode(), strict=False)]
            if networks[0].network_address != first:
                raise BadEntry(f"has address bits beyond its prefix; write {networks[0]}")
    except ValueError:
        raise BadEntry("looks like an address but is none") from None
    if port is None:
        return [(Kind.NETWORK, network_key(network.network_address.packed, network.prefixlen))
                for network in networks]
    if not 0 < int(port[:6]) < 65536:
        raise BadEntry("has a port that is no number from 1 to 65535")
    return [(Kind.ENDPOINT, network_key(first.packed, first.max_prefixlen, int(port)))]


# The grammar of .list and .txt ----------------------------------------------------------------------------------

def read_host_entry(text: bytes) -> tuple[Kind, bytes]:
    kind = Kind.HOST
    if text[:1] == b"=":
        kind, text = Kind.HOST_ONLY, text[1:]
    elif text[:2] == b"*.":
        kind, text = Kind.SUBDOMAINS, text[2:]
    if b"*" in text:
        raise BadEntry("has a star; a star stands only in '*.' at the front of a host or '/*' at the end of a URL")
    if b"@" in text:
        raise BadEntry("has an '@'; write the host alone")
    key = canonical_host(text)
    if key is None:
        raise BadEntry(why_not_host(text))
    if host_address(text) is not None:
        if kind is Kind.HOST:
            raise BadEntry(f"is an address in an unusual form; write {key.decode()}")
        raise BadEntry("is an address; '=' and '*.' are for names")
    if b":" in text:
        raise BadEntry("has a port; a host entry covers every port")
    return kind, key


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
    key = canonical_url(text)
    if key is None:
        raise BadEntry(why_not_url(text))
    if kind is Kind.DIRECTORY:
        depth = 0 if key[-1:] == b"/" else key.count(b"/")
        if depth > DIRECTORY_DEPTH_MAX:
            raise BadEntry(f"has more than {DIRECTORY_DEPTH_MAX} path segments before '/*'")
    elif b"?" in key:
        kind = Kind.URL_WITH_QUERY
    return kind, key, depth


def read_entry(text: bytes) -> list[tuple[Kind, bytes, int]]:
    """Kind, key and depth of one entry; of each prefix of an address range."""
    if b" " in text or b"\t" in text:
        raise BadEntry("has a space inside; one entry a line, and %20 for a space in a URL")
    if networks := read_address(text):
        return [(kind, key, 0) for kind, key in networks]
    if b"/" in text or b"?" in text or b"\\" in text:
        return [read_url_entry(text)]
    return [(*read_host_entry(text), 0)]


def read_domains(file: BinaryIO) -> Iterator[Entry | Problem]:
    """Hosts, URLs, addresses and exceptions, mixed (DESIGN 3.1)."""
    for number, line in read_lines(file):
        if isinstance(line, Problem):
            yield line
            continue
        if PLAIN_HOST.fullmatch(line) and (key := canonical_host(line)):
            yield Entry(number, Kind.HOST, key)
            continue
        if comment := COMMENT.search(line):
            line = line[:comment.start()].rstrip(BLANKS)
        exception = line[:2] == b"@@"
        try:
            for kind, key, depth in read_entry(line[2:].lstrip(BLANKS) if exception else line):
                yield Entry(number, kind, key, exception, depth)
        except BadEntry as error:
            yield Problem(number, f"{shown(line)} {error}")


Reader = Callable[[BinaryIO], Iterable[Entry | Problem]]

# Every format by the name that settings use for it, and the file name extensions that have it when no settings say.
READERS: dict[str, Reader] = {"domains": read_domains}
EXTENSIONS: dict[str, str] = {".list": "domains", ".txt": "domains"}
