"""The search in place against pyroaring itself, and hostile bytes against the bounds check."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from edgeblock.blocklist.bitmap import BitmapView

U32 = st.integers(0, 2**32 - 1)


def view(bitmap: BitMap) -> BitmapView:
    return BitmapView(bitmap.serialize())


def probes(values):
    return {max(0, min(2**32 - 1, value + step)) for value in values for step in (-65536, -1, 0, 1, 65536)}


@given(st.sets(U32, max_size=50), st.lists(st.tuples(U32, st.integers(1, 200_000)), max_size=6), st.booleans())
def test_it_agrees_with_pyroaring(values, ranges, optimize):
    bitmap = BitMap(values)
    for start, size in ranges:
        bitmap.add_range(start, min(2**32, start + size))
    if optimize:
        bitmap.run_optimize()
    here = view(bitmap)
    edges = probes(values) | probes({end for start, size in ranges for end in (start, min(2**32 - 1, start + size))})
    for value in edges:
        assert (value in here) == (value in bitmap)


@pytest.mark.parametrize("make", [
    lambda pick: BitMap(pick.sample(range(2**32), 20_000)),                                  # small arrays
    lambda pick: BitMap(pick.sample(range(2**20), 200_000)),                                 # bitsets
    lambda pick: BitMap(range(0, 2**18, 3)),                                                 # bitsets, regular
    lambda pick: BitMap([value for start in pick.sample(range(2**32 - 400), 3000)
                         for value in range(start, start + 300)]),                           # runs
    lambda pick: BitMap(range(2**16)) | BitMap([2**32 - 1]) | BitMap(range(5 * 2**16, 5 * 2**16 + 5000, 2)),
], ids=["arrays", "bitsets", "regular", "runs", "mixed"])
@pytest.mark.parametrize("optimize", [False, True])
def test_every_kind_of_container(make, optimize):
    pick = random.Random(7)
    bitmap = make(pick)
    if optimize:
        bitmap.run_optimize()
    here = view(bitmap)
    inside = pick.sample(list(bitmap), 2000)
    for value in {*probes(inside), *(pick.randrange(2**32) for _ in range(2000))}:
        assert (value in here) == (value in bitmap)


def test_empty():
    assert 0 not in view(BitMap())


def test_cut_anywhere_is_refused():
    bitmap = BitMap([1, 2, 70_000, 2**31])
    bitmap.add_range(200_000, 400_000)
    bitmap.add(10**9)
    for optimize in (False, True):
        if optimize:
            bitmap.run_optimize()
        whole = bitmap.serialize()
        BitmapView(whole)
        for size in range(len(whole)):
            with pytest.raises(ValueError):
                BitmapView(whole[:size])


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8), st.booleans(),
       st.lists(U32, max_size=30))
def test_altered_bytes_are_refused_or_answer(changes, optimize, asked):
    bitmap = BitMap([*range(0, 9000, 2), 70_000, 2**31, 2**32 - 1])
    bitmap.add_range(200_000, 200_900)
    if optimize:
        bitmap.run_optimize()
    data = bytearray(bitmap.serialize())
    for at, value in changes:
        data[at % len(data) if at > 60 else at] = value
    try:
        here = BitmapView(data)
    except ValueError:
        return
    for value in {*asked, 0, 1, 70_000, 200_500, 2**31, 2**32 - 1}:
        assert (value in here) in (True, False)


@given(st.binary(max_size=64))
def test_any_bytes_are_refused_or_answer(data):
    try:
        here = BitmapView(data)
    except ValueError:
        return
    assert (5 in here) in (True, False)
