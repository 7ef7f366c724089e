"""What holds for every reader: any bytes, packed files, other encodings, canonical keys, names of formats."""

import base64
import io
import lzma
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.blocklist.canonical import canonical_host, canonical_url
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import (
    EXTENSIONS,
    HOPELESS,
    NAMES,
    PACKED,
    READERS,
    Asked,
    Entry,
    HashedEntry,
    Passed,
    Problem,
    find_format,
    list_name,
    reader_of,
)
from edgeblock.blocklist.settings import ListSettings

FORMATS = sorted(READERS)
# Pieces that take a reader into its corners more often than bytes alone do.
PIECES = st.sampled_from([
    b"\n", b"\r\n", b" ", b"\t", b".", b"*.", b"@@", b"||", b"^", b"|http://", b"$ORIGIN ", b"$TTL 1", b"SOA",
    b"CNAME ", b"(", b")", b'"', b"'", b";", b"#", b"\\", b"\\0", b"\\300", b"rpz-ip", b"rpz-passthru.", b"0.0.0.0 ",
    b"::1 ", b"24.0.2.0.192.", b"zz.", b"url,", b"domain;", b"a.example", b"example.com/x", b"?q", b"/*", b":443",
    b"[", b"]", b"-", b"\0", b"\xff", "ü".encode(), b"##", b"$script", b"192.0.2.0/24", b"!",
    b"edgeblock-hashed 1 key=0123456789abcdef labels=6 depths=1 url_max=9 directory_max=9\n", b"00" * 16, b" host",
    b"end 1 ", b"192.0.2.1:", b"[2001:db8::1]:", b"0000", b"199999", b"-192.0.2.9", b"/33", b"/255.255.255.0",
    b"\xef\xbb\xbf", b"\xff\xfe", b'{"Event":{"Attribute":[', b'{"type":"domain","value":"a.example"}',
    b'{"objects":[',
    b'{"type":"indicator","pattern":"[url:value = \'a.example/x\']"}', b",", b"[", b"{", b"}", b'"list":[', b'"a":',
    b"Updated: 2020-01-01\n", b" | ", b'zone "', b'" { type master; };', b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd",
    b'{"version":1,"order":"x","items":[', b'{"id":"1","kind":"host","value":"a.example"}', b"]}", b'"items":'])
ANYTHING = st.binary(max_size=120) | st.lists(PIECES, max_size=40).map(b"".join)
SETTINGS = st.builds(ListSettings, subdomains=st.sampled_from([None, True, False]),
                     encoding=st.sampled_from([None, "cp1251", "utf-16", "gb18030"]),
                     column=st.sampled_from([None, "url", 1, 2]), delimiter=st.sampled_from([None, ";", "\t"]))


def read(name, data, settings=None):
    return list(reader_of(name, settings or ListSettings())(io.BytesIO(data)))


@pytest.mark.parametrize("name", FORMATS)
@given(data=ANYTHING, settings=SETTINGS)
def test_no_bytes_raise_and_every_item_has_its_place(name, data, settings):
    items = read(name, data, settings)
    lines = data.count(b"\n") + 1
    for item in items:
        assert 1 <= item.line <= lines
        if isinstance(item, Entry):
            if item.kind <= Kind.SUBDOMAINS:
                assert canonical_host(item.key) == item.key
            elif item.kind <= Kind.DIRECTORY:
                assert canonical_url(item.key) == item.key
            else:
                assert item.key[0] == 0
        elif isinstance(item, HashedEntry):
            assert len(item.print) == 16
        else:
            assert item.why.isprintable()
    assert [item for item in items if isinstance(item, Problem) and item.whole] in ([], items[-1:])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("data", "why"), [
    (lzma.compress(b"example.com\n" * 1000),
     "the file is packed (xz); unpack it, or pack it once, with gzip or zstd"),
    (zlib.compress(zlib.compress(b"example.com\n" * 1000, wbits=31), wbits=31),
     "the file is packed (gzip); unpack it, or pack it once, with gzip or zstd"),
    ("example.com\n".encode("utf-16"), "the file is UTF-16; save it as UTF-8, or put "
     "encoding = \"utf-16\" into the settings of this list"),
    ("example.com\n".encode("utf-16-be").join((b"\xfe\xff", b"")), "the file is UTF-16; save it as UTF-8, or put "
     "encoding = \"utf-16\" into the settings of this list"),
    (b"a" * 2 * HOPELESS, f"the line is longer than {HOPELESS} bytes; is this a list at all?"),
])
def test_no_list_at_all_is_said_once(name, data, why):
    if name in ("json", "order") and data[:1] == b"a":
        why = "the file is no JSON from line 1 on (lexical error: invalid char in json text); is it whole?"
    assert [one._replace(plain="") for one in read(name, data)] == [Problem(1, why, whole=True)]


