"""`edgeblock check --client`: the answer for one client, from the lists and from the daemon."""

import json

import pytest

from edgeblock import cli
from edgeblock.errors import SystemProblem


@pytest.fixture
def rules(tmp_path):
    (tmp_path / "family.list").write_text("family.example\n203.0.113.0/24\n")
    (tmp_path / "family.toml").write_text('clients = ["192.0.2.0/24", "2001:db8::/32"]\n')
    return tmp_path


def run(capsys, *arguments):
    return cli.main([str(argument) for argument in arguments]), *capsys.readouterr()


@pytest.mark.parametrize("client, status", [
    (None, 0), ("192.0.2.7", 1), ("198.51.100.7", 0), ("2001:db8::7", 1), ("[2001:db8::7]", 1), ("2001:db9::7", 0)])
@pytest.mark.parametrize("name", ["www.family.example", "203.0.113.7", "http://family.example/a"])
def test_it_is_asked_for_one_client(capsys, rules, client, status, name):
    more = ["--client", client] if client else []
    found, out, err = run(capsys, "check", "--rules", rules, *more, name)
    assert (found, err) == (status, "")
    assert "for the clients of 2 prefixes only" in out and ("listed for other clients" in out) is not status


def test_what_is_no_address_is_refused(capsys, rules):
    assert run(capsys, "check", "--rules", rules, "--client", "192.0.2.0/24", "a.example") == (
        2, "", "edgeblock: --client 192.0.2.0/24: is no address; give one, such as 192.0.2.7\n")


def test_the_daemon_is_told_who_asks(capsys, monkeypatch):
    asked = []

    def ask(path, question):
        asked.append(json.loads(question.removeprefix("check ")))
        raise SystemProblem("enough")

    monkeypatch.setattr("edgeblock.asking.ask", ask)
    run(capsys, "check", "--live", "--client", "192.0.2.7", "a.example")
    assert asked == [{"name": "a.example", "client": "192.0.2.7"}]
