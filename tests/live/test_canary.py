"""The daemon asks its own box: what it says where the box filters, in every mode, and where it does not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import HOP_SHORTCUT, UNTRACKED, Running, children, start, track_nothing
from soak import EVENTS, soak, week, wrong_with

from edgeblock.asking import ask
from edgeblock.lab import Lab, until

pytestmark = pytest.mark.live

PERIOD = 1.0
CANARY = f"\n[canary]\nperiod = {PERIOD}\n"
SIDES = 'clients = ["to-client"]\nservers = ["to-hop"]\n'
MODES = {"on": '[ruleset]\nkernel = "judge"\n', "off": '[ruleset]\nkernel = "off"\n', "untracked": UNTRACKED,
         "shortcut": HOP_SHORTCUT, "sides": f"[ruleset]\n{SIDES}", "all": '[ruleset]\ntcp_ports = "all"\n',
         "other ports": "[ruleset]\ntcp_ports = [8080]\nudp_ports = []\n"}
ALL = {(f"ipv{family}", protocol) for family in (4, 6) for protocol in ("http", "tls", "quic")}


@pytest.fixture(scope="module", params=MODES)
def box(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Lab(extra_hop=True) as lab:
        if request.param in ("untracked", "shortcut"):
            track_nothing(lab)
        running = start(lab, tmp_path_factory.mktemp("canary"), MODES[request.param] + CANARY)
        yield running
        assert running.daemon.stop() == 0, running.daemon.last_words()
        # Its interfaces go with it.
        assert "edgeblock-c" not in lab.run_in("box", ["ip", "-o", "link"]).stdout.replace("edgeblock-lab", "")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Running]:
    """A box for one test."""
    with Lab() as lab:
        yield start(lab, tmp_path, MODES["on"] + CANARY)


def asked(running: Running, question: str = "canary") -> dict[str, Any]:
    told: dict[str, Any] = ask(running.daemon.config.parent / "control.sock", question, 20.0)
    return told


def state(running: Running) -> str:
    return str(asked(running, "status")["canary"]["state"])


def shell(running: Running, words: str) -> None:
    running.lab.run_in("box", ["sh", "-ec", words])


def command(running: Running, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(running.lab.command("box", [sys.executable, "-m", "edgeblock", *words, "--config",
                                                      str(running.daemon.config)]),
                          capture_output=True, text=True, check=False)


def test_it_shows_that_the_box_filters(box: Running):
    told = asked(box)
    shown = {(one["family"], one["protocol"]) for one in told["probes"]}
    assert (told["state"], told["lacking"]) == ("ok", {}), told
    assert shown == (ALL if "udp_ports = []" not in box.daemon.config.read_text()
                     else {one for one in ALL if one[1] != "quic"})
    rounds = asked(box, "status")["canary"]["rounds"]
    assert until(lambda: asked(box, "status")["canary"]["rounds"] > rounds + 1, 10 * PERIOD)
    assert state(box) == "ok"
    done = command(box, "canary")
    assert done.returncode == 0 and done.stdout.count(" ok\n") == len(shown)
    assert (command(box, "canary", "--quiet").stdout, command(box, "canary", "--quiet").returncode) == ("", 0)


def test_it_counts_for_no_list_and_logs_no_block(box: Running):
    asked(box)
    status = asked(box, "status")
    assert status["matched"] == {} and ".invalid" not in str(status) + box.daemon.log.read_text()
    status["ledger"].pop("directory")        # which has this test's name in it
    assert "/canary" not in str(status)
    assert status["rules"]["lists"] == 5


def test_it_sends_nothing_by_another_interface(box: Running):
    def sent() -> dict[str, int]:
        links = json.loads(box.lab.run_in("box", ["ip", "-json", "-s", "link"]).stdout)
        return {one["ifname"]: one["stats64"]["tx"]["packets"] for one in links if one["ifname"].startswith("to-")}

    before = sent()
    asked(box)
    assert sent() == before


def test_it_fails_while_the_rules_are_gone_and_cannot_come_back(own: Running):
    real = os.path.realpath("/usr/sbin/iptables-restore")
    inside = ["nsenter", f"--mount=/proc/{own.daemon.process.pid}/ns/mnt", "--"]
    assert until(lambda: state(own) == "ok", 10)
    subprocess.run([*inside, "mount", "--bind", "/bin/false", real], check=True)
    shell(own, "nft flush ruleset")
    assert until(lambda: state(own) == "failed", 5 * PERIOD)
    done = command(own, "canary")
    assert done.returncode == 1 and done.stdout.count("FAILED: a listed name passes") == len(ALL)
    told = asked(own, "status")["vigil"]
    assert not told["filtering"] and any(cause.startswith("a listed name passes: ") for cause in told["causes"])
    assert '"event": "canary failed"' in own.daemon.log.read_text()
    subprocess.run([*inside, "umount", real], check=True)
    assert until(lambda: state(own) == "ok", 10 * PERIOD)
    assert until(lambda: asked(own, "status")["vigil"]["filtering"], 5)


def test_it_sees_marks_that_another_rule_sets(own: Running):
    """Nothing of ours is missing, and yet nothing is read: to others' rules every connection is done."""
    assert until(lambda: state(own) == "ok", 10)
    shell(own, "iptables -t mangle -I PREROUTING -j CONNMARK --set-mark 0x10000000; "
               "iptables -t mangle -I FORWARD -j CONNMARK --set-mark 0x10000000")
    assert until(lambda: state(own) == "failed", 5 * PERIOD)
    assert {one["family"] for one in asked(own)["probes"] if one["wrong"]} == {"ipv4"}
    shell(own, "iptables -t mangle -F PREROUTING; iptables -t mangle -D FORWARD 1")
    assert until(lambda: state(own) == "ok", 10 * PERIOD)


