"""Fingerprints against published vectors, rows against sets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.blocklist.fingerprint import Kind, Rows, fingerprint

KEY = bytes(range(16))


@pytest.mark.parametrize(("size", "expected"), [
    # SipHash-2-4 with 128 bits of output: the vectors of the reference implementation (vectors_sip128).
    (0, "a3817f04ba25a8e66df67214c7550293"),
    (1, "da87c1d86b99af44347659119b22fc45"),
    (2, "8177228da4a45dc7fca38bdef60affe4"),
])
def test_published_vectors(size, expected):
    assert fingerprint(KEY, bytes(range(size))).hex() == expected


def test_the_key_matters():
    assert fingerprint(KEY, b"example.com") != fingerprint(bytes(16), b"example.com")
    for wrong in (b"", b"short", bytes(17)):
        with pytest.raises(ValueError):
            fingerprint(wrong, b"example.com")
        with pytest.raises(ValueError):
            Rows(wrong)


@given(st.lists(st.tuples(st.binary(max_size=3), st.integers(0, 2**32 - 1)), max_size=40))
def test_rows_are_a_sorted_set(pairs):
    rows = Rows(KEY)
    for text, value in pairs:
        rows.add(text, value)
    rows.finish()
    table = bytes(rows)
    expected = sorted({(fingerprint(KEY, text), value) for text, value in pairs})
    assert [table[i:i + 20] for i in range(0, len(table), 20)] == [
        print + value.to_bytes(4, "little") for print, value in expected]
    assert list(rows.prefixes()) == [int.from_bytes(print[:4]) for print, _ in expected]
    assert len(rows) == len(expected)


def test_entries_are_counted_without_marks_and_copies():
    rows = Rows(KEY)
    for value in (Kind.HOST, Kind.HOST, Kind.HOST_ONLY, 1 << 16 | Kind.URL, 1 << 16 | Kind.HOST_OF_URL,
                  0xFFFF << 16 | Kind.URL_MARK):
        rows.add(b"example.com", value)
    rows.finish()
    assert rows.entries(3) == [2, 1, 0]


def test_a_row_is_found_among_others():
    rows = Rows(KEY)
    names = [f"{number}.example".encode() for number in range(100)]
    for number, name in enumerate(names):
        rows.add(name, number << 16 | Kind.HOST)
    rows.finish()
    for number, name in enumerate(names):
        print = fingerprint(KEY, name)
        assert rows.has(print, number << 16 | Kind.HOST)
        assert not rows.has(print, number << 16 | Kind.HOST_ONLY)
        assert not rows.has(print, number + 1 << 16 | Kind.HOST)
    assert not rows.has(bytes(16), Kind.HOST) and not rows.has(b"\xff" * 16, 0xFFFFFFFF)
    with pytest.raises(ValueError, match="16 bytes"):
        rows.has(b"short", 0)
