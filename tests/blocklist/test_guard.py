"""What refuses a list: entries and counts with their answers, and slow references for the fast paths."""

import io
import ipaddress
import re
import tomllib
from datetime import UTC, datetime
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st
from publicsuffixlist import PublicSuffixList

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import Entry, network_key, read_domains
from edgeblock.blocklist.guard import (
    SPECIAL,
    Before,
    Guard,
    Protected,
    Seen,
    parse_protected,
    public_suffixes,
    shipped_protected,
    skip_instead,
)
from edgeblock.blocklist.ranges import Ranges, range_of
from edgeblock.blocklist.settings import ListSettings, read_allowance
from edgeblock.blocklist.shared import parse_shared
from edgeblock.errors import ListError

OWN = parse_protected(b"""# the operator's
bank.example            # and www.bank.example
*.hospital.example
deep.down.carrier.example
192.0.2.53
198.51.100.0/24
2001:db8:53::/48
""", "own.names")
GUARD = Guard(ListSettings(), OWN)


def refusals(lines, protected=OWN, **settings):
    guard = Guard(ListSettings(**settings), protected)
    entries = [*read_domains(io.BytesIO(lines.encode()))]
    assert entries and all(isinstance(entry, Entry) for entry in entries), entries
    return [why for entry in entries if (why := guard.refuses(entry))]


SUFFIXES = [
    "com", "=com", "*.com", "COM.", "co.uk", "*.co.uk", "=co.uk", "github.io", "blogspot.com", "@@com", "@@*.co.uk",
    "@@github.io", "localhost", "nonsense", "香港", "xn--j6w193g", "公司.香港", "s3.amazonaws.com", "kawasaki.jp",
    "anything.kawasaki.jp", "ck", "anything.ck", "http://github.io/*", "github.io/*", "com/*",
]
NOT_SUFFIXES = [
    "listed.com", "listed.co.uk", "=listed.co.uk", "*.listed.co.uk", "somebody.github.io", "www.listed.github.io",
    "city.kawasaki.jp", "a.anything.kawasaki.jp", "www.ck", "@@listed.com", "例え.香港", "http://github.io/listed",
    "http://github.io/", "github.io/listed/*", "listed.nonsense", "=amazonaws.com", "@@amazonaws.com",
]


@pytest.mark.parametrize("entry", SUFFIXES)
def test_public_suffixes_are_refused(entry):
    (why,) = refusals(entry)
    assert "public suffix" in why and "put allow_public_suffixes = [" in why and "\n" not in why
    assert refusals(entry, allow_public_suffixes=True) == []


@pytest.mark.parametrize("entry", NOT_SUFFIXES)
def test_what_is_below_a_public_suffix_is_not(entry):
    assert refusals(entry) == []


def test_what_covers_a_public_suffix_is_refused():
    (why,) = refusals("amazonaws.com")
    assert why.startswith("'amazonaws.com' covers the public suffix ")
    assert refusals("amazonaws.com", allow_public_suffixes=("amazonaws.com",)) == []


def test_the_refusal_can_be_followed_word_by_word():
    assert refusals("co.uk") == ["'co.uk' is a public suffix; if that is meant, put allow_public_suffixes = "
                                 "[\"co.uk\"] into the settings of this list"]
    assert refusals("co.uk", allow_public_suffixes=("co.uk",)) == []
    assert len(refusals("co.uk\nac.uk", allow_public_suffixes=("co.uk",))) == 1


def test_with_https_host_a_url_is_its_host():
    assert refusals("http://github.io/listed") == []
    (why,) = refusals("http://github.io/listed", https="host")
    assert "https = \"host\"" in why and "public suffix" in why
    assert refusals("http://listed.github.io/listed", https="host") == []
    assert refusals("@@http://github.io/listed", https="host") == []
    (why,) = refusals("http://bank.example/listed", https="host")
    assert "the host is protected" in why
    assert refusals("http://192.0.2.9/listed", https="host") == []


