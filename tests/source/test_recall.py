"""The first stage and the engine together, packet by packet: what the kernel lets by the engine hears of in time.

Every way of sending of core/strategies.py and every capture beside the repository: the same verdicts as without it.
"""

import pytest

from edgeblock.netfilter.stage1 import Stage
from tests.core import samples as s
from tests.core.playing import LISTED, OTHER, engine, play
from tests.core.strategies import MIDWAY, STRATEGIES, Path
from tests.staging import Box

pytestmark = pytest.mark.live

SENDABLE = STRATEGIES | MIDWAY


@pytest.fixture(scope="module")
def stage():
    with Stage(65_536, 120.0, hellos=1024) as loaded:
        yield loaded


REQUESTS = {"tls": s.hello, "http": s.request}


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("name", [LISTED, OTHER], ids=["listed", "other"])
@pytest.mark.parametrize("how", SENDABLE)
def test_the_same_verdict_as_without_it(stage, how, name, kind, six):
    data = REQUESTS[kind](name)
    packets = list(SENDABLE[how](Path(six), data, data.index(name), len(name)))
    alone = play(engine("blocked.example.com"), packets)
    both = Box(stage, engine("blocked.example.com")).play(packets)
    assert both.blocked == alone.blocked
    assert [a.accept for a in alone.decisions if a.mark == "blocked"] == [
        b.accept for a, b in zip(alone.decisions, both.decisions, strict=True) if a.mark == "blocked"]
