"""`edgeblock top`: the running daemon at a glance, again every second.

In: answers to `status`. Out: tables on a terminal, or once as plain text where standard output is none. Never here: a
name or an address; there is none in the answers.
"""

import argparse
import threading
import time
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from edgeblock import config
from edgeblock.commands import add_config
from edgeblock.daemon.control import ask
from edgeblock.source.nfqueue import BUCKET_SECONDS

EXAMPLES = """\
  edgeblock top
Ends with Ctrl-C. Where standard output is no terminal it prints one picture."""

PAUSE = threading.Event()       # never set: waits, and Ctrl-C ends it
WORKER = ("packets", "passed", "dropped", "lost")      # shown as rates


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def main(chosen: argparse.Namespace) -> int:
    return run(config.load(chosen.config).daemon.control)


def run(control: Path, seconds: float = 1.0) -> int:
    """Shows until interrupted; on no terminal, two looks and one picture. SystemProblem where no daemon answers."""
    console = Console()
    before, began = ask(control, "status"), time.monotonic()
    if not console.is_terminal:
        PAUSE.wait(seconds)
        console.print(picture(ask(control, "status"), before, time.monotonic() - began))
        return 0
    with Live(picture(before, before, 1.0), console=console, screen=True, auto_refresh=False) as live:
        while True:
            PAUSE.wait(seconds)
            now, at = ask(control, "status"), time.monotonic()
            live.update(picture(now, before, at - began), refresh=True)
            before, began = now, at


def picture(now: dict[str, Any], before: dict[str, Any], seconds: float) -> RenderableType:
    """What one look shows; rates are between the two answers."""
    seconds = max(seconds, 0.001)
    rules = now["rules"]
    head = Text.assemble(
        ("edgeblock ", "bold"), now["version"], f"   up {spell(now['uptime'])}   ",
        (f"{rules['entries']:,} entries of {rules['lists']} lists", "green"),
        f", loaded {spell(now['rules_age'])} ago   {now['rules_digest'][:12]}   overload {now['overload']}, "
        f"absent {now['absent']}")
    workers = Table("queue", "worker", "pid", "cpu", *(f"{name}/s" for name in WORKER), "waiting", "flows",
                    "restarts", expand=True, title="workers", title_justify="left")
    for queue, one in now["workers"].items():
        old = before["workers"].get(queue, one)
        state = one["state"]
        workers.add_row(queue, Text(state, "green" if state == "running" else "bold red"), str(one["pid"]),
                        str(one["cpu"]), *(rate(one[name] - old[name], seconds) for name in WORKER),
                        f"{one['waiting']:,}", f"{one['flows']:,}", str(one["restarts"]))
    lists = Table("list", "verdict", "in all", "rate", expand=True, title="verdicts", title_justify="left")
    for name, counts in now["matched"].items():
        for action, count in counts.items():
            more = count - before["matched"].get(name, {}).get(action, 0)
            lists.add_row(escape(name), action, f"{count:,}", rate(more, seconds))
    latency = Table("of one packet", "half below", "99 % below", expand=True, title="latency", title_justify="left")
    for name, (counts, _) in now["latency"].items():
        latency.add_row(name, below(counts, 0.5), below(counts, 0.99))
    causes = now.get("vigil", {}).get("causes", [])
    state = Text("NOT FILTERING: " + "; ".join(causes), "bold red") if causes else Text("filtering", "green")
    return Group(head, state, workers, stage(now["stage1"], before["stage1"], seconds), lists, latency)


def stage(now: dict[str, int], before: dict[str, int], seconds: float) -> RenderableType:
    """What the first stage in the kernel does; a line where there is none."""
    if not now:
        return Text("first stage off: every new flow goes to the queue", "dim")
    table = Table("outcome", "in all", "rate", expand=True, title="first stage, in the kernel", title_justify="left")
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


def spell(seconds: int) -> str:
    """A duration in its two largest units."""
    for unit, size, smaller, least in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // least} {smaller}"
    return f"{seconds} s"
