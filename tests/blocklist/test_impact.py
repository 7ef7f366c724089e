"""What a list's addresses would take down: read from the box's file, judged, and told."""

import ipaddress
import json
import math
import struct
import time
from hashlib import blake2b
from pathlib import Path

import pytest

from edgeblock.addresses import translated
from edgeblock.blocklist.formats import network_key
from edgeblock.blocklist.impact import FILE, Figures, Impact, Summing, percent, ranges_of
from edgeblock.blocklist.lint import lint
from edgeblock.blocklist.refresh import refresh
from edgeblock.blocklist.store import Store, read_key
from edgeblock.config import Rules
from tests.sketching import write_state

CROWDED, QUIET = "198.51.100.7", "198.51.100.9"
# 300 names of a host of many customers, 2 of one site; forty subscribers.
SEEN = {CROWDED: (300, 40), QUIET: (2, 40), "2001:db8:7::1": (200, 40), "64:ff9b::c633:6409": (1, 40)}


def key_of(text: str, length: int | None = None, port: int | None = None) -> bytes:
    packed = ipaddress.ip_address(text).packed
    return network_key(packed, 8 * len(packed) if length is None else length, port)


@pytest.fixture
def box(tmp_path: Path) -> Rules:
    rules = Rules(directory=tmp_path / "rules", key=tmp_path / "state" / "key", self_check=0.0)
    rules.directory.mkdir()
    read_key(rules.key, create=True)
    return rules


def round_of(box: Rules):
    return refresh(box, Store(box.key.parent, read_key(box.key)), time.time())


def drop(box: Rules, name: str, text: str) -> None:
    (box.directory / name).write_text(text)


def test_figures_of_addresses_prefixes_and_ports(tmp_path: Path):
    impact = Impact(write_state(tmp_path, (5, 0, SEEN)))
    crowded = impact.of(ranges_of(key_of(CROWDED)))
    assert abs(crowded.names - 300) <= 15 and abs(crowded.shared - 300) <= 15 and crowded.flows == 12_000
    assert crowded.addresses == 1 and crowded.whole and 0.4 < crowded.share < 0.6      # the others have IPv6
    assert impact.of(ranges_of(key_of(QUIET))) == Figures(1, 2, 2, 80, pytest.approx(crowded.share, abs=0.2))
    assert impact.of(ranges_of(key_of(QUIET, port=443)))[:4] == (1, 2, 2, 80)
    both = impact.of(ranges_of(key_of("198.51.100.0", 24)))
    assert both.addresses == 2 and both.names == crowded.names and both.flows == 12_080     # the two are among them
    assert impact.of(ranges_of(key_of("2001:db8::", 32))).addresses == 1
    assert impact.of(ranges_of(key_of("203.0.113.5"))) == Figures()


def test_what_comes_by_nat64_counts_for_the_ipv4_entry(tmp_path: Path):
    impact = Impact(write_state(tmp_path, (5, 0, SEEN)))
    assert impact.of(ranges_of(key_of(QUIET), translated(())))[:2] == (2, 2)
    alone = Impact(write_state(tmp_path, (5, 0, {"64:ff9b::c633:6409": (7, 2)})))
    assert alone.of(ranges_of(key_of(QUIET), translated(()))).names == 7
    assert alone.of(ranges_of(key_of(QUIET))).names == 0


def test_days_are_joined_and_old_ones_forgotten(tmp_path: Path):
    path = write_state(tmp_path, (60, 36, {QUIET: (40, 9)}), (36, 12, {QUIET: (20, 4)}), (12, 0, {QUIET: (5, 4)}))
    figures = Impact(path).of(ranges_of(key_of(QUIET)))
    assert figures.names == 20
    assert figures.flows == 20 * 4 // 2 + 5 * 4         # half of the day before lies in the last 24 hours
    assert Impact(path, now=time.time() + 30 * 3600).why_none == ""
    late = Impact(path, now=time.time() + 30 * 3600)
    assert late.periods == [] and "no figures of the last day" in late.why_none


@pytest.mark.parametrize("what", ["size", "time", "backwards", "count", "share"])
def test_a_file_that_was_forged_is_none(tmp_path: Path, what: str):
    path = write_state(tmp_path, (5, 0, SEEN))
    content = bytearray(path.read_bytes()[:-16])
    at = struct.calcsize("<16sIId")
    if what == "size":
        content[at + 16:at + 24] = struct.pack("<Q", 1 << 63)
    elif what == "time":
        content[at + 8:at + 16] = struct.pack("<d", math.inf)
    elif what == "backwards":
        content[at:at + 8] = struct.pack("<d", math.nan)
    elif what == "count":
        content[20:24] = struct.pack("<I", 3)
    else:
        content[24:32] = struct.pack("<d", -1.0)
    path.write_bytes(bytes(content) + blake2b(content, digest_size=16).digest())
    impact = Impact(path)
    assert impact.periods == [] and str(path) in impact.why_none


