"""The Debian package and its unit under a real systemd, filtering for a lab: installed, killed, hung, restarted,
upgraded under load, purged. In the order in which they stand; `make test-vm` runs them.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from container import Container

from edgeblock.lab import Lab, until
from tests.live.load import Load, add_sources

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parent.parent.parent
CAPABILITIES = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39     # CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON, CAP_BPF
SHORTCUT = ('[ruleset]\nkernel = "carry"\n'
            'clients = ["to-client"]\nservers = ["to-server"]\n')
SETTINGS = ('[queue]\nworkers = 2\n[metrics]\nlisten = "/run/edgeblock/metrics.sock"\n'
            '[canary]\nperiod = 1\n')
LISTS = {"pages.list": "pages.example\n", "pages.toml": 'action = "page"\n', "court.list": "listed.example\n"}
NEXT = "99.0"
METRICS = """
import socket
asking = socket.socket(socket.AF_UNIX)
asking.connect("/run/edgeblock/metrics.sock")
asking.sendall(b"GET /metrics HTTP/1.0\\r\\n\\r\\n")
while said := asking.recv(65536):
    print(said.decode(), end="")
"""
ATTACKS = ("settings", "kinds", "names", "many 600", "wide", "slow 2", "override", "flood 5", "race 10")

# What a machine keeps of a package that was there: the package system's own records and logs.
KEPT = re.compile(r"^\./(proc|sys|dev|run|tmp|srv|var/tmp|var/log|var/lib/dpkg|var/lib/apt|var/cache|var/lib/systemd"
                  r"|var/backups|root|etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$|etc/\.pwd\.lock$)")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        add_sources(lab)
        lab.publish("large", os.urandom(20_000_000))
        yield lab


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with this checkout's package, and the same as the version after it."""
    made = max((ROOT / "build").glob("edgeblock_*.deb"), key=lambda one: one.stat().st_mtime, default=None)
    assert made, "no package under build: make deb"
    folder = tmp_path_factory.mktemp("packages")
    (folder / "first.deb").write_bytes(made.read_bytes())
    (folder / "writer.py").write_bytes((ROOT / "tests" / "live" / "writer.py").read_bytes())
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", made, tree], check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text(re.sub(r"(?m)^Version: .*", f"Version: {NEXT}", control.read_text()))
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zxz", "-z0", "--build", tree, folder / "second.deb"],
                   check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def container(lab: Lab, packages: Path) -> Iterator[Container]:
    with Container(lab, packages) as container:
        yield container


@pytest.fixture
def load(lab: Lab, container: Container) -> Iterator[Load]:
    """Steady load, and the certainty that it is filtered, before and after."""
    assert until(lambda: lab.fetch("http://pages.example/").status == 451, 20), journal(container)
    with Load(lab) as load:
        assert until(lambda: len(load.blocked) > 20, 20) and not load.passed
        yield load
    assert until(lambda: lab.fetch("http://pages.example/").status == 451, 20), journal(container)


def journal(container: Container) -> str:
    return container.run("journalctl", "--no-pager", "--lines=30", "--unit=edgeblock")


def files(container: Container) -> set[str]:
    return {line for line in container.shell("cd / && find . -xdev").splitlines() if not KEPT.match(line)}


def people(container: Container) -> str:
    return container.shell("getent passwd; getent group")


def kernel_rules(container: Container) -> str:
    return container.shell("iptables-save; ip6tables-save; nft list ruleset")


def has_rules(container: Container) -> bool:
    return "edgeblock" in kernel_rules(container).lower()


def filtered(lab: Lab) -> bool:
    return lab.fetch("http://pages.example/").status == 451


def workers(container: Container) -> list[str]:
    main = container.show("MainPID")["MainPID"]
    return container.run("cat", f"/proc/{main}/task/{main}/children").split()


def canary(container: Container) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(container.run("edgeblock", "status", "--json", check=False))["canary"]
    return told


def is_green(container: Container) -> bool:
    """Whether it has asked, and nothing was wrong; False where no daemon answers yet."""
    return container.shell("edgeblock canary --quiet && echo ok || :").strip() == "ok"


