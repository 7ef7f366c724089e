"""The bits of a mask. In: masks, right and wrong. Out: the values, or a line that names the key."""

import pytest

from edgeblock.errors import ConfigError
from edgeblock.netfilter.marks import marks


def test_the_default_mask():
    assert marks(0x30000000) == (0x30000000, 28, 0, 0x10000000, 0x20000000, 0x30000000)


@pytest.mark.parametrize("shift", range(31))
def test_every_pair_of_adjacent_bits(shift):
    bits = marks(3 << shift)
    assert (bits.shift, bits.done, bits.http, bits.blocked) == (shift, 1 << shift, 2 << shift, 3 << shift)


@pytest.mark.parametrize("mask", [0, 1, 5, 7, 0x30000001, 0x180000000, -3, 0x80000000])
def test_anything_else_is_refused_by_name(mask):
    with pytest.raises(ConfigError, match=r"ruleset\.mark_mask: .* not two adjacent bits"):
        marks(mask)
