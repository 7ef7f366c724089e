"""A rules directory: which lists are in it, opened with care.

In: a path that other people may write to. Out: a ListFile for each list, what cannot be used, and what looks like a
mistake. Nothing here waits on a pipe, follows a link out of the directory, trusts that a file stays what it was, or
lets a fault of one list's files reach another list.
"""

import ctypes
import errno
import os
import re
import signal
import stat
import struct
import time
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, NamedTuple

from edgeblock.blocklist import formats
from edgeblock.blocklist.pages import SUFFIX as PAGE
from edgeblock.blocklist.pages import variants
from edgeblock.blocklist.settings import CLIENTS, ListSettings, locked_for, parse_settings, why_locked
from edgeblock.config import LANGUAGES_MAX
from edgeblock.errors import ListError, printable

SETTINGS_MAX = 64 * 1024    # bytes of a NAME.toml; a real one has a few hundred
SETTINGS_ALL_MAX = 4 << 20  # bytes of all NAME.toml of one owner: they are parsed in every round, a second or two
SETTINGS_SECONDS = 0.25     # of processor time for one of them; a long one takes a tenth of that
SETTINGS_ALL_SECONDS = 1.0  # for all of one owner, in every round
NAME_MAX = 200              # bytes of a list's name: a file name has 255, and ours are made of it
REASON_MAX = 1000           # characters of a reason; what it quotes may be as long as a line of a list
LISTS_MAX = 10_000          # of a directory: each is a mapping of the compiling process, which may have 65 530
OWNER_LISTS_MAX = 5_000     # of one user: nobody takes the room of all others
ERRORS_MAX = LISTS_MAX      # files that cannot be used of which is said why; the rest are counted
WARNINGS_MAX = 100          # about files that are no lists; the rest are counted
REFUSED = "the daemon refuses this list"        # how a warning ends of what is an error there
COMPILED, COMMITMENTS = ".compiled", ".commitments"     # of a list that was compiled elsewhere: precompiled.py
# What stands beside a list and is none.
BESIDE = (".toml", ".rejected", ".skipped", ".minisig", COMPILED, COMMITMENTS, CLIENTS)
UNFINISHED = (".tmp", ".part", ".partial", ".filepart", ".swp", ".swx", "~")    # of editors and transfers; hidden too


class Finding(NamedTuple):
    """Something wrong with a rules directory. `line` is 0 when it is about the whole file; `plain` is the reason
    without a word of the file, "" where there is none."""

    file: str
    line: int
    why: str
    plain: str = ""

    def __str__(self) -> str:
        return self.marked("")

    def marked(self, mark: str) -> str:
        """With a word between place and reason, as compilers have it: `a.list:3: error: ...`."""
        why = self.why if len(self.why) <= REASON_MAX else f"{self.why[:REASON_MAX]}..."
        place = f"{self.file}:{self.line}" if self.line else self.file
        return printable(f"{place}: {mark}{why}")


def and_so(why: str, what: str) -> str:
    """A reason and what follows from it, on one line; some reasons end with a question."""
    return f"{why} {what}" if why.endswith("?") else f"{why}; {what}"


def folded(findings: Iterable[Finding]) -> list[Finding]:
    """Those about one line that follow each other as one, such as of each prefix of a range: the first, and how many
    more there are."""
    told = []
    for _, alike in groupby(findings, lambda one: (one.file, one.line) if one.line else one):
        first, *others = alike
        more = f" (and {len(others)} more of what this line has)" if others else ""
        told.append(first._replace(why=first.why + more))
    return told


@dataclass(frozen=True)
class ListFile:
    """One list on disk and its settings. `state` is what the kernel has said of the file once it was open,
    `settings_state` the same of its NAME.toml; None where there is none. `pages` are the files of its block page,
    each with its language, "" for the one that its settings name."""

    name: str
    path: Path
    reader: formats.Reader
    settings: ListSettings
    state: os.stat_result | None = None
    settings_state: os.stat_result | None = None
    pages: tuple[tuple[str, Path], ...] = ()

    def expired(self, now: float) -> bool:
        return self.settings.expires is not None and self.settings.expires.timestamp() <= now


def is_unfinished(file_name: str) -> bool:
    """Whether this is a file that somebody is still writing, or an editor's own."""
    return file_name.startswith(".") or file_name.endswith(UNFINISHED)


# Opening -----------------------------------------------------------------------------------------------------

