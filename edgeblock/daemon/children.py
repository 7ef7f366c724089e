"""A worker process as the supervisor sees it: started, told, heard.

In: orders and open files for it. Out: what it has said, with the files that it has sent; one that cannot be told
something is ended. Never here: which queue it works for (slots.py), or what follows from what it says (workers.py).
"""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from edgeblock.daemon.process import kill, start
from edgeblock.source.queue import is_table_given

MESSAGE_MAX = 1 << 16       # bytes of what it says at a time


@dataclass(eq=False)
class Child:
    """A worker process; `link` is the socket to it, `serial` the rules it has."""

    process: asyncio.subprocess.Process
    link: socket.socket
    serial: int = 0
    bound: bool = False
    broken: bool = False            # its queue's socket is
    problem: str = ""
    blame: str = ""                 # of the packet in its hand, where that is known before it has ended
    retired: bool = False           # not needed any more

    @property
    def is_ready(self) -> bool:
        """For a queue, where it has none."""
        return self.serial > 0 and not self.problem and not self.retired

    def tell(self, order: dict[str, Any], files: tuple[int, ...] = ()) -> None:
        try:
            socket.send_fds(self.link, [json.dumps(order).encode()], list(files))
        except OSError:     # it is ending, has not read a hundred orders, or the kernel has no memory for this one
            kill(self.process)      # what has missed an order is not to go on without it

    def hear(self) -> list[tuple[dict[str, Any], list[int]]]:
        """What it has said since it was heard last, with the open files that came with each message."""
        heard: list[tuple[dict[str, Any], list[int]]] = []
        while True:
            try:
                message, files, _, _ = socket.recv_fds(self.link, MESSAGE_MAX, 1)
            except BlockingIOError:
                return heard
            except OSError:
                message, files = b"", []
            if not message:
                asyncio.get_running_loop().remove_reader(self.link.fileno())
                return heard
            said = json.loads(message)
            self.problem = said.get("refused", self.problem)
            self.broken = said.get("broken", self.broken)
            self.serial = said.get("rules", self.serial)
            self.bound = self.bound or "bound" in said
            heard.append((said, files))

    async def lines(self) -> AsyncIterator[str | None]:
        """What it writes for the journal until its end, line by line; None for one that is longer than those are."""
        assert self.process.stdout is not None
        line = b"?"
        while line:
            try:
                line = await self.process.stdout.readline()
            except ValueError:          # what is left of it is no line of theirs
                yield None
                continue
            except OSError:             # its end comes as one
                return
            if line.startswith(b"{") and line.endswith(b"\n"):
                yield line[:-1].decode("ascii", "backslashreplace")

    def close(self) -> None:
        """After its end."""
        asyncio.get_running_loop().remove_reader(self.link.fileno())
        self.link.close()


async def start_child(rows: int, board: int, begun: int, settings: int) -> Child:
    """A worker without a queue. `rows` are those of the board; the rest are open files that it gets.

    Raises:
        OSError: no process, or no descriptor, is to be had now.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = None
    try:
        process = await start(
            "edgeblock.daemon.worker", *map(str, (os.getpid(), theirs.fileno(), board, rows, begun, settings)),
            pass_fds=(theirs.fileno(), board, begun, settings),
            stdin=None if is_table_given() else asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE)
    finally:
        theirs.close()
        if process is None:     # none is to be had, or we are about to stop
            ours.close()
    ours.setblocking(False)
    return Child(process, ours)
