"""`edgeblock export`: what the lists block, in the form of a resolver or a router.

In: the [rules] settings, a directory, a format. Out: a file, whole or not at all, and on standard error what that
format cannot have. A file that would be the same stays as it is. Never here: a format (fleet/export/), an entry that
this box would not block.
"""

import argparse
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import BinaryIO

from edgeblock import config
from edgeblock.blocklist.store import write_file
from edgeblock.blocklist.terms import shown_time
from edgeblock.commands import add_config, moment_of
from edgeblock.errors import ConfigError, SystemProblem
from edgeblock.fleet.export import FORMATS, ROUTES
from edgeblock.fleet.export.gather import Sources, check_in_force, gather, name_of
from edgeblock.fleet.export.options import BLACKHOLE, NO_EXPORT, ZONE, Options

EXAMPLES = """\
  edgeblock export --format rpz --zone rpz.example.net --output /var/lib/bind/rpz.db && rndc reload
  edgeblock export --format nft | nft -f -
  edgeblock export --format bird --route blackhole --list court --output /etc/bird/edgeblock.conf
  edgeblock export --check --format unbound --output /etc/unbound/edgeblock.conf
The file is written only if it would be another than the one there. Standard error tells how many entries are left
out, and why: a resolver cannot block a URL.
Exit status: 0; with --check 1 if the file is not what would be written now; 2 if a list is refused or something
cannot be read or written, and then the file that is there stays."""

SERIAL = re.compile(rb"^@ SOA \S+ \S+ (\d+) ", re.MULTILINE)
HEAD_MAX = 4096         # bytes at the front of a zone file in which its SOA stands
SERIALS = 1 << 32
PATIENCE = 10.0         # seconds for the daemon to take what has just been dropped


