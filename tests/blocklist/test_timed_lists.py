"""Lists whose entries come and go with time: taken in, emptied, looked through by lint and check; every format."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from edgeblock.blocklist.explain import explain, explain_alone, record_of
from edgeblock.blocklist.hashing import hash_file
from edgeblock.blocklist.lint import lint
from edgeblock.blocklist.load import load
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.store import open_file
from edgeblock.blocklist.terms import parse_time
from edgeblock.cli import main
from edgeblock.errors import ListError

from .making import KEY
from .test_refresh import NOW, Box, many

DAY = 86_400


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path)


def at(box, name, moment):
    one = ListMatcher(open_file(box.store.snapshot, KEY))
    one.at = parse_time(moment) if isinstance(moment, str) else moment
    found = one.look_up("tls", name.encode())
    return found and found.list


def text_of(moment):
    return datetime.fromtimestamp(moment, UTC).isoformat()


# Taken in

@pytest.mark.parametrize("settings", ["until = 2030-01-01", 'weekly = "sat 14:45-17:30 Europe/London"',
                                      "from = 2020-01-01"])
def test_a_list_with_a_window_may_be_emptied(box, settings):
    names = "".join(f"n{number}.example\n" for number in range(500))
    box.write(match_list=names, match_toml=settings, other_list="x.example\n")
    assert not box.refresh().refused and box.outcome.lists[0]["entries"] == 500
    box.write(match_list="# nothing\n")
    assert not box.refresh().refused and box.outcome.lists[0]["entries"] == 0
    assert at(box, "n1.example", "2026-12-05T15:00:00Z") is None
    box.write(match_list=many(1500))
    assert not box.refresh().refused and box.outcome.lists[0]["entries"] == 1500


@pytest.mark.parametrize("settings", ["", "until = 9999-12-31"])
def test_a_window_in_the_same_drop_does_not_let_a_list_shrink(box, settings):
    box.rules = replace(box.rules, locked=("max_shrink",))
    box.write(a_list=many(1500))
    box.refresh()
    box.write(a_list="", a_toml=settings)
    assert "shrank from 1500 entries to 0" in box.refresh().refused["a"]["told"]


def test_lists_with_a_window_do_not_go_with_their_directory(box):
    box.write(a_list=many(5), a_toml="until = 9999-12-31", b_list=many(5), b_toml="from = 2020-01-01",
              c_list=many(200), c_toml="until = 2023-12-01")
    box.refresh()
    for path in box.folder.iterdir():
        path.unlink()
    assert set(box.refresh().refused) == {"a", "b", "c"}
    assert set(box.refresh(parse_time("2023-12-01")).refused) == {"a", "b"}       # the other has ended


def test_as_many_entries_with_windows_can_be_dropped_again(box):
    timed = "".join(f"n{number}.example until=2030-01-01\n" for number in range(2000))
    box.write(a_list=timed, b_list=timed.replace("2030", "2020"), b_toml="drop_past_days = 1")
    box.refresh()
    box.write(a_list=timed + "a.example\n", b_list=timed)
    assert not box.refresh().refused
    assert [one["entries"] for one in box.outcome.lists] == [2001, 2000]
    box.write(a_list=timed + many(5000))
    assert "grew from 2001 entries to 7000" in box.refresh().refused["a"]["told"]


def test_a_list_without_one_may_not(box):
    box.write(a_list="a.example\n")
    box.refresh()
    box.write(a_list="")
    assert "a" in box.refresh().refused


def test_entries_with_windows_may_go_as_they_like(box):
    timed = "".join(f"n{number}.example until=2026-01-01\n" for number in range(500))
    box.write(a_list=timed + "a.example\n")
    box.refresh()
    box.write(a_list="a.example\n")
    assert not box.refresh().refused
    box.write(a_list=timed + "".join(f"m{number}.example\n" for number in range(500)))
    box.refresh()
    box.write(a_list="n1.example until=2026-01-01\n")
    assert "a" in box.refresh().refused         # those without a window may not


@pytest.mark.parametrize("words", ["", " order=7"])
def test_an_entry_that_stands_without_a_window_too_may_not_go(box, words):
    timed = "".join(f"h{number}.example until=2020-01-01\n" for number in range(500))
    box.write(a_list=timed + "".join(f"h{number}.example{words}\n" for number in range(500)))
    box.refresh()
    [record] = open_file(box.store.snapshot, KEY).parts.lists
    assert (record.entries, record.timed) == (500, 0)
    box.write(a_list="h1.example until=2020-01-01\n")
    assert "shrank from 500 entries to 1" in box.refresh().refused["a"]["told"]


def test_no_new_version_is_needed_for_a_boundary(box):
    box.write(a_list="a.example until=2024-01-01\nb.example from=2024-01-01\n")
    box.refresh()
    digest = box.store.digests()
    last = "2023-12-31T23:59:59Z"
    assert at(box, "a.example", last) == "a" and at(box, "b.example", last) is None
    box.refresh(parse_time("2024-01-02"))
    assert box.store.digests() == digest and not box.outcome.changes
    assert at(box, "a.example", "2024-01-01") is None and at(box, "b.example", "2024-01-01") == "a"


def test_guard_rails_hold_whatever_the_window(box):
    box.write(a_list="com until=2020-01-01\n", b_list="192.0.2.0/8 until=2020-01-01\n",
              c_list="@@com from=2099-01-01\n")
    refused = box.refresh().refused
    assert set(refused) == {"a", "b", "c"}


def test_the_lists_of_an_owner_have_only_so_many_weekly_windows(box, monkeypatch):
    """All of them are looked at before anybody's rules come into force."""
    monkeypatch.setattr("edgeblock.blocklist.owners.SETS_ROOM", 3)
    two = 'a.example weekly="sat 10:00-11:00 UTC"\n192.0.2.1 weekly="sat 10:00-12:00 UTC"\n'
    box.write(a_list=two + 'b.example weekly="sat 10:00-11:00 UTC"\n', b_list="b.example\n")
    assert not box.refresh().refused
    assert {record.name: record.sets for record in open_file(box.store.snapshot, KEY).parts.lists} == {"a": 2, "b": 0}
    box.write(b_list=two)
    assert "b" in box.refresh().refused
    box.write(b_list=two.splitlines()[0])
    assert not box.refresh().refused


