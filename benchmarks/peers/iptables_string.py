"""A plain rule: `iptables -m string` for one name, in every packet of the first kilobyte of a connection.

Ten thousand rules in a row are no filter, so it gets the one name that the benchmark asks for: it is measured at what
it does best. The rule looks at packets with payload only, and at the first 1500 bytes of a connection where
connbytes exists; it finds a name only if it lies whole in one packet.
"""

from pathlib import Path

from edgeblock.errors import SystemProblem
from edgeblock.lab import Lab, call
from peers.base import Peer


class IptablesString(Peer):
    name = "iptables -m string, one name"

    @classmethod
    def obstacle(cls) -> str:
        trial = ["unshare", "--net", "iptables", "-A", "FORWARD", "-p", "tcp", *match("trial.example"), "-j", "DROP"]
        try:
            done = call(trial, check=False)
        except OSError as problem:
            return f"iptables: {problem.strerror}"
        return "" if done.returncode == 0 else "this kernel has no string match (xt_string)"

    def start(self, lab: Lab, folder: Path, names: list[str], ports: tuple[int, ...]) -> None:
        early = ["-m", "connbytes", "--connbytes", "0:3000", "--connbytes-dir", "original",
                 "--connbytes-mode", "bytes"]
        for tool in ("iptables", "ip6tables"):
            rule = [tool, "-A", "FORWARD", "-p", "tcp", "-m", "multiport", "--dports", ",".join(map(str, ports))]
            end = [*match(names[-1]), "-j", "REJECT", "--reject-with", "tcp-reset"]
            try:
                lab.run_in("box", [*rule, *early, *end])
            except SystemProblem:           # without connbytes it looks at every packet
                lab.run_in("box", [*rule, *end])


def match(name: str) -> list[str]:
    return ["-m", "string", "--string", name, "--algo", "bm", "--from", "40", "--to", "1500"]
