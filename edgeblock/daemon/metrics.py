"""What Prometheus is told: the daemon's counters under the names that its conventions ask for.

In: the answer to `status` and the board. Out: the text exposition, over HTTP or TLS, to whom door.py admits. The
number of series is bounded by the number of lists, workers and counters. Never here: a name, or an address.
"""

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from edgeblock.core.decision import LIST_ACTIONS
from edgeblock.daemon.board import GAUGES, LISTS_MAX, VISITS, Board, matched_at
from edgeblock.daemon.door import OPEN, Door
from edgeblock.errors import SystemProblem
from edgeblock.netfilter.bypass import KINDS
from edgeblock.source.counters import BOARD_NAMES, BUCKET_SECONDS

PATIENCE = 5.0          # seconds for the other side to ask, and to read
HEAD_MAX = 8192         # bytes of a request's head
ASKING_MAX = 32         # connections at a time; one more takes the place of the one that has been silent longest
PAUSE = 0.1             # seconds until it is tried again where a connection could not be taken
TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Figures of a worker, as `status` names them: metric, help.
WORKER_COUNTERS = {
    "packets": ("edgeblock_queue_packets", "Packets that a worker has received from its queue."),
    "passed": ("edgeblock_packets_passed", "Packets that a worker has let pass."),
    "dropped": ("edgeblock_packets_dropped", "Packets that a worker has dropped."),
    "lost": ("edgeblock_queue_lost_packets", "Packets never delivered because the worker was too slow: passed unseen "
                                             "with overload = open, dropped with closed."),
    "full": ("edgeblock_queue_full_packets", "Packets that the kernel dropped because the queue was at its length."),
    "restarts": ("edgeblock_worker_restarts", "Times that a worker was replaced."),
    "hangs": ("edgeblock_worker_hangs", "Times that a worker was killed because it no longer answered."),
}
WORKER_GAUGES = {
    "waiting": ("edgeblock_queue_depth_packets", "Packets that wait in the kernel's queue."),
    "kernel_dropped": ("edgeblock_kernel_queue_dropped_packets",
                       "The kernel's queue_dropped of the queue as it is bound now."),
    "user_dropped": ("edgeblock_kernel_user_dropped_packets",
                     "The kernel's user_dropped of the queue as it is bound now."),
    "flows": ("edgeblock_flows", "Connections that a worker remembers."),
    "bytes": ("edgeblock_flow_memory_bytes", "Bytes of connections' beginnings that a worker remembers."),
    "beat": ("edgeblock_worker_heartbeat_age_seconds", "Seconds since a worker's packet path last answered."),
}
HISTOGRAMS = {
    "judge": ("edgeblock_judge_seconds", "Time to judge a packet (one in 64 is timed)."),
    "lookup": ("edgeblock_lookup_seconds", "Time to judge a packet that completed a name, its look-up included "
                                           "(one in 64 is timed)."),
    "verdict": ("edgeblock_verdict_seconds", "Time from receiving a packet until its batch's verdicts are sent "
                                             "(of batches with a timed packet)."),
}

# Of each source of lists: metric, help, and what it is of a row of edgeblock-fetch's status, now.
SOURCE_GAUGES: tuple[tuple[str, str, Callable[[dict[str, Any], float], float]], ...] = (
    ("age_seconds", "Seconds since a source has answered last; since it is asked, where it never has.",
     lambda one, now: max(0.0, now - (one["checked"] or one["began"]))),
    ("interval_seconds", "Seconds after which it is asked again, where all is well.", lambda one, _: one["every"]),
    ("success_timestamp_seconds", "When it has answered last; 0 is never.", lambda one, _: one["checked"]),
    ("changed_timestamp_seconds", "When something of it landed last; 0 is never.", lambda one, _: one["changed"]),
    ("failures", "Times that it has failed since it answered.", lambda one, _: one["failures"]),
    ("forged", "1 while what it sends cannot be genuine.", lambda one, _: int(one["grave"])),
    ("bytes", "Bytes of its files in the rules directory.", lambda one, _: one["bytes"]),
)


