"""What is published of a rules directory: copied aside, judged as a box would, compared with what is out.

In: a directory of lists, the terms of a box, the files of the last release. Out: the files of a release with their
digests, what lint says, and how many entries come and go. What was judged is what is published: it is the copy.
Never here: a signature, or an entry in what is told, unless somebody asks for entries.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from pyroaring import BitMap64

from edgeblock import config
from edgeblock.blocklist import lint
from edgeblock.blocklist.directory import ListFile, find_lists, names_in, open_regular, read_items
from edgeblock.blocklist.formats import OUTCOME, Entry, HashedEntry
from edgeblock.blocklist.intake import make_terms
from edgeblock.blocklist.lint import mark_text
from edgeblock.errors import ListError
from edgeblock.fleet.landing import FILES_MAX, why_not
from edgeblock.fleet.publish import PublishError, content_of
from edgeblock.fleet.releases import Content

ANSWERS = (".rejected", ".skipped", OUTCOME)    # what a box writes beside lists
SHOWN_MAX = 1000        # entries of one list that are shown


def gather(directory: Path, folder: Path) -> tuple[dict[str, Content], dict[str, str]]:
    """Copies what boxes read of a rules directory into `folder`; by name what it is, and why others are left.

    Raises:
        ListError: the directory or a file cannot be read. PublishError: there is nothing, or too much.
    """
    there = [name for name in names_in(directory) if not name.endswith(ANSWERS)]
    left = {name: why for name in there if (why := why_not(name, True))}
    files = [name for name in there if name not in left and (directory / name).is_file()]
    if not files:
        raise PublishError(f"{directory}: has no list; publish a rules directory, such as /etc/edgeblock/rules")
    if len(files) > FILES_MAX:
        raise PublishError(f"{directory}: has {len(files)} files, and a release at most {FILES_MAX}")
    for name in files:
        with open_regular(directory / name) as source, open(folder / name, "xb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
    return {name: content_of(folder / name) for name in files}, left


def judge(folder: Path, rules: config.Rules, redirect: str | None = None) -> lint.Report:
    """What `edgeblock lint` says of it."""
    return lint.lint(folder, rules, redirect=redirect)


@dataclass(frozen=True)
class Change:
    """What becomes of one list: how many entries come and go, and how many there are then. `shown` are the first of
    them, with + and -, where somebody asks for entries. `kind` says what else: new, gone, settings, or ""."""

    name: str
    added: int
    removed: int
    entries: int
    kind: str = ""
    shown: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = f" ({self.kind})" if self.kind else ""
        return f"{self.name}: +{self.added} -{self.removed}, {self.entries} entries{more}"


def compare(before: Path, after: Path, rules: config.Rules, show: bool = False) -> list[Change]:
    """By list, what differs between two directories; lists that are the same are left out.

    Raises:
        ListError: one of the directories cannot be read.
    """
    defaults = make_terms(rules, b"").defaults
    old, new = ({source.name: source for source in find_lists(place, defaults, lenient=True)[0]}
                for place in (before, after))
    found = []
    for name in sorted(old.keys() | new.keys()):
        one, other = old.get(name), new.get(name)
        if one and other and same(one.path, other.path) and one.settings == other.settings:
            continue
        had, has = prints(one), prints(other)
        added, removed = has - had, had - has
        kind = "new" if one is None else "gone" if other is None else \
            "settings" if one.settings != other.settings else ""
        shown = (*entries(other, added, "+"), *entries(one, removed, "-")) if show else ()
        found.append(Change(name, len(added), len(removed), len(has), kind, shown))
    return found


def same(one: Path, other: Path) -> bool:
    return one.name == other.name and content_of(one) == content_of(other)


def prints(source: ListFile | None) -> BitMap64:
    """A hash of 64 bits of each entry: of ten million, three in a million times two are the same."""
    found = BitMap64()
    for _, print_ in read(source):
        found.add(print_)
    return found


def read(source: ListFile | None) -> Iterator[tuple[Entry | HashedEntry, int]]:
    """The entries that a list has, as far as it can be read; lint says what cannot."""
    try:
        for item in read_items(source) if source else ():
            if isinstance(item, Entry):
                seen = f"{int(item.kind)} {int(item.exception)} {item.attributes} ".encode() + item.key
            elif isinstance(item, HashedEntry):
                seen = repr(item).encode()
            else:
                continue
            yield item, int.from_bytes(blake2b(seen, digest_size=8).digest())
    except ListError:
        return


def entries(source: ListFile | None, wanted: BitMap64, sign: str) -> Iterator[str]:
    shown = 0
    for item, print_ in read(source):
        if print_ in wanted and isinstance(item, Entry):
            if shown == SHOWN_MAX:
                yield f"{sign} and {len(wanted) - shown} more"
                return
            shown += 1
            yield f"{sign} {mark_text((item.kind, item.key, item.exception))}"


def lay_out(files: Mapping[str, Content], where: Callable[[str, str], Path], folder: Path) -> None:
    """The files of a release under the names that a box gives them. `where` has a name and a digest."""
    for name, content in files.items():
        path = where(name, content.sha256)
        try:
            os.link(path, folder / name)
        except OSError:
            shutil.copyfile(path, folder / name)
