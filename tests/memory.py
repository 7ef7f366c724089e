"""What is in the memory of a process, and how much that is. In: its id, and bytes to look for. Out: where they are.
Needs root for a process that hides its memory."""

import os
from collections.abc import Iterator
from pathlib import Path

PIECE = 1 << 24


def memory_of(pid: int) -> Iterator[tuple[int, bytes]]:
    """Every readable page of a process, in pieces that overlap, each with its address."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            place, rights = line.split()[:2]
            if "r" not in rights or "[v" in line:
                continue
            at, end = (int(number, 16) for number in place.split("-"))
            while at < end:
                memory.seek(at)
                try:
                    piece = memory.read(min(end - at, PIECE))
                except OSError:
                    break
                if not piece:
                    break
                yield at, piece
                at += max(len(piece) - 64, 1) if at + len(piece) < end else len(piece)


def places_of(pid: int, needle: bytes) -> set[int]:
    """The addresses at which these bytes, 64 at most, are."""
    found = set()
    for at, piece in memory_of(pid):
        place = piece.find(needle)
        while place >= 0:
            found.add(at + place)
            place = piece.find(needle, place + 1)
    return found


def mapping_of(pid: int, address: int) -> str:
    """The line of proc_pid_maps(5) that the address is in."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        first, end = (int(number, 16) for number in line.split()[0].split("-"))
        if first <= address < end:
            return line
    return "unmapped"


def flags_of(pid: int, address: int) -> set[str]:
    """What the kernel has been told of the page at this address (VmFlags in proc_pid_smaps(5))."""
    inside = False
    for line in told(f"/proc/{pid}/smaps").splitlines():
        word = line.split()[0]
        if "-" in word and ":" not in word:
            first, end = (int(number, 16) for number in word.split("-"))
            inside = first <= address < end
        elif inside and word == "VmFlags:":
            return set(line.split()[1:])
    return set()


def told(path: str) -> str:
    """What a file of /proc says; nothing where the process has ended meanwhile, as programs do that a daemon runs."""
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def family(pid: int) -> list[int]:
    """A process and all that it has started, and so on."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return []
    children = [child for task in tasks for child in told(f"/proc/{pid}/task/{task}/children").split()]
    return [pid, *(one for child in children for one in family(int(child)))]


def proportional(pid: int) -> int:
    """Bytes of memory of a process, what it shares with others shared out among them (PSS); without what it has
    mapped of the kernel's BPF maps, which are there whether somebody maps them or not."""
    size, counted = 0, True
    for line in told(f"/proc/{pid}/smaps").splitlines():
        words = line.split()
        if "-" in words[0]:
            counted = "bpf" not in words[-1]
        elif words[0] == "Pss:" and counted:
            size += int(words[1]) << 10
    return size


def processor_time(pid: int) -> float:
    """Seconds that a process has used, and those that it has started and seen end."""
    words = told(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return sum(map(int, words[11:15])) / os.sysconf("SC_CLK_TCK")
