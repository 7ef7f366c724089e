"""`host @ address` on a running box: blocked where it leads to that address and nowhere else."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import UNTRACKED, Running, give_address, start, track_nothing

from edgeblock.lab import SERVER, Lab, until

pytestmark = pytest.mark.live

BESIDE = {4: "203.0.113.9", 6: "2001:db8:80::9"}        # another address of the server
MODES = {"off": '[ruleset]\nkernel = "off"\n', "on": '[ruleset]\nkernel = "judge"\n', "untracked": UNTRACKED}
LIST = "".join(f"shared.example @ {SERVER[version]}\n" for version in (4, 6))


@pytest.fixture(params=MODES)
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    with Lab() as lab:
        if request.param == "untracked":
            track_nothing(lab)
        for version in (4, 6):
            give_address(lab, "server", BESIDE[version])
        running = start(lab, tmp_path, MODES[request.param])
        running.drop("orders.list", LIST)
        assert until(lambda: get(lab, "https://shared.example/", SERVER[4]) != 0, 15.0)
        yield running
        assert running.daemon.stop() == 0, running.daemon.last_words()


def get(lab: Lab, url: str, address: str) -> int:
    """What curl ends with, where the name leads to this address."""
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0]
    port = 443 if scheme == "https" else 80
    where = f"[{address}]" if ":" in address else address
    with contextlib.suppress(subprocess.TimeoutExpired):
        return lab.run_in("client", ["curl", "-skS", "-o", "/dev/null", "--noproxy", "*", "--max-time", "4",
                                     "--resolve", f"{host}:{port}:{where}", url], check=False).returncode
    return -1


def test_the_name_is_blocked_at_that_address_alone(box: Running):
    for version in (4, 6):
        for url in ("https://shared.example/", "https://www.shared.example/", "http://shared.example/"):
            assert get(box.lab, url, SERVER[version]) in (35, 56), (url, version)
            assert get(box.lab, url, BESIDE[version]) == 0, (url, version)
        for url in ("https://open.example/", "http://open.example/"):
            assert get(box.lab, url, SERVER[version]) == 0, (url, version)
    box.drop("orders.list", f"shared.example @ {BESIDE[4]}\n")
    assert until(lambda: get(box.lab, "https://shared.example/", BESIDE[4]) != 0, 15.0)
    assert get(box.lab, "https://shared.example/", SERVER[4]) == 0
