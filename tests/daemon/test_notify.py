"""What systemd hears, over real sockets."""

import socket

import pytest

from edgeblock.daemon.notify import notify


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
