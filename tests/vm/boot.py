"""Runs a command as root on Debian's own kernel, in a virtual machine without network. Its status becomes ours.

In: this checkout and its virtual environment. Out: what the command printed, and its exit status. The machine is
built once, under build/vm, from the apt sources of this host; what the command changes is thrown away. Without a
command it runs the live tests of the kernel rules: this kernel has nft's queue statement, which others lack.

    tests/vm/boot.py                       # those that need the real queue, and the heart of the others: 2 minutes
    tests/vm/boot.py nft --check -f x.nft
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / "build" / "vm"
SITE = ROOT / ".venv" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"

PROGRAMS = {"mmdebstrap": "mmdebstrap", "qemu-system-x86_64": "qemu-system-x86", "mke2fs": "e2fsprogs",
            "modprobe": "kmod", "cpio": "cpio", "busybox": "busybox-static"}
PACKAGES = ("linux-image-cloud-amd64", "python3", "iproute2", "iptables", "nftables", "kmod", "procps",
            "libnetfilter-queue1", "libsodium23")
MODULES = ("virtio_pci", "virtio_blk", "ext4")          # what the kernel needs to mount its disk

# What a test in the machine imports. The rest of the virtual environment is large and of no use there.
IMPORTS = ("_pytest", "pytest", "py", "pluggy", "iniconfig", "packaging", "pygments", "hypothesis", "_hypothesis*",
           "sortedcontainers", "attr", "attrs", "pytest_timeout*", "netfilterqueue", "scapy", "rich", "markdown_it",
           "mdurl")

TESTS = ("python3 -m pytest -q -p no:cacheprovider -c /dev/null --rootdir . --confcutdir tests/netfilter "
         "-o markers=live --color=no --durations=5 tests/netfilter/test_ruleset_live.py "
         "-k 'nft and not 6] and (daemon or whole or one_queue or syn_and or ends_it or http or blocked "
         "or forged_reset or long_headers or twice or no_rules)' && "
         "modprobe -a 8021q br_netfilter && python3 -m pytest -q -p no:cacheprovider -c /dev/null --rootdir . "
         "--confcutdir tests/netfilter -o markers=live --color=no tests/netfilter/links.py")
SECONDS = 900
IMAGE_MEGABYTES = 1400

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


def main(words: list[str]) -> int:
    lacking = sorted({package for program, package in PROGRAMS.items() if not find(program)})
    if lacking:
        print(f"tests/vm: apt install {' '.join(lacking)}", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("tests/vm: needs root to build the machine's disk: run it with sudo", file=sys.stderr)
        return 2
    if not (CACHE / "disk").exists():
        build()
    return run(shlex.join(words) if words else TESTS)


def find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def call(*words: object, **more: object) -> str:
    return subprocess.run([find(str(words[0])) or str(words[0]), *map(str, words[1:])], check=True, text=True,
                          stdout=subprocess.PIPE, **more).stdout      # type: ignore[call-overload]


def build() -> None:
    """The disk, the kernel and the small first root, made aside and moved into place whole."""
    print("tests/vm: building the machine (once, about a minute) ...", file=sys.stderr)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as place:
        root, first = Path(place, "root"), Path(place, "first")
        release = platform.freedesktop_os_release()["VERSION_CODENAME"]
        call("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", release, root,
             *sources())
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
        for name in ("kernel", "initrd", "disk"):
            os.replace(Path(place, name), CACHE / name)


def sources() -> list[Path]:
    """This host's own apt sources."""
    folder = Path("/etc/apt")
    return [one for one in (folder / "sources.list", *sorted((folder / "sources.list.d").glob("*")))
            if one.is_file() and one.suffix in (".list", ".sources") and one.stat().st_size]


def run(command: str) -> int:
    """Boot, run, and return the command's status; 124 if it took too long."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "command").write_text(command + "\n")
        pack(Path(place))
        # Emulated: /dev/kvm inside another machine is there on many hosts, and works on few.
        machine = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2",
                   "-m", "1024", "-nodefaults", "-display", "none", "-no-reboot", "-nic", "none",
                   "-kernel", CACHE / "kernel", "-initrd", CACHE / "initrd",
                   "-append", "console=ttyS0 quiet loglevel=1 panic=-1",
                   "-drive", f"file={CACHE / 'disk'},format=raw,if=virtio,snapshot=on",
                   "-drive", f"file={place}/job.tar,format=raw,if=virtio,readonly=on",
                   "-serial", "stdio", "-serial", f"file:{place}/status"]
        try:
            subprocess.run([str(word) for word in machine], check=False, stdin=subprocess.DEVNULL, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            print(f"tests/vm: no end after {SECONDS} s", file=sys.stderr)
            return 124
        status = (Path(place) / "status").read_text().strip()
        if not status.isdigit():
            print("tests/vm: the machine stopped before the command ended", file=sys.stderr)
            return 125
        return int(status)


def pack(place: Path) -> None:
    """The checkout's code, tests and what they import, as the machine's second disk."""
    with tarfile.open(place / "job.tar", "w") as tar:
        tar.add(place / "command", "command")
        for name in ("edgeblock", "tests"):
            tar.add(ROOT / name, name, filter=lambda one: None if "__pycache__" in one.name else one)
        for pattern in IMPORTS:
            for path in [*SITE.glob(pattern), *SITE.glob(f"{pattern}-*.dist-info"), *SITE.glob(f"{pattern}.py")]:
                tar.add(path, f"site/{path.name}", filter=lambda one: None if "__pycache__" in one.name else one)
    with open(place / "job.tar", "ab") as file:       # a disk is a whole number of sectors
        file.write(bytes(-file.tell() % 512))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
