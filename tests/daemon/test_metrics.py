"""What Prometheus gets: conventions, bounded series, a dashboard and alerts that ask for what is there."""

import asyncio
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from edgeblock.config import Config, Privacy
from edgeblock.core.decision import Decision, Name
from edgeblock.core.engine import Engine
from edgeblock.core.matcher import Matcher
from edgeblock.daemon import board as boards
from edgeblock.daemon.board import Board, matched_at
from edgeblock.daemon.journal import Journal
from edgeblock.daemon.metrics import ASKING_MAX, HISTOGRAMS, WORKER_COUNTERS, MetricsServer, exposition
from edgeblock.daemon.worker import Worker
from edgeblock.errors import SystemProblem
from edgeblock.source.counters import BOARD, BOARD_NAMES

FILES = Path(__file__).parent.parent.parent / "docs" / "monitoring"
FUNCTIONS = {"sum", "min", "avg_over_time", "by", "rate", "increase", "count", "histogram_quantile", "up", "le",
             "instance", "list", "verdict", "queue", "digest", "event", "m", "h", "job", "time", "family",
             "protocol", "result", "refused", "edgeblock", "or", "what", "state", "max", "topk", "on", "group_left",
             "label_replace", "unless", "and", "absent", "last_over_time", "rules", "version", "vector", "source",
             "ring", "why", "authority", "count_values"}


def made(matches=1):
    board = Board(2)
    places = board.give_places(["court", "pages"])
    for row in board.rows:
        row[matched_at(places["court"], 1)] = matches
        row[matched_at(places["pages"], 2)] = matches
        row[BOARD["verdict"] + 3] = 1
        row[BOARD["verdict"] + 24] = 2000
    worker = dict.fromkeys(("packets", "passed", "dropped", "lost", "full", "restarts", "hangs", "waiting",
                            "kernel_dropped", "user_dropped", "flows", "bytes"), 3)
    worker |= {"state": "running", "beat": 0.01, "pid": 7, "cpu": 0}
    status = {"version": "1", "rules_digest": "ab" * 32, "uptime": 5, "rules_age": 4, "rules_since": 1e9,
              "overload": "open",
              "absent": "closed", "rules": {"lists": 2, "entries": 9, "loaded": 1, "refused": 0},
              "kernel_rules": {"tcp_syn": {"packets": 4, "bytes": 240}},
              "lists": {"court": {"entries": 5, "refused": "court.list: is a directory, not a file"},
                        "pages": {"entries": 4, "refused": ""}}, "rules_problem": "",
              "vigil": {"filtering": False, "causes": ["nobody works"], "restored": {"rules": 2, "place": 0},
                        "failed": 1, "bypasses": [{"kind": "rule", "found": "-j ACCEPT", "fix": ""}]},
              "canary": {"probes": [{"family": "ipv6", "protocol": "tls", "wrong": "it passes", "succeeded": 9.5},
                                    {"family": "ipv4", "protocol": "tls", "wrong": "", "succeeded": 12.5}]},
              "addresses": {"ranges": 3, "in_kernel": 2, "packets": {"court": 6}},
              "impact": {"addresses": 70, "subscribers": 12, "replaced": 3, "lacking": 1, "saved": 99.5},
              "ledger": {"state": "failed", "records": 40, "waiting": 3, "late": 2, "lost": 1},
              "fetch": {"state": "running", "problem": "", "sources": {"court": {
                  "kind": "https", "version": '"1"', "bytes": 7, "every": 3600, "checked": 5, "began": 4,
                  "changed": 3, "failures": 2, "grave": True, "release": {
                      "ring": "early", "wanted": 17, "taken": 16, "waiting": "ring", "bad": [("targets", "15")],
                      "held": [("court", "3")]}}}},
              "orders": {"orders": 2, "items": {"taken": 0, "in force": 5}, "problem": ""},
              "capacity": {"entries": {"used": 9, "most": 10}, "addresses": {"used": 3, "most": 250_000}},
              "stage1": {"passed_hello": 8, "name": 2},
              **board.counters([0, 1]), "workers": {"0": worker, "1": worker},
              "latency": {name: board.histogram(name) for name in HISTOGRAMS}}
    return board, status, places


def reordered(matches):
    board, status, places = made(matches)
    return status, board, places


def samples(text):
    return [sample for family in text_string_to_metric_families(text.decode()) for sample in family.samples]


