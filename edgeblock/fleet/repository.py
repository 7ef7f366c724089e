"""A source of lists: the operator's own repository, signed as The Update Framework has it.

In: the root of trust that the operator has put on this box, URLs of mirrors, what the daemon says of itself. Out: the
files of the releases that this box should have. python-tuf refuses what is signed by too few, older than what was
seen, too old to be fresh, mixed or endless; rings.py says which release it is to be. A release is tried before it
lands and watched afterwards; one that this box does badly with is given up and never taken again. Never here: a file
in the drop directory (landing.py), a lower version believed, an authority's fault that stops another authority.
"""

import asyncio
import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from tuf.api import exceptions
from tuf.api.metadata import TargetFile, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.ngclient import Updater, UpdaterConfig

from edgeblock.blocklist.settings import CLIENTS
from edgeblock.blocklist.store import write_file
from edgeblock.errors import ConfigError
from edgeblock.fleet import trial
from edgeblock.fleet.download import Bounded
from edgeblock.fleet.health import Health, ask_health
from edgeblock.fleet.releases import (
    HELD,
    OWN,
    TABLE,
    TABLE_MAX,
    Content,
    Held,
    Table,
    TableError,
    held_text,
    owner_name,
    path_of,
    read_held,
    read_table,
    table_text,
)
from edgeblock.fleet.rings import Box, Choice, choose
from edgeblock.fleet.source import Fetched, SourceError
from edgeblock.fleet.sources import FetchSettings
from edgeblock.fleet.threads import in_thread
from edgeblock.fleet.visit import place_of

GRACE = 60.0            # seconds after landing in which the daemon may still say what it said before
WATCHED = 15.0          # seconds between two looks at the daemon while a release is watched
UNUSED = 86_400.0       # seconds that a file stays which no release has, such as the tables themselves
STATE_MAX = 512 << 20   # bytes of what is kept: as many tables as there may be authorities, as long as they may be
TOTAL = 4               # times the most bytes of one file that a release may have
BOUNDS = UpdaterConfig(max_root_rotations=64, max_delegations=32, root_max_length=512_000,
                       timestamp_max_length=16_384, snapshot_max_length=2_000_000, targets_max_length=5_000_000)


@dataclass(frozen=True)
class Settings:
    """kind = "tuf". `metadata` and `targets` are URLs of the same repository, in the order in which they are asked;
    without `targets` it is beside the metadata, as `edgeblock publish` lays it out."""

    metadata: tuple[str, ...]
    targets: tuple[str, ...] = ()
    root: Path = Path("/etc/edgeblock/root.json")               # the root of trust, as the operator handed it over
    soak: float = 600.0                                         # seconds that a new release is watched
    daemon: bool = True                                         # False: there is none here, and nobody is asked
    control: Path = Path("/run/edgeblock/control.sock")         # where it answers
    config: Path | None = None                                  # its configuration, for the trial; None: the usual
    trial: float = 120.0                                        # seconds that it may take; 0: none

    def __post_init__(self) -> None:
        wrong = []
        if not self.metadata:
            wrong.append('metadata: names no URL; write such as metadata = ["https://lists.example.net/metadata/"]')
        for key, urls in (("metadata", self.metadata), ("targets", self.targets)):
            wrong += [f"{key}: {why}" for url in urls if (why := why_no_base(url))]
        if self.targets and len(self.targets) != len(self.metadata):
            wrong.append(f"targets: has {len(self.targets)} URLs, and metadata {len(self.metadata)}; each mirror has "
                         "one of both")
        for key, value, most in (("soak", self.soak, 604_800), ("trial", self.trial, 3600)):
            if not 0 <= value <= most:
                wrong.append(f"{key} = {value:g}: must be 0 to {most} seconds")
        if wrong:
            raise ConfigError(*wrong)

    @property
    def mirrors(self) -> list[tuple[str, str]]:
        """Base URLs of metadata and of files."""
        bases = [url if url.endswith("/") else f"{url}/" for url in self.metadata]
        files = self.targets or [urljoin(base, "../targets/") for base in bases]
        return list(zip(bases, files, strict=True))


