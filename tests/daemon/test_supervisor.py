"""The supervisor where one of its parts fails, or cannot be started."""

import asyncio
from types import SimpleNamespace

import pytest
import uvloop

from edgeblock.config import Config, Rules
from edgeblock.daemon.compiler import Compiler
from edgeblock.daemon.supervisor import Supervisor
from edgeblock.errors import SystemProblem
from tests.daemon.parts import Log


@pytest.fixture
def supervisor():
    """One that has not started."""
    return Supervisor(Config(), SimpleNamespace(log=Log(), lost=0), {}, Compiler(Rules()))


def test_a_part_that_fails_ends_the_daemon(supervisor):
    """Else it would go on, and nobody would look after its workers."""
    class Fault(Exception):
        pass

    async def fail():
        raise Fault

    async def start_and_wait(_):
        supervisor.tasks.go_on(fail())
        await asyncio.sleep(60)

    supervisor._start = start_and_wait
    with pytest.raises(Fault):
        uvloop.run(supervisor.serve())


def test_what_no_start_is_possible_without_is_one_line(supervisor):
    async def no_process(_):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    supervisor._start = no_process
    with pytest.raises(SystemProblem, match="^the daemon cannot start: Resource temporarily unavailable; it needs "
                                            "some processes and a hundred open files"):
        uvloop.run(supervisor.serve())
