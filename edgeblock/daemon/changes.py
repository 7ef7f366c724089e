"""Tells when the lists are to be read anew: files are complete, a list expires, it is time to try again, or asked to.

In: the rules directory. Out: one moment after another (`next`). Never here: a list read.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from edgeblock.daemon.tasks import wait
from edgeblock.daemon.watch import CROWD, Looker, Sight, Watch

PAUSE = 0.4             # seconds between two looks at the rules directory, for what inotify cannot see
QUIET = 0.05            # seconds without a change after which a burst of them counts as over
FLOOD = 0.02            # seconds between two reads of events where they come faster than they are read
BURST = 0.3             # seconds that a burst may last until those that came first are taken


class Changes:
    """What is to be seen in a directory. `expires` is when the first of the lists does, in Unix seconds; `sign` is
    called at the first sign of a change, before any file is complete."""

    def __init__(self, directory: Path, sign: Callable[[], None]) -> None:
        self.expires: float | None = None
        self.files: dict[str, tuple[int, ...] | None] = {}      # that have changed, when `next` returned last
        self._directory, self._sign = directory, sign
        self._due: float | None = None          # when the lists are to be tried again
        self._asked = False
        self._stirred = asyncio.Event()         # the directory is to be looked at
        self._arrived = False                   # a file in it was completed since it was
        self._watch: Watch | None = None
        self._looker: Looker | None = None
        self._sight: Sight = {}                 # what was there when the lists were read last,
        self._seen: Sight = {}                  # and at the last look

    @property
    def busy(self) -> set[str]:
        """The names of files that are being written."""
        return self._watch.busy if self._watch is not None else set()

    def open(self) -> None:
        """Begins to watch."""
        self._watch = watch = Watch(self._directory)
        if watch.fd >= 0:
            asyncio.get_running_loop().add_reader(watch.fd, self._see)
        self._looker = Looker(watch)

    async def begin(self) -> None:
        """What is there now is about to be read."""
        assert self._looker is not None
        self._sight = self._seen = await self._looker.look()

    def close(self) -> None:
        if self._looker is not None:
            self._looker.close()
        if self._watch is not None:
            if self._watch.fd >= 0:
                asyncio.get_running_loop().remove_reader(self._watch.fd)
            self._watch.close()

    def ask(self) -> None:
        """The lists are to be read now, whatever has changed."""
        self._asked = True
        self._stirred.set()

    def renamed(self, file: str) -> int | None:
        """When a file came there, Unix microseconds, as it was when the lists were read last; None where it was not
        there."""
        state = self._sight.get(file)
        return None if state is None else state[3] // 1000

    def try_in(self, seconds: float) -> None:
        """They are to be read then, whatever has changed."""
        self._due = asyncio.get_running_loop().time() + seconds
        if not seconds:
            self._stirred.set()

    async def next(self) -> bool:
        """Until the lists are to be read anew; whether that was asked for."""
        assert self._looker is not None
        while True:
            await wait(self._stirred, PAUSE)
            self._stirred.clear()
            asked, self._asked = self._asked, False
            arrived = await self._end_of_burst()
            before, seen = self._seen, await self._looker.look()
            self._seen = seen
            busy = self.busy
            again = self._due is not None and asyncio.get_running_loop().time() >= self._due
            expired = self.expires is not None and time.time() >= self.expires
            names = (seen.keys() | self._sight.keys()) - busy
            changed = any(seen.get(name) != self._sight.get(name) for name in names) or arrived and CROWD in seen
            # What inotify has not seen counts when two looks agree: nobody says when it is complete.
            if asked or again or expired or changed and (arrived or seen == before):
                self.files = {name: seen.get(name) for name in names
                              if name != CROWD and seen.get(name) != self._sight.get(name)}
                self._sight = {name: state for name, state in seen.items() if name not in busy} | {
                    name: self._sight[name] for name in busy & self._sight.keys()}
                self._due = None
                return asked

    async def _end_of_burst(self) -> bool:
        """Whether a file was completed; waits for the end of a burst of them."""
        loop = asyncio.get_running_loop()
        arrived, self._arrived = self._arrived, False
        until = loop.time() + BURST
        while arrived and loop.time() < until:
            await asyncio.sleep(QUIET)
            if not self._arrived:
                break
            self._arrived = False
        return arrived

    def _see(self) -> None:
        # Read at once, even while lists are being loaded: else the descriptor would stay ready, and the loop busy.
        assert self._watch is not None
        self._sign()
        if self._watch.read():
            self._arrived = True
            self._stirred.set()
        if self._watch.flooded:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._watch.fd)
            loop.call_later(FLOOD, self._see_on)

    def _see_on(self) -> None:
        assert self._watch is not None
        if self._watch.fd >= 0:         # else it has been closed
            asyncio.get_running_loop().add_reader(self._watch.fd, self._see)
