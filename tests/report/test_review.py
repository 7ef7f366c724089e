"""What `edgeblock review` tells: exactly those entries, by rule id and line, and their text only where asked for."""

import json
import time

import pytest

from edgeblock.cli import main
from tests.report.making import DAY, TODAY, count, make, rule_of

LISTS = {"court.list": "listed.example\nnever.example\npast.example until=2020-01-01\n@@fine.listed.example\n",
         "urls.list": "www.site.example/page\n", "urls.toml": 'https = "host"\n',
         "ended.list": "ended.example\n", "ended.toml": "until = 2020-01-01\n"}


@pytest.fixture
def reviewed(tmp_path, capsys):
    settings = make(tmp_path, LISTS)
    count(tmp_path, TODAY - 100, {})
    count(tmp_path, TODAY - 40, {}, rules=(("court", rule_of(tmp_path, "listed.example")),))
    count(tmp_path, TODAY - 1, {}, rules=(("urls", rule_of(tmp_path, "www.site.example")),))

    def run(*words, status=1):
        assert main(["review", "--config", str(settings), *words]) == status
        said = capsys.readouterr()
        return said.out if status != 2 else said.err
    return run


def test_entries_are_told_by_line_and_rule_and_text_only_where_asked_for(reviewed, tmp_path):
    said = reviewed()
    day = time.strftime("%Y-%m-%d", time.gmtime((TODAY - 40) * DAY))
    assert f"court.list: 3 entries, 2 not met in 2 days, 1 past their time; last met {day}" in said
    assert "urls.list: 1 entry, 0 not met in 2 days; last met" in said
    assert "the list itself ended 2020-01-01T00:00:00Z" in said
    assert f"court.list:2  {rule_of(tmp_path, 'never.example')}  never met" in said
    assert "court.list:3" in said and "its time ended 2020-01-0" in said and "court.list:4" not in said
    assert ".example" not in said
    with_text = reviewed("--entries", "--list", "court")
    assert "never met  never.example" in with_text and "urls.list" not in with_text


def test_an_entry_that_was_met_long_ago_is_dead_again(reviewed, tmp_path):
    told = json.loads(reviewed("--days", "30", "--list", "court", "--json"))
    [court] = told["lists"]
    assert (told["days"], court["dead"], court["past"], court["entries"]) == (1, 3, 1, 3)
    assert court["found"][0]["rule"] == rule_of(tmp_path, "listed.example") and court["found"][0]["last_met"]
    assert all("entry" not in one for one in court["found"])
    assert "Of the last 200 days 3 have counts: what was not met in these" in reviewed("--days", "200")
    count(tmp_path, 0, {})
    assert "Of the last 4000 days 3 have" in reviewed("--days", "4000"), "1970 was no day of these"


def test_nothing_to_look_at(reviewed, capsys):
    assert "0 not met" in reviewed("--list", "urls", status=0)


def test_mistakes_are_one_line(reviewed, tmp_path):
    assert "--list curt: no such list is in" in reviewed("--list", "curt", status=2)
    (tmp_path / "state-ledger" / "counts.sqlite").unlink()
    assert "there are no counts yet" in reviewed(status=2)
    (tmp_path / "state" / "key").unlink()
    assert "the key cannot be used" in reviewed(status=2)


def test_of_a_long_list_the_first_are_told_and_how_to_get_the_others(tmp_path, capsys):
    settings = make(tmp_path, {"long.list": "".join(f"www{number}.example\n" for number in range(50))})
    count(tmp_path, TODAY, {})
    assert main(["review", "--config", str(settings)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert "50 not met on 1 day" in said[1] and len(said) == 2 + 20 + 1 and "edgeblock review --list long" in said[-1]
    assert main(["review", "--config", str(settings), "--list", "long"]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 2 + 50
