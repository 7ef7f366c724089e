"""Which entries of a list are tried: new ones first, any with the same chance, few of each, none kept on disk."""

import gzip
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.blocklist import sample
from edgeblock.blocklist.directory import find_lists
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import Entry
from edgeblock.blocklist.refresh import refresh, refresh_one
from edgeblock.blocklist.sample import SIZE, Handed, Sample, from_bytes, sample_of, to_bytes
from edgeblock.blocklist.settings import ListSettings
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
    one = Sample(KEY, [])
    assert offered(one, 20) == 20
    assert sorted(one.entries()) == [entry(number) for number in range(1, 21)]


def test_of_a_long_list_few_are_looked_at_and_every_part_is_in_the_sample():
    one = Sample(KEY, [])
    assert offered(one, 200_000) < 20 * SIZE
    lines = sorted(found.line for found in one.entries())
    assert len(lines) == SIZE == len(set(lines))
    for quarter in range(4):        # 32 are expected, with a deviation of 5
        assert 8 <= sum(quarter * 50_000 < line <= (quarter + 1) * 50_000 for line in lines) <= 56


def test_new_entries_come_first_however_few_they_are():
    before = compiled(("list", None, [entry(number).key.decode() for number in range(1, 20_001)
                                      if number not in (7777, 20_000)]))
    one = Sample(KEY, [before])
    assert offered(one, 20_000) == 20_000
    assert {found.line for found in one.entries()[:2]} == {7777, 20_000}
    assert len(one.entries()) == SIZE


def test_what_is_too_long_is_left_out(monkeypatch):
    one = Sample(KEY, [])
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
    assert "odd" in real.unsure and b"com" not in keys(real.samples["odd"]) and real.counts["odd"].held


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


# Lists that nobody reads in this round ----------------------------------------------------------------------------

LONG = 400_000


def number_of(found):
    return int(found.key.removeprefix(b"host").removesuffix(b".example"))


def long_text(count, *more):
    return "".join(f"host{number}.example\n" for number in [*range(1, count + 1), *more])


def listed(box, name):
    rules, _ = box
    files, _, _ = find_lists(rules.directory, ListSettings())
    return next(one for one in files if one.name == name)


def test_a_list_that_is_read_for_a_sample_is_looked_into_everywhere(box):
    (box[0].directory / "long.list").write_text(long_text(LONG))
    part = compiled(("long", None, long_text(LONG).split()))
    found = sample_of(listed(box, "long"), SIZE, KEY, part, [])
    assert len({one.key for one in found}) == len(found) == SIZE
    # A place is 1/64 of it: in each quarter there is some, however slow this machine is.
    assert all(any(quarter * LONG // 4 < number_of(one) <= (quarter + 1) * LONG // 4 for one in found)
               for quarter in range(4))


def test_what_is_new_comes_first_there_too(box):
    """A tenth of it, at its end, is new: looked into in 64 places, some are found, and all of these are there."""
    (box[0].directory / "long.list").write_text(long_text(LONG))
    part = compiled(("long", None, long_text(LONG).split()))
    before = compiled(("long", None, long_text(LONG - LONG // 10).split()))
    found = sample_of(listed(box, "long"), SIZE, KEY, part, [before])
    new = [number_of(one) > LONG - LONG // 10 for one in found]
    assert new[0] and new == sorted(new, reverse=True) and sum(new) > 20


def test_what_stands_in_the_middle_and_is_no_entry_is_left_out(box):
    """Of a table whose column is named in its first line nothing can be said in the middle; what is packed is read
    from its beginning."""
    rules, _ = box
    rows = "".join(f"note{number}.example,host{number}.example\n" for number in range(LONG))
    (rules.directory / "table.csv").write_text("comment,host\n" + rows)
    (rules.directory / "packed.list.gz").write_bytes(gzip.compress(long_text(LONG).encode(), 1))
    names = long_text(LONG).split()
    for name in ("table", "packed"):
        found = sample_of(listed(box, name), SIZE, KEY, compiled((name, None, names)), [])
        assert len(found) == SIZE and all(one.key.startswith(b"host") for one in found)


def test_a_long_list_is_sampled_by_the_process_that_reads_it(box):
    rules, store = box
    (rules.directory / "short.list").write_text("short.example\n")
    (rules.directory / "long.list").write_text(long_text(20_000))
    handed = []
    round_of(box, Trial())
    (rules.directory / "long.list").write_text(long_text(20_000, 777_777, 888_888))
    assert refresh_one(rules, Store(store.directory, KEY, slow=True), 1.7e9, "long", hand_on=handed.append) == {}
    [one] = handed
    assert {number_of(entry) for entry in one.entries[:2]} == {777_777, 888_888} and len(one.entries) == SIZE
    assert any(number_of(entry) > 10_000 for entry in one.entries[2:])
    trial = Trial()
    outcome = round_of(box, trial, lane={}, handed={"long": from_bytes(to_bytes(one))})
    assert [change["list"] for change in outcome.changes] == ["long"]
    [(_, samples)] = trial.tried
    assert keys(samples["long"]) == keys(one.entries) and trial.unsure == {"long"}


def test_a_sample_of_another_version_is_not_used(box):
    rules, store = box
    (rules.directory / "one.list").write_text("one.example\n")
    round_of(box, Trial())
    (rules.directory / "long.list").write_text(long_text(100))
    refresh_one(rules, Store(store.directory, KEY, slow=True), 1.7e9, "long")
    trial = Trial()
    round_of(box, trial, lane={}, handed={"long": Handed("another", [entry(1)] * 3)})
    assert len(trial.tried[0][1]["long"]) == 100


@given(st.binary() | st.recursive(st.none() | st.integers() | st.text() | st.booleans(), st.lists, max_leaves=12).map(
    lambda said: json.dumps(said).encode()))
def test_what_no_process_hands_on_is_not_taken(data):
    """It has read what anybody may have written."""
    said = from_bytes(data)
    assert said is None or isinstance(said.digest, str) and len(said.entries) <= SIZE


@given(st.lists(st.builds(Entry, st.integers(0, 2**31), st.sampled_from(Kind), st.binary(min_size=1, max_size=50),
                          st.booleans(), st.just(0), st.just(())), max_size=SIZE))
def test_a_sample_arrives_as_it_was_handed_on(entries):
    assert from_bytes(to_bytes(Handed("ab", entries))) == Handed("ab", entries)


def test_no_entry_is_in_a_sample_twice():
    """Places that are looked into may be beside each other, and the beginning is one of them."""
    sample = Sample(KEY, [])
    for number in range(4 * SIZE):
        sample.offer(Entry(number, Kind.HOST, b"host%d.example" % (number % SIZE)), number + 1)
    assert len({one.key for one in sample.entries()}) == len(sample.entries()) == SIZE
