"""A changed rules directory into a new snapshot: what has changed is taken or refused, everything else stays.

One idea, though long: a list is read, judged, kept, published and told of in one look, and a fault in any step is
that list's. In: the [rules] settings, the store, which files somebody is still writing, and the time. Out: an
Outcome; a snapshot published in the store when anything about the lists in force is different; NAME.rejected beside
every list that is refused. A refused list never takes another down, and its last good version stays in force. What
never happens here: a word of a list in the Outcome, which is for the log.
"""

import os
import pwd
import stat
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from edgeblock import config
from edgeblock.blocklist import canary, precompiled
from edgeblock.blocklist.answers import OVERRIDE, Answers, to_bytes
from edgeblock.blocklist.clients import ClientFiles, give
from edgeblock.blocklist.committed import window_text
from edgeblock.blocklist.compiler import is_little, largest, lay_over, merge, table_of
from edgeblock.blocklist.directory import (
    COMPILED,
    LISTS_MAX,
    SETTINGS_SECONDS,
    Finding,
    ListFile,
    TooSlow,
    fault_of,
    find_lists,
    is_unfinished,
    limited,
    open_regular,
    read_settings,
)
from edgeblock.blocklist.formats import ORDER, list_name
from edgeblock.blocklist.formats.packed import SUFFIXES
from edgeblock.blocklist.guard import SHRINK_FLOOR
from edgeblock.blocklist.intake import (
    Refused,
    Terms,
    Unsettled,
    make_terms,
    origin_of,
    seconds_for,
    take,
)
from edgeblock.blocklist.keys import keyed_sum
from edgeblock.blocklist.owners import Room
from edgeblock.blocklist.parts import Compiled, ListRecord
from edgeblock.blocklist.sample import Handed, Sample, Trial, room, sample_of
from edgeblock.blocklist.settings import CLIENTS, ListSettings, locked_for, why_locked
from edgeblock.blocklist.snapshot import Snapshot, check_whole, stack
from edgeblock.blocklist.store import FULL, Store, nameless, write_file
from edgeblock.errors import ListError, printable

MARK = b"edgeblock has refused this "   # how a .rejected of ours begins; another's is left alone
SKIPPED = b"edgeblock has left these out of this list"     # and a .skipped
HURRY = 4 << 20         # bytes of a list that is compiled at a start, before what was in force is served again
BATCH = 64 << 20        # bytes of lists after which those that were taken are published before more are read
SLICE = 1.0             # seconds of processor time that a short list has before it goes on in a process of its own
ROUND = 1.0             # seconds after which those that were taken are published before more are read
COLD = 60.0             # the same where nothing is in force yet, and nobody is served by a half
SAMPLING = 1.0          # seconds in which lists that are not read in this round may be read for a sample
TOGETHER = 8            # changed lists from which on they are brought to the disk together,
PUT_BACK_MAX = 3        # lists that do not hold and are left as they were, before all are
TOGETHER_MAX = 1000     # so many at a time: what is not there yet is lost if the process ends
DEATHS = 2              # ends of the process that reads a list after which the list is refused
REFUSED_MAX = LISTS_MAX     # refusals of lists that are not in force which are told one by one; the rest are counted
REJECTED_MAX = 256 << 10    # bytes of a NAME.rejected of ours; another's may be a terabyte
ORDER_MAX = 64 << 20    # bytes of a refused order whose digest is told
WHERE = "<where>"       # in a reason, until it is known where the whole of it stands


@dataclass
class Outcome:
    """What a round has done.

    `changes`: what is in force now and was not before, or is no more, and what is not refused any more although
    nothing has changed in force; `refused`: by list, what is refused now;
    `lists`: all in force; `problem`: why the directory could not be looked at or no snapshot be written, so that all
    lists stayed; `again`:
    something is left to do, although nobody may touch the directory any more; `slow`: lists that are left for a
    process of their own, the shortest first, each as its name, its origin, and who owns it; `content`: the same on
    every box of this key that has the same lists in force.
    """

    changes: list[dict[str, Any]] = field(default_factory=list)
    refused: dict[str, dict[str, Any]] = field(default_factory=dict)
    lists: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problem: str = ""
    again: bool = False
    slow: list[tuple[str, str, int]] = field(default_factory=list)
    content: str = ""


def refresh(rules: config.Rules, store: Store, now: float, busy: Collection[str] = (),
            afresh: bool = False, hurry: bool = False, overdue: bool = False,
            lane: Mapping[str, dict[str, Any]] | None = None, died: bool = False, probed: bool = False,
            held: str = "", trial: Trial | None = None, handed: Mapping[str, Handed] | None = None,
            redirects: bool = True) -> Outcome:
    """Takes in what has changed, and publishes.

    Args:
        now: Unix seconds, against which lists expire.
        busy: names of files that are being written: their lists stay as they are.
        afresh: what is refused is read again, although nobody has touched it.
        hurry: a long list is left for the next round, and what was in force before served meanwhile, if anything was.
        overdue: the round before has left a list; now a long one is taken beside short ones, or it would wait for as
            long as those keep coming.
        lane: there is a process for lists that are long or slow, and this is what it has in hand, or has refused: by
            name, `origin` at least. None: there is none, and every list is read here.
        died: the process before has ended while it read a list.
        probed: the name that a daemon asks itself for is in the snapshot, too (canary.py); it is in nobody's list.
        held: the digest of the snapshot that is in force, or that what is in force lies over: it is in memory, so
            it is not verified again.
        trial: tries what is to come into force (sample.py): where it finds something, what is in force stays.
        handed: samples of lists that the other process has read, by name.
        redirects: as `find_lists` has it.

    Raises:
        ListError: the state directory cannot be written, and nothing is in force.
    """
    store.prepare()
    return Round(rules, store, now, {name.split(".minisig")[0] for name in busy}, afresh, hurry,
                 overdue, lane, died, probed, held, trial, handed, redirects).run()


