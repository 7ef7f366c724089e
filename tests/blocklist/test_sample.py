"""Which entries of a list are tried: new ones first, any with the same chance, few of each, none kept on disk."""

from dataclasses import replace

import pytest

from edgeblock.blocklist import sample
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import Entry
from edgeblock.blocklist.refresh import refresh
from edgeblock.blocklist.sample import SIZE, Sample
from edgeblock.blocklist.store import Store
from edgeblock.config import Config, Rules
from edgeblock.daemon.selfcheck import SelfCheck
from tests.blocklist.making import KEY, compiled


def entry(number):
    return Entry(number, Kind.HOST, b"host%d.example" % number)


def offered(one, count):
    """As intake.py offers a list of so many entries; how many it was asked about."""
    asked = 0
    for number in range(1, count + 1):
        if number >= one.due:
            asked += 1
            one.offer(entry(number), number)
    return asked


def test_of_a_short_list_all_are_there():
    one = Sample(KEY, None)
    assert offered(one, 20) == 20
    assert sorted(one.entries()) == [entry(number) for number in range(1, 21)]


def test_of_a_long_list_few_are_looked_at_and_every_part_is_in_the_sample():
    one = Sample(KEY, None)
    assert offered(one, 200_000) < 20 * SIZE
    lines = sorted(found.line for found in one.entries())
    assert len(lines) == SIZE == len(set(lines))
    for quarter in range(4):        # 32 are expected, with a deviation of 5
        assert 8 <= sum(quarter * 50_000 < line <= (quarter + 1) * 50_000 for line in lines) <= 56


def test_new_entries_come_first_however_few_they_are():
    before = compiled(("list", None, [entry(number).key.decode() for number in range(1, 20_001)
                                      if number not in (7777, 20_000)]))
    one = Sample(KEY, before)
    assert offered(one, 20_000) == 20_000
    assert {found.line for found in one.entries()[:2]} == {7777, 20_000}
    assert len(one.entries()) == SIZE


def test_what_is_too_long_is_left_out(monkeypatch):
    one = Sample(KEY, None)
    one.offer(Entry(1, Kind.URL, b"a.example/" + b"x" * sample.KEY_MAX), 1)
    assert one.entries() == [] and one.due == 2


class Trial:
    """Notes what it is given, and says what it was told to."""

    def __init__(self, says=""):
        self.samples, self.later, self.says = {}, None, says
        self.tried, self.held, self.unsure = [], [], set()
        self.culprit = ""

    def try_out(self, snapshot):
        self.tried.append(({record.name for record in snapshot.parts.lists}, dict(self.samples)))
        return self.says

    def hold(self, snapshot):
        self.held.append(snapshot)


@pytest.fixture
def box(tmp_path):
    (tmp_path / "lists").mkdir()
    rules = Rules(directory=tmp_path / "lists", key=tmp_path / "state" / "key")
    return rules, Store(tmp_path / "state", KEY)


def keys(entries):
    return {found.key for found in entries}


def round_of(box, trial, **more):
    rules, store = box
    return refresh(replace(rules), store, 1.7e9, trial=trial, **more)


def test_what_fails_is_not_published_and_is_tried_again_until_it_holds(box):
    rules, store = box
    (rules.directory / "one.list").write_text("one.example\n")
    first = Trial("is never asked")
    assert not round_of(box, first).problem             # nothing is in force: it comes into force, and is tried later
    assert first.tried == [] and len(first.held) == 1 and keys(first.samples["one"]) == {b"one.example"}
    (rules.directory / "two.list").write_text("two.example\n")
    failing = Trial("the rules do not hold")
    outcome = round_of(box, failing)
    assert outcome.problem == "the rules do not hold; the rules in force stay"
    assert [one["name"] for one in outcome.lists] == ["one"] and outcome.changes == []
    assert [record.name for record in store.published()] == ["one"]
    [(names, samples)] = failing.tried
    assert names == {"one", "two"} and keys(samples["two"]) == {b"two.example"} and "one" not in samples
    again = Trial("they still do not")                  # the list is not read again, but for a sample
    assert round_of(box, again).problem and keys(again.tried[0][1]["two"]) == {b"two.example"}
    good = Trial()
    outcome = round_of(box, good)
    assert outcome.problem == "" and {one["name"] for one in outcome.lists} == {"one", "two"}
    assert not [path for path in store.directory.rglob("*") if path.is_file() and b"two.example" in path.read_bytes()]


