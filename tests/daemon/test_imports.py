"""What each process of a daemon imports: memory and time of a start are mostly that, on every box, day and night."""

import subprocess
import sys

import pytest

READERS = ("edgeblock.blocklist.formats", "edgeblock.blocklist.compiler", "edgeblock.blocklist.guard",
           "edgeblock.blocklist.refresh", "publicsuffixlist", "ijson", "zstandard")
NOBODY = ("rich", "pygments", "twisted", "better_exceptions", "cryptography", "scapy", "http.client", "email")


def imported(module: str) -> set[str]:
    done = subprocess.run([sys.executable, "-P", "-c", f"import {module}, sys; print(*sys.modules)"],
                          capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(("module", "never"), [
    ("edgeblock.daemon.worker", (*NOBODY, *READERS, "nacl", "prometheus_client", "argparse", "pyseccomp")),
    ("edgeblock.daemon.begin", (*NOBODY, *READERS, "nacl", "prometheus_client", "edgeblock.netfilter")),
    ("edgeblock.daemon.supervisor", (*NOBODY, "ijson", "prometheus_client", "pyseccomp",
                                     "edgeblock.daemon.job", "edgeblock.daemon.selfcheck",
                                     "edgeblock.blocklist.refresh")),
    ("edgeblock.daemon.compiling", (*NOBODY, *READERS, "asyncio", "edgeblock.config", "json", "pickle")),
    ("edgeblock.daemon.job", (*NOBODY, "nacl", "ijson", "asyncio", "structlog", "prometheus_client")),
])
def test_a_process_imports_nothing_that_it_does_not_need(module, never):
    assert imported(module).isdisjoint(never)


def test_what_is_hidden_from_the_log_is_there_for_others():
    done = subprocess.run([sys.executable, "-P", "-c", "import edgeblock.daemon.journal, rich.console"],
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
