"""The rows of evade.py, live: each is real without the filter; with it none gets a listed page, all get others."""

import pytest
from evade import ROWS, Row, play
from running import Running

from edgeblock.lab import Lab

pytestmark = pytest.mark.live

ROW = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
STALL = 1.5            # seconds beyond its own pauses that no row may take to get an innocent page
PAUSES = {"tls three seconds of silence in the name": 3.0}


@ROW
def test_without_the_filter_the_page_comes(bare_lab: Lab, row: Row):
    outcome = play(bare_lab, row, "paths.example" if row.path else "listed.example")
    assert outcome.got, outcome


@ROW
def test_the_listed_page_does_not_come(lab: Lab, running: Running, row: Row):
    outcome = play(lab, row, "paths.example" if row.path else "listed.example")
    assert not outcome.got, outcome
    assert outcome.ending in ("rst", "fin", "alert"), outcome


@ROW
def test_the_unlisted_page_comes(lab: Lab, running: Running, row: Row):
    outcome = play(lab, row, "innocent.example")
    assert outcome.got, outcome
    assert outcome.seconds < STALL + PAUSES.get(row.name, 0.0)
