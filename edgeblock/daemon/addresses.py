"""Address entries in the kernel: put there, changed with the lists, looked after, counted, and taken away.

In: compiled rules; what the vigil hears of changes by others. Out: the address rules (netfilter/addresses.py) as the
lists have them, flows cut when an entry comes or goes (netfilter/cut.py), counts for each list. What is new is in the
kernel before any worker has it. What goes, or becomes another range, goes when the workers have let it go: so nothing
is marked as blocked that is lifted. What has a window comes and goes at its moments by the wall clock, which may be
set, and is looked at again and again. Never here: a list read, or a rule that queues.
"""

import asyncio
import ipaddress
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from edgeblock.addresses import BITS, EMPTY, Addresses, Endpoint, What, has, with_new
from edgeblock.blocklist import canary
from edgeblock.blocklist.addresses import Reader
from edgeblock.blocklist.parts import ADDRESS, Compiled
from edgeblock.blocklist.terms import ALWAYS, NEVER
from edgeblock.config import Config
from edgeblock.daemon.canary import LISTED_PORT, why_not
from edgeblock.daemon.compiler import Loaded
from edgeblock.daemon.mapping import map_snapshot
from edgeblock.daemon.tasks import Tasks
from edgeblock.errors import EdgeblockError, SystemProblem
from edgeblock.netfilter import addresses, pair, standing
from edgeblock.netfilter.cut import Blocked, cut
from edgeblock.netfilter.stage1 import Stage

COUNT_MAX = 250_000     # ranges and endpoints that the kernel is given: to read them takes it quadratic time
AGAIN = 0.5             # seconds after which flows are cut again: a packet may have been on its way to a worker
COUNTING = 2.0          # seconds between two looks at what entries have counted,
SHARE = 50              # or so many times what a look takes
LOOKING = 0.1           # seconds between two looks at the clock

Call = Callable[..., Awaitable[Any]]


