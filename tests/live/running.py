"""A daemon in a lab with the lists that the live tests are about. In: a lab, a folder. Out: a Running."""

import os
from dataclasses import dataclass
from pathlib import Path

from edgeblock.lab import Daemon, Lab

REDIRECT = "https://open.example/moved"
CONTACT = "hostmaster@open.example"
LISTS = {
    "court.list": "listed.example\n=only.example.net\n*.below.example.org\n@@fine.listed.example\n",
    "pages.list": "example.com/bad/page.html\nexample.com/dir/*\npaths.example/files/listed.html\npages.example\n",
    "pages.toml": 'action = "page"\n',
    "moved.list": "example.com/old/*\n",
    "moved.toml": 'action = "redirect"\n',
    "watched.list": "watched.example.net\n",
    "watched.toml": 'action = "observe"\n',
    "silent.list": "silent.example.org\n",
    "silent.toml": 'action = "drop"\n',
}
CONFIG = """
[rules]
directory = "{home}/rules"
key = "{home}/key"

[impact]
sample = {sample}

[reply]
contact = "{contact}"
redirect = "{redirect}"
"""

# Flow marks in the first stage, on a box that tracks no connection.
UNTRACKED = '[ruleset]\nkernel = "marks"\nmarks = 65536\n'

# The same, and packets of done flows past the kernel rules; in a lab with the extra hop that is next to the box.
SHORTCUT = '[ruleset]\nkernel = "carry"\nmarks = 65536\nclients = ["to-client"]\nservers = ["to-server"]\n'
HOP_SHORTCUT = SHORTCUT.replace("to-server", "to-hop")
MARKED = {"untracked": UNTRACKED, "shortcut": HOP_SHORTCUT}     # boxes where the first stage keeps the flow marks


@dataclass
class Running:
    """A daemon in a lab and the folder of its lists."""

    lab: Lab
    daemon: Daemon
    rules: Path

    def drop(self, name: str, text: str) -> None:
        """A list as it should arrive: whole, by rename."""
        new = self.rules / f".{name}.new"
        new.write_text(text)
        new.rename(self.rules / name)


def settings_file(home: Path, more: str, daemon: str = "") -> Path:
    """For a daemon that a test starts by itself: an empty rules folder and its configuration in `home`."""
    (home / "rules").mkdir()
    settings = home / "daemon.toml"
    settings.write_text(f'[rules]\ndirectory = "{home}/rules"\nkey = "{home}/key"\n{more}'
                        f'[daemon]\n{daemon}control = "{home}/control.sock"\n')
    return settings


def start(lab: Lab, home: Path, more: str = "", within: float = 20.0, rules: str = "",
          sample: float = 0.0) -> Running:
    """The daemon with LISTS in its own folder, ready within so many seconds; `more` goes behind the configuration,
    `rules` into its [rules]. `sample` is that of [impact]: without it what the first stage passes is counted to the
    packet."""
    directory = home / "rules"
    directory.mkdir()
    for name, text in LISTS.items():
        (directory / name).write_text(text)
    config = CONFIG.format(home=home, contact=CONTACT, redirect=REDIRECT, sample=sample)
    config = config.replace("[rules]\n", f"[rules]\n{rules}")
    return Running(lab, lab.start_daemon(config + more, within=within), directory)


def give_address(lab: Lab, place: str, address: str) -> None:
    """One more for a client or server, in the network of its link to the box."""
    more = ["64", "nodad"] if ":" in address else ["24"]
    lab.run_in(place, ["ip", "addr", "add", f"{address}/{more[0]}", "dev", "to-box", *more[1:]])


def track_nothing(lab: Lab) -> None:
    """The operator's own rules: no connection through the box, or of it, is tracked."""
    for tool in ("iptables", "ip6tables"):
        for chain in ("PREROUTING", "OUTPUT"):
            lab.run_in("box", [tool, "-t", "raw", "-A", chain, "-j", "CT", "--notrack"])


def tracked(lab: Lab) -> int:
    """Connections that the box has tracked since it began, by what every CPU has counted of new ones, and has now."""
    lines = lab.run_in("box", ["cat", "/proc/net/stat/nf_conntrack"]).stdout.splitlines()
    names = lines[0].split()
    return sum(int(line.split()[names.index(name)], 16) for line in lines[1:] for name in ("entries", "insert"))


def children(parent: int, module: str) -> list[int]:
    """The processes of this parent that run this module."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                status = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                if int(status[1]) == parent and module in Path(f"/proc/{name}/cmdline").read_text():
                    found.append(int(name))
            except OSError:
                continue
    return found
