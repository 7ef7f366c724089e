"""What a daemon in a lab takes and leaves: descriptors, memory, processes, files, what is in the kernel.

In: a lab, its manager, the daemon's process and folder. Out: figures by name, and which have grown. Never: a wait.
"""

import ctypes
import os
import re
import struct
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from manager import Manager

from edgeblock.lab import NETNS
from edgeblock.netfilter.stage1 import bpf

PROGRAMS, MAPS = 11, 12                 # BPF_PROG_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID
MEMORY_GROWS = 1.05, 4_000              # by this factor, and so many kB more, memory may differ without a leak
LABS = re.compile("edgeblock-(lab|container)-")         # of others


def take(manager: Manager, home: Path) -> dict[str, int]:
    """Everything that is counted, by name. To be asked of a daemon that is at rest."""
    main = manager.process.pid
    family = [main, *children_of(main)]
    found: dict[str, int] = {"processes": len(family), "kept_by_manager": len(manager.kept),
                             "descriptors": len(descriptors(main))}
    files = [Path(f"/proc/{process}") for process in family]
    found["descriptors_all"] = sum(len(descriptors(process)) for process in family)
    found["memfds"] = len({(os.stat(at).st_dev, os.stat(at).st_ino) for process in family
                           for at, what in descriptors(process).items() if what.startswith("/memfd:")})
    found["mapped_snapshots"] = sum((one / "maps").read_text().count("memfd:edgeblock-rules") for one in files)
    found["memory_supervisor_kB"] = memory(main)
    workers = [process for process in family[1:] if "daemon.worker" in words_of(process)]
    found["memory_workers_kB"] = sum(memory(process) for process in workers)
    found["zombies"] = sum(state_of(process) == "Z" for process in family)
    inside = ["nsenter", "--mount", f"--target={manager.keeper.pid}", "find", "/sys/fs/bpf", "-mindepth", "1"]
    found["pins"] = len(manager.lab.run_in("box", inside).stdout.splitlines())
    if is_alone(manager):               # they are the whole machine's
        found["bpf_programs"], found["bpf_maps"] = objects(PROGRAMS), objects(MAPS)
    found["interfaces"] = len(manager.lab.run_in("box", ["ip", "-o", "link"]).stdout.splitlines())
    found["addresses"] = len(manager.lab.run_in("box", ["ip", "-o", "address"]).stdout.splitlines())
    found["routes"] = sum(len(manager.lab.run_in("box", ["ip", family, "route", "show", "table", "all"])
                              .stdout.splitlines()) for family in ("-4", "-6"))
    found["rules"] = sum(len(rules(manager, command)) for command in (
        ["iptables-save"], ["ip6tables-save"], ["nft", "list", "ruleset"]))
    found["tc_filters"] = len(manager.lab.run_in("box", ["tc", "qdisc", "show"]).stdout.splitlines())
    found["packet_sockets"] = len(manager.lab.run_in("box", ["cat", "/proc/net/packet"]).stdout.splitlines())
    found["netlink_sockets"] = len(manager.lab.run_in("box", ["cat", "/proc/net/netlink"]).stdout.splitlines())
    found["queues"] = len(manager.lab.run_in("box", ["cat", "/proc/net/netfilter/nfnetlink_queue"])
                          .stdout.splitlines())
    found["files"] = sum(path.is_file() for path in home.rglob("*"))
    found["shared_memory_files"] = len(os.listdir("/dev/shm"))
    found["temporary_files"] = sum(path.name.startswith("edgeblock") and not LABS.match(path.name)
                                   for path in Path("/tmp").iterdir())
    return found


def left(manager: Manager) -> list[str]:
    """What is there of it when the daemon has ended by itself."""
    lines = manager.lab.run_in("box", ["nsenter", "--mount", f"--target={manager.keeper.pid}", "find", "/sys/fs/bpf",
                                       "-mindepth", "1", "-name", "*edgeblock*"]).stdout.splitlines()
    for command in (["iptables-save"], ["ip6tables-save"], ["nft", "list", "ruleset"]):
        lines += [line for line in rules(manager, command) if "edgeblock" in line.lower()]
    lines += [line for line in manager.lab.run_in("box", ["ip", "-brief", "link"]).stdout.splitlines()
              if line.startswith("edgeblock-")]
    lines += manager.lab.run_in("box", ["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout.splitlines()
    return lines


def growth(before: dict[str, int], after: dict[str, int]) -> dict[str, list[int]]:
    """What has grown, as it was and as it is."""
    def limit(name: str) -> float:
        return before[name] * MEMORY_GROWS[0] + MEMORY_GROWS[1] if name.startswith("memory") else before[name]

    return {name: [before[name], after[name]] for name in before if name in after and after[name] > limit(name)}


def is_alone(manager: Manager) -> bool:
    """Whether there is no other lab."""
    own = manager.lab.namespace("")
    return all(path.name.startswith(own) for path in NETNS.iterdir() if path.name.startswith("edgeblock-lab-"))


def kinds(process: int) -> Counter[str]:
    """The descriptors of a process by what they are, to say of what there are more."""
    return Counter(re.sub(r"\[\d+\]|\d+", "N", what) for what in descriptors(process).values())


def descriptors(process: int) -> dict[str, str]:
    found = {}
    with suppress(OSError):
        for name in os.listdir(f"/proc/{process}/fd"):
            with suppress(OSError):
                found[f"/proc/{process}/fd/{name}"] = os.readlink(f"/proc/{process}/fd/{name}")
    return found


def children_of(process: int) -> list[int]:
    with suppress(OSError):
        return [int(one) for task in os.listdir(f"/proc/{process}/task")
                for one in Path(f"/proc/{process}/task/{task}/children").read_text().split()]
    return []


def words_of(process: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    return ""


def state_of(process: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def memory(process: int) -> int:
    """Kilobytes that it has written and shares with nobody."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_Dirty:"):
                return int(line.split()[1])
    return 0


def processor_seconds(processes: list[int]) -> float:
    """Processor time of these, in user space and in the kernel."""
    total = 0
    for process in processes:
        with suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def rules(manager: Manager, command: list[str]) -> list[str]:
    said: Any = manager.lab.run_in("box", command, check=False).stdout
    return [line for line in said.splitlines() if line and not line.startswith("#")]


def objects(which: int) -> int:
    """Programs or maps that the kernel has, of whoever they are."""
    count, number = 0, 0
    while True:
        asked = ctypes.create_string_buffer(struct.pack("=III", number, 0, 0), 12)
        if bpf.libc.syscall(bpf.call_number(), which, asked, 12):
            return count
        number = struct.unpack_from("=I", asked, 4)[0]
        count += 1
