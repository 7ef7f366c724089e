"""A rules directory taken in list by list: what changed is taken or refused, everything else stays in force."""

import errno
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from dataclasses import replace
from unittest.mock import Mock

import pytest

from edgeblock import config
from edgeblock.blocklist import intake
from edgeblock.blocklist import refresh as refresh_module
from edgeblock.blocklist import store as store_module
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.refresh import MARK, refresh
from edgeblock.blocklist.store import Store, open_file
from edgeblock.errors import ListError

from .making import KEY
from .test_signature import Signer

NOW = 1_700_000_000


class Box:
    """A rules directory, a state directory, and what is in force."""

    def __init__(self, home):
        self.home = home
        self.folder = home / "rules"
        self.folder.mkdir()
        self.store = Store(home / "state", KEY)
        self.rules = config.Rules(directory=self.folder, key=home / "state" / "key")

    def write(self, **files):
        """write(court_list="a.example") is the file court.list, and what is renamed in counts at once."""
        for name, text in files.items():
            name = name.replace("_", ".")
            new = self.folder / f".{name}.new"
            new.write_bytes(text if isinstance(text, bytes) else text.encode())
            new.rename(self.folder / name)

    def refresh(self, now=NOW, **more):
        self.outcome = refresh(self.rules, self.store, now, **more)
        json.dumps(vars(self.outcome))
        left = [str(path) for path in self.home.rglob("*.tmp")]
        assert left == []
        return self.outcome

    def action(self, host):
        found = ListMatcher(open_file(self.store.snapshot, KEY)).look_up("tls", host.encode())
        return found and found.list

    def changes(self):
        return [(change["change"], change["list"]) for change in self.outcome.changes]

    def reason(self, name):
        """The reason beside the list, without its first line."""
        first, *lines = (self.folder / f"{name}.rejected").read_text().splitlines()
        assert first.startswith("edgeblock has refused this list; ")
        return lines


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path)


def many(count, what="h"):
    return "".join(f"{what}{number}.example\n" for number in range(count))


# Taking ------------------------------------------------------------------------------------------------------

def test_lists_are_taken_one_by_one_and_changes_told_once(box):
    box.write(a_list="a.example\n", b_list="b.example\nb.example\n")
    box.refresh()
    assert box.changes() == [("taken", "a"), ("taken", "b")]
    change = box.outcome.changes[1]
    assert (change["entries"], change["entries_before"], change["duplicates"], change["file"], change["uid"]) == (
        1, None, 1, "b.list", os.getuid())
    assert len(change["digest"]) == 32
    assert (box.action("a.example"), box.action("www.b.example")) == ("a", "b")
    before = box.store.snapshot.stat()
    assert box.refresh().changes == []
    assert box.store.snapshot.stat() == before
    box.write(b_list="c.example\n")
    box.refresh()
    assert box.changes() == [("taken", "b")] and box.outcome.changes[0]["entries_before"] == 1
    assert (box.action("a.example"), box.action("b.example"), box.action("c.example")) == ("a", None, "b")


def test_only_what_changed_is_read(box, monkeypatch):
    box.write(a_list="a.example\n", b_list="b.example\n")
    box.refresh()
    taken = []
    monkeypatch.setattr(refresh_module, "take",
                        lambda source, *more: taken.append(source.name) or intake.take(source, *more))
    box.write(b_list="c.example\n")
    box.refresh()
    box.write(a_toml='action = "drop"\n')
    box.refresh()
    box.rules = replace(box.rules, action="page")
    box.refresh()
    assert taken == ["b", "a", "b"]         # of a, the settings say what the configuration says no more
    assert {one["name"]: one["action"] for one in box.outcome.lists} == {"a": "drop", "b": "page"}


def test_settings_reach_the_snapshot(box):
    box.write(a_list="a.example/x\n",
              a_toml='action = "page"\nmandatory = true\ncategory = "orders"\nhttps = "host"\n')
    box.refresh()
    [record] = open_file(box.store.snapshot, KEY).parts.lists
    assert (record.name, record.action, record.mandatory, record.category, record.https, record.file) == (
        "a", "page", True, "orders", "host", "a.list")
    assert box.action("a.example") == "a"


