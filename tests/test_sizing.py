"""What a rate needs: the arithmetic, and that docs/fleet.md has what the script says today."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def sizing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sizing", ROOT / "benchmarks" / "sizing.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["sizing"] = module      # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kernel", ["judge", "carry"])
def test_the_page_has_what_the_script_says(sizing: ModuleType, kernel: str):
    page = (ROOT / "docs" / "fleet.md").read_text()
    for line in sizing.table([10, 100, 400], 100, kernel, 2, 32).splitlines():
        assert line in page


def test_all_of_it_grows_as_the_rate_does(sizing: ModuleType):
    found = sizing.costs("judge")
    one, ten = sizing.need(10, 100, found), sizing.need(100, 100, found)
    for name in ("connections", "packets_cores", "names_cores", "daemon_cores", "flows", "flow_megabytes", "cores"):
        assert getattr(ten, name) == pytest.approx(10 * getattr(one, name))
    assert sizing.need(10, 50, found).connections == 2 * one.connections
    assert sizing.need(10, 50, found).packets_cores == one.packets_cores
    assert sum(sizing.MIX.values()) == 100


def test_costs_are_those_of_the_files(sizing: ModuleType):
    """By hand: 10 Gbit/s are 1.25 GB/s, and 12 500 connections of 100 kB."""
    found = sizing.costs("judge")
    box = json.loads((ROOT / "benchmarks" / "results" / "box-by-rate.json").read_text())["samples"]
    bare = sorted(box["connections, no filter"]["cpu_ms_each"])[3] * 1000
    assert found.each["TLS, hello in one segment"] == pytest.approx(bare / 3)          # 0.75 of the connections
    assert len(box["connections, no filter"]["cpu_ms_each"]) == 7
    one = sizing.need(10, 100, found)
    assert one.connections == 12_500 and one.flows == 1_500_000
    assert one.packets_cores == pytest.approx(1.25 * found.gigabyte)
    mix = (20 * found.each["TLS, hello in one segment"] + 40 * found.each["TLS, hello in two segments"]
           + 35 * found.each["QUIC"] + 5 * 4 * found.each["request"]) / 100
    assert one.names_cores == pytest.approx(12_500 * mix / 1e6)


def test_the_tables_that_it_was_copied_from_are_there(sizing: ModuleType):
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    rows = {line.split("|")[1].strip(): [part.strip() for part in line.split("|")[2:-1]]
            for line in page.partition("## The box today")[2].partition("\n## ")[0].splitlines()
            if line.startswith("|")}
    for case, column in (("judge", 2), ("carry", 3)):
        for what, row in (("TLS, hello in one segment", "new TLS connections"),
                          ("TLS, hello in two segments", "the same, hello in two segments"),
                          ("request", "HTTP requests on kept connections")):
            assert rows[row][column].startswith(f"{sizing.SHARE[case][what]} ("), row
        own = [sizing.OWN[case][what] for what in ("TLS, hello in one segment", "TLS, hello in two segments", "QUIC")]
        assert [float(one) for one in rows["a connection's own time in the daemon, µs: TLS, two segments, QUIC"][
            column].split(", ")] == own
        assert float(rows["a request's"][column]) == sizing.OWN[case]["request"]
    assert "A QUIC connection took 24.6 µs without a filter, 40.5, 40.0 and 40.0 with" in " ".join(page.split())
    limits = (ROOT / "docs" / "known-limits.md").read_text()
    assert f"{sizing.STAGE_MB} MB of kernel memory with one worker, {sizing.STAGE_MORE_MB} MB more" in limits
    assert f"{sizing.MARKS_MB}\nMB" in (ROOT / "docs" / "stage1.md").read_text()


def test_memory_of_the_first_stage(sizing: ModuleType):
    assert sizing.stage_megabytes(1, "judge", 1000) == 185
    assert sizing.stage_megabytes(3, "judge", 1000) == 185 + 2 * 115
    assert sizing.stage_megabytes(1, "carry", 1000) == 185 + 143
    assert sizing.stage_megabytes(1, "judge", 4 * 262_144) == 185 + 3 * 115


def test_no_more_digits_are_said_than_were_measured(sizing: ModuleType):
    assert [sizing.said(value) for value in (0, 0.314, 3.14, 31.4, 314, 12_500, 0.0314)] == [
        "0", "0.31", "3.1", "31", "310", "12,000", "0.031"]
