"""Tables: each sample and what it means, each mistake and what is said about it."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.lines import LINE_MAX, Entry, Passed, Problem, Remark
from edgeblock.blocklist.formats.table import read_table, split_row


def read(text, **options):
    return list(read_table(io.BytesIO(text if isinstance(text, bytes) else text.encode()), **options))


def test_a_table_as_it_is_exported():
    text = ("\ufeffid,URL,note\r\n1,http://example.com/a?b=1,x\r\n\r\n# comment\r\n"
            '2,example.org,"a, ""b"""\r\n3,"192.0.2.0/24","two\r\nlines"\r\n4,@@bücher.test,\r\n'
            "5,example.net/x/*,\r\n")
    assert read(text) == [
        Entry(2, Kind.URL_WITH_QUERY, b"example.com/a?b=1"), Entry(5, Kind.HOST, b"example.org"),
        Entry(6, Kind.NETWORK, b"\0\x18\xc0\0\2\0"), Entry(8, Kind.HOST, b"xn--bcher-kva.test", True),
        Entry(9, Kind.DIRECTORY, b"example.net/x", False, 1)]


@pytest.mark.parametrize(("head", "row"), [
    ("id,domain", "1,a.example"), ("id;domain", "1;a.example"), ("id\tdomain", "1\ta.example"),
    ("id|domain", "1|a.example"), ("domain", "a.example"), ("\"x,y,z\";Domain ", "1; a.example "),
    ("ip,host,url", "192.0.2.1,b.example,a.example"), ("ip,domain", "192.0.2.1,a.example"),
])
def test_delimiter_and_column_are_found(head, row):
    assert [item for item in read(f"{head}\n{row}\n") if not isinstance(item, Remark)] == [
        Entry(2, Kind.HOST, b"a.example")]


def test_a_column_that_was_guessed_is_told():
    remark, _ = read("ip,domain\n192.0.2.1,a.example")
    assert remark == Remark(1, "the entries are taken from the column 'domain'; set column if another is meant")


@pytest.mark.parametrize("head", ["indicator,type,url", "url,type,ioc", "type,value,host"])
def test_an_indicator_goes_before_what_is_told_about_it(head):
    told = {"type": "domain", "indicator": "bad.example", "ioc": "bad.example", "value": "bad.example"}
    row = [told.get(name, "x.example/report") for name in head.split(",")]
    assert read(f"{head}\n{','.join(row)}")[1:] == [Entry(2, Kind.HOST, b"bad.example")]


def test_rows_of_other_types_are_passed_over():
    other = "rows of a type that is no host, URL or address"
    assert read("type,value\nfilename,update.zip\nDomain,a.example\nmd5,0a\nurl,http://b.example/x\n"
                "domain|ip,c.example|192.0.2.1\nip-dst,192.0.2.0/24\n") == [
        Passed(2, other), Entry(3, Kind.HOST, b"a.example"), Passed(4, other), Entry(5, Kind.URL, b"b.example/x"),
        Entry(6, Kind.HOST, b"c.example"), Entry(7, Kind.NETWORK, b"\0\x18\xc0\0\2\0")]
    assert read("type,value\nfilename,update.zip", column="value") == [Passed(2, other)]


def test_a_host_beside_a_path_is_a_url():
    remark, *items = read("host,path\na.example,/x/y\na.example,z?b=1\nb.example,")
    assert items == [Entry(2, Kind.URL, b"a.example/x/y"), Entry(3, Kind.URL_WITH_QUERY, b"a.example/z?b=1"),
                     Entry(4, Kind.HOST, b"b.example")]
    assert isinstance(remark, Remark) and "together" in remark.why


def test_a_line_that_says_the_delimiter():
    assert read("\ufeffsep=;\nDomain;Why\na.example;\"x;\ny\"") == [Entry(3, Kind.HOST, b"a.example")]


def test_one_column_has_no_delimiter():
    assert read('url\nhttp://a.example/b,c\n"http://a.example/""d"') == [
        Entry(2, Kind.URL, b"a.example/b,c"), Entry(3, Kind.URL, b"a.example/\"d")]


def test_a_blank_before_a_quote_is_none():
    assert read('id, "url", "tags"\n1, "http://a.example/b,c", "x, y.example"') == [
        Entry(2, Kind.URL, b"a.example/b,c")]


