"""QUIC through the daemon: what real clients see of an unlisted host, of a listed one, and what the queue sees."""

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import h3
import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from browser import Browsed, browse
from quic_packets import crypto, initial
from running import Running

from edgeblock.core.connections import Reader
from edgeblock.lab import SERVER, Lab, page, until

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("running", "served")]

VERSIONS = pytest.mark.parametrize("version", [4, 6])
QUIC_VERSIONS = pytest.mark.parametrize("quic", [h3.V1, h3.V2], ids=["v1", "v2"])
ACCESS_DENIED = 0x100 + 49      # what our CONNECTION_CLOSE says: RFC 9000, 20.1; RFC 8446, 6.2
AT_ONCE = 1.5                   # seconds; aioquic itself takes 0.6 to let go of a connection that was closed
PATIENCE = 3.0                  # seconds after which the client gives up without an answer


@pytest.fixture(scope="module")
def served(lab: Lab) -> Iterator[None]:
    with h3.serving(lab):
        yield


def assert_passes(seen: h3.Seen, host: str, target: str = "/") -> None:
    assert (seen.status, seen.body) == (200, page(host, target)), seen


def assert_closed(seen: h3.Seen) -> None:
    assert (seen.status, seen.body, seen.error) == (0, b"", ACCESS_DENIED)
    assert seen.seconds < AT_ONCE


@VERSIONS
@QUIC_VERSIONS
@pytest.mark.parametrize("host", ["open.example", "example.com", "www.example.net", "fine.listed.example",
                                  "watched.example.net"])
def test_an_unlisted_host_and_the_neighbours_pass(lab: Lab, version: int, quic: int, host: str):
    assert_passes(h3.fetch(lab, host, "/?q=1", version=version, quic=quic), host, "/?q=1")


@VERSIONS
@QUIC_VERSIONS
@pytest.mark.parametrize("host", ["listed.example", "www.listed.example", "only.example.net", "pages.example"])
def test_a_listed_host_is_closed_at_once(lab: Lab, version: int, quic: int, host: str):
    assert_closed(h3.fetch(lab, host, version=version, quic=quic))


@VERSIONS
def test_a_listed_url_passes_as_the_path_is_invisible(lab: Lab, version: int):
    assert_passes(h3.fetch(lab, "example.com", "/bad/page.html", version=version), "example.com", "/bad/page.html")


@VERSIONS
def test_drop_is_silent(lab: Lab, version: int):
    seen = h3.fetch(lab, "silent.example.org", version=version, timeout=PATIENCE)
    assert (seen.status, seen.error) == (0, None)
    assert seen.seconds > PATIENCE - 0.1


@VERSIONS
def test_a_block_is_the_connections_and_not_the_ports(lab: Lab, version: int):
    for _ in range(3):
        assert_closed(h3.fetch(lab, "listed.example", version=version, port=40_001))
        assert_passes(h3.fetch(lab, "open.example", version=version, port=40_001), "open.example")


@VERSIONS
def test_a_new_connection_on_an_old_flow_is_seen(lab: Lab, version: int):
    assert_passes(h3.fetch(lab, "open.example", version=version, port=40_003), "open.example")
    assert_closed(h3.fetch(lab, "listed.example", version=version, port=40_003))


@VERSIONS
def test_bulk_data_stays_in_the_kernel(lab: Lab, version: int):
    content = os.urandom(1 << 20) * 4
    target = lab.publish("bulk-h3", content)
    before, sent = lab.queued(), datagrams_sent(lab)
    seen = h3.fetch(lab, "open.example", target, version=version, timeout=30.0)
    assert (seen.status, seen.body) == (200, content)
    assert datagrams_sent(lab) - sent > 100, "the client acknowledged too little to show anything"
    assert lab.queued() - before < 20


# ---- what somebody else sends in a client's name


def hello(name: bytes) -> bytes:
    entry = b"\x00" + len(name).to_bytes(2) + name
    extensions = b"\x00\x00" + (len(entry) + 2).to_bytes(2) + len(entry).to_bytes(2) + entry
    body = b"\x03\x03" + bytes(32) + b"\x00\x00\x02\x13\x01\x01\x00" + len(extensions).to_bytes(2) + extensions
    return b"\x01" + len(body).to_bytes(3) + body


LISTED = hello(b"listed.example")
SPOOFED = {"whole": (crypto(0, LISTED), 1200), "short": (crypto(0, LISTED), 198), "half": (crypto(0, LISTED[:70]), 0),
           "another": (crypto(0, hello(b"open.example")), 1200)}


@VERSIONS
@pytest.mark.parametrize("kind", SPOOFED)
def test_nobody_who_sees_nothing_harms_an_open_connection(lab: Lab, version: int, kind: str):
    frames, size = SPOOFED[kind]
    port = 40_100 + 10 * list(SPOOFED).index(kind) + version
    sent = [initial(frames, dcid=os.urandom(8), scid=os.urandom(8), size=size) for _ in range(1000)]
    seen = h3.harass(lab, "open.example", sent, version=version, port=port)
    assert [(one.status, one.body) for one in seen] == [(200, page("open.example"))] * 21
    assert_passes(h3.fetch(lab, "open.example", version=version, port=port), "open.example")
    assert not until(lambda: False, 1.0)        # those 1000 may have used up the answers of their second
    assert_closed(h3.fetch(lab, "listed.example", version=version, port=port))
    assert_passes(h3.fetch(lab, "open.example", version=version, port=port), "open.example")


