"""A platform that orders by the hour: what it asks, by the bridge that ships, and what it is answered in time.

One hour of the platform's clock; what edgeblock does takes as long as it takes, and counts in it second by second. A
deadline of 30 minutes is that of Italy's platform; beside the orders a list of 300 000 names is replaced with each.
"""

import asyncio
import importlib.util
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgeblock import config
from edgeblock.blocklist.terms import Window
from edgeblock.daemon.compiler import Compiler, close_files
from edgeblock.daemon.outcomes import Outcomes
from edgeblock.daemon.windows import Calendar, Span, Windows
from tests.daemon.parts import Log

BRIDGE = Path(__file__).parents[2] / "docs" / "examples" / "bridge.py"
HOUR, DEADLINE = 3600, 1800
START = 1_800_000_000
PIECES = 20
NAMES, ADDRESSES = 900, 750         # of one piece: 18 000 and 15 000
BIG = 300_000
FIELDS = ("fqdn", "ipv4", "ipv6")


@pytest.fixture(scope="module")
def bridge():
    spec = importlib.util.spec_from_file_location("bridge", BRIDGE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text(at):
    return datetime.fromtimestamp(at, UTC).isoformat()


def ticket(piece, begins, ends):
    names = range(piece * NAMES, (piece + 1) * NAMES)
    addresses = range(piece * ADDRESSES // 2, (piece + 1) * ADDRESSES // 2)
    return {"ticket": f"T-{piece}", "asked_by": "Example Authority", "asked_at": text(begins), "event_start":
            text(begins), "event_end": text(ends), "fqdn": [f"s{one}.stream.example" for one in names],
            "ipv4": [f"198.51.{100 + one // 250}.{one % 250}" for one in addresses],
            "ipv6": [f"2001:db8:{one:x}::/48" for one in addresses]}


class Clock:
    """The platform's: as fast as ours, and set forwards where there is nothing to wait for."""

    def __init__(self):
        self.ahead = START - 60 - time.monotonic()

    def now(self):
        return time.monotonic() + self.ahead

    def skip_to(self, at):
        assert self.now() <= at, "edgeblock was not done in the time of a piece"
        self.ahead += at - self.now()


class Box:
    """What a daemon does with lists and orders, but for packets."""

    def __init__(self, home, clock):
        self.folder, self.clock = home / "rules", clock
        self.folder.mkdir()
        rules = config.Rules(directory=self.folder, key=home / "state" / "key", self_check=0)
        self.compiler = Compiler(rules)
        self.outcomes = Outcomes(rules, Log(), lambda: True, lambda: True, lambda: {})
        self.windows = Windows(Log(), START)
        self.loaded = None
        self.lane = {}
        self.reading = None
        self.big = 0

    def replace_big(self):
        names = [*(f"n{one}.big.example\n" for one in range(BIG)), f"t{time.monotonic_ns()}.example\n"]
        (self.folder / ".big").write_text("".join(names))
        (self.folder / ".big").rename(self.folder / "big.list")

    async def load(self):
        digest, held = (self.loaded.digest, self.loaded.whole) if self.loaded else ("", "")
        loaded = await self.compiler.load((), digest, lane=self.lane, held=held)
        assert not loaded.problem and not loaded.refused, (loaded.problem, loaded.refused)
        close_files(loaded.fd, loaded.base_fd)
        self.big += any(change["list"] == "big" for change in loaded.changes)
        self.loaded = loaded
        self.outcomes.take(loaded)
        if loaded.slow and (self.reading is None or self.reading.done()):
            [(name, origin, uid)] = loaded.slow
            self.lane = {name: {"origin": origin, "uid": uid}}
            self.reading = asyncio.ensure_future(self.read(name))

    async def read(self, name):
        await self.compiler.load_one(name)
        self.lane = {}

    async def look(self):
        self.outcomes.turn(self.windows.look(self.clock.now()))
        self.outcomes._resting.clear()
        await self.outcomes.look(self.clock.now())


@pytest.mark.alone
@pytest.mark.timeout(240)
def test_every_item_of_an_hour_is_answered_long_before_its_deadline(tmp_path, bridge):
    clock = Clock()
    box = Box(tmp_path, clock)
    tickets, due, spans = [], {}, []
    places = (str(tmp_path / "tickets.json"), str(box.folder), str(tmp_path / "answers.json"))
    late = []

    def pass_on():
        (tmp_path / "tickets.json").write_text(json.dumps(tickets))
        bridge.main(*places)
        return json.loads((tmp_path / "answers.json").read_text())

    async def hour():
        for piece in range(PIECES):
            at = START + piece * HOUR // PIECES
            clock.skip_to(at)
            begins, ends = (at, START + 2 * HOUR) if piece % 2 else (at + 60, START + HOUR - 60 + piece)
            tickets.append(ticket(piece, begins, ends))
            spans.append(Span(f"platform-T-{piece}", Window(begins, ends), NAMES + ADDRESSES))
            box.windows.take(Calendar(spans), at)
            due[f"T-{piece}"] = begins + DEADLINE
            pass_on()
            box.replace_big()
            await box.load()
            await box.look()
            answers = pass_on()
            for name, told in answers.items():
                states = {state for state, _, _ in told.values()}
                if states != {"in force"} and clock.now() > due[name] - DEADLINE + 190 and states != {"ended"}:
                    late.append((name, states))
        clock.skip_to(START + HOUR)
        await box.look()
        if box.reading is not None:
            await box.reading
        await box.compiler.close()
        return pass_on()

    began = time.monotonic()
    answers = asyncio.run(hour())
    assert late == [] and time.monotonic() - began < 120
    assert sum(map(len, answers.values())) == PIECES * (NAMES + ADDRESSES) == 33_000
    for one in tickets:
        told = answers[one["ticket"]]
        assert told.keys() == {value for field in FIELDS for value in one[field]}
        ended = one["event_end"] < text(START + HOUR)
        for state, since, reason in told.values():
            assert (state, reason) == ("ended" if ended else "in force", None)
            assert datetime.fromisoformat(since).timestamp() < due[one["ticket"]]
    assert box.big > 3
    assert "stream.example" not in "".join(path.read_text() for path in box.folder.glob("*.outcome.json"))


def test_the_bridge_says_what_has_not_been_answered_and_what_is_refused(tmp_path, bridge):
    (tmp_path / "rules").mkdir()
    tickets = [ticket(1, START, START + HOUR) | {"fqdn": ["a.example"], "ipv4": [], "ipv6": []}]
    places = (str(tmp_path / "tickets.json"), str(tmp_path / "rules"), str(tmp_path / "answers.json"))
    (tmp_path / "tickets.json").write_text(json.dumps(tickets))

    def answers():
        bridge.main(*places)
        return json.loads((tmp_path / "answers.json").read_text())["T-1"]

    assert answers() == {"a.example": ["received", None, None]}
    written = tmp_path / "rules" / "platform-T-1.order.json"
    before = written.stat()
    (tmp_path / "rules" / "platform-T-1.outcome.json").write_text(json.dumps(
        {"items": [], "refused": {"reason": "it is none"}}))
    assert answers() == {"a.example": ["refused", None, "it is none"]}
    assert written.stat() == before


def test_the_bridge_refuses_a_bad_ticket_alone_and_withdraws_one_that_has_gone(tmp_path, bridge, capsys):
    (tmp_path / "rules").mkdir()
    places = (str(tmp_path / "tickets.json"), str(tmp_path / "rules"), str(tmp_path / "answers.json"))
    good = [ticket(number, START, START + HOUR) | {"fqdn": ["a.example"], "ipv4": [], "ipv6": []}
            for number in range(3)]

    def answers(*tickets):
        (tmp_path / "tickets.json").write_text(json.dumps(tickets))
        bridge.main(*places)
        return json.loads((tmp_path / "answers.json").read_text())

    answers(*good)
    endless = {key: value for key, value in good[1].items() if key != "event_end"}
    told = answers("no ticket", {**good[0], "ticket": "../x"}, endless, {**good[2], "fqdn": "a.example"}, good[0])
    assert told == {"None": {}, "../x": {"a.example": ["refused", None, "cannot be the name of a file"]},
                    "T-1": {"a.example": ["refused", None, "has no event_end"]}, "T-2": {},
                    "T-0": {"a.example": ["received", None, None]}}
    assert "tickets.json: ticket 'T-2' has no list in fqdn\n" in capsys.readouterr().err
    answers(good[0])
    kept, *gone = [json.loads((tmp_path / "rules" / f"platform-T-{number}.order.json").read_text())
                   for number in range(3)]
    assert len(kept["items"]) == 1
    assert gone == [{"version": 1, "order": f"T-{number}", "items": []} for number in (1, 2)]


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_the_bridge_says_how_it_is_called(words):
    ran = subprocess.run([sys.executable, BRIDGE, *words], capture_output=True, text=True, check=False)
    assert ran.returncode == 1 and "bridge.py TICKETS.json RULES_DIRECTORY ANSWERS.json" in ran.stderr
