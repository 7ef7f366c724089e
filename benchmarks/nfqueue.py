"""What one core takes from an NFQUEUE: ours with the whole engine, beside loops that do nothing but accept.

    .venv/bin/python benchmarks/nfqueue.py [--quick] [--rounds N] [--output DIR]

Two namespaces joined by two veths: in one a program sends prepared packets from CPU 0; in the other, the box, the
kernel queues what it would forward, and a reader on CPU 1 takes it. An accepted packet is forwarded, by the system
call that accepts it and so at the reader's cost, to the other veth, behind which it is dropped. Connection tracking
is on, as on every box. Needs root and two CPUs.

    one      a C loop: receive one, accept one
    many     a C loop: receive up to 32, accept them with one batch verdict: what NFQUEUE can do at best
    stock    netfilterqueue's own loop with a Python callback that accepts
    ours     QueueReader and the engine with 10 000 names, as a worker runs them

Emptying: the queue is filled while nobody reads, then emptied; the rate is the reader's limit. Offered: packets come
at a steady rate while the reader reads; what it took, what was lost and what it cost, from low rates to far beyond.
Traffic: `hellos`, every packet a whole ClientHello of a flow never seen; `hellos, not forwarded`, the same, but the
rule behind the queue drops them, so that the queue is all that is timed; `mixed`, what the kernel rules queue of the
mix of traffic.py.
"""

import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import harness
import traffic

from edgeblock.lab import call, enter, search_path
from edgeblock.source.queue import kernel_queues

QUEUE, NAMES = 0, 10_000
SENDER, READER = 0, 1                    # CPUs
ROOM = 1 << 30                           # bytes of receive buffer while the queue is filled, so that nothing is lost
BUFFER = 8 << 20                         # the same in use: the daemon's default
READERS = ("one", "many", "stock", "ours")
RATES = (25, 50, 100, 150, 200, 250, 300, 400, 600)     # thousand packets a second
MAC = b"\x02\0\0\0\0\x01"


class Ends:
    """The two namespaces; this process is in the box."""

    def __init__(self) -> None:
        stem = f"edgeblock-bench-{os.getpid()}"
        self.box, self.wire = f"{stem}-box", f"{stem}-wire"

    def __enter__(self) -> "Ends":
        with ExitStack() as stack:
            for name in (self.box, self.wire):
                call(["ip", "netns", "add", name])
                stack.callback(call, ["ip", "netns", "delete", name], check=False)
            self.build()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def build(self) -> None:
        for there, here in (("out", "in"), ("sink", "off")):
            call(["ip", "link", "add", there, "netns", self.wire, "type", "veth", "peer", "name", here,
                  "address", MAC.hex(":"), "netns", self.box])
            call(["ip", "-n", self.wire, "link", "set", there, "up"])
        for tool in ("iptables", "ip6tables"):
            call(["nsenter", f"--net=/run/netns/{self.wire}", "--",
                  tool, "-t", "raw", "-A", "PREROUTING", "-j", "DROP"])
        with open(f"/run/netns/{self.box}") as namespace:
            enter(namespace.fileno())
        sink = call(["ip", "-n", self.wire, "-j", "link", "show", "dev", "sink"]).stdout
        address = json.loads(sink)[0]["address"]
        for line in ("ip link set lo up", "ip link set in up", "ip link set off up",
                     "sysctl -qw net.ipv4.ip_forward=1", "sysctl -qw net.ipv6.conf.all.forwarding=1",
                     "sysctl -qw net.ipv4.conf.all.rp_filter=0", "sysctl -qw net.ipv4.conf.in.rp_filter=0",
                     f"ip neigh add 198.18.0.1 lladdr {address} dev off nud permanent",
                     f"ip neigh add fe80::1 lladdr {address} dev off nud permanent",
                     "ip route add default via 198.18.0.1 dev off onlink",
                     "ip -6 route add default via fe80::1 dev off onlink"):
            call(line.split())
        for tool in ("iptables", "ip6tables"):
            call([tool, "-A", "FORWARD", "-m", "conntrack", "--ctstate", "UNTRACKED", "-j", "DROP"])
            call([tool, "-t", "mangle", "-A", "FORWARD", "-j", "NFQUEUE", "--queue-num", str(QUEUE)])

    def send(self, frames: Path, rate: int, seconds: float) -> dict[str, float]:
        """Sends at that rate for so long, or, with negative `seconds`, so many packets at once."""
        words = ["nsenter", f"--net=/run/netns/{self.wire}", "--", str(harness.compiled("blast")), "out", str(frames),
                 str(rate), str(seconds), str(SENDER)]
        return json.loads(call(words, timeout=60).stdout)


class Reader:
    """A reader's process, bound to the queue."""

    def __init__(self, kind: str, buffer: int, rules: Path) -> None:
        if kind in ("one", "many"):
            words = [str(harness.compiled("accept")), str(QUEUE), kind, str(buffer), str(READER)]
        else:
            words = [sys.executable, str(harness.HERE / "reader.py"), str(QUEUE), kind, str(buffer), str(READER),
                     str(rules)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=os.environ | {"PATH": search_path()})
        assert self.answer() == "ready"

    def answer(self) -> Any:
        return harness.answer(self.process, "the reader")

    def order(self, what: str) -> None:
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait(20)


