"""Which bytes stay blocked when a blocked connection's ports come round again.

Comes in: of each stream that had begun there, where its bytes begin and which byte the server cannot have. Goes out:
whether bytes touch one of these ranges. Never here: a stream's bytes, a clock, an allocation without a cap.

Why a range is enough, and nothing around it. A server reads a stream in order. What was dropped it never got, so the
next byte that it reads of a blocked stream lies in the range: all that the client has sent of it, up to the first
byte that did not pass. As long as no packet passes that touches the range, nothing behind it is read either, whatever
the client sends there. So a new connection may begin right behind it, or before it, and is judged for itself.

Of more than MAX_RANGES the two that are closest become one, with what lies between: that blocks too much, not too
little.
"""

from libc.stdlib cimport free, realloc
from libc.string cimport memmove


cdef inline uint32_t _gap(const Range* a, const Range* b) noexcept nogil:
    # Numbers between the end of one and the beginning of the next; they go round.
    cdef uint32_t step = b.first - a.first, size = a.last - a.first
    return step - size if step > size else 0


cdef void _join(Range* a, const Range* b) noexcept nogil:
    # `b` begins in `a`, or behind it.
    if b.last - a.first > a.last - a.first:
        a.last = b.last
    a.unsaid = a.unsaid and b.unsaid
    a.silent = a.silent and b.silent


cdef void _remove(Blocked* b, uint32_t which) noexcept nogil:
    b.count -= 1
    memmove(b.ranges + which, b.ranges + which + 1, (b.count - which) * sizeof(Range))


cdef void _join_closest(Blocked* b) noexcept nogil:
    cdef uint32_t i, best = 0
    cdef uint32_t least = 0xFFFFFFFF, gap
    cdef Range joined
    for i in range(b.count):
        gap = _gap(&b.ranges[i], &b.ranges[(i + 1) % b.count])
        if gap < least:
            least = gap
            best = i
    i = (best + 1) % b.count
    joined = b.ranges[best]
    _join(&joined, &b.ranges[i])
    b.ranges[best] = joined
    _remove(b, i)


cdef bint add_range(Blocked* b, uint32_t first, uint32_t last, bint unsaid, bint silent) noexcept nogil:
    cdef Range* ranges
    cdef uint32_t at = 0, room
    cdef Range new
    new.first, new.last, new.unsaid, new.silent = first, last, unsaid, silent
    for at in range(b.count):
        if first - b.ranges[at].first <= b.ranges[at].last - b.ranges[at].first:
            _join(&b.ranges[at], &new)
            return True
        if b.ranges[at].first - first <= last - first:
            _join(&new, &b.ranges[at])
            b.ranges[at] = new
            b.ranges[at].first = first
            return True
    if b.count == b.room:
        room = b.room * 2 if b.room else 4
        if b.room == MAX_RANGES:
            _join_closest(b)
        else:
            ranges = <Range*>realloc(b.ranges, room * sizeof(Range))
            if ranges == NULL:
                return False
            b.ranges = ranges
            b.room = <uint16_t>room
    at = 0
    while at < b.count and b.ranges[at].first < first:
        at += 1
    memmove(b.ranges + at + 1, b.ranges + at, (b.count - at) * sizeof(Range))
    b.ranges[at] = new
    b.count += 1
    return True


cdef bint covers(const Blocked* b, uint32_t seq, uint32_t size, bint proven) noexcept nogil:
    """Whether a byte from `seq` on, `size` of them and at least one, is in a range."""
    cdef const Range* r
    cdef uint32_t i
    for i in range(b.count):
        r = &b.ranges[i]
        if (seq - r.first <= r.last - r.first or r.first - seq < size) and not (proven and r.silent):
            return True
    return False


cdef bint goes_on_with(const Blocked* b, uint32_t seq, uint32_t reach) noexcept nogil:
    cdef const Range* r
    cdef uint32_t i
    for i in range(b.count):
        r = &b.ranges[i]
        if seq - r.first <= r.last - r.first + reach and not r.silent:
            return True
    return False


cdef void extend(Blocked* b, uint32_t seq, uint32_t size) noexcept nogil:
    """The client goes on with a stream: what he said last is in the range too, as it was not let through."""
    cdef Range* r
    cdef uint32_t i
    for i in range(b.count):
        r = &b.ranges[i]
        if seq - r.first <= r.last - r.first and seq + size - r.first > r.last - r.first:
            r.last = seq + size
            r.unsaid = r.silent = 0


cdef bint takes_syn(Blocked* b, uint32_t first) noexcept nogil:
    """Whether a stream may begin at `first`, for a SYN. One of which no byte has come begins anew with it."""
    cdef uint32_t i
    for i in range(b.count):
        if b.ranges[i].unsaid and b.ranges[i].first == first:
            if b.ranges[i].last == first:
                _remove(b, i)
                break
    return not covers(b, first, 1, False)


cdef uint32_t room_of(const Blocked* b) noexcept nogil:
    return <uint32_t>(b.room * sizeof(Range))


cdef void free_ranges(Blocked* b) noexcept nogil:
    free(b.ranges)
    b.ranges = NULL
    b.count = b.room = 0
