"""The matrix through a box: what a server serves for the listed host never arrives, what is innocent arrives.

Every server that is installed, IPv4 and IPv6, in each mode of the box: the queue alone, the first stage, flow marks
in the first stage on a box that tracks nothing, and the shortcut there. First without the daemon, then with it: the
same bytes. `make matrix` runs it; a new server or spelling is one row of the tables.
"""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeblock.lab import SERVER, Lab
from tests.matrix import record
from tests.matrix.asking import ask, is_served, sent, spellings
from tests.matrix.servers import LISTED, OTHER, SERVERS, Server, started
from tests.matrix.spellings import SPLITS, Spelling

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]

FIRST_PORT = 21000
MODES = {
    "queue": '[ruleset]\nkernel = "off"\n', "stage1": '[ruleset]\nkernel = "judge"\n',
    "untracked": '[ruleset]\nkernel = "marks"\nmarks = 65536\n',
    "shortcut": '[ruleset]\nkernel = "carry"\nmarks = 65536\n'
                'clients = ["to-client"]\nservers = ["to-hop"]\n',
}
PORTS = "".join(f"{kind}_ports = {list(range(FIRST_PORT, FIRST_PORT + len(SERVERS)))}\n" for kind in ("tcp", "udp"))
KEPT = record.kept()
AT_ONCE = 6


@dataclass(frozen=True)
class Question:
    """One connection: what is asked of which server, and what came without the filter."""

    server: Server
    port: int
    version: int
    how: str
    spelling: Spelling
    listed: bytes

    def put(self, lab: Lab) -> bytes:
        return ask(self.server, lambda: connected(lab, self.port, self.version, self.server),
                   sent(self.server, self.spelling, self.listed, OTHER.encode()), self.how)

    def __str__(self) -> str:
        return f"{self.server.name}, IPv{self.version}, {self.how}, {self.spelling.name}, {self.listed.decode()}"


def connected(lab: Lab, port: int, version: int, server: Server | None = None) -> socket.socket:
    if server and server.kind == "quic":
        with lab.entered("client"):
            return record.connected(server, SERVER[version], port)
    return lab.connect(port, version=version)


def opened(lab: Lab) -> Callable[[str, int], bool]:
    def look(address: str, port: int) -> bool:
        try:
            connected(lab, port, 6 if ":" in address else 4).close()
        except OSError:
            return False
        return True
    return look


def all_at_once(questions: list[Question], lab: Lab) -> list[bytes]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda question: question.put(lab), questions))


def questions(server: Server, port: int) -> Iterator[Question]:
    """What it was recorded to serve, whole; one byte first, a cut in the name, and byte by byte for every fifth."""
    for number, spelling in enumerate(row for row in spellings(server) if row.name in KEPT[server.name]):
        for version in (4, 6):
            for how in SPLITS if number % 5 == version % 5 and server.kind != "quic" else ("whole",):
                yield Question(server, port, version, how, spelling, LISTED.encode())


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    home = tmp_path_factory.mktemp("matrix")
    for folder in (home, *home.parents):
        if folder.stat().st_uid == 0 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    with Lab(extra_hop=True) as lab, ExitStack() as running:
        for number, server in enumerate(SERVERS):
            if not server.there:
                continue
            for version, address in SERVER.items():
                if server.dual and version == 6:
                    continue
                running.enter_context(started(
                    server, home / f"{number}-{version}", address, FIRST_PORT + number,
                    lambda argv, **more: lab.popen_in("server", argv, **more), opened(lab)))
        yield lab


@pytest.fixture(scope="module")
def served(lab: Lab) -> list[Question]:
    """What a server serves for the listed host where nothing filters."""
    asked = [question for number, server in enumerate(SERVERS) if server.there
             for question in questions(server, FIRST_PORT + number)]
    answers = all_at_once(asked, lab)
    found = [question for question, answer in zip(asked, answers, strict=True) if is_served(question.server, answer)]
    assert len({question.server.name for question in found}) >= 15 and len(found) > 0.9 * len(asked)
    assert not [str(question) for question in found if question.spelling.innocent]
    return found


@pytest.fixture(scope="module")
def innocent(lab: Lab) -> list[tuple[Question, bytes]]:
    """What has nothing to do with the listed host, and what comes without the filter, where anything comes."""
    asked = []
    for number, server in enumerate(SERVERS):
        if server.there:
            rows = [(row, LISTED) for row in spellings(server) if row.innocent]
            rows += [(row, "fair.example") for row in spellings(server)[:40] if b"{" in row.text]
            asked += [Question(server, FIRST_PORT + number, 4 + 2 * (place % 2), "whole", row, name.encode())
                      for place, (row, name) in enumerate(rows)]
    answers = all_at_once(asked, lab)
    return [(question, answer) for question, answer in zip(asked, answers, strict=True) if answer]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_served_is_blocked_and_what_is_innocent_passes(
        lab: Lab, served: list[Question], innocent: list[tuple[Question, bytes]], mode: str, tmp_path: Path):
    if mode == "untracked":             # and the shortcut behind it
        for tool in ("iptables", "ip6tables"):
            for chain in ("PREROUTING", "OUTPUT"):
                lab.run_in("box", [tool, "-t", "raw", "-A", chain, "-j", "CT", "--notrack"])
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "court.list").write_text(f"{LISTED}\n")
    daemon = lab.start_daemon(
        f'[rules]\ndirectory = "{tmp_path}/rules"\nkey = "{tmp_path}/key"\n'
        + MODES[mode].replace("[ruleset]\n", "[ruleset]\n" + PORTS), within=60)
    try:
        passed = [str(question) for question, answer in zip(served, all_at_once(served, lab), strict=True)
                  if is_served(question.server, answer)]
        assert not passed, f"{len(passed)} of {len(served)} let through: {passed[:20]}"
        harmed = [str(question) for (question, _), answer in zip(
            innocent, all_at_once([question for question, _ in innocent], lab), strict=True) if not answer]
        assert not harmed, f"{len(harmed)} of {len(innocent)} harmed: {harmed[:20]}"
    finally:
        assert daemon.stop() == 0, daemon.last_words()
