"""The lists of a running daemon: compiled beside it, handed over sealed, and never half."""

import asyncio
import fcntl
import gc
import io
import mmap
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import uvloop

from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.store import read_key
from edgeblock.commands import compile
from edgeblock.config import Rules
from edgeblock.daemon.compiler import Compiler, close_files, verified_trial
from edgeblock.daemon.mapping import map_snapshot, map_stacked
from edgeblock.errors import ListError
from tests.blocklist.test_signature import Signer


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "lists").mkdir()
    return Rules(directory=tmp_path / "lists", key=tmp_path / "state" / "key", self_check=0)


def held(name):
    """How many files of memory with this name this process has open."""
    gc.collect()            # mappings of other tests keep theirs
    links = [Path(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    return sum(f"memfd:{name}" in str(link.readlink()) for link in links if link.is_symlink())


def load(settings, digest="", **more):
    """What one process makes of the directory; the descriptor is the caller's."""
    async def one():
        compiler = Compiler(settings)
        return await compiler.load(digest=digest, **more)

    return asyncio.run(one())


def matcher(settings, loaded):
    return ListMatcher(map_snapshot(loaded.fd, read_key(settings.key)))


def test_what_only_some_lists_need_can_be_imported_once_nothing_else_is_allowed(settings):
    """Readers, and the library for signatures, are imported in the confined process by the first list for them."""
    signer = Signer(1)
    lists = {"a.hosts": "0.0.0.0 one.example\n", "b.rpz": "two.example CNAME .\n", "c.csv": "domain\nthree.example\n",
             "d.adblock": "||four.example^\n", "e.dnsmasq": "address=/five.example/\n", "f.json": '["six.example"]',
             "g.dataset": "c2V2ZW4uZXhhbXBsZQ==\n", "signed.list": "eight.example\n"}
    for name, text in lists.items():
        (settings.directory / name).write_text(text)
    (settings.directory / "c.toml").write_text('column = "domain"\n')
    (settings.directory / "signed.list.minisig").write_bytes(
        signer.sign(b"eight.example\n", "timestamp:1\tfile:signed.list"))
    settings = replace(settings, signers=(f"signed={signer.public}",))
    loaded = load(settings)
    assert loaded.refused == {} and len(loaded.lists) == len(lists)
    found = matcher(settings, loaded)
    for name in ("one", "two", "three", "four", "five", "six", "seven", "eight"):
        assert found.look_up("tls", f"{name}.example".encode()) is not None, name
    os.close(loaded.fd)


def test_a_child_compiles_and_the_matcher_answers(settings):
    (settings.directory / "court.list").write_text("listed.example\n=only.example\n")
    (settings.directory / "pages.list").write_text("listed.example/page\n")
    (settings.directory / "pages.toml").write_text('action = "page"\n')
    loaded = load(settings)
    assert (len(loaded.lists), loaded.entries, loaded.expires) == (2, 3, None)
    assert matcher(settings, loaded).look_up("tls", b"www.listed.example").list == "court"
    assert matcher(settings, loaded).look_up("tls", b"www.only.example") is None
    assert [change["change"] for change in loaded.changes] == ["taken", "taken"]
    os.close(loaded.fd)


def test_what_is_handed_over_is_sealed(settings):
    (settings.directory / "court.list").write_text("listed.example\n")
    loaded = load(settings)
    for change in (lambda: os.pwrite(loaded.fd, b"x", 0), lambda: os.ftruncate(loaded.fd, 5),
                   lambda: mmap.mmap(loaded.fd, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_WRITE),
                   lambda: fcntl.fcntl(loaded.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_EXEC if hasattr(
                       fcntl, "F_SEAL_EXEC") else 0x20)):
        with pytest.raises(PermissionError):
            change()
    os.close(loaded.fd)


def test_what_is_not_sealed_is_verified_whole(settings):
    (settings.directory / "court.list").write_text("listed.example\n")
    loaded = load(settings)
    size = os.fstat(loaded.fd).st_size
    altered = bytearray(os.pread(loaded.fd, size, 0))
    altered[-40] ^= 1
    fd = os.memfd_create("altered", os.MFD_ALLOW_SEALING)
    os.write(fd, altered)
    with pytest.raises(ListError, match="was altered"):
        map_snapshot(fd, read_key(settings.key))
    os.close(fd)
    os.close(loaded.fd)


def test_the_same_rules_are_not_handed_over_again(settings):
    (settings.directory / "court.list").write_text("listed.example\n")
    loaded = load(settings)
    again = load(settings, loaded.digest)
    assert (again.fd, again.digest, again.changes, again.entries) == (-1, loaded.digest, [], 1)
    (settings.directory / "court.list").write_text("listed.example\nother.example\n")
    third = load(settings, loaded.digest)
    assert third.fd >= 0 and third.digest != loaded.digest
    os.close(loaded.fd)
    os.close(third.fd)


def test_an_empty_directory_is_no_rules(settings):
    loaded = load(settings)
    assert (loaded.lists, loaded.entries) == ([], 0)
    assert matcher(settings, loaded).look_up("tls", b"listed.example") is None
    os.close(loaded.fd)


def test_the_first_expiry_is_told(settings):
    now = datetime.now(UTC)
    for name, days in (("soon", 1), ("later", 9), ("gone", -1)):
        (settings.directory / f"{name}.list").write_text("listed.example\n")
        expires = now + timedelta(days=days)
        (settings.directory / f"{name}.toml").write_text(f"expires = {expires:%Y-%m-%dT%H:%M:%SZ}\n")
    loaded = load(settings)
    assert abs(loaded.expires - (now + timedelta(days=1)).timestamp()) < 2
    os.close(loaded.fd)


def test_no_state_directory_no_rules(settings):
    settings.key.parent.mkdir()
    settings.key.write_bytes(b"short")
    with pytest.raises(ListError, match="is no key of 16 bytes"):
        load(settings)
    settings.key.unlink()
    settings.key.parent.rmdir()
    settings.key.parent.write_bytes(b"a file where the directory should be")
    (settings.directory / "court.list").write_text("listed.example\n")
    loaded = load(settings)
    assert loaded.problem.startswith("degraded: ") and "the key cannot be used: " in loaded.problem
    matcher_of = ListMatcher(map_snapshot(loaded.fd, loaded.key))
    assert matcher_of.look_up("tls", b"listed.example").list == "court"
    os.close(loaded.fd)


def test_files_that_are_being_written_are_left_alone(settings):
    (settings.directory / "court.list").write_text("listed.example\n")
    os.close(load(settings).fd)
    (settings.directory / "court.list").write_text("half of a na")
    (settings.directory / "new.list").write_text("new.example\n")
    loaded = load(settings, busy=["court.list"])
    assert matcher(settings, loaded).look_up("tls", b"listed.example").list == "court"
    assert matcher(settings, loaded).look_up("tls", b"new.example").list == "new"
    assert loaded.refused == {}
    os.close(loaded.fd)


def test_a_process_that_dies_is_an_error_and_not_rules(settings, monkeypatch, tmp_path):
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    with pytest.raises(ListError, match="the process that compiles the lists ended with status -9"):
        load(settings)


def test_a_spare_imports_what_a_job_needs_at_the_first_sign_of_one(settings):
    (settings.directory / "court.list").write_text("listed.example\n")

    async def wake_and_load():
        compiler = Compiler(settings)
        await compiler.prepare()
        maps = Path(f"/proc/{compiler._spare[0].pid}/maps")
        async with asyncio.timeout(20):
            while "resource" not in maps.read_text():       # the last thing that it imports while it waits
                await asyncio.sleep(0.01)
            assert "pyroaring" not in maps.read_text()
            compiler.wake()
            compiler.wake()
            while "pyroaring" not in maps.read_text():
                await asyncio.sleep(0.01)
        return await compiler.load()

    loaded = asyncio.run(wake_and_load())
    assert loaded.entries == 1
    os.close(loaded.fd)


def test_a_spare_that_was_killed_is_replaced(settings):
    (settings.directory / "court.list").write_text("listed.example\n")

    async def kill_and_load():
        compiler = Compiler(settings)
        await compiler.prepare()
        process = compiler._spare[0]
        process.kill()
        await process.wait()
        return await compiler.load()

    loaded = asyncio.run(kill_and_load())
    assert loaded.entries == 1
    os.close(loaded.fd)


def test_a_spare_that_is_dying_is_an_error_and_no_more(settings, monkeypatch, tmp_path):
    """Its files are closed before its parent hears of its end."""
    dying = tmp_path / "python"
    # All of them, for uvloop has left it the pipe's end under a second number.
    dying.write_text(f"#!{sys.executable}\nimport os, signal\nos.closerange(0, os.sysconf('SC_OPEN_MAX'))\n"
                     "signal.alarm(60)\nsignal.pause()\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))

    async def load_from_it():
        compiler = Compiler(settings)
        await compiler.prepare()
        async with asyncio.timeout(20):
            while not compiler._spare[0].stdin.is_closing():
                await asyncio.sleep(0.01)
        await compiler.load()

    with pytest.raises(ListError, match="the process that compiles the lists ended with status -9"):
        uvloop.run(load_from_it())


@pytest.mark.parametrize("state", ["asleep", "ended", "ended unheard"])
def test_a_process_that_cannot_import_what_it_needs_says_what(settings, monkeypatch, tmp_path, state):
    """What is on the disk is no more what the daemon was started from. What was in force before is so still."""
    (settings.directory / "court.list").write_text("listed.example\n")
    before = load(settings)
    changed = tmp_path / "python"
    changed.write_text(f"#!{sys.executable}\nimport sys\nsys.modules['edgeblock.blocklist.refresh'] = None\n"
                       "from edgeblock.daemon.compiling import main\n"      # behind -P -m and the module's name
                       "sys.exit(main(sys.argv[4:]))\n")
    changed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(changed))

    async def load_from_it():
        compiler = Compiler(settings)
        await compiler.prepare()
        process = compiler._spare[0]
        if state != "asleep":
            compiler.wake()
            await asyncio.sleep(0)          # so that it is sent
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            if state == "ended":
                await process.wait()
        await compiler.load(digest=before.digest)

    with pytest.raises(ListError, match="^what reads lists cannot be imported .*edgeblock.blocklist.refresh.*; if "
                                        "edgeblock was changed on the disk, restart it$") as told:
        uvloop.run(load_from_it())
    assert type(told.value) is ListError            # not Ended: no list has made it end
    assert matcher(settings, before).look_up("tls", b"listed.example").list == "court"
    os.close(before.fd)


def test_a_process_that_stands_still_is_an_error_and_no_more(settings, monkeypatch, tmp_path):
    """It is stopped, or its disk does not answer: lists that come later are not to wait for it."""
    stopped = tmp_path / "python"
    stopped.write_text("#!/bin/sh\nkill -STOP $$\n")
    stopped.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stopped))
    monkeypatch.setattr("edgeblock.daemon.compiler.STILL", 0.3)

    async def load_from_it():
        compiler = Compiler(settings)
        await compiler.prepare()
        process = compiler._spare[0]
        with pytest.raises(ListError, match="has stood still for 0 s; is it stopped, or waiting for a disk"):
            await compiler.load()
        assert process.returncode == -9

    uvloop.run(load_from_it())