@contextmanager
def nothing_passes(container: Container, load: Load, what: str) -> Iterator[None]:
    """Not one listed page comes through meanwhile, nor until a second after; no connection is cut, and the canary
    fails at no time."""
    since = container.shell("date +%s.%N").strip()
    began = time.monotonic()
    yield
    assert until(lambda: container.show("ActiveState")["ActiveState"] == "active", 30), journal(container)
    ready = time.monotonic()
    print(f"{what}: active again after {ready - began:.2f} s")
    load.gap(began, what, within=0.001)
    assert until(lambda: [at for at in load.blocked if at > ready + 0.5], 20)
    assert not load.passed and not load.cut
    assert until(lambda: is_green(container), 20), journal(container)
    print(f"{what}: the canary is green {time.monotonic() - ready:.2f} s after that")
    said = container.run("journalctl", "--no-pager", "--unit=edgeblock", f"--since=@{since}")
    assert "canary failed" not in said and "not filtering" not in said, said


@pytest.fixture(scope="module")
def bare(container: Container) -> dict[str, object]:
    """What the machine was before the package."""
    return {"files": files(container), "people": people(container), "rules": kernel_rules(container)}


def test_it_installs_without_network_and_starts(container: Container, lab: Lab, bare: dict[str, object]):
    assert lab.fetch("http://pages.example/").status == 200
    container.run("dpkg", "--install", "/srv/first.deb")
    assert container.show("ActiveState", "SubState") == {"ActiveState": "active", "SubState": "running"}
    assert container.run("systemctl", "is-enabled", "edgeblock").strip() == "enabled"
    assert "0 entries of 0 lists in force" in container.show("StatusText")["StatusText"]
    assert has_rules(container)
    for name, text in LISTS.items():
        container.shell(f"printf '%s' '{text}' >/etc/edgeblock/rules/.{name} && "
                        f"mv /etc/edgeblock/rules/.{name} /etc/edgeblock/rules/{name}")
    container.shell(f"printf '%s' '{SETTINGS}' >/etc/edgeblock/edgeblock.toml")
    container.run("systemctl", "restart", "edgeblock")
    assert "queues 0 to 1: 2 entries of 2 lists" in container.show("StatusText")["StatusText"], journal(container)
    status = json.loads(container.run("edgeblock", "status", "--json"))
    assert [one["state"] for one in status["workers"].values()] == ["running"] * 2
    assert status["kernel_rules"]["tcp_syn"]["packets"] >= 0
    assert filtered(lab)
    assert lab.fetch("https://listed.example/").exit in (35, 56)
    assert lab.fetch("https://open.example/").status == 200
    bill = json.loads(container.run("cat", "/usr/share/edgeblock/sbom.cdx.json"))
    assert bill["bomFormat"] == "CycloneDX" and "uvloop" in {part["name"] for part in bill["components"]}
    # The unit's user may load the first stage, and its hello did not come to the queue.
    status = json.loads(container.run("edgeblock", "status", "--json"))
    assert status["stage1"].get("passed_hello", 0) >= 1, journal(container)
    assert "MISSING" not in container.run("edgeblock", "doctor", check=False)


def test_its_manual_can_be_read_and_its_commands_completed(container: Container):
    for page, word in (("edgeblock", "edgeblock run"), ("edgeblock.toml", "mark_mask"),
                       ("edgeblock.lists", "rpz-passthru")):
        assert word in container.run("man", page)
        assert container.shell(f"man --warnings {page} 2>&1 >/dev/null") == ""
    place = "/usr/share/bash-completion/completions/edgeblock"
    assert "_edgeblock edgeblock" in container.shell(f"source {place}; complete -p edgeblock")


