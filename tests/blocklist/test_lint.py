"""What lint says of a directory: errors, warnings and notes, each with its place."""

import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock import config
from edgeblock.blocklist import lint as module
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import Entry, read_domains
from edgeblock.blocklist.lint import covering, grouped, lint, text_of
from edgeblock.errors import ListError

from .making import matcher

KEY = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"


@pytest.fixture
def report(tmp_path):
    """Writes lists and lints them: report({"a.list": "example.com"})."""
    def run(files, rules=None, **more):
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        return lint(tmp_path, rules, **more)
    return run


def said(findings):
    return list(map(str, findings))


def test_clean_lists_get_a_summary(report):
    made = report({"a.list": "example.com\n", "b.hosts": "0.0.0.0 a.example b.example\n"})
    assert (made.findings, made.notes, made.lists, made.entries) == ([], [], 2, 3)
    assert made.summary() == "0 errors, 0 warnings in 2 lists with 3 entries"


def test_every_line_that_cannot_be_used_has_its_place(report):
    made = report({"a.list": "ok.example\na..b\n\x00\n", "b.csv": "a,b\n1,2\n"})
    assert said(made.errors) == [
        "a.list:2: 'a..b' has an empty label", "a.list:3: the line has a control character (0x00)",
        "a.list: 2 of 3 lines cannot be used, more than a share of 0.05: fix them; if that is meant, put a higher "
        "max_unparsable into the settings of this list",
        "b.csv:1: there is none of the columns url, uri, domain, host, ...; the first row has 'a', 'b': set "
        "column to one of these, or to a number if the first row is no head"]


def test_what_a_list_tells_and_nobody_hears(report):
    made = report({"a.list": "a.example\n", "a.toml": 'reason = "x"\nstatus = 403\n', "b.list": "b.example\n",
                   "b.toml": 'action = "page"\nredirect = "https://a.isp.example/"\n', "c.list": "c.example\n",
                   "c.toml": 'action = "redirect"\nredirect = "https://a.isp.example/"\npage = "c.html"\n',
                   "c.html": "<p>$reference $resaon $5 $order</p>"})
    told = " | ".join(said(made.notes))
    assert 'a.list: reason, status do nothing with action = "reset"' in told
    assert 'b.list: redirect does nothing with action = "page"' in told
    assert 'c.list: page does nothing with action = "redirect"' in told
    assert "c.list: its page has $resaon, which is not filled in; known are $authority," in told


def test_nothing_is_said_of_a_page_whose_list_is_refused_for_its_settings(report):
    made = report({"court.list": "a.example\n", "court.toml": 'acton = "page"\npage = "court.html"\n',
                   "court.html": "<!doctype html><p>x"})
    assert made.warnings == [] and len(made.errors) == 1


def test_a_line_that_is_left_out_is_a_warning(report):
    made = report({"a.list": "a..b\n" + "".join(f"n{n}.example\n" for n in range(60))})
    assert made.errors == []
    assert said(made.warnings) == ["a.list:1: 'a..b' has an empty label; this line is left out"]


def test_a_signature_is_looked_at_as_in_the_drop_directory(report):
    files = {"a.list": "a.example\n", "a.toml": f"signer = '{KEY}'", "b.list": "b.example\n"}
    assert said(report(files).errors) == [
        "a.list: needs a signature by E7620F1842B4E81F, and there is no a.list.minisig; drop that first"]
    assert said(report({"a.list.minisig": "x"}).errors) == [
        "a.list: the signature is no .minisig file of four lines; sign the list again"]
    assert len(report({}, config.Rules(signers=(KEY,), require_signatures=True)).errors) == 2


def test_guard_rails_are_errors_with_their_way_out(report):
    made = report({"a.list": "example.com\nco.uk\n10.0.0.0/8\nbank.example\n", "b.list": "github.io\n",
                   "b.toml": "allow_public_suffixes = ['github.io']"},
                  config.Rules(allow_protected=("bank.example",)))
    assert said(made.errors) == [
        "a.list:2: 'co.uk' is a public suffix; if that is meant, put allow_public_suffixes = [\"co.uk\"] into the "
        "settings of this list",
        "a.list:3: 10.0.0.0/8 is wider than /20; if that is meant, put widest_ipv4 = 8 into the settings of this "
        "list"]


