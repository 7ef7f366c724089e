"""Runs the programs that change kernel rules. In: a command and its input. Out: its output, or one SystemProblem.

Nothing here knows what the rules say.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence

from edgeblock.errors import SystemProblem

SECONDS = 30.0       # a transaction takes some milliseconds; another one that holds the lock may take seconds
CAP_NET_ADMIN = 12

PACKAGES = {"nft": "nftables", "iptables-restore": "iptables", "iptables-save": "iptables", "iptables": "iptables",
            "ip6tables-restore": "iptables", "ip6tables-save": "iptables", "ip6tables": "iptables",
            "tc": "iproute2", "ip": "iproute2"}

# Programs live in sbin, which a service's or a user's PATH may lack.
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def find(program: str) -> str | None:
    """The path of a program, None where it is not installed."""
    return shutil.which(program, path=PATH)


def capable(bit: int) -> bool:
    """Whether this process has the capability of that number (linux/capability.h) in effect."""
    with open("/proc/self/status", encoding="ascii") as status:
        effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    return bool(effective >> bit & 1)


def need_permission() -> None:
    """SystemProblem unless this process may change kernel rules."""
    if not capable(CAP_NET_ADMIN):
        raise SystemProblem("kernel rules: not permitted; run this as root or with CAP_NET_ADMIN")


def run(command: Sequence[str], text: str = "") -> str:
    """Standard output of a command that got `text` on standard input; SystemProblem, one line, if it fails."""
    program = find(command[0])
    if program is None:
        package = PACKAGES.get(command[0], command[0])
        raise SystemProblem(f"{command[0]}: not installed; install the package {package}")
    try:
        done = subprocess.run([program, *command[1:]], input=text, capture_output=True, text=True, timeout=SECONDS,
                              check=False)
    except OSError as problem:          # no process, memory or descriptor to be had
        raise SystemProblem(f"{command[0]}: cannot be started: {problem.strerror}") from None
    except subprocess.TimeoutExpired:
        raise SystemProblem(f"{command[0]}: no answer in {SECONDS:.0f} s; "
                            f"another program may hold the lock: see fuser /run/xtables.lock") from None
    if done.returncode:
        raise SystemProblem(f"{command[0]}: {explain(done.stderr, done.returncode)}")
    return done.stdout


def explain(complaint: str, status: int) -> str:
    """One line, with the way out, of what nft, iptables or tc wrote to standard error."""
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    if re.search(r"Operation not permitted|Permission denied|must be root", complaint):
        return "not permitted; run this as root or with CAP_NET_ADMIN"
    extension = re.search(r"Extension (\S+) revision \d+ not supported", complaint) or \
        re.search(r"Couldn't load (?:match|target) `(\S+)'", complaint)
    if extension:
        return f"this kernel lacks {extension[1]}; load it (modprobe xt_{extension[1]}) or boot a kernel that has it"
    if "queue" in complaint and "No such file or directory" in complaint:
        return "this kernel lacks the nft queue statement; load it (modprobe nft_queue) or use backend = \"iptables\""
    if re.search("TC classifier not found|qdisc kind is unknown", complaint):
        return "this kernel lacks programs at interfaces; load them (modprobe sch_ingress cls_bpf)"
    return lines[0] if lines else f"failed with status {status}"
