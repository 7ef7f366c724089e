"""`edgeblock export`: what is in the file, what is left out, and when the one that is there stays."""

import json
import os
import random
import time
from ipaddress import IPv4Network
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import Mock

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgeblock.commands.export
import edgeblock.fleet.export
from edgeblock import config
from edgeblock.addresses import Addresses, Endpoint, Span, What
from edgeblock.blocklist.load import load
from edgeblock.blocklist.refresh import refresh
from edgeblock.blocklist.store import Store, read_key
from edgeblock.cli import main
from edgeblock.commands.export import serial_of
from edgeblock.errors import ListError
from edgeblock.fleet.export.gather import Sources, gather, joined, name_of, place_of
from edgeblock.fleet.export.prefixes import blocked_whole, prefixes


class Home:
    """A rules directory, and exports of it."""

    def __init__(self, home: Path) -> None:
        self.rules = home / "rules"
        self.rules.mkdir()
        self.config = home / "edgeblock.toml"
        self.config.write_text(f'[rules]\ndirectory = "{self.rules}"\nkey = "{home}/key"\nlocked = []\n')
        self.output = home / "out"

    def drop(self, name: str, text: str) -> None:
        (self.rules / name).write_text(text)

    def export(self, format: str, *more: str, output: bool = True) -> int:
        place = ["--output", str(self.output)] if output else []
        return main(["export", "--config", str(self.config), "--format", format, *place, *more])

    def lines(self, format: str, *more: str) -> list[str]:
        assert self.export(format, *more) == 0
        return [line.strip() for line in self.output.read_text().splitlines()]

    def sources(self, **more: object) -> Sources:
        return gather(config.load(str(self.config)).rules, **more)      # type: ignore[arg-type]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


# The file -----------------------------------------------------------------------------------------------------

def test_a_refused_list_leaves_the_file_as_it_was(home: Home, capsys: pytest.CaptureFixture[str]):
    home.drop("a.list", "example.com\nother.example\n")
    assert home.export("rpz") == 0
    before = home.output.read_bytes()
    home.drop("b.list", "example..com\ncom\n")
    assert home.export("rpz") == 2
    assert home.output.read_bytes() == before and sorted(os.listdir(home.output.parent)) == [
        "edgeblock.toml", "out", "rules"]
    told = capsys.readouterr().err
    assert "b.list" in told and "nothing is exported while a list is refused" in told


def test_what_fails_in_the_midst_leaves_the_file_as_it_was(home: Home, monkeypatch: pytest.MonkeyPatch):
    home.drop("a.list", "example.com\n")
    assert home.export("rpz") == 0
    before = home.output.read_bytes()
    home.drop("a.list", "example.net\n")

    def broken(sources: Sources, options: object):
        yield "; half of it\n"
        raise ListError("a.list: is gone meanwhile")

    monkeypatch.setitem(edgeblock.fleet.export.FORMATS, "rpz", broken)
    assert home.export("rpz") == 2
    assert home.output.read_bytes() == before
    assert [one for one in os.listdir(home.output.parent) if one.startswith(".")] == []


def test_what_the_daemon_is_about_to_take_is_waited_for(home: Home, monkeypatch: pytest.MonkeyPatch):
    rules = config.load(str(home.config)).rules
    store = Store(rules.key.parent, read_key(rules.key, create=True))
    store.prepare()
    home.drop("a.list", "example.com\n")
    refresh(rules, store, time.time())
    home.drop("b.list", "example.net\n")
    monkeypatch.setattr("edgeblock.fleet.export.gather.Event", lambda: Mock(
        wait=lambda _: refresh(rules, store, time.time())))
    assert "example.net CNAME ." in home.lines("rpz")