def test_a_process_of_which_nothing_is_to_be_seen_may_take_its_time(settings, monkeypatch):
    (settings.directory / "court.list").write_text("listed.example\n")
    monkeypatch.setattr("edgeblock.daemon.compiler.STILL", 0.01)
    monkeypatch.setattr("edgeblock.daemon.compiler.processor_time", lambda _: None)
    loaded = load(settings)
    assert loaded.entries == 1
    os.close(loaded.fd)


def test_a_load_that_is_given_up_leaves_no_process_and_no_descriptor(settings, monkeypatch, tmp_path):
    slow = tmp_path / "python"
    slow.write_text(f"#!/bin/sh\ncd {tmp_path}\necho $$ > pid.new\nmv pid.new pid\nexec sleep 1000\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))

    async def give_up():
        task = asyncio.create_task(Compiler(settings).load())
        while not (tmp_path / "pid").exists():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    before = held("edgeblock-rules")
    asyncio.run(give_up())
    assert held("edgeblock-rules") <= before
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


# Trying what is to come into force ------------------------------------------------------------------------------

def test_rules_are_tried_in_the_process_and_the_rest_is_told_later(settings):
    (settings.directory / "court.list").write_text("listed.example\n")

    async def twice():
        compiler = Compiler(replace(settings, self_check=0.3))
        first = await compiler.load()
        assert first.trial == {"lists": {}, "problem": "", "fault": "", "refused": False}   # nothing was in force
        later = await compiler.rest()
        assert await compiler.rest() == {}
        (settings.directory / "new.list").write_text("new.example\n")
        second = await compiler.load(digest=first.digest, held=first.whole)
        last = await compiler.rest()
        close_files(first.fd, second.fd)
        await compiler.close()
        return later, second, last

    later, second, last = asyncio.run(twice())
    assert set(later["lists"]) == {"/canary", "court"}
    assert set(second.trial["lists"]) == set(last["lists"]) == {"/canary", "new"}     # court has not changed
    for told in (later, second.trial, last):
        assert (told["problem"], told["fault"], told["refused"]) == ("", "", False)
        for tried, held, beside, over_blocked in told["lists"].values():
            assert tried == held > 0 and beside > 0 and over_blocked == 0


def test_a_list_that_is_read_alone_is_tried_by_the_next_load(settings):
    """By the sample that was taken when it was read, from all over it: its file is not read again."""
    (settings.directory / "court.list").write_text("listed.example\n")

    async def beside():
        compiler = Compiler(replace(settings, self_check=0.5))
        first = await compiler.load()
        await compiler.prepare()
        (settings.directory / "long.list").write_text("".join(f"host{number}.example\n" for number in range(300_000)))
        slow = await compiler.load(digest=first.digest, held=first.whole)
        assert [name for name, _, _ in slow.slow] == ["long"] and not held("edgeblock-sample")
        assert await compiler.load_one("long") == {} and held("edgeblock-sample") == 1
        await compiler.prepare()                # the one that waits knows nothing of it, and is replaced
        second = await compiler.load(digest=first.digest, held=first.whole)
        assert held("edgeblock-sample") == 0
        last = await compiler.rest()
        close_files(first.fd, second.fd, second.base_fd)
        await compiler.close()
        return last

    told = asyncio.run(beside())
    tried, blocked, beside, over_blocked = told["lists"]["long"]
    assert tried == blocked > 0 and beside > 0 and (over_blocked, told["problem"], told["fault"]) == (0, "", "")


def test_a_list_that_was_compiled_elsewhere_is_taken_by_who_has_given_everything_up(settings):
    """It is copied, verified, tried, and put below the others by a second name of its part."""
    signer, folder = Signer(7), settings.directory
    (folder / "long.list").write_text("".join(f"host{number}.example\n" for number in range(300_000)))
    settings = replace(settings, self_check=0.5, compiled_signers=(signer.public,))
    assert compile.run_parts(settings, folder, True, io.StringIO(), io.StringIO()) == 0
    part = (folder / "long.compiled").read_bytes()
    (folder / "long.compiled.minisig").write_bytes(signer.sign(part, "timestamp:1\tfile:long.compiled\thashed"))
    (folder / "long.list").rename(folder / ".long.list")
    (folder / "court.list").write_text("listed.example\n")

    async def beside():
        compiler = Compiler(settings)
        first = await compiler.load()
        (folder / ".long.list").rename(folder / "long.list")
        slow = await compiler.load(digest=first.digest, held=first.whole)
        assert [name for name, _, _ in slow.slow] == ["long"] and await compiler.load_one("long") == {}
        loaded = await compiler.load(digest=first.digest, held=first.whole)
        await compiler.close()
        return first, loaded

    first, loaded = asyncio.run(beside())
    assert loaded.warnings == [] and [change["compiled_by"] for change in loaded.changes] == [str(signer.key)]
    assert loaded.trial["lists"]["long"][0] > 0
    matcher = ListMatcher(map_stacked(loaded.fd, loaded.base_fd, loaded.key))
    assert matcher.look_up("tls", b"www.host7.example").list == "long"
    assert matcher.look_up("tls", b"listed.example").list == "court"
    state = settings.key.parent
    assert (state / "rules.snapshot").samefile(state / "lists" / "long.part")
    assert len(list((state / "proofs").iterdir())) == 2
    close_files(first.fd, loaded.fd, loaded.base_fd)


def test_samples_that_nobody_tries_are_let_go(settings, monkeypatch):
    monkeypatch.setattr("edgeblock.daemon.compiler.SAMPLES_MAX", 2)
    for name in "abc":
        (settings.directory / f"{name}.list").write_text(f"{name}.example\n")

    async def read_all():
        compiler = Compiler(replace(settings, self_check=0.5))
        close_files((await compiler.load()).fd)
        for name in "abca":
            assert await compiler.load_one(name) == {}
        assert held("edgeblock-sample") == 2
        await compiler.close()
        assert held("edgeblock-sample") == 0

    asyncio.run(read_all())


def test_who_goes_on_trying_is_ended_when_other_rules_come(settings):
    # So many that it is not done before the other rules come, however long that takes here.
    (settings.directory / "court.list").write_text("".join(f"host{number}.example\n" for number in range(200)))

    async def one_after_the_other():
        compiler = Compiler(replace(settings, self_check=60.0))
        first = await compiler.load()
        trying, waiting = compiler.trying, asyncio.create_task(compiler.rest())
        (settings.directory / "court.list").write_text("".join(f"other{number}.example\n" for number in range(200)))
        second = await compiler.load(digest=first.digest, held=first.whole)
        assert await waiting == {} and trying.returncode is not None
        last = compiler.trying
        await compiler.close()
        assert last.returncode is not None
        close_files(first.fd, second.fd)

    asyncio.run(one_after_the_other())


@pytest.mark.parametrize("said", [
    {}, {"lists": [], "problem": "", "fault": "", "refused": False},
    {"lists": {"court": [1, 2, 3]}, "problem": "", "fault": "", "refused": False},
    {"lists": {"court": [1, 2, 3, "4"]}, "problem": "", "fault": "", "refused": False},
    {"lists": {}, "problem": 7, "fault": "", "refused": False}])
def test_what_no_trial_says_is_not_taken(said):
    with pytest.raises(ListError, match="has said what it never says"):
        verified_trial(said)
