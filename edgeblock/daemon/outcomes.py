"""Answers orders: NAME.outcome.json beside NAME.order.json, for each item what has become of it and since when.

In: rules that are put in force, whether every worker and the kernel have them, windows that open and close; what the
compiling process has left of each order (blocklist/answers.py). Out: an outcome for each order, written when anything
in it is another, and what has to outlive a restart (orders/NAME.since in the state directory). An item is in force
when all workers have it, and the kernel where it is an address: not when it was compiled. Everything that is long is
in these files, and read by one thread when it is needed. Never here: a list read, or the text of an entry.
"""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import edgeblock
from edgeblock.blocklist.answers import ANSWERS_MAX, MARK, Answer, Answers, from_bytes
from edgeblock.blocklist.directory import begins_with, fault_of
from edgeblock.blocklist.formats import ORDER, OUTCOME
from edgeblock.blocklist.store import ORDERS, write_file
from edgeblock.blocklist.terms import ALWAYS, DAY, Window
from edgeblock.config import Rules
from edgeblock.daemon.compiler import Loaded
from edgeblock.errors import ListError, printable

VERSION = 1
LOOKING = 0.25          # seconds between two looks whether something is in force everywhere
PATIENCE = 10.0         # seconds after a start in which nothing is answered that is not in force everywhere yet
CHECKING = 60.0         # seconds between two looks whether what was written is still there
SHARE = 2               # an outcome that is long to write is not written again for so many times as long
SINCE = ".since"
LAST = 253_402_300_800  # the end of the year 9999 in Unix seconds
NO_LIST = "the list is refused as a whole and no version of it is in force; `refused` of the order says why"
NEVER = "its window and that of its list, in NAME.toml, have no moment in common"
OF_SOME = "on the watched ports only, as the kernel is given no address of a list for some clients"
NOT_IN_KERNEL = "not in the kernel's address rules, so on the watched ports only; `edgeblock status` says why"

TAKEN, REFUSED, WAITING, IN_FORCE, ENDED = STATES = ("taken", "refused", "waiting", "in force", "ended")
APPLIED = "applied"     # of an order: every worker has it as it is; what is in force of it its items say


class Phase(NamedTuple):
    """Where a window is at a time: `state` is one of the last three, `at` since when in Unix seconds, None where it
    was ever so; for WAITING it is when it opens, None where nobody looked."""

    state: str
    at: float | None = None


def phase_of(window: Window, now: float) -> Phase:
    """Where a window is."""
    if now >= window.ends:
        return Phase(ENDED, window.ends)
    if not window.holds(now):
        return Phase(WAITING, window.next_change(now))
    if not window.weekly:
        return Phase(IN_FORCE, None if window.begins == ALWAYS else window.begins)
    # Days that touch are one span. One that is longer than a week has no begin.
    start = int(now) - 8 * DAY
    begin = next(begin for begin, end in window.spans(start, int(now) + 1) if begin <= now < end)
    if begin <= start:
        return Phase(IN_FORCE, None if window.begins == ALWAYS else window.begins)
    return Phase(IN_FORCE, begin)


def together(one: Phase, other: Phase) -> Phase:
    """Of what holds only while both do."""
    for state, chosen in ((ENDED, min), (WAITING, max), (IN_FORCE, max)):
        times = [phase.at for phase in (one, other) if phase.state == state]
        if times:
            known = [at for at in times if at is not None]
            return Phase(state, chosen(known) if known else None)
    raise AssertionError


def joint(whole: Window, of_list: Phase, window: Window, now: float) -> Phase | None:
    """Of an item's window inside its list's; None where it waits and no moment is in both."""
    phase = together(of_list, phase_of(window, now))
    never = phase.state == WAITING and max(whole.begins, window.begins) >= min(whole.ends, window.ends)
    return None if never else phase


@dataclass(frozen=True)
class Said:
    """What the daemon knows of an order: its list in force, "" where there is none, and its origin; what was refused,
    and what that is called; whether it is in force everywhere, and in the kernel; why the kernel is never given its
    addresses, "" where it is."""

    origin: str = ""
    action: str = ""
    expired: float | None = None
    refused: str = ""
    refused_digest: str = ""
    refused_order: str = ""
    everywhere: bool = False
    in_kernel: bool = False
    ports_only: str = ""


