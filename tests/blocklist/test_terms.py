"""Times, windows and clocks: what people write, and which moments that means."""

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeblock.blocklist.terms import (
    ALWAYS,
    DAY,
    EPOCH,
    NEVER,
    BadTerm,
    Weekly,
    Window,
    moment,
    parse_time,
    parse_weeklies,
    parse_weekly,
    read_terms,
    shown_time,
    zone_names,
    zone_of,
)

LONDON, NEW_YORK, SYDNEY, SANTIAGO = "Europe/London", "America/New_York", "Australia/Sydney", "America/Santiago"
ZONES = (LONDON, NEW_YORK, SYDNEY, SANTIAGO, "UTC", "Asia/Kathmandu", "Pacific/Apia", "Australia/Lord_Howe")
WEEK = 7 * 86_400


def utc(*when):
    return int(datetime(*when, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(("text", "at"), [
    ("2026-12-01T14:45:00+01:00", utc(2026, 12, 1, 13, 45)), ("2026-12-01T14:45:00Z", utc(2026, 12, 1, 14, 45)),
    ("2026-12-01t14:45:00.999z", utc(2026, 12, 1, 14, 45)), ("2026-12-01 14:45:00-05:30", utc(2026, 12, 1, 20, 15)),
    ("2026-12-01T14:45Z", utc(2026, 12, 1, 14, 45)), ("2026-12-31", utc(2026, 12, 31)),
    ("2016-12-31T23:59:60Z", utc(2017, 1, 1)), ("2026-07-01 Europe/London", utc(2026, 6, 30, 23)),
    ("2026-07-01 18:00 America/New_York", utc(2026, 7, 1, 22)), ("2026-01-01T00:00 Australia/Sydney",
                                                                  utc(2025, 12, 31, 13)),
    ("2026-03-29 01:30 Europe/London", utc(2026, 3, 29, 1)),            # no clock shows it: they go on at two
    ("2026-03-08 02:30 America/New_York", utc(2026, 3, 8, 7)),
    ("9999-12-31T23:59:59-23:59", utc(9999, 12, 31, 23, 59, 59) + 86_340), ("0001-01-01", utc(1, 1, 1)),
    ("2026-12-31Z", utc(2026, 12, 31)),
])
def test_a_time(text, at):
    assert parse_time(text) == at == parse_time(text, last=True)


def test_what_a_clock_shows_twice_begins_at_first_and_ends_at_last():
    for text, first in (("2026-10-25 01:30 Europe/London", utc(2026, 10, 25, 0, 30)),
                        ("2026-11-01 01:30 America/New_York", utc(2026, 11, 1, 5, 30)),
                        ("2026-04-05 02:30 Australia/Sydney", utc(2026, 4, 4, 15, 30))):
        assert (parse_time(text), parse_time(text, last=True)) == (first, first + 3600)
    assert read_terms((("from", "2026-10-25 01:30 Europe/London"), ("until", "2026-10-25 01:30 Europe/London"))
                      ).window == Window(utc(2026, 10, 25, 0, 30), utc(2026, 10, 25, 1, 30))


@pytest.mark.parametrize(("text", "why"), [
    ("sat 10:00-12:00 UTC, sun 10:00-12:00 UTC", 'and ";" between several'),
    ("saturday 10:00-12:00 UTC", "has no days but 'saturday'; write sat"),
    ("monday-friday,Sunday 10:00-12:00 UTC", "write mon-fri,sun"), ("daily 10:00-12:00 UTC", "write mon-sun"),
    ("noday 10:00-12:00 UTC", "write mon, tue, wed"),
])
def test_no_weekly_window_and_how_it_is_written(text, why):
    with pytest.raises(BadTerm) as problem:
        parse_weeklies(text)
    assert why in str(problem.value) and str(problem.value).isprintable()


@pytest.mark.parametrize(("text", "why"), [
    ("", "is no time"), ("soon", "is no time"), ("2026", "is no time"), ("2026-13-01", "there is no 2026-13-01"),
    ("2026-02-29", "there is no 2026-02-29"), ("0000-01-01", "there is no 0000-01-01"),
    ("2026-12-01T25:00Z", "no clock shows 25:00"), ("2026-12-01T10:61Z", "no clock shows"),
    ("2026-12-01T10:00", "has no zone; write 2026-12-01T10:00Z"), ("99999-01-01", "is no time"),
    ("2026-12-01 ../../etc/passwd", "has no zone that this system knows"), ("2026-12-01 /etc/passwd", "has no zone"),
    ("2026-12-01 europe/london", "did you mean Europe/London?"), ("2026-12-01 localtime", "has no zone"),
    ("2026-12-01 Europe/Londn", "did you mean Europe/London?"), ("2026-12-01T10:00+25:00", "no zone is +25:00"),
    ("9999-12-31 Europe/London", "nobody knows the clocks"), ("20261201" * 100, "is no time"),
    ("9223372036854775808", "is no time"), ("\u0662\u0660\u0662\u0666-12-01", "is no time"),
    ("2026-12-01 " + "\u202e" * 20, "has no zone"),
])
def test_no_time(text, why):
    with pytest.raises(BadTerm) as problem:
        parse_time(text)
    assert why in str(problem.value) and "\n" not in str(problem.value) and len(str(problem.value)) < 400
    assert str(problem.value).isprintable()


@pytest.mark.parametrize(("text", "said"), [
    ("sat 14:45-17:30 Europe/London", "sat 14:45-17:30 Europe/London"),
    ("MON-fri  22:00-06:00   UTC", "mon-fri 22:00-06:00 UTC"), ("sat,sun 00:00-24:00 UTC", "sat,sun 00:00-24:00 UTC"),
    ("sun,sat,sat 1:00-2:00 UTC", None), ("fri-mon 10:00-12:00 UTC", "mon,fri-sun 10:00-12:00 UTC"),
    ("mon,wed-fri 10:00-12:00 UTC", "mon,wed-fri 10:00-12:00 UTC"), ("sat 10:00-10:00 UTC", None),
    ("sat 24:00-10:00 UTC", None), ("sat 10:00-24:01 UTC", None), ("sat 10:00-10:60 UTC", None),
    ("sat 10:00-12:00", None),
    ("saturday 10:00-12:00 UTC", None), ("sat 10:00-12:00 Mars/Base", None), ("", None), ("sat" * 1000, None),
    ("sat 10:00-12:00 ../UTC", None), ("sat, sun 10:00-12:00 UTC", None), ("mon- 10:00-12:00 UTC", None),
])
def test_a_weekly_window(text, said):
    if said is None:
        with pytest.raises(BadTerm) as problem:
            parse_weekly(text)
        assert len(str(problem.value)) < 300
    else:
        assert str(parse_weekly(text)) == said and parse_weekly(said) == parse_weekly(text)


def test_several_weekly_windows():
    assert len(parse_weeklies("sat 10:00-12:00 UTC; sun 10:00-12:00 UTC;sat 10:00-12:00 UTC")) == 2
    with pytest.raises(BadTerm, match="more than 16"):
        parse_weeklies([f"sat 10:{minute}-12:00 UTC" for minute in range(10, 30)])


# Where clocks are set: what holds is said by hand.

@pytest.mark.parametrize(("text", "spans"), [
    # forward: over, in, into and from the hour that is not there; back: the same of the one that is there twice
    ("sun 00:30-03:00 Europe/London", [(utc(2026, 3, 29, 0, 30), utc(2026, 3, 29, 2)),
                                       (utc(2026, 10, 25) - 1800, utc(2026, 10, 25, 3))]),
    ("sun 01:10-01:50 Europe/London", [None, (utc(2026, 10, 25, 0, 10), utc(2026, 10, 25, 1, 50))]),
    ("sun 00:30-01:30 Europe/London", [(utc(2026, 3, 29, 0, 30), utc(2026, 3, 29, 1)),
                                       (utc(2026, 10, 24, 23, 30), utc(2026, 10, 25, 1, 30))]),
    ("sun 01:30-02:30 Europe/London", [(utc(2026, 3, 29, 1), utc(2026, 3, 29, 1, 30)),
                                       (utc(2026, 10, 25, 0, 30), utc(2026, 10, 25, 2, 30))]),
    ("sat 22:00-06:00 America/New_York", [(utc(2026, 3, 8, 3), utc(2026, 3, 8, 10)),
                                          (utc(2026, 11, 1, 2), utc(2026, 11, 1, 11))]),
    ("sat 23:00-04:00 Australia/Sydney", [(utc(2026, 10, 3, 13), utc(2026, 10, 3, 17)),
                                          (utc(2026, 4, 4, 12), utc(2026, 4, 4, 18))]),
    ("sun 00:00-24:00 America/Santiago", [(utc(2026, 9, 6, 4), utc(2026, 9, 7, 3)),
                                          (utc(2026, 4, 5, 4), utc(2026, 4, 6, 4))]),
])
def test_where_clocks_are_set(text, spans):
    weekly = parse_weekly(text)
    for span, day in zip(spans, {LONDON: ((3, 29), (10, 25)), NEW_YORK: ((3, 8), (11, 1)), SYDNEY: ((10, 4), (4, 5)),
                                 SANTIAGO: ((9, 6), (4, 5))}[weekly.zone], strict=True):
        around = utc(2026, *day)
        found = [one for one in weekly.occurrences(around - 2 * 86_400, around + 2 * 86_400)]
        assert found == ([span] if span else [])
        if span:
            for moment in (span[0] - 1, span[0], span[1] - 1, span[1]):
                assert Window(weekly=(weekly,)).holds(moment) == (span[0] <= moment < span[1])


MINUTE = st.integers(0, 1439)
DAYS = st.sets(st.integers(0, 6), min_size=1).map(lambda days: tuple(sorted(days)))
WEEKLY = st.builds(Weekly, DAYS, MINUTE, st.integers(1, 1440), st.sampled_from(ZONES)).filter(
    lambda one: one.begin != one.end)


@given(WEEKLY)
def test_a_weekly_window_comes_back_as_it_went(weekly):
    assert parse_weekly(str(weekly)) == weekly


@given(st.lists(WEEKLY, min_size=1, max_size=3), st.integers(utc(2010, 1, 1), utc(2040, 1, 1)),
       st.none() | st.integers(0, 4 * WEEK), st.none() | st.integers(0, 4 * WEEK))
def test_nothing_changes_before_the_next_change(weekly, now, before, after):
    begins = ALWAYS if before is None else now + 2 * WEEK - before
    ends = NEVER if after is None else now - 2 * WEEK + after
    window = Window(begins, ends, tuple(weekly))
    change = window.next_change(now)
    if change is None:
        assert all(window.holds(now) == window.holds(now + step) for step in range(0, 5 * WEEK, 4001))
        return
    assert change > now and window.holds(change) != window.holds(change - 1) == window.holds(now)
    assert all(window.holds(now) == window.holds(moment) for moment in range(now, change, 4001))


@given(st.lists(WEEKLY, min_size=1, max_size=2), st.integers(utc(2025, 1, 1), utc(2028, 1, 1)))
def test_a_window_holds_as_clocks_show(weekly, now):
    """Where no clock is set within two days, it is what a person would say who looks at the clock."""
    def shows(one):
        here = datetime.fromtimestamp(now, UTC).astimezone(UTC if one.zone == "UTC" else ZoneInfo(one.zone))
        minute = here.hour * 60 + here.minute
        if one.begin < one.end:
            return here.weekday() in one.days and one.begin <= minute < one.end
        return here.weekday() in one.days and minute >= one.begin or \
            (here.weekday() - 1) % 7 in one.days and minute < one.end

    steady = all(len({datetime.fromtimestamp(now + step, UTC).astimezone(ZoneInfo(one.zone)).utcoffset()
                      for step in range(-2 * 86_400, 2 * 86_400 + 1, 6 * 3600)}) == 1 for one in weekly)
    if steady:
        assert Window(weekly=tuple(weekly)).holds(now) == any(map(shows, weekly))


@given(st.integers(-10 ** 11, 10 ** 12), st.lists(WEEKLY, max_size=1))
def test_no_moment_is_too_far(now, weekly):
    window = Window(weekly=tuple(weekly))
    window.holds(now)
    change = window.next_change(now)
    assert change is None or change > now
    assert shown_time(now)
    for odd in (1e300, -1e300, float(2 ** 63), 0.5):
        assert isinstance(Window(weekly=tuple(weekly)).holds(odd), bool)


class Slow:
    """The same by every day and the clock of each moment, as plain as can be."""

    @staticmethod
    def occurrences(one, start, end):
        for day in range(EPOCH + start // DAY - 3, EPOCH + end // DAY + 4):
            if (day - 1) % 7 in one.days:
                midnight, zone = datetime.fromordinal(day), zone_of(one.zone)
                span = (moment(midnight + timedelta(minutes=one.begin), zone),
                        moment(midnight + timedelta(minutes=one.begin + one.minutes), zone, last=True))
                if span[0] < span[1] and span[0] < end and start < span[1]:
                    yield span

    @classmethod
    def spans(cls, window, start, end):
        made = []
        for begin, until in sorted(span for one in window.weekly for span in cls.occurrences(one, start, end)):
            begin, until = max(begin, window.begins), min(until, window.ends)
            if begin < until and begin < end and until > start:
                if made and begin <= made[-1][1]:
                    made[-1] = made[-1][0], max(made[-1][1], until)
                else:
                    made.append((begin, until))
        return made

    @classmethod
    def holds(cls, window, now):
        return any(begin <= now < end for begin, end in cls.spans(window, now, now + 1))

    @classmethod
    def next_change(cls, window, now):
        if now >= window.ends:
            return None
        start = max(now, window.begins)
        end = start + 3 * WEEK
        for begin, until in cls.spans(window, start - DAY, end):
            if begin > now:
                return begin
            if until > now:
                return until if until < end or until == window.ends else None if window.ends == NEVER else window.ends
        return None


# Where clocks are set, by an hour, by half of one and by a day, at night, at midnight and twice in a month.
SET = [utc(2026, 3, 29, 1), utc(2026, 10, 25, 1), utc(2026, 3, 8, 7), utc(2026, 11, 1, 6), utc(2026, 4, 4, 15),
       utc(2026, 10, 3, 15, 30), utc(2026, 9, 6, 4), utc(2026, 4, 5, 3), utc(2011, 12, 30, 10), utc(2026, 2, 15, 2),
       utc(2026, 3, 22, 2)]
SET_IN = (*ZONES, "Africa/Casablanca", "Europe/Dublin", "Antarctica/Troll")
SHOWN = st.sampled_from((60, 90, 120, 150, 180, 1439)) | MINUTE


@settings(max_examples=300)
@given(st.lists(st.builds(Weekly, DAYS, SHOWN, SHOWN.filter(bool) | st.just(1440), st.sampled_from(SET_IN)).filter(
    lambda one: one.begin != one.end), min_size=1, max_size=3),
    st.sampled_from(SET), st.sampled_from((-3600, -1800, -1, 0, 1, 3600)) | st.integers(-4 * DAY, 4 * DAY),
    st.none() | st.integers(-WEEK, WEEK), st.none() | st.integers(-WEEK, 4 * WEEK))
def test_what_is_quick_is_what_is_slow(weekly, around, step, begins, ends):
    now = around + step
    window = Window(ALWAYS if begins is None else around + begins, NEVER if ends is None else around + ends,
                    tuple(weekly))
    assert window.holds(now) == Slow.holds(window, now)
    assert window.next_change(now) == Slow.next_change(window, now)
    assert list(window.spans(now - DAY, now + 9 * DAY)) == Slow.spans(window, now - DAY, now + 9 * DAY)


def test_a_window_that_never_opens():
    assert not Window(10, 10).opens() and not Window(11, 10).opens() and Window(10, 11).opens()
    saturday = (parse_weekly("sat 10:00-12:00 UTC"),)
    monday = utc(2026, 11, 30)
    assert not Window(monday, monday + 3 * 86_400, saturday).opens()
    assert Window(monday, monday + 6 * 86_400, saturday).opens() and Window(weekly=saturday).opens()
    # The hour that is not there: never in that week, but in the next.
    gap = (parse_weekly("sun 01:10-01:50 Europe/London"),)
    assert not Window(utc(2026, 3, 28), utc(2026, 3, 30), gap).opens() and Window(weekly=gap).opens()


def test_whole_days_one_after_the_other_never_end():
    window = Window(weekly=parse_weeklies("mon-sun 00:00-24:00 Europe/London"))
    start = utc(2026, 1, 1)
    assert window.next_change(start) is None
    assert all(window.holds(start + step) for step in range(0, 53 * WEEK, 3599))


def test_terms_of_attributes():
    terms = read_terms((("authority", "High Court"), ("from", "2026-01-01"), ("order", "No. 12"), ("other", "x"),
                        ("until", "2026-02-01"), ("weekly", "sat 10:00-12:00 UTC; sun 10:00-11:00 UTC")))
    assert terms.window == Window(utc(2026, 1, 1), utc(2026, 2, 1), parse_weeklies(
        ["sat 10:00-12:00 UTC", "sun 10:00-11:00 UTC"])) and not terms.ech
    assert terms.order == (("authority", "High Court"), ("order", "No. 12"))
    assert read_terms((("other", "x"),)) is None and read_terms((("ech", "only"),)).ech
    both = read_terms((("from", "2026-01-01"), ("valid_from", "2026-01-05"), ("until", "2026-02-01"),
                       ("valid_until", "2026-01-20")))
    assert both.window == Window(utc(2026, 1, 5), utc(2026, 1, 20))
    for attributes in ((("until", "x"),), (("weekly", "x"),), (("ech", "yes"),), (("order", "a\u202eb"),)):
        with pytest.raises(BadTerm, match=f"has {attributes[0][0]}="):
            read_terms(attributes)


def test_zones_are_those_of_the_database_alone():
    assert LONDON in zone_names() and "UTC" in zone_names() and "localtime" not in zone_names()
    assert not [name for name in zone_names() if name.startswith(("/", ".")) or ".." in name]


def test_a_year_of_every_zone_is_quick():
    """What a box has to know of a zone is read in a moment, whatever lists name."""
    dice = random.Random(1)
    weekly = [Weekly((dice.randrange(7),), 0, 60, zone) for zone in zone_names()]
    now = utc(2026, 6, 1)
    assert {one.zone: Window(weekly=(one,)).next_change(now) for one in weekly}.keys() == zone_names()


def test_the_first_moment_of_a_day_is_in_utc_unless_a_zone_is_said():
    assert parse_time("2026-12-31") - parse_time("2026-12-31 Australia/Sydney") == 11 * 3600
    assert parse_time("2026-12-31 America/New_York") - parse_time("2026-12-31") == 5 * 3600


def test_what_begins_when_it_has_ended_never_changes():
    assert Window(200, 100).next_change(50) is None and Window(100, 100).next_change(50) is None
