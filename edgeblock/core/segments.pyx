"""The bytes that are kept of one stream; segments.pxd says what that is.

Source: RFC 9293 section 3.10.7.4 (which copy is kept is the receiver's choice), RFC 6093 (urgent data).
"""

from libc.stdint cimport INT64_MIN
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

cdef enum:
    MAX_EDGES = 4096           # pieces a stream is cut into; one that came in more is an overflow if bytes conflict
    MAX_TAIL = 128             # edges that are not sorted yet
    GUIDE_EVERY = 32           # runs that are walked over to the right one: 0.1 us


cdef void close_segments(Segments* s) noexcept nogil:
    cdef Run* run
    cdef Copy* copy
    while s.runs != NULL:
        run = s.runs
        s.runs = run.next
        free(run.data - run.head)
        free(run)
    while s.copies != NULL:
        copy = s.copies
        s.copies = copy.next
        free(copy)
    free(s.guides)
    free(s.edges)
    memset(s, 0, sizeof(Segments))


# ---- what is asked


cdef Run* run_at(Segments* s, int64_t at) noexcept nogil:
    """The last run that begins at this offset or before it, or NULL.

    Guides stand at some of the runs, in their order. Where none was near the walk leaves one for the next.
    """
    cdef Run* run = s.recent if s.recent != NULL and s.recent.at <= at else NULL
    cdef uint32_t low = 0, steps = 0
    if s.guide_count:
        low = _guide_behind(s, at)
        if low and (run == NULL or s.guides[low - 1].at > run.at):
            run = s.guides[low - 1].run
    if run == NULL:
        run = s.runs
        if run == NULL or run.at > at:
            return NULL
    while run.next != NULL and run.next.at <= at:
        run = run.next
        steps += 1
        if steps % GUIDE_EVERY == 0:
            low += _add_guide(s, low, run)
    return run


cdef int64_t kept_end(Segments* s, int64_t at) noexcept nogil:
    cdef const Run* run = run_at(s, at)
    while run != NULL and run.at <= at:
        at = max(at, run.at + <int64_t>run.size)
        run = run.next
    return at


cdef bint is_kept_beyond(const Segments* s, int64_t at) noexcept nogil:
    cdef const Run* run = s.recent if s.recent != NULL else s.runs
    while run != NULL:
        if run.at + <int64_t>run.size > at:
            return True
        run = run.next
    return False


cdef bint is_kept_within(const Segments* s, int64_t at, int64_t end) noexcept nogil:
    cdef const Run* run = s.runs
    while run != NULL:
        if run.at + <int64_t>run.size > at and run.at < end:
            return True
        run = run.next
    return False


cdef bint is_run_within(const Segments* s, int64_t at, int64_t end) noexcept nogil:
    cdef const Run* run = s.runs
    while run != NULL:
        if at < run.at and run.at < end:
            return True
        run = run.next
    return False


cdef bint view_interval(Segments* s, const Run* run, int64_t at, Interval* out) noexcept nogil:
    cdef const Copy* copy = s.copies
    cdef uint32_t size, i
    cdef bint known
    out.urgent = False
    out.stop = run.at + run.size
    while copy != NULL:
        if copy.at > at:
            if copy.at < out.stop:
                out.stop = copy.at
        elif copy.at + copy.size > at and copy.at + copy.size < out.stop:
            out.stop = copy.at + copy.size
        copy = copy.next
    _sort_edges(s)
    i = _edge_behind(s, at)
    if i < s.edge_count and s.edges[i] < out.stop:
        out.stop = s.edges[i]
    for i in range(s.urgent_count):
        if s.urgent[i] == at:
            out.urgent = True
            if at + 1 < out.stop:
                out.stop = at + 1
        elif s.urgent[i] > at and s.urgent[i] < out.stop:
            out.stop = s.urgent[i]
    size = <uint32_t>(out.stop - at)
    out.count = 1
    out.versions[0] = run.data + (at - run.at)
    copy = s.copies
    while copy != NULL:
        if copy.at <= at and at < copy.at + copy.size:
            known = False
            for i in range(out.count):
                if memcmp(out.versions[i], copy.data + (at - copy.at), size) == 0:
                    known = True
                    break
            if not known:
                out.versions[out.count] = copy.data + (at - copy.at)
                out.count += 1
        copy = copy.next
    return not s.edges_lost


