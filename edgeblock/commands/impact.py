"""`edgeblock impact`: what the address entries of a list would take down with them.

In: a list; the figures that the running daemon keeps, or a state directory's. Out: a line for each address entry
with something behind it, most names first, and a sentence about all of them; or one JSON object. Never here: how that
is counted (core/sketch.pyx), what refuses a list (blocklist/guard.py), a number where there are no figures.
"""

import argparse
import json
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgeblock import asking, config
from edgeblock.addresses import Translated, translated
from edgeblock.blocklist.canonical import canonical_host, why_not_host
from edgeblock.blocklist.directory import ListFile, find_lists, read_items, single_list
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import Entry, Problem, network_text
from edgeblock.blocklist.guard import Guard
from edgeblock.blocklist.impact import FILE, Figures, Impact, Summing, network_of, percent, ranges_of
from edgeblock.blocklist.intake import Terms, make_terms
from edgeblock.blocklist.ranges import last_of
from edgeblock.commands import add_config
from edgeblock.errors import ConfigError, ListError, SystemProblem

EXAMPLES = """\
  edgeblock impact order.list
  edgeblock impact court --json
  edgeblock impact seized.txt --name www.example.com
  edgeblock impact order.list --state /var/lib/edgeblock
LIST is a file, or a list of the rules directory by its name. The running daemon says what it has seen in the last
day at each address; with --state its file is read instead. Where the order is about one name (that of --name, or the
only one in the list), an entry for this name at that address is proposed in place of the whole address.
Exit status: 0 if no address of it is refused, 1 if some is, 2 without figures, or if the list cannot be read."""

PATIENCE = 60.0         # seconds for the daemon to write down what it has


@dataclass(frozen=True)
class Row:
    """One address entry. `figures` is None where the box has none, `guarded` the shared network that it is in,
    `refused` why a guard rail refuses it."""

    entry: str
    line: int
    figures: Figures | None
    guarded: str
    refused: str
    instead: str

    def __str__(self) -> str:
        said = [str(self.figures)] if self.figures else []
        said += [f"in a network that many share, {self.guarded}"] if self.guarded else []
        said += ["REFUSED"] if self.refused else []
        said += [f"instead: {self.instead}"] if self.instead else []
        return f"{self.entry}: {'; '.join(said)}"

    def rank(self) -> tuple[int, int, int]:
        """Most names first."""
        return (-self.figures.names, -self.figures.flows, self.line) if self.figures else (0, 0, self.line)

    def as_dict(self) -> dict[str, Any]:
        return {"entry": self.entry, "line": self.line, **as_numbers(self.figures), "guarded": self.guarded,
                "refused": self.refused, "instead": self.instead}


def as_numbers(figures: Figures | None) -> dict[str, Any]:
    return figures._asdict() if figures else dict.fromkeys(Figures._fields)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("list", metavar="LIST", help="a file, or the name of a list in the rules directory")
    parser.add_argument("--name", metavar="NAME", help="the name that the order is about")
    parser.add_argument("--state", metavar="DIR", help="read the figures in this state directory")
    parser.add_argument("--format", metavar="FORMAT", help="the list's format, where its name does not say it")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def main(chosen: argparse.Namespace) -> int:
    whole = config.load(chosen.config)
    name = order_name(chosen.name)
    terms = make_terms(whole.rules, b"")
    source = source_of(chosen.list, terms, chosen.format)
    impact = Impact(figures_at(chosen.state, whole.daemon.control))
    known = bool(impact.periods)
    rows, total, unusable = rows_of(source, terms, impact, name)
    rows.sort(key=Row.rank)
    refused = sum(bool(row.refused) for row in rows)
    if chosen.json:
        print(json.dumps({"list": source.name, "since": impact.since if known else None,
                          "as_of": impact.as_of if known else None, "sample": impact.sample if known else None,
                          "subscribers": impact.subscribers if known else None, "without_figures": impact.why_none,
                          "total": as_numbers(total) | {"entries": len(rows), "refused": refused,
                                                        "unusable": unusable},
                          "entries": [row.as_dict() for row in rows]}))
    else:
        tell(rows, total, refused, impact)
    if unusable:
        lines = "1 line" if unusable == 1 else f"{unusable} lines"
        print(f"edgeblock: warning: {source.path.name}: {lines} of it cannot be used, and nothing is known of what "
              "they mean; `edgeblock lint` says why", file=sys.stderr)
    if not known:
        print(f"edgeblock: no figures: {impact.why_none}", file=sys.stderr)
    return 2 if not known else 1 if refused else 0


