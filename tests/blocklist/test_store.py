"""The state directory: whole files or none, the same after a restart, nothing of a list in plain text."""

import errno
import os
import stat

import pytest

from edgeblock import config
from edgeblock.blocklist import store as store_module
from edgeblock.blocklist.parts import ROW_SIZE
from edgeblock.blocklist.refresh import refresh
from edgeblock.blocklist.store import Store, open_file, read_key, write_file
from edgeblock.errors import ListError

from .making import KEY, compiled


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "state", KEY)
    made.prepare()
    return made


def test_a_key_is_made_once_and_for_its_owner_only(tmp_path):
    path = tmp_path / "state" / "key"
    with pytest.raises(ListError, match="the key cannot be used: No such file"):
        read_key(path)
    key = read_key(path, create=True)
    assert len(key) == 16 and read_key(path) == read_key(path, create=True) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["key"]
    path.write_bytes(b"short")
    with pytest.raises(ListError, match="is no key of 16 bytes; name another file, or remove it"):
        read_key(path)


def test_two_that_make_a_key_have_the_same(tmp_path, monkeypatch):
    path = tmp_path / "key"
    monkeypatch.setattr(store_module.Path, "exists", lambda self: False)
    first = read_key(path, create=True)
    assert read_key(path, create=True) == first


def test_a_part_comes_back(store):
    kept = store.keep(compiled(("court", None, ["listed.example", "=other.example"])), 1_700_000_000)
    found, problems = store.parts()
    assert list(found) == ["court"] and problems == []
    assert found["court"].digest == kept.digest and found["court"].built == 1_700_000_000
    assert found["court"].parts.lists[0].entries == 2
    [path] = store.lists.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"example" not in path.read_bytes()
    store.forget("court")
    store.forget("court")
    assert store.parts() == ({}, [])


def committed(store, name, at, together=False):
    """A version of a list with commitments; its root."""
    one = compiled((name, None, [f"v{at}.example"]))
    one.lists[0].root, one.commitments = f"{name}{at}", bytes(20)
    store.keep(one, at, together)
    return f"{name}{at}"


@pytest.mark.parametrize("together", [False, True])
def test_commitments_give_way_where_the_disk_is_full(store, monkeypatch, together):
    real, room = store_module.write_file, [0]

    def tight(path, fill, **more):
        if path.parent != store.proofs and len(list(store.proofs.iterdir())) > room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, fill, **more)

    before = [committed(store, "court", at) for at in (1, 2)]
    assert sorted(path.name for path in store.proofs.iterdir()) == before
    monkeypatch.setattr(store_module, "write_file", tight)
    room[0] = 1
    other = committed(store, "other", 3, together)
    assert {path.name for path in store.proofs.iterdir()} == {before[1], other}, "versions before go first"
    room[0] = 0
    store.settle()
    store.keep_answers("court", b"[]")
    assert list(store.proofs.iterdir()) == [] and store.answers("court") == b"[]"
    assert set(store.parts()[0]) == {"court", "other"}

    def full(path, fill, **more):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
    monkeypatch.setattr(store_module, "write_file", tight)
    committed(store, "court", 5)
    monkeypatch.setattr(store_module, "write_file", full)
    with pytest.raises(OSError, match="Input/output"):
        committed(store, "other", 6, together)
    store.settle()
    assert len(list(store.proofs.iterdir())) == 1, "it is not for them that another fault goes on"