def test_an_expired_list_leaves_force_and_may_come_back(box):
    box.write(a_list="a.example\n", a_toml="expires = 2023-11-14T22:13:30Z\n")
    box.refresh(NOW)
    assert box.action("a.example") == "a"
    box.refresh(NOW + 10)
    assert box.changes() == [("expired", "a")] and box.action("a.example") is None
    assert box.outcome.lists[0]["expired"] and box.outcome.lists[0]["entries"] == 0
    assert box.refresh(NOW + 20).changes == []
    box.write(a_toml="")
    box.refresh(NOW + 30)
    assert box.changes() == [("taken", "a")] and box.action("a.example") == "a"


def test_big_lists_do_not_hold_up_small_ones(box, monkeypatch):
    monkeypatch.setattr(refresh_module, "BATCH", 5000)
    box.write(big_list=many(200), bigger_list=many(300, "b"), small_list="s.example\n")
    box.refresh()
    assert box.changes() == [("taken", "big"), ("taken", "small")] and box.outcome.again
    box.refresh()
    assert box.changes() == [("taken", "bigger")] and not box.outcome.again


def test_small_lists_that_keep_coming_do_not_hold_up_a_big_one(box, monkeypatch):
    monkeypatch.setattr(refresh_module, "BATCH", 4000)
    box.write(big_list=many(300), small_list="s.example\n")
    box.refresh()
    assert box.changes() == [("taken", "small")] and box.outcome.again
    box.write(small_list="t.example\n")
    box.refresh()
    assert box.changes() == [("taken", "small")] and box.outcome.again
    box.write(small_list="u.example\n")
    box.refresh(overdue=True)
    assert box.changes() == [("taken", "big"), ("taken", "small")] and not box.outcome.again


def test_boxes_of_one_key_can_be_compared(box, tmp_path):
    box.write(a_list="a.example\n")
    content = box.refresh(NOW).content
    (tmp_path / "other").mkdir()
    other = Box(tmp_path / "other")
    other.write(a_list="a.example\n")
    assert other.refresh(NOW + 5).content == content
    other.write(a_toml="action = 'drop'\n")
    assert other.refresh(NOW + 5).content != content
    assert Box.refresh(box, NOW + 9).content == content


def test_in_a_hurry_a_long_list_is_served_as_it_was(box, monkeypatch):
    monkeypatch.setattr(refresh_module, "HURRY", 1000)
    box.write(long_list=many(200), small_list="s.example\n")
    box.refresh()
    assert box.changes() == [("taken", "long"), ("taken", "small")] and not box.outcome.again
    # The new one may be too much for this machine: a start must not depend on it.
    box.write(long_list=many(210), small_list="t.example\n", new_list=many(190, "n"))
    box.refresh(hurry=True)
    assert box.changes() == [("taken", "small")] and box.outcome.again
    box.refresh()
    assert box.changes() == [("taken", "long"), ("taken", "new")] and not box.outcome.again


def test_a_first_start_with_one_long_list_waits_for_it(box, monkeypatch):
    monkeypatch.setattr(refresh_module, "HURRY", 1000)
    box.write(long_list=many(200))
    box.refresh(hurry=True)
    assert box.changes() == [("taken", "long")] and not box.outcome.again


def test_what_comes_with_a_huge_list_does_not_wait_for_it(box, monkeypatch):
    """A list that is too much for the machine ends the process, again and again, with all that came with it."""
    monkeypatch.setattr(refresh_module, "BATCH", 4000)
    box.write(huge_list=many(300), small_list="s.example\n")
    box.refresh()
    assert box.changes() == [("taken", "small")] and box.outcome.again
    box.refresh()
    assert box.changes() == [("taken", "huge")] and not box.outcome.again


# Refusing ----------------------------------------------------------------------------------------------------

