"""`edgeblock status`: what the running daemon has counted, and whether the box filters.

In: the daemon's answer. Out: some twenty lines for a person, all of it as names joined by dots, or one JSON object.
Never here: a figure that the daemon did not give.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from edgeblock import asking, config
from edgeblock.commands import add_config, spell
from edgeblock.errors import SystemProblem, printable

EXAMPLES = """\
  edgeblock status
  edgeblock status --all | grep blocked
  edgeblock status --json | jq .vigil
Exit status: 0 while the box filters, 1 while it does not, 2 if no daemon answers."""

LINES_MAX = 3           # of each kind of trouble; --all has the others
NEARLY_FULL = 0.8       # as the alert has it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--all", action="store_true", help="everything that is counted, a line each")
    either.add_argument("--json", action="store_true", help="the same as one JSON object")


def main(chosen: argparse.Namespace) -> int:
    answer = asking.ask(config.load(chosen.config).daemon.control, "status")
    if "error" in answer:
        raise SystemProblem(f"the running daemon says: {answer['error']}")
    vigil = answer.get("vigil", {})
    filtering = vigil.get("filtering", True)
    if chosen.json:
        print(json.dumps(answer))
        return 0 if filtering else 1
    print("filtering" if filtering else "NOT FILTERING: " + printable("; ".join(vigil["causes"])))
    lines = list(flat(answer)) if chosen.all else list(summary(answer))
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:{width}}  {value}")
    return 0 if filtering else 1


def summary(answer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a person reads first: at most some twenty lines, whatever goes wrong."""
    queue, engine, lists = answer["queue"], answer["engine"], answer["lists"]
    workers = answer["workers"].values()
    running = sum(one["state"] == "running" for one in workers)
    number = answer["queue_number"]
    yield "daemon", (f"edgeblock {answer['version']}, up {spell(answer['uptime'])}, "
                     f"{running} of {len(workers)} workers on queues {number} to {number + len(workers) - 1}, "
                     f"{sum(one['restarts'] for one in workers)} restarts")
    expired = sum(one["expired"] for one in lists.values())
    refused = {name: one["refused"] for name, one in lists.items() if one["refused"]}
    yield "lists", (f"{answer['rules']['entries']:,} entries of {answer['rules']['lists']} lists in force, changed "
                    f"{spell(answer['rules_age'])} ago; {len(refused)} refused, {expired} expired")
    yield "rules", answer["rules_digest"][:16] or "none"
    if answer["rules_problem"]:
        yield "problem", printable(answer["rules_problem"])
    yield from few("refused", [printable(why) for why in refused.values()])
    yield from few("problem", [printable(str(one)) for one in answer["vigil"].get("problems", [])])
    yield from few("goes past", [printable(f"{one['found']}: {one['fix']}")
                                 for one in answer["vigil"].get("bypasses", [])])
    if answer["addresses"]["off"]:
        yield "addresses", f"OFF: {answer['addresses']['off']}"
    elif answer["addresses"]["ranges"]:
        told_of = answer["addresses"]
        yield "addresses", (f"{told_of['in_kernel']:,} of {told_of['ranges']:,} ranges in the kernel, "
                            f"{sum(told_of['packets'].values()):,} packets met")
    if some := answer["addresses"].get("of_some_clients"):
        yield "addresses", f"{some:,} of lists for some clients hold on the watched ports only"
    yield from orders_of(answer)
    if counted := answer.get("impact", {}).get("addresses"):
        yield "impact", f"{counted:,} addresses asked for today, by {answer['impact']['subscribers']:,} subscribers"
    if problem := answer.get("counts", {}).get("problem"):
        yield "counts", f"NOT WRITTEN: {printable(problem)}"
    yield "canary", told(answer["canary"])
    yield "selfcheck", tried(answer["selfcheck"])
    yield from recorded(answer.get("ledger", {}))
    yield from sourced(answer.get("fetch", {}), time.time())
    lost = sum(one["lost"] + one["full"] for one in workers)
    yield "packets", (f"{queue['packets']:,} read, {queue['passed']:,} passed, {queue['dropped']:,} dropped, "
                      f"{lost:,} lost unread, {queue['waiting']:,} waiting")
    yield "flows", (f"{engine['table_flows']:,} remembered of {engine['flows']:,}; {engine['names']:,} names in "
                    f"{engine['hellos']:,} hellos, {engine['requests']:,} requests, "
                    f"{engine['quic_initials']:,} QUIC Initials")
    counts = Counter[str]()
    for matched in answer["matched"].values():      # by list, so without the canary's
        counts.update(matched)
    observed = counts.pop("observe", 0)
    yield "blocked", (f"{counts.total():,} flows"
                      + "".join(f", {count:,} {action}" for action, count in sorted(counts.items()))
                      + f" ({sum(answer['visits'].values()):,} visits); {observed:,} observed")
    hidden = engine["conflicts"] + engine["overworked"] + engine["window_full"] + engine["unreadable"]
    yield "unread", (f"{hidden:,} packets or flows that could not be read to their end; "
                     f"{engine['hellos_ech']:,} hellos with an encrypted one inside")
    if answer["stage1"]:
        yield "kernel", f"{sum(count for name, count in answer['stage1'].items() if name.startswith('passed')):,} " \
                        "packets or flows passed by the first stage"
    yield "log", f"{answer['log']['unlogged'] + answer['log']['lost']:,} lines left out"


