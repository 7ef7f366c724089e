"""`edgeblock review`: entries that nobody met, entries and orders whose time is over, lists that nobody met.

In: the lists of the rules directory, the counts and the key of the box. Out: a line for each list, and for each such
entry its file, line and rule id; its text only where that is asked for. Never here: an entry removed.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from difflib import get_close_matches
from typing import Any

from edgeblock import config
from edgeblock.blocklist.directory import ListFile, find_lists
from edgeblock.blocklist.intake import make_terms
from edgeblock.blocklist.store import read_key
from edgeblock.commands import add_config, complain
from edgeblock.commands.report import days
from edgeblock.errors import ListError, ReportError, printable
from edgeblock.ledger.place import directory_of
from edgeblock.report.box import DEAD_DAYS, counted_days
from edgeblock.report.dead import Found, Reviewed, review
from edgeblock.report.period import DAY, moment, written
from edgeblock.report.store import hits, opened

EXAMPLES = """\
  edgeblock review
  edgeblock review --list court --days 180
  edgeblock review --list court --entries
  edgeblock review --json | jq '.lists[] | select(.dead > 0)'
Entries are told by file, line and rule id, and `edgeblock check --rule ID` says what is behind one; --entries shows
their text, which only who may read the lists should see. Run this with the box's key and counts: as root.
Exit status: 0 if there is nothing to look at, 1 if there is, 2 if a list, the key or the counts cannot be read."""

SHOWN = 20              # entries of each list, where nobody asks for one list
SHOWN_OF_ONE = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--days", type=days, default=DEAD_DAYS, metavar="N",
                        help=f"an entry is dead that nobody met for so many days (default: {DEAD_DAYS})")
    parser.add_argument("--list", metavar="NAME", help="this list alone, with all that is to be told of it")
    parser.add_argument("--entries", action="store_true", help="show the text of entries, too")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def main(chosen: argparse.Namespace) -> int:
    whole = config.load(chosen.config)
    rules = whole.rules
    now, found, failed = time.time(), [], False
    key = read_key(rules.key)
    most = SHOWN if chosen.list is None else SHOWN_OF_ONE
    with closing(opened(directory_of(whole))) as base:
        known = counted_days(base, chosen.days, now)
        horizon = int(now // DAY) - chosen.days + 1
        for source in sources(rules, chosen.list):
            met = {rule: last for rule, last, _ in hits(base, source.name)}
            try:
                found.append(review(source, key, met, horizon, now, most))
            except ListError as problem:
                failed = True
                complain(problem)
    if chosen.json:
        print(json.dumps({"days": known, "asked_days": chosen.days, "lists": [
            as_dict(one, chosen.entries) for one in found]}))
    else:
        if known < chosen.days:
            span = "1 has" if known == 1 else f"{known} have"
            print(f"Of the last {chosen.days} days {span} counts: what was not met in these is told.")
        for line in told(found, known, chosen.entries):
            print(printable(line))
    return 2 if failed else int(any(one.dead or one.past or one.ended for one in found))


def sources(rules: config.Rules, name: str | None) -> list[ListFile]:
    """The lists of the rules directory, or one of them."""
    files, problems, _ = find_lists(rules.directory, make_terms(rules, b"").defaults, lenient=True)
    for problem in problems:
        print(f"edgeblock: warning: {printable(str(problem))}", file=sys.stderr)
    if name is None:
        return files
    one = [source for source in files if name in (source.name, source.path.name)]
    if not one:
        near = get_close_matches(name, [source.name for source in files], 1, 0.5)
        raise ReportError(f"--list {name}: no such list is in {rules.directory}"
                          + (f"; did you mean {near[0]}?" if near else ""))
    return one


def told(found: list[Reviewed], known: int, texts: bool) -> Iterator[str]:
    span = "on 1 day" if known == 1 else f"in {known} days"
    for one in found:
        past = f", {one.past:,} past their time" if one.past else ""
        ended = f"; the list itself ended {moment(one.ended)}" if one.ended is not None else ""
        met = f"last met {written(one.last)}" if one.last is not None else "NONE of it was ever met"
        yield f"{one.file}: {plural(one.entries)}, {one.dead:,} not met {span}{past}; {met}{ended}"
        for entry in one.found:
            yield f"  {one.file}:{entry.line}  {entry.rule}  {why(entry)}{f'  {entry.text}' if texts else ''}"
        left = max(one.dead, one.past) - len(one.found)
        if len(one.found) in (SHOWN, SHOWN_OF_ONE) and left > 0:
            yield f"  and more: edgeblock review --list {one.name}"


def plural(count: int) -> str:
    return "1 entry" if count == 1 else f"{count:,} entries"


def why(entry: Found) -> str:
    said = [] if entry.ended is None else [f"its time ended {moment(entry.ended)}"]
    said.append("never met" if entry.last is None else f"last met {written(entry.last)}")
    return ", ".join(said)


def as_dict(one: Reviewed, texts: bool) -> dict[str, Any]:
    return {"list": one.name, "file": one.file, "entries": one.entries, "dead": one.dead, "past": one.past,
            "last_met": None if one.last is None else written(one.last),
            "ended": None if one.ended is None else moment(one.ended),
            "found": [{"line": entry.line, "rule": entry.rule,
                       "last_met": None if entry.last is None else written(entry.last),
                       "ended": None if entry.ended is None else moment(entry.ended),
                       **({"entry": entry.text} if texts else {})} for entry in one.found]}
