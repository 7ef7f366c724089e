"""What lands is whole, in order, and never over a file of somebody else; whoever is killed in between goes on.

In: files of a source, and what people do to a directory meanwhile. Out: what lies there, and what is said.
"""

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from edgeblock.daemon.watch import is_ours
from edgeblock.fleet import landing as module
from edgeblock.fleet.landing import HIDDEN, Landing, content_of, rank, why_not
from edgeblock.fleet.record import Record, read_record
from edgeblock.fleet.source import SourceError

OLD = {"court.list": b"old.example\n", "court.toml": b'action = "drop"\n', "gone.list": b"gone.example\n"}
NEW = {"court.list": b"new.example\n", "court.toml": b'action = "reset"\n', "more.list": b"more.example\n"}


class Box:
    """A drop directory and one source."""

    def __init__(self, home: Path) -> None:
        self.home, self.drop, self.kept = home, home / "drop", home / "source.json"
        self.drop.mkdir(exist_ok=True)
        self.landing = Landing(self.drop, 1 << 20)

    def land(self, files: dict[str, bytes], settings: bool = True, record: Record | None = None) -> list[str]:
        folder = self.home / "folder"
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / f"x{name.replace('/', '_')}").write_bytes(content)
        return self.landing.land({name: folder / f"x{name.replace('/', '_')}" for name in files},
                                 record or read_record(self.kept), self.kept, settings)

    def refusal(self, files: dict[str, bytes], settings: bool = True) -> str:
        before = self.there()
        with pytest.raises(SourceError) as refused:
            self.land(files, settings)
        assert "\n" not in str(refused.value) and self.there() == before
        return str(refused.value)

    def there(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.drop.iterdir() if path.is_file()}


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path)


def test_a_version_lands_and_the_next_takes_its_place_and_what_it_has_not_goes(box):
    assert sorted(box.land(OLD)) == sorted(OLD) and box.there() == OLD
    assert sorted(box.land(NEW)) == sorted({*OLD, *NEW}) and box.there() == NEW
    assert read_record(box.kept).files.keys() == NEW.keys() and box.landing.whole(read_record(box.kept))
    assert box.land({}) and box.there() == {}


def test_what_is_the_same_is_not_touched(box):
    box.land(OLD)
    before = {name: (box.drop / name).stat() for name in OLD}
    assert box.land({**OLD, "gone.list": b"other.example\n"}) == ["gone.list"]
    assert all((box.drop / name).stat() == state for name, state in before.items() if name != "gone.list")


def test_the_group_of_the_directory_may_read_and_nobody_else(box):
    box.land(OLD)
    assert {(box.drop / name).stat().st_mode & 0o7777 for name in OLD} == {0o640}


def test_settings_and_signatures_come_before_lists(box):
    names = ["a.list", "a.list.minisig", "a.toml", "page.html", "x.clients", "b.rpz.gz", "hosts"]
    assert sorted(names, key=rank)[:3] == ["page.html", "x.clients", "a.toml"]
    assert set(sorted(names, key=rank)[-3:]) == {"a.list", "b.rpz.gz", "hosts"}


def seen(box, work):
    """The names in the order in which the daemon is told of them, and what was there each time."""
    from edgeblock.daemon.watch import EVENT, EVENTS_MAX, Watch

    watch = Watch(box.drop)
    work()
    data, names, at = os.read(watch.fd, EVENTS_MAX), [], 0
    while at < len(data):
        _, mask, _, size = EVENT.unpack_from(data, at)
        name = os.fsdecode(data[at + EVENT.size:at + EVENT.size + size].rstrip(b"\0"))
        at += EVENT.size + size
        if not is_ours(name):
            names.append((name, mask))
    watch.close()
    return names


def test_the_daemon_sees_complete_files_alone_settings_first_and_lists_go_first(box):
    moved, deleted = 0x80 | 0x40, 0x200
    box.land({"gone.list": b"x.example\n", "gone.toml": b"", "court.list": b"y.example\n"})
    events = seen(box, lambda: box.land({"court.list": b"z.example\n", "court.toml": b'action = "drop"\n'}))
    assert [name for name, mask in events if mask & moved][0] == "court.toml"
    assert [name for name, mask in events if mask & deleted] == ["gone.list", "gone.toml"]
    assert all(mask & (moved | deleted) for _, mask in events), events       # none of them open for writing, ever


