"""guarded = "skip": a list without what guard rails refuse, each named; and what is said of it everywhere."""

import pytest

from edgeblock import config
from edgeblock.blocklist.explain import explain
from edgeblock.blocklist.lint import lint
from edgeblock.blocklist.load import load

from .test_refresh import box  # noqa: F401 - a fixture

FEED = "bad.example\nco.uk\nworse.example\n*.github.io\n10.0.0.0/8\n127.0.0.1\nb..ad\n"
SKIP = 'guarded = "skip"\nmax_unparsable = 0.5\n'


def test_the_rest_is_in_force_and_each_is_named(box):  # noqa: F811
    box.write(feed_list=FEED, feed_toml=SKIP)
    outcome = box.refresh()
    assert box.changes() == [("taken", "feed")] and outcome.refused == {}
    change, told = outcome.changes[0], outcome.lists[0]
    assert (change["entries"], change["guarded"], change["unusable"]) == (2, 4, 1)
    assert (told["guarded"], told["exceptions_lost"]) == (4, 0)
    assert box.action("www.bad.example") == "feed" and box.action("shop.co.uk") is None
    first, *lines = (box.folder / "feed.skipped").read_text().splitlines()
    assert first == "edgeblock has left these out of this list; the rest of it is in force."
    assert [line.split(": ")[0] for line in lines] == [f"feed.list:{number}" for number in (2, 4, 5, 6, 7)]
    # It stays while nothing changes, and goes with its reason.
    box.refresh()
    assert (box.folder / "feed.skipped").exists()
    box.write(feed_list="bad.example\nworse.example\n")
    box.refresh()
    assert not (box.folder / "feed.skipped").exists()


def test_it_goes_with_its_list_and_nobody_elses_does(box):  # noqa: F811
    box.write(feed_list=FEED, feed_toml=SKIP + "max_shrink = 1\n")
    (box.folder / "mine.skipped").write_text("notes of mine\n")
    box.refresh()
    (box.folder / "feed.list").unlink()
    (box.folder / "feed.toml").unlink()
    box.write(other_list="other.example")
    box.refresh()
    assert sorted(path.name for path in box.folder.iterdir()) == ["mine.skipped", "other.list"]


def test_without_it_the_refusal_names_the_way_out(box):  # noqa: F811
    box.write(feed_list="bad.example\nco.uk\n")
    box.refresh()
    assert box.reason("feed")[-1] == (
        'feed.list: guarded = "skip" in the settings of this list takes it without this entry')


@pytest.mark.parametrize(("share", "taken"), [("0.5", True), ("0.4", False)])
def test_above_a_share_the_list_is_refused_after_all(box, share, taken):  # noqa: F811
    box.write(feed_list="bad.example\nco.uk\n", feed_toml=f'guarded = "skip"\nmax_guarded = {share}\n')
    box.refresh()
    assert (box.changes() == [("taken", "feed")]) == taken
    if not taken:
        assert "guard rails refuse 1 of 2 entries, more than a share of 0.4" in box.reason("feed")[0]


def test_an_override_that_blocks_the_guarded_name_stays(box):  # noqa: F811
    box.write(feed_list="co.uk\ngithub.io\n", feed_toml='guarded = "skip"\nallow_public_suffixes = ["co.uk"]\n')
    box.refresh()
    assert box.action("shop.co.uk") == "feed" and box.action("someone.github.io") is None


def test_as_the_default_of_all_lists(box):  # noqa: F811
    box.rules = config.Rules(directory=box.folder, key=box.rules.key, guarded="skip")
    box.write(feed_list="bad.example\nco.uk\n")
    box.refresh()
    assert box.changes() == [("taken", "feed")] and (box.folder / "feed.skipped").exists()


def test_an_exception_that_is_lost_is_named(box):  # noqa: F811
    box.write(ads_adblock="||ads.example^\n@@||ads.example^$domain=shop.example\n")
    box.refresh()
    assert box.outcome.lists[0]["exceptions_lost"] == 1
    assert "ads.adblock:2: the exception '@@||ads.example^$domain=shop.example' is left out" in (
        box.folder / "ads.skipped").read_text()


def test_lint_and_check_say_the_same(box):  # noqa: F811
    box.write(feed_list=FEED, feed_toml=SKIP)
    report = lint(box.folder)
    assert report.errors == [] and [finding.line for finding in report.warnings] == [2, 4, 5, 6, 7]
    assert all('left out (guarded = "skip")' in finding.why for finding in report.warnings[:4])
    rules = load(box.folder, config.Rules())
    assert any('(and 3 more); left out (guarded = "skip")' in str(warning) for warning in rules.warnings)
    assert [record.blocked for record in explain(rules, ["bad.example", "shop.co.uk", "10.1.2.3"])] == [
        True, False, False]
