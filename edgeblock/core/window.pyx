"""The stream window: which bytes the client has sent, and every way a server could read them.

Comes in: byte ranges at stream offsets, in any order, overlapping, conflicting. Goes out: Findings, the names that
any reading a server could accept has come upon. Never here: a decision, a clock, an allocation without a cap.

How conflicts are read. Segment edges and urgent bytes cut the stream into intervals; inside an interval every version
is whole. All readings advance interval by interval; where versions differ each reading forks into one per version,
and readings that stand in the same place with the same texts are merged again. So a conflict in bytes that a protocol
passes over (random, key shares, other header fields, bodies) costs one step, and only a conflict in the name itself
makes a reading each. Nothing is ever released on the first name found: a later copy takes the readings back to the
start. What exceeds the caps sets `overflow`, and the engine's policy decides.

One idea, though long: each byte that comes may change runs, copies, edges, beginnings and readings at once, and none
of these is right without the others. What a reading is, and what it finds, are files of their own.
Sources: RFC 9293 section 3.10.7.4 (which copy is kept is the receiver's choice), RFC 6093 (urgent data).
"""

from libc.stdint cimport INT64_MIN, int32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

from edgeblock.core.cursor cimport Cursor, cursor, left
from edgeblock.core.findings cimport NAME_COST, cost_of
from edgeblock.core.reader cimport ASTRAY, DONE, FEED_COST, FOUND, NEED_MORE, NOT_MINE, Outcome, Reader, Step
from edgeblock.core.readers cimport READ_ANY, reader_at
from edgeblock.core.reading cimport (become, begin_behind, body_left, copy_reading, copy_readings, digest_of,
                                     end_message, free_readings, is_fresh, lose_way, lost, new_reading, reader_of,
                                     same_reading, weights, within_body)

cdef enum:
    MAX_EDGES = 4096           # pieces a stream is cut into; one that came in more is an overflow if bytes conflict
    MAX_TAIL = 128             # edges that are not sorted yet
    GUIDE_EVERY = 32           # runs that are walked over to the right one: 0.1 us
    FORK_COST = 128            # work of one more reading, besides its memory:
    COPIED_FOR_ONE = 8         # so many bytes of it are copied, digested and freed in the time of one that is read
    # Bytes that all readings together take at a time, before the work is counted: the smallest units are the dearest.
    SHARED = 512
    SHARED_SHORT = 2048        # of what is certain not to fork
    SHARED_LEAST = 256         # the same of each, for many are compared each time
    MEET_COST = 8              # and of telling what became of it from one other reading
    MAX_UNSEEN = 1 << 30       # bytes of a body that never came: a decoy brings the numbers round with few packets

cdef struct Kept:              # the readings that have come to the end of an interval, each once
    uint32_t count
    bint digested              # one that stays alone needs no digest
    uint32_t idle
    uint64_t digests[MAX_READINGS]
    Reading* readings[MAX_READINGS]


# ---- life


cdef void open_window(Window* w, uint8_t first, uint32_t base) noexcept nogil:
    memset(w, 0, sizeof(Window))
    w.first = first
    w.base = base


cdef void close_window(Window* w) noexcept nogil:
    cdef Run* run
    cdef Copy* copy
    cdef int i
    while w.runs != NULL:
        run = w.runs
        w.runs = run.next
        _free_run(w, run)
    free(w.guides)
    w.guides = NULL
    w.guide_count = w.guide_room = 0
    while w.copies != NULL:
        copy = w.copies
        w.copies = copy.next
        free(copy)
    for i in range(MAX_STARTS):
        _free_start(w, &w.starts[i])
    _drop_edges(w)
    free(w.over)
    if w.over != NULL:
        w.bytes -= <uint32_t>(MAX_OVER * sizeof(Over))
    w.over = NULL
    w.over_count = 0
    w.edges_lost = 0
    w.recent = NULL
    w.copy_count = 0
    w.urgent_count = 0
    w.urgent_lost = 0
    w.bytes = 0


cdef inline void _free_run(Window* w, Run* run) noexcept nogil:
    _hold(w, -<int64_t>sizeof(Run) - run.head - run.room)
    free(run.data - run.head)
    free(run)


cdef inline void _hold(Window* w, int64_t more) noexcept nogil:
    # Memory of runs.
    w.bytes += <uint32_t>more
    w.run_bytes += <uint32_t>more


cdef void _free_start(Window* w, Start* s) noexcept nogil:
    w.bytes -= s.held
    free_readings(s.readings)
    free_readings(s.checkpoint)
    free_readings(s.mark)
    memset(s, 0, sizeof(Start))


cdef Reading* _first_readings(const Window* w, const Start* s) noexcept nogil:
    cdef Reading* r
    if s.checkpoint != NULL:
        return copy_readings(s.checkpoint)
    r = new_reading(w.first)
    if r != NULL:
        r.began = s.at
    return r


# ---- offsets and starts


cdef int64_t offset_of(const Window* w, uint32_t seq) noexcept nogil:
    """The stream offset of a sequence number: the one nearest to where some reading stands, or stood that had to go.

    Not just the first: of two connections half the number space apart the other would change sides as soon as the
    first is read on.
    """
    cdef int64_t at = <int32_t>(seq - w.base)
    cdef int64_t nearest = -1
    cdef int i
    for i in range(MAX_STARTS):
        if w.starts[i].kind != START_FREE:
            _nearer(w, seq, w.starts[i].frontier, &nearest, &at)
    for i in range(min(<int>w.given_up, <int>MAX_GIVEN_UP)):
        _nearer(w, seq, w.given_up_to[i], &nearest, &at)
    return at


cdef inline void _nearer(const Window* w, uint32_t seq, int64_t place, int64_t* nearest, int64_t* at) noexcept nogil:
    cdef int32_t ahead = <int32_t>(seq - <uint32_t>(w.base + <uint32_t>place))
    cdef int64_t distance = -<int64_t>ahead if ahead < 0 else ahead
    if nearest[0] < 0 or distance < nearest[0]:
        nearest[0] = distance
        at[0] = place + ahead


cdef void add_syn(Window* w, uint32_t seq) noexcept nogil:
    cdef int i
    cdef int64_t at
    if w.syn_count == 0:
        # What was kept from before the SYN (a stray segment) stays, on the SYN's scale.
        at = offset_of(w, seq)
        for i in range(MAX_STARTS):
            if w.starts[i].kind == START_LOWEST:
                _free_start(w, &w.starts[i])
    else:
        at = offset_of(w, seq)
        for i in range(MAX_STARTS):
            if w.starts[i].kind == START_SYN and w.starts[i].at == at:
                return
    if w.syn_count < 255:
        w.syn_count += 1
    add_start(w, START_SYN, at)


cdef void add_lost(Window* w, uint32_t seq, uint32_t size) noexcept nogil:
    """A stream behind a SYN of which the first bytes, `size` of them, are not known any more.

    It is one that was given up. What comes of it is read behind those bytes; or from their beginning, where it is
    another copy of them. These are two places, for what stands between them may never come.
    """
    cdef int i
    cdef int64_t at = offset_of(w, seq)
    cdef Start gone
    memset(&gone, 0, sizeof(Start))
    for i in range(MAX_STARTS):
        if w.starts[i].kind != START_FREE and w.starts[i].at == at:
            if w.starts[i].kind != START_SYN or not w.starts[i].unread:
                return                      # it is being read
            _free_start(w, &w.starts[i])
            _move_up(w)
            break
    gone.kind = START_SYN
    gone.at = at
    gone.frontier = at + <int64_t>size
    _give_up(w, &gone)
    gone.at = gone.frontier
    _give_up(w, &gone)


