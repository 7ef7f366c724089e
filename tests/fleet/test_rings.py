"""Rings: which box has a release when, and that a bad one goes no further than the first of them."""

import asyncio
import random
import re
import time
from collections import Counter

import pytest

from edgeblock.fleet import trial
from edgeblock.fleet.health import Health, health_of
from edgeblock.fleet.releases import Release, Table, TableError, read_rings
from edgeblock.fleet.repository import GRACE
from edgeblock.fleet.rings import Box as RingBox
from edgeblock.fleet.rings import choose, due, share_of
from edgeblock.fleet.source import SourceError

from .repositories import Box, Place, serving

HOUR = 3600.0
RINGS = {"canary": (0, 0), "early": (3600, 3600), "all": (14_400, 14_400)}


def release(version, rings=None, withdrawn=""):
    return Release(version, 0, rings or RINGS, {}, withdrawn)


def chosen(*releases, taken=0, ring="all", now=1e9, held=(), bad=(), unhealthy=""):
    """What a box takes: a version, or why it does not."""
    choice = choose("targets", Table(releases), dict.fromkeys(held, "because"), taken, dict.fromkeys(bad, "because"),
                    RingBox("box", ring, unhealthy), now)
    return (choice.release.version if choice.release else 0), choice.waiting


@pytest.mark.parametrize(("ring", "now", "version"), [
    ("canary", 0, 2), ("early", 0, 1), ("all", 0, 1), ("other", 0, 1), ("early", 3600, 2), ("all", 3600, 1),
    ("other", 14_399, 1), ("all", 14_400, 2), ("other", 14_400, 2)])
def test_a_ring_has_a_release_when_its_time_has_come(ring, now, version):
    first = release(1, {"all": (-1, -1)})
    assert chosen(release(2), first, taken=1, ring=ring, now=now) == (version, "" if version == 2 else "ring")


def test_what_stops_a_release():
    old, new = release(1), release(2)
    assert chosen(new, old, taken=1) == (2, "")
    assert chosen(new, old, taken=1, held=[2]) == (1, "hold")
    assert chosen(new, old, taken=1, bad=[2]) == (1, "bad")
    assert chosen(new, old, taken=1, unhealthy="the canary is red") == (1, "health")
    assert chosen(release(2, withdrawn="wrong"), old, taken=1) == (1, "")


def test_what_is_there_already_stays_when_it_is_held_and_goes_when_it_is_withdrawn_or_bad():
    old, new = release(1), release(2)
    assert chosen(new, old, taken=2, held=[2]) == (2, "")
    assert chosen(release(2, withdrawn="wrong"), old, taken=2) == (1, "")
    assert chosen(new, old, taken=2, bad=[2]) == (1, "bad")
    assert chosen(new, old, taken=2, bad=[2], unhealthy="the canary is red") == (1, "bad")    # back, whatever it says
    assert chosen(release(2, withdrawn="wrong"), taken=2) == (0, "bad")                       # nowhere to go
    assert chosen(release(3), release(2, withdrawn="wrong"), old, taken=2, unhealthy="red")[0] == 1


def test_a_new_box_takes_what_is_due_whatever_its_daemon_says_but_nothing_that_is_held():
    assert chosen(release(2), release(1, {"all": (0, 0)}), now=1, unhealthy="absent") == (1, "ring")
    assert chosen(release(2), release(1), unhealthy="absent") == (2, "")
    assert chosen(release(2), release(1), held=[2]) == (1, "hold")


