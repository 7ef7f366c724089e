"""When a box is given traffic, and what is done then."""

import io
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edgeblock.asking import ask
from edgeblock.cli import main
from edgeblock.errors import SystemProblem
from edgeblock.fleet.routable import AGAIN, LATE, ROUND, Damper, Effects, Watch, look
from edgeblock.lab import until

GOOD: dict[str, Any] = {"vigil": {"filtering": True, "causes": []},
                        "canary": {"state": "ok", "off": "", "rounds": 7, "probes": []}}


def status(**canary: Any) -> dict[str, Any]:
    return GOOD | {"canary": GOOD["canary"] | canary}


@pytest.mark.parametrize(("answer", "why"), [
    (GOOD, ""),
    (GOOD | {"vigil": {"filtering": False, "causes": ["rules are gone"]}}, "not filtering: rules are gone"),
    (status(state="off", off="off in the settings"), "the canary is off (off in the settings)"),
    (status(state="waiting"), "canary waiting"),
    (status(state="failed", probes=[{"family": "ipv4", "protocol": "tls", "wrong": ""},
                                    {"family": "ipv6", "protocol": "tls", "wrong": "nothing comes through"}]),
     "canary failed: ipv6 tls: nothing comes through"),
    ({"error": "no"}, "the running daemon says: no"),
    ({"vigil": {"filtering": True}}, "lacks 'canary'"),
    ([], "the daemon's answer lacks"),
])
def test_down_is_whatever_is_not_known_to_be_up(answer: Any, why: str):
    said = look(lambda: answer, Watch(10.0), 1000.0, 0.0)
    assert why in said and bool(said) == bool(why)


def test_no_answer_is_down():
    def nobody() -> dict[str, Any]:
        raise SystemProblem("no edgeblock is running here")

    assert look(nobody, Watch(10.0), 0.0, 0.0) == "no edgeblock is running here"


def test_a_round_that_is_long_ago_says_nothing():
    watch = Watch(5.0)
    most = LATE * 5.0 + ROUND
    assert watch.why_not(GOOD, 100.0, 0.0) == "" and watch.why_not(GOOD, 100.0 + most, 0.0) == ""
    assert watch.why_not(GOOD, 101.0 + most, 0.0) == "the canary's last round is 26 s ago"
    assert watch.why_not(status(rounds=8), 102.0 + most, 0.0) == ""


def test_the_first_look_hears_of_rounds_long_ago():
    told = status(probes=[{"family": "ipv4", "protocol": "tls", "wrong": "", "succeeded": 5000.0}])
    most = LATE * 5.0 + ROUND
    assert look(lambda: told, Watch(5.0), 1.0, 5000.0 + most) == ""
    assert look(lambda: told, Watch(5.0), 1.0, 5001.0 + most) == "the canary's last round is 26 s ago"
    assert look(lambda: told, Watch(5.0), 1.0, 4000.0) == ""        # the clock was put back


@pytest.mark.parametrize(("looks", "states"), [
    ("ggg", "..+"), ("b", "-"), ("gb", ".-"), ("gggb", "..+."), ("gggbb", "..+.-"), ("gggbgb", "..+..."),
    ("gggbbgg", "..+.-.."), ("gggbbggg", "..+.-..+"), ("gggbbggbggg", "..+.-.....+"), ("bbbb", "-...")])
def test_it_is_damped(looks: str, states: str):
    damper = Damper(rise=3, fall=2)
    assert "".join(("+" if damper.up else "-") if damper.take(one == "g") else "." for one in looks) == states


# What is done -------------------------------------------------------------------------------------------------

