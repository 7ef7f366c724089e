"""An engine that is broken on purpose, in the process that compiles lists alone: its rules never come into force.

In: a module on the Python path of the test's daemon, which has no such door itself. Out: what is blocked, and what
log, status and metrics say of it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import Running, start

from edgeblock.asking import ask
from edgeblock.lab import Lab, call, page, until

pytestmark = pytest.mark.live

SOON = 40.0
# Where there is a file "broken" in the state directory the engine takes the first copy of each byte for the only one.
BREAKING = '''
import sys

if "edgeblock.daemon.compiling" in sys.orig_argv:
    import os
    from edgeblock import engine
    from edgeblock.core.decision import Decision

    right = engine.make_engine

    class Forgetful:
        def __init__(self, config, matcher):
            self.real, self.seen = right(config, matcher), {}
            self.counters = self.real.counters

        def judge(self, packet, now, flags=0):
            head = 40 if packet[0] >> 4 == 6 else 20
            if packet[9 if head == 20 else 6] == 6:
                data = packet[head + (packet[head + 12] >> 4) * 4:]
                at = int.from_bytes(packet[head + 4:head + 8], "big")
                known = self.seen.setdefault(packet[8:head + 4], {})
                if any([known.setdefault(at + i, byte) != byte for i, byte in enumerate(data)]):
                    return Decision(True)
            return self.real.judge(packet, now, flags)

    def make_engine(config, matcher, report=False):
        broken = os.path.exists(config.rules.key.parent / "broken")
        return Forgetful(config, matcher) if broken else right(config, matcher)

    engine.make_engine = make_engine
'''


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(BREAKING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    with Lab() as lab:
        # A busy machine has time, too, for a row that the fault is in.
        running = start(lab, tmp_path, f'[metrics]\nlisten = "{tmp_path}/metrics"\n', rules="self_check = 5.0\n")
        yield running
        assert running.daemon.stop() == 0, running.daemon.last_words()


def proof(running: Running) -> dict[str, Any]:
    told: dict[str, Any] = ask(running.daemon.config.parent / "control.sock", "status")["selfcheck"]
    return told


def events(running: Running, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in running.daemon.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


def is_blocked(running: Running, host: str) -> bool:
    seen = running.lab.fetch(f"https://{host}/")
    assert seen.exit in (35, 56) or seen.body == page(host)
    return seen.body != page(host)


def all_is_well(running: Running) -> bool:
    told = proof(running)
    return told["state"] == "ok" and told["lists"] == told["of"] > 0 and told["held"] == told["tried"] > 20 \
        and told["over_blocked"] == 0


def test_a_broken_window_never_gets_its_rules_into_force(box: Running):
    assert until(lambda: all_is_well(box), SOON), proof(box)
    assert is_blocked(box, "listed.example") and not is_blocked(box, "open.example")
    (box.rules.parent / "broken").touch()
    box.drop("new.list", "open.example\n")
    assert until(lambda: events(box, "rules not loaded; those in force stay"), SOON)
    problem = events(box, "rules not loaded; those in force stay")[0]["problem"]
    print(problem)
    assert "the rules were tried and do not hold: " in problem and "passes (" in problem
    told = proof(box)
    assert told["refused"] >= 1 and told["state"] == "ok" and told["over_blocked"] == 0
    assert is_blocked(box, "listed.example") and not is_blocked(box, "open.example")
    assert "open.example" not in box.daemon.log.read_text() + json.dumps(told)
    exposed = call(["curl", "-s", "--unix-socket", str(box.rules.parent / "metrics"), "http://box/metrics"]).stdout
    assert "edgeblock_selfcheck_ok 1.0" in exposed and "edgeblock_selfcheck_refused_total 0.0" not in exposed
    # Nobody touches the list again: it is read for a sample at each try, since its plain text is nowhere else.
    (box.rules.parent / "broken").unlink()
    assert until(lambda: is_blocked(box, "open.example"), SOON)
    assert until(lambda: all_is_well(box), SOON), proof(box)
    assert is_blocked(box, "listed.example") and not is_blocked(box, "example.com")
