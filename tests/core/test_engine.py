"""Engine.judge: every known disguise with a listed name and with an unlisted one, verdicts, policies, limits."""

import pytest

from edgeblock.core.engine import Engine
from edgeblock.core.matcher import Matcher
from edgeblock.disguises.messages import BEFORE, HEADS, RECORDS, head
from edgeblock.disguises.streams import FOOLING, ISN, MIDWAY, STRATEGIES, Path, with_headers
from tests.core import headers
from tests.core import samples as s
from tests.core.playing import LISTED, OTHER, engine, play

SENDABLE = STRATEGIES | MIDWAY
OVERFLOWING = ("each_byte_twice", "many_syns")     # more readings than are kept: the policy on conflicts blocks them


def tls(name: bytes) -> bytes:
    return s.hello(name)


def http(name: bytes) -> bytes:
    return s.request(name, b"/a/page.html", b"GET", b"", b"User-Agent: somebody", b"Accept: */*")


REQUESTS = {"tls": tls, "http": http}


def junk(packet: bytes) -> bool:
    """Packets that no server takes: a wrong checksum, or data without ACK."""
    head = 40 if packet[0] >> 4 == 6 else 20
    segment = packet[head:]
    flags, payload = segment[13], segment[(segment[12] >> 4) * 4:]
    pseudo = (packet[8:40] + len(segment).to_bytes(4, "big") + b"\0\0\0\6" if head == 40
              else packet[12:20] + b"\0\6" + len(segment).to_bytes(2, "big"))
    return s.ones_complement(pseudo + segment) != 0 or bool(payload) and not flags & (s.ACK | s.SYN)


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("how", SENDABLE)
def test_a_listed_name_is_found_however_it_is_sent(how, kind, six):
    data = REQUESTS[kind](LISTED)
    packets = list(SENDABLE[how](Path(six), data, data.index(LISTED), len(LISTED)))
    played = play(engine("blocked.example.com"), packets)
    if how not in OVERFLOWING:
        assert "blocked.example.com" in played.hosts
    assert played.blocked
    assert not server_has(played.accepted, LISTED, data)


def server_has(accepted: list[bytes], name: bytes, data: bytes) -> bool:
    """Whether some byte of the request's name is missing behind us. Only true bytes count, wherever they were."""
    have = bytearray(len(data))
    for packet in accepted:
        packet = packet[1] if isinstance(packet, tuple) else packet
        head = 40 if packet[0] >> 4 == 6 else 20
        segment = packet[head:]
        seq = int.from_bytes(segment[4:8], "big") + (1 if segment[13] & s.SYN else 0)
        at = (seq - ISN - 1 + 0x80000000) % 0x100000000 - 0x80000000
        for i, byte in enumerate(segment[(segment[12] >> 4) * 4:]):
            if 0 <= at + i < len(data) and byte == data[at + i]:
                have[at + i] = 1
    return all(have)


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("how", [how for how in SENDABLE if how not in OVERFLOWING])
def test_an_unlisted_name_passes_however_it_is_sent(how, kind, six):
    data = REQUESTS[kind](OTHER)
    packets = [packet[1] if isinstance(packet, tuple) else packet
               for packet in SENDABLE[how](Path(six), data, data.index(OTHER), len(OTHER))]
    played = play(engine("blocked.example.com"), packets)
    assert not played.blocked
    assert played.accepted == [packet for packet in packets if not junk(packet)]
    assert "www.innocent.example" in played.hosts
    assert played.counters["overflows"] == 0


@pytest.mark.parametrize("kind", REQUESTS)
def test_every_cut_in_two_in_both_orders(kind):
    data = REQUESTS[kind](LISTED)
    path = Path()
    judge = engine("blocked.example.com")
    for cut in range(1, len(data)):
        for port, order in ((10_000, 1), (30_000, -1)):
            path.settings["sport"] = port + cut
            pieces = [path.data(0, data[:cut]), path.data(cut, data[cut:])][::order]
            played = play(judge, [*path.opening(), *pieces])
            assert played.blocked, (cut, order)


@pytest.mark.parametrize("isn", [0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFF0, 0xFFFFFF00, 0x7FFFFFFF, 0x80000000, 0])
@pytest.mark.parametrize("how", ["whole", "in_pieces", "disorder", "byte_by_byte", "fake_host_ttl", "overlap_below"])
def test_sequence_numbers_wrap_around(how, isn):
    data = tls(LISTED)
    packets = STRATEGIES[how](Path(isn=isn), data, data.index(LISTED), len(LISTED))
    assert play(engine("blocked.example.com"), packets).blocked


@pytest.mark.parametrize("six,which", [(False, "options"), (False, "nops"), (True, "hopbyhop"), (True, "destopt"),
                                       (True, "routing"), (True, "atomic"), (True, "chain")])
