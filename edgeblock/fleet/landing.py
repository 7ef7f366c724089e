"""Files of a source into the drop directory, whole or not at all, and never over a file of somebody else.

In: the files that a fetch has brought, and the record of the source. Out: the same files in the drop directory, by
names that were checked, and the record on the disk. A file is a source's own if the record says so and it is as it
was left, or has the same content. What is to land is on the disk under hidden names, which the daemon ignores, and in
the record, before the first is renamed; so whoever is ended in between finds at the next start which files are his.
Pages, clients files, settings and signatures land before lists, and go after them: no list is read without what
belongs to it. Never here: a file's content looked at, beyond its digest.
"""

import ctypes
import errno
import hashlib
import io
import os
import re
import shutil
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edgeblock.blocklist import formats
from edgeblock.blocklist.directory import BESIDE, COMMITMENTS, COMPILED, is_unfinished
from edgeblock.blocklist.pages import SUFFIX as PAGE
from edgeblock.blocklist.settings import CLIENTS
from edgeblock.blocklist.store import sync_directory
from edgeblock.fleet.record import Mark, Record
from edgeblock.fleet.source import SourceError

HIDDEN = ".edgeblock-fetch-"        # how the name of a file begins that is not yet there
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}")
FILES_MAX = 2000                    # of one source: two files for each of a thousand lists
PIECE = 1 << 20                     # bytes that are read at a time
MODE = 0o640                        # of a file: its group, which is that of the directory, reads it
SETTINGS = (PAGE, CLIENTS, ".toml")     # only of a source that may bring settings, in the order in which they land
MADE = (COMMITMENTS, COMPILED)          # of a list elsewhere: each box looks for itself whether it takes that
ORDER = {suffix: rank for rank, suffix in enumerate((*SETTINGS, *MADE, ".minisig"))}
LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, RENAME_NOREPLACE, RENAME_EXCHANGE = -100, 1, 2        # renameat2(2)


def why_not(name: str, settings: bool) -> str | None:
    """Why a file may not land by this name, as the end of a sentence; None where it may. `settings`: it may be more
    than a list, what was compiled of it, and their signatures."""
    if not NAME.fullmatch(name):
        return "is no file name of letters, digits and ._+- of at most 200 characters that begins with none of .+-"
    suffix = formats.stem_and_suffix(name)[1]
    if is_unfinished(name) or name.endswith(formats.OUTCOME) or suffix in (".rejected", ".skipped"):
        return "is a name that edgeblock or editors write; give the file another"
    if suffix in SETTINGS:
        return None if settings else "is of settings, and this source has no settings = true"
    listed = name.removesuffix(".minisig")
    if formats.stem_and_suffix(listed)[1] in MADE:
        return None
    if formats.find_format(listed) is None:
        return f"is not the name of a list: it has to end in one of {', '.join(formats.EXTENSIONS)}"
    return None


def rank(name: str) -> int:
    """Where a file stands in the order of landing."""
    return ORDER.get(formats.stem_and_suffix(name)[1], len(ORDER))


@dataclass
class Ready:
    """What is to happen: files under hidden names with their marks, by the names that they are to have; what is there
    already; names that are to go."""

    hidden: dict[str, tuple[Path, Mark]] = field(default_factory=dict)
    kept: dict[str, Mark] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)

    @property
    def files(self) -> dict[str, Mark]:
        return self.kept | {name: mark for name, (_, mark) in self.hidden.items()}