@dataclass
class Taken:
    """The release of an authority that was brought last. `since` is Unix seconds; `changed` are the lists that came
    with it; `refused`, `unhealthy` are what the daemon said before. `good`: it was watched long enough."""

    version: int
    files: dict[str, Content]
    since: float = 0.0
    good: bool = False
    changed: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    unhealthy: str = ""


@dataclass
class State:
    """What outlives a process, besides the metadata that python-tuf keeps: releases as they were last vouched for,
    what was taken, and what was given up."""

    tables: dict[str, Table] = field(default_factory=dict)
    held: Held = field(default_factory=Held)
    taken: dict[str, Taken] = field(default_factory=dict)
    bad: dict[str, dict[int, str]] = field(default_factory=dict)
    seen: int = 0       # the version of the timestamp

    @property
    def authorities(self) -> list[str]:
        return [OWN, *self.tables[OWN].authorities] if OWN in self.tables else []


class Repository:
    """The source. `clock` is Unix time; `health` asks the daemon."""

    kind = "tuf"

    def __init__(self, name: str, settings: Settings, fetch: FetchSettings, clock: Callable[[], float] = time.time,
                 health: Callable[[], Awaitable[Health]] | None = None) -> None:
        self.name, self.settings, self.bounds, self.clock = name, settings, fetch, clock
        self.place = fetch.state / f"{name}.tuf"
        self.box, self.ring = fetch.box or socket.gethostname(), fetch.ring
        self._health = health or self._ask
        self._state: State | None = None
        self._problems: dict[str, str] = {}
        self._asked_again = 0.0         # monotonic seconds, from which on the repository is asked again
        self._soon = float("inf")       # seconds after which there is something to look at before that

    async def _ask(self) -> Health:
        return await ask_health(self.settings.control) if self.settings.daemon else Health()

    async def wait(self, seconds: float) -> None:
        """Until the repository should be asked again, a ring is due, or a release under watch is to be looked at."""
        now = time.monotonic()
        if now >= self._asked_again:
            self._asked_again = now + seconds
        await asyncio.sleep(max(min(self._asked_again - now, self._soon), 0.05))

    async def close(self) -> None:
        """Nothing is open between two fetches."""

    # ---- one fetch

    async def fetch(self, known: dict[str, Any], folder: Path) -> Fetched:
        """As Source has it.

        Where the repository cannot be asked, what is there stays; but a release that goes bad meanwhile is given up,
        as long as the files of one before it are here.
        """
        state = self._state = self._state or read_state(self.place / "state.json")
        now = self.clock()
        landed = {str(one): int(version) for one, version in known.get("taken", {}).items()}
        health = await self._health()
        self._judge(state, landed, health, now)
        client = Client(self.settings, self.bounds, self.place)
        try:
            return await self._fetch(state, client, landed, health, folder, now)
        finally:
            client.close()

    async def _fetch(self, state: State, client: "Client", landed: dict[str, int], health: Health, folder: Path,
                     now: float) -> Fetched:
        problem: SourceError | None = None
        if time.monotonic() >= self._asked_again - 0.01:      # a timer may be early by its resolution
            problem = await self._refresh(client, state)
        choices = self._choose(state, health, now)
        if not client.is_ready and problem is None and self._is_newer(state, choices):
            problem = await self._refresh(client, state)        # it may be withdrawn since
            choices = self._choose(state, health, now)
        if problem is not None:
            choices = {one: stay(choice) if self._is_newer(state, {one: choice}) else choice
                       for one, choice in choices.items()}
        if problem is not None and (not state.tables or versions(state, choices) == landed):
            self._look_again(state, choices, now)
            write_state(self.place / "state.json", state)
            raise problem
        alone: Iterator[dict[str, Choice]] | None = None
        while True:
            files = dict(self._files(state, choices))
            if versions(state, choices) == landed or not files:
                break
            self._miss(state, choices, landed, now)
            try:
                await self._bring(client, files, folder)
                refused = await self._try(state, choices, files, folder)
            except SourceError as fault:        # of one of several perhaps, and the others are not to wait for it
                alone = alone or self._each_alone(state, choices)
                if (narrower := next(alone, None)) is None:
                    raise
                self._problems["release"] = str(fault)
                choices = narrower
                continue
            if not refused:
                break
            for authority, why in refused.items():
                release = choices[authority].release
                assert release is not None
                state.bad.setdefault(authority, {})[release.version] = why
            choices = self._choose(state, health, now)
        return self._fetched(state, choices, landed, files, folder, health, client, problem, now)

    def _miss(self, state: State, choices: dict[str, Choice], landed: Mapping[str, int], now: float) -> None:
        """Raises SourceError where files would go of which nobody knows any more what they are."""
        lost = [one for one in landed if one in choices and choices[one].release is None and one not in state.taken]
        if lost:
            self._look_again(state, choices, now)
            raise SourceError(f"what is here of {', '.join(lost)} is not known any more ({self.place}/state.json was "
                              "lost), and none of the releases is to be taken now; what is there stays until one is")

    def _fetched(self, state: State, choices: dict[str, Choice], landed: dict[str, int],
                 files: dict[str, tuple[str, Content]], folder: Path, health: Health, client: "Client",
                 problem: SourceError | None, now: float) -> Fetched:
        wanted = versions(state, choices)
        brought = wanted != landed and bool(files)
        if brought:
            take(state, choices, files, health, landed, now)
        self._look_again(state, choices, now)
        tidy(self.place / "content", state)
        write_state(self.place / "state.json", state)
        told = self._told(state, choices, health, problem)
        return Fetched({name: folder / name for name in files} if brought else None, {"taken": wanted},
                       ", ".join(f"{one} {version}" for one, version in wanted.items()), client.size, None, told)

    def _told(self, state: State, choices: dict[str, Choice], health: Health,
              problem: SourceError | None) -> dict[str, Any]:
        """What the status shows, flat: of the operator's own releases what they are waiting for, of all authorities
        in a word each. Times are Unix seconds, 0 for none; `bad` and `held` are pairs AUTHORITY:VERSION."""
        problems = self._problems | ({"repository": str(problem)} if problem else {})
        own = choices.get(OWN, Choice(None))
        watched = [taken.since + self.settings.soak for taken in state.taken.values() if not taken.good]
        here = versions(state, choices)
        return {"box": self.box, "ring": self.ring, "repository": state.seen, "wanted": own.wanted,
                "taken": here.get(OWN, 0), "since": int(state.taken[OWN].since) if OWN in state.taken else 0,
                "waiting": own.waiting, "until": int(own.until), "why": own.why,
                "watched_until": int(max(watched, default=0)),
                "held": " ".join(f"{one}:{choice.wanted}" for one, choice in choices.items() if choice.held),
                "bad": " ".join(f"{one}:{version}" for one, choice in choices.items() for version in choice.bad),
                "authorities": ", ".join(f"{one} {here.get(one, 0)} of {choice.wanted}" for one, choice in
                                         choices.items()),
                "health": health.why_not, "problems": "; ".join(f"{one}: {why}" for one, why in problems.items())}

    def _choose(self, state: State, health: Health, now: float) -> dict[str, Choice]:
        box = Box(self.box, self.ring, health.why_not)
        found = {}
        for authority in state.authorities:
            taken = state.taken.get(authority)
            found[authority] = choose(authority, state.tables.get(authority, Table()), state.held.of(authority),
                                      taken.version if taken else 0, state.bad.get(authority, {}), box, now)
        return found

    def _is_newer(self, state: State, choices: dict[str, Choice]) -> bool:
        """Whether something is to be taken that was not here before."""
        return any(choice.release.version > (state.taken[one].version if one in state.taken else 0)
                   for one, choice in choices.items() if choice.release)

    def _each_alone(self, state: State, choices: dict[str, Choice]) -> Iterator[dict[str, Choice]]:
        """Where more than one authority has something newer: the choices with that of one, one after the other."""
        newer = [one for one, choice in choices.items() if self._is_newer(state, {one: choice})]
        for one in newer if len(newer) > 1 else ():
            yield {name: replace(choice, release=None, why="is tried by itself") if name in newer and name != one
                   else choice for name, choice in choices.items()}

    def _files(self, state: State, choices: dict[str, Choice]) -> Iterator[tuple[str, tuple[str, Content]]]:
        """The files to have: by name, whose and what. A list belongs, with all beside it, to the first authority that
        has one of its name."""
        owners: dict[str, str] = {}
        for authority in choices:
            lost = []
            for name, content in files_of(state, choices, authority).items():
                if owners.setdefault(owner_name(name), authority) != authority:
                    lost.append(name)
                else:
                    yield name, (authority, content)
            if lost:
                self._problems[authority] = (f"{', '.join(sorted(lost)[:5])}: left out: a list of this name is "
                                             f"published by {owners[owner_name(lost[0])]}")

    # ---- how a release does

    def _judge(self, state: State, landed: Mapping[str, int], health: Health, now: float) -> None:
        """Gives up releases that landed and that the daemon does badly with."""
        for authority, taken in state.taken.items():
            if taken.good or landed.get(authority) != taken.version:
                continue
            age = now - taken.since
            refused = {name: why for name, why in health.refused.items()
                       if name in taken.changed and (age >= GRACE or taken.refused.get(name) != why)}
            why = ""
            if refused:
                why = "refused by the daemon: " + "; ".join(f"{name}: {said}" for name, said in refused.items())
            elif health.wrong and not taken.unhealthy:
                why = health.wrong
            elif health.absent and not taken.unhealthy and age >= GRACE:
                why = f"since it landed the daemon does not answer: {health.absent}"
            elif age >= self.settings.soak and not health.why_not:
                taken.good = True
            if why:
                state.bad.setdefault(authority, {})[taken.version] = why

    async def _try(self, state: State, choices: dict[str, Choice], files: dict[str, tuple[str, Content]],
                   folder: Path) -> dict[str, str]:
        """By authority, why its new release would be refused here."""
        newer = [one for one, choice in choices.items() if choice.release and choice.release.version >
                 (state.taken[one].version if one in state.taken else 0)]
        changed = {name: one for one in newer for name in changed_lists(state, one, files)}
        if not changed or not self.settings.trial:
            return {}
        try:
            errors = await trial.tried(folder, self.settings.config, self.settings.trial)
        except TimeoutError:        # the box may be busy: no reason to have the release held for all others
            raise SourceError(f"a release takes more than {self.settings.trial:g} s to be tried (trial); nothing new "
                              "is taken") from None
        except OSError as problem:
            raise SourceError(f"a release cannot be tried: {problem.strerror or problem}; nothing new is taken"
                              ) from None
        refused: dict[str, str] = {}
        for file, why in errors:
            if (authority := changed.get(owner_name(file))) is not None:
                refused.setdefault(authority, f"would be refused here: {file}: {why}")
        return refused

    def _look_again(self, state: State, choices: dict[str, Choice], now: float) -> None:
        """When there is something to look at before the repository is asked again."""
        soon = [max(choice.until - now, 0.05) for choice in choices.values() if choice.waiting == "ring"]
        if any(not taken.good for taken in state.taken.values()):
            soon.append(min(WATCHED, max(self.settings.soak / 4, 0.05)))
        self._soon = min(soon, default=float("inf"))

    # ---- the network

    async def _refresh(self, client: "Client", state: State) -> SourceError | None:
        """Asks the mirrors for what there is; why none of them has said it."""
        try:
            root = self.settings.root.read_bytes()
        except OSError as problem:
            return SourceError(f"{self.settings.root}: the root of trust cannot be read: {problem.strerror}; copy "
                               "1.root.json of the repository there")
        try:
            self._problems = await in_thread(partial(client.ask, root, state), f"ask {self.name}")
        except SourceError as problem:
            return problem
        except OSError as problem:
            return SourceError(str(problem))
        return None

    async def _bring(self, client: "Client", files: dict[str, tuple[str, Content]], folder: Path) -> None:
        """Downloads what is not here, and lays all of it out under its names."""
        most = self.bounds.max_bytes
        for name, (authority, content) in files.items():
            if content.length > most:
                raise SourceError(f"{authority}: {name} has {content.length} bytes, and [fetch] file_megabytes "
                                  f"allows {most >> 20} MiB")
        if sum(content.length for _, content in files.values()) > TOTAL * most:
            raise SourceError(f"a release has more than {TOTAL} times the bytes that [fetch] file_megabytes allows "
                              "one file")
        try:
            await in_thread(partial(client.bring, files), f"bring {self.name}")
            for path in folder.iterdir():
                path.unlink()
            for name, (_, content) in files.items():
                lay(client.path_of(content), folder / name)
        except OSError as problem:
            raise SourceError(f"{problem.filename or self.place}: cannot be written: {problem.strerror or problem}"
                              ) from None


