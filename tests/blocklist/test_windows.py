"""Windows, orders and hellos with ECH in a snapshot: the matcher against rows read slowly, layers, addresses."""

import io
import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from edgeblock.blocklist.addresses import Reader
from edgeblock.blocklist.compiler import Compiler, is_little, lay_over, merge
from edgeblock.blocklist.formats import Entry, read_domains
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.rows import Rows, Verdict
from edgeblock.blocklist.settings import ListSettings, parse_settings
from edgeblock.blocklist.snapshot import HEADERS, SECTIONS, open_snapshot, pack, stack
from edgeblock.blocklist.terms import BadTerm, Window, parse_time, parse_weekly, shown_time
from edgeblock.blocklist.timetable import ORDERS_MAX, SETS_MAX, Builder, Table, joined, parted, windows_of
from edgeblock.errors import ListError

KEY = bytes(range(16))
HOUR, DAY, WEEK = 3600, 86_400, 7 * 86_400
WEEKLIES = ("sat 14:45-17:30 Europe/London", "mon-fri 22:00-06:00 America/New_York", "sun 01:30-02:30 Europe/London",
            "sat 23:00-04:00 Australia/Sydney", "sat,sun 00:00-24:00 UTC", "sun 01:10-01:50 Europe/London")
# Just before, at and behind moments at which clocks are set, and some others.
MOMENTS = [parse_time(text) + step for text in (
    "2026-03-29T01:00:00Z", "2026-10-25T01:00:00Z", "2026-03-08T07:00:00Z", "2026-11-01T06:00:00Z",
    "2026-04-04T16:00:00Z", "2026-10-03T16:00:00Z", "2026-12-05T14:45:00Z", "2026-12-05T17:30:00Z")
    for step in (-WEEK, -2 * HOUR, -HOUR, -1800, -1, 0, 1, 1800, HOUR, 2 * HOUR, DAY)]


def part(name, toml, text):
    """A list by itself, as the store keeps it."""
    compiler = Compiler(KEY)
    settings = parse_settings(toml.encode(), f"{name}.toml", ListSettings(), ("domains",))
    index = compiler.add_list(name, settings)
    for entry in read_domains(io.BytesIO(text.encode())):
        assert isinstance(entry, Entry), entry
        compiler.add(index, entry)
    opened = open_snapshot(pack(compiler.finish(), KEY, 0), KEY)
    [record] = opened.parts.lists
    opened.parts.lists[0] = replace(record, part=opened.digest)
    return opened.parts


def snapshot(*parts):
    return open_snapshot(pack(merge(list(parts)), KEY, 0), KEY)


def matcher(toml, text):
    return ListMatcher(snapshot(part("court", toml, text)))


def at(text):
    return parse_time(text)


def asked(one, name, moment, **more):
    one.at = moment
    found = one.look_up("tls", name.encode(), **more)
    return found and found.action


# One entry, one list

def test_from_and_until():
    one = matcher("", "a.example from=2026-12-01T14:45:00+01:00 until=2026-12-31\nb.example until=2026-12-31\n"
                      "192.0.2.1 from=2026-12-02\n")
    begins, ends = at("2026-12-01T13:45:00Z"), at("2026-12-31")
    for moment, listed in ((begins - 1, None), (begins, "reset"), (ends - 1, "reset"), (ends, None)):
        assert asked(one, "www.a.example", moment) == listed
    assert asked(one, "b.example", 0) == "reset" and asked(one, "b.example", ends) is None
    one.at = at("2026-12-01")
    assert one.look_up_address(bytes([192, 0, 2, 1])) is None
    one.at = at("2026-12-02")
    assert one.look_up_address(bytes([192, 0, 2, 1])).action == "reset"


