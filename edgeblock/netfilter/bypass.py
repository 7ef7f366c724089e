"""What carries packets past our rules although they stand.

In: the settings. Out: each way past that this machine has, in words, with its cause and what to do. Never here: a
rule, an interface or a setting changed. Rules of others that accept packets before our jump are among them only where
the daemon does not put its jump before them (`ruleset.install`), or could not.
"""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edgeblock.config import Config
from edgeblock.errors import SystemProblem
from edgeblock.netfilter import iptables, tools
from edgeblock.netfilter.marks import marks

KINDS = ("rule", "flowtable", "bridge", "interface")     # as the metric names them
NETWORK = Path("/sys/class/net")
SYSCTL = Path("/proc/sys/net")
BRIDGED = 2              # ports of a bridge from which on it forwards


class Bypass(NamedTuple):
    """`kind` is one of KINDS; `found` names the rule, the flow table or the interface; `fix` is what to do."""

    kind: str
    found: str
    fix: str


def find(config: Config) -> list[Bypass]:
    """Every way past our rules that can be seen. Runs programs: some milliseconds, more with thousands of rules."""
    return [*rules_before(), *flowtables(config), *bridges(config), *interfaces(config)]


def rules_before() -> Iterator[Bypass]:
    """Rules of others that accept packets, or give them to others, before our jump is reached."""
    if not tools.capable(tools.CAP_NET_ADMIN):
        return
    try:
        passed = iptables.passed_by()
    except SystemProblem:
        return
    for family, lines in passed.items():
        for line in lines:
            yield Bypass("rule", f"{iptables.FAMILIES[family]} -t {iptables.TABLE} {line}",
                         "what it accepts is not filtered; the daemon moves its jump before it, or: "
                         "edgeblock ruleset apply")


def flowtables(config: Config) -> Iterator[Bypass]:
    """Flow tables carry the packets of a connection past every rule, unless only what is done comes into them."""
    if not tools.find("nft") or not tools.capable(tools.CAP_NET_ADMIN):
        return
    try:
        listed = tools.run(["nft", "--terse", "list", "ruleset"])
    except SystemProblem:
        return
    bits = marks(config.ruleset.mark_mask)
    fix = f"offload only what is done: ct mark & {bits.mask:#x} == {bits.done:#x} flow add @..."
    yield from (Bypass("flowtable", found, fix) for found in offloading(listed, bits.mask, bits.done))


def offloading(listed: str, mask: int, done: int) -> Iterator[str]:
    """The flow tables of a listing of nft that connections which are not done can come into, with the rule."""
    only_done = re.compile(rf"ct mark (?:&|and) {mask:#010x} == {done:#010x} ")
    where, last = "", ("", "")
    tables: dict[tuple[str, str], str] = {}
    rules: list[tuple[str, str, str, bool]] = []
    for line in listed.splitlines():
        text = line.strip()
        words = text.split()
        if words[:1] == ["table"]:
            where = " ".join(words[1:3])
        elif words[:1] == ["flowtable"]:
            tables[where, words[1]] = ""
            last = where, words[1]
        elif words[:1] == ["flags"] and "offload" in text and tables:
            tables[last] = " (in hardware)"
        elif into := re.search(r"\bflow (?:add|offload) @(\S+)", text):
            rules.append((where, into[1], text, bool(only_done.search(text))))
        elif "FLOWOFFLOAD" in text:
            yield f"table {where}: {text}"
    for (table, name), hardware in tables.items():
        into_it = [(text, safe) for place, one, text, safe in rules if (place, one) == (table, name)]
        for text in [text for text, safe in into_it if not safe] or [""] * (not into_it):
            yield f"flow table {table} {name}{hardware}" + (f": {text}" if text else ", which no rule fills yet")


def bridges(config: Config) -> Iterator[Bypass]:
    """What a bridge forwards is shown to our rules only if br_netfilter says so, VLAN tags by one setting more."""
    if "forward" not in config.ruleset.hooks or not SYSCTL.is_dir():
        return                  # in a service's sandbox there is no /proc/sys
    for bridge in sorted(one.parent.name for one in NETWORK.glob("*/bridge")):
        ports = sorted(one.name for one in (NETWORK / bridge / "brif").glob("*"))
        if len(ports) < BRIDGED or not is_meant(config, (bridge, *ports)):
            continue
        wanted = ["call-iptables", "call-ip6tables"]
        if read(NETWORK / bridge / "bridge" / "vlan_filtering") == "1":
            wanted.append("filter-vlan-tagged")
        off = [name for name in wanted if read(SYSCTL / "bridge" / f"bridge-nf-{name}") != "1"]
        if off:
            yield Bypass("bridge", f"what bridge {bridge} forwards is not seen: {', '.join(off)} is not 1",
                         "if it is to be filtered: modprobe br_netfilter; sysctl -w "
                         + " ".join(f"net.bridge.bridge-nf-{name}=1" for name in off))


def is_meant(config: Config, names: tuple[str, ...]) -> bool:
    """Whether the settings name one of these interfaces, or none at all."""
    named = (*config.ruleset.clients, *config.ruleset.servers)
    return not named or any(matches(pattern, name) for pattern in named for name in names)


def interfaces(config: Config) -> Iterator[Bypass]:
    """Where an interface has another name than the settings say, its packets meet no rule of ours.

    Of "ppp*" there may be none at the moment.
    """
    there = [name for _, name in socket.if_nameindex()]
    for key in ("clients", "servers"):
        for pattern in getattr(config.ruleset, key):
            if not pattern.endswith("*") and pattern not in there:
                yield Bypass("interface", f"ruleset.{key}: {pattern}: there is no such interface (yet)",
                             f"see ip link, and set ruleset.{key}")


def matches(pattern: str, name: str) -> bool:
    return name == pattern or pattern.endswith("*") and name.startswith(pattern[:-1])


def read(path: Path) -> str:
    """A file of the kernel's, "" where it is not there or not for us."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
