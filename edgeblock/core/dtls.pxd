# DTLS: a client's datagram in, the pieces of its ClientHello messages out; no state, no memory.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from edgeblock.core.cursor cimport Cursor

cdef struct Fragment:          # of a ClientHello
    uint16_t message           # the message's number: the second hello's is another
    uint32_t total             # bytes of the whole message behind its header
    uint32_t offset            # of this piece of them
    uint32_t size
    const uint8_t* data

cdef bint may_hold_hello(const uint8_t* data, size_t size) noexcept nogil      # cheap, before any state is made
# The next piece, or False: there is no more. `record` and `rest` are zeroed and set to the datagram at first.
cdef bint next_fragment(Cursor* rest, Cursor* record, Fragment* out) noexcept nogil