def test_what_the_daemon_has_not_in_force_is_not_exported(home: Home, capsys: pytest.CaptureFixture[str],
                                                          monkeypatch: pytest.MonkeyPatch):
    """It judges growth and loss; who knows no version before would export what no box does."""
    monkeypatch.setattr(edgeblock.commands.export, "PATIENCE", 0.0)
    rules = config.load(str(home.config)).rules
    store = Store(rules.key.parent, read_key(rules.key, create=True))
    store.prepare()
    home.drop("a.list", "example.com\n")
    home.drop("b.list", "".join(f"{one}.example.net\n" for one in range(200)))
    home.drop("b.toml", 'until = 2040-01-01\nclients = ["198.51.100.0/24"]\nexpires = 2041-01-01\n')
    assert home.export("rpz") == 0          # no daemon has ever run here
    refresh(rules, store, time.time())
    assert home.export("rpz") == 0
    before = home.output.read_bytes()
    capsys.readouterr()
    home.drop("a.list", "".join(f"{one}.example.org\n" for one in range(5000)))
    (home.rules / "b.list").unlink()
    for taken in range(2):
        assert home.export("rpz") == 2 and home.output.read_bytes() == before
        told = capsys.readouterr().err
        assert "a.list: the daemon has another version in force" in told
        assert "b: the daemon has it in force, and there is no such list" in told
        if not taken:
            assert refresh(rules, store, time.time()).refused.keys() == {"a", "b"}
    home.drop("c.list", "example.org\n")
    assert home.export("rpz") == 2
    assert "c.list: the daemon has no version in force" in capsys.readouterr().err
    assert home.export("rpz", "--rules", str(home.rules)) == 0 and home.output.read_bytes() != before


def test_a_list_that_changes_meanwhile_is_an_error(home: Home):
    home.drop("a.list", "example.com\n")
    sources = home.sources()
    home.drop("a.list", "example.com\nexample.net\n")
    with pytest.raises(ListError, match=r"a\.list: was changed while it was exported"):
        list(sources.nodes())
    (home.rules / "a.list").unlink()
    with pytest.raises(ListError):
        list(sources.nodes())


def test_the_same_is_not_written_again(home: Home, capsys: pytest.CaptureFixture[str]):
    for format in edgeblock.fleet.export.FORMATS:
        home.drop("a.list", "example.com\n192.0.2.1\n")
        assert home.export(format) == 0
        before = home.output.stat()
        assert home.export(format) == 0
        assert home.output.stat().st_ino == before.st_ino and "is up to date" in capsys.readouterr().err
        assert home.export(format, "--check") == 0
        home.drop("a.list", "example.com\n192.0.2.1\nexample.net\n192.0.2.9\n")
        assert home.export(format, "--check") == 1
        assert home.output.stat().st_ino == before.st_ino
        assert home.export(format) == 0 and home.export(format, "--check") == 0
        home.drop("a.list", "example.com\n192.0.2.1\n")
        assert home.export(format, "--check") == 1          # a shorter one is another, too
        home.output.unlink()
    assert home.export("rpz", "--check") == 1
    assert home.export("rpz", "--check", output=False) == 2


def test_the_file_keeps_its_mode(home: Home):
    home.drop("a.list", "example.com\n")
    assert home.export("rpz") == 0
    assert home.output.stat().st_mode & 0o777 == 0o644
    home.output.chmod(0o640)
    home.drop("a.list", "example.net\n")
    assert home.export("rpz") == 0
    assert home.output.stat().st_mode & 0o777 == 0o640


def test_standard_output_is_the_file(home: Home, capsys: pytest.CaptureFixture[str]):
    home.drop("a.list", "example.com\n")
    assert home.export("unbound") == 0 and home.export("unbound", output=False) == 0
    assert capsys.readouterr().out == home.output.read_text()


@pytest.mark.parametrize(("before", "counts", "after"), [
    (None, True, 1), (41, True, 42), (0xFFFFFFFF, True, 1), (3_000_000_000, False, 3_000_000_001), (41, False, None),
    (None, False, None)])