class Exposition:
    """One answer, as a collector of prometheus_client."""

    def __init__(self, status: dict[str, Any], board: Board, places: dict[str, int]) -> None:
        self.status = status
        self.board = board
        self.places = places

    def collect(self) -> Iterator[Metric]:
        """Every metric there is."""
        status = self.status
        yield InfoMetricFamily("edgeblock_build", "The version that runs.", {"version": status["version"]})
        yield InfoMetricFamily("edgeblock_rules", "The snapshot in force, to compare boxes.",
                               {"digest": status["rules_digest"]})
        rules = status["rules"]
        yield from self._vigil(status.get("vigil", {}), status.get("addresses", {}).get("restored", 0))
        yield from self._addresses(status.get("addresses", {}))
        yield from self._impact(status.get("impact", {}))
        yield from self._counts(status.get("counts", {}))
        yield from self._orders(status.get("orders", {}), status.get("capacity", {}))
        yield from self._canary(status.get("canary", {}))
        yield from self._selfcheck(status.get("selfcheck", {}))
        yield from self._ledger(status.get("ledger", {}))
        yield from self._sources(status.get("fetch", {}))
        yield GaugeMetricFamily("edgeblock_uptime_seconds", "Seconds since the daemon started.", status["uptime"])
        yield GaugeMetricFamily("edgeblock_rules_age_seconds", "Seconds since the rules in force were loaded.",
                                status["rules_age"])
        yield GaugeMetricFamily("edgeblock_rules_since_timestamp_seconds", "When the rules came into force on the "
                                "box; a restart with the same ones does not change it.", status["rules_since"])
        yield GaugeMetricFamily("edgeblock_rules_lists", "Lists in force.", rules["lists"])
        yield GaugeMetricFamily("edgeblock_rules_entries", "Entries in force.", rules["entries"])
        loads = CounterMetricFamily("edgeblock_rules_loads", "Loads of the lists, by how they ended.",
                                    labels=["result"])
        for result in ("loaded", "refused"):
            loads.add_metric([result], rules[result])
        yield loads
        yield from self._lists()
        yield from self._workers()
        matched = CounterMetricFamily("edgeblock_matches", "Names that a list or a policy matched, by verdict.",
                                      labels=["list", "verdict"])
        for name, place in sorted(self.places.items()):
            for i, action in enumerate(LIST_ACTIONS):
                if count := sum(row[matched_at(place, i)] for row in self.board.rows):
                    matched.add_metric([name, action], count)
        yield matched
        visits = CounterMetricFamily("edgeblock_visits", "What a list or a policy matched; what one subscriber asks "
                                     "of one rule within 100 seconds counts once.", labels=["list"])
        for name, place in sorted(self.places.items()):
            if count := sum(row[VISITS + place] for row in self.board.rows):
                visits.add_metric([name], count)
        yield visits
        engine = CounterMetricFamily("edgeblock_engine_events", "What the engine has counted, as in docs/limits.md.",
                                     labels=["event"])
        for name, count in status["engine"].items():
            if name not in GAUGES:
                engine.add_metric([name], count)
        yield engine
        queue = CounterMetricFamily("edgeblock_queue_events", "What the readers of the queues have counted.",
                                    labels=["event"])
        for name in BOARD_NAMES[BOARD_NAMES.index("marked"):]:
            queue.add_metric([name], status["queue"][name])
        yield queue
        first = CounterMetricFamily("edgeblock_first_stage_packets", "Packets that the first stage in the kernel has "
                                    "looked at: passed (passed_...), carried past the "
                                    "kernel rules, or queued, and why.", labels=["outcome"])
        for name, count in status["stage1"].items():
            first.add_metric([name], count)
        yield first
        for what in ("packets", "bytes"):
            kernel = CounterMetricFamily(f"edgeblock_kernel_rule_{what}",
                                         f"{what.capitalize()} in each kernel rule since it was applied.",
                                         labels=["rule"])
            for name, seen in status["kernel_rules"].items():
                kernel.add_metric([name], seen[what])
            yield kernel
        sent = CounterMetricFamily("edgeblock_replies", "Packets of answers, by whether they could be sent.",
                                   labels=["result"])
        for result in ("sent", "failed"):
            sent.add_metric([result], status["replies"][result])
        yield sent
        yield CounterMetricFamily("edgeblock_log_suppressed_lines", "Lines about blocks over the log's limits.",
                                  status["log"]["unlogged"])
        yield CounterMetricFamily("edgeblock_log_lost_lines", "Lines that nobody was there to read.",
                                  status["log"]["lost"])
        for name, (metric, text) in HISTOGRAMS.items():
            counts, total = self.board.histogram(name)
            buckets, seen = [], 0
            for bound, count in zip([*map(repr, BUCKET_SECONDS), "+Inf"], counts, strict=True):
                seen += count
                buckets.append((bound, seen))
            yield HistogramMetricFamily(metric, text, buckets, total)

    def _vigil(self, vigil: dict[str, Any], addresses: int) -> Iterator[Metric]:
        yield GaugeMetricFamily("edgeblock_filtering", "1 while the box filters, 0 while it does not, wholly or in "
                                "part; `edgeblock status` says why.", bool(vigil.get("filtering")))
        restored = CounterMetricFamily("edgeblock_restored", "Times that something of the daemon's in the kernel was "
                                       "taken away by others and put back.", labels=["what"])
        for what, count in [*vigil.get("restored", {}).items(), ("addresses", addresses)]:
            restored.add_metric([what], count)
        yield restored
        yield CounterMetricFamily("edgeblock_restore_failures", "Tries to put it back that failed.",
                                  vigil.get("failed", 0))
        ways = GaugeMetricFamily("edgeblock_bypasses", "Ways past the kernel rules that were found on this machine.",
                                 labels=["kind"])
        for kind in KINDS:
            ways.add_metric([kind], sum(one["kind"] == kind for one in vigil.get("bypasses", ())))
        yield ways

    def _addresses(self, addresses: dict[str, Any]) -> Iterator[Metric]:
        yield GaugeMetricFamily("edgeblock_address_ranges", "Ranges of addresses, and addresses with a port, that "
                                "lists say something of.", addresses.get("ranges", 0))
        yield GaugeMetricFamily("edgeblock_address_ranges_in_kernel", "Those of them that are in the kernel's rules.",
                                addresses.get("in_kernel", 0))
        yield GaugeMetricFamily("edgeblock_address_entries_of_some_clients", "Address entries of lists for some "
                                "clients, which hold on the watched ports only.", addresses.get("of_some_clients", 0))
        met = CounterMetricFamily("edgeblock_address_packets", "Packets that met an address entry in the kernel, by "
                                  "list.", labels=["list"])
        for name, count in addresses.get("packets", {}).items():
            met.add_metric([name], count)
        yield met

    def _orders(self, orders: dict[str, Any], capacity: dict[str, dict[str, int]]) -> Iterator[Metric]:
        yield GaugeMetricFamily("edgeblock_orders", "Orders that are answered.", orders.get("orders", 0))
        items = GaugeMetricFamily("edgeblock_order_items", "Items of orders, by what they are answered with.",
                                  labels=["state"])
        for state, count in orders.get("items", {}).items():
            items.add_metric([state], count)
        yield items
        yield GaugeMetricFamily("edgeblock_orders_unanswered", "1 while the answer to an order cannot be written.",
                                int(bool(orders.get("problem"))))
        for name, text in (("used", "What is in use: entries of the longest list, ranges of addresses, lists."),
                           ("most", "The most of it: entries of a list, ranges in the kernel's rules, lists.")):
            family = GaugeMetricFamily(f"edgeblock_capacity_{name}", text, labels=["what"])
            for what, one in capacity.items():
                family.add_metric([what], one[name])
            yield family

    def _counts(self, counts: dict[str, Any]) -> Iterator[Metric]:
        yield GaugeMetricFamily("edgeblock_counts_unwritten", "1 while the counts that last cannot be written.",
                                int(bool(counts.get("problem"))))
        yield GaugeMetricFamily("edgeblock_counts_saved_timestamp_seconds", "When they were written last; 0 is "
                                "never.", counts.get("saved", 0))
        yield CounterMetricFamily("edgeblock_counts_lost", "Blocks that are in no count that lasts, for want of "
                                  "room.", counts.get("lost", 0))

    def _impact(self, impact: dict[str, Any]) -> Iterator[Metric]:
        for name, metric, text in (
                ("addresses", "addresses", "Destination addresses of the day of which names, connections and "
                                           "subscribers are counted."),
                ("subscribers", "subscribers", "Subscribers that were seen in the day, estimated."),
                ("replaced", "replaced", "Addresses of the day that had to go for others."),
                ("lacking", "lacking", "Times in the day that a name or a subscriber was not counted for want of "
                                       "room."),
                ("saved", "saved_timestamp_seconds", "When that was saved last; 0 is never.")):
            yield GaugeMetricFamily(f"edgeblock_impact_{metric}", text, impact.get(name, 0))

    def _canary(self, canary: dict[str, Any]) -> Iterator[Metric]:
        ok = GaugeMetricFamily("edgeblock_canary_ok", "1 while the daemon's own probes show that a name on a list is "
                               "blocked and another passes.", labels=["family", "protocol"])
        last = GaugeMetricFamily("edgeblock_canary_success_timestamp_seconds", "When they have shown it last; 0 is "
                                 "never.", labels=["family", "protocol"])
        for one in canary.get("probes", ()):
            ok.add_metric([one["family"], one["protocol"]], not one["wrong"])
            last.add_metric([one["family"], one["protocol"]], one["succeeded"])
        yield ok
        yield last

    def _selfcheck(self, proof: dict[str, Any]) -> Iterator[Metric]:
        for name, metric, text in (
                ("tried", "tried", "Times that an entry of the rules in force was tried behind a disguise before, or "
                                   "just after, they came into force."),
                ("held", "held", "Times of those that it was blocked or reported as its list says."),
                ("over_blocked", "overblocked", "Times that a neighbour, which no list has, was blocked.")):
            yield GaugeMetricFamily(f"edgeblock_selfcheck_{metric}", text, proof.get(name, 0))
        yield GaugeMetricFamily("edgeblock_selfcheck_ok", "1 while nothing that was tried of the rules in force has "
                                "failed; 0 also where nothing was tried.", proof.get("state") == "ok")
        yield CounterMetricFamily("edgeblock_selfcheck_refused", "Times that new rules were refused because they "
                                  "did not hold.", proof.get("refused", 0))

    def _ledger(self, ledger: dict[str, Any]) -> Iterator[Metric]:
        yield GaugeMetricFamily("edgeblock_ledger_ok", "1 while the ledger is written, or off in the settings; 0 "
                                "while it cannot be.", ledger.get("state") != "failed")
        for name, text in (("records", "Records in the ledger, since it was begun."),
                           ("late", "Records that were written late, since the daemon began."),
                           ("lost", "Records that could not be written at all, since the daemon began.")):
            yield CounterMetricFamily(f"edgeblock_ledger_{name}", text, ledger.get(name, 0))
        yield GaugeMetricFamily("edgeblock_ledger_waiting", "Records that wait for the disk.",
                                ledger.get("waiting", 0))

    def _sources(self, fetch: dict[str, Any]) -> Iterator[Metric]:
        up = GaugeMetricFamily("edgeblock_fetch_up", "1 while edgeblock-fetch runs, 0 where it has gone, or has to "
                               "be there and is not.")
        if fetch.get("state", "none") != "none":
            up.add_metric([], fetch["state"] == "running")
        yield up
        now, sources = time.time(), fetch.get("sources", {})
        info = InfoMetricFamily("edgeblock_source", "The version of what a source of lists has brought.",
                                labels=["source"])
        for name, one in sources.items():
            info.add_metric([name], {"kind": one["kind"], "version": one["version"]})
        yield info
        for metric, text, value in SOURCE_GAUGES:
            family = GaugeMetricFamily(f"edgeblock_source_{metric}", text, labels=["source"])
            for name, one in sources.items():
                family.add_metric([name], value(one, now))
            yield family
        yield from self._releases({name: one["release"] for name, one in sources.items() if "release" in one})

    def _releases(self, sources: dict[str, dict[str, Any]]) -> Iterator[Metric]:
        for what, text in (("taken", "The operator's own release that is here; 0 is none."),
                           ("wanted", "The newest that is not withdrawn; 0 where there is none.")):
            family = GaugeMetricFamily(f"edgeblock_fetch_release_{what}", text, labels=["source", "ring"])
            for name, one in sources.items():
                family.add_metric([name, one["ring"]], one[what])
            yield family
        waiting = GaugeMetricFamily("edgeblock_fetch_release_waiting", "1 for why the newest release is not here: "
                                    "its ring is not due, it is held, the box is not well, it is bad.",
                                    labels=["source", "why"])
        for name, one in sources.items():
            if one["waiting"]:
                waiting.add_metric([name, one["waiting"]], 1)
        yield waiting
        for what, text in (("bad", "1 for each release that this box has given up."),
                           ("held", "1 for each release that its publisher holds.")):
            family = GaugeMetricFamily(f"edgeblock_fetch_release_{what}", text,
                                       labels=["source", "authority", "version"])
            for name, one in sources.items():
                for authority, version in one[what]:
                    family.add_metric([name, authority, version], 1)
            yield family

    def _lists(self) -> Iterator[Metric]:
        entries = GaugeMetricFamily("edgeblock_list_entries", "Entries in force, by list.", labels=["list"])
        refused = GaugeMetricFamily("edgeblock_list_refused", "1 while the file of the list is refused; the version "
                                    "before it, if any, is in force.", labels=["list"])
        for name, one in sorted(self.status["lists"].items())[:LISTS_MAX]:
            entries.add_metric([name], one["entries"])
            refused.add_metric([name], bool(one["refused"]))
        yield entries
        yield refused
        yield GaugeMetricFamily("edgeblock_rules_unreadable", "1 while the rules directory cannot be looked at, or "
                                "no snapshot be made.", bool(self.status["rules_problem"]))

    def _workers(self) -> Iterator[Metric]:
        workers = self.status["workers"]
        up = GaugeMetricFamily("edgeblock_worker_up", "1 while a worker serves the queue.", labels=["queue"])
        for queue, one in workers.items():
            up.add_metric([queue], one["state"] == "running")
        yield up
        for kind, table in ((CounterMetricFamily, WORKER_COUNTERS), (GaugeMetricFamily, WORKER_GAUGES)):
            for key, (metric, text) in table.items():
                family = kind(metric, text, labels=["queue"])
                for queue, one in workers.items():
                    family.add_metric([queue], one[key])
                yield family


