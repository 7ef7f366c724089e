"""Response policy zones: each sample record and what it means, each mistake and what is said about it."""

import io

import pytest

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import network_text
from edgeblock.blocklist.formats.lines import Entry, Passed, Problem
from edgeblock.blocklist.formats.zone import RECORD_MAX, read_zone

UPKEEP = "records that keep the zone itself going (SOA, NS, DNSSEC)"
OWN = "records of the zone's own name"
HEAD = "$ORIGIN rpz.example.net.\n@ SOA localhost. root.localhost. 1 2 3 4 5\n"


def read(text):
    return list(read_zone(io.BytesIO(text if isinstance(text, bytes) else text.encode())))


def records(*lines):
    """Items of records below HEAD, without what keeps the zone going."""
    return read(HEAD + "\n".join(lines))[1:]


def test_a_zone_as_it_is_written():
    assert read("""\
\ufeff; a sample\r
$TTL 2h\r
$ORIGIN rpz.example.net.\r
@               IN SOA  localhost. root.localhost. (\r
                        2026010100  ; serial (of the day)\r
                        1h 15m 30d 2h )\r
                IN NS   localhost.\r
Bad.Example     CNAME   .           ; no such name\r
*.bad.example   CNAME   .\r
quiet.example   3600 IN CNAME *.    ; no data\r
drop.example    IN 3600 CNAME rpz-drop.\r
good.bad.example CNAME rpz-passthru.\r
garden.example  A       192.0.2.1\r
                AAAA    2001:db8::1\r
                TXT     "see; (here)" more\r
away.example    CNAME   garden.example.org.\r
bücher.test     CNAME   .\r
abs.example.rpz.example.net. CNAME .\r
""") == [
        Passed(4, UPKEEP), Passed(7, UPKEEP),
        Entry(8, Kind.HOST_ONLY, b"bad.example"), Entry(9, Kind.SUBDOMAINS, b"bad.example"),
        Entry(10, Kind.HOST_ONLY, b"quiet.example"), Entry(11, Kind.HOST_ONLY, b"drop.example"),
        Entry(12, Kind.HOST_ONLY, b"good.bad.example", True), Entry(13, Kind.HOST_ONLY, b"garden.example"),
        Entry(14, Kind.HOST_ONLY, b"garden.example"), Entry(15, Kind.HOST_ONLY, b"garden.example"),
        Entry(16, Kind.HOST_ONLY, b"away.example"), Entry(17, Kind.HOST_ONLY, b"xn--bcher-kva.test"),
        Entry(18, Kind.HOST_ONLY, b"abs.example"), Entry(12, Kind.SUBDOMAINS, b"good.bad.example", True)]


def test_what_a_zone_transfer_prints():
    soa = "rpz.local.\t\t300\tIN\tSOA\tlocalhost. root.localhost. 1 3600 900 2592000 7200\n"
    assert read(f"\n; <<>> DiG <<>> axfr rpz.local\n;; global options: +cmd\n{soa}"
                "rpz.local.\t\t300\tIN\tNS\tlocalhost.\n"
                "bad.example.rpz.local.\t300\tIN\tCNAME\t.\n"
                f"\\*.bad.example.rpz.local.\t300\tIN\tCNAME\t.\n{soa};; Query time: 1 msec\n") == [
        Passed(4, UPKEEP), Passed(5, UPKEEP), Entry(6, Kind.HOST_ONLY, b"bad.example"),
        Entry(7, Kind.SUBDOMAINS, b"bad.example"), Passed(8, UPKEEP)]


def test_a_zone_file_without_the_name_of_its_zone():
    assert read("@ SOA a. b. 1 2 3 4 5\n@ NS a.\nbad.example CNAME .\n*.bad.example CNAME rpz-passthru.") == [
        Passed(1, UPKEEP), Passed(2, UPKEEP), Entry(3, Kind.HOST_ONLY, b"bad.example"),
        Entry(4, Kind.SUBDOMAINS, b"bad.example", True)]


def test_origins_change_and_the_zone_stays():
    assert records("a.example CNAME .", "$ORIGIN example.rpz.example.net.", "b CNAME .", "$origin c", "* CNAME .",
                   "d CNAME rpz-passthru.") == [
        Entry(3, Kind.HOST_ONLY, b"a.example"), Entry(5, Kind.HOST_ONLY, b"b.example"),
        Entry(7, Kind.SUBDOMAINS, b"c.example"), Entry(8, Kind.HOST_ONLY, b"d.c.example", True),
        Entry(8, Kind.SUBDOMAINS, b"d.c.example", True)]