def test_the_exposition_is_as_the_conventions_say():
    board, status, places = made()
    text = exposition(status, board, places)
    found = samples(text)
    assert all(re.fullmatch(r"edgeblock_[a-z_]+", sample.name) for sample in found)
    values = {(sample.name, *sample.labels.values()): sample.value for sample in found}
    assert values["edgeblock_matches_total", "court", "reset"] == 2
    assert values["edgeblock_first_stage_packets_total", "passed_hello"] == 8
    assert values["edgeblock_impact_addresses", ] == 70 and values["edgeblock_impact_replaced", ] == 3
    assert values["edgeblock_verdict_seconds_count", ] == 2
    assert values["edgeblock_verdict_seconds_sum", ] == pytest.approx(4e-6)
    assert values["edgeblock_worker_up", "1"] == 1
    assert values["edgeblock_filtering", ] == 0 and values["edgeblock_restored_total", "rules"] == 2
    assert values["edgeblock_restore_failures_total", ] == 1
    assert values["edgeblock_canary_ok", "ipv6", "tls"] == 0 and values["edgeblock_canary_ok", "ipv4", "tls"] == 1
    assert values["edgeblock_canary_success_timestamp_seconds", "ipv4", "tls"] == 12.5
    assert values["edgeblock_address_ranges_in_kernel", ] == 2
    assert values["edgeblock_address_packets_total", "court"] == 6
    assert values["edgeblock_bypasses", "rule"] == 1 and values["edgeblock_bypasses", "flowtable"] == 0
    assert values["edgeblock_kernel_rule_bytes_total", "tcp_syn"] == 240
    assert values["edgeblock_rules_info", "ab" * 32] == 1
    assert values["edgeblock_fetch_up", ] == values["edgeblock_source_forged", "court"] == 1
    assert values["edgeblock_source_age_seconds", "court"] > 1e9 and values["edgeblock_source_failures", "court"] == 2
    assert values["edgeblock_rules_since_timestamp_seconds", ] == 1e9
    assert values["edgeblock_fetch_release_wanted", "early", "court"] == 17
    assert values["edgeblock_fetch_release_taken", "early", "court"] == 16
    assert values["edgeblock_fetch_release_waiting", "court", "ring"] == 1
    assert values["edgeblock_fetch_release_bad", "targets", "court", "15"] == 1
    assert values["edgeblock_fetch_release_held", "court", "court", "3"] == 1
    assert values["edgeblock_list_entries", "court"] == 5 and values["edgeblock_list_refused", "court"] == 1
    assert values["edgeblock_list_refused", "pages"] == values["edgeblock_rules_unreadable", ] == 0


def test_every_counter_has_its_series():
    """One that is new in the engine or the reader appears by itself."""
    board, status, places = made()
    found = {tuple(sample.labels.values()) for sample in samples(exposition(status, board, places))
             if sample.name in ("edgeblock_engine_events_total", "edgeblock_queue_events_total")}
    expected = {*boards.ENGINE_NAMES, *BOARD_NAMES} - {*boards.GAUGES, "bytes", *WORKER_COUNTERS}
    assert {name for (name,) in found} >= expected
    workers = {sample.name for sample in samples(exposition(status, board, places))}
    assert {f"{metric}_total" for metric, _ in WORKER_COUNTERS.values()} <= workers
    assert set(board.counters([0])["engine"]) == set(Engine(Matcher()).counters())


def test_every_metric_has_a_row_in_the_documentation_and_no_other_has():
    board, status, places = made()
    board.rows[0][boards.VISITS + places["court"]] = 1
    rows = [line for line in (FILES.parent / "monitoring.md").read_text().splitlines() if line.startswith("| `")]
    named = {word for row in rows for word in re.findall(r"`([^`]+)`", row.split(" | ")[0])}
    there = set()
    for family in text_string_to_metric_families(exposition(status, board, places).decode()):
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        end = {"counter": "_total", "info": "_info"}.get(family.type, "")
        name = family.name.removesuffix(end) + end
        there |= {name + ("{" + ",".join(sorted(labels)) + "}" if labels else "")} if family.samples else {
            one for one in named if one.partition("{")[0] == name}
    assert len(there) > 40
    assert named == there


def test_a_million_matches_are_as_many_series_as_one():
    assert len(samples(exposition(*reordered(1)))) == len(
        samples(exposition(*reordered(1_000_000))))


