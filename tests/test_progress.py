"""How far a long reading has come: a bar on a terminal, lines elsewhere, nothing where it was short."""

import io
import os
import pty
from contextlib import suppress

from edgeblock import progress
from edgeblock.progress import STEPS, Reading


def read(err, size, monkeypatch, seconds):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    at = [0]
    with Reading(err, "morning.pcap", size, lambda: at[0]) as told:
        for step in range(4 * STEPS):
            now[0], at[0] = step * seconds / (4 * STEPS), step
            told.step()


def test_a_line_every_ten_seconds_where_there_is_no_terminal(monkeypatch):
    err = io.StringIO()
    read(err, 8 * STEPS, monkeypatch, 41.0)
    lines = err.getvalue().splitlines()
    assert lines[0] == "edgeblock: morning.pcap: 12 % read, 1024 frames, 10 s" and len(lines) == 4
    err = io.StringIO()
    read(err, 0, monkeypatch, 41.0)     # a pipe
    assert err.getvalue().startswith("edgeblock: morning.pcap: 1024 frames, 10 s\n")


def test_what_is_short_says_nothing_and_what_is_nowhere_neither(monkeypatch):
    err = io.StringIO()
    read(err, 100, monkeypatch, 9.0)
    assert err.getvalue() == ""
    read(None, 100, monkeypatch, 99.0)


def test_a_bar_on_a_terminal_that_goes_at_the_end(monkeypatch):
    ours, theirs = pty.openpty()
    with open(theirs, "w") as err:
        read(err, 8 * STEPS, monkeypatch, 3.0)
        err.flush()
        os.set_blocking(ours, False)
        shown = b""
        with suppress(BlockingIOError):
            while True:
                shown += os.read(ours, 1 << 16)
    os.close(ours)
    assert shown.count(b"morning.pcap") >= 3 and b"4.1/8.2 kB" not in shown[:200]
    assert b"3.1/8.2 kB" in shown and shown.endswith(b"\x1b[2K")     # it is taken away again