def test_a_window_of_the_list_is_one_of_each_entry():
    one = matcher('from = 2026-01-01\nuntil = "2026-12-31 18:00 Europe/London"\n'
                  'weekly = ["sat 14:45-17:30 Europe/London"]',
                  "a.example\nb.example until=2026-06-01\n@@www.a.example\n")
    for moment, a, b in (("2026-03-07T15:00:00Z", "reset", "reset"), ("2026-03-07T17:30:00Z", None, None),
                         ("2026-07-04T14:00:00Z", "reset", None), ("2025-12-27T15:00:00Z", None, None),
                         ("2027-01-02T15:00:00Z", None, None)):
        assert (asked(one, "a.example", at(moment)), asked(one, "b.example", at(moment))) == (a, b)
    assert asked(one, "www.a.example", at("2026-03-07T15:00:00Z")) == "accept"
    assert asked(one, "www.a.example", at("2026-03-07T19:00:00Z")) is None


def test_an_exception_with_a_window_lifts_while_it_holds():
    one = matcher("", "a.example\n@@www.a.example until=2026-06-01\n")
    assert asked(one, "www.a.example", at("2026-05-31")) == "accept"
    assert asked(one, "www.a.example", at("2026-06-01")) == "reset"


def test_a_mandatory_list_out_of_its_window_outranks_nothing():
    one = ListMatcher(snapshot(part("a", "mandatory = true\nuntil = 2026-06-01", "a.example\n"),
                               part("b", "", "@@a.example\n")))
    assert asked(one, "a.example", at("2026-05-01")) == "reset"
    assert asked(one, "a.example", at("2026-07-01")) == "accept"


def test_a_row_with_several_windows_holds_in_any_of_them():
    text = "a.example from=2026-01-01 until=2026-02-01 order=1\na.example from=2026-03-01 until=2026-04-01 order=2\n"
    one = matcher("", text)
    assert one.snapshot.parts.lists[0].entries == 1
    for moment, order in (("2026-01-15", "1"), ("2026-02-15", None), ("2026-03-15", "2"), ("2026-04-15", None)):
        one.at = at(moment)
        found = one.look_up("tls", b"a.example")
        assert (found and found.order) == order
    both = matcher("", text + "a.example\n")
    assert both.snapshot.parts.lists[0].entries == 1 and asked(both, "a.example", at("2026-02-15")) == "reset"


def test_of_a_url_with_https_host_the_host_has_its_windows():
    one = matcher('https = "host"', "http://a.example/x until=2026-06-01\nhttp://a.example/y from=2026-07-01\n"
                                    "b.example @ 192.0.2.1 until=2026-06-01\n")
    for moment, listed in (("2026-05-01", "reset"), ("2026-06-15", None), ("2026-07-15", "reset")):
        assert asked(one, "a.example", at(moment)) == listed
    one.at = at("2026-05-01")
    assert one.look_up("http", b"a.example", b"/x") and not one.look_up("http", b"a.example", b"/y")
    place = bytes([192, 0, 2, 1])
    assert asked(one, "b.example", at("2026-05-01"), to=place) == "reset"
    assert asked(one, "b.example", at("2026-06-01"), to=place) is None


def test_an_order_is_told():
    one = matcher('order = "L 1"\nauthority = "High Court"',
                  'a.example order="No. 12"\nb.example\nc.example reference=X\n')
    assert [one.look_up("tls", name).order for name in (b"a.example", b"b.example", b"c.example")] == [
        "No. 12", "L 1", "L 1"]
    assert matcher("", "a.example\n").look_up("tls", b"a.example").order == ""
    [held] = [held for held in Table(one.snapshot.terms[0]).every() if "reference" in held.order]
    assert held.order == {"reference": "X"} and not held.window


def test_an_entry_for_hellos_with_ech_alone():
    one = matcher("", "a.example ech=only\nb.example ech=only until=2026-06-01\nc.example\n")
    now = at("2026-05-01")
    assert asked(one, "a.example", now) is None and asked(one, "www.a.example", now, ech=True) == "reset"
    assert asked(one, "b.example", now, ech=True) == "reset"
    assert asked(one, "b.example", at("2026-06-01"), ech=True) is None
    assert asked(one, "c.example", now, ech=True) == "reset"


