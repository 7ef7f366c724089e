"""`edgeblock impact` as a person types it."""

import json
from pathlib import Path

import pytest

from edgeblock import cli
from edgeblock.blocklist.impact import FILE
from tests.sketching import write_state

SEEN = {"198.51.100.7": (300, 40), "198.51.100.9": (2, 40), "188.114.97.7": (60, 3), "192.0.2.5": (1, 1)}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    (tmp_path / "rules").mkdir()
    config = tmp_path / "box.toml"
    config.write_text(f'[rules]\ndirectory = "{tmp_path}/rules"\nkey = "{tmp_path}/state/key"\n'
                      f'[daemon]\ncontrol = "{tmp_path}/control.sock"\n')
    write_state(tmp_path / "state", (5, 0, SEEN))

    def typed(*arguments: object, state: bool = True) -> tuple[int, str, str]:
        more = ["--state", str(tmp_path / "state")] if state else []
        status = cli.main(["impact", "--config", str(config), *map(str, arguments), *more])
        said = capsys.readouterr()
        return status, said.out, said.err

    return typed


def test_entries_come_by_what_is_behind_them(run, tmp_path: Path):
    order = tmp_path / "order.list"
    order.write_text("203.0.113.1\n198.51.100.9:443\nwww.example.com\n198.51.100.7\n188.114.97.7\n192.0.2.0/24\n")
    status, out, err = run(order)
    lines = out.splitlines()
    assert (status, err) == (1, "")
    assert [line.split(": ")[0] for line in lines[:4]] == ["198.51.100.7", "188.114.97.7", "198.51.100.9:443",
                                                           "192.0.2.0/24"]
    assert lines[0].endswith("; REFUSED; instead: www.example.com @ 198.51.100.7")
    assert "in a network that many share, 188.114.96.0/20 of Cloudflare" in lines[1] and "REFUSED" in lines[1]
    assert lines[2].endswith("instead: www.example.com @ 198.51.100.9") and "REFUSED" not in lines[2]
    assert "instead" not in lines[3]            # one name behind it: the address is that name's
    assert lines[4].startswith("5 address entries, 1 with nothing seen behind; 2 refused. All together: ")
    assert lines[5].startswith("As seen on this box from 2")
    status, out, _ = run(order, "--json")
    said = json.loads(out)
    assert status == 1 and len(said["entries"]) == 5 and said["total"]["refused"] == 2
    assert said["entries"][0]["entry"] == "198.51.100.7" and said["entries"][0]["line"] == 4
    assert said["entries"][0]["shared"] <= said["entries"][0]["names"] <= said["total"]["names"] + 15
    assert said["without_figures"] == "" and said["as_of"] > said["since"] > 0


def test_a_name_at_an_address_is_no_address_entry_and_what_is_proposed_can_be_listed(run, tmp_path: Path):
    order = tmp_path / "order.list"
    order.write_text("www.example.com @ 198.51.100.9\n198.51.100.7\n")
    status, out, err = run(order, "--json")
    said = json.loads(out)
    assert status == 1 and err == "" and [row["entry"] for row in said["entries"]] == ["198.51.100.7"]
    order.write_text(said["entries"][0]["instead"] + "\n")
    assert order.read_text() == "www.example.com @ 198.51.100.7\n"
    status, out, _ = run(order)
    assert status == 0 and out.startswith("0 address entries, ")
    (tmp_path / "rules" / "order.list").write_text(order.read_text())
    assert cli.main(["lint", str(tmp_path / "rules")]) == 0


def test_a_list_by_its_name_and_an_order_about_a_name(run, tmp_path: Path):
    (tmp_path / "rules" / "court.list").write_text("a.example\nb.example\n198.51.100.9\n")
    (tmp_path / "rules" / "court.toml").write_text("allow_collateral = true\n")
    status, out, _ = run("court")
    assert status == 0 and "instead" not in out         # two names: nobody knows which is meant
    status, out, err = run("court", "--format", "csv")
    assert (status, out) == (2, "") and err.startswith("edgeblock: --format csv: is for a file; court is in ")
    status, out, _ = run("court", "--name", "Www.Example.ORG")
    assert status == 0 and "instead: www.example.org @ 198.51.100.9" in out


@pytest.mark.parametrize(("word", "says"), [
    (["nowhere"], "nowhere: there is no such file, and no list of that name is in "),
    (["orders/oder.list"], "orders/oder.list: there is no such file\n"),
    (["order.pdf"], "says no format; give --format with one of"),
    (["court.list", "--name", "a b"], "--name a b: "),
])
def test_a_mistake_is_one_line(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: list[str], says: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "order.pdf").write_text("192.0.2.1\n")
    (tmp_path / "court.list").write_text("192.0.2.1\n")
    status, out, err = run(*word)
    assert status == 2 and out == "" and err.count("\n") == 1 and says in err


def test_without_figures_it_says_so_and_states_no_number(run, tmp_path: Path):
    order = tmp_path / "order.list"
    order.write_text("198.51.100.7\n188.114.97.7\n")
    (tmp_path / "state" / FILE).write_bytes(b"nothing")
    status, out, err = run(order)
    assert status == 2 and err.startswith("edgeblock: no figures: ") and "is no file of sketches" in err
    first, last = out.splitlines()
    assert first.startswith("188.114.97.7: in a network that many share, 188.114.96.0/20 of Cloudflare (")
    assert first.endswith("; REFUSED") and last == "2 address entries; 1 refused. What is behind them is not known."
    status, out, _ = run(order, "--json")
    said = json.loads(out)
    numbers = ("addresses", "names", "shared", "flows", "share", "whole")
    assert status == 2 and all(row[key] is None for row in [*said["entries"], said["total"]] for key in numbers)
    assert [said[key] for key in ("since", "as_of", "sample", "subscribers")] == [None] * 4
    assert said["total"]["entries"] == 2 and said["total"]["refused"] == 1 and said["without_figures"]
    status, _, err = run(order, state=False)
    assert status == 2 and "no edgeblock is running here" in err and err.endswith("with --state DIR\n")
    status, out, err = run(order, "--state", tmp_path / "nowhere", state=False)
    assert (status, out) == (2, "") and err == (
        f"edgeblock: --state {tmp_path}/nowhere: is no directory; name that of a daemon, such as "
        "/var/lib/edgeblock\n")


def test_without_a_rules_directory_it_says_what_was_sought(run, tmp_path: Path):
    (tmp_path / "rules").rmdir()
    status, out, err = run("oder.list")
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert err.startswith(f"edgeblock: oder.list: there is no such file, and {tmp_path}/rules, where ")


def test_lines_that_cannot_be_used_are_told(run, tmp_path: Path):
    (tmp_path / "bad.list").write_text("198.51.100.9\n198.51.100.300\na b\n")
    status, out, err = run(tmp_path / "bad.list")
    assert status == 0 and out.startswith("198.51.100.9: ")
    assert err.startswith("edgeblock: warning: bad.list: 2 lines of it cannot be used") and err.count("\n") == 1
    assert json.loads(run(tmp_path / "bad.list", "--json")[1])["total"]["unusable"] == 2


def test_a_sample_is_told(run, tmp_path: Path):
    write_state(tmp_path / "state", (5, 0, SEEN), sample=0.01)
    (tmp_path / "order.list").write_text("192.0.2.5\n")
    status, out, _ = run(tmp_path / "order.list")
    assert status == 0 and "Of connections that the first stage would pass, 1.0 % are looked at" in out
