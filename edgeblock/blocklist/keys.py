"""The key of a deployment: what it is called, and the one place in a process where its bytes are.

In: 16 bytes, or an open file that has them. Out: an id that may be shown; a view of a page that holds the key. That
page is never written to a disk (it is locked, so not swapped out, and left out of core files), and whoever needs the
key is handed the view: none of its bytes is copied. Processes hand the key on as an open file of memory. Never here:
a file by its name.
"""

import errno
import fcntl
import mmap
import os
import platform
from collections.abc import Callable
from hashlib import blake2b

KEY_SIZE = 16

Key = bytes | memoryview

# mmap(2) has this number on all machines but some old ones, which have the key in a page that may be swapped out.
MAP_LOCKED = 0x2000 if platform.machine() in ("x86_64", "aarch64", "riscv64", "s390x", "armv7l", "i686") else 0
NO_KEY = bytes(KEY_SIZE)
ROOM = 4096                 # bytes of the page
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def keyed_sum(data: bytes | bytearray | memoryview, key: Key, size: int = 32, person: bytes = b"") -> bytes:
    """BLAKE2b of the data under the key, `size` bytes."""
    made = blake2b(data, key=key, digest_size=size, person=person).digest()
    # Python wipes what it had in the heap. On the stack of the thread the key stays until something else is written
    # there, which is what the same steps with another one do.
    blake2b(data[:4 * blake2b.MAX_KEY_SIZE], key=NO_KEY, digest_size=size, person=person).digest()
    return made


# Nor does the key pass through the registers while the dynamic linker looks for a function that is called for the
# first time: it saves them on the stack.
for size in (0, 4096):
    keyed_sum(bytes(size), NO_KEY)


def key_id(key: Key) -> bytes:
    """Eight bytes that tell keys apart and tell nothing about them."""
    return keyed_sum(b"", key, 8, b"edgeblock-key-id")


def why_foreign(made_under: bytes, ours: bytes) -> str:
    """What is said of a hashed list whose key, by its id, is not ours."""
    return (f"was made under the key {made_under.hex()}, and the key here is {ours.hex()}; make it again with "
            "`edgeblock hash-list` and this key")


def key_file() -> int:
    """An open file of memory for a key, still empty: `hold` fills it."""
    return os.memfd_create("edgeblock-key", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def hold(fill: Callable[[memoryview], int], file: int = -1) -> memoryview:
    """The key that `fill` has written into the view that it is given; it returns how many bytes.

    Args:
        file: a `key_file` that is to have it too, for another process. Nobody changes it afterwards.

    Raises:
        ValueError: `fill` has not written 16 bytes.
    """
    if file >= 0:
        os.ftruncate(file, ROOM)
    flags = mmap.MAP_SHARED if file >= 0 else mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    page = locked(file, flags, mmap.PROT_READ | mmap.PROT_WRITE)
    with memoryview(page) as room:
        if fill(room) != KEY_SIZE:
            raise ValueError(f"a key is {KEY_SIZE} bytes")
    if file >= 0:
        page.close()                    # a file that somebody may write to by a mapping cannot be sealed
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, SEALS)
        return held(file)
    return memoryview(page)[:KEY_SIZE].toreadonly()


def held(file: int) -> memoryview:
    """The key in a `key_file` that another process has filled.

    Raises:
        ValueError: it has none, or somebody can change it still.
    """
    if fcntl.fcntl(file, fcntl.F_GET_SEALS) & SEALS != SEALS or os.fstat(file).st_size != ROOM:
        raise ValueError("there is no key in the file")
    # Private, as kernels before 6.7 map no sealed file otherwise; as nobody writes it is the one page all the same.
    return memoryview(locked(file, mmap.MAP_PRIVATE, mmap.PROT_READ))[:KEY_SIZE]


def locked(file: int, flags: int, rights: int) -> mmap.mmap:
    try:
        page = mmap.mmap(file, ROOM, flags | MAP_LOCKED, rights)
    except OSError as problem:
        # Whose limit (RLIMIT_MEMLOCK) is no page at all has the key in one that may be swapped out.
        if problem.errno not in (errno.EAGAIN, errno.EPERM, errno.ENOMEM):
            raise
        page = mmap.mmap(file, ROOM, flags, rights)
    page.madvise(mmap.MADV_DONTDUMP)
    return page


def random_key(file: int = -1) -> memoryview:
    """A key that nobody has."""
    def fill(room: memoryview) -> int:
        source = os.open("/dev/urandom", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.readv(source, [room[:KEY_SIZE]])
        finally:
            os.close(source)

    return hold(fill, file)
