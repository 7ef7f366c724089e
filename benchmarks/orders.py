"""Orders beside lists that reload all the time: seconds from the rename until an order is answered as in force.

    sudo .venv/bin/python -m benchmarks.orders [--entries N] [--orders N] [--names N] [--addresses N] [--pause S]

In: how many entries the list beside them has, 10 million where nothing is said, and as many orders of so many names
and addresses. Out: a JSON object on standard output. A daemon with two workers runs in a lab, first stage and address
rules on. The big list is replaced by a longer one as soon as the one before is in force or read, so that some process
always reads it. `answered_s` is what a platform sees: from the rename of NAME.order.json until NAME.outcome.json says
"in force" for every item; `in_force_s` until the moment that it says. A deadline of 30 minutes is `deadline_share` of
the slowest.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.rules import lines, name_of
from edgeblock.lab import Lab, until

DEADLINE = 1800.0
CONFIG = """
[rules]
directory = "{home}/rules"
key = "{home}/state/key"
max_growth = 1000
[queue]
workers = 2
"""


class Reloading:
    """The big list, replaced again and again by one that has a line more."""

    def __init__(self, rules: Path, entries: int) -> None:
        self.rules, self.entries = rules, entries
        self.turns = 0
        self.done = threading.Event()
        self.text = "".join(lines(entries, False))
        self.thread = threading.Thread(target=self.run)

    def drop(self) -> None:
        self.turns += 1
        new = self.rules / ".all.list"
        new.write_text(f"{self.text}turn{self.turns}.example\n")
        new.rename(self.rules / "all.list")

    def is_taken(self, log: Path) -> bool:
        return log.read_text().count('"change": "taken", "list": "all"') >= self.turns

    def run(self) -> None:
        while not self.done.is_set():
            self.drop()
            until(lambda: self.done.is_set() or self.is_taken(self.log), 600)

    def begin(self, log: Path) -> None:
        self.log = log
        self.thread.start()

    def end(self) -> None:
        self.done.set()
        self.thread.join()


def order(number: int, names: int, addresses: int) -> str:
    """As one call of a platform has it."""
    items: list[dict[str, str]] = [{"id": f"n{one}", "kind": "host", "value": name_of(one, 3)}
                                   for one in range(number * names, (number + 1) * names)]
    for one in range(number * addresses, (number + 1) * addresses):
        items.append({"id": f"a{one}", "kind": "address", "value": f"198.51.{one // 250 % 250}.{one % 250}"
                      if one < 62_500 else f"2001:db8::{one:x}"})
    return json.dumps({"version": 1, "order": f"No. {number}", "items": items})


def answer(where: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(where.read_text())
        return told
    except (OSError, ValueError):
        return {"items": [], "counts": {"in force": 0}}


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=10_000_000)
    parser.add_argument("--orders", type=int, default=30)
    parser.add_argument("--names", type=int, default=600)
    parser.add_argument("--addresses", type=int, default=500)
    parser.add_argument("--pause", type=float, default=2.0, help="seconds from one answer to the next order")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Lab() as lab:
        home = Path(folder)
        rules = home / "rules"
        rules.mkdir()
        big = Reloading(rules, chosen.entries)
        daemon = lab.start_daemon(CONFIG.format(home=home), within=60)
        big.begin(daemon.log)
        answered, in_force = [], []
        wanted = chosen.names + chosen.addresses
        try:
            assert until(lambda: big.is_taken(daemon.log), 600) or not big.turns
            for number in range(chosen.orders):
                (rules / ".new").write_text(order(number, chosen.names, chosen.addresses))
                dropped = time.time()
                (rules / ".new").rename(rules / f"o{number:03}.order.json")
                where = rules / f"o{number:03}.outcome.json"
                if not until(lambda at=where: answer(at)["counts"]["in force"] == wanted, DEADLINE):
                    raise SystemExit(f"order {number} was not answered: {answer(where)['counts']}")
                answered.append(time.time() - dropped)
                in_force.append(max(moment(one["since"]) for one in answer(where)["items"]) - dropped)
                threading.Event().wait(chosen.pause)
        finally:
            big.end()
            daemon.stop(within=30)
    print(json.dumps({
        "what": f"{chosen.orders} orders of {chosen.names} names and {chosen.addresses} addresses beside "
                f"{chosen.entries} entries that reload", "reloads": big.turns - 1,
        "in_force_s": round(statistics.median(in_force), 2), "in_force_most_s": round(max(in_force), 2),
        "answered_s": round(statistics.median(answered), 2), "answered_most_s": round(max(answered), 2),
        "deadline_share": round(max(answered) / DEADLINE, 5), "load_average": round(os.getloadavg()[0], 2)}))


if __name__ == "__main__":
    main()
