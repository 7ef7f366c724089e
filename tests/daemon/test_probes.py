"""The bytes of the daemon's probes, as the engine and an independent reader take them."""

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from edgeblock.blocklist import canary
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.snapshot import open_snapshot, pack
from edgeblock.config import Config
from edgeblock.daemon import probes
from edgeblock.engine import make_engine

KEY = bytes(range(16))
PATHS = {4: probes.Path("198.18.0.2", "198.18.0.6"), 6: probes.Path("2001:2::2", "2001:2::6")}


@pytest.fixture(scope="module")
def matcher():
    return ListMatcher(open_snapshot(pack(canary.part(KEY), KEY, 0), KEY))


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("protocol", probes.ANSWERS)
@pytest.mark.parametrize("family", PATHS)
def test_the_engine_blocks_the_control_name_and_not_its_neighbour(matcher, family, protocol, pieces):
    for name, blocked in ((canary.control_name(KEY), True), (canary.neighbour_name(KEY), False)):
        engine, path = make_engine(Config(), matcher), PATHS[family]
        payloads = probes.payloads(protocol, name, pieces)
        assert len(payloads) == 1 + pieces
        verdicts, at = [], 1001
        if protocol != "quic":
            engine.judge(path.tcp(4000, 443, probes.SYN, 1000, 0), 1.0)
        for payload in payloads:
            if protocol == "quic":
                packet = path.udp(4000, 443, payload)
            else:
                packet = path.tcp(4000, 443, probes.ACK | probes.PSH, at, 5001, payload)
                at += len(payload)
            verdicts += [one.action for one in engine.judge(packet, 1.0).names]
        assert verdicts == ["reset"] * blocked and engine.counters()["names"] == 1


@pytest.mark.parametrize("family", PATHS)
def test_headers_are_those_of_an_independent_writer(family):
    path = PATHS[family]
    layer = IP if family == 4 else IPv6
    for packet in (path.tcp(4000, 443, probes.SYN, 7, 0), path.tcp(1, 2, probes.ACK, 2**32 - 1, 2**32 + 5, b"odd"),
                   path.udp(4000, 443, b"something"), path.udp(4000, 443, b"")):
        parsed = layer(packet)
        transport = parsed[TCP] if TCP in parsed else parsed[UDP]
        transport.chksum = None
        if family == 4:
            parsed.chksum = None
        assert bytes(layer(bytes(parsed))) == packet
        seen = probes.read(packet)
        assert (seen.source, seen.target, seen.payload) == (transport.sport, transport.dport,
                                                            bytes(transport.payload))


def test_what_is_no_packet_of_ours_is_none():
    whole = PATHS[4].tcp(4000, 443, probes.SYN, 7, 0)
    assert all(probes.read(whole[:size]) is None for size in range(len(whole)))
    assert probes.read(bytes(60)) is None


def test_the_names_are_the_keys_alone():
    names = {canary.control_name(key) for key in (KEY, bytes(16))} | {canary.neighbour_name(KEY)}
    assert len(names) == 3 and all(name.endswith(".invalid") and len(name) == 48 for name in names)
