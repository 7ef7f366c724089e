"""One engine goes on where another has ended: what passes behind the end completes nothing that is listed.

Every way of sending of disguises/streams.py, ended behind each of its packets. Whether a listed name has come through
is asked of a third engine, which sees all that has passed.
"""

import os

import pytest

from edgeblock.disguises.streams import MIDWAY, STRATEGIES, Path
from edgeblock.source.begun import Begun, create, size_of
from tests.core import samples as s
from tests.core.playing import LISTED, OTHER, engine

SENDABLE = STRATEGIES | MIDWAY
REQUESTS = {"tls": s.hello, "http": s.request}
FLOWS, IDLE, NOW = 1024, 120.0, 1000.0


class Queue:
    """Readers of one queue, one after the other."""

    def __init__(self, **settings: object) -> None:
        self.fd = create(2, FLOWS)
        self.settings = settings
        self.now = NOW
        self.next()

    def next(self) -> None:
        self.begun = Begun(self.fd, 1, FLOWS, IDLE, self.now)
        self.engine = engine("blocked.example.com", **self.settings)
        self.engine.share_secret(self.begun.secret)

    def passed(self, packets: list[bytes]) -> list[bytes]:
        return [packet for packet in packets if self.begun.judge(self.engine, packet, self.now).accept]

    def __enter__(self) -> "Queue":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def is_listed(packets: list[bytes]) -> bool:
    """Whether a server that has got these could have read a listed name."""
    judge = engine("blocked.example.com")
    return any(not judge.judge(packet, NOW).accept for packet in packets)


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("how", SENDABLE)
def test_nothing_listed_is_completed(how: str, kind: str, six: bool):
    data = REQUESTS[kind](LISTED)
    packets = [packet if isinstance(packet, bytes) else packet[1]       # with a pause before it
               for packet in SENDABLE[how](Path(six), data, data.index(LISTED), len(LISTED))]
    ends = range(1, len(packets)) if len(packets) < 40 else range(1, len(packets), len(packets) // 20)
    for end in ends:
        with Queue() as queue:
            passed = queue.passed(packets[:end])
            queue.next()
            passed += queue.passed(packets[end:])
            queue.next()                    # the client sends everything once more
            passed += queue.passed(packets)
            assert not is_listed(passed), f"ended behind packet {end} of {len(packets)}"


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_connection_that_has_sent_its_syn_goes_on(kind: str):
    path, data = Path(), REQUESTS[kind](OTHER)
    with Queue() as queue:
        sent = [path.syn(), path.ack(), path.data(0, data[:50]), path.data(50, data[50:])]
        assert queue.passed(sent[:1]) == sent[:1]
        queue.next()
        assert queue.passed(sent[1:]) == sent[1:]
        assert queue.engine.counters()["orphans"] == 0


def test_requests_on_a_kept_connection_go_on_in_pieces_too():
    path, one, listed = Path(dport=80), s.request(OTHER), s.request(LISTED)
    with Queue() as queue:
        sent = [path.syn(), path.data(0, one), path.data(len(one), one)]
        assert queue.passed(sent) == sent
        queue.next()
        again = [path.data((2 + number) * len(one), one) for number in range(3)]
        assert queue.passed(again) == again
        queue.next()
        at = 5 * len(one)
        pieces = [path.data(at + number, listed[number:number + 1]) for number in range(len(listed))]
        assert len(queue.passed(pieces)) < len(pieces)


def test_bodies_and_other_protocols_go_on():
    path, other = Path(dport=80), Path(isn=77)
    post = s.request(OTHER, b"/", b"POST", b"", b"Content-Length: 9000")
    with Queue() as queue:
        queue.passed([path.syn(), path.data(0, post + bytes(3000))])
        queue.passed([other.syn(), other.data(0, b"SSH-2.0-x\r\n")])
        queue.next()
        body = [path.data(len(post) + at, bytes(3000)) for at in (3000, 6000)]
        assert queue.passed(body) == body
        more = [other.data(11 + number, bytes((number,))) for number in range(20)]
        assert queue.passed(more) == more


def test_a_new_connection_on_the_ports_is_judged_anew_and_the_old_one_stays_refused():
    old, new, data = Path(), Path(isn=0x70000000), s.hello(LISTED)
    innocent = s.hello(OTHER)
    with Queue() as queue:
        queue.passed([old.syn(), old.data(0, data[:40])])
        queue.next()
        assert queue.passed([old.data(40, data[40:])]) == []
        sent = [new.syn(), new.data(0, innocent)]
        assert queue.passed(sent) == sent
        assert queue.passed([old.data(40, data[40:])]) == []
        queue.next()
        assert queue.passed([old.data(40, data[40:])]) == []


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("count", range(2, 9))
def test_several_syns_are_several_beginnings_or_none_that_is_trusted(count: int, turned: bool):
    data = s.hello(LISTED)
    numbers = [5000 + 100_000 * number for number in range(count)]
    for real in numbers:
        path = Path(isn=real)
        syns = [path.syn(isn=number) for number in (reversed(numbers) if turned else numbers)]
        with Queue() as queue:
            passed = queue.passed(syns)
            queue.next()
            passed += queue.passed([path.data(0, data[:50]), path.data(50, data[50:])])
            assert not is_listed(passed)


def test_what_is_long_ago_is_forgotten():
    path, data = Path(), s.hello(LISTED)
    with Queue() as queue:
        queue.passed([path.syn(), path.data(0, data[:40])])
        queue.next()
        queue.now += IDLE + 5
        assert queue.passed([path.data(40, data[40:])])


def test_a_policy_lets_it_pass():
    path, data = Path(), s.hello(LISTED)
    with Queue(crash="pass") as queue:
        queue.passed([path.syn(), path.data(0, data[:40])])
        queue.next()
        assert queue.passed([path.data(40, data[40:])])


def test_more_flows_than_there_is_room_for_take_the_place_of_the_oldest():
    data = s.hello(LISTED)
    with Queue() as queue:
        for port in range(20_000):
            queue.passed([s.tcp(1, data[:40], sport=port + 1)])
        queue.next()
        refused = sum(not queue.passed([s.tcp(41, data[40:], sport=port + 1)]) for port in range(19_900, 20_000))
        assert refused == 100


def test_the_file_is_as_long_as_it_says():
    with Queue() as queue:
        assert os.fstat(queue.fd).st_size == 2 * size_of(FLOWS)
    with pytest.raises(ValueError, match="16 bytes"):
        engine("blocked.example.com").share_secret(b"short")
