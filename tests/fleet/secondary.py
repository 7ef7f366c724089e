"""edgeblock-fetch with one zone, in the box of a lab. In: the keys of its source. Out: its status, its log."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edgeblock.lab import Lab, until


@dataclass
class Secondary:
    lab: Lab
    home: Path
    rules: Path
    source: str
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        settings = self.home / "sources.toml"
        settings.write_text(f'[fetch]\ndirectory = "{self.rules}"\nstate = "{self.home}/state"\n'
                            f'status = "{self.home}/status.json"\n'
                            f'[[source]]\nname = "feed"\nkind = "zone"\n{self.source}')
        with (self.home / "fetch.log").open("ab") as log:
            self.process = self.lab.popen_in("box", [sys.executable, "-m", "edgeblock.fleet.cli", "run", "--config",
                                                     str(settings)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)

    def row(self) -> dict:
        """Of the status file."""
        path = self.home / "status.json"
        assert until(path.exists, 10), self.log()
        return json.loads(path.read_text())["sources"][0]

    def status(self) -> dict:
        return self.row()["told"]

    def problem(self) -> str:
        return self.row()["error"]

    def log(self) -> str:
        return (self.home / "fetch.log").read_text()
