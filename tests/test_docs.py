"""The documentation names what there is: every limit, policy and counter."""

from dataclasses import fields
from pathlib import Path

import pytest

from edgeblock.blocklist.lint import lint
from edgeblock.config import Limits, Policies
from edgeblock.core.engine import Engine
from edgeblock.core.matcher import Matcher
from edgeblock.source.counters import BOARD_NAMES

ROOT = Path(__file__).parent.parent
LIMITS = (ROOT / "docs" / "limits.md").read_text()


@pytest.mark.parametrize("word", [*(f"limits.{f.name}" for f in fields(Limits)),
                                  *(f"policies.{f.name}" for f in fields(Policies)), *Engine(Matcher()).counters(),
                                  *BOARD_NAMES])
def test_limits_are_documented(word):
    assert f"`{word}`" in LIMITS


def test_the_first_list_that_the_readme_shows_has_no_finding(tmp_path):
    for name in ("court-orders.list", "court-orders.toml"):
        text = (ROOT / "README.md").read_text().split(f"# /etc/edgeblock/rules/{name}\n")[1].split("```")[0]
        (tmp_path / name).write_text(text)
    report = lint(tmp_path)
    assert (report.findings, report.entries) == ([], 6)
    assert all("browsers turn http:// into https://" in one.why for one in report.notes)    # as the README says
