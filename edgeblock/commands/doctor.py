"""`edgeblock doctor`: what this machine has and lacks.

In: the settings. Out: findings, each with its fix, and a table of them. Never here: anything changed.

Probes leave no trace: kernel features are tried in a network namespace that goes with the thread that made it.

One idea, though long: each function asks one thing of the machine.
"""

import argparse
import ctypes
import errno
import importlib
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeVar

from edgeblock import config as configuration
from edgeblock.asking import ask
from edgeblock.blocklist.shared import in_force, old_data
from edgeblock.commands import add_config
from edgeblock.config import Config
from edgeblock.daemon import claim
from edgeblock.errors import ConfigError, ListError, SystemProblem
from edgeblock.netfilter import addresses, bypass, bytecode, iptables, netlink, nft, ruleset, shortcut, tools
from edgeblock.netfilter.checks import check_shortcut, check_tracking, queues
from edgeblock.netfilter.pair import CLIENTS, SERVERS
from edgeblock.netfilter.pins import bpf_directory, pin_path
from edgeblock.netfilter.stage1 import Stage

EXAMPLES = """\
  edgeblock doctor
Exit status: 0 if edgeblock can run here, 1 if something is missing."""

OK, WARNING, MISSING = "ok", "warning", "missing"

CLONE_NEWNET = 0x40000000          # linux/sched.h
CAP_NET_RAW, CAP_SYS_ADMIN = 13, 21

# A rule each, as iptables takes it: what it tries is its name.
FEATURES = {
    "NFQUEUE": "-j NFQUEUE --queue-balance 0:1 --queue-bypass",
    "bpf": f'-m bpf --bytecode "{bytecode.bare(4)}"',
    "multiport": "-p tcp -m multiport --dports 80,443",
    "conntrack": "-m conntrack --ctdir ORIGINAL",
    "connmark": "-m connmark --mark 0x1/0x3",
    "CONNMARK": "-j CONNMARK --set-xmark 0x1/0x3",
    "mark": "-m mark --mark 0x1/0x1",
    "comment": "-m comment --comment probe",
}

OF_CONNTRACK = ("conntrack", "connmark", "CONNMARK")
FRAGMENTS = "-m socket"            # what has them put together; see netfilter/policy.py
MARKS_TRIED = 1024

MODULES = {"netfilterqueue": "NetfilterQueue", "pyroaring": "pyroaring", "uvloop": "uvloop", "structlog": "structlog",
           "idna": "idna", "publicsuffixlist": "publicsuffixlist",
           "scapy": "scapy", "rich": "rich"}
COMPILED = ("core.engine", "blocklist.matcher", "source.nfqueue")
DEMO = {"nginx": "nginx", "openssl": "openssl", "curl": "curl"}

NETWORK = Path("/sys/class/net")
BRIDGE = Path("/proc/sys/net/bridge")

# Services that begin by flushing every ruleset: their file, and the line in it that does so; "" is always.
FLUSHING = {"nftables": ("/etc/nftables.conf", "flush ruleset"), "netfilter-persistent": ("/etc/iptables", "")}

MOST = 4                           # differences of rules that are named
MEMORY_SHARE = 0.5                 # of the machine's, for connections' beginnings; the rest is for lists and others
BEGUN = 16              # bytes a flow of what workers have begun to read (source/begun.pyx)
TABLES = 64             # the same of an engine's places for flows and QUIC connections, at the least
FILES = 256                        # open files of a supervisor, besides those for its workers
TIMEX_BYTES = 1024                 # more than struct timex has
TIME_ERROR = 5                     # linux/timex.h: the clock is not synchronised
BUILT = 1_735_689_600              # 2025: before this program was
CONNTRACK_FULL = 0.8               # share of the table from which new connections may soon be refused

Answer = TypeVar("Answer")


class Finding(NamedTuple):
    """`state` is "ok", "warning" or "missing"; `fix` is what to do about it, empty where nothing is to be done."""

    name: str
    state: str
    found: str
    fix: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def main(chosen: argparse.Namespace) -> int:
    return report(examine(configuration.load(chosen.config)), sys.stdout)


def examine(config: Config) -> list[Finding]:
    """Everything that these settings need of the machine. Never raises for what it finds; takes about a second."""
    parts: tuple[Callable[[Config], Iterator[Finding]], ...] = (
        permissions, programs, kernel, first_stage, past_the_rules, queue_owner, daemon, rules_in_force,
        listed_addresses, past_us, others_rules, forwarding, interfaces, bridges, conntrack_table, midstream, windows,
        offloading, source_check, capacity, clock, python, key_file, rules_directory, shared_networks)
    return [finding for part in parts for finding in part(config)]