PROTECTED = [
    ("bank.example", "'bank.example' is protected"),
    ("=bank.example", "'bank.example' is protected"),
    ("www.bank.example", "'www.bank.example' is protected"),
    ("*.bank.example", "'bank.example' would take the protected 'www.bank.example' with it"),
    ("hospital.example", "'hospital.example' is protected"),
    ("*.hospital.example", "'hospital.example' is protected"),
    ("=ward.hospital.example", "'ward.hospital.example' is below the protected '*.hospital.example'"),
    ("carrier.example", "'carrier.example' would take the protected 'deep.down.carrier.example' with it"),
    ("*.down.carrier.example", "'down.carrier.example' would take the protected 'deep.down.carrier.example' with it"),
    ("http://bank.example/*", "every page of 'bank.example': the host is protected"),
    ("http://www.bank.example/", "the front page of 'www.bank.example': the host is protected"),
    ("a.b.hospital.example/*", "every page of 'a.b.hospital.example': the host is protected"),
    ("http://192.0.2.53/*", "every page of '192.0.2.53': the host is protected"),
    ("192.0.2.53", "192.0.2.53 is protected"),
    ("192.0.2.53:443", "192.0.2.53:443 is protected"),
    ("192.0.2.0/24", "192.0.2.0/24 has the protected 192.0.2.53/32 in it"),
    ("198.51.100.7", "198.51.100.7 is protected"),
    ("2001:db8:53::1", "2001:db8:53::1 is protected"),
    ("2001:db8::/32", "2001:db8::/32 has the protected 2001:db8:53::/48 in it"),
]


@pytest.mark.parametrize(("entry", "start"), PROTECTED)
def test_protected_names_are_refused(entry, start):
    (why,) = refusals(entry)
    assert why.startswith(start + "; if that is meant, put allow_protected = [")
    assert refusals(entry, allow_protected=True) == []
    allowed = why.split('["')[1].split('"]')[0]
    assert refusals(entry, allow_protected=(allowed,)) == [], "the override that the refusal names is one"


@pytest.mark.parametrize("entry", [
    "shop.bank.example", "bank.example.listed.test", "notbank.example", "=carrier.example", "up.carrier.example",
    "http://bank.example/listed", "http://bank.example/?q=listed", "bank.example/listed/*", "@@bank.example",
    "@@hospital.example", "@@http://bank.example/*", "@@192.0.2.53", "192.0.2.54", "198.51.101.0/24",
    "a.hospital.example/listed", "xhospital.example"])
def test_what_is_beside_a_protected_name_is_not(entry):
    assert refusals(entry) == []


RANGES = [
    ("203.0.96.0/19", "widest_ipv4 = 19"), ("0.0.0.0/0", "widest_ipv4 = 0"), ("@@0.0.0.0/0", "widest_ipv4 = 0"),
    ("2001:d00::/31", "widest_ipv6 = 31"), ("::/0", "widest_ipv6 = 0"), ("64:ff9b::/64", "widest_ipv4 = 0"),
    ("64:ff9b::5000:0/115", "widest_ipv4 = 19"), ("80.0.0.0-80.255.255.255", "widest_ipv4 = 8"),
    ("169.254.2.3", 'allow_addresses = ["169.254.2.3/32"]'), ("127.0.0.1:80", 'allow_addresses = ["127.0.0.1/32"]'),
    ("169.254.7.0/24", 'allow_addresses = ["169.254.7.0/24"]'), ("224.0.0.251", "allow_addresses"),
    ("255.255.255.255", "allow_addresses"), ("::1", 'allow_addresses = ["::1/128"]'), ("fe80::1", "allow_addresses"),
    ("[fe80::2]:443", "allow_addresses"), ("ff02::1", "allow_addresses"), ("::ffff:80.1.2.3", "allow_addresses"),
    ("@@127.0.0.0/24", "allow_addresses"),
]


