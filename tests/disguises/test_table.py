"""Every row of the table against the engine: a listed name is blocked behind it, and an unlisted one is not."""

import random

import pytest

from edgeblock.disguises.streams import Path
from edgeblock.disguises.table import DISGUISES, Ask
from tests.core.playing import LISTED, OTHER, engine, play

NAMES = {disguise.name: disguise for disguise in DISGUISES}


def asked(name, ask, six=False):
    path = Path(six, decoy=b"qwertyuiop", dport=80 if NAMES[name].proto == "http" else 443)
    return list(NAMES[name].make(ask, path, random.Random(7)))


def is_blocked(played):
    return any(not one.accept and (one.action != "accept" or any(name.policy for name in one.names))
               for one in played.decisions)


def test_each_has_a_name_of_its_own():
    assert len(NAMES) == len(DISGUISES) > 600


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("name", NAMES)
def test_a_listed_name_is_blocked_and_its_neighbour_passes(name, six):
    packets = asked(name, Ask(LISTED), six)
    assert is_blocked(play(engine(LISTED.decode()), packets)) == bool(packets)
    if not NAMES[name].overflows:
        played = play(engine(LISTED.decode()), asked(name, Ask(OTHER), six))
        assert not is_blocked(played)
        assert not packets or OTHER.decode() in played.hosts


@pytest.mark.parametrize("name", [one.name for one in DISGUISES if one.proto == "http"])
def test_a_listed_page_is_blocked_and_its_neighbour_passes(name):
    packets = asked(name, Ask(OTHER, b"/a/page.html", True))
    assert is_blocked(play(engine("www.innocent.example/a/page.html"), packets)) == bool(packets)
    if not NAMES[name].overflows:
        packets = asked(name, Ask(OTHER, b"/a/other", True))
        assert not is_blocked(play(engine("www.innocent.example/a/page.html"), packets))


@pytest.mark.parametrize("host", [b"192.0.2.80", b"[2001:db8::80]", b"ab.io", b"xn--80ak6aa92e.com",
                                  b"a" * 63 + b".org", b".".join([b"a" * 60] * 4) + b".a"])
@pytest.mark.parametrize("name", NAMES)
def test_hosts_of_every_form(name, host):
    """No row says of itself that it hides what it does not."""
    if NAMES[name].proto == "http":
        page = b"/a/page.html"
        packets = asked(name, Ask(host, page, True))
        assert is_blocked(play(engine((host + page).decode()), packets)) == bool(packets)
    elif b":" not in host and host[-2:] != b"80":
        packets = asked(name, Ask(host))
        assert is_blocked(play(engine(host.decode()), packets)) == bool(packets)
