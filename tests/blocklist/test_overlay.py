"""What lies over a snapshot: every answer is that of one snapshot of all lists, whatever has changed."""

import os
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeblock import config
from edgeblock.blocklist import compiler, refresh
from edgeblock.blocklist.compiler import lay_over, merge
from edgeblock.blocklist.explain import explain_alone
from edgeblock.blocklist.load import load_snapshot
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.snapshot import open_snapshot, pack, stack
from edgeblock.blocklist.store import Store
from edgeblock.errors import ListError

from .making import KEY, snapshot_of

SETTINGS = (
    None, ListSettings(action="drop", mandatory=True), ListSettings(action="page", https="host"),
    ListSettings(action="observe"), ListSettings(action="redirect"))
LINES = (
    "a.example", "=a.example", "*.a.example", "@@a.example", "@@=www.a.example", "b.example", "c.d.e.b.example",
    "www.a.example/x", "www.a.example/x?q=1", "www.a.example/dir/*", "@@www.a.example/dir/sub/*", "b.example/y",
    "192.0.2.1/x", "192.0.2.1", "192.0.2.0/24", "@@192.0.2.1", "192.0.2.1:443", "198.51.100.0/28",
    "2001:db8::/32", "@@2001:db8::1", "[2001:db8::1]:443")
NAMES = (
    "a.example", "www.a.example", "x.www.a.example", "b.example", "c.d.e.b.example", "e.b.example", "z.example",
    "http://www.a.example/x", "http://www.a.example/x?q=1", "http://www.a.example/dir/sub/p", "www.a.example/other",
    "https://www.a.example/x", "b.example/y", "192.0.2.1", "192.0.2.1:443", "192.0.2.77", "http://192.0.2.1/x",
    "198.51.100.9", "198.51.100.99", "[2001:db8::1]:443", "2001:db8::2", "2001:db9::")

version = st.tuples(st.sampled_from(SETTINGS), st.lists(st.sampled_from(LINES), max_size=6), st.booleans())
lists = st.dictionaries(st.sampled_from("abcdefg"), version, max_size=6)


def parts_of(versions):
    """One part for each list, as they are in the state directory."""
    parts = []
    for name, (terms, lines, expired) in sorted(versions.items()):
        part = open_snapshot(snapshot_of((name, terms, lines)), KEY)
        part.parts.lists[0] = replace(part.parts.lists[0], part=part.digest, expired=expired)
        parts.append(part.parts)
    return parts


def opened(parts):
    return open_snapshot(pack(parts, KEY, 1_700_000_000), KEY)


def both(before, after):
    """What is in force after a change: as one snapshot, and as what lies over the one before."""
    base = opened(merge(parts_of(before)))
    over = opened(lay_over(parts_of(after), base.digest, base.parts))
    return opened(merge(parts_of(after))), stack(over, base)


def test_what_has_changed_lies_over_what_was_there():
    before = {"a": (None, ["a.example"], False), "b": (None, ["b.example"], False)}
    one, two = both(before, {**before, "c": (None, ["@@a.example"], False)})
    assert len(two.parts.rows) == 20 and two.parts.below == [0, 1, -1] and two.parts.lists == one.parts.lists
    matcher = ListMatcher(two)
    assert matcher.look_up("tls", b"www.a.example").list == "c"
    assert matcher.look_up("tls", b"b.example").list == "b"


@given(lists, lists)
def test_every_answer_is_that_of_one_snapshot(before, after):
    """Verdicts, rule ids, what was tried and why: of all that anybody may ask, of removed lists as well."""
    one, two = both(before, {**before, **after} if len(after) % 2 else after)
    assert two.parts.lists == one.parts.lists
    bounds = ("labels", "depths", "ipv4_lengths", "ipv6_lengths", "url_max", "directory_max", "ipv4")
    assert [getattr(two.parts, name) for name in bounds] == [getattr(one.parts, name) for name in bounds]
    whole, layered = ListMatcher(one), ListMatcher(two)
    assert layered.list_names == whole.list_names
    for name in NAMES:
        assert explain_alone(layered, name) == explain_alone(whole, name)
    for host in (b"WWW.a.example.", b"www.a.example:80", b"192.0.2.1", b"e.b.example", b"\xff.a.example"):
        for target in (None, b"/x?q=1", b"/dir/../x", b"/dir;p/sub/q", b"http://b.example/y"):
            for proto in ("tls", "http", "quic"):
                assert layered.look_up(proto, host, target) == whole.look_up(proto, host, target)
    for address in (bytes([192, 0, 2, 1]), bytes([198, 51, 100, 1]), bytes.fromhex("20010db8") + bytes(11) + b"\1"):
        for port in (0, 80, 443):
            assert layered.look_up_address(address, port) == whole.look_up_address(address, port)


