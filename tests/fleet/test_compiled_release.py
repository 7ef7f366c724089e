"""A list that was compiled once, published, and taken by a box without reading it; a tampered one is read.

In: what `edgeblock compile --parts` makes, signed; a repository; a box that lands it. Out: what is in force there.
"""

import pytest

from edgeblock.fleet.landing import rank, why_not
from tests.blocklist.test_precompiled import SIGNER, Boxes
from tests.fleet.repositories import Box, Place, serving


@pytest.fixture
def released(tmp_path, monkeypatch):
    """A box that has landed a release with what was compiled of its list, and the daemon's side of it."""
    made = Boxes(tmp_path / "made")
    made.offer()
    place = Place(tmp_path / "place", monkeypatch)
    for path in made.folder.iterdir():
        (place.rules / path.name).write_bytes(path.read_bytes())
    place.init()
    assert place.publish() == 0
    with serving(place.site) as (url, _):
        box = Box(tmp_path / "box", url, place.root)
        box.once()
    there = Boxes(tmp_path / "there")
    for path in box.drop.iterdir():
        (there.folder / path.name).write_bytes(path.read_bytes())
    return there


@pytest.fixture(autouse=True)
def folders(tmp_path):
    for name in ("made", "place", "box", "there"):
        (tmp_path / name).mkdir()


def test_what_was_compiled_elsewhere_is_published_landed_and_taken(released):
    assert {path.name for path in released.folder.iterdir()} == {"court.list", "court.compiled",
                                                                 "court.compiled.minisig"}
    assert released.refresh().warnings == [] and released.changes() == [("taken", "court")]
    assert released.court().lists[0].compiled_by == str(SIGNER.key)
    assert released.action("www.a.example") == "court" and released.action("z.example") is None


def test_on_any_doubt_the_published_list_is_read(released):
    path = released.folder / "court.compiled"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert released.doubt() and released.action("www.a.example") == "court"


def test_it_lands_before_its_list():
    names = ["court.list", "court.compiled", "court.toml", "court.compiled.minisig", "court.commitments",
             "court.list.minisig"]
    assert all(why_not(name, True) is None for name in names)
    assert why_not("court.compiled", False) is None
    assert sorted(names, key=rank)[-1] == "court.list" and rank("court.toml") < rank("court.compiled")
