# How long a request's body is: what its framing fields say, read in every way in which deployed servers read them.
#
# In: the texts of Content-Length and Transfer-Encoding, and what the request line says. Out: a few framings, the most
# usual first. Never here: bytes of a body, more than MAX_FRAMINGS ways.

from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    MAX_FRAMINGS = 4       # ways to frame one body; a head with more is an overflow

cdef enum FramingKind:
    FRAMING_NONE = 0       # no body, or one that the server does not read
    FRAMING_LENGTH = 1
    FRAMING_CHUNKED = 2
    FRAMING_CHUNK = 3      # one chunk, in the middle of a body: its size can be read in more than one way
    FRAMING_TRAILER = 4    # behind the last chunk

cdef struct Framing:
    uint8_t kind           # a FramingKind
    uint64_t length

cdef struct Framings:      # all zero: no body
    uint8_t count          # ways a server may frame the body: the first is followed, the others are for forks
    uint8_t crowded        # there were more ways than there is room for
    uint8_t unsure         # a framing field is there that some servers do not see, or do not take
    Framing ways[MAX_FRAMINGS]

cdef void add_framing(Framings* f, uint8_t kind, uint64_t length, bint first) noexcept nogil
cdef void add_lengths(Framings* f, const uint8_t* text, size_t size) noexcept nogil
cdef void add_encoding(Framings* f, const uint8_t* text, size_t size) noexcept nogil
cdef void settle_framings(Framings* f, bint bodiless, bint tunnel, bint old) noexcept nogil
cdef uint64_t digest_framings(uint64_t digest, const Framings* f) noexcept nogil
cdef bint same_framings(const Framings* a, const Framings* b) noexcept nogil
