"""When an entry or a list holds, and by whose order: the terms that stand beside it.

In: texts as people write them (docs/lists.md#windows). Out: Terms: moments as Unix seconds, weekly windows, order
data; whether they hold at a moment, and when that changes next. Never here: a clock, a list, an entry.

A weekly window is one of wall clocks. A moment that a clock skips is the one at which it goes on; of a moment that it
shows twice a window begins at the first and ends at the last.
"""

import difflib
import re
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache, lru_cache
from itertools import pairwise
from typing import NamedTuple

ALWAYS, NEVER = -(1 << 63), (1 << 63) - 1       # where a window is open at its begin, or at its end
WEEKLY_MAX = 16         # weekly windows of one entry or list
VALUE_MAX = 256         # characters of a piece of order data
TEXT_MAX = 100          # characters of a time, or of one weekly window: the longest zone's name has 32
DAY = 86_400
WEEK = 7 * DAY
AHEAD = (DAY, 8 * DAY, 3 * WEEK)    # how far a change of a weekly window is looked for: each is there every week
DAYS_KNOWN = 1 << 15    # days of zones that are kept: 4 MB; a month of all
WALLS_KNOWN = 1 << 14   # moments of days on which clocks are set: 3 MB
EPOCH = date(1970, 1, 1).toordinal()
FIRST_DAY, LAST_DAY = date.min.toordinal() + 8, date.max.toordinal() - 8
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ORDER = ("order", "authority", "received", "approved_by", "reference")
BEGINS, ENDS = ("from", "valid_from"), ("until", "valid_until")
KNOWN = (*BEGINS, *ENDS, "weekly", "ech", *ORDER)       # attributes of an entry that act, or say whose it is
# What others call the begin and the end of a window, without blanks, "_" and "-".
OTHER_NAMES = dict.fromkeys(("start", "starts", "startdate", "starttime", "begin", "begins", "since", "notbefore",
                             "validsince", "effective"), "from") | \
    dict.fromkeys(("expires", "expire", "expiry", "expiration", "expirydate", "expirationdate", "expiresat", "end",
                   "ends", "enddate", "endtime", "notafter", "validto", "validtill"), "until")
LONG_DAYS = {"daily": "mon-sun", "everyday": "mon-sun", "weekdays": "mon-fri", "weekend": "sat,sun",
             "weekends": "sat,sun"}
LONG_DAY = re.compile(r"\b(mon|tue|wed|thu|fri|sat|sun)[a-z]+\b")
DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)

TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.\d+)?)?)?"
                  r"(?:([Zz])|([+-])(\d\d):(\d\d)| (\S+))?", re.ASCII)
SPAN = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)", re.ASCII)

Order = tuple[tuple[str, str], ...]     # name and value of each piece that there is, by name


class BadTerm(Exception):
    """Why a text says no time, window or order: the end of a sentence that begins with the text. One line."""


