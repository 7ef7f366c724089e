"""The counts on the disk: they add up, are bounded, survive a kill at any moment, a full disk and upgrades."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing

import pytest

from edgeblock.errors import ReportError
from edgeblock.report import store
from edgeblock.report.pending import OTHER, Batch, Pending
from edgeblock.report.period import DAY
from edgeblock.report.store import DAMAGED, FILE, Newer, Writer, bring_up, hits, kept, opened, read

TODAY = 20_800
NOW = TODAY * DAY + 3600.0


def batch(tries=3, visits=1, order="No. 1", rule="0000abcd"):
    one = Batch(Pending(100, 100))
    one.pending.add(("court", order, "tls", "reset"), tries, visits)
    one.pending.hit("court", rule, tries)
    one.kernel["court"] += 2
    one.canary["ipv4", "tls"] = [2, 1]
    one.add("running", 4.5)
    one.most["impact_addresses"] = 9
    return one


def counted(where, first=TODAY, last=TODAY):
    with closing(opened(where)) as base:
        return read(base, first, last)


def test_what_is_written_adds_up_over_batches_and_daemons(tmp_path):
    for began in (NOW, NOW + 10):
        writer = Writer(tmp_path, 400, began)
        for _ in range(2):
            writer.write({TODAY: batch(), TODAY - 1: batch(tries=1)}, began + 5)
        writer.write({}, began + 6, clean=True)
        writer.close()
    told = counted(tmp_path, TODAY - 1)
    assert told.blocks == [(TODAY - 1, "court", "No. 1", "tls", "reset", 4, 4),
                           (TODAY, "court", "No. 1", "tls", "reset", 12, 4)]
    assert told.kernel == [(TODAY - 1, "court", 8), (TODAY, "court", 8)]
    assert told.canary[1] == (TODAY, "ipv4", "tls", 8, 4)
    assert told.figures[TODAY] == {"running": 18.0, "impact_addresses": 9.0}
    assert told.runs == [(NOW, NOW + 6, True), (NOW + 10, NOW + 16, True)]
    with closing(opened(tmp_path)) as base:
        assert list(hits(base, "court")) == [(0xabcd, TODAY, 16)] and kept(base) == (TODAY - 1, TODAY)
    assert os.stat(tmp_path / FILE).st_mode & 0o777 == 0o600
    assert counted(tmp_path, TODAY + 1, TODAY + 9).blocks == []


def test_a_process_that_is_killed_loses_what_it_has_not_written_and_nothing_else(tmp_path):
    code = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from tests.report.test_store import TODAY, NOW, Writer, batch
        writer, done = Writer(Path({str(tmp_path)!r}), 400, NOW), 0
        while True:
            writer.write({{TODAY: batch(1, 1)}}, NOW + done)
            done += 1
            print(done, flush=True)
    """)
    before = 0
    for round in range(6):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writing:
            for _ in range(3 + 7 * round):
                last = int(writing.stdout.readline())
            writing.send_signal(signal.SIGKILL)
            rest = [int(line) for line in writing.stdout.read().split()]
        said = max([last, *rest])
        [row] = counted(tmp_path).blocks
        assert before + said <= row[5] <= before + said + 1, "one may be written and not said"
        before = row[5]
    with closing(opened(tmp_path)) as base:
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_full_disk_takes_nothing_of_what_is_there_and_the_rest_is_written_later(tmp_path):
    writer = Writer(tmp_path, 400, NOW)
    writer.write({TODAY: batch()}, NOW)
    big = Batch(Pending(100, 60_000))
    for number in range(50_000):
        big.pending.hit("court", f"{number:08x}")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
        with pytest.raises((sqlite3.Error, OSError)):
            writer.write({TODAY: big}, NOW + 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert counted(tmp_path).blocks[0][5] == 3 and not (tmp_path / f"{FILE}{DAMAGED}").exists()
    writer.write({TODAY: big}, NOW + 2)
    with closing(opened(tmp_path)) as base:
        assert sum(1 for _ in hits(base, "court")) == 50_000


def test_a_damaged_file_is_put_aside_and_said(tmp_path):
    (tmp_path / FILE).write_bytes(b"no database at all" * 100)
    with pytest.raises(ReportError, match="cannot be read"):
        opened(tmp_path)
    writer = Writer(tmp_path, 400, NOW)
    with pytest.raises(sqlite3.DatabaseError):
        writer.write({TODAY: batch()}, NOW)
    assert "counting begins anew" in writer.put_aside
    writer.write({TODAY: batch()}, NOW)
    assert counted(tmp_path).blocks[0][5] == 3 and (tmp_path / f"{FILE}{DAMAGED}").exists()


def test_an_upgrade_keeps_the_counts_and_a_newer_file_is_left_alone(tmp_path):
    writer = Writer(tmp_path, 400, NOW)
    writer.write({TODAY: batch()}, NOW)
    writer.close()
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as base:
        bring_up(base, (*store.SCHEMA, "ALTER TABLE blocks ADD COLUMN more INTEGER NOT NULL DEFAULT 7;"))
        assert base.execute("SELECT tries, more FROM blocks").fetchall() == [(3, 7)]
        bring_up(base, (*store.SCHEMA, "nothing that is run twice"))
    with pytest.raises(Newer):
        writer.write({TODAY: batch()}, NOW)
    with pytest.raises(ReportError, match="newer edgeblock"):
        opened(tmp_path)
    assert not (tmp_path / f"{FILE}{DAMAGED}").exists()


def test_days_end_by_the_days_that_there_are(tmp_path):
    writer = Writer(tmp_path, 3, NOW)
    for day in range(6):
        writer.write({TODAY + day: batch(order=f"No. {day}")}, (TODAY + day) * DAY)
    with closing(opened(tmp_path)) as base:
        assert kept(base) == (TODAY + 3, TODAY + 5)
        assert base.execute("SELECT count(*) FROM texts WHERE text LIKE 'No.%'").fetchone() == (3,)
    # A clock that is wrong for a while takes one day away, not all.
    writer.write({TODAY + 5000: batch()}, (TODAY + 5000) * DAY)
    writer.write({TODAY + 6: batch()}, (TODAY + 6) * DAY)
    assert {row[0] for row in counted(tmp_path, 0, 1 << 40).blocks} >= {TODAY + 5, TODAY + 6}


def test_rows_have_caps(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ROWS_A_DAY", 10)
    monkeypatch.setattr(store, "TEXTS_MAX", 40)
    monkeypatch.setattr(store, "HITS_MAX", 100)
    monkeypatch.setattr(store, "MANY", 5)
    writer = Writer(tmp_path, 400, NOW)
    for round in range(5):
        one = Batch(Pending(1000, 1000))
        for number in range(200):
            one.pending.add(("court", f"order {round} {number}", "tls", "reset"), 1, 1)
            one.pending.hit("court", f"{1000 * round + number:08x}")
        writer.write({TODAY + round: one}, (TODAY + round) * DAY)
    told = counted(tmp_path, TODAY, TODAY + 9)
    assert all(sum(row[5] for row in told.blocks if row[0] == TODAY + day) == 200 for day in range(5))
    assert len(told.blocks) <= 5 * 11 and OTHER in {row[2] for row in told.blocks}
    with closing(opened(tmp_path)) as base:
        kept_hits = list(hits(base, "court"))
        assert 90 <= len(kept_hits) <= 100 and {last for _, last, _ in kept_hits} == {TODAY + 4}
        assert base.execute("SELECT count(*) FROM texts").fetchone()[0] <= 42
    assert sum(day.get("forgotten", 0) for day in told.figures.values()) == 1000 - len(kept_hits)


def test_without_counts_it_is_said_what_to_do(tmp_path):
    with pytest.raises(ReportError, match=r"no counts yet; a daemon with \[report\] enabled"):
        opened(tmp_path)
