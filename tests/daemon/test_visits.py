"""A browser that asks again is one visit; nobody is remembered by name."""

from edgeblock.core.decision import Name
from edgeblock.daemon import visits
from edgeblock.daemon.visits import Visits
from tests.core import samples as s

LISTED = Name("http", "listed.example", "/", "reset", "court", "1234abcd")
OTHER = LISTED._replace(rule="5678abcd")


def packet(client, six=False):
    return s.tcp(1, b"x", source=(f"2001:db8:{client}::77" if six else f"192.0.2.{client}"))


def test_ten_requests_within_ten_milliseconds_are_one_visit():
    one = Visits()
    assert [one.is_new(1.0 + i / 1000, packet(1), LISTED) for i in range(10)] == [True] + [False] * 9


def test_another_subscriber_another_rule_and_a_later_hour_are_others():
    one = Visits()
    assert one.is_new(1.0, packet(1), LISTED) and one.is_new(1.1, packet(2), LISTED)
    assert one.is_new(1.2, packet(1), OTHER) and not one.is_new(1.3, packet(1), OTHER)
    assert not one.is_new(1.0 + visits.WITHIN - 0.1, packet(1), LISTED)
    assert one.is_new(1.0 + visits.WITHIN, packet(1), LISTED)


def test_a_household_is_one_subscriber_over_ipv6():
    one = Visits()
    here, neighbour = (bytearray(s.tcp(1, b"x")) for _ in range(2))
    here[0] = neighbour[0] = 0x60
    assert one.is_new(1.0, bytes(here), LISTED)
    here[20] ^= 1
    assert not one.is_new(1.1, bytes(here), LISTED)
    neighbour[15] ^= 1
    assert one.is_new(1.2, bytes(neighbour), LISTED)


def test_memory_is_bounded_and_holds_no_address():
    one = Visits()
    for number in range(2 * visits.VISITS_MAX):
        assert one.is_new(1.0, bytes([0x45]) + bytes(11) + number.to_bytes(4) + bytes(4), LISTED)
    assert len(one._began) == visits.VISITS_MAX
    assert all(len(visit) == 8 for visit in one._began)
    assert bytes([0x45]) + bytes(11) + (2 * visits.VISITS_MAX - 1).to_bytes(4) not in one._began
    another = Visits()
    one.is_new(2.0, packet(1), LISTED)
    another.is_new(2.0, packet(1), LISTED)
    assert not set(one._began) & set(another._began), "each worker has a key of its own"


def test_what_is_no_packet_is_no_exception():
    assert Visits().is_new(1.0, b"", LISTED) and Visits().is_new(1.0, b"\x60", LISTED)
