"""One way to read a stream; reading.pxd says what it is."""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from edgeblock.core.cursor cimport Cursor, cursor
from edgeblock.core.reader cimport NEED_MORE
from edgeblock.core.readers cimport READ_TEXT
from edgeblock.core.text cimport digest_word


cdef void free_readings(Reading* r) noexcept nogil:
    cdef const Reader* reader
    cdef Reading* next_one
    while r != NULL:
        next_one = r.next
        reader = reader_of(r)
        if reader.release != NULL:
            reader.release(r.state)
        free(r)
        r = next_one


cdef Reading* copy_reading(const Reading* r) noexcept nogil:
    cdef const Reader* reader = reader_of(r)
    cdef Reading* copy = <Reading*>malloc(sizeof(Reading))
    if copy == NULL:
        return NULL
    memcpy(copy, r, sizeof(Reading) - sizeof(copy.state) + reader.size)
    copy.next = NULL
    if reader.copy != NULL and not reader.copy(copy.state, r.state):
        free_readings(copy)
        return NULL
    return copy


cdef Reading* copy_readings(const Reading* r) noexcept nogil:
    # All of a list, or NULL.
    cdef Reading* copies = NULL
    cdef Reading* copy
    while r != NULL:
        copy = copy_reading(r)
        if copy == NULL:
            free_readings(copies)
            return NULL
        copy.next = copies
        copies = copy
        r = r.next
    return copies


cdef bint same_reading(const Reading* a, const Reading* b) noexcept nogil:
    if a.kind != b.kind or a.again != b.again or a.aside != b.aside:
        return False
    return a.kind == READ_ANY or a.began == b.began and reader_of(a).same(a.state, b.state)


cdef uint64_t digest_of(const Reading* r) noexcept nogil:
    if r.kind == READ_ANY:
        return 0
    return digest_word(reader_of(r).digest(r.state), <uint64_t>r.began << 8 | r.kind)


cdef bint begin_behind(Reading* r, uint8_t kind, Step* step, Findings* out) noexcept nogil:
    cdef uint8_t[256] taken         # they may stand in the state
    cdef uint8_t size = step.taken_size
    cdef Cursor c = cursor(taken, size)
    if size:
        memcpy(taken, step.taken, size)
    end_message(r)
    become(r, kind)
    memset(step, 0, sizeof(Step))
    return size == 0 or reader_of(r).read(r.state, &c, step, out) == NEED_MORE


cdef void lose_way(Reading* r, Step* step, Findings* out) noexcept nogil:
    cdef uint8_t size = step.taken_size
    if not begin_behind(r, READ_TEXT, step, out) or size == 0:
        reader_of(r).lose(r.state)
