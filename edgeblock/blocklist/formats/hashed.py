"""Hashed lists: fingerprints in place of names, for boxes that are not to have the plain text.

In: a file opened for reading bytes; or rows and addresses, and a file to write to. Out: items in the order of the
lines; or the file:

    edgeblock-hashed 1 key=ID labels=HEX depths=HEX url_max=N directory_max=N
    192.0.2.0/24
    @@[2001:db8::1]:443
    FINGERPRINT host
    @@FINGERPRINT url
    end ENTRIES DIGEST

A fingerprint is the 32 hex digits of what a snapshot has for the same entry under the same key, so a hashed list
judges as the plain one does. `labels`, `depths`, `url_max` and `directory_max` are the bounds of compiler.Compiled,
for the whole list, so that no line says how long its name is. A `urls-of` line says that a host has URLs in the list,
not which. Addresses are in the clear: all four thousand million can be hashed in minutes. The digest is BLAKE2b over
every line before the end; it finds a file that was cut or altered by accident. Against people, sign the list.

Nothing of a hashed list counts before its end was seen, so whoever reads one waits for that.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import BinaryIO, NamedTuple

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.entries import network_text, read_address
from edgeblock.blocklist.formats.lines import BLANKS, BadEntry, Entry, Passed, Problem, shown
from edgeblock.blocklist.formats.scan import read_lines

VERSION = 2             # 1 where no host has an address: the same without the bounds of these
DIGEST_SIZE = 32
WORDS = {Kind.HOST: b"host", Kind.HOST_ONLY: b"host-only", Kind.SUBDOMAINS: b"subdomains",
         Kind.URL_WITH_QUERY: b"url-query", Kind.URL: b"url", Kind.DIRECTORY: b"directory", Kind.URL_MARK: b"urls-of",
         Kind.HOST_AT: b"host-at", Kind.HOST_ONLY_AT: b"host-only-at", Kind.SUBDOMAINS_AT: b"subdomains-at",
         Kind.AT_MARK: b"addresses-of"}
MARKS = (Kind.URL_MARK, Kind.AT_MARK)   # lines that are no rules
KINDS = {word: kind for kind, word in WORDS.items()}
HEAD = re.compile(rb"edgeblock-hashed (\d{1,9})(?: key=([0-9a-f]{16}) labels=([0-9a-f]{1,16}) depths=([0-9a-f]{1,9})"
                  rb" url_max=(\d{1,4}) directory_max=(\d{1,4})"
                  rb"(?: at_ipv4=([0-9a-f]{1,9}) at_ipv6=([0-9a-f]{1,33}))?)?")
LINE = re.compile(rb"(@@)?([0-9a-f]{32}) ([a-z-]+)")
END = re.compile(rb"end (\d{1,12}) ([0-9a-f]{64})")


@dataclass(frozen=True)
class HashedHead:
    """What holds for a whole hashed list: the id of its key, and the bounds of its entries (compiler.Compiled)."""

    key_id: bytes
    labels: int
    depths: int
    url_max: int
    directory_max: int
    at_ipv4: int = 0
    at_ipv6: int = 0

    def as_line(self) -> bytes:
        at = f" at_ipv4={self.at_ipv4:x} at_ipv6={self.at_ipv6:x}" if self.at_ipv4 or self.at_ipv6 else ""
        return (f"edgeblock-hashed {VERSION if at else 1} key={self.key_id.hex()} labels={self.labels:x} "
                f"depths={self.depths:x} url_max={self.url_max} directory_max={self.directory_max}{at}").encode()


class HashedEntry(NamedTuple):
    """One rule of a hashed list: the fingerprint of an Entry's key. One of MARKS is no rule, but the host of URL
    entries, or of entries with an address."""

    line: int
    kind: Kind
    print: bytes
    exception: bool
    head: HashedHead


def read_hashed(file: BinaryIO) -> Iterator[Entry | HashedEntry | Problem | Passed]:
    """Entries, and at the end or at the first wrong line a Problem with the file as a whole if there is one."""
    head: HashedHead | None = None
    digest = blake2b(digest_size=DIGEST_SIZE)
    entries = 0
    end: re.Match[bytes] | None = None
    number = 0
    for number, line in read_lines(file):
        if isinstance(line, Problem):
            yield line._replace(whole=True)
            return
        if end is not None:
            yield Problem(number, f"{shown(line)} stands behind the end of the hashed list", whole=True)
            return
        if head is None:
            found = HEAD.fullmatch(line)
            why = "is no hashed list; make it with `edgeblock hash-list`"
            if found and found[7] and (int(found[7], 16) >> 33 or int(found[8], 16) >> 129):
                found = None
            elif found and not 1 <= int(found[1]) <= VERSION:
                why = f"is a hashed list of version {int(found[1])}, this edgeblock reads {VERSION}; make it again"
            elif found and found[2]:
                head = HashedHead(bytes.fromhex(found[2].decode()), int(found[3], 16), int(found[4], 16),
                                  int(found[5]), int(found[6]), int(found[7] or "0", 16), int(found[8] or "0", 16))
                digest.update(line + b"\n")
                continue
            yield Problem(number, why, whole=True)
            return
        if end := END.fullmatch(line):
            continue
        digest.update(line + b"\n")
        if (found := LINE.fullmatch(line)) and (kind := KINDS.get(found[3])):
            entries += kind not in MARKS
            yield HashedEntry(number, kind, bytes.fromhex(found[2].decode()), found[1] is not None, head)
            continue
        exception = line[:2] == b"@@"
        try:
            networks = read_address(line[2:].lstrip(BLANKS) if exception else line)
        except BadEntry:
            networks = []
        if not networks:
            yield Problem(number, f"{shown(line)} is no line of a hashed list; it was altered: make or copy it again",
                          whole=True)
            return
        entries += len(networks)
        for network_kind, key in networks:
            yield Entry(number, network_kind, key, exception)
    if end is None:
        yield Problem(number or 1, "the end of the hashed list is missing; make or copy it again", whole=True)
    elif int(end[1]) != entries or end[2] != digest.hexdigest().encode():
        yield Problem(number, f"the hashed list was altered: it says {int(end[1])} entries under a digest that does "
                              "not fit; make or copy it again", whole=True)


def write_hashed(file: BinaryIO, head: HashedHead, addresses: Iterable[tuple[bytes, bool]],
                 prints: Iterable[tuple[bytes, Kind, bool]]) -> int:
    """Writes a hashed list; how many entries it has.

    Args:
        addresses: network keys and whether each is an exception.
        prints: fingerprints with their kinds, MARKS among them, and whether each is an exception.
    """
    digest = blake2b(digest_size=DIGEST_SIZE)
    entries = 0

    def put(line: bytes) -> None:
        digest.update(line + b"\n")
        file.write(line + b"\n")

    put(head.as_line())
    for key, exception in addresses:
        put((b"@@" if exception else b"") + network_text(key).encode())
        entries += 1
    for print, kind, exception in prints:
        put((b"@@" if exception else b"") + print.hex().encode() + b" " + WORDS[kind])
        entries += kind not in MARKS
    file.write(f"end {entries} {digest.hexdigest()}\n".encode())
    return entries
