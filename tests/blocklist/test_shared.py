"""The file of shared networks: its format, its mistakes, the data that ships, a slow reference for look-ups."""

import ipaddress
import time
from datetime import UTC, date, datetime
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.blocklist.ranges import last_of
from edgeblock.blocklist.shared import (
    NOTHING,
    OLD_DAYS,
    Shared,
    in_force,
    in_order,
    network_of,
    old_data,
    parse_shared,
    shipped_shared,
    write_shared,
)
from edgeblock.errors import ListError

HEAD = b"[A]\nkind = cdn\nsource = here\ndate = 2026-08-22\n"
TEXT = HEAD + b"""services = X Y
files = a.json
192.0.2.0/24
  198.51.100.7 Somebody else      # a note
2001:DB8::/32

# a comment
[B cloud]
kind = cloud
source = there
date = 2020-01-01
widest_ipv4 = 24
widest_ipv6 = 48
without = A
203.0.112.0/20
2001:db9::/36
"""
SHIPPED = shipped_shared()
KINDS = {"delivery network", "object store", "name servers", "name server", "cloud front end", "cloud", "sign-in",
         "updates", "site hosting", "public resolver", "front ends of every service of Google",
         "mail, documents and sign-in of many firms", "code, packages, containers and pages",
         "updates, push and sign-in", "Wikipedia and its sisters"}


def touched(shared: Shared, text: str) -> str | None:
    network = ipaddress.ip_network(text)
    first = network.network_address.packed
    found = shared.touched(first, last_of(first, network.prefixlen), network.prefixlen)
    return None if found is None else str(found)


def test_a_file_is_read_and_written_as_it_was():
    shared = parse_shared(TEXT, "own.networks")
    a, b = shared.sections
    assert (a.name, a.kind, a.source, a.date, a.services, a.files, a.widest, a.without) == (
        "A", "cdn", "here", date(2026, 8, 22), ("X", "Y"), ("a.json",), None, "")
    assert (b.name, b.widest, b.without, len(b.rows)) == ("B cloud", (24, 48), "A", 2)
    again = parse_shared(write_shared(shared, "# head\n").encode(), "again")
    assert write_shared(again) == write_shared(shared) and [s.rows for s in again.sections] == [a.rows, b.rows]


def test_what_is_touched():
    shared = parse_shared(TEXT, "own.networks")
    assert touched(shared, "192.0.2.9/32") == "192.0.2.0/24 of A (cdn, as of 2026-08-22)"
    assert touched(shared, "198.51.100.0/24") == "198.51.100.7/32 of Somebody else (cdn, as of 2026-08-22)"
    assert touched(shared, "2001:db8:1::/48") is not None and touched(shared, "198.51.100.8/32") is None
    assert touched(shared, "203.0.113.0/24") is None and touched(shared, "203.0.112.0/23") is not None
    assert touched(shared, "2001:db9::/48") is None and touched(shared, "2001:db9::/47") is not None
    other = HEAD.replace(b"[A]", b"[D]") + b"widest_ipv4 = 16\nwidest_ipv6 = 16\n203.0.120.0/24\n"
    mixed = parse_shared(TEXT + other, "own.networks")
    assert "of B cloud" in str(touched(mixed, "203.0.112.0/20")) and touched(mixed, "203.0.120.0/23") is not None
    assert touched(NOTHING, "192.0.2.9/32") is None


@pytest.mark.parametrize(("text", "why"), [
    (b"192.0.2.0/24\n", "1: networks stand before any [Owner]"),
    (b"kind = x\n", "1: kind stands before any [Owner]"),
    (b"[]\n", "1: '[]' is no head of a section"), (b"[A\n", "1: '[A' is no head"),
    (HEAD + b"192.0.2.1/24\n", "5: 192.0.2.1/24 has host bits set"),
    (HEAD + b"192.0.2.0/33\n", "5: '192.0.2.0/33' does not appear to be"),
    (HEAD + b"192.0.2.0/\n", "5: "), (HEAD + b"1.2.3\n", "5: "), (HEAD + b"192.0.2.0/-1\n", "5: "),
    (HEAD + b"nonsense\n", "5: 'nonsense' is neither"), (HEAD + b"colour = red\n", "5: unknown key 'colour'"),
    (HEAD + b"kind = x\n", "5: kind is there a second time"),
    (HEAD + b"192.0.2.1\nservices = x\n", "6: services stands behind networks"),
    (HEAD, "4: the section [A] that ends here has no network"),
    (HEAD + b"192.0.2.1\n[A]\n", "6: [A] is there a second time"),
    (b"[A]\nkind = x\nsource = y\n192.0.2.1\n", "4: the section [A] that ends here lacks date"),
    (b"[A]\nkind = x\ndate = 2026-01-01\n192.0.2.1\n", "4: the section [A] that ends here lacks source"),
    (b"[A]\nkind = x\nsource = y\ndate = yesterday\n192.0.2.1\n", "5: the section [A] that ends here has date"),
    (HEAD + b"widest_ipv4 = 24\n192.0.2.1\n", "6: the section [A] that ends here needs widest_ipv4"),
    (HEAD + b"widest_ipv4 = 24\nwidest_ipv6 = 129\n192.0.2.1\n", "7: the section [A] that ends here needs"),
    (HEAD + b"services =\n", "5: services is empty"), (b"\xff", " is no text in UTF-8")])