@pytest.mark.parametrize(("entry", "override"), RANGES)
def test_wide_and_special_ranges_are_refused(entry, override):
    (why,) = refusals(entry)
    assert f"if that is meant, put {override}" in why


@pytest.mark.parametrize("entry", [
    "80.1.2.3", "80.1.16.0/20", "203.0.113.0/24", "2001:db8:1::/48", "2a00::/32", "64:ff9b::5001:203",
    "64:ff9b::5000:0/116", "80.1.2.3:443", "9.255.255.255", "11.0.0.0", "128.0.0.0", "10.1.2.3",
    "192.168.7.0/24", "[fd00::1]:443"])
def test_other_addresses_are_not(entry):
    assert refusals(entry) == []


def test_ranges_are_overridden_by_the_keys_that_are_named():
    assert refusals("80.0.0.0/8", widest_ipv4=8) == []
    assert refusals("2001:d00::/31", widest_ipv6=31) == []
    assert refusals("127.1.2.0/24", allow_addresses=("127.0.0.0/8",)) == []
    assert len(refusals("127.1.2.0/24", allow_addresses=("127.1.2.0/25", "::/0", "bank.example"))) == 1
    assert refusals("127.1.2.0/24\n::1", allow_addresses=True) == []


NOW = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
LISTS = [
    # settings, seen, previous, what the refusal says
    ({}, Seen(100, 100, 0), None, None),
    ({}, Seen(100, 95, 5), None, None),
    ({}, Seen(100, 94, 6), None, "6 of 100 lines cannot be used"),
    ({}, Seen(19, 18, 1), None, "1 of 19 lines cannot be used"),        # a small list is a list without mistakes
    ({}, Seen(20, 19, 1), None, None),
    ({}, Seen(1, 0, 1), 1, "max_unparsable"),
    ({}, Seen(0, 0, 0), None, None),
    ({"max_unparsable": 0.0}, Seen(10**6, 999_999, 1), None, "max_unparsable"),
    ({"max_unparsable": 1.0}, Seen(10, 0, 10), None, None),
    ({}, Seen(3000, 3000, 0), 1000, None),
    ({}, Seen(3001, 3001, 0), 1000, "grew from 1000 entries to 3001, more than 3 times as many"),
    ({}, Seen(1000, 1000, 0), 3, None),
    ({}, Seen(1004, 1004, 0), 3, "grew from 3 entries"),
    ({}, Seen(1001, 1001, 0), 0, "grew from 0 entries"),
    ({"max_growth": 4.0}, Seen(3001, 3001, 0), 1000, None),
    ({}, Seen(500, 500, 0), 1000, None),
    ({}, Seen(499, 499, 0), 1000, "shrank from 1000 entries to 499, by more than a share of 0.5"),
    ({}, Seen(10, 10, 0), 110, None),
    ({}, Seen(9, 9, 0), 110, "shrank from 110 entries to 9"),
    ({}, Seen(0, 0, 0), 1, "shrank from 1 entries to 0"),               # an empty file is an accident
    ({}, Seen(0, 0, 0), 0, None),
    ({"max_shrink": 1.0}, Seen(0, 0, 0), 10**6, None),
    ({"max_shrink": 0.0}, Seen(899, 899, 0), 1000, "max_shrink"),
    ({"expires": datetime(2025, 12, 31, tzinfo=UTC)}, Seen(0, 0, 0), 1000, None),
    ({"expires": datetime(2026, 12, 31, tzinfo=UTC)}, Seen(0, 0, 0), 1000, "max_shrink"),
]


@pytest.mark.parametrize(("settings", "seen", "previous", "why"), LISTS)
def test_counts(settings, seen, previous, why):
    refused = Guard(ListSettings(**settings), Protected()).refuses_list(
        seen, None if previous is None else Before(previous), NOW)
    assert refused is None if why is None else why in refused and "; if that is meant, put " in refused


