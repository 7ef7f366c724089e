"""IPv4 and IPv6 headers with TCP or UDP behind them: packet bytes in, a view out; or a view in, a packet out.

Comes in: the bytes of one IP packet, as hostile as they may be. Goes out: a Packet whose `kind` says what it is.
Never here: memory for a payload, a reassembled fragment, a judgement on what the bytes mean.
Sources: RFC 791, RFC 8200 section 4, RFC 9293 section 3.1, RFC 768, RFC 1071.
"""

from libc.string cimport memcpy, memset

from edgeblock.core.cursor cimport Cursor, cursor, left, nested, skip, take, take_u8, take_u16, take_u32

cdef enum:
    IP_HOP_BY_HOP = 0
    IP_TCP = 6
    IP_UDP = 17
    IP_ROUTING = 43
    IP_FRAGMENT = 44
    IP_AUTHENTICATION = 51
    IP_DESTINATION_OPTIONS = 60

cdef const char* HEX = b"0123456789abcdef"


cdef void view_packet(const uint8_t* data, size_t size, Packet* out) noexcept nogil:
    cdef Cursor c = cursor(data, size)
    cdef size_t rest
    memset(out, 0, sizeof(Packet))
    if _walk(&c, out, &rest):
        _view_transport(&c, rest, out)


cdef bint _walk(Cursor* c, Packet* out, size_t* rest) noexcept nogil:
    # To the transport header, `rest` bytes of the packet before its end. False: there is none to be read, and what
    # is known of the packet is in `out`.
    if left(c) == 0:
        return False
    if c.at[0] >> 4 == 4:
        return _walk_ipv4(c, out, rest)
    return c.at[0] >> 4 == 6 and _walk_ipv6(c, out, rest)


cdef bint _walk_ipv4(Cursor* c, Packet* out, size_t* rest) noexcept nogil:
    cdef const uint8_t* head
    cdef const uint8_t* addresses
    cdef size_t size = left(c)
    cdef size_t header, total
    if not take(c, 12, &head) or not take(c, 8, &addresses):
        return False
    header = <size_t>(head[0] & 0x0F) * 4
    total = (<size_t>head[2] << 8) | head[3]
    if total == 0:
        total = size            # left to segmentation offload by the capturing host
    if header < 20 or total < header or not skip(c, header - 20):
        return False
    out.family = 4
    memcpy(out.source, addresses, 4)
    memcpy(out.destination, addresses + 4, 4)
    out.protocol = head[9]
    rest[0] = total - header
    if ((<uint32_t>head[6] << 8) | head[7]) & 0x3FFF:      # more fragments, or an offset
        out.kind = PACKET_FRAGMENT
        return False
    return True


cdef bint _walk_ipv6(Cursor* c, Packet* out, size_t* rest) noexcept nogil:
    cdef const uint8_t* start = c.at
    cdef const uint8_t* head
    cdef const uint8_t* addresses
    cdef const uint8_t* extension
    cdef size_t total, size
    cdef uint32_t count = 0
    cdef uint16_t named = 6
    if not take(c, 8, &head) or not take(c, 32, &addresses):
        return False
    out.family = 6
    memcpy(out.source, addresses, 16)
    memcpy(out.destination, addresses + 16, 16)
    total = (<size_t>head[4] << 8) | head[5]
    if total == 0:
        total = left(c)         # a jumbogram, or left to segmentation offload
    out.protocol = head[6]
    while is_extension(out.protocol):
        if count == MAX_EXTENSIONS:
            out.many_headers = 1
            return False
        if total < 8 or not take(c, 8, &extension):
            return False
        if out.protocol == IP_FRAGMENT:
            size = 8
            out.fragment_at = <uint16_t>(extension - start)
            out.fragment_named = named
        elif out.protocol == IP_AUTHENTICATION:
            size = 8 + <size_t>extension[1] * 4     # RFC 4302, 2.2: in words of 4 bytes, less 2
        else:
            size = 8 + <size_t>extension[1] * 8
        if size > total or not skip(c, size - 8):
            return False
        if out.protocol == IP_HOP_BY_HOP and count:
            out.misplaced_hop_by_hop = 1
        if out.protocol == IP_ROUTING and extension[3] != 0:
            out.source_routed = 1
        total -= size
        named = <uint16_t>(extension - start)
        if out.protocol == IP_FRAGMENT and ((<uint32_t>extension[2] << 8) | extension[3]) & 0xFFF9:
            out.kind = PACKET_FRAGMENT      # an atomic one (RFC 6946) is a whole packet
            out.protocol = extension[0]
            rest[0] = total
            return False
        out.protocol = extension[0]
        count += 1
    rest[0] = total
    return True


