"""`edgeblock check`: whether names would be blocked, by which list and why, or which entry has a rule id.

In: names, from the command line, a file or standard input; the lists, or the running daemon. Out: a record for each
name, as a line for people or as JSON. Never here: a verdict of its own; the snapshot's matcher is asked.
"""

import argparse
import ipaddress
import json
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from edgeblock import asking, config
from edgeblock.blocklist.directory import REFUSED, Finding
from edgeblock.blocklist.explain import explain, find_rule, record_of, without_redirect
from edgeblock.blocklist.load import load
from edgeblock.blocklist.store import readable_key
from edgeblock.commands import add_config, moment_of
from edgeblock.enforce.reference import EXAMPLE, code_of, date_of, day_of, read_code
from edgeblock.errors import ConfigError

EXAMPLES = f"""\
  edgeblock check www.example.com
  edgeblock check --rules rules --json http://example.com/a/b '[2001:db8::1]:443'
  edgeblock check 192.0.2.0/24 'shop.example.com @ 203.0.113.9'
  edgeblock check --live www.example.com
  edgeblock check --at '2026-12-05 15:00 Europe/London' www.example.com
  edgeblock check --rules rules --from names.txt
  edgeblock check - < names.txt
  edgeblock check --client 192.0.2.7 www.example.com
  edgeblock check --rule 9f3c21aa
  edgeblock check --reference {EXAMPLE}
With --rule, the id that the log, check and replay show leads back to list, file and line; run it with the box's key.
With --at the answer is that of another time: what holds then of the lists as they are.
With --reference, what stands on a block page does, and says the day.
With --live the running daemon answers from the rules that are in force, which have no line numbers.
Exit status: 0 if all are allowed, 1 if something is blocked, 2 if a name cannot be used, or no list."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("names", metavar="NAME_OR_URL", nargs="*",
                        help="a host, a URL, an address, a prefix or a range; 'NAME @ ADDRESS' is a host where it "
                             "leads to that address; - takes them from standard input, one a line")
    parser.add_argument("--from", dest="file", metavar="FILE", help="more of them, one a line")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--rules", metavar="DIR",
                        help="the lists, or a snapshot of them (default: those of the configuration)")
    either.add_argument("--live", action="store_true", help="ask the running daemon")
    parser.add_argument("--at", metavar="TIME", help="as at that time, such as 2026-12-05T15:00:00Z, instead of now")
    parser.add_argument("--rule", metavar="ID", help="say which entry has this rule id")
    parser.add_argument("--client", metavar="ADDRESS", help="who asks, for lists that apply to some clients only")
    parser.add_argument("--reference", metavar="CODE", help="say which entry a block page has told of, and when")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, for each name")


def main(chosen: argparse.Namespace) -> int:
    whole = config.load(chosen.config)
    settings = whole.rules
    if chosen.reference is not None:
        return check_reference(chosen, settings)
    if chosen.rule is not None:
        return check_rule(chosen, settings)
    names, at, client = asked_names(chosen), moment_of(chosen.at), asked_client(chosen.client)
    if chosen.live:
        path = whole.daemon.control
        records = [record_of(asking.have_answered(path, f"check {json.dumps(question(name, at, client))}"))
                   for name in names]
    else:
        key = readable_key(settings.key)
        loaded = load(chosen.rules or settings.directory, settings, key=key, tolerant=True, now=at)
        warn(loaded.warnings)
        loaded.matcher.client = client.packed if client else b""
        records = explain(loaded, names, at)
        on_a_box = (chosen.config or config.DEFAULT_FILE.exists()) and not chosen.json
        if key is None and on_a_box and any(verdict.rule for record in records for verdict in record.verdicts):
            tell_of_ids(settings.key)
    if not whole.reply.redirect:
        records = list(map(without_redirect, records))
    for record in records:
        if chosen.json:
            print(json.dumps(record.as_dict()))
        elif record.canonical is not None:
            print(record.as_text())
        else:
            print(f"edgeblock: {record.as_text()}", file=sys.stderr)
    if any(record.canonical is None for record in records):
        return 2
    return 1 if any(record.blocked for record in records) else 0


def asked_client(text: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Who asks, as the box sees it."""
    if text is None:
        return None
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        raise ConfigError(f"--client {text}: is no address; give one, such as 192.0.2.7") from None


def question(name: str, at: float | None, client: object | None) -> str | dict[str, object]:
    """What the daemon is asked."""
    more = ({"at": at} if at is not None else {}) | ({"client": str(client)} if client is not None else {})
    return {"name": name, **more} if more else name


