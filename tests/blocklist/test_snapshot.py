"""One bytes object: everything in it comes back, nothing plain is in it, and nothing altered is taken."""

import random
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.blocklist.compiler import Compiler
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import Entry
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.snapshot import DIGEST_SIZE, HEADER, VERSION, key_id, open_snapshot, pack
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
    for name in ("bitmap", "rows", "ipv4"):
        setattr(snapshot.parts, name, bytes(getattr(snapshot.parts, name)))
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
    """`data` with a digest that matches, as only somebody with the key could make it."""
    digest = blake2b(data[:HEADER.size - DIGEST_SIZE], key=KEY, digest_size=DIGEST_SIZE)
    digest.update(data[HEADER.size:])
    data[HEADER.size - DIGEST_SIZE:HEADER.size] = digest.digest()
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
