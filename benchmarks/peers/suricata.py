"""Suricata as an inline filter on NFQUEUE.

Settings from its user guide: the runmode `workers` with one queue a thread, verdicts in batches, fail-open, bypass of
a flow once it is decided (`bypass`, by a connection mark), no output, and names in a dataset, which is how it takes
long lists.
"""

import base64
import shutil
import subprocess
from pathlib import Path

from edgeblock.errors import SystemProblem
from edgeblock.lab import Lab, search_path, until
from peers.base import Peer

QUEUE, MARK = 0, "0x1/0x1"

SETTINGS = """%YAML 1.1
---
vars:
  address-groups: {{HOME_NET: "any", EXTERNAL_NET: "any"}}
  port-groups: {{HTTP_PORTS: "any"}}
default-log-dir: {folder}
stats: {{enabled: no}}
outputs: []
logging: {{default-log-level: notice, outputs: [{{file: {{enabled: yes, filename: {folder}/suricata.log}}}}]}}
nfq: {{mode: accept, bypass-mark: 1, bypass-mask: 1, batchcount: 20, fail-open: yes}}
runmode: workers
max-pending-packets: 8192
stream: {{memcap: 512mb, inline: yes, bypass: yes, reassembly: {{memcap: 512mb, depth: 1mb}}}}
flow: {{memcap: 512mb, hash-size: 262144, prealloc: 100000}}
app-layer:
  protocols:
    tls: {{enabled: yes, encryption-handling: bypass, detection-ports: {{dp: any}}}}
    http: {{enabled: yes}}
datasets: {{defaults: {{memcap: 256mb, hashsize: 65536}}}}
default-rule-path: {folder}
rule-files: [names.rules]
"""

RULES = """reject tls any any -> any any (msg:"listed"; tls.sni; dotprefix; dataset:isset,names,type string,\
load {folder}/names.lst; sid:1; rev:1;)
reject http any any -> any any (msg:"listed"; http.host; dataset:isset,hosts,type string,\
load {folder}/hosts.lst; sid:2; rev:1;)
"""


class Suricata(Peer):
    name = "Suricata, NFQ"

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    def obstacle(cls) -> str:
        if shutil.which("suricata", path=search_path()) is None:
            return "it is not installed (package suricata)"
        built = subprocess.run(["suricata", "--build-info"], capture_output=True, text=True, check=False).stdout
        return "" if "NFQ" in built.partition("Features:")[2].split("\n")[0] else "it was built without NFQ"

    def start(self, lab: Lab, folder: Path, names: list[str], ports: tuple[int, ...]) -> None:
        own = folder / "suricata"
        own.mkdir()
        for file, prefix in (("names.lst", "."), ("hosts.lst", "")):
            lines = (base64.b64encode(f"{prefix}{name}".encode()).decode() for name in names)
            (own / file).write_text("\n".join(lines) + "\n")
        (own / "suricata.yaml").write_text(SETTINGS.format(folder=own))
        (own / "names.rules").write_text(RULES.format(folder=own))
        log = own / "suricata.log"
        self.process = lab.popen_in("box", ["suricata", "-c", str(own / "suricata.yaml"), "-q", str(QUEUE)],
                                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        up = until(lambda: log.exists() and "ngine started" in log.read_text() or self.process.poll() is not None, 60)
        if not up or self.process.poll() is not None:
            raise SystemProblem(f"suricata does not start: see {log}")
        listed = ",".join(map(str, ports))
        for tool in ("iptables", "ip6tables"):
            for line in ("-A FORWARD -m connmark --mark 1/1 -j ACCEPT",
                         f"-A FORWARD -p tcp -m multiport --ports {listed} -m mark --mark {MARK} "
                         "-j CONNMARK --save-mark --mask 1"):
                lab.run_in("box", [tool, "-t", "mangle", *line.split()])
            lab.run_in("box", [tool, "-t", "mangle", "-I", "FORWARD", "2", "-p", "tcp", "-m", "multiport", "--ports",
                               listed, "-j", "NFQUEUE", "--queue-num", str(QUEUE), "--queue-bypass"])

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
