"""Orders: what becomes of each item, of a file that is none, and that the schema says the same as the reader."""

import io
import json
from importlib.resources import files

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import Asked, Entry, Problem, orders, reader_of
from edgeblock.blocklist.settings import ListSettings

SCHEMA = json.loads((files("edgeblock.blocklist") / "order-1.schema.json").read_text())
VALID = jsonschema.Draft202012Validator(SCHEMA)

SAT, SUN = "sat 14:45-17:30 Europe/London", "sun 00:00-24:00 UTC"


def order(*items, **more):
    return {"version": 1, "order": "No. 12", "items": list(items)} | more


def item(number=1, kind="host", value="a.example", **more):
    return {"id": f"T-{number}", "kind": kind, "value": value} | more


def read(data):
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    return list(reader_of("order", ListSettings())(io.BytesIO(text)))


def entries(data):
    return [(one.kind, one.key) for one in read(data) if isinstance(one, Entry)]


def refused(data):
    """Why each item is refused, "" where it is not."""
    return [one.why for one in read(data) if isinstance(one, Asked) and one.number]


def whole(data):
    *_, last = read(data)
    assert isinstance(last, Problem) and last.whole
    return last.why


@pytest.mark.parametrize(("kind", "value", "found"), [
    ("host", "a.example", [(Kind.HOST, b"a.example")]),
    ("host", " A.Example ", [(Kind.HOST, b"a.example")]),
    ("host", "a.example @ 192.0.2.1", [(Kind.HOST_AT, b"a.example\0\x20\xc0\0\2\1")]),
    ("host-only", "a.example", [(Kind.HOST_ONLY, b"a.example")]),
    ("subdomains", "a.example", [(Kind.SUBDOMAINS, b"a.example")]),
    ("url", "http://a.example/b", [(Kind.URL, b"a.example/b")]),
    ("url", "a.example/b?c=1", [(Kind.URL_WITH_QUERY, b"a.example/b?c=1")]),
    *(("directory", f"http://a.example/b{end}", [(Kind.DIRECTORY, b"a.example/b")]) for end in ("", "/", "/*")),
    ("directory", "http://a.example/", [(Kind.DIRECTORY, b"a.example/")]),
    ("address", "192.0.2.0/24", [(Kind.NETWORK, b"\0\x18\xc0\0\2\0")]),
    ("address", "192.0.2.0-192.0.2.2", [(Kind.NETWORK, b"\0\x1f\xc0\0\2\0"), (Kind.NETWORK, b"\0\x20\xc0\0\2\2")]),
    ("endpoint", "192.0.2.1:443", [(Kind.ENDPOINT, b"\0\x20\xc0\0\2\1\1\xbb")]),
])
def test_what_an_item_becomes(kind, value, found):
    assert entries(order(item(kind=kind, value=value))) == found


@pytest.mark.parametrize(("kind", "value"), [
    ("host", "192.0.2.1"), ("host", "http://a.example/b"), ("host", "*.a.example"), ("host", "=a.example"),
    ("host", "@@a.example"), ("host", "a..example"), ("host", "a\nb.example"), ("host", "a" * 20_000),
    ("host-only", "*.a.example"), ("subdomains", "*.a.example"), ("url", "a.example"), ("url", "a.example/b/*"),
    ("directory", "a.example/b?c"), ("address", "a.example"), ("address", "192.0.2.1:443"),
    ("endpoint", "192.0.2.1"),
])
def test_an_item_that_is_none_of_its_kind_is_refused_alone_and_its_words_stay_out(kind, value):
    _, *items = read(order(item(1, kind, value), item(2)))
    assert [(type(one), getattr(one, "why", "")) for one in items] == [
        (Asked, f"has a value that is none of the kind {kind}; `edgeblock lint` says why"),
        (Problem, items[1].why), (Asked, ""), (Entry, "")]
    assert items[1].why.startswith(f"item 1 (T-1) has a value that is none of the kind {kind}: ")