cdef bint is_doubtful(const Segments* s, int64_t at) noexcept nogil:
    # Whether there is more than one way to read the bytes from here on.
    cdef const Copy* copy = s.copies
    cdef int i
    while copy != NULL:
        if copy.at + copy.size > at:
            return True
        copy = copy.next
    for i in range(s.urgent_count):
        if s.urgent[i] >= at:
            return True
    return False


# ---- bytes come


cdef inline void _note(Change* change, int64_t at) noexcept nogil:
    # There the bytes are not the only ones any more.
    cdef uint32_t i
    for i in range(change.ranges):
        if change.begin[i] <= at and at < change.end[i] and at < change.at[i]:
            change.at[i] = at
            change.any = 1


cdef bint add_first(Segments* s, int64_t at, const uint8_t* data, size_t size) noexcept nogil:
    """What add_piece comes to where there is nothing yet, and room."""
    s.recent = _new_run(s, at, data, size, NULL)
    return s.recent != NULL


cdef void add_piece(Segments* s, int64_t at, const uint8_t* data, size_t size, Change* change) noexcept nogil:
    """Keeps what is new or different in `size` bytes at offset `at`."""
    cdef Run* run
    cdef int64_t end = at + <int64_t>size, stop
    if s.runs != NULL:
        _add_edge(s, at, change)
        _add_edge(s, end, change)
    run = run_at(s, at)
    while at < end:
        while run != NULL and run.next != NULL and run.next.at <= at:
            run = run.next
        if run != NULL and at < run.at + run.size:
            stop = min(run.at + <int64_t>run.size, end)
            _compare(s, run, at, data, <size_t>(stop - at), change)
        else:
            stop = _end_of_gap(s, run, end)
            if not _add_run(s, &run, at, data, <size_t>(stop - at), change):
                break
        data += stop - at
        at = stop
    s.recent = run


cdef UrgentOutcome add_urgent_byte(Segments* s, int64_t at) noexcept nogil:
    cdef int i
    for i in range(s.urgent_count):
        if s.urgent[i] == at:
            return URGENT_KNOWN
    if s.urgent_count == MAX_URGENT:
        return URGENT_LOST
    s.urgent[s.urgent_count] = at
    s.urgent_count += 1
    return URGENT_ADDED


cdef inline int64_t _end_of_gap(const Segments* s, const Run* before, int64_t end) noexcept nogil:
    cdef const Run* behind = before.next if before != NULL else s.runs
    return end if behind == NULL or behind.at > end else behind.at


cdef bint _add_run(Segments* s, Run** place, int64_t at, const uint8_t* data, size_t size,
                   Change* change) noexcept nogil:
    # First copies of bytes between two runs, joined to those that they meet. `place` is the run before them, and
    # becomes the one that has them. Of two runs that become one the shorter is copied: a client who sends the last
    # byte first buys no copy of all others with each.
    cdef Run* before = place[0]
    cdef Run* behind = before.next if before != NULL else s.runs
    cdef bint joins = before != NULL and before.at + before.size == at
    cdef Run* run
    cdef int64_t floor
    if joins:
        _add_edge(s, at, change)
    while not has_room(s, size, change.cap, change.others):
        if behind == NULL or not _drop_far(s, at, change):
            change.dropped += size
            return False
        behind = before.next if before != NULL else s.runs
    if behind != NULL and behind.at != at + <int64_t>size:
        behind = NULL
    if behind != NULL:
        _add_edge(s, behind.at, change)
    if joins and behind != NULL and behind.size > before.size:
        if not _make_front(s, behind, size + before.size, size + before.size):
            return False
        _put_front(behind, data, size)
        _put_front(behind, before.data, before.size)
        before.data, behind.data = behind.data, before.data
        before.head, behind.head = behind.head, before.head
        before.room, behind.room = behind.room, before.room
        before.size = behind.size
        _join(s, before, behind)
    elif joins:
        if not _grow(s, before, data, size):
            return False
        if behind != NULL and _grow(s, before, behind.data, behind.size):
            _join(s, before, behind)
    elif behind != NULL:
        floor = before.at + <int64_t>before.size if before != NULL else change.floor
        if not _make_front(s, behind, size, <size_t>(behind.at - floor)):
            return False
        _move_guide(s, behind, at, False)
        _put_front(behind, data, size)
        behind.at = at
        place[0] = behind
    else:
        run = _new_run(s, at, data, size, before)
        if run == NULL:
            return False
        place[0] = run
    _note(change, at)
    return True


