"""The seam: what a source of lists is, whatever it speaks.

In: what was known of it after the last fetch. Out: files for the drop directory, or that nothing has changed; what is
known now. Never here: a file in the drop directory (landing.py puts them there), a wait between two (fetch.py),
or a protocol.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgeblock.errors import EdgeblockError


class SourceError(EdgeblockError):
    """A fetch that failed, as one line that names the source and the way out; what was fetched before stays.

    `grave`: what came cannot be genuine (a bad signature, an older version), so that somebody should look. `wait` is
    the seconds until the next try where the source itself says that, else None: longer after each failure.
    """

    def __init__(self, message: str, grave: bool = False, wait: float | None = None) -> None:
        super().__init__(message)
        self.grave = grave
        self.wait = wait


@dataclass(frozen=True)
class Fetched:
    """What a fetch has brought.

    `files` has, for each file that the source now has in the drop directory, its name there and where its content
    lies, in the folder that the source was given; None is that nothing has changed. Files that an earlier fetch of
    this source brought and that are not among them go. `known` (JSON) is kept, and handed to the next fetch, only
    when the files have landed. `version` is the source's own word for it (a serial, an ETag, a number), for people.
    `size` is the bytes that came over the network. `wait` is the seconds until the next fetch, where the source
    itself says that (an SOA's timers), else None. `told` is more for the status: plain words and numbers by name.
    """

    files: dict[str, Path] | None
    known: dict[str, Any]
    version: str = ""
    size: int = 0
    wait: float | None = None
    told: dict[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """One source, as fetch.py uses it. `name` is the operator's, `kind` is what it speaks."""

    name: str
    kind: str

    async def fetch(self, known: dict[str, Any], folder: Path) -> Fetched:
        """Asks once. `known` is that of the last fetch whose files landed, {} at first; `folder` is empty, for it.

        Raises:
            SourceError: it failed; the caller waits longer each time, with jitter.
        """

    async def wait(self, seconds: float) -> None:
        """Until it should be asked again: after so many seconds, or earlier where the source says so itself."""

    async def close(self) -> None:
        """Lets go of sockets."""
