"""What every run of the tests does first: see that the live tests can run, so that none is left out unnoticed.

Hypothesis has two profiles, neither with a deadline: `fast`, the usual one, which tries the same examples each time,
so that what it says is about the change; and `deep`, which looks fifty times as long and always elsewhere
(`--hypothesis-profile deep`, or HYPOTHESIS_PROFILE in the environment).

What tests start, daemons by the hundred, is compiled once, into build/bytecode, also where Python is told to write
none. Without it the processes of a daemon compile 2.5 s each time.
"""

import os
import shutil
import sys
from pathlib import Path

import browser
import browser_audit
import pytest
from hypothesis import settings

from edgeblock import lab

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parent.with_name("build") / "bytecode")

settings.register_profile("fast", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("few", max_examples=10, deadline=None, derandomize=True)     # where it is slow: an emulator
settings.register_profile("deep", max_examples=5000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Live tests that kill, stop and time daemons of their own: what runs beside them could be taken for a fault."""
    of_mode = "stage1" in getattr(getattr(item, "callspec", None), "params", ())
    if (item.get_closest_marker("live") and not of_mode
            and item.path.parent.name in ("live", "netfilter", "daemon")):
        item.add_marker("alone")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for program, marker, package in ((browser.CHROMIUM, "chromium", "chromium"),
                                     (browser_audit.FIREFOX, "firefox", "firefox-esr")):
        for item in items if program is None else ():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=f"no {marker.title()} here: apt-get install {package}"))
    for program in ("promtool", "prometheus"):
        if shutil.which(program, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") is None:
            for item in items:
                if item.get_closest_marker(program):
                    item.add_marker(pytest.mark.skip(reason=f"no {program} here: apt-get install prometheus"))
    live = [item for item in items if item.get_closest_marker("live")]
    problem = lab.obstacle() if live else None
    if problem and os.geteuid() != 0 and not os.environ.get("CI"):
        for item in live:
            item.add_marker(pytest.mark.skip(reason=problem))
    elif problem:
        pytest.exit(f"the live tests cannot run: {problem}", returncode=1)
