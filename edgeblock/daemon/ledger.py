"""What the daemon records in the ledger: lists, rules in force, windows, whether the box filters, what its probes
show.

In: what the supervisor's parts say of themselves, a few times a second, and what becomes of the lists. Out: records
(edgeblock/ledger/kinds.py) to a writer with a thread of its own; nobody waits for it. Never here: a name, an address,
a subscriber, or the words of a refusal, which may have some: a code for each.
"""

import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple

import edgeblock
from edgeblock.blocklist.formats import find_format
from edgeblock.config import Config
from edgeblock.daemon.compiler import Loaded
from edgeblock.daemon.fetcher import Changes
from edgeblock.daemon.windows import Turn
from edgeblock.ledger.book import Book
from edgeblock.ledger.heads import Signed
from edgeblock.ledger.heads import told as head_told
from edgeblock.ledger.place import directory_of
from edgeblock.ledger.prove import Row, row_of, table_root
from edgeblock.ledger.records import LINE_MAX, canonical, moment
from edgeblock.ledger.writer import LAST_WORDS, Ledger

PULSE = 600.0           # seconds between two records that say that the daemon is there
STEP = 0.5              # seconds by which a clock has to be set to be recorded
MINUTE = 60.0           # between two records of packets that went by unread
PATIENCE = 15.0         # seconds after which rules that not every worker has are recorded so
HANDING_OVER = 0.3      # seconds that the end of the ledger may take while packets wait for the next daemon
CHANGED_MAX = 1000      # lists that one record of rules in force names
DAILY_MAX = 2000        # records of files, and of refusals, in a day: who may write lists is not to fill the ledger
TABLE_MAX = 2000        # lists that one record of all names
BYTES_MAX = LINE_MAX // 2       # of the lists that one record names
COUNTS = ("span", "filtering", "canary_rounds", "canary_ok", "proven", "lost", "full")
BESIDE = (".toml", ".minisig", ".clients")      # of a file that belongs to a list
# By whom a cause of not filtering is seen (vigil.State), and its code.
CAUSES = {"rules": "rules", "often": "rules", "addresses": "addresses", "queues": "queues", "shortcut": "shortcut",
          "canary": "canary", "canary of addresses": "canary"}
# What a refusal says, and its code: the first that is found.
# Words of their own: a file's name, or an entry that it quotes, has them as parts of names.
REASONS = tuple((re.compile(rf"(?<![\w.-])(?:{words})(?![\w-]|\.\w)"), code) for words, code in (
    (r"sign(ed|er|ers|ature|atures)", "signature"),
    (r"was removed, and with it", "removal"),
    (r"were tried|does? not hold|do not hold|not blocked|in force stay$", "untrue"),
    (r"could be read, but not be kept|cannot be written|No space left", "disk"),
    (r"allow_\w+|widest_\w+|max_collateral|max_guarded|public suffix|protected|shared|guard(ed|s)?", "guard rail"),
    (r"max_growth|max_shrink|grew|shrank|fewer|more entries than", "change"),
    (r"max_unparsable|of the lines", "unparsable"),
    (r"is longer than|more than \d+ entries|too long|too slow|of processor time", "size"),
    (r"UTF-\d+|encoding|decoded?", "encoding"),
    (r"cannot be read|cannot be opened|No such file|Permission|is no (regular )?file", "unreadable"),
    (r"formats?|is no (list|JSON)|looks like", "format"),
    (r"[\w.-]+\.toml|locked|settings?|key '\w*'?", "settings"),
))
PROBES = (("listed name passes", "canary"), ("listed address passes", "canary"), ("is blocked", "blocked"))


def code_of(why: str) -> str:
    """The code of a refusal, by its words."""
    return next((code for words, code in REASONS if words.search(why)), "other")


def probe_code(wrong: str) -> str:
    return next((code for words, code in PROBES if words in wrong), "silent") if wrong else ""


def digest_of(config: Config) -> str:
    """SHA-256 of the settings in force."""
    return sha256(canonical(plain(asdict(config)))).hexdigest()


