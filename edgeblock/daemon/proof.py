"""What is known of the rules in force from trying them (selfcheck.py).

In: what the process that compiles lists tells, with rules and after. Out: figures of the lists that are in force, for
status, metrics and `doctor`. Never here: a name, or the trying itself.
"""

from typing import Any

from edgeblock.blocklist.canary import LIST

FIGURES = ("tried", "held", "beside", "over_blocked")      # in the order in which they are told


class Proof:
    """Keeps the figures of each list as long as that version of it is in force."""

    def __init__(self, seconds: float, log: Any) -> None:
        self.off, self.log = not seconds, log
        self.counts: dict[str, list[int]] = {}
        self.lists = 0
        self.problem = self.fault = ""
        self.refusals = 0

    def take(self, told: dict[str, Any], in_force: list[dict[str, Any]], changed: set[str]) -> None:
        """Rules that are in force from now on, the lists that have changed, and what is told of trying them."""
        if told.get("refused"):
            self.refusals += 1
            if told.get("problem"):     # of all; else of lists alone, and the others are in force
                return
        names = {one["name"] for one in in_force} | {LIST}
        self.lists = len(names) - 1
        self.counts = {name: counts for name, counts in self.counts.items() if name in names and name not in changed}
        if changed:
            self.problem = self.fault = ""
        self.add(told)

    def add(self, told: dict[str, Any]) -> None:
        """What is told later."""
        for name, counts in told.get("lists", {}).items():
            self.counts[name] = [a + b for a, b in zip(self.counts.get(name, [0] * 4), counts, strict=True)]
        if told.get("problem", "") not in ("", self.problem):
            self.problem = told["problem"]
            self.log.error("the rules in force were tried and do not hold", problem=self.problem)
        if told.get("fault", "") not in ("", self.fault):
            self.fault = told["fault"]
            self.log.error("the rules in force could not be tried", problem=self.fault)

    def status(self) -> dict[str, Any]:
        """What `status` and the metrics show: `held` of `tried` were blocked or reported, and `over_blocked` of
        `beside` were blocked although nothing lists them; `lists` of `of` have been tried."""
        sums = {name: sum(counts[i] for counts in self.counts.values()) for i, name in enumerate(FIGURES)}
        return {"state": "off" if self.off else "failed" if self.problem else "not tried" if self.fault
                else "ok" if sums["tried"] else "waiting", **sums, "lists": len(self.counts.keys() - {LIST}),
                "of": self.lists, "problem": self.problem or self.fault, "refused": self.refusals}
