"""What is answered to orders: taken, refused, waiting, in force since, ended; and no word of them."""

import asyncio
import hashlib
import json
import os
import stat
from importlib.resources import files
from types import SimpleNamespace

import jsonschema
import pytest

from edgeblock import config
from edgeblock.blocklist import answers
from edgeblock.blocklist.refresh import refresh
from edgeblock.blocklist.store import Store
from edgeblock.daemon import outcomes as module
from edgeblock.daemon.outcomes import NO_LIST, NOT_IN_KERNEL, Outcomes, moment
from tests.blocklist.making import KEY
from tests.daemon.parts import Log

VALID = jsonschema.Draft202012Validator(
    json.loads((files("edgeblock.blocklist") / "outcome-1.schema.json").read_text()))
NOW = 1_800_000_000.0       # a Friday, 08:00 UTC
HOUR, DAY = 3600, 86400
CAPACITY = {what: {"used": 1, "most": 100} for what in ("entries", "addresses", "lists")}


def item(number=1, kind="host", value="", **more):
    return {"id": f"T-{number}", "kind": kind, "value": value or f"a{number}.example"} | more


class Box:
    """A rules directory, and a daemon as far as it answers orders."""

    def __init__(self, home):
        self.home, self.folder = home, home / "rules"
        self.folder.mkdir()
        self.store = Store(home / "state", KEY)
        self.rules = config.Rules(directory=self.folder, key=home / "state" / "key")
        self.now = NOW
        self.begin()

    def begin(self, left_by=""):
        """The daemon, or the next."""
        self.everywhere = self.in_kernel = True
        self.log = Log()
        self.outcomes = Outcomes(self.rules, self.log, lambda: self.everywhere, lambda: self.in_kernel,
                                 lambda: CAPACITY, left_by)

    def drop(self, *items, name="court", **more):
        text = json.dumps({"version": 1, "order": "No. 12", "items": list(items)} | more)
        (self.folder / f".{name}").write_text(text)
        (self.folder / f".{name}").rename(self.folder / f"{name}.order.json")

    def load(self):
        """The lists are read, put in force, and answered."""
        told = refresh(self.rules, self.store, self.now)
        self.outcomes.take(SimpleNamespace(lists=told.lists, refused=told.refused, changes=told.changes,
                                           content="ab" * 32))
        return self.look()

    def look(self, seconds=0.0, name="court"):
        """The answer so many seconds later."""
        self.now += seconds
        self.outcomes._resting.clear()
        asyncio.run(self.outcomes.look(self.now))
        where = self.folder / f"{name}.outcome.json"
        if not where.exists():
            return None
        told = json.loads(where.read_text())
        VALID.validate(told)
        return told

    def states(self, name="court"):
        return [one["state"] for one in json.loads((self.folder / f"{name}.outcome.json").read_text())["items"]]


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path)


def test_each_item_is_answered(box):
    box.drop(item(1), item(2, value="a..b"), item(3, value="google.com"), 5,
             item(5, "address", "192.0.2.0-192.0.2.2"), item(6, until="2020-01-01"))
    told = box.load()
    since = moment(NOW)
    assert [{key: value for key, value in one.items() if key != "rules"} for one in told["items"]] == [
        {"number": 1, "id": "T-1", "state": "in force", "since": since},
        {"number": 2, "id": "T-2", "state": "refused",
         "reason": "has a value that is none of the kind host; `edgeblock lint` says why"},
        {"number": 3, "id": "T-3", "state": "refused",
         "reason": "guard rail allow_protected; `edgeblock lint` says why"},
        {"number": 4, "state": "refused", "reason": "is no object in JSON"},
        {"number": 5, "id": "T-5", "state": "in force", "since": since},
        {"number": 6, "id": "T-6", "state": "ended", "ended": "2020-01-01T00:00:00.000Z"}]
    assert [len(one.get("rules", ())) for one in told["items"]] == [1, 0, 0, 0, 2, 1]
    assert (told["order"], told["state"], told["action"]) == ("No. 12", "applied", "reset")
    assert told["capacity"] == CAPACITY
    assert told["counts"] == {"taken": 0, "refused": 3, "waiting": 0, "in force": 2, "ended": 1}
    assert "example" not in json.dumps(told) and "google" not in json.dumps(told)
    assert box.outcomes.status() == {"orders": 1, "items": told["counts"], "problem": ""}


