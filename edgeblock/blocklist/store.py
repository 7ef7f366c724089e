"""The state directory: the key, the last good version of every list, and the snapshot that is in force.

    key                 16 bytes, readable by their owner only
    lists/NAME.part     a snapshot of one list
    clients/FILE        the last good version of every clients file: ranges of addresses, in the clear
    rules.snapshot      all of them as one; it has those ranges, too
    rules.overlay       what has changed since that was made, where that is little: it lies over it
    refused.json        what was refused, so that it is not read again before it changes; places, no words of a list
    signed/NAME         when the newest version was signed that was ever taken; no older one is, even after a removal
    proofs/ROOT         the commitments to the entries of a list, by what they come to; no text of an entry. They give
                        way to all else where the disk is full
    orders/NAME.json    what is known of each item of an order in force; ids and rule ids, no text of an entry
    taking, taking.slow what is being read, in case that is the end of who reads it
    rejected/           reasons that could not be written beside their lists

In: compiled parts. Out: the same after a restart, whole or not at all: every file is written under another name,
synced and renamed, and what a killed process has left is removed by the next. All of it is readable by its owner
alone. Never here: the text of an entry.
"""

import ctypes
import errno
import io
import json
import mmap
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from edgeblock.blocklist.clients import Kept, from_bytes, to_bytes
from edgeblock.blocklist.keys import KEY_SIZE, Key, hold, random_key
from edgeblock.blocklist.parts import Compiled, ListRecord
from edgeblock.blocklist.snapshot import (
    ALL,
    HEAD,
    MAGIC,
    TABLE,
    Snapshot,
    check_whole,
    open_snapshot,
    pack,
    stack,
    write,
)
from edgeblock.errors import EdgeblockError, ListError

OVERLAY = "rules.overlay"
ORDERS = "orders"
PROOFS = "proofs"
FULL = (errno.ENOSPC, errno.EDQUOT)
NOTE_SIZE = 2048            # bytes of a note: the longest name, every character of it escaped, and the rest
LIBC = ctypes.CDLL(None, use_errno=True)
REFUSED = {"file", "told", "origin", "where", "in_force", "sha256", "order", "uid", "owner"}  # kept of each refusal


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


def readable_key(path: Path | str) -> memoryview | None:
    """The key of the box; None where there is none or it may not be read."""
    try:
        return read_key(path)
    except EdgeblockError:
        return None


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


