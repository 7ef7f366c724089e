"""The commands as a person types them: exit statuses, one line for every mistake, an example in every help."""

import copy
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

import edgeblock
from edgeblock import cli
from edgeblock.blocklist import explain as explain_module
from edgeblock.blocklist.explain import explain_alone
from edgeblock.blocklist.load import load
from edgeblock.enforce.reference import code_of, date_of, day_of
from tests.blocklist.test_refresh import as_nobody
from tests.core import samples
from tests.test_agreement import capture

COMMANDS = ("run", "replay", "check", "lint", "hash-list", "ruleset", "status", "doctor", "demo", "version")


@pytest.fixture
def rules(tmp_path):
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "court.list").write_text("listed.example\n@@fine.listed.example\n")
    (folder / "pages.list").write_text("open.example/bad/page.html\n")
    (folder / "pages.toml").write_text('action = "page"\n')
    return folder


def run(capsys, *arguments):
    """Exit status, standard output, standard error."""
    try:
        status = cli.main([str(argument) for argument in arguments])
    except SystemExit as ending:        # argparse ends by itself after --help and usage errors
        status = ending.code
    return status, *capsys.readouterr()


def one_line(capsys, *arguments):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.endswith("\n") and err.count("\n") == 1 and err.startswith("edgeblock")
    return err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(capsys, command):
    status, out, err = run(capsys, command, "--help")
    assert (status, err) == (0, "")
    assert re.search(rf"examples:\n  (sudo )?edgeblock {command}", out)


def test_the_help_names_every_command(capsys):
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert [command for command in COMMANDS if not re.search(rf"^    {command}\s", out, re.MULTILINE)] == []


@pytest.mark.parametrize("arguments", [
    (), ("moon",), ("check",), ("check", "--jsn", "a"), ("lint",), ("lint", "a", "b"), ("ruleset",),
    ("ruleset", "aply"), ("ruleset", "print", "--backend", "pf"), ("replay",), ("run", "--conf", "x"),
    ("version", "x"),
])
def test_a_wrong_command_line_is_one_line_that_leads_to_the_help(capsys, arguments):
    assert one_line(capsys, *arguments).endswith("--help\n")


@pytest.mark.parametrize(("arguments", "says"), [
    (("check", "--jsn", "a"), "check: unknown: --jsn; did you mean --json?; see edgeblock check --help"),
    (("check", "--lvie=3", "a"), "check: unknown: --lvie=3; did you mean --live?; see edgeblock check --help"),
    (("lint", "a", "b"), "lint: unknown: b; see edgeblock lint --help"),
    (("version", "x"), "version: unknown: x; see edgeblock version --help"),
    (("run", "--check", "box.toml"), "run: unknown: box.toml; a configuration is named with --config FILE; see "
                                     "edgeblock run --help"),
    (("ruleset", "prnt"), "ruleset: argument print|apply|remove: invalid choice: 'prnt' (choose from 'print', "
                          "'apply', 'remove'); see edgeblock ruleset --help"),
])
def test_what_a_command_does_not_know_leads_to_its_own_help(capsys, arguments, says):
    assert one_line(capsys, *arguments) == f"edgeblock {says}\n"


def test_an_option_before_the_command_is_said_to_stand_behind_it(capsys):
    assert one_line(capsys, "--config=a.toml", "status") == (
        "edgeblock: --config: stands behind a command, such as `edgeblock status --config`; see edgeblock --help\n")


def test_version(capsys):
    assert run(capsys, "version") == (0, f"edgeblock {edgeblock.__version__}\n", "")


@pytest.mark.parametrize("command", ["run", "replay x.pcap", "check a.example", "lint .", "ruleset print", "status",
                                     "doctor"])
def test_every_command_reads_the_same_configuration(capsys, tmp_path, command):
    (tmp_path / "box.toml").write_text("[rules]\ndirectroy = 'x'\n")
    line = one_line(capsys, *command.split(), "--config", tmp_path / "box.toml")
    assert line == (f"edgeblock: {tmp_path}/box.toml: unknown key 'directroy' in [rules]; did you mean directory?\n")
    assert "cannot be read: No such file" in one_line(capsys, *command.split(), "--config", tmp_path / "absent")


@pytest.mark.parametrize("names, status", [
    (["open.example"], 0), (["fine.listed.example"], 0), (["http://open.example/good.html"], 0),
    (["www.listed.example"], 1), (["open.example", "listed.example"], 1), (["http://open.example/bad/page.html"], 1),
    (["open.example", "bad..example"], 2), (["listed.example", "bad..example"], 2),
])
def test_check_says_by_its_status_what_is_blocked(capsys, rules, names, status):
    found, out, err = run(capsys, "check", "--rules", rules, *names)
    assert found == status
    assert err.count("\n") == (status == 2) and err.startswith("edgeblock: bad..example" if status == 2 else "")
    assert all(name in out for name in names if name != "bad..example")


