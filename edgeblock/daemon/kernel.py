"""What the daemon has in the kernel: the first stage and the kernel rules, put there, counted, and taken away again.

In: a Config; compiled rules for the first stage and for listed addresses (addresses.py). Out: whether there is a
first stage (`stage`), the back end of the rules (`backend`), what both have counted. Never here: whether what was put
there still stands (vigil.py), a worker, or a packet.
"""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from edgeblock.config import Config
from edgeblock.core.sketch import ALL
from edgeblock.daemon.addresses import AddressRules
from edgeblock.daemon.claim import claim_namespace
from edgeblock.daemon.compiler import Loaded
from edgeblock.daemon.mapping import map_stacked
from edgeblock.daemon.tasks import Tasks
from edgeblock.daemon.vigil import spare_tracked
from edgeblock.errors import EdgeblockError, SystemProblem
from edgeblock.netfilter import ruleset
from edgeblock.netfilter.checks import are_apart
from edgeblock.netfilter.pins import pin_path, program_path
from edgeblock.netfilter.stage1 import Stage

COUNTING = 1.0          # seconds for which the kernel rules' counters are not asked for again
ABSENT = 0.5            # seconds after which a daemon counts as gone where nothing may pass without it


def sample_of(config: Config) -> int | None:
    """The greatest number of 32 bits by which the first stage queues a connection to learn from; None: none is."""
    share = config.impact.sample if config.impact.enabled else 0.0
    return None if share <= 0 else max(0, min(ALL, round(share * (ALL + 1)) - 1))