def test_no_word_of_an_order_is_in_the_state_directory(box):
    box.drop(item(1, value="secret.example"), item(2, value="se..cret"))
    box.load()
    for path in box.store.orders.iterdir():
        assert b"secret" not in path.read_bytes() and b"se..cret" not in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_is_in_force_when_every_worker_has_it_and_not_before(box):
    box.drop(item())
    box.load()
    box.everywhere = False
    box.drop(item(1), item(2))
    told = box.load()
    assert (told["state"], box.states()) == ("taken", ["in force", "taken"])
    box.everywhere = True
    told = box.look(7)
    assert (told["state"], [one["since"] for one in told["items"]]) == ("applied", [moment(NOW), moment(NOW + 7)])


def test_an_address_is_in_force_when_the_kernel_has_it(box):
    box.in_kernel = False
    box.drop(item(1), item(2, "address", "192.0.2.1"))
    told = box.load()
    assert [(one["state"], one.get("reason")) for one in told["items"]] == [("in force", None),
                                                                            ("taken", NOT_IN_KERNEL)]
    box.in_kernel = True
    assert [one["since"] for one in box.look(3)["items"]] == [moment(NOW), moment(NOW + 3)]
    box.in_kernel = False
    assert [(one["state"], one.get("reason")) for one in box.look(3)["items"]][1] == ("in force", NOT_IN_KERNEL)


def test_while_the_kernel_turns_nothing_is_answered_of_it(box):
    box.drop(item(1), item(2, "address", "192.0.2.1"))
    box.load()
    box.in_kernel = None
    box.outcomes.turn(["court"])
    box.drop(item(1), item(2, "address", "192.0.2.1"), item(3, "address", "192.0.2.2"))
    assert len(box.load()["items"]) == 2
    box.in_kernel = True
    assert [one["since"] for one in box.look(2)["items"]] == [moment(NOW), moment(NOW), moment(NOW + 2)]


def test_what_the_kernel_has_is_nothing_to_an_order_of_names(box, monkeypatch):
    box.drop(item(1))
    box.drop(item(2, "address", "192.0.2.1"), name="other")
    box.load()
    written = []
    write = box.outcomes._writer.write
    monkeypatch.setattr(box.outcomes._writer, "write", lambda name, *more: written.append(name) or write(name, *more))
    box.in_kernel = False
    box.look(1)
    assert written == ["other"]


