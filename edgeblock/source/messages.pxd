# Netlink messages of a queue: where a packet stands in one, and attributes as they are written.
#
# In: the bytes of a datagram from the kernel. Out: messages, and what they say of a packet; every length is checked
# against what is there. Never here: a socket, a verdict, memory. Sources: linux/netlink.h, nfnetlink_queue.h.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from edgeblock.core.cursor cimport Cursor, left, nested, skip, take, take_u16, take_u32

cdef extern from "<linux/netlink.h>":
    struct nlmsghdr:
        uint32_t nlmsg_len
        uint16_t nlmsg_type
        uint16_t nlmsg_flags
        uint32_t nlmsg_seq
        uint32_t nlmsg_pid
    struct nlattr:
        uint16_t nla_len
        uint16_t nla_type
    enum:
        NLA_F_NESTED
        NLA_TYPE_MASK

cdef enum:
    NFQA_PACKET_HDR = 1
    NFQA_MARK = 3
    NFQA_PAYLOAD = 10
    NFQA_CAP_LEN = 13
    NFQA_SKB_INFO = 14

cdef struct Queued:                  # what a queue message says about a packet
    const uint8_t* data
    size_t size
    uint32_t id
    uint16_t protocol                # EtherType
    uint32_t skb_info
    uint32_t mark                    # of the packet
    bint numbered                    # it has an id at all
    bint cut                         # the kernel delivered only the beginning


cdef inline bint take_message(Cursor* c, nlmsghdr* header, Cursor* body) noexcept nogil:
    # One netlink message; netlink headers are in host order and padded to four bytes.
    cdef const uint8_t* raw
    cdef size_t size
    if not take(c, 16, &raw):
        return False
    memcpy(header, raw, sizeof(nlmsghdr))
    size = header.nlmsg_len
    if size < 16 or not nested(c, size - 16, body):
        return False
    skip(c, min(left(c), -size & 3))
    return True


cdef inline bint take_attribute(Cursor* c, uint16_t* kind, Cursor* value) noexcept nogil:
    cdef const uint8_t* raw
    cdef nlattr header
    cdef size_t size
    if not take(c, 4, &raw):
        return False
    memcpy(&header, raw, sizeof(nlattr))
    size = header.nla_len
    if size < 4 or not nested(c, size - 4, value):
        return False
    skip(c, min(left(c), -size & 3))
    kind[0] = header.nla_type & <uint16_t>NLA_TYPE_MASK
    return True


cdef inline uint8_t* write_attribute(uint8_t* at, uint16_t kind, const void* value, uint16_t size) noexcept nogil:
    # With a NULL value only the header, of an attribute that holds the `size` bytes of attributes to come.
    cdef nlattr header
    header.nla_len = 4 + size
    header.nla_type = kind if value != NULL else kind | <uint16_t>NLA_F_NESTED
    memcpy(at, &header, 4)
    at += 4
    if value == NULL:
        return at
    memset(at, 0, (size + 3) & ~3)
    memcpy(at, value, size)
    return at + ((size + 3) & ~3)


cdef inline bint read_packet(Cursor* body, Queued* packet) noexcept nogil:
    # False when there is no whole packet in it; the id may be known all the same.
    cdef Cursor value
    cdef uint16_t kind
    cdef uint32_t whole = 0
    packet.data = NULL
    packet.size = 0
    packet.skb_info = packet.mark = 0
    packet.numbered = False
    if not skip(body, 4):            # struct nfgenmsg
        return False
    while left(body):
        if not take_attribute(body, &kind, &value):
            return False
        if kind == NFQA_PACKET_HDR:
            packet.numbered = take_u32(&value, &packet.id) and take_u16(&value, &packet.protocol)
        elif kind == NFQA_MARK:
            take_u32(&value, &packet.mark)
        elif kind == NFQA_SKB_INFO:
            take_u32(&value, &packet.skb_info)
        elif kind == NFQA_CAP_LEN:
            take_u32(&value, &whole)
        elif kind == NFQA_PAYLOAD:
            packet.data = value.at
            packet.size = left(&value)
    packet.cut = whole > packet.size
    return packet.numbered and packet.data != NULL
