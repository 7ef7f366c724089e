# The one door: `judge(packet, now) -> verdict`.
#
# In: one IP packet as bytes, and the caller's clock. Out: a Decision; the names it was made on stay readable
# until the next packet. The engine reads no clock, no socket and no file, and never raises for a packet.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from edgeblock.core.connections cimport Connections
from edgeblock.core.dtls cimport Fragment
from edgeblock.core.flow cimport Flow, FlowTable
from edgeblock.core.matcher cimport Around, Match, Matcher
from edgeblock.core.packet cimport Packet
from edgeblock.core.quic cimport MAX_CONNECTION_ID, QuicReader
from edgeblock.core.sketch cimport Sketches
from edgeblock.core.findings cimport Finding, Findings

cdef enum Mark:            # what the flow's conntrack mark becomes (netfilter.marks has the bits)
    MARK_KEEP = 0          # leave it as it is
    MARK_DONE = 1          # never queued again
    MARK_HTTP = 2          # requests may follow: the client side stays queued
    MARK_BLOCKED = 3       # dropped in the kernel

cdef enum:
    CHECKSUM_VERIFY = 0    # flags of judge: a TCP or UDP checksum that is wrong makes the packet junk
    CHECKSUM_TRUST = 1     # the checksum was left to hardware; do not look at it
    ADDRESS_PROVEN = 2     # TCP: it acknowledges what only the server's SYN-ACK could tell
    ENTRY_BLOCKED = 2      # of a SYN, which proves nothing: the tracker's entry says that a connection is blocked
    RECALLED = 4           # the kernel has let it by before

cdef struct Decision:
    uint8_t accept         # 1: let the packet go on; 0: drop it
    uint8_t mark           # a Mark
    uint8_t action         # the Action in force; ACTION_PASS for most
    uint8_t proto          # a Proto
    uint8_t names          # how many names this packet completed and the caller should hear of
    uint8_t reply          # 1: an answer is due (reset, page or redirect), once more for a retransmission
    uint8_t head           # 1: the request was HEAD, so the answer carries no body
    uint8_t proven         # 1: the answer may be larger than the packet; the client has proved his address
    uint8_t reset_seqs     # how many of reset_seq are set
    uint16_t list_index
    uint32_t rule
    uint32_t client_seq    # TCP sequence number of the first byte of the answer to the client
    uint32_t client_ack    # what the answer acknowledges: the end of what the client has sent
    uint32_t reset_seq[2]  # sequence numbers at which the server may expect the next byte: one RST each
    uint32_t reset_ack
    uint8_t quic_id_size   # QUIC: the connection id whose keys protect the answer
    uint8_t quic_id[MAX_CONNECTION_ID]


cdef enum Policy:          # why something is stopped that no list names; core.decision.POLICIES has the names
    POLICY_NONE = 0
    POLICY_UNPARSABLE = 1
    POLICY_MIDSTREAM = 2
    POLICY_MEMORY = 3
    POLICY_CONFLICT = 4
    POLICY_NO_SNI = 5
    POLICY_ECH = 6
    POLICY_HEADERS = 7
    POLICY_WORK = 8

cdef enum:
    MAX_NAMES = 32         # names of one packet that are handed to the caller

# What the engine counts. One enumerator, one name, in the same order; docs/limits.md explains each.
cdef enum:
    COUNT_PACKETS = 0
    COUNT_TCP
    COUNT_UDP
    COUNT_OTHER
    COUNT_FRAGMENTS
    COUNT_UNREADABLE
    COUNT_JUNK_CHECKSUM
    COUNT_JUNK_NO_ACK
    COUNT_JUNK_HOP_BY_HOP
    COUNT_JUNK_HEADERS
    COUNT_JUNK_UNPROVEN
    COUNT_FLOWS
    COUNT_MIDSTREAM
    COUNT_HELLOS
    COUNT_HELLOS_NO_NAME
    COUNT_HELLOS_ECH
    COUNT_HELLOS_ECH_KNOWN
    COUNT_REQUESTS
    COUNT_NAMES
    COUNT_OBSERVED
    COUNT_BLOCKED_DROP
    COUNT_BLOCKED_RESET
    COUNT_BLOCKED_PAGE
    COUNT_BLOCKED_REDIRECT
    COUNT_BLOCKED_POLICY
    COUNT_BLOCKED_PACKETS
    COUNT_REPLIES_REPEATED
    COUNT_REPLIES_WITHHELD
    COUNT_UNPROVEN_BLOCKED
    COUNT_UNPROVEN_ANSWERED
    COUNT_UNPROVEN_UNANSWERED
    COUNT_UNPARSABLE
    COUNT_CONFLICTS
    COUNT_OVERFLOWS
    COUNT_REREADING_REFUSED
    COUNT_WINDOW_FULL
    COUNT_RELEASED
    COUNT_NO_MEMORY
    COUNT_OVERWORKED
    COUNT_WORK
    COUNT_ORPHANS
    COUNTERS