@pytest.mark.parametrize("sides", ["", '[ruleset]\nclients = ["to-client"]\nservers = ["to-server"]\n'])
def test_it_sees_address_rules_that_are_gone_and_cannot_come_back(sides: str, tmp_path: Path):
    def probes(wrong: str) -> list[str]:
        return sorted(one["family"] for one in asked(own)["probes"]
                      if one["protocol"] == "address" and one["wrong"] == wrong)

    with Lab() as lab:
        own = start(lab, tmp_path, sides + CANARY)
        assert until(lambda: state(own) == "ok", 10)
        assert probes("") == []             # no address is listed: there is no table to be asked
        own.drop("places.list", "203.0.113.99\n")
        assert until(lambda: probes("") == ["ipv4", "ipv6"], 10)
        status = asked(own, "status")
        assert (status["addresses"]["ranges"], status["addresses"]["in_kernel"]) == (1, 1)
        assert "/canary" not in str(status["addresses"])
        real = os.path.realpath("/usr/sbin/nft")
        inside = ["nsenter", f"--mount=/proc/{own.daemon.process.pid}/ns/mnt", "--"]
        subprocess.run([*inside, "mount", "--bind", "/bin/false", real], check=True)
        shell(own, "nft delete table inet edgeblock_addresses")
        began = time.monotonic()
        assert until(lambda: probes("a listed address passes") == ["ipv4", "ipv6"], 5 * PERIOD)
        assert time.monotonic() - began < 2 * PERIOD + 1
        told = asked(own, "status")["vigil"]
        assert "a listed address passes: IPv4, IPv6" in told["causes"] and not told["filtering"]
        subprocess.run([*inside, "umount", real], check=True)
        assert until(lambda: state(own) == "ok" and asked(own, "status")["vigil"]["filtering"], 10)
        (own.rules / "places.list").unlink()
        assert until(lambda: probes("") == [], 10)