cdef bint begins_at(const Window* w, uint32_t seq) noexcept nogil:
    """Whether a start stands at this sequence number."""
    cdef int i
    cdef int64_t at = offset_of(w, seq)
    for i in range(MAX_STARTS):
        if w.starts[i].kind != START_FREE and w.starts[i].at == at:
            return True
    return False


cdef bint add_start(Window* w, uint8_t kind, int64_t at) noexcept nogil:
    """A start in a free place, else in that of one which has come to nothing. False if there is none.

    Behind a SYN one more must be found: that of a connection which was read to its end (ports are used again) goes
    first. If all are still being read, somebody crowds them out, and that is an overflow. Late bytes take the place
    of others that have not come to a message; if all have, the same holds. Once a SYN's start had to go, any bytes
    may be those of its stream, and a place for them must be found like one for a SYN.
    """
    cdef int i, place = -1
    cdef bint taken_back = False
    for i in range(MAX_STARTS):
        if w.starts[i].kind != START_FREE and w.starts[i].at == at and w.starts[i].checkpoint == NULL:
            if kind == START_SYN:
                w.starts[i].kind = kind
            return True
    for i in range(MAX_STARTS):
        if w.starts[i].kind == START_FREE:
            place = i
            break
    if place < 0:
        for i in range(MAX_STARTS - 1, 0, -1):
            if not _is_live(&w.starts[i]) and not w.starts[i].message:
                place = i
                break
    if place < 0 and (kind == START_SYN or kind == START_LOWEST and w.given_up):
        place = MAX_STARTS - 1
        for i in range(MAX_STARTS - 1, -1, -1):
            if (_is_between_messages(&w.starts[i]) and w.starts[i].message
                    and not (kind == START_LOWEST and _reaches(&w.starts[i], at))):
                place = i
        if not _is_between_messages(&w.starts[place]) or kind == START_LOWEST and _reaches(&w.starts[place], at):
            place = -1
            for i in range(MAX_STARTS):
                if kind == START_LOWEST and _is_taken_back(w, &w.starts[i], at):
                    taken_back = True
                elif _is_guess(w, &w.starts[i]) and (place < 0 or _reaches(&w.starts[place], at)):
                    place = i
            if place < 0 and taken_back:
                return False                # these bytes are read again from there
            if place < 0:
                place = MAX_STARTS - 1
                w.overflow = 1
    if place < 0 and kind == START_LATE:
        for i in range(1, MAX_STARTS):
            if w.starts[i].kind >= START_LOOKS and not w.starts[i].message:
                place = i
                break
        if place < 0:
            w.overflow = 1
    if place < 0:
        return False
    _give_up(w, &w.starts[place])
    _free_start(w, &w.starts[place])
    w.starts[place].kind = kind
    w.starts[place].at = at
    w.starts[place].frontier = at
    w.starts[place].unread = 1
    if kind == START_LATE:
        if _is_passed_over(w, at):
            w.starts[place].unread = 0      # no message begins there; kept for one that turns out to begin below
        elif w.late_lost:
            w.overflow = 1                  # that one, and it may go on with what is lost
    if w.urgent_lost:
        w.overflow = 1
    return True


cdef inline bint _reaches(const Start* s, int64_t at) noexcept nogil:
    # These may be bytes of that stream: what is guessed of them is no reason to give it up.
    return s.at <= at and at <= s.frontier


cdef bint _is_guess(const Window* w, const Start* s) noexcept nogil:
    # Taken back (take_back), and come to nothing yet. It may go: it is taken back again, or anything is read from.
    cdef uint32_t i
    if s.kind != START_LOWEST or s.message:
        return False
    if w.given_up > <uint32_t>MAX_GIVEN_UP:
        return True
    for i in range(w.given_up):
        if s.unread and (s.at == w.given_up_at[i] or s.at == w.given_up_to[i]):
            return True
    return False


cdef bint _is_taken_back(const Window* w, const Start* s, int64_t at) noexcept nogil:
    # A stream that was given up behind these bytes, which will be read from its beginning again.
    cdef uint32_t i
    if s.kind != START_LOWEST or not s.unread:
        return False
    for i in range(min(w.given_up, <uint32_t>MAX_GIVEN_UP)):
        if s.at == w.given_up_at[i] and s.at <= at and at < w.given_up_to[i]:
            return True
    return False


cdef inline bint _is_passed_over(const Window* w, int64_t at) noexcept nogil:
    return w.body_at <= at and at < w.body_end


cdef void _give_up(Window* w, const Start* s) noexcept nogil:
    # Remembers a SYN's start that has to go; or how far it was read, of one that was taken back meanwhile.
    cdef uint32_t i
    for i in range(min(w.given_up, <uint32_t>MAX_GIVEN_UP)):
        if s.kind != START_FREE and (s.at == w.given_up_at[i] or s.at == w.given_up_to[i]):
            w.given_up_to[i] = max(w.given_up_to[i], s.frontier)
            if s.at == w.given_up_at[i]:
                return
    if s.kind == START_SYN:
        i = w.given_up % <uint32_t>MAX_GIVEN_UP
        if w.given_up >= <uint32_t>MAX_GIVEN_UP:
            _end_stream(w, i)
        w.given_up_at[i] = s.at
        w.given_up_to[i] = s.frontier
        w.given_up += 1


cdef void _end_stream(Window* w, uint32_t which) noexcept nogil:
    # The oldest that was given up: its bytes are not kept any more, unless they may be another's, too.
    cdef int64_t at = w.given_up_at[which], end = w.given_up_to[which]
    cdef uint32_t i
    if at == end:
        return
    for i in range(<uint32_t>MAX_STARTS):
        if w.starts[i].kind != START_FREE and w.starts[i].at <= end and at <= w.starts[i].frontier + MAX_AHEAD:
            return
    for i in range(<uint32_t>MAX_GIVEN_UP):
        if i != which and w.given_up_at[i] <= end and at <= w.given_up_to[i] + MAX_AHEAD:
            return
    if _note_over(w, at, end, False):
        _drop_between(w, at, end)


cdef bint _note_over(Window* w, int64_t at, int64_t end, uint32_t goes_on) noexcept nogil:
    cdef Over* last
    cdef uint32_t seq = w.base + <uint32_t>at
    if w.over == NULL:
        w.over = <Over*>malloc(MAX_OVER * sizeof(Over))
        if w.over == NULL:
            return False
        w.bytes += <uint32_t>(MAX_OVER * sizeof(Over))
    if w.over_count:
        last = &w.over[(w.over_count - 1) % <uint32_t>MAX_OVER]
        if last.goes_on == goes_on and last.seq + last.size == seq and last.size < 1 << 30:
            last.size += <uint32_t>(end - at)
            return True
    last = &w.over[w.over_count % <uint32_t>MAX_OVER]
    last.seq, last.size, last.goes_on = seq, <uint32_t>(end - at), goes_on
    w.over_count += 1
    return True


cdef bint _is_lost(const Window* w, int64_t at) noexcept nogil:
    # Whether the byte there has come, for all that is known, and is not kept.
    cdef uint32_t i
    for i in range(min(w.over_count, <uint32_t>MAX_OVER)):
        if w.base + <uint32_t>at - w.over[i].seq < w.over[i].size:
            return True
    return False


