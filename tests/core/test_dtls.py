"""DTLS: the pieces of ClientHellos in any datagram, and what the engine makes of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.core.dtls import fragments
from edgeblock.core.tls import feed
from tests.core import playing
from tests.core import samples as s
from tests.core.test_quic_engine import TRUST, udp

LISTED, OPEN = b"listed.example", b"open.example"
VERSIONS = {"1.0": 0xFEFF, "1.2": 0xFEFD, "none": 0xFE00}


def hello(name: bytes, cookie: bytes = b"", more: int = 0) -> bytes:
    """A ClientHello without its handshake header; `more` bytes of another extension."""
    extensions = s.extension(0xFFA5, bytes(more)) * bool(more) + (s.sni(name) if name else b"")
    return (b"\xfe\xfd" + bytes(range(32)) + s.vector(1, bytes(8)) + s.vector(1, cookie) + s.vector(2, b"\x13\x01")
            + s.vector(1, b"\0") + s.vector(2, extensions))


def fragment(body: bytes, at: int = 0, size: int | None = None, message: int = 0, kind: int = 1) -> bytes:
    piece = body[at:] if size is None else body[at:at + size]
    return (bytes([kind]) + len(body).to_bytes(3) + message.to_bytes(2) + at.to_bytes(3) + len(piece).to_bytes(3)
            + piece)


def record(data: bytes, kind: int = 22, version: int = 0xFEFF, epoch: int = 0, number: int = 0) -> bytes:
    return bytes([kind]) + version.to_bytes(2) + epoch.to_bytes(2) + number.to_bytes(6) + s.vector(2, data)


def whole(name: bytes, **settings) -> bytes:
    return record(fragment(hello(name, **settings)))


# ---- the reader


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
@pytest.mark.parametrize("cookie", [b"", b"c", bytes(255)])
def test_a_whole_hello(version, cookie):
    body = hello(LISTED, cookie)
    assert fragments(record(fragment(body, message=1), version=version)) == [(1, len(body), 0, body)]
    bare = b"\1" + len(body).to_bytes(3) + body
    assert feed([bare], records=False, cookie=True) == ("done", [LISTED], False, len(bare))


def test_several_records_and_messages_in_a_datagram():
    body = hello(LISTED)
    pieces = fragment(body, 50) + fragment(b"\0\0", kind=2) + fragment(body, 0, 50)
    behind = record(b"\1", kind=20) + record(b"\1\0", kind=21) + record(pieces) + record(fragment(body), epoch=1)
    assert fragments(behind + record(fragment(body, message=9))) == [
        (0, len(body), 50, body[50:]), (0, len(body), 0, body[:50]), (9, len(body), 0, body)]


@pytest.mark.parametrize("datagram", [
    b"", b"\x16", record(fragment(b"abc"))[:20], record(fragment(b"abc"), version=0x0303), b"\x2f" + bytes(60),
    record(b"\1\0\0\3\0\0\0\0\2\0\0\3abc"), record(b"\1\0\0\3\0\0\0\0\0\0\0\4abc"), record(fragment(b"x", kind=2)),
    record(fragment(b"abc"), epoch=1), record(fragment(b"abc"), kind=23)])
def test_no_hello(datagram):
    assert fragments(datagram) == []


@given(st.binary(max_size=300), st.integers(0, 80))
def test_any_bytes(data, cut):
    fragments(data)
    fragments(record(data))
    for message, total, at, piece in fragments(record(fragment(hello(LISTED)))[:cut] + data):
        assert 0 <= message < 65536 and at + len(piece) <= total


# ---- the engine


def verdict(one, datagram: bytes, now: float = 1.0, **ends) -> str:
    decision = one.judge(udp(datagram, **ends), now, TRUST)
    assert decision.mark == "keep" and not decision.reply
    return "passes" if decision.accept else decision.action


@pytest.fixture
def one():
    return playing.engine("listed.example")


def test_names_are_read_and_blocked(one):
    seen = one.judge(udp(whole(OPEN)), 1.0, TRUST)
    assert seen.accept and [(name.proto, name.host) for name in seen.names] == [("tls", "open.example")]
    assert not one.judge(udp(whole(OPEN)), 1.1, TRUST).names
    assert verdict(one, whole(LISTED)) == "reset"
    assert verdict(one, whole(LISTED)) == "reset"
    assert one.counters()["blocked_reset"] == 1
    assert verdict(one, whole(LISTED), sport=9) == "reset"
    assert verdict(one, whole(OPEN)) == "passes"
    assert verdict(one, record(bytes(40), kind=23, epoch=1)) == "passes"


def test_the_second_hello_is_read(one):
    assert verdict(one, whole(OPEN)) == "passes"
    assert verdict(one, record(fragment(hello(LISTED, b"cookie"), message=1), number=1)) == "reset"
    assert verdict(one, record(fragment(hello(OPEN, b"cookie"), message=1), number=1)) == "passes"
    for message in (0, 7, 65535):
        assert verdict(one, record(fragment(hello(LISTED, b"another"), message=message), number=1)) == "reset"


@pytest.mark.parametrize("size", [1, 7, 40, 100])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("joined", [False, True], ids=["datagrams", "one datagram"])
def test_pieces(one, size, turned, joined):
    def flight(name: bytes, message: int) -> list[bytes]:
        body = hello(name, more=100 if size > 1 else 0)
        pieces = [record(fragment(body, at, size, message), number=at) for at in range(0, len(body), size)]
        pieces = pieces[::-1] if turned else pieces
        return [b"".join(pieces[at:at + 60]) for at in range(0, len(pieces), 60)] if joined else pieces

    assert {verdict(one, datagram) for datagram in flight(OPEN, 0)} == {"passes"}
    for _ in range(2):
        said = [verdict(one, datagram) for datagram in flight(LISTED, 1)]
        assert "reset" in said
    assert set(said) == {"reset"}, "every piece of it is dropped from then on"
    assert verdict(one, whole(OPEN)) == "passes"


def test_pieces_and_a_whole_one_are_read_together(one):
    # What a server makes of both is its own affair.
    listed, other = hello(LISTED), hello(b"other1.example")
    cut = listed.index(LISTED) + 6
    assert verdict(one, record(fragment(listed, 0, cut))) == "passes"
    assert verdict(one, record(fragment(other[:cut] + listed[cut:]))) == "reset"


def test_what_somebody_else_sends_harms_nobody(one):
    for i in range(200):
        verdict(one, whole(LISTED, cookie=i.to_bytes(2)))
        verdict(one, record(fragment(hello(LISTED, i.to_bytes(2) * (i % 9)), 0, 60)))
    assert verdict(one, whole(OPEN)) == "passes"
    assert verdict(one, whole(LISTED)) == "reset"


def test_more_pieces_than_a_client_sends_follow_the_conflict_policy():
    many = b"".join(record(fragment(hello(OPEN), at, 1)) for at in range(65))
    assert verdict(playing.engine("listed.example"), many) == "accept"
    assert playing.engine("listed.example", conflict="pass").judge(udp(many), 1.0, TRUST).accept


def test_a_hello_without_a_name_passes():
    assert verdict(playing.engine("listed.example", no_sni="drop"), whole(b"")) == "passes"


def test_ports_with_other_traffic_make_no_flow(one):
    for payload in (b"", b"\x16\xfe", bytes(60), b"\x16\x03\x03" + bytes(60), record(bytes(40), kind=23)):
        assert verdict(one, payload) == "passes"
    assert one.counters()["table_flows"] == 0