def test_a_mistake_is_one_line_with_its_place(text, why):
    with pytest.raises(ListError) as refused:
        parse_shared(text, "own.networks")
    assert str(refused.value).startswith(f"own.networks:{why}") and "\n" not in str(refused.value)


def test_an_empty_file_says_nothing():
    assert parse_shared(b"# nothing\n", "own.networks").sections == ()


def test_sections_of_one_name_are_replaced_and_others_added():
    first = parse_shared(TEXT, "one")
    second = parse_shared(HEAD.replace(b"[A]", b"[C]") + b"203.0.113.0/24\n\n" + HEAD + b"203.0.114.0/24\n", "two")
    joined = first.joined(second)
    assert [(one.name, len(one.rows)) for one in joined.sections] == [("A", 1), ("B cloud", 2), ("C", 1)]
    assert first.joined(NOTHING) is first and NOTHING.joined(second).sections == second.sections


def test_old_data_is_named_with_the_way_out():
    shared = parse_shared(TEXT, "own.networks")
    day = datetime(2026, 11, 30, tzinfo=UTC).timestamp()
    told = old_data(shared, day)
    assert told.startswith(f"ranges of shared networks are older than {OLD_DAYS} days: B cloud (2020-01-01); get ")
    assert "edgeblock guard --update FILE..." in told and "\n" not in told
    assert old_data(shared, datetime(2020, 6, 1, tzinfo=UTC).timestamp()) is None
    assert len(shared.old(datetime(2029, 1, 1, tzinfo=UTC).timestamp())) == 2


# What ships ------------------------------------------------------------------------------------------------------

def test_every_shipped_row_has_an_owner_a_source_and_a_date():
    assert len(SHIPPED.sections) >= 25 and sum(len(section.rows) for section in SHIPPED.sections) > 5000
    for section in SHIPPED.sections:
        assert section.kind in KINDS and section.source.startswith("https://"), section
        assert date(2025, 1, 1) <= section.date <= date(2026, 11, 30) and section.rows, section
        assert section.widest in (None, (24, 48)) and (section.widest is None) == (section.kind != "cloud")
        assert section.without in {"", *(other.name for other in SHIPPED.sections)}


def test_the_shipped_rows_are_sorted_and_public_and_stand_once():
    for section in SHIPPED.sections:
        assert list(section.rows) == in_order(section.rows), section.name
        for row in section.rows:
            assert row.network.is_global, network_of(row)
            assert row.length >= (8 if len(row.first) == 4 else 24), network_of(row)
    text = (files("edgeblock.blocklist") / "shared.networks").read_text()
    head = text[:text.index("\n[") + 1].rstrip("\n") + "\n"
    assert write_shared(SHIPPED, head) == text


@pytest.mark.parametrize("narrow", [False, True])
def test_no_two_owners_claim_the_same_address(narrow):
    rows = in_order(row._replace(word=section.name) for section in SHIPPED.sections
                    if (section.widest is not None) == narrow for row in section.rows)
    assert [(network_of(one), one.word, network_of(other), other.word)
            for one, other in zip(rows, rows[1:], strict=False)
            if len(one.first) == len(other.first) and other.first <= last_of(one.first, one.length)] == []


def test_the_shipped_data_is_parsed_once_and_only_if_asked():
    fresh = shipped_shared()
    assert fresh is SHIPPED and in_force(None) is SHIPPED
    shipped_shared.cache_clear()
    try:
        unread = shipped_shared()
        assert "sections" not in vars(unread)
        begun = time.process_time()
        assert touched(unread, "104.16.1.1/32") is not None
        assert time.process_time() - begun < 1.0        # some 25 ms on an idle machine
    finally:
        shipped_shared.cache_clear()


PLACES = st.sampled_from([row.network for section in SHIPPED.sections for row in section.rows[::7]])


@st.composite
def near(draw):
    place = draw(PLACES)
    bits = place.max_prefixlen
    step = draw(st.sampled_from([-1, 0, 1, place.num_addresses]))
    start = min(max(int(place.network_address) + step, 0), 2**bits - 1)
    address = ipaddress.ip_address(start) if bits == 32 else ipaddress.IPv6Address(start)
    return ipaddress.ip_network((address, draw(st.integers(8, bits))), strict=False)


ALL = [(row.network, section) for section in SHIPPED.sections for row in section.rows]


@given(near())
def test_any_network_is_found_as_a_slow_search_finds_it(network):
    expected = any(other.version == network.version and other.overlaps(network)
                   and (section.widest is None or network.prefixlen < section.widest[network.version == 6])
                   for other, section in ALL)
    assert (touched(SHIPPED, str(network)) is not None) == expected
