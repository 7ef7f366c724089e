"""The rules in force: the files of their snapshot, what became of each list, and what is said of them.

In: what the compiling process has made of the lists (Loaded). Out: the files that every worker gets, lines of
the log about what has changed, answers about lists and names. Never here: a list read, or a worker told.
"""

import ipaddress
import json
import math
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from edgeblock.blocklist.keys import Key
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.snapshot import ending
from edgeblock.daemon.board import Board
from edgeblock.daemon.compiler import Loaded, close_files
from edgeblock.daemon.mapping import map_stacked
from edgeblock.daemon.memory import memory_file, write_all
from edgeblock.daemon.since import since
from edgeblock.errors import ListError

REFUSALS_SAID = 100     # of one load that the log says line by line


class InForce:
    """`since` is when they were loaded, in Unix seconds, `kept` when what is listed came into force, which a restart
    with the same lists does not change (`state` is where that is kept); `problem` why they could not be looked at."""

    def __init__(self, board: Board, log: Any, state: Path) -> None:
        self.since = self.kept = time.time()
        self.problem = ""
        self.loads = Counter(loaded=0, refused=0)
        self.places: dict[str, int] = {}                # of each list on the board
        self._board, self._log, self._state = board, log, state
        self._loaded: Loaded | None = None
        self._refused: dict[str, dict[str, Any]] = {}
        self._files: tuple[int, ...] = ()               # the snapshot, notes for who reads it, what it lies over
        self._notes = -1                                # those of the next one, still empty
        # A digest, and what answers questions about it: as of now, and as of another time.
        self._asked: tuple[str, ListMatcher, ListMatcher] | None = None

    # ---- what changes them

    def prepare(self) -> None:
        """Before lists are loaded. OSError where no file can be had; then nothing has changed yet."""
        if self._notes < 0:
            self._notes = memory_file()

    def take(self, loaded: Loaded) -> tuple[int, ...]:
        """These are in force from now on. The files that every worker is to have; () where it has them.

        OSError where there is no memory for them, and nothing has changed.
        """
        if loaded.fd >= 0:
            places = self._board.give_places(one["name"] for one in loaded.lists)
            try:
                write_all(self._notes, json.dumps({"places": places}).encode())
            except OSError:
                let_go(loaded)
                raise
        self._audit(loaded)
        if loaded.content != self.content:
            self.kept = since(self._state, loaded.content, time.time())
        files: tuple[int, ...] = (loaded.fd, self._notes)
        if loaded.base:
            files += (loaded.base_fd if loaded.base_fd >= 0 else self.base_file,)
        self._loaded = loaded
        if loaded.fd < 0:
            return ()
        self.since = time.time()
        self.loads["loaded"] += 1
        for file in set(self._files) - set(files):
            os.close(file)
        self.places = places
        self._asked = None              # else the old snapshot would stay in memory
        self._files, self._notes = files, -1
        return (*files, loaded.key_fd)

    def keep(self, problem: Exception) -> None:
        """Those that were to come cannot be had."""
        self.loads["refused"] += 1
        self.problem = str(problem)
        self._log.error("rules not loaded; those in force stay", problem=self.problem)

    def _audit(self, loaded: Loaded) -> None:
        for change in loaded.changes:
            self._log.info("rules audit", **change)
        said = 0
        for name, one in loaded.refused.items():
            if self._refused.get(name) != one:
                self.loads["refused"] += 1
                said += 1
                if said > REFUSALS_SAID:
                    continue            # whoever drops a thousand bad lists does not fill the log
                self._log.error("rules audit", change="refused", list=name, file=one["file"], reason=one["told"],
                                version_before=one["in_force"], uid=one["uid"], owner=one["owner"])
        if said > REFUSALS_SAID:
            self._log.error("more lists refused", count=said - REFUSALS_SAID)
        if loaded.problem and loaded.problem != self.problem:
            self._log.error("rules not loaded; those in force stay", problem=loaded.problem)
        for warning in loaded.warnings:
            if self._loaded is None or warning not in self._loaded.warnings:
                self._log.warning("rules warning", problem=warning)
        self._refused, self.problem = loaded.refused, loaded.problem

    # ---- what they are

    @property
    def is_empty(self) -> bool:
        """Nothing has ever been in force."""
        return self._loaded is None

    @property
    def digest(self) -> str:
        """Of the snapshot."""
        return self._loaded.digest if self._loaded else ""

    @property
    def whole(self) -> str:
        """Of the snapshot that later ones may lie over."""
        return self._loaded.whole if self._loaded else ""

    @property
    def base_file(self) -> int:
        """The snapshot that later ones may lie over; -1 where there is none yet."""
        return -1 if not self._files else self._files[2] if len(self._files) > 2 else self._files[0]

    @property
    def key(self) -> Key | None:
        return self._loaded.key if self._loaded else None

    @property
    def entries(self) -> int:
        return self._loaded.entries if self._loaded else 0

    @property
    def longest(self) -> int:
        """Entries of the list that has most."""
        return max((one["entries"] for one in self._loaded.lists), default=0) if self._loaded else 0

    # ---- what is said of them

    def summary(self) -> dict[str, Any]:
        """For a line of the log."""
        return {"lists": self.counters()["lists"], "entries": self.entries, "refused": len(self._refused),
                "digest": self.content}

    @property
    def content(self) -> str:
        """The digest of what is listed, to compare boxes."""
        return self._loaded.content if self._loaded else ""

    def counters(self) -> dict[str, int]:
        return {"lists": len(self._loaded.lists) if self._loaded else 0, "entries": self.entries, **self.loads}

    def lists(self) -> dict[str, dict[str, Any]]:
        """What is in force of each list, and why a newer version is not."""
        told = {one["name"]: {"entries": one["entries"], "file": one["file"], "expired": one["expired"],
                              "refused": "", **whom(one)} for one in (self._loaded.lists if self._loaded else [])}
        for name, one in self._refused.items():
            told.setdefault(name, {"entries": 0, "file": one["file"], "expired": False})["refused"] = one["told"]
        return told

    def check(self, question: str) -> dict[str, Any]:
        """The answer to `edgeblock check --live NAME`: what the snapshot that the workers have says of a name, or of
        {"name": NAME, "at": UNIX_SECONDS, "client": ADDRESS}, without which it is now, and nobody knows who asks."""
        try:
            asked = json.loads(question)
            asked = {"name": asked, "at": None} if isinstance(asked, str) else asked
            name, at, client = asked["name"], asked.get("at"), asked.get("client", "")
            at = None if at is None else float(at)
            if not {"at", "client"} & asked.keys() or not isinstance(name, str) or not isinstance(client, str) \
                    or at is not None and not math.isfinite(at):
                raise ValueError
            packed = ipaddress.ip_address(client).packed if client else b""
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return {"error": "a name to check is a string in JSON, or an object with a name and Unix seconds (at), "
                             "an address (client) or both"}
        if self._loaded is None:
            return {"error": "no lists are loaded yet"}
        if self._asked is None or self._asked[0] != self._loaded.digest:
            try:
                snapshot = map_stacked(self._files[0], self.base_file, self._loaded.key)
            except ListError as problem:
                return {"error": str(problem)}
            self._asked = self._loaded.digest, ListMatcher(snapshot), ListMatcher(ending(snapshot))
        _, as_of_now, as_of_then = self._asked
        matcher = as_of_now if at is None else as_of_then
        matcher.client = packed
        from edgeblock.blocklist.explain import explain_alone  # when somebody asks, which is seldom

        return {**explain_alone(matcher, name, at).as_dict(), "snapshot": self._loaded.digest}


def whom(one: dict[str, Any]) -> dict[str, Any]:
    """Whom a list is for, where that is not everybody."""
    return {"clients": one["clients"], "prefixes": one["clients_count"]} if one["clients"] else {}


def let_go(loaded: Loaded) -> None:
    """Closes the files of rules that do not come into force."""
    close_files(loaded.fd, loaded.base_fd)
