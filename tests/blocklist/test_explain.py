"""A rules directory: loaded whole or refused in one line; linted line by line; explained name by name."""

import json
import os
import re
import time
from pathlib import Path

import pytest

from edgeblock.blocklist.explain import explain
from edgeblock.blocklist.formats import EXTENSIONS, READERS, find_format
from edgeblock.blocklist.lint import lint
from edgeblock.blocklist.load import SHARED_KEY, load
from edgeblock.config import Rules
from edgeblock.errors import ListError

from .canonical_cases import HOSTS, URLS

SAMPLES = Path(__file__).parents[2] / "rules"


@pytest.fixture
def directory(tmp_path):
    """Writes files: directory(**{"a.list": "example.com"}) gives their directory."""
    def write(files=None, **more):
        for name, text in {**(files or {}), **more}.items():
            path = tmp_path / name
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path
    return write


def refused(path, **settings):
    with pytest.raises(ListError) as error:
        load(path, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


# Loading -----------------------------------------------------------------------------------------------------

def test_lists_with_and_without_settings(directory):
    rules = load(directory({
        "b.list": "example.com\nexample.com\n@@www.example.com\n", "a.txt": "example.org",
        "a.toml": "action = 'page'\ncategory = 'orders'\nmandatory = true\nhttps = 'host'\nexpires = 2999-01-01",
    }), action="drop")
    assert [(info.name, info.file, info.action, info.category, info.https, info.mandatory, info.entries,
             info.duplicates) for info in rules.lists] == [
        ("a", "a.txt", "page", "orders", "host", True, 1, 0), ("b", "b.list", "drop", "", "ignore", False, 2, 1)]
    assert rules.matcher.list_names == ("a", "b")
    assert rules.matcher.look_up("tls", b"example.org").action == "page"
    assert rules.matcher.look_up("tls", b"example.com").action == "drop"
    assert rules.matcher.look_up("tls", b"www.example.com").action == "accept"
    assert rules.warnings == ()


def test_the_defaults_of_the_caller(directory):
    path = directory({"a.list": "example.com/x"})
    assert load(path).matcher.look_up("tls", b"example.com") is None
    assert load(path, https="host").matcher.look_up("tls", b"example.com").action == "reset"


def test_an_empty_directory_blocks_nothing(tmp_path):
    rules = load(tmp_path)
    assert rules.lists == () and rules.matcher.look_up("tls", b"example.com") is None


def test_the_same_directory_and_key_make_the_same_bytes(directory):
    path = directory({"a.list": "example.com\nexample.org/x", "b.list": "192.0.2.1"})
    assert load(path, now=5).snapshot == load(path, now=5, key=SHARED_KEY).snapshot
    assert load(path, now=5).snapshot != load(path, now=5, key=bytes(16)).snapshot


def test_an_expired_list_is_not_in_force(directory):
    path = directory({"a.list": "example.com", "a.toml": "expires = 2020-01-01T00:00:00Z"})
    when = 1_577_836_800
    assert load(path, now=when - 1).matcher.look_up("tls", b"example.com")
    rules = load(path, now=when)
    assert rules.matcher.look_up("tls", b"example.com") is None
    assert rules.lists[0].expired and rules.lists[0].entries == 0
    assert [str(warning) for warning in rules.warnings] == [
        "a.list: expired on 2020-01-01 00:00 UTC; it is not in force"]
    assert [str(finding) for finding in lint(path, now=when).findings] == [
        "a.list: expired on 2020-01-01 00:00 UTC; it is not in force"]


def test_what_is_no_list_is_left_alone_and_named(directory):
    path = directory({"a.list": "example.com", "README.md": "# hello", "feed.xml": "x", ".hidden.list": "!!",
                      "a.list.rejected": "why", "orphan.toml": "action = 'drop'", "plain": "x"})
    known = ", ".join(EXTENSIONS)
    expected = [
        f"README.md: is not read: .md is not one of {known}, and no README.toml states a format",
        f"feed.xml: is not read: .xml is not one of {known}, and no feed.toml states a format",
        "orphan.toml: has no list beside it, such as orphan.list",
        f"plain: is not read: no extension is not one of {known}, and no plain.toml states a format"]
    assert sorted(map(str, load(path).warnings)) == expected
    assert list(map(str, lint(path).findings)) == expected


def test_settings_by_a_name_that_is_a_lists_own_say_what_to_call_them(directory):
    path = directory({"court.list": "example.com", "court.list.toml": "action = 'page'", "feed.csv.gz.toml": "",
                      "feed.csv": "domain\nexample.com\n", "gone.list.toml": ""})
    not_read = "is not read, and what it says does not hold: the settings of"
    assert list(map(str, lint(path).findings)) == [
        f"court.list.toml: {not_read} court.list are in court.toml; rename it",
        f"feed.csv.gz.toml: {not_read} feed.csv.gz are in feed.toml; rename it",
        "gone.list.toml: has no list beside it, such as gone.list"]


def test_what_is_no_file_is_called_what_it_is(directory):
    path = directory({"a.list": "example.com"})
    (path / "sub").mkdir()
    os.mkfifo(path / "pipe.xyz")
    assert list(map(str, lint(path).findings)) == [
        f"pipe.xyz: is not read: is a pipe, not a file; lists are files of {path} itself",
        f"sub: is not read: is a directory, not a file; lists are files of {path} itself"]


def test_what_refuses_a_list_is_said_once(directory):
    path = directory({"a.list": "".join(f"n{n}..example\n" for n in range(40)), "b.list": "<html>",
                      "c.csv": "a,b\n1,2", "d.json": "{", "e.list": "example.com", "e.toml": "colour = 3",
                      "f.list": "example.com"})
    warnings = list(map(str, load(path, tolerant=True).warnings))
    assert [one.partition(":")[0] for one in warnings] == ["e.toml", "a.list", "b.list", "c.csv", "d.json", "a.list"]
    assert all(one.endswith("the daemon refuses this list") and "?;" not in one for one in warnings[:5])
    assert warnings[5] == "a.list:1: 'n0..example' has an empty label (and 39 more)"


def test_a_bad_line_of_a_long_list_is_left_out_as_in_the_daemon(directory):
    path = directory({"a.list": "x..y\n" + "".join(f"n{n}.example\n" for n in range(40)) + "z..y\n"})
    rules = load(path)
    assert rules.matcher.look_up("tls", b"n39.example") and rules.lists[0].entries == 40
    assert [str(warning) for warning in rules.warnings] == [
        "a.list:1: 'x..y' has an empty label; this line is left out (and 1 more)"]
    (path / "a.toml").write_text("max_unparsable = 0")
    assert refused(path).startswith("a.list:1: 'x..y' has an empty label (and 1 more; ")


@pytest.mark.parametrize(("entry", "name", "warned"), [
    ("blocked.example.com", "blocked.example.com", False), ("vk.com", "vk.com", False),
    ("192.0.2.0/24", "192.0.2.1", False), ("facebook.com", "facebook.com", True), ("com", "a.com", True),
    ("co.uk", "a.co.uk", True), ("gov.uk", "www.gov.uk", True), ("10.98.3.10", "10.98.3.10", False),
    ("0.0.0.0/0", "203.0.113.7", True), ("::/0", "[2001:db8::1]", True)])
def test_what_only_the_daemon_refuses_is_in_force_here(directory, entry, name, warned):
    """A capture is replayed, and a name checked, against any list that can be read: the guard rails only warn."""
    path = directory({"a.list": entry})
    assert explain(load(path), [name])[0].blocked and load(path).warnings == ()
    loaded = load(path, Rules())
    assert explain(loaded, [name])[0].blocked
    assert [str(one).startswith("a.list:1: ") and str(one).endswith("; the daemon refuses this list")
            for one in loaded.warnings] == [True] * warned


def test_a_missing_signature_is_a_warning(directory):
    path = directory({"a.list": "a.example"})
    loaded = load(path, Rules(require_signatures=True))
    assert explain(loaded, ["a.example"])[0].blocked
    assert [str(warning) for warning in loaded.warnings] == [
        "a.list: [rules] require_signatures = true, and [rules] signers has no key for this list; the daemon refuses "
        "this list"]


def test_a_format_may_be_stated(directory):
    path = directory({"feed.xml": "example.com", "feed.toml": "format = 'domains'"})
    assert load(path).matcher.look_up("tls", b"example.com").list == "feed"


def test_a_missing_directory(tmp_path):
    assert refused(tmp_path / "none") == (
        f"{tmp_path}/none: there is no such rules directory; make it, or name another")
    (tmp_path / "file").touch()
    assert refused(tmp_path / "file") == (
        f"{tmp_path}/file: is no directory; give the directory that the lists are in")
    with pytest.raises(ListError):
        lint(tmp_path / "none")


@pytest.mark.parametrize(("files", "why"), [
    ({"court.list": "a.com\nexmaple..com"}, "court.list:2: 'exmaple..com' has an empty label"),
    ({"court.list": "a.com", "court.toml": "acton = 'drop'"},
     "court.toml: unknown key 'acton'; did you mean 'action'?"),
    ({"court.list": "a.com", "court.txt": "b.com"}, "court.txt: has the same list name as court.list; rename one"),
    ({"court.xml": "a b", "court.toml": "action = 'drop'"},
     "court.xml: has no known extension; state its format in court.toml"),
    ({"court.conf": 'local-zone: "a.com" refuse', "court.toml": "action = 'drop'"},
     "court.conf: has no known extension; it is a configuration of unbound; put format = \"unbound\" into "
     "court.toml, or name the file .unbound"),
    ({"court.list.gz": b"\x1f\x8b\x08"},
     "court.list.gz:1: the file ends in the middle of what is packed in it; copy it again"),
    ({"court.list.xz": b"x"}, "court.list.xz: is packed in a way that is not read; pack it with gzip or zstd, or "
     "unpack it and drop what is inside"),
    ({"court.list": "a.com\n".encode("utf-16")}, "court.list:1: the file is UTF-16; save it as UTF-8, or put "
     "encoding = \"utf-16\" into the settings of this list"),
    ({"court.list": "a.com", "court.toml": "x" * 70_000},
     "court.toml: is longer than 65536 bytes; is it really the settings of a list?"),
    ({"co\nurt.list": "a.com"}, "'co\\nurt.list': has a character in its name that cannot be printed"),
])
def test_what_cannot_be_used_is_one_line(directory, files, why):
    path = directory(files)
    assert refused(path) == why
    said = list(map(str, lint(path).findings))
    assert said[0] == why
    assert all("lines cannot be used, more than a share of" in other for other in said[1:])


def test_the_first_of_several_is_named_and_the_others_counted(directory):
    path = directory({"a.list": "ok.com\na..b\n=\n", "b.list": "x\0y"})
    assert refused(path) == f"a.list:2: 'a..b' has an empty label (and 2 more; `edgeblock lint {path}` lists all)"
    assert list(map(str, lint(path).findings)) == [
        "a.list:2: 'a..b' has an empty label", "a.list:3: '=' has no host",
        "a.list: 2 of 3 lines cannot be used, more than a share of 0.05: fix them; if that is meant, put a higher "
        "max_unparsable into the settings of this list", "b.list:1: the line has a control character (0x00)",
        "b.list: 1 of 1 lines cannot be used, more than a share of 0.05: fix them; if that is meant, put a higher "
        "max_unparsable into the settings of this list", "b.list: has no entries"]


def test_things_that_are_no_files_are_refused_at_once(directory):
    path = directory()
    (path / "folder.list").mkdir()
    os.mkfifo(path / "pipe.list")
    (path / "gone.list").symlink_to(path / "nowhere")
    expected = ["folder.list: is a directory, not a file",
                "gone.list: cannot be read: No such file or directory", "pipe.list: is a pipe, not a file"]
    assert list(map(str, lint(path).findings)) == expected
    assert refused(path).startswith(f"{expected[0]} (and 2 more")


def test_a_link_to_a_list_is_a_list(directory, tmp_path):
    path = directory({"real.data": "example.com"})
    (path / "a.list").symlink_to(path / "real.data")
    assert load(path).matcher.look_up("tls", b"example.com").list == "a"


def test_a_file_that_cannot_be_opened(directory):
    path = directory()
    (path / "a.list").symlink_to(path / "a.list")
    assert refused(path) == "a.list: cannot be read: Too many levels of symbolic links"


def test_lint_of_a_list_without_entries(directory):
    path = directory({"a.list": "# nothing yet\n"})
    assert list(map(str, lint(path).findings)) == ["a.list: has no entries"]
    assert load(path).lists[0].entries == 0


# The shipped samples -----------------------------------------------------------------------------------------

def test_the_samples_are_clean_and_show_every_kind_of_entry():
    assert lint(SAMPLES).findings == []
    rules = load(SAMPLES)
    text = "\n".join(path.read_text() for path in SAMPLES.iterdir())
    for sign in ("\n=", "\n*.", "\n@@", "\nhttp://", "?q=", "/*\n", "\n# ", "\n; ", "/48", "]:443", "ü"):
        assert sign in text
    assert {info.action for info in rules.lists} == {"reset", "page", "drop", "redirect", "observe"}
    shown = {find_format(info.file) for info in rules.lists}
    # The first needs the key of a box; no file name says that it is one of the others.
    assert shown == set(READERS) - {"hashed", "register", "maltrail"}


@pytest.mark.parametrize(("name", "verdict", "place"), [
    ("listed.example.com", "reset", "hosts"), ("www.listed.example.com", "reset", "hosts"),
    ("notlisted.example.com", "accept", None), ("help.listed.example.com", "accept", "allowed"),
    ("only.example.org", "reset", "hosts"), ("www.only.example.org", "accept", None),
    ("wild.example.org", "accept", None), ("a.wild.example.org", "reset", "hosts"),
    ("http://pages.example.com/bad/page.html", "page", "pages"), ("http://pages.example.com/", "accept", None),
    ("http://pages.example.org/gallery/1", "page", "pages"),
    ("http://pages.example.org/gallery/safe.html", "accept", "allowed"),
    ("ordered.example.net", "drop", "mandatory"), ("moved.example.org", "reset", "moved"),
    ("http://moved.example.org/", "redirect", "moved"),
    ("192.0.2.66", "reset", "addresses"), ("203.0.113.80:8443", "reset", "addresses"),
    ("203.0.113.80", "accept", None), ("2001:db8:bad::7", "reset", "addresses"),
    ("http://press.example.com/listed/article.html", "reset", "press"),
    ("http://press.example.com/archive/2020", "reset", "press"),
    ("http://press.example.com/archive/index.html", "accept", "press"), ("press.example.com", "accept", None),
    ("banner.adverts.example.com", "reset", "adverts"), ("x.adverts.example.com", "accept", None),
    ("zone.example.com", "reset", "resolver"), ("www.zone.example.com", "reset", "resolver"),
    ("good.zone.example.com", "accept", "resolver"), ("garden.example.com", "reset", "resolver"),
    ("www.garden.example.com", "accept", None), ("198.51.100.79", "reset", "resolver"),
    ("http://register.example.com/shop", "reset", "register"), ("www.register.example.org", "reset", "register"),
    ("198.51.100.99", "reset", "register"), ("www.filters.example.com", "reset", "filters"),
    ("good.filters.example.com", "accept", "filters"), ("other.example.com", "accept", None),
    ("http://filters.example.net/listed/x", "reset", "filters"), ("only.filters.example.org", "reset", "filters"),
    ("www.only.filters.example.org", "accept", None), ("www.nfq.example.com", "reset", "domains"),
    ("www.nfq.example.net", "reset", "domains"), ("secure.nfq.example.org", "reset", "ssl_host"),
    ("http://nfq.example.org/listed?id=1", "reset", "urls"), ("http://nfq.example.org/listed*page", "reset", "urls"),
    ("192.0.2.77:3001", "reset", "hostlist"), ("192.0.2.77:80", "accept", None), ("192.0.2.78", "observe", "ssl_ips"),
])
def test_the_samples_do_what_they_say(name, verdict, place):
    record = explain(load(SAMPLES), [name])[0]
    assert (record.verdicts[0].verdict, record.verdicts[0].list) == (verdict, place)
    assert record.blocked == (verdict not in ("accept", "observe"))


# Explaining --------------------------------------------------------------------------------------------------

def test_a_record_says_everything(directory):
    rules = load(directory({"court.list": "# orders\nexample.com\n", "ok.list": "\n@@www.example.com",
                            "pages.list": "www.example.com/bad", "pages.toml": "action = 'page'"}))
    record = explain(rules, ["WWW.Example.com"])[0]
    assert (record.canonical, record.problem, record.blocked) == ("www.example.com", "", False)
    tls, http = record.verdicts
    assert (tls.proto, tls.verdict, tls.list) == ("tls", "accept", "ok")
    assert tls.precedence == (
        "an exception outranks every block that is not mandatory (ok.list:2, host and subdomains)")
    assert [(tried.text, [(rule.file, rule.line, rule.entry, rule.applies, rule.in_force) for rule in tried.rules])
            for tried in tls.tried] == [
        ("example.com", [("court.list", 2, "host and subdomains", True, False)]),
        ("www.example.com", [("ok.list", 2, "host and subdomains", True, True)])]
    assert (http.proto, http.verdict) == ("http", "accept")
    again = json.loads(json.dumps(record.as_dict()))
    assert again["verdicts"][0]["rule"] == tls.rule and again["blocked"] is False
    assert record.as_text().splitlines()[:3] == [
        "WWW.Example.com  (compared as www.example.com)",
        "  tls     accept: an exception outranks every block that is not mandatory (ok.list:2, host and subdomains)",
        "        example.com"]


@pytest.mark.parametrize(("lists", "name", "blocked", "precedence"), [
    ({"a.list": "example.com"}, "example.com", True, "a block (a.list:1, host and subdomains)"),
    ({"a.list": "example.com"}, "example.org", False, "nothing listed applies"),
    ({"a.list": "example.com/x"}, "example.com", False,
     "nothing listed applies; other URLs of this host are listed"),
    ({"a.list": "example.com\n=example.com"}, "example.com", True,
     "a block, the most specific of those that apply (a.list:2, host only)"),
    ({"a.list": "@@example.com"}, "example.com", False, "an exception (a.list:1, host and subdomains)"),
    ({"a.list": "example.com", "a.toml": "mandatory = true", "b.list": "@@example.com"}, "example.com", True,
     "a mandatory block outranks exceptions and other blocks (a.list:1, host and subdomains)"),
    ({"a.list": "example.com", "a.toml": "action = 'observe'"}, "example.com", False,
     "listed, to be reported only (a.list:1, host and subdomains)"),
    ({"a.list": "\nexample.com/x", "a.toml": "https = 'host'"}, "https://example.com/other", True,
     "a block (a.list:2, host of a URL (https = \"host\"))"),
    ({"a.list": "example.com/x"}, "https://example.com/x", False,
     "nothing listed applies; other URLs of this host are listed"),
    ({"a.list": "example.com/x"}, "http://example.com/x", True, "a block (a.list:1, URL)"),
    ({"a.list": "example.com/x"}, "example.com/x?y#z", True, "a block (a.list:1, URL)"),
    ({"a.list": "192.0.2.0/24"}, "http://192.0.2.7/x", True, "a block (a.list:1, address)"),
    ({"a.list": "192.0.2.7:443"}, "https://192.0.2.7/x", True, "a block (a.list:1, address and port)"),
    ({"a.list": "192.0.2.7:443"}, "http://192.0.2.7/x", False, "nothing listed applies"),
    ({"a.list": "192.0.2.7:8080"}, "http://192.0.2.7:8080/x", True, "a block (a.list:1, address and port)"),
    ({"a.list": "[2001:db8::1]:443"}, "[2001:db8::1]:443", True, "a block (a.list:1, address and port)"),
    ({"a.list": "2001:db8::/32"}, "2001:db8::1", True, "a block (a.list:1, address)"),
])
def test_why(directory, lists, name, blocked, precedence):
    record = explain(load(directory(lists)), [name])[0]
    assert record.blocked == blocked
    assert record.verdicts[0].precedence == precedence
    assert record.name in record.as_text()


@pytest.mark.parametrize(("name", "problem"), [
    ("exmaple..com", "has an empty label"), ("", "has no host"), ("ftp://example.com/", "is no http or https URL"),
    ("http://a..b/", "has an empty label"),
    ("a b", "has the character ' ' in its host, which no host has; one a line, without quotes and punctuation"),
    ("shop[.]example", "is written so that nobody follows it; write shop.example"),
    ("hxxp://shop.example/a", "is written so that nobody follows it; write http://shop.example/a"),
])
def test_what_is_no_name(directory, name, problem):
    record = explain(load(directory()), [name])[0]
    assert (record.canonical, record.problem, record.verdicts, record.blocked) == (None, problem, (), False)
    assert record.as_text() == f"{name}: {problem}"


CHARACTER = "has the character {!r} in its host, which no host has; one a line, without quotes and punctuation"
PLACED = "has an '@' and an address behind it; for a host at an address put blanks around the '@'"


@pytest.mark.parametrize(("name", "problem"), [
    ("=shop.example", "begins with '=', as an entry of a list may and no name does; ask for shop.example"),
    ("*.shop.example", "begins with '*.', as an entry of a list may and no name does; ask for www.shop.example"),
    ("@@shop.example", "begins with '@@', as an entry of a list may and no name does; ask for shop.example"),
    ("*.*.shop.example", "begins with '*.', as an entry of a list may and no name does; ask for www.shop.example"),
    ("=", "begins with '=', as an entry of a list may and no name does; ask for a name"),
    ("||shop.example^", "begins with '||', as an entry of a list may and no name does; ask for shop.example"),
    ("shop.example,", CHARACTER.format(",")), ('"shop.example"', CHARACTER.format('"')),
    ("http://shop.example;/x", CHARACTER.format(";")), ("(shop.example)", CHARACTER.format("(")),
    ("shop.example@203.0.113.9", PLACED), ("shop.example@2001:db8::1", PLACED),
    ("shop.example@203.0.113.0/24", PLACED), ("shop.example@203.0.113.9/x", PLACED),
    ("somebody@shop.example", "has an '@'; write the host alone"),
    ("somebody@shop.example/x", "has an '@'; write the host alone"),
    (".shop.example", "begins with '.', as an entry of a list may and no name does; ask for shop.example"),
    ("192.0.2.*", "is no prefix; write it with a length, such as 192.0.2.0/24"),
    ("fe80::1%eth0", "is an address of one interface (%); no client asks for one through this box"),
])
def test_what_a_list_may_have_around_a_name_is_not_said_to_pass(directory, name, problem):
    lists = "shop.example\n203.0.113.9\n2001:db8::1\n192.0.2.0/24\n"
    record = explain(load(directory({"a.list": lists})), [name])[0]
    assert (record.canonical, record.problem, record.verdicts) == (None, problem, ())


@pytest.mark.parametrize("name", [
    "Shop.Example", "shop.example.", "shop.example:8443", "http://somebody:secret@shop.example/", "//shop.example/",
    "https://shop.example:444/x?y=*", "sh%6fp.example", "a$b.shop.example", "http://*.shop.example/",
])
def test_what_the_wire_may_have_is_answered(directory, name):
    assert explain(load(directory({"a.list": "shop.example\n"})), [name])[0].blocked


def test_check_and_the_engine_agree_on_every_spelling(directory):
    """What `explain` says of a name is what the matcher says of the same name on the wire."""
    def plain(cases):
        return [(text, answer.decode()) for text, answer, _ in cases if answer and isinstance(text, str)
                and not re.match("[^/]+@", text)]       # what is no name is told so

    hosts = [(text, host) for text, host in plain(HOSTS) if re.fullmatch(r"[a-z0-9._-]+", host)
             and not host.replace(".", "").isdigit()]
    urls = [(text, url) for text, url in plain(URLS) if "*" not in url and text != "example.com"]
    lines = ["=" + host for _, host in hosts] + ["http://" + url for _, url in urls]
    rules = load(directory({"a.list": "\n".join(lines)}))
    for (text, host), record in zip(hosts, explain(rules, [text for text, _ in hosts]), strict=True):
        assert record.canonical == host
        assert record.blocked == bool(rules.matcher.look_up("tls", text.encode())) is True
    for (_, url), record in zip(urls, explain(rules, [text for text, _ in urls]), strict=True):
        host, _, target = url.partition("/")
        assert record.canonical == url
        assert rules.matcher.look_up("http", host.encode(), b"/" + target.encode()).list == "a"
        assert {verdict.proto: verdict.list for verdict in record.verdicts}["http"] == "a"


def test_a_line_that_is_gone_is_not_invented(directory):
    path = directory({"a.list": "example.com"})
    rules = load(path)
    (path / "a.list").write_text("example.org\n")
    record = explain(rules, ["example.com"])[0]
    assert record.verdicts[0].precedence == "a block (a.list, host and subdomains)"
    assert record.verdicts[0].tried[0].rules[0].line is None


def test_the_clock_is_asked_only_when_nothing_is_said(directory):
    path = directory({"a.list": "example.com"})
    before = int(time.time())
    assert before <= load(path).matcher.snapshot.built <= time.time()
    assert load(path, now=7).matcher.snapshot.built == 7


# A snapshot file ---------------------------------------------------------------------------------------------------

def test_a_snapshot_answers_as_its_directory_does(directory, tmp_path):
    rules = load(directory({"court.list": "example.com\n@@www.example.com\n", "court.toml": "category = 'orders'"}))
    path = tmp_path / "rules.snapshot"
    path.write_bytes(rules.snapshot)
    again = load(path)
    assert [(info.name, info.action, info.category, info.entries) for info in again.lists] == [
        ("court", "reset", "orders", 2)]
    for name in ("example.com", "www.example.com", "other.example"):
        [record], [expected] = explain(again, [name]), explain(rules, [name])
        assert record.blocked == expected.blocked
        assert [verdict.rule for verdict in record.verdicts] == [verdict.rule for verdict in expected.verdicts]
    (tmp_path / "key").write_bytes(bytes(16))
    (tmp_path / "key").chmod(0o600)
    assert refused(path, key_file=tmp_path / "key") == (
        f"{path}: was built under another key; build it with the key of this box")
    path.write_bytes(rules.snapshot[:-1])
    assert "build or copy it again" in refused(path)


@pytest.mark.parametrize(("url", "blocked"), [
    ("http://example.com/a/c%2fd/..", True), ("example.com/a/c%2fd/..#part", True), ("http://example.com/a", True),
    ("http://example.com/a/..", False), ("http://example.com/b/c%2fd/..", False)])
def test_a_path_that_servers_read_in_several_ways(tmp_path, url, blocked):
    """What the engine blocks is blocked, whichever reading the canonical form is."""
    (tmp_path / "court.list").write_text("http://example.com/a\n")
    [record] = explain(load(tmp_path), [url])
    assert record.blocked is blocked
    [http] = [verdict for verdict in record.verdicts if verdict.proto == "http"]
    assert ("nothing listed applies" in http.precedence) is not blocked
    if "%2f" in url and blocked:
        assert "several ways" in http.precedence and http.rule
