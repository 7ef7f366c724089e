"""Address rules: what their text says, and that the kernel has what it was given. What live traffic meets is in
tests/live/test_address_rules.py.
"""

import ipaddress
from dataclasses import replace

import pytest
from triple import SERVER, inside

from edgeblock.addresses import (
    EMPTY,
    PROVIDERS6,
    SITES4,
    SITES6,
    Addresses,
    Endpoint,
    Span,
    What,
    octets_of,
    translated,
)
from edgeblock.config import Config
from edgeblock.errors import SystemProblem
from edgeblock.netfilter import addresses

FULL4, FULL6 = (1 << 32) - 1, (1 << 128) - 1
TABLES = [
    EMPTY,
    Addresses({4: (Span(0, 0, What.DROP, "list0"), Span(1, 9, What.RESET, "list1"),
                   Span(FULL4, FULL4, What.OBSERVE, "list2")),
               6: (Span(0, 5, What.PASS, "list0"), Span(1 << 127, FULL6, What.DROP, "list0"))},
              {4: (Endpoint(7, 443, What.PASS, "list0"), Endpoint(7, 444, What.DROP, "list3")),
               6: (Endpoint(7, 1, What.RESET, "list0"),)}),
    Addresses({4: (Span(0, FULL4, What.DROP, "list0"),), 6: (Span(0, FULL6, What.RESET, "list0"),)}, {4: (), 6: ()}),
    Addresses({4: (Span(3, 3, What.DROP, "list0"), Span(4, 4, What.RESET, "list0")), 6: ()}, {4: (), 6: ()}),
]


def changed(**ruleset):
    return replace(Config(), ruleset=replace(Config().ruleset, **ruleset))


def chain(config, name):
    return addresses.chains(config)[name]


def test_only_what_goes_between_the_interfaces_is_looked_at():
    config = changed(clients=("eth1", "ppp*"), servers=("eth0",))
    assert chain(replace(config, canary=replace(config.canary, enabled=False)), "forward")[1:] == [
        'iifname { "eth1" } oifname { "eth0" } jump to_server', 'iifname "ppp*" oifname { "eth0" } jump to_server',
        'iifname { "eth0" } oifname { "eth1" } jump from_server',
        'iifname { "eth0" } oifname "ppp*" jump from_server']
    assert chain(config, "forward")[1] == \
        'iifname { "eth1", "edgeblock-c" } oifname { "eth0", "edgeblock-s" } jump to_server'


def test_where_no_interface_is_named_a_packet_is_asked_as_little_as_can_be():
    planned = addresses.chains(Config())
    assert planned["forward"][1:] == [
        "meta nfproto ipv6 goto forward6", "@nh,128,32 & 0xffffff00 @near4 jump to_server_near4",
        "@nh,96,32 & 0xffffff00 @near4 jump from_server_near4"]
    assert planned["forward6"] == ["@nh,192,32 @first6 jump to_server6", "@nh,64,32 @first6 jump from_server6"]
    assert "to_server" not in planned and "to_server_first" not in planned
    assert chain(changed(exempt_clients=("192.0.2.0/24",)), "forward")[1:] == ["jump to_server", "jump from_server"]
    planned = addresses.chains(Config(), wide={SITES4, PROVIDERS6})
    assert "jump to_server_wide4" in planned["forward"] and planned["forward6"][0] == "jump to_server6"


@pytest.mark.parametrize("nat64", [(), ("2001:db8:64::/96", "2a00:1::/32")])
def test_the_first_words_of_what_leads_to_a_listed_address_are_asked_for(nat64):
    table = replace(EMPTY, spans={4: (Span(0xC000024D, 0xC000024D, What.DROP, "a"),), 6: ()})
    words = addresses.near_keys(table, nat64)["first6"]
    for way in translated(nat64):
        place = bytearray(way.prefix.network_address.packed)
        for at, octet in zip(octets_of(way.at), (0xC0, 0, 2, 0x4D), strict=True):
            place[at] = octet ^ 0xFF if way.flipped else octet
        assert int.from_bytes(place[:4]) in words, way
        assert addresses.is_needed(table, "first6", int.from_bytes(place[:4]), nat64)
    assert addresses.near_keys(EMPTY, nat64)["first6"] < words
    assert not addresses.is_needed(EMPTY, "first6", 0x2002C000, nat64)



