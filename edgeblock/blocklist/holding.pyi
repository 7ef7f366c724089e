# What Python sees of holding.pyx, for type checkers.

from edgeblock.core.matcher import Matcher

class Holder(Matcher):
    anyhow: bool
    at: float | None
    def order_of(self, list_index: int, order: int) -> str: ...
    def keep_time(self, now: float) -> None: ...
