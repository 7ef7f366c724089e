"""The first stage in the kernel: the program that lets most hellos and requests by without a look from user space.

    program.c   the program, and the argument why it opens no door; its parts are the headers here
    marks.h     the programs that keep flow marks where conntrack is not to
    carry.h     the program that carries packets past the stack
    bpf         bpf(2), and object files
    structures  what programs and user space share, one header for both
    sieve       the filter of a snapshot's fingerprints, compiled
    here        the door: load, give it rules, pin, count

In: limits, and snapshots. Out: pinned programs for the kernel rules, and the maps in which user space finds what the
first has let by, and sets flow marks. A kernel that refuses is a SystemProblem of one line.
"""

import errno
import mmap
import os
import string
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Self

from edgeblock.blocklist.keys import KEY_SIZE, Key
from edgeblock.blocklist.parts import Compiled
from edgeblock.errors import SystemProblem
from edgeblock.netfilter import marks as flow_marks
from edgeblock.netfilter.pins import program_path
from edgeblock.netfilter.stage1 import bpf
from edgeblock.netfilter.stage1.sieve import BLOCK, PREFIXES, PRINTS_A_BLOCK, blocks_for, fill, header, widen
from edgeblock.netfilter.stage1.structures import LAYOUT

OBJECT = Path(__file__).with_name("program.o")
PLAIN = string.ascii_letters + string.digits + "-_."     # of names that the kernel judges

# maps.h: enum outcome.
OUTCOMES = ("passed_syn", "passed_piece", "passed_hello", "passed_request", "address", "name", "odd_name",
            "no_name", "ech", "piece", "other", "later", "watched", "unknown", "odd", "no_filter", "sample",
            "carried")

HELLOS = 32_768         # ClientHellos that are remembered, of all CPUs together: 73 MB
FILTER = bpf.Spec(bpf.ARRAY, 4, BLOCK, 0, bpf.MMAPABLE | bpf.INNER_MAP)
IN_FORCE, COMING = 0, 1
HEAD = BLOCK * (1 + PREFIXES)           # bytes of a filter before its blocks
ROOM_SHARE = 4          # a filter takes so much of what it was made for on top, before it is made anew


