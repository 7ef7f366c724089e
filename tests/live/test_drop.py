"""Lists dropped into a running daemon's directory: under load, through faults and kills, and never in plain text."""

import itertools
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from load import AtWork
from running import Running, children, start

from edgeblock.lab import SERVER, Lab, page, until
from tests.memory import memory_of

pytestmark = pytest.mark.live

SOON = 20.0             # seconds on a machine that does other things too
KILLS = 10
RELOADS = 100
SOURCES = [f"192.0.2.{host}" for host in range(10, 40)]
REQUEST = b"GET / HTTP/1.1\r\nHost: open.example\r\n\r\n"


def is_reset(lab: Lab, host: str) -> bool:
    return lab.fetch(f"https://{host}/").exit in (35, 56)


def passes(lab: Lab, host: str) -> bool:
    return lab.fetch(f"https://{host}/").body == page(host)


def said(running: Running, event: str) -> list[dict]:
    lines = [json.loads(line) for line in running.daemon.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def refused(running: Running) -> list[dict]:
    return [line for line in said(running, "rules audit") if line["change"] == "refused"]


def the_compiler(parent: int) -> int:
    """The process that waits for the next job; between two of them there is none for a moment."""
    found: list[int] = []
    assert until(lambda: found.extend(children(parent, "edgeblock.daemon.compiling")) or found, SOON)
    return found[0]


def half_written(running: Running) -> list[str]:
    home = running.rules.parent
    return [str(path) for path in home.rglob("*") if path.name.endswith(".tmp")]


def long_list(host: str, count: int = 30_000) -> str:
    return f"{host}\n" + "".join(f"{host.partition('.')[0]}{number}.example\n" for number in range(count))


# Under load ------------------------------------------------------------------------------------------------------

class Load(AtWork):
    """Kept connections that ask again and again, and a listed page asked for on new ones."""

    patience = 60.0

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.done = threading.Event()
        self.problems: list[str] = []
        self.seconds: list[float] = []
        self.passed = self.blocked = 0
        self.threads = [threading.Thread(target=self.browse) for _ in range(4)]
        self.threads.append(threading.Thread(target=self.try_listed))

    def browse(self) -> None:
        try:
            while not self.done.is_set():
                with self.lab.connect(80, timeout=20.0) as connection:
                    for _ in range(500):        # nginx ends a connection after a thousand
                        began = time.monotonic()
                        connection.sendall(REQUEST)
                        if not connection.recv(65536).endswith(page("open.example")):
                            self.problems.append("no page")
                        self.seconds.append(time.monotonic() - began)
                        if self.done.wait(0.003):
                            return
        except OSError as problem:
            self.problems.append(repr(problem))

    def try_listed(self) -> None:
        # From addresses of its own: a port that is used again soon after it was blocked is still blocked.
        for source in itertools.cycle(SOURCES):
            if self.done.wait(0.02):
                return
            try:
                with self.lab.entered("client"):
                    connection = socket.create_connection((SERVER[4], 80), 2.0, (source, 0))
                with connection:
                    connection.sendall(b"GET / HTTP/1.1\r\nHost: pages.example\r\nConnection: close\r\n\r\n")
                    answer = connection.recv(65536)
            except OSError:
                continue
            if b" 451 " in answer[:20]:
                self.blocked += 1
            else:
                self.passed += 1


def test_a_hundred_reloads_under_load(fresh: Running):
    """No packet is lost, no page of a list that stays is seen, and each new version is in force soon."""
    hosts = ("open.example", "www.open.example")
    counts = re.compile(rb'"event": "rules loaded"')
    waits = []
    for address in SOURCES:
        fresh.lab.run_in("client", ["ip", "address", "add", f"{address}/24", "dev", "to-box"])
    with Load(fresh.lab) as load:
        assert until(lambda: load.blocked > 5, SOON)
        for number in range(RELOADS):
            before = len(counts.findall(fresh.daemon.log.read_bytes()))
            began = time.monotonic()
            fresh.drop("court.list", f"{hosts[number % 2]}.invalid\nlisted.example\n")
            assert until(lambda before=before: len(counts.findall(fresh.daemon.log.read_bytes())) > before, SOON)
            waits.append(time.monotonic() - began)
    counters = fresh.lab.counters(fresh.daemon)
    load.seconds.sort()
    print(f"{RELOADS} reloads: in force after {statistics.median(waits):.3f} s (median), {max(waits):.3f} s at most; "
          f"{len(load.seconds)} requests, median {statistics.median(load.seconds) * 1e3:.1f} ms, 99.9th percentile "
          f"{load.seconds[int(len(load.seconds) * 0.999)] * 1e3:.1f} ms, longest {load.seconds[-1] * 1e3:.1f} ms; "
          f"{load.blocked} listed pages blocked, {load.passed} passed")
    assert load.problems == [] and load.passed == 0 and load.blocked > RELOADS / 2
    assert counters["queue.lost"] == counters["queue.full"] == counters["queue.refused"] == 0
    assert len(load.seconds) > RELOADS
    assert not refused(fresh) and not half_written(fresh)


# Kills -----------------------------------------------------------------------------------------------------------

def test_the_compiler_is_killed_at_ten_points_of_a_reload(fresh: Running):
    daemon = fresh.daemon.process.pid
    for number in range(KILLS):
        host = ("open.example", "www.open.example")[number % 2]
        compiler = the_compiler(daemon)
        fresh.drop("long.list", long_list(host))
        threading.Event().wait(0.05 * number)
        with suppress(ProcessLookupError):      # it was done
            os.kill(compiler, signal.SIGKILL)
        assert is_reset(fresh.lab, "pages.example")
        assert until(lambda host=host: is_reset(fresh.lab, host), SOON), f"kill {number}"
        assert until(lambda: len(children(daemon, "edgeblock.daemon.compiling")) == 1, SOON)
    assert fresh.daemon.process.poll() is None
    assert until(lambda: not half_written(fresh), SOON) and not refused(fresh)
    fresh.drop("long.list", "listed.example\n")
    assert until(lambda: refused(fresh), SOON)          # of thirty thousand entries one was left
    assert fresh.daemon.stop() == 0


def test_the_daemon_is_killed_at_ten_points_of_a_reload(fresh: Running):
    settings = fresh.daemon.config.read_text()
    for number in range(KILLS):
        host = ("open.example", "www.open.example")[number % 2]
        fresh.drop("long.list", long_list(host))
        threading.Event().wait(0.06 * number)
        assert fresh.daemon.stop(signal.SIGKILL) == -signal.SIGKILL
        fresh.daemon = fresh.lab.start_daemon(settings)
        assert is_reset(fresh.lab, "pages.example")
        assert is_reset(fresh.lab, host), f"kill {number}"
        assert not half_written(fresh)
    assert fresh.daemon.stop() == 0


def test_the_last_version_serves_after_a_restart_with_a_broken_file(fresh: Running):
    assert is_reset(fresh.lab, "listed.example")
    settings = fresh.daemon.config.read_text()
    fresh.daemon.stop()
    fresh.drop("court.list", "co.uk\n")
    fresh.daemon = fresh.lab.start_daemon(settings)
    assert is_reset(fresh.lab, "listed.example")
    [line] = refused(fresh)
    assert line["version_before"] and line["reason"].startswith("court.list:1: cannot be used; ")
    assert "'co.uk' is a public suffix" in (fresh.rules / "court.rejected").read_text()
    fresh.rules.rename(fresh.rules.with_name("away"))
    fresh.daemon.stop()
    fresh.daemon = fresh.lab.start_daemon(settings)
    assert is_reset(fresh.lab, "listed.example")
    assert "there is no such rules directory" in said(fresh, "rules not loaded; those in force stay")[0]["problem"]
    fresh.rules.with_name("away").rename(fresh.rules)
    fresh.drop("court.list", "open.example\n")
    assert until(lambda: is_reset(fresh.lab, "open.example"), SOON), fresh.daemon.last_words()
    assert fresh.daemon.stop() == 0


# A full disk -----------------------------------------------------------------------------------------------------

@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A state directory with room for little."""
    state = tmp_path / "small"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", state], check=True)
    yield state
    subprocess.run(["umount", "-l", state], check=True)


def test_a_full_disk(small: Path, tmp_path: Path):
    with Lab() as lab:
        home = tmp_path / "home"
        home.mkdir()
        running = start(lab, home)
        running.daemon.stop()
        settings = running.daemon.config.read_text().replace(f'key = "{home}/key"', f'key = "{small}/key"')
        running.daemon = lab.start_daemon(settings)
        assert is_reset(lab, "listed.example")
        running.drop("new.list", long_list("open.example", 20_000))
        assert until(lambda: refused(running), SOON)
        assert "No space left on device" in refused(running)[0]["reason"]
        assert is_reset(lab, "listed.example") and passes(lab, "open.example")
        # It tries again twice a second. What a try has left would stay while there is no next one.
        os.kill(running.daemon.process.pid, signal.SIGSTOP)
        assert until(lambda: not [*small.rglob("*.tmp")], SOON)
        os.kill(running.daemon.process.pid, signal.SIGCONT)
        subprocess.run(["mount", "-o", "remount,size=16m", small], check=True)
        assert until(lambda: is_reset(lab, "open.example"), SOON)       # nobody had to touch the list again
        assert not (running.rules / "new.rejected").exists()
        assert running.daemon.stop() == 0


# Odd files, one after the other, beside a list that stays ---------------------------------------------------------

def as_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def as_pipe(path: Path) -> None:
    os.mkfifo(path)


def as_hole(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(5 << 30)


def cut(path: Path) -> None:
    path.write_text("\n".join(f"host{number}.example" for number in range(2)))


ODD: list[tuple[Callable[[Path], object], str]] = [
    (as_link, "is a link that leads out of"), (as_pipe, "is a pipe"), (Path.mkdir, "is a directory"),
    (as_hole, "is longer than"), (cut, "shrank from 3001 entries to 2"),
    (lambda path: path.write_bytes(b"\x1f\x8b" + bytes(100)), "broken as a gzip file"),
    (lambda path: path.write_bytes(b""), "shrank"),
    (lambda path: path.with_suffix(".txt").write_text("second.example\n"), "court.txt: has the same list name"),
]


def test_odd_files_in_turn(fresh: Running):
    court = fresh.rules / "court.list"
    fresh.drop("court.toml", "max_growth = 1000000\n")
    for make, reason in ODD:
        court.with_suffix(".txt").unlink(missing_ok=True)
        fresh.drop("court.list", long_list("listed.example", 3000))
        assert until(lambda: not (fresh.rules / "court.rejected").exists()
                     and fresh.lab.counters(fresh.daemon)["lists.court.entries"] == 3001, SOON)
        keep = make is not ODD[-1][0]
        if keep:
            court.unlink()
        make(court)
        assert until(lambda reason=reason: (fresh.rules / "court.rejected").exists()
                     and reason in (fresh.rules / "court.rejected").read_text(), SOON), reason
        assert is_reset(fresh.lab, "listed.example") and is_reset(fresh.lab, "silent.example.org") is False
        if court.is_dir() and not court.is_symlink():
            court.rmdir()
        elif keep:
            court.unlink()
    assert until(lambda: not half_written(fresh), SOON) and fresh.daemon.process.poll() is None
    assert fresh.daemon.stop() == 0


# Addresses that many sites share ---------------------------------------------------------------------------------

def test_a_shared_address_refuses_its_list_and_the_operators_own_data_counts_after_a_reload(fresh: Running):
    networks = fresh.rules.parent / "own.networks"
    settings = fresh.daemon.config.read_text().replace("[rules]\n", f"[rules]\nshared = \"{networks}\"\n")
    assert "shared" in settings
    head = "[{}]\nkind = delivery network\nsource = here\ndate = 2026-11-01\n{}\n"
    networks.write_text(head.format("Others", "203.0.114.0/24"))
    fresh.daemon.stop()
    fresh.daemon = fresh.lab.start_daemon(settings)
    reason = fresh.rules / "order.rejected"
    fresh.drop("order.list", "open.example\n188.114.97.7\n")
    assert until(reason.exists, SOON)
    assert "order.list:2: 188.114.97.7 is in a network that many share, 188.114.96.0/20 of Cloudflare" in \
        reason.read_text()
    assert not is_reset(fresh.lab, "open.example") and is_reset(fresh.lab, "listed.example")
    networks.write_text(head.format("Cloudflare", "203.0.114.0/24"))
    fresh.daemon.process.send_signal(signal.SIGHUP)
    assert until(lambda: is_reset(fresh.lab, "open.example"), SOON) and until(lambda: not reason.exists(), SOON)
    assert fresh.daemon.stop() == 0


# Plain text ------------------------------------------------------------------------------------------------------

NEEDLES = (b"zqx-needle-host", b"zqx-needle-page")


def test_no_plain_text_anywhere_but_in_the_list(tmp_path: Path):
    with Lab() as lab:
        more = (f'\n[metrics]\nlisten = "{tmp_path}/metrics.sock"\n'
                f'[daemon]\ncontrol = "{tmp_path}/control.sock"\n')
        running = start(lab, tmp_path, more)
        running.drop("secret.list", "zqx-needle-host.example\nexample.org/zqx-needle-page/x.html\n")
        assert until(lambda: lab.counters(running.daemon).get("lists.secret.entries") == 2, SOON)
        worker = lab.counters(running.daemon)["workers.0.pid"]
        found = [(pid, needle) for pid in (worker, running.daemon.process.pid) for _, piece in memory_of(pid)
                 for needle in NEEDLES if needle in piece]
        assert found == []
        assert any(b"edgeblock" in piece for _, piece in memory_of(worker))     # the search does find what is there
        maps = Path(f"/proc/{worker}/maps").read_text()
        assert "memfd:edgeblock-rules" in maps and str(running.rules) not in maps
        metrics = lab.run_in("box", ["curl", "-s", "--unix-socket", f"{tmp_path}/metrics.sock",
                                     "http://localhost/metrics"]).stdout.encode()
        assert b'edgeblock_list_entries{list="secret"} 2.0' in metrics
        assert running.daemon.stop() == 0
        texts = [metrics, running.daemon.log.read_bytes()]
        texts += [path.read_bytes() for path in tmp_path.rglob("*")
                  if path.is_file() and path.parent != running.rules]
        assert len(texts) > 8 and not [text for text in texts for needle in NEEDLES if needle in text]


# A little beside much --------------------------------------------------------------------------------------------

def snapshots(daemon: int) -> list[dict[str, int]]:
    """The snapshots in memory that each worker has mapped: bytes by inode, the longest first."""
    found = []
    for pid in children(daemon, "edgeblock.daemon.worker"):
        with suppress(OSError):
            lines = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
                     if "memfd:edgeblock-rules" in line]
            sizes = {line[4]: int(line[0].partition("-")[2], 16) - int(line[0].partition("-")[0], 16)
                     for line in lines}
            found.append(dict(sorted(sizes.items(), key=lambda one: -one[1])))
    return found


def test_a_line_and_an_exception_beside_many_come_into_force_by_themselves(fresh: Running):
    """Nothing of the long list is read, written or mapped again, and the first stage follows."""
    daemon = fresh.daemon.process.pid
    fresh.drop("long.list", long_list("listed.example", 220_000))
    assert until(lambda: any(line["list"] == "long" for line in said(fresh, "rules audit")), 3 * SOON)
    state = fresh.rules.parent / "rules.snapshot"
    assert until(lambda: state.stat().st_size > 4_000_000, SOON) and is_reset(fresh.lab, "listed.example")
    assert until(lambda: all(next(iter(mapped.values()), 0) > 4_000_000 for mapped in snapshots(daemon)), SOON)
    (long, *small), base = snapshots(daemon)[0], state.stat().st_mtime_ns
    fresh.drop("urgent.list", "www.open.example\n@@listed.example\n")
    assert until(lambda: is_reset(fresh.lab, "www.open.example"), SOON), fresh.daemon.last_words()
    assert passes(fresh.lab, "listed.example") and passes(fresh.lab, "open.example")
    assert until(lambda: all(len(mapped) == 2 and next(iter(mapped)) == long and not mapped.keys() & {*small}
                             for mapped in snapshots(daemon)), SOON), fresh.daemon.last_words()
    fresh.drop("urgent.list", "open.example\n")
    assert until(lambda: is_reset(fresh.lab, "open.example"), SOON), fresh.daemon.last_words()
    assert is_reset(fresh.lab, "listed.example")
    settings = fresh.daemon.config.read_text()
    assert not said(fresh, "worker ended") and fresh.daemon.stop() == 0
    fresh.daemon = fresh.lab.start_daemon(settings)
    assert is_reset(fresh.lab, "open.example") and is_reset(fresh.lab, "listed.example")
    assert state.stat().st_mtime_ns == base
    assert fresh.daemon.stop() == 0