def refresh_one(rules: config.Rules, store: Store, now: float, name: str, died: bool = False,
                hand_on: Callable[[Handed], None] | None = None) -> dict[str, Any]:
    """Takes in one list that is long or slow, and keeps it for the next `refresh` to publish; what that one is to be
    told in its `lane`. {} where it is kept, or was changed meanwhile. `hand_on` is given a sample of what is kept.

    Raises:
        ListError: the directory cannot be read, or the state directory not be written.
    """
    store.prepare()
    one = Round(rules, store, now, (), False, False, True, None, died)
    one.samples = {} if hand_on else None
    terms = make_terms(rules, store.key, store.commits)
    files, _, _ = find_lists(rules.directory, terms.defaults, known=one.parts)
    for source in files:
        if source.name == name:
            one.take_one(source, terms, origin_of(source, terms), seconds_for(size_of(source)))
    store.begin("", "")
    one.write_rejected()
    if hand_on and one.samples and name in one.samples:
        hand_on(Handed(one.parts[name].digest, one.samples[name]))
    return one.outcome.refused.get(name, {})


def has_lost_addresses(parts: Compiled) -> bool:
    """Whether a list has addresses, and the form of snapshot that it was kept in had no place for them in clear."""
    return not len(parts.addresses) and bool(parts.ipv4_lengths or parts.ipv6_lengths)


def has_same_names(top: Snapshot | None, new: Snapshot, *parts: Mapping[str, Snapshot]) -> bool:
    """Whether no list that is not as in what is in force has names, or had some, by its parts before and now."""
    was, now = ({(one.name, one.part, one.expired) for one in lists}
                for lists in (top.parts.lists if top else (), new.parts.lists))
    found = [[some[name].parts for some in parts if name in some] for name in {one[0] for one in was ^ now}]
    return bool(found) and all(every and not any(
        one.labels or one.url_max or one.directory_max for one in every) for every in found)


def has_same_rows(top: Snapshot | None, new: Snapshot) -> bool:
    """Whether nothing is different but whom lists are for."""
    was, now = ({(one.name, one.part, one.expired) for one in lists}
                for lists in (top.parts.lists if top else (), new.parts.lists))
    return top is not None and was == now and top.parts.nat64 == new.parts.nat64


