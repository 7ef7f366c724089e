"""A TSIG key from a file, and the check of what it has signed (RFC 8945).

In: a file as BIND's tsig-keygen writes it, or one line ALGORITHM:NAME:SECRET as dig takes it. Out: a key; for each
message of an answer, whether it is signed as it must be. Never here: a key in a message for people, a log or a copy.
"""

import base64
import binascii
import os
import re
import stat
import time
from pathlib import Path

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.tsig

from edgeblock.errors import ConfigError
from edgeblock.fleet.zone_wire import RECORD, BadMessage, Message

FILE_MAX = 16 * 1024
ALGORITHMS = {name: dns.name.from_text(name) for name in ("hmac-sha256", "hmac-sha384", "hmac-sha512")}
SECRET_MIN = 16             # bytes: what can be guessed signs nothing
UNSIGNED_MAX = 99           # messages in a row (RFC 8945, 5.3.1)
TOKEN = re.compile(r'\s+|//[^\n]*|#[^\n]*|/\*.*?\*/|"([^"\n]*)"|([{};])|([^\s{};"]+)', re.DOTALL)
WORDS = {
    dns.tsig.BadSignature: "its signature is wrong (BADSIG): the secrets of the two sides differ, or it is forged",
    dns.tsig.BadKey: "it is signed with a key of another name (BADKEY)",
    dns.tsig.BadAlgorithm: "it is signed with another algorithm than the key's",
    dns.tsig.BadTime: "it was signed at another time (BADTIME): see that the clocks of both sides are right",
    dns.tsig.PeerBadKey: "it does not know the key (BADKEY): is its name, algorithm and secret there, too?",
    dns.tsig.PeerBadSignature: "it says that our signature is wrong (BADSIG): the secrets of the two sides differ",
    dns.tsig.PeerBadTime: "it says that our clock is wrong (BADTIME): see that the clocks of both sides are right",
    dns.tsig.PeerBadTruncation: "it takes no signature of this length (BADTRUNC)",
}


class Untrusted(Exception):
    """What came is not signed as it has to be; `forged`: it cannot be of somebody who has the key."""

    def __init__(self, why: str, forged: bool = False) -> None:
        super().__init__(why)
        self.forged = forged


def read_key(path: Path) -> dns.tsig.Key:
    """Raises ConfigError with one line that shows nothing of what the file says."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise ConfigError(f"{path}: is no regular file")
            if info.st_mode & 0o027:
                raise ConfigError(f"{path}: the key can be read or changed by others; run chmod 640 {path}")
            text = file.read(FILE_MAX + 1).decode()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is no text") from None
    if len(text) > FILE_MAX:
        raise ConfigError(f"{path}: is larger than {FILE_MAX} bytes, which no key is")
    found = statement(path, text) if "{" in text else tuple(text.strip().split(":"))
    if len(found) != 3:
        raise ConfigError(f"{path}: has neither key \"NAME\" {{ algorithm ...; secret ...; }}; nor one line "
                          "ALGORITHM:NAME:SECRET")
    algorithm, name, secret = found
    if algorithm.lower().rstrip(".") not in ALGORITHMS:
        raise ConfigError(f"{path}: the algorithm must be {', '.join(ALGORITHMS)}; make a key with "
                          f"tsig-keygen -a hmac-sha256 NAME")
    try:
        made = base64.b64decode(secret, validate=True)
        known = dns.name.from_text(name).canonicalize()
    except (binascii.Error, ValueError, dns.exception.DNSException):
        raise ConfigError(f"{path}: the name is none of DNS, or the secret is no base64") from None
    if len(made) < SECRET_MIN:
        raise ConfigError(f"{path}: the secret has fewer than {SECRET_MIN} bytes; make one with tsig-keygen NAME")
    return dns.tsig.Key(known, made, ALGORITHMS[algorithm.lower().rstrip(".")])


def statement(path: Path, text: str) -> tuple[str, ...]:
    """Algorithm, name and secret of BIND's `key NAME { algorithm A; secret S; };`; one only."""
    words, at = [], 0
    while at < len(text):
        if (found := TOKEN.match(text, at)) is None:
            raise ConfigError(f"{path}: has a quote without its other half")
        at = found.end()
        words += [group for group in found.groups() if group is not None]
    if words.count("{") != 1:
        raise ConfigError(f"{path}: has more than one key; put each into a file of its own")
    try:
        key, name, opened, *inside = words
        closed = inside.index("}")
        parts = inside[:closed]
        if key != "key" or opened != "{" or inside[closed:] not in (["}", ";"], ["}"]) or len(parts) != 6:
            return ()
        values = {parts[0]: parts[1], parts[3]: parts[4]}
        return values["algorithm"], name, values["secret"]
    except (KeyError, ValueError, IndexError):
        return ()


class Signatures:
    """The messages of one answer, in their order, against the key that the question was signed with."""

    def __init__(self, key: dns.tsig.Key | None, request_mac: bytes) -> None:
        self.key = key
        self.mac = request_mac
        self.context: dns.tsig.HMACTSig | None = None
        self.unsigned = 0           # messages since the last that was signed
        self.begun = False

    def check(self, message: Message) -> None:
        """Takes one message whose records have been read. Raises Untrusted or BadMessage."""
        at = message.signature_at()
        if self.key is None:
            if at is not None:
                raise Untrusted("it is signed, and no key is configured here (key_file)")
            return
        if at is None:
            self.unsigned += 1
            if not self.begun:
                raise Untrusted("its answer is not signed, and a key is configured (key_file)", forged=True)
            if self.unsigned > UNSIGNED_MAX:
                raise Untrusted(f"more than {UNSIGNED_MAX} messages in a row are not signed", forged=True)
            if self.context is not None:
                self.context.update(message.wire)
            return
        try:
            owner, _ = dns.name.from_wire(message.wire, at)
            _, data_at = message.name(at)
            kind, rdclass, _, size = RECORD.unpack_from(message.wire, data_at)
            signature = dns.rdata.from_wire(rdclass, kind, message.wire, data_at + RECORD.size, size)
            self.context = dns.tsig.validate(message.wire, self.key, owner, signature, int(time.time()), self.mac, at,
                                             self.context, True)
        except tuple(WORDS) as error:
            raise Untrusted(WORDS[type(error)], forged=isinstance(error, dns.tsig.BadSignature)) from None
        except dns.tsig.PeerError:
            raise Untrusted("it does not take our signature") from None
        except (dns.exception.DNSException, ValueError) as error:
            raise BadMessage(f"its signature cannot be read ({type(error).__name__})") from None
        self.begun, self.unsigned = True, 0

    @property
    def is_complete(self) -> bool:
        """The last message was signed, where a key is configured."""
        return self.key is None or self.begun and not self.unsigned