class Landing:
    """The drop directory, for all sources. One call at a time; each may take as long as the disk does."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory = directory
        self.max_bytes = max_bytes

    def sweep(self) -> None:
        """Removes what a process that was ended has left; when nothing is landing."""
        with suppress(OSError):
            for name in os.listdir(self.directory):
                if name.startswith(HIDDEN):
                    with suppress(OSError):         # of somebody else
                        os.unlink(self.directory / name)

    def whole(self, record: Record) -> bool:
        """Whether all files of a source are there as they were left; False where one is missing, or a landing was
        cut short, so that it has to be asked for everything.

        Raises:
            SourceError: a file is there that is not its own.
        """
        there = not record.landing
        for name in record.files | record.landing:
            path = self.directory / name
            if (state := state_of(path)) is None:
                there = False
            elif not is_own(path, state, record.marks(name)):
                raise foreign(path)
        return there

    def land(self, files: dict[str, Path], record: Record, kept: Path, settings: bool) -> list[str]:
        """Brings the files of a source to the drop directory, and takes away those that it has there and that are not
        among them. The record is written to `kept`, with its files; what else is in it is the caller's: `known` there
        is no more than what was known before until nothing is landing. The names of what has changed.

        Raises:
            SourceError: a name is not allowed, a file too large, another's file in the way, or the disk full. Unless
                it fails while files are renamed, everything is as it was.
        """
        check_names(files, settings)
        ready = Ready(gone=[name for name in record.files | record.landing if name not in files])
        try:
            self._check_others(files, record)
            for name in files:
                self._prepare(name, files[name], record, ready)
            if ready.hidden or ready.gone:
                record.landing = record.landing | ready.files
                record.write(kept)
            self._rename(ready, record)
            record.files, record.landing = ready.files, {}
            if ready.hidden or ready.gone or not record.changed:
                record.changed = record.asked
            record.write(kept)
        except OSError as problem:
            raise SourceError(f"{problem.filename or self.directory}: cannot be written: {problem.strerror}"
                              f"{HINTS.get(problem.errno or 0, '')}") from None
        finally:
            for hidden, _ in ready.hidden.values():
                hidden.unlink(missing_ok=True)
        return [*ready.hidden, *ready.gone]

    def _check_others(self, files: dict[str, Path], record: Record) -> None:
        """Two files of one list name refuse that list, so none is put beside another's."""
        lists = {formats.list_name(name): name for name in files if is_list(name)}
        own = record.files | record.landing
        for name in os.listdir(self.directory):
            if name not in own and name not in files and is_list(name) and formats.list_name(name) in lists:
                raise SourceError(f"{self.directory / name}: is not of this source, and has the same list name as "
                                  f"{lists[formats.list_name(name)]}; remove one, or rename it")

    def _prepare(self, name: str, content: Path, record: Record, ready: Ready) -> None:
        target = self.directory / name
        with open_content(name, content) as file:
            size = os.fstat(file.fileno()).st_size
            if size > self.max_bytes:
                raise SourceError(f"{name}: has {size} bytes, and [fetch] file_megabytes allows "
                                  f"{self.max_bytes >> 20} MiB")
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if (state := state_of(target)) is not None:
                marks = record.marks(name)
                there = content_of(target, state, [*marks, Mark(size, digest, 0, 0)])
                if there == digest:
                    ready.kept[name] = Mark(size, digest, state.st_ino, state.st_mtime_ns)
                    return
                if there not in {mark.digest for mark in marks}:
                    raise foreign(target)
            file.seek(0)
            handle, hidden = tempfile.mkstemp(prefix=HIDDEN, dir=self.directory)
            ready.hidden[name] = Path(hidden), Mark(size, digest, 0, 0)
            with open(handle, "wb") as made:
                os.fchmod(made.fileno(), MODE)
                shutil.copyfileobj(file, made, 1 << 20)
                made.flush()
                os.fsync(made.fileno())
                state = os.fstat(made.fileno())
            ready.hidden[name] = Path(hidden), Mark(size, digest, state.st_ino, state.st_mtime_ns)

    def _rename(self, ready: Ready, record: Record) -> None:
        for name in sorted(ready.hidden, key=rank):
            self._put(ready.hidden[name][0], self.directory / name, record)
        for name in sorted(ready.gone, key=rank, reverse=True):
            path = self.directory / name
            state = state_of(path)
            if state is not None and is_own(path, state, record.marks(name)):
                path.unlink(missing_ok=True)        # what somebody else has put there since stays, and is his
        if ready.hidden or ready.gone:
            sync_directory(self.directory)

    def _put(self, hidden: Path, target: Path, record: Record) -> None:
        """Renames a file into place; where a file is there it is exchanged, looked at, and only then removed, so that
        one that was put there a moment ago comes back."""
        if state_of(target) is None:
            if not renamed(hidden, target, RENAME_NOREPLACE):
                raise foreign(target)
            return
        if not renamed(hidden, target, RENAME_EXCHANGE):
            os.rename(hidden, target)
            return
        state = state_of(hidden)
        if state is not None and not is_own(hidden, state, record.marks(target.name)):
            renamed(hidden, target, RENAME_EXCHANGE)
            raise foreign(target)


