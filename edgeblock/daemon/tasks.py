"""Work that goes on beside everything else in the supervisor, and that does not fail unseen.

In: coroutines. Out: their tasks, and the first fault of one, which ends the daemon. Never here: what the work is.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any


class Tasks:
    """`failure` is a fault of ours that nobody else would notice; `stop` is called when there is one."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self.failure: BaseException | None = None
        self._stop = stop

    def go_on(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Does it beside everything else. The daemon ends where it fails: nobody would notice that it is not done."""
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (failure := task.exception()):
            self.failure = failure
            self._stop()


async def give_up(task: "asyncio.Task[None]") -> None:
    """Ends it, and waits for its end."""
    task.cancel()
    await asyncio.wait({task})


async def wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set, so long at most.

    Not by `asyncio.wait_for`: in Python 3.11 it forgets a cancellation that comes in one turn of the loop with the
    event, and the daemon would not stop.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