class Client:
    """python-tuf, with bounds, for one fetch. Its calls wait for the network: each is made in a thread of its own."""

    def __init__(self, settings: Settings, fetch: FetchSettings, place: Path) -> None:
        self.mirrors, self.place = settings.mirrors, place
        self._fetcher = Bounded(fetch.proxy, fetch.total_seconds)
        self._updater: Updater | None = None

    def close(self) -> None:
        """Lets a thread that is still at work end soon, too."""
        self._fetcher.end()

    @property
    def is_ready(self) -> bool:
        return self._updater is not None

    @property
    def size(self) -> int:
        return self._fetcher.size

    def path_of(self, content: Content) -> Path:
        return self.place / "content" / content.sha256

    def ask(self, root: bytes, state: State) -> dict[str, str]:
        """Has the state say what the first mirror that can be believed says; problems of single authorities, and of
        mirrors.

        Raises:
            SourceError: none can be.
        """
        problems: dict[str, str] = {}
        grave = False
        try:
            for folder in ("metadata", "content"):
                (self.place / folder).mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise SourceError(f"{self.place}: cannot be made: {problem.strerror}") from None
        for metadata, files in self.mirrors:
            try:
                updater = Updater(str(self.place / "metadata"), metadata, None, files, self._fetcher, BOUNDS,
                                  bootstrap=root)
                updater.refresh()
                self._updater = updater
                self._read(updater, state, problems)
                return problems
            except (exceptions.RepositoryError, exceptions.DownloadError, TableError, OSError, ValueError) as problem:
                self._updater = None
                problems[metadata] = explained(problem)
                grave = grave or is_grave(problem)
        raise SourceError("; ".join(f"{url}: {why}" for url, why in problems.items()), grave)

    def _read(self, updater: Updater, state: State, problems: dict[str, str]) -> None:
        own = self._table(updater, OWN)
        state.tables[OWN] = own
        for authority in own.authorities:
            try:
                state.tables[authority] = self._table(updater, authority)
            except (exceptions.RepositoryError, exceptions.DownloadError, TableError, ValueError) as problem:
                problems[authority] = explained(problem)
        try:
            text = self._small(updater, HELD)
            state.held = Held() if text is None else read_held(text)
        except (exceptions.RepositoryError, exceptions.DownloadError, TableError, ValueError) as problem:
            problems["held"] = explained(problem)
        for authority in state.tables.keys() - {OWN, *own.authorities}:
            del state.tables[authority]
        with suppress(OSError, DeserializationError, ValueError):
            state.seen = signed_version(self.place / "metadata" / f"{Timestamp.type}.json")

    def _table(self, updater: Updater, authority: str) -> Table:
        text = self._small(updater, path_of(authority, TABLE))
        return Table() if text is None else read_table(text)

    def _small(self, updater: Updater, target: str) -> bytes | None:
        """A target that is read at once; None where there is none. TUF finds it in the roles that may publish it."""
        info = updater.get_targetinfo(target)
        if info is None:
            return None
        digest = info.hashes.get("sha256")
        if digest is None or info.length > TABLE_MAX:
            raise TableError(f"{target}: is longer than {TABLE_MAX} bytes, or has no SHA-256")
        content = Content(info.length, digest)
        self._have(target, content)
        return self.path_of(content).read_bytes()

    def bring(self, files: dict[str, tuple[str, Content]]) -> None:
        """Raises SourceError where a file cannot be brought."""
        for name, (authority, content) in files.items():
            try:
                self._have(path_of(authority, name), content)
            except (exceptions.RepositoryError, exceptions.DownloadError) as problem:
                raise SourceError(f"{path_of(authority, name)}: {explained(problem)}", is_grave(problem)) from None

    def _have(self, target: str, content: Content) -> None:
        """Downloads a file that is not here yet, from the first mirror that has it."""
        path = self.path_of(content)
        if is_whole(path, content):
            return
        if self._updater is None:
            raise exceptions.DownloadError("is not here, and the repository cannot be asked")
        info = TargetFile(content.length, {"sha256": content.sha256}, target)
        last: Exception = exceptions.DownloadError("no mirror has it")
        part = path.with_name(f".{path.name}.part")
        for _, base in self.mirrors:
            try:
                self._updater.download_target(info, str(part), base)
                os.replace(part, path)
                return
            except (exceptions.RepositoryError, exceptions.DownloadError) as problem:
                last = problem
            finally:
                part.unlink(missing_ok=True)
        raise last


