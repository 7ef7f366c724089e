"""What the daemon records: from causes, probes, counters and clocks to records. In: parts that say what a test has
them say. Out: the ledger that is there afterwards."""

import itertools
import os
import random
from types import SimpleNamespace

import pytest

from edgeblock.blocklist.parts import ListRecord
from edgeblock.blocklist.refresh import behind
from edgeblock.config import Canary, Config, Ledger, Rules
from edgeblock.daemon import ledger as module
from edgeblock.daemon.compiler import verified
from edgeblock.daemon.ledger import Recorder, Sources, code_of, digest_of
from edgeblock.daemon.windows import Turn
from edgeblock.errors import ListError
from edgeblock.ledger import read
from edgeblock.ledger.kinds import CODES, KINDS, SUMS, why_wrong
from edgeblock.ledger.place import directory_of
from edgeblock.ledger.prove import Row
from tests.daemon.parts import Log
from tests.ledger.books import holds, kill

DAEMONS = 25        # that are killed, one after the other


class Parts:
    """What the recorder asks."""

    def __init__(self, place):
        self.causes, self.rounds, self.results = {}, 0, {}
        self.bypasses, self.workers, self.counts = [], {0: 0}, (0, 0)
        self.fetched = {"state": "none", "sources": {}}
        self.config = Config(Rules(key=place / "state" / "key"))
        self.log = Log()
        self.recorder = Recorder(self.config, self.log, Sources(
            lambda: True, lambda: True, lambda: self.causes, lambda: (self.rounds, self.results),
            lambda: self.bypasses, lambda: self.workers, lambda: self.counts, lambda file: None,
            lambda: self.fetched))
        self.recorder.begin()

    def records(self):
        self.recorder.end(False)
        assert self.recorder.fault == ""
        made = list(read(directory_of(self.config)))
        assert all(why_wrong(one.kind, one.fields) is None for one in made)
        return made

    def of(self, *kinds):
        return [one.fields for one in self.records() if one.kind in kinds]


@pytest.fixture
def parts(tmp_path):
    return Parts(tmp_path)


def test_times_without_filtering_have_begin_end_and_cause(parts):
    parts.causes = {"queues": "queue 0 has no worker"}
    parts.recorder.look()
    parts.causes = {"queues": "queue 0 has no worker", "canary of addresses": "a listed address passes"}
    parts.recorder.look()
    parts.causes = {}
    parts.recorder.look()
    said = parts.of("filtering", "not filtering")
    assert said[:2] == [{"who": "queues", "code": "queues"}, {"who": "canary of addresses", "code": "canary"}]
    assert [one["who"] for one in said[2:]] == ["queues", "canary of addresses"] or len(said) == 4
    assert all(one["after_ms"] >= 0 for one in said[2:])


