"""The parts of a snapshot <-> one bytes object.

    header     fixed size, little-endian: magic, version, key id, build time, total size, where each section is, the
               bounds of a look-up, and a digest
    lists      JSON: name, action, mandatory, category and number of entries of each list
    bitmap     roaring, portable format: the first 32 bits of every fingerprint
    ipv4       roaring, portable format: every listed IPv4 destination
    rows       20 bytes each, sorted: 128-bit fingerprint (big-endian order), value as 32 bits little-endian

In: Compiled and a key, or bytes and a key. Out: bytes, or a Snapshot whose every section lies inside the bytes. No
host and no URL is in it in plain text. The digest is keyed BLAKE2b over everything but itself, so a snapshot that
was cut, altered or made under another key is refused with that reason; nothing else of it is read before.
"""

import hmac
import json
import struct
from dataclasses import asdict, dataclass
from hashlib import blake2b

from edgeblock.blocklist.compiler import LISTS_MAX, Compiled, ListRecord
from edgeblock.blocklist.keys import key_id
from edgeblock.blocklist.settings import ACTIONS
from edgeblock.errors import ListError

MAGIC = b"EBLIST\r\n"       # the line end shows a transfer that changed line ends
VERSION = 1
HEADER = struct.Struct("<8sHHI8sQQ 8Q QQQ3Q II 32s")
DIGEST_SIZE = 32
ROW_SIZE = 20


@dataclass(frozen=True)
class Snapshot:
    """An opened snapshot: `parts` as memoryviews into `data`, which keeps them alive. `built` is Unix seconds."""

    data: memoryview
    key: bytes
    built: int
    digest: str
    parts: Compiled


def digest_of(data: memoryview, key: bytes) -> bytes:
    digest = blake2b(data[:HEADER.size - DIGEST_SIZE], key=key, digest_size=DIGEST_SIZE)
    digest.update(data[HEADER.size:])
    return digest.digest()


def pack(parts: Compiled, key: bytes, built: int) -> bytes:
    """One snapshot as bytes. `built` is Unix seconds."""
    lists = json.dumps([asdict(record) for record in parts.lists], separators=(",", ":")).encode()
    sections = (lists, parts.bitmap, parts.ipv4, parts.rows)
    places, at = [], HEADER.size
    for section in sections:
        places += [at, len(section)]
        at += len(section)
    words = [parts.ipv6_lengths >> shift & 0xFFFFFFFFFFFFFFFF for shift in (0, 64, 128)]
    header = HEADER.pack(MAGIC, VERSION, HEADER.size, len(parts.lists), key_id(key), built, at, *places,
                         parts.labels, parts.depths, parts.ipv4_lengths, *words, parts.url_max,
                         parts.directory_max, bytes(DIGEST_SIZE))
    whole = bytearray().join((header, *sections))
    whole[HEADER.size - DIGEST_SIZE:HEADER.size] = digest_of(memoryview(whole), key)
    return bytes(whole)


def open_snapshot(data: bytes | memoryview, key: bytes, source: str = "snapshot") -> Snapshot:
    """The snapshot in `data`, not copied.

    Raises:
        ListError: no snapshot, or one that is cut, altered, of another version or under another key.
    """
    view = memoryview(data).cast("B").toreadonly()
    if len(view) < HEADER.size or view[:8] != MAGIC:
        raise ListError(f"{source}: is no edgeblock snapshot; build it with `edgeblock compile`")
    (_, version, _, count, made_with, built, total, *rest) = HEADER.unpack_from(view)
    if version != VERSION:
        raise ListError(f"{source}: is of version {version}, this edgeblock reads {VERSION}; build it again")
    if made_with != key_id(key):
        raise ListError(f"{source}: was built under another key; build it with the key of this box")
    if total != len(view):
        raise ListError(f"{source}: has {len(view)} of {total} bytes; build or copy it again")
    digest = digest_of(view, key)
    if not hmac.compare_digest(digest, rest[-1]):
        raise ListError(f"{source}: was altered (its digest does not match); build or copy it again")
    places, bounds = rest[:8], rest[8:-1]
    sections = []
    for at, size in zip(places[::2], places[1::2], strict=True):
        if at > total or size > total - at:
            raise ListError(f"{source}: has a section that lies outside; build it again")
        sections.append(view[at:at + size])
    if len(sections[3]) % ROW_SIZE:
        raise ListError(f"{source}: has a row that is cut; build it again")
    parts = Compiled(read_lists(sections[0], count, source), sections[1], sections[3], sections[2],   # type: ignore
                     bounds[0], bounds[1], bounds[2], bounds[3] | bounds[4] << 64 | bounds[5] << 128, *bounds[6:])
    return Snapshot(view, key, built, digest.hex(), parts)


def read_lists(section: memoryview, count: int, source: str) -> list[ListRecord]:
    try:
        lists = [ListRecord(**record) for record in json.loads(bytes(section))]
    except (ValueError, TypeError, RecursionError):
        lists = []
    if len(lists) != count or count > LISTS_MAX or any(
            record.action not in ACTIONS or not isinstance(record.name, str) for record in lists):
        raise ListError(f"{source}: has a list table that cannot be read; build it again")
    return lists
