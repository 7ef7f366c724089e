"""Every reply, read back by scapy: addresses, numbers, checksums and what a client makes of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quic_packets import DCID, crypto, initial
from scapy.all import IP, TCP, UDP, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, Raw

from edgeblock.config import Reply
from edgeblock.core.decision import Decision
from edgeblock.enforce import replies
from edgeblock.enforce.answers import Answers
from edgeblock.enforce.quic_close import close_datagram
from edgeblock.errors import ConfigError

HEADS = {
    "v4": IP(src="10.0.0.2", dst="203.0.113.7", tos=0xB8),
    "v4 with options": IP(src="10.0.0.2", dst="203.0.113.7", options=[b"\x01"] * 4),
    "v6": IPv6(src="fd00::2", dst="2001:db8::7", tc=0xB8, fl=77),
    "v6 with headers": IPv6(src="fd00::2", dst="2001:db8::7") / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt(),
}
NOW = 1_796_083_200.0           # 2026-12-01
STAMPS = [("NOP", None), ("NOP", None), ("Timestamp", (1111, 2222))]


def blocked(kind="v4", options=(), payload=b"GET / HTTP/1.1\r\n\r\n", flags="PA", seq=5000, ack=9000):
    return bytes(HEADS[kind] / TCP(sport=50123, dport=443, flags=flags, seq=seq, ack=ack, options=list(options)) /
                 Raw(payload))


def decision(action="reset", proto="http", **fields):
    fields = {"client_seq": 9000, "client_ack": 5018, "reset_seqs": (5000,), "reset_ack": 9000, **fields}
    return Decision(accept=False, mark="blocked", action=action, proto=proto, reply=True, **fields)


def read(packet, towards):
    """The TCP layer of a reply whose every length and checksum scapy would have written the same way."""
    layer = IP if packet[0] >> 4 == 4 else IPv6
    seen = layer(packet)
    again = seen.copy()
    for field in ("len", "chksum", "ihl") if layer is IP else ("plen",):
        again.delfieldval(field)
    again[TCP].delfieldval("chksum")
    again[TCP].delfieldval("dataofs")
    assert bytes(again) == packet
    client, server = ("10.0.0.2", "203.0.113.7") if layer is IP else ("fd00::2", "2001:db8::7")
    ends = (server, client, 443, 50123) if towards == "client" else (client, server, 50123, 443)
    assert (seen.src, seen.dst, seen.sport, seen.dport) == ends
    if layer is IP:
        assert (seen.ttl, seen.tos, seen.flags, seen.frag) == (64, 0, "DF", 0)
    else:
        assert (seen.hlim, seen.tc, seen.fl) == (64, 0, 0)
    return seen[TCP]


def build(packet, made, **settings):
    return replies.build(packet, made, Answers(Reply(**settings)), NOW)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("proto", ["http", "ip", None])
def test_reset_is_a_bare_rst_both_ways(kind, proto):
    made = build(blocked(kind, STAMPS), decision(proto=proto, reset_seqs=(5000, 7000)))
    client, = [read(packet, "client") for packet in made.to_client]
    assert (client.flags, client.seq, client.ack, client.window, bytes(client.payload)) == ("RA", 9000, 5018, 0, b"")
    servers = [read(packet, "server") for packet in made.to_server]
    assert [(tcp.flags, tcp.seq, tcp.ack) for tcp in servers] == [("RA", 5000, 9000), ("RA", 7000, 9000)]


def test_a_refused_connection():
    syn = blocked(flags="S", payload=b"", ack=0)
    made = build(syn, decision(proto="ip", client_seq=0, client_ack=5001, reset_seqs=()))
    tcp = read(made.to_client[0], "client")
    assert (tcp.flags, tcp.seq, tcp.ack, made.to_server) == ("RA", 0, 5001, [])


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("action", ["reset", "page", "redirect"])
def test_tls_gets_a_fatal_alert_and_fin_in_one_segment(kind, action):
    made = build(blocked(kind), decision(action, "tls"))
    tcp, = [read(packet, "client") for packet in made.to_client]
    assert tcp.flags == "FPA" and (tcp.seq, tcp.ack) == (9000, 5018) and tcp.window > 0
    assert bytes(tcp.payload) == bytes([21, 3, 3, 0, 2, 2, 49])
    assert [read(packet, "server").flags for packet in made.to_server] == ["RA"]


def test_tls_gets_a_bare_rst_by_setting():
    made = build(blocked(), decision("reset", "tls"), tls="rst")
    assert read(made.to_client[0], "client").flags == "RA"


def answer(made):
    """The bytes of an answer, its segments checked for order, size and the one FIN."""
    seq, data = 9000, b""
    segments = [read(packet, "client") for packet in made.to_client]
    most = {4: 576, 6: 1280}[made.to_client[0][0] >> 4]         # what every host and every link takes
    for number, tcp in enumerate(segments):
        payload = bytes(tcp.payload)
        assert (tcp.seq, tcp.ack) == (seq, 5018) and payload and len(made.to_client[number]) <= most
        assert tcp.flags == ("FPA" if number == len(segments) - 1 else "A")
        seq, data = (seq + len(payload)) & 0xFFFFFFFF, data + payload
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("ascii").split("\r\n")
    return lines[0], dict(line.split(": ", 1) for line in lines[1:]), body


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize(("status", "phrase"), [(403, "Forbidden"), (451, "Unavailable For Legal Reasons")])
def test_the_page(kind, status, phrase):
    made = build(blocked(kind), decision("page"), status=status, provider="An ISP")
    line, fields, body = answer(made)
    assert line == f"HTTP/1.1 {status} {phrase}"
    assert fields == {
        "Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(body)), "Content-Language": "en",
        "Vary": "Accept-Language", "Block-Reference": fields["Block-Reference"],
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'", "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer", "Connection": "close"}
    assert f">{fields['Block-Reference']}</code>".encode() in body
    assert b"An ISP" in body and len(made.to_client) > 1
    assert [read(packet, "server").seq for packet in made.to_server] == [5000]


def test_head_gets_no_body():
    whole = answer(build(blocked(), decision("page")))
    assert answer(build(blocked(), decision("page", head=True))) == (whole[0], whole[1], b"")


def test_redirect():
    line, fields, body = answer(build(blocked(), decision("redirect"), redirect='https://isp.example/why?a="&b'))
    assert line == "HTTP/1.1 302 Found" and fields["Location"] == 'https://isp.example/why?a="&b'
    assert fields["Content-Length"] == str(len(body)) and 0 < len(body) < 500
    assert b'href="https://isp.example/why?a=&quot;&amp;b"' in body


def test_redirect_without_a_url_is_the_page():
    assert answer(build(blocked(), decision("redirect")))[0].startswith("HTTP/1.1 451")


def test_the_numbers_wrap_around():
    made = build(blocked(), decision("page", client_seq=0xFFFFFFF0))
    assert [read(packet, "client").seq for packet in made.to_client[:2]] == [0xFFFFFFF0, replies.MAX_SEGMENT[4] - 16]


def test_timestamps_are_echoed_and_newer_than_what_the_server_may_send_meanwhile():
    for tcp in (read(packet, "client") for packet in build(blocked(options=STAMPS), decision("page")).to_client):
        assert dict(tcp.options)["Timestamp"] == (2222 + (1 << 24), 1111) and tcp.dataofs == 8
    for options in ([], [("MSS", 1460)], [("EOL", None), ("Timestamp", (1, 2))]):
        for packet in build(blocked(options=options), decision("page")).to_client:
            assert read(packet, "client").options == []


@pytest.mark.parametrize("tail", [b"\x08\x0a\0\0", b"\x08\0\0\0", b"\x08\x01\x01\x01", b"\x01\x01\x01\x08",
                                  b"\x08\xff\0\0"])
def test_broken_options_are_no_timestamps(tail):
    packet = bytearray(blocked(options=[("NOP", None)] * 4))
    packet[40:44] = tail
    assert read(build(bytes(packet), decision("reset", "tls")).to_client[0], "client").options == []


@pytest.mark.parametrize("kind", HEADS)
def test_quic_gets_a_close_for_the_blocked_connection(kind):
    datagram = initial(crypto(0, b"hello"), scid=b"client", size=1200)
    packet = bytes(HEADS[kind] / UDP(sport=50123, dport=443) / Raw(datagram))
    for blocked_id in (DCID, b"blocked!"):
        made = build(packet, decision("reset", "quic", quic_id=blocked_id))
        assert made.to_server == []
        seen = [(IP if kind.startswith("v4") else IPv6)(sent) for sent in made.to_client]
        assert [bytes(sent[UDP].payload) for sent in seen] == [close_datagram(datagram, blocked_id)]
        assert {(sent.sport, sent.dport) for sent in seen} == {(443, 50123)}
        for sent in seen:
            again = sent.copy()
            again[UDP].delfieldval("chksum")
            assert bytes(again) == bytes(sent)


@pytest.mark.parametrize("kind", HEADS)
def test_no_answer_over_quic_is_longer_than_what_it_answers(kind):
    answered = set()
    for sizes in ((0, 0), (8, 0), (8, 8), (20, 20)):
        for token in (b"", b"token" * 9):
            for more in range(40):
                datagram = initial(bytes(more), dcid=bytes(sizes[0]), scid=bytes(sizes[1]), token=token)
                packet = bytes(HEADS[kind] / UDP(sport=50123, dport=443) / Raw(datagram))
                made = build(packet, decision("reset", "quic", quic_id=bytes(sizes[0])))
                assert sum(map(len, made.to_client)) <= len(packet) and made.to_server == []
                answered.add(len(made.to_client))
    assert answered == {0, 1}


@pytest.mark.parametrize(("packet", "made"), [
    (blocked(), decision("drop")),
    (blocked(), decision("observe")),
    (blocked(), decision()._replace(reply=False)),
    (bytes(HEADS["v4"] / UDP(sport=1, dport=443) / Raw(b"x" * 40)), decision("reset", "quic")),
    (b"", decision()),
    (blocked()[:39], decision()),
])
def test_silence(packet, made):
    assert build(packet, made) == ([], [])


@given(st.binary(max_size=4), st.integers(0, 70),
       st.sampled_from([blocked(options=STAMPS), blocked("v6 with headers")]),
       st.sampled_from(["reset", "page"]), st.sampled_from(["tls", "http"]))
def test_nothing_is_raised_for_any_bytes(change, at, packet, action, proto):
    packet = packet[:at] + change + packet[at + len(change):]
    made = build(packet, decision(action, proto))
    assert all(reply[0] >> 4 == packet[0] >> 4 for reply in [*made.to_client, *made.to_server])


@pytest.mark.parametrize(("settings", "words"), [
    ({"tls": "fin"}, "reply.tls: 'fin' is not one of alert, rst"),
    ({"status": 302}, "reply.status: 302"),
    ({"blocked_by": "https://isp.example/>; rel=x"}, "reply.blocked_by"),
    ({"redirect": "ftp://x/"}, "reply.redirect"),
    ({"redirect": "https://x/\r\nSet-Cookie: a"}, "reply.redirect"),
    ({"redirect": "https://ä.example/"}, "reply.redirect"),
])
def test_settings_that_make_no_sense(settings, words):
    with pytest.raises(ConfigError, match=words) as caught:
        Answers(Reply(**settings))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("action", ["reset", "page", "redirect"])
@pytest.mark.parametrize("proto", ["http", "tls", "ip"])
def test_who_has_not_proved_his_address_gets_a_reset_to_his_syn_at_most(kind, action, proto):
    made = decision(action, proto, proven=False, client_seq=0)
    for payload in (b"", b"GET / HTTP/1.1\r\n\r\n"):
        packet = blocked(kind, flags="S", payload=payload)
        sent = build(packet, made)
        assert sent.to_server == [] and read(sent.to_client[0], "client").flags == "RA"
        assert sum(map(len, sent.to_client)) <= len(packet)
    assert build(blocked(kind), made) == replies.Replies([], [])