def test_the_zone_is_the_owner_of_the_soa_whatever_the_origin_is():
    soa = "SOA ns.example. root.example. 1 2 3 4 5"
    bad = [Entry(3, Kind.HOST_ONLY, b"bad.example")]
    assert read(f"$ORIGIN .\nrpz.test {soa}\nbad.example.rpz.test CNAME .")[1:] == bad
    assert read(f"$ORIGIN test.\nrpz {soa}\nbad.example.rpz CNAME .")[1:] == bad
    assert read(f"$ORIGIN rpz.test.\n@ {soa}\nbad.example CNAME .")[1:] == bad
    assert read(f"rpz.test. {soa}\n\nbad.example CNAME .")[1:] == bad
    assert read(f"rpz.test. {soa}\n\nbad.example.rpz.test. CNAME .")[1:] == bad


def test_a_zone_that_nobody_names_asks_for_its_name():
    text = "@ SOA a. b. 1 2 3 4 5\nbad.example.rpz.test. CNAME ."
    why = ("'bad.example.rpz.test.' ends with a dot, and neither a SOA record nor $ORIGIN says what the zone is "
           "called; put zone = \"NAME\" into the settings of this list")
    assert read(text)[1:] == [Problem(2, why, whole=True)]
    assert read("bad.example.rpz.test. CNAME .") == [Problem(1, why, whole=True)]
    assert read("$ORIGIN .\nbad.example.rpz.test CNAME .")[0].whole
    stated = list(read_zone(io.BytesIO(text.encode()), zone="RPZ.test."))
    assert stated[1:] == [Entry(2, Kind.HOST_ONLY, b"bad.example")]


def test_no_wildcard_holds_below_a_name_that_passes():
    # RFC 4592, 2.2.1: the name itself is the closest encloser, and it has no wildcard of its own.
    assert records("*.a.example CNAME .", "b.a.example CNAME rpz-passthru.")[2:] == [
        Entry(4, Kind.SUBDOMAINS, b"b.a.example", True)]
    assert records("*.a.example CNAME .", "b.a.example CNAME rpz-passthru.", "*.b.a.example CNAME .")[3:] == []
    assert records("a.example CNAME .", "b.a.example CNAME rpz-passthru.")[2:] == []


def test_a_block_below_what_passes_cannot_be_said():
    assert isinstance(records("*.a.example CNAME rpz-passthru.", "b.a.example CNAME .")[1], Problem)


@pytest.mark.parametrize(("record", "kind", "key", "exception"), [
    ("a.example CNAME a.example.", Kind.HOST_ONLY, b"a.example", True),
    ("*.a.example CNAME a.example.", Kind.SUBDOMAINS, b"a.example", True),
    ("a.example CNAME *.garden.example.", Kind.HOST_ONLY, b"a.example", False),
    ("a.example cname RPZ-DROP.", Kind.HOST_ONLY, b"a.example", False),
    ("a.example MX 10 mail.example.", Kind.HOST_ONLY, b"a.example", False),
    ("_a.example CNAME .", Kind.HOST_ONLY, b"_a.example", False),
    ("a\\097.example CNAME .", Kind.HOST_ONLY, b"aa.example", False),
    ("a.example 1h30m CNAME (\n  .\n)", Kind.HOST_ONLY, b"a.example", False),
    ("a.example A ( 192.0.2.1 ) ; (", Kind.HOST_ONLY, b"a.example", False),
])
def test_a_record(record, kind, key, exception):
    assert records(record) == [Entry(3, kind, key, exception)]


@pytest.mark.parametrize(("trigger", "network"), [
    ("32.1.2.0.192.rpz-ip", "192.0.2.1"), ("24.0.2.0.192.rpz-ip", "192.0.2.0/24"),
    ("128.1.zz.db8.2001.rpz-ip", "2001:db8::1"), ("48.zz.bad.db8.2001.rpz-ip", "2001:db8:bad::/48"),
    ("128.1.0.0.0.0.0.db8.2001.rpz-ip", "2001:db8::1"), ("128.1.zz.rpz-ip", "::1"), ("0.zz.rpz-ip", "::/0"),
])
@pytest.mark.parametrize("exception", [False, True])
def test_answers_with_an_address_are_destinations(trigger, network, exception):
    entry, = records(f"{trigger} CNAME {'rpz-passthru.' if exception else '.'}")
    assert (entry.kind, network_text(entry.key), entry.exception) == (Kind.NETWORK, network, exception)


def test_names_of_the_zone_itself_are_passed_over():
    assert records("@ A 192.0.2.1", "a.example RRSIG CNAME 8 3 5 x", "rpz.example.net. TXT x") == [
        Passed(3, OWN), Passed(4, UPKEEP), Passed(5, OWN)]


