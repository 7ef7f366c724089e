"""A list into a hashed list, where the plain text is (formats/hashed.py has the file).

In: a list, its guard, a key, a file to write. Out: the file, and what is in it; or every reason why not, and no file.
Here the plain text can still be judged, so the guard rails hold here in full: on a box a hashed list can be tested
for suffixes and protected names only. What never happens here: a plain name of a host or URL in the file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from edgeblock.blocklist.compiler import EXCEPTION, Compiled, Compiler
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import Entry, HashedEntry, Passed, Problem
from edgeblock.blocklist.formats.hashed import HashedHead, write_hashed
from edgeblock.blocklist.guard import Guard, Seen
from edgeblock.blocklist.keys import key_id
from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.snapshot import ROW_SIZE

REASONS_MAX = 50        # that are kept; the rest are counted


@dataclass
class Hashing:
    """A list on its way: what it has, and what stands against it (line 0: against all of it)."""

    lines: int = 0
    entries: int = 0
    duplicates: int = 0
    unusable: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)
    refusals: list[tuple[int, str]] = field(default_factory=list)

    def blame(self, reasons: list[tuple[int, str]], line: int, why: str) -> None:
        if len(reasons) < REASONS_MAX:
            reasons.append((line, why))


def hash_list(items: Iterable[Entry | HashedEntry | Problem | Passed], settings: ListSettings, guard: Guard,
              key: bytes, out: BinaryIO) -> Hashing:
    """Writes the hashed form of `items` to `out`, unless the result has refusals: then nothing is written."""
    compiler = Compiler(key)
    # With this setting the compiler also says which hosts have URLs that are blocked, and not only exceptions.
    compiler.add_list("list", replace(settings, https="host"))
    made = Hashing()
    addresses: set[tuple[bytes, bool]] = set()
    last = total = 0
    for item in items:
        if isinstance(item, Passed):
            continue
        if item.line != last:
            last = item.line
            made.lines += 1
        if isinstance(item, HashedEntry):
            made.blame(made.refusals, 0, "is a hashed list already")
            return made
        if isinstance(item, Problem):
            made.unusable += 1
            made.blame(made.refusals if item.whole else made.problems, item.line, item.why)
        elif why := guard.refuses(item):
            made.blame(made.refusals, item.line, why)
        else:
            total += 1
            if item.kind >= Kind.NETWORK:
                addresses.add((item.key, item.exception))
            else:
                compiler.add(0, item)
    compiled = compiler.finish()
    made.entries = len(addresses) + compiled.lists[0].entries
    made.duplicates = total - made.entries
    if why := guard.refuses_list(Seen(made.lines, made.entries, made.unusable), None, 0.0):
        made.blame(made.refusals, 0, why)
    if not made.entries and not made.refusals:
        made.blame(made.refusals, 0, "has no entries")
    if not made.refusals:
        head = HashedHead(key_id(key), compiled.labels, compiled.depths, compiled.url_max, compiled.directory_max)
        write_hashed(out, head, sorted(addresses), prints_of(compiled))
    return made


def prints_of(compiled: Compiled) -> Iterator[tuple[bytes, Kind, bool]]:
    """Fingerprint, kind and exception of the rows of one list; a host whose URLs are all exceptions is one too."""
    rows = memoryview(compiled.rows)    # type: ignore[arg-type]
    blocked = b""
    for at in range(0, len(rows), ROW_SIZE):
        print, value = bytes(rows[at:at + 16]), int.from_bytes(rows[at + 16:at + ROW_SIZE], "little")
        kind = Kind(value & 0xFF)
        if kind == Kind.HOST_OF_URL:
            blocked = print         # its URL_MARK has a higher value, so it comes after this
        elif kind == Kind.URL_MARK:
            yield print, kind, print != blocked
        else:
            yield print, kind, value & EXCEPTION != 0
