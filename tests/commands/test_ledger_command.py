"""`edgeblock ledger`: what it prints, where, and how it ends. In: ledgers, arguments. Out: lines, exit statuses."""

import json
from pathlib import Path

import pytest

from edgeblock.cli import main
from tests.ledger.books import DAYS, PER_DAY, fill
from tests.ledger.test_prove import Box


@pytest.fixture
def place(tmp_path):
    fill(tmp_path / "ledger")
    (tmp_path / "edgeblock.toml").write_text(f'[rules]\nkey = "{tmp_path}/state/key"\n[ledger]\n'
                                             f'directory = "{tmp_path}/ledger"\n')
    return tmp_path


def run(*words: object) -> int:
    return main(["ledger", *map(str, words)])


def public(place: Path) -> Path:
    return place / "ledger" / "key.pub"


def test_a_ledger_that_holds(place, capsys):
    assert run("verify", "--config", place / "edgeblock.toml") == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"as it was written: {DAYS * PER_DAY + 1} records in {DAYS} segments, 2026-")
    assert "--public" in said.err and "--heads" in said.err
    assert run("verify", place / "ledger", "--public", public(place), "--heads", place / "ledger") == 0
    said = capsys.readouterr()
    assert said.err == "" and f"{DAYS} heads from elsewhere fit" in said.out
    words = public(place).read_text().split()[-1]
    assert run("verify", place / "ledger", "--public", words) == 0


def test_a_ledger_that_does_not(place, capsys):
    path = sorted((place / "ledger").glob("*.records"))[1]
    path.write_bytes(path.read_bytes().replace(b"list 3", b"list 4"))
    assert run("verify", place / "ledger") == 1
    first, *_, last = capsys.readouterr().out.splitlines()
    assert path.stem in first and "was altered" in first and last.startswith("NOT as it was written: ")


def test_what_cannot_be_told(place, capsys):
    for words in (("verify", place / "nowhere"), ("verify", place / "edgeblock.toml"),
                  ("verify", place / "ledger", "--public", "RWnonsense"),
                  ("verify", place / "ledger", "--heads", place / "edgeblock.toml"),
                  ("export", "--config", place / "edgeblock.toml", "--from", "tomorrow"),
                  ("export", "--config", place / "edgeblock.toml", "--from", "2031-01-01"),
                  ("prove", "example.com", "--config", place / "edgeblock.toml")):
        assert run(*words) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith("edgeblock: ") and said.err.count("\n") == 1, words


HEAD = b'{"edgeblock":"ledger export","version":1,"public":"x"}\n'


@pytest.mark.parametrize("text", [
    b"[" * 60_000 + b"\n", HEAD + b'{"day":' + b"[" * 100_000 + b"\n", HEAD + b"x" * (3 << 20), b"\xff\xfe", b"",
    HEAD + b'{"day":"2026-01-01/../x","records":true,"segment":1,"signed":""}\n',
    HEAD + b'{"day":"2026-01-01","records":true,"segment":1e999,"signed":""}\n'])
def test_garbage_is_said_to_be_no_export(place, capsys, text):
    (place / "x").write_bytes(text)
    assert run("verify", place / "x", "--public", public(place)) == 2
    assert capsys.readouterr().err == f"edgeblock: {place / 'x'}: is no export of a ledger\n"


@pytest.mark.parametrize("named", ["/", "/bin/true", "\0", "x" * 5000])
def test_what_is_no_public_key_is_said(place, capsys, named):
    assert run("verify", place / "ledger", "--public", named) == 2
    said = capsys.readouterr().err
    assert "--public" in said and said.count("\n") == 1


@pytest.fixture
def box(tmp_path):
    one = Box(tmp_path)
    one.load(court="example.com\n")
    one.end()
    (tmp_path / "edgeblock.toml").write_text(f'[rules]\ndirectory = "{one.rules}"\nkey = "{tmp_path}/state/key"\n'
                                             f'[ledger]\ndirectory = "{one.ledger}"\n')
    return tmp_path


