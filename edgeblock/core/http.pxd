# HTTP/1.x client bytes in, one request head at a time out, bodies passed over.
#
# Like the TLS reader it takes any number of bytes at a time and keeps its place in a struct that can be copied
# (copy_http), so that a stream with conflicting bytes can be read several ways at once.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from edgeblock.core.cursor cimport Cursor
from edgeblock.core.text cimport Text
from edgeblock.core.tls cimport Outcome

cdef enum:
    # nginx stops at 8 kB a line and 32 kB a head, Apache at 8 kB a line; hosts were seen behind 60 kB of padding.
    MAX_HEAD = 128 * 1024
    MAX_HOSTS = 16         # Host lines of one head; servers refuse the second, lenient ones take the first or last
    MAX_FRAMINGS = 4       # ways to frame one body; a head with more is an overflow

cdef enum FramingKind:
    FRAMING_NONE = 0
    FRAMING_LENGTH = 1
    FRAMING_CHUNKED = 2

cdef struct Framing:       # how long the body is
    uint8_t kind
    uint64_t length

cdef struct Http:          # all zero is the start of a request
    uint8_t phase
    uint8_t field_size     # bytes of the field name gathered so far; of the method, in the request line
    uint8_t special        # which field the current line is
    uint8_t head           # the method is HEAD
    uint8_t connect        # the method is CONNECT
    uint8_t preface        # "PRI * HTTP/2.0": what follows is HTTP/2 (RFC 9113, 3.4)
    uint8_t upgrade        # an Upgrade field was seen
    uint8_t host_count     # hosts in `hosts`
    uint8_t authority      # hosts begins with the one of an absolute-form or authority-form target
    uint8_t simple         # no version (HTTP/0.9): 1 when the line is handed out as a whole head, 2 behind that
    uint8_t overlong       # the head is longer than MAX_HEAD and was handed out unfinished
    uint8_t framing_count  # ways a server may frame the body: the first is followed, the others are for forks
    uint8_t crowded        # there were more ways than there is room for
    uint8_t is_http        # the request line is complete, or too much like one to be anything else
    uint32_t head_size     # bytes of this head so far
    uint32_t path_at       # where in `target` the path begins
    uint64_t body          # left of the body or of the chunk
    Framing framings[MAX_FRAMINGS]
    uint8_t field[24]
    Text line              # the request line behind the method, then the value of the current special field
    Text target            # the request target as sent
    Text hosts             # for each host two bytes of size, big-endian, and the bytes, white space trimmed

# FOUND: a head is complete (hosts, target, path_at); the next call goes on with the body. DONE: the request is
# complete, body and all, and the cursor stands at the next message, whatever protocol that is.
cdef Outcome read_http(Http* http, Cursor* c) noexcept nogil
cdef void choose_framing(Http* http, uint8_t index) noexcept nogil
cdef bint pass_over(Http* http, uint64_t size) noexcept nogil      # True: they were body bytes, unseen
cdef uint64_t body_left(const Http* http) noexcept nogil           # body bytes certain to be passed over
cdef bint within_body(const Http* http) noexcept nogil             # behind the head, before the next message
cdef bint copy_http(Http* copy, const Http* http) noexcept nogil
cdef bint same_http(const Http* a, const Http* b) noexcept nogil
cdef void free_http(Http* http) noexcept nogil
cdef bint is_token(uint8_t byte) noexcept nogil
