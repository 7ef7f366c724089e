"""Since when the box has had what is listed, over restarts: what tells how long a version took to be on every box.

In: the digest of what is listed, each time that it may be another. Out: Unix seconds; `rules.since` in the state
directory. Never here: an error. Whoever cannot keep it counts from now.
"""

import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from edgeblock.blocklist.store import write_file

FILE = "rules.since"
SIZE_MAX = 1024         # bytes: the process that reads lists may write this file, too, and is not believed


def since(state: Path, content: str, now: float) -> float:
    """When `content` came into force: `now`, unless the file says that it was so before and nothing else since."""
    known = _read(state / FILE)
    if known is not None and known[0] == content and known[1] <= now:
        return known[1]

    def fill(file: BinaryIO) -> Any:
        file.write(json.dumps({"content": content, "since": now}).encode())

    with suppress(OSError):
        write_file(state / FILE, fill, sync=False)      # lost with the power it costs a figure, and no wait here
    return now


def _read(path: Path) -> tuple[str, float] | None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            text = os.read(file, SIZE_MAX)
        finally:
            os.close(file)
        told = json.loads(text)
        content, at = told["content"], told["since"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    usable = isinstance(content, str) and isinstance(at, int | float) and not isinstance(at, bool)
    return (content, float(at)) if usable and math.isfinite(at) and at > 0 else None
