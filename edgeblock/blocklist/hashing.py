"""A list into a hashed list, where the plain text is (formats/hashed.py has the file).

In: a list, its guard, a key, a file to write. Out: the file, and what is in it; or every reason why not, and no file.
Here the plain text can still be judged, so the guard rails hold here in full: on a box a hashed list can be tested
for suffixes and protected names only. What never happens here: a plain name of a host or URL in the file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from edgeblock import config
from edgeblock.blocklist.compiler import Compiler
from edgeblock.blocklist.directory import Finding, ListFile, read_items, settings_path, single_list
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import (
    Asked,
    HashedEntry,
    Item,
    Passed,
    Problem,
    Remark,
    find_format,
    list_name,
)
from edgeblock.blocklist.formats.hashed import HashedHead, write_hashed
from edgeblock.blocklist.guard import Guard, Seen
from edgeblock.blocklist.intake import make_terms
from edgeblock.blocklist.keys import Key, key_id
from edgeblock.blocklist.parts import EXCEPTION, Compiled
from edgeblock.blocklist.settings import ListSettings, default_settings
from edgeblock.blocklist.snapshot import ROW_SIZE
from edgeblock.blocklist.store import read_key, write_file
from edgeblock.errors import ListError

FINDINGS_MAX = 50       # that are told

@dataclass
class Hashing:
    """What became of a list: counts, everything that stands against it, and what a box needs beside the file.
    `refused`: nothing was written."""

    file: str
    key_id: bytes
    lines: int = 0
    entries: int = 0
    duplicates: int = 0
    unusable: int = 0
    refused: bool = False
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def summary(self) -> str:
        """One line for the end."""
        def count(number: int, one: str, more: str) -> str:
            return f"{number} {one if number == 1 else more}"

        left = f", {count(self.unusable, 'line', 'lines')} left out" if self.unusable else ""
        return (f"{self.file}: {count(self.entries, 'entry', 'entries')}, "
                f"{count(self.duplicates, 'duplicate', 'duplicates')}{left}; key {self.key_id.hex()}")

    def refuse(self, line: int, why: str) -> None:
        self.refused = True
        self.find(line, why)

    def find(self, line: int, why: str) -> None:
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(self.file, line, why))
        elif len(self.findings) == FINDINGS_MAX:
            self.findings.append(Finding(self.file, 0, "has more of this; fix these first"))


def hash_file(file: str | Path, out: str | Path, rules: config.Rules, key_file: str | Path | None = None,
              stated: str | None = None) -> Hashing:
    """Writes the hashed form of the list `file` to `out`, by rename, unless it is refused.

    Args:
        key_file: None: that of the configuration. A new key is made where there is none, and told.
        stated: the format; None: what the settings beside the list or its name say.

    Raises:
        ListError: the list or the key cannot be read, the format is not known, or `out` cannot be written.
    """
    path, to = Path(file), Path(out)
    source = single_list(path, default_settings(rules), stated)
    settings = source.settings
    if to.exists() and path.exists() and to.samefile(path):
        raise ListError(f"{to}: is the list itself; name another file")
    at = Path(key_file or rules.key)
    is_new = not at.exists()
    try:
        key = read_key(at, create=True)
    except ListError as error:
        way_out = "" if key_file else "; run this as root, or name the key of the boxes with --key FILE"
        raise ListError(f"{error}{way_out}") from None
    guard = Guard(settings, make_terms(rules, key).protected, key)
    made = Hashing(path.name, key_id(key))
    if is_new:
        made.notes.append(f"{at}: a new key was made, as there was none; only boxes with a copy of it read this list")
    made.notes += beside(path, to, source)

    def fill(written: BinaryIO) -> None:
        hash_list(read_items(source), settings, guard, key, written, made)
        if made.refused:
            raise Stop

    try:
        write_file(to, fill, mode=0o644)
    except Stop:
        return made
    except OSError as error:
        raise ListError(f"{to}: cannot be written: {error.strerror}") from None
    return made


def beside(path: Path, to: Path, source: ListFile) -> Iterator[str]:
    """What has to be said of the files beside a hashed list."""
    own, theirs = settings_path(path), f"{list_name(to.name)}.toml"
    if own.exists():
        less = ", without format" if source.settings.format else ""
        yield (f"{own.name}: what it says of this list, such as the action, is not in {to.name}; put it beside that "
               f"on the box, as {theirs}{less}")
    if find_format(to.name) != "hashed":
        yield (f"{to.name}: its name does not say that this is a hashed list; name it .hashed, or put "
               f'format = "hashed" into {theirs}')


class Stop(Exception):
    """The list is refused. Never leaves this module."""


def hash_list(items: Iterable[Item | HashedEntry], settings: ListSettings, guard: Guard, key: Key, out: BinaryIO,
              made: Hashing) -> None:
    """Writes the hashed form of `items` to `out`, unless `made` says that they are refused: then nothing."""
    compiler = Compiler(key)
    # With this setting the compiler also says which hosts have URLs that are blocked, and not only exceptions.
    compiler.add_list("list", replace(settings, https="host"))
    addresses: set[tuple[bytes, bool]] = set()
    first = last = total = timed = 0
    for item in items:
        if isinstance(item, Passed | Remark | Asked):
            continue
        if item.line != last:
            last = item.line
            made.lines += 1
        if isinstance(item, HashedEntry):
            made.refuse(0, "is a hashed list already")
            return
        if isinstance(item, Problem):
            made.unusable += 1
            made.find(item.line, item.why)
        elif item.terms:
            timed += 1
            first = first or item.line
        elif why := guard.refuses(item):
            if guard.skips:
                made.find(item.line, f"{why}; left out (guarded = \"skip\")")
            else:
                made.refuse(item.line, why)
        else:
            total += 1
            if item.kind in (Kind.NETWORK, Kind.ENDPOINT):
                addresses.add((item.key, item.exception))
            else:
                compiler.add(0, item)
    if timed:
        some = "is the one entry" if timed == 1 else f"is the first of {timed} entries"
        made.refuse(first, f"{some} with terms of its own (a window, an order, ech=only), which a hashed list has no "
                    "place for; put those that hold for the whole list into its settings, or send the plain list")
    compiled = compiler.finish()
    made.entries = len(addresses) + compiled.lists[0].entries
    made.duplicates = total - made.entries
    if why := guard.refuses_list(Seen(made.lines, made.entries, made.unusable), None, 0.0):
        made.refuse(0, why)
    elif not made.entries:
        made.refuse(0, "has no entries")
    if not made.refused:
        head = HashedHead(key_id(key), compiled.labels, compiled.depths, compiled.url_max, compiled.directory_max,
                          compiled.at_ipv4, compiled.at_ipv6)
        write_hashed(out, head, sorted(addresses), prints_of(compiled))


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
