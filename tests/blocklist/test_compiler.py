"""Entries into the parts of a snapshot: the rows, the bounds, the counts."""

import pytest
from pyroaring import BitMap

from edgeblock.blocklist.compiler import Compiler
from edgeblock.blocklist.fingerprint import Kind, fingerprint
from edgeblock.blocklist.parts import LISTS_MAX
from edgeblock.blocklist.settings import ListSettings

from .making import KEY, compiled


def rows(parts):
    """{(fingerprint, list index, exception, kind)}"""
    table = parts.rows
    return {(table[i:i + 16], table[i + 18] | table[i + 19] << 8, table[i + 17], Kind(table[i + 16]))
            for i in range(0, len(table), 20)}


def test_one_row_an_entry_and_a_mark_for_each_host_with_urls():
    parts = compiled(("a", None, ["example.com", "@@example.com", "example.com"]),
                     ("b", ListSettings(https="host"), ["example.com/x", "example.com/y?z", "@@example.org/w"]))
    host, other = fingerprint(KEY, b"example.com"), fingerprint(KEY, b"example.org")
    assert rows(parts) == {
        (host, 0, 0, Kind.HOST), (host, 0, 1, Kind.HOST),
        (host, 1, 0, Kind.URL_MARK), (other, 1, 0, Kind.URL_MARK), (host, 1, 0, Kind.HOST_OF_URL),
        (fingerprint(KEY, b"example.com/x"), 1, 0, Kind.URL),
        (fingerprint(KEY, b"example.com/y?z"), 1, 0, Kind.URL_WITH_QUERY),
        (fingerprint(KEY, b"example.org/w"), 1, 1, Kind.URL)}
    assert [(record.name, record.entries) for record in parts.lists] == [("a", 2), ("b", 3)]


def test_the_bitmap_has_the_first_32_bits_of_every_fingerprint():
    parts = compiled(("a", None, ["example.com", "example.org/x"]))
    assert set(BitMap.deserialize(parts.bitmap)) == {
        int.from_bytes(fingerprint(KEY, text)[:4]) for text in (b"example.com", b"example.org", b"example.org/x")}


def test_bounds_are_as_narrow_as_the_entries():
    parts = compiled(("a", None, ["com", "=a.b.c", "*." + "a." * 69 + "b", "w.x.y.z/p", "http://192.0.2.1/a",
                                  "e.f/*", "e.f/1/2/*"]))
    assert parts.labels == 1 << 1 | 1 << 3 | 1 << 63 | 1 << 4 | 1 << 0 | 1 << 2
    assert parts.depths == 1 << 0 | 1 << 2
    assert parts.url_max == len("192.0.2.1/a") and parts.directory_max == len("e.f/1/2")
    assert parts.ipv4_lengths == parts.ipv6_lengths == 0


def test_addresses():
    parts = compiled(("a", None, ["192.0.2.0/24", "198.51.100.1:443", "2001:db8::/32", "::1"]))
    assert parts.ipv4_lengths == 1 << 24 | 1 << 32
    assert parts.ipv6_lengths == 1 << 32 | 1 << 128
    ipv4 = BitMap.deserialize(parts.ipv4)
    assert len(ipv4) == 257 and 0xC0000200 in ipv4 and 0xC00002FF in ipv4 and 0xC6336401 in ipv4
    assert parts.labels == 0


def test_the_whole_internet_is_one_container_each():
    parts = compiled(("a", None, ["0.0.0.0/0"]))
    assert len(BitMap.deserialize(parts.ipv4)) == 2**32


def test_the_same_lists_make_the_same_parts():
    lines = [f"h{number}.example" for number in range(1000)]
    assert compiled(("a", None, lines)) == compiled(("a", None, reversed(lines)))


def test_no_more_lists_than_a_row_can_name():
    compiler = Compiler(KEY)
    for number in range(LISTS_MAX):
        compiler.add_list(str(number), ListSettings())
    with pytest.raises(ValueError):
        compiler.add_list("one more", ListSettings())
