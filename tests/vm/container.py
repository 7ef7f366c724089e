"""A Debian with a real systemd, booted in a container whose network is the box of a lab.

In: a lab, and the root file system of image.py. Out: commands run inside it. What it changes is on a file system of
its own that goes with it; nothing is left on this host, whatever happens to the test.
"""

import os
import secrets
import signal
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import image

from edgeblock.lab import NETNS, Lab, until

BOOT = """set -e
umask 022
mount -t tmpfs scratch "$PLACE"
mkdir "$PLACE/changes" "$PLACE/work" "$PLACE/root"
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$PLACE/changes,workdir=$PLACE/work" "$PLACE/root"
umount -R /sys/fs/cgroup 2>/dev/null || :
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$NAME/self"
echo $$ >"/sys/fs/cgroup/$NAME/self/cgroup.procs"
exec systemd-nspawn --quiet --register=no --keep-unit --settings=no --link-journal=no --resolv-conf=off \\
    --timezone=off --directory="$PLACE/root" --boot --network-namespace-path="$NETWORK" --capability=all \\
    --system-call-filter=bpf --machine="$NAME" --bind-ro="$FILES:/srv" --console=pipe
"""
SWEEP = """umount -R /sys/fs/cgroup 2>/dev/null || :
mount -t cgroup2 cgroup2 /sys/fs/cgroup
find "/sys/fs/cgroup/$NAME" -depth -type d -exec rmdir {} +
"""
PRIVATE = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]


class Container:
    """Use it as `with Container(lab, files) as container`; `files` is a folder that it sees as /srv."""

    def __init__(self, lab: Lab, files: Path) -> None:
        self.lab, self.files = lab, files
        self.name = f"edgeblock-{secrets.token_hex(4)}"
        self.leader = 0

    def __enter__(self) -> Self:
        lower = image.ready() / "root"
        self.place = tempfile.mkdtemp(prefix="edgeblock-container-")
        self.environment = os.environ | {
            "PLACE": self.place, "LOWER": str(lower), "NAME": self.name, "FILES": str(self.files),
            "NETWORK": str(NETNS / self.lab.namespace("box"))}
        self.console = open(Path(self.place) / "console", "w+b")
        self.process = subprocess.Popen([*PRIVATE, BOOT], env=self.environment, stdin=subprocess.DEVNULL,
                                        stdout=self.console, stderr=self.console, start_new_session=True)
        with ExitStack() as failing:
            failing.callback(self.close)
            started = until(lambda: self.process.poll() is not None or self._find_leader(), 60)
            if not started or not self.leader or not until(self._is_up, 60):
                self.console.seek(0)
                said = self.console.read().decode(errors="replace").strip().splitlines()[-3:]
                raise SystemExit(f"tests/vm: systemd-nspawn does not boot on this machine: {' / '.join(said)}")
            failing.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        if self.leader and self.process.poll() is None:
            os.kill(self.leader, signal.SIGKILL)        # with the first process all others of its namespace go
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.console.close()
        subprocess.run([*PRIVATE, SWEEP], env=self.environment, check=False, capture_output=True)
        os.unlink(Path(self.place) / "console")
        os.rmdir(self.place)

    def _find_leader(self) -> bool:
        """The container's first process: a child of systemd-nspawn that is process 1 in its own namespace."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            try:
                lines = Path(f"/proc/{child}/status").read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):     # a mount or an rmdir of the script, and done
                continue
            numbers = next(line.split()[1:] for line in lines if line.startswith("NSpid:"))
            if len(numbers) > 1 and numbers[-1] == "1":
                self.leader = int(child)
                return True
        return False

    def _is_up(self) -> bool:
        return self.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded")

    def run(self, *words: object, check: bool = True, within: float = 120.0) -> str:
        """Standard output of a command inside, as root."""
        done = subprocess.run(["nsenter", "--target", str(self.leader), "--mount", "--uts", "--ipc", "--net", "--pid",
                               "--cgroup", "--", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                               "DEBIAN_FRONTEND=noninteractive", *map(str, words)], text=True, check=False,
                              capture_output=True, timeout=within, stdin=subprocess.DEVNULL)
        assert done.returncode == 0 or not check, f"{' '.join(map(str, words))}: {done.stderr or done.stdout}"
        return done.stdout

    def shell(self, text: str, **more: bool) -> str:
        return self.run("bash", "-c", text, **more)

    def show(self, *properties: str) -> dict[str, str]:
        """Properties of the service, as `systemctl show` tells them."""
        lines = self.run("systemctl", "show", "edgeblock.service", *(f"--property={one}" for one in properties))
        return dict(line.split("=", 1) for line in lines.splitlines())
