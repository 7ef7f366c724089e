"""What counts as a change of a rules directory, and which files are still being written."""

import asyncio
import os
import shutil
import threading
from pathlib import Path

import pytest
import uvloop

from edgeblock.daemon import watch as watch_module
from edgeblock.daemon.watch import CROWD, Looker, Watch, look


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "lists").mkdir()
    return tmp_path / "lists"


@pytest.fixture
def watch(folder):
    watch = Watch(folder)
    yield watch
    watch.close()


def test_looking_notices_every_kind_of_change_and_no_other(folder):
    path = folder / "a.list"
    sights = [look(folder)]

    def changed():
        sights.append(look(folder))
        assert look(folder) == sights[-1]
        return sights[-1] not in sights[:-1]

    path.write_text("a.example\n")
    assert changed()
    path.write_text("a.example\nb.example\n")
    assert changed()
    (folder / ".a.new").write_text("hidden, as of a program that is still writing")
    (folder / "a.list~").write_text("an editor's")
    (folder / "b.list.tmp").write_text("half")
    (folder / "a.rejected").write_text("our own")
    assert not changed()
    before = path.stat()
    (folder / ".a.new").write_text("b.example\na.example\n")
    os.utime(folder / ".a.new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (folder / ".a.new").rename(path)
    assert changed()
    (folder / "nowhere.list").symlink_to(folder / "absent")     # is to be refused
    assert changed()
    path.chmod(0o600)
    assert changed()
    path.unlink()
    (folder / "nowhere.list").unlink()
    assert look(folder) == sights[0]
    assert look(folder / "absent") == {}


def test_a_directory_that_does_not_answer_keeps_nobody_else_waiting(folder, watch, monkeypatch):
    """One on another machine: the supervisor stood still, and was killed as one that hangs, its workers with it."""
    (folder / "a.list").write_text("a.example\n")
    answering, asked = threading.Event(), threading.Event()

    def wait_and_look(directory):
        asked.set()
        answering.wait()
        return look(directory)

    monkeypatch.setattr(watch_module, "look", wait_and_look)

    async def ask():
        looker = Looker(watch)
        given_up, asking = (asyncio.create_task(looker.look()) for _ in range(2))
        while not asked.is_set():
            await asyncio.sleep(0.01)
        given_up.cancel()
        await asyncio.wait({given_up})
        assert not asking.done()
        answering.set()
        assert (await asking).keys() == {"a.list"}
        looker.close()

    uvloop.run(ask())


def test_a_file_counts_when_it_is_closed(folder, watch):
    with open(folder / "a.list", "w") as file:
        assert not watch.read() and watch.busy == {"a.list"}
        file.write("a.example\n")
        file.flush()
        assert not watch.read() and watch.busy == {"a.list"}
    assert watch.read() and not watch.busy
    with open(folder / "a.list", "a") as file:
        assert not watch.read() and not watch.busy      # opened, and nothing written
        file.write("b.example\n")
        file.flush()
        assert not watch.read() and watch.busy == {"a.list"}
        os.fchmod(file.fileno(), 0o640)
        assert not watch.read()
    assert watch.read() and not watch.busy


def test_a_writer_that_stalls_does_not_hold_a_file_for_ever(folder, watch, monkeypatch):
    (folder / "a.list").write_text("a.example\n")
    assert watch.read()
    os.truncate(folder / "a.list", 5)           # changed, and never closed
    assert not watch.read() and watch.busy == {"a.list"}
    monkeypatch.setattr(watch_module, "STALLED", 0.0)
    assert watch.busy == set()


def test_renames_links_and_removals_count_at_once(folder, watch, tmp_path):
    (folder / ".a.list.Xy12").write_text("of rsync")
    assert not watch.read() and not watch.busy
    (folder / ".a.list.Xy12").rename(folder / "a.list")
    assert watch.read()
    (folder / "b.list").symlink_to("a.list")
    os.link(folder / "a.list", folder / "c.list")
    assert watch.read() and not watch.busy
    os.mkfifo(folder / "p.list")
    (folder / "d.list").mkdir()
    assert watch.read() and not watch.busy
    (folder / "a.list").rename(tmp_path / "a.list")
    assert watch.read()
    (folder / "c.list").unlink()
    assert watch.read()
    assert not watch.read()


def test_reasons_and_unfinished_files_do_not_count(folder, watch):
    for name in ("a.rejected", ".a.list.swp", "a.list~", "a.list.tmp", "a.filepart"):
        (folder / name).write_text("x")
        (folder / name).unlink()
    assert not watch.read() and not watch.busy


def test_more_events_than_the_kernel_keeps(folder, watch):
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(limit + 10):        # two events each
        os.close(os.open(folder / f"{number % 7}.list", os.O_CREAT | os.O_WRONLY | os.O_TRUNC))
        os.truncate(folder / f"{number % 7}.list", 0)
    reads = 0
    while watch.read() or watch.flooded:
        reads += 1
    assert reads > 1 and not watch.busy


def test_a_flood_of_renames_is_read_piece_by_piece(folder, watch):
    """As long as events came as fast as they were read, nothing else was done, and the watchdog was not fed."""
    (folder / "a0.list").touch()
    while watch.read():
        pass
    limit = watch_module.EVENTS_MAX // (watch_module.EVENT.size + 16)
    for number in range(limit):             # two events each
        (folder / f"a{number}.list").rename(folder / f"a{number + 1}.list")
    assert watch.read() and watch.flooded
    assert watch.read()
    assert not watch.read() and not watch.flooded


def test_a_crowd_of_files_takes_no_more_than_its_share(folder, watch, monkeypatch):
    monkeypatch.setattr(watch_module, "NAMES_MAX", 10)
    for number in range(30):
        (folder / f"{number}.list").touch()
    seen = look(folder)
    assert len(seen) == 11 and seen[CROWD][0] == 20 and look(folder) == seen
    (folder / "new.list").touch()
    assert look(folder)[CROWD][0] == 21
    (folder / "new.list").unlink()
    assert look(folder) == seen
    while watch.read():
        pass
    for number in range(30):
        os.truncate(folder / f"{number}.list", 5)       # none of them is closed
    watch.read()
    assert len(watch.busy) == 10


def test_a_directory_that_was_replaced_is_watched_again(folder, watch, tmp_path):
    with open(folder / "a.list", "w"):
        assert not watch.read() and watch.busy
        folder.rename(tmp_path / "old")
        watch.aim()
        folder.mkdir()
        watch.aim()
        assert not watch.busy
    watch.read()
    (folder / "b.list").write_text("b.example\n")
    assert watch.read()
    shutil.rmtree(folder)
    watch.read()
    watch.aim()
    assert not watch.read()


def test_a_link_to_a_directory_may_be_set_anew(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    link = tmp_path / "current"
    link.symlink_to(folder)
    watch = Watch(link)
    (tmp_path / "next").symlink_to(other)
    (tmp_path / "next").rename(link)
    watch.aim()
    (other / "a.list").write_text("a.example\n")
    assert watch.read()
    (folder / "a.list").write_text("a.example\n")
    assert not watch.read()
    watch.close()
