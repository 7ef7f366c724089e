"""How fast the engine alone is, on one core: bytes in, verdicts out, no kernel and no file.

    .venv/bin/python benchmarks/engine.py [--rounds N] [--json FILE]

Builds a mixed capture in memory (its make-up is printed), then judges it in a compiled loop with a matcher of 100 000
names. Every round begins with an empty flow table. Prints median and spread (lowest to highest) over the rounds.
"""

import argparse
import contextlib
import json
import platform
import random
import ssl
import statistics
import tempfile
import time
from pathlib import Path

from quic import first_initial
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.rules import load
from edgeblock.core.engine import Engine

NAMES = 100_000
FLOWS = 12_000
MIX = {"tls": 60, "tls-two-segments": 15, "http": 15, "other-tcp": 10}     # percent of TCP flows
IPV6 = 25                                                                    # percent of flows
UDP_PACKETS = 6_000
MSS = 1400
CHECKSUM_VERIFY, CHECKSUM_TRUST = 0, 1      # core/engine.pxd


def client_hello(name: str, padding: int = 0) -> bytes:
    """A ClientHello as OpenSSL sends it; `padding` bytes of ALPN make it as long as a post-quantum one."""
    context = ssl.create_default_context()
    if padding:
        context.set_alpn_protocols(["x" * 200 for _ in range(padding // 201)])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    side = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        side.do_handshake()
    return outgoing.read()


def request(name: str, path: str) -> bytes:
    return (f"GET {path} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101\r\n"
            "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-GB,en\r\n"
            "Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n\r\n").encode()


class Flow:
    """Client packets of one flow, checksums right, addresses its own."""

    def __init__(self, index: int, ipv6: bool, port: int):
        host = index.to_bytes(3, "big")
        if ipv6:
            source = "2001:db8::" + ":".join(f"{b:x}" for b in host)
            self.ip = IPv6(src=source, dst="2001:db8:1::1")
        else:
            self.ip = IP(src=".".join(str(b) for b in (10, *host)), dst="192.0.2.1")
        self.port = port
        self.sport = 1024 + index % 60_000
        self.seq = index * 7919 % 2**32

    def packet(self, flags: str, payload: bytes = b"") -> bytes:
        segment = TCP(sport=self.sport, dport=self.port, flags=flags, seq=self.seq, ack=0 if flags == "S" else 1)
        data = bytes(self.ip / segment / Raw(payload))
        self.seq = (self.seq + len(payload) + (flags in ("S", "FA"))) % 2**32
        return data


def tcp_flow(index: int, kind: str, ipv6: bool, hellos: dict[str, bytes]) -> list[bytes]:
    flow = Flow(index, ipv6, 80 if kind == "http" else 443)
    packets = [flow.packet("S"), flow.packet("A")]
    if kind == "http":
        for page in range(2):
            packets += [flow.packet("PA", request("www.example.com", f"/page{page}?q=1")), flow.packet("A")]
    elif kind == "other-tcp":
        packets.append(flow.packet("PA", b"\x00\x01\x02" * 40))
    else:
        hello = hellos[kind]
        packets += [flow.packet("PA", hello[at:at + MSS]) for at in range(0, len(hello), MSS)]
    return [*packets, flow.packet("A"), flow.packet("PA", bytes(range(256))), flow.packet("FA")]


def mixed_capture() -> list[bytes]:
    """Packets of FLOWS flows in MIX, interleaved as if 500 clients were active at a time."""
    chance = random.Random(7)
    hellos = {"tls": client_hello("www.example.com"), "tls-two-segments": client_hello("www.example.com", 1400)}
    kinds = chance.choices(list(MIX), weights=list(MIX.values()), k=FLOWS)
    waiting = [tcp_flow(i, kind, chance.randrange(100) < IPV6, hellos) for i, kind in enumerate(kinds)]
    packets: list[bytes] = []
    active: list[list[bytes]] = []
    while waiting or active:
        while waiting and len(active) < 500:
            active.append(waiting.pop()[::-1])
        flow = chance.choice(active)
        packets.append(flow.pop())
        if not flow:
            active.remove(flow)
    dns = bytes(IP(src="10.0.0.1", dst="192.0.2.53") / UDP(sport=5353, dport=53) / Raw(bytes(40)))
    for _ in range(UDP_PACKETS):
        packets.insert(chance.randrange(len(packets)), dns)
    return packets


def each_from_its_own(packet: bytes, count: int = 40_000) -> list[bytes]:
    """An IPv4 packet from as many addresses, each the first of its own flow; its checksum is wrong then."""
    return [packet[:13] + index.to_bytes(3, "big") + packet[16:] for index in range(count)]


def hello_packet() -> bytes:
    """A ClientHello of one segment."""
    return Flow(0, False, 443).packet("PA", client_hello("www.example.com"))


def datagram_packet(datagram: bytes) -> bytes:
    return bytes(IP(src="10.0.0.1", dst="192.0.2.1") / UDP(sport=50_000, dport=443) / Raw(datagram))


def lists_of(count: int) -> ListMatcher:
    """A matcher of `count` names, none of which the traffic asks for."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "bench.list").write_text("".join(f"host{n}.blocked-{n % 997}.test\n" for n in range(count)))
        return load(directory).matcher


def measure(packets: list[bytes], rounds: int, lists: ListMatcher, flags: int) -> list[float]:
    """Packets per second of processor time, one figure a round, each with an engine of its own."""
    rates = []
    for _ in range(rounds):
        engine = Engine(lists)
        begin = time.process_time()
        accepted = engine.judge_all(packets, 1.0, flags)
        rates.append(len(packets) / (time.process_time() - begin))
        if accepted != len(packets):
            raise SystemExit(f"{len(packets) - accepted} packets of an unlisted mix were not accepted")
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="rounds of each measurement (7)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    options = parser.parse_args()

    print(f"{platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}; one core")
    print(f"traffic: {FLOWS} TCP flows ({', '.join(f'{share} % {kind}' for kind, share in MIX.items())}), "
          f"{IPV6} % IPv6, client side only, {UDP_PACKETS} UDP packets; {NAMES} listed names, none asked for")
    lists = lists_of(NAMES)
    mixed, initial = mixed_capture(), first_initial()
    noise = initial[:100] + random.Random(1).randbytes(len(initial) - 100)

    def alone(packet: bytes) -> list[float]:
        return measure(each_from_its_own(packet), options.rounds, lists, CHECKSUM_TRUST)

    results = {
        "mixed traffic, packets/s": measure(mixed, options.rounds, lists, CHECKSUM_VERIFY),
        "ClientHellos of one segment, each a new flow, hellos/s": alone(hello_packet()),
        f"QUIC Initials of {len(initial)} bytes, each a new flow, Initials/s": alone(datagram_packet(initial)),
        "QUIC Initials that do not open, each a new flow, Initials/s": alone(datagram_packet(noise)),
    }
    for what, rates in results.items():
        print(f"{what}: {statistics.median(rates):,.0f} (from {min(rates):,.0f} to {max(rates):,.0f} "
              f"in {len(rates)} rounds)")
    if options.json:
        options.json.write_text(json.dumps({
            "machine": platform.machine(), "kernel": platform.release(), "python": platform.python_version(),
            "mix": MIX, "flows": FLOWS, "names": NAMES, "packets": len(mixed), "samples": results}, indent=1))


if __name__ == "__main__":
    main()
