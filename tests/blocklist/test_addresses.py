"""Address entries as ranges: the same as the matcher says of every address in and around them."""

import ipaddress
import random

import pytest

from edgeblock import config
from edgeblock.addresses import (
    EMPTY,
    HALVES4,
    PROVIDERS6,
    SITES4,
    SITES6,
    Addresses,
    What,
    count_wide,
    embedded,
    octets_of,
    translated,
    with_new,
)
from edgeblock.blocklist import addresses
from edgeblock.blocklist.addresses import Reader, read_addresses
from edgeblock.blocklist.compiler import for_list, lay_over, merge
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.parts import ADDRESS, IS_IPV6
from edgeblock.blocklist.refresh import refresh
from edgeblock.blocklist.rows import Rows
from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.snapshot import HEADERS, open_snapshot, pack
from edgeblock.blocklist.store import Store
from edgeblock.errors import ListError

from .making import KEY, compiled

SAYS = {"accept": What.PASS, "observe": What.OBSERVE, "drop": What.DROP, "reset": What.RESET, "page": What.RESET}
NEARS = HALVES4, SITES4, SITES6, PROVIDERS6
KINDS = [ListSettings(action="drop"), ListSettings(action="reset", mandatory=True), ListSettings(action="observe"),
         ListSettings(action="page")]


def asked(addresses: Addresses, address: bytes, port: int) -> tuple[What, str] | None:
    """What holds of packets to that port, as a kernel finds it: endpoints first, then spans."""
    family, number = 4 if len(address) == 4 else 6, int.from_bytes(address)
    for one in addresses.endpoints[family]:
        if (one.address, one.port) == (number, port):
            return one.what, one.owner
    found = [one for one in addresses.spans[family] if one.first <= number <= one.last]
    assert len(found) <= 1
    return (found[0].what, found[0].owner) if found else None


def lines_of(dice: random.Random, family: int) -> list[str]:
    lines = []
    for _ in range(dice.randrange(1, 12)):
        if family == 4:
            address, length = dice.randrange(16) + (203 << 24), dice.choice([28, 29, 30, 31, 32])
            network = ipaddress.ip_network((address >> 32 - length << 32 - length, length))
            endpoint = f"{ipaddress.IPv4Address(address)}:{dice.choice([80, 443])}"
        else:
            address, length = dice.randrange(16) + (0x20010DB8 << 96), dice.choice([124, 126, 127, 128])
            network = ipaddress.ip_network((address >> 128 - length << 128 - length, length))
            endpoint = f"[{ipaddress.IPv6Address(address)}]:{dice.choice([80, 443])}"
        lines.append(("@@" if dice.random() < 0.3 else "") + (endpoint if dice.random() < 0.4 else str(network)))
    return lines


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("seed", range(60))
def test_ranges_say_what_the_matcher_says(family: int, seed: int):
    dice = random.Random(seed)
    lists = [(f"list{i}", dice.choice(KINDS), lines_of(dice, family)) for i in range(dice.randrange(1, 4))]
    parts = compiled(*lists)
    addresses, matcher = read_addresses(parts), ListMatcher(open_snapshot(pack(parts, KEY, 0), KEY))
    for spans in addresses.spans.values():
        assert all(one.first <= one.last for one in spans)
        assert all(one.last < other.first for one, other in zip(spans, spans[1:], strict=False))
    base = (203 << 24) - 2 if family == 4 else (0x20010DB8 << 96) - 2
    for offset in range(20):
        address = (base + offset).to_bytes(4 if family == 4 else 16)
        for port in (0, 80, 443):
            found = matcher.look_up_address(address, port)
            told = asked(addresses, address, port)
            if found is None or found.action == "accept":
                assert told is None or told[0] is What.PASS
            else:
                assert told == (SAYS[found.action], found.list), (address, port, lists)


def test_all_there_is_and_both_ends():
    parts = compiled(("list", None, ["0.0.0.0/0", "@@255.255.255.255", "::/0"]))
    spans = read_addresses(parts).spans
    assert [(one.first, one.last) for one in spans[4]] == [(0, (1 << 32) - 2)]
    assert [(one.first, one.last) for one in spans[6]] == [(0, (1 << 128) - 1)]
    parts = compiled(("list", None, ["255.255.255.254/31", "0.0.0.0/32"]))
    assert [(one.first, one.last) for one in read_addresses(parts).spans[4]] == [
        (0, 0), ((1 << 32) - 2, (1 << 32) - 1)]