cdef void _drop_between(Window* w, int64_t at, int64_t end) noexcept nogil:
    cdef Run* run
    cdef Run** link = &w.runs
    cdef uint32_t low, high
    w.recent = NULL
    w.guide_count = 0
    while link[0] != NULL:
        run = link[0]
        if run.at >= at and run.at + run.size <= end:
            link[0] = run.next
            _free_run(w, run)
        else:
            link = &run.next
    _drop_copies(w, at, end)
    if w.edge_count == 0:
        return
    _sort_edges(w)
    low = _edge_behind(w, at - 1)
    high = _edge_behind(w, end)
    memmove(w.edges + low, w.edges + high, (w.edge_count - high) * sizeof(int64_t))
    w.edge_count -= <uint16_t>(high - low)
    w.edges_sorted = w.edge_count


cdef void _drop_copies(Window* w, int64_t at, int64_t end) noexcept nogil:
    # Those that lie wholly between.
    cdef Copy* copy
    cdef Copy** link = &w.copies
    while link[0] != NULL:
        copy = link[0]
        if copy.at >= at and copy.at + copy.size <= end:
            link[0] = copy.next
            w.copy_count -= 1
            w.bytes -= <uint32_t>(sizeof(Copy) + copy.size)
            free(copy)
        else:
            link = &copy.next


cdef bint _is_over(const Window* w, int64_t at, size_t size) noexcept nogil:
    # Whether these may be other copies of bytes that are not kept any more.
    cdef uint32_t seq = w.base + <uint32_t>at
    cdef uint32_t i
    for i in range(min(w.over_count, <uint32_t>MAX_OVER)):
        if not w.over[i].goes_on and (seq - w.over[i].seq < w.over[i].size or w.over[i].seq - seq < size):
            return True
    if w.over_count <= <uint32_t>MAX_OVER:
        return False
    for i in range(<uint32_t>MAX_STARTS):
        if w.starts[i].kind != START_FREE and w.starts[i].at <= at and at <= w.starts[i].frontier + MAX_AHEAD:
            return False
    for i in range(<uint32_t>MAX_GIVEN_UP):
        if w.given_up_at[i] <= at and at <= w.given_up_to[i] + MAX_AHEAD:
            return False
    return True


cdef void take_back(Window* w, int64_t at, size_t size) noexcept nogil:
    """Starts again where bytes at this offset may belong to a SYN that was given up.

    It was read to its end, so it is read on from there; but bytes below that are another copy of what was read. Bytes
    ahead of it are kept and wait for those between: ports that come round again quickly have their next sequence
    numbers there (Linux adds 65537 to the last one where tcp_tw_reuse is on). Of so many that not all are remembered,
    it is read from here, unless it may be another copy of bytes that are not kept any more: that is an overflow.
    Where that makes another go whose bytes these may be, too, somebody crowds them out.
    """
    cdef uint32_t i, k, turn
    cdef int64_t wanted
    cdef bint stands
    for turn in range(2):
        for i in range(min(w.given_up, <uint32_t>MAX_GIVEN_UP)):
            if at > w.given_up_to[i] or at + <int64_t>size <= w.given_up_at[i]:
                continue
            wanted = w.given_up_at[i] if at < w.given_up_to[i] else w.given_up_to[i]
            stands = False
            for k in range(<uint32_t>MAX_STARTS):
                stands = stands or w.starts[k].kind != START_FREE and (
                    w.starts[k].at == w.given_up_at[i] or w.starts[k].at == wanted)
            if not stands and turn:
                w.overflow = 1
            elif not stands:
                add_start(w, START_LOWEST, wanted)
    if w.given_up > <uint32_t>MAX_GIVEN_UP:
        if w.over_count and _is_over(w, at, size):
            w.overflow = 1
        add_start(w, START_LOWEST, at)


cdef bint _is_between_messages(const Start* s) noexcept nogil:
    cdef const Reading* r = s.readings
    while r != NULL:
        if r.kind != READ_ANY and not r.again and not lost(r):
            return False
        r = r.next
    return not s.unread


cdef void add_urgent(Window* w, int64_t at) noexcept nogil:
    cdef int i
    for i in range(w.urgent_count):
        if w.urgent[i] == at:
            return
    if w.urgent_count == MAX_URGENT:
        # Where nothing is read any more it changes nothing: other protocols have many. Unless reading begins again.
        w.urgent_lost = 1
        for i in range(MAX_STARTS):
            if w.starts[i].kind != START_FREE and at >= w.starts[i].at and (
                    at < w.starts[i].frontier or _is_live(&w.starts[i]) or w.starts[i].again):
                w.overflow = 1
        return
    w.urgent[w.urgent_count] = at
    w.urgent_count += 1
    _changed(w, at)


cdef void _changed(Window* w, int64_t at) noexcept nogil:
    # Bytes that were read are not the only ones any more: readings go back to their start.
    cdef int i
    cdef Start* s
    for i in range(MAX_STARTS):
        s = &w.starts[i]
        if s.kind != START_FREE and at >= s.at and at < s.frontier:
            free_readings(s.readings)
            s.readings = NULL
            s.frontier = s.at
            s.unread = 1
            s.again = 0
            if w.urgent_lost or w.late_lost and at < w.body_at:
                w.overflow = 1
            if at < s.mark_at:
                free_readings(s.mark)
                s.mark = NULL


cdef int64_t contiguous_end(Window* w) noexcept nogil:
    cdef int64_t at = w.starts[0].at
    cdef const Run* run = _run_at(w, at)
    return at if run == NULL else max(at, run.at + <int64_t>run.size)


cdef int64_t joined_end(Window* w, int64_t at) noexcept nogil:
    cdef const Run* run = _run_at(w, at)
    while run != NULL and run.at <= at:
        at = max(at, run.at + <int64_t>run.size)
        run = run.next
    return at


cdef bint is_open(const Window* w) noexcept nogil:
    cdef const Reading* r
    cdef int i
    for i in range(MAX_STARTS):
        if w.starts[i].unread:
            return True
        r = w.starts[i].readings
        while r != NULL:
            if not r.again and (w.http or not lost(r)):
                return True
            r = r.next
    return False


cdef bint is_unreadable(const Window* w) noexcept nogil:
    cdef int i
    for i in range(MAX_STARTS):
        if _is_live(&w.starts[i]):
            return False
    return True


cdef bint holds_part(const Window* w) noexcept nogil:
    # Bytes that wait for those before them, or a reading in the middle of a message, its body included.
    cdef const Start* s
    cdef const Reading* r
    cdef const Run* run
    cdef int i
    for i in range(MAX_STARTS):
        s = &w.starts[i]
        r = s.readings
        while r != NULL:
            if r.kind != READ_ANY and not is_fresh(r) and (w.http or not lost(r)):
                return True
            r = r.next
        if not _is_live(s):
            continue
        run = w.recent if w.recent != NULL else w.runs
        while run != NULL:
            if run.at + <int64_t>run.size > s.frontier:
                return True
            run = run.next
    return False


cdef bint goes_on(const Window* w) noexcept nogil:
    cdef int i
    for i in range(MAX_STARTS):
        if _is_active(&w.starts[i]) or w.starts[i].again:
            return True
    return False


cdef bint is_whole(const Window* w) noexcept nogil:
    # A body may be going on, or what is none of ours. No byte stands behind what was read.
    cdef const Start* s
    cdef const Reading* r
    cdef const Run* run = w.runs
    cdef int64_t end = 0
    cdef bint reads = False
    cdef int i
    for i in range(MAX_STARTS):
        s = &w.starts[i]
        if s.kind == START_FREE:
            continue
        if s.unread:
            return False
        if s.readings != NULL or s.again:
            end = max(end, s.frontier) if reads else s.frontier
            reads = True
        r = s.readings
        while r != NULL:
            if r.again:
                if not is_fresh(r):
                    return False
            elif r.kind != READ_ANY and not within_body(r) and not lost(r):
                return False
            r = r.next
    while reads and run != NULL:
        if run.at + <int64_t>run.size > end:
            return False
        run = run.next
    return True


