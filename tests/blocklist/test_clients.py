"""Lists for some clients: whom they apply to, how their files come in, and what happens when they cannot be used."""

import io
import ipaddress
import os
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeblock.addresses import What
from edgeblock.blocklist import clients as module
from edgeblock.blocklist import intake
from edgeblock.blocklist.addresses import read_addresses
from edgeblock.blocklist.clients import ClientFiles, Kept, from_bytes, set_of, to_bytes
from edgeblock.blocklist.explain import explain
from edgeblock.blocklist.lint import lint
from edgeblock.blocklist.load import load
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.rows import Rows, Verdict
from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.snapshot import Snapshot, open_snapshot, pack
from edgeblock.blocklist.store import Store, open_file, open_stacked

from .making import KEY, compiled
from .test_refresh import NOW, Box, many

LISTED4, LISTED6 = bytes([192, 0, 2, 7]), ipaddress.ip_address("2001:db8::7").packed
OTHER4, OTHER6 = bytes([198, 51, 100, 7]), ipaddress.ip_address("2001:db9::7").packed
FILE = "192.0.2.0/24\n2001:db8::/32\n"


def snapshot_of(*lists: tuple[str, ListSettings | None, list[str], str, str]) -> Snapshot:
    """Of lists given as (name, settings, lines, "only" or "except" or "", the text of a clients file)."""
    parts = compiled(*[one[:3] for one in lists])
    sets = {}
    for record, (*_, mode, text) in zip(parts.lists, lists, strict=True):
        if mode:
            one = set_of(text.encode(), KEY)
            record.clients, record.clients_sum, record.clients_count = mode, one.sum, one.prefixes
            sets[one.sum] = one
    return open_snapshot(pack(replace(parts, client_sets=list(sets.values())), KEY, NOW), KEY)


def action(matcher: ListMatcher, host: bytes, client: bytes) -> str | None:
    found = matcher.look_up("tls", host, client=client)
    return found and found.action


# What the matcher says ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("listed, other", [(LISTED4, OTHER4), (LISTED6, OTHER6)])
def test_a_list_for_some_applies_to_these_alone(listed: bytes, other: bytes) -> None:
    for mode, here, there in (("only", listed, other), ("except", other, listed)):
        matcher = ListMatcher(snapshot_of(("family", None, ["a.example", "203.0.113.0/24", "http://u.example/a"],
                                           mode, FILE)))
        assert action(matcher, b"www.a.example", here) == "reset" and action(matcher, b"www.a.example", there) is None
        assert matcher.look_up("http", b"u.example", b"/a", client=here)
        assert not matcher.look_up("http", b"u.example", b"/a", client=there)
        assert matcher.look_up_address(bytes([203, 0, 113, 1]), 443, here)
        assert not matcher.look_up_address(bytes([203, 0, 113, 1]), 443, there)


@pytest.mark.parametrize("mode", ["only", "except"])
def test_it_does_not_apply_to_a_client_of_whom_nothing_is_known(mode: str) -> None:
    matcher = ListMatcher(snapshot_of(("family", None, ["a.example"], mode, FILE)))
    for client in (b"", b"\0", bytes(8)):
        assert action(matcher, b"a.example", client) is None
    matcher.client = LISTED4
    assert (action(matcher, b"a.example", b"") == "reset") is (mode == "only")


def test_families_have_nothing_of_each_other() -> None:
    matcher = ListMatcher(snapshot_of(("family", None, ["a.example"], "only", "0.0.0.0/0")))
    assert action(matcher, b"a.example", OTHER4) == "reset" and action(matcher, b"a.example", OTHER6) is None
    matcher = ListMatcher(snapshot_of(("family", None, ["a.example"], "only", "::/0")))
    assert action(matcher, b"a.example", OTHER4) is None and action(matcher, b"a.example", OTHER6) == "reset"


def test_an_exception_lifts_for_these_clients_alone() -> None:
    matcher = ListMatcher(snapshot_of(("court", None, ["a.example", "b.example"], "", ""),
                                      ("press", None, ["@@a.example"], "only", FILE),
                                      ("hard", ListSettings(mandatory=True), ["b.example"], "only", FILE),
                                      ("soft", None, ["@@b.example"], "", "")))
    assert action(matcher, b"a.example", LISTED4) == "accept" and action(matcher, b"a.example", OTHER4) == "reset"
    assert action(matcher, b"b.example", LISTED4) == "reset" and action(matcher, b"b.example", OTHER4) == "accept"


