"""A listed address that is listed no more: what was blocked for it alone goes on, or begins anew, at once."""

import pytest

from core import samples as s
from edgeblock.core.engine import Engine
from tests.blocklist.making import matcher

LISTED, FREE = matcher(s.SERVER), matcher("192.0.2.99", "listed.example")


@pytest.fixture
def engine():
    return Engine(LISTED, report=True)


def test_a_stream_of_datagrams_goes_on(engine):
    assert not engine.judge(s.udp(b"\1some"), 1.0).accept and not engine.judge(s.udp(b"\1some"), 1.1).accept
    engine.matcher = FREE
    assert engine.judge(s.udp(b"\1some"), 1.2).accept
    engine.matcher = LISTED
    assert not engine.judge(s.udp(b"\1some"), 1.3).accept


def test_a_syn_that_is_sent_again_begins_a_connection(engine):
    for at in (1.0, 2.0):
        assert not engine.judge(s.tcp(1000, flags=s.SYN), at).accept
    engine.matcher = FREE
    assert engine.judge(s.tcp(1000, flags=s.SYN), 4.0).accept
    assert engine.judge(s.tcp(1001, s.hello(b"open.example")), 4.1).accept
    assert not engine.judge(s.tcp(5000, flags=s.SYN), 5.0).reply
    assert not engine.judge(s.tcp(5001, s.hello(b"listed.example")), 5.1).accept


def test_what_is_blocked_for_its_name_stays_blocked():
    engine = Engine(matcher("listed.example"), report=True)
    engine.judge(s.tcp(1000, flags=s.SYN), 1.0)
    assert not engine.judge(s.tcp(1001, s.hello(b"listed.example")), 1.1).accept
    engine.matcher = matcher("192.0.2.99")
    assert not engine.judge(s.tcp(1001, s.hello(b"listed.example")), 1.2).accept
