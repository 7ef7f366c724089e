"""What whoever may write into the rules directory can do there: get his own list refused, and nothing more.

In: files, kinds of files, names and exchanges of all sorts. Out: the other lists, as they should be. The same against
a running daemon, by an account that may do nothing else, is tests/live/test_writer.py.
"""

import ctypes
import fcntl
import os
import threading
from dataclasses import replace

import pytest

from edgeblock.blocklist import directory as directory_module
from edgeblock.blocklist import intake
from edgeblock.blocklist import refresh as refresh_module
from edgeblock.blocklist.directory import Finding, find_lists
from edgeblock.blocklist.lint import lint
from edgeblock.blocklist.load import load
from edgeblock.blocklist.refresh import refresh_one
from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.store import Store, read_key
from edgeblock.errors import ListError

from .making import KEY
from .test_refresh import NOW, Box, many, sign
from .test_signature import Signer

RENAME_EXCHANGE = 2
AT_FDCWD = -100


@pytest.fixture
def box(tmp_path):
    box = Box(tmp_path)
    box.write(court_list="old.example\n", other_list="other.example\n")
    box.refresh()
    return box


def exchange(one, other):
    ctypes.CDLL(None).renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)


# One list's fault is one list's ----------------------------------------------------------------------------------

SETTINGS = {
    "brackets": b"[" * 60_000, "values": b"a=" + b"[" * 60_000, "tables": b"a=" + b"{a=" * 20_000,
    "dotted": b".".join([b"a"] * 30_000) + b"=1", "digits": b"max_growth = " + b"9" * 5000,
    "hexadecimal": b"widest_ipv4 = 0x" + b"f" * 60_000, "date": b"expires = 0001-01-01T00:00:00+23:59",
    "year": b"expires = 9999-12-31T23:59:59-23:59", "nul": b"\0" * 100, "no text": bytes(range(128, 256)),
    "infinite": b"max_growth = inf", "none": b"max_shrink = nan", "long key": b"a" * 60_000 + b"=1",
    "long text": b"category = '" + b"a" * 60_000 + b"'\nx=1", "line end": b'category = "a\\nb"',
}


@pytest.mark.parametrize("case", SETTINGS)
def test_no_settings_reach_another_list(box, case):
    box.write(court_toml=SETTINGS[case], other_list="new.example\n")
    outcome = box.refresh()
    assert ("taken", "other") in box.changes() and box.action("new.example") == "other"
    assert set(outcome.refused) <= {"court"} and outcome.problem == ""
    assert all(len(line) < 1200 and line.isprintable() for one in outcome.refused for line in box.reason(one))
    lint(box.folder, box.rules)
    assert box.action("old.example") in ("court", None)


ERRORS = [RecursionError(), MemoryError(), KeyError("x"), UnicodeError("x"), EOFError(), StopIteration(),
          BufferError(), type("Strange", (Exception,), {})()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["reader", "settings", "guard"])
def test_whatever_is_raised_refuses_one_list(box, monkeypatch, error, where):
    read, parse = directory_module.formats.READERS["domains"], directory_module.parse_settings

    def reader(file):
        for item in read(file):
            if getattr(item, "key", b"") == b"bad.example":
                raise error
            yield item

    def parser(text, *more):
        if b"bad" in text:
            raise error
        return parse(text, *more)

    if where == "reader":
        monkeypatch.setattr("edgeblock.blocklist.directory.formats.READERS", {"domains": reader})
    elif where == "settings":
        monkeypatch.setattr(directory_module, "parse_settings", parser)
    else:
        refuses = intake.Guard.refuses
        monkeypatch.setattr(intake.Guard, "refuses", lambda self, entry: refuses(self, entry)
                            if entry.key != b"bad.example" else (_ for _ in ()).throw(error))
    box.write(court_list="bad.example\n", court_toml="category = 'bad'", other_list="new.example\n")
    outcome = box.refresh()
    assert list(outcome.refused) == ["court"] and box.changes() == [("taken", "other")]
    assert "bad.example" not in str(vars(outcome)) and box.action("old.example") == "court"


