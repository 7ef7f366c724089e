"""Files of sketches as the daemon keeps them, for tests. In: what was asked for where. Out: the file."""

import time
from collections.abc import Mapping
from pathlib import Path

from edgeblock.blocklist.impact import FILE, Period, write_periods
from edgeblock.core.sketch import Sketches, size_of
from edgeblock.core.tally import close_parts
from tests.core import samples as s

HOUR = 3600.0
Asked = Mapping[str, tuple[int, int]]       # destination -> so many names, each from so many subscribers


def closed(asked: Asked, slots: int = 4096, key: bytes = bytes(16)) -> bytes:
    """A table of it."""
    memory = memoryview(bytearray(size_of(slots)))
    sketches = Sketches(memory, slots, key)
    for destination, (count, subscribers) in asked.items():
        names = [b"www%d.example%d.com" % (number, number % 7) for number in range(count)]
        for number in range(subscribers):
            source = f"2001:db8:{number:x}::1" if ":" in destination else f"10.1.{number >> 8}.{number & 255}"
            sketches.see_all(s.tcp(1, b"x", source=source, destination=destination), names)
    return close_parts([memory])


def write_state(folder: Path, *days: tuple[float, float, Asked], sample: float = 1.0) -> Path:
    """The file in a state directory; each of `days` began and ended so many hours ago."""
    now = time.time()
    periods = [Period(now - began * HOUR, now - ended * HOUR, closed(asked)) for began, ended, asked in days]
    folder.mkdir(exist_ok=True)
    with open(folder / FILE, "wb") as file:
        write_periods(file, periods, sample)
    return folder / FILE