REFUSED = {
    "a public suffix": ({"court.list": "fine.example\nco.uk\n"}, "court.list:2: 'co.uk' is a public suffix"),
    "unusable lines": ({"court.list": "exmaple..com\n"}, "court.list: 1 of 1 lines cannot be used"),
    "growth": ({"court.list": many(5000)}, "court.list: grew from 2 entries to 5000"),
    "an empty file": ({"court.list": ""}, "court.list: shrank from 2 entries to 0"),
    "settings": ({"court.toml": "acton = 'drop'\n"}, "court.toml: unknown key 'acton'; did you mean 'action'?"),
    "two files of a name": ({"court.txt": "other.example\n"},
                            "court.txt: has the same list name as court.list; rename one"),
    "a range": ({"court.list": "192.0.0.0/8\n"}, "court.list:1: 192.0.0.0/8 is wider than /20"),
    "UTF-16": ({"court.list": "a.example\n".encode("utf-16")},
     "court.list:1: the file is UTF-16; save it as UTF-8, or put encoding = \"utf-16\" into the settings of "
     "this list"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_list_leaves_its_last_version_and_all_others_in_force(box, case):
    files, why = REFUSED[case]
    box.write(court_list="old.example\nolder.example\n", other_list="other.example\n")
    box.refresh()
    for name, text in files.items():
        box.write(**{name.replace(".", "_"): text})
    box.write(third_list="third.example\n")
    outcome = box.refresh()
    assert box.changes() == [("taken", "third")] and list(outcome.refused) == ["court"]
    assert box.reason("court")[0].startswith(why)
    assert [box.action(f"{host}.example") for host in ("old", "older", "other", "third")] == [
        "court", "court", "other", "third"]
    told = outcome.refused["court"]
    assert told["in_force"] and told["told"].startswith(why.split(": ")[0])
    for word in ("co.uk", "exmaple", "acton"):
        assert word not in json.dumps(vars(outcome))
    # The same after a restart, and without being read again.
    assert refresh(box.rules, Store(box.store.directory, KEY), NOW).refused == outcome.refused
    assert box.action("old.example") == "court"
    # Mended, it is taken, and the reason goes.
    (box.folder / "court.txt").unlink(missing_ok=True)
    box.write(court_list="new.example\nnewer.example\n", court_toml="")
    box.refresh()
    assert box.changes() == [("taken", "court")] and box.outcome.refused == {}
    assert not (box.folder / "court.rejected").exists()
    assert (box.action("new.example"), box.action("old.example")) == ("court", None)


def test_every_reason_stands_beside_the_list_and_the_file_stays(box):
    text = "\n".join(["co.uk", "fine.example", "com", *(f"a..{n}" for n in range(60))])
    box.write(court_list=text)
    box.refresh()
    lines = box.reason("court")
    assert [line.split(" is ")[0] for line in lines[:-1]] == ["court.list:1: 'co.uk'", "court.list:3: 'com'"]
    assert lines[-1] == 'court.list: guarded = "skip" in the settings of this list takes it without these 2 entries'
    assert (box.folder / "court.list").read_text() == text
    assert "there is no version before it" in (box.folder / "court.rejected").read_text()
    box.write(court_list="\n".join(f"a..{n}" for n in range(60)))
    box.refresh()
    lines = box.reason("court")
    assert lines[1] == "court.list:1: 'a..0' has an empty label" and len(lines) == 52
    assert lines[-1] == f"and 10 more; `edgeblock lint {box.folder}` names them all"


def test_each_refusal_can_be_overridden_for_one_list_by_one_key(box):
    box.write(court_list="old.example\n" * 2 + "older.example\n")
    box.refresh()
    for text, key in (("co.uk\nold.example\n", 'allow_public_suffixes = ["co.uk"]'),
                      ("a..b\nold.example\n", "max_unparsable = 0.5"), (many(5000), "max_growth = 10000"),
                      ("", "max_shrink = 1"), ("127.0.0.0/20\n", "allow_addresses = true")):
        box.write(court_list=text, court_toml="")
        assert list(box.refresh().refused) == ["court"], key
        box.write(court_toml=key)
        assert box.refresh().refused == {} and box.changes() == [("taken", "court")], key


def test_what_is_refused_is_read_again_when_asked_to(box, monkeypatch):
    signer = Signer(1)
    box.rules = replace(box.rules, signers=(signer.public,), require_signatures=True)
    sign(box, signer, "new.example\n", NOW + 90_000)
    assert "in the future" in box.refresh().refused["court"]["told"]
    assert list(box.refresh(NOW + 9000).refused) == ["court"]
    assert box.refresh(NOW + 9000, afresh=True).refused == {} and box.action("new.example") == "court"


def test_a_fault_of_a_reader_refuses_one_list(box, monkeypatch):
    box.write(court_list="old.example\n", other_list="a.example\n")
    box.refresh()
    box.write(court_list="new.example\n", other_list="b.example\nc.example\n")
    take = refresh_module.take
    monkeypatch.setattr(refresh_module, "take", lambda source, *more: (
        fail(KeyError("new.example")) if source.name == "court" else take(source, *more)))
    place = f"test_refresh.py:{fail.__code__.co_firstlineno + 1}"
    assert box.refresh().refused["court"]["told"] == (
        f"court.list: cannot be read by a fault of edgeblock (KeyError at {place}); please report it")
    assert box.changes() == [("taken", "other")] and box.action("old.example") == "court"


def test_the_end_of_a_refusal_is_told(box):
    box.write(court_list="old.example\n")
    box.refresh()
    box.write(court_txt="old.example\n", new_list="co.uk\n")
    assert sorted(box.refresh().refused) == ["court", "new"] and box.changes() == []
    for name in ("court.txt", "new.list"):
        (box.folder / name).unlink()
    assert box.refresh().changes == [{"change": "withdrawn", "list": "court", "entries_before": 1},
                                     {"change": "withdrawn", "list": "new", "entries_before": None}]
    assert box.refresh().changes == []


def test_who_changed_what_a_list_does_is_told(box):
    box.write(court_list="a.example\n")
    [taken] = box.refresh().changes
    assert (taken["action"], taken["uid"], taken["settings_uid"]) == ("reset", os.getuid(), None)
    box.write(court_toml="action = 'drop'")
    [taken] = box.refresh().changes
    assert (taken["action"], taken["settings_uid"]) == ("drop", os.getuid())


def test_the_reason_is_no_more_readable_than_the_list(box):
    box.write(court_list="co.uk\n", open_list="co.uk\n")
    (box.folder / "court.list").chmod(0o600)
    (box.folder / "open.list").chmod(0o644)
    box.refresh()
    assert stat.S_IMODE((box.folder / "court.rejected").stat().st_mode) == 0o600
    assert stat.S_IMODE((box.folder / "open.rejected").stat().st_mode) == 0o644


def test_whoever_drops_a_list_that_may_not_be_read_can_read_why(box, monkeypatch):
    """Only its owner may read the list; the reason quotes nothing of it."""
    box.write(court_list="a.example\n")
    (box.folder / "court.list").chmod(0o600)
    refused = OSError(errno.EACCES, os.strerror(errno.EACCES))
    monkeypatch.setattr("edgeblock.blocklist.directory.open_inside", Mock(side_effect=refused))
    box.refresh()
    where = box.folder / "court.rejected"
    assert stat.S_IMODE(where.stat().st_mode) == 0o640
    assert "make it readable to edgeblock's group, such as with chmod g+r court.list" in where.read_text()


def test_somebody_elses_file_of_that_name_is_left_alone(box):
    box.write(court_list="a.example\n", court_rejected="notes of the list manager")
    (box.folder / "dir.rejected").mkdir()
    box.refresh()
    assert (box.folder / "court.rejected").read_text() == "notes of the list manager"


def test_a_reason_that_cannot_stand_beside_its_list_is_in_the_state_directory(box):
    box.write(court_list="co.uk\n")
    (box.folder / "court.rejected").mkdir()
    outcome = box.refresh()
    where = box.store.rejected / "court.rejected"
    assert outcome.refused["court"]["told"] == (
        f"court.list:1: cannot be used; {where} says why (allow_public_suffixes)")
    assert where.read_bytes().startswith(MARK)
    assert "co.uk" not in where.read_text()         # the state directory has no plain text of a list
    assert f"court.list:1: cannot be used; `edgeblock lint {box.folder}` says why (allow_" in where.read_text()
    box.write(court_list="a.example\n")
    box.refresh()
    assert not where.exists()


def test_the_last_version_outlives_a_restart_with_a_file_that_is_broken(box):
    box.write(court_list="old.example\n")
    box.refresh()
    box.write(court_list="co.uk\n")
    for _ in range(3):
        outcome = refresh(box.rules, Store(box.store.directory, KEY), NOW)
        assert outcome.refused["court"]["in_force"] and box.action("old.example") == "court"


def test_an_unreadable_directory_leaves_everything_in_force(box):
    box.write(court_list="old.example\n")
    box.refresh()
    shutil.rmtree(box.folder)
    outcome = box.refresh()
    assert outcome.problem == f"{box.folder}: there is no such rules directory; make it, or name another"
    assert outcome.changes == [] and [one["name"] for one in outcome.lists] == ["court"]
    assert box.action("old.example") == "court"


def test_protected_names_that_cannot_be_read_refuse_nothing_and_take_nothing(box):
    box.write(court_list="old.example\n")
    box.refresh()
    box.rules = replace(box.rules, protected=box.home / "absent")
    box.write(court_list="new.example\n")
    assert box.refresh().problem.endswith("absent: the protected names cannot be read: No such file or directory")
    assert box.action("old.example") == "court"


# Signatures --------------------------------------------------------------------------------------------------

def sign(box, signer, text, stamp):
    """The list and its signature, as somebody drops them: the signature first."""
    box.write(court_list_minisig=signer.sign(text.encode(), f"timestamp:{stamp}\tfile:court.list"))
    box.write(court_list=text)


def test_a_signed_list_and_what_is_none(box):
    signer, other = Signer(1), Signer(2)
    box.rules = replace(box.rules, signers=(f"court={signer.public}",))
    sign(box, signer, "old.example\n", 1000)
    box.refresh()
    assert box.outcome.changes[0]["signed"] == 1000 and box.action("old.example") == "court"

    sign(box, other, "new.example\n", 2000)
    box.refresh()
    assert "is signed with the key" in box.reason("court")[0] and box.action("old.example") == "court"
    box.write(court_list_minisig=signer.sign(b"another\n", "timestamp:2000\tfile:court.list"))
    box.refresh()
    assert "the signature does not fit the list" in box.reason("court")[0]
    (box.folder / "court.list.minisig").unlink()
    box.refresh()
    assert "there is no court.list.minisig" in box.reason("court")[0]
    assert box.action("old.example") == "court" and box.outcome.refused["court"]["in_force"]

    sign(box, signer, "new.example\n", 2000)
    box.refresh()
    assert box.outcome.refused == {} and box.action("new.example") == "court"


def test_an_older_list_cannot_be_played_again_after_a_restart_either(box):
    signer = Signer(1)
    box.rules = replace(box.rules, signers=(signer.public,), require_signatures=True)
    sign(box, signer, "newer.example\n", 2000)
    box.refresh()
    sign(box, signer, "older.example\n", 1000)
    for _ in range(2):
        box.store = Store(box.store.directory, KEY)
        box.refresh()
        assert box.reason("court")[0].startswith("court.list: is older than the version in force")
        assert (box.action("newer.example"), box.action("older.example")) == ("court", None)


def test_a_list_stays_as_it_is_while_its_signature_is_being_written(box):
    signer = Signer(1)
    box.rules = replace(box.rules, signers=(signer.public,), require_signatures=True)
    sign(box, signer, "old.example\n", 1000)
    box.refresh()
    sign(box, signer, "new.example\n", 2000)
    assert box.refresh(busy=["court.list.minisig"]).refused == {} and box.action("old.example") == "court"
    box.refresh()
    assert box.action("new.example") == "court"


# Removing ----------------------------------------------------------------------------------------------------

def test_removing_a_file_removes_its_list(box):
    box.write(a_list="a.example\n", b_list="b.example\n")
    box.refresh()
    (box.folder / "a.list").unlink()
    box.refresh()
    assert box.changes() == [("removed", "a")] and box.outcome.changes[0]["entries_before"] == 1
    assert (box.action("a.example"), box.action("b.example")) == (None, "b")
    assert [path.name for path in box.store.lists.iterdir()] == ["b.part"]


def test_too_much_that_goes_at_once_is_held_back_until_it_is_meant(box):
    box.write(a_list=many(300), b_list=many(200, "b"))
    box.refresh()
    (box.folder / "a.list").rename(box.home / "a.list")
    outcome = box.refresh()
    assert box.changes() == [] and list(outcome.refused) == ["a"] and box.action("h1.example") == "a"
    assert box.reason("a") == [
        "a.list: was removed, and with it 300 of 500 entries of all lists would go, more than a share of 0.5; if "
        "that is meant, write a.toml with max_shrink = 1, and else put the file back"]
    assert "was removed" in outcome.refused["a"]["told"]
    assert box.refresh().refused == outcome.refused and box.action("h1.example") == "a"
    box.write(a_toml="max_shrink = 1\n")
    box.refresh()
    assert box.changes() == [("removed", "a")] and box.action("h1.example") is None
    assert not (box.folder / "a.rejected").exists()


def test_a_directory_that_lost_all_its_files_loses_no_list(box):
    box.write(a_list=many(150), b_list=many(150, "b"))
    box.refresh()
    for path in box.folder.iterdir():
        path.rename(box.home / path.name)
    assert sorted(box.refresh().refused) == ["a", "b"] and box.action("h1.example") == "a"
    for name in ("a.list", "b.list"):
        (box.home / name).rename(box.folder / name)
    assert box.refresh().refused == {} and box.outcome.changes != [] or box.action("b1.example") == "b"


def test_a_list_that_is_renamed_is_not_missed(box):
    box.write(a_list=many(300))
    box.refresh()
    (box.folder / "a.list").rename(box.folder / "b.list")
    box.refresh()
    assert box.changes() == [("removed", "a"), ("taken", "b")] and box.action("h1.example") == "b"


def test_expired_and_empty_lists_go_freely(box):
    box.write(a_list=many(300), a_toml="expires = 2020-01-01\n", b_list=many(200, "b"), b_toml="max_shrink = 1\n")
    box.refresh()
    for name in ("a.list", "a.toml", "b.list", "b.toml"):
        (box.folder / name).unlink()
    assert box.refresh().refused == {} and box.changes() == [("removed", "a"), ("removed", "b")]


# Faults ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("make", "why"), [
    (lambda path: path.mkdir(), "is a directory, not a file"),
    (os.mkfifo, "is a pipe, not a file"),
    (lambda path: path.symlink_to(path.parent / "nowhere"), "cannot be read: No such file or directory"),
    (lambda path: path.symlink_to("/etc/passwd"), "is a link that leads out of "),
    (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
    (lambda path: path.symlink_to("/dev/zero"), "is a link that leads out of "),
    (lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), "is a special file, not a file"),
])
def test_what_is_no_file_is_refused_at_once(box, make, why):
    box.write(court_list="old.example\n", other_list="other.example\n")
    box.refresh()
    (box.folder / "court.list").unlink()
    make(box.folder / "court.list")
    box.refresh()
    assert box.reason("court")[0].startswith(f"court.list: {why}")
    assert (box.action("old.example"), box.action("other.example")) == ("court", "other")