def test_entries_that_ended_long_ago_can_be_left_out(box):
    lines = "".join(f"n{days}.example until={text_of(NOW - days * DAY)}\n" for days in (-1, 0, 10, 30, 31, 400))
    box.write(a_list=lines + "a.example\n", a_toml="drop_past_days = 30")
    box.refresh()
    [record] = open_file(box.store.snapshot, KEY).parts.lists
    assert (record.entries, record.past, record.timed, record.duplicates) == (4, 3, 3, 0)
    assert at(box, "n10.example", NOW - 20 * DAY) == "a" and at(box, "n31.example", NOW - 40 * DAY) is None
    box.write(a_toml="drop_past_days = 0")
    box.refresh()
    assert open_file(box.store.snapshot, KEY).parts.lists[0].past == 5


def test_orders_stay_with_the_snapshot(box):
    box.write(a_list='a.example order="No. 12" received=2026-01-02 reference=X-1\nb.example\n',
              a_toml='order = "L 1"\nauthority = "High Court"\nreceived = 2026-01-01\napproved_by = "A. Person"')
    box.refresh()
    record = record_of(json.loads(json.dumps(explain_alone(
        ListMatcher(open_file(box.store.snapshot, KEY)), "a.example").as_dict())))
    [rule] = record.verdicts[0].tried[0].rules
    assert rule.order == {"order": "No. 12", "authority": "High Court", "received": "2026-01-02",
                          "approved_by": "A. Person", "reference": "X-1"}
    assert "order: No. 12, authority: High Court" in record.as_text()
    assert b"a.example" not in box.store.snapshot.read_bytes() and b"No. 12" in box.store.snapshot.read_bytes()


