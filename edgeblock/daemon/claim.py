"""Which daemon has the kernel rules of this network namespace.

In: nothing. Out: a socket by whose name others see that the rules have a daemon; or the process that has it. The name
is abstract: each network namespace has its own, and it goes with its owner.
"""

import asyncio
import os
import pwd
import socket
import struct
from contextlib import suppress

from edgeblock.errors import SystemProblem

CLAIM = "\0edgeblock-ruleset"
USER = "edgeblock"                      # of the service
PEER = struct.Struct("3i")              # SO_PEERCRED: process, user, group


def owner() -> int:
    """The process of the daemon that has the kernel rules here; 0 without one, or where a stranger has the name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as other:
        try:
            other.connect(CLAIM)
        except OSError:
            return 0
        process, user, _ = PEER.unpack(other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
    trusted = {0, os.geteuid()}
    with suppress(KeyError):
        trusted.add(pwd.getpwnam(USER).pw_uid)
    return int(process) if user in trusted else 0


def claim_namespace() -> socket.socket | None:
    """A socket by whose name others of the network namespace see that its kernel rules have a daemon.

    None where a stranger has that name, which says nothing.

    Raises:
        SystemProblem: another daemon has it, of root or of our own user.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        claim.bind(CLAIM)
        claim.listen()
    except OSError:
        claim.close()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as other, suppress(OSError):
            other.connect(CLAIM)
            process, user, _ = PEER.unpack(other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
            if user in (0, os.geteuid()):
                raise SystemProblem(
                    f"the kernel rules of this network namespace are those of another edgeblock (process {process}); "
                    "stop it, or set install = false in [ruleset]") from None
        return None
    return claim


async def greet(claim: socket.socket) -> None:
    """Lets everybody connect who wants to know who has the claim."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            (await loop.sock_accept(claim))[0].close()
        except OSError:             # no descriptor to be had: who asks has to wait
            await asyncio.sleep(1)
