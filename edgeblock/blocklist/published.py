"""The files in which owners publish their networks, into sections of shared networks (shared.py).

In: the bytes of files that an operator has dropped: prefixes one a line (or the first column of a table), or the JSON
of the large clouds and delivery networks. Out: sections with new ranges; or one line on what is wrong, and nothing
changed. Never here: the network, a file read, a clock.
"""

import ipaddress
import json
import re
from collections.abc import Iterable, Iterator, Sized
from dataclasses import replace
from datetime import date
from pathlib import PurePath
from typing import Any, NamedTuple

from edgeblock.blocklist.ranges import Network, Ranges, range_of
from edgeblock.blocklist.shared import TEXT_MAX, Section, Shared, in_order
from edgeblock.errors import ListError

PREFIXES = ("ip_prefix", "ipv4Prefix", "ipv6Prefix", "ipv6_prefix", "prefix", "cidr")      # one network
LISTS = ("addressPrefixes", "addresses", "ipv6_addresses", "ipv4_cidrs", "ipv6_cidrs", "ipRanges", "ipv6Ranges",
         "ips")                                                                             # networks
MARKS = ("service", "name", "serviceArea")      # beside or above networks: whose of the owner's services they are
DAYS = ("createDate", "creationTime", "last_updated_timestamp")
DAY = re.compile(r"(\d{4}-\d{2}-\d{2})(?!\d)")
STAMP = re.compile(r"_\d{8}$")                  # ServiceTags_Public_20260822.json
WIDEST = {4: 8, 6: 16}          # no owner has more in one prefix
COARSE = {4: 20, 6: 36}         # what is kept of a network where narrow entries may lie: it stays small
LEAST = 0.5                     # share of the networks so far below which a file is taken for cut off
DEPTH = 16                      # of JSON


class Published(NamedTuple):
    """What one file says: as of when, if that is known, and its networks with the owner's service, or ""."""

    day: date | None
    networks: list[tuple[str, Network]]


class Updated(NamedTuple):
    """A section as it is now and was before, if it was."""

    section: Section
    before: Section | None


def read_published(text: bytes, name: str) -> Published:
    """The networks of the file named `name`.

    Raises:
        ListError: it has none, or one that nobody can own; or it is in no form that is known.
    """
    try:
        said = text.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ListError(f"{name}: is no text in UTF-8; give the file as its owner publishes it") from None
    if said.lstrip()[:1] in ("{", "["):
        found = read_json(said, name)
    elif said.lstrip()[:1] == "<":
        raise ListError(f"{name}: is a web page; give the file that it leads to")
    else:
        found = Published(None, [("", network) for network in read_lines(said, name)])
    if not found.networks:
        raise ListError(f"{name}: no network was found in it; give prefixes one a line, or the JSON of the owner")
    for _, network in found.networks:
        if network.prefixlen < WIDEST[network.version]:
            raise ListError(f"{name}: {network} is wider than /{WIDEST[network.version]}, which no owner of one "
                            "network has; give the file that the owner publishes")
        if not network.is_global:
            raise ListError(f"{name}: {network} is no public network; give the file that the owner "
                            "publishes")
    return found


def read_lines(text: str, name: str) -> Iterator[Network]:
    for number, line in enumerate(text.splitlines(), 1):
        word = re.split(r"[\s,;#]", line.strip(), maxsplit=1)[0].strip('"')
        if word:
            yield read_network(word, f"{name}:{number}")
        elif line.strip() and line.strip()[0] not in "#;":
            raise ListError(f"{name}:{number}: {line.strip()[:80]!r} does not begin with a network")


def read_network(word: object, place: str) -> Network:
    try:
        if isinstance(word, str):
            return ipaddress.ip_network(word)
    except ValueError:
        pass
    raise ListError(f"{place}: {str(word)[:80]!r} is no network such as 192.0.2.0/24")


def read_json(text: str, name: str) -> Published:
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ListError(f"{name}: is no whole JSON: {str(error)[:TEXT_MAX]}; get it again") from None
    day = None
    for key in DAYS:
        if isinstance(whole, dict) and (told := DAY.search(str(whole.get(key)))):
            day = read_day(told[1], name)
    return Published(day, [*walk(whole, "", name, DEPTH)])


