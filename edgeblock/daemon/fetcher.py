"""What edgeblock-fetch says of the sources of lists.

In: its status file, which another user writes: bounded, checked, and looked at once a second. Out: a row for each
source, and whether anybody fetches. Where nobody ever did, and nobody has to, there is nothing to say. Never here: a
list, a wait for somebody, or a word that was not checked.
"""

import json
import os
import re
import stat
import time
from pathlib import Path
from typing import Any

from edgeblock.config import Fetch
from edgeblock.errors import printable
from edgeblock.ledger.records import moment

LOOKING = 1.0           # seconds between two looks at the file
SHARE = 0.05            # of the time, at most, is spent on it: four megabytes may be made to take most of a second
DEAD = 60.0             # seconds without a sign after which nobody fetches any more; there is one every ten
SIZE_MAX = 4 << 20      # bytes of the file: a thousand sources, each with a hundred names of files
SOURCES_MAX = 1000
NAME_MAX = 64
FORMAT = 1
CLOCK_MAX = 253_402_300_799     # Unix seconds: the end of the year 9999
# What is taken over of each source: numbers, with the most that they may be, and lines with their most characters.
NUMBERS = {"bytes": 1 << 50, "count": 1 << 20, "every": 1 << 32, "checked": CLOCK_MAX, "changed": CLOCK_MAX,
           "began": CLOCK_MAX, "since": CLOCK_MAX, "next": CLOCK_MAX, "failures": 1 << 31}
WORDS = {"kind": 16, "version": 100, "error": 400}
KINDS = ("https", "zone", "tuf")
# Of releases of a repository: why the newest is not there, and what may name a ring, or a release of an authority.
WAITING = ("ring", "hold", "health", "bad")
RING = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
RELEASE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63}):([0-9]{1,15})")
RELEASES_MAX = 16       # that are bad or held, of one source
OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY


class Fetcher:
    """`state` is "none" (nobody ever fetched), "running", or "gone", and then `problem` says why."""

    def __init__(self, config: Fetch) -> None:
        self._config = config
        self.state, self.problem = "none", ""
        self._rows: dict[str, dict[str, Any]] = {}
        self._looked = -LOOKING
        self._seen: tuple[int, int, int] | None = None      # inode, size and time of what was read last

    def sources(self) -> dict[str, dict[str, Any]]:
        """A row for each source, by its name."""
        self.look()
        return self._rows

    def status(self) -> dict[str, Any]:
        """For `status` and the metrics."""
        self.look()
        return {"state": self.state, "problem": self.problem, "sources": self._rows}

    def look(self) -> None:
        now = time.monotonic()
        if now < self._looked + LOOKING:
            return
        self._looked = now
        try:
            self._read(self._config.status)
        except FileNotFoundError:
            self._miss("is not there; is edgeblock-fetch running?")
        except OSError as problem:
            self._miss(f"cannot be read: {problem.strerror}")
        except (ValueError, RecursionError):
            self._miss("is no status of edgeblock-fetch; is it of another version?")
        self._looked += max(0.0, (time.monotonic() - now) / SHARE - LOOKING)

    def _miss(self, why: str) -> None:
        if self.state != "none" or self._config.required or not why.startswith("is not there"):
            self.state, self.problem = "gone", f"{self._config.status}: {why}"

    def _read(self, path: Path) -> None:
        """Raises OSError, and ValueError where it is nothing that we know."""
        handle = os.open(path, OPEN)
        with open(handle, "rb") as file:
            state = os.fstat(handle)
            if not stat.S_ISREG(state.st_mode) or state.st_size > SIZE_MAX:
                raise ValueError
            seen = state.st_ino, state.st_size, state.st_mtime_ns
            # Its time is set anew when there is nothing else to say, but one of the same size may have its inode.
            if seen != self._seen:
                self._rows = rows_of(file.read(SIZE_MAX))
            self._seen = seen
        age = time.time() - state.st_mtime
        if age > DEAD:
            self._miss(f"was not written for {age:.0f} s; is edgeblock-fetch running?")
            self.state = "gone"
        else:
            self.state, self.problem = "running", ""


