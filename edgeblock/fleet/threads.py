"""Work that waits on others in a thread of its own, which keeps nobody from ending.

In: a function. Out: a future of what it returns or raises. Never here: what the work is.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


def in_thread(work: Callable[[], T], name: str) -> "asyncio.Future[T]":
    """Begins the work. Unlike those of asyncio, the thread is none that the process waits for at its end: a name
    server that does not answer cannot be interrupted.

    Raises:
        OSError: no thread is to be had now.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, problem: BaseException | None) -> None:
        if future.done():           # nobody waits for it any more
            return
        if problem is not None:
            future.set_exception(problem)
        else:
            future.set_result(result)       # type: ignore[arg-type]

    def run() -> None:
        result, problem = None, None
        try:
            result = work()
        except BaseException as caught:     # it is whoever waits who has to know
            problem = caught
        with suppress(RuntimeError):        # the loop has ended
            loop.call_soon_threadsafe(settle, result, problem)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError:
        raise OSError("no thread is to be had; allow more (TasksMax, or ulimit -u)") from None
    return future
