"""Which blocks are one visit: a browser that is refused asks again, and whoever counts should count it once.

In: a blocked packet and the rule that matched, the worker's clock. Out: whether that is a new visit. Never here: an
address, a name or anything that tells who it was. What is remembered is a keyed hash of the subscriber and the rule,
for as long as the visit lasts; the key is this worker's own and ends with it.
"""

import os
from hashlib import blake2b

from edgeblock.core.decision import Name

WITHIN = 10.0           # seconds from its first request on; Chromium's second try behind a reset comes within 5
VISITS_MAX = 16_384     # at a time: 2 MB; the oldest goes, and is counted once more if it comes again
HOUSEHOLD = 8           # bytes of an IPv6 address: its host part changes as it pleases


class Visits:
    """The visits of the last WITHIN seconds."""

    def __init__(self) -> None:
        self._key = os.urandom(16)
        self._began: dict[bytes, float] = {}        # oldest first

    def is_new(self, now: float, packet: bytes, name: Name) -> bool:
        """`packet` starts with its IP header; `now` is in seconds and never goes back."""
        client = packet[8:8 + HOUSEHOLD] if packet[:1] and packet[0] >> 4 == 6 else packet[12:16]
        said = f"{name.list} {name.rule} {name.policy}".encode()
        visit = blake2b(client + said, digest_size=8, key=self._key).digest()
        while self._began and now - next(iter(self._began.values())) >= WITHIN:
            del self._began[next(iter(self._began))]
        if visit in self._began:
            return False
        if len(self._began) >= VISITS_MAX:
            del self._began[next(iter(self._began))]
        self._began[visit] = now
        return True