cdef bint is_contested(const Window* w) noexcept nogil:
    # More than one stream that is being read: not a connection that ended on the same ports, nor bytes sent again.
    cdef int i, starts = 0
    for i in range(MAX_STARTS):
        if _is_live(&w.starts[i]) and not _is_between_messages(&w.starts[i]):
            starts += 1
    return starts > 1 or w.copies != NULL or w.urgent_count != 0 and goes_on(w)


cdef bint in_body(const Window* w, int64_t at) noexcept nogil:
    cdef int i
    cdef const Reading* r
    for i in range(MAX_STARTS):
        r = w.starts[i].readings
        while r != NULL:
            if reader_of(r).body_left != NULL and w.starts[i].frontier + <int64_t>body_left(r) > at:
                return True
            r = r.next
    return False


cdef inline bint _is_active(const Start* s) noexcept nogil:
    return s.unread or s.readings != NULL


cdef bint _is_live(const Start* s) noexcept nogil:
    cdef const Reading* r = s.readings
    while r != NULL:
        if not lost(r):
            return True
        r = r.next
    return s.unread


cdef bint is_message(const Window* w) noexcept nogil:
    cdef int i
    for i in range(MAX_STARTS):
        if w.starts[i].message:
            return True
    return False


cdef bint has_bytes(const Window* w, int64_t start) noexcept nogil:
    # Some byte has come that may be of the stream that begins there.
    cdef const Run* run = w.runs
    while run != NULL:
        if run.at + <int64_t>run.size > start and run.at - start < <int64_t>MAX_AHEAD:
            return True
        run = run.next
    return False


cdef bint is_strange(const Window* w, uint32_t seq) noexcept nogil:
    # Whether the first proven bytes find a window that others have filled: streams that begin elsewhere, and no byte
    # that may be of this one.
    cdef int64_t at = offset_of(w, seq)
    cdef const Run* run = w.runs
    cdef bint others = w.given_up > 0
    cdef int i
    for i in range(MAX_STARTS):
        if w.starts[i].kind != START_FREE and not -<int64_t>LATE_REACH <= at - w.starts[i].at < <int64_t>MAX_AHEAD:
            others = True
    if not others:
        return False
    while run != NULL:
        if run.at - at < <int64_t>MAX_AHEAD and at - run.at < <int64_t>MAX_AHEAD:
            return False
        run = run.next
    return True


cdef bint is_far(const Window* w, uint32_t seq) noexcept nogil:
    # From every stream that is being read.
    cdef int64_t at = offset_of(w, seq)
    cdef int i
    for i in range(MAX_STARTS):
        if (w.starts[i].kind != START_FREE and at >= w.starts[i].at - LATE_REACH
                and at <= w.starts[i].frontier + <int64_t>MAX_AHEAD):
            return False
    return True


cdef bint looks_like_message(const uint8_t* data, size_t size) noexcept nogil:
    """A ClientHello record, or a method of capital letters with a target behind it."""
    cdef size_t i = 0
    if size >= 6 and data[0] == 0x16 and data[1] == 3:
        return data[5] == 1 and data[2] <= 4
    while i < size and i < 20 and data[i] >= 0x41 and data[i] <= 0x5A:
        i += 1
    return i >= 3 and i + 1 < size and data[i] == 0x20 and data[i + 1] > 0x20


# ---- bytes


cdef void add_bytes(Window* w, int64_t at, const uint8_t* data, size_t size, uint32_t cap) noexcept nogil:
    """Keeps what is new or different in `size` bytes at offset `at`; `cap` bounds the memory of the window."""
    cdef Run* run
    cdef int64_t end, stop, floor
    if w.bytes + size + sizeof(Run) > cap and w.body_open:
        _drop_late(w)
        if w.bytes + size + sizeof(Run) > cap:
            _slide(w, cap, True)
    floor = _floor(w)
    if at < floor:
        if at + <int64_t>size <= floor:
            return
        data += floor - at
        size -= <size_t>(floor - at)
        at = floor
    if size == 0 or at > _ceiling(w):
        return
    end = at + <int64_t>size
    if w.runs != NULL:
        _add_edge(w, at, cap)
        _add_edge(w, end, cap)
    run = _run_at(w, at)
    while at < end:
        while run != NULL and run.next != NULL and run.next.at <= at:
            run = run.next
        if run != NULL and at < run.at + run.size:
            stop = min(run.at + <int64_t>run.size, end)
            _compare(w, run, at, data, <size_t>(stop - at), cap)
        else:
            stop = _end_of_gap(w, run, end)
            if not _add_run(w, &run, at, data, <size_t>(stop - at), cap):
                w.recent = run
                return
        data += stop - at
        at = stop
    w.recent = run


cdef inline int64_t _end_of_gap(const Window* w, const Run* before, int64_t end) noexcept nogil:
    cdef const Run* behind = before.next if before != NULL else w.runs
    return end if behind == NULL or behind.at > end else behind.at


cdef Run* _run_at(Window* w, int64_t at) noexcept nogil:
    """The last run that begins at this offset or before it, or NULL.

    Guides stand at some of the runs, in their order. Where none was near the walk leaves one for the next.
    """
    cdef Run* run = w.recent if w.recent != NULL and w.recent.at <= at else NULL
    cdef uint32_t low = 0, steps = 0
    if w.guide_count:
        low = _guide_behind(w, at)
        if low and (run == NULL or w.guides[low - 1].at > run.at):
            run = w.guides[low - 1].run
    if run == NULL:
        run = w.runs
        if run == NULL or run.at > at:
            return NULL
    while run.next != NULL and run.next.at <= at:
        run = run.next
        steps += 1
        if steps % GUIDE_EVERY == 0:
            low += _add_guide(w, low, run)
    return run


cdef uint32_t _guide_behind(const Window* w, int64_t at) noexcept nogil:
    # Index of the first guide beyond `at`.
    cdef uint32_t low = 0, high = w.guide_count, middle
    while low < high:
        middle = (low + high) // 2
        if w.guides[middle].at <= at:
            low = middle + 1
        else:
            high = middle
    return low


cdef uint32_t _add_guide(Window* w, uint32_t place, Run* run) noexcept nogil:
    # Returns how many were added. Without memory the next walk is longer.
    cdef Guide* grown
    cdef uint32_t room
    if w.guide_count == w.guide_room:
        room = w.guide_room * 2 if w.guide_room else 16
        grown = <Guide*>realloc(w.guides, room * sizeof(Guide))
        if grown == NULL:
            return 0
        w.bytes += <uint32_t>((room - w.guide_room) * sizeof(Guide))
        w.guides = grown
        w.guide_room = room
    memmove(w.guides + place + 1, w.guides + place, (w.guide_count - place) * sizeof(Guide))
    w.guides[place].at = run.at
    w.guides[place].run = run
    w.guide_count += 1
    return 1


cdef void _move_guide(Window* w, const Run* run, int64_t to, bint gone) noexcept nogil:
    # The run will begin at `to`, or be gone.
    cdef uint32_t place
    if w.guide_count == 0:
        return
    place = _guide_behind(w, run.at)
    if place == 0 or w.guides[place - 1].run != run:
        return
    if gone:
        memmove(w.guides + place - 1, w.guides + place, (w.guide_count - place) * sizeof(Guide))
        w.guide_count -= 1
    else:
        w.guides[place - 1].at = to


cdef int64_t _floor(const Window* w) noexcept nogil:
    cdef int i
    cdef bint any_start = False
    cdef int64_t floor = 0
    for i in range(MAX_STARTS):
        if w.starts[i].kind != START_FREE and (not any_start or w.starts[i].at < floor):
            floor = w.starts[i].at
            any_start = True
    return floor


