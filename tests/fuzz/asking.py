"""Asks servers on loopback, hundreds of connections at once: each sends its bytes and hears what comes back.

In: ports and bytes. Out: whether the answer has a text, by a function that is called. Never here: waiting for one
connection while another could go on, or a connection beyond loopback.
"""

import selectors
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

QUIET = 0.25               # seconds without a byte after which a server has said all it will, at the least:
SLOWER = 5.0               # so many times what its slowest answers took of late, on a busy machine
QUIET_MAX = 2.0
FORGETS = 0.98             # what an answer leaves of the slowest before it
AT_ONCE = 24               # connections to one server; some have a thread for each, and not many
RESET = struct.pack("ii", 1, 0)     # of SO_LINGER: no port is left waiting


@dataclass
class Asked:
    """One connection: `done` is told whether the text came."""

    server: str
    connection: socket.socket
    done: Callable[[str, bool], None]
    heard: bytearray = field(default_factory=bytearray)
    since: float = 0.0          # when it was sent, or last heard


class Asker:
    """Connections to servers, each known by name; `text` is what is looked for in the answers."""

    def __init__(self, ports: dict[str, int], text: bytes):
        self.ports, self.text = ports, text
        self.selector = selectors.EpollSelector()
        # Of each server, by descriptor, who has been quiet for longest first.
        self.open: dict[str, OrderedDict[int, Asked]] = {name: OrderedDict() for name in ports}
        self.slowest = dict.fromkeys(ports, QUIET_MAX / SLOWER)

    def idlest(self, count: int, chance: Callable[[], float]) -> list[str]:
        """The servers with the fewest connections, so that the fast are asked more often."""
        return sorted(self.ports, key=lambda name: (len(self.open[name]), chance()))[:count]

    def is_full(self, count: int) -> bool:
        """Whether fewer than that many servers have a place."""
        return sum(len(some) < AT_ONCE for some in self.open.values()) < count

    def ask(self, server: str, data: bytes, done: Callable[[str, bool], None]) -> None:
        """Sends the bytes; `done` is called with the server's name, later or at once."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asked = Asked(server, connection, done)
        try:
            # On loopback the handshake is over when connect returns, unless the server's backlog is full.
            connection.settimeout(1.0)
            connection.connect(("127.0.0.1", self.ports[server]))
            connection.sendall(data)
            connection.setblocking(False)
        except OSError:
            self._end(asked)
            return
        asked.since = time.monotonic()
        self.open[server][connection.fileno()] = asked
        self.selector.register(connection, selectors.EVENT_READ, asked)

    def step(self, patience: float) -> None:
        """Takes in what came within so many seconds, and gives up who was quiet for too long."""
        for key, _ in self.selector.select(patience):
            self._hear(key.data)
        now = time.monotonic()
        for name, some in self.open.items():
            quiet = min(max(QUIET, SLOWER * self.slowest[name]), QUIET_MAX)
            while some and (first := next(iter(some.values()))).since + quiet <= now:
                self._end(first)

    def finish(self) -> None:
        """Waits for all that are open."""
        while any(self.open.values()):
            self.step(0.05)

    def _hear(self, asked: Asked) -> None:
        try:
            more = asked.connection.recv(65536)
        except OSError:
            more = b""
        now = time.monotonic()
        self.slowest[asked.server] = max(self.slowest[asked.server] * FORGETS, now - asked.since)
        asked.heard += more
        if not more or self.text in asked.heard:
            self._end(asked)
        else:
            asked.since = now
            self.open[asked.server].move_to_end(asked.connection.fileno())

    def _end(self, asked: Asked) -> None:
        if self.open[asked.server].pop(asked.connection.fileno(), None):
            self.selector.unregister(asked.connection)
        asked.connection.close()
        asked.done(asked.server, self.text in asked.heard)
