"""A rules directory: which lists are in it, opened with care.

In: a path that other people may write to. Out: a ListFile for each list, what cannot be used, and what looks like a
mistake. Nothing here waits on a pipe, follows a link out of the directory, or trusts that a file stays what it was.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from edgeblock.blocklist import formats
from edgeblock.blocklist.settings import ListSettings, parse_settings
from edgeblock.errors import ListError

SETTINGS_MAX = 64 * 1024    # bytes of a NAME.toml; a real one has a few hundred
NAME_MAX = 200              # bytes of a list's name: a file name has 255, and ours are made of it
BESIDE = (".toml", ".rejected", ".minisig")     # what stands beside a list and is none
UNFINISHED = (".tmp", ".part", ".partial", ".filepart", ".swp", ".swx", "~")    # of editors and transfers; hidden too


class Finding(NamedTuple):
    """Something wrong with a rules directory. `line` is 0 when it is about the whole file."""

    file: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.why}" if self.line else f"{self.file}: {self.why}"


@dataclass(frozen=True)
class ListFile:
    """One list on disk and its settings."""

    name: str
    path: Path
    reader: formats.Reader
    settings: ListSettings

    def expired(self, now: float) -> bool:
        return self.settings.expires is not None and self.settings.expires.timestamp() <= now


def is_unfinished(file_name: str) -> bool:
    """Whether this is a file that somebody is still writing, or an editor's own."""
    return file_name.startswith(".") or file_name.endswith(UNFINISHED)


def open_regular(path: Path) -> BinaryIO:
    """A regular file for reading; never waits on a pipe.

    Raises:
        ListError: there is none, it is something else, may not be read, or is a link that leads out of the directory.
    """
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        if error.errno is not None and stat_kind(path) not in ("", "file"):
            raise ListError(f"{path.name}: is a {stat_kind(path)}, not a file") from None
        raise ListError(f"{path.name}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ListError(f"{path.name}: is a {stat_kind(path)}, not a file")
    if path.is_symlink() and not is_inside(file, path.parent):
        # Else whoever may write here could have files read and quoted that only the daemon may read.
        file.close()
        raise ListError(f"{path.name}: is a link that leads out of {path.parent}; copy the file here instead")
    return file


def is_inside(file: BinaryIO, directory: Path) -> bool:
    """Whether the open file lies below the directory: asked of the kernel, so no link can be exchanged meanwhile."""
    return os.readlink(f"/proc/self/fd/{file.fileno()}").startswith(f"{directory.resolve()}/")


def stat_kind(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    return ("file" if stat.S_ISREG(mode) else "directory" if stat.S_ISDIR(mode)
            else "pipe" if stat.S_ISFIFO(mode) else "special file")


def read_settings(path: Path, defaults: ListSettings) -> ListSettings:
    """The settings in a NAME.toml.

    Raises:
        ListError: the file cannot be read, or says what settings cannot.
    """
    with open_regular(path) as file:
        text = file.read(SETTINGS_MAX + 1)
    if len(text) > SETTINGS_MAX:
        raise ListError(f"{path.name}: is longer than {SETTINGS_MAX} bytes; is it really the settings of a list?")
    return parse_settings(text, path.name, defaults, tuple(formats.READERS))


def names_in(directory: Path) -> list[str]:
    """The names of the files in a directory, sorted, without those that are unfinished.

    Raises:
        ListError: the directory does not exist or may not be read.
    """
    try:
        return sorted(name for name in os.listdir(directory) if not is_unfinished(name))
    except FileNotFoundError:
        raise ListError(f"{directory}: there is no such rules directory; make it, or name another") from None
    except NotADirectoryError:
        raise ListError(f"{directory}: is no directory; give the directory that the lists are in") from None
    except OSError as error:
        raise ListError(f"{directory}: cannot be read: {error.strerror}") from None


def find_lists(directory: Path, defaults: ListSettings) -> tuple[list[ListFile], list[Finding], list[Finding]]:
    """The lists of a directory by name, what cannot be used, and what looks like a mistake.

    The stem of a Finding's file is the name of the list that it is about.

    Raises:
        ListError: the directory does not exist or may not be read.
    """
    paths = [directory / name for name in names_in(directory)]
    stated = {path.stem: path for path in paths if path.suffix == ".toml"}
    candidates: dict[str, list[Path]] = {}
    errors: list[Finding] = []
    warnings: list[Finding] = []
    for path in paths:
        if path.suffix in BESIDE:
            continue
        if path.suffix in formats.PACKED:
            errors.append(Finding(ascii(path.name)[1:-1], 0, "is packed; unpack it and drop what is inside"))
        elif formats.find_format(path.name, path.suffix) is None and path.stem not in stated:
            warnings.append(Finding(path.name, 0, f"is not read: {path.suffix or 'no extension'} is not one of "
                                    f"{', '.join(formats.EXTENSIONS)}, and no {path.stem}.toml states a format"))
        elif not path.stem.isprintable():
            errors.append(Finding(ascii(path.name), 0, "has a character in its name that cannot be printed"))
        elif len(os.fsencode(path.stem)) > NAME_MAX:
            errors.append(Finding(path.name, 0, f"has a name of more than {NAME_MAX} bytes; rename it"))
        else:
            candidates.setdefault(path.stem, []).append(path)
    lists: list[ListFile] = []
    for name, several in candidates.items():
        path, *others = several
        if others:
            errors += [Finding(other.name, 0, f"has the same list name as {path.name}; rename one")
                       for other in others]
            continue
        try:
            settings = read_settings(stated[name], defaults) if name in stated else defaults
            with open_regular(path):
                pass
        except ListError as error:
            file, _, why = str(error).partition(": ")
            errors.append(Finding(file, 0, why))
            continue
        chosen = settings.format or formats.find_format(path.name, path.suffix)
        if chosen is None:
            errors.append(Finding(path.name, 0, f"has no known extension; state its format in {name}.toml"))
            continue
        lists.append(ListFile(name, path, formats.reader_of(chosen, settings), settings))
    for stem, path in stated.items():
        if stem not in candidates:
            warnings.append(Finding(path.name, 0, f"has no list beside it, such as {stem}.list"))
    return lists, errors, warnings


def read_items(source: ListFile) -> Iterator[formats.Item | formats.HashedEntry]:
    """Everything that the reader of one list says.

    Raises:
        ListError: the file cannot be read, or nothing of it can be used.
    """
    with open_regular(source.path) as file:
        try:
            for item in source.reader(file):
                if isinstance(item, formats.Problem) and item.whole:
                    raise ListError(f"{source.path.name}:{item.line}: {item.why}")
                yield item
        except OSError as error:
            raise ListError(f"{source.path.name}: cannot be read: {error.strerror}") from None


def read_list(source: ListFile) -> Iterator[formats.Entry | formats.HashedEntry | Finding]:
    """Entries of one list, and a Finding for every line that cannot be used.

    Raises:
        ListError: the file cannot be read, or nothing of it can be used.
    """
    for item in read_items(source):
        if isinstance(item, formats.Problem):
            yield Finding(source.path.name, item.line, item.why)
        elif not isinstance(item, formats.Passed | formats.Remark):
            yield item


def finding_of(source: ListFile, error: ListError) -> Finding:
    """What is wrong with a list as a whole; the error may name the file and the line, or neither."""
    name, text = source.path.name, str(error)
    if not text.startswith(f"{name}:"):
        return Finding(name, 0, text)
    found = re.match(r":(?:(\d+):)? ", text[len(name):])
    return Finding(name, int(found[1] or 0), text[len(name) + found.end():]) if found else Finding(name, 0, text)