def test_settings_and_signatures_are_no_way_out_of_the_directory_either(box):
    secret = box.home / "secret"
    secret.write_text("a secret of the daemon's\n")
    box.write(court_list="a.example\n")
    (box.folder / "court.toml").symlink_to(secret)
    box.refresh()
    assert box.reason("court") == [
        f"court.toml: is a link that leads out of {box.folder}; copy the file here instead"]


def test_a_link_inside_the_directory_is_followed(box):
    (box.folder / ".releases").mkdir()
    (box.folder / ".releases" / "7").write_text("a.example\n")
    (box.folder / "court.list").symlink_to(".releases/7")
    box.refresh()
    assert box.action("a.example") == "court"


def test_a_file_without_read_permission(box):
    box.write(court_list="old.example\n")
    box.refresh()
    box.write(court_list="new.example\n")
    (box.folder / "court.list").chmod(0)
    with as_nobody(box.home):
        box.refresh()
        assert box.action("old.example") == "court"
    assert box.outcome.refused["court"]["told"] == (
        "court.list: cannot be read: Permission denied; make it readable to edgeblock's group, such as with "
        "chmod g+r court.list")


class as_nobody:
    """The block as an ordinary user, who owns the state and may write the rules directory."""

    def __init__(self, home):
        self.home = home

    def __enter__(self):
        if os.getuid() == 0:
            for path in [self.home, *self.home.rglob("*")]:
                os.chown(path, 65534, 65534, follow_symlinks=False)
            for path in self.home.parents:
                if path.owner() == "root" and path != path.parent and not stat.S_IMODE(path.stat().st_mode) & 1:
                    path.chmod(0o711)
            os.setegid(65534)
            os.seteuid(65534)

    def __exit__(self, *_):
        if os.getuid() == 0:
            os.seteuid(0)
            os.setegid(0)


