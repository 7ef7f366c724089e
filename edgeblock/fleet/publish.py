"""A repository of signed lists, as The Update Framework has them: made, updated, signed anew.

In: a directory that a web server or an object store serves, keys, the files of a release. Out: TUF metadata under
metadata/ and files under targets/ with consistent snapshots; what a client of python-tuf, or any other, accepts.
Everything is prepared in memory, and then written in one order: files, the metadata of those who list them, the
snapshot, and the timestamp last. What was killed in between has changed nothing that a client looks at. Never here:
whether lists are any good (release.py), an argument of a command, a prompt, a network.
"""

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from securesystemslib.signer import SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from edgeblock.blocklist.store import write_file
from edgeblock.errors import EdgeblockError
from edgeblock.fleet.releases import (
    AUTHORITY,
    HELD,
    HOLDS,
    OWN,
    RELEASES_MAX,
    TABLE,
    Content,
    Held,
    Release,
    Table,
    TableError,
    held_text,
    path_of,
    read_held,
    read_table,
    table_text,
)
from edgeblock.fleet.signing import Keys

METADATA, FILES = "metadata", "targets"
DAYS = {"root": 365, OWN: 180, "snapshot": 14, "timestamp": 3}     # that what is signed is good for
DAYS_FIELD = "x-edgeblock-days"     # of the root, where they are others
OFFLINE = ("root", OWN)             # whose keys belong into a safe
VERSIONS_KEPT = 20                  # of each role's metadata; a client of a mirror may be that far behind
FILES_KEPT = 86_400.0               # seconds that a file stays which nothing lists any more
METADATA_MAX = 16 << 20             # bytes of one file of metadata


class PublishError(EdgeblockError):
    """The repository cannot be used, or not so."""


class NotSigned(PublishError):
    """It is written and waits for signatures: nobody sees it yet."""


@dataclass(frozen=True)
class Write:
    """One file to be written, from bytes or from another file."""

    path: Path
    content: bytes | Path


def content_of(path: Path) -> Content:
    with open(path, "rb") as file:
        digest, size = sha256(), 0
        while part := file.read(1 << 20):
            digest.update(part)
            size += len(part)
    return Content(size, digest.hexdigest())


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """One at a time changes a repository. PublishError where another does."""
    try:
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as problem:
        raise PublishError(f"{place}: cannot be used: {problem.strerror}; make a repository there with `edgeblock "
                           f"publish init {place}`") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise PublishError(f"{place}: another `edgeblock publish` is at work here; try again when it is done"
                           ) from None
    finally:
        os.close(handle)


