"""The door to the kernel rules: show, apply, remove, count. In: settings. Out: text, counters, or one SystemProblem.

Rules are always replaced whole and at once; rules of others are never changed.
"""

from pathlib import Path
from typing import NamedTuple

from edgeblock.config import Config
from edgeblock.errors import ConfigError, SystemProblem
from edgeblock.netfilter import addresses, iptables, nft, pair, shortcut, tools
from edgeblock.netfilter.checks import check
from edgeblock.netfilter.marks import SHORTCUT
from edgeblock.netfilter.pins import pin_path, program_path
from edgeblock.netfilter.standing import Standing, StandingText

BACKENDS = {"nft": nft, "iptables": iptables}


class Counter(NamedTuple):
    """What one rule has seen since the rules were applied."""

    packets: int
    bytes: int


def detect_backend() -> str:
    """"nft" where this kernel takes nftables' queue statement, else "iptables". Leaves no trace.

    SystemProblem without permission to ask, or where neither program is installed.
    """
    tools.need_permission()
    if tools.find("nft"):
        try:
            nft.probe()
            return "nft"
        except SystemProblem as problem:
            reason = str(problem)
    else:
        reason = "nft: not installed"
    if has_iptables():
        return "iptables"
    raise SystemProblem(f"no back end for kernel rules ({reason}; iptables: not installed); "
                        f"install the package iptables")


def has_iptables() -> bool:
    return bool(tools.find("iptables-restore") and tools.find("ip6tables-restore"))


def choose(config: Config, stage1: bool = False) -> str:
    """The back end of these settings, "nft" or "iptables", found out where they say "auto".

    The first stage is a program that iptables can ask and nftables cannot.
    """
    backend = config.ruleset.backend
    if backend == "auto":
        return "iptables" if stage1 and has_iptables() else detect_backend()
    if backend not in BACKENDS:
        raise ConfigError(f"ruleset.backend: {backend!r}: use \"auto\", \"nft\" or \"iptables\"")
    return backend


def text(config: Config) -> str:
    """The rules as the back end's own program reads them. Needs no permission unless the back end is "auto"."""
    if config.ruleset.backend == "auto" and not tools.capable(tools.CAP_NET_ADMIN):
        raise SystemProblem("ruleset.backend: \"auto\" asks the kernel, which needs root; "
                            "choose \"nft\" or \"iptables\"")
    check(config)
    if config.ruleset.tracking == "stage1":
        pinned = pin_path(config.queue.number)
        return iptables.text(config, pinned) + "".join(
            f"# tc {' '.join(shortcut.command(device, program_path(pinned, SHORTCUT)))}\n"
            for device in shortcut_devices(config))
    return BACKENDS[choose(config)].text(config)


def apply(config: Config, stage1: Path | None = None) -> str:
    """Put the rules in force, in place of whatever rules of ours there were; returns the back end's name.

    `stage1` is the pinned program of the first stage, which only the iptables back end can ask.
    The other back end's rules go after the new ones are in force, so no packet passes between the two.
    """
    tools.need_permission()
    backend = choose(config, stage1 is not None)
    if config.ruleset.tracking == "stage1" and backend != "iptables":
        raise SystemProblem(f"ruleset.kernel: \"{config.ruleset.kernel}\" needs iptables, which is not installed; "
                            "install the package iptables")
    if backend == "iptables":
        iptables.apply(config, stage1)
    else:
        nft.apply(config)
    for name, other in BACKENDS.items():
        if name != backend:
            other.remove()
    if config.ruleset.shortcut and stage1 is not None:
        shortcut.apply(shortcut_devices(config), program_path(stage1, SHORTCUT))
    else:
        shortcut.remove()
    return backend


def restore(config: Config, backend: str, stage1: Path | None = None) -> None:
    """Put the rules back after somebody has taken them away, as far as the kernel lets us: what can stand stands."""
    if backend == "iptables":
        iptables.restore(config, stage1)
    else:
        nft.apply(config)


def standing(config: Config, backend: str, stage1: Path | None = None) -> Standing | StandingText:
    """What has to stand in the kernel once the rules have been applied, to look at again and again."""
    return iptables.standing(config, stage1) if backend == "iptables" else nft.standing(config)


def shortcut_devices(config: Config) -> tuple[str, ...]:
    """The interfaces between which the shortcut carries packets."""
    ruleset = config.ruleset
    return tuple(dict.fromkeys((*ruleset.clients, *ruleset.servers))) if ruleset.shortcut else ()


def remove() -> None:
    """Take away all rules of ours, of both back ends, whole or half, and interfaces that a daemon has left."""
    tools.need_permission()
    shortcut.remove()
    pair.remove()
    addresses.remove()
    for backend in BACKENDS.values():
        backend.remove()


def in_force() -> tuple[str, ...]:
    """The back ends that hold rules of ours now."""
    tools.need_permission()
    return tuple(name for name, backend in BACKENDS.items() if backend.present())


def counters(backend: str | None = None) -> dict[str, Counter]:
    """Each rule's name and what it has seen, IPv4 and IPv6 together; empty where no rules are in force.

    `backend` is the one that holds them, where that is known.
    """
    total: dict[str, Counter] = {}
    for name in (backend,) if backend else in_force():
        for rule, packets, size in BACKENDS[name].counters():
            seen = total.get(rule, Counter(0, 0))
            total[rule] = Counter(seen.packets + packets, seen.bytes + size)
    return total
