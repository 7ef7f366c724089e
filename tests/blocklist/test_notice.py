"""What a list tells those whom it blocks: from its files into the snapshot, and nothing that could not be told."""

import json
import os
from dataclasses import replace

import pytest

from edgeblock.blocklist.directory import find_lists
from edgeblock.blocklist.lint import lint
from edgeblock.blocklist.load import load
from edgeblock.blocklist.pages import PAGE_MAX
from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.store import open_file
from edgeblock.errors import ListError

from .making import KEY
from .test_refresh import NOW, Box

SETTINGS = """action = "page"
page = "court.html"
reason = {en = "By order", de = "Auf Anordnung"}
contact = "court@isp.example"
status = 403
redirect = "https://isp.example/court"
"""


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path)


def told(box, name="court"):
    parts = open_file(box.store.snapshot, KEY).parts
    return next(record.notice for record in parts.lists if record.name == name)


def test_it_stands_in_the_snapshot(box):
    box.write(court_list="a.example\n", court_toml=SETTINGS, court_html='<html lang="en">A', court_de_html="B",
              other_list="b.example\n")
    assert box.refresh().warnings == []
    assert told(box) == {"pages": {"en": '<html lang="en">A', "de": "B"}, "contact": "court@isp.example",
                         "reason": {"en": "By order", "de": "Auf Anordnung"}, "status": 403,
                         "redirect": "https://isp.example/court"}
    assert told(box, "other") == {}
    assert load(box.folder).matcher.snapshot.parts.lists[0].notice == told(box)
    assert lint(box.folder).findings == [] and box.refresh().changes == []


def test_a_page_that_changes_is_taken_and_one_that_cannot_be_shown_changes_nothing(box):
    box.write(court_list="a.example\n", court_toml='page = "court.html"\n', court_html="one")
    box.refresh()
    for text, why in (("", "is empty; leave the key out"), (b"\xff", "is not UTF-8 at byte 0"),
                      ("x" * (PAGE_MAX + 1), "is larger than 32 kB")):
        box.write(court_html=text)
        assert list(box.refresh().refused) == ["court"] and told(box) == {"pages": {"": "one"}}
        assert box.reason("court")[0].startswith(f"court.list: court.html: {why}")
        assert any(why in str(one) for one in lint(box.folder).errors)
        with pytest.raises(ListError, match=why):
            load(box.folder)
    box.write(court_html="two")
    assert box.refresh().refused == {} and box.changes() == [("taken", "court")]
    assert told(box) == {"pages": {"": "two"}}
    box.write(court_fr_html="trois")
    box.refresh()
    assert told(box) == {"pages": {"": "two", "fr": "trois"}}
    (box.folder / "court.html").unlink()
    assert list(box.refresh().refused) == ["court"]
    assert box.reason("court") == [
        'court.toml: page = "court.html": there is no such file here; drop that first']


def test_a_page_that_is_still_being_written_holds_its_list(box):
    box.write(court_list="a.example\n", court_toml='page = "sorry.html"\n', sorry_html="one")
    box.refresh()
    box.write(sorry_html="tw")
    assert box.refresh(busy=["sorry.html"]).changes == [] and told(box) == {"pages": {"": "one"}}
    box.write(sorry_html="two")
    box.refresh()
    assert told(box) == {"pages": {"": "two"}}


def test_no_way_leads_out_of_the_directory(box, tmp_path):
    (tmp_path / "secret.html").write_text("secret")
    for name in ("../secret.html", "/etc/secret.html", "a/b.html", ".hidden.html", "x.txt", ".html", "a\0.html"):
        box.write(court_list="a.example\n", court_toml=f"page = {json.dumps(name)}\n")
        assert list(box.refresh().refused) == ["court"], name
        assert "must be the name of a file beside the list that ends in .html" in box.reason("court")[0]
    (box.folder / "link.html").symlink_to(tmp_path / "secret.html")
    (box.folder / "folder.html").mkdir()
    for name, why in (("link", "is a link"), ("folder", "is a directory, not a file")):
        box.write(court_toml=f'page = "{name}.html"\n')
        assert list(box.refresh().refused) == ["court"] and why in box.reason("court")[0]


@pytest.mark.parametrize("link, why", [(os.symlink, "is a link"), (os.link, "has another name, too")])
def test_a_page_shows_no_other_list(box, link, why):
    box.write(secret_list="c.example\n", court_list="a.example\n", court_toml='page = "court.html"\n')
    (box.folder / "secret.list").chmod(0o600)
    link(box.folder / "secret.list", box.folder / "court.html")
    assert list(box.refresh().refused) == ["court"] and why in box.reason("court")[0]
    assert "copy the file here instead" in box.reason("court")[0]