cdef struct Seen:              # one name for the caller
    uint8_t proto
    uint8_t action
    uint8_t ech
    uint8_t policy             # a Policy; with one there is no name
    uint16_t list_index
    uint32_t rule
    uint32_t order             # of Match
    uint32_t host_at           # these index the findings' text; no host has size 0
    uint32_t host_size
    uint32_t target_at
    uint32_t target_size


cdef struct Passed:            # a SYN that the kernel let by without asking, and the one hello behind it
    uint32_t isn
    uint32_t size              # of the hello; 0: there was none
    uint32_t after             # how many of the SYNs had passed before the hello
    const uint8_t* hello       # NULL: it is not known any more
    uint16_t[3] cuts           # where a packet ended that another followed (PASSED_CUTS); 0: no more of them


cdef enum:                     # how far a flow has come, for whoever goes on without this engine
    STANDS_SYN = 1             # a SYN has passed, and nothing else
    STANDS_BEGUN = 2           # a part of a message has, or the flow is blocked
    STANDS_WHOLE = 3           # whole messages, or what is none of ours
    STANDS_MANY = 4            # of connections before on the same ports: more than one is not over

cdef struct Standing:
    uint64_t hash              # of the flow
    uint32_t at                # TCP: the sequence number behind what this packet held
    uint8_t state
    uint8_t datagrams          # UDP: `at` says nothing


