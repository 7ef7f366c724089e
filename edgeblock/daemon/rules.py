"""The lists of a running daemon: compiled in a process of its own, so that no packet waits.

In: the [rules] settings, and which files somebody is still writing. Out: Loaded: a sealed file in memory that workers
map, and what has become of every list; or a ListError and everything as it was. Run as a module, this is that
process. One is always waiting with everything imported; it does one job and ends, and its memory with it.

The file in memory is the published snapshot, verified whole. It is sealed, so nobody can change what was verified,
and no look-up ever waits for a disk. Never here: an engine, or the text of a listed name.
"""

import asyncio
import fcntl
import json
import mmap
import os
import pickle
import shutil
import signal
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from edgeblock.blocklist.drop import refresh
from edgeblock.blocklist.guard import public_suffixes, shipped_protected
from edgeblock.blocklist.snapshot import Snapshot, open_snapshot
from edgeblock.blocklist.store import Store, open_file, read_key
from edgeblock.config import Rules
from edgeblock.daemon.process import end_with_parent, give_way, kill, start
from edgeblock.errors import EdgeblockError, ListError

STILL = 30.0            # seconds in which a process that compiles does something, however slow the machine
ENDING = 3.0            # seconds that a process may take to end once it is killed

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass(frozen=True)
class Loaded:
    """Rules in force. `fd` is the snapshot, -1 where it is the one that was in force before; the rest is what
    `drop.Outcome` says. `expires` is when the first of the lists does, in Unix seconds; None if none will. `key` is
    what the snapshot was made with, in hexadecimal: its file may be gone when a worker is replaced."""

    fd: int
    digest: str
    lists: list[dict[str, Any]]
    changes: list[dict[str, Any]]
    refused: dict[str, dict[str, Any]]
    warnings: list[str]
    problem: str
    again: bool
    content: str
    key: str = field(repr=False)

    @property
    def entries(self) -> int:
        return sum(one["entries"] for one in self.lists)

    @property
    def expires(self) -> float | None:
        return min((one["expires"] for one in self.lists if one["expires"] and not one["expired"]), default=None)


class Compiler:
    """Has lists compiled, one job at a time."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._spare: tuple[asyncio.subprocess.Process, int] | None = None

    async def prepare(self) -> None:
        """Starts a process that will wait for the next job."""
        fd = os.memfd_create("edgeblock-rules", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            process = await start(
                "edgeblock.daemon.rules", str(os.getpid()), str(fd), pass_fds=(fd,), stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
            self._spare = process, fd
        finally:
            if self._spare is None:     # none could be started, or we are about to stop
                os.close(fd)

    async def load(self, busy: Collection[str] = (), digest: str = "", afresh: bool = False,
                   overdue: bool = False) -> Loaded:
        """The lists as they are now.

        Args:
            busy: names of files that are being written.
            digest: of the snapshot that is in force.
            afresh: what is refused is read again, although nobody has touched it.
            overdue: the load before has left a list for this one.

        Raises:
            ListError: they cannot be used.
        """
        if self._spare is None or self._spare[0].returncode is not None:
            await self.close()
            await self.prepare()
        assert self._spare is not None
        (process, fd), self._spare = self._spare, None
        done = False
        try:
            job = pickle.dumps((self.rules, list(busy), digest, afresh, overdue))
            output, complaint = await self._ask(process, job)
            if process.returncode == 2:
                raise ListError(complaint.decode(errors="replace").strip())
            if process.returncode != 0:
                raise self._ended(process)
            said = json.loads(output)
            done = said["digest"] != digest
            return Loaded(fd if done else -1, **said)
        finally:
            if not done:
                os.close(fd)
            await end(process)

    async def _ask(self, process: asyncio.subprocess.Process, job: bytes) -> tuple[bytes, bytes]:
        """What it says to the job, on standard output and error. ListError where it never will."""
        asking = asyncio.ensure_future(process.communicate(job))
        used = processor_time(process.pid)
        try:
            while not (await asyncio.wait({asking}, timeout=STILL))[0]:
                before, used = used, processor_time(process.pid)
                if used is not None and used == before:
                    raise ListError(f"{self.rules.directory}: the process that compiles the lists has stood still "
                                    f"for {STILL:.0f} s; is it stopped, or waiting for a disk?")
            return asking.result()
        except RuntimeError:            # from uvloop: its end of the pipe is closed, but it is not dead yet
            await end(process)
            raise self._ended(process) from None
        finally:
            asking.cancel()

    def _ended(self, process: asyncio.subprocess.Process) -> ListError:
        return ListError(f"{self.rules.directory}: the process that compiles the lists ended with status "
                         f"{process.returncode}; is there memory enough?")

    async def close(self) -> None:
        if self._spare is not None:
            (process, fd), self._spare = self._spare, None
            os.close(fd)
            await end(process)


async def end(process: asyncio.subprocess.Process) -> None:
    kill(process)
    with suppress(TimeoutError):        # one that waits for a disk that does not answer ends when that does
        async with asyncio.timeout(ENDING):
            await process.wait()


def processor_time(process: int) -> int | None:
    """How much it has used the processor, in clock ticks; None where a sandbox hides it, or it has ended."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            user, system = file.read().rpartition(b")")[2].split()[11:13]
    except OSError:
        return None
    return int(user) + int(system)


def map_snapshot(fd: int, key: bytes) -> Snapshot:
    """The snapshot in an open file, mapped; of a sealed one only the header is verified, as all of it was before.

    Raises:
        ListError: it is none, or of another key or version, or not sealed and altered.
    """
    sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
    # Private, because kernels before 6.7 refuse a shared mapping of a file that is sealed; nobody writes, so the
    # pages are shared all the same.
    mapped = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    return open_snapshot(memoryview(mapped), key, verified=sealed)


def work(rules: Rules, busy: list[str], digest: str, afresh: bool, overdue: bool, fd: int) -> dict[str, Any]:
    """The job: what `Loaded` has but for `fd`, which holds the snapshot afterwards unless it has that `digest`."""
    key = read_key(rules.key, create=True)
    store = Store(rules.key.parent, key)
    outcome = refresh(rules, store, time.time(), busy, afresh, hurry=not digest, overdue=overdue)
    said = asdict(outcome)
    said["key"] = key.hex()
    said["digest"] = open_file(store.snapshot, key, verified=True).digest
    if said["digest"] != digest:
        with open(store.snapshot, "rb") as source, open(os.dup(fd), "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
        mapped = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        said["digest"] = open_snapshot(memoryview(mapped), key, str(store.snapshot)).digest
    return said


def main(arguments: list[str]) -> int:
    """The process: the supervisor's id and the file for the snapshot; the job comes on standard input."""
    parent, fd = map(int, arguments)
    end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)    # Ctrl-C is for the daemon, which ends us
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    public_suffixes()
    shipped_protected()
    job = sys.stdin.buffer.read()
    if not job:
        return 0
    rules, busy, digest, afresh, overdue = pickle.loads(job)
    if digest:      # else nothing is in force yet, and nobody to give way to
        give_way()
    try:
        said = work(rules, busy, digest, afresh, overdue, fd)
    except EdgeblockError as problem:
        print(problem, file=sys.stderr)
        return 2
    except OSError as problem:      # memory and disks run full anywhere
        print(f"{problem.filename or 'the snapshot in memory'}: {problem.strerror}", file=sys.stderr)
        return 2
    print(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
