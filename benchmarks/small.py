"""What a daemon with a list of ten names takes: memory of its processes, and processor time and time of a start.

    sudo .venv/bin/python -m benchmarks.small [--rounds N]

Prints a JSON object for each start: seconds until it says that it is ready, seconds of the processor that all its
processes have used by then, and MiB of each process once the first rules have been tried (PSS: what several share is
shared out among them; without the kernel's BPF maps, which `maps` has). The first start, which finds no state of an
earlier one and may have no bytecode beside the sources, is printed as such.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from edgeblock.lab import Daemon, Lab, until
from tests.live.running import children
from tests.memory import family, processor_time, proportional, told

MIB = 1 << 20
WAITING = 10 * MIB      # a process that waits for lists takes less, one that tries them more
CONFIG = '[rules]\ndirectory = "{home}/rules"\nkey = "{home}/state/key"\n'


def settled(daemon: Daemon) -> bool:
    pid = daemon.process.pid
    return len(children(pid, "edgeblock.daemon.worker")) == 2 and [
        proportional(one) < WAITING for one in children(pid, "edgeblock.daemon.compiling")] == [True]


def mapped(pid: int) -> int:
    """Bytes of the kernel's BPF maps that a process has mapped."""
    sizes, counted = 0, False
    for line in told(f"/proc/{pid}/smaps").splitlines():
        words = line.split()
        if "-" in words[0]:
            counted = "bpf" in words[-1]
        elif words[0] == "Size:" and counted:
            sizes += int(words[1]) << 10
    return sizes


def start(lab: Lab, config: str) -> dict[str, object]:
    began = time.monotonic()
    daemon = lab.start_daemon(config)
    try:
        seconds = time.monotonic() - began
        pids = family(daemon.process.pid)
        spent = sum(map(processor_time, pids))
        if not until(lambda: settled(daemon), 30):
            raise SystemExit("the daemon is not at rest after 30 s")
        taken: dict[str, list[float]] = {}
        for pid in family(daemon.process.pid):
            words = told(f"/proc/{pid}/cmdline").split("\0")
            name = next((word for word in words if word.startswith("edgeblock.daemon.")),
                        "supervisor" if pid == daemon.process.pid else "programs")
            taken.setdefault(name.rpartition(".")[2], []).append(round(proportional(pid) / MIB, 1))
        return {"ready_s": round(seconds, 3), "processor_s": round(spent, 2), "pss_mib": taken,
                "pss_all_mib": round(sum(map(sum, taken.values())), 1),
                "maps_mib": round(max(map(mapped, family(daemon.process.pid))) / MIB, 1)}
    finally:
        daemon.stop()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=9)
    chosen = options.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as home, Lab() as lab:
        rules = Path(home, "rules")
        rules.mkdir()
        (rules / "court.list").write_text("".join(f"name{number}.example\n" for number in range(10)))
        for number in range(chosen.rounds + 1):
            print(json.dumps({"first": not number, **start(lab, CONFIG.format(home=home))}), flush=True)


if __name__ == "__main__":
    main()
