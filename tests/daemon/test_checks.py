"""What a configuration can have wrong: the same one line from `run --check` and from `run`, and status 2."""

import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeblock import cli, config
from edgeblock.config import Config, Ledger, Report, Rules
from edgeblock.daemon import checks

KEY = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"      # of minisign's own manual

WRONG = {
    "unknown section": ("[rule]\n", "unknown section 'rule'"),
    "unknown key": ('[rules]\ndir = "x"\n', "unknown key 'dir' in [rules]"),
    "key of another section": ('[rules]\nworkers = 2\n', "unknown key 'workers'"),
    "no TOML": ("[rules\n", "not TOML"),
    "type": ('[queue]\nnumber = "0"\n', "[queue] number"),
    "range": ("[queue]\nnumber = 70000\n", "[queue] number"),
    "queues": ("[queue]\nnumber = 65535\nworkers = 4\n", "queues are numbered from 0 to 65535"),
    "action": ('[rules]\naction = "blok"\n', "[rules] action"),
    "redirect nowhere": ('[rules]\naction = "redirect"\n', '[rules] action = "redirect" needs a URL'),
    "redirect": ('[reply]\nredirect = "example.com"\n', "reply.redirect"),
    "page": ('[reply]\npage = "no-such-page.html"\n', "reply.page"),
    "signer": ('[rules]\nsigners = ["RWabc"]\n', "[rules] signers"),
    "no signer": ("[rules]\nrequire_signatures = true\n", "[rules] signers has no key"),
    "protected": ('[rules]\nprotected = "no-such-file"\n', "[rules] protected"),
    "allowance": ('[rules]\nallow_addresses = ["bad name"]\n', "[rules] allow_addresses"),
    "exempt": ('[ruleset]\nexempt_clients = ["192.0.2.1/24"]\n', "[ruleset] exempt_clients"),
    "interface": ('[ruleset]\nclients = ["eth 1"]\n', "ruleset.clients"),
    "ports": ("[ruleset]\ntcp_ports = []\nudp_ports = []\n", "nothing would be queued"),
    "mark": ("[ruleset]\nmark_mask = 5\n", "ruleset.mark_mask"),
    "marks that meet": ("[ruleset]\ninject_mark = 0x10000000\n", "ruleset.inject_mark"),
    "tracking": ('[ruleset]\nkernel = "marks"\nbackend = "nft"\n', "ruleset.kernel"),
    "shortcut": ('[ruleset]\nkernel = "carry"\n', "ruleset.kernel"),
    "hooks": ("[ruleset]\nhooks = []\n", "hooks"),
    "metrics": ('[metrics]\nlisten = "everywhere"\n', "[metrics] listen"),
    "nat64": ('[rules]\nnat64 = ["2001:db8:64::/96", "2001:db8::1/64"]\n', "'2001:db8::1/64' is none"),
    "shared": ('[rules]\nshared = "no-such.networks"\n', "[rules] shared"),
    "locked": ('[rules]\nlocked = ["acton"]\n', "[rules] locked"),
    "policy": ('[policies]\nconflict = "maybe"\n', "[policies] conflict"),
    "path": ("[daemon]\ncontrol = 5\n", "[daemon] control"),
}


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """`run` ignores what would end it when it ends; the other tests' children are not to inherit that."""
    before = {number: signal.getsignal(number) for number in (
        signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("wrong", WRONG)
def test_check_and_start_say_the_same_line_and_end_with_2(capsys, tmp_path, wrong):
    text, said = WRONG[wrong]
    file = tmp_path / "box.toml"
    file.write_text(text)
    lines = []
    for arguments in (["run", "--check"], ["run"]):
        assert cli.main([*arguments, "--config", str(file)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        lines += err.splitlines()
    assert len(lines) == 2 and lines[0] == lines[1] and said in lines[0]


def test_what_can_be_used_is_said_with_what_is_odd_about_it(capsys, tmp_path):
    file = tmp_path / "box.toml"
    file.write_text(f'[rules]\ndirectory = "lists"\nsigners = ["{KEY}"]\n[ruleset]\nclients = ["lo", "no-such*"]\n')
    assert cli.main(["run", "--check", "--config", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{file}: the configuration can be used\n"
    interface, directory = err.splitlines()
    assert "[ruleset] clients: no interface 'no-such*' is there now" in interface
    assert f"[rules] directory: {tmp_path}/lists is no directory" in directory
    (tmp_path / "lists").mkdir()
    file.write_text('[rules]\ndirectory = "lists"\n')
    assert cli.main(["run", "--check", "--config", str(file)]) == 0
    assert capsys.readouterr().err == ""
    file.write_text('[rules]\ndirectory = "lists"\nself_check = 0\n')
    assert cli.main(["run", "--check", "--config", str(file)]) == 0
    assert "[rules] self_check = 0: new rules come into force untried" in capsys.readouterr().err


def test_a_pattern_of_interfaces_is_there_where_one_fits():
    some = socket.if_nameindex()[0][1]
    ruleset = config.Ruleset(clients=(some, f"{some[:1]}*"))
    assert checks.missing_interfaces(config.Config(ruleset=ruleset)) == []


def test_all_mistakes_are_told_at_once(capsys, tmp_path):
    # And no consequence of one: action = "redirect" needs no URL where the URL is what is wrong.
    file = tmp_path / "box.toml"
    file.write_text("""
        [rule]
        [rules]
        dir = "x"
        action = "redirect"
        signers = ["RWabc", "RWdef"]
        protected = "no-such-file"
        allow_addresses = ["bad name"]
        [queue]
        number = 70000
        overload = 5
        [reply]
        redirect = 7
        page = "no-such-page.html"
        [ruleset]
        mark_mask = 5
        clients = ["eth 1"]
        tcp_ports = []
        udp_ports = []
        kernel = "marks"
        backend = "nft"
        [metrics]
        listen = "192.0.2.1:9477"
        certificate = "box.pem"
        token_file = "no-such-token"
        """)
    for arguments in (["run", "--check"], ["run"]):
        assert cli.main([*arguments, "--config", str(file)]) == 2
        lines = capsys.readouterr().err.splitlines()
        said = ("unknown section 'rule'", "unknown key 'dir'", "[queue] number", "[queue] overload",
                "[reply] redirect", "ruleset.mark_mask", "nothing would be queued", "ruleset.clients",
                "ruleset.kernel", "reply.page", "[metrics] listen", "set certificate_key, too",
                "[metrics] token_file", "[rules] signers = 'RWabc'", "[rules] signers = 'RWdef'",
                "[rules] allow_addresses", "[rules] protected")
        assert all(line.startswith(f"edgeblock: {file}: ") for line in lines)
        assert [sum(word in line for line in lines) for word in said] == [1] * len(said)
        assert len(lines) == len(said)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_reload_asks_the_same_question_first(tmp_path, wrong):
    # systemd runs the lines of ExecReload in turn, and none after one that failed: a daemon with a good configuration
    # hears nothing of a wrong one.
    unit = Path("systemd/edgeblock.service").read_text()
    first, second = re.findall(r"(?m)^ExecReload=(.*)$", unit)
    program, *arguments = first.split()
    assert Path(program).name == "edgeblock" and second == "/bin/kill -HUP $MAINPID"
    assert "RestartPreventExitStatus=2" in unit
    file = tmp_path / "box.toml"
    file.write_text(WRONG[wrong][0])
    arguments[arguments.index("--config") + 1] = str(file)
    assert cli.main(arguments) == 2


def test_a_list_that_redirects_nowhere_is_a_warning(capsys, tmp_path):
    # Not a mistake of the configuration: who drops a list must not keep the box from starting.
    (tmp_path / "a.list").write_text("a.example\n")
    (tmp_path / "a.toml").write_text('action = "redirect"\n')
    file = tmp_path / "box.conf"
    file.write_text(f'[rules]\ndirectory = "{tmp_path}"\n')
    assert cli.main(["run", "--check", "--config", str(file)]) == 0
    assert 'warning: a.toml: action = "redirect" needs a URL' in capsys.readouterr().err
    assert cli.main(["lint", "--config", str(file), str(tmp_path)]) == 1
    assert 'a.toml: warning: action = "redirect" needs a URL' in capsys.readouterr().out
    file.write_text(f'[rules]\ndirectory = "{tmp_path}"\n[reply]\nredirect = "https://a.example/"\n')
    assert cli.main(["run", "--check", "--config", str(file)]) == 0
    assert capsys.readouterr().err == ""


def test_a_policy_that_blocks_every_browser_is_warned_of(capsys, tmp_path):
    file = tmp_path / "edgeblock.toml"
    for value, warned in (("block", True), ("block-listed-addresses", False), ("accept", False)):
        file.write_text(f'[policies]\nech = "{value}"\n[rules]\ndirectory = "{tmp_path}"\n')
        assert cli.main(["run", "--check", "--config", str(file)]) == 0
        said = [line for line in capsys.readouterr().err.splitlines() if "[policies] ech" in line]
        assert bool(said) == warned and all("BLOCKS EVERYTHING" in line and "GREASE" in line for line in said)


def test_a_ledger_in_the_state_directory_is_warned_of(tmp_path):
    state, rules = tmp_path / "state", Rules(tmp_path, key=tmp_path / "state" / "key")
    inside = Config(rules, ledger=Ledger(directory=state / "ledger"))
    said = [line for line in checks.check(inside) if "[ledger]" in line]
    assert len(said) == 1 and f"{state}-ledger" in said[0]
    for ledger in (Ledger(), Ledger(directory=tmp_path / "other")):
        assert not any("[ledger]" in line for line in checks.check(Config(rules, ledger=ledger)))
    for counts in (True, False):                # they are there, too
        off = Config(rules, ledger=Ledger(enabled=False, directory=state), report=Report(enabled=counts))
        assert any("[ledger]" in line for line in checks.check(off)) == counts
