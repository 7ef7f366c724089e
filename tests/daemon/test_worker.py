"""The daemon as a process in a lab: what it says, what it refuses, and how it ends."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import uvloop

from edgeblock.config import Config, Privacy, Reply
from edgeblock.core.decision import Decision, Name
from edgeblock.core.engine import Engine
from edgeblock.core.matcher import Matcher
from edgeblock.daemon import board, worker
from edgeblock.daemon.board import Board
from edgeblock.daemon.journal import Journal
from edgeblock.daemon.supervisor import Supervisor
from edgeblock.errors import ConfigError
from edgeblock.lab import CLIENT, Lab, page, until
from tests.daemon.scarce import descriptors_left

pytestmark = pytest.mark.live

SOON = 15.0


@pytest.fixture(scope="module")
def lab():
    with Lab() as lab:
        yield lab


@pytest.fixture
def box(lab, tmp_path):
    """A rules directory, a configuration to add to, and daemons in the lab that end with the test."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "court.list").write_text("listed.example\n")
    started = []

    def config(more=""):
        return f'[rules]\ndirectory = "{tmp_path}/rules"\nkey = "{tmp_path}/key"\n{more}'

    def start(more=""):
        started.append(lab.start_daemon(config(more)))
        return started[-1]

    def refused(text, *wrapper, status=2):
        """The one line that a daemon says that cannot start; status 1 where it may later."""
        file = tmp_path / "refused.toml"
        file.write_text(text)
        command = [*wrapper, sys.executable, "-m", "edgeblock", "run", "--config", str(file)]
        done = lab.run_in("box", command, check=False)
        assert done.returncode == status, done
        assert {json.loads(line)["event"] for line in done.stdout.splitlines()} <= {"rules audit", "ledger head"}
        [line] = done.stderr.splitlines()
        assert line.startswith("edgeblock: ")
        return line

    yield SimpleNamespace(config=config, start=start, refused=refused, rules=tmp_path / "rules", home=tmp_path)
    for daemon in started:
        daemon.stop(signal.SIGKILL)


def events(daemon):
    lines = daemon.log.read_text().splitlines()
    return [json.loads(line) for line in lines]


def said(daemon, event):
    return [line for line in events(daemon) if line["event"] == event]


def refused(daemon):
    return [line for line in said(daemon, "rules audit") if line["change"] == "refused"]


def is_reset(lab, host):
    return lab.fetch(f"https://{host}/").exit == 35


def test_its_log_is_json_and_names_nobody(lab, box):
    daemon = box.start("[daemon]\nlog_blocks = 3\n" f'control = "{box.home}/control.sock"\n')
    assert all(is_reset(lab, "www.listed.example") for _ in range(4))
    assert lab.fetch("https://open.example/").body == page("open.example")
    counters = lab.counters(daemon)
    assert daemon.stop() == 0
    assert counters["matched.court.reset"] == counters["queue.decisions"] == 4
    assert counters["replies.sent"] >= 8 and counters["replies.failed"] == 0
    told = [line["event"] for line in events(daemon) if line["event"] != "ledger head"]     # whenever one is signed
    assert told[:2] == ["rules audit", "started"] and told[-2:] == ["counters", "stopped"]
    blocks = said(daemon, "blocked")
    assert 3 <= len(blocks) <= 4
    for line in blocks:
        assert line["list"] == "court" and line["action"] == "reset" and line["proto"] == "tls" and line["rule"]
    text = daemon.log.read_text()
    assert "listed.example" not in text and CLIENT[4] not in text
    assert said(daemon, "counters")[0]["queue"]["waiting"] == 0


def test_its_log_says_more_when_told_to(lab, box):
    daemon = box.start("[privacy]\nnames = true\nclients = true\n")
    assert is_reset(lab, "www.listed.example")
    assert daemon.stop() == 0
    [line] = said(daemon, "blocked")
    assert (line["host"], line["path"], line["client"]) == ("www.listed.example", None, CLIENT[4])


def test_a_hangup_loads_the_lists_anew_and_says_so(lab, box):
    daemon = box.start()
    daemon.process.send_signal(signal.SIGHUP)
    assert until(lambda: said(daemon, "rules loaded"), SOON)
    [line] = said(daemon, "rules loaded")
    assert (line["lists"], line["entries"]) == (1, 1) and line["digest"]
    assert daemon.stop() == 0


