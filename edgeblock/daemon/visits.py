"""Which blocks are one visit: a browser that is refused asks again, and whoever counts should count it once.

In: a blocked packet and the rule that matched, the clock. Out: whether that is a new visit. Never here: an address, a
name or anything that tells who it was. What is remembered is a keyed hash of the subscriber and the rule, for as long
as the visit lasts, in memory that all workers share, so that it is one visit whichever of them it came to, and after
one was replaced; the key is in that memory, and ends with the daemon. Two workers may write a place at once: then a
visit is counted once too often or too rarely, and nothing else happens.
"""

import os
from hashlib import blake2b

from edgeblock.core.decision import Name

WITHIN = 100.0          # seconds from its first request on: Chromium tries again after 1, 5, 30 and 60, 96 in all
SETS, WAYS = 1 << 14, 4     # of places for visits, 65 536 in all; the oldest of a set goes, and is counted once more
HOUSEHOLD = 8           # bytes of an IPv6 address: its host part changes as it pleases
KEY_SIZE = 16
KEY_WORDS = KEY_SIZE // 8
WORDS = KEY_WORDS + 2 * SETS * WAYS     # of the memory: the key, then of each place the hash and when it was, in ms
ROOM = (WORDS * 8 + 4095) // 4096 * 4096    # bytes


class Visits:
    """The visits of the last WITHIN seconds. `words` are WORDS of 64 bits, zero at first but for the key."""

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self._key = bytes(words[:KEY_WORDS])

    def is_new(self, now: float, packet: bytes, name: Name) -> bool:
        """`packet` starts with its IP header; `now` is in seconds of the monotonic clock, which all workers share."""
        client = packet[8:8 + HOUSEHOLD] if packet[:1] and packet[0] >> 4 == 6 else packet[12:16]
        said = f"{name.list} {name.rule} {name.policy}".encode("utf-8", "surrogateescape")
        visit = int.from_bytes(blake2b(client + said, digest_size=8, key=self._key).digest())
        words, at, end = self._words, int(now * 1000) + 1, KEY_WORDS + 2 * WAYS * (visit % SETS + 1)
        begun = at - int(WITHIN * 1000)
        oldest = end - 2
        for place in range(end - 2 * WAYS, end, 2):
            when = words[place + 1]
            if words[place] == visit and begun < when:
                return False
            if when < words[oldest + 1]:
                oldest = place
        words[oldest] = visit
        words[oldest + 1] = at
        return True


def begin(words: memoryview) -> None:
    """Makes a key in memory that is all zero."""
    words[:KEY_WORDS] = memoryview(os.urandom(KEY_SIZE)).cast("Q")
