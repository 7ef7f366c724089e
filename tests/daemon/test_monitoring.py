"""The dashboard as Grafana's own schema has it, and the alerts played by Prometheus' own tester: when they ring, and
that they end. What both ask for is compared with what there is in test_metrics.py.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard, prometheus, stat, table, timeseries, units

from tests.daemon.test_metrics import DASHBOARDS, FILES, PROMTOOL, exposition, made, samples

KINDS = {"stat": stat, "timeseries": timeseries, "table": table}
FLEET = {"rules", "source", "version"}               # labels that fleet-rules.yml makes
ALL = pytest.mark.parametrize("board", [json.loads((FILES / name).read_text()) for name in DASHBOARDS],
                              ids=DASHBOARDS)
COLUMNS = 24        # of Grafana's grid


def lost(schema: Any, ours: dict[str, Any]) -> list[str]:
    """What Grafana's schema does not know, or reads as something else."""
    def differing(one: Any, other: Any, place: str) -> Iterator[str]:
        if isinstance(one, dict) and isinstance(other, dict):
            for key, value in one.items():
                yield from differing(value, other.get(key, "nothing"), f"{place}.{key}")
        elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            for number, (value, read) in enumerate(zip(one, other, strict=True)):
                yield from differing(value, read, f"{place}[{number}]")
        elif one != other:
            yield f"{place}: {one!r} is read as {other!r}"

    read = json.loads(json.dumps(schema.from_json(ours), cls=JSONEncoder))
    return list(differing(ours, read, ""))


@ALL
def test_the_schema_of_grafana_knows_every_key(board: dict[str, Any]):
    assert lost(dashboard.Dashboard, board) == []
    for panel in board["panels"]:
        kind = KINDS[panel["type"]]
        assert lost(kind.Options, panel["options"]) == []
        assert lost(timeseries.FieldConfig, panel["fieldConfig"]["defaults"].get("custom", {})) == []
        for target in panel["targets"]:
            assert lost(prometheus.Dataquery, target) == []
    assert lost(dashboard.Dashboard, {**board, "panles": []}) != []


@ALL
def test_every_panel_has_a_unit_that_grafana_knows_and_a_legend_of_labels_that_there_are(board: dict[str, Any]):
    known = {value for value in vars(units).values() if isinstance(value, str)}
    labels = {label for sample in samples(exposition(*reordered())) for label in sample.labels} | {"instance"} | FLEET
    panels = board["panels"]
    for panel in panels:
        assert panel["fieldConfig"]["defaults"]["unit"] in known, panel["title"]
        for target in panel["targets"]:
            named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert target["legendFormat"] and named <= labels
            if by := re.search(r"by \(([\w, ]+)\)", target["expr"]):
                assert named <= set(by[1].split(", "))
    assert len({panel["title"] for panel in panels}) == len({panel["id"] for panel in panels}) == len(panels)


def reordered() -> tuple[Any, Any, Any]:
    board, status, places = made()
    return status, board, places


@ALL
def test_no_panel_lies_on_another_and_none_is_left_out_of_the_grid(board: dict[str, Any]):
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= COLUMNS and not cells & taken, panel["title"]
        taken |= cells
    assert len(taken) == COLUMNS * (1 + max(y for _, y in taken))