def test_a_page_is_of_who_owns_its_list_or_settings_or_of_root(box):
    box.write(court_list="a.example\n", court_toml='page = "court.html"\n', court_html="A")

    def owners(file, settings, page):
        for name, uid in (("list", file), ("toml", settings), ("html", page)):
            os.chown(box.folder / f"court.{name}", uid, -1)
        return list(box.refresh().refused)

    assert owners(1001, 1002, 1003) == ["court"]
    assert box.reason("court") == ["court.list: court.html: is neither of who owns this list or its settings nor of "
                                   "root; copy it as one of them"]
    for page in (1001, 1002, 0):
        assert owners(1001, 1002, page) == [] and told(box) == {"pages": {"": "A"}}
        assert owners(1001, 1002, 1003) == ["court"]
    os.chown(box.folder / "court.toml", 1003, -1)
    assert box.refresh().refused == {}


def test_a_page_with_its_words_is_no_longer_than_a_page_may_be(box):
    box.write(court_list="a.example\n", court_toml='page = "court.html"\nreason = {en = "&&&&", de = "&"}\n',
              court_html="$reason" * 199 + "$contact" + "x" * 28780)     # 20 bytes each, and 8
    assert box.refresh().refused == {}
    box.write(court_de_html="$reason" * 199 + "$contact" + "x" * 28781)
    assert list(box.refresh().refused) == ["court"]
    assert box.reason("court") == ["court.list: court.de.html: is longer than 32 kB with the list's own reason and "
                                   "contact put in; shorten them, or have them in it less often"]
    box.write(court_toml='page = "court.html"\n')
    assert box.refresh().refused == {}
    box.write(court_html="$reason" * 199 + "$reference" * 2)
    box.refresh()
    assert "court.html: is no page: it has more than 200 places that are filled in" in box.reason("court")[0]


def test_a_page_is_no_list_and_no_stranger(box):
    box.write(court_list="a.example\n", court_toml='page = "court.html"\n', court_html="A", court_de_html="B",
              odd_html="C", feed_html="b.example\n", feed_toml='format = "domains"\n')
    lists, errors, warnings = find_lists(box.folder, ListSettings())
    assert [one.path.name for one in lists] == ["court.list", "feed.html"] and errors == []
    assert [one.file for one in warnings] == ["odd.html"]
    assert [(language, path.name) for language, path in lists[0].pages] == [("", "court.html"),
                                                                          ("de", "court.de.html")]


def test_more_languages_than_anybody_needs_are_refused(box):
    box.write(court_list="a.example\n", court_toml='page = "court.html"\n', court_html="A",
              **{f"court_a{letter}_html": "x" for letter in "abcdefghijklmnop"})
    box.refresh()
    assert box.reason("court") == ["court.html: is there in more than 16 languages"]


def test_what_is_locked_is_the_operators(box):
    box.rules = replace(box.rules, locked=("page", "redirect", "contact"), unlocked=("own=page",))
    box.write(court_list="a.example\n", court_toml='page = "court.html"\n', court_html="A", own_list="b.example\n",
              own_toml='page = "court.html"\nreason = "Why"\n')
    assert list(box.refresh().refused) == ["court"]
    assert told(box, "own") == {"pages": {"": "A"}, "reason": {"": "Why"}}
    assert 'unlocked = ["court=page"]' in box.reason("court")[0]


def test_all_pages_of_an_owner_have_a_bound(box, monkeypatch):
    monkeypatch.setattr("edgeblock.blocklist.owners.ROOM", 3000)
    for name in ("a", "b"):
        box.write(**{f"{name}_list": f"{name}.example\n", f"{name}_toml": f'page = "{name}.html"\n',
                     f"{name}_html": "x" * 1400})
    assert box.refresh().refused == {}
    box.write(a_html="y" * 1700)
    assert list(box.refresh().refused) == ["a"] and told(box, "a") == {"pages": {"": "x" * 1400}}
    assert "its pages, with those of all lists of its owner, are longer than" in box.reason("a")[0]
    box.write(b_html="x")
    box.refresh()
    box.write(a_html="y" * 1701)
    assert box.refresh().refused == {} and told(box, "a") == {"pages": {"": "y" * 1701}}


def test_a_redirect_of_its_own_needs_none_of_the_operators(box):
    box.write(a_list="a.example\n", a_toml='action = "redirect"\nredirect = "https://isp.example/"\n',
              b_list="b.example\n", b_toml='action = "redirect"\n')
    _, _, warnings = find_lists(box.folder, ListSettings(), redirects=False)
    assert [one.file for one in warnings] == ["b.toml"]
    assert len(box.refresh(now=NOW, redirects=False).warnings) == 1
