"""Minimal Debians in folders, to build, install and test in: for releases.py and arm64.py.

In: this host's apt sources with another suite's name, its pip settings and certificates. Out: what a command inside
says. Nothing of this host is changed.
"""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
INSIDE = ("mount -t proc proc {root}/proc && mount -t sysfs sys {root}/sys && mount --rbind /dev {root}/dev && "
          "mount -t tmpfs run {root}/run && exec chroot {root} sh -ec '{command}'")


def said(name: str, since: float, what: str) -> None:
    print(f"{name:9} {time.monotonic() - since:6.0f} s  {what}", flush=True)


class Root:
    """A minimal Debian in a folder; `more` is for mmdebstrap, `name` the folder's where it is not the suite's."""

    def __init__(self, suite: str, folder: Path, *more: str, name: str = "") -> None:
        self.suite, self.path = suite, folder / (name or suite)
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase",
                        "--include=ca-certificates,systemd,init-system-helpers", *more, suite, self.path,
                        sources(suite, folder)], check=True)
        shutil.copy(CERTIFICATES, self.path / "etc/ssl/certs/ca-certificates.crt")
        policy = self.path / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)

    def run(self, command: str) -> str:
        """What a command inside says; AssertionError with its last lines where it fails."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8",
                       "DEBIAN_FRONTEND": "noninteractive", "PIP_CERT": str(CERTIFICATES)} | {
            name: value for name, value in os.environ.items() if name in ("PIP_INDEX_URL", "https_proxy")}
        done = subprocess.run(["unshare", "--mount", "--pid", "--fork", "sh", "-c",
                               INSIDE.format(root=self.path, command=command.replace("'", "'\\''"))],
                              env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{self.suite}: {command}\n{(done.stdout + done.stderr)[-2000:]}"
        return done.stdout

    def install(self, deb: Path) -> None:
        shutil.copy(deb, self.path / "root/edgeblock.deb")
        self.run("apt-get update -q && "
                 "apt-get install -y -q --no-install-recommends --allow-downgrades /root/edgeblock.deb")
        assert self.run("edgeblock --version").startswith("edgeblock ")

    def enabled(self) -> str:
        return self.run("systemctl is-enabled edgeblock 2>&1 || :").strip()


def sources(suite: str, folder: Path) -> Path:
    made = folder / f"{suite}.sources"
    # What a mirror has may be some weeks old: that is no fault of the package. Signatures are checked.
    text = re.sub(r"^Types:", "Check-Valid-Until: no\nTypes:", SOURCES.read_text(), flags=re.MULTILINE)
    made.write_text(text.replace("bookworm", suite))
    return made
