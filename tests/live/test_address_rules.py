"""Address entries in the kernel: every port and protocol, what is open ends, what is lifted works, nobody beside it.

Each test runs where conntrack keeps the flow marks, where the first stage does, and with the shortcut.
"""

import contextlib
import ipaddress
import os
import signal
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from echoing import BESIDE, FAMILY, echoing
from running import SHORTCUT, UNTRACKED, Running, start, track_nothing

from edgeblock.lab import CLIENT, SERVER, Lab, until
from edgeblock.netfilter import addresses, cut, netlink

pytestmark = pytest.mark.live

SOON = 10.0             # of a rename until it holds; measured: 0.1 to 0.3 s on a quiet machine
TCP_PORTS, UDP_PORTS = (22, 443, 25461), (443, 5000)
MODES = {"conntrack": "", "stage1": UNTRACKED, "shortcut": SHORTCUT}
BOTH = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture(params=MODES)
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    """A lab whose server has a second address and echoes what comes to any port of the tests."""
    with Lab() as lab:
        if request.param != "conntrack":
            track_nothing(lab)
        running = start(lab, tmp_path, MODES[request.param])
        with echoing(lab):
            yield running


def connects(lab: Lab, address: str, port: int) -> bool:
    with lab.entered("client"), contextlib.suppress(OSError):
        socket.create_connection((address, port), 0.4).close()
        return True
    return False


def datagrams(lab: Lab, address: str, port: int) -> bool:
    """Whether one of a new flow is heard by the server. 443 is nginx's for QUIC, so a second socket shares it."""
    version = ipaddress.ip_address(address).version
    with contextlib.ExitStack() as stack:
        with lab.entered("server"):
            server = stack.enter_context(socket.socket(FAMILY[version], socket.SOCK_DGRAM))
        with lab.entered("client"):
            client = stack.enter_context(socket.socket(FAMILY[version], socket.SOCK_DGRAM))
        if port == 5000:
            client.settimeout(0.4)
            with contextlib.suppress(OSError):
                client.connect((address, port))
                client.send(b"new")
                return client.recv(64) == b"new"
            return False
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.settimeout(0.4)
        server.bind((address, port))
        with contextlib.suppress(OSError):
            client.sendto(b"new", (address, port))
            return server.recv(64) == b"new"
    return False


def pings(lab: Lab, address: str) -> bool:
    version = ipaddress.ip_address(address).version
    kind = (socket.IPPROTO_ICMP, 8, 0) if version == 4 else (socket.IPPROTO_ICMPV6, 128, 129)
    with lab.entered("client"):
        raw = socket.socket(FAMILY[version], socket.SOCK_RAW, kind[0])
    with raw:
        raw.settimeout(0.4)
        message = struct.pack("!BBHHH", kind[1], 0, 0, os.getpid() & 0xFFFF, 1)
        total = sum(struct.unpack("!4H", message))
        total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
        raw.sendto(message[:2] + struct.pack("!H", total) + message[4:], (address, 0))
        with contextlib.suppress(OSError):
            while True:
                answer = raw.recv(256)
                if answer[20 if version == 4 else 0] == kind[2]:
                    return True
    return False


def ways(lab: Lab, address: str) -> dict[str, bool]:
    """Which ways to an address are open."""
    found = {f"tcp {port}": connects(lab, address, port) for port in TCP_PORTS}
    found |= {f"udp {port}": datagrams(lab, address, port) for port in UDP_PORTS}
    return found | {"icmp": pings(lab, address)}


def held(check: Callable[[], bool]) -> float:
    """Seconds until it is so."""
    began = time.monotonic()
    assert until(check, SOON)
    return time.monotonic() - began


def ranges(box: Running) -> int:
    return box.lab.counters(box.daemon).get("addresses.in_kernel", 0)


@pytest.mark.parametrize(("version", "action"), [(4, "drop"), (4, "reset"), (6, "reset")])
def test_every_way_is_shut_and_opens_again_and_nobody_beside_it_is_touched(box: Running, version: int, action: str):
    lab, address = box.lab, SERVER[version]
    assert all(ways(lab, address).values()) and all(ways(lab, BESIDE[version]).values())
    box.drop("places.toml", f'action = "{action}"\n')
    box.drop("places.list", f"{address}\n")
    held(lambda: not connects(lab, address, 22))
    assert ways(lab, address) == dict.fromkeys(ways(lab, address), False)
    assert all(ways(lab, BESIDE[version]).values()) and all(ways(lab, SERVER[10 - version]).values())
    if action == "reset":
        with lab.entered("client"), pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, 25461), 2)
    (box.rules / "places.list").unlink()
    held(lambda: connects(lab, address, 22))
    assert all(ways(lab, address).values())


