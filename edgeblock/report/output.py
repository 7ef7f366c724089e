"""The report as a file: JSON, CSV, or one HTML page that needs nothing from anywhere and prints well.

In: a Report, or a View of it. Out: text. Everything that a list writer may have chosen is escaped. Never here: a
figure that is worked out.
"""

import csv
import io
import json
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from edgeblock.report import plots
from edgeblock.report.figures import ADDRESS, Report
from edgeblock.report.period import DAY, written
from edgeblock.report.store import Counted
from edgeblock.report.views import View

LISTS_MAX = 60          # lists with a chapter of their own on the page; the table has TABLE_MAX of them
TABLE_MAX = 1000
ORDERS_MAX = 50         # orders of a list that the page tells one by one
COLUMNS = ("day", "list", "order", "protocol", "action", "requests", "visits", "packets")
RISKY = ("=", "+", "-", "@", "\t", "\r")       # how a text begins that a spreadsheet takes for a formula

CODES = {   # why a version was refused, as the ledger has it
    "signature": "signature", "settings": "its settings", "encoding": "not text", "format": "wrong format",
    "unparsable": "too many bad lines", "guard rail": "guard rail", "size": "too large", "change": "changed too much",
    "removal": "removed with too much", "untrue": "failed its trial", "disk": "disk", "unreadable": "not readable",
    "other": "other"}


def to_json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def to_csv(counted: Counted, only: str | None) -> str:
    """A row for each day, list, order, protocol and action."""
    rows: list[list[Any]] = [
        [written(day), name, order, proto, action, requests, visits, ""]
        for day, name, order, proto, action, requests, visits in counted.blocks if only in (None, name)]
    rows += [[written(day), name, "", ADDRESS, "", "", "", packets]
             for day, name, packets in counted.kernel if only in (None, name)]
    return table(COLUMNS, sorted(rows, key=lambda row: row[:5]))


def view_to_csv(view: View) -> str:
    return table(view.columns, [[row[key] for key in view.columns] for row in view.rows])


def table(head: Any, rows: list[list[Any]]) -> str:
    made = io.StringIO()
    writer = csv.writer(made, lineterminator="\r\n")       # RFC 4180
    writer.writerow(head)
    writer.writerows([["" if value is None else harmless(value) for value in row] for row in rows])
    return made.getvalue()


def harmless(value: Any) -> Any:
    """What a spreadsheet shows and does not run."""
    return f"'{value}" if isinstance(value, str) and value.startswith(RISKY) else value


def to_html(report: Report) -> str:
    """The page of the whole report."""
    lists = sorted(report["lists"], key=lambda one: (-one["visits"], one["list"]))
    shown = [one for one in lists if one["visits"] or one["packets"] or one["updates"] and one["updates"]["received"]]
    return page("report.html", report=report, lists=lists[:TABLE_MAX], more_rows=max(0, len(lists) - TABLE_MAX),
                chapters=shown[:LISTS_MAX], more_chapters=max(0, len(shown) - LISTS_MAX))


def view_to_html(view: View, report: Report) -> str:
    return page("view.html", report=report, view=view)


def page(name: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda file: (files("edgeblock.report") / file).read_text()),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "percent": percent, "duration": duration, "day": lambda text: text[:10],
                            "moment": in_words}
    environment.globals |= {"daily": daily, "codes": CODES, "orders_max": ORDERS_MAX, "cell": cell}
    return environment.get_template(name).render(**values) + "\n"


def daily(days: list[dict[str, Any]], key: str, title: str, all_days: list[dict[str, Any]] | None = None) -> Any:
    """A plot of one figure by day; of a list, whose days without any are left out, with those of the whole report."""
    values = {one["day"]: one[key] for one in days}
    labels = [one["day"] for one in all_days or days]
    if key.endswith("_seconds"):
        shares = [(label, 100 * min(1.0, values.get(label, 0) / DAY)) for label in labels]
        return Markup(plots.bars(shares, title, " %", 100, mean=True))
    return Markup(plots.bars([(label, values.get(label, 0)) for label in labels], title,
                             low=all_days is not None))


def cell(value: Any, key: str) -> str:
    """A value of a view for a person."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key.endswith("_share"):
        return percent(value)
    if key == "last_version":
        return in_words(value)
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def in_words(moment: str) -> str:
    """RFC 3339 as people write it, to the minute."""
    return moment[:16].replace("T", " ") + " UTC"


def number(value: float | None) -> str:
    return "not known" if value is None else f"{value:,}"


def percent(value: float | None) -> str:
    """A share, never rounded to all where it is not all."""
    if value is None:
        return "not known"
    said = f"{100 * value:.2f}"
    return "more than 99.99\u00a0%" if said == "100.00" and value < 1 else f"{said}\u00a0%"


def duration(ms: float | None) -> str:
    if ms is None:
        return "not known"
    if ms < 1000:
        return f"{ms:,.0f} ms"
    if ms < 120_000:
        return f"{ms / 1000:.1f} s"
    return f"{ms / 60_000:,.1f} min" if ms < 7_200_000 else f"{ms / 3_600_000:,.1f} h"
