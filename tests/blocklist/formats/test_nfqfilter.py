"""The five files for nfqfilter and extFilter: each sample line and what it means, each mistake and what is said."""

import io

import pytest

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import network_text
from edgeblock.blocklist.formats.lines import Entry, Passed, Problem
from edgeblock.blocklist.formats.nfqfilter import (
    read_nfqfilter_addresses,
    read_nfqfilter_domains,
    read_nfqfilter_urls,
)


def read(reader, text, **options):
    return list(reader(io.BytesIO(text if isinstance(text, bytes) else text.encode()), **options))


def test_domains():
    text = "# from the register\n; too\nExample.com\n*.example.org\nxn--bcher-kva.test\nпример.test\n"
    names = [b"xn--bcher-kva.test", b"xn--e1afmkfd.test"]
    assert read(read_nfqfilter_domains, text) == [
        Entry(3, Kind.HOST, b"example.com"), Entry(4, Kind.HOST, b"example.org"), Entry(5, Kind.HOST, names[0]),
        Entry(6, Kind.HOST, names[1])]
    assert read(read_nfqfilter_domains, text, subdomains=False) == [
        Entry(3, Kind.HOST_ONLY, b"example.com"), Entry(4, Kind.HOST, b"example.org"),
        Entry(5, Kind.HOST_ONLY, names[0]), Entry(6, Kind.HOST_ONLY, names[1])]


def test_urls():
    assert read(read_nfqfilter_urls, b"example.com/\nexample.com/a//b?c=1\nexample.com/*x*\n"
                                     b"example.com/\xcf\xee\xe8\nhttp://example.org\n") == [
        Entry(1, Kind.URL, b"example.com/"), Entry(2, Kind.URL_WITH_QUERY, b"example.com/a/b?c=1"),
        Entry(3, Kind.URL, b"example.com/*x*"), Entry(4, Kind.URL, b"example.com/%CF%EE%E8"),
        Entry(5, Kind.URL, b"example.org/")]


def test_addresses():
    items = read(read_nfqfilter_addresses, "192.0.2.1:3001\n192.0.2.2\n198.51.100.0/24\n[2001:db8::1]:443\n"
                                           "[2001:db8::2]\n[2001:db8:1::/48]\n2001:db8::3\n")
    assert [(item.line, network_text(item.key)) for item in items] == [
        (1, "192.0.2.1:3001"), (2, "192.0.2.2"), (3, "198.51.100.0/24"), (4, "[2001:db8::1]:443"),
        (5, "2001:db8::2"), (6, "2001:db8:1::/48"), (7, "2001:db8::3")]


def test_a_file_named_hosts_may_be_a_hosts_file():
    text = "127.0.0.1 localhost\n0.0.0.0 ads.example.com\n192.0.2.1:443\n"
    first, second, third = read(read_nfqfilter_addresses, text)
    assert isinstance(first, Passed) and second == Entry(2, Kind.HOST_ONLY, b"ads.example.com")
    assert network_text(third.key) == "192.0.2.1:443"
    assert read(read_nfqfilter_addresses, text, subdomains=True)[1] == Entry(2, Kind.HOST, b"ads.example.com")


@pytest.mark.parametrize(("reader", "line", "why"), [
    (read_nfqfilter_domains, "exmaple..com", "'exmaple..com' has an empty label"),
    (read_nfqfilter_domains, "example.com/a", "'example.com/a' is no name; this file has names alone"),
    (read_nfqfilter_domains, "=example.com", "'=example.com' is no name; this file has names alone"),
    (read_nfqfilter_domains, "*.*.com",
     "'*.*.com' has a star; a star stands only in '*.' at the front of a host or '/*' at the end of a URL"),
    (read_nfqfilter_domains, b"\xe4.example", "the line is not UTF-8 (0xe4); save it as UTF-8, or state its encoding "
     "in the settings of this list"),
    (read_nfqfilter_domains, "a\0.example", "the line has a control character (0x00)"),
    (read_nfqfilter_urls, "/a", "'/a' has no host"),
    (read_nfqfilter_urls, "a.example/x y",
     "'a.example/x y' has a space inside; one URL a line, and %20 for a space in it"),
    (read_nfqfilter_urls, b"\xe4.example/",
     "'\\\\xe4.example/' has a character that international domain names do not allow"),
    (read_nfqfilter_urls, "a.example/\0", "the line has a control character (0x00)"),
    (read_nfqfilter_addresses, "example.com",
     "'example.com' is no address with or without a port, such as 192.0.2.1:443 or [2001:db8::1]:443"),
    (read_nfqfilter_addresses, "192.0.2.0/24:80",
     "'192.0.2.0/24:80' is a prefix with a port; write a line for each address and port, or leave out the port"),
    (read_nfqfilter_addresses, "192.0.2.1:0", "'192.0.2.1:0' has a port that is no number from 1 to 65535"),
    (read_nfqfilter_addresses, "192.0.2.1/24",
     "'192.0.2.1/24' has address bits beyond its prefix; write 192.0.2.0/24"),
    (read_nfqfilter_addresses, "\0", "the line has a control character (0x00)"),
])
def test_a_mistake(reader, line, why):
    line = line if isinstance(line, bytes) else line.encode()
    assert read(reader, b"# x\n" + line + b"\n") == [Problem(2, why)]


def test_an_address_among_names_is_the_pages_there():
    assert read(read_nfqfilter_domains, b"192.0.2.1\na.example\n") == [
        Entry(1, Kind.DIRECTORY, b"192.0.2.1/"), Entry(2, Kind.HOST, b"a.example")]
