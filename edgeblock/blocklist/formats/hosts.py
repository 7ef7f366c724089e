"""Hosts files: an address that leads nowhere, then the names that are to go there.

In: a file opened for reading bytes. Out: items in the order of the lines. A name in a hosts file is that name and
none below it; with `subdomains` it is both.
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import BinaryIO

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.entries import NOT_ASKED, AnAddress, read_host_entry, refuse_address
from edgeblock.blocklist.formats.lines import BadEntry, Entry, Item, Passed, Problem, shown
from edgeblock.blocklist.formats.scan import Shapes, read_lines

USUAL = (b"0.0.0.0", b"127.0.0.1", b"::", b"::1")
NOWHERE = frozenset(ipaddress.ip_address(text) for text in ("0.0.0.0", "127.0.0.1", "::", "::1"))

# What a machine calls itself and its networks, in the hosts files that systems and list makers ship.
OWN_NAMES = frozenset((
    b"localhost", b"localhost.localdomain", b"localhost4", b"localhost4.localdomain4", b"localhost6",
    b"localhost6.localdomain6", b"local", b"localdomain", b"loopback", b"broadcasthost", b"0.0.0.0", b"127.0.0.1",
    b"::1", b"ip6-localhost", b"ip6-loopback", b"ip6-localnet", b"ip6-mcastprefix", b"ip6-allnodes",
    b"ip6-allrouters", b"ip6-allhosts"))

FRONTS = [address + blank for address in USUAL for blank in (b" ", b"\t")]
NARROW, WIDE = (Shapes([(front, b"", kind, False) for front in FRONTS], apart=OWN_NAMES)
                for kind in (Kind.HOST_ONLY, Kind.HOST))


def read_hosts(file: BinaryIO, subdomains: bool = False) -> Iterator[Item]:
    """Lines such as `0.0.0.0 example.com www.example.com # why`."""
    for number, line in read_lines(file, shapes=WIDE if subdomains else NARROW):
        if type(line) is not bytes:
            yield line
        else:
            yield from read_hosts_line(number, line, subdomains)


def read_hosts_line(number: int, line: bytes, subdomains: bool) -> Iterator[Item]:
    """What one line says; `line` is neither blank nor a comment."""
    words = line.partition(b"#")[0].split()
    address, names = words[0], words[1:]
    if names and all(name.lower().rstrip(b".") in OWN_NAMES for name in names):
        yield Passed(number, "names of the machine itself, such as localhost")
        return
    if names and address in USUAL:
        yield from read_names(number, names, subdomains)
        return
    try:
        nowhere = ipaddress.ip_address(address.partition(b"%")[0].decode("ascii", "replace"))
    except ValueError:
        if re.match(rb"(?:0\.0\.0\.0|127\.0\.0\.1)[^\d.:/-]", address):
            yield Problem(number, f"{shown(line)} has no blank behind the address")
        elif names:
            yield Problem(number, f"{shown(address)} is no address; write 0.0.0.0 in front of names")
        else:
            yield Problem(number, f"{shown(line)} has no address in front; write 0.0.0.0 {shown(address)[1:-1]}, or "
                                  "name the file .list, which has names alone")
        return
    if nowhere not in NOWHERE:
        yield Problem(number, f"{shown(line)} leads to {nowhere}; only 0.0.0.0, 127.0.0.1, :: and ::1 mean that a "
                              "name is blocked")
    elif not names:
        yield Problem(number, f"{shown(line)} has no name behind the address")
    else:
        yield from read_names(number, names, subdomains)


def read_names(number: int, names: list[bytes], subdomains: bool) -> Iterator[Item]:
    # All of a line or nothing of it: what stands beside a word that is no name may be no list of names either.
    entries: list[Item] = []
    for name in names:
        if name.lower().rstrip(b".") in OWN_NAMES:
            continue
        try:
            refuse_address(name)
            if name[:1] in (b"=", b".") or name[:2] == b"*." or b"/" in name:
                raise BadEntry("is no name; a hosts file has names alone, and only '#' begins a comment")
            _, key = read_host_entry(name)
        except AnAddress:
            entries.append(Passed(number, NOT_ASKED))
            continue
        except BadEntry as error:
            yield Problem(number, f"{shown(name)} {error}")
            return
        entries.append(Entry(number, Kind.HOST if subdomains else Kind.HOST_ONLY, key))
    yield from entries
