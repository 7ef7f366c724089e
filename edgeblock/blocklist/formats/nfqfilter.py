"""The five files that list makers write for nfqfilter and extFilter: domains, urls, ssl_host, hosts and ssl_ips.

In: a file opened for reading bytes. Out: items in the order of the lines. Both programs read them line by line, with
"#" and ";" in front of a comment, and know no exceptions. `domains` and `ssl_host` have names, and "*." in front of a
name for the name and everything below it; an address among them stands in the place of a name, as in
http://192.0.2.1/, and is every URL there; `urls` has URLs without their scheme, also in the bytes of another
encoding, as clients send them; `hosts` and `ssl_ips` have addresses, with or without a port.

A file named `hosts` is often a hosts file as systems have it. No line of one can be taken for a line of the other, so
both kinds are read.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.entries import read_address, read_host_entry, read_url_entry
from edgeblock.blocklist.formats.hosts import read_hosts_line
from edgeblock.blocklist.formats.lines import BadEntry, Entry, Item, Problem, shown
from edgeblock.blocklist.formats.scan import Shapes, read_lines

ADDRESS = re.compile(rb"\d+\.\d+\.\d+\.\d+")
NARROW, WIDE = (Shapes(((b"", b"", kind, False), (b"*.", b"", Kind.HOST, False)))
                for kind in (Kind.HOST_ONLY, Kind.HOST))
URLS = Shapes((), urls=True)
ADDRESSES = Shapes((), addresses=True)
# extFilter writes the prefix of an IPv6 range inside the brackets.
BRACKETED_RANGE = re.compile(rb"\[([0-9A-Fa-f:.]+/\d+)\]")


def read_nfqfilter_domains(file: BinaryIO, subdomains: bool = True) -> Iterator[Item]:
    """Names. Without `subdomains` a name without `*.` is that name alone, as extFilter has it."""
    for number, line in read_lines(file, shapes=WIDE if subdomains else NARROW):
        if type(line) is not bytes:
            yield line
            continue
        try:
            if line[:1] == b"=" or b"/" in line:
                raise BadEntry("is no name; this file has names alone")
            if ADDRESS.fullmatch(line):
                yield Entry(number, *read_url_entry(line + b"/*")[:2])
                continue
            kind, key = read_host_entry(line)
            yield Entry(number, Kind.HOST if kind is Kind.SUBDOMAINS or subdomains else Kind.HOST_ONLY, key)
        except BadEntry as error:
            yield Problem(number, f"{shown(line)} {error}")


def read_nfqfilter_urls(file: BinaryIO, raw: bool = True) -> Iterator[Item]:
    """URLs; a star is a star. With `raw` bytes that are no UTF-8 are taken as they are."""
    for number, line in read_lines(file, raw=raw, shapes=URLS):
        if type(line) is not bytes:
            yield line
            continue
        try:
            if b" " in line or b"\t" in line:
                raise BadEntry("has a space inside; one URL a line, and %20 for a space in it")
            kind, key, _ = read_url_entry(line.replace(b"*", b"%2A"))
            yield Entry(number, kind, key)
        except BadEntry as error:
            yield Problem(number, f"{shown(line)} {error}")


def read_nfqfilter_addresses(file: BinaryIO, subdomains: bool = False) -> Iterator[Item]:
    """Addresses and ranges, addresses with a port; and lines of a hosts file."""
    for number, line in read_lines(file, shapes=ADDRESSES):
        if type(line) is not bytes:
            yield line
            continue
        if b" " in line or b"\t" in line:
            yield from read_hosts_line(number, line, subdomains)
            continue
        found = BRACKETED_RANGE.fullmatch(line)
        try:
            networks = read_address(found[1] if found else line)
            if not networks:
                raise BadEntry("is no address with or without a port, such as 192.0.2.1:443 or [2001:db8::1]:443")
            for kind, key in networks:
                yield Entry(number, kind, key)
        except BadEntry as error:
            yield Problem(number, f"{shown(line)} {error}")