def test_a_read_only_directory_gets_its_reasons_elsewhere(box):
    box.write(court_list="co.uk\n")
    with as_nobody(box.home):
        box.folder.chmod(0o555)
        try:
            outcome = box.refresh()
        finally:
            box.folder.chmod(0o755)
    assert outcome.refused["court"]["where"] == str(box.store.rejected / "court.rejected")
    assert os.listdir(box.folder) == ["court.list"]


def test_a_line_of_five_gigabytes(box):
    box.write(court_list="old.example\n")
    box.refresh()
    box.write(court_list="")
    os.truncate(box.folder / "court.list", 5 << 30)     # a hole: takes no room
    before = time.process_time()
    box.refresh()
    assert box.reason("court") == [f"court.list: is longer than {intake.LIST_BYTES_MAX} bytes; split it"]
    os.truncate(box.folder / "court.list", 3 << 30)
    box.refresh()
    assert box.reason("court")[0].startswith("court.list")
    assert time.process_time() - before < 30 and box.action("old.example") == "court"


def test_a_file_that_grows_while_it_is_read_is_taken_later(box, monkeypatch):
    box.write(court_list="old.example\n")
    box.refresh()
    box.write(court_list="new.example\n")

    read = intake.formats.READERS["domains"]

    def slow(file):
        yield from read(file)
        with open(box.folder / "court.list", "a") as writer:
            writer.write("ne..")

    monkeypatch.setattr("edgeblock.blocklist.directory.formats.READERS", {"domains": slow})
    outcome = box.refresh()
    assert outcome.again and outcome.refused == {} and box.action("old.example") == "court"


