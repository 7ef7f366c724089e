"""The releases of an authority: which files each has, when which ring may take it, what is withdrawn or held.

In: bytes that a signature has vouched for, from people who may make mistakes all the same. Out: frozen records, and
the same bytes again. Each authority has one such table in the repository, DIRECTORY/releases.json, a target like any
other; another one, held/held.json, says which releases nobody takes any more. The table has the older releases too,
so that a box whose ring is not due, or that goes back, finds them signed. Never here: a signature, a clock, a box.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeblock.blocklist.formats import list_name
from edgeblock.errors import EdgeblockError
from edgeblock.fleet.landing import FILES_MAX, why_not

TABLE = "releases.json"
TABLE_MAX = 4 << 20         # bytes of a table: sixteen releases of a thousand files are 2 MB
RELEASES_MAX = 16           # in a table; what is older has had its time
OWN = "targets"             # the operator's own role, whose files have no directory
HOLDS = "held"              # the role, and the directory, of what is held
HELD = f"{HOLDS}/held.json"
AUTHORITY = re.compile(r"[a-z][a-z0-9-]{0,39}")
RING = re.compile(r"[a-z][a-z0-9-]{0,39}")
SHA256 = re.compile(r"[0-9a-f]{64}")
WHY_MAX = 300               # characters of a reason
SIGNATURE = ".minisig"


class TableError(EdgeblockError):
    """A table says what none can say."""


@dataclass(frozen=True)
class Content:
    """What a file has in it."""

    length: int
    sha256: str


@dataclass(frozen=True)
class Release:
    """`version` is that of the authority's TUF metadata that brought it, `made` when that was. `rings` has, in their
    order, from when on (Unix seconds) the boxes of each may take it: the first of them, and the last. `withdrawn` is
    why nobody may, "" where they may. `files` are by their names in a rules directory."""

    version: int
    made: int
    rings: Mapping[str, tuple[int, int]]
    files: Mapping[str, Content]
    withdrawn: str = ""


@dataclass(frozen=True)
class Table:
    """Releases, newest first. `authorities` of the operator's own: the others, in the order in which a name belongs
    to them."""

    releases: tuple[Release, ...] = ()
    authorities: tuple[str, ...] = ()

    def of(self, version: int) -> Release | None:
        return next((one for one in self.releases if one.version == version), None)

    @property
    def newest(self) -> Release | None:
        """The newest that is not withdrawn."""
        return next((one for one in self.releases if not one.withdrawn), None)


@dataclass(frozen=True)
class Held:
    """Why releases are held, by authority and version."""

    why: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    def of(self, authority: str) -> Mapping[int, str]:
        return self.why.get(authority, {})


def path_of(authority: str, name: str) -> str:
    """The target that a file of an authority is: the operator's own have no directory."""
    return name if authority == OWN else f"{authority}/{name}"


def owner_name(name: str) -> str:
    """What a file of a rules directory belongs to: the name of its list. Who has that has all beside it."""
    if name.endswith(SIGNATURE):
        name = name.removesuffix(SIGNATURE)
    return list_name(name)


# Out of bytes --------------------------------------------------------------------------------------------------

def read_table(text: bytes) -> Table:
    """Raises TableError."""
    told = read_object(text, "table of releases")
    rows = told.get("releases")
    if not isinstance(rows, list) or len(rows) > RELEASES_MAX:
        raise TableError(f"has no list of at most {RELEASES_MAX} releases")
    releases = tuple(read_release(one) for one in rows)
    versions = [one.version for one in releases]
    if versions != sorted(set(versions), reverse=True):
        raise TableError("has releases that are not in order, newest first")
    names = told.get("authorities", [])
    if not isinstance(names, list) or not all(isinstance(one, str) and AUTHORITY.fullmatch(one) for one in names):
        raise TableError("has authorities whose names are none")
    return Table(releases, tuple(names))


def read_object(text: bytes, what: str) -> dict[str, Any]:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        raise TableError(f"is no {what}: is not JSON") from None
    if not isinstance(told, dict):
        raise TableError(f"is no {what}: is no object")
    return told