cdef void _view_transport(Cursor* c, size_t size, Packet* out) noexcept nogil:
    # `size` is what the IP header says is left; the capture may hold less, a link may have padded it with more.
    cdef Cursor body
    if size > left(c):
        out.cut = 1
        size = left(c)
    nested(c, size, &body)
    out.segment = body.at
    out.segment_size = size
    if out.protocol == IP_TCP:
        _view_tcp(&body, out)
    elif out.protocol == IP_UDP:
        _view_udp(&body, out)
    else:
        out.kind = PACKET_OTHER


cdef void _view_tcp(Cursor* c, Packet* out) noexcept nogil:
    cdef uint8_t offset, flags
    cdef uint16_t window, checksum
    cdef size_t header
    if not (take_u16(c, &out.source_port) and take_u16(c, &out.destination_port)
            and take_u32(c, &out.seq) and take_u32(c, &out.ack)
            and take_u8(c, &offset) and take_u8(c, &flags)
            and take_u16(c, &window) and take_u16(c, &checksum) and take_u16(c, &out.urgent)):
        return
    header = <size_t>(offset >> 4) * 4
    if header < 20 or not skip(c, header - 20):
        return
    out.kind = PACKET_TCP
    out.flags = flags
    out.payload = c.at
    out.payload_size = left(c)


cdef void _view_udp(Cursor* c, Packet* out) noexcept nogil:
    cdef uint16_t length, checksum
    cdef size_t size
    if not (take_u16(c, &out.source_port) and take_u16(c, &out.destination_port)
            and take_u16(c, &length) and take_u16(c, &checksum)):
        return
    size = left(c)
    if length >= 8 and <size_t>length - 8 < size:
        size = length - 8       # what follows is padding of the packet, not of the datagram
        out.segment_size = length
    elif length < 8 and length != 0:
        return
    out.kind = PACKET_UDP
    out.payload = c.at
    out.payload_size = size


cdef uint64_t _sum(const uint8_t* data, size_t size) noexcept nogil:
    # Ones' complement sum in host order over 32-bit words; folding at the end makes word size irrelevant
    # (RFC 1071, section 2 B and C).
    cdef uint64_t total = 0
    cdef uint32_t word
    cdef size_t i, words = size // 4
    cdef uint8_t last[4]
    for i in range(words):
        memcpy(&word, data + 4 * i, 4)
        total += word
    if size & 3:
        memset(last, 0, 4)
        memcpy(last, data + 4 * words, size & 3)
        memcpy(&word, last, 4)
        total += word
    return total


cdef bint checksum_is_right(const Packet* packet) noexcept nogil:
    cdef uint64_t total
    cdef uint8_t pseudo[8]
    cdef size_t address = 4 if packet.family == 4 else 16
    if packet.cut or packet.source_routed or packet.segment_size < 8:
        return True
    if (packet.kind == PACKET_UDP and packet.family == 4
            and packet.segment[6] == 0 and packet.segment[7] == 0):
        return True             # RFC 768: no checksum was made
    memset(pseudo, 0, 8)
    pseudo[1] = <uint8_t>(packet.segment_size >> 16)
    pseudo[2] = <uint8_t>(packet.segment_size >> 8)
    pseudo[3] = <uint8_t>packet.segment_size
    pseudo[7] = packet.protocol
    total = (_sum(packet.source, address) + _sum(packet.destination, address)
             + _sum(pseudo, 8) + _sum(packet.segment, packet.segment_size))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


