"""What the ledger tells of lists: when files came, what became of them, and how long that took.

In: the ledger's records of a period. Out: Evidence. The ledger is read as it is; whether it is genuine `edgeblock
ledger verify` says. Never here: counts, or a list's text.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeblock import ledger
from edgeblock.errors import SystemProblem
from edgeblock.ledger import Record
from edgeblock.ledger.segments import segments

OUTAGES_MAX = 100           # that are told one by one
VERSIONS_MAX = 400          # of a list


@dataclass
class OfList:
    """Of one list: `versions` that were taken, as Unix seconds and entries, the newest last; how many in all;
    refusals by their code; removals; how long it took from the file to every worker and the kernel, in ms."""

    versions: list[tuple[float, int]] = field(default_factory=list)
    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    removed: int = 0
    delays: list[int] = field(default_factory=list)
    in_force: float | None = None


@dataclass
class Evidence:
    """`problem` says why there is none; `outages` are times of not filtering: since when, for how many ms, who has
    seen it and its code. Those at the end of a daemon last until its last record, as nobody has seen more; None: the
    last daemon has one still. `clocks` is how often the clock was set, `gaps` are records that are
    missing."""

    problem: str = ""
    lists: dict[str, OfList] = field(default_factory=dict)
    outages: list[tuple[float, int | None, str, str]] = field(default_factory=list)
    starts: int = 0
    killed: int = 0
    clocks: int = 0
    gaps: int = 0

    def of(self, name: str) -> OfList:
        return self.lists.setdefault(name, OfList())


def evidence(folder: Path, begins: float, ends: float) -> Evidence:
    """Of the ledger in a directory, from one moment to another (Unix seconds)."""
    try:
        if not folder.is_dir() or not segments(folder):     # the counts are there, with a ledger or without
            return Evidence(f"there is no ledger in {folder}")
        return gathered(ledger.read(folder, begins, ends))
    except SystemProblem as problem:
        return Evidence(str(problem))


def gathered(records: Iterable[Record]) -> Evidence:
    """What these records tell. One that lacks a field tells nothing."""
    told = Evidence()
    open_since: dict[str, tuple[float, str]] = {}
    before = 0.0
    for record in records:
        at = record.at / 1e6
        if record.kind in ("start", "stop"):
            close(told, open_since, at if record.kind == "stop" else before)
        try:
            take(told, open_since, record.kind, record.fields, at)
        except (KeyError, TypeError, ValueError):
            told.gaps += 1
        before = at
    told.outages += [(since, None, who, code) for who, (since, code) in open_since.items()]
    told.outages.sort(key=lambda one: one[0])
    return told


def close(told: Evidence, open_since: dict[str, tuple[float, str]], at: float) -> None:
    """A daemon has ended, and sees no more."""
    told.outages += [(since, max(0, round((at - since) * 1000)), who, code)
                     for who, (since, code) in open_since.items()]
    open_since.clear()


def take(told: Evidence, open_since: dict[str, tuple[float, str]], kind: str, said: dict[str, Any],
         at: float) -> None:
    """One record."""
    if kind == "taken":
        one = told.of(said["list"])
        one.taken += 1
        one.versions = [*one.versions[-VERSIONS_MAX + 1:], (at, int(said["entries"]))]
    elif kind == "refused":
        told.of(said["list"]).refused[str(said["code"])] += 1
    elif kind == "removed":
        told.of(said["list"]).removed += 1
    elif kind == "in force" and said["workers"] and said["kernel"]:
        for changed in said["changed"]:
            one = told.of(changed["list"])
            one.in_force = at
            if changed["delay_ms"] is not None:
                one.delays.append(int(changed["delay_ms"]))
    elif kind == "not filtering":
        open_since.setdefault(said["who"], (at, said["code"]))
    elif kind == "filtering":
        since, code = open_since.pop(said["who"], (at - said["after_ms"] / 1000, ""))
        told.outages.append((since, int(said["after_ms"]), said["who"], code))
    elif kind == "start":
        told.starts += 1
        told.killed += said["clean"] is False
    elif kind == "clock":
        told.clocks += 1
    elif kind == "gap":
        told.gaps += int(said["lost"])
