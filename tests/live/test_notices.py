"""Two lists, two pages: what subscribers are told by the list that blocks them, over IPv4 and IPv6."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from running import CONTACT, REDIRECT, Running, start

from edgeblock.enforce.page import texts
from edgeblock.lab import Lab, Seen, until

pytestmark = pytest.mark.live

VERSIONS = pytest.mark.parametrize("version", [4, 6])
LISTS = {
    "order.list": "order.example\n",
    "order.toml": 'action = "page"\npage = "order.html"\nreason = { en = "By order", de = "Auf Anordnung" }\n'
                  'contact = "court@isp.example"\nstatus = 403\n',
    "order.html": '<!doctype html><html lang="en"><title>Order</title><p>$reason: $contact ($reference)',
    "order.de.html": '<!doctype html><html lang="de"><title>Anordnung</title><p>$reason ($reference)',
    "abuse.list": "abuse.example\n",
    "abuse.toml": 'action = "page"\nreason = { en = "Abuse", de = "Missbrauch" }\n',
    "sent.list": "sent.example\n",
    "sent.toml": 'action = "redirect"\nredirect = "https://isp.example/sent?r=$reference"\n',
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Lab() as lab:
        running = start(lab, tmp_path_factory.mktemp("notices"))
        for name, text in reversed(LISTS.items()):      # pages before settings, settings before lists
            running.drop(name, text)
        assert until(lambda: all(lab.fetch(f"http://{name}.example/").status not in (0, 200)
                          for name in ("order", "abuse", "sent")), 10.0)
        yield running
        assert running.daemon.stop() == 0, running.daemon.last_words()


def fetch(told: Running, host: str, version: int, language: str = "", *options: str) -> Seen:
    wish = ["--header", f"Accept-Language: {language}"] if language else []
    seen = told.lab.fetch(f"http://{host}.example/", version=version, options=[*wish, *options])
    assert seen.exit == 0, seen
    return seen


@VERSIONS
def test_each_list_has_its_page_in_the_language_that_is_asked_for(told: Running, version: int):
    for language, spoken, words in (("", "en", "By order: court@isp.example"), ("pl", "en", "By order"),
                                    ("de-AT, en;q=0.5", "de", "Auf Anordnung")):
        seen = fetch(told, "order", version, language)
        assert (seen.status, seen.headers["content-language"]) == (403, spoken), seen
        code = seen.headers["block-reference"]
        assert words in seen.body.decode() and f"({code})" in seen.body.decode()
        assert seen.headers["vary"] == "Accept-Language" and seen.headers["cache-control"] == "no-store"
    for language, words in (("en", "Abuse"), ("de;q=0.9", "Missbrauch"), ("fr", "Abuse"), ("ar", "Abuse")):
        seen = fetch(told, "abuse", version, language)
        spoken = language.partition(";")[0]
        assert (seen.status, seen.headers["content-language"]) == (451, spoken), seen
        for text in (words, texts()[spoken]["title"], seen.headers["block-reference"], CONTACT):
            assert text in seen.body.decode()
    seen = fetch(told, "pages", version, "es")       # a list that says nothing of its own
    assert texts()["es"]["reason"] in seen.body.decode()


@VERSIONS
def test_a_list_sends_its_own_way_and_others_the_operators(told: Running, version: int):
    seen = fetch(told, "sent", version)
    assert seen.status == 302
    assert seen.headers["location"] == f"https://isp.example/sent?r={seen.headers['block-reference']}"
    seen = told.lab.fetch("http://example.com/old/address", version=version)
    assert (seen.status, seen.headers["location"]) == (302, REDIRECT)


@VERSIONS
def test_the_reference_leads_back_to_the_rule(told: Running, version: int):
    head = fetch(told, "order", version, "", "--head")
    code = head.headers["block-reference"]
    assert code == fetch(told, "order", version).headers["block-reference"] and b"By order" not in head.body

    def check(*more: str) -> subprocess.CompletedProcess[str]:
        settings = ["--config", str(told.daemon.config)]
        return subprocess.run([sys.executable, "-m", "edgeblock", "check", *settings, *more],
                              capture_output=True, text=True, timeout=60, check=False)

    done = check("--json", "--reference", code)
    found = json.loads(done.stdout)
    today = datetime.now(UTC).date().isoformat()
    assert (found["file"], found["line"], found["entry"]) == ("order.list", 1, "order.example")
    assert found["day"] in (today, str(datetime.now(UTC).date())) and done.returncode == 0
    log = [json.loads(line) for line in told.daemon.log.read_text().splitlines() if '"event": "blocked"' in line]
    assert {line["rule"] for line in log if line["list"] == "order"} == {found["rule"]}
    done = check("--reference", code[:-1] + ("0" if code[-1] != "0" else "1"))
    assert done.returncode == 2 and "mistyped" in done.stderr and done.stderr.count("\n") == 1


def test_a_page_that_changes_is_shown_and_one_that_is_bad_changes_nothing(told: Running):
    told.drop("order.html", "<p>New words $reference")
    assert until(lambda: b"New words" in fetch(told, "order", 6, "pl").body, 10.0)
    assert b"Auf Anordnung" in fetch(told, "order", 4, "de").body
    told.drop("order.html", "x" * 40_000)
    assert until(lambda: (told.rules / "order.rejected").exists(), 10.0)
    assert b"New words" in fetch(told, "order", 4, "pl").body
    assert "order.html: is larger than 32 kB" in (told.rules / "order.rejected").read_text()
