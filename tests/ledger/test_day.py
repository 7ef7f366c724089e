"""What a day leaves on the disk that nobody is to read there. In: a day of lists, blocks and probes, by a clock that
is set forward, through the parts of a daemon that record and count. Out: files without a name, an address or a
subscriber, in any spelling that one looks for; and a ledger that was taken up again between any two of its hours."""

import asyncio
import base64
import io
import json
import time
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeblock.blocklist.refresh import refresh
from edgeblock.blocklist.store import Store, read_key
from edgeblock.config import Config, Ledger, Privacy, Rules
from edgeblock.core.decision import Decision, Name
from edgeblock.daemon import counts as counting
from edgeblock.daemon import ledger as recording
from edgeblock.daemon.board import Board
from edgeblock.daemon.counts import Counts, Seen
from edgeblock.daemon.journal import Journal
from edgeblock.daemon.ledger import Recorder, Sources
from edgeblock.daemon.worker import Worker
from edgeblock.ledger import read
from tests.daemon.parts import Log, linked
from tests.ledger.books import holds, loaded

BEGAN, HOURS, VISITS = 1_800_000_000.0, 24, 40      # visits an hour
LISTED = [f"forbidden{number}.secrets{number % 7}.example" for number in range(60)]
ADDRESSES = ["198.51.100.77", "2001:db8:5ec::77"]
CLIENTS = [f"10.77.{number // 250}.{number % 250 + 1}" for number in range(300)] + [
    f"2001:db8:77:{number:x}::5" for number in range(1, 60)]


@pytest.fixture
def clock(monkeypatch):
    """Of the parts and of the boot, set forward together."""
    now = [BEGAN]
    fake = SimpleNamespace(time=lambda: now[0], monotonic=lambda: now[0] - BEGAN + 1000, CLOCK_BOOTTIME=0,
                           clock_gettime=lambda _: now[0] - BEGAN + 1000)
    for module in (counting, recording):
        monkeypatch.setattr(module, "time", fake)
    return now


class Day:
    """A worker, the counts and the recorder of a daemon that is started anew each hour."""

    def __init__(self, place: Path, clock: list[float], supervisor, ours) -> None:
        self.rules, self.clock, self.ours = place / "rules", clock, ours
        self.rules.mkdir()
        self.config = Config(Rules(self.rules, key=place / "state" / "key"),
                             ledger=Ledger(directory=place / "ledger"))
        self.worker = Worker(self.config, Journal(io.StringIO(), Privacy(), 0, summary=False), supervisor, Board(1))
        self.worker.row, self.worker.places, self.worker.base = [0] * 100_000, {"policy": 0}, [0] * 100_000
        self.met = 0

    async def hour(self, number: int) -> None:
        counts, log, now = Counts(self.config, Log()), Log(), self.clock[0]
        causes = {"canary": f"a listed name passes, {LISTED[0]} to {ADDRESSES[0]}"} if number % 5 == 3 else {}
        wrong = {(4, "tls"): causes.get("canary", "")}
        recorder = Recorder(self.config, log, Sources(
            lambda: True, lambda: True, lambda: causes, lambda: (number + 1, wrong), lambda: ["rule"], dict,
            lambda: (number, 0), lambda file: round(now * 1e6)))
        recorder.ledger._now = lambda: self.clock[0]
        recorder.begin()
        self.load(recorder, number)
        counts.look(0.0, Seen(True))
        for minute in range(60):
            self.clock[0] += 60
            recorder.look()
            counts.look(60.0 * minute, Seen(not causes, 10.0, minute, {("ipv4", "tls"): bool(causes)}))
        for _ in range(VISITS):
            self.visit(self.met)
            self.met += 1
        self.worker._tell_counts(1e9, all_of_it=True)
        with suppress(BlockingIOError):
            while said := self.ours.recv(1 << 16):
                counts.take(json.loads(said)["counts"])
        await counts.save(clean=number % 2 == 0)
        recorder.end(number % 2 == 0)
        assert recorder.fault == "" == recorder.status()["problem"] == counts.status()["problem"]

    def load(self, recorder: Recorder, number: int) -> None:
        (self.rules / "court.list").write_text("".join(f"{name}\n" for name in LISTED[:20 + number]))
        (self.rules / "addresses.list").write_text("".join(f"{one}\n" for one in ADDRESSES))
        (self.rules / "bad.list").write_text(f"{LISTED[number]}\n{LISTED[number]} {CLIENTS[number]} is this\n" * 9)
        recorder.see({path.name: (1, path.stat().st_size, 5, round(self.clock[0] * 1e9))
                      for path in self.rules.iterdir()})
        key = read_key(self.config.rules.key, create=True)
        said = refresh(self.config.rules, Store(self.config.rules.key.parent, key, commits=True), self.clock[0])
        assert said.refused and (not said.problem)
        recorder.take(loaded(said, key), self.clock[0])

    def visit(self, number: int) -> None:
        client = ip_address(CLIENTS[number % len(CLIENTS)]).packed
        packet = b"\x45" + bytes(11) + client + bytes(4)
        if len(client) == 16:
            packet = b"\x60" + bytes(7) + client + bytes(16)
        name = Name(("tls", "quic", "http")[number % 3], LISTED[number % len(LISTED)], f"/{LISTED[0]}/path", "reset",
                    "court", f"{number % 60:08x}", order="No. 7/2026")
        self.worker.decide(packet, Decision(False, names=(name,)))