def test_a_file_that_is_replaced_while_it_is_read_is_the_old_one_and_then_the_new(box, monkeypatch):
    box.write(court_list="old.example\n")

    read = intake.formats.READERS["domains"]

    def slow(file):
        box.write(court_list="new.example\n")
        yield from read(file)

    monkeypatch.setattr("edgeblock.blocklist.directory.formats.READERS", {"domains": slow})
    box.refresh()
    assert box.action("old.example") == "court"
    monkeypatch.setattr("edgeblock.blocklist.directory.formats.READERS", {"domains": read})
    box.refresh()
    assert box.changes() == [("taken", "court")] and box.action("new.example") == "court"


def test_a_part_that_was_spoilt_on_disk_is_made_anew(box):
    box.write(court_list="a.example\n", other_list="b.example\n")
    box.refresh()
    (box.store.lists / "court.part").write_bytes(b"garbage")
    outcome = box.refresh()
    assert "is no edgeblock snapshot" in outcome.warnings[0]
    assert box.action("a.example") == "court" and box.refresh().warnings == []


def test_a_snapshot_that_was_spoilt_on_disk_is_made_anew(box):
    box.write(court_list="a.example\n")
    box.refresh()
    box.store.snapshot.write_bytes(b"garbage")
    box.refresh()
    assert box.action("a.example") == "court"


