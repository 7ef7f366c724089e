"""What a process of the daemon sets for itself. In: nothing but its parent. Out: when it ends, who sees its memory,
whom it makes way for, what it gives back. Never here: another process; so it is imported for next to nothing.
"""

import ctypes
import os
import resource
import signal

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
NICENESS = 10           # a tenth of the processor where a worker wants it too


def end_with_parent(parent: int) -> None:
    """The kernel ends this process when its parent has ended, stopped or not."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def hide_memory() -> None:
    """Nobody but root looks at the memory of this process, and no core file is made of it: it has the key in it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def give_back() -> None:
    """What has been freed since the start goes back to the kernel, where the C library can do that (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def give_way() -> None:
    """Runs after everybody else, and is the first to go where memory is short."""
    os.nice(NICENESS)
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        return          # a kernel or a sandbox that does not let it choose