cdef int64_t _ceiling(const Window* w) noexcept nogil:
    cdef int i
    cdef bint any_start = False
    cdef int64_t ceiling = 0
    for i in range(MAX_STARTS):
        if w.starts[i].kind != START_FREE and (not any_start or w.starts[i].frontier > ceiling):
            ceiling = w.starts[i].frontier
            any_start = True
    return ceiling + MAX_AHEAD


cdef bint _add_run(Window* w, Run** place, int64_t at, const uint8_t* data, size_t size,
                   uint32_t cap) noexcept nogil:
    # First copies of bytes between two runs, joined to those that they meet. `place` is the run before them, and
    # becomes the one that has them. Of two runs that become one the shorter is copied: a client who sends the last
    # byte first buys no copy of all others with each.
    cdef Run* before = place[0]
    cdef Run* behind = before.next if before != NULL else w.runs
    cdef bint joins = before != NULL and before.at + before.size == at
    cdef Run* run
    cdef int64_t floor
    if joins:
        _add_edge(w, at, cap)
    while w.bytes + size + sizeof(Run) > cap:
        if behind == NULL or not _drop_far(w, at, cap):
            w.dropped += size
            return False
        behind = before.next if before != NULL else w.runs
    if behind != NULL and behind.at != at + <int64_t>size:
        behind = NULL
    if behind != NULL:
        _add_edge(w, behind.at, cap)
    if joins and behind != NULL and behind.size > before.size:
        if not _make_front(w, behind, size + before.size, size + before.size):
            return False
        _put_front(behind, data, size)
        _put_front(behind, before.data, before.size)
        before.data, behind.data = behind.data, before.data
        before.head, behind.head = behind.head, before.head
        before.room, behind.room = behind.room, before.room
        before.size = behind.size
        _join(w, before, behind)
    elif joins:
        if not _grow(w, before, data, size):
            return False
        if behind != NULL and _grow(w, before, behind.data, behind.size):
            _join(w, before, behind)
    elif behind != NULL:
        floor = before.at + <int64_t>before.size if before != NULL else _floor(w)
        if not _make_front(w, behind, size, <size_t>(behind.at - floor)):
            return False
        _move_guide(w, behind, at, False)
        _put_front(behind, data, size)
        behind.at = at
        place[0] = behind
    else:
        run = <Run*>malloc(sizeof(Run))
        if run == NULL:
            return False
        memset(run, 0, sizeof(Run))
        run.at = at
        _hold(w, sizeof(Run))
        if not _grow(w, run, data, size):
            _free_run(w, run)
            return False
        run.next = before.next if before != NULL else w.runs
        if before != NULL:
            before.next = run
        else:
            w.runs = run
        place[0] = run
    _changed(w, at)
    return True


cdef void _join(Window* w, Run* run, Run* behind) noexcept nogil:
    # The bytes of `behind` are part of the run before it.
    run.next = behind.next
    _move_guide(w, behind, 0, True)
    _free_run(w, behind)


cdef void _add_edge(Window* w, int64_t at, uint32_t cap) noexcept nogil:
    # Where a segment begins or ends, a server may pass from one copy to another, also where that segment's bytes were
    # the same as those that are kept. Without room for one more, an edge is lost only to conflicting bytes. They are
    # looked at in order as soon as bytes conflict; until then the last ones are left unsorted.
    cdef bint plain = w.copies == NULL and w.urgent_count == 0
    cdef uint32_t low
    cdef Copy* copy
    if w.edges_lost or w.edge_count and w.edges[w.edge_count - 1] == at:
        return
    if w.edge_count != w.edges_sorted and (
            not plain or w.edge_count - w.edges_sorted == MAX_TAIL or w.edge_count == w.edge_room):
        _sort_edges(w)
    if not _has_edge_room(w, cap):
        w.edges_lost = 1
        return
    if plain:
        if w.edges_sorted == w.edge_count and (w.edge_count == 0 or w.edges[w.edge_count - 1] < at):
            w.edges_sorted += 1
        w.edges[w.edge_count] = at
        w.edge_count += 1
        return
    low = _edge_behind(w, at)
    if low and w.edges[low - 1] == at:
        return
    memmove(w.edges + low + 1, w.edges + low, (w.edge_count - low) * sizeof(int64_t))
    w.edges[low] = at
    w.edge_count += 1
    w.edges_sorted = w.edge_count
    copy = w.copies
    while copy != NULL:
        if copy.at < at and at < copy.at + copy.size:
            _changed(w, copy.at)
        copy = copy.next


cdef bint _has_edge_room(Window* w, uint32_t cap) noexcept nogil:
    cdef int64_t* grown
    cdef uint32_t room
    if w.edge_count < w.edge_room:
        # Nearly full counts as full, so that the same few are not sorted in again and again.
        return w.edge_room < MAX_EDGES or w.edge_count != w.edges_sorted or w.edge_count < MAX_EDGES - MAX_TAIL // 2
    room = w.edge_room * 2 if w.edge_room else 8
    if room > MAX_EDGES or w.bytes + (room - w.edge_room) * sizeof(int64_t) > cap:
        return False
    grown = <int64_t*>realloc(w.edges, room * sizeof(int64_t))
    if grown == NULL:
        return False
    w.bytes += <uint32_t>((room - w.edge_room) * sizeof(int64_t))
    w.edges = grown
    w.edge_room = <uint16_t>room
    return True


cdef void _sort_edges(Window* w) noexcept nogil:
    # The last ones in among the others, each once.
    cdef int64_t tail[MAX_TAIL]
    cdef int64_t at
    cdef uint32_t size = w.edge_count - w.edges_sorted, count = 0, i, k, low, place
    if size == 0:
        return
    w.edge_count = w.edges_sorted
    for i in range(size):
        at = w.edges[w.edges_sorted + i]
        low = _edge_behind(w, at)
        if low and w.edges[low - 1] == at:
            continue
        k = count
        while k and tail[k - 1] > at:
            k -= 1
        if k and tail[k - 1] == at:
            continue
        memmove(tail + k + 1, tail + k, (count - k) * sizeof(int64_t))
        tail[k] = at
        count += 1
    place = w.edges_sorted + count
    w.edge_count = w.edges_sorted = <uint16_t>place
    i = place - count
    while count:
        if i and w.edges[i - 1] > tail[count - 1]:
            i -= 1
            w.edges[place - 1] = w.edges[i]
        else:
            count -= 1
            w.edges[place - 1] = tail[count]
        place -= 1


cdef uint32_t _edge_behind(const Window* w, int64_t at) noexcept nogil:
    # Index of the first edge beyond `at`; edge_count if there is none.
    cdef uint32_t low = 0, high = w.edge_count, middle
    if high and w.edges[high - 1] <= at:
        return high
    while low < high:
        middle = (low + high) // 2
        if w.edges[middle] <= at:
            low = middle + 1
        else:
            high = middle
    return low


cdef void _drop_edges(Window* w) noexcept nogil:
    free(w.edges)
    w.edges = NULL
    w.bytes -= <uint32_t>(w.edge_room * sizeof(int64_t))
    w.edge_count = w.edges_sorted = 0
    w.edge_room = 0