def test_sources_are_recorded_when_they_change_and_so_often_a_day(parts):
    row = {"kind": "https", "count": 1, "bytes": 10, "changed": 0, "failures": 0, "grave": False}
    for number in range(module.DAILY_MAX + 100):
        parts.fetched = {"state": "running", "sources": {"court": {**row, "failures": number % 2}}}
        parts.recorder.look()
    made = parts.records()
    said = [one.fields for one in made if one.kind == "source"]
    assert [one["code"] for one in said] == ["", "fetch"] * (module.DAILY_MAX // 2)
    assert [one.fields for one in made if one.kind == "unrecorded"] == [{"kind": "source", "count": 100}]


def test_probes_are_recorded_when_they_change_and_counted_always(parts):
    fine = {(4, "tls"): "", (6, "http"): ""}
    for number, results in enumerate([fine, fine, fine | {(4, "tls"): "a listed name passes, whole"},
                                      fine | {(4, "tls"): "a listed name passes, in pieces"}, fine], 1):
        parts.rounds, parts.results = number, results
        parts.recorder.look()
        parts.recorder.look()
    made = parts.records()
    said = [(one.fields["protocol"], one.fields["ok"], one.fields["code"]) for one in made if one.kind == "canary"]
    assert said == [("tls", True, ""), ("http", True, ""), ("tls", False, "canary"), ("tls", True, "")]
    sums = made[-1].fields["sums"]
    assert made[-1].kind == "stop" and sums["canary_rounds"] == 5 and sums["canary_ok"] == 3
    assert 0 <= sums["proven_ms"] <= sums["span_ms"] and sums.keys() == SUMS.keys()


def test_workers_bypasses_and_packets_unread(parts):
    parts.workers, parts.bypasses, parts.counts = {0: 2}, ["rule", "rule"], (3, 4)
    parts.recorder.look()
    parts.bypasses, parts.counts = [], (3, 9)
    parts.recorder.look()
    made = parts.records()
    assert [one.fields for one in made if one.kind == "worker"] == [{"queue": 0, "restarts": 2}]
    assert [one.fields for one in made if one.kind == "bypass"] == [{"kind": "rule", "count": 2},
                                                                    {"kind": "rule", "count": 0}]
    assert [one.fields for one in made if one.kind == "unread"] == [{"sums": {"lost": 3, "full": 4}}]
    assert (made[-1].fields["sums"]["lost"], made[-1].fields["sums"]["full"]) == (3, 9)


def test_a_clock_that_is_set_and_a_day_that_ends(parts, monkeypatch):
    real = module.time.time
    monkeypatch.setattr(module, "time", SimpleNamespace(
        time=lambda: real() + 86_400, monotonic=module.time.monotonic, clock_gettime=module.time.clock_gettime,
        CLOCK_BOOTTIME=module.time.CLOCK_BOOTTIME))
    parts.recorder.look()
    made = parts.records()
    [step] = [one.fields["step_ms"] for one in made if one.kind == "clock"]
    assert abs(step - 86_400_000) < 1000
    [day] = [one.fields for one in made if one.kind == "day"]
    assert day["sums"].keys() == SUMS.keys() and len(day["day"]) == 10


def test_a_clock_that_is_set_in_small_steps_is_recorded(parts, monkeypatch):
    by = [module.clock()]
    monkeypatch.setattr(module, "clock", lambda: by[0])
    parts.recorder._offset = by[0]
    for _ in range(200):
        by[0] += 0.3
        parts.recorder.look()
    steps = [one["step_ms"] for one in parts.of("clock")]
    assert sum(steps) == 60_000 and len(steps) == 100


def test_a_pulse_comes_by_itself(parts, monkeypatch):
    monkeypatch.setattr(module, "PULSE", 0.0)
    parts.recorder.look()
    [pulse] = parts.of("pulse")
    assert pulse["filtering"] and pulse["in_force"] == 0 and len(pulse["run"]) == 8


def test_windows_and_files(parts):
    parts.recorder.turn({"court": Turn(3, 1, -1)})
    parts.recorder.see({"court.list": (7, 120, 5, 1_790_000_000_123_456_789), "gone.list": None})
    made = parts.records()
    assert [one.fields for one in made if one.kind == "windows"] == [
        {"list": "court", "opened": 3, "closed": 1, "whole": -1}]
    assert [one.fields for one in made if one.kind == "seen"] == [
        {"file": "court.list", "renamed": "2026-09-21T14:13:20.123456Z", "size": 120},
        {"file": "gone.list", "renamed": None, "size": None}]


def test_who_writes_lists_does_not_fill_the_ledger(parts):
    for number in range(30):
        parts.recorder.see({f"{number}.{index}.list": (7, 1, 5, 1_790_000_000_123_456_789) for index in range(100)})
        parts.recorder.see({f"{number}.{index}.x": (7, 1, 5, 1_790_000_000_123_456_789) for index in range(100)})
    made = parts.records()
    assert sum(one.kind == "seen" for one in made) == module.DAILY_MAX
    assert [one.fields for one in made if one.kind == "unrecorded"] == [{"kind": "seen", "count": 1000}]


def test_a_fault_of_the_ledger_s_is_told_and_stops_nothing(parts):
    parts.bypasses = None
    parts.recorder.look()
    parts.recorder.look()
    assert [event for event, _ in parts.log.said].count("ledger has a fault") == 1
    status = parts.recorder.status()
    assert status["state"] == "failed" and "fault of edgeblock's own" in status["problem"]


def test_lists_with_long_names_are_told_in_as_many_records_as_they_need(parts):
    names = sorted(f"{number:04}" + "ж" * 100 for number in range(2000))
    parts.recorder._table = [Row(name, "0" * 64, "reset", "", "") for name in names]
    parts.recorder._tell_table()
    made = parts.of("lists")
    assert len(made) > 1 and [one["part"] for one in made] == list(range(1, made[0]["of"] + 1))
    assert [name for one in made for name, *_ in one["lists"]] == names


def test_daemons_that_are_killed_at_any_moment_and_start_again_have_one_ledger(tmp_path):
    """Of everything the recorder does; whoever comes next says how the one before has ended."""
    chance = random.Random(5)

    def work(told):
        os.fsync = os.fdatasync = lambda file: None     # what a process has written outlives it without
        parts = Parts(tmp_path)
        assert parts.recorder.ledger.flush(9)
        os.write(told, b"+")
        for number in itertools.count():
            parts.causes = {"queues": ""} if number % 2 else {}
            parts.rounds, parts.results = number, {(4, "tls"): "a listed name passes" * (number % 3 == 0)}
            parts.recorder.see({f"{number}.list": (7, 1, 5, 1_790_000_000_123_456_789)})
            parts.recorder.turn({"court": Turn(number, 1, -1)})
            parts.recorder.look()
            parts.recorder.ledger.flush(0.001)
    assert all(kill(work, chance.uniform(0, 0.03)) for _ in range(DAEMONS))
    parts = Parts(tmp_path)
    made = parts.records()
    starts = [one.fields for one in made if one.kind == "start"]
    assert [one["clean"] for one in starts] == [None] + [False] * DAEMONS
    assert len({one["run"] for one in starts}) == DAEMONS + 1
    assert [one.seq for one in made] == list(range(1, len(made) + 1))
    assert len(made) > 10 * DAEMONS and made[-1].kind == "stop"
    holds(directory_of(parts.config))


@pytest.mark.parametrize("told", [
    {"changes": [{"change": "taken", "list": "x", "file": "f", "entries": 1.5}]},
    {"changes": [{"change": "taken", "list": "x", "file": "f", "subscribers_share": 1.5}]},
    {"changes": [{"change": "taken", "list": "x", "file": "f", "subscribers_share": float("nan")}]},
    {"lists": [{"name": "x", "file": "f", "action": "block", "entries": 1, "duplicates": 0, "unusable": 0,
                "guarded": 0, "exceptions_lost": 0, "expires": None, "expired": False, "origin": "", "clients": "",
                "clients_count": 0, "root": "a name.example", "leaves": 0, "window": ""}]}])
def test_what_a_process_that_reads_lists_says_can_be_recorded(told):
    plain = {"digest": "", "lists": [], "changes": [], "refused": {}, "warnings": [], "problem": "", "again": False,
             "content": "", "slow": [], "base": "",
             "trial": {"lists": {}, "problem": "", "fault": "", "refused": False}}
    assert verified(dict(plain)) == plain
    with pytest.raises(ListError, match="never says"):
        verified(plain | told)


def test_every_figure_of_a_list_of_addresses_can_be_recorded():
    """What the box had seen behind its addresses is told with it, a share of its subscribers among that."""
    record = ListRecord("seized", "block", file="seized.list", entries=2, address_entries=2, names_behind=3,
                        names_shared=1, flows_behind=120, subscribers_share=0.0667)
    change = {"change": "taken", "list": "seized", "file": "seized.list", "entries": 2, **behind(record)}
    assert change["subscribers_share"] == 0.0667
    plain = {"digest": "", "lists": [], "changes": [change], "refused": {}, "warnings": [], "problem": "",
             "again": False, "content": "", "slow": [], "base": "",
             "trial": {"lists": {}, "problem": "", "fault": "", "refused": False}}
    assert verified(dict(plain)) == plain


def test_a_ledger_that_is_off_does_nothing(tmp_path):
    recorder = Recorder(Config(Rules(key=tmp_path / "state" / "key"), ledger=Ledger(enabled=False)), Log(), None)
    recorder.begin()
    recorder.look()
    recorder.see({})
    recorder.turn({})
    recorder.settle()
    recorder.keep("a problem")
    recorder.end(False)
    assert recorder.status()["state"] == "off" and list(tmp_path.iterdir()) == []


def test_the_digest_is_of_every_setting():
    assert digest_of(Config()) == digest_of(Config()) != digest_of(Config(canary=Canary(period=11.0)))


@pytest.mark.parametrize(("said", "code"), [
    ("court.list: the signature does not fit the list: one of the two was altered", "signature"),
    ("court.list: is older than the version in force: signed at 5, and that one at 6", "signature"),
    ("court.list:3: com is a public suffix; allow_public_suffixes = [\"com\"] if that is meant", "guard rail"),
    ("court.list: was removed, and with it 9 of 9 lists would go", "removal"),
    ("court.list: could be read, but not be kept: /x: No space left on device", "disk"),
    ("court.list: takes more than 60 s of processor time to read; split it", "size"),
    ("court.list: not UTF-8 at byte 3", "encoding"),
    ("court.list: cannot be read: Permission denied", "unreadable"),
    ("court.toml: unknown key 'acton'", "settings"),
    ("court.list: something that nobody has thought of", "other"),
    ("designed.example: more than 10 entries", "size"),
    ("signed.list: more than 10 entries", "size"),
    ("a.list:3: 'resigned.example' and 'signed.example' are no entries", "other"),
    ("a.list:3: 'un-shared.example' was blocked", "other"),
    ("signed.toml:1: unknown key 'x'", "settings"),
    ("a.list: has no signature.", "signature"),
    ("a.list:1: shared.example is a public suffix", "guard rail"),
])
def test_a_refusal_has_a_code(said, code):
    assert code_of(said) == code and code in CODES


def test_every_code_and_kind_is_told():
    assert {code for _, code in module.REASONS} | set(module.CAUSES.values()) <= CODES.keys()
    assert why_wrong("nothing", {}) and why_wrong("removed", {"list": "a"})
    assert why_wrong("withdrawn", {"list": "", "x": 1})
    assert all(text and fields for text, fields in KINDS.values())