class Same(Exception):
    """What would be written is there already."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--rules", metavar="DIR",
                        help="these lists, whatever is in force here (default: those of the configuration)")
    parser.add_argument("--list", metavar="NAME", action="append", default=[],
                        help="only what this list blocks; may be given again. Exceptions of all lists hold")
    parser.add_argument("--at", metavar="TIME", help="as of that time, such as 2026-12-05T15:00:00Z, instead of now")
    parser.add_argument("--output", metavar="FILE", help="the file (default: standard output)")
    parser.add_argument("--check", action="store_true", help="write nothing; say whether the file is up to date")
    parser.add_argument("--zone", metavar="NAME", help=f"rpz: the name of the zone (default: {ZONE})")
    parser.add_argument("--page", metavar="HOST", help="rpz: names lead to this host, instead of not existing")
    parser.add_argument("--serial", choices=("time", "count"),
                        help="rpz: of the SOA, the time (default) or one more than in the file; never back")
    parser.add_argument("--route", choices=("divert", "blackhole"),
                        help="bird, exabgp: routes lead to the box (default), or nowhere (RFC 7999)")
    parser.add_argument("--next-hop", metavar="ADDRESS", action="append", default=[],
                        help="bird, exabgp: where routes lead; one of each family (default: who announces them)")
    parser.add_argument("--community", metavar="A:B", action="append", default=[],
                        help="bird, exabgp: of every route (default: no-export, and with blackhole 65535:666)")


def main(chosen: argparse.Namespace) -> int:
    whole = config.load(chosen.config)
    rules = replace(whole.rules, directory=Path(chosen.rules or whole.rules.directory))
    output = Path(chosen.output) if chosen.output else None
    if chosen.check and output is None:
        raise ConfigError("--check compares with a file; name it with --output")
    options = options_of(chosen, head_of(output))
    sources = gather(rules, chosen.list, moment_of(chosen.at), bool(whole.reply.redirect),
                     chosen.format in ROUTES and options.divert, whole.ruleset.exempt_servers)
    if not chosen.rules:
        check_in_force(sources, rules, PATIENCE)
    for warning in sources.warnings:
        print(f"edgeblock: warning: {warning}", file=sys.stderr)
    lines = FORMATS[chosen.format](sources, options)
    if chosen.check:
        stale = not is_same(output, lines)
        print(f"{output}: {'is not what the lists have now' if stale else 'is up to date'}")
        return 1 if stale else 0
    if output is None:
        sys.stdout.writelines(lines)
    else:
        save(output, lines)
    tell(sources)
    return 0


def tell(sources: Sources) -> None:
    """What is left out, on standard error."""
    for why, count in sources.left.most_common():
        if count:
            print(f"edgeblock: left out: {count:,} {why}", file=sys.stderr)
    if sources.until is not None:
        print(f"edgeblock: windows of these lists open or close at {shown_time(sources.until)}: export again then",
              file=sys.stderr)


# Options -------------------------------------------------------------------------------------------------------

def options_of(chosen: argparse.Namespace, head: bytes) -> Options:
    """The options, as far as the format has them; `head` is that of the file that is there.

    Raises:
        ConfigError: one is none of this format, or says what cannot be.
    """
    own = {"rpz": ("zone", "page", "serial")} | dict.fromkeys(ROUTES, ("route", "next_hop", "community"))
    for name in ("zone", "page", "serial", "route", "next_hop", "community"):
        if getattr(chosen, name) and name not in own.get(chosen.format, ()):
            raise ConfigError(f"--{name.replace('_', '-')} is nothing of --format {chosen.format}; leave it out")
    divert = chosen.route != "blackhole"
    usual = (NO_EXPORT,) if divert else (BLACKHOLE, NO_EXPORT)
    hops: dict[int, IPv4Address | IPv6Address] = {}
    for text in chosen.next_hop:
        try:
            address = ip_address(text.strip("[]").replace("%", "no zone "))      # in no route
        except ValueError:
            raise ConfigError(f"--next-hop {text}: is no address; give one, such as 192.0.2.1") from None
        hops[address.version] = address
    return Options(named("zone", chosen.zone or ZONE), named("page", chosen.page) if chosen.page else "",
                   serial_of(head, chosen.serial == "count"), divert, hops.get(4), hops.get(6),
                   tuple(map(community, chosen.community)) or usual)


def named(option: str, text: str) -> str:
    name = name_of(text.rstrip(".").lower().encode("ascii", "replace"))
    if name is None:
        raise ConfigError(f"--{option} {text}: is no name of DNS; give one, such as rpz.example.net")
    return name


def community(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5}):(\d{1,5})", text)
    if not found or max(map(int, found.groups())) > 0xFFFF:
        raise ConfigError(f"--community {text}: is none; write two numbers up to 65535, such as 65535:666")
    return int(found[1]), int(found[2])


def serial_of(head: bytes, counts: bool) -> int:
    """Of the next version of a zone: more than that of the one there (RFC 1982)."""
    found = SERIAL.search(head)
    before = int(found[1]) if found else 0
    now = int(time.time()) % SERIALS
    if not counts and (not found or 0 < (now - before) % SERIALS < SERIALS // 2):
        return now
    return (before + 1) % SERIALS or 1


# The file ------------------------------------------------------------------------------------------------------

def head_of(path: Path | None) -> bytes:
    """The first bytes of a file; none of one that is not there."""
    if path is None:
        return b""
    try:
        with open(path, "rb") as file:
            return file.read(HEAD_MAX)
    except FileNotFoundError:
        return b""
    except OSError as problem:
        raise SystemProblem(f"{path}: cannot be read: {problem.strerror}") from None


class Comparison:
    """Whether lines are those of a file, but for the serial of a zone."""

    def __init__(self, file: BinaryIO | None) -> None:
        self.file = file
        self.same = file is not None

    def add(self, data: bytes) -> None:
        if self.same and self.file is not None:
            there = b"".join(self.file.readline() for _ in range(data.count(b"\n"))) if data.endswith(b"\n") else \
                self.file.read(len(data))
            self.same = plain(there) == plain(data)

    def finish(self) -> bool:
        return self.same and self.file is not None and not self.file.read(1)


def plain(data: bytes) -> bytes:
    return SERIAL.sub(b"@ SOA ", data) if data.startswith(b"@ SOA ") else data


def opened(path: Path | None) -> BinaryIO | None:
    with suppress(OSError):
        return open(path, "rb") if path else None
    return None


def is_same(path: Path | None, lines: Iterable[str]) -> bool:
    file = opened(path)
    compared = Comparison(file)
    for line in lines:
        compared.add(line.encode())
    same = compared.finish()
    if file:
        file.close()
    return same


def save(path: Path, lines: Iterator[str]) -> None:
    """The file, unless it is the same.

    Raises:
        SystemProblem: it cannot be written; the one that was there stays.
    """
    old = opened(path)
    compared = Comparison(old)

    def fill(file: BinaryIO) -> None:
        for line in lines:
            data = line.encode()
            compared.add(data)
            file.write(data)
        if compared.finish():
            raise Same

    try:
        mode = os.stat(path).st_mode & 0o777 if old else 0o644
        write_file(path, fill, mode=mode)
    except Same:
        print(f"{path}: is up to date", file=sys.stderr)
    except OSError as problem:
        raise SystemProblem(f"{path}: cannot be written: {problem.strerror}") from None
    finally:
        if old:
            old.close()