def test_items_that_stay_keep_their_since_when_the_order_changes_and_the_daemon_restarts(box):
    box.drop(item(1), item(2))
    box.load()
    box.drop(item(2), item(3), item(1, value="other.example"), order="No. 13")
    box.now += 60
    told = box.load()
    assert [one["since"] for one in told["items"]] == [moment(NOW), moment(NOW + 60), moment(NOW + 60)]
    before = (box.folder / "court.outcome.json").stat()
    box.begin()
    box.now += 3600
    box.load()
    after = (box.folder / "court.outcome.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_at_a_start_nothing_is_answered_before_it_is_in_force(box, monkeypatch):
    box.everywhere = False
    box.drop(item())
    assert box.load() is None
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    assert box.look()["items"][0]["state"] == "taken"


def test_windows_open_and_close(box):
    box.drop(item(1, **{"from": moment(NOW + 60)[:-5] + "Z"}, until=moment(NOW + 120)[:-5] + "Z"),
             item(2, weekly="fri 09:00-10:00 UTC"), item(3))
    told = box.load()
    assert [(one["state"], one.get("opens")) for one in told["items"]] == [
        ("waiting", moment(NOW + 60)), ("waiting", moment(NOW + HOUR)), ("in force", None)]
    before = (box.folder / "court.outcome.json").stat().st_ino
    box.look(30)
    assert (box.folder / "court.outcome.json").stat().st_ino == before
    box.outcomes.turn(["court"])
    assert box.look(30.2)["items"][0]["since"] == moment(NOW + 60.2)
    box.outcomes.turn(["court"])
    ended = box.look(60)["items"][0]
    assert (ended["state"], ended["since"], ended["ended"]) == ("ended", moment(NOW + 60.2), moment(NOW + 120))
    box.outcomes.turn(["court"])
    opened = box.look(HOUR - 120)["items"][1]
    assert (opened["state"], opened["since"]) == ("in force", moment(box.now))
    box.outcomes.turn(["court"])
    assert box.look(HOUR)["items"][1] == {"number": 2, "id": "T-2", "state": "waiting", "rules": opened["rules"],
                                          "opens": moment(NOW + 7 * DAY + HOUR)}


def test_an_order_that_is_refused_is_answered_and_its_version_before_stays(box):
    box.drop(item())
    box.load()
    (box.folder / "court.order.json").write_text('{"version": 2}')
    told = box.load()
    assert (told["state"], box.states()) == ("refused", ["in force"])
    assert told["refused"]["reason"] == \
        'court.order.json:1: the file is an order of another version; this edgeblock reads "version": 1'
    assert told["refused"]["sha256"] == hashlib.sha256(b'{"version": 2}').hexdigest()
    (box.folder / "new.order.json").write_text('{"order": "secret')
    box.load()
    told = box.look(name="new")
    assert (told["state"], told["items"], told["order"]) == ("refused", [], "")
    assert told["refused"]["reason"] == "new.order.json:1: the file is no JSON from line 1 on; is it whole?"


@pytest.mark.parametrize(("more", "why"), [
    ({"secret": 1}, "has an unknown key; known are version, "),
    ({"until": "31.12.2026 secret"}, "has 'until', which cannot be used; `edgeblock lint` says why"),
    ({"from": "2027-01-01", "until": "2026-01-01"}, "never holds: from is not before until")])
def test_a_refusal_of_the_whole_says_why_whose_order_it_is_and_nothing_else_of_it(box, more, why):
    box.drop(item())
    box.load()
    box.drop(item(), order="No. 13", **more)
    told = box.load()
    assert told["refused"]["reason"].startswith(f"court.order.json:1: the file {why}")
    assert (told["refused"]["order"], told["order"], box.states()) == ("No. 13", "No. 12", ["in force"])
    assert "secret" not in json.dumps(told) and "31.12" not in json.dumps(told)
    box.drop(item(), name="new", order="No. 14", **more)
    box.load()
    assert box.look(name="new")["order"] == "No. 14"


def test_an_order_grows_and_shrinks_as_whoever_asks_delivers_it(box):
    box.drop(item())
    box.load()
    box.drop(*map(item, range(3000)))
    assert (box.load()["state"], len(box.states())) == ("applied", 3000)
    box.drop()
    assert (box.load()["state"], box.states()) == ("applied", [])


def test_what_cannot_be_read_at_all_is_answered_too(box):
    box.drop(item())
    (box.folder / "court.toml").write_text("actoin = 1\n")
    told = box.load()
    assert told["state"] == "refused"
    assert told["refused"]["sha256"] == hashlib.sha256((box.folder / "court.order.json").read_bytes()).hexdigest()


def test_an_order_that_asks_for_nothing_any_more_is_taken(box):
    box.drop(*map(item, range(200)))
    box.load()
    box.drop()
    told = box.load()
    assert (told["state"], told["items"], told["order"]) == ("applied", [], "No. 12")


def test_an_answer_goes_with_its_order(box):
    box.drop(item())
    box.drop(item(), name="other")
    box.load()
    (box.folder / "court.toml").write_text("max_shrink = 1\n")
    (box.folder / "court.order.json").unlink()
    assert box.load() is None
    assert {path.name for path in box.store.orders.iterdir()} == {"other.json", "other.since"}
    assert box.look(name="other")["state"] == "applied"


def test_the_file_of_another_is_left_alone_and_that_is_said(box):
    (box.folder / "court.outcome.json").write_text("mine")
    box.drop(item())
    with pytest.raises(ValueError):
        box.load()
    assert (box.folder / "court.outcome.json").read_text() == "mine"
    assert box.outcomes.status()["problem"].endswith(
        "court.outcome.json: cannot be written: there is another file of this name, which is left alone; "
        "move it away")
    assert [event for event, _ in box.log.said] == ["order not answered"]
    (box.folder / "court.outcome.json").unlink()
    box.outcomes._check_due -= module.CHECKING
    told = box.look(60)
    assert told["state"] == "applied" and box.outcomes.status()["problem"] == ""
    assert told["items"][0]["since"] == moment(NOW)


@pytest.mark.parametrize(("mode", "wanted"), [(0o600, 0o600), (0o640, 0o640), (0o644, 0o644), (0o666, 0o664)])
def test_it_is_no_more_readable_than_the_order(box, mode, wanted):
    box.drop(item())
    (box.folder / "court.order.json").chmod(mode)
    box.load()
    assert stat.S_IMODE((box.folder / "court.outcome.json").stat().st_mode) == wanted


def test_a_link_in_its_place_is_replaced_by_nothing_and_followed_by_nobody(box, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text('{"edgeblock": "outcome"}')
    os.symlink(outside, box.folder / "court.outcome.json")
    box.drop(item())
    with pytest.raises(jsonschema.ValidationError):
        box.load()
    assert outside.read_text() == '{"edgeblock": "outcome"}'
    assert "another file" in box.outcomes.status()["problem"]


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b'{"items": [[1]]}', b"[" * 100_000])
def test_answers_that_are_damaged_say_nothing_and_raise_nothing(box, damaged):
    box.drop(item())
    box.load()
    (box.store.orders / "court.json").write_bytes(damaged)
    (box.store.orders / "court.since").write_bytes(damaged)
    box.begin()
    assert box.load()["items"] == []
    (box.store.orders / "court.json").unlink()      # the list is read again for it
    box.now += 1
    assert box.load()["items"][0]["state"] == "in force"