@pytest.mark.parametrize("line", ["@@a.example ech=only", "http://a.example/ ech=only", "192.0.2.1 ech=only",
                                  "a.example ech=yes", "192.0.2.1:443 ech=only"])
def test_what_no_hello_has_says_no_ech(line):
    [problem] = read_domains(io.BytesIO(line.encode()))
    assert "ech" in problem.why


def test_the_trial_of_lists_asks_as_if_all_held():
    one = matcher("until = 2020-01-01", "a.example\nb.example from=2099-01-01\nc.example ech=only\n"
                                        "@@www.b.example until=2020-01-01\n")
    assert [asked(one, name, at("2026-01-01")) for name in ("a.example", "b.example", "c.example")] == [None] * 3
    one.anyhow = True
    assert [asked(one, name, at("2026-01-01")) for name in ("a.example", "b.example", "c.example")] == ["reset"] * 3
    assert asked(one, "www.b.example", at("2026-01-01")) == "accept"


def test_now_is_now():
    one = matcher("", "a.example until=2020-01-01\nb.example from=2020-01-01 until=9999-12-31T23:59:59Z\n")
    assert one.at is None and one.look_up("tls", b"a.example") is None and one.look_up("tls", b"b.example")
    one.at = 0
    assert one.at == 0 and one.look_up("tls", b"a.example") and not one.look_up("tls", b"b.example")
    one.at = None
    assert one.look_up("tls", b"a.example") is None and one.look_up("tls", b"b.example")


def test_steps_of_the_clock():
    """An hour each way, days, and years: what is asked is what the clock says then, and `keep_time` notices it."""
    one = matcher("", 'a.example weekly="sun 01:30-02:30 Europe/London"\n')
    window = Window(weekly=(parse_weekly("sun 01:30-02:30 Europe/London"),))
    moment = at("2026-10-25T00:45:00Z")
    for step in (0, HOUR, -HOUR, HOUR, HOUR, -2 * HOUR, WEEK, -30 * WEEK, 500 * WEEK, -1100 * WEEK, 31 * WEEK):
        moment += step
        assert asked(one, "a.example", moment) == ("reset" if window.holds(moment) else None), step
    for odd in (1e300, -1e300, 2.0 ** 63, -2.0 ** 63, 0.5):
        one.at = odd
        one.look_up("tls", b"a.example")
        one.keep_time(odd)


# The matcher and rows read slowly, on lists of dice

def window_of(dice):
    words = []
    begins = dice.choice(MOMENTS) + dice.choice((-DAY, -1, 0, 1))
    if dice.random() < 0.5:
        words.append(f"from={shown_time(begins)}")
    if dice.random() < 0.5:
        words.append(f"until={shown_time(begins + dice.choice((1, HOUR, DAY, 30 * DAY)))}")
    if dice.random() < 0.5:
        words.append(f'weekly="{"; ".join(dice.sample(WEEKLIES, dice.randrange(1, 4)))}"')
    return words


def list_of(dice, name):
    settings = [f"action = \"{dice.choice(('reset', 'drop', 'observe'))}\""]
    if dice.random() < 0.2 and "observe" not in settings[0]:
        settings.append("mandatory = true")
    if dice.random() < 0.3:
        settings += [line.replace("=", " = ", 1) for line in window_of(dice)]
    if dice.random() < 0.3:
        settings.append('https = "host"')
    lines = []
    for _ in range(dice.randrange(1, 30)):
        host = f"{dice.choice(('', 'www.'))}{dice.choice('abcdef')}.example"
        entry = dice.choice((host, host, f"={host}", f"*.{host}", f"http://{host}/x", f"{host}/dir/*",
                             f"192.0.2.{dice.randrange(8)}", f"192.0.2.{dice.randrange(8)}:443", "192.0.2.0/29",
                             f"2001:db8::{dice.randrange(4)}", f"{host} @ 192.0.2.0/30"))
        words = window_of(dice) if dice.random() < 0.7 else []
        if dice.random() < 0.2:
            words.append(f"order={dice.randrange(5)}")
        exception = dice.random() < 0.3
        if dice.random() < 0.2 and not exception and "/" not in entry and not entry[0].isdigit() and ":" not in entry:
            words.append("ech=only")
        lines.append(" ".join([("@@" if exception else "") + entry, *words]))
    try:
        return part(name, "\n".join(settings), "\n".join(lines))
    except ListError:                       # from is not before until
        return list_of(dice, name)


