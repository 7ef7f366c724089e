"""Which of some rules a snapshot still has: a rule that was met once may have gone from its list since.

In: a snapshot, rule ids by list. Out: those that are there. It goes through all rows in order, a chunk at a time in
what is fast in plain Python: ten million take some seconds. Never here: a name, or the file of a list.
"""

from collections.abc import Iterator, Mapping, Set
from typing import Any

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.parts import ROW_SIZE
from edgeblock.blocklist.snapshot import Snapshot

WORDS = ROW_SIZE // 4       # of a row: its fingerprint is four, the last has its list and what it is
CHUNK = 1 << 16             # rows at a time
SPREAD = 0x9E3779B1         # parts.rule_number


def still_listed(snapshot: Snapshot, met: Mapping[str, Set[int]]) -> dict[str, set[int]]:
    """Of the rule ids that are given by list those that the list still has, by list."""
    found: dict[str, set[int]] = {name: set() for name in met}
    wanted = {word_of(rule, kind) for rules in met.values() for rule in rules for kind in Kind}
    if not wanted:
        return found
    for rows, names in layers(snapshot):
        for first in range(0, len(rows) // WORDS, CHUNK):
            chunk = rows[first * WORDS:(first + CHUNK) * WORDS]
            marks = chunk[3::WORDS].tolist()
            some = wanted.intersection(marks)
            if not some:
                continue
            for mark, what in zip(marks, chunk[4::WORDS].tolist(), strict=True):
                name = names[what >> 16] if mark in some and what >> 16 < len(names) else ""
                if name in found:
                    rule = rule_of(mark, what & 0xFF)
                    if rule in met[name]:
                        found[name].add(rule)
    return found


def layers(snapshot: Snapshot) -> Iterator[tuple[memoryview, list[str]]]:
    """The rows of a snapshot as words of 32 bits, and of the one below it, with the name of each list in them; "" for
    one whose rows do not count there."""
    parts: Any = snapshot.parts
    yield memoryview(parts.rows).cast("B").cast("I"), [record.name for record in parts.lists]
    if snapshot.base is not None:
        below: Any = snapshot.base.parts
        names = [""] * len(below.lists)
        for index, place in enumerate(parts.below):
            if place >= 0:
                names[place] = parts.lists[index].name
        yield memoryview(below.rows).cast("B").cast("I"), names


def word_of(rule: int, kind: int) -> int:
    """The last word of the fingerprint of a rule, as it is read from a row."""
    return int.from_bytes((rule ^ kind * SPREAD & 0xFFFFFFFF).to_bytes(4, "big"), "little")


def rule_of(word: int, kind: int) -> int:
    """And back."""
    return int.from_bytes(word.to_bytes(4, "little"), "big") ^ kind * SPREAD & 0xFFFFFFFF