def test_serials_never_go_back(before: int | None, counts: bool, after: int | None):
    head = b"" if before is None else f"; x\n@ SOA localhost. nobody.invalid. {before} 1 1 1 1\n".encode()
    made = serial_of(head, counts)
    assert made == after if after is not None else 1_700_000_000 < made < 3_000_000_000
    assert before is None or 0 < (made - before) % 2 ** 32 < 2 ** 31 or made == 1


def test_a_zone_that_changes_has_a_greater_serial(home: Home):
    home.drop("a.list", "example.com\n")
    first = home.lines("rpz", "--serial", "count")
    home.drop("a.list", "example.net\n")
    second = home.lines("rpz", "--serial", "count")
    assert [line.split()[4] for line in (*first, *second) if " SOA " in line] == ["1", "2"]


# What is in it ------------------------------------------------------------------------------------------------

def test_names_lead_to_a_page(home: Home):
    home.drop("a.list", "example.com\n")
    lines = home.lines("rpz", "--page", "Blocked.Example.net.", "--zone", "rpz.example.net")
    assert "$ORIGIN rpz.example.net." in lines and "*.example.com CNAME blocked.example.net." in lines


def test_names_lead_to_no_page_that_is_blocked(home: Home, capsys: pytest.CaptureFixture[str]):
    home.drop("a.list", "example.com\n")
    assert home.export("rpz", "--page", "page.example.com") == 2
    assert "--page page.example.com: is listed itself" in capsys.readouterr().err
    home.drop("b.list", "@@page.example.com\n")
    assert home.export("rpz", "--page", "page.example.com") == 0


def test_a_name_that_is_too_long_for_the_zone_is_left_out(home: Home, capsys: pytest.CaptureFixture[str]):
    long = ".".join(["a" * 60] * 4)
    assert len(long) == 243
    home.drop("a.list", f"{long}\nexample.com\n")
    assert not any(long in line for line in home.lines("rpz"))
    assert "left out: 1 that are no names of DNS" in capsys.readouterr().err
    assert any(long in line for line in home.lines("unbound"))


def test_an_exception_that_is_too_long_for_the_zone_is_an_error(home: Home, capsys: pytest.CaptureFixture[str]):
    long = ".".join(["a" * 60] * 4)
    home.drop("a.list", f"{long.partition('.')[2]}\n@@{long}\n")
    assert home.export("rpz") == 2 and not home.output.exists()
    assert "has no room for the exception" in capsys.readouterr().err
    assert home.export("rpz", "--zone", "x") == 0
    home.drop("a.list", f"{long.partition('.')[2]}\n@@*.{long}\n")
    assert home.export("rpz") == 2
    home.drop("a.list", f"{long.partition('.')[2]}\naa.{long}\n")
    assert home.export("rpz") == 0          # it is blocked by the one above


@pytest.mark.parametrize("trigger", ["rpz-ip", "rpz-client-ip", "rpz-nsip", "rpz-nsdname"])
def test_a_name_that_would_be_another_trigger_is_left_out(trigger: str, home: Home,
                                                         capsys: pytest.CaptureFixture[str]):
    home.drop("a.list", f"1.0.0.0.0.{trigger}\nrpz-ip.example\n@@=b.a.{trigger}\na.{trigger}\n")
    assert not any(trigger in line.split()[0].split(".") for line in home.lines("rpz")
                   if not line.startswith(("rpz-ip.example", "*.rpz-ip.example")))
    assert "rpz-ip.example CNAME ." in home.output.read_text()
    assert "that are no names of DNS" in capsys.readouterr().err


