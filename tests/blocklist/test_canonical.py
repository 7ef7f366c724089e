"""The canonical form against its table, against itself, and against slow second opinions."""

import re
import time

import idna
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeblock.blocklist.canonical import (
    canonical_host,
    canonical_target,
    canonical_url,
    host_address,
    way_forms,
    why_not_host,
    why_not_url,
    wire_hosts,
)
from tests.reference.targets import target_forms

from .canonical_cases import HOSTS, READINGS, URLS

# Text that reaches the corners: escapes, dots, slashes, digits, wide and hostile characters.
TRICKY = st.text(st.sampled_from(
    "aAzZ019%25eEfF.。．-_xX:/\\?#@[];=&+ \t\r\n\0üßς❤٠१ﬁ℀\u00ad\u200d\ud800"), max_size=60)
ANY = st.one_of(TRICKY, st.text(max_size=60), st.binary(max_size=80))


def test_the_table_is_whole():
    assert len(HOSTS) + len(URLS) >= 200
    assert len({repr(case[0]) for case in HOSTS}) == len(HOSTS)
    assert len({repr(case[0]) for case in URLS}) == len(URLS)
    assert all(source for _, _, source in HOSTS + URLS)


@pytest.mark.parametrize(("text", "answer", "source"), HOSTS)
def test_hosts(text, answer, source):
    assert canonical_host(text) == answer, source
    assert bool(why_not_host(text)) == (answer is None)


@pytest.mark.parametrize(("text", "answer", "source"), URLS)
def test_urls(text, answer, source):
    assert canonical_url(text) == answer, source
    assert bool(why_not_url(text)) == (answer is None)


@pytest.mark.parametrize(("text", "answer", "source"), [case for case in HOSTS if case[1] is not None])
def test_a_canonical_host_is_what_the_engine_compares(text, answer, source):
    assert answer in wire_hosts(text), source


@pytest.mark.parametrize(("wire", "hosts", "servers"), READINGS)
def test_each_way_that_a_server_reads_a_name(wire, hosts, servers):
    assert set(hosts) <= set(wire_hosts(wire)), servers


@pytest.mark.parametrize(("wire", "compared"), [
    ("a" * 70 + ".listed.com", b"a" * 70 + b".listed.com"),             # a label no resolver has; a server may
    (b"\xff\xc0\x80.listed.com", b"\xff\xc0\x80.listed.com"),            # neither UTF-8 nor a label in Latin-1
    ("\ufffd.bücher.de", "\ufffd.".encode() + b"xn--bcher-kva.de"),
    ("a b.listed.com", b"a b.listed.com"),
    ("listed.com:http", b"listed.com"),                                 # nginx ends the name at the colon
    ("x" * 3000 + ".listed.com", b"listed.com"),
    ("ü." * 3000 + "listed.com", None),
    ("x" * 3000, b""),
])
def test_a_host_that_no_list_can_name_still_shows_its_parents(wire, compared):
    assert canonical_host(wire) is None
    if compared is None:
        assert wire_hosts(wire)[0].endswith(b".xn--tda.listed.com")
    else:
        assert compared in wire_hosts(wire) or compared == b"" == b"".join(wire_hosts(wire))


