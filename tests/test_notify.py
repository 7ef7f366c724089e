"""What systemd hears, over real sockets, and what it gives back."""

import os
import socket
import subprocess
import sys

import pytest

from edgeblock.notify import kept_files, notify
from tests.daemon.scarce import descriptors_left


@pytest.mark.parametrize("abstract", [False, True])
def test_states_arrive_as_one_datagram(monkeypatch, tmp_path, abstract):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + path if abstract else path)
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + path if abstract else path)
        notify(READY="1", STATUS="all is well")
        assert manager.recv(1000) == b"READY=1\nSTATUS=all is well"
        notify(RELOADING="1")
        first, second = manager.recv(1000).decode().split("\n")
        assert first == "RELOADING=1" and second.removeprefix("MONOTONIC_USEC=").isdigit()


def test_without_a_descriptor_nothing_is_told_and_nothing_is_raised(monkeypatch, tmp_path):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with descriptors_left(0):
        notify(WATCHDOG="1")


def test_a_file_goes_with_a_message(monkeypatch, tmp_path):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, open(tmp_path / "kept", "w+b") as kept:
        manager.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        notify(FDSTORE="1", FDNAME="queue7", file=kept.fileno())
        said, [file], _, _ = socket.recv_fds(manager, 1000, 2)
        assert said == b"FDSTORE=1\nFDNAME=queue7"
        assert os.path.sameopenfile(file, kept.fileno())
        os.close(file)


def test_kept_files_are_taken_once_and_the_manager_lets_them_go(tmp_path):
    """In a process of its own, as the numbers of the files are fixed."""
    code = ("import os, sys; from edgeblock.notify import kept_files\n"
            "files = kept_files(); print(files, kept_files(), os.get_inheritable(3), os.fstat(3).st_size)")
    (tmp_path / "kept").write_text("seven b")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        shell = f'export LISTEN_PID=$$; exec "$@" 3<{tmp_path}/kept 4<{tmp_path}/kept'
        done = subprocess.run(["sh", "-c", shell, "-", sys.executable, "-c", code], capture_output=True, text=True,
                              env=os.environ | {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "queue0:queue1",
                                                "NOTIFY_SOCKET": str(tmp_path / "notify")}, check=True)
        assert done.stdout == "{'queue0': 3, 'queue1': 4} {} False 7\n"
        assert [manager.recv(100) for _ in range(2)] == [b"FDSTOREREMOVE=1\nFDNAME=queue0",
                                                        b"FDSTOREREMOVE=1\nFDNAME=queue1"]


@pytest.mark.parametrize("given", [{"LISTEN_PID": "1"}, {"LISTEN_FDS": "x"}, {"LISTEN_FDNAMES": "a:b"}])
def test_files_of_others_are_left_alone(monkeypatch, given):
    wanted = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "queue0"}
    for name, value in (wanted | given).items():
        monkeypatch.setenv(name, value)
    assert kept_files() == {}


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all", "@"])
def test_where_nobody_listens_nothing_happens(monkeypatch, address):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify(READY="1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify(READY="1")


def test_a_manager_that_does_not_read_is_not_waited_for(monkeypatch, tmp_path):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        for _ in range(5000):
            notify(STATUS="x" * 1000)
        assert manager.recv(2000).startswith(b"STATUS=")
