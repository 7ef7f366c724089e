"""A browser that asks again is one visit, whichever worker it comes to; nobody is remembered by name."""

import pytest

from edgeblock.core.decision import Name
from edgeblock.daemon import visits
from edgeblock.daemon.board import Board
from edgeblock.daemon.visits import Visits
from tests.core import samples as s

LISTED = Name("http", "listed.example", "/", "reset", "court", "1234abcd")
OTHER = LISTED._replace(rule="5678abcd")


@pytest.fixture
def words():
    return Board(1).visits


@pytest.fixture
def one(words):
    return Visits(words)


def packet(client, six=False):
    return s.tcp(1, b"x", source=(f"2001:db8:{client}::77" if six else f"192.0.2.{client}"))


def made(number):
    return bytes([0x45]) + bytes(11) + number.to_bytes(4) + bytes(4)


def test_ten_requests_within_ten_milliseconds_are_one_visit(one):
    assert [one.is_new(1.0 + i / 1000, packet(1), LISTED) for i in range(10)] == [True] + [False] * 9


def test_chromium_tries_again_four_times_and_it_is_one_visit(one):
    """Seen with Chromium 156 and a server that resets: after 1, 6, 36 and 96 s, several connections each time."""
    at = [1.0, 1.05, 2.1, 7.1, 37.2, 97.2, 97.3]
    assert [one.is_new(now, packet(1), LISTED) for now in at] == [True] + [False] * 6


def test_another_subscriber_another_rule_and_a_later_hour_are_others(one):
    assert one.is_new(1.0, packet(1), LISTED) and one.is_new(1.1, packet(2), LISTED)
    assert one.is_new(1.2, packet(1), OTHER) and not one.is_new(1.3, packet(1), OTHER)
    assert not one.is_new(1.0 + visits.WITHIN - 0.1, packet(1), LISTED)
    assert one.is_new(1.0 + visits.WITHIN, packet(1), LISTED)


def test_a_visit_that_comes_to_two_workers_is_one_and_outlives_a_worker(words):
    assert Visits(words).is_new(1.0, packet(1), LISTED)
    assert not Visits(words).is_new(1.1, packet(1), LISTED)


def test_a_household_is_one_subscriber_over_ipv6(one):
    here, neighbour = (bytearray(s.tcp(1, b"x")) for _ in range(2))
    here[0] = neighbour[0] = 0x60
    assert one.is_new(1.0, bytes(here), LISTED)
    here[20] ^= 1
    assert not one.is_new(1.1, bytes(here), LISTED)
    neighbour[15] ^= 1
    assert one.is_new(1.2, bytes(neighbour), LISTED)


def test_memory_is_bounded_and_holds_no_address(words):
    one = Visits(words)
    places = visits.SETS * visits.WAYS
    for number in range(places // 2):
        assert one.is_new(1.0, made(number), LISTED)
    again = [one.is_new(1.1, made(number), LISTED) for number in range(places // 2)]
    assert sum(again) < 0.08 * len(again), "half full, few visits have lost their place"
    for number in range(places, 2 * places):
        one.is_new(1.2, made(number), LISTED)
    assert not one.is_new(1.3, made(2 * places - 1), LISTED), "the newest stays"
    assert made(2 * places - 1)[12:16] not in bytes(words)
    board = Board(1).visits
    Visits(board).is_new(2.0, packet(1), LISTED)
    Visits(words).is_new(2.0, packet(1), LISTED)
    assert not set(board[visits.KEY_WORDS::2]) & set(words[visits.KEY_WORDS::2]) - {0}, "each daemon has its own key"


def test_what_is_no_packet_is_no_exception(one):
    assert one.is_new(1.0, b"", LISTED) and not one.is_new(1.0, b"\x60", LISTED)