def report(findings: list[Finding], file: TextIO) -> int:
    """Print the findings as a table; 1 if something is missing, else 0."""
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        for one in findings:
            print(f"{one.state:8} {one.name}: {one.found}{'; ' + one.fix if one.fix else ''}", file=file)
    else:
        table = Table("what", "state", "found", "fix", box=None, pad_edge=False)
        styles = {OK: "green", WARNING: "yellow", MISSING: "bold red"}
        for one in findings:
            table.add_row(Text(one.name), Text(one.state, styles[one.state]), Text(one.found), Text(one.fix))
        Console(file=file, width=None if file.isatty() else 160).print(table)
    return int(any(one.state == MISSING for one in findings))


def permissions(config: Config) -> Iterator[Finding]:
    """The two capabilities that the daemon keeps."""
    who = f"user id {os.geteuid()}"
    for name, bit, use in (("CAP_NET_ADMIN", tools.CAP_NET_ADMIN, "the queue and the kernel rules"),
                           ("CAP_NET_RAW", CAP_NET_RAW, "the replies to clients")):
        if tools.capable(bit):
            yield Finding(name, OK, f"{who} has it")
        else:
            yield Finding(name, MISSING, f"{who} lacks it; needed for {use}",
                          "run as root, or with the systemd unit, which grants it")


def programs(config: Config) -> Iterator[Finding]:
    """What is run: one back end's program is enough, the lab and demo need more."""
    nft_there, iptables_there = tools.find("nft"), tools.find("iptables-restore") and tools.find("ip6tables-restore")
    state = WARNING if nft_there or iptables_there else MISSING
    for name, there in (("nft", nft_there), ("iptables", iptables_there)):
        if there:
            yield Finding(name, OK, version(name))
        else:
            needed = MISSING if config.ruleset.backend == name else state
            yield Finding(name, needed, "not installed", f"apt install {tools.PACKAGES[name]}")
    for name, package in {"ip": "iproute2", **DEMO}.items():
        if tools.find(name):
            yield Finding(name, OK, "installed")
        else:
            yield Finding(name, WARNING, "not installed; only the demo and the lab need it", f"apt install {package}")


def version(program: str) -> str:
    try:
        return tools.run([program, "--version"]).strip().splitlines()[0]
    except (SystemProblem, IndexError):
        return "installed, but does not say its version"


def kernel(config: Config) -> Iterator[Finding]:
    """What the kernel can do, tried out."""
    if not tools.capable(CAP_SYS_ADMIN):
        yield Finding("kernel features", WARNING, "not tried: needs root", "run edgeblock doctor as root")
        return
    backends = []
    features = [name for name in FEATURES if config.ruleset.tracking == "conntrack" or name not in OF_CONNTRACK]
    lacking = {tool: in_new_namespace(partial(refused, tool, features))
               for tool in ("iptables", "ip6tables") if tools.find(tool)}
    for tool, names in lacking.items():
        if names:
            yield Finding(f"{tool} features", WARNING, f"the kernel refuses {', '.join(names)}",
                          f"modprobe {' '.join('xt_' + name for name in names)}, or boot a kernel that has them")
        else:
            yield Finding(f"{tool} features", OK, ", ".join(features))
    if lacking and not any(lacking.values()) and len(lacking) == 2:
        backends.append("iptables")
    if tools.find("nft"):
        try:
            in_new_namespace(nft.probe)
            backends.append("nft")
            yield Finding("nft queue statement", OK, "the kernel takes it")
        except SystemProblem as problem:
            yield Finding("nft queue statement", WARNING, str(problem), "" if "iptables" in backends else
                          "modprobe nft_queue, or boot a kernel that has it")
    wanted = config.ruleset.backend
    if wanted in backends or wanted == "auto" and backends:
        chosen = wanted if wanted != "auto" else "nft" if "nft" in backends else "iptables"
        if chosen != wanted and config.ruleset.stage1 != "off" and "iptables" in backends:
            yield Finding("back end", OK, "iptables where the first stage can be had (see below)"
                          + (", else nft" if chosen == "nft" else ""))
        else:
            yield Finding("back end", OK, f"{chosen} ({wanted} in the settings)")
    else:
        possible = " and ".join(backends) or "none"
        yield Finding("back end", MISSING, f"{wanted} in the settings; this machine can do {possible}",
                      f'set ruleset.backend = "{backends[0]}"' if backends else "fix one of the above")
    yield from in_new_namespace(lambda: list(queue_features()))


