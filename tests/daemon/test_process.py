"""Processes of the supervisor where there is no room for them, and where they have ended already."""

import asyncio
import os
import resource
import signal
import subprocess
import sys

import pytest
import uvloop

from edgeblock.daemon import process
from tests.daemon.scarce import descriptors_left

PIPE = asyncio.subprocess.PIPE


def test_a_lack_of_descriptors_is_over_when_there_are_some_again():
    """uvloop keeps each one that it had opened before it found no more."""
    async def lack():
        await (await process.start("this", stdin=PIPE, stdout=PIPE, stderr=PIPE)).communicate()
        before = sorted(os.listdir("/proc/self/fd"))
        for count in range(12):
            with descriptors_left(count), pytest.raises(OSError, match="Too many open files"):
                await process.start("this", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        await asyncio.sleep(0)
        assert sorted(os.listdir("/proc/self/fd")) == before
        output, _ = await (await process.start("this", stdout=PIPE)).communicate()
        assert output.startswith(b"The Zen of Python")

    uvloop.run(lack())


def test_what_lies_where_the_daemon_was_started_is_not_run(monkeypatch, tmp_path):
    """Python looks there first for every module that it is asked for by name."""
    (tmp_path / "this.py").write_text("print('a stranger')\n")
    monkeypatch.chdir(tmp_path)

    async def ask():
        output, _ = await (await process.start("this", stdout=PIPE)).communicate()
        return output

    assert uvloop.run(ask()).startswith(b"The Zen of Python")


def test_who_has_ended_is_not_killed_again():
    """uvloop raises ProcessLookupError for it, also before anybody has waited for it."""
    async def twice():
        ended = await process.start("this", stdout=asyncio.subprocess.DEVNULL)
        while ended.returncode is None:
            await asyncio.sleep(0.01)
        process.kill(ended)
        alive = await process.start("asyncio", stdin=PIPE, stdout=asyncio.subprocess.DEVNULL,
                                    stderr=asyncio.subprocess.DEVNULL)
        process.kill(alive)
        assert await alive.wait() == -9

    uvloop.run(twice())


def test_no_core_file_is_made_and_nobody_looks_at_its_memory():
    script = ("import ctypes, resource; from edgeblock.daemon.itself import hide_memory; hide_memory()\n"
              "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0", "0"]


@pytest.mark.parametrize("hidden", [True, False])
def test_what_ends_by_a_fault_leaves_no_core_file(tmp_path, hidden):
    """Not even where the limit is none. The kernel says whether there is one."""
    script = ("import os, resource; from edgeblock.daemon.itself import hide_memory\n"
              "limit, resource.setrlimit = resource.setrlimit, lambda *_: None\n" + "hide_memory()\n" * hidden +
              "hard = resource.getrlimit(resource.RLIMIT_CORE)[1]\n"
              "limit(resource.RLIMIT_CORE, (hard, hard)); os.abort()")
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path) as child:
        _, status = os.waitpid(child.pid, 0)
        child.returncode = 0
    assert os.WTERMSIG(status) == signal.SIGABRT
    if hidden:
        assert not os.WCOREDUMP(status) and not list(tmp_path.iterdir())
    elif resource.getrlimit(resource.RLIMIT_CORE)[1] == resource.RLIM_INFINITY:         # so the test can fail
        assert os.WCOREDUMP(status)