class Round:
    """One look at the directory."""

    def __init__(self, rules: config.Rules, store: Store, now: float, busy: Collection[str], afresh: bool,
                 hurry: bool, overdue: bool, lane: Mapping[str, dict[str, Any]] | None, died: bool,
                 probed: bool = False, held: str = "", trial: Trial | None = None,
                 handed: Mapping[str, Handed] | None = None, redirects: bool = True) -> None:
        self.probed, self.trial, self.redirects = probed, trial, redirects
        self.samples = trial.samples if trial else None     # of the lists that are taken
        self.handed = handed or {}
        self.found: dict[str, tuple[ListFile, str]] = {}        # the files of lists, with their origins
        # Lists that are taken now: the version before, and what was known of the items of that.
        self.replaced: dict[str, tuple[ListFile, Snapshot | None, bytes]] = {}
        self.rules, self.store, self.now, self.afresh = rules, store, now, afresh
        self.hurry, self.overdue = hurry, overdue
        self.busy, self.busy_files = {list_name(name) for name in busy}, set(busy)
        self.outcome = Outcome()
        self.top = store.in_force(held)         # what is in force, to which what changes is compared
        self.base = self.top and (self.top.base or self.top)
        if self.base:
            for record in self.base.parts.lists:
                record.part = record.part or self.base.digest       # where it is the part of one list (store.Below)
        there = {record.part for record in self.base.parts.lists} if self.base and self.base.digest == held else ()
        self.below: Snapshot | None = None      # what would lie below what is to be published
        self.held = there                       # digests of the parts that are in memory, and not verified here
        self.parts, self.outcome.warnings = store.parts(there)
        sets, damaged = store.client_sets()
        self.clients = ClientFiles(rules.directory, store.key, sets)
        self.outcome.warnings += damaged
        self.had_sets, self.named = set(sets), set(sets)
        self.were = dict(self.parts)
        self.before = {name: part.parts.lists[0] for name, part in self.parts.items()}
        self.room = Room(self.before.values())
        self.known = store.refused()
        self.gone: list[str] = []
        self.lane = lane
        self.reasons: dict[str, tuple[Refused, os.stat_result | None]] = {}
        self.together = False           # parts are brought to the disk by _settle, and these are not there yet
        self.unsettled: list[tuple[ListFile, Snapshot | None]] = []
        self.untold = 0                 # refusals that are only counted
        self.blamed, self.blame, deaths = store.taking()
        self.deaths = deaths + 1 if died else 0

    def run(self) -> Outcome:
        try:
            terms = make_terms(self.rules, self.store.key, self.store.commits)
            files, errors, warnings = find_lists(self.rules.directory, terms.defaults, known=self.parts,
                                                 redirects=self.redirects)
        except Exception as problem:        # what is in force is served, whatever somebody has done to the directory
            self.outcome.problem = printable(str(problem)) if isinstance(problem, ListError) else \
                f"{self.rules.directory}: {fault_of(problem)}"
            self.outcome.refused = self.known
            leave_unbound(self)
            self._publish()
            return self.outcome
        self.outcome.warnings += map(str, warnings)
        self.busy |= {one.name for one in files if any(path.name in self.busy_files for _, path in one.pages)}
        there = {source.name for source in files} | {list_name(one.file) for one in errors} | self.busy
        findings: defaultdict[str, list[Finding]] = defaultdict(list)
        for one in errors:
            findings[refused_as(one.file)].append(one)
        for name, some in findings.items():
            self._refuse(name, Refused(some))
        apart(self, take_clients, files)
        leave_unbound(self)
        self._take_changed(terms, files)
        apart(self, tell_clients, files)
        self._remove_gone(there | self.outcome.refused.keys(), terms)
        self._publish()
        self.write_rejected()           # what is in force does not wait for reasons
        if self.untold:
            self.outcome.warnings.append(f"{self.rules.directory}: {self.untold} more lists are refused")
        for name, part in self.parts.items():
            if part.parts.lists[0].doubt:
                self.outcome.warnings.append(printable(str(part.parts.lists[0].doubt)))
            if has_lost_addresses(part.parts):
                self.outcome.warnings.append(
                    f"{name}: the version in force is of an older edgeblock, so its addresses are enforced on the "
                    "watched ports only; drop the list again")
        if not self.outcome.problem:
            self._tell_withdrawn()
        self._clear_rejected()
        try:
            for name in self.gone:
                self.store.remember(name, self.before[name].signed if name in self.before else None)
                self.store.forget(name)
            for file in self.had_sets - self.named:
                self.store.forget_clients(file)
            self.store.keep_refused(self.outcome.refused)
        except OSError as error:
            self.outcome.warnings.append(f"{self.store.directory}: cannot be written: {error.strerror}")
        return self.outcome

    # ---- lists that have changed

    def _take_changed(self, terms: Terms, files: list[ListFile]) -> None:
        # Small ones first: a list of ten million entries does not hold up one of ten. Of each owner one, then of each
        # a second: a thousand lists of one do not hold up those of another.
        changed = []
        for source in sorted(files, key=size_of):
            part, origin = self.parts.get(source.name), origin_of(source, terms)
            self.found[source.name] = source, origin
            if why := self.clients.why_without(source.settings):
                if source.settings.clients_file in self.clients.waiting | self.busy_files:
                    self.outcome.again = True
                else:
                    self._refuse(source.name, Refused([Finding(source.path.name, 0, why)]), source.state)
                continue
            if part is None or part.parts.lists[0].origin != origin or not precompiled.may_stay(
                    part.parts.lists[0], terms) or (
                    source.settings.format == "order" and not self.store.has_answers(source.name)):
                changed.append((source, origin))
        ranks: Counter[int] = Counter()
        order = []
        for source, origin in changed:
            order.append((ranks[owner_id(source)], size_of(source), source, origin))
            ranks[owner_id(source)] += 1
        order.sort(key=lambda one: one[:2])
        self.together = len(order) >= TOGETHER
        cold = self.hurry and not self.parts
        spent, until = 0, time.monotonic() + (COLD if cold else ROUND)
        slow: list[tuple[ListFile, str]] = []
        for _, size, source, origin in order:
            name, before = source.name, self.known.get(source.name, {})
            judged = (self.lane or {}).get(name, {})
            if judged.get("origin") == origin:      # the other process has it, or has refused it
                if "told" in judged:
                    self.outcome.refused[name] = judged | {"in_force": name in self.parts}
                elif before:
                    self.outcome.refused[name] = before
                continue
            known = before.get("origin") == origin and not self.afresh and is_there(before.get("where", ""))
            # A list that is too much for this machine ends the process: what came with it is in force by then.
            long = size > BATCH // 2 and not self.overdue
            later = spent > BATCH or self.lane is not None and spent > 0 and time.monotonic() > until or (
                self.lane is None and (spent > 0 and long or self.hurry and size > HURRY and self.parts))
            if name in self.busy or known or later:
                if before:
                    self.outcome.refused[name] = before
                self.outcome.again |= bool(later) and name not in self.busy and not known
                continue
            suspect = self.deaths > 0 and (name, origin) == (self.blamed, self.blame)
            if self.lane is not None and (size > HURRY or suspect):
                slow.append((source, origin))
                continue
            spent += size + 1
            if not self.take_one(source, terms, origin, seconds_for(size) if self.lane is None else SLICE):
                slow.append((source, origin))
        self._leave(slow, terms, cold, until)
        self._settle()
        self.store.begin("", "")

    def _settle(self) -> None:
        """The parts that were kept together are on the disk, or none of them is taken."""
        waiting, self.unsettled = self.unsettled, []
        try:
            self.store.settle()
        except OSError as error:
            for source, before in waiting:
                del self.parts[source.name]
                if before:
                    self.parts[source.name] = before
                self._refuse_unkept(source, error)

    def _leave(self, slow: list[tuple[ListFile, str]], terms: Terms, cold: bool, until: float) -> None:
        for source, origin in slow:
            # At a first start nobody is served better without it.
            if cold and time.monotonic() < until and self.take_one(
                    source, terms, origin, min(seconds_for(size_of(source)), COLD)):
                continue
            if before := self.known.get(source.name, {}):
                self.outcome.refused[source.name] = before
            self.outcome.slow.append((source.name, origin, owner_id(source)))

    def take_one(self, source: ListFile, terms: Terms, origin: str, seconds: float) -> bool:
        """Takes a list, or refuses it for whatever reading it raises. False where it has not been done in as many
        seconds, and there is more time elsewhere."""
        name, file = source.name, source.path.name
        suspect = (name, origin) == (self.blamed, self.blame)
        if suspect and self.deaths >= DEATHS:
            self._refuse(name, Refused([Finding(file, 0, "has ended the process that reads it, again and again: it "
                                                "needs more memory or time than a list may take")]),
                         source.state, origin)
            return True
        self.store.begin(name, origin, self.deaths if suspect else 0)
        known = self.parts.get(name)
        sample = Sample(terms.key, [known.parts] if known else []) if self.samples is not None else None
        try:
            left_out: list[Finding] = []
            answers: list[Answers] = []
            compiled, doubt = take_compiled(self, source, terms, seconds, suspect)
            if compiled is None:
                with limited(seconds):
                    compiled = take(source, terms, self.before.get(name), self.now, None, self.store.signed(name),
                                    left_out, sample, answers)
                compiled.lists[0].doubt = doubt
            self.room.take(compiled.lists[0])
        except Refused as refused:
            self._refuse(name, refused, source.state, origin)
        except Unsettled:
            self.outcome.again = True
        except ListError as error:      # its owner's have too much
            self._refuse(name, Refused([Finding(file, 0, str(error))]), source.state, origin)
        except OSError as error:        # of the store; those of the list are told as Refused
            self.outcome.again = True
            self._refuse(name, Refused([Finding(file, 0, f"is not taken: {error.strerror}")]), source.state)
        except TooSlow:
            if seconds < seconds_for(size_of(source)):
                return False
            self._refuse(name, Refused([Finding(file, 0, f"takes more than {seconds:.0f} s of processor time to "
                                                "read; split it, or write it in a simpler way")]),
                         source.state, origin)
        except Exception as error:      # one list's fault is one list's, whatever it is
            self._refuse(name, Refused([Finding(file, 0, fault_of(error))]), source.state,
                         "" if isinstance(error, MemoryError) else origin)
            self.outcome.again |= isinstance(error, MemoryError)
        else:
            try:
                before, said = self.parts.get(name), self.store.answers(name)
                self.parts[name] = self.store.keep(compiled, self.now, self.together)
                self.store.keep_answers(name, to_bytes(answers[0]) if answers else b"")
                self.replaced[name] = source, before, said
                if self.samples is not None and sample and not compiled.lists[0].compiled_by:
                    self.samples[name] = sample.entries(room(len(self.samples)))
                self._write_skipped(source, compiled.lists[0], left_out)
            except OSError as error:
                self._refuse_unkept(source, error)
            else:
                if self.together:
                    self.unsettled.append((source, before))
                    if len(self.unsettled) >= TOGETHER_MAX:
                        self._settle()
        return True

    def _refuse_unkept(self, source: ListFile, error: OSError) -> None:
        self.outcome.again = True
        self._refuse(source.name, Refused([Finding(source.path.name, 0, "could be read, but not be kept: "
                                                   f"{self.store.lists}: {error.strerror}")]), source.state)

    # ---- lists whose file is gone

    def _remove_gone(self, there: Collection[str], terms: Terms) -> None:
        gone = [name for name in self.parts if name not in there]
        bound = [name for name in gone if not self._may_go(name, terms)]
        in_force = {name for name, record in self.before.items() if not is_over(record, self.now)}
        before = sum(self.before[name].entries for name in in_force)
        left = [part.parts.lists[0] for name, part in self.parts.items()
                if name not in bound and not is_over(part.parts.lists[0], self.now)]
        fewer, share = before - sum(record.entries for record in left), self.rules.max_shrink
        lists = len(in_force) - len(left)
        why = ""
        if fewer > share * before and fewer > SHRINK_FLOOR:
            why = f"{fewer} of {before} entries of all lists would go"
        elif lists > share * len(in_force) and (lists > 1 or not left):     # what is short is no less an order
            why = f"{lists} of {len(in_force)} lists would go"
        if bound and share < 1 and why:
            for name in bound:
                locked = "max_shrink" in locked_for(name, terms.defaults)
                ways = [f"have unlocked = [\"{name}=max_shrink\"] put into [rules]"] * locked
                if not self._is_meant_to_go(name, replace(terms.defaults, locked=())):
                    ways.append(f"write {name}.toml with max_shrink = 1")
                where = ", and ".join(ways)
                self._refuse(name, Refused([Finding(
                    self.before[name].file or name, 0, f"was removed, and with it {why}, more than a share of "
                    f"{share:.4g}; if that is meant, {where}, and else put the file back")]))
        else:
            self.gone = gone
        self.gone += [name for name in gone if name not in bound and name not in self.gone]
        for name in self.gone:
            del self.parts[name]

    def _may_go(self, name: str, terms: Terms) -> bool:
        record = self.before[name]
        if record.max_shrink >= 1 or not record.entries or is_over(record, self.now):
            return True
        return self._is_meant_to_go(name, replace(terms.defaults, locked=locked_for(name, terms.defaults)))

    def _is_meant_to_go(self, name: str, defaults: ListSettings) -> bool:
        """Whether the NAME.toml that is there says so, and may say all that it says with these defaults."""
        try:
            with limited(SETTINGS_SECONDS):
                settings = read_settings(self.rules.directory / f"{name}.toml", replace(defaults, unlocked=()))
        except (ListError, TooSlow):
            return False
        except Exception as error:      # a fault of ours says nothing of what was meant
            self.outcome.warnings.append(str(Finding(f"{name}.toml", 0, fault_of(error))))
            return False
        return settings.max_shrink >= 1 and why_locked(name, settings, defaults) is None

    # ---- what is in force

    def _publish(self) -> None:
        """Puts what there is in force. A list whose entries are found not to hold stays as it was, and the others are
        tried without it; where that goes on, or it is of no list of now, all stays as it was."""
        for left in reversed(range(PUT_BACK_MAX + 1)):
            try:
                self._publish_once()
                return
            except Untrue as error:
                if not left or not self._put_back(error):
                    self.outcome.problem = self.outcome.problem or f"{error}; the rules in force stay"
                    self.gone = []
                    was = self.top.parts.lists if self.top else []
                    self._tell_in_force(was, was)
                    return

    def _put_back(self, error: "Untrue") -> bool:
        """Has the version before of the list that is to blame, or none, in place of the new one; False where it is of
        no list that is taken now. It is tried again: the fault may be gone, as it is none of the list's own."""
        assert self.trial is not None
        if (name := self.trial.culprit) not in self.replaced:
            return False
        source, before, said = self.replaced.pop(name)
        signed = self.parts[name].parts.lists[0].signed
        try:
            if before is not None:
                self.parts[name] = self.store.keep(before.parts, self.now)
                self.store.keep_answers(name, said)
                self.store.remember(name, signed)       # no older one is taken again
            else:
                del self.parts[name]
                self.store.forget(name)
        except OSError:
            return False
        self.trial.samples.pop(name, None)
        self.outcome.again = True
        self._refuse(name, Refused([Finding(source.path.name, 0, str(error))]), source.state)
        return True

    def _publish_once(self) -> None:
        """Raises Untrue where what would be published does not do what its lists say."""
        in_force = self._in_force()
        was, now = self.top.parts.lists if self.top else None, table_of(in_force)
        nat64 = self.rules.nat64
        if was != now or self.top and self.top.parts.nat64 != nat64:
            def made() -> Compiled:
                self.below = self.base
                if self.base and is_little(in_force, self.base.parts):
                    return lay_over(in_force, self.base.digest, self.base.parts, nat64)
                self._forget_spoilt()
                every = self._in_force()
                part = self.parts.get(every[at].lists[0].name) if (at := largest(every)) >= 0 else None
                if part and self.store.below.put(part):
                    self.below = part
                    return lay_over(every, part.digest, part.parts, nat64)
                return merge(every, nat64)

            merged = made()
            now = now if merged.base else merged.lists
            look = partial(self._try_out, was is None) if self.trial else None
            try:
                try:
                    self.store.publish(merged, self.now, look)
                except OSError as error:
                    if error.errno not in FULL:
                        raise
                    # Commitments give way. The rows of the Merge are spent, so there has to be another.
                    self.store.drop_proofs(0, every=True)
                    self.store.publish(made(), self.now, look)
            except OSError as error:
                why = f"{self.store.snapshot}: cannot be written: {error.strerror}"
                if was is None:
                    raise ListError(why) from None
                # A daemon that starts has nothing better than what was published last.
                self.outcome.problem = self.outcome.problem or f"{why}; the rules in force stay"
                now, self.gone = was, []
        elif self.trial and self.hurry and self.top:        # a start: they were tried by another process, if at all
            self.trial.later = partial(self._sample_unread, True)
            self.trial.hold(self.top)
        self._tell_in_force(was, now)

    def _tell_in_force(self, was: list[ListRecord] | None, now: list[ListRecord]) -> None:
        was, now = canary.lists_of_people(was), canary.lists_of_people(now)
        self.outcome.lists = [told_of(record) for record in now]
        same = repr([(record.name, record.sha256, record.action, record.https, record.mandatory, record.expired,
                      record.clients, record.clients_sum) for record in now])
        self.outcome.content = keyed_sum(same.encode(), self.store.key).hex()
        self.outcome.changes = self._changes({record.name: record for record in was},
                                             {record.name: record for record in now})

    def _try_out(self, nothing: bool, snapshot: Snapshot) -> None:
        """Raises Untrue where the snapshot does not do what its lists say, unless nothing better is in force."""
        assert self.trial is not None
        if snapshot.parts.base and self.below:
            snapshot = stack(snapshot, self.below)
        if nothing or has_same_rows(self.top, snapshot):
            self.trial.hold(snapshot)
            return
        self._sample_unread(False)
        self.trial.same_names = has_same_names(self.top, snapshot, self.were, self.parts)
        if why := self.trial.try_out(snapshot):
            raise Untrue(why)

    def _sample_unread(self, every: bool) -> None:
        """Has a sample of lists that another process has read, or an earlier one: of those that are new in what is to
        come into force, or of every one: what that process has handed on, or else what their files say, which are as
        they were read, or left alone."""
        assert self.trial is not None
        there = {(record.name, record.part) for record in self.top.parts.lists} if self.top and not every else ()
        until = time.monotonic() + SAMPLING
        before = [one.parts for one in (self.top, self.top and self.top.base) if one and not every]
        for name, part in self.parts.items():
            [record] = part.parts.lists
            if name in self.trial.samples or (name, part.digest) in there:
                continue
            source, origin = self.found.get(name, (None, ""))
            most = room(len(self.trial.samples))
            if name in self.handed and self.handed[name].digest == part.digest:
                self.trial.samples[name] = self.handed[name].entries[:most]
            elif source and origin == record.origin and time.monotonic() < until:
                self.trial.samples[name] = sample_of(source, most, self.store.key, part.parts, before)
            else:
                continue
            self.trial.unsure.add(name)

    def _in_force(self) -> list[Compiled]:
        """The last versions of all lists by name, with what the table says of them."""
        for part in self.parts.values():
            [record] = part.parts.lists
            part.parts.lists[0] = replace(record, part=part.digest, expired=is_expired(record, self.now))
            if (one := self.clients.of(record.clients_file)) is not None:
                give(part.parts.lists[0], one)
                part.parts.client_sets = [one]
        every = [self.parts[name].parts for name in sorted(self.parts)]
        return [*every, canary.part(self.store.key)] if self.probed else every

    def _forget_spoilt(self) -> None:
        """What was not verified as it is in memory is about to be read."""
        for name, part in list(self.parts.items()):
            if part.digest not in self.held:
                continue
            try:
                check_whole(part, str(self.store.lists / f"{name}.part"))
            except ListError as problem:
                self.outcome.warnings.append(str(problem))
                self.outcome.again = True
                self.store.forget(name)
                del self.parts[name]

    def _changes(self, was: dict[str, ListRecord], now: dict[str, ListRecord]) -> list[dict[str, Any]]:
        changes = []
        for name in sorted(was.keys() | now.keys()):
            old, new = was.get(name), now.get(name)
            before = old.entries if old else None
            if new is None:
                changes.append({"change": "removed", "list": name, "entries_before": before})
            elif old is None or old.part != new.part:
                digest = keyed_sum(new.sha256.encode(), self.store.key, 16).hex()
                changes.append({"change": "taken", "list": name, "file": new.file, "entries": new.entries,
                                "entries_before": before, "duplicates": new.duplicates, "unusable": new.unusable,
                                "guarded": new.guarded, "exceptions_lost": new.exceptions_lost,
                                **behind(new), **whom(new),
                                "signed": new.signed, "digest": digest, "action": new.action,
                                **({"compiled_by": new.compiled_by} if new.compiled_by else {}),
                                **owner_of(new.uid), **owner_of(new.settings_uid, "settings_")})
            elif old.clients_sum != new.clients_sum:
                changes.append({"change": "clients", "list": name, "file": new.clients_file, "clients": new.clients,
                                "prefixes": new.clients_count, "prefixes_before": old.clients_count})
            if old is not None and new is not None and old.part == new.part and old.expired != new.expired:
                changes.append({"change": "expired", "list": name, "entries_before": before})
        return changes

    def _tell_withdrawn(self) -> None:
        told = {change["list"] for change in self.outcome.changes}
        for name in sorted(self.known.keys() - self.outcome.refused.keys() - told):
            before = self.before.get(name)
            self.outcome.changes.append({"change": "withdrawn", "list": name,
                                         "entries_before": before.entries if before else None})

    # ---- refusals

    def _refuse(self, name: str, refused: Refused, state: os.stat_result | None = None, origin: str = "") -> None:
        if name in self.outcome.refused:
            return
        in_force = name in self.parts or name in self.clients.kept
        if not in_force and len(self.outcome.refused) >= REFUSED_MAX:
            self.untold += 1
            return
        finding = refused.findings[0]
        if state is None:
            state = self._state_of(finding.file)
        why = harmless(finding, WHERE)
        self.reasons[name] = refused, state
        self.outcome.refused[name] = {
            "file": printable(finding.file), "told": str(finding._replace(why=why)), "origin": origin, "where": "",
            "in_force": in_force, "sha256": digest_of(order_file(name, self.rules.directory, self.found)),
            "order": printable(refused.order),
            **owner_of(state.st_uid if state else None)}

    def _state_of(self, file: str) -> os.stat_result | None:
        try:
            return os.lstat(self.rules.directory / file)
        except (OSError, ValueError):
            return None

    def write_rejected(self) -> None:
        """The reasons, beside the lists where that can be."""
        for name, (refused, state) in self.reasons.items():
            one = self.outcome.refused[name]
            one["where"] = str(self._write_rejected(name, refused, state))
            one["told"] = one["told"].replace(WHERE, printable(one["where"]) or "edgeblock lint")
        self.reasons.clear()

    def _write_rejected(self, name: str, refused: Refused, state: os.stat_result | None) -> Path | str:
        part = self.parts.get(name)
        stays = "there is no version before it, so nothing of it is in force"
        if part:
            stays = f"the version of {when(part)} with {part.parts.lists[0].entries} entries stays in force"
        elif name in self.clients.kept:
            stays = f"the version before it with {self.clients.kept[name].set.prefixes} prefixes stays in force"
        ask = f"`edgeblock lint {self.rules.directory}`"
        what = "file of clients" if name in self.clients.refused else "list"
        whole = [f"{MARK.decode()}{what}; {stays}.", *map(str, refused.findings)]
        # There is no plain text of a list in the state directory.
        told = [whole[0]] + [
            str(one._replace(why=harmless(one, ask))) for one in refused.findings]
        if refused.more:
            more = f"and {refused.more} more; {ask} names them all"
            whole.append(more)
            told.append(more)
        # No more readable than what it quotes. Where it quotes nothing the group of those who drop lists may read it:
        # a list that its owner alone may read is refused for that, and he has to learn it.
        mode = state.st_mode & 0o664 | 0o600 if state and stat.S_ISREG(state.st_mode) else 0o640
        if not any(map(has_words, refused.findings)):
            mode |= 0o040
        for folder, lines in ((self.rules.directory, whole), (self.store.rejected, told)):
            where = folder / f"{name}.rejected"
            text = ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
            try:
                if read_ours(where, len(text) + 1) != text:
                    write_file(where, partial(write_to, text), mode=mode, sync=False)
            except (OSError, ValueError):
                continue            # read-only for us, or full, or there is something that is not ours to replace
            return where
        return ""

    def _write_skipped(self, source: ListFile, record: ListRecord, left_out: list[Finding]) -> None:
        """What is left out of a taken list, in NAME.skipped beside it and nowhere else: it quotes the list."""
        where = self.rules.directory / f"{source.name}.skipped"
        count = record.guarded + record.unusable + record.exceptions_lost
        mine = read_ours(where, len(SKIPPED)) == SKIPPED
        try:
            if not left_out and not (count and record.compiled_by):
                if mine:
                    where.unlink()
                return
            lines = [f"{SKIPPED.decode()}; the rest of it is in force.", *map(str, left_out)]
            if not left_out:
                lines.append(f"{count} entries or lines; it was compiled elsewhere, and `edgeblock lint "
                             f"{self.rules.directory}` names them")
            elif count > len(left_out):
                lines.append(f"and {count - len(left_out)} more; `edgeblock lint {self.rules.directory}` has them")
            text = ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
            mode = source.state.st_mode & 0o664 | 0o600 if source.state else 0o640
            if mine or not os.path.lexists(where):
                write_file(where, partial(write_to, text), mode=mode, sync=False)
        except (OSError, ValueError):
            pass                    # read-only for us, or full: the counts are told all the same

    def _clear_rejected(self) -> None:
        wanted = {one["where"] for one in self.outcome.refused.values()}
        wanted |= {str(self.rules.directory / f"{name}.skipped") for name in self.parts}
        for folder in (self.rules.directory, self.store.rejected):
            try:
                names = os.listdir(folder)
            except OSError:
                continue
            for name in names:
                path = folder / name
                # Of a process that was killed.
                left = name.startswith(".") and name.endswith(".tmp") and (
                    ".rejected." in name or ".skipped." in name)
                try:
                    if left or name.endswith((".rejected", ".skipped")) and not is_unfinished(name) \
                            and str(path) not in wanted and read_ours(path, len(MARK)) in (MARK, SKIPPED[:len(MARK)]):
                        path.unlink()
                except OSError:
                    continue