def test_lists_beyond_all_places_share_one():
    board = Board(1)
    places = board.give_places(f"list{number}" for number in range(boards.LISTS_MAX + 10))
    assert len(places) == boards.LISTS_MAX and places[boards.OTHERS] == boards.LISTS_MAX - 1
    assert len(set(places.values())) == len(places)


RULES = ("alerts.yml", "fleet-rules.yml")
DASHBOARDS = ("dashboard.json", "fleet.json")


def asked():
    for name in DASHBOARDS:
        for panel in json.loads((FILES / name).read_text())["panels"]:
            assert panel["title"] and panel["targets"] and panel["gridPos"]
            yield from (target["expr"] for target in panel["targets"])
    for name in RULES:
        yield from re.findall(r"^ +expr: (.+)$", (FILES / name).read_text(), re.MULTILINE)


def test_dashboards_and_rules_ask_for_what_there_is():
    board, status, places = made()
    board.rows[0][boards.VISITS + places["court"]] = 1
    there = {sample.name for sample in samples(exposition(status, board, places))}
    recorded = set(re.findall(r"- record: (\S+)", (FILES / "fleet-rules.yml").read_text()))
    expressions = list(asked())
    assert len(expressions) >= 60
    used = {name for expression in expressions for name in re.findall(r"edgeblock:[\w:]+", expression)}
    assert used == recorded
    for expression in expressions:
        plain = re.sub(r"edgeblock:[\w:]+", "", re.sub(r'"[^"]*"', "", expression))
        names = set(re.findall(r"[a-z_]{2,}", plain))
        assert names - FUNCTIONS - there == set(), expression
        assert expression.count("(") == expression.count(")")