cdef bint _drop_far(Window* w, int64_t at, uint32_t cap) noexcept nogil:
    # Makes room: the bytes farthest ahead of all readings go first, never those before `at`; an eighth of the cap
    # at a time, so that a client who keeps the window full does not buy a walk with every byte.
    cdef Run* run = w.runs
    cdef Run* before = NULL
    cdef Run* gone
    cdef uint32_t kept = 0
    if w.run_bytes <= cap - cap // 8:
        return False
    while run != NULL:
        kept += <uint32_t>sizeof(Run) + run.head + run.room
        if run.at > at and kept > cap - cap // 4:
            break
        before = run
        run = run.next
    if run == NULL:
        return False
    w.guide_count = _guide_behind(w, run.at - 1)
    if before == NULL:
        w.runs = NULL
    else:
        before.next = NULL
    while run != NULL:
        gone = run
        run = gone.next
        w.dropped += gone.size
        _free_run(w, gone)
    return True


cdef bint _grow(Window* w, Run* run, const uint8_t* data, size_t size) noexcept nogil:
    # The first piece gets just its room (most flows have one); a run that goes on to grow doubles.
    cdef size_t room
    cdef uint8_t* grown
    if run.size + size > run.room:
        room = size if run.room == 0 else <size_t>run.room * 2
        if room < run.size + size:
            room = run.size + size
        grown = <uint8_t*>realloc(run.data - run.head if run.data != NULL else NULL, run.head + room)
        if grown == NULL:
            return False
        _hold(w, <int64_t>room - run.room)
        run.data = grown + run.head
        run.room = <uint32_t>room
    memcpy(run.data + run.size, data, size)
    run.size += <uint32_t>size
    return True


cdef bint _make_front(Window* w, Run* run, size_t needed, size_t gap) noexcept nogil:
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
    _hold(w, <int64_t>(head + run.size) - run.head - run.room)
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


cdef void _compare(Window* w, Run* run, int64_t at, const uint8_t* data, size_t size, uint32_t cap) noexcept nogil:
    # Another copy of bytes that are there, kept whole: a server takes or leaves it between edges, not byte by byte.
    cdef Copy* copy
    if memcmp(run.data + (at - run.at), data, size) == 0:
        return
    copy = w.copies
    while copy != NULL:
        # Only the very same range: the same bytes inside a longer copy are another combination with its neighbours.
        if copy.at == at and copy.size == size and memcmp(copy.data, data, size) == 0:
            return
        copy = copy.next
    if w.copy_count == MAX_COPIES or w.bytes + size + sizeof(Copy) > cap:
        w.overflow = 1
        return
    copy = <Copy*>malloc(sizeof(Copy) + size)
    if copy == NULL:
        w.overflow = 1
        return
    copy.at = at
    copy.size = <uint32_t>size
    copy.data = <uint8_t*>copy + sizeof(Copy)
    memcpy(copy.data, data, size)
    copy.next = w.copies
    w.copies = copy
    w.copy_count += 1
    w.bytes += <uint32_t>(sizeof(Copy) + size)
    _changed(w, at)


# ---- reading


cdef void read_on(Window* w, Findings* out, uint32_t cap, uint32_t* work) noexcept nogil:
    """Lets every start's readings go on as far as the bytes reach."""
    cdef int i
    cdef int64_t stood
    cdef uint32_t most = PACKET_WORK if work[0] > PACKET_WORK else work[0]
    cdef uint32_t budget = most, moved = 0
    w.behind = 0
    w.share = PACKET_SHARE
    for i in range(MAX_STARTS):
        if _is_active(&w.starts[i]) or w.starts[i].again:
            stood = w.starts[i].frontier
            _advance(w, &w.starts[i], out, cap, &budget)
            moved |= <uint32_t>(w.starts[i].frontier > stood) << i
    work[0] -= most - budget
    if w.behind and w.first != READ_ANY:
        w.overflow = 1                  # the rest of a datagram's bytes may come with none
    if w.bytes >= cap // 2:
        _leave_behind(w, moved)
    if w.bytes >= cap // 4:
        _slide(w, cap, False)