cdef void _join(Segments* s, Run* run, Run* behind) noexcept nogil:
    # The bytes of `behind` are part of the run before it.
    run.next = behind.next
    _move_guide(s, behind, 0, True)
    _free_run(s, behind)


cdef void _compare(Segments* s, const Run* run, int64_t at, const uint8_t* data, size_t size,
                   Change* change) noexcept nogil:
    # Another copy of bytes that are there, kept whole: a server takes or leaves it between edges, not byte by byte.
    cdef Copy* copy
    if memcmp(run.data + (at - run.at), data, size) == 0:
        return
    copy = s.copies
    while copy != NULL:
        # Only the very same range: the same bytes inside a longer copy are another combination with its neighbours.
        if copy.at == at and copy.size == size and memcmp(copy.data, data, size) == 0:
            return
        copy = copy.next
    if s.copy_count == MAX_COPIES or s.bytes + change.others + size + sizeof(Copy) > change.cap:
        change.overflow = 1
        return
    copy = <Copy*>malloc(sizeof(Copy) + size)
    if copy == NULL:
        change.overflow = 1
        return
    copy.at = at
    copy.size = <uint32_t>size
    copy.data = <uint8_t*>copy + sizeof(Copy)
    memcpy(copy.data, data, size)
    copy.next = s.copies
    s.copies = copy
    s.copy_count += 1
    s.bytes += <uint32_t>(sizeof(Copy) + size)
    _note(change, at)


# ---- runs, and their memory


cdef Run* _new_run(Segments* s, int64_t at, const uint8_t* data, size_t size, Run* before) noexcept nogil:
    # Behind the run before; NULL without memory. The first piece gets just its room, since most flows have one.
    cdef Run* run = <Run*>malloc(sizeof(Run))
    if run == NULL:
        return NULL
    run.data = <uint8_t*>malloc(size)
    if run.data == NULL:
        free(run)
        return NULL
    memcpy(run.data, data, size)
    run.at = at
    run.size = run.room = <uint32_t>size
    run.head = 0
    run.next = before.next if before != NULL else s.runs
    if before != NULL:
        before.next = run
    else:
        s.runs = run
    _hold(s, sizeof(Run) + <int64_t>size)
    return run


cdef inline void _free_run(Segments* s, Run* run) noexcept nogil:
    _hold(s, -<int64_t>sizeof(Run) - run.head - run.room)
    free(run.data - run.head)
    free(run)


cdef inline void _hold(Segments* s, int64_t more) noexcept nogil:
    # Memory of runs.
    s.bytes += <uint32_t>more
    s.run_bytes += <uint32_t>more


cdef bint _grow(Segments* s, Run* run, const uint8_t* data, size_t size) noexcept nogil:
    # A run that goes on to grow doubles.
    cdef size_t room
    cdef uint8_t* grown
    if run.size + size > run.room:
        room = max(<size_t>run.room * 2, run.size + size)
        grown = <uint8_t*>realloc(run.data - run.head, run.head + room)
        if grown == NULL:
            return False
        _hold(s, <int64_t>room - run.room)
        run.data = grown + run.head
        run.room = <uint32_t>room
    memcpy(run.data + run.size, data, size)
    run.size += <uint32_t>size
    return True


cdef bint _make_front(Segments* s, Run* run, size_t needed, size_t gap) noexcept nogil:
    # Room before a run; no more than `gap` bytes can ever come there.
    cdef size_t head
    cdef uint8_t* block
    if run.head >= needed:
        return True
    head = max(needed, min(<size_t>run.size, gap))
    block = <uint8_t*>malloc(head + run.size)
    if block == NULL:
        return False
    memcpy(block + head, run.data, run.size)
    free(run.data - run.head)
    _hold(s, <int64_t>(head + run.size) - run.head - run.room)
    run.data = block + head
    run.head = <uint32_t>head
    run.room = run.size
    return True


cdef void _put_front(Run* run, const uint8_t* data, size_t size) noexcept nogil:
    run.head -= <uint32_t>size
    run.room += <uint32_t>size
    run.size += <uint32_t>size
    run.data -= size
    memcpy(run.data, data, size)