def test_it_says_when_nothing_comes_through(own: Running):
    """The operator's rules drop what is forwarded: nobody is unfiltered, and nothing is shown."""
    assert until(lambda: state(own) == "ok", 10)
    shell(own, "iptables -P FORWARD DROP")
    assert until(lambda: state(own) == "failed", 10 * PERIOD)
    assert all("nothing comes through from edgeblock-c" in one["wrong"]
               for one in asked(own)["probes"] if one["family"] == "ipv4")
    assert asked(own, "status")["vigil"]["filtering"]
    shell(own, "iptables -A FORWARD -i edgeblock-+ -o edgeblock-+ -j ACCEPT")
    assert until(lambda: state(own) == "ok", 10 * PERIOD)


def test_it_stays_green_over_reloads_and_the_end_of_a_worker(own: Running):
    assert until(lambda: state(own) == "ok", 10)
    for turn in range(3):
        own.drop("new.list", f"number{turn}.example\n")
        own.daemon.process.send_signal(signal.SIGHUP)
        # Where no spare is ready packets wait, on a busy machine for longer than anybody asks.
        assert until(lambda: len(children(own.daemon.process.pid, "edgeblock.daemon.worker")) >= 2, 20)
        until(lambda: False, 5 * PERIOD)
        os.kill(asked(own, "status")["workers"]["0"]["pid"], signal.SIGKILL)
        rounds = asked(own, "status")["canary"]["rounds"]
        assert until(lambda rounds=rounds: asked(own, "status")["canary"]["rounds"] > rounds + 1, 20 * PERIOD)
    assert "canary failed" not in own.daemon.log.read_text(), own.daemon.last_words()


def test_a_pair_that_was_left_is_replaced(own: Running):
    assert until(lambda: state(own) == "ok", 10)
    own.daemon.stop(signal.SIGKILL)
    assert "edgeblock-c@" in own.lab.run_in("box", ["ip", "-o", "link"]).stdout
    again = own.lab.start_daemon(own.daemon.config.read_text())      # with the control socket of the first
    assert until(lambda: state(own) == "ok", 10)
    assert again.stop() == 0
    assert "edgeblock-c@" not in own.lab.run_in("box", ["ip", "-o", "link"]).stdout


def test_interfaces_that_somebody_takes_away_come_back(own: Running):
    assert until(lambda: state(own) == "ok", 10)
    shell(own, "ip link del edgeblock-c")
    there = ["ip", "-o", "link", "show", "edgeblock-c"]
    assert until(lambda: own.lab.run_in("box", there, check=False).returncode == 0, 20 * PERIOD)
    assert until(lambda: state(own) == "ok", 20 * PERIOD)


def test_a_box_without_it_has_no_interface(tmp_path: Path):
    with Lab() as lab:
        running = start(lab, tmp_path, '[canary]\nenabled = false\n[ruleset]\nclients = ["to-client"]\n')
        assert asked(running)["state"] == "off"
        done = command(running, "canary")
        assert done.returncode == 1 and done.stdout == "not asked: off in the settings\n"
        assert "edgeblock-c" not in lab.run_in("box", ["ip", "-o", "link"]).stdout.replace("edgeblock-lab", "")
        assert "edgeblock-c" not in lab.run_in("box", ["iptables-save"]).stdout


@pytest.mark.alone
@pytest.mark.parametrize("mode", ["on", "shortcut"])
def test_it_stays_green_whatever_happens_to_the_box(mode: str):
    """Some seconds of `make soak`: lists that change, reloads, workers killed, a restart and a kill -9."""
    told = soak(20.0, mode, 3, often=4.0)
    assert wrong_with(told) == [], told
    assert told["canary_rounds"] >= 5 and all(told["happened"].get(what) for what in EVENTS), told


@pytest.mark.alone
def test_reloads_restarts_and_flushes_leave_nothing():
    told = week(20, 4, 2, "on", 120.0)
    assert told["grown"] == {"reloads": {}, "restarts": {}}, told
    assert told["done"] == told["wanted"] and told["red"] == told["left"] == []
