"""A list for some clients on a running box: two clients, one of them in its file, and then the other."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import UNTRACKED, Running, give_address, start, track_nothing

from edgeblock.lab import SERVER, Lab, until

pytestmark = pytest.mark.live

CLIENTS = {4: ("192.0.2.2", "192.0.2.3"), 6: ("2001:db8:1::2", "2001:db8:1::3")}
BESIDE = {4: "203.0.113.9", 6: "2001:db8:80::9"}        # another address of the server
MODES = {"off": '[ruleset]\nkernel = "off"\n', "on": '[ruleset]\nkernel = "judge"\n', "untracked": UNTRACKED}
CANARY = "\n[canary]\nperiod = 1\n"
SOON = 2.0              # seconds from a rename until it is the other way round
LIST = f"family.example\n{BESIDE[4]}\n{BESIDE[6]}\n"
NAMES = ("https://www.family.example/", "http://family.example/")


@pytest.fixture(params=MODES)
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    with Lab() as lab:
        if request.param == "untracked":
            track_nothing(lab)
        for version in (4, 6):
            give_address(lab, "client", CLIENTS[version][1])
            give_address(lab, "server", BESIDE[version])
        running = start(lab, tmp_path, MODES[request.param] + CANARY)
        running.drop("family.clients", clients(0))
        running.drop("family.toml", 'clients = "family.clients"\n')
        running.drop("family.list", LIST)
        assert until(lambda: not passes(lab, NAMES[0], 4, 0), 15.0), running.daemon.last_words()
        yield running
        assert running.daemon.stop() == 0, running.daemon.last_words()


def clients(which: int) -> str:
    return "# have asked for it\n" + "".join(f"{CLIENTS[version][which]}\n" for version in (4, 6))


def passes(lab: Lab, url: str, version: int, which: int, address: str = "") -> bool:
    """Whether that client gets there, or to that address."""
    where = address or SERVER[version]
    got = lab.run_in("client", ["curl", "-sk", "-o", "/dev/null", "--noproxy", "*", "--max-time", "4", "--interface",
                                CLIENTS[version][which], "--write-out", "%{http_code}",
                                "--connect-to", f"::{f'[{where}]' if version == 6 else where}:", url], check=False)
    return got.stdout == "200"


def status(box: Running) -> Any:
    told = box.lab.run_in("box", [sys.executable, "-m", "edgeblock", "status", "--json", "--config",
                                  str(box.daemon.config)])
    return json.loads(told.stdout)


def assert_it_is_for(box: Running, which: int) -> None:
    for version in (4, 6):
        for one in (0, 1):
            for url in NAMES:
                assert passes(box.lab, url, version, one) == (one != which), (url, version, one)
            assert passes(box.lab, "https://open.example/", version, one)
            assert not passes(box.lab, "https://listed.example/", version, one)     # of a list for everybody


def test_it_is_for_the_clients_in_the_file_alone_and_then_for_others(box: Running) -> None:
    lab = box.lab
    assert_it_is_for(box, 0)
    for version in (4, 6):
        for port in (80, 443):
            url = f"{'https' if port == 443 else 'http'}://open.example/"
            assert not passes(lab, url, version, 0, BESIDE[version]), (version, port)
            assert passes(lab, url, version, 1, BESIDE[version]), (version, port)
    before = status(box)
    assert before["addresses"]["of_some_clients"] == 2 and before["addresses"]["in_kernel"] == 0

    began = time.monotonic()
    box.drop("family.clients", clients(1))
    assert until(lambda: passes(lab, NAMES[0], 4, 0), 15.0)
    assert time.monotonic() - began < SOON
    assert_it_is_for(box, 1)
    log = box.daemon.log.read_text()
    assert '"change": "clients"' in log and log.count('"change": "taken", "list": "family"') == 1
    for version in (4, 6):
        assert not passes(lab, "https://open.example/", version, 1, BESIDE[version])
        assert passes(lab, "https://open.example/", version, 0, BESIDE[version])

    box.drop("family.clients", f"{clients(0)}no address\n")
    assert until(lambda: status(box)["lists"].get("family.clients", {}).get("refused"), 15.0)
    assert_it_is_for(box, 1)
    log = box.daemon.log.read_text()
    assert "no address" not in log and not any(
        one in line for line in log.splitlines() if "rules audit" in line for one in (CLIENTS[4][1], CLIENTS[6][1]))
    assert "no address" in (box.rules / "family.clients.rejected").read_text() or \
        "family.clients:4" in (box.rules / "family.clients.rejected").read_text()

    assert box.daemon.stop() == 0, box.daemon.last_words()
    box.daemon = lab.start_daemon(box.daemon.config.read_text())
    assert_it_is_for(box, 1)
    assert until(lambda: status(box)["canary"]["state"] == "ok", 15.0)
    assert "canary failed" not in box.daemon.log.read_text()


def test_the_daemon_says_for_whom_a_name_is_listed(box: Running) -> None:
    def check(*more: str) -> subprocess.CompletedProcess[str]:
        return box.lab.run_in("box", [sys.executable, "-m", "edgeblock", "check", "--live", "--config",
                                      str(box.daemon.config), *more, "family.example"], check=False)

    assert (told := check()).returncode == 0 and "for the clients of 2 prefixes only, not for this one" in told.stdout
    for version in (4, 6):
        assert check("--client", CLIENTS[version][0]).returncode == 1
        assert check("--client", CLIENTS[version][1]).returncode == 0
