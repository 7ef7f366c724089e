"""The daemon over time: lists that change under it, its end, its death, and a box with merged segments."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from running import Running, start

from edgeblock.errors import SystemProblem
from edgeblock.lab import Lab, page, until

pytestmark = pytest.mark.live

SOON = 15.0            # seconds after which a dropped-in list that is not in force is a failure, on a busy machine


def passes(lab: Lab, host: str) -> bool:
    seen = lab.fetch(f"https://{host}/")
    return (seen.exit, seen.body) == (0, page(host))


def is_reset(lab: Lab, host: str) -> bool:
    return lab.fetch(f"https://{host}/").exit in (35, 56)


def kernel_rules(lab: Lab) -> str:
    """Every rule and every chain of one's own that the box's kernel has, whoever put it there."""
    lines = []
    for command in (["iptables-save"], ["ip6tables-save"], ["nft", "list", "ruleset"]):
        lines += [line for line in lab.run_in("box", command).stdout.splitlines()
                  if line.startswith("-A") or line.startswith(":") and line.split()[1] == "-" or "edgeblock" in line]
    return "\n".join(lines)


def test_an_edited_list_takes_effect_on_the_next_connection(fresh: Running):
    assert passes(fresh.lab, "open.example") and is_reset(fresh.lab, "listed.example")
    fresh.drop("court.list", "open.example\n")
    assert until(lambda: is_reset(fresh.lab, "open.example"), SOON)
    assert passes(fresh.lab, "listed.example")


def test_a_new_list_and_a_removed_one_take_effect(fresh: Running):
    fresh.drop("new.list", "open.example\n")
    assert until(lambda: is_reset(fresh.lab, "open.example"), SOON)
    (fresh.rules / "court.list").unlink()
    assert until(lambda: passes(fresh.lab, "listed.example"), SOON)
    assert is_reset(fresh.lab, "open.example")


def test_a_list_written_in_place_takes_effect_when_it_is_closed(fresh: Running):
    (fresh.rules / "court.list").write_text("open.example\n")
    assert until(lambda: is_reset(fresh.lab, "open.example"), SOON)


def test_a_broken_list_leaves_the_old_rules_in_force(fresh: Running):
    fresh.drop("court.list", "open.example\n" + "exmaple..com\n" * 100)
    assert until(lambda: b'"change": "refused", "list": "court"' in fresh.daemon.log.read_bytes(), SOON)
    assert is_reset(fresh.lab, "listed.example")
    assert passes(fresh.lab, "open.example")
    fresh.drop("court.list", "open.example\n")
    assert until(lambda: is_reset(fresh.lab, "open.example"), SOON)


def test_a_kept_connection_obeys_the_new_list(fresh: Running):
    request = b"GET / HTTP/1.1\r\nHost: open.example\r\n\r\n"
    with fresh.lab.connect(80) as connection:
        connection.sendall(request)
        assert connection.recv(65536).endswith(page("open.example"))
        fresh.drop("court.list", "open.example\n")
        assert until(lambda: is_reset(fresh.lab, "open.example"), SOON)
        connection.sendall(request)
        with pytest.raises(ConnectionResetError):
            connection.recv(65536)


@pytest.mark.parametrize(("change", "said"), [
    ("", "queue 0 is in use by process"),
    ("number = 7", "the kernel rules of this network namespace are those of another edgeblock")])
def test_a_second_daemon_hears_of_the_first_before_it_reads_a_list(fresh: Running, tmp_path: Path, change, said):
    settings = fresh.daemon.config.read_text()
    first, sign, rest = settings.partition("[queue]\n")
    settings = f"{first}{sign}{change}\n{rest}" if sign else f"{settings}\n[queue]\n{change}\n"
    with pytest.raises(SystemProblem) as caught:
        fresh.lab.start_daemon(settings)
    lines = str(caught.value).splitlines()
    assert lines[0] == "the daemon ended with 1:" and said in lines[-1]
    assert not any("rules audit" in line or "started" in line for line in lines)
    # Nor are the rules of a running daemon removed beside it.
    done = fresh.lab.run_in("box", [sys.executable, "-m", "edgeblock", "ruleset", "remove"], check=False)
    assert done.returncode == 2 and "puts them back; stop it" in done.stderr
    assert is_reset(fresh.lab, "listed.example") and passes(fresh.lab, "open.example")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_clean_stop_leaves_no_kernel_rule(tmp_path: Path, number: signal.Signals):
    with Lab() as lab:
        before = kernel_rules(lab)
        running = start(lab, tmp_path)
        assert kernel_rules(lab) != before
        assert is_reset(lab, "listed.example")
        assert running.daemon.stop(number) == 0, running.daemon.last_words()
        assert kernel_rules(lab) == before
        assert passes(lab, "listed.example")


@pytest.mark.parametrize("tracking", ["conntrack", "stage1"])
def test_traffic_passes_when_the_daemon_is_killed(fresh: Running):
    assert is_reset(fresh.lab, "listed.example")
    assert fresh.daemon.stop(signal.SIGKILL) == -signal.SIGKILL
    assert passes(fresh.lab, "listed.example") and passes(fresh.lab, "open.example")
    again = fresh.lab.start_daemon(fresh.daemon.config.read_text())
    assert is_reset(fresh.lab, "listed.example") and passes(fresh.lab, "open.example")
    assert again.stop() == 0


def test_traffic_stops_when_the_daemon_is_killed_and_absent_is_closed(tmp_path: Path):
    with Lab() as lab:
        running = start(lab, tmp_path, '\n[ruleset]\nabsent = "closed"\n')
        assert passes(lab, "open.example")
        running.daemon.stop(signal.SIGKILL)
        # The first stage, too, lets nothing by once it has not heard of the daemon for half a second.
        assert until(lambda: lab.fetch("https://open.example/", timeout=1.0).exit == 28, 3)


def test_merged_segments_and_checksums_left_to_hardware(tmp_path: Path):
    content = os.urandom(5_000_000)
    with Lab(offload=True) as lab:
        start(lab, tmp_path)
        assert passes(lab, "open.example") and is_reset(lab, "listed.example")
        assert lab.fetch("http://example.com/bad/page.html").status == 451
        assert lab.fetch(f"https://open.example{lab.publish('file', content)}").body == content
        upload = lab.home / "upload"
        upload.write_bytes(content)
        assert lab.fetch("http://open.example/", options=["--data-binary", f"@{upload}"]).body == page("open.example")


def test_check_live_asks_the_rules_in_force(fresh: Running):
    def check(*names: str) -> list[dict[str, Any]]:
        done = subprocess.run([sys.executable, "-m", "edgeblock", "check", "--live", "--json", "--config",
                               str(fresh.daemon.config), *names], capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    listed, opened = check("www.listed.example", "http://open.example/")
    assert listed["blocked"] and not opened["blocked"]
    assert listed["verdicts"][0]["precedence"] == "a block (court.list, host and subdomains)"
    fresh.drop("court.list", "open.example\n")
    assert until(lambda: is_reset(fresh.lab, "open.example"), SOON)
    listed, opened = check("www.listed.example", "http://open.example/")
    assert opened["blocked"] and not listed["blocked"]


def test_a_hashed_list_is_enforced(fresh: Running, tmp_path: Path):
    (tmp_path / "secret.list").write_text("open.example\n")
    done = subprocess.run([sys.executable, "-m", "edgeblock", "hash-list", "--config", str(fresh.daemon.config),
                           str(tmp_path / "secret.list"), str(fresh.rules / "secret.hashed")],
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert b"example" not in (fresh.rules / "secret.hashed").read_bytes()
    assert until(lambda: is_reset(fresh.lab, "open.example"), SOON)
    assert is_reset(fresh.lab, "listed.example")
