"""Windows that open and close while the clock goes on, is set forwards, or back."""

import time
from datetime import UTC, datetime

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.snapshot import open_snapshot
from edgeblock.blocklist.terms import ALWAYS, NEVER, WEEKLY_MAX, Window, parse_weekly, zone_names
from edgeblock.blocklist.timetable import SETS_MAX
from edgeblock.daemon.windows import LINES, Calendar, Span, Turn, Windows, spans_of
from tests.blocklist.making import KEY, snapshot_of
from tests.daemon.parts import Log

HOUR, DAY = 3600, 86400
SAT = parse_weekly("sat 14:45-17:30 Europe/London")
NIGHT = parse_weekly("mon-fri 22:00-06:00 UTC")


def at(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def test_what_turns_between_two_looks():
    calendar = Calendar([Span("a", Window(100, 200), 3), Span("a", Window(150), 1), Span("b", Window(ends=200), 2),
                         Span("b", Window(300, 400), 1, whole=True)])
    assert calendar.look(0, 99.9) == {}
    assert calendar.look(99.9, 100) == {"a": Turn(opened=3)}
    assert calendar.look(100, 150.2) == {"a": Turn(opened=1)}
    assert calendar.look(150.2, 250) == {"a": Turn(closed=3), "b": Turn(closed=2)}
    assert calendar.look(250, 300) == {"b": Turn(whole=1)}
    assert calendar.look(300, 400) == {"b": Turn(whole=-1)}
    assert calendar.look(400, 400) == {}


def test_a_clock_set_back_opens_what_had_closed():
    calendar = Calendar([Span("a", Window(100, 200), 3), Span("a", Window(weekly=(SAT,)), 1)])
    assert calendar.look(150, 250) == {"a": Turn(closed=3)}
    assert calendar.look(250, 150) == {"a": Turn(opened=3)}
    assert calendar.look(150, 50) == {"a": Turn(closed=3)}


def test_weekly_windows_follow_their_own_zone_over_a_change_of_its_clocks():
    # London's clocks go back on 2026-10-25: the Saturday before is BST, the one after GMT.
    calendar = Calendar([Span("a", Window(weekly=(SAT,)), 2)])
    turned, now = [], at("2026-10-23T00:00")
    while now < at("2026-11-02T00:00"):
        for name, turn in calendar.look(now, now + 60).items():
            turned.append((name, turn.opened, turn.closed, datetime.fromtimestamp(now + 60, UTC).isoformat()[:16]))
        now += 60
    assert turned == [("a", 2, 0, "2026-10-24T13:45"), ("a", 0, 2, "2026-10-24T16:30"),
                      ("a", 2, 0, "2026-10-31T14:45"), ("a", 0, 2, "2026-10-31T17:30")]


def test_what_repeats_between_a_begin_and_an_end():
    begins, ends = at("2026-12-05T15:00"), at("2026-12-12T15:00")       # two Saturdays
    calendar = Calendar([Span("a", Window(begins, ends, (SAT,)), 5), Span("a", Window(weekly=(SAT,)), 1)])
    moments = ["2026-12-05T14:44", "2026-12-05T14:45", "2026-12-05T15:00", "2026-12-05T17:30", "2026-12-12T14:45",
               "2026-12-12T15:00", "2026-12-12T17:30", "2026-12-19T14:45"]
    turned = [calendar.look(at(one), at(other)).get("a", Turn()) for one, other in zip(moments, moments[1:],
                                                                                    strict=False)]
    assert [(turn.opened, turn.closed) for turn in turned] == [
        (1, 0), (5, 0), (0, 6), (6, 0), (0, 5), (0, 1), (1, 0)]


MOMENTS = st.integers(min_value=int(at("2026-10-20T00:00")), max_value=int(at("2026-11-05T00:00")))
WINDOWS = st.builds(Window, MOMENTS | st.just(ALWAYS), MOMENTS | st.just(NEVER),
                    st.sampled_from([(), (SAT,), (NIGHT,), (SAT, NIGHT)])).filter(lambda one: one.begins < one.ends)


@given(st.lists(WINDOWS, min_size=1, max_size=5), st.lists(MOMENTS, min_size=2, max_size=8))
def test_whoever_adds_up_what_turned_knows_how_many_hold(windows, moments):
    """However the clock is set."""
    calendar = Calendar([Span("a", one, 1) for one in windows])
    before = moments[0]
    held = sum(one.holds(before) for one in windows)
    for now in moments[1:]:
        turn = calendar.look(before, now).get("a", Turn())
        held += turn.opened - turn.closed
        assert held == sum(one.holds(now) for one in windows)
        before = now


def test_the_log_has_a_line_for_each_list_and_no_flood():
    log = Log()
    windows = Windows(log, at("2026-11-30T00:00"))
    windows.take(Calendar([Span(f"l{number:03}", Window(at("2026-12-01T00:00")), 2) for number in range(LINES + 9)]),
                 at("2026-11-30T00:00"))
    assert len(windows.look(at("2026-12-01T00:00"))) == LINES + 9
    assert log.said == [("window opened", {"list": f"l{number:03}", "entries": 2, "whole_list": False})
                        for number in range(LINES)]
    windows._minute -= 61
    windows.look(at("2026-11-30T00:00"))
    assert log.said[LINES] == ("more windows opened or closed", {"lists": 9})
    assert log.said[LINES + 1] == ("window closed", {"list": "l000", "entries": 2, "whole_list": False})


def test_whoever_acts_hears_of_it_in_time(monkeypatch):
    clock = [at("2026-12-01T00:00")]
    monkeypatch.setattr("edgeblock.daemon.windows.time.time", lambda: clock[0])
    windows = Windows(Log(), clock[0])
    windows.take(Calendar([Span("a", Window(clock[0] + HOUR), 1)]), clock[0])
    heard = []

    class Enough(Exception):
        pass

    async def act(lists):
        heard.append((lists, time.monotonic()))
        raise Enough

    clock[0] += HOUR            # the clock is set forwards by an hour
    began = time.monotonic()
    with pytest.raises(Enough):
        uvloop.run(windows.keep(act))
    assert heard[0][0].keys() == {"a"} and heard[0][1] - began < 0.5


@pytest.mark.parametrize("count", [100_000])
def test_a_look_costs_what_turns_and_not_what_there_is(count):
    """A hundred thousand windows, of which one opens a second; and 4000 that repeat."""
    weekly = [parse_weekly(f"sun {minute // 60:02}:{minute % 60:02}-{minute // 60 + 1:02}:{minute % 60:02} UTC")
              for minute in range(1000)]
    now = at("2026-12-01T00:00")
    calendar = Calendar([*(Span("a", Window(int(now) + number), 1) for number in range(count)),
                         *(Span("b", Window(weekly=(one,)), 1) for one in weekly)])
    calendar.look(now - 1, now)
    began = time.process_time()
    opened = sum(calendar.look(now + number, now + number + 1)["a"].opened for number in range(1000))
    assert opened == 1000 and time.process_time() - began < 0.5


def test_a_look_is_short_and_the_next_goes_on(monkeypatch):
    """Where more is due than there is time for, each look does one at least, the one that is due for longest first;
    nothing is lost, and whoever adds up what turned is right in the end."""
    monkeypatch.setattr("edgeblock.daemon.windows.LOOK_MAX", 0)
    windows = [Window(weekly=(parse_weekly(f"sat 10:{minute}-11:00 UTC"),)) for minute in range(10, 60)]
    late, early = at("2026-12-05T10:59"), at("2026-12-05T09:00")
    for calendar in (Calendar([Span("a", one, 1) for one in windows]),
                     Calendar([Span("a", one, 1) for one in windows], early)):
        opened, before, looks = 0, early, 0
        while opened < len(windows):
            turn = calendar.look(before, now := late + looks * 0.25).get("a", Turn())
            assert turn.opened <= 1
            opened, before, looks = opened + turn.opened, now, looks + 1
        assert looks == len(windows)
        # Over the hour, and back before all have been looked at: those alone that had closed open.
        over = before + 120
        closed = sum(calendar.look(over + step - 1, over + step)["a"].closed for step in range(10))
        reopened = [calendar.look(over + 9, before), *(calendar.look(before + step / 4, before + (step + 1) / 4)
                                                       for step in range(len(windows) - 1))]
        assert closed == 10 == sum(turns["a"].opened for turns in reopened if turns)


def test_windows_count_from_the_last_look_on():
    """What opens while the calendar is made is said."""
    now = at("2026-12-05T14:44")
    windows = Windows(Log(), now)
    since = windows.since(now + 90)
    windows.take(Calendar([Span("a", Window(weekly=(SAT,)), 1), Span("b", Window(now + 30), 1)], since), since)
    assert windows.look(now + 100) == {"a": Turn(opened=1), "b": Turn(opened=1)}
    assert windows.look(now + 200) == {}


@pytest.mark.parametrize("made", [True, False])
def test_most_sets_in_many_lists_do_not_hold_the_loop(made):
    """Zones, days and times of all kinds, at a moment at which clocks are set; the first look, and one set back."""
    zones = sorted(zone_names())
    now = at("2026-10-25T01:00")

    def one(number, i):
        begin = (number * 7 + i * 61) % 1380
        return parse_weekly(f"{'mon-sun' if i % 2 else 'sun'} {begin // 60:02}:{begin % 60:02}-{begin // 60 + 1:02}:"
                            f"{begin % 60:02} {zones[(number + i) % len(zones)]}")

    spans = [Span(f"l{number // SETS_MAX}", Window(weekly=tuple(one(number, i) for i in range(WEEKLY_MAX))), 1)
             for number in range(8 * SETS_MAX)]
    calendar = Calendar(spans, now - 1 if made else None)
    for before, after in ((now - 1, now), (now, now + 60), (now + 60, now - 60)):
        began = time.thread_time()
        calendar.look(before, after)
        assert time.thread_time() - began < 0.05


def test_windows_are_those_of_the_snapshot():
    settings = ListSettings(until=500, weekly=(SAT,))
    snapshot = open_snapshot(snapshot_of(
        ("a", None, ["a.example from=1970-01-01T00:01:40Z until=1970-01-01T00:03:20Z", "b.example reference=x",
                     "c.example from=1970-01-01T00:01:40Z until=1970-01-01T00:03:20Z",
                     'd.example weekly="sat 14:45-17:30 Europe/London"', "e.example"]),
        ("b", settings, ["a.example"])), KEY)
    assert sorted(spans_of(snapshot)) == sorted([
        Span("a", Window(100, 200), 2), Span("a", Window(weekly=(SAT,)), 1),
        Span("b", Window(ends=500, weekly=(SAT,)), 1, whole=True)])