# What has to ring: a series, minute by minute, when to look, and who.
RINGING = [
    ('edgeblock_filtering', "1 1 0 0 1 1", 1, ""),
    ('edgeblock_filtering', "1 1 0 0 1 1", 2, "EdgeblockNotFiltering"),
    ('edgeblock_filtering', "1 1 0 0 1 1", 4, ""),
    ('edgeblock_canary_ok{family="ipv4", protocol="tls"}', "1 0 0", 2, "EdgeblockCanaryFailed"),
    ('edgeblock_list_refused{list="court"}', "0 1 0", 1, "EdgeblockListRefused"),
    ('edgeblock_restored_total{what="addresses"}', "0 1 1 1 1 1 1 1 1 1 1 1 1 1", 2, "EdgeblockRulesTakenAway"),
    ('edgeblock_restored_total{what="addresses"}', "0 1 1 1 1 1 1 1 1 1 1 1 1 1", 13, ""),
    ('edgeblock_worker_up{queue="0"}', "1 0 0 0", 2, "EdgeblockWorkerDown"),
    ('edgeblock_orders_unanswered', "0 1 1 1", 3, "EdgeblockOrdersUnanswered"),
    ('edgeblock_ledger_ok', "1 0 0 0", 3, "EdgeblockLedgerNotWritten"),
    ('edgeblock_fetch_up', "1 0 0 0", 2, ""),
    ('edgeblock_fetch_up', "1 0 0 0", 3, "EdgeblockFetcherGone"),
    ('edgeblock_fetch_up', "1 0 0 0 1", 4, ""),
    ('edgeblock_source_forged{source="court"}', "0 1 0", 1, "EdgeblockSourceForged"),
    ('edgeblock_counts_unwritten', "0 1 1 1 1 1 1", 4, ""),
    ('edgeblock_counts_unwritten', "0 1 1 1 1 1 1", 6, "EdgeblockCountsUnwritten"),
]
# A web server that is down, asked once an hour: how old what came is, and when to look.
SOURCES = [("0 3600 7200 10800 11700 11700", 4, ""), ("0 3600 7200 10800 11701", 4, "EdgeblockSourceStale"),
           ("0 86400 86400", 1, "EdgeblockSourceStale"), ("0 86400 0", 2, "")]
CAPACITY = [("79 80 80", 2, ""), ("79 81 81 81", 3, "EdgeblockCapacity"), ("79 81 81 81 70", 4, "")]
ADDRESSES = [       # listed, in the kernel
    ("5 5 5 5", "5 5 5 5", 3, ""), ("5 7 7 7", "5 5 7 7", 3, ""),
    ("5 5 5 5", "5 0 0 0", 3, "EdgeblockAddressesNotInKernel"),
    ("2 2 2 2", "0 0 0 0", 3, "EdgeblockAddressesNotInKernel"), ("0 0 0 0", "0 0 0 0", 3, "")]


@pytest.mark.promtool
def test_alerts_ring_when_they_should_and_end(tmp_path: Path):
    played = [({name: values}, minute, alert) for name, values, minute, alert in RINGING] + [
        ({"edgeblock_address_ranges": listed, "edgeblock_address_ranges_in_kernel": there}, minute, alert)
        for listed, there, minute, alert in ADDRESSES] + [
        ({'edgeblock_source_age_seconds{source="court"}': age,
          'edgeblock_source_interval_seconds{source="court"}': "3600x9"}, minute, alert)
        for age, minute, alert in SOURCES] + [
        ({'edgeblock_capacity_used{what="entries"}': used, 'edgeblock_capacity_most{what="entries"}': "100x9"},
         minute, alert) for used, minute, alert in CAPACITY]
    rules = (FILES / "alerts.yml").read_text()
    names = re.findall(r"- alert: (\w+)", rules)
    tests = []
    for series, minute, alert in played:
        with_labels = {name if "{" in name else name + "{}": values for name, values in series.items()}
        tests.append({
            "interval": "1m",
            "input_series": [{"series": name.replace("{", '{instance="box",').replace(",}", "}"), "values": values}
                             for name, values in with_labels.items()],
            "promql_expr_test": [{
                "expr": f'sum(ALERTS{{alertname="{name}", alertstate="firing"}}) or vector(0)',
                "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": int(name == alert)}]}
                for name in names]})
    (tmp_path / "alerts.yml").write_text(rules)
    (tmp_path / "test.yml").write_text(json.dumps({"rule_files": ["alerts.yml"], "evaluation_interval": "1m",
                                                   "tests": tests}))
    done = subprocess.run([PROMTOOL, "test", "rules", tmp_path / "test.yml"], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr
