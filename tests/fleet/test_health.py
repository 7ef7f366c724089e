"""What a rollout hears of the daemon, by its real control socket."""

import asyncio

from edgeblock.daemon.control import Control
from edgeblock.fleet.health import ask_health


def test_the_daemon_is_asked_by_its_socket(tmp_path):
    said = {"canary": {"state": "failed", "probes": [{"wrong": "a listed name passes"}, {"wrong": ""}]},
            "selfcheck": {"state": "ok"}, "lists": {"ads": {"refused": "too long"}, "court": {"refused": ""}}}

    async def play():
        control = Control(tmp_path / "control.sock", {"status": lambda: said})
        await control.open()
        there = await ask_health(tmp_path / "control.sock")
        said["canary"] = {"state": "ok"}
        well = await ask_health(tmp_path / "control.sock")
        said.clear()
        said["canary"] = "no such thing"
        odd = await ask_health(tmp_path / "control.sock")
        await control.close()
        return there, well, odd, await ask_health(tmp_path / "control.sock")

    there, well, odd, gone = asyncio.run(play())
    assert there.wrong == "the canary is red: a listed name passes" and there.refused == {"ads": "too long"}
    assert well.why_not == "" and well.refused == {"ads": "too long"}
    assert "it says something else" in odd.why_not
    assert "no edgeblock is running here" in gone.why_not