def test_a_list_that_expires_ends_all_its_items(box):
    box.drop(item())
    (box.folder / "court.toml").write_text("expires = 2027-01-15T09:00:00Z\n")
    box.load()
    box.now += HOUR
    [one] = box.load()["items"]
    assert (one["state"], one["since"], one["ended"]) == ("ended", moment(NOW), moment(NOW + HOUR))


def test_a_range_of_which_a_part_is_refused_is_in_force_and_that_is_said(box):
    box.drop(item(1, "address", "8.8.8.7-8.8.8.8"))
    (box.folder / "court.toml").write_text('allow_shared = true\n')
    [one] = box.load()["items"]
    assert (one["state"], len(one["rules"])) == ("in force", 1)
    assert one["reason"] == "a part of it is refused: guard rail allow_protected; `edgeblock lint` says why"


def test_what_is_found_not_to_hold_is_answered_by_the_version_before(box, monkeypatch):
    """New rules that do not hold when they are tried are put back, and so is what is known of their items."""
    box.drop(item(1))
    box.load()
    before = box.store.answers("court")
    box.drop(item(1), item(2))
    box.now += 5

    class Trial:
        samples, unsure, culprit, same_names, later = {}, set(), "court", False, None

        def hold(self, _):
            pass

        def try_out(self, _):
            monkeypatch.setattr(Trial, "try_out", lambda self, _: "")
            return "one gets through"

    told = refresh(box.rules, box.store, box.now, trial=Trial())
    assert "court" in told.refused and box.store.answers("court") == before
    box.outcomes.take(SimpleNamespace(lists=told.lists, refused=told.refused, changes=told.changes,
                                           content="ab" * 32))
    said = box.look()
    assert (said["state"], box.states()) == ("refused", ["in force"])


def test_a_fault_with_one_order_is_that_orders(box, monkeypatch):
    def fail(answers, *more):
        if answers.file.startswith("court"):
            raise ZeroDivisionError
        return real(answers, *more)

    real = module.answers_of
    monkeypatch.setattr(module, "answers_of", fail)
    box.drop(item())
    box.drop(item(), name="other")
    box.load()
    assert box.look(name="other")["state"] == "applied"
    assert "cannot be read by a fault of edgeblock (ZeroDivisionError at test_outcomes.py" in \
        box.outcomes.status()["problem"]