def test_old_ranges_of_shared_networks_are_a_note(report, tmp_path):
    own = tmp_path / "own.networks"
    own.write_text("[Apple]\nkind = x\nsource = y\ndate = 2019-01-01\n17.0.0.0/8\n")
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "a.list").write_text("listed.example")
    found = lint(tmp_path / "rules", config.Rules(shared=own))
    assert not found.findings
    assert any(note.file == "[rules] shared" and "Apple (2019-01-01)" in note.why for note in found.notes)


def test_the_operators_protected_names(report, tmp_path):
    names = tmp_path / ".protected"
    names.write_text("mine.example\n")
    assert said(report({"a.list": "mine.example"}, config.Rules(protected=names)).errors) == [
        "a.list:1: 'mine.example' is protected; if that is meant, put allow_protected = [\"mine.example\"] into the "
        "settings of this list"]
    with pytest.raises(ListError, match="the protected names cannot be read"):
        report({}, config.Rules(protected=tmp_path / "none"))


def test_many_refusals_are_counted(report, monkeypatch):
    monkeypatch.setattr(module, "ALIKE_MAX", 20)
    made = report({"a.list": "".join(f"127.0.0.{n}\n" for n in range(50))})
    assert len(made.errors) == module.ALIKE_MAX + 1
    assert str(made.errors[-1]) == "a.list: has 30 more entries that no list may have"


def test_what_is_refused_covers_nothing_and_counts_for_nothing(report):
    made = report({"a.list": "example.com\ncom\nhttps://exa<mple.com/x\nhttp://example.org/x\n",
                   "a.toml": "max_unparsable = 1"})
    assert [one.line for one in made.errors] == [2] and "public suffix" in made.errors[0].why
    assert [one.line for one in made.warnings] == [3]
    assert not any("begin with https" in one.why for one in made.notes)


def test_settings_with_a_mistake_say_that_the_list_was_not_read(report):
    made = report({"a.list": "x..y\n", "a.toml": "colour = 3\nhue = 4\n"})
    assert [one.file for one in made.errors] == ["a.toml"] * 2 and not made.lists
    assert said(made.notes)[-1] == "a.toml: no line of its list was read; lint again once these settings can be used"


def test_twice_and_covered(report):
    made = report({"a.list": "www.example.com\nexample.com\nexample.com\n=example.com\n*.example.com\n"
                             "example.org/a?q\nexample.org/a\nexample.org/a/b/c\nexample.org/a/*\nexample.com/x\n"
                             "@@example.com\n192.0.2.1\n192.0.2.0/24\n192.0.2.1:80\n2001:db8::1\n2001:db8::/32\n"})
    assert not made.errors
    assert said(made.warnings) == [
        "a.list:1: 'www.example.com' is covered by 'example.com', in line 2",
        "a.list:3: 'example.com' is listed already, in line 2",
        "a.list:4: '=example.com' is covered by 'example.com', in line 2",
        "a.list:5: '*.example.com' is covered by 'example.com', in line 2",
        "a.list:6: 'example.org/a?q' is covered by 'example.org/a', in line 7",
        "a.list:7: 'example.org/a' is covered by 'example.org/a/*', in line 9",
        "a.list:8: 'example.org/a/b/c' is covered by 'example.org/a/*', in line 9",
        "a.list:10: 'example.com/x' is covered by 'example.com', in line 2",
        "a.list:12: '192.0.2.1' is covered by '192.0.2.0/24', in line 13",
        "a.list:14: '192.0.2.1:80' is covered by '192.0.2.1', in line 12",
        "a.list:15: '2001:db8::1' is covered by '2001:db8::/32', in line 16"]


def test_many_of_a_sort_are_counted(report, monkeypatch):
    monkeypatch.setattr(module, "ALIKE_MAX", 20)
    made = report({"a.list": "example.com\n" * 31 + "".join(f"n{n}.example.com\n" for n in range(50))})
    assert len(made.warnings) == 2 * module.ALIKE_MAX + 2
    assert said(made.warnings)[-2:] == ["a.list: has 10 more entries that are listed twice",
                                        "a.list: has 30 more entries that are covered by others"]


def test_lists_beside_one_another(report):
    made = report({"a.list": "one.example\ntwo.example\n", "b.list": "x.example\ntwo.example\none.example\n",
                   "c.list": "www.two.example\n"})
    assert not made.findings
    assert said(made.notes) == ["b.list:2: 2 entries are also in a.list, such as this one in line 2"]


