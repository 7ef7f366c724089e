"""What is drawn in one plot is told apart, by colour-blind people, too."""

import importlib.util
from itertools import combinations
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Machado, Oliveira and Fernandes 2009, severity 1: what of linear red, green and blue is left.
SIGHT = {
    "all colours": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "no red": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "no green": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "no blue": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
APART = 10.0        # of CIE 1976; 2.3 is just noticed


def looks():
    spec = importlib.util.spec_from_file_location("colours", ROOT / "benchmarks" / "colours.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seen(colour, sight):
    """A colour as somebody sees it, in CIE L*a*b*."""
    values = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in values]
    red, green, blue = (min(1.0, max(0.0, sum(a * b for a, b in zip(row, linear, strict=True)))) for row in sight)
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.95047
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.08883
    x, y, z = (one ** (1 / 3) if one > 0.008856 else 7.787 * one + 16 / 116 for one in (x, y, z))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("plot", ["READERS", "WAYS"])
def test_what_stands_in_one_plot_differs_for_every_eye(plot, sight):
    drawn = getattr(looks(), plot)
    for one, other in combinations(drawn.values(), 2):
        assert apart(one.colour, other.colour, sight) > APART or one.hatch != other.hatch, (one, other)
    assert len({one.name for one in drawn.values()}) == len(drawn)


def apart(one, other, sight):
    return sum((a - b) ** 2 for a, b in zip(seen(one, SIGHT[sight]), seen(other, SIGHT[sight]), strict=True)) ** 0.5


def test_what_only_some_eyes_tell_apart_is_found():
    assert apart("#b86600", "#66a800", "all colours") > 7 * APART > 7 * apart("#b86600", "#66a800", "no green")


def test_no_plot_is_left_of_a_name_that_says_nothing():
    """The report names every plot that is there, and each has its picture of both kinds."""
    results = ROOT / "benchmarks" / "results"
    named = {line.split("](")[1].rstrip(")").removesuffix(".svg")
             for line in (results / "report.md").read_text().splitlines() if line.startswith("![")}
    for kind in ("svg", "png"):
        assert {path.stem for path in results.glob(f"*.{kind}")} == named
