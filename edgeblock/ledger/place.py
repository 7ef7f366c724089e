"""Where the ledger of a box is. In: a Config. Out: a path. Never here: a look whether it is there."""

from pathlib import Path

from edgeblock.config import Config


def directory_of(config: Config) -> Path:
    """The ledger's directory: not in the state directory, all of which the process that reads lists may write."""
    state = config.rules.key.parent.absolute()
    return config.ledger.directory or state.with_name(f"{state.name}-ledger")