O_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
SYS_OPENAT2 = 437                               # the same number on every machine
OPEN_HOW = struct.Struct("QQQ")                 # flags, mode, resolve
RESOLVE_NO_MAGICLINKS, RESOLVE_BENEATH = 0x02, 0x08
TRIES = 16                                      # of a name that is exchanged while the kernel looks it up
LIBC = ctypes.CDLL(None, use_errno=True)


def open_beneath(folder: int, name: str) -> int:
    """A descriptor of `name` in the open directory, for reading. No part of the way leaves that directory, whatever
    is exchanged meanwhile, so nothing else is opened, or waited for, even for a moment.

    Raises:
        OSError: with EXDEV where a link leads out.
    """
    how = OPEN_HOW.pack(O_FLAGS, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    code = 0
    for _ in range(TRIES):
        handle = LIBC.syscall(ctypes.c_long(SYS_OPENAT2), ctypes.c_int(folder), ctypes.c_char_p(os.fsencode(name)),
                              ctypes.c_char_p(how), ctypes.c_size_t(len(how)))
        if handle >= 0:
            return int(handle)
        code = ctypes.get_errno()
        if code != errno.EAGAIN:
            break
    if code in (errno.ENOSYS, errno.EPERM):     # a kernel or a sandbox without it: then no link at all
        return os.open(name, O_FLAGS | os.O_NOFOLLOW, dir_fd=folder)
    raise OSError(code, os.strerror(code), name)


def open_regular(path: Path, alone: bool = False) -> BinaryIO:
    """A regular file for reading, looked up in its directory; never waits on a pipe.

    Args:
        alone: it has this name alone. What is in it is for others than its list is, so nobody has it read by a link
            to a file that only the daemon may read.

    Raises:
        ListError: there is none, it is something else, may not be read, or is a link that leads out of the directory.
    """
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ListError(f"{path.name}: cannot be read: {error.strerror}") from None
    try:
        handle = os.open(path.name, O_FLAGS | os.O_NOFOLLOW, dir_fd=folder) if alone else open_inside(folder, path)
    except OSError as error:
        if error.errno == errno.ELOOP and alone:
            raise ListError(f"{path.name}: is a link; copy the file here instead") from None
        if error.errno == errno.EXDEV:
            # Else whoever may write here could have files read and quoted that only the daemon may read.
            raise ListError(f"{path.name}: is a link that leads out of {path.parent}; copy the file here instead"
                            ) from None
        if error.errno == errno.ENXIO:
            raise ListError(f"{path.name}: is a special file, not a file") from None
        if error.errno == errno.EACCES:
            raise ListError(f"{path.name}: cannot be read: {error.strerror}; make it readable to edgeblock's group, "
                            f"such as with chmod g+r {path.name}") from None
        raise ListError(f"{path.name}: cannot be read: {error.strerror}") from None
    finally:
        os.close(folder)
    state = os.fstat(handle)
    kind = kind_of(state)
    if kind != "file" or alone and state.st_nlink > 1:
        os.close(handle)
        raise ListError(f"{path.name}: is a {kind}, not a file" if kind != "file" else
                        f"{path.name}: has another name, too, by a hard link; copy the file here instead")
    return os.fdopen(handle, "rb")


def open_inside(folder: int, path: Path) -> int:
    """As `open_beneath`; absolute links into their own directory lead where they say, too."""
    name = path.name
    for _ in range(TRIES):
        try:
            return open_beneath(folder, name)
        except OSError as error:
            if error.errno != errno.EXDEV or "/" in name:
                raise
            target = os.readlink(name, dir_fd=folder)
            homes = {f"{path.parent.absolute()}/", f"{path.parent.resolve()}/"}
            inside = [target[len(home):].lstrip("/") for home in homes if target.startswith(home)]
            if not inside:
                raise
            name = inside[0]
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path.name)


def kind_of(state: os.stat_result) -> str:
    mode = state.st_mode
    return ("file" if stat.S_ISREG(mode) else "directory" if stat.S_ISDIR(mode)
            else "pipe" if stat.S_ISFIFO(mode) else "special file")


def kind_at(path: Path) -> str:
    """The same of a path; what cannot be looked at is a file that will not open."""
    with suppress(OSError):
        state = os.lstat(path)
        return "link" if stat.S_ISLNK(state.st_mode) else kind_of(state)
    return "file"


