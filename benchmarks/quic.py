"""How fast QUIC Initials are read, on one core: keys derived, packet opened, CRYPTO stream read for its name.

    .venv/bin/python benchmarks/quic.py [--quick] [--rounds N] [--output DIR]

The reader alone (core.quic); then the same keys and the same opening with the `cryptography` package, which libcrypto
was chosen against, and the answer to a blocked client. The whole engine is measured by engine.py. What is timed is
processor time.
"""

import time
from collections.abc import Callable
from functools import cache, partial
from hashlib import sha256

import harness
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoPair
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from edgeblock.core.connections import Reader
from edgeblock.enforce.quic_close import close_datagram

COUNT = 50_000
SIZE = 1250             # of a datagram, as Chromium sends it
SALT = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")        # RFC 9001, 5.2
UNLIMITED = {"derivations": 2**32 - 1, "failures": 2**32 - 1, "worker_derivations": 2**32 - 1}


@cache
def hello_of_a_client() -> bytes:
    client = QuicConnection(configuration=QuicConfiguration(
        is_client=True, server_name="www.example.com", alpn_protocols=["h3"]))
    client.connect(("192.0.2.1", 443), now=0.0)
    (_, _, hello), = Reader().read(client.datagrams_to_send(now=0.0)[0][0])[1]
    return hello


def first_initial(connection: int = 0) -> bytes:
    """A ClientHello in one Initial packet of SIZE bytes, with the id of that connection."""
    return initials(connection, hello_of_a_client())[0]


def initials(connection: int, hello: bytes) -> list[bytes]:
    """A ClientHello in as many Initials as it needs, each of SIZE bytes, filled with PADDING inside."""
    ids = sha256(connection.to_bytes(8)).digest()[:8]
    header = b"\xc0\x00\x00\x00\x01" + bytes([len(ids)]) + ids + b"\x00\x00"
    size = SIZE - len(header) - 2
    room = size - 1 - 16 - 5                # the packet number, the tag, the head of a CRYPTO frame
    keys = CryptoPair()
    keys.setup_initial(cid=ids, is_client=True, version=1)
    packets = []
    for number, at in enumerate(range(0, len(hello), room)):
        part = hello[at:at + room]
        frames = b"\x06" + (0x4000 | at).to_bytes(2, "big") + (0x4000 | len(part)).to_bytes(2, "big") + part
        full = header + (0x4000 | size).to_bytes(2, "big") + bytes([number])
        packets.append(keys.encrypt_packet(full, frames + bytes(size - 1 - 16 - len(frames)), number))
    return packets


def seconds_each(work: Callable[[], int]) -> float:
    begin = time.process_time()
    count = work()
    return (time.process_time() - begin) / count


def read_alone(datagram: bytes, forget: bool) -> Callable[[], int]:
    def work() -> int:
        Reader(**UNLIMITED).read_many(datagram, COUNT, forget)
        return COUNT
    return work


def expand_label(secret: bytes, label: bytes, size: int) -> bytes:
    info = size.to_bytes(2, "big") + bytes([6 + len(label)]) + b"tls13 " + label + b"\x00"
    return HKDFExpand(hashes.SHA256(), size, info).derive(secret)


def with_cryptography(datagram: bytes) -> Callable[[], int]:
    """Derives the keys and opens the packet as the reader does, by the `cryptography` package."""
    ids = datagram[6:6 + datagram[5]]
    number_at = 6 + len(ids) + 1 + datagram[6 + len(ids)] + 1 + 2

    def work() -> int:
        for _ in range(COUNT // 50):
            extract = hmac.HMAC(SALT, hashes.SHA256())
            extract.update(ids)
            client = expand_label(extract.finalize(), b"client in", 32)
            key, iv, mask_key = (expand_label(client, label, size)
                                 for label, size in ((b"quic key", 16), (b"quic iv", 12), (b"quic hp", 16)))
            sample = datagram[number_at + 4:number_at + 20]
            mask = Cipher(algorithms.AES(mask_key), modes.ECB()).encryptor().update(sample)
            first = datagram[0] ^ mask[0] & 0x0F
            size = (first & 3) + 1
            number = bytes(a ^ b for a, b in zip(datagram[number_at:number_at + size], mask[1:1 + size], strict=True))
            nonce = (int.from_bytes(iv, "big") ^ int.from_bytes(number, "big")).to_bytes(12, "big")
            header = bytes([first]) + datagram[1:number_at] + number
            AESGCM(key).decrypt(nonce, datagram[number_at + size:], header)
        return COUNT // 50
    return work


def close_alone(datagram: bytes) -> Callable[[], int]:
    def work() -> int:
        for _ in range(COUNT // 50):
            close_datagram(datagram)
        return COUNT // 50
    return work


def main() -> None:
    run = harness.Run("quic", harness.options(__doc__).parse_args(), rounds=7, quick_rounds=3, bytes=SIZE)
    datagram = first_initial()
    broken = datagram[:-1] + bytes([datagram[-1] ^ 1])
    cases = {
        "reader: first Initial of a connection": read_alone(datagram, True),
        "reader: a further Initial, keys known": read_alone(datagram, False),
        "reader: an Initial that does not open": read_alone(broken, True),
        "cryptography: keys and opening alone": with_cryptography(datagram),
        "close_datagram": close_alone(datagram),
    }
    run.in_turn({what: partial(measure, work) for what, work in cases.items()})
    run.save()


def measure(work: Callable[[], int]) -> dict[str, float]:
    each = seconds_each(work)
    return {"per_s": 1 / each, "us": each * 1e6}


if __name__ == "__main__":
    harness.main(main)
