"""QUIC through the daemon: what real clients see of an unlisted host, of a listed one, and what the queue sees."""

import os
from collections.abc import Iterator
from pathlib import Path

import h3
import pytest
from browser import Browsed, browse
from running import Running

from edgeblock.lab import SERVER, Lab, page

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
def test_a_block_holds_for_the_addresses_and_ports(lab: Lab, version: int):
    assert_closed(h3.fetch(lab, "listed.example", version=version, port=40_001))
    assert_closed(h3.fetch(lab, "open.example", version=version, port=40_001))
    assert_passes(h3.fetch(lab, "open.example", version=version, port=40_002), "open.example")


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
