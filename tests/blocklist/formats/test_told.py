"""What a file is, told from its first lines: a sample of each format under each other's name."""

import io

import pytest

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import READERS, network_key, reader_of
from edgeblock.blocklist.formats.dataset import read_dataset
from edgeblock.blocklist.formats.hashed import HashedHead, write_hashed
from edgeblock.blocklist.formats.lines import Entry, Problem
from edgeblock.blocklist.formats.told import foreign, is_order, what_it_is
from edgeblock.blocklist.settings import ListSettings


def made_hashed() -> bytes:
    out = io.BytesIO()
    write_hashed(out, HashedHead(bytes(8), 4, 0, 0, 0), [(network_key(bytes((192, 0, 2, 1)), 32), False)],
                 [(bytes(range(16)), Kind.HOST, False)])
    return out.getvalue()


SAMPLES = {
    "adblock": b"[Adblock Plus 2.0]\n! x\n||a.example^\n||b.example^$important\n@@||c.example^\n",
    "hosts": b"# x\n127.0.0.1 localhost\n::1 localhost\n0.0.0.0 a.example\n0.0.0.0 b.example # c\n",
    "dnsmasq": b"address=/a.example/0.0.0.0\nlocal=/b.example/\n",
    "unbound": b"server:\nlocal-zone: \"a.example\" refuse\nlocal-zone: \"b.example\" refuse\n",
    "domain-set": b"domain:a.example\nfull:b.example\nkeyword:c\n",
    "rpz": b"$TTL 60\n@ SOA a. b. 1 2 3 4 5\na.example CNAME .\n*.a.example CNAME .\n",
    "csv": b"id,domain,why\n1,a.example,x\n2,b.example,y\n",
    "hashed": made_hashed(),
    "dataset": b"YmFkLmV4YW1wbGU=\nd29yc2UuZXhhbXBsZQ==\nZXZpbC5leGFtcGxl\n",
}
WORDS = {"domain-set": "v2fly", "dataset": "base64"}


@pytest.mark.parametrize("stated", ["domains", "urls", "hosts", "adblock", "rpz", "nfqfilter-domains", "dnsmasq"])
@pytest.mark.parametrize("sort", SAMPLES)
def test_a_file_under_another_name(stated, sort):
    why = foreign(SAMPLES[sort], stated)
    if sort == stated or (stated, sort) == ("adblock", "hosts"):
        assert why is None
    else:
        assert WORDS.get(sort, sort) in why and f'format = "{sort}"' in why
        *places, last = reader_of(stated, ListSettings())(io.BytesIO(SAMPLES[sort]))
        assert last == Problem(1, why, whole=True) and len(places) <= 3


@pytest.mark.parametrize("sort", SAMPLES)
def test_a_file_under_its_own_name(sort):
    assert sort in READERS and foreign(SAMPLES[sort], sort) is None
    items = list(reader_of(sort, ListSettings())(io.BytesIO(SAMPLES[sort])))
    assert any(isinstance(item, Entry) for item in items) and not any(isinstance(item, Problem) for item in items)


@pytest.mark.parametrize(("head", "word"), [
    (b"<!DOCTYPE html>\n<html>", "HTML"), (b"\n <html><body>404</body>", "HTML"), (b"<?xml version='1.0'?>", "XML"),
    (b"%PDF-1.7\n", "PDF"), (b"[]", "JSON"), (b'{"a": 1}\n', "JSON"), (b'[\n  {\n    "type": "x",\n', "JSON"),
    (b"{\\rtf1 a", "text processor"),
    (b'alert http $HOME_NET any -> $EXTERNAL_NET any (msg:"' + b"x" * 400 + b'"; sid:1;)\n', "intrusion detection"),
    (b"MZ\x90\0", "program"), (b"\x89PNG\r\n", "picture"),
])
def test_what_is_no_list(head, word):
    assert word in foreign(head, "domains")


@pytest.mark.parametrize("head", [
    b"a.example\nb.example\n", b"@@a.example\n@@b.example\n", b"# x\n\n; y\n", b"", b"http://a.example/b,c\n",
    b"192.0.2.0/24\n2001:db8::/32\n[2001:db8::1]:443\n", b"a.example # why, and when\n", b"abcd\nexam\n",
    b"*.a.example\n=b.example\n",
    b'"Domain","Reason"\n', b"[2001:db8::1]:443\n", b"a.example\nshop.example##.banner\nb.example\nc.example\n",
])
def test_a_plain_list_is_a_plain_list(head):
    assert foreign(head, "domains") is None


def test_names_alone_in_a_file_for_addresses():
    assert 'put format = "domains"' in foreign(b"# x\na.example\nb.example\n", "nfqfilter-addresses")
    assert foreign(b"a.example\n192.0.2.1\n192.0.2.2\n", "nfqfilter-addresses") is None
    assert foreign(b"192.0.2.1:443\n", "nfqfilter-addresses") is None


def test_a_comment_behind_a_name_does_not_hide_it():
    assert 'format = "domains"' in what_it_is("a.example  # x y\nb.example  # é\n".encode())


def test_a_data_set_reads_addresses_too():
    items = list(read_dataset(io.BytesIO(b"LmEuZXhhbXBsZQ==\n192.0.2.1\n2001:db8::1,5\n???\n")))
    assert [type(item) for item in items] == [Entry, Entry, Entry, Problem] and items[0].key == b"a.example"


@pytest.mark.parametrize(("text", "wanted"), [
    ('{"version": 1, "order": "x", "items": []}', True), ('{"order": "x", "items": [], "version": "1"}', True),
    ('{"items": [{"id": "1", "kind": "url", "value": "a"}', True),
    ('{"items": [{"id": 1, "value": "a.example"}]}', False),
    ('[{"items": [], "version": 1, "order": "x"}]', False), ('{"type": "bundle", "id": "x", "objects": []}', False)])
def test_an_order_is_known_by_its_words(text, wanted):
    assert is_order(text.encode()) is wanted
    assert ("an order" in (foreign(text.encode(), "json") or "")) is wanted
