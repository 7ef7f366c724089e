"""Fragments in every order, doubled, overlapping and broken; scapy cuts, a byte map is the second opinion."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.all import IP, TCP, UDP, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, Raw, fragment6

from edgeblock import wire
from edgeblock.source.defragment import TIMEOUT, Defragmenter

BODY = bytes(random.Random(1).randbytes(1000))


def pieces4(cuts, body=BODY, **fields):
    """IPv4 fragments of a body, cut at these offsets (multiples of 8)."""
    edges = [0, *cuts, len(body)]
    fields = {"src": "10.0.0.1", "dst": "10.0.0.2", "id": 7, "proto": 17, **fields}
    return [bytes(IP(frag=start // 8, flags="MF" if end < len(body) else 0, **fields) / Raw(body[start:end]))
            for start, end in zip(edges, edges[1:], strict=False)]


def pieces6(cuts, body=BODY, before=(), **fields):
    edges = [0, *cuts, len(body)]
    fields = {"id": 7, "nh": 17, **fields}
    head = IPv6(src="fd00::1", dst="fd00::2")
    for layer in before:
        head = head / layer
    return [bytes(head / IPv6ExtHdrFragment(offset=start // 8, m=int(end < len(body)), **fields) /
                  Raw(body[start:end])) for start, end in zip(edges, edges[1:], strict=False)]


def push_all(fragments, box=None, now=0.0):
    """What comes out, in order."""
    box = Defragmenter() if box is None else box
    found = [box.push(fragment, now, number) for number, fragment in enumerate(fragments)]
    return [whole for whole in found if whole is not None]


def body_of(whole):
    header = wire.find_transport(whole.packet)
    assert header.end == len(whole.packet) and not header.fragment
    if header.version == 4:
        assert wire.sum16(whole.packet[:header.at]) == 0
    return whole.packet[header.at:]


@pytest.mark.parametrize("pieces", [pieces4, pieces6])
def test_every_order_gives_the_whole_once_at_the_last_piece(pieces):
    fragments = pieces([8, 400, 408, 992])
    for seed in range(30):
        order = random.Random(seed).sample(fragments, len(fragments))
        box = Defragmenter()
        whole, = push_all(order, box)
        assert body_of(whole) == BODY and whole.parts == (0, 1, 2, 3, 4)
        assert (box.whole, box.incomplete, box.cost) == (1, 0, 0)


def test_scapy_agrees_about_whole_packets():
    packet = IP(src="10.0.0.1", dst="10.0.0.2", id=9, tos=8) / TCP(sport=1, dport=443) / Raw(BODY)
    expected = IP(bytes(packet))
    whole, = push_all([bytes(piece) for piece in packet.fragment(200)])
    assert whole.packet == bytes(expected)
    packet6 = IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(id=3) / UDP() / Raw(BODY)
    whole, = push_all([bytes(piece) for piece in fragment6(packet6, 300)])
    expected6 = IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrHopByHop() / UDP() / Raw(BODY)
    assert whole.packet == bytes(expected6)


def test_options_and_extension_headers_stay():
    whole, = push_all(pieces4([16], options=[]))
    assert whole.packet[0] == 0x45
    whole, = push_all(pieces6([16], before=(IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt())))
    assert IPv6(whole.packet)[IPv6ExtHdrDestOpt].nh == 17


def test_a_first_fragment_with_half_a_tcp_header():
    packet = IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1, dport=443) / Raw(BODY)
    whole, = push_all(pieces4([8], bytes(packet)[20:], proto=6))
    assert IP(whole.packet)[TCP].dport == 443


@pytest.mark.parametrize("pieces", [pieces4, pieces6])
def test_the_first_copy_of_a_fragment_is_kept(pieces):
    first, second = pieces([504])
    liar = pieces([504], bytes(1000))[0]
    assert body_of(push_all([first, liar, second])[0]) == BODY
    assert body_of(push_all([liar, first, second])[0])[:504] == bytes(504)
    inside = pieces([8, 16], bytes(1000))[1]
    assert body_of(push_all([first, inside, second])[0]) == BODY


@pytest.mark.parametrize("pieces", [pieces4, pieces6])
@pytest.mark.parametrize(("held", "late"), [
    ([0], (496, 512)), ([1], (496, 512)), ([0], (0, 512)), ([1], (8, 1000)), ([1], (504, 1000)),
])
def test_any_other_overlap_throws_the_datagram_away(pieces, held, late):
    both = pieces([504])
    late_piece = [piece for piece in pieces([edge for edge in late if 0 < edge < 1000], bytes(1000))
                  if _span(piece) == late]
    box = Defragmenter()
    assert push_all([both[index] for index in held] + late_piece, box) == []
    if late == (504, 1000):     # the same span as the second fragment: a duplicate, not an overlap
        assert (box.overlapped, box.incomplete) == (0, 1)
    else:
        assert (box.overlapped, box.incomplete, box.cost) == (1, 0, 0)
        assert push_all([both[1 - held[0]]], box) == [], "what comes later begins anew"


def _span(packet):
    header = wire.find_transport(packet)
    if header.version == 4:
        offset = (packet[6] << 8 | packet[7]) & 0x1FFF
        return offset * 8, offset * 8 + header.end - header.at
    offset = (packet[42] << 8 | packet[43]) & 0xFFF8
    return offset, offset + header.end - header.at


@pytest.mark.parametrize("pieces", [pieces4, pieces6])
def test_contradictions_about_the_end(pieces):
    longer = pieces([504], BODY + bytes(8))
    for fragments in ([pieces([504])[1], longer[1]],                        # two different ends
                      [pieces([504])[1], pieces([1000], BODY + BODY)[1]],   # data behind the end
                      [pieces([8, 1000], BODY + BODY)[1], pieces([504], BODY[:600])[1]]):     # an end before data
        box = Defragmenter()
        assert push_all(fragments, box) == []
        assert (box.overlapped, box.incomplete) == (1, 0)


@pytest.mark.parametrize("pieces", [pieces4, pieces6])
def test_datagrams_are_told_apart(pieces):
    one, two = pieces([504]), pieces([504], BODY[::-1], id=8)
    wholes = push_all([one[0], two[1], two[0], one[1]])
    assert [body_of(whole) for whole in wholes] == [BODY[::-1], BODY]


def test_ipv4_protocols_are_told_apart():
    one, two = pieces4([504]), pieces4([504], proto=6)
    assert push_all([one[0], two[1]]) == []


def test_an_odd_fragment_in_the_middle_is_cut_in_ipv4_and_refused_in_ipv6():
    first, second = pieces4([504])
    odd = bytearray(first + b"xyz")
    odd[2:4] = len(odd).to_bytes(2, "big")
    assert body_of(push_all([bytes(odd), second])[0]) == BODY
    first, second = pieces6([504])
    odd = bytearray(first + b"xyz")
    odd[4:6] = (len(odd) - 40).to_bytes(2, "big")
    box = Defragmenter()
    assert push_all([bytes(odd), second], box) == [] and box.malformed == 1


def test_an_atomic_fragment_is_whole_and_touches_no_other():
    box = Defragmenter()
    first, second = pieces6([504])
    atomic, = pieces6([], b"x" * 20)
    assert box.push(first, 0.0) is None
    assert body_of(box.push(atomic, 0.0)) == b"x" * 20
    assert body_of(box.push(second, 0.0)) == BODY


@pytest.mark.parametrize(("pieces", "version"), [(pieces4, 4), (pieces6, 6)])
def test_the_clock_runs_from_the_first_fragment(pieces, version):
    first, middle, last = pieces([304, 504])
    box = Defragmenter()
    box.push(first, 100.0)
    box.push(middle, 100.0 + TIMEOUT[version] - 0.1)
    assert box.push(last, 100.0 + TIMEOUT[version]) is None
    assert (box.expired, box.incomplete) == (1, 1)


def test_memory_is_bounded_and_the_oldest_go_first():
    box = Defragmenter(max_bytes=20_000)
    for number in range(200):
        box.push(pieces4([504], id=number)[0], float(number) / 100)
        box.push(pieces6([504], id=number)[0], float(number) / 100)
        assert box.cost <= 20_000
    assert box.evicted > 300 and box.incomplete == 400 - box.evicted
    assert box.push(pieces4([504], id=0)[1], 2.0) is None
    assert box.push(pieces4([504], id=199)[1], 2.0) is not None


def test_too_long_a_datagram_never_comes_out():
    body = bytes(65528)
    fragments = pieces4([65504], body)
    assert push_all(fragments) == []
    assert body_of(push_all(pieces6([65504], body))[0]) == body


# 8-byte units of a datagram, each fragment with its own filling, so that every byte tells where it came from.
SPANS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6), st.booleans()), min_size=1, max_size=20)


@settings(max_examples=150, deadline=None)
@given(SPANS, st.sampled_from([pieces4, pieces6]))
def test_what_comes_out_is_the_first_copy_of_every_byte(spans, pieces):
    box, owner = Defragmenter(), {}
    for number, (start, units, last) in enumerate(spans):
        body = bytes([number + 1]) * ((start + units) * 8)
        edges = [edge for edge in (start * 8, (start + units) * 8) if edge]
        packet = pieces(edges, body + (b"" if last else bytes(8)))[1 if start else 0]
        if last and start == 0:
            continue        # no fragment
        before = box.overlapped
        whole = box.push(packet, 0.0)
        if box.overlapped > before:
            owner = {}
            continue
        for unit in range(start, start + units):
            owner.setdefault(unit, number + 1)
        if whole is not None:
            data = body_of(whole)
            assert len(data) == len(owner) * 8
            assert [data[unit * 8] for unit in range(len(owner))] == [owner[unit] for unit in sorted(owner)]
            owner = {}


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(
    st.binary(max_size=120),
    st.tuples(st.sampled_from(pieces4([8, 504]) + pieces6([8, 504], before=(IPv6ExtHdrDestOpt(),))),
              st.integers(0, 70), st.binary(max_size=4)).map(
        lambda sample: sample[0][:sample[1]] + sample[2] + sample[0][sample[1] + len(sample[2]):]),
), max_size=12), st.floats(0, 1e10))
def test_whatever_the_bytes_nothing_is_raised_and_the_books_balance(packets, step):
    box = Defragmenter(max_bytes=3000)
    now = 0.0
    for packet in packets:
        now += step
        whole = box.push(packet, now)
        if whole is not None:
            assert wire.find_transport(whole.packet) is not None or whole.packet[0] >> 4 == 6
        assert 0 <= box.cost <= 3000
        assert box.cost == sum(held.cost for table in box._held.values() for held in table.values())
