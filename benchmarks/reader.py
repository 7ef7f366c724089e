"""A queue reader in a process of its own, for nfqueue.py: `ours` as a worker runs it, or the stock library's loop.

    reader.py QUEUE ours|stock BUFFER CPU RULES

In: orders on standard input, as for native/accept.c, which this is measured beside; RULES is a directory of lists.
Out: "ready", then a JSON line an order. Ours is QueueReader with the whole engine, its board and uvloop, as in
daemon/worker.py, and a flow table that is full already, as it is after a second of such traffic; stock is
netfilterqueue's loop with a Python callback that accepts.
"""

import asyncio
import gc
import json
import os
import resource
import select
import sys
import time
from collections.abc import Callable

import traffic
import uvloop

QUEUE, KIND, BUFFER, CPU, RULES = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]


class Clock:
    """What a piece of work took."""

    def __init__(self) -> None:
        self.wall, self.used = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)

    def tell(self, packets: int) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps({"packets": packets, "seconds": time.monotonic() - self.wall,
                          "user": used.ru_utime - self.used.ru_utime,
                          "system": used.ru_stime - self.used.ru_stime}), flush=True)


def serve(fd: int, drain: Callable[[], object], taken: Callable[[], int]) -> None:
    print('"ready"', flush=True)
    for order in iter(sys.stdin.readline, ""):
        first, clock = taken(), Clock()
        if order == "drain\n":
            drain()
        elif KIND == "ours":
            uvloop.run(until_told(fd, drain))
        else:
            while not select.select([0, fd], [], [])[0].count(0):
                drain()
            sys.stdin.readline()
        clock.tell(taken() - first)


async def until_told(fd: int, drain: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    told = loop.create_future()
    loop.add_reader(fd, drain)
    loop.add_reader(0, lambda: told.done() or told.set_result(sys.stdin.readline()))
    await told
    loop.remove_reader(fd)


def ours() -> None:
    from edgeblock.blocklist.load import load
    from edgeblock.config import Config
    from edgeblock.engine import make_engine
    from edgeblock.source.counters import BOARD
    from edgeblock.source.nfqueue import QueueReader

    engine = make_engine(Config(), load(RULES).matcher)
    traffic.fill(engine)
    gc.collect()
    gc.freeze()
    board = memoryview(bytearray(8 * BOARD["words"])).cast("B").cast("Q")
    reader = QueueReader(QUEUE, engine, lambda packet, decision: None, length=0x7FFFFFFF, buffer=BUFFER,
                         fail_open=False, board=board)

    def drain() -> None:
        while reader.drain() >= 1024:
            pass

    serve(reader.fileno(), drain, lambda: reader.counters()["packets"])


def stock() -> None:
    from netfilterqueue import NetfilterQueue

    count = 0

    def accept(packet) -> None:
        nonlocal count
        count += 1
        packet.accept()

    queue = NetfilterQueue()
    queue.bind(QUEUE, accept, max_len=0x7FFFFFFF, range=0xFFFF, sock_len=BUFFER)
    serve(queue.get_fd(), lambda: queue.run(block=False), lambda: count)


os.sched_setaffinity(0, {CPU})
ours() if KIND == "ours" else stock()
