"""`edgeblock health`: has routes lead to this box while it filters, and not when it does not.

In: the running daemon's answers, a second apart. Out: commands run, a file made and removed, lines for ExaBGP; a line
on standard error at each change. At its end the box is down, as nobody watches it any more. Never here: when it is up
(fleet/routable.py).
"""

import argparse
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeblock import config
from edgeblock.asking import ask as ask_daemon
from edgeblock.commands import add_config
from edgeblock.errors import ConfigError, printable
from edgeblock.fleet.routable import Damper, Effects, Watch, look

EXAMPLES = """\
  edgeblock health --once
  edgeblock health --up 'birdc enable divert4' --down 'birdc disable divert4'
  edgeblock health --exabgp /etc/exabgp/edgeblock.routes
  edgeblock health --file /run/edgeblock/up --rise 30
Commands run without a shell, again at each look until they succeed, and every 10 s: a routing daemon that was
restarted has to hear it. Down is also: no daemon, no answer, the canary off or late. When this ends, by SIGTERM too,
the box is down.
Exit status with --once: 0 if the box may be given traffic, 1 if not; else 0 at its end, 2 where it cannot begin."""

PATIENCE = 2.0          # seconds for the daemon to answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--once", action="store_true", help="look once, and say it with the exit status")
    parser.add_argument("--interval", metavar="SECONDS", type=float, default=1.0,
                        help="between two looks (default: %(default)s)")
    parser.add_argument("--rise", metavar="N", type=int, default=10,
                        help="good looks in a row until it is up (default: %(default)s)")
    parser.add_argument("--fall", metavar="N", type=int, default=2,
                        help="bad looks in a row until it is down (default: %(default)s)")
    parser.add_argument("--up", metavar="COMMAND", action="append", default=[], help="what to run then")
    parser.add_argument("--down", metavar="COMMAND", action="append", default=[], help="likewise")
    parser.add_argument("--file", metavar="FILE", help="a file that is there while it is up")
    parser.add_argument("--exabgp", metavar="FILE",
                        help="announce the routes of this file (export --format exabgp) on standard output")


def main(chosen: argparse.Namespace) -> int:
    whole = config.load(chosen.config)
    check(chosen)
    watch = Watch(whole.canary.period)

    def ask() -> dict[str, Any]:
        answer: dict[str, Any] = ask_daemon(whole.daemon.control, "status", PATIENCE)
        return answer

    if chosen.once:
        why = look(ask, watch, time.monotonic(), time.time())
        print("up" if not why else f"down: {printable(why)}")
        return 1 if why else 0
    ended = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(one, lambda *_: ended.set())
    if chosen.exabgp:
        threading.Thread(target=drain, args=(ended,), daemon=True).start()
    effects = Effects({True: chosen.up, False: chosen.down}, Path(chosen.file) if chosen.file else None,
                      Path(chosen.exabgp) if chosen.exabgp else None, sys.stdout)
    try:
        keep(chosen, ask, watch, effects, ended)
    finally:                        # also of what nobody has thought of
        wrong = effects.apply(False, time.monotonic())
    for line in ("down: nobody watches any more", *wrong):
        say(line)
    return 0


def keep(chosen: argparse.Namespace, ask: Callable[[], dict[str, Any]], watch: Watch, effects: Effects,
         ended: threading.Event) -> None:
    """Looks and does what follows, until it is to end."""
    damper = Damper(chosen.rise, chosen.fall)
    told: list[str] = []
    while not ended.is_set():
        why = look(ask, watch, time.monotonic(), time.time())
        if damper.take(not why):
            say("up" if damper.up else f"down: {why}")
        if damper.up is not None:
            wrong = effects.apply(damper.up, time.monotonic())
            if wrong != told:
                for line in wrong:
                    say(line)
            told = wrong
        ended.wait(chosen.interval)


def check(chosen: argparse.Namespace) -> None:
    """Raises ConfigError for what nobody can do."""
    if not chosen.interval > 0 or chosen.rise < 1 or chosen.fall < 1:
        raise ConfigError("--interval is more than 0 seconds, --rise and --fall are 1 look or more")
    if not (chosen.once or chosen.up or chosen.down or chosen.file or chosen.exabgp):
        raise ConfigError("nothing is to be done when the box is up or down; give --up and --down, --file, --exabgp, "
                          "or --once")
    for command in (*chosen.up, *chosen.down):
        try:
            if not shlex.split(command):
                raise ValueError("is empty")
        except ValueError as problem:
            raise ConfigError(f"--up, --down: {command!r}: {problem}; write a command as for a shell") from None


def say(line: str) -> None:
    print(f"edgeblock: health: {printable(line)}", file=sys.stderr, flush=True)


def drain(ended: threading.Event) -> None:
    """ExaBGP answers each line; unread, its answers would stop it. It has ended where there are no more."""
    for _ in sys.stdin.buffer:
        pass
    ended.set()
