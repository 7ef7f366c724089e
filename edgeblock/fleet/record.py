"""What is kept of one source, on the disk: what was known when its files landed, and which files are its own.

In: a path. Out: a Record, and the same written so that it is there whole, or as it was before. When a source was last
asked with success is the time of the file, so that "not changed" writes none. Never here: a file of the drop
directory.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from edgeblock.blocklist.store import write_file

FORMAT = 1
RECORD_MAX = 16 << 20       # bytes; a source's `known` may have a thousand file names and as many digests
MODE = 0o600


class Mark(NamedTuple):
    """By what a file that we have put somewhere is known: `changed` is its mtime in nanoseconds."""

    size: int
    digest: str
    inode: int
    changed: int

    def fits(self, state: os.stat_result) -> bool:
        """Whether the file of this state is as it was left, by all that can be seen without reading it."""
        return (self.size, self.inode, self.changed) == (state.st_size, state.st_ino, state.st_mtime_ns)


@dataclass
class Record:
    """`known` is for the source, `files` are those that it has in the drop directory, and `landing` those that are
    about to be there, or are, if we were ended meanwhile. `version` and `size` are of what has landed; `changed` and
    `asked` are Unix seconds, 0 for never."""

    known: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Mark] = field(default_factory=dict)
    landing: dict[str, Mark] = field(default_factory=dict)
    version: str = ""
    size: int = 0
    changed: float = 0
    asked: float = 0

    def marks(self, name: str) -> list[Mark]:
        return [marks[name] for marks in (self.files, self.landing) if name in marks]

    def write(self, path: Path) -> None:
        """Raises OSError, and then it is as it was."""
        said = {"format": FORMAT, "known": self.known, "files": self.files, "landing": self.landing,
                "version": self.version, "size": self.size, "changed": self.changed}
        text = json.dumps(said).encode()
        write_file(path, lambda file: file.write(text), mode=MODE)
        self.touch(path)

    def touch(self, path: Path) -> None:
        """Keeps when it was asked; without the disk being waited for."""
        os.utime(path, (self.asked, self.asked))


def read_record(path: Path) -> Record:
    """The record at a path; an empty one where there is none, or none that can be read: then a source is asked for
    everything, and what it has in the drop directory is its own where it brings the same again."""
    try:
        with path.open("rb") as file:
            said, asked = json.loads(file.read(RECORD_MAX)), os.fstat(file.fileno()).st_mtime
        if said["format"] != FORMAT or not isinstance(said["known"], dict):
            return Record()
        files, landing = ({str(name): Mark(int(size), str(digest), int(inode), int(changed))
                           for name, (size, digest, inode, changed) in said[key].items()}
                          for key in ("files", "landing"))
        return Record(said["known"], files, landing, str(said["version"]), int(said["size"]), float(said["changed"]),
                      asked if said["changed"] else 0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Record()