def few(name: str, lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines[:LINES_MAX]:
        yield name, line
    if len(lines) > LINES_MAX:
        yield name, f"and {len(lines) - LINES_MAX} more: edgeblock status --all"


def told(canary: dict[str, Any]) -> str:
    """One line on the probes."""
    if canary["off"] or not canary["probes"]:
        return f"not asked: {canary['off'] or 'no round is over yet'}"
    wrong = [f"{one['family']} {one['protocol']} FAILED: {one['wrong']}" for one in canary["probes"] if one["wrong"]]
    right = [f"{one['family']} {one['protocol']}" for one in canary["probes"] if not one["wrong"]]
    parts = [*wrong, *([f"ok: {', '.join(right)}"] if right else []),
             *(f"{family} not asked: {why}" for family, why in canary["lacking"].items())]
    return printable("; ".join(parts))


def tried(proof: dict[str, Any]) -> str:
    """One line on the rules in force, as they were tried behind every disguise."""
    if proof["state"] in ("off", "waiting"):
        return {"off": "off: new rules come into force untried", "waiting": "nothing tried yet"}[proof["state"]]
    said = f"{printable(proof['problem'])}; " if proof["problem"] else ""
    return (f"{proof['state']}: {said}{proof['held']:,} of {proof['tried']:,} tries held, "
            f"{proof['over_blocked']:,} of {proof['beside']:,} neighbours blocked; "
            f"{proof['refused']} updates refused")


def recorded(ledger: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """One line on the ledger."""
    if ledger.get("state") == "failed":
        yield "ledger", (f"NOT WRITTEN: {printable(ledger['problem'])}; {ledger['waiting']:,} records wait, "
                         f"{ledger['lost']:,} are lost")
    elif ledger.get("state") == "ok":
        head = ledger["head"]
        yield "ledger", f"{ledger['records']:,} records; " + (
            f"signed to record {head['records']:,} of {head['day']}" if head else "nothing signed yet")


def sourced(fetch: dict[str, Any], now: float) -> Iterator[tuple[str, str]]:
    """Lines on the sources of lists, where anybody fetches, or should."""
    if fetch.get("state", "none") == "none":
        return
    if fetch["state"] == "gone":
        yield "sources", f"NOBODY FETCHES: {printable(fetch['problem'])}"
    rows = fetch["sources"]
    failing = {name: one for name, one in rows.items() if one["failures"]}
    asked = min((one["checked"] or one["began"] for one in rows.values()), default=now)
    fine = f"; each has answered in the last {spell(now - asked)}" if rows and not failing else ""
    yield "sources", f"{len(rows)}, {len(failing)} failing{fine}"
    yield from few("source", [f"{name} {'NOT GENUINE' if one['grave'] else 'FAILS'} since "
                              f"{spell(max(0, now - one['since']))}: {printable(one['error'])}"
                              for name, one in failing.items()])


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Nested tables as lines: names joined by dots."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, inner in enumerate(value, 1):
            yield from flat(inner, f"{name}.{number}")
    else:
        yield name, value


def orders_of(answer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What became of orders, and what is nearly full."""
    told = answer.get("orders", {})
    if told.get("orders"):
        items = ", ".join(f"{count:,} {state}" for state, count in told["items"].items() if count)
        yield "orders", f"{told['orders']:,}: {items or 'no items'}"
    if told.get("problem"):
        yield "orders", f"NOT ANSWERED: {told['problem']}"
    for what, one in answer.get("capacity", {}).items():
        if one["used"] > NEARLY_FULL * one["most"]:
            where = "in the longest list " if what == "entries" else ""
            yield "capacity", f"NEARLY FULL: {one['used']:,} {what} {where}of at most {one['most']:,}"