def first_stage(config: Config) -> Iterator[Finding]:
    """Whether most ClientHellos can be judged in the kernel: the program is loaded, and let go again."""
    wanted = config.ruleset.stage1
    keeps_marks = config.ruleset.tracking == "stage1"
    if keeps_marks:
        try:
            check_tracking(config)
        except ConfigError as problem:
            yield Finding("flow marks", MISSING, str(problem), 'or set ruleset.kernel = "auto"')
            return
        yield from defragmenting()
    if wanted == "off":
        yield Finding("first stage", OK, "off in the settings")
        return
    state = MISSING if wanted == "on" else WARNING
    other = '; with ruleset.kernel = "off" every new flow goes to the queue, as it does without' * (wanted == "on")
    if keeps_marks:
        other = '; or set ruleset.kernel = "auto"'
    if config.ruleset.backend == "nft":
        if wanted == "auto":
            yield Finding("first stage", OK, "off, as nftables cannot ask it")
        else:
            yield Finding("first stage", state, "nftables cannot ask it", f'set ruleset.backend = "iptables"{other}')
        return
    try:
        Stage(16, 1.0, hellos=1, marks=MARKS_TRIED if keeps_marks else 0,
              shortcut=keeps_marks and config.ruleset.shortcut).close()
    except SystemProblem as problem:
        yield Finding("first stage", state, str(problem).removeprefix("first stage: "), other.removeprefix("; "))
        return
    kinds = {words[1]: words[2] for line in read("/proc/self/mounts").splitlines() if len(words := line.split()) > 2}
    place = bpf_directory()
    if kinds.get(str(place)) != "bpf":
        yield Finding("first stage", state, f"the kernel takes it, but {place} is no bpf file system",
                      f"mount -t bpf bpf {place}")
    else:
        yield Finding("first stage", OK, "the kernel takes the program" + "s, flow marks included" * keeps_marks)


def past_the_rules(config: Config) -> Iterator[Finding]:
    """Whether packets can go from interface to interface past the rules, and what else they go past."""
    if not config.ruleset.shortcut:
        return
    try:
        check_shortcut(config)
        shortcut.with_filters()
        shortcut.check(ruleset.shortcut_devices(config))
    except (ConfigError, SystemProblem) as problem:
        yield Finding("shortcut", MISSING, str(problem), 'or set ruleset.kernel = "marks"')
        return
    tracked = shortcut.tracked()
    if tracked:
        yield Finding("shortcut", WARNING,
                      f"{tracked} connections are tracked here, and what is carried past conntrack it does not see: "
                      f"only done flows are, and a rule that drops INVALID may break these",
                      'track none of them (-j CT --notrack), or set ruleset.kernel = "marks"')
    else:
        yield Finding("shortcut", OK, "done flows, and what the rules certainly pass, go past the kernel rules")


def defragmenting() -> Iterator[Finding]:
    """Whether fragments are put together where conntrack does not do it."""
    if not tools.capable(CAP_SYS_ADMIN):
        return
    try:
        for tool in ("iptables", "ip6tables"):
            rule = f"*mangle\n:PROBE - [0:0]\n-A PROBE {FRAGMENTS}\nCOMMIT\n"
            in_new_namespace(partial(tools.run, [f"{tool}-restore", "--noflush"], rule))
    except SystemProblem as problem:
        yield Finding("fragments", MISSING, f"nothing puts them together without conntrack: {problem}",
                      'modprobe xt_socket, or set ruleset.kernel = "judge"')
    else:
        yield Finding("fragments", OK, "the kernel puts them together without conntrack")


def refused(tool: str, features: list[str]) -> list[str]:
    """Those of these features that iptables or ip6tables cannot have from this kernel."""
    lacking = []
    for name in features:
        try:
            tools.run([f"{tool}-restore", "--noflush"], f"*mangle\n-A FORWARD {FEATURES[name]}\nCOMMIT\n")
        except SystemProblem:
            lacking.append(name)
    return lacking


