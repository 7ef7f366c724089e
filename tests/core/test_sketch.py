"""Sketches of destinations: how near their figures are, how much room they take, what they do not tell."""

import hashlib
import ipaddress
import mmap
import os
import random

import pytest

from edgeblock.core.engine import Engine
from edgeblock.core.matcher import Matcher
from edgeblock.core.sketch import ALL, Sketches, place_in_sample, size_of
from edgeblock.core.tally import Table, Tally, close_parts
from tests.core import samples as s

KEYS = [hashlib.blake2b(bytes([number]), digest_size=16).digest() for number in range(8)]
SLOTS = 1024


def packet(source: str = "198.18.7.7", destination: str = "192.0.2.1", sport: int = 40000) -> bytes:
    return s.tcp(1, b"x", source=source, destination=destination, sport=sport)


def subscriber(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def names(count: int, stem: str = "example.com") -> list[bytes]:
    return [f"host{number}.{stem}".encode() for number in range(count)]


class Writer:
    """One part, and what is asked of it."""

    def __init__(self, slots: int = SLOTS, key: bytes = KEYS[0], **settings: int) -> None:
        self.memory = memoryview(mmap.mmap(-1, size_of(slots)))
        self.sketches = Sketches(self.memory, slots, key, **settings)

    def table(self, *others: "Writer") -> Table:
        return Table(close_parts([self.memory, *(other.memory for other in others)]))

    def figures(self, first: bytes, last: bytes | None = None, *others: "Writer") -> tuple[int, int, int, int, bool]:
        tally = Tally()
        tally.add(self.table(*others), first, last or first)
        return tally.figures()


HERE = bytes((192, 0, 2, 1))


@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
@pytest.mark.parametrize("count", [1, 10, 1000, 100_000])
@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
def test_the_number_of_names_is_within_five_percent(key: bytes, count: int, six: bool):
    writer = Writer(key=key)
    home = "2001:db8::1" if six else "192.0.2.1"
    place = bytes.fromhex("20010db8000000000000000000000001") if six else HERE
    every = names(count)
    # Each name from two subscribers of sixteen.
    for number in range(16):
        source = f"2001:db8:{number + 1}::9" if six else subscriber(number)
        for turn in (0, 1):
            writer.sketches.see_all(packet(source, home), every[(number + turn) % 16::16])
    found, shared, flows, seen, whole = writer.figures(place)
    assert abs(found - count) <= 0.05 * count and whole
    assert flows == 2 * count
    assert found >= shared and abs(seen - min(16, count + 1)) <= 2
    if count >= 1000:
        assert 0.15 * count < shared < 0.85 * count     # of two subscribers half are in different halves


def test_few_names_are_exact_and_one_subscriber_shares_none():
    writer = Writer()
    for count in range(1, 49):
        writer.sketches.see(packet(), names(count)[-1])
        assert writer.figures(HERE)[:2] == (count, 0)
    for number in range(64):
        writer.sketches.see_all(packet(subscriber(number)), names(48))
    assert writer.figures(HERE)[:2] == (48, 48)


def test_one_name_however_it_is_written_and_nothing_that_is_none():
    writer = Writer()
    for text in (b"www.example.com", b"WWW.Example.COM", b"www.example.com.", b"www.example.com:8080"):
        writer.sketches.see(packet(), text)
    assert writer.figures(HERE)[0] == 1
    for text in (b"", b".", b"localhost", b"192.0.2.9", b"192.0.2.9:80", b"[2001:db8::1]", b"a b.example",
                 b"a/b.example", b"x" * 254 + b".com", b"b\xfccher.example", b"\0.example.com", b":443"):
        writer.sketches.see(packet(), text)
    assert writer.figures(HERE)[0] == 1
    writer.sketches.see(packet(), b"x" * 63 + b".example.com")
    assert writer.figures(HERE)[0] == 2


@pytest.mark.parametrize("count", [3, 40, 5000])
def test_parts_of_several_writers_are_one(count: int):
    first, second = Writer(), Writer()
    every = names(count)
    first.sketches.see_all(packet(subscriber(1)), every[:2 * count // 3 + 1])
    second.sketches.see_all(packet(subscriber(2)), every[count // 3:])
    second.sketches.see(packet(subscriber(2), "192.0.2.2"), b"www.example.net")
    found, _, flows, seen, whole = first.figures(HERE, None, second)
    assert abs(found - count) <= 0.05 * count and whole and seen == 2
    assert flows == 2 * count // 3 + 1 + count - count // 3
    table = first.table(second)
    assert (table.addresses, table.subscribers) == (2, 2)
    # All of it once more is nothing new.
    assert first.figures(HERE, None, second, first, second)[0] == found


def test_names_behind_several_addresses_count_once():
    writer = Writer()
    for host in range(200):
        writer.sketches.see_all(packet(destination=f"192.0.2.{host}"), names(60))
    found, _, flows, seen, _ = writer.figures(bytes((192, 0, 2, 0)), bytes((192, 0, 2, 255)))
    assert abs(found - 60) <= 3 and flows == 200 * 60 and seen == 1
    tally = Tally()
    table = writer.table()
    assert tally.add(table, bytes((192, 0, 2, 10)), bytes((192, 0, 2, 19))) == 10
    assert tally.add(table, bytes((192, 0, 3, 0)), bytes((255, 255, 255, 255))) == 0
    assert tally.add(table, bytes(16), b"\xff" * 16) == 0          # IPv6


def test_a_million_destinations_fit_their_bound_and_a_flood_pushes_out_what_nobody_uses():
    writer = Writer(1 << 20)
    assert size_of(1 << 20) < 168_000_000           # docs/impact.md
    for number in range(60):
        writer.sketches.see_all(packet(subscriber(number), destination="203.0.113.80"), names(300))
    writer.sketches.see_others(packet(), 1_000_000, b"www.example.com")
    table = writer.table()
    assert 0.85 * 1_000_000 < table.addresses <= 1_000_001
    writer.sketches.see_others(packet(subscriber(5)), 3_000_000, b"www.example.com")
    assert writer.table().addresses <= 1 << 20
    found, *_ = writer.figures(bytes((203, 0, 113, 80)))
    assert abs(found - 300) <= 15                   # it has more credit than a flood of one subscriber takes


def test_one_client_cannot_take_the_room_of_what_many_ask_for():
    writer = Writer(4096)                           # registers for 16 addresses
    for host in range(40):
        for _ in range(255):
            to = packet("198.18.0.66", destination=f"192.0.2.{host}")
            writer.sketches.see_all(to, names(60, f"h{host}.example"))
    for number in range(200):
        writer.sketches.see_all(packet(subscriber(number), destination="203.0.113.80"), names(1000))
    found, shared, *_ = writer.figures(bytes((203, 0, 113, 80)))
    assert abs(found - 1000) <= 50 and shared > 800


def test_the_networks_of_one_line_are_one_subscriber():
    for key in KEYS:
        writer = Writer(key=key)
        for network in range(16):
            source, to = f"2001:db8:0:{network:x}::1", "2001:db8:80::1"
            writer.sketches.see_all(packet(source, destination=to), names(150))
        found, shared, _, seen, _ = writer.figures(ipaddress.ip_address(to).packed)
        assert abs(found - 150) <= 8 and shared < 10 and seen == 1, key


def test_one_client_makes_up_a_million_names_and_they_are_seen_for_what_they_are():
    writer = Writer()
    for number in range(100):
        writer.sketches.see_all(packet(subscriber(number)), names(20, "real.example"))
    made_up = names(100_000)
    for turn in range(10):
        writer.sketches.see_all(packet("198.18.0.66"), [b"%d%s" % (turn, name) for name in made_up])
    found, shared, *_ = writer.figures(HERE)
    assert abs(found - 1_000_000) < 50_000
    assert shared <= 21
    assert writer.table().counters["addresses"] == 1


def test_without_room_the_figures_say_so():
    writer = Writer(256)                        # 64 sets, one place for registers
    for host in range(60):
        writer.sketches.see_all(packet(destination=f"192.0.2.{host}"), names(100))
    whole = [writer.figures(bytes((192, 0, 2, host)))[4] for host in range(60)]
    assert not all(whole)
    assert all(writer.figures(bytes((192, 0, 2, host)))[0] >= 4 for host in range(60))
    assert writer.table().counters["lacking"] > 0


def test_a_crowd_of_small_addresses_does_not_keep_a_large_one_from_being_counted():
    writer = Writer()                           # 256 sets, four registers
    for host in range(900):
        writer.sketches.see_all(packet(subscriber(host % 9), f"192.0.{host >> 8}.{host & 255}"), names(6))
    assert writer.table().counters["lacking"] > 0
    for number in range(40):
        writer.sketches.see_all(packet(subscriber(number), "203.0.113.80"), names(3000))
    found, shared, _, seen, whole = writer.figures(bytes((203, 0, 113, 80)))
    assert abs(found - 3000) <= 150 and shared > 2000 and seen >= 20


def test_whatever_comes_it_holds():
    dice = random.Random(7)
    writer, again = Writer(256), Writer(256)
    for _ in range(20_000):
        one = dice.choice((writer, again)).sketches
        place = f"192.0.{dice.randrange(8)}.{dice.randrange(256)}"
        one.see(packet(subscriber(dice.randrange(50)), place, dice.randrange(1, 65536)),
                dice.choice((dice.randbytes(dice.randrange(300)), b"h%d.example" % dice.randrange(5000))),
                dice.random() < 0.7)
    table = writer.table(again)
    assert table.addresses <= 512 and table.counters["replaced"] > 0
    tally = Tally()
    assert tally.add(table, bytes(4), b"\xff" * 4) == table.addresses
    assert 0 < tally.figures()[0] <= 5500


def test_a_writer_goes_on_where_another_was_killed():
    writer = Writer()
    writer.sketches.see_all(packet(), names(3000))
    writer.sketches = Sketches(writer.memory, SLOTS, KEYS[0])
    writer.sketches.see_all(packet(), names(3000))
    assert abs(writer.figures(HERE)[0] - 3000) <= 150


@pytest.mark.parametrize("share", [0.01, 0.25])
def test_of_a_sample_each_connection_counts_for_those_it_stands_for(share: float):
    limit = round(share * (1 << 32)) - 1
    writer = Writer(sample=limit, secret=77)
    packets = [packet(subscriber(number), sport=1024 + number % 50_000) for number in range(40_000)]
    inside = [one for one in packets if place_in_sample(one, 77) <= limit]
    assert abs(len(inside) - share * len(packets)) < 0.1 * share * len(packets) + 60
    for one in packets[:]:
        writer.sketches.see(one, b"www.example.com")
    flows = writer.figures(HERE)[2]
    assert flows == len(inside) * round(1 / share)
    writer.sketches.see(s.udp(b"x", destination="192.0.2.1"), b"www.example.com")
    assert writer.figures(HERE)[2] == flows + 1     # QUIC is queued whatever happens


def test_nothing_in_it_is_a_name_or_a_subscriber():
    key = os.urandom(16)
    writer = Writer(key=key)
    source, host = "198.51.100.201", b"a.very.private.example"
    writer.sketches.see(packet(source), host)
    writer.sketches.see_all(packet(source), names(100))
    client6 = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"
    writer.sketches.see(packet(client6, "2001:db8::1"), host)
    held = bytes(writer.memory) + close_parts([writer.memory])
    secrets = [bytes((198, 51, 100, 201)), bytes.fromhex("20010db8aaaabbbb"), host, b"private", key]
    for text in (host, bytes((198, 51, 100, 201)), bytes.fromhex("20010db8aaaabbbb")):
        secrets += [hashlib.new(kind, text).digest()[:size] for kind in ("md5", "sha1", "sha256", "blake2b")
                    for size in (8, 4)]
        secrets += [hash[::-1] for hash in secrets[-8:]]
    # Four bytes may be there by chance, in one of 2^32 of a hundred thousand places.
    assert [secret for secret in secrets if secret in held] == []
    # Under another key the same names leave other traces: nobody can try a name without it.
    other = Writer(key=KEYS[1])
    other.sketches.see(packet(source), host)
    mine = Writer(key=KEYS[2])
    mine.sketches.see(packet(source), host)
    assert bytes(other.memory) != bytes(mine.memory)


def test_a_table_that_somebody_has_altered_reads_nothing_beyond_itself():
    writer = Writer()
    for count, host in ((2, 1), (40, 2), (900, 3)):
        for number in range(9):
            writer.sketches.see_all(packet(subscriber(number), f"192.0.2.{host}"), names(count))
    whole = close_parts([writer.memory])
    slots = whole.index(HERE + bytes(12))
    dice = random.Random(3)
    for _ in range(3000):
        altered = bytearray(whole)
        for _ in range(dice.randrange(1, 6)):
            altered[dice.randrange(slots, slots + 192) if dice.randrange(2) else dice.randrange(len(whole))] = \
                dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
        try:
            table = Table(altered)
        except ValueError:
            continue
        tally = Tally()
        tally.add(table, bytes(4), b"\xff" * 4)
        tally.add(table, bytes(16), b"\xff" * 16)
        assert all(figure >= 0 for figure in tally.figures())


def test_a_table_that_is_cut_is_none():
    writer = Writer()
    writer.sketches.see_all(packet(), names(100))
    whole = close_parts([writer.memory])
    assert Table(whole).addresses == 1
    for size in (0, 10, len(whole) - 1):
        with pytest.raises(ValueError):
            Table(whole[:size])
    with pytest.raises(ValueError):
        Table(whole + b"x")
    with pytest.raises(ValueError):
        Sketches(bytearray(10), SLOTS, KEYS[0])
    with pytest.raises(ValueError):
        Sketches(bytearray(size_of(SLOTS)), 1000, KEYS[0])


def test_the_engine_tells_of_names_whose_sender_has_proved_himself():
    def asked(flags: int, **settings: str) -> tuple[int, ...]:
        engine = Engine(Matcher(), **settings)
        writer = Writer()
        engine.sketches = writer.sketches
        data = s.hello(b"www.example.com")
        engine.judge(s.tcp(99, b"", s.SYN, destination="192.0.2.1"), 1.0)
        for _ in range(2):                      # sent again
            engine.judge(s.tcp(100, data, destination="192.0.2.1"), 1.0, flags)
        engine.judge(s.tcp(7, s.request(b"www.example.net") + s.request(b"www.example.org"), sport=50_000, dport=80,
                           destination="192.0.2.1"), 1.0, flags)
        return writer.figures(HERE)[:4]

    assert asked(2, unproven="drop") == (3, 0, 2, 1)
    assert asked(0, unproven="drop") == (0, 0, 0, 0)
    assert asked(0, unproven="answer") == (3, 0, 2, 1)


def test_without_a_first_stage_everything_is_the_sample():
    assert ALL == (1 << 32) - 1