def read_day(text: str, place: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ListError(f"{place}: {text!r} is no day such as 2030-12-31") from None


def walk(value: Any, service: str, name: str, depth: int) -> Iterator[tuple[str, Network]]:
    """Every network of a JSON value: what is under a key that is known, and lists of nothing but networks."""
    if depth == 0:
        raise ListError(f"{name}: is nested too deeply for a file of networks")
    if isinstance(value, list):
        for one in value:
            if isinstance(one, dict | list):
                yield from walk(one, service, name, depth - 1)
            elif isinstance(one, str) and depth == DEPTH:
                yield service, read_network(one, name)          # the whole file is one list
    elif isinstance(value, dict):
        mark = next((value[key] for key in MARKS if isinstance(value.get(key), str)), service)
        for key, inner in value.items():
            if key in PREFIXES and isinstance(inner, str):
                yield mark, read_network(inner, f"{name}: {key}")
            elif key in LISTS and isinstance(inner, list) and all(isinstance(one, str) for one in inner):
                yield from ((mark, read_network(one, f"{name}: {key}")) for one in inner)
            elif depth == DEPTH and isinstance(inner, list) and inner and all(map(is_network, inner)):
                yield from ((key, ipaddress.ip_network(one)) for one in inner)
            elif isinstance(inner, dict | list):
                yield from walk(inner, mark, name, depth - 1)


def is_network(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(ipaddress.ip_network(value))
    except ValueError:
        return False


# Which sections a file is about --------------------------------------------------------------------------------

def stem(name: str) -> str:
    return STAMP.sub("", PurePath(name).stem)


def sections_of(shared: Shared, names: Iterable[str]) -> list[Section]:
    """The sections that are published in files of these names.

    Raises:
        ListError: none is, or of two owners, or one of their other files is missing.
    """
    stems = {stem(name): name for name in names}
    found = [section for section in shared.sections if stems.keys() & {stem(file) for file in section.files}]
    for one, name in stems.items():
        owners = sorted({section.source: section.name for section in found
                         if one in {stem(file) for file in section.files}}.values())
        if not owners:
            raise ListError(f"{name}: no owner publishes a file of this name (`edgeblock guard` shows them); "
                            "say whose it is with --name OWNER")
        if len(owners) > 1:
            raise ListError(f"{name}: may be of {' or '.join(owners)}; say whose it is with --name OWNER")
    for section in found:
        if missing := [file for file in section.files if stem(file) not in stems]:
            raise ListError(f"{section.name} publishes its networks in {missing[0]}, too; give all of its files at "
                            "once")
    return found


def renew(shared: Shared, before: list[Section], files: dict[str, Published], today: date, *, named: bool,
          fewer: bool = False) -> list[Updated]:
    """The sections with what these files say of them; `named`: all files are about all of these sections.

    Raises:
        ListError: they say nothing of one, much less than was known, or what is older.
    """
    made: dict[str, Updated] = {}
    for section in sorted(before, key=lambda section: bool(section.without)):
        told = [published for name, published in files.items()
                if named or stem(name) in {stem(file) for file in section.files}]
        other = next((one for one in shared.sections if one.name == section.without), None)
        if section.without in made:
            other = made[section.without].section
        made[section.name] = Updated(renewed(section, told, other, today, fewer), section if section.rows else None)
    return [made[section.name] for section in before]


def renewed(section: Section, files: list[Published], other: Section | None, today: date, fewer: bool) -> Section:
    words = set(section.services)
    given = [network for file in files for service, network in file.networks if not words or service in words]
    if not given:
        raise ListError(f"{section.name}: no network is marked {' or '.join(section.services)} there; this is no "
                        "such file")
    if other is not None:
        ranges = Ranges(other.rows)
        given = [network for network in given
                 if not ranges.touched(network.network_address.packed, network.broadcast_address.packed)]
    merged: list[Network] = [
        *ipaddress.collapse_addresses(one for one in given if isinstance(one, ipaddress.IPv4Network)),
        *ipaddress.collapse_addresses(one for one in given if isinstance(one, ipaddress.IPv6Network))]
    if section.widest is not None:
        merged = [network for network in merged if network.prefixlen <= COARSE[network.version]]
    if len(merged) < LEAST * len(section.rows) and not fewer or not merged:
        raise ListError(f"{section.name}: {counted(merged)} where there were {len(section.rows)}: the file may be "
                        "cut off; if that is right, say --fewer")
    day = min(file.day or today for file in files)
    if day > today:
        raise ListError(f"{section.name}: {day} is in the future; say --date with the day of the publication")
    if section.rows and day < section.date:
        raise ListError(f"{section.name}: {day} is before {section.date}, of which its networks are; get what is "
                        "published now")
    return replace(section, date=day, rows=tuple(in_order(range_of(network, "") for network in merged)))


def counted(rows: Sized) -> str:
    return "1 network" if len(rows) == 1 else f"{len(rows)} networks"
