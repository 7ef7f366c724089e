"""Signatures of lists in minisign's format. In: an open list, the text of its .minisig, and keys. Out: Signed.

A signature covers the bytes of the list, and a second one its trusted comment, which says when the list was signed
and under which file name. `Hashed` takes the hash of exactly the bytes that a reader is given, so nobody can change
the file between the check and the reading: what was read is believed only after `signed()` has returned. What never
happens here: a file opened by name, a clock, a secret key.
"""

import base64
import binascii
import hashlib
import io
import re
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

from edgeblock.errors import ListError

MINISIG_MAX = 16 * 1024             # bytes of a .minisig; minisign's own comments stop at 8 kB
LEGACY_MAX = 64 * 1024 * 1024       # bytes of a list with a legacy signature, which needs all of it in memory
CHUNK = 1024 * 1024
AHEAD = 24 * 3600                   # seconds that a signer's clock may be ahead of ours
KEY_BYTES, SIGNATURE_BYTES, GLOBAL_BYTES = 42, 74, 64
TIMESTAMP = re.compile(r"(?:^|\s)timestamp:([0-9]{1,12})(?=\s|$)")
FILE = re.compile(r"(?:^|\s)file:([^\t]*)")


class PublicKey(NamedTuple):
    """A minisign public key: its id and the Ed25519 key."""

    id: bytes
    key: bytes

    def __str__(self) -> str:
        return self.id[::-1].hex().upper()      # as minisign prints it


class Signed(NamedTuple):
    """A signature that holds: when it was made (Unix seconds), its trusted comment, and whose it is."""

    timestamp: int
    comment: str
    key_id: str


class Minisig(NamedTuple):
    """The parts of a .minisig file."""

    hashed: bool
    key_id: bytes
    signature: bytes
    comment: bytes
    over_comment: bytes


def decode(text: bytes, size: int) -> bytes | None:
    """Base64 of exactly `size` bytes, or None."""
    try:
        made = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return made if len(made) == size else None


def parse_key(text: str, place: str) -> PublicKey:
    """A public key from its 56 characters. `place` stands in front of an error.

    Raises:
        ListError: it is no minisign public key.
    """
    made = decode(text.encode(), KEY_BYTES)
    if made is None or made[:2] != b"Ed":
        raise ListError(f"{place} = {text[:80]!r} is no minisign public key; take the line of the .pub file that "
                        "begins with RW")
    return PublicKey(made[2:10], made[10:])


def keys_for(name: str, signer: str, signers: Sequence[str], required: bool) -> tuple[PublicKey, ...] | None:
    """The keys of which one has to sign the list `name`; None where it needs no signature.

    The main configuration (`signers` and `required`) decides first. `signer`, which stands in NAME.toml, can narrow
    what it decides and never widen it: whoever may write a NAME.toml must not choose whom the box believes.

    Raises:
        ListError: a key is none, or there is no key to ask for.
    """
    own, every = [], []
    for word in signers:
        pinned, _, text = word.rpartition("=")
        key = parse_key(text, "[rules] signers")
        if not pinned:
            every.append(key)
        elif pinned == name:
            own.append(key)
    wanted = own or (every if required else None)
    if required and not wanted:
        raise ListError("[rules] require_signatures = true, and [rules] signers has no key for this list")
    if not signer:
        return tuple(wanted) if wanted is not None else None
    key = parse_key(signer, "signer")
    if wanted is not None and key not in wanted:
        raise ListError(f"signer is the key {key}, which is not among the [rules] signers of the main configuration "
                        "for this list; add it there or take the line out")
    return (key,)


def parse_minisig(text: bytes) -> Minisig:
    """The parts of a .minisig file.

    Raises:
        ListError: it is none.
    """
    lines = text.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n")
    if len(text) > MINISIG_MAX or len(lines) != 4 or not lines[0].startswith(b"untrusted comment: ") \
            or not lines[2].startswith(b"trusted comment: "):
        raise ListError("the signature is no .minisig file of four lines; sign the list again")
    signature, over_comment = decode(lines[1], SIGNATURE_BYTES), decode(lines[3], GLOBAL_BYTES)
    if signature is None or over_comment is None or signature[:2] not in (b"Ed", b"ED"):
        raise ListError("the signature is damaged; sign the list again")
    return Minisig(signature[:2] == b"ED", signature[2:10], signature[10:],
                   lines[2].removeprefix(b"trusted comment: "), over_comment)


