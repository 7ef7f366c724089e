"""A box from nothing to filtering, by the files of docs/examples/fleet: the Ansible play from outside, cloud-init in
the container itself; each in a Debian of its own with a real systemd. `make test-vm` runs them.
"""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from container import Container

from edgeblock.lab import NAMES, SERVER, Lab, until

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "docs" / "examples" / "fleet"
KEY = bytes(range(16))
HOSTS = ("files.example.net", "lists.example.net")      # that the files name
# What Ansible takes for ssh: its last word is the command, and the host is the container.
SSH = """#!/bin/sh
for command; do :; done
exec nsenter --target {leader} --mount --uts --ipc --net --pid --cgroup -- env -i HOME=/root \\
    PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c "$command"
"""
RECAP = re.compile(r"box7 +: ok=(\d+) +changed=(\d+) +unreachable=(\d+) +failed=(\d+)")


@pytest.fixture(scope="module")
def package() -> Path:
    made = max((ROOT / "build").glob("edgeblock_*.deb"), key=lambda one: one.stat().st_mtime, default=None)
    assert made, "no package under build: make deb"
    return made


@pytest.fixture
def lab(package: Path) -> Iterator[Lab]:
    with Lab(names=[*NAMES, *HOSTS]) as lab:
        lab.publish("edgeblock.deb", package.read_bytes())
        lab.publish("court.list", b"listed.example\n")
        yield lab


@pytest.fixture
def container(lab: Lab, tmp_path: Path) -> Iterator[Container]:
    (tmp_path / "ca.pem").write_bytes((lab.home / "ca.pem").read_bytes())
    with Container(lab, tmp_path) as container:
        container.run("mount", "-o", "remount,bind,rw", "/proc/sys")      # of its network: that is the lab's box
        container.shell("mkdir -p /etc/ssl/certs && cp /srv/ca.pem /etc/ssl/certs/ca-certificates.crt && "
                        f"cp /srv/ca.pem /usr/lib/ssl/cert.pem && echo '{SERVER[4]} {' '.join(HOSTS)}' >>/etc/hosts")
        yield container


def placed(text: str) -> str:
    """With the place that a lab has for files; else as it is shipped."""
    return text.replace(".example.net/", ".example.net/files/")


@pytest.fixture
def play(container: Container, tmp_path: Path, package: Path) -> Path:
    """A folder with the play as it is shipped, and what an operator has beside it."""
    folder = tmp_path / "play"
    (folder / "files" / "lists").mkdir(parents=True)
    (folder / "files" / "secrets").mkdir()
    (folder / "box.yml").write_text((EXAMPLES / "box.yml").read_text())
    for name in ("edgeblock.toml", "sources.toml"):
        (folder / "files" / name).write_text(placed((EXAMPLES / name).read_text()))
    (folder / "files" / "edgeblock.deb").write_bytes(package.read_bytes())
    (folder / "files" / "box.key").write_bytes(KEY)
    (folder / "files" / "secrets" / "root.json").write_text("{}")
    (folder / "files" / "lists" / "pages.list").write_text("pages.example\n")
    (folder / "files" / "lists" / "pages.toml").write_text('action = "page"\n')
    (folder / "ssh").write_text(SSH.format(leader=container.leader))
    (folder / "ssh").chmod(0o755)
    (folder / "inventory.ini").write_text(
        "[edgeblock]\nbox7 ansible_user=root ansible_python_interpreter=/usr/bin/python3 edgeblock_ring=early\n")
    return folder


def run_play(folder: Path) -> tuple[int, int]:
    """How many tasks went well, and how many of them changed something."""
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", "inventory.ini", "box.yml"], cwd=folder,
        env=os.environ | {"ANSIBLE_SSH_EXECUTABLE": str(folder / "ssh"), "ANSIBLE_SSH_TRANSFER_METHOD": "piped",
                          "ANSIBLE_PIPELINING": "true", "ANSIBLE_HOME": str(folder / "home"), "LC_ALL": "C.UTF-8"},
        capture_output=True, text=True, check=False, timeout=200)
    counted = RECAP.search(done.stdout)
    assert done.returncode == 0 and counted, f"{done.stdout[-3000:]}\n{done.stderr[-2000:]}"
    assert counted[3] == counted[4] == "0"
    return int(counted[1]), int(counted[2])


