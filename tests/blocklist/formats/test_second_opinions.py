"""Readers and other people's libraries agree about generated files: dnspython, csv, adblockparser and ipaddress."""

import csv
import io
import ipaddress

import dns.exception
import dns.rdataclass
import dns.rdatatype
import dns.zone
from adblockparser import AdblockRules
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import Entry, Passed, Problem, read_domains, reader_of
from edgeblock.blocklist.formats.register import read_register
from edgeblock.blocklist.lint import line_of
from edgeblock.blocklist.settings import ListSettings

from ..making import matcher

LABEL = st.sampled_from(["a", "b", "ads", "www", "x-1", "n0"])
NAME = st.lists(LABEL, min_size=1, max_size=3).map(lambda labels: ".".join([*labels, "example"]))
ADDRESS = st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str)


def items_of(name, text, **settings):
    return list(reader_of(name, ListSettings(**settings))(io.BytesIO(text.encode())))


# Zones: the records that dnspython finds, under the names that it gives them

OWNER = st.tuples(st.sampled_from(["", "*."]), NAME).map("".join)
TARGET = st.sampled_from([".", "*.", "rpz-drop.", "rpz-passthru."])
ZONE_LINE = st.one_of(
    st.tuples(OWNER, st.sampled_from(["", " 60", " IN", " 60 IN"]), TARGET).map(
        lambda one: f"{one[0]}{one[1]} CNAME {one[2]}"),
    st.tuples(OWNER, TARGET).map(lambda one: f"{one[0]}.rpz.test. CNAME {one[1]}"),
    st.tuples(OWNER, TARGET).map(lambda one: f"{one[0]} CNAME ( ; why\n {one[1]} )"),
    st.sampled_from(["$ORIGIN rpz.test.", "$ORIGIN sub.rpz.test.", "$TTL 300", "; x", ""]))


@given(st.lists(ZONE_LINE, max_size=12))
def test_a_zone_is_what_dnspython_reads(lines):
    text = "\n".join(["$TTL 60", "@ SOA a. b. 1 2 3 4 5", "@ NS a.", *lines, ""])
    try:
        zone = dns.zone.from_text("$ORIGIN rpz.test.\n" + text, origin="rpz.test.", check_origin=False)
    except dns.exception.DNSException:
        return          # two CNAMEs of one name: a name server would not load it
    found = {}
    for name, node in zone.items():
        record = node.get_rdataset(dns.rdataclass.IN, dns.rdatatype.CNAME)
        if record is not None:
            found[name.to_text().lower()] = record[0].target.to_text() == "rpz-passthru."
    items = items_of("rpz", text, zone="rpz.test")
    made = {("*." if item.kind is Kind.SUBDOMAINS else "") + item.key.decode(): item.exception
            for item in items if isinstance(item, Entry)}
    refused = [item for item in items if isinstance(item, Problem)]
    for name, passes in made.items():
        assert found.get(name, passes) == passes
        assert name in found or passes and name.startswith("*.")      # what no wildcard from above reaches
    assert len(set(found) - set(made)) <= len(refused)                # a block below a wildcard that passes


# Filter lists: what an ad blocker does with a page that is opened

RULE = st.one_of(
    st.tuples(st.sampled_from(["", "@@"]), NAME, st.sampled_from(["^", "^$document", "^$all", "^$doc,popup"])).map(
        lambda one: f"{one[0]}||{one[1]}{one[2] if not one[0] or one[2] == '^' else '^'}"),
    NAME.map(lambda name: f"||{name}^$third-party"), NAME.map(lambda name: f"||{name}/a/"),
    NAME.map(lambda name: f"||{name}/a.html|"), st.just("/banner/"), NAME.map(lambda name: f"{name}##.ad"),
    NAME.map(lambda name: f"! {name}"))


