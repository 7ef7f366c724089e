"""Address entries in the kernel: put there, changed with the lists, looked after, counted, and taken away.

In: compiled rules; what the vigil hears of changes by others. Out: the address rules (netfilter/addresses.py) as the
lists have them, flows cut when an entry comes or goes (netfilter/cut.py), counts for each list. What is new is in the
kernel before any worker has it. What goes, or becomes another range, goes when the workers have let it go: so nothing
is marked as blocked that is lifted. Never here: a list read, or a rule that queues.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from edgeblock.addresses import EMPTY, Addresses, with_new
from edgeblock.blocklist.addresses import read_addresses
from edgeblock.config import Config
from edgeblock.daemon.compiling import Loaded, map_snapshot
from edgeblock.daemon.tasks import Tasks
from edgeblock.errors import EdgeblockError, SystemProblem
from edgeblock.netfilter import addresses, standing
from edgeblock.netfilter.cut import Blocked, cut
from edgeblock.netfilter.stage1 import Stage

COUNT_MAX = 1_000_000   # ranges and endpoints that the kernel is given: 135 bytes each there
AGAIN = 0.5             # seconds after which flows are cut again: a packet may have been on its way to a worker
COUNTING = 2.0          # seconds between two looks at what entries have counted,
SHARE = 50              # or so many times what a look takes

Call = Callable[..., Awaitable[Any]]


class AddressRules:
    """Keeps the kernel's address rules as the lists in force have them. What takes the kernel long runs by `call`.

    `problem` says why they are not in force although they should be; "" where they are, or there are none.
    """

    def __init__(self, config: Config, log: Any, tasks: Tasks, call: Call, stage: Callable[[], Stage | None]) -> None:
        self.problem = ""
        self.restored = 0
        self._config, self._log, self._tasks, self._call, self._stage = config, log, tasks, call, stage
        self._nat64 = config.rules.nat64
        self._wanted, self._there = EMPTY, EMPTY        # by the lists in force; in the kernel
        self._source = b""                              # what `_wanted` was made of
        self._names: list[str] = []                     # of the lists, by their index
        self._installed = False                         # the rules are ours to keep
        self._applied = False                           # there is a table of ours
        self._standing = addresses.standing(config, EMPTY, self._nat64)
        self._generation = -1                           # of nf_tables, when the entries were as they should be
        self._look_due = 0.0
        self._counts: Counter[str] = Counter()
        self._seen: dict[addresses.Spot, int] = {}

    @property
    def count(self) -> int:
        """Ranges and endpoints that the kernel should have."""
        return self._wanted.total

    # ---- what the lists say

    async def stage(self, loaded: Loaded) -> None:
        """Before any worker has these rules: addresses that nothing was said of are as these rules have them."""
        if loaded.fd < 0 or not self._config.ruleset.addresses:
            return
        try:
            await self._call(self._read, loaded)
        except (EdgeblockError, OSError) as problem:
            self._fail(problem)
            return
        both = with_new(self._there, self._wanted)
        if self._installed and both.total > self._there.total:
            await self._put(self._change, both)

    async def commit(self) -> None:
        """After the workers have them: all is as they have it."""
        if self._installed and self._there != self._wanted:
            await self._put(self._change, self._wanted)

    def _read(self, loaded: Loaded) -> None:
        parts = map_snapshot(loaded.fd, loaded.key).parts
        self._names = [one.name for one in parts.lists]
        judged = [(one.action, one.mandatory, one.expired) for one in parts.lists]
        source = repr(judged).encode() + bytes(parts.addresses)
        if source == self._source:
            return
        wanted = read_addresses(parts)
        if wanted.total > COUNT_MAX:
            raise SystemProblem(f"{wanted.total} ranges of addresses are listed, and the kernel is given at most "
                                f"{COUNT_MAX}; list wider prefixes, or fewer")
        self._wanted, self._source = wanted, source

    # ---- the kernel

    async def install(self) -> None:
        """Puts the rules there, with all that is listed; where that is nothing there are none."""
        if self._config.ruleset.addresses:
            self._installed = True
            if self.count or await self._call(addresses.present):
                await self._put(self._apply)

    async def look(self) -> str:
        """Puts back what others have taken away; to be called when the kernel tells of changes, and every second. Why
        they are not in force, "" where they are."""
        if not self._installed or not self._applied and not self.count:
            return self.problem
        try:
            lost = await self._call(self._lost) if self._applied else ""
        except (EdgeblockError, OSError) as problem:
            self._fail(problem)
            return self.problem
        if lost:
            self._log.error("address rules have been taken away", lost=lost)
            await self._put(self._apply)
            if not self.problem:
                self.restored += 1
                self._log.warning("put back", what="addresses", times=self.restored)
        elif self.problem:
            await self._put(self._apply)
        return self.problem

    def let_go(self) -> None:
        """Whoever takes away the daemon's rules takes away these, too."""
        self._installed = False

    async def _put(self, work: Callable[..., Blocked], *arguments: Addresses) -> None:
        try:
            imposed = await self._call(work, *arguments)
        except (EdgeblockError, OSError) as problem:
            self._fail(problem)
            return
        if self.problem:
            self.problem = ""
            self._log.warning("address entries are enforced for every port again")
        if imposed:
            asyncio.get_running_loop().call_later(AGAIN, lambda: self._tasks.go_on(self._cut_again(imposed)))

    async def _cut_again(self, imposed: Blocked) -> None:
        with suppress(OSError, RuntimeError):       # RuntimeError: the daemon is about to end
            await self._call(cut, imposed, self._stage())

    def _apply(self, wanted: Addresses | None = None) -> Blocked:
        """Whatever is there, the table as it should be; what is blocked."""
        wanted = wanted or self._wanted
        addresses.apply(self._config, wanted, self._nat64)
        self._standing = addresses.standing(self._config, wanted, self._nat64)
        self._seen.clear()
        return self._have(wanted, EMPTY)

    def _change(self, wanted: Addresses) -> Blocked:
        """These entries in place of those that are there; what is blocked and was not."""
        cut(Blocked(self._there, wanted, self._nat64), self._stage())
        if wanted.wide != self._there.wide:
            return self._apply(wanted)
        try:
            addresses.change(self._there, wanted)
        except SystemProblem:           # somebody else has changed it
            return self._apply(wanted)
        return self._have(wanted, self._there)

    def _have(self, there: Addresses, before: Addresses) -> Blocked:
        self._there, self._applied = there, True
        self._standing.take()
        self._generation = standing.current()
        imposed = Blocked(there, before, self._nat64)
        cut(imposed, self._stage())
        return imposed

    def _lost(self) -> str:
        """What is no longer there, in words; "" where all is."""
        if lost := self._standing.lost():
            return lost[0]
        now, began = standing.current(), time.monotonic()
        if now == self._generation or began < self._look_due:
            return ""
        if not addresses.is_there(self._there):
            return f"entries are missing in inet {addresses.TABLE}, or others are there"
        self._generation = now
        self._look_due = time.monotonic() + SHARE * (time.monotonic() - began)
        return ""

    def _fail(self, problem: Exception) -> None:
        why = f"address entries are enforced on the watched ports only: {problem}"
        if why != self.problem:
            self._log.error("address rules", problem=why)
        self.problem = why

    # ---- what they have counted

    def status(self) -> dict[str, Any]:
        """What `status` and the metrics show; `packets`, since the daemon began, of each list with an entry that was
        met."""
        return {"ranges": self.count, "in_kernel": self._there.total if self._applied else 0, "problem": self.problem,
                "restored": self.restored, "packets": dict(self._counts)}

    async def keep_counting(self) -> None:
        """Until it is cancelled: counts, and says in the log which lists' entries were met."""
        while True:
            began = time.monotonic()
            if self._there.total:
                with suppress(OSError):     # the rules have been taken away
                    for name, packets in (await self._call(self._count)).items():
                        if self._config.daemon.log_blocks:
                            self._log.info("addresses met", list=name, packets=packets)
                        self._counts[name] += packets
            await asyncio.sleep(max(COUNTING, SHARE * (time.monotonic() - began)))

    def _count(self) -> Counter[str]:
        """Packets of each list since the last time."""
        index, met = addresses.spots(self._there), Counter[str]()
        for spot, packets in addresses.counted():
            more = packets - self._seen.get(spot, 0)
            if more:
                self._seen[spot] = packets
                if more > 0 and spot in index:
                    met[self._names[index[spot]]] += more
        return met
