# HTTP/2 without TLS (prior knowledge, or after an upgrade): client bytes in, one header block at a time out.

from libc.stdint cimport uint8_t, uint32_t

from edgeblock.core.cursor cimport Cursor
from edgeblock.core.hpack cimport Hpack
from edgeblock.core.reader cimport Outcome, Reader

cdef struct Http2:             # all zero stands behind the empty line of the preface's "PRI * HTTP/2.0"
    uint8_t preface            # bytes of "SM\r\n\r\n" seen
    uint8_t header_size        # bytes of the frame header gathered
    uint8_t kind
    uint8_t flags
    uint8_t prefix             # bytes before the fragment still to come: pad length, priority
    uint8_t padded             # the next byte is the pad length
    uint8_t open               # a block is being read
    uint32_t length            # left in the frame
    uint32_t padding
    Hpack hpack                # of the block that is being read, or was last

cdef Outcome read_http2(Http2* h, Cursor* c) noexcept nogil   # FOUND: one more block is complete, in h.hpack
cdef bint is_request(const Http2* h) noexcept nogil           # that block is one, as far as it could be decoded
cdef Reader http2_reader() noexcept nogil