ACTIONS = {Verdict.NOTHING: (None,), Verdict.OBSERVE: ("observe",), Verdict.EXCEPTION: ("accept",),
           Verdict.BLOCK: ("reset", "drop"), Verdict.MANDATORY: ("reset", "drop")}


def same(one, rows, moment, ech):
    for host in ("a.example", "www.a.example", "b.example", "www.c.example", "d.example", "x.f.example", "e.example"):
        for proto, target in (("tls", None), ("http", b"/x"), ("http", b"/dir/y")):
            for to in (b"", bytes([192, 0, 2, 1])):
                found = one.look_up(proto, host.encode(), target, to, b"", ech and proto == "tls")
                rows.ech = ech and proto == "tls"
                wanted = rows.name(proto, host.encode(), target or b"/", to)
                assert (found.action if found else None) in ACTIONS[wanted], (host, proto, moment)
    rows.ech = False
    for address in (bytes([192, 0, 2, 1]), bytes([192, 0, 2, 5]), bytes.fromhex("20010db8" + "00" * 11 + "01")):
        found = one.look_up_address(address, 443)
        wanted = rows.address(address, 443)
        assert (found is None) == (wanted is Verdict.NOTHING)
        assert found is None or found.action == "accept" or wanted.blocks == (found.action != "observe")


@pytest.mark.parametrize("seed", range(12))
def test_the_matcher_says_what_the_rows_say(seed):
    dice = random.Random(seed)
    names = [f"list{i}" for i in range(dice.randrange(1, 5))]
    parts = {name: list_of(dice, name) for name in names}
    base = snapshot(*parts.values())
    parts[dice.choice(names)] = list_of(dice, "list0") if "list0" in names else parts[names[0]]
    for name in list(parts):
        [record] = parts[name].lists
        if record.name != name:
            parts[name].lists[0] = replace(record, name=name)
    parts["more"] = list_of(dice, "more")
    every = [parts[name] for name in sorted(parts)]
    over = stack(open_snapshot(pack(lay_over(every, base.digest, base.parts), KEY, 0), KEY), base)
    whole = snapshot(*every)
    for snap in (base, whole, over):
        one, rows = ListMatcher(snap), Rows(snap)
        for moment in dice.sample(MOMENTS, 15):
            one.at = rows.at = moment
            same(one, rows, moment, dice.random() < 0.5)
        one.anyhow, rows.at = True, None
        same(one, rows, None, True)
    layered, merged = ListMatcher(over), ListMatcher(whole)
    for moment in dice.sample(MOMENTS, 10):
        layered.at = merged.at = moment
        for host in (b"a.example", b"www.b.example", b"c.example"):
            assert layered.look_up("tls", host) == merged.look_up("tls", host)
    assert not is_little(every, base.parts)


@pytest.mark.parametrize("seed", range(8))
def test_addresses_are_what_the_matcher_says_at_that_moment(seed):
    dice = random.Random(seed)
    parts = [list_of(dice, f"list{i}") for i in range(3)]
    snap = snapshot(*parts)
    one, reader = ListMatcher(snap), Reader()
    moment = min(MOMENTS) - 1
    for _ in range(60):
        addresses = reader.read(snap.parts, at=moment)
        one.at = moment
        for last in range(8):
            address = bytes([192, 0, 2, last])
            found = one.look_up_address(address, 443)
            stopped = found is not None and found.action in ("reset", "drop")
            assert is_stopped(addresses, address) == stopped, (moment, last)
        if reader.until is None:
            break
        assert reader.until > moment
        before = reader.until - 1
        if before > moment:
            assert Reader().read(snap.parts, at=before) == addresses
        moment = reader.until
    assert reader.read(snap.parts) and reader.until is None