def exposition(status: dict[str, Any], board: Board, places: dict[str, int]) -> bytes:
    """The text that Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(Exposition(status, board, places))        # type: ignore[arg-type]
    return generate_latest(registry)


class MetricsServer:
    """Answers GET /metrics while it is open; `listen` is "HOST:PORT" or the path of a socket."""

    def __init__(self, listen: str, answer: Callable[[], Awaitable[bytes]], door: Door = OPEN) -> None:
        self.listen = listen
        self.answer = answer
        self.door = door
        self.accepting: asyncio.Future[None] | None = None
        self.asking: set[asyncio.Future[None]] = set()           # one task a connection
        self.silent: dict[asyncio.Future[None], None] = {}       # that have not asked yet, in the order they came
        self.reading: dict[asyncio.Future[None], None] = {}      # that have been answered and have not read all of it
        self.making: asyncio.Future[bytes] | None = None         # an answer, for all who have asked meanwhile

    async def open(self) -> None:
        """Raises SystemProblem where the address cannot be had."""
        try:
            listener = _listen(self.listen)
        except OSError as problem:
            raise SystemProblem(f"metrics.listen: {self.listen}: cannot be listened on: "
                                f"{problem.strerror or problem}; set another address") from None
        self.accepting = asyncio.ensure_future(self._accept(listener))

    async def close(self) -> None:
        if self.accepting is not None:
            ending = [self.accepting, *self.asking]
            self.accepting = None
            for one in ending:
                one.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            if self.listen.startswith("/"):
                with suppress(OSError):     # it or its directory has been taken away, or may not be changed any more
                    Path(self.listen).unlink()

    async def _accept(self, listener: socket.socket) -> None:
        # Not asyncio's server: it would hold whatever connects and never finishes its TLS handshake, without a bound.
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError:         # gone already, or no descriptor is left
                    await asyncio.sleep(PAUSE)
                    continue
                if len(self.asking) >= ASKING_MAX:
                    # Else whoever may connect, and says nothing, or does not read, keeps everybody out.
                    idle = self.silent or self.reading
                    longest = next(iter(idle), None)
                    if longest is None:
                        connection.close()
                        continue
                    del idle[longest]
                    longest.cancel()
                task = asyncio.ensure_future(self._talk(connection))
                self.asking.add(task)
                self.silent[task] = None
                task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Future[None]) -> None:
        self.asking.discard(task)
        self.silent.pop(task, None)
        self.reading.pop(task, None)

    async def _talk(self, connection: socket.socket) -> None:
        task = asyncio.current_task()
        assert task is not None
        reader = asyncio.StreamReader(HEAD_MAX)
        protocol = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        closing: Callable[[], None] = connection.close
        try:
            transport, _ = await asyncio.wait_for(loop.connect_accepted_socket(
                lambda: protocol, connection, ssl=self.door.context), PATIENCE)
            closing = transport.abort       # what is closed is closed; nothing waits for one that does not read
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
            self.silent.pop(task, None)
            method, target = (head.split(b" ", 2) + [b""])[:2]
            if not self.door.admits(head):
                status, body = "401 Unauthorized\r\nWWW-Authenticate: Bearer", b"a bearer token is needed\n"
            elif method not in (b"GET", b"HEAD"):
                status, body = "405 Method Not Allowed", b"GET only\n"
            elif target.partition(b"?")[0] != b"/metrics":
                status, body = "404 Not Found", b"see /metrics\n"
            else:
                status, body = "200 OK", await self._made()
            if transport.is_closing():     # it went away meanwhile; uvloop would raise
                return
            self.reading[task] = None
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            transport.set_write_buffer_limits(0)     # else drain would not wait for the end of the answer
            writer.write(f"HTTP/1.1 {status}\r\nContent-Type: {TYPE}\r\nContent-Length: {len(body)}\r\n"
                         "Connection: close\r\n\r\n".encode() + (body if method != b"HEAD" else b""))
            await asyncio.wait_for(writer.drain(), PATIENCE)
            writer.close()
            await asyncio.wait_for(writer.wait_closed(), PATIENCE)      # TLS says good-bye
        except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return              # it went away, asked too much or nothing at all
        finally:
            closing()

    async def _made(self) -> bytes:
        # One for all: of ten thousand lists it takes a fifth of a second, and the watchdog waits for its turn.
        if self.making is None or self.making.done():
            self.making = asyncio.ensure_future(self.answer())
        return await asyncio.shield(self.making)


def _listen(listen: str) -> socket.socket:
    """Raises OSError."""
    if listen.startswith("/"):
        path = Path(listen)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if path.is_socket():
            path.unlink()       # left by one that was killed
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o117)  # its group may ask: Prometheus is added to it
        try:
            made.bind(listen)
        except OSError:
            made.close()
            raise
        finally:
            os.umask(mask)
        made.listen()
    else:
        host, _, port = listen.rpartition(":")
        host = host.strip("[]")
        made = socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.setblocking(False)
    return made