def queue_features() -> Iterator[Finding]:
    """What the daemon asks of its queue: to exist, to fail open, to come with conntrack."""
    bound = try_queue(0)
    if bound:
        yield Finding("NFQUEUE", MISSING, f"a queue cannot be bound: {os.strerror(bound)}",
                      "modprobe nfnetlink_queue, or boot a kernel that has it")
        return
    yield Finding("NFQUEUE", OK, "a queue can be bound")
    if try_queue(netlink.FAIL_OPEN):
        yield Finding("fail-open queue", WARNING, "the kernel lacks NFQA_CFG_F_FAIL_OPEN; a full queue drops packets",
                      "boot a kernel of 3.6 or later")
    else:
        yield Finding("fail-open queue", OK, "the kernel has it")
    if try_queue(netlink.CONNTRACK):
        yield Finding("marks with verdicts", WARNING, "the kernel ignores them; each mark is a message of its own",
                      "modprobe nf_conntrack_netlink, or boot a kernel with CONFIG_NETFILTER_NETLINK_GLUE_CT")
    else:
        yield Finding("marks with verdicts", OK, "the kernel takes conntrack marks with verdicts")


def try_queue(flags: int) -> int:
    try:
        return netlink.try_queue(0, flags)
    except OSError as problem:
        return problem.errno or errno.EIO


def in_new_namespace(work: Callable[[], Answer]) -> Answer:
    """What `work` returns in an empty network namespace, which is gone afterwards. Needs CAP_SYS_ADMIN."""
    def body() -> Answer:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            raise SystemProblem(f"network namespaces: {os.strerror(ctypes.get_errno())}")
        return work()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(body).result()


def queue_owner(config: Config) -> Iterator[Finding]:
    """Whether another program holds a queue of ours."""
    first, last = queues(config)
    held = {}
    for line in read("/proc/thread-self/net/netfilter/nfnetlink_queue").splitlines():
        words = line.split()
        if len(words) > 1 and first <= int(words[0]) <= last:
            held[int(words[0])] = words[1]
    name = f"queue {first}" if first == last else f"queues {first} to {last}"
    if not held:
        yield Finding(name, OK, "free")
        return
    # A queue that was handed on still bears the number of the worker that bound it, which has ended.
    alive = {process: read(f"/proc/{process}/cmdline") for process in held.values()}
    if not all(alive.values()):
        running = any("edgeblock" in read(one) for one in Path("/proc").glob("[0-9]*/cmdline"))
        alive = {process: words or "edgeblock" * running for process, words in alive.items()}
    owners = sorted({f"{read(f'/proc/{one}/comm').strip() or words or 'process'} ({one})"
                     for one, words in alive.items()})
    ours = all("edgeblock" in words for words in alive.values())
    yield Finding(name, OK if ours else WARNING, f"held by {', '.join(owners)}",
                  "" if ours else "stop that program, or set queue.number to a free queue")


def daemon(config: Config) -> Iterator[Finding]:
    """Whether one runs, and what it says of itself."""
    process = claim.owner()
    try:
        answer = ask(config.daemon.control, "status")
        told = answer.get("vigil", {})
    except SystemProblem as problem:
        if process:
            yield Finding("daemon", WARNING, f"process {process} runs here, but does not tell: {problem}",
                          "run edgeblock doctor as root, with the configuration of the daemon")
        else:
            left = addresses.present()
            yield Finding("daemon", WARNING, "none runs in this network namespace: " + (
                "names are not filtered, listed addresses still are as the last daemon had them" if left
                else "nothing is filtered"), "systemctl start edgeblock, or edgeblock run"
                + "; edgeblock ruleset remove lifts them" * left)
        return
    who = f"process {process}" if process else f"one that answers at {config.daemon.control}"
    if told.get("causes"):
        yield Finding("daemon", MISSING, f"{who}: NOT FILTERING: {'; '.join(told['causes'])}",
                      "see its log: journalctl -u edgeblock; it keeps trying")
    else:
        yield Finding("daemon", OK, f"{who}, filtering")
    yield from shown_by_itself(answer.get("canary", {}))
    yield from shown_of_rules(answer.get("selfcheck", {}))
    if ranges := answer.get("addresses", {}).get("ranges"):
        there = answer["addresses"]["in_kernel"]
        yield Finding("listed addresses", OK if there == ranges else MISSING,
                      f"{there} of {ranges} ranges in the kernel",
                      "" if there == ranges else "see its log: journalctl -u edgeblock")
    for said in told.get("problems", ()):
        yield Finding("daemon", WARNING, f"could not put back: {said}", "see its log: journalctl -u edgeblock")
    if times := sum(told.get("restored", {}).values()):
        yield Finding("daemon", WARNING, f"has put back {times} times what other programs took away in the kernel",
                      "see its log, and have them leave the chains and tables of edgeblock alone")


