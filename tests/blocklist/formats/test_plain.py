"""The grammar of .list and .txt: each sample line and what it means, each mistake and what is said about it."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import (
    DIRECTORY_DEPTH_MAX,
    HOPELESS,
    LINE_MAX,
    Entry,
    Problem,
    network_key,
    network_text,
    read_domains,
)
from edgeblock.blocklist.formats.plain import read_urls

CHARACTER = "has the character {!r} in its host, which no host has; one a line, without quotes and punctuation"


def read(data):
    return list(read_domains(io.BytesIO(data if isinstance(data, bytes) else data.encode())))


V4, V6 = bytes([192, 0, 2, 1]), bytes.fromhex("20010db8000000000000000000000001")


@pytest.mark.parametrize(("line", "kind", "key"), [
    ("example.com", Kind.HOST, b"example.com"),
    ("Example.COM.", Kind.HOST, b"example.com"),
    ("bücher.de", Kind.HOST, b"xn--bcher-kva.de"),
    ("_sip.example.com", Kind.HOST, b"_sip.example.com"),
    ("http://http/example.com", Kind.URL, b"http/example.com"),
    ("http://192.0.2.0/255.255.255.0", Kind.URL, b"192.0.2.0/255.255.255.0"),
    ("=example.com", Kind.HOST_ONLY, b"example.com"),
    ("*.example.com", Kind.SUBDOMAINS, b"example.com"),
    ("http://example.com/a/b?c=1", Kind.URL_WITH_QUERY, b"example.com/a/b?c=1"),
    ("example.com/a/b?c=1", Kind.URL_WITH_QUERY, b"example.com/a/b?c=1"),
    ("https://example.com/a/b", Kind.URL, b"example.com/a/b"),
    ("example.com/a/b?", Kind.URL, b"example.com/a/b"),
    ("http://example.com", Kind.URL, b"example.com/"),
    ("example.com/", Kind.URL, b"example.com/"),
    ("example.com?q", Kind.URL_WITH_QUERY, b"example.com/?q"),
    ("example.com\\a", Kind.URL, b"example.com/a"),
    ("http://user@example.com:8080/a", Kind.URL, b"example.com/a"),
    ("example.com/a%2Ab", Kind.URL, b"example.com/a*b"),
    ("http://192.0.2.1/24", Kind.URL, b"192.0.2.1/24"),
    ("192.0.2.1/x", Kind.URL, b"192.0.2.1/x"),
    ("[2001:db8::1]/x", Kind.URL, b"[2001:db8::1]/x"),
    ("192.0.2.1", Kind.NETWORK, network_key(V4, 32)),
    ("192.0.2.0/24", Kind.NETWORK, network_key(bytes([192, 0, 2, 0]), 24)),
    ("0.0.0.0/0", Kind.NETWORK, network_key(bytes(4), 0)),
    ("192.0.2.1:443", Kind.ENDPOINT, network_key(V4, 32, 443)),
    ("2001:db8::1", Kind.NETWORK, network_key(V6, 128)),
    ("[2001:DB8:0::1]", Kind.NETWORK, network_key(V6, 128)),
    ("2001:db8::/32", Kind.NETWORK, network_key(bytes.fromhex("20010db8") + bytes(12), 32)),
    ("[2001:db8::1]:443", Kind.ENDPOINT, network_key(V6, 128, 443)),
])
@pytest.mark.parametrize("exception", [False, True])
def test_an_entry(line, kind, key, exception):
    assert read(("@@" if exception else "") + line) == [Entry(1, kind, key, exception)]


@pytest.mark.parametrize(("line", "key", "depth"), [
    ("example.com/*", b"example.com/", 0),
    ("http://example.com/dir/*", b"example.com/dir", 1),
    ("example.com/a//b/./*", b"example.com/a/b", 2),
    ("example.com/" + "a/" * DIRECTORY_DEPTH_MAX + "*", b"example.com" + b"/a" * DIRECTORY_DEPTH_MAX, 32),
])
def test_a_directory(line, key, depth):
    assert read(line) == [Entry(1, Kind.DIRECTORY, key, False, depth)]


def test_a_range_is_its_prefixes():
    assert [network_text(entry.key) for entry in read("192.0.2.1-192.0.2.6")] == [
        "192.0.2.1", "192.0.2.2/31", "192.0.2.4/31", "192.0.2.6"]


@pytest.mark.parametrize("text", ["192.0.2.0/24", "192.0.2.1", "192.0.2.1:443", "2001:db8::/32", "2001:db8::1",
                                  "[2001:db8::1]:443", "::/0"])
def test_addresses_are_shown_as_written(text):
    assert [network_text(entry.key) for entry in read(text)] == [text]


def test_what_is_between_the_entries():
    text = ("\ufeff# comment\r\n; comment\r\n\r\n   \t \r\n  example.com  \t\r\n@@ www.example.com\r\n"
            "example.org # why\nexample.net ; why\nexample.com/#part\nlast.example")
    assert [(item.line, item.key, item.exception) for item in read(text)] == [
        (5, b"example.com", False), (6, b"www.example.com", True), (7, b"example.org", False),
        (8, b"example.net", False), (9, b"example.com/", False), (10, b"last.example", False)]


@pytest.mark.parametrize(("line", "why"), [
    ("exmaple..com", "'exmaple..com' has an empty label"),
    (".example.com", "'.example.com' begins with a dot; write *.example.com for what is below a host, and without "
     "the dot for the host too"),
    ("example.com,", "'example.com,' " + CHARACTER.format(",")),
    ('"example.com"', "'\"example.com\"' " + CHARACTER.format('"')),
    ("(example.com)", "'(example.com)' " + CHARACTER.format("(")),
    ("a=example.com", "'a=example.com' " + CHARACTER.format("=")),
    ("a~b+c.example.com", "'a~b+c.example.com' " + CHARACTER.format("~")),
    ("!example.com", "'!example.com' " + CHARACTER.format("!")),
    ("'example.com/x",
     "\"'example.com/x\" " + CHARACTER.format("'")),
    ("http//example.com/x", "'http//example.com/x' has no ':' behind http"),
    ("192.0.2.0/255.255.255.0",
     "'192.0.2.0/255.255.255.0' is a range with a mask; write it as a prefix, 192.0.2.0/24"),
    ("192.0.2.0/255.255.255.7",
     "'192.0.2.0/255.255.255.7' is a range with a mask; write it as a prefix, such as 192.0.2.0/24"),
    ("@@exmaple..com", "'@@exmaple..com' has an empty label"),
    ("a" * 64 + ".com", "'" + "a" * 64 + ".com' has a label of more than 63 bytes"),
    ("a." * 127 + "b", "'" + "a." * 40 + "...' has a host of more than 253 bytes"),
    ("exa<mple.com", "'exa<mple.com' " + CHARACTER.format("<")),
    ("http://exa|mple.com/<", "'http://exa|mple.com/<' " + CHARACTER.format("|")),
    ("ex%zzample.com", "'ex%zzample.com' " + CHARACTER.format("%")),
    ("example.com#why", "'example.com#why' has the character '#' in its host, which no host has; a comment stands "
                        "behind a blank and '#'"),
    ("example[.]com", "'example[.]com' is written so that nobody follows it; write example.com"),
    ("www[dot]example(.)com", "'www[dot]example(.)com' is written so that nobody follows it; write www.example.com"),
    ("192[.]0[.]2[.]1", "'192[.]0[.]2[.]1' is written so that nobody follows it; write 192.0.2.1"),
    ("hxxps://example[.]com/a[.]html", "'hxxps://example[.]com/a[.]html' is written so that nobody follows it; write "
                                       "https://example.com/a.html"),
    ("hXXp[:]//example.com/", "'hXXp[:]//example.com/' is written so that nobody follows it; write "
                              "http://example.com/"),
    ("hxxp://exam<ple.com/", "'hxxp://exam<ple.com/' is no http or https URL"),
    ("0.0.0.0 example.com", "'0.0.0.0 example.com' is a line of a hosts file; write example.com alone, or put such "
                            "lines into a list of their own, which ends in .hosts"),
    ("::\texample.com", "'::\\texample.com' is a line of a hosts file; write example.com alone, or put such lines "
                        "into a list of their own, which ends in .hosts"),
    ("// why", "'// why' looks like a comment, and a comment begins with '#'"),
    ("! why", "'! why' looks like a comment, and a comment begins with '#'"),
    ("example.com // why", "'example.com // why' has a space inside; a comment stands behind a blank and '#'"),
    ("example.com - why", "'example.com - why' has a space inside; a comment stands behind a blank and '#'"),
    ("\ufffd.com", "'\ufffd.com' has a character that international domain names do not allow"),
    ("=", "'=' has no host"),
    ("*.", "'*.' has no host"),
    ("@@", "'@@' has no host"),
    ("*", "'*' has a star; a star stands only in '*.' at the front of a host or '/*' at the end of a URL"),
    ("a.*.com",
     "'a.*.com' has a star; a star stands only in '*.' at the front of a host or '/*' at the end of a URL"),
    ("info@example.com", "'info@example.com' has an '@'; write the host alone"),
    ("example.com:8080", "'example.com:8080' has a port; a host entry covers every port"),
    ("example.com:x", "'example.com:x' has a port that is no number up to 65535"),
    ("a.com\tb.com", "'a.com\\tb.com' has a space inside; one entry a line, and %20 for a space in a URL"),
    ("0x7f.1", "'0x7f.1' is an address in an unusual form; write 127.0.0.1"),
    ("=192.0.2.1", "'=192.0.2.1' is an address; '=' and '*.' are for names"),
    ("192.0.2.0/24:443", "'192.0.2.0/24:443' is a prefix with a port; write a line for each address and port, or "
                         "leave out the port"),
    ("[2001:db8::/48]:443", "'[2001:db8::/48]:443' is a prefix with a port; write a line for each address and port, "
                            "or leave out the port"),
    ("192.0.2.1-192.0.2.5:80", "'192.0.2.1-192.0.2.5:80' is a range with a port; write a line for each address and "
                               "port, or leave out the port"),
    ("192.0.2.1-5", "'192.0.2.1-5' is no whole range; write both addresses: 192.0.2.1-192.0.2.5"),
    ("192.0.2.1 - 192.0.2.5", "'192.0.2.1 - 192.0.2.5' is a range with spaces; write 192.0.2.1-192.0.2.5"),
    ("192.0.2.*", "'192.0.2.*' is no prefix; write it with a length, such as 192.0.2.0/24"),
    ("[2001:db8::/32]", "'[2001:db8::/32]' is a prefix in brackets; write it without them"),
    ("192.0.2.1:443/tcp", "'192.0.2.1:443/tcp' names a protocol, and an entry holds for every protocol; leave that "
                          "out"),
    ("a.example/x @ 192.0.2.1", "'a.example/x @ 192.0.2.1' is a URL with an address; only a host can be blocked "
                                "where it leads to an address"),
    ("a.example @ 192.0.2.1:80", "'a.example @ 192.0.2.1:80' has a port behind '@'; a host is blocked on every port, "
                                 "so leave that out"),
    ("a.example @ b.example", "'a.example @ b.example' has no address behind '@'; write one, such as example.com @ "
                              "192.0.2.1"),
    ("a.example @ 192.0.2.1/24", "'a.example @ 192.0.2.1/24' has address bits beyond its prefix; write 192.0.2.0/24"),
    ("a.example@192.0.2.1", "'a.example@192.0.2.1' has an '@' and an address behind it; for a host at an address put "
                            "blanks around the '@'"),
    ("192.0.2.1 @ 192.0.2.1", "'192.0.2.1 @ 192.0.2.1' is an address, and this is a place for names"),
    ("a.b.c.d.e.f.g.h.example @ 192.0.2.1", "'a.b.c.d.e.f.g.h.example @ 192.0.2.1' has a host of more than 8 labels, "
                                            "and an address"),
    ("2001:db8::1-2001:db8::9", "'2001:db8::1-2001:db8::9' is a range of IPv6 addresses; write its 4 prefixes, a "
                                "line each: 2001:db8::1/128, 2001:db8::2/127, 2001:db8::4/126, ..."),
    ("2001:db8::9-2001:db8::1", "'2001:db8::9-2001:db8::1' is a range of IPv6 addresses; write prefixes"),
    ("1.2.3.4.5", "'1.2.3.4.5' looks like an address but is none"),
    ("256.1.1.1", "'256.1.1.1' looks like an address but is none: it has a number over 255"),
    ("192.0.2.1/33", "'192.0.2.1/33' has a prefix of more than 32 bits; write 192.0.2.1 for this one address"),
    ("192.0.2.9-192.0.2.1", "'192.0.2.9-192.0.2.1' ends before it begins; write 192.0.2.1-192.0.2.9"),
    ("2001:db8::/129", "'2001:db8::/129' has a prefix of more than 128 bits; write 2001:db8:: for this one address"),
    ("192.0.2.1-192.0.2.300", "'192.0.2.1-192.0.2.300' looks like an address but is none"),
    ("192.0.2.1/24", "'192.0.2.1/24' has address bits beyond its prefix; write 192.0.2.0/24"),
    ("192.0.2.1:0", "'192.0.2.1:0' has a port that is no number from 1 to 65535"),
    ("192.0.2.1:00000199999", "'192.0.2.1:00000199999' has a port that is no number from 1 to 65535"),
    ("[2001:db8::1]:00000199999", "'[2001:db8::1]:00000199999' has a port that is no number from 1 to 65535"),
    ("192.0.2.1:65536", "'192.0.2.1:65536' has a port that is no number from 1 to 65535"),
    ("htp://example.com/a", "'htp://example.com/a' is no http or https URL"),
    ("/a/b", "'/a/b' has no host"),
    ("http://exmaple..com/a", "'http://exmaple..com/a' has an empty label"),
    ("=example.com/a", "'=example.com/a' is a URL, which is of one host; '=' and '*.' are for hosts"),
    ("*.example.com/a", "'*.example.com/a' is a URL, which is of one host; '=' and '*.' are for hosts"),
    ("http://*.example.com/a", "'http://*.example.com/a' is a URL, which is of one host; '=' and '*.' are for hosts"),
    ("example.com/a*", "'example.com/a*' has a star that is not '/*' at the end; write %2A for a real one"),
    ("example.com/*/a", "'example.com/*/a' has a star that is not '/*' at the end; write %2A for a real one"),
    ("example.com/?a/*", "'example.com/?a/*' has a query or fragment before '/*'; a directory has neither"),
    ("example.com/" + "a/" * 33 + "*", "'example.com/" + "a/" * 33 + "*' has more than 32 path segments before '/*'"),
    ("example.com/" + "a" * 5000, "'example.com/" + "a" * 68 + "...' is longer than 4096 bytes"),
    ("a\0.com", "the line has a control character (0x00)"),
    ("a\x1b[31m.com", "the line has a control character (0x1b)"),
    ("a.com\rb.com", "the line has a control character (0x0d)"),
    (b"b\xfccher.de", "the line is not UTF-8 (0xfc); save it as UTF-8, or state its encoding in the "
     "settings of this list"),
    ("a" * (LINE_MAX + 1), f"the line is longer than {LINE_MAX} bytes"),
])
def test_a_mistake(line, why):
    line = line if isinstance(line, bytes) else line.encode()
    assert read(b"ok.example\n" + line + b"\nfine.example\n") == [
        Entry(1, Kind.HOST, b"ok.example"), Problem(2, why), Entry(3, Kind.HOST, b"fine.example")]


def test_another_encoding_is_named_once():
    assert read("example.com\n".encode("utf-16")) == [Problem(1, "the file is UTF-16; save it as UTF-8, or put "
     "encoding = \"utf-16\" into the settings of this list", whole=True)]


def test_an_endless_line_is_never_held():
    class Endless(io.RawIOBase):
        """A line of 64 MiB that counts the longest piece anybody asks for."""

        left, longest = 64 * 1024 * 1024, 0

        def readline(self, size=-1):
            assert size >= 0
            size = min(size, self.left)
            self.left -= size
            self.longest = max(self.longest, size)
            return b"a" * size

    file = Endless()
    assert list(read_domains(file)) == [
        Problem(1, f"the line is longer than {HOPELESS} bytes; is this a list at all?", whole=True)]
    assert file.longest <= LINE_MAX + 1
    assert file.left > 62 * 1024 * 1024


ODD = st.text(st.sampled_from("a.=*@/?#; \t\r\n[]:0129-%\0ü"), max_size=80).map(str.encode)


@given(st.binary(max_size=200) | ODD)
def test_no_bytes_raise_and_every_line_has_its_say(data):
    items = read(data)
    numbers = [item.line for item in items]
    assert numbers == sorted(numbers)
    for item in items:
        if isinstance(item, Problem):
            assert "\n" not in item.why
        else:
            assert item.key


# .urls ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("line", "kind", "key", "exception"), [
    ("http://example.com/a/b?c=1", Kind.URL_WITH_QUERY, b"example.com/a/b?c=1", False),
    ("example.com/a/b", Kind.URL, b"example.com/a/b", False),
    ("example.com", Kind.URL, b"example.com/", False),
    ("HTTPS://Example.COM", Kind.URL, b"example.com/", False),
    ("bücher.test/ä # why", Kind.URL, b"xn--bcher-kva.test/%C3%A4", False),
    ("example.com/dir/*", Kind.DIRECTORY, b"example.com/dir", False),
    ("@@ example.com/a", Kind.URL, b"example.com/a", True),
    ("192.0.2.1", Kind.URL, b"192.0.2.1/", False),
    ("192.0.2.0/24", Kind.URL, b"192.0.2.0/24", False),
])
def test_a_url(line, kind, key, exception):
    depth = 1 if kind is Kind.DIRECTORY else 0
    assert list(read_urls(io.BytesIO(line.encode()))) == [Entry(1, kind, key, exception, depth)]


@pytest.mark.parametrize(("line", "why"), [
    ("=example.com", "'=example.com' is a URL, which is of one host; '=' and '*.' are for hosts"),
    ("*.example.com/a", "'*.example.com/a' is a URL, which is of one host; '=' and '*.' are for hosts"),
    ("http://example.com/a b",
     "'http://example.com/a b' has a space inside; one URL a line, and %20 for a space in it"),
    ("hxxp://example.com/", "'hxxp://example.com/' is written so that nobody follows it; write http://example.com/"),
    ("htp://example.com/", "'htp://example.com/' is no http or https URL"),
    ("// why", "'// why' looks like a comment, and a comment begins with '#'"),
    ("http:///", "'http:///' has no host"),
    (b"example.com/\xe4", "the line is not UTF-8 (0xe4); save it as UTF-8, or state its encoding in the "
     "settings of this list"),
    ("example.com/\0", "the line has a control character (0x00)"),
])
def test_no_url(line, why):
    line = line if isinstance(line, bytes) else line.encode()
    assert list(read_urls(io.BytesIO(b"\n" + line + b"\r\nexample.com/x"))) == [
        Problem(2, why), Entry(3, Kind.URL, b"example.com/x")]