def test_one_list_with_the_exceptions_of_all(home: Home, capsys: pytest.CaptureFixture[str]):
    home.drop("a.list", "example.com\nexample.org\n")
    home.drop("b.list", "example.net\n@@www.example.com\nexample.org\n")
    home.drop("c.list", "example.org\n192.0.2.1\n")
    home.drop("c.toml", "mandatory = true\n")
    assert [line.split()[0] for line in home.lines("rpz", "--list", "a")[5:]] == [
        "example.com", "*.example.com", "example.org", "*.example.org", "www.example.com", "*.www.example.com"]
    assert home.lines("exabgp", "--list", "a") == ["# made by edgeblock export; do not edit"]
    assert len(home.lines("exabgp", "--list", "a", "--list", "c")) == 2
    home.drop("d.list", "name.example @ 192.0.2.7\nhttp://192.0.2.8/path\n")
    assert len(home.lines("exabgp", "--list", "c")) == 2 and len(home.lines("exabgp", "--list", "d")) == 3
    assert home.export("rpz", "--list", "absent") == 2
    assert "--list absent" in capsys.readouterr().err


def test_another_lists_block_hides_none(home: Home):
    """The mandatory list of some clients decides on the box, and is not exported: what everybody has stays."""
    home.drop("a.list", "example.com\n192.0.2.1\n")
    home.drop("b.list", "example.com\n192.0.2.1\n")
    home.drop("b.toml", 'mandatory = true\nclients = ["198.51.100.0/24"]\n')
    assert "example.com CNAME ." in home.lines("rpz")
    assert any("192.0.2.1/32" in line for line in home.lines("bird", "--route", "blackhole"))


def test_servers_that_the_box_lets_through_are_left_out(home: Home, capsys: pytest.CaptureFixture[str]):
    home.drop("a.list", "192.0.2.0/29\n198.51.100.1\n198.51.100.1:443\n198.51.100.2:443\n2001:db8:7::/64\n")
    with home.config.open("a") as file:
        file.write('[ruleset]\nexempt_servers = ["198.51.100.1", "192.0.2.4/30", "2001:db8:7:0:8000::/65"]\n')
    assert [line.split()[2] for line in home.lines("exabgp", "--route", "blackhole")[1:]] == [
        "192.0.2.0/30", "2001:db8:7::/65"]
    assert "left out: 9223372036854775813 addresses of [ruleset]" in capsys.readouterr().err.replace(",", "")
    lines = home.lines("nft")
    assert "198.51.100.2 . 443" in lines and not any("198.51.100.1" in line for line in lines)
    assert len(home.lines("exabgp")) > 3        # diverted, the box lets them through


def test_windows_are_those_of_the_moment(home: Home, capsys: pytest.CaptureFixture[str]):
    home.drop("a.list", "early.example until=2030-01-01\nlate.example from=2031-01-01\n192.0.2.1 from=2031-01-01\n")
    home.drop("b.list", "listed.example\n")
    home.drop("b.toml", 'from = 2032-01-01T00:00:00Z\n')
    first = home.lines("rpz", "--at", "2029-06-01")
    assert "early.example CNAME ." in first and not any("late" in line or "listed" in line for line in first)
    told = capsys.readouterr().err
    assert "1 not in force at that time" in told and "1 of lists that are not in force at that time" in told
    assert "open or close at 2030-01-01T00:00:00Z" in told and "make it anew at 2030-01-01T00:00:00Z" in first[0]
    later = home.lines("rpz", "--at", "2033-01-01")
    assert {line.split()[0] for line in later[5:]} == {"late.example", "*.late.example", "listed.example",
                                                       "*.listed.example"}
    assert not any("192.0.2.1" in line for line in home.lines("nft", "--at", "2029-06-01"))
    assert any("192.0.2.1" in line for line in home.lines("nft", "--at", "2033-01-01"))


def test_everything_that_is_left_out_is_counted(home: Home, capsys: pytest.CaptureFixture[str]):
    home.drop("a.list", "http://example.com/a\nexample.net @ 192.0.2.1\n192.0.2.2:443\n192.0.2.3\n@@lifted.example\n"
                        "lifted.example\nech.example ech=only\nok.example\n")
    home.drop("seen.list", "seen.example\n")
    home.drop("seen.toml", 'action = "observe"\n')
    home.drop("some.list", "some.example\n")
    home.drop("some.toml", 'clients = ["198.51.100.0/24"]\n')
    lines = home.lines("rpz")
    assert lines[5:] == ["ok.example CNAME .", "*.ok.example CNAME ."]
    told = capsys.readouterr().err
    for line in ("1 URLs", "1 names at an address", "1 addresses with a port", "1 addresses (", "1 that an exception",
                 "1 only for hellos", "1 of lists that only observe", "1 of lists for some clients"):
        assert f"left out: {line}" in told