# Small things ---------------------------------------------------------------------------------------------------

def why_no_base(url: str) -> str:
    """Why this is no URL that names of files can be put behind; "" where it is. The URL is told in logs."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not re.fullmatch("[!-~]+", url):
        return f"{url!r} is no URL of HTTP or HTTPS"
    if "@" in parts.netloc:
        return f"{place_of(url)} has a user or a password in it; a repository is signed, and needs none"
    return f"{place_of(url)} has a query or a fragment, and names of files are put behind it" \
        if parts.query or parts.fragment else ""


def is_whole(path: Path, content: Content) -> bool:
    """Whether a file is here as it was signed for: a machine that lost its power may have left a part of it."""
    try:
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_size == content.length and \
                hashlib.file_digest(file, "sha256").hexdigest() == content.sha256
    except OSError:
        return False


def signed_version(path: Path) -> int:
    return int(json.loads(path.read_bytes())["signed"]["version"])


def explained(problem: Exception) -> str:
    """What a refusal of python-tuf means, and what to do."""
    said = str(problem) or type(problem).__name__
    for kind, what in REASONS:
        if isinstance(problem, kind):
            return f"{what} ({said})" if what else said
    return said


REASONS: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.ExpiredMetadataError, "refused: too old to be fresh, so newer releases may be kept from this box; "
                                      "run `edgeblock publish refresh` where the repository is made, and see that "
                                      "the web server serves what is there"),
    (exceptions.BadVersionNumberError, "refused: older than what this box has seen already; somebody has put back an "
                                       "old copy of the repository"),
    (exceptions.UnsignedMetadataError, "refused: not signed by as many keys as the root of trust asks for"),
    (exceptions.LengthOrHashMismatchError, "refused: not the file that is signed for; the mirror is half copied, or "
                                           "somebody has changed it"),
    (DeserializationError, "is no metadata; is the URL that of a repository?"),
    (exceptions.DownloadLengthMismatchError, "refused: longer than it may be"),
    (exceptions.RepositoryError, "refused"),
)
GRAVE = (exceptions.ExpiredMetadataError, exceptions.BadVersionNumberError, exceptions.UnsignedMetadataError,
         exceptions.LengthOrHashMismatchError, exceptions.DownloadLengthMismatchError)


def is_grave(problem: Exception) -> bool:
    return isinstance(problem, GRAVE)


def files_of(state: State, choices: dict[str, Choice], authority: str) -> Mapping[str, Content]:
    release, taken = choices[authority].release, state.taken.get(authority)
    return release.files if release else taken.files if taken else {}


def versions(state: State, choices: dict[str, Choice]) -> dict[str, int]:
    """What the box should have, by authority."""
    found = {}
    for authority, choice in choices.items():
        taken = state.taken.get(authority)
        version = choice.release.version if choice.release else taken.version if taken else 0
        if version:
            found[authority] = version
    return found


def changed_lists(state: State, authority: str, files: dict[str, tuple[str, Content]]) -> set[str]:
    """The lists of an authority of which a file differs from what was taken before."""
    before = state.taken[authority].files if authority in state.taken else {}
    return {owner_name(name) for name, (owner, content) in files.items()
            if owner == authority and before.get(name) != content}


def stay(choice: Choice) -> Choice:
    """Nothing newer is taken while nobody can say whether it is still to be had."""
    return replace(choice, release=None, waiting="repository", why="the repository cannot be asked")


def take(state: State, choices: dict[str, Choice], files: dict[str, tuple[str, Content]], health: Health,
         landed: Mapping[str, int], now: float) -> None:
    """Notes what is on its way to the drop directory."""
    for authority, choice in choices.items():
        taken = state.taken.get(authority)
        if choice.release and (taken is None or taken.version != choice.release.version):
            state.taken[authority] = Taken(choice.release.version, dict(choice.release.files), now, False,
                                           sorted(changed_lists(state, authority, files)), dict(health.refused),
                                           health.why_not)
        elif taken is not None and not taken.good and landed.get(authority) != taken.version:
            taken.since = now       # it has not landed before
    for authority in state.taken.keys() - choices.keys():
        del state.taken[authority]


def lay(content: Path, target: Path) -> None:
    """The same file by another name; a clients file, which may have one name alone, and one on another disk, as a
    copy."""
    if not target.name.endswith(CLIENTS):
        with suppress(OSError):
            os.link(content, target)
            return
    shutil.copyfile(content, target)


def tidy(folder: Path, state: State) -> None:
    """Takes away what neither a release that may still be taken nor one that is there has."""
    wanted = {content.sha256 for table in state.tables.values() for release in table.releases if not release.withdrawn
              for content in release.files.values()}
    wanted |= {content.sha256 for taken in state.taken.values() for content in taken.files.values()}
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name not in wanted and path.stat().st_mtime < time.time() - UNUSED:
                path.unlink(missing_ok=True)


# What is kept ---------------------------------------------------------------------------------------------------

def read_state(path: Path) -> State:
    """What was kept; nothing where there is none, or none that can be read: then the newest release that is due is
    taken, as on a new box."""
    try:
        with open(path, "rb") as file:
            told = json.loads(file.read(STATE_MAX))
        taken = {one: Taken(**{**kept, "files": {name: Content(**said) for name, said in kept["files"].items()}})
                 for one, kept in told["taken"].items()}
        return State({one: read_table(text.encode()) for one, text in told["tables"].items()},
                     read_held(told["held"].encode()), taken,
                     {one: {int(version): str(why) for version, why in found.items()}
                      for one, found in told["bad"].items()}, int(told["seen"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, TableError, RecursionError):
        return State()


def write_state(path: Path, state: State) -> None:
    """Raises SourceError."""
    for authority, found in list(state.bad.items()):
        table = state.tables.get(authority, Table())
        state.bad[authority] = {version: why for version, why in found.items() if table.of(version)}
    told = {"tables": {one: table_text(table).decode() for one, table in state.tables.items()},
            "held": held_text(state.held).decode(), "seen": state.seen,
            "taken": {one: asdict(taken) for one, taken in state.taken.items()}, "bad": state.bad}
    text = json.dumps(told).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != text:
            write_file(path, lambda file: file.write(text))
    except OSError as problem:
        raise SourceError(f"{path}: cannot be written: {problem.strerror}") from None