def shown_by_itself(canary: dict[str, Any]) -> Iterator[Finding]:
    """What the daemon has found when it asked its own box."""
    wrong = [f"{one['family']} {one['protocol']}: {one['wrong']}" for one in canary.get("probes", ()) if one["wrong"]]
    if wrong:
        yield Finding("canary", MISSING, f"failed: {'; '.join(wrong[:MOST])}", "see docs/canary.md")
    elif canary.get("off"):
        yield Finding("canary", WARNING, f"off: {canary['off']}", "see docs/canary.md")
    elif canary:
        lacking = "; ".join(f"not over {family}: {why}" for family, why in canary["lacking"].items())
        yield Finding("canary", OK, f"{canary['state']}{'; ' * bool(lacking)}{lacking}")


def shown_of_rules(proof: dict[str, Any]) -> Iterator[Finding]:
    """What the daemon has found when it tried its rules behind every disguise."""
    if not proof:
        return
    told = (f"{proof['held']} of {proof['tried']} tries held, {proof['over_blocked']} of {proof['beside']} "
            f"neighbours blocked, {proof['lists']} of {proof['of']} lists")
    if proof["refused"]:
        told += f"; new rules refused {proof['refused']} times"
    if proof["state"] == "off":
        yield Finding("self-check", WARNING, "off: new rules come into force untried",
                      "set self_check under [rules] to some seconds")
    elif proof["state"] in ("failed", "not tried"):
        yield Finding("self-check", MISSING, f"{proof['problem']}; {told}", "see docs/selfcheck.md")
    else:
        yield Finding("self-check", WARNING if proof["refused"] else OK, f"{proof['state']}: {told}",
                      "see docs/selfcheck.md")


def rules_in_force(config: Config) -> Iterator[Finding]:
    """Whether packets reach the queue at all: each rule and each jump, not only that there is a chain."""
    try:
        there = ruleset.in_force()
        wrong = [one for backend in there for one in not_as_planned(config, backend)]
    except (SystemProblem, OSError) as problem:
        yield Finding("kernel rules", WARNING, str(problem), "run edgeblock doctor as root")
        return
    process = claim.owner()
    fix = f"process {process} puts them back; see its log" if process else "edgeblock ruleset apply"
    if len(there) > 1:
        yield Finding("kernel rules", WARNING, "in force twice, by nft and by iptables", "edgeblock ruleset apply")
    elif wrong:
        yield Finding("kernel rules", MISSING, f"not as these settings want them: {'; '.join(wrong[:MOST])}", fix)
    elif there:
        yield Finding("kernel rules", OK, f"in force ({there[0]})")
    elif process:
        yield Finding("kernel rules", MISSING, f"none in force, although a daemon runs (process {process})", fix)
    elif config.ruleset.install:
        yield Finding("kernel rules", OK, "none in force; edgeblock run applies them")
    else:
        yield Finding("kernel rules", WARNING, "none in force, and ruleset.install is off", "edgeblock ruleset apply")


def listed_addresses(config: Config) -> Iterator[Finding]:
    """Whether entries that are addresses can be enforced on every port."""
    if not config.ruleset.addresses or not config.ruleset.install:
        yield Finding("listed addresses", WARNING, "enforced on the watched ports only",
                      "set addresses and install under [ruleset] to true")
    elif not tools.find("nft"):
        yield Finding("listed addresses", MISSING, "cannot be enforced without nft", "install the package nftables")


def not_as_planned(config: Config, backend: str) -> list[str]:
    """How the rules that are there differ from those that these settings ask for."""
    stage1 = None
    if backend == "iptables" and any("--object-pinned" in line for line in iptables.ours_as_text()):
        stage1 = pin_path(config.queue.number)
    try:
        planned = ruleset.standing(config, backend, stage1)
    except ConfigError as problem:
        return [str(problem)]
    wrong = planned.take()
    if wrong or backend != "iptables" or not tools.capable(CAP_SYS_ADMIN):
        return wrong
    # Rules of the right number may say something else: the same are made in a network namespace, and compared.
    now = iptables.ours_as_text()

    def made() -> tuple[str, ...]:
        iptables.apply(config, stage1)
        return iptables.ours_as_text()

    try:
        wanted = in_new_namespace(made)
    except SystemProblem:           # the first stage's programs are pinned where this process does not see them
        return []
    found, planned_lines = rules_of_ours(now), rules_of_ours(wanted)
    if found == planned_lines:
        return []
    return [*(f"lacking: {line}" for line in planned_lines if line not in found),
            *(f"not ours: {line}" for line in found if line not in planned_lines)] or ["in another order"]


