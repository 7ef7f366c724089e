"""What a process gives up before it reads what others have written, so that whoever takes it over has nothing.

In: the directories that it reads and writes, and how much it may take. Out: what this kernel could not take away, in
words. Afterwards: no capability, no other program, no socket, no signal to others, no file but those, no core file,
no look at its memory, and limits to memory, processor and files. Never here: a privilege gained.
"""

import ctypes
import errno
import os
import resource
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

try:
    import pyseccomp as seccomp
except (ImportError, OSError, RuntimeError, TypeError):     # it looks for the library as soon as it is imported
    seccomp = None

PR_GET_DUMPABLE, PR_SET_DUMPABLE = 3, 4
PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP, PR_CAP_AMBIENT = 38, 24, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CAP_LAST = 63
CAPABILITY_VERSION = 0x20080522
FILE_MAX = 32 << 30         # bytes: a snapshot of 100 million entries takes 5 GB, and all of them together more
DESCRIPTORS_MAX = 32768     # one for each list in force while they are merged (directory.py takes 10 000), and some

# Landlock's system calls have these numbers on every machine.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION, PATH_BENEATH = 1, 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_DIR, MAKE_REG, REFER, TRUNCATE, IOCTL_DEV = 1 << 7, 1 << 8, 1 << 13, 1 << 14, 1 << 15
ALL_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE
TCP = 0b11                  # bind and connect
SCOPES = 0b11               # abstract sockets, signals

# What Python and the C library read while they run: modules, and who a user id is.
SYSTEM = ("/usr", "/lib", "/lib64", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/ld.so.cache",
          "/dev/null", "/dev/urandom")
CALLS = (
    "access", "arch_prctl", "brk", "clock_getres", "clock_gettime", "clock_nanosleep", "close", "copy_file_range",
    "dup", "dup2", "dup3", "exit", "exit_group", "faccessat", "faccessat2", "fadvise64", "fchmod", "fcntl",
    "fdatasync", "flock", "fstat", "fstatfs", "fsync", "ftruncate", "futex", "getcwd", "getdents64", "getegid",
    "geteuid", "getgid", "getgroups", "getpid", "getppid", "getrandom", "getrlimit", "getrusage", "gettid",
    "gettimeofday", "getuid", "ioctl", "link", "linkat", "lseek", "lstat", "madvise", "membarrier", "mkdir",
    "mkdirat", "mmap", "mprotect", "mremap", "munmap", "newfstatat", "open", "openat", "openat2", "poll", "ppoll",
    "pread64", "prlimit64", "pwrite64", "read", "readlink", "readlinkat", "readv", "rename", "renameat",
    "renameat2", "restart_syscall", "rmdir", "rseq", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn",
    "sched_getaffinity", "sched_yield", "set_robust_list", "setitimer", "sigaltstack", "stat", "statfs", "statx",
    "syncfs", "sysinfo", "tgkill", "time", "times", "timer_create", "timer_settime", "uname", "unlink", "unlinkat",
    "write", "writev")

LIBC = ctypes.CDLL(None, use_errno=True)


def confine(readable: Iterable[Path], writable: Iterable[Path], memory: int, seconds: int) -> list[str]:
    """Gives up all but reading the one and writing the other, and `memory` bytes and `seconds` of processor time.

    Returns what could not be given up, one sentence each.
    """
    left: list[str] = []
    for kind, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_DATA, memory), (resource.RLIMIT_CPU, seconds),
                       (resource.RLIMIT_FSIZE, FILE_MAX), (resource.RLIMIT_NOFILE, DESCRIPTORS_MAX)):
        if problem := limit(kind, most):
            left.append(problem)
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    drop_capabilities()
    LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    if problem := restrict_files(readable, writable):
        left.append(f"the process that reads lists can reach more files than it needs: {problem}")
    if problem := restrict_calls():
        left.append(f"the process that reads lists can make more system calls than it needs: {problem}")
    return left


def limit(kind: int, most: int) -> str:
    """No more than that from here on; why not, where it cannot be."""
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    try:
        resource.setrlimit(kind, (most, most))
    except (OSError, ValueError) as problem:
        return f"the process that reads lists has a limit less than it should: {problem}"
    return ""


def drop_capabilities() -> None:
    """All of them, from every set; from the bounding set where that is allowed."""
    LIBC.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for number in range(CAP_LAST + 1):
        if LIBC.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            break
    header = struct.pack("Ii", CAPABILITY_VERSION, 0)
    LIBC.capset(ctypes.c_char_p(header), ctypes.c_char_p(bytes(24)))


def restrict_files(readable: Iterable[Path], writable: Iterable[Path]) -> str:
    """By Landlock; why not, where that is not to be had."""
    version = LIBC.syscall(ctypes.c_long(CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint(VERSION))
    if version < 1:
        return f"Landlock: {os.strerror(ctypes.get_errno())}"
    rights = ALL_RIGHTS[min(version, max(ALL_RIGHTS))]
    ruleset = struct.pack("QQQ", rights, TCP if version >= 4 else 0, SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    handle = LIBC.syscall(ctypes.c_long(CREATE_RULESET), ctypes.c_char_p(ruleset), ctypes.c_size_t(size),
                          ctypes.c_uint(0))
    if handle < 0:
        return f"Landlock: {os.strerror(ctypes.get_errno())}"
    package = Path(__file__).resolve().parents[1]
    system = [*map(Path, SYSTEM), *map(Path, sys.path), Path(sys.prefix), Path(sys.base_prefix), package]
    for allowed, paths in ((READ, [*system, *readable]), (WRITE, writable)):
        for path in paths:
            allow(handle, path, allowed & rights)
    done = LIBC.syscall(ctypes.c_long(RESTRICT_SELF), ctypes.c_int(handle), ctypes.c_uint(0))
    problem = "" if done == 0 else f"Landlock: {os.strerror(ctypes.get_errno())}"
    os.close(handle)
    return problem


def allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return                      # what is not there cannot be reached
    try:
        if not path.is_dir():
            rights &= READ_FILE | WRITE_FILE | TRUNCATE
        rule = struct.pack("=Qi", rights, place)
        LIBC.syscall(ctypes.c_long(ADD_RULE), ctypes.c_int(ruleset), ctypes.c_uint(PATH_BENEATH),
                     ctypes.c_char_p(rule), ctypes.c_uint(0))
    finally:
        os.close(place)


def restrict_calls() -> str:
    """By seccomp; why not, where that is not to be had. What is not named fails with EPERM."""
    if seccomp is None:
        return "there is no libseccomp"
    try:
        rules = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
        for name in CALLS:
            try:
                rules.add_rule(seccomp.ALLOW, name)
            except (OSError, ValueError):
                continue            # no call of this machine's
        rules.add_rule(seccomp.ALLOW, "prctl", seccomp.Arg(0, seccomp.EQ, PR_GET_DUMPABLE))
        for name in ("getpriority", "setpriority"):         # its own; without capabilities no higher than it has
            rules.add_rule(seccomp.ALLOW, name, seccomp.Arg(0, seccomp.EQ, os.PRIO_PROCESS),
                           seccomp.Arg(1, seccomp.EQ, 0))
        rules.load()
    except (OSError, RuntimeError, ValueError) as problem:
        return f"seccomp: {problem}"
    return ""
