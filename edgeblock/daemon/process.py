"""What a child of the supervisor tells the kernel of itself. In: its parent. Out: settings of this process."""

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1
NICENESS = 10           # a tenth of the processor where a worker wants it too


def end_with_parent(parent: int) -> None:
    """The kernel ends this process when its parent has ended, stopped or not."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def give_way() -> None:
    """Runs after everybody else, and is the first to go where memory is short."""
    os.nice(NICENESS)
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        return          # a kernel or a sandbox that does not let it choose
