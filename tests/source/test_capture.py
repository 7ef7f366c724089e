"""Capture files against scapy, the corpus, and bytes that somebody broke on purpose."""

import gzip
import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.all import (
    IP,
    PPP,
    TCP,
    UDP,
    CookedLinux,
    CookedLinuxV2,
    Dot1AD,
    Dot1Q,
    Ether,
    IPv6,
    Loopback,
    PcapNgWriter,
    PPPoE,
    rdpcap,
)
from scapy.utils import PcapWriter

from edgeblock.errors import CaptureError
from edgeblock.source import capture
from edgeblock.source.capture import Capture, CaptureWriter, find_packet, reframe, trim
from tests.corpus import CORPUS, corpus

V4 = bytes(IP(src="10.0.0.1", dst="192.0.2.1") / TCP(sport=4000, dport=443) / b"hello")
V6 = bytes(IPv6(src="fd00::1", dst="2001:db8::1") / UDP(sport=4000, dport=443) / b"hello")
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=0x0800)
ETHER6 = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=0x86DD)


def pcap(*frames, order="<", magic=0xA1B2C3D4, link=1, fraction=123456, version=2):
    head = struct.pack(order + "IHHiIII", magic, version, 4, 0, 0, 65535, link)
    return head + b"".join(struct.pack(order + "4I", 1700000000, fraction, len(frame), len(frame)) + frame
                           for frame in frames)


def block(order, kind, body):
    body += bytes(-len(body) % 4)
    return struct.pack(order + "II", kind, len(body) + 12) + body + struct.pack(order + "I", len(body) + 12)


def section(order="<"):
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order="<", link=1, options=b"", snap=0):
    return block(order, 1, struct.pack(order + "HHI", link, 0, snap) + options)


def option(order, code, value):
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def enhanced(frame, order="<", index=0, ticks=1_700_000_000_123_456, wire_size=0):
    return block(order, 6, struct.pack(order + "5I", index, ticks >> 32, ticks & 0xFFFFFFFF, len(frame),
                                       wire_size or len(frame)) + frame)


@pytest.fixture
def load(tmp_path):
    """Writes bytes to a file and reads it: the records, and the Capture when it is through."""
    def read(data, name="x.pcap"):
        path = tmp_path / name
        path.write_bytes(data)
        with Capture(path) as source:
            return list(source), source
    return read


def refused(load, data, words):
    with pytest.raises(CaptureError) as caught:
        load(data)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert "x.pcap" in str(caught.value)


# -- files -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("magic", "fraction"), [(0xA1B2C3D4, 123456), (0xA1B23C4D, 123456789)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_pcap_in_every_order_and_precision(load, order, magic, fraction, pack):
    records, source = load(pack(pcap(bytes(ETHER / V4), bytes(ETHER6 / V6), order=order, magic=magic,
                                     fraction=fraction)))
    assert [record.packet for record in records] == [V4, V6]
    assert [record.number for record in records] == [1, 2]
    assert records[0].time == pytest.approx(1700000000.123456, abs=1e-6)
    assert (source.frames, source.trouble, source.pcapng) == (2, None, False)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_pcapng_in_every_order(load, order, pack):
    frame = bytes(ETHER / V4)
    old = block(order, 2, struct.pack(order + "HH4I", 0, 9, 0, 5_000_000, len(frame), len(frame)) + frame)
    simple = block(order, 3, struct.pack(order + "I", len(frame)) + frame)
    records, source = load(pack(section(order) + interface(order) + enhanced(frame, order) + old + simple))
    assert [record.packet for record in records] == [V4] * 3
    assert [record.time for record in records] == [1700000000.123456, 5.0, 5.0]
    assert source.trouble is None and source.pcapng


@pytest.mark.parametrize(("resolution", "ticks"), [
    (b"\x06", 1_700_000_000_500_000), (b"\x09", 1_700_000_000_500_000_000), (b"\x03", 1_700_000_000_500),
    (b"\x80", 1_700_000_000), (b"\x8a", 1_700_000_000 * 1024 + 512),
])
def test_pcapng_time_resolution(load, resolution, ticks):
    data = section() + interface(options=option("<", 9, resolution)) + enhanced(V4, ticks=ticks)
    assert load(data)[0][0].time == pytest.approx(1700000000.5, abs=0.51 if resolution == b"\x80" else 1e-6)


