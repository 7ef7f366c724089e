"""Children of the supervisor. In: a program, or a process and its parent. Out: a process, its end, its settings.

All are started and killed here, because uvloop has its own ways when a descriptor or a process is not to be had, and
when a process has ended already.
"""

import asyncio
import ctypes
import os
import resource
import signal
import sys
from typing import Any

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
NICENESS = 10           # a tenth of the processor where a worker wants it too
DESCRIPTORS = 16        # that starting a process takes, for some milliseconds; ten are enough for uvloop 0.23


async def start(module: str, *arguments: str, **more: Any) -> asyncio.subprocess.Process:
    """A Python module as a process, wherever we were started from; `more` as for asyncio.create_subprocess_exec.

    Raises:
        OSError: no process, or no descriptor, is to be had now. Nothing is left of it.
    """
    # uvloop never closes what it had opened before it got no more: a short lack would become a lasting one.
    files: list[int] = []
    try:
        while len(files) < DESCRIPTORS:
            files.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    finally:
        for file in files:
            os.close(file)
    return await asyncio.create_subprocess_exec(sys.executable, "-P", "-m", module, *arguments, **more)


def kill(process: asyncio.subprocess.Process) -> None:
    """Ends it, unless it has ended."""
    if process.returncode is None:      # else uvloop raises
        process.kill()


def end_with_parent(parent: int) -> None:
    """The kernel ends this process when its parent has ended, stopped or not."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def hide_memory() -> None:
    """Nobody but root looks at the memory of this process, and no core file is made of it: it has the key in it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def give_way() -> None:
    """Runs after everybody else, and is the first to go where memory is short."""
    os.nice(NICENESS)
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        return          # a kernel or a sandbox that does not let it choose
