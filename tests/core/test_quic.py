"""Invariant: whatever Initial a server could open, `read_quic` reads; for any bytes it neither raises nor loops."""

import random
from pathlib import Path

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from hypothesis import given, settings
from hypothesis import strategies as st
from quic_packets import DCID, DRAFT_27, DRAFT_29, MVFST, VERSION_1, VERSION_2, crypto, initial, keys, varint

from edgeblock.core.connections import Reader

VECTORS = Path(__file__).parent / "vectors"
VERSIONS = {"v1": VERSION_1, "v2": VERSION_2, "draft-29": DRAFT_29, "draft-27": DRAFT_27, "mvfst": MVFST}


def vector(name: str) -> bytes:
    lines = (VECTORS / f"{name}.hex").read_text().splitlines()
    return bytes.fromhex("".join(line for line in lines if not line.startswith("#")))


HELLO = vector("rfc9001-crypto-frame")[4:]      # behind type, offset and length of the frame; names example.com
CUT = HELLO.index(b"example.com") + 3


def hello(name: bytes) -> bytes:
    """A ClientHello with this name, of 200 bytes or more."""
    entry = b"\x00" + len(name).to_bytes(2, "big") + name
    entries = len(entry).to_bytes(2, "big") + entry
    extensions = b"\xff\xa5\x00\x50" + bytes(80) + b"\x00\x00" + len(entries).to_bytes(2, "big") + entries
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    body += len(extensions).to_bytes(2, "big") + extensions
    return b"\x01" + len(body).to_bytes(3, "big") + body


def names(*datagrams: bytes, **limits: int) -> list[bytes]:
    reader = Reader(**limits)
    return [name for datagram in datagrams for name in reader.names(datagram)[1]]


# ---- what the standards print


@pytest.mark.parametrize("rfc", ["rfc9001", "rfc9369"])
def test_client_initial_of_the_rfc(rfc):
    reader = Reader()
    seen, pieces = reader.read(vector(f"{rfc}-client-initial"))
    assert seen == {"initial"}
    assert pieces == [(DCID, 0, HELLO)]
    assert names(vector(f"{rfc}-client-initial")) == [b"example.com"]


@pytest.mark.parametrize("rfc", ["rfc9001", "rfc9369"])
def test_server_initial_of_the_rfc_is_not_the_clients(rfc):
    assert Reader().read(vector(f"{rfc}-server-initial")) == ({"unopened"}, [])


@pytest.mark.parametrize("rfc", ["rfc9001", "rfc9369"])
def test_retry_of_the_rfc_holds_nothing(rfc):
    assert Reader().read(vector(f"{rfc}-retry")) == (set(), [])


# ---- what real clients send


def aioquic_first_flight(name: str, version: int = VERSION_1) -> list[bytes]:
    client = QuicConnection(configuration=QuicConfiguration(
        is_client=True, server_name=name, alpn_protocols=["h3"], original_version=version,
        supported_versions=[version]))
    client.connect(("192.0.2.1", 443), now=0.0)
    return [datagram for datagram, _ in client.datagrams_to_send(now=0.0)]


@pytest.mark.parametrize("version", [VERSION_1, VERSION_2])
def test_first_flight_of_aioquic(version):
    assert names(*aioquic_first_flight("www.example.com", version)) == [b"www.example.com"]


def test_retransmission_and_another_connection_on_the_same_addresses():
    reader = Reader()
    first, second = (aioquic_first_flight(name)[0] for name in ("one.example", "two.example"))
    assert reader.names(first)[1] == [b"one.example"]
    assert reader.names(first) == ({"initial"}, [])
    assert reader.names(second)[1] == [b"two.example"]
    assert reader.connections == 2
    assert reader.counters()["derivations"] == 2 and reader.counters()["initials"] == 3


# ---- headers


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
@pytest.mark.parametrize("size", [0, 1, 7, 8, 20])
def test_connection_ids_of_every_size(version, size):
    packet = initial(crypto(0, HELLO), dcid=bytes(range(size)), scid=bytes(20 - size), version=version)
    assert names(packet) == [b"example.com"]