cdef void _advance(Window* w, Start* s, Findings* out, uint32_t cap, uint32_t* budget) noexcept nogil:
    cdef Run* run
    cdef Copy* copy
    cdef Reading* r
    cdef Reading* fork
    cdef Reading* rest
    cdef Kept after
    cdef const uint8_t* versions[MAX_COPIES + 1]
    cdef int64_t pos, stop, need
    cdef uint32_t size, count, i, others, meet, cost
    cdef bint plain, alone, urgent, known
    _account(w, s, False)
    while _is_active(s) or s.again:
        pos = s.frontier
        run = _run_at(w, pos)
        if run == NULL or run.at + run.size <= pos:
            run = run.next if run != NULL else w.runs      # behind a gap
            if run != NULL and _leap(s, run.at):
                w.forgetful = 1
                w.unseen += <uint64_t>(s.frontier - pos)
                _note_body(w, s)
                continue
            if w.over_count and s.kind != START_LATE and _is_lost(w, pos):
                w.overflow = 1                  # it has come to where another was: what that said, who knows
            break
        if w.share <= 0:
            w.behind = 1
            break
        if s.unread:
            s.unread = 0
            s.readings = _first_readings(w, s)
            if s.readings == NULL:
                w.overflow = 1
                break
        elif s.again:
            s.readings = _second_reading(w, s)
            s.again = 0
            if s.readings == NULL:
                w.overflow = 1
                break
        stop = run.at + run.size
        plain = w.copies == NULL and w.urgent_count == 0 or not _is_doubtful(w, pos)
        urgent = False
        count = 1
        if not plain:
            copy = w.copies
            while copy != NULL:
                if copy.at > pos:
                    if copy.at < stop:
                        stop = copy.at
                elif copy.at + copy.size > pos and copy.at + copy.size < stop:
                    stop = copy.at + copy.size
                copy = copy.next
            _sort_edges(w)
            i = _edge_behind(w, pos)
            if i < w.edge_count and w.edges[i] < stop:
                stop = w.edges[i]
            if w.edges_lost:
                w.overflow = 1
            for i in range(w.urgent_count):
                if w.urgent[i] == pos:
                    urgent = True
                    if pos + 1 < stop:
                        stop = pos + 1
                elif w.urgent[i] > pos and w.urgent[i] < stop:
                    stop = w.urgent[i]
        others = 0
        r = s.readings
        while r != NULL:
            others += 1
            r = r.next
        alone = plain and others == 1
        if plain and stop - pos > <int64_t>SHARED_LEAST:
            stop = min(stop, pos + _slice(s.readings, others, run.data[pos - run.at]))
        size = <uint32_t>(stop - pos)
        meet = MEET_COST
        if reader_of(s.readings).comparing != NULL:
            meet += reader_of(s.readings).comparing(s.readings.state)
        versions[0] = run.data + (pos - run.at)
        if not plain:
            copy = w.copies
            while copy != NULL:
                if copy.at <= pos and pos < copy.at + copy.size:
                    known = False
                    for i in range(count):
                        if memcmp(versions[i], copy.data + (pos - copy.at), size) == 0:
                            known = True
                            break
                    if not known:
                        versions[count] = copy.data + (pos - copy.at)
                        count += 1
                copy = copy.next
        if plain:
            cost = FEED_COST // 2 * others + others * others // 2 * meet
        else:
            cost = 4 * w.copy_count + count * count // 2 + count * (
                FORK_COST * others + weights(s.readings) // <uint32_t>COPIED_FOR_ONE)
            # With the bytes that each reading will take, unless it passes over them. Who waits has the next packet's
            # whole share, so that nobody waits twice.
            need = <int64_t>cost + <int64_t>count * others * size
            if (<int32_t>cost > w.share and w.share < PACKET_SHARE // 2
                    or need > w.share + FORK_SHARE and w.share < PACKET_SHARE):
                w.behind = 1
                break
            if <int32_t>cost > w.share + FORK_SHARE:
                w.overflow = 1
                free_readings(s.readings)
                s.readings = NULL
                break
        s.frontier = stop
        w.share -= <int32_t>cost
        if not plain:
            if not _spend(w, w.copy_count + count * count // 2, budget):
                free_readings(s.readings)
                s.readings = NULL
                break
            others = min(others * count, <uint32_t>MAX_READINGS)
        rest = s.readings
        s.readings = NULL
        after.count = after.idle = 0
        after.digested = False
        while rest != NULL:
            r = rest
            rest = r.next
            r.next = NULL
            if urgent:                      # the byte may have been delivered out of band: a reading without it
                fork = copy_reading(r)
                if fork == NULL:
                    w.overflow = 1
                else:
                    _keep(w, &after, fork)
            for i in range(count):
                fork = r
                if i + 1 < count:
                    fork = copy_reading(r)
                    if fork == NULL:
                        w.overflow = 1
                        continue
                if not plain and not _spend(w, size + FEED_COST + others * meet, budget):
                    free_readings(fork)
                    if fork == r:
                        r = NULL
                    continue
                _feed(w, s, fork, cursor(versions[i], size), pos, alone, &after, out)
        for i in range(after.count):
            after.readings[i].next = s.readings
            s.readings = after.readings[i]
        _note_body(w, s)
        if after.count == 1 and is_fresh(s.readings):
            s.again = s.readings.kind       # nothing is kept of what may never come
            free_readings(s.readings)
            s.readings = NULL
        elif not plain and after.count > 1 and weights(s.readings) > cap:
            w.overflow = 1
            free_readings(s.readings)
            s.readings = NULL
    _account(w, s, True)


cdef inline int64_t _slice(const Reading* r, uint32_t others, uint8_t first) noexcept nogil:
    # How much is read until the work is counted again. Of a body it is as much as there is, since it is passed over.
    if others > 1:
        return max(<int64_t>SHARED // others, <int64_t>SHARED_LEAST)
    if reader_of(r).short_lived or r.kind == READ_ANY and first < 0x20:
        return SHARED_SHORT
    return <int64_t>max(<uint64_t>SHARED, min(body_left(r), <uint64_t>MAX_AHEAD))


cdef bint _is_doubtful(const Window* w, int64_t pos) noexcept nogil:
    # Whether there is more than one way to read the bytes from here on.
    cdef const Copy* copy = w.copies
    cdef int i
    while copy != NULL:
        if copy.at + copy.size > pos:
            return True
        copy = copy.next
    for i in range(w.urgent_count):
        if w.urgent[i] >= pos:
            return True
    return False


cdef Reading* _second_reading(const Window* w, const Start* s) noexcept nogil:
    # Of the same message, as far as reports are concerned: the same name once more is nothing new.
    cdef Reading* r = new_reading(s.again)
    if r != NULL:
        r.began = s.began
        r.again = 1
        reader_of(r).begin_again(r.state)
    return r


cdef bint _spend(Window* w, uint32_t cost, uint32_t* budget) noexcept nogil:
    if budget[0] < cost or w.work > <uint32_t>FLOW_WORK:
        w.overflow = 1
        return False
    budget[0] -= cost
    w.work += cost
    return True


cdef void _account(Window* w, Start* s, bint holds) noexcept nogil:
    # Readings count as memory of the window while nobody is at work on them.
    w.bytes -= s.held
    s.held = weights(s.readings) + weights(s.checkpoint) + weights(s.mark) if holds else 0
    w.bytes += s.held


cdef bint _leap(Start* s, int64_t to) noexcept nogil:
    # A gap inside a body that is passed over anyway need not be filled.
    cdef Reading* r = s.readings
    cdef uint64_t gap = <uint64_t>(to - s.frontier)
    if r == NULL or r.next != NULL or reader_of(r).pass_over == NULL or not reader_of(r).pass_over(r.state, gap):
        return False
    s.frontier = to
    return True


cdef void _note_body(Window* w, const Start* s) noexcept nogil:
    # Where the only reading passes over a body, its first bytes aside. What comes late there, or once more, changes
    # nothing, as long as what stands before the body is what was read.
    cdef const Reading* r = s.readings
    cdef uint64_t left
    cdef int i
    if s.kind == START_LATE:
        return
    for i in range(MAX_STARTS):
        if &w.starts[i] != s and _is_live(&w.starts[i]):
            return
    if r == NULL or r.next != NULL or not within_body(r):
        w.body_open = 0
        return
    if not w.body_open:
        w.body_open = 1
        w.body_at = s.frontier
        w.unseen = 0
        w.late_lost = 0
    left = body_left(r)
    w.body_end = s.frontier + <int64_t>(left if left < MAX_AHEAD else MAX_AHEAD)
    if w.unseen > MAX_UNSEEN:
        w.body_at = w.body_end


cdef void _drop_late(Window* w) noexcept nogil:
    # Late bytes of a body that was passed over make room for those to come: an upload may send many of them again.
    cdef int i
    cdef bint late = False, other = False
    for i in range(MAX_STARTS):
        if w.starts[i].kind == START_LATE and _is_passed_over(w, w.starts[i].at):
            late = True
        elif w.starts[i].kind != START_FREE:
            other = True
    if not late or not other:
        return
    for i in range(MAX_STARTS):
        if w.starts[i].kind == START_LATE and _is_passed_over(w, w.starts[i].at):
            _free_start(w, &w.starts[i])
    _move_up(w)
    _forget(w, _floor(w))
    w.late_lost = 1


cdef void _move_up(Window* w) noexcept nogil:
    # The first place tells where the stream stands.
    cdef int i
    for i in range(1, MAX_STARTS):
        if w.starts[0].kind == START_FREE and w.starts[i].kind != START_FREE:
            w.starts[0] = w.starts[i]
            memset(&w.starts[i], 0, sizeof(Start))


cdef void _slide(Window* w, uint32_t cap, bint hurry) noexcept nogil:
    # A long connection, of messages that may be long: its readings are marked now and then, and once half the memory
    # is used and a quarter of it lies behind the mark, what stands before the mark is forgotten; reading begins anew
    # from there, if it must. So what is sent again is compared with what it was for as long as clients usually send
    # it again. In a hurry all that was read is forgotten: for a body that could not be passed over otherwise.
    cdef Start* s
    cdef Reading* r
    cdef int64_t floor = 0
    cdef bint any_mark = False, ready = w.bytes >= cap // 2
    cdef int i
    for i in range(MAX_STARTS):
        s = &w.starts[i]
        r = s.readings
        while r != NULL:
            if reader_of(r).short_lived:
                return
            r = r.next
        if s.readings == NULL:
            continue
        if hurry:
            free_readings(s.mark)
            s.mark = NULL
        if s.mark == NULL:
            _mark(w, s)
        if s.mark == NULL or not hurry and s.frontier - s.mark_at < cap // 4:
            ready = False
        if not any_mark or s.mark_at < floor:
            floor = s.mark_at
        any_mark = True
    if not ready or not any_mark:
        return
    for i in range(MAX_STARTS):
        s = &w.starts[i]
        if s.readings == NULL:
            if s.at < floor:                # a beginning that nothing has come of
                _free_start(w, s)
            continue
        free_readings(s.checkpoint)
        s.checkpoint = s.mark
        s.at = s.mark_at
        s.mark = NULL
        _mark(w, s)
    _move_up(w)
    _forget(w, floor)


cdef void _leave_behind(Window* w, uint32_t moved) noexcept nogil:
    # Connections before this one on the same ports, read to their end, make room for that which has `moved`. One that
    # goes on all the same is read from where it stood.
    cdef Start* s
    cdef int64_t at, end
    cdef bint any_left = False
    cdef int i
    for i in range(MAX_STARTS):
        s = &w.starts[i]
        if moved >> i & 1 or not _is_left_behind(w, s, moved):
            continue
        at, end = s.at, s.frontier
        if not _note_over(w, at, end, True):
            continue
        s.at = end
        _give_up(w, s)
        _free_start(w, s)
        _drop_between(w, at, end)
        any_left = True
    if any_left:
        w.forgetful = 1
        _move_up(w)


cdef bint _is_left_behind(const Window* w, const Start* s, uint32_t moved) noexcept nogil:
    # Of one that may come upon these bytes, ahead or sent again, they stay.
    cdef const Start* other
    cdef bint left = False
    cdef int i
    if s.kind != START_SYN or not s.message or not _is_between_messages(s):
        return False
    for i in range(MAX_STARTS):
        other = &w.starts[i]
        if other == s or other.kind == START_FREE:
            continue
        if other.at <= s.frontier and s.at <= other.frontier + MAX_AHEAD:
            return False
        left = left or moved >> i & 1
    return left


cdef void _mark(Window* w, Start* s) noexcept nogil:
    s.mark = copy_readings(s.readings)
    s.mark_at = s.frontier
    _account(w, s, True)


cdef void _forget(Window* w, int64_t floor) noexcept nogil:
    # All bytes before `floor`. Where a stream was given up that may come upon them, it is known that they were there.
    cdef Run* run = w.runs
    cdef uint8_t* shrunk
    cdef uint32_t size
    cdef uint8_t i, kept = 0
    while run != NULL and run.at < floor and w.given_up:
        _note_over(w, run.at, min(run.at + <int64_t>run.size, floor), True)
        run = run.next
    w.forgetful = 1
    w.recent = NULL
    w.guide_count = 0
    _sort_edges(w)
    size = _edge_behind(w, floor - 1)
    if size:
        w.edge_count -= <uint16_t>size
        w.edges_sorted = w.edge_count
        memmove(w.edges, w.edges + size, w.edge_count * sizeof(int64_t))
    while w.runs != NULL and w.runs.at + w.runs.size <= floor:
        run = w.runs
        w.runs = run.next
        _free_run(w, run)
    run = w.runs
    if run != NULL and run.at < floor:
        size = <uint32_t>(run.at + run.size - floor)
        shrunk = <uint8_t*>malloc(size)
        if shrunk != NULL:
            memcpy(shrunk, run.data + (run.size - size), size)
            free(run.data - run.head)
            _hold(w, <int64_t>size - run.head - run.room)
            run.data = shrunk
            run.at = floor
            run.head = 0
            run.size = run.room = size
    _drop_copies(w, INT64_MIN, floor)
    for i in range(w.urgent_count):
        if w.urgent[i] >= floor:
            w.urgent[kept] = w.urgent[i]
            kept += 1
    w.urgent_count = kept


cdef void _keep(Window* w, Kept* after, Reading* r) noexcept nogil:
    # A reading that goes on, unless another stands in the same place already.
    cdef uint64_t digest = 0
    cdef uint32_t i
    cdef uint32_t most = MAX_WAYS if w.copies == NULL and w.urgent_count == 0 else MAX_READINGS
    if after.count:
        if not after.digested:
            after.digests[0] = digest_of(after.readings[0])
            after.digested = True
        digest = digest_of(r)
        for i in range(after.count):
            if after.digests[i] == digest and same_reading(after.readings[i], r):
                free_readings(r)
                return
    if after.count >= most or after.idle >= <uint32_t>MAX_WAYS and lost(r):
        # Of those that have lost their way some are enough: each finds a request that begins in a later line.
        if w.http or lost(r) != ASTRAY:
            w.overflow = 1
        free_readings(r)
        return
    after.digests[after.count] = digest
    after.readings[after.count] = r
    after.count += 1
    after.idle += lost(r) != 0


cdef void _feed(Window* w, Start* s, Reading* r, Cursor c, int64_t at, bint alone, Kept* after,
                Findings* out) noexcept nogil:
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
        _follow(w, s, r, &c, base, at, alone, &todo, after, out)


cdef void _follow(Window* w, Start* s, Reading* r, Cursor* c, const uint8_t* base, int64_t at, bint alone,
                  Reading** todo, Kept* after, Findings* out) noexcept nogil:
    # One reading goes on to the end of the bytes, or to where another is farther behind.
    cdef const Reader* reader
    cdef Outcome outcome
    cdef Step step
    cdef uint32_t names, text
    while True:
        r.place = <uint32_t>(c.at - base)
        if todo[0] != NULL and _gives_way(w, todo, r):
            return
        if w.share < -FORK_SHARE:
            w.overflow = 1
            free_readings(r)
            return
        if w.share <= 0 and alone and left(c) and c.at != base and todo[0] == NULL and after.count == 0:
            w.behind = 1
            s.frontier = at + (c.at - base)
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
        w.share -= step.cost
        s.message |= step.message
        w.http |= step.text
        w.overflow |= step.overflow
        if outcome == NEED_MORE:
            break
        if outcome == FOUND:
            r.place = <uint32_t>(c.at - base)
            _found(w, s, r, &step, todo, names, text, out)
        elif outcome == DONE and not step.succeeded:
            end_message(r)
        elif outcome == DONE:
            if not begin_behind(r, reader.successor, &step, out):
                free_readings(r)
                return
            w.share -= step.cost
        elif reader.begins != NULL and not r.again and not r.aside:
            lose_way(r, &step, out)
            w.share -= step.cost
        else:
            free_readings(r)
            return
    _keep(w, after, r)


cdef void _found(Window* w, Start* s, Reading* r, Step* step, Reading** todo, uint32_t names, uint32_t text,
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
        s.began = r.began
        w.share -= NAME_COST
        return
    if step.head and w.urgent_lost:
        w.overflow = 1
    w.dropped += step.cut               # what was not kept of the target counts as what was not kept of the stream
    if step.aside:
        _begin_aside(w, r, step, todo, out)
    elif step.ways:
        for i in range(1, step.ways):
            w.share -= FORK_COST
            fork = copy_reading(r)
            if fork == NULL:
                w.overflow = 1
                break
            reader_of(fork).choose(fork.state, i)
            _queue(w, todo, fork)
        reader_of(r).choose(r.state, 0)
    w.share -= FEED_COST + cost_of(out, names, text, w.share)


cdef void _begin_aside(Window* w, const Reading* r, Step* step, Reading** todo, Findings* out) noexcept nogil:
    # What stands here may be the start of another message: a reading of its own.
    cdef Reading* fork = new_reading(READ_ANY)
    w.share -= 2 * FORK_COST
    if fork == NULL:
        w.overflow = 1
        return
    fork.aside = 1
    fork.began = r.began
    fork.place = r.place
    if begin_behind(fork, reader_at[step.taken[0]], step, out):
        _queue(w, todo, fork)
    else:
        free_readings(fork)
    w.share -= step.cost


cdef bint _gives_way(Window* w, Reading** todo, Reading* r) noexcept nogil:
    # To one that is farther behind; or it is another's double, and goes.
    cdef Reading* other = todo[0]
    if other.place < r.place:
        _queue(w, todo, r)
        return True
    while other != NULL and other.place == r.place:
        if same_reading(other, r):
            free_readings(r)
            return True
        other = other.next
    return False


cdef void _queue(Window* w, Reading** todo, Reading* r) noexcept nogil:
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
        w.overflow = 1
        free_readings(r)
        return
    while link[0] != NULL and link[0].place < r.place:
        link = &link[0].next
    r.next = link[0]
    link[0] = r