def test_pcapng_time_offset_and_options_that_make_no_sense(load):
    options = option("<", 9, b"\x00") + option("<", 14, struct.pack("<q", -50)) + b"\x02\x00\xff\xff"
    assert load(section() + interface(options=options) + enhanced(V4, ticks=150))[0][0].time == 100.0


def test_several_sections_and_interfaces(load):
    data = (section("<") + interface(link=101) + interface(link=1) + enhanced(bytes(ETHER / V4), index=1) +
            enhanced(V6, index=0) + section(">") + interface(">", link=113) +
            enhanced(bytes(CookedLinux(proto=0x0800) / V4), ">"))
    records, _ = load(data)
    assert [(record.link, record.packet) for record in records] == [(1, V4), (101, V6), (113, V4)]


def test_blocks_without_frames_are_passed_over(load):
    data = section() + interface(link=101) + block("<", 4, b"names") + block("<", 0x0BAD, b"x" * 70000) + enhanced(V4)
    assert len(load(data)[0]) == 1


def test_frames_of_interfaces_nobody_described_are_counted(load):
    records, source = load(section() + interface(link=101) + enhanced(V4, index=7) + enhanced(V4))
    assert [record.start for record in records] == [-1, 0] and source.frames == 2


def test_written_by_scapy(tmp_path, load):
    path = tmp_path / "ng"
    with PcapNgWriter(str(path)) as writer:
        writer.write([ETHER / V4, ETHER6 / V6])
    assert [record.packet for record in load(path.read_bytes())[0]] == [V4, V6]
    with PcapWriter(str(path), linktype=1, nano=True, endianness=">") as writer:
        writer.write([ETHER / V4])
    assert [record.packet for record in load(path.read_bytes())[0]] == [V4]


# -- files that are wrong ----------------------------------------------------------------------------------------

@pytest.mark.parametrize(("data", "words"), [
    (b"", "empty"),
    (b"x", "not a pcap or pcapng capture"),
    (b"this is a text file\n" * 9, "not a pcap or pcapng capture"),
    (gzip.compress(b"this is a text file\n" * 9, mtime=0), "not a pcap or pcapng capture"),
    (b"\x1f\x8bnonsense", "not a pcap or pcapng capture"),
    (pcap()[:20], "cut inside its header"),
    (section()[:10], "not a pcap or pcapng capture"),
    (pcap(V4, link=105), "link type 105 is not read here"),
    (pcap(V4, version=543), "version 543"),
    (section() + interface(link=105) + enhanced(V4), "link type 105 is not read here"),
])
def test_what_is_no_capture_is_refused_in_one_line(load, data, words):
    refused(load, data, words)


def test_what_is_no_file_is_refused(tmp_path):
    for path, words in ((tmp_path, "cannot be read: Is a directory"), (tmp_path / "none", "No such file"),
                        ("/dev/null", "not a regular file")):
        with pytest.raises(CaptureError, match=words):
            Capture(path)


WHOLE = pcap(*[bytes(ETHER / V4)] * 5)
WHOLE_NG = section() + interface() + enhanced(bytes(ETHER / V4)) * 5


@pytest.mark.parametrize("whole", [WHOLE, WHOLE_NG])
def test_a_cut_capture_gives_its_whole_frames_and_says_so(load, whole):
    frame = len(bytes(ETHER / V4))
    size = (len(whole) - 24) // 5 if whole is WHOLE else len(enhanced(bytes(ETHER / V4)))
    start = len(whole) - 5 * size
    assert frame < size
    for end in range(start, len(whole) + 1):
        records, source = load(whole[:end])
        complete, rest = divmod(end - start, size)
        assert len(records) == source.frames == complete
        if rest:
            assert source.trouble.startswith(f"cut in the middle after frame {complete}")
        else:
            assert source.trouble is None