class Particular(Trial):
    """Finds that entries of some lists do not hold, whenever these are new in a snapshot."""

    def __init__(self, *lists):
        super().__init__()
        self.lists = lists

    def try_out(self, snapshot):
        super().try_out(snapshot)
        self.culprit = next((name for name in self.lists if name in self.samples), "")
        return f"the list {self.culprit} does not hold" if self.culprit else ""


def test_a_list_that_fails_stays_as_it_was_and_the_others_come_into_force(box):
    rules, store = box
    for name in ("one", "two", "three"):
        (rules.directory / f"{name}.list").write_text(f"{name}.example\n")
    round_of(box, Trial())
    before = {record.name: record.sha256 for record in store.published()}
    for name in ("one", "two"):
        (rules.directory / f"{name}.list").write_text(f"{name}.example\nnew.{name}.example\n")
    (rules.directory / "four.list").write_text("four.example\n")
    trial = Particular("one", "four")
    outcome = round_of(box, trial)
    assert outcome.problem == "" and outcome.again
    now = {record.name: record.sha256 for record in store.published()}
    assert now.keys() == {"one", "two", "three"} and now["one"] == before["one"] and now["two"] != before["two"]
    assert {name: one["in_force"] for name, one in outcome.refused.items()} == {"one": True, "four": False}
    assert outcome.refused["one"]["told"] == "one.list: the list one does not hold"
    assert (rules.directory / "one.rejected").exists() and [change["list"] for change in outcome.changes] == ["two"]
    outcome = round_of(box, Trial())            # the fault is gone
    assert outcome.problem == "" and outcome.refused == {}
    assert {record.name for record in store.published()} == {"one", "two", "three", "four"}
    assert {record.name: record.sha256 for record in store.published()}["one"] != before["one"]


def test_where_list_after_list_fails_everything_stays(box):
    rules, store = box
    (rules.directory / "one.list").write_text("one.example\n")
    round_of(box, Trial())
    names = [f"more{number}" for number in range(6)]
    for name in names:
        (rules.directory / f"{name}.list").write_text(f"{name}.example\n")
    trial = Particular(*names)
    outcome = round_of(box, trial)
    assert outcome.problem.endswith("does not hold; the rules in force stay") and len(trial.tried) == 4
    assert [record.name for record in store.published()] == ["one"]
    assert [one["name"] for one in outcome.lists] == ["one"] and outcome.changes == []


def test_what_is_left_out_of_a_list_is_no_failure_of_it(box):
    """Where another process has read it the sample is not what the guard rails have let in."""
    rules, _ = box
    (rules.directory / "one.list").write_text("one.example\n")
    round_of(box, Trial())
    (rules.directory / "odd.list").write_text("com\n" + "".join(f"host{number}.example\n" for number in range(50)))
    (rules.directory / "odd.toml").write_text('guarded = "skip"\n')
    assert round_of(box, Trial("another fault")).problem        # so its sample is taken apart next time
    real = SelfCheck(replace(Config(), rules=replace(rules, self_check=20.0)))
    outcome = round_of(box, real)
    assert (outcome.problem, outcome.refused, real.problem, real.fault) == ("", {}, "", "")
    assert "odd" in real.unsure and b"com" in keys(real.samples["odd"]) and real.counts["odd"].held


def test_rules_that_have_not_changed_are_tried_after_a_start(box):
    (box[0].directory / "one.list").write_text("one.example\n")
    round_of(box, Trial())
    idle = Trial()
    round_of(box, idle)
    assert idle.held == [] and idle.later is None
    start = Trial()
    round_of(box, start, hurry=True)
    assert len(start.held) == 1 and start.samples == {}
    start.later()
    assert keys(start.samples["one"]) == {b"one.example"}


def test_a_list_that_has_changed_since_it_was_read_has_no_sample(box):
    rules, _ = box
    (rules.directory / "one.list").write_text("one.example\n")
    round_of(box, Trial())
    (rules.directory / "one.list").write_text("half of a na")
    start = Trial()
    round_of(box, start, hurry=True, busy=["one.list"])
    start.later()
    assert start.samples == {}
