"""Many connections of many addresses whose ports come round again at once, as behind a translator.

In (standard input, JSON): the source addresses, the ports of each, the server's address, how many connections, and
messages, each with its port at the server, what an answer to it begins with, and whether it is listed. Out: one line
of JSON, how many came to what end, and the longest time of an innocent one. Runs by itself in a namespace.

Each address has one connection at a time. It ends with a reset, so that its port is free again at once.
"""

import json
import random
import selectors
import socket
import struct
import sys
import time

INNOCENT, LISTED = 12.0, 0.3      # seconds after which a connection without an answer hangs, or is taken for blocked


class Connection:
    """One of them, from its SYN to its end."""

    def __init__(self, client: str, port: int, server: str, message: dict) -> None:
        self.message = message
        self.began = time.monotonic()
        self.sent = False
        self.answer = b""
        self.socket = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.bind((client, port))
        self.socket.connect_ex((server, message["port"]))

    def step(self) -> str:
        """What became of it, or nothing yet."""
        try:
            if not self.sent:
                self.socket.send(bytes.fromhex(self.message["data"]))
                self.sent = True
                return ""
            piece = self.socket.recv(65536)
        except BlockingIOError:
            return ""
        except OSError:
            return "reset"
        if not piece:
            return "ended"
        self.answer += piece
        expected = bytes.fromhex(self.message["answer"])
        return "served" if self.answer.startswith(expected) else "" if len(self.answer) < len(expected) else "refused"

    def late(self, now: float) -> bool:
        return now - self.began > (LISTED if self.message["listed"] and self.sent else INNOCENT)


def play(asked: dict) -> dict:
    random.seed(asked["seed"])
    selector = selectors.DefaultSelector()
    ports = {address: [random.sample(asked["ports"], len(asked["ports"])), 0] for address in asked["addresses"]}
    weights = [message["weight"] for message in asked["messages"]]
    found: dict = {"longest": 0.0}
    left, open_now = asked["count"], 0

    def begin(address: str) -> None:
        nonlocal left, open_now
        order, turn = ports[address]
        ports[address][1] += 1
        message = random.choices(asked["messages"], weights)[0]
        one = Connection(address, order[turn % len(order)], asked["server"], message)
        selector.register(one.socket, selectors.EVENT_WRITE, (address, one))
        left -= 1
        open_now += 1

    def end(address: str, one: Connection, how: str) -> None:
        nonlocal open_now
        kind = f"{'listed' if one.message['listed'] else 'innocent'} {how}"
        found[kind] = found.get(kind, 0) + 1
        if not one.message["listed"]:
            found["longest"] = max(found["longest"], round(time.monotonic() - one.began, 3))
        selector.unregister(one.socket)
        one.socket.close()
        open_now -= 1
        if left > 0:
            begin(address)

    for address in asked["addresses"]:
        begin(address)
    looked = 0.0
    while open_now:
        for key, _ in selector.select(0.1):
            address, one = key.data
            how = one.step()
            if how:
                end(address, one, how)
            elif one.sent:
                selector.modify(one.socket, selectors.EVENT_READ, key.data)
        now = time.monotonic()
        if now - looked > 0.05:
            looked = now
            for key in list(selector.get_map().values()):
                address, one = key.data
                if one.late(now):
                    end(address, one, "silent")
    return found


if __name__ == "__main__":
    print(json.dumps(play(json.load(sys.stdin))))
