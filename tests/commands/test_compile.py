"""`edgeblock compile`: one file of all lists or none, and a table that says what is in it."""

import io
import os
import stat

import pytest

from edgeblock import config
from edgeblock.blocklist.load import load
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.store import open_file, read_key
from edgeblock.cli import main
from edgeblock.commands import compile
from edgeblock.errors import ListError


@pytest.fixture
def rules(tmp_path):
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "a.list").write_text("a.example\na.example\n=b.example\n")
    (tmp_path / "rules" / "old.list").write_text("old.example\n")
    (tmp_path / "rules" / "old.toml").write_text("expires = 2020-01-01\n")
    return config.Rules(directory=tmp_path / "rules", key=tmp_path / "key")


def run(rules, output):
    out, err = io.StringIO(), io.StringIO()
    return compile.run(rules, output, out, err), out.getvalue(), err.getvalue()


def test_a_file_of_all_lists_and_a_table(rules, tmp_path):
    output = tmp_path / "rules.snapshot"
    status, table, said = run(rules, output)
    assert (status, said) == (0, "")
    assert "\x1b" not in table
    rows = {words[0]: words[1:] for line in table.splitlines() if (words := line.split())}
    assert rows["a"][:5] == ["a.list", "reset", "2", "1", "0"] and 40 < int(rows["a"][5]) < 100
    assert rows["old"][:2] == ["old.list", "expired"]
    assert rows[f"{output}:"][:2] == ["2", "entries,"]
    assert stat.S_IMODE(output.stat().st_mode) == stat.S_IMODE(rules.key.stat().st_mode) == 0o600
    matcher = ListMatcher(open_file(output, read_key(rules.key)))
    assert matcher.look_up("tls", b"www.a.example").list == "a" and matcher.look_up("tls", b"old.example") is None
    assert sorted(os.listdir(tmp_path)) == ["key", "rules", "rules.snapshot"]


def test_a_name_is_not_cut_where_nobody_has_said_how_wide_it_may_be(rules, tmp_path):
    (rules.directory / "orders-of-courts-and-authorities.list").write_text("c.example\n")
    assert "orders-of-courts-and-authorities.list" in run(rules, tmp_path / "rules.snapshot")[1]


def test_a_snapshot_without_its_key_or_past_an_expiry_says_so(rules, tmp_path):
    (rules.directory / "a.toml").write_text("expires = 2999-01-01\n")
    output = tmp_path / "rules.snapshot"
    run(rules, output)
    assert load(output, rules).warnings == ()
    [warning] = load(output, rules, now=4e10).warnings
    assert str(warning) == ("rules.snapshot: the list a expired on 2999-01-01 00:00 UTC, after this snapshot was "
                            "made, and is in force in it; compile it again")
    rules.key.unlink()
    with pytest.raises(ListError, match=r"^rules.snapshot: is a snapshot and needs its key: .*; run this as root"):
        load(output, rules)


def test_a_refused_list_leaves_no_file(rules, tmp_path):
    (rules.directory / "b.list").write_text("co.uk\nexmaple..com\n")
    (rules.directory / "c.toml").write_text("action = 'explode'\n")
    (rules.directory / "c.list").write_text("c.example\n")
    (rules.directory / "README.md").write_text("x\n")
    status, table, said = run(rules, tmp_path / "out")
    assert (status, table) == (2, "")
    assert [tuple(line.split(": ")[:2]) for line in said.splitlines()[:-1]] == [
        ("c.toml", "error"), ("b.list:1", "error"), ("b.list", "error"), ("README.md", "warning")]
    assert f"2 of 4 lists refused; {tmp_path}/out is not written" in said
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_written_is_one_line(rules, tmp_path):
    with pytest.raises(ListError, match="out: cannot be written: No such file or directory"):
        run(rules, tmp_path / "absent" / "out")


def test_the_command(rules, tmp_path, capsys):
    given = ["compile", "--key", str(rules.key), "--output", str(tmp_path / "out"), "--rules"]
    assert main([*given, str(rules.directory)]) == 0
    assert "a.list" in capsys.readouterr().out
    (rules.directory / "d.list").write_text("d.example\n")
    (rules.directory / "d.toml").write_text("action = 'redirect'\n")
    assert main([*given, str(rules.directory)]) == 0
    assert capsys.readouterr().err.startswith('d.toml: warning: action = "redirect" needs a URL, and there is none: ')
    assert main([*given, str(tmp_path / "absent")]) == 2
    assert capsys.readouterr().err == (
        f"edgeblock: {tmp_path}/absent: there is no such rules directory; make it, or name another\n")


def parts(rules, folder, commits=False):
    out, err = io.StringIO(), io.StringIO()
    return compile.run_parts(rules, folder, commits, out, err), out.getvalue(), err.getvalue()


def test_each_list_is_a_file_of_its_own_and_what_cannot_be_is_named(rules, tmp_path):
    (rules.directory / "timed.list").write_text("c.example until=2030-01-01\n")
    status, table, said = parts(rules, tmp_path / "out" / "parts", commits=True)
    assert status == 0 and said.startswith("timed.list: note: is left to each box: it has entries with windows")
    assert sorted(os.listdir(tmp_path / "out" / "parts")) == [
        "a.commitments", "a.compiled", "old.commitments", "old.compiled"]
    assert "minisign -S -m" in table and " 2 entries, " in table
    part = open_file(tmp_path / "out" / "parts" / "a.compiled", read_key(rules.key))
    [record] = part.parts.lists
    assert (record.name, record.entries, record.duplicates) == ("a", 2, 1) and len(record.made_of) == 64
    assert record.uid is None and record.origin == ""           # nothing of where it was made
    assert stat.S_IMODE((tmp_path / "out" / "parts" / "a.compiled").stat().st_mode) == 0o640
    (tmp_path / "out" / "parts" / "a.compiled").unlink()
    (rules.directory / "bad.list").write_text("co.uk\n")
    status, _, said = parts(rules, tmp_path / "out" / "parts")
    assert status == 2 and "1 of 4 lists refused" in said and not (tmp_path / "out" / "parts" / "a.compiled").exists()


def test_parts_by_the_command(rules, tmp_path, capsys):
    folder = str(tmp_path / "parts")
    command = ["compile", "--rules", str(rules.directory), "--key", str(rules.key)]
    assert main([*command, "--parts", folder]) == 0
    assert sorted(os.listdir(folder))[:2] == ["a.commitments", "a.compiled"]    # the ledger is on where nobody says
    with pytest.raises(SystemExit):
        main([*command, "--parts", folder, "--output", folder])
    (tmp_path / "file").write_text("")
    assert main([*command, "--parts", str(tmp_path / "file" / "x")]) == 2
    assert "cannot be written" in capsys.readouterr().err
