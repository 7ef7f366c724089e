"""Listed addresses: judged on the first packet of a flow, whatever it carries, over IPv4 and IPv6, TCP and UDP."""

import socket
from pathlib import Path

import pytest
from running import Running

from edgeblock.lab import CLIENT, SERVER, Lab, until

pytestmark = pytest.mark.live

SOON = 20.0
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
VERSIONS = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture(params=["conntrack", "stage1"])
def tracking(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def udp(lab: Lab, place: str, version: int) -> socket.socket:
    with lab.entered(place):
        made = socket.socket(FAMILY[version], socket.SOCK_DGRAM)
    made.settimeout(0.5)
    return made


def arrives(lab: Lab, version: int, payload: bytes, port: int = 443) -> bool:
    """Whether a datagram of a new flow reaches the server; 443 is nginx's for QUIC, so a second socket shares it."""
    with udp(lab, "server", version) as server, udp(lab, "client", version) as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind((SERVER[version], port))
        client.sendto(payload, (SERVER[version], port))
        try:
            return server.recvfrom(2048)[0] == payload
        except TimeoutError:
            return False


def entries(running: Running) -> int:
    return running.lab.counters(running.daemon).get("lists.places.entries", 0)


@VERSIONS
def test_a_listed_endpoint_is_cut_at_its_first_packet(fresh: Running, version: int):
    lab, address = fresh.lab, SERVER[version]
    endpoint = f"{address}:443" if version == 4 else f"[{address}]:443"
    lab.connect(443, version=version).close()
    assert arrives(lab, version, b"no name at all")
    fresh.drop("places.list", f"{endpoint}\n")
    fresh.drop("places.toml", 'action = "reset"\n')
    assert until(lambda: entries(fresh) == 1, SOON)
    with pytest.raises(ConnectionRefusedError):
        lab.connect(443, version=version)           # the SYN is answered: no byte of a name was ever sent
    assert not arrives(lab, version, b"no name at all")
    assert lab.fetch("http://open.example/", version=version).status == 200        # another port
    other = 10 - version
    lab.connect(443, version=other).close()
    assert until(lambda: '"event": "addresses met", "list": "places"' in fresh.daemon.log.read_text(), SOON)
    log = fresh.daemon.log.read_text()
    assert address not in log and CLIENT[version] not in log


@VERSIONS
def test_a_listed_prefix_is_dropped_without_an_answer(fresh: Running, version: int):
    lab, address = fresh.lab, SERVER[version]
    prefix = address.rsplit(".", 1)[0] + ".64/27" if version == 4 else "2001:db8:80::/48"
    fresh.drop("places.list", f"{prefix}\n")
    fresh.drop("places.toml", 'action = "drop"\n')
    assert until(lambda: entries(fresh) == 1, SOON)
    for port in (80, 443):
        with pytest.raises(TimeoutError):
            lab.connect(port, version=version, timeout=1.5)
    assert not arrives(lab, version, b"no name at all")
    assert lab.fetch("http://open.example/", version=10 - version).status == 200


def test_an_exception_inside_a_listed_prefix(fresh: Running, tmp_path: Path):
    fresh.drop("places.list", f"203.0.113.0/24\n@@{SERVER[4]}:80\n")
    assert until(lambda: entries(fresh) == 2, SOON)
    assert fresh.lab.fetch("http://open.example/").status == 200
    with pytest.raises(ConnectionRefusedError):
        fresh.lab.connect(443)