def test_a_fault_of_the_whole_directory_leaves_everything_in_force(box, monkeypatch):
    monkeypatch.setattr(refresh_module, "find_lists", lambda *_, **__: (_ for _ in ()).throw(RecursionError()))
    outcome = box.refresh(hurry=True)
    assert "RecursionError at test_faults.py" in outcome.problem and outcome.changes == []
    assert [one["name"] for one in outcome.lists] == ["court", "other"] and box.action("old.example") == "court"


def sparse(path):
    path.touch()
    os.truncate(path, 6 << 40)


def held(path):
    path.write_text("x")
    handle = os.open(path, os.O_RDONLY)
    fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)


KINDS = {"a pipe": os.mkfifo, "a hole of 6 TB": sparse, "a directory": os.mkdir, "a link to nowhere":
         lambda path: path.symlink_to("nowhere"), "a link out": lambda path: path.symlink_to("/etc/passwd"),
         "a link to a device": lambda path: path.symlink_to("/dev/zero"), "a lease": held,
         "a link to itself": lambda path: path.symlink_to(path.name)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["court.rejected", "court.toml", "court.list.minisig", "new.list", "new.toml", "x.y",
                                  "x.rejected", "bad.rejected"])
def test_no_kind_of_file_is_in_the_way(box, kind, name):
    signer = Signer(1)
    box.rules = replace(box.rules, signers=(f"court={signer.public}",))
    try:
        KINDS[kind](box.folder / name)
    except OSError:
        return                      # not on this file system
    box.write(other_list="new.example\n", bad_list="co.uk\n")
    outcome = box.refresh()
    assert ("taken", "other") in box.changes() and box.action("new.example") == "other"
    assert outcome.problem == "" and outcome.refused["bad"]["told"].startswith("bad.list:1: cannot be used; ")
    lint(box.folder, box.rules)
    box.write(other_list="newer.example\n", bad_list="good.example\n")
    assert "bad" not in box.refresh().refused and box.action("newer.example") == "other"


NAMES = [b"a\nb.list", b"a\x1b[2Jb.list", b"\xff\xfe.list", "a\u202etsil.list".encode(), b"x\nrules loaded.zz",
         b"\xff.toml", b"a\nb.toml", b"[bold]x[bold].list", b"-rf.list", b"..list", b"%s%n.list", b"\\.list",
         b"a" * 251 + b".zz", b"a" * 246 + b".list", b" .list", b".list", b"CON.list", "ä.list".encode(), b"a.list\n"]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_is_in_the_way_and_all_that_is_printed_is_printable(box, name):
    with open(os.path.join(os.fsencode(box.folder), name), "wb") as file:
        file.write(b"co.uk\n")
    box.write(other_list="new.example\n")
    outcome = box.refresh()
    assert box.action("new.example") == "other" and box.action("old.example") == "court"
    for text in (*outcome.warnings, *(one["told"] + one["file"] for one in outcome.refused.values()),
                 *map(str, lint(box.folder, box.rules).findings)):
        assert text.isprintable(), ascii(text)
    try:
        said = [str(warning) for warning in load(box.folder, box.rules).warnings]
    except ListError as refused:
        said = [str(refused)]
    assert all(text.isprintable() for text in said)


def test_what_a_list_says_is_printed_printable():
    assert str(Finding("a\nb", 3, "x\x1b[31m\u202e\udc80")) == r"a\nb:3: x\x1b[31m\u202e\udc80"
    assert len(str(Finding("a", 3, "x" * 100_000))) < 1100


def test_a_directory_with_too_many_lists_keeps_those_it_has(box, monkeypatch):
    monkeypatch.setattr(directory_module, "LISTS_MAX", 20)
    monkeypatch.setattr(directory_module, "OWNER_LISTS_MAX", 10)
    monkeypatch.setattr(refresh_module, "REFUSED_MAX", 50)
    for number in range(100):
        (box.folder / f"a{number}.list").write_text("co.uk\n" if number % 2 else f"h{number}.example\n")
    box.write(other_list="new.example\n")
    outcome = box.refresh()
    assert box.action("new.example") == "other" and box.action("old.example") == "court"
    told = [one["told"] for one in outcome.refused.values()]
    assert len(told) == 50 and sum("is one list too many of its owner, who may have 10" in one for one in told) > 40
    assert f"{box.folder}: 46 more lists are refused" in outcome.warnings or any(
        "more lists are refused" in one for one in outcome.warnings)
    if os.getuid() == 0:            # another owner has room
        box.write(zz_list="zz.example\n")
        os.chown(box.folder / "zz.list", 65534, 65534)
        box.refresh()
        assert box.action("zz.example") == "zz"


