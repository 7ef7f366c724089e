"""Manuals and completions say what the program does. In: packaging/pages.py. Out: its files, read and tried."""

import importlib.util
import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from edgeblock.config import Config
from edgeblock.fleet import zone
from edgeblock.fleet.sources import FetchSettings, SourceSettings
from edgeblock.fleet.web import Settings

SOURCE = Path(__file__).parent.parent.parent / "packaging" / "pages.py"


@pytest.fixture(scope="module")
def pages():
    spec = importlib.util.spec_from_file_location("pages", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain(roff):
    return re.sub(r"\\f[BR]|\\&", "", roff).replace("\\-", "-").replace("\\e", "\\")


def test_the_manual_has_every_command_and_every_option(pages):
    text = plain(pages.manual())
    seen = 0
    for name, summary, parser in pages.commands():
        part = text.split(f".SS {name}\n")[1].split("\n.S")[0]
        assert part.startswith(summary[0].upper() + summary[1:])
        for one in pages.arguments(parser):
            assert one.help is None or one.help in part
            assert all(option in part for option in one.option_strings)
            seen += 1
        assert (parser.epilog or "").strip() in part
    assert seen > 15
    assert "[--update FILE ...]" in text.split(".SH DESCRIPTION")[0] and "\nNAME_OR_URL ...\n" in text


def test_the_manual_says_how_often_an_argument_may_stand(pages):
    text = plain(pages.manual())
    assert "\n[--update FILE ...]\n" in text and "\n[NAME_OR_URL ...]\n" in text and "\n[--live]\n" in text
    assert "\n--output FILE\n" in text and "\nCAPTURE\n" in text


def test_the_manual_of_lists_is_for_who_writes_lists(pages):
    assert not re.findall(r"edgeblock/[a-z]+/|READERS", pages.lists())


def test_the_manual_has_every_setting_with_what_it_is_for(pages):
    text = plain(pages.settings())
    for section in fields(Config):
        part = text.split(f".SH [{section.name}]\n")[1].split("\n.SH")[0]
        for key in fields(section.default_factory):
            assert re.search(rf"^\.T[PQ]\n{key.name} = ", part, re.MULTILINE), key.name
        assert re.search(r"^\.TP\n.* = .*\n(\.TQ\n.*\n)*[A-Z\"]", part, re.MULTILINE)
    assert not re.search(r"^\.TP\n.*\n\.TP", text, re.MULTILINE)      # none without a word


def test_the_program_that_fetches_has_its_own(pages):
    text = plain(pages.manual("edgeblock-fetch"))
    for name, _, parser in pages.commands("edgeblock-fetch"):
        part = text.split(f".SS {name}\n")[1].split("\n.S")[0]
        assert (parser.epilog or "").strip() in part and "--config FILE" in part
    text = plain(pages.sources())
    assert "\n.SH [fetch]\n" in text and "\n.SH [[source]]\n" in text
    for record in (FetchSettings, SourceSettings, Settings, zone.Settings):
        for key in fields(record):
            assert key.name == "own" or re.search(rf"^\.T[PQ]\n{key.name} = ", text, re.MULTILINE), key.name


def test_the_manual_of_lists_has_every_row_and_every_sentence_of_the_page(pages):
    page = (SOURCE.parent.parent / "docs" / "lists.md").read_text()
    words = set(re.findall(r"[a-z0-9_]+", plain(pages.lists()).lower()))
    page = re.sub(r"\]\([^)]*\)|</?code>", " ", page)        # where links lead, and marks
    heads = {"entry", "key", "limit"}       # of first columns
    assert {word for word in re.findall(r"[a-z0-9_]+", page.lower()) if word not in words} <= heads


def test_no_line_is_taken_for_a_request_of_roff(pages):
    requests = r"(TH|SH|SS|TP|TQ|PP|IP|nf|fi|br|B|BR)( |$)"
    for text in (pages.manual(), pages.settings(), pages.lists(), pages.manual("edgeblock-fetch"), pages.sources()):
        for line in text.splitlines():
            assert not line.startswith("'") and (not line.startswith(".") or re.match(requests, line[1:])), line


@pytest.mark.parametrize(("typed", "offered"), [
    (["st"], {"status"}),
    (["r"], {"run", "replay", "report", "review", "ruleset"}),
    (["ruleset", ""], {"print", "apply", "remove", "--config", "--backend", "--force", "--help"}),
    (["ruleset", "print", "--backend", ""], {"nft", "iptables"}),
    (["replay", "--checksums", "v"], {"verify"}),
    (["status", "--j"], {"--json"}),
    (["run", "--config", ""], set()),                # then bash offers files
    (["nonsense", ""], set()),
])
def test_bash_offers_what_can_follow(pages, tmp_path, typed, offered):
    (tmp_path / "completion").write_text(pages.bash())
    words = " ".join(f"'{word}'" for word in ["edgeblock", *typed])
    done = subprocess.run(
        ["bash", "-c", f"source ./completion; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _edgeblock; "
                       'printf "%s\\n" "${COMPREPLY[@]}"'],
        cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert set(done.stdout.split()) == offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_know_every_command_and_option(pages, tmp_path, shell):
    text = getattr(pages, shell)()
    for name, _, parser in pages.commands():
        [line] = re.findall(rf"(?m)^    {name}\) .*", text) if shell == "zsh" else [
            "\n".join(line for line in text.splitlines() if f"from {name}'" in line or f"-a {name} " in line)]
        for one in pages.arguments(parser):
            for option in one.option_strings:
                assert (option if shell == "zsh" else f"-l {option[2:]}") in line
    (tmp_path / "completion").write_text(text)
    assert shutil.which(shell) is None or subprocess.run(
        [shell, "-n", "completion"], cwd=tmp_path, capture_output=True, text=True, check=True).stderr == ""


def test_they_go_where_a_system_looks_for_them(pages, tmp_path):
    pages.main(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
        "share/man/man8/edgeblock.8", "share/man/man5/edgeblock.toml.5", "share/man/man5/edgeblock.lists.5",
        "share/bash-completion/completions/edgeblock", "share/zsh/vendor-completions/_edgeblock",
        "share/fish/vendor_completions.d/edgeblock.fish",
        "share/man/man8/edgeblock-fetch.8", "share/man/man5/edgeblock.sources.5",
        "share/bash-completion/completions/edgeblock-fetch", "share/zsh/vendor-completions/_edgeblock-fetch",
        "share/fish/vendor_completions.d/edgeblock-fetch.fish"}


def test_bash_offers_the_commands_of_the_program_that_fetches(pages, tmp_path):
    (tmp_path / "completion").write_text(pages.bash("edgeblock-fetch"))
    done = subprocess.run(["bash", "-c", "source ./completion; COMP_WORDS=(edgeblock-fetch ''); COMP_CWORD=1; "
                           '_edgeblock_fetch; printf "%s\\n" "${COMPREPLY[@]}"'],
                          cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (["run", "once", "check", "status"], "")