def test_broken_lists_are_refused_in_one_line_without_their_words(lab, box):
    daemon = box.start()
    (box.rules / "court.list").write_text("fine.example\nsecret..example\n")
    assert until(lambda: refused(daemon), SOON)
    assert "court.list:2: 'secret..example' has an empty label" in (box.rules / "court.rejected").read_text()
    assert is_reset(lab, "listed.example")
    assert lab.counters(daemon)["rules.refused"] == 1
    (box.rules / "court.list").write_text("open.example\n")
    assert until(lambda: said(daemon, "rules loaded"), SOON)
    assert is_reset(lab, "open.example")
    assert not (box.rules / "court.rejected").exists()
    assert daemon.stop() == 0
    [line] = refused(daemon)
    assert (line["list"], line["version_before"], line["uid"]) == ("court", True, 0)
    assert line["reason"].startswith("court.list: 1 of 2 lines cannot be used")
    assert "secret" not in daemon.log.read_text()


def test_it_stops_although_a_list_arrives_in_the_same_moment(lab, box):
    """Python 3.11's asyncio.wait_for forgot a cancellation that came with what it waited for: SIGTERM did nothing."""
    daemon = box.start()
    os.kill(daemon.process.pid, signal.SIGSTOP)
    (box.rules / ".new").write_text("open.example\n")
    (box.rules / ".new").rename(box.rules / "court.list")
    os.kill(daemon.process.pid, signal.SIGTERM)
    os.kill(daemon.process.pid, signal.SIGCONT)
    assert daemon.process.wait(SOON) == 0 and said(daemon, "stopped")


def test_it_stops_although_its_worker_does_not(lab, box):
    daemon = box.start(f'[daemon]\ncontrol = "{box.home}/control.sock"\n')
    os.kill(lab.counters(daemon)["workers.0.pid"], signal.SIGSTOP)
    assert daemon.stop() == 0 and said(daemon, "stopped")


def test_a_list_ends_when_it_expires(lab, box):
    daemon = box.start()
    assert is_reset(lab, "listed.example")
    soon = datetime.now(UTC) + timedelta(seconds=4)
    (box.rules / "court.toml").write_text(f"expires = {soon:%Y-%m-%dT%H:%M:%S.%fZ}\n")
    assert until(lambda: lab.fetch("https://listed.example/").body == page("listed.example"), 4 + SOON)
    assert datetime.now(UTC) >= soon
    assert daemon.stop() == 0
    assert [line["change"] for line in said(daemon, "rules audit")][-1] == "expired"


def test_systemd_hears_of_every_step(lab, box):
    (box.home / "daemon.toml").write_text(box.config(f'[daemon]\ncontrol = "{box.home}/control.sock"\n'))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(box.home / "notify"))
        manager.settimeout(20)
        process = lab.popen_in("box", [sys.executable, "-m", "edgeblock", "run", "--config",
                                       str(box.home / "daemon.toml")], stdout=subprocess.DEVNULL,
                               env=os.environ | {"NOTIFY_SOCKET": str(box.home / "notify")})

        def heard() -> bytes:
            # Queues to be kept, and what the canary has seen meanwhile.
            while (message := manager.recv(1000)).startswith((b"FDSTORE=1", b"STATUS=")):
                pass
            return message

        ready = b"READY=1\nSTATUS=queue 0: 1 entries of 1 lists in force"
        assert heard() == ready
        process.send_signal(signal.SIGHUP)
        assert heard().startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert heard() == ready
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert heard() == b"STOPPING=1"
        assert process.wait(20) == 0


def test_a_standard_input_that_is_closed_is_no_obstacle(lab, box):
    """What was opened first had its number then, and was lost on the way to a worker."""
    (box.home / "daemon.toml").write_text(box.config(f'[daemon]\ncontrol = "{box.home}/control.sock"\n'))
    process = lab.popen_in("box", ["bash", "-c", 'exec "$@" <&-', "-", sys.executable, "-m", "edgeblock",
                                   "run", "--config", str(box.home / "daemon.toml")])
    assert until(lambda: is_reset(lab, "listed.example"), SOON)
    process.terminate()
    assert process.wait(SOON) == 0