def test_commands_run_once_again_where_they_fail_and_after_a_while(tmp_path: Path):
    log, stop = tmp_path / "log", tmp_path / "stop"
    script = tmp_path / "tell"
    script.write_text(f'#!/bin/sh\n[ -e {stop} ] && {{ echo "not now" >&2; exit 3; }}\necho "$*" >>{log}\n')
    script.chmod(0o755)
    effects = Effects({True: [f"{script} enable 'a b'"], False: [f"{script} disable"]}, tmp_path / "up")
    stop.touch()
    assert effects.apply(True, 0.0) == [f"{script} enable 'a b': not now"] and effects.done is None
    stop.unlink()
    assert effects.apply(True, 1.0) == [] and effects.apply(True, 2.0) == []
    assert log.read_text() == "enable a b\n" and (tmp_path / "up").exists()
    assert effects.apply(True, 1.0 + AGAIN) == [] and log.read_text() == "enable a b\n" * 2
    assert effects.apply(False, 2.0 + AGAIN) == [] and not (tmp_path / "up").exists()
    assert log.read_text().endswith("disable\n")
    assert effects.apply(False, 3.0 + 2 * AGAIN) == []
    assert "No such file" in Effects({True: ["/nowhere/at/all"]}).apply(True, 0.0)[0]


def test_what_was_done_in_part_is_undone_at_once(tmp_path: Path):
    up = tmp_path / "up"
    effects = Effects({True: ["false"], False: []}, up)
    assert effects.apply(False, 0.0) == []
    assert effects.apply(True, 1.0) == ["false: status 1"] and up.exists()
    assert effects.apply(False, 2.0) == [] and not up.exists()


def test_what_a_command_says_may_be_any_bytes():
    effects = Effects({True: [r"""sh -c "printf '\\377 no' >&2; exit 1" """]})
    [wrong] = effects.apply(True, 0.0)
    assert wrong.endswith("\ufffd no")


def test_routes_are_announced_withdrawn_and_followed(tmp_path: Path):
    out, routes = io.StringIO(), tmp_path / "routes"
    effects = Effects(routes=routes, out=out)

    def told(up: bool) -> list[str]:
        out.seek(0)
        out.truncate()
        effects.apply(up, 0.0)
        return out.getvalue().splitlines()

    assert "No such file" in effects.apply(True, 0.0)[0]
    both = ["announce route 192.0.2.0/24 next-hop self", "announce route 192.0.2.9/32 next-hop self"]
    routes.write_text("\n".join(("# head", *both)) + "\n")
    assert told(True) == both and told(True) == []
    new = tmp_path / "new"
    new.write_text("announce route 192.0.2.0/24 next-hop self\nannounce route 198.51.100.0/24 next-hop self\n")
    new.rename(routes)
    assert told(True) == ["withdraw route 192.0.2.9/32 next-hop self", "announce route 198.51.100.0/24 next-hop self"]
    routes.rename(new)
    assert told(True) == []             # gone: what is announced stays, and that is said
    new.rename(routes)
    assert told(False) == ["withdraw route 192.0.2.0/24 next-hop self",
                           "withdraw route 198.51.100.0/24 next-hop self"]
    assert told(False) == [] and len(told(True)) == 2


def test_what_one_before_has_announced_is_withdrawn(tmp_path: Path):
    out, routes = io.StringIO(), tmp_path / "routes"
    routes.write_text("announce route 192.0.2.0/24 next-hop self\n")
    effects = Effects(routes=routes, out=out)
    assert effects.apply(False, 0.0) == [] and effects.apply(False, 1.0) == []
    assert out.getvalue() == "withdraw route 192.0.2.0/24 next-hop self\n"
    assert effects.apply(True, 2.0) == [] and out.getvalue().endswith("announce route 192.0.2.0/24 next-hop self\n")


