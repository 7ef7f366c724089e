"""What a list says beside an entry: declared, in one form, and back again."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.blocklist.explain import explain
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import Entry, Problem, reader_of
from edgeblock.blocklist.lint import line_of, lint
from edgeblock.blocklist.load import load
from edgeblock.blocklist.settings import ListSettings

DECLARED = ("note", "ticket")
VALUE = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters='"'), min_size=1,
                max_size=10)


def read(text, name="domains", attributes=DECLARED):
    return list(reader_of(name, ListSettings(attributes=attributes))(io.BytesIO(text.encode())))


@given(st.dictionaries(st.sampled_from(DECLARED), st.lists(VALUE, min_size=1, max_size=3).map(" ".join)),
       st.sampled_from(["a.example", "*.a.example", "=a.example", "a.example/x?y=z", "192.0.2.0/24", "@@a.example",
                        "a.example @ 192.0.2.1", "@@=a.example @ 2001:db8::/48"]))
def test_a_line_comes_back_as_it_went(attributes, entry):
    line = entry + "".join(f' {name}="{value}"' for name, value in attributes.items())
    one, = read(line)
    assert dict(one.attributes) == attributes and read(line_of(one)) == [one]


@pytest.mark.parametrize(("line", "attributes"), [
    ("a.example ticket=2030-12-31", (("ticket", "2030-12-31"),)),
    ('a.example\tnote="No.  12 "  ticket=x # why', (("note", "No. 12"), ("ticket", "x"))),
    ("a.example TICKET=x ; why", (("ticket", "x"),)), ("@@ a.example ticket=x", (("ticket", "x"),)),
    ("a.example # ticket=x", ()), ("a.example/?ticket=x", ()), ('a.example note="a # b"', (("note", "a # b"),)),
])
def test_what_stands_behind_an_entry(line, attributes):
    one, = read(line)
    assert one.attributes == attributes and one.key.startswith(b"a.example")


def test_behind_a_url_of_a_list_of_urls():
    one, two, three, problem = read(
        "http://a.example/x?y=z until=2030-01-01 note=1\n@@http://a.example/?q=1 # why=not\n"
        "a.example/b\nhttp://a.example/d until=soon\n", "urls")
    assert one.attributes == (("note", "1"), ("until", "2030-01-01")) and one.terms.window.ends == 1893456000
    assert (two.key, two.attributes, two.exception) == (b"a.example/?q=1", (), True) and three.key == b"a.example/b"
    assert isinstance(problem, Problem) and "has until=soon, which is no time" in problem.why


@pytest.mark.parametrize(("line", "why"), [
    ("a.example x=1", 'which this list does not declare; put attributes = ["note", "ticket", "x"] into its settings'),
    ("a.example ticket=1 ticket=2", "has the attribute ticket twice"), ("a.example ticket=", "without a value"),
    ("a.example ticket=" + "x" * 300, "has more than 256 characters"),
    ("a.example ticket=1 x", 'has a blank in the value of ticket; put it in quotes: ticket="1 x"'),
    ("a.example until=2026-12-31 18:00 Europe/London # why",
     'has a blank in the value of until; put it in quotes: until="2026-12-31 18:00 Europe/London"'),
    ("a.example order=No. 12 until=2026-12-31", 'value of order; put it in quotes: order="No. 12"'),
    ("a.example until=2026-12-31 weekly=sat 14:45-17:30 Europe/London",
     'value of weekly; put it in quotes: weekly="sat 14:45-17:30 Europe/London"'),
    ("a.example until= 2026-12-31", "has a blank beside the '=' of until; leave it out: until=\"2026-12-31\""),
    ("a.example until = 2026-12-31", "has a blank beside the '='"), ("a.example ech", "write ech=only"),
    ('a.example ticket="x', 'has a quote that is not closed in the value of ticket; write ticket="x"'),
    ("a.example until='2026-12-31'", 'has single quotes around the value of until; use double quotes: until="2026-'),
    ("a.example until='2026-12-31 Europe/London'", 'use double quotes: until="2026-12-31 Europe/London"'),
    ("a.example until=soon", 'in quotes, "2026-12-31 18:00 Europe/London"'),
    ("a.example untill=2026-11-15", "has untill=2026-11-15; did you mean until? (from, until and weekly say when"),
    ("a.example expires=2026-11-15", "did you mean until?"), ("a.example start=2026-11-15", "did you mean from?"),
    ("a.example end_date=2026-11-15", "did you mean until?"), ("a.example oder=12", "did you mean order?"),
    ("a.example why not=1", "has a space inside"),
])
def test_a_mistake(line, why):
    problem, = read(line)
    assert isinstance(problem, Problem) and why in problem.why


def test_columns_of_a_table():
    one, two = read("domain,Ticket,note\na.example,2030,\nb.example,, x  y \n", "csv")
    assert one == Entry(2, Kind.HOST, b"a.example", attributes=(("ticket", "2030"),))
    assert two.attributes == (("note", "x y"),)
    problem, = read("domain,ticket\na.example,1\n", "csv")
    assert problem.whole and "no column 'note'" in problem.why


def test_keys_of_a_feed():
    indicator = ('{"objects": [{"type": "indicator", "pattern": "[url:value = \'http://a.example/\']", '
                 '"Ticket": "%s"}]}')
    one, two, three = (item for item in read(
        indicator % "2030" +
        '{"Event": {"Attribute": [{"type": "domain", "value": "b.example", "note": 12, "ticket": null}]}}'
        '[{"url": "http://c.example/", "ticket": 2031}]', "json") if isinstance(item, Entry))
    assert one.attributes == (("ticket", "2030"),) and two.attributes == (("note", "12"),)
    assert three.attributes == (("ticket", "2031"),)
    problem, = read(indicator % ("x" * 300), "json")
    assert isinstance(problem, Problem) and "more than 256 characters" in problem.why


def test_lint_counts_them_and_check_shows_them(tmp_path):
    (tmp_path / "a.list").write_text("a.example ticket=2030\nb.example\n")
    (tmp_path / "a.toml").write_text("attributes = ['ticket']")
    assert [str(note) for note in lint(tmp_path).notes] == [
        "a.list: 1 of 2 entries have the attribute ticket; nothing acts on it, it is only shown"]
    (tmp_path / "a.toml").write_text("attributes = ['ticket', 'untill', 'order']")
    assert [str(note).partition("attribute ")[2] for note in lint(tmp_path).notes] == [
        "order", "untill; nothing acts on it, it is only shown: did you mean until?",
        "ticket; nothing acts on it, it is only shown"]
    record, = explain(load(tmp_path), ["a.example"])
    assert record.as_dict()["verdicts"][0]["tried"][0]["rules"][0]["attributes"] == "ticket=2030"
    assert "a.list:1" in record.as_text() and record.as_text().count(" ticket=2030") == 2