def spelt(text: str) -> set[bytes]:
    """In each way in which one would look for it; base64 at each of the three places in which it may begin."""
    made = {text.encode(), text.upper().encode(), text[::-1].encode(), text.encode("utf-16-le"),
            text.encode("utf-16-be"), text.encode().hex().encode(),
            b"".join(bytes([len(part)]) + part.encode() for part in text.split("."))}
    for before in range(3):
        whole = base64.b64encode(bytes(before) + text.encode())
        made.add(whole[(0, 2, 3)[before]:len(whole) - 4])
    with suppress(ValueError):
        made |= {ip_address(text).packed, ip_address(text).packed[::-1]} if ":" in text else set()
    return made


def files(*places: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for place in places for path in place.rglob("*") if path.is_file()}


def found(said: dict[str, bytes], texts: Iterable[str] = (*LISTED, *ADDRESSES, *CLIENTS)) -> list[tuple[str, bytes]]:
    return [(path, one) for text in texts for one in spelt(text)
            for path, data in said.items() if one in data]


def test_a_day_leaves_no_name_no_address_and_no_subscriber(tmp_path, clock):
    began = time.monotonic()
    with linked() as (ours, theirs):
        day = Day(tmp_path, clock, theirs, ours)
        for number in range(HOURS):
            asyncio.run(day.hour(number))
    state = tmp_path / "state"
    said = files(tmp_path / "ledger", state / "proofs", state / "orders", state / "rejected")
    assert {"counts.sqlite", "key.pub"} <= {Path(path).name for path in said} and any("proofs" in one for one in said)
    assert found(said) == []
    # What is compiled has listed addresses as numbers, as docs/lists.md says, and no name.
    assert found(files(state), (*LISTED, *CLIENTS)) == []
    holds(day.config.ledger.directory)
    kinds = [record.kind for record in read(day.config.ledger.directory)]
    assert kinds.count("start") == kinds.count("stop") == HOURS and kinds.count("refused") >= 1
    assert kinds.count("pulse") >= HOURS and {"in force", "not filtering", "canary", "day", "seen"} <= set(kinds)
    assert sum(map(len, said.values())) < 8_000_000 and time.monotonic() - began < 60


@pytest.mark.parametrize("text", [LISTED[5], ADDRESSES[1], CLIENTS[7], CLIENTS[310]])
def test_what_one_looks_for_would_be_found(text):
    """Each spelling, wherever it stands."""
    for one in spelt(text):
        assert len(one) > 7 and found({"file": b"x" + one + b"y"})
    for before in range(3):
        assert found({"file": base64.b64encode(b"x" * before + text.encode() + b"y")})
