"""Looks all the time whether this box filters, puts back what others take away, and says where it does not.

In: the kernel rules, programs and filters that the daemon has put in place; who works its queues. Out: the same put
back, counted and logged; the state that status, metrics and the service manager show. The kernel tells of changes as
they happen; a look each second finds what it has not told. Never here: a rule of others changed, or a packet; how
listed addresses are looked after (addresses.py).
"""

import asyncio
import socket
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from edgeblock.config import Config
from edgeblock.errors import SystemProblem
from edgeblock.netfilter import bypass, links, ruleset, shortcut, standing
from edgeblock.netfilter.bypass import Bypass
from edgeblock.netfilter.marks import SHORTCUT
from edgeblock.netfilter.pins import program_path
from edgeblock.netfilter.stage1 import Stage

LOOK = 1.0              # seconds between two looks, where the kernel tells of no change
PATIENCE = 1.0          # seconds that putting rules back may take before the box says that it does not filter
AGAIN = 0.5             # seconds between two tries to put back what others take away again and again
OFTEN, WITHIN = 3, 10.0     # times in so many seconds from which on it is again and again
STOOD = 2.0             # seconds that they have to stand until it is over
OTHERS_LOOK = 60.0      # seconds between two looks at what others do that may carry packets past our rules
OTHERS_PAUSE = 2.0      # the same where rules change all the time,
OTHERS_SHARE = 50       # and so many times what one look takes, with very many rules

# What can be put back here, as the metric names it; `addresses` is counted by daemon/addresses.py.
WHAT = ("rules", "place", "first_stage", "shortcut")
Call = Callable[..., Awaitable[Any]]


class State:
    """Whether the box filters. `causes` says by whom it does not, and why; empty is that it does."""

    def __init__(self, log: Any, tell: Callable[[], None]) -> None:
        self.log = log
        self.tell = tell
        self.causes: dict[str, str] = {}
        self.since = time.monotonic()

    def say(self, who: str, cause: str) -> None:
        """That it does not, as `who` sees it; "" that nothing is wrong there."""
        before = self.causes.get(who, "")
        if cause == before:
            return
        began = not self.causes
        if cause:
            self.causes[who] = cause
            self.log.error("not filtering", cause=cause)
        else:
            del self.causes[who]
        if began or not self.causes:
            self.since = time.monotonic()
        if not self.causes:
            self.log.warning("filtering again")
        self.tell()

    @property
    def summary(self) -> str:
        """For the beginning of a line of status; "" where the box filters."""
        return "NOT FILTERING: " + "; ".join(self.causes.values()) if self.causes else ""


def spare_tracked(stage: Stage, log: Any) -> None:
    """Once connections are tracked here, conntrack sees all of them that is not done, whatever the settings: what it
    misses it calls INVALID, and such packets are often dropped. For good, as others may be tracked later."""
    tracked = 0 if stage.tracked else shortcut.tracked()
    if tracked:
        stage.carry_undecided(False)
        log.warning("connections are tracked here, and conntrack does not see what is carried: only done flows are "
                    "from now on, and a rule that drops INVALID may break these; track none (-j CT --notrack), or "
                    "set ruleset.kernel = \"marks\"", tracked=tracked)