def test_what_does_not_apply_stands_in_nobodys_way() -> None:
    # The more specific entry is of a list for others: the wider one counts, not nothing.
    matcher = ListMatcher(snapshot_of(("all", ListSettings(action="drop"), ["example"], "", ""),
                                      ("family", None, ["=www.a.example"], "only", FILE)))
    assert action(matcher, b"www.a.example", LISTED4) == "reset"
    assert action(matcher, b"www.a.example", OTHER4) == "drop"


def test_a_list_whose_clients_are_lost_applies_to_nobody() -> None:
    snapshot = snapshot_of(("family", None, ["a.example"], "except", FILE), ("all", None, ["b.example"], "", ""))
    snapshot.parts.client_sets.clear()
    matcher = ListMatcher(snapshot)
    assert action(matcher, b"a.example", LISTED4) is None and action(matcher, b"a.example", OTHER4) is None
    assert action(matcher, b"b.example", OTHER4) == "reset"
    assert Rows(snapshot).name("tls", b"a.example", client=OTHER4) is Verdict.NOTHING


def test_the_trial_asks_as_anybody() -> None:
    snapshot = snapshot_of(("family", None, ["a.example"], "only", FILE))
    matcher = ListMatcher(snapshot)
    matcher.anyhow = True
    assert action(matcher, b"a.example", OTHER4) == action(matcher, b"a.example", b"") == "reset"
    assert Rows(snapshot).name("tls", b"a.example") is Verdict.BLOCK


def test_who_asks_gets_what_python_says() -> None:
    chance = random.Random(24)
    for _ in range(40):
        lists, whom = [], []
        for name in "abcd":
            mode = chance.choice(["", "only", "except"])
            networks = [ipaddress.ip_network((chance.getrandbits(8) << 24, chance.randrange(1, 9)), strict=False)
                        for _ in range(chance.randrange(1, 6))] if mode else []
            networks += [ipaddress.IPv6Network((chance.getrandbits(8) << 120, chance.randrange(1, 9)), strict=False)
                         for _ in range(chance.randrange(1, 6))] if mode else []
            kind = chance.choice(["", "", "@@"])
            settings = ListSettings(mandatory=not kind and chance.random() < 0.3)
            lists.append((name, settings, [f"{kind}x.example"], mode, "\n".join(map(str, networks))))
            whom.append((mode, networks))
        snapshot = snapshot_of(*lists)
        matcher, rows = ListMatcher(snapshot), Rows(snapshot)
        for _ in range(40):
            client = ipaddress.ip_address(chance.randbytes(chance.choice([4, 16])))
            verdicts = [Verdict.NOTHING]
            for (_, settings, lines, *_), (mode, networks) in zip(lists, whom, strict=True):
                inside = any(client in one for one in networks)
                if not mode or inside == (mode == "only"):
                    verdicts.append(Verdict.EXCEPTION if lines[0][0] == "@" else
                                    Verdict.MANDATORY if settings.mandatory else Verdict.BLOCK)
            assert rows.name("tls", b"x.example", client=client.packed) is max(verdicts)
            assert action(matcher, b"x.example", client.packed) == {
                Verdict.NOTHING: None, Verdict.EXCEPTION: "accept"}.get(max(verdicts), "reset")


# What the kernel's rules are given ------------------------------------------------------------------------------

def test_the_kernel_is_given_no_address_of_a_list_for_some() -> None:
    parts = snapshot_of(("all", None, ["192.0.2.0/24", "2001:db8::/32"], "", ""),
                        ("family", None, ["198.51.100.0/24", "2001:db9::/32"], "only", FILE)).parts
    spans = read_addresses(parts).spans
    assert [(one.first, one.owner) for one in spans[4]] == [(0xC0000200, "all")] and len(spans[6]) == 1


def test_what_a_list_for_some_lifts_is_left_to_the_engine() -> None:
    parts = snapshot_of(("all", None, ["192.0.2.0/24"], "", ""), ("press", None, ["@@192.0.2.7"], "only", FILE)).parts
    spans = read_addresses(parts).spans[4]
    assert [(one.first & 0xFF, one.last & 0xFF) for one in spans] == [(0, 6), (8, 255)]
    assert {one.what for one in spans} == {What.RESET}


