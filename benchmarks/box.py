"""What forwarding costs: a box between client and server, without a filter and with one.

    .venv/bin/python benchmarks/box.py [--quick] [--rounds N] [--only WHAT] [--output DIR]

Each way to filter has a lab of its own (client, box, server; namespaces joined by veth), all up at once, and they
take turns. Client and server are small C programs (native/ask.c, native/answer.c): the server answers a real
ClientHello with 1200 bytes and no TLS, so that no arithmetic hides what the way there costs. Needs root.

    no filter     the box forwards, nothing else
    tracking      the box forwards and tracks connections, as any box does that translates addresses
    queue         edgeblock as it is installed, the kernel's first stage off
    both stages   edgeblock with the first stage, where there is one
    untracked     the same on a box that tracks no connection, with the flow marks in the first stage
    shortcut      the same, and packets of done flows past the kernel rules
    peers         other programs in the same place, those that are installed (peers/)

    bulk          one download over one connection, segments whole (offload) and of 1500 bytes (wire)
    connections   open, send a ClientHello, read the answer, close; 64 at a time
    requests      HTTP requests on 64 kept connections
    latency       the same as connections, at half of what the slowest way took, from connect to the whole answer
    replay        the mix of traffic.py sent into the box as fast as it goes; what comes out behind it

One in 500 connections and requests is for a listed name. All are counted: `let_through` are listed ones that were
answered, `harmed` others that were not.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import harness
import nfqueue
import traffic
from peers import PEERS, Peer

from edgeblock.config import Config
from edgeblock.errors import SystemProblem
from edgeblock.lab import SERVER, Daemon, Lab, until

TLS, HTTP, BULK = 4443, 8888, 4444
NAMES = 10_000
LISTED = "listed.example"
EVERY = 500
OPEN = 64
WHATS = ("bulk", "connections", "requests", "latency", "replay")

def first_stage() -> str:
    """The section of the configuration that has the key `stage1`; empty where there is no first stage."""
    for section in dataclasses.fields(Config):
        if any(key.name == "stage1" for key in dataclasses.fields(section.default_factory)):
            return section.name
    return ""


class Place:
    """A lab with one way to filter in its box."""

    def __init__(self, name: str, folder: Path, offload: bool) -> None:
        self.name, self.offload = name, offload
        self.folder = folder / f"{name}-{offload}".replace(" ", "-")
        self.folder.mkdir()
        self.lab = Lab(offload=offload)
        self.daemon: Daemon | None = None
        self.peer: Peer | None = None
        self.sources: list[str] = []         # further words for native/ask.c

    def open(self, prepare: Callable[[Path, "Place"], None]) -> None:
        """Everything up; `prepare` starts the filter."""
        lab = self.lab
        lab.run_in("client", ["sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65000", "net.ipv4.tcp_tw_reuse=1"])
        server = lab.popen_in("server", [str(harness.compiled("answer")), str(TLS), str(HTTP), str(BULK)],
                              stdout=subprocess.PIPE)
        assert server.stdout is not None and server.stdout.readline() == b"ready\n"
        # The replay is for addresses behind the server that nobody has.
        for words in (["route", "add", "198.51.100.0/24", "via", SERVER[4]],
                      ["-6", "route", "add", "2001:db8:ff::/48", "via", SERVER[6]]):
            lab.run_in("box", ["ip", *words])
        for name, host in (("plain", "host00000000.example"), ("listed", LISTED)):
            (self.folder / f"{name}.tls").write_bytes(traffic.client_hello(host))
            (self.folder / f"{name}.http").write_bytes(traffic.request(host, "/page"))
        prepare(self.folder, self)
        # Connections are over as soon as they are closed; thousands a second would fill the table otherwise.
        for key in ("time_wait", "close", "last_ack", "fin_wait", "close_wait"):
            lab.run_in("box", ["sysctl", "-qw", f"net.netfilter.nf_conntrack_tcp_timeout_{key}=1"])

    def track(self) -> None:
        for tool in ("iptables", "ip6tables"):
            self.lab.run_in("box", [tool, "-A", "FORWARD", "-m", "conntrack", "--ctstate", "UNTRACKED", "-j", "DROP"])

    def filter(self, settings: str) -> None:
        rules = self.folder / "rules"
        rules.mkdir()
        (rules / "names.list").write_text(harness.made_up_names(NAMES) + LISTED + "\n")
        self.daemon = self.lab.start_daemon(settings)

    def use(self, peer: Peer) -> None:
        self.peer = peer
        names = [*harness.made_up_names(NAMES).split(), LISTED]
        peer.start(self.lab, self.folder, names, (TLS, HTTP, BULK))

    def close(self) -> None:
        if self.peer is not None:
            self.peer.stop()
        if self.daemon is not None:
            self.daemon.stop()

    # ---- one measurement each

    def ask(self, port: int, mode: str, kind: str, seconds: float, *, rate: float = 0, open_: int = OPEN,
            every: int = EVERY) -> dict[str, float]:
        """What native/ask.c says, with the machine's processor seconds meanwhile as `cpu`."""
        words = [str(harness.compiled("ask")), SERVER[4], str(port), mode, str(seconds), str(open_), str(rate),
                 str(every), str(self.folder / f"plain.{kind}"), str(self.folder / f"listed.{kind}"), *self.sources]
        before = busy()
        said = json.loads(self.lab.run_in("client", words, timeout=seconds + 20).stdout)
        return said | {"cpu": busy() - before}

    def bulk(self, seconds: float) -> dict[str, float]:
        said = self.ask(BULK, "bulk", "tls", seconds, open_=1, every=0)
        return {"gbit_per_s": said["octets"] * 8e-9 / said["seconds"],
                "cpu_s_per_gb": said["cpu"] / said["octets"] * 1e9}

    def many(self, port: int, mode: str, kind: str, seconds: float) -> dict[str, float]:
        said = self.ask(port, mode, kind, seconds)
        return {"per_s": said["answered"] / said["seconds"],
                "cpu_ms_each": said["cpu"] / max(said["answered"], 1) * 1e3, **self.judged(said)}

    def latency(self, rate: float, seconds: float) -> dict[str, float]:
        said = self.ask(TLS, "new", "tls", seconds, rate=rate)
        return {"p50_us": said["p50_us"], "p99_us": said["p99_us"], "p999_us": said["p999_us"],
                "per_s": said["answered"] / said["seconds"], **self.judged(said)}

    def judged(self, said: Mapping[str, float]) -> dict[str, float]:
        """Right and wrong verdicts. Where nobody filters, a listed answer is no fault."""
        filters = self.daemon is not None or self.peer is not None
        return {"listed": said["listed_answered"] + said["listed_blocked"],
                "let_through": said["listed_answered"] if filters else 0, "harmed": said["failed"],
                "others": said["answered"] + said["failed"]}

    def replay(self, frames: Path, seconds: float) -> dict[str, float]:
        mac = self.link("box", "to-client")["address"]
        addressed = self.folder / "frames"
        if not addressed.exists():
            readdress(frames, addressed, bytes.fromhex(mac.replace(":", "")))
        lost = self.lab.counters(self.daemon).get("queue.lost", 0) if self.daemon else 0
        arrived = self.arrived()
        words = [str(harness.compiled("blast")), "to-box", str(addressed), "0", str(seconds)]
        said = json.loads(self.lab.run_in("client", words, timeout=seconds + 20).stdout)
        settled = Settled(self.arrived)
        until(settled, 5.0)
        figures = {"offered_per_s": said["sent"] / said["seconds"],
                   "forwarded_per_s": (settled.last - arrived) / said["seconds"],
                   "lost_percent": 100 * (1 - (settled.last - arrived) / said["sent"])}
        if self.daemon:
            unread = self.lab.counters(self.daemon).get("queue.lost", 0) - lost
            figures["unread_percent"] = 100 * unread / said["sent"]
        return figures

    def arrived(self) -> int:
        return self.link("server", "to-box")["stats64"]["rx"]["packets"]

    def link(self, place: str, device: str) -> dict[str, Any]:
        return json.loads(self.lab.run_in(place, ["ip", "-j", "-s", "link", "show", "dev", device]).stdout)[0]