def test_check_explains_itself_to_people_and_programs(capsys, rules, tmp_path):
    (tmp_path / "box.toml").write_text('[rules]\ndirectory = "rules"\n')
    _, out, _ = run(capsys, "check", "--config", tmp_path / "box.toml", "www.listed.example")
    assert "court.list:1" in out and "reset" in out
    status, out, err = run(capsys, "check", "--config", tmp_path / "box.toml", "--json", "www.listed.example", "a..b")
    blocked, wrong = map(json.loads, out.splitlines())
    assert (status, err) == (2, "")
    assert blocked["name"] == "www.listed.example" and blocked["blocked"] is True
    assert wrong["canonical"] is None and wrong["problem"]


def test_check_live_asks_the_daemon(capsys, monkeypatch, rules):
    matcher = load(rules).matcher
    asked = []

    def ask(path, question):
        asked.append(question)
        return {**explain_alone(matcher, json.loads(question.removeprefix("check "))).as_dict(), "snapshot": "0f"}

    monkeypatch.setattr("edgeblock.asking.ask", ask)
    status, out, err = run(capsys, "check", "--live", "www.listed.example", "b\u00fccher.test")
    assert (status, err) == (1, "")
    assert asked == ['check "www.listed.example"', 'check "b\\u00fccher.test"']
    assert "reset: a block (court, host and subdomains)" in out and "b\u00fccher.test  (compared as xn--" in out
    record = json.loads(run(capsys, "check", "--live", "--json", "www.listed.example")[1])
    assert record["blocked"] and record["verdicts"][0]["list"] == "court"
    assert run(capsys, "check", "--live", "a..b")[0] == 2
    monkeypatch.setattr("edgeblock.asking.ask", lambda path, question: {"error": "no lists are loaded yet"})
    assert one_line(capsys, "check", "--live", "a.example") == (
        "edgeblock: the running daemon says: no lists are loaded yet\n")
    assert "not allowed with argument" in one_line(capsys, "check", "--live", "--rules", rules, "a.example")


def test_the_action_of_the_configuration_is_that_of_a_list_without_one(capsys, rules, tmp_path):
    (tmp_path / "box.toml").write_text('[rules]\naction = "observe"\n')
    assert run(capsys, "check", "--config", tmp_path / "box.toml", "--rules", rules, "listed.example")[0] == 0
    assert run(capsys, "check", "--rules", rules, "listed.example")[0] == 1


def test_a_redirect_without_a_url_is_the_page(capsys, rules, tmp_path):
    (rules / "court.toml").write_text('action = "redirect"\n')
    status, out, err = run(capsys, "check", "--rules", rules, "http://listed.example/")
    assert status == 1 and "  http    page: a block (court.list:1, host and subdomains); the page in place of" in out
    assert "  (tls)   reset: " in out and "as redirect under [reply] has no URL\n" in out and err == ""
    (tmp_path / "box.toml").write_text('[reply]\nredirect = "http://where.example/"\n')
    out = run(capsys, "check", "--config", tmp_path / "box.toml", "--rules", rules, "http://listed.example/")[1]
    assert "  http    redirect: a block (court.list:1, host and subdomains)\n" in out


def test_a_rule_id_leads_back_to_file_and_line(capsys, rules, tmp_path):
    (tmp_path / "key").write_bytes(bytes(range(16)))
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "box.toml").write_text(f'[rules]\ndirectory = "{rules}"\nkey = "{tmp_path}/key"\n')
    (rules / "pages.toml").write_text('action = "page"\nhttps = "host"\n')
    box = ("check", "--config", tmp_path / "box.toml")
    seen = set()
    for name in ("listed.example", "fine.listed.example", "http://open.example/bad/page.html", "open.example"):
        record = json.loads(run(capsys, *box, "--json", name)[1])
        for rule in {rule["rule"]: rule for verdict in record["verdicts"] for tried in verdict["tried"]
                     for rule in tried["rules"]}.values():
            status, out, err = run(capsys, *box, "--rule", rule["rule"].upper(), "--json")
            assert (status, err) == (0, "")
            place = json.loads(out)
            assert (place["file"], place["line"], place["exception"], place["kind"]) == (
                rule["file"], rule["line"], rule["exception"], rule["entry"])
            seen.add(place["entry"])
    assert seen == {"listed.example", "fine.listed.example", "open.example/bad/page.html", "open.example"}
    status, out, err = run(capsys, *box, "--rule", "00000000")
    assert (status, out) == (1, "") and "no entry has the rule id 00000000; the list may have changed" in err
    assert "eight hex digits" in one_line(capsys, *box, "--rule", "listed.example")
    alone = "leave out --live, --at, --client and names"
    assert alone in one_line(capsys, *box, "--rule", "00000000", "listed.example")


def test_the_rule_id_of_a_replay_leads_back_on_the_box_too(capsys, rules, tmp_path):
    (tmp_path / "box.toml").write_text(f'[rules]\ndirectory = "{rules}"\nkey = "{tmp_path}/key"\n')
    box, snapshot = ("--config", tmp_path / "box.toml"), tmp_path / "rules.snapshot"
    assert run(capsys, "compile", *box, "--output", snapshot)[0] == 0       # makes the key
    capture(tmp_path / "in.pcap", [samples.hello(b"www.listed.example")], 443)
    [row] = map(json.loads, run(capsys, "replay", tmp_path / "in.pcap", *box, "--json")[1].splitlines())
    status, out, err = run(capsys, "check", *box, "--rule", row["rule"])
    assert (status, err) == (0, "") and out.startswith("court.list:1  list court, block: listed.example ")
    assert row["rule"] not in run(capsys, "check", *box, "www.listed.example")[1]
    assert "is a snapshot, which has no lines" in one_line(capsys, "check", *box, "--rules", snapshot, "--rule",
                                                           row["rule"])