# Every format

def test_columns_of_a_table(box):
    box.write(a_csv="domain;from;until;weekly;note\na.example;2026-01-01;2026-02-01;;x\n"
                    "b.example;;;sat 14:45-17:30 Europe/London;\nc.example;;;;\n",
              a_toml='attributes = ["from", "until", "weekly"]')
    assert not box.refresh().refused
    for name, moment, listed in (("a.example", "2026-01-15", "a"), ("a.example", "2026-02-01", None),
                                 ("b.example", "2026-12-05T15:00:00Z", "a"),
                                 ("b.example", "2026-12-06T15:00:00Z", None), ("c.example", "1999-01-01", "a")):
        assert at(box, name, moment) == listed


@pytest.mark.parametrize(("heads", "what"), [
    ("domain,Valid Until,valid_from", "columns 'Valid Until', 'valid_from' are not looked at, so every entry holds"),
    ("domain,Valid Until,b", 'put attributes = ["valid_until"] into'),
    ("domain,Expires,b", 'put attributes = ["until"] into the settings of this list, and call the column \'Expires\' '
     "until"), ("domain,End Date,start", "'End Date' until, and call the column 'start' from"),
    ("domain,b,begin", "'begin' from"), ("# domain,b,expiry", "'expiry' until")])
def test_a_column_that_looks_like_a_window_is_a_warning(box, heads, what):
    box.write(a_csv=f"{heads}\na.example,2020-01-01,2020-01-01\n")
    [warning] = lint(box.folder).warnings
    assert what in warning.why


def test_a_declared_column_is_found_whatever_its_head_is_like(box):
    for heads in ("domain,Valid Until", "# domain,VALID-UNTIL"):
        box.write(a_csv=f"{heads}\na.example,2026-01-01\n", a_toml='attributes = ["valid_until"]')
        box.refresh()
        assert at(box, "a.example", "2025-12-31") == "a" and at(box, "a.example", "2026-01-01") is None
        assert lint(box.folder).warnings == []
    box.write(a_toml='column = 1\nattributes = ["valid_until"]')
    assert "attributes are columns by their heads" in str(lint(box.folder).errors[0])


def test_a_date_alone_as_an_end_is_told_once_a_list(box):
    box.write(a_list="a.example until=2126-12-30\nb.example until=2126-12-31\n", b_list="b.example\n",
              b_toml="until = 2126-12-31\n", c_list='c.example until="2126-12-31 Europe/London"\n',
              c_toml='until = "2127-01-01 Europe/London"\n')
    told = [str(note) for note in lint(box.folder).notes if "as that day begins" in note.why]
    assert [one[:8] for one in told] == ["a.list:1", "b.toml: "]
    assert 'write the next one in your zone, such as until="2126-12-31 Europe/London"' in told[0]


def test_a_column_that_is_not_declared_does_nothing_and_lint_says_so(box):
    box.write(a_csv="domain,until,order\na.example,2020-01-01,12\n")
    box.refresh()
    assert at(box, "a.example", "2026-01-01") == "a"
    made = lint(box.folder)
    [warning], [note] = made.warnings, made.notes
    assert "the column 'until' is not looked at" in warning.why and 'attributes = ["until"]' in warning.why
    assert "the column 'order' is not looked at" in note.why and 'attributes = ["order"]' in note.why
    box.write(a_csv=b"", a_json='[{"url": "http://a.example/", "until": "2020-01-01"}]')
    (box.folder / "a.csv").unlink()
    assert any('attributes = ["until"]' in warning.why for warning in lint(box.folder).warnings)