PROMTOOL = shutil.which("promtool", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@pytest.mark.promtool
def test_prometheus_own_checker_has_nothing_to_say(tmp_path):
    """Of the exposition, of the alert rules, and of the dashboard's expressions, written down as rules."""
    def check(*words, **more):
        done = subprocess.run([PROMTOOL, "check", *words], capture_output=True, text=True, check=False, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    board, status, places = made()
    assert check("metrics", input=exposition(status, board, places).decode()) == ""
    for name in RULES:
        count = len(re.findall("- (?:alert|record): ", (FILES / name).read_text()))
        assert f"SUCCESS: {count} rules found" in check("rules", FILES / name)
    expressions = [one for one in asked() if "$__" not in one]
    rules = "".join(f"      - record: asked:{number}\n        expr: {json.dumps(one)}\n"
                    for number, one in enumerate(expressions))
    (tmp_path / "asked.yml").write_text(f"groups:\n  - name: asked\n    rules:\n{rules}")
    assert f"SUCCESS: {len(expressions)} rules found" in check("rules", tmp_path / "asked.yml")
    with pytest.raises(AssertionError, match="parse error"):
        (tmp_path / "asked.yml").write_text("groups: [{name: x, rules: [{record: a, expr: 'sum('}]}]\n")
        check("rules", tmp_path / "asked.yml")


def test_a_million_distinct_names_make_no_series_more():
    """All of them on one list, as a worker counts them."""
    board, status, places = made()
    with socket.socketpair()[0] as link, Journal(io.StringIO(), Privacy(), 0, summary=False) as journal:
        worker = Worker(Config(), journal, link, board)
        worker.row, worker.places = board.rows[0], places
        worker.base = list(worker.row[boards.ENGINE_REST:boards.MATCHED])
        worker.injector = SimpleNamespace(sent=0, failed=0)
        packet = bytes.fromhex("45" + "00" * 19)

        def seen(count):
            for number in range(count):
                name = Name("tls", f"{number}.listed.example", None, "reset", "court", f"{number:08x}")
                worker.decide(packet, Decision(False, names=(name,)))
            return exposition(status | board.counters([0, 1]), board, places)
        one, million = seen(1), seen(1_000_000)
    assert [(one.name, one.labels) for one in samples(million)] == [(one.name, one.labels) for one in samples(one)]
    values = {(sample.name, *sample.labels.values()): sample.value for sample in samples(million)}
    assert values["edgeblock_matches_total", "court", "reset"] == 1_000_003
    assert b"listed" not in million


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_it_answers_over_http(tmp_path, kind):
    listen = "127.0.0.1:19477" if kind == "tcp" else str(tmp_path / "metrics.sock")

    async def some():
        return b"some 1\n"

    async def ask(question):
        server = MetricsServer(listen, some)
        await server.open()
        try:
            if kind == "tcp":
                with pytest.raises(SystemProblem, match="metrics.listen"):
                    await MetricsServer(listen, some).open()
            reader, writer = await (asyncio.open_connection("127.0.0.1", 19477) if kind == "tcp"
                                    else asyncio.open_unix_connection(listen))
            writer.write(question)
            answer = await reader.read()
            writer.close()
            return answer
        finally:
            await server.close()

    answer = uvloop.run(ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"\r\n\r\nsome 1\n")
    assert uvloop.run(ask(b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
    assert uvloop.run(ask(b"POST /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 405 ")
    assert not Path(listen).exists()


def test_a_crowd_at_the_metrics_takes_no_more_than_its_share(tmp_path):
    """Everybody on the machine may connect, and each would cost the supervisor a descriptor, for seconds; and
    Prometheus was kept out by whoever connected and said nothing."""
    listen = str(tmp_path / "metrics.sock")

    async def some():
        return b"some 1\n"

    async def crowd():
        server = MetricsServer(listen, some)
        await server.open()
        silent = [await asyncio.open_unix_connection(listen) for _ in range(ASKING_MAX + 5)]
        for reader, _ in silent[:5]:
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        while len(server.asking) > ASKING_MAX:       # the last of them is on its way out
            await asyncio.sleep(0)
        assert len(server.asking) == ASKING_MAX
        reader, writer = await asyncio.open_unix_connection(listen)
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert (await reader.read()).endswith(b"some 1\n")
        writer.close()
        for _, writer in silent:
            writer.close()
        while server.asking:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_unix_connection(listen)
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert (await reader.read()).endswith(b"some 1\n")
        writer.close()
        await server.close()

    uvloop.run(crowd())


def test_who_does_not_read_keeps_nobody_out(tmp_path):
    """Whoever had asked and read nothing was kept for seconds, and everybody who came after was let go."""
    listen = str(tmp_path / "metrics.sock")
    made = []

    async def large():
        made.append(0)
        await asyncio.sleep(0)
        return b"x" * 4_000_000

    async def crowd():
        server = MetricsServer(listen, large)
        await server.open()
        sockets = []
        for _ in range(ASKING_MAX):
            one = socket.socket(socket.AF_UNIX)
            one.connect(listen)
            one.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            sockets.append(one)
        while len(server.reading) < ASKING_MAX:
            await asyncio.sleep(0.01)
        before = len(made)
        reader, writer = await asyncio.open_unix_connection(listen)
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert len((await reader.read()).partition(b"\r\n\r\n")[2]) == 4_000_000
        writer.close()
        for one in sockets:
            one.close()
        await server.close()
        return before

    assert uvloop.run(crowd()) < ASKING_MAX


def test_all_who_ask_at_once_have_one_answer(tmp_path):
    """Of ten thousand lists it takes a while, and the watchdog waits."""
    listen = str(tmp_path / "metrics.sock")
    made = []

    async def slow():
        made.append(0)
        await asyncio.sleep(0.3)
        return b"some 1\n"

    async def ask():
        reader, writer = await asyncio.open_unix_connection(listen)
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer

    async def crowd():
        server = MetricsServer(listen, slow)
        await server.open()
        answers = await asyncio.gather(*(ask() for _ in range(ASKING_MAX)))
        await server.close()
        return answers

    assert all(answer.endswith(b"some 1\n") for answer in uvloop.run(crowd()))
    assert len(made) < ASKING_MAX // 2


def test_who_reads_late_gets_the_whole_answer():
    """Whatever of it is still here when the kernel takes no more."""
    async def ask(size):
        async def some():
            return b"x" * size

        server = MetricsServer("127.0.0.1:19478", some)
        await server.open()
        with socket.socket() as late:
            late.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            late.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(late, ("127.0.0.1", 19478))
            await loop.sock_sendall(late, b"GET /metrics HTTP/1.1\r\n\r\n")
            await asyncio.sleep(0.05)
            whole = b""
            while part := await loop.sock_recv(late, 1 << 16):
                whole += part
        await server.close()
        return len(whole.partition(b"\r\n\r\n")[2])

    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as late:
        late.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        late.connect(server.getsockname())
        sender, _ = server.accept()
        with sender:
            sender.setblocking(False)
            room = 0                # that the kernel has for somebody who does not read
            with suppress(BlockingIOError):
                while True:
                    room += sender.send(bytes(1 << 20))
    for size in (room // 2, room + 20_000, room + 40_000, 2 * room):
        assert uvloop.run(ask(size)) == size
