"""The report against what went over the wire: a capture at the client, read by scapy, has the same counts.

After it, and after a kill and another daemon, what the daemon keeps has no name that was asked for and no client.
"""

import base64
import csv
import io
import json
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from load import SOURCES, add_sources
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.tls.extensions import TLS_Ext_ServerName
from scapy.layers.tls.handshake import TLSClientHello
from scapy.layers.tls.record import TLS

from edgeblock.lab import CLIENT, SERVER, Lab, until

pytestmark = pytest.mark.live

SOON = 20.0
PORT = 9999                 # of an endpoint that is listed
LISTS = {"court.list": "listed.example\n@@fine.listed.example\n", "court.toml": 'order = "No. 12"\n',
         "pages.list": "pages.example\n", "pages.toml": 'action = "page"\n',
         "watched.list": "watched.example\n", "watched.toml": 'action = "observe"\n',
         "seized.list": f"{SERVER[4]}:{PORT}\n", "seized.toml": 'action = "drop"\n'}
ASKED = ("www.listed.example", "mail.listed.example", "pages.example", "watched.example", "fine.listed.example",
         "open.example")
LIST_OF = {"www.listed.example": "court", "mail.listed.example": "court", "pages.example": "pages"}
CONFIG = """
[rules]
directory = "{home}/rules"
key = "{home}/state/key"
allow_collateral = true
[queue]
workers = 2
[daemon]
control = "{home}/control.sock"
[canary]
period = 1.0
"""


class Capture(threading.Thread):
    """What the client has sent, from its own side of the wire."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        with lab.entered("client"):
            self.link = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self.link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
        self.link.bind(("to-box", 3))
        self.link.settimeout(0.2)
        self.done = threading.Event()
        self.packets: list[bytes] = []

    def run(self) -> None:
        while not self.done.is_set():
            try:
                data, where = self.link.recvfrom(65536)
            except TimeoutError:
                continue
            if where[2] == socket.PACKET_OUTGOING:
                self.packets.append(data)
        self.link.close()

    def names(self) -> Iterator[tuple[str, str, str]]:
        """Protocol, client and name of each connection's first request, as scapy and plain text have it."""
        streams: dict[tuple[str, int, int], dict[int, bytes]] = {}
        for data in self.packets:
            packet = IP(data)
            if packet.version == 4 and TCP in packet and bytes(packet[TCP].payload):
                key = packet.src, packet[TCP].sport, packet[TCP].dport
                streams.setdefault(key, {})[packet[TCP].seq] = bytes(packet[TCP].payload)
        for (source, _, port), pieces in streams.items():
            text = b"".join(pieces[seq] for seq in sorted(pieces))
            if port == 80:
                host = text.split(b"Host: ")[1].split(b"\r\n")[0]
                yield "http", source, host.decode()
            else:
                hello = TLS(text)[TLSClientHello]
                [name] = [one.servernames[0].servername for one in hello.ext if isinstance(one, TLS_Ext_ServerName)]
                yield "tls", source, name.decode()

    def datagrams(self) -> int:
        return sum(UDP in (packet := IP(data)) and packet[UDP].dport == PORT for data in self.packets)


@contextmanager
def captured(lab: Lab) -> Iterator[Capture]:
    one = Capture(lab)
    one.start()
    try:
        yield one
    finally:
        one.done.set()
        one.join()


def report(lab: Lab, config: Path, *words: str) -> str:
    done = lab.run_in("box", [sys.executable, "-m", "edgeblock", "report", "--config", str(config), *words])
    return str(done.stdout)


