"""The labs and the daemon that the live tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Running, start

from edgeblock.lab import Lab


@pytest.fixture(scope="session")
def bare_lab() -> Iterator[Lab]:
    """A lab whose box only forwards."""
    with Lab(extra_hop=True) as lab:
        yield lab


@pytest.fixture(scope="session", params=["on", "off"], ids=lambda how: f"stage1-{how}")
def stage1(request: pytest.FixtureRequest) -> str:
    """Everything is so with the first stage in the kernel and without it."""
    return str(request.param)


@pytest.fixture(scope="session")
def lab(stage1: str) -> Iterator[Lab]:
    """The lab of `running`: ask for that, too."""
    with Lab(extra_hop=True) as lab:
        yield lab


@pytest.fixture(scope="session")
def running(lab: Lab, stage1: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The daemon in the box of `lab`, for all tests that leave it as it is; at the end it has to stop cleanly."""
    running = start(lab, tmp_path_factory.mktemp("daemon"), f'[ruleset]\nstage1 = "{stage1}"\n')
    yield running
    assert running.daemon.stop() == 0, running.daemon.last_words()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Running]:
    """A lab and a daemon of the test's own, to be stopped, killed and confused."""
    with Lab() as lab:
        yield start(lab, tmp_path)
