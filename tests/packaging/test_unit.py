"""What SECURITY.md says of tests and of the unit: in, that page and the unit; out, that both are so."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeblock import config
from edgeblock.fleet.repository import Settings

ROOT = Path(__file__).parent.parent.parent
SECURITY = (ROOT / "SECURITY.md").read_text()
THREATS = [row for row in re.findall(r"(?m)^\| .*\|$", SECURITY.split("## The key")[0])][1:]
UNIT = ROOT / "systemd" / "edgeblock.service"


@pytest.mark.parametrize("row", THREATS, ids=lambda row: row.split("|")[3].strip()[:40])
def test_each_threat_has_tests_that_are_there(row):
    tests = re.findall(r"`([^`]+)`", row.split("|")[5])
    assert tests
    for name in tests:
        if name.startswith("make "):
            assert re.search(rf"(?m)^{name[5:]}:", (ROOT / "Makefile").read_text()), name
        else:
            assert [*(ROOT / "tests").rglob(name), *ROOT.glob(name)], name


def test_each_row_that_the_unit_leaves_open_is_explained():
    if shutil.which("systemd-analyze") is None:
        return                              # where there is no systemd nobody can be asked
    said = subprocess.run(["systemd-analyze", "security", "--offline=true", "--json=short", "--no-pager", UNIT],
                          capture_output=True, text=True, check=False).stdout
    rows = [row for row in json.loads(said) if float(row["exposure"] or 0) > 0]
    assert len(rows) > 10
    part = SECURITY.split("## What the unit leaves open")[1]
    for row in rows:
        name = row["name"]
        name = name.replace("AF_(INET|INET6)", "AF_INET")
        words = re.findall(r"CAP_[A-Z]+|AF_[A-Z]+|@[a-z]+|^[A-Za-z]+(?==)", name)
        words = [word.removeprefix("AF_") for word in words if word not in ("CAP_NET_", "RestrictAddressFamilies")]
        for word in words or [name]:
            assert word.lower() in part.lower(), f"{name}: {word}"
    level = re.search(r"says (\d\.\d) of the unit", part)[1]
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager",
                           f"--threshold={level.replace('.', '')}", UNIT], capture_output=True, check=False)
    assert done.returncode == 0
    lower = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager",
                            f"--threshold={int(level.replace('.', '')) - 1}", UNIT], capture_output=True, check=False)
    assert lower.returncode != 0            # no more is said than is so
    assert f"--threshold={level.replace('.', '')}" in (ROOT / "Makefile").read_text()


def test_the_unit_that_fetches_leaves_open_what_is_said_and_nothing_else():
    unit = ROOT / "systemd" / "edgeblock-fetch.service"
    text = unit.read_text()
    assert re.search(r"(?m)^CapabilityBoundingSet=$", text) and re.search(r"(?m)^User=edgeblock-fetch$", text)
    assert re.findall(r"(?m)^ReadWritePaths=(.*)$", text) == ["-/etc/edgeblock/rules"]
    hidden = re.search(r"(?m)^InaccessiblePaths=(.*)$", text)[1].replace("-/", "/").split()
    assert "/var/lib/edgeblock" in hidden
    # Who takes releases asks the daemon how it is, and takes none where it cannot.
    asked = Settings(metadata=("https://lists.example.net/",)).control
    assert asked == config.Daemon().control and not any(asked.is_relative_to(path) for path in hidden)
    if shutil.which("systemd-analyze") is None:
        return                              # as above
    said = subprocess.run(["systemd-analyze", "security", "--offline=true", "--json=short", "--no-pager", unit],
                          capture_output=True, text=True, check=False).stdout
    part = SECURITY.split("The unit of `edgeblock-fetch`")[1].split("\n\n")[0]
    for row in (row for row in json.loads(said) if float(row["exposure"] or 0) > 0):
        word = re.search(r"AF_\(?(\w+)|^([A-Za-z]+)=", row["name"])
        assert (word[1] or word[2]) in part, row["name"]
    for threshold, fine in (("11", True), ("10", False)):
        done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager",
                               f"--threshold={threshold}", unit], capture_output=True, check=False)
        assert (done.returncode == 0) is fine
    assert "--threshold=11 systemd/edgeblock-fetch.service" in (ROOT / "Makefile").read_text()
    assert "is at 1.1" in part


def test_who_fetches_may_write_where_lists_land_and_replace_nothing_of_others():
    files = (ROOT / "systemd" / "edgeblock.tmpfiles").read_text()
    assert re.search(r"(?m)^d /etc/edgeblock/rules 3770 root edgeblock-lists ", files)     # sticky and setgid
    assert re.search(r"(?m)^d /etc/edgeblock +0755 root root ", files)
    users = (ROOT / "systemd" / "edgeblock.sysusers").read_text()
    assert "m edgeblock-fetch edgeblock-lists" in users and "m edgeblock-fetch edgeblock\n" not in users