def test_an_absolute_link_into_the_directory_is_followed(box):
    (box.folder / ".releases").mkdir()
    (box.folder / ".releases" / "7").write_text("new.example\n")
    (box.folder / "court.list").unlink()
    (box.folder / "court.list").symlink_to(box.folder / ".releases" / "7")
    box.refresh()
    assert box.action("new.example") == "court"
    (box.folder / ".releases" / "7").unlink()
    (box.folder / ".releases" / "7").symlink_to("/etc/hostname")
    box.refresh()
    assert "is a link that leads out of" in box.reason("court")[0]


@pytest.mark.parametrize("name", ["court.list", "court.toml", "court.list.minisig"])
def test_a_race_reads_nothing_outside(box, name, tmp_path):
    """Names are exchanged all the time, also while one is opened."""
    secret = tmp_path / "secret"
    secret.write_text("zqx-secret ..\n")
    box.rules = replace(box.rules, signers=(f"court={Signer(1).public}",) if "minisig" in name else ())
    real, link = box.folder / name, box.folder / ".link"
    if not real.exists():
        real.write_text("")
    link.symlink_to(secret)
    over = threading.Event()

    def race():
        while not over.is_set():
            exchange(real, link)

    threads = [threading.Thread(target=race) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(60):
            box.refresh(afresh=True)
            for path in box.folder.glob("*.rejected"):
                assert "zqx" not in path.read_text()
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert box.action("other.example") == "other"


def test_a_kernel_without_openat2_follows_no_link(box, monkeypatch):
    monkeypatch.setattr(directory_module, "SYS_OPENAT2", 9999)
    (box.folder / "real").write_text("linked.example\n")
    (box.folder / "new.list").symlink_to("real")
    box.write(other_list="new.example\n")
    box.refresh()
    assert box.action("new.example") == "other" and box.action("linked.example") is None


def test_more_lists_than_a_process_can_map(box, monkeypatch):
    """There are 65 530 mappings, and a writer with as many files ended the compiler."""
    monkeypatch.setattr(directory_module, "OWNER_LISTS_MAX", 50)
    monkeypatch.setattr(directory_module, "ERRORS_MAX", 100)
    for number in range(66_000):
        os.close(os.open(box.folder / f"b{number}.list", os.O_CREAT | os.O_WRONLY))
    box.write(a_list="new.example\n", court_list="older.example\n")
    outcome = box.refresh()
    assert box.action("new.example") == "a" and box.action("older.example") == "court"
    assert len(outcome.lists) == 50 and len(outcome.refused) == 100
    assert f"{box.folder}: has {66_000 + 3 - 150} more files that are refused" in outcome.warnings


# Time ------------------------------------------------------------------------------------------------------------

ANY_ADDRESS = "widest_ipv4 = 0\nallow_addresses = true\nallow_protected = true\nallow_shared = true"


def test_a_slow_list_is_left_for_another_process(box, monkeypatch):
    monkeypatch.setattr(refresh_module, "SLICE", 0.05)
    text = "".join(f"0.0.{number % 256}.{number // 256}-255.255.255.{number % 250}\n" for number in range(3000))
    box.write(slow_toml=ANY_ADDRESS, slow_list=text, other_list="new.example\n")
    outcome = box.refresh(lane={})
    assert box.changes() == [("taken", "other")] and outcome.refused == {}
    [(name, origin, uid)] = outcome.slow
    assert (name, uid) == ("slow", os.getuid())
    assert box.refresh(lane={"slow": {"origin": origin}}).slow == []        # it is being read
    assert refresh_one(box.rules, Store(box.store.directory, KEY, slow=True), NOW, "slow") == {}
    assert box.refresh(lane={}).slow == [] and box.changes() == [("taken", "slow")]


def test_a_list_that_exceeds_its_time_is_refused_with_that_reason(box, monkeypatch):
    monkeypatch.setattr(refresh_module, "SLICE", 0.05)
    for module in (refresh_module, intake):
        monkeypatch.setattr(module, "seconds_for", lambda size: 0.1)
    text = "".join(f"0.0.{number % 256}.{number // 256}-255.255.255.{number % 250}\n" for number in range(9000))
    box.write(slow_toml=ANY_ADDRESS, slow_list=text)
    [(name, origin, _)] = box.refresh(lane={}).slow
    told = refresh_one(box.rules, Store(box.store.directory, KEY, slow=True), NOW, "slow")
    assert told["told"] == ("slow.list: takes more than 0 s of processor time to read; split it, or write it in a "
                            "simpler way")
    outcome = box.refresh(lane={"slow": told})
    assert outcome.refused["slow"]["told"] == told["told"] and outcome.slow == []
    assert box.reason("slow") == [told["told"]]
    assert box.refresh(lane={}).slow == []                              # a restart does not read it again


def test_a_list_that_ends_the_process_is_refused(box):
    box.write(court_list="new.example\n", other_list="new.example\n")
    origin = box.refresh(busy=["court.list", "other.list"]) and None
    terms = intake.make_terms(box.rules, KEY)
    [source] = [one for one in find_lists(box.folder, terms.defaults)[0] if one.name == "court"]
    origin = intake.origin_of(source, terms)
    box.store.begin("court", origin)
    outcome = box.refresh(lane={}, died=True)
    assert box.changes() == [("taken", "other")] and outcome.slow == [("court", origin, os.getuid())]
    slow = Store(box.store.directory, KEY, slow=True)
    slow.begin("court", origin, 1)
    told = refresh_one(box.rules, slow, NOW, "court", died=True)
    assert "has ended the process that reads it, again and again" in told["told"]
    assert "court" in box.refresh(lane={"court": told}).refused and box.action("old.example") == "court"


def test_one_owner_does_not_hold_up_another(box, monkeypatch):
    if os.getuid() != 0:
        return                          # only root can make files of others
    taken = []
    monkeypatch.setattr(refresh_module, "take", lambda source, *more: taken.append(source.name) or intake.take(
        source, *more))
    for number in range(20):
        (box.folder / f"a{number:02}.list").write_text(f"h{number}.example\n")
        os.chown(box.folder / f"a{number:02}.list", 65534, 65534)
    box.write(urgent_list=many(50))
    box.refresh(lane={})
    assert "urgent" in taken[:2]


# What only the operator may say ----------------------------------------------------------------------------------

def test_locked_settings_are_the_operators(box):
    box.rules = replace(box.rules, locked=("mandatory", "allow_public_suffixes", "max_shrink"))
    box.write(court_list="co.uk\n", court_toml="allow_public_suffixes = true\naction = 'drop'\n")
    box.refresh()
    assert box.reason("court") == [
        "court.toml: allow_public_suffixes is locked: [rules] locked in the main configuration has it, and there "
        "only the operator can allow it, with unlocked = [\"court=allow_public_suffixes\"]"]
    assert any("is locked" in str(one) for one in lint(box.folder, box.rules).findings)
    assert not any("is locked" in str(one) for one in lint(box.folder).findings)    # on a desk nothing is
    assert any("is locked" in str(one) for one in load(box.folder, box.rules).warnings)
    box.write(court_toml="action = 'drop'\nmandatory = false\n")    # what is the default is no change
    box.refresh()
    assert box.reason("court") == [
        "court.list:1: 'co.uk' is a public suffix; if that is meant, put allow_public_suffixes = [\"co.uk\"] into "
        "[rules] of the main configuration, as no settings of a list may say it (locked)",
        'court.list: guarded = "skip" in the settings of this list takes it without this entry']
    box.rules = replace(box.rules, unlocked=("court=allow_public_suffixes",))
    box.write(court_toml="allow_public_suffixes = true\n")
    assert box.refresh().refused == {}
    box.write(court_toml="mandatory = true\n")
    assert list(box.refresh().refused) == ["court"]
    box.rules = replace(box.rules, unlocked=("court",))
    box.write(court_list="x.example\n")
    assert box.refresh().refused == {}


def test_advice_is_never_what_is_set_already(box):
    box.write(court_list="co.uk\nac.uk\n", court_toml="allow_public_suffixes = ['co.uk']\n")
    box.refresh()
    assert 'put allow_public_suffixes = ["co.uk", "ac.uk"] into' in box.reason("court")[0]


# Signatures and loss ---------------------------------------------------------------------------------------------

def test_an_older_list_cannot_be_played_again_after_a_removal(box):
    signer = Signer(1)
    box.rules = replace(box.rules, signers=(f"court={signer.public}",))
    sign(box, signer, "newer.example\n", 2000)
    box.refresh()
    (box.folder / "court.list").unlink()
    box.refresh()
    assert ("removed", "court") in box.changes() and box.action("newer.example") is None
    sign(box, signer, "older.example\n", 1000)
    box.store = Store(box.store.directory, KEY)
    box.refresh()
    assert "is older than the version" in box.reason("court")[0] and box.action("older.example") is None
    (box.store.stamps / "court").write_text("garbage")
    sign(box, signer, "third.example\n", 3000)
    assert "is damaged" in box.refresh().refused["court"]["told"] and box.action("third.example") is None
    (box.store.stamps / "court").unlink()
    box.refresh(afresh=True)
    assert box.action("third.example") == "court"


@pytest.mark.parametrize("hurry", [False, True])
def test_an_empty_directory_takes_no_short_list_out_of_force(box, hurry):
    for name in ("court.list", "other.list"):
        (box.folder / name).rename(box.home / name)
    outcome = box.refresh(hurry=hurry)
    assert sorted(outcome.refused) == ["court", "other"] and box.action("old.example") == "court"
    assert "2 of 2 lists would go" in box.reason("court")[0]
    box.rules = replace(box.rules, locked=("max_shrink",))
    box.refresh()
    assert "unlocked = [\"court=max_shrink\"]" in box.reason("court")[0]
    box.write(court_toml="max_shrink = 1\n", other_toml="max_shrink = 1\n")
    assert sorted(box.refresh().refused) == ["court", "other"]
    assert "unlocked = [\"court=max_shrink\"] put into [rules], and else put the file back" in box.reason("court")[0]
    box.rules = replace(box.rules, locked=())
    box.refresh()
    assert box.changes() == [("removed", "court"), ("removed", "other")]


def test_the_last_list_is_held_back_too(tmp_path):
    box = Box(tmp_path)
    box.write(court_list="old.example\n")
    box.refresh()
    (box.folder / "court.list").unlink()
    assert list(box.refresh().refused) == ["court"] and box.action("old.example") == "court"


def test_a_key_that_others_may_read_is_refused(tmp_path):
    read_key(tmp_path / "key", create=True)
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(ListError, match=r"the key may be read by others \(mode 0640\); chmod 600 "):
        read_key(tmp_path / "key")


def test_nothing_is_locked_without_a_configuration():
    assert ListSettings().locked == ()


def test_settings_that_take_too_long_are_on_their_owners_account(box, monkeypatch):
    """The same name of five hundred parts again and again takes far longer than its length says, and all settings are
    read in every round. One of thirty thousand parts takes a minute with Python before 3.14."""
    monkeypatch.setattr(directory_module, "SETTINGS_SECONDS", 0.01)
    monkeypatch.setattr(directory_module, "SETTINGS_ALL_SECONDS", 0.02)
    slow = b"".join(b".".join([b"a"] * 500) + b".b%d = 1\n" % number for number in range(60))
    for number in range(6):
        box.write(**{f"a{number}_list": "a.example\n", f"a{number}_toml": slow})
    box.write(other_list="new.example\n")
    outcome = box.refresh()
    assert len(outcome.refused) == 6 and box.action("new.example") == "other"
    assert "takes more than 0.01 s of processor time" in box.reason("a0")[0]
    assert "all settings of its owner together take more than 0.02 s" in box.reason("a5")[0]