@given(st.lists(RULE, max_size=8), st.tuples(NAME, st.sampled_from(["/", "/a/b", "/a.html", "/c"])))
def test_a_page_is_blocked_only_where_an_ad_blocker_blocks_it(rules, page):
    """Never more than the rules say: less only for pages of hosts below one that is named with a path."""
    host, path = page
    entries = [item for item in items_of("adblock", "\n".join(["! x", *rules])) if isinstance(item, Entry)]
    found, *_ = matcher(*map(line_of, entries)).trace_name("http", host.encode(), path.encode())
    # It judges what a page asks for, so the options that are about the page itself are taken off.
    theirs = AdblockRules([rule if "$third" in rule else rule.partition("$")[0] for rule in rules], use_re2=False)
    answer = theirs.should_block(f"http://{host}{path}", {"third-party": True, "domain": "other.test"})
    said = any("$third-party" in rule for rule in rules)
    if found is not None and found.action == "reset":
        assert answer
    elif answer and not said and not any("/" in rule for rule in rules):
        raise AssertionError(rules)


# Tables

CELL = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), max_size=12)


@given(st.lists(st.tuples(CELL, NAME, CELL), min_size=1, max_size=10), st.sampled_from([",", ";", "\t", "|"]))
def test_a_table_is_what_csv_writes(rows, delimiter):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(["id", "domain", "why"])
    writer.writerows([("n" + first.strip(), name, why) for first, name, why in rows])
    items = items_of("csv", out.getvalue(), delimiter=delimiter)
    assert [item.key.decode() for item in items if isinstance(item, Entry)] == [name for _, name, _ in rows]


# Addresses

@given(ADDRESS, st.integers(0, 128), st.integers(0, 70_000))
def test_an_address_is_what_ipaddress_reads(address, length, port):
    line = f"{address}/{length}"
    try:
        wanted = str(ipaddress.ip_network(line))
    except ValueError:
        wanted = None
    item, = read_domains(io.BytesIO(line.encode()))
    if wanted is None:
        assert isinstance(item, Problem)
    else:
        assert ipaddress.ip_network(line_of(item)) == ipaddress.ip_network(wanted)
    text = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    item, = read_domains(io.BytesIO(text.encode()))
    assert isinstance(item, Entry) == (0 < port < 65536)


# The register: what was put into a row comes out

@given(st.lists(ADDRESS, max_size=3), st.lists(NAME, max_size=3), st.lists(NAME, max_size=3),
       st.sampled_from([" | ", "|"]))
def test_a_row_of_the_register(addresses, names, hosts, between):
    urls = [f"http://{host}/a|b" for host in hosts]
    row = ";".join([between.join(addresses), between.join(names), between.join(urls), "Суд", "1/2", "2024-01-01"])
    items = list(read_register(io.BytesIO(f"Updated: 2024-01-01 00:00:00 +0000\n{row}\n".encode())))
    if urls:
        assert [item.key.decode() for item in items] == [f"{host}/a%7Cb" for host in hosts] or \
            [item.key.decode() for item in items] == [f"{host}/a|b" for host in hosts]
    elif names:
        assert [(item.kind, item.key.decode()) for item in items] == [(Kind.HOST_ONLY, name) for name in names]
    elif addresses:
        assert [ipaddress.ip_address(line_of(item)) for item in items] == list(map(ipaddress.ip_address, addresses))
    else:
        assert isinstance(items[0], Problem) and not any(isinstance(item, Entry | Passed) for item in items)


def test_the_register_in_its_own_encoding():
    text = "Updated: 2024-01-01 00:00:00 +0000\n;пример.example;http://пример.example/a;Суд;1/2;2024-01-01\n"
    entry, = (item for item in reader_of("register", ListSettings(encoding="cp1251"))(
        io.BytesIO(text.encode("cp1251"))))
    assert entry == Entry(2, Kind.URL, b"xn--e1afmkfd.example/a")
    problem, = (item for item in reader_of("register", ListSettings())(io.BytesIO(text.encode("cp1251"))))
    assert "state its encoding" in problem.why