def test_the_window_of_a_list_is_that_of_its_items_too(box):
    begins, ends = moment(NOW + HOUR)[:-5] + "Z", moment(NOW + 2 * HOUR)[:-5] + "Z"
    (box.folder / "court.toml").write_text(f"from = {begins}\nuntil = {ends}\n")
    box.drop(item(1), item(2, until=moment(NOW + HOUR + 60)[:-5] + "Z"), item(3, until="2020-01-01"))
    told = box.load()
    assert [(one["state"], one.get("opens")) for one in told["items"]] == [
        ("waiting", moment(NOW + HOUR)), ("waiting", moment(NOW + HOUR)), ("ended", None)]
    box.outcomes.turn(["court"])
    assert [one["state"] for one in box.look(HOUR)["items"]] == ["in force", "in force", "ended"]
    box.outcomes.turn(["court"])
    assert [one.get("ended") for one in box.look(61)["items"]] == [
        None, moment(NOW + HOUR + 60), "2020-01-01T00:00:00.000Z"]
    box.outcomes.turn(["court"])
    assert [one["ended"] for one in box.look(HOUR)["items"]][0] == moment(NOW + 2 * HOUR)


def test_an_item_that_is_left_out_as_it_ended_long_ago_has_ended(box):
    (box.folder / "court.toml").write_text("drop_past_days = 1\n")
    box.drop(item(1, until="2020-01-01"), item(2))
    told = box.load()
    assert [one["state"] for one in told["items"]] == ["ended", "in force"] and told["capacity"] == CAPACITY


def test_a_clock_that_is_set_back_and_on_again(box):
    box.drop(item(1, **{"from": moment(NOW - HOUR)[:-5] + "Z"}), item(2))
    box.load()
    box.outcomes.turn(["court"])
    assert [one["state"] for one in box.look(-2 * HOUR)["items"]] == ["waiting", "in force"]
    box.outcomes.turn(["court"])
    told = box.look(2 * HOUR)
    assert [(one["state"], one["since"]) for one in told["items"]] == [("in force", moment(NOW))] * 2


@pytest.mark.parametrize(("weekly", "begun"), [
    ("fri 06:00-24:00 UTC; sat,sun 00:00-24:00 UTC", -2 * HOUR), ("mon-sun 00:00-24:00 UTC", 0),
    ("fri 00:00-07:00 UTC; fri 07:00-24:00 UTC; sat 00:00-24:00 UTC; sun 00:00-10:00 UTC", 0)])
def test_days_that_touch_are_one_window(box, weekly, begun):
    """Its items keep their `since` over midnight, also while a new version of the order is on its way."""
    box.now += begun
    box.drop(item(weekly=weekly))
    box.load()
    box.now = NOW + DAY
    box.drop(item(weekly=weekly), item(2))
    box.everywhere = False
    assert [(one["state"], one.get("since")) for one in box.load()["items"]] == [
        ("in force", moment(NOW + begun)), ("taken", None)]


@pytest.mark.parametrize(("toml", "left_by", "why"), [
    ('clients = "some.clients"\n', "", module.OF_SOME),
    ("", "[ruleset] addresses = false", "on the watched ports only: [ruleset] addresses = false")])
def test_an_address_that_the_kernel_is_never_given_is_answered_so(box, toml, left_by, why):
    (box.folder / "some.clients").write_text("198.51.100.0/24\n")
    (box.folder / "court.toml").write_text(toml)
    box.begin(left_by)
    box.in_kernel = bool(toml)      # where none is the kernel's, nothing is missing there either
    box.drop(item(1), item(2, "address", "192.0.2.1"))
    told = box.load()
    assert [(one["state"], one.get("reason")) for one in told["items"]] == [("in force", None), ("in force", why)]
    assert [one.get("reason") for one in box.load()["items"]] == [None, why]


def test_an_order_whose_list_is_lost_is_not_in_force(box):
    """Its clients file cannot be used, and the version before has gone."""
    (box.folder / "court.toml").write_text('clients = "some.clients"\n')
    (box.folder / "some.clients").write_text("198.51.100.0/24\n")
    box.drop(item(1), item(2, weekly="sat 00:00-24:00 UTC"), item(3, until="2020-01-01"))
    assert [one["state"] for one in box.load()["items"]] == ["in force", "waiting", "ended"]
    good = {path: path.read_bytes() for path in box.store.clients.iterdir()}
    for path in good:
        path.unlink()
    (box.folder / "some.clients").write_text("nonsense\n")
    told = box.load()
    assert [(one["state"], one.get("reason")) for one in told["items"]] == [
        ("refused", NO_LIST), ("refused", NO_LIST), ("ended", None)]
    assert "since" not in told["items"][0] and told["refused"]["reason"]
    (box.folder / "some.clients").write_text("198.51.100.0/24\n")
    box.now += 60
    assert box.load()["items"][0]["since"] == moment(NOW + 60)


