"""Orders dropped into a running daemon's directory: what is answered is so when it is answered, and not before."""

import json
import time
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from running import Running, start

from edgeblock.lab import SERVER, Lab, page, until

pytestmark = pytest.mark.live

SOON = 20.0
VALID = jsonschema.Draft202012Validator(
    json.loads((files("edgeblock.blocklist") / "outcome-1.schema.json").read_text()))


def order(*items: dict[str, Any], **more: Any) -> str:
    return json.dumps({"version": 1, "order": "No. 12", "items": items} | more)


def item(number: int, kind: str, value: str, **more: Any) -> dict[str, Any]:
    return {"id": f"T-{number}", "kind": kind, "value": value} | more


def outcome(running: Running, name: str = "match") -> dict[str, Any]:
    where = running.rules / f"{name}.outcome.json"
    if not where.exists():
        return {"items": []}
    told: dict[str, Any] = json.loads(where.read_text())
    VALID.validate(told)
    return told


def states(running: Running, name: str = "match") -> list[str]:
    return [one["state"] for one in outcome(running, name)["items"]]


def is_reset(lab: Lab, host: str) -> bool:
    return lab.fetch(f"https://{host}/").exit in (35, 56)


def text(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_an_order_is_answered_when_it_holds_and_the_answer_outlives_the_daemon(fresh: Running) -> None:
    lab = fresh.lab
    assert lab.fetch("https://shop.open.example/").body == page("shop.open.example")
    fresh.drop("match.order.json", order(item(1, "host", "shop.open.example"), item(3, "host", "sh..op"),
                                         item(2, "endpoint", f"{SERVER[4]}:8443")))
    dropped = time.time()
    assert until(lambda: states(fresh) == ["in force", "refused", "in force"], SOON), outcome(fresh)
    assert is_reset(lab, "shop.open.example")
    told = outcome(fresh)
    assert all(dropped - 1 < moment(one["since"]) < time.time() for one in told["items"][::2])
    assert told["capacity"]["addresses"]["used"] == 1

    assert fresh.daemon.stop() == 0
    before = (fresh.rules / "match.outcome.json").stat()
    again = lab.start_daemon(fresh.daemon.config.read_text(), within=SOON)
    fresh.drop("match.order.json", order(item(1, "host", "shop.open.example"),
                                         item(4, "host", "other.open.example")))
    assert until(lambda: states(fresh) == ["in force", "in force"], SOON), again.last_words()
    assert outcome(fresh)["items"][0]["since"] == told["items"][0]["since"]
    assert (fresh.rules / "match.outcome.json").stat().st_ino != before.st_ino
    (fresh.rules / "match.order.json").unlink()
    assert until(lambda: not (fresh.rules / "match.outcome.json").exists(), SOON)
    assert until(lambda: lab.fetch("https://shop.open.example/").body == page("shop.open.example"), SOON)
    assert again.stop() == 0


def test_an_order_that_is_none_is_answered_and_nothing_else_changes(fresh: Running) -> None:
    fresh.drop("match.order.json", order(item(1, "host", "shop.open.example")))
    assert until(lambda: states(fresh) == ["in force"], SOON)
    fresh.drop("match.order.json", order(item(1, "host", "shop.open.example"), version=2))
    assert until(lambda: outcome(fresh).get("state") == "refused", SOON)
    assert states(fresh) == ["in force"] and is_reset(fresh.lab, "shop.open.example")
    assert fresh.daemon.stop() == 0


def test_what_is_answered_of_a_window_is_so(fresh: Running) -> None:
    lab = fresh.lab
    begins, ends = int(time.time()) + 5, int(time.time()) + 9
    window = {"from": text(begins), "until": text(ends)}
    fresh.drop("match.order.json", order(item(1, "host", "shop.open.example", **window),
                                         item(2, "host", "other.open.example"),
                                         item(3, "endpoint", f"{SERVER[4]}:8443", **window)))
    assert until(lambda: states(fresh) == ["waiting", "in force", "waiting"], SOON), outcome(fresh)
    assert outcome(fresh)["items"][0]["opens"] == text(begins).replace("Z", ".000Z")
    assert time.time() < begins and lab.fetch("https://shop.open.example/").body == page("shop.open.example")
    assert until(lambda: states(fresh)[0] == "in force", SOON)
    answered = time.time()
    assert is_reset(lab, "shop.open.example")
    assert all(begins < moment(outcome(fresh)["items"][which]["since"]) <= answered < begins + 1 for which in (0, 2))
    assert until(lambda: states(fresh)[0] == "ended", SOON)
    assert ends < time.time() < ends + 1
    assert lab.fetch("https://shop.open.example/").body == page("shop.open.example")
    said = [json.loads(line) for line in fresh.daemon.log.read_text().splitlines() if line.startswith("{")]
    assert [(one["event"], one["list"], one["entries"]) for one in said if one["event"].startswith("window")] == [
        ("window opened", "match", 2), ("window closed", "match", 2)]
    assert fresh.daemon.stop() == 0


@pytest.fixture
def fresh(tmp_path: Path) -> Any:
    """A lab and a daemon of the test's own, with several workers."""
    with Lab() as lab:
        running = start(lab, tmp_path, "[queue]\nworkers = 2\n")
        yield running