def told(lab: Lab, config: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(report(lab, config, "--format", "json"))
    return made


def court(lab: Lab, config: Path) -> dict[str, Any]:
    return next(one for one in told(lab, config)["lists"] if one["list"] == "court")


def ask(lab: Lab, times: int) -> None:
    for _ in range(times):
        for source in SOURCES[:4]:
            for name in ASKED:
                for scheme in ("http", "https"):
                    lab.fetch(f"{scheme}://{name}/", options=["--insecure", "--interface", source])
    with lab.entered("client"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        for number in range(7 * times):
            link.sendto(b"x" * number, (SERVER[4], PORT))


def expected(capture: Capture) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """Requests and visits by list and protocol."""
    requests, visits = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    seen = set()
    for proto, source, name in capture.names():
        if name not in LIST_OF:
            continue
        key = LIST_OF[name], proto
        requests[key] += 1
        # What a subscriber asks of one rule is one visit: www and mail of a host are one rule, over any protocol.
        if (LIST_OF[name], source) not in seen:
            seen.add((LIST_OF[name], source))
            visits[key] += 1
    return requests, visits


def counted(lab: Lab, config: Path) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    requests, visits = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for row in csv.DictReader(io.StringIO(report(lab, config, "--format", "csv"))):
        if row["action"] in ("reset", "page"):
            requests[row["list"], row["protocol"]] += int(row["requests"])
            visits[row["list"], row["protocol"]] += int(row["visits"])
    return +requests, +visits


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "rules").mkdir()
    (tmp_path / "state").mkdir(mode=0o700)
    for name, text in LISTS.items():
        (tmp_path / "rules" / name).write_text(text)
    return tmp_path


def test_the_report_has_what_went_over_the_wire_and_outlives_a_kill(home: Path) -> None:
    with Lab() as lab:
        add_sources(lab)
        daemon = lab.start_daemon(CONFIG.format(home=home))
        with captured(lab) as wire:
            ask(lab, 3)
            assert until(lambda: told(lab, daemon.config)["totals"]["packets"] == wire.datagrams() == 21, SOON)
            assert until(lambda: counted(lab, daemon.config)[0] == expected(wire)[0], SOON), (
                counted(lab, daemon.config), expected(wire))
            assert counted(lab, daemon.config) == expected(wire)
            assert sum(expected(wire)[1].values()) == 2 * 4 and sum(expected(wire)[0].values()) == 3 * 4 * 3 * 2
            made = told(lab, daemon.config)
            assert (made["totals"]["observed"], made["totals"]["excepted"]) == (4, 4)
            lists = {one["list"]: one for one in made["lists"]}
            assert lists["court"]["by_action"] == {"reset": 4} and lists["court"]["order"] == "No. 12"
            assert lists["seized"]["packets"] == 21 and lists["seized"]["dead"]["entries"] == 1
            assert lists["court"]["dead"]["entries"] == 0 and lists["pages"]["dead"]["entries"] == 0
            assert until(lambda: told(lab, daemon.config)["filtering"]["proven_seconds"] >= 3, SOON)
            new = home / "rules" / ".court.new"
            new.write_text(LISTS["court.list"] + "more.example\n")
            new.rename(home / "rules" / "court.list")
            assert until(lambda: court(lab, daemon.config)["delay_ms"], SOON), court(lab, daemon.config)
            assert 0 < court(lab, daemon.config)["delay_ms"]["worst"] < 1000 * SOON
            assert court(lab, daemon.config)["updates"]["taken"] >= 1
            before = counted(lab, daemon.config)
            daemon.stop(signal.SIGKILL)
            again = lab.start_daemon(CONFIG.format(home=home))
            assert counted(lab, daemon.config) == before, "what was written is there"
            wire.packets.clear()
            ask(lab, 1)
            assert again.stop() == 0
            requests, visits = expected(wire)
            after = counted(lab, daemon.config)
            assert after == (before[0] + requests, before[1] + visits), "a daemon that ends has written all"
            run = told(lab, daemon.config)["filtering"]
            assert (run["starts"], run["killed"]) == (2, 1)
        # Nobody is in what is kept, and nothing that was asked for.
        kept = {path: path.read_bytes() for path in home.glob("state*/**/*") if path.is_file()}
        assert any(path.name == "counts.sqlite" for path in kept)
        for text in (*ASKED, "listed.example", *SOURCES, *CLIENT.values()):
            for form in (text.encode(), text.encode("utf-16-le"), text[::-1].encode(),
                         base64.b64encode(text.encode()).rstrip(b"=")[:-1]):
                assert not [path for path, data in kept.items() if form in data], text
        for source in SOURCES:
            packed = socket.inet_aton(source)
            assert not [path for path, data in kept.items() if path.name.startswith("counts") and packed in data]


def test_a_disk_that_is_full_does_not_stop_the_filter_and_is_said(home: Path) -> None:
    with Lab() as lab:
        (home / "state-ledger" / "counts.sqlite").mkdir(parents=True)      # nothing can be written there
        daemon = lab.start_daemon(CONFIG.format(home=home))
        assert until(lambda: '"event": "counts"' in daemon.log.read_text(), SOON)
        assert lab.fetch("https://www.listed.example/").exit == 35
        status = lab.run_in("box", [sys.executable, "-m", "edgeblock", "status", "--config", str(daemon.config)])
        assert "NOT WRITTEN" in status.stdout
        (home / "state-ledger" / "counts.sqlite").rmdir()
        assert until(lambda: '"counts are written again"' in daemon.log.read_text(), SOON)
        assert told(lab, daemon.config)["totals"]["visits"] == 1
        assert daemon.stop() == 0
