# One way to read a stream: a protocol reader's place in it.
#
# In: what a message begins with, another reading. Out: readings, copied where bytes conflict, and whether two are the
# same. Never here: which bytes are read, how many readings there may be, what they have found, a protocol.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memset

from edgeblock.core.findings cimport Findings
from edgeblock.core.reader cimport STATE_WORDS, Reader, Step
from edgeblock.core.readers cimport READ_ANY, readers

cdef struct Reading:
    Reading* next
    uint8_t kind               # a ReadingKind: the row of its reader
    uint8_t again              # a whole message was read behind which the server may ask for another (TLS)
    uint8_t aside              # a message in the midst of something else, which another reading goes on with
    uint32_t place             # in the piece that is being read: how far this reading has come
    int64_t began              # offset of the message that is being read
    uint64_t[STATE_WORDS] state    # the reader's; of READ_ANY none

cdef Reading* copy_reading(const Reading* r) noexcept nogil           # NULL without memory
cdef Reading* copy_readings(const Reading* r) noexcept nogil          # all of a list, in any order
cdef void free_readings(Reading* r) noexcept nogil                    # all of a list
cdef bint same_reading(const Reading* a, const Reading* b) noexcept nogil
cdef uint64_t digest_of(const Reading* r) noexcept nogil              # the same for readings that are the same
# It goes on as another kind, behind the bytes that `step` has taken; False: that message does not begin so.
# Then the step's cost is what that cost.
cdef bint begin_behind(Reading* r, uint8_t kind, Step* step, Findings* out) noexcept nogil
# What stands here is none of the protocols that it began like: from here on it looks for any message. Cost as above.
cdef void lose_way(Reading* r, Step* step, Findings* out) noexcept nogil


cdef inline const Reader* reader_of(const Reading* r) noexcept nogil:
    return &readers[r.kind]


cdef inline void become(Reading* r, uint8_t kind) noexcept nogil:
    # Of one that holds no memory.
    r.kind = kind
    memset(r.state, 0, readers[kind].size)


cdef inline void end_message(Reading* r) noexcept nogil:
    # The next one may be of any protocol.
    if readers[r.kind].release != NULL:
        readers[r.kind].release(r.state)
    r.kind = READ_ANY


cdef inline Reading* new_reading(uint8_t kind) noexcept nogil:
    cdef Reading* r = <Reading*>malloc(sizeof(Reading))
    if r != NULL:
        r.next = NULL
        r.again = r.aside = 0
        r.place = 0
        r.began = 0
        become(r, kind)
    return r


cdef inline uint8_t lost(const Reading* r) noexcept nogil:
    # LOST or ASTRAY: it may never find a message, and what it holds is of no use to anybody else.
    cdef const Reader* reader = reader_of(r)
    return reader.lost(r.state) if reader.lost != NULL else 0


cdef inline bint is_fresh(const Reading* r) noexcept nogil:
    # Behind a message that may be asked for again, and nothing of what follows has come.
    return r.again and reader_of(r).fresh(r.state)


cdef inline uint64_t body_left(const Reading* r) noexcept nogil:
    cdef const Reader* reader = reader_of(r)
    return reader.body_left(r.state) if reader.body_left != NULL else 0


cdef inline bint within_body(const Reading* r) noexcept nogil:
    cdef const Reader* reader = reader_of(r)
    return reader.within_body != NULL and reader.within_body(r.state)


cdef inline uint32_t weight(const Reading* r) noexcept nogil:
    # Bytes of its memory.
    cdef const Reader* reader = reader_of(r)
    return <uint32_t>sizeof(Reading) + (reader.weigh(r.state) if reader.weigh != NULL else 0)


cdef inline uint32_t weights(const Reading* r) noexcept nogil:
    # Of a list.
    cdef uint32_t total = 0
    while r != NULL:
        total += weight(r)
        r = r.next
    return total