def refused_as(file: str) -> str:
    """Under which name a file that cannot be used is refused: that of its list, but not that of a clients file."""
    name = list_name(file)
    return file if name.endswith(CLIENTS) else name


def order_file(name: str, directory: Path, found: Mapping[str, tuple[ListFile, str]]) -> Path | None:
    """The file of an order; None where it is none, by its name where its settings cannot be read."""
    if name in found:
        source, _ = found[name]
        return source.path if source.settings.format == "order" else None
    every = (directory / f"{name}{ORDER}{packed}" for packed in ("", *SUFFIXES))
    return next(filter(os.path.lexists, every), None)


def digest_of(path: Path | None) -> str:
    """Of an order that is refused, for who has dropped it and reads the answer; "" of other lists."""
    if path is None:
        return ""
    try:
        with open_regular(path) as file:
            text = file.read(ORDER_MAX + 1)
    except (ListError, OSError):
        return ""
    return sha256(text).hexdigest() if len(text) <= ORDER_MAX else ""


# What was compiled elsewhere ---------------------------------------------------------------------------------

def take_compiled(one: Round, source: ListFile, terms: Terms, seconds: float,
                  suspect: bool) -> tuple[Compiled | None, str]:
    """What was compiled elsewhere, where it can be taken instead of reading the list; or why it is not taken,
    "" where there is nothing. It has as many seconds as the list, and whatever it raises is no reason to refuse
    that. TooSlow where there is more time elsewhere."""
    file = f"{source.name}{COMPILED}"
    if suspect and one.deaths:
        return None, f"{file}: is not taken, as the process before has ended with this list"
    try:
        with limited(seconds):
            return precompiled.take(source, terms, one.before.get(source.name), one.now,
                                    partial(nameless, one.store.lists), one.store.signed(source.name)), ""
    except Unsettled:
        raise
    except precompiled.Doubt as why:
        return None, f"{file}: is not taken, and the list is read: {why}"
    except TooSlow:
        if seconds < seconds_for(size_of(source)):
            raise
        return None, f"{file}: is not taken, and the list is read: it takes more than {seconds:.0f} s to verify"
    except Exception as error:      # a fault of one list's, and not even of that
        return None, f"{file}: is not taken, and the list is read: {fault_of(error)}"


