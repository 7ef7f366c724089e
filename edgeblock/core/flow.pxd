# The flow table: 5-tuple in, Flow out. Bounded in flows and bytes, expired by the caller's clock, eviction in O(1).
# A QUIC connection is a flow, too: core.connections makes its key of the server's address, port and connection id.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from edgeblock.core.blocked cimport Blocked
from edgeblock.core.matcher cimport Match
from edgeblock.core.packet cimport Packet
from edgeblock.core.quic cimport MAX_CONNECTION_ID, Connection
from edgeblock.core.window cimport Window

cdef enum:
    AWAITED = 8                # SYNs on the ports of a proven connection; more, and bytes begin where they come
    KEY_SIZE = 38              # addresses, ports, family, protocol
    PROTOCOL_UDP = 17
    SEEN = 8                   # names of a flow that were reported, so that a second reading is not reported again
    FLOW_COST = 96             # bytes a flow costs besides its structures: allocator and table

cdef enum Lane:                # which flows go first when memory is short: lowest lane first, oldest first
    LANE_SETTLED = 0           # read to the end, nothing listed: waits for the server's answer
    LANE_UNDECIDED = 1         # nothing of a message has come yet
    LANE_PART = 2              # part of a message: the server may wait for the rest for hours
    LANE_KEPT = 3              # HTTP connections between requests, and blocked flows
    LANE_KEPT_PART = 4         # HTTP connections in the middle of a request
    LANES = 5

cdef enum FlowState:
    FLOW_WATCHED = 0
    FLOW_BLOCKED = 1
    FLOW_RELEASED = 2          # never looked at again

cdef struct Flow

cdef enum:                     # what QUIC connections share that stand in one list
    SHARE_SOURCE = 0           # addresses, ports, and the client's own connection id
    SHARE_ENDS = 1             # addresses and ports
    SHARE_ADDRESSES = 2        # addresses, and the server's port; first of as many as QUIC_ADDRESSES
    SHARES = 6

cdef enum:
    QUIC_ADDRESSES = 4         # a client has no more during a handshake

cdef struct Peer:              # a QUIC connection's place in a list, the one used last first
    Flow* flow
    Peer* next
    Peer** link                # what points here; NULL: it is in no list
    uint64_t hash              # of what they share

cdef struct Quic:              # of a flow that is a QUIC connection
    Connection connection
    Peer peers[SHARES]
    uint64_t turn              # of the packet that its keys were tried on last
    uint8_t home[16]           # the client's address, where its first packet came from
    uint8_t first[16]          # the same since it has begun anew,
    uint8_t family             # and of which family that is: 4 or 6
    uint8_t bound              # its hello was judged for that address, and would be otherwise for others
    uint8_t client[16]         # who sent the datagram that was blocked
    uint16_t client_port
    uint8_t passed             # a datagram of it was let through: the server may have these bytes
    uint8_t server_size
    uint8_t server[MAX_CONNECTION_ID]      # where its last packet was sent that was not sent to its own id