def test_an_expired_list_says_nothing_and_indexes_are_those_of_the_merged_table():
    first, second = compiled(("a", None, ["192.0.2.1"])), compiled(("b", None, ["192.0.2.2"]))
    second.lists[0].part = "b"
    both = merge([first, second])
    assert [(one.first & 0xFF, one.owner) for one in read_addresses(both).spans[4]] == [(1, "a"), (2, "b")]
    first.lists[0].expired = True
    assert [one.owner for one in read_addresses(merge([first, second])).spans[4]] == ["b"]
    base = merge([second])
    over = lay_over([compiled(("a", None, ["192.0.2.9"])), second], "digest", base)
    assert [(one.first & 0xFF, one.owner) for one in read_addresses(over).spans[4]] == [(2, "b"), (9, "a")]


def test_indexes_of_two_bytes():
    assert bytes(for_list(for_list(compiled(("a", None, ["192.0.2.1"])).addresses, 0x1234), 0x0102)[20:22]) == b"\2\1"


def test_a_snapshot_of_the_version_before_is_read_without_addresses():
    parts = compiled(("a", None, ["192.0.2.1", "listed.example"]))
    whole = open_snapshot(pack(parts, KEY, 7), KEY)
    assert bytes(whole.parts.addresses) and len(read_addresses(whole.parts).spans[4]) == 1
    old = open_snapshot(of_version_2(parts), KEY)
    assert bytes(old.parts.addresses) == b"" and ListMatcher(old).look_up("tls", b"listed.example")
    assert ListMatcher(old).look_up_address(bytes([192, 0, 2, 1]))


def of_version_2(parts: object) -> bytes:
    """What the version before has written."""
    from edgeblock.blocklist import snapshot

    was = snapshot.VERSION, snapshot.HEADER, snapshot.Body.write
    pieces: list[bytes] = []

    def write(body: snapshot.Body, data: bytes) -> None:
        pieces.append(bytes(data))

    snapshot.Body.write = write
    try:
        pack(parts, KEY, 7)
    finally:
        snapshot.Body.write = was[2]
    lists, bitmap, ipv4, _, rows = pieces
    header = HEADERS[2]
    body, places, at = b"".join((lists, bitmap, ipv4, rows)), [], header.size
    for section in (lists, bitmap, ipv4, rows):
        places += [at, len(section)]
        at += len(section)
    sums = b"".join(snapshot.sum_of(body[i:i + snapshot.CHUNK], KEY) for i in range(0, len(body), snapshot.CHUNK))
    places += [at, len(sums)]
    words = [parts.ipv6_lengths >> shift & 0xFFFFFFFFFFFFFFFF for shift in (0, 64, 128)]
    head = header.pack(b"EBLIST\r\n", 2, header.size, len(parts.lists), snapshot.key_id(KEY), 7,
                       at + len(sums), *places, parts.labels, parts.depths, parts.ipv4_lengths, *words,
                       parts.url_max, parts.directory_max, bytes(32))[:-32]
    return head + snapshot.sum_of(head + sums, KEY) + body + sums


@pytest.mark.parametrize(("nat64", "text"), [
    ("2001:db8::/32", "2001:db8:c000:221::"), ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
    ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"), ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
    ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
    ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
])
def test_the_table_of_rfc_6052(nat64: str, text: str):
    """Section 2.4, figure 2."""
    assert embedded(ipaddress.IPv6Address(text).packed, (nat64,)) == [bytes([192, 0, 2, 33])]


@pytest.mark.parametrize(("text", "found"), [
    ("64:ff9b::c000:221", [192, 0, 2, 33]), ("::ffff:192.0.2.33", [192, 0, 2, 33]),
    ("2002:c000:221::1", [192, 0, 2, 33]),
    ("2001:0:4136:e378:8000:63bf:3fff:fdde", [192, 0, 2, 33]), ("2001:db8::1", None), ("64:ff9b:1::c000:221", None)])
def test_other_ways_to_an_ipv4_address(text: str, found: list[int] | None):
    assert embedded(ipaddress.IPv6Address(text).packed) == ([bytes(found)] if found else [])