def test_check_takes_what_its_help_says(capsys, rules):
    (rules / "court.list").write_text("192.0.2.0/24\nshop.example @ 203.0.113.9\n")
    said = " ".join(run(capsys, "check", "--help")[1].split())
    assert "a prefix or a range; 'NAME @ ADDRESS'" in said and ", page and" not in said     # no page has an id
    for name in ("192.0.2.0/25", "192.0.2.1-192.0.2.9", "shop.example @ 203.0.113.9"):
        assert run(capsys, "check", "--rules", rules, name)[0] == 1


def test_without_the_key_of_the_box_it_says_so(capsys, rules):
    assert "without the box's key" in run(capsys, "check", "--rules", rules, "--rule", "00000000")[2]


def test_names_come_from_a_file_or_from_standard_input(capsys, monkeypatch, rules, tmp_path):
    (tmp_path / "names").write_text("# mine\nlisted.example\n\n  fine.listed.example \n")
    status, out, err = run(capsys, "check", "--rules", rules, "--json", "--from", tmp_path / "names", "a.example")
    assert (status, err) == (1, "")
    assert [json.loads(line)["name"] for line in out.splitlines()] == [
        "a.example", "listed.example", "fine.listed.example"]
    with open(tmp_path / "names") as lines:
        monkeypatch.setattr(sys, "stdin", lines)
        assert len(run(capsys, "check", "--rules", rules, "--json", "-")[1].splitlines()) == 2
    (tmp_path / "names").write_bytes(b"bad\xff.example\n")
    assert run(capsys, "check", "--rules", rules, "--from", tmp_path / "names")[0] == 2
    assert "--from" in one_line(capsys, "check", "--rules", rules, "--from", tmp_path / "absent")
    assert "no name to check" in one_line(capsys, "check", "--rules", rules)
    (tmp_path / "names").write_text("# none\n")
    with open(tmp_path / "names") as lines:
        monkeypatch.setattr(sys, "stdin", lines)
        assert one_line(capsys, "check", "--rules", rules, "--from", tmp_path / "names", "-") == (
            f"edgeblock: standard input and --from {tmp_path}/names: there is no name to check; write one a line\n")


def test_the_version_is_an_option_too(capsys):
    assert run(capsys, "--version") == run(capsys, "version")


def test_check_without_usable_rules_is_one_line(capsys, rules, tmp_path):
    line = one_line(capsys, "check", "--rules", tmp_path / "absent", "a.example")
    assert "there is no such rules directory" in line


def test_check_answers_from_what_is_good_and_warns_of_the_rest(capsys, rules):
    (rules / "court.list").write_text("fine.example\nexmaple..com\n")
    (rules / "feed.csv").write_text("a,b\n1,2\n")
    status, out, err = run(capsys, "check", "--rules", rules, "fine.example", "a.example")
    assert status == 1 and "a block (court.list:1" in out and "nothing listed applies" in out
    lines = err.splitlines()
    assert any(line.startswith("edgeblock: warning: court.list:2: 'exmaple..com' has an empty") for line in lines)
    assert any(line.startswith("edgeblock: warning: feed.csv:1: there is none of the columns") for line in lines)
    assert sum("the daemon refuses this list" in line for line in lines) == 2
    assert lines[-1].endswith("has the last good version in force, or nothing; ask it with --live")
    (rules / "court.list").write_text("fine.example\n")
    (rules / "feed.csv").unlink()
    assert run(capsys, "check", "--rules", rules, "fine.example")[2] == ""
    (rules / "court.toml").write_text("colour = 3\n")        # the whole list is left out here, not on the box
    status, out, err = run(capsys, "check", "--rules", rules, "fine.example")
    assert status == 0 and "nothing listed applies" in out and err.splitlines()[-1].endswith("ask it with --live")


def test_what_a_user_may_not_read_is_told_as_that(capsys, rules, tmp_path):
    """Not as something else that it is not, nor as a traceback."""
    config, key, snapshot = tmp_path / "box.toml", tmp_path / "state" / "key", tmp_path / "rules.snapshot"
    config.write_text(f'[rules]\ndirectory = "{rules}"\nkey = "{key}"\n')
    assert run(capsys, "compile", "--config", config, "--output", snapshot)[0] == 0
    with as_nobody(tmp_path):
        snapshot.chmod(0)
        key.parent.chmod(0)
        why = "cannot be read: Permission denied; run this as root, or as a user who may read it\n"
        for command in (("check", "a.example"), ("replay", "none.pcap")):
            assert one_line(capsys, *command, "--rules", snapshot) == f"edgeblock: {snapshot}: {why}"
            assert one_line(capsys, *command, "--rules", key) == f"edgeblock: {key}: {why}"
        status, out, err = run(capsys, "check", "--config", config, "listed.example")
        assert status == 1 and "a block (court.list:1" in out
        assert err.endswith(f"its key, {key}, cannot be read; run this as root\n")
        assert "Permission denied; run this as" in one_line(capsys, "impact", key.with_name("a.list"))
        key.parent.chmod(0o700)
        snapshot.chmod(0o600)


