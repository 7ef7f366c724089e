"""What is said of prefixes, ranges and addresses of which a port is listed, against one look-up for each address."""

import ipaddress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.blocklist.explain import explain, record_of
from edgeblock.blocklist.load import load
from edgeblock.blocklist.within import ENTRIES_MAX, Range, look_inside
from edgeblock.config import Rules


def loaded(tmp_path, text, settings="action = 'page'", **rules):
    (tmp_path / "a.list").write_text(text)
    (tmp_path / "a.toml").write_text(settings)
    return load(tmp_path, Rules(**rules) if rules else None)


def ip(record):
    [verdict] = [one for one in record.verdicts if one.proto == "ip"]
    return verdict


@pytest.mark.parametrize(("asked", "verdict", "why", "blocked"), [
    ("192.0.2.16/30", "reset", "a block (a.list:1, address); for an address no page can be shown", True),
    ("192.0.2.17/32", "reset", "a block (a.list:1, address); for an address no page can be shown", True),
    ("192.0.2.16-192.0.2.19", "reset", "a block (a.list:1, address); for an address no page can be shown", True),
    ("192.0.2.0/24", "partly", "not all of it alike: reset by list a; the rest passes", True),
    ("198.51.100.0/24", "partly", "not all of it alike: reset by list a; the rest passes", True),
    ("203.0.113.0/24", "accept", "nothing listed applies to every port; single ports in it are listed", False),
    ("203.0.113.9", "accept", "only a port of it is listed; ask for 203.0.113.9:443", False),
    ("203.0.113.9:443", "reset", "a block (a.list:4, address and port); for an address no page can be shown", True),
    ("203.0.113.9:80", "accept", "nothing listed applies", False),
    ("10.0.0.0/8", "accept", "nothing listed applies", False),
    ("2001:db8::/48", "reset", "a block (a.list:5, address); for an address no page can be shown", True),
    ("2001:db8::/31", "partly", "not all of it alike: reset by list a; the rest passes", True)])
def test_a_prefix_is_one_and_a_port_is_told_of(tmp_path, asked, verdict, why, blocked):
    rules = loaded(tmp_path, "192.0.2.16/30\n198.51.100.0/24\n@@198.51.100.7\n203.0.113.9:443\n2001:db8::/32\n")
    [record] = explain(rules, [asked])
    assert (ip(record).verdict, ip(record).precedence, record.blocked) == (verdict, why, blocked)
    assert record_of(record.as_dict()) == record


@pytest.mark.parametrize(("asked", "told"), [
    ("192.0.2.1/24", "has address bits beyond its prefix; write 192.0.2.0/24"),
    ("192.0.2.1-5", "is no whole range; write both addresses: 192.0.2.1-192.0.2.5"),
    ("0.0.0.0/0", "is too wide to be looked into; ask for prefixes of 8 bits or more"),
    ("::/7", "is too wide to be looked into; ask for prefixes of 8 bits or more"),
    ("192.0.2.0/255.255.255.0", "is a range with a mask; write it as a prefix, 192.0.2.0/24")])
def test_what_is_nearly_a_prefix_is_said_to_be_one(tmp_path, asked, told):
    [record] = explain(loaded(tmp_path, "example.com"), [asked])
    assert (record.canonical, record.problem) == (None, told)


@pytest.mark.parametrize(("asked", "leads"), [
    ("64:ff9b::cb00:7109", ("203.0.113.9 (NAT64)",)), ("[::ffff:203.0.113.9]:443", ("203.0.113.9 (IPv4-mapped)",)),
    ("2002:cb00:7109::1", ("203.0.113.9 (6to4)",)), ("2001:0:1::34ff:8ef6", ("203.0.113.9 (Teredo)",)),
    ("2001:db8:64::cb00:7109", ("203.0.113.9 (NAT64)",)), ("2001:db8::cb00:7109", ()), ("203.0.113.9", ()),
    ("64:ff9b::cb00:7100/120", ("203.0.113.0/24 (NAT64); ask for that, too",))])
def test_an_address_that_leads_to_another_says_where_and_how(tmp_path, asked, leads):
    rules = loaded(tmp_path, "203.0.113.9:443", nat64=("2001:db8:64::/96",))
    [record] = explain(rules, [asked])
    assert record.leads_to == leads
    assert [line for line in record.as_text().splitlines() if "leads to" in line] == [
        f"  leads to {one}" for one in leads]


def test_a_way_without_the_port_tells_of_the_port_behind_it(tmp_path):
    [record] = explain(loaded(tmp_path, "203.0.113.9:443"), ["64:ff9b::cb00:7109"])
    assert ip(record).precedence == "only a port of it is listed; ask for 203.0.113.9:443"


def test_a_question_about_too_much_is_answered_so(tmp_path):
    rules = loaded(tmp_path, "".join(f"10.0.{n >> 7}.{n % 128 * 2}\n" for n in range(ENTRIES_MAX + 1)))
    [record] = explain(rules, ["10.0.0.0/8"])
    assert record.blocked and ip(record).precedence == "more than 1000 entries lie in it; ask for a narrower prefix"
    [record] = explain(rules, ["10.0.0.0/24"])
    assert ip(record).precedence.endswith("; 108 more entries lie in it") and len(ip(record).tried) == 20


networks = st.builds(lambda number, length: ipaddress.ip_network((0xCB007100 | number, length), strict=False),
                     st.integers(0, 63), st.integers(26, 32))


@given(st.lists(st.tuples(networks, st.booleans()), max_size=8), st.integers(0, 63), st.integers(0, 63))
def test_the_parts_of_a_range_are_what_its_addresses_get(tmp_path_factory, entries, one, other):
    text = "".join(f"{'@@' if exception else ''}{network}\n" for network, exception in entries)
    matcher = loaded(tmp_path_factory.mktemp("lists"), text).matcher
    first, last = sorted((0xCB007100 | one, 0xCB007100 | other))
    each = [matcher.look_up_address(number.to_bytes(4)) for number in range(first, last + 1)]
    told = {found and found.action for found in look_inside(matcher, Range(4, first, last)).parts}
    assert told == {found and found.action for found in each}
    changes = sum(before != after for before, after in pairwise(each))
    assert len(look_inside(matcher, Range(4, first, last)).parts) > changes


def test_in_tls_a_page_is_a_reset_as_it_is_on_the_wire(tmp_path):
    rules = loaded(tmp_path, "example.com")
    tls, http = explain(rules, ["example.com"])[0].verdicts
    assert (tls.proto, tls.verdict, tls.precedence) == (
        "tls", "reset", "a block (a.list:1, host and subdomains); in TLS and QUIC no page can be shown")
    assert (http.proto, http.verdict, http.precedence) == ("http", "page", "a block (a.list:1, host and subdomains)")


def test_an_address_with_a_port_is_compared_with_it(tmp_path):
    rules = loaded(tmp_path, "203.0.113.9:443\n[2001:db8::1]:443")
    for asked in ("203.0.113.9:443", "[2001:db8::1]:443"):
        [record] = explain(rules, [asked])
        assert record.blocked and record.as_text().splitlines()[0] == asked
    [record] = explain(rules, ["[2001:DB8::1]:443"])
    assert record.as_text().splitlines()[0] == "[2001:DB8::1]:443  (compared as [2001:db8::1])"