@pytest.mark.parametrize(("bad", "why"), [
    (5, "is no object in JSON"), ([["x", {}]], "is no object in JSON"), (None, "is no object in JSON"),
    ({}, "has no id, or one that is no text"), ({"id": 7}, "has no id, or one that is no text"),
    ({"id": "x" * 129}, "has an id of more than 128 characters, or with some that cannot be printed"),
    ({"id": "a\u202eb"}, "has an id of more than 128 characters, or with some that cannot be printed"),
    (item(kind="name"), "has no kind that is known, which are host, host-only, subdomains, url, directory, address, "
                        "endpoint"),
    *((item(kind=kind), "has no kind that is known, which are host, host-only, subdomains, url, directory, address, "
                        f"endpoint; did you mean '{near}'?")
      for kind, near in (("hosts", "host"), ("Host", "host"), ("domain", "host"), ("IPv4", "address"))),
    (item(value=""), "has no value, or one that is no text"),
    (item(value={"a": [1]}), "has 'value', which is no text"),
    (item(valeu="x"), "has an unknown key; did you mean 'value'?"),
    (item(secret_name={"a": 1}), "has an unknown key; known are id, kind, value, from, until, weekly, "
                                "reference, ech"),
    (item(until=7), "has 'until', which is no text, or an empty one"),
    (item(reference='a"b'), "has 'reference' with more than 256 characters, a quote, or what cannot be printed"),
    (item(weekly=[]), "has no or more than 16 texts in 'weekly'"),
    (item(weekly=["x"] * 17), "has no or more than 16 texts in 'weekly'"),
    (item(weekly=[SAT, {"y": 1}]), "has 'weekly', which is no text, or an empty one"),
    (item(ech=True), "has 'ech', which can only be \"only\""),
    (item(until="tomorrow"), "has 'until', which cannot be used; `edgeblock lint` says why"),
    (item(weekly="sat 14:45"), "has 'weekly', which cannot be used; `edgeblock lint` says why"),
])
def test_why_an_item_is_refused(bad, why):
    assert refused(order(bad, item(2))) == [why, ""]
    # No schema says what can be printed, or what is a time.
    assert not VALID.is_valid(order(bad)) or why.startswith("has an id of more than 128") or "`edgeblock lint`" in why


@pytest.mark.parametrize(("more", "why"), [
    ({"until": "31.12.2026"}, "has until=31.12.2026, which is no time; write one such as "),
    ({"weekly": "sat"}, "has weekly=sat, which is no weekly window; "),
    ({"from": "x"}, "has from=x, which is no time; "),
    ({"from": "2027-01-01", "until": "2026-01-01"}, "never holds: from is not before until")])
def test_a_window_of_the_order_that_cannot_be_used_refuses_the_whole(more, why):
    for items in ([], [item()], [item(until="2030-01-01", weekly=SAT, **{"from": "2029-01-01"})]):
        assert whole(order(*items, **more)).startswith(f"the file {why}")


@pytest.mark.parametrize(("more", "bad"), [
    ({}, {"from": "2027-01-01", "until": "2027-01-01"}), ({"until": "2026-01-01"}, {"from": "2027-01-01"})])
def test_an_item_that_never_holds_is_refused(more, bad):
    assert refused(order(item(1, **bad), item(2), **more)) == ["never holds: from is not before until", ""]


def test_an_item_none_of_whose_weekly_windows_opens_in_time_is_refused():
    window = {"from": "2026-12-01", "until": "2026-12-05"}       # a Tuesday until a Saturday
    assert refused(order(item(1, weekly=SAT, **window), item(2, weekly="fri 20:00-24:00 UTC", **window))) == [
        "never holds: no weekly window opens from its begin until its end", ""]


@pytest.mark.parametrize(("kind", "value", "found"), [
    ("host", "https://e.example/", "url"), ("host", "192.0.2.1", "address"), ("url", "e.example", "host"),
    ("address", "192.0.2.1:443", "endpoint"), ("url", "e.example/b/*", "directory")])
def test_a_value_of_another_kind_is_called_that(kind, value, found):
    [why] = [one.why for one in read(order(item(1, kind, value))) if isinstance(one, Problem)]
    assert why.endswith(f"none of the kind {kind}: {value!r} is one of the kind {found}")


def test_an_id_stands_once_even_beside_one_that_is_refused():
    assert refused(order(item(), item())) == ["", "has the id of an item before it"]
    assert refused(order(item(value=""), item())) == ["has no value, or one that is no text",
                                                      "has the id of an item before it"]


def test_a_key_stands_once():
    twice = b'{"version": 1, "order": "x", "items": [{"id": "1", "id": "2", "kind": "host", "value": "a.example"}]}'
    assert refused(twice) == ["has the key 'id' twice"]
    assert whole(b'{"version": 1, "version": 1}') == "the file has the key 'version' twice"


@pytest.mark.parametrize(("data", "why"), [
    (b"", "is empty; an order is an object in JSON"), (b"[]", "is no order, which is an object in JSON"),
    (b"{}", 'says no version; this edgeblock reads orders with "version": 1'),
    (order(version=2), 'is an order of another version; this edgeblock reads "version": 1'),
    (order(version=True), 'is an order of another version; this edgeblock reads "version": 1'),
    (order(version="1"), 'has the text "1" as its version; write 1 without quotes'),
    ({"version": 1, "order": "x"}, 'has no "items"; an order that asks for nothing has "items": []'),
    ({"version": 1, "items": []}, 'has no "order", the name of the order, such as "order": "No. 12/2026"'),
    (order(itmes=[]), "has the unknown key 'itmes'; did you mean 'items'?"),
    (order(items={}), "has a key of another type than it is: 'items'"),
    (order(items="x"), "has a key of another type than it is: 'items'"),
    (order(until=["x"]), "has a key of another type than it is: 'until'"),
    (order(authority=""), "has 'authority', which is no text, or an empty one"),
    (order(received="x" * 257), "has 'received' with more than 256 characters, a quote, or what cannot be printed"),
    (json.dumps(order()).encode() * 2, "has something behind the end of its order; drop one order a file"),
    (b'{"items": [' + b"[" * 40, "has more than 16 brackets inside one another"),
    (b'{"items": [{"a": ' + b'{"a": ' * 40, "has more than 16 brackets inside one another"),
])
def test_why_a_file_is_refused(data, why):
    assert whole(data) == f"the file {why}"
    if isinstance(data, dict):
        assert not VALID.is_valid(data)


