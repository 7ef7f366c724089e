"""The report: figures as they were counted, what weakens them said, in the form of its schema, and nobody in it."""

import base64
import csv
import io
import json
from contextlib import closing
from importlib.resources import files

import jsonschema
import pytest

from edgeblock.cli import main
from edgeblock.report.evidence import evidence, gathered
from edgeblock.report.figures import delay_of
from edgeblock.report.period import DAYS, day_of, period_of, written
from edgeblock.report.store import opened, read
from tests.report.making import NAMES, TODAY, count, make, rule_of, write_down

VALID = jsonschema.Draft202012Validator(
    json.loads((files("edgeblock.report") / "report-1.schema.json").read_text()))
TLS, PAGE = ("court", "No. 12/2026", "tls", "reset"), ("court", "No. 12/2026", "http", "page")


@pytest.fixture
def home(tmp_path):
    make(tmp_path)
    rule = rule_of(tmp_path, "www.listed.example")
    count(tmp_path, TODAY - 3, {TLS: (30, 10), PAGE: (4, 2), ("watch", "", "tls", "observe"): (3, 3),
                                ("court", "", "tls", "accept"): (7, 6), ("", "no_sni", "tls", "drop"): (5, 5)},
          rules=(("court", rule),))
    count(tmp_path, TODAY - 1, {TLS: (9, 3)}, clean=False, hidden=2, packets=700, unread=11, lost=4, running=3600)
    write_down(tmp_path, TODAY - 3)
    return tmp_path


@pytest.fixture
def made(home, capsys):
    """Runs the command: made("--format", "csv") is its output."""
    def run(*words, status=0):
        state = [] if "--state" in words or "--config" in words else ["--state", str(home / "state")]
        assert main(["report", *state, *words]) == status
        said = capsys.readouterr()
        return said.out if status == 0 else said.err
    return run


def as_json(made, *words):
    told = json.loads(made("--format", "json", *words))
    VALID.validate(told)
    return told


def test_the_figures_are_those_that_were_counted(made):
    told = as_json(made)
    assert told["totals"] == {"visits": 20, "requests": 48, "observed": 3, "excepted": 6, "packets": 10,
                              "by_protocol": {"http": 2, "tls": 18}, "by_action": {"drop": 5, "page": 2, "reset": 13}}
    assert [day["visits"] for day in told["days"]] == [17, 0, 3]
    court, watch = told["lists"]
    assert (court["list"], court["visits"], court["requests"], court["excepted"], court["packets"]) == (
        "court", 15, 43, 6, 10)
    assert court["days"] == [{"day": written(TODAY - 3), "visits": 12, "packets": 5},
                             {"day": written(TODAY - 1), "visits": 3, "packets": 5}]
    assert (court["category"], court["authority"], court["order"]) == ("copyright", "District Court", "No. 12/2026")
    assert court["orders"][0]["order"] == "No. 12/2026" and court["orders"][0]["visits"] == 15
    assert court["updates"] | {"versions": 0, "last_in_force": 0} == {
        "received": 3, "taken": 2, "refused": 1, "refusals": {"signature": 1}, "removed": 0, "orders": 1,
        "versions": 0, "last_in_force": 0}
    assert court["delay_ms"] == {"count": 2, "median": 200, "p95": 300, "worst": 300}
    assert watch["observed"] == 3 and watch["visits"] == 0 and watch["dead"] == {"entries": 1, "days": 2}
    assert told["policies"][0]["policy"] == "no_sni" and told["policies"][0]["visits"] == 5


def test_dead_are_entries_that_nobody_met_and_only_those_that_are_still_listed(made, home):
    assert as_json(made)["lists"][0]["dead"] == {"entries": 3 + 1 - 1, "days": 2}, "the exception is an entry, too"
    count(home, TODAY - 1, {}, rules=(("court", "00000001"),))
    assert as_json(made)["lists"][0]["dead"]["entries"] == 3
    count(home, TODAY - 200, {})
    assert as_json(made, "--dead-days", "2")["lists"][0]["dead"] == {"entries": 4, "days": 1}