class Weekly(NamedTuple):
    """A window that comes back every week: `days` it begins on (Monday is 0), `begin` and `end` in minutes of that
    day; one that ends before it begins ends on the next."""

    days: tuple[int, ...]
    begin: int
    end: int
    zone: str

    @property
    def minutes(self) -> int:
        """How long a clock runs from its begin to its end."""
        return self.end - self.begin if self.end > self.begin else self.end + 1440 - self.begin

    def occurrences(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Those that hold somewhere in [start, end), as Unix seconds, in order; one may overlap the next."""
        first, last = max(EPOCH + start // DAY - 3, FIRST_DAY), min(EPOCH + end // DAY + 3, LAST_DAY)
        for day in range(first, last + 1):
            if (day - 1) % 7 in self.days:
                offset = steady(self.zone, day)
                if offset is None:
                    begins = wall(self.zone, day, self.begin)
                    ends = wall(self.zone, day, self.begin + self.minutes, last=True)
                else:
                    begins = (day - EPOCH) * DAY + self.begin * 60 - offset
                    ends = begins + self.minutes * 60
                if begins < ends and begins < end and start < ends:
                    yield begins, ends

    def holds(self, at: int) -> bool:
        offset = steady(self.zone, at // DAY + EPOCH)
        if offset is not None:
            day, second = divmod(at + offset, DAY)
            day += EPOCH
            if steady(self.zone, day - 1) == offset:    # one of today or yesterday, then, by what the clock shows
                begin, end = self.begin * 60, (self.begin + self.minutes) * 60
                return (begin <= second < end and (day - 1) % 7 in self.days
                        or second + DAY < end and (day - 2) % 7 in self.days)
        return any(begin <= at < end for begin, end in self.occurrences(at, at + 1))

    def __str__(self) -> str:
        runs: list[list[int]] = []
        for day in sorted(self.days):
            if runs and runs[-1][-1] == day - 1:
                runs[-1].append(day)
            else:
                runs.append([day])
        words = [DAYS[run[0]] + (f"{'-' if len(run) > 2 else ','}{DAYS[run[-1]]}" if len(run) > 1 else "")
                 for run in runs]
        begin, end = (f"{minute // 60:02}:{minute % 60:02}" for minute in (self.begin, self.end))
        return f"{','.join(words)} {begin}-{end} {self.zone}"


class Window(NamedTuple):
    """When something holds: in [begins, ends), and where there are weekly windows in one of these too."""

    begins: int = ALWAYS
    ends: int = NEVER
    weekly: tuple[Weekly, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is a moment at which it may not hold."""
        return self != OPEN

    def holds(self, now: float) -> bool:
        if not self.begins <= now < self.ends:
            return False
        at = int(now // 1)
        return not self.weekly or any(one.holds(at) for one in self.weekly)

    def next_change(self, now: float) -> int | None:
        """The first moment after `now` at which it begins or ends to hold; None where there is none."""
        if now >= self.ends or self.begins >= self.ends:
            return None
        if not self.weekly:
            return self.begins if now < self.begins else self.ends if self.ends != NEVER else None
        start = max(int(now // 1), self.begins)
        for ahead in AHEAD:
            for begin, end in self.spans(start, start + ahead):
                if begin > now:
                    return begin
                if end > now:
                    if end < start + ahead or end == self.ends:
                        return end
                    break                   # another may begin there
            else:
                continue
            if ahead == AHEAD[-1] and self.ends != NEVER:
                return self.ends
        return None

    def spans(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """When it holds in [start, end), as Unix seconds: each span whole but for its own begin and end, and none
        touches the next."""
        if not self.weekly:
            every = [(self.begins, self.ends)]
        else:
            every = sorted(span for one in self.weekly for span in one.occurrences(start, end))
        held: tuple[int, int] | None = None
        for begin, until in every:
            begin, until = max(begin, self.begins), min(until, self.ends)
            if begin >= until or begin >= end or until <= start:
                continue
            if held is None:
                held = begin, until
            elif begin <= held[1]:
                held = held[0], max(held[1], until)
            else:
                yield held
                held = begin, until
        if held is not None:
            yield held

    def opens(self) -> bool:
        """Whether there is a moment at which it holds."""
        if self.begins >= self.ends:
            return False
        if not self.weekly or self.begins == ALWAYS or self.ends == NEVER or self.ends - self.begins > 60 * WEEK:
            return True
        return any(next(self.spans(at, min(at + WEEK, self.ends)), None) is not None
                   for at in range(self.begins, self.ends, WEEK))

    def as_text(self) -> str:
        """As attributes of an entry have it; "" where it is always open."""
        words = []
        if self.begins != ALWAYS:
            words.append(f"from={shown_time(self.begins)}")
        if self.ends != NEVER:
            words.append(f"until={shown_time(self.ends)}")
        if self.weekly:
            words.append(f'weekly="{weekly_text(self.weekly)}"')
        return " ".join(words)


OPEN = Window()


class Terms(NamedTuple):
    """`ech`: only where the hello carries an Encrypted ClientHello."""

    window: Window = OPEN
    ech: bool = False
    order: Order = ()


# Times -------------------------------------------------------------------------------------------------------

@lru_cache(maxsize=4096)
def parse_time(text: str, last: bool = False) -> int:
    """Unix seconds of a time of RFC 3339, a date (its first moment in UTC), or either of a zone (2026-12-31 18:00
    Europe/London). `last`: of two moments that a clock shows alike the later one.

    Raises:
        BadTerm: it is none.
    """
    found = TIME.fullmatch(text) if len(text) <= TEXT_MAX else None
    if not found:
        raise BadTerm("is no time; write one such as 2026-12-31T18:00:00Z, 2026-12-31T18:00:00+01:00, 2026-12-31 or, "
                      'in quotes, "2026-12-31 18:00 Europe/London"')
    year, month, day, hour, minute, second, _, sign, hours, minutes, zone = found.groups()
    clock = int(hour or 0) * 3600 + int(minute or 0) * 60 + int(second or 0)
    if hour and (int(hour) > 23 or int(minute) > 59 or int(second or 0) > 60):
        raise BadTerm(f"is no time: no clock shows {hour}:{minute}{':' if second else ''}{second or ''}")
    if sign and (int(hours) > 23 or int(minutes) > 59):
        raise BadTerm(f"is no time: no zone is {sign}{hours}:{minutes} from UTC")
    try:
        ordinal = date(int(year), int(month), int(day)).toordinal()
    except ValueError:
        raise BadTerm(f"is no time: there is no {year}-{month}-{day}") from None
    if zone:
        if not FIRST_DAY <= ordinal <= LAST_DAY:
            raise BadTerm(f"is no time of a zone: nobody knows the clocks of {year}-{month}-{day}")
        return moment(datetime.fromordinal(ordinal) + timedelta(seconds=clock), zone_of(zone), last)
    if hour and not found[7] and not sign:
        raise BadTerm(f"has no zone; write {text}Z for UTC, or a zone behind it, in quotes, such as "
                      f'"{text} Europe/London"')
    offset = (int(hours) * 60 + int(minutes)) * (-60 if sign == "-" else 60) if sign else 0
    return (ordinal - EPOCH) * DAY + clock - offset


def shown_time(at: int) -> str:
    """A moment as people read it, in UTC; what is before the year 1 or behind 9999 as its bound."""
    if at in (ALWAYS, NEVER):
        return "always" if at == ALWAYS else "never"
    day, second = divmod(at, DAY)
    ordinal = min(max(day + EPOCH, 1), date.max.toordinal())
    return f"{date.fromordinal(ordinal)}T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z"


def moment(wall: datetime, zone: tzinfo, last: bool = False) -> int:
    """Unix seconds at which the clocks of a zone show that; of two the first, or the `last`; where they skip it,
    those at which they go on."""
    early, late = (seconds_of(wall, zone, fold) for fold in (0, 1))
    if early <= late:
        return late if last else early      # the same, but where the clocks are set back
    # They go on somewhere in (late, early], where what they are apart from UTC changes.
    return set_within(zone, late, early)


def seconds_of(wall: datetime, zone: tzinfo, fold: int) -> int:
    offset = wall.replace(tzinfo=zone, fold=fold).utcoffset() or timedelta()
    seconds = wall.hour * 3600 + wall.minute * 60 + wall.second
    return (wall.toordinal() - EPOCH) * DAY + seconds - int(offset.total_seconds())


def offset_at(at: int, zone: tzinfo) -> int:
    """Seconds that the clocks of a zone are ahead of UTC."""
    there = datetime.fromtimestamp(at, UTC).astimezone(zone).utcoffset() or timedelta()
    return int(there.total_seconds())


@lru_cache(maxsize=DAYS_KNOWN)
def steady(name: str, day: int) -> int | None:
    """Seconds that the clocks of a zone are ahead of UTC on a day (its ordinal) and the next; None where they are set
    then, or may be."""
    if not FIRST_DAY <= day < LAST_DAY:
        return None
    zone = zone_of(name)
    ahead = {datetime.fromordinal(day + more).replace(tzinfo=zone, fold=fold).utcoffset()
             for more in (0, 1, 2) for fold in (0, 1)}
    return int((ahead.pop() or timedelta()).total_seconds()) if len(ahead) == 1 else None


@lru_cache(maxsize=WALLS_KNOWN)
def wall(name: str, day: int, minute: int, last: bool = False) -> int:
    """`moment` of a minute of a day."""
    return moment(datetime.fromordinal(day) + timedelta(minutes=minute), zone_of(name), last)


class Shift(NamedTuple):
    """Where the clocks of a zone are set: `before` and from then on `after` seconds ahead of UTC."""

    at: int
    before: int
    after: int


def shifts(name: str, start: int, end: int) -> list[Shift]:
    """All of a zone in [start, end)."""
    zone = zone_of(name)
    marks = [*range(start, end, WEEK), end]
    made = []
    for low, high in pairwise(marks):
        before, after = offset_at(low, zone), offset_at(high, zone)
        if before == after:
            continue
        made.append(Shift(set_within(zone, low, high), before, after))
    return made


def set_within(zone: tzinfo, low: int, high: int) -> int:
    """When the clocks of a zone are set in (low, high], where they differ from UTC otherwise at its end."""
    before = offset_at(low, zone)
    while high - low > 1:
        middle = (low + high) // 2
        if offset_at(middle, zone) == before:
            low = middle
        else:
            high = middle
    return high


# Zones -------------------------------------------------------------------------------------------------------

@cache
def zone_names() -> frozenset[str]:
    """Of all zones that this system knows by a name that means the same on every system."""
    return frozenset(zoneinfo.available_timezones() - {"localtime", "Factory"} | {"UTC"})


@cache
def zone_of(name: str) -> tzinfo:
    """A zone by its name in the tz database. Raises BadTerm where there is none."""
    if name == "UTC":
        return UTC
    if name not in zone_names():
        like = sorted(one for one in zone_names() if one[:1].casefold() == name[:1].casefold())     # all take long
        near = difflib.get_close_matches(name[:TEXT_MAX], like, 1, 0.7)
        shown = name if len(name) <= 40 and name.isprintable() else f"{name[:40]!r}..."
        raise BadTerm(f"has no zone that this system knows: {shown}" + (
            f"; did you mean {near[0]}?" if near else "; write one such as Europe/London or UTC"))
    return zoneinfo.ZoneInfo(name)


# Weekly windows ----------------------------------------------------------------------------------------------

@lru_cache(maxsize=4096)
def parse_weekly(text: str) -> Weekly:
    """One weekly window: `sat 14:45-17:30 Europe/London`, `mon-fri,sun 22:00-06:00 UTC`.

    Raises:
        BadTerm: it is none.
    """
    words = text.split() if len(text) <= TEXT_MAX else []
    if len(words) != 3:
        raise BadTerm("is no weekly window; write days, times and a zone, such as "
                      '"sat 14:45-17:30 Europe/London", and ";" between several')
    days, times, zone = words
    found = SPAN.fullmatch(times)
    if not found:
        raise BadTerm(f"has no times but {times!r}; write them such as 14:45-17:30")
    begin, end = (int(found[at]) * 60 + int(found[at + 1]) for at in (1, 3))
    if int(found[2]) > 59 or int(found[4]) > 59 or begin > 1439 or end > 1440:
        raise BadTerm(f"has no times but {times}: a day is from 00:00 to 24:00")
    if begin == end:
        raise BadTerm(f"ends when it begins; write 00:00-24:00 for a whole day, and not {times}")
    zone_of(zone)
    return Weekly(tuple(sorted(set(days_of(days)))), begin, end, zone)


def days_of(text: str) -> Iterator[int]:
    for word in text.lower().split(","):
        first, dash, last = word.partition("-")
        if first not in DAYS or dash and last not in DAYS:
            known = LONG_DAY.sub(r"\1", ",".join(LONG_DAYS.get(one, one) for one in text.lower().split(",")))
            short = all(one in DAYS for one in re.split("[,-]", known))
            raise BadTerm(f"has no days but {text[:40]!r}; write " + (
                known if short else "mon, tue, wed, thu, fri, sat, sun, such as mon-fri or sat,sun"))
        at = DAYS.index(first)
        yield at
        while dash and at != DAYS.index(last):
            at = (at + 1) % 7
            yield at


def parse_weeklies(texts: str | list[str] | tuple[str, ...]) -> tuple[Weekly, ...]:
    """Several, with ";" between them where they are one text; each once.

    Raises:
        BadTerm: one is none, or there are too many.
    """
    every = [one.strip() for one in texts.split(";")] if isinstance(texts, str) else list(texts)
    if len(every) > WEEKLY_MAX:
        raise BadTerm(f"has more than {WEEKLY_MAX} weekly windows")
    return tuple(dict.fromkeys(parse_weekly(" ".join(one.split())) for one in every))


def plain_name(name: str) -> str:
    """A name without case, blanks, "_" and "-", in which people write it differently."""
    return re.sub(r"[\s_-]", "", name.casefold())


def meant_by(name: str) -> str:
    """The attribute that acts which a name that is none was probably to be; "" where there is none near."""
    plain = plain_name(name)
    if plain in OTHER_NAMES:
        return OTHER_NAMES[plain]
    alike = {plain_name(one): one for one in KNOWN}
    near = difflib.get_close_matches(plain[:TEXT_MAX], alike, 1, 0.75)
    return alike[near[0]] if near else ""


def weekly_text(weekly: tuple[Weekly, ...]) -> str:
    return "; ".join(map(str, weekly))


# What stands beside an entry ---------------------------------------------------------------------------------

@lru_cache(maxsize=4096)
def read_terms(attributes: tuple[tuple[str, str], ...]) -> Terms | None:
    """The terms of an entry by its attributes; None where they say nothing of that.

    Raises:
        BadTerm: one of them says what it cannot. The sentence has the attribute's name.
    """
    begins, ends, ech = ALWAYS, NEVER, False
    weekly: tuple[Weekly, ...] = ()
    order = []
    for name, value in attributes:
        try:
            if name in BEGINS:
                begins = max(begins, parse_time(value))
            elif name in ENDS:
                ends = min(ends, parse_time(value, last=True))
            elif name == "weekly":
                weekly = parse_weeklies(value)
            elif name == "ech":
                if value.lower() != "only":
                    raise BadTerm("is not ech=only")
                ech = True
            elif name in ORDER:
                if not value.isprintable():
                    raise BadTerm("has a character that does not print")
                order.append((name, value))
        except BadTerm as problem:
            raise BadTerm(f"has {name}={value[:TEXT_MAX]}, which {problem}") from None
    made = Terms(Window(begins, ends, weekly), ech, tuple(order))
    return made if made != NOTHING else None


NOTHING = Terms()
