"""Whether traffic may be led to this box, for who does that: what the daemon says of itself, damped.

In: the daemon's status, again and again, or why it gave none. Out: up or down, and what has to be done then:
commands, a file that is there while the box is up, lines for ExaBGP. Down is what is not known to be up: no daemon,
no answer, a canary that is off or late. Never here: a route, a socket, a clock.
"""

import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from edgeblock.errors import SystemProblem
from edgeblock.fleet.export.exabgp import ANNOUNCE

ROUND = 10.0            # seconds that a round of the canary may take where something is wrong, and more
LATE = 3                # periods without a new round after which the last one says nothing any more
SECONDS = 10.0          # that a command may take
AGAIN = 10.0            # seconds after which all of it is done again: a routing daemon may have been restarted
WITHDRAW = "withdraw route "


@dataclass
class Watch:
    """Reads one status after the other. `period` is the canary's, in seconds."""

    period: float
    rounds: int = -1
    since: float = 0.0

    def why_not(self, answer: dict[str, Any], now: float, wall: float) -> str:
        """Why the box is not to be given traffic; "" where it is. `now` is of a steady clock, in seconds, and `wall`
        Unix seconds, by which the first look tells how long ago the round was that it hears of."""
        if "error" in answer:
            return f"the running daemon says: {answer['error']}"
        vigil, canary = answer["vigil"], answer["canary"]
        if not vigil["filtering"]:
            return "not filtering: " + "; ".join(vigil["causes"])
        if canary["state"] == "off":
            return f"the canary is off ({canary['off']}), so nobody knows whether the box filters"
        if canary["state"] != "ok":
            wrong = [f"{one['family']} {one['protocol']}: {one['wrong']}" for one in canary["probes"] if one["wrong"]]
            return f"canary {canary['state']}" + (f": {wrong[0]}" if wrong else "")
        if canary["rounds"] != self.rounds:
            last = max((one["succeeded"] for one in canary["probes"]), default=wall)
            ago = max(0.0, wall - last) if self.rounds < 0 else 0.0
            self.rounds, self.since = canary["rounds"], now - ago
        if (late := now - self.since) > LATE * self.period + ROUND:
            return f"the canary's last round is {late:.0f} s ago"
        return ""


@dataclass
class Damper:
    """Up after `rise` good looks in a row, down after `fall` bad ones; before the first of either nothing is known,
    and one bad look is enough."""

    rise: int
    fall: int
    up: bool | None = None
    alike: int = 0
    last: bool | None = None

    def take(self, good: bool) -> bool:
        """Whether that has changed `up`."""
        self.alike = self.alike + 1 if good is self.last else 1
        self.last = good
        needed = self.rise if good else self.fall if self.up is not None else 1
        if self.up is good or self.alike < needed:
            return False
        self.up = good
        return True


@dataclass
class Effects:
    """What is done: `commands` by up and down, without a shell; `file` is there while up; `routes` are said to `out`.
    What cannot be done is tried again at the next look, and what was done is done again every AGAIN seconds."""

    commands: dict[bool, list[str]] = field(default_factory=dict)
    file: Path | None = None
    routes: Path | None = None
    out: TextIO | None = None
    done: bool | None = None
    at: float = 0.0         # when that was, by a steady clock
    announced: set[str] = field(default_factory=set)
    read: tuple[int, int, int] | None = None
    begun: bool = False

    def apply(self, up: bool, now: float) -> list[str]:
        """Does what is not done yet; what went wrong. `now` is of a steady clock, in seconds."""
        try:
            wrong = list(self._say(up))
        except OSError as problem:          # nobody reads it any more; the rest is for others
            wrong = [f"the announcements: {problem.strerror}"]
        if self.done is up and now - self.at < AGAIN:
            return wrong
        self.done = None        # what is done in part is done of neither
        try:
            if self.file is not None and up:
                self.file.touch()
            elif self.file is not None:
                self.file.unlink(missing_ok=True)
        except OSError as problem:
            wrong.append(f"{self.file}: {problem.strerror}")
        for command in self.commands.get(up, ()):
            if why := failed(shlex.split(command)):
                wrong.append(f"{command}: {why}")
        if not wrong:
            self.done, self.at = up, now
        return wrong

    def _say(self, up: bool) -> Iterator[str]:
        """Announces what the file of routes has and is not announced yet, and takes back what it has no more."""
        if self.routes is None or self.out is None:
            return
        state = None
        wanted: set[str] = set()
        if up or not self.begun:
            try:
                seen = self.routes.stat()
                state = seen.st_ino, seen.st_size, seen.st_mtime_ns
                if state == self.read:
                    return
                with open(self.routes, encoding="ascii", errors="replace") as file:
                    wanted = {line.strip() for line in file if line.startswith(ANNOUNCE)}
            except OSError as problem:          # what is announced stays: the box filters
                yield f"{self.routes}: {problem.strerror}"
                return
        if not up and not self.begun:           # of one before this, which was killed, ExaBGP still has them
            self.announced, wanted, state = wanted, set(), None
        self.begun = True
        for line in sorted(self.announced - wanted):
            self.out.write(WITHDRAW + line.removeprefix(ANNOUNCE) + "\n")
        for line in sorted(wanted - self.announced):
            self.out.write(line + "\n")
        self.out.flush()
        self.announced, self.read = wanted, state


def failed(argv: list[str]) -> str:
    """Runs a command; why it failed, "" where it did not."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
                              errors="replace", timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"takes more than {SECONDS:.0f} s"
    except OSError as problem:
        return str(problem.strerror)
    return "" if done.returncode == 0 else (done.stderr or done.stdout).strip() or f"status {done.returncode}"


def look(ask: Callable[[], dict[str, Any]], watch: Watch, now: float, wall: float) -> str:
    """Why the box is not to be given traffic, asked once; an answer that nobody can read is a reason, too."""
    try:
        return watch.why_not(ask(), now, wall)
    except SystemProblem as problem:
        return str(problem)
    except (KeyError, TypeError) as problem:
        return f"the daemon's answer lacks {problem}: is it of this version?"
