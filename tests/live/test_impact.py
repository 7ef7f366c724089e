"""What goes down with an address: traffic to two servers through two workers, and what `edgeblock impact` tells.

With the first stage most of it passes in the kernel, and what is queued to learn from is the sample.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from load import SOURCES, add_sources
from running import Running, start

from edgeblock.lab import SERVER, Lab, until

pytestmark = pytest.mark.live

NAMES = [f"www{number}.open.example" for number in range(8)]
MORE = '\n[queue]\nworkers = 2\n[daemon]\ncontrol = "{home}/control.sock"\n[ruleset]\nstage1 = "{stage1}"\n'


@pytest.fixture(params=["off", "on"], ids=lambda how: f"stage1-{how}")
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    with Lab() as lab:
        add_sources(lab)
        running = start(lab, tmp_path, MORE.format(home=tmp_path, stage1=request.param), sample=1.0)
        yield running
        assert running.daemon.stop() == 0, running.daemon.last_words()


def impact(running: Running, text: str) -> tuple[int, dict[str, Any]]:
    order = running.rules.parent / "order.list"
    order.write_text(text)
    done = running.lab.run_in("box", [sys.executable, "-m", "edgeblock", "impact", str(order), "--json", "--config",
                                      str(running.daemon.config)], check=False)
    return done.returncode, json.loads(done.stdout)


def audit(running: Running, name: str) -> list[dict[str, Any]]:
    """What the log says of a list."""
    return [said for line in running.daemon.log.read_text().splitlines()
            if (said := json.loads(line)).get("list") == name and said["event"] == "rules audit"]


def test_impact_tells_what_is_behind_two_addresses(box: Running):
    lab = box.lab
    for source in SOURCES:
        for name in NAMES:
            for scheme in ("https", "http"):
                seen = lab.fetch(f"{scheme}://{name}/", options=["--insecure", "--interface", source])
                assert seen.status == 200, seen
    for name in NAMES[:3]:
        assert lab.fetch(f"https://{name}/", version=6, options=["--insecure"]).status == 200
    network = f"{SERVER[4].rsplit('.', 1)[0]}.0/24"
    status, told = impact(box, f"{SERVER[4]}\n{SERVER[6]}\n192.0.2.99\n{network}\n")
    rows = {row["entry"]: row for row in told["entries"]}
    assert status == 0 and [row["names"] for row in told["entries"]] == [len(NAMES), len(NAMES), 3, 0], told
    here = rows[SERVER[4]]
    assert here["flows"] == 2 * len(SOURCES) * len(NAMES) and 0.5 < here["share"] <= 1.0
    assert here["shared"] == len(NAMES)         # sixteen are in one half with one key in 32 768
    assert (rows[SERVER[6]]["shared"], rows[SERVER[6]]["flows"]) == (0, 3)
    assert rows[network] == {**here, "entry": network, "line": 4}
    assert told["total"]["names"] == len(NAMES)
    # A list with that address is refused with the figures when the limit is lower, and taken where that is allowed.
    box.drop("seized.toml", "max_collateral = 5\n")
    box.drop("seized.list", f"{SERVER[6]}\n")
    assert until(lambda: audit(box, "seized"), 20)
    assert audit(box, "seized")[0]["names_behind"] == 3
    box.drop("seized.list", f"{SERVER[6]}\n{SERVER[4]}\n")
    assert until(lambda: (box.rules / "seized.rejected").exists(), 20)
    why = (box.rules / "seized.rejected").read_text()
    assert f"seized.list:2: {SERVER[4]} would take down {len(NAMES)} names" in why
    assert lab.fetch(f"http://{NAMES[0]}/").status == 200
    assert until(lambda: audit(box, "seized")[-1]["change"] == "refused", 20)
    box.drop("seized.toml", "max_collateral = 5\nallow_collateral = true\n")
    assert until(lambda: audit(box, "seized")[-1]["change"] == "taken", 20)
    # What is kept has nobody in it.
    kept = (box.rules.parent / "impact").read_bytes()
    for secret in (b"open.example", b"www1", *(bytes(map(int, one.split("."))) for one in SOURCES)):
        assert secret not in kept