@pytest.mark.parametrize("how", ["whole", "disorder", "fake_host_ttl"])
def test_headers_around_tcp(how, six, which):
    data = tls(LISTED)
    packets = [with_headers(packet, six, which)
               for packet in STRATEGIES[how](Path(six), data, data.index(LISTED), len(LISTED))]
    assert play(engine("blocked.example.com"), packets).blocked


def test_a_second_hop_by_hop_header_is_junk_to_everybody():
    packet = with_headers(Path(True).syn(), True, "hopbyhop")
    twice = packet[:40] + b"\0\0\1\4\0\0\0\0" + packet[40:]
    twice = twice[:4] + (len(twice) - 40).to_bytes(2, "big") + twice[6:]
    played = play(engine(), [packet, twice])
    assert [decision.accept for decision in played.decisions] == [True, False]
    assert played.counters["junk_hop_by_hop"] == 1


def test_more_headers_than_anybody_has_are_junk():
    for count, kept in ((headers.MANY, True), (headers.MANY + 1, False)):
        chain = headers.chain(*[headers.DESTINATION] * count, segment=s.tcp_segment(7, tls(OTHER), source=s.CLIENT6,
                                                                                    destination=s.SERVER6))
        played = play(engine(), [chain])
        assert played.decisions[0].accept is kept
        assert played.counters["junk_headers"] == (not kept)
        assert played.counters["hellos"] == kept


@pytest.mark.parametrize("how", ["badsum", "datanoack"])
def test_junk_is_dropped_and_counted(how):
    path = Path()
    played = play(engine(), [*path.opening(), path.data(0, tls(OTHER), **FOOLING[how])])
    assert not played.decisions[-1].accept
    assert played.counters[{"badsum": "junk_checksum", "datanoack": "junk_no_ack"}[how]] == 1


def test_a_checksum_left_to_hardware_is_not_looked_at():
    path = Path()
    packets = [*path.opening(), path.data(0, tls(LISTED), checksum=1)]
    assert play(engine("blocked.example.com"), packets, flags=1).blocked


@pytest.mark.parametrize("dport", [443, 80, 8443, 1, 65535])
@pytest.mark.parametrize("kind", REQUESTS)
def test_the_port_does_not_matter(kind, dport):
    path = Path(dport=dport)
    assert play(engine("blocked.example.com"), [*path.opening(), path.data(0, REQUESTS[kind](LISTED))]).blocked


# ---- what the name may look like


@pytest.mark.parametrize("name", [b"blocked.example.com", b"BLOCKED.ExAmPlE.COM", b"blocked.example.com.",
                                  b"www.blocked.example.com", b"a.b.c.d.blocked.example.com"])
@pytest.mark.parametrize("kind", REQUESTS)
def test_names_of_a_listed_host(kind, name):
    path = Path()
    assert play(engine("blocked.example.com"), [*path.opening(), path.data(0, REQUESTS[kind](name))]).blocked


@pytest.mark.parametrize("listed,name", [
    ("vk.com", b"vk.com.abcdef"), ("facebook.com", b"notfacebook.com"), ("example.com", b"example.com.evil.net"),
    ("example.com", b"xn--example-9ua.com"), ("example.com", b"com"), ("b.a.com", b"a.com"), ("b.a.com", b"cb.a.com"),
])
@pytest.mark.parametrize("kind", REQUESTS)
def test_names_that_only_look_alike(kind, listed, name):
    path = Path()
    played = play(engine(listed), [*path.opening(), path.data(0, REQUESTS[kind](name))])
    assert not played.blocked and len(played.accepted) == 3
    assert played.hosts == [name.decode()]


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_subdomain_is_found_among_other_entries(kind):
    path = Path()
    judge = engine("a.com", "b.a.com", "z.com")
    assert play(judge, [*path.opening(), path.data(0, REQUESTS[kind](b"c.a.com"))]).blocked


# ---- ClientHellos as records and sizes


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 6, 20, 43, "inside"])
def test_two_records(cut):
    message = s.hello_message(LISTED)
    cut = message.index(LISTED) + 9 if cut == "inside" else cut
    data = s.records(message, cut)
    path = Path()
    for pieces in ([path.data(0, data)], [path.data(0, data[:cut + 7]), path.data(cut + 7, data[cut + 7:])],
                   [path.data(cut + 7, data[cut + 7:]), path.data(0, data[:cut + 7])]):
        assert play(engine("blocked.example.com"), [*path.opening(), *pieces]).blocked


@pytest.mark.parametrize("front", [True, False], ids=["padding-before", "padding-behind"])
@pytest.mark.parametrize("size", [1300, 2000, 4200, 9000, 40_000, 64_000])
@pytest.mark.parametrize("order", [1, -1], ids=["in-order", "reversed"])
def test_large_hellos(size, front, order):
    data = s.sized_hello(LISTED, size, front)
    path = Path()
    packets = [path.data(at, data[at:at + 1448]) for at in range(0, len(data), 1448)][::order]
    played = play(engine("blocked.example.com"), [*path.opening(), *packets])
    assert played.blocked
    innocent = s.sized_hello(OTHER, size, front)
    packets = [path.data(at, innocent[at:at + 1448]) for at in range(0, len(data), 1448)][::order]
    played = play(engine("blocked.example.com"), [*path.opening(), *packets])
    assert not played.blocked and len(played.accepted) == len(packets) + 2
    assert played.hosts == ["www.innocent.example"]