@pytest.mark.parametrize("size", [21, 255])
def test_connection_ids_no_server_takes(size):
    packet = bytearray(initial(crypto(0, HELLO), dcid=bytes(20), size=1200))
    packet[5] = size
    assert Reader().names(packet) == ({"damaged"}, [])


@pytest.mark.parametrize("token,form", [(b"t", 0), (b"t", 2), (b"t" * 70, 4), (b"t" * 800, 8), (b"", 8)])
def test_tokens(token, form):
    assert names(initial(crypto(0, HELLO), token=token, token_form=form)) == [b"example.com"]


@pytest.mark.parametrize("lie", [b"\x00" + b"\xff" * 8, b"\xff" * 8, b"\x7f\xff"])
def test_token_length_beyond_the_datagram(lie):
    packet = initial(crypto(0, HELLO), scid=b"")
    at = 1 + 4 + 1 + len(DCID) + 1
    assert not names(packet[:at] + lie + packet[at + 1:])


@pytest.mark.parametrize("version", [0x1A2A3A4A, 0xFACEB001, 0xFF000016, 0xFF000023, 0x51303530, 0])
def test_unknown_version_is_undecided(version):
    packet = bytearray(initial(crypto(0, HELLO)))
    packet[1:5] = version.to_bytes(4, "big")
    reader = Reader()
    assert reader.names(packet) == ({"unknown"}, [])
    assert reader.connections == 0 and reader.counters()["unknown_version"] == 1
    assert reader.names(initial(crypto(0, HELLO)))[1] == [b"example.com"], "and the 4-tuple stays open"


@pytest.mark.parametrize("first", [0x40, 0x00, 0x7F])
def test_short_header_ends_the_datagram(first):
    packet = initial(crypto(0, HELLO))
    assert Reader().names(bytes([first]) + packet[1:]) == (set(), [])
    assert names(packet + bytes([first]) + bytes(40)) == [b"example.com"]


def test_cleared_fixed_bit():
    # RFC 9287: header protection leaves the bit alone, and so does the additional data of the server.
    frames = crypto(0, HELLO)
    header = b"\x81" + VERSION_1.to_bytes(4, "big") + b"\x08" + DCID + b"\x00\x00"
    header += varint(2 + len(frames) + 16, 2) + bytes(2)
    assert names(keys(DCID).encrypt_packet(header, frames, 0)) == [b"example.com"]


@pytest.mark.parametrize("version", [VERSION_1, VERSION_2])
@pytest.mark.parametrize("kind", ["0-rtt", "handshake"])
def test_coalesced_behind_other_packets(version, kind):
    bits = {("0-rtt", VERSION_1): 1, ("handshake", VERSION_1): 2,
            ("0-rtt", VERSION_2): 2, ("handshake", VERSION_2): 3}[kind, version]
    other = bytes([0xC0 | bits << 4]) + version.to_bytes(4, "big") + b"\x08" + DCID + b"\x00" + varint(50) + bytes(50)
    assert names(other + initial(crypto(0, HELLO), version=version)) == [b"example.com"]


def test_coalesced_initials():
    datagram = initial(crypto(0, HELLO[:40])) + initial(b"\x01" + crypto(40, HELLO[40:]), number=1)
    assert names(datagram) == [b"example.com"]
    assert names(datagram + b"\xc0" * 25) == [b"example.com"], "a tail is no reason to disbelieve what was before"


def test_coalesced_with_another_connection_and_version():
    datagram = (initial(crypto(0, hello(b"one.example")))
                + initial(crypto(0, hello(b"two.example")), dcid=b"other id")
                + initial(crypto(0, hello(b"three.example")), version=VERSION_2))
    assert set(names(datagram)) == {b"one.example", b"three.example", b"two.example"}


def test_a_packet_too_short_to_sample_is_passed_over():
    short = bytes([0xC0]) + VERSION_1.to_bytes(4, "big") + b"\x08" + DCID + b"\x00\x00" + varint(19) + bytes(19)
    assert names(short + initial(crypto(0, HELLO))) == [b"example.com"]


