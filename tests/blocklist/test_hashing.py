"""Hashed lists judge as the plain ones do, and give nothing away but what they say they do."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock import config
from edgeblock.blocklist.compiler import Compiler
from edgeblock.blocklist.directory import find_lists
from edgeblock.blocklist.explain import explain
from edgeblock.blocklist.fingerprint import fingerprint
from edgeblock.blocklist.formats import Entry, HashedEntry, Problem, read_domains, read_hashed
from edgeblock.blocklist.guard import Guard, Protected
from edgeblock.blocklist.hashing import Hashing, hash_file, hash_list
from edgeblock.blocklist.intake import make_terms, take
from edgeblock.blocklist.keys import key_id
from edgeblock.blocklist.lint import lint
from edgeblock.blocklist.load import load
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.snapshot import open_snapshot, pack
from edgeblock.blocklist.store import read_key
from edgeblock.errors import ListError

from .making import KEY

FREE = ListSettings(allow_public_suffixes=True, allow_protected=True, allow_addresses=True, allow_shared=True,
                    widest_ipv4=0, widest_ipv6=0, max_unparsable=1)


def test_entries_with_terms_of_their_own_are_told_in_one_line():
    _, made = hashed("a.example\nb.example until=2030-01-01\nc.example until=2030-01-01\n")
    assert made.refused and [(one.line, one.why.partition(" with")[0]) for one in made.findings] == [
        (2, "is the first of 2 entries")]


def hashed(text, settings=FREE, protected=None, key=KEY):
    """(the hashed form of the lines in `text`, what hash_list says)."""
    out = io.BytesIO()
    guard = Guard(settings, protected or Protected())
    made = Hashing("court.list", key_id(key))
    hash_list(read_domains(io.BytesIO(text.encode())), settings, guard, key, out, made)
    return out.getvalue(), made


def matcher_of(items, settings=FREE):
    compiler = Compiler(KEY)
    compiler.add_list("list", settings)
    for item in items:
        assert isinstance(item, Entry | HashedEntry), item
        compiler.add(0, item)
    return ListMatcher(open_snapshot(pack(compiler.finish(), KEY, 1), KEY))


# Names of few labels, so that entries and questions meet.
LABEL = st.sampled_from(["a", "b", "com", "xn--bcher-kva"])
HOST = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
PATH = st.lists(st.sampled_from(["x", "y", "z"]), max_size=4).map(lambda parts: "/" + "/".join(parts))
URL = st.builds(lambda host, path, query: host + path + query, HOST, PATH, st.sampled_from(["", "?q", "?r=1"]))
ADDRESS = st.sampled_from(["192.0.2.1", "192.0.2.0/24", "192.0.2.1:443", "2001:db8::/32", "[2001:db8::1]:80"])
AT = st.sampled_from(["192.0.2.1", "192.0.2.0/24", "192.0.2.0/25", "2001:db8::/32", "64:ff9b::c000:201"])
ENTRY = st.builds(str.__add__, st.sampled_from(["", "", "@@"]), st.one_of(
    HOST, HOST.map("=".__add__), HOST.map("*.".__add__), URL,
    st.builds(lambda host, path: host + path.rstrip("/") + "/*", HOST, PATH), ADDRESS,
    st.builds("{}{} @ {}".format, st.sampled_from(["", "=", "*."]), HOST, AT)))


@given(st.lists(ENTRY, min_size=1, max_size=12), st.lists(st.tuples(HOST, PATH, st.sampled_from(["", "?q", "?r=1"])),
                                                          min_size=1, max_size=20),
       st.sampled_from(["ignore", "host"]))
def test_a_hashed_list_judges_as_the_plain_one(lines, questions, https):
    settings = ListSettings(https=https)
    text = "\n".join(lines)
    data, made = hashed(text)
    assert not made.refused
    plain = matcher_of(read_domains(io.BytesIO(text.encode())), settings)
    secret = matcher_of(read_hashed(io.BytesIO(data)), settings)
    for host, path, query in questions:
        for proto in ("tls", "http", "quic"):
            target = (path + query).encode() if proto == "http" else None
            for to in (b"", b"\xc0\0\2\1", b"\xc0\0\2\xff", bytes.fromhex("20010db8") + bytes(12)):
                assert secret.look_up(proto, host.encode(), target, to) == plain.look_up(
                    proto, host.encode(), target, to)
    for address in (b"\xc0\0\2\1", b"\xc0\0\2\2", bytes.fromhex("20010db8") + bytes(11) + b"\1"):
        for port in (0, 80, 443):
            assert secret.look_up_address(address, port) == plain.look_up_address(address, port)
    assert bytes(secret.snapshot.parts.rows) == bytes(plain.snapshot.parts.rows)
    assert secret.snapshot.parts.lists[0].entries == made.entries


LINES = """example.com
=only.example.org
*.wild.example.org
@@good.example.com
http://example.net/secret/page?q=1
example.net/dir/*
@@example.net/dir/fine
example.com
192.0.2.0/24
@@[2001:db8::1]:443
"""


def test_what_a_hashed_list_shows():
    data, made = hashed(LINES)
    assert (made.lines, made.entries, made.duplicates, made.unusable) == (10, 9, 1, 0)
    lines = data.decode().splitlines()
    assert lines[0] == (f"edgeblock-hashed 1 key={key_id(KEY).hex()} labels=c depths=2 url_max=27 directory_max=15")
    assert lines[1:3] == ["192.0.2.0/24", "@@[2001:db8::1]:443"]
    assert fingerprint(KEY, b"example.com").hex() + " host" in lines
    assert fingerprint(KEY, b"example.net").hex() + " urls-of" in lines
    assert "@@" + fingerprint(KEY, b"good.example.com").hex() + " host" in lines
    assert re.fullmatch(r"end 9 [0-9a-f]{64}", lines[-1])
    assert not re.search(rb"example|secret|page", data)
    # In the order of the fingerprints, not of the list.
    prints = [line.removeprefix("@@")[:32] for line in lines[3:-1]]
    assert prints == sorted(prints)
    assert hashed(LINES, key=bytes(16))[0] != data


def test_a_host_with_exceptions_alone_is_marked_so():
    data, _ = hashed("@@example.com/a\n")
    assert f"@@{fingerprint(KEY, b'example.com').hex()} urls-of" in data.decode()


@pytest.mark.parametrize(("change", "why"), [
    (lambda data: data[:len(data) // 2], "is no line of a hashed list; it was altered: make or copy it again"),
    (lambda data: b"\n".join(data.splitlines()[:-1]),
     "the end of the hashed list is missing; make or copy it again"),
    (lambda data: b"\n".join(data.splitlines()[:4] + data.splitlines()[5:]),
     "the hashed list was altered: it says 9 entries under a digest that does not fit; make or copy it again"),
    (lambda data: data.replace(b" host\n", b" url\n"),
     "the hashed list was altered: it says 9 entries under a digest that does not fit; make or copy it again"),
    (lambda data: data.replace(b"end 9 ", b"end 8 "),
     "the hashed list was altered: it says 8 entries under a digest that does not fit; make or copy it again"),
    (lambda data: data + b"example.com\n", "'example.com' stands behind the end of the hashed list"),
    (lambda data: data.replace(b"192.0.2.0/24", b"example.com"),
     "'example.com' is no line of a hashed list; it was altered: make or copy it again"),
    (lambda data: data.replace(b"hashed 1", b"hashed 3"),
     "is a hashed list of version 3, this edgeblock reads 2; make it again"),
    (lambda data: data.replace(b"key=", b"kex="), "is no hashed list; make it with `edgeblock hash-list`"),
    (lambda data: b"example.com\n", "is no hashed list; make it with `edgeblock hash-list`"),
    (lambda data: b"", "the end of the hashed list is missing; make or copy it again"),
    (lambda data: data.replace(b" host\n", b" ho\0st\n"), "the line has a control character (0x00)"),
])
def test_an_altered_one_is_refused_as_a_whole(change, why):
    *before, last = read_hashed(io.BytesIO(change(hashed(LINES)[0])))
    assert isinstance(last, Problem) and last.whole and last.why.endswith(why)
    assert not any(isinstance(item, Problem) for item in before)


def test_line_ends_and_comments_do_not_alter_it():
    data = b"\xef\xbb\xbf# for box 7\r\n" + hashed(LINES)[0].replace(b"\n", b"\r\n")
    assert not any(isinstance(item, Problem) for item in read_hashed(io.BytesIO(data)))


# Guard rails ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("text", "why"), [
    ("co.uk", "'co.uk' is a public suffix; if that is meant, put allow_public_suffixes = [\"co.uk\"]"),
    ("bank.example", "'bank.example' is protected; if that is meant, put allow_protected = [\"bank.example\"]"),
    ("x.tree.example", "'x.tree.example' is below the protected '*.tree.example'"),
    ("127.0.0.1", "127.0.0.1 has addresses of 127.0.0.0/8 (loopback)"),
    ("a..b", "1 of 1 lines cannot be used"),
    ("# nothing", "has no entries"),
])
def test_where_the_text_is_every_guard_rail_holds(text, why):
    protected = Protected(names=frozenset((b"bank.example",)), trees=frozenset((b"tree.example",)))
    data, made = hashed(text, ListSettings(), protected)
    assert data == b"" and [finding for finding in made.findings if finding.why.startswith(why)]


def test_a_hashed_list_is_not_hashed_again():
    out, made = io.BytesIO(), Hashing("court.hashed", key_id(KEY))
    hash_list(read_hashed(io.BytesIO(hashed(LINES)[0])), FREE, Guard(FREE, Protected()), KEY, out, made)
    assert out.getvalue() == b"" and made.refused
    assert list(map(str, made.findings)) == ["court.hashed: is a hashed list already"]


@pytest.mark.parametrize(("text", "settings", "why"), [
    ("co.uk", {}, "'co.uk' is a public suffix"),
    ("=com", {}, "'com' is a public suffix"),
    ("amazonaws.com", {}, "'amazonaws.com' covers the public suffix"),
    ("co.uk/*", {}, "every page of 'co.uk': the host is a public suffix"),
    ("bank.example", {}, "'bank.example' is protected"),
    ("www.bank.example", {}, "'www.bank.example' is protected"),
    ("bank.example/", {}, "the front page of 'bank.example': the host is protected"),
    ("bank.example/page", {"https": "host"},
     "with https = \"host\" the whole of 'bank.example': the host is protected"),
    ("tree.example", {}, "'tree.example' is protected"),
    ("www.tree.example", {}, "'www.tree.example' is below the protected '*.tree.example'"),
    ("10.0.0.0/8", {}, "10.0.0.0/8 is wider than /20"),
])
def test_on_the_box_suffixes_and_protected_names_are_still_found(text, settings, why):
    names = frozenset((b"bank.example", b"www.bank.example"))
    protected = Protected(names=names, trees=frozenset((b"tree.example",)))
    guard = Guard(ListSettings(**settings), protected, KEY)
    refusals = [guard.refuses(item) for item in read_hashed(io.BytesIO(hashed(text)[0]))]
    assert any(refusal and refusal.startswith(why) for refusal in refusals), refusals


@pytest.mark.parametrize("text", ["example.com", "bank.example/page", "@@bank.example", "other.tree.example",
                                  "@@bank.example/", "sub.bank.example"])
def test_on_the_box_other_entries_are_taken(text):
    protected = Protected(names=frozenset((b"bank.example",)), trees=frozenset((b"tree.example",)))
    guard = Guard(ListSettings(), protected, KEY)
    assert [guard.refuses(item) for item in read_hashed(io.BytesIO(hashed(text)[0]))] == \
        [None] * len(list(read_hashed(io.BytesIO(hashed(text)[0]))))


# In a rules directory ------------------------------------------------------------------------------------------

@pytest.fixture
def directory(tmp_path):
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "key").chmod(0o600)
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "court.hashed").write_bytes(hashed(LINES)[0])
    (rules / "more.list").write_text("example.com\n")
    return rules


def test_check_says_whether_a_name_is_on_it(directory):
    rules = load(directory, key_file=directory.parent / "key")
    host, = explain(rules, ["www.example.com"])
    rule = host.verdicts[0].tried[0].rules[0]
    text = (directory / "court.hashed").read_bytes().splitlines()
    line = 1 + text.index(fingerprint(KEY, b"example.com").hex().encode() + b" host")
    assert (rule.list, rule.file, rule.line, rule.entry, rule.in_force) == (
        "court", "court.hashed", line, "host and subdomains", True)
    page, other = explain(rules, ["http://example.net/secret/page?q=1", "http://example.net/secret"])
    assert page.blocked and page.verdicts[0].precedence.startswith("a block (court.hashed:")
    assert not other.blocked
    address, = explain(rules, ["192.0.2.9"])
    assert address.blocked and "court.hashed:2, address" in address.as_text()


def test_the_host_of_a_hashed_url_has_its_line(directory):
    (directory / "court.toml").write_text('https = "host"')
    record, = explain(load(directory, key=KEY), ["https://example.net/"])
    assert record.blocked
    assert re.search(r"a block \(court\.hashed:\d+, host of a URL", record.verdicts[0].precedence)


def test_a_missing_key_is_said(directory):
    with pytest.raises(ListError) as refused:
        load(directory, key_file=directory / "none")
    assert str(refused.value) == (
        f"court.hashed: is a hashed list and needs its key: {directory}/none: the key cannot be used: No such file "
        "or directory; run this as root, or with the --config of the box")


def test_lint_says_the_ids_of_both_keys(directory):
    why, = (one.why for one in lint(directory, key=bytes(16)).errors)
    assert why == (f"was made under the key {key_id(KEY).hex()}, and the key here is {key_id(bytes(16)).hex()}; make "
                   "it again with `edgeblock hash-list` and this key")


def test_another_key_is_said(directory):
    for key, shown in ((None, key_id(b"edgeblock-replay")), (bytes(16), key_id(bytes(16)))):
        with pytest.raises(ListError) as refused:
            load(directory, key=key)
        assert str(refused.value) == (
            f"court.hashed: was made under the key {key_id(KEY).hex()}, and the key here is {shown.hex()}; make it "
            "again with `edgeblock hash-list` and this key")


# From the command line -----------------------------------------------------------------------------------------

def test_a_file_becomes_a_hashed_one(tmp_path):
    (tmp_path / "export.csv").write_text("n;name\n1;example.com\n2;exmaple..com\n" + "3;example.org\n" * 40)
    (tmp_path / "export.toml").write_text("column = 'name'")
    out, key = tmp_path / "court.hashed", tmp_path / "state" / "key"
    made = hash_file(tmp_path / "export.csv", out, config.Rules(key=key))
    assert not made.refused and made.key_id == key_id(read_key(key))
    assert list(map(str, made.findings)) == ["export.csv:3: 'exmaple..com' has an empty label"]
    assert made.summary() == (f"export.csv: 2 entries, 39 duplicates, 1 line left out; key {made.key_id.hex()}")
    assert b"example" not in out.read_bytes() and out.stat().st_mode & 0o777 == 0o644
    rules = tmp_path / "rules"
    rules.mkdir()
    out.rename(rules / "court.hashed")
    record, = explain(load(rules, key_file=key), ["www.example.org"])
    assert record.blocked and record.verdicts[0].list == "court"
    assert take_all(rules, key) == {"court": 2}


def take_all(rules, key):
    """Entries of each list as the daemon takes them in."""
    terms = make_terms(config.Rules(directory=rules, key=key), read_key(key))
    files, errors, _ = find_lists(rules, terms.defaults)
    assert not errors
    return {source.name: take(source, terms, None, 0).lists[0].entries for source in files}


def test_what_is_refused_leaves_no_file(tmp_path):
    (tmp_path / "a.list").write_text("example.com\nco.uk\n")
    out = tmp_path / "a.hashed"
    made = hash_file(tmp_path / "a.list", out, config.Rules(key=tmp_path / "key"))
    assert made.refused and str(made.findings[0]).startswith("a.list:2: 'co.uk' is a public suffix; if that is meant")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.list", "key"]


@pytest.mark.parametrize(("arguments", "why"), [
    (("none.list", "a.hashed"), "none.list: cannot be read: No such file or directory"),
    (("a.xml", "a.hashed"), "a.xml: .xml says no format; give --format with one of domains, urls, hosts, rpz, csv, "),
    (("a.list", "a.list"), "a.list: is the list itself; name another file"),
    (("a.list", "none/a.hashed"), "none/a.hashed: cannot be written: No such file or directory"),
    (("a.list", "a.hashed", "a.list"), "a.list: is no key of 16 bytes"),
])
def test_what_cannot_be_is_one_line(tmp_path, monkeypatch, arguments, why):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.list").write_text("example.com\n")
    (tmp_path / "a.xml").write_text("example.com\n")
    names, key = arguments[:2], arguments[2] if len(arguments) > 2 else "key"
    with pytest.raises(ListError) as refused:
        hash_file(*names, config.Rules(), key)
    assert str(refused.value).startswith(why)


def test_a_stated_format_counts(tmp_path):
    (tmp_path / "a.xml").write_text("||example.com^\n")
    made = hash_file(tmp_path / "a.xml", tmp_path / "a.hashed", config.Rules(key=tmp_path / "key"), stated="adblock")
    assert made.entries == 1


def test_the_box_takes_a_hashed_list_of_its_key_only(directory):
    key = directory.parent / "key"
    assert take_all(directory, key) == {"court": 9, "more": 1}
    key.write_bytes(bytes(16))
    with pytest.raises(ListError, match=r"^court\.hashed: was made under the key [0-9a-f]{16}, and the key here is"):
        take_all(directory, key)


def test_lint_knows_what_is_wrong_with_one(directory):
    assert lint(directory).findings == []
    data = (directory / "court.hashed").read_bytes()
    (directory / "court.hashed").write_bytes(data[:-20])
    assert [finding.file for finding in lint(directory).findings] == ["court.hashed"]
    with pytest.raises(ListError, match=r"^court\.hashed:\d+: '.*' is no line of a hashed list"):
        load(directory, key=KEY)
