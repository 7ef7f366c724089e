"""The labs and the daemon that the live tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from running import MARKED, UNTRACKED, Running, start, track_nothing, tracked

from edgeblock.lab import Lab


@pytest.fixture(scope="session")
def bare_lab() -> Iterator[Lab]:
    """A lab whose box only forwards."""
    with Lab(extra_hop=True) as lab:
        yield lab


@pytest.fixture(scope="session", params=["on", "off", "untracked", "shortcut"], ids=lambda how: f"stage1-{how}")
def stage1(request: pytest.FixtureRequest) -> str:
    """Everything is so with the first stage in the kernel, without it, with it on a box that tracks nothing, and with
    the shortcut there."""
    return str(request.param)


@pytest.fixture(scope="session")
def lab(stage1: str) -> Iterator[Lab]:
    """The lab of `running`: ask for that, too."""
    with Lab(extra_hop=True) as lab:
        if stage1 in MARKED:
            track_nothing(lab)
        yield lab


@pytest.fixture(scope="session")
def running(lab: Lab, stage1: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The daemon in the box of `lab`, for all tests that leave it as it is; at the end it has to stop cleanly."""
    settings = MARKED.get(stage1, f'[ruleset]\nstage1 = "{stage1}"\n')
    running = start(lab, tmp_path_factory.mktemp("daemon"), settings)
    yield running
    if stage1 in MARKED:
        assert not tracked(lab)
    assert running.daemon.stop() == 0, running.daemon.last_words()


@pytest.fixture
def tracking() -> str:
    """Who keeps the flow marks of `fresh`: a module may say otherwise."""
    return "conntrack"


@pytest.fixture
def fresh(tmp_path: Path, tracking: str) -> Iterator[Running]:
    """A lab and a daemon of the test's own, to be stopped, killed and confused."""
    with Lab() as lab:
        if tracking == "stage1":
            track_nothing(lab)
        yield start(lab, tmp_path, UNTRACKED if tracking == "stage1" else "")
