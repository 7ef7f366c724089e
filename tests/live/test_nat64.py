"""A real translator (tayga) between an IPv6-only client and an IPv4 server: an IPv4 address that is listed is shut on
the IPv6 path as well, through the well-known prefix and through one of the operator's, and opens again.

Behind the box the translator gets what the box has let by, and the box sees IPv6 alone. Before it the box sees what
the translator has made of it, which is IPv4.
"""

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from echoing import echoing
from running import Running, start
from test_address_rules import answers, connects, datagrams, held, pings

from edgeblock.lab import SERVER, Lab, until

pytestmark = pytest.mark.live

OWN = "2001:db8:64::"
PREFIXES = {"known": ("64:ff9b::", "9.9.10"), "own": (OWN, "9.9.11")}       # and where the translator's pool is
# Through the well-known prefix no address for documentation or private networks is translated (RFC 6052, 3.1).
LISTED, OTHER, NETWORK = "9.9.8.80", "9.9.8.9", "9.9.8.0/24"
SETTINGS = """tun-device nat64-{name}
ipv4-addr {pool}.1
ipv6-addr 2001:db8:6464::{number}
prefix {prefix}/96
dynamic-pool {pool}.0/24
data-dir {home}
"""


@contextlib.contextmanager
def translating(lab: Lab, place: str, home: Path) -> Iterator[None]:
    """One translator for each prefix, in that place of the lab."""
    lab.run_in(place, ["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
    processes = []
    for number, (name, (prefix, pool)) in enumerate(PREFIXES.items(), 1):
        folder = home / f"tayga-{name}"
        folder.mkdir()
        settings = folder / "tayga.conf"
        settings.write_text(SETTINGS.format(name=name, pool=pool, number=number, prefix=prefix, home=folder))
        lab.run_in(place, ["tayga", "--config", str(settings), "--mktun"])
        device = ["dev", f"nat64-{name}"]
        lab.run_in(place, ["ip", "link", "set", *device, "up"])
        lab.run_in(place, ["ip", "route", "add", f"{pool}.0/24", *device])
        lab.run_in(place, ["ip", "-6", "route", "add", f"{prefix}/96", *device])
        processes.append(lab.popen_in(place, ["tayga", "--config", str(settings), "--nodetach"],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.wait(10)


@pytest.fixture(params=["behind", "before"])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    behind = request.param == "behind"
    with Lab(extra_hop=behind) as lab:
        for prefix, pool in PREFIXES.values():
            lab.run_in("server", ["ip", "route", "replace", f"{pool}.0/24", "via", "203.0.113.1"])
            if behind:
                lab.run_in("box", ["ip", "-6", "route", "add", f"{prefix}/96", "via", "2001:db8:2::2"])
            else:
                lab.run_in("box", ["ip", "route", "add", f"{pool}.0/24", "via", "192.0.2.2"])
        for place, there in (("box", "198.51.100.2"), ("hop", SERVER[4])) if behind else (("box", SERVER[4]),):
            lab.run_in(place, ["ip", "route", "add", NETWORK, "via", there])
        with translating(lab, "hop" if behind else "client", tmp_path), echoing(lab, (LISTED, OTHER)):
            running = start(lab, tmp_path, rules=f'nat64 = ["{OWN}/96"]\n')
            running.drop("places.toml", 'action = "drop"\n')
            yield running


def through(address: str) -> list[str]:
    """An IPv4 address as the client of each translator says it."""
    return [prefix + address for prefix, _ in PREFIXES.values()]


def ways(lab: Lab, address: str) -> set[bool]:
    return {connects(lab, address, 22), connects(lab, address, 443), datagrams(lab, address, 5000),
            pings(lab, address)}


def test_a_listed_address_is_shut_through_a_translator_and_opens_again(box: Running):
    lab = box.lab
    for place in (*through(LISTED), *through(OTHER)):
        assert until(lambda place=place: ways(lab, place) == {True}, 10), place
    with lab.entered("client"):
        talks = [socket.create_connection((place, 25461), 5) for place in through(LISTED)]
    for one in talks:
        one.settimeout(0.3)
        assert answers(one, b"still there?")
    box.drop("places.list", f"{LISTED}\n")
    held(lambda: not any(answers(one, b"still there?") for one in talks))
    for place in through(LISTED):
        assert ways(lab, place) == {False}, place
    for place in through(OTHER):
        assert ways(lab, place) == {True}, place
    (box.rules / "places.list").unlink()
    for place in through(LISTED):
        held(lambda place=place: connects(lab, place, 22))
        assert ways(lab, place) == {True}, place
    for one in talks:
        one.close()
