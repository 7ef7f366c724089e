"""What the benchmarks say of processor time: the clocks of processes, and figures that other load does not move."""

import importlib.util
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def slices():
    path = Path(__file__).parent.parent / "benchmarks" / "slices.py"
    spec = importlib.util.spec_from_file_location("slices", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def disturbed(cost: float, chance: random.Random, count: int = 200) -> list[float]:
    """Costs of slices of a busy machine: a little noise on all, much on four in ten."""
    return [cost * (chance.gauss(1, 0.01) + (chance.uniform(0.1, 3.0) if chance.random() < 0.4 else 0))
            for _ in range(count)]


@pytest.mark.parametrize("ratio", [1.0, 0.97, 0.67, 1.3])
def test_a_ratio_is_found_in_spite_of_other_load(slices, ratio):
    chance = random.Random(3)
    got = slices.share(disturbed(50.0, chance), disturbed(50.0 / ratio, chance))
    assert got.low < ratio < got.high
    assert got.high - got.low < 0.02 * ratio
    assert got.low <= got.middle <= got.high


def test_above_one_is_cheaper_and_more_is_dearer(slices):
    assert slices.share([20.0] * 9, [10.0] * 9) == (2.0, 2.0, 2.0)
    assert slices.more([20.0] * 9, [25.0] * 9) == (5.0, 5.0, 5.0)
    assert slices.growth([10.0] * 9, [12.0] * 9).middle == pytest.approx(1.2)
    assert slices.later([20.0, 30.0, 90.0], [21.0, 31.5, 90.0]).middle == 1.0       # turn by turn


def test_the_interval_of_identical_cases_has_one_in_it(slices):
    chance = random.Random(11)
    held = sum(got.low <= 1.0 <= got.high for got in (
        slices.share(disturbed(50.0, chance, 60), disturbed(50.0, chance, 60)) for _ in range(40)))
    assert held >= 34           # 95 of 100 are 38 of 40


def test_every_case_has_its_turn_and_none_two_in_a_row(slices):
    order = list(slices.in_turn("abcd", 200))
    assert all(sorted(order[at:at + 4]) == list("abcd") for at in range(0, 800, 4))
    assert all(one != other for one, other in zip(order, order[1:], strict=False))
    before = [order[at - 1] for at in range(1, 800) if order[at] == "a"]
    assert set(before) == set("bcd")


def test_clocks_see_work_of_another_process_and_keep_what_an_ended_one_took(slices):
    work = "import sys\nfor line in sys.stdin:\n    sum(range(3_000_000))\n    print(flush=True)"
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        clocks = slices.Clocks([process.pid])

        def order() -> int:
            before = clocks.read()
            process.stdin.write(b"\n")
            process.stdin.flush()
            process.stdout.readline()
            return clocks.read() - before

        order()
        first, idle = order(), clocks.read()
        assert first > 5_000_000
        assert clocks.read() - idle < first / 10
        process.stdin.close()
        process.wait()
    assert clocks.read() >= idle


def test_clocks_are_exact_to_less_than_a_tick(slices):
    clocks = slices.Clocks([os.getpid()])
    before, mine = clocks.read(), time.process_time_ns()
    sum(range(20_000))
    spent, mine = clocks.read() - before, time.process_time_ns() - mine
    assert 0 < spent < 4_000_000
    assert abs(spent - mine) < 200_000
