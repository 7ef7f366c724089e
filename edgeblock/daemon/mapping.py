"""Snapshots in open files, mapped.

In: files that the process that compiles has sealed, and the key. Out: snapshots, whose pages all processes share.
Never here: a list read, or a snapshot made.
"""

import fcntl
import mmap

from edgeblock.blocklist.keys import Key
from edgeblock.blocklist.snapshot import ALL, HEAD, Snapshot, open_snapshot, stack

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def map_snapshot(fd: int, key: Key) -> Snapshot:
    """The snapshot in an open file, mapped; of a sealed one only the header is verified, as all of it was before.

    Raises:
        ListError: it is none, or of another key or version, or not sealed and altered.
    """
    sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
    # Private, because kernels before 6.7 refuse a shared mapping of a file that is sealed; nobody writes, so the
    # pages are shared all the same.
    mapped = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    return open_snapshot(memoryview(mapped), key, verify=HEAD if sealed else ALL)


def map_stacked(fd: int, base_fd: int, key: Key, known: Snapshot | None = None) -> Snapshot:
    """The same, with the one that it lies over; `known` is taken for that if it is the one, and not mapped again."""
    top = map_snapshot(fd, key)
    if not top.parts.base:
        return top
    if known is None or known.digest != top.parts.base:
        known = map_snapshot(base_fd, key)
    return stack(top, known)