def sync_all(path: Path) -> None:
    """Everything that was written to a directory's file system is on the disk: one wait for thousands of files."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if LIBC.syncfs(handle) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
    finally:
        os.close(handle)


def nameless(folder: Path) -> BinaryIO:
    """A new file that has no name, for what somebody else has made and nobody has verified. OSError where there can
    be none."""
    path = folder / f".aside.{os.getpid()}.tmp"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    path.unlink(missing_ok=True)
    return open(handle, "w+b")


class Below:
    """The last good version of a list, on its way to be the snapshot that all others lie over: `digest` is its, ""
    where there is none, and `path` a second name of its file, so that nothing is copied; it goes at the end of a
    `with`."""

    def __init__(self, lists: Path, path: Path, key: Key) -> None:
        self.digest, self.path, self.usable = "", path, True
        self._lists, self._key = lists, key

    def put(self, part: Snapshot) -> bool:
        """Has it ready for the next `publish`. False where that cannot be, or its file is another by now."""
        self.digest = ""
        if not self.usable:
            return False
        try:
            self.path.unlink(missing_ok=True)
            os.link(self._lists / f"{part.parts.lists[0].name}.part", self.path)
            if open_file(self.path, self._key, HEAD).digest == part.digest:
                self.digest = part.digest
            else:
                self.path.unlink()
        except (OSError, ListError):
            return False
        return bool(self.digest)

    def __enter__(self) -> "Below":
        return self

    def __exit__(self, *_: object) -> None:
        if self.digest:
            self.digest = ""
            self.path.unlink(missing_ok=True)


class Store:
    """The state directory beside the key file. One process at a time writes to it, and one more, `slow`, that only
    keeps a list. `commits`: each list that is taken is to be committed to."""

    def __init__(self, directory: Path, key: Key, slow: bool = False, commits: bool = False) -> None:
        self.commits = commits
        self.proofs = directory / PROOFS
        self.directory, self.key = directory, key
        self._suffix = ".slow" if slow else ".tmp"
        self._reads = TABLE if slow else ALL        # the next round verifies what it did not keep itself
        self._taking = directory / ("taking.slow" if slow else "taking")
        self._note = -1
        self._unsettled: list[tuple[Path, Path]] = []
        self.lists = directory / "lists"
        self.rejected = directory / "rejected"
        self.stamps = directory / "signed"
        self.clients = directory / "clients"
        self.orders = directory / ORDERS
        self.snapshot = directory / "rules.snapshot"
        self.overlay = directory / OVERLAY
        self.below = Below(self.lists, directory / f".rules.snapshot.{os.getpid()}.part{self._suffix}", key)

    def prepare(self) -> None:
        """Makes what is missing, and removes what a process that was killed has left half-written.

        Raises:
            ListError: the directory cannot be written.
        """
        try:
            for folder in (self.directory, self.lists, self.rejected, self.stamps, self.clients, self.orders,
                           self.proofs):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            ours = ("rules.snapshot", OVERLAY, "rules.since", "refused.json", "key")
            for left in (*self.lists.glob(f".*{self._suffix}"), *self.rejected.glob(f".*{self._suffix}"),
                         *self.stamps.glob(f".*{self._suffix}"), *self.clients.glob(f".*{self._suffix}"),
                         *self.orders.glob(f".*.json.*{self._suffix}"), *self.proofs.glob(f".*{self._suffix}"),
                         *(left for name in ours for left in self.directory.glob(f".{name}.*{self._suffix}"))):
                left.unlink(missing_ok=True)
        except OSError as error:
            raise ListError(f"{error.filename}: cannot be written: {error.strerror}") from None

    def parts(self, held: Collection[str] = ()) -> tuple[dict[str, Snapshot], list[str]]:
        """The last good version of each list, verified, and what is wrong with the others.

        Args:
            held: digests of those whose rows somebody has in memory: they are verified when they are read again.
        """
        found, problems = {}, []
        for path in sorted(self.lists.glob("*.part")):
            try:
                part = open_file(path, self.key, TABLE)
                if part.digest not in held:
                    check_whole(part, str(path))
                if len(part.parts.lists) != 1 or part.parts.lists[0].name != path.stem:
                    raise ListError(f"{path}: is not the list {path.stem}; remove it")
                found[path.stem] = part
            except ListError as error:
                problems.append(str(error))
        return found, problems

    def keep(self, compiled: Compiled, now: float, together: bool = False) -> Snapshot:
        """The new last good version of a list, on disk; with `together`, when `settle` is called. OSError where it
        cannot be written."""
        record = compiled.lists[0]
        path = self.lists / f"{record.name}.part"
        self.remember(record.name, record.signed)
        record.part = ""        # that of its file is what its digest will be
        where = path.with_name(f".{path.name}.{os.getpid()}{self._suffix}") if together else path
        self._write(where, lambda file: write(file, compiled, self.key, int(now)), sync=not together)
        if together:
            self._unsettled.append((where, path))
        self._keep_proof(record, compiled.commitments)
        return open_file(where, self.key, self._reads)

    def _write(self, path: Path, fill: Callable[[BinaryIO], Any], sync: bool = True) -> None:
        """As `write_file`; where the disk is full commitments give way: those to versions before, and then all.
        `fill` is called again then."""
        for every in (False, True):
            try:
                write_file(path, fill, sync=sync, suffix=self._suffix)
                return
            except OSError as error:
                if error.errno not in FULL:
                    raise
            self.drop_proofs(0, every)
        write_file(path, fill, sync=sync, suffix=self._suffix)

    def _keep_proof(self, record: ListRecord, commitments: bytes | memoryview) -> None:
        """What a proof of one of the entries is made of. A list is in force without, so nothing is refused for it."""
        if not record.root or not len(commitments):
            return
        with suppress(OSError):
            write_file(self.proofs / record.root, lambda file: file.write(commitments), sync=False,
                       suffix=self._suffix)

    def drop_proofs(self, most: int, every: bool = False) -> None:
        """No more than so many bytes of commitments to versions that are not the last good ones, or to any; the
        oldest go."""
        with suppress(OSError):
            kept = set() if every else roots_in(self.lists, self.key)
            old = sorted((state.st_mtime, state.st_size, path) for path in self.proofs.glob("[!.]*")
                         if path.name not in kept and (state := path.stat()))
            total = sum(size for _, size, _ in old)
            for _, size, path in old:
                if total <= most:
                    break
                path.unlink(missing_ok=True)
                total -= size

    def settle(self) -> None:
        """What was kept together is on the disk, all with one wait, and in place of what was there before.

        Raises:
            OSError: some of it is not, and nobody can say which.
        """
        waiting, self._unsettled = self._unsettled, []
        if not waiting:
            return
        try:
            sync_all(self.lists)
            for new, path in waiting:
                os.rename(new, path)
            sync_directory(self.lists)
        finally:
            for new, _ in waiting:
                new.unlink(missing_ok=True)

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
            self._write(self.stamps / name, lambda file: file.write(str(signed).encode()))

    def taking(self) -> tuple[str, str, int]:
        """What `begin` was told last: name, origin, and how often that has been the end of the process."""
        try:
            name, origin, deaths = json.loads(self._taking.read_bytes())
            return str(name), str(origin), int(deaths)
        except (OSError, ValueError, TypeError):
            return "", "", 0

    def begin(self, name: str, origin: str, deaths: int = 0) -> None:
        """A list is about to be read. Where that cannot be noted nothing is lost but the note."""
        # In place: some file systems wait for the disk when a file that was emptied is closed.
        with suppress(OSError):
            if self._note < 0:
                self._note = os.open(self._taking, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            os.pwrite(self._note, json.dumps([name, origin, deaths]).encode().ljust(NOTE_SIZE), 0)

    def forget(self, name: str) -> None:
        (self.lists / f"{name}.part").unlink(missing_ok=True)
        (self.orders / f"{name}.json").unlink(missing_ok=True)

    def has_answers(self, name: str) -> bool:
        """Whether there is what is known of the items of an order."""
        return (self.orders / f"{name}.json").exists()

    def answers(self, name: str) -> bytes:
        """What `keep_answers` was given last of an order; b"" where it was nothing."""
        try:
            return (self.orders / f"{name}.json").read_bytes()
        except OSError:
            return b""

    def keep_answers(self, name: str, answers: bytes) -> None:
        """What is known of the items of an order (answers.py), b"" for a list that is none. OSError where it cannot
        be written."""
        path = self.orders / f"{name}.json"
        if answers:
            self._write(path, lambda file: file.write(answers))
        else:
            path.unlink(missing_ok=True)

    def client_sets(self) -> tuple[dict[str, Kept], list[str]]:
        """The last good set of each clients file, verified, and what is wrong with the others."""
        found, problems = {}, []
        for path in sorted(self.clients.glob("[!.]*")):
            try:
                with open(path, "rb") as file:
                    one = from_bytes(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), self.key)
            except (OSError, ValueError):
                one = None
            if one is None:
                problems.append(f"{path}: is damaged; drop {path.name} again")
            else:
                found[path.name] = one
        return found, problems

    def keep_clients(self, file: str, one: Kept) -> None:
        """The new last good set of a clients file. OSError where it cannot be written."""
        self._write(self.clients / file, lambda target: target.write(to_bytes(one, self.key)))

    def forget_clients(self, file: str) -> None:
        (self.clients / file).unlink(missing_ok=True)

    def in_force(self, held: str = "") -> Snapshot | None:
        """What was published last; None where there is nothing that can be used.

        Args:
            held: the digest of a snapshot that somebody has in memory: its file is not verified beyond the table.
        """
        try:
            base = open_file(self.snapshot, self.key, TABLE)
            if base.digest != held:
                check_whole(base, str(self.snapshot))
        except ListError:
            return None
        try:
            return stack(open_file(self.overlay, self.key), base)
        except ListError:           # there is none, or it lies over one before
            return base

    def published(self) -> list[ListRecord] | None:
        """The table of what was published last; None where there is none that can be used."""
        top = self.in_force()
        return top.parts.lists if top else None

    def publish(self, merged: Compiled, now: float, look: Callable[[Snapshot], None] | None = None) -> None:
        """A new snapshot in force, or what lies over the one that is, or over the part that was put aside for that,
        unless `look` raises for it. OSError where it cannot be written; rows of a Merge are spent then."""
        place = self.overlay if merged.base else self.snapshot

        def fill(file: BinaryIO) -> None:
            write(file, merged, self.key, int(now))
            if look is not None:
                file.flush()
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                look(open_snapshot(memoryview(mapped), self.key, verify=HEAD))

        with self.below as below:
            write_file(place, fill)
            if not merged.base:
                with suppress(OSError):     # it lies over nothing any more
                    self.overlay.unlink(missing_ok=True)
            elif merged.base == below.digest:
                # In this order: between the two the snapshot before is there, without what lay over that.
                os.rename(below.path, self.snapshot)
                sync_directory(self.directory)

    def digests(self) -> tuple[str, str]:
        """Of what was published last, and of the snapshot that it lies over, "" where it lies over none."""
        base = open_file(self.snapshot, self.key, HEAD)
        try:
            return stack(open_file(self.overlay, self.key, HEAD), base).digest, base.digest
        except ListError:
            return base.digest, ""

    def open(self, overlay: bool = False) -> BinaryIO:
        """The same as a file: the snapshot, or what lies over it."""
        return open(self.overlay if overlay else self.snapshot, "rb")

    def refused(self) -> dict[str, dict[str, Any]]:
        """What `keep_refused` was given last; without what another version or hand has written in another way."""
        try:
            read = json.loads((self.directory / "refused.json").read_bytes())
            return {name: one for name, one in read.items() if one.keys() >= REFUSED}
        except (OSError, ValueError, AttributeError):
            return {}

    def keep_refused(self, refused: dict[str, dict[str, Any]]) -> None:
        if refused != self.refused():
            said = json.dumps(refused).encode()
            self._write(self.directory / "refused.json", lambda file: file.write(said))


class MemoryStore(Store):
    """Where nothing can be kept: the last versions of lists live as long as this, and nothing is written."""

    def __init__(self, directory: Path, key: Key, commits: bool = False) -> None:
        super().__init__(directory, key, commits=commits)
        self.below.usable = False
        self._packed = b""

    def prepare(self) -> None:
        return

    def parts(self, held: Collection[str] = ()) -> tuple[dict[str, Snapshot], list[str]]:
        return {}, []

    def keep(self, compiled: Compiled, now: float, together: bool = False) -> Snapshot:
        return open_snapshot(pack(compiled, self.key, int(now)), self.key)

    def answers(self, name: str) -> bytes:
        return b""

    def keep_answers(self, name: str, answers: bytes) -> None:
        return

    def signed(self, name: str) -> int | None:
        try:
            return super().signed(name)
        except OSError:
            return None

    def remember(self, name: str, signed: int | None) -> None:
        return

    def forget(self, name: str) -> None:
        return

    def client_sets(self) -> tuple[dict[str, Kept], list[str]]:
        return {}, []

    def keep_clients(self, file: str, one: Kept) -> None:
        return

    def forget_clients(self, file: str) -> None:
        return

    def begin(self, name: str, origin: str, deaths: int = 0) -> None:
        return

    def in_force(self, held: str = "") -> Snapshot | None:
        return None

    def publish(self, merged: Compiled, now: float, look: Callable[[Snapshot], None] | None = None) -> None:
        packed = pack(merged, self.key, int(now))
        if look is not None:
            look(open_snapshot(packed, self.key))
        self._packed = packed

    def digests(self) -> tuple[str, str]:
        return open_snapshot(self._packed, self.key).digest, ""

    def open(self, overlay: bool = False) -> BinaryIO:
        return io.BytesIO(self._packed)

    def keep_refused(self, refused: dict[str, dict[str, Any]]) -> None:
        return


def is_snapshot(path: Path) -> bool:
    """Whether there is a file that begins as snapshots do.

    Raises:
        ListError: it may not be read.
    """
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise ListError(f"{path}: cannot be read: {error.strerror}; run this as root, or as a user who may read it"
                        ) from None


def open_file(path: Path, key: Key, verify: str = ALL) -> Snapshot:
    """A snapshot file, mapped; `verify` as in `open_snapshot`.

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
    return open_snapshot(memoryview(mapped), key, str(path), verify=verify)


def roots_in(lists: Path, key: Key) -> set[str]:
    """What the last good versions are committed to, as far as they can be read; of each only its table is."""
    found = set()
    for path in lists.glob("*.part"):
        with suppress(ListError):
            found |= {record.root for record in open_file(path, key, TABLE).parts.lists}
    return found


def open_stacked(path: Path, key: Key) -> Snapshot:
    """A snapshot file, and what lies over it where that is beside it, as in a state directory."""
    base = open_file(path, key)
    over = path.with_name(OVERLAY)
    if path.name != "rules.snapshot" or not over.exists():
        return base
    try:
        return stack(open_file(over, key), base)
    except ListError:
        return base
