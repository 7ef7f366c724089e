"""What tests of the supervisor's parts put in place of what is around them."""

import socket
from contextlib import contextmanager


class Log:
    """Everything that was said, as (event, details)."""

    def __init__(self):
        self.said = []

    def error(self, event, **more):
        self.said.append((event, more))

    info = warning = error


@contextmanager
def linked():
    """Both ends of a socket between supervisor and worker."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs
