"""`edgeblock guard` as a person types it: what is written, and one line for every mistake."""

import pytest

from edgeblock import cli
from edgeblock.blocklist.shared import parse_shared


def run(capsys, *arguments):
    status = cli.main([str(one) for one in arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "box.toml"
    path.write_text(f'[rules]\nshared = "{tmp_path}/own.networks"\n')
    (tmp_path / "own.networks").write_text("")
    return path


def test_list_shows_each_owner_with_source_and_date(capsys, config):
    status, out, err = run(capsys, "guard", "--config", config)
    assert (status, err) == (0, "")
    assert "Cloudflare: delivery network, 22 networks as of " in out and "https://www.cloudflare.com/ips-v4" in out


def test_update_writes_what_is_in_force_then(capsys, config, tmp_path):
    (tmp_path / "ips-v4").write_text("".join(f"104.{number}.0.0/24\n" for number in range(16, 26)))
    (tmp_path / "ips-v6").write_text("".join(f"2606:47{number}::/32\n" for number in (10, 12)))
    status, out, err = run(capsys, "guard", "--config", config, "--update", tmp_path / "ips-v4", tmp_path / "ips-v6")
    assert (status, err) == (0, "")
    assert out.splitlines()[0].startswith("Cloudflare: 12 networks as of ") and ", before 22 as of " in out
    assert out.splitlines()[1].startswith(f"written to {tmp_path}/own.networks; reload the daemon")
    [section] = parse_shared((tmp_path / "own.networks").read_bytes(), "own").sections
    assert (section.name, len(section.rows)) == ("Cloudflare", 12)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.list").write_text("188.114.97.7\n104.20.0.9\n")
    status, out, err = run(capsys, "lint", "--config", config, tmp_path / "a")
    assert status == 1
    assert "x.list:2: error: 104.20.0.9 is in a network that many share, 104.20.0.0/24 of Cloudflare" in out
    assert "x.list:1" not in out
    (tmp_path / "prefixes.txt").write_text("203.0.114.0/24\n")
    status, out, err = run(capsys, "guard", "--config", config, "--name", "Our mirror", "--kind", "updates",
                           "--source", "us", "--date", "2026-11-01", "--update", tmp_path / "prefixes.txt")
    assert (status, err) == (0, "") and out.startswith("Our mirror: 1 network as of 2026-11-01\n")
    assert [one.name for one in parse_shared((tmp_path / "own.networks").read_bytes(), "own").sections] == [
        "Cloudflare", "Our mirror"]


@pytest.mark.parametrize(("words", "says"), [
    (["--output", "x"], "--output: only with --update FILE"),
    (["--name", "A", "--date", "x"], "--name, --date: only with"),
    (["--fewer"], "--fewer: only with --update"),
    (["--update", "f", "--kind", "k", "--source", "s"], "--kind, --source: only with --name OWNER"),
])
def test_an_option_that_would_do_nothing_is_refused(capsys, config, words, says):
    status, out, err = run(capsys, "guard", "--config", config, *words)
    assert (status, out) == (2, "") and err.count("\n") == 1 and err.startswith(f"edgeblock: {says}")


def test_without_the_setting_the_way_out_is_said(capsys, monkeypatch, tmp_path):
    (tmp_path / "box.toml").write_text("")
    (tmp_path / "mirror.txt").write_text("203.0.114.0/24\n")
    word = ["guard", "--config", tmp_path / "box.toml", "--update", tmp_path / "mirror.txt"]
    status, out, err = run(capsys, *word)
    assert (status, out) == (2, "") and err == "edgeblock: [rules] shared names no file to write; set it, or give " \
        "--output FILE\n"
    status, out, err = run(capsys, *word, "--name", "M", "--kind", "k", "--source", "s", "--output", tmp_path / "o")
    assert (status, err) == (0, "") and f'put shared = "{tmp_path}/o" into [rules]' in out
    monkeypatch.chdir(tmp_path)
    out = run(capsys, *word, "--name", "M", "--output", "o")[1]
    assert f'written to {tmp_path}/o; put shared = "{tmp_path}/o" into [rules]' in out


@pytest.mark.parametrize(("arguments", "why"), [
    (["nowhere"], "nowhere: cannot be read: No such file or directory"),
    (["{}/web"], "/web: is a web page"), (["{}/good"], "/good: no owner publishes a file of this name"),
    (["{}/good", "--name", "Nobody"], "--name Nobody: is no owner that is known"),
    (["{}/good", "--name", "X\ny", "--kind", "k", "--source", "s"], "--name: is no text of at most 200 characters"),
    (["{}/good", "--name", "X", "--kind", "\udcff", "--source", "s"], "--kind: is no text of at most 200 characters"),
    (["{}/good", "--name", "Fastly"], "Fastly: 1 network where there were 21: the file may be cut off"),
    (["{}/good", "--name", "Vercel", "--fewer", "--date", "soon"], "--date: 'soon' is no day such as 2030-12-31"),
    (["{}/good", "--name", "Vercel", "--fewer", "--date", "2020-01-01"], "Vercel: 2020-01-01 is before "),
    (["{}/good", "--name", "Vercel", "--fewer", "--output", "{}"], "cannot be read: Is a directory"),
    (["{}/good", "--name", "Vercel", "--fewer", "--output", "{}/no/o"], "/no/o: cannot be written: No such file"),
    (["{}/good", "--name", "Vercel", "--fewer", "--output", "{}/bad"], "/bad:1: 'rubbish' is neither ")])
def test_a_mistake_is_one_line_and_changes_nothing(capsys, config, tmp_path, arguments, why):
    (tmp_path / "web").write_text("<html>")
    (tmp_path / "good").write_text("203.0.114.0/24\n")
    (tmp_path / "bad").write_text("rubbish\n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    status, out, err = run(capsys, "guard", "--config", config, "--update",
                           *(word.replace("{}", str(tmp_path)) for word in arguments))
    assert (status, out) == (2, "") and why in err and err.count("\n") == 1 and err.startswith("edgeblock: ")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_of_shared_networks_that_is_wrong_keeps_the_daemon_from_starting(capsys, config, tmp_path):
    (tmp_path / "own.networks").write_text("[A]\n1.1.1.1\n")
    for command in (["run", "--check"], ["lint", tmp_path], ["guard"]):
        status, out, err = run(capsys, *command, "--config", config)
        assert status == 2 and err.endswith(f"{tmp_path}/own.networks:2: the section [A] that ends here lacks "
                                            "kind = ...\n"), err
    (tmp_path / "own.networks").unlink()
    status, out, err = run(capsys, "lint", tmp_path, "--config", config)
    assert status == 2 and err.startswith("edgeblock: [rules] shared: ") and err.count("\n") == 1