@VERSIONS
def test_a_hello_from_two_ports_is_one(lab: Lab, version: int):
    """The server takes it: it knows the connection by its id."""
    def answered(host: str) -> bool:
        flight = first_flight(host)
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with lab.entered("client"), socket.socket(family, socket.SOCK_DGRAM) as first, \
                socket.socket(family, socket.SOCK_DGRAM) as second:
            for one, datagram in ((first, flight[0]), (second, flight[1])):
                one.sendto(datagram, (SERVER[version], 443))
            while ready := select.select([first, second], [], [], 1.0)[0]:
                if any(len(one.recv(2000)) > 1000 for one in ready):     # what is shorter acknowledges the first half
                    return True
            return False

    assert answered("open.example")
    assert not answered("listed.example")


def first_flight(host: str) -> list[bytes]:
    """A ClientHello that aioquic made, in two Initials of one connection."""
    client = QuicConnection(configuration=QuicConfiguration(is_client=True, server_name=host, alpn_protocols=["h3"]))
    client.connect(("192.0.2.1", 443), now=0.0)
    sent = client.datagrams_to_send(now=0.0)[0][0]
    dcid = sent[6:6 + sent[5]]
    (_, _, message), = Reader().read(sent)[1]
    cut = message.index(host.encode()) + 4
    scid = sent[7 + len(dcid):7 + len(dcid) + sent[6 + len(dcid)]]
    return [initial(crypto(0, message[:cut]), dcid=dcid, scid=scid, size=1200),
            initial(crypto(cut, message[cut:]), dcid=dcid, scid=scid, number=1, size=1200)]


def datagrams_sent(lab: Lab) -> int:
    """By the client, over IPv4 and IPv6."""
    return counter(lab, "snmp", "Udp", "OutDatagrams") + counter(lab, "snmp6", "Udp6", "OutDatagrams")


def counter(lab: Lab, file: str, group: str, name: str) -> int:
    """One of the kernel's counters in the client's namespace."""
    lines = lab.run_in("client", ["cat", f"/proc/net/{file}"]).stdout.splitlines()
    if file == "snmp6":
        return int(dict(line.split() for line in lines)[group + name])
    names, values = (line.split() for line in lines if line.startswith(f"{group}:"))
    return int(dict(zip(names, values, strict=True))[name])


@pytest.mark.parametrize("version,mtu,datagram", [(4, 600, 1200), (6, 1280, 1400)])
def test_fragments(lab: Lab, version: int, mtu: int, datagram: int):
    def fragments() -> int:
        return counter(lab, "snmp6", "Ip6", "FragCreates") if version == 6 else counter(lab, "snmp", "Ip",
                                                                                         "FragCreates")

    gateway = {4: "192.0.2.1", 6: "2001:db8:1::1"}[version]
    route = [SERVER[version], "via", gateway]
    lab.run_in("client", ["ip", "route", "add", *route, "mtu", str(mtu)])
    try:
        before = fragments()
        assert_passes(h3.fetch(lab, "open.example", version=version, datagram=datagram), "open.example")
        assert fragments() > before, "the client's Initial was not fragmented"
        before = fragments()
        assert_closed(h3.fetch(lab, "listed.example", version=version, datagram=datagram))
        assert fragments() > before
    finally:
        lab.run_in("client", ["ip", "route", "del", *route])


# ---- Chromium


@pytest.mark.chromium
@VERSIONS
def test_chromium_loads_an_unlisted_page_over_quic(lab: Lab, tmp_path: Path, version: int):
    seen = browse(lab, tmp_path, "open.example", version)
    assert page("open.example").decode() in seen.page
    assert seen.times("QUIC_SESSION_CERTIFICATE_VERIFIED") and not seen.errors()


def patience(seen: Browsed, host: str) -> int:
    """Milliseconds from the first QUIC session for the host until it was over."""
    sessions = [at for at, name, more in seen.events if name == "QUIC_SESSION" and more.get("host") == host]
    return min(seen.times("QUIC_SESSION_CLOSED")) - min(sessions)


@pytest.mark.chromium
@VERSIONS
def test_chromium_gives_up_a_listed_host_at_once(lab: Lab, tmp_path: Path, version: int):
    closed = browse(lab, tmp_path / "reset", "listed.example", version)
    assert "served by the lab" not in closed.page and closed.errors() == {ACCESS_DENIED}
    dropped = browse(lab, tmp_path / "drop", "silent.example.org", version)
    assert "served by the lab" not in dropped.page and not dropped.errors()
    assert patience(closed, "listed.example") < 1000 < 3000 < patience(dropped, "silent.example.org")


@pytest.mark.chromium
@VERSIONS
def test_chromium_gets_no_listed_page_over_tcp_either(lab: Lab, tmp_path: Path, version: int):
    seen = browse(lab, tmp_path / "listed", "listed.example", version, "tcp")
    assert "served by the lab" not in seen.page and seen.times("SSL_HANDSHAKE_MESSAGE_SENT")
    assert page("open.example").decode() in browse(lab, tmp_path / "open", "open.example", version, "tcp").page


@pytest.mark.chromium
@VERSIONS
def test_chromium_that_falls_back_to_tcp_is_blocked_there(lab: Lab, tmp_path: Path, version: int):
    seen = browse(lab, tmp_path, "listed.example", version, "told")
    assert "served by the lab" not in seen.page
    assert seen.errors() == {ACCESS_DENIED} and seen.times("SSL_HANDSHAKE_MESSAGE_SENT")
    assert not seen.times("SSL_HANDSHAKE_MESSAGE_RECEIVED")


def test_blocks_are_counted(lab: Lab, running: Running):
    before = lab.counters(running.daemon)
    assert_closed(h3.fetch(lab, "listed.example"))
    after = lab.counters(running.daemon)
    assert after["engine.blocked_reset"] == before["engine.blocked_reset"] + 1
    assert after["engine.quic_initials"] > before["engine.quic_initials"]
