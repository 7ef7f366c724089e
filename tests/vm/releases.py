"""The package on other Debians, each in a root of its own: built there, tested there, installed, removed, installed,
purged, and carried over a release upgrade. `make test-releases` runs it: half an hour, and an index of packages.

In: this checkout as committed, this host's apt sources with another suite's name, its pip settings and certificates.
Out: a line for each step, status 1 at the first that fails. Nothing of this host is changed.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
SUITES = ("bookworm", "trixie", "forky")        # Debian 12, 13 and the next
TESTS = "tests/core tests/blocklist tests/enforce tests/source tests/packaging tests/test_config.py tests/test_cli.py"
INSIDE = ("mount -t proc proc {root}/proc && mount -t sysfs sys {root}/sys && mount --rbind /dev {root}/dev && "
          "mount -t tmpfs run {root}/run && exec chroot {root} sh -ec '{command}'")


def said(name: str, since: float, what: str) -> None:
    print(f"{name:9} {time.monotonic() - since:6.0f} s  {what}", flush=True)


class Root:
    """A minimal Debian in a folder."""

    def __init__(self, suite: str, folder: Path) -> None:
        self.suite, self.path = suite, folder / suite
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase",
                        "--include=ca-certificates,systemd,init-system-helpers", suite, self.path,
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
        self.run("apt-get update -q && apt-get install -y -q --no-install-recommends /root/edgeblock.deb")
        assert self.run("edgeblock --version").startswith("edgeblock ")

    def enabled(self) -> str:
        return self.run("systemctl is-enabled edgeblock 2>&1 || :").strip()


def sources(suite: str, folder: Path) -> Path:
    made = folder / f"{suite}.sources"
    # What a mirror has may be some weeks old: that is no fault of the package. Signatures are checked.
    text = re.sub(r"^Types:", "Check-Valid-Until: no\nTypes:", SOURCES.read_text(), flags=re.MULTILINE)
    made.write_text(text.replace("bookworm", suite))
    return made


def life(root: Root, deb: Path) -> None:
    """Installed, removed, installed, disabled and the same again, purged: the state after each."""
    root.install(deb)
    assert root.enabled() == "enabled"
    root.run("apt-get remove -y -q edgeblock")
    assert not (root.path / "usr/lib/edgeblock").exists() and (root.path / "etc/edgeblock/edgeblock.toml").exists()
    root.install(deb)
    assert root.enabled() == "enabled"
    root.run("systemctl disable edgeblock && apt-get remove -y -q edgeblock")
    root.install(deb)
    assert root.enabled() == "disabled"
    root.run("apt-get purge -y -q edgeblock && ! getent passwd edgeblock && ! getent group edgeblock-lists")
    assert not list(root.path.glob("etc/**/*edgeblock*"))


def build(root: Root, folder: Path) -> Path:
    """The package as it is made there, and the tests that need no network."""
    # Not below /root: some tests become nobody.
    subprocess.run(["git", "clone", "--quiet", ROOT, root.path / "srv/edgeblock"], check=True)
    root.run("apt-get update -q && apt-get install -y -q --no-install-recommends git make")
    root.run("cd /srv/edgeblock && .ci/setup lab test && packaging/build-deb")
    [made] = (root.path / "srv/edgeblock/build").glob("edgeblock_*.deb")
    kept = folder / f"{root.suite}.deb"
    shutil.copy(made, kept)
    return kept


def main(suites: list[str]) -> None:
    if os.geteuid() != 0:
        raise SystemExit("tests/vm/releases.py: needs root to make root file systems: run it with sudo")
    with tempfile.TemporaryDirectory(prefix="edgeblock-releases-") as place:
        folder = Path(place)
        folder.chmod(0o755)
        for suite in suites or SUITES:
            since = time.monotonic()
            root = Root(suite, folder)
            deb = build(root, folder)
            said(suite, since, "built there")
            tested = root.run("cd /srv/edgeblock && "
                              f".venv/bin/python -m pytest -q -m 'not live and not alone' {TESTS}")
            said(suite, since, tested.strip().splitlines()[-1])
            life(root, deb)
            said(suite, since, "installed, removed, installed, disabled, purged")
        for old, new in zip(SUITES, SUITES[1:], strict=False):
            if not {old, new} <= set(suites or SUITES):
                continue
            since = time.monotonic()
            shutil.rmtree(folder / old)
            root = Root(old, folder)
            root.install(folder / f"{old}.deb")
            for one in root.path.glob("etc/apt/sources.list*"):
                shutil.rmtree(one) if one.is_dir() else one.unlink()
            (root.path / "etc/apt/sources.list.d").mkdir()
            shutil.copy(sources(new, folder), root.path / "etc/apt/sources.list.d/debian.sources")
            root.run("apt-get update -q && apt-get dist-upgrade -y -q && apt-get autoremove -y -q")
            assert root.run("edgeblock --version").startswith("edgeblock ") and root.enabled() == "enabled"
            said(new, since, f"upgraded from {old}: edgeblock is still there and runs")


if __name__ == "__main__":
    main(sys.argv[1:])