def rules_of_ours(lines: tuple[str, ...]) -> list[str]:
    """Without the rules of others before our jumps, and without notes."""
    return [line for line in lines if line.startswith("-A ") and f" {iptables.PREFIX}" in line
            and not line.startswith(f"-A {iptables.NOTES} ")]


def past_us(config: Config) -> Iterator[Finding]:
    """What carries packets past our rules although they stand, and which rules of others queued packets miss."""
    for one in bypass.rules_before():
        yield Finding("rules before ours", MISSING, one.found, one.fix)
    try:
        unseen = iptables.behind() if tools.capable(tools.CAP_NET_ADMIN) else []
    except SystemProblem:
        return
    if unseen:
        yield Finding("rules behind ours", WARNING, f"packets that were queued do not come to {some(unseen)}",
                      "put them at the head of the chain (iptables -t mangle -I ...), or into another table")


def others_rules(config: Config) -> Iterator[Finding]:
    """Services that replace every rule of the kernel's when they are reloaded, ours included."""
    for service, (file, word) in FLUSHING.items():
        enabled = any(Path("/etc/systemd/system").glob(f"*.wants/{service}.service"))
        if enabled and (not word or any(line.strip() == word for line in read(file).splitlines())):
            yield Finding(service, WARNING, f"enabled; a reload of it removes every other ruleset ({file})",
                          "have it replace its own tables only; a daemon that runs puts ours back, else: "
                          "systemctl restart edgeblock")


def interfaces(config: Config) -> Iterator[Finding]:
    """Whether there are interfaces on either side."""
    there = sorted(one.name for one in NETWORK.iterdir()) if NETWORK.is_dir() else []
    for key in ("clients", "servers"):
        for name in getattr(config.ruleset, key):
            found = [one for one in there if one == name or name.endswith("*") and one.startswith(name[:-1])]
            if found:
                yield Finding(f"ruleset.{key}", OK, f"{name}: {some(found)}")
            else:
                yield Finding(f"ruleset.{key}", WARNING, f"{name}: there is no such interface (yet)",
                              f"see ip link, and set ruleset.{key}")


def bridges(config: Config) -> Iterator[Finding]:
    """What a bridge forwards is shown to our rules only if br_netfilter says so, VLAN tags by one setting more."""
    found = sorted(one.parent.name for one in NETWORK.glob("*/bridge"))
    if not found or "forward" not in config.ruleset.hooks:
        return
    values = {name: read(BRIDGE / f"bridge-nf-{name}").strip()
              for name in ("call-iptables", "call-ip6tables", "filter-vlan-tagged")}
    off = [name for name in ("call-iptables", "call-ip6tables") if values[name] != "1"]
    tagging = any(read(NETWORK / name / "bridge" / "vlan_filtering").strip() == "1" for name in found)
    if tagging and values["filter-vlan-tagged"] != "1":
        off.append("filter-vlan-tagged")
    if off:
        yield Finding("bridges", WARNING, f"what {some(found)} forwards is not seen: {', '.join(off)} is not 1",
                      "if it is to be filtered: modprobe br_netfilter; sysctl -w " +
                      " ".join(f"net.bridge.bridge-nf-{name}=1" for name in off))
    else:
        yield Finding("bridges", OK, f"the rules see what {some(found)} forwards")


def forwarding(config: Config) -> Iterator[Finding]:
    """Whether the box forwards what it should filter."""
    if "forward" not in config.ruleset.hooks:
        return
    keys = {"IPv4 forwarding": "net.ipv4.ip_forward", "IPv6 forwarding": "net.ipv6.conf.all.forwarding"}
    for name, key in keys.items():
        value = read(f"/proc/sys/{key.replace('.', '/')}").strip()
        if value not in ("", "0"):
            yield Finding(name, OK, f"{key} = {value}")
        else:
            yield Finding(name, WARNING, f"{key} = {value or 'not there'}: nothing to filter is forwarded",
                          f"sysctl -w {key}=1, and a file in /etc/sysctl.d")


