"""Three network namespaces, client - box - server, and what is needed to send exact packets through the box.

In: nothing. Out: a Triple whose sockets live in the namespaces. `close` removes them; nothing else is touched.
"""

import ctypes
import secrets
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from netfilterqueue import NetfilterQueue
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
PATIENCE = 10.0       # seconds: how long a condition may take to come true on a busy machine
ETH_P_ALL = 3

CLIENT, SERVER = {4: "10.201.1.2", 6: "fd00:201:1::2"}, {4: "10.201.2.2", 6: "fd00:201:2::2"}
BOX = {4: "10.201.1.1", 6: "fd00:201:1::1"}
GHOST = {4: "10.201.1.77", 6: "fd00:201:1::77"}      # an address that no kernel answers for
OPTIONS = [("NOP", None), ("NOP", None), ("Timestamp", (1, 0))]


def until(true: Callable[[], Any], what: str) -> Any:
    """The first true answer; AssertionError after PATIENCE."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        answer = true()
        if answer:
            return answer
        select.select([], [], [], 0.01)
    raise AssertionError(f"never came: {what}")


def tls_like(size: int) -> bytes:
    """So many bytes that begin like application data, which a server sends only once it has answered."""
    return (b"\x17\3\3" + b"S" * size)[:size]


class Triple:
    def __init__(self) -> None:
        mark = secrets.token_hex(3)
        self.client, self.box, self.server = (f"eb-{mark}-{role}" for role in ("client", "box", "server"))
        self.open: list[Any] = []
        for name in (self.client, self.box, self.server):
            self.ip("netns", "add", name)
            self.ip("-n", name, "link", "set", "lo", "up")
        self.ip("-n", self.box, "link", "add", "c0", "type", "veth", "peer", "name", "up0", "netns", self.client)
        self.ip("-n", self.box, "link", "add", "s0", "type", "veth", "peer", "name", "up0", "netns", self.server)
        for name, device, four, six in ((self.client, "up0", CLIENT[4], CLIENT[6]), (self.box, "c0", BOX[4], BOX[6]),
                                        (self.box, "s0", "10.201.2.1", "fd00:201:2::1"),
                                        (self.server, "up0", SERVER[4], SERVER[6])):
            self.ip("-n", name, "address", "add", f"{four}/24", "dev", device)
            self.ip("-n", name, "address", "add", f"{six}/64", "dev", device, "nodad")
            self.ip("-n", name, "link", "set", device, "up")
        for name, four, six in ((self.client, BOX[4], BOX[6]), (self.server, "10.201.2.1", "fd00:201:2::1")):
            self.ip("-n", name, "route", "add", "default", "via", four)
            self.ip("-n", name, "-6", "route", "add", "default", "via", six)
        self.write("net/ipv4/ip_forward", "1")
        self.write("net/ipv6/conf/all/forwarding", "1")
        self.client_mac = inside(self.client, lambda: mac("up0"))
        self.box_mac = inside(self.box, lambda: mac("c0"))
        for family in (4, 6):
            self.ip("-n", self.box, "neighbour", "add", GHOST[family], "lladdr", self.client_mac, "dev", "c0")
        inside(self.server, lambda: put("net/ipv4/tcp_synack_retries", "1"))    # to clients made by hand
        self.wire = inside(self.client, packet_socket)
        self.open.append(self.wire)
        self.talking: list[socket.socket] = []
        self.serve()

    def hang_up(self) -> None:
        """End what tests opened, at both ends: nothing is sent again while the next one counts packets."""
        while self.talking:
            one = self.talking.pop()
            with suppress(OSError):
                if one.type == socket.SOCK_STREAM:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    one.shutdown(socket.SHUT_RDWR)
            one.close()

    def close(self) -> None:
        self.hang_up()
        for one in reversed(self.open):
            one.close()
        for name in (self.client, self.box, self.server):
            subprocess.run(["ip", "netns", "delete", name], check=True)

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    def run(self, *words: str, text: str = "") -> str:
        """Standard output of a command in the box."""
        return subprocess.run(["ip", "netns", "exec", self.box, *words], input=text, text=True, check=True,
                              capture_output=True).stdout

    def write(self, name: str, value: str) -> None:
        """A sysctl of the box."""
        inside(self.box, lambda: put(name, value))

    def serve(self) -> None:
        """TCP and UDP servers on some ports: `reply N` is answered with N bytes, over TCP like a record of TLS;
        `say HEX` with these; anything else with nothing.

        `self.heard` collects what arrived, by port.
        """
        self.heard: dict[int, bytearray] = {}
        for port in (80, 443, 9000):
            self.heard[port] = bytearray()
            listener, datagrams = inside(self.server, lambda port=port: (
                socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64),
                udp_server(port)))
            self.open += [listener, datagrams]
            threading.Thread(target=self.accept, args=(listener, port), daemon=True).start()
            threading.Thread(target=self.datagrams, args=(datagrams, port), daemon=True).start()

    def accept(self, listener: socket.socket, port: int) -> None:
        with suppress(OSError):
            while True:
                peer = listener.accept()[0]
                self.talking.append(peer)
                threading.Thread(target=self.answer, args=(peer, port), daemon=True).start()

    def answer(self, peer: socket.socket, port: int) -> None:
        with suppress(OSError), peer:
            while data := peer.recv(65536):
                self.heard[port] += data[:200]
                if data.startswith(b"reply "):
                    peer.sendall(tls_like(int(data.split()[1])))
                elif data.startswith(b"say "):
                    peer.sendall(bytes.fromhex(data.split()[1].decode()))

    def datagrams(self, server: socket.socket, port: int) -> None:
        with suppress(OSError):
            while True:
                data, peer = server.recvfrom(65536)
                self.heard[port] += data[:200]
                if b"reply " in data:
                    server.sendto(b"\x40" + b"S" * int(data.partition(b"reply ")[2].split()[0]), peer)

    def connect(self, family: int = 4, port: int = 443, mark: int = 0, place: str = "") -> socket.socket:
        """A kernel TCP connection to the server, from the client or from `place`."""
        def make() -> socket.socket:
            one = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6)
            one.settimeout(PATIENCE)
            if mark:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.connect((SERVER[family], port))
            return one
        made = inside(place or self.client, make)
        self.talking.append(made)
        return made

    def udp(self, family: int = 4) -> socket.socket:
        """A UDP socket of the client."""
        def make() -> socket.socket:
            one = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
            one.settimeout(PATIENCE)
            return one
        made = inside(self.client, make)
        self.talking.append(made)
        return made

    def send(self, packet: Packet) -> None:
        """An exact IP packet, from the client's wire."""
        kind = 0x0800 if packet.version == 4 else 0x86DD
        self.wire.send(bytes(Ether(src=self.client_mac, dst=self.box_mac, type=kind) / packet))

    def receive(self, wanted: Callable[[Packet], bool]) -> Packet:
        """The next packet on the client's wire that is wanted."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if select.select([self.wire], [], [], 0.1)[0]:
                data, address = self.wire.recvfrom(65536)
                if address[2] != socket.PACKET_OUTGOING:
                    frame = Ether(data)
                    if wanted(frame):
                        return frame.payload
        raise AssertionError("the packet never came")


class Ghost:
    """A TCP client made by hand: every segment is what the test says. `seq` and `ack` are its next numbers."""

    def __init__(self, triple: Triple, family: int = 4, port: int = 443, syn: bytes = b"") -> None:
        self.triple, self.family, self.port = triple, family, port
        self.source = 20000 + secrets.randbelow(12000)
        self.seq, self.ack = secrets.randbelow(1 << 30), 0
        self.segment("S", syn)
        reply = triple.receive(lambda f: TCP in f and f[TCP].dport == self.source and f[TCP].flags == "SA")
        self.seq, self.ack = reply[TCP].ack, reply[TCP].seq + 1
        self.segment("A")

    def header(self) -> Packet:
        return IP(src=GHOST[4], dst=SERVER[4]) if self.family == 4 else IPv6(src=GHOST[6], dst=SERVER[6])

    def build(self, flags: str, data: bytes = b"", **fields: Any) -> Packet:
        fields = {"seq": self.seq, "ack": self.ack, "options": OPTIONS, **fields}
        return TCP(sport=self.source, dport=self.port, flags=flags, **fields) / Raw(data)

    def segment(self, flags: str, data: bytes = b"", between: Packet | None = None, ttl: int = 64,
                **fields: Any) -> None:
        """Send one segment; `between` goes between the IP and the TCP header. Data moves `seq` on."""
        header = self.header()
        if self.family == 4:
            header.ttl = ttl
        else:
            header.hlim = ttl
        if between is not None:
            header = header / between
        self.triple.send(header / self.build(flags, data, **fields))
        if "seq" not in fields:
            self.seq += len(data)


class Queue:
    """A daemon's stand-in in the box: takes every packet of a queue, keeps it, accepts it."""

    def __init__(self, triple: Triple, number: int = 0, accept: bool = True) -> None:
        self.packets: list[bytes] = []
        self.accept, self.stop = accept, threading.Event()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.loop, args=(triple.box, number), daemon=True)
        self.thread.start()
        assert self.ready.wait(PATIENCE), "the queue could not be bound"

    def loop(self, place: str, number: int) -> None:
        enter(place)
        queue = NetfilterQueue()
        queue.bind(number, self.take, 1024, 2, 65535)
        self.ready.set()
        while not self.stop.is_set():
            if select.select([queue.get_fd()], [], [], 0.05)[0]:
                queue.run(block=False)
        queue.unbind()

    def take(self, packet: Any) -> None:
        self.packets.append(packet.get_payload())
        if self.accept:
            packet.accept()
        else:
            packet.drop()

    def payloads(self) -> list[bytes]:
        """The TCP or UDP payloads so far."""
        found = []
        for data in list(self.packets):
            packet = IP(data) if data[0] >> 4 == 4 else IPv6(data)
            found.append(bytes(packet[TCP if TCP in packet else UDP].payload))
        return found

    def close(self) -> None:
        self.stop.set()
        self.thread.join(PATIENCE)


def enter(place: str) -> None:
    """Move this thread into a namespace."""
    with open(f"/run/netns/{place}", "rb") as handle:
        if LIBC.setns(handle.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


def inside(place: str, work: Callable[[], Any]) -> Any:
    """What `work` returns when a thread of that namespace does it; its sockets stay there, its programs too."""
    def body() -> Any:
        enter(place)
        return work()
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(body).result()


def put(name: str, value: str) -> None:
    """A sysctl of this namespace."""
    with open(f"/proc/sys/{name}", "w", encoding="ascii") as file:
        file.write(value)


def mac(device: str) -> str:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as one:
        one.bind((device, 0))
        return one.getsockname()[4].hex(":")


def packet_socket() -> socket.socket:
    one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    one.bind(("up0", ETH_P_ALL))
    return one


def udp_server(port: int) -> socket.socket:
    one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    one.bind(("::", port))
    return one

