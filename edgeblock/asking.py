"""The control socket from the side of who asks: one question, one answer in JSON.

In: a socket's path, a question. Out: what the daemon behind it answers, or a SystemProblem that says why there is
none and what helps. Never here: what is answered (daemon/control.py), anything of the daemon's.
"""

import errno
import json
import os
import socket
import struct
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from edgeblock.errors import SystemProblem

QUESTION_MAX = 1 << 16  # bytes of a question: a URL that a list can hold, with every byte escaped
PATIENCE = 5.0          # seconds for the other side to ask, or to answer
NOT_PERMITTED = ("{}: not permitted; ask as root, as the daemon's own user, or as a member of the group that "
                 "[daemon] control_group names")
PATIENT = struct.Struct("@ll")          # struct timeval


def _connected(path: Path, patience: float) -> socket.socket:
    """A connection, waited for in line with others. Raises OSError, BlockingIOError after so many seconds."""
    end = time.monotonic() + patience
    while True:
        daemon = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Not by settimeout: then it would fail at once where a crowd is waiting to be let in.
            daemon.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO,
                              PATIENT.pack(int(patience), int(patience % 1 * 1e6)))
            daemon.connect(str(path))
            daemon.getpeername()
        except OSError as problem:
            daemon.close()
            # Python takes a wait that a signal has ended for a connection.
            if problem.errno != errno.ENOTCONN or time.monotonic() > end:
                raise
        else:
            return daemon


def _received(daemon: socket.socket, end: float) -> bytes:
    """More of an answer that has to be whole at `end` of the steady clock, however slowly it comes."""
    if (left := end - time.monotonic()) <= 0:
        raise TimeoutError
    daemon.settimeout(left)
    return daemon.recv(65536)


def ask(path: Path, question: str, patience: float = PATIENCE) -> Any:
    """What the daemon behind the socket answers, within so many seconds.

    SystemProblem where none does, or for a question too long.
    """
    if len(question) >= QUESTION_MAX:
        raise SystemProblem(f"the question is longer than {QUESTION_MAX} bytes; a list has no name of that length")
    with ExitStack() as stack:
        try:
            daemon = stack.enter_context(_connected(path, patience))
            end = time.monotonic() + patience
            daemon.settimeout(patience)
            daemon.sendall(question.encode() + b"\n")
            answer = b"".join(iter(lambda: _received(daemon, end), b""))
            if not answer and os.geteuid() != 0:
                raise SystemProblem(NOT_PERMITTED.format(path))
            return json.loads(answer)
        except ConnectionResetError:
            raise SystemProblem(NOT_PERMITTED.format(path) if os.geteuid() else f"{path}: no answer: too many ask at "
                                "a time; try again") from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise SystemProblem(f"{path}: no edgeblock is running here; start it with `edgeblock run`, or name its "
                                "configuration with --config") from None
        except PermissionError:
            raise SystemProblem(NOT_PERMITTED.format(path)) from None
        except (TimeoutError, BlockingIOError):
            raise SystemProblem(f"{path}: no answer within {patience:.0f} s") from None
        except (OSError, ValueError) as problem:
            raise SystemProblem(f"{path}: no answer: {problem}") from None


def have_answered(path: Path, question: str, **more: float) -> Any:
    """As `ask`. SystemProblem, too, where the daemon has a complaint in place of an answer."""
    answer = ask(path, question, **more)
    if "error" in answer:
        raise SystemProblem(f"the running daemon says: {answer['error']}")
    return answer
