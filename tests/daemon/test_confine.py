"""A process that has given everything up: what it cannot do any more, tried by the process itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TRIES = """
import ctypes, json, os, socket, sys
from pathlib import Path
from edgeblock.daemon.confine import confine

home = Path(sys.argv[1])
left = confine([home / "protected"], [home / "rules", home / "state"], 1 << 30, 600)
said = {"left": left}

def attempt(name, work):
    try:
        work()
        said[name] = "done"
    except (OSError, MemoryError, RuntimeError) as problem:
        said[name] = type(problem).__name__

attempt("read", lambda: (home / "rules/a.list").read_text())
attempt("read protected", lambda: (home / "protected").read_text())
attempt("write state", lambda: (home / "state/x").write_text("x"))
attempt("rename", lambda: os.rename(home / "state/x", home / "state/y"))
attempt("write beside", lambda: (home / "rules/a.rejected").write_text("x"))
attempt("read elsewhere", lambda: (home / "secret").read_text())
attempt("read shadow", lambda: open("/etc/shadow").read())
attempt("write elsewhere", lambda: (home / "elsewhere").write_text("x"))
attempt("read the ledger's key", lambda: (home / "state-ledger/key").read_bytes())
attempt("write the ledger", lambda: (home / "state-ledger/1.records").write_text("x"))
attempt("write protected", lambda: (home / "protected").write_text("x"))
attempt("socket", lambda: socket.socket())
attempt("unix", lambda: socket.socket(socket.AF_UNIX))
attempt("fork", os.fork)
attempt("exec", lambda: os.execv("/bin/true", ["true"]))
attempt("kill", lambda: os.kill(os.getppid(), 0))
attempt("memory of the parent", lambda: open(f"/proc/{os.getppid()}/mem", "rb"))
attempt("its own memory", lambda: open("/proc/self/mem", "rb"))
attempt("link out", lambda: os.link(home / "state/y", home / "y"))
attempt("another root", lambda: os.chroot("/"))
attempt("two gigabytes", lambda: bytearray(2 << 30))
attempt("names", lambda: __import__("pwd").getpwuid(0))
attempt("modules", lambda: __import__("xml.dom.minidom"))
said["dumpable"] = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    for name in ("rules", "state", "state-ledger"):
        (home / name).mkdir()
    for name in ("rules/a.list", "protected", "secret", "state-ledger/key"):
        (home / name).write_text("x")
    done = subprocess.run([sys.executable, "-c", TRIES, home], capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("what", [
    "read", "read protected", "write state", "rename", "write beside", "names", "modules"])
def test_it_can_do_what_it_has_to(said, what):
    assert said[what] == "done"


@pytest.mark.parametrize("what", [
    "read elsewhere", "read shadow", "write elsewhere", "write protected", "socket", "unix", "fork", "exec", "kill",
    "read the ledger's key", "write the ledger", "memory of the parent", "its own memory", "link out", "another root",
    "two gigabytes"])
def test_it_can_do_nothing_else(said, what):
    assert said["left"] == [] and said[what] in ("PermissionError", "MemoryError")


def test_it_is_not_dumpable(said):
    assert said["dumpable"] == 0            # so no core file either, and no look at its memory by its own user


def test_it_has_no_capability_and_a_filter():
    script = ("import sys, time; from pathlib import Path; from edgeblock.daemon.confine import confine\n"
              "confine([], [], 1 << 30, 60); print('ready', flush=True); sys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        process.stdin.close()
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