def test_indicators_hold_while_they_are_valid(box):
    indicator = {"type": "indicator", "pattern": "[domain-name:value = 'a.example']", "pattern_type": "stix",
                 "valid_from": "2026-01-01T00:00:00.000Z", "valid_until": "2026-02-01T00:00:00Z"}
    box.write(a_json=json.dumps({"type": "bundle", "objects": [indicator]}),
              b_json=json.dumps({"Event": {"Attribute": [{"type": "domain", "value": "b.example",
                                                          "valid_until": "2026-02-01T00:00:00+00:00"}]}}))
    assert not box.refresh().refused
    moments = ("2025-12-31", "2026-01-01", "2026-02-01")
    assert [at(box, "a.example", moment) for moment in moments] == [None, "a", None]
    assert [at(box, "b.example", moment) for moment in ("2025-12-31", "2026-02-01")] == ["b", None]
    box.write(a_json=json.dumps({"type": "bundle", "objects": [indicator | {
        "valid_from": "2026-01-01T12:00:00", "valid_until": "2026-02-01T12:00:00.123"}]}))    # in UTC, as all of STIX
    assert not box.refresh().refused
    assert [at(box, "a.example", f"2026-{day}T{clock}Z") for day, clock in (
        ("01-01", "11:59:59"), ("01-01", "12:00:00"), ("02-01", "11:59:59"), ("02-01", "12:00:00"))] == [
        None, "a", "a", None]
    box.write(a_json=json.dumps({"type": "bundle", "objects": [indicator | {"valid_until": "tomorrow"}]}))
    assert "has valid_until=tomorrow, which is no time" in "".join(
        [*box.refresh().refused["a"]["told"], *box.reason("a")])


def test_what_is_no_time_makes_a_line_that_cannot_be_used(box):
    odd = ("until=9223372036854775808", "until=-1", "from=2026-99-99", "weekly=sat",
           'weekly="sat 10:00-12:00 ../../etc"', 'until="2026-01-01 ../../../etc/passwd"', "until=" + "9" * 200,
           f'weekly="{"sat 10:00-11:00 UTC;" * 10}x"')
    box.write(a_list="".join(f"n{number}.example {words}\n" for number, words in enumerate(odd)))
    reasons = box.refresh().refused and box.reason("a")
    assert len(reasons) >= len(odd) and all(len(line) < 700 and "\n" not in line for line in reasons)
    assert not [line for line in reasons if "Traceback" in line or "fault" in line]


def test_years_that_are_far_away(box):
    box.write(a_list="a.example from=0001-01-01 until=9999-12-31T23:59:59-23:59\n"
                     "b.example until=0001-01-01T00:00:00+23:59\n192.0.2.1 until=9999-12-31\n")
    assert not box.refresh().refused
    assert at(box, "a.example", NOW) == "a" and at(box, "b.example", NOW) is None


@pytest.mark.parametrize(("settings", "why"), [
    ("until = 2026-01-01\nfrom = 2026-01-01", "from is not before until, so the list would never be in force"),
    ("until = 'soon'", "until = 'soon' is no time"),
    ("until = 5", "until = 5 is no time such as 2026-12-31T18:00:00Z"),
    ("from = 10:00:00", "is no time such as"), ("weekly = 5", "weekly = 5 is no text such as"),
    ("weekly = []", "weekly = [] is no text such as"), ("weekly = 'sat'", "weekly = 'sat' is no weekly window"),
    ("weekly = ['sat 10:00-12:00 Europe/Londn']", "did you mean Europe/London?"),
    (f"weekly = {[f'sat 10:{minute}-12:00 UTC' for minute in range(10, 40)]}", "weekly has more than 16 windows"),
    ("order = 5", "order = 5 is no text in quotes of at most 256 characters"),
    ("order = ''", "order = '' is no text"),
    (f"reference = '{'x' * 300}'", "is no text in quotes of at most 256 characters"),
    ("drop_past_days = -1", "is no number of days from 0 to 36500"),
    ("drop_past_days = true", "is no number of days"),
    ("until = '2026-12-01T10:00'", "has no zone"),
])
def test_settings_that_say_no_time(box, settings, why):
    box.write(a_list="a.example\n", a_toml=settings)
    [told] = {one["told"] for one in box.refresh().refused.values()} and box.reason("a")[:1]
    assert why in told


