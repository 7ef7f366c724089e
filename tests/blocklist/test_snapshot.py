"""One bytes object: everything in it comes back, nothing plain is in it, and nothing altered is taken."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.blocklist.compiler import Compiler, merge
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import Entry
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.snapshot import (
    CHUNK,
    DIGEST_SIZE,
    HEAD,
    HEADER,
    VERSION,
    key_id,
    open_snapshot,
    pack,
    sum_of,
)
from edgeblock.errors import ListError

from .making import KEY, compiled, snapshot_of

LISTS = [
    ("court", ListSettings(mandatory=True, action="drop", category="orders"), ["listed.example.com", "*.wild.test"]),
    ("pages", ListSettings(action="page", https="host"), [
        "http://pages.example.net/secret/page.html", "pages.example.net/find?q=secret", "pages.example.net/dir/*",
        "@@pages.example.net/dir/ok"]),
    ("addresses", None, ["198.51.100.0/24", "203.0.113.9:8443", "2001:db8::/32"]),
]
WHOLE = snapshot_of(*LISTS)
ASKED = [("tls", b"www.listed.example.com", None), ("tls", b"a.wild.test", None), ("tls", b"pages.example.net", None),
         ("http", b"pages.example.net", b"/secret/page.html"), ("http", b"pages.example.net", b"/find?q=secret"),
         ("http", b"pages.example.net", b"/dir/a/b"), ("http", b"pages.example.net", b"/dir/ok"),
         ("tls", b"other.example", None)]


def test_what_goes_in_comes_out():
    parts = compiled(*LISTS)
    snapshot = open_snapshot(pack(parts, KEY, 1_700_000_000), KEY)
    assert snapshot.built == 1_700_000_000 and len(snapshot.digest) == 64
    for one in (snapshot.parts, parts):
        for name in ("bitmap", "rows", "ipv4"):
            setattr(one, name, bytes(getattr(one, name)))
    assert snapshot.parts == parts
    assert [(record.name, record.action, record.mandatory, record.category) for record in snapshot.parts.lists] == [
        ("court", "drop", True, "orders"), ("pages", "page", False, ""), ("addresses", "reset", False, "")]


def test_no_plain_text_of_anything_listed():
    for word in (b"listed", b"example", b"wild", b"secret", b"page.html", b"find", b"dir"):
        assert word not in WHOLE.replace(b'"pages"', b"").replace(b'"page"', b"")
    assert b"court" in WHOLE and b"pages" in WHOLE
    assert KEY not in WHOLE


def test_at_most_24_bytes_an_entry():
    count = 400_000
    compiler = Compiler(KEY)
    compiler.add_list("hosts", ListSettings())
    for number in range(count):
        compiler.add(0, Entry(number, Kind.HOST, b"h%d.example" % number))
    assert len(pack(compiler.finish(), KEY, 0)) / count < 24      # 23.3 here, 22.1 at ten million


def cut(size):
    return WHOLE[:size]


def test_every_cut_is_refused():
    for size in range(0, len(WHOLE), 7):
        with pytest.raises(ListError, match=r"^snapshot: [^\n]+$"):
            open_snapshot(cut(size), KEY)


def test_reasons():
    def refused(data, key=KEY):
        with pytest.raises(ListError) as error:
            open_snapshot(data, key, "rules.snap")
        return str(error.value)

    assert refused(b"") == refused(b"x" * 1000) == (
        "rules.snap: is no edgeblock snapshot; build it with `edgeblock compile`")
    assert refused(WHOLE, bytes(16)) == "rules.snap: was built under another key; build it with the key of this box"
    assert refused(WHOLE[:-1]) == f"rules.snap: has {len(WHOLE) - 1} of {len(WHOLE)} bytes; build or copy it again"
    newer = bytearray(WHOLE)
    newer[8] = VERSION + 1
    assert refused(newer) == (
        f"rules.snap: is of version {VERSION + 1}, this edgeblock reads {VERSION}; build it again")
    altered = bytearray(WHOLE)
    altered[-1] ^= 1
    assert refused(altered) == (
        "rules.snap: was altered (its digest does not match); build or copy it again")


def test_every_altered_byte_is_refused():
    for at in range(len(WHOLE)):
        data = bytearray(WHOLE)
        data[at] ^= 1 << random.Random(at).randrange(8)
        with pytest.raises(ListError):
            open_snapshot(data, KEY)


def signed(data: bytearray) -> bytes:
    """`data` with digests that match, as only somebody with the key could make them."""
    body = data[HEADER.size:-DIGEST_SIZE]
    assert len(body) <= CHUNK
    data[-DIGEST_SIZE:] = sum_of(body, KEY)
    data[HEADER.size - DIGEST_SIZE:HEADER.size] = sum_of(data[:HEADER.size - DIGEST_SIZE] + data[-DIGEST_SIZE:], KEY)
    return bytes(data)


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_even_signed_nonsense_is_refused_or_answers(changes):
    """The digest is not what keeps look-ups inside the bytes."""
    data = bytearray(WHOLE)
    for at, value in changes:
        data[at] = value
    try:
        matcher = ListMatcher(open_snapshot(signed(data), KEY))
    except ListError:
        return
    for proto, host, target in ASKED:
        found = matcher.look_up(proto, host, target)
        assert found is None or found.list in matcher.list_names
        matcher.trace_name(proto, host, target)
    for address in (bytes([198, 51, 100, 7]), bytes([203, 0, 113, 9]), bytes.fromhex("20010db8") + bytes(12)):
        matcher.look_up_address(address, 8443)


@given(st.integers(16, HEADER.size - DIGEST_SIZE - 8), st.integers(0, 2**64 - 1))
def test_a_header_of_wild_numbers_is_refused_or_answers(at, value):
    data = bytearray(WHOLE)
    data[at:at + 8] = value.to_bytes(8, "little")
    try:
        matcher = ListMatcher(open_snapshot(signed(data), KEY))
    except ListError:
        return
    for proto, host, target in ASKED:
        matcher.look_up(proto, host, target)
    matcher.look_up_address(bytes([198, 51, 100, 7]), 80)


@pytest.mark.parametrize("lists", [b"", b"[]", b"{", b"[1]", b'[{"name":"x"}]', b"[" * 100_000, b'"\xff"',
                                   b'[{"name":"a","action":"explode"}]', b'[{"name":7,"action":"drop"}]'])
def test_a_list_table_that_cannot_be_read(lists, monkeypatch):
    parts = compiled(("a", None, ["example.com"]))
    monkeypatch.setattr("edgeblock.blocklist.snapshot.json.dumps",
                        lambda *args, **kwargs: lists.decode("latin-1"))
    data = pack(parts, KEY, 0)
    monkeypatch.undo()
    with pytest.raises(ListError, match="has a list table that cannot be read"):
        open_snapshot(data, KEY)


def test_the_key_id_tells_keys_apart():
    assert len({key_id(bytes([number]) * 16) for number in range(100)}) == 100
    assert key_id(KEY) in WHOLE and len(key_id(KEY)) == 8


def test_it_opens_from_any_buffer_without_copying():
    snapshot = open_snapshot(memoryview(bytearray(WHOLE)), KEY)
    assert snapshot.data.readonly and snapshot.parts.rows.obj is snapshot.data.obj


def test_what_was_verified_before_is_judged_by_its_header_alone():
    """The header still says what was cut, or is of another version or key; the sections are taken on trust."""
    altered = bytearray(WHOLE)
    altered[-DIGEST_SIZE - 30] ^= 1         # in the rows
    with pytest.raises(ListError, match="was altered"):
        open_snapshot(altered, KEY)
    assert open_snapshot(altered, KEY, verify=HEAD).digest == open_snapshot(WHOLE, KEY).digest
    for at in (*range(HEADER.size), *range(len(WHOLE) - DIGEST_SIZE, len(WHOLE))):
        data = bytearray(WHOLE)
        data[at] ^= 4
        with pytest.raises(ListError):
            open_snapshot(data, KEY, verify=HEAD)


def test_sums_of_many_chunks():
    count = 120_000
    compiler = Compiler(KEY)
    compiler.add_list("hosts", ListSettings())
    for number in range(count):
        compiler.add(0, Entry(number, Kind.HOST, b"h%d.example" % number))
    whole = bytearray(pack(compiler.finish(), KEY, 0))
    assert len(whole) > 2 * CHUNK
    assert open_snapshot(whole, KEY).parts.lists[0].entries == count
    for at in (HEADER.size, HEADER.size + CHUNK, len(whole) - DIGEST_SIZE * 3 - 1):
        whole[at] ^= 1
        with pytest.raises(ListError, match="was altered"):
            open_snapshot(whole, KEY)
        whole[at] ^= 1
    swapped = bytes(whole[:HEADER.size]) + bytes(whole[HEADER.size + CHUNK:HEADER.size + 2 * CHUNK]) + bytes(
        whole[HEADER.size:HEADER.size + CHUNK]) + bytes(whole[HEADER.size + 2 * CHUNK:])
    with pytest.raises(ListError, match="was altered"):
        open_snapshot(swapped, KEY)


LINES = st.lists(st.sampled_from(["a.example", "=a.example", "*.b.example", "@@b.example", "c.example/x",
                                  "c.example/y/*", "192.0.2.0/28", "192.0.2.1:80", "2001:db8::/48", "d.example/q?r"]),
                 max_size=8)


@given(st.lists(LINES, max_size=5), st.sets(st.integers(0, 4)))
def test_parts_make_the_same_snapshot_as_all_lists_at_once(lists, expired):
    """Merged parts of one list each and one compilation of all lists are the same bytes."""
    named = [(f"l{number}", ListSettings(https="host" if number % 2 else "ignore"),
              [] if number in expired else lines) for number, lines in enumerate(lists)]
    parts = []
    for number, one in enumerate(named):
        made = open_snapshot(snapshot_of((*one[:2], lists[number])), KEY).parts
        made.lists[0].expired = number in expired
        parts.append(made)
    merged = merge(parts)
    for record in merged.lists:
        record.expired = False
    assert pack(merged, KEY, 5) == pack(compiled(*named), KEY, 5)