@pytest.mark.parametrize(("name", "words"), [
    ("../court.list", "is no file name"), ("a/b.list", "is no file name"), (".court.list", "is no file name"),
    ("", "is no file name"), ("-rf.list", "is no file name"), ("a\n.list", "is no file name"),
    ("ä.list", "is no file name"), ("x" * 196 + ".list", "is no file name"), ("court.rejected", "or editors write"),
    ("court.skipped", "or editors write"), ("court.outcome.json", "or editors write"),
    ("court.list.tmp", "or editors write"), ("court.list~", "is no file name"), ("court.exe", "is not the name of a"),
    ("court", "is not the name of a"), ("court.minisig", "is not the name of a"), ("court.tar", "is not the name"),
    ("court.toml", "no settings = true"), ("court.html", "no settings = true"), ("a.clients", "no settings = true")])
def test_a_name_that_is_none_of_a_list_is_refused(box, name, words):
    assert words in why_not(name, False)
    assert words in box.refusal({name: b"x.example\n"}, settings=False)


@pytest.mark.parametrize("name", ["court.list", "court.rpz", "court.list.gz", "a.order.json", "hosts", "A-1_b.txt",
                                  "court.list.minisig", "court.csv.zst"])
def test_a_name_of_a_list_is_not(name):
    assert why_not(name, False) is None


def test_two_files_of_one_list_are_refused(box):
    assert "has the same list name as a.list" in box.refusal({"a.list": b"x", "a.rpz": b"y"})


def test_a_file_that_is_too_large_is_refused(box):
    box.land(OLD)
    assert "file_megabytes allows 1 MiB" in box.refusal({**OLD, "more.list": b"x" * ((1 << 20) + 1)})


def test_what_a_source_brings_has_to_be_a_file(box, tmp_path):
    for name, make in (("link.list", lambda path: path.symlink_to("/etc/passwd")), ("dir.list", Path.mkdir),
                       ("pipe.list", os.mkfifo)):
        make(tmp_path / name)
        with pytest.raises(SourceError):
            box.landing.land({name: tmp_path / name}, Record(), box.kept, True)
    assert box.there() == {}


# ---- files of others

def test_a_file_of_somebody_else_is_never_overwritten(box):
    (box.drop / "court.list").write_bytes(b"person.example\n")
    assert "court.list: is not as this source has left it, or was put there by somebody else" in box.refusal(NEW)


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(b"person.example\n"),
                                    lambda path: path.write_bytes(b"OLD.example\n"),     # as long as it was
                                    lambda path: (path.unlink(), path.symlink_to("other")),
                                    lambda path: (path.unlink(), path.mkdir())])
def test_one_that_somebody_has_changed_is_his(box, change):
    box.land(OLD)
    change(box.drop / "court.list")
    assert f"{box.drop}/court.list: is not as" in box.refusal(NEW)
    with pytest.raises(SourceError, match="is not as this source has left it"):
        box.landing.whole(read_record(box.kept))


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "directory", "socket"])
def test_what_is_no_file_in_its_place_is_left_alone(box, tmp_path, kind):
    other, target = tmp_path / "other.list", box.drop / "court.list"
    other.write_bytes(OLD["court.list"])
    match kind:
        case "link":
            target.symlink_to(other)
        case "dangling link":
            target.symlink_to(tmp_path / "nowhere")
        case "pipe":
            os.mkfifo(target)
        case "directory":
            target.mkdir()
        case "socket":
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(target))
    state = target.lstat()
    assert "is left alone" in box.refusal(OLD)
    assert target.lstat().st_ino == state.st_ino and other.read_bytes() == OLD["court.list"]
    assert not (tmp_path / "nowhere").exists()


def test_a_file_that_grows_while_it_is_looked_at_keeps_nobody(box):
    box.land(OLD)
    path = box.drop / "court.list"
    os.utime(path, (1, 1))          # so that it has to be read
    state, marks = path.lstat(), read_record(box.kept).marks("court.list")
    assert content_of(path, state, marks) == marks[0].digest
    os.truncate(path, 1 << 40)
    assert content_of(path, state, marks) == ""


def test_one_that_somebody_has_changed_is_not_removed_either(box):
    box.land(OLD)
    (box.drop / "gone.list").write_bytes(b"person.example\n")
    box.land(NEW)
    assert box.there() == {**NEW, "gone.list": b"person.example\n"}
    assert "gone.list" not in read_record(box.kept).files


