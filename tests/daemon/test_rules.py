"""The lists of a running daemon: compiled beside it, taken when still, refused without a word of what they say."""

import asyncio
import os
import stat
from datetime import UTC, datetime, timedelta

import pytest

from edgeblock.config import Rules
from edgeblock.daemon import rules
from edgeblock.errors import ListError


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "lists").mkdir()
    return Rules(directory=tmp_path / "lists", key=tmp_path / "state" / "key")


def load(settings):
    return asyncio.run(rules.load(settings))


def test_a_child_compiles_and_the_matcher_answers(settings):
    (settings.directory / "court.list").write_text("listed.example\n=only.example\n")
    (settings.directory / "pages.list").write_text("listed.example/page\n")
    (settings.directory / "pages.toml").write_text('action = "page"\n')
    loaded = load(settings)
    assert (loaded.lists, loaded.entries, loaded.expires) == (2, 3, None)
    assert loaded.matcher.look_up("tls", b"www.listed.example").list == "court"
    assert loaded.matcher.look_up("tls", b"www.only.example") is None
    assert stat.S_IMODE(settings.key.stat().st_mode) == 0o600
    assert load(settings).digest != load(Rules(settings.directory, "drop", "host", settings.key)).digest


def test_an_empty_directory_is_no_rules(settings):
    loaded = load(settings)
    assert (loaded.lists, loaded.entries) == (0, 0)
    assert loaded.matcher.look_up("tls", b"listed.example") is None


def test_the_first_expiry_is_told(settings):
    now = datetime.now(UTC)
    for name, days in (("soon", 1), ("later", 9), ("gone", -1)):
        (settings.directory / f"{name}.list").write_text("listed.example\n")
        expires = now + timedelta(days=days)
        (settings.directory / f"{name}.toml").write_text(f"expires = {expires:%Y-%m-%dT%H:%M:%SZ}\n")
    assert abs(load(settings).expires - (now + timedelta(days=1)).timestamp()) < 2


def test_what_the_child_refuses_is_the_error(settings, tmp_path):
    (settings.directory / "court.list").write_text("fine.example\nexmaple..com\n")
    with pytest.raises(ListError, match="^court.list:2: "):
        load(settings)
    with pytest.raises(ListError, match="there is no such rules directory"):
        load(Rules(directory=tmp_path / "absent", key=settings.key))
    settings.key.write_bytes(b"short")
    with pytest.raises(ListError, match="is no key of 16 bytes"):
        load(settings)


def test_a_child_that_dies_is_an_error_and_not_rules(settings, monkeypatch, tmp_path):
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(rules.sys, "executable", str(killed))
    with pytest.raises(ListError, match="the process that compiles the lists ended with status -9"):
        load(settings)


def test_a_load_that_is_given_up_leaves_no_process(settings, monkeypatch, tmp_path):
    slow = tmp_path / "python"
    slow.write_text(f"#!/bin/sh\ncd {tmp_path}\necho $$ > pid.new\nmv pid.new pid\nexec sleep 1000\n")
    slow.chmod(0o755)
    monkeypatch.setattr(rules.sys, "executable", str(slow))

    async def give_up():
        task = asyncio.create_task(rules.load(settings))
        while not (tmp_path / "pid").exists():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_looking_notices_every_kind_of_change_and_no_other(settings):
    folder, path = settings.directory, settings.directory / "a.list"
    sights = [rules.look(folder)]

    def changed():
        sights.append(rules.look(folder))
        assert rules.look(folder) == sights[-1]
        return sights[-1] not in sights[:-1]

    path.write_text("a.example\n")
    assert changed()
    path.write_text("a.example\nb.example\n")
    assert changed()
    (folder / ".a.new").write_text("hidden, as of a program that is still writing")
    assert not changed()
    before = path.stat()
    (folder / ".a.new").write_text("b.example\na.example\n")
    os.utime(folder / ".a.new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (folder / ".a.new").rename(path)
    assert changed()
    (folder / "nowhere.list").symlink_to(folder / "absent")
    assert not changed()
    path.chmod(0o600)
    assert changed()
    path.unlink()
    assert rules.look(folder) == sights[0]
    assert rules.look(folder / "absent") == ()


@pytest.mark.parametrize("problem, logged", [
    ("court.list:41: 'secret..example' has an empty label (and 2 more; `edgeblock lint lists` lists all)",
     "court.list:41: cannot be used; `edgeblock lint lists` says why"),
    ("court.list: cannot be read: Permission denied", "court.list: cannot be read: Permission denied"),
    ("lists: there is no such rules directory", "lists: there is no such rules directory"),
])
def test_the_log_has_the_place_of_a_line_and_not_what_it_says(settings, problem, logged):
    assert rules.without_names(problem, "lists") == logged
