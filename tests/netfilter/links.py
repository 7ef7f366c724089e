"""VLANs and bridges, shown with real packets on both back ends, on a kernel that has them: see tests/vm/boot.py.

A routed VLAN is an interface of its own. A bridge shows its packets to our rules only with br_netfilter, and then as
coming in and going out by the bridge itself.
"""

import socket
from contextlib import contextmanager

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Dot1Q, Ether
from test_ruleset_live import LONG, Box, ask, box, operator
from triple import SERVER, Triple, inside, mac, until

pytestmark = pytest.mark.live
__all__ = ["box", "operator"]      # fixtures


@pytest.mark.parametrize("family", [4, 6])
def test_a_vlan_is_an_interface_of_its_own(box, family):
    triple = box.triple
    with vlan(triple):
        box.apply(clients=("c0.*",), servers=("s0",))
        ask(triple.connect(family), 10)                      # untagged: not the clients' side
        assert box.count("tcp_client") == 0
        tagged = connected_from(triple, "10.201.7.2" if family == 4 else "fd00:201:7::2", family)
        ask(tagged, 3000)
        assert box.count("tcp_syn") >= 1
        box.settled("tcp_data", 1)
        box.settled("tcp_answered", 1)


@contextmanager
def vlan(triple):
    """Clients in VLAN 7 of the link to the box."""
    for place, device, four, six in ((triple.box, "c0", "10.201.7.1", "fd00:201:7::1"),
                                     (triple.client, "up0", "10.201.7.2", "fd00:201:7::2")):
        triple.ip("-n", place, "link", "add", "link", device, "name", f"{device}.7", "type", "vlan", "id", "7")
        triple.ip("-n", place, "address", "add", f"{four}/24", "dev", f"{device}.7")
        triple.ip("-n", place, "address", "add", f"{six}/64", "dev", f"{device}.7", "nodad")
        triple.ip("-n", place, "link", "set", f"{device}.7", "up")
    for family, gate in (("-4", "10.201.7.1"), ("-6", "fd00:201:7::1")):
        triple.ip("-n", triple.client, family, "rule", "add", "from", gate[:-1] + "2", "lookup", "7")
        triple.ip("-n", triple.client, family, "route", "add", "default", "via", gate, "table", "7")
    try:
        yield
    finally:
        for family, gate in (("-4", "10.201.7.1"), ("-6", "fd00:201:7::1")):
            triple.ip("-n", triple.client, family, "rule", "del", "from", gate[:-1] + "2", "lookup", "7")
        triple.ip("-n", triple.box, "link", "delete", "c0.7")
        triple.ip("-n", triple.client, "link", "delete", "up0.7")


def connected_from(triple, source: str, family: int) -> socket.socket:
    def make() -> socket.socket:
        return socket.create_connection((SERVER[family], 443), 10, (source, 0))
    triple.open.append(inside(triple.client, make))
    return triple.open[-1]


@pytest.fixture(params=["iptables", "nft"])
def bridge(request):
    """A box that is a bridge between client and server, and has an address in it, for the answers that it makes."""
    triple = Triple()
    rules = Box(triple, request.param)
    try:
        for device in ("c0", "s0"):
            triple.ip("-n", triple.box, "address", "flush", "dev", device)
        triple.ip("-n", triple.box, "link", "add", "br0", "type", "bridge", "vlan_filtering", "0")
        for device in ("c0", "s0"):
            triple.ip("-n", triple.box, "link", "set", device, "master", "br0")
        triple.ip("-n", triple.box, "link", "set", "br0", "up")
        triple.ip("-n", triple.client, "address", "flush", "dev", "up0", "scope", "global")
        triple.ip("-n", triple.client, "address", "add", "10.201.2.7/24", "dev", "up0")
        triple.ip("-n", triple.client, "address", "add", "fd00:201:2::7/64", "dev", "up0", "nodad")
        yield rules
    finally:
        rules.remove()
        triple.close()


@pytest.mark.parametrize("family", [4, 6])
def test_a_bridge_shows_its_packets_with_br_netfilter_only(bridge, family):
    triple = bridge.triple
    key = "net/bridge/bridge-nf-call-ip6tables" if family == 6 else "net/bridge/bridge-nf-call-iptables"
    triple.write(key, "0")
    bridge.apply()
    until(lambda: reaches(triple, family), "a connection through the bridge")
    ask(triple.connect(family), 3000)
    assert bridge.count("tcp_syn", "tcp_data") == 0
    triple.write(key, "1")
    ask(triple.connect(family), 3000)
    assert bridge.count("tcp_syn") >= 1
    bridge.settled("tcp_data", 1)
    bridge.settled("tcp_answered", 1)
    client = triple.udp(family)
    client.sendto(LONG + b" reply 30 ", (SERVER[family], 443))
    client.recv(100)
    bridge.settled("udp_data", 1)


@pytest.mark.parametrize("family", [4, 6])
def test_on_a_bridge_both_sides_are_the_bridge(bridge, family):
    triple = bridge.triple
    for one in ("iptables", "ip6tables"):
        triple.write(f"net/bridge/bridge-nf-call-{one}", "1")
    bridge.apply(clients=("br0",), servers=("br*",))
    until(lambda: reaches(triple, family), "a connection through the bridge")
    bridge.apply(clients=("br0",), servers=("br*",))
    ask(triple.connect(family), 3000)
    assert bridge.count("tcp_syn") >= 1
    bridge.settled("tcp_data", 1)
    bridge.settled("tcp_answered", 1)
    bridge.apply(clients=("c0",), servers=("s0",))           # the ports of the bridge are not seen
    ask(triple.connect(family), 10)
    assert bridge.count("tcp_client") == 0


def test_tagged_frames_on_a_bridge_need_a_setting_more(bridge):
    triple = bridge.triple
    for name in ("call-iptables", "filter-vlan-tagged"):
        triple.write(f"net/bridge/bridge-nf-{name}", "1" if name == "call-iptables" else "0")
    bridge.apply()
    until(lambda: reaches(triple, 4), "a connection through the bridge")
    bridge.apply()
    packet = TCP(sport=4000, dport=443, flags="PA", seq=1, ack=1) / b"hello"
    server_mac = inside(triple.server, lambda: mac("up0"))
    frame = bytes(Ether(src=triple.client_mac, dst=server_mac) / Dot1Q(vlan=7)
                  / IP(src="10.201.2.7", dst=SERVER[4]) / packet)
    triple.wire.send(frame)
    ask(triple.connect(4), 10)
    assert bridge.count("tcp_data") == 1                     # the untagged one
    triple.write("net/bridge/bridge-nf-filter-vlan-tagged", "1")
    triple.wire.send(frame)
    bridge.settled("tcp_data", 2)


def reaches(triple, family: int) -> bool:
    def attempt() -> bool:
        with socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6) as one:
            one.settimeout(1)
            return one.connect_ex((SERVER[family], 443)) == 0
    return inside(triple.client, attempt)