class Publisher:
    """A repository that is there. Changes are gathered with `change`, and written by `commit`."""

    def __init__(self, place: Path, keys: Keys, now: Callable[[], float] = time.time) -> None:
        """Raises PublishError where there is no repository."""
        self.place, self.keys, self.now = place, keys, now
        self.metadata, self.files = place / METADATA, place / FILES
        versions = [int(name.partition(".")[0]) for name in names(self.metadata) if re.fullmatch(
            r"\d+\.root\.json", name)]
        if not versions:
            raise PublishError(f"{place}: is no repository; make one with `edgeblock publish init {place}`")
        self.root: Metadata[Root] = self._read(f"{max(versions)}.root.json")
        self.timestamp: Metadata[Timestamp] = self._read("timestamp.json")
        version = self.timestamp.signed.snapshot_meta.version
        self.snapshot: Metadata[Snapshot] = self._read(f"{version}.snapshot.json")
        self.roles: dict[str, Metadata[Targets]] = {}
        for name, meta in self.snapshot.signed.meta.items():
            role = name.removesuffix(".json")
            self.roles[role] = self._read(f"{meta.version}.{name}")
        self._changed: dict[str, Metadata[Targets]] = {}
        self._writes: list[Write] = []

    # ---- what is there

    def _read(self, name: str) -> Metadata[Any]:
        path = self.metadata / name
        try:
            with open(path, "rb") as file:
                return Metadata.from_bytes(file.read(METADATA_MAX))
        except OSError as problem:
            raise PublishError(f"{path}: cannot be read: {problem.strerror}; the repository is not whole: take it "
                               "from a copy, such as the one that is served") from None
        except (DeserializationError, ValueError):
            raise PublishError(f"{path}: is no metadata; take it from a copy, such as the one that is served"
                               ) from None

    def role(self, name: str) -> Targets:
        """What a role has, with what has been changed. PublishError where there is none of that name."""
        known = self._changed.get(name) or self.roles.get(name)
        if known is not None:
            return known.signed
        if name not in self.authorities():
            raise PublishError(f"{name}: there is no such authority; known are {', '.join(self.authorities())}; "
                               f"`edgeblock publish delegate {self.place} {name}` makes one")
        return Targets(1, expires=self.expiry(name))        # its own key has signed nothing yet

    def authorities(self) -> list[str]:
        """Who has releases, the operator first."""
        return [OWN, *self.table(OWN).authorities]

    def table(self, authority: str) -> Table:
        """The releases of an authority."""
        target = self.role(authority).targets.get(path_of(authority, TABLE))
        return Table() if target is None else self._parsed(read_table, target)

    def held(self) -> Held:
        target = self.role(HOLDS).targets.get(HELD)
        return Held() if target is None else self._parsed(read_held, target)

    def _parsed(self, parse: Callable[[bytes], Any], target: TargetFile) -> Any:
        path = self.file_of(target.path, target.hashes["sha256"])
        for write in self._writes:
            if write.path == path and isinstance(write.content, bytes):
                return parse(write.content)
        try:
            text = path.read_bytes()
            target.verify_length_and_hashes(text)
            return parse(text)
        except (OSError, RepositoryError, TableError) as problem:
            raise PublishError(f"{path}: cannot be used: {problem}; take it from a copy, such as the one that is "
                               "served") from None

    def file_of(self, target: str, digest: str) -> Path:
        """Where a target lies: with consistent snapshots its digest stands before its name."""
        folder, slash, name = target.rpartition("/")
        return self.files / f"{folder}{slash}{digest}.{name}"

    def days(self, role: str) -> int:
        days = {**DAYS, **self.root.signed.unrecognized_fields.get(DAYS_FIELD, {})}
        return int(days.get(role) or days[OWN])

    def expiry(self, role: str) -> datetime:
        return datetime.fromtimestamp(self.now(), UTC).replace(microsecond=0) + timedelta(days=self.days(role))

    # ---- changes

    def change(self, role: str) -> Targets:
        """A role's next version, to be changed."""
        if role not in self._changed:
            before = self.role(role)
            signed = deepcopy(before)
            signed.version += role in self.roles
            signed.expires = self.expiry(role)
            self._changed[role] = Metadata(signed)
        return self._changed[role].signed

    def put(self, role: str, target: str, content: bytes | Path, known: Content | None = None) -> None:
        """Has a role list a file, and the file written."""
        if known is None:
            known = content_of(content) if isinstance(content, Path) else \
                Content(len(content), sha256(content).hexdigest())
        self.change(role).targets[target] = TargetFile(known.length, {"sha256": known.sha256}, target)
        path = self.file_of(target, known.sha256)
        if not path.exists():
            self._writes.append(Write(path, content))

    def put_table(self, authority: str, table: Table) -> None:
        self.put(authority, path_of(authority, TABLE), table_text(table))

    def release(self, authority: str, folder: Path, files: dict[str, Content],
                rings: dict[str, tuple[float, float]]) -> int:
        """A new release of an authority: the files of `folder`, which stay there until `commit`; its version."""
        table = self.table(authority)
        now = int(self.now())
        signed = self.change(authority)
        made = Release(signed.version, now, {name: (now + int(first), now + int(last))
                                             for name, (first, last) in rings.items()}, files)
        signed.targets = {}
        for name, content in files.items():
            self.put(authority, path_of(authority, name), folder / name, content)
        self.put_table(authority, replace(table, releases=(made, *table.releases)[:RELEASES_MAX]))
        return signed.version

    def withdraw(self, authority: str, versions: list[int], why: str) -> int:
        """Nobody is to have these any more; who has one goes back. The version that everybody comes to."""
        table = self.table(authority)
        for version in versions:
            if table.of(version) is None:
                known = ", ".join(str(one.version) for one in table.releases)
                raise PublishError(f"{version}: is no release of {authority} that is still there; known are {known}")
        table = replace(table, releases=tuple(
            replace(one, withdrawn=why or "withdrawn") if one.version in versions and not one.withdrawn else one
            for one in table.releases))
        now = self.now()
        if not any(max(span[1] for span in one.rings.values()) <= now for one in table.releases if not one.withdrawn):
            raise PublishError(f"{authority}: there would be no release left to go back to; publish the files that "
                               f"are to be in force (`edgeblock publish {self.place} --from RULES`), then withdraw")
        self.put_table(authority, table)
        newest = table.newest
        return newest.version if newest else 0

    def hold(self, authority: str, version: int, why: str, off: bool = False) -> None:
        """Who has not taken a release is not to; with `off`, may again."""
        if self.table(authority).of(version) is None:
            known = ", ".join(str(one.version) for one in self.table(authority).releases)
            raise PublishError(f"{version}: is no release of {authority} that is still there; known are {known}")
        why_held = {one: dict(versions) for one, versions in self.held().why.items()}
        versions = why_held.setdefault(authority, {})
        if off:
            versions.pop(version, None)
        else:
            versions[version] = why or "held"
        self.put(HOLDS, HELD, held_text(Held(why_held)))

    def delegate(self, authority: str, keys: list[SSlibKey], threshold: int) -> None:
        """An authority may publish what is in the directory of its name, and nothing else."""
        if not AUTHORITY.fullmatch(authority) or authority in (*DAYS, HOLDS):
            raise PublishError(f"{authority!r} is no name of an authority; write a-z, 0-9 and -, at most 40")
        if authority in self.authorities():
            raise PublishError(f"{authority}: is an authority already; `edgeblock publish rotate {self.place} "
                               f"{authority}` gives it another key")
        table = self.table(OWN)
        add_role(self.change(OWN), authority, keys, threshold)
        self.put_table(OWN, replace(table, authorities=(*table.authorities, authority)))
        if all(self.keys.has(key.keyid) for key in keys):
            self._changed[authority] = Metadata(Targets(1, expires=self.expiry(authority)))

    # ---- signing

    def keys_of(self, role: str) -> tuple[list[str], int]:
        """The ids of a role's keys, and how many have to sign."""
        if role in self.root.signed.roles:
            known: Any = self.root.signed.roles[role]
        else:
            delegations = self.role(OWN).delegations
            known = (delegations.roles or {}).get(role) if delegations else None
            if known is None:
                raise PublishError(f"{role}: nobody is delegated this; the repository is not whole")
        return known.keyids, known.threshold

    def sign(self, role: str, metadata: Metadata[Any], more: tuple[str, ...] = ()) -> bool:
        """Signs with the keys of a role that are here, and with `more`; whether these are enough."""
        keyids, threshold = self.keys_of(role)
        for signer in self.keys.signers([*keyids, *more]):
            metadata.sign(signer, append=True)
        return sum(keyid in metadata.signatures for keyid in keyids) >= threshold

    def can_sign(self, role: str) -> bool:
        keyids, threshold = self.keys_of(role)
        return sum(map(self.keys.has, keyids)) >= threshold

    def commit(self, more: dict[str, tuple[str, ...]] | None = None, after: tuple[Write, ...] = ()) -> None:
        """Signs and writes what was changed; where nothing was, a new timestamp alone.

        Args:
            more: keys, by role, that sign as well.
            after: written when all of it is in place.

        Raises:
            NotSigned: signatures are missing: what has them is written, and nobody sees it.
            PublishError, KeyProblem: nothing is written.
        """
        more = more or {}
        writes, lacking = list(self._writes), []
        done: dict[str, Metadata[Targets]] = {}
        for role, metadata in self._changed.items():
            if self.sign(role, metadata, more.get(role, ())):
                done[role] = metadata
            else:
                lacking.append(role)
            writes.append(Write(self.metadata / f"{metadata.signed.version}.{role}.json", metadata.to_bytes()))
        lacking += [role for role in ("snapshot", "timestamp") if not self.can_sign(role)]
        if not lacking:
            writes += self._heads(done, more)
        for write in writes:
            write_out(write)
        if lacking:
            raise NotSigned(self._what_lacks(lacking))
        for write in after:
            write_out(write)
        self._changed.clear()
        self._writes.clear()

    def _heads(self, done: dict[str, Metadata[Targets]], more: dict[str, tuple[str, ...]]) -> list[Write]:
        """The snapshot and the timestamp that follow from changed roles."""
        writes = []
        snapshot = self.snapshot.signed
        half = timedelta(days=self.days("snapshot")) / 2
        if done or more.get("snapshot") or snapshot.expires - datetime.fromtimestamp(self.now(), UTC) < half:
            signed = deepcopy(snapshot)
            signed.version += 1
            signed.expires = self.expiry("snapshot")
            for role, metadata in done.items():
                signed.meta[f"{role}.json"] = MetaFile.from_data(metadata.signed.version, metadata.to_bytes(),
                                                                 ["sha256"])
            self.snapshot = Metadata(signed)
            self.sign("snapshot", self.snapshot, more.get("snapshot", ()))
            writes.append(Write(self.metadata / f"{signed.version}.snapshot.json", self.snapshot.to_bytes()))
            self.roles.update(done)
        stamp = deepcopy(self.timestamp.signed)
        stamp.version += 1
        stamp.expires = self.expiry("timestamp")
        stamp.snapshot_meta = MetaFile.from_data(self.snapshot.signed.version, self.snapshot.to_bytes(), ["sha256"])
        self.timestamp = Metadata(stamp)
        self.sign("timestamp", self.timestamp, more.get("timestamp", ()))
        writes.append(Write(self.metadata / "timestamp.json", self.timestamp.to_bytes()))
        return writes

    def _what_lacks(self, roles: list[str]) -> str:
        missing = []
        for role in roles:
            keyids, threshold = self.keys_of(role)
            missing.append(f"{role} ({sum(map(self.keys.has, keyids))} of {threshold} keys are in "
                           f"{self.keys.directory})")
        return (f"signatures are missing: {', '.join(missing)}; boxes see nothing of it until `edgeblock publish "
                f"sign {self.place}` has been run where those keys are")

    def pending(self) -> dict[str, Metadata[Targets]]:
        """The next versions of roles that are written, and that no snapshot has."""
        found = {}
        for role in [*self.roles, *(one for one in self.table(OWN).authorities if one not in self.roles)]:
            version = self.roles[role].signed.version + 1 if role in self.roles else 1
            if (self.metadata / f"{version}.{role}.json").exists():
                found[role] = self._read(f"{version}.{role}.json")
        return found

    def refresh(self) -> list[str]:
        """A new timestamp, and with it what waits for that alone; the roles that it brings in, or signs anew because
        half of their time is over."""
        changed = self.take_up()
        for role, metadata in self.roles.items():
            half = timedelta(days=self.days(role)) / 2
            if role not in changed and self.can_sign(role) \
                    and metadata.signed.expires - datetime.fromtimestamp(self.now(), UTC) < half:
                self.change(role)
                changed.append(role)
        self.commit()
        return changed

    def take_up(self) -> list[str]:
        """Goes on with what waits for signatures, or was interrupted: adds those that the keys here can give."""
        self._changed = self.pending()
        return list(self._changed)