# Whom lists are for ------------------------------------------------------------------------------------------

def apart(one: Round, step: Callable[[Round, list[ListFile]], None], files: list[ListFile]) -> None:
    """A fault of clients files, whatever it is, stops no list."""
    try:
        step(one, files)
    except Exception as error:          # lists go on without
        one.outcome.warnings.append(f"{one.rules.directory}: whom lists are for {fault_of(error)}")


def take_clients(one: Round, files: list[ListFile]) -> None:
    """Takes in the clients files that lists name, or that those in force do."""
    clients = one.clients
    named = {source.settings.clients_file for source in files} | {
        record.clients_file for record in one.before.values()}
    known = {file: told["origin"] for file, told in one.known.items()
             if file in named and told["origin"] and not one.afresh and is_there(told.get("where", ""))}
    clients.look(named - {""}, one.busy_files, known, ROUND)
    for file in clients.fresh:
        try:
            one.store.keep_clients(file, clients.kept[file])
        except OSError as error:        # in force it is all the same
            one.outcome.warnings.append(f"{one.store.clients / file}: cannot be written: {error.strerror}")
    one.outcome.again |= clients.again


def leave_unbound(one: Round) -> None:
    """A list is in force for those it is meant for, or not at all."""
    for name, record in one.before.items():
        if record.clients_file and record.clients_file not in one.clients.kept and name in one.parts:
            del one.parts[name]
            one.outcome.warnings.append(f"{name}: is not in force: nobody knows for whom, as {record.clients_file} "
                                        "is lost; drop that file again")


