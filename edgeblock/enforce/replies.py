"""The packets that answer a blocked one.

In: the blocked packet of the client, the engine's Decision on it, the answers (answers.py), and the time. Out: whole
IP packets for the client, as if the server had sent them, and for the server, as if the client had. Pure functions:
nothing is sent, no clock is read, and nothing is raised for any packet; one that cannot be answered gets no answer.

                TLS                            HTTP                       anything else over TCP
    reset       alert and FIN, or RST          RST                        RST
    page        as reset                       the block page and FIN     as reset
    redirect    as reset                       302 and FIN                as reset

Who has not proved his address (Decision.proven) gets one RST to his SYN, which is never larger, and nothing else; and
the server, which has not seen that SYN, nothing.

The server gets one RST for each sequence number at which it may expect the next byte. A QUIC client gets a
CONNECTION_CLOSE whatever the action, no longer than what it answers; other UDP is dropped in silence.
"""

import struct
from typing import NamedTuple

from edgeblock import wire
from edgeblock.core.decision import ANSWERED, Decision
from edgeblock.enforce import quic_close
from edgeblock.enforce.answers import Answers

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10

# Payload bytes, by IP version. Nobody tells us of a narrow link on the way, for the answer is sent once: so with all
# headers and timestamps it fits what each host takes, 576 bytes (RFC 791) and 1280 (RFC 8200, 5).
MAX_SEGMENT = {4: 524, 6: 1200}
_HOPS = 64
_WINDOW = 65535         # of segments with payload; nothing more is read from the client, but it may still send

# A record with fatal(2), access_denied(49), RFC 8446 section 6.2. Chromium tries again, page open, for ever after
# unrecognized_name, handshake_failure or a RST, and not at all after this: docs/benchmarks.md has the figures.
ALERT = bytes((21, 3, 3, 0, 2, 2, 49))

_TIMESTAMPS = 8         # TCP option kind, RFC 7323 section 3
# The server acknowledges the first segment of a hello while we answer the second. Its clock is then newer than what
# the client has echoed to us, and an answer with the echo alone is old to the client: it waited for its own
# retransmission, 0.2 s. This is 17 s of a clock that counts microseconds; all below 2**31 is newer to the client.
_AHEAD = 1 << 24


class Replies(NamedTuple):
    """IP packets, in the order in which they are to be sent."""

    to_client: list[bytes]
    to_server: list[bytes]


def build(packet: bytes, decision: Decision, answers: Answers, now: float) -> Replies:
    """The replies to a blocked packet (IPv4 or IPv6, whole), none if the decision asks for none.

    `now` is Unix seconds.
    """
    replies = Replies([], [])
    header = wire.find_transport(packet) if decision.reply else None
    if header is not None and header.proto == wire.UDP and decision.proto == "quic":
        return _close_quic(packet, header, decision)
    if header is None or header.fragment or header.proto != wire.TCP or header.end - header.at < 20:
        return replies
    ports = packet[header.at:header.at + 4]
    action, proto = decision.action, decision.proto
    syn = packet[header.at + 13] & SYN
    if action not in ANSWERED or not (decision.proven or syn):
        return replies
    payload = b""
    if syn:
        pass        # nobody is connected yet: a client in SYN-SENT takes a RST and nothing else (RFC 9293 3.10.7.3)
    elif proto == "http" and action != "reset":
        request = packet[header.at + (packet[header.at + 12] >> 4) * 4:header.end]
        head, body = answers.find(decision.list, action, request, decision.rule, now)
        payload = head if decision.head else head + body
    elif proto == "tls" and answers.alert:
        payload = ALERT
    client = _Sender(header.version, header.dst, header.src, ports[2:4] + ports[0:2], decision.client_seq)
    if payload:
        replies.to_client.extend(client.send(payload, decision.client_ack, _timestamps(packet, header)))
    else:
        replies.to_client.append(client.segment(decision.client_seq, decision.client_ack, RST | ACK, 0, b"", b""))
    server = _Sender(header.version, header.src, header.dst, ports, decision.client_ack)
    for seq in decision.reset_seqs if decision.proven else ():
        replies.to_server.append(server.segment(seq, decision.reset_ack, RST | ACK, 0, b"", b""))
    return replies


