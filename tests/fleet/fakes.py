"""A kind of source for tests: does what its `does` says, without a network. In: settings. Out: a Source."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeblock.errors import ConfigError
from edgeblock.fleet.source import Fetched, SourceError
from edgeblock.fleet.sources import FetchSettings

KIND = "tests.fleet.fakes", "Fake"
VERSIONS: dict[str, dict[str, bytes]] = {}      # what each source brings, by its name
DOES: dict[str, Callable[..., Any]] = {}        # what it does instead


@dataclass(frozen=True)
class Settings:
    number: int
    text: str = ""
    words: tuple[str, ...] = ()
    where: Path | None = None
    share: float = 0.5
    flag: bool = False

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ConfigError(f"number = {self.number} must be none below 0", "and another line")


class Fake:
    kind = "fake"

    def __init__(self, name: str, settings: Settings, fetch: FetchSettings) -> None:
        self.name, self.settings = name, settings
        self.asked: list[dict[str, Any]] = []
        self.closed = False

    async def fetch(self, known: dict[str, Any], folder: Path) -> Fetched:
        self.asked.append(dict(known))
        if self.name in DOES and (done := await DOES[self.name](self, known, folder)) is not None:
            return done
        files = VERSIONS.get(self.name)
        if files is None:
            raise SourceError(f"{self.name}: has nothing")
        version = str(hash(tuple(sorted(files.items()))))
        if known.get("version") == version:
            return Fetched(None, known, version)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return Fetched({name: folder / name for name in files}, {"version": version}, version,
                       sum(map(len, files.values())), told={"serial": len(files)})

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        self.closed = True