class TooSlow(Exception):
    """The time is up. No ListError, so that nothing between who reads and who counts takes it for a bad line."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """The block has so many seconds of processor time; TooSlow where it takes more.

    Again and again, for the first may come where Python cannot raise. Only in the main thread, as signals are.
    """
    def stop(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def fault_of(error: BaseException) -> str:
    """What is said where a reader failed by a fault of ours; what the error says may be a word of a list."""
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    place = f"{Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}" if at is not None else "an unknown place"
    return f"cannot be read by a fault of edgeblock ({type(error).__name__} at {place}); please report it"


def read_settings(path: Path, defaults: ListSettings) -> ListSettings:
    """The settings in a NAME.toml.

    Raises:
        ListError: the file cannot be read, or says what settings cannot.
    """
    return open_settings(path, defaults)[0]


def open_settings(path: Path, defaults: ListSettings) -> tuple[ListSettings, os.stat_result]:
    """The same, and what the kernel says of the file."""
    with open_regular(path) as file:
        state = os.fstat(file.fileno())
        text = file.read(SETTINGS_MAX + 1)
    if len(text) > SETTINGS_MAX:
        raise ListError(f"{path.name}: is longer than {SETTINGS_MAX} bytes; is it really the settings of a list?")
    return parse_settings(text, path.name, defaults, tuple(formats.READERS)), state


NOWHERE = ('action = "redirect" needs a URL, and there is none: set redirect under [reply] of the main configuration '
           'or here, or another action here; until then this list answers with the page')


def begins_with(path: Path, mark: bytes) -> bool:
    """Whether a file begins so. Raises ListError or OSError where it cannot be read."""
    with open_regular(path) as file:
        return file.read(len(mark)) == mark


# What is there -----------------------------------------------------------------------------------------------

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


def find_lists(directory: Path, defaults: ListSettings, *, lenient: bool = False,
               known: Container[str] = (), redirects: bool = True) -> tuple[list[ListFile], list[Finding],
                                                                            list[Finding]]:
    """The lists of a directory by name, what cannot be used, and what looks like a mistake.

    The stem of a Finding's file is the name of the list that it is about.

    Args:
        lenient: settings that only the operator may change are a warning.
        known: names of lists in force, which have their room where a directory has too many.
        redirects: the main configuration has a URL for the action "redirect".

    Raises:
        ListError: the directory does not exist or may not be read.
    """
    files = [(name, *formats.stem_and_suffix(name)) for name in names_in(directory)]
    stated = {stem: file for file, stem, suffix in files if suffix == ".toml"}
    candidates: dict[str, list[str]] = {}
    errors = Errors(known)
    warnings: list[Finding] = []
    pages: list[str] = []
    for file, _, suffix in sorted(files, key=lambda one: one[2] == PAGE):
        if suffix in BESIDE or file.endswith(formats.OUTCOME):
            continue
        name = formats.list_name(file)
        if suffix == PAGE and (name not in stated or name in candidates):
            pages.append(file)      # or a list by itself, where settings of this name say its format
            continue
        if suffix in formats.PACKED:
            errors.add(Finding(ascii(file)[1:-1], 0, "is packed in a way that is not read; pack it with gzip or "
                               "zstd, or unpack it and drop what is inside"))
        elif formats.find_format(file) is None and name not in stated:
            warnings.append(Finding(file, 0, why_not_read(directory / file, name, defaults, len(warnings))))
        elif not name.isprintable():
            errors.add(Finding(ascii(file), 0, "has a character in its name that cannot be printed"))
        elif len(os.fsencode(name)) > NAME_MAX:
            errors.add(Finding(file, 0, f"has a name of more than {NAME_MAX} bytes; rename it"))
        elif name.endswith(CLIENTS):    # what is said of the two would be said under one name
            errors.add(Finding(file, 0, f"has a list name that ends in {CLIENTS}, as files of clients do; rename it"))
        else:
            candidates.setdefault(name, []).append(file)
    finder = Finder(defaults, lenient, variants(pages))
    lists: list[ListFile] = []
    for name in sorted(candidates, key=lambda name: name not in known):     # those in force have their room first
        file, *others = candidates[name]
        if others:
            for other in others:
                errors.add(Finding(other, 0, f"has the same list name as {file}; rename one"))
            continue
        try:
            beside = directory / stated[name] if name in stated else None
            lists.append(finder.find(name, directory / file, beside, name in known))
        except ListError as error:
            for line in error.args:
                at, _, why = str(line).partition(": ")
                errors.add(Finding(at, 0, why))
        except Exception as error:      # one list's fault is one list's, whatever it is
            errors.add(Finding(file, 0, fault_of(error)))
    lists.sort(key=lambda source: source.name)
    warnings += finder.warnings
    if not redirects:
        warnings += [Finding(stated.get(one.name, one.path.name), 0, NOWHERE) for one in lists
                     if one.settings.action == "redirect" and not one.settings.redirect]
    unread = any(one.file.endswith(".toml") for one in errors.told)     # which may name any of the pages
    for file in pages:
        if file not in finder.pages and not unread:
            warnings.append(Finding(file, 0, why_not_read(directory / file, formats.list_name(file), defaults,
                                                          len(warnings))))
    warnings += [Finding(file, 0, why_alone(stem, candidates)) for stem, file in stated.items()
                 if stem not in candidates]
    if not errors.told:         # else the list that names it may be among them
        named = {one.settings.clients_file for one in lists}
        warnings += [Finding(file, 0, f"is not read: no list names it; clients = \"{file}\" in NAME.toml does")
                     for file, _, suffix in files if suffix == CLIENTS and file not in named]
    if (more := len(warnings) - WARNINGS_MAX) > 0:
        warnings[WARNINGS_MAX:] = [Finding(str(directory), 0, f"has {more} more files that are not read")]
    if errors.more:
        warnings.append(Finding(str(directory), 0, f"has {errors.more} more files that are refused"))
    return lists, errors.told, warnings


class Errors:
    """What cannot be used. Of what is no list in force only so much is told, and the rest counted: whoever fills a
    directory takes nobody else's memory."""

    def __init__(self, known: Container[str]) -> None:
        self.known = known
        self.told: list[Finding] = []
        self.more = 0

    def add(self, finding: Finding) -> None:
        if len(self.told) < ERRORS_MAX or formats.list_name(finding.file) in self.known:
            self.told.append(finding)
        else:
            self.more += 1


