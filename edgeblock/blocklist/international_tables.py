"""Writes the tables of `international.pyx` as C, when the core is built.

In: UTS 46's mapping as the idna package has it, composition as Python's unicodedata has it. Out: one header. Never
read or run by the daemon: what is on the wire meets compiled tables only.

For each code point 32 bits: the canonical combining class in the highest 8; SECOND where it can be the second half of
a composition or has such a class; what becomes of it (SELF, MAPPED, else refused); how many code points it is mapped
to, and where they stand in POOL, canonically decomposed already, each with its class and SECOND.
"""

import sys
import unicodedata
from collections.abc import Iterator

import idna

SECOND, SELF, MAPPED = 1 << 23, 1 << 21, 2 << 21
LENGTH_SHIFT = 16
BLOCK = 128
# Beyond are private, unassigned and tag characters, none of which a name may have.
ASSIGNED = (*range(0x40000), *range(0xE0000, 0xE1000))
SLOTS = 4096               # four times the number of compositions, so that a search ends after a step or two


def compositions() -> Iterator[tuple[int, int, int]]:
    """(first, second, composed) of every pair that NFC composes, but for Hangul, which is arithmetic."""
    for code in range(0x20000):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and parts[0][0] != "<" and unicodedata.normalize("NFC", chr(code)) == chr(code):
            yield int(parts[0], 16), int(parts[1], 16), code


def slot(first: int, second: int) -> int:
    """Where the search for a pair begins; `international.compose` has the same."""
    return (first * 0x9E3779B1 + second * 0x85EBCA6B & 0xFFFFFFFF) >> 20


def entries(seconds: set[int], pool: list[int]) -> dict[int, int]:
    """The 32 bits of each code point that is not refused; `pool` is filled."""
    made: dict[int, int] = {}
    places: dict[str, int] = {}

    def marked(code: int) -> int:
        value = unicodedata.combining(chr(code)) << 24
        if value or code in seconds or 0x1161 <= code <= 0x1175 or 0x11A8 <= code <= 0x11C2:
            value |= SECOND
        return value

    for code in ASSIGNED:
        char = chr(code)
        try:
            mapped = unicodedata.normalize("NFD", idna.uts46_remap(char, std3_rules=False))
        except UnicodeError:
            continue
        if 0xAC00 <= code <= 0xD7A3:
            mapped = char               # Hangul syllables stay whole
        value = marked(code)
        if mapped == char:
            value |= SELF
        else:
            if mapped not in places:
                places[mapped] = len(pool)
                pool.extend(ord(one) | marked(ord(one)) for one in mapped)
            value |= MAPPED | len(mapped) << LENGTH_SHIFT | places[mapped]
            if len(mapped) > 31 or places[mapped] > 0xFFFF:
                raise ValueError(f"U+{code:04X} does not fit")
        made[code] = value
    return made


def table() -> str:
    """The header's text."""
    pairs = list(compositions())
    pool: list[int] = []
    made = entries({second for _, second, _ in pairs}, pool)
    blocks: dict[tuple[int, ...], int] = {}
    stage1 = []
    for start in range(0, 0x110000, BLOCK):
        block = tuple(made.get(code, 0) for code in range(start, start + BLOCK))
        stage1.append(blocks.setdefault(block, len(blocks)))
    slots = [(0, 0, 0)] * SLOTS
    for first, second, composed in pairs:
        at = slot(first, second)
        while slots[at][2]:
            at = (at + 1) % SLOTS
        slots[at] = (first, second, composed)

    def array(kind: str, name: str, numbers: list[int]) -> str:
        return f"static const {kind} {name}[{len(numbers)}] = {{{','.join(map(str, numbers))}}};\n"

    return ("// Made by international_tables.py.\n#include <stdint.h>\n"
            + array("uint16_t", "WIDE_STAGE1", stage1)
            + array("uint32_t", "WIDE_STAGE2", [value for block in blocks for value in block])
            + array("uint32_t", "WIDE_POOL", pool)
            + array("uint32_t", "WIDE_FIRST", [first for first, _, _ in slots])
            + array("uint32_t", "WIDE_SECOND", [second for _, second, _ in slots])
            + array("uint32_t", "WIDE_COMPOSED", [composed for _, _, composed in slots])
            # For Punycode (RFC 3492): 2**40 / n, rounded up, and the last step of the bias.
            + array("uint64_t", "INVERSES", [0, *((1 << 40) // n + 1 for n in range(1, 65))])
            + array("uint8_t", "BIASES", [36 * delta // (delta + 38) for delta in range(456)]))


if __name__ == "__main__":
    with open(sys.argv[1], "w", encoding="ascii") as file:
        file.write(table())
