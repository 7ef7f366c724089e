"""Addresses are listed and lifted again and again, and nobody beside them loses a packet.

EDGEBLOCK_ADDRESS_UPDATES says how many times (60). All the while a client has a download, a stream of datagrams and
pings of two addresses of the server that are not listed, in the same /24 and /64 as those that are. Each datagram and
each ping has a number; the download comes in order by itself; what was sent again is told.
"""

import json
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from echoing import BESIDE, FAMILY, echoing
from running import SHORTCUT, UNTRACKED, start, track_nothing

from edgeblock.asking import ask
from edgeblock.lab import SERVER, Lab, until

pytestmark = pytest.mark.live

UPDATES = int(os.environ.get("EDGEBLOCK_ADDRESS_UPDATES", "60"))
MODES = {"conntrack": "", "stage1": UNTRACKED, "shortcut": SHORTCUT}
PACE = 0.004            # seconds between two datagrams, pings, or pieces of the download
PIECE = bytes(range(256)) * 16
ROOM = 1 << 23          # bytes of a socket: a test that is late loses nothing by it
SOON = 20.0             # seconds until a list is in force, whatever else the machine does
LAST = 5.0              # seconds in which the last answers come
RETRANSMITTED, NEEDLESSLY = 100, 216        # linux/tcp.h, struct tcp_info: tcpi_total_retrans, tcpi_dsack_dups


class Stream:
    """What goes to one address: `lost` says what did not come back."""

    def __init__(self, lab: Lab, version: int, stack: ExitStack) -> None:
        address, family = BESIDE[version], FAMILY[version]
        self.stop, self.sent, self.heard = threading.Event(), 0, {"datagrams": set[int](), "pings": set[int]()}
        self.bytes, self.wrong, self.version = 0, 0, version
        with lab.entered("server"):
            listening = stack.enter_context(socket.create_server((address, 25462), family=family))
        with lab.entered("client"):
            self.datagrams = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            kind = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
            self.pings = stack.enter_context(socket.socket(family, socket.SOCK_RAW, kind))
            self.download = stack.enter_context(socket.create_connection((address, 25462), 5))
        self.upload = stack.enter_context(listening.accept()[0])
        for one in (self.datagrams, self.pings):
            one.setsockopt(socket.SOL_SOCKET, 33, ROOM)         # SO_RCVBUFFORCE
            one.settimeout(0.2)
        self.datagrams.connect((address, 5000))
        self.pings.connect((address, 0))
        self.threads = [threading.Thread(target=work) for work in (
            self._send, self._hear_datagrams, self._hear_pings, self._read)]
        for thread in self.threads:
            thread.start()

    def _send(self) -> None:
        while not self.stop.wait(PACE):
            self.datagrams.send(self.sent.to_bytes(8))
            self.pings.send(ping(self.version, self.sent))
            self.upload.sendall(PIECE)
            self.sent += 1
        self.upload.shutdown(socket.SHUT_WR)

    def _hear_datagrams(self) -> None:
        for data in heard(self.datagrams, self.stop):
            self.heard["datagrams"].add(int.from_bytes(data[:8]))

    def _hear_pings(self) -> None:
        for data in heard(self.pings, self.stop):
            message = data[20:] if self.version == 4 else data
            if message[0] == (0 if self.version == 4 else 129) and len(message) == 16:
                self.heard["pings"].add(int.from_bytes(message[8:]))

    def _read(self) -> None:
        held = b""
        while data := self.download.recv(1 << 16):
            self.bytes += len(data)
            held += data
            while len(held) >= len(PIECE):
                self.wrong += held[:len(PIECE)] != PIECE
                held = held[len(PIECE):]

    def end(self) -> dict[str, int]:
        """What is missing."""
        self.stop.set()
        for thread in self.threads:
            thread.join(2 * LAST)
        told = self.upload.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        again, needlessly = (struct.unpack_from("=I", told, at)[0] for at in (RETRANSMITTED, NEEDLESSLY))
        return {what: self.sent - len(numbers) for what, numbers in self.heard.items()} | {
            "bytes": self.sent * len(PIECE) - self.bytes, "wrong": self.wrong, "again": max(0, again - needlessly)}


