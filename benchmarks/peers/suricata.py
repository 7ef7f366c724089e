"""Suricata 7 as an inline filter on NFQUEUE, with names in a dataset, and with a rule a name.

Settings from its user guide: the runmode `workers` with one queue a thread, verdicts in batches, fail-open, no
output, protocols looked for on the ports that are filtered, and bypass of a flow once it is decided (`bypass`, by a
mark that is saved for the connection in POSTROUTING, where a packet comes by after its verdict). A dataset is how it
takes long lists, and has whole names only; that a subdomain of a listed name is listed, too, takes a rule a name.
"""

import base64
import os
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from edgeblock.errors import SystemProblem
from edgeblock.lab import Lab, search_path, until
from peers.base import Peer

QUEUE = 0
UNPACKED = Path(__file__).resolve().parents[2] / "build" / "peers"      # by peers/fetch

SETTINGS = """%YAML 1.1
---
vars:
  address-groups: {{HOME_NET: "any", EXTERNAL_NET: "any"}}
  port-groups: {{HTTP_PORTS: "any"}}
default-log-dir: {folder}
stats: {{enabled: no}}
outputs: []
logging:
  default-log-level: notice
  outputs:
    - file: {{enabled: yes, level: notice, filename: {folder}/suricata.log}}
nfq: {{mode: accept, bypass-mark: 1, bypass-mask: 1, batchcount: 20, fail-open: yes}}
runmode: workers
max-pending-packets: 8192
stream: {{memcap: 512mb, inline: yes, bypass: yes, midstream: yes, reassembly: {{memcap: 512mb, depth: 1mb}}}}
flow: {{memcap: 512mb, hash-size: 262144, prealloc: 100000}}
app-layer:
  protocols:
    tls: {{enabled: yes, encryption-handling: bypass, detection-ports: {{dp: "{ports}"}}}}
    http: {{enabled: yes}}
datasets:
  defaults: {{memcap: 256mb, hashsize: 65536}}
classification-file: {folder}/none.config
reference-config-file: {folder}/none.config
threshold-file: {folder}/none.config
default-rule-path: {folder}
rule-files: [names.rules]
"""

# What is listed is reset; a flow whose name is not listed is bypassed.
DATASET = """reject tls any any -> any any (msg:"listed"; flow:to_server; tls.sni; to_lowercase; \
dataset:isset,names,type string,load {folder}/names.lst; sid:1; rev:1;)
pass tls any any -> any any (msg:"other"; flow:to_server; tls.sni; to_lowercase; \
dataset:isnotset,names; bypass; sid:2; rev:1;)
reject http any any -> any any (msg:"listed"; flow:to_server; http.host; dataset:isset,names; sid:3; rev:1;)
"""
NAME = """reject tls any any -> any any (msg:"listed"; flow:to_server; tls.sni; dotprefix; content:".{name}"; \
nocase; endswith; fast_pattern; sid:{tls}; rev:1;)
reject http any any -> any any (msg:"listed"; flow:to_server; http.host; dotprefix; content:".{name}"; endswith; \
fast_pattern; sid:{http}; rev:1;)
"""


class Suricata(Peer):
    name = "Suricata, dataset"
    rule_a_name: ClassVar[bool] = False

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    def obstacle(cls) -> str:
        program = find()
        if program is None:
            return "it is not installed (make bench-peers fetches it)"
        built = subprocess.run([program, "--build-info"], capture_output=True, text=True, check=False,
                               env=environment()).stdout
        return "" if "NFQ" in built.partition("Features:")[2].split("\n")[0] else "it was built without NFQ"

    def start(self, lab: Lab, folder: Path, names: list[str], ports: tuple[int, ...]) -> None:
        own = folder / "suricata"
        if set(str(own)) & set(" ,;:\"'"):      # a comma ends the path in a rule
            raise SystemProblem(f"suricata reads no path like {own}: choose another TMPDIR")
        own.mkdir()
        own.joinpath("names.lst").write_text("".join(base64.b64encode(name.encode()).decode() + "\n"
                                                     for name in names))
        own.joinpath("suricata.yaml").write_text(SETTINGS.format(folder=own, ports=f"[{','.join(map(str, ports))}]"))
        own.joinpath("none.config").touch()
        own.joinpath("names.rules").write_text(self.rules(own, names))
        log = own / "suricata.log"
        self.process = lab.popen_in("box", [find(), "-c", str(own / "suricata.yaml"), "-q", str(QUEUE),
                                            "-l", str(own)], env=environment(),
                                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        up = until(lambda: log.exists() and "ngine started" in log.read_text() or self.process.poll() is not None, 60)
        said = log.read_text() if log.exists() else ""
        if not up or self.process.poll() is not None or "Error" in said:        # a rule that it left out is one
            raise SystemProblem(f"suricata does not start: {' / '.join(said.splitlines()[-3:])}")
        self.steer(lab, ",".join(map(str, ports)))

    def rules(self, folder: Path, names: list[str]) -> str:
        if not self.rule_a_name:
            return DATASET.format(folder=folder)
        return "".join(NAME.format(name=name, tls=2 * number + 1, http=2 * number + 2)
                       for number, name in enumerate(names))

    def steer(self, lab: Lab, ports: str) -> None:
        """The kernel rules: what is not bypassed goes to the queue."""
        for tool in ("iptables", "ip6tables"):
            for line in ("FORWARD -m connmark --mark 1/1 -j ACCEPT",
                         f"FORWARD -p tcp -m multiport --ports {ports} -j NFQUEUE --queue-num {QUEUE} --queue-bypass",
                         f"POSTROUTING -p tcp -m multiport --ports {ports} -m mark --mark 1/1 "
                         "-j CONNMARK --save-mark --mask 1"):
                lab.run_in("box", [tool, "-t", "mangle", "-A", *line.split()])

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)


class SuricataRules(Suricata):
    name = "Suricata, a rule a name"
    rule_a_name = True


def find() -> str | None:
    own = UNPACKED / "usr" / "bin" / "suricata"
    return shutil.which("suricata", path=search_path()) or (str(own) if own.exists() else None)


def environment() -> dict[str, str]:
    """With the libraries that came with an unpacked one; those of this machine come first."""
    folders = [str(path) for path in (UNPACKED / "usr" / "lib").glob("*-linux-gnu*")]
    return os.environ | ({"LD_LIBRARY_PATH": os.pathsep.join(folders)} if folders else {})