def tell_clients(one: Round, files: list[ListFile]) -> None:
    """What is refused of those that lists name now is told under the name of the file; others are forgotten."""
    clients = one.clients
    one.named = {source.settings.clients_file for source in files} | {
        part.parts.lists[0].clients_file for part in one.parts.values()}
    for file in one.named & (clients.waiting | one.busy_files) & one.known.keys():
        one.outcome.refused[file] = one.known[file]
    for file in one.named & clients.refused.keys():
        finding, origin = clients.refused[file]
        if finding is None:
            one.outcome.refused[file] = one.known[file]
        elif finding.line or file in clients.kept:      # else the lists that name it say why
            one._refuse(file, Refused([finding, *clients.others.get(file, ())]), origin=origin)


class Untrue(ListError):
    """A snapshot does not do what its lists say."""


def read_ours(path: Path, size: int) -> bytes:
    """The beginning of a file that may be anybody's, and anything; b"" where it is no file."""
    if not os.path.lexists(path):
        return b""
    try:
        with open_regular(path) as file:
            return file.read(min(size, REJECTED_MAX))
    except ListError:
        return b""


def is_there(where: str) -> bool:
    try:
        return bool(where) and stat.S_ISREG(os.lstat(where).st_mode)
    except (OSError, ValueError):
        return False