# Files ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def box(tmp_path: Path) -> Box:
    box = Box(tmp_path)
    box.write(family_list="a.example\n", family_toml='clients = "family.clients"\n', family_clients=FILE,
              court_list="b.example\n")
    box.refresh()
    return box


def blocked(box: Box, host: str = "a.example") -> list[bool]:
    """Whether it is for the two clients in the file, and for two that are not."""
    matcher = ListMatcher(open_stacked(box.store.snapshot, KEY))
    return [action(matcher, host.encode(), client) == "reset" for client in (LISTED4, LISTED6, OTHER4, OTHER6)]


def reason(box: Box, name: str) -> str:
    return (box.folder / f"{name}.rejected").read_text()


def test_a_file_beside_the_list_says_whom_it_is_for(box: Box) -> None:
    assert box.outcome.refused == {} and box.outcome.warnings == []
    assert blocked(box) == [True, True, False, False] and blocked(box, "b.example") == [True] * 4
    taken = next(one for one in box.outcome.changes if one["list"] == "family")
    assert (taken["clients"], taken["prefixes"]) == ("only", 2)
    assert [(one["clients"], one["clients_count"]) for one in box.outcome.lists] == [("", 0), ("only", 2)]
    assert "192.0.2" not in str(box.outcome)


def test_prefixes_may_stand_in_the_settings(box: Box) -> None:
    box.write(family_toml='clients_except = ["192.0.2.0/24", "2001:db8::/32"]\n')
    (box.folder / "family.clients").unlink()
    box.refresh()
    assert box.outcome.refused == {} and blocked(box) == [False, False, True, True]
    assert list(box.store.clients.iterdir()) == []


