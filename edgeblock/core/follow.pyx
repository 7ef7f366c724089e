"""One reading through bytes; follow.pxd says what it is."""

from libc.string cimport memset

from edgeblock.core.cursor cimport left
from edgeblock.core.findings cimport NAME_COST, cost_of
from edgeblock.core.reader cimport ASTRAY, DONE, FEED_COST, FOUND, NEED_MORE, Outcome, Reader, Step
from edgeblock.core.readers cimport READ_ANY, reader_at
from edgeblock.core.reading cimport (become, begin_behind, copy_reading, digest_of, end_message, free_readings,
                                     lose_way, lost, new_reading, reader_of, same_reading)


cdef void keep(Kept* after, Reading* r) noexcept nogil:
    # A reading that goes on, unless another stands in the same place already.
    cdef uint64_t digest = 0
    cdef uint32_t i
    if after.count:
        if not after.digested:
            after.digests[0] = digest_of(after.readings[0])
            after.digested = True
        digest = digest_of(r)
        for i in range(after.count):
            if after.digests[i] == digest and same_reading(after.readings[i], r):
                free_readings(r)
                return
    if after.count >= after.most or after.idle >= <uint32_t>MAX_WAYS and lost(r):
        # Of those that have lost their way some are enough: each finds a request that begins in a later line.
        if after.text or lost(r) != ASTRAY:
            after.overflow = 1
        free_readings(r)
        return
    after.digests[after.count] = digest
    after.readings[after.count] = r
    after.count += 1
    after.idle += lost(r) != 0


cdef void follow(Kept* after, Reading* r, Cursor c, int64_t at, bint alone, Findings* out) noexcept nogil:
    # One reading takes one version of one interval; it ends in `after`, or is freed. Where it forks, that which is
    # the farthest behind goes on, so that those that meet again are one again. Alone it stops where a name ends when
    # there was too much work; with others all must come to the end of the interval.
    cdef Reading* todo = r
    cdef const uint8_t* base = c.at
    r.next = NULL
    r.place = 0
    while todo != NULL:
        r = todo
        todo = r.next
        r.next = NULL
        c.at = base + r.place
        _go_on(after, r, &c, base, at, alone, &todo, out)


cdef void _go_on(Kept* after, Reading* r, Cursor* c, const uint8_t* base, int64_t at, bint alone, Reading** todo,
                 Findings* out) noexcept nogil:
    # One reading goes on to the end of the bytes, or to where another is farther behind.
    cdef const Reader* reader
    cdef Outcome outcome
    cdef Step step
    cdef uint32_t names, text
    while True:
        r.place = <uint32_t>(c.at - base)
        if todo[0] != NULL and _gives_way(after, todo, r):
            return
        if after.share < -FORK_SHARE:
            after.overflow = 1
            free_readings(r)
            return
        if after.share <= 0 and alone and left(c) and c.at != base and todo[0] == NULL and after.count == 0:
            after.stopped = 1
            after.stopped_at = at + (c.at - base)
            break
        if r.kind == READ_ANY:
            if left(c) == 0:
                break
            r.began = at + (c.at - base)
            become(r, reader_at[c.at[0]])
        reader = reader_of(r)
        names, text = out.count, out.text.size
        memset(&step, 0, sizeof(Step))
        outcome = reader.read(r.state, c, &step, out)
        after.share -= step.cost
        after.message |= step.message
        after.text |= step.text
        after.overflow |= step.overflow
        if outcome == NEED_MORE:
            break
        if outcome == FOUND:
            r.place = <uint32_t>(c.at - base)
            _found(after, r, &step, todo, names, text, out)
        elif outcome == DONE and not step.succeeded:
            end_message(r)
        elif outcome == DONE:
            if not begin_behind(r, reader.successor, &step, out):
                free_readings(r)
                return
            after.share -= step.cost
        elif reader.begins != NULL and not r.again and not r.aside:
            lose_way(r, &step, out)
            after.share -= step.cost
        else:
            free_readings(r)
            return
    keep(after, r)


cdef void _found(Kept* after, Reading* r, Step* step, Reading** todo, uint32_t names, uint32_t text,
                 Findings* out) noexcept nogil:
    # A reader has come upon names, of which there were so many before; upon a place where servers go different ways;
    # or upon what may be another message in the midst of this one.
    cdef Reading* fork
    cdef uint8_t i
    cdef uint32_t k
    for k in range(names, out.count):
        out.items[k].reading = r.kind
        out.items[k].began += r.began
    if step.again:
        r.again = 1
        after.again = 1
        after.began = r.began
        after.share -= NAME_COST
        return
    if step.head and after.cut_up:
        after.overflow = 1
    after.cut += step.cut
    if step.aside:
        _begin_aside(after, r, step, todo, out)
    elif step.ways:
        for i in range(1, step.ways):
            after.share -= FORK_COST
            fork = copy_reading(r)
            if fork == NULL:
                after.overflow = 1
                break
            reader_of(fork).choose(fork.state, i)
            _queue(after, todo, fork)
        reader_of(r).choose(r.state, 0)
    after.share -= FEED_COST + cost_of(out, names, text, after.share)


cdef void _begin_aside(Kept* after, const Reading* r, Step* step, Reading** todo, Findings* out) noexcept nogil:
    # What stands here may be the start of another message: a reading of its own.
    cdef Reading* fork = new_reading(READ_ANY)
    after.share -= 2 * FORK_COST
    if fork == NULL:
        after.overflow = 1
        return
    fork.aside = 1
    fork.began = r.began
    fork.place = r.place
    if begin_behind(fork, reader_at[step.taken[0]], step, out):
        _queue(after, todo, fork)
    else:
        free_readings(fork)
    after.share -= step.cost


cdef bint _gives_way(Kept* after, Reading** todo, Reading* r) noexcept nogil:
    # To one that is farther behind; or it is another's double, and goes.
    cdef Reading* other = todo[0]
    if other.place < r.place:
        _queue(after, todo, r)
        return True
    while other != NULL and other.place == r.place:
        if same_reading(other, r):
            free_readings(r)
            return True
        other = other.next
    return False


cdef void _queue(Kept* after, Reading** todo, Reading* r) noexcept nogil:
    # By place, the farthest behind first; two that are the same in the same place are one.
    cdef Reading** link = todo
    cdef Reading* other = todo[0]
    cdef int count = 0
    while other != NULL:
        if other.place == r.place and same_reading(other, r):
            free_readings(r)
            return
        count += 1
        other = other.next
    if count >= MAX_WAYS:
        after.overflow = 1
        free_readings(r)
        return
    while link[0] != NULL and link[0].place < r.place:
        link = &link[0].next
    r.next = link[0]
    link[0] = r