def test_a_list_that_was_removed_stays_while_no_snapshot_can_be_written(box, monkeypatch):
    """A daemon started on a disk that had become read-only, after a list was removed, and ended with an error."""
    box.write(court_list="old.example\n", other_list="other.example\n")
    box.refresh()
    (box.folder / "other.list").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "publish", lambda *_: fail(OSError(30, "Read-only file system")))
        outcome = box.refresh(hurry=True)
        assert "Read-only file system; the rules in force stay" in outcome.problem
        assert [one["name"] for one in outcome.lists] == ["court", "other"] and box.action("other.example")
        box.store.snapshot.unlink()
        with pytest.raises(ListError, match="cannot be written: Read-only file system$"):
            box.refresh()
    box.refresh()
    assert box.action("other.example") is None and box.outcome.problem == ""


def test_a_removed_list_that_cannot_be_deleted_is_out_of_force_all_the_same(box, monkeypatch):
    """What was published already was taken back as an error, at every look."""
    box.write(court_list="old.example\n", other_list="other.example\n")
    box.refresh()
    (box.folder / "other.list").unlink()
    monkeypatch.setattr(Store, "forget", lambda *_: fail(OSError(5, "Input/output error")))
    for _ in range(2):
        outcome = box.refresh()
        assert [one["name"] for one in outcome.lists] == ["court"] and box.action("other.example") is None
        assert outcome.problem == "" and outcome.warnings == [
            f"{box.store.directory}: cannot be written: Input/output error"]


def fail(error):
    raise error


