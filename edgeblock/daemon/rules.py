"""The lists of a running daemon: compiled in a child process, so that no packet waits, and watched for changes.

In: the [rules] settings. Out: a matcher, or a ListError and everything as it was. A change counts once it has been
still for a moment, so a file that is being written is not taken half. Run as a module, this is the child: it compiles
a directory and writes the snapshot to standard output, behind one line of JSON about it.

Never here: an engine. Never in an error for the log: the text of a listed name.
"""

import asyncio
import json
import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from edgeblock.blocklist import rules as lists
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.snapshot import open_snapshot
from edgeblock.config import Rules
from edgeblock.errors import EdgeblockError, ListError

PAUSE = 0.2             # seconds between two looks at the directory; a change is taken when two looks agree
HEAD_MAX = 1 << 20      # bytes of the child's line about the lists

Sight = tuple[tuple[str, int, int, int, int], ...]


@dataclass(frozen=True)
class Loaded:
    """Rules in force. `expires` is when the first of the lists does, in Unix seconds; None if none will."""

    matcher: ListMatcher
    lists: int
    entries: int
    digest: str
    expires: float | None


async def load(rules: Rules) -> Loaded:
    """The lists of `rules.directory` as they are now, compiled at low priority.

    Raises:
        ListError: they cannot be used; the text is the child's, which may quote a line of a list.
    """
    key = lists.read_key(rules.key, create=True)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edgeblock.daemon.rules", str(rules.directory), rules.action, rules.https,
        str(rules.key), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, limit=HEAD_MAX)
    try:
        output, complaint = await child.communicate()
    finally:
        if child.returncode is None:    # cancelled: we are about to stop
            child.kill()
            await child.wait()
    if child.returncode == 2:
        raise ListError(complaint.decode(errors="replace").strip())
    if child.returncode != 0:
        raise ListError(f"{rules.directory}: the process that compiles the lists ended with status "
                        f"{child.returncode}; is there memory enough?")
    return await asyncio.get_running_loop().run_in_executor(None, _open, output, key)


def _open(output: bytes, key: bytes) -> Loaded:
    end = output.index(b"\n") + 1
    head = json.loads(output[:end])
    snapshot = open_snapshot(memoryview(output)[end:], key)
    return Loaded(ListMatcher(snapshot), head["lists"], head["entries"], snapshot.digest, head["expires"])


def look(directory: Path) -> Sight:
    """What tells whether a directory has changed: name, inode, size and times of every file; empty if unreadable."""
    seen = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                try:
                    state = entry.stat()
                except OSError:         # gone since, or a link to nowhere
                    continue
                seen.append((entry.name, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))
    except OSError:
        return ()
    return tuple(sorted(seen))


def without_names(problem: str, directory: Path) -> str:
    """An error as it may be logged: of a line of a list only its place, without what it says."""
    line = re.match(r"[^:]*:\d+(?=: )", problem)
    return f"{line[0]}: cannot be used; `edgeblock lint {directory}` says why" if line else problem


def main(arguments: list[str]) -> int:
    """The child: directory, action, https, key file -> a line of JSON and a snapshot on standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)    # Ctrl-C is for the daemon, which ends us
    os.nice(10)
    directory, action, https, key = arguments
    try:
        loaded = lists.load(directory, action=action, https=https, key=lists.read_key(key))
    except EdgeblockError as problem:
        print(problem, file=sys.stderr)
        return 2
    expiries = [info.expires.timestamp() for info in loaded.lists if info.expires and not info.expired]
    head = {"lists": len(loaded.lists), "entries": sum(info.entries for info in loaded.lists),
            "expires": min(expiries, default=None)}
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n")
    sys.stdout.buffer.write(loaded.snapshot)
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