def test_stopping_while_it_starts_is_a_clean_stop(lab, box):
    # A list that takes a while to compile: the signal comes before the daemon is ready.
    (box.rules / "long.list").write_text("".join(f"host{number}.example\n" for number in range(300_000)))
    (box.home / "daemon.toml").write_text(box.config(f'[daemon]\ncontrol = "{box.home}/control.sock"\n'))
    process = lab.popen_in("box", [sys.executable, "-m", "edgeblock", "run", "--config",
                                   str(box.home / "daemon.toml")], stdout=subprocess.PIPE)
    assert until(lambda: (box.home / "key").exists(), SOON)     # made just before the child is started
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    told = [json.loads(line)["event"] for line in output.splitlines()]
    assert [event for event in told if event != "ledger head"] == ["stopped"]       # one is signed at any moment


def test_what_cannot_be_is_one_line(lab, box):
    own = f'[daemon]\ncontrol = "{box.home}/other.sock"\n'
    assert "unknown key 'directroy' in [rules]; did you mean directory?" in box.refused('[rules]\ndirectroy = "x"\n')
    assert "there is no such rules directory" in box.refused(box.config(own).replace("/rules", "/absent"))
    assert "not permitted; run as root" in box.refused(
        box.config(own), "setpriv", "--bounding-set", "-all", "--inh-caps", "-all", status=1)
    assert "is not two adjacent bits" in box.refused(box.config(own + "[ruleset]\nmark_mask = 5\n"))
    assert "reply.page" in box.refused(box.config(own + '[reply]\npage = "absent.html"\n'))
    (box.rules / "bad.list").write_text("secret.example\nco.uk\n")
    daemon = box.start()
    [line] = refused(daemon)
    assert line["reason"].startswith("bad.list:2: cannot be used; ") and not line["version_before"]
    assert is_reset(lab, "listed.example") and "secret" not in daemon.log.read_text()
    assert "queue 0 is in use by process" in box.refused(box.config(own), status=1)
    line = box.refused(box.config(own + "[queue]\nnumber = 9\n"), status=1)
    assert f"rules of this network namespace are those of another edgeblock (process {daemon.process.pid})" in line
    assert is_reset(lab, "listed.example")      # and the daemon that runs is unharmed
    assert daemon.stop() == 0


def test_a_control_socket_in_use_is_one_line_and_leaves_nothing(lab, box):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(box.home / "taken.sock"))
        other.listen()
        line = box.refused(box.config(f'[daemon]\ncontrol = "{box.home}/taken.sock"\n'), status=1)
    assert "the control socket is in use by another edgeblock" in line
    assert "EDGEBLOCK" not in lab.run_in("box", ["iptables-save"]).stdout
    box.start().stop()


def test_kernel_rules_of_its_own_are_left_alone_when_told_to(lab, box):
    daemon = box.start("[ruleset]\ninstall = false\n")
    assert "EDGEBLOCK" not in lab.run_in("box", ["iptables-save"]).stdout
    assert lab.fetch("https://listed.example/").body == page("listed.example")
    assert daemon.stop() == 0


def test_no_packet_is_lost_while_lists_are_loaded(lab, box):
    """Requests one after the other on kept connections, while the lists are loaded again and again."""
    (box.rules / "long.list").write_text("".join(f"host{number}.example\n" for number in range(20_000)))
    daemon = box.start()
    answers, done = [], threading.Event()

    def browse():
        while not done.is_set():
            with lab.connect(80) as connection:
                for _ in range(500):        # nginx ends a connection after a thousand
                    connection.sendall(b"GET / HTTP/1.1\r\nHost: open.example\r\n\r\n")
                    answers.append(connection.recv(65536))

    thread = threading.Thread(target=browse)
    thread.start()
    try:
        for count in range(1, 4):
            daemon.process.send_signal(signal.SIGHUP)
            assert until(lambda count=count: len(said(daemon, "rules loaded")) == count, 20)
    finally:
        done.set()
        thread.join(30)
    counters = lab.counters(daemon)
    assert len(answers) > 300 and all(answer.endswith(page("open.example")) for answer in answers)
    assert counters["queue.lost"] == counters["queue.waiting"] == counters["queue.refused"] == 0
    assert daemon.stop() == 0


