"""Key files of a repository: made, kept, found by what they sign for, opened.

In: a directory of files NAME.key (PEM, PKCS 8, encrypted or for its owner alone) with NAME.pub beside it, a
passphrase where one is needed. Out: signers, and public keys. Keys are Ed25519. Never here: what is signed.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, SSlibKey

from edgeblock.blocklist.store import write_file
from edgeblock.errors import EdgeblockError

KEY, PUBLIC = ".key", ".pub"
KEY_MAX = 16 << 10          # bytes of a key file; one has 119, an encrypted one 300
ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"


class KeyProblem(EdgeblockError):
    """A key file cannot be used, or is not there."""


class Keys:
    """The keys of one directory. `passphrase` is asked once, for the first key that needs it."""

    def __init__(self, directory: Path, passphrase: Callable[[], bytes | None] = lambda: None) -> None:
        self.directory = directory
        self._ask = passphrase
        self._asked: list[bytes | None] = []
        self._public: dict[str, Path] = {}
        self._signers: dict[str, CryptoSigner] = {}
        for path in sorted(directory.glob(f"*{PUBLIC}")):
            if path.with_suffix(KEY).exists():
                self._public[read_public(path).keyid] = path.with_suffix(KEY)

    def passphrase(self) -> bytes | None:
        if not self._asked:
            self._asked.append(self._ask())
        return self._asked[0]

    def has(self, keyid: str) -> bool:
        return keyid in self._public

    def file_of(self, keyid: str) -> Path | None:
        return self._public.get(keyid)

    def signers(self, keyids: Iterable[str]) -> list[CryptoSigner]:
        """Those of these keys that are here, opened. Raises KeyProblem where one cannot be."""
        return [self._signer(keyid) for keyid in keyids if keyid in self._public]

    def _signer(self, keyid: str) -> CryptoSigner:
        if keyid not in self._signers:
            signer = open_key(self._public[keyid], self.passphrase)
            if signer.public_key.keyid != keyid:
                raise KeyProblem(f"{self._public[keyid]}: is not the key of the {PUBLIC} file beside it")
            self._signers[keyid] = signer
        return self._signers[keyid]

    def make(self, name: str, encrypted: bool) -> SSlibKey:
        """A new key in a file of this name, or of the next one that is free.

        Args:
            encrypted: with the passphrase, where there is one.

        Raises:
            KeyProblem: it cannot be written.
        """
        private = Ed25519PrivateKey.generate()
        secret = self.passphrase() if encrypted else None
        path, number = self.directory / f"{name}{KEY}", 1
        while path.exists():
            number += 1
            path = self.directory / f"{name}-{number}{KEY}"
        text = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8,
                                     BestAvailableEncryption(secret) if secret else NoEncryption())
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(path, lambda file: file.write(text), keep=True)
            write_file(path.with_suffix(PUBLIC), lambda file: file.write(public_text(private.public_key())),
                       mode=0o644)
        except OSError as problem:
            raise KeyProblem(f"{path}: cannot be written: {problem.strerror}; name a directory for keys that you may "
                             "write with --keys DIR") from None
        signer = CryptoSigner(private)
        self._public[signer.public_key.keyid] = path
        self._signers[signer.public_key.keyid] = signer
        return signer.public_key


def public_text(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_bounded(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            text = file.read(KEY_MAX + 1)
    except OSError as problem:
        raise KeyProblem(f"{path}: cannot be read: {problem.strerror}") from None
    if len(text) > KEY_MAX:
        raise KeyProblem(f"{path}: is longer than {KEY_MAX} bytes, which no key is")
    return text


def read_public(path: Path) -> SSlibKey:
    """Raises KeyProblem."""
    try:
        key = load_pem_public_key(read_bounded(path))
    except ValueError:
        raise KeyProblem(f"{path}: is no public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyProblem(f"{path}: is no key of Ed25519; make one with `edgeblock publish init`, or with `openssl "
                         "genpkey -algorithm ed25519`")
    return SSlibKey.from_crypto(key)


def open_key(path: Path, passphrase: Callable[[], bytes | None]) -> CryptoSigner:
    """Raises KeyProblem: it is no key, others may read it, or the passphrase is not its."""
    text = read_bounded(path)
    locked = text.startswith(ENCRYPTED)
    if not locked and (mode := os.stat(path).st_mode & 0o077):
        raise KeyProblem(f"{path}: others may read it (mode {mode:03o} for them) and it is not encrypted; chmod 600 "
                         f"{path}, and make another key if somebody may have had it (`edgeblock publish rotate`)")
    secret = passphrase() if locked else None
    if locked and not secret:
        raise KeyProblem(f"{path}: is encrypted; give --passphrase-file FILE, or name one in "
                         "EDGEBLOCK_PASSPHRASE_FILE")
    try:
        key = load_pem_private_key(text, secret)
    except (ValueError, TypeError):
        raise KeyProblem(f"{path}: cannot be opened: "
                         f"{'the passphrase is another' if locked else 'is no private key in PEM'}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyProblem(f"{path}: is no key of Ed25519")
    return CryptoSigner(key)