@contextmanager
def reader(kind: str, buffer: int, rules: Path) -> Iterator[Reader]:
    started = Reader(kind, buffer, rules)
    try:
        yield started
    finally:
        started.end()


@contextmanager
def dropping(wanted: bool) -> Iterator[None]:
    """Meanwhile nothing leaves the box, if so wanted, and no connection is remembered from before."""
    call(["conntrack", "-F"])
    words = ["iptables", "-A", "FORWARD", "-j", "DROP"]
    if wanted:
        call(words)
    yield
    if wanted:
        call(["iptables", "-D", *words[2:]])


def emptying(ends: Ends, kind: str, rules: Path, frames: Path, count: int, drop: bool) -> dict[str, float]:
    with reader(kind, ROOM, rules) as one, dropping(drop):
        ends.send(frames, 0, -count)
        waiting = kernel_queues()[QUEUE]["waiting"]
        if waiting < 0.9 * count:       # a busy machine loses some before the queue
            raise harness.Problem(f"of {count} packets {waiting} are in the queue: is there memory for them?")
        one.order("drain")
        took = one.answer()
        if took["packets"] != waiting:
            raise harness.Problem(f"{kind} took {took['packets']} of {waiting} packets")
    return {"packets_per_s": waiting / took["seconds"], "user_us": took["user"] / waiting * 1e6,
            "system_us": took["system"] / waiting * 1e6}


def offered(ends: Ends, kind: str, rules: Path, frames: Path, rate: int, seconds: float) -> dict[str, float]:
    with reader(kind, BUFFER, rules) as one, dropping(False):
        one.order("run")
        sent = ends.send(frames, rate * 1000, seconds)
        while kernel_queues()[QUEUE]["waiting"]:
            pass
        one.order("stop")
        took = one.answer()
    packets = max(took["packets"], 1)
    return {"offered_per_s": sent["sent"] / sent["seconds"], "taken_per_s": took["packets"] / sent["seconds"],
            "lost_percent": 100 * (sent["sent"] - took["packets"]) / sent["sent"],
            "user_us": took["user"] / packets * 1e6, "system_us": took["system"] / packets * 1e6}


def rounds(run: harness.Run, case: str) -> list[dict[str, float]]:
    """The samples of a case, a record a round."""
    figures = ("packets_per_s", "user_us", "system_us")
    return [dict(zip(figures, values, strict=True))
            for values in zip(*(run.samples(case, figure) for figure in figures), strict=True)]


def write_frames(path: Path, packets: list[bytes]) -> Path:
    with path.open("wb") as file:
        for packet in packets:
            kind = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"
            frame = MAC + b"\x02\0\0\0\0\x02" + kind + packet
            file.write(struct.pack("=I", len(frame)) + frame)
    return path


def main() -> None:
    parser = harness.options(__doc__)
    parser.add_argument("--packets", type=int, metavar="N",
                        help="packets to empty the queue of (60 000; the kernel holds 65 536)")
    parser.add_argument("--only", choices=("emptying", "offered"), help="leave the other out")
    chosen = parser.parse_args()
    harness.need_root()
    if not {SENDER, READER} <= os.sched_getaffinity(0):
        raise harness.Problem("needs two CPUs, one to send and one to read")
    count = chosen.packets or (30_000 if chosen.quick else 60_000)
    seconds = 0.2 if chosen.quick else 0.4      # the connection tracker has room for so many flows
    rates = RATES[1::3] if chosen.quick else RATES
    run = harness.Run("nfqueue", chosen, rounds=5, quick_rounds=2, packets=count, names=NAMES, buffer=BUFFER,
                      rates=[rate * 1000 for rate in rates], seconds=seconds, traffic=traffic.words())
    with tempfile.TemporaryDirectory() as folder, Ends() as ends:
        rules = Path(folder, "rules")
        rules.mkdir()
        Path(rules, "names.list").write_text(harness.made_up_names(NAMES))
        kinds = {"hellos": write_frames(Path(folder, "hellos"), traffic.hellos(20_000)),
                 "mixed": write_frames(Path(folder, "mixed"), traffic.queued(traffic.mixed(6_000)))}
        if chosen.only != "offered":
            cases = {"hellos": ("hellos", False), "hellos, not forwarded": ("hellos", True),
                     "mixed": ("mixed", False)}
            run.in_turn({f"emptying, {what}, {kind}": partial(emptying, ends, kind, rules, kinds[frames], count, drop)
                         for what, (frames, drop) in cases.items() for kind in READERS})
            for what in cases:
                best, our = (rounds(run, f"emptying, {what}, {kind}") for kind in ("many", "ours"))
                for bare, full in zip(best, our, strict=True):      # of one round, so moments apart
                    run.add(f"emptying, {what}, ours / many", {
                        "ratio": full["packets_per_s"] / bare["packets_per_s"],
                        "cpu_ratio": (bare["user_us"] + bare["system_us"]) / (full["user_us"] + full["system_us"])})
        if chosen.only != "emptying":
            run.in_turn({f"offered, hellos, {kind}, {rate}": partial(offered, ends, kind, rules, kinds["hellos"],
                                                                    rate, seconds)
                         for rate in rates for kind in READERS}, rounds=1 if chosen.quick else 2)
    run.save()


if __name__ == "__main__":
    harness.main(main)