@pytest.fixture
def made(tmp_path):
    """A worker without a queue or a supervisor, and the lines that it logs."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with open(tmp_path / "log", "w") as file, Journal(file, Privacy(), 1) as journal, ours, theirs:
        worker_made = worker.Worker(Config(), journal, ours, Board(1))
        worker_made.row = worker_made.board.rows[0]
        worker_made.base = [0] * (board.MATCHED - board.ENGINE_REST)
        worker_made.injector = SimpleNamespace(sent=7, failed=0)
        yield SimpleNamespace(worker=worker_made, heard=theirs, log=tmp_path / "log", journal=journal, file=file)


def test_answers_that_fail_are_said_once_a_look_without_their_words(made):
    made.worker.engine = Engine(Matcher())
    made.worker.reader = SimpleNamespace(failures=3, failure="LookupError: secret.example",
                                         counters=lambda: {"lost": 5, "full": 0})
    made.worker._tick()
    made.worker._tick()
    made.journal.__exit__()
    made.file.flush()
    [line] = map(json.loads, made.log.read_text().splitlines())
    assert (line["event"], line["count"], line["problem"]) == ("answers failed", 3, "LookupError")
    counted = made.worker.board.counters([0])
    assert (counted["queue"]["lost"], counted["replies"]["sent"]) == (5, 7)


def test_a_broken_socket_ends_the_worker_with_its_reason(made):
    removed = []

    def broken():
        raise OSError(9, "receiving from queue 0: Bad file descriptor")

    made.worker.loop = SimpleNamespace(remove_reader=removed.append)
    made.worker.ended = SimpleNamespace(done=lambda: False, set_result=removed.append)
    made.worker.reader = SimpleNamespace(drain=broken, fileno=lambda: 5)
    made.worker._drain()
    assert removed == [5, 2]
    assert "receiving from queue 0: Bad file descriptor" in json.loads(made.heard.recv(1000))["refused"]


def test_a_processor_that_was_taken_away_is_no_reason_to_leave_a_queue_alone(made, monkeypatch):
    """Every replacement of the worker ended with it, one after the other."""
    reader = SimpleNamespace(fileno=lambda: 5, condemned=0)
    monkeypatch.setattr(worker, "QueueReader", lambda *_, **__: reader)
    made.worker.loop = SimpleNamespace(add_reader=lambda *_: None)
    made.worker._beat = lambda: None
    absent = os.sysconf("SC_NPROCESSORS_CONF")
    order = {"row": 0, "queue": 0, "cpu": absent, "counts": (0, 0), "blame": "nothing"}
    assert made.worker._take_queue(order, []) is reader


def test_a_worker_without_room_for_an_order_ends_with_a_line(made, monkeypatch):
    """It asked again without end, and went on with the rules that it had."""
    monkeypatch.setattr(worker.socket, "recv_fds", Mock(side_effect=MemoryError))
    removed = []
    made.worker.loop = SimpleNamespace(remove_reader=removed.append)
    made.worker.ended = SimpleNamespace(done=lambda: False, set_result=removed.append)
    made.worker._hear(asyncio.Queue())
    assert removed == [made.worker.supervisor.fileno(), 2]
    assert json.loads(made.heard.recv(1000)) == {"refused": "Cannot allocate memory"}


@pytest.mark.parametrize("problem, told", [
    (OSError(12, "Cannot allocate memory"), "[Errno 12] Cannot allocate memory"),
    (MemoryError(), "not enough memory"),
])
def test_a_worker_without_memory_ends_with_a_line(made, problem, told):
    async def fail():
        made.worker.loop = asyncio.get_running_loop()

        async def obey(_):
            raise problem

        made.worker._obey = obey
        return await made.worker.serve()

    assert uvloop.run(fail()) == 2
    assert json.loads(made.heard.recv(1000)) == {"refused": told}


def test_a_worker_without_a_descriptor_for_an_order_ends_with_a_line(made):
    async def hear():
        made.worker.ended = asyncio.get_running_loop().create_future()
        socket.send_fds(made.heard, [b'{"do": "rules"}'], [0, 0])
        with descriptors_left(1):
            made.worker._hear(asyncio.Queue())
        return made.worker.ended.result()

    assert uvloop.run(hear()) == 2
    assert json.loads(made.heard.recv(1000))["refused"].startswith("no descriptor is left")


def test_a_policy_without_a_list_is_counted_as_one(made):
    made.worker.decide(b"\x45" + bytes(19), Decision(False, names=(Name("tls", None, None, "drop", None, None),)))
    assert made.worker.board.counters([0])["matched"] == {"policy": {"drop": 1}}


def test_settings_that_no_answer_can_have_are_refused_before_anything_starts():
    with pytest.raises(ConfigError, match=r"reply.redirect"):
        Supervisor(Config(reply=Reply(redirect="javascript:alert(1)")), SimpleNamespace(log=None), {}, None)
