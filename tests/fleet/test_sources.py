"""sources.toml: what it may say, and that all its mistakes are told at once, each with the way out."""

import importlib
from dataclasses import fields
from pathlib import Path

import pytest

import edgeblock
from edgeblock.errors import ConfigError
from edgeblock.fleet import sources, web, zone
from edgeblock.fleet.sources import FetchSettings, Sources, load, make, parse
from tests.fleet import fakes

SHIPPED = Path(edgeblock.__file__).parent / "sources.toml"


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setitem(sources.KINDS, "fake", fakes.KIND)


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        parse(text, "sources.toml", Path("/etc"))
    assert all(isinstance(line, str) and "\n" not in line and line.startswith("sources.toml: ")
               for line in refused.value.args)
    return list(refused.value.args)


def test_a_source_of_each_type_of_key():
    made = parse('''
        [fetch]
        directory = "/x"
        ring = "canary"
        [[source]]
        name = "a"
        kind = "fake"
        number = 3
        words = ["x", "y"]
        where = "key"
        share = 1
        flag = true
        every = 60
        settings = true
        ''', "sources.toml", Path("/etc"))
    [one] = made.sources
    assert made.fetch == FetchSettings(directory=Path("/x"), ring="canary")
    assert one.own == fakes.Settings(3, "", ("x", "y"), Path("/etc/key"), 1.0, True)
    assert (one.name, one.kind, one.every, one.jitter, one.settings) == ("a", "fake", 60.0, 0.1, True)
    assert isinstance(make(one, made.fetch), fakes.Fake)
    assert parse("", "sources.toml", Path("/etc")) == Sources()


def test_all_mistakes_are_told_at_once():
    said = mistakes('''
        [fetch]
        at_once = 0
        direktory = "/x"
        [[source]]
        name = "../a"
        kind = "htps"
        [[source]]
        name = "b"
        kind = "fake"
        numbr = 3
        text = 7
        every = "often"
        [[source]]
        [[source]]
        name = "c"
        kind = "fake"
        number = -1
        [sourc]
        [[source]]
        name = "d"
        kind = "https"
        url = "ftp://x"
        ''')
    for words in ("[fetch] at_once = 0 must be a whole number from 1 to 64",
                  "unknown key 'direktory' in [fetch]; did you mean directory?",
                  "[[source]] number 1 name = '../a' must be letters, digits",
                  "kind = 'htps' must be one of \"https\"",
                  "unknown key 'numbr' in [[source]] b; did you mean number?",
                  "[[source]] b text = 7 must be one line of text in quotes",
                  "[[source]] b every = 'often' must be seconds, from 1 to 2.592e+06",
                  "[[source]] b has no number, which kind = \"fake\" needs",
                  "[[source]] number 3 has no name; write one", "[[source]] number 3 has no kind; write one",
                  "[[source]] c number = -1 must be none below 0", "[[source]] c and another line",
                  "unknown section 'sourc'; did you mean source?",
                  "[[source]] d url = 'ftp://x' must be an https URL"):
        assert sum(words in line for line in said) == 1, (words, said)


@pytest.mark.parametrize(("text", "words"), [
    ("[source]\nname = 'a'", "must be a section: [[source]]"), ("fetch = 3", "must be a section: [fetch]"),
    ("source = [3]", "source = 3 must be a section"), ("x", "not TOML"), ("x = " + "[" * 9999, "not TOML"),
    ("x = " + "9" * 9999, "not TOML"),
    ("[[source]]\nname='a'\nkind='fake'\nnumber=1\n" * 2, "[[source]] a is there twice"),
    ("".join(f"[[source]]\nname='{name}'\nkind='https'\nurl='https://a.example/{name}'\nfile='court.list'\n"
             for name in "ab"), "[[source]] b file = 'court.list' is that of a, too; give it another name"),
    ("[[source]]\nname='a'\nkind='https'\nurl='https://u:p@a.example/'", "a password is not for this file"),
    ("[fetch]\nproxy='http://u:p@proxy:1'", "without a password"),
    ("[[source]]\nname='a'\nkind='fake'\nnumber=1\n" * 1001, "1000 are the most")])
def test_a_mistake_is_a_line(text, words):
    assert any(words in line for line in mistakes(text))


@pytest.mark.parametrize("text", ["[fetch]\nproxy='http://me:secret@proxy:1'",
                                  "[[source]]\nname='a'\nkind='https'\nurl='https://me:secret@a.example/'",
                                  "[[source]]\nname='a'\nkind='https'\nmirrors=['https://me:secret@a.example/']",
                                  "[[source]]\nname='a'\nkind='tuf'\nmetadata=['https://me:secret@a.example/']"])
def test_a_mistake_shows_no_password(text):
    """It goes to the journal where the file is read again."""
    said = "\n".join(mistakes(text))
    assert "a.example" in said or "proxy:1" in said
    assert "me:" not in said and "secret" not in said


def test_a_file_that_cannot_be_read_is_a_line(tmp_path):
    (tmp_path / "long.toml").write_bytes(b"#" * (2 << 20))
    (tmp_path / "wide.toml").write_bytes(b"x = '\xff'")
    for name, words in (("none.toml", "cannot be read"), ("long.toml", "is longer than"), ("wide.toml", "not UTF-8")):
        with pytest.raises(ConfigError, match=words):
            load(tmp_path / name)


def test_no_kind_has_a_key_that_all_sources_have():
    common = {one.name for one in fields(sources.SourceSettings)}
    assert {"https", "zone", "tuf", "fake"} == sources.KINDS.keys()
    for kind, (module, name) in sources.KINDS.items():
        found = importlib.import_module(module)
        assert not common & {one.name for one in fields(found.Settings)}, kind
        assert getattr(found, name).kind == kind


def test_the_file_that_ships_is_one_and_has_every_key_of_fetch_and_of_each_kind():
    text = SHIPPED.read_text()
    assert parse(text, "sources.toml", Path("/etc")) == Sources()        # all of it is commented
    said = "\n".join(line.removeprefix("#") for line in text.splitlines()
                     if line.startswith(("#[", "#")) and not line.startswith("# "))
    made = parse(said, "sources.toml", Path("/etc"))
    assert made.fetch == FetchSettings()        # what it says are the defaults
    known = {key for key in said.replace(" ", "").split("\n")}
    for record in (FetchSettings, web.Settings, zone.Settings):
        for one in fields(record):
            assert any(line.startswith(f"{one.name}=") for line in known), one.name