def _close_quic(packet: bytes, header: wire.Header, decision: Decision) -> Replies:
    if header.fragment or header.end - header.at < 8 or decision.action not in ANSWERED:
        return Replies([], [])
    datagram = packet[header.at + 8:header.end]
    payload = quic_close.close_datagram(datagram, decision.quic_id)
    if payload is None:
        return Replies([], [])
    ports = packet[header.at:header.at + 4]
    addresses = header.dst + header.src
    udp = bytearray(ports[2:4] + ports[0:2] + struct.pack(">HH", 8 + len(payload), 0) + payload)
    total = wire.sum16(addresses) + wire.UDP + len(udp) + wire.sum16(udp)
    udp[6:8] = (wire.checksum(total) or 0xFFFF).to_bytes(2, "big")      # RFC 768: 0 says that there is none
    return Replies([_ip(header.version, addresses, wire.UDP, int.from_bytes(udp[6:8], "big"), udp)], [])


def _ip(version: int, addresses: bytes, proto: int, identification: int, payload: bytearray) -> bytes:
    # Never fragmented on its way, so the identification has no meaning (RFC 6864 section 4.1), only variety.
    if version == 6:
        return struct.pack(">IHBB", 6 << 28, len(payload), proto, _HOPS) + addresses + payload
    ip = bytearray(struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), identification, 0x4000, _HOPS, proto, 0))
    ip += addresses
    ip[10:12] = wire.checksum(wire.sum16(ip)).to_bytes(2, "big")
    return bytes(ip + payload)


def _timestamps(packet: bytes, header: wire.Header) -> bytes:
    # The option to put into an answer: the client's echo, moved on, as our value, so that it passes its check for old
    # segments (RFC 7323 section 5), and its value echoed. Empty if the client sent none, as it then wants none.
    at = header.at + 20
    end = min(header.at + (packet[header.at + 12] >> 4) * 4, header.end)
    while at < end:
        kind = packet[at]
        if kind == 0:
            break
        if kind == 1:
            at += 1
            continue
        size = packet[at + 1] if at + 1 < end else 0
        if size < 2 or at + size > end:
            break
        if kind == _TIMESTAMPS and size == 10:
            ours = int.from_bytes(packet[at + 6:at + 10]) + _AHEAD & 0xFFFFFFFF
            return b"\x01\x01\x08\x0a" + ours.to_bytes(4) + packet[at + 2:at + 6]
        at += size
    return b""


class _Sender:
    """One direction of one connection."""

    def __init__(self, version: int, src: bytes, dst: bytes, ports: bytes, identification: int) -> None:
        self.version = version
        self.addresses = src + dst
        self.ports = ports
        self.identification = identification

    def send(self, payload: bytes, ack: int, options: bytes) -> list[bytes]:
        """Segments of at most MAX_SEGMENT bytes, the last one with FIN, from sequence number `identification`."""
        most = MAX_SEGMENT[self.version]
        seq, packets = self.identification, []
        for at in range(0, len(payload), most):
            part = payload[at:at + most]
            flags = ACK | (PSH | FIN if at + most >= len(payload) else 0)
            packets.append(self.segment(seq + at, ack, flags, _WINDOW, options, part))
        return packets

    def segment(self, seq: int, ack: int, flags: int, window: int, options: bytes, payload: bytes) -> bytes:
        """One IP packet with one TCP segment (RFC 9293 section 3.1); `options` is padded to 4 bytes already."""
        size = 20 + len(options) + len(payload)
        tcp = bytearray(self.ports + struct.pack(">IIBBHHH", seq & 0xFFFFFFFF, ack & 0xFFFFFFFF,
                                                 (20 + len(options)) << 2, flags, window, 0, 0))
        tcp += options + payload
        total = wire.sum16(self.addresses) + wire.TCP + size + wire.sum16(tcp)
        tcp[16:18] = wire.checksum(total).to_bytes(2, "big")
        return _ip(self.version, self.addresses, wire.TCP, (self.identification + (seq >> 4)) & 0xFFFF, tcp)
