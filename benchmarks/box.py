"""What forwarding costs: a box between client and server, without a filter and with one, by processor time.

    .venv/bin/python benchmarks/box.py [--quick] [--rounds N] [--only LOAD,...] [--cases CASE,...] [--output DIR]
    .venv/bin/python benchmarks/box.py --only connections --cases "no filter,shortcut" --rounds 9
    .venv/bin/python benchmarks/box.py --cases queue --try 'other={"queue": {"buffer": 1048576}}'

Each case has a lab of its own (client, box, server; namespaces joined by veth), all up at once. The work is fixed and
small: so many questions, some ten milliseconds. The cases take turns with it, a round is TURNS of them. What is told
is the processor time of all processes of that lab, and of the kernel's threads for interrupts, in nanoseconds; what
interrupts take without a thread is in the time of the process that they interrupted. So client and server are in it,
as they are in every lab, and all other processes of the machine are not. Needs root.

    no filter     the box forwards, nothing else; it is there twice, and the ratio of the two says what others' mean
    tracking      the box forwards and tracks connections, as any box does that translates addresses
    queue         edgeblock as it is installed, the kernel's first stage off
    both stages   edgeblock with the first stage
    untracked     the same on a box that tracks no connection, with the flow marks in the first stage
    shortcut      the same, and packets of done flows past the kernel rules
    peers         other programs in the same place, those that are installed (peers/)

    connections   open, send a ClientHello of 517 bytes, read the answer, close; OPEN at a time
    segments      the same with a ClientHello of 1.9 kB, as browsers send it: two segments
    merged        the same with offloads: one packet of 1.9 kB
    requests      HTTP requests as browsers send them on OPEN kept connections
    pages         the same, a connection for each
    quic          a ClientHello in one Initial, and in two; answers; two short packets of either side
    bulk          one download over one connection, segments of 1448 bytes
    offloads      the same, segments merged
    latency       connections and requests one at a time: from connect, or from the request, to the whole answer
    mix           the traffic of traffic.py sent into the box; what comes out behind it

One question in each slice is for a listed name. All are counted: `let_through` are listed ones that were answered,
`harmed` others that were not. Where nobody filters all are let through.
"""

import argparse
import json
import statistics
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import harness
import nfqueue
import slices
import traffic
from peers import PEERS, Peer

from edgeblock.errors import SystemProblem
from edgeblock.lab import CLIENT, NETNS, OFFLOADS, SERVER, Daemon, Lab, living, network_of, until

TLS, HTTP, BULK, QUIC = 4443, 8888, 4444, 4433
NAMES = 10_000
LISTED, PLAIN = "listed.example", "host00000000.example"
OPEN = 64
TURNS = 24
NULL = "no filter, again"
PATIENCE = 0.3          # seconds without a packet, after which those that are missing do not come
INITIALS = 8192         # QUIC connections until their Initials come again
# Client and server have many addresses behind their interfaces: the first of them, the prefix, how many are used.
CROWD = {"client": {4: ("198.18.2.1", "198.18.2.0/24"), 6: ("2001:db8:c1::1", "2001:db8:c1::/64")},
         "server": {4: ("198.18.1.1", "198.18.1.0/24"), 6: ("2001:db8:5e::1", "2001:db8:5e::/64")}}
CLIENTS, SERVERS = 251, 241


@dataclass(frozen=True)
class Load:
    """So many questions (with bulk, bytes) of one kind are a slice."""

    name: str
    mode: str               # of native/ask.c
    port: int
    count: int
    text: str               # what is asked: the file plain.TEXT, and listed.TEXT
    listed: bool = True
    open: int = OPEN
    offload: bool = False
    unit: str = "connection"


LOADS = (
    Load("connections", "tls", TLS, 200, "whole"),
    Load("segments", "tls", TLS, 200, "long"),
    Load("merged", "tls", TLS, 200, "long", offload=True),
    Load("requests", "kept", HTTP, 1000, "http", unit="request"),
    Load("pages", "http", HTTP, 200, "http"),
    Load("quic", "quic", QUIC, 200, "initial"),
    Load("quic, two Initials", "quic", QUIC, 200, "initials"),
    Load("bulk", "bulk", BULK, 16 << 20, "whole", listed=False, unit="MB"),
    Load("offloads", "bulk", BULK, 64 << 20, "whole", listed=False, offload=True, unit="MB"),
    Load("latency, TLS", "tls", TLS, 100, "whole", open=1),
    Load("latency, HTTP", "kept", HTTP, 300, "http", listed=False, open=1, unit="request"),
)
MIX = Load("mix", "", 0, 2000, "", listed=False, unit="packet")
KINDS = tuple(dict.fromkeys(load.name.partition(",")[0] for load in (*LOADS, MIX)))


