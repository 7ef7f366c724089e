"""What each process of a daemon imports: memory and time of a start are mostly that, on every box, day and night."""

import subprocess
import sys

import pytest

READERS = ("edgeblock.blocklist.formats", "edgeblock.blocklist.compiler", "edgeblock.blocklist.guard",
           "edgeblock.blocklist.refresh", "publicsuffixlist", "ijson", "zstandard")
NOBODY = ("rich", "pygments", "twisted", "better_exceptions", "cryptography", "scapy", "http.client", "email")


def imported(module: str, then: str = "") -> set[str]:
    done = subprocess.run([sys.executable, "-P", "-c", f"import {module}, sys\n{then}\nprint(*sys.modules)"],
                          capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(("module", "never"), [
    ("edgeblock.daemon.worker", (*NOBODY, *READERS, "nacl", "prometheus_client", "argparse", "pyseccomp")),
    ("edgeblock.daemon.begin", (*NOBODY, *READERS, "nacl", "prometheus_client", "edgeblock.netfilter")),
    ("edgeblock.daemon.supervisor", (*NOBODY, "nacl", "sqlite3", "pyroaring", "zstandard", "ijson",
                                     "prometheus_client", "pyseccomp", "edgeblock.daemon.job",
                                     "edgeblock.daemon.selfcheck", "edgeblock.blocklist.compiler",
                                     "edgeblock.blocklist.refresh")),
    ("edgeblock.daemon.compiling", (*NOBODY, *READERS, "asyncio", "edgeblock.config", "json", "pickle")),
    ("edgeblock.daemon.job", (*NOBODY, "nacl", "ijson", "asyncio", "structlog", "prometheus_client")),
])
def test_a_process_imports_nothing_that_it_does_not_need(module, never):
    assert imported(module).isdisjoint(never)


def test_who_keeps_no_ledger_and_no_counts_needs_nothing_for_them(tmp_path):
    """And who does has it; the ledger's thread needs it with the first look at its key."""
    def needs(*on):
        then = ("from edgeblock.config import Config, Ledger, Report, Rules; from pathlib import Path\n"
                "from edgeblock.daemon.supervisor import Counts, Recorder\n"
                f"config = Config(Rules(key=Path({str(tmp_path)!r}) / 'state' / 'key'), "
                f"ledger=Ledger(enabled={'ledger' in on}), report=Report(enabled={'counts' in on}))\n"
                "sources = [None] * 6 + [lambda: (0, 0), None]\n"
                "from edgeblock.daemon.ledger import Sources; one = Recorder(config, None, Sources(*sources))\n"
                "Counts(config, None); one.begin(); one.ledger and one.ledger.flush(9)\n")
        return imported("edgeblock.daemon.supervisor", then) & {"nacl", "sqlite3"}
    assert (needs(), needs("ledger"), needs("counts")) == (set(), {"nacl"}, {"sqlite3"})


def test_what_is_hidden_from_the_log_is_there_for_others():
    done = subprocess.run([sys.executable, "-P", "-c", "import edgeblock.daemon.journal, rich.console"],
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
