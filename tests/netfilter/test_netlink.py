"""What the kernel says on a netlink socket, whole and cut short."""

import struct

import pytest

from edgeblock.netfilter import netlink


class Socket:
    """Says these datagrams, then nothing."""

    def __init__(self, *said: bytes) -> None:
        self.said = list(said)

    def settimeout(self, seconds: float) -> None:
        pass

    def sendto(self, request: bytes, address: tuple[int, int]) -> None:
        pass

    def recv(self, size: int) -> bytes:
        if not self.said:
            raise TimeoutError
        return self.said.pop(0)


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


REFUSED = message(netlink.ERROR, struct.pack("=i", -2))


@pytest.mark.parametrize("before", [b"", message(7, b"abc") + b"\0", REFUSED[:19], REFUSED[:16], b"\0" * 15,
                                    b"\1" * 40])
def test_the_first_whole_acknowledgement_counts(before):
    assert netlink.answer(Socket(before, REFUSED), b"") == 2  # type: ignore[arg-type]


def test_without_any_it_is_waited_for():
    with pytest.raises(TimeoutError):
        netlink.answer(Socket(REFUSED[:18]), b"")  # type: ignore[arg-type]