def test_another_file_is_in_force_without_a_look_at_the_list(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a list was read")

    monkeypatch.setattr("edgeblock.blocklist.refresh.take", refuse)
    digest = box.outcome.content
    box.write(family_clients="198.51.100.0/24\n2001:db9::/32\n")
    box.refresh()
    assert blocked(box) == [False, False, True, True]
    assert box.outcome.changes == [{"change": "clients", "list": "family", "file": "family.clients",
                                    "clients": "only", "prefixes": 2, "prefixes_before": 2}]
    assert box.outcome.content != digest
    box.refresh()
    assert box.outcome.changes == []


def test_the_rows_are_not_tried_again_for_other_clients(box: Box) -> None:
    held: list[Snapshot] = []

    class Trial:
        samples: dict[str, Any] = {}
        unsure: set[str] = set()
        hold = staticmethod(held.append)

        def try_out(self, snapshot: Snapshot) -> str:
            raise AssertionError("tried")

    box.write(family_clients="198.51.100.0/24\n")
    box.refresh(trial=Trial())
    assert len(held) == 1 and blocked(box) == [False, False, True, False]


def test_files_of_lists_that_lie_over_others_are_in_the_top_snapshot(box: Box,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeblock.blocklist.compiler.LAYERED_FROM", 100)
    box.write(big_list=many(1000), big_toml='clients_except = "family.clients"\n')
    box.refresh()
    before = box.store.snapshot.stat()
    box.write(family_clients="198.51.100.0/24\n2001:db9::/32\n")
    box.refresh()
    assert box.store.snapshot.stat() == before and box.store.overlay.exists()
    assert blocked(box) == [False, False, True, True] and blocked(box, "h1.example") == [True, True, False, False]
    assert [one.prefixes for one in open_file(box.store.overlay, KEY).parts.client_sets] == [2]     # for both lists


@pytest.mark.parametrize("text, where, why", [
    ("192.0.2.0/24\nexample.com\n", "family.clients:2: ", "is no prefix"),
    ("192.0.2.0/23\n192.0.2.1/24\n", "family.clients:2: ", "bits beyond"),
    ("", "family.clients: ", "is empty"), ("192.0.2.1\0\n", "family.clients:1: ", "is no prefix"),
])
def test_one_bad_line_refuses_the_file_and_the_last_good_one_stays(box: Box, text: str, where: str, why: str) -> None:
    box.write(family_clients=text)
    for _ in range(2):
        box.refresh()
        told = box.outcome.refused["family.clients"]
        assert told["in_force"] and told["told"].startswith(where)
        assert list(box.outcome.refused) == ["family.clients"] and box.outcome.changes == []
        assert blocked(box) == [True, True, False, False]
        said = reason(box, "family.clients")
        assert where in said and why in said and "the version before it with 2 prefixes stays in force" in said
        assert ":" not in where[:-2] or "family.clients.rejected says why" in told["told"]      # no line in the log
    box.write(family_clients="198.51.100.0/24\n")
    box.refresh()
    assert box.outcome.refused == {} and blocked(box) == [False, False, True, False]
    assert not (box.folder / "family.clients.rejected").exists()


def test_every_bad_line_is_told_up_to_a_bound(box: Box) -> None:
    box.write(family_clients="a\n192.0.2.0/24\n192.0.2.1/24\nb\n\n2001:db8::/129")
    box.refresh()
    said = reason(box, "family.clients")
    assert all(f"family.clients:{line}: " in said for line in (1, 3, 4, 6))
    assert [one.line for one in lint(box.folder).errors if one.file == "family.clients"] == [1, 3, 4, 6]
    box.write(family_clients="a\n" * 100)
    assert sum(one.file == "family.clients" for one in lint(box.folder).errors) == 50


def test_a_file_that_is_bad_is_read_once(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = module.read_clients
    monkeypatch.setattr(module, "read_clients", lambda path, key: read.append(path.name) or real(path, key))
    box.write(family_clients="example.com\n")
    box.refresh()
    box.refresh()
    assert read == ["family.clients"]
    box.refresh(afresh=True)
    assert len(read) == 2


def test_a_file_that_goes_leaves_the_last_one_in_force_and_it_is_told(box: Box) -> None:
    (box.folder / "family.clients").unlink()
    box.refresh()
    assert "No such file" in box.outcome.refused["family.clients"]["told"]
    assert blocked(box) == [True, True, False, False]
    box.write(family_clients="198.51.100.0/24\n")
    box.refresh()
    assert box.outcome.refused == {} and blocked(box) == [False, False, True, False]


def test_a_restart_keeps_the_last_good_set(box: Box) -> None:
    box.write(family_clients="example.com\n")
    box.store = Store(box.home / "state", KEY)
    box.refresh()
    assert blocked(box) == [True, True, False, False]
    box.store.snapshot.unlink()
    box.refresh()
    assert blocked(box) == [True, True, False, False]


@pytest.mark.parametrize("make", [lambda path: path.unlink(), lambda path: path.write_text("example.com\n"),
                                  lambda path: path.write_text(""), lambda path: (path.unlink(), os.mkfifo(path))])
def test_a_list_that_never_had_a_good_file_is_not_taken(tmp_path: Path, make: Any) -> None:
    box = Box(tmp_path)
    box.write(family_list="a.example\n", family_toml='clients = "family.clients"\n', court_list="b.example\n",
              family_clients=FILE)
    make(box.folder / "family.clients")
    box.refresh()
    assert "nobody knows whom this list applies to" in box.outcome.refused["family"]["told"]
    assert blocked(box) == [False] * 4 and blocked(box, "b.example") == [True] * 4
    assert [one["name"] for one in box.outcome.lists] == ["court"]


def test_a_version_without_its_file_leaves_the_one_before_as_it_was(box: Box) -> None:
    box.write(court_list="b.example\nc.example\n", court_toml='clients = "gone.clients"\n')
    box.refresh()
    assert blocked(box, "b.example") == [True] * 4 and blocked(box, "c.example") == [False] * 4
    assert box.outcome.refused["court"]["in_force"]


def test_a_set_that_is_lost_takes_its_list_out_of_force_until_it_is_back(box: Box) -> None:
    kept = box.store.clients / "family.clients"
    data = bytearray(kept.read_bytes())
    data[-1] ^= 1
    kept.write_bytes(data)
    (box.folder / "family.clients").unlink()
    box.refresh()
    assert blocked(box) == [False] * 4 and blocked(box, "b.example") == [True] * 4
    assert any("is damaged" in one for one in box.outcome.warnings)
    assert any("nobody knows for whom" in one for one in box.outcome.warnings)
    box.write(family_clients=FILE)
    box.refresh()
    assert blocked(box) == [True, True, False, False] and box.outcome.refused == {}


def test_a_file_that_is_being_written_is_left_alone(box: Box) -> None:
    (box.folder / "family.clients").write_text("198.51")
    box.refresh(busy=["family.clients"])
    assert blocked(box) == [True, True, False, False] and box.outcome.refused == {}


def test_a_list_waits_for_a_file_that_is_being_written(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.write(family_list="a.example\n", family_toml='clients = "family.clients"\n', court_list="b.example\n",
              family_clients="192.0")
    box.refresh(busy=["family.clients"])
    assert box.outcome.again and box.outcome.refused == {} and blocked(box) == [False] * 4
    box.write(family_clients=FILE)
    box.refresh()
    assert blocked(box) == [True, True, False, False]


def test_a_list_for_all_again_needs_no_file(box: Box) -> None:
    (box.folder / "family.toml").unlink()
    box.refresh()
    assert blocked(box) == [True] * 4 and list(box.store.clients.iterdir()) == []
    assert any("family.clients: is not read: no list names it" in one for one in box.outcome.warnings)


def test_a_file_of_comments_is_for_nobody(box: Box) -> None:
    box.write(family_clients="# nobody has asked for it yet\n")
    box.refresh()
    assert box.outcome.refused == {} and blocked(box) == [False] * 4


def test_all_of_them_together_have_a_bound(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ALL_MAX", 100)
    box.write(family_clients="\n".join(f"2001:db8:{i}::1" for i in range(1, 9)))
    box.refresh()
    assert "longer than 100 bytes" in box.outcome.refused["family.clients"]["told"]
    assert blocked(box) == [True, True, False, False]


def test_a_text_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.clients"
    with open(path, "wb") as file:
        file.truncate(4 << 30)
    with pytest.raises(module.BadClients, match="is longer than"):
        module.read_clients(path, KEY)


def test_so_many_files_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILES_MAX", 2)
    for name in "abc":
        (tmp_path / f"{name}.clients").write_text(FILE)
    files = ClientFiles(tmp_path, KEY, {})
    files.look({"a.clients", "b.clients", "c.clients"})
    assert sorted(files.kept) == ["a.clients", "b.clients"] and list(files.refused) == ["c.clients"]


def test_nobody_takes_the_room_of_all_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OWNER_FILES_MAX", 2)
    monkeypatch.setattr(module, "OWNER_ALL_MAX", 40)
    for name, uid in (("a", 1001), ("b", 1001), ("c", 1001), ("d", 1002), ("e", 1002)):
        path = tmp_path / f"{name}.clients"
        path.write_text(FILE if uid == 1001 else "2001:db8::/32\n")
        os.chown(path, uid, -1)
    named = {path.name for path in tmp_path.iterdir()}
    files = ClientFiles(tmp_path, KEY, {})
    files.look(named | {f"0{number}.clients" for number in range(module.FILES_MAX)})     # which are not there
    told = {file: finding.why for file, (finding, _) in files.refused.items() if finding and file in named}
    assert sorted(files.kept) == ["a.clients", "d.clients"]
    assert told.keys() == {"b.clients", "c.clients", "e.clients"}
    assert told["e.clients"].startswith("makes all of them of its owner together longer than 40 bytes")
    monkeypatch.setattr(module, "OWNER_ALL_MAX", 400)
    (tmp_path / "a.clients").unlink()                       # what it has stays in force, and counts
    kept = {name: from_bytes(memoryview(to_bytes(one, KEY)), KEY) for name, one in files.kept.items()}
    files = ClientFiles(tmp_path, KEY, kept)
    files.look(named)
    assert sorted(files.kept) == ["a.clients", "b.clients", "d.clients", "e.clients"]
    assert files.refused["c.clients"][0].why.startswith("is one too many of its owner")


def test_a_round_has_so_much_time_and_every_owner_a_file_in_it(tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    box, clock, read = Box(tmp_path), iter(range(1000)), []
    box.write(court_list="b.example\n")
    for name, uid in (("a", 1001), ("b", 1001), ("z", 1002)):
        box.write(**{f"{name}_list": f"{name}.example\n", f"{name}_toml": f'clients = "{name}.clients"\n',
                     f"{name}_clients": FILE + "\n" * (uid == 1002)})
        os.chown(box.folder / f"{name}.clients", uid, -1)
    real = module.read_clients
    monkeypatch.setattr(module, "read_clients", lambda path, key: read.append(path.name) or real(path, key))
    monkeypatch.setattr(module, "time", SimpleNamespace(process_time=lambda: next(clock)))
    monkeypatch.setattr("edgeblock.blocklist.refresh.ROUND", 2.5)
    box.refresh()
    assert read == ["a.clients", "z.clients"] and box.outcome.again and box.outcome.refused == {}
    assert [one["name"] for one in box.outcome.lists] == ["a", "court", "z"]
    box.refresh()
    assert len(read) == 3 and not box.outcome.again and len(box.outcome.lists) == 4


def test_a_file_has_so_much_time_and_its_fault_is_its_own(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, key: Any) -> Kept:
        if path.name == "slow.clients":
            while True:
                pass
        if path.name == "odd.clients":
            raise KeyError
        return real(path, key)

    real = module.read_clients
    monkeypatch.setattr(module, "read_clients", fail)
    monkeypatch.setattr(module, "SECONDS", 0.05)
    for name in ("slow", "odd", "good"):
        box.write(**{f"{name}_list": f"{name}.example\n", f"{name}_toml": f'clients = "{name}.clients"\n',
                     f"{name}_clients": FILE})
    box.refresh()
    assert sorted(box.outcome.refused) == ["odd", "slow"]
    assert "takes more than 0.1 s of processor time" in box.outcome.refused["slow"]["told"]
    assert "by a fault of edgeblock (KeyError" in box.outcome.refused["odd"]["told"]
    assert blocked(box, "good.example") == [True, True, False, False]


def test_what_is_kept_is_whole_or_nothing() -> None:
    one = Kept("origin", set_of(FILE.encode(), KEY), 1001)
    data = to_bytes(one, KEY)
    again = from_bytes(memoryview(data), KEY)
    assert again == one
    assert from_bytes(memoryview(data), bytes(16)) is None
    for cut in (0, 10, 40, len(data) - 1):
        assert from_bytes(memoryview(data)[:cut], KEY) is None


@pytest.mark.parametrize("link, why", [(os.symlink, "is a link"), (os.link, "has another name, too")])
def test_a_link_is_no_file_of_clients(box: Box, link: Any, why: str) -> None:
    box.write(secret_list="c.example\n")
    (box.folder / "secret.list").chmod(0o600)
    (box.folder / "family.clients").unlink()
    link(box.folder / "secret.list", box.folder / "family.clients")
    box.refresh()
    assert why in box.outcome.refused["family.clients"]["told"] and "c.example" not in reason(box, "family.clients")
    assert blocked(box) == [True, True, False, False]


def test_a_list_has_no_name_of_a_file_of_clients(box: Box) -> None:
    box.write(family_clients_list="x.example\n", family_clients="nonsense\n")
    box.refresh()
    assert sorted(box.outcome.refused) == ["family.clients", "family.clients.list"]
    assert "has a list name that ends in .clients" in reason(box, "family.clients.list")
    assert "is no prefix" in reason(box, "family.clients") and blocked(box) == [True, True, False, False]
    (box.folder / "family.clients.list").unlink()
    box.write(family_clients=FILE)
    box.refresh()
    assert box.outcome.refused == {} and list(box.folder.glob("*.rejected")) == []


def test_nobody_else_reads_what_is_kept(box: Box) -> None:
    kept = box.store.clients / "family.clients"
    assert kept.stat().st_mode & 0o777 == 0o600 and box.store.clients.stat().st_mode & 0o777 == 0o700


def test_a_change_while_it_is_read_is_no_reason_to_refuse(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    class Changing(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            text = super().read(size)
            with open(self.name, "a") as other:
                other.write("198.51.100.0/24\n")
            return text

    monkeypatch.setattr(module, "open_regular", lambda path, alone: Changing(path))
    box.write(family_clients=FILE)
    box.refresh()
    assert box.outcome.again and box.outcome.refused == {} and blocked(box) == [True, True, False, False]


def test_a_file_is_refused_where_there_are_more_refusals_than_are_told(box: Box,
                                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeblock.blocklist.refresh.REFUSED_MAX", 2)
    box.write(a_zip="x", b_zip="x", c_zip="x", evil_list="e.example\n", evil_toml='clients = "e.clients"\n',
              e_clients="nonsense\n", court_list="b.example\nc.example\n", family_clients="nonsense\n")
    box.refresh()
    assert sorted(box.outcome.refused) == ["a", "b", "family.clients"]      # of what is in force it is told
    assert box.outcome.refused["family.clients"]["in_force"] and blocked(box, "c.example") == [True] * 4


@pytest.mark.parametrize("name", ["take_clients", "tell_clients"])
def test_a_fault_of_ours_with_clients_stops_no_list(box: Box, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("x")

    monkeypatch.setattr(f"edgeblock.blocklist.refresh.{name}", fail)
    box.write(court_list="b.example\nc.example\n")
    box.refresh()
    assert blocked(box, "c.example") == [True] * 4 and blocked(box) == [True, True, False, False]
    assert any("by a fault of edgeblock (KeyError" in one for one in box.outcome.warnings)
    assert box.store.clients.joinpath("family.clients").exists()


# What people are told -------------------------------------------------------------------------------------------

def test_check_says_whom_a_list_is_for(box: Box) -> None:
    rules = load(box.folder)
    record = explain(rules, ["a.example"])[0]
    assert not record.blocked and "for the clients of 2 prefixes only, not for this one" in record.as_text()
    assert "it is listed for other clients" in record.as_text()
    rules.matcher.client = LISTED6
    record = explain(rules, ["a.example"])[0]
    assert record.blocked and "for the clients of 2 prefixes only" in record.as_text()
    assert "other clients" not in record.as_text()


def test_what_cannot_be_used_is_left_out_with_a_warning(box: Box) -> None:
    box.write(family_clients="example.com\n")
    rules = load(box.folder, tolerant=True)
    assert any("family.clients" in str(one) for one in rules.warnings)
    rules.matcher.client = LISTED4
    assert not explain(rules, ["a.example"])[0].blocked and explain(rules, ["b.example"])[0].blocked


def test_lint_says_what_people_may_not_expect(box: Box) -> None:
    box.write(family_list="a.example\n203.0.113.9\n")
    os.chmod(box.folder / "family.clients", 0o644)
    report = lint(box.folder)
    told = [str(one) for one in report.notes]
    assert report.errors == report.warnings == []
    assert "family.list: applies to the clients of 2 prefixes" in told
    assert any("addresses" in one and "watched ports only" in one for one in told)
    assert any("chmod o-r family.clients" in one for one in told)
    box.write(family_clients="# nobody\n", other_clients=FILE)
    os.chmod(box.folder / "family.clients", 0o640)
    report = lint(box.folder)
    assert any("applies to nobody" in str(one) for one in report.warnings)
    assert any("other.clients: is not read" in str(one) for one in report.warnings)
    box.write(family_clients="x\n")
    report = lint(box.folder)
    assert [one.file for one in report.errors] == ["family.clients", "family.list"]


@pytest.mark.parametrize("text, why", [
    ('clients = "family.txt"', "no name of a file"), ('clients = "../x.clients"', "no name of a file"),
    ('clients = ".x.clients"', "no name of a file"), ("clients = []", "neither a file"), ("clients = 5", "neither"),
    ('clients = ["192.0.2.1/24"]', "bits beyond"), ('clients = ["# x"]', "is no prefix"),
    ('clients = ["a\\nb"]', "is no prefix"),
    ('clients = "a.clients"\nclients_except = "b.clients"', "are both there"),
])
def test_settings_that_cannot_be(tmp_path: Path, text: str, why: str) -> None:
    box = Box(tmp_path)
    box.write(family_list="a.example\n", family_toml=text, court_list="b.example\n")
    box.refresh()
    assert why in reason(box, "family")


def test_the_operator_may_keep_it_for_himself(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.rules = replace(box.rules, locked=("clients", "clients_except"))
    box.write(family_list="a.example\n", family_toml='clients_except = ["192.0.2.0/24"]', court_list="b.example\n")
    box.refresh()
    assert "clients_except is locked" in reason(box, "family")


def test_inline_prefixes_are_in_the_part_of_the_list(box: Box) -> None:
    box.write(family_toml='clients = ["192.0.2.0/24"]\n')
    box.refresh()
    part = open_file(box.store.lists / "family.part", KEY)
    assert [one.prefixes for one in part.parts.client_sets] == [1] and part.parts.lists[0].clients_file == ""
    assert intake.clients is module