def test_what_nobody_reads_is_no_reason_to_leave_the_rest(tmp_path: Path):
    class Closed(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError(32, "Broken pipe")

    routes, up = tmp_path / "routes", tmp_path / "up"
    routes.write_text("announce route 192.0.2.0/24 next-hop self\n")
    up.touch()
    effects = Effects(file=up, routes=routes, out=Closed())
    assert effects.apply(False, 0.0) == ["the announcements: Broken pipe"] and not up.exists()


# The command --------------------------------------------------------------------------------------------------

class Told(threading.Thread):
    """Something that answers on a control socket with what `answer` is."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.answer: dict[str, Any] = GOOD
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(str(path))
        self.socket.listen()

    def run(self) -> None:
        for rounds in range(10, 10000):
            connection, _ = self.socket.accept()
            with connection:
                connection.recv(100)
                connection.sendall(json.dumps(self.answer | {"canary": self.answer["canary"] | {
                    "rounds": rounds}}).encode() + b"\n")


@pytest.fixture
def daemon(tmp_path: Path) -> Told:
    (tmp_path / "edgeblock.toml").write_text(f'[daemon]\ncontrol = "{tmp_path}/control"\n')
    told = Told(tmp_path / "control")
    told.start()
    return told


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> subprocess.Popen[str]:
        running.append(subprocess.Popen(
            [sys.executable, "-m", "edgeblock", "health", "--config", str(tmp_path / "edgeblock.toml"), "--interval",
             "0.05", "--rise", "2", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=(tmp_path / "said").open("w")))
        return running[-1]

    yield begin
    for one in running:
        one.kill()
        one.wait()
        one.stdout.close()


def test_once_says_it_with_its_status(daemon: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["health", "--config", str(tmp_path / "edgeblock.toml"), "--once"]
    assert (main(words), capsys.readouterr().out) == (0, "up\n")
    daemon.answer = status(state="failed")
    assert (main(words), capsys.readouterr().out) == (1, "down: canary failed\n")


def test_an_answer_that_never_ends_is_none(tmp_path: Path):
    """A byte now and then would have whoever looks wait, and the box up, for ever."""
    heard = threading.Event()

    def trickle() -> None:
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            while not heard.wait(0.1):
                connection.sendall(b" ")

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "control"))
        listening.listen()
        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        timer = threading.Timer(5.0, heard.set)
        timer.start()
        with pytest.raises(SystemProblem, match="no answer within 1 s"):
            ask(tmp_path / "control", "status", 1.0)
        assert not heard.is_set()
        timer.cancel()
        heard.set()
        thread.join()


def test_a_file_is_there_while_it_is_up(daemon: Told, tmp_path: Path, watching: Callable[..., Any]):
    up = tmp_path / "up"
    process = watching("--file", str(up))
    assert until(up.exists, 10)
    daemon.answer = status(state="failed")
    assert until(lambda: not up.exists(), 10)
    daemon.answer = GOOD
    assert until(up.exists, 10)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0 and not up.exists()
    assert (tmp_path / "said").read_text().splitlines() == [f"edgeblock: health: {one}" for one in (
        "up", "down: canary failed", "up", "down: nobody watches any more")]


def test_a_fault_ends_it_with_the_box_down(daemon: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    up, looks = tmp_path / "up", iter(["", ""])
    monkeypatch.setattr("edgeblock.commands.health.look", lambda *_: next(looks))
    with pytest.raises(StopIteration):
        main(["health", "--config", str(tmp_path / "edgeblock.toml"), "--interval", "0.01", "--rise", "1", "--file",
              str(up)])
    assert next(looks, None) is None and not up.exists()


def test_exabgp_hears_of_routes_until_it_ends(daemon: Told, tmp_path: Path, watching: Callable[..., Any]):
    routes = tmp_path / "routes"
    routes.write_text("announce route 192.0.2.0/24 next-hop self\n")
    process = watching("--exabgp", str(routes))
    assert process.stdout.readline() == "announce route 192.0.2.0/24 next-hop self\n"
    process.stdin.write("done\n" * 50_000)          # more than a pipe holds
    process.stdin.close()
    assert process.stdout.read() == "withdraw route 192.0.2.0/24 next-hop self\n" and process.wait(10) == 0


@pytest.mark.parametrize("words", [
    ("--interval", "0", "--once"), ("--rise", "0", "--once"), (), ("--up", "'"), ("--down", " ")])
def test_what_nobody_can_do_is_told(words: tuple[str, ...], daemon: Told, tmp_path: Path,
                                    capsys: pytest.CaptureFixture[str]):
    assert main(["health", "--config", str(tmp_path / "edgeblock.toml"), *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