def why_alone(stem: str, candidates: Container[str]) -> str:
    """What is said of settings that no list has, `stem`.toml."""
    name = formats.list_name(stem)
    if name in candidates:
        return f"is not read, and what it says does not hold: the settings of {stem} are in {name}.toml; rename it"
    return f"has no list beside it, such as {stem if name != stem else f'{stem}.list'}"


def why_not_read(path: Path, name: str, defaults: ListSettings, before: int) -> str:
    """What is said of a file whose name says no format: what its content is, for the first WARNINGS_MAX of them."""
    if before < WARNINGS_MAX:
        if (kind := kind_at(path)) not in ("file", "link"):
            return f"is not read: is a {kind}, not a file; lists are files of {path.parent} itself"
        if what := what_is_in(path, name, defaults):
            return f"is not read: {what}"
    return (f"is not read: {path.suffix or 'no extension'} is not one of {', '.join(formats.EXTENSIONS)}, and no "
            f"{name}.toml states a format")


def what_is_in(path: Path, name: str, settings: ListSettings) -> str | None:
    """What a file is by its content, as the end of a sentence that says how it would be read; None if unknown."""
    try:
        with open_regular(path) as file:
            what = formats.sniffed(file, settings)
    except (ListError, OSError):
        return None
    return what and what.replace("NAME.toml", f"{name}.toml")


