# One way to read a stream: a protocol reader's place in it.
#
# In: what a message begins with, another reading. Out: readings, copied where bytes conflict, and whether two are the
# same. Never here: which bytes are read, how many readings there may be, what they have found.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memset

from edgeblock.core.http cimport Http, is_lost
from edgeblock.core.http2 cimport Http2
from edgeblock.core.prefix cimport Prefix
from edgeblock.core.tls cimport Outcome, Tls

cdef enum ReadingKind:
    READ_ANY = 0               # at the start of a message of any protocol
    READ_TLS = 1
    READ_HTTP = 2
    READ_HTTP2 = 3
    READ_HELLO = 4             # bare handshake bytes: QUIC's CRYPTO stream
    READ_PREFIX = 5            # what may stand before a message: a PROXY header, SOCKS
    READ_DTLS = 6              # READ_HELLO of DTLS, where a hello has a cookie

cdef union Opening:            # of READ_PREFIX its place in a prefix, of what carries a ClientHello that
    Tls tls
    Prefix prefix

cdef struct Reading:
    Reading* next
    uint8_t kind               # a ReadingKind
    uint8_t again              # a whole ClientHello was read, and the server may ask for another
    uint8_t aside              # a ClientHello in the midst of something else, which another reading goes on with
    uint32_t place             # in the piece that is being read: how far this reading has come
    int64_t began              # offset of the message that is being read
    Opening opening
    Http http                  # of this kind alone, or empty: its memory is freed with the reading
    Http2 http2

cdef Reading* copy_reading(const Reading* r) noexcept nogil           # NULL without memory
cdef Reading* copy_readings(const Reading* r) noexcept nogil          # all of a list, in any order
cdef void free_readings(Reading* r) noexcept nogil                    # all of a list
cdef bint same_reading(const Reading* a, const Reading* b) noexcept nogil
cdef uint64_t digest_of(const Reading* r) noexcept nogil              # the same for readings that are the same
cdef uint32_t weight(const Reading* r) noexcept nogil                 # bytes of its memory
# What stands here is none of the protocols that it began like: from here on it looks for a request or a ClientHello.
cdef void lose_way(Reading* r) noexcept nogil
cdef Outcome begin_http2(Reading* r) noexcept nogil                   # behind "PRI * HTTP/2.0" and "SM"


cdef inline Reading* new_reading(uint8_t kind) noexcept nogil:
    # The rest begins with what it is for: most readings never have it.
    cdef Reading* r = <Reading*>malloc(sizeof(Reading))
    if r != NULL:
        r.next = NULL
        r.kind = kind
        r.again = r.aside = 0
        r.place = 0
        r.began = 0
        memset(&r.http, 0, sizeof(Http))
        if kind != READ_ANY:
            memset(&r.opening.tls, 0, sizeof(Tls))
    return r


cdef inline bint is_idle(const Reading* r) noexcept nogil:
    # It has lost its way and may never find a message; what it holds is of no use to anybody else.
    return r.kind == READ_HTTP and is_lost(&r.http)


cdef inline bint is_fresh(const Reading* r) noexcept nogil:
    # Behind a ClientHello, and nothing of what follows has come.
    cdef const Tls* t = &r.opening.tls
    return t.header_size == 0 and t.hello.phase == 0 and t.hello.need <= 1 and t.hello.value == 0


cdef inline uint32_t weights(const Reading* r) noexcept nogil:
    # Of a list.
    cdef uint32_t total = 0
    while r != NULL:
        total += weight(r)
        r = r.next
    return total
