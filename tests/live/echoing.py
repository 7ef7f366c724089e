"""A server that sends back whatever comes, on two addresses. In: a lab. Out: nothing but what it answers."""

import contextlib
import os
import select
import socket
import threading
from collections.abc import Iterator

from edgeblock.lab import SERVER, Lab

BESIDE = {4: "203.0.113.9", 6: "2001:db8:80::9"}       # another address of the server
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


@contextlib.contextmanager
def echoing(lab: Lab, others: tuple[str, ...] = ()) -> Iterator[None]:
    """Sends back whatever comes: TCP and UDP, of both families, on every address of the server, and on others of
    IPv4."""
    open_sockets: list[socket.socket] = []
    for one in others:
        lab.run_in("server", ["ip", "addr", "add", f"{one}/32", "dev", "lo"])
    for version, length in ((4, 24), (6, 64)):
        lab.run_in("server", ["ip", "addr", "add", f"{BESIDE[version]}/{length}", "dev", f"to-{lab.places[-2]}",
                              *(["nodad"] if version == 6 else [])])
    with lab.entered("server"):
        for version, family in FAMILY.items():
            bound = [SERVER[version], BESIDE[version], *(others if version == 4 else ())]
            for port, address in ((22, ""), (25461, ""), *((5000, one) for one in bound)):
                made = socket.socket(family, socket.SOCK_DGRAM if address else socket.SOCK_STREAM)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if version == 6:
                    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                made.bind((address, port))
                if not address:
                    made.listen()
                open_sockets.append(made)
    listening, stop = list(open_sockets), os.pipe()
    thread = threading.Thread(target=echo, args=(listening, stop[0]), daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.write(stop[1], b"x")
        thread.join()
        for end in stop:
            os.close(end)


def echo(listening: list[socket.socket], stop: int) -> None:
    talking: list[socket.socket] = []
    while True:
        ready, _, _ = select.select([*listening, *talking, stop], [], [])
        if stop in ready:
            for one in [*listening, *talking]:
                one.close()
            return
        for one in ready:
            if one in talking:
                try:
                    data = one.recv(2048)
                    one.send(data) if data else None
                except OSError:
                    data = b""
                if not data:
                    talking.remove(one)
                    one.close()
            elif one.type == socket.SOCK_STREAM:
                talking.append(one.accept()[0])
            else:
                data, sender = one.recvfrom(2048)
                one.sendto(data, sender)