def test_a_rule_is_found_beside_lists_that_cannot_be_read(capsys, rules):
    (rules / "odd.csv").write_text("0.0.0.0 a.example\n0.0.0.0 b.example\n")
    (rules / "zeta.list").write_text("last.example\n")
    said = run(capsys, "check", "--rules", rules, "last.example")[1]
    rule = re.findall(r"zeta.list:1 +rule ([0-9a-f]{8})", said)[0]
    status, out, err = run(capsys, "check", "--rules", rules, "--rule", rule)
    assert (status, out) == (0, "zeta.list:1  list zeta, block: last.example (host and subdomains)\n")
    assert "odd.csv:1: the file is a hosts file" in err


def test_a_reference_leads_back_to_its_entry_and_day(capsys, rules):
    said = run(capsys, "check", "--rules", rules, "http://open.example/bad/page.html")[1]
    rule = re.findall(r"rule ([0-9a-f]{8})", said)[0]
    entry = re.findall(r"(\w+\.list:\d+) +rule", said)[0]
    day = day_of(time.time()) - 3
    code = code_of(rule, day)
    status, out, _ = run(capsys, "check", "--rules", rules, "--reference", code.lower().replace("-", " "))
    first, second = out.splitlines()
    assert status == 0 and first == f"{code}: the page of rule {rule}, shown on {date_of(day)} (UTC)"
    assert second.startswith(f"{entry}  list ")
    status, out, _ = run(capsys, "check", "--rules", rules, "--json", "--reference", code)
    assert (json.loads(out)["rule"], json.loads(out)["day"]) == (rule, str(date_of(day)))
    wrong = code[:-1] + ("A" if code[-1] != "A" else "B")
    assert f"--reference {wrong}: is mistyped" in one_line(capsys, "check", "--rules", rules, "--reference", wrong)
    assert "leave out --rule" in one_line(capsys, "check", "--rule", rule, "--reference", code)
    assert "leave out --live, --at, --client and names" in one_line(capsys, "check", "a.example", "--reference", code)
    status, out, err = run(capsys, "check", "--rules", rules, "--reference", code_of("00000000", day))
    assert status == 1 and len(out.splitlines()) == 1 and "no entry has the rule id 00000000" in err


def test_entries_that_share_a_rule_id_are_all_told(capsys, rules, monkeypatch):
    monkeypatch.setattr(explain_module, "rule_number", lambda mark, kind: 0x12345678)
    status, out, err = run(capsys, "check", "--rules", rules, "--reference", code_of("12345678", 20_000))
    assert status == 0 and len(out.splitlines()) > 2 and "have the rule id 12345678" in err


def test_where_a_list_sends_people_needs_no_url_of_the_operators(capsys, rules, tmp_path):
    (rules / "sent.list").write_text("sent.example\n")
    (rules / "sent.toml").write_text('action = "redirect"\n')
    settings = tmp_path / "box.toml"
    settings.write_text(f'[rules]\ndirectory = "{rules}"\nkey = "{tmp_path}/none"\n')
    asked = ("check", "--config", settings, "--json", "http://sent.example/")
    http = json.loads(run(capsys, *asked)[1])["verdicts"][0]
    assert (http["proto"], http["verdict"], http["redirect"]) == ("http", "page", "")
    (rules / "sent.toml").write_text('action = "redirect"\nredirect = "https://isp.example/sent"\n')
    http, tls = json.loads(run(capsys, *asked)[1])["verdicts"]
    assert (http["proto"], http["verdict"], http["redirect"]) == ("http", "redirect", "https://isp.example/sent")
    assert (tls["proto"], tls["verdict"]) == ("tls", "reset")
    assert "needs a URL" not in run(capsys, "lint", "--config", settings, rules)[1]


def test_lint_lists_everything_and_counts_it(capsys, rules, tmp_path):
    status, out, err = run(capsys, "lint", rules)
    assert (status, err) == (0, "0 errors, 0 warnings in 2 lists with 3 entries\n")
    assert [line[:46] for line in out.splitlines()] == [
        'pages.list: note: action = "page" holds in pla', "pages.list: note: has 1 URL, and browsers turn"]
    (rules / "court.list").write_text("a..b\nfine.example\nc..d\n")
    status, out, err = run(capsys, "lint", rules)
    assert (status, err) == (1, "3 errors, 0 warnings in 2 lists with 2 entries\n")
    assert [line.split(" ")[0] for line in out.splitlines()] == [
        "court.list:1:", "court.list:3:", "court.list:", "pages.list:", "pages.list:"]
    assert "there is no such rules directory" in one_line(capsys, "lint", tmp_path / "absent")