class Writer:
    """What is done in the thread: files in, outcomes out. `box` is what is said of the box in each."""

    def __init__(self, rules: Rules) -> None:
        self.directory = rules.directory
        self.state = rules.key.parent / ORDERS
        self.problems: dict[str, str] = {}      # by order, why its outcome cannot be written
        self.counts: dict[str, Counter[str]] = {}
        self.of_names: set[str] = set()         # orders without an address
        self.stamps: dict[str, Stamp | None] = {}       # of what was written last; None where nothing was

    def orders(self, refused: Iterable[str]) -> set[str]:
        """The names of all orders: those that were taken, and lists among `refused` that are one."""
        names = {name for name in refused if self._order(name + ORDER, name)}
        with suppress(OSError):
            names |= {name.removesuffix(".json") for name in os.listdir(self.state)
                      if name.endswith(".json") and not name.startswith(".")}
        return names

    def clear(self, orders: set[str]) -> None:
        """What was written of orders that are gone, and what a daemon that was killed has left half written."""
        for name in self.counts.keys() - orders:
            del self.counts[name]
            self.of_names.discard(name)
            self.problems.pop(name, None)
            self.stamps.pop(name, None)
        kept = names_in(self.state, SINCE)
        for name in kept - orders:
            where = self.directory / f"{name}{OUTCOME}"
            with suppress(OSError):
                if is_ours(where):
                    where.unlink()
                (self.state / f"{name}{SINCE}").unlink()
        for folder, suffix in ((self.directory, OUTCOME), (self.state, SINCE)):
            for name in names_in(folder, ".tmp"):
                of, found, process = name.removeprefix(".").rpartition(f"{suffix}.")
                left = name.startswith(".") and found and process.isdecimal() and of in kept | orders
                if left and (folder == self.state or is_ours(folder / f"{name}.tmp", or_empty=True)):
                    with suppress(OSError):
                        (folder / f"{name}.tmp").unlink()

    def stands(self, name: str) -> bool:
        """Whether what was written of an order is there as it was."""
        return name in self.stamps and self.stamps[name] == stamp_of(self.directory / f"{name}{OUTCOME}")

    def write(self, name: str, said: Said, box: dict[str, Any], now: float) -> None:
        """The outcome of one order, where it is another than before."""
        answers = self._answers(name)
        file = answers.file if answers else name + ORDER
        order = self._order(file, name)
        where = self.directory / f"{name}{OUTCOME}"
        if order is None:               # it goes, or has gone
            if is_ours(where):
                with suppress(OSError):
                    where.unlink()
            self.stamps[name] = stamp_of(where)
            return
        kept, body_before, stamp = self._since(name)
        in_force = said.everywhere and answers is not None and answers.origin == said.origin
        since: dict[str, list[float | None]] = {}
        if answers and any(item.in_kernel for item in answers.items):
            self.of_names.discard(name)
        else:
            self.of_names.add(name)
        items = answers_of(answers, said, in_force, kept, since, now) if answers else []
        counts = Counter(item["state"] for item in items)
        self.counts[name] = counts
        told: dict[str, Any] = {"order": answers.order if answers else said.refused_order}
        told["state"] = REFUSED if said.refused else APPLIED if in_force else TAKEN
        if answers:
            told |= {"sha256": answers.sha256, "action": said.action}
        if said.refused:
            told["refused"] = {"order": said.refused_order, "sha256": said.refused_digest,
                               "reason": said.refused}
        told["counts"] = {state: counts[state] for state in STATES}
        lines = ",\n".join(map(json.dumps, items))
        body = blake2b(f"{json.dumps(told)}{lines}".encode(), digest_size=16).hexdigest()

        def keep(body: str, stamp: Stamp | None) -> None:
            text = json.dumps({"since": since, "body": body, "stamp": stamp}).encode()
            write_file(self.state / f"{name}{SINCE}", partial(put, text))

        def fill(file: Any) -> None:
            """It is kept what this file is before it has its name: nobody has changed it yet."""
            file.write(text_of(told, box, lines, now))
            file.flush()
            os.fsync(file.fileno())
            self.stamps[name] = Stamp.of(os.fstat(file.fileno()))
            keep(body, self.stamps[name])

        self.stamps[name] = stamp
        try:
            if body != body_before or stamp != stamp_of(where):
                if os.path.lexists(where) and not is_ours(where):
                    raise OSError(0, "there is another file of this name, which is left alone; move it away")
                write_file(where, fill, mode=order.st_mode & 0o664 | 0o600)
            elif since != kept:
                keep(body, stamp)
            self.problems.pop(name, None)
        except (OSError, ValueError) as problem:
            self.problems[name] = f"{where}: cannot be written: {getattr(problem, 'strerror', None) or problem}"
            self.stamps.pop(name, None)
            if since != kept:           # it is in force all the same
                with suppress(OSError):
                    keep(body_before, stamp)

    def _answers(self, name: str) -> Answers | None:
        try:
            with open(self.state / f"{name}.json", "rb") as file:
                data = file.read(ANSWERS_MAX + 1)
        except (OSError, ValueError):
            return None
        return from_bytes(data) if len(data) <= ANSWERS_MAX else None

    def _order(self, file: str, name: str) -> os.stat_result | None:
        """What the kernel says of the order's file, which is in the directory itself; None where there is none."""
        for one in (file, f"{name}{ORDER}", f"{name}{ORDER}.gz", f"{name}{ORDER}.zst"):
            with suppress(OSError, ValueError):
                if "/" not in one:
                    return os.lstat(self.directory / one)
        return None

    def _since(self, name: str) -> tuple[dict[str, list[float | None]], str, "Stamp | None"]:
        """Since when items are in force, and until when they were, by their marks; what was told last, and the file
        that it was told in."""
        try:
            with open(self.state / f"{name}{SINCE}", "rb") as file:
                read = json.loads(file.read(ANSWERS_MAX))
            since = {mark: times for mark, times in read["since"].items() if len(times) == 2 and all(
                at is None or 0 <= at < LAST for at in times)}
            return since, str(read["body"]), Stamp(*read["stamp"]) if read["stamp"] else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return {}, "", None