def conntrack_table(config: Config) -> Iterator[Finding]:
    """Room in the connection table: where it is full, the kernel refuses new connections, filtered or not."""
    if config.ruleset.tracking == "stage1":
        yield Finding("flow marks", OK, "kept by the first stage (ruleset.kernel): no connection need be tracked")
        return
    most, now = (read(f"/proc/sys/net/netfilter/nf_conntrack_{what}").strip() for what in ("max", "count"))
    if not most or not now:
        yield Finding("conntrack", WARNING, "not loaded yet; the rules load it",
                      "modprobe nf_conntrack, if edgeblock ruleset apply fails")
        return
    full = int(now) > CONNTRACK_FULL * int(most)
    yield Finding("conntrack table", WARNING if full else OK, f"{now} of {most} connections",
                  f"sysctl -w net.netfilter.nf_conntrack_max={2 * int(most)}" if full else "")


def midstream(config: Config) -> Iterator[Finding]:
    """With all ports the direction of a connection counts, and one picked up midway may be reversed."""
    loose = read("/proc/sys/net/netfilter/nf_conntrack_tcp_loose").strip()
    if config.ruleset.tcp_ports == "all" and loose not in ("", "0"):
        yield Finding("conntrack pick-up", WARNING, "connections picked up midway from the server's side pass unseen",
                      "sysctl -w net.netfilter.nf_conntrack_tcp_loose=0, or list the ports")


def windows(config: Config) -> Iterator[Finding]:
    """Where conntrack looks at no window, what a stranger sends in a subscriber's name counts as the subscriber's."""
    liberal = read("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal").strip()
    if config.ruleset.tracking == "conntrack" and liberal not in ("", "0"):
        yield Finding("conntrack windows", WARNING, "who sends with a subscriber's address ends his connections",
                      "sysctl -w net.netfilter.nf_conntrack_tcp_be_liberal=0")


def offloading(config: Config) -> Iterator[Finding]:
    """Flowtables forward packets past our rules."""
    if not tools.find("nft") or not tools.capable(tools.CAP_NET_ADMIN):
        return
    found = list(bypass.flowtables(config))
    for one in found:
        yield Finding("flow offload", WARNING, f"{one.found}: offloaded flows pass by unseen", one.fix)
    if not found:
        yield Finding("flow offload", OK, "no flowtable takes packets past the rules")


def source_check(config: Config) -> Iterator[Finding]:
    """A client that may send with a server's address can forge the answer that settles its own flow."""
    if "forward" not in config.ruleset.hooks:
        return
    conf = Path("/proc/sys/net/ipv4/conf")
    every = read(conf / "all" / "rp_filter").strip()
    loose = sorted(one.name for one in conf.iterdir() if one.name not in ("all", "default", "lo", CLIENTS, SERVERS)
                   and max(every, read(one / "rp_filter").strip()) != "1") if conf.is_dir() else []
    if loose:
        yield Finding("source addresses", WARNING, f"not checked strictly on {some(loose)}",
                      "on the subscribers' interfaces: sysctl -w net.ipv4.conf.INTERFACE.rp_filter=1; "
                      "IPv6: nft rule 'iifname INTERFACE fib saddr . iif oif missing drop'")
    else:
        yield Finding("source addresses", OK, "IPv4 checked strictly (rp_filter)")


def capacity(config: Config) -> Iterator[Finding]:
    """Whether the settings fit the machine: processors, memory, open files."""
    first, last = queues(config)
    workers, processors = last - first + 1, len(os.sched_getaffinity(0))
    if workers > processors:
        yield Finding("workers", WARNING, f"{workers} on {processors} processor(s)", "set queue.workers = \"auto\"")
    else:
        yield Finding("workers", OK, f"{workers} on {processors} processor(s)")
    total = next((int(line.split()[1]) * 1024 for line in read("/proc/meminfo").splitlines()
                  if line.startswith("MemTotal:")), 0)
    most = workers * (config.limits.memory + config.queue.buffer + (BEGUN + TABLES) * config.limits.flows)
    if total and most > total * MEMORY_SHARE:
        yield Finding("memory", WARNING, f"connections may take {most >> 20} MB of {total >> 20} MB",
                      "lower limits.memory or queue.workers")
    else:
        yield Finding("memory", OK, f"connections may take {most >> 20} MB of {total >> 20} MB")
    files, wanted = resource.getrlimit(resource.RLIMIT_NOFILE)[0], FILES + 8 * workers
    if files != resource.RLIM_INFINITY and files < wanted:
        yield Finding("open files", WARNING, f"{files} allowed, {wanted} may be needed",
                      f"ulimit -n {wanted}, or the systemd unit, which asks for enough")
    else:
        yield Finding("open files", OK, f"{files} allowed")


