"""What every run of the tests does first: see that the live tests can run, so that none is left out unnoticed.

Hypothesis has two profiles, neither with a deadline: `fast`, the usual one, which tries the same examples each time,
so that what it says is about the change; and `deep`, which looks fifty times as long and always elsewhere
(`--hypothesis-profile deep`, or HYPOTHESIS_PROFILE in the environment).
"""

import os
import shutil
import sys
from pathlib import Path

import browser
import pytest
from hypothesis import settings

from edgeblock import lab

settings.register_profile("fast", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("deep", max_examples=5000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:      # side by side, a lab and its daemon stay one process's, as does what a module makes
        lab_of = getattr(item, "callspec", None) and item.callspec.params.get("stage1")
        item.add_marker(pytest.mark.xdist_group(f"stage1-{lab_of}" if lab_of else item.location[0]))
        # Those that kill, stop and time daemons of their own: what runs beside them could be taken for a fault.
        apart = item.path.parent.name in ("live", "netfilter", "daemon") and not lab_of
        if apart and item.get_closest_marker("live"):
            item.add_marker("alone")
    if browser.CHROMIUM is None:
        for item in items:
            if item.get_closest_marker("chromium"):
                item.add_marker(pytest.mark.skip(reason="no Chromium here: apt-get install chromium"))
    if shutil.which("promtool", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") is None:
        for item in items:
            if item.get_closest_marker("promtool"):
                item.add_marker(pytest.mark.skip(reason="no promtool here: apt-get install prometheus"))
    live = [item for item in items if item.get_closest_marker("live")]
    problem = lab.obstacle() if live else None
    if problem and os.geteuid() != 0 and not os.environ.get("CI"):
        for item in live:
            item.add_marker(pytest.mark.skip(reason=problem))
    elif problem:
        pytest.exit(f"the live tests cannot run: {problem}", returncode=1)
