"""One daemon has the kernel rules of a network namespace; nobody else can keep it from having them."""

import os
import socket
import subprocess
import sys

import pytest

from edgeblock.daemon import claim
from edgeblock.daemon.claim import claim_namespace, owner
from edgeblock.errors import SystemProblem

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
