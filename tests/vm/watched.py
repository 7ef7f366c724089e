"""The daemon with nft's rules, on a kernel whose nft queues: what its canary says while others change the rules.

In: the machine of boot.py, which runs it. Out: red within a round where a listed name passes, green where the daemon
has put its rules back. The daemon is kept from repairing by a program in the place of nft, for it alone.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from edgeblock.asking import ask
from edgeblock.lab import until
from tests.live.running import settings_file

pytestmark = pytest.mark.live

PERIOD = 1.0
START = 120.0           # seconds: the machine is emulated
SOON = 15.0             # a period and the longest round, likewise
PLACE = "watched"
PROBES = 6
DONE = "ct mark set ct mark or 0x10000000"
# What others do, whether the daemon has to be kept from repairing it, and how many probes fail: a QUIC connection's
# first datagrams are queued whatever its mark is.
OTHERS = {
    "flushed": ("flush ruleset", True, PROBES),
    "an accept before what ours does": ("insert rule inet edgeblock forward accept", True, PROBES),
    "a chain emptied": ("flush chain inet edgeblock tcp_client; flush chain inet edgeblock udp_client", True, PROBES),
    "marks of another's": ("add table inet other; add chain inet other marks "
                           f"{{ type filter hook forward priority mangle - 5; {DONE}; }}", False, 4),
}


class Box:
    def __init__(self, home: Path) -> None:
        self.home, self.log = home, home / "log"
        (home / "daemon").mkdir()
        settings = settings_file(home / "daemon", f'[ruleset]\nbackend = "nft"\n[canary]\nperiod = {PERIOD}\n')
        subprocess.run(["ip", "netns", "add", PLACE], check=True)
        self.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", PLACE, sys.executable, "-m", "edgeblock", "run", "--config", str(settings)],
                stdout=output, stderr=output, stdin=subprocess.DEVNULL)

    def run(self, *words: str) -> None:
        subprocess.run(["ip", "netns", "exec", PLACE, *words], check=True)

    def status(self) -> dict[str, Any]:
        told: dict[str, Any] = ask(self.home / "daemon" / "control.sock", "status", 30.0)
        return told

    def state(self) -> str:
        with suppress(Exception):           # not yet there
            return str(self.status()["canary"]["state"])
        return ""

    @contextmanager
    def without_nft(self) -> Iterator[None]:
        inside = ["nsenter", f"--mount=/proc/{self.process.pid}/ns/mnt", "--"]
        nft = os.path.realpath("/usr/sbin/nft")
        subprocess.run([*inside, "mount", "--bind", "/bin/false", nft], check=True)
        try:
            yield
        finally:
            subprocess.run([*inside, "umount", "--lazy", nft], check=True)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    box = Box(tmp_path_factory.mktemp("watched"))
    try:
        assert until(lambda: box.state() == "ok", START), box.log.read_text()[-3000:]
        yield box
    finally:
        box.process.send_signal(signal.SIGTERM)
        status = box.process.wait(60)
        left = subprocess.run(["ip", "netns", "exec", PLACE, "ip", "-o", "link"], capture_output=True, text=True,
                              check=True).stdout
        subprocess.run(["ip", "netns", "delete", PLACE], check=True)
    assert status == 0 and "edgeblock-c" not in left


def test_it_is_green_over_both_families(box: Box):
    told = box.status()
    assert told["canary"]["lacking"] == {} and len(told["canary"]["probes"]) == PROBES
    assert told["vigil"]["filtering"]
    # The daemon asks the kernel for its counts now and then: those it has may be from before the first round.
    assert until(lambda: box.status()["kernel_rules"]["tcp_data"]["packets"] > 0, SOON)


def wrong(box: Box) -> list[str]:
    return [one["wrong"] for one in box.status()["canary"]["probes"] if "a listed name passes" in one["wrong"]]


@pytest.mark.parametrize("what", OTHERS)
def test_it_is_red_while_a_listed_name_passes(box: Box, what: str):
    assert until(lambda: box.state() == "ok", SOON)
    words, hinders, fail = OTHERS[what]
    with box.without_nft() if hinders else nullcontext():
        began = time.monotonic()
        box.run("nft", words)
        assert until(lambda: box.state() == "failed", SOON), json.dumps(box.status()["vigil"])
        print(f"{what}: red after {time.monotonic() - began:.1f} s")
        # The round that was under way when it happened may have asked for some before.
        assert until(lambda: len(wrong(box)) == fail, SOON), wrong(box)
        told = box.status()
        assert not told["vigil"]["filtering"]
        assert any(cause.startswith("a listed name passes: ") for cause in told["vigil"]["causes"])
        if not hinders:
            box.run("nft", "delete table inet other")
    assert until(lambda: box.state() == "ok", 2 * SOON), box.log.read_text()[-3000:]
    assert until(lambda: box.status()["vigil"]["filtering"], SOON)


def test_it_stays_green_where_the_rules_are_put_back(box: Box):
    before = box.status()["vigil"]["restored"]["rules"]
    box.run("nft", "flush ruleset")
    assert until(lambda: box.status()["vigil"]["restored"]["rules"] > before, SOON)
    rounds = box.status()["canary"]["rounds"]
    assert until(lambda: box.status()["canary"]["rounds"] > rounds + 1, SOON) and box.state() == "ok"
