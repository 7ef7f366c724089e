"""The lab and the daemon that the live tests share: in: the lists below; out: fixtures `lab` and `daemon`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

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

[reply]
contact = "{contact}"
redirect = "{redirect}"
"""


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


def start(lab: Lab, home: Path, more: str = "") -> Running:
    """The daemon with LISTS in its own folder; `more` is appended to the configuration."""
    rules = home / "rules"
    rules.mkdir()
    for name, text in LISTS.items():
        (rules / name).write_text(text)
    config = CONFIG.format(home=home, contact=CONTACT, redirect=REDIRECT) + more
    return Running(lab, lab.start_daemon(config), rules)


@pytest.fixture(scope="session")
def bare_lab() -> Iterator[Lab]:
    """A lab whose box only forwards."""
    with Lab(extra_hop=True) as lab:
        yield lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab of `running`: ask for that, too."""
    with Lab(extra_hop=True) as lab:
        yield lab


@pytest.fixture(scope="session")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The daemon in the box of `lab`, for all tests that leave it as it is; at the end it has to stop cleanly."""
    running = start(lab, tmp_path_factory.mktemp("daemon"))
    yield running
    assert running.daemon.stop() == 0, running.daemon.last_words()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Running]:
    """A lab and a daemon of the test's own, to be stopped, killed and confused."""
    with Lab() as lab:
        yield start(lab, tmp_path)