# The way out of each refusal ---------------------------------------------------------------------------------

ADVICE = re.compile(r"; if that is meant, put (\w+) = (.+) into the settings of this list$")
PLACES = ["0.0.0.0", "64:ff9b::", "127.0.0.0", "198.51.100.0", "2001:db8:53::", "::", "::ffff:192.0.2.1", "10.0.0.0"]
MANY = parse_shared(b"""[Front]
kind = delivery network
source = here
date = 2026-08-22
10.0.0.0/12
198.51.100.128/25
2001:db8:53:8000::/49
[Cloud]
kind = cloud
source = here
date = 2026-08-22
widest_ipv4 = 24
widest_ipv6 = 48
10.16.0.0/12
192.0.0.0/16
2001:db8::/32
""", "own.networks")
PINNED = OWN.joined(parse_protected(b"::ffff:192.0.2.1\n2001:db8:53::1\n::1\n", "more.names"))._replace(shared=MANY)


@st.composite
def wide_networks(draw):
    place = ipaddress.ip_address(draw(st.sampled_from(PLACES)))
    return str(ipaddress.ip_network((place, draw(st.integers(0, place.max_prefixlen))), strict=False))


@given(entry=st.one_of(
    wide_networks(), st.sampled_from([*SUFFIXES, *(entry for entry, _ in PROTECTED), *(entry for entry, _ in RANGES),
                                      "http://[::ffff:192.0.2.1]/*", "[2001:DB8:53:0::1]/*", "[::1]:80"])),
       widest_ipv4=st.integers(0, 32), widest_ipv6=st.integers(0, 128), https=st.sampled_from(["host", "ignore"]),
       allowed=st.lists(st.sampled_from(["co.uk", "bank.example", "127.0.0.0/8", "::1", "192.0.2.53"]), max_size=3))
def test_what_a_refusal_advises_is_never_set_already_and_helps(entry, widest_ipv4, widest_ipv6, https, allowed):
    settings = {"widest_ipv4": widest_ipv4, "widest_ipv6": widest_ipv6, "https": https,
                **dict.fromkeys(("allow_public_suffixes", "allow_protected", "allow_addresses", "allow_shared"),
                                tuple(allowed))}
    seen = set()
    while told := refusals(entry, PINNED, **settings):
        (why,) = told
        assert why not in seen
        seen.add(why)
        key, value = ADVICE.search(why).groups()
        advised = tomllib.loads(f"{key} = {value}")[key]
        before = settings[key]
        if key.startswith("allow_"):
            advised = read_allowance(tuple(advised), key)
        assert advised != before, why
        settings[key] = advised


def test_an_empty_list_can_be_allowed_to_grow():
    guard = Guard(ListSettings(max_growth=2000.0), Protected())
    assert guard.refuses_list(Seen(2000, 2000, 0), Before(0), NOW) is None
    assert "max_growth" in guard.refuses_list(Seen(2001, 2001, 0), Before(0), NOW)


def test_skipping_is_advised_where_it_can_be_said():
    assert skip_instead(ListSettings(), 2) == 'guarded = "skip" in the settings of this list takes it without ' \
        "these 2 entries"
    assert "[rules] of the main configuration" in skip_instead(ListSettings(locked=("guarded",)), 1)


# The files that ship -----------------------------------------------------------------------------------------

def test_the_shipped_names_protect_what_everybody_needs():
    guard = Guard(ListSettings(), shipped_protected())
    for host in (b"google.com", b"www.gov.uk", b"hmrc.gov.uk", b"111.nhs.uk", b"a.root-servers.net",
                 b"r3.o.lencr.org", b"ocsp.digicert.com", b"www.bbc.co.uk", b"en.wikipedia.org",
                 b"github.com", b"pool.ntp.org"):
        assert guard.refuses(Entry(1, Kind.HOST, host)), host
    for text in ("8.8.8.8", "1.1.1.0", "198.41.0.4"):
        network = ipaddress.ip_network(f"{text}/24", strict=False)
        assert guard.refuses(Entry(1, Kind.NETWORK, network_key(network.network_address.packed, 24))), text