def test_a_cut_gzip_stream(load):
    frames = [V4[:4] + number.to_bytes(2, "big") + V4[6:] for number in range(2000)]
    packed = gzip.compress(pcap(*frames, link=101))
    records, source = load(packed[:len(packed) // 2])
    assert 0 < len(records) < 2000 and [record.frame for record in records] == frames[:len(records)]
    assert "cut in the middle" in source.trouble and "gzip" in source.trouble


@pytest.mark.parametrize(("data", "words"), [
    (pcap(V4) + struct.pack("<4I", 1, 1, 0x7FFFFFFF, 60) + V4, "damaged: a frame of 2147483647 bytes after frame 1"),
    (section() + interface() + enhanced(V4) + struct.pack("<II", 6, 13) + V4, "damaged: a block of 13 bytes"),
    (section() + interface() + enhanced(V4) + struct.pack("<II", 6, 1 << 30) + V4, "damaged: a block of 1073741824"),
    (section() + interface() + enhanced(V4)[:-4] + b"\x10\0\0\0", "whose two lengths differ after frame 0"),
    (section() + b"\x0a\x0d\x0d\x0a\x1c\0\0\0ABCD" + bytes(16), "without a byte order"),
])
def test_a_damaged_capture_is_read_up_to_the_damage(load, data, words):
    assert words in load(data)[1].trouble


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([WHOLE, WHOLE_NG, gzip.compress(WHOLE, mtime=0)]),
       st.lists(st.tuples(st.integers(0, 600), st.binary(min_size=1, max_size=6)), max_size=4), st.integers(0, 600))
def test_whatever_the_bytes_only_a_capture_error(tmp_path_factory, whole, changes, cut):
    data = bytearray(whole)
    for at, new in changes:
        data[at % len(data):at % len(data) + len(new)] = new
    path = tmp_path_factory.getbasetemp() / "mutated"
    path.write_bytes(data[:cut] if cut % 3 == 0 else data)
    try:
        with Capture(path) as source:
            for record in source:
                assert record.packet == b"" or record.packet[0] >> 4 in (4, 6)
                assert len(record.packet) <= capture.MAX_FRAME
                reframe(record, record.packet, True)
    except CaptureError as error:
        assert "\n" not in str(error)


# -- frames ------------------------------------------------------------------------------------------------------

VLAN = Ether(src=ETHER.src, dst=ETHER.dst, type=0x8100)
PPPOES = Ether(src=ETHER.src, dst=ETHER.dst, type=0x8864)
PPPOE = PPPoE(sessionid=7, code=0)
FRAMES = [
    ("plain", 1, ETHER / V4, 14),
    ("padded", 1, ETHER / (V4 + b"\0" * 9), 14),
    ("v6", 1, ETHER6 / V6, 14),
    ("tagged", 1, VLAN / Dot1Q(vlan=3, type=0x0800) / V4, 18),
    ("two tags", 1, Ether() / Dot1AD(vlan=3) / Dot1Q(vlan=4, type=0x86DD) / V6, 22),
    ("pppoe", 1, PPPOES / PPPOE / PPP(proto=0x21) / V4, 22),
    ("pppoe v6", 1, VLAN / Dot1Q(vlan=3, type=0x8864) / PPPOE / PPP(proto=0x57) / V6, 26),
    ("cooked", 113, CookedLinux(proto=0x0800) / V4, 16),
    ("cooked, tagged", 113, CookedLinux(proto=0x8100) / Dot1Q(vlan=3, type=0x0800) / V4, 20),
    ("cooked v2", 276, CookedLinuxV2(proto=0x86DD) / V6, 20),
    ("null", 0, Loopback(type=2) / V4, 4),
    ("null, other order", 0, b"\0\0\0\x1e" + V6, 4),
    ("loop", 108, b"\0\0\0\x02" + V4, 4),
    ("raw", 101, V4, 0),
    ("raw, openbsd", 14, V6, 0),
    ("raw v4", 228, V4, 0),
    ("raw v6", 229, V6, 0),
]


@pytest.mark.parametrize(("link", "frame", "start"), [row[1:] for row in FRAMES],
                         ids=[row[0] for row in FRAMES])
def test_the_packet_in_a_frame(load, link, frame, start):
    data = bytes(frame)
    packet = V6 if V6 in data else V4
    assert find_packet(link, data) == start
    assert trim(data, start) == (packet, False)
    (record,), _ = load(section() + interface(link=link) + enhanced(data))
    assert record.packet == packet
    # A reply in the same framing is found again the same way, with the same length of header.
    for turned in (False, True):
        answer = reframe(record, packet + b"", turned)
        assert find_packet(link, answer) == start and trim(answer, start) == (packet, False)


def test_compressed_ppp_protocol():
    frame = bytes(ETHER) [:12] + b"\x88\x64\x11\x00\x00\x07\x00\x40\x21" + V4
    assert find_packet(1, frame) == 21


@pytest.mark.parametrize("frame", [
    b"", b"\0" * 13, bytes(ETHER)[:12] + b"\x08\x06" + bytes(28), bytes(ETHER)[:12] + b"\x88\x47" + bytes(4) + V4,
    bytes(ETHER)[:12] + b"\x81\x00\x00\x03" * 9 + b"\x08\x00" + V4,
    bytes(ETHER)[:12] + b"\x88\x64\x11\xa7\x00\x07\x00\x40\x00\x21" + V4,   # PADT, not a session's data
    bytes(ETHER)[:12] + b"\x88\x64\x11\x00\x00\x07\x00\x40\xc0\x21" + V4,   # LCP
])
def test_frames_without_a_packet(frame):
    assert find_packet(1, frame) == -1


def test_replies_are_turned_and_pppoe_counts_their_bytes(load):
    (record,), _ = load(pcap(bytes(VLAN / Dot1Q(vlan=3, type=0x8864) / PPPOE / PPP(proto=0x21) / V4)))
    answer = Ether(reframe(record, V4 * 3, turned=True))
    assert (answer.src, answer.dst, answer[Dot1Q].vlan) == (ETHER.dst, ETHER.src, 3)
    assert answer[PPPoE].len == len(V4) * 3 + 2
    onward = Ether(reframe(record, V4, turned=False))
    assert (onward.src, onward.dst) == (ETHER.src, ETHER.dst)
    (record,), _ = load(pcap(bytes(CookedLinux(proto=0x0800, pkttype=0) / V4), link=113))
    assert CookedLinux(reframe(record, V4, turned=True)).pkttype == 4


def test_a_packet_that_the_capture_cut_is_as_long_as_what_is_there():
    for packet, layer in ((V4, IP), (V6, IPv6)):
        short, cut = trim(packet[:-3], 0)
        again = layer(short)
        for field in ("len", "chksum") if layer is IP else ("plen",):
            again.delfieldval(field)
        assert cut and short == bytes(again) and len(short) == len(packet) - 3
    assert trim(V4[:19], 0) == trim(V6[:39], 0) == trim(b"", 0) == (b"", False)


def test_a_length_left_to_segmentation_offload():
    packet = bytearray(bytes(IP(src="10.0.0.1", dst="10.0.0.2") / TCP() / (b"x" * 3000)))
    whole = bytes(packet)
    packet[2:4] = b"\0\0"
    assert trim(bytes(packet), 0) == (whole, False)
    assert trim(bytes(packet[:40]) + bytes(6), 0) == (b"", False)      # only padding


# -- writing -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("pcapng", [False, True])
def test_what_is_written_is_read_by_scapy_and_by_us(tmp_path, pcapng):
    path = tmp_path / "out"
    frames = [bytes(ETHER / V4), bytes(ETHER6 / V6) + b"odd"]
    with CaptureWriter(path, pcapng) as writer:
        writer.write(1700000000.123456, 1, frames[0])
        writer.write(1700000001.5, 1, frames[1], wire_size=1514)
    again = rdpcap(io.BytesIO(path.read_bytes()))
    assert [bytes(packet) for packet in again] == frames
    assert [float(packet.time) for packet in again] == [pytest.approx(1700000000.123456, abs=1e-6), 1700000001.5]
    with Capture(path) as source:
        assert [(record.frame, record.wire_size) for record in source] == [(frames[0], len(frames[0])),
                                                                          (frames[1], 1514)]


def test_several_link_types_need_pcapng(tmp_path):
    with CaptureWriter(tmp_path / "ng", pcapng=True) as writer:
        writer.write(1.0, 1, bytes(ETHER / V4))
        writer.write(2.0, 101, V6)
    with Capture(tmp_path / "ng") as source:
        assert [(record.link, record.packet) for record in source] == [(1, V4), (101, V6)]
    with CaptureWriter(tmp_path / "old", link=101) as writer, pytest.raises(ValueError, match="one link type"):
        writer.write(1.0, 1, bytes(ETHER / V4))


def test_what_cannot_be_written_is_said_in_one_line(tmp_path):
    with pytest.raises(CaptureError, match="cannot be written: No such file"):
        CaptureWriter(tmp_path / "none" / "x")
    with pytest.raises(CaptureError, match="No space left"), CaptureWriter("/dev/full") as writer:
        writer.write(1.0, 1, bytes(70000))


# -- the corpus --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("entry", corpus(), ids=lambda entry: entry["file"].split("/")[-1])
def test_every_capture_of_the_corpus_opens_and_has_its_frames(entry):
    with Capture(CORPUS / entry["file"]) as source:
        records = list(source)
    assert (source.frames, source.trouble) == (entry["packets"], None)
    assert len(records) == entry["packets"]
    assert [record.number for record in records] == list(range(1, len(records) + 1))
