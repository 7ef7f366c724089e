"""The ledger as it is written: killed at any moment, on a full disk, by two at a time, over midnight. In: what
happens to who writes. Out: a ledger that verifies and says what it lacks."""

import errno
import os
import random
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from edgeblock.ledger import read
from edgeblock.ledger.book import Book
from edgeblock.ledger.writer import BACKLOG, Ledger
from tests.ledger.books import NOON, holds, kill, wait

KILLS, ROUNDS = 1000, 20        # ends of the process, on so many ledgers


def test_a_thousand_kills_at_any_moment_leave_a_ledger_that_verifies(tmp_path):
    """SIGKILL, to a process that does nothing but write: in the middle of a record, of a head, of a new segment."""
    chance = random.Random(17)
    begun, recovered, records = 0, 0, 0
    for number in range(ROUNDS):
        directory = tmp_path / str(number)
        for _ in range(KILLS // ROUNDS):
            begun += kill(partial(write_on, directory), chance.uniform(0, 0.02))
        with Closing(directory) as book:
            recovered += any(kind == "recovered" for kind, _ in book.notes)
        recovered += sum("recovered" in note for note in holds(directory))
        records += sum(1 for _ in read(directory))
    assert begun == KILLS and records > KILLS and recovered > 5, (records, recovered)


class Closing:
    """A book that takes up what is there and lets it go."""

    def __init__(self, directory: Path) -> None:
        self.book = Book(directory)

    def __enter__(self) -> Book:
        self.book.open()
        return self.book

    def __exit__(self, *_: object) -> None:
        self.book.close()


def write_on(directory: Path, told: int) -> None:
    """Until it is killed, with small segments and a head for each few records."""
    import edgeblock.ledger.book as book
    import edgeblock.ledger.writer as writer

    book.SEGMENT_MAX, writer.SIGNING = 6000, 0.0005
    os.fsync = os.fdatasync = lambda file: None             # what a process has written outlives it without
    put = os.write
    os.write = lambda file, data: put(file, data[:17])      # so that the end comes in the middle of a record, too
    ledger = Ledger(Book(directory, max_bytes=120_000))
    os.write(told, b"+")
    ledger.start()
    number = 0
    while True:
        ledger.append("withdrawn", list=f"list {number}" + "x" * (number * 37 % 500))
        number += 1
        if number % 20 == 0:
            ledger.flush(1)


@pytest.mark.parametrize("cut", range(1, 400, 7))
def test_a_record_that_was_not_whole_is_cut_off_and_that_is_recorded(tmp_path, cut):
    with Closing(tmp_path) as book:
        for second in range(3):
            book.write(NOON + second, "withdrawn", {"list": "a list"})
    [path] = tmp_path.glob("*.records")
    data = path.read_bytes()
    whole = len(data.splitlines()[-1]) + 1
    path.write_bytes(data[:-min(cut, whole - 1)] if cut % 2 else data + data[-whole:-min(cut, whole - 1)])
    with Closing(tmp_path) as book:
        [(kind, fields)] = book.notes
        assert kind == "recovered" and fields["segment"] == 1 and 0 < fields["bytes"] < whole
        book.write(NOON + 9, kind, fields)
    assert len(holds(tmp_path)) == 1
    assert [record.seq for record in read(tmp_path)] == list(range(1, (4 if cut % 2 else 5)))


def test_what_a_power_cut_leaves_behind_the_last_record_is_cut_off(tmp_path):
    with Closing(tmp_path) as book:
        book.write(NOON, "withdrawn", {"list": "a list"})
    [path] = tmp_path.glob("*.records")
    with open(path, "ab") as file:
        file.write(bytes(4096) + b"\n" + bytes(100))
    with Closing(tmp_path) as book:
        assert [kind for kind, _ in book.notes] == ["recovered"]
    assert holds(tmp_path) == []


def limited(directory: Path, size: int) -> str:
    """A process whose files have so many bytes at most, which it learns later that they may be longer."""
    code = f"""
import resource, sys
from pathlib import Path
from edgeblock.ledger import writer
from edgeblock.ledger.book import Book
writer.AGAIN = 0.05
ledger = writer.Ledger(Book(Path({str(directory)!r})))
ledger.start()
ledger.append("withdrawn", list="first")
assert ledger.flush(5)
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY))
for number in range(40):
    ledger.append("withdrawn", list=f"list {{number}}")
assert not ledger.flush(0.5)
status = ledger.status()
assert status["state"] == "failed" and "large" in status["problem"] and status["waiting"], status
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert ledger.flush(5)
assert ledger.status()["state"] == "ok" and ledger.status()["late"] > 0, ledger.status()
ledger.append("withdrawn", list="last")
ledger.close()
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stderr


@pytest.mark.parametrize("size", [900, 1000, 1111, 1500, 2222, 4096])
def test_a_full_disk_leaves_a_gap_that_is_recorded_when_there_is_room(tmp_path, size):
    assert limited(tmp_path / "ledger", size) == ""
    notes = holds(tmp_path / "ledger")
    assert any("gap" in note and "code=full" in note and "lost=0" in note for note in notes)
    told = [record.fields["list"] for record in read(tmp_path / "ledger") if record.kind == "withdrawn"]
    assert told == ["first", *(f"list {number}" for number in range(40)), "last"]


def test_what_does_not_fit_is_counted(tmp_path):
    directory = tmp_path / "there" / "ledger"
    directory.parent.write_text("a file in its place")
    ledger = Ledger(Book(directory))
    began = time.monotonic()
    for number in range(BACKLOG + 500):
        ledger.append("withdrawn", list=str(number))
    assert time.monotonic() - began < 5
    ledger.start()
    assert not ledger.flush(0.3) and ledger.status()["state"] == "failed" and ledger.lost == 500
    directory.parent.unlink()
    assert ledger.flush(5)
    ledger.close()
    [gap] = [record for record in read(directory) if record.kind == "gap"]
    assert (gap.fields["late"], gap.fields["lost"], gap.fields["code"]) == (BACKLOG, 500, "backlog")
    holds(directory)


@pytest.mark.parametrize("bad", [{"list": 1.5}, {"list": "ж" * 200_000}, {"list": {1, 2}}])
def test_what_is_no_record_is_lost_alone_and_that_is_told(tmp_path, bad):
    """Once it was the end of the ledger: the thread was dead, and the state `ok`."""
    ledger = Ledger(Book(tmp_path / "ledger"))
    ledger.start()
    for fields in ({"list": "before"}, bad, {"list": "after"}):
        ledger.append("withdrawn", **fields)
    assert ledger.flush(5)
    status = ledger.status()
    assert (status["state"], status["lost"]) == ("failed", 1) and "fault" in status["problem"]
    ledger.append("withdrawn", list="last")
    ledger.close()
    made = list(read(tmp_path / "ledger"))
    assert [one.fields["list"] for one in made if one.kind == "withdrawn"] == ["before", "after", "last"]
    [gap] = [one.fields for one in made if one.kind == "gap"]
    assert (gap["lost"], gap["code"]) == (1, "fault")
    holds(tmp_path / "ledger")


def test_a_fault_in_the_thread_is_told_and_tried_again(tmp_path, monkeypatch):
    ledger = Ledger(book := Book(tmp_path / "ledger"))
    monkeypatch.setattr("edgeblock.ledger.writer.AGAIN", 0.05)
    monkeypatch.setattr(book, "sync", lambda: 1 / 0)
    ledger.start()
    ledger.append("withdrawn", list="first")
    assert not ledger.flush(0.3)
    assert ledger.status()["state"] == "failed" and "ZeroDivisionError" in ledger.status()["problem"]
    monkeypatch.undo()
    assert ledger.flush(5) and ledger.status()["state"] == "ok"
    ledger.close()
    holds(tmp_path / "ledger")


def test_a_thread_that_has_ended_is_told(tmp_path, monkeypatch):
    ledger = Ledger(Book(tmp_path / "ledger"))
    monkeypatch.setattr(ledger, "_work", lambda: None)
    ledger._thread = threading.Thread(target=ledger._work)
    ledger.start()
    ledger._thread.join(5)
    assert ledger.status()["state"] == "failed" and "has ended" in ledger.status()["problem"]


def test_a_disk_that_is_well_loses_nothing_however_much_comes_at_once(tmp_path):
    """As when 13 000 lists go at once: once 3000 of them were not recorded."""
    ledger = Ledger(Book(tmp_path / "ledger"))
    ledger.start()
    for number in range(BACKLOG + 3000):
        ledger.append("withdrawn", list=str(number))
    assert ledger.flush(60) and ledger.lost == ledger.late == 0
    ledger.close()
    made = [one.fields["list"] for one in read(tmp_path / "ledger") if one.kind == "withdrawn"]
    assert made == [str(number) for number in range(BACKLOG + 3000)]


def test_what_waits_for_a_thread_that_stands_still_is_bounded(tmp_path, monkeypatch):
    still = threading.Event()
    monkeypatch.setattr("edgeblock.ledger.writer.ARRIVING", 50)
    ledger = Ledger(book := Book(tmp_path / "ledger"))
    monkeypatch.setattr(book, "sync", lambda: still.wait(10))
    ledger.start()
    ledger.append("withdrawn", list="the first")
    while ledger._arriving.qsize():
        wait(0.01)
    for number in range(80):
        ledger.append("withdrawn", list=str(number))
    status = ledger.status()
    assert status["lost"] > 0 and status["waiting"] <= 51
    monkeypatch.undo()
    still.set()
    assert ledger.flush(5)
    ledger.close()
    [gap] = [one.fields for one in read(tmp_path / "ledger") if one.kind == "gap"]
    assert (gap["lost"], gap["code"]) == (status["lost"], "backlog")


class FailingDisk:
    """As Linux has it (fsync(2), since 4.13): a failure is said once; what could not be written is gone as soon as
    its pages are, and the next call succeeds."""

    def __init__(self, monkeypatch, failures: int) -> None:
        self.left, self._sync, self._on_disk = failures, os.fdatasync, {}
        monkeypatch.setattr(os, "fdatasync", self.sync)

    def sync(self, fd: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if self.left:
            self.left -= 1
            there = self._on_disk.get(path, 0)
            size = path.stat().st_size
            with open(path, "r+b") as file:
                file.seek(there)
                file.write(bytes(size - there))
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._sync(fd)
        self._on_disk[path] = path.stat().st_size


@pytest.mark.parametrize("failures", [1, 4])
def test_what_a_disk_could_not_write_is_written_again(tmp_path, monkeypatch, failures):
    """Once a head was signed over records that were not on the disk."""
    monkeypatch.setattr("edgeblock.ledger.writer.AGAIN", 0.05)
    ledger = Ledger(Book(tmp_path / "ledger"))
    disk = FailingDisk(monkeypatch, 0)
    ledger.start()
    ledger.append("withdrawn", list="on the disk")
    assert ledger.flush(5)
    disk.left = failures
    for number in range(5):
        ledger.append("withdrawn", list=str(number))
    assert ledger.flush(5) and not disk.left
    assert ledger.status()["state"] == "ok" and ledger.lost == 0
    ledger.close()
    made = list(read(tmp_path / "ledger"))
    assert [one.fields["list"] for one in made if one.kind == "withdrawn"] == ["on the disk", *"01234"]
    gaps = [one.fields for one in made if one.kind == "gap"]
    assert gaps and all((gap["code"], gap["lost"]) == ("disk", 0) for gap in gaps)
    holds(tmp_path / "ledger")


def test_what_a_disk_could_not_write_waits_and_does_not_grow(tmp_path, monkeypatch):
    with Closing(tmp_path) as book:
        disk = FailingDisk(monkeypatch, 0)
        book.write(NOON, "withdrawn", {"list": "first"})
        disk.left = 3
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                book.sync()
        with pytest.raises(OSError, match="Input/output"):
            book.write(NOON + 1, "withdrawn", {"list": "second"})
        assert book.seq == 1 and book.is_doubtful
        book.write(NOON + 1, "withdrawn", {"list": "second"})
        assert book.seq == 2 and not book.is_doubtful
        assert book.sign(NOON + 2).head.records == 2
    holds(tmp_path)


def test_what_may_not_be_on_the_disk_is_written_again_by_the_next_process(tmp_path, monkeypatch):
    """The kernel told the one before, which ended; what is in memory goes when that is needed."""
    with Closing(tmp_path) as book:
        book.write(NOON, "withdrawn", {"list": "signed"})
        book.sign(NOON)
        for second in range(2):
            book.write(NOON + second, "withdrawn", {"list": "not signed"})
    [path] = tmp_path.glob("*.records")
    data = path.read_bytes()
    with Closing(tmp_path) as book:
        path.write_bytes(data[:data.index(b"\n") + 1] + bytes(len(data) - data.index(b"\n") - 1))
        book.sign(NOON + 3)
    assert path.read_bytes() == data and holds(tmp_path) == []


def test_two_do_not_write_one_ledger(tmp_path):
    with Closing(tmp_path), pytest.raises(OSError), Closing(tmp_path):
        pass


def test_a_clock_that_is_set_back_begins_another_segment(tmp_path):
    with Closing(tmp_path) as book:
        for day in (0, 5, 1, 1):
            book.write(NOON + day * 86_400_000_000, "withdrawn", {"list": "a list"})
    assert holds(tmp_path) == [] and len(list(tmp_path.glob("*.records"))) == 3


def test_old_segments_go_by_age_and_by_size(tmp_path):
    import edgeblock.ledger.book as module

    with Closing(tmp_path) as book:
        book.keep_days = 3
        for day in range(10):
            book.write(NOON + day * 86_400_000_000, "withdrawn", {"list": "a list"})
        assert len(list(tmp_path.glob("*.records"))) == 4
        book.max_bytes = module.SEGMENT_MAX + 1
        book.write(NOON + 11 * 86_400_000_000, "withdrawn", {"list": "a list"})
        assert len(list(tmp_path.glob("*.records"))) == 1
    assert len(holds(tmp_path)) == 1 and len(list(tmp_path.glob("*.head"))) == 10
    assert [record.fields["code"] for record in read(tmp_path) if record.kind == "dropped"] == ["size"]


def test_a_clock_that_is_far_off_makes_no_segment_old(tmp_path):
    """Once a box without a battery for its clock, or whoever may set it, had all records removed."""
    with Closing(tmp_path) as book:
        book.keep_days = 3
        for day in (10, 11, 12, 500, 12, 0):
            book.write(NOON + day * 86_400_000_000, "withdrawn", {"list": "a list"})
        assert len(list(tmp_path.glob("*.records"))) == 5
        book.write(NOON + 13 * 86_400_000_000, "withdrawn", {"list": "a list"})
    assert [path.name[:8] for path in sorted(tmp_path.glob("*.records"))] == [f"{one:08}" for one in (3, 4, 5, 6, 7)]
    [said] = holds(tmp_path)
    assert "for their age" in said and "2 times, up to segment 2" in said


def test_what_the_clock_and_the_disk_have_taken_is_noted(tmp_path):
    with Closing(tmp_path) as book:
        book.write(NOON, "clock", {"step_ms": 7})
        book.write(NOON, "dropped", {"first": 1, "last": 2, "code": "size"})
    assert [any(word in note for note in holds(tmp_path)) for word in ("clock: step_ms=7", "code=size")] == [True] * 2


def test_the_key_is_its_owner_s_alone(tmp_path):
    with Closing(tmp_path):
        pass
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "key").chmod(0o640)
    from edgeblock.errors import SystemProblem

    with pytest.raises(SystemProblem, match="chmod 600"), Closing(tmp_path):
        pass


def test_who_appends_does_not_wait_for_a_disk_that_stands_still(tmp_path, monkeypatch):
    still = threading.Event()
    monkeypatch.setattr(os, "fdatasync", lambda file: still.wait(10))
    ledger = Ledger(Book(tmp_path / "ledger"))
    ledger.start()
    began = time.monotonic()
    for number in range(1000):
        ledger.append("withdrawn", list=str(number))
    assert time.monotonic() - began < 1.0
    still.set()
    assert ledger.flush(5)
    ledger.close()
