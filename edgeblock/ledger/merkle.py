"""Merkle trees as RFC 6962 (2.1) and RFC 9162 (2.1) have them: root, inclusion path, and what a path proves.

In: leaves as bytes. Out: hashes of 32 bytes, SHA-256; a leaf is hashed behind a zero byte, a node behind a one, so
that neither passes for the other. Never here: what a leaf means.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256

EMPTY = sha256(b"").digest()        # the root of no leaves


def leaf_hash(leaf: bytes | memoryview) -> bytes:
    return sha256(b"\0" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


class Tree:
    """A tree that grows: as many hashes are kept as its size has bits."""

    def __init__(self, leaves: Iterable[bytes | memoryview] = ()) -> None:
        self.size = 0
        self._peaks: list[tuple[int, bytes]] = []       # whole trees, the largest first: leaves, root
        for leaf in leaves:
            self.add(leaf)

    def add(self, leaf: bytes | memoryview) -> None:
        self.size += 1
        many, root = 1, leaf_hash(leaf)
        while self._peaks and self._peaks[-1][0] == many:
            _, left = self._peaks.pop()
            many, root = 2 * many, node_hash(left, root)
        self._peaks.append((many, root))

    def root(self) -> bytes:
        made = b""
        for _, peak in reversed(self._peaks):
            made = node_hash(peak, made) if made else peak
        return made or EMPTY


class Paths:
    """All paths of one tree."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.size = len(leaves)
        self._levels = [[leaf_hash(leaf) for leaf in leaves]]
        while len(self._levels[-1]) > 1:
            level = self._levels[-1]
            self._levels.append([node_hash(*level[at:at + 2]) if at + 1 < len(level) else level[at]
                                 for at in range(0, len(level), 2)])

    def of(self, index: int) -> list[bytes]:
        """What proves that the leaf with that index is one of them, from the leaf upwards."""
        if not 0 <= index < self.size:
            raise IndexError(index)
        made = []
        for level in self._levels[:-1]:
            if index ^ 1 < len(level):
                made.append(level[index ^ 1])
            index >>= 1
        return made


def climb(leaf: bytes, index: int, size: int, steps: Sequence[bytes]) -> bytes | None:
    """The root that a path leads to (RFC 9162, 2.1.3.2); None where it is no path in a tree of that size."""
    if not 0 <= index < size:
        return None
    last, made = size - 1, leaf_hash(leaf)
    for step in steps:
        if last == 0:
            return None
        if index & 1 or index == last:
            made = node_hash(step, made)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            made = node_hash(made, step)
        index, last = index >> 1, last >> 1
    return made if last == 0 else None
