"""How far a long reading has come, for whoever waits for it.

In: a stream for people, what is read, how many bytes that has. Out: on a terminal a bar, taken away at the end; on
anything else a line every ten seconds, so that a log says that it goes on and a short reading says nothing. Never
here: what is read.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

FIRST_LINE = 10.0       # seconds until a line, where there is no terminal; and between two
LOOK = 0.1              # seconds between two changes of a bar
STEPS = 1024            # calls of `step` between two looks at the clock: a look costs more than such a step may


class Reading:
    """Inside a `with`: `step` for everything that was read.

    Args:
        err: where it is told; None: nowhere.
        what: the name of what is read, and what is done with it.
        size: bytes; 0 where nobody knows.
        read: says how many have been read.
        unit: what `step` counts.
    """

    def __init__(self, err: TextIO | None, what: str, size: int, read: Callable[[], int],
                 unit: str = "frames") -> None:
        self.err, self.what, self.size, self.read, self.unit = err, what, size, read, unit
        self.steps = 0
        self._began = time.monotonic()
        console = Console(file=err)     # None: not used
        terminal = console.is_terminal
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(),
                             console=console, transient=True, auto_refresh=False) if err and terminal else None
        self._due = self._began + (LOOK if self._bar else FIRST_LINE)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(escape(self.what), total=self.size or None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def step(self) -> None:
        self.steps += 1
        if self.err is not None and self.steps % STEPS == 0 and (now := time.monotonic()) >= self._due:
            self._tell(now)

    def _tell(self, now: float) -> None:
        read = self.read()
        if self._bar:
            self._bar.update(self._task, completed=read, refresh=True)
            self._due = now + LOOK
            return
        assert self.err is not None
        share = f"{100 * read // self.size} % read, " if self.size else ""
        self.err.write(f"edgeblock: {self.what}: {share}{self.steps} {self.unit}, {now - self._began:.0f} s\n")
        self.err.flush()
        self._due = now + FIRST_LINE