def test_the_sandbox_is_in_effect(container: Container):
    main = container.show("MainPID")["MainPID"]
    user = container.run("id", "--user", "edgeblock").strip()
    for process in (main, *workers(container)):
        status = dict(line.split(":\t", 1) for line in container.run("cat", f"/proc/{process}/status").splitlines()
                      if ":\t" in line)
        assert status["Uid"].split() == [user] * 4
        words = container.run("cat", f"/proc/{process}/cmdline")
        reads = "daemon.compiling" in words         # it gives up what it has before it reads
        has = {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")}
        assert has == {CAPABILITIES} or reads and has == {CAPABILITIES, 0}, words
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        # No core file: neither by the limit, nor of memory that is not to be seen, which is root's then.
        assert re.search(r"Max core file size +0 +0 ", container.run("cat", f"/proc/{process}/limits"))
        if not reads:                   # that one has no key until it reads, and hides its memory then
            assert container.run("stat", "--format=%u", f"/proc/{process}/environ").strip() == "0", words
    inside = f"nsenter --target {main} --mount --"
    for place in ("/etc", "/usr", "/var/lib", "/boot"):
        assert "Read-only" in container.shell(f"{inside} touch {place}/x 2>&1 || :"), place
    drop = f"setpriv --reuid {user} --regid {user} --clear-groups"
    assert "Permission denied" in container.shell(f"{inside} {drop} touch /etc/edgeblock/x 2>&1 || :")
    container.shell(f"{inside} touch /var/lib/edgeblock/x && rm /var/lib/edgeblock/x")
    assert container.shell(f"{inside} ls /home /root").split() == ["/home:", "/root:"]
    assert container.shell(f"readlink /proc/{main}/fd/0").strip().endswith("netfilter/nfnetlink_queue")
    assert "mem" not in container.shell(f"{inside} ls /dev").split()
    exposure = container.run("systemd-analyze", "security", "edgeblock.service").splitlines()[-1]
    assert float(re.findall(r": (\d+\.\d)", exposure)[0]) <= 2.0


def test_the_canary_is_within_the_sandbox(container: Container, lab: Lab):
    """The unit's user makes the interfaces, asks by them over both families, and is heard."""
    assert until(lambda: is_green(container), 20), journal(container)
    said = container.run("edgeblock", "canary")
    assert said.count(" ok\n") == 6, said
    told = canary(container)
    assert (told["state"], told["lacking"], told["off"]) == ("ok", {}, "")
    text = container.run("python3", "-c", METRICS)
    assert len(re.findall(r'^edgeblock_canary_ok\{.*\} 1\.0$', text, re.MULTILINE)) == 6, text


def test_it_says_that_it_does_not_filter_where_it_may_not_repair(container: Container, lab: Lab):
    """Somebody flushes the rules, and the program that puts them back is gone for the daemon."""
    assert until(lambda: is_green(container), 20), journal(container)
    main = container.show("MainPID")["MainPID"]
    inside, real = f"nsenter --target {main} --mount --", "$(realpath /usr/sbin/iptables-restore)"
    container.shell(f"{inside} mount --bind /bin/false {real}")
    try:
        began = time.monotonic()
        container.run("nft", "flush", "ruleset")
        assert until(lambda: "NOT FILTERING" in container.show("StatusText")["StatusText"], 10), journal(container)
        print(f"not filtering, in systemd's status line, after {time.monotonic() - began:.2f} s")
        assert until(lambda: canary(container)["state"] == "failed", 10)
        print(f"canary failed after {time.monotonic() - began:.2f} s")
        assert not is_green(container)
        assert "canary failed" in journal(container) and "not filtering" in journal(container)
    finally:
        container.shell(f"{inside} umount {real}")
    assert until(lambda: filtered(lab) and is_green(container), 20), journal(container)
    assert "NOT FILTERING" not in container.show("StatusText")["StatusText"]


def test_a_reload_says_so_and_filters_on(container: Container, lab: Lab, load: Load):
    before = container.show("MainPID")
    with nothing_passes(container, load, "reload"):
        container.shell("printf 'more.example\\n' >/etc/edgeblock/rules/.m && "
                        "mv /etc/edgeblock/rules/.m /etc/edgeblock/rules/more.list")
        container.run("systemctl", "reload", "edgeblock")
        assert until(lambda: "3 entries" in container.show("StatusText")["StatusText"], 20), journal(container)
    assert container.show("MainPID") == before


@pytest.mark.parametrize("what", ["restart", "kill -9 of the supervisor", "kill -9 of everything"])
def test_no_listed_page_passes_while_it_is_replaced(container: Container, load: Load, what: str):
    main = container.show("MainPID")["MainPID"]
    with nothing_passes(container, load, what):
        if what == "restart":
            container.run("systemctl", "restart", "edgeblock")
        else:
            victims = [main] if what.endswith("supervisor") else [main, *workers(container)]
            container.run("kill", "-9", *victims)
            assert until(lambda: container.show("MainPID")["MainPID"] not in ("0", main), 20)
            assert until(lambda: container.show("ActiveState")["ActiveState"] == "active", 20)
    assert container.show("MainPID")["MainPID"] != main


def test_the_watchdog_ends_what_hangs(container: Container, lab: Lab):
    """A worker is stopped, and the supervisor that would have replaced it: nobody but systemd is left to notice."""
    before = container.show("MainPID", "NRestarts")
    container.run("kill", "-STOP", before["MainPID"], workers(container)[0])
    began = time.monotonic()
    assert until(lambda: container.show("NRestarts")["NRestarts"] != before["NRestarts"], 40), journal(container)
    print(f"watchdog: restarted after {time.monotonic() - began:.1f} s")
    assert until(lambda: filtered(lab), 20), journal(container)
    assert "watchdog" in journal(container).lower()
    assert container.show("MainPID")["MainPID"] != before["MainPID"]


def test_a_start_that_fails_lets_traffic_pass_and_the_next_one_filters(container: Container, lab: Lab):
    container.shell("echo '[oops' >>/etc/edgeblock/edgeblock.toml")
    container.run("systemctl", "reload", "edgeblock", check=False)
    assert container.show("ActiveState")["ActiveState"] == "active" and filtered(lab)     # it is tested first
    container.run("systemctl", "restart", "edgeblock", check=False)
    assert until(lambda: lab.fetch("http://pages.example/").status == 200, 20)        # absent is open
    assert until(lambda: container.show("ActiveState")["ActiveState"] == "failed", 20)    # and not tried for ever
    container.shell(f"printf '%s' '{SETTINGS}' >/etc/edgeblock/edgeblock.toml")
    container.run("systemctl", "start", "edgeblock")
    assert filtered(lab)


def test_the_shortcut_is_within_the_sandbox(container: Container, lab: Lab):
    """Done flows past the kernel rules, put there by the unit's user; over a restart, a kill and an end of it."""
    def carried() -> int:
        assert len(lab.fetch("https://open.example/files/large", timeout=60).body) == 20_000_000
        return int(json.loads(container.run("edgeblock", "status", "--json"))["stage1"]["carried"])

    container.shell(f"printf '%s' '{SETTINGS}{SHORTCUT}' >/etc/edgeblock/edgeblock.toml")
    container.run("systemctl", "restart", "edgeblock")
    assert container.show("ActiveState")["ActiveState"] == "active", journal(container)
    assert filtered(lab) and carried() > 5000, journal(container)
    assert "MISSING" not in container.run("edgeblock", "doctor", check=False)
    main = container.show("MainPID")["MainPID"]
    container.run("kill", "-9", main)
    assert until(lambda: container.show("MainPID")["MainPID"] not in ("0", main), 20)
    assert until(lambda: container.show("ActiveState")["ActiveState"] == "active", 20), journal(container)
    assert filtered(lab) and carried() > 5000, journal(container)
    container.shell(f"printf '%s' '{SETTINGS}' >/etc/edgeblock/edgeblock.toml")
    container.run("systemctl", "restart", "edgeblock")
    assert filtered(lab), journal(container)
    assert "clsact" not in container.run("tc", "qdisc", "show")


def test_an_upgrade_under_load_lets_nothing_pass_and_cuts_nothing(container: Container, lab: Lab, load: Load):
    main = container.show("MainPID")["MainPID"]
    seen: list[bool] = []

    def download() -> None:
        page = lab.fetch("https://open.example/files/large", timeout=60, options=["--limit-rate", "4M"])
        seen.append(len(page.body) == 20_000_000 and page.exit == 0)

    thread = Thread(target=download)
    thread.start()
    with nothing_passes(container, load, "upgrade"):
        container.run("dpkg", "--install", "/srv/second.deb")
    thread.join(60)
    assert seen == [True]
    assert container.run("dpkg-query", "--show", "--showformat=${Version}", "edgeblock") == NEXT
    assert container.show("MainPID")["MainPID"] != main
    assert "pages" in container.run("ls", "/etc/edgeblock/rules")
    assert "workers = 2" in container.run("cat", "/etc/edgeblock/edgeblock.toml")


def test_a_stop_takes_the_rules_away_and_a_start_brings_them_back(container: Container, lab: Lab):
    container.run("systemctl", "stop", "edgeblock")
    assert not has_rules(container)
    assert lab.fetch("http://pages.example/").status == 200
    assert container.shell("cat /proc/net/netfilter/nfnetlink_queue || :") == ""
    container.run("systemctl", "start", "edgeblock")
    assert filtered(lab)


def test_a_list_writer_can_have_his_own_lists_refused_and_no_more(container: Container, lab: Lab):
    """An account with the lists' group and nothing else, under the unit's settings (SECURITY.md)."""
    secret, rules = "/var/lib/edgeblock/secret", "/etc/edgeblock/rules"
    locked = container.shell("grep ^locked /usr/lib/edgeblock/lib/python3*/site-packages/edgeblock/edgeblock.toml")
    container.shell(f"printf '%s\n' '{SETTINGS}[rules]' '{locked.strip()}' >/etc/edgeblock/edgeblock.toml")
    container.run("systemctl", "restart", "edgeblock")
    container.run("useradd", "--no-create-home", "--groups", "edgeblock-lists", "writer")
    container.shell(f"echo 'zqx-secret ..' >{secret}; chown edgeblock:edgeblock {secret}; chmod 600 {secret}")
    before = container.show("MainPID", "NRestarts")
    waits = []
    try:
        for number, attack in enumerate(ATTACKS):
            container.shell(f"runuser --user writer -- python3 - {rules} {attack} {secret} </srv/writer.py")
            host = ("open.example", "www.open.example")[number % 2]
            began = time.monotonic()
            container.shell(f"echo '={host}' >{rules}/.u && mv {rules}/.u {rules}/urgent.list")
            assert until(lambda host=host: lab.fetch(f"https://{host}/").exit in (35, 56), 60), journal(container)
            waits.append(f"{attack}: {time.monotonic() - began:.1f} s")
            assert filtered(lab)
        print("a list of somebody else in force after", ", ".join(waits))
        assert container.show("MainPID", "NRestarts") == before
        # Among them are pipes and holes of terabytes.
        said = container.shell(f"find {rules} -name '*.rejected' -type f -size -1000k -exec cat {{}} +; "
                               "journalctl --no-pager --unit=edgeblock")
        assert "zqx" not in said and "is locked" in said
        container.run("systemctl", "restart", "edgeblock")
        assert filtered(lab) and lab.fetch(f"https://{host}/").exit in (35, 56)
        for path in ("/var/lib/edgeblock/key", secret):
            assert container.shell(f"runuser --user writer -- test -r {path} && echo {path} || :") == ""
        # What the lists do he may ask, and whether the box filters; no more.
        said = container.run("runuser", "--user", "writer", "--", "edgeblock", "status", "--json")
        assert json.loads(said)["vigil"]["filtering"]
        said = container.run("runuser", "--user", "writer", "--", "edgeblock", "check", "--live", host, check=False)
        assert "urgent" in said
        assert "not permitted" in container.shell("runuser --user writer -- edgeblock canary 2>&1 || :")
    finally:
        container.shell(f"find {rules} -mindepth 1 -user writer -exec rm -rf {{}} + ; userdel writer")


def test_removed_it_keeps_what_is_the_operators_and_purged_nothing(container: Container, lab: Lab,
                                                                   bare: dict[str, object]):
    container.run("dpkg", "--remove", "edgeblock")
    assert lab.fetch("http://pages.example/").status == 200
    assert not has_rules(container)
    assert "pages.list" in container.run("ls", "/etc/edgeblock/rules")
    assert "__pycache__" not in container.shell("find /usr/lib/edgeblock || :")
    # Installed again it is what it was: enabled and running, or disabled by the operator and left alone.
    container.run("dpkg", "--install", "/srv/first.deb")
    assert container.run("systemctl", "is-enabled", "edgeblock").strip() == "enabled"
    assert until(lambda: filtered(lab), 20), journal(container)
    container.run("systemctl", "disable", "--now", "edgeblock")
    container.run("dpkg", "--remove", "edgeblock")
    container.run("dpkg", "--install", "/srv/first.deb")
    assert container.run("systemctl", "is-enabled", "edgeblock", check=False).strip() == "disabled"
    assert container.show("ActiveState") == {"ActiveState": "inactive"}
    container.run("dpkg", "--remove", "edgeblock")
    container.run("dpkg", "--purge", "edgeblock")
    assert files(container) - bare["files"] == set()
    assert people(container) == bare["people"]
    assert kernel_rules(container) == bare["rules"]
    assert container.shell("ls -A /run/edgeblock /etc/edgeblock /var/lib/edgeblock* 2>/dev/null || :") == ""
    assert container.run("systemctl", "list-units", "--all", "--no-legend", "*edgeblock*") == ""
    assert "edgeblockbpf" not in container.run("cat", "/proc/mounts")