class Streams:
    """What a client has open to the server: each says whether it still gets answers."""

    def __init__(self, lab: Lab, version: int) -> None:
        address = SERVER[version]
        with lab.entered("client"):
            self.plain = socket.create_connection((address, 25461), 5)
            self.datagrams = socket.socket(FAMILY[version], socket.SOCK_DGRAM)
            self.datagrams.connect((address, 5000))
            self.kept = socket.create_connection((address, 80), 5)
            tls = socket.create_connection((address, 443), 5)
        context = ssl.create_default_context(cafile=str(lab.home / "ca.pem"))
        self.tls = context.wrap_socket(tls, server_hostname="open.example")
        for one in self.every:
            one.settimeout(0.3)

    @property
    def every(self) -> tuple[socket.socket, ...]:
        return self.plain, self.datagrams, self.kept, self.tls

    def answer(self) -> dict[str, bool]:
        request = b"GET / HTTP/1.1\r\nHost: open.example\r\n\r\n"
        return {"tcp": answers(self.plain, b"still there?"), "udp": answers(self.datagrams, b"still there?"),
                "http": answers(self.kept, request), "tls": answers(self.tls, request)}

    def close(self) -> None:
        for one in self.every:
            one.close()


def answers(one: socket.socket, data: bytes) -> bool:
    with contextlib.suppress(OSError):
        one.send(data)
        return one.recv(4096) != b""
    return False


@BOTH
def test_what_is_open_ends_and_a_stream_of_datagrams_goes_on_when_it_is_lifted(box: Running, version: int):
    lab = box.lab
    streams = Streams(lab, version)
    assert all(streams.answer().values())
    assert all(streams.answer().values())       # done flows, where there is a shortcut carried past the rules
    box.drop("places.toml", 'action = "drop"\n')         # an answer would make an entry in conntrack again
    box.drop("places.list", f"{SERVER[version]}/{31 if version == 4 else 127}\n")
    held(lambda: not any(streams.answer().values()))
    assert not any(streams.answer().values())
    with lab.entered("box"), netlink.opened() as link:
        tracked = [end for family, size in cut.SIZES.items() for body in cut.tracked(link, family)
                   for end in cut.ends_of(body, size)]
    assert ipaddress.ip_address(SERVER[version]).packed not in {end.address for end in tracked}
    (box.rules / "places.list").unlink()
    held(lambda: answers(streams.datagrams, b"again"))
    streams.close()
    fresh = Streams(lab, version)
    assert all(fresh.answer().values())
    fresh.close()


@BOTH
def test_an_endpoint_is_one_port_of_every_protocol_and_an_exception_leaves_one_open(box: Running, version: int):
    lab, address = box.lab, SERVER[version]
    shown = address if version == 4 else f"[{address}]"
    box.drop("places.list", f"{shown}:22\n{shown}:5000\n")
    held(lambda: not connects(lab, address, 22))
    assert ways(lab, address) == {"tcp 22": False, "tcp 443": True, "tcp 25461": True, "udp 443": True,
                                  "udp 5000": False, "icmp": True}
    box.drop("places.list", f"{address}\n@@{shown}:25461\n")
    held(lambda: not connects(lab, address, 443))
    assert ways(lab, address) == {"tcp 22": False, "tcp 443": False, "tcp 25461": True, "udp 443": False,
                                  "udp 5000": False, "icmp": False}


def test_what_is_only_watched_passes_and_is_counted(box: Running):
    lab = box.lab
    box.drop("places.toml", 'action = "observe"\n')
    box.drop("places.list", f"{SERVER[4]}\n")
    assert until(lambda: ranges(box) == 1, SOON)
    assert all(ways(lab, SERVER[4]).values())
    assert until(lambda: lab.counters(box.daemon).get("addresses.packets.places", 0) > 10, SOON)