def write_out(write: Write) -> None:
    try:
        write.path.parent.mkdir(parents=True, exist_ok=True)
        write_file(write.path, partial(copy, write.content), mode=0o644)
    except OSError as problem:
        raise PublishError(f"{write.path}: cannot be written: {problem.strerror}; boxes have what they had, and the "
                           "same command goes on from here") from None


def names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def copy(content: bytes | Path, file: Any) -> None:
    if isinstance(content, bytes):
        file.write(content)
    else:
        with open(content, "rb") as source:
            shutil.copyfileobj(source, file, 1 << 20)


def add_role(targets: Targets, name: str, keys: list[SSlibKey], threshold: int) -> None:
    """Delegates the directory of a name."""
    if targets.delegations is None:
        targets.delegations = Delegations({}, {})
    if targets.delegations.roles is None:
        raise PublishError("the delegations of this repository are of another sort (succinct roles)")
    targets.delegations.roles[name] = DelegatedRole(name, [], threshold, False, [f"{name}/*"])
    for key in keys:
        targets.add_key(key, name)


# What is old ---------------------------------------------------------------------------------------------------

def tidy(publisher: Publisher) -> None:
    """Takes away metadata that nobody asks for any more, and files that nothing lists. What cannot go stays."""
    newest = {role: metadata.signed.version for role, metadata in publisher.roles.items()}
    newest["snapshot"] = publisher.snapshot.signed.version
    for name in names(publisher.metadata):
        if (found := re.fullmatch(r"(\d+)\.(.+)\.json", name)) and found[2] in newest \
                and int(found[1]) <= newest[found[2]] - VERSIONS_KEPT:
            with suppress(OSError):
                (publisher.metadata / name).unlink()
    listed = {publisher.file_of(target.path, target.hashes["sha256"])
              for metadata in publisher.roles.values() for target in metadata.signed.targets.values()}
    for authority in publisher.authorities():
        listed |= {publisher.file_of(path_of(authority, name), content.sha256)
                   for release in publisher.table(authority).releases for name, content in release.files.items()}
    for path in publisher.files.rglob("*"):
        with suppress(OSError):
            if path.is_file() and path not in listed and path.stat().st_mtime < time.time() - FILES_KEPT:
                path.unlink()


