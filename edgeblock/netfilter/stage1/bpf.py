"""The bpf(2) system call, and what an object file of clang needs to become a program in the kernel.

In: an object file with programs, each in a section of its own, whose maps are `struct map` in the section "maps".
Out: open files of the maps and of the programs. What the kernel refuses is a SystemProblem of one line. Never here:
what a program does.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from edgeblock.errors import SystemProblem

# linux/bpf.h: commands, types and flags.
MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, PROG_LOAD, OBJ_PIN, OBJ_GET, PROG_TEST_RUN = 0, 1, 2, 3, 5, 6, 7, 10
OBJ_GET_INFO_BY_FD, MAP_LOOKUP_BATCH = 15, 24
KEYS_AT_ONCE = 4096
ARRAY, PERCPU_ARRAY, ARRAY_OF_MAPS = 2, 6, 12
SOCKET_FILTER, TRAFFIC_CONTROL = 1, 3
MMAPABLE, INNER_MAP = 1 << 10, 1 << 12
PSEUDO_MAP_FD = 1
LOAD_64 = 0x18

CALLS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
LOG_SIZE = 1 << 24       # the last line is what counts, and before it stands every instruction

libc = ctypes.CDLL(None, use_errno=True)


class Spec(NamedTuple):
    """A map as the object file asks for it."""

    kind: int
    key_size: int
    value_size: int
    entries: int
    flags: int


class Object(NamedTuple):
    """What of an object file one program needs: its instructions, all maps, and which instructions name a map."""

    code: bytes
    maps: dict[str, Spec]
    uses: tuple[tuple[int, str], ...]
    layout: tuple[int, ...]      # what the compiler has made of the structures that user space shares


def call_number() -> int:
    """The number of bpf(2) here; OSError where it is not known."""
    number = CALLS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"the number of bpf(2) on {platform.machine()} is not known here")
    return number


def call(command: int, attributes: bytes) -> tuple[int, bytes]:
    """The result, and the attributes as the kernel left them. OSError if it refuses."""
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    result = libc.syscall(call_number(), command, buffer, 128)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result, buffer.raw


def create_map(spec: Spec, name: str, inner: int = 0) -> int:
    """An open map."""
    attributes = struct.pack("=IIIII", spec.kind, spec.key_size, spec.value_size, spec.entries, spec.flags)
    return call(MAP_CREATE, attributes + struct.pack("=II16s", inner, 0, name.encode()[:15]))[0]


def look_up(map_fd: int, key: bytes, size: int) -> bytes | None:
    """The value of `size` bytes, None where there is none."""
    wanted, value = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(size)
    try:
        call(MAP_LOOKUP, struct.pack("=IIQQQ", map_fd, 0, ctypes.addressof(wanted), ctypes.addressof(value), 0))
    except OSError as problem:
        if problem.errno == errno.ENOENT:
            return None
        raise
    return value.raw


def update(map_fd: int, key: bytes, value: bytes) -> None:
    wanted, content = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
    call(MAP_UPDATE, struct.pack("=IIQQQ", map_fd, 0, ctypes.addressof(wanted), ctypes.addressof(content), 0))


def delete(map_fd: int, key: bytes) -> bool:
    """Whether there was anything to delete."""
    wanted = ctypes.create_string_buffer(key, len(key))
    try:
        call(MAP_DELETE, struct.pack("=IIQQQ", map_fd, 0, ctypes.addressof(wanted), 0, 0))
    except OSError as problem:
        if problem.errno == errno.ENOENT:
            return False
        raise
    return True


def keys(map_fd: int, key_size: int, value_size: int) -> Iterator[bytes]:
    """The keys of a hash, while others change it: each that is there all the time, some perhaps twice."""
    room, begun, place = KEYS_AT_ONCE, False, ctypes.create_string_buffer(8)
    while True:
        found = ctypes.create_string_buffer(room * key_size)
        values = ctypes.create_string_buffer(room * value_size)
        attributes = ctypes.create_string_buffer(struct.pack(
            "=QQQQIIQQ", ctypes.addressof(place) if begun else 0, ctypes.addressof(place), ctypes.addressof(found),
            ctypes.addressof(values), room, map_fd, 0, 0), 128)
        code = 0
        if libc.syscall(call_number(), MAP_LOOKUP_BATCH, attributes, 128) < 0:
            code = ctypes.get_errno()
        if code == errno.ENOSPC:                # more share a place in the hash than there is room for
            room *= 4
            continue
        if code not in (0, errno.ENOENT):       # ENOENT: these are the last
            raise OSError(code, os.strerror(code))
        count = struct.unpack_from("=I", attributes, 32)[0]
        data = found.raw
        yield from (data[i * key_size:(i + 1) * key_size] for i in range(count))
        if code:
            return
        begun = True


def pin(fd: int, path: Path) -> None:
    """Give a program or map a name in a bpf file system, which must not exist yet."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    call(OBJ_PIN, struct.pack("=QII", ctypes.addressof(name), fd, 0))