def test_how_long_the_box_filtered_and_that_it_was_proven(made):
    told = as_json(made, "--from", written(TODAY - 3), "--to", written(TODAY - 3))
    run = told["filtering"]
    assert told["counted"]["seconds"] == 86_399 and run["running_share"] == 1 and run["proven_share"] == 0.500006
    assert run["canary"] == [{"family": "ipv4", "protocol": "tls", "asked": 100, "held": 99}]
    assert [(one["ms"], one["who"]) for one in run["outages"]] == [(2500, "queues"), (None, "rules")]
    whole = as_json(made)["filtering"]
    assert (whole["packets_read"], whole["packets_unread"], whole["unreadable"], whole["starts"]) == (700, 11, 2, 2)
    assert whole["running_share"] < 0.5 and whole["filtering_share"] < whole["running_share"]


def test_what_weakens_figures_is_said(made, home):
    notes = " ".join(as_json(made)["notes"])
    assert f"Counts begin on {written(TODAY - 3)}" in notes
    assert "4 requests that were blocked are in no count" in notes
    assert "ended" not in notes, "the last one may still run"
    count(home, TODAY, {})
    assert "The daemon ended once without closing its counts; those of up to 6 seconds" in " ".join(
        as_json(made)["notes"])
    for file in (home / "state-ledger").glob("0*"):
        file.unlink()
    (home / "state" / "rules.snapshot").unlink()
    assert any((home / "state-ledger").iterdir()), "the counts are there"
    told = as_json(made)
    notes = " ".join(told["notes"])
    assert "there is no ledger" in notes and "Which lists are in force is not known" in notes
    assert told["lists"][0]["updates"] is None and told["lists"][0]["entries"] is None


def test_a_day_of_a_clock_that_was_not_set_is_no_day_since_which_was_counted(made, home):
    """The first seconds of a box without a battery are in 1970."""
    before = as_json(made)
    count(home, 0, {})
    after = as_json(made)
    assert after["lists"] == before["lists"], "what was not met in two days was not met in two"
    assert after["days"] == before["days"] and f"Counts begin on {written(TODAY - 3)}" in after["notes"][0]
    assert after["counted"]["from"] == before["counted"]["from"]
    assert abs(after["filtering"]["running_share"] - before["filtering"]["running_share"]) < 0.001


def test_one_list_alone(made):
    told = as_json(made, "--list", "court")
    assert [one["list"] for one in told["lists"]] == ["court"] and told["totals"]["visits"] == 15
    assert told["policies"] == [] and [day["visits"] for day in told["days"]] == [12, 0, 3]
    assert "did you mean court?" in made("--list", "curt", "--format", "json", status=2)
    rows = csv.DictReader(io.StringIO(made("--format", "csv", "--list", "court")))
    assert {row["list"] for row in rows} == {"court"}


def test_csv_has_every_count_and_no_formula(made, home):
    count(home, TODAY, {("court", "=cmd|' /c calc'!A1", "tls", "reset"): (1, 1)})
    rows = list(csv.DictReader(io.StringIO(made("--format", "csv"))))
    assert sum(int(row["visits"] or 0) for row in rows if row["action"] not in ("observe", "accept")) == 21
    assert sum(int(row["packets"] or 0) for row in rows) == 15
    assert [row["order"] for row in rows if "cmd" in row["order"]] == ["'=cmd|' /c calc'!A1"]


def test_the_page_is_one_file_and_escapes_what_others_have_written(made, home):
    count(home, TODAY, {("<b>list</b>", "<script>alert(1)</script>", "tls", "reset"): (1, 1),
                        ("<b>list</b>", "other", "tls", "reset"): (1, 1)})
    page = made()
    assert "<script" not in page and "&lt;script&gt;" in page and "<b>list" not in page
    assert "http" not in page.replace("http</th>", "").replace("http 2", ""), "nothing is asked of anywhere"
    assert page.count('<svg role="img" aria-label=') >= 3 and "@media print" in page
    assert page.startswith("<!DOCTYPE html>")
    assert "22 blocked" not in page and "Visits blocked</dt><dd>22</dd>" in page


def test_the_views_are_what_others_ask_for(made):
    rows = list(csv.DictReader(io.StringIO(made("--view", "dsa", "--format", "csv"))))
    assert [(row["category"], row["authority"], row["orders"], row["refused"], row["median_effect_seconds"],
             row["median_receipt_seconds"], row["visits"]) for row in rows] == [
        ("copyright", "District Court", "1", "1", "0.2", "", "15")]
    told = json.loads(made("--view", "iwf", "--format", "json"))
    [court, _] = told["rows"]
    assert (court["updates"], court["refused"], court["tests"], court["tests_held"]) == (2, 1, 200, 198)
    assert court["last_version"].startswith(written(TODAY - 3)) and court["worst_deploy_seconds"] == 0.3
    assert set(court) == set(told["columns"]) and told["unknown"]
    page = made("--view", "iwf")
    assert "What the box cannot know" in page and "not known" in page


