"""The game of odd requests itself: it sees what gets past, and asks the server for as much as it says."""

import argparse
import math
import random

from tests.core.playing import engine
from tests.fuzz import framing
from tests.fuzz.framing import Judge, Maker, Tally, fuzz
from tests.fuzz.servers import running


def play(tmp_path, **more) -> Tally:
    given = argparse.Namespace(**{"seconds": 20.0, "requests": 200, "each": 5, "keep": None} | more)
    with running(tmp_path, ["http-server"]) as ports:
        return fuzz(ports, Maker(1), given)


def test_what_a_server_serves_is_found(tmp_path):
    tally = play(tmp_path)
    assert tally.requests >= 200 and tally.served > 5 and not tally.past
    assert tally.by["http-server"] == [tally.connections, tally.served]


def test_what_gets_past_is_told_and_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(framing, "engine", lambda host: engine("x.example"))
    tally = play(tmp_path, keep=tmp_path / "kept")
    assert tally.past == tally.served == len((tmp_path / "kept").read_text().splitlines())
    assert capsys.readouterr().out.count("PAST THE ENGINE, served by http-server") == tally.past


def test_it_ends_in_time(tmp_path):
    assert play(tmp_path, seconds=0.0, requests=math.inf).connections == 0


def test_connections_are_judged_one_by_one():
    judge = Judge(random.Random(1))
    for _ in range(framing.REMEMBERED + 2):
        assert judge.finds(b"GET / HTTP/1.1\r\nHost: listed.example\r\n\r\n")
        assert not judge.finds(b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n")