def test_a_hashed_list_is_left_out_and_one_with_exceptions_refused(home: Home, capsys: pytest.CaptureFixture[str],
                                                                    tmp_path: Path):
    for name, text in (("block", "example.com\n"), ("pass", "@@www.example.com\n")):
        (tmp_path / f"{name}.list").write_text(text)
        assert main(["hash-list", "--config", str(home.config), str(tmp_path / f"{name}.list"),
                     str(home.rules / f"{name}.hashed")]) == 0
        status = home.export("rpz")
        told = capsys.readouterr().err
        assert status == (0 if name == "block" else 2), told
        assert ("1 as fingerprints" if name == "block" else "has exceptions as fingerprints") in told
    assert home.export("nft") == 0


@pytest.mark.parametrize("words", [
    ("rpz", "--route", "divert"), ("nft", "--zone", "x"), ("rpz", "--zone", "a b"),
    ("bird", "--next-hop", "fe80::1%x; }"), ("bird", "--community", "1:65536"),
    ("bird", "--community", "1"), ("bird", "--next-hop", "example.com"), ("unbound", "--serial", "time"),
    ("rpz", "--at", "soon")])
def test_options_that_cannot_be_are_told(words: tuple[str, ...], home: Home, capsys: pytest.CaptureFixture[str]):
    assert home.export(*words) == 2
    told = capsys.readouterr().err
    assert words[1] in told and len(told.splitlines()) == 1 and not home.output.exists()


