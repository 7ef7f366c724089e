"""How a daemon begins: with the process that compiles the lists, which imports what it needs while we do.

In: a Config whose every value can be read, and what checks the rest of it. Out: the daemon's exit status. A start is
mostly imports: what is imported here, at the top, is what that process waits for. Never here: what a daemon does when
it has begun (supervisor.py).
"""

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

import uvloop

from edgeblock.config import Config
from edgeblock.daemon.compiler import Compiler
from edgeblock.daemon.itself import hide_memory
from edgeblock.daemon.journal import Journal


def run(config: Config, check: Callable[[], object], log: TextIO = sys.stdout,
        kept: dict[str, int] | None = None) -> int:
    """The daemon, until a signal ends it; the exit status. EdgeblockError if it cannot start or go on.

    `check` raises ConfigError where the configuration cannot be used. `kept` are the files that the service manager
    has kept for us, by their names.
    """
    hide_memory()
    day = config.daemon.log_megabytes * 1_000_000
    with Journal(log, config.privacy, config.daemon.log_blocks, day_bytes=day) as journal:
        try:
            return uvloop.run(begin(config, check, journal, kept or {}))
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
                signal.signal(number, signal.SIG_IGN)       # it is ending already


async def begin(config: Config, check: Callable[[], object], journal: Journal, kept: dict[str, int]) -> int:
    compiler = Compiler(config.rules, config)
    try:
        with suppress(OSError):         # none is to be had now: who needs it tries again, and says so
            await compiler.prepare()
            compiler.wake()
        check()
        from edgeblock.daemon.supervisor import Supervisor

        return await Supervisor(config, journal, kept, compiler).serve()
    finally:
        await compiler.close()
