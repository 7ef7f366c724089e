"""What an adapter of another filter is."""

from pathlib import Path
from typing import ClassVar

from edgeblock.lab import Lab


class Peer:
    """Use: ask `obstacle`, then `start`, and `stop` whatever happened."""

    name: ClassVar[str]

    @classmethod
    def obstacle(cls) -> str:
        """Why it cannot take part, in one line; empty when it can."""
        raise NotImplementedError

    def start(self, lab: Lab, folder: Path, names: list[str], ports: tuple[int, ...]) -> None:
        """Filters in the lab's box for `names` on TCP `ports`. SystemProblem when it does not come up."""
        raise NotImplementedError

    def stop(self) -> None:
        """The program has ended. What belongs to the lab goes with the lab."""