class Place:
    """A lab with one way to filter in its box."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder / "".join(letter if letter.isalnum() else "-" for letter in name)
        self.folder.mkdir()
        self.lab = Lab()
        self.daemon: Daemon | None = None
        self.peer: Peer | None = None
        self.facts: dict[str, float] = {}
        self.server = 0             # the process id of the server

    def open(self, prepare: "Prepare") -> None:
        """Everything up; `prepare` starts the filter."""
        lab = self.lab
        lab.run_in("client", ["sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65000", "net.ipv4.tcp_tw_reuse=1",
                              "net.ipv6.ip_nonlocal_bind=1"])
        for place in ("client", "server"):
            lab.run_in(place, ["sysctl", "-qw", "net.ipv4.tcp_max_tw_buckets=8192"])
            for family, (_, prefix) in CROWD[place].items():
                via = {"client": CLIENT, "server": SERVER}[place][family]
                lab.run_in(place, ["ip", f"-{family}", "route", "add", "local", prefix, "dev", "lo"])
                lab.run_in("box", ["ip", f"-{family}", "route", "add", prefix, "via", via])
        # The mix is for addresses behind the server that nobody has.
        for words in (["route", "add", "198.51.100.0/24", "via", SERVER[4]],
                      ["-6", "route", "add", "2001:db8:ff::/48", "via", SERVER[6]]):
            lab.run_in("box", ["ip", *words])
        server = lab.popen_in("server", [str(harness.compiled("answer")), *map(str, (TLS, HTTP, BULK, QUIC))],
                              stdout=subprocess.PIPE)
        assert server.stdout is not None and server.stdout.readline() == b"ready\n"
        self.server = server.pid
        began = time.monotonic()
        prepare(self)
        filters = self.inside("box")
        if filters:
            self.facts = {"start_s": time.monotonic() - began, "pss_mib": slices.memory(filters)}
        # Connections are over as soon as they are closed; thousands a second would fill the table otherwise.
        for key in ("time_wait", "close", "last_ack", "fin_wait", "close_wait"):
            lab.run_in("box", ["sysctl", "-qw", f"net.netfilter.nf_conntrack_tcp_timeout_{key}=1"])

    def track(self) -> None:
        for tool in ("iptables", "ip6tables"):
            self.lab.run_in("box", [tool, "-A", "FORWARD", "-m", "conntrack", "--ctstate", "UNTRACKED", "-j", "DROP"])

    def filter(self, sections: Mapping[str, Mapping[str, Any]], workers: int = 1) -> None:
        rules = self.folder / "rules"
        rules.mkdir()
        (rules / "names.list").write_text(harness.made_up_names(NAMES) + LISTED + "\n")
        self.daemon = self.lab.start_daemon(settings(self.folder, sections, workers))

    def use(self, peer: Peer) -> None:
        self.peer = peer
        peer.start(self.lab, self.folder, [*harness.made_up_names(NAMES).split(), LISTED], (TLS, HTTP, BULK, 443, 80))

    def close(self) -> None:
        if self.peer is not None:
            self.peer.stop()
        if self.daemon is not None:
            self.daemon.stop()

    def inside(self, *places: str) -> list[int]:
        """The processes there."""
        networks = {(NETNS / self.lab.namespace(place)).stat().st_ino for place in places}
        return [pid for pid in living() if network_of(pid) in networks]

    def offload(self, wanted: bool) -> None:
        """Whether segments are handed on merged, and without checksums, or each by itself as on a wire."""
        if self.lab.offload == wanted:
            return
        self.lab.offload = wanted
        for place, device in (("client", "to-box"), ("box", "to-client"), ("box", "to-server"), ("server", "to-box")):
            self.lab.run_in(place, ["ethtool", "-K", device,
                                    *(word for what in OFFLOADS for word in (what, "on" if wanted else "off"))])

    def arrived(self) -> int:
        """Packets that have come to the server's interface."""
        for line in Path(f"/proc/{self.server}/net/dev").read_text().splitlines():
            device, _, figures = line.partition(":")
            if device.strip() == "to-box":
                return int(figures.split()[1])
        raise harness.Problem("the server has no interface: did its lab end?")


Prepare = Callable[[Place], None]


