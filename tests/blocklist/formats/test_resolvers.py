"""Configurations of resolvers and domain sets: each construct and what it means, each mistake."""

import io

import pytest

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.lines import Entry, Passed, Problem
from edgeblock.blocklist.formats.resolvers import read_dnsmasq, read_domain_set, read_unbound


def read(reader, text):
    return list(reader(io.BytesIO(text.encode())))


def host(name, kind=Kind.HOST, exception=False, line=1):
    return Entry(line, kind, name.encode(), exception)


@pytest.mark.parametrize(("line", "entries"), [
    ("address=/a.example/", [host("a.example")]), ("address=/a.example/0.0.0.0", [host("a.example")]),
    ("address=/a.example/::", [host("a.example")]), ("address=/a.example/#", [host("a.example")]),
    ("local=/a.example/b.example/", [host("a.example"), host("b.example")]),
    ("server=/a.example/", [host("a.example")]),
    ("server=/a.example/192.0.2.1", [host("a.example", exception=True)]),
    ("server=/a.example/#", [host("a.example", exception=True)]),
    ("--address=/a.example/ # why", [host("a.example")]),
    ("cache-size=1000", [Passed(1, "other settings of dnsmasq")]),
    ("no-resolv", [Passed(1, "other settings of dnsmasq")]),
])
def test_dnsmasq(line, entries):
    assert read(read_dnsmasq, line) == entries


@pytest.mark.parametrize(("line", "entries"), [
    ("server:", []), ('local-zone: "a.example" always_nxdomain', [host("a.example")]),
    ("local-zone: a.example. refuse # why", [host("a.example")]),
    ("local-zone: 'a.example' static", [host("a.example")]),
    ('local-zone: "a.example" transparent', [host("a.example", exception=True)]),
    ('local-data: "a.example A 0.0.0.0"', [host("a.example", Kind.HOST_ONLY)]),
    ('    local-data: "a.example. 300 IN AAAA ::"', [host("a.example", Kind.HOST_ONLY)]),
    ("verbosity: 1", [Passed(1, "other settings of unbound")]),
])
def test_unbound(line, entries):
    assert read(read_unbound, line) == entries


@pytest.mark.parametrize(("text", "entries"), [
    ("domain:a.example", [host("a.example")]), ("full:a.example", [host("a.example", Kind.HOST_ONLY)]),
    ("domain:a.example @ads", [host("a.example")]), ("domain:a.example:@ads", [host("a.example")]),
    ("a.example @ads # why", [host("a.example")]), ("+.a.example", [host("a.example")]),
    (".a.example", [host("a.example")]),
    ("+.a.example\nb.example", [host("a.example"), host("b.example", Kind.HOST_ONLY, line=2)]),
    ("payload:\n  - '+.a.example'\n  - 'b.example'",
     [host("a.example", line=2), host("b.example", Kind.HOST_ONLY, line=3)]),
    ("*.a.example", [host("a.example", Kind.SUBDOMAINS)]), ("DOMAIN-SUFFIX,a.example", [host("a.example")]),
    ("DOMAIN,a.example,REJECT", [host("a.example", Kind.HOST_ONLY)]),
    ("IP-CIDR,192.0.2.0/24,no-resolve", [Entry(1, Kind.NETWORK, b"\0\x18\xc0\0\2\0")]),
    ("keyword:evil", [Passed(1, "patterns (keyword:, regexp:)")]),
    ("regexp:^x[0-9]+$", [Passed(1, "patterns (keyword:, regexp:)")]),
    ("include:other", [Passed(1, "includes of other files; drop those beside this one")]),
    ("GEOIP,XX", [Passed(1, "rules about other things than names and addresses")]),
])
def test_domain_sets(text, entries):
    assert read(read_domain_set, text) == entries


@pytest.mark.parametrize(("reader", "line"), [
    (read_dnsmasq, "a.example"), (read_dnsmasq, "address=/a..example/"), (read_dnsmasq, "address=//"),
    (read_unbound, "a.example"), (read_unbound, 'local-zone: "a.example" new_kind'), (read_unbound, 'local-data: ""'),
    (read_domain_set, "domain:a..example"), (read_domain_set, "full:"), (read_domain_set, "a b"),
    (read_domain_set, "IP-CIDR,nonsense"),
])
def test_a_mistake(reader, line):
    problem, = read(reader, line)
    assert isinstance(problem, Problem)