def answers_of(answers: Answers, said: Said, in_force: bool, kept: dict[str, list[float | None]],
               since: dict[str, list[float | None]], now: float) -> list[dict[str, Any]]:
    """What is said of each item; `since` is filled with what `kept` is to be the next time."""
    of_list = phase_of(answers.window, now)
    if said.expired is not None:
        of_list = together(of_list, Phase(ENDED, said.expired))
    phases = [joint(answers.window, of_list, window, now) for window in answers.windows]
    told = []
    for item in answers.items:
        one: dict[str, Any] = {"number": item.number}
        if item.id:
            one["id"] = item.id
        if not item.rules:
            told.append(one | {"state": REFUSED, "reason": item.why})
            continue
        phase = phases[item.window] if item.window >= 0 else of_list
        if phase is None:
            told.append(one | {"state": REFUSED, "reason": NEVER})
            continue
        if not said.origin and phase.state != ENDED:
            told.append(one | ({"state": REFUSED, "reason": NO_LIST} if said.refused else {"state": TAKEN}))
            continue
        one |= state_of(item, phase, in_force, said, kept.get(item.mark), since, now)
        one["rules"] = item.rules
        if item.more:
            one["more_rules"] = item.more
        if item.why:
            also = f"; {one['reason']}" if "reason" in one else ""
            one["reason"] = f"a part of it is refused: {item.why}{also}"
        told.append(one)
    return told


