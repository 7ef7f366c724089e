"""Whether the settings can be made kernel rules, asked before there are any.

In: the settings. Out: a ConfigError with a line that names the key for each mistake, or nothing; the queues that the
settings name. Never here: what only this machine lacks (doctor), or a rule (policy.py).
"""

import os
import re
from collections.abc import Iterator

from edgeblock.config import Config, Ruleset
from edgeblock.errors import ConfigError
from edgeblock.netfilter.marks import marks

# What the kernel takes for an interface's name (15 bytes), with "*" at the end for any that begin so.
INTERFACE = re.compile(r"(?=.{1,15}$)[A-Za-z0-9_.:@-]+\*?")

# A packet may be compared with every pair of interfaces.
PAIRS_MAX = 1024

# Where the server's answers to packets of a hook come by.
ANSWERS = {"forward": "forward", "input": "output", "output": "input"}


def check(config: Config) -> None:
    """ConfigError, naming each key, for settings that no kernel rule can express."""
    if found := list(mistakes(config)):
        raise ConfigError(*found)


def mistakes(config: Config) -> Iterator[str]:
    ruleset, queue = config.ruleset, config.queue
    try:
        yield from mistakes_of_marks(ruleset)
    except ConfigError as problem:
        yield str(problem)
    if not ruleset.hooks or not set(ruleset.hooks) <= set(ANSWERS):
        yield (f"ruleset.hooks: {', '.join(ruleset.hooks) or 'none'}: use forward, input and output, "
               f"one or several")
    for key, ports in (("tcp_ports", ruleset.tcp_ports), ("udp_ports", ruleset.udp_ports)):
        if ports != "all" and (isinstance(ports, str) or not all(0 < port < 65536 for port in ports)):
            yield f"ruleset.{key}: {ports!r}: use \"all\" or a list of ports from 1 to 65535"
    if not ruleset.tcp_ports and not ruleset.udp_ports:
        yield "ruleset.tcp_ports and ruleset.udp_ports are both empty: nothing would be queued"
    for key in ("clients", "servers"):
        for name in getattr(ruleset, key):
            if not INTERFACE.fullmatch(name):
                yield (f"ruleset.{key}: {name!r}: no name of an interface, such as \"eth1\", "
                       f"\"eth1.100\" or \"ppp*\"")
    pairs = len(ruleset.clients) * len(ruleset.servers)
    if pairs > PAIRS_MAX:
        yield (f"ruleset.clients and ruleset.servers: {pairs} pairs of interfaces, at most {PAIRS_MAX}; "
               f"name many at once, such as \"eth1.*\"")
    for look in (check_tracking, check_shortcut):
        try:
            look(config)
        except ConfigError as problem:
            yield str(problem)
    if ruleset.absent not in ("open", "closed"):
        yield f"ruleset.absent: {ruleset.absent!r}: use \"open\" or \"closed\""
    first, last = queues(config)
    if last < first or first < 0 or last > 65535:
        yield (f"queue.number {queue.number} with queue.workers {queue.workers}: "
               f"queues are numbered from 0 to 65535")


def mistakes_of_marks(ruleset: Ruleset) -> Iterator[str]:
    bits = marks(ruleset.mark_mask)
    if not 0 < ruleset.inject_mark <= 0xFFFFFFFF or ruleset.inject_mark & bits.mask:
        yield (f"ruleset.inject_mark: {ruleset.inject_mark:#x} must be bits of 32 outside "
               f"ruleset.mark_mask ({bits.mask:#x}), such as 0x40000000")
    if not 0 < ruleset.proof_mark <= 0xFFFFFFFF or ruleset.proof_mark & (bits.mask | ruleset.inject_mark):
        yield (f"ruleset.proof_mark: {ruleset.proof_mark:#x} must be bits of 32 outside ruleset.mark_mask "
               f"({bits.mask:#x}) and ruleset.inject_mark ({ruleset.inject_mark:#x}), such as 0x80000000")


def check_tracking(config: Config) -> None:
    """ConfigError, naming the key, for settings that cannot be without conntrack."""
    ruleset = config.ruleset
    if ruleset.tracking == "conntrack":
        return
    wanted = ""
    if ruleset.backend == "nft":
        wanted = "iptables, as nftables cannot ask the first stage; use ruleset.backend = \"iptables\" or \"auto\""
    elif not ruleset.install:
        wanted = "the daemon to apply the kernel rules, as its programs are in them; use ruleset.install = true"
    for key, ports in (("tcp_ports", ruleset.tcp_ports), ("udp_ports", ruleset.udp_ports)):
        if ports == "all":
            wanted = (f"a list in ruleset.{key}: with \"all\" a connection's direction decides, "
                      f"which only conntrack knows")
    if wanted:
        raise ConfigError(f"ruleset.kernel: \"{ruleset.kernel}\" needs {wanted}")


def check_shortcut(config: Config) -> None:
    """ConfigError, naming the key, for settings with which packets cannot be carried past the rules."""
    ruleset = config.ruleset
    wanted = ""
    if not ruleset.shortcut:
        return
    if "forward" not in ruleset.hooks:
        wanted = '"forward" in ruleset.hooks: nothing else goes from one interface to another'
    elif not (ruleset.clients and ruleset.servers) or "*" in "".join((*ruleset.clients, *ruleset.servers)):
        wanted = "the interfaces of both sides in ruleset.clients and ruleset.servers, each by its whole name"
    elif both := set(ruleset.clients) & set(ruleset.servers):
        wanted = (f"every interface on one side only: {', '.join(sorted(both))} is in ruleset.clients and in "
                  f"ruleset.servers")
    if wanted:
        raise ConfigError(f"ruleset.kernel: \"carry\" needs {wanted}")


def are_apart(ruleset: Ruleset) -> bool:
    """Whether the settings name the interfaces of both sides, and none can be on both."""
    return bool(ruleset.clients and ruleset.servers) and not any(
        one == other or one[-1] == "*" and other.rstrip("*").startswith(one[:-1])
        or other[-1] == "*" and one.rstrip("*").startswith(other[:-1])
        for one in ruleset.clients for other in ruleset.servers)


def queues(config: Config) -> tuple[int, int]:
    """The first and the last queue number, one for each worker."""
    workers = config.queue.workers
    count = len(os.sched_getaffinity(0)) if isinstance(workers, str) else workers
    return config.queue.number, config.queue.number + count - 1
