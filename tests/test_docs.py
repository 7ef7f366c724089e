"""The documentation names what there is: every limit, policy and counter."""

from dataclasses import fields
from pathlib import Path

import pytest

from edgeblock.config import Limits, Policies
from edgeblock.core.engine import Engine
from edgeblock.core.matcher import Matcher

LIMITS = (Path(__file__).parent.parent / "docs" / "limits.md").read_text()


@pytest.mark.parametrize("word", [*(f"limits.{f.name}" for f in fields(Limits)),
                                  *(f"policies.{f.name}" for f in fields(Policies)), *Engine(Matcher()).counters()])
def test_limits_are_documented(word):
    assert f"`{word}`" in LIMITS
