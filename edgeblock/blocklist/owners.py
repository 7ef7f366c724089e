"""How much the lists of one owner may have together, of what costs everybody else something.

In: the records of the lists in force, and of one that would be. Out: whether there is room for it. Never here: a
file.
"""

import json
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from edgeblock.blocklist.parts import ListRecord
from edgeblock.errors import ListError

ROOM = 4 << 20          # bytes of notices: every worker has them in memory, some 130 pages
SETS_ROOM = 4096        # sets of weekly windows: rules wait a quarter of a second while all are looked at


class Share(NamedTuple):
    """What one list has of it: bytes that it tells, and different sets of weekly windows of its entries."""

    told: int = 0
    sets: int = 0


class Room:
    """What the lists in force have, by the owner of each."""

    def __init__(self, records: Iterable[ListRecord]) -> None:
        self.shares = {record.name: (record.uid, share_of(record)) for record in records}
        self.told: Counter[int | None] = Counter()
        self.sets: Counter[int | None] = Counter()
        for uid, share in self.shares.values():
            self._add(uid, share)

    def take(self, record: ListRecord) -> None:
        """This record is in force from now on, in place of the one of its name.

        Raises:
            ListError: then its owner's would have too much; nothing has changed.
        """
        uid, share = record.uid, share_of(record)
        was, before = self.shares.get(record.name, (uid, Share()))
        own = before if was == uid else Share()
        if share.told and self.told[uid] + share.told - own.told > ROOM:
            raise ListError(f"its pages, with those of all lists of its owner, are longer than {ROOM >> 20} MiB; "
                            "shorten them, or leave page out for the page of [reply]")
        if share.sets and self.sets[uid] + share.sets - own.sets > SETS_ROOM:
            raise ListError(f"has {share.sets} different sets of weekly windows, and all lists of its owner have "
                            f"more than {SETS_ROOM}; give more entries the same hours")
        self._add(was, Share(-before.told, -before.sets))
        self._add(uid, share)
        self.shares[record.name] = uid, share

    def _add(self, uid: int | None, share: Share) -> None:
        self.told[uid] += share.told
        self.sets[uid] += share.sets


def share_of(record: ListRecord) -> Share:
    return Share(len(json.dumps(record.notice)) if record.notice else 0, record.sets)
