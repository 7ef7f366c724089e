"""What a list tells those whom it blocks, where that is not what [reply] says for all: its page, reason, contact,
status and redirect.

In: the settings of a list and the files that they name, from anybody who may write to the directory. Out: a Notice,
which the list's record carries into the snapshot, as what JSON has; no larger than PAGE_MAX for a page, and ROOM for
all lists of one owner. Never here: HTML that is made.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgeblock.blocklist.compiler import ListRecord
from edgeblock.blocklist.directory import ListFile, open_regular
from edgeblock.blocklist.pages import PAGE_MAX, by_language
from edgeblock.errors import ListError

ROOM = 4 << 20          # bytes of the notices of one owner's lists: every worker has them in memory, some 130 pages

Notice = dict[str, Any]     # {"pages": {language: HTML}, "reason": {language: text}, "contact", "status", "redirect"}


def read_notice(source: ListFile) -> Notice:
    """What this list tells; {} where it says nothing of its own.

    Raises:
        ListError: one of its pages cannot be used.
    """
    settings = source.settings
    told: Notice = {"pages": read_pages(source.pages), "reason": dict(settings.reason), "contact": settings.contact,
                    "status": settings.status, "redirect": settings.redirect}
    return {key: value for key, value in told.items() if value}


def read_pages(pages: Sequence[tuple[str, Path]]) -> dict[str, str]:
    bodies = []
    for language, path in pages:
        with open_regular(path) as file:
            try:
                bodies.append((language, file.read(PAGE_MAX + 1)))
            except OSError as error:
                raise ListError(f"{path.name}: cannot be read: {error.strerror}") from None
    try:
        return by_language(bodies)
    except ValueError as problem:
        number, why = problem.args
        raise ListError(f"{pages[number][1].name}: is {why}") from None


class Room:
    """How much the lists in force tell, by the owner of each."""

    def __init__(self, records: Iterable[ListRecord]) -> None:
        self.sizes = {record.name: (record.uid, size_of(record.notice)) for record in records if record.notice}
        self.used: Counter[int | None] = Counter()
        for uid, size in self.sizes.values():
            self.used[uid] += size

    def take(self, record: ListRecord) -> None:
        """This record is in force from now on, in place of the one of its name.

        Raises:
            ListError: then its owner's would tell too much; nothing has changed.
        """
        uid, size = record.uid, size_of(record.notice) if record.notice else 0
        was, before = self.sizes.get(record.name, (uid, 0))
        if size and self.used[uid] + size - (before if was == uid else 0) > ROOM:
            raise ListError(f"its pages, with those of all lists of its owner, are longer than {ROOM >> 20} MiB; "
                            "shorten them, or leave page out for the page of [reply]")
        self.used[was] -= before
        self.used[uid] += size
        self.sizes[record.name] = uid, size


def size_of(notice: Notice) -> int:
    return len(json.dumps(notice))