def plain(said: Any) -> Any:
    """The same without what canonical JSON has no spelling for."""
    if isinstance(said, dict):
        return {str(name): plain(value) for name, value in said.items()}
    if isinstance(said, list | tuple):
        return [plain(one) for one in said]
    return said if said is None or isinstance(said, str | bool | int) else str(said)


class Sources(NamedTuple):
    """What is asked a few times a second. `in_kernel` is None while some addresses come or go; `renamed` is when a
    file of the rules directory came there, Unix microseconds, None where nobody saw it."""

    have_rules: Callable[[], bool]
    in_kernel: Callable[[], bool | None]
    causes: Callable[[], dict[str, str]]
    canary: Callable[[], tuple[int, dict[tuple[int, str], str]]]
    bypasses: Callable[[], list[str]]
    restarts: Callable[[], dict[int, int]]
    unread: Callable[[], tuple[int, int]]
    renamed: Callable[[str], int | None]
    fetch: Callable[[], dict[str, Any]] = lambda: {"state": "none", "sources": {}}


class Waiting(NamedTuple):
    """Rules that workers and kernel are given: what is to be said when they have them."""

    loaded: Loaded
    given: float            # Unix seconds
    changed: list[str]
    began: float            # monotonic seconds
    told: bool = False      # that not everybody has them


class Ration:
    """Of what anybody who may write lists can have made as often as he likes: so many records a day."""

    def __init__(self, record: Callable[..., None]) -> None:
        self._record = record
        self._made: Counter[str] = Counter()    # records of today
        self._more: Counter[str] = Counter()    # and those that were not made

    def record(self, kind: str, /, **fields: Any) -> None:
        self._made[kind] += 1
        if self._made[kind] > DAILY_MAX:
            self._more[kind] += 1
        else:
            self._record(kind, **fields)

    def tell(self) -> None:
        """How many more there were."""
        for kind, count in self._more.items():
            self._record("unrecorded", kind=kind, count=count)
        self._more.clear()

    def begin_day(self) -> None:
        self._made.clear()