def test_every_truncation():
    datagram = initial(crypto(0, HELLO), token=b"token", scid=b"source")
    for size in range(len(datagram)):
        reader = Reader()
        assert reader.names(datagram[:size])[1] == []
        assert reader.names(datagram)[1] == [b"example.com"], "and nothing of it stands in the way"


@pytest.mark.parametrize("size", [65535, 65536, 200_000])
def test_datagrams_of_the_greatest_sizes(size):
    padded = initial(crypto(0, HELLO)) + bytes(size)
    seen, found = Reader().names(padded[:size])
    assert (found == [b"example.com"]) == (size <= 65535)
    assert ("damaged" in seen) == (size > 65535)


def test_one_packet_that_fills_the_greatest_datagram():
    packet = initial(crypto(0, HELLO) + bytes(16_000), token=bytes(16_000))
    assert names(packet) == [b"example.com"]


# ---- packet numbers


@pytest.mark.parametrize("number_size", [1, 2, 3, 4])
def test_packet_number_sizes(number_size):
    pieces = [HELLO[:CUT], HELLO[CUT:CUT + 3], HELLO[CUT + 3:]]
    at = (0, CUT, CUT + 3)
    flight = [initial(crypto(at[i], piece), number=7 + i, number_size=number_size)
              for i, piece in enumerate(pieces)]
    assert names(*flight) == [b"example.com"]


def test_packet_numbers_that_are_relative_to_the_largest():
    # RFC 9000, A.3: the server has seen 0x1ff0 and reads 0x05 as 0x2005.
    flight = [initial(crypto(0, HELLO[:CUT]), number=0x1FF0, number_size=2),
              initial(crypto(CUT, HELLO[CUT:]), number=0x2005, number_size=1)]
    assert names(*flight) == [b"example.com"]


def test_a_decoy_with_a_high_packet_number_does_not_shift_the_rest():
    decoy = initial(crypto(0, hello(b"innocent.example")), number=0x7FFFFF00, number_size=4)
    real = [initial(crypto(0, HELLO[:CUT]), number=0, number_size=1),
            initial(crypto(CUT, HELLO[CUT:]), number=1, number_size=1)]
    assert b"example.com" in names(decoy, *real)
    high = [initial(crypto(0, HELLO[:CUT]), number=0x40000000, number_size=4),
            initial(crypto(CUT, HELLO[CUT:]), number=0x40000001, number_size=1)]
    assert b"example.com" in names(high[0], decoy, high[1])


def test_more_packet_number_ranges_than_are_kept_are_reported():
    reader = Reader()
    for i in range(8):
        assert reader.names(initial(b"\x01", number=i << 20, number_size=4))[0] == {"initial"}
    assert reader.names(initial(b"\x01", number=9 << 20, number_size=4))[0] == {"initial", "refused"}


# ---- frames


@pytest.mark.parametrize("sizes", [(0, 0, 0), (2, 0, 0), (4, 8, 0), (8, 8, 8), (1, 4, 8)])
def test_long_forms_of_frame_fields(sizes):
    assert names(initial(crypto(0, HELLO, sizes=sizes))) == [b"example.com"]


BETWEEN = {
    "padding": bytes(3), "padding in two bytes": b"\x40\x00", "ping": b"\x01", "ping in two bytes": b"\x40\x01",
    "ack": b"\x02" + varint(9) + varint(0) + varint(2) + varint(1) + varint(0) * 4,
    "ack with ecn": b"\x03" + varint(9) + varint(0) + varint(0) + varint(1) + varint(70) * 3,
    "ack in two bytes": b"\x40\x02" + varint(9) + varint(0) + varint(0) + varint(1),
    "close": b"\x1c" + varint(0x170) + varint(6) + varint(3) + b"bye",
    "close of the application": b"\x1d" + varint(0x170) + varint(3) + b"bye",
}


@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
def test_frames_between(between):
    frames = between + crypto(60, HELLO[60:]) + between + crypto(0, HELLO[:60]) + between
    assert names(initial(frames)) == [b"example.com"]


