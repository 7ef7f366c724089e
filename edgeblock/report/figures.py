"""The report as values: what was counted, what the ledger tells and what is in force, list by list.

In: counts (store.py), Evidence, the table of the lists in force, how many of their entries nobody met. Out: a Report
as JSON has it (report-1.schema.json), with a sentence for whatever makes a figure weaker than it looks. Never here: a
file, a clock, a name that somebody asked for, a subscriber.
"""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import edgeblock
from edgeblock.blocklist.parts import ListRecord
from edgeblock.report.evidence import OUTAGES_MAX, Evidence, OfList
from edgeblock.report.period import DAY, Period, moment, written
from edgeblock.report.store import Counted

VERSION = 1
UNWRITTEN = 6           # seconds of counts that a daemon that was killed may not have written (daemon/counts.py)
LIFTED = "accept"       # the action of what an exception lets pass
ADDRESS = "address"     # the protocol of what the kernel's address rules stop, which counts packets
Report = dict[str, Any]


def report(counted: Counted, told: Evidence, records: Sequence[ListRecord] | None, dead: Mapping[str, int],
           dead_days: int, period: Period, now: float) -> Report:
    """All of it.

    Args:
        records: the lists in force; None where that is not known.
        dead: entries in force that were not met for `dead_days`, by list.
        now: when the report is made, in Unix seconds.
    """
    span = covered(counted, period, now)
    known = {record.name: record for record in records or ()}
    names = sorted({*known, *told.lists, *(row[1] for row in counted.blocks if row[1]),
                    *(row[1] for row in counted.kernel)})
    rows: dict[str, list[tuple[int, str, str, str, str, int, int]]] = {}
    for row in counted.blocks:
        rows.setdefault(row[1], []).append(row)
    packets: dict[str, Counter[int]] = {}
    for day, name, count in counted.kernel:
        packets.setdefault(name, Counter())[day] += count
    lists = [of_list(name, known.get(name), told, rows.get(name, []), packets.get(name, Counter()),
                     dead.get(name), dead_days) for name in names]
    return {
        "edgeblock": "report", "version": VERSION, "made": moment(now), "made_by": edgeblock.__version__,
        "period": {"from": written(period.first), "to": written(period.last), "days": period.days},
        "counted": span, "notes": list(notes(counted, told, records, span, period)),
        "totals": totals(row for row in counted.blocks) | {"packets": sum(row[2] for row in counted.kernel)},
        "days": days_of(counted, period),
        "filtering": filtering(counted, told, span),
        "lists": lists,
        "policies": [{"policy": policy, **totals(of)} for policy, of in by(rows.get("", []), 2)],
    }


def covered(counted: Counted, period: Period, now: float) -> dict[str, Any]:
    """From when to when there are counts of the period, and how many seconds that is."""
    begins: float = max(period.begins, counted.since * DAY)
    ends = min(period.ends, now)
    if counted.runs and counted.since >= period.first:
        begins = max(begins, min(began for began, _, _ in counted.runs))
    last = max((written_at for _, written_at, _ in counted.runs), default=None)
    return {"from": moment(begins), "to": moment(max(begins, ends)), "seconds": max(0, round(ends - begins)),
            "written": None if last is None else moment(last)}


def notes(counted: Counted, told: Evidence, records: object, span: Mapping[str, Any],
          period: Period) -> Iterable[str]:
    """What a reader has to know about the figures."""
    if counted.since > period.first:
        yield f"Counts begin on {written(counted.since)}: of the days before nothing is known."
    figures = summed(counted)
    if lost := int(figures["lost"]):
        yield f"{lost:,} requests that were blocked are in no count, as there was no room for them."
    if int(figures["unknown"] + figures["forgotten"]):
        yield "More rules were met than are remembered one by one, so fewer entries are dead than is said here."
    killed = sum(not clean for _, _, clean in counted.runs[:-1])
    if killed:
        yield (f"The daemon ended {times(killed)} without closing its counts; those of up to {UNWRITTEN} seconds "
               "before are missing each time.")
    if told.problem:
        yield f"Versions, delays and refusals of lists are not known: {told.problem}."
    if told.gaps:
        yield f"{told.gaps:,} records of the ledger could not be written or read."
    if told.clocks:
        yield f"The clock of the box was set {times(told.clocks)}; days and delays are by that clock."
    if records is None:
        yield "Which lists are in force is not known: the snapshot cannot be read."


def times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def summed(counted: Counted) -> Mapping[str, float]:
    """Figures over all days; 0 of what was never counted."""
    every: defaultdict[str, float] = defaultdict(float)
    for day in counted.figures.values():
        for what, value in day.items():
            every[what] += value
    return every


def by(rows: Iterable[Any], column: int) -> list[tuple[str, list[Any]]]:
    """Rows by what stands in a column, in the order of that."""
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row[column], []).append(row)
    return sorted(found.items())


