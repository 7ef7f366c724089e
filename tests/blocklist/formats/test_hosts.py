"""Hosts files: each sample line and what it means, each mistake and what is said about it."""

import io

import pytest

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.hosts import read_hosts
from edgeblock.blocklist.formats.lines import Entry, Passed, Problem

OWN = "names of the machine itself, such as localhost"


CHARACTER = "has the character '{}' in its host, which no host has; one a line, without quotes and punctuation"


def read(text, **options):
    return list(read_hosts(io.BytesIO(text if isinstance(text, bytes) else text.encode()), **options))


def test_a_file_as_it_is_found():
    assert read("\ufeff# Title: sample\r\n127.0.0.1 localhost\r\n::1\tip6-localhost ip6-loopback\r\n"
                "fe80::1%lo0 localhost\r\n255.255.255.255 broadcasthost\r\n0.0.0.0 0.0.0.0\r\n\r\n"
                "0.0.0.0 Ads.Example.COM. # why\r\n0.0.0.0\tone.example  two.example#x\r\n:: bücher.test\r\n") == [
        Passed(2, OWN), Passed(3, OWN), Passed(4, OWN), Passed(5, OWN), Passed(6, OWN),
        Entry(8, Kind.HOST_ONLY, b"ads.example.com"), Entry(9, Kind.HOST_ONLY, b"one.example"),
        Entry(9, Kind.HOST_ONLY, b"two.example"), Entry(10, Kind.HOST_ONLY, b"xn--bcher-kva.test")]


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "::", "::1", "0:0:0:0:0:0:0:0"])
def test_addresses_that_lead_nowhere(address):
    assert read(f"{address} a.example") == [Entry(1, Kind.HOST_ONLY, b"a.example")]
    assert read(f"{address} a.example", subdomains=True) == [Entry(1, Kind.HOST, b"a.example")]


def test_a_machines_own_name_beside_others_is_left_out():
    assert read("127.0.0.1 localhost a.example") == [Entry(1, Kind.HOST_ONLY, b"a.example")]


@pytest.mark.parametrize(("line", "why"), [
    ("a.example", "'a.example' has no address in front; write 0.0.0.0 a.example, or name the file .list, which has "
     "names alone"),
    ("0.0.0.0", "'0.0.0.0' has no name behind the address"),
    ("0.0.0.0 # a.example", "'0.0.0.0 # a.example' has no name behind the address"),
    ("192.0.2.7 a.example", "'192.0.2.7 a.example' leads to 192.0.2.7; only 0.0.0.0, 127.0.0.1, :: and ::1 mean that "
     "a name is blocked"),
    ("0.0.0.0 a..example", "'a..example' has an empty label"),
    ("0.0.0.0 https://a.example/x",
     "'https://a.example/x' is no name; a hosts file has names alone, and only '#' begins a comment"),
    ("0.0.0.0 a<.example", "'a<.example' " + CHARACTER.format("<")),
    ("127.0.0.1:80 a.example", "'127.0.0.1:80' is no address; write 0.0.0.0 in front of names"),
    ("0.0.0.0 =a.example", "'=a.example' is no name; a hosts file has names alone, and only '#' begins a comment"),
    ("0.0.0.0 *.a.example", "'*.a.example' is no name; a hosts file has names alone, and only '#' begins a comment"),
    ("0.0.0.0 0x7f.1", "'0x7f.1' is an address in an unusual form; write 127.0.0.1"),
    (b"0.0.0.0 \xe4.example", "the line is not UTF-8 (0xe4); save it as UTF-8, or state its encoding in the "
     "settings of this list"),
    ("0.0.0.0 a\0.example", "the line has a control character (0x00)"),
])
def test_a_mistake(line, why):
    line = line if isinstance(line, bytes) else line.encode()
    assert read(b"0.0.0.0 ok.example\n" + line + b"\n0.0.0.0 fine.example") == [
        Entry(1, Kind.HOST_ONLY, b"ok.example"), Problem(2, why), Entry(3, Kind.HOST_ONLY, b"fine.example")]


def test_a_line_is_taken_whole_or_left_out():
    # Only '#' begins a comment (hosts(5)): what stands behind anything else may be a sentence, not a list of names.
    assert read("0.0.0.0 a.example b..example c.example\n0.0.0.0 d.example ; e.example") == [
        Problem(1, "'b..example' has an empty label"), Problem(2, "';' " + CHARACTER.format(";"))]


def test_an_address_among_names_is_passed_over_alone():
    assert [type(item) for item in read(b"0.0.0.0 a.example 192.0.2.1 b.example")] == [Entry, Passed, Entry]
