"""The log: JSON, one object a line.

In: events, and the packets and names of what was blocked. Out: lines on a file. By default a line about a block holds
list, rule id, action and protocol, and nothing that tells who asked for what: `privacy.names` adds the name,
`privacy.clients` the client's address. Lines about blocks are limited, by the second and by the day; what is over is
counted, and said.
Nobody who logs ever waits: a thread writes, and when it cannot keep up lines are lost and counted.
"""

import os
import queue
import re
import socket
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from edgeblock.config import Privacy
from edgeblock.core.decision import Name, carried_out
from edgeblock.errors import SystemProblem

# Structlog takes along what shows tracebacks in colour, wherever that is installed: 9 MB and a tenth of a second in
# each process of a daemon, whose lines are JSON. A module that is None cannot be imported.
COLOURS = ("rich", "better_exceptions", "twisted")
HIDDEN = [name for name in COLOURS if sys.modules.setdefault(name, None) is None]       # type: ignore[arg-type]
import structlog  # noqa: E402

for name in HIDDEN:
    del sys.modules[name]

BACKLOG = 10_000        # lines that wait for a slow reader of the log; some megabytes
WORDS_MAX = 2048        # characters of a host or a path; escaped, both fit into what the supervisor takes as one line
LAST_WORDS = 2.0        # seconds that closing waits for that reader
LEVELS = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}       # syslog's (RFC 5424, 6.2.1)
LEVEL = re.compile(r'"level": "(\w+)"')


class Journal:
    """`log` is the structlog logger for everything but blocks. Use inside a `with`, which ends with the last line.

    Args:
        file: where lines go.
        privacy: what a line about a block may say.
        rate: lines about blocks in one second.
        summary: say how many blocks were over the rate; else only count them.
        day_bytes: of the lines that are relayed for workers, in one day (UTC).
    """

    def __init__(self, file: TextIO, privacy: Privacy, rate: int, *, summary: bool = True,
                 day_bytes: int = 0) -> None:
        self.privacy = privacy
        self.rate = rate
        self.lost = 0           # lines that nobody was there to read
        self.unlogged = 0       # blocks over the rate, since the start
        self.over_day = 0       # relayed lines over the day's bytes, since the start
        self._summary = summary
        self._day_bytes = day_bytes
        self._day = -1
        self._day_left = 0
        self._file = file
        self._ranked = is_journal(file)
        self._lines: queue.Queue[str | None] = queue.Queue(BACKLOG)
        self._second = 0
        self._left = rate
        self._silent = 0        # blocks over the rate that no line has told yet
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self.log = structlog.wrap_logger(
            self,
            processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso", key="time"),
                        _in_reading_order, structlog.processors.JSONRenderer(ensure_ascii=True)],
            wrapper_class=structlog.BoundLogger,
            cache_logger_on_first_use=False)

    def __enter__(self) -> "Journal":
        try:
            self._thread.start()
        except RuntimeError:
            raise SystemProblem("no thread is to be had for the log; allow more (ulimit -u, or TasksMax)") from None
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._lines.put(None, timeout=LAST_WORDS)
        except queue.Full:
            return
        self._thread.join(LAST_WORDS)

    def msg(self, line: str) -> None:
        """What structlog calls with a finished line."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.lost += 1

    debug = info = warning = error = critical = msg

    def blocked(self, now: float, packet: bytes, names: Iterable[Name], again: Sequence[Name] = ()) -> None:
        """Logs what was matched. `now` is the worker's clock in seconds; `packet` starts with its IP header; `again`
        are those that belong to a visit which had a line before.
        """
        self.tick(now)
        for name in names:
            if name.action == "accept":
                continue
            if self._left <= 0:
                self.unlogged += 1
                self._silent += 1
                continue
            self._left -= 1
            said: dict[str, Any] = {"list": name.list, "rule": name.rule,
                                    "action": carried_out(name.action, name.proto), "proto": name.proto}
            if name.order:
                said["order"] = name.order
            if name in again:
                said["again"] = True
            if name.policy is not None:
                said["policy"] = name.policy
            if self.privacy.names:
                said |= {"host": cut(name.host), "path": cut(name.path)}
            if self.privacy.clients:
                said["client"] = client_of(packet)
            self.log.info("observed" if name.action == "observe" else "blocked", **said)

    def relay(self, now: float, line: str) -> None:
        """A finished line of a worker's. `now` is Unix seconds: the day that it counts for."""
        if int(now // 86400) != self._day:
            self._day = int(now // 86400)
            self._day_left = self._day_bytes
        size = len(line) + 1        # lines are ASCII
        if size > self._day_left:
            self.over_day += 1
            return
        self._day_left -= size
        self.msg(line)

    def tick(self, now: float) -> None:
        """Starts a new second of the rate where one has begun; to be called at least every few seconds."""
        if int(now) != self._second:
            self._second = int(now)
            self._left = self.rate
            if self._silent and self._summary:
                self.log.info("blocks not logged", count=self._silent, limit=self.rate)
                self._silent = 0

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._file.write(f"{rank(line)}{line}\n" if self._ranked else line + "\n")
                if self._lines.empty():
                    self._file.flush()
            except (OSError, ValueError):   # the disk is full, or the reader is gone
                self.lost += 1


def is_journal(file: TextIO) -> bool:
    """Whether systemd's journal reads it (systemd.exec(5), JOURNAL_STREAM): only there a line tells its priority."""
    try:
        state = os.fstat(file.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{state.st_dev}:{state.st_ino}"


def rank(line: str) -> str:
    """What sd-daemon(3) wants before a line, so that `journalctl -p err` finds it."""
    level = LEVEL.search(line)
    return f"<{LEVELS.get(level[1], 6) if level else 6}>"


def _in_reading_order(_logger: Any, _method: str, event: Any) -> Any:
    return {"time": event.pop("time"), "level": event.pop("level"), "event": event.pop("event"), **event}


def cut(text: str | None) -> str | None:
    """What a line says of a host or a path; one that somebody has made very long is not to fill memory and disk."""
    return text if text is None or len(text) <= WORDS_MAX else text[:WORDS_MAX] + "..."


def client_of(packet: bytes) -> str:
    """The source address of an IP packet."""
    if packet[0] >> 4 == 4:
        return socket.inet_ntop(socket.AF_INET, packet[12:16])
    return socket.inet_ntop(socket.AF_INET6, packet[8:24])