cdef struct Flow:
    uint64_t hash              # of the key
    Flow* older                # neighbours in the lane
    Flow* newer
    double touched             # caller's clock at the last packet
    uint32_t held              # bytes accounted for in the table
    uint8_t key[KEY_SIZE]
    uint8_t lane
    uint8_t state
    uint8_t syn                # its SYN was seen
    uint8_t marked             # the Mark that was last asked for
    uint8_t counted            # its stream was counted as unparsable
    uint8_t unmarked           # no mark of the kernel's says what became of it: others have its addresses and ports
    uint8_t replies            # answers sent so far
    uint8_t proven             # its sender has acknowledged the server's SYN-ACK: what shows no proof is not its
    uint8_t soft               # blocked for what showed no proof: nothing is known of who sent it
    uint8_t awaited_count      # of `awaited`, and of those that had to go
    uint16_t told              # bits: policies that were reported
    uint8_t orphan             # another engine has begun it (Engine.take_over)
    uint8_t sealed             # it does not begin anew: more has begun there than is known
    uint8_t awaits_ech         # `with_ech` is what is done if its hello turns out to have an Encrypted ClientHello,
    uint8_t heard_ech          # and this hello has come to its end: the next name is of another one
    uint8_t crowded            # there were more streams when it was blocked than `blocked` tells of
    Blocked blocked            # all streams that had begun on these ports when one was blocked, and that one
    uint32_t awaited[AWAITED]  # SYNs since the proof: one counts when proven bytes follow it
    uint8_t action             # of a blocked flow, and what follows
    uint8_t proto
    uint8_t head
    uint8_t reset_seqs
    uint16_t list_index
    uint32_t rule
    uint32_t client_seq
    uint32_t client_ack
    uint32_t reset_seq[2]
    uint32_t reset_ack
    Match with_ech
    uint64_t with_ech_by       # the matcher that says so (Matcher.serial)
    uint32_t packets           # client packets with payload since it was settled
    uint8_t seen_count
    uint64_t seen[SEEN]
    uint64_t past              # what was caught up with last (Engine.catch_up)
    Window window              # of TCP, or of a QUIC connection's CRYPTO stream
    Quic* quic                 # NULL: it is none


cdef struct LaneList:
    Flow* oldest
    Flow* newest


cdef struct Slot:              # the hash stands beside the flow, so that no other flow is touched on the way to one
    uint64_t hash
    Flow* flow


cdef void unlink_peer(Peer* peer) noexcept nogil
cdef bint is_turned(const uint8_t* key) noexcept nogil      # of the two ends the higher is the client


cdef class FlowTable:
    cdef Slot* slots           # the first free or fitting one from the hash on; at least twice as many as flows
    cdef uint64_t mask
    cdef Flow* spare           # memory of removed flows, joined by `newer`
    cdef uint32_t spares
    cdef LaneList lanes[LANES]
    cdef uint64_t lane_flows[LANES]
    cdef uint64_t lane_memory[LANES]
    cdef uint8_t secret[16]
    cdef uint8_t hashed[KEY_SIZE]        # the last key, its ends in a fixed order, and its hash
    cdef uint64_t hash
    cdef readonly uint64_t flows
    cdef uint64_t datagrams    # flows of UDP: those to listed addresses, so that mostly there is none to look for
    cdef readonly uint64_t memory
    cdef readonly uint64_t max_flows
    cdef readonly uint64_t max_memory
    cdef double[LANES] idle    # seconds without a packet after which a flow of a lane is forgotten
    cdef uint64_t expired
    cdef uint64_t evicted[LANES]

    cdef Flow* find(self, const Packet* packet, bint reverse) noexcept nogil
    cdef uint64_t foresee(self, Packet* packet) noexcept nogil     # its hash, kept in it; the slots are fetched
    cdef void foresee_flow(self, uint64_t hash) noexcept nogil                 # then the flow, where there is one
    cdef Flow* create(self, const Packet* packet, double now) noexcept nogil   # NULL without memory
    cdef void touch(self, Flow* flow, uint8_t lane, double now) noexcept nogil # accounts its bytes, makes room
    cdef void remove(self, Flow* flow) noexcept nogil
    cdef uint64_t directed(self, const Packet* packet) noexcept nogil      # its flow's hash, and who is the client
    cdef void share_secret(self, const uint8_t* secret) noexcept nogil
    cdef void expire(self, double now) noexcept nogil
    cdef uint64_t _hash(self, const uint8_t* key) noexcept nogil
    cdef uint64_t _hash_of(self, const Packet* packet) noexcept nogil
    cdef void _take_out(self, const Flow* flow) noexcept nogil
    cdef void _append(self, Flow* flow) noexcept nogil
    cdef void _unhook(self, Flow* flow) noexcept nogil
    cdef bint _evict(self, Flow* spared) noexcept nogil
    cdef void _fetch_next(self, const Flow* flow) noexcept nogil