class Hashed(io.RawIOBase):
    """A list as it is read, with its signature: wrap it in io.BufferedReader, read, then ask `signed()`."""

    def __init__(self, file: BinaryIO, minisig: bytes, keys: Sequence[PublicKey], file_name: str) -> None:
        """Raises:
            ListError: the signature is none, or of none of the `keys`.
        """
        super().__init__()
        self._file = file
        self._parts = parse_minisig(minisig)
        self._name = file_name
        self._key = next((key for key in keys if key.id == self._parts.key_id), None)
        if self._key is None:
            raise ListError(f"is signed with the key {PublicKey(self._parts.key_id, b'')}, which is not pinned for "
                            f"this list ({', '.join(map(str, keys))} would be); add that key or refuse the list")
        self._hash = hashlib.blake2b(digest_size=64)
        self._whole = bytearray()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        size = self._file.readinto(view)        # type: ignore[attr-defined]
        if self._parts.hashed:
            self._hash.update(view[:size])
        else:
            self._whole += view[:size]
            if len(self._whole) > LEGACY_MAX:
                raise ListError(f"has a legacy signature and more than {LEGACY_MAX} bytes; sign it with minisign "
                                "0.10 or later, or with -H")
        return size

    def signed(self) -> Signed:
        """Reads what is left and says whose signature it is.

        Raises:
            ListError: the signature does not hold, or is not of this list.
        """
        rest = bytearray(CHUNK)
        while self.readinto(rest):
            pass
        parts, key = self._parts, self._key
        assert key is not None
        message = self._hash.digest() if parts.hashed else bytes(self._whole)
        if not holds(key, message, parts.signature):
            raise ListError("the signature does not fit the list: one of the two was altered or is of another "
                            "version; drop both again, the signature first")
        if not holds(key, parts.signature + parts.comment, parts.over_comment):
            raise ListError("the trusted comment of the signature was altered; sign the list again")
        comment = parts.comment.decode("utf-8", "backslashreplace")
        if (named := FILE.search(comment)) and named[1] != self._name:
            raise ListError(f"the signature is of a file {named[1][:80]!r}, not of this one; sign the list under its "
                            "own name")
        stamp = TIMESTAMP.search(comment)
        if stamp is None:
            raise ListError("the signature has no timestamp in its trusted comment, so an older list could not be "
                            "told from a newer; sign it without -t, or with 'timestamp:SECONDS' in that text")
        return Signed(int(stamp[1]), comment, str(key))


def holds(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """Whether Ed25519 `signature` of `message` is by `key`."""
    from nacl.exceptions import BadSignatureError  # who only reads keys needs no library for signatures
    from nacl.signing import VerifyKey

    try:
        VerifyKey(key.key).verify(message, signature)
    except BadSignatureError:
        return False
    return True


def verify(file: BinaryIO, minisig: bytes, keys: Sequence[PublicKey], file_name: str) -> Signed:
    """Whose signature a whole list has; reads `file` from where it stands to its end.

    Raises:
        ListError: the signature does not hold, is of none of the `keys`, or not of the file `file_name`.
    """
    return Hashed(file, minisig, keys, file_name).signed()


def refuses_replay(signed: Signed, accepted: int | None, now: float) -> str | None:
    """Why a list of this signature is not taken after one signed at `accepted`; None where it is."""
    if signed.timestamp > now + AHEAD:
        return (f"was signed {int(signed.timestamp - now) // 3600} hours in the future; set the clock of the signer, "
                "or of this box")
    if accepted is not None and signed.timestamp < accepted:
        return (f"is older than the version in force: signed at {signed.timestamp}, and that one at {accepted} (Unix "
                "seconds); sign it again to go back to it")
    return None