@pytest.mark.parametrize(("words", "said"), [
    (("--from", "yesterday"), "--from yesterday: is no day; write one such as 2026-11-01"),
    (("--to", "2026-02-30"), "--to 2026-02-30: is no day"),
    (("--from", "2999-01-01"), "--from 2999-01-01 is after"),
    (("--from", "2999-01-01", "--to", "2999-01-02"), "has not been yet; today is"),
    (("--from", "2026-02-02", "--to", "2026-02-01"), "--from 2026-02-02 is after --to 2026-02-01"),
    (("--from", "2001-01-01", "--to", "2001-12-31"), "of these days nothing is kept (any more); counts go back to"),
    (("--state", "/nowhere"), "--state /nowhere: is no directory; name that of a daemon"),
    (("--output", "/nowhere/x"), "--output /nowhere/x: cannot be written: No such file"),
    (("--list", "other", "--format", "json"), "--list other: no such list was in force in this time")])
def test_mistakes_are_one_line_with_the_way_out(made, words, said):
    line = made(*words, status=2)
    assert said in line and line.count("\n") == 1


def test_without_counts_and_without_a_day_yet(tmp_path, made):
    (tmp_path / "empty").mkdir()
    assert "there are no counts yet" in made("--state", str(tmp_path / "empty"), status=2)


def test_a_page_is_not_sent_to_a_terminal(made, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert "name a file for it, such as --output report.html" in made(status=2)


def test_periods():
    now = TODAY * 86_400 + 5.0
    assert period_of(None, None, now) == (TODAY - DAYS + 1, TODAY)
    assert period_of(None, "2026-11-30", now).first == day_of("2026-11-01", "")
    assert period_of("2026-11-01", "2999-01-01", now).last == TODAY
    assert written(day_of("2024-02-29", "--from")) == "2024-02-29"


def test_delays_are_by_rank():
    assert delay_of([]) is None
    assert delay_of([5]) == {"count": 1, "median": 5, "p95": 5, "worst": 5}
    assert delay_of([*range(1, 101)][::-1]) == {"count": 100, "median": 50, "p95": 95, "worst": 100}


def test_a_ledger_that_says_nonsense_is_no_reason_to_fail(home):
    told = evidence(home / "state-ledger", 0, 1e12)
    assert told.problem == "" and told.lists["court"].taken == 2 and told.gaps == 0

    class Record:
        def __init__(self, kind, **fields):
            self.kind, self.fields, self.at = kind, fields, 1

    odd = gathered([Record("taken", list="x"), Record("in force", workers=True, kernel=True, changed=[{}]),
                    Record("gap", lost=3), Record("clock", step_ms=5), Record("unknown")])
    assert (odd.gaps, odd.clocks) == (5, 1)


def test_what_a_daemon_saw_ends_with_it():
    class Record:
        def __init__(self, at, kind, **fields):
            self.kind, self.fields, self.at = kind, fields, at * 1_000_000

    def not_filtering(at):
        return Record(at, "not filtering", who="queues", code="queues")

    killed = [not_filtering(10), Record(12, "pulse"), Record(500, "start", clean=False), not_filtering(600)]
    assert gathered(killed).outages == [(10, 2000, "queues", "queues"), (600, None, "queues", "queues")]
    assert gathered([*killed, Record(605, "stop"), Record(700, "start", clean=True), not_filtering(800),
                     Record(801, "filtering", who="queues", after_ms=1000)]).outages[1:] == [
        (600, 5000, "queues", "queues"), (800, 1000, "queues", "queues")]
    clock_back = [not_filtering(10), Record(5, "clock", step_ms=-9000), Record(6, "start", clean=False)]
    assert gathered(clock_back).outages == [(10, 0, "queues", "queues")]


def test_nothing_that_was_asked_for_and_no_address_is_in_it(made, home):
    out = "".join(made("--format", form) for form in ("html", "json", "csv"))
    stored = b"".join(path.read_bytes() for path in home.rglob("*")
                      if path.is_file() and "counts" in path.name)
    for name in NAMES:
        for form in (name.encode(), name.encode("utf-16-le"), name[::-1].encode(), base64.b64encode(name.encode())):
            assert form not in stored and form not in out.encode()
    with closing(opened(home / "state-ledger")) as base:
        assert read(base, 0, TODAY).blocks