def test_places_of_octets():
    assert octets_of(32) == (4, 5, 6, 7) and octets_of(56) == (7, 9, 10, 11) and octets_of(64) == (9, 10, 11, 12)
    assert octets_of(96) == (12, 13, 14, 15) and octets_of(16) == (2, 3, 4, 5)


@pytest.mark.parametrize("seed", range(40))
def test_every_opinion_is_one_on_addresses_that_lead_to_ipv4(seed: int):
    """The matcher, the rows read in plain Python, and the ranges of a kernel that looks up both addresses."""
    dice = random.Random(seed)
    lists = [(f"list{i}", dice.choice(KINDS), lines_of(dice, 4)) for i in range(dice.randrange(1, 3))]
    nat64 = ("2001:db8:122:300::/56", "2001:db8:64::/64", "2001:db8:100::/40")
    parts = compiled(*lists)
    parts.nat64 = nat64
    snapshot = open_snapshot(pack(parts, KEY, 0), KEY)
    matcher, rows, addresses = ListMatcher(snapshot), Rows(snapshot), read_addresses(snapshot.parts)
    for number in range((203 << 24) - 2, (203 << 24) + 18):
        plain = number.to_bytes(4)
        for way in translated(nat64):
            octets = bytes(byte ^ 0xFF for byte in plain) if way.flipped else plain
            address = bytearray(way.prefix.network_address.packed)
            for at, octet in zip(octets_of(way.at), octets, strict=True):
                address[at] = octet
            for port in (80, 443):
                found, wanted = (matcher.look_up_address(one, port) for one in (bytes(address), plain))
                assert found == wanted, (lists, plain, way)
                assert rows.address(bytes(address), port) == rows.address(plain, port)
                told = asked(addresses, plain if way.bit is not None else bytes(address), port)
                assert (told[0] if told else What.PASS) == SAYS[wanted.action if wanted else "accept"]


@pytest.mark.parametrize("seed", range(20))
def test_what_is_new_joins_what_is_there(seed: int):
    dice = random.Random(seed)
    old, new = (read_addresses(compiled(("list", KINDS[0], lines_of(dice, 4)))) for _ in range(2))
    both = with_new(old, new)
    for number in range((203 << 24) - 2, (203 << 24) + 18):
        for port in (0, 80, 443):
            was, told = asked(old, number.to_bytes(4), port), asked(both, number.to_bytes(4), port)
            assert told == was or was is None or (number, port) in {one[:2] for one in new.endpoints[4]}
    assert set(old.spans[4]) <= set(both.spans[4]) and with_new(old, old) == old
    assert with_new(EMPTY, new).spans == new.spans


def test_snapshots_say_what_leads_to_ipv4_here():
    parts = compiled(("list", None, ["192.0.2.1"]))
    address = ipaddress.IPv6Address("2001:db8:64::192.0.2.1").packed
    assert ListMatcher(open_snapshot(pack(parts, KEY, 0), KEY)).look_up_address(address) is None
    here = ("2001:db8:64::/96",)
    for made in (merge([parts], here), lay_over([parts], "digest", merge([]), here)):
        assert open_snapshot(pack(made, KEY, 0), KEY).parts.nat64 == ("2001:db8:64::/96",)
    whole = open_snapshot(pack(merge([parts], ("2001:db8:64::/96",)), KEY, 0), KEY)
    assert ListMatcher(whole).look_up_address(address).list == "list"


def test_a_last_good_version_of_an_older_edgeblock_is_told(tmp_path):
    """Its list is refused now, so nothing newer is there."""
    rules, store = tmp_path / "rules", Store(tmp_path / "state", KEY)
    rules.mkdir()
    (rules / "court.list").write_text("a..b\n")
    store.prepare()
    old = of_version_2(compiled(("court", None, ["192.0.2.1", "listed.example"])))
    (store.lists / "court.part").write_bytes(old)
    settings = config.Rules(directory=rules, key=tmp_path / "state" / "key")
    outcome = refresh(settings, store, 1_700_000_000)
    assert outcome.refused
    assert [one for one in outcome.warnings if one.startswith("court: the version in force is of an older")]
    (rules / "court.list").write_text("192.0.2.1\n")
    outcome = refresh(settings, store, 1_700_000_000)
    assert not outcome.refused and outcome.warnings == []