def test_shares_are_even_and_stable_and_others_for_each_release():
    boxes = [f"box-{number}.example.net" for number in range(2000)]
    ramp = release(7, {"all": (0, 1000)})
    shares = {box: share_of(box, "targets", 7) for box in boxes}
    assert shares == {box: share_of(box, "targets", 7) for box in boxes}
    counts = Counter(int(share // 10) for share in shares.values())
    assert set(counts) == set(range(10)) and all(150 < count < 250 for count in counts.values())
    done = [sum(due(ramp, "all", share) <= now for share in shares.values()) for now in (0, 250, 500, 1000)]
    assert done[0] < 10 and 430 < done[1] < 570 and 930 < done[2] < 1070 and done[3] == 2000
    first = {box for box in boxes if shares[box] < 10}
    again = {box for box in boxes if share_of(box, "targets", 8) < 10}
    assert len(first & again) < 50


@pytest.mark.parametrize("text", ["", "canary", "canary=0", "all=1x", "early=2h,all=1h", "all=2h..1h", "all=400d",
                                  "ALL=0", "all=0,all=1"])
def test_rings_that_are_none_are_said(text):
    with pytest.raises(TableError, match="write such as|begins before|two times"):
        read_rings(text)


def test_rings_are_read():
    assert read_rings("canary=0,early=90s,all=4h..1d") == {
        "canary": (0, 0), "early": (90, 90), "all": (14_400, 86_400)}


@pytest.mark.parametrize(("told", "why"), [
    ({"canary": {"state": "ok"}, "selfcheck": {"state": "ok"}, "lists": {}}, ""),
    ({"canary": {"state": "off"}, "selfcheck": {"state": "waiting"}}, ""),
    ({"canary": {"state": "failed", "probes": [{"wrong": "a listed name passes"}]}},
     "the canary is red: a listed name passes"),
    ({"selfcheck": {"state": "failed", "problem": "tls-two-segments"}}, "the self-check failed: tls-two-segments"),
    ({"error": "unknown question"}, "the daemon does not answer: it says something else"), ([], "does not answer")])
def test_what_the_daemon_says_is_understood(told, why):
    assert why in health_of(told).why_not and bool(why) == bool(health_of(told).why_not)


# Boxes ---------------------------------------------------------------------------------------------------------

RED = Health(wrong="the canary is red: a listed name passes")


@pytest.fixture
def place(tmp_path, monkeypatch):
    made = Place(tmp_path / "publisher", monkeypatch)
    made.now = time.time()          # python-tuf has the machine's clock
    made.init()
    made.write("ads.list", "ads.example")
    assert made.publish() == 0
    with serving(made.site) as (url, server):
        made.url, made.server = url, server
        yield made


@pytest.fixture
def box(place, tmp_path):
    made = Box(tmp_path / "box", place.url, place.root, soak=600.0)
    made.now = place.now
    made.once()
    made.once(601)
    return made


def says(box):
    return box.told


def test_a_release_under_which_the_canary_turns_red_is_given_up_and_remembered(place, box):
    place.write("ads.list", "bad.example")
    place.now = box.now
    assert place.publish() == 0
    box.once()
    assert box.has() == {"ads.list": "bad.example\n"} and says(box)["watched_until"] == int(box.now + 600)
    box.health = RED
    box.once(5)
    assert box.has() == {"ads.list": "ads.example\n"}
    assert says(box)["bad"] == "targets:3" and says(box)["waiting"] == "bad" and says(box)["taken"] == 2
    assert "a listed name passes" in says(box)["why"]
    box.health = Health()
    box.start()
    assert box.once(DAY_AFTER).files is None and says(box)["taken"] == 2 and says(box)["wanted"] == 3
    place.write("ads.list", "better.example")
    place.now = box.now
    assert place.publish() == 0
    box.once(1)
    assert box.has() == {"ads.list": "better.example\n"}


DAY_AFTER = 86_400.0


def test_a_release_is_given_up_while_the_repository_is_down(place, box):
    place.write("ads.list", "bad.example")
    assert place.publish() == 0
    box.once()
    place.server.instead["json"] = lambda handler: handler.send_error(503)
    box.health = RED
    box.once(5)
    assert box.has() == {"ads.list": "ads.example\n"}
    assert "503" in box.told["problems"]


def test_a_box_whose_canary_is_red_already_takes_nothing_and_blames_no_release(place, box):
    box.health = RED
    place.write("ads.list", "good.example")
    assert place.publish() == 0
    assert box.once().files is None
    assert says(box)["waiting"] == "health" and says(box)["bad"] == "" and says(box)["wanted"] == 3
    box.health = Health(absent="no edgeblock is running here")
    assert box.once().files is None and "no edgeblock is running" in says(box)["why"]
    box.health = Health()
    box.once()
    assert box.has() == {"ads.list": "good.example\n"}


def test_a_list_that_the_daemon_refuses_gives_the_release_up(place, box):
    place.write("ads.list", "bad.example")
    assert place.publish() == 0
    box.once()
    box.health = Health(refused={"other": "too long"})
    assert box.once(5).files is None         # of somebody else
    box.health = Health(refused={"ads": "cannot be used (max_growth)"})
    box.once(5)
    assert box.has() == {"ads.list": "ads.example\n"} and "max_growth" in says(box)["why"]


def test_what_was_refused_before_counts_once_the_daemon_had_time_to_say_otherwise(place, box):
    box.health = Health(refused={"ads": "too long"})
    place.write("ads.list", "good.example")
    assert place.publish() == 0
    box.once()
    assert box.once(5).files is None and says(box)["taken"] == 3
    box.once(GRACE)
    assert says(box)["taken"] == 2


def test_a_daemon_that_is_gone_since_a_release_landed_gives_it_up_but_a_restart_does_not(place, box):
    place.write("ads.list", "bad.example")
    assert place.publish() == 0
    box.once()
    box.health = Health(absent="no edgeblock is running here")
    assert box.once(10).files is None
    box.health = Health()
    assert box.once(10).files is None and says(box)["taken"] == 3
    box.health = Health(absent="no edgeblock is running here")
    box.once(GRACE)
    assert says(box)["taken"] == 2 and box.has() == {"ads.list": "ads.example\n"}


def test_what_was_watched_long_enough_is_good_and_stays_when_the_canary_turns_red_later(place, box):
    place.write("ads.list", "good.example")
    assert place.publish() == 0
    box.once()
    box.once(601)
    box.health = RED
    assert box.once(5).files is None and says(box)["taken"] == 3 and says(box)["watched_until"] == 0


def test_hold_withdraw_and_roll_back_are_one_publish_each(place, box):
    for number in (3, 4):
        place.write("ads.list", f"number-{number}.example")
        place.now = box.now
        assert place.publish() == 0
        if number == 4:
            assert place.run("hold", place.site, 4, "--why", "shop.example is blocked") == 0
        box.once(1)
        box.once(601)
    assert says(box)["taken"] == 3 and says(box)["held"] and says(box)["why"] == "shop.example is blocked"
    assert place.run("hold", place.site, 4, "--off") == 0
    box.once(1)
    assert says(box)["taken"] == 4
    place.now = box.now
    assert place.run("rollback", place.site, 2) == 0
    box.once(1)
    assert says(box)["taken"] == 2 and box.has() == {"ads.list": "ads.example\n"}
    place.write("ads.list", "number-5.example")
    assert place.publish() == 0
    box.once(601)
    box.once(1)
    assert box.has() == {"ads.list": "number-5.example\n"}
    place.now = box.now + 1
    assert place.run("withdraw", place.site, says(box)["taken"], "--why", "wrong list") == 0
    box.once(2)
    assert says(box)["taken"] == 2


@pytest.mark.parametrize("problem", [TimeoutError(), ChildProcessError("it ended with status -9")])
def test_a_release_that_cannot_be_tried_is_neither_taken_nor_given_up(place, box, monkeypatch, problem):
    async def failing(*_):
        raise problem

    box.settings = box.settings.__class__(**{**vars(box.settings), "trial": 60.0})
    box.start()
    place.write("ads.list", "good.example")
    assert place.publish() == 0
    with monkeypatch.context() as patched, pytest.raises(SourceError, match="to be tried|cannot be tried"):
        patched.setattr(trial, "tried", failing)
        box.once()
    assert box.has() == {"ads.list": "ads.example\n"}
    box.once()
    assert box.has() == {"ads.list": "good.example\n"} and says(box)["bad"] == ""


def test_the_trial_ends_in_time_and_says_when_it_could_not_be_made(tmp_path):
    (tmp_path / "ads.list").write_text("google.com\n")
    with pytest.raises(TimeoutError):
        asyncio.run(trial.tried(tmp_path, None, 0.01))
    bad = tmp_path / "bad.toml"
    bad.write_text("[moon]\n")
    with pytest.raises(OSError, match="moon"):
        asyncio.run(trial.tried(tmp_path, bad, 60))
    [(file, why)] = asyncio.run(trial.tried(tmp_path, None, 60))
    assert file == "ads.list" and "google" not in why and "allow_protected" in why


def poisoned(place, sort, tmp_path):
    """Publishes a release that no box should keep, whatever the guard rails of the publisher say; what boxes need to
    see it."""
    configuration = tmp_path / "edgeblock.toml"
    configuration.write_text("")
    if sort == "protected name":
        place.write("ads.list", "ads.example", "google.com")
    elif sort == "over-wide address":
        place.write("ads.list", "ads.example", "16.0.0.0/6")
    elif sort == "broken signature":
        signer = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
        configuration.write_text(f'[rules]\nrequire_signatures = true\nsigners = ["{signer}"]\n')
        place.write("ads.list", "ads.example", "other.example")
        place.write("ads.list.minisig", "untrusted comment: none", "AAAA")
    else:
        place.write("ads.list", "ads.example", "harmless.example")
    assert place.publish("--force", rings="canary=0,early=1h,all=4h") == 0
    return configuration


@pytest.mark.parametrize("sort", ["protected name", "over-wide address", "broken signature", "turns the canary red"])
def test_a_poisoned_release_stops_in_the_first_ring(place, tmp_path, sort):
    """One canary, two early boxes and seventeen others; a watch that reads what the boxes say."""
    rings = ["canary", "early", "early", *["all"] * 17]
    boxes = [Box(tmp_path / f"box-{number}", place.url, place.root, ring, soak=600.0, trial=60.0)
             for number, ring in enumerate(rings)]
    for box in boxes:
        box.now = place.now
        box.settings = box.settings.__class__(**{**vars(box.settings), "trial": 0.0})
        box.start()
        box.once()
    configuration = poisoned(place, sort, tmp_path)
    for box in boxes:
        box.now += 601
        box.settings = box.settings.__class__(**{**vars(box.settings), "trial": 60.0, "config": configuration})
        box.start()
    canary, *others = boxes
    canary.once()
    if sort == "turns the canary red":
        assert "harmless" in canary.has()["ads.list"]
        canary.health = RED
        canary.once(5)
    assert canary.has() == {"ads.list": "ads.example\n"} and says(canary)["bad"] == "targets:3"
    reasons = says(canary)["why"]
    assert "google" not in reasons and reasons.startswith(("would be refused here: ads.list", "the canary is red"))

    metrics = tmp_path / "metrics"
    metrics.write_text("\n".join(
        f'edgeblock_fetch_release_bad{{authority="targets",version="{version}",box="{box.folder.name}"}} 1'
        for box in boxes if box.told for version in re.findall(r"targets:(\d+)", says(box)["bad"])) + "\n")
    assert place.run("watch", place.site, "--metrics", metrics) == 0
    for box in others:
        if box.source.ring == "early":
            box.once(2 * HOUR)
        box.once(12 * HOUR)
        assert box.has() == {"ads.list": "ads.example\n"} and says(box)["waiting"] == "hold", box.folder
        assert says(box)["why"] == "bad on box-0"
    if sort != "turns the canary red":
        return
    place.write("ads.list", "good.example")
    place.now = time.time()
    assert place.publish() == 0
    canary.health = Health()

    async def all_ask():
        await asyncio.gather(*(box.ask() for box in boxes))

    began = time.monotonic()
    asyncio.run(all_ask())
    assert time.monotonic() - began < 60
    assert all(box.has() == {"ads.list": "good.example\n"} for box in boxes)


def test_twenty_boxes_follow_the_rings_and_are_there_within_a_minute(place, tmp_path):
    """Each asks, waits and asks again by itself, as edgeblock-fetch does."""
    rings = ["canary", "canary", *["early"] * 5, *["all"] * 13]
    random.Random(7).shuffle(rings)
    boxes = [Box(tmp_path / f"box-{number}", place.url, place.root, ring) for number, ring in enumerate(rings)]
    old, new = {"ads.list": "ads.example\n"}, {"ads.list": "new.example\n"}

    async def keep(box, every):
        while True:
            await box.ask()
            await box.source.wait(every)

    async def until(condition):
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < 60
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    def having(files):
        return {ring for ring in ("canary", "early", "all")
                if all(box.has() == files for box in boxes if box.source.ring == ring)}

    async def play():
        for box in boxes:
            box.now = place.now
        tasks = [asyncio.create_task(keep(box, 0.4)) for box in boxes]
        await until(lambda: all(box.has() == old for box in boxes))
        for box in boxes:
            box.now += 1000
        place.write("ads.list", "new.example")
        place.now += 1000
        assert place.publish(rings="canary=0,early=1h,all=4h..5h") == 0
        await until(lambda: having(new) == {"canary"} and having(old) == {"early", "all"})
        for box in boxes:
            box.now += HOUR
        await until(lambda: having(new) == {"canary", "early"} and having(old) == {"all"})
        for box in boxes:
            box.now += 3.5 * HOUR
        half = {box.folder.name for box in boxes if box.source.ring != "all"
                or share_of(box.folder.name, "targets", 3) < 50}
        await until(lambda: {box.folder.name for box in boxes if box.has() == new} == half)
        some = sum(box.has() == new for box in boxes if box.source.ring == "all")
        for box in boxes:
            box.now += HOUR
        took = await until(lambda: all(box.has() == new for box in boxes))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return some, took

    some, took = asyncio.run(play())
    assert 0 < some < 13 and took < 60
