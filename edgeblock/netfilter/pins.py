"""Where the first stage's programs are pinned, so that kernel rules can name them.

In: a queue's number. Out: paths in a bpf file system. Never here: a program loaded or pinned.
"""

import os
from pathlib import Path

# The bpf file system of the service's user (systemd/run-edgeblockbpf.mount), and everybody's, which is root's.
BPF_DIRECTORIES = (Path("/run/edgeblockbpf"), Path("/sys/fs/bpf"))


def bpf_directory() -> Path:
    """Where programs can be pinned: the first place that is there."""
    return next((place for place in BPF_DIRECTORIES if place.is_mount()), BPF_DIRECTORIES[-1])


def pin_path(queue: int) -> Path:
    """Where the program of a daemon is pinned: there may be one in each network namespace."""
    return bpf_directory() / f"edgeblock-{os.stat('/proc/self/ns/net').st_ino}-{queue}"


def program_path(stage1: Path, name: str) -> Path:
    """Where one of marks.PROGRAMS is pinned: beside the first stage."""
    return stage1.with_name(f"{stage1.name}-{name}")
