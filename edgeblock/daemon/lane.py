"""Lists that are long or slow to read wait in a lane of their own, so that the others need not wait for them.

In: which lists these are (Loaded.slow). Out: each read by a process of its own, one after the other, and what
the next load is to be told of it (`known`). Never here: when that load comes, or a list that is quick.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from edgeblock.daemon.compiler import Compiler, Loaded
from edgeblock.daemon.tasks import Tasks, give_up
from edgeblock.errors import ListError

AGAIN = 0.5             # seconds until a list is tried again that could not be read


class Lane:
    """`known` is what `Compiler.load` takes. `read` is called whenever there is something new in it."""

    def __init__(self, compiler: Compiler, log: Any, tasks: Tasks, read: Callable[[], None]) -> None:
        self.known: dict[str, dict[str, Any]] = {}      # waiting, or refused
        self._compiler, self._log, self._tasks, self._read = compiler, log, tasks, read
        self._spent: defaultdict[int, float] = defaultdict(float)   # seconds that those of each owner have taken
        self._reader: asyncio.Task[None] | None = None

    def forget_refused(self) -> None:
        """They are to be read again, although nobody has touched them."""
        self.known = {name: one for name, one in self.known.items() if "told" not in one}

    def line_up(self, loaded: Loaded) -> None:
        """Those that a load has found wait from here on."""
        waiting = {name: {"origin": origin, "uid": uid} for name, origin, uid in loaded.slow}
        kept = {name: one for name, one in self.known.items()
                if name not in waiting and ("told" not in one or name in loaded.refused)}
        self.known = kept | waiting
        if waiting and (self._reader is None or self._reader.done()):
            self._reader = self._tasks.go_on(self._read_all())

    async def end(self) -> None:
        if self._reader is not None:
            await give_up(self._reader)

    async def _read_all(self) -> None:
        loop = asyncio.get_running_loop()
        while waiting := [name for name, one in self.known.items() if "told" not in one]:
            # Whose lists have taken least so far: nobody's long lists keep those of another waiting.
            name = min(waiting, key=lambda name: self._spent[self.known[name]["uid"]])
            one, began = self.known[name], loop.time()
            try:
                told = await self._compiler.load_one(name)
            except (ListError, OSError) as problem:
                self._log.error("a long list could not be read; it is tried again", list=name, problem=str(problem))
                told = {}
                await asyncio.sleep(AGAIN)
            self._spent[one["uid"]] += loop.time() - began
            if self.known.get(name) is one:     # else it has changed meanwhile, and waits again
                if told:
                    self.known[name] = told
                else:
                    del self.known[name]
            self._read()
