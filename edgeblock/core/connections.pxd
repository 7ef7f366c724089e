# Whose QUIC packet is it: a datagram in, one connection after the other out, each with the frames that its keys open.
#
# A connection is a flow of the table, keyed by the server's address and port and the connection id that the client
# chose for its first packet: so a server knows it, whatever address and port its packets come from.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from edgeblock.core.cursor cimport Cursor
from edgeblock.core.flow cimport Flow, FlowTable, Peer
from edgeblock.core.packet cimport Packet
from edgeblock.core.quic cimport Initial, QuicReader

cdef enum:
    MAX_TRIES = 64             # of keys and packet numbers, for one datagram: 0.7 µs each
    MAX_VISITS = 256           # connections looked at to find some of these: 0.1 µs each

cdef struct QuicLimits:
    uint32_t connections       # between the same ends, whose keys are tried on a packet that its own id does not open
    uint32_t derivations       # of keys, for one datagram
    uint32_t failures          # tries of further connections' keys, of this worker in one second
    uint32_t worker_derivations    # of keys, of this worker in one second

cdef struct Budget:
    double since
    uint32_t spent

cdef struct Datagram:          # what is left of it, and of what may be spent on it
    Cursor rest
    uint32_t seen              # bits of quic.Seen
    uint32_t derivations
    uint32_t tries
    uint32_t created           # connections that began with it


cdef class Connections:
    cdef QuicReader* reader
    cdef FlowTable table
    cdef QuicLimits limits
    cdef double now            # the caller's clock, for the datagram in hand
    cdef Budget derivations
    cdef Budget failures
    cdef Peer** heads          # of lists; several may have one
    cdef uint64_t mask
    cdef uint64_t turn         # counts packets
    cdef uint8_t secret[16]

    cdef void begin(self, Datagram* d, const uint8_t* data, size_t size, double now) noexcept nogil
    # The connection of the next Initial that opens, and its frames, to be read before the next call; NULL: no more.
    cdef Flow* next_opened(self, const Packet* p, Datagram* d, Cursor* frames) noexcept nogil
    # Its frames into the window of the connection; False: no server would read on.
    cdef bint take_frames(self, Flow* flow, Cursor* frames, uint32_t cap, uint32_t* seen) noexcept nogil
    cdef void begin_anew(self, Flow* flow) noexcept nogil
    # Whether bytes that are still to come could make a name of what this connection's server may have.
    cdef void settle(self, Flow* flow, bint waits) noexcept nogil

    cdef Flow* _find(self, const Packet* p, Datagram* d, const Initial* packet, Cursor* frames) noexcept nogil
    cdef Flow* _open_new(self, const Packet* p, Datagram* d, const Initial* packet, const Packet* key,
                         const uint64_t* hashes, Cursor* frames, uint32_t* refused) noexcept nogil
    cdef Flow* _search(self, uint64_t hash, bint strict, Datagram* d, const Initial* packet, Cursor* frames,
                       uint32_t* refused) noexcept nogil
    cdef bint _try(self, Flow* flow, bint own, Datagram* d, const Initial* packet, Cursor* frames,
                   uint32_t* refused) noexcept nogil
    cdef bint _may_derive(self, Datagram* d, uint32_t* refused) noexcept nogil
    cdef void _heard(self, Flow* flow, const uint64_t* hashes, bint own, const Initial* packet,
                     uint32_t* refused) noexcept nogil
    cdef void _key_of(self, const Packet* p, const Initial* packet, Packet* key) noexcept nogil
    cdef void _share(self, const Packet* p, const Initial* packet, uint64_t* hashes) noexcept nogil
    cdef uint64_t _hash(self, const uint8_t* data, size_t size) noexcept nogil
    cdef void _link(self, Peer* peer, Flow* flow, uint64_t hash) noexcept nogil
    cdef Peer* _first(self, uint64_t hash) noexcept nogil
