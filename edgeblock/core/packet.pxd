# IP packet bytes in, a view of the headers out; nothing is copied but addresses. Fragments are reported as such,
# never reassembled here (the kernel's conntrack does it live, source.defragment in replay).

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    # IPv6 extension headers of a packet that is read. Linux takes as many as fit (asked: 180 destination options in
    # one of 1500 bytes), so nothing that comes over Ethernet has more; the kernel's verifier follows so many turns of
    # the same walk (netfilter/stage1/program.c). With more the packet is dropped: `junk_headers`.
    MAX_EXTENSIONS = 192

cdef enum Kind:
    PACKET_BAD = 0         # no IP packet, or its headers run past its end
    PACKET_OTHER = 1       # IP, but neither TCP nor UDP
    PACKET_FRAGMENT = 2    # a piece of a packet
    PACKET_TCP = 3
    PACKET_UDP = 4

cdef enum TcpFlag:
    TCP_FIN = 0x01
    TCP_SYN = 0x02
    TCP_RST = 0x04
    TCP_ACK = 0x10
    TCP_URG = 0x20

cdef struct Packet:
    uint8_t kind           # a Kind
    uint8_t family         # 4 or 6
    uint8_t flags          # TCP flags
    uint8_t misplaced_hop_by_hop   # IPv6: a hop-by-hop header that is not the first (RFC 8200, 4.3): always dropped
    uint8_t cut            # the packet is longer than its bytes: its checksum cannot be verified
    uint8_t source_routed  # IPv6 routing header with segments left: the checksum is of the final destination
    uint8_t many_headers   # more than MAX_EXTENSIONS, or what follows would be one more
    uint8_t protocol       # of the last header walked
    uint16_t fragment_at   # IPv6: where its last fragment header is, 0: there is none,
    uint16_t fragment_named    # and where the byte is that names it
    uint8_t proven         # not in the packet: its sender has acknowledged what only the server's SYN-ACK could tell
    uint8_t recalled       # nor this: the kernel has let it by, and it is told of now
    uint8_t hashed         # nor this: `hash` is its flow's (FlowTable.foresee)
    uint16_t source_port
    uint16_t destination_port
    uint16_t urgent        # TCP urgent pointer
    uint32_t seq
    uint32_t ack
    uint8_t source[16]     # an IPv4 address takes the first four bytes, the rest are zero
    uint8_t destination[16]
    const uint8_t* segment      # TCP or UDP header and payload: what the checksum covers
    size_t segment_size
    const uint8_t* payload
    size_t payload_size
    uint64_t hash

cdef inline bint is_extension(uint8_t protocol) noexcept nogil:
    # Hop-by-hop, routing, fragment, authentication, destination options: what Linux walks, its netfilter too
    # (ipv6_ext_hdr). Behind any other header no deployed stack finds TCP or UDP.
    return (protocol == 0 or protocol == 43 or protocol == 44 or protocol == 51 or protocol == 60)

cdef void view_packet(const uint8_t* data, size_t size, Packet* out) noexcept nogil
cdef bint checksum_is_right(const Packet* packet) noexcept nogil   # True where it cannot be told
# A plain TCP packet of the same flow; returns its size, 0 where it has no room.
cdef size_t write_packet(uint8_t* out, size_t room, const Packet* like, uint32_t seq, uint8_t flags,
                         const uint8_t* payload, size_t payload_size) noexcept nogil
cdef size_t address_text(const Packet* p, uint8_t* out) noexcept nogil     # the destination, at most 41 bytes