class Finder:
    """Opens one candidate after the other, and keeps count of what each owner has."""

    def __init__(self, defaults: ListSettings, lenient: bool, variants: dict[str, list[tuple[str, str]]]) -> None:
        self.defaults, self.lenient, self.variants = defaults, lenient, variants
        self.pages: set[str] = set()                    # names of the files that are pages of lists
        self.warnings: list[Finding] = []
        self.count = 0
        self.lists: Counter[int] = Counter()            # by the user id of the list
        self.settings: Counter[int] = Counter()         # bytes, by that of the settings
        self.seconds: defaultdict[int, float] = defaultdict(float)

    def find(self, name: str, path: Path, beside: Path | None, known: bool) -> ListFile:
        """Raises ListError, and whatever else reading may raise."""
        if self.count >= LISTS_MAX and not known:
            raise ListError(f"{path.name}: is one list too many; a directory may have {LISTS_MAX}")
        if not known:
            with suppress(OSError):     # before it is opened, which takes ten times as long
                self._has_room(path, os.lstat(path).st_uid)
        with open_regular(path) as file:
            state = os.fstat(file.fileno())
        owner = state.st_uid
        if not known:
            self._has_room(path, owner)
        self.count += 1
        self.lists[owner] += 1
        locked = locked_for(name, self.defaults)
        defaults = replace(self.defaults, locked=locked, unlocked=())
        settings, settings_state = defaults, None
        if beside is not None:
            settings, settings_state = self._read(beside, defaults, known)
            if why := why_locked(name, settings, defaults):
                if not self.lenient:
                    raise ListError(f"{beside.name}: {why}")
                self.warnings.append(Finding(beside.name, 0, and_so(why, REFUSED)))
        pages = self._pages(path, beside, settings.page)
        chosen = settings.format or formats.find_format(path.name)
        if chosen is None:
            raise ListError(f"{path.name}: has no known extension; "
                            f"{what_is_in(path, name, settings) or f'state its format in {name}.toml'}")
        return ListFile(name, path, formats.reader_of(chosen, settings), formats.settled(chosen, settings), state,
                        settings_state, pages)

    def _pages(self, path: Path, beside: Path | None, page: str) -> tuple[tuple[str, Path], ...]:
        if not page:
            return ()
        others = sorted(self.variants.get(page, ()))
        self.pages |= {page, *(file for _, file in others)}
        if not os.path.lexists(path.with_name(page)):
            raise ListError(f"{beside.name if beside else path.name}: page = \"{page}\": there is no such file here; "
                            "drop that first")
        if len(others) >= LANGUAGES_MAX:
            raise ListError(f"{page}: is there in more than {LANGUAGES_MAX} languages")
        return (("", path.with_name(page)), *((language, path.with_name(file)) for language, file in others))

    def _has_room(self, path: Path, owner: int) -> None:
        if self.lists[owner] >= OWNER_LISTS_MAX:
            raise ListError(f"{path.name}: is one list too many of its owner, who may have {OWNER_LISTS_MAX}")

    def _read(self, path: Path, defaults: ListSettings, known: bool) -> tuple[ListSettings, os.stat_result]:
        """Settings, on account of their owner: what he has at most is read again in every round."""
        owner = os.lstat(path).st_uid
        if self.seconds[owner] > SETTINGS_ALL_SECONDS:
            raise ListError(f"{path.name}: all settings of its owner together take more than "
                            f"{SETTINGS_ALL_SECONDS:g} s of processor time to read")
        began = time.process_time()
        try:
            with limited(SETTINGS_SECONDS):
                settings, state = open_settings(path, defaults)
        except TooSlow:
            raise ListError(f"{path.name}: takes more than {SETTINGS_SECONDS:g} s of processor time to read"
                            ) from None
        finally:
            self.seconds[owner] += time.process_time() - began
        self.settings[owner] += state.st_size
        if self.settings[owner] > SETTINGS_ALL_MAX and not known:
            raise ListError(f"{path.name}: all settings of its owner together are longer than {SETTINGS_ALL_MAX} "
                            "bytes")
        return settings, state


def settings_path(path: Path) -> Path:
    """Where the settings of a list file stand."""
    return path.with_name(formats.list_name(path.name) + ".toml")


def single_list(path: Path, defaults: ListSettings, stated: str | None = None) -> ListFile:
    """A list by itself, with the settings beside it; `stated` is its format, where somebody says it.

    Raises:
        ListError: nothing says its format, or its settings cannot be read.
    """
    beside = settings_path(path)
    settings = read_settings(beside, defaults) if beside.exists() else defaults
    chosen = stated or settings.format or formats.find_format(path.name)
    if chosen not in formats.READERS:
        why = f"there is no format {chosen!r}" if chosen else f"{path.suffix or 'no extension'} says no format"
        raise ListError(f"{path}: {why}; give --format with one of {', '.join(formats.READERS)}")
    return ListFile(formats.list_name(path.name), path, formats.reader_of(chosen, settings),
                    formats.settled(chosen, settings))


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
        elif not isinstance(item, formats.Passed | formats.Remark | formats.Asked):
            yield item


def finding_of(source: ListFile, error: ListError) -> Finding:
    """What is wrong with a list as a whole; the error may name the file and the line, or neither."""
    name, text = source.path.name, str(error)
    if not text.startswith(f"{name}:"):
        return Finding(name, 0, text)
    found = re.match(r":(?:(\d+):)? ", text[len(name):])
    return Finding(name, int(found[1] or 0), text[len(name) + found.end():]) if found else Finding(name, 0, text)
