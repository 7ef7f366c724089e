"""What the vigil does when its looks find something, with the kernel played by the test."""

import asyncio
from types import SimpleNamespace

import pytest

from edgeblock.config import Config, parse
from edgeblock.daemon import vigil as module
from edgeblock.daemon.vigil import State, Vigil
from edgeblock.errors import SystemProblem
from edgeblock.netfilter.bypass import Bypass

from .parts import Log


class Standing:
    """Rules of which the test says what is lost."""

    def __init__(self):
        self.gone, self.rules_before = [], ()

    def take(self):
        return list(self.gone)

    def lost(self):
        return list(self.gone)

    def before(self):
        return self.rules_before


@pytest.fixture
def kernel(monkeypatch):
    """`restore` and `find` may be replaced; what `restore` is called with is kept."""
    made = SimpleNamespace(standing=Standing(), applied=[], bypasses=[], problem=None, passed=[])

    def restore(config, backend, stage1=None):
        made.applied.append((backend, stage1))
        if made.problem is not None and (stage1 is not None or made.problem != "stage1"):
            raise SystemProblem("iptables-restore: cannot be started")
        made.standing.gone = []

    monkeypatch.setattr(module.ruleset, "standing", lambda *_: made.standing)
    monkeypatch.setattr(module.ruleset, "restore", restore)
    monkeypatch.setattr(module.bypass, "find", lambda config: list(made.bypasses))
    monkeypatch.setattr(module.bypass, "rules_before", lambda: [Bypass("rule", one, "") for one in made.passed])
    return made


def watching(kernel, config=Config(), stage=None, queues=lambda: []):     # noqa: B008
    log, told = Log(), []

    async def call(work, *arguments):
        return work(*arguments)

    state = State(log, lambda: told.append(dict(state.causes)))
    one = Vigil(config, log, state, call, stage, "iptables", queues, nothing)
    one.said, one.told = log.said, told
    return one


async def nothing():
    return ""


def events(one):
    return [event for event, _ in one.said]


def test_what_is_lost_is_put_back_counted_and_said(kernel):
    one = watching(kernel)

    async def look():
        await one.begin()
        kernel.standing.gone = ["table ip mangle is gone"]
        await one._look()
        await one._look()

    asyncio.run(look())
    assert one.status()["restored"] == {"rules": 1, "place": 0, "first_stage": 0, "shortcut": 0}
    assert ("kernel rules have been taken away", {"lost": ["table ip mangle is gone"]}) in one.said
    assert one.status()["filtering"] and one.told == []


def test_what_cannot_be_put_back_is_not_filtering_until_it_can(kernel):
    one = watching(kernel)

    async def look():
        await one.begin()
        kernel.standing.gone, kernel.problem = ["the jump is gone"], "everything"
        await one._look()
        await one._look()
        assert not one.status()["filtering"] and one.status()["failed"] == 2
        assert one.state.summary.startswith("NOT FILTERING: kernel rules are gone and cannot be put back: ")
        kernel.problem = None
        await one._look()

    asyncio.run(look())
    assert one.status()["filtering"] and one.state.summary == ""
    assert events(one).count("not filtering") == events(one).count("filtering again") == 1
    assert events(one).count("kernel rules have been taken away") == 1      # and not once a second
    assert [bool(causes) for causes in one.told] == [True, False]