@pytest.mark.parametrize("full", ["lists", "snapshot"])
def test_a_full_disk_changes_nothing(box, monkeypatch, full):
    box.write(court_list="old.example\n")
    box.refresh()
    box.write(court_list="new.example\n", other_list="other.example\n")
    write_file = store_module.write_file

    def no_room(path, fill, **more):
        if (path.parent.name == "lists") == (full == "lists") and path.name != "refused.json":
            raise OSError(28, "No space left on device")
        write_file(path, fill, **more)

    monkeypatch.setattr(store_module, "write_file", no_room)
    if full == "lists":
        outcome = box.refresh()
        assert outcome.again and sorted(outcome.refused) == ["court", "other"]
        assert box.reason("court") == [f"court.list: could be read, but not be kept: {box.store.lists}: "
                                       "No space left on device"]
    else:
        for hurry in (False, True):     # a daemon that runs, and one that starts
            outcome = box.refresh(hurry=hurry)
            assert outcome.problem == (f"{box.store.snapshot}: cannot be written: No space left on device; the rules "
                                       "in force stay")
            assert outcome.changes == [] and [one["name"] for one in outcome.lists] == ["court"]
    assert box.action("old.example") == "court"
    monkeypatch.setattr(store_module, "write_file", write_file)
    assert box.refresh().refused == {}
    assert (box.action("new.example"), box.action("other.example")) == ("court", "other")


def test_many_lists_go_to_the_disk_together(box, monkeypatch):
    """Ten thousand lists that each waited for the disk took minutes."""
    calls = []
    monkeypatch.setattr(store_module, "sync_all", lambda path: calls.append(path))
    monkeypatch.setattr(refresh_module, "TOGETHER_MAX", 5)
    box.write(**{f"l{number}_list": f"h{number}.example\n" for number in range(12)})
    box.refresh()
    assert calls == [box.store.lists] * 3
    assert len(list(box.store.lists.iterdir())) == len(box.outcome.lists) == 12
    assert box.action("h11.example") == "l11" and Store(box.store.directory, KEY).parts()[1] == []


@pytest.mark.parametrize("fault", ["sync_all", "sync_directory"])
def test_what_could_not_be_brought_to_the_disk_together_is_not_taken(box, monkeypatch, fault):
    names = [f"l{number}" for number in range(9)]
    box.write(**{f"{name}_list": f"{name}.old.example\n" for name in names[:-1]})
    box.refresh()
    box.write(**{f"{name}_list": f"{name}.new.example\n" for name in names})
    with monkeypatch.context() as patch:
        patch.setattr(store_module, fault, lambda path: fail(OSError(5, "Input/output error")) if str(path).endswith(
            "lists") else None)
        outcome = box.refresh()
    assert outcome.again and sorted(outcome.refused) == names
    assert box.reason("l8") == [f"l8.list: could be read, but not be kept: {box.store.lists}: Input/output error"]
    assert box.action("l0.old.example") == "l0" and box.action("l8.new.example") is None
    assert box.refresh().refused == {}
    assert (box.action("l0.new.example"), box.action("l8.new.example")) == ("l0", "l8")


KILLED = """
import os, signal, sys
from pathlib import Path
from edgeblock import config
from edgeblock.blocklist import refresh as module
from edgeblock.blocklist.refresh import refresh
from edgeblock.blocklist.store import Store

left = int(sys.argv[3])
module.TOGETHER = int(sys.argv[4])

def deadly(call):
    def wrapped(*arguments, **more):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **more)
    return wrapped

for name in ("open", "fchmod", "fsync", "rename", "unlink", "link"):
    setattr(os, name, deadly(getattr(os, name)))
home = Path(sys.argv[1])
rules = config.Rules(directory=home / "rules", key=home / "state" / "key")
refresh(rules, Store(home / "state", bytes.fromhex(sys.argv[2])), 1_700_000_000)
"""


@pytest.mark.parametrize("together", [1, 100])
def test_killed_at_every_step_that_it_takes_on_disk(box, together):
    """Whatever was reached, what is published is a whole snapshot, old or new, and the next round makes it new."""
    box.write(court_list="old.example\n", bad_list="co.uk\n")
    box.refresh()
    steps = 0
    while True:
        steps += 1
        box.write(court_list=f"new{steps}.example\n", bad_list="#\n" * steps + "co.uk\n")
        done = subprocess.run([sys.executable, "-c", KILLED, str(box.home), KEY.hex(), str(steps), str(together)],
                              check=False)
        old = "old.example" if steps == 1 else f"new{steps - 1}.example"
        assert [box.action(old), box.action(f"new{steps}.example")] in (["court", None], [None, "court"])
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        box.refresh()
        assert box.action(f"new{steps}.example") == "court" and list(box.outcome.refused) == ["bad"]
    assert steps > 20
