"""A snapshot is tried before it is in force: some of its entries, through the engine, behind every disguise we know.

In: the configuration, a snapshot, entries of its lists in plain text. Out: how many were tried and held, and what got
through or was blocked beside one: which list and rule, never which name. What ought to become of each is read row by
row (blocklist/rows.py), by nothing that the engine uses. Runs in the process that compiles lists, and ends with it.
Never here: a packet of anybody, or a word of a list in what is told.
"""

import ipaddress
import math
import random
import string
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

from edgeblock.blocklist import canary
from edgeblock.blocklist.directory import fault_of
from edgeblock.blocklist.fingerprint import Kind, fingerprint
from edgeblock.blocklist.formats import Entry
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.parts import rule_number
from edgeblock.blocklist.rows import Rows, Verdict
from edgeblock.blocklist.snapshot import Snapshot
from edgeblock.config import Config, Limits, Policies
from edgeblock.core.decision import Decision
from edgeblock.disguises.packets import address as packed
from edgeblock.disguises.streams import Path
from edgeblock.disguises.table import ADDRESSES, DISGUISES, Ask, Disguise
from edgeblock.engine import make_engine

REST = 5                # times as long as before it is in force a snapshot may be tried afterwards
APART = 10.0            # seconds of the engine's clock between two connections: no budget of one is the other's
PROVEN = 2              # flag of Engine.judge: the sender has proved his address
HOST_MAX = 240          # bytes of a host that is tried: with what stands around it, longer ones are no names
TRIES = 16              # to find an address that is on no list
# Where both ends of the connections lie, IPv4 and IPv6: for tests, for documentation, private. Lists may have them.
SUBSCRIBERS = ("10.0.0.0", "172.20.0.0", "192.168.0.0"), ("2001:db8::", "fd00::", "2001:2::")
SERVERS = ("198.18.0.0", "198.19.0.0", "172.21.0.0"), ("2001:2::", "2001:db8::", "fd01::")
PLAIN = frozenset(string.ascii_lowercase.encode() + string.digits.encode() + b"-._")
PLAIN_TARGET = PLAIN | frozenset(b"/~+,=&:@!$'()*" + string.ascii_uppercase.encode())
# Counters that rise where a limit was reached, so that a policy has decided.
BOUNDS = ("overflows", "rereading_refused", "window_full", "no_memory", "overworked", "unparsable", "midstream",
          "quic_refused_flow", "quic_refused_worker", "quic_beyond")


class Judge(Protocol):
    """What the engine is here."""

    def judge(self, packet: bytes, now: float, flags: int = 0) -> Decision: ...

    def counters(self) -> dict[str, int]: ...


Make = Callable[[Config, ListMatcher], Judge]


@dataclass
class Counts:
    """Of one list. `tried` names had to be blocked or reported, and `held` were; `beside` had to pass, and
    `over_blocked` did not."""

    tried: int = 0
    held: int = 0
    beside: int = 0
    over_blocked: int = 0


class Case(NamedTuple):
    """Something that a client asks for, and what has to become of it. Of an address `destination` is the whole; of a
    name it is where that leads, b"" where that does not count."""

    verdict: Verdict
    ask: Ask
    destination: bytes = b""
    port: int = 0