def test_heads_in_a_comment():
    assert read("# Feed of the day\n# id,url,threat\n1,http://a.example/b,x\n2,http://a.example/c,y") == [
        Entry(3, Kind.URL, b"a.example/b"), Entry(4, Kind.URL, b"a.example/c")]


@pytest.mark.parametrize(("row", "fields"), [("Foo, inc.example,worse.example", 3), ("worse.example", 1)])
def test_a_row_that_is_longer_or_shorter_than_its_head_is_refused(row, fields):
    problem, last = read(f"name,domain\n{row}\nx,a.example")
    assert isinstance(problem, Problem) and str(fields) in problem.why and last == Entry(3, Kind.HOST, b"a.example")
    assert read("name,domain\nx,a.example,,")  == [Entry(2, Kind.HOST, b"a.example")]


def test_delimiter_and_column_are_stated():
    text = "Domain blocked, as ordered;domain\na.example;b.example\n"
    assert read(text, delimiter=";", column="domain blocked, as ordered") == [Entry(2, Kind.HOST, b"a.example")]
    assert read("2026-01-01,a.example\n2026-01-02,b.example", column=2) == [
        Entry(1, Kind.HOST, b"a.example"), Entry(2, Kind.HOST, b"b.example")]


@pytest.mark.parametrize(("text", "options", "why"), [
    ("id,name,\"why, then\"\n1,2,3", {},
     "there is none of the columns url, uri, domain, host, ...; the first row "
     "has 'id', 'name', 'why, then': set column to one of these, or to a number if the first row is no head"),
    ("id,url\n1,2", {"column": "domian"}, "there is no column 'domian'; the first row has 'id', 'url': set column to "
     "one of these, or to a number if the first row is no head"),
    (",".join("abcdefghijklmn"), {},
     "there is none of the columns url, uri, domain, host, ...; the first row has "
     "'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l' and 2 more: set column to one of these, or to a "
     "number if the first row is no head"),
])
def test_a_column_that_is_not_there(text, options, why):
    assert read(text, **options) == [Problem(1, why, whole=True)]


@pytest.mark.parametrize(("row", "why"), [
    ("1", "the row has 1 columns, and the entry is in number 2"),
    ("1,", "'' has nothing in this column"),
    ("1,a..example", "'a..example' has an empty label"),
    ("1,a.example b.example",
     "'a.example b.example' has a space inside; one entry a line, and %20 for a space in a URL"),
    ('1,"a.example"x', "'1,\"a.example\"x' is no row: ',' expected after '\"'"),
    ('1,"a.example', "'1,\"a.example' has a quote that is not closed"),
    (b"1,\xe4.example", "the line is not UTF-8 (0xe4); save it as UTF-8, or state its encoding in the "
     "settings of this list"),
    ("1,a\0.example", "the line has a control character (0x00)"),
    ("1," + "a" * LINE_MAX, f"the line is longer than {LINE_MAX} bytes"),
])
def test_a_mistake(row, why):
    row = row if isinstance(row, bytes) else row.encode()
    assert read(b"id,domain\n" + row + b"\n3,fine.example\n") == [
        Problem(2, why), Entry(3, Kind.HOST, b"fine.example")]


def test_an_open_quote_takes_no_more_than_its_row():
    rows = "".join(f"{number},host{number}.example\n" for number in range(5000))
    items = read(f'id,domain\n0,"open.example\n{rows}')
    assert items[0] == Problem(2, "'0,\"open.example' has a quote that is not closed")
    assert len(items) == 5001 and items[-1] == Entry(5002, Kind.HOST, b"host4999.example")


def test_a_tab_is_shown_as_one_can_read_it():
    assert read('url\tn\n"a.example" \t1', delimiter="\t") == [
        Problem(2, "'\"a.example\" \\t1' is no row: '\\t' expected after '\"'")]


@given(st.text(alphabet="ab,;\t \"'.\r#=", min_size=1, max_size=20), st.sampled_from(",;\t|"))
def test_a_row_without_quotes_is_split_as_with_them(text, delimiter):
    def split_by_library():
        return next(csv.reader([text], delimiter=delimiter, strict=True, skipinitialspace=delimiter != "\t"))

    try:
        wanted = split_by_library()
    except csv.Error:
        with pytest.raises(csv.Error):
            split_row(text, delimiter)
    else:
        assert split_row(text, delimiter) == wanted
