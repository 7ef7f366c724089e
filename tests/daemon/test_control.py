"""The control socket, asked as `edgeblock status` and a stranger would."""

import asyncio
import grp
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import uvloop

from edgeblock.asking import ask
from edgeblock.daemon import control
from edgeblock.daemon.control import Control
from edgeblock.errors import SystemProblem
from edgeblock.lab import until


@contextmanager
def serving(path, answers, about=None, group=""):
    """A Control in an event loop of another thread."""
    loop = uvloop.new_event_loop()       # as in the daemon
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = Control(path, answers, about, group)
    try:
        asyncio.run_coroutine_threadsafe(server.open(), loop).result(10)
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "made" / "control.sock"


def test_a_question_gets_its_answer_and_only_the_owner_may_ask(path):
    with serving(path, {"status": lambda: {"packets": 7, "big": "x" * 300_000}}):
        assert ask(path, "status")["packets"] == 7
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert ask(path, "moon") == {"error": "unknown question; known are status"}
        assert ask(path, "status please") == {"error": "unknown question; known are status"}
    assert not path.exists()
    with pytest.raises(SystemProblem, match="no edgeblock is running here"):
        ask(path, "status")


def as_nobody(path, question, group=0):
    """What a process of another user, in that group, is answered."""
    code = ("import os, sys; os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(65534)\n"
            "import socket; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[2])\n"
            "s.sendall(sys.argv[3].encode() + b'\\n'); print(b''.join(iter(lambda: s.recv(65536), b'')).decode())")
    done = subprocess.run([sys.executable, "-c", code, str(group), path, question], capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else done.stderr.splitlines()[-1:]


@pytest.fixture
def open_path():
    with tempfile.TemporaryDirectory() as folder:       # pytest's own folders are for their owner only
        os.chmod(folder, 0o755)
        yield Path(folder) / "control.sock"


@pytest.mark.live     # becomes another user
def test_members_of_the_group_may_ask_two_things_and_others_none(open_path):
    games = grp.getgrnam("games").gr_gid
    answers = {"status": lambda: {"packets": 7}, "canary": lambda: {"rows": []}}
    with serving(open_path, answers, {"check": lambda text: {"asked": text}, "rule": lambda text: {}}, "games"):
        assert as_nobody(open_path, "status", games) == {"packets": 7}
        assert as_nobody(open_path, 'check "a"', games) == {"asked": '"a"'}
        for question in ("canary", "rule 1", "statuscanary", ""):
            assert as_nobody(open_path, question, games) == {
                "error": "not permitted; members of games may ask check, status"}
        assert as_nobody(open_path, "status") in ([], ["ConnectionResetError: [Errno 104] Connection reset by peer"],
                                                  ["BrokenPipeError: [Errno 32] Broken pipe"])
        assert ask(open_path, "canary") == {"rows": []}


@pytest.mark.live     # becomes another user
def test_members_of_the_group_share_what_is_dear_to_make(open_path, monkeypatch):
    games = grp.getgrnam("games").gr_gid
    made = []

    async def status():
        made.append(1)
        await asyncio.sleep(0.05)
        return {"packets": len(made)}

    monkeypatch.setattr(control, "_who", lambda connection: (65534, {games}))
    with serving(open_path, {"status": status}, group="games"):
        assert [ask(open_path, "status") for _ in range(20)] == [{"packets": 1}] * 20
        monkeypatch.setattr(control, "SHARED", 0.0)
        assert ask(open_path, "status") == {"packets": 2}
        monkeypatch.undo()
        assert ask(open_path, "status") == {"packets": 3}       # the owner has it made anew


@pytest.mark.live     # becomes another user
def test_members_of_the_group_cannot_keep_the_owner_from_asking(open_path, monkeypatch):
    games = grp.getgrnam("games").gr_gid
    monkeypatch.setattr(control, "_who", lambda connection: (65534, {games}))
    with serving(open_path, {"status": lambda: {"packets": 7}}, group="games"), ExitStack() as idle:
        for _ in range(control.OTHERS_MAX + 5):
            one = idle.enter_context(socket.socket(socket.AF_UNIX))
            one.connect(str(open_path))
        assert until(lambda: as_nobody(open_path, "status", games) != {"packets": 7}, 5)
        monkeypatch.undo()
        assert ask(open_path, "status") == {"packets": 7}


def test_an_answer_is_waited_for_where_a_crowd_is_at_the_door(open_path):
    """The queue of a socket is short, and whoever may connect can fill it."""
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as crowd:
        listener.bind(str(open_path))
        listener.listen(1)
        waiting = 0
        with suppress(BlockingIOError):
            while True:
                one = crowd.enter_context(socket.socket(socket.AF_UNIX))
                one.setblocking(False)
                one.connect(str(open_path))
                waiting += 1

        def serve():
            for _ in range(waiting):
                listener.accept()[0].close()
            with listener.accept()[0] as taken:
                taken.recv(100)
                taken.sendall(b'{"packets": 7}\n')

        threading.Timer(0.3, serve).start()
        assert ask(open_path, "status") == {"packets": 7}


@pytest.mark.parametrize("group", ["no-such-group-here", ""])
def test_without_the_group_only_the_owner_may_ask(open_path, group):
    with serving(open_path, {"status": dict}, group=group):
        assert stat.S_IMODE(open_path.stat().st_mode) == 0o600


def test_a_question_may_be_about_something(path):
    with serving(path, {"status": dict}, {"check": lambda text: {"asked": text}}):
        assert ask(path, 'check "a b"') == {"asked": '"a b"'}
        assert ask(path, "check") == {"error": "unknown question; known are status, check ..."}
        assert len(ask(path, "check " + "x" * 60_000)["asked"]) == 60_000
        with pytest.raises(SystemProblem, match="the question is longer than 65536 bytes"):
            ask(path, "check " + "x" * 70_000)


@pytest.mark.parametrize("question", [b"", b"\n", b"\xff\xfe\n", b"x" * 100_000, b"status"])
def test_nonsense_ends_its_own_connection_only(path, question):
    with serving(path, {"status": dict}):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(10)
            stranger.connect(str(path))
            try:
                stranger.sendall(question)
                stranger.shutdown(socket.SHUT_WR)
                while stranger.recv(1000):
                    pass
            except (BrokenPipeError, ConnectionResetError):
                pass
        assert ask(path, "status") == {}


def test_who_asks_nothing_is_let_go(path, monkeypatch):
    monkeypatch.setattr(control, "PATIENCE", 0.1)
    with serving(path, {"status": dict}), socket.socket(socket.AF_UNIX) as silent:
        silent.settimeout(10)
        silent.connect(str(path))
        assert silent.recv(100) == b""


def test_hundreds_who_ask_nothing_take_no_more_than_their_share(path):
    """Each would cost the supervisor a descriptor, for seconds."""
    with serving(path, {"status": dict}) as server:
        crowd = [socket.socket(socket.AF_UNIX) for _ in range(100)]
        for one in crowd:
            one.settimeout(10)
            one.connect(str(path))
        for one in crowd[control.ASKING_MAX:]:
            with suppress(ConnectionResetError):
                assert one.recv(100) == b""
        assert server.asking == control.ASKING_MAX
        for one in crowd:
            one.close()
        assert until(lambda: not server.asking, 10) and ask(path, "status") == {}


def test_who_does_not_read_the_answer_is_let_go(path, monkeypatch):
    monkeypatch.setattr(control, "PATIENCE", 0.1)
    with serving(path, {"status": lambda: "x" * 3_000_000}) as server, socket.socket(socket.AF_UNIX) as deaf:
        deaf.settimeout(10)
        deaf.connect(str(path))
        deaf.sendall(b"status\n")
        assert until(lambda: server.asking, 10) and until(lambda: not server.asking, 10)
        assert len(b"".join(iter(lambda: deaf.recv(1 << 16), b""))) < 3_000_000


def test_a_socket_that_has_been_replaced_does_not_matter_at_the_end(path):
    with serving(path, {"status": dict}):
        path.unlink()
        path.mkdir()
    assert path.is_dir()


def test_a_socket_that_a_killed_daemon_left_is_taken_over(path):
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    with pytest.raises(SystemProblem, match="no edgeblock is running here"):
        ask(path, "status")
    with serving(path, {"status": dict}):
        assert ask(path, "status") == {}


def test_two_daemons_do_not_share_a_socket(path):
    with serving(path, {"status": dict}):
        with pytest.raises(SystemProblem, match="in use by another edgeblock; stop it, or set another control"):
            asyncio.run(Control(path, {}).open())
        assert ask(path, "status") == {}


@pytest.mark.parametrize("below", ["file/control.sock", "x" * 200, "file"])
def test_a_place_that_cannot_be_is_one_line(tmp_path, below):
    (tmp_path / "file").write_text("something else")
    with pytest.raises(SystemProblem, match="the control socket cannot be made: .*; set another control") as caught:
        asyncio.run(Control(tmp_path / below, {}).open())
    assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "something else"


def test_an_answer_that_is_none_is_one_line(path):
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        thread = threading.Thread(target=lambda: other.accept()[0].close())
        thread.start()
        with pytest.raises(SystemProblem, match="no answer"):
            ask(path, "status")
        thread.join(10)