def filtered(lab: Lab, host: str = "pages.example") -> bool:
    return lab.fetch(f"http://{host}/").status == 451


def is_blocked(lab: Lab) -> bool:
    return lab.fetch("https://listed.example/").exit in (35, 56)


def test_the_play_makes_a_box_that_filters(container: Container, lab: Lab, play: Path):
    assert lab.fetch("http://pages.example/").status == 200
    done, changed = run_play(play)
    print(f"first run: {done} tasks, {changed} of them changed something")
    assert until(lambda: filtered(lab), 10) and lab.fetch("http://open.example/").status == 200
    assert until(lambda: is_blocked(lab), 20), container.run("journalctl", "--unit=edgeblock-fetch", "--no-pager")
    told = json.loads(container.run("edgeblock-fetch", "status", "--json"))
    assert told["ring"] == "early" and [one["name"] for one in told["sources"]] == ["court"]
    assert container.run("stat", "--format=%G %a", "/etc/edgeblock/root.json").split() == ["edgeblock-fetch", "640"]
    assert container.run("systemctl", "is-enabled", "edgeblock").strip() == "enabled"
    assert container.run("stat", "--format=%U %a %s", "/var/lib/edgeblock/key").split() == ["edgeblock", "600", "16"]
    # The same again changes nothing; what is changed is in force: a list at once, settings by a restart.
    main = container.show("MainPID")
    assert run_play(play)[1] == 0
    assert container.show("MainPID") == main
    (play / "files" / "lists" / "pages.list").write_text("pages.example\nmore.example\n")
    settings = play / "files" / "edgeblock.toml"
    settings.write_text(settings.read_text().replace('workers = "auto"', "workers = 2"))
    assert run_play(play)[1] == 3       # with the handler that restarts it
    assert container.show("MainPID") != main
    assert until(lambda: filtered(lab, "more.example") and filtered(lab), 20)
    # Settings that cannot be used never come into their place, and the play ends there.
    settings.write_text("[queue]\nworker = 2\n")
    with pytest.raises(AssertionError, match="worker"):
        run_play(play)
    assert "workers = 2" in container.run("cat", "/etc/edgeblock/edgeblock.toml")
    assert filtered(lab)


def cloud_config(package: Path) -> str:
    """As it is shipped, but for the digest of the package, and the place that a lab has for files."""
    text, digest = (EXAMPLES / "cloud-init.yaml").read_text(), "SHA256:" + "0" * 64
    assert text.count(digest) == 1
    return placed(text).replace(digest, "SHA256:" + hashlib.sha256(package.read_bytes()).hexdigest())


def test_cloud_init_makes_a_box_that_filters(container: Container, lab: Lab, tmp_path: Path, package: Path):
    """cloud-init itself reads the file, as at a first boot, and does what it says."""
    assert lab.fetch("https://listed.example/").status == 200
    (tmp_path / "user-data").write_text(cloud_config(package))
    (tmp_path / "shipped").write_text((EXAMPLES / "cloud-init.yaml").read_text())
    assert "Valid" in container.run("cloud-init", "schema", "--config-file", "/srv/shipped")
    seed = "/var/lib/cloud/seed/nocloud"
    container.shell(f"mkdir -p {seed} && cp /srv/user-data {seed}/ && echo instance-id: box7 >{seed}/meta-data && "
                    "printf '%s\\n' 'datasource_list: [NoCloud]' 'network: {config: disabled}' "
                    "'apt: {preserve_sources_list: true}' 'locale: false' >/etc/cloud/cloud.cfg.d/99-here.cfg")
    for step in ("init --local", "init", "modules --mode=config", "modules --mode=final"):
        container.run("cloud-init", *shlex.split(step))
    said = container.run("cat", "/var/log/cloud-init-output.log", check=False)
    result = container.run("cat", "/run/cloud-init/result.json")
    assert '"errors": []' in result, f"{result}\n{said[-3000:]}"
    assert until(lambda: is_blocked(lab), 20), said[-3000:]
    assert lab.fetch("https://open.example/").status == 200
    assert container.run("stat", "--format=%U %a %s", "/var/lib/edgeblock/key").split() == ["edgeblock", "600", "16"]
    assert container.shell("head -c 16 /var/lib/edgeblock/key | od -An -tx1").split() == ["00"] * 16
    assert container.run("systemctl", "is-enabled", "edgeblock").strip() == "enabled"
