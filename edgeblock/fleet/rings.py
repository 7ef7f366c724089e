"""Which release a box takes: whose time has come, and that nobody has stopped.

In: the releases of one authority, what is held, what this box has and what it thinks of it, the time. Out: a Choice
with its reason, for the status. The same input has the same answer on every box; the only difference between boxes
is their ring and their share. Never here: a clock, a file, a network, the daemon.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from edgeblock.fleet.releases import Release, Table

ALL = "all"     # the ring of every box that is in none of those that a release names


def share_of(box: str, authority: str, version: int) -> float:
    """Where a box stands among all, from 0 to 100 (below it): another place for each release, so that it is not
    always the same subscribers who have a release first."""
    digest = sha256(f"{box}\0{authority}\0{version}".encode()).digest()
    return int.from_bytes(digest[:8]) / (1 << 64) * 100


def due(release: Release, ring: str, share: float) -> float:
    """When a box may take a release, in Unix seconds."""
    span = release.rings.get(ring) or release.rings.get(ALL) or list(release.rings.values())[-1]
    return span[0] + (span[1] - span[0]) * share / 100


@dataclass(frozen=True)
class Box:
    """One box as a choice sees it. `unhealthy` is why it takes nothing new, "" where it does."""

    name: str
    ring: str = ALL
    unhealthy: str = ""


@dataclass(frozen=True)
class Choice:
    """`release` is the one to have, None for what is there already, whatever that is. `wanted` is the newest that is
    not withdrawn, 0 where there is none; `waiting` is for what it is not taken ("", ring, hold, health, bad) and
    `why` that in words; `until` Unix seconds of when its ring is due, 0 where that is no matter of time."""

    release: Release | None
    wanted: int = 0
    waiting: str = ""
    why: str = ""
    until: float = 0.0
    held: bool = False
    bad: Mapping[int, str] = field(default_factory=dict)


def choose(authority: str, table: Table, held: Mapping[int, str], taken: int, bad: Mapping[int, str], box: Box,
           now: float) -> Choice:
    """What `box` should have of an authority's releases.

    Newest first: what is withdrawn, what this box found bad, what is held before it was taken, and what is not due
    yet, is passed over. A newer one than is there is taken by a healthy box only: on any other nobody could tell
    what it does. An older one (a withdrawal, a release gone bad) is taken by every box, and so is the first of all:
    a box with no release has nothing to lose.

    Args:
        taken: the version that is there, 0 for none.
        bad: versions that this box has given up, with the reason.
    """
    newest = table.newest
    stopped: dict[str, Any] = {}

    def stop(waiting: str, why: str, until: float = 0.0) -> None:
        if not stopped:         # the newest counts
            stopped.update(waiting=waiting, why=why, until=until)

    found = None
    for release in table.releases:
        version = release.version
        at = due(release, box.ring, share_of(box.name, authority, version))
        if release.withdrawn:
            continue
        if version in bad:
            stop("bad", bad[version])
        elif version == taken:
            found = release
            break
        elif version in held:
            stop("hold", held[version] or "held")
        elif at > now:
            stop("ring", f"the ring {box.ring} is not due", at)
        elif taken and version > taken and box.unhealthy:
            stop("health", box.unhealthy)
        else:
            found = release
            break
    there = table.of(taken)
    if found is None and there is not None and (there.withdrawn or taken in bad):
        state = "withdrawn" if there.withdrawn else "bad"
        stop("bad", f"release {taken} is {state}, and there is none to go back to")
    wanted = newest.version if newest else 0
    return Choice(found, wanted, held=wanted in held, bad=bad, **stopped)