def read_release(told: Any) -> Release:
    if not isinstance(told, dict):
        raise TableError("has a release that is no object")
    version = whole(told.get("version"), "version")
    rings, files = told.get("rings"), told.get("files")
    if not isinstance(rings, dict) or not rings or not all(RING.fullmatch(name) for name in rings):
        raise TableError(f"release {version} has no rings")
    if not isinstance(files, dict) or len(files) > FILES_MAX:
        raise TableError(f"release {version} has no files, or more than {FILES_MAX}")
    spans = {}
    for name, span in rings.items():
        if not isinstance(span, list) or len(span) != 2:
            raise TableError(f"release {version}: the ring {name} has no two times")
        spans[name] = whole(span[0], "ring time"), whole(span[1], "ring time")
        if spans[name][0] > spans[name][1]:
            raise TableError(f"release {version}: the ring {name} ends before it begins")
    withdrawn = told.get("withdrawn", "")
    if not isinstance(withdrawn, str):
        raise TableError(f"release {version}: withdrawn is no text")
    return Release(version, whole(told.get("made"), "made"), spans,
                   {name: read_content(name, one) for name, one in files.items()}, withdrawn[:WHY_MAX])


def read_content(name: str, told: Any) -> Content:
    if why := why_not(name, True):
        raise TableError(f"{name!r} {why}")
    sha256 = told.get("sha256") if isinstance(told, dict) else None
    if not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
        raise TableError(f"{name!r} has no sha256")
    return Content(whole(told.get("length"), "length"), sha256)


def whole(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 53:
        raise TableError(f"{what} is no whole number")
    return value


def read_held(text: bytes) -> Held:
    """Raises TableError."""
    told = read_object(text, "table of what is held")
    found: dict[str, dict[int, str]] = {}
    for authority, versions in told.items():
        if not isinstance(versions, dict):
            raise TableError(f"what is held of {authority!r} is no object")
        for version, why in versions.items():
            if not version.isdecimal() or len(version) > 15 or not isinstance(why, str):
                raise TableError(f"what is held of {authority!r} is no version with a reason")
            found.setdefault(authority, {})[int(version)] = why[:WHY_MAX]
    return Held(found)


# And back ------------------------------------------------------------------------------------------------------

def table_text(table: Table) -> bytes:
    told: dict[str, Any] = {"releases": [
        {"version": one.version, "made": one.made, "rings": {name: list(span) for name, span in one.rings.items()},
         "files": {name: {"length": content.length, "sha256": content.sha256}
                   for name, content in sorted(one.files.items())},
         **({"withdrawn": one.withdrawn} if one.withdrawn else {})} for one in table.releases]}
    if table.authorities:
        told["authorities"] = list(table.authorities)
    return json.dumps(told, indent=1).encode() + b"\n"


def held_text(held: Held) -> bytes:
    return json.dumps({authority: {str(version): why for version, why in sorted(versions.items())}
                       for authority, versions in sorted(held.why.items()) if versions}, indent=1).encode() + b"\n"


# Ring times ----------------------------------------------------------------------------------------------------

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")


def read_rings(text: str) -> dict[str, tuple[float, float]]:
    """Rings as a person writes them, `canary=0,early=1h,all=4h..12h`: seconds after the release was made, of the
    first and of the last of their boxes.

    Raises:
        TableError: it is not that, or no ring is called "all", or a ring comes before the one in front of it.
    """
    rings: dict[str, tuple[float, float]] = {}
    before = 0.0
    for part in text.split(","):
        name, equals, span = part.strip().partition("=")
        first, dots, last = span.partition("..")
        if not equals or not RING.fullmatch(name) or name in rings:
            raise TableError(f"{part.strip()!r} is no ring; write such as canary=0,early=1h,all=4h..12h")
        begin = seconds_of(first)
        rings[name] = begin, seconds_of(last) if dots else begin
        if not before <= begin <= rings[name][1]:
            raise TableError(f"{part.strip()!r} begins before the ring in front of it, or ends before it begins")
        before = begin
    if "all" not in rings:
        raise TableError('no ring is called "all", which every box is in that is in no other; write such as all=4h')
    return rings


def seconds_of(text: str) -> float:
    found = SPAN.fullmatch(text.strip())
    value = float(found[1]) * UNITS[found[2] or "s"] if found else math.inf
    if not found or value > 366 * 86400:
        raise TableError(f"{text!r} is no time of at most a year; write such as 90s, 15m, 4h or 1d")
    return value