def quiet(clocks: slices.Clocks) -> None:
    """Waits until what a filter does behind its start is done: ours tries its new rules."""
    until(lambda: still(clocks), 30.0)


def still(clocks: slices.Clocks) -> bool:
    before = clocks.read()
    threading.Event().wait(0.5)
    return clocks.read() - before < 10_000_000


class Asker:
    """A generator of load in a place, which takes orders, and the clocks that run for it."""

    def __init__(self, place: Place, load: Load, words: Sequence[str], kernel: slices.Clocks) -> None:
        self.place, self.load, self.kernel = place, load, kernel
        self.process = place.lab.popen_in("client", words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self.answer() != "ready":
            raise harness.Problem(f"{words[0]} does not start")
        self.all = slices.Clocks(place.inside("client", "box", "server"))
        self.own = slices.Clocks(place.inside("box"))

    def answer(self) -> Any:
        return harness.answer(self.process, f"{self.load.name}, {self.place.name}: the client")

    def order(self, count: int) -> Any:
        self.process.stdin.write(b"%d\n" % count)
        self.process.stdin.flush()
        return self.answer()

    def read(self) -> tuple[int, int]:
        return self.all.read() + self.kernel.read(), self.own.read()

    def slice(self) -> tuple[dict[str, float], dict[str, float]]:
        """The figures of one slice, for each question (with bulk, each MB), and its verdicts."""
        before = self.read()
        said, verdicts = self.work()
        spent = [(b - a) / 1e3 for a, b in zip(before, self.read(), strict=True)]
        questions = self.load.count / 1e6 if self.load.mode == "bulk" else self.load.count
        return {"cpu_us": spent[0] / questions, "own_us": spent[1] / questions, **said}, verdicts

    def work(self) -> tuple[dict[str, float], dict[str, float]]:
        said = self.order(self.load.count)
        figures = {"p50_us": said["p50_us"]} if self.load.open == 1 and said["answered"] else {}
        return figures, judged(said)

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait(20)


def judged(said: Mapping[str, float]) -> dict[str, float]:
    return {"listed": said["listed_answered"] + said["listed_blocked"], "let_through": said["listed_answered"],
            "others": said["answered"] + said["failed"], "harmed": said["failed"]}


class Mixer(Asker):
    """The mix, of which nothing is answered: a slice ends when all has come out behind the box, or nothing more."""

    def work(self) -> tuple[dict[str, float], dict[str, float]]:
        before = came = self.place.arrived()
        sent = self.order(self.load.count)["sent"]
        while came - before < sent and until(partial(self.beyond, came), PATIENCE):
            came = self.place.arrived()
        lost = max(0, sent - (came - before))
        return {}, {"listed": 0, "let_through": 0, "others": sent, "harmed": lost}

    def beyond(self, count: int) -> bool:
        return self.place.arrived() > count


def settings(home: Path, sections: Mapping[str, Mapping[str, Any]], workers: int = 1) -> str:
    """edgeblock's configuration in a place."""
    base: dict[str, dict[str, Any]] = {"rules": {"directory": str(home / "rules"), "key": str(home / "key")},
                                       "ruleset": {"tcp_ports": [TLS, HTTP, BULK, 443, 80], "udp_ports": [QUIC, 443]},
                                       "queue": {"workers": workers}}
    for name, keys in sections.items():
        base[name] = base.get(name, {}) | keys
    return "".join(f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
                   for name, keys in base.items())


EDGEBLOCK: dict[str, dict[str, dict[str, Any]]] = {
    "queue": {"ruleset": {"kernel": "off"}},
    "both stages": {"ruleset": {"kernel": "judge"}},
    "untracked": {"ruleset": {"kernel": "marks"}},
    "shortcut": {"ruleset": {"kernel": "carry", "clients": ["to-client"], "servers": ["to-server"]}},
}


def ways(run: harness.Run, tried: Mapping[str, Any]) -> dict[str, Prepare]:
    """Each way to filter, and what makes a place ready for it."""
    known: dict[str, Prepare] = {"no filter": lambda place: None, NULL: lambda place: None,
                                 "tracking": lambda place: place.track()}
    for name, sections in (EDGEBLOCK | dict(tried)).items():
        known[name] = lambda place, sections=sections: place.filter(sections)
    for kind in PEERS:
        if reason := kind.obstacle():
            run.note(f"{kind.name} was left out: {reason}")
        else:
            known[kind.name] = lambda place, kind=kind: place.use(kind())
    return known


def write_texts(folder: Path, wanted: set[str]) -> None:
    """What the clients ask."""
    for name, host in (("plain", PLAIN), ("listed", LISTED)):
        (folder / f"{name}.whole").write_bytes(traffic.client_hello(host))
        (folder / f"{name}.long").write_bytes(traffic.browser_hello(host))
        (folder / f"{name}.http").write_bytes(traffic.request(host, "/page"))
        for text, each in (("initial", 1), ("initials", 2)):
            if text not in wanted:
                continue
            first, last = (0, INITIALS) if name == "plain" else (INITIALS, INITIALS + 64)
            datagrams = (datagram for number in range(first, last) for datagram in traffic.browser_initials(
                f"host{number:08d}.example" if name == "plain" else host, number, each == 2))
            (folder / f"{name}.{text}").write_bytes(struct.pack("=I", each) + b"".join(
                struct.pack("=I", len(datagram)) + datagram for datagram in datagrams))


class Bench:
    """The places of a run, and what is done in them."""

    def __init__(self, run: harness.Run, folder: Path, stack: ExitStack) -> None:
        self.run, self.folder, self.stack = run, folder, stack
        self.places: list[Place] = []
        self.kernel = slices.interrupts()
        self.frames = folder / "mixed"

    def open(self, ways: Mapping[str, Prepare]) -> None:
        for name, prepare in ways.items():
            place = Place(name, self.folder)
            self.stack.enter_context(place.lab)
            self.stack.callback(place.close)
            try:
                place.open(prepare)
            except SystemProblem as problem:
                self.run.note(f"{name} was left out: it does not start: {str(problem).splitlines()[0]}")
                continue
            self.places.append(place)
            self.run.say(f"{name} is up" + "".join(f", {key} {value:.3g}" for key, value in place.facts.items()))
            self.run.record["facts"][name] = place.facts
        for place in self.places:
            quiet(slices.Clocks(place.inside("box")))

    def asker(self, place: Place, load: Load, family: int) -> Asker:
        if load is MIX:
            frames = self.addressed(place)
            return Mixer(place, load, [str(harness.compiled("blast")), "to-box", str(frames), "0", "orders"],
                         self.kernel)
        words = [str(harness.compiled("ask")), CROWD["server"][family][0], str(SERVERS),
                 CROWD["client"][family][0], str(CLIENTS), str(load.port), load.mode, str(load.open),
                 str(load.count if load.listed else 0),
                 *(str(self.folder / f"{name}.{load.text}") for name in ("plain", "listed"))]
        return Asker(place, load, words, self.kernel)

    def addressed(self, place: Place) -> Path:
        """The frames of the mix, with the hardware address of that box."""
        path, data, at = place.folder / "frames", bytearray(self.frames.read_bytes()), 0
        links = json.loads(place.lab.run_in("box", ["ip", "-j", "link", "show", "dev", "to-client"]).stdout)
        mac = bytes.fromhex(links[0]["address"].replace(":", ""))
        while at < len(data):
            data[at + 4:at + 10] = mac
            at += 4 + int.from_bytes(data[at:at + 4], "little")
        path.write_bytes(data)
        return path

    def measure(self, load: Load, family: int, turns: int) -> None:
        """All places with one load, in turns."""
        what = load.name if load is MIX else f"{load.name}, IPv{family}"
        for place in self.places:
            place.offload(load.offload)
        read = {place.name: self.tcp_read(place) for place in self.places} if load is MIX else {}
        with ExitStack() as stack:
            askers = []
            for place in self.places:
                askers.append(self.asker(place, load, family))
                stack.callback(askers[-1].end)
            for asker in askers:            # what is slower the first time
                asker.slice()
            for asker in slices.in_turn(askers, turns):
                figures, verdicts = asker.slice()
                case = f"{what}, {asker.place.name}"
                self.run.add(case, figures)
                self.count(case, verdicts)
        for place in self.places if load is MIX else ():
            if place.daemon and self.tcp_read(place) == read[place.name]:
                raise harness.Problem(f"mix, {place.name}: the engine read no TCP of it: are its ports filtered?")
        self.run.record["loads"][what] = load.unit
        self.tell(what)
        self.run.keep()

    def tcp_read(self, place: Place) -> int:
        return place.lab.counters(place.daemon).get("engine.tcp", 0) if place.daemon else 0

    def count(self, case: str, verdicts: Mapping[str, float]) -> None:
        total = self.run.record["verdicts"].setdefault(case, dict.fromkeys(verdicts, 0))
        for name, value in verdicts.items():
            total[name] += value

    def close(self) -> None:
        for place in self.places:
            if place.facts:
                place.facts["pss_after_mib"] = slices.memory(place.inside("box"))

    def tell(self, what: str) -> None:
        for line in table(self.run.record, what):
            print(line, flush=True)


def table(record: Mapping[str, Any], what: str) -> list[str]:
    """The lines of one load: for each case what it costs, and how that compares with no filter."""
    unit = record["loads"][what]
    lines = [f"{what}: µs a {unit}; how many times as many as without a filter for the same processor time",
             f"  {'':22} {'processor time':24} {'to no filter':24} {'more than no filter':24} {'its own':8} "
             "let through, harmed"]
    for case in record["cases"]:
        name = f"{what}, {case}"
        if name not in record["samples"]:
            continue
        samples, base = record["samples"][name], record["samples"][f"{what}, no filter"]
        figure, add = ("p50_us", slices.later) if "p50_us" in samples else ("cpu_us", slices.more)
        verdict = record["verdicts"][name]
        lines.append(
            f"  {case[:22]:22} {slices.cost(samples['cpu_us'])!s:24} "
            + (f"{slices.share(base['cpu_us'], samples['cpu_us'])!s:24} {add(base[figure], samples[figure])!s:24} "
               if case != "no filter" else " " * 50)
            + f"{slices.cost(samples['own_us']).middle:8.3f} "
            f"{verdict['let_through']:,} of {verdict['listed']:,}, {verdict['harmed']:,} of {verdict['others']:,}"
            + (f"; median {statistics.median(samples['p50_us']):.1f} µs" if figure == "p50_us" else ""))
    return lines


def chosen_loads(only: Sequence[str], families: Sequence[int]) -> list[tuple[Load, int]]:
    """Which loads, over which family; the mix has both in it."""
    kinds = [kind for words in only for kind in words.split(",")] or list(KINDS)
    for kind in kinds:
        if kind not in KINDS:
            raise harness.Problem(f"no load {kind}: there are {', '.join(KINDS)}")
    return [(load, family) for load in (*LOADS, MIX) if load.name.partition(",")[0] in kinds
            for family in (families if load is not MIX else [4])]


def chosen_ways(known: Mapping[str, Prepare], wanted: Sequence[str], tried: Sequence[str]) -> dict[str, Prepare]:
    peers = [peer.name for peer in PEERS]
    names = [name for words in wanted for word in words.split(",") for name in (peers if word == "peers" else [word])]
    names = names or list(known)
    for name in names:
        if name not in known and name not in peers:
            raise harness.Problem(f"no case {name}: there are {', '.join(known)}, and peers for all of those")
    return {name: known[name] for name in dict.fromkeys(["no filter", NULL, *names, *tried]) if name in known}


def main() -> None:
    parser = harness.options(__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="LOAD,...", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--cases", action="append", default=[], metavar="CASE,...", help="leave the others out")
    parser.add_argument("--family", action="append", type=int, choices=(4, 6), help="IPv4 or IPv6 alone")
    parser.add_argument("--try", dest="tried", action="append", default=[], type=one_more, metavar="NAME=JSON",
                        help="one case more: edgeblock with these sections and keys of its configuration")
    chosen = parser.parse_args()
    harness.need_root()
    loads = chosen_loads(chosen.only, chosen.family or ([4] if chosen.quick else [4, 6]))
    run = harness.Run("box", chosen, rounds=3, quick_rounds=1, turns=TURNS, names=NAMES, open=OPEN,
                      clients=CLIENTS, servers=SERVERS, traffic=traffic.words())
    tried = dict(chosen.tried)
    run.settings(edgeblock=[*EDGEBLOCK, *tried])
    run.record |= {"cases": [], "loads": {}, "facts": {}, "verdicts": {}}
    known = chosen_ways(ways(run, tried), chosen.cases, list(tried))
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        bench = Bench(run, Path(name), stack)
        write_texts(bench.folder, {load.text for load, _ in loads})
        nfqueue.write_frames(bench.frames, traffic.mixed(6_000))
        bench.open(known)
        run.record["cases"] = [place.name for place in bench.places]
        for load, family in loads:
            bench.measure(load, family, run.rounds * TURNS)
        bench.close()
    print(run.keep(), flush=True)


def one_more(word: str) -> tuple[str, Any]:
    name, _, text = word.partition("=")
    try:
        return name, json.loads(text)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(f'{name}: {problem}: it is NAME={{"section": {{"key": value}}}}') from None


if __name__ == "__main__":
    harness.main(main)
