"""The state directory: the key, the last good version of every list, and the snapshot that is in force.

    key                 16 bytes, readable by their owner only
    lists/NAME.part     a snapshot of one list
    rules.snapshot      all of them as one
    refused.json        what was refused, so that it is not read again before it changes; places, no words of a list
    signed/NAME         when the newest version was signed that was ever taken; no older one is, even after a removal
    taking, taking.slow what is being read, in case that is the end of who reads it
    rejected/           reasons that could not be written beside their lists

In: compiled parts. Out: the same after a restart, whole or not at all: every file is written under another name,
synced and renamed, and what a killed process has left is removed by the next. Never here: the text of an entry.
"""

import errno
import io
import json
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from edgeblock.blocklist.compiler import Compiled, ListRecord
from edgeblock.blocklist.keys import KEY_SIZE, Key, hold, random_key
from edgeblock.blocklist.snapshot import MAGIC, Snapshot, open_snapshot, pack, write
from edgeblock.errors import ListError

REFUSED = {"file", "told", "origin", "where", "in_force", "uid", "owner"}      # what is kept of each refusal


def read_key(path: Path | str, create: bool = False, file: int = -1) -> memoryview:
    """The 16 bytes of a key file, held as `keys.hold` does, and in `file` as well where there is one; with `create`,
    a new random key of mode 0600 where there is none.

    Raises:
        ListError: the file cannot be read, written or is no key.
    """
    path = Path(path)
    try:
        if create and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            made = random_key()
            write_file(path, lambda target: os.write(target.fileno(), made), keep=True)     # not by way of a buffer
            del made
        source = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            mode = os.fstat(source).st_mode
            key = hold(lambda room: os.readv(source, [room[:KEY_SIZE + 1]]), file)
        finally:
            os.close(source)
    except OSError as error:
        raise ListError(f"{path}: the key cannot be used: {error.strerror}") from None
    except ValueError:
        raise ListError(f"{path}: is no key of {KEY_SIZE} bytes; name another file, or remove it and a new one is "
                        "made") from None
    if mode & 0o077:
        raise ListError(f"{path}: the key may be read by others (mode {mode & 0o777:04o}); chmod 600 {path}")
    return key


