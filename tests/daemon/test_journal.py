"""The log: what it says of a block, what it never says, and that nobody waits for it."""

import io
import json
import os
import threading

import pytest

from edgeblock.config import Privacy
from edgeblock.core.decision import Name
from edgeblock.daemon import journal
from edgeblock.daemon.journal import Journal
from edgeblock.errors import SystemProblem

IPV4 = bytes.fromhex("45000014000000004006000064400001cb007150")        # from 100.64.0.1
IPV6 = bytes.fromhex("60000000000006ff20010db8000100000000000000000002") + bytes(16)
BLOCKED = Name("http", "secret.example", "/page?q=1", "page", "court", "9f3c21aa")


def lines_of(privacy, rate, use):
    file = io.StringIO()
    with Journal(file, privacy, rate) as log:
        use(log)
    return [json.loads(line) for line in file.getvalue().splitlines()], log


def test_by_default_a_block_names_neither_the_name_nor_the_client():
    lines, _ = lines_of(Privacy(), 10, lambda log: [log.blocked(1.0, packet, [BLOCKED]) for packet in (IPV4, IPV6)])
    assert len(lines) == 2
    for line in lines:
        assert line.pop("time").endswith("Z")
        assert line == {"level": "info", "event": "blocked", "list": "court", "rule": "9f3c21aa", "action": "page",
                        "proto": "http"}


def test_the_action_is_what_is_done_for_an_address():
    [line], _ = lines_of(Privacy(), 10, lambda log: log.blocked(1.0, IPV4, [BLOCKED._replace(proto="ip")]))
    assert line["action"] == "reset"


@pytest.mark.parametrize("packet, client", [(IPV4, "100.64.0.1"), (IPV6, "2001:db8:1::2")])
def test_privacy_is_widened_key_by_key(packet, client):
    [line], _ = lines_of(Privacy(names=True), 10, lambda log: log.blocked(1.0, packet, [BLOCKED]))
    assert (line["host"], line["path"]) == ("secret.example", "/page?q=1") and "client" not in line
    [line], _ = lines_of(Privacy(clients=True), 10, lambda log: log.blocked(1.0, packet, [BLOCKED]))
    assert line["client"] == client and "host" not in line and "path" not in line


def test_what_belongs_to_a_visit_that_had_a_line_says_so():
    other = BLOCKED._replace(rule="1234abcd")
    lines, _ = lines_of(Privacy(), 10, lambda log: log.blocked(1.0, IPV4, [BLOCKED, other], [other]))
    assert [(line["rule"], line.get("again")) for line in lines] == [("9f3c21aa", None), ("1234abcd", True)]


def test_a_host_or_path_of_any_length_fits_into_a_line():
    """One that did not silenced the worker that had blocked it: the supervisor took no line of it any more."""
    long = BLOCKED._replace(host="\\xff" * 100_000, path="/" + "\\xff" * 100_000)
    [line], _ = lines_of(Privacy(names=True), 10, lambda log: log.blocked(1.0, IPV4, [long]))
    assert line["path"].startswith("/\\xff") and line["path"].endswith("...")
    assert len(json.dumps(line)) < 1 << 15