def test_rules_come_into_force_whole_where_commitments_take_the_room(tmp_path, monkeypatch):
    """The first snapshot is written to its end before the disk says no, so its rows are spent."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "court.list").write_text("one.example\ntwo.example\n")
    rules = config.Rules(directory=tmp_path / "rules", key=tmp_path / "state" / "key")
    store = Store(rules.key.parent, read_key(rules.key, create=True), commits=True)
    real, refusals = store_module.write, []

    def tight(file, parts, key, built):
        real(file, parts, key, built)
        if "rules.snapshot" in file.name and any(store.proofs.iterdir()):
            refusals.append(file.name)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_module, "write", lambda file, *rest: tight(Named(file), *rest))
    said = refresh(rules, store, 1_700_000_000)
    assert len(refusals) == 1 and not said.problem and list(store.proofs.iterdir()) == []
    assert len(store.in_force().parts.rows) == 2 * ROW_SIZE == len(store.parts()[0]["court"].parts.rows)


class Named:
    """A file that tells its name, although it was opened by its number."""

    def __init__(self, file):
        self._file, self.name = file, os.readlink(f"/proc/self/fd/{file.fileno()}")

    def __getattr__(self, what):
        return getattr(self._file, what)


def test_which_versions_are_the_last_is_read_off_their_tables(store, monkeypatch):
    roots = [committed(store, "court", at) for at in (1, 2)]
    (store.lists / "bad.part").write_bytes(b"no list")
    monkeypatch.setattr(store_module, "check_whole", lambda *_: pytest.fail("every row is read"))
    store.drop_proofs(0)
    assert [path.name for path in store.proofs.iterdir()] == roots[1:]


@pytest.mark.parametrize(("spoil", "why"), [
    (lambda data: data[:-9], "has .* of .* bytes"), (lambda data: b"", "is empty"),
    (lambda data: b"x", "is no edgeblock"),
    (lambda data: data[:300] + bytes([data[300] ^ 1]) + data[301:], "was altered"),
])
def test_a_part_that_was_spoilt_is_named_and_the_others_are_there(store, spoil, why):
    for name in ("a", "b"):
        store.keep(compiled((name, None, ["listed.example"])), 5)
    path = store.lists / "a.part"
    path.write_bytes(spoil(path.read_bytes()))
    found, [problem] = store.parts()
    assert list(found) == ["b"]
    assert problem.startswith(f"{path}: ")
    with pytest.raises(ListError, match=why):
        open_file(path, KEY)


def test_a_part_under_another_name_is_not_that_list(store):
    store.keep(compiled(("a", None, ["listed.example"])), 5)
    (store.lists / "a.part").rename(store.lists / "b.part")
    assert store.parts() == ({}, [f"{store.lists}/b.part: is not the list b; remove it"])


def test_parts_of_another_key_are_not_used(store):
    store.keep(compiled(("a", None, ["listed.example"])), 5)
    found, [problem] = Store(store.directory, bytes(16)).parts()
    assert found == {} and "was built under another key" in problem


def test_what_was_published_is_told_until_it_is_spoilt(store):
    assert store.published() is None
    merged = compiled(("a", None, ["listed.example"]))
    store.publish(merged, 5)
    assert store.published() == merged.lists
    store.snapshot.write_bytes(store.snapshot.read_bytes()[:-1])
    assert store.published() is None


def test_what_a_killed_process_has_left_is_removed(store):
    for name in ("lists/.court.part.123.tmp", "rejected/.court.rejected.123.tmp", ".rules.snapshot.9.tmp",
                 ".refused.json.9.tmp", ".key.9.tmp"):
        (store.directory / name).write_bytes(b"half")
    (store.directory / ".others.tmp").touch()
    store.prepare()
    assert [path.name for path in store.directory.rglob(".*")] == [".others.tmp"]


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fill(file):
        file.write(b"new")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        write_file(path, fill)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_what_was_refused_is_remembered(store):
    assert store.refused() == {}
    court = dict.fromkeys(("file", "told", "origin", "where", "in_force", "sha256", "order", "uid", "owner"), "1")
    store.keep_refused({"court": court})
    assert store.refused() == {"court": court}
    store.keep_refused({"court": court, "of another version": {"origin": "1"}})
    assert store.refused() == {"court": court}
    for damaged in (b"{", b"[]", b'{"court": 1}'):
        (store.directory / "refused.json").write_bytes(damaged)
        assert store.refused() == {}


def test_a_state_directory_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ListError, match="file/lists: cannot be written: Not a directory|file: cannot be written: "):
        Store(tmp_path / "file", KEY).prepare()
