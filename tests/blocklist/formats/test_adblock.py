"""Filter lists of ad blockers: what is taken, what is passed over, what is a mistake."""

import io

import pytest

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import adblock
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
    ("||example.com/a/b^", Kind.URL, b"example.com/a/b", 0),
    ("||example.com/a/$all", Kind.DIRECTORY, b"example.com/a", 1),
    ("||192.0.2.1:8080^", Kind.ENDPOINT, b"\0\x20\xc0\0\2\1\x1f\x90", 0),
])
@pytest.mark.parametrize("exception", [False, True])
def test_what_is_taken(rule, kind, key, depth, exception):
    assert read(("@@" if exception else "") + rule) == [Entry(1, kind, key, exception, depth)]


@pytest.mark.parametrize(("rule", "kind", "key", "sort"), [
    ("||example.com", Kind.HOST, b"example.com", adblock.LONGER),
    ("||example.com$all", Kind.HOST, b"example.com", adblock.LONGER),
    ("|http://example.com", Kind.HOST_ONLY, b"example.com", adblock.LONGER),
    ("||192.0.2.1", Kind.DIRECTORY, b"192.0.2.1/", adblock.LONGER),
    ("||example.com/a.html$document", Kind.URL, b"example.com/a.html", adblock.LONGER_URLS),
])
def test_what_only_begins_like_a_rule_is_passed_over_an_exception_loudly(rule, kind, key, sort):
    assert read(rule) == [Entry(1, kind, key), Passed(1, sort)]
    assert read("@@" + rule) == [Entry(1, kind, key, True), Passed(1, sort, True, f"'@@{rule}'")]


@pytest.mark.parametrize("rule", ["||ads.", "||ads", "||ads.example-", "||192.0.2", "||10.0", "|http://192.0.2"])
def test_the_beginning_of_a_name_is_a_pattern(rule):
    assert read(rule) == [Passed(1, "patterns that match parts of names")]


def test_the_page_itself_is_the_host():
    assert read("||example.com^$document\n||example.org^$doc,important") == [
        Entry(1, Kind.HOST, b"example.com"), Entry(2, Kind.HOST, b"example.org")]
    assert read("@@||example.com^$document") == [Entry(1, Kind.HOST, b"example.com", True)]


def test_kinds_of_request_add_up():
    assert read("||a.example^$document,popup\n||b.example^$popup,doc\n||c.example^$all,script") == [
        Entry(1, Kind.HOST, b"a.example"), Entry(2, Kind.HOST, b"b.example"), Entry(3, Kind.HOST, b"c.example")]
    assert read("||a.example^$document,domain=b.example\n||a.example^$document,~third-party") == [
        Passed(1, "rules that hold under conditions ($domain)"),
        Passed(2, "rules that hold under conditions ($~third-party)")]


@pytest.mark.parametrize("text", [
    "||a.example^$badfilter\n||a.example^", "||a.example^\n||a.example^$badfilter",
    "||a.example^$all,important\n||a.example^$important,badfilter,all",
    "@@||a.example^$badfilter\n@@||a.example^",
])
def test_a_rule_that_is_switched_off_is_none(text):
    assert [item for item in read(text) if not isinstance(item, Passed)] == []


def test_only_the_rule_itself_is_switched_off():
    assert Entry(1, Kind.HOST, b"a.example") in read(
        "||a.example^\n||a.example^$important,badfilter\n@@||a.example^$badfilter")


def test_a_list_that_is_too_long_to_hold(monkeypatch):
    monkeypatch.setattr(adblock, "HELD_MAX", 100)
    rules = "".join(f"||{letter}.example^\n" for letter in "abcdefghijklm")
    *entries, last = read(f"{rules}||a.example^$badfilter")
    assert len(entries) == 13 and isinstance(last, Problem)


def test_an_exception_that_is_left_out_is_loud():
    assert read("@@||a.example^$domain=b.example\n@@/banner.\n@@||a.example^$generichide") == [
        Passed(1, "rules that hold under conditions ($domain)", True, "'@@||a.example^$domain=b.example'"),
        Passed(2, PATTERNS, True, "'@@/banner.'"), Passed(3, "rules that hold under conditions ($generichide)")]


def test_names_alone_and_lines_of_a_hosts_file():
    assert read("a.example\n0.0.0.0 b.example c.example\n127.0.0.1 localhost") == [
        Entry(1, Kind.HOST_ONLY, b"a.example"), Entry(2, Kind.HOST_ONLY, b"b.example"),
        Entry(2, Kind.HOST_ONLY, b"c.example"), Passed(3, "names of the machine itself, such as localhost")]


@pytest.mark.parametrize(("rule", "sort"), [
    ("##.ad", ELEMENTS), ("example.com#@#.ad", ELEMENTS), ("example.com#?#div", ELEMENTS),
    ("example.com#$#body { }", ELEMENTS), ("example.com#@$?#x", ELEMENTS), ("example.com#%#js()", ELEMENTS),
    ("example.com$$script", ELEMENTS), ("/banner[0-9]+/", "regular expressions"),
    ("/ads/$script", "regular expressions"),
    ("||example.com^$script,third-party", "rules that hold under conditions ($script)"),
    ("||example.com^$~third-party", "rules that hold under conditions ($~third-party)"),
    ("||example.com^$domain=a.example|b.example", "rules that hold under conditions ($domain)"),
    ("||example.com^$important,badfilter", "rules that hold under conditions ($badfilter)"),
    ("||ads*.example.com^", PATTERNS), ("/ads/banner.", PATTERNS),
    ("-ad-", PATTERNS),
    ("|http://example.com/a", PATTERNS), ("|http://example.com/a?b/", PATTERNS),
    ("|http://example.com/*/a|", PATTERNS),
    ("||example.com^path", PATTERNS), ("&ad=", PATTERNS),
])
def test_what_is_passed_over(rule, sort):
    assert read(rule) == [Passed(1, sort)]


@pytest.mark.parametrize(("rule", "why"), [
    ("||exmaple..com^", "'||exmaple..com^' has an empty label"),
    ("||example.com:8080^", "'||example.com:8080^' has a port; a host entry covers every port"),
    ("||=example.com^", "'||=example.com^' has a '=' in front of the name"),
    ("192.0.2.7 example.com", "'192.0.2.7 example.com' has a space inside; is this a hosts file?"),
    ("||^", "'||^' is no rule; hosts are ||name^"),
    ("nonsense", "'nonsense' is no rule; hosts are ||name^"),
    (b"||\xe4.example^", "the line is not UTF-8 (0xe4); save it as UTF-8, or state its encoding in the "
     "settings of this list"),
    ("||a\0.example^", "the line has a control character (0x00)"),
])
def test_a_mistake(rule, why):
    rule = rule if isinstance(rule, bytes) else rule.encode()
    assert read(b"! x\n" + rule + b"\n||fine.example^") == [Problem(2, why), Entry(3, Kind.HOST, b"fine.example")]