def is_stopped(addresses, address):
    """Whether it is stopped at port 443 by ranges and endpoints."""
    number = int.from_bytes(address)
    for one in addresses.endpoints[4]:
        if (one.address, one.port) == (number, 443):
            return one.what.name in ("DROP", "RESET")
    return any(one.first <= number <= one.last and one.what.name in ("DROP", "RESET") for one in addresses.spans[4])


# As bytes

def test_terms_as_bytes():
    builder = Builder()
    assert builder.entries() == builder.windows() == b""
    with pytest.raises(ListError):
        Table(b"")
    blob = matcher("", "a.example until=2026-01-01\n").snapshot.terms[0]
    for cut in (1, 23, len(blob) // 2, len(blob) - 1):
        with pytest.raises(ListError, match="terms that cannot be read"):
            Table(bytes(blob[:cut]))
    with pytest.raises(ListError):
        windows_of(b"\1")
    assert parted(memoryview(b"".join(joined({3: b"abc", 1: b"d"})))) == {1: b"d", 3: b"abc"}
    for damaged in (b"\1\0\0\0", b"".join(joined({3: b"abc"}))[:-1]):
        with pytest.raises(ListError):
            parted(memoryview(damaged))


def test_a_list_has_only_so_many_different_terms(monkeypatch):
    assert SETS_MAX == 256 and ORDERS_MAX == 250_000
    monkeypatch.setattr("edgeblock.blocklist.timetable.SETS_MAX", 2)
    monkeypatch.setattr("edgeblock.blocklist.timetable.ORDERS_MAX", 2)
    for word, why in (('weekly="sat 10:0{}-11:00 UTC"', "weekly windows"), ("order={}", "orders and references")):
        with pytest.raises(ListError, match=f"more than 2 different {why}"):
            matcher("", "".join(f"{name}.example {word.format(name)}\n" for name in "012"))


@pytest.mark.parametrize("window", ["sat 22:00-02:00 Europe/Berlin", "sat 22:00-01:00 Europe/London"])
def test_a_window_that_ends_as_clocks_are_put_back_to_it_ends_the_second_time(window):
    rules = matcher("", f'a.example weekly="{window}"\n')
    for moment, action in (("2026-10-25T00:59:59Z", "reset"), ("2026-10-25T01:00:00Z", None)):
        assert asked(rules, "a.example", at(moment)) == action


def test_no_name_costs_more_than_so_many_looks_at_windows():
    """Whoever writes lists can make one name dear. A mandatory list's windows hold all the same."""
    shut = ";".join(f"mon-sun {hour:02}:00-{hour:02}:01 UTC" for hour in range(8))
    labels = [f"l{number}" for number in range(60)] + ["example"]
    text = "".join(f'{".".join(labels[first:])} from=2020-01-01T00:00:{second:02}Z weekly="{shut}"\n'
                   for first in range(60) for second in range(60))
    name, moment = ".".join(labels), at("2026-12-02T12:00:00Z")
    dear = [part(f"dear{number}", "", text) for number in range(3)]
    own = f"={name} until=2030-01-01\n"
    for toml, action in (("", None), ("mandatory = true", "reset")):
        assert asked(ListMatcher(snapshot(*dear, part("own", toml, own))), name, moment) == action
    assert asked(ListMatcher(snapshot(part("own", "", own))), name, moment) == "reset"


def test_an_entry_has_only_so_many_terms():
    """Each is looked at for every packet that asks for the name."""
    text = "".join(f"a.example until={2030 + i % 50}-01-01 order={i}\n" for i in range(200))
    with pytest.raises(ListError, match="court: has an entry more than 64 times, each with another window or order"):
        matcher("", text)
    assert matcher("", "".join(text.splitlines(True)[:60])).look_up("tls", b"a.example").order


def test_a_snapshot_of_before_is_still_read():
    """Its sections are fewer; the rest is the same."""
    parts = merge([part("court", "", "a.example\n192.0.2.1\n")])
    new = pack(parts, KEY, 0)
    assert SECTIONS == {4: 9, 3: 6, 2: 5} and HEADERS[4].size > HEADERS[3].size
    assert open_snapshot(new, KEY).terms == {}
    old = as_version_3(new)
    opened = open_snapshot(old, KEY)
    assert ListMatcher(opened).look_up("tls", b"a.example").list == "court" and opened.terms == {}
    assert len(Reader().read(opened.parts, at=0).spans[4]) == 1


def as_version_3(data):
    """A snapshot without terms and clients as the version before has written it."""
    from edgeblock.blocklist.snapshot import FIXED, Body, sum_of
    fields = list(HEADERS[4].unpack_from(data))
    words = 2 * SECTIONS[4]
    places = fields[FIXED:FIXED + words]
    sections = [data[at:at + size] for at, size in zip(places[::2], places[1::2], strict=True)]
    assert sections[4:-2] == [b""] * 3
    body = io.BytesIO()
    written = Body(body, KEY)
    start, made = HEADERS[3].size, []
    for section in [*sections[:4], sections[-2]]:
        made += [start + written.size, len(section)]
        written.write(section)
    sums = written.finish()
    made += [start + written.size, len(sums)]
    fields[1:3] = [3, start]
    fields[6] = start + written.size + len(sums)
    head = HEADERS[3].pack(*fields[:FIXED], *made, *fields[FIXED + words:-1], bytes(32))[:-32]
    return head + bytes.fromhex(sum_of(head + sums, KEY).hex()) + body.getvalue() + sums


def test_a_zone_that_has_gone_from_the_system_never_holds(monkeypatch):
    snap = matcher("", f'a.example weekly="{WEEKLIES[0]}"\nb.example\n').snapshot

    def gone(name):
        raise BadTerm("has no zone that this system knows")

    monkeypatch.setattr("edgeblock.blocklist.holding.zone_of", gone)
    monkeypatch.setattr("edgeblock.blocklist.timetable.parse_weekly", gone)
    one = ListMatcher(snap)
    assert asked(one, "a.example", at("2026-12-05T15:00:00Z")) is None and asked(one, "b.example", 0) == "reset"
    assert not Rows(snap, at("2026-12-05T15:00:00Z")).name("tls", b"a.example").blocks


def test_the_time_of_day_in_a_zone_is_that_of_the_tz_database():
    """All over a year, in the north, the south and where nothing is whole."""
    dice = random.Random(3)
    lines, windows = [], {}
    for number, zone in enumerate(("Europe/London", "America/New_York", "Australia/Lord_Howe", "America/Santiago",
                                   "Asia/Kathmandu", "Pacific/Apia", "Africa/Casablanca")):
        for turn in range(3):
            begin, end = dice.randrange(1440), dice.randrange(1, 1441)
            text = f"{dice.choice(('mon', 'sun', 'sat-mon', 'mon-sun'))} {begin // 60:02}:{begin % 60:02}-" \
                   f"{end // 60:02}:{end % 60:02} {zone}"
            if begin != end:
                lines.append(f'n{number}t{turn}.example weekly="{text}"')
                windows[f"n{number}t{turn}.example".encode()] = Window(weekly=(parse_weekly(text),))
    one = matcher("", "\n".join(lines))
    start = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    for moment in range(start, start + 366 * DAY, 41 * 900):
        one.at = moment
        for name, window in windows.items():
            assert (one.look_up("tls", name) is not None) == window.holds(moment), (name, moment)