def state_of(item: Answer, phase: Phase, in_force: bool, said: Said, kept: list[float | None] | None,
             since: dict[str, list[float | None]], now: float) -> dict[str, Any]:
    """Where an item that was taken is."""
    began = kept[0] if kept else None
    if phase.state == ENDED:
        times = {"since": moment(began)} if began is not None else {}
        since[item.mark] = [began, phase.at]
        return {"state": ENDED, **times, "ended": moment(phase.at)}
    if phase.state == WAITING:
        return {"state": WAITING, **({} if phase.at is None else {"opens": moment(phase.at)})}
    if began is not None and (phase.at is None or began >= phase.at):       # since it opened this time
        lacks = item.in_kernel and in_force and not said.in_kernel
    elif not in_force:
        return {"state": TAKEN}
    elif item.in_kernel and not said.in_kernel and not said.ports_only:
        return {"state": TAKEN, "reason": NOT_IN_KERNEL}
    else:
        began, lacks = now, False
    since[item.mark] = [began, None]
    why = item.in_kernel and said.ports_only or (NOT_IN_KERNEL if lacks else "")
    return {"state": IN_FORCE, "since": moment(began), **({"reason": why} if why else {})}


def moment(at: float | None) -> str | None:
    """RFC 3339, to the millisecond."""
    if at is None:
        return None
    at = min(max(at, 0), LAST - 1)
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def text_of(told: dict[str, Any], box: dict[str, Any], lines: str, now: float) -> bytes:
    """The outcome: JSON with an item a line."""
    head = json.dumps({"edgeblock": "outcome", "version": VERSION, **told, "written": moment(now), **box})
    return f'{head[:-1]}, "items": [\n{lines}\n]}}\n'.encode()


def put(text: bytes, file: Any) -> None:
    file.write(text)


class Stamp(NamedTuple):
    """By what a file is known again: another in its place, or another text in it, has another."""

    inode: int
    modified: int       # in nanoseconds
    size: int
    owner: int

    @classmethod
    def of(cls, stat: os.stat_result) -> "Stamp":
        return cls(stat.st_ino, stat.st_mtime_ns, stat.st_size, stat.st_uid)


def stamp_of(path: Path) -> Stamp | None:
    """None where there is no such file."""
    try:
        return Stamp.of(os.lstat(path))
    except (OSError, ValueError):
        return None


def names_in(folder: Path, suffix: str) -> set[str]:
    """What files there are called, without the suffix that they have."""
    try:
        return {name.removesuffix(suffix) for name in os.listdir(folder) if name.endswith(suffix)}
    except OSError:
        return set()


def is_ours(path: Path, or_empty: bool = False) -> bool:
    """Whether it is an outcome that edgeblock has written."""
    if not os.path.lexists(path):
        return False
    try:
        return or_empty and os.lstat(path).st_size == 0 or begins_with(path, MARK)
    except (ListError, OSError):
        return False


