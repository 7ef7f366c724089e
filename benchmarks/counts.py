"""What the counts that last cost for each blocked flow: a worker's report of it with counts and without, in turn.

    .venv/bin/python -m benchmarks.counts [--rounds N]

In: how many rounds of 2000 blocks each (100). Out: a JSON object on standard output: ns of processor time for a block
with counts and without, as quartiles over all rounds, and the same of the ratio of a round with counts to the one
beside it; `null` is that of two rounds without.
"""

import argparse
import io
import json
import socket
import statistics
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from edgeblock.config import Config, Privacy, Report
from edgeblock.core.decision import Decision, Name
from edgeblock.daemon import board as boards
from edgeblock.daemon.board import Board
from edgeblock.daemon.journal import Journal
from edgeblock.daemon.worker import Worker

BLOCKS = 2000
PACKET = bytes.fromhex("45" + "00" * 11)


def made(journal: Journal, link: socket.socket, enabled: bool) -> Any:
    """A worker that is told of blocks and sends nothing."""
    board = Board(1)
    one: Any = Worker(replace(Config(), report=Report(enabled=enabled)), journal, link, board)
    one.row, one.places = board.rows[0], board.give_places(["court"])
    one.base = list(one.row[boards.ENGINE_REST:boards.MATCHED])
    one.injector = SimpleNamespace(sent=0, failed=0)
    return one


def round_of(worker: Any, told: list[tuple[bytes, Decision]]) -> float:
    """ns of processor time for a block; what was counted is told to nobody, as once in half a second."""
    began = time.thread_time_ns()
    for packet, decision in told:
        worker.decide(packet, decision)
    if worker.pending is not None:
        worker.pending.piece(48_000)
    return (time.thread_time_ns() - began) / len(told)


def spread(values: list[float]) -> list[float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return [round(one, 3) for one in (low, middle, high)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    told = [(PACKET + number.to_bytes(4) + bytes(4), Decision(False, names=(Name(
        "tls", "www.listed.example", None, "reset", "court", f"{number % 500:08x}", order="No. 12"),)))
        for number in range(BLOCKS)]
    with Journal(io.StringIO(), Privacy(), 0, summary=False) as journal, socket.socketpair()[0] as link:
        on, off, other = made(journal, link, True), made(journal, link, False), made(journal, link, False)
        times: dict[str, list[float]] = {"on": [], "off": [], "other": []}
        for number in range(rounds + 5):
            for name, one in (("on", on), ("off", off), ("other", other)):
                taken = round_of(one, told)
                if number >= 5:
                    times[name].append(taken)
    print(json.dumps({
        "blocks": BLOCKS, "rounds": rounds, **{name: spread(values) for name, values in times.items()},
        "ratio": spread([one / two for one, two in zip(times["on"], times["off"], strict=True)]),
        "null": spread([one / two for one, two in zip(times["other"], times["off"], strict=True)])}))


if __name__ == "__main__":
    main()