def test_an_item_that_has_ended_when_its_list_begins_is_refused(box):
    (box.folder / "court.toml").write_text(f"from = {moment(NOW + HOUR)}\n")
    box.drop(item(1, until=moment(NOW + 60)), item(2))
    told = box.load()
    assert [(one["state"], one.get("reason")) for one in told["items"]] == [
        ("refused", module.NEVER), ("waiting", None)]


def test_an_answer_that_somebody_else_has_written_is_written_again(box):
    box.drop(item())
    box.drop(item(), name="other")
    real = box.load()
    where = box.folder / "court.outcome.json"

    def forge():
        (box.folder / ".forged").write_text(where.read_text().replace('"state": "in force"', '"state": "ended"'))
        (box.folder / ".forged").rename(where)

    other = (box.folder / "other.outcome.json").stat().st_ino
    forge()
    assert box.look(1)["items"][0]["state"] == "ended"      # nothing has made it look
    box.outcomes._check_due -= module.CHECKING
    assert box.look(1)["items"] == real["items"]
    forge()
    assert box.load()["items"] == real["items"]
    forge()
    box.begin()
    assert box.load()["items"] == real["items"]
    with where.open("r+") as file:
        file.write(where.read_text().replace('"in force", "since"', '"refused", "since"'))
    assert box.load()["items"] == real["items"]
    where.unlink()
    assert box.load()["items"] == real["items"]
    assert (box.folder / "other.outcome.json").stat().st_ino == other


def test_only_what_was_written_is_taken_away(box):
    box.drop(item())
    box.load()
    copy = box.folder / "backup-of-2025.outcome.json"
    copy.write_bytes((box.folder / "court.outcome.json").read_bytes())
    another = [box.folder / name for name in (".court.outcome.json.mine.tmp", ".court.outcome.json.7.tmp",
                                              ".stranger.outcome.json.7.tmp", ".outcome.json.7.tmp")]
    for path in another:
        path.write_text("not yours")
    halves = [box.folder / ".court.outcome.json.8.tmp", box.folder / ".court.outcome.json.9.tmp"]
    halves[0].write_text('{"edgeblock": "outcome", "ver')
    halves[1].touch()
    (box.store.orders / ".court.since.8.tmp").touch()
    box.load()
    (box.folder / "court.toml").write_text("max_shrink = 1\n")
    (box.folder / "court.order.json").unlink()
    assert box.load() is None
    assert copy.exists() and all(path.exists() for path in another)
    assert not any(path.exists() for path in halves) and list(box.store.orders.iterdir()) == []


def test_of_an_item_with_many_rules_the_first_are_told_and_how_many_more(box):
    box.drop(item(1, "address", "192.0.2.1-192.0.2.254"), item(2))
    one, other = box.load()["items"]
    assert (len(one["rules"]), one["more_rules"], one["state"]) == (4, 10, "in force") and "more_rules" not in other


@pytest.mark.parametrize("items", [
    [item(number, id=f"{number:0>3}".ljust(128, "\u00e9")) for number in range(20)],
    [item(number, kind="x") for number in range(20)],
    [item(number, value="google.com") for number in range(20)],
    [item(number, until=f"2030-01-{number + 1:02}") for number in range(20)]])
def test_an_order_that_could_not_be_answered_is_refused(box, monkeypatch, items):
    box.drop(*items)
    box.load()
    size = (box.store.orders / "court.json").stat().st_size
    monkeypatch.setattr(answers, "ANSWERS_MAX", size + answers.HEAD)
    box.drop(*items, *items)
    told = box.load()
    assert told["state"] == "refused" and "to be answered; make it several orders" in told["refused"]["reason"]
    assert (box.store.orders / "court.json").stat().st_size == size