class Kernel:
    """Everything happens in the event loop's thread but what takes the kernel long.

    Args:
        queues: how many there are.
    """

    def __init__(self, config: Config, log: Any, queues: int, tasks: Tasks) -> None:
        self.stage: Stage | None = None         # the first stage, where there is one
        self.stage_problem = ""                 # why there is none
        self.backend: str | None = None         # of the kernel rules that we have applied
        self._config, self._log, self._queues = config, log, queues
        self._counted: dict[str, dict[str, int]] = {}
        self._counted_at = -COUNTING
        self._rules_left = False                # although they should be gone
        self.addresses = AddressRules(config, log, tasks, self.call, lambda: self.stage)
        # One thread, so that an `apply` that is under way when a signal comes is over before `remove` begins.
        self._helper = ThreadPoolExecutor(1, "ruleset")
        # The kernel takes half a second to look through the program; meanwhile the rest goes on. The thread is kept:
        # the event loop's own would need another one to end, and at an end there may be none to be had.
        self._beside = ThreadPoolExecutor(1, "stage1")
        self._loading: asyncio.Future[None] | None = None

    async def call(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Runs it in the thread that changes kernel rules, after what was asked for before."""
        return await asyncio.get_running_loop().run_in_executor(self._helper, work, *arguments)

    def close(self) -> None:
        """When no `call` is to come."""
        self._helper.shutdown()

    # ---- the first stage

    def begin_stage(self) -> None:
        """Begins to load it."""
        self._loading = asyncio.get_running_loop().run_in_executor(self._beside, self._load_stage)

    async def await_stage(self) -> None:
        """Until it is loaded, or cannot be. SystemProblem where it has to be there."""
        assert self._loading is not None
        await asyncio.shield(self._loading)

    async def close_stage(self, keep: bool) -> None:
        """`keep` leaves the flow marks to the next daemon."""
        if self._loading is not None:
            with suppress(SystemProblem):
                await self._loading
        self._beside.shutdown()         # new rules that nobody waits for any more may be under way
        if self.stage is not None:
            self.stage.close(keep=keep)

    async def stage_rules(self, loaded: Loaded, below: int) -> None:
        """From now on the first stage asks about all that these rules or those in force may list, and addresses that
        those in force say nothing of are as these have them.

        To be called before any worker has them, and `commit_rules` when all have. `below` is the snapshot that they
        lie over, where they do not bring it.
        """
        await self.addresses.stage(loaded)
        if self.stage is None or loaded.fd < 0:
            return
        below = loaded.base_fd if loaded.base_fd >= 0 else below

        def fill(stage: Stage) -> None:
            snapshot = map_stacked(loaded.fd, below, loaded.key)
            if loaded.base_fd >= 0 or not loaded.base or not stage.extend(snapshot.parts):
                stage.offer(snapshot.parts, loaded.key, snapshot.base.parts if snapshot.base else None)

        try:
            await asyncio.get_running_loop().run_in_executor(self._beside, fill, self.stage)
        except (EdgeblockError, OSError) as problem:
            self._withdraw(self.stage, problem)

    async def commit_rules(self, everywhere: bool) -> None:
        """Workers have the rules. Where it is every one, the first stage need not ask about those before any more."""
        await self.addresses.commit()
        if self.stage is not None and everywhere:
            try:
                self.stage.settle()
            except OSError as problem:
                self._withdraw(self.stage, problem)

    def hold(self) -> None:
        """To be called several times in ABSENT seconds: where nothing may pass without a daemon, there is one."""
        if self.stage is not None and self._config.ruleset.absent == "closed":
            self.stage.hold(ABSENT)

    def stage_counters(self) -> dict[str, int]:
        return self.stage.counters() if self.stage is not None else {}

    def _withdraw(self, stage: Stage, problem: Exception) -> None:
        stage.withdraw()
        self._log.error("first stage without rules; every new flow goes to the queue", problem=str(problem))

    def _load_stage(self) -> None:
        """The first stage, if it is wanted and can be had. Without it everything goes to the queue.

        Where it is to keep the flow marks it is needed: there is nothing to go back to.
        """
        wanted, config = self._config.ruleset.stage1, self._config
        keeps_marks = config.ruleset.tracking == "stage1"
        if wanted == "off" or not config.ruleset.install or wanted == "auto" and config.ruleset.backend == "nft":
            return
        try:
            if config.ruleset.backend == "nft":
                raise SystemProblem("first stage: nftables cannot ask it; use backend = \"iptables\" or \"auto\"")
            place = pin_path(config.queue.number)
            # Each worker remembers so many flows; the kernel as many as all of them.
            self.stage = Stage(config.limits.flows * self._queues, config.limits.idle, config.policies.ech,
                               marks=config.ruleset.marks if keeps_marks else 0,
                               kept=program_path(place, "marks") if keeps_marks else None,
                               shortcut=config.ruleset.shortcut, held=config.limits.hold,
                               sample=sample_of(config), apart=are_apart(config.ruleset))
            self.stage.pin(place)
        except SystemProblem as problem:
            if keeps_marks:
                raise SystemProblem(f"ruleset.kernel = \"{config.ruleset.kernel}\": {problem}") from None
            if wanted == "on":
                raise
            self._give_up_stage(problem)

    def _give_up_stage(self, problem: SystemProblem) -> None:
        if self.stage is not None:
            self.stage.close()
            self.stage = None
        self.stage_problem = str(problem)

    # ---- the kernel rules

    def claim(self) -> socket.socket | None:
        """What keeps a second daemon away: it would replace the kernel rules, and take them away at its end."""
        claim = claim_namespace()
        if claim is None:
            self._log.warning("another user's program has the name that edgeblock claims its kernel rules with")
        return claim

    async def install(self) -> bool:
        """The kernel rules. False where they could not have the first stage and need not: it is closed then, and once
        nobody is told of it any more this is to be called again."""
        try:
            pinned = () if self.stage is None else (self.stage.pinned,)
            self.backend = await self.call(ruleset.apply, self._config, *pinned)
        except SystemProblem as problem:
            if self.stage is None or self._config.ruleset.stage1 == "on":
                raise
            self._give_up_stage(problem)
            return False
        await self.addresses.install()
        if self.stage is not None and self._config.ruleset.shortcut:
            spare_tracked(self.stage, self._log)
        return True

    async def counters(self) -> dict[str, dict[str, int]]:
        """What the kernel rules have counted. Programs are run for it, so not for every question."""
        now = asyncio.get_running_loop().time()
        if now >= self._counted_at + COUNTING:
            self._counted_at = now
            try:
                counted = await self.call(ruleset.counters, self.backend)
            except SystemProblem:       # they have been taken away, or no program is there that tells
                counted = {}
            self._counted = {name: seen._asdict() for name, seen in counted.items()}
        return self._counted

    async def remove(self) -> None:
        """Takes the rules away; what cannot be done now is left to `remove_left`."""
        self.addresses.let_go()
        try:
            await self.call(ruleset.remove)
        except SystemProblem as problem:
            self._rules_left = True
            self._log.error("kernel rules not removed; once more without workers", problem=str(problem))

    async def remove_left(self) -> None:
        """Where no process could be started for it there may be one when ours have ended."""
        if self._rules_left:
            await self.call(ruleset.remove)
