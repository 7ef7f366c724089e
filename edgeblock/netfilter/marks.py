"""The two bits that a flow carries in its conntrack mark. In: the mask of the settings. Out: the values of the bits.

Who sets them: source/nfqueue.pyx (the engine's word), the rules (MARK_... in policy.py). Nothing here touches bits
outside the mask: they belong to the operator. Where conntrack is not to keep the marks, the programs of PROGRAMS do,
in a map of their own, and source/marking.pyx writes the engine's word there.
"""

from typing import NamedTuple

from edgeblock.errors import ConfigError

# netfilter/stage1/marks.h, by section: two that ask for a mark, two that set one where that is due, and one that
# asks for a proof of address.
PROGRAMS = ("done", "blocked", "answered", "reopened", "proven")

# The same, by section: what carries packets past the kernel rules (carry.h).
SHORTCUT = "shortcut"


class Marks(NamedTuple):
    """Values of the masked part of a conntrack mark; `value << shift` is how a mark of 0..3 is stored."""

    mask: int
    shift: int
    undecided: int   # 00: client packets with payload are queued
    done: int        # 01: never queued again
    http: int        # 10: requests may follow; the client side stays queued whatever the server answers
    blocked: int     # 11: dropped in the kernel, both directions


def marks(mask: int) -> Marks:
    """The values for `mask`, which must be two adjacent bits of 32; ConfigError says so otherwise."""
    shift = (mask & -mask).bit_length() - 1
    if not 0 < mask <= 0xFFFFFFFF or mask >> shift != 0b11:
        raise ConfigError(f"ruleset.mark_mask: {mask:#x} is not two adjacent bits of 32, such as 0x30000000")
    return Marks(mask, shift, 0, 0b01 << shift, 0b10 << shift, 0b11 << shift)