class AddressRules:
    """Keeps the kernel's address rules as the lists in force have them. What takes the kernel long runs by `call`,
    what reads all there is in a thread of its own."""

    def __init__(self, config: Config, log: Any, tasks: Tasks, call: Call, stage: Callable[[], Stage | None]) -> None:
        self.restored = 0
        self._config, self._log, self._tasks, self._call, self._stage = config, log, tasks, call, stage
        self._nat64 = config.rules.nat64
        self._ours = not left_by(config)
        self._left = 0                                  # entries that the configuration leaves to the engine,
        self._of_some = 0                               # and those of lists for some clients alone
        # Why the entries cannot be had, not be had as they hold now, or not be put there.
        self._unread, self._unturned, self._unput = "", "", ""
        self._lists_turn = asyncio.Lock()               # new lists, or a moment of those that are there
        self._lists = Reader()
        self._parts: Compiled | None = None             # what was read last, where some of it has windows,
        self._holds: tuple[float, float] = ALWAYS, NEVER        # and from when to when it is as it was read
        self._staged = False                            # the workers may not have it yet
        self._turning = False                           # something comes or goes by the clock
        self._ours_too = always_listed(config)          # beside what is listed, where something is
        self._wanted = EMPTY                            # by the lists that were read last,
        self._should = EMPTY                            # by what was put last,
        self._there = EMPTY                             # in the kernel
        self._installed = False                         # the rules are ours to keep
        self._applied = False                           # there is a table of ours
        self._standing = addresses.standing(config, EMPTY, self._nat64)
        self._generation = -1                           # of nf_tables, when the entries were as they should be
        self._look_due = 0.0
        self._counts: Counter[str] = Counter()
        self._seen: dict[addresses.Spot, int] = {}
        self._reader = ThreadPoolExecutor(1, "addresses")

    @property
    def problem(self) -> str:
        """Why they are not in force although they should be; "" where they are, or there are none."""
        return self._unread or self._unturned or self._unput

    @property
    def are_kept(self) -> bool | None:
        """Whether the kernel has every address that it is to have: none, where the configuration leaves them to the
        engine. None while some come or go by the clock."""
        if not self._ours or self.problem or not self._installed:
            return not self._ours
        since, until = self._holds
        is_late = self._parts is not None and not since - LOOKING <= time.time() < until
        return None if self._turning or is_late else True

    # ---- what the lists say

    async def stage(self, loaded: Loaded) -> None:
        """Before any worker has these rules: addresses that nothing was said of are as these rules have them."""
        if loaded.fd < 0:
            return
        if not self._ours:
            await self._leave(loaded)
            return
        before = self._of_some
        async with self._lists_turn:
            try:
                both = await self._call(self._read, loaded)
                self._unread = self._unturned = ""
            except (EdgeblockError, OSError) as problem:
                self._unread = self._said(problem, self._unread)
                return
            self._staged = True
            if self._installed and both.total > self._there.total:
                await self._put(self._change, both)
        if self._of_some and not before:
            self._log.warning("address entries of lists for some clients hold on the watched ports only",
                              entries=self._of_some)

    async def _leave(self, loaded: Loaded) -> None:
        """The configuration leaves address entries to the engine: to be seen wherever somebody looks."""
        try:
            parts = await self._call(lambda: map_snapshot(loaded.fd, loaded.key).parts)
        except (EdgeblockError, OSError):       # the workers say so
            return
        before, self._left = self._left, len(parts.addresses) // ADDRESS.size
        if self._left and not before:
            self._log.warning("address rules are off", problem=self._off())

    def _off(self) -> str:
        """Why address entries are not even tried in the kernel; "" where they are, or there are none."""
        return "" if not self._left else (
            f"{self._left:,} address entries hold on the watched ports only: {left_by(self._config)}")

    async def commit(self) -> None:
        """After the workers have them: all is as they have it."""
        async with self._lists_turn:
            self._staged = False
            if self._installed and not self._unread and await self._call(lambda: self._there != self._wanted):
                await self._put(self._change, self._wanted)

    def _read(self, loaded: Loaded) -> Addresses:
        """What is to be there until all workers have these rules."""
        parts = map_snapshot(loaded.fd, loaded.key).parts
        self._of_some = sum(one.address_entries for one in parts.lists if one.clients and not one.expired)
        self._read_at(parts, time.time())
        return with_new(self._there, self._wanted)

    def _read_at(self, parts: Compiled, now: float) -> None:
        """What is listed at a moment, in Unix seconds."""
        wanted = self._lists.read(parts, COUNT_MAX, at=now)
        self._wanted = with_new(wanted, self._ours_too) if wanted.total else wanted
        self._parts = parts if parts.windows or any(record.window for record in parts.lists) else None
        self._holds = now, self._lists.until or NEVER

    async def keep_time(self) -> None:
        """Until it is cancelled: has put there or taken away what begins or ends to hold, wherever the clock goes."""
        while True:
            await asyncio.sleep(LOOKING)
            async with self._lists_turn:
                await self._turn(time.time())

    async def _turn(self, now: float) -> None:
        since, until = self._holds
        if self._parts is None or since - LOOKING <= now < until:
            return
        self._turning = True
        try:
            await self._call(self._read_at, self._parts, now)
            self._unturned = ""
            wanted = with_new(self._there, self._wanted) if self._staged else self._wanted
            if self._installed and self._there != wanted:
                await self._put(self._change, wanted)
        except (EdgeblockError, OSError) as problem:
            self._unturned, self._holds = self._said(problem, self._unturned), (now, now + AGAIN)
        finally:
            self._turning = False

    # ---- the kernel

    async def install(self) -> None:
        """Puts the rules there, with all that is listed; where that is nothing there are none."""
        self._installed = self._ours
        try:
            left = await self._call(addresses.present)
            if left and not self._ours:
                await self._call(addresses.remove)
                return
        except (EdgeblockError, OSError) as problem:
            self._unput = self._said(problem, self._unput)
            return
        if self._ours and not self._unread and (left or self._wanted.total):    # unread: what is left is better
            await self._put(self._apply, self._wanted)

    async def look(self) -> str:
        """Puts back what others have taken away; to be called when the kernel tells of changes, and every second. Why
        they are not in force, "" where they are."""
        if not self._installed or not (self._applied or self._unput):
            return self.problem
        try:
            lost = await self._call(self._lost) if self._applied else ""
        except (EdgeblockError, OSError) as problem:
            self._unput = self._said(problem, self._unput)
            return self.problem
        if lost or self._unput:
            if lost:
                self._log.error("address rules have been taken away", lost=lost)
            await self._put(self._apply, self._should)
            if lost and not self._unput:
                self.restored += 1
                self._log.warning("put back", what="addresses", times=self.restored)
        return self.problem

    def let_go(self) -> None:
        """Whoever takes away the daemon's rules takes away these, too."""
        self._installed = False
        self._reader.shutdown(wait=False, cancel_futures=True)

    async def _put(self, work: Callable[[Addresses], Blocked], should: Addresses) -> None:
        self._should = should
        try:
            imposed = await self._call(work, should)
        except (EdgeblockError, OSError) as problem:
            self._unput = self._said(problem, self._unput)
            return
        if self._unput:
            self._unput = ""
            self._log.warning("address entries are enforced for every port again")
        if imposed:
            asyncio.get_running_loop().call_later(AGAIN, lambda: self._tasks.go_on(self._cut_again(imposed)))

    async def _cut_again(self, imposed: Blocked) -> None:
        if self._installed:
            with suppress(RuntimeError):        # the daemon is about to end
                await self._call(self._cut, imposed)

    def _apply(self, wanted: Addresses) -> Blocked:
        """Whatever is there, the table as it should be; what is blocked."""
        new = addresses.apply(self._config, wanted, self._nat64)
        self._standing = addresses.standing(self._config, wanted, self._nat64)
        if new:
            self._seen = {}
        elif not self._applied:         # taken on: what it has counted was another daemon's
            self._seen = dict(addresses.counted())
        return self._have(wanted, EMPTY)

    def _change(self, wanted: Addresses) -> Blocked:
        """These entries in place of those that are there; what is blocked and was not."""
        if not self._applied or wanted.wide != self._there.wide:
            return self._apply(wanted)
        self._cut(Blocked(self._there, wanted, self._nat64))
        try:
            addresses.change(self._there, wanted, self._nat64)
        except SystemProblem:           # somebody else has changed it
            return self._apply(wanted)
        return self._have(wanted, self._there)

    def _have(self, there: Addresses, before: Addresses) -> Blocked:
        self._standing.take()
        self._there, self._applied = there, True
        self._generation = standing.current()
        imposed = Blocked(there, before, self._nat64)
        self._cut(imposed)
        return imposed

    def _cut(self, blocked: Blocked) -> None:
        try:
            cut(blocked, self._stage())
        except OSError as problem:      # their packets are dropped all the same
            self._log.error("open flows to listed addresses could not be forgotten", problem=str(problem))

    def _lost(self) -> str:
        """What is no longer there, in words; "" where all is."""
        if lost := self._standing.lost():
            return lost[0]
        now, began = standing.current(), time.monotonic()
        if now == self._generation or began < self._look_due:
            return ""
        try:
            if not addresses.is_there(self._there, self._nat64):
                return f"entries are missing in inet {addresses.TABLE}, or others are there"
        except addresses.Foreign as problem:
            return f"{problem.strerror} is in inet {addresses.TABLE}"
        self._generation = now
        self._look_due = time.monotonic() + SHARE * (time.monotonic() - began)
        return ""

    def _said(self, problem: Exception, before: str) -> str:
        why = f"address entries are enforced on the watched ports only: {problem}"
        if why != before:
            self._log.error("address rules", problem=why)
        return why

    # ---- what they have counted

    def status(self) -> dict[str, Any]:
        """What `status` and the metrics show; `packets`, since the daemon began, of each list with an entry that was
        met. `of_some_clients` are entries of lists for some clients, which the kernel is not given."""
        there = self._there if self._applied else EMPTY
        return {"ranges": self._left or of_lists(self._wanted, self._ours_too),
                "in_kernel": of_lists(there, self._ours_too),
                "of_some_clients": self._of_some, "off": self._off(), "problem": self.problem,
                "restored": self.restored, "packets": dict(self._counts)}

    @property
    def are_probed(self) -> bool:
        """Whether the canary's endpoints are there, so that it can ask for them."""
        return self._applied and self._installed and of_lists(self._there, self._ours_too) < self._there.total

    async def keep_counting(self) -> None:
        """Until it is cancelled: counts, and says in the log which lists' entries were met."""
        loop = asyncio.get_running_loop()
        while True:
            began = time.monotonic()
            if self._applied and self._there.total:
                with suppress(OSError, RuntimeError):     # the rules have been taken away; the daemon is about to end
                    for name, packets in (await loop.run_in_executor(self._reader, self._count)).items():
                        if self._config.daemon.log_blocks:
                            self._log.info("addresses met", list=name, packets=packets)
                        self._counts[name] += packets
            await asyncio.sleep(max(COUNTING, SHARE * (time.monotonic() - began)))

    def _count(self) -> Counter[str]:
        """Packets of each list since the last time."""
        lists, seen, met = addresses.spots(self._there), self._seen, Counter[str]()
        for spot, packets in addresses.counted():
            more = packets - seen.get(spot, 0)
            if more:
                seen[spot] = packets
                if more > 0 and lists.get(spot, canary.LIST) != canary.LIST:
                    met[lists[spot]] += more
        return met


def left_by(config: Config) -> str:
    """The setting that leaves all address entries to the engine; "" where none does."""
    return "" if config.ruleset.addresses and config.ruleset.install else (
        f"[ruleset] {'install' if config.ruleset.addresses else 'addresses'} = false")


def of_lists(some: Addresses, ours_too: Addresses) -> int:
    """How many there are without the canary's."""
    return some.total - sum(has(some.endpoints[family], one) for family in BITS for one in ours_too.endpoints[family])


def always_listed(config: Config) -> Addresses:
    """What the canary asks for: an endpoint of its own server, for each family that it has."""
    ends: dict[int, tuple[Endpoint, ...]] = {4: (), 6: ()}
    for family, network in ((4, config.canary.ipv4), (6, config.canary.ipv6)):
        if network and not why_not(config):
            server = int(ipaddress.ip_address(pair.ends_of(network).server))
            ends[family] = (Endpoint(server, LISTED_PORT, What.DROP, canary.LIST),)
    return Addresses({4: (), 6: ()}, ends)
