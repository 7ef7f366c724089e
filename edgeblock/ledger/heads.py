"""Signed heads: what a segment has up to a moment, as one line that an auditor keeps.

In: a segment's Merkle root and its neighbours; the key of the box. Out: a Head, and five lines of text: the head as
canonical JSON, and over that line (with its end) the four of a minisign signature, so that minisign itself checks it.
A head has the SHA-256 of the head before it, of its first line, so that one head vouches for all before. Never here:
a record.
"""

import base64
import io
import json
import os
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any, NamedTuple

from edgeblock.blocklist.signature import PublicKey, parse_key, verify
from edgeblock.blocklist.store import write_file
from edgeblock.errors import ListError, SystemProblem
from edgeblock.ledger.records import NOTHING, canonical
from edgeblock.ledger.segments import name_of

SEED_SIZE = 32
FORMAT = 1
HEAD_MAX = 8192             # bytes of a head's file
TYPES = {"ledger": int, "segment": int, "day": str, "first": int, "records": int, "root": str, "last": str,
         "previous": str, "time": str, "complete": bool}


class Head(NamedTuple):
    """`records` of a segment, the first of which has the seq `first`, have the Merkle `root` (hex), and the last of
    them the digest `last`. `previous` is the digest of the head of the segment before, `time` when this was signed.
    `complete`: the segment has no more."""

    segment: int
    day: str
    first: int
    records: int
    root: str
    last: str
    previous: str
    time: str
    complete: bool

    @property
    def line(self) -> bytes:
        return canonical({"ledger": FORMAT, **self._asdict()})

    @property
    def digest(self) -> str:
        return sha256(self.line).hexdigest()

    @property
    def file(self) -> str:
        return f"{name_of(self.segment, self.day)}.head"


class Signed(NamedTuple):
    """A head as it is kept: the text of its file; `key_id` as minisign prints it."""

    head: Head
    text: bytes
    key_id: str


def parse_head(line: bytes) -> Head:
    """ValueError where the line is no head."""
    said = json.loads(line)
    if not isinstance(said, dict) or said.keys() != TYPES.keys() or any(
            type(said[name]) is not kind for name, kind in TYPES.items()) or said.pop("ledger") != FORMAT:
        raise ValueError("is no head")
    head = Head(**said)
    if head.line != line:
        raise ValueError("is not spelt as heads are")
    return head


def parse_signed(text: bytes) -> Signed:
    """The head in the text of a head's file; whether it is signed is another question. ValueError where it is
    none."""
    line, _, rest = text.partition(b"\n")
    told = rest.split(b"\n")
    if len(text) > HEAD_MAX or len(told) < 4:
        raise ValueError("is no head with its signature")
    try:
        signature = base64.b64decode(told[1], validate=True)
    except ValueError:
        raise ValueError("has no signature") from None
    return Signed(parse_head(line), text, str(PublicKey(signature[2:10], b"")))


def is_by(signed: Signed, keys: list[PublicKey]) -> str:
    """Why a head is not signed with one of the keys; "" where it is."""
    line, _, minisig = signed.text.partition(b"\n")
    try:
        verify(io.BytesIO(line + b"\n"), minisig, keys, signed.head.file)
    except ListError as problem:
        return str(problem)
    return ""


class BoxKey:
    """What signs heads."""

    def __init__(self, seed: bytes) -> None:
        from nacl.signing import SigningKey  # a daemon without a ledger needs no library for signatures

        self._key = SigningKey(seed)
        public = bytes(self._key.verify_key)
        self.public = PublicKey(sha256(public).digest()[:8], public)

    @property
    def text(self) -> str:
        """The public key as minisign has it: 56 characters."""
        return base64.b64encode(b"Ed" + self.public.id + self.public.key).decode()

    def sign(self, head: Head, seconds: int) -> Signed:
        """`seconds` is Unix time, for the trusted comment."""
        line = head.line
        signature = self._key.sign(blake2b(line + b"\n", digest_size=64).digest()).signature
        comment = f"timestamp:{seconds}\tfile:{head.file}\thashed".encode()
        over = self._key.sign(signature + comment).signature
        text = b"\n".join([line, b"untrusted comment: signature of an edgeblock ledger",
                           base64.b64encode(b"ED" + self.public.id + signature), b"trusted comment: " + comment,
                           base64.b64encode(over), b""])
        return Signed(head, text, str(self.public))


def read_key(directory: Path) -> tuple[BoxKey, bool]:
    """The key in a ledger's directory, and whether it was made now.

    Raises:
        OSError: it cannot be read or made.
        SystemProblem: it is no key, or others may read it.
    """
    path = directory / "key"
    made = not path.exists()
    if made:
        seed = os.urandom(SEED_SIZE)
        write_file(path, lambda file: file.write(seed), keep=True)
    with open(path, "rb") as file:
        seed, mode = file.read(SEED_SIZE + 1), os.fstat(file.fileno()).st_mode
    if len(seed) != SEED_SIZE:
        raise SystemProblem(f"{path}: is no key of {SEED_SIZE} bytes; move it away and a new one is made")
    if mode & 0o077:
        raise SystemProblem(f"{path}: the key may be read by others (mode {mode & 0o777:04o}); chmod 600 {path}")
    key = BoxKey(seed)
    public = f"untrusted comment: public key of an edgeblock ledger {key.public}\n{key.text}\n".encode()
    place = directory / "key.pub"
    if not place.exists() or place.read_bytes() != public:
        write_file(place, lambda file: file.write(public), mode=0o644)
    return key, made


def read_public(text: str, place: str) -> PublicKey:
    """A public key out of a .pub file's text, or its 56 characters alone. ListError where it is none."""
    said = [line.strip() for line in text.splitlines() if line.strip()]
    return parse_key(said[-1] if said else "", place)


def told(signed: Signed) -> dict[str, Any]:
    """For a line of the log, from which `verify --heads` reads it again."""
    return {"segment": signed.head.segment, "day": signed.head.day, "records": signed.head.records,
            "complete": signed.head.complete, "signed": signed.text.decode("ascii")}


FIRST = NOTHING             # `previous` of the first head
