"""Feeds in JSON beyond the table in docs/formats.md: their odd forms, their bounds."""

import io
import json

import pytest

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import Entry, Passed, Problem, Remark, feeds, reader_of
from edgeblock.blocklist.settings import ListSettings


def read(data, **settings):
    text = data if isinstance(data, bytes) else json.dumps(data, indent=1).encode()
    return list(reader_of("json", ListSettings(**settings))(io.BytesIO(text)))


def entries(items):
    return [item[1:3] for item in items if isinstance(item, Entry)]


def bundle(pattern, **more):
    return {"type": "bundle", "objects": [{"type": "indicator", "pattern": pattern, **more}]}


@pytest.mark.parametrize(("pattern", "found"), [
    ("[domain-name:value='a.example']", [(Kind.HOST_ONLY, b"a.example")]),
    ("[domain-name:value LIKE '%.a.example']", [(Kind.SUBDOMAINS, b"a.example")]),
    ("[domain-name:value IN ('a.example', 'b.example')]", [(Kind.HOST_ONLY, b"a.example"),
                                                            (Kind.HOST_ONLY, b"b.example")]),
    ("[url:value = 'http://a.example/it\\'s']", [(Kind.URL, b"a.example/it's")]),
    ("[(url:value = 'http://a.example/x' OR file:name = 'x')]", [(Kind.URL, b"a.example/x")]),
    ("[file:hashes.'SHA-256' = '00' OR file:hashes.MD5 = '00' OR url:value = 'http://a.example/x']",
     [(Kind.URL, b"a.example/x")]),
    ("[ipv4-addr:value ISSUBSET '192.0.2.0/24'] OR [ipv6-addr:value = '2001:db8::1']",
     [(Kind.NETWORK, b"\0\x18\xc0\0\2\0"), (Kind.NETWORK, b"\0\x80\x20\1\x0d\xb8" + bytes(11) + b"\1")]),
    ("[url:value = 'http://a.example/ AND b']", [(Kind.URL, b"a.example/%20AND%20b")]),
])
def test_what_a_pattern_names(pattern, found):
    assert entries(read(bundle(pattern))) == found


@pytest.mark.parametrize("pattern", [
    "[domain-name:value = 'a.example' AND url:value = 'http://b.example/']",
    "[domain-name:value = 'a.example'] FOLLOWEDBY [url:value = 'http://b.example/']",
    "[domain-name:value = 'a.example'] WITHIN 5 SECONDS", "[NOT domain-name:value = 'a.example']",
    "[domain-name:value != 'a.example']", "[domain-name:value MATCHES '.*']", "[domain-name:value LIKE '%a.example']",
])
def test_what_is_narrower_or_vague_is_passed_over(pattern):
    assert [type(item) for item in read(bundle(pattern))] == [Passed]


@pytest.mark.parametrize("pattern", ["", "[", "[domain-name:value]", "[domain-name:value = 'a..b']", "['a' = 'b']",
                                     "[file:hashes.'a]", "[domain-name:value = 'a.example",
                                     "[ipv4-addr:value = 'a.example']"])
def test_what_is_no_pattern_is_a_problem(pattern):
    items = read(bundle(pattern))
    assert not entries(items) and [type(item) for item in items] == [Problem]


def test_an_indicator_with_an_end_is_remarked_on():
    items = read(bundle("[domain-name:value = 'a.example']", valid_until="2020-01-01T00:00:00Z"))
    assert entries(items) and isinstance(items[-1], Remark) and "valid_until" in items[-1].why


def test_names_below_where_the_settings_say_so():
    assert entries(read(bundle("[domain-name:value = 'a.example']"), subdomains=True)) == [(Kind.HOST, b"a.example")]


def test_an_event_in_any_wrapping():
    event = {"Event": {"info": "x", "Attribute": [{"type": "domain", "value": "a.example", "Tag": [{"name": "x"}]}],
                       "Object": [{"name": "o", "Attribute": [{"type": "url", "value": "http://b.example/x"}]}]}}
    wanted = [(Kind.HOST, b"a.example"), (Kind.URL, b"b.example/x")]
    assert entries(read(event)) == entries(read({"response": [event]})) == entries(read([event])) == wanted


def test_a_deleted_attribute_is_passed_over():
    assert not entries(read({"Event": {"Attribute": [{"type": "domain", "value": "a.example", "deleted": True}]}}))


def test_a_warning_list_is_remarked_on_and_may_say_what_it_is_first_or_last():
    ahead, behind = ({"type": "hostname", "list": ["a.example"]}, {"list": ["a.example"], "type": "hostname"})
    for one in (ahead, behind):
        items = read(one)
        assert entries(items) == [(Kind.HOST, b"a.example")] and "harmless" in items[0].why
    assert not entries(read({"type": "string", "list": ["00aa"], "matching_attributes": ["md5"]}))


def test_places_are_those_of_the_file():
    items = read(b'[\n"a.example",\n\n"a..b",\n"c.example"]\n')
    assert [(item.line, type(item)) for item in items] == [(2, Entry), (4, Problem), (5, Entry)]


def test_json_lines():
    items = read(b'{"url": "http://a.example/x"}\n{"url": "http://b.example/y"}\n')
    assert entries(items) == [(Kind.URL, b"a.example/x"), (Kind.URL, b"b.example/y")]


@pytest.mark.parametrize("data", [b"{", b"[1,", b'["a.example", ', b"[" * 1000, b'{"a":' * 100 + b"1" + b"}" * 100,
                                  b"[" + b"9" * 10_000 + b"]", b'["' + b"a" * 3_000_000 + b'"]', b'{"a": 1}', b"nul"])
def test_what_is_no_feed_is_said_once(data):
    items = read(data)
    assert isinstance(items[-1], Problem) and items[-1].whole and len(items) < 3


def test_a_warning_list_is_held_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(feeds, "HELD_MAX", 1000)
    last = read({"list": [f"n{number}.example" for number in range(100)], "type": "hostname"})[-1]
    assert last.whole and "1000 bytes" in last.why