@pytest.mark.parametrize(("record", "why"), [
    ("a..example CNAME .", "'a..example CNAME .' has an empty label"),
    ("a.*.example CNAME .",
     "'a.*.example CNAME .' has a star; a star stands only in '*.' at the front of a host or '/*' at the end of a "
     "URL"),
    ("* CNAME .", "'* CNAME .' stands for every name there is"),
    ("a.example.org. CNAME .", "'a.example.org. CNAME .' is outside of the zone 'rpz.example.net'"),
    ("a.example CNAME", "'a.example CNAME' has nothing behind CNAME"),
    ("a.example CNAME . b.example CNAME .",
     "'a.example CNAME . b.example CNAME .' has more than one name behind CNAME; was a line end lost?"),
    ("a.example", "'a.example' has no type such as CNAME or A"),
    ("a.example IN 300", "'a.example IN 300' has no type such as CNAME or A"),
    ("a.example CNAME rpz-tcp-only.",
     "'a.example CNAME rpz-tcp-only.' asks for TCP, which neither blocks nor passes"),
    ("a.example CNAME rpz-passthru",
     "'a.example CNAME rpz-passthru' leads to a name inside the zone; write rpz-passthru. with its dot"),
    ("a.example CNAME rpz-new.", "'a.example CNAME rpz-new.' has a policy that is not known"),
    ("32.1.2.0.192.rpz-client-ip CNAME .",
     "'32.1.2.0.192.rpz-client-ip CNAME .' is about who asks (rpz-client-ip), which only a resolver sees"),
    ("ns.example.rpz-nsdname CNAME .",
     "'ns.example.rpz-nsdname CNAME .' is about the name of a server (rpz-nsdname), which only a resolver sees"),
    ("32.1.2.0.192.rpz-nsip CNAME .",
     "'32.1.2.0.192.rpz-nsip CNAME .' is about the address of a server (rpz-nsip), which only a resolver sees"),
    ("33.1.2.0.192.rpz-ip CNAME .", "'33.1.2.0.192.rpz-ip CNAME .' is no address in the way of rpz-ip, such as "
     "24.0.2.0.192.rpz-ip for 192.0.2.0/24"),
    ("00008.0.0.0.0.rpz-ip CNAME .", "'00008.0.0.0.0.rpz-ip CNAME .' is no address in the way of rpz-ip, such as "
     "24.0.2.0.192.rpz-ip for 192.0.2.0/24"),
    ("x.rpz-ip CNAME .", "'x.rpz-ip CNAME .' is no address in the way of rpz-ip, such as 24.0.2.0.192.rpz-ip for "
     "192.0.2.0/24"),
    ("24.1.2.0.192.rpz-ip CNAME .",
     "'24.1.2.0.192.rpz-ip CNAME .' has address bits beyond its prefix, which is 192.0.2.0/24"),
    ("$INCLUDE more.zone", "'$INCLUDE more.zone' is a directive that is not read; write its records out"),
    ("$ORIGIN", "'$ORIGIN' needs one name behind it"),
    ("a\\.b.example CNAME .", "'a\\\\.b.example CNAME .' has a dot inside a label"),
    ("a\\300.example CNAME .", "'a\\\\300.example CNAME .' has an escape above \\255"),
    ('a.example TXT "open',
     "'a.example TXT \"open' has a quote, a parenthesis or a backslash without its other half"),
    ("a.example A 192.0.2.1 )",
     "'a.example A 192.0.2.1 )' has a quote, a parenthesis or a backslash without its other half"),
    ("a.example A \\", "'a.example A \\\\' has a quote, a parenthesis or a backslash without its other half"),
    (b"\xe4.example CNAME .", "the line is not UTF-8 (0xe4); save it as UTF-8, or state its encoding in the "
     "settings of this list"),
    ("a\0.example CNAME .", "the line has a control character (0x00)"),
    ("0.0.0.0 a.example", "'0.0.0.0 a.example' has no type such as CNAME or A"),
])
def test_a_mistake(record, why):
    record = record if isinstance(record, bytes) else record.encode()
    assert read(HEAD.encode() + record + b"\nfine.example CNAME .\n")[1:] == [
        Problem(3, why), Entry(4, Kind.HOST_ONLY, b"fine.example")]


def test_a_record_without_a_name():
    assert read(" CNAME .") == [Problem(1, "'CNAME .' has no name in front, and no record before it has one")]


def test_a_parenthesis_that_stays_open():
    assert records("a.example A (", "192.0.2.1") == [
        Problem(3, "the record has a '(' without its ')'; is the end of the file missing?")]
    lines = ["a.example A ("] + ["x" * 1000] * (RECORD_MAX // 1000 + 1) + ["b.example CNAME ."]
    assert records(*lines) == [
        Problem(3, f"the record is longer than {RECORD_MAX} bytes; is its ')' missing?"),
        Entry(3 + len(lines) - 1, Kind.HOST_ONLY, b"b.example")]
