"""One daemon has the kernel rules of a network namespace; nobody else can keep it from having them."""

import asyncio
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import uvloop

from edgeblock.daemon import claim
from edgeblock.daemon.claim import claim_namespace, greet, owner
from edgeblock.daemon.tasks import give_up
from edgeblock.errors import SystemProblem
from tests.daemon.scarce import descriptors_left

STRANGER = """
import os, socket, sys
os.setuid(65534)
claim = socket.socket(socket.AF_UNIX)
claim.bind(chr(0) + sys.argv[1])
claim.listen()
print("has it", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def name(monkeypatch):
    name = f"edgeblock-test-{os.getpid()}"
    monkeypatch.setattr(claim, "CLAIM", "\0" + name)
    return name


def test_the_second_is_told_who_is_first(name):
    with claim_namespace():
        for _ in range(3):
            with pytest.raises(SystemProblem, match=rf"another edgeblock \(process {os.getpid()}\); stop it, or set"):
                claim_namespace()
        assert owner() == os.getpid()
    assert owner() == 0
    with claim_namespace() as again:
        assert again.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


@pytest.mark.live
def test_a_stranger_keeps_nobody_from_starting(name):
    with subprocess.Popen([sys.executable, "-c", STRANGER, name], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout.readline() == b"has it\n"
        assert claim_namespace() is None and owner() == 0
        stranger.stdin.close()


def test_who_asks_for_the_claim_waits_where_there_is_no_descriptor(monkeypatch):
    """The event loop was busy with nothing else, and wrote a traceback each time around."""
    tries = []

    async def ask():
        problems = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, problem: problems.append(problem))

        async def accept(socket):
            tries.append(socket)
            return await loop.sock_accept(socket)

        monkeypatch.setattr(claim.asyncio, "get_running_loop", lambda: SimpleNamespace(sock_accept=accept))
        with socket.socket(socket.AF_UNIX) as ours, socket.socket(socket.AF_UNIX) as other:
            ours.setblocking(False)
            ours.bind(f"\0edgeblock-test-{os.getpid()}")
            ours.listen()
            greeting = asyncio.create_task(greet(ours))
            await asyncio.sleep(0)
            with descriptors_left(0):
                other.connect(ours.getsockname())
                await asyncio.sleep(0.05)
            other.setblocking(False)
            assert await loop.sock_recv(other, 1) == b""
            await give_up(greeting)
        assert not problems and len(tries) <= 3

    uvloop.run(ask())
