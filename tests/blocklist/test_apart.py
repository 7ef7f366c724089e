"""Entries that are near no range, found by their keys: the same as by a look at each range."""

import ipaddress
import random

import pytest

from edgeblock.blocklist.apart import Apart
from edgeblock.blocklist.formats import network_key
from edgeblock.blocklist.ranges import Ranges, last_of, range_of


@pytest.mark.parametrize("seed", range(30))
def test_what_is_cleared_touches_nothing_and_is_narrow(seed: int):
    dice = random.Random(seed)
    networks = []
    for _ in range(dice.randrange(0, 6)):
        length = dice.randrange(24, 33)
        networks.append(ipaddress.ip_network((dice.getrandbits(32) >> 28 << 4 & 0xFFFFFFFF, 32)).supernet(
            new_prefix=length))
        networks.append(ipaddress.ip_network((0x20010DB8 << 96 | dice.randrange(256), 128)).supernet(
            new_prefix=dice.randrange(120, 129)))
    ranges = Ranges(range_of(network, None) for network in networks)
    apart = Apart(*ranges.edges(), 26, 122)
    for bits, base in ((32, 0), (128, 0x20010DB8 << 96)):
        for _ in range(200):
            length = dice.randrange(bits - 10, bits + 1)
            number = (base + dice.randrange(512)) >> bits - length << bits - length
            first = number.to_bytes(bits // 8)
            wanted = length >= (26 if bits == 32 else 122) and ranges.touched(first, last_of(first, length)) is None
            port = dice.choice([None, 443]) if length == bits else None
            assert apart.clears(network_key(first, length, port)) == wanted


def test_what_is_no_key_is_cleared_by_nothing():
    apart = Apart(*Ranges(()).edges(), 0, 0)
    assert apart.clears(network_key(bytes(4), 0)) and apart.clears(network_key(bytes(16), 0))
    for key in (b"", b"\0", b"\0\x21" + bytes(4), b"\0\x81" + bytes(16), b"\0\x20" + bytes(3)):
        assert not apart.clears(key)
    with pytest.raises(ValueError, match="two ends"):
        Apart({4: b"1234", 16: b""}, {4: b"", 16: b""}, 0, 0)