def test_one_that_was_only_copied_back_is_still_the_source_s(box):
    box.land(OLD)
    (box.drop / "court.list").unlink()
    (box.drop / "court.list").write_bytes(OLD["court.list"])
    box.land(NEW)
    assert box.there() == NEW


def test_the_same_content_is_taken_over_whoever_has_put_it_there(box):
    """So that a lost state directory costs nothing."""
    box.land(OLD)
    box.kept.unlink()
    assert box.land(OLD) == [] and box.land(NEW) and box.there() == NEW


def test_a_list_of_somebody_else_of_the_same_name_is_not_disturbed(box):
    (box.drop / "court.rpz").write_bytes(b"person\n")
    assert "court.rpz: is not of this source, and has the same list name as court.list" in box.refusal(NEW)
    (box.drop / "court.rpz").unlink()
    (box.drop / "court.toml").write_bytes(b"")      # settings by hand are the operator's own
    box.land({"court.list": b"x.example\n"}, settings=False)


def test_one_that_is_put_there_at_the_last_moment_comes_back(box, monkeypatch):
    box.land(OLD)
    really = module.renamed

    def late(hidden, target, flags):
        if target.name == "court.list" and flags == module.RENAME_EXCHANGE and b"old" in target.read_bytes():
            target.unlink()
            target.write_bytes(b"person.example\n")
        return really(hidden, target, flags)

    monkeypatch.setattr(module, "renamed", late)
    with pytest.raises(SourceError, match="court.list: is not as"):
        box.land(NEW)
    assert box.there()["court.list"] == b"person.example\n"
    assert not [name for name in box.there() if name.startswith(HIDDEN)]


def test_and_one_that_is_new_at_the_last_moment_stays(box, monkeypatch):
    really = module.renamed

    def late(hidden, target, flags):
        target.write_bytes(b"person.example\n")
        return really(hidden, target, flags)

    monkeypatch.setattr(module, "renamed", late)
    with pytest.raises(SourceError, match="court.list: is not as"):
        box.land({"court.list": b"x.example\n"})
    assert box.there() == {"court.list": b"person.example\n"}


# ---- ends

def test_a_full_disk_leaves_everything_as_it_was(box, monkeypatch):
    box.land(OLD)

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(module.shutil, "copyfileobj", full)
    assert "No space left on device; make room, what landed before stays" in box.refusal(NEW)
    assert os.listdir(box.drop) and not [name for name in os.listdir(box.drop) if name.startswith(HIDDEN)]


def killed_at(box: Box, line: int) -> bool:
    """Lands NEW in a process that is killed before that line of ours; whether it came so far."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    left = line

    def trace(frame, event, _):
        nonlocal left
        if "edgeblock" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    box.land(NEW)
    sys.settrace(None)
    os._exit(0)


def test_whoever_is_killed_at_any_line_leaves_whole_files_and_the_next_goes_on(tmp_path):
    lines = 0
    for line in range(0, 5000, 9):      # every ninth; which of them these are changes with every change
        (tmp_path / str(line)).mkdir()
        box = Box(tmp_path / str(line))
        (box.drop / "person.list").write_bytes(b"person.example\n")
        box.land(OLD)
        if not killed_at(box, line):
            break
        lines += 1
        for name, content in box.there().items():
            assert name.startswith(HIDDEN) or content in (OLD.get(name), NEW.get(name), b"person.example\n"), line
        again = Box(box.home)
        again.landing.sweep()
        record = read_record(box.kept)
        whole = again.landing.whole(record)
        if again.there() != {**OLD, "person.list": b"person.example\n"} and record.files.keys() == OLD.keys():
            assert not whole, line          # so that it asks for all of it
        again.land(NEW)
        assert again.there() == {**NEW, "person.list": b"person.example\n"}, line
        assert again.landing.whole(read_record(box.kept))
    assert lines > 40


def test_a_record_that_cannot_be_read_is_none(tmp_path):
    for text in (b"", b"{", b"[]", b"{}", b'{"format": 1, "known": []}', b'{"format": 2}', b"\xff", b"[" * 100_000,
                 b'{"format": 1, "known": {}, "files": {"a": [1]}, "landing": {}}'):
        (tmp_path / "x.json").write_bytes(text)
        assert read_record(tmp_path / "x.json") == Record()
    assert read_record(tmp_path / "none.json") == Record()
