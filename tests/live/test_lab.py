"""The lab itself: it forwards, it fetches, and nothing of it stays, however its process ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeblock.errors import SystemProblem
from edgeblock.lab import NETNS, Lab, page, until

pytestmark = pytest.mark.live

OWNER = """
import signal, sys
from edgeblock.lab import Lab
# Whoever runs the tests under nohup has the one ignored, and who runs them in the background the other.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
with Lab() as lab:
    print(lab.home, *(lab.namespace(place) for place in lab.places), flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("url", ["http://example.com/a?b=1", "https://www.example.com/x", "http://example.net:8080/",
                                 "https://notexample.com:8443/"])
def test_pages_arrive(bare_lab: Lab, url: str, version: int):
    host, _, target = url.partition("://")[2].partition("/")
    seen = bare_lab.fetch(url, version=version)
    assert (seen.status, seen.exit, seen.error) == (200, 0, "")
    assert seen.body == page(host.partition(":")[0], "/" + target)
    assert seen.local_port > 0


def test_certificate_is_checked(bare_lab: Lab):
    seen = bare_lab.fetch("https://elsewhere.test/")
    assert (seen.exit, seen.status) == (60, 0)


def test_published_file_arrives(bare_lab: Lab):
    content = os.urandom(300_000)
    target = bare_lab.publish("random", content)
    assert bare_lab.fetch(f"https://example.com{target}", version=6).body == content


def test_a_command_that_fails_says_so(bare_lab: Lab):
    with pytest.raises(SystemProblem, match="status 3: mind the gap"):
        bare_lab.run_in("box", ["sh", "-c", "echo mind the gap >&2; exit 3"])


def test_two_labs_side_by_side(bare_lab: Lab):
    with Lab() as other:
        assert other.fetch("http://example.com/").status == bare_lab.fetch("http://example.com/").status == 200
        other.popen_in("server", ["sleep", "1000"])
        namespaces = [NETNS / other.namespace(place) for place in other.places]
    assert not any(path.exists() for path in namespaces)
    assert not other.home.exists()
    assert bare_lab.fetch("http://example.com/").status == 200


def test_a_lab_that_cannot_be_built_leaves_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edgeblock.lab.NGINX", "nonsense")
    lab = Lab()
    with pytest.raises(SystemProblem, match="nginx"):
        lab.__enter__()
    assert not any((NETNS / lab.namespace(place)).exists() for place in lab.places)
    assert not lab.home.exists()


def owner() -> tuple[subprocess.Popen[bytes], list[Path]]:
    """A process with a lab, and all that it must not leave."""
    process = subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    home, *namespaces = process.stdout.readline().decode().split()
    return process, [Path(home), *(NETNS / name for name in namespaces)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_after_a_signal(number: signal.Signals):
    process, traces = owner()
    assert all(path.exists() for path in traces)
    process.send_signal(number)
    process.communicate()
    assert process.returncode not in (0, -signal.SIGKILL)
    assert not any(path.exists() for path in traces)


def test_what_a_killed_process_leaves_the_next_lab_removes():
    process, traces = owner()
    server = int((traces[0] / "nginx.pid").read_text())
    process.kill()
    process.communicate()
    assert all(path.exists() for path in traces)
    with Lab():
        assert not any(path.exists() for path in traces)
        assert until(lambda: not Path(f"/proc/{server}").exists(), 2.0)
