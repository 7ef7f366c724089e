"""Sees when files in a directory are complete: renamed in, or closed by whoever wrote them.

In: a directory. Out: whether something has happened that counts, and the names of files that are open for writing. By
inotify, which knows nothing of what other machines do in a shared directory: whoever watches one has to look now and
then as well (`look`). Never here: a file opened.
"""

import asyncio
import ctypes
import os
import queue
import stat
import struct
import threading
import time
from pathlib import Path

from edgeblock.blocklist.directory import is_unfinished
from edgeblock.blocklist.formats import OUTCOME

IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE = 0x2, 0x4, 0x8
IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x40, 0x80, 0x100, 0x200
IN_Q_OVERFLOW, IN_IGNORED, IN_ONLYDIR = 0x4000, 0x8000, 0x01000000
WATCHED = (IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_ONLYDIR)
COMPLETE = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE
EVENT = struct.Struct("iIII")
EVENTS_MAX = 1 << 16    # bytes of events read at a time, of 16 for each and its name: some milliseconds' work
EVENT_LARGEST = EVENT.size + 256
NAMES_MAX = 50_000      # files that a look tells apart; a directory has five times less lists at most
STALLED = 60.0          # seconds without a change after which a file counts as complete, whoever has it open

CROWD = ""              # no file has that name

Sight = dict[str, tuple[int, int, int, int]]


def is_ours(name: str) -> bool:
    """Whether a change of this file says nothing about a list."""
    return is_unfinished(name) or name.endswith((".rejected", OUTCOME))


def look(directory: Path) -> Sight:
    """What tells whether a directory has changed: inode, size and times of every file; empty if unreadable.

    Of those that are too many, CROWD has their number and the sum of their inodes: whoever fills a directory makes
    nobody wait for long, and takes no memory but his own."""
    seen: Sight = {}
    more = inodes = 0
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if is_ours(entry.name):
                    continue
                if len(seen) >= NAMES_MAX:
                    more += 1
                    inodes += entry.inode()
                    continue
                try:
                    state = entry.stat()
                except OSError:
                    try:
                        state = entry.stat(follow_symlinks=False)   # a link to nowhere is to be refused
                    except OSError:     # gone since
                        continue
                seen[entry.name] = state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
    except OSError:
        return {}
    if more:
        seen[CROWD] = more, inodes, 0, 0
    return seen


class Looker:
    """Looks in a thread of its own: a directory on a machine that does not answer keeps nobody else waiting."""

    def __init__(self, watch: "Watch") -> None:
        self.watch = watch
        self._asked: queue.SimpleQueue[asyncio.Future[tuple[int, Sight]] | None] = queue.SimpleQueue()
        # A daemon: while it waits for such a directory it keeps the process from ending no more than anybody else.
        threading.Thread(target=self._work, name="look", daemon=True).start()

    async def look(self) -> Sight:
        """As the function of that name; and the watch is aimed at what is there now."""
        answer: asyncio.Future[tuple[int, Sight]] = asyncio.get_running_loop().create_future()
        self._asked.put(answer)
        number, seen = await answer
        self.watch.aim(number)
        return seen

    def close(self) -> None:
        self._asked.put(None)

    def _work(self) -> None:
        while (answer := self._asked.get()) is not None:
            seen = self.watch.find(), look(self.watch.directory)
            try:
                answer.get_loop().call_soon_threadsafe(_settle, answer, seen)
            except RuntimeError:        # nobody waits for it any more: the event loop has ended
                return


def _settle(answer: "asyncio.Future[tuple[int, Sight]]", seen: tuple[int, Sight]) -> None:
    if not answer.done():               # else whoever asked has given up
        answer.set_result(seen)


class Watch:
    """`fd` becomes readable when something happens in the directory, -1 where the kernel has no watch to give.

    `flooded`: there was more than `read` takes at a time. Whoever goes on reading at once does nothing else.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.flooded = False
        self._written: dict[str, float] = {}        # when a file that is open for writing was changed last
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._number = -1
        self.aim()

    @property
    def busy(self) -> set[str]:
        """The files that are being written."""
        since = time.monotonic() - STALLED
        return {name for name, at in self._written.items() if at > since}

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def find(self) -> int:
        """Has what the path leads to now watched, and says what `aim` takes. May be called in another thread."""
        number: int = self._libc.inotify_add_watch(self.fd, os.fsencode(self.directory), WATCHED)
        return number

    def aim(self, number: int | None = None) -> None:
        """Watches what the path leads to now: a directory can be replaced by another, or a link be set anew."""
        if self.fd < 0:
            return
        if number is None:
            number = self.find()
        if number != self._number:
            if self._number >= 0:
                self._libc.inotify_rm_watch(self.fd, self._number)
            self._number = number
            self._written.clear()

    def read(self) -> bool:
        """Takes note of what has happened; whether any file was completed, changed its owner, or went."""
        counts = self.flooded = False
        try:
            data = os.read(self.fd, EVENTS_MAX) if self.fd >= 0 else b""
        except BlockingIOError:
            return False
        at = 0
        while at < len(data):
            number, mask, _, size = EVENT.unpack_from(data, at)
            name = os.fsdecode(data[at + EVENT.size:at + EVENT.size + size].rstrip(b"\0"))
            at += EVENT.size + size
            if mask & IN_Q_OVERFLOW:
                self._written.clear()
                counts = True
            elif number == self._number and name and not is_ours(name):
                counts |= self._note(name, mask)
        self.flooded = len(data) > EVENTS_MAX - EVENT_LARGEST
        return counts

    def _note(self, name: str, mask: int) -> bool:
        if mask & COMPLETE:
            self._written.pop(name, None)
            return True
        if mask & IN_MODIFY or mask & IN_CREATE and self._is_new(name):
            if len(self._written) < NAMES_MAX or name in self._written:
                self._written[name] = time.monotonic()
            return False
        return name not in self.busy

    def _is_new(self, name: str) -> bool:
        # A link, a pipe or a directory is complete as soon as it is there.
        try:
            state = (self.directory / name).lstat()
        except OSError:
            return False
        return stat.S_ISREG(state.st_mode) and state.st_nlink == 1
