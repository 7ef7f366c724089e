"""The control socket: one question a connection, one line of JSON back.

In: "status" and a line end, or "check" with a name in JSON. Out: the counters, or what the lists say of that name.
The daemon's own user (and root) may ask everything; members of one group only what OTHERS_WORDS has, a few at a time,
so that they can never keep an operator from asking. Never here: a name or an address of anybody else.
"""

import asyncio
import grp
import inspect
import json
import os
import socket
import struct
from array import array
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgeblock.asking import PATIENCE, QUESTION_MAX
from edgeblock.errors import SystemProblem

ASKING_MAX = 32         # connections at a time; who comes after them is let go at once
OTHERS_MAX = 8          # of these, of the group's members: list writers, whom nobody has to trust
OTHERS_WORDS = {"status", "check"}
SHARED = 1.0            # seconds for which all of them have one answer: of 10 000 lists it takes 0.25 to make
CREDENTIALS = struct.Struct("=iII")     # struct ucred of socket(7): process, user, group
SO_PEERGROUPS = 59                      # of asm-generic/socket.h: the other groups of who connected
GROUPS_MAX = 256                        # what Python's getsockopt has room for


class Control:
    """Answers on a UNIX socket while it is open."""

    def __init__(self, path: Path, answers: dict[str, Callable[[], Any]],
                 about: dict[str, Callable[[str], Any]] | None = None, group: str = "") -> None:
        """Answers whole questions with `answers`, and "WORD something" with `about`, which is told the something.

        Members of `group` may ask too, where there is such a group.
        """
        self.path = path
        self.answers = answers
        self.about = about or {}
        self.server: asyncio.AbstractServer | None = None
        self.group = group
        self.group_id = _group_id(group)
        self.asking = 0
        self.others = 0
        self.made: dict[str, tuple[asyncio.Future[Any], float]] = {}    # answers for others, and since when

    async def open(self) -> None:
        """Raises SystemProblem where the socket cannot be made, or another daemon answers on it."""
        listener = _listen(self.path, 0o600 if self.group_id is None else 0o666)
        self.server = await asyncio.start_unix_server(self._answer, sock=listener, limit=QUESTION_MAX)

    async def close(self) -> None:
        if self.server is not None:
            self.server.close()
            self.server = None
            with suppress(OSError):         # it or its directory has been taken away, or may not be changed any more
                self.path.unlink()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        user, groups = _who(writer.get_extra_info("socket"))
        other = user not in (0, os.geteuid())
        if self.asking >= ASKING_MAX or other and (self.group_id not in groups or self.others >= OTHERS_MAX):
            writer.transport.abort()
            return
        self.asking += 1
        self.others += other
        try:
            question = (await asyncio.wait_for(reader.readline(), PATIENCE)).decode("ascii", "replace").strip()
            said: Any
            if other and question.partition(" ")[0] not in OTHERS_WORDS:
                said = {"error": f"not permitted; members of {self.group} may ask {', '.join(sorted(OTHERS_WORDS))}"}
            elif other and question in self.answers:
                said = self._shared(question)
            else:
                said = self._say(question)
            if inspect.isawaitable(said):
                said = await said
            if writer.is_closing():     # it went away meanwhile; uvloop would raise
                return
            writer.transport.set_write_buffer_limits(0)     # else drain would not wait for the end of the answer
            writer.write(json.dumps(said).encode() + b"\n")
            await asyncio.wait_for(writer.drain(), PATIENCE)
            writer.close()
        except (OSError, ValueError, TimeoutError, RecursionError):     # it went away, asked too much or nothing
            return
        finally:
            self.asking -= 1
            self.others -= other
            writer.transport.abort()    # what is closed already is closed; nothing waits for one that does not read

    async def _shared(self, question: str) -> Any:
        made, at = self.made.get(question, (None, 0.0))
        now = asyncio.get_running_loop().time()
        if made is None or made.done() and now > at + SHARED:
            made = asyncio.ensure_future(self._have_said(question))
            self.made[question] = made, now
        return await asyncio.shield(made)

    async def _have_said(self, question: str) -> Any:
        said = self._say(question)
        return await said if inspect.isawaitable(said) else said

    def _say(self, question: str) -> Any:
        word, _, rest = question.partition(" ")
        if rest and word in self.about:
            return self.about[word](rest)
        if question in self.answers:
            return self.answers[question]()
        known = [*self.answers, *(f"{word} ..." for word in self.about)]
        return {"error": f"unknown question; known are {', '.join(known)}"}


def _group_id(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _who(connection: socket.socket) -> tuple[int, set[int]]:
    """The user and the groups of who connected, which is the kernel's word."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    _, user, group = CREDENTIALS.unpack(found)
    try:
        others = array("I", connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * GROUPS_MAX))
    except OSError:         # it is in more
        return user, {group}
    return user, {group, *others}


def _listen(path: Path, mode: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if _is_answered(path):
            raise SystemProblem(f"{path}: the control socket is in use by another edgeblock; stop it, or set "
                                "another control in [daemon]")
        if path.is_socket():
            path.unlink()       # left by one that was killed
        mask = os.umask(0o777 & ~mode)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(16)
    except OSError as problem:
        listener.close()
        raise SystemProblem(f"{path}: the control socket cannot be made: {problem.strerror or problem}; set another "
                            "control in [daemon]") from None
    except SystemProblem:
        listener.close()
        raise
    return listener


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.settimeout(PATIENCE)
        try:
            trial.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except (TimeoutError, BlockingIOError):     # somebody has it, and is busy
            return True
        return True