cdef class Engine:
    cdef public Matcher matcher                     # swapped by one assignment, between two packets
    cdef public Sketches sketches                   # of what is behind destinations; None: nobody wants to know
    cdef public bint by_steps                       # for tests: a flow's first bytes are read like all others
    cdef int judge_packet(self, const uint8_t* data, size_t size, double now, uint32_t flags,
                          Decision* out) noexcept nogil
    # Before several packets are judged: what memory they will touch is fetched, while the others are looked at.
    cdef uint64_t foresee(self, const uint8_t* data, size_t size) noexcept nogil    # for foresee_flow; 0: nothing
    cdef void foresee_flow(self, uint64_t hash) noexcept nogil
    cdef uint64_t untold(self, const Packet* p, uint64_t past) noexcept nogil
    cdef void catch_up(self, const uint8_t* data, size_t size, uint64_t past, const Passed* passed, uint32_t count,
                       double now) noexcept nogil
    cdef object decision(self, const Decision* made)    # -> decision.Decision for the Python side
    # Of the packet that was judged last, with that decision: how its flow stands. False: there is nothing to know.
    cdef bint standing(self, const Decision* made, Standing* out) noexcept nogil
    cdef bint knows(self, const Packet* p) noexcept nogil           # whether its flow is in the table
    cdef uint64_t hash_of(self, const Packet* p) noexcept nogil     # as in Standing
    # Of a flow that is not in the table, what another engine knew: before a packet of it is judged.
    cdef void take_over(self, const Packet* p, uint8_t state, uint32_t at, uint8_t before_state, uint32_t before,
                        double now) noexcept nogil

    cdef FlowTable table
    cdef Connections connections
    cdef QuicReader* quic          # the connections' own
    cdef double quic_answers_since
    cdef uint32_t quic_answers     # in that second
    cdef Findings findings
    cdef Seen seen[MAX_NAMES]
    cdef uint64_t counts[COUNTERS]
    cdef Flow* current             # of the packet that was judged last; NULL: none
    cdef uint32_t current_end      # TCP: the sequence number behind it
    cdef uint8_t current_syn       # TCP: it was a SYN without data
    cdef uint8_t current_quic      # UDP: how the QUIC connections stand that it belonged to; 0: to none
    cdef uint64_t current_hash     # UDP: of its addresses and ports
    cdef double clock
    cdef double rereading_since
    cdef uint32_t rereading        # what may still be read again in this second, in bytes
    cdef uint32_t worker_rereading
    cdef uint32_t flow_bytes
    cdef uint32_t settle_packets
    cdef uint8_t drop_unparsable
    cdef uint8_t drop_midstream
    cdef uint8_t drop_full
    cdef uint8_t drop_conflict
    cdef uint8_t drop_work
    cdef uint8_t drop_no_name
    cdef uint8_t drop_orphans
    cdef uint8_t ech
    cdef uint8_t report
    cdef uint8_t trusting          # nobody is asked for a proof of his address
    cdef uint32_t unproven_left    # answers in this second to those who have shown none
    cdef double unproven_since

    cdef bint _match_address(self, const Packet* p, Match* found) noexcept nogil
    cdef bint _match_first(self, const Flow* flow, const Packet* p, uint8_t proto, const uint8_t* host,
                           size_t host_size, Match* found) noexcept nogil
    cdef void _play_hello(self, const Packet* like, const Passed* passed, double now, uint32_t flags) noexcept nogil
    cdef void _judge_tcp(self, const Packet* p, Decision* out) noexcept nogil
    cdef Flow* _open(self, const Packet* p, bint opening, Decision* out) noexcept nogil
    cdef Flow* _create(self, const Packet* p, Decision* out) noexcept nogil
    cdef bint _is_lifted(self, Flow* flow, const Packet* p) noexcept nogil
    cdef void _match_destination(self, Flow* flow, const Packet* p, Decision* out) noexcept nogil
    cdef void _judge_udp(self, const Packet* p, Decision* out) noexcept nogil
    cdef void _read_quic(self, const Packet* p, Decision* out) noexcept nogil
    cdef void _read_hello(self, Flow* flow, const Packet* p, Decision* out) noexcept nogil
    cdef void _read_dtls(self, const Packet* p, Decision* out) noexcept nogil
    cdef void _add_fragment(self, Flow* flow, const Fragment* piece, const Packet* p, Decision* out) noexcept nogil
    cdef void _key_of_hello(self, const Packet* p, const Fragment* piece, bint whole, Packet* key) noexcept nogil
    cdef bint _begin_quic_anew(self, Flow* flow, const Packet* p) noexcept nogil
    cdef bint _reopen(self, Flow* flow, uint32_t isn) noexcept nogil
    cdef void _begin_anew(self, Flow* flow, uint32_t base) noexcept nogil
    cdef void _await(self, Flow* flow, const Packet* p, Decision* out) noexcept nogil
    cdef void _prove(self, Flow* flow, const Packet* p) noexcept nogil
    cdef void _adopt(self, Flow* flow, const Packet* p) noexcept nogil
    cdef void _restart(self, Flow* flow, const Packet* p) noexcept nogil
    cdef void _read(self, Flow* flow, const Packet* p, Decision* out) noexcept nogil
    cdef void _look_up(self, Flow* flow, const Packet* p, int64_t at, int64_t expected, uint32_t first,
                       Decision* out) noexcept nogil
    cdef bint _is_same_name(self, const Finding* a, const Finding* b) noexcept nogil
    cdef void _await_ech(self, Flow* flow, uint8_t proto, const uint8_t* host, size_t size,
                         Around* around) noexcept nogil
    cdef bint _hello_end(self, Flow* flow, const Packet* p, uint8_t proto, const Finding* f,
                         Match* found) noexcept nogil
    cdef bint _is_new(self, Flow* flow, const Finding* f) noexcept nogil
    cdef void _note(self, Flow* flow, uint8_t proto, uint8_t ech, const Match* found,
                    uint32_t host_at, uint32_t host_size, uint32_t target_at, uint32_t target_size,
                    bint has_target, Decision* out) noexcept nogil
    cdef void _block(self, Flow* flow, const Packet* p, uint8_t proto, const Match* found,
                     uint8_t head, int64_t expected, Decision* out) noexcept nogil
    cdef uint32_t _acknowledge(self, Flow* flow, const Packet* p, int64_t at) noexcept nogil
    cdef void _bury(self, Flow* flow, uint32_t first, uint32_t last, bint unsaid, bint silent) noexcept nogil
    cdef void _bury_streams(self, Flow* flow, const Packet* p) noexcept nogil
    cdef void _bury_unknown(self, Flow* flow, uint32_t at, uint8_t state) noexcept nogil
    cdef void _bury_stream(self, Flow* flow, uint8_t kind, int64_t at, int64_t frontier) noexcept nogil
    cdef void _answer(self, Flow* flow, const Packet* p, Decision* out) noexcept nogil
    cdef bint _may_answer(self, const Packet* p) noexcept nogil
    cdef bint _may_answer_quic(self) noexcept nogil
    cdef void _again(self, Flow* flow, const Packet* p, Decision* out) noexcept nogil
    cdef void _note_policy(self, Flow* flow, const Packet* p, uint8_t policy, Decision* out) noexcept nogil
    cdef void _refuse(self, Flow* flow, const Packet* p, uint8_t policy, Decision* out) noexcept nogil
    cdef void _release(self, Flow* flow, Decision* out) noexcept nogil