@pytest.mark.parametrize("how", ["whole", "in_pieces", "disorder", "byte_by_byte", "fake_ttl"])
@pytest.mark.parametrize("shape", RECORDS)
def test_record_layers(shape, how):
    data = RECORDS[shape](s.hello_message(LISTED))
    packets = list(STRATEGIES[how](Path(), data, len(data) // 2, 16))
    assert play(engine("blocked.example.com"), packets).blocked
    data = RECORDS[shape](s.hello_message(OTHER))
    packets = list(STRATEGIES[how](Path(), data, len(data) // 2, 16))
    played = play(engine("blocked.example.com"), packets)
    assert not played.blocked and played.accepted == packets
    assert "www.innocent.example" in played.hosts


def test_a_post_quantum_hello_in_the_usual_two_segments():
    data = s.hello(LISTED, before=s.key_share(1216) + s.ECH)
    assert len(data) > 1448
    path = Path()
    packets = [path.data(0, data[:1448]), path.data(1448, data[1448:])]
    for order in (1, -1):
        assert play(engine("blocked.example.com"), [*path.opening(), *packets[::order]]).blocked


AGAIN = {
    "at-once": lambda first, second: first + second,
    "behind-ccs": lambda first, second: first + s.record(b"\1", 20) + second,
    "behind-early-data": lambda first, second: first + s.record(bytes(700), 23) * 3 + second,
    "in-small-records": lambda first, second: first + s.record(b"\1", 20) + s.records(second[5:], 1, 4, 90),
}


@pytest.mark.parametrize("midway", [False, True], ids=["from-the-syn", "seen-midway"])
@pytest.mark.parametrize("step", [1, 40, 5000])
@pytest.mark.parametrize("how", AGAIN)
def test_the_second_hello_of_a_retry(how, step, midway):
    # RFC 8446, 4.1.4: the server asks for another one, and the client may put another name into it.
    for name, blocked in ((LISTED, True), (OTHER, False)):
        data = AGAIN[how](tls(b"first.example"), tls(name))
        path = Path()
        packets = [] if midway else path.opening()
        packets += [path.data(at, data[at:at + step]) for at in range(0, len(data), step)]
        played = play(engine("blocked.example.com", settle_packets=0), packets)
        assert played.blocked == blocked
        assert played.hosts == ["first.example", name.decode()]
        assert blocked or played.accepted == packets


def test_the_second_hello_with_a_decoy_and_in_disorder():
    first, second = tls(b"first.example"), tls(LISTED)
    path = Path()
    cut = len(first) + 60
    for pieces in ([path.data(cut, second[60:]), path.data(len(first), second[:60])],
                   [path.data(len(first), tls(OTHER), ttl=2), path.data(len(first), second)],
                   [path.data(0, tls(LISTED)[:20], ttl=2), path.data(len(first), second)]):
        packets = [*path.opening(), path.data(0, first), *pieces]
        assert play(engine("blocked.example.com"), packets).blocked


def test_the_same_name_in_a_second_hello_is_reported_once_and_settles():
    path = Path()
    data = tls(OTHER)
    more = s.record(b"\1", 20) + data + s.record(b"\1", 20) + s.record(bytes(900), 23) * 40
    judge = engine("blocked.example.com", settle_packets=3)
    packets = [*path.opening(), path.data(0, data)]
    packets += [path.data(len(data) + at, more[at:at + 1000]) for at in range(0, len(more), 1000)]
    played = play(judge, packets)
    assert played.accepted == packets and played.hosts == ["www.innocent.example"]
    assert played.counters["released"] == 1


def test_an_urgent_byte_that_comes_while_nothing_is_read():
    # The fuzzer's: decoys had ended every reading; what came with the pointer began them anew, the pointer was lost.
    data = tls(LISTED)
    spot = data.index(LISTED) + 4
    sent = s.urgent_byte(data, spot)
    path = Path()
    for packets in ([path.data(0, sent, s.ACK | s.URG, urgent=spot + 1)],
                    [path.bare(s.ACK | s.URG, 0, urgent=spot + 1), path.data(0, sent)],
                    [path.bare(s.ACK | s.URG, at) for at in range(9)] + [path.data(0, sent)]):
        packets = [path.syn(), path.data(0, data[:41]), path.data(32, bytes(100), ttl=2), *packets]
        assert play(engine("blocked.example.com"), packets).blocked


def test_urgent_bytes_of_other_protocols_are_let_alone():
    # Telnet and FTP mark bytes; more than are kept are an overflow only where something is read.
    path = Path(dport=23)
    packets = path.opening()
    packets += [path.data(at, b"\xff\xf4login"[:7], s.ACK | s.URG, urgent=2) for at in range(0, 700, 7)]
    played = play(engine("blocked.example.com"), packets)
    assert played.accepted == packets and played.counters["overflows"] == 0


def test_each_of_several_names_counts():
    path = Path()
    packet = path.data(0, s.hello(b"one.example", b"two.example", LISTED))
    played = play(engine("blocked.example.com"), [*path.opening(), packet])
    assert played.blocked
    assert played.hosts[-1] == "blocked.example.com"


def test_openssl_hellos():
    path = Path()
    for alpn in (None, ["h2", "http/1.1"], [f"protocol-{i:04}" for i in range(600)]):
        data = s.openssl_hello("blocked.example.com", alpn)
        packets = [path.data(at, data[at:at + 1448]) for at in range(0, len(data), 1448)]
        assert play(engine("blocked.example.com"), [*path.opening(), *packets]).blocked


# ---- requests


@pytest.mark.parametrize("how", ["whole", "in_pieces", "disorder", "fake_ttl", "fakes_around_ttl"])
@pytest.mark.parametrize("shape", HEADS)
def test_heads(shape, how):
    if len(HEADS[shape]) > 50_000 and how == "fakes_around_ttl":
        how = "fake_ttl"            # twice the head in decoys is beyond a flow's bytes: test_conflict_policy
    for name, blocked in ((LISTED, True), (OTHER, False)):
        data = head(shape, name)
        at = data.index(name)
        packets = [packet for packet in STRATEGIES[how](Path(dport=80), data, at, len(name))
                   if len(packet) < 65_536]
        played = play(engine("blocked.example.com"), packets)
        assert played.blocked == blocked, name
        assert name.decode() in played.hosts
        if not blocked:
            assert played.accepted == packets


def test_more_ways_to_frame_a_body_than_are_followed():
    # Found by fuzzing: the encoding, which goes before every length, found no room behind four of them.
    lengths = b"".join(b"Content-Length: %d\r\n" % size for size in (9, 8, 7, 6))
    data = (b"POST / HTTP/1.1\r\nHost: first.example\r\n" + lengths + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            + http(LISTED))
    path = Path(dport=80)
    played = play(engine("blocked.example.com"), [path.syn(), path.data(0, data)])
    assert played.blocked and played.verdict.list
    for policy in ("drop", "pass"):
        judge = engine("blocked.example.com", conflict=policy)
        played = play(judge, [path.syn(), path.data(0, data.replace(LISTED, OTHER))])
        assert played.blocked == (policy == "drop") and played.counters["overflows"] == 1


@pytest.mark.parametrize("how", ["whole", "in_pieces", "disorder", "fake_ttl", "byte_by_byte"])
@pytest.mark.parametrize("before", BEFORE)
def test_a_later_request_of_the_connection(before, how):
    for name, blocked in ((LISTED, True), (OTHER, False)):
        data = BEFORE[before] + http(name)
        packets = list(STRATEGIES[how](Path(dport=80), data, data.index(name), len(name)))
        played = play(engine("blocked.example.com"), packets)
        assert played.blocked == blocked, name
        assert name.decode() in played.hosts
        assert "no.example" not in played.hosts or how == "fake_ttl"
        if not blocked:
            assert played.accepted == packets


def test_keep_alive_over_a_long_connection():
    path = Path(dport=80)
    judge = engine("blocked.example.com")
    play(judge, path.opening())
    at = 0
    for i in range(3000):
        data = s.request(b"host%d.example" % i, b"/" + b"x" * 200)
        played = play(judge, [path.data(at, data)], start=float(i))
        assert played.hosts == [f"host{i}.example"] and len(played.accepted) == 1
        at += len(data)
    assert judge.counters()["table_bytes"] < 512 * 1024
    assert play(judge, [path.data(at, http(LISTED))], start=3000.0).blocked


def test_a_large_upload_is_passed_over_and_the_next_request_read():
    path = Path(dport=80)
    judge = engine("blocked.example.com")
    size = 3_000_000
    head = b"POST / HTTP/1.1\r\nHost: first.example\r\nContent-Length: %d\r\n\r\n" % size
    played = play(judge, [*path.opening(), path.data(0, head)])
    at = len(head)
    for start in range(0, size, 50_000):
        played = play(judge, [path.data(at + start, bytes(50_000))])
        assert played.decisions[0].accept
    assert judge.counters()["window_full"] == 0
    assert play(judge, [path.data(at + size, http(LISTED))]).blocked


TUNNELS = {
    "connect": lambda name: s.request(b"proxy.example", name + b":443", b"CONNECT"),
    "connect-then-hello": lambda name: s.request(b"proxy.example:443", b"proxy.example:443", b"CONNECT") + tls(name),
    "connect-then-request": lambda name: s.request(b"proxy.example:80", b"proxy.example:80", b"CONNECT") + http(name),
    "prior-knowledge": lambda name: s.H2_PREFACE + s.h2_frame(4, 0, 0, b"") + s.h2_request(name),
    "prior-knowledge-second": lambda name: (s.H2_PREFACE + s.h2_frame(4, 0, 0, b"") + s.h2_request(b"first.example")
                                            + s.h2_request(name, b"/", 3)),
    "upgrade": lambda name: s.request(name, b"/", b"GET", b"", b"Connection: Upgrade, HTTP2-Settings",
                                      b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
    "behind-an-upgrade": lambda name: (s.request(b"first.example", b"/", b"GET", b"", b"Connection: Upgrade",
                                                 b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
                                       + s.H2_PREFACE + s.h2_frame(4, 0, 0, b"") + s.h2_request(name, b"/", 3)),
}


@pytest.mark.parametrize("how", ["whole", "in_pieces", "disorder", "byte_by_byte", "fake_ttl"])
@pytest.mark.parametrize("shape", TUNNELS)
def test_tunnels_and_http2(shape, how):
    for name, blocked in ((LISTED, True), (OTHER, False)):
        data = TUNNELS[shape](name)
        packets = list(STRATEGIES[how](Path(dport=80), data, data.index(name), len(name)))
        played = play(engine("blocked.example.com"), packets)
        assert played.blocked == blocked, name
        assert name.decode() in played.hosts
        if not blocked:
            assert played.accepted == packets


PATHS = [b"/bad/page.html", b"/%62ad/page.html", b"/%2562ad/page.html", b"/./bad/x/../page.html", b"//bad//page.html",
         b"/bad/page.html?utm=1", b"/bad/page.html#frag", b"/bad/%2e/page.html", b"/x/%2e%2e/bad/page.html"]


@pytest.mark.parametrize("target", PATHS)
def test_a_listed_url_in_disguise(target):
    path = Path(dport=80)
    judge = engine("http://example.com/bad/page.html", action="page")
    played = play(judge, [*path.opening(), path.data(0, s.request(b"example.com", target))])
    assert played.verdict.action == "page"
    assert played.names[-1].path == target.decode()
    for other in (b"/", b"/bad/", b"/bad/page.htm", b"/bad/page.html/x", b"/good/page.html"):
        played = play(judge, [path.data(0, s.request(b"example.com", other), sport=4)])
        assert not played.blocked
        path.isn += 100_000


def test_a_listed_url_does_not_block_its_host_over_tls():
    path = Path()
    played = play(engine("http://example.com/bad/page.html"), [*path.opening(), path.data(0, tls(b"example.com"))])
    assert not played.blocked and played.hosts == ["example.com"]


# ---- verdicts


def test_the_numbers_of_a_reply():
    path = Path()
    data = tls(LISTED)
    played = play(engine("blocked.example.com"), [*path.opening(), path.data(0, data)])
    assert [decision.accept for decision in played.decisions] == [True, True, False]
    verdict = played.verdict
    assert (verdict.action, verdict.proto, verdict.list, verdict.reply) == ("reset", "tls", "list", True)
    assert verdict.client_seq == 7000               # what the client acknowledges is what it expects
    assert verdict.client_ack == ISN + 1 + len(data)
    assert verdict.reset_seqs == (ISN + 1,) and verdict.reset_ack == 7000


def test_the_numbers_of_a_reply_when_part_of_the_request_was_let_through():
    path = Path()
    data = tls(LISTED)
    cut = data.index(LISTED) + 4
    played = play(engine("blocked.example.com"),
                  [*path.opening(), path.data(0, data[:cut]), path.data(cut, data[cut:])])
    assert played.verdict.reset_seqs == (ISN + 1 + cut,)
    assert played.verdict.client_ack == ISN + 1 + len(data)
    # Out of order: the server has the second part and expects the first.
    played = play(engine("blocked.example.com"),
                  [*path.opening(), path.data(cut, data[cut:]), path.data(0, data[:cut])])
    assert played.verdict.reset_seqs == (ISN + 1,)
    assert played.verdict.client_ack == ISN + 1 + len(data)


def test_the_numbers_of_a_reply_behind_a_decoy():
    # The server may have taken the decoy or not: a reset for either.
    path = Path()
    data = tls(LISTED)
    decoy = tls(b"x" * len(LISTED))
    played = play(engine("blocked.example.com"), [*path.opening(), path.data(0, decoy, ttl=2), path.data(0, data)])
    assert set(played.verdict.reset_seqs) == {ISN + 1, ISN + 1 + len(data)}


def test_a_fin_with_the_request_is_acknowledged():
    path = Path()
    data = http(LISTED)
    played = play(engine("blocked.example.com"), [*path.opening(), path.data(0, data, s.ACK | s.FIN)])
    assert played.verdict.client_ack == ISN + 1 + len(data) + 1


def test_a_retransmission_gets_the_reply_again_but_not_for_ever():
    path = Path()
    packet = path.data(0, tls(LISTED))
    played = play(engine("blocked.example.com"), [*path.opening(), *[packet] * 20])
    assert [decision.accept for decision in played.decisions[2:]] == [False] * 20
    assert [decision.reply for decision in played.decisions[2:]] == [True] * 8 + [False] * 12
    assert len({(d.client_seq, d.client_ack, d.reset_seqs) for d in played.decisions[2:]}) == 1
    assert played.counters["replies_repeated"] == 7
    assert played.counters["blocked_reset"] == 1


def test_a_blocked_flow_stays_blocked():
    path = Path()
    data = tls(LISTED)
    packets = [*path.opening(), path.data(0, data), path.ack(), path.bare(s.RST), path.bare(s.FIN | s.ACK),
               path.data(0, data[:40]), path.data(900, b"anything"), path.syn(), path.syn(isn=ISN + 99_999),
               path.data(40, data[40:])]
    played = play(engine("blocked.example.com"), packets)
    # The second SYN is another connection's, whose bytes are its own; what goes on in the old one stays blocked.
    assert [decision.accept for decision in played.decisions] == [True] * 2 + [False] * 7 + [True, False]


def test_a_syn_does_not_give_a_blocked_flow_its_old_connection_back():
    # The fuzzer's: a decoy kept the server at the start, so that our RST came to nothing; a SYN that died on the way
    # made the flow new, and the request was sent once more from where the server stood.
    path = Path()
    data = tls(LISTED)
    packets = [path.syn(), path.data(0, data[:90], ttl=2), path.data(90, data[90:]), path.syn(isn=77, ttl=2),
               *[path.data(at, data[at:at + 5]) for at in range(0, len(data), 5)]]
    played = play(engine("blocked.example.com"), packets)
    assert played.blocked and not server_has(played.accepted[:1] + played.accepted[2:], LISTED, data)


def test_blocked_twice_a_flow_forgets_neither_connection():
    # The first connection's rest, behind a second one that was blocked too and a third SYN.
    path = Path()
    data = tls(LISTED)
    cut = data.index(LISTED) + 5
    second = Path(isn=0x40000000)
    packets = [path.syn(), path.data(0, data[:cut]), path.data(cut, data[cut:]),
               second.syn(), second.data(0, data), Path(isn=0x80000000).syn(), path.data(cut, data[cut:])]
    played = play(engine("blocked.example.com"), packets)
    assert [decision.accept for decision in played.decisions] == [True, True, False, True, False, True, False]


def test_a_copy_inside_a_longer_copy_is_read_with_its_neighbours():
    # The fuzzer's: the true bytes' differing part stood in an earlier copy, and the two were never read together.
    path = Path()
    data = s.records(s.hello_message(LISTED), 1)
    longer = b"\0" + data[1:31]
    decoy = data[:4] + bytes(byte ^ 0x55 for byte in data[4:31])
    packets = [path.syn(), path.data(0, decoy), path.data(0, longer), path.data(0, data)]
    assert play(engine("blocked.example.com"), packets).blocked


@pytest.mark.parametrize("action,http_action", [("drop", "drop"), ("reset", "reset"), ("page", "page"),
                                                ("redirect", "redirect")])
def test_actions(action, http_action):
    path = Path()
    for kind, expected in (("http", http_action), ("tls", "drop" if action == "drop" else "reset")):
        judge = engine("blocked.example.com", action=action)
        played = play(judge, [*path.opening(), path.data(0, REQUESTS[kind](LISTED))])
        assert (played.verdict.action, played.verdict.reply) == (expected, expected != "drop")
        assert played.counters[f"blocked_{expected}"] == 1


def test_observe_passes_and_reports():
    path = Path()
    judge = engine("blocked.example.com", action="observe", report=False)
    played = play(judge, [*path.opening(), path.data(0, http(LISTED))])
    assert len(played.accepted) == 3 and played.names[0].action == "observe"
    assert played.counters["observed"] == 1


def test_head_is_told_and_the_mark_of_http():
    path = Path(dport=80)
    played = play(engine("blocked.example.com", action="page"),
                  [*path.opening(), path.data(0, s.request(OTHER)),
                   path.data(len(s.request(OTHER)), s.request(LISTED, b"/", b"HEAD"))])
    assert [decision.mark for decision in played.decisions] == ["keep", "keep", "http", "blocked"]
    assert played.verdict.head


def test_names_are_reported_once():
    path = Path()
    data = http(OTHER)
    played = play(engine(), [*path.opening(), *[path.data(0, data)] * 5, path.data(0, data[:-9] + b"?" + data[-8:])])
    assert played.hosts == ["www.innocent.example"]


def test_without_report_only_rules_speak():
    path = Path()
    judge = engine("blocked.example.com", report=False)
    assert play(judge, [*path.opening(), path.data(0, http(OTHER))]).names == []


def test_an_address_rule_blocks_the_first_packet():
    path = Path()
    played = play(engine("203.0.113.0/24"), path.opening())
    assert not played.decisions[0].accept and played.decisions[0].proto == "ip"
    assert play(engine("203.0.113.7:80"), path.opening()).blocked is False


def test_the_matcher_is_swapped_between_two_packets():
    path = Path()
    judge = engine()
    data = tls(LISTED)
    play(judge, [*path.opening(), path.data(0, data[:60])])
    judge.matcher = engine("blocked.example.com").matcher
    assert play(judge, [path.data(60, data[60:])]).blocked


def test_server_packets_open_no_flow():
    path = Path()
    judge = engine("blocked.example.com")
    reply = s.tcp(7000, tls(LISTED), source=s.SERVER, destination=s.CLIENT, sport=443, dport=40000)
    played = play(judge, [*path.opening(), reply])
    assert len(played.accepted) == 3 and played.counters["flows"] == 1


# ---- policies


def test_ech_policies():
    path = Path()
    packets = [*path.opening(), path.data(0, s.hello(OTHER, before=s.ECH))]
    played = play(engine(), packets)
    assert not played.blocked and played.counters["hellos_ech"] == 1
    assert played.names[0].ech and played.names[0].host == "www.innocent.example"
    assert play(engine(ech="block"), packets).verdict.action == "reset"
    assert not play(engine(ech="block"), [*path.opening(), path.data(0, tls(OTHER))]).blocked
    assert not play(engine("198.51.100.0/24", ech="block-listed-addresses"), packets).blocked


def test_ech_at_listed_addresses_only():
    judge = engine("203.0.113.0/24", action="observe", ech="block-listed-addresses")
    path = Path()
    assert not play(judge, [*path.opening(), path.data(0, tls(OTHER))]).blocked
    path.settings["sport"] = 41_000
    assert play(judge, [*path.opening(), path.data(0, s.hello(OTHER, before=s.ECH))]).blocked


def test_no_sni_policy():
    path = Path()
    packets = [*path.opening(), path.data(0, s.hello())]
    played = play(engine(), packets)
    assert len(played.accepted) == 3 and played.counters["hellos_no_name"] == 1
    played = play(engine(no_sni="drop"), packets)
    assert played.blocked and played.counters["blocked_policy"] == 1
    assert not play(engine(no_sni="drop"), [*path.opening(), path.data(0, tls(OTHER))]).blocked


def test_unparsable_policy():
    path = Path()
    packets = [*path.opening(), path.data(0, b"\x00\x01\x02 no protocol of ours")]
    played = play(engine(), packets)
    assert len(played.accepted) == 3 and played.counters["unparsable"] == 1
    played = play(engine(unparsable="drop"), packets)
    assert not played.decisions[-1].accept and played.verdict.action == "drop" and not played.verdict.reply
    assert (played.counters["blocked_policy"], played.counters["blocked_drop"]) == (1, 0)


def test_midstream_policy():
    path = Path()
    packets = [path.data(0, b"\x00\x01\x02 no protocol of ours")]
    assert len(play(engine(unparsable="drop"), packets).accepted) == 1
    played = play(engine(midstream="drop"), packets)
    assert not played.decisions[0].accept and played.counters["midstream"] == 1


def conflicts(path: Path, data: bytes, count: int) -> list[bytes]:
    at = data.index(OTHER)
    return [*path.opening(), path.data(0, data[:at]),
            *[path.data(at + i % 16, bytes([97 + i % 26]) + b"%d" % i, ttl=2) for i in range(count)],
            path.data(0, data)]


def test_conflict_policy():
    path = Path()
    data = tls(OTHER)
    played = play(engine(conflict="drop"), conflicts(path, data, 300))
    assert played.blocked and played.counters["overflows"] == 1 and played.counters["conflicts"] > 5
    played = play(engine(conflict="pass"), conflicts(path, data, 300))
    assert not played.blocked and played.counters["overflows"] == 1 and played.counters["released"] == 1
    assert played.decisions[-1].mark == "done"
    played = play(engine(conflict="drop"), conflicts(path, data, 2))
    assert not played.blocked and played.counters["overflows"] == 0


def test_a_full_window():
    # Data beyond a hole that is never filled: not kept for ever.
    path = Path()
    packets = [*path.opening(), *[path.data(1000 + at, bytes(10_000)) for at in range(0, 400_000, 10_000)]]
    played = play(engine(), packets)
    assert len(played.accepted) == len(packets) and played.counters["window_full"] > 0
    assert played.counters["table_bytes"] < 170 * 1024
    played = play(engine(memory_full="drop"), packets)
    assert played.blocked and played.counters["blocked_policy"] == 1


def test_the_window_keeps_what_is_needed_next():
    path = Path()
    data = tls(LISTED)
    packets = [*path.opening(), *[path.data(1000 + at, bytes(10_000)) for at in range(0, 400_000, 10_000)],
               path.data(60, data[60:]), path.data(0, data[:60])]
    assert play(engine("blocked.example.com"), packets).blocked


def test_a_settled_flow_is_released_after_its_packets():
    path = Path()
    data = tls(OTHER)
    judge = engine(settle_packets=5)
    played = play(judge, [*path.opening(), path.data(0, data), *[path.data(len(data), b"x")] * 9])
    assert [decision.mark for decision in played.decisions].index("done") == 2 + 5
    assert played.counters["released"] == 1 and len(played.accepted) == 12
    judge = engine(settle_packets=0)
    played = play(judge, [*path.opening(), path.data(0, data), *[path.data(len(data), b"x")] * 600])
    assert played.counters["released"] == 0


# ---- limits and time


def test_undecided_flows_live_longer_than_a_minute():
    path = Path()
    data = tls(LISTED)
    judge = engine("blocked.example.com")
    play(judge, [*path.opening(), path.data(0, data[:70])])
    for i in range(500):                        # others come and go; each packet may expire old flows
        play(judge, [Path().syn(sport=1000 + i)], start=i * 0.2)
    assert play(judge, [path.data(70, data[70:])], start=100.0).blocked


def test_idle_flows_are_forgotten():
    path = Path()
    judge = engine(idle=120.0)
    play(judge, [path.syn(sport=1000 + i) for i in range(100)], step=0.0)
    assert judge.counters()["table_flows"] == 100
    play(judge, [path.syn(sport=5)] * 60, start=121.0)
    counters = judge.counters()
    assert (counters["table_flows"], counters["flows_expired"]) == (1, 100)


def test_a_clock_that_steps_back_forgets_nothing():
    path = Path()
    data = tls(LISTED)
    judge = engine("blocked.example.com")
    play(judge, [*path.opening(), path.data(0, data[:70])], start=5000.0)
    assert play(judge, [path.data(70, data[70:])], start=10.0).blocked


def test_flow_limit_evicts_settled_then_undecided_then_kept_oldest_first():
    judge = engine(flows=6)
    path = Path()
    data = tls(OTHER)

    def of(port: int, *packets: bytes) -> None:
        path.settings["sport"] = port
        play(judge, [path.syn(), *([path.data(0, packet) for packet in packets])])

    of(1, data[:50])                            # undecided, oldest
    of(2, http(OTHER))                          # kept: an HTTP connection
    of(3, data)                                 # settled
    of(4, data[:50])
    of(5, data)
    of(6, http(OTHER))
    for port in (7, 8, 9, 10):
        of(port, data[:50])
    counters = judge.counters()
    assert counters["table_flows"] == 6
    assert (counters["evicted_settled"], counters["evicted_undecided"], counters["evicted_kept"]) == (2, 2, 0)
    for port in range(11, 15):
        of(port, http(OTHER))
    for port in (15, 16):
        of(port, http(OTHER))
    # Two more undecided ones; then the kept are more than half of all.
    assert judge.counters()["evicted_undecided"] == 4
    assert judge.counters()["evicted_kept"] == 4


def test_memory_limit_evicts():
    judge = engine(memory=400_000)
    path = Path()
    data = s.sized_hello(OTHER, 9000)
    for port in range(1, 200):
        path.settings["sport"] = port
        play(judge, [path.syn(), path.data(0, data[:6000])])
        assert judge.counters()["table_bytes"] <= 400_000
    assert judge.counters()["evicted_undecided"] > 100


def test_an_evicted_flow_is_read_again_where_its_bytes_start_a_message():
    path = Path()
    judge = engine("blocked.example.com", flows=1)
    play(judge, path.opening())
    play(judge, [Path().syn(sport=9)])
    assert play(judge, [path.data(0, tls(LISTED))]).blocked


@pytest.mark.parametrize("setting", [{"flows": 0}, {"memory": 0}, {"flow_bytes": 100}, {"idle": 0},
                                     {"unparsable": "maybe"}, {"ech": "sometimes"}])
def test_limits_out_of_range(setting):
    with pytest.raises(ValueError):
        Engine(Matcher(), **setting)


def test_counters_add_up():
    path = Path()
    judge = engine("blocked.example.com")
    play(judge, [*path.opening(), path.data(0, tls(LISTED)), b"", b"\x45", bytes(60), s.ip_packet(1, b"ping"),
                 s.ip_packet(17, b"\0\1\0\2\0\x09\0\0x")])
    counters = judge.counters()
    assert counters["packets"] == 8
    assert counters["packets"] == (counters["tcp"] + counters["udp"] + counters["other"] + counters["fragments"]
                                   + counters["unreadable"])
    assert (counters["hellos"], counters["names"], counters["blocked_reset"]) == (1, 1, 1)


def test_each_request_marks_its_connection_again():
    # The tracker forgets a connection that a forged RST has ended, and ports come round again, to an entry unmarked.
    path = Path(dport=80)
    first, again = http(OTHER), http(OTHER)
    packets = [path.syn(), path.data(0, first), path.data(len(first), again),
               Path(dport=80, isn=0x40000000).syn(), Path(dport=80, isn=0x40000000).data(0, first)]
    played = play(engine("blocked.example.com"), packets)
    assert [decision.mark for decision in played.decisions][1:3] == ["http", "http"]
    assert played.decisions[4].mark == "http"