class SelfCheck:
    """Tries one snapshot (sample.Trial); `told` says what came of it."""

    def __init__(self, config: Config, make: Make = make_engine, seed: int | None = None) -> None:
        self.config, self.make = config, make
        self.chance = random.Random(seed)
        self.samples: dict[str, list[Entry]] = {}
        self.unsure: set[str] = set()
        self.culprit = ""
        self.same_names = False
        self.blocking = ""          # the list that has blocked what had to pass
        self.later: Callable[[], None] | None = None
        self.counts: dict[str, Counts] = {}
        self.problem = ""           # what got through, or was blocked beside it
        self.fault = ""             # why nothing can be said
        self.refused = False
        self.rows: Rows | None = None
        self.turns: Iterator[bool] | None = None
        self.lenient = (config.limits, config.policies) != (Limits(), Policies())
        self.number = 0

    # ---- what refresh.py asks

    def hold(self, snapshot: Snapshot) -> None:
        """It is in force, whatever is found; it is tried in `rest`."""
        if not self.config.rules.self_check:
            return
        try:
            self._hold(snapshot)
        except Exception as error:          # a fault of the trial, such as no memory, keeps no daemon from starting
            self.fault, self.rows = fault_of(error), None

    def _hold(self, snapshot: Snapshot) -> None:
        self.rows, self.matcher = Rows(snapshot), ListMatcher(snapshot)
        self.matcher.anyhow = True      # an entry is tried now, or not at all: whenever it holds, whomever it is for
        self.key = snapshot.key
        self.engine = self.make(self.config, self.matcher)
        self.now = 0.0
        self.decoy = self._letters(12)

    def try_out(self, snapshot: Snapshot) -> str:
        """Why it must not come into force; "" where nothing was found in the time there is."""
        if not self.config.rules.self_check:
            return ""
        until = time.monotonic() + self.config.rules.self_check
        self.problem, self.culprit, self.counts = "", "", {}
        try:
            self._hold(snapshot)
            self.turns = self._plays()
            for covered in self.turns:
                if self.problem or covered or time.monotonic() > until:
                    break
        except Exception as error:          # a fault of the trial is no fault of the lists
            self.fault, self.turns = fault_of(error), None
        self.refused |= bool(self.problem)
        return f"the rules were tried and do not hold: {self.problem}" if self.problem else ""

    def rest(self) -> None:
        """Goes on, while there is time."""
        if not self.config.rules.self_check or self.rows is None or self.problem:
            return
        until = time.monotonic() + REST * self.config.rules.self_check
        try:
            if self.later is not None:
                self.later()
            if self.turns is None:
                self.turns = self._plays()
            for _ in self.turns:
                if self.problem or time.monotonic() > until:
                    return
        except Exception as error:          # likewise
            self.fault = fault_of(error)

    def told(self) -> dict[str, Any]:
        """What came of it since this was asked last."""
        counts, self.counts = self.counts, {}
        return {"lists": {name: list(asdict(one).values()) for name, one in counts.items()}, "problem": self.problem,
                "fault": self.fault, "refused": self.refused}

    # ---- what is tried, in which order

    def _plays(self) -> Iterator[bool]:
        """Tries one entry behind one disguise after the other; yields whether each entry and each disguise of what is
        new has been tried: where that are addresses alone, the disguises of names are left for later. Each turn goes
        through all entries, with other disguises than the one before."""
        tried, begun = self._entries(), set()
        rows = {kind: self._rows(kind) for kind in {is_network(entry) for _, entry in tried}}
        steps = {kind: step(sum(is_network(entry) is kind for _, entry in tried), len(rows[kind])) for kind in rows}
        new = {True} & rows.keys() if self.same_names else \
            {is_network(entry) for name, entry in tried if name != canary.LIST} or rows.keys()
        wanted = {row.name for kind in new for row in rows[kind]}
        for turn in range(max(map(len, rows.values()), default=0)):
            numbers = {True: 0, False: 0}
            for name, entry in tried:
                kind = is_network(entry)
                mine = rows[kind]
                if turn < len(mine):
                    row = mine[(turn * steps[kind] + numbers[kind]) % len(mine)]
                    numbers[kind] += 1
                    begun.add(row.name)
                    self._play(name, entry, row)
                    yield turn > 0 and begun >= wanted

    def _entries(self) -> list[tuple[str, Entry]]:
        """One of each list, then a second of each, and so on; the control name, which is always there, first."""
        assert self.rows is not None
        names = {record.name for record in self.rows.lists if not record.expired}
        lists = [[(name, entry) for entry in entries if can_be_asked(entry)]
                 for name, entries in self.samples.items() if name in names]
        if canary.LIST in names:
            lists.insert(0, [(canary.LIST, Entry(0, Kind.HOST, canary.control_name(self.key).encode()))])
        return [one[i] for i in range(max(map(len, lists), default=0)) for one in lists if i < len(one)]

    def _rows(self, network: bool) -> list[Disguise]:
        ports = self.config.ruleset
        rows = [row for row in (ADDRESSES if network else DISGUISES)
                if (ports.udp_ports if row.proto == "quic" else ports.tcp_ports or network)
                and not (row.overflows and self.config.policies.conflict == "pass")
                and not ("ech" in row.name and self.config.policies.ech != "accept")]
        plain = [row for row in rows if row.name.endswith(" whole")][:3]
        self.chance.shuffle(rows)
        return plain + [row for row in rows if row not in plain]

    # ---- one entry behind one disguise

    def _play(self, name: str, entry: Entry, row: Disguise) -> None:
        assert self.rows is not None
        if not self.rows.has(name, entry.kind, entry.key, entry.exception):
            if name not in self.unsure:
                self.problem, self.culprit = f"{self._rule(name, entry)} is not in the rules that were made", name
            return
        counts = self.counts.setdefault(name, Counts())
        for case in self._cases(entry, row):
            listed = case.verdict.blocks or case.verdict is Verdict.OBSERVE
            family = self.number % 2 if not case.destination else len(case.destination) == 16
            wrong = self._judge(self.engine, case, row, bool(family))
            if wrong is None:
                continue                    # the disguise does not fit, or a policy has decided
            if wrong:                       # once more, by an engine that has seen nothing
                wrong = self._judge(self.make(self.config, self.matcher), case, row, bool(family)) or ""
            counts.tried += listed
            counts.held += listed and not wrong
            counts.beside += not listed
            counts.over_blocked += not listed and bool(wrong)
            if wrong:
                which = "a neighbour, which is not listed, of " if case.verdict is Verdict.NOTHING else ""
                self.culprit = self.blocking or name
                self.problem = f"{which}{self._rule(name, entry)} {wrong} ({row.name}, IPv{6 if family else 4})"

    def _rule(self, name: str, entry: Entry) -> str:
        rule = rule_number(fingerprint(self.key, entry.key), entry.kind)
        return f"rule {rule:08x} of the list {name}" if name != canary.LIST else "the canary's control name"

    def _cases(self, entry: Entry, row: Disguise) -> Iterator[Case]:
        """What the entry is about, and what stands beside it and is on no list."""
        assert self.rows is not None
        if is_network(entry):
            yield from self._addresses(entry)
            return
        if entry.kind >= Kind.HOST_AT:
            yield from self._places(entry, row)
            return
        asked = self._asked(entry)
        yield Case(self.rows.name(row.proto, asked.host, asked.target), asked)
        for beside in self._beside(entry, asked):
            if self.rows.name(row.proto, beside.host, beside.target) is Verdict.NOTHING:
                yield Case(Verdict.NOTHING, beside)
                return

    def _asked(self, entry: Entry) -> Ask:
        label = self._letters(6) + b"."
        host, slash, rest = entry.key.partition(b"/")
        if entry.kind is Kind.SUBDOMAINS or entry.kind is Kind.HOST and self.chance.random() < 0.3:
            host = label + host
        target = slash + rest or b"/"
        if entry.kind is Kind.DIRECTORY:
            target = target.rstrip(b"/") + b"/" + self._letters(6)
        return Ask(host, target, bool(slash))

    def _beside(self, entry: Entry, asked: Ask) -> Iterator[Ask]:
        if entry.kind >= Kind.URL_WITH_QUERY:
            folder = asked.target.partition(b"?")[0].rpartition(b"/")[0]
            if entry.kind is Kind.DIRECTORY and folder:         # what only begins like it
                yield Ask(asked.host, folder + self._letters(8), True)
            for _ in range(2):
                yield Ask(asked.host, folder + b"/" + self._letters(8), True)
                folder = b""
        elif entry.kind is Kind.HOST_ONLY:
            yield Ask(self._letters(6) + b"." + entry.key)
        else:
            above = entry.key.partition(b".")[2]
            yield Ask(self._letters(9) + (b"." + above if above else b""))
        yield Ask(self._letters(9) + b".example")

    def _addresses(self, entry: Entry) -> Iterator[Case]:
        assert self.rows is not None
        size = 4 if len(entry.key) < 16 else 16
        port = int.from_bytes(entry.key[2 + size:]) or self._port("tls")
        listed, *beside = self._around(entry.key)
        yield Case(self.rows.address(listed, port), Ask(b""), listed, port)
        for address in beside:
            if self.rows.address(address, port) is Verdict.NOTHING:
                yield Case(Verdict.NOTHING, Ask(b""), address, port)
                return

    def _around(self, key: bytes) -> list[bytes]:
        """An address in the prefix that a key stands for, and those next to it."""
        size = 4 if len(key) < 16 else 16
        first, wide = int.from_bytes(key[2:2 + size]), 1 << 8 * size - key[1]
        numbers = [first + self.chance.randrange(wide), first + wide, first - 1]
        return [number.to_bytes(size) for number in numbers if 0 <= number < 1 << 8 * size]

    def _places(self, entry: Entry, row: Disguise) -> Iterator[Case]:
        """A host where it leads to an address, and where it leads to the next one."""
        assert self.rows is not None
        host, zero, place = entry.key.partition(b"\0")
        asked = self._asked(Entry(entry.line, Kind(entry.kind - Kind.HOST_AT + Kind.HOST), host))
        inside, *beside = self._around(zero + place)
        for address in (inside, *beside):
            verdict = self.rows.name(row.proto, asked.host, asked.target, address)
            if self.rows.address(address, self._port(row.proto)) is Verdict.NOTHING and (
                    address == inside or verdict is Verdict.NOTHING):
                yield Case(verdict, asked, address)

    def _judge(self, engine: Judge, case: Case, row: Disguise, six: bool) -> str | None:
        """What is wrong; "" where nothing is, None where nothing can be said."""
        assert self.rows is not None
        path = self._path(case, row, six)
        if path is None or not case.destination and self._is_about(case, row, path):
            return None                     # whatever addresses it has, some list has them, or the name there
        before = engine.counters()
        decisions = []
        self.blocking = ""
        self.now += APART
        try:
            packets = list(row.make(case.ask, path, self.chance))
        except (ValueError, AssertionError, IndexError, OverflowError):
            return None                     # what it cannot be made of
        for packet in packets:
            if isinstance(packet, tuple):
                self.now, packet = self.now + packet[0], packet[1]
            decisions.append(engine.judge(packet, self.now, PROVEN))
        if not packets:
            return None
        stopped = [one for one in decisions if not one.accept and (
            one.action != "accept" or any(name.policy for name in one.names))]
        if case.verdict.blocks:
            return "" if stopped else None if self._is_a_policy(engine, before, row) else "passes"
        if case.verdict is Verdict.OBSERVE:
            told = any(name.action == "observe" for one in decisions for name in one.names)
            return "" if told or stopped else None if self._is_a_policy(engine, before, row) else "is not reported"
        return self._why_stopped(stopped, case, row)

    def _is_about(self, case: Case, row: Disguise, path: Path) -> bool:
        """Whether an entry for the name at an address says something else of where it leads now."""
        assert self.rows is not None
        return any(self.rows.at_lengths.values()) and case.verdict is not self.rows.name(
            row.proto, case.ask.host, case.ask.target, packed(path.settings["destination"]))

    def _why_stopped(self, stopped: list[Decision], case: Case, row: Disguise) -> str | None:
        """Of what had to pass."""
        for name in (name for one in stopped for name in one.names):
            if name.policy:
                return None if self.lenient or not row.name.endswith(" whole") else "is blocked"
            if name.list is None or name.action in ("accept", "observe"):
                continue
            # Only what was asked for counts. A decoy beside it, or what else some server makes of these bytes, may be
            # on a list, and whoever writes one may have put it there.
            host, target = (name.host or "").encode(), (name.path or "/").encode()
            asked = case.destination != b"" if name.proto == "ip" else host == case.ask.host and (
                name.proto != "http" or target == case.ask.target)
            self.blocking = name.list
            return "is blocked" if asked else None
        return "is blocked" if stopped and row.name.endswith(" whole") and not self.lenient else \
            None if stopped else ""

    def _is_a_policy(self, engine: Judge, before: dict[str, int], row: Disguise) -> bool:
        """Whether the operator's limits and policies have let it pass."""
        after = engine.counters()
        return self.lenient and any(after[name] > before[name] for name in BOUNDS) or row.overflows

    def _path(self, case: Case, row: Disguise, six: bool) -> Path | None:
        """Two ends that are on no list, but for an address that is tried; None where none are found."""
        self.number += 1
        port, sport = case.port or self._port(row.proto), self.chance.randrange(1024, 65536)
        source = self._unlisted(SUBSCRIBERS[six], port, sport)
        destination = case.destination or self._unlisted(SERVERS[six], port, sport)
        if not source or not destination:
            return None
        return Path(six, self.chance.getrandbits(32), port, self.decoy, source=shown(source),
                    destination=shown(destination), sport=sport)

    def _unlisted(self, networks: tuple[str, ...], *ports: int) -> bytes:
        """An address in one of these /16 or /32, b"" where the lists have them."""
        assert self.rows is not None
        for _ in range(TRIES):
            base = packed(self.chance.choice(networks))
            own = 2 if len(base) == 4 else 4
            one = base[:own] + self.chance.randbytes(len(base) - own)
            if self.rows.address(one, *ports) is Verdict.NOTHING:
                return one
        return b""

    def _port(self, proto: str) -> int:
        ports = self.config.ruleset.udp_ports if proto == "quic" else self.config.ruleset.tcp_ports
        usual = 80 if proto == "http" else 443
        return usual if isinstance(ports, str) or usual in ports or not ports else ports[0]

    def _letters(self, count: int) -> bytes:
        return "".join(self.chance.choices(string.ascii_lowercase, k=count)).encode()


def step(entries: int, rows: int) -> int:
    """How much further each turn begins among the rows: past those that the last one has used, and so that in as many
    turns as there are rows every entry has each."""
    return next(by for by in range(max(1, entries), entries + rows + 2) if math.gcd(by, rows) == 1) if rows else 1


def is_network(entry: Entry) -> bool:
    return entry.kind in (Kind.NETWORK, Kind.ENDPOINT)


def can_be_asked(entry: Entry) -> bool:
    """Whether a client can say just that, and nothing has more than one reading."""
    if is_network(entry):
        return True
    host, slash, target = entry.key.partition(b"\0")[0].partition(b"/")
    return len(host) <= HOST_MAX and set(host) <= PLAIN \
        and set(slash + target.replace(b"?", b"", 1)) <= PLAIN_TARGET | {63} \
        and b"/." not in slash + target and b"//" not in slash + target


def shown(address: bytes) -> str:
    return str(ipaddress.ip_address(address))
