"""What the daemon says of itself: the answer to `edgeblock status`, metrics, the service manager's line.

In: the parts that know. Out: their figures under the names that others read. Never here: a figure of our own, or a
name that somebody has asked for.
"""

import time
from typing import Any

import edgeblock
from edgeblock.blocklist.directory import LISTS_MAX
from edgeblock.blocklist.intake import ENTRIES_MAX
from edgeblock.config import Config
from edgeblock.daemon.addresses import COUNT_MAX
from edgeblock.daemon.board import Board
from edgeblock.daemon.canary import Canary
from edgeblock.daemon.counts import Counts, Seen
from edgeblock.daemon.fetcher import Fetcher
from edgeblock.daemon.impact import Impact
from edgeblock.daemon.in_force import InForce
from edgeblock.daemon.journal import Journal
from edgeblock.daemon.kernel import Kernel
from edgeblock.daemon.ledger import Recorder
from edgeblock.daemon.outcomes import Outcomes
from edgeblock.daemon.proof import Proof
from edgeblock.daemon.vigil import State, Vigil
from edgeblock.daemon.workers import Workers

MOST = {"entries": ENTRIES_MAX, "addresses": COUNT_MAX, "lists": LISTS_MAX}
HIDDEN = ("conflicts", "overworked", "window_full", "unreadable")    # what could not be read to its end
SUMMARY = 60.0          # seconds between two lines about what was not logged


class Status:
    """`vigil` is there once the daemon has begun to look after what it has put into the kernel."""

    def __init__(self, config: Config, journal: Journal, board: Board, workers: Workers, kernel: Kernel,
                 in_force: InForce, state: State, canary: Canary, proof: Proof, impact: Impact,
                 outcomes: Outcomes, recorder: Recorder, counts: Counts, fetcher: Fetcher) -> None:
        self.vigil: Vigil | None = None
        self._config, self._journal, self._board = config, journal, board
        self._workers, self._kernel, self._in_force = workers, kernel, in_force
        self._state, self._canary, self._proof, self._impact = state, canary, proof, impact
        self._outcomes, self._recorder, self._counts = outcomes, recorder, counts
        self._fetcher = fetcher
        self._started = time.monotonic()
        self._unlogged_told = 0
        self._summary_due = 0.0

    def counters(self) -> dict[str, Any]:
        """Everything that is counted, nested by who counts it, over all workers."""
        counted = self._board.counters(range(len(self._workers.slots)))
        return {
            "uptime": int(time.monotonic() - self._started),
            "queue": {**counted["queue"], "waiting": self._workers.waiting()},
            "engine": counted["engine"],
            "matched": counted["matched"],
            "visits": counted["visits"],
            "replies": counted["replies"],
            "stage1": self._kernel.stage_counters(),
            "rules": self._in_force.counters(),
            "log": {"unlogged": counted["log"]["unlogged"] + self._journal.over_day,
                    "lost": counted["log"]["lost"] + self._journal.lost},
        }

    async def status(self) -> dict[str, Any]:
        """The answer to `edgeblock status`: the counters, and what is running."""
        kernel_rules = await self._kernel.counters()
        config, rules = self._config, self._in_force
        return {"version": edgeblock.__version__, "queue_number": config.queue.number,
                "overload": config.queue.overload, "absent": config.ruleset.absent,
                "tracking": config.ruleset.tracking,
                "rules_digest": rules.content, "rules_age": int(time.time() - rules.since),
                "rules_since": rules.kept,
                "rules_problem": rules.problem, "lists": rules.lists(),
                "vigil": self.vigil.status() if self.vigil else {}, "canary": self._canary.status(),
                "addresses": self._kernel.addresses.status(),
                "impact": self._impact.status(), "orders": self._outcomes.status(), "capacity": self.capacity(),
                "selfcheck": self._proof.status(), "ledger": self._recorder.status(), "counts": self._counts.status(),
                "fetch": self._fetcher.status(),
                **self.counters(),
                "workers": self._workers.status(), "kernel_rules": kernel_rules,
                "latency": {name: self._board.histogram(name) for name in ("judge", "lookup", "verdict")}}

    def seen(self) -> Seen:
        """What the counts that last are made of, besides blocks: to be called each second, so without lists."""
        totals, loads, impact = self._board.totals(), self._in_force.loads, self._impact.status()
        queue, engine = totals["queue"], totals["engine"]
        lost = "unread" if self._config.queue.overload == "open" else "lost_packets"
        return Seen(
            not self._state.causes, self._config.canary.period, self._canary.rounds,
            {(f"ipv{family}", proto): bool(wrong) for (family, proto), wrong in self._canary.results.items()},
            {"packets": queue["packets"], "full": queue["full"], lost: queue["lost"],
             "hidden": sum(engine[name] for name in HIDDEN), "ech": engine["hellos_ech"],
             "loaded": loads["loaded"], "refused": loads["refused"]},
            self._kernel.addresses.status()["packets"],
            {f"impact_{what}": impact[what] for what in ("addresses", "subscribers") if impact.get(what)})

    def capacity(self) -> dict[str, dict[str, int]]:
        """What is in use, and the most of it: entries of the longest list, beside what a list may have; ranges of
        addresses, beside what the kernel is given; lists."""
        counted = self._in_force.counters()
        used = {"entries": self._in_force.longest, "addresses": self._kernel.addresses.status()["ranges"],
                "lists": counted["lists"]}
        return {what: {"used": count, "most": MOST[what]} for what, count in used.items()}

    async def metrics(self) -> bytes:
        """The answer to Prometheus."""
        from edgeblock.daemon.metrics import exposition  # 3 MB that only a box with Prometheus needs

        return exposition(await self.status(), self._board, self._in_force.places)

    def summary(self) -> str:
        """One line for the service manager."""
        if self._state.causes:
            return self._state.summary
        first, last = self._workers.slots[0].queue, self._workers.slots[-1].queue
        where = f"queue {first}" if first == last else f"queues {first} to {last}"
        rules = self._in_force.summary()
        refused = f", {rules['refused']} refused" if rules["refused"] else ""
        canary = ", canary failed" if any(self._canary.results.values()) else ""
        return f"{where}: {rules['entries']} entries of {rules['lists']} lists in force{refused}{canary}"

    def tell_unlogged(self, now: float) -> None:
        """Says in the log, now and then, how many blocks had no line."""
        if now < self._summary_due:
            return
        self._summary_due = now + SUMMARY
        counted = self._board.counters(range(len(self._workers.slots)))["log"]["unlogged"] + self._journal.over_day
        if counted > self._unlogged_told:
            self._journal.log.info("blocks not logged", count=counted - self._unlogged_told,
                                   limit=self._config.daemon.log_blocks)
            self._unlogged_told = counted
