"""The report as others ask for it: Article 15 of the Digital Services Act, and the record for the IWF's certificate.

In: a Report (figures.py). Out: a View: a table with its columns in words, and what of the form the box cannot know,
said. docs/guidance.md maps each point of the forms to a column. Never here: a figure that is not in the report.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeblock.report.figures import Report


@dataclass(frozen=True)
class View:
    """`columns` are keys of each row with their words; `about` is what the table is for, `unknown` what of the form
    has to come from somebody else."""

    name: str
    title: str
    about: str
    columns: dict[str, str]
    rows: list[dict[str, Any]]
    unknown: tuple[str, ...]

    def as_dict(self, report: Report) -> dict[str, Any]:
        """As JSON has it."""
        return {"edgeblock": "report", "version": report["version"], "view": self.name, "title": self.title,
                **{key: report[key] for key in ("made", "made_by", "period", "counted", "notes")},
                "columns": self.columns, "rows": self.rows, "unknown": list(self.unknown)}


def seconds(ms: float | None) -> float | None:
    return None if ms is None else round(ms / 1000, 3)


def dsa(report: Report) -> View:
    """Article 15(1)(a): orders received, by type of illegal content and by who issued them, with median times."""
    kinds: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in report["lists"]:
        if one["order"] or one["authority"]:
            kinds.setdefault((one["category"], one["authority"]), []).append(one)
    rows = []
    for (category, authority), lists in sorted(kinds.items()):
        known = [one for one in lists if one["updates"] is not None]
        medians = [one["delay_ms"]["median"] for one in lists if one["delay_ms"]]
        rows.append({
            "category": category, "authority": authority,
            "orders": sum(one["updates"]["orders"] for one in known) if known else None,
            "in_force": sum(one["in_force"] for one in lists), "entries": sum(one["entries"] or 0 for one in lists),
            "refused": sum(one["updates"]["refused"] for one in known) if known else None,
            "median_effect_seconds": seconds(statistics.median(medians)) if medians else None,
            "median_receipt_seconds": None,
            "visits": sum(one["visits"] for one in lists)})
    return View(
        "dsa", "Orders received (Regulation (EU) 2022/2065, Article 15(1)(a))",
        "For the yearly transparency report of a provider of intermediary services: orders to act against illegal "
        "content that were dropped on this box as lists, and how long it took from the file to every worker and the "
        "kernel.",
        {"category": "Type of illegal content", "authority": "Issued by", "orders": "Orders received",
         "in_force": "Lists in force now", "entries": "Entries in force now", "refused": "Refused versions",
         "median_effect_seconds": "Median seconds from receipt to effect",
         "median_receipt_seconds": "Median seconds to inform of receipt", "visits": "Visits blocked"},
        rows,
        ("The Member State is not known to the box: it has the authority as the order names it.",
         "Orders received are lists in force that name an order and of which the box took a version in this time: "
         "one for each list, however many orders its versions or entries were of. A list that is gone is not in it.",
         "The time to inform the authority of the receipt is not known: the box writes its answer beside the order, "
         "and somebody else sends it.",
         "The time to effect is the median of the medians of lists; receipt is the moment at which the file was in "
         "the rules directory.",
         "Points (b) to (e) are about notices, own moderation, complaints and automated means: they are not here."))


def iwf(report: Report) -> View:
    """What a provider certifies each quarter: that the list is taken in and that blocking was tested."""
    probes = {(one["family"], one["protocol"]): one for one in report["filtering"]["canary"]}
    asked = sum(one["asked"] for one in probes.values())
    held = sum(one["held"] for one in probes.values())
    rows = []
    for one in report["lists"]:
        updates, delay = one["updates"], one["delay_ms"] or {}
        versions = updates["versions"] if updates else []
        rows.append({
            "list": one["list"], "category": one["category"], "in_force": one["in_force"], "entries": one["entries"],
            "last_version": versions[-1]["at"] if versions else None,
            "updates": updates["taken"] if updates else None,
            "updates_a_day": round(updates["taken"] / report["period"]["days"], 2) if updates else None,
            "refused": updates["refused"] if updates else None,
            "median_deploy_seconds": seconds(delay.get("median")),
            "worst_deploy_seconds": seconds(delay.get("worst")),
            "tests": asked, "tests_held": held, "proven_share": report["filtering"]["proven_share"],
            "visits": one["visits"]})
    return View(
        "iwf", "Record for the quarterly self-certification of URL blocking",
        "For a provider that certifies that it tests its blocking: which version of the list is in force, how often "
        "it was renewed, how long that took, and how often the box asked itself for a listed name and was refused.",
        {"list": "List", "category": "Category", "in_force": "In force now", "entries": "Entries",
         "last_version": "Last version taken", "updates": "Versions taken", "updates_a_day": "Versions a day",
         "refused": "Versions refused", "median_deploy_seconds": "Median seconds to deploy",
         "worst_deploy_seconds": "Longest, in seconds", "tests": "Own tests asked", "tests_held": "Own tests held",
         "proven_share": "Share of the time proven", "visits": "Visits blocked"},
        rows,
        ("The box tests with a name of its own that is always listed, through the same rules and workers, not with "
         "an entry of the list.",
         "A test from a customer's line with the address that the list's owner gives out is yours: docs/guidance.md "
         "has the steps.",
         "The certificate itself is yours to give."))


VIEWS: dict[str, Callable[[Report], View]] = {"dsa": dsa, "iwf": iwf}