ORDER = """{"version": 1, "order": "No. 12", "authority": "Court", "items": [
 {"id": "T-1", "kind": "host", "value": "ordered.example", "reference": "ticket 7"},
 {"id": "T-2", "kind": "host", "value": "or..dered"}]}
"""


def test_an_order_is_a_list_for_lint_and_check(capsys, rules):
    (rules / "match.order.json").write_text(ORDER)
    (rules / "match.outcome.json").write_text('{"edgeblock": "outcome"}')
    status, out, err = run(capsys, "lint", rules)
    assert (status, err) == (1, "0 errors, 1 warning in 3 lists with 4 entries\n")
    assert out.splitlines()[0] == (
        "match.order.json:3: warning: item 2 (T-2) has a value that is none of the kind host: 'or..dered' has an "
        "empty label; this item is refused")
    status, out, _ = run(capsys, "check", "--rules", rules, "ordered.example")
    assert status == 1 and 'order="No. 12" reference="ticket 7"' in out and "match.order.json:2" in out
    rule = re.findall(r"rule ([0-9a-f]{8})", out)[0]
    assert "match.order.json:2  list match, block: ordered.example" in run(
        capsys, "check", "--rules", rules, "--rule", rule)[1]


def test_an_order_in_one_line_is_taken_with_many_bad_items_by_lint_and_check_too(capsys, rules):
    bad = [{"id": f"T-{number}", "kind": "host", "value": "a..b"} for number in range(3)]
    good = {"id": "T-9", "kind": "host", "value": "ordered.example"}
    protected = {"id": "T-8", "kind": "host", "value": "google.com"}
    (rules / "match.order.json").write_text(json.dumps(
        {"version": 1, "order": "No. 12", "items": [*bad, protected, good]}))
    status, out, err = run(capsys, "lint", rules)
    assert status == 1 and err.startswith("0 errors, 4 warnings") and out.count("; this item is refused") == 4
    assert "max_unparsable" not in out and "guarded" not in out
    _, out, err = run(capsys, "check", "--rules", rules, "ordered.example")
    assert "match.order.json:1" in out and "refuses this list" not in out + err


def test_a_file_in_the_place_of_an_answer_is_named(capsys, rules):
    (rules / "match.order.json").write_text(ORDER)
    (rules / "match.outcome.json").write_text("mine")
    assert ("match.outcome.json: warning: is no answer that edgeblock has written, and is left alone, so this order "
            "is not answered; move it away\n") in run(capsys, "lint", rules)[1]


@pytest.mark.parametrize(("name", "how"), [
    ("order.json", "error"), ("up.order.JSON", "warning"), ("match.json", "error")])
def test_an_order_under_another_name_is_told_its_name(capsys, rules, name, how):
    (rules / name).write_text(ORDER)
    out = run(capsys, "lint", rules)[1]
    assert re.search(rf"^{name}(:1)?: {how}: .* an order: name it NAME\.order\.json$", out, re.MULTILINE), out


def test_lint_tells_mistakes_from_what_is_worth_knowing(capsys, rules):
    (rules / "more.list").write_text("listed.example\nwww.listed.example\n")
    (rules / "ads.adblock").write_text("||ads.example^\nopen.example##.ad\n")
    status, out, err = run(capsys, "lint", rules)
    assert (status, err) == (1, "0 errors, 1 warning in 4 lists with 6 entries\n")
    told = [line for line in out.splitlines() if not line.startswith("pages.list: note")]
    assert told == [
        "more.list:2: warning: 'www.listed.example' is covered by 'listed.example', in line 1",
        "ads.adblock:2: note: 1 line passed over: rules about page elements (##, #@#, #?#, $$)",
        "more.list:1: note: 1 entry is also in court.list, such as this one in line 1"]


def test_lint_begins_with_what_refuses_a_list_and_marks_each_line(capsys, rules):
    (rules / "a.list").write_text("fine.example\nfine.example\n")
    (rules / "b.list").write_text("one.example\none.example\n198.51.100.1-198.51.100.6\n104.16.0.1-104.16.0.6\ncom\n")
    out = [line for line in run(capsys, "lint", rules)[1].splitlines() if not line.startswith("[impact]")]
    assert [line.split(" ")[:2] for line in out] == [
        ["b.list:4:", "error:"], ["b.list:5:", "error:"], ["a.list:2:", "warning:"], ["b.list:2:", "warning:"],
        ["b.list:", "note:"], *2 * [["pages.list:", "note:"]]]
    assert out[0].endswith(" (and 3 more of what this line has)")