def test_json_that_was_cut_is_told_on_one_line_without_gaps():
    why = "the file is no JSON from line 2 on (parse error: premature EOF); is it whole?"
    assert read("json", b'{"type": "bundle", "objects": [{\n') == [Problem(1, why, whole=True)]


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_one_line_is_never_held(name):
    class Endless(io.RawIOBase):
        """5 GB of one letter that counts what was asked for."""

        left, longest = 5 * 10**9, 0

        def readline(self, size=-1):
            assert size > 0
            self.left -= size
            self.longest = max(self.longest, size)
            return b"a" * size

    file = Endless()
    last = list(reader_of(name, ListSettings())(file))[-1]
    assert isinstance(last, Problem) and last.whole
    assert file.longest < 20_000 and file.left > 5 * 10**9 - 2 * HOPELESS


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("hashed", "order")])
def test_nothing_is_in_an_empty_file(name):
    assert read(name, b"") == read(name, b"\xef\xbb\xbf\r\n \t\r\n\n") == []


def test_every_name_has_a_reader():
    assert set(EXTENSIONS.values()) | set(NAMES.values()) | {"register", "maltrail"} == set(READERS)
    assert not set(EXTENSIONS) & set(PACKED)


@pytest.mark.parametrize(("file", "stem", "name"), [
    ("court.list", "court", "domains"), ("hosts.list", "hosts", "domains"),
    ("court.order.json", "court", "order"), ("court.order.json.gz", "court", "order"), ("a.b.json", "a.b", "json"),
    ("order.json", "order", "json"), ("hosts.txt", "hosts", "domains"),
    ("domains", "domains", "nfqfilter-domains"), ("ssl_host", "ssl_host", "nfqfilter-domains"),
    ("urls", "urls", "nfqfilter-urls"), ("hosts", "hosts", "nfqfilter-addresses"),
    ("ssl_ips", "ssl_ips", "nfqfilter-addresses"), ("a.urls", "a", "urls"), ("zone.rpz", "zone", "rpz"),
    ("a.csv", "a", "csv"), ("a.hosts", "a", "hosts"), ("a.adblock", "a", "adblock"), ("protos", "protos", None),
    ("a.md", "a", None), ("a.list.gz", "a", "domains"), ("a.b.csv.zst", "a.b", "csv"), ("hosts.gz", "hosts",
                                                                                        "nfqfilter-addresses"),
    ("a.gz", "a", None), (".gz", ".gz", None), ("a.gz.gz", "a", None),
])
def test_formats_by_name(file, stem, name):
    assert find_format(file) == name and list_name(file) == stem


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "hashed"])
def test_international_names_become_a_labels(name):
    line = {"domains": "bücher.test", "nfqfilter-domains": "bücher.test", "urls": "bücher.test/x",
            "nfqfilter-urls": "bücher.test/x", "hosts": "0.0.0.0 bücher.test", "rpz": "bücher.test CNAME .",
            "csv": "domain\nbücher.test", "adblock": "||bücher.test^", "nfqfilter-addresses": "0.0.0.0 bücher.test",
            "dnsmasq": "address=/bücher.test/", "unbound": 'local-zone: "bücher.test" refuse',
            "bind": 'zone "bücher.test" { type master; file "x"; };', "json": '["bücher.test"]',
            "register": ";bücher.test;;x;1;2020-01-01", "maltrail": "bücher.test",
            "order": '{"version":1,"order":"x","items":[{"id":"1","kind":"host","value":"bücher.test"}]}',
            "domain-set": "domain:bücher.test", "dataset": base64.b64encode("bücher.test".encode()).decode()}
    entry, = (item for item in read(name, line[name].encode()) if not isinstance(item, Passed | Asked))
    assert entry.key.partition(b"/")[0] == b"xn--bcher-kva.test"


LONG = {"domains": b"a%d.example\n", "urls": b"a%d.example/x\n", "hosts": b"0.0.0.0 a%d.example\n",
        "rpz": b"a%d.example CNAME .\n", "csv": b"%d,\"a.example\"\n", "adblock": b"||a%d.example^\n",
        "nfqfilter-domains": b"*.a%d.example\n", "nfqfilter-urls": b"a%d.example/x\n",
        "nfqfilter-addresses": b"192.0.2.1:%d\n", "dnsmasq": b"local=/a%d.example/\n",
        "unbound": b"local-zone: a%d.example refuse\n", "domain-set": b"+.a%d.example\n",
        "bind": b'zone "a%d.example" { type master; };\n', "json": b'"a%d.example",\n',
        "register": b";a%d.example;;x;1;2020-01-01\n", "maltrail": b"a%d.example\n",
        "dataset": b"YmFkLmV4YW1wbGU=,%d\n", "hashed": b"%032x host\n"}
# What a reader may hold: a line and what it remembers, not 20 000 of them. A rule of an ad blocker may be switched
# off further down, so all are held (adblock.HELD_MAX).
HELD = {"adblock": 4_000_000}


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "order"])     # its items are, up to HELD_MAX
def test_a_long_file_is_never_held(name):
    head = {"csv": b"n,url\n", "json": b"[",
            "hashed": b"edgeblock-hashed 1 key=0123456789abcdef labels=6 depths=0 url_max=0 "
            b"directory_max=0\n"}.get(name, b"")
    file = io.BytesIO(head + b"".join(LONG[name] % (number + 1) for number in range(20_000)))
    reader = reader_of(name, ListSettings())
    tracemalloc.start()
    try:
        entries = sum(not isinstance(item, Problem) for item in reader(file))
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert entries == 20_000
    assert held < HELD.get(name, 300_000)