def figures_at(state: str | None, control_socket: Path) -> Path:
    """The file of sketches: in this state directory, or the one that the running daemon has just written.

    Raises:
        ConfigError: there is no such directory; SystemProblem: no daemon answers.
    """
    if state is None:
        try:
            return Path(asking.have_answered(control_socket, "impact", patience=PATIENCE)["file"])
        except SystemProblem as problem:
            raise SystemProblem(f"{problem}; or read the figures that a daemon has left, with --state DIR") from None
    if not Path(state).is_dir():
        raise ConfigError(f"--state {state}: is no directory; name that of a daemon, such as /var/lib/edgeblock")
    return Path(state, FILE)


def tell(rows: list[Row], total: Figures | None, refused: int, impact: Impact) -> None:
    quiet = 0
    for row in rows:
        if row.figures and (row.figures.names or row.figures.flows) or row.guarded or row.refused:
            print(row)
        else:
            quiet += 1
    entries = "1 address entry" if len(rows) == 1 else f"{len(rows)} address entries"
    if not total:
        print(f"{entries}; {refused} refused. What is behind them is not known.")
        return
    print(f"{entries}, {quiet} with nothing seen behind; {refused} refused. All together: {total}.")
    learnt = "" if impact.sample >= 1 else (
        f" Of connections that the first stage would pass, {percent(impact.sample)} are looked at: there were "
        "more names than these.")
    print(f"As seen on this box from {when(impact.since)} to {when(impact.as_of)}, from {impact.subscribers} "
          f"subscribers.{learnt}")


def when(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def rows_of(source: ListFile, terms: Terms, impact: Impact, name: str) -> tuple[list[Row], Figures | None, int]:
    """The address entries of a list that block, what is behind all of them, and how many lines cannot be used.

    Raises:
        ListError: it cannot be read.
    """
    guard = Guard(source.settings, terms.protected._replace(impact=impact))
    ways: tuple[Translated, ...] = translated(terms.rules.nat64)
    total = Summing(impact)
    found: list[tuple[Entry, Figures | None, str, str]] = []
    names = {name} if name else set()
    unusable = 0
    for item in read_items(source):
        unusable += isinstance(item, Problem)
        if not isinstance(item, Entry) or item.exception:
            continue
        if item.kind not in (Kind.NETWORK, Kind.ENDPOINT):
            if not name and len(names) < 2:
                names.add(re.split(rb"[/\0]", item.key)[0].decode("utf-8", "backslashreplace"))
            continue
        ranges = ranges_of(item.key, ways)
        total.add(ranges)
        first, length = ranges[0][0], item.key[1]
        shared = terms.protected.shared.touched(first, last_of(first, length), length)
        figures = impact.of(ranges) if impact.periods else None
        found.append((item, figures, str(shared or ""), guard.refuses(item) or ""))
    order = names.pop() if len(names) == 1 else ""
    return [Row(network_text(item.key), item.line, figures, shared, refused,
                f"{order} @ {where(item.key)}" if order and (figures and figures.names > 1 or shared) else "")
            for item, figures, shared, refused in found], total.figures() if impact.periods else None, unusable


def where(key: bytes) -> str:
    """The addresses of an entry, without its port."""
    network = network_of(key)
    return str(network.network_address if network.num_addresses == 1 else network)


def source_of(text: str, terms: Terms, stated: str | None) -> ListFile:
    """A list by its file, or by its name in the rules directory. Raises ListError, ConfigError."""
    path = Path(text)
    if not path.name:
        raise ListError(f"{text!r} is neither a list's file nor its name")
    if path.exists():
        return single_list(path, terms.defaults, stated)
    directory = terms.rules.directory
    none = f"{text}: there is no such file"
    if "/" in text:             # no list is named so
        raise ListError(none)
    if not directory.is_dir():
        raise ListError(f"{none}, and {directory}, where a list of this name would be, is no directory; --config "
                        "FILE names the configuration, whose [rules] directory says where the lists are")
    files, _, _ = find_lists(directory, terms.defaults, lenient=True)
    for source in files:
        if text in (source.name, source.path.name):
            if stated:
                raise ConfigError(f"--format {stated}: is for a file; {text} is in force as {directory} has it")
            return source
    raise ListError(f"{none}, and no list of that name is in {directory}")


def order_name(text: str | None) -> str:
    if not text:
        return ""
    name = canonical_host(text.encode("utf-8", "surrogateescape"))
    if name is None:
        raise ConfigError(f"--name {text}: {why_not_host(text.encode('utf-8', 'surrogateescape'))}")
    return name.decode()