cdef bint _drop_far(Segments* s, int64_t at, Change* change) noexcept nogil:
    # Makes room: the bytes farthest ahead of all readings go first, never those before `at`; an eighth of the cap
    # at a time, so that a client who keeps the window full does not buy a walk with every byte.
    cdef Run* run = s.runs
    cdef Run* before = NULL
    cdef Run* gone
    cdef uint32_t kept = 0, cap = change.cap
    if s.run_bytes <= cap - cap // 8:
        return False
    while run != NULL:
        kept += <uint32_t>sizeof(Run) + run.head + run.room
        if run.at > at and kept > cap - cap // 4:
            break
        before = run
        run = run.next
    if run == NULL:
        return False
    s.guide_count = _guide_behind(s, run.at - 1)
    if before == NULL:
        s.runs = NULL
    else:
        before.next = NULL
    while run != NULL:
        gone = run
        run = gone.next
        change.dropped += gone.size
        _free_run(s, gone)
    return True


# ---- guides


cdef uint32_t _guide_behind(const Segments* s, int64_t at) noexcept nogil:
    # Index of the first guide beyond `at`.
    cdef uint32_t low = 0, high = s.guide_count, middle
    while low < high:
        middle = (low + high) // 2
        if s.guides[middle].at <= at:
            low = middle + 1
        else:
            high = middle
    return low


cdef uint32_t _add_guide(Segments* s, uint32_t place, Run* run) noexcept nogil:
    # Returns how many were added. Without memory the next walk is longer.
    cdef Guide* grown
    cdef uint32_t room
    if s.guide_count == s.guide_room:
        room = s.guide_room * 2 if s.guide_room else 16
        grown = <Guide*>realloc(s.guides, room * sizeof(Guide))
        if grown == NULL:
            return 0
        s.bytes += <uint32_t>((room - s.guide_room) * sizeof(Guide))
        s.guides = grown
        s.guide_room = room
    memmove(s.guides + place + 1, s.guides + place, (s.guide_count - place) * sizeof(Guide))
    s.guides[place].at = run.at
    s.guides[place].run = run
    s.guide_count += 1
    return 1


cdef void _move_guide(Segments* s, const Run* run, int64_t to, bint gone) noexcept nogil:
    # The run will begin at `to`, or be gone.
    cdef uint32_t place
    if s.guide_count == 0:
        return
    place = _guide_behind(s, run.at)
    if place == 0 or s.guides[place - 1].run != run:
        return
    if gone:
        memmove(s.guides + place - 1, s.guides + place, (s.guide_count - place) * sizeof(Guide))
        s.guide_count -= 1
    else:
        s.guides[place - 1].at = to


# ---- edges


cdef void _add_edge(Segments* s, int64_t at, Change* change) noexcept nogil:
    # Where a segment begins or ends, a server may pass from one copy to another, also where that segment's bytes were
    # the same as those that are kept. Without room for one more, an edge is lost only to conflicting bytes. They are
    # looked at in order as soon as bytes conflict; until then the last ones are left unsorted.
    cdef bint plain = is_plain(s)
    cdef uint32_t low
    cdef Copy* copy
    if s.edges_lost or s.edge_count and s.edges[s.edge_count - 1] == at:
        return
    if s.edge_count != s.edges_sorted and (
            not plain or s.edge_count - s.edges_sorted == MAX_TAIL or s.edge_count == s.edge_room):
        _sort_edges(s)
    if not _has_edge_room(s, change):
        s.edges_lost = 1
        return
    if plain:
        if s.edges_sorted == s.edge_count and (s.edge_count == 0 or s.edges[s.edge_count - 1] < at):
            s.edges_sorted += 1
        s.edges[s.edge_count] = at
        s.edge_count += 1
        return
    low = _edge_behind(s, at)
    if low and s.edges[low - 1] == at:
        return
    memmove(s.edges + low + 1, s.edges + low, (s.edge_count - low) * sizeof(int64_t))
    s.edges[low] = at
    s.edge_count += 1
    s.edges_sorted = s.edge_count
    copy = s.copies
    while copy != NULL:
        if copy.at < at and at < copy.at + copy.size:
            _note(change, copy.at)
        copy = copy.next


cdef bint _has_edge_room(Segments* s, Change* change) noexcept nogil:
    cdef int64_t* grown
    cdef uint32_t room
    if s.edge_count < s.edge_room:
        # Nearly full counts as full, so that the same few are not sorted in again and again.
        return s.edge_room < MAX_EDGES or s.edge_count != s.edges_sorted or s.edge_count < MAX_EDGES - MAX_TAIL // 2
    room = s.edge_room * 2 if s.edge_room else 8
    if room > MAX_EDGES or (
            s.bytes + change.others + (room - s.edge_room) * sizeof(int64_t) > change.cap):
        return False
    grown = <int64_t*>realloc(s.edges, room * sizeof(int64_t))
    if grown == NULL:
        return False
    s.bytes += <uint32_t>((room - s.edge_room) * sizeof(int64_t))
    s.edges = grown
    s.edge_room = <uint16_t>room
    return True


