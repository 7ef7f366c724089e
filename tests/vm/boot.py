"""Runs a command as root on Debian's own kernel, in a virtual machine without network. Its status becomes ours.

In: this checkout and its virtual environment. Out: what the command printed, and its exit status. The machine is
built once, under build/vm, from the apt sources of this host; what the command changes is thrown away. Without a
command it runs the live tests of the kernel rules and of the canary: this kernel has nft's queue statement, which
others lack.

    tests/vm/boot.py                       # those that need the real queue, the heart of the others, and the daemon's
                                           # canary on nft: 3 minutes
    tests/vm/boot.py nft --check -f x.nft
"""

import shlex
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import image
from image import CACHE, ROOT

SITE = ROOT / ".venv" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"

# What a test in the machine imports. The rest of the virtual environment is large and of no use there.
IMPORTS = ("_pytest", "pytest", "py", "pluggy", "iniconfig", "packaging", "pygments", "hypothesis", "_hypothesis*",
           "sortedcontainers", "attr", "attrs", "pytest_timeout*", "netfilterqueue", "scapy", "rich", "markdown_it",
           "mdurl", "uvloop", "structlog", "pyroaring*", "publicsuffixlist", "nacl", "_cffi_backend*", "cffi",
           "cryptography", "ijson", "jinja2", "markupsafe", "zstandard", "prometheus_client", "pyseccomp*",
           "typing_extensions")

TESTS = ("python3 -m pytest -q -p no:cacheprovider -c /dev/null --rootdir . --confcutdir tests/netfilter "
         "-o markers=live --color=no --durations=5 tests/netfilter/test_ruleset_live.py "
         "-k 'nft and not 6] and (daemon or whole or one_queue or syn_and or ends_it or http or blocked "
         "or forged_reset or long_headers or twice or no_rules)' && "
         "modprobe -a 8021q br_netfilter && python3 -m pytest -q -p no:cacheprovider -c /dev/null --rootdir . "
         "--confcutdir tests/netfilter -o markers=live --color=no tests/netfilter/links.py "
         "tests/netfilter/test_address_table.py && "
         "python3 -m pytest -q -rP -p no:cacheprovider -c /dev/null --rootdir . --confcutdir tests/vm "
         "-o markers=live --color=no tests/vm/watched.py")
SECONDS = 1800        # it takes two or three minutes; an emulated machine on a busy one takes ten times that


def main(words: list[str]) -> int:
    image.ready()
    return run(shlex.join(words) if words else TESTS)


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
