"""Counts that last, gathered: time proven, days, a disk that cannot be written, workers that say nonsense."""

import asyncio
import io
import json
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from types import SimpleNamespace

import pytest

from edgeblock.config import Config, Ledger, Privacy, Report, Rules
from edgeblock.core.decision import Decision, Name
from edgeblock.daemon import counts as glue
from edgeblock.daemon import worker
from edgeblock.daemon.board import Board
from edgeblock.daemon.children import MESSAGE_MAX
from edgeblock.daemon.counts import Counts, Seen
from edgeblock.daemon.journal import Journal
from edgeblock.daemon.worker import Worker
from edgeblock.report.store import FILE, opened, read
from tests.daemon.parts import Log, linked

PIECE = {"blocks": [["court", "", "tls", "reset", 3, 1]], "rules": [["court", "0000abcd", 3]], "lost": 0,
         "unknown": 0}


@pytest.fixture
def clock(monkeypatch):
    """Sets the wall clock of the glue."""
    now = [1_800_000_000.0]
    monkeypatch.setattr(glue.time, "time", lambda: now[0])
    return now


def counts(tmp_path, enabled=True):
    return Counts(Config(rules=Rules(key=tmp_path / "state" / "key"), ledger=Ledger(directory=tmp_path),
                         report=Report(enabled=enabled)), Log())


def told(tmp_path):
    with closing(opened(tmp_path)) as base:
        return read(base, 0, 1 << 40)


def figures(tmp_path):
    summed = {}
    for day in told(tmp_path).figures.values():
        for what, value in day.items():
            summed[what] = summed.get(what, 0) + value
    return summed


def run(work):
    return asyncio.run(work)