def test_hash_list_writes_a_list_that_check_understands(capsys, rules, tmp_path):
    key, config = tmp_path / "key", tmp_path / "box.toml"
    config.write_text(f'[rules]\nkey = "{key}"\n')
    status, out, err = run(capsys, "hash-list", rules / "court.list", rules / "secret.hashed", "--key", key)
    assert status == 0 and out.startswith("court.list: 2 entries, 0 duplicates; key ")
    assert err == (f"edgeblock: note: {key}: a new key was made, as there was none; only boxes with a copy of it "
                   "read this list\n")
    assert run(capsys, "hash-list", rules / "court.list", rules / "secret.hashed", "--key", key)[2] == ""
    (rules / "court.list").unlink()
    status, out, _ = run(capsys, "check", "--config", config, "--rules", rules, "www.listed.example")
    assert status == 1 and "a block (secret.hashed:" in out
    assert run(capsys, "lint", "--config", config, rules)[0] == 0
    key.write_bytes(bytes(16))
    status, out, err = run(capsys, "check", "--config", config, "--rules", rules, "x.example")
    assert status == 0 and "warning: secret.hashed: was made under the key" in err
    (rules / "bad.list").write_text("fine.example\nco.uk\n")
    status, out, err = run(capsys, "hash-list", rules / "bad.list", rules / "bad.hashed", "--key", key)
    assert (status, out) == (1, "") and not (rules / "bad.hashed").exists()
    assert err.splitlines()[0].startswith("bad.list:2: 'co.uk' is a public suffix")
    assert err.splitlines()[-1] == f"edgeblock: {rules}/bad.hashed: not written; fix the list, or its settings"


def test_hash_list_says_what_a_box_needs_beside_its_file(capsys, tmp_path):
    key, config = tmp_path / "key", tmp_path / "box.toml"
    config.write_text(f'[rules]\nkey = "{tmp_path}/key"\n')
    key.write_bytes(bytes(range(16)))
    key.chmod(0o600)
    (tmp_path / "in.feed").write_text("domain\nfine.example\n")
    (tmp_path / "in.toml").write_text('action = "page"\nformat = "csv"\n')
    status, out, err = run(capsys, "hash-list", "--config", config, tmp_path / "in.feed", tmp_path / "out.txt")
    assert status == 0 and out.startswith("in.feed: 1 entry, 0 duplicates; key ")
    assert err.splitlines() == [
        "edgeblock: note: in.toml: what it says of this list, such as the action, is not in out.txt; put it beside "
        "that on the box, as out.toml, without format",
        "edgeblock: note: out.txt: its name does not say that this is a hashed list; name it .hashed, or put "
        'format = "hashed" into out.toml']
    (tmp_path / "rules").mkdir()
    (tmp_path / "out.txt").rename(tmp_path / "rules" / "out.txt")
    out = run(capsys, "lint", tmp_path / "rules")[1].splitlines()
    assert out[1] == ('out.txt:1: error: the file is a hashed list, and is to be read as \'domains\'; put format = '
                       '"hashed" into the settings of this list, or name the file .hashed and have no format in them')


def test_hash_list_without_a_key_that_it_may_have_names_the_option(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "a.list").write_text("fine.example\n")
    (tmp_path / "box.toml").write_text(f'[rules]\nkey = "{tmp_path}/file/key"\n')
    command = ("hash-list", tmp_path / "a.list", tmp_path / "a.hashed")
    assert one_line(capsys, *command, "--config", tmp_path / "box.toml").endswith(
        "; run this as root, or name the key of the boxes with --key FILE\n")
    assert "--key" not in one_line(capsys, *command, "--key", tmp_path / "file" / "key")


@pytest.mark.parametrize("backend, word", [("nft", "table inet edgeblock"), ("iptables", "*mangle")])
def test_ruleset_print_shows_either_back_end(capsys, backend, word):
    status, out, err = run(capsys, "ruleset", "print", "--backend", backend)
    assert (status, err) == (0, "") and word in out


def test_ruleset_print_shows_the_table_of_addresses_where_there_will_be_one(capsys, tmp_path):
    out = run(capsys, "ruleset", "print", "--backend", "nft")[1]
    assert "\ntable inet edgeblock_addresses {\n" in out and "map address4" in out
    out = run(capsys, "ruleset", "print", "--backend", "iptables")[1]
    assert "\n# table inet edgeblock_addresses {\n" in out
    assert all(line[:1] == "#" for line in out[out.index("# Beside these"):].splitlines())
    (tmp_path / "box.toml").write_text("[ruleset]\naddresses = false\n")
    assert "edgeblock_addresses" not in run(capsys, "ruleset", "print", "--backend", "nft", "--config",
                                            tmp_path / "box.toml")[1]


def test_a_ruleset_that_cannot_be_is_one_line(capsys, tmp_path):
    (tmp_path / "box.toml").write_text("[ruleset]\nmark_mask = 5\n")
    assert "two adjacent bits" in one_line(capsys, "ruleset", "print", "--backend", "nft", "--config",
                                           tmp_path / "box.toml")


def test_status_without_a_daemon_is_one_line(capsys, tmp_path):
    (tmp_path / "box.toml").write_text('[daemon]\ncontrol = "control.sock"\n')
    assert f"{tmp_path}/control.sock: no edgeblock is running here" in one_line(
        capsys, "status", "--config", tmp_path / "box.toml")


