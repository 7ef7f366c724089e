"""Others take our kernel rules and programs away: the daemon puts them back and says so, or that it cannot."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import HOP_SHORTCUT, UNTRACKED, Running, start, track_nothing

from edgeblock.asking import ask
from edgeblock.lab import Lab, until

pytestmark = pytest.mark.live

SOON = 2.0
MODES = {"on": '[ruleset]\nkernel = "judge"\n', "off": '[ruleset]\nkernel = "off"\n', "untracked": UNTRACKED,
         "shortcut": HOP_SHORTCUT}
NOTHING = "*mangle\n:FORWARD ACCEPT [0:0]\nCOMMIT\n"

# What others do, as the shell takes it.
WAYS = {
    "iptables -F": "iptables -t mangle -F; ip6tables -t mangle -F",
    "an empty iptables-restore": "for t in iptables ip6tables; do printf '%s' \"$NOTHING\" | $t-restore; done",
    "nft flush ruleset": "nft flush ruleset",
    "nft delete table": "nft delete table ip mangle; nft delete table ip6 mangle",
    "the jump": "iptables -t mangle -D FORWARD -j EDGEBLOCK_FORWARD",
    "a chain flushed": "iptables -t mangle -F EDGEBLOCK_TCP_CLIENT",
    "a rule deleted": "iptables -t mangle -D EDGEBLOCK_FORWARD 3",
    "a rule replaced": "iptables -t mangle -R EDGEBLOCK_FORWARD 1 -j RETURN",
    "a rule inserted": "iptables -t mangle -I EDGEBLOCK_FORWARD -j ACCEPT",
    "the other family's": "ip6tables -t mangle -F",
    "a dormant table": "nft add table ip mangle '{ flags dormant; }'",
}
BEFORE_US = "iptables -t mangle -I FORWARD -m conntrack --ctstate NEW,ESTABLISHED,RELATED,UNTRACKED -j ACCEPT"


@pytest.fixture(scope="module", params=MODES)
def box(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Lab(extra_hop=True) as lab:
        if request.param in ("untracked", "shortcut"):
            track_nothing(lab)
        home = tmp_path_factory.mktemp("vigil")
        running = start(lab, home, MODES[request.param] + f'[metrics]\nlisten = "{home}/metrics"\n')
        yield running
        assert running.daemon.stop() == 0, running.daemon.last_words()


def shell(running: Running, words: str) -> None:
    running.lab.run_in("box", ["env", f"NOTHING={NOTHING}", "sh", "-ec", words])


def asked(running: Running) -> dict[str, Any]:
    told: dict[str, Any] = ask(running.daemon.config.parent / "control.sock", "status")
    return told


def vigil(running: Running) -> dict[str, Any]:
    told: dict[str, Any] = asked(running)["vigil"]
    return told


def log(running: Running) -> list[dict[str, Any]]:
    lines = running.daemon.log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def metric(home: Path, name: str) -> float:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.connect(str(home / "metrics"))
        asking.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = b"".join(iter(lambda: asking.recv(65536), b"")).decode()
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + " "))


def is_reset(running: Running, version: int = 4) -> bool:
    return running.lab.fetch("https://listed.example/", version=version, timeout=1.0).exit in (35, 56)


def rules(running: Running) -> list[str]:
    """Ours of both families, as they stand in the kernel, without what they note of chains that were not there."""
    return sorted(line for tool in ("iptables", "ip6tables")
                  for line in running.lab.run_in("box", [tool, "-t", "mangle", "-S"]).stdout.splitlines()
                  if "EDGEBLOCK" in line and "EDGEBLOCK_NOTES" not in line)


def passes(running: Running) -> bool:
    return running.lab.fetch("https://open.example/").exit == 0


def command(running: Running, name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(running.lab.command("box", [sys.executable, "-m", "edgeblock", name, "--config",
                                                      str(running.daemon.config)]),
                          capture_output=True, text=True, check=False)


@pytest.mark.parametrize("way", WAYS)
def test_what_others_take_away_is_back_soon(box: Running, way: str):
    assert is_reset(box)
    before, lines, whole = vigil(box)["restored"], len(log(box)), rules(box)
    shell(box, WAYS[way])
    # Of a way with two commands the first may have been made good before the second was there.
    assert until(lambda: vigil(box)["restored"]["rules"] > before["rules"] and rules(box) == whole, SOON), \
        box.daemon.last_words()
    assert is_reset(box) and is_reset(box, 6) and passes(box)
    said = [line["event"] for line in log(box)[lines:] if line["level"] == "error"]
    assert "kernel rules have been taken away" in said
    assert metric(box.rules.parent, 'edgeblock_restored_total{what="rules"}') == vigil(box)["restored"]["rules"]
    assert until(lambda: metric(box.rules.parent, "edgeblock_filtering") == 1, 5.0)
    assert command(box, "status").returncode == 0


def test_rules_that_accept_before_ours_do_not_stay_before_them(box: Running):
    before, lines = vigil(box)["restored"], len(log(box))
    shell(box, BEFORE_US)
    assert until(lambda: vigil(box)["restored"]["place"] > before["place"], SOON), box.daemon.last_words()
    assert is_reset(box)
    [told] = [line for line in log(box)[lines:] if "rules accept packets before" in line["event"]]
    assert any("--ctstate" in rule and "ACCEPT" in rule for rule in told["rules"])
    saved = box.lab.run_in("box", ["iptables-save", "-t", "mangle"]).stdout
    assert saved.index("-j EDGEBLOCK_FORWARD") < saved.index("--ctstate")
    # What takes nothing away stays before ours, since a packet that was queued does not come back to it.
    shell(box, "iptables -t mangle -I FORWARD -p tcp --syn -j TCPMSS --clamp-mss-to-pmtu")
    until(lambda: False, 1.2)
    saved = box.lab.run_in("box", ["iptables-save", "-t", "mangle"]).stdout
    assert saved.index("TCPMSS") < saved.index("-j EDGEBLOCK_FORWARD") and is_reset(box)
    shell(box, "iptables -t mangle -D FORWARD 1; iptables -t mangle -D FORWARD 2")
    until(lambda: False, 1.2)
    assert vigil(box)["restored"]["place"] == before["place"] + 1


def test_pins_are_put_back(box: Running):
    if not asked(box)["stage1"]:
        return
    before = vigil(box)["restored"]["first_stage"]
    inside = ["nsenter", f"--mount=/proc/{box.daemon.process.pid}/ns/mnt", "sh", "-c"]
    pins = "/sys/fs/bpf/edgeblock-*"
    names = subprocess.run([*inside, f"ls {pins}"], capture_output=True, text=True, check=True).stdout
    assert names
    subprocess.run([*inside, f"rm {pins}"], check=True)
    assert until(lambda: vigil(box)["restored"]["first_stage"] > before, SOON)
    assert subprocess.run([*inside, f"ls {pins}"], capture_output=True, text=True, check=True).stdout == names
    # And rules that ask them can be put back together with them.
    subprocess.run([*inside, f"rm {pins}"], check=True)
    shell(box, WAYS["nft flush ruleset"])
    assert until(lambda: is_reset(box), SOON) and passes(box)


def test_the_shortcut_is_put_back(box: Running):
    if "shortcut" not in box.daemon.config.read_text():
        return
    for ruin in ("tc qdisc del dev to-client clsact", "tc filter del dev to-client ingress"):
        before = vigil(box)["restored"]["shortcut"]
        shell(box, ruin)
        assert until(lambda before=before: vigil(box)["restored"]["shortcut"] > before, SOON)
        assert "edgeblock" in box.lab.run_in("box", ["tc", "filter", "show", "dev", "to-client", "ingress"]).stdout


def test_kept_from_putting_them_back_the_box_says_that_it_does_not_filter(box: Running):
    """The program that changes rules is no longer there, for the daemon alone."""
    pid = box.daemon.process.pid
    real = os.path.realpath("/usr/sbin/iptables-restore")
    inside = ["nsenter", f"--mount=/proc/{pid}/ns/mnt", "--"]
    subprocess.run([*inside, "mount", "--bind", "/bin/false", real], check=True)
    lines = len(log(box))
    try:
        shell(box, "nft flush ruleset")
        began = time.monotonic()
        assert until(lambda: metric(box.rules.parent, "edgeblock_filtering") == 0, SOON)
        assert not vigil(box)["filtering"]
        assert until(lambda: any("kernel rules are gone" in cause for cause in vigil(box)["causes"]), SOON)
        assert any(line["event"] == "not filtering" for line in log(box)[lines:])
        assert time.monotonic() - began < SOON
        told = command(box, "status")
        assert told.returncode == 1 and told.stdout.startswith("NOT FILTERING: kernel rules are")
        assert metric(box.rules.parent, "edgeblock_restore_failures_total") > 0
    finally:
        subprocess.run([*inside, "umount", real], check=True)
    assert until(lambda: is_reset(box), 2 * SOON)
    assert until(lambda: vigil(box)["filtering"], 3 * SOON)
    assert until(lambda: any(line["event"] == "filtering again" for line in log(box)[lines:]), SOON)


def test_doctor_says_so_too(box: Running):
    """Of the daemon, and of the rules, while they are kept from being put back."""
    assert until(lambda: vigil(box)["filtering"], 3 * SOON)
    told = command(box, "doctor").stdout
    assert re.search(rf"^daemon +ok +process {box.daemon.process.pid}, filtering", told, re.MULTILINE), told
    inside = ["nsenter", f"--mount=/proc/{box.daemon.process.pid}/ns/mnt", "--"]
    real = os.path.realpath("/usr/sbin/iptables-restore")
    subprocess.run([*inside, "mount", "--bind", "/bin/false", real], check=True)
    try:
        shell(box, "iptables -t mangle -D EDGEBLOCK_TCP_CLIENT 1")
        assert until(lambda: not vigil(box)["filtering"], SOON)
        done = command(box, "doctor")
        states = set(re.findall(r"^(daemon|kernel rules) +(\w+)", done.stdout, re.MULTILINE))
        assert done.returncode == 1 and {("daemon", "missing"), ("kernel rules", "missing")} <= states, done.stdout
    finally:
        subprocess.run([*inside, "umount", real], check=True)
    assert until(lambda: vigil(box)["filtering"], 3 * SOON)


def test_interfaces_that_are_not_there_are_told_at_start(tmp_path: Path):
    with Lab() as lab:
        more = f'[ruleset]\nclients = ["nosuch0", "to-client"]\n[metrics]\nlisten = "{tmp_path}/metrics"\n'
        running = start(lab, tmp_path, more)
        event = "packets can go past the kernel rules"
        assert until(lambda: any(line["event"] == event for line in log(running)), SOON)      # a thread writes it
        [told] = [line for line in log(running) if line["event"] == event]
        assert told["kind"] == "interface" and "nosuch0" in told["found"]
        assert metric(tmp_path, 'edgeblock_bypasses{kind="interface"}') == 1
        shell(running, "ip link add nosuch0 type dummy || ip link add nosuch0 type veth peer name nosuch1")
        assert until(lambda: metric(tmp_path, 'edgeblock_bypasses{kind="interface"}') == 0, 3 * SOON)
        assert is_reset(running)


def test_taken_away_again_and_again_is_not_filtering(box: Running):
    loop = box.lab.popen_in("box", ["sh", "-c", "while :; do iptables -t mangle -F; done"])
    try:
        assert until(lambda: not vigil(box)["filtering"], 2 * SOON)
    finally:
        loop.kill()
        loop.wait()
    assert until(lambda: vigil(box)["filtering"], 3 * SOON) and is_reset(box)
