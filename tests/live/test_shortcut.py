"""The shortcut: packets of done flows go from interface to interface past the kernel rules, and nothing else does.

That verdicts are the same with it is the business of the other live tests, which run there too.
"""

import hashlib
import json
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from kept import answered, asked, request
from running import SHORTCUT, Running, start, track_nothing
from scapy.layers.inet import ICMP, IP, UDP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6TimeExceeded, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from edgeblock.errors import SystemProblem
from edgeblock.lab import CLIENT, SERVER, Lab, until

pytestmark = pytest.mark.live

VERSIONS = pytest.mark.parametrize("version", [4, 6])
CONTENT = os.urandom(1 << 20) * 8
DIGEST = hashlib.sha256(CONTENT).digest()
SMALL = 1500 * 1024             # bytes that the kernel rules may see of a flow before it is carried
IP_HEAD = {4: 14 + 20, 6: 14 + 40}     # where TCP begins in a frame
SO_RCVBUFFORCE = 33             # asm-generic/socket.h
ECHO = """
import socket
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
server.bind(("::", 443))
while True:
    data, who = server.recvfrom(2000)
    server.sendto(data, who)
"""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Running]:
    with Lab() as lab:
        track_nothing(lab)
        running = start(lab, tmp_path, SHORTCUT)
        yield running
        assert running.daemon.stop() == 0, running.daemon.last_words()
        assert not filters(lab)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """For tests that leave it as it is."""
    with Lab() as lab:
        track_nothing(lab)
        running = start(lab, tmp_path_factory.mktemp("shared"), SHORTCUT)
        yield running
        assert running.daemon.stop() == 0, running.daemon.last_words()


def filters(lab: Lab) -> list[dict]:
    """What asks at the interfaces of the box, and what holds it."""
    found = []
    for device in ("to-client", "to-server"):
        for what in (["filter", "show", "dev", device, "ingress"], ["qdisc", "show", "dev", device]):
            found += [one for one in json.loads(lab.run_in("box", ["tc", "-json", *what]).stdout or "[]")
                      if "options" in one and one.get("kind") in ("bpf", "clsact")]
    return found


def carried(running: Running) -> int:
    return running.lab.counters(running.daemon)["stage1.carried"]


def by_rules(running: Running) -> int:
    """Bytes of done flows that the kernel rules have seen."""
    counted = running.lab.counters(running.daemon)
    return counted["kernel_rules.tcp_done.bytes"] + counted["kernel_rules.udp_done.bytes"]


def download(lab: Lab, version: int, scheme: str = "https") -> bool:
    """Whether a file arrives as it is."""
    seen = lab.fetch(f"{scheme}://open.example{lab.publish('bulk', CONTENT)}", version=version, timeout=20.0)
    return seen.status == 200 and hashlib.sha256(seen.body).digest() == DIGEST


# ---- what is carried


@VERSIONS
@pytest.mark.parametrize("offload", [False, True], ids=["wire", "whole"])
def test_a_download_goes_past_the_rules(tmp_path: Path, version: int, offload: bool):
    with Lab(offload=offload) as lab:
        track_nothing(lab)
        running = start(lab, tmp_path, SHORTCUT)
        assert download(lab, version)
        assert carried(running) > (100 if offload else 5000)
        assert by_rules(running) < SMALL
        assert lab.fetch("https://listed.example/", version=version).exit in (35, 56)
        assert running.daemon.stop() == 0, running.daemon.last_words()


@VERSIONS
def test_what_is_carried_is_one_hop_older_and_whole(box: Running, version: int):
    with box.lab.entered("client"):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
    with wire:
        before = carried(box)
        assert download(box.lab, version)
        assert carried(box) > before + 5000
        wire.settimeout(0.2)
        client, gate = address(box.lab, "client", "to-box"), address(box.lab, "box", "to-client")
        seen = 0
        try:
            while True:
                frame = wire.recv(65536)
                head = IP_HEAD[version]
                if frame[head:head + 2] != b"\x01\xbb" or len(frame) < 100:
                    continue
                seen += 1
                assert (frame[:6].hex(":"), frame[6:12].hex(":")) == (client, gate)
                assert frame[22 if version == 4 else 21] == 63
                assert sums_are_right(frame, version)
        except TimeoutError:
            pass
        assert seen > 5000


def sums_are_right(frame: bytes, version: int) -> bool:
    """Of the IPv4 header, and of TCP with what the headers of IP say of it (RFC 9293, section 3.1)."""
    ip, head = frame[14:], IP_HEAD[version] - 14
    if version == 4 and total(ip[:head]) != 0xFFFF:
        return False
    size = int.from_bytes(ip[2:4]) if version == 4 else head + int.from_bytes(ip[4:6])
    ends = ip[12:20] if version == 4 else ip[8:40]
    return total(ends + bytes([0, 6]) + (size - head).to_bytes(2) + ip[head:size]) == 0xFFFF


