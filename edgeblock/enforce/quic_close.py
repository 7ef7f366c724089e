"""The datagram that ends a QUIC connection before it begins.

In: the blocked datagram of the client. Out: the payload of the answer, a CONNECTION_CLOSE in an Initial packet as
the server would send it, or None where there is nothing to answer. Never here: addresses, ports, checksums (the
caller wraps it), an exception because of what a client sent, a decision.

The client takes it because everything in it is right: the version is its own; the destination is the id it chose
for itself; the source is the id it addresses its packets to, so it holds before the server has answered (any id would
do) and after (no other would, RFC 9000 section 7.2); and the keys are those of the server's Initial packets, which
anyone who saw the client's first packet can derive (RFC 9001 section 5.2). A packet with nothing but CONNECTION_CLOSE
asks for no acknowledgement, so it need not be padded (RFC 9000 section 14.1). It is never longer than the datagram it
answers: nobody has proved that the address is his own.
"""

import hmac
from dataclasses import dataclass

from edgeblock.enforce.seal import one_block, seal

# What the client is told: CRYPTO_ERROR with the TLS alert access_denied (RFC 9000 section 20.1, RFC 8446 section
# 6.2), as over TCP. docs/benchmarks.md has what clients make of this and of others.
ERROR_CODE = 0x0100 + 49

MAX_CONNECTION_ID = 20          # RFC 9000, 17.2
_CLOSE = 0x1C                   # RFC 9000, 19.19
_CRYPTO = 0x06                  # the frame type that is said to be at fault
_TAG = 16                       # bytes that AES-128-GCM adds
_PACKET_NUMBER = 0x3FFF0000     # above any that a server has used by now, so that it is no duplicate


@dataclass(frozen=True)
class _Version:
    salt: bytes
    label: bytes                # prefix of the key labels
    initial: int                # first byte of an Initial with a packet number of one byte
    kind: int                   # packet type of an Initial
    retry: int                  # packet type of a Retry


# RFC 9001, 5.2; RFC 9369, 3.2 and 3.3; draft-ietf-quic-tls-29, 5.2.
_VERSIONS = {
    0x00000001: _Version(bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), b"quic", 0xC0, 0, 3),
    0x6B3343CF: _Version(bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"), b"quicv2", 0xD0, 1, 0),
    0xFF00001D: _Version(bytes.fromhex("afbfec289993d24c9e9786f19c6111e04390a899"), b"quic", 0xC0, 0, 3),
}


def close_datagram(client_datagram: bytes, original_id: bytes | None = None,
                   error_code: int = ERROR_CODE) -> bytes | None:
    """The UDP payload that makes the client of `client_datagram` give up, or None.

    Args:
        client_datagram: a UDP payload; its first Initial packet is answered. None without one, for a version other
            than 1, 2 and draft-29, and for one that is shorter than the answer.
        original_id: the destination connection id of the client's first Initial (after a Retry: of the first one
            behind it), where that is known; None means that this is the one.
        error_code: a transport error code, RFC 9000 section 20.1.
    """
    found = _first_initial(client_datagram)
    if found is None:
        return None
    number, version, destination, source = found
    frame = _varint(_CLOSE) + _varint(error_code) + _varint(_CRYPTO) + _varint(0)
    header = bytes([version.initial | 3]) + number.to_bytes(4, "big")
    header += bytes([len(source)]) + source + bytes([len(destination)]) + destination
    header += _varint(0) + _varint(4 + len(frame) + _TAG) + _PACKET_NUMBER.to_bytes(4, "big")
    if len(header) + len(frame) + _TAG > len(client_datagram):
        return None
    return _protect(version, destination if original_id is None else original_id, header, frame)


def _first_initial(datagram: bytes) -> tuple[int, _Version, bytes, bytes] | None:
    # Version, destination and source connection id of the first Initial (RFC 9000, 17.2 and 12.2).
    at = 0
    while at + 7 <= len(datagram) and datagram[at] & 0x80:
        first = datagram[at]
        number = int.from_bytes(datagram[at + 1:at + 5], "big")
        version = _VERSIONS.get(number)
        if version is None:
            return None
        ids = []
        at += 5
        for _ in range(2):
            size = datagram[at] if at < len(datagram) else 255
            if size > MAX_CONNECTION_ID or at + 1 + size > len(datagram):
                return None
            ids.append(datagram[at + 1:at + 1 + size])
            at += 1 + size
        kind = first >> 4 & 3
        if kind == version.kind:
            return number, version, ids[0], ids[1]
        if kind == version.retry:
            return None
        length, at = _take_varint(datagram, at)
        at += length
    return None


def _take_varint(data: bytes, at: int) -> tuple[int, int]:
    # The value and where it ends; beyond the end of the data where it is cut (RFC 9000, 16).
    if at >= len(data):
        return 0, len(data)
    size = 1 << (data[at] >> 6)
    if at + size > len(data):
        return 0, len(data)
    return int.from_bytes(data[at:at + size], "big") & (1 << 8 * size - 2) - 1, at + size


def _varint(value: int) -> bytes:
    for size, prefix in ((1, 0), (2, 1), (4, 2)):
        if value < 1 << 8 * size - 2:
            return (value | prefix << 8 * size - 2).to_bytes(size, "big")
    return (value | 3 << 62).to_bytes(8, "big")


def _expand_label(secret: bytes, label: bytes, size: int) -> bytes:
    # HKDF-Expand-Label with an empty context, for at most 32 bytes: one round of HKDF-Expand (RFC 8446, 7.1).
    label = b"tls13 " + label
    info = size.to_bytes(2, "big") + bytes([len(label)]) + label + b"\x00"
    return hmac.digest(secret, info + b"\x01", "sha256")[:size]


def client_initial(destination: bytes, number: int, frames: bytes, size: int, version: int = 1) -> bytes:
    """An Initial packet as a client sends it, padded to `size` bytes, which is at least 64 with them."""
    made = _VERSIONS[version]
    frames += bytes(size - 14 - len(destination) - _TAG - len(frames))
    header = bytes([made.initial | 3]) + version.to_bytes(4, "big") + bytes([len(destination)]) + destination
    header += b"\x00\x00" + (0x4000 | 4 + len(frames) + _TAG).to_bytes(2, "big") + number.to_bytes(4, "big")
    return _protect(made, destination, header, frames, b"client in")


def _protect(version: _Version, original_id: bytes, header: bytes, frames: bytes,
             side: bytes = b"server in") -> bytes:
    # RFC 9001, 5.2 to 5.4, with a packet number of four bytes.
    secret = _expand_label(hmac.digest(version.salt, original_id, "sha256"), side, 32)
    key, iv, mask_key = (_expand_label(secret, version.label + name, size)
                         for name, size in ((b" key", 16), (b" iv", 12), (b" hp", 16)))
    nonce = iv[:8] + bytes(a ^ b for a, b in zip(iv[8:], header[-4:], strict=True))
    sealed = seal(key, nonce, frames, header)
    mask = one_block(mask_key, sealed[:16])
    masked = bytes(a ^ b for a, b in zip(header[-4:], mask[1:5], strict=True))
    return bytes([header[0] ^ mask[0] & 0x0F]) + header[1:-4] + masked + sealed
