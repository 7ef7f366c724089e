"""Filter lists of ad blockers: what is taken, what is passed over, what is a mistake."""

import io

import pytest

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.adblock import read_adblock
from edgeblock.blocklist.formats.lines import Entry, Passed, Problem

ELEMENTS = "rules about page elements (##, #@#, #?#, $$)"
PATTERNS = "patterns that match parts of URLs"


def read(text):
    return list(read_adblock(io.BytesIO(text if isinstance(text, bytes) else text.encode())))


def test_a_list_as_it_is_found():
    assert read("\ufeff[Adblock Plus 2.0]\r\n! Title: sample\r\n!\r\n# comment\r\n\r\n||Ads.Example.com^\r\n"
                "@@||good.ads.example.com^\r\nexample.com##.banner\r\n||track.example^$third-party\r\n") == [
        Entry(6, Kind.HOST, b"ads.example.com"), Entry(7, Kind.HOST, b"good.ads.example.com", True),
        Passed(8, ELEMENTS), Passed(9, "rules that hold under conditions ($third-party)")]


@pytest.mark.parametrize(("rule", "kind", "key", "depth"), [
    ("||example.com^", Kind.HOST, b"example.com", 0),
    ("||example.com^|", Kind.HOST, b"example.com", 0),
    ("||example.com|", Kind.HOST, b"example.com", 0),
    ("||bücher.test^", Kind.HOST, b"xn--bcher-kva.test", 0),
    ("||*.example.com^", Kind.SUBDOMAINS, b"example.com", 0),
    ("||example.com^$important", Kind.HOST, b"example.com", 0),
    ("||example.com^$all", Kind.HOST, b"example.com", 0),
    ("||192.0.2.1^", Kind.DIRECTORY, b"192.0.2.1/", 0),
    ("|http://example.com^", Kind.HOST_ONLY, b"example.com", 0),
    ("|https://example.com/", Kind.HOST_ONLY, b"example.com", 0),
    ("|http://192.0.2.1/", Kind.DIRECTORY, b"192.0.2.1/", 0),
    ("|http://example.com/|", Kind.URL, b"example.com/", 0),
    ("|http://example.com/a/b|", Kind.URL, b"example.com/a/b", 0),
    ("|http://example.com/a?b=1|", Kind.URL_WITH_QUERY, b"example.com/a?b=1", 0),
    ("|https://example.com/a/b/", Kind.DIRECTORY, b"example.com/a/b", 2),
])
@pytest.mark.parametrize("exception", [False, True])
def test_what_is_taken(rule, kind, key, depth, exception):
    assert read(("@@" if exception else "") + rule) == [Entry(1, kind, key, exception, depth)]


def test_the_page_itself_is_the_host():
    assert read("||example.com^$document\n||example.org^$doc,important") == [
        Entry(1, Kind.HOST, b"example.com"), Entry(2, Kind.HOST, b"example.org")]
    # As an exception it is about what else such a page may load.
    assert read("@@||example.com^$document") == [Passed(1, "rules that hold under conditions ($document)")]


@pytest.mark.parametrize(("rule", "sort"), [
    ("##.ad", ELEMENTS), ("example.com#@#.ad", ELEMENTS), ("example.com#?#div", ELEMENTS),
    ("example.com#$#body { }", ELEMENTS), ("example.com#@$?#x", ELEMENTS), ("example.com#%#js()", ELEMENTS),
    ("example.com$$script", ELEMENTS), ("/banner[0-9]+/", "regular expressions"),
    ("/ads/$script", "regular expressions"),
    ("||example.com^$script,third-party", "rules that hold under conditions ($script)"),
    ("||example.com^$~third-party", "rules that hold under conditions ($~third-party)"),
    ("||example.com^$domain=a.example|b.example", "rules that hold under conditions ($domain)"),
    ("||example.com^$important,badfilter", "rules that hold under conditions ($badfilter)"),
    ("||example.com/ads/", PATTERNS), ("||ads*.example.com^", PATTERNS), ("/ads/banner.", PATTERNS),
    ("-ad-", PATTERNS),
    ("|http://example.com/a", PATTERNS), ("|http://example.com/a?b/", PATTERNS),
    ("|http://example.com/*/a|", PATTERNS),
    ("||example.com^path", PATTERNS), ("&ad=", PATTERNS),
])
def test_what_is_passed_over(rule, sort):
    assert read(rule) == [Passed(1, sort)]


@pytest.mark.parametrize(("rule", "why"), [
    ("||exmaple..com^", "'||exmaple..com^' has an empty label"),
    ("||example.com", "'||example.com' has no '^' at its end, so longer names would match too; write ||name^"),
    ("|http://example.com",
     "'|http://example.com' has neither '^' nor '/' behind the host, so longer names would match too"),
    ("||example.com:8080^", "'||example.com:8080^' has a port; a host entry covers every port"),
    ("||=example.com^", "'||=example.com^' has a '=' in front of the name"),
    ("example.com", "'example.com' matches inside any URL; write ||example.com^ for the host"),
    ("0.0.0.0 example.com", "'0.0.0.0 example.com' has a space inside; is this a hosts file?"),
    ("||^", "'||^' is no rule; hosts are ||name^"),
    ("nonsense", "'nonsense' is no rule; hosts are ||name^"),
    (b"||\xe4.example^", "the line is not UTF-8 (0xe4); save it as UTF-8"),
    ("||a\0.example^", "the line has a control character (0x00)"),
])
def test_a_mistake(rule, why):
    rule = rule if isinstance(rule, bytes) else rule.encode()
    assert read(b"! x\n" + rule + b"\n||fine.example^") == [Problem(2, why), Entry(3, Kind.HOST, b"fine.example")]