def test_what_is_passed_over_is_counted_by_sort(report):
    made = report({"a.adblock": "||a.example^\nx##y\nx##z\n/re/\n", "b.hosts": "127.0.0.1 localhost\n"})
    assert said(made.notes) == ["a.adblock:2: 2 lines passed over: rules about page elements (##, #@#, #?#, $$)",
                                "a.adblock:4: 1 line passed over: regular expressions",
                                "b.hosts:1: 1 line passed over: names of the machine itself, such as localhost"]
    assert said(made.warnings) == ["b.hosts: has no entries"]


def test_memory_has_a_bound(report, monkeypatch):
    monkeypatch.setattr(module, "ENTRIES_COMPARED", 3)
    made = report({"a.list": "".join(f"n{n}.example\n" for n in range(5)), "b.list": "n1.example\n"})
    assert said(made.notes) == ["b.list: only the first 3 entries of all lists were compared with one another"]
    assert made.entries == 6


NAMES = st.lists(st.sampled_from(["a", "b", "example"]), min_size=1, max_size=3).map(".".join)
LINES = NAMES | NAMES.map("=".__add__) | NAMES.map("*.".__add__) | st.builds(
    str.__add__, NAMES, st.sampled_from(["/", "/x", "/x/y", "/x?q", "/*", "/x/*", "/x/y/*"])) | st.sampled_from(
    ["192.0.2.1", "192.0.2.0/31", "192.0.2.0/24", "192.0.2.1:80", "2001:db8::1", "2001:db8::/32"])


def entry_of(line):
    entry, = read_domains(io.BytesIO(line.encode()))
    assert isinstance(entry, Entry)
    return entry


@given(LINES, LINES, NAMES, st.sampled_from(["/", "/x", "/x/y", "/x/y/z", "/x?q"]))
def test_what_is_covered_is_never_missed_without_it(narrow, broad, host, target):
    """If lint says that one entry covers another, whatever the other matches the one matches too."""
    one, other = entry_of(narrow), entry_of(broad)
    marks = list(covering((one.kind, one.key, one.exception)))
    if (other.kind, other.key, other.exception) not in marks:
        return
    both, alone = matcher(narrow, broad), matcher(broad)
    for proto, path in (("tls", None), ("http", target.encode())):
        assert bool(both.look_up(proto, host.encode(), path)) == bool(alone.look_up(proto, host.encode(), path))
    for address in (b"\xc0\0\2\1", b"\xc0\0\2\0", bytes.fromhex("20010db8") + bytes(11) + b"\1"):
        for port in (0, 80):
            assert bool(both.look_up_address(address, port)) == bool(alone.look_up_address(address, port))


@given(LINES)
def test_entries_are_shown_as_written(line):
    entry = entry_of(line)
    shown = text_of((entry.kind, entry.key, False))
    again = entry_of(shown[1:-1])
    assert (again.kind, again.key) == (entry.kind, entry.key)
    assert entry.kind is not Kind.URL_MARK


def test_findings_of_one_sort_are_told_once(report):
    bad = "".join(f"n{n} x.example\n" for n in range(40))
    made = report({"a.list": "com\nnet\nx..y\n" + bad + "ok.example\n"})
    told = said(grouped(made.findings))
    assert len(told) == 5 and len(made.findings) == 44
    assert told[0].startswith("a.list:1: 'com' is a public suffix") and told[1].startswith("a.list:2: 'net' is")
    assert told[2] == "a.list:3: 'x..y' has an empty label"
    assert told[3] == ("a.list:4: 'n0 x.example' has a space inside; one entry a line, and %20 for a space in a URL "
                       "(40 of this sort, in lines 4, 5, 6, 7, 8, ...)")


def test_every_finding_is_kept_where_that_is_asked(report, monkeypatch):
    monkeypatch.setattr(module, "ALIKE_MAX", 5)
    bad = "".join(f"n{n} x.example\n" for n in range(40))
    assert len(report({"a.list": bad}).errors) == 6
    assert said(report({}).warnings) == ["a.list: has 35 more lines that cannot be used", "a.list: has no entries"]
    assert len(report({}, everything=True).errors) == 41