def write_to(text: bytes, file: BinaryIO) -> None:
    file.write(text)


def size_of(source: ListFile) -> int:
    return source.state.st_size if source.state else 0


def owner_id(source: ListFile) -> int:
    return source.state.st_uid if source.state else 0


def when(part: Snapshot) -> str:
    return f"{datetime.fromtimestamp(part.built, UTC):%Y-%m-%d %H:%M:%S} UTC"


def is_expired(record: ListRecord, now: float) -> bool:
    return record.expires is not None and record.expires <= now


def is_over(record: ListRecord, now: float) -> bool:
    """Whether it is out of force for good: only then may its file go unasked."""
    return is_expired(record, now) or record.window.ends <= now


def has_words(finding: Finding) -> bool:
    """Whether it may quote a list: a line may be a listed name, and what stands in settings one that is allowed."""
    return finding.line > 0 or finding.file.endswith(".toml")


def harmless(finding: Finding, where: str) -> str:
    """What may be said of a reason to anybody: of one that quotes a list which guard rail it is, and where the rest
    is."""
    if not has_words(finding) or finding.plain:
        return finding.plain or finding.why
    found = OVERRIDE.search(finding.why)
    return f"cannot be used; {where} says why" + (f" ({found[1]})" if found else "")


def owner_of(uid: int | None, prefix: str = "") -> dict[str, Any]:
    """Who has put a file there, as far as the file system knows: the user id, and the name where there is one."""
    owner = None
    with suppress(KeyError):
        owner = pwd.getpwuid(uid).pw_name if uid is not None else None
    return {f"{prefix}uid": uid, f"{prefix}owner": owner}


def behind(record: ListRecord) -> dict[str, Any]:
    """What the box had seen behind the addresses of a list, where it has any; None is that nobody knew."""
    told = ("address_entries", "names_behind", "names_shared", "flows_behind", "subscribers_share")
    return {name: getattr(record, name) for name in told if record.address_entries}


def whom(record: ListRecord) -> dict[str, Any]:
    """Whom a list is for, where that is not everybody."""
    return {"clients": record.clients, "prefixes": record.clients_count} if record.clients else {}


def told_of(record: ListRecord) -> dict[str, Any]:
    told = {name: getattr(record, name)
            for name in ("name", "file", "action", "entries", "duplicates", "unusable", "guarded", "exceptions_lost",
                         "expires", "expired", "origin", "clients", "clients_count", "root", "leaves")}
    return told | {"window": window_text(record.window)}