def test_answers_of_ours_and_loopback_pass_and_each_hook_has_its_side():
    config = changed(hooks=("input", "output"))
    assert set(addresses.chains(config)) >= {"input", "output"} and "forward" not in addresses.chains(config)
    assert "lo" in chain(config, "input")[1] and "fib saddr type != local" in chain(config, "output")[1]


def test_who_is_exempt_is_asked_first_on_both_sides():
    config = changed(exempt_clients=("192.0.2.0/24",), exempt_servers=("2001:db8::1",))
    assert chain(config, "to_server")[0].startswith("ip saddr { 192.0.2.0/24 } counter return")
    assert chain(config, "to_server")[1].startswith("ip6 daddr { 2001:db8::1")
    assert chain(config, "from_server")[0].startswith("ip daddr { 192.0.2.0/24 }")


def test_who_is_listed_gets_no_answer():
    assert chain(Config(), "from_server_near4")[0] == "meta mark set meta mark | 0x80000000"
    assert chain(Config(), "from_server_near4")[-1] == "meta mark set meta mark & 0x7fffffff"
    assert chain(Config(), "address_reset")[0].startswith("meta mark & 0x80000000 == 0x80000000 counter drop")
    assert not any("mark" in rule for rule in chain(Config(), "to_server_near4"))


def test_an_ipv4_address_in_two_pieces_has_no_look_up_of_its_own():
    """RFC 6052, 2.2: byte 8 is left out, so prefixes of 40, 48 and 56 bits cut it."""
    told = "\n".join(addresses.chains(Config(), ("2001:db8:64::/64", "2001:db8:100::/40"))["to_server_inside"])
    assert "2001:db8:64::/64 @nh,264,32 & 0xffffff00 @near4 @nh,264,32 vmap @address4" in told
    assert "2001:db8:100::" not in told
    assert "wide4" not in told
    wide = "\n".join(addresses.chains(Config(), wide={SITES4})["to_server_inside"])
    assert "64:ff9b::/96 @nh,288,32 vmap @wide4" in wide
    assert "2001::/32 @nh,288,32 & 0xffffff00 ^ 0xffffff00 @near4 @nh,288,32 ^ 0xffffffff vmap @address4" in told


def test_another_shape_has_another_stamp():
    stamps = {addresses.stamp(addresses.chains(config, nat64)) for config, nat64 in (
        (Config(), ()), (changed(clients=("eth1",)), ()), (Config(), ("2001:db8:64::/96",)))}
    stamps.add(addresses.stamp(addresses.chains(Config(), wide={SITES6})))
    assert len(stamps) == 4


@pytest.fixture
def box(triple):
    yield triple.box
    inside(triple.box, addresses.remove)


def put(before, after):
    if before.wide == after.wide:
        addresses.change(before, after)
    else:
        addresses.apply(Config(), after)
    assert addresses.is_there(after) and addresses.standing(Config(), after).take() == []


@pytest.mark.live
def test_the_kernel_has_what_it_was_given(box):
    def body():
        assert not addresses.present()
        addresses.apply(Config(), TABLES[1])
        assert addresses.present() and addresses.is_there(TABLES[1])
        before = TABLES[1]
        for table in (*TABLES, *reversed(TABLES)):
            put(before, table)
            before = table
        for table in TABLES:                # taken on, and made whole
            addresses.apply(Config(), table)
            assert addresses.is_there(table)
            addresses.apply(changed(clients=("eth1",)), table)
            assert addresses.is_there(table)

    inside(box, body)


