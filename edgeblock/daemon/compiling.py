"""The process that compiles lists, while it waits for a job: it has imported next to nothing, and takes 6 MB.

In: a byte on standard input at the first sign of a job, then the job, of which job.py knows more. Out: its status.
Never here: anything imported that only a job needs; it would be in memory day and night.
"""

import os
import signal
import sys

from edgeblock.daemon.itself import end_with_parent

WAKE = b"\n"            # with which no job begins


def main(arguments: list[str]) -> int:
    """The process: the supervisor's id, and open files for the job."""
    parent, *files = map(int, arguments)
    end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)    # Ctrl-C is for the daemon, which ends us
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if not os.read(sys.stdin.fileno(), 1):
        return 0
    try:
        from edgeblock.daemon import job

        job.prepare()
    except Exception as problem:    # what is on the disk now is not what the daemon was started from
        print(f"what reads lists cannot be imported ({type(problem).__name__}: {problem}); if edgeblock was changed "
              "on the disk, restart it", file=sys.stderr)
        return 2
    text = sys.stdin.buffer.read().lstrip(WAKE)
    return job.do(text, files) if text else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