def clock(config: Config) -> Iterator[Finding]:
    """Lists expire, signatures and logs tell times."""
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    if time.time() < BUILT:
        yield Finding("clock", WARNING, f"says {time.strftime('%Y-%m-%d')}: lists that expire would not",
                      "set it, then: timedatectl set-ntp true")
    elif state in (-1, TIME_ERROR):
        yield Finding("clock", WARNING, "not synchronised, or it cannot be told; the expiry of lists depends on it",
                      "timedatectl set-ntp true, or install chrony")
    else:
        yield Finding("clock", OK, "synchronised")


def key_file(config: Config) -> Iterator[Finding]:
    """Who has the key can find out which names are listed."""
    place = config.rules.key
    try:
        state = place.stat()
    except FileNotFoundError:
        yield Finding("key", OK, f"{place}: not there yet; made on first use")
        return
    except OSError as problem:
        yield Finding("key", WARNING, f"{place}: {problem.strerror}", "run edgeblock doctor as root")
        return
    if state.st_mode & 0o077:
        yield Finding("key", MISSING, f"{place}: others may read it (mode {state.st_mode & 0o777:04o})",
                      f"chmod 600 {place}")
    else:
        yield Finding("key", OK, f"{place}: its owner's alone")


def python(config: Config) -> Iterator[Finding]:
    """The modules that the daemon imports, and its compiled parts."""
    lacking = [package for module, package in MODULES.items() if not importable(module)]
    if lacking:
        yield Finding("Python modules", MISSING, f"cannot be imported: {', '.join(lacking)}",
                      f"pip install {' '.join(lacking)}")
    else:
        yield Finding("Python modules", OK, ", ".join(MODULES.values()))
    unbuilt = [name for name in COMPILED if not importable(f"edgeblock.{name}")]
    if unbuilt:
        yield Finding("compiled core", MISSING, f"cannot be imported: {', '.join(unbuilt)}", "make build")
    else:
        yield Finding("compiled core", OK, ", ".join(COMPILED))


def importable(module: str) -> bool:
    """Whether it can really be imported; a library that it links with may be missing."""
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def rules_directory(config: Config) -> Iterator[Finding]:
    """Whether the lists can be read."""
    place = config.rules.directory
    try:
        files = [one for one in place.iterdir() if one.is_file() and not one.name.startswith(".")]
        unreadable = [one.name for one in files if not os.access(one, os.R_OK)]
    except OSError as problem:
        yield Finding("rules directory", MISSING, f"{place}: {problem.strerror}",
                      "make it, or set rules.directory in the settings")
        return
    if unreadable:
        yield Finding("rules directory", MISSING, f"{place}: cannot read {', '.join(sorted(unreadable))}",
                      "chmod or chown them for the daemon's user")
        return
    if place.stat().st_mode & 0o002:
        yield Finding("rules directory", WARNING, f"{place}: everybody may put lists there", f"chmod o-w {place}")
    loose = sorted(one.name for one in files if one.stat().st_mode & 0o002)
    if loose:
        yield Finding("rules directory", WARNING, f"{place}: everybody may change {some(loose)}",
                      f"chmod o-w {place}/{loose[0]} ...")
    if not files:
        yield Finding("rules directory", WARNING, f"{place}: empty; nothing is blocked", "put a list there")
    else:
        yield Finding("rules directory", OK, f"{place}: {len(files)} file(s)")


def shared_networks(config: Config) -> Iterator[Finding]:
    """Whether what is known of networks that many sites share can be read, and how old it is."""
    name = "shared networks"
    try:
        shared = in_force(config.rules.shared)
    except ListError as problem:
        yield Finding(name, MISSING, str(problem), "fix that file, or take shared out of [rules]")
        return
    if old := old_data(shared, time.time()):
        yield Finding(name, WARNING, *old.split("; ", 1))
    else:
        days = [section.date for section in shared.sections]
        yield Finding(name, OK, f"of {len(days)} owners, as of {min(days)} to {max(days)}")


def some(names: list[str]) -> str:
    """The first few of them."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def read(path: str | Path) -> str:
    """A file of the kernel's, "" where it is not there or not for us."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
