"""UDP datagrams that the client's stack hands to the box as one packet (UDP_SEGMENT, as GRO does): each is judged."""

import socket
import struct

import pytest
from running import start
from test_quic import first_flight

from edgeblock.lab import SERVER, Lab

pytestmark = pytest.mark.live

UDP_SEGMENT = 103           # linux/udp.h
SIZE = 1200                 # bytes of each datagram
PORT = 443
LAST = b"\x40 nothing comes behind this"


def merged(lab: Lab) -> int:
    """How many packets of more than one datagram the box has got."""
    lines = lab.run_in("box", ["iptables", "-t", "raw", "-xvnL", "PREROUTING"]).stdout.splitlines()
    return int(next(line for line in lines if "length" in line).split()[0])


def send(lab: Lab, payloads: list[bytes], port: int, answered: bool = False) -> list[bytes]:
    """Sends these datagrams, each but the last of SIZE bytes, in one packet; returns what a server hears."""
    with lab.entered("server"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((SERVER[4], PORT))
        server.settimeout(10.0)
        with lab.entered("client"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("0.0.0.0", port))
            if answered:
                client.sendto(b"\x40", (SERVER[4], PORT))
                server.sendto(b"\x40", server.recvfrom(2000)[1])
                client.recv(2000)
            assert all(len(payload) == SIZE for payload in payloads[:-1])
            client.sendmsg([b"".join(payloads)], [(socket.SOL_UDP, UDP_SEGMENT, struct.pack("=H", SIZE))], 0,
                           (SERVER[4], PORT))
            client.sendto(LAST, (SERVER[4], PORT))
        heard = [server.recv(65536)]
        while heard[-1] != LAST:
            heard.append(server.recv(65536))
        return heard


@pytest.mark.parametrize("stage1", ["on", "off"])
def test_each_datagram_of_a_merged_packet_is_judged(tmp_path, stage1: str):
    with Lab(offload=True) as lab:
        lab.run_in("box", ["iptables", "-t", "raw", "-A", "PREROUTING", "-p", "udp", "-m", "length", "--length",
                           "1600:65535"])
        # Junk behind a header that ends at once: nothing in this datagram says that another packet follows.
        decoy = first_flight("bright.example")[0][:6] + b"\xff" * (SIZE - 6)
        running = start(lab, tmp_path, f'[ruleset]\nstage1 = "{stage1}"\n', 60.0)
        try:
            for number, (host, passes) in enumerate((("bright.example", True), ("listed.example", False))):
                first, second = first_flight(host)
                heard = send(lab, [decoy, first, second], 40_000 + number)
                assert merged(lab) == number + 1
                assert (second in heard) == passes and decoy in heard
            # On a flow that a server has answered, the kernel lets short headers by.
            short = b"\x40" + bytes(SIZE - 1)
            first, second = first_flight("listed.example")
            assert second not in send(lab, [short, first, second], 40_000, answered=True)
        finally:
            assert running.daemon.stop() == 0, running.daemon.last_words()
