"""`edgeblock report`: what was blocked, how fast lists came into force, whether the box filtered.

In: the counts and the ledger, the state directory, days. Out: one HTML page, JSON or CSV; or a view of it in
somebody else's form. Never here: a figure that is worked out, a running daemon asked.
"""

import argparse
import os
import sys
import time
from contextlib import closing
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from edgeblock import config
from edgeblock.blocklist.store import write_file
from edgeblock.commands import add_config
from edgeblock.errors import ReportError, SystemProblem
from edgeblock.ledger.place import directory_of
from edgeblock.report import output
from edgeblock.report.box import DEAD_DAYS, counted_days, dead_entries, in_force
from edgeblock.report.evidence import evidence
from edgeblock.report.figures import Report, report
from edgeblock.report.period import Period, period_of, written
from edgeblock.report.store import Counted, kept, opened, read
from edgeblock.report.views import VIEWS

EXAMPLES = """\
  edgeblock report --from 2026-11-01 --to 2026-11-30 --output november.html
  edgeblock report --list court --format json
  edgeblock report --from 2026-11-01 --to 2026-11-30 --format csv > november.csv
  edgeblock report --view dsa --from 2026-01-01 --to 2026-12-31 --format csv
  edgeblock report --view iwf --from 2026-10-01 --output quarter.html
Days are those of UTC, and both are in it; without --from it is the 30 days up to the last. The HTML is one file that
needs nothing from anywhere; print it. What is counted and kept: docs/report.md.
Exit status: 0, or 2 where there is nothing to report from."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--from", dest="first", metavar="DAY", help="the first day, such as 2026-11-01")
    parser.add_argument("--to", dest="last", metavar="DAY", help="the last day (default: today)")
    parser.add_argument("--list", metavar="NAME", help="this list alone")
    parser.add_argument("--view", choices=sorted(VIEWS), help="as Article 15 of the Digital Services Act asks (dsa), "
                        "or for the quarterly certificate of the IWF (iwf)")
    parser.add_argument("--format", choices=("html", "json", "csv"), default="html", help="default: html")
    parser.add_argument("--output", metavar="FILE", help="where to (default: standard output)")
    parser.add_argument("--dead-days", type=days, default=DEAD_DAYS, metavar="N",
                        help=f"call an entry dead that nobody met for so many days (default: {DEAD_DAYS})")
    parser.add_argument("--state", metavar="DIR", help="the state directory of a daemon, with that of its "
                        "ledger beside it, DIR-ledger (default: those of the configuration)")


def days(text: str) -> int:
    """What stands behind --dead-days."""
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) <= 4000:
        raise argparse.ArgumentTypeError(f"{text}: is no number of days from 1 to 4000")
    return int(text)


def main(chosen: argparse.Namespace) -> int:
    if chosen.format == "html" and chosen.output is None and sys.stdout.isatty():
        raise ReportError("the page is for a browser; name a file for it, such as --output report.html, or take "
                          "--format json")
    key, folder = places(chosen.state, chosen.config)
    now = time.time()
    period = period_of(chosen.first, chosen.last, now)
    counted, made = gather(key, folder, period, chosen.dead_days, now)
    if chosen.list is not None:
        made |= alone(made, chosen.list)
    if chosen.view is None:
        text = {"html": output.to_html, "json": output.to_json}.get(
            chosen.format, lambda _: output.to_csv(counted, chosen.list))(made)
    else:
        view = VIEWS[chosen.view](made)
        text = (output.view_to_csv(view) if chosen.format == "csv" else output.to_json(view.as_dict(made))
                if chosen.format == "json" else output.view_to_html(view, made))
    write(text, chosen.output)
    return 0


def places(state: str | None, settings: str | None) -> tuple[Path, Path]:
    """The key in the state directory, and the directory of the ledger."""
    whole = config.load(settings)
    if state is None:
        return whole.rules.key, directory_of(whole)
    if not Path(state).is_dir():
        raise ReportError(f"--state {state}: is no directory; name that of a daemon, such as /var/lib/edgeblock")
    key = Path(state, "key")
    return key, directory_of(replace(whole, rules=replace(whole.rules, key=key), ledger=config.Ledger()))


def gather(key: Path, folder: Path, period: Period, dead_days: int, now: float) -> tuple[Counted, Report]:
    """What there is of a state directory, and of that of the ledger, where the counts are, too.

    Raises:
        ReportError: there are no counts, or none of these days.
    """
    with closing(opened(folder)) as base:
        there = kept(base)
        if there is None:
            raise ReportError(f"{folder}: nothing is counted yet; ask again in some seconds")
        if period.last < there[0]:
            raise ReportError(f"--to {written(period.last)}: of these days nothing is kept (any more); counts go "
                              f"back to {written(there[0])}, and [report] keep_days says how long they are kept")
        counted = read(base, period.first, period.last)
        snapshot = in_force(key)
        records = snapshot.parts.lists if snapshot else None
        known = counted_days(base, dead_days, now)
        dead = dead_entries(base, snapshot, snapshot.parts.lists, dead_days, now) if snapshot and known else {}
    told = evidence(folder, period.begins, period.ends)
    return counted, report(counted, told, records, dead, known, period, now)


def alone(made: Report, name: str) -> Report:
    """What is said of one list, with its own totals and days."""
    found = [one for one in made["lists"] if one["list"] == name]
    if not found:
        near = get_close_matches(name, [one["list"] for one in made["lists"]], 1, 0.5)
        raise ReportError(f"--list {name}: no such list was in force in this time" + (
            f"; did you mean {near[0]}?" if near else "; `edgeblock report --format csv` shows which were"))
    [one] = found
    own = {day["day"]: day for day in one["days"]}
    return {"lists": found, "policies": [], "totals": {key: one[key] for key in made["totals"]},
            "days": [day | {key: own.get(day["day"], {}).get(key, 0) for key in ("visits", "packets")}
                     for day in made["days"]]}


def write(text: str, file: str | None) -> None:
    if file is None:
        sys.stdout.write(text)
        return
    path = Path(file)
    try:
        if path.exists() and not path.is_file():
            with open(path, "w") as there:      # a pipe, or /dev/stdout
                there.write(text)
        else:
            write_file(path, lambda target: target.write(text.encode()), mode=0o666 & ~mask())
    except OSError as problem:
        raise SystemProblem(f"--output {file}: cannot be written: {problem.strerror}") from None


def mask() -> int:
    """What the one who runs this takes away from new files."""
    before = os.umask(0o077)
    os.umask(before)
    return before
