"""The ledger of a running box: what it says after lists, windows, refusals and deaths, and what it never says."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from running import CONFIG, CONTACT, REDIRECT, Running, children, start

from edgeblock.lab import Lab, until
from edgeblock.ledger import Record, read
from edgeblock.ledger.kinds import CODES, KINDS, why_wrong

pytestmark = pytest.mark.live

NAMES = ("listed.example", "only.example.net", "below.example.org", "fine.listed.example", "example.com", "dir/",
         "page.html", "watched.example.net", "silent.example.org", "later.example.org", "secret.example.net",
         "refused-word.example", "203.0.113.77", "2001:db8:77::9", "10.0.")


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    with Lab() as lab:
        home = tmp_path_factory.mktemp("ledger")
        yield start(lab, home, "[queue]\nworkers = 2\n[canary]\nperiod = 1.0\n")


def ledger_of(box: Running) -> Path:
    return box.rules.parent.with_name(f"{box.rules.parent.name}-ledger")


def records(box: Running, *kinds: str) -> list[Record]:
    return [record for record in read(ledger_of(box)) if record.kind in kinds]


def verified(box: Running, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "edgeblock", "ledger", "verify", str(ledger_of(box)), *more],
                          capture_output=True, text=True, timeout=60)


def in_force(box: Running, name: str, after: int) -> Record | None:
    return next((record for record in records(box, "in force") if record.seq > after and any(
        one["list"] == name for one in record.fields["changed"])), None)


def last(box: Running) -> int:
    return max(record.seq for record in read(ledger_of(box)))


def test_a_list_is_seen_taken_and_in_force_with_its_delay(box):
    before = last(box)
    box.drop("secret.list", "secret.example.net\n203.0.113.77\n2001:db8:77::9\n")
    assert until(lambda: in_force(box, "secret", before), 10)
    made = in_force(box, "secret", before)
    [seen] = [one for one in records(box, "seen") if one.fields["file"] == "secret.list"]
    [taken] = [one for one in records(box, "taken") if one.fields["list"] == "secret"]
    assert seen.seq < taken.seq < made.seq and taken.fields["entries"] == 3 and made.fields["workers"]
    assert made.fields["kernel"] and taken.fields["renamed"] == seen.fields["renamed"]
    [told] = [one for one in made.fields["changed"] if one["list"] == "secret"]
    assert 0 < told["delay_ms"] < 5000
    moved = datetime.strptime(seen.fields["renamed"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert abs(moved.timestamp() * 1e6 + told["delay_ms"] * 1000 - made.at) < 10_000


def test_refusals_removals_and_windows(box):
    before = last(box)
    box.drop("bad.list", "com\nrefused-word.example\n")
    soon = datetime.now(UTC) + timedelta(seconds=4)
    box.drop("later.list", f"later.example.org from={soon:%Y-%m-%dT%H:%M:%SZ}\n")
    assert until(lambda: any(one.fields["list"] == "bad" for one in records(box, "refused")), 10)
    [refused] = records(box, "refused")
    assert refused.fields["code"] == "guard rail" and not refused.fields["in_force"]
    assert until(lambda: in_force(box, "later", before), 10)
    assert until(lambda: any(one.fields["opened"] for one in records(box, "windows")), 15)
    (box.rules / "later.list").unlink()
    (box.rules / "bad.list").unlink()
    assert until(lambda: records(box, "removed") and records(box, "withdrawn"), 10)


def test_what_happens_to_workers_and_rules_is_there(box):
    worker = children(box.daemon.process.pid, "edgeblock.daemon.worker")[0]
    os.kill(worker, signal.SIGKILL)
    assert until(lambda: records(box, "worker"), 10)
    assert until(lambda: any(one.fields["ok"] for one in records(box, "canary")), 30)


def test_it_verifies_while_it_is_written_and_status_shows_it(box):
    made = verified(box)
    assert made.returncode == 0 and "as it was written" in made.stdout, made.stdout + made.stderr
    said = subprocess.run([sys.executable, "-m", "edgeblock", "status", "--json", "--config", str(box.daemon.config)],
                          capture_output=True, text=True, timeout=60)
    status = json.loads(said.stdout)
    assert status["ledger"]["state"] == "ok" and status["ledger"]["records"] >= 10


def test_every_record_is_of_a_kind(box):
    for record in read(ledger_of(box)):
        assert why_wrong(record.kind, record.fields) is None
        assert record.kind in KINDS and record.fields.get("code", "other") in {*CODES, ""}


def forms(word: str) -> list[bytes]:
    plain = word.encode()
    return [plain, plain[::-1], word.encode("utf-16-le"), base64.b64encode(plain)[:-4], plain.hex().encode()]


def test_an_export_has_no_name_no_address_and_no_subscriber(box, tmp_path):
    for name in ("listed.example", "silent.example.org", "open.example"):
        box.lab.run_in("client", ["curl", "-sk", "--max-time", "2", f"https://{name}/"], check=False)
    settings = tmp_path / "edgeblock.toml"
    settings.write_text(f'[rules]\nkey = "{box.rules.parent}/key"\n')
    made = subprocess.run([sys.executable, "-m", "edgeblock", "ledger", "export", "--config", str(settings)],
                          capture_output=True, timeout=60)
    assert made.returncode == 0 and made.stdout.count(b"\n") > 10, made.stderr
    folder = b"".join(path.read_bytes() for path in ledger_of(box).iterdir())
    for word in NAMES:
        for form in forms(word):
            assert form not in made.stdout and form not in folder, word
    export = tmp_path / "box.ledger"
    export.write_bytes(made.stdout)
    assert subprocess.run([sys.executable, "-m", "edgeblock", "ledger", "verify", str(export)],
                          capture_output=True, timeout=60).returncode == 0
    assert json.loads(made.stdout.split(b"\n")[0])["public"].startswith("RW")


def test_a_daemon_that_is_killed_is_missed_by_the_next(box):
    """The last test: it ends the daemon."""
    before = last(box)
    os.kill(box.daemon.process.pid, signal.SIGKILL)
    box.daemon.process.wait(10)
    assert verified(box).returncode == 0
    home = box.rules.parent
    again = Running(box.lab, box.lab.start_daemon(CONFIG.format(
        home=home, contact=CONTACT, redirect=REDIRECT, sample=0.0), within=20), box.rules)
    assert until(lambda: any(one.seq > before for one in records(again, "start")), 20)
    begun = records(again, "start")[-1]
    assert begun.fields["clean"] is False and begun.fields["last"]
    again.daemon.stop()
    assert records(again, "stop") and verified(again).returncode == 0
    head = max(ledger_of(again).glob("*.head"))
    kept = head.with_name("kept.log")
    kept.write_text(json.dumps({"time": time.time(), "event": "ledger head", "signed": head.read_text()}) + "\n")
    assert verified(again, "--heads", str(kept)).returncode == 0
    path = max(ledger_of(again).glob("*.records"))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    made = verified(again, "--heads", str(kept))
    assert made.returncode == 1 and "the end was cut off" in made.stdout