# A new one -----------------------------------------------------------------------------------------------------

def create(place: Path, keys: Keys, threshold: int, now: Callable[[], float] = time.time,
           days: dict[str, int] | None = None) -> dict[str, list[str]]:
    """Makes a repository with nothing in it; the files of its keys, by role.

    Raises:
        PublishError: there is one, or it cannot be written.
        KeyProblem: the keys cannot be written.
    """
    metadata = place / METADATA
    if names(metadata):
        raise PublishError(f"{place}: is a repository already; `edgeblock publish {place} --from RULES` updates it")
    at = datetime.fromtimestamp(now(), UTC).replace(microsecond=0)
    lasting = {**DAYS, **(days or {})}

    def expiry(role: str) -> datetime:
        return at + timedelta(days=lasting[role])

    root = Root(expires=expiry("root"), consistent_snapshot=True,
                unrecognized_fields={DAYS_FIELD: days} if days else {})
    made: dict[str, list[str]] = {}
    for role in ("root", OWN, "snapshot", "timestamp"):
        count = threshold if role in OFFLINE else 1
        if role == "root":
            count += 1              # one may be lost
        root.roles[role].threshold = threshold if role in OFFLINE else 1
        for number in range(1, count + 1):
            key = keys.make(f"{role}-{number}" if count > 1 else role, role in OFFLINE)
            root.add_key(key, role)
            made.setdefault(role, []).append(str(keys.file_of(key.keyid)))
    holder = keys.make(HOLDS, False)
    made[HOLDS] = [str(keys.file_of(holder.keyid))]
    targets = Targets(expires=expiry(OWN))
    add_role(targets, HOLDS, [holder], 1)
    writes = []
    for name, content in ((TABLE, table_text(Table())),):
        digest = sha256(content).hexdigest()
        targets.targets[name] = TargetFile(len(content), {"sha256": digest}, name)
        writes.append(Write(place / FILES / f"{digest}.{name}", content))
    signed = {OWN: Metadata(targets), HOLDS: Metadata(Targets(expires=expiry(OWN)))}
    keyids = {OWN: root.roles[OWN].keyids, HOLDS: [holder.keyid]}
    snapshot = Metadata(Snapshot(expires=expiry("snapshot")))
    snapshot.signed.meta.clear()
    for role, one in signed.items():
        for signer in keys.signers(keyids[role]):
            one.sign(signer, append=True)
        snapshot.signed.meta[f"{role}.json"] = MetaFile.from_data(1, one.to_bytes(), ["sha256"])
        writes.append(Write(metadata / f"1.{role}.json", one.to_bytes()))
    for signer in keys.signers(root.roles["snapshot"].keyids):
        snapshot.sign(signer)
    timestamp = Metadata(Timestamp(expires=expiry("timestamp"),
                                   snapshot_meta=MetaFile.from_data(1, snapshot.to_bytes(), ["sha256"])))
    for signer in keys.signers(root.roles["timestamp"].keyids):
        timestamp.sign(signer)
    first = Metadata(root)
    for signer in keys.signers(root.roles["root"].keyids):
        first.sign(signer, append=True)
    writes += [Write(metadata / "1.snapshot.json", snapshot.to_bytes()),
               Write(metadata / "timestamp.json", timestamp.to_bytes()),
               Write(metadata / "1.root.json", first.to_bytes())]
    for write in writes:
        write_out(write)
    return made


