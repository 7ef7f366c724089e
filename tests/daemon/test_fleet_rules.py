"""What a Prometheus says of twenty boxes: who has which rules, how long a version took, and which alert rings when.

The boxes are twenty of edgeblock's own exporters on loopback, each with a status that the test changes; promtool
plays the times that nobody waits for.
"""

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Self
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from edgeblock.daemon.metrics import MetricsServer, exposition
from edgeblock.lab import until
from tests.daemon.test_metrics import FILES, PROMTOOL, made

BOXES = 20
OLD, NEW = "0a" * 32, "0b" * 32     # digests of rules
PROMETHEUS = shutil.which("prometheus", path=f"{Path(sys.executable).parent}:/usr/bin:/usr/local/bin")
SETTINGS = """global: {{scrape_interval: 500ms, scrape_timeout: 450ms, evaluation_interval: 500ms}}
rule_files: [alerts.yml, fleet-rules.yml]
scrape_configs:
  - job_name: edgeblock
    static_configs:
"""


def free_ports(count: int) -> list[int]:
    """Each another one: they are held until all are there."""
    with ExitStack() as held:
        return [int(held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1])
                for _ in range(count)]


@dataclass
class Box:
    """One exporter; `status` is what its daemon would say."""

    name: str
    status: dict[str, Any]
    port: int

    def has(self, digest: str, since: float) -> None:
        self.status |= {"rules_digest": digest, "rules_since": since, "rules_age": int(time.time() - since)}

    def canary(self, wrong: str) -> None:
        self.status["canary"] = {"probes": [{"family": "ipv4", "protocol": "tls", "wrong": wrong,
                                             "succeeded": time.time()}]}

    def source(self, version: str, landed: float, checked: float) -> None:
        self.status["fetch"] = {"state": "running", "problem": "", "sources": {"court": {
            "kind": "https", "version": version, "bytes": 7, "every": 60, "checked": checked, "began": landed,
            "changed": landed, "failures": int(time.time() - checked > 60), "grave": False}}}

    def release(self, ring: str, taken: int, waiting: str = "", bad: str = "") -> None:
        self.status["fetch"]["sources"]["court"]["release"] = {
            "ring": ring, "wanted": 17, "taken": taken, "waiting": waiting, "held": [("targets", "17")],
            "bad": [("targets", bad)] if bad else []}

    def filters(self, well: bool) -> None:
        self.status["vigil"] = {"filtering": well}