@pytest.mark.parametrize("bad", [
    b"\x06\x00" + varint((1 << 61), 8), b"\x06" + varint((1 << 62) - 1) + varint((1 << 62) - 1),
    b"\x06\x00\x7f\xff", b"\x06", b"\x06\x40", b"\x06\x00", b"\x08\x00", b"\x04" + bytes(30), b"\x30\x00",
    b"\xff" * 8,
    b"\x02\x09\x00" + varint((1 << 62) - 1) + bytes(90), b"\x03" + bytes(4), b"\x1c\x00\x00" + varint(1 << 61),
    b"\x1d\x00\x7f\xff", b"\x40",
])
def test_a_frame_that_no_server_takes_ends_the_packet(bad):
    before, behind = crypto(0, HELLO[:60]), crypto(60, HELLO[60:])
    reader = Reader()
    assert reader.names(initial(before + bad))[0] == {"initial", "damaged"}
    assert reader.names(initial(behind, number=1)) == ({"initial"}, [b"example.com"]), "the one before was kept"


def test_crypto_beyond_the_budget_is_counted():
    reader = Reader()
    frames = crypto(65_530, b"0123456789") + crypto(65_536, b"x") + crypto((1 << 62) - 11, b"0123456789")
    seen, pieces = reader.read(initial(frames))
    assert pieces == [(DCID, 65_530, b"012345")]
    assert reader.counters()["beyond"] == 3 and seen == {"initial"}


