"""OpenGFW, which makes its own nftables or iptables rules and reads its own queue.

Settings as in its documentation: a queue as long as ours, one worker a CPU, rules as expressions over the server name
and the Host header; it marks decided connections itself, so that they leave its queue.
"""

import gzip
import json
import shutil
import subprocess
from pathlib import Path

from edgeblock.errors import SystemProblem
from edgeblock.lab import Lab, search_path, until
from peers.base import Peer


class OpenGFW(Peer):
    name = "OpenGFW"

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    def obstacle(cls) -> str:
        if shutil.which("OpenGFW", path=search_path()) is None:
            return "it is not installed (program OpenGFW in PATH)"
        built = Path("/proc/config.gz")
        if built.exists() and b"CONFIG_NETFILTER_NETLINK_GLUE_CT=y" not in gzip.decompress(built.read_bytes()):
            return "it asks its queue for conntrack's data (NFQA_CFG_F_CONNTRACK), and this kernel was built without"
        return ""

    def start(self, lab: Lab, folder: Path, names: list[str], ports: tuple[int, ...]) -> None:
        own = folder / "opengfw"
        own.mkdir()
        config, rules, log = own / "config.yaml", own / "rules.yaml", own / "log"
        # JSON is YAML.
        config.write_text(json.dumps({
            "io": {"queueSize": 8192, "rcvBuf": 8 << 20, "sndBuf": 8 << 20, "local": False, "rst": True},
            "workers": {"count": 2, "queueSize": 64, "tcpMaxBufferedPagesTotal": 65536}}))
        listed = json.dumps(names)
        rules.write_text(json.dumps([
            {"name": "tls", "action": "block", "expr": f"tls?.req?.sni in {listed}"},
            {"name": "http", "action": "block", "expr": f"http?.req?.headers?.host in {listed}"}]))
        with log.open("wb") as output:
            self.process = lab.popen_in("box", ["OpenGFW", "-c", str(config), str(rules)],
                                        stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        up = until(lambda: "engine started" in log.read_text() or self.process.poll() is not None, 60)
        if not up or self.process.poll() is not None:
            raise SystemProblem(f"OpenGFW does not start: see {log}")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