# New keys ------------------------------------------------------------------------------------------------------

def rotate(publisher: Publisher, role: str, threshold: int | None = None) -> tuple[str, list[str]]:
    """Another key for a role in place of those it has; the file of the new key, and the ids of those that are gone.

    Where the old keys are here, what is signed is signed by both until the new root is in place, so that a client
    accepts it at every moment. Of the root one key goes, the last, and one comes.

    Raises:
        PublishError, KeyProblem: nothing is changed but for a new key file.
    """
    if role in publisher.root.signed.roles:
        return rotate_top(publisher, role, threshold)
    before = publisher.role(OWN)
    keyids, count = publisher.keys_of(role)
    key = publisher.keys.make(role, False)
    gone = list(keyids)
    assert before.delegations is not None
    changed = publisher.change(OWN)
    for keyid in gone:
        changed.revoke_key(keyid, role)
    changed.add_key(key, role)
    publisher.change(role)
    publisher.commit()
    return str(publisher.keys.file_of(key.keyid)), gone


def rotate_top(publisher: Publisher, role: str, threshold: int | None) -> tuple[str, list[str]]:
    if not publisher.can_sign("root"):
        raise PublishError(f"{role}: another key needs the signatures of the root, and too few of its keys are in "
                           f"{publisher.keys.directory}; bring them from the safe")
    old = publisher.root.signed
    root = deepcopy(old)
    root.version += 1
    root.expires = publisher.expiry("root")
    gone = old.roles[role].keyids[-1:] if role == "root" else list(old.roles[role].keyids)
    if threshold is not None:
        root.roles[role].threshold = threshold
    count = max(root.roles[role].threshold - (len(old.roles[role].keyids) - len(gone)), 1)
    for keyid in gone:
        root.revoke_key(keyid, role)
    fresh = [publisher.keys.make(role, role in OFFLINE) for _ in range(count)]
    for key in fresh:
        root.add_key(key, role)
    metadata = Metadata(root)
    for signer in publisher.keys.signers({*old.roles["root"].keyids, *root.roles["root"].keyids}):
        metadata.sign(signer, append=True)
    result = root.get_root_verification_result(old, metadata.signed_bytes, metadata.signatures)
    if not result:
        raise PublishError("root: the keys here are too few for the new root, which has to be signed as the old one "
                           "and the new one say; bring them from the safe")
    write = Write(publisher.metadata / f"{root.version}.root.json", metadata.to_bytes())
    files = [str(publisher.keys.file_of(key.keyid)) for key in fresh]
    if role == "root" or not publisher.can_sign(role):      # lost: a client waits until the rest is signed anew
        write_out(write)
        publisher.root = metadata
        if role == "root":
            return ", ".join(files), gone
        write = Write(write.path, metadata.to_bytes())
    # Else signed by both, whichever root a client has.
    if role == OWN:
        publisher.change(OWN)
    publisher.commit({role: tuple(key.keyid for key in fresh)}, after=(write,))
    return ", ".join(files), gone
