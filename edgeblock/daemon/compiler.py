"""Has the lists of a running daemon compiled: by a process of its own (compiling.py), so that no packet waits.

In: the [rules] settings, and which files somebody is still writing. Out: Loaded: a sealed file in memory that workers
map, and what has become of every list; or a ListError and everything as it was. A process is always waiting; it does
one job and ends, and its memory with it. What it needs for that it imports at the first sign of one (`wake`).

The file in memory is the published snapshot, verified whole. It is sealed, so nobody can change what was verified,
and no look-up ever waits for a disk. What a process that has read what others have written hands back is verified
here. A list that is long or slow is read by another one beside it, so that the others need not wait; some of its
entries go from there to who tries them, in a file in memory that nobody else reads. That process goes on trying what
is to come into force for some seconds when it has said the rest. Never here: a list read.
"""

import asyncio
import fcntl
import json
import mmap
import os
import pickle
import re
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from edgeblock.blocklist.canary import lists_of_people
from edgeblock.blocklist.keys import Key, held, key_file
from edgeblock.blocklist.snapshot import Snapshot, open_snapshot, stack
from edgeblock.config import Config, Rules
from edgeblock.daemon.compiling import WAKE
from edgeblock.daemon.mapping import SEALS
from edgeblock.daemon.process import kill, start
from edgeblock.errors import ListError, printable

STILL = 30.0            # seconds in which a process that compiles does something, however slow the machine
ENDING = 3.0            # seconds that a process may take to end once it is killed
ANSWER_MAX = 64 << 20   # bytes that it may say: of 10 000 lists in force and as many refused it says 12 MB
COMPLAINT_MAX = 1 << 16
PIECE = 1 << 20
SAMPLES_MAX = 16        # of long lists that wait to be tried: of more than that the oldest are left

CPUCLOCK_SCHED = 2      # with a process's complement in the bits above, the kernel's name of its clock


@dataclass(frozen=True)
class Loaded:
    """Rules in force. `fd` is the snapshot, -1 where it is the one that was in force before; `base` is the digest of
    the one that it lies over, "" where it lies over none, and `base_fd` that one, -1 where whoever asked has it. The
    rest is what `refresh.Outcome` says. `expires` is when the first of the lists does, in Unix seconds; None if none
    will. `key` is what the snapshot was made with, and `key_fd` an open file that hands it on (keys.py): the one in
    the state directory may be gone when a worker is replaced. `trial` is what came of trying them (selfcheck.py)."""

    fd: int
    digest: str
    lists: list[dict[str, Any]]
    changes: list[dict[str, Any]]
    refused: dict[str, dict[str, Any]]
    warnings: list[str]
    problem: str
    again: bool
    content: str
    key: Key = field(repr=False)
    key_fd: int
    base: str = ""
    base_fd: int = -1
    slow: list[Any] = field(default_factory=list)
    trial: dict[str, Any] = field(default_factory=dict)

    @property
    def whole(self) -> str:
        """The digest of the snapshot that later ones may lie over."""
        return self.base or self.digest

    @property
    def entries(self) -> int:
        return sum(one["entries"] for one in self.lists)

    @property
    def expires(self) -> float | None:
        return min((one["expires"] for one in self.lists if one["expires"] and not one["expired"]), default=None)


class Ended(ListError):
    """The process has ended by itself, and may do so again whenever it reads what it was reading."""


