"""Samples for the core's tests and the fuzzers: what edgeblock.disguises makes, and every way to cut bytes.

What comes out is bytes. Nothing here imports the core, so that a sample cannot agree with a bug in it.
"""

import contextlib
import ssl
from collections.abc import Callable, Iterator

from edgeblock.disguises.packets import *  # noqa: F403

# ---- every way to cut


def ways(data: bytes) -> Iterator[list[bytes]]:
    """`data` in pieces: whole, byte by byte, and every cut in two."""
    yield [data]
    yield [data[i:i + 1] for i in range(len(data))]
    for cut in range(1, len(data)):
        yield [data[:cut], data[cut:]]


def all_ways(feed: Callable, data: bytes, answer: Callable, complete: int | None = None) -> None:
    """Feeds a sample every way a network may deliver it, and insists on one answer.

    Args:
        feed: takes a list of pieces, returns what the reader said.
        data: the sample.
        answer: takes what `feed` returned and gives what counts of it.
        complete: how many bytes a reader has to have before it can give its answer; None: all of them. For every
            shorter truncation the answer must be another one than for the whole, and for every longer one the same.
    """
    expected = answer(feed([data]))
    for pieces in ways(data):
        assert answer(feed(pieces)) == expected, [len(piece) for piece in pieces]
    complete = len(data) if complete is None else complete
    for size in range(len(data)):
        said = answer(feed([data[:size]]))
        assert (said == expected) == (size >= complete), size
    for trail in (b"\0", b"\r\n", b"\x16\x03\x01", b"GET", bytes(300)):
        assert feed([data + trail]) is not None
        assert answer(feed([data, trail])) == answer(feed([data + trail]))


# ---- TLS


def openssl_hello(name: str | None, alpn: list[str] | None = None) -> bytes:
    """The first flight of Python's own TLS client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()