def test_it_is_of_no_use_without_the_one_below():
    before = {"a": (None, ["a.example"], False)}
    _, two = both(before, {"b": (None, ["b.example"], False)})
    _, other = both({"c": (None, [], False)}, {})
    with pytest.raises(ListError, match="lies over another one that is not there"):
        ListMatcher(replace(two, base=None))
    with pytest.raises(ListError, match="lies over another one that is not there"):
        ListMatcher(replace(two, base=other.base))
    for wrong in (other.base, two):
        with pytest.raises(ListError, match="lies over another one than this"):
            stack(replace(two, base=None), wrong)


# In rounds ---------------------------------------------------------------------------------------------------

class Boxes:
    """One rules directory and two states of it: `layered` lays what it can over what is there, `whole` nothing."""

    def __init__(self, home, monkeypatch):
        self.monkeypatch = monkeypatch
        self.folder = home / "rules"
        self.folder.mkdir()
        self.stores = {name: Store(home / name, KEY) for name in ("layered", "whole")}
        self.now = 1_700_000_000

    def write(self, name, text):
        (self.folder / ".new").write_text(text)
        (self.folder / ".new").rename(self.folder / name)

    def refresh(self, name, **more):
        self.monkeypatch.setattr(compiler, "LAYERED_FROM", 0 if name == "layered" else 1 << 60)
        store = self.stores[name]
        top = store.in_force()
        held = (top.base or top).digest if top else ""
        rules = config.Rules(directory=self.folder, key=store.directory / "key", max_shrink=0.9)
        return refresh.refresh(rules, store, self.now, held=held, **more)

    def both(self):
        return self.refresh("layered"), self.refresh("whole")

    def matcher(self, name):
        return ListMatcher(self.stores[name].in_force())


@pytest.fixture
def boxes(tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "LAYERED_SHARE", 0.01)
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    return Boxes(tmp_path, monkeypatch)


step = st.one_of(
    st.tuples(st.just("list"), st.sampled_from("abcd"), st.lists(st.sampled_from(LINES), max_size=5)),
    st.tuples(st.just("settings"), st.sampled_from("abcd"), st.sampled_from((
        "", 'action = "drop"', "mandatory = true", 'https = "host"', "expires = 2023-11-14T22:13:35Z",
        'action = "observe"', "max_shrink = 1"))),
    st.tuples(st.just("remove"), st.sampled_from("abcd"), st.none()),
    st.tuples(st.just("spoil"), st.sampled_from("abcd"), st.none()))


def test_rounds_end_as_if_all_were_compiled_anew(tmp_path_factory, monkeypatch):
    """Lists, counts, changes, refusals and the guard against loss, digests of the content, and every answer."""
    layers = 0

    @settings(max_examples=30, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.lists(step, max_size=3), min_size=2, max_size=6))
    def run(rounds):
        nonlocal layers
        with monkeypatch.context() as patch:
            patch.setattr(compiler, "LAYERED_SHARE", 0.01)
            patch.setattr(os, "fsync", lambda fd: None)
            boxes = Boxes(tmp_path_factory.mktemp("boxes"), patch)
            for number, name in enumerate("abcd"):
                boxes.write(f"{name}.list", "".join(f"{line}\n" for line in LINES[number::4]))
                boxes.write(f"{name}.toml", "allow_addresses = true\n")
            for steps in [[], *rounds]:
                for what, name, value in steps:
                    if what == "list":
                        boxes.write(f"{name}.list", "".join(f"{line}\n" for line in value))
                    elif what == "settings":
                        boxes.write(f"{name}.toml", f'{value}\nallow_addresses = true\nwidest_ipv6 = 0\n')
                    elif what == "remove":
                        (boxes.folder / f"{name}.list").unlink(missing_ok=True)
                    else:
                        (boxes.folder / f"{name}.list").write_text("not a list at all\n" * 3)
                boxes.now += 3
                one, two = boxes.both()
                layers += boxes.stores["layered"].in_force().base is not None
                for name in ("lists", "content", "changes", "problem", "again"):
                    assert getattr(one, name) == getattr(two, name), name
                assert one.refused.keys() == two.refused.keys()
                layered, whole = boxes.matcher("layered"), boxes.matcher("whole")
                for name in NAMES:
                    assert explain_alone(layered, name) == explain_alone(whole, name)

    run()
    assert layers > 20