def test_the_json_is_as_its_schema_says(home: Home):
    home.drop("a.list", "example.com\n=b.example\n*.c.example\n192.0.2.0/24\n2001:db8::1\n192.0.2.5:80\n"
                        "http://u.example/a?b\nhttp://u.example/d/*\nn.example @ 192.0.2.1\n=m.example @ 192.0.2.1\n"
                        "*.o.example @ 2001:db8::/64\nuntil.example until=2099-01-01\n")
    home.drop("b.list", "@@www.example.com\n@@192.0.2.7\n@@http://u.example/d/x\n@@[2001:db8::1]:443\n")
    home.drop("c.list", "seen.example\n203.0.113.1\n")
    home.drop("c.toml", 'action = "observe"\n')
    assert home.export("json") == 0
    told = json.loads(home.output.read_text())
    schema = json.loads((Path(edgeblock.fleet.export.__file__).parent / "export-1.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(told, schema)
    assert [len(told[field]) for field in ("names", "addresses", "ports", "others")] == [5, 4, 1, 6]


def test_routes_that_divert_are_of_all_that_the_box_judges(home: Home):
    home.drop("a.list", "192.0.2.0/25\n192.0.2.128/25\n@@192.0.2.1\n198.51.100.1:443\nhttp://198.51.100.9/x\n"
                        "example.com @ 203.0.113.0/24\n[2001:db8::1]:443\n198.51.100.77 until=2020-01-01\n")
    home.drop("b.list", "198.51.100.200\n")
    home.drop("b.toml", 'clients = ["198.18.0.0/24"]\n')
    routes = [line.split()[2] for line in home.lines("exabgp")[1:]]
    assert routes == ["192.0.2.0/24", "198.51.100.1/32", "198.51.100.9/32", "198.51.100.200/32", "203.0.113.0/24",
                      "2001:db8::1/128"]
    holes = [line.split()[2] for line in home.lines("exabgp", "--route", "blackhole")[1:]]
    assert "192.0.2.0/32" in holes and "192.0.2.1/32" not in holes and not any("198.51" in one for one in holes)


# The parts ----------------------------------------------------------------------------------------------------

LABEL = st.sampled_from(["a", "b", "c"])
HOST = st.lists(LABEL, min_size=1, max_size=3).map(lambda labels: ".".join((*labels, "example")))
LINE = st.tuples(st.sampled_from(["", "", "=", "*.", "@@", "@@=", "@@*."]), HOST).map("".join)


@given(st.lists(LINE, max_size=8), st.lists(LINE, max_size=3))
def test_the_closest_node_says_what_the_matcher_says(lines: list[str], mandatory: list[str]):
    with TemporaryDirectory() as directory:
        home = Home(Path(directory))
        home.drop("a.list", "".join(f"{line}\n" for line in lines))
        home.drop("b.list", "".join(f"{line}\n" for line in mandatory))
        home.drop("b.toml", "mandatory = true\n")
        sources = home.sources()
        nodes = {node.name: node for node in sources.nodes()}
        matcher = load(home.rules, config.load(str(home.config)).rules).matcher
    names = {".".join(labels) for line in (*lines, *mandatory)
             for labels in ancestors(line.lstrip("@=*").removeprefix("."))}
    for name in sorted(names | {f"q.{one}" for one in names} | {f"r.q.{one}" for one in names}):
        found = matcher.look_up("tls", name.encode())
        assert said(nodes, name) == (found is not None and found.action != "accept"), name
        # A tree for each turn on the way down, as dnsdist has them, comes to the same.
        assert sources.levels(name) % 2 == sources.said(name).below


def ancestors(host: str) -> list[list[str]]:
    labels = host.split(".")
    return [labels[at:] for at in range(len(labels))]


def said(nodes: dict, name: str) -> bool:
    if name in nodes:
        return nodes[name].own
    while name := name.partition(".")[2]:
        if name in nodes:
            return nodes[name].below
    return False


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 6)), max_size=5),
       st.sets(st.integers(0, 70), max_size=6))
def test_addresses_with_a_port_that_passes_are_left_out_where_there_are_no_ports(ranges, holes):
    apart = joined((first, first + size) for first, size in ranges)
    spans = tuple(Span(first, last, What.DROP, "a") for first, last in apart)
    ends = tuple(Endpoint(one, 443, What.PASS, "a") for one in sorted(holes))
    made = list(blocked_whole(Addresses({4: spans, 6: ()}, {4: ends, 6: ()}), 4))
    wanted = {one for first, last in apart for one in range(first, last + 1)} - holes
    assert [one for first, last in made for one in range(first, last + 1)] == sorted(wanted)
    assert {int(address) for net in prefixes(made, 4) for address in IPv4Network(net)} == wanted


def test_a_row_is_found_where_fingerprints_are_spread_and_where_they_are_not():
    chance = random.Random(26)
    for prints in ([chance.randbytes(16) for _ in range(3000)], [bytes(15) + bytes([one]) for one in range(200)],
                   [b"\xff" * 15 + bytes([one]) for one in range(200)], []):
        rows = sorted({*prints})
        table = memoryview(b"".join(one + b"\0\0\0\0" for one in rows for _ in range(2)))
        for at, one in enumerate(rows):
            assert place_of(table, 2 * len(rows), one) == 2 * at
        for one in (bytes(16), b"\xff" * 16, b"\x7f" * 16):
            assert place_of(table, 2 * len(rows), one) == (2 * rows.index(one) if one in rows else -1)


@pytest.mark.parametrize(("host", "name"), [
    (b"example.com", "example.com"), (b"_dmarc.example", "_dmarc.example"), (b"a" * 64 + b".example", None),
    (b"a..b", None), (b"[2001:db8::1]", None), (b"a\\b.example", None), (b"a.example.", None), (b"x" * 300, None)])
def test_names_of_dns(host: bytes, name: str | None):
    assert name_of(host) == name
