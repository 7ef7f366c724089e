"""The ClientHello reader: samples fed every way, and the slow reader as second opinion."""

import pytest

from edgeblock.core import tls
from tests.core import samples as s
from tests.reference import tls as slow

NAME = b"www.example.com"


def names(said) -> list[bytes]:
    return said[1]


def has_name(data: bytes) -> int:
    """How many bytes of a sample there have to be before its name is whole."""
    return data.rindex(NAME) + len(NAME) if NAME in data else len(data)


SAMPLES = {
    "small": s.hello(NAME),
    "no-session": s.hello(NAME, session=b""),
    "grease-and-ech": s.hello(NAME, before=s.GREASE + s.ECH),
    "two-records": s.records(s.hello_message(NAME), 40),
    "empty-record-first": s.record(b"") + s.hello(NAME),
    "alert-first": s.record(b"\1\0", 21) + s.hello(NAME),
    "ccs-first": s.record(b"\1", 20) + s.hello(NAME),
    "odd-version": s.record(s.hello_message(NAME), version=b"\3\xff"),
    "sni-last": s.record(s.handshake(s.hello_body(s.GREASE, s.sni(NAME)))),
    "sni-first": s.record(s.handshake(s.hello_body(s.sni(NAME), s.GREASE))),
    "sni-only": s.record(s.handshake(s.hello_body(s.sni(NAME)))),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_all_ways(name):
    data = SAMPLES[name]
    assert names(tls.feed([data])) == [NAME]
    s.all_ways(tls.feed, data, names, has_name(data))


def test_records_cut_everywhere():
    message = s.hello_message(NAME)
    for cut in range(1, len(message)):
        assert names(tls.feed([s.records(message, cut)])) == [NAME]
    assert names(tls.feed([s.records(message, *range(1, len(message)))])) == [NAME]


@pytest.mark.parametrize("size", [1300, 2000, 4200, 9000, 16_384, 16_385, 40_000, 65_000])
def test_sizes(size):
    for front in (True, False):
        data = s.sized_hello(NAME, size, front)
        assert tls.feed([data])[:3] == ("done", [NAME], False)
        assert names(tls.feed([data[at:at + 1448] for at in range(0, len(data), 1448)])) == [NAME]


def test_a_hello_beyond_every_server_is_not_read():
    head = b"\1" + (131_397).to_bytes(3, "big")
    assert tls.feed([s.record(head)])[0] == "not_mine"


@pytest.mark.parametrize("alpn", [None, ["h2", "http/1.1"], [f"protocol-{i:04}" for i in range(600)]])
def test_hellos_of_openssl(alpn):
    data = s.openssl_hello("www.example.com", alpn)
    assert names(tls.feed([data])) == [NAME]
    assert slow.read(data)[:2] == ("done", [NAME])


def test_a_hello_of_openssl_without_a_name():
    assert tls.feed([s.openssl_hello(None)])[:2] == ("done", [])


def test_several_names():
    data = s.hello(b"a.example", b"b.example", NAME)
    assert tls.feed([data])[1] == [b"a.example", b"b.example", NAME]
    s.all_ways(tls.feed, data, names, has_name(data))


def test_two_server_name_extensions():
    data = s.record(s.handshake(s.hello_body(s.sni(b"a.example"), s.GREASE, s.sni(NAME))))
    assert tls.feed([data])[1] == [b"a.example", NAME]


def test_names_of_another_kind_are_passed_over():
    entries = b"\1" + s.vector(2, b"not a host") + b"\0" + s.vector(2, NAME)
    data = s.record(s.handshake(s.hello_body(s.extension(0, s.vector(2, entries)))))
    assert tls.feed([data])[1] == [NAME]


def test_a_name_longer_than_any_host_is_passed_over():
    assert tls.feed([s.hello(b"x" * 257, NAME)])[1] == [NAME]
    assert tls.feed([s.hello(b"x" * 256, NAME)])[1] == [b"x" * 256, NAME]
    assert tls.feed([s.hello(b"x" * 60_000)])[:2] == ("done", [])


@pytest.mark.parametrize("body,answer", [
    (s.hello_body(), ("done", [])),                                     # no extensions at all
    (s.hello_body(s.GREASE), ("done", [])),
    (s.hello_body(s.extension(0)), ("done", [])),                       # an empty server_name, as servers send
    (s.hello_body(s.extension(0, b"\0\0")), ("done", [])),
    (s.hello_body(s.sni(NAME)) + b"trailing", ("done", [NAME])),
])
def test_hellos_without_and_with_little(body, answer):
    assert tls.feed([s.record(s.handshake(body))])[:2] == answer


def wrong(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([value]) + data[at + 1:]


MESSAGE = s.hello_message(NAME)


@pytest.mark.parametrize("data", [
    b"\x17\3\1\0\x10", b"\x13\3\1\0\x10", b"\x80\x2e\1\3\1", b"GET / HTTP/1.1\r\n", b"\x16\2\1\0\5\1",
    s.record(s.handshake(b"", 2)),                                      # a ServerHello
    s.record(b"\1\0\0\x10" + bytes(16)),                                # too short for a hello
    s.record(wrong(MESSAGE, 38, 255)),                                  # session id runs past the message
    s.record(wrong(MESSAGE, 71, 255)),                                  # cipher suites do
    s.record(MESSAGE[:20]) + s.record(b"\1", 20) + s.record(MESSAGE[20:]),  # another record inside the message
])
def test_what_no_server_reads(data):
    assert tls.feed([data])[0] == "not_mine"
    assert tls.feed([data[i:i + 1] for i in range(len(data))])[0] == "not_mine"


def test_a_length_that_lies_reads_no_neighbour():
    # Every single byte of a hello replaced by extremes: never a name that is not a whole part of the sample.
    data = s.hello(NAME)
    for at in range(len(data)):
        for value in (0, 1, 0x7F, 0xFE, 0xFF):
            slow.compare(wrong(data, at, value))


def test_bare_handshake_bytes():
    # QUIC's CRYPTO stream has no records.
    assert tls.feed([MESSAGE], records=False)[:2] == ("done", [NAME])
    for cut in range(1, len(MESSAGE)):
        assert tls.feed([MESSAGE[:cut], MESSAGE[cut:]], records=False)[1] == [NAME]


def test_ech_is_told():
    assert tls.feed([s.hello(NAME, before=s.ECH)])[2]
    assert not tls.feed([s.hello(NAME)])[2]
    assert tls.feed([s.hello(NAME, behind=s.ECH)])[2]


def test_what_follows_is_not_consumed():
    data = s.hello(NAME)
    assert tls.feed([data + b"next"])[3] == len(data)
