"""What listed addresses cost: until a change is in force, in the kernel's memory, and for each forwarded packet.

    python -m benchmarks.addresses [SIZE ...] [--quick]       SIZE: prefixes, half of IPv4 and half of IPv6

In: sizes; 15000 and 100000 when none is given, 15000 with --quick. Out: a JSON object a line on standard output, of
each size. Needs root; traffic stays in namespaces.

*Seconds*: of the ranges made of the entries, of all of them put into a kernel that has none, and of one entry more.
*Packets*: datagrams of one client to random addresses that are not listed, forwarded by a box with the table and with
it dormant, in turns. With veth the sender's processor time has the whole way, so the difference is what the table
costs; `ratio` is packets a second with the table to those without.
"""

import contextlib
import ipaddress
import json
import os
import random
import socket
import statistics
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

from edgeblock.addresses import EMPTY, Addresses, Span, What
from edgeblock.blocklist.addresses import read_addresses
from edgeblock.blocklist.compiler import Compiler
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import Entry, network_key
from edgeblock.blocklist.settings import ListSettings
from edgeblock.config import Config
from edgeblock.lab import SERVER, Lab, until
from edgeblock.netfilter import addresses, netlink

SIZES = (15_000, 100_000)
ROUNDS, PACKETS, TARGETS = 31, 10_000, 20_000
CHANGES = 7             # of one address, through a live box
REST = 6.0              # seconds between two of them: rules are tried for so long after they are in force
PACE = 0.002            # seconds between two datagrams
SILENCE = 1.5           # seconds without an answer after which an address counts as shut
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def listed(size: int, dice: random.Random) -> Addresses:
    """Prefixes as lists have them, most of one address; none touches another."""
    compiler = Compiler(bytes(16))
    compiler.add_list("list", ListSettings(action="drop"))
    for number in dice.sample(range(1 << 16, 1 << 23), size // 2):
        length = dice.choice([32] * 8 + [30, 28])
        compiler.add(0, Entry(0, Kind.NETWORK, network_key((number << 8).to_bytes(4), length)))
        address = (0x2400 << 112 | number << 80).to_bytes(16)
        compiler.add(0, Entry(0, Kind.NETWORK, network_key(address, dice.choice([128, 64, 56]))))
    return read_addresses(compiler.finish())


def seconds(work: Any, *arguments: Any) -> float:
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def slab() -> int:
    """Bytes of the kernel's own objects."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Slab:"))


def changes(table: Addresses) -> dict[str, Any]:
    """In the namespace of the box."""
    addresses.remove()
    addresses.apply(Config(), EMPTY)
    before = slab()
    row: dict[str, Any] = {"put_s": round(seconds(addresses.change, EMPTY, table), 3),
                           "bytes_a_range": round((slab() - before) / max(table.total, 1))}
    more = Addresses({**table.spans, 4: tuple(sorted((*table.spans[4], Span(7, 7, What.DROP, 0))))}, table.endpoints)
    one = [seconds(addresses.change, *(pair)) for pair in [(table, more), (more, table)] * 5]
    addresses.change(table, EMPTY)
    row["one_more_s"], row["one_more_spread"] = spread(one, 3)
    return row


def spread(values: list[float], digits: int) -> tuple[float, list[float]]:
    return round(statistics.median(values), digits), [round(min(values), digits), round(max(values), digits)]


def targets(family: int, apart: bool, dice: random.Random) -> list[tuple[str, int]]:
    """Addresses one beside each that may be listed, or in no network where any is."""
    if family == 4:
        begins = 1 << 23 if apart else 1 << 16
        return [(socket.inet_ntoa((dice.randrange(begins, begins + (1 << 22)) << 8 | 129).to_bytes(4)), 9)
                for _ in range(TARGETS)]
    begins = (0x2401 if apart else 0x2400) << 112 | 1 << 79
    return [(socket.inet_ntop(socket.AF_INET6, (begins | dice.randrange(1 << 16, 1 << 23) << 80).to_bytes(16)), 9)
            for _ in range(TARGETS)]


def sent(link: socket.socket, places: list[tuple[str, int]]) -> float:
    """Nanoseconds of this process's processor time for a packet."""
    began = time.process_time()
    for i in range(PACKETS):
        link.sendto(b"datagram", places[i % TARGETS])
    return (time.process_time() - began) / PACKETS * 1e9


def ask_nothing(lab: Lab, dormant: bool) -> None:
    """With the table dormant the kernel asks none of its rules; its entries stay."""
    body = netlink.name(netlink.TABLE_NAME, addresses.TABLE) + netlink.attribute(2, struct.pack("!I", dormant))
    with lab.entered("box"):
        addresses.send([netlink.message(netlink.NFTABLES, 0, 0, 1, 0, body)])


def forwarding(lab: Lab, table: Addresses, dice: random.Random) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for family, apart in ((4, False), (6, True), (6, False)):
        places = targets(family, apart, dice)
        shown = f"{family}_beside" if family == 6 and not apart else str(family)
        with lab.entered("client"):
            link = socket.socket(FAMILIES[family], socket.SOCK_DGRAM)
        without, more, ratios = [], [], []
        with link:
            for _ in range(ROUNDS):
                ask_nothing(lab, True)
                bare = sent(link, places)
                ask_nothing(lab, False)
                time_with = sent(link, places)
                without.append(bare)
                more.append(time_with - bare)
                ratios.append(bare / time_with)
        row[f"bare_ns_{shown}"], _ = spread(without, 0)
        row[f"more_ns_{shown}"], row[f"more_spread_{shown}"] = spread(more, 0)
        row[f"ratio_{shown}"], row[f"ratio_spread_{shown}"] = spread(ratios, 3)
    return row


def lines_of(size: int, dice: random.Random) -> list[str]:
    """The same prefixes as `listed`, as a list file has them."""
    lines = []
    for number in dice.sample(range(1 << 16, 1 << 23), size // 2):
        lines.append(f"{ipaddress.IPv4Address(number << 8)}/{dice.choice([32] * 8 + [30, 28])}")
        lines.append(f"{ipaddress.IPv6Address(0x2400 << 112 | number << 80)}/{dice.choice([128, 64, 56])}")
    return lines


def echo(server: socket.socket) -> None:
    while True:
        data, sender = server.recvfrom(64)
        if data == b"end":
            return
        server.sendto(data, sender)


def in_force(size: int) -> dict[str, Any]:
    """Seconds from the rename of a list until no datagram is answered any more, and from its end until one is, of a
    flow that is open: where the address is in a list `beside` the others, and `inside` the list of all of them."""
    row: dict[str, Any] = {}
    with Lab() as lab:
        rules = lab.home / "rules"
        rules.mkdir()
        for name in ("all", "one"):
            (rules / f"{name}.toml").write_text('action = "drop"\nallow_addresses = true\nallow_shared = true\n'
                                                "max_shrink = 1\n")
        every = "\n".join(lines_of(size, random.Random(size))) + "\n"
        with lab.entered("server"):
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.bind((SERVER[4], 5000))
            killer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        threading.Thread(target=echo, args=(server,), daemon=True).start()
        with lab.entered("client"):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.connect((SERVER[4], 5000))
        client.settimeout(0.01)
        (rules / "all.list").write_text(every)
        daemon = lab.start_daemon(f'[rules]\ndirectory = "{rules}"\nkey = "{lab.home}/state/key"\n', within=60)
        until(lambda: lab.counters(daemon).get("addresses.in_kernel", 0) >= size, 60)
        for where, name, before in (("beside", "one.list", None), ("inside", "all.list", every)):
            shut, opened = [], []
            for _ in range(CHANGES):
                settle(REST)
                new = rules / ".new"
                new.write_text((before or "") + f"{SERVER[4]}\n")
                began = time.monotonic()
                new.rename(rules / name)
                shut.append(last_answer(client, True) - began)
                settle(REST)
                if before:
                    new.write_text(before)
                began = time.monotonic()
                new.rename(rules / name) if before else (rules / name).unlink()
                opened.append(last_answer(client, False) - began)
            row[f"shut_{where}_s"], row[f"shut_{where}_spread"] = spread(shut, 2)
            row[f"open_{where}_s"], row[f"open_{where}_spread"] = spread(opened, 2)
        killer.sendto(b"end", (SERVER[4], 5000))
        daemon.stop()
    return row


def settle(seconds: float) -> None:
    """Until what the change before has left to do is done."""
    threading.Event().wait(seconds)


def last_answer(client: socket.socket, shut: bool) -> float:
    """When the last one came before there were none for SILENCE seconds; or when the first one comes."""
    at, number = time.monotonic(), 0
    while time.monotonic() < at + (SILENCE if shut else 30.0):
        number += 1
        settle(PACE)
        with contextlib.suppress(TimeoutError):
            client.send(number.to_bytes(8))
            while client.recv(64) != number.to_bytes(8):
                pass
            at = time.monotonic()
            if not shut:
                return at
    return at


def main(arguments: list[str]) -> None:
    quick = "--quick" in arguments
    sizes = [int(one) for one in arguments if one != "--quick"] or SIZES[:1 if quick else None]
    with Lab() as lab:
        for place, route in (("server", "local"), ("box", "")):
            for tool, everything in (([], "0.0.0.0/1"), (["-6"], "2400::/15")):
                ends = ["dev", "lo"] if route else ["via", "203.0.113.80" if not tool else "2001:db8:80::80"]
                lab.run_in(place, ["ip", *tool, "route", "add", *([route] if route else []), everything, *ends])
        for size in [0, *sizes]:
            dice = random.Random(size)
            made = seconds(listed, size, dice)
            table = listed(size, random.Random(size))
            with lab.entered("box"):
                row = {"what": f"{size} prefixes", "ranges": table.total, "made_s": round(made, 2), **changes(table)}
            with lab.entered("box"):
                addresses.change(EMPTY, table)
            print(json.dumps({**row, **forwarding(lab, table, dice)}), flush=True)
    for size in [0, *sizes]:
        print(json.dumps({"what": f"in force beside {size} prefixes", **in_force(size),
                          "load": round(os.getloadavg()[0], 1)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