@given(ANY)
@example("%25%37%33")
@example("a/%253f?%2523")
def test_the_canonical_form_of_a_canonical_form_is_itself(text):
    host = canonical_host(text)
    if host is not None:
        assert canonical_host(host) == host
        assert host in wire_hosts(host)
        assert host.isascii()
    url = canonical_url(text)
    if url is not None:
        assert canonical_url(url) == url
        assert url.isascii()
    target = canonical_target(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    assert canonical_target(target) == target
    assert target[:1] == b"/"


@given(ANY)
def test_nothing_raises(text):
    for door in (canonical_host, canonical_url, wire_hosts, why_not_host, why_not_url, host_address):
        door(text)
    canonical_target(text, bare=True)


@given(st.text(max_size=30))
def test_international_labels_against_the_library(text):
    """Whatever the strict library encodes, we encode the same."""
    try:
        expected = idna.encode(text, uts46=True).rstrip(b".")
    except UnicodeError:
        return
    if not text.isascii() and not set(text) & set("%@:[/\\?#") and not expected.rpartition(b".")[2].isdigit():
        assert canonical_host(text) == expected


@given(st.lists(st.text(st.sampled_from("üßя中文a❤-\U00020000"), min_size=1, max_size=20), min_size=1, max_size=3))
def test_punycode_against_the_codec_of_python(labels):
    expected = [idna.uts46_remap(label, std3_rules=False) for label in labels]
    coded = [label.encode() if label.isascii() else b"xn--" + label.encode("punycode") for label in expected]
    host = canonical_host(".".join(labels))
    if all(len(label) <= 63 for label in coded):
        assert host == b".".join(coded)
    else:
        assert host is None


def slow_stable(text: bytes) -> bytes:
    """Percent-decode in passes until a pass changes nothing: the definition, not the algorithm."""
    while True:
        out, i = bytearray(), 0
        while i < len(text):
            digits = text[i + 1:i + 3]
            if text[i:i + 1] == b"%" and len(digits) == 2 and all(c in b"0123456789abcdefABCDEF" for c in digits):
                out.append(int(digits, 16))
                i += 3
            elif (wide := re.match(rb"%[uU]([0-9a-fA-F]{4})", text[i:])):
                out += chr(int(wide[1], 16)).encode(errors="surrogatepass")
                i += 6
            else:
                out.append(text[i])
                i += 1
        if bytes(out) == text:
            return text
        text = bytes(out)


def slow_target(text: bytes, bare: bool) -> bytes:
    """The rules of docs/lists.md for a request target, one after the other."""

    def escaped(part: bytes, more: bytes) -> bytes:
        return b"".join(b"%%%02X" % c if c <= 0x20 or c >= 0x7F or c in b"#%" + more else bytes([c]) for c in part)

    text = text.translate(None, b"\t\r\n").split(b"#")[0]
    path, _, query = text.partition(b"?")
    segments: list[bytes] = []
    path = re.sub(rb"[\xc0\xc1][\x80-\xbf]", lambda two: bytes([(two[0][0] & 1) << 6 | two[0][1] & 0x3F]),
                  slow_stable(path))
    for segment in path.replace(b"\\", b"/").split(b"/"):
        segment = segment.split(b";")[0] if bare else segment
        if segment == b"..":
            segments = segments[:-1]
        elif segment not in (b"", b"."):
            segments.append(segment)
    query = escaped(slow_stable(query), b"")
    return escaped(b"/" + b"/".join(segments), b"?") + (b"?" + query if query else b"")


@given(st.binary(max_size=60) | st.text(st.sampled_from("%%%25634eEfF./\\?#;a\t"), max_size=60).map(str.encode),
       st.booleans())
@example(b"%%%33%34%31", False)
@example(b"/x/..;/bad/page.html;v=1?q", True)
def test_targets_against_the_slow_rules(text, bare):
    assert canonical_target(text, bare) == slow_target(text, bare)


@pytest.mark.parametrize("text", [
    b"%25" * 21_000, b"%" * 40_000 + b"34" * 12_000, b"/a/../" * 10_000, b"/" * 65_000, b"/a;" * 20_000,
    b"/x?" + b"%2525" * 13_000,
])
def test_a_hostile_target_costs_no_more_than_its_length(text):
    """64 kB take a quarter of a millisecond; with a pass for each level of escaping they would take seconds."""
    start = time.thread_time()
    for _ in range(10):
        canonical_target(text)
    assert (time.thread_time() - start) / 10 < 0.01


@pytest.mark.parametrize("text", [
    "".join(chr(0x4E00 + i * 7919 % 20_000) for i in range(340)), "ü." * 340, "\u00ad" * 500,
    "ﷺ" * 300, "\ud800." * 300,
])
def test_a_hostile_international_name_stays_cheap(text):
    start = time.thread_time()
    for _ in range(20):
        wire_hosts(text)
    assert (time.thread_time() - start) / 20 < 0.005


def test_addresses_are_told_from_names():
    assert host_address("0x7f.1") == bytes([127, 0, 0, 1])
    assert host_address("[2001:db8::1]:443") == bytes.fromhex("20010db8000000000000000000000001")
    assert host_address("example.com") is None
    assert host_address("1.2.3.4.5") is None


# What servers take for a slash, a dot or an end, in all the ways to write it; and what looks like it.
PARTS = [b"/", b"\\", b"//", b"%2f", b"%2F", b"%5c", b"%5C", b".", b"..", b"/../", b"%2e", b"%252e", b"%u002e",
         b"%u002f", b"%c0%af", b"\xc0\xae", b"\xc1", b"%a5", b"a", b"long" * 9, b"b;x", b"..;", b";", b"%", b"2",
         b"f", b"u", b"0061", b"%25", b"%3f", b"?", b"#", b"\t", b"\xe9", b" "]


@settings(max_examples=2000, deadline=None)
@example([b"/a%2f../b\\..//..;", b"a/" * 4000])
@example([b"/x%2f", b"..", b"\\"])
@given(st.lists(st.sampled_from(PARTS), max_size=30))
def test_all_readings_of_a_target_are_found_at_once(parts):
    # Each server's reading one by one is the slow way, with passes of its own.
    target = b"/" + b"".join(parts)
    assert way_forms(target) == target_forms(target)
