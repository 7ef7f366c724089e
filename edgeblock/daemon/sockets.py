"""The sockets of queues, which outlive whoever reads them: packets wait in them for the next worker or daemon.

In: a socket that a worker has bound, or that the service manager has kept. Out: one that is held until it is let go,
and that the service manager is asked to keep. Never here: a packet.
"""

import os
from collections.abc import Iterable

from edgeblock.notify import notify
from edgeblock.source.queue import losses


class QueueSocket:
    """The open socket of a queue: `file`, -1 where nobody has bound one."""

    def __init__(self, queue: int) -> None:
        self.queue = queue
        self.file = -1
        self.marks_by_verdict = False
        self.counts = (0, 0)        # losses before our time

    @property
    def name(self) -> str:
        """What the service manager knows it by: all that the next daemon has to know of it."""
        return f"queue{self.queue}-{'marks' if self.marks_by_verdict else 'plain'}"

    def hold(self, file: int, marks_by_verdict: bool, counts: tuple[int, int] = (0, 0)) -> bool:
        """Takes over an open socket of this queue. False where there is one, and then the other is closed."""
        if self.file >= 0:
            os.close(file)
            return False
        os.set_inheritable(file, False)     # a child that kept it would keep the queue when we let it go
        self.file, self.marks_by_verdict, self.counts = file, marks_by_verdict, counts
        return True

    def store(self) -> None:
        """Has the service manager hold it, too."""
        if self.file >= 0:
            notify(FDSTORE="1", FDNAME=self.name, FDPOLL="0", file=self.file)

    def let_go(self) -> None:
        """Nobody is there to read it: the kernel is to know."""
        if self.file >= 0:
            notify(FDSTOREREMOVE="1", FDNAME=self.name)
            os.close(self.file)
            self.file, self.counts = -1, (0, 0)


def take_kept(kept: dict[str, int], sockets: Iterable[QueueSocket]) -> None:
    """Gives out what the daemon before has left with the service manager; closes what fits no queue."""
    wanted = {f"queue{one.queue}": one for one in sockets}
    for name, file in kept.items():
        stem, _, marking = name.partition("-")
        one = wanted.get(stem)
        counts = losses(file, one.queue) if one else None
        if one is None or counts is None:
            os.close(file)
        else:
            one.hold(file, marking == "marks", counts)