class Outcomes:
    """Keeps the outcome of each order as things are.

    Args:
        everywhere: whether every worker has the rules that were given to them last.
        in_kernel: whether the kernel has every address that it is to have; None while some come or go.
        capacity: how much there is and may be, for a box: "entries", "addresses", "lists", each `used` and `most`.
        left_by: the setting that gives no address of any list to the kernel; "" where none does.
    """

    def __init__(self, rules: Rules, log: Any, everywhere: Callable[[], bool], in_kernel: Callable[[], bool | None],
                 capacity: Callable[[], dict[str, dict[str, int]]], left_by: str = "") -> None:
        self._log, self._everywhere, self._in_kernel, self._capacity = log, everywhere, in_kernel, capacity
        self._ports_only = f"on the watched ports only: {left_by}" if left_by else ""
        self._writer = Writer(rules)
        self._thread = ThreadPoolExecutor(1, "outcomes")
        self._loaded: Loaded | None = None
        self._lists: dict[str, tuple[str, str, float | None, str]] = {}     # origin, action, when it expired, whose
        self._refused: dict[str, tuple[str, str, str]] = {}     # perhaps of orders: why, digest, its name
        self._settled: dict[str, str] = {}      # the origins of lists that are in force everywhere
        self._is_settled = False
        self._was_settled = False
        self._had_kernel = False
        self._begun = time.monotonic()
        self._told: dict[str, Said] = {}        # of each order, when it was answered last
        self._turned: set[str] = set()          # lists with a window that has opened or closed
        self._stirred = False
        self._check_due = 0.0
        self._resting: dict[str, float] = {}    # orders that were long to write: until when they are left
        self._said: dict[str, str] = {}

    def take(self, loaded: Loaded) -> None:
        """These rules have been given to the workers."""
        self._loaded = loaded
        self._lists = {one["name"]: (one["origin"], one["action"], one["expires"] if one["expired"] else None,
                                     one["clients"]) for one in loaded.lists}
        self._refused = {name: (one["told"], one["sha256"], one["order"]) for name, one in loaded.refused.items()
                         if (ORDER in one["file"] or one["file"].endswith(".toml")) and "/" not in name}
        self._turned.update(change["list"] for change in loaded.changes)
        self._is_settled, self._stirred = False, True

    def turn(self, lists: Iterable[str]) -> None:
        """Windows of these lists have opened or closed, and where that has to be done it is done."""
        self._turned.update(lists)

    def status(self) -> dict[str, Any]:
        """For `status` and the metrics: how many orders there are, and items by their state."""
        counts = sum(list(self._writer.counts.values()), Counter())
        return {"orders": len(self._writer.counts), "items": {state: counts[state] for state in STATES},
                "problem": next(iter(self._writer.problems.values()), "")}

    async def keep(self) -> None:
        """Until it is cancelled: writes what is to be written."""
        while True:
            await self.look(time.time())
            await asyncio.sleep(LOOKING)

    async def look(self, now: float) -> None:
        """Writes what is to be written. `now` is in Unix seconds."""
        if self._loaded is not None and not self._is_settled and self._everywhere():
            self._is_settled = self._was_settled = self._stirred = True
            self._settled = {name: origin for name, (origin, *_) in self._lists.items()}
        in_kernel = self._in_kernel()
        if in_kernel is None:
            return                  # in a moment it is known
        self._stirred |= in_kernel != self._had_kernel
        # At a start the answers of the daemon before hold until ours are known.
        early = not self._was_settled and time.monotonic() < self._begun + PATIENCE
        due = time.monotonic() >= self._check_due
        if self._loaded is None or early or not (self._stirred or self._turned or due):
            return
        self._check_due = time.monotonic() + CHECKING
        self._had_kernel = in_kernel
        stirred, self._stirred = self._stirred, False
        turned, self._turned = self._turned, set()
        box = {"box": {"content": self._loaded.content, "edgeblock": edgeblock.__version__},
               "capacity": self._capacity()}
        said = partial(self._said_of, in_kernel)
        try:
            await asyncio.get_running_loop().run_in_executor(
                self._thread, self._write, stirred, turned, said, dict(self._refused), box, now)
        except RuntimeError:        # no thread is to be had now
            self._stirred |= stirred
            self._turned |= turned
            return
        for name, problem in self._writer.problems.items():
            if self._said.get(name) != problem:
                self._log.warning("order not answered", list=name, problem=printable(problem))
        self._said = dict(self._writer.problems)

    def _said_of(self, in_kernel: bool, name: str) -> Said:
        origin, action, expired, clients = self._lists.get(name, ("", "", None, ""))
        why, digest, order = self._refused.get(name, ("", "", ""))
        return Said(origin, action, expired, why, digest, order, bool(origin) and self._settled.get(name) == origin,
                    in_kernel, self._ports_only or (OF_SOME if clients else ""))

    def _write(self, stirred: bool, turned: set[str], said: Callable[[str], Said], refused: dict[str, Any],
               box: dict[str, Any], now: float) -> None:
        """In the thread."""
        orders = self._writer.orders(refused)
        if stirred:
            self._writer.clear(orders)
            self._told = {name: one for name, one in self._told.items() if name in orders}
        for name in sorted(orders):
            one = said(name)
            before = self._told.get(name)
            if before and name in self._writer.of_names:
                before = replace(before, in_kernel=one.in_kernel)
            if before == one and name not in turned and self._writer.stands(name):
                continue
            began = time.monotonic()
            if began < self._resting.get(name, 0.0):
                self._turned.add(name)      # again at the next look
                continue
            try:
                self._writer.write(name, one, box, now)
            except Exception as error:      # one order's fault is one order's
                self._writer.problems[name] = f"{name}{ORDER}: {fault_of(error)}"
            self._told[name] = one
            self._resting[name] = time.monotonic() + SHARE * (time.monotonic() - began)

    def close(self) -> None:
        self._thread.shutdown()