TAKEN = [["nft", "flush", "ruleset"], ["nft", "delete", "table", "inet", addresses.TABLE],
         ["nft", "flush", "map", "inet", addresses.TABLE, "address4"],
         ["nft", "flush", "set", "inet", addresses.TABLE, "near4"],
         ["nft", "flush", "chain", "inet", addresses.TABLE, "to_server6"]]


def test_what_others_take_away_is_put_back(box: Running):
    lab = box.lab
    box.drop("places.list", f"{SERVER[4]}\n")
    held(lambda: not connects(lab, SERVER[4], 22))
    for times, how in enumerate(TAKEN, 1):
        lab.run_in("box", how)
        held(lambda times=times: lab.counters(box.daemon)["addresses.restored"] == times)
        assert not connects(lab, SERVER[4], 22), how
    assert "address rules have been taken away" in box.daemon.log.read_text()


def test_a_daemon_that_is_killed_leaves_addresses_shut_and_the_next_takes_them_on(box: Running):
    lab = box.lab
    box.drop("places.list", f"{SERVER[4]}\n{SERVER[6]}\n")
    held(lambda: not connects(lab, SERVER[4], 22))
    os.kill(box.daemon.process.pid, signal.SIGKILL)
    box.daemon.process.wait()
    assert not connects(lab, SERVER[4], 22) and not connects(lab, SERVER[6], 25461)
    with lab.entered("box"):
        number = addresses.read().total
    assert number == 2
    (box.rules / "places.list").unlink()
    box.drop("other.list", f"{SERVER[4]}\n")
    daemon = lab.start_daemon(box.daemon.config.read_text())
    held(lambda: connects(lab, SERVER[6], 25461))
    assert not connects(lab, SERVER[4], 22)
    assert daemon.stop() == 0
    with lab.entered("box"):
        assert not addresses.present()
    assert connects(lab, SERVER[4], 22)


def test_clients_that_are_exempt_reach_what_is_listed(tmp_path: Path):
    with Lab() as lab:
        running = start(lab, tmp_path, f'[ruleset]\nexempt_clients = ["{CLIENT[4]}"]\n')
        with echoing(lab):
            running.drop("places.list", f"{SERVER[4]}\n{SERVER[6]}\n")
            held(lambda: not connects(lab, SERVER[6], 22))
            assert all(ways(lab, SERVER[4]).values())


def test_an_address_behind_nat64(tmp_path: Path):
    """The server has the translated address itself, so what crosses the box is what a client of NAT64 sends."""
    with Lab() as lab:
        running = start(lab, tmp_path, "")
        text = running.daemon.config.read_text()
        assert running.daemon.stop() == 0
        listed, others = ipaddress.IPv4Address("198.51.100.77"), ipaddress.IPv4Address("198.51.100.78")
        for one in (listed, others):
            for place in translations(one):
                lab.run_in("server", ["ip", "addr", "add", f"{place}/128", "dev", "lo", "nodad"])
        for prefix in ("64:ff9b::/96", "2001:db8:64::/96", "2001:db8:0:65::/64", "2001:db8:66::/56", "2002::/16"):
            lab.run_in("box", ["ip", "-6", "route", "add", prefix, "via", SERVER[6]])
        lab.start_daemon(text.replace("[rules]\n", '[rules]\nnat64 = ["2001:db8:64::/96", "2001:db8:0:65::/64", '
                                                   '"2001:db8:66::/56"]\n'))
        with echoing(lab):
            for one in (listed, others):
                assert all(connects(lab, place, 22) for place in translations(one))
            running.drop("places.list", f"{listed}\n")
            held(lambda: not connects(lab, translations(listed)[0], 22))
            assert not any(connects(lab, place, port) for place in translations(listed) for port in (22, 25461))
            assert all(connects(lab, place, 22) for place in translations(others))


def translations(one: ipaddress.IPv4Address) -> list[str]:
    """Through the well-known prefix, prefixes of 96, 64 and 56 bits, and 6to4 (RFC 6052, 2.2; RFC 3056, 2)."""
    a, b, c, d = one.packed
    return [f"64:ff9b::{one}", f"2001:db8:64::{one}", f"2001:db8:0:65:{a:x}:{b << 8 | c:x}:{d << 8:x}:0",
            f"2001:db8:66:{a:x}:{b:x}:{c << 8 | d:x}::", f"2002:{a << 8 | b:x}:{c << 8 | d:x}::1"]