class Settled:
    """Whether a count has stopped moving."""

    def __init__(self, count: Callable[[], int]) -> None:
        self.count, self.last = count, -1

    def __call__(self) -> bool:
        before, self.last = self.last, self.count()
        return before == self.last


def busy() -> float:
    """Processor seconds that this machine has worked since its start, interrupts included."""
    first = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, _idle, _wait, hard, soft, *_ = map(int, first.split()[1:])
    return (user + nice + system + hard + soft) / os.sysconf("SC_CLK_TCK")


def readdress(frames: Path, to: Path, mac: bytes) -> None:
    """A copy of prepared frames for another Ethernet address."""
    data, at = bytearray(frames.read_bytes()), 0
    while at < len(data):
        data[at + 4:at + 10] = mac
        at += 4 + int.from_bytes(data[at:at + 4], "little")
    to.write_bytes(data)


def settings_of(home: Path, stage1: str | None, workers: int = 1, **ruleset: Any) -> str:
    """edgeblock's configuration in a place; `stage1` is None where this version knows no first stage."""
    sections: dict[str, dict[str, Any]] = {"rules": {"directory": str(home / "rules"), "key": str(home / "key")},
                                           "ruleset": {"tcp_ports": [TLS, HTTP, BULK], **ruleset},
                                           "queue": {"workers": workers}}
    if stage1 is not None:
        sections.setdefault(first_stage(), {})["stage1"] = stage1
    return "".join(f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
                   for name, keys in sections.items())