def test_the_shipped_names_say_nothing_twice():
    text = (files("edgeblock.blocklist") / "protected.names").read_text()
    lines = [line.split(" (")[0] for line in text.splitlines() if line and line[0] != "#"]
    trees = {line[2:] for line in lines if line[:2] == "*."}
    assert len(lines) == len(set(lines))
    assert [line for line in lines if any(line.removeprefix("*.").endswith("." + tree) for tree in trees)
            or line in trees] == []


def test_who_may_block_what_is_protected_may_still_not_block_its_neighbours_that_many_share():
    own = parse_protected(b"10.1.0.53\n10.2.0.0/16\n", "own.names")._replace(shared=MANY)
    assert refusals("10.1.0.53", own, allow_protected=("10.1.0.53",)) == []         # said once is enough
    assert refusals("10.2.3.0/24", own, allow_protected=True) == []
    [why] = refusals("10.1.0.0/24", own, allow_protected=True)                      # the rest of it is no less shared
    assert why.startswith("10.1.0.0/24 is in a network that many share, 10.0.0.0/12 of Front (delivery network, ")
    assert refusals("10.1.0.0/24", own, allow_protected=True, allow_shared=("10.1.0.0/16",)) == []
    assert refusals("10.16.1.0/24\n@@10.1.0.0/20", own) == []
    [why] = refusals("10.16.0.0/23", own)
    assert why.startswith("10.16.0.0/23 is wider than /24 and has customers' addresses in 10.16.0.0/12 of Cloud (")


def test_a_refusal_repeats_whose_it_is():
    own = parse_protected(b"bank.example (Bank: payment)   # ours\n*.ward.example (Ward)\n192.0.2.53 (Resolver)\n"
                          b"net.example\n", "own.names")
    for entry, told in (
            ("bank.example", "'bank.example' is protected (Bank: payment);"),
            ("www.bank.example", "'www.bank.example' is protected (Bank: payment);"),
            ("a.ward.example", "'a.ward.example' is below the protected '*.ward.example' (Ward);"),
            ("*.bank.example", "'bank.example' would take the protected 'www.bank.example' (Bank: payment) with it;"),
            ("https://bank.example/*", "every page of 'bank.example': the host is protected (Bank: payment);"),
            ("http://192.0.2.53/", "the front page of '192.0.2.53': the host is protected (Resolver);"),
            ("192.0.2.53", "192.0.2.53 is protected (Resolver);"), ("net.example", "'net.example' is protected;"),
            ("192.0.2.0/24", "192.0.2.0/24 has the protected 192.0.2.53/32 (Resolver) in it;"),
            ("64:ff9b::c000:235", "64:ff9b::c000:235 is protected (Resolver);")):
        [why] = refusals(entry, own)
        assert why.startswith(told), why


@pytest.mark.parametrize(("text", "why"), [
    (b"bank.example (x", "own.names:1: "), (b"bank example (x)", "own.names:1: "),
    (b"good.example\nexa..mple\n", "own.names:2: 'exa..mple' has an empty label"),
    (b"a/b", "own.names:1: 'a/b' "), (b"*.10.0.0.1", "own.names:1: "), (b"a.*.example", "own.names:1: "),
    (b"10.0.0.1/8", "own.names:1: "), (b"\xff", "own.names:1: "), (b"*.", "own.names:1: ")])
def test_a_mistake_in_protected_names_is_one_line(text, why):
    with pytest.raises(ListError) as refused:
        parse_protected(text, "own.names")
    assert str(refused.value).startswith(why) and "\n" not in str(refused.value)


