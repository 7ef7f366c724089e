"""`edgeblock top`: the running daemon at a glance, again every second.

In: answers to `status`. Out: tables on a terminal, or once as plain text where standard output is none. Never here: a
name or an address; there is none in the answers.
"""

import argparse
import os
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from edgeblock import config
from edgeblock.asking import ask
from edgeblock.commands import add_config, spell
from edgeblock.source.counters import BUCKET_SECONDS

EXAMPLES = """\
  edgeblock top
Ends with q or Ctrl-C. Where standard output is no terminal it prints one picture, whole."""

PAUSE = threading.Event()       # never set: waits, and Ctrl-C ends it
WORKER = ("packets", "passed", "dropped", "lost")      # shown as rates
NO_TERMINAL = 140       # columns where nobody says how many there are
WIDE = 110              # columns from which on a worker's process and CPU are shown too
FRAME = 2               # lines of a table that are no rows: title and head
STYLE: Any = {"expand": True, "box": None, "pad_edge": False, "title_justify": "left", "header_style": "bold"}
LEAST = 3               # rows that a table keeps when there is no room


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def main(chosen: argparse.Namespace) -> int:
    return run(config.load(chosen.config).daemon.control)


def run(control: Path, seconds: float = 1.0) -> int:
    """Shows until interrupted; on no terminal, two looks and one picture. SystemProblem where no daemon answers."""
    console = Console() if sys.stdout.isatty() else Console(width=NO_TERMINAL)
    before, began = ask(control, "status"), time.monotonic()
    if not console.is_terminal:
        PAUSE.wait(seconds)
        console.print(picture(ask(control, "status"), before, time.monotonic() - began))
        return 0
    with keys() as pressed, Live(picture(before, before, 1.0, console.width, console.height), console=console,
                                 screen=True, auto_refresh=False) as live:
        while not pressed(seconds):
            now, at = ask(control, "status"), time.monotonic()
            live.update(picture(now, before, at - began, console.width, console.height), refresh=True)
            before, began = now, at
    return 0


@contextmanager
def keys() -> Iterator[Callable[[float], bool]]:
    """A function that waits so many seconds for a q. Keys are read at once and not shown, until the end."""
    if not sys.stdin.isatty():
        yield PAUSE.wait
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)

    def pressed(seconds: float) -> bool:
        end = time.monotonic() + seconds
        while select.select([number], [], [], max(end - time.monotonic(), 0))[0]:
            typed = os.read(number, 64)
            if not typed or b"q" in typed.lower():      # the terminal is gone, or that
                return True
        return False

    try:
        tty.setcbreak(number)
        yield pressed
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def picture(now: dict[str, Any], before: dict[str, Any], seconds: float, width: int = 140,
            height: int = 0) -> RenderableType:
    """What one look shows, in `height` lines (0: as many as it takes); rates are between the two answers."""
    seconds = max(seconds, 0.001)
    rules = now["rules"]
    head = Text.assemble(
        ("edgeblock ", "bold"), now["version"], f"  up {spell(now['uptime'])}  ",
        (f"{rules['entries']:,} entries of {rules['lists']} lists", "green"), f", {spell(now['rules_age'])} ago")
    if width >= WIDE:
        head.append(f"  {now['rules_digest'][:12]}  overload {now['overload']}, absent {now['absent']}")
    causes = now.get("vigil", {}).get("causes", [])
    state = Text("NOT FILTERING: " + "; ".join(causes), "bold red") if causes else Text("filtering", "green")
    fetch = now.get("fetch", {})
    if failing := sum(one["failures"] > 0 for one in fetch.get("sources", {}).values()):
        state.append(f"  {failing} of {len(fetch['sources'])} sources of lists fail", "yellow")
    if fetch.get("state") == "gone":
        state.append("  nobody fetches lists", "bold red")
    for line in (head, state):
        line.no_wrap, line.overflow = True, "ellipsis"
    tables = [workers(now, before, seconds, width >= WIDE), verdicts(now, before, seconds), latency(now),
              stage(now["stage1"], before["stage1"], seconds)]
    if height:
        fit(tables, height - 2)
    return Group(head, state, *tables)


def fit(tables: list[RenderableType], height: int) -> None:
    """Takes rows from the longest table until all have room, and last of all whole tables from the end."""
    def lines(one: RenderableType) -> int:
        return one.row_count + FRAME + (1 if one.caption else 0) if isinstance(one, Table) else 1

    while sum(map(lines, tables)) > height:
        longest = max((one for one in tables if isinstance(one, Table)), key=lambda one: one.row_count)
        if longest.row_count <= LEAST:
            del tables[-1]
            continue
        longest.rows.pop()
        for column in longest.columns:
            column._cells.pop()
        longest.caption, longest.caption_justify = "and more: a taller window, or edgeblock status --all", "left"


def workers(now: dict[str, Any], before: dict[str, Any], seconds: float, wide: bool) -> RenderableType:
    table = Table("queue", "worker", *(("pid", "cpu") if wide else ()), *(f"{name}/s" for name in WORKER), "waiting",
                  "flows", "restarts", **STYLE, title="workers")
    for queue, one in now["workers"].items():
        old = before["workers"].get(queue, one)
        state = one["state"]
        table.add_row(queue, Text(state, "green" if state == "running" else "bold red"),
                      *((str(one["pid"]), str(one["cpu"])) if wide else ()),
                      *(rate(one[name] - old[name], seconds) for name in WORKER),
                      f"{one['waiting']:,}", f"{one['flows']:,}", str(one["restarts"]))
    return table


def verdicts(now: dict[str, Any], before: dict[str, Any], seconds: float) -> RenderableType:
    """The busiest list first."""
    rows = []
    for name, counts in now["matched"].items():
        for action, count in counts.items():
            rows.append((count - before["matched"].get(name, {}).get(action, 0), count, name, action))
    if not rows:
        return Text("no verdict yet", "dim")
    table = Table("list", "verdict", "in all", "rate", **STYLE, title="verdicts")
    for more, count, name, action in sorted(rows, reverse=True):
        table.add_row(escape(name), action, f"{count:,}", rate(more, seconds))
    return table


def latency(now: dict[str, Any]) -> RenderableType:
    table = Table("of one packet", "half below", "99 % below", **STYLE, title="latency")
    for name, (counts, _) in now["latency"].items():
        table.add_row(name, below(counts, 0.5), below(counts, 0.99))
    return table


def stage(now: dict[str, int], before: dict[str, int], seconds: float) -> RenderableType:
    """What the first stage in the kernel does; a line where there is none."""
    if not now:
        return Text("first stage off: every new flow goes to the queue", "dim")
    table = Table("outcome", "in all", "rate", **STYLE, title="first stage, in the kernel")
    for name, count in now.items():
        if count:
            kept = name if name.startswith("passed_") or name == "carried" else f"queued: {name}"
            table.add_row(kept, f"{count:,}", rate(count - before.get(name, 0), seconds))
    return table


def rate(count: int, seconds: float) -> str:
    """Events a second, in few digits."""
    value = max(count, 0) / seconds
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def below(counts: list[int], share: float) -> str:
    """The bound of the bucket below which this share of the times lies."""
    wanted, seen = share * sum(counts), 0
    if not wanted:
        return "-"
    for bound, count in zip(BUCKET_SECONDS, counts, strict=False):
        seen += count
        if seen >= wanted:
            return f"{bound * 1e6:.1f} µs" if bound < 1e-3 else f"{bound * 1e3:.1f} ms"
    return "over 1 s"
