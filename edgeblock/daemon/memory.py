"""Files that are nowhere but in memory, and that only those see who are given them.

In: bytes. Out: an open file that has them. Never here: a name in a file system.
"""

import os


def memory_file(content: bytes | memoryview = b"") -> int:
    """An open file with this content."""
    fd = os.memfd_create("edgeblock")
    if content:
        write_all(fd, content)
    return fd


def write_all(fd: int, content: bytes | memoryview) -> None:
    """This content in place of what the file had."""
    os.ftruncate(fd, 0)         # of a try before, for which there was no memory
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
