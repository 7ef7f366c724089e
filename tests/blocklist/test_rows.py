"""The rows of a snapshot, read in plain Python, say what the matcher says: two readers that share no search."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from edgeblock.blocklist.compiler import lay_over, merge
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.rows import Rows, Verdict
from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.snapshot import open_snapshot, pack, stack
from tests.blocklist.making import KEY, compiled, snapshot_of

LABELS = ("a", "b", "www", "example")
HOST = st.lists(st.sampled_from(LABELS), min_size=1, max_size=4).map(".".join)
TARGET = st.lists(st.sampled_from(("x", "y", "page.html")), max_size=3).map(lambda parts: "/" + "/".join(parts))
QUERY = st.sampled_from(("", "?q=1"))
ADDRESS = st.sampled_from(("192.0.2.1", "192.0.2.128", "192.0.3.1", "2001:db8::1", "2001:db8:1::1",
                           "64:ff9b::c000:201", "::ffff:192.0.2.1"))
LINE = st.one_of(
    HOST, HOST.map("={}".format), HOST.map("*.{}".format),
    st.tuples(HOST, TARGET, QUERY).map("".join),
    st.tuples(HOST, TARGET).map(lambda both: "".join(both).rstrip("/") + "/*"), ADDRESS,
    st.sampled_from(("192.0.2.0/24", "192.0.2.128/25", "192.0.2.1:443", "2001:db8::/32", "[2001:db8::1]:80")))
AT = st.sampled_from(("192.0.2.1", "192.0.2.0/24", "192.0.2.128/25", "2001:db8::/32", "64:ff9b::c000:201/128"))
LINE = LINE | st.builds("{}{} @ {}".format, st.sampled_from(("", "=", "*.")), HOST, AT)
LINES = st.lists(st.tuples(st.booleans(), LINE).map(lambda both: "@@" * both[0] + both[1]), max_size=6)
TERMS = st.builds(ListSettings, action=st.sampled_from(("reset", "observe")), mandatory=st.booleans(),
                  https=st.sampled_from(("ignore", "host")))
LISTS = st.lists(st.tuples(TERMS, LINES), min_size=1, max_size=4)
SAYS = {Verdict.NOTHING: None, Verdict.OBSERVE: "observe", Verdict.BLOCK: "reset", Verdict.EXCEPTION: "accept",
        Verdict.MANDATORY: "reset"}


def agree(rows, matcher, proto, host, target, address, port):
    for to in (b"", ipaddress.ip_address(address).packed):
        found = matcher.look_up(proto, host.encode(), target.encode() if proto == "http" else None, to)
        assert SAYS[rows.name(proto, host.encode(), target.encode(), to)] == (found and found.action)
    found = matcher.look_up_address(ipaddress.ip_address(address).packed, port)
    assert SAYS[rows.address(ipaddress.ip_address(address).packed, port)] == (found and found.action)


@given(LISTS, st.sampled_from(("tls", "quic", "http")), HOST, TARGET, QUERY, ADDRESS, st.sampled_from((80, 443)))
def test_both_say_the_same(lists, proto, host, target, query, address, port):
    named = [(f"list{number}", terms, lines) for number, (terms, lines) in enumerate(lists)]
    snapshot = open_snapshot(snapshot_of(*named), KEY)
    agree(Rows(snapshot), ListMatcher(snapshot), proto, host, target + query, address, port)


def test_what_is_below_a_directory():
    lines = ["a.example/dir/*", "b.example/*", "c.example/x/y/*"]
    rows = Rows(open_snapshot(snapshot_of(("court", None, lines)), KEY))
    for url, verdict in (("a.example/dir/page", Verdict.BLOCK), ("a.example/dir", Verdict.BLOCK),
                         ("a.example/dir/sub/page", Verdict.BLOCK), ("a.example/dirt", Verdict.NOTHING),
                         ("a.example/", Verdict.NOTHING), ("b.example/", Verdict.BLOCK),
                         ("b.example/page", Verdict.BLOCK), ("c.example/x/y/z?q", Verdict.BLOCK),
                         ("c.example/x/z", Verdict.NOTHING)):
        host, _, path = url.partition("/")
        assert rows.name("http", host.encode(), f"/{path}".encode()) is verdict, url


@given(LISTS, LISTS, st.sampled_from(("tls", "http")), HOST, TARGET, ADDRESS, st.sampled_from((80, 443)))
def test_both_say_the_same_of_what_lies_over_another(before, after, proto, host, target, address, port):
    def parts(lists, since):
        made = []
        for number, (terms, lines) in enumerate(lists):
            one = compiled((f"list{number}", terms, lines))
            one.lists[0].part = f"{number if before[number:number + 1] == [(terms, lines)] else since}"
            made.append(one)
        return made

    base = open_snapshot(pack(merge(parts(before, "")), KEY, 1), KEY)
    over = open_snapshot(pack(lay_over(parts(after, "new"), base.digest, base.parts), KEY, 2), KEY)
    snapshot = stack(over, base)
    agree(Rows(snapshot), ListMatcher(snapshot), proto, host, target, address, port)


def test_an_entry_is_there_or_not():
    rows = Rows(open_snapshot(snapshot_of(("court", None, ["listed.example", "@@fine.example", "a.example/x"])), KEY))
    assert rows.has("court", Kind.HOST, b"listed.example", False)
    assert rows.has("court", Kind.HOST, b"fine.example", True)
    assert rows.has("court", Kind.URL, b"a.example/x", False)
    for name, kind, key, exception in (("other", Kind.HOST, b"listed.example", False),
                                       ("court", Kind.HOST_ONLY, b"listed.example", False),
                                       ("court", Kind.HOST, b"listed.example", True),
                                       ("court", Kind.HOST, b"www.listed.example", False)):
        assert not rows.has(name, kind, key, exception)