def totals(rows: Iterable[tuple[int, str, str, str, str, int, int]]) -> dict[str, Any]:
    """What was blocked, as visits and as requests; observed and lifted are beside that."""
    visits, tries, lifted, observed = 0, 0, 0, 0
    protocols: Counter[str] = Counter()
    actions: Counter[str] = Counter()
    for _, _, _, proto, action, tried, visited in rows:
        if action == LIFTED:
            lifted += visited
            continue
        if action == "observe":
            observed += visited
            continue
        visits += visited
        tries += tried
        protocols[proto or "unknown"] += visited
        actions[action] += visited
    return {"visits": visits, "requests": tries, "observed": observed, "excepted": lifted,
            "by_protocol": dict(sorted(protocols.items())), "by_action": dict(sorted(actions.items()))}


def blocked(row: tuple[int, str, str, str, str, int, int]) -> int:
    return row[6] if row[4] not in (LIFTED, "observe") else 0


def days_of(counted: Counted, period: Period) -> list[dict[str, Any]]:
    visits, packets = Counter[int](), Counter[int]()
    for row in counted.blocks:
        visits[row[0]] += blocked(row)
    for day, _, count in counted.kernel:
        packets[day] += count
    return [{"day": written(day), "visits": visits[day], "packets": packets[day],
             "running_seconds": round(counted.figures.get(day, {}).get("running", 0)),
             "filtering_seconds": round(counted.figures.get(day, {}).get("filtering", 0)),
             "proven_seconds": round(counted.figures.get(day, {}).get("proven", 0))}
            for day in range(max(period.first, counted.since), min(period.last, counted.until) + 1)]


def share(part: float, whole: float) -> float | None:
    return None if whole <= 0 else round(min(1.0, part / whole), 6)


def filtering(counted: Counted, told: Evidence, span: Mapping[str, Any]) -> dict[str, Any]:
    """How long the box filtered, and how long its own probes have shown that."""
    figures, seconds = summed(counted), span["seconds"]
    probes: dict[tuple[str, str], list[int]] = {}
    for _, family, proto, asked, held in counted.canary:
        one = probes.setdefault((family, proto), [0, 0])
        one[0] += asked
        one[1] += held
    return {
        **{f"{what}_seconds": round(figures[what]) for what in ("running", "filtering", "proven")},
        **{f"{what}_share": share(figures[what], seconds) for what in ("running", "filtering", "proven")},
        "starts": len(counted.runs), "killed": sum(not clean for _, _, clean in counted.runs[:-1]),
        "canary": [{"family": family, "protocol": proto, "asked": asked, "held": held}
                   for (family, proto), (asked, held) in sorted(probes.items())],
        "packets_read": int(figures["packets"]), "packets_unread": int(figures["unread"]),
        "packets_lost": int(figures["lost_packets"] + figures["full"]), "unreadable": int(figures["hidden"]),
        "encrypted_hellos": int(figures["ech"]),
        "outages": [{"from": moment(since), "ms": after, "who": who, "code": code}
                    for since, after, who, code in told.outages[:OUTAGES_MAX]],
        "more_outages": max(0, len(told.outages) - OUTAGES_MAX),
    }


def delay_of(delays: Sequence[int]) -> dict[str, int] | None:
    """In ms; None where none was measured."""
    if not delays:
        return None
    ordered = sorted(delays)
    return {"count": len(ordered), "median": round(statistics.median(ordered)),
            "p95": ordered[math.ceil(0.95 * len(ordered)) - 1], "worst": ordered[-1]}


def of_list(name: str, record: ListRecord | None, told: Evidence, rows: list[Any], packets: Counter[int],
            dead: int | None, dead_days: int) -> dict[str, Any]:
    """One list."""
    seen = told.lists.get(name, OfList())
    days = Counter[int]()
    for row in rows:
        days[row[0]] += blocked(row)
    order = record.order if record else {}
    return {
        "list": name, "in_force": record is not None and not record.expired,
        "category": record.category if record else "", "action": record.action if record else "",
        "authority": order.get("authority", ""), "order": order.get("order", ""),
        "received": order.get("received", ""), "approved_by": order.get("approved_by", ""),
        "entries": record.entries if record else None,
        "updates": None if told.problem else {
            "received": seen.taken + seen.refused.total(), "taken": seen.taken, "refused": seen.refused.total(),
            "refusals": dict(sorted(seen.refused.items())), "removed": seen.removed,
            "last_in_force": None if seen.in_force is None else moment(seen.in_force),
            "orders": int(bool(order) and seen.taken > 0),      # what a version before was of is not known
            "versions": [{"at": moment(at), "entries": entries} for at, entries in seen.versions]},
        "delay_ms": delay_of(seen.delays),
        **totals(rows), "packets": packets.total(),
        "days": [{"day": written(day), "visits": days[day], "packets": packets[day]}
                 for day in sorted({*days, *packets}) if days[day] or packets[day]],
        "orders": [{"order": number, **totals(of)} for number, of in by(rows, 2) if number],
        "dead": None if dead is None else {"entries": dead, "days": dead_days},
        "behind": collateral(record),
    }


def collateral(record: ListRecord | None) -> dict[str, Any] | None:
    """What the box had seen behind the addresses of a list when that was taken (docs/impact.md)."""
    if record is None or not record.address_entries:
        return None
    return {"addresses": record.address_entries, "names": record.names_behind, "shared": record.names_shared,
            "connections": record.flows_behind, "subscribers_share": record.subscribers_share}