def open_pinned(path: Path) -> int | None:
    """The program or map that has this name; None where there is none."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    try:
        return call(OBJ_GET, struct.pack("=QII", ctypes.addressof(name), 0, 0))[0]
    except OSError as problem:
        if problem.errno == errno.ENOENT:
            return None
        raise


def describe(map_fd: int) -> tuple[Spec, str]:
    """What an open map is, and its name."""
    told = ctypes.create_string_buffer(40)      # the beginning of struct bpf_map_info
    call(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", map_fd, len(told), ctypes.addressof(told)))
    kind, _, key_size, value_size, entries, flags, name = struct.unpack("=6I16s", told.raw)
    return Spec(kind, key_size, value_size, entries, flags), name.split(b"\0")[0].decode("ascii", "replace")


def identity(fd: int) -> int:
    """The kernel's number of an open program or map."""
    told = ctypes.create_string_buffer(8)       # both kinds begin with their type and their number
    call(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, len(told), ctypes.addressof(told)))
    return int(struct.unpack_from("=I", told.raw, 4)[0])


def check_map(map_fd: int, name: str, sizes: tuple[int, int]) -> None:
    """SystemProblem unless the open map has keys and values of those sizes."""
    try:
        spec, _ = describe(map_fd)
    except OSError as problem:
        raise SystemProblem(f"first stage: map {name}: {problem.strerror}") from None
    if (spec.key_size, spec.value_size) != sizes:
        raise SystemProblem(f"first stage: map {name} has keys of {spec.key_size} and values of {spec.value_size} "
                            f"bytes instead of {sizes[0]} and {sizes[1]}: it is not this edgeblock's; restart the "
                            f"daemon")


def load(code: bytes, name: str, kind: int = SOCKET_FILTER) -> int:
    """An open program. SystemProblem with the verifier's last word if the kernel refuses it."""
    instructions, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")

    def attempt(level: int, log: "ctypes.Array[ctypes.c_char] | None") -> int:
        at, size = (ctypes.addressof(log), LOG_SIZE) if log else (0, 0)
        return call(PROG_LOAD, struct.pack(
            "=IIQQIIQII16s", kind, len(code) // 8, ctypes.addressof(instructions),
            ctypes.addressof(licence), level, size, at, 0, 0, name.encode()[:15]))[0]

    try:
        return attempt(0, None)
    except OSError as problem:
        reason = problem.strerror
        if problem.errno in (errno.EINVAL, errno.EACCES, errno.E2BIG):
            log = ctypes.create_string_buffer(LOG_SIZE)
            try:
                return attempt(1, log)
            except OSError:
                lines = [line for line in log.value.decode(errors="replace").splitlines()
                         if line and not line.startswith(("processed", "verification time"))]
                reason = f"{reason}: {lines[-1].strip()}" if lines else reason
        raise SystemProblem(f"the kernel does not take the program: {reason}") from None


def test_run(fd: int, packet: bytes, repeat: int = 1) -> tuple[int, int]:
    """What the program answers to an IP packet, and the nanoseconds of one run on average."""
    frame = ctypes.create_string_buffer(bytes(12) + (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet,
                                        14 + len(packet))
    _, answer = call(PROG_TEST_RUN, struct.pack("=IIIIQQII", fd, 0, 14 + len(packet), 0, ctypes.addressof(frame), 0,
                                                repeat, 0))
    found = struct.unpack("=IIIIQQII", answer[:40])
    return found[1], found[7]


def read_object(data: bytes, section: str) -> Object:
    """The program in that section of a 64-bit little-endian ELF file."""
    at, entry, count, names_at = struct.unpack_from("<Q", data, 40)[0], *struct.unpack_from("<HHH", data, 58)
    heads = [struct.unpack_from("<IIQQQQIIQQ", data, at + i * entry) for i in range(count)]

    def text(table: int, offset: int) -> str:
        start = heads[table][4] + offset
        return data[start:data.index(b"\0", start)].decode()

    def content(head: tuple[int, ...]) -> bytes:
        return data[head[4]:head[4] + head[5]]

    places = {text(names_at, head[0]): i for i, head in enumerate(heads)}
    symbols = heads[places[".symtab"]]
    table = [struct.unpack_from("<IBBHQQ", data, symbols[4] + i * 24) for i in range(symbols[5] // 24)]
    maps_section = content(heads[places["maps"]])
    maps = {text(symbols[6], symbol[0]): Spec(*struct.unpack_from("<5I", maps_section, symbol[4]))
            for symbol in table if symbol[3] == places["maps"] and symbol[1] & 15 == 1}
    uses = []
    relocations = content(heads[places[f".rel{section}"]])
    for offset, info in struct.iter_unpack("<QQ", relocations):
        name = text(symbols[6], table[info >> 32][0])
        if name not in maps:
            raise ValueError(f"{name!r} is no map: the program must be one function")
        uses.append((offset, name))
    layout = content(heads[places["shared"]]) if "shared" in places else b""
    return Object(content(heads[places[section]]), maps, tuple(uses), struct.unpack(f"<{len(layout) // 4}I", layout))


def bind(program: Object, maps: Mapping[str, int]) -> bytes:
    """The instructions with the maps' open files in them."""
    code = bytearray(program.code)
    for offset, name in program.uses:
        operation, registers = code[offset], code[offset + 1]
        if operation != LOAD_64:
            raise ValueError("a map is used by an instruction that loads no address")
        code[offset + 1] = registers & 0x0F | PSEUDO_MAP_FD << 4
        struct.pack_into("<i", code, offset + 4, maps[name])
    return bytes(code)