WORKER = {"state": "running", "restarts": 1, "lost": 2, "full": 1}
STATUS = {
    "version": "1", "queue_number": 4, "uptime": 200_000,
    "rules_age": 125, "rules_digest": "ab" * 32, "rules_problem": "",
    "lists": {"court": {"entries": 7, "expired": False, "refused": ""},
              "old": {"entries": 1, "expired": True, "refused": ""},
              "bad": {"entries": 0, "expired": False, "refused": "bad.list:1: 'a\nb' is no host"}},
    "vigil": {"filtering": True, "causes": [], "problems": [],
              "bypasses": [{"kind": "rule", "found": "-A FORWARD -j ACCEPT", "fix": "move it behind ours"}]},
    "canary": {"state": "ok", "off": "", "lacking": {"ipv6": "no forwarding"},
               "probes": [{"family": "ipv4", "protocol": "tls", "wrong": "", "succeeded": 1.0}]},
    "addresses": {"ranges": 3, "in_kernel": 3, "off": "", "problem": "", "restored": 0, "packets": {"list": 5}},
    "selfcheck": {"state": "ok", "tried": 449, "held": 449, "beside": 440, "over_blocked": 0, "lists": 1, "of": 1,
                  "problem": "", "refused": 0},
    "queue": {"packets": 12_345, "passed": 12_000, "dropped": 345, "waiting": 0},
    "stage1": {"passed_hello": 5, "piece": 9},
    "engine": dict.fromkeys(("table_flows", "flows", "names", "hellos", "requests", "quic_initials", "conflicts",
                             "overworked", "window_full", "unreadable", "hellos_ech"), 3),
    "matched": {"court": {"reset": 30, "observe": 2}, "more": {"page": 1}}, "visits": {"court": 9, "more": 1},
    "rules": {"entries": 7, "lists": 1}, "log": {"unlogged": 1, "lost": 0}, "workers": {"0": WORKER, "1": WORKER},
}


@pytest.fixture
def answer(monkeypatch):
    said = copy.deepcopy(STATUS)
    monkeypatch.setattr("edgeblock.asking.ask", lambda path, question: said)
    return said


def test_status_is_what_a_person_reads_first(capsys, answer):
    status, text, _ = run(capsys, "status")
    assert status == 0 and text.splitlines() == [
        "filtering",
        "daemon     edgeblock 1, up 2 d 7 h, 2 of 2 workers on queues 4 to 5, 2 restarts",
        "lists      7 entries of 1 lists in force, changed 2 m 5 s ago; 1 refused, 1 expired",
        "rules      abababababababab",
        "refused    bad.list:1: 'a\\nb' is no host",
        "goes past  -A FORWARD -j ACCEPT: move it behind ours",
        "addresses  3 of 3 ranges in the kernel, 5 packets met",
        "canary     ok: ipv4 tls; ipv6 not asked: no forwarding",
        "selfcheck  ok: 449 of 449 tries held, 0 of 440 neighbours blocked; 0 updates refused",
        "packets    12,345 read, 12,000 passed, 345 dropped, 6 lost unread, 0 waiting",
        "flows      3 remembered of 3; 3 names in 3 hellos, 3 requests, 3 QUIC Initials",
        "blocked    31 flows, 1 page, 30 reset (10 visits); 2 observed",
        "unread     12 packets or flows that could not be read to their end; 3 hellos with an encrypted one inside",
        "kernel     5 packets or flows passed by the first stage",
        "log        1 lines left out"]


def test_status_stays_short_whatever_goes_wrong(capsys, answer):
    answer["vigil"] |= {"filtering": False, "causes": ["the rules are gone"], "problems": ["no pin"] * 30,
                        "bypasses": answer["vigil"]["bypasses"] * 30}
    answer["lists"] = {f"l{number}": {"entries": 0, "expired": False, "refused": "bad"} for number in range(30)}
    answer["canary"]["probes"][0]["wrong"] = "passed"
    answer["rules_problem"] = "full disk"
    status, text, _ = run(capsys, "status")
    lines = text.splitlines()
    assert status == 1 and lines[0] == "NOT FILTERING: the rules are gone" and len(lines) <= 26
    assert text.count("and 27 more: edgeblock status --all") == 3 and "ipv4 tls FAILED: passed" in text
    assert "full disk" in text


def test_status_says_where_addresses_are_off(capsys, answer):
    off = "2 address entries hold on the watched ports only: [ruleset] addresses = false"
    answer["addresses"] |= {"ranges": 0, "in_kernel": 0, "off": off}
    assert f"addresses  OFF: {off}" in run(capsys, "status")[1].splitlines()


def test_status_says_what_became_of_orders_and_what_is_nearly_full(capsys, answer):
    answer["orders"] = {"orders": 2, "items": {"taken": 0, "in force": 1500, "ended": 3}, "problem": "full disk"}
    answer["capacity"] = {"entries": {"used": 81, "most": 100}, "addresses": {"used": 200_001, "most": 250_000},
                          "lists": {"used": 80, "most": 100}}
    lines = run(capsys, "status")[1].splitlines()
    assert [line for line in lines if line.startswith(("orders", "capacity"))] == [
        "orders     2: 1,500 in force, 3 ended", "orders     NOT ANSWERED: full disk",
        "capacity   NEARLY FULL: 81 entries in the longest list of at most 100",
        "capacity   NEARLY FULL: 200,001 addresses of at most 250,000"]