def rows_of(text: bytes) -> dict[str, dict[str, Any]]:
    """The rows of a status file, by name. ValueError where it is none."""
    said = json.loads(text)
    if not isinstance(said, dict) or said.get("format") != FORMAT or not isinstance(said.get("sources"), list):
        raise ValueError
    rows: dict[str, dict[str, Any]] = {}
    for one in said["sources"][:SOURCES_MAX]:
        name = one.get("name") if isinstance(one, dict) else None
        if not isinstance(name, str) or not 0 < len(name) <= NAME_MAX or not name.isascii() or \
                not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError
        row: dict[str, Any] = {"grave": one.get("grave") is True}
        for key, most in NUMBERS.items():
            value = one.get(key)
            if type(value) not in (int, float) or not 0 <= value <= most:
                raise ValueError
            row[key] = int(value)
        for key, longest in WORDS.items():
            value = one.get(key)
            if not isinstance(value, str):
                raise ValueError
            row[key] = printable(value[:longest])
        if row["kind"] == "tuf" and isinstance(one.get("told"), dict):
            row["release"] = release_of(one["told"])
        rows[name] = row
    return rows


def release_of(told: dict[str, Any]) -> dict[str, Any]:
    """What a repository says of its releases: `ring`, `wanted` and `taken` (versions of the operator's own, 0 for
    none), `waiting` ("" for nothing), `bad` and `held` as pairs of authority and version. What is no such word is
    left out."""
    def whole(value: Any) -> int:
        return value if type(value) is int and 0 <= value < 10 ** 15 else 0

    def pairs(value: Any) -> list[tuple[str, str]]:
        words = value.split() if isinstance(value, str) else []
        if words and len(value) >= WORDS["version"]:
            words.pop()             # it was cut there, perhaps within a number
        found = [RELEASE.fullmatch(word) for word in words[:RELEASES_MAX]]
        return [(one[1], one[2]) for one in found if one]

    ring, waiting = told.get("ring"), told.get("waiting")
    return {"ring": ring if isinstance(ring, str) and RING.fullmatch(ring) else "",
            "wanted": whole(told.get("wanted")), "taken": whole(told.get("taken")),
            "waiting": waiting if waiting in WAITING else "",
            "bad": pairs(told.get("bad")), "held": pairs(told.get("held"))}


class Changes:
    """What is new in how sources are, as fields of the ledger's records: a code and a time, no word of anybody's."""

    def __init__(self) -> None:
        self._states: dict[str, tuple[str, int]] = {}       # of each: its code, and when a version landed

    def since(self, said: dict[str, Any]) -> list[dict[str, Any]]:
        """What has changed since the last call. `said` is of Fetcher.status; that nobody fetches is of ""."""
        rows = dict(said["sources"])
        if said["state"] == "gone" or "" in self._states:
            rows[""] = {"kind": "", "count": 0, "bytes": 0, "changed": 0, "grave": False, "failures": 0}
        states = {name: (code_of(row) if name else "silent" if said["state"] == "gone" else "", row["changed"])
                  for name, row in rows.items()}
        made = []
        for name in states.keys() | self._states.keys():
            if states.get(name) != self._states.get(name):
                code, changed = states.get(name, ("gone", 0))
                row = rows.get(name, {})
                made.append({"source": name, "kind": row["kind"] if row.get("kind") in KINDS else "", "code": code,
                             "files": row.get("count", 0), "bytes": row.get("bytes", 0),
                             "changed": moment(changed * 1_000_000) if changed else None})
        self._states = states
        return sorted(made, key=lambda one: str(one["source"]))


def code_of(row: dict[str, Any]) -> str:
    """How a source is, as a code of the ledger; "" where it answers."""
    return "" if not row["failures"] else "forged" if row["grave"] else "fetch"
