"""That nobody can choose a message after which another is taken for one that was reported already."""

import random

from edgeblock.disguises import packets
from edgeblock.disguises.streams import Path
from tests.core.playing import engine

MASK, FACTOR = (1 << 64) - 1, 0x9E3779B97F4A7C15
PLAIN = set(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-._~!$&'()*+,;=:@")


def turned(digest):
    return (digest << 5 | digest >> 59) & MASK


def word(digest, value):
    return (turned(digest) ^ value) * FACTOR & MASK


def text(digest, data):
    """core/text.pxd, digest_bytes."""
    digest = word(digest, len(data))
    for at in range(0, len(data), 8):
        digest = word(digest, int.from_bytes(data[at:at + 8], "little"))
    return digest


def chosen_path(reading, size, begins, host, target):
    """A path of that size whose digest, in a message at 0, is that of another message, if nothing in it is secret."""
    wanted = text(text(word(reading, begins), host), target)
    chance = random.Random(1)
    while True:
        head = b"/" + bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz0123456789", k=size - 9))
        digest = word(text(word(reading, 0), b"www.innocent.example"), size)
        for at in range(0, size - 8, 8):
            digest = word(digest, int.from_bytes(head[at:at + 8], "little"))
        tail = (wanted * pow(FACTOR, -1, 1 << 64) & MASK ^ turned(digest)).to_bytes(8, "little")
        if set(tail) <= PLAIN:
            return head + tail


def test_a_chosen_path_hides_no_request_behind_it():
    host, target, size = b"observed.example", b"/secret", 24
    begins = len(packets.request(b"www.innocent.example", bytes(size)))
    for reading in range(8):
        way = Path(dport=80)
        first = packets.request(b"www.innocent.example", chosen_path(reading, size, begins, host, target))
        assert len(first) == begins
        watching = engine(host.decode(), action="observe", report=False)
        sent = [*way.opening(), way.data(0, first), way.data(begins, packets.request(host, target))]
        last = [watching.judge(packet, 0.01 * at, 3) for at, packet in enumerate(sent)][-1]
        assert [name.host for name in last.names] == [host.decode()] and watching.counters()["observed"] == 1, reading
