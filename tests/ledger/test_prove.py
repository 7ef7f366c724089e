"""Proofs: made by the box, checked by sixty lines that share nothing with it. In: lists that come and go. Out: what
is shown, to whom, and what is not."""

import ast
import base64
import json
import os
import shutil
import time
from datetime import datetime
from pathlib import Path

import pytest
from nacl.exceptions import BadSignatureError

from edgeblock.blocklist.commitments import Commitments
from edgeblock.blocklist.committed import CHUNK, root_of
from edgeblock.blocklist.refresh import refresh
from edgeblock.blocklist.store import Store, read_key
from edgeblock.config import Config, Ledger, Rules
from edgeblock.daemon import ledger as module
from edgeblock.daemon.ledger import Recorder, Sources
from edgeblock.errors import ConfigError
from edgeblock.lab import until
from edgeblock.ledger import read
from edgeblock.ledger.heads import parse_signed
from edgeblock.ledger.heads import read_key as read_box_key
from edgeblock.ledger.prove import prove
from edgeblock.ledger.verify import public_keys, verify
from tests.daemon.parts import Log
from tests.ledger import checker
from tests.ledger.books import loaded

COURT = "\n".join(f"host{number}.example.com" for number in range(300)) + "\n"


class Box:
    """A daemon's recorder with a real directory of lists, whose workers have rules at once."""

    def __init__(self, place: Path) -> None:
        (place / "rules").mkdir(exist_ok=True)
        self.rules = place / "rules"
        self.config = Config(Rules(self.rules, key=place / "state" / "key"),
                             ledger=Ledger(directory=place / "ledger"))
        self.log = Log()
        self.workers, self.kernel = True, True
        self.recorder = Recorder(self.config, self.log, Sources(
            lambda: self.workers, lambda: self.kernel, dict, lambda: (0, {}), list, dict, lambda: (0, 0),
            lambda file: None))
        self.recorder.begin()
        self.now = 1_790_000_000

    @property
    def ledger(self) -> Path:
        return self.config.ledger.directory

    def load(self, **lists: str | None) -> None:
        for name, text in lists.items():
            if text is None:
                (self.rules / f"{name}.list").unlink()
            else:
                (self.rules / f"{name}.list").write_text(text)
        key = read_key(self.config.rules.key, create=True)
        self.now += 10
        said = refresh(self.config.rules, Store(self.config.rules.key.parent, key, commits=True), self.now)
        assert not said.problem
        self.recorder.take(loaded(said, key), time.time())
        self.recorder.look()

    def end(self) -> None:
        self.recorder.end(False)
        assert self.recorder.fault == ""

    def proof(self, entry: str, start=None, end=None) -> str:
        return json.dumps(prove(self.config, self.ledger, entry, start, end))

    def check(self, proof: str) -> list[tuple[str, ...]]:
        public = (self.ledger / "key.pub").read_text().split()[-1]
        return list(checker.check(proof, public, [path.read_text() for path in self.ledger.glob("*.head")]))


@pytest.fixture
def box(tmp_path):
    one = Box(tmp_path)
    one.load(court=COURT,
             other="elsewhere.example.org\n192.0.2.0/24\n=only.example.net\nhttp://example.org/a/b?c=1\n")
    one.load(court=COURT + "more.example.com until=2030-01-01\n@@fine.host1.example.com\n")
    one.load(other=None)
    one.load(court=COURT)
    one.end()
    return one


def test_the_checker_is_short_and_imports_nothing_of_ours():
    text = Path(checker.__file__).read_text()
    assert len(text.splitlines()) <= 60
    names = {alias.name.split(".")[0] for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import)
             for alias in node.names} | {(node.module or "").split(".")[0] for node in ast.walk(ast.parse(text))
                                         if isinstance(node, ast.ImportFrom)}
    assert names == {"hashlib", "json", "nacl"}


@pytest.mark.parametrize(("entry", "text", "periods", "name"), [
    ("host7.example.com", "host host7.example.com", 4, "court"),
    ("more.example.com until=2030-01-01", 'host more.example.com {"until":1893456000}', 2, "court"),
    ("@@fine.host1.example.com", "exception host fine.host1.example.com", 2, "court"),
    ("192.0.2.0/24", "address 192.0.2.0/24", 2, "other"),
    ("=only.example.net", "host-only only.example.net", 2, "other"),
    ("http://example.org/a/b?c=1", "url-with-query example.org/a/b?c=1", 2, "other"),
])
def test_what_was_in_force_is_proved(box, entry, text, periods, name):
    shown = box.check(box.proof(entry))
    assert [(one[0], one[1]) for one in shown] == [(name, text)] * periods
    times = [datetime.fromisoformat(at).timestamp() for one in shown for at in one[2:4]]
    assert times == sorted(times) and all(
        0 < begin - end < 5 for end, begin in zip(times[1::2], times[2::2], strict=False))