def test_what_an_order_says_holds_for_items_that_say_nothing_else_wherever_it_stands():
    said = {"items": [item(1), item(2, until="2030-01-01", reference="own", ech="only",
                                    weekly=[SAT, " sun  00:00-24:00 UTC"])],
            "until": "2031-01-01", "reference": "of all", "authority": "Court  of X", "received": "today",
            "approved_by": "me", "order": "No. 12", "from": "2029-01-01", "weekly": SUN, "version": 1}
    every = [dict(one.attributes) for one in read(said) if isinstance(one, Entry)]
    common = {"order": "No. 12", "authority": "Court of X", "received": "today", "approved_by": "me",
              "from": "2029-01-01"}
    assert every == [common | {"until": "2031-01-01", "reference": "of all", "weekly": SUN},
                     common | {"until": "2030-01-01", "reference": "own", "weekly": f"{SAT}; {SUN}",
                               "ech": "only"}]
    assert VALID.is_valid(said)


def test_there_is_an_end_to_items_and_their_bytes(monkeypatch):
    monkeypatch.setattr(orders, "ITEMS_MAX", 3)
    assert whole(order(*map(item, range(4)))) == "the file has more than 3 items; make it several orders"
    monkeypatch.setattr(orders, "HELD_MAX", 100)
    assert whole(order(item(), item(2))) == "the file has more than 100 bytes of items; make it several orders"


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.sampled_from(
    [1, "host", "a.example", "only", "2030-01-01"]), lambda inside: st.lists(inside, max_size=3) | st.dictionaries(
        st.sampled_from([*orders.OF_ONE, *orders.OF_ALL, "x"]), inside, max_size=5), max_leaves=12)


@given(st.dictionaries(st.sampled_from([*orders.OF_ALL, "x"]), VALUES), st.lists(VALUES, max_size=4))
def test_every_item_is_answered_and_what_the_schema_refuses_is_refused(more, items):
    said = order(*items) | {key: value for key, value in more.items() if key not in ("version", "items")}
    found = read(said)
    if found and isinstance(found[-1], Problem) and found[-1].whole:
        return
    asked = [one for one in found if isinstance(one, Asked)]
    assert [one.number for one in asked] == list(range(len(items) + 1))
    if not VALID.is_valid(said):
        assert any(one.why for one in asked)


PLAIN = '{"version": 1, "order": "x", "items": [{"id": "1", "kind": "host", "value": "a.example"}, %s]}'


@pytest.mark.parametrize("half", ["\\ud800", "\\uDBFF", "\\udc00", "\\ud800\\u0041", "\\ud800\\ud800", "\\ud800\\n",
                                  "\\\\\\ud800"])
@pytest.mark.parametrize("said", [
    '{"id": "2", "kind": "url", "value": "a.example/x%sy"}', '{"id": "2%s", "kind": "host", "value": "b.example"}',
    '{"id": "2", "kind": "host", "value": "b.example", "reference": "%s"}', '"%s"', '{"a%s": 1}'])
def test_half_a_character_is_no_other_character(half, said):
    why, other = refused((PLAIN % said.replace("%s", half)).encode())
    assert why == "" and other


@pytest.mark.parametrize("text", ["\\ud83d\\ude00", "\\uD83D\\uDE00", "\\\\ud800", "\\\\\\\\ud800", "\\u0041d800"])
def test_a_whole_character_stays(text):
    said = PLAIN % f'{{"id": "{text}", "kind": "host", "value": "b.example"}}'
    assert [one.id for one in read(said.encode()) if isinstance(one, Asked)][2] == json.loads(f'"{text}"')


@given(st.text("\\ud8Dc0aB\n", max_size=60), st.integers(13, 30))
def test_halves_are_found_wherever_a_piece_of_the_file_ends(text, most):
    data = text.encode()
    whole = orders.Halved(io.BytesIO(data))
    expected = b"".join(iter(lambda: whole.readline(1000), b""))
    parts = orders.Halved(io.BytesIO(data))
    assert b"".join(iter(lambda: parts.readline(most), b"")) == expected