def test_a_line_more_reads_nothing_of_what_is_there_and_much_makes_one_of_all(boxes, monkeypatch):
    boxes.write("a.list", "".join(f"h{number}.example\n" for number in range(100)))
    boxes.refresh("layered")
    store = boxes.stores["layered"]
    base = store.snapshot.read_bytes()
    boxes.write("urgent.list", "@@h7.example\n")
    with monkeypatch.context() as patch:
        patch.setattr(refresh, "merge", lambda every: pytest.fail("all were merged"))
        boxes.refresh("layered")
    assert store.snapshot.read_bytes() == base and len(store.in_force().parts.rows) == 20
    assert boxes.matcher("layered").look_up("tls", b"h7.example").list == "urgent"
    monkeypatch.setattr(compiler, "LAYERED_SHARE", 16)
    boxes.write("more.list", "".join(f"m{number}.example\n" for number in range(20)))
    boxes.refresh("layered")
    assert store.in_force().base is None and not store.overlay.exists()
    assert len(store.in_force().parts.rows) == 121 * 20


def test_what_lies_over_is_made_anew_where_it_was_spoilt(boxes):
    boxes.write("a.list", "a.example\n")
    boxes.refresh("layered")
    boxes.write("b.list", "b.example\n")
    boxes.refresh("layered")
    store = boxes.stores["layered"]
    for spoil in (b"", b"garbage", store.overlay.read_bytes()[:-1]):
        store.overlay.write_bytes(spoil)
        boxes.refresh("layered")
        assert boxes.matcher("layered").look_up("tls", b"b.example").list == "b"
    base = store.snapshot.read_bytes()
    store.snapshot.write_bytes(base[:-40] + bytes([base[-40] ^ 1]) + base[-39:])
    assert store.in_force() is None                     # who has it not in memory verifies it
    boxes.refresh("layered")
    assert boxes.matcher("layered").look_up("tls", b"a.example").list == "a"


def test_a_part_that_was_spoilt_meanwhile_is_found_when_it_is_read_again(boxes, monkeypatch):
    boxes.write("a.list", "".join(f"h{number}.example\n" for number in range(100_000)))
    boxes.refresh("layered")
    part = boxes.stores["layered"].lists / "a.part"
    data = part.read_bytes()
    part.unlink()           # the snapshot in force is the same file by another name
    part.write_bytes(data[:-1000] + bytes([data[-1000] ^ 1]) + data[-999:])       # in its last rows
    boxes.write("b.list", "b.example\n")
    assert boxes.refresh("layered").warnings == []
    monkeypatch.setattr(compiler, "LAYERED_SHARE", 1 << 60)
    boxes.write("b.list", "c.example\n")
    outcome = boxes.refresh("layered")
    assert outcome.again and "was altered" in outcome.warnings[0]
    assert boxes.refresh("layered").warnings == []
    assert boxes.matcher("layered").look_up("tls", b"h99999.example").list == "a"


def test_a_snapshot_is_opened_with_what_lies_over_it(boxes):
    boxes.write("a.list", "a.example\n")
    boxes.refresh("layered")
    boxes.write("a.list", "b.example\n")
    boxes.refresh("layered")
    store = boxes.stores["layered"]
    rules = load_snapshot(store.snapshot, KEY, boxes.now)
    assert rules.matcher.look_up("tls", b"b.example") and not rules.matcher.look_up("tls", b"a.example")
    assert [info.entries for info in rules.lists] == [1]