@pytest.mark.parametrize("order", ["forward", "backward", "shuffled"])
def test_one_byte_frames(order):
    frames = [crypto(at, HELLO[at:at + 1]) for at in range(len(HELLO))]
    if order == "backward":
        frames.reverse()
    elif order == "shuffled":
        random.Random(1).shuffle(frames)
    packets = [initial(b"\x01".join(frames[at:at + 100]), number=at // 100) for at in range(0, len(frames), 100)]
    assert names(*packets) == [b"example.com"]
    assert names(b"".join(packets)) == [b"example.com"]


def test_more_frames_than_are_handed_on_together():
    frames = b"".join(crypto(at, HELLO[at:at + 1]) for at in reversed(range(len(HELLO))))
    assert names(initial(frames * 4 + crypto(0, HELLO[:1]))) == [b"example.com"]


@pytest.mark.parametrize("size", [2_500, 9_000, 40_000])
def test_large_hellos(size):
    big = hello(b"large.example")
    filler = b"\xff\xa6" + (size - len(big)).to_bytes(2, "big") + bytes(size - len(big))
    extensions = int.from_bytes(big[45:47], "big") + len(filler)
    big = big[:45] + extensions.to_bytes(2, "big") + filler + big[47:]
    big = big[:1] + (len(big) - 4).to_bytes(3, "big") + big[4:]
    flight = [initial(crypto(at, big[at:at + 1100]), number=at // 1100) for at in range(0, len(big), 1100)]
    assert names(*flight) == names(*reversed(flight)) == [b"large.example"]


def test_overlapping_and_conflicting_pieces():
    real, decoy = hello(b"listed.example"), hello(b"benign.example")
    middle = len(real) - len(b"ed.example")
    overlapping = initial(crypto(0, real[:150]) + crypto(100, real[100:]))
    assert names(overlapping) == [b"listed.example"]
    for flight in ([real, decoy], [decoy, real]):
        packets = [initial(crypto(0, body), number=i) for i, body in enumerate(flight)]
        assert set(names(*packets)) == {b"listed.example", b"benign.example"}
    within_one = initial(crypto(0, decoy[:middle]) + crypto(0, real[:middle]) + crypto(middle, real[middle:]))
    assert set(names(within_one)) == {b"listed.example", b"benied.example"}


# ---- whose keys


def test_later_initials_carry_the_servers_id_and_the_first_ones_keys():
    flight = [initial(crypto(0, HELLO[:CUT])),
              initial(crypto(CUT, HELLO[CUT:]), dcid=b"server's", number=1, keys_of=DCID)]
    reader = Reader()
    assert [reader.names(datagram)[1] for datagram in flight] == [[], [b"example.com"]]
    assert reader.connections == 1 and reader.counters()["derivations"] == 1


def test_after_a_retry_keys_come_from_the_retrys_id():
    flight = [initial(crypto(0, HELLO[:CUT])),
              initial(crypto(0, HELLO[:CUT]), dcid=b"of retry", token=b"token", number=1),
              initial(crypto(CUT, HELLO[CUT:]), dcid=b"of retry", token=b"token", number=2)]
    assert names(*flight) == [b"example.com"]


@pytest.mark.parametrize("first,then", [(VERSION_1, VERSION_2), (VERSION_2, VERSION_1)])
def test_compatible_version_negotiation(first, then):
    reader = Reader()
    reader.names(initial(crypto(0, HELLO[:CUT]), version=first))
    rest = initial(crypto(CUT, HELLO[CUT:]), version=then, dcid=b"server's", keys_of=DCID, number=1)
    assert reader.names(rest) == ({"initial"}, [b"example.com"])
    again = initial(b"\x01", version=then, dcid=b"server's", keys_of=DCID, number=2)
    spent = reader.counters()["derivations"]
    assert reader.names(again)[0] == {"initial"} and reader.counters()["derivations"] == spent


def test_decoys_do_not_settle_the_addresses():
    decoys = [initial(crypto(0, hello(b"decoy.example")), dcid=bytes([i]) * 8) for i in range(7)]
    flight = [initial(crypto(0, HELLO[:CUT])), *decoys, *decoys, initial(crypto(CUT, HELLO[CUT:]), number=1)]
    found = names(*flight)
    assert found == [b"decoy.example"] * 7 + [b"example.com"]


def test_interleaved_connections_are_not_mixed():
    one, two = hello(b"one.example"), hello(b"two.example")
    flight = [initial(crypto(0, one[:60])), initial(crypto(60, two[60:]), dcid=b"another!"),
              initial(crypto(0, two[:60]), dcid=b"another!", number=1), initial(crypto(60, one[60:]), number=1)]
    assert names(*flight) == [b"two.example", b"one.example"]


# ---- budgets


def broken(packet: bytes) -> bytes:
    return packet[:-1] + bytes([packet[-1] ^ 1])


def others(count: int, **settings) -> list[bytes]:
    """Connections of which each has sent a part of its hello."""
    return [initial(crypto(0, hello(b"%d.example" % i)[:60]), dcid=bytes([i >> 8, i & 255]) * 4, **settings)
            for i in range(count)]


@pytest.mark.parametrize("scid", [b"", b"mine"])
@pytest.mark.parametrize("count", [7, 300])
def test_no_number_of_other_connections_stands_in_the_way_of_a_packets_own_id(count, scid):
    reader = Reader(failures=0)
    for datagram in others(count, scid=scid):
        assert reader.names(datagram)[0] == {"initial"}
    flight = [initial(crypto(0, HELLO[:CUT]), scid=scid), *others(count, scid=scid),
              initial(crypto(CUT, HELLO[CUT:]), scid=scid, number=1)]
    assert [name for datagram in flight for name in reader.names(datagram)[1]] == [b"example.com"]
    assert reader.connections == count + 1


@pytest.mark.parametrize("count,seen,port", [
    (3, {"initial"}, 50_000), (8, {"refused"}, 50_000), (300, {"refused"}, 50_000),
    (3, {"initial"}, 50_001), (4, {"refused"}, 50_001), (300, {"refused"}, 50_001)])
def test_some_keys_are_tried_whatever_was_spent(count, seen, port):
    # The client's own id changes, which an honest one never does: it would be found by that.
    reader = Reader(connections=4, failures=0)
    assert reader.names(initial(crypto(0, HELLO[:CUT]), scid=b"one"))[0] == {"initial"}
    for datagram in others(count, scid=b"other"):
        assert reader.names(datagram)[0] == {"initial"}
    rest = initial(crypto(CUT, HELLO[CUT:]), dcid=b"server's", scid=b"two", keys_of=DCID, number=1)
    assert reader.names(rest, port=port) == (seen, [b"example.com"] if "initial" in seen else [])
    rest = initial(crypto(CUT, HELLO[CUT:]), dcid=b"server's", scid=b"one", keys_of=DCID, number=1)
    assert reader.names(rest)[0] == {"initial"}


def test_more_keys_are_tried_while_the_worker_has_a_budget():
    reader = Reader(connections=4, failures=40)
    reader.names(initial(crypto(0, HELLO[:CUT]), scid=b"one"))
    for datagram in others(30, scid=b"other"):
        reader.names(datagram)
    rest = [initial(crypto(CUT, HELLO[CUT:]), dcid=b"server %d" % i, scid=b"two", keys_of=name, number=1)
            for i, name in enumerate((b"none", DCID))]
    assert [reader.names(rest[i], at)[0] for at, i in enumerate((0, 0, 1))] == [
        {"unopened"}, {"unopened"}, {"initial"}]
    reader = Reader(connections=4, failures=40)
    reader.names(initial(crypto(0, HELLO[:CUT]), scid=b"one"))
    for datagram in others(30, scid=b"other"):
        reader.names(datagram)
    assert [reader.names(datagram, 0.5)[0] for datagram in (rest[0], rest[1])] == [{"unopened"}, {"refused"}]
    assert reader.counters()["refused_flow"] == 1


def test_work_of_a_datagram_is_limited():
    many = b"".join(initial(b"\x01", dcid=bytes([i, 1]) * 4) for i in range(70))
    reader = Reader()
    assert reader.names(many)[0] == {"initial", "refused"} and reader.counters()["derivations"] == 33
    same = initial(crypto(0, HELLO)) + b"".join(initial(b"\x01", number=i) for i in range(1, 200))
    assert Reader().names(same) == ({"initial", "refused"}, [b"example.com"])
    few = b"".join(initial(b"\x01", number=i) for i in range(1, 60)) + initial(crypto(0, HELLO))
    assert Reader().names(few) == ({"initial"}, [b"example.com"])


def test_derivations_of_the_worker_are_limited_and_come_back():
    reader = Reader(worker_derivations=2)
    junk = broken(initial(crypto(0, HELLO)))
    assert [reader.names(junk, now)[0] for now in (0.0, 0.1, 0.2, 1.3)] == [
        {"unopened"}, {"unopened"}, {"overload"}, {"unopened"}]
    assert reader.counters()["refused_worker"] == 1


def test_identical_copies_cost_no_budget():
    reader = Reader(derivations=1, failures=1)
    packet = initial(crypto(0, HELLO))
    found = [reader.names(packet, 0.0) for _ in range(50)]
    assert found == [({"initial"}, [b"example.com"])] + [({"initial"}, [])] * 49


def test_memory_of_a_connection_is_bounded():
    reader = Reader()
    for i in range(200):
        reader.names(initial(crypto(5 + 300 * i, random.Random(i).randbytes(299)), number=i), cap=8192)
    one = reader.bytes
    assert 8192 <= one < 16_384
    reader.names(initial(crypto(0, HELLO), dcid=b"another one"))
    assert reader.bytes < one + 4096, "and another has its own"


# ---- from other ports


def test_a_hello_from_two_ports():
    flight = [initial(crypto(0, HELLO[:CUT])), initial(crypto(CUT, HELLO[CUT:]), number=1)]
    for ports in ((50_000, 50_001), (50_001, 50_000)):
        reader = Reader()
        assert [reader.names(datagram, port=port)[1] for datagram, port in zip(flight, ports, strict=True)] == [
            [], [b"example.com"]]
    flight[1] = initial(crypto(CUT, HELLO[CUT:]), number=1, dcid=b"server's", keys_of=DCID)
    reader = Reader()
    assert reader.names(flight[0])[1] == []
    for port in range(1000, 1100):      # others between the same addresses, whose hellos are whole
        assert reader.names(initial(crypto(0, hello(b"o.example")), dcid=b"%d...." % port), port=port)[1]
    assert reader.names(flight[1], port=50_001)[1] == [b"example.com"]


def test_two_ids_from_two_ports_are_two_connections():
    one, two = hello(b"one.example"), hello(b"two.example")
    reader = Reader()
    assert reader.names(initial(crypto(0, one[:60])), port=1)[1] == []
    assert reader.names(initial(crypto(60, two[60:]), dcid=b"another!", number=1), port=2)[1] == []


def test_versions_with_one_id_are_one_connection():
    # aioquic's server has the keys of all its versions for the client's first id, and one CRYPTO stream.
    reader = Reader()
    assert reader.names(initial(crypto(0, HELLO[:CUT])))[1] == []
    assert reader.names(initial(crypto(CUT, HELLO[CUT:]), version=VERSION_2, number=1), port=50_001)[1] == [
        b"example.com"]


# ---- any bytes


def mutated(seeds):
    return st.tuples(seeds, st.lists(st.tuples(st.integers(0, 1400), st.integers(0, 255)), max_size=6),
                     st.integers(0, 1400)).map(_mutate)


def _mutate(choice):
    seed, changes, cut = choice
    packet = bytearray(seed)
    for at, value in changes:
        if at < len(packet):
            packet[at] = value
    return bytes(packet[:cut]) if cut < len(packet) else bytes(packet)


SEEDS = [vector("rfc9001-client-initial"), vector("rfc9369-client-initial"), vector("rfc9001-retry"),
         initial(crypto(0, HELLO), token=b"token"),
         initial(crypto(0, HELLO[:9])) + initial(crypto(9, HELLO[9:]), number=1)]


@given(st.lists(mutated(st.sampled_from(SEEDS)), max_size=4))
@settings(deadline=None)
def test_mutated_datagrams(datagrams):
    reader = Reader()
    for datagram in datagrams:
        seen, found = reader.names(datagram)
        assert set(found) <= {b"example.com"}, "a changed packet does not open"
        if "initial" not in seen:
            assert not found


@given(st.binary(max_size=300), st.integers(1, 4), st.sampled_from(list(VERSIONS.values())))
@settings(deadline=None)
def test_any_frames(frames, number_size, version):
    """Frames that opened are as hostile as any bytes; the slow reading beside it agrees on every piece."""
    seen, pieces = Reader().read(initial(frames, number_size=number_size, version=version))
    padded = frames + bytes(max(0, 4 - number_size - len(frames)))
    whole, expected = slow_frames(padded)
    assert pieces == [(DCID, offset, data) for offset, data in sorted(expected, key=lambda piece: piece[0])] or \
        sorted(pieces) == sorted((DCID, offset, data) for offset, data in expected)
    assert ("damaged" in seen) == (not whole)


@given(st.lists(st.sampled_from([*BETWEEN.values(), crypto(0, b"abc"), crypto(70_000, b"x"), b"\x06\x00\x05ab",
                                 crypto(3, b"def", sizes=(2, 4, 8)), b"\x40\x06", b"\x02\x01\x00"]), max_size=12))
@settings(deadline=None)
def test_any_sequence_of_frames(parts):
    test_any_frames.hypothesis.inner_test(b"".join(parts), 2, VERSION_1)


def slow_frames(data: bytes) -> tuple[bool, list[tuple[int, bytes]]]:
    """An independent reading of RFC 9000, section 19: (was every frame whole and allowed, CRYPTO pieces)."""
    pieces: list[tuple[int, bytes]] = []
    at = 0

    def number() -> int:
        nonlocal at
        size = 1 << (data[at] >> 6)
        field = data[at:at + size]
        if len(field) < size:
            raise IndexError
        at += size
        return int.from_bytes(field, "big") & (1 << 8 * size - 2) - 1

    def take(size: int) -> bytes:
        nonlocal at
        if size > len(data) - at:
            raise IndexError
        at += size
        return data[at - size:at]

    try:
        while at < len(data):
            kind = number()
            if kind == 6:
                offset = number()
                piece = take(number())[:max(0, 65536 - offset)]
                if piece:
                    pieces.append((offset, piece))
            elif kind in (2, 3):
                number(), number()
                count = number()
                number()
                for _ in range(min(2 * count, len(data) + 1) + (3 if kind == 3 else 0)):
                    number()
            elif kind in (0x1C, 0x1D):
                number()
                if kind == 0x1C:
                    number()
                take(number())
            elif kind not in (0, 1):
                return False, pieces
    except IndexError:
        return False, pieces
    return True, pieces
