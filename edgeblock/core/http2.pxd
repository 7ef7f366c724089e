# HTTP/2 without TLS (prior knowledge, or after an upgrade): client bytes in, header blocks out, one a request.
# The blocks of a connection are kept in order, because HPACK's table (RFC 7541) is the sum of all that went before.

from libc.stdint cimport uint8_t, uint32_t

from edgeblock.core.cursor cimport Cursor
from edgeblock.core.text cimport Text
from edgeblock.core.tls cimport Outcome

cdef enum:
    MAX_BLOCKS = 64 * 1024     # header blocks of one connection; beyond it the connection is read no further

cdef struct Http2:             # all zero stands behind the empty line of the preface's "PRI * HTTP/2.0"
    uint8_t preface            # bytes of "SM\r\n\r\n" seen
    uint8_t header_size        # bytes of the frame header gathered
    uint8_t kind
    uint8_t flags
    uint8_t prefix             # bytes before the fragment still to come: pad length, priority
    uint8_t padded             # the next byte is the pad length
    uint8_t open               # a block is being gathered
    uint32_t length            # left in the frame
    uint32_t padding
    uint32_t requests          # header blocks completed
    uint32_t block_at          # where in `blocks` the open block's size stands
    Text blocks                # for each block four bytes of size, big-endian, and the fragments joined

cdef Outcome read_http2(Http2* h, Cursor* c) noexcept nogil   # FOUND: one more block is complete
cdef bint copy_http2(Http2* copy, const Http2* h) noexcept nogil
cdef bint same_http2(const Http2* a, const Http2* b) noexcept nogil
cdef void free_http2(Http2* h) noexcept nogil
cdef object last_request(const Http2* h)                      # (host, path, method) of the newest block, or None
