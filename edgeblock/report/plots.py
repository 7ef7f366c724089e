"""Plots for the page: bars as SVG that needs nothing from anywhere, said in words, too, for who cannot see them.

In: counts by day. Out: SVG with its scale as HTML, in the colours of the page. Never here: a colour, a size on paper.
"""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 720, 120        # of a plot, in its own units; the page stretches it
DAILY, WEEKLY = 62, 7 * 62      # days up to which a bar is a day, or a week; else it is 30 days
GAP = 0.18                      # of a bar's place


class Bar(NamedTuple):
    """One bar: what it is of, and how high."""

    label: str
    value: float


def grouped(days: Sequence[tuple[str, float]], mean: bool = False) -> tuple[list[Bar], str]:
    """Days as so many bars that a page has room for, and what a bar is: the sum of its days, or their mean."""
    size, what = (1, "day") if len(days) <= DAILY else (7, "week") if len(days) <= WEEKLY else (30, "30 days")
    bars = []
    for first in range(0, len(days), size):
        some = days[first:first + size]
        total = sum(value for _, value in some)
        label = some[0][0] if len(some) == 1 else f"{some[0][0]} to {some[-1][0]}"
        bars.append(Bar(label, total / len(some) if mean else total))
    return bars, what


def ceiling(value: float) -> float:
    """The next round number: 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** (len(str(int(value))) - 1) if value >= 1 else 1.0
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


def spelled(value: float) -> str:
    """A figure short enough to stand beside a line."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def bars(days: Sequence[tuple[str, float]], title: str, unit: str = "", most: float | None = None,
         mean: bool = False, low: bool = False) -> str:
    """A plot of counts by day. `most` is the top of the scale, where that is fixed; `unit` stands behind figures.
    What is written beside it is HTML: a text in SVG shrinks with it, and nobody can tell what is behind it."""
    of, what = grouped(days, mean)
    top = most or ceiling(max((one.value for one in of), default=0))
    place = WIDTH / max(1, len(of))
    peak = max(of, key=lambda one: one.value, default=Bar("", 0))
    said = f"{title}, a bar for each {what}" + (f"; most {spelled(peak.value)}{unit}, {peak.label}" if of else "")
    scale = "".join(f"<span>{spelled(top * part)}{unit}</span>" for part in (1, 0.5, 0))
    parts = [f'<div class="plot{" low" if low else ""}"><div class="scale" aria-hidden="true">{scale}</div>'
             f'<svg role="img" aria-label="{escape(said)}" viewBox="0 0 {WIDTH} {HEIGHT}" '
             'preserveAspectRatio="none">']
    parts += [f'<line class="grid" x1="0" x2="{WIDTH}" y1="{y}" y2="{y}"/>' for y in (0, HEIGHT // 2, HEIGHT)]
    for number, one in enumerate(of):
        size = HEIGHT * min(1.0, one.value / top)
        parts.append(f'<rect class="bar" x="{place * (number + GAP / 2):.1f}" y="{HEIGHT - size:.1f}" '
                     f'width="{place * (1 - GAP):.1f}" height="{size:.1f}"><title>{one.label}: '
                     f'{one.value:,.6g}{unit}</title></rect>')
    ends = f"<span>{days[0][0]}</span><span>{days[-1][0]}</span>" if days else ""
    return "".join([*parts, f'</svg></div><div class="ends">{ends}</div>'])