def tell_of_ids(key: Path) -> None:
    """Rule ids are made with the box's key, and this is another one."""
    try:
        there = key.exists()
    except PermissionError:
        there = True
    why = "cannot be read; run this as root" if there else "is made when the daemon first starts"
    print(f"edgeblock: note: the log of this box shows other rule ids than these: its key, {key}, {why}",
          file=sys.stderr)


def warn(warnings: Iterable[Finding]) -> None:
    """On standard error; at the end what that means for the answers that follow."""
    differs = False
    for warning in warnings:
        print(f"edgeblock: warning: {warning}", file=sys.stderr)
        differs |= warning.why.endswith(REFUSED)
    if differs:
        print("edgeblock: warning: of a list that it refuses the daemon has the last good version in force, or "
              "nothing; ask it with --live", file=sys.stderr)


def asked_names(chosen: argparse.Namespace) -> list[str]:
    """Those of the command line, of standard input for "-", and of --from: there one a line, # begins a comment."""
    def lines(text: TextIO) -> list[str]:
        text.reconfigure(errors="surrogateescape")      # type: ignore[attr-defined]
        return [line.strip() for line in text if line.strip() and not line.startswith("#")]

    names: list[str] = []
    for name in chosen.names:
        names += lines(sys.stdin) if name == "-" else [name]
    if chosen.file:
        try:
            with open(chosen.file, encoding="utf-8") as file:
                names += lines(file)
        except OSError as problem:
            raise ConfigError(f"--from {chosen.file}: cannot be read: {problem.strerror}") from None
    if not names:
        places = ["standard input"] * ("-" in chosen.names) + [f"--from {chosen.file}"] * bool(chosen.file)
        if places:
            raise ConfigError(f"{' and '.join(places)}: there is no name to check; write one a line")
        raise ConfigError("no name to check; give one, or --from FILE, or - for standard input; see check --help")
    return names


def check_reference(chosen: argparse.Namespace, settings: config.Rules) -> int:
    if chosen.rule is not None:
        raise ConfigError("--reference CODE has a rule id in it: leave out --rule")
    try:
        chosen.rule, day = read_code(chosen.reference, day_of(time.time()))
    except ValueError as problem:
        raise ConfigError(f"--reference {chosen.reference}: {problem}; a reference is two groups of five letters and "
                          f"digits, such as {EXAMPLE}: ask for it again") from None
    return check_rule(chosen, settings, {"reference": code_of(chosen.rule, day), "rule": chosen.rule,
                                         "day": str(date_of(day))})


def check_rule(chosen: argparse.Namespace, settings: config.Rules, told: dict[str, str] | None = None) -> int:
    """`told` is what stands in a reference, for --json."""
    if chosen.live or chosen.names or chosen.file or chosen.at or chosen.client:
        what = "--rule ID" if told is None else "--reference CODE"
        raise ConfigError(f"{what} looks into the lists by itself: leave out --live, --at, --client and names")
    if not re.fullmatch(r"[0-9a-fA-F]{8}", chosen.rule):
        raise ConfigError(f"--rule {chosen.rule}: a rule id is eight hex digits, such as 9f3c21aa")
    key = readable_key(settings.key)
    directory = chosen.rules or settings.directory
    loaded = load(directory, settings, key=key, tolerant=True)
    if Path(directory).is_file():
        raise ConfigError(f"{directory}: is a snapshot, which has no lines; give --rules the directory of its lists")
    warn(loaded.warnings)
    found = find_rule(loaded, chosen.rule)
    if key is not None and not found:       # replay has ids of its own, the same on every machine
        found = find_rule(load(directory, settings, tolerant=True), chosen.rule)
    if told and not chosen.json:
        print("{reference}: the page of rule {rule}, shown on {day} (UTC)".format(**told))
    for place in found:
        print(json.dumps(place._asdict() | (told or {})) if chosen.json else place.as_text())
    if len({(place.entry, place.kind) for place in found}) > 1:
        print(f"edgeblock: {len(found)} entries have the rule id {chosen.rule}, which is 32 bits of a fingerprint; "
              "the address that was asked for tells which is meant", file=sys.stderr)
    if not found:
        why = ("the list may have changed since, or the id be of another box" if key else
               f"without the box's key, {settings.key}, ids differ: run this as root on the box")
        print(f"edgeblock: {directory}: no entry has the rule id {chosen.rule}; {why}", file=sys.stderr)
    return 0 if found else 1
