# The one door: `judge(packet, now) -> verdict`.
#
# In: one IP packet as bytes, and the caller's clock. Out: a Decision; the names it was made on stay readable
# until the next packet. The engine reads no clock, no socket and no file, and never raises for a packet.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from edgeblock.core.matcher cimport Match, Matcher

cdef enum Mark:            # what the flow's conntrack mark becomes (netfilter.marks has the bits)
    MARK_KEEP = 0          # leave it as it is
    MARK_DONE = 1          # never queued again
    MARK_HTTP = 2          # requests may follow: the client side stays queued
    MARK_BLOCKED = 3       # dropped in the kernel

cdef enum:
    CHECKSUM_VERIFY = 0    # flags of judge: a TCP or UDP checksum that is wrong makes the packet junk
    CHECKSUM_TRUST = 1     # the checksum was left to hardware; do not look at it

cdef struct Decision:
    uint8_t accept         # 1: let the packet go on; 0: drop it
    uint8_t mark           # a Mark
    uint8_t action         # the Action in force; ACTION_PASS for most
    uint8_t proto          # a Proto
    uint8_t names          # how many names this packet completed and the caller should hear of
    uint8_t reply          # 1: an answer is due (reset, page or redirect), once more for a retransmission
    uint8_t head           # 1: the request was HEAD, so the answer carries no body
    uint8_t reset_seqs     # how many of reset_seq are set
    uint16_t list_index
    uint32_t rule
    uint32_t client_seq    # TCP sequence number of the first byte of the answer to the client
    uint32_t client_ack    # what the answer acknowledges: the end of what the client has sent
    uint32_t reset_seq[2]  # sequence numbers at which the server may expect the next byte: one RST each
    uint32_t reset_ack


cdef class Engine:
    cdef public Matcher matcher                     # swapped by one assignment, between two packets
    cdef int judge_packet(self, const uint8_t* data, size_t size, double now, uint32_t flags,
                          Decision* out) noexcept nogil
    cdef object decision(self, const Decision* made)    # -> decision.Decision for the Python side