def test_without_a_thread_for_the_log_the_end_is_one_line(monkeypatch):
    def fail(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(SystemProblem, match="no thread is to be had for the log; allow more"), \
            Journal(io.StringIO(), Privacy(), 1):
        pass


def test_what_is_observed_is_said_and_what_passes_is_not():
    names = [BLOCKED._replace(action="observe"), BLOCKED._replace(action="accept")]
    [line], _ = lines_of(Privacy(), 10, lambda log: log.blocked(1.0, IPV4, names))
    assert (line["event"], line["action"]) == ("observed", "observe")


def test_a_flood_of_blocks_is_a_few_lines_and_a_count():
    def flood(log):
        for second in (1.0, 1.5, 2.0):
            for _ in range(40):
                log.blocked(second, IPV4, [BLOCKED])
        log.tick(3.0)
        log.tick(4.0)

    lines, log = lines_of(Privacy(), 5, flood)
    assert [line["event"] for line in lines] == ["blocked"] * 5 + ["blocks not logged"] + ["blocked"] * 5 + [
        "blocks not logged"]
    assert [line["count"] for line in lines if "count" in line] == [75, 35]
    assert log.unlogged == 110


def test_a_rate_of_zero_says_only_how_many():
    lines, _ = lines_of(Privacy(), 0, lambda log: [log.blocked(1.0, IPV4, [BLOCKED]), log.tick(2.0)])
    assert [(line["event"], line["count"]) for line in lines] == [("blocks not logged", 1)]


def test_hostile_names_stay_one_line_of_json():
    name = BLOCKED._replace(host='a"\n\x1b[2J\u2028\udcff', path="/\r\n{")
    [line], _ = lines_of(Privacy(names=True), 1, lambda log: log.blocked(1.0, IPV4, [name]))
    assert (line["host"], line["path"]) == (name.host, name.path)


def test_nobody_waits_for_a_reader_that_does_not_read(monkeypatch):
    monkeypatch.setattr(journal, "BACKLOG", 50)
    monkeypatch.setattr(journal, "LAST_WORDS", 0.05)
    reading, writing = os.pipe()
    with open(writing, "w") as file, open(reading, "rb") as reader:
        with Journal(file, Privacy(), 10) as log:
            for _ in range(2000):
                log.log.info("x" * 1000)
            assert log.lost > 1000
        # Only now is it read, so that the writing thread can end.
        taker = threading.Thread(target=reader.read)
        taker.start()
        log._thread.join(0.5)
        log.msg("")
        file.close()
        taker.join(10)
        assert not taker.is_alive()


def test_a_reader_that_has_gone_is_counted():
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError), open(writing, "w", buffering=1) as file:
        with Journal(file, Privacy(), 10) as log:
            log.log.info("nobody hears this")
        assert log.lost >= 1


def test_a_day_of_flood_fits_its_bound():
    """Two workers' lines at the full rate for a simulated day and into the next."""
    bound, line = 1_000_000, json.dumps({"event": "blocked", "list": "court", "rule": "9f3c21aa", "action": "page"})
    file = io.StringIO()
    with Journal(file, Privacy(), 20, day_bytes=bound) as log:
        for second in range(0, 86400, 4):
            log.relay(second + 0.5, line)
        first = log.over_day
        log.relay(86400.0, line)
    assert len(file.getvalue()) <= bound + len(line) + 1
    assert first == 86400 // 4 - bound // (len(line) + 1) and log.over_day == first


def test_only_for_the_journal_a_line_begins_with_its_priority(tmp_path, monkeypatch):
    ranks = {}
    for own in (True, False):
        with open(tmp_path / f"log-{own}", "w+") as file:
            state = os.fstat(file.fileno())
            monkeypatch.setenv("JOURNAL_STREAM", f"{state.st_dev}:{state.st_ino + (not own)}")
            with Journal(file, Privacy(), 10, day_bytes=1000) as log:
                log.log.error("rules refused")
                log.log.warning("first stage")
                log.log.info("started")
                log.relay(0.0, '{"time": "x", "level": "error", "event": "from a worker"}')
            file.seek(0)
            ranks[own] = [line.partition("{")[0] for line in file]
    assert ranks == {True: ["<3>", "<4>", "<6>", "<3>"], False: [""] * 4}


def test_the_order_by_which_something_is_blocked_is_said():
    ordered = BLOCKED._replace(order="No. 12\u2028" + "\U0001f600" * 256)
    lines, _ = lines_of(Privacy(), 10, lambda log: log.blocked(1.0, IPV4, [BLOCKED, ordered]))
    assert "order" not in lines[0] and lines[1]["order"].startswith("No. 12")
    assert len(json.dumps(lines[1])) < 1 << 13