def test_what_workers_and_the_others_count_is_written_by_day(tmp_path, clock):
    async def work():
        one = counts(tmp_path)
        one.look(0.0, Seen(True, sums={"packets": 10}, kernel={"court": 5}))
        one.take(PIECE)
        one.look(1.0, Seen(True, sums={"packets": 15}, kernel={"court": 7}))
        await one.save()
        clock[0] += 86_400
        one.take(PIECE)
        one.look(2.0, Seen(False, sums={"packets": 18}, kernel={"court": 7}))
        one.look(3.0, Seen(True, sums={"packets": 18}, kernel={"court": 7}))
        one.look(100.0, Seen(True, sums={"packets": 18}, kernel={"court": 7}))
        await one.save(clean=True)
        assert one.status()["problem"] == "" and one.status()["saved"] == clock[0]
    run(work())
    seen = told(tmp_path)
    day = int(1_800_000_000 // 86_400)
    assert seen.blocks == [(day, "court", "", "tls", "reset", 3, 1), (day + 1, "court", "", "tls", "reset", 3, 1)]
    assert seen.kernel == [(day, "court", 7), (day + 1, "court", 0)]
    assert figures(tmp_path) == {"packets": 18, "running": 3.0, "filtering": 1.0}, "97 seconds were nobody's"


def test_who_reads_lists_cannot_write_where_counts_are(tmp_path, clock):
    """All of the state directory is theirs: a trigger in the file would run in the supervisor."""
    state = tmp_path / "state"
    state.mkdir()
    for ledger in (Ledger(), Ledger(enabled=False)):
        asyncio.run(Counts(Config(rules=Rules(key=state / "key"), ledger=ledger), Log()).save())
    assert not list(state.iterdir()) and [row[0] for row in told(tmp_path / "state-ledger").runs] == [clock[0]]
    assert (tmp_path / "state-ledger").stat().st_mode & 0o777 == 0o700


def test_the_canary_proves_the_time_between_two_rounds_that_held(tmp_path, clock):
    async def work():
        one = counts(tmp_path)
        right, wrong = {("ipv4", "tls"): False}, {("ipv4", "tls"): True}
        for number, (at, result) in enumerate([(10, right), (20, right), (30, wrong), (40, right), (50, right),
                                               (90, right), (100, right)], 1):
            one.look(float(at), Seen(True, 10.0, number, result))
        one.look(101.0, Seen(True, 10.0, 7, right))       # no new round
        await one.save()
    run(work())
    assert figures(tmp_path)["proven"] == 10 + 10, "not around the failure, not across the gap"
    assert [row[1:] for row in told(tmp_path).canary] == [("ipv4", "tls", 6, 5)], "the first look tells of no round"


def test_a_directory_that_cannot_be_written_is_said_once_and_nothing_is_lost(tmp_path, clock, monkeypatch):
    async def work():
        (tmp_path / "gone").touch()
        one = counts(tmp_path / "gone")
        for _ in range(3):
            one.take(PIECE)
            await one.save()
        assert "cannot be written: File exists" in one.status()["problem"]
        [(event, more)] = one._log.said
        assert event == "counts" and "the box filters" in more["problem"]
        (tmp_path / "gone").unlink()            # the directory is made
        await one.save()
        assert one.status()["problem"] == "" and one._log.said[-1][0] == "counts are written again"
        assert told(tmp_path / "gone").blocks[0][5:] == (9, 3)
        # Days without a disk are bounded, too, and what goes is counted.
        (tmp_path / "no").touch()
        monkeypatch.setattr(one, "_writer", counts(tmp_path / "no")._writer)
        for _ in range(6):
            clock[0] += 86_400
            one.take(PIECE)
            await one.save()
        assert len(one._batches) == glue.DAYS_MAX and one.status()["lost"] == 3 * 3
    run(work())


def test_a_worker_that_says_nonsense_is_left_out_and_told_of_once(tmp_path, clock):
    async def work():
        one = counts(tmp_path)
        for nonsense in ("x", {"blocks": 7}, PIECE | {"lost": -1}):
            one.take(nonsense)
        one.take(PIECE)
        await one.save()
        assert len(one._log.said) == 1 and told(tmp_path).blocks[0][5] == 3
    run(work())


def test_nothing_is_kept_where_the_settings_say_so(tmp_path):
    async def work():
        one = counts(tmp_path, enabled=False)
        one.take(PIECE)
        await one.keep(lambda: pytest.fail("not asked"))
        await one.close()
        assert one.status() == {"enabled": False, "saved": 0.0, "lost": 0, "problem": ""}
    run(work())
    assert list(tmp_path.iterdir()) == []


def test_it_ends_with_what_the_last_worker_has_said_and_never_keeps_the_loop_waiting(tmp_path, clock):
    async def work():
        one = counts(tmp_path)
        keeping = asyncio.ensure_future(one.keep(lambda: Seen(True)))
        while not one.status()["saved"]:
            await asyncio.sleep(0.01)
        keeping.cancel()
        one.take(PIECE)
        await one.close()
    run(work())
    seen = told(tmp_path)
    assert seen.blocks[0][5] == 3 and seen.runs[0][2] is True
    with closing(sqlite3.connect(tmp_path / FILE)) as base:
        assert base.execute("PRAGMA wal_checkpoint").fetchone()[1:] == (0, 0), "nothing is left to be taken in"


@pytest.mark.parametrize("waits", ["locked", "hangs"])
def test_the_end_waits_for_no_disk_and_for_nobody_who_writes(tmp_path, waits):
    """Packets wait for the next daemon meanwhile. In a process of its own: no thread may be waited for, either."""
    code = f"""
import asyncio, sqlite3, threading, time
from edgeblock.daemon.counts import Seen
from tests.daemon.test_counts import FILE, PIECE, counts
from pathlib import Path
async def work():
    one = counts(Path({str(tmp_path)!r}))
    keeping = asyncio.ensure_future(one.keep(lambda: Seen(True)))
    while not one.status()["saved"]:
        await asyncio.sleep(0.01)
    keeping.cancel()
    other = sqlite3.connect(one._writer.path, isolation_level=None)
    if {waits!r} == "locked":
        other.execute("BEGIN IMMEDIATE")
    else:
        one._writer.write = lambda *_: threading.Event().wait()
    one.take(PIECE)
    saving = asyncio.ensure_future(one.save())
    await asyncio.sleep(0)
    began = time.monotonic()
    await one.close(handing_over=True)
    print(time.monotonic() - began, one._log.said[-1][1]["problem"])
asyncio.run(work())
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    seconds, problem = ended.stdout.split(" ", 1)
    assert 0.3 <= float(seconds) < 1
    assert "cannot be written in time; what was counted in the last 6 seconds" in problem
    assert told(tmp_path).runs[0][2] is False, "nobody has closed it"


def test_a_worker_that_nobody_hears_holds_what_its_bounds_allow_and_tells_all_later(tmp_path):
    """Fifty thousand blocks of different rules and orders; then the supervisor reads again."""
    board, config = Board(1), Config(rules=Rules(key=tmp_path / "key"))
    with linked() as (ours, theirs), Journal(io.StringIO(), Privacy(), 0, summary=False) as journal:
        theirs.setblocking(False)
        one = Worker(config, journal, theirs, board)
        one.row, one.places, one.base = board.rows[0], {"policy": 0}, [0] * 100_000
        one.injector = SimpleNamespace(sent=0, failed=0)
        packet, count = bytes.fromhex("45" + "00" * 19), 50_000
        for number in range(count):
            name = Name("tls", None, None, "reset", "court", f"{number:08x}", order=f"No. {number}")
            one.decide(packet, Decision(False, names=(name,)))
            if number % 100 == 0:
                one._tell_counts(number, all_of_it=True)
        assert len(one.pending.blocks) <= 2 * worker.BLOCKS_MAX and len(one.pending.rules) <= worker.RULES_MAX
        heard = glue.Batch(glue.Pending(1 << 20, 1 << 20)).pending

        def hear():
            with suppress(BlockingIOError):
                while True:
                    said = ours.recv(1 << 16)
                    assert len(said) < MESSAGE_MAX, "else the supervisor would cut it"
                    heard.put(json.loads(said)["counts"])
        while one.pending:
            hear()
            one._tell_counts(1e9, all_of_it=True)
        hear()
    assert sum(tries for tries, _ in heard.blocks.values()) + heard.lost == count
    assert sum(heard.rules.values()) + heard.unknown == count and heard.unknown > 0 and heard.lost == 0