def test_status_has_all_of_it_for_programs_too(capsys, answer):
    text = run(capsys, "status", "--all")[1]
    assert re.search(r"(?m)^queue\.packets +12345$", text) and re.search(r"(?m)^lists\.bad\.refused ", text)
    assert json.loads(run(capsys, "status", "--json")[1]) == answer


def test_a_reader_that_goes_away_is_no_error(rules):
    (rules / "many.list").write_text("a..b\n" * 50_000)
    command = [sys.executable, "-m", "edgeblock", "lint", "--all", str(rules)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"many.list:1: ")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == cli.PIPE_CLOSED


def test_a_table_whose_reader_has_gone_ends_like_any_other_output(rules, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        done = subprocess.run([sys.executable, "-m", "edgeblock", "compile", "--rules", str(rules), "--output",
                               str(tmp_path / "out"), "--key", str(tmp_path / "key")], stdout=gone,
                              stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (cli.PIPE_CLOSED, "")


@pytest.mark.parametrize("module", ["edgeblock.blocklist.formats.scan", "edgeblock.core.engine"])
def test_a_core_of_other_sources_is_one_line(tmp_path, module):
    """As after a pull without a build; what is missing in the machine's own Python is told as it is."""
    code = ("import sys, types; sys.modules[sys.argv[1]] = types.ModuleType(sys.argv[1]); from edgeblock import cli; "
            "sys.exit(cli.main(['replay', 'none.pcap']))")
    done = subprocess.run([sys.executable, "-c", code, module], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{module}: the compiled core is missing or of other sources than these; run `make build`" in done.stderr


def test_ctrl_c_is_no_traceback(tmp_path):
    os.mkfifo(tmp_path / "box.toml")    # reading it waits until somebody writes
    # Who runs the tests in the background has that signal ignored.
    with subprocess.Popen(["env", "--default-signal=INT", sys.executable, "-m", "edgeblock", "lint", str(tmp_path),
                           "--config", str(tmp_path / "box.toml")], stderr=subprocess.PIPE) as process:
        with open(tmp_path / "box.toml", "w"):      # opens once the command reads
            process.send_signal(signal.SIGINT)
            assert process.stderr.read() == b""
        assert process.wait(30) == cli.INTERRUPTED


def test_names_that_no_terminal_can_show_are_shown_escaped(rules):
    done = subprocess.run([sys.executable, "-m", "edgeblock", "check", "--rules", str(rules), b"bad\xff.example"],
                          capture_output=True, env=os.environ | {"LC_ALL": "C.UTF-8"}, timeout=30, check=False)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("arguments", [("version",), ("check", "listed.example", "--rules"), ("lint",)])
def test_a_full_disk_behind_standard_output_is_one_line(rules, arguments):
    (rules / "court.list").write_text("bad..name\n" if arguments == ("lint",) else "listed.example\n")
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "edgeblock", *arguments, *([] if arguments == ("version",) else
                              [str(rules)])], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1:] == [
        "edgeblock: standard output: cannot be written: No space left on device"]
    assert "Traceback" not in done.stderr


def test_closed_standard_streams_change_no_answer(rules):
    for streams in (">&-", "2>&-", ">&- 2>&-"):
        done = subprocess.run(["sh", "-c", f'"$@" {streams}', "sh", sys.executable, "-m", "edgeblock", "check",
                               "--rules", str(rules), "www.listed.example"], capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr == "", streams


def test_rules_of_a_running_daemon_are_not_removed_in_silence(capsys, monkeypatch):
    removed = []
    monkeypatch.setattr("edgeblock.netfilter.ruleset.remove", lambda: removed.append(1))
    monkeypatch.setattr("edgeblock.daemon.claim.owner", lambda: 77)
    assert cli.main(["ruleset", "remove"]) == 2 and not removed
    assert "of a daemon that runs (process 77) and puts them back; stop it" in capsys.readouterr().err
    assert cli.main(["ruleset", "remove", "--force"]) == 0 and removed
    assert "puts its rules back" in capsys.readouterr().out
    monkeypatch.setattr("edgeblock.daemon.claim.owner", lambda: 0)
    assert cli.main(["ruleset", "remove"]) == 0 and len(removed) == 2
    assert capsys.readouterr() == ("", "")


def test_check_says_that_ids_change_where_the_box_has_no_key_yet(capsys, tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.list").write_text("a.example\n")
    file = tmp_path / "box.toml"
    file.write_text('[rules]\ndirectory = "lists"\nkey = "state/key"\n')
    assert cli.main(["check", "--config", str(file), "a.example"]) == 1
    out, err = capsys.readouterr()
    assert "other rule ids than these" in err and "is made when the daemon first starts" in err
    assert cli.main(["check", "--config", str(file), "b.example"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments", [
    ("impact", "a" * 300), ("impact", ""), ("check", "--rules", "a" * 300, "a.example"), ("lint", "a" * 300),
    ("check", "=a\nb"), ("check", ".a\nb.example"), ("check", "a.example @ x\ny")])
def test_odd_words_are_one_line(capsys, rules, arguments):
    rest = () if "--rules" in arguments or arguments[0] != "check" else ("--rules", rules)
    assert one_line(capsys, *arguments, *rest).startswith("edgeblock: ")
