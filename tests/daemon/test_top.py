"""`edgeblock top`: what it draws of an answer, in a window of any size, and how it ends."""

import os
import pty
import subprocess
import sys
import termios

import pytest
from rich.console import Console

from edgeblock.commands import spell, top

from .test_control import serving
from .test_metrics import made


def test_top_draws_what_it_is_told(capsys):
    _, status, _ = made(5)
    Console(width=140).print(top.picture(status, made(1)[1], 2.0))
    text = capsys.readouterr().out
    assert "9 entries of 2 lists" in text and "running" in text and "court" in text and "4.0" in text
    assert spell(90061) == "1 d 1 h" and spell(59) == "59 s"


@pytest.mark.parametrize(("lists", "workers"), [(0, 1), (5, 1), (200, 1), (5, 40), (200, 40)])
def test_top_fits_a_small_terminal(lists, workers):
    _, status, _ = made(5)
    status["matched"] = {f"list-{number}": {"reset": number} for number in range(lists)}
    status["workers"] = {str(number): status["workers"]["0"] for number in range(workers)}
    status["stage1"] = {f"passed_{number}": number + 1 for number in range(12)}
    console = Console(width=80, height=24)
    with console.capture() as seen:
        console.print(top.picture(status, status, 1.0, 80, 24))
    lines = seen.get().splitlines()
    assert len(lines) <= 24 and all(len(line) <= 80 for line in lines)
    assert "\u2026" not in "".join(lines[2:5]) and "of one packet" in seen.get()
    if lists:
        assert f"list-{lists - 1} " in seen.get()          # the busiest


@pytest.mark.live
def test_top_ends_with_q(tmp_path):
    """At a terminal, which is as it was afterwards."""
    _, status, _ = made(5)
    (tmp_path / "box.toml").write_text('[daemon]\ncontrol = "control.sock"\n')
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    with serving(tmp_path / "control.sock", {"status": lambda: status}):
        process = subprocess.Popen([sys.executable, "-m", "edgeblock", "top", "--config", tmp_path / "box.toml"],
                                   stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm"})
        drawn = b""
        while b"worker" not in drawn:
            drawn += os.read(ours, 4096)
        os.write(ours, b"xq")
        assert process.wait(10) == 0
    assert termios.tcgetattr(theirs) == before
    os.close(theirs)
    os.close(ours)