def ways(run: harness.Run) -> dict[str, Callable[[Path, Place], None]]:
    """Each way to filter, and what makes a place ready for it."""
    def edgeblock(stage1: str | None) -> Callable[[Path, Place], None]:
        return lambda home, place: place.filter(settings_of(home, stage1))

    def untracked(**more: Any) -> Callable[[Path, Place], None]:
        return lambda home, place: place.filter(settings_of(home, "on", tracking="stage1", **more))

    known: dict[str, Callable[[Path, Place], None]] = {
        "no filter": lambda home, place: None, "tracking": lambda home, place: place.track()}
    if first_stage():
        known |= {"queue": edgeblock("off"), "both stages": edgeblock("on")}
        if hasattr(Config().ruleset, "tracking"):
            known["untracked"] = untracked()
            known["shortcut"] = untracked(shortcut=True, clients=["to-client"], servers=["to-server"])
    else:
        known["queue"] = edgeblock(None)
        run.note("both stages was left out: this version has no first stage in the kernel")
    for kind in PEERS:
        if reason := kind.obstacle():
            run.note(f"{kind.name} was left out: {reason}")
        else:
            known[kind.name] = lambda home, place, kind=kind: place.use(kind())
    return known


def main() -> None:
    parser = harness.options(__doc__)
    parser.add_argument("--only", action="append", choices=WHATS, metavar="WHAT", help=f"one of {', '.join(WHATS)}")
    parser.add_argument("--way", action="append", metavar="NAME", help="leave the other ways out")
    chosen = parser.parse_args()
    harness.need_root()
    seconds = 0.4 if chosen.quick else 1.2
    run = harness.Run("box", chosen, rounds=5, quick_rounds=1, seconds=seconds, names=NAMES, open=OPEN,
                      listed_one_in=EVERY, traffic=traffic.words())
    whats = chosen.only or WHATS
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        frames = nfqueue.write_frames(folder / "mixed", traffic.mixed(6_000))
        wire, whole = {}, {}
        for way, prepare in ways(run).items():
            if chosen.way and way not in chosen.way:
                continue
            for offload, places in ((False, wire), (True, whole)):
                if offload and "bulk" not in whats:
                    continue
                place = Place(way, folder, offload)
                stack.enter_context(place.lab)
                stack.callback(place.close)
                try:
                    place.open(prepare)
                except SystemProblem as problem:
                    run.note(f"{way} was left out: it does not start: {str(problem).splitlines()[0]}")
                    break
                places[way] = place

        def turns(what: str, measure: Callable[[Place], dict[str, float]], group: Mapping[str, Place]) -> None:
            run.in_turn({f"{what}, {way}": partial(measure, place) for way, place in group.items()})

        if "bulk" in whats:
            turns("bulk, wire", lambda place: place.bulk(seconds), wire)
            turns("bulk, offload", lambda place: place.bulk(seconds), whole)
        if "connections" in whats:
            turns("connections", lambda place: place.many(TLS, "new", "tls", seconds), wire)
        if "requests" in whats:
            turns("requests", lambda place: place.many(HTTP, "kept", "http", seconds), wire)
        if "latency" in whats and "connections" in whats:
            slowest = min(statistics.median(run.samples(f"connections, {way}", "per_s")) for way in wire)
            run.settings(latency_rate=round(slowest / 2))
            turns("latency", lambda place: place.latency(slowest / 2, seconds), wire)
        if "replay" in whats:
            turns("replay", lambda place: place.replay(frames, seconds), wire)
    run.save()


if __name__ == "__main__":
    harness.main(main)