def test_protected_names_are_in_canonical_form_and_join():
    made = parse_protected("\ufeffBÜCHER.example # x\r\n\r\n*.Ward.example.\r\n::1\r\n".encode(), "own.names")
    assert made == Protected(frozenset({b"xn--bcher-kva.example", b"www.xn--bcher-kva.example", b"[::1]"}),
                             frozenset({b"ward.example"}), frozenset({ipaddress.ip_network("::1")}))
    assert made.joined(OWN).names == made.names | OWN.names and made.joined(Protected()) == made


def test_every_public_suffix_is_refused():
    guard = Guard(ListSettings(), Protected())
    suffixes = public_suffixes()
    judge = PublicSuffixList()
    assert len(suffixes.close) > 8000
    for name in suffixes.close:
        refused = guard.refuses(Entry(1, Kind.HOST, name))
        assert bool(refused) == (judge.is_public(name.decode()) or name in suffixes.below), name
    for name in suffixes.wild:
        assert guard.refuses(Entry(1, Kind.SUBDOMAINS, b"anything-at-all." + name)), name


# Slow references ---------------------------------------------------------------------------------------------

LABELS = st.sampled_from(["a", "www", "bank", "hospital", "carrier", "down", "deep", "example", "com", "co", "uk",
                          "github", "io", "jp", "kawasaki", "city", "ck", "amazonaws", "s3"])
BASES = st.sampled_from(sorted(name.decode() for name in OWN.names | OWN.trees if b"." in name))
HOSTS = st.one_of(st.lists(LABELS, min_size=1, max_size=5).map(".".join), BASES,
                  BASES.map(lambda name: name.partition(".")[2]), st.builds("{}.{}".format, LABELS, BASES))
JUDGE = PublicSuffixList()


def slowly(host, kind, exception):
    """Whether a host entry is refused, with every rule spelt out."""
    if JUDGE.is_public(host):
        return True
    if exception:
        return False
    trees = [name.decode() for name in OWN.trees]
    names = [name.decode() for name in OWN.names]
    if any(host == tree or host.endswith("." + tree) for tree in trees):
        return True
    if host in names and kind is not Kind.SUBDOMAINS:
        return True
    if kind is Kind.HOST_ONLY:
        return False
    return any(name.endswith("." + host) for name in names + trees) or any(
        name.endswith(b"." + host.encode()) for name in public_suffixes().close)


@given(HOSTS, st.sampled_from([Kind.HOST, Kind.HOST_ONLY, Kind.SUBDOMAINS]), st.booleans())
def test_hosts_are_judged_as_the_slow_reference_does(host, kind, exception):
    assert bool(GUARD.refuses(Entry(1, kind, host.encode(), exception))) == slowly(host, kind, exception)


@st.composite
def networks(draw):
    bits, kind = draw(st.sampled_from([(32, ipaddress.IPv4Network), (128, ipaddress.IPv6Network)]))
    near = [network for network in [*map(ipaddress.ip_network, SPECIAL), *OWN.networks]
            if network.max_prefixlen == bits]
    length = draw(st.integers(0, bits))
    start = draw(st.one_of(st.integers(0, 2**bits - 1), st.sampled_from(
        [int(end) + step for network in near for end in (network[0], network[-1]) for step in (-1, 0, 1)])))
    return kind(((start % 2**bits) >> (bits - length) << (bits - length), length))


@given(networks())
def test_ranges_touch_as_ipaddress_says(network):
    ranges = Ranges(range_of(ipaddress.ip_network(text), word) for text, word in SPECIAL.items())
    found = ranges.touched(network[0].packed, network[-1].packed)
    touching = {other for text in SPECIAL if (other := ipaddress.ip_network(text)).version == network.version
                and other.overlaps(network)}
    assert found.network in touching if found else not touching