class Stage:
    """The program in the kernel, with no rules yet: until `offer` it queues everything.

    Args:
        flows: flows remembered, and as many again that are user space's.
        idle: seconds after which they are forgotten.
        held: the same of those that are user space's.
        ech: policies.ech; unless "accept", every hello with ECH is queued.
        marks: flows whose mark is remembered here; 0: conntrack has them.
        kept: where the map of marks is pinned, so that the next daemon finds them; taken on from there if it fits.
        sample: the greatest number of a connection that is queued to be learnt from, of 32 bits (core/sketch.pyx);
            None: none is.
        shortcut: whether packets are to be carried past the stack; that needs marks.
        apart: whether the interfaces of clients are certainly no servers': what comes by them is then no server's.

    Raises:
        SystemProblem: it cannot be loaded here, and why.
    """

    def __init__(self, flows: int, idle: float, ech: str = "accept", hellos: int = HELLOS, marks: int = 0,
                 kept: Path | None = None, shortcut: bool = False, held: float = 0.0,
                 sample: int | None = None, apart: bool = False) -> None:
        self.maps: dict[str, int] = {}
        self.program = -1
        self.asking: dict[str, int] = {}       # the programs for flow marks
        self.counted: dict[str, int] = {}
        self.note = ""                         # a line for the log
        self.pinned: Path | None = None
        self.pins: list[Path] = []
        self.kept = kept
        self.coming = -1
        self.newest, self.size = -1, 0         # the filter offered last, and its bytes
        self.room = 0                          # how many fingerprints more it takes
        self.secret = int.from_bytes(os.urandom(8))     # of the sample, and of the places of pieces
        self.sample = sample
        self.until = 0                         # nanoseconds of the monotonic clock; see `hold`
        self.tracked, self.apart = False, apart
        try:
            self.cpus = possible_cpus()
            self.places = max(hellos, 2 * self.cpus)
            self._load(flows, idle, max(idle, held), ech, marks, shortcut)
        except OSError as problem:
            self.close()
            raise SystemProblem(f"first stage: {explain(problem)}") from None
        except SystemProblem as problem:
            self.close()
            raise SystemProblem(f"first stage: {problem}") from None

    def _load(self, flows: int, idle: float, held: float, ech: str, marks: int, shortcut: bool) -> None:
        try:
            data = OBJECT.read_bytes()
        except FileNotFoundError:
            raise SystemProblem("was not compiled with this edgeblock; install clang and build it again") from None
        program = bpf.read_object(data, "requests" if marks else "socket")
        if program.layout != (*LAYOUT, len(OUTCOMES)):
            raise SystemProblem(f"{OBJECT} is of another edgeblock: its structures differ from those compiled into "
                                f"this one; build both again (make build)")
        asking = {name: bpf.read_object(data, name) for name in flow_marks.PROGRAMS if marks}
        if shortcut:
            asking[flow_marks.SHORTCUT] = bpf.read_object(data, flow_marks.SHORTCUT)
        used = {name for one in (program, *asking.values()) for _, name in one.uses}
        sizes = {"flows": flows, "engine": flows, "hellos": self.places, "marks": marks,
                 "parts": (self.places + 3) // 4}
        for name, spec in program.maps.items():
            if name not in used:
                continue
            if name == "marks" and self.kept is not None:
                self.maps[name], self.note = marks_map(spec._replace(entries=marks), self.kept)
                continue
            inner = bpf.create_map(FILTER._replace(entries=1), "inner") if spec.kind == bpf.ARRAY_OF_MAPS else 0
            try:
                self.maps[name] = bpf.create_map(spec._replace(entries=sizes.get(name, spec.entries)), name, inner)
            finally:
                if inner:
                    os.close(inner)
        zero = bytes(4)
        self.settings = int(idle * 1e9), int(held * 1e9), self.places * 3 // 4 // self.cpus, ech != "accept"
        self._set()
        bpf.update(self.maps["classes"], zero, bytes(
            ord(chr(byte).lower()) if chr(byte) in PLAIN else 0 for byte in range(256)))
        try:
            self.program = bpf.load(bpf.bind(program, self.maps), "edgeblock")
        except SystemProblem as problem:
            if not marks:
                raise
            # An older kernel that takes the smaller program goes without the rest.
            self.program = bpf.load(bpf.bind(bpf.read_object(data, "socket"), self.maps), "edgeblock")
            self.note = "; ".join(filter(None, (self.note, f"requests of HTTP are all queued: {problem}")))
        for name, one in asking.items():
            kind = bpf.TRAFFIC_CONTROL if name == flow_marks.SHORTCUT else bpf.SOCKET_FILTER
            self.asking[name] = bpf.load(bpf.bind(one, self.maps), name, kind)

    # ---- rules

    def offer(self, parts: Compiled, key: Key, base: Compiled | None = None) -> None:
        """From now on no name passes that these rules may list, nor one that those in force may list.

        Call this before the engines get the rules, and `settle` when all have them. `base` is what they lie over.
        """
        tables = [parts.rows] if base is None else [base.rows, parts.rows]
        blocks = sum(map(blocks_for, tables))
        head = header(bytes(KEY_SIZE), parts.labels, blocks, parts.ipv4_lengths, parts.ipv6_lengths)
        filter_map = bpf.create_map(FILTER._replace(entries=len(head) // BLOCK + blocks), "filter")
        try:
            size = len(head) + blocks * BLOCK
            pages = (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE
            with (mmap.mmap(filter_map, pages) as memory, memoryview(memory) as view, view[:size] as used,
                  used[len(head):].cast("Q") as words):
                used[:len(head)] = head
                used[:KEY_SIZE] = key       # from where it is held to where the kernel reads it
                for rows in tables:
                    fill(words, rows)
            self._forget_coming()
            self._forget_newest()
            self.newest, self.size, self.room = os.dup(filter_map), size, blocks * PRINTS_A_BLOCK // ROOM_SHARE
            if bpf.look_up(self.maps["filters"], struct.pack("=I", IN_FORCE), 4) is None:
                bpf.update(self.maps["filters"], struct.pack("=I", IN_FORCE), struct.pack("=I", filter_map))
            else:
                bpf.update(self.maps["filters"], struct.pack("=I", COMING), struct.pack("=I", filter_map))
                self.coming = os.dup(filter_map)
        finally:
            os.close(filter_map)

    def extend(self, parts: Compiled) -> bool:
        """As `offer`, where these rules lie over what was offered last, or over what that lay over: the filter that
        is there gets what they have more, however much it holds. False where there is none, or no room in it.

        What they have no more stays in it until the next `offer`: such names are queued, and the engine lets them by.
        """
        if self.newest < 0:
            return False
        pages = (self.size + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE
        with (mmap.mmap(self.newest, pages) as memory, memoryview(memory) as view, view[:HEAD] as head,
              view[HEAD:self.size].cast("Q") as words):
            self.room -= fill(words, parts.rows)
            widen(head, parts.labels, parts.ipv4_lengths, parts.ipv6_lengths)
        return self.room >= 0

    def settle(self) -> None:
        """The rules offered last are in force, and those before them are nobody's any more."""
        if self.coming >= 0:
            bpf.update(self.maps["filters"], struct.pack("=I", IN_FORCE), struct.pack("=I", self.coming))
            bpf.delete(self.maps["filters"], struct.pack("=I", COMING))
            self._forget_coming()

    def withdraw(self) -> None:
        """Everything is queued until rules are offered again."""
        for at in (IN_FORCE, COMING):
            bpf.delete(self.maps["filters"], struct.pack("=I", at))
        self._forget_coming()
        self._forget_newest()

    def _forget_newest(self) -> None:
        if self.newest >= 0:
            os.close(self.newest)
            self.newest = -1

    def _forget_coming(self) -> None:
        if self.coming >= 0:
            os.close(self.coming)
            self.coming = -1

    def hold(self, seconds: float) -> None:
        """Nothing passes any more so many seconds from here, unless this is called again."""
        self.until = time.monotonic_ns() + int(seconds * 1e9)
        self._set()

    def carry_undecided(self, wanted: bool) -> None:
        """Whether the shortcut carries more than done flows, as it does at first: conntrack sees nothing of it."""
        self.tracked = not wanted
        self._set()

    def _set(self) -> None:
        learns = self.sample is not None
        bpf.update(self.maps["settings"], bytes(4),
                   struct.pack("=QQIIQQIIIHH", *self.settings, self.until, self.secret, self.sample or 0, learns,
                               self.places, self.tracked, self.apart))

    # ---- in the kernel

    def pin(self, path: Path) -> Path:
        """Give the program a name that iptables finds, in place of one that is left over; `close` takes it away.

        Those for flow marks are beside it (`pins.program_path`).
        """
        self.pins = []
        try:
            for place, program in self._programs(path).items():
                place.unlink(missing_ok=True)
                bpf.pin(program, place)
                self.pins.append(place)
        except OSError as problem:
            raise SystemProblem(f"first stage: {path}: {explain(problem)}; "
                                f"is a bpf file system there? mount -t bpf bpf {path.parent}") from None
        self.pinned = path
        return path

    def _programs(self, path: Path) -> dict[Path, int]:
        return {path: self.program} | {program_path(path, name): program for name, program in self.asking.items()}

    def lost(self) -> list[str]:
        """What is no longer pinned where the kernel rules and the next daemon look for it, or is another's."""
        if self.pinned is None:
            return []
        wanted = self._programs(self.pinned)
        if self.kept is not None and "marks" in self.maps:
            wanted[self.kept] = self.maps["marks"]
        return [str(place) for place, fd in wanted.items() if not is_pinned(place, fd)]

    def put_back(self) -> None:
        """Pins everything again that `lost` has named. SystemProblem where it cannot be."""
        assert self.pinned is not None
        self.pin(self.pinned)
        if self.kept is not None and "marks" in self.maps and not is_pinned(self.kept, self.maps["marks"]):
            try:
                self.kept.unlink(missing_ok=True)
                bpf.pin(self.maps["marks"], self.kept)
            except OSError as problem:
                raise SystemProblem(f"first stage: {self.kept}: {explain(problem)}") from None

    def program_number(self, name: str) -> int:
        """The kernel's number of one of the programs beside the first stage, as traffic control tells it."""
        return bpf.identity(self.asking[name])

    def forget(self, which: Callable[[bytes], bool]) -> int:
        """Forgets the marks of flows whose `struct key` (structures.h) is one of these; how many there were."""
        marks = self.maps.get("marks")
        if marks is None:
            return 0
        spec, _ = bpf.describe(marks)
        wanted = {key for key in bpf.keys(marks, spec.key_size, spec.value_size) if which(key)}
        return sum(bpf.delete(marks, key) for key in wanted)

    def memory(self) -> tuple[int, ...]:
        """The open maps in which source.recall finds what has passed, and that in which source.marking sets marks."""
        return tuple(self.maps[name] for name in ("flows", "hellos", "marks") if name in self.maps)

    def counters(self) -> dict[str, int]:
        """What became of the packets, all CPUs together; after `close` what there was then."""
        if not self.maps:
            return self.counted
        counted = {}
        for i, name in enumerate(OUTCOMES):
            value = bpf.look_up(self.maps["outcomes"], struct.pack("=I", i), 8 * self.cpus) or b""
            counted[name] = sum(struct.unpack(f"={len(value) // 8}Q", value))
        return counted

    def judge(self, packet: bytes) -> bool:
        """Whether the program lets an IP packet by, run on it here and now: for tests and measurements."""
        return bool(bpf.test_run(self.program, packet)[0])

    def ask(self, name: str, packet: bytes) -> bool:
        """The same of one of the programs for flow marks."""
        return bool(bpf.test_run(self.asking[name], packet)[0])

    def close(self, keep: bool = False) -> None:
        """Lets go. Where kernel rules use the programs they stay for as long as those do.

        `keep` leaves the map of marks where the next daemon finds it.
        """
        if self.program >= 0:
            self.counted = self.counters()
        for place in self.pins:
            place.unlink(missing_ok=True)
        self.pins, self.pinned = [], None
        if self.kept is not None and not keep:
            self.kept.unlink(missing_ok=True)
        self._forget_coming()
        self._forget_newest()
        for fd in (self.program, *self.asking.values(), *self.maps.values()):
            if fd >= 0:
                os.close(fd)
        self.program = -1
        self.asking, self.maps = {}, {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def is_pinned(place: Path, fd: int) -> bool:
    """Whether the program or map that is open as `fd` is the one with that name."""
    try:
        found = bpf.open_pinned(place)
    except OSError:             # what is there is no program or map, or not for us
        return False
    if found is None:
        return False
    try:
        return bpf.identity(found) == bpf.identity(fd)
    finally:
        os.close(found)


def marks_map(spec: bpf.Spec, place: Path) -> tuple[int, str]:
    """The map of marks that is pinned there; a new one, pinned in its place, where there is none that fits.

    One that does not fit, since it is of another edgeblock, of other settings or not ours, is never read; a line says
    so. Its name has a sum of the structures, as values of one size may still differ in what is where.
    """
    name = f"marks_{zlib.crc32(repr(LAYOUT).encode()):08x}"
    note = ""
    try:
        found = bpf.open_pinned(place)
        if found is not None:
            was = bpf.describe(found)
            if was == (spec, name):
                return found, ""
            os.close(found)
            place.unlink()
            why = "has another size" if was[1] == name else "is of another edgeblock"
            note = f"{place}: {why}, so its flow marks are not taken on: open connections are judged anew"
        made = bpf.create_map(spec, name)
        try:
            bpf.pin(made, place)
        except OSError:
            os.close(made)
            raise
    except OSError as problem:
        raise SystemProblem(f"{place}: {explain(problem)}; "
                            f"is a bpf file system there? mount -t bpf bpf {place.parent}") from None
    return made, note


def possible_cpus() -> int:
    """How many CPUs the kernel makes room for: its maps have a value for each."""
    ranges = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii").strip().split(",")
    return 1 + int(ranges[-1].split("-")[-1])


def explain(problem: OSError) -> str:
    """One line of what bpf(2) says, with the way out."""
    if problem.errno == errno.EPERM:
        return ("not permitted; it needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, or root, and in a container the "
                "system call bpf (systemd-nspawn --system-call-filter=bpf)")
    if problem.errno == errno.ENOSYS:
        return "this kernel has no bpf(2), or a filter of system calls forbids it"
    if problem.errno in (errno.ENOMEM, errno.E2BIG):
        return "there is not memory enough for its maps; lower limits.flows"
    return problem.strerror or str(problem)