def total(data: bytes) -> int:
    """The sum in ones' complement."""
    value = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return value


def address(lab: Lab, place: str, device: str) -> str:
    return json.loads(lab.run_in(place, ["ip", "-j", "link", "show", "dev", device]).stdout)[0]["address"]


def test_packets_that_are_too_long_for_the_way_are_announced(box: Running):
    """The client's link takes less than the server's, and the server learns so from the box alone."""
    box.lab.run_in("box", ["ip", "link", "set", "to-client", "mtu", "1380"])
    for version in (4, 6):
        assert download(box.lab, version)
    assert carried(box) > 5000


@VERSIONS
def test_plain_http_is_carried_and_stays_http(box: Running, version: int):
    assert download(box.lab, version, "http")
    assert carried(box) > 5000
    assert by_rules(box) == 0           # no flow was done
    assert box.lab.fetch("http://pages.example/", version=version).status == 451


@VERSIONS
def test_a_kept_connection_is_carried_up_to_the_first_request_that_may_be_listed(box: Running, version: int):
    lab = box.lab
    for host, target, status in (("listed.example", "/", None), ("pages.example", "/", 451)):
        with lab.connect(80, version=version) as connection:
            assert asked(connection, "open.example", "/") == 200
            queued, before = lab.queued(), carried(box)
            assert [asked(connection, "open.example", f"/{number}") for number in range(20)] == [200] * 20
            assert carried(box) - before >= 40 and lab.queued() == queued     # each request, and its answer
            assert asked(connection, host, target) == status, host
            assert lab.queued() > queued
        before = carried(box)
        with lab.connect(80, version=version) as connection:
            assert asked(connection, "open.example", "/") == 200
            connection.sendall(request("open.example", "/") + request(host, target))
            assert answered(connection) in (None, 451), host


# ---- what is not: frames made by hand on the client's link, of a flow that is done


@contextmanager
def done_flow(running: Running, version: int) -> Iterator[Callable[..., Packet]]:
    """A flow of which packets go by the shortcut. Given: what makes a frame of the client's."""
    lab = running.lab
    server = lab.popen_in("server", [sys.executable, "-c", ECHO])
    try:
        with lab.entered("client"):
            one = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        with one:
            one.settimeout(0.2)
            one.connect((SERVER[version], 443))

            def answered() -> bool:
                with suppress(TimeoutError, ConnectionRefusedError):    # it is not up yet
                    one.send(b"short header")
                    return one.recv(2000) == b"short header"
                return False

            before = carried(running)
            assert until(answered, 10.0) and all(answered() for _ in range(5))
            assert carried(running) > before
            port = one.getsockname()[1]
            gate, own = address(lab, "box", "to-client"), address(lab, "client", "to-box")

            def frame(data: bytes = b"short header", **head) -> Packet:
                ip = (IP(src=CLIENT[4], dst=SERVER[4], **head) if version == 4
                      else IPv6(src=CLIENT[6], dst=SERVER[6], **head))
                return Ether(src=own, dst=gate) / ip / UDP(sport=port, dport=443) / Raw(data)
            yield frame
    finally:
        server.terminate()
        server.wait()


