"""Address ranges with a word about each, to find one that a range has an address in common with.

In: prefixes as bytes and a length. Out: the first that is met. Never here: what the word means, or a file. A look
costs a bisection, whatever the number of ranges: it is taken for every address of every list.
"""

import ipaddress
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import chain
from operator import itemgetter
from typing import Generic, NamedTuple, TypeVar

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Word = TypeVar("Word")


class Range(NamedTuple, Generic[Word]):
    """A prefix: its first address, how many bits of that count, and the word."""

    first: bytes
    length: int
    word: Word

    @property
    def network(self) -> Network:
        return ipaddress.ip_network((self.first, self.length))


def range_of(network: Network, word: Word) -> Range[Word]:
    return Range(network.network_address.packed, network.prefixlen, word)


def last_of(first: bytes, length: int) -> bytes:
    """The last address of a prefix."""
    bits = 8 * len(first)
    return first if length == bits else (int.from_bytes(first) | (1 << (bits - length)) - 1).to_bytes(len(first))


class Ranges(Generic[Word]):
    """Ranges that were given in any order. Of two that nest, the wider one counts."""

    def __init__(self, ranges: Iterable[Range[Word]]) -> None:
        self._starts: dict[int, list[bytes]] = {4: [], 16: []}          # by the size of an address
        self._lasts: dict[int, list[bytes]] = {4: [], 16: []}
        self._rows: dict[int, list[Range[Word]]] = {4: [], 16: []}
        for row in sorted(ranges, key=itemgetter(0, 1)):
            lasts = self._lasts[len(row.first)]
            if lasts and row.first <= lasts[-1]:
                continue                # inside the one before: prefixes nest or are apart
            lasts.append(last_of(row.first, row.length))
            self._starts[len(row.first)].append(row.first)
            self._rows[len(row.first)].append(row)

    def rows(self) -> Iterator[Range[Word]]:
        return chain.from_iterable(self._rows.values())

    def edges(self) -> tuple[dict[int, bytes], dict[int, bytes]]:
        """First and last addresses, by the size of an address, one after the other."""
        return ({size: b"".join(some) for size, some in self._starts.items()},
                {size: b"".join(some) for size, some in self._lasts.items()})

    def touched(self, first: bytes, last: bytes) -> Range[Word] | None:
        size = len(first)
        place = bisect_right(self._starts[size], last) - 1
        if place >= 0 and self._lasts[size][place] >= first:
            return self._rows[size][place]
        return None
