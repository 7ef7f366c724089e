"""A daemon with a list of ten names, as most are at home: how much memory it takes, and what a start costs."""

from pathlib import Path

import pytest

from edgeblock.lab import Lab, until
from tests.live.running import children, settings_file
from tests.memory import family, processor_time, proportional

pytestmark = [pytest.mark.live, pytest.mark.alone]

MEMORY = 80 << 20       # bytes of supervisor, worker, spare, and the one that waits for lists: 74 to 79 MiB
WAITING = 10 << 20      # of the last of these alone
START = 2.0             # seconds of the processor until it is ready: 0.8 to 1.2 at a load average of 4 to 10


def test_ten_names_take_little(bare_lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As the package has it: with bytecode beside the sources.
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "bytecode"))
    config = settings_file(tmp_path, "").read_text()
    (tmp_path / "rules" / "court.list").write_text("".join(f"name{number}.example\n" for number in range(10)))
    bare_lab.start_daemon(config).stop()
    daemon = bare_lab.start_daemon(config)
    try:
        pid = daemon.process.pid
        spent = sum(map(processor_time, family(pid)))
        # The process that has compiled the lists goes on trying them for some seconds, then another one waits.
        assert until(lambda: len(children(pid, "edgeblock.daemon.worker")) == 2 and [
            proportional(one) < WAITING for one in children(pid, "edgeblock.daemon.compiling")] == [True], 20)
        taken = {one: proportional(one) for one in family(pid)}
        assert sum(taken.values()) < MEMORY, taken
        assert spent < START
    finally:
        daemon.stop()
