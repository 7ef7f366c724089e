"""What the daemon has in the kernel, where it cannot be taken away at once."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from edgeblock.config import Config
from edgeblock.daemon import kernel
from edgeblock.daemon.kernel import Kernel
from edgeblock.daemon.tasks import Tasks
from edgeblock.errors import SystemProblem
from edgeblock.netfilter import shortcut
from tests.daemon.parts import Log


def test_kernel_rules_that_could_not_be_removed_go_when_the_workers_have(monkeypatch):
    """There was no process to be had for it as long as the workers were there."""
    done, log = [], Log()

    def remove():
        done.append("removed")
        if len(done) == 1:
            raise SystemProblem("nft: cannot be started: Resource temporarily unavailable")

    monkeypatch.setattr(kernel.ruleset, "remove", remove)

    async def stop():
        made = Kernel(Config(), log, 1, Tasks(lambda: None))
        await made.remove()
        await made.remove_left()
        assert len(done) == 2
        other = Kernel(Config(), log, 1, Tasks(lambda: None))
        await other.remove()
        await other.remove_left()
        for one in (made, other):
            one.close()

    asyncio.run(stop())
    assert len(done) == 3
    [(event, more)] = log.said
    assert event == "kernel rules not removed; once more without workers" and "nft: cannot be" in more["problem"]


@pytest.mark.parametrize(("mode", "count", "warned"), [
    ("carry", "7\n", True), ("carry", "0\n", False), ("carry", None, False), ("marks", "7\n", False)])
def test_where_connections_are_tracked_the_log_says_what_carrying_breaks(monkeypatch, tmp_path, mode, count, warned):
    log, config, asked = Log(), Config(), []
    config = replace(config, ruleset=replace(config.ruleset, kernel=mode))
    if count is not None:
        (tmp_path / "count").write_text(count)
    monkeypatch.setattr(shortcut, "TRACKED", tmp_path / "count")
    monkeypatch.setattr(kernel.ruleset, "apply", lambda *_: "iptables")

    async def install():
        made = Kernel(config, log, 1, Tasks(lambda: None))
        made.stage = SimpleNamespace(pinned=None, tracked=False, carry_undecided=asked.append)

        async def nothing():
            pass

        monkeypatch.setattr(made.addresses, "install", nothing)
        assert await made.install()
        made.close()

    asyncio.run(install())
    assert [more for event, more in log.said if "-j CT --notrack" in event] == [{"tracked": 7}] * warned
    assert asked == [False] * warned