class Vigil:
    """Keeps what the daemon has put into the kernel.

    Args:
        call: runs a function in the thread that changes kernel rules, one after the other.
        stage: the first stage, where there is one.
        backend: of the kernel rules; None where they are not the daemon's to keep.
        queues: the queues that nobody works, in words.
        addresses: looks after the address rules, and says why they are not in force; "" where they are.
    """

    def __init__(self, config: Config, log: Any, state: State, call: Call, stage: Stage | None, backend: str | None,
                 queues: Callable[[], list[str]], addresses: Callable[[], Awaitable[str]]) -> None:
        self.config, self.log, self.state, self.call = config, log, state, call
        self.stage, self.backend, self.queues, self.addresses = stage, backend, queues, addresses
        self.restored = Counter(dict.fromkeys(WHAT, 0))
        self.failed = 0
        self.bypasses: list[Bypass] = []
        self.problems: dict[str, str] = {}      # what could not be put back; the box filters without it
        self.stirred = asyncio.Event()
        self.times: deque[float] = deque(maxlen=OFTEN)
        self.without_stage = False              # the rules do not ask it, although it is there
        self.standing = ruleset.standing(config, backend, self._pinned()) if backend else None
        self.before: tuple[object, ...] = ()
        self.others_due = 0.0
        self.others: asyncio.Task[None] | None = None
        self.devices: dict[str, int] = {}
        self.asked_shortcut = False

    def status(self) -> dict[str, Any]:
        """What `status` and the metrics show."""
        return {"filtering": not self.state.causes, "causes": list(self.state.causes.values()),
                "since": int(time.monotonic() - self.state.since), "restored": dict(self.restored),
                "failed": self.failed, "problems": list(self.problems.values()),
                "bypasses": [{"kind": one.kind, "found": one.found, "fix": one.fix} for one in self.bypasses]}

    async def begin(self) -> None:
        """Remembers what is there now: to be called as soon as the rules have been applied."""
        if self.standing is not None:
            try:
                self._take(self.standing.take())
            except (OSError, SystemProblem) as problem:
                self._cannot_look(problem)
        self.devices = shortcut.present(ruleset.shortcut_devices(self.config))
        await self._look_at_others()

    async def keep(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        heard: list[socket.socket] = []
        try:
            for part in (standing, links):
                try:
                    link = part.listen()
                except OSError as problem:      # then the look each second is all there is
                    self.log.warning("the kernel does not tell of changes to rules", problem=str(problem))
                    continue
                heard.append(link)
                loop.add_reader(link.fileno(), self._hear, part, link)
            while True:
                await self._look()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        await self.stirred.wait()
                self.stirred.clear()
        finally:
            if self.others is not None:
                self.others.cancel()
            for link in heard:
                loop.remove_reader(link.fileno())
                link.close()

    def _hear(self, part: Any, link: socket.socket) -> None:
        if part.heard(link):
            self.others_due = min(self.others_due, time.monotonic() + OTHERS_PAUSE)
            self.stirred.set()

    async def _look(self) -> None:
        await self._keep_pins()
        await self._keep_rules()
        await self._keep_shortcut()
        self.state.say("addresses", await self.addresses())
        self.state.say("queues", "; ".join(self.queues()))
        if self.others is not None and self.others.done():
            self.others.result()                # a fault of ours is not to go unnoticed
            self.others = None
        if self.others is None and time.monotonic() >= self.others_due:
            # Beside the looks: where others have thousands of rules, listing them takes longer than a look may.
            self.others = asyncio.get_running_loop().create_task(self._look_at_others())

    # ---- the first stage

    def _pinned(self) -> Any:
        return self.stage.pinned if self.stage is not None and not self.without_stage else None

    async def _keep_pins(self) -> None:
        """Without them rules cannot be put back that ask the programs; those that stand ask them all the same."""
        if self.stage is None or self.backend != "iptables":
            return
        lost = self.stage.lost()
        if lost:
            if "first_stage" not in self.problems:
                self.log.error("the first stage's programs are not where they were pinned", lost=lost)
            try:
                self.stage.put_back()
            except SystemProblem as problem:
                self._fail("first_stage", problem)
                return
            self._have_put_back("first_stage")
        self.problems.pop("first_stage", None)
        if self.without_stage:
            self.without_stage = False
            self.standing = ruleset.standing(self.config, "iptables", self._pinned())
            await self._put_rules_back("rules", ["they do not ask the first stage"])

    # ---- the kernel rules

    async def _keep_rules(self) -> None:
        if self.standing is None:
            return
        try:
            if isinstance(self.standing, standing.StandingText):
                lost = await self.call(self.standing.lost)
            else:
                lost = self.standing.lost()
        except (OSError, SystemProblem) as problem:
            self._cannot_look(problem)
            return
        if lost:
            if "rules" not in self.state.causes:        # else that was said when it began
                self.log.error("kernel rules have been taken away", lost=lost)
            await self._put_rules_back("rules", lost)
        elif self.standing.before() != self.before:
            await self._keep_place()
        if not self._is_often():
            self.state.say("often", "")

    async def _keep_place(self) -> None:
        """Rules of others have come before our jump, or have gone from there."""
        assert self.standing is not None
        self.before = self.standing.before()
        passed = [one.found for one in await self.call(lambda: list(bypass.rules_before()))]
        if passed:
            self.log.error("rules accept packets before ours are asked; ours go before them", rules=passed)
            await self._put_rules_back("place", passed)

    async def _put_rules_back(self, what: str, lost: list[str]) -> None:
        """Whatever it takes; where that is long, the box does not filter meanwhile, and says so."""
        assert self.backend is not None
        if self._is_often():
            self.state.say("often", f"kernel rules are taken away again and again ({lost[0]})")
            await asyncio.sleep(AGAIN)
        late = asyncio.get_running_loop().call_later(
            PATIENCE, self.state.say, "rules", f"kernel rules are gone and could not be put back yet ({lost[0]})")
        try:
            await self._restore()
        except SystemProblem as problem:
            self.failed += 1
            self.state.say("rules", f"kernel rules are gone and cannot be put back: {problem}")
            return
        finally:
            late.cancel()
        self.times.append(time.monotonic())
        self._have_put_back(what)
        try:
            assert self.standing is not None
            self._take(self.standing.take())
        except (OSError, SystemProblem) as problem:
            self._cannot_look(problem)

    async def _restore(self) -> None:
        """Without the first stage, where the rules cannot have it and need not."""
        try:
            await self.call(ruleset.restore, self.config, self.backend, self._pinned())
        except SystemProblem:
            settings = self.config.ruleset
            if self._pinned() is None or settings.stage1 == "on":
                raise
            await self.call(ruleset.restore, self.config, self.backend)
            self.without_stage = True
            self.standing = ruleset.standing(self.config, str(self.backend))

    def _take(self, wrong: list[str]) -> None:
        """After rules have been applied: what stands now, or what already does not."""
        assert self.standing is not None
        self.before = self.standing.before()
        self.state.say("rules", f"kernel rules are not as they were applied: {wrong[0]}" if wrong else "")
        if wrong:
            self.stirred.set()

    def _is_often(self) -> bool:
        return (len(self.times) == OFTEN and self.times[-1] - self.times[0] < WITHIN
                and time.monotonic() - self.times[-1] < STOOD)

    def _cannot_look(self, problem: Exception) -> None:
        self.state.say("rules", f"whether kernel rules stand cannot be told: {problem}")

    # ---- the shortcut

    async def _keep_shortcut(self) -> None:
        """Interfaces may come late, and go and come back, and others may take away the filter at one."""
        devices = ruleset.shortcut_devices(self.config)
        if not devices or self.stage is None or self.stage.pinned is None:
            return
        spare_tracked(self.stage, self.log)
        there = shortcut.present(devices)
        missing = [device for device in devices if device not in there]
        try:
            lost = shortcut.lost(there, self.stage.program_number(SHORTCUT))
        except OSError as problem:
            self._fail("shortcut", problem)
            return
        changed, self.devices = there != self.devices, there
        if (changed or not self.asked_shortcut) and missing:
            self.log.warning("interfaces of the shortcut are not there", interfaces=missing)
        self.asked_shortcut = True
        foreign = [device for device in lost if lost[device]]
        if not lost:
            self.problems.pop("shortcut", None)
            self.state.say("shortcut", "")
            return
        if not changed and "shortcut" not in self.problems:
            self.log.error("the shortcut's filter has been taken away or replaced", interfaces=sorted(lost))
        try:
            await self.call(shortcut.apply, devices, program_path(self.stage.pinned, SHORTCUT))
        except SystemProblem as problem:
            self._fail("shortcut", problem)
            self.state.say("shortcut", f"another's program has the shortcut's place at {', '.join(foreign)}, and "
                                       f"cannot be replaced: {problem}" if foreign else "")
            return
        if not changed:
            self._have_put_back("shortcut")
        self.problems.pop("shortcut", None)

    # ---- what others do

    async def _look_at_others(self) -> None:
        began = time.monotonic()
        found = await self.call(bypass.find, self.config)
        pause = max(OTHERS_PAUSE, OTHERS_SHARE * (time.monotonic() - began))
        self.others_due = time.monotonic() + max(OTHERS_LOOK, pause)
        for one in found:
            if one not in self.bypasses:
                self.log.error("packets can go past the kernel rules", kind=one.kind, found=one.found, fix=one.fix)
        for one in self.bypasses:
            if one not in found:
                self.log.warning("no longer past the kernel rules", kind=one.kind, found=one.found)
        self.bypasses = found

    # ---- what is said

    def _have_put_back(self, what: str) -> None:
        self.restored[what] += 1
        self.log.warning("put back", what=what, times=self.restored[what])

    def _fail(self, what: str, problem: Exception) -> None:
        self.failed += 1
        if self.problems.get(what) != str(problem):
            self.log.error("could not be put back; it is tried again", what=what, problem=str(problem))
        self.problems[what] = str(problem)
