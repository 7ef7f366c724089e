"""Builds QUIC Initial packets for tests, with aioquic's cryptography: a second opinion on ours.

Every field can be set to what no honest client sends; lengths and numbers are encoded as they are asked for.
"""

from aioquic.quic.crypto import INITIAL_CIPHER_SUITE, CryptoContext
from aioquic.tls import cipher_suite_hash, hkdf_expand_label, hkdf_extract

VERSION_1 = 0x00000001
VERSION_2 = 0x6B3343CF
DRAFT_29 = 0xFF00001D
DRAFT_27 = 0xFF00001B
MVFST = 0xFACEB002

SALTS = {
    VERSION_1: bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"),
    VERSION_2: bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"),
    DRAFT_29: bytes.fromhex("afbfec289993d24c9e9786f19c6111e04390a899"),
    DRAFT_27: bytes.fromhex("c3eef712c72ebb5a11a7d2432bb46365bef9f502"),
    MVFST: bytes.fromhex("c3eef712c72ebb5a11a7d2432bb46365bef9f502"),
}
DCID = bytes.fromhex("8394c8f03e515708")      # of RFC 9001, appendix A


def varint(value: int, size: int = 0) -> bytes:
    """RFC 9000, section 16; `size` of 1, 2, 4 or 8 forces a longer form."""
    if not size:
        size = next(n for n in (1, 2, 4, 8) if value < 1 << (8 * n - 2))
    prefix = {1: 0, 2: 1, 4: 2, 8: 3}[size]
    return (value | prefix << (8 * size - 2)).to_bytes(size, "big")


def secret(dcid: bytes, version: int = VERSION_1, side: str = "client") -> bytes:
    """What the keys of one side's Initial packets are expanded from: RFC 9001, 5.2."""
    algorithm = cipher_suite_hash(INITIAL_CIPHER_SUITE)
    return hkdf_expand_label(algorithm, hkdf_extract(algorithm, SALTS[version], dcid), f"{side} in".encode(), b"", 32)


def keys(dcid: bytes, version: int = VERSION_1, side: str = "client") -> CryptoContext:
    context = CryptoContext()
    context.setup(cipher_suite=INITIAL_CIPHER_SUITE, secret=secret(dcid, version, side), version=version)
    return context


def crypto(offset: int, data: bytes, *, sizes: tuple[int, int, int] = (0, 0, 0)) -> bytes:
    """A CRYPTO frame; `sizes` forces the forms of type, offset and length."""
    return varint(6, sizes[0]) + varint(offset, sizes[1]) + varint(len(data), sizes[2]) + data


def initial(frames: bytes, *, dcid: bytes = DCID, scid: bytes = b"", version: int = VERSION_1, number: int = 0,
            number_size: int = 2, token: bytes = b"", token_form: int = 0, keys_of: bytes | None = None,
            keys_version: int | None = None, side: str = "client", size: int = 0) -> bytes:
    """One Initial packet, padded to `size` bytes; `keys_of` is the connection id its keys come from."""
    kind = 0xD0 if version == VERSION_2 else 0xC0
    header = bytes([kind | number_size - 1]) + version.to_bytes(4, "big") + bytes([len(dcid)]) + dcid
    header += bytes([len(scid)]) + scid + varint(len(token), token_form) + token
    if size:
        frames += bytes(max(0, size - len(header) - 2 - number_size - len(frames) - 16))
    frames += bytes(max(0, 4 - number_size - len(frames)))       # a sample must be there (RFC 9001, 5.4.2)
    length = number_size + len(frames) + 16
    header += varint(length, 2 if length < 1 << 14 else 4)
    header += (number & (1 << 8 * number_size) - 1).to_bytes(number_size, "big")
    context = keys(dcid if keys_of is None else keys_of, keys_version or version, side)
    return context.encrypt_packet(header, frames, number)