def test_the_operator_may_lock_when_a_list_holds(box):
    box.write(a_list="a.example\n", a_toml="from = 2026-01-01")
    for key in ("from", "weekly"):
        box.rules = type(box.rules)(**{**vars(box.rules), "locked": (key,)})
        assert bool(box.refresh(afresh=True).refused) == (key == "from")


def test_a_hashed_list_has_no_terms_of_entries(tmp_path):
    from edgeblock import config
    source, out = tmp_path / "a.list", tmp_path / "a.hashed"
    source.write_text("a.example until=2026-01-01\nb.example\n")
    made = hash_file(source, out, config.Rules(key=tmp_path / "key"), tmp_path / "key")
    assert made.refused and not out.exists() and "which a hashed list has no place for" in made.findings[0].why
    source.write_text("b.example\n")
    assert not hash_file(source, out, config.Rules(key=tmp_path / "key"), tmp_path / "key").refused


# Looked through

def test_lint_speaks_of_windows(tmp_path):
    (tmp_path / "a.list").write_text(
        "a.example until=2026-01-01\nb.example until=2026-02-01\nc.example from=2030-01-01\nd.example ech=only\n"
        "e.example from=2026-02-01 until=2026-02-01\nf.example until=2026-01-01 order=1\n"
        'g.example from=2026-11-30 until=2026-12-02 weekly="sat 10:00-12:00 UTC"\n'
        'h.example weekly="sat 10:00-12:00 UTC"\nh.example weekly="sun 10:00-12:00 UTC"\n'
        'h.example weekly="sun 10:00-12:00 UTC"\n')
    report = lint(tmp_path, now=parse_time("2026-12-01"))
    warnings, notes = ([str(one) for one in found] for found in (report.warnings, report.notes))
    assert [line.partition(" ")[2] for line in warnings if "never holds" in line] == [
        "'e.example from=2026-02-01 until=2026-02-01' never holds: no moment is in all of its window",
        "'g.example from=2026-11-30 until=2026-12-02 weekly=\"sat 10:00-12:00 UTC\"' never holds: no moment is in "
        "all of its window"]
    assert [line for line in warnings if "listed already" in line] == [
        "a.list:10: 'h.example' is listed already with this window, in line 9"]
    assert "a.list: 3 entries have ended by 2026-02-01T00:00:00Z; drop_past_days = 30 in the settings of this list " \
        "leaves out what ended more than 30 days ago" in notes
    assert "a.list: 1 entry is yet to begin, at 2030-01-01T00:00:00Z at the earliest" in notes
    assert "a.list: 1 entry holds only in hellos with an Encrypted ClientHello (ech=only)" in notes
    assert not report.errors


@pytest.mark.parametrize(("settings", "kind", "said"), [
    ("until = 2026-01-01", "warnings", "has ended at 2026-01-01T00:00:00Z (until); it is not in force"),
    ("from = 2027-01-01", "notes", "is not in force before 2027-01-01T00:00:00Z"),
    ('weekly = "sat 14:45-17:30 Europe/London"', "notes", "is not in force before 2026-12-05T14:45:00Z"),
    ('from = 2026-11-30\nuntil = 2026-12-02\nweekly = "sat 14:45-17:30 Europe/London"', "warnings",
      "is never in force"),
])
def test_lint_speaks_of_the_window_of_a_list(tmp_path, settings, kind, said):
    (tmp_path / "a.list").write_text("")
    (tmp_path / "a.toml").write_text(settings)
    report = lint(tmp_path, now=parse_time("2026-12-01"))
    assert [one for one in getattr(report, kind) if said in one.why] and not report.errors
    assert not [one for one in report.warnings if "has no entries" in one.why]