class Fleet:
    """Twenty boxes in a thread, and the Prometheus that watches them; use it as a context."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, *ports = free_ports(BOXES + 1)
        board, status, places = made()
        plain = {"vigil": {"filtering": True}, "ledger": {"state": "ok"}, "addresses": {}, "capacity": {},
                 "lists": {"court": {"entries": 5, "refused": ""}, "pages": {"entries": 4, "refused": ""}}}
        self.boxes = [Box(f"box{number}", status | plain, port) for number, port in enumerate(ports)]
        for box in self.boxes:
            box.canary("")
            box.source("v1", time.time() - 5000, time.time())
        self._board, self._places = board, places
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._servers: dict[str, MetricsServer] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        for box in self.boxes:
            self._servers[box.name] = MetricsServer(f"127.0.0.1:{box.port}", lambda box=box: self._answer(box))
            self._do(self._servers[box.name].open())
        for name in ("alerts.yml", "fleet-rules.yml"):
            self.folder.joinpath(name).write_text(
                re.sub(r"(?m)^( +for:) \w+$", r"\1 1s", (FILES / name).read_text()))
        self.watch(self.boxes)
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [str(PROMETHEUS), f"--config.file={self.folder}/prometheus.yml",
                 f"--storage.tsdb.path={self.folder}/db", f"--web.listen-address=127.0.0.1:{self.port}"],
                stdout=log, stderr=log)
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()
        for server in self._servers.values():
            self._do(server.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _answer(self, box: Box) -> bytes:
        return exposition(box.status, self._board, self._places)

    def _do(self, what: Any) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    def watch(self, boxes: list[Box]) -> None:
        """Whom Prometheus asks from now on; a running one has to be told (`reload`)."""
        self.folder.joinpath("prometheus.yml").write_text(SETTINGS.format() + "".join(
            f'      - {{targets: ["127.0.0.1:{box.port}"], labels: {{instance: {box.name}}}}}\n' for box in boxes))

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def stop(self, box: Box) -> None:
        self._do(self._servers[box.name].close())

    def ask(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """What Prometheus answers by HTTP: labels and value of each series."""
        url = f"http://127.0.0.1:{self.port}/api/v1/query?{urlencode({'query': expression})}"
        with suppress(OSError), urlopen(url, timeout=10) as said:
            return [(one["metric"], float(one["value"][1])) for one in json.load(said)["data"]["result"]]
        return []

    def becomes(self, expression: str, *expected: tuple[dict[str, str], float]) -> None:
        """Within some seconds it answers just that, the name of the series aside."""
        seen: list[Any] = []

        def as_expected() -> bool:
            seen[:] = [({key: value for key, value in labels.items() if key != "__name__"}, value)
                       for labels, value in self.ask(expression)]
            return sorted(seen, key=str) == sorted(expected, key=str)

        assert until(as_expected, 15), f"{expression}: {seen}\n{(self.folder / 'log').read_text()[-2000:]}"

    def rings(self, alert: str, count: int = 1, **labels: str) -> None:
        self.becomes(f'count(ALERTS{{alertname="{alert}", alertstate="firing"'
                     + "".join(f', {name}="{value}"' for name, value in labels.items()) + "}) or vector(0)",
                     ({}, count))


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path) as fleet:
        yield fleet


@pytest.mark.prometheus
def test_twenty_boxes(fleet: Fleet):
    """A version comes to half of the boxes, then to all; then a box turns red, one ends, one is no longer watched."""
    old, new, now = {"rules": OLD[:16]}, {"rules": NEW[:16]}, time.time()
    began = now - 50_000
    for number, box in enumerate(fleet.boxes):
        box.has(OLD, began + number)
    fleet.becomes("edgeblock:rules_convergence:seconds", (old, 19))
    fleet.becomes("edgeblock:boxes_filtering:count", ({}, BOXES))
    fleet.becomes('count(ALERTS{alertstate="firing"}) or vector(0)', ({}, 0))

    for number, box in enumerate(fleet.boxes[:10]):
        box.has(NEW, now - 1000 + number)
    fleet.becomes("edgeblock:rules_boxes:count", (old, 10), (new, 10))
    fleet.becomes("edgeblock:rules_newest_boxes:ratio", (new, 0.5))
    fleet.becomes("edgeblock:rules_convergence:seconds")
    fleet.becomes("edgeblock:rules_since:timestamp_seconds and on (rules) edgeblock:rules_newest:timestamp_seconds",
                  *(({"instance": box.name, **new}, pytest.approx(now - 1000 + number, abs=0.001))
                    for number, box in enumerate(fleet.boxes[:10])))
    fleet.rings("EdgeblockFleetRulesDiffer", rules=NEW[:16])

    for number, box in enumerate(fleet.boxes[10:]):
        box.has(NEW, now - 967 + number)
    fleet.becomes("round(edgeblock:rules_convergence:seconds, 0.001)", (new, 42))
    fleet.rings("EdgeblockFleetRulesDiffer", 0)
    fleet.becomes('count(ALERTS{alertstate="firing"}) or vector(0)', ({}, 0))

    fleet.boxes[3].canary("it passes")
    fleet.becomes("edgeblock:boxes_red:count", ({}, 1))
    fleet.rings("EdgeblockCanaryFailed", instance="box3")
    fleet.rings("EdgeblockFleetNewRulesRed")
    fleet.boxes[3].canary("")
    fleet.rings("EdgeblockFleetNewRulesRed", 0)

    # A source: its newest version first on some boxes, then on all; then it no longer answers one box, then two.
    court = {"source": "court"}
    fleet.becomes("edgeblock:source_newest_boxes:ratio", (court | {"version": "v1"}, 1))
    for number, box in enumerate(fleet.boxes[:5]):
        box.source("v2", now - 100 + number, time.time())
    fleet.becomes("edgeblock:source_newest_boxes:ratio", (court | {"version": "v2"}, 0.25))
    fleet.becomes("edgeblock:source_convergence:seconds")
    for number, box in enumerate(fleet.boxes[5:], 5):
        box.source("v2", now - 100 + number, time.time())
    fleet.becomes("round(edgeblock:source_convergence:seconds, 0.001)", (court | {"version": "v2"}, 19))
    for number, count in ((11, 0), (12, 1)):
        fleet.boxes[number].source("v2", now - 100, now - 3 * 60 - 901)
        fleet.rings("EdgeblockSourceStale", instance=f"box{number}", source="court")
        fleet.rings("EdgeblockFleetSourceStale", count)
    fleet.becomes("edgeblock:source_boxes_failing:count", (court, 2))

    # A release that is bad on the box of the first ring, and held for the others.
    fleet.boxes[0].release("canary", 16, "bad", "17")
    for box in fleet.boxes[1:4]:
        box.release("all", 16, "hold")
    fleet.becomes("edgeblock:release_boxes:count", (court | {"ring": "canary", "version": "16"}, 1),
                  (court | {"ring": "all", "version": "16"}, 3))
    fleet.becomes("edgeblock:release_waiting_boxes:count", (court | {"why": "bad"}, 1), (court | {"why": "hold"}, 3))
    fleet.becomes("edgeblock:release_held_boxes:count", ({"authority": "targets", "version": "17"}, 4))
    fleet.rings("EdgeblockFleetReleaseBad", authority="targets", version="17")

    # One list is refused by one box, then by two.
    for number, count in ((4, 0), (5, 1)):
        fleet.boxes[number].status["lists"] = {"court": {"entries": 5, "refused": "court.list:1: is no host"}}
        fleet.rings("EdgeblockListRefused", instance=f"box{number}", list="court")
        fleet.rings("EdgeblockFleetListRefused", count)
    fleet.becomes("edgeblock:list_boxes:count", ({"list": "court"}, BOXES), ({"list": "pages"}, BOXES - 2))

    # Two boxes of twenty that do not filter are no more than a tenth, three are.
    for box in fleet.boxes[6:8]:
        box.filters(False)
    fleet.rings("EdgeblockNotFiltering", 2)
    fleet.rings("EdgeblockFleetNotFiltering", 0)
    fleet.stop(fleet.boxes[9])
    fleet.becomes("edgeblock:boxes_answering:count", ({}, BOXES - 1))
    fleet.becomes("edgeblock:rules_newest_boxes:ratio", (new, 1))
    fleet.rings("EdgeblockDown", instance="box9")
    fleet.rings("EdgeblockFleetNotFiltering")

    fleet.boxes[8].status["version"] = "2"
    fleet.becomes("edgeblock:version_boxes:count", ({"version": "1"}, BOXES - 2), ({"version": "2"}, 1))
    fleet.rings("EdgeblockFleetVersionsDiffer")

    fleet.watch(fleet.boxes[:-1])
    fleet.reload()
    fleet.rings("EdgeblockFleetBoxGone", instance=fleet.boxes[-1].name)
    fleet.watch([])
    fleet.reload()
    fleet.rings("EdgeblockFleetNobodyWatched")


# What has to ring: series, minute by minute, when to look, and who.
RED = {'edgeblock_canary_ok{instance="a"}': "1 1 0 0 0 0 0 1"}
HAS = ('edgeblock_rules_info{job="edgeblock", instance="%s", digest="%s"}',
       'edgeblock_rules_since_timestamp_seconds{job="edgeblock", instance="%s"}')
WATCHED = {f'up{{job="edgeblock", instance="{name}"}}': "1x90" for name in "ab"}


def rules_of(**boxes: tuple[str, str]) -> dict[str, str]:
    """Series of boxes, each with its digest (or several, one after the other) and since when."""
    made = dict(WATCHED)
    for name, (digests, times) in boxes.items():
        for digest in set(digests.split()) - {"_"}:
            made[HAS[0] % (name, digest)] = " ".join("1" if one == digest else "stale" for one in digests.split())
        made[HAS[1] % name] = times
    return made


def held(*parts: tuple[str, int]) -> str:
    return " ".join(" ".join([value] * count) for value, count in parts)


LATE = rules_of(a=(held((OLD, 2), (NEW, 28)), held(("0", 2), ("120", 28))),
                b=(held((OLD, 20), (NEW, 10)), held(("30", 20), ("1200", 10))))
PLAYED = [
    (LATE, 16, ""), (LATE, 18, "EdgeblockFleetRulesDiffer"), (LATE, 21, ""),
    (LATE | RED, 5, "EdgeblockFleetNewRulesRed"), (LATE | RED, 7, ""),
    # A box that turns red long after its rules came is no fault of theirs.
    (rules_of(a=(held((OLD, 90)), "0x90"), b=(held((OLD, 90)), "0x90"))
     | {'edgeblock_canary_ok{instance="a"}': "1x70 0 0 0 0 0"}, 73, ""),
    ({'edgeblock_filtering{instance="a"}': "1x9", 'edgeblock_filtering{instance="b"}': "1 0 0 0 1"} | WATCHED, 1, ""),
    ({'edgeblock_filtering{instance="a"}': "1x9", 'edgeblock_filtering{instance="b"}': "1 0 0 0 1"} | WATCHED, 2,
     "EdgeblockFleetNotFiltering"),
    ({'edgeblock_filtering{instance="a"}': "1x9", 'edgeblock_filtering{instance="b"}': "1 0 0 0 1"} | WATCHED, 4, ""),
    ({'edgeblock_fetch_release_bad{instance="a", authority="targets", version="17"}': "_ 1 stale"} | WATCHED, 1,
     "EdgeblockFleetReleaseBad"),
    ({'edgeblock_fetch_release_bad{instance="a", authority="targets", version="17"}': "_ 1 stale"} | WATCHED, 2, ""),
    ({f'edgeblock_list_refused{{instance="{name}", list="court"}}': "0 1 1 1" for name in "ab"} | WATCHED, 2,
     "EdgeblockFleetListRefused"),
    ({'edgeblock_list_refused{instance="a", list="court"}': "0 1 1 1"} | WATCHED, 3, ""),
    *(({f'edgeblock_source_age_seconds{{instance="{name}", source="court"}}': "0 4000 11700 11701 5" for name in "ab"}
      | {f'edgeblock_source_interval_seconds{{instance="{name}", source="court"}}': "3600x9" for name in "ab"}
      | WATCHED, minute, alert) for minute, alert in ((2, ""), (3, "EdgeblockFleetSourceStale"), (4, ""))),
    ({'up{job="edgeblock", instance="a"}': "1x90", 'up{job="edgeblock", instance="b"}': "1 1 stale"}, 4, ""),
    ({'up{job="edgeblock", instance="a"}': "1x90", 'up{job="edgeblock", instance="b"}': "1 1 stale"}, 7,
     "EdgeblockFleetBoxGone"),
    ({'up{job="other", instance="a"}': "1x90"}, 5, "EdgeblockFleetNobodyWatched"),
]


@pytest.mark.promtool
def test_alerts_ring_when_they_should_and_end(tmp_path: Path):
    rules = (FILES / "fleet-rules.yml").read_text()
    names = re.findall(r"- alert: (\w+)", rules)
    filtering = {f'edgeblock_filtering{{instance="{name}"}}': "1x90" for name in "ab"}
    tests = []
    for series, minute, alert in PLAYED:
        given = series if any("filtering" in name for name in series) else series | filtering
        tests.append({
            "interval": "1m", "input_series": [{"series": name, "values": values} for name, values in given.items()],
            "promql_expr_test": [{
                "expr": f'sum(ALERTS{{alertname="{name}", alertstate="firing"}}) or vector(0)',
                "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": int(name == alert)}]}
                for name in names]})
    (tmp_path / "fleet-rules.yml").write_text(rules)
    (tmp_path / "test.yml").write_text(json.dumps({"rule_files": ["fleet-rules.yml"], "evaluation_interval": "1m",
                                                   "tests": tests}))
    done = subprocess.run([str(PROMTOOL), "test", "rules", tmp_path / "test.yml"], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {alert for _, _, alert in PLAYED} - {""} == set(names) - {"EdgeblockFleetVersionsDiffer"}
