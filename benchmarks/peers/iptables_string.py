"""A plain rule: `iptables -m string` for one name, in every packet to the filtered ports.

Ten thousand rules in a row are no filter, so it gets the one name that the benchmark asks for: it is measured at what
it does best, and does not track connections. It finds a name only if it lies whole in one packet, within the first
1500 bytes, and finds it wherever it stands there.
"""

from pathlib import Path

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
        for tool in ("iptables", "ip6tables"):
            lab.run_in("box", [tool, "-A", "FORWARD", "-p", "tcp", "-m", "multiport", "--dports",
                               ",".join(map(str, ports)), *match(names[-1]), "-j", "REJECT", "--reject-with",
                               "tcp-reset"])

    def stop(self) -> None:
        """Nothing runs; the rule goes with the lab."""


def match(name: str) -> list[str]:
    return ["-m", "string", "--string", name, "--algo", "bm", "--from", "40", "--to", "1500"]