class Compiler:
    """Has lists compiled: all short ones in one job, and beside it one that is long or slow."""

    def __init__(self, rules: Rules, config: Config | None = None) -> None:
        self.rules = rules
        self.config = config or Config(rules=rules)
        self.trying: asyncio.subprocess.Process | None = None       # it goes on trying what it has handed over
        self._spare: tuple[asyncio.subprocess.Process, int, int, int] | None = None
        self._samples: dict[str, int] = {}      # of long lists that have been read and not tried yet: open files
        self._given: dict[str, int] = {}        # those that the spare has
        self._woken = False                     # the spare is
        self._key: tuple[Key, int] | None = None        # of the job before
        self._died = False                      # in the job before
        self._died_alone: str = ""              # the list that was read by itself when its process ended

    async def prepare(self) -> None:
        """Starts a process that will wait for the next job."""
        files: list[int] = []
        samples = dict(self._samples)
        try:
            for _ in range(2):
                files.append(os.memfd_create("edgeblock-rules", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
            files.append(key_file())
            process = await start(
                "edgeblock.daemon.compiling", str(os.getpid()), *map(str, files), *map(str, samples.values()),
                pass_fds=(*files, *samples.values()),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                limit=ANSWER_MAX)
            self._spare, self._given = (process, files[0], files[1], files[2]), samples
            self._woken = False
        finally:
            if self._spare is None:     # none could be started, or we are about to stop
                close_files(*files)

    @property
    def is_ready(self) -> bool:
        """Whether a process waits for the next job."""
        return self._spare is not None

    def wake(self) -> None:
        """A job is soon to come: the process that waits imports what it needs for it."""
        process = None if self._spare is None or self._woken else self._spare[0]
        if process is not None and process.stdin is not None and not process.stdin.is_closing():
            self._woken = True
            process.stdin.write(WAKE)

    async def load(self, busy: Collection[str] = (), digest: str = "", afresh: bool = False,
                   lane: dict[str, dict[str, Any]] | None = None, held: str = "") -> Loaded:
        """The lists as they are now.

        Args:
            busy: names of files that are being written.
            digest: of the snapshot that is in force.
            afresh: what is refused is read again, although nobody has touched it.
            lane: what is known of lists that are long or slow: refresh.refresh.
            held: the digest of the snapshot that is in force, or that it lies over.

        Raises:
            ListError: they cannot be used.
        """
        if self._spare is None or self._spare[0].returncode is not None or self._given != self._samples:
            await self._end_spare()
            await self.prepare()
        assert self._spare is not None
        (process, fd, base_fd, key_fd), self._spare = self._spare, None
        given, self._given = self._given, {}
        kept: set[int] = set()
        goes_on = False
        try:
            try:
                said = await self._have_done(process, (self.config, "", list(busy), digest, afresh, lane or {},
                                                       self._died, held, list(given)))
                self._died = False
            except Ended:
                self._died = True
                raise
            told = verified(said)
            key, key_fd = self._hold(key_fd), -1
            loaded = Loaded(fd, key=key[0], key_fd=key[1], **told)
            if not loaded.problem:              # else they are tried again
                self._forget_samples(given)
            if loaded.digest == digest:
                return replace(loaded, fd=-1)
            if loaded.base and loaded.base != held:
                loaded = replace(loaded, base_fd=base_fd)
            # In a thread: it takes a third of a second where there are ten million entries.
            await asyncio.get_running_loop().run_in_executor(None, verify, loaded)
            kept, goes_on = {loaded.fd, loaded.base_fd}, self.rules.self_check > 0
            return loaded
        finally:
            close_files(*({fd, base_fd} - kept), key_fd)
            if goes_on:
                await self._end_trying()
                self.trying = process
            else:
                await end(process)

    async def rest(self) -> dict[str, Any]:
        """What came of trying the rules that were handed over last, after that; {} where nobody tries any more."""
        process = self.trying
        if process is None or process.stdout is None:
            return {}
        try:
            async with asyncio.timeout(STILL + 10 * self.rules.self_check):
                output = await read_line(process.stdout)
            return verified_trial(json.loads(output)) if output else {}
        except (TimeoutError, ValueError, RecursionError, ListError):
            return {}
        finally:
            await end(process)

    async def _end_trying(self) -> None:
        if self.trying is not None:
            process, self.trying = self.trying, None
            await end(process)

    async def load_one(self, name: str) -> dict[str, Any]:
        """Has one list read and kept for the next `load`; {}, or what that one is to be told of it.

        Raises:
            Ended: the process has ended by itself.
            ListError: the list cannot be read now.
        """
        sample = os.memfd_create("edgeblock-sample", os.MFD_CLOEXEC)
        try:
            process = await start("edgeblock.daemon.compiling", str(os.getpid()), str(sample), pass_fds=(sample,),
                                  stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                                  stderr=asyncio.subprocess.PIPE, limit=ANSWER_MAX)
            died, self._died_alone = self._died_alone == name, ""
            try:
                said = await self._have_done(process, (self.config, name, [], "", False, {}, died, "", []))
            except Ended:
                self._died_alone = name
                raise
            finally:
                await end(process)
            told = refusal(said) if said else {}
            if not told and os.fstat(sample).st_size:
                self._keep_sample(name, sample)
                sample = -1
            return told
        finally:
            close_files(sample)

    def _keep_sample(self, name: str, file: int) -> None:
        close_files(self._samples.pop(name, -1))
        self._samples[name] = file
        while len(self._samples) > SAMPLES_MAX:
            close_files(self._samples.pop(next(iter(self._samples))))

    def _forget_samples(self, given: dict[str, int]) -> None:
        for name, file in given.items():
            if self._samples.get(name) == file:
                close_files(self._samples.pop(name))

    async def _have_done(self, process: asyncio.subprocess.Process, job: tuple[Any, ...]) -> Any:
        output, complaint = await self._ask(process, pickle.dumps(job))
        if not output.endswith(b"\n"):      # it has ended before it said all
            if process.returncode == 2:
                raise ListError(printable(complaint.decode(errors="replace").strip()))
            raise self._ended(process)
        try:
            return json.loads(output)
        except (ValueError, RecursionError):
            raise self._strange() from None

    async def _ask(self, process: asyncio.subprocess.Process, job: bytes) -> tuple[bytes, bytes]:
        """What it says to the job, on standard output and error. ListError where it never will."""
        asking = asyncio.ensure_future(communicate(process, job))
        used = processor_time(process.pid)
        try:
            while not (await asyncio.wait({asking}, timeout=STILL))[0]:
                before, used = used, processor_time(process.pid)
                if used is not None and used == before:
                    raise ListError(f"{self.rules.directory}: the process that compiles the lists has stood still "
                                    f"for {STILL:.0f} s; is it stopped, or waiting for a disk?")
            return asking.result()
        except (RuntimeError, OSError):     # uvloop: its end of the pipe is closed, but it is not dead yet
            await end(process)
            raise self._ended(process) from None
        finally:
            asking.cancel()

    def _strange(self) -> ListError:
        return ListError(f"{self.rules.directory}: the process that compiles the lists has said what it never says")

    def _ended(self, process: asyncio.subprocess.Process) -> ListError:
        return Ended(f"{self.rules.directory}: the process that compiles the lists ended with status "
                         f"{process.returncode}; is there memory enough?")

    def _hold(self, file: int) -> tuple[Key, int]:
        """The key that the process has left in the file: once in this process, however often it is handed back."""
        try:
            key = held(file)
        except (OSError, ValueError):
            os.close(file)
            raise self._strange() from None
        if self._key is not None and self._key[0] == key:
            os.close(file)
            return self._key
        self._forget_key()
        self._key = key, file
        return self._key

    def _forget_key(self) -> None:
        if self._key is not None:
            os.close(self._key[1])
            self._key = None

    async def close(self) -> None:
        self._forget_key()
        self._forget_samples(dict(self._samples))
        await self._end_trying()
        await self._end_spare()

    async def _end_spare(self) -> None:
        if self._spare is not None:
            (process, *files), self._spare = self._spare, None
            close_files(*files)
            await end(process)


def close_files(*files: int) -> None:
    for file in files:
        if file >= 0:
            os.close(file)


async def communicate(process: asyncio.subprocess.Process, job: bytes) -> tuple[bytes, bytes]:
    """What it says to the job, a line, and what it complains of if there is none. It is killed where that is more
    than it can have to say."""
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdin.write(WAKE + job)
    process.stdin.close()
    complaining = asyncio.ensure_future(read_up_to(process.stderr, COMPLAINT_MAX))
    try:
        output = await read_line(process.stdout)
        if output is not None and output.endswith(b"\n"):
            return output, b""
        if output is None:
            kill(process)
        complaint = await complaining
        if complaint is None:
            kill(process)
        await process.wait()
        return b"", complaint or b""
    finally:
        complaining.cancel()


async def read_line(stream: asyncio.StreamReader) -> bytes | None:
    """What comes up to the end of a line, or of all; None where it is more than the stream takes."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as all_there_is:
        return all_there_is.partial
    except asyncio.LimitOverrunError:
        return None


async def read_up_to(stream: asyncio.StreamReader, most: int) -> bytes | None:
    """All of it, or None where it is more."""
    pieces, size = [], 0
    while piece := await stream.read(PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > most:
            return None
    return b"".join(pieces)


async def end(process: asyncio.subprocess.Process) -> None:
    kill(process)
    with suppress(TimeoutError):        # one that waits for a disk that does not answer ends when that does
        async with asyncio.timeout(ENDING):
            await process.wait()


def processor_time(process: int) -> float | None:
    """For how many seconds it has used the processor; None where it has ended. Asked of its clock, as its files in
    /proc are hidden in a sandbox."""
    try:
        return time.clock_gettime(~process << 3 | CPUCLOCK_SCHED)
    except OSError:
        return None


# What a process hands back that has read what anybody may have written -------------------------------------------

ABOUT_A_LIST = {"name": str, "file": str, "action": str, "entries": int, "duplicates": int, "unusable": int,
                "guarded": int, "exceptions_lost": int, "expires": (int, float, type(None)), "expired": bool,
                "origin": str, "clients": str, "clients_count": int, "root": str, "leaves": int,
                "window": str}
ABOUT_A_REFUSAL = {"file": str, "told": str, "origin": str, "where": str, "in_force": bool, "sha256": str,
                   "order": str, "uid": (int, type(None)), "owner": (str, type(None))}
ABOUT_ALL = {"digest": str, "lists": list, "changes": list, "refused": dict, "warnings": list, "problem": str,
             "again": bool, "content": str, "slow": list, "base": str, "trial": dict}
ROOT = re.compile("[0-9a-f]{64}|")      # what a list's entries are committed to, or nothing
SHARES = {"subscribers_share"}          # of a change: parts of one; everything else is counted, or a text
ABOUT_A_TRIAL = {"lists": dict, "problem": str, "fault": str, "refused": bool}


def checked(said: Any, about: dict[str, Any]) -> dict[str, Any]:
    """The same, where it has just these keys with values of these types.

    Raises:
        ListError: it has not.
    """
    if not isinstance(said, dict) or said.keys() != about.keys() or not all(
            isinstance(said[key], kind) for key, kind in about.items()):
        raise ListError("the process that compiles the lists has said what it never says")
    return {key: printable(value) if isinstance(value, str) else value for key, value in said.items()}


def refusal(said: Any) -> dict[str, Any]:
    return checked(said, ABOUT_A_REFUSAL)


def verified_trial(said: Any) -> dict[str, Any]:
    """What is said of a trial.

    Raises:
        ListError: it is said in another way.
    """
    told = checked(said, ABOUT_A_TRIAL)
    for counts in told["lists"].values():
        if not isinstance(counts, list) or [type(one) for one in counts] != [int] * 4:
            raise ListError("the process that compiles the lists has said what it never says")
    return told | {"lists": {printable(name): counts for name, counts in told["lists"].items()}}


def verified(said: Any) -> dict[str, Any]:
    """What a process that compiles lists has said, if it can be that.

    Raises:
        ListError: it cannot.
    """
    told = checked(said, ABOUT_ALL)
    told["trial"] = verified_trial(told["trial"])
    told["lists"] = [checked(one, ABOUT_A_LIST) for one in told["lists"]]
    if not all(ROOT.fullmatch(one["root"]) for one in told["lists"]):
        raise ListError("the process that compiles the lists has said what it never says")
    told["refused"] = {printable(name): refusal(one) for name, one in told["refused"].items()}
    told["warnings"] = [printable(str(one)) for one in told["warnings"]]
    plain = (str, int, type(None))
    for change in told["changes"]:
        if not isinstance(change, dict) or not {"change", "list"} <= change.keys() or not all(
                isinstance(value, plain) or key in SHARES and type(value) is float and 0 <= value <= 1
                for key, value in change.items()):
            raise ListError("the process that compiles the lists has said what it never says")
    told["changes"] = [{printable(key): printable(value) if isinstance(value, str) else value
                        for key, value in change.items()} for change in told["changes"]]
    for one in told["slow"]:
        if not isinstance(one, list) or list(map(type, one)) != [str, str, int]:
            raise ListError("the process that compiles the lists has said what it never says")
    return told


def verify(loaded: Loaded) -> None:
    """Whether the files have the snapshots that they are said to have, and nobody can change them any more.

    Raises:
        ListError: they have not, or somebody can.
    """
    key = loaded.key
    snapshot = verified_file(loaded.fd, loaded.digest, key)
    if snapshot.parts.base != loaded.base or [one["name"] for one in loaded.lists] != [
            record.name for record in lists_of_people(snapshot.parts.lists)]:
        raise ListError("the snapshot in memory is not the one that was announced")
    if loaded.base_fd >= 0:
        stack(snapshot, verified_file(loaded.base_fd, loaded.base, key))


def verified_file(fd: int, digest: str, key: Key) -> Snapshot:
    """The snapshot with that digest. ListError where it is not in the file, or somebody can change that."""
    try:
        sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
        mapped = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    except (OSError, ValueError) as problem:
        raise ListError(f"the snapshot in memory: {problem}") from None
    snapshot = open_snapshot(memoryview(mapped), key, "the snapshot in memory")
    if not sealed or snapshot.digest != digest:
        raise ListError("the snapshot in memory is not the one that was announced")
    return snapshot