cdef void _sort_edges(Segments* s) noexcept nogil:
    # The last ones in among the others, each once.
    cdef int64_t tail[MAX_TAIL]
    cdef int64_t at
    cdef uint32_t size = s.edge_count - s.edges_sorted, count = 0, i, k, low, place
    if size == 0:
        return
    s.edge_count = s.edges_sorted
    for i in range(size):
        at = s.edges[s.edges_sorted + i]
        low = _edge_behind(s, at)
        if low and s.edges[low - 1] == at:
            continue
        k = count
        while k and tail[k - 1] > at:
            k -= 1
        if k and tail[k - 1] == at:
            continue
        memmove(tail + k + 1, tail + k, (count - k) * sizeof(int64_t))
        tail[k] = at
        count += 1
    place = s.edges_sorted + count
    s.edge_count = s.edges_sorted = <uint16_t>place
    i = place - count
    while count:
        if i and s.edges[i - 1] > tail[count - 1]:
            i -= 1
            s.edges[place - 1] = s.edges[i]
        else:
            count -= 1
            s.edges[place - 1] = tail[count]
        place -= 1


cdef uint32_t _edge_behind(const Segments* s, int64_t at) noexcept nogil:
    # Index of the first edge beyond `at`; edge_count if there is none.
    cdef uint32_t low = 0, high = s.edge_count, middle
    if high and s.edges[high - 1] <= at:
        return high
    while low < high:
        middle = (low + high) // 2
        if s.edges[middle] <= at:
            low = middle + 1
        else:
            high = middle
    return low


# ---- bytes go


cdef void drop_between(Segments* s, int64_t at, int64_t end) noexcept nogil:
    cdef Run* run
    cdef Run** link = &s.runs
    cdef uint32_t low, high
    s.recent = NULL
    s.guide_count = 0
    while link[0] != NULL:
        run = link[0]
        if run.at >= at and run.at + run.size <= end:
            link[0] = run.next
            _free_run(s, run)
        else:
            link = &run.next
    _drop_copies(s, at, end)
    if s.edge_count == 0:
        return
    _sort_edges(s)
    low = _edge_behind(s, at - 1)
    high = _edge_behind(s, end)
    memmove(s.edges + low, s.edges + high, (s.edge_count - high) * sizeof(int64_t))
    s.edge_count -= <uint16_t>(high - low)
    s.edges_sorted = s.edge_count


cdef void _drop_copies(Segments* s, int64_t at, int64_t end) noexcept nogil:
    # Those that lie wholly between.
    cdef Copy* copy
    cdef Copy** link = &s.copies
    while link[0] != NULL:
        copy = link[0]
        if copy.at >= at and copy.at + copy.size <= end:
            link[0] = copy.next
            s.copy_count -= 1
            s.bytes -= <uint32_t>(sizeof(Copy) + copy.size)
            free(copy)
        else:
            link = &copy.next


cdef void drop_before(Segments* s, int64_t floor) noexcept nogil:
    cdef Run* run
    cdef uint8_t* shrunk
    cdef uint32_t size
    cdef uint8_t i, kept = 0
    s.recent = NULL
    s.guide_count = 0
    _sort_edges(s)
    size = _edge_behind(s, floor - 1)
    if size:
        s.edge_count -= <uint16_t>size
        s.edges_sorted = s.edge_count
        memmove(s.edges, s.edges + size, s.edge_count * sizeof(int64_t))
    while s.runs != NULL and s.runs.at + s.runs.size <= floor:
        run = s.runs
        s.runs = run.next
        _free_run(s, run)
    run = s.runs
    if run != NULL and run.at < floor:
        size = <uint32_t>(run.at + run.size - floor)
        shrunk = <uint8_t*>malloc(size)
        if shrunk != NULL:
            memcpy(shrunk, run.data + (run.size - size), size)
            free(run.data - run.head)
            _hold(s, <int64_t>size - run.head - run.room)
            run.data = shrunk
            run.at = floor
            run.head = 0
            run.size = run.room = size
    _drop_copies(s, INT64_MIN, floor)
    for i in range(s.urgent_count):
        if s.urgent[i] >= floor:
            s.urgent[kept] = s.urgent[i]
            kept += 1
    s.urgent_count = kept