def test_what_cannot_be_proved_is_not_said_to_be_untrue(box, capsys):
    prove = ("prove", "example.com", "--config", box / "edgeblock.toml")
    assert run(*prove) == 0 and run("prove", "never.example.com", *prove[2:]) == 1
    capsys.readouterr()
    assert run(*prove, "--from", "2028-01-01", "--to", "2020-01-01") == 2
    assert "is not before" in capsys.readouterr().err
    [path] = (box / "state" / "proofs").iterdir()
    path.write_bytes(b"")
    assert run(*prove) == 2 and "not kept any more" in capsys.readouterr().err
    assert run(*prove, "--from", "2090-01-01") == 1         # nothing is missing of that time
    path.unlink()
    assert run(*prove) == 2


def test_a_list_that_only_observes_is_not_said_to_block(tmp_path, capsys):
    one = Box(tmp_path)
    (one.rules / "court.toml").write_text('action = "observe"\n')
    one.load(court="example.com\n")
    one.end()
    (tmp_path / "edgeblock.toml").write_text(f'[rules]\ndirectory = "{one.rules}"\nkey = "{tmp_path}/state/key"\n'
                                             f'[ledger]\ndirectory = "{one.ledger}"\n')
    assert run("prove", "example.com", "--config", tmp_path / "edgeblock.toml") == 1
    assert "court: observed, not blocked, from" in capsys.readouterr().err


def test_an_export_is_verified_alone_and_is_always_the_same(place, capsys):
    made = []
    for name in ("a", "b"):
        assert run("export", "--config", place / "edgeblock.toml", "--output", place / name) == 0
        made.append((place / name).read_bytes())
    assert (place / "a").stat().st_mode & 0o777 == 0o600         # for who reads the ledger itself
    assert made[0] == made[1] and json.loads(made[0].split(b"\n")[0])["edgeblock"] == "ledger export"
    assert (place / "ledger" / "key").read_bytes() not in made[0]
    assert run("verify", place / "a", "--public", public(place), "--heads", place / "ledger") == 0
    assert run("export", "--config", place / "edgeblock.toml", "--output", place / "a") == 2
    assert "is there already" in capsys.readouterr().err


def test_a_part_of_it_is_verified_too(place, capsys):
    days = sorted(path.name.split(".")[1] for path in (place / "ledger").glob("*.records"))
    assert run("export", "--config", place / "edgeblock.toml", "--from", days[1], "--to", days[1], "--output",
               place / "one") == 0
    assert run("verify", place / "one", "--public", public(place), "--heads", place / "ledger") == 0
    assert f"{PER_DAY} records in 1 segments" in capsys.readouterr().out
    data = (place / "one").read_bytes()
    (place / "one").write_bytes(data.replace(b"list 5", b"list 6"))
    assert run("verify", place / "one", "--public", public(place)) == 1
    lines = data.splitlines(keepends=True)
    (place / "one").write_bytes(b"".join(lines[:5] + lines[6:]))
    assert run("verify", place / "one", "--public", public(place)) == 1
    assert "was removed before it" in capsys.readouterr().out


@pytest.mark.parametrize("text", [b"", b"{}\n", b"[]\n", b'{"edgeblock":"ledger export","version":1}\n', b"\xff\n"])
def test_what_is_no_export_is_said(place, text, capsys):
    (place / "x").write_bytes(text)
    assert run("verify", place / "x") == 2
    assert "is no export of a ledger" in capsys.readouterr().err


def test_an_export_cannot_write_elsewhere(place, capsys):
    head = b'{"edgeblock":"ledger export","version":1,"public":"x"}\n'
    (place / "x").write_bytes(head + b'{"day":"../../evil","records":true,"segment":1,"signed":"x"}\n')
    assert run("verify", place / "x") == 2
    assert list(place.rglob("*evil*")) == []