def test_ranges_inside_one_another_are_found():
    nested = ["203.0.113.0/24", "203.0.113.128/25", "203.0.113.255/32", "203.0.114.0/32", "2001:db8::/48",
              "2001:db8::/32"]
    protected = parse_protected("\n".join(nested).encode(), "own.names")
    for address in ("203.0.113.0", "203.0.113.200", "203.0.113.255", "203.0.114.0", "2001:db8:0:1::",
                    "2001:db8:ffff::"):
        assert len(refusals(address, protected)) == 1, address
    assert refusals("203.0.114.1\n203.0.112.255\n2001:db9::", protected) == []


@given(networks(), st.booleans(), st.booleans())
def test_any_network_is_judged_with_a_reason_or_without(network, exception, endpoint):
    length = network.max_prefixlen if endpoint else network.prefixlen
    key = network_key(network.network_address.packed, length, 443 if endpoint else None)
    why = GUARD.refuses(Entry(1, Kind.ENDPOINT if endpoint else Kind.NETWORK, key, exception))
    assert why is None or "; if that is meant, put " in why
    if length < (20 if network.version == 4 else 32):
        assert why and "is wider than" in why


@pytest.mark.parametrize(("nat64", "entry", "told"), [
    ("2001:db8:64::/96", "2001:db8:64::/96", "stands for IPv4 addresses (NAT64) and is wider than /20"),
    ("2001:db8:64::/96", "2001:db8:64::a01:35", "2001:db8:64::a01:35 is protected"),
    ("2001:db8:64::/64", "2001:db8:64:0:a:100::/88", "stands for IPv4 addresses (NAT64) and is wider than /20"),
    ("2001:db8:64::/64", "2001:db8:64:0:a:100:3500::", "2001:db8:64:0:a:100:3500:0 is protected"),
    ("2001:db8:100::/40", "2001:db8:10a::/48", "stands for IPv4 addresses (NAT64) and is wider than /20"),
    ("2001:db8:100::/40", "2001:db8:10a:100:35::", "2001:db8:10a:100:35:: is protected"),
    ("2001:db8::/32", "2001:db8:a01:35::", "2001:db8:a01:35:: is protected")])
def test_what_is_behind_a_prefix_of_nat64_here_is_judged_as_ipv4(nat64, entry, told):
    """10.1.0.53 is protected; RFC 6052, 2.2 has where its bytes are."""
    own = parse_protected(b"10.1.0.53\n", "own.names")._replace(nat64=(nat64,))
    [why] = refusals(entry, own)
    assert told in why, why
    assert refusals(entry, own._replace(nat64=())) == []


def test_a_page_of_an_address_in_a_protected_network():
    protected = parse_protected(b"192.0.2.0/24 (the bank)\n2001:db8::/48\n", "own")
    one = Guard(ListSettings(), protected)
    for line, refused in ((b"http://192.0.2.7/*", True), (b"http://192.0.2.7/", True),
                          (b"http://[2001:db8::7]/*", True), (b"http://192.0.2.7/page", False),
                          (b"http://192.0.3.7/*", False)):
        [entry] = read_domains(io.BytesIO(line))
        assert bool(one.refuses(entry)) is refused, line
    free = Guard(ListSettings(allow_protected=("192.0.2.7",)), protected)
    [entry] = read_domains(io.BytesIO(b"http://192.0.2.7/*"))
    assert free.refuses(entry) is None


def test_public_suffixes_are_those_of_their_list():
    """It is read as A-labels alone, in half the time: its library reads it the same way."""
    ours, own = public_suffixes(), PublicSuffixList()
    names = [name.decode() for name in ours.close]
    assert len(names) > 9000
    for name in (*names, *(f"a.{name}" for name in names), *(f"a.b.{name}" for name in names), "city.kawasaki.jp",
                 "a.city.kawasaki.jp", "www.ck", "a.ck", "unknown", "a.unknown"):
        assert ours.judge.is_public(name) == own.is_public(name), name
