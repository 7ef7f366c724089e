"""Clients files as text: every form of a line, and the answers of Python's ipaddress as the second opinion."""

import ipaddress
import random
import time
from itertools import pairwise

import pytest

from edgeblock.blocklist.prefixes import BadLine, contains, read_ranges

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def pieces(ranges: bytes, size: int) -> list[tuple[str, str]]:
    shown = [str(ipaddress.ip_address(ranges[at:at + size])) for at in range(0, len(ranges), size)]
    return list(zip(shown[::2], shown[1::2], strict=True))


def read(text: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]], int]:
    four, six, count = read_ranges(text.encode(), 1000)
    return pieces(four, 4), pieces(six, 16), count


@pytest.mark.parametrize("text, four, six, count", [
    ("192.0.2.0/24\n2001:db8::/32\n", [("192.0.2.0", "192.0.2.255")],
     [("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff")], 2),
    ("192.0.2.1", [("192.0.2.1", "192.0.2.1")], [], 1),
    ("192.0.2.1-192.0.2.9", [("192.0.2.1", "192.0.2.9")], [], 1),
    ("2001:db8::1 - 2001:db8::9", [], [("2001:db8::1", "2001:db8::9")], 1),
    ("# a comment\n; another\n\n  192.0.2.1  # behind\r\n", [("192.0.2.1", "192.0.2.1")], [], 1),
    ("\ufeff192.0.2.1", [("192.0.2.1", "192.0.2.1")], [], 1),
    ("0.0.0.0/0\n::/0", [("0.0.0.0", "255.255.255.255")], [("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")], 2),
    ("192.0.2.128/25\n192.0.2.0/25\n192.0.2.7", [("192.0.2.0", "192.0.2.255")], [], 3),
    ("2001:db8:1::/48\n2001:db8::/48", [], [("2001:db8::", "2001:db8:1:ffff:ffff:ffff:ffff:ffff")], 2),
    ("::ffff:ffff:ffff:ffff\n0:0:0:1::", [], [("::ffff:ffff:ffff:ffff", "0:0:0:1::")], 2),
    ("255.255.255.255\n255.255.255.0/24", [("255.255.255.0", "255.255.255.255")], [], 2),
    ("", [], [], 0), ("# nobody yet\n", [], [], 0),
])
def test_what_lines_are(text: str, four: list[tuple[str, str]], six: list[tuple[str, str]], count: int) -> None:
    assert read(text) == (four, [(str(ipaddress.ip_address(a)), str(ipaddress.ip_address(b))) for a, b in six], count)


@pytest.mark.parametrize("line, word", [
    ("example.com", "no prefix"), ("192.0.2.1/33", "0 to 32"), ("2001:db8::/129", "0 to 128"),
    ("192.0.2.1/", "length"), ("192.0.2.1/024", "length"), ("192.0.2.0/255.255.255.0", "length"),
    ("192.0.2.1/24", "bits beyond"), ("2001:db8::1/32", "bits beyond"), ("192.0.2.9-192.0.2.1", "ends before"),
    ("192.0.2.1-2001:db8::1", "one family"), ("::ffff:192.0.2.1", "IPv4 address"), ("::ffff:192.0.2.0/120", "IPv4"),
    ("192.0.2.1 192.0.2.2", "no prefix"), ("192.0.2.1#x", "no prefix"), ("1", "no prefix"), ("/24", "no prefix"),
    ("0x7f.0.0.1", "no prefix"), ("192.0.2.01", "no prefix"), ("fe80::1%eth0", "no prefix"),
    ("[2001:db8::1]", "no prefix"), ("192.0.2.1\0", "no prefix"), ("\0", "no prefix"), ("x" * 100_000, "no prefix"),
    ("192.0.2.1-", "no prefix"), ("@@192.0.2.1", "no prefix"), ("é", "no prefix"),
])
def test_a_bad_line_is_named(line: str, word: str) -> None:
    with pytest.raises(BadLine, match=word) as problem:
        read(f"# clients\n192.0.2.0/24\n{line}\n")
    assert problem.value.line == 3


def test_one_too_many() -> None:
    assert read_ranges(b"192.0.2.1\n192.0.2.2\n", 2)[2] == 2
    with pytest.raises(BadLine, match="one too many"):
        read_ranges(b"192.0.2.1\n192.0.2.2\n2001:db8::\n", 2)


@pytest.mark.parametrize("family, size", [(4, 4), (6, 16)])
def test_answers_are_those_of_ipaddress(family: int, size: int) -> None:
    chance = random.Random(24)
    bits = 8 * size
    make = ipaddress.IPv4Network if family == 4 else ipaddress.IPv6Network
    for _ in range(60):
        base = chance.getrandbits(bits)
        near = chance.choice([4, 12, bits])         # bits in which they differ
        networks: list[Network] = []
        for _ in range(chance.randrange(40)):
            number = base ^ chance.getrandbits(near)
            length = chance.randrange(bits - near, bits + 1)
            networks.append(make((number >> bits - length << bits - length, length)))
        text = "\n".join(map(str, networks))
        ranges = read_ranges(text.encode(), 1000)[family == 6]
        merged = list(ipaddress.collapse_addresses(networks))
        parts = pieces(ranges, size)
        assert sum(int(ipaddress.ip_address(b)) - int(ipaddress.ip_address(a)) + 1 for a, b in parts) == \
            sum(one.num_addresses for one in merged)
        assert all(int(ipaddress.ip_address(one[1])) + 1 < int(ipaddress.ip_address(two[0]))
                   for one, two in pairwise(parts))
        edges = [int(edge) + step for one in networks for edge in (one[0], one[-1]) for step in (-1, 0, 1)]
        for number in edges + [base ^ chance.getrandbits(near) for _ in range(50)]:
            if 0 <= number < 1 << bits:
                address = ipaddress.ip_address(number.to_bytes(size))
                assert contains(ranges, number.to_bytes(size)) == any(address in one for one in networks)


def test_time_grows_with_the_lines() -> None:
    def seconds(count: int) -> float:
        chance = random.Random(1)
        text = "\n".join(str(ipaddress.IPv4Address(chance.getrandbits(32))) for _ in range(count)).encode()
        began = time.process_time()
        read_ranges(text, count)
        return time.process_time() - began

    assert min(seconds(80_000) for _ in range(3)) < 10 * min(seconds(20_000) for _ in range(3))