def write_file(path: Path, fill: Callable[[BinaryIO], Any], *, mode: int = 0o600, keep: bool = False,
               sync: bool = True, suffix: str = ".tmp") -> None:
    """A file by its final name only when it is whole and, with `sync`, on the disk; with `keep`, not in place of
    another.

    Raises:
        OSError: it cannot be written; nothing of it is left.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}{suffix}")
    try:
        handle = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with open(handle, "w+b") as file:
            os.fchmod(file.fileno(), mode)
            fill(file)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        if keep:
            try:
                os.link(new, path)
            except FileExistsError:
                return              # another was quicker, and its file counts
        else:
            os.rename(new, path)
        if sync:
            sync_directory(path.parent)
    finally:
        new.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Store:
    """The state directory beside the key file. One process at a time writes to it, and one more, `slow`, that only
    keeps a list."""

    def __init__(self, directory: Path, key: Key, slow: bool = False) -> None:
        self.directory, self.key = directory, key
        self._suffix = ".slow" if slow else ".tmp"
        self._taking = directory / ("taking.slow" if slow else "taking")
        self.lists = directory / "lists"
        self.rejected = directory / "rejected"
        self.stamps = directory / "signed"
        self.snapshot = directory / "rules.snapshot"

    def prepare(self) -> None:
        """Makes what is missing, and removes what a process that was killed has left half-written.

        Raises:
            ListError: the directory cannot be written.
        """
        try:
            for folder in (self.directory, self.lists, self.rejected, self.stamps):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            ours = ("rules.snapshot", "refused.json", "key")
            for left in (*self.lists.glob(f".*{self._suffix}"), *self.rejected.glob(f".*{self._suffix}"),
                         *self.stamps.glob(f".*{self._suffix}"),
                         *(left for name in ours for left in self.directory.glob(f".{name}.*{self._suffix}"))):
                left.unlink(missing_ok=True)
        except OSError as error:
            raise ListError(f"{error.filename}: cannot be written: {error.strerror}") from None

    def parts(self) -> tuple[dict[str, Snapshot], list[str]]:
        """The last good version of each list, verified, and what is wrong with the others."""
        found, problems = {}, []
        for path in sorted(self.lists.glob("*.part")):
            try:
                part = open_file(path, self.key)
                if len(part.parts.lists) != 1 or part.parts.lists[0].name != path.stem:
                    raise ListError(f"{path}: is not the list {path.stem}; remove it")
                found[path.stem] = part
            except ListError as error:
                problems.append(str(error))
        return found, problems

    def keep(self, compiled: Compiled, now: float) -> Snapshot:
        """The new last good version of a list, on disk. OSError where it cannot be written."""
        record = compiled.lists[0]
        path = self.lists / f"{record.name}.part"
        self.remember(record.name, record.signed)
        write_file(path, lambda file: write(file, compiled, self.key, int(now)), suffix=self._suffix)
        return open_file(path, self.key)

    def signed(self, name: str) -> int | None:
        """When the newest version of a list was signed that was ever taken; None where none was.

        Raises:
            OSError: it cannot be told, although it was written once.
        """
        path = self.stamps / name
        try:
            return int(path.read_bytes()[:20])
        except FileNotFoundError:
            return None
        except ValueError:
            raise OSError(errno.EIO, f"{path} is damaged; remove it to take older versions again") from None

    def remember(self, name: str, signed: int | None) -> None:
        """When a version was signed that is taken, or goes. OSError where that cannot be kept."""
        known = self.signed(name)
        if signed is not None and (known is None or signed > known):
            write_file(self.stamps / name, lambda file: file.write(str(signed).encode()), suffix=self._suffix)

    def taking(self) -> tuple[str, str, int]:
        """What `begin` was told last: name, origin, and how often that has been the end of the process."""
        try:
            name, origin, deaths = json.loads(self._taking.read_bytes())
            return str(name), str(origin), int(deaths)
        except (OSError, ValueError, TypeError):
            return "", "", 0

    def begin(self, name: str, origin: str, deaths: int = 0) -> None:
        """A list is about to be read. Where that cannot be noted nothing is lost but the note."""
        with suppress(OSError):
            self._taking.write_text(json.dumps([name, origin, deaths]))

    def forget(self, name: str) -> None:
        (self.lists / f"{name}.part").unlink(missing_ok=True)

    def published(self) -> list[ListRecord] | None:
        """The table of the snapshot that was published last; None where there is none that can be used."""
        try:
            return open_file(self.snapshot, self.key).parts.lists
        except ListError:
            return None

    def publish(self, merged: Compiled, now: float) -> None:
        """A new snapshot in force. OSError where it cannot be written."""
        write_file(self.snapshot, lambda file: write(file, merged, self.key, int(now)))

    def digest(self) -> str:
        """Of the snapshot that was published last."""
        return open_file(self.snapshot, self.key, verified=True).digest

    def open(self) -> BinaryIO:
        """The same as a file."""
        return open(self.snapshot, "rb")

    def refused(self) -> dict[str, dict[str, Any]]:
        """What `keep_refused` was given last; without what another version or hand has written in another way."""
        try:
            read = json.loads((self.directory / "refused.json").read_bytes())
            return {name: one for name, one in read.items() if one.keys() >= REFUSED}
        except (OSError, ValueError, AttributeError):
            return {}

    def keep_refused(self, refused: dict[str, dict[str, Any]]) -> None:
        if refused != self.refused():
            write_file(self.directory / "refused.json", lambda file: file.write(json.dumps(refused).encode()))


class MemoryStore(Store):
    """Where nothing can be kept: the last versions of lists live as long as this, and nothing is written."""

    def __init__(self, directory: Path, key: Key) -> None:
        super().__init__(directory, key)
        self._packed = b""

    def prepare(self) -> None:
        return

    def parts(self) -> tuple[dict[str, Snapshot], list[str]]:
        return {}, []

    def keep(self, compiled: Compiled, now: float) -> Snapshot:
        return open_snapshot(pack(compiled, self.key, int(now)), self.key)

    def signed(self, name: str) -> int | None:
        try:
            return super().signed(name)
        except OSError:
            return None

    def remember(self, name: str, signed: int | None) -> None:
        return

    def forget(self, name: str) -> None:
        return

    def begin(self, name: str, origin: str, deaths: int = 0) -> None:
        return

    def published(self) -> list[ListRecord] | None:
        return None

    def publish(self, merged: Compiled, now: float) -> None:
        self._packed = pack(merged, self.key, int(now))

    def digest(self) -> str:
        return open_snapshot(self._packed, self.key).digest

    def open(self) -> BinaryIO:
        return io.BytesIO(self._packed)

    def keep_refused(self, refused: dict[str, dict[str, Any]]) -> None:
        return


def is_snapshot(path: Path) -> bool:
    """Whether there is a file that begins as snapshots do."""
    if not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def open_file(path: Path, key: Key, verified: bool = False) -> Snapshot:
    """A snapshot file, mapped, and verified whole unless it was `verified` before.

    Raises:
        ListError: it cannot be read, or is none of this version and key.
    """
    try:
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ListError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise ListError(f"{path}: is empty; build it again") from None
    return open_snapshot(memoryview(mapped), key, str(path), verified=verified)
