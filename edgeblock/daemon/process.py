"""Children of the supervisor. In: a program. Out: a process, or its end.

All are started and killed here, because uvloop has its own ways when a descriptor or a process is not to be had, and
when a process has ended already.
"""

import asyncio
import os
import sys
from typing import Any

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
