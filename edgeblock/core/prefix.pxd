# What may stand before the first message of a connection: PROXY protocol v2, SOCKS; and where a ClientHello begins.
#
# The reader takes any number of bytes at a time and keeps its place in a struct that can be copied. PROXY v1 is a
# line of text, and the request reader's (core/http.pyx).

from libc.stdint cimport uint8_t, uint16_t

from edgeblock.core.cursor cimport Cursor
from edgeblock.core.reader cimport Outcome, Reader

cdef enum:
    SIGN_SIZE = 6          # the first bytes of a ClientHello in a record: 22, 3, 0 to 4, two of length, 1
    SIGNATURE_SIZE = 12    # of PROXY v2
    MAX_DESTINATION = 255  # RFC 1928, section 5: the size of a name is one byte

cdef struct Sign:          # a ClientHello may have begun: the bytes of it that were seen
    uint8_t size
    uint8_t seen[SIGN_SIZE]

cdef struct Prefix:        # all zero is the start
    uint8_t phase
    uint8_t kind           # of the address
    uint8_t methods        # SOCKS5: ways to authenticate that were offered, a bit each
    uint16_t gap           # bytes to pass over, or to gather
    uint8_t matched        # bytes of PROXY v2's signature
    uint8_t size           # of the destination
    uint8_t destination[MAX_DESTINATION]

# How many of these bytes there are up to the end of a sign, or 0 where none ends in them.
cdef size_t seek_hello(Sign* s, const uint8_t* data, size_t size) noexcept nogil
# FOUND: a destination is complete, a name or an address in text. DONE: the cursor stands at the first message.
# NOT_MINE: what was matched is the start of the signature, and nothing else was taken, or this is no prefix at all.
cdef Outcome read_prefix(Prefix* p, Cursor* c) noexcept nogil
cdef Reader prefix_reader() noexcept nogil
