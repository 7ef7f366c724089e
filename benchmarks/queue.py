"""How many packets a second one core takes from an NFQUEUE: ours with the whole engine, beside netfilterqueue's loop.

    .venv/bin/python benchmarks/queue.py [--rounds N] [--packets N] [--json FILE]

In a namespace of its own, on loopback: the queue is filled with packets while nobody reads (UDP datagrams, or TCP
segments that each hold a whole ClientHello), then emptied by one reader; timed is the emptying, which includes the
kernel's receive and verdict work. Rounds of the readers alternate. Prints the median and the spread of each, the
ratio of medians, and what of the time was spent in user space. Needs root.

    ours      QueueReader and the engine with a matcher of 10 000 names; of the datagrams it reads only the headers
    stock     netfilterqueue's own loop with a Python callback that accepts
"""

import argparse
import json
import os
import platform
import random
import resource
import socket
import ssl
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from netfilterqueue import NetfilterQueue
from scapy.layers.inet import IP, TCP

from edgeblock.blocklist.rules import load
from edgeblock.core.engine import Engine
from edgeblock.lab import call, enter
from edgeblock.source.nfqueue import QueueReader, kernel_queues

QUEUE, PORT, NAMES = 0, 443, 10_000
ROOM = 1 << 30          # bytes of receive buffer, so that no packet is lost while the queue fills


def client_hello(name: str) -> bytes:
    context = ssl.create_default_context()
    outgoing = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a server")


def hellos(count: int) -> list[bytes]:
    """TCP segments of as many flows, each one whole ClientHello for a name of its own; none of them is listed."""
    hello = client_hello("host00000000.example")
    dice = random.Random(1)
    packets = []
    for number in range(count):
        segment = TCP(sport=dice.randrange(1024, 65536), dport=PORT, seq=dice.randrange(1 << 32), ack=1, flags="PA")
        address = f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255 or 1}"
        body = hello.replace(b"host00000000", b"host%08d" % number)
        packets.append(bytes(IP(src=address, dst="127.0.0.1") / segment / body))
    return packets


def ours(matcher: object) -> tuple[Callable[[], int], Callable[[], None]]:
    reader = QueueReader(QUEUE, Engine(matcher), lambda packet, decision: None, buffer=ROOM)

    def close() -> None:
        counters = reader.counters()
        assert counters["lost"] == counters["waiting"] == counters["decisions"] == 0, counters
        reader.close()

    return reader.drain, close


def stock() -> tuple[Callable[[], None], Callable[[], None]]:
    queue = NetfilterQueue()
    queue.bind(QUEUE, lambda packet: packet.accept(), max_len=1 << 22, sock_len=ROOM)
    return lambda: queue.run(block=False), queue.unbind


def fill(packets: list[bytes] | int) -> None:
    if isinstance(packets, int):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.connect(("127.0.0.1", PORT))
            for _ in range(packets):
                sender.send(b"x" * 100)
        return
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        for packet in packets:
            sender.sendto(packet, ("127.0.0.1", 0))


def measure(read: Callable[[], object], close: Callable[[], None], packets: list[bytes] | int) -> dict[str, float]:
    fill(packets)
    waiting = kernel_queues()[QUEUE]["waiting"]
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    read()
    while kernel_queues()[QUEUE]["waiting"]:
        read()
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    close()
    return {"rate": waiting / seconds, "user_us": (after.ru_utime - before.ru_utime) / waiting * 1e6,
            "system_us": (after.ru_stime - before.ru_stime) / waiting * 1e6, "packets": waiting}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--packets", type=int, default=30_000)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "names.list").write_text("".join(f"listed{number}.example\n" for number in range(NAMES)))
        matcher = load(folder).matcher
    name = f"edgeblock-bench-{os.getpid()}"
    call(["ip", "netns", "add", name])
    try:
        with open(f"/run/netns/{name}") as namespace:
            enter(namespace.fileno())
        for command in ("ip link set lo up", "iptables -A INPUT -m conntrack --ctstate UNTRACKED -j DROP",
                        f"iptables -A INPUT -p udp --dport {PORT} -j NFQUEUE --queue-num {QUEUE}",
                        f"iptables -A INPUT -p tcp --dport {PORT} -j NFQUEUE --queue-num {QUEUE}",
                        # What the server's kernel would answer is none of the reader's work.
                        "iptables -t mangle -A OUTPUT -p tcp --tcp-flags RST RST -j DROP"):
            call(command.split())
        packets = hellos(chosen.packets)
        runs: dict[str, Callable[[], dict[str, float]]] = {
            "hellos, ours": lambda: measure(*ours(matcher), packets),
            "hellos, stock": lambda: measure(*stock(), packets),
            "datagrams, ours": lambda: measure(*ours(matcher), chosen.packets),
            "datagrams, stock": lambda: measure(*stock(), chosen.packets),
        }
        samples: dict[str, list[dict[str, float]]] = {what: [] for what in runs}
        for _ in range(chosen.rounds):
            for what, run in runs.items():
                samples[what].append(run())
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)
    print(f"{'':18}{'packets/s':>10}  {'lowest to highest':>20}  {'user us':>8}  {'system us':>9}")
    medians = {}
    for what, found in samples.items():
        rates = [sample["rate"] for sample in found]
        medians[what] = statistics.median(rates)
        spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
        user, system = (statistics.median(sample[key] for sample in found) for key in ("user_us", "system_us"))
        print(f"{what:18}{medians[what]:>10,.0f}  {spread:>20}  {user:>8.2f}  {system:>9.2f}")
    for kind in ("hellos", "datagrams"):
        print(f"{kind}: ours / stock = {medians[f'{kind}, ours'] / medians[f'{kind}, stock']:.2f}")
    if chosen.json:
        chosen.json.write_text(json.dumps({"machine": platform.processor() or platform.machine(),
                                           "kernel": platform.release(), "samples": samples}, indent=1))


if __name__ == "__main__":
    main()