def send(lab: Lab, frame: Packet, device: str = "to-box") -> None:
    with lab.entered("client"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((device, 0))
        wire.send(bytes(frame))


def between(frame: Packet, layer: Packet) -> Packet:
    """The frame with a layer behind its Ethernet header."""
    again = Ether(src=frame.src, dst=frame.dst) / layer
    again.add_payload(frame.payload.copy())
    return again


def with_extension(frame: Packet) -> Packet:
    again = frame.copy()
    again[IPv6].payload = IPv6ExtHdrDestOpt() / again[IPv6].payload
    return again


def cut(frame: Packet) -> Packet:
    again = frame.copy()
    again[IP].flags = "MF"
    return again


def to_somebody_else(frame: Packet) -> Packet:
    again = frame.copy()
    again.dst = "02:00:00:00:00:99"
    return again


# By versions: the frame, how many of it come to the server, and how many of its answers are carried.
ODD: dict[str, tuple[tuple[int, ...], Callable[[Callable[..., Packet]], Packet], int, int]] = {
    "long header": ((4, 6), lambda frame: frame(b"\xc0 not short"), 1, 0),
    "no data": ((4, 6), lambda frame: frame(b""), 1, 0),
    "last hop": ((4,), lambda frame: frame(ttl=1), 0, 0),
    "last hop, IPv6": ((6,), lambda frame: frame(hlim=1), 0, 0),
    "options": ((4,), lambda frame: frame(options=[IPOption_NOP()] * 4), 1, 1),
    "extension header": ((6,), lambda frame: with_extension(frame()), 1, 1),
    "a piece": ((4,), lambda frame: cut(frame()), 0, 0),
    "tagged": ((4, 6), lambda frame: between(frame(), Dot1Q(vlan=7)), 0, 0),
    "for another station": ((4, 6), lambda frame: to_somebody_else(frame()), 0, 0),
    "another kind": ((4, 6), lambda frame: Ether(bytes(frame())[:12] + b"\x88\xb5" + bytes(frame())[14:]), 0, 0),
    "too short": ((4, 6), lambda frame: Ether(bytes(frame())[:30]), 0, 0),
}


@pytest.mark.parametrize(("name", "version"), [(name, version) for name, row in ODD.items() for version in row[0]])
def test_what_is_not_plain_takes_the_usual_way(shared: Running, name: str, version: int):
    _, make, arrives, answers = ODD[name]
    with done_flow(shared, version) as frame, arriving(shared.lab, "server", frame()[UDP].sport) as arrived:
        before = carried(shared)
        send(shared.lab, make(frame))
        send(shared.lab, frame(b"the last"))       # is carried, and comes behind
        assert until(lambda: any(b"the last" in one for one in arrived), 5.0)
        assert len(arrived) == arrives + 1
        expected = answers + 2                  # the last one and its answer, too
        assert until(lambda: carried(shared) - before >= expected, 5.0) and carried(shared) - before == expected


@VERSIONS
def test_the_last_hop_is_told(shared: Running, version: int):
    with done_flow(shared, version) as frame, arriving(shared.lab, "client", frame()[UDP].sport) as arrived:
        send(shared.lab, frame(ttl=1) if version == 4 else frame(hlim=1))
        told = ICMP if version == 4 else ICMPv6TimeExceeded
        assert until(lambda: any(told in Ether(one) for one in arrived), 5.0)


@VERSIONS
def test_what_comes_by_another_interface_takes_the_usual_way(box: Running, version: int):
    """Somebody at another port of the box who sends as the client, where the kernel lets him."""
    lab = box.lab
    lab.run_in("box", ["ip", "link", "add", "to-others", "type", "veth", "peer", "name", "others",
                       "netns", lab.namespace("client")])
    lab.run_in("box", ["ip", "link", "set", "to-others", "up"])
    lab.run_in("client", ["ip", "link", "set", "others", "up"])
    box.daemon.stop()
    box.daemon = lab.start_daemon(box.daemon.config.read_text().replace('"to-client"', '"to-client", "to-others"'))
    with done_flow(box, version) as frame, arriving(lab, "server", frame()[UDP].sport) as arrived:
        before = carried(box)
        false = frame(b"not the client")
        false.dst = address(lab, "box", "to-others")
        send(lab, false, "others")
        assert until(lambda: arrived, 5.0)
        assert carried(box) == before           # nor is its answer: that would leave by where the last one came
        for _ in range(5):
            send(lab, frame())                  # and the client himself is again, a little later
        assert until(lambda: carried(box) > before, 5.0)


# ---- boxes that do more than forward


def test_what_is_translated_is_not_carried(tmp_path: Path):
    with Lab() as lab:
        for tool in ("iptables", "ip6tables"):
            lab.run_in("box", [tool, "-t", "nat", "-A", "POSTROUTING", "-o", "to-server", "-j", "MASQUERADE"])
        running = start(lab, tmp_path, SHORTCUT)
        for version in (4, 6):
            assert download(lab, version)
        assert carried(running) == 0
        assert running.daemon.stop() == 0, running.daemon.last_words()


def test_a_box_with_ipsec_is_refused(tmp_path: Path):
    said = ('edgeblock: ruleset.kernel = "carry": this box has IPsec policies, past which packets would go; '
            'use ruleset.kernel = "marks"')
    with Lab() as lab:
        lab.run_in("box", ["ip", "xfrm", "policy", "add", "src", CLIENT[4], "dst", SERVER[4], "dir", "out",
                           "tmpl", "src", "203.0.113.1", "dst", SERVER[4], "proto", "esp", "mode", "tunnel"])
        with pytest.raises(SystemProblem, match=f"ended with 1:\n(.*\n)*{said}$"):
            start(lab, tmp_path, SHORTCUT)


# ---- daemons that come and go


@VERSIONS
def test_a_download_goes_on_while_daemons_come_and_go(box: Running, version: int):
    lab = box.lab
    with slow_download(lab, version) as ended:
        for how in ("kill", "start", "stop", "start"):
            if how == "start":
                box.daemon = lab.start_daemon(box.daemon.config.read_text())
                assert until(lambda: carried(box) > 200, 10.0)
            else:
                box.daemon.stop(signal.SIGKILL if how == "kill" else signal.SIGTERM)
                assert bool(filters(lab)) == (how == "kill")
        assert ended()


@contextmanager
def slow_download(lab: Lab, version: int) -> Iterator[Callable[[], bool]]:
    """A download under way. Given: what waits for its end and says whether all has come."""
    results: list[bool] = []
    target = lab.publish("slow", CONTENT)

    def client() -> None:
        seen = lab.fetch(f"https://open.example{target}", version=version, timeout=60.0,
                         options=["--limit-rate", "400K"])
        results.append(hashlib.sha256(seen.body).digest() == DIGEST)

    thread = threading.Thread(target=client)
    thread.start()

    def ended() -> bool:
        thread.join(60.0)
        return results == [True]
    try:
        yield ended
    finally:
        thread.join(60.0)


@pytest.mark.parametrize("kind", ["clsact", "ingress"])
def test_what_others_ask_at_the_interfaces_stays(tmp_path: Path, kind: str):
    theirs = ["protocol", "all", "prio", "7", "bpf", "bytecode", "1,6 0 0 0"]   # never so
    with Lab() as lab:
        track_nothing(lab)
        lab.run_in("box", ["tc", "qdisc", "add", "dev", "to-client", kind])
        for way in ("ingress", "egress")[:1 + (kind == "clsact")]:
            lab.run_in("box", ["tc", "filter", "add", "dev", "to-client", way, *theirs])
        before = [lab.run_in("box", ["tc", "filter", "show", "dev", "to-client", way]).stdout
                  for way in ("ingress", "egress")]
        running = start(lab, tmp_path, SHORTCUT)
        assert download(lab, 4)
        assert carried(running) > 5000
        assert running.daemon.stop() == 0, running.daemon.last_words()
        assert before == [lab.run_in("box", ["tc", "filter", "show", "dev", "to-client", way]).stdout
                          for way in ("ingress", "egress")]
        assert "clsact" not in lab.run_in("box", ["tc", "qdisc", "show", "dev", "to-server"]).stdout


def test_interfaces_that_come_late_and_go_and_come_back(tmp_path: Path):
    """As VLANs and bonds do at boot, when the daemon is there first."""
    with Lab() as lab:
        track_nothing(lab)
        running = start(lab, tmp_path, SHORTCUT.replace('"to-client"', '"to-client", "late"'))
        said = b'"interfaces of the shortcut are not there", "interfaces": ["late"]'
        assert until(lambda: said in running.daemon.log.read_bytes(), 5.0)
        for _ in range(2):
            assert download(lab, 4)
            lab.run_in("box", ["ip", "link", "add", "late", "type", "veth", "peer", "name", "late-peer"])
            assert until(lambda: "clsact" in lab.run_in("box", ["tc", "qdisc", "show", "dev", "late"]).stdout, 10.0)
            lab.run_in("box", ["ip", "link", "delete", "late"])
        assert carried(running) > 10_000
        assert running.daemon.stop() == 0, running.daemon.last_words()


# ---- mistakes


def test_an_interface_that_will_not_do_is_one_line_and_nothing_is_left(tmp_path: Path):
    said = 'ruleset.kernel = "carry": interface tunnel0: is no Ethernet; use ruleset.kernel = "marks"'
    with Lab() as lab:
        lab.run_in("box", ["ip", "tuntap", "add", "dev", "tunnel0", "mode", "tun"])
        with pytest.raises(SystemProblem, match=f"ended with 1:\n(.*\n)*edgeblock: {said}$"):
            start(lab, tmp_path, SHORTCUT.replace("to-server", "tunnel0"))
        assert not filters(lab)
        assert "EDGEBLOCK" not in lab.run_in("box", ["iptables-save"]).stdout


@contextmanager
def arriving(lab: Lab, place: str, port: int) -> Iterator[list[bytes]]:
    """Frames for this place with that port in them, meanwhile."""
    arrived: list[bytes] = []
    with lab.entered(place):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    wire.settimeout(0.05)
    ended = threading.Event()

    def listen() -> None:
        while not ended.is_set():
            with suppress(TimeoutError):
                data, where = wire.recvfrom(65536)
                if where[2] == socket.PACKET_HOST and port.to_bytes(2) + b"\x01\xbb" in data:
                    arrived.append(data)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield arrived
    finally:
        ended.set()
        thread.join()
        wire.close()
