"""Which entries of a list nobody met, and whose time is over: what somebody may take off the list.

In: a list's file, the rules that were met and when last, the box's key. Out: a Reviewed, with so many entries one
by one. An entry is its file, line and rule id; its text is there for who may read the list anyway. An exception is
not judged: nobody is blocked by it. Never here: a packet, a decision what to remove.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from edgeblock.blocklist import formats
from edgeblock.blocklist.directory import Finding, ListFile, read_list
from edgeblock.blocklist.explain import marks_of
from edgeblock.blocklist.keys import Key
from edgeblock.blocklist.parts import rule_number


class Found(NamedTuple):
    """One entry: the day on which it was met last, None where that is not known to have been ever; the Unix seconds
    at which its time was over, None where it is not."""

    line: int
    rule: str
    text: str
    last: int | None
    ended: float | None


@dataclass
class Reviewed:
    """Of one list: `entries` that block, `dead` ones and `past` ones, the last day on which any was met; `found` are
    the first of them."""

    name: str
    file: str
    entries: int = 0
    dead: int = 0
    past: int = 0
    last: int | None = None
    ended: float | None = None      # the window of the list itself, or its expiry
    found: list[Found] = field(default_factory=list)


def review(source: ListFile, key: Key, met: Mapping[int, int], horizon: int, now: float, most: int) -> Reviewed:
    """One list.

    Args:
        met: the day on which each rule was met last, by its id.
        horizon: the first day of those in which an entry that was not met is dead.
        now: in Unix seconds.
        most: entries that are told one by one.

    Raises:
        ListError: it cannot be read.
    """
    settings = source.settings
    ends: list[float] = [settings.window.ends]
    ends += [settings.expires.timestamp()] if settings.expires else []
    ends = [at for at in ends if at <= now]
    told = Reviewed(source.name, source.path.name, last=max(met.values(), default=None),
                    ended=min(ends) if ends else None)
    for item in read_list(source):
        if isinstance(item, Finding) or item.exception:
            continue
        told.entries += 1
        rules = [rule_number(mark, kind) for kind, _, mark in marks_of(item, key)]
        last = max((met[rule] for rule in rules if rule in met), default=None)
        terms = None if isinstance(item, formats.HashedEntry) else item.terms
        ended = terms.window.ends if terms and terms.window.ends <= now else None
        is_dead = last is None or last < horizon
        told.dead += is_dead
        told.past += ended is not None
        if (is_dead or ended is not None) and len(told.found) < most:
            text = "(hashed)" if isinstance(item, formats.HashedEntry) else formats.key_text(item.key)
            told.found.append(Found(item.line, f"{rules[0]:08x}" if rules else "", text, last, ended))
    return told
