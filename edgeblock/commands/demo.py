"""`edgeblock demo`: the real daemon between a real client and a real server, shown line by line.

In: a machine with root. Out: a table of what the client saw and how long it took, beside what was expected, and the
daemon's own counters; 0 when every line is as expected, else 1. Never: traffic, rules or processes outside the lab's
namespaces, or anything of it left when this returns.
"""

import argparse
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from edgeblock.lab import Lab, Seen, page, until

EXAMPLES = """\
  sudo edgeblock demo
Exit status: 0 if every line is as expected."""

WHY = "https://open.example/why"       # where the redirect leads
EDIT_LIMIT = 5.0                       # seconds after which an edited list counts as not taken
CONFIG = """
[rules]
directory = "{folder}"
key = "{home}/key"
[ledger]
directory = "{home}/ledger"

[reply]
provider = "The edgeblock demo"
contact = "hostmaster@open.example"
redirect = "{why}"
"""
LISTS = {
    "court-orders.list": "# hosts, each with every subdomain\nexample.com\n",
    "child-protection.list": "# one page of a host whose other pages are fine\nexample.net/bad.html\n",
    "child-protection.toml": 'action = "page"\n',
    "moved.list": "example.org/old/*\n",
    "moved.toml": 'action = "redirect"\n',
}

Judge = Callable[[Seen], bool]


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    return


def main(_chosen: argparse.Namespace) -> int:
    return run()


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    url: str
    expected: str
    judge: Judge
    version: int = 4


def passes(host: str, target: str = "/") -> Judge:
    return lambda seen: (seen.status, seen.exit, seen.body) == (200, 0, page(host, target))


def is_reset(seen: Seen) -> bool:
    # 35 and 56: the handshake, or what came after it, ended by the other side; 52: it ended without an answer.
    return seen.exit in (35, 52, 56) and seen.status == 0 and not seen.body


def is_page(seen: Seen) -> bool:
    return (seen.status in (403, 451) and seen.exit == 0 and len(seen.body) > 0
            and seen.headers.get("content-length") == str(len(seen.body)))


def is_redirect(seen: Seen) -> bool:
    return seen.status == 302 and seen.exit == 0 and seen.headers.get("location") == WHY


LINES = (
    Line("unlisted page, HTTPS", "https://open.example/", "the page", passes("open.example")),
    Line("unlisted page, HTTP", "http://open.example/", "the page", passes("open.example")),
    Line("listed host", "https://www.example.com/", "reset", is_reset),
    Line("neighbour, same address", "https://notexample.com/", "the page", passes("notexample.com")),
    Line("listed URL", "http://example.net/bad.html", "block page", is_page),
    Line("another page of that host", "http://example.net/good.html", "the page",
         passes("example.net", "/good.html")),
    Line("that host over HTTPS", "https://example.net/good.html", "the page",
         passes("example.net", "/good.html")),
    Line("URL that has moved", "http://example.org/old/address", "redirect", is_redirect),
)


def describe(seen: Seen) -> str:
    """What the client saw, in a few words."""
    if seen.exit:
        return f"nothing: {seen.error.rpartition('::')[2]}"     # OpenSSL's own words stand last
    if "location" in seen.headers:
        return f"{seen.status}, sent on to {seen.headers['location']}"
    if seen.body.startswith(b"This is "):
        return f"{seen.status}, the page of {seen.body.decode().split()[2].rstrip(',')}"
    title = re.search(rb"<title>(.*?)</title>", seen.body)
    return f"{seen.status}: {title[1].decode() if title else 'no title'}, {len(seen.body)} bytes"


def run(console: Console | None = None) -> int:
    """Runs the demo; raises SystemProblem with one line where no lab can be built."""
    console = console or Console()
    table = Table("", "The client asked for", "over", "Expected, and seen", "ms", box=None, padding=(0, 1))
    table.columns[-1].justify = "right"
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="edgeblock-demo-") as home, Lab() as lab:
        folder = Path(home) / "rules"
        folder.mkdir()
        for name, text in LISTS.items():
            (folder / name).write_text(text)
        console.print("Three namespaces, client, box and server; the daemon runs in the box. Its lists:")
        for name, text in LISTS.items():
            console.print(f"  {name:24}{text.splitlines()[-1]}", style="dim", highlight=False)
        daemon = lab.start_daemon(CONFIG.format(folder=folder, home=home, why=WHY))
        with Live(table, console=console, refresh_per_second=8):
            for line, seen, seconds in play(lab, folder):
                right = line.judge(seen)
                wrong += not right
                table.add_row("[green]✓[/]" if right else "[red]✗[/]", f"{line.what}\n[dim]{line.url}[/]",
                              f"IPv{line.version}", f"{line.expected}\n[dim]{describe(seen)}[/]",
                              f"{seconds * 1000:.0f}")
        console.print()
        print_counters(console, lab.counters(daemon))
        status = daemon.stop()
    if status != 0:
        console.print(f"The daemon stopped with status {status} instead of 0.", style="red")
    console.print(f"{wrong} of the lines are not as expected." if wrong else "Every line is as expected.",
                  style="red" if wrong else "green")
    return 1 if wrong or status else 0


def play(lab: Lab, folder: Path) -> Iterator[tuple[Line, Seen, float]]:
    """Each line with what the client saw and how many seconds that took."""
    for version in (4, 6):
        for line in LINES:
            seen = lab.fetch(line.url, version=version)
            yield Line(line.what, line.url, line.expected, line.judge, version), seen, seen.seconds
    url = "https://open.example/"
    for what, more, line in (
        ("list edited: a host added", "open.example\n", Line("", url, "reset", is_reset)),
        ("list edited: taken off again", "", Line("", url, "the page", passes("open.example"))),
    ):
        drop(folder / "court-orders.list", LISTS["court-orders.list"] + more)
        since = time.monotonic()
        until(partial(looks, lab, line), EDIT_LIMIT)
        seconds = time.monotonic() - since
        yield Line(what, url, f"{line.expected}, soon", line.judge), lab.fetch(url), seconds


def looks(lab: Lab, line: Line) -> bool:
    """Whether a new connection sees what the line expects."""
    return line.judge(lab.fetch(line.url, version=line.version))


def drop(path: Path, text: str) -> None:
    """A list as it should arrive: whole, by rename."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.rename(path)


def print_counters(console: Console, counters: dict[str, int]) -> None:
    """What is not zero."""
    console.print("The daemon counted:")
    for name, value in counters.items():
        if value:
            console.print(f"  {name:28}{value:>8}", highlight=False)
    console.print()
