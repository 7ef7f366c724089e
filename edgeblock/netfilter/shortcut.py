"""The shortcut at the interfaces: packets that need no look, from one to the other past the kernel's rules.

In: names of interfaces, the pinned program (netfilter/stage1/carry.h). Out: a filter where packets enter
each interface, asked by traffic control. Filters of others stay, and are asked for whatever is left alone here.
"""

import fcntl
import json
import socket
import struct
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgeblock.errors import SystemProblem
from edgeblock.netfilter import links, tools

# Of the filter: after everybody's who names none, so that what they want to see they see.
PRIORITY, HANDLE = 60176, "0x1"
MADE = "clsact"              # what holds filters, where nothing does yet
BY_OURS = "edgeblock-"       # how the pinned program's name begins
HARDWARE_ADDRESS, ETHERNET = 0x8927, 1     # SIOCGIFHWADDR (netdevice(7)), ARPHRD_ETHER
TRACKED = Path("/proc/sys/net/netfilter/nf_conntrack_count")


def tracked() -> int:
    """The connections that conntrack has in this network namespace; it does not see what is carried."""
    try:
        return int(TRACKED.read_text())
    except OSError:         # there is no conntrack
        return 0


def apply(devices: Collection[str], program: Path) -> None:
    """The filter at those of these interfaces that are there, and at no other.

    SystemProblem, with everything taken away, if one refuses.
    """
    try:
        check(devices)
        for device in present(devices):
            if device not in with_filters():
                tools.run(["tc", "qdisc", "add", "dev", device, MADE])
            tools.run(["tc", *command(device, program)])
    except SystemProblem as problem:
        remove()
        raise SystemProblem(f"ruleset.kernel = \"carry\": {problem}") from None
    remove(devices)


def lost(there: Mapping[str, int], program: int) -> dict[str, bool]:
    """The interfaces, given with their index, that do not have the filter with this program, the kernel's number of
    it; true where another program has its place."""
    found = {device: links.filter_programs(index, PRIORITY) for device, index in there.items()}
    return {device: bool(programs) for device, programs in found.items() if programs != [program]}


def command(device: str, program: Path) -> list[str]:
    """What puts the filter there, in place of one of ours that may be there."""
    return ["filter", "replace", "dev", device, "ingress", "protocol", "all", "prio", str(PRIORITY), "handle", HANDLE,
            "bpf", "direct-action", "object-pinned", str(program)]


def remove(but: Collection[str] = ()) -> None:
    """Take the filter away from all interfaces but these, and what was made for it and now holds nothing."""
    if tools.find("tc") is None:
        return
    for device, kind in with_filters().items():
        if device in but or not any(is_ours(one) for one in filters(device, "ingress")):
            continue
        tools.run(["tc", "filter", "delete", "dev", device, "ingress", "prio", str(PRIORITY)])
        if kind == MADE and not filters(device, "ingress") and not filters(device, "egress"):
            tools.run(["tc", "qdisc", "delete", "dev", device, MADE])


def with_filters() -> dict[str, str]:
    """The interfaces that can hold filters where packets enter, and by what; an operator's may be the older kind."""
    return {one["dev"]: one["kind"] for one in read("qdisc", "show") if one.get("kind") in (MADE, "ingress")}


def filters(device: str, way: str) -> list[dict[str, Any]]:
    return [one for one in read("filter", "show", "dev", device, way) if "options" in one]


def is_ours(one: dict[str, Any]) -> bool:
    return one.get("pref") == PRIORITY and str(one["options"].get("bpf_name", "")).startswith(BY_OURS)


def read(*words: str) -> list[dict[str, Any]]:
    """What tc says, as data."""
    try:
        found: list[dict[str, Any]] = json.loads(tools.run(["tc", "-json", *words]) or "[]")
    except ValueError:
        raise SystemProblem("tc: its JSON cannot be read; install a newer iproute2") from None
    return found


def present(devices: Collection[str]) -> dict[str, int]:
    """The index of each that is there: another one when it has gone and come back, and then it has no filter."""
    there = {}
    for device in devices:
        with suppress(OSError):
            there[device] = socket.if_nametoindex(device)
    return there


def check(devices: Collection[str]) -> None:
    """SystemProblem if packets cannot be carried between these interfaces, or must not be."""
    need_no_ipsec()
    for device in present(devices):
        need_ethernet(device)


def need_no_ipsec() -> None:
    """SystemProblem where the kernel encrypts, or asks of packets to be encrypted: here nobody asks its policies."""
    said = tools.run(["ip", "xfrm", "policy", "list"])
    if any(f"dir {way} " in said for way in ("out", "fwd")):
        raise SystemProblem("this box has IPsec policies, past which packets would go; "
                            "use ruleset.kernel = \"marks\"")


def need_ethernet(device: str) -> None:
    """SystemProblem unless its frames begin with Ethernet's header."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            told = fcntl.ioctl(any_socket, HARDWARE_ADDRESS, struct.pack("16s16x", device.encode()))
        except OSError as problem:
            raise SystemProblem(f"interface {device}: {problem.strerror}") from None
    if struct.unpack_from("=H", told, 16)[0] != ETHERNET:
        raise SystemProblem(f"interface {device}: is no Ethernet; use ruleset.kernel = \"marks\"")