class Recorder:
    """Everything happens in the event loop's thread. Without a ledger (`[ledger] enabled = false`) nothing does."""

    def __init__(self, config: Config, log: Any, sources: Sources) -> None:
        self._config, self._log, self._ask = config, log, sources
        self.ledger: Ledger | None = None
        if config.ledger.enabled:
            self.ledger = Ledger(Book(directory_of(config), config.ledger.keep_days,
                                      config.ledger.max_megabytes * 1_000_000), self._tell)
        self.fault = ""             # of ours, the last
        self._waiting: Waiting | None = None
        self._refused: dict[str, dict[str, Any]] = {}
        self._problem = self._said = ""
        self._run, self._in_force = secrets.token_hex(4), 0     # how many `in force` records this daemon has made
        self._holding = 0           # the number of the one that holds; 0 where nobody can say
        self._told: dict[str, Any] = {}         # of the rules in force, as the last such record has it
        self._table: list[Row] = []             # of each list in force
        self._is_tabled = False                 # whether these were told, since the start
        self._followed: dict[str, Row] = {}     # the same as who reads the records knows it
        self._causes: dict[str, tuple[str, float]] = {}
        self._results: dict[tuple[int, str], str] = {}
        self._bypasses: dict[str, int] = {}
        self._restarts: dict[int, int] = {}
        self._fetched = Changes()
        self._rounds, self._round_at = 0, 0.0
        self._offset = 0.0
        self._looked = self._pulsed = self._unread_told = 0.0
        self._day = ""
        self._ration = Ration(self._record)
        self._counts, self._today = dict.fromkeys(COUNTS, 0.0), dict.fromkeys(COUNTS, 0.0)
        self._unread = self._unread_said = (0, 0)

    # ---- from its begin to its end

    def begin(self) -> None:
        """The daemon begins."""
        if self.ledger is None:
            return
        self.ledger.start()
        now = time.monotonic()
        self._offset, self._looked, self._pulsed, self._day = clock(), now, now, day_of(time.time())
        self._unread = self._unread_said = self._ask.unread()
        policy = {"overload": self._config.queue.overload, "absent": self._config.ruleset.absent}
        self._record("start", version=edgeblock.__version__, config=digest_of(self._config), clean=None,
                     run=self._run, policy=policy)

    def end(self, handing_over: bool) -> None:
        """It ends, with the last of its records on the disk, if that answers."""
        if self.ledger is None:
            return
        self._count(time.monotonic())
        self._ration.tell()
        self._record("stop", handing_over=handing_over, run=self._run, in_force=self._holding,
                     sums=sums_of(self._counts))
        self.ledger.close(HANDING_OVER if handing_over else LAST_WORDS)

    def status(self) -> dict[str, Any]:
        """For `status` and the metrics."""
        if self.ledger is None:
            return {"state": "off", "problem": "", "head": {},
                    **dict.fromkeys(("records", "last", "waiting", "oldest", "late", "lost"), 0)}
        told = self.ledger.status()
        if self.fault and not told["problem"]:
            told |= {"state": "failed", "problem": self.fault}
        return {**told, "directory": str(self.ledger.directory)}

    def _record(self, kind: str, at: float | None = None, /, **fields: Any) -> None:
        if self.ledger is not None:
            self.ledger.append(kind, at, **fields)

    def _tell(self, head: Signed) -> None:
        self._log.info("ledger head", **head_told(head))

    # ---- lists

    def see(self, files: Mapping[str, tuple[int, ...] | None]) -> None:
        """These files in the rules directory have changed, and are about to be read: inode, size and times in
        nanoseconds; None where one has gone."""
        for name, state in sorted(files.items()):
            if find_format(name) is not None or name.endswith(BESIDE):
                self._ration.record("seen", file=name, renamed=state and moment(state[3] // 1000),
                                    size=state and state[1])

    def take(self, loaded: Loaded, given: float) -> None:
        """These rules are given to kernel and workers, the first of these at that moment (Unix seconds), or what is
        refused has changed."""
        if self.ledger is None:
            return
        if loaded.fd >= 0:
            self._holding = 0
        if not self._safely(self._take, loaded, given) and loaded.fd >= 0:
            self._waiting = None
            self._in_force += 1             # whose record nobody has: nothing is shown across it

    def _take(self, loaded: Loaded, given: float) -> None:
        lists = {one["name"]: one for one in loaded.lists}
        for change in loaded.changes:
            self._change(change, lists.get(change["list"], {}))
        for name, one in loaded.refused.items():
            if self._refused.get(name) != one:
                self._ration.record("refused", list=name, file=one["file"], code=code_of(one["told"]),
                                    in_force=one["in_force"], digest=one["sha256"],
                                    renamed=moment_of(self._came(name, one["file"])))
        self._refused = loaded.refused
        self.keep(loaded.problem)
        if loaded.fd >= 0:
            changed = [change["list"] for change in loaded.changes if change["change"] in ("taken", "clients")]
            if (before := self._waiting) is not None:       # no worker need have had those yet
                changed = list(dict.fromkeys((*before.changed, *changed)))
                given = min(given, before.given)
            self._waiting = Waiting(loaded, given, changed, time.monotonic())

    def keep(self, problem: str) -> None:
        """Why the lists could not be looked at, or no rules be made of them; "" where they could."""
        if problem and problem != self._problem:
            self._record("rules kept", code=code_of(problem))
        self._problem = problem

    def _change(self, change: dict[str, Any], one: dict[str, Any]) -> None:
        name, what = change["list"], change["change"]
        if what == "taken":
            row = row_of(name, one)
            self._followed[name] = row
            known = {field: change.get(field) for field in (
                "file", "entries", "entries_before", "duplicates", "unusable", "guarded", "exceptions_lost", "signed",
                "digest", "action")}
            if row.window:
                known["window"] = row.window
            if row.clients:
                known["clients"] = row.clients
            self._record("taken", list=name, root=row.root, leaves=one.get("leaves", 0),
                         renamed=moment_of(self._came(name, change["file"])), **known | {"action": row.action})
        elif what in ("removed", "expired"):
            self._followed.pop(name, None)
            self._record("removed", list=name, why=what, entries_before=change["entries_before"])
        elif what == "clients":
            self._record("clients", list=name, prefixes=change["prefixes"])
        elif what == "withdrawn":
            self._record("withdrawn", list=name)

    def _came(self, name: str, file: str) -> int | None:
        """When the last of a list's files came there: a new NAME.toml is a new version, too."""
        times = [self._ask.renamed(one) for one in (file, f"{name}.toml", f"{file}.minisig")]
        return max((at for at in times if at is not None), default=None)

    def turn(self, turns: Mapping[str, Turn]) -> None:
        """Windows have opened or closed, and every worker has seen it."""
        for name, one in turns.items():
            self._record("windows", list=name, opened=one.opened, closed=one.closed, whole=one.whole)

    # ---- a few times a second

    def look(self) -> None:
        """What has changed since the last look."""
        if self.ledger is not None:
            self._safely(self._look)

    def _safely(self, work: Callable[..., None], *arguments: Any) -> bool:
        """A fault of the ledger's is told, and stops no filter. Whether there was none."""
        try:
            work(*arguments)
            return True
        except Exception as fault:      # whatever it is
            if not self.fault:
                self._log.error("ledger has a fault", problem=f"{type(fault).__name__}: {fault}")
            self.fault = f"a fault of edgeblock's own: {type(fault).__name__}: {fault}"
            return False

    def _look(self) -> None:
        assert self.ledger is not None
        now = time.monotonic()
        self._look_at_clock()
        self._count(now)
        self.settle()
        self._look_at_state(now)
        self._look_at_canary(now)
        self._look_at_others(now)
        for fields in self._fetched.since(self._ask.fetch()):
            self._ration.record("source", **fields)
        if now >= self._pulsed + PULSE:
            self._pulsed = now
            self._record("pulse", run=self._run, in_force=self._holding, filtering=not self._causes,
                         sums=sums_of(self._counts))
            self._counts = dict.fromkeys(COUNTS, 0.0)
            self._ration.tell()
        if (day := day_of(time.time())) != self._day:
            self._record("day", day=self._day, sums=sums_of(self._today))
            self._tell_table()
            self._ration.tell()
            self._ration.begin_day()
            self._day, self._today = day, dict.fromkeys(COUNTS, 0.0)
        if self.ledger.fault and not self.fault:
            self.fault = self.ledger.fault
            self._log.error("ledger has a fault", problem=self.fault)
        if self.ledger.problem != self._said:
            self._said = self.ledger.problem
            if self._said:
                self._log.error("ledger cannot be written; records wait", problem=self._said)
            else:
                self._log.warning("ledger is written again")

    def settle(self) -> None:
        """Records rules in force, as soon as everybody has them."""
        if self.ledger is not None and self._waiting is not None:
            self._safely(self._settle, self._waiting)

    def _settle(self, one: Waiting) -> None:
        workers, kernel = self._ask.have_rules(), self._ask.in_kernel()
        everywhere = workers and kernel is True
        if not everywhere and (one.told or time.monotonic() < one.began + PATIENCE):
            return
        now, loaded = time.time(), one.loaded
        lists = {each["name"]: each for each in loaded.lists if not each["expired"]}
        came = {name: self._came(name, lists[name]["file"]) for name in one.changed if name in lists}
        changed = [{"list": name, "delay_ms": None if at is None or at > now * 1_000_000 else
                    round(now * 1000) - at // 1000} for name, at in came.items()]
        self._table = [row_of(name, each) for name, each in sorted(lists.items())]
        self._told = {"content": loaded.content, "table": table_root(self._table), "lists": len(lists),
                      "entries": loaded.entries, "workers": workers, "kernel": bool(kernel),
                      "compiled": moment(round(one.given * 1_000_000))}
        self._tell_in_force(now, changed)
        self._waiting = None if everywhere else one._replace(told=True)
        self._holding = self._in_force if everywhere else 0
        if not self._is_tabled or self._followed != {row.name: row for row in self._table}:
            self._tell_table()      # what came of a list's settings, or of its age, is in no record of it

    def _tell_in_force(self, now: float, changed: list[dict[str, Any]]) -> None:
        named = pieces_of(changed, CHANGED_MAX)[0]
        self._in_force += 1
        self._record("in force", now, run=self._run, number=self._in_force, changed=named,
                     more=len(changed) - len(named), **self._told)

    def _tell_table(self) -> None:
        self._followed, self._is_tabled = {row.name: row for row in self._table}, True
        pieces = pieces_of(self._table, TABLE_MAX)
        for part, some in enumerate(pieces, 1):
            self._record("lists", part=part, of=len(pieces), lists=some)

    def _look_at_clock(self) -> None:
        offset = clock()
        if abs(offset - self._offset) > STEP:
            self._record("clock", step_ms=round((offset - self._offset) * 1000))
            self._offset = offset       # only now: many small steps come to one
            if self._told and self._waiting is None:
                self._tell_in_force(time.time(), [])    # from here on they hold by the new clock
                self._holding = self._in_force

    def _look_at_state(self, now: float) -> None:
        causes = self._ask.causes()
        for who in self._causes.keys() - causes.keys():
            self._record("filtering", who=who, after_ms=round((now - self._causes.pop(who)[1]) * 1000))
        for who in causes.keys() - self._causes.keys():
            self._causes[who] = causes[who], now
            self._record("not filtering", who=who, code=CAUSES.get(who, "other"))

    def _look_at_canary(self, now: float) -> None:
        rounds, results = self._ask.canary()
        if rounds == self._rounds:
            return
        fine = bool(results) and not any(results.values())
        self._add(canary_rounds=rounds - self._rounds, canary_ok=int(fine))
        if fine and self._rounds and not any(self._results.values()):
            self._add(proven=now - self._round_at)
        for (family, protocol), wrong in sorted(results.items()):
            if self._results.get((family, protocol), None) is None or \
                    probe_code(self._results[family, protocol]) != probe_code(wrong):
                self._record("canary", family=f"ipv{family}", protocol=protocol, ok=not wrong, code=probe_code(wrong))
        self._rounds, self._round_at, self._results = rounds, now, dict(results)

    def _look_at_others(self, now: float) -> None:
        found: dict[str, int] = dict.fromkeys(self._bypasses, 0)
        for kind in self._ask.bypasses():
            found[kind] = found.get(kind, 0) + 1
        for kind, count in found.items():
            if self._bypasses.get(kind, 0) != count:
                self._record("bypass", kind=kind, count=count)
        self._bypasses = found
        for queue, restarts in self._ask.restarts().items():
            if restarts != self._restarts.get(queue, 0):
                self._record("worker", queue=queue, restarts=restarts)
            self._restarts[queue] = restarts
        if self._unread != self._unread_said and now >= self._unread_told + MINUTE:
            lost, full = (a - b for a, b in zip(self._unread, self._unread_said, strict=True))
            self._record("unread", sums={"lost": lost, "full": full})
            self._unread_told, self._unread_said = now, self._unread

    # ---- sums

    def _count(self, now: float) -> None:
        span, self._looked = now - self._looked, now
        unread = self._ask.unread()
        lost, full = (max(0, a - b) for a, b in zip(unread, self._unread, strict=True))
        self._unread = unread
        self._add(span=span, filtering=0.0 if self._causes else span, lost=lost, full=full)

    def _add(self, **counts: float) -> None:
        for name, count in counts.items():
            self._counts[name] += count
            self._today[name] += count


def sums_of(counts: dict[str, float]) -> dict[str, int]:
    """As a record has them."""
    times = ("span", "filtering", "proven")
    return {f"{name}_ms" if name in times else name: round(count * 1000) if name in times else int(count)
            for name, count in counts.items()}


def moment_of(at: int | None) -> str | None:
    return None if at is None else moment(at)


def pieces_of(some: list[Any], most: int) -> list[list[Any]]:
    """The same in pieces of so many at most, none longer than BYTES_MAX as it is spelt; an empty one for none."""
    made: list[list[Any]] = [[]]
    size = 0
    for one in some:
        size += len(canonical(one)) + 1
        if made[-1] and (len(made[-1]) >= most or size > BYTES_MAX):
            made.append([])
            size = len(canonical(one)) + 1
        made[-1].append(one)
    return made


def clock() -> float:
    """By how much the clock on the wall is before the one that nobody sets."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def day_of(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
