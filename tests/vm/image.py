"""The machine that test-vm runs things on: Debian with its own kernel, from this host's apt sources, under build/vm.

In: nothing. Out: a root file system in a folder, for a container, and a disk, a kernel and a first root, for a
virtual machine. What runs on them writes elsewhere: none of it is ever changed. SystemExit with one line says what is
missing.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / "build" / "vm"

PROGRAMS = {"mmdebstrap": "mmdebstrap", "qemu-system-x86_64": "qemu-system-x86", "mke2fs": "e2fsprogs",
            "modprobe": "kmod", "cpio": "cpio", "busybox": "busybox-static", "systemd-nspawn": "systemd-container"}
PACKAGES = ("linux-image-cloud-amd64", "systemd", "systemd-sysv", "python3", "iproute2", "iptables", "nftables",
            "kmod", "procps", "conntrack", "libnetfilter-queue1", "libsodium23", "libssl3", "man-db",
            "bash-completion", "cloud-init", "python3-apt")
MODULES = ("virtio_pci", "virtio_blk", "ext4")          # what the kernel needs to mount its disk
IMAGE_MEGABYTES = 1800

INITRD = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
while read module; do /bin/busybox insmod /modules/$module; done </modules/order
/bin/busybox mount -t ext4 /dev/vda /root
exec /bin/busybox switch_root /root /sbin/vm-init
"""

# The command's status goes out by the second serial port, then the machine resets, which ends qemu.
INIT = """#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/shm /dev/pts; mount -t tmpfs run /run; mount -t tmpfs shm /dev/shm; mount -t tmpfs scratch /tmp
stty -F /dev/ttyS1 raw -echo
ip link set lo up
mkdir -p /run/netns /srv/job; tar -xf /dev/vdb -C /srv/job; cd /srv/job
export PYTHONPATH=/srv/job:/srv/job/site
bash /srv/job/command </dev/null >/dev/ttyS0 2>&1
echo $? >/dev/ttyS1
sync; echo b >/proc/sysrq-trigger
"""


def find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def call(*words: object, **more: object) -> str:
    done = subprocess.run([find(str(words[0])) or str(words[0]), *map(str, words[1:])], text=True, check=False,
                          capture_output=True, **more)      # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(f"tests/vm: {words[0]} failed: {' / '.join(done.stderr.splitlines()[-3:])}")
    return done.stdout


def ready() -> Path:
    """The folder with `root`, `disk`, `kernel` and `initrd`, built where it is not there or for other packages."""
    lacking = sorted({package for program, package in PROGRAMS.items() if not find(program)})
    if lacking:
        raise SystemExit(f"tests/vm: programs are missing: apt install {' '.join(lacking)}")
    if os.geteuid() != 0:
        raise SystemExit("tests/vm: needs root to build the machine's disk: run it with sudo")
    stamp = CACHE / "packages"
    if not stamp.exists() or stamp.read_text() != " ".join(PACKAGES):
        build()
        stamp.write_text(" ".join(PACKAGES))
    return CACHE


def build() -> None:
    """Everything is made aside and moved into place whole."""
    print("tests/vm: building the machine (once, a minute or two) ...", file=sys.stderr)
    shutil.rmtree(CACHE, ignore_errors=True)
    CACHE.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as place:
        root, first = Path(place, "root"), Path(place, "first")
        release = platform.freedesktop_os_release()["VERSION_CODENAME"]
        call("mmdebstrap", "--quiet", "--variant=minbase", "--dpkgopt=path-exclude=/usr/share/doc/*",
             f"--include={','.join(PACKAGES)}", release, root, *sources())
        version = next(iter(sorted((root / "lib" / "modules").iterdir()))).name
        init = root / "sbin" / "vm-init"
        init.write_text(INIT)
        init.chmod(0o755)

        for name in ("bin", "modules", "dev", "root"):
            (first / name).mkdir(parents=True)
        shutil.copy(str(find("busybox")), first / "bin" / "busybox")
        order = []
        for module in MODULES:
            for line in call("modprobe", "--dirname", root, "--set-version", version, "--show-depends",
                             module).splitlines():
                path = Path(line.split()[1]) if line.startswith("insmod") else None
                if path and path.name not in order:
                    shutil.copy(path, first / "modules" / path.name)
                    order.append(path.name)
        (first / "modules" / "order").write_text("".join(f"{name}\n" for name in order))
        (first / "init").write_text(INITRD)
        (first / "init").chmod(0o755)
        names = "\n".join(str(path.relative_to(first)) for path in first.rglob("*")) + "\n"
        call("cpio", "--quiet", "-o", "-H", "newc", "-F", Path(place, "initrd"), cwd=first, input=names)

        shutil.copy(root / "boot" / f"vmlinuz-{version}", Path(place, "kernel"))
        call("mke2fs", "-q", "-t", "ext4", "-d", root, Path(place, "disk"), f"{IMAGE_MEGABYTES}M")
        for name in ("kernel", "initrd", "disk", "root"):
            os.replace(Path(place, name), CACHE / name)


def sources() -> list[Path]:
    """This host's own apt sources."""
    folder = Path("/etc/apt")
    return [one for one in (folder / "sources.list", *sorted((folder / "sources.list.d").glob("*")))
            if one.is_file() and one.suffix in (".list", ".sources") and one.stat().st_size]


if __name__ == "__main__":
    ready()
