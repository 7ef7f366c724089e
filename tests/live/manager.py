"""What systemd does for the service, for a daemon in a lab.

In: a lab, a folder, settings. Out: the daemon's process, and the files that it has given to be kept, which the next
one gets. Never: a real systemd (tests/vm has one).
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from edgeblock.lab import WITH_BPF, Lab, until


class Manager:
    """What systemd does for the service: it keeps the files it is given, and gives them to the next process."""

    def __init__(self, lab: Lab, place: Path, settings: Path) -> None:
        self.lab, self.settings, self.place = lab, settings, place
        self.kept: dict[str, int] = {}
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(place / "notify"))
        self.socket.settimeout(0.05)
        self.log = (place / "log").open("ab")
        # Its bpf file system stays, whichever process is the daemon.
        self.keeper = lab.popen_in("box", [*WITH_BPF, "sh", "-c", "echo; exec sleep infinity"],
                                   stdout=subprocess.PIPE)
        assert self.keeper.stdout is not None and self.keeper.stdout.readline() == b"\n"

    def start(self) -> None:
        words = [sys.executable, "-m", "edgeblock", "run", "--config", str(self.settings)]
        given = "".join(f" {3 + number}<&{file} {file}<&-" for number, file in enumerate(self.kept.values()))
        environment = {"NOTIFY_SOCKET": str(self.place / "notify"), "LISTEN_FDS": str(len(self.kept)),
                       "LISTEN_FDNAMES": ":".join(self.kept)}
        shell = ["bash", "-c", f'export LISTEN_PID=$$; exec "$@"{given}', "-"]
        self.process = self.lab.popen_in(
            "box", ["nsenter", "--mount", f"--target={self.keeper.pid}", *shell, *words], stdout=self.log,
            stderr=self.log, env=os.environ | environment, pass_fds=[*self.kept.values()])

    def hear(self, word: bytes = b"READY=1") -> bool:
        """Does what it is told until it has heard that word."""
        try:
            said, files, _, _ = socket.recv_fds(self.socket, 1000, 1)
        except TimeoutError:
            return False
        lines = dict(line.split(b"=", 1) for line in said.split(b"\n"))
        name = lines.get(b"FDNAME", b"").decode()
        if b"FDSTORE" in lines:
            for file in files:
                self.kept[name] = file
        elif b"FDSTOREREMOVE" in lines and name in self.kept:
            os.close(self.kept.pop(name))
        return word in said

    def end(self, number: signal.Signals = signal.SIGTERM, *, restart: bool = False) -> None:
        """As the unit does: SIGUSR2 before SIGTERM where it is the first half of a restart. Until it has ended."""
        if restart:
            self.process.send_signal(signal.SIGUSR2)
        self.process.send_signal(number)
        assert until(lambda: self.hear(b"nothing") or self.process.poll() is not None, 20), "the daemon does not end"
        while self.hear(b"STOPPING"):
            pass

    def close(self) -> None:
        self.keeper.kill()
        self.keeper.wait()
        self.socket.close()
        self.log.close()
        for file in self.kept.values():
            os.close(file)