@pytest.mark.parametrize("entry", ["never.example.com", "more.example.com", "example.com", "192.0.2.0/25",
                                   "@@host7.example.com", "=host7.example.com"])
def test_what_was_not_is_not(box, entry):
    assert json.loads(box.proof(entry))["periods"] == []


def test_a_proof_says_nothing_of_another_entry(box):
    proof = box.proof("host7.example.com")
    maker = Commitments(read_key(box.config.rules.key))
    for number in (1, 8, 77, 299):
        other = f"host{number}.example.com".encode()
        assert other not in proof.encode() and maker.salt(b"host " + other).hex() not in proof
    for word in ("elsewhere", "only.example.net", "192.0.2"):
        for form in (word, word[::-1], base64.b64encode(word.encode()).decode()[:-4], word.encode().hex()):
            assert form not in proof
    key = read_key(box.config.rules.key)
    assert bytes(key).hex() not in proof and (box.ledger / "key").read_bytes().hex() not in proof


def changed(said, way):
    one, period = said["entries"][0], said["periods"][0]
    if way == "entry":
        one["text"] = one["text"].replace("host7", "host8")
    elif way == "salt":
        one["salt"] = "00" * 16
    elif way == "two texts":            # what salt and text have together is the same
        one["salt"] += one["text"][:5].encode().hex()
        one["text"] = one["text"][5:]
    elif way == "word":
        one["text"] = "x" + one["text"]
    elif way == "place":
        one["place"] -= len(one["leaf"]) // 40
    elif way == "leaf":
        one["leaf"] = "00" * (len(one["leaf"]) // 2)
    elif way == "list":
        period["list"] = "other"
    elif way == "root":
        period["root"] = "00" * 32
    elif way == "time":
        period["begin"]["record"] = period["begin"]["record"].replace('"time":"2', '"time":"1')
    elif way == "path":
        period["end"]["path"][0] = "11" * 32
    elif way == "end":
        period["end"] = said["periods"][-1]["end"]
    elif way in ("action", "window", "clients"):
        period[way] = "observe" if way == "action" else ""
        if way != "action":
            period[way] = "x"
    elif way == "kind":
        period["begin"] = period["end"]
    return json.dumps(said)


@pytest.mark.parametrize("way", ["entry", "salt", "two texts", "word", "place", "leaf", "list", "root", "time",
                                 "path", "end", "kind", "action", "window", "clients"])
def test_a_proof_that_was_altered_is_none(box, way):
    said = json.loads(box.proof("host7.example.com"))
    assert len(box.check(json.dumps(said))) == 4
    with pytest.raises((AssertionError, KeyError)):
        box.check(changed(said, way))


def test_an_exception_is_not_shown_as_an_entry_that_blocks(box):
    said = json.loads(box.proof("@@fine.host1.example.com"))
    assert box.check(json.dumps(said))
    one = said["entries"][0]
    one["salt"] += b"exception ".hex()
    one["text"] = one["text"].removeprefix("exception ")
    with pytest.raises(AssertionError):
        box.check(json.dumps(said))


def test_a_proof_is_none_under_heads_of_another_box(box, tmp_path):
    (tmp_path / "second").mkdir()
    second = Box(tmp_path / "second")
    second.load(court=COURT)
    second.end()
    proof = box.proof("host7.example.com")
    with pytest.raises((AssertionError, KeyError)):
        second.check(proof)
    heads = [path.read_text() for path in second.ledger.glob("*.head")]
    with pytest.raises((AssertionError, BadSignatureError)):
        list(checker.check(proof, (box.ledger / "key.pub").read_text().split()[-1], heads))


def test_two_heads_that_contradict_each_other_prove_nothing(box):
    """The box has signed both: one of them is of a ledger that was written anew."""
    key, _ = read_box_key(box.ledger)
    texts = [path.read_text() for path in box.ledger.glob("*.head")]
    head = parse_signed(texts[0].encode()).head
    other = key.sign(head._replace(root="ab" * 32), 1).text.decode()
    proof, public = box.proof("host7.example.com"), key.text
    assert list(checker.check(proof, public, [*texts, *texts]))
    for both in ([other, *texts], [*texts, other]):
        with pytest.raises(AssertionError):
            list(checker.check(proof, public, both))


def test_a_restart_is_between_two_spans(tmp_path):
    first = Box(tmp_path)
    first.load(court=COURT)
    first.end()
    second = Box(tmp_path)
    second.now = first.now
    second.load()
    second.end()
    shown = second.check(second.proof("host7.example.com"))
    assert len(shown) == 2 and shown[0][3] < shown[1][2]


@pytest.mark.parametrize("kernel", [False, None])
def test_rules_are_in_force_when_the_kernel_has_them_too(tmp_path, monkeypatch, kernel):
    box = Box(tmp_path)
    box.kernel = kernel
    box.load(court=COURT)
    box.recorder.look()
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    box.recorder.look()
    box.recorder.look()
    box.kernel = True
    box.recorder.look()
    box.recorder.look()
    box.end()
    made = [one.fields for one in read(box.ledger) if one.kind == "in force"]
    assert [(one["workers"], one["kernel"], len(one["changed"])) for one in made] == [
        (True, False, 1), (True, True, 1)]


def test_rules_that_the_kernel_has_not_prove_nothing(tmp_path, monkeypatch):
    box = Box(tmp_path)
    box.kernel = False
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    box.load(court=COURT)
    box.recorder._pulsed = -module.PULSE
    box.recorder.look()
    box.end()
    assert json.loads(box.proof("host7.example.com"))["periods"] == []


@pytest.mark.parametrize(("settings", "terms"), [
    ("from = 2030-01-01\n", None),
    ("until = 2999-01-01\n", ("reset", '{"until":32472144000}', "")),
    ('action = "observe"\n', ("observe", "", "")),
    ('clients = ["198.51.100.0/24"]\n', ("reset", "", "only")),
])
def test_a_proof_says_what_a_list_is_for(tmp_path, settings, terms):
    """A list may hold at times only, for some only, or only be watched: a proof says so, or shows nothing."""
    box = Box(tmp_path)
    (box.rules / "court.toml").write_text(settings)
    box.load(court=COURT)
    (box.rules / "court.toml").unlink()
    box.load()
    box.end()
    shown = [one[4] for one in box.check(box.proof("host7.example.com"))]
    assert shown == [terms] * (terms is not None) + [("reset", "", "")]


@pytest.mark.parametrize("step", [200 * 86_400, -3600])
def test_no_span_is_across_a_clock_that_was_set(tmp_path, monkeypatch, step):
    box, by, real = Box(tmp_path), [0], time.time
    monkeypatch.setattr(time, "time", lambda: real() + by[0])
    monkeypatch.setattr(box.recorder.ledger, "_now", time.time)
    box.load(court=COURT)
    for by[0] in (0, step):
        box.recorder.look()
        box.recorder._pulsed = -module.PULSE
        box.recorder.look()
    box.end()
    shown = [[datetime.fromisoformat(one[which]).timestamp() for which in (2, 3)]
             for one in box.check(box.proof("host7.example.com"))]
    assert len(shown) == 2 and all(0 <= until - since < 60 for since, until in shown)
    assert abs(shown[1][0] - shown[0][1] - step) < 60


def test_rules_that_come_before_the_last_have_settled_are_told_with_them(tmp_path):
    box = Box(tmp_path)
    box.load(court=COURT)
    box.workers = False
    box.load(court=COURT + "one.example.com\n")
    box.recorder._pulsed = -module.PULSE
    box.recorder.look()                     # who would say that the first still hold everywhere?
    box.load(other="two.example.com\n")
    box.workers = True
    box.recorder.look()
    box.end()
    made = list(read(box.ledger))
    first, last = (one for one in made if one.kind == "in force")
    assert [one["list"] for one in last.fields["changed"]] == ["court", "other"]
    assert [one.fields["in_force"] for one in made if one.kind in ("pulse", "stop")] == [0, 2]
    [taken] = [one.time for one in made if one.kind == "taken" and one.fields["list"] == "other"]
    shown = box.check(box.proof("host7.example.com"))
    assert [one[2] for one in shown] == [first.time, last.time]
    assert first.time < shown[0][3] == last.fields["compiled"] < taken < last.time


def test_a_fault_of_ours_ends_a_span(tmp_path):
    box = Box(tmp_path)
    box.load(court=COURT)
    box.recorder._ask, ask = None, box.recorder._ask
    box.load(court=COURT + "one.example.com\n")
    box.recorder._ask = ask
    box.recorder._pulsed = -module.PULSE
    box.recorder.look()
    box.load(court=COURT)
    box.recorder.end(False)
    assert box.recorder.fault
    made = list(read(box.ledger))
    assert [one.fields["number"] for one in made if one.kind == "in force"] == [1, 3]
    assert [one.fields["in_force"] for one in made if one.kind in ("pulse", "stop")] == [0, 3]
    assert len(box.check(box.proof("host7.example.com"))) == 1


def test_nothing_is_recorded_in_force_while_it_may_still_come(tmp_path):
    box = Box(tmp_path)
    box.kernel = False
    box.load(court=COURT)
    box.recorder.look()
    box.end()
    assert not [one for one in read(box.ledger) if one.kind == "in force"]


def test_spans_are_those_asked_for(box):
    times = [record.at / 1e6 for record in read(box.ledger) if record.kind == "in force"]
    assert len(json.loads(box.proof("host7.example.com", times[2], times[3]))["periods"]) == 1
    assert len(json.loads(box.proof("host7.example.com", times[2], times[3] + 1))["periods"]) == 2
    assert json.loads(box.proof("host7.example.com", times[-1] + 3600))["periods"] == []


def test_what_has_just_come_into_force_is_not_said_not_to_be(tmp_path):
    box = Box(tmp_path)
    box.load(court=COURT)

    def notes(entry: str, *asked: float) -> list[str]:
        said = json.loads(box.proof(entry, *asked))
        assert said["periods"] == []
        return [note for note in said["notes"] if "no record shows until when" in note]

    try:
        assert until(lambda: any(one.kind == "in force" for one in read(box.ledger)), 10)
        assert notes("host7.example.com") and not notes("host7.example.org")
        assert not notes("host7.example.com", 0, time.time() - 3600)        # before it began
        box.recorder._pulsed = -module.PULSE
        box.recorder.look()
        assert until(lambda: any(one.kind == "pulse" for one in read(box.ledger)), 10)
        assert notes("host7.example.com", time.time() + 1)                  # behind the pulse
    finally:
        box.end()
    assert not notes("host7.example.com", time.time() + 1)                  # it has stopped


def test_versions_that_are_not_kept_are_said_to_be_missing(box):
    shutil.rmtree(box.config.rules.key.parent / "proofs")
    said = json.loads(box.proof("host7.example.com"))
    assert said["periods"] == [] and "not kept any more" in said["notes"][0]


@pytest.mark.parametrize("what", ["fifo", "link", "directory", "empty", "longer", "other"])
def test_commitments_that_others_have_written_are_none(box, what):
    """The process that reads lists may write where they are: no file there stops or misleads who proves."""
    proofs = box.config.rules.key.parent / "proofs"
    for number, path in enumerate(sorted(proofs.iterdir())):
        data = path.read_bytes()
        path.unlink()
        if what == "fifo":
            os.mkfifo(path)
        elif what == "link":
            (proofs.parent / str(number)).write_bytes(data)
            path.symlink_to(proofs.parent / str(number))
        elif what == "directory":
            path.mkdir()
        else:
            path.write_bytes({"empty": b"", "longer": data + b"\xff" * 20, "other": data[20:]}[what])
    said = json.loads(box.proof("host7.example.com"))
    assert said["periods"] == [] and "not kept any more" in said["notes"][0]


def test_what_is_no_entry_is_refused(box):
    for entry in ("", "a b c", "192.0.2.1-192.0.2.200", "# nothing"):
        with pytest.raises(ConfigError):
            box.proof(entry)


def test_versions_before_are_dropped_when_they_are_too_much(box):
    store = Store(box.config.rules.key.parent, read_key(box.config.rules.key), commits=True)
    kept = {path.name for path in store.proofs.iterdir()}
    store.drop_proofs(1 << 30)
    assert {path.name for path in store.proofs.iterdir()} == kept and len(kept) == 3
    store.drop_proofs(0)
    [left] = store.proofs.iterdir()
    assert left.name == store.parts()[0]["court"].parts.lists[0].root


def test_the_same_lists_under_one_key_have_one_root():
    made = []
    for order in (1, -1):
        one = Commitments(b"k" * 16)
        for text in [b"host %d.example" % number for number in range(CHUNK * 3 + 1)][::order]:
            one.add(text)
            one.add(text)
        one.finish()
        made.append(root_of(one))
    other = Commitments(b"l" * 16)
    other.add(b"host 0.example")
    other.finish()
    assert made[0] == made[1] != root_of(other)


def test_the_ledger_of_all_that_verifies(box):
    keys, _ = public_keys(box.ledger, ())
    assert verify(box.ledger, keys).problems == []
    kinds = [record.kind for record in read(box.ledger)]
    assert kinds.count("in force") == 4 and kinds.count("lists") == 1 and kinds[-1] == "stop"