def test_what_takes_long_is_not_filtering_meanwhile(kernel, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    one = watching(kernel)

    async def call(work, *arguments):
        await asyncio.sleep(0.05)
        return work(*arguments)

    async def look():
        await one.begin()
        one.call = call
        kernel.standing.gone = ["chain x has 0 rules, not 8"]
        await one._look()

    asyncio.run(look())
    assert [bool(causes) for causes in one.told] == [True, False]
    assert one.status()["restored"]["rules"] == 1


def test_again_and_again_is_not_filtering_for_as_long_as_it_goes_on(kernel, monkeypatch):
    monkeypatch.setattr(module, "AGAIN", 0.0)
    one = watching(kernel)

    async def look():
        await one.begin()
        for _ in range(module.OFTEN + 1):
            kernel.standing.gone = ["table ip mangle is gone"]
            await one._look()
        assert not one.status()["filtering"]
        monkeypatch.setattr(module, "STOOD", 0.0)
        await one._look()

    asyncio.run(look())
    assert one.status()["filtering"]


def test_rules_without_the_first_stage_are_better_than_none(kernel, monkeypatch):
    stage = SimpleNamespace(pinned="pin", lost=lambda: ["pin"], put_back=lambda: None)

    def cannot():
        raise SystemProblem("first stage: no bpf file system")

    stage.put_back = cannot
    one = watching(kernel, stage=stage)
    kernel.problem = "stage1"

    async def look():
        await one.begin()
        kernel.standing.gone = ["table ip mangle is gone"]
        await one._look()
        assert kernel.applied == [("iptables", "pin"), ("iptables", None)] and one.status()["filtering"]
        assert one.status()["problems"] == ["first stage: no bpf file system"]
        stage.put_back, stage.lost, kernel.problem = (lambda: None), (lambda: []), None
        await one._look()

    asyncio.run(look())
    assert kernel.applied[-1] == ("iptables", "pin") and one.status()["problems"] == []


@pytest.mark.parametrize("text", ['kernel = "judge"', 'kernel = "marks"'])
def test_where_the_first_stage_is_needed_nothing_takes_its_place(kernel, text, tmp_path):
    one = watching(kernel, config=parse(f"[ruleset]\n{text}\n", "x", tmp_path),
                   stage=SimpleNamespace(pinned="pin", lost=lambda: [], put_back=lambda: None))
    kernel.problem = "stage1"

    async def look():
        await one.begin()
        kernel.standing.gone = ["table ip mangle is gone"]
        await one._look()

    asyncio.run(look())
    assert kernel.applied == [("iptables", "pin")] and not one.status()["filtering"]


def test_rules_that_come_before_ours_are_passed(kernel):
    one = watching(kernel)

    async def look():
        await one.begin()
        kernel.standing.rules_before = ((4, "FORWARD", (7,)),)
        await one._look()
        assert kernel.applied == []                 # it takes nothing away
        kernel.standing.rules_before, kernel.passed = ((4, "FORWARD", (8, 7)),), ["iptables -A FORWARD -j ACCEPT"]
        await one._look()
        kernel.passed = []
        await one._look()

    asyncio.run(look())
    assert one.status()["restored"]["place"] == 1 and len(kernel.applied) == 1
    assert any(more.get("rules") == ["iptables -A FORWARD -j ACCEPT"] for _, more in one.said)


def test_ways_past_are_said_once_when_they_come_and_when_they_go(kernel):
    way = Bypass("flowtable", "flow table inet m f: flow add @f", "offload only what is done")
    one = watching(kernel)

    async def look():
        kernel.bypasses = [way]
        await one.begin()
        await one._look_at_others()
        kernel.bypasses = []
        await one._look_at_others()

    asyncio.run(look())
    assert events(one) == ["packets can go past the kernel rules", "no longer past the kernel rules"]
    assert one.status()["bypasses"] == []


def test_a_queue_that_nobody_works_is_not_filtering(kernel):
    idle = ["queue 1 has no worker"]
    one = watching(kernel, queues=lambda: idle)

    async def look():
        await one.begin()
        await one._look()
        assert one.status()["causes"] == ["queue 1 has no worker"]
        idle.clear()
        await one._look()

    asyncio.run(look())
    assert one.status()["causes"] == []


def test_a_kernel_that_does_not_answer_is_not_taken_for_one_with_rules(kernel):
    one = watching(kernel)

    def refuse():
        raise OSError(1, "Operation not permitted")

    async def look():
        await one.begin()
        kernel.standing.lost = refuse
        await one._look()

    asyncio.run(look())
    assert "cannot be told: [Errno 1] Operation not permitted" in one.status()["causes"][0]


def test_looks_go_on_while_others_rules_are_listed(kernel):
    one = watching(kernel)
    began, ended = asyncio.Event(), asyncio.Event()

    async def slow():
        began.set()
        await ended.wait()

    async def look():
        await one.begin()
        one._look_at_others, one.others_due = slow, 0.0
        await one._look()
        await began.wait()
        kernel.standing.gone = ["table ip mangle is gone"]
        await one._look()
        assert one.status()["restored"]["rules"] == 1
        ended.set()

    asyncio.run(look())


def test_once_connections_are_tracked_only_done_flows_are_carried_for_good(kernel, monkeypatch, tmp_path):
    count, asked = tmp_path / "count", []
    monkeypatch.setattr(module.shortcut, "TRACKED", count)
    monkeypatch.setattr(module.shortcut, "lost", lambda *_: {})
    stage = SimpleNamespace(pinned=tmp_path / "pinned", tracked=False, program_number=lambda name: 1)
    stage.lost = list

    def carry_undecided(wanted):
        asked.append(wanted)
        stage.tracked = not wanted

    stage.carry_undecided = carry_undecided
    config = parse('[ruleset]\nkernel = "carry"\nclients = ["gone-a"]\nservers = ["gone-b"]\n', "x", tmp_path)
    one = watching(kernel, config, stage)

    async def look():
        await one.begin()
        for text, wanted in (("0\n", []), ("3\n", [False]), ("0\n", [False]), ("4\n", [False])):
            count.write_text(text)
            await one._look()
            assert asked == wanted

    asyncio.run(look())
    assert [more for event, more in one.said if "-j CT --notrack" in event] == [{"tracked": 3}]