cdef size_t write_packet(uint8_t* out, size_t room, const Packet* like, uint32_t seq, uint8_t flags,
                         const uint8_t* payload, size_t payload_size) noexcept nogil:
    # A plain TCP packet of the same flow; 0 if it has no room.
    cdef size_t address = 4 if like.family == 4 else 16
    cdef size_t header = 20 if like.family == 4 else 40
    cdef size_t size = header + 20 + payload_size
    cdef size_t length = size if like.family == 4 else size - 40
    cdef uint32_t[2] numbers = [seq, like.ack if flags & TCP_ACK else 0]
    cdef uint8_t* tcp = out + header
    cdef int i
    if size > room:
        return 0
    memset(out, 0, header + 20)
    if like.family == 4:
        out[0] = 0x45
        out[2] = <uint8_t>(length >> 8)
        out[3] = <uint8_t>length
        out[8] = 64
        out[9] = like.protocol
        memcpy(out + 12, like.source, address)
        memcpy(out + 16, like.destination, address)
    else:
        out[0] = 0x60
        out[4] = <uint8_t>(length >> 8)
        out[5] = <uint8_t>length
        out[6] = like.protocol
        out[7] = 64
        memcpy(out + 8, like.source, address)
        memcpy(out + 24, like.destination, address)
    tcp[0] = <uint8_t>(like.source_port >> 8)
    tcp[1] = <uint8_t>like.source_port
    tcp[2] = <uint8_t>(like.destination_port >> 8)
    tcp[3] = <uint8_t>like.destination_port
    for i in range(4):
        tcp[4 + i] = <uint8_t>(numbers[0] >> (24 - 8 * i))
        tcp[8 + i] = <uint8_t>(numbers[1] >> (24 - 8 * i))
    tcp[12] = 0x50
    tcp[13] = flags
    if payload_size:
        memcpy(tcp + 20, payload, payload_size)
    return size


cdef size_t address_text(const Packet* p, uint8_t* out) noexcept nogil:
    # The destination as a request without a Host means it: 192.0.2.1 or [2001:db8:0:0:0:0:0:1].
    cdef size_t size = 0, i
    cdef uint32_t group
    cdef int shift
    if p.family == 4:
        for i in range(4):
            if i:
                out[size] = 0x2E
                size += 1
            group = p.destination[i]
            if group >= 100:
                out[size] = <uint8_t>(0x30 + group // 100)
                size += 1
            if group >= 10:
                out[size] = <uint8_t>(0x30 + group // 10 % 10)
                size += 1
            out[size] = <uint8_t>(0x30 + group % 10)
            size += 1
        return size
    out[0] = 0x5B
    size = 1
    for i in range(8):
        if i:
            out[size] = 0x3A
            size += 1
        group = (<uint32_t>p.destination[2 * i] << 8) | p.destination[2 * i + 1]
        for shift in range(12, -1, -4):
            out[size] = <uint8_t>HEX[(group >> shift) & 15]
            size += 1
    out[size] = 0x5D
    return size + 1


# ---- for tests and tools: the same view as a dictionary


def find_transport(const uint8_t[::1] data):
    """Where the transport header of an IP packet is, found by the same walk as the engine's.

    Returns protocol, offset, the packet's end, whether it is a fragment, and for IPv6 the offsets of its (last)
    fragment header and of the byte that names that header, 0 where there is none. None for what is no IP packet, is
    not whole, or has more headers than MAX_EXTENSIONS. Behind the header of a fragment nothing is walked.
    """
    cdef Packet p
    cdef size_t size = data.shape[0], rest
    cdef Cursor c = cursor(&data[0] if size else NULL, size)
    cdef bint whole
    memset(&p, 0, sizeof(p))
    whole = _walk(&c, &p, &rest)
    if not whole and p.kind != PACKET_FRAGMENT or rest > left(&c):
        return None
    return p.protocol, size - left(&c), size - left(&c) + rest, not whole, p.fragment_at, p.fragment_named


def view(const uint8_t[::1] data) -> dict:
    """The headers of one IP packet, for tests: `kind` is bad, other, fragment, tcp or udp; bad with `many` set."""
    cdef Packet p
    cdef size_t address
    view_packet(&data[0] if data.shape[0] else NULL, data.shape[0], &p)
    address = 4 if p.family == 4 else 16
    seen = {"kind": ("bad", "other", "fragment", "tcp", "udp")[p.kind], "family": p.family}
    if p.many_headers:
        seen["many"] = True
    if p.kind >= PACKET_TCP:
        seen.update(
            source=<bytes>p.source[:address], destination=<bytes>p.destination[:address],
            sport=p.source_port, dport=p.destination_port,
            payload=<bytes>p.payload[:p.payload_size], checksum=bool(checksum_is_right(&p)),
            hop_by_hop=bool(p.misplaced_hop_by_hop), cut=bool(p.cut), at=p.segment - &data[0])
    if p.kind == PACKET_TCP:
        seen.update(seq=p.seq, ack=p.ack, flags=p.flags, urgent=p.urgent)
    return seen
