"""A client that really speaks QUIC takes the answer as its server's, and stops."""

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicConnectionState
from aioquic.quic.packet import pull_quic_header
from hypothesis import given
from hypothesis import strategies as st
from quic_packets import DCID, DRAFT_27, DRAFT_29, VERSION_1, VERSION_2, crypto, initial, keys

from edgeblock.enforce.quic_close import ERROR_CODE, close_datagram

SERVER = ("192.0.2.1", 443)


def client(version: int = VERSION_1, **settings) -> tuple[QuicConnection, bytes]:
    connection = QuicConnection(configuration=QuicConfiguration(
        is_client=True, server_name="www.example.com", original_version=version, supported_versions=[version],
        **settings))
    connection.connect(SERVER, now=0.0)
    return connection, connection.datagrams_to_send(now=0.0)[0][0]


def opened(datagram: bytes, version: int, original_id: bytes, id_size: int) -> tuple[bytes, int]:
    """Frames and packet number of a server's Initial, read by aioquic."""
    reading = Buffer(data=datagram)
    header = pull_quic_header(reading, host_cid_length=id_size)
    _, frames, number, _ = keys(original_id, version, "server").decrypt_packet(datagram, reading.tell(), 0)
    assert header.packet_length == len(datagram)
    return frames, number


@pytest.mark.parametrize("version", [VERSION_1, VERSION_2])
@pytest.mark.parametrize("id_size", [0, 8, 20])
def test_a_client_gives_up_at_once(version, id_size):
    connection, first = client(version, connection_id_length=id_size)
    answer = close_datagram(first)
    assert answer is not None and len(answer) <= 1200
    connection.receive_datagram(answer, SERVER, now=0.1)
    assert connection._state is QuicConnectionState.DRAINING
    assert connection.datagrams_to_send(now=0.1) == []
    connection.handle_timer(now=connection.get_timer() + 0.001)
    event = connection.next_event()
    assert event is not None and event.error_code == ERROR_CODE == 0x131


def test_a_client_that_has_heard_from_its_server_gives_up_too():
    connection, first = client()
    original = first[6:6 + first[5]]
    ping = initial(b"\x01", dcid=connection.host_cid, scid=b"server's", keys_of=original, side="server")
    connection.receive_datagram(ping, SERVER, now=0.05)
    again = [datagram for datagram, _ in connection.datagrams_to_send(now=0.05)]
    assert again and again[0][6:14] == b"server's", "it sends to the id its server chose"
    answer = close_datagram(again[0], original)
    connection.receive_datagram(answer, SERVER, now=1.1)
    assert connection._state is QuicConnectionState.DRAINING


def test_another_client_ignores_it():
    connection, _ = client()
    _, stranger = client()
    connection.receive_datagram(close_datagram(stranger), SERVER, now=0.1)
    assert connection._state is QuicConnectionState.FIRSTFLIGHT


@pytest.mark.parametrize("version", [VERSION_1, VERSION_2, DRAFT_29])
def test_what_it_says(version):
    first = initial(crypto(0, b"hello"), dcid=DCID, scid=b"client", version=version)
    answer = close_datagram(first, error_code=0x0170)
    frames, number = opened(answer, version, DCID, len(b"client"))
    assert frames == b"\x1c\x41\x70\x06\x00"
    assert number > 1 << 20
    assert answer[5:6 + 6] == b"\x06client" and answer[12:21] == b"\x08" + DCID
    assert close_datagram(first, error_code=0x0170) == answer, "a second one is a duplicate, not a second close"


def test_the_original_id_gives_the_keys():
    later = initial(crypto(0, b"hello"), dcid=b"server's", scid=b"client", keys_of=DCID)
    frames, _ = opened(close_datagram(later, DCID), VERSION_1, DCID, len(b"client"))
    assert frames.startswith(b"\x1c")


@pytest.mark.parametrize("version,bits", [(VERSION_1, 1), (VERSION_1, 2), (VERSION_2, 2), (VERSION_2, 3)])
def test_the_first_initial_of_coalesced_packets_is_answered(version, bits):
    other = bytes([0xC0 | bits << 4]) + version.to_bytes(4, "big") + b"\x08" + DCID + b"\x00" + b"\x14" + bytes(20)
    first = initial(crypto(0, b"hello"), version=version)
    assert close_datagram(other + first) == close_datagram(first) is not None


@pytest.mark.parametrize("datagram", [
    b"", b"\x40" + bytes(40), b"\xc0", b"\xff" * 40,
    bytes.fromhex("ff000000010008f067a5502a4262b5") + b"token" + bytes(16),        # a Retry
    initial(b"\x01", version=DRAFT_27), b"\xc0\x1a\x2a\x3a\x4a" + bytes(40),
    b"\xe0\x00\x00\x00\x01\x00\x00\x40", b"\xc0\x00\x00\x00\x01\x15" + bytes(60),
], ids=["empty", "short header", "one byte", "ones", "retry", "draft-27", "unknown version", "cut length", "long id"])
def test_what_cannot_be_answered_gets_nothing(datagram):
    assert close_datagram(datagram) is None


def test_every_truncation():
    first = initial(crypto(0, b"hello"), scid=b"client", token=b"token")
    for size in range(len(first)):
        answer = close_datagram(first[:size])
        assert answer is None or answer == close_datagram(first)


@given(st.binary(max_size=120), st.sampled_from([VERSION_1, VERSION_2, DRAFT_29]), st.integers(128, 255))
def test_any_bytes(tail, version, first):
    answer = close_datagram(bytes([first]) + version.to_bytes(4, "big") + tail)
    assert answer is None or len(answer) < 100 and len(answer) <= 5 + len(tail)
