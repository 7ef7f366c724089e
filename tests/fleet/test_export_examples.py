"""The examples beside docs/export.md and docs/routing.md do what they say: each program reads its own."""

import re
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgeblock.cli import main
from edgeblock.lab import search_path
from tests.fleet import planes

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
ROUTING = EXAMPLES / "routing"

pytestmark = pytest.mark.live


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules"
    path.mkdir()
    (path / "a.list").write_text("192.0.2.0/24\n2001:db8:99::/64\n")
    return path


def checked(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": search_path()})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("route", ["divert", "blackhole"])
def test_bird_takes_its_example_and_the_routes(route: str, rules: Path, tmp_path: Path):
    routes = tmp_path / "routes.conf"
    assert main(["export", "--format", "bird", "--rules", str(rules), "--route", route, "--next-hop", "192.0.2.1",
                 "--next-hop", "2001:db8::1", "--community", "64512:26", "--output", str(routes)]) == 0
    assert "bgp_next_hop = 2001:db8::1;" in routes.read_text() and "(64512,26)" in routes.read_text()
    settings = tmp_path / "bird.conf"
    settings.write_text((ROUTING / "bird.conf").read_text().replace("/etc/bird/edgeblock.conf", str(routes)))
    checked("bird", "-p", "-c", str(settings))
    settings.write_text(settings.read_text().replace("hold time", "hold tune"))
    assert subprocess.run(["bird", "-p", "-c", str(settings)], capture_output=True, check=False,
                          env={"PATH": search_path()}).returncode != 0


def test_frr_takes_its_example(tmp_path: Path):
    checked("vtysh", "-C", "-f", str(ROUTING / "frr.conf"))
    wrong = tmp_path / "frr.conf"
    wrong.write_text((ROUTING / "frr.conf").read_text().replace("set community", "set commune"))
    done = subprocess.run(["vtysh", "-C", "-f", str(wrong)], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "set commune" in done.stdout + done.stderr


def test_exabgp_takes_its_example(tmp_path: Path):
    settings = tmp_path / "exabgp.conf"
    text = (ROUTING / "exabgp.conf").read_text()
    settings.write_text(re.sub(r"run \S+ ", f"run {shutil.which('true')} ", text))
    assert "error" not in checked("exabgp", "--test", str(settings)).lower()
    settings.write_text(settings.read_text().replace("local-as", "local-az"))
    done = subprocess.run(["exabgp", "--test", str(settings)], capture_output=True, text=True, check=False,
                          env={"PATH": search_path()})
    assert "local-az" in done.stdout + done.stderr


def https(port: int) -> str:
    answer = planes.ask(port, ["www.example.com"], "HTTPS")["www.example.com"]
    return " ".join(one.to_text() for one in answer.answer)


def test_the_recursor_takes_ech_out_and_nothing_else(tmp_path: Path):
    behind = planes.Everything()
    behind.start()
    for script, has_ech in ((None, True), (EXAMPLES / "resolvers" / "strip-ech.lua", False)):
        home = tmp_path / ("with" if has_ech else "without")
        home.mkdir()
        with ExitStack() as stack:
            port = planes.start(stack, home, planes.recursor(home, behind.port, script=script))
            told = https(port)
            assert 'alpn="h3,h2"' in told and 'ipv4hint="198.18.0.1"' in told, told
            assert ("ech=" in told) is has_ech
            assert planes.passes(planes.ask(port, ["www.example.com"])["www.example.com"])


def test_dnsdist_answers_no_https_question_and_all_others(tmp_path: Path):
    behind = planes.Everything()
    behind.start()
    lua = tmp_path / "rule.lua"
    lua.write_text("function edgeblock_listed() return NotRule(AllRule()) end\n")
    command, port = planes.dnsdist(tmp_path, lua, behind.port)
    settings = Path(command[-1])
    rule = re.search(r"addAction\(QTypeRule.*", (EXAMPLES.parent / "export.md").read_text())
    assert rule
    settings.write_text(settings.read_text() + rule[0] + "\n")
    with ExitStack() as stack:
        planes.start(stack, tmp_path, (command, port))
        assert https(port) == ""
        assert planes.passes(planes.ask(port, ["www.example.com"])["www.example.com"])