def heard(one: socket.socket, stop: threading.Event) -> Iterator[bytes]:
    """What comes, until LAST seconds after the stop."""
    until_then = None
    while until_then is None or time.monotonic() < until_then:
        if stop.is_set() and until_then is None:
            until_then = time.monotonic() + LAST
        try:
            yield one.recv(2048)
        except TimeoutError:
            if until_then is not None:
                return


def ping(version: int, number: int) -> bytes:
    head = struct.pack("!BBHHH", 8 if version == 4 else 128, 0, 0, os.getpid() & 0xFFFF, number & 0xFFFF)
    message = head + number.to_bytes(8)
    total = sum(struct.unpack("!8H", message))
    total = (total & 0xFFFF) + (total >> 16)
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return message[:2] + struct.pack("!H", total) + message[4:]


@contextmanager
def streaming(lab: Lab) -> Iterator[list[Stream]]:
    with ExitStack() as stack:
        streams = [Stream(lab, version, stack) for version in FAMILY]
        try:
            yield streams
        finally:
            for one in streams:
                one.stop.set()
                for thread in one.threads:
                    thread.join(2 * LAST)


def some_of(chance: random.Random) -> list[str]:
    """Addresses, prefixes and endpoints around those that are talked to, perhaps the server's own first one."""
    lines = [f"203.0.113.{chance.randrange(10, 250)}" for _ in range(chance.randrange(1, 40))]
    lines += [f"2001:db8:80::{chance.randrange(0x100, 0xffff):x}" for _ in range(chance.randrange(1, 40))]
    lines += chance.sample(["203.0.113.128/25", "203.0.113.9:5001", "[2001:db8:80::9]:5001", "2001:db8:80:1::/64",
                            "198.51.0.0/16", "2001:db8:8000::/33"], 3)
    return lines + ([SERVER[4], SERVER[6]] if chance.random() < 0.5 else [])


@pytest.mark.timeout(300 + UPDATES)      # many, where somebody asks for them
@pytest.mark.parametrize("mode", MODES)
def test_nobody_beside_an_address_loses_a_packet_while_lists_change(mode: str, tmp_path: Path):
    chance, times = random.Random(mode), []
    with Lab() as lab:
        if mode != "conntrack":
            track_nothing(lab)
        control = tmp_path / "control.sock"
        box = start(lab, tmp_path, MODES[mode] + f'[daemon]\ncontrol = "{control}"\n')
        box.drop("places.toml", 'action = "drop"\nallow_addresses = true\nmax_shrink = 1\n'
                 'widest_ipv4 = 8\nwidest_ipv6 = 16\n')
        with echoing(lab), streaming(lab) as streams:
            assert until(lambda: all(len(one.heard["datagrams"]) > 50 for one in streams), SOON)
            for number in range(UPDATES):
                lines = list(dict.fromkeys(some_of(chance)))
                mark = f"192.0.2.{200 + number % 40}"       # nobody's, to see that this version is in force
                before, began = loads(box.daemon.log), time.monotonic()
                box.drop("places.list", "\n".join([*lines, mark]) + "\n")
                assert until(lambda before=before: loads(box.daemon.log) > before, SOON), box.daemon.last_words()
                times.append(time.monotonic() - began)
            status = ask(control, "status", SOON)["addresses"]
            missing = [one.end() for one in streams]
            sent = [one.sent for one in streams]
    print(json.dumps({"mode": mode, "updates": UPDATES, "sent": sent, "missing": missing,
                      "median_s": round(sorted(times)[len(times) // 2], 2), "longest_s": round(max(times), 2)}))
    assert status["problem"] == "" and status["in_kernel"] == status["ranges"] > 0
    # What was sent again need not have been lost: a machine that is late asks again.
    assert not any(one[what] for one in missing for what in one if what != "again"), missing
    assert min(sent) > 100


def loads(log: Path) -> int:
    return log.read_text().count("rules loaded")