HINTS = {
    errno.ENOSPC: "; make room, what landed before stays",
    errno.EDQUOT: "; make room, what landed before stays",
    errno.EACCES: "; whoever runs this has to be in the group of the directory (edgeblock-lists)",
    errno.EPERM: "; the file is of another user, and is left alone: remove it, or name this source's file otherwise",
    errno.ENOENT: "; make the directory, or set [fetch] directory",
    errno.EROFS: "; allow it with ReadWritePaths in the unit",
}


def check_names(files: dict[str, Path], settings: bool) -> None:
    """Raises SourceError where a name is not allowed, or two files would be the same list."""
    if len(files) > FILES_MAX:
        raise SourceError(f"has {len(files)} files, and {FILES_MAX} are the most of one source")
    seen: dict[str, str] = {}
    for name in files:
        if why := why_not(name, settings):
            raise SourceError(f"{name[:200]!r} {why}")
        if is_list(name) and (other := seen.setdefault(formats.list_name(name), name)) != name:
            raise SourceError(f"{name}: has the same list name as {other}; the source has to name one otherwise")


def is_list(name: str) -> bool:
    """Whether a file of this name is read as a list, as far as its name says."""
    suffix = formats.stem_and_suffix(name)[1]
    return (not is_unfinished(name) and suffix not in BESIDE and suffix != PAGE and not name.endswith(formats.OUTCOME)
            and formats.find_format(name) is not None)


def state_of(path: Path) -> os.stat_result | None:
    """What is at a path, itself if it is a link; None where nothing is."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def digest_of(path: Path, size: int) -> str:
    """The SHA-256 of a file of so many bytes; "" of what cannot be read, or has another size by now: whoever makes it
    longer and longer keeps nobody here."""
    digest, had = hashlib.sha256(), 0
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            while had <= size and (piece := file.read(PIECE)):
                had += len(piece)
                digest.update(piece)
    except OSError:
        return ""
    return digest.hexdigest() if had == size else ""


def content_of(path: Path, state: os.stat_result, marks: list[Mark]) -> str:
    """The SHA-256 of a file in place, which is not read where it is as one of the marks has left it; "" where it can
    be none of them."""
    if not stat.S_ISREG(state.st_mode):
        return ""
    for mark in marks:
        if mark.fits(state):
            return mark.digest
    return digest_of(path, state.st_size) if any(mark.size == state.st_size for mark in marks) else ""


def is_own(path: Path, state: os.stat_result, marks: list[Mark]) -> bool:
    """Whether a file is one of those that the marks are of."""
    return content_of(path, state, marks) in {mark.digest for mark in marks}


def open_content(name: str, path: Path) -> io.BufferedReader:
    """What a source has brought. SourceError where that is no file."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise SourceError(f"{name}: is no file")
    return open(handle, "rb")


def foreign(path: Path) -> SourceError:
    """What is said of a file in the way."""
    return SourceError(f"{path}: is not as this source has left it, or was put there by somebody else, and is left "
                       "alone; remove it, or name this source's file otherwise")


def renamed(hidden: Path, target: Path, flags: int) -> bool:
    """renameat2(2); whether it was done. A file system that has it not renames as it can; False: it was to be new and
    is there, or was to be exchanged and cannot be.

    Raises:
        OSError: it cannot be done at all.
    """
    if LIBC.renameat2(AT_FDCWD, os.fsencode(hidden), AT_FDCWD, os.fsencode(target), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code == errno.EEXIST or flags == RENAME_EXCHANGE and code in (errno.EINVAL, errno.ENOSYS, errno.ENOENT):
        return False
    if code in (errno.EINVAL, errno.ENOSYS):
        os.rename(hidden, target)
        return True
    raise OSError(code, os.strerror(code), str(target))