@pytest.mark.parametrize("seed", range(40))
def test_what_is_read_again_is_as_if_read_for_the_first_time(seed: int):
    """Lists come, go, change, expire and have others before them; what differs is all that a kernel is told."""
    dice, reader, before = random.Random(seed), Reader(), EMPTY
    lists = {"b": (KINDS[0], lines_of(dice, 4) + lines_of(dice, 6))}
    for name in dice.choices("abc", k=8):
        if dice.random() < 0.3:
            lists.pop(name, None)
        else:
            lists[name] = dice.choice(KINDS), [*lines_of(dice, 4), *lines_of(dice, 6), *wide_lines(dice)]
        parts = compiled(*((name, *lists[name]) for name in sorted(lists)))
        now = reader.read(parts)
        assert now == read_addresses(parts)
        assert now.wides == count_wide(now.spans)
        come, gone, both = now.without(before), before.without(now), with_new(before, now)
        assert both.wides == count_wide(both.spans)
        for family in (4, 6):
            assert set(come.spans[family]) >= set(now.spans[family]) - set(before.spans[family]) - {
                one for one in now.spans[family] if one[:3] in before.ranges[family]}
            assert come.ranges[family] == now.ranges[family] - before.ranges[family]
            assert gone.ranges[family] == before.ranges[family] - now.ranges[family]
            assert come.ports[family] == now.ports[family] - before.ports[family]
        for what in NEARS:
            near = now.near(what)
            assert all(now.is_near(what, top) == (top in near) for top in near | before.near(what))
        before = dice.choice([now, both])


def wide_lines(dice: random.Random) -> list[str]:
    return dice.sample(["203.0.0.0/16", "203.1.0.0/16", "2001:db8::/32", "2001:c00::/22", "@@203.0.0.0/17",
                        "203.0.8.0/22"], 2)


def test_more_owners_than_are_remembered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(addresses, "OWNERS_MAX", 2)
    reader = addresses.Reader()
    for name in "abcd":
        assert [one.owner for one in reader.read(compiled((name, None, ["192.0.2.1"]))).spans[4]] == [name]


def test_an_entry_that_cannot_be():
    parts = compiled(("a", None, ["192.0.2.1"]))
    for at, value in ((16, 33), (20, 1)):
        parts.addresses = bytearray(compiled(("a", None, ["192.0.2.1"])).addresses)
        parts.addresses[at] = value
        with pytest.raises(ListError, match="cannot be"):
            read_addresses(parts)


def test_a_reader_goes_on_where_a_snapshot_could_not_be_read():
    reader = Reader()
    first = reader.read(compiled(("a", None, ["192.0.2.0/24", "2001:db8::/32"])))
    wrong = compiled(("a", None, ["192.0.2.0/25"]))
    wrong.addresses += ADDRESS.pack(bytes(16), 129, IS_IPV6, 0, 0)
    with pytest.raises(ListError, match="cannot be"):
        reader.read(wrong)
    many = compiled(("a", None, ["192.0.2.1", "192.0.2.3", "2001:db8::1"]))
    with pytest.raises(ListError, match="3 ranges of addresses are listed, .* at most 2; list wider prefixes"):
        reader.read(many, 2)
    assert reader.read(compiled(("a", None, ["192.0.2.0/24", "2001:db8::/32"]))) == first
    assert reader.read(many, 3) == read_addresses(many)


def test_entries_that_are_no_prefixes_are_refused():
    """Beyond each other's ends they would nest as deep as there are entries."""
    parts = compiled(("a", None, ["192.0.2.1"]))
    addresses_ = (bytes(12) + number.to_bytes(4) for number in range(5000))
    parts.addresses = b"".join(ADDRESS.pack(address, 8, IS_IPV6, 0, 0) for address in addresses_)
    with pytest.raises(ListError, match="cannot be"):
        read_addresses(parts)


def test_prefixes_in_two_pieces_are_bounded(monkeypatch):
    monkeypatch.setattr(addresses, "ENTRIES_MAX", 3)
    parts = compiled(("a", None, ["192.0.2.1", "192.0.2.3"]))
    parts.nat64 = ("2001:db8::/40", "2001:db8:100::/40")
    with pytest.raises(ListError, match="2 address entries are too many for 2 NAT64 prefixes"):
        read_addresses(parts)