@pytest.mark.live
def test_a_change_of_what_is_not_there_changes_nothing(box):
    def body():
        addresses.apply(Config(), TABLES[3])
        with pytest.raises(SystemProblem, match="address rules: "):
            addresses.change(TABLES[1], TABLES[2])
        assert addresses.is_there(TABLES[3])

    inside(box, body)


@pytest.mark.live
def test_more_neighbourhoods_than_their_sets_have_room_for(box):
    """Then a change fails as a whole, and the table is written anew with more room."""
    many = Addresses({4: tuple(Span(number << 8, number << 8, What.DROP, "a") for number in range(40)), 6: ()},
                     EMPTY.endpoints)

    def body():
        addresses.SIZE_LEAST = 16
        addresses.apply(Config(), TABLES[3])
        with pytest.raises(SystemProblem, match="address rules: "):
            addresses.change(TABLES[3], many)
        assert addresses.is_there(TABLES[3])
        assert addresses.apply(Config(), many)
        assert addresses.is_there(many)

    before = addresses.SIZE_LEAST
    try:
        inside(box, body)
    finally:
        addresses.SIZE_LEAST = before


@pytest.mark.live
@pytest.mark.parametrize("family", [4, 6])
def test_an_address_is_shut_and_counted_and_opens_again(triple, box, family):
    number = int(ipaddress.ip_address(SERVER[family]))
    shut = replace(EMPTY, spans={**EMPTY.spans, family: (Span(number, number, What.RESET, "list5"),)})
    inside(box, lambda: addresses.apply(Config(), EMPTY))
    triple.connect(family).close()
    inside(box, lambda: addresses.change(EMPTY, shut))
    with pytest.raises(ConnectionRefusedError):
        triple.connect(family)
    [(spot, packets)] = inside(box, lambda: list(addresses.counted()))
    assert packets >= 1 and addresses.spots(shut)[spot] == "list5"
    inside(box, lambda: addresses.change(shut, EMPTY))
    triple.connect(family).close()


@pytest.mark.live
def test_what_is_taken_away_is_noticed(triple, box):
    def lost(how):
        addresses.apply(Config(), TABLES[1])
        stands = addresses.standing(Config(), TABLES[1])
        assert stands.take() == []
        triple.run("nft", *how)
        return stands.lost() or not addresses.is_there(TABLES[1])

    for how in (("flush", "ruleset"), ("flush", "chain", "inet", addresses.TABLE, "address_drop"),
                ("flush", "map", "inet", addresses.TABLE, "address6")):
        assert inside(box, lambda how=how: lost(how)), how


@pytest.mark.live
def test_what_is_near_or_anothers_is_noticed_and_made_good(triple, box):
    def body():
        addresses.apply(Config(), TABLES[3])
        for how in (("delete", "element", "inet", addresses.TABLE, "near4", "{ 0x00000000 }"),
                    ("delete", "element", "inet", addresses.TABLE, "first6", "{ 0x0064ff9b }"),
                    ("add", "element", "inet", addresses.TABLE, "address4", "{ 0x01020304 : drop }")):
            triple.run("nft", *how)
            try:
                assert not addresses.is_there(TABLES[3])
            except addresses.Foreign:
                assert how[0] == "add"
            assert addresses.apply(Config(), TABLES[3])
            assert addresses.is_there(TABLES[3])

    inside(box, body)


@pytest.mark.live
def test_what_is_watched_does_not_hide_what_is_dropped(triple, box):
    """A wide range of IPv6 that is only watched, and an IPv4 address that one of it leads to."""
    watched = (0x2002 << 112, (0x2003 << 112) - 1)
    table = Addresses({4: (Span(0xC000024D, 0xC000024D, What.DROP, "a"),),
                       6: (Span(*watched, What.OBSERVE, "b"),)}, EMPTY.endpoints)
    inside(box, lambda: addresses.apply(Config(), table))
    rules = inside(box, lambda: addresses.text(Config(), table))
    assert f": jump {addresses.CHAINS[What.OBSERVE]}" in rules
    assert inside(box, lambda: addresses.is_there(table))
