"""Listed destinations are led to the box while it filters, and not when it does not: two routers, and the daemon.

The box announces by BIRD or ExaBGP, as the examples in docs/ have it; the hop behind it learns by BIRD.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Running, start

from edgeblock.asking import ask
from edgeblock.lab import Lab, until

pytestmark = pytest.mark.live

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "routing"
CANARY = "\n[canary]\nperiod = 1.0\n"
LISTED = ("203.0.113.99/32", "203.0.113.128/25")
LISTED6 = "2001:db8:99::/64"
ROUTER = """
router id 198.51.100.2;
protocol device { }
protocol bgp box4 {
    local 198.51.100.2 as 64513; neighbor 198.51.100.1 as 64512; connect retry time 1; connect delay time 1;
    error wait time 1, 2;
    ipv4 { import all; export none; };
}
protocol bgp box6 {
    local 2001:db8:2::2 as 64513; neighbor 2001:db8:2::1 as 64512; connect retry time 1; connect delay time 1;
    error wait time 1, 2;
    ipv6 { import all; export none; };
}
"""
RISE, FALL = 3, 2


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Running]:
    with Lab(extra_hop=True) as lab:
        running = start(lab, tmp_path, CANARY)
        running.drop("places.list", "\n".join((*LISTED, LISTED6)) + "\n")
        (tmp_path / "router.conf").write_text(ROUTER)
        bird(running, "hop", tmp_path / "router.conf")
        yield running


def bird(running: Running, place: str, settings: Path) -> None:
    socket = settings.with_suffix(".ctl")
    running.lab.popen_in(place, ["bird", "-f", "-c", str(settings), "-s", str(socket), "-P",
                                 str(settings.with_suffix(".pid"))])
    assert until(socket.exists, 10)


def birdc(settings: Path, *words: str) -> str:
    return subprocess.run(["birdc", "-s", str(settings.with_suffix(".ctl")), *words], capture_output=True, text=True,
                          check=False).stdout


def learnt(home: Path) -> set[str]:
    return set(re.findall(r"^([\d.:a-f]+/\d+) ", birdc(home / "router.conf", "show", "route"), re.MULTILINE))


def command(running: Running, *words: str) -> list[str]:
    return [sys.executable, "-m", "edgeblock", *words, "--config", str(running.daemon.config)]


def exported(running: Running, home: Path, format: str) -> Path:
    path = home / f"{format}.routes"
    subprocess.run(command(running, "export", "--format", format, "--list", "places", "--output", str(path)),
                   check=True, capture_output=True)
    return path


def by_bird(running: Running, home: Path) -> None:
    routes = exported(running, home, "bird")
    settings = home / "box.conf"
    settings.write_text((EXAMPLES / "bird.conf").read_text().replace("/etc/bird/edgeblock.conf", str(routes))
                        .replace("    disabled; ", "    connect delay time 1; connect retry time 1; disabled;"))
    bird(running, "box", settings)
    tell = [option for word, flag in (("enable", "--up"), ("disable", "--down")) for name in ("divert4", "divert6")
            for option in (flag, f"birdc -s {settings.with_suffix('.ctl')} {word} {name}")]
    running.lab.popen_in("box", [*command(running, "health", "--rise", str(RISE), "--fall", str(FALL)), *tell])


def by_exabgp(running: Running, home: Path) -> None:
    routes = exported(running, home, "exabgp")
    script = home / "health"
    words = command(running, "health", "--rise", str(RISE), "--fall", str(FALL), "--exabgp", str(routes))
    script.write_text(f"#!/bin/sh\nexec env PATH={os.environ['PATH']} {' '.join(words)}\n")
    script.chmod(0o755)
    settings = home / "exabgp.conf"
    settings.write_text(re.sub(r"run .*;", f"run {script};", (EXAMPLES / "exabgp.conf").read_text()))
    with (home / "exabgp.log").open("wb") as log:
        running.lab.popen_in("box", ["exabgp", str(settings)], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                             env=os.environ | {"exabgp.daemon.drop": "false", "exabgp.api.cli": "false",
                                               "exabgp.daemon.user": "root", "exabgp.log.level": "WARNING"})


@pytest.mark.parametrize("by", [by_bird, by_exabgp])
def test_routes_go_when_the_canary_is_red_and_come_back(by, own: Running, tmp_path: Path):
    real = os.path.realpath("/usr/sbin/iptables-restore")
    inside = ["nsenter", f"--mount=/proc/{own.daemon.process.pid}/ns/mnt", "--"]
    by(own, tmp_path)
    every = {*LISTED, LISTED6}
    assert until(lambda: learnt(tmp_path) == every, 30), (learnt(tmp_path), said(tmp_path))
    shown = birdc(tmp_path / "router.conf", "show", "route", "all", "for", "203.0.113.200")
    assert "via 198.51.100.1 " in shown and "(65535,65281)" in shown, shown
    subprocess.run([*inside, "mount", "--bind", "/bin/false", real], check=True)
    own.lab.run_in("box", ["nft", "flush", "ruleset"])
    began = time.monotonic()
    assert until(lambda: learnt(tmp_path) == set(), 15), learnt(tmp_path)
    gone = time.monotonic() - began
    assert not ask(own.daemon.config.parent / "control.sock", "status")["vigil"]["filtering"]
    subprocess.run([*inside, "umount", real], check=True)
    began = time.monotonic()
    assert until(lambda: learnt(tmp_path) == every, 30)
    print(f"withdrawn after {gone:.1f} s, back after {time.monotonic() - began:.1f} s")
    began = time.monotonic()
    own.daemon.process.kill()       # nobody says anything any more
    assert until(lambda: learnt(tmp_path) == set(), 15)
    print(f"withdrawn {time.monotonic() - began:.1f} s after the daemon was killed")


def said(home: Path) -> str:
    path = home / "exabgp.log"
    return path.read_text()[-3000:] if path.exists() else birdc(home / "box.conf", "show", "protocols", "all")
