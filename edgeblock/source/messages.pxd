# Netlink messages of a queue: where a packet stands in one, what a verdict looks like, how attributes are written.
#
# In: the bytes of a datagram from the kernel. Out: messages, and what they say of a packet; every length is checked
# against what is there. Never here: a socket, a decision, memory. Sources: linux/netlink.h, nfnetlink_queue.h.

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
    struct nlmsgerr:
        int error
        nlmsghdr msg
    enum:
        NLA_F_NESTED
        NLA_TYPE_MASK
        NLMSG_ERROR
        NLM_F_REQUEST

# From linux/netfilter/nfnetlink_queue.h and nfnetlink_conntrack.h; NFQA_ and CTA_ are attribute types.
cdef enum:
    NFQA_PACKET_HDR = 1
    NFQA_MARK = 3
    NFQA_PAYLOAD = 10
    NFQA_CAP_LEN = 13
    NFQA_SKB_INFO = 14
    QUEUE_SUBSYSTEM = 3 << 8
    MSG_PACKET = QUEUE_SUBSYSTEM | 0
    MSG_VERDICT = QUEUE_SUBSYSTEM | 1
    MSG_VERDICT_BATCH = QUEUE_SUBSYSTEM | 3
    NFQA_VERDICT_HDR = 2
    NFQA_CT = 11
    NFQA_SKB_CSUMNOTREADY = 1
    CT_UPDATE = 1 << 8               # IPCTNL_MSG_CT_NEW without leave to create
    CTA_TUPLE_ORIG = 1
    CTA_MARK = 8
    CTA_MARK_MASK = 21
    CTA_TUPLE_IP = 1
    CTA_TUPLE_PROTO = 2
    CTA_IP_V4_SRC = 1
    CTA_IP_V6_SRC = 3
    CTA_PROTO_NUM = 1
    CTA_PROTO_SRC_PORT = 2
    CTA_PROTO_DST_PORT = 3
    NF_DROP = 0
    NF_ACCEPT = 1

cdef struct Queued:                  # what a queue message says about a packet
    const uint8_t* data
    size_t size
    uint32_t id
    uint16_t protocol                # EtherType
    uint32_t skb_info
    uint32_t mark                    # of the packet
    bint numbered                    # it has an id at all
    bint cut                         # the kernel delivered only the beginning

cdef packed struct Verdict:          # a whole message; the kernel reads no further than `size`
    uint32_t size
    uint16_t type
    uint16_t flags
    uint32_t sequence
    uint32_t port
    uint8_t family
    uint8_t version
    uint16_t queue                   # network order, as are verdict, id, mark and mask
    uint16_t header_size
    uint16_t header_type
    uint32_t verdict
    uint32_t id
    uint16_t ct_size                 # from here on only in a verdict with a mark
    uint16_t ct_type
    uint16_t mark_size
    uint16_t mark_type
    uint32_t mark
    uint16_t mask_size
    uint16_t mask_type
    uint32_t mask

cdef enum:
    PLAIN_SIZE = 32
    CT_SIZE = 20
    MARK_SIZE = 8
    UPDATE_SIZE = 112                # of a mark update for IPv6


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