def test_check_at_another_time(tmp_path, capsys):
    (tmp_path / "a.list").write_text('a.example weekly="sat 14:45-17:30 Europe/London" order="No. 12"\n')
    (tmp_path / "a.toml").write_text("from = 2026-01-01\nexpires = 2027-01-01\n")
    ask = ["check", "--rules", str(tmp_path), "a.example"]
    for moment, status, said in (
            ("2026-12-05 15:00 Europe/London", 1, "in force"), ("2026-12-05T17:30:00Z", 0, "not in force"),
            ("2026-12-05T14:45:00+00:00", 1, "holds until 2026-12-05T17:30:00Z"),
            ("2026-07-04T13:44:59Z", 0, "not in force before 2026-07-04T13:45:00Z"),
            ("2025-12-06T15:00:00Z", 0, "from=2026"),
            ("2027-01-02T15:00:00Z", 0, "nothing listed applies")):
        assert main([*ask, "--at", moment]) == status
        assert said in capsys.readouterr().out, moment
    assert main([*ask, "--at", "2026-12-05 15:00 Europe/London", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    [rule] = told["verdicts"][0]["tried"][0]["rules"]
    assert rule["in_force"] is True and rule["holds"] is True and rule["order"] == {"order": "No. 12"}
    assert rule["changes"] == "2026-12-05T17:30:00Z" and rule["list_window"] == "from=2026-01-01T00:00:00Z"
    for odd in ("soon", "", "2026-12-05T15:00", "9" * 500):
        assert main([*ask, "--at", odd]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["check", "--rules", str(tmp_path), "--rule", "00000000", "--at", "2026-01-01"]) == 2


def test_check_says_what_only_a_hello_with_ech_gets(tmp_path):
    (tmp_path / "a.list").write_text("a.example ech=only\n")
    [record] = explain(load(tmp_path), ["a.example"])
    assert not record.blocked and "reset where the hello has an Encrypted ClientHello" in record.as_text()
    assert "only with an Encrypted ClientHello ech=only" in record.as_text()


@pytest.mark.parametrize(("first", "second", "line", "changes"), [
    ("until=2020-01-01", "order=new until=2030-01-01", 2, "2030-01-01T00:00:00Z"),
    ("ech=only", "until=2030-01-01", 2, "2030-01-01T00:00:00Z"),
    ("until=2030-01-01", "ech=only", 1, "2030-01-01T00:00:00Z"),
    ("until=2020-01-01", "ech=only until=2031-01-01", 2, "2031-01-01T00:00:00Z"),
    ("until=2020-01-01", "from=2029-01-01", 1, "2029-01-01T00:00:00Z"),
])
def test_of_an_entry_that_stands_twice_the_line_that_holds_is_shown(tmp_path, first, second, line, changes):
    (tmp_path / "a.list").write_text(f"a.example {first}\na.example {second}\n")
    [record] = explain(load(tmp_path), ["a.example"], parse_time("2026-12-01"))
    for verdict in record.verdicts:
        [rule] = verdict.tried[0].rules
        assert (rule.line, rule.changes, rule.attributes.strip()) == (line, changes, (first, second)[line - 1])


def test_a_directory_that_is_loaded_whole_has_windows_too(tmp_path):
    (tmp_path / "a.list").write_text("a.example until=2026-01-01\n")
    (tmp_path / "a.toml").write_text("from = 2025-01-01")
    one = load(tmp_path).matcher
    for moment, listed in (("2024-12-31", False), ("2025-06-01", True), ("2026-01-01", False)):
        one.at = parse_time(moment)
        assert (one.look_up("tls", b"a.example") is not None) == listed
    (tmp_path / "a.list").write_text("a.example until=soon\n")
    with pytest.raises(ListError, match="has until=soon, which is no time"):
        load(tmp_path)