@pytest.mark.parametrize(("name", "text", "said_of_it"), [
    ("a.conf", "address=/a.example/\n",
     'a configuration of dnsmasq; put format = "dnsmasq" into a.toml, or name the file .dnsmasq'),
    ("a.conf", "a.example\nb.example\n", 'a list of names, URLs or addresses; put format = "domains" into a.toml'),
    ("a", "a.example\nb.example @ads\n", 'put format = "domain-set" into a.toml'),
    ("a.rules", 'alert http any any -> any any (msg:"x"; sid:1;)\n', "the rules of an intrusion detection system"),
    ("a.md", "Some words.\n", "is not read: .md is not one of"),
])
def test_a_file_whose_name_says_nothing_is_told_by_its_content(report, name, text, said_of_it):
    warning, = report({name: text}).warnings
    assert said_of_it in str(warning)


def test_urls_are_counted_in_a_packed_list_too(tmp_path):
    (tmp_path / "a.urls.gz").write_bytes(gzip.compress(b"https://a.example/x\nhttp://b.example/y\n"))
    assert "1 of 2 URLs begin with https://" in str(lint(tmp_path).notes[0])


def test_the_register_is_known_under_the_name_of_a_table(tmp_path):
    row = ";\u043f.example;;\u0421\u0443\u0434;1/2;2024-01-01\n"
    (tmp_path / "dump.csv").write_bytes(f"Updated: 2024-01-01 00:00:00 +0000\n{row}".encode("cp1251"))
    assert "state its encoding" in str(lint(tmp_path).errors[0])
    (tmp_path / "dump.toml").write_text('encoding = "windows-1251"')
    made = lint(tmp_path)
    assert (made.errors, made.entries) == ([], 1) and "the Russian register" in str(made.notes[0])


def test_all_mistakes_in_the_settings_of_a_list_are_told_at_once(report):
    made = report({"a.list": "a.example\n", "a.toml": 'action = "blok"\nmandatroy = true\nexpires = "soon"\n'})
    assert {finding.why.partition(";")[0] for finding in made.errors} == {
        "action = 'blok' is not one of drop, reset, page, redirect, observe", "unknown key 'mandatroy'",
        "expires = 'soon' is no date such as 2030-12-31 without quotes"}
    assert {finding.file for finding in made.errors} == {"a.toml"} and len(made.errors) == 3


def test_a_redirect_that_leads_nowhere_is_said(report):
    files = {"a.list": "a.example\n", "a.toml": 'action = "redirect"\n'}
    assert report(files).findings == []
    (warning,) = report(files, redirect="").warnings
    assert str(warning).startswith('a.toml: action = "redirect" needs a URL') and "under [reply]" in str(warning)
    files["a.toml"] += 'redirect = "https://b.example/"\n'
    assert report(files, redirect="").findings == []


@pytest.mark.parametrize(("entry", "url", "loops"), [
    ("isp.example", "http://why.isp.example/a", True), ("isp.example", "https://isp.example/", True),
    ("=isp.example", "https://isp.example/", True), ("*.isp.example", "https://isp.example/", False),
    ("isp.example/a", "http://isp.example/a?r=$reference", True), ("isp.example/a", "http://isp.example/b", False),
    ("isp.example/a/*", "http://isp.example/a/b", True), ("isp.example/a", "https://isp.example/a", False),
    ("isp.example\n@@why.isp.example", "https://why.isp.example/", False),
    ("other.example", "https://isp.example/", False),
])
def test_a_redirect_to_what_is_listed_is_said(report, entry, url, loops):
    files = {"a.list": "a.example\n", "a.toml": f'action = "redirect"\nredirect = "{url}"\n',
             "b.list": f"{entry}\n"}
    found = said(report(files).warnings)
    assert found == [f"a.list: sends those whom it blocks to {url}, which is listed itself (b.list:1), so they are "
                     "blocked again; add an exception for it, or name another"] * loops
    files["a.toml"] = 'action = "redirect"\n'
    assert bool(said(report(files, redirect=url).warnings)) == loops
    assert report(files | {"b.toml": 'action = "observe"\n'}, redirect=url).warnings == []
    files["b.toml"] = 'https = "host"\n'
    assert bool(report(files, redirect=url).warnings) == (loops or url == "https://isp.example/a")


def test_what_browsers_make_of_http_is_said(report):
    notes = said(report({"a.list": "a.example/x\n", "b.list": "b.example\n", "b.toml": 'action = "page"\n',
                         "c.list": "c.example/x\n", "c.toml": 'https = "host"\n'}).notes)
    assert len(notes) == 2 and all("browsers turn http:// into https:// by themselves" in one for one in notes)
    assert notes[0].startswith("a.list: has 1 URL, ")
    assert notes[1].startswith('b.list: action = "page" holds in plain')
