"""`edgeblock ledger`: whether the ledger is as it was written, a proof of one entry, and a file for an auditor.

In: a ledger's directory or an export; public keys, and heads that were kept; an entry. Out: a line for each thing
that is wrong; a JSON document; a file. Never here: how that is found out (edgeblock/ledger/).
"""

import argparse
import json
import os
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from edgeblock import config
from edgeblock.blocklist.terms import BadTerm, parse_time
from edgeblock.commands import add_config
from edgeblock.errors import ConfigError, SystemProblem, printable
from edgeblock.ledger.export import export, unpack
from edgeblock.ledger.place import directory_of
from edgeblock.ledger.verify import kept_heads, public_keys, verify

EXAMPLES = """\
  edgeblock ledger verify
  edgeblock ledger verify --public box7.pub --heads kept-heads/
  edgeblock ledger verify march.ledger --public box7.pub --heads box7.log
  edgeblock ledger prove www.example.com --from 2026-11-01 --to 2026-12-01 > proof.json
  edgeblock ledger export --from 2026-11-01 --to 2026-11-30 --output november.ledger
Times are those of lists, such as 2026-11-01 or 2026-11-01T12:00:00Z; of an export they are whole days (UTC).
Exit status: 0 if all is as it was written, or the entry was in force; 1 if not; 2 if it cannot be told."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    what = parser.add_subparsers(metavar="verify|prove|export", dest="what", required=True)
    one = what.add_parser("verify", help="find what is not as it was written", allow_abbrev=False)
    one.add_argument("place", metavar="PLACE", nargs="?",
                     help="a directory or an export (default: this box's ledger)")
    one.add_argument("--public", metavar="KEY", action="append", default=[],
                     help="the box's public key as it was handed over: a .pub file, or its 56 characters")
    one.add_argument("--heads", metavar="PATH", action="append", default=[],
                     help="heads that were kept elsewhere: a directory of .head files, one of them, a log, an export")
    two = what.add_parser("prove", help="prove when an entry was in force", allow_abbrev=False)
    two.add_argument("entry", metavar="ENTRY", help="as a list has it: example.com, =example.com, 192.0.2.0/24")
    three = what.add_parser("export", help="make one file for an auditor", allow_abbrev=False)
    three.add_argument("--output", metavar="FILE", help="what is written (default: standard output)")
    for part, until in ((two, "the end"), (three, "the last day")):
        part.add_argument("--from", dest="begin", metavar="TIME", help="from when on (default: all there is)")
        part.add_argument("--to", dest="end", metavar="TIME", help=f"until when: {until} (default: all there is)")
    for part in (one, two, three):
        part.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def main(chosen: argparse.Namespace) -> int:
    return {"verify": check, "prove": prove_entry, "export": write_export}[chosen.what](chosen)


def check(chosen: argparse.Namespace) -> int:
    place = Path(chosen.place) if chosen.place else directory_of(config.load(chosen.config))
    with tempfile.TemporaryDirectory(prefix="edgeblock-ledger-") as unpacked:
        directory = place
        if place.is_file():
            directory = Path(unpacked)
            unpack(place, directory)
        keys, warning = public_keys(directory, chosen.public)
        made = verify(directory, keys, kept_heads(map(Path, chosen.heads)), whole=not place.is_file())
    for problem in made.problems:
        print(printable(problem))
    if made.more:
        print(f"and {made.more} more")
    for note in made.notes:
        print(f"edgeblock: note: {printable(note)}", file=sys.stderr)
    if warning:
        print(f"edgeblock: note: {warning}", file=sys.stderr)
    if not chosen.heads:
        print("edgeblock: note: no heads from elsewhere were given (--heads): a ledger that was replaced as a whole, "
              "by one that the box's key has signed, is not found without", file=sys.stderr)
    print(f"{'NOT as it was written' if made.problems else 'as it was written'}: {made.records} records in "
          f"{made.segments} segments, {made.first or 'none'} to {made.last or 'none'}; {made.heads} heads from "
          "elsewhere fit")
    return 1 if made.problems else 0


def prove_entry(chosen: argparse.Namespace) -> int:
    from edgeblock.ledger.prove import prove

    settings = config.load(chosen.config)
    begin, end = seconds(chosen.begin, "--from"), seconds(chosen.end, "--to")
    if begin is not None and end is not None and begin >= end:
        raise ConfigError(f"--from {chosen.begin} is not before --to {chosen.end}; change one of them")
    proof = prove(settings, directory_of(settings), chosen.entry, begin, end)
    print(json.dumps(proof, indent=1))
    for period in proof["periods"]:
        print(f"edgeblock: {period['list']}: {what_of(period)} from {period['from']} to {period['to']}",
              file=sys.stderr)
    for note in proof["notes"]:
        print(f"edgeblock: note: {note}", file=sys.stderr)
    if any(period["action"] != "observe" for period in proof["periods"]):
        return 0
    return 2 if proof["notes"] else 1       # what is not known may be a time in which it was in force


def what_of(period: dict[str, Any]) -> str:
    """What became of an entry in a span of time."""
    said = "observed, not blocked," if period["action"] == "observe" else "in force"
    if period["window"]:
        said += f" within {period['window']}"
    return said + {"": "", "only": " for some clients only", "except": " but for some clients"}[period["clients"]]


def write_export(chosen: argparse.Namespace) -> int:
    directory = directory_of(config.load(chosen.config))
    made = export(directory, day(chosen.begin, "--from"), day(chosen.end, "--to"))
    first = next(made)
    if chosen.output is None:
        for line in (first, *made):
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        return 0
    try:
        with open(chosen.output, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(first)
            file.writelines(made)
    except FileExistsError:
        raise SystemProblem(f"{chosen.output}: is there already; name another file") from None
    return 0


def seconds(text: str | None, option: str) -> float | None:
    """Unix seconds. ConfigError where it is no time."""
    try:
        return None if text is None else float(parse_time(" ".join(text.split())))
    except BadTerm as problem:
        raise ConfigError(f"{option} {text}: {problem}") from None


def day(text: str | None, option: str) -> str:
    """The day (UTC) of a time, "" for none. ConfigError where it is no time."""
    at = seconds(text, option)
    return "" if at is None else (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at)).strftime("%Y-%m-%d")