@pytest.mark.parametrize("what", ["cut", "flipped", "version", "other", "empty", "missing", "unreadable"])
def test_a_file_that_cannot_be_used_has_no_figures(tmp_path: Path, what: str):
    path = write_state(tmp_path, (5, 0, SEEN))
    content = bytearray(path.read_bytes())
    if what == "cut":
        content = content[:-7]
    elif what == "flipped":
        content[len(content) // 2] ^= 1
    elif what == "version":
        content[16] = 9
    elif what == "other":
        content = bytearray(b"edgeblock" * 30)
    path.write_bytes(b"" if what == "empty" else content)
    if what == "missing":
        path.unlink()
    if what == "unreadable":
        path.unlink()
        path.mkdir()
    impact = Impact(path)
    assert impact.of(ranges_of(key_of(CROWDED))) == Figures()
    assert impact.periods == [] and str(path) in impact.why_none and "\n" not in impact.why_none


def test_a_list_that_takes_many_down_is_refused_with_the_figures(box: Rules):
    write_state(box.key.parent, (5, 0, SEEN))
    drop(box, "order.list", f"{QUIET}\n")
    first = round_of(box)
    assert first.refused == {} and [one["change"] for one in first.changes] == ["taken"]
    [change] = first.changes
    assert (change["address_entries"], change["names_behind"], change["names_shared"]) == (1, 2, 2)
    assert change["flows_behind"] == 120 and 0 < change["subscribers_share"] <= 1
    drop(box, "order.list", f"{QUIET}\n{CROWDED}\n")
    second = round_of(box)
    refused = second.refused["order"]
    assert "(allow_collateral)" in refused["told"] and CROWDED not in refused["told"]
    assert refused["in_force"]                          # the version before
    why = (box.directory / "order.rejected").read_text()
    assert f"order.list:2: {CROWDED} would take down " in why and "more than max_collateral = 100" in why
    assert "names behind it" in why
    assert f'put allow_collateral = ["{CROWDED}/32"] into the settings of this list' in why
    drop(box, "order.toml", f'allow_collateral = ["{CROWDED}"]\n')
    assert round_of(box).refused == {}
    drop(box, "order.toml", "max_collateral = 1000\n")
    assert round_of(box).refused == {}
    drop(box, "order.toml", 'guarded = "skip"\n')
    third = round_of(box)
    assert third.refused == {} and third.lists[0]["guarded"] == 1
    assert CROWDED in (box.directory / "order.skipped").read_text()


def test_what_one_client_made_up_refuses_nobody(box: Rules):
    write_state(box.key.parent, (5, 0, {CROWDED: (50_000, 1)}))
    drop(box, "order.list", f"{CROWDED}\n")
    outcome = round_of(box)
    assert outcome.refused == {}
    assert outcome.changes[0]["names_behind"] > 47_000 and outcome.changes[0]["names_shared"] == 0


@pytest.mark.parametrize("lines", ["@@198.51.100.7\n192.0.2.9\n", "198.51.100.7/page.html\n", "www1.example1.com\n"])
def test_what_takes_no_address_down_is_not_judged_by_it(box: Rules, lines: str):
    write_state(box.key.parent, (5, 0, SEEN))
    drop(box, "order.list", lines)
    assert round_of(box).refused == {}


def test_without_figures_nothing_is_refused_and_the_audit_says_so(box: Rules):
    drop(box, "order.list", f"{CROWDED}\n")
    drop(box, "names.list", "www.example.com\n")
    outcome = round_of(box)
    assert outcome.refused == {}
    changes = {one["list"]: one for one in outcome.changes}
    assert changes["order"]["address_entries"] == 1 and changes["order"]["names_behind"] is None
    assert "names_behind" not in changes["names"]
    json.dumps(outcome.changes)


def test_lint_has_the_same(box: Rules):
    write_state(box.key.parent, (5, 0, SEEN))
    drop(box, "order.list", f"{QUIET}\n192.0.2.1\n{CROWDED}\n")
    report = lint(box.directory, box, key=read_key(box.key))
    [error] = report.errors
    assert error.line == 3 and "would take down" in error.why
    [note] = [one for one in report.notes if "the box has seen" in one.why]
    assert "of the 2 addresses and ranges that it has: 2 names behind it, 2 of them" in note.why
    (box.key.parent / FILE).unlink()
    report = lint(box.directory, box, key=read_key(box.key))
    assert report.errors == [] and any("nobody knows what is behind the addresses" in one.why for one in report.notes)


def test_the_words():
    assert str(Figures(1, 1, 0, 1, 0.0)) == ("1 name behind it, 0 of them asked for by more than one subscriber; "
                                             "1 connection a day by 0 % of the subscribers")
    assert str(Figures(1, 50, 3, 9, 0.25, False)).startswith("at least 50 names behind it, 3 of them")
    assert [percent(share) for share in (0.0, 0.0004, 0.001, 0.5, 1.0)] == [
        "0 %", "less than 0.1 %", "0.1 %", "50.0 %", "100.0 %"]
    assert Summing(Impact(Path("nowhere"))).figures() == Figures()
