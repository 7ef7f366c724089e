"""Counts on their way to the disk: bounded, whatever is asked for.

In: blocks, by list, order, protocol and action; hits, by rule id. Out: pieces of JSON's values that another Pending
takes in, and in the end the store. What finds no room is counted as that. Never here: a name, an address, a clock.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

OTHER = "(other)"       # the order of what had no room under its own
TEXT_MAX = 256          # characters of a text that is kept
COUNT_MAX = 1 << 62     # an integer of SQLite is 64 bits; nobody counts so far

ROW = 64                # bytes of JSON around the texts of a row: its counts, quotes, commas

Key = tuple[str, str, str, str]     # list, order, protocol, action


class Pending:
    """`blocks` are tries and visits by their Key, `rules` hits by list and rule id; `lost` are tries, and `unknown`
    hits, for which there was no room.

    Args:
        blocks_max: different keys; as many again where the order is left out.
        rules_max: different rules.
    """

    def __init__(self, blocks_max: int, rules_max: int) -> None:
        self.blocks: dict[Key, list[int]] = {}
        self.rules: dict[tuple[str, str], int] = {}
        self.lost = 0
        self.unknown = 0
        self._blocks_max, self._rules_max = blocks_max, rules_max

    def __bool__(self) -> bool:
        return bool(self.blocks or self.rules or self.lost or self.unknown)

    def add(self, key: Key, tries: int, visits: int) -> None:
        """Blocks of one kind."""
        one = self.blocks.get(key)
        if one is None:
            one = self._begun(key)
            if one is None:
                self.lost += tries
                return
        one[0] += tries
        one[1] += visits

    def _begun(self, key: Key) -> list[int] | None:
        """The counts of a kind that is new; None where there is no room."""
        if len(self.blocks) >= self._blocks_max:
            key = (key[0], OTHER, key[2], key[3])
            if key not in self.blocks and len(self.blocks) >= 2 * self._blocks_max:
                return None
        return self.blocks.setdefault(key, [0, 0])

    def hit(self, list_name: str, rule: str, count: int = 1) -> None:
        """A rule, eight hex digits, was met."""
        key = list_name, rule
        met = self.rules.get(key)
        if met is not None:
            self.rules[key] = met + count
        elif len(self.rules) < self._rules_max:
            self.rules[key] = count
        else:
            self.unknown += count

    def piece(self, size: int) -> dict[str, Any]:
        """Takes out what makes about so many bytes of JSON at most."""
        told: dict[str, Any] = {"blocks": [], "rules": [], "lost": self.lost, "unknown": self.unknown}
        self.lost = self.unknown = 0
        left = size - 200
        while self.blocks and left > 0:
            key, counts = self.blocks.popitem()
            told["blocks"].append([*key, *counts])
            left -= ROW + sum(map(size_of, key))
        while self.rules and left > 0:
            (name, rule), met = self.rules.popitem()
            told["rules"].append([name, rule, met])
            left -= ROW + size_of(name)
        return told

    def put(self, told: dict[str, Any]) -> None:
        """Takes in what `piece` has made.

        Raises:
            ValueError: it is something else, and nothing of it is taken.
        """
        try:
            blocks = [((text(row[0]), text(row[1]), text(row[2]), text(row[3])), count(row[4]), count(row[5]))
                      for row in told["blocks"]]
            rules = [(text(row[0]), f"{int(row[1], 16) & 0xFFFFFFFF:08x}", count(row[2])) for row in told["rules"]]
            lost, unknown = count(told["lost"]), count(told["unknown"])
        except (TypeError, KeyError, IndexError) as problem:
            raise ValueError(f"is no piece of counts: {type(problem).__name__}") from None
        for key, tries, visits in blocks:
            self.add(key, tries, visits)
        for list_name, rule, met in rules:
            self.hit(list_name, rule, met)
        self.lost += lost
        self.unknown += unknown

    def merge(self, other: "Pending") -> None:
        """Takes in all of another."""
        for key, (tries, visits) in other.blocks.items():
            self.add(key, tries, visits)
        for (list_name, rule), met in other.rules.items():
            self.hit(list_name, rule, met)
        self.lost += other.lost
        self.unknown += other.unknown


def size_of(text: str) -> int:
    """Bytes that a text has in JSON at most."""
    return len(text) if text.isalnum() and text.isascii() else 12 * len(text)   # \ud800\udc00


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("is no text")
    return value if len(value) <= TEXT_MAX else value[:TEXT_MAX]


def count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= COUNT_MAX:
        raise ValueError("is no count")
    return value


@dataclass
class Batch:
    """What was counted on one day and is not written yet. `sums` are added to what there is, of `most` the larger
    counts; `kernel` are packets by list, `canary` probes asked and held, by family and protocol."""

    pending: Pending
    sums: dict[str, float] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    kernel: Counter[str] = field(default_factory=Counter)
    canary: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def add(self, what: str, value: float) -> None:
        if value:
            self.sums[what] = self.sums.get(what, 0) + value

    def merge(self, other: "Batch") -> None:
        self.pending.merge(other.pending)
        for what, value in other.sums.items():
            self.add(what, value)
        self.kernel.update(other.kernel)
        for what, value in other.most.items():
            self.most[what] = max(value, self.most.get(what, 0))
        for which, (asked, held) in other.canary.items():
            one = self.canary.setdefault(which, [0, 0])
            one[0] += asked
            one[1] += held
