"""Network namespaces for live tests. In: nothing. Out: a pair of them joined by a veth, gone when the test ends."""

import ctypes
import itertools
import os
import subprocess
from contextlib import contextmanager

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_serial = itertools.count()


def run(namespace, *command):
    """The standard output of a command that must succeed inside a namespace."""
    done = subprocess.run(["ip", "netns", "exec", namespace, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@contextmanager
def inside(namespace):
    """This thread's sockets are made in the namespace, and stay in it."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if _libc.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        yield
    finally:
        _libc.setns(home, _CLONE_NEWNET)
        os.close(there)
        os.close(home)


class Pair:
    """`client` (10.9.0.1, fd09::1) and `box` (10.9.0.2, fd09::2), by the names of their namespaces."""

    def __init__(self):
        stem = f"ebt{os.getpid()}x{next(_serial)}"
        self.client, self.box = stem + "c", stem + "b"

    def __enter__(self):
        for name in (self.client, self.box):
            subprocess.run(["ip", "netns", "add", name], check=True)
            run(name, "ip", "link", "set", "lo", "up")
        run(self.client, "ip", "link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", self.box)
        for name, host in ((self.client, 1), (self.box, 2)):
            run(name, "ip", "address", "add", f"10.9.0.{host}/24", "dev", "up0")
            run(name, "ip", "address", "add", f"fd09::{host}/64", "dev", "up0", "nodad")
            run(name, "ip", "link", "set", "up0", "mtu", "9000", "up")
        return self

    def __exit__(self, *_):
        for name in (self.client, self.box):
            subprocess.run(["ip", "netns", "delete", name], check=False)
